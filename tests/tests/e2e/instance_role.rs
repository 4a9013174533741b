//! `revokeInstanceRole`: an instance loses its role and what it was handed out, whatever the attacker puts in its place; and gets it
//! back, but for its old credentials. Instances that share a role do not disturb each other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use firebreak_crds::{AwsAccount, Incident};
use firebreak_tests::eventually::{condition, eventually};
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{self, instance_profile, put_profile};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::ground_up::{world, worlds};

/// Firebreak's own profile, the role in it, and the role's policy.
const OURS: &str = "firebreak-deny-all";
const DENIES: &str = "firebreak-deny-instances";
/// A release waits until new credentials are told from the old ones: up to 35 s after the profile was taken off.
const RELEASED: Duration = Duration::from_mins(2);

fn revoke() -> Value {
    json!([{ "revokeInstanceRole": {} }])
}

/// Firebreak's own profile is made ahead, or on demand.
pub async fn prepare(world: &World<'_>, when: &str) {
    let account = world.account(json!({ "prepare": { "isolationGroups": "AllVpcs", "denyProfile": when } }));
    world.plane.apply(&account.to_string()).await.unwrap();
    if when == "Always" {
        world.until_aws("our own profile is ready", async || ours_is_ready(world).await).await;
    }
}

async fn ours_is_ready(world: &World<'_>) -> anyhow::Result<()> {
    let profile = world.aws.iam.get_instance_profile().instance_profile_name(OURS).send().await?.instance_profile;
    let roles: Vec<String> = profile.into_iter().flat_map(|p| p.roles).map(|r| r.role_name).collect();
    ensure!(roles == [OURS], "{roles:?}");
    let inline = sight::inline_of_role(&world.aws, OURS).await?;
    let Some(deny) = inline.get(OURS).map(|policy| &policy["Statement"][0]) else { anyhow::bail!("{inline:?}") };
    ensure!((&deny["Effect"], &deny["Action"], &deny["Resource"]) == (&json!("Deny"), &json!("*"), &json!("*")), "{deny}");
    Ok(())
}

async fn profile(world: &World<'_>, id: &str) -> Option<String> {
    sight::profile(&world.aws, id).await.unwrap().map(|(_, name)| name)
}

/// Whether the instance has our own profile, and its sessions of the role are denied, whenever they were issued.
async fn revoked(world: &World<'_>, id: &str, role: &str) -> anyhow::Result<()> {
    let shown = sight::profile(&world.aws, id).await?.map(|(_, name)| name);
    ensure!(shown.as_deref() == Some(OURS), "{shown:?}");
    let denied = sight::denied_instances(&world.aws, role).await?;
    ensure!(denied.contains(&(id.to_owned(), None)), "{denied:?}");
    Ok(())
}

async fn until_revoked(world: &World<'_>, id: &str, role: &str) {
    world.until_aws("its role is revoked", async || revoked(world, id, role).await).await;
}

async fn until_released(world: &World<'_>, incident: &str) -> Incident {
    world.change(incident, json!({ "mode": "Release" })).await;
    condition(&world.incidents(), incident, "Released", "True", RELEASED).await
}

/// Puts a profile in the place of what the instance has.
async fn replace(world: &World<'_>, id: &str, name: &str) {
    let (association, _) = sight::profile(&world.aws, id).await.unwrap().unwrap();
    let profile = aws_sdk_ec2::types::IamInstanceProfileSpecification::builder().name(name).build();
    let call = world.aws.ec2.replace_iam_instance_profile_association().association_id(association);
    call.iam_instance_profile(profile).send().await.unwrap();
}

/// The cutoff before which the instance's sessions stay denied; none other of its are.
async fn cutoff(world: &World<'_>, id: &str, role: &str) -> Option<String> {
    let denied = sight::denied_instances(&world.aws, role).await.unwrap();
    let of_it: Vec<_> = denied.into_iter().filter(|(instance, _)| instance == id).collect();
    let [(_, cutoff)] = &of_it[..] else { panic!("{of_it:?}") };
    cutoff.clone()
}

#[tokio::test]
async fn a_role_is_taken_away_against_every_way_of_undoing_it_and_given_back() {
    let (world, _guard) = world().await;
    let (id, iam) = (&world.scene.instances[0].id, &world.aws.iam);
    instance_profile(&world.aws, "web").await.unwrap();
    instance_profile(&world.aws, "other").await.unwrap();
    put_profile(&world.aws, id, "web").await.unwrap();
    let before = sight::inline_of_role(&world.aws, "web").await.unwrap();
    prepare(&world, "Always").await;
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, revoke()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("its sessions of web are denied"), "{target:?}");
    revoked(&world, id, "web").await.unwrap();
    let calls: Vec<String> = world.proxy.changing().into_iter().map(|c| c.action).collect();
    assert!(calls.contains(&"ReplaceIamInstanceProfileAssociation".into()), "{calls:?}");

    // Another profile: also its role is denied.
    replace(&world, id, "other").await;
    until_revoked(&world, id, "other").await;
    // The list of sessions, gone and then changed.
    iam.delete_role_policy().role_name("web").policy_name(DENIES).send().await.unwrap();
    until_revoked(&world, id, "web").await;
    let soft = scene::USER_POLICY;
    iam.put_role_policy().role_name("web").policy_name(DENIES).policy_document(soft).send().await.unwrap();
    until_revoked(&world, id, "web").await;
    // No profile at all.
    let (association, _) = sight::profile(&world.aws, id).await.unwrap().unwrap();
    world.aws.ec2.disassociate_iam_instance_profile().association_id(association).send().await.unwrap();
    until_revoked(&world, id, "web").await;
    // Our own profile, hollowed out.
    iam.delete_role_policy().role_name(OURS).policy_name(OURS).send().await.unwrap();
    world.until_aws("our own role denies again", async || ours_is_ready(&world).await).await;
    iam.remove_role_from_instance_profile().instance_profile_name(OURS).role_name(OURS).send().await.unwrap();
    iam.add_role_to_instance_profile().instance_profile_name(OURS).role_name("other").send().await.unwrap();
    world.until_aws("our own role is in it again", async || ours_is_ready(&world).await).await;
    world.until("inc", "Contained", "True").await;

    until_released(&world, "inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(profile(&world, id).await.as_deref(), Some("web"));
    let mut after = sight::inline_of_role(&world.aws, "web").await.unwrap();
    assert!(after.remove(DENIES).is_some() && after == before, "{after:#?}");
    assert!(cutoff(&world, id, "web").await.is_some() && cutoff(&world, id, "other").await.is_some());
    assert_eq!(judge.assert_no_call_was_wrong(), 3, "two denies were lifted, one profile was given back");
    old_sessions_end(&world).await;
}

/// The account controller takes out what is over, and leaves what is not: the times are brought forward here.
async fn old_sessions_end(world: &World<'_>) {
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let denies = accounts.get(&world.account_name()).await.unwrap().status.unwrap().residual_denies;
    let listed: BTreeSet<_> = denies.iter().map(|d| (d.role_name.as_deref(), d.policy_name.as_str())).collect();
    assert_eq!(listed, [(Some("other"), DENIES), (Some("web"), DENIES)].into());
    let before = sight::denied_instances(&world.aws, "web").await.unwrap();
    world.aws.iam.delete_role_policy().role_name("web").policy_name(DENIES).send().await.unwrap();
    world.look_now().await;
    world
        .until_aws("old sessions are denied again", async || {
            let now = sight::denied_instances(&world.aws, "web").await?;
            ensure!(now == before && !now.is_empty(), "{now:?}");
            Ok(())
        })
        .await;
    let old = |id: &str, at: &str| {
        json!({ "Sid": format!("S{}", &at[..4]), "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {
            "StringEquals": { "aws:userid": [format!("AROA1:{id}")] }, "DateLessThan": { "aws:TokenIssueTime": at },
        } })
    };
    let put = async |role: &str, statements: Value| {
        let document = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put = world.aws.iam.put_role_policy().role_name(role).policy_name(DENIES).policy_document(document);
        put.send().await.unwrap();
    };
    put("web", json!([old("i-1", "2020-01-01T00:00:00Z")])).await;
    put("other", json!([old("i-1", "2020-01-01T00:00:00Z"), old("i-2", "2100-01-01T00:00:00Z")])).await;
    let over = |role| json!({ "roleName": role, "policyName": DENIES, "until": "2026-01-01T00:00:00Z" });
    let patch = Patch::Merge(json!({ "status": { "residualDenies": [over("web"), over("other")] } }));
    // What the controller wrote last counts for 10 s, and not what IAM shows: it may be late.
    let ours = |c: &firebreak_tests::proxy::Call| {
        c.action == "PutRolePolicy" && c.finished.is_none_or(|at| at.elapsed().as_secs() < 11)
    };
    world
        .until_aws("the last write is 10 s old", async || {
            ensure!(world.proxy.count(ours) == 0, "not yet");
            Ok(())
        })
        .await;
    accounts.patch_status(&world.account_name(), &PatchParams::default(), &patch).await.unwrap();
    world.look_now().await;
    world
        .until_aws("what is over is gone", async || {
            let listed = accounts.get(&world.account_name()).await?.status.unwrap_or_default().residual_denies;
            let web = sight::inline_of_role(&world.aws, "web").await?;
            let other = sight::denied_instances(&world.aws, "other").await?;
            let left = BTreeSet::from([("i-2".to_owned(), Some("2100-01-01T00:00:00Z".to_owned()))]);
            ensure!(listed.is_empty() && !web.contains_key(DENIES) && other == left, "{listed:?} {web:?} {other:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_stopped_instance_and_what_a_crash_left_of_our_own_profile() {
    let (world, _guard) = world().await;
    let (id, iam) = (&world.scene.instances[0].id, &world.aws.iam);
    instance_profile(&world.aws, "web").await.unwrap();
    put_profile(&world.aws, id, "web").await.unwrap();
    world.aws.ec2.stop_instances().instance_ids(id).send().await.unwrap();
    iam.create_role().role_name(OURS).assume_role_policy_document(scene::ROLE_TRUST).send().await.unwrap();
    iam.create_instance_profile().instance_profile_name(OURS).send().await.unwrap();
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, revoke()).await;
    world.until("inc", "Contained", "True").await;
    until_revoked(&world, id, "web").await;
    ours_is_ready(&world).await.unwrap();
    let replaced = world.proxy.count(|c| c.action == "ReplaceIamInstanceProfileAssociation");
    assert_eq!(replaced, 0, "AWS takes that of running instances only");
    until_released(&world, "inc").await;
    assert_eq!(profile(&world, id).await.as_deref(), Some("web"));
    assert!(cutoff(&world, id, "web").await.is_some());
    assert_eq!(judge.assert_no_call_was_wrong(), 2);
}

#[tokio::test]
async fn instances_that_share_a_role_do_not_overwrite_each_other() {
    const SHARING: usize = 8;
    let (world, _guard) = worlds(SHARING).await;
    let ids: Vec<&String> = world.scene.instances.iter().map(|i| &i.id).collect();
    instance_profile(&world.aws, "web").await.unwrap();
    for id in &ids {
        put_profile(&world.aws, id, "web").await.unwrap();
    }
    let before = sight::inline_of_role(&world.aws, "web").await.unwrap();
    let judge = Judge::of(&world).await;
    world.plane.apply(&world.policy("role", json!({ "ec2Instance": { "contain": revoke() } })).to_string()).await.unwrap();
    let rest: Vec<Value> = (1..SHARING).map(|n| world.instance_target(n)).collect();
    for (name, targets) in [("one", json!([world.instance_target(0)])), ("rest", json!(rest))] {
        let spec = json!({ "policyRef": { "name": world.policy_name("role") }, "targets": targets });
        world.declare(name, "Contain", spec).await;
    }
    for name in ["one", "rest"] {
        world.until(name, "Contained", "True").await;
    }
    for id in &ids {
        until_revoked(&world, id, "web").await;
    }
    let writes = world.proxy.count(|c| c.action == "PutRolePolicy" && c.params["RoleName"] == "web");
    assert!(writes <= SHARING, "{writes} writes of {SHARING} instances");

    until_released(&world, "one").await;
    assert_eq!(profile(&world, ids[0]).await.as_deref(), Some("web"));
    assert!(cutoff(&world, ids[0], "web").await.is_some());
    for id in &ids[1..] {
        revoked(&world, id, "web").await.unwrap();
    }
    until_released(&world, "rest").await;
    for id in &ids {
        assert_eq!(profile(&world, id).await.as_deref(), Some("web"));
        assert!(cutoff(&world, id, "web").await.is_some());
    }
    let mut after = sight::inline_of_role(&world.aws, "web").await.unwrap();
    let denies = after.remove(DENIES).unwrap();
    assert_eq!(after, before);
    assert!(denies["Statement"].as_array().unwrap().len() <= SHARING, "{denies:#}");
    assert_eq!(judge.assert_no_call_was_wrong(), 2 * SHARING);
}

#[tokio::test]
async fn a_protected_role_is_left_alone_and_nothing_is_claimed_of_its_sessions() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    instance_profile(&world.aws, "web").await.unwrap();
    put_profile(&world.aws, id, "web").await.unwrap();
    let before = sight::inline_of_role(&world.aws, "web").await.unwrap();
    let arns = [format!("arn:aws:iam::{}:role/we*", world.aws.account)];
    world.plane.apply(&world.account(json!({ "protected": { "arns": arns } })).to_string()).await.unwrap();
    world.contain_instance("inc", id, revoke()).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("it is protected by AwsAccount")).await;
    assert_eq!(target.contained, "False", "{target:?}");
    assert!(target.message.contains("until they expire"), "{target:?}");
    let ours = async || ensure_profile(&world, id, OURS).await;
    world.until_aws("it has our own profile all the same", ours).await;
    assert_eq!(sight::inline_of_role(&world.aws, "web").await.unwrap(), before);
    until_released(&world, "inc").await;
    assert_eq!(profile(&world, id).await.as_deref(), Some("web"));
    assert_eq!(sight::inline_of_role(&world.aws, "web").await.unwrap(), before);
}

async fn ensure_profile(world: &World<'_>, id: &str, name: &str) -> anyhow::Result<()> {
    let shown = sight::profile(&world.aws, id).await?.map(|(_, name)| name);
    ensure!(shown.as_deref() == Some(name), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn neither_the_profile_nor_the_deny_waits_for_the_other_and_a_profile_that_cannot_be_replaced_is_taken_off() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    instance_profile(&world.aws, "web").await.unwrap();
    put_profile(&world.aws, id, "web").await.unwrap();
    prepare(&world, "Always").await;
    let unknown =
        "Value (firebreak-deny-all) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";
    for action in ["ReplaceIamInstanceProfileAssociation", "AssociateIamInstanceProfile"] {
        world.proxy.fail(action, 400, "InvalidParameterValue", unknown);
    }
    world.proxy.fail("PutRolePolicy", 403, "AccessDenied", "not authorized to perform iam:PutRolePolicy");
    world.contain_instance("inc", id, revoke()).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("iam:PutRolePolicy")).await;
    assert!(target.contained == "False" && target.message.contains("grant it to the role"), "{target:?}");
    assert_eq!(profile(&world, id).await, None, "off, since it could not be replaced");

    world.proxy.recover("PutRolePolicy");
    world.look_now().await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("its instance profile is taken off"), "{target:?}");
    assert_eq!(profile(&world, id).await, None);
    world.proxy.clear();
    until_revoked(&world, id, "web").await;
    until_released(&world, "inc").await;
    assert_eq!(profile(&world, id).await.as_deref(), Some("web"));
}

#[tokio::test]
async fn an_instance_without_a_profile_gets_none() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    instance_profile(&world.aws, "web").await.unwrap();
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, revoke()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("it has no instance profile"), "{target:?}");
    put_profile(&world.aws, id, "web").await.unwrap();
    until_revoked(&world, id, "web").await;
    until_released(&world, "inc").await;
    assert_eq!(profile(&world, id).await, None);
    assert!(cutoff(&world, id, "web").await.is_some());
    assert_eq!(judge.assert_no_call_was_wrong(), 1, "the deny was lifted, and no profile was given");
}

#[tokio::test]
async fn a_profile_that_somebody_gave_another_role_is_for_a_person_to_decide() {
    let (world, _guard) = world().await;
    let (id, iam) = (&world.scene.instances[0].id, &world.aws.iam);
    for name in ["web", "admin"] {
        instance_profile(&world.aws, name).await.unwrap();
    }
    put_profile(&world.aws, id, "web").await.unwrap();
    world.contain_instance("inc", id, revoke()).await;
    world.until("inc", "Contained", "True").await;
    iam.remove_role_from_instance_profile().instance_profile_name("web").role_name("web").send().await.unwrap();
    iam.add_role_to_instance_profile().instance_profile_name("web").role_name("admin").send().await.unwrap();
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    assert!(message.contains("has admin") && message.contains("onConflict"), "{message}");
    revoked(&world, id, "web").await.unwrap();
    world.steer(id, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    eventually("released", RELEASED, async || {
        let incident = world.incidents().get("inc").await?;
        let conditions = incident.status.unwrap_or_default().conditions;
        ensure!(firebreak_crds::is_true(&conditions, "Released"), "{conditions:#?}");
        Ok(())
    })
    .await;
    assert_eq!(profile(&world, id).await.as_deref(), Some(OURS), "left as it was");
    assert!(cutoff(&world, id, "web").await.is_some());
}
