//! What AWS answers: eventually consistent, and in pages. Answers of before our own writes are no drift, no conflict and no original.

use std::collections::BTreeMap;
use std::time::Duration;

use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::world;

/// What both targets are looked at with.
const READS: [&str; 7] = [
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "GetUser",
    "GetUserPolicy",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
];
/// Longer than a pass takes, and shorter than AWS may take.
const LATE: Duration = Duration::from_secs(6);

/// From now on AWS shows what it showed last.
fn shows_the_past(world: &World<'_>) {
    READS.iter().for_each(|read| world.proxy.stale(read, LATE));
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
