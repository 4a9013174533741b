//! One session of a role: denied by its name, against whoever undoes it, while the role's other sessions and the role itself are
//! left alone.

use anyhow::ensure;
use firebreak_crds::AwsAccount;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{self, ROLE};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

const SESSION: &str = "ci-job@17";
const OTHER: &str = "i-0123456789abcdef0";

/// A world with a role, and a policy that denies sessions.
async fn session_world() -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::role(&world.aws).await.unwrap();
    let policy = world.policy("sessions", json!({ "roleSession": { "contain": [{ "denySession": {} }] } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    (world, guard)
}

async fn declare(world: &World<'_>, name: &str, targets: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name("sessions") }, "targets": targets });
    world.declare(name, "Contain", spec).await;
}

fn policy_of(session: &str) -> String {
    format!("firebreak-deny-session-{session}")
}

/// Whether this session is denied everything, and nothing but it.
async fn denied(world: &World<'_>, session: &str) -> anyhow::Result<()> {
    let id = world.aws.iam.get_role().role_name(ROLE).send().await?.role.map(|r| r.role_id).unwrap_or_default();
    let role = sight::role(&world.aws).await?;
    let text = role.inline.get(&policy_of(session)).cloned().unwrap_or_default();
    let shown: Value = serde_json::from_str(&text).unwrap_or_default();
    let condition = json!({ "StringEquals": { "aws:userid": format!("{id}:{session}") } });
    let [statement] = &shown["Statement"].as_array().cloned().unwrap_or_default()[..] else {
        anyhow::bail!("{role:#?}");
    };
    let all = statement["Effect"] == "Deny" && statement["Action"] == "*" && statement["Resource"] == "*";
    ensure!(all && statement["Condition"] == condition, "{text}");
    Ok(())
}

/// The role but for these sessions' denies.
async fn rest(world: &World<'_>, sessions: &[&str]) -> sight::Role {
    let mut role = sight::role(&world.aws).await.unwrap();
    role.inline.retain(|name, _| !sessions.iter().any(|session| *name == policy_of(session)));
    role
}

#[tokio::test]
async fn a_denied_session_stays_denied_and_the_role_is_given_back_exactly_but_for_that_sessions_past() {
    let (world, _guard) = session_world().await;
    let judge = Judge::of(&world).await;
    let before = sight::role(&world.aws).await.unwrap();
    declare(&world, "inc", json!([world.session_target(SESSION)])).await;
    world.until("inc", "Contained", "True").await;
    denied(&world, SESSION).await.unwrap();
    assert_eq!(rest(&world, &[SESSION]).await, before, "nothing else of the role");
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("under another"), "what it does not stop: {target:?}");

    let denied_again = async || world.until_aws("denied again", async || denied(&world, SESSION).await).await;
    let (iam, name) = (&world.aws.iam, policy_of(SESSION));
    iam.delete_role_policy().role_name(ROLE).policy_name(&name).send().await.unwrap();
    denied_again().await;
    let soft = iam.put_role_policy().role_name(ROLE).policy_name(&name).policy_document(scene::USER_POLICY);
    soft.send().await.unwrap();
    denied_again().await;

    world.release("inc").await;
    let after = sight::role(&world.aws).await.unwrap();
    let [residual] = &after.residual[..] else { panic!("{after:#?}") };
    assert!(residual.ends_with(SESSION), "{residual}");
    let stays = iam.get_role_policy().role_name(ROLE).policy_name(residual).send().await.unwrap();
    let stays = sight::decoded(&stays.policy_document);
    assert!(stays.contains(&format!(":{SESSION}\"")) && stays.contains("DateLessThan"), "{stays}");
    assert_eq!(sight::Role { residual: vec![], ..after }, before);
    assert!(judge.assert_no_call_was_wrong() > 0);
    old_sessions_end(&world).await;
}

/// The account controller takes the deny away in its time, which is brought forward here.
async fn old_sessions_end(world: &World<'_>) {
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let denies = accounts.get(&world.account_name()).await.unwrap().status.unwrap().residual_denies;
    let [deny] = &denies[..] else { panic!("{denies:?}") };
    let hours = deny.until.0.duration_since(Timestamp::now()).as_hours();
    assert!((11..=12).contains(&hours), "a role's session lasts up to 12 hours: {deny:?}");
    let over = json!({ "roleName": ROLE, "policyName": deny.policy_name, "until": "2026-01-01T00:00:00Z" });
    let patch = Patch::Merge(json!({ "status": { "residualDenies": [over] } }));
    accounts.patch_status(&world.account_name(), &PatchParams::default(), &patch).await.unwrap();
    world.look_now().await;
    world
        .until_aws("the deny of old sessions is gone", async || {
            let left = sight::role(&world.aws).await?.residual;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn two_sessions_of_one_role_are_held_and_given_back_each_by_itself() {
    let (world, _guard) = session_world().await;
    let judge = Judge::of(&world).await;
    declare(&world, "one", json!([world.session_target(SESSION)])).await;
    declare(&world, "other", json!([world.session_target(OTHER)])).await;
    world.until("one", "Contained", "True").await;
    world.until("other", "Contained", "True").await;
    let writes = world.proxy.changing().len();
    world.change("one", json!({ "mode": "Release" })).await;
    world.until("one", "Released", "True").await;
    denied(&world, SESSION).await.unwrap_err();
    denied(&world, OTHER).await.unwrap();
    let written = world.proxy.changing()[writes..].iter().filter(|c| format!("{c:?}").contains(OTHER)).count();
    assert_eq!(written, 0, "neither undoes the other");
    world.release("other").await;
    assert_eq!(sight::role(&world.aws).await.unwrap().residual.len(), 2);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn sessions_of_roles_that_nobody_can_or_may_change_are_refused_and_the_others_go_on() {
    let (world, _guard) = session_world().await;
    let sso = world.aws.iam.create_role().role_name("AWSReservedSSO_Admin").path("/aws-reserved/sso.amazonaws.com/");
    sso.assume_role_policy_document(scene::ROLE_TRUST).send().await.unwrap();
    let of = |role: &str| {
        let account = json!({ "name": world.account_name() });
        json!({ "roleSession": { "accountRef": account, "roleName": role, "sessionName": SESSION } })
    };
    let targets = json!([of("AWSReservedSSO_Admin"), of("firebreak"), of("nobody"), world.session_target(SESSION)]);
    declare(&world, "inc", targets).await;
    let refused = [
        ("ManagedByAws", "Identity Center"),
        ("Protected", "the identity that Firebreak itself uses"),
        ("NotContained", "AWS shows no role nobody"),
    ];
    world.until_refused("inc", &refused).await;
    world.until_target("inc", 3, |t| t.contained == "True").await;
    denied(&world, SESSION).await.unwrap();
    let touched = |role: &str| world.proxy.changing().iter().any(|c| c.params.get("RoleName").is_some_and(|r| r == role));
    assert!(!touched("AWSReservedSSO_Admin") && !touched("firebreak") && touched(ROLE));
}

#[tokio::test]
async fn a_role_without_room_for_the_deny_is_not_called_contained() {
    let (world, _guard) = session_world().await;
    world.proxy.fail("PutRolePolicy", 409, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role build");
    declare(&world, "inc", json!([world.session_target(SESSION)])).await;
    let target = world.until_target("inc", 0, |t| t.contained == "False" && t.message.contains("LimitExceeded")).await;
    assert!(target.message.contains("iam:PutRolePolicy"), "{target:?}");
    world.proxy.recover("PutRolePolicy");
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    denied(&world, SESSION).await.unwrap();
}
