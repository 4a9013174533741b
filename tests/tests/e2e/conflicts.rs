//! A release where AWS shows neither what Firebreak put there nor what was before, or has no way back to that: a person decides, and
//! nothing else.

use std::collections::BTreeMap;

use anyhow::ensure;
use aws_sdk_iam::types::StatusType;
use firebreak_crds::Quarantine;
use firebreak_tests::judge::Judge;
use firebreak_tests::world::World;
use firebreak_tests::{scene, sight};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::ground_up::world;

/// The groups of each interface, before.
type Before = BTreeMap<String, Vec<String>>;

/// Somebody puts an interface into a group of their own: its id.
pub async fn moved_away(world: &World<'_>, interface: &str) -> String {
    let theirs = scene::group(&world.aws, &world.scene.vpc, "theirs").await.unwrap();
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
    call.groups(&theirs).send().await.unwrap();
    theirs
}

/// Contained, then let go while somebody changed the first interface's groups: AWS shows neither Firebreak's nor the original.
async fn in_conflict(world: &World<'_>) -> (Before, String) {
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;

    // Suspended, so that nothing is repaired until the release begins.
    world.suspend(id).await;
    let theirs = moved_away(world, &interfaces[0]).await;
    world.let_go("inc", id).await;
    world.steer(id, json!({ "suspend": false })).await;
    world.until_reason("inc", "Stalled", "ReleaseConflict").await;
    (before, theirs)
}

#[tokio::test]
async fn groups_that_somebody_changed_are_a_conflict_that_a_person_decides() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let (before, theirs) = in_conflict(&world).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    for word in [&interfaces[0], &theirs, &before[&interfaces[0]][0], "KeepTheirs", "RestoreOriginal", "spec.release"] {
        assert!(message.contains(word), "no {word}: {message}");
    }
    assert_eq!(world.said("inc", "Released").await.0, "ReleaseConflict");
    let what = "what is in no conflict is given back";
    world
        .until_aws(what, async || {
            let now = sight::groups(&world.aws, interfaces).await?;
            ensure!(now[&interfaces[1]] == before[&interfaces[1]], "{now:?}");
            assert_eq!(now[&interfaces[0]], std::slice::from_ref(&theirs), "it is not touched");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn keep_theirs_leaves_what_somebody_put_there() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let (before, theirs) = in_conflict(&world).await;
    world.steer(&world.scene.instances[0].id, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    let now = sight::groups(&world.aws, interfaces).await.unwrap();
    assert_eq!((&now[&interfaces[0]], &now[&interfaces[1]]), (&vec![theirs], &before[&interfaces[1]]));
}

#[tokio::test]
async fn restore_original_puts_back_what_was_recorded() {
    let (world, _guard) = world().await;
    let (before, _) = in_conflict(&world).await;
    world.steer(&world.scene.instances[0].id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap(), before);
}

/// The attacker is back while the release of a deleted Incident is in conflict: it is held again by Incident `again`. The groups of before.
async fn held_again(world: &World<'_>) -> Before {
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    world.delete_incident("inc").await;
    world.steer(id, json!({ "suspend": true })).await;
    moved_away(world, &interfaces[0]).await;
    let held = world.quarantine_of(id).await.unwrap();
    world.all_quarantines().delete(&held.metadata.name.clone().unwrap(), &DeleteParams::default()).await.unwrap();
    world.steer(id, json!({ "suspend": false })).await;
    world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    world
        .until_aws("the other interface is given back", async || {
            let now = sight::groups(&world.aws, interfaces).await?;
            ensure!(now[&interfaces[1]] == before[&interfaces[1]], "{now:?}");
            Ok(())
        })
        .await;

    world.declare("again", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("again", "Contained", "True").await;
    world.until("again", "Ready", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    let again = world.quarantine_of(id).await.unwrap();
    assert_eq!(
        (again.metadata.uid, again.spec.original),
        (held.metadata.uid, held.spec.original),
        "the record is the true one"
    );
    world.until_quarantine_says(id, "Stalled", "DeletionBlocked").await;
    before
}

#[tokio::test]
async fn what_is_in_conflict_while_its_quarantine_is_deleted_can_be_contained_again_and_comes_back_as_it_was() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let before = held_again(&world).await;
    world.release("again").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

/// `Retain` is the default; a namespace that goes ends a hold likewise.
#[tokio::test]
async fn what_is_held_again_while_its_quarantine_is_deleted_stays_contained_when_that_incident_is_deleted_too() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = held_again(&world).await;
    world.delete_incident("again").await;
    let ready = |q: &Quarantine| q.status.iter().flat_map(|s| &s.conditions).any(|c| c.message.contains("which is gone"));
    world.until_quarantine(id, "says how it ends", ready).await;
    world.until_answered("DescribeNetworkInterfaces", 3).await;
    sight::isolated(&world.aws, interfaces).await.unwrap();

    world.declare("again", "Release", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("again", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

/// As where a status of more than a hundred targets has no room for it.
#[tokio::test]
async fn a_conflict_is_told_also_of_what_neither_the_spec_nor_the_status_names() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    in_conflict(&world).await;
    world.change("inc", json!({ "targets": [world.user_target()] })).await;
    let none = Patch::Merge(json!({ "status": { "targets": [] } }));
    world.incidents().patch_status("inc", &PatchParams::default(), &none).await.unwrap();
    let conflict = |t: &firebreak_crds::TargetStatus| t.reason == "ReleaseConflict" && t.message.contains("KeepTheirs");
    let told = world.until_target("inc", 1, conflict).await;
    assert_eq!(told.resource.unwrap().id, *id);
    world.until_reason("inc", "Released", "ReleaseConflict").await;
    world.steer(id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
}

/// Contained; then a group is deleted that both interfaces were in, and the instance let go. Returns the group that is left.
async fn without_a_group(world: &World<'_>) -> String {
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let [web, _] = world.scene.groups.clone();
    let old = scene::group(&world.aws, &world.scene.vpc, "old").await.unwrap();
    for interface in interfaces {
        let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
        call.groups(&web).groups(&old).send().await.unwrap();
    }
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    world.aws.ec2.delete_security_group().group_id(&old).send().await.unwrap();
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    for word in [&*interfaces[0], &*old, "no longer exists", "KeepTheirs", "RestoreOriginal", &*web] {
        assert!(message.contains(word), "no {word}: {message}");
    }
    sight::isolated(&world.aws, interfaces).await.unwrap();
    web
}

#[tokio::test]
async fn an_instance_whose_group_was_deleted_meanwhile_comes_back_into_what_is_left_if_a_person_says_so() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let web = without_a_group(&world).await;
    world.steer(&world.scene.instances[0].id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    let now = sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    assert!(now.values().all(|groups| *groups == [web.clone()]), "{now:?}");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_decision_about_another_conflict_leaves_no_interface_isolated_whose_group_was_deleted() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let put = async |interface: &str, group: &str| {
        let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
        call.groups(group).send().await.unwrap();
    };
    let web = without_a_group(&world).await;
    put(&interfaces[0], &web).await; // the other conflict, which was decided first
    world.steer(id, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until_answered("DescribeNetworkInterfaces", 4).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    assert!(message.contains(&interfaces[1]) && !message.contains(&interfaces[0]), "{message}");
    sight::isolated(&world.aws, &interfaces[1..]).await.unwrap();

    put(&interfaces[1], &web).await;
    world.look_now().await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    let now = sight::groups(&world.aws, interfaces).await.unwrap();
    assert!(now.values().all(|groups| *groups == [web.clone()]), "{now:?}");
}

#[tokio::test]
async fn the_boundary_that_was_there_comes_back_and_one_that_somebody_put_is_a_conflict() {
    let (world, _guard) = world().await;
    let (policies, iam) = ("arn:aws:iam::aws:policy/", &world.aws.iam);
    let put = async |policy: &str| {
        let put = iam.put_user_permissions_boundary().user_name("mallory");
        put.permissions_boundary(format!("{policies}{policy}")).send().await.unwrap();
    };
    put("ReadOnlyAccess").await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    world.release("inc").await;
    assert_eq!(sight::boundary(&world.aws).await.unwrap().as_deref(), Some("ReadOnlyAccess"));
    world.until_nothing_is_held().await;

    world.declare("again", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("again", "Contained", "True").await;
    world.steer("mallory", json!({ "suspend": true })).await;
    put("AdministratorAccess").await;
    world.let_go("again", "mallory").await;
    world.steer("mallory", json!({ "suspend": false })).await;
    let message = world.until_quarantine_says("mallory", "Stalled", "ReleaseConflict").await;
    assert!(message.contains("ReadOnlyAccess") && message.contains("AdministratorAccess"), "{message}");
    assert!(sight::attached_policies(&world.aws).await.unwrap().contains(&"AWSDenyAll".to_owned()), "still denied");
    world.steer("mallory", json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("again", "Released", "True").await;
    assert_eq!(sight::boundary(&world.aws).await.unwrap().as_deref(), Some("ReadOnlyAccess"));
}

#[tokio::test]
async fn what_is_decided_of_a_conflict_leaves_no_key_on() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.steer("mallory", json!({ "suspend": true })).await;
    let (iam, key) = (&world.aws.iam, &world.scene.access_keys[0]);
    let bound = iam.put_user_permissions_boundary().user_name("mallory");
    bound.permissions_boundary("arn:aws:iam::aws:policy/AdministratorAccess").send().await.unwrap();
    iam.update_access_key().user_name("mallory").access_key_id(key).status(StatusType::Active).send().await.unwrap();
    world.let_go("inc", "mallory").await;
    world.steer("mallory", json!({ "suspend": false, "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    let keys = sight::keys(&world.aws).await.unwrap();
    assert!(keys.values().all(|status| status == "Inactive"), "{keys:?}");
    assert_eq!(sight::boundary(&world.aws).await.unwrap().as_deref(), Some("AdministratorAccess"), "that was the conflict");
}
