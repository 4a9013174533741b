//! AWS says no, or says nothing. What can be cut is cut, nothing is called contained that is not, and the message names what is
//! missing.

use firebreak_crds::conditions::RELEASED;
use firebreak_crds::{ActionState, Quarantine, is_true};
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{USER, USER_POLICY};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// Until recovery: this call is refused.
fn deny(world: &World<'_>, action: &str) {
    let iam = ["Policy", "Key", "Boundary"].iter().any(|of| action.ends_with(of));
    let (status, code) = if iam { (403, "AccessDenied") } else { (403, "UnauthorizedOperation") };
    world.proxy.fail(action, status, code, &format!("not authorized to perform {action}"));
}

/// The permission is granted, and somebody asks for a look.
async fn recovered(world: &World<'_>, actions: &[&str]) {
    actions.iter().for_each(|action| world.proxy.recover(action));
    world.look_now().await;
    world.until_aws("the user is cut off", async || sight::cut_off(&world.aws).await).await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.until_aws("the instance is isolated", async || sight::isolated(&world.aws, interfaces).await).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "Ready", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3);
}

async fn isolated(world: &World<'_>) {
    world.until_target("inc", 0, |t| t.contained == "True").await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}

/// Neither an action nor the user's Quarantine claims what is not so.
async fn not_called_contained(world: &World<'_>, id: &str, action: &str) {
    let quarantine = world.quarantine_of(id).await.unwrap();
    let status = quarantine.status.unwrap();
    assert!(!is_true(&status.conditions, "Contained"), "{status:#?}");
    let state = status.actions.iter().find(|a| a.name == action).map(|a| a.state);
    assert_ne!(state, Some(ActionState::InForce), "{status:#?}");
    assert!(status.in_force_since.is_none(), "{status:#?}");
}

#[tokio::test]
async fn without_one_of_the_denies_the_user_is_denied_by_the_others_and_the_permission_is_named() {
    for (action, policy) in [
        ("PutUserPolicy", "AWSDenyAll"),
        ("AttachUserPolicy", "firebreak-deny-all"),
        ("PutUserPermissionsBoundary", "AWSDenyAll"),
    ] {
        let (world, _guard) = world().await;
        deny(&world, action);
        world.declare("inc", "Contain", json!({})).await;
        let permission = format!("iam:{action}");
        let target = world.until_target("inc", 1, |t| t.message.contains(&permission)).await;
        assert!(target.message.contains("grant it to the role"), "{target:?}");
        let message = world.until_quarantine_says("mallory", "Stalled", "AccessDenied").await;
        assert!(message.contains(&permission), "{message}");
        let policies =
            [sight::inline_policies(&world.aws).await.unwrap(), sight::attached_policies(&world.aws).await.unwrap()];
        assert!(policies.concat().iter().any(|p| p == policy), "{policies:?}");
        assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Inactive"));
        isolated(&world).await;
        recovered(&world, &[action]).await;
    }
}

#[tokio::test]
async fn what_iam_does_not_show_of_one_deny_holds_no_other_back() {
    let (world, _guard) = world().await;
    let (judge, before) = (Judge::of(&world).await, sight::user(&world.aws).await.unwrap());
    deny(&world, "GetUserPolicy");
    world.proxy.hang("ListAttachedUserPolicies");
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("iam:GetUserPolicy") && target.message.contains("denied by the boundary"), "{target:?}");
    let user = sight::user(&world.aws).await.unwrap();
    assert_eq!(user.boundary.as_deref(), Some("AWSDenyAll"));
    assert_eq!(user.attached, before.attached, "nobody knows what was attached: nothing is");
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Inactive"));
    world.proxy.clear();
    world.release("inc").await;
    world.until_nothing_is_held().await;
    let after = sight::user(&world.aws).await.unwrap();
    assert_eq!((&after.inline, &after.attached, &after.boundary), (&before.inline, &before.attached, &before.boundary));
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn without_any_deny_the_keys_go_off_and_the_user_is_not_called_contained() {
    let (world, _guard) = world().await;
    let denies = ["PutUserPolicy", "AttachUserPolicy", "PutUserPermissionsBoundary"];
    denies.iter().for_each(|action| deny(&world, action));
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 1, |t| t.reason == "AccessDenied").await;
    assert!(denies.iter().all(|action| target.message.contains(&format!("iam:{action}"))), "{target:?}");
    assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Inactive"));
    not_called_contained(&world, "mallory", "denyAll").await;
    world.until("inc", "Contained", "False").await;
    world.until("inc", "Stalled", "True").await;
    isolated(&world).await;
    recovered(&world, &denies).await;
}

/// The attacker filled the quotas: of inline policies, and of attached ones.
#[tokio::test]
async fn with_every_quota_full_the_boundary_alone_denies() {
    let (world, _guard) = world().await;
    for action in ["PutUserPolicy", "AttachUserPolicy"] {
        world.proxy.fail(action, 409, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded");
    }
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 1, |t| t.contained == "True").await;
    assert!(target.message.contains("denied by the boundary") && target.message.contains("LimitExceeded"), "{target:?}");
    assert_eq!(sight::boundary(&world.aws).await.unwrap().as_deref(), Some("AWSDenyAll"));
    recovered(&world, &["PutUserPolicy", "AttachUserPolicy"]).await;
}

/// As many characters, white space aside, as a user's inline policies have left: so a deny of ours has no room.
async fn fill_the_inline_quota(world: &World<'_>) {
    let filler = |s: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::{s}"}}]}}"#
        )
    };
    let left = 2048 - USER_POLICY.len() - filler("").len();
    let put = world.aws.iam.put_user_policy().user_name(USER).policy_name("filler");
    put.policy_document(filler(&"x".repeat(left))).send().await.unwrap();
}

async fn denied_by_two(world: &World<'_>) {
    let user = sight::user(&world.aws).await.unwrap();
    assert!(user.boundary.as_deref() == Some("AWSDenyAll") && user.attached.contains(&"AWSDenyAll".to_owned()), "{user:#?}");
}

#[tokio::test]
async fn a_user_whose_inline_quota_the_attacker_filled_is_released_once_a_person_made_room_and_not_before() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    fill_the_inline_quota(&world).await;
    let before = sight::user(&world.aws).await.unwrap();
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("LimitExceeded") && target.message.contains("of filler, own"), "{target:?}");
    denied_by_two(&world).await;

    world.let_go("inc", USER).await;
    let released = |q: &Quarantine| q.status.iter().flat_map(|s| &s.conditions).any(|c| c.type_ == RELEASED);
    world.until_quarantine(USER, "its release has begun", released).await;
    let message = world.until_quarantine_says(USER, "Stalled", "AwsRefused").await;
    for word in ["iam:PutUserPolicy", "2,048", "delete what is not needed of filler, own"] {
        assert!(message.contains(word), "no {word}: {message}");
    }
    world.steer(USER, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until_swept(2).await;
    denied_by_two(&world).await;

    world.aws.iam.delete_user_policy().user_name(USER).policy_name("filler").send().await.unwrap();
    world.look_now().await;
    world.until("inc", "Released", "True").await;
    let after = sight::user(&world.aws).await.unwrap();
    assert_eq!((after.residual.len(), &after.attached, &after.boundary), (1, &before.attached, &before.boundary));
    let calls = world.proxy.changing();
    let put = calls.iter().filter(|c| c.action == "PutUserPolicy" && c.succeeded()).find_map(|c| c.finished).unwrap();
    let lifts = |action: &str| calls.iter().find(|c| c.action == action).unwrap().started;
    assert!(lifts("DetachUserPolicy") > put && lifts("DeleteUserPermissionsBoundary") > put, "{calls:#?}");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn keys_that_cannot_be_switched_off_leave_the_deny_in_place() {
    let (world, _guard) = world().await;
    deny(&world, "UpdateAccessKey");
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 1, |t| t.reason == "AccessDenied").await;
    assert!(target.message.contains("iam:UpdateAccessKey"), "{target:?}");
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    assert_eq!(sight::attached_policies(&world.aws).await.unwrap(), ["AWSDenyAll"]);
    not_called_contained(&world, "mallory", "deactivateAccessKeys").await;
    world.until("inc", "Contained", "False").await;
    isolated(&world).await;
    recovered(&world, &["UpdateAccessKey"]).await;
}

#[tokio::test]
async fn an_instance_that_cannot_be_isolated_stops_neither_the_user_nor_the_evidence() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    deny(&world, "ModifyNetworkInterfaceAttribute");
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 0, |t| t.reason == "AccessDenied").await;
    assert!(target.message.contains("ec2:ModifyNetworkInterfaceAttribute"), "{target:?}");
    not_called_contained(&world, id, "isolateNetwork").await;
    world.until("inc", "Contained", "False").await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    world.until("inc", "EvidencePreserved", "True").await;
    recovered(&world, &["ModifyNetworkInterfaceAttribute"]).await;
}

#[tokio::test]
async fn snapshots_that_are_refused_delay_no_containment_and_are_taken_later() {
    let (world, _guard) = world().await;
    deny(&world, "CreateSnapshots");
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    isolated(&world).await;
    world.until("inc", "EvidencePreserved", "False").await;
    world
        .until_aws("the condition names the permission", async || {
            let (_, message) = world.said("inc", "EvidencePreserved").await;
            anyhow::ensure!(message.contains("ec2:CreateSnapshots"), "{message}");
            Ok(())
        })
        .await;
    recovered(&world, &["CreateSnapshots"]).await;
}

#[tokio::test]
async fn what_was_cut_is_kept_cut_while_a_permission_is_missing() {
    let (world, _guard) = world().await;
    deny(&world, "PutUserPolicy");
    world.declare("inc", "Contain", json!({})).await;
    world.until_target("inc", 1, |t| t.message.contains("iam:PutUserPolicy")).await;
    let key = &world.scene.access_keys[0];
    world.aws.iam.update_access_key().user_name("mallory").access_key_id(key).status("Active".into()).send().await.unwrap();
    let within = std::time::Duration::from_secs(10);
    firebreak_tests::eventually::eventually("the key is off again", within, async || {
        let keys = sight::keys(&world.aws).await?;
        anyhow::ensure!(keys.values().all(|s| s == "Inactive"), "{keys:?}");
        Ok(())
    })
    .await;
    recovered(&world, &["PutUserPolicy"]).await;
}

#[tokio::test]
async fn a_deny_that_hangs_delays_nothing_else() {
    let (world, _guard) = world().await;
    world.proxy.hang("PutUserPolicy");
    world.declare("inc", "Contain", json!({})).await;
    world
        .until_aws("the rest is cut while the call hangs", async || {
            anyhow::ensure!(sight::keys(&world.aws).await?.values().all(|s| s == "Inactive"), "keys");
            anyhow::ensure!(sight::attached_policies(&world.aws).await? == ["AWSDenyAll"], "the attached deny");
            sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await
        })
        .await;
    let hanging = world.proxy.log().iter().any(|c| c.action == "PutUserPolicy" && c.finished.is_none());
    assert!(hanging, "the call still hangs");
    isolated(&world).await;
    recovered(&world, &["PutUserPolicy"]).await;
}

#[tokio::test]
async fn keys_whose_switch_hangs_are_not_called_off() {
    let (world, _guard) = world().await;
    world.proxy.hang("UpdateAccessKey");
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 1, |t| t.contained == "False" && t.message.contains("UpdateAccessKey")).await;
    assert!(target.message.contains("no answer"), "{target:?}");
    not_called_contained(&world, "mallory", "deactivateAccessKeys").await;
    assert_eq!(sight::attached_policies(&world.aws).await.unwrap(), ["AWSDenyAll"]);
    isolated(&world).await;
    recovered(&world, &["UpdateAccessKey"]).await;
}
