//! Access keys by themselves: the key goes off, old sessions of its user are denied, and nothing else of the user is touched.

use anyhow::ensure;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{USER, USER_POLICY};
use firebreak_tests::world::World;
use firebreak_tests::{shared, sight};
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

/// A world with a policy that says what is done to an access key, and to a user.
async fn key_world(access_key: Value, reactivate: bool) -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    policy(&world, "keys", access_key, reactivate).await;
    (world, guard)
}

async fn policy(world: &World<'_>, name: &str, access_key: Value, reactivate: bool) {
    let spec = json!({
        "accessKey": access_key,
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
        "release": { "reactivateAccessKeys": reactivate },
    });
    world.plane.apply(&world.policy(name, spec).to_string()).await.unwrap();
}

fn off_and_revoked() -> Value {
    json!({ "contain": [{ "deactivateAccessKeys": {} }, { "revokeSessions": {} }] })
}

async fn declare(world: &World<'_>, name: &str, policy: &str, targets: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name(policy) }, "targets": targets });
    world.declare(name, "Contain", spec).await;
}

/// The scene's two keys.
async fn keys(world: &World<'_>) -> anyhow::Result<[String; 2]> {
    let all = sight::keys(&world.aws).await?;
    Ok([0, 1].map(|n| all[&world.scene.access_keys[n]].clone()))
}

async fn until_keys(world: &World<'_>, what: &str, first: &str, second: &str) {
    world
        .until_aws(what, async || {
            let now = keys(world).await?;
            ensure!(now == [first, second], "{now:?}");
            Ok(())
        })
        .await;
}

fn policy_of(world: &World<'_>, index: usize) -> String {
    format!("firebreak-revoke-sessions-{}", world.scene.access_keys[index])
}

/// The deny of old sessions.
async fn deny(world: &World<'_>) -> anyhow::Result<String> {
    let user = sight::user(&world.aws).await?;
    let text = user.inline.get(&policy_of(world, 0)).cloned().unwrap_or_default();
    let denies = text.contains("aws:TokenIssueTime") && text.contains("DateLessThan") && !text.contains("Allow");
    ensure!(denies, "{user:#?}");
    Ok(text)
}

#[tokio::test]
async fn one_key_is_off_and_old_sessions_are_denied_and_the_rest_of_the_user_is_as_it_was() {
    let (world, _guard) = key_world(off_and_revoked(), true).await;
    let judge = Judge::of(&world).await;
    let (iam, key) = (&world.aws.iam, &world.scene.access_keys[0]);
    let before = sight::user(&world.aws).await.unwrap();
    declare(&world, "inc", "keys", json!([world.key_target(0)])).await;
    world.until("inc", "Contained", "True").await;
    let quarantine = world.quarantine_of(key).await.unwrap();
    let name = format!("accesskey-{}-global-{}", world.aws.account, key.to_lowercase());
    assert_eq!(quarantine.metadata.name, Some(name));
    assert_eq!(quarantine.spec.resource.user.unwrap().name, USER);
    assert_eq!(keys(&world).await.unwrap(), ["Inactive", "Active"]);
    deny(&world).await.unwrap();
    let during = sight::user(&world.aws).await.unwrap();
    let inline = during.inline.iter().filter(|(name, _)| **name != policy_of(&world, 0));
    let inline = inline.map(|(name, text)| (name.clone(), text.clone())).collect();
    assert_eq!(sight::User { inline, ..during }, before, "nothing else of the user");

    // Switched on, so it may have opened sessions: it goes off, and the cutoff moves past that.
    world.until_drift_counts(key).await;
    let first = deny(&world).await.unwrap();
    iam.update_access_key().user_name(USER).access_key_id(key).status("Active".into()).send().await.unwrap();
    let switched = k8s_openapi::jiff::Timestamp::now().to_string();
    until_keys(&world, "off again", "Inactive", "Active").await;
    world
        .until_aws("a cutoff after that", async || {
            let text = deny(&world).await?;
            let cutoff = text.split("TokenIssueTime\":\"").nth(1).unwrap_or_default();
            ensure!(text != first && cutoff[..19] > switched[..19], "{text}");
            Ok(())
        })
        .await;
    let told = world.until_quarantine_says(key, "DriftDetected", "Repaired").await;
    assert!(told.contains(key.as_str()), "{told}");
    iam.delete_user_policy().user_name(USER).policy_name(policy_of(&world, 0)).send().await.unwrap();
    world.until_aws("denied again", async || deny(&world).await.map(drop)).await;
    let soft = iam.put_user_policy().user_name(USER).policy_name(policy_of(&world, 0)).policy_document(USER_POLICY);
    soft.send().await.unwrap();
    world.until_aws("denied again", async || deny(&world).await.map(drop)).await;

    world.release("inc").await;
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Active"], "the policy said so");
    let after = sight::user(&world.aws).await.unwrap();
    assert_eq!(after.residual.len(), 1, "old sessions stay denied");
    assert_eq!(sight::User { residual: vec![], ..after }, before);
    assert!(judge.assert_no_call_was_wrong() > 0);
}

#[tokio::test]
async fn a_key_of_which_aws_does_not_say_whose_it_is_holds_no_other_target_back() {
    let (world, _guard) = world().await;
    let mut spec = firebreak_tests::world::standard_policy();
    spec["accessKey"] = off_and_revoked();
    world.plane.apply(&world.policy("all", spec).to_string()).await.unwrap();
    world.proxy.hang("GetAccessKeyLastUsed");
    declare(&world, "inc", "all", json!([world.key_target(0), world.instance_target(0)])).await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.until_aws("the instance is isolated", async || sight::isolated(&world.aws, interfaces).await).await;
    let log = world.proxy.log();
    let before = log.iter().take_while(|c| c.action != "ModifyNetworkInterfaceAttribute");
    let attempts = before.filter(|c| c.action == "GetAccessKeyLastUsed").count();
    assert!(attempts < 3, "it waited for all attempts, which come five seconds after each other: {attempts}");
    world
        .until_target("inc", 0, |t| t.contained == "False" && ["Resolving", "AccountNotReached"].contains(&&*t.reason))
        .await;
    world.proxy.recover("GetAccessKeyLastUsed");
    world.until("inc", "Contained", "True").await;
    assert_eq!(keys(&world).await.unwrap(), ["Inactive", "Active"]);
}

#[tokio::test]
async fn a_key_stays_off_after_its_release_unless_the_policy_says_otherwise() {
    let (world, _guard) = key_world(json!({ "contain": [{ "deactivateAccessKeys": {} }] }), false).await;
    declare(&world, "inc", "keys", json!([world.key_target(1)])).await;
    world.until("inc", "Contained", "True").await;
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Inactive"]);
    world.release("inc").await;
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Inactive"]);
    let (_, said) = world.said("inc", "Released").await;
    assert!(said.contains(&world.scene.access_keys[1]) && said.contains("stays off"), "{said}");
}

#[tokio::test]
async fn keys_of_other_accounts_and_of_nobody_are_refused_before_any_change_and_the_others_go_on() {
    let (world, _guard) = key_world(off_and_revoked(), false).await;
    let far = shared::new_account().await;
    far.iam.create_user().user_name("eve").send().await.unwrap();
    let foreign = far.iam.create_access_key().user_name("eve").send().await.unwrap().access_key.unwrap().access_key_id;
    let gone = &world.scene.access_keys[1];
    world.aws.iam.delete_access_key().user_name(USER).access_key_id(gone).send().await.unwrap();
    let targets = json!([world.target_key(&foreign), world.key_target(1), world.key_target(0)]);
    declare(&world, "inc", "keys", targets).await;
    let refused = world.until_target("inc", 0, |t| t.reason == "WrongAccount").await;
    assert!([&foreign, &far.account, &world.account_name()].iter().all(|w| refused.message.contains(*w)), "{refused:?}");
    let refused = world.until_target("inc", 1, |t| t.reason == "KeyNotFound").await;
    assert!(refused.message.contains(gone.as_str()) && refused.message.contains("GetAccessKeyLastUsed"), "{refused:?}");
    world.until_target("inc", 2, |t| t.contained == "True").await;
    world.until("inc", "Stalled", "True").await;
    let changing: Vec<String> = world.proxy.changing().iter().map(|c| format!("{c:?}")).collect();
    let wrong: Vec<_> = changing.iter().filter(|c| c.contains(&foreign) || c.contains(gone.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let status = far.iam.list_access_keys().user_name("eve").send().await.unwrap();
    assert_eq!(status.access_key_metadata[0].status.as_ref().unwrap().as_str(), "Active");
}

#[tokio::test]
async fn a_key_that_is_deleted_meanwhile_needs_no_more() {
    let (world, _guard) = key_world(off_and_revoked(), true).await;
    declare(&world, "inc", "keys", json!([world.key_target(0)])).await;
    world.until("inc", "Contained", "True").await;
    let key = &world.scene.access_keys[0];
    world.aws.iam.delete_access_key().user_name(USER).access_key_id(key).send().await.unwrap();
    let target = world.until_target("inc", 0, |t| t.message.contains("no longer exists")).await;
    assert_eq!(target.contained, "True", "{target:?}");
    world.release("inc").await;
}

#[tokio::test]
async fn a_key_of_a_protected_user_is_not_touched() {
    let (world, _guard) = key_world(off_and_revoked(), false).await;
    let arn = format!("arn:aws:iam::{}:user/{USER}", world.aws.account);
    world.plane.apply(&world.account(json!({ "protected": { "arns": [arn] } })).to_string()).await.unwrap();
    world.account_ready().await;
    declare(&world, "inc", "keys", json!([world.key_target(0)])).await;
    let refused = world.until_target("inc", 0, |t| t.reason == "Protected").await;
    assert!(refused.message.contains(&arn) && refused.message.contains(&world.scene.access_keys[0]), "{refused:?}");
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Active"]);
}

#[tokio::test]
async fn what_a_key_and_its_user_both_keep_off_comes_back_with_the_last_of_them() {
    let (world, _guard) = key_world(off_and_revoked(), true).await;
    let judge = Judge::of(&world).await;
    let before = sight::user(&world.aws).await.unwrap();
    declare(&world, "of-the-user", "keys", json!([world.user_target()])).await;
    world.until("of-the-user", "Contained", "True").await;
    declare(&world, "of-the-key", "keys", json!([world.key_target(0)])).await;
    world.until("of-the-key", "Contained", "True").await;
    deny(&world).await.unwrap();

    world.change("of-the-user", json!({ "mode": "Release" })).await;
    world.until("of-the-user", "Released", "True").await;
    assert_eq!(keys(&world).await.unwrap(), ["Inactive", "Active"], "the key is held still");
    deny(&world).await.unwrap();
    world.until("of-the-key", "Contained", "True").await;
    let (_, said) = world.said("of-the-user", "Released").await;
    assert!(said.contains("accesskey-") && said.contains("keeps"), "{said}");

    world.release("of-the-key").await;
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Active"], "what was on before the first of them");
    let after = sight::user(&world.aws).await.unwrap();
    assert_eq!(sight::User { residual: vec![], ..after }, before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_key_that_one_release_leaves_off_is_switched_on_by_no_other() {
    let (world, _guard) = key_world(off_and_revoked(), true).await;
    let judge = Judge::of(&world).await;
    policy(&world, "off", off_and_revoked(), false).await;
    declare(&world, "of-the-key", "off", json!([world.key_target(0)])).await;
    declare(&world, "of-the-user", "keys", json!([world.user_target()])).await;
    world.until("of-the-key", "Contained", "True").await;
    world.until("of-the-user", "Contained", "True").await;
    world.change("of-the-key", json!({ "mode": "Release" })).await;
    world.until("of-the-key", "Released", "True").await;
    assert_eq!(keys(&world).await.unwrap(), ["Inactive", "Inactive"]);
    sight::cut_off(&world.aws).await.unwrap();
    world.until("of-the-user", "Contained", "True").await;

    world.release("of-the-user").await;
    assert_eq!(keys(&world).await.unwrap(), ["Inactive", "Active"], "of the first key its own policy said so");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn where_the_policy_says_so_it_is_the_user_who_is_contained_once_however_it_is_named() {
    let (world, _guard) = key_world(json!({ "scope": "User" }), false).await;
    let targets = json!([world.key_target(0), world.user_target(), world.key_target(1)]);
    declare(&world, "inc", "keys", targets).await;
    let incident = world.until("inc", "Contained", "True").await;
    assert_eq!(incident.status.unwrap().contained.as_deref(), Some("1/1"));
    sight::cut_off(&world.aws).await.unwrap();
    let [quarantine] = &world.quarantines().await[..] else { panic!("one resource, one Quarantine") };
    assert_eq!(quarantine.spec.resource.id, USER);
    world.release("inc").await;
    assert!(world.quarantines().await.is_empty());
}

#[tokio::test]
async fn a_plan_shows_what_would_be_done_to_the_key_and_changes_nothing() {
    let (world, _guard) = key_world(off_and_revoked(), false).await;
    let spec = json!({ "policyRef": { "name": world.policy_name("keys") }, "targets": [world.key_target(0)] });
    world.declare("inc", "Plan", spec).await;
    let incident = world.until("inc", "Ready", "True").await;
    let plan = incident.status.unwrap().plan.unwrap();
    let key = &world.scene.access_keys[0];
    let calls = [
        format!("iam:UpdateAccessKey {USER}: {key} Inactive"),
        format!("iam:PutUserPolicy {USER}: {}", policy_of(&world, 0)),
    ];
    assert_eq!(plan.targets[0].calls, calls);
    assert_eq!(keys(&world).await.unwrap(), ["Active", "Active"]);
}

#[tokio::test]
async fn a_user_that_was_made_again_has_no_such_key_and_is_left_alone() {
    let (world, _guard) = key_world(off_and_revoked(), true).await;
    declare(&world, "inc", "keys", json!([world.key_target(0)])).await;
    world.until("inc", "Contained", "True").await;
    let iam = &world.aws.iam;
    for key in &world.scene.access_keys {
        iam.delete_access_key().user_name(USER).access_key_id(key).send().await.unwrap();
    }
    for policy in sight::inline_policies(&world.aws).await.unwrap() {
        iam.delete_user_policy().user_name(USER).policy_name(policy).send().await.unwrap();
    }
    iam.delete_login_profile().user_name(USER).send().await.unwrap();
    iam.delete_user().user_name(USER).send().await.unwrap();
    iam.create_user().user_name(USER).send().await.unwrap();
    let target = world.until_target("inc", 0, |t| t.contained == "False" && t.message.contains("made again")).await;
    assert!(target.message.contains(&world.scene.access_keys[0]), "{target:?}");
    assert!(sight::inline_policies(&world.aws).await.unwrap().is_empty(), "the new user is another");
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until_quarantine_says(&world.scene.access_keys[0], "Stalled", "ReleaseConflict").await;
    world.steer(&world.scene.access_keys[0], json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    assert!(sight::inline_policies(&world.aws).await.unwrap().is_empty());
}
