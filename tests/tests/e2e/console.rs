//! `removeConsoleAccess`: the password goes, goes again, and never comes back; all who ask are told so.

use anyhow::ensure;
use firebreak_crds::conditions::DRIFT_DETECTED;
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::world;

const GONE: &str = "the user needs a new one";

/// An Incident's fields: the user, and a policy that lists the action.
async fn listed(world: &World<'_>) -> Value {
    let policy = json!({ "iamUser": { "contain": [{ "denyAll": {} }, { "removeConsoleAccess": {} }] } });
    world.plane.apply(&world.policy("console", policy).to_string()).await.unwrap();
    json!({ "policyRef": { "name": world.policy_name("console") }, "targets": [world.user_target()] })
}

async fn contained(world: &World<'_>) {
    world.declare("inc", "Contain", listed(world).await).await;
    world.until("inc", "Contained", "True").await;
}

/// Somebody gives the user a password, and lets go while nothing is repaired.
async fn made_again_and_let_go(world: &World<'_>) {
    world.suspend("mallory").await;
    make(world).await;
    world.let_go("inc", "mallory").await;
}

async fn make(world: &World<'_>) {
    world.aws.iam.create_login_profile().user_name("mallory").password("another-Horse-2").send().await.unwrap();
}

#[tokio::test]
async fn a_password_is_deleted_and_one_made_again_too_and_the_release_says_that_it_is_gone() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (keys, policies) = (sight::keys(&world.aws).await.unwrap(), sight::inline_policies(&world.aws).await.unwrap());
    assert!(sight::login_profile(&world.aws).await.unwrap().is_some());
    contained(&world).await;
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), None);
    world.until_target("inc", 0, |t| t.message.contains(GONE)).await;

    world.until_drift_counts("mallory").await;
    make(&world).await;
    world
        .until_aws("it is deleted again", async || {
            ensure!(sight::login_profile(&world.aws).await?.is_none(), "there");
            Ok(())
        })
        .await;
    let told = world.until_quarantine_says("mallory", DRIFT_DETECTED, "Repaired").await;
    assert!(told.contains("console password"), "{told}");

    let quarantine = world.quarantine_of("mallory").await.unwrap().metadata.name.unwrap();
    world.release("inc").await;
    let events = world.events_of(&quarantine).await;
    assert!(events.iter().any(|e| e.starts_with("Released: ") && e.contains(GONE)), "{events:#?}");
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), None, "nobody can give it back");
    let left = sight::inline_policies(&world.aws).await.unwrap();
    let ours = |policy: &&String| policy.starts_with("firebreak-sessions-until-");
    assert_eq!(left.iter().filter(|p| !ours(p)).collect::<Vec<_>>(), policies.iter().collect::<Vec<_>>());
    assert_eq!(sight::keys(&world.aws).await.unwrap(), keys, "all else is as before");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_password_stays_where_no_policy_lists_the_action_and_a_plan_says_what_it_would_cost() {
    let (world, _guard) = world().await;
    let before = sight::login_profile(&world.aws).await.unwrap();
    world.declare("unlisted", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("unlisted", "Contained", "True").await;
    world.declare("inc", "Plan", listed(&world).await).await;
    let incident = world.until_reason("inc", "Ready", "Planned").await;
    let plan = incident.status.unwrap().plan.unwrap();
    let calls = &plan.targets[0].calls;
    assert!(calls.iter().any(|c| c.starts_with("iam:DeleteLoginProfile mallory") && c.contains(GONE)), "{calls:?}");
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), before);
}

#[tokio::test]
async fn a_password_made_just_before_the_release_is_deleted() {
    let (world, _guard) = world().await;
    contained(&world).await;
    made_again_and_let_go(&world).await;
    world.steer("mallory", json!({ "suspend": false })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), None);
}

#[tokio::test]
async fn a_password_made_just_before_the_release_is_deleted_whatever_is_decided_of_conflicts() {
    let (world, _guard) = world().await;
    contained(&world).await;
    world.until_a_second_old("mallory").await;
    made_again_and_let_go(&world).await;
    world.steer("mallory", json!({ "suspend": false, "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), None);
}

#[tokio::test]
async fn a_password_that_could_not_be_deleted_may_have_been_reset_so_a_person_decides_before_the_deny_goes() {
    let (world, _guard) = world().await;
    let before = sight::login_profile(&world.aws).await.unwrap();
    world.proxy.fail("DeleteLoginProfile", 403, "AccessDenied", "not authorized");
    world.declare("inc", "Contain", listed(&world).await).await;
    let target = world.until_target("inc", 0, |t| t.reason == "AccessDenied").await;
    assert!(target.message.contains("iam:DeleteLoginProfile"), "{target:?}");
    world.until("inc", "Contained", "False").await;
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until_target("inc", 0, |t| t.reason == "ReleaseConflict" && t.message.contains("reset")).await;
    assert!(
        sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()),
        "access comes last"
    );
    world.steer("mallory", json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::login_profile(&world.aws).await.unwrap(), before);
}
