//! The record of what was there survives the loss of the objects that it is in.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::ensure;
use firebreak_crds::{AwsAccount, Evidence, Quarantine};
use firebreak_tests::eventually::{eventually, gone};
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::{self, ROLE, USER};
use firebreak_tests::sight;
use firebreak_tests::world::{NAMESPACE, SOON, World, mac_keys, standard_policy};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::apart::{Apart, CONTROLLER, apart};
use crate::cascade::contained_by;

/// Runs one command of the controller's binary as a cluster admin; gives what it prints.
async fn command(plane: &Plane, arguments: &[&str], input: &str) -> String {
    let output = run(plane, arguments, input).await;
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

async fn run(plane: &Plane, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(CONTROLLER)
        .args(arguments)
        .env("KUBECONFIG", plane.kubeconfig())
        .envs([("AWS_ACCESS_KEY_ID", "admin"), ("AWS_SECRET_ACCESS_KEY", "admin"), ("AWS_EC2_METADATA_DISABLED", "true")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

/// Lost, as with a cluster: nobody is asked.
async fn lose<K>(objects: &Api<K>, names: Vec<String>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    for name in names {
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        eventually("the admission policies are gone", SOON, async || {
            Ok(objects.patch(&name, &PatchParams::default(), &patch).await?)
        })
        .await;
        objects.delete(&name, &DeleteParams::default()).await.unwrap();
        gone(objects, &name, SOON).await;
    }
}

async fn lose_everything(world: &World<'_>) {
    let quarantines = world.quarantines().await.iter().map(ResourceExt::name_any).collect();
    lose(&Api::<Quarantine>::all(world.kube.clone()), quarantines).await;
    let evidence = world.evidence().await.iter().map(ResourceExt::name_any).collect();
    lose(&Api::<Evidence>::all(world.kube.clone()), evidence).await;
}

/// The policy `standard`, which gives access keys back.
fn policy() -> Value {
    let mut policy = standard_policy();
    policy["release"] = json!({ "reactivateAccessKeys": true });
    policy
}

/// The backup of a containment that began an hour earlier, as did its evidence.
fn an_hour_older(backup: &str) -> String {
    let mut backup: Value = serde_json::from_str(backup).unwrap();
    let earlier = |text: &mut Value| {
        let at: Timestamp = text.as_str().expect("a time").parse().unwrap();
        *text = json!((at - SignedDuration::from_hours(1)).to_string());
    };
    for quarantine in backup["quarantines"].as_array_mut().unwrap() {
        earlier(&mut quarantine["metadata"]["annotations"]["firebreak.dev/contained-since"]);
    }
    backup["evidence"].as_array_mut().unwrap().iter_mut().for_each(|e| earlier(&mut e["status"]["request"]["at"]));
    backup.to_string()
}

/// As an import leaves the evidence that is broken off before it has stored the record.
async fn without_record(world: &World<'_>) {
    let [mut evidence] = world.evidence().await.try_into().unwrap();
    evidence.status = None;
    let api = Api::<Evidence>::all(world.kube.clone());
    api.replace_status(&evidence.name_any(), &PostParams::default(), &evidence).await.unwrap();
}

/// The backup, made when AWS had not answered yet whether it takes the snapshots.
fn unanswered(backup: &str) -> String {
    let mut backup: Value = serde_json::from_str(backup).unwrap();
    for evidence in backup["evidence"].as_array_mut().unwrap() {
        let mut request = evidence["status"]["request"].take();
        request["outcome"] = json!("Unknown");
        evidence["status"] = json!({ "request": request });
    }
    backup.to_string()
}

/// The backup, with another record.
fn another(backup: &str) -> String {
    let mut backup: Value = serde_json::from_str(backup).unwrap();
    backup["quarantines"][0]["spec"]["suspend"] = json!(true);
    backup.to_string()
}

/// While nobody looks, one of the user's keys gives way to a new one. The new one's id.
async fn another_key(world: &World<'_>) -> String {
    let (iam, old) = (&world.aws.iam, &world.scene.access_keys[1]);
    iam.delete_access_key().user_name(USER).access_key_id(old).send().await.unwrap();
    let made = iam.create_access_key().user_name(USER).send().await.unwrap();
    made.access_key.unwrap().access_key_id
}

/// The instance stops, which waits for the evidence of this containment.
async fn is_stopped(world: &World<'_>) {
    let mut policy = policy();
    policy["ec2Instance"]["contain"] = json!([{ "isolateNetwork": {} }, { "stopInstance": {} }]);
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    eventually("it is stopped", SOON, async || {
        let state = sight::state(&world.aws, &world.scene.instances[0].id).await?;
        ensure!(state == "stopped", "{state}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_was_exported_and_lost_is_imported_and_given_back() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, before) = contained_by(&plane, policy()).await;
    let backup = an_hour_older(&command(&plane, &["export"], "").await);
    controller.stop().unwrap();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/firebreak");
    let upgrade = ["upgrade", "firebreak", chart.to_str().unwrap(), "--namespace", NAMESPACE];
    plane.helm(&[&upgrade[..], &["--set", "admission.enabled=false"]].concat()).await.unwrap();
    lose_everything(&world).await;
    let new = another_key(&world).await;

    let told = command(&plane, &["import"], &backup).await;
    assert_eq!(told.lines().filter(|line| line.ends_with(": made")).count(), 3, "{told}");
    let again = command(&plane, &["import"], &backup).await;
    assert_eq!(again.lines().filter(|line| line.ends_with("there already")).count(), 3, "{again}");
    let other = run(&plane, &["import"], &another(&backup)).await;
    let told = String::from_utf8_lossy(&other.stdout);
    assert!(!other.status.success() && told.contains("LEFT ALONE") && told.contains("\nEvidence "), "to its end: {told}");
    without_record(&world).await;
    let told = command(&plane, &["import"], &unanswered(&backup)).await;
    assert!(told.contains(": completed"), "{told}");

    controller.start().unwrap();
    world.until("inc", "Contained", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3, "none is taken again");
    is_stopped(&world).await;
    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap(), before);
    let (keys, old) = (sight::keys(&world.aws).await.unwrap(), &world.scene.access_keys[0]);
    assert_eq!((keys[old].as_str(), keys[&new].as_str()), ("Active", "Inactive"), "it was made during the containment");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn what_outlives_a_release_is_carried_over_and_ended_by_the_next_cluster() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    let backup = command(&plane, &["export"], "").await;
    controller.stop().unwrap();
    let (accounts, name) = (Api::<AwsAccount>::all(world.kube.clone()), world.account_name());
    let denies = async || accounts.get(&name).await.unwrap().status.unwrap_or_default().residual_denies;
    let before = denies().await;
    assert_eq!(before.len(), 1);
    lose(&accounts, vec![name.clone()]).await;

    let told = run(&plane, &["import"], &backup).await;
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(!told.status.success() && text.contains(&format!("AwsAccount {name}: LEFT ALONE: it is not there")), "{text}");
    plane.apply(&world.account(json!({})).to_string()).await.unwrap();
    for expected in ["completed", "there already"] {
        let told = command(&plane, &["import"], &backup).await;
        assert!(told.contains(&format!("AwsAccount {name}: {expected}")), "{told}");
    }
    controller.start().unwrap();
    world.account_ready().await;
    assert_eq!(denies().await, before);

    let mut over = before;
    over[0].until.0 = "2026-01-01T00:00:00Z".parse().unwrap();
    let patch = Patch::Merge(json!({ "status": { "residualDenies": over } }));
    accounts.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    world.look_now().await;
    eventually("only the user's own policy is left", SOON, async || {
        let policies = sight::inline_policies(&world.aws).await?;
        ensure!(policies == ["own"], "{policies:?}");
        Ok(())
    })
    .await;
}

/// The policy `standard`, with what leaves marks that are no tags.
fn much() -> Value {
    let mut policy = standard_policy();
    policy["ec2Instance"]["contain"] = json!([{ "isolateNetwork": {} }, { "revokeInstanceRole": {} }]);
    policy["iamRole"] = json!({ "contain": [{ "sealTrustPolicy": {} }] });
    policy
}

/// A role that is sealed; and the instance got one, which gave way to ours.
async fn contain_roles(world: &World<'_>, instance: &str) {
    scene::role(&world.aws).await.unwrap();
    world.declare("role", "Contain", json!({ "targets": [world.role_target()] })).await;
    world.until("role", "Contained", "True").await;
    scene::instance_profile(&world.aws, "web").await.unwrap();
    scene::put_profile(&world.aws, instance, "web").await.unwrap();
    eventually("it has our own profile", SOON, async || {
        let shown = sight::profile(&world.aws, instance).await?.map(|(_, name)| name);
        ensure!(shown.as_deref() == Some("firebreak-deny-all"), "{shown:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_inventory_lists_what_carries_a_mark_though_no_object_knows_of_it() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, ..) = contained_by(&plane, much()).await;
    let instance = &world.scene.instances[0];
    contain_roles(&world, &instance.id).await;
    eventually("both carry a copy", SOON, async || {
        let (instance, user) = (sight::marks(&world.aws, &instance.id).await?, sight::user_tags(&world.aws).await?);
        ensure!(
            [&instance, &user].iter().all(|tags| tags.contains_key("firebreak.dev/original-0")),
            "{instance:?} {user:?}"
        );
        Ok(())
    })
    .await;
    controller.stop().unwrap();
    let keys = mac_keys(&plane).await.unwrap();
    let inventory = ["inventory", "--account", &world.account_name(), "--mac-key-file", keys.to_str().unwrap()];
    let list = command(&plane, &inventory, "").await;
    let blind = command(&plane, &inventory[..3], "").await;
    assert!(blind.contains("tags: not checked") && !blind.contains("NOT VALID"), "{blind}");
    for (resource, mark) in [
        (format!("instance {}", instance.id), "firebreak.dev/incident=".to_owned()),
        (format!("interface {}", instance.interfaces[0]), "in firebreak-isolation".to_owned()),
        (format!("user {USER}"), "policy firebreak-deny-all".to_owned()),
        (format!("user {USER}"), "attached AWSDenyAll".to_owned()),
        (format!("instance {}", instance.id), "tags: valid".to_owned()),
        (format!("user {USER}"), format!("for {}/inc", world.namespace)),
        ("security group ".to_owned(), format!("firebreak-isolation of {}", world.scene.vpc)),
        (format!("role {ROLE}"), "sealed trust policy".to_owned()),
        (format!("instance {}", instance.id), "instance profile firebreak-deny-all".to_owned()),
        ("snapshot snap-".to_owned(), format!("of {}", instance.volumes[2])),
    ] {
        assert!(list.lines().any(|l| l.contains(&resource) && l.contains(&mark)), "no {resource} {mark}: {list}");
    }
    // Somebody takes away the mark, and not the copy.
    let mark = |key: &str| aws_sdk_ec2::types::Tag::builder().key(format!("firebreak.dev/{key}")).build();
    let take = world.aws.ec2.delete_tags().resources(&instance.id).tags(mark("incident")).tags(mark("since"));
    take.send().await.unwrap();
    let list = command(&plane, &inventory, "").await;
    let copied = |l: &&str| l.contains(&format!("instance {}", instance.id)) && l.contains("tags: valid");
    assert_eq!(list.lines().filter(copied).count(), 1, "{list}");
}
