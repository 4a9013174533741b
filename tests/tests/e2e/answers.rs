//! What AWS answers: eventually consistent, and in pages. Answers of before our own writes are no drift, no conflict and no original.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use firebreak_tests::credentials::Credentials;
use firebreak_tests::eventually::condition;
use firebreak_tests::judge::Judge;
use firebreak_tests::world::World;
use firebreak_tests::{scene, sight};
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

/// A release that gives a role back waits until new credentials are told from the old ones.
const RELEASED: Duration = Duration::from_mins(3);
/// Longer than a pass takes, and shorter than AWS may take.
const LATE: Duration = Duration::from_secs(6);

/// All that Firebreak reads: the chart documents the permissions.
fn reads() -> Vec<String> {
    let policy: Value = serde_json::from_str(include_str!("../../../docs/iam-policy.json")).unwrap();
    let look = policy["Statement"].as_array().unwrap().iter().find(|s| s["Sid"] == "Look").unwrap();
    let names = look["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap());
    names.map(|name| name.split_once(':').unwrap().1.to_owned()).collect()
}

/// From now on AWS shows what it showed last.
fn shows_the_past(world: &World<'_>) {
    reads().iter().for_each(|read| world.proxy.stale(read, LATE));
}

/// A world with all that the policy of the examples finds which does all that can be done, and that policy.
async fn thorough() -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::crowd(&world.aws, &world.scene).await.unwrap();
    scene::role(&world.aws).await.unwrap();
    for kind in Credentials::ALL {
        kind.make(&world.aws).await.unwrap();
    }
    let policy = include_str!("../../../examples/21-containment-policy-thorough.yaml");
    let here = policy.replace("name: thorough", &format!("name: {}", world.policy_name("thorough")));
    assert_ne!(here, policy);
    world.plane.apply(&here).await.unwrap();
    (world, guard)
}

async fn declare_thorough(world: &World<'_>, mode: &str) {
    let targets = [world.instance_target(0), world.user_target(), world.role_target()];
    let spec = json!({ "policyRef": { "name": world.policy_name("thorough") }, "targets": targets });
    world.declare("inc", mode, spec).await;
}

async fn until_all_is_cut(world: &World<'_>) {
    let (aws, instance) = (&world.aws, &world.scene.instances[0]);
    world
        .until_aws("all of it is cut", async || {
            sight::isolated(aws, &instance.interfaces).await?;
            sight::cut_off(aws).await?;
            sight::role_denied(aws).await?;
            for kind in Credentials::ALL {
                let all = kind.all(aws).await?;
                ensure!(all.values().all(|status| status != "Active"), "{kind:?}: {all:?}");
            }
            let (place, registered) = (sight::membership(aws, &instance.id).await?, sight::registrations(aws).await?);
            ensure!(place.is_none() && registered.values().all(Vec::is_empty), "{place:?} {registered:?}");
            let addresses = sight::public_addresses(aws, &instance.interfaces).await?;
            ensure!(addresses.values().all(Option::is_none), "{addresses:?}");
            let (profile, sessions) = (sight::profile(aws, &instance.id).await?, sight::open_sessions(aws).await?);
            ensure!(profile.as_ref().is_some_and(|(_, name)| name == "firebreak-deny-all"), "{profile:?}");
            ensure!(sessions.is_empty(), "{sessions:?}");
            Ok(())
        })
        .await;
}

/// What a release gives back of it by default, each as text: not keys, and not the place in the Auto Scaling group.
async fn given_back(world: &World<'_>) -> anyhow::Result<Vec<String>> {
    let (aws, instance) = (&world.aws, &world.scene.instances[0]);
    let (mut user, mut role) = (sight::user(aws).await?, sight::role(aws).await?);
    user.residual.clear();
    role.residual.clear();
    let profile = sight::profile(aws, &instance.id).await?.map(|(_, name)| name);
    let metadata = sight::instance(aws, &instance.id).await?.metadata_options().map(|m| m.http_endpoint().cloned());
    Ok(vec![
        format!("{user:?}"),
        format!("{role:?}"),
        format!("{profile:?} {metadata:?}"),
        format!("{:?}", sight::groups(aws, &instance.interfaces).await?),
        format!("{:?}", sight::registrations(aws).await?),
        format!("{:?}", sight::public_addresses(aws, &instance.interfaces).await?),
        format!("{:?}", sight::protection(aws, &instance.id).await?),
    ])
}

async fn until_released(world: &World<'_>) {
    world.change("inc", json!({ "mode": "Release" })).await;
    condition(&world.incidents(), "inc", "Released", "True", RELEASED).await;
    world.until_nothing_is_held().await;
}

async fn nobody_is_blamed(world: &World<'_>, ids: &[&str]) {
    for id in ids {
        let name = world.quarantine_of(id).await.map(|q| q.metadata.name.unwrap());
        for object in name.iter().map(String::as_str).chain(["inc"]) {
            let events = world.events_of(object).await;
            let blamed = |e: &&String| e.starts_with("DriftDetected") || e.starts_with("ReleaseConflict");
            assert_eq!(events.iter().find(blamed), None, "{events:#?}");
        }
    }
}

/// The recorded groups of each interface.
async fn recorded(world: &World<'_>, id: &str) -> BTreeMap<String, Vec<String>> {
    let original = world.quarantine_of(id).await.unwrap().spec.original.unwrap();
    let of = |(key, text): (String, firebreak_crds::Text)| {
        let interface = key.strip_prefix("isolateNetwork/")?.to_owned();
        let value: Value = serde_json::from_str(&text.0).unwrap();
        Some((interface, serde_json::from_value(value["groups"].clone()).unwrap()))
    };
    original.into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn answers_of_before_our_own_writes_are_no_drift_no_conflict_and_no_original() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (instance, user) = (&world.scene.instances[0], "mallory");
    let before = sight::groups(&world.aws, &instance.interfaces).await.unwrap();
    world.declare("inc", "Plan", json!({})).await;
    world.until_reason("inc", "Ready", "Planned").await;

    shows_the_past(&world);
    world.change("inc", json!({ "mode": "Contain" })).await;
    world
        .until_aws("cut although AWS shows it open", async || {
            sight::isolated(&world.aws, &instance.interfaces).await?;
            sight::cut_off(&world.aws).await
        })
        .await;
    world.until("inc", "Contained", "True").await;
    nobody_is_blamed(&world, &[&instance.id, user]).await;
    for id in [&instance.id, user] {
        assert_eq!(world.quarantine_of(id).await.unwrap().status.unwrap().drift_count, 0, "{id}");
    }
    assert_eq!(recorded(&world, &instance.id).await, before);

    shows_the_past(&world);
    world.release("inc").await;
    nobody_is_blamed(&world, &[]).await;
    assert_eq!(sight::groups(&world.aws, &instance.interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn late_answers_to_every_read_of_every_action_are_no_drift_no_conflict_and_no_original() {
    let (world, _guard) = thorough().await;
    let judge = Judge::of(&world).await;
    let (instance, ids) = (&world.scene.instances[0], [&world.scene.instances[0].id, "mallory", scene::ROLE]);
    let groups = sight::groups(&world.aws, &instance.interfaces).await.unwrap();
    let before = given_back(&world).await.unwrap();
    declare_thorough(&world, "Plan").await;
    world.until_reason("inc", "Ready", "Planned").await;

    shows_the_past(&world);
    world.change("inc", json!({ "mode": "Contain" })).await;
    until_all_is_cut(&world).await;
    world.until("inc", "Contained", "True").await;
    nobody_is_blamed(&world, &ids).await;
    for id in ids {
        let quarantine = world.quarantine_of(id).await.unwrap();
        assert_eq!(quarantine.status.unwrap().drift_count, 0, "{id}");
        let unknown = quarantine.spec.original.into_iter().flatten().find(|(key, _)| key.ends_with("/unknown"));
        assert_eq!(unknown, None, "{id}");
    }
    assert_eq!(recorded(&world, &instance.id).await, groups);

    shows_the_past(&world);
    until_released(&world).await;
    nobody_is_blamed(&world, &[]).await;
    assert_eq!(given_back(&world).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn every_page_of_every_service_is_read_also_after_an_empty_one() {
    let (world, _guard) = thorough().await;
    let judge = Judge::of(&world).await;
    for kind in Credentials::ALL {
        kind.make(&world.aws).await.unwrap();
    }
    let before = given_back(&world).await.unwrap();
    world.proxy.short_pages();
    declare_thorough(&world, "Contain").await;
    until_all_is_cut(&world).await;
    world.until("inc", "Contained", "True").await;
    let pages = |action: &str, marker: &str| {
        world.proxy.count(|c| c.action == action && c.params.get(marker).is_some_and(|m| m.starts_with("firebreak-page-")))
    };
    let expected = [
        ("ListAccessKeys", "Marker"),
        ("ListSigningCertificates", "Marker"),
        ("ListSSHPublicKeys", "Marker"),
        ("ListAttachedRolePolicies", "Marker"),
        ("DescribeAutoScalingInstances", "NextToken"),
        ("DescribeTargetGroups", "Marker"),
        ("DescribeLoadBalancers", "Marker"),
    ];
    expected.iter().for_each(|(action, marker)| assert!(pages(action, marker) > 0, "{action} had one page"));
    until_released(&world).await;
    assert_eq!(given_back(&world).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn every_page_is_read_also_after_an_empty_one() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let instance = &world.scene.instances[0];
    let mut interfaces = instance.interfaces.clone();
    for index in 2..8 {
        let made = world.aws.ec2.create_network_interface().subnet_id(&world.scene.subnet).send().await.unwrap();
        let id = made.network_interface.unwrap().network_interface_id.unwrap();
        let attach = world.aws.ec2.attach_network_interface().instance_id(&instance.id).network_interface_id(&id);
        attach.device_index(index).send().await.unwrap();
        interfaces.push(id);
    }
    let before = sight::groups(&world.aws, &interfaces).await.unwrap();
    world.proxy.short_pages();
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &interfaces).await.unwrap();
    assert_eq!(recorded(&world, &instance.id).await, before);
    world.until("inc", "EvidencePreserved", "True").await;
    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, &interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}
