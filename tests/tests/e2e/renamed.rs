//! A contained user that somebody renames is contained under its new name, and given back there. A name says nothing: another user
//! may have the old one.

use anyhow::ensure;
use firebreak_crds::AwsAccount;
use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use kube::Api;
use serde_json::json;

use crate::ground_up::world;

const NEW: &str = "eve";
const DENY: &str = "arn:aws:iam::aws:policy/AWSDenyAll";

async fn rename(world: &World<'_>) {
    world.aws.iam.update_user().user_name(USER).new_user_name(NEW).send().await.unwrap();
}

async fn attached(world: &World<'_>, user: &str) -> anyhow::Result<Vec<String>> {
    let answer = world.aws.iam.list_attached_user_policies().user_name(user).send().await?;
    Ok(answer.attached_policies().iter().filter_map(|p| p.policy_arn.clone()).collect())
}

async fn boundary(world: &World<'_>, user: &str) -> anyhow::Result<Option<String>> {
    let shown = world.aws.iam.get_user().user_name(user).send().await?.user;
    Ok(shown.and_then(|u| u.permissions_boundary).and_then(|b| b.permissions_boundary_arn))
}

/// Whether the renamed user is denied thrice, and has no key that is on.
async fn cut_off(world: &World<'_>) -> anyhow::Result<()> {
    let keys = world.aws.iam.list_access_keys().user_name(NEW).send().await?.access_key_metadata;
    ensure!(keys.iter().all(|k| k.status.as_ref().is_some_and(|s| s.as_str() == "Inactive")), "{keys:?}");
    let inline = world.aws.iam.list_user_policies().user_name(NEW).send().await?.policy_names;
    ensure!(inline.contains(&"firebreak-deny-all".to_owned()), "{inline:?}");
    let (attached, boundary) = (attached(world, NEW).await?, boundary(world, NEW).await?);
    ensure!(attached.contains(&DENY.to_owned()) && boundary.as_deref() == Some(DENY), "{attached:?} {boundary:?}");
    Ok(())
}

/// The attacker takes every deny away, and switches a key on.
async fn undo(world: &World<'_>) {
    let iam = &world.aws.iam;
    iam.delete_user_policy().user_name(NEW).policy_name("firebreak-deny-all").send().await.unwrap();
    iam.detach_user_policy().user_name(NEW).policy_arn(DENY).send().await.unwrap();
    iam.delete_user_permissions_boundary().user_name(NEW).send().await.unwrap();
    let key = &world.scene.access_keys[0];
    iam.update_access_key().user_name(NEW).access_key_id(key).status("Active".into()).send().await.unwrap();
}

#[tokio::test]
async fn a_renamed_user_is_contained_and_given_back_under_the_name_that_it_has_now() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    rename(&world).await;
    undo(&world).await;
    world.aws.iam.create_user().user_name(USER).send().await.unwrap(); // a decoy
    world.until_aws("it is cut off again", async || cut_off(&world).await).await;
    let target = world.until_target("inc", 0, |t| t.reason == "NameTaken").await;
    assert!(target.contained == "False" && target.message.contains("another user"), "who has the name is free: {target:?}");
    world.aws.iam.delete_user().user_name(USER).send().await.unwrap();
    let target = world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("renamed")).await;
    assert!(target.message.contains(NEW) && target.message.contains("iam:UpdateUser"), "{target:?}");
    world.aws.iam.create_user().user_name(USER).send().await.unwrap();

    let released = world.release("inc").await;
    assert!(released.status.unwrap().targets[0].message.contains(NEW));
    assert_eq!((attached(&world, NEW).await.unwrap(), boundary(&world, NEW).await.unwrap()), (vec![], None));
    let inline = world.aws.iam.list_user_policies().user_name(NEW).send().await.unwrap().policy_names;
    let account = Api::<AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await.unwrap();
    let [deny] = account.status.unwrap().residual_denies.try_into().unwrap();
    assert_eq!(deny.user_name.as_deref(), Some(NEW), "who takes it away must find it");
    assert!(inline.contains(&deny.policy_name) && !inline.contains(&"firebreak-deny-all".to_owned()), "{inline:?}");
    assert_eq!(
        (attached(&world, USER).await.unwrap(), boundary(&world, USER).await.unwrap()),
        (vec![], None),
        "another user"
    );
}

#[tokio::test]
async fn a_user_that_is_renamed_after_its_release_keeps_the_deny_of_its_old_sessions() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let listed = async || accounts.get(&world.account_name()).await.unwrap().status.unwrap().residual_denies;
    let [deny] = listed().await.try_into().unwrap();
    let iam = &world.aws.iam;
    rename(&world).await;
    iam.delete_user_policy().user_name(NEW).policy_name(&deny.policy_name).send().await.unwrap();
    iam.create_user().user_name(USER).send().await.unwrap(); // a decoy
    world.look_now().await;
    world
        .until_aws("old sessions are denied again, and listed where they are", async || {
            let inline = iam.list_user_policies().user_name(NEW).send().await?.policy_names;
            ensure!(inline.contains(&deny.policy_name), "{inline:?}");
            let names: Vec<_> = listed().await.into_iter().map(|d| d.user_name.unwrap_or_default()).collect();
            ensure!(names == [NEW], "{names:?}");
            Ok(())
        })
        .await;
    let decoy = iam.list_user_policies().user_name(USER).send().await.unwrap().policy_names;
    assert!(decoy.is_empty(), "another user: {decoy:?}");
    let events = world.events_of(&world.account_name()).await;
    let told = |e: &String| e.starts_with("OldSessionsDeniedAgain") && e.contains("renamed") && e.contains(NEW);
    assert!(events.iter().any(told), "{events:#?}");
}

#[tokio::test]
async fn a_user_that_was_renamed_while_nobody_looked_is_not_taken_for_gone_at_its_release() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.steer(USER, json!({ "suspend": true })).await;
    rename(&world).await;
    world.let_go("inc", USER).await;
    world.steer(USER, json!({ "suspend": false })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!((attached(&world, NEW).await.unwrap(), boundary(&world, NEW).await.unwrap()), (vec![], None));
}

#[tokio::test]
async fn a_user_that_was_deleted_needs_nobody_to_be_released() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.steer(USER, json!({ "suspend": true })).await;
    let iam = &world.aws.iam;
    iam.detach_user_policy().user_name(USER).policy_arn(DENY).send().await.unwrap();
    for policy in sight::inline_policies(&world.aws).await.unwrap() {
        iam.delete_user_policy().user_name(USER).policy_name(policy).send().await.unwrap();
    }
    iam.delete_user().user_name(USER).send().await.unwrap();
    world.let_go("inc", USER).await;
    world.steer(USER, json!({ "suspend": false })).await;
    world.until("inc", "Released", "True").await;
    let (_, said) = world.said("inc", "Released").await;
    assert!(said.contains("user mallory no longer exists"), "{said}");
}

#[tokio::test]
async fn without_its_unique_id_a_user_that_is_not_shown_waits_for_a_person() {
    let (world, _guard) = world().await;
    let policy = world.policy("keys", json!({ "iamUser": { "contain": [{ "deactivateAccessKeys": {} }] } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let spec = json!({ "policyRef": { "name": world.policy_name("keys") }, "targets": [world.user_target()] });
    world.declare("inc", "Contain", spec).await;
    world.until("inc", "Contained", "True").await;
    rename(&world).await;
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(USER, "Stalled", "ReleaseConflict").await;
    assert!(message.contains("renamed or deleted") && message.contains("KeepTheirs"), "{message}");
    world.aws.iam.update_user().user_name(NEW).new_user_name(USER).send().await.unwrap();
    world.until("inc", "Released", "True").await;
}
