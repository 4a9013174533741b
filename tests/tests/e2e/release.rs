//! Giving back: only where AWS still shows what Firebreak put there, and without bringing a stolen session back to life.

use anyhow::ensure;
use aws_sdk_iam::types::StatusType;
use firebreak_crds::AwsAccount;
use firebreak_tests::sight;
use firebreak_tests::world::{World, standard_policy};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::ground_up::world;

#[tokio::test]
async fn groups_come_back_in_their_order() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let [web, backup] = world.scene.groups.clone();
    for (interface, groups) in interfaces.iter().zip([[web.clone(), backup.clone()], [backup, web]]) {
        let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
        call.set_groups(Some(groups.to_vec())).send().await.unwrap();
    }
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    assert!(before.values().all(|groups| groups.len() == 2) && before[&interfaces[0]] != before[&interfaces[1]]);
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
}

/// The standard policy, and keys come back.
async fn reactivating(world: &World<'_>) -> Value {
    let mut policy = standard_policy();
    policy["release"] = json!({ "reactivateAccessKeys": true });
    world.plane.apply(&world.policy("reactivating", policy).to_string()).await.unwrap();
    json!({ "policyRef": { "name": world.policy_name("reactivating") }, "targets": [world.user_target()] })
}

#[tokio::test]
async fn only_keys_that_were_active_come_back_and_only_where_the_policy_says_so() {
    let (world, _guard) = world().await;
    let [active, inactive] = &world.scene.access_keys;
    let off = world.aws.iam.update_access_key().user_name("mallory").access_key_id(inactive).status("Inactive".into());
    off.send().await.unwrap();
    let before = sight::keys(&world.aws).await.unwrap();
    world.declare("inc", "Contain", reactivating(&world).await).await;
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    world.release("inc").await;
    assert_eq!(sight::keys(&world.aws).await.unwrap(), before);
    assert_eq!(before[active], "Active");
}

#[tokio::test]
async fn a_key_made_during_the_containment_stays_off() {
    let (world, _guard) = world().await;
    let [kept, deleted] = &world.scene.access_keys;
    world.declare("inc", "Contain", reactivating(&world).await).await;
    world.until("inc", "Contained", "True").await;
    world.until_a_second_old("mallory").await;
    world.aws.iam.delete_access_key().user_name("mallory").access_key_id(deleted).send().await.unwrap();
    let made = world.aws.iam.create_access_key().user_name("mallory").send().await.unwrap().access_key.unwrap();
    world.until_aws("it goes off", async || sight::cut_off(&world.aws).await).await;
    world.release("inc").await;
    let keys = sight::keys(&world.aws).await.unwrap();
    assert_eq!((keys[kept].as_str(), keys[&made.access_key_id].as_str()), ("Active", "Inactive"));
}

#[tokio::test]
async fn keys_stay_off_where_one_of_the_holders_policies_does_not_give_them_back() {
    let (world, _guard) = world().await;
    world.declare("first", "Contain", reactivating(&world).await).await;
    world.declare("second", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("first", "Contained", "True").await;
    world.until("second", "Contained", "True").await;
    world.until_quarantine("mallory", "held by two", |q| q.spec.holders.len() == 2).await;
    world.release("second").await;
    world.release("first").await;
    world.until_nothing_is_held().await;
    let keys = sight::keys(&world.aws).await.unwrap();
    assert!(keys.values().all(|status| status == "Inactive"), "{keys:?}");
}

#[tokio::test]
async fn sessions_stay_blocked_after_the_release_until_the_last_has_expired() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    let released = world.release("inc").await;
    let before_release = Timestamp::now();

    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let account = accounts.get(&world.account_name()).await.unwrap();
    let [deny] = account.status.unwrap().residual_denies.try_into().unwrap();
    let hours = deny.until.0.duration_since(before_release).as_hours();
    assert!((35..=36).contains(&hours), "a user's session lasts up to 36 hours: {deny:?}");
    let message = &released.status.unwrap().targets[1].message;
    assert!(message.contains(&deny.until.0.to_string()), "{message}");

    // Somebody takes it away, and AWS refuses to put it back: the account can be used all the same.
    let gone = world.aws.iam.delete_user_policy().user_name("mallory").policy_name(&deny.policy_name);
    gone.send().await.unwrap();
    world.proxy.fail("PutUserPolicy", 409, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded");
    world.look_now().await;
    world.until_event(&world.account_name(), "OldSessionsNotKept", &["2048"]).await;
    let conditions = accounts.get(&world.account_name()).await.unwrap().status.unwrap().conditions;
    assert!(firebreak_crds::is_true(&conditions, "Ready"), "{conditions:#?}");
    world.proxy.recover("PutUserPolicy");
    world.look_now().await;
    world
        .until_aws("old sessions are denied again", async || {
            let policies = sight::inline_policies(&world.aws).await?;
            ensure!(policies.contains(&deny.policy_name), "{policies:?}");
            Ok(())
        })
        .await;

    let document = world.aws.iam.get_user_policy().user_name("mallory").policy_name(&deny.policy_name);
    let document: Value = serde_json::from_str(&sight::decoded(&document.send().await.unwrap().policy_document)).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        (&statement["Effect"], &statement["Action"], &statement["Resource"]),
        (&json!("Deny"), &json!("*"), &json!("*"))
    );
    let condition = statement["Condition"].as_object().unwrap();
    assert_eq!(condition.keys().collect::<Vec<_>>(), ["DateLessThan"], "long-term keys carry no issue time");
    let cutoff: Timestamp = condition["DateLessThan"]["aws:TokenIssueTime"].as_str().unwrap().parse().unwrap();
    assert!(cutoff >= before_release, "a session issued just before the release is denied, too: {cutoff}");

    let call = |action: &str, policy: &str| {
        let calls = world.proxy.changing();
        let found = calls.into_iter().find(|c| c.action == action && c.params.get("PolicyName").is_none_or(|p| p == policy));
        found.unwrap_or_else(|| panic!("no {action} {policy}"))
    };
    let put = call("PutUserPolicy", &deny.policy_name).finished.unwrap();
    assert!(call("DeleteUserPolicy", "firebreak-deny-all").started > put && call("DetachUserPolicy", "").started > put);

    let expired = json!({ "status": { "residualDenies": [{
        "userName": deny.user_name, "policyName": deny.policy_name, "until": "2026-01-01T00:00:00Z",
    }] } });
    accounts.patch_status(&world.account_name(), &PatchParams::default(), &Patch::Merge(expired)).await.unwrap();
    world.look_now().await;
    world
        .until_aws("the deny is gone", async || {
            let policies = sight::inline_policies(&world.aws).await?;
            ensure!(policies == ["own"], "{policies:?}");
            let left = accounts.get(&world.account_name()).await?.status.unwrap_or_default().residual_denies;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_incident_in_mode_release_gives_back_what_its_predecessor_left_behind() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    world.delete_incident("inc").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Release", json!({ "targets": [world.instance_target(0)] })).await;
    world
        .until_aws("given back", async || {
            let now = sight::groups(&world.aws, interfaces).await?;
            ensure!(now == before, "{now:?}");
            Ok(())
        })
        .await;
    world.until("inc", "Released", "True").await;
    assert!(world.quarantines().await.is_empty());
}

#[tokio::test]
async fn an_account_that_is_deleted_stays_until_its_denies_have_expired_and_says_so() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    let (accounts, name) = (Api::<AwsAccount>::all(world.kube.clone()), world.account_name());
    accounts.delete(&name, &DeleteParams::default()).await.unwrap();
    let account =
        firebreak_tests::eventually::condition(&accounts, &name, "Ready", "False", firebreak_tests::world::SOON).await;
    let ready = account.status.as_ref().and_then(|s| firebreak_crds::get_condition(&s.conditions, "Ready")).unwrap();
    assert!(ready.reason == "DeletionBlocked" && ready.message.contains("residual denies of sessions"), "{ready:?}");
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { firebreak_crds::ABANDON: account.metadata.uid } } }));
    accounts.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    firebreak_tests::eventually::gone(&accounts, &name, firebreak_tests::world::SOON).await;
}

#[tokio::test]
async fn the_deny_goes_only_when_no_key_works() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.steer("mallory", json!({ "suspend": true })).await;
    let keys = sight::keys(&world.aws).await.unwrap();
    let key = keys.keys().next().unwrap();
    let on = world.aws.iam.update_access_key().user_name("mallory").access_key_id(key).status(StatusType::Active);
    on.send().await.unwrap();
    world.let_go("inc", "mallory").await;

    world.proxy.fail("UpdateAccessKey", 403, "AccessDenied", "not authorized");
    world.steer("mallory", json!({ "suspend": false })).await;
    world.until_quarantine_says("mallory", "Stalled", "AccessDenied").await;
    world.until_swept(2).await;
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    assert!(sight::attached_policies(&world.aws).await.unwrap().contains(&"AWSDenyAll".to_owned()));

    world.proxy.recover("UpdateAccessKey");
    world.look_now().await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::keys(&world.aws).await.unwrap()[key], "Inactive");
    assert!(!sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
}

#[tokio::test]
async fn what_waits_for_its_stage_is_put_back_while_aws_is_busy() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until("inc", "Contained", "True").await;
    world.steer("mallory", json!({ "suspend": true })).await;
    world.let_go("inc", "mallory").await;
    let iam = &world.aws.iam;
    iam.delete_user_policy().user_name("mallory").policy_name("firebreak-deny-all").send().await.unwrap();
    iam.detach_user_policy().user_name("mallory").policy_arn("arn:aws:iam::aws:policy/AWSDenyAll").send().await.unwrap();
    iam.delete_user_permissions_boundary().user_name("mallory").send().await.unwrap();

    world.proxy.fail("ListAccessKeys", 400, "Throttling", "Rate exceeded");
    world.steer("mallory", json!({ "suspend": false })).await;
    world.until_aws("it is denied again", async || sight::denied(&world.aws).await).await;
    world.proxy.recover("ListAccessKeys");
    world.look_now().await;
    world.until("inc", "Released", "True").await;
    assert!(!sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    assert_eq!(sight::boundary(&world.aws).await.unwrap(), None);
}
