//! Roles: contained against whoever undoes it, given back exactly; and those that are refused.

use anyhow::ensure;
use firebreak_crds::AwsAccount;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{self, ROLE};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

/// A world with a role, and a policy that says what is done to it.
async fn role_world(contain: Value) -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::role(&world.aws).await.unwrap();
    let policy = world.policy("roles", json!({ "iamRole": { "contain": contain } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    (world, guard)
}

async fn declare(world: &World<'_>, targets: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name("roles") }, "targets": targets });
    world.declare("inc", "Contain", spec).await;
}

async fn contained(world: &World<'_>) {
    declare(world, json!([world.role_target()])).await;
    world.until("inc", "Contained", "True").await;
}

#[tokio::test]
async fn a_denied_role_stays_denied_and_is_given_back_exactly_but_for_its_old_sessions() {
    let (world, _guard) = role_world(json!([{ "denyAll": {} }])).await;
    let judge = Judge::of(&world).await;
    let before = sight::role(&world.aws).await.unwrap();
    contained(&world).await;
    sight::role_denied(&world.aws).await.unwrap();
    let marked = sight::role(&world.aws).await.unwrap();
    assert!(marked.tags["firebreak.dev/incident"].ends_with("/inc"), "{marked:#?}");

    let denied_again = async || world.until_aws("denied again", async || sight::role_denied(&world.aws).await).await;
    let (iam, soft) = (&world.aws.iam, scene::USER_POLICY);
    iam.put_role_policy().role_name(ROLE).policy_name("firebreak-deny-all").policy_document(soft).send().await.unwrap();
    denied_again().await;
    iam.delete_role_policy().role_name(ROLE).policy_name("firebreak-deny-all").send().await.unwrap();
    iam.delete_role_permissions_boundary().role_name(ROLE).send().await.unwrap();
    denied_again().await;
    let (deny, admin) = ("arn:aws:iam::aws:policy/AWSDenyAll", "arn:aws:iam::aws:policy/AdministratorAccess");
    iam.detach_role_policy().role_name(ROLE).policy_arn(deny).send().await.unwrap();
    iam.put_role_permissions_boundary().role_name(ROLE).permissions_boundary(admin).send().await.unwrap();
    denied_again().await;

    world.release("inc").await;
    let after = sight::role(&world.aws).await.unwrap();
    assert_eq!(after.residual.len(), 1, "old sessions stay denied");
    assert_eq!(sight::Role { residual: vec![], ..after }, before);
    assert!(judge.assert_no_call_was_wrong() > 0);
    old_sessions_end(&world).await;
}

#[tokio::test]
async fn a_trust_policy_that_aws_will_not_take_back_waits_for_a_person_who_mends_it_or_leaves_the_role_sealed() {
    let (world, _guard) = role_world(json!([{ "denyAll": {} }, { "sealTrustPolicy": {} }])).await;
    let judge = Judge::of(&world).await;
    let before = sight::role(&world.aws).await.unwrap();
    contained(&world).await;
    let sealed = sight::role(&world.aws).await.unwrap().trust;
    world.proxy.fail("UpdateAssumeRolePolicy", 400, "MalformedPolicyDocument", "Invalid principal in policy: AROA9");
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(ROLE, "Stalled", "ReleaseConflict").await;
    for word in ["MalformedPolicyDocument", "AROA9", "mend", "KeepTheirs"] {
        assert!(message.contains(word), "no {word}: {message}");
    }
    assert_eq!(sight::role(&world.aws).await.unwrap().trust, sealed);
    world.steer(ROLE, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    let after = sight::role(&world.aws).await.unwrap();
    assert_eq!(sight::Role { residual: vec![], trust: before.trust.clone(), ..after.clone() }, before, "all else is back");
    assert_eq!(after.trust, sealed);
    let (_, said) = world.said("inc", "Released").await;
    assert!(said.contains("not given back") && said.contains("AROA9"), "{said}");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_trust_policy_that_aws_would_not_take_back_is_given_back_once_it_does() {
    let (world, _guard) = role_world(json!([{ "sealTrustPolicy": {} }])).await;
    let before = sight::role(&world.aws).await.unwrap();
    contained(&world).await;
    world.proxy.fail("UpdateAssumeRolePolicy", 400, "MalformedPolicyDocument", "Invalid principal in policy");
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until_quarantine_says(ROLE, "Stalled", "ReleaseConflict").await;
    world.proxy.recover("UpdateAssumeRolePolicy");
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::role(&world.aws).await.unwrap(), before);
}

/// The account controller takes the deny away in its time, which is brought forward here.
async fn old_sessions_end(world: &World<'_>) {
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let denies = accounts.get(&world.account_name()).await.unwrap().status.unwrap().residual_denies;
    for deny in &denies {
        assert_eq!((deny.role_name.as_deref(), deny.user_name.as_deref()), (Some(ROLE), None), "{deny:?}");
        let hours = deny.until.0.duration_since(Timestamp::now()).as_hours();
        assert!((11..=12).contains(&hours), "a role's session lasts up to 12 hours: {deny:?}");
    }
    let over = |name: &str| json!({ "roleName": ROLE, "policyName": name, "until": "2026-01-01T00:00:00Z" });
    let expired: Vec<_> = denies.iter().map(|deny| over(&deny.policy_name)).collect();
    assert!(!expired.is_empty());
    let patch = Patch::Merge(json!({ "status": { "residualDenies": expired } }));
    accounts.patch_status(&world.account_name(), &PatchParams::default(), &patch).await.unwrap();
    world.look_now().await;
    world
        .until_aws("the deny of old sessions is gone", async || {
            let left = sight::role(&world.aws).await?.residual;
            let listed = accounts.get(&world.account_name()).await?.status.unwrap_or_default().residual_denies;
            ensure!(left.is_empty() && listed.is_empty(), "{left:?} {listed:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn roles_that_nobody_can_or_may_change_are_refused_and_the_others_go_on() {
    let (world, _guard) = role_world(json!([{ "denyAll": {} }])).await;
    let iam = &world.aws.iam;
    let linked = iam.create_service_linked_role().aws_service_name("ecs.amazonaws.com").send().await.unwrap();
    let linked = linked.role.unwrap().role_name;
    let sso = iam.create_role().role_name("AWSReservedSSO_Admin").path("/aws-reserved/sso.amazonaws.com/");
    sso.assume_role_policy_document(scene::ROLE_TRUST).send().await.unwrap();
    let target = |name: &str| json!({ "iamRole": { "accountRef": { "name": world.account_name() }, "roleName": name } });
    let names = [linked.as_str(), "AWSReservedSSO_Admin", "firebreak", "nobody"];
    let targets: Vec<Value> = names.iter().map(|name| target(name)).chain([world.role_target()]).collect();
    declare(&world, json!(targets)).await;
    let refused = [
        ("ManagedByAws", "the AWS service that it is linked to"),
        ("ManagedByAws", "Identity Center"),
        ("Protected", "the identity that Firebreak itself uses"),
        ("NotContained", "AWS shows no role nobody"),
    ];
    world.until_refused("inc", &refused).await;
    world.until_target("inc", 4, |t| t.contained == "True").await;
    sight::role_denied(&world.aws).await.unwrap();
    let touched = |c: &firebreak_tests::proxy::Call| {
        names.iter().any(|name| c.params.get("RoleName").is_some_and(|role| role == name))
    };
    let wrong: Vec<_> = world.proxy.changing().into_iter().filter(|c| touched(c) && c.action != "AssumeRole").collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether nobody can assume the role and its old sessions are denied.
async fn shut(world: &World<'_>) -> anyhow::Result<()> {
    let role = sight::role(&world.aws).await?;
    let revoked = role
        .inline
        .get("firebreak-revoke-sessions")
        .is_some_and(|text| text.contains("aws:TokenIssueTime") && text.contains("DateLessThan") && !text.contains("Allow"));
    let sealed = role.trust.contains("FirebreakSealed") && !role.trust.contains("Allow");
    ensure!(revoked && sealed, "{role:#?}");
    Ok(())
}

#[tokio::test]
async fn a_role_that_is_sealed_with_its_sessions_revoked_stays_so_and_is_given_back_exactly() {
    let (world, _guard) = role_world(json!([{ "revokeSessions": {} }, { "sealTrustPolicy": {} }])).await;
    let judge = Judge::of(&world).await;
    let before = sight::role(&world.aws).await.unwrap();
    contained(&world).await;
    shut(&world).await.unwrap();

    let shut_again = async || world.until_aws("shut again", async || shut(&world).await).await;
    let (iam, soft) = (&world.aws.iam, scene::USER_POLICY);
    iam.update_assume_role_policy().role_name(ROLE).policy_document(scene::ROLE_TRUST).send().await.unwrap();
    iam.delete_role_policy().role_name(ROLE).policy_name("firebreak-revoke-sessions").send().await.unwrap();
    shut_again().await;
    let put = iam.put_role_policy().role_name(ROLE).policy_name("firebreak-revoke-sessions").policy_document(soft);
    put.send().await.unwrap();
    shut_again().await;

    // The cutoff moves forward at the look after 30 s.
    let first = sight::role(&world.aws).await.unwrap().inline["firebreak-revoke-sessions"].clone();
    let moved = std::time::Duration::from_mins(1);
    firebreak_tests::eventually::eventually("a later cutoff", moved, async || {
        shut(&world).await?;
        let now = sight::role(&world.aws).await?.inline["firebreak-revoke-sessions"].clone();
        ensure!(now > first, "{now}");
        Ok(())
    })
    .await;
    let last = sight::role(&world.aws).await.unwrap().inline["firebreak-revoke-sessions"].clone();

    world.release("inc").await;
    let after = sight::role(&world.aws).await.unwrap();
    let [residual] = &after.residual[..] else { panic!("{after:#?}") };
    let stays = world.aws.iam.get_role_policy().role_name(ROLE).policy_name(residual).send().await.unwrap();
    assert_eq!(sight::decoded(&stays.policy_document), last, "old sessions stay denied");
    assert_eq!(sight::Role { residual: vec![], ..after.clone() }, before);
    assert!(judge.assert_no_call_was_wrong() > 0);
    old_sessions_end(&world).await;
}

/// The cutoff of a deny of old sessions.
fn cutoff(document: &str) -> Timestamp {
    let document: Value = serde_json::from_str(document).unwrap();
    let condition = &document["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"];
    condition.as_str().unwrap_or_default().parse().unwrap()
}

#[tokio::test]
async fn sessions_that_a_slow_node_takes_for_later_ones_are_denied_too() {
    let (world, _guard) = role_world(json!([{ "denyAll": {} }, { "revokeSessions": {} }])).await;
    let ahead = SignedDuration::from_secs(90);
    world.proxy.clock_is_ahead(ahead.unsigned_abs());
    let of_aws = Timestamp::now() + ahead;
    contained(&world).await;
    let revoked = sight::role(&world.aws).await.unwrap().inline["firebreak-revoke-sessions"].clone();
    assert!(cutoff(&revoked) >= of_aws, "{revoked} lets through what AWS issued until {of_aws}");

    let of_aws = Timestamp::now() + ahead;
    world.release("inc").await;
    let residual = sight::role(&world.aws).await.unwrap().residual;
    assert!(!residual.is_empty());
    let mut cutoffs = Vec::new();
    for name in residual {
        let policy = world.aws.iam.get_role_policy().role_name(ROLE).policy_name(name).send().await.unwrap();
        cutoffs.push(cutoff(&sight::decoded(&policy.policy_document)));
    }
    assert!(cutoffs.iter().max() >= Some(&of_aws), "{cutoffs:?} brings back to life what AWS issued until {of_aws}");
}

#[tokio::test]
async fn a_trust_policy_that_names_somebody_who_was_made_again_is_a_conflict() {
    let (world, _guard) = role_world(json!([{ "sealTrustPolicy": {} }])).await;
    let (iam, account) = (&world.aws.iam, &world.aws.account);
    iam.create_user().user_name("ci").send().await.unwrap();
    let trust = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":"arn:aws:iam::{account}:user/ci"}},"Action":"sts:AssumeRole"}}]}}"#
    );
    iam.update_assume_role_policy().role_name(ROLE).policy_document(&trust).send().await.unwrap();
    contained(&world).await;
    iam.delete_user().user_name("ci").send().await.unwrap();
    iam.create_user().user_name("ci").send().await.unwrap();
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(ROLE, "Stalled", "ReleaseConflict").await;
    assert!(message.contains("user/ci") && message.contains("somebody else"), "{message}");
    assert!(sight::role(&world.aws).await.unwrap().trust.contains("FirebreakSealed"), "still sealed");
    world.steer(ROLE, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::role(&world.aws).await.unwrap().trust, trust);
}
