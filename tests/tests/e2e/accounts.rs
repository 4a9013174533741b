//! What an `AwsAccount` does by itself: prepares, knows what is protected by tags, and ends denies whose time is over.

use anyhow::ensure;
use firebreak_crds::AwsAccount;
use firebreak_tests::emulator::REGION;
use firebreak_tests::eventually::eventually;
use firebreak_tests::proxy::{Call, When};
use firebreak_tests::scene::{self, ROLE, USER, USER_POLICY};
use firebreak_tests::sight;
use firebreak_tests::world::SOON;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::ground_up::unannounced;

/// A deny whose time is over.
const OVER: &str = "firebreak-sessions-until-20260101T000000Z";
/// A region that no AWS has.
const NOWHERE: &str = "xx-nowhere-1";

#[tokio::test]
async fn what_fails_in_one_region_or_of_one_deny_holds_nothing_else_of_the_account_back() {
    let (world, _guard) = unannounced().await;
    scene::role(&world.aws).await.unwrap();
    scene::tag(&world.aws, &world.scene.instances[0].id, "tier", "gold").await.unwrap();
    let iam = &world.aws.iam;
    iam.put_user_policy().user_name(USER).policy_name(OVER).policy_document(USER_POLICY).send().await.unwrap();
    iam.put_role_policy().role_name(ROLE).policy_name(OVER).policy_document(USER_POLICY).send().await.unwrap();
    world.proxy.fail("DeleteUserPolicy", 403, "AccessDenied", "not authorized");
    let account = world.account(json!({
        "regions": [REGION, NOWHERE], "protected": { "tags": [{ "key": "tier", "value": "gold" }] },
    }));
    world.plane.apply(&account.to_string()).await.unwrap();
    let deny = |of: &str, name: &str| json!({ of: name, "policyName": OVER, "until": "2026-01-01T00:00:00Z" });
    let denies = json!([deny("userName", USER), deny("roleName", ROLE)]);
    let patch = Patch::Merge(json!({ "status": { "residualDenies": denies } }));
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    accounts.patch_status(&world.account_name(), &PatchParams::default(), &patch).await.unwrap();
    eventually("all else is done", SOON, async || {
        let status = accounts.get(&world.account_name()).await?.status.unwrap_or_default();
        let left: Vec<_> = status.residual_denies.iter().map(|d| d.user_name.as_deref().unwrap_or_default()).collect();
        ensure!(left == [USER], "{status:#?}");
        ensure!(status.protected_by_tag.iter().any(|k| k.id == world.scene.instances[0].id), "{status:#?}");
        ensure!(status.isolation_groups.iter().any(|g| g.vpc_id == world.scene.vpc), "{status:#?}");
        ensure!(!firebreak_crds::is_true(&status.conditions, "Ready"), "{status:#?}");
        ensure!(sight::role(&world.aws).await?.residual.is_empty());
        Ok(())
    })
    .await;
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&OVER.to_owned()));
    world.until_event(&world.account_name(), "ProtectedTagsNotRead", &[]).await;
}

#[tokio::test]
async fn a_group_whose_making_was_not_answered_is_taken_for_made_and_not_for_refused() {
    let (world, _guard) = unannounced().await;
    let mut made = world.proxy.hold_action("CreateSecurityGroup", 1, When::After);
    let account = world.account(json!({ "prepare": { "isolationGroups": "AllVpcs" } }));
    world.plane.apply(&account.to_string()).await.unwrap();
    made.reached().await;
    drop(made); // the connection ends; asked again, AWS says that there is one of that name
    world.account_ready().await;
    let duplicate = |c: &Call| c.error.as_deref() == Some("InvalidGroup.Duplicate");
    assert!(world.proxy.count(duplicate) > 0, "it was asked again");
    let events = world.events_of(&world.account_name()).await;
    assert!(!events.iter().any(|e| e.starts_with("AwsRefused")), "{events:#?}");
}
