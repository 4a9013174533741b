//! Plan, Contain, Release, suspend, and what deleting an Incident does.

use std::collections::BTreeMap;

use anyhow::ensure;
use firebreak_crds::{Evidence, HolderState, Incident, get_condition};
use firebreak_tests::eventually::eventually;
use firebreak_tests::sight;
use firebreak_tests::world::{SOON, World, standard_policy, uid};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::ground_up::{unannounced, world, worlds};

/// How often each operation occurs.
fn counted(operations: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    operations.into_iter().for_each(|operation| *counts.entry(operation).or_default() += 1);
    counts
}

/// What the plan in the status says would be called.
fn planned(incident: &Incident) -> BTreeMap<String, usize> {
    let plan = incident.status.as_ref().unwrap().plan.as_ref().unwrap();
    let calls = plan.targets.iter().flat_map(|t| &t.calls);
    counted(calls.map(|call| call.split(' ').next().unwrap().to_owned()))
}

/// What was called.
fn called(world: &World<'_>) -> BTreeMap<String, usize> {
    counted(world.proxy.changing().iter().map(|call| format!("{}:{}", call.service, call.action)))
}

#[tokio::test]
async fn plan_changes_nothing_and_lists_each_call_that_contain_then_makes() {
    let (world, _guard) = unannounced().await;
    world.plane.apply(&world.account(json!({ "prepare": { "isolationGroups": "OnDemand" } })).to_string()).await.unwrap();
    let always = json!({
        "ec2Instance": {
            "contain": [{ "isolateNetwork": { "severTrackedConnections": "Always" } }],
            "evidence": [{ "ebsSnapshots": {} }],
        },
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
    });
    world.plane.apply(&world.policy("standard", always).to_string()).await.unwrap();
    world.account_ready().await;

    world.declare("inc", "Plan", json!({})).await;
    let incident = world.until_reason("inc", "Ready", "Planned").await;
    assert_eq!(world.said("inc", "Contained").await.0, "PlanOnly");
    assert_eq!(called(&world), BTreeMap::new(), "Plan only reads");
    assert!(world.quarantines().await.is_empty() && world.evidence().await.is_empty());
    let plan = incident.status.as_ref().unwrap().plan.clone().unwrap();
    assert_eq!((plan.digest.len(), plan.target_count, plan.targets.len()), (64, 2, 2));
    for (target, id) in plan.targets.iter().zip([&world.scene.instances[0].id, "mallory"]) {
        assert!(target.resource.ends_with(id) && target.problem.is_none() && !target.calls.is_empty(), "{target:?}");
    }
    let calls: Vec<&String> = plan.targets.iter().flat_map(|t| &t.calls).collect();
    assert_eq!(calls.len(), usize::try_from(plan.call_count).unwrap());
    for named in world.scene.instances[0].interfaces.iter().chain(&world.scene.access_keys) {
        assert!(calls.iter().any(|call| call.contains(named)), "{named} is not in {calls:#?}");
    }

    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;
    assert_eq!(called(&world), planned(&incident));
}

#[tokio::test]
async fn the_digest_of_a_plan_names_what_is_asked_for_and_nothing_that_an_attacker_can_change() {
    let (world, _guard) = world().await;
    let digest = async |incident| {
        let incident = world.until_reason(incident, "Ready", "Planned").await;
        incident.status.unwrap().plan.unwrap()
    };
    world.declare("first", "Plan", json!({})).await;
    let first = digest("first").await;
    let key = &world.scene.access_keys[0];
    world.aws.iam.delete_access_key().user_name("mallory").access_key_id(key).send().await.unwrap();
    world.declare("second", "Plan", json!({})).await;
    let second = digest("second").await;
    assert_eq!((&second.digest, second.call_count), (&first.digest, first.call_count - 1));
    world.declare("less", "Plan", json!({ "targets": [world.user_target()] })).await;
    assert_ne!(digest("less").await.digest, first.digest);
}

#[tokio::test]
async fn plan_on_an_incident_that_holds_freezes_it_and_lets_nothing_go() {
    let (world, _guard) = worlds(2).await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;

    world.change("inc", json!({ "mode": "Plan" })).await;
    let incident = world.until_reason("inc", "Ready", "Frozen").await;
    world.until("inc", "Contained", "True").await;
    let (_, message) = world.said("inc", "Ready").await;
    assert!(message.contains("mode is Plan on an Incident that holds") && message.contains("Release"), "{message}");
    assert!(incident.status.unwrap().plan.is_none());
    sight::isolated(&world.aws, interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();

    let targets = json!([world.instance_target(0), world.user_target(), world.instance_target(1)]);
    world.change("inc", json!({ "targets": targets })).await;
    world.until_target("inc", 2, |t| t.reason == "PlanOnly").await;
    put_back(&world, &interfaces[0]).await;
    world.until_aws("the drift is repaired", async || sight::isolated(&world.aws, interfaces).await).await;
    sight::isolated(&world.aws, &world.scene.instances[1].interfaces).await.unwrap_err();
    assert!(world.quarantine_of(&world.scene.instances[1].id).await.is_none(), "nothing new is held");

    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &world.scene.instances[1].interfaces).await.unwrap();
}

/// The attacker, or a well-meaning colleague.
async fn put_back(world: &World<'_>, interface: &str) {
    let group = &world.scene.groups[0];
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface).groups(group);
    call.send().await.unwrap();
}

#[tokio::test]
async fn containing_again_makes_a_new_quarantine_and_no_new_evidence() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;
    let (first, snapshots) = (world.quarantine_of(id).await.unwrap(), sight::snapshots(&world.aws).await.unwrap());
    let evidence: Vec<String> = world.evidence().await.iter().map(uid).collect();

    world.release("inc").await;
    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    let second = world.quarantine_of(id).await.unwrap();
    assert_eq!(first.name_any(), second.name_any());
    assert_ne!(uid(&first), uid(&second));
    sight::isolated(&world.aws, interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();
    world.until("inc", "EvidencePreserved", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap(), snapshots);
    assert_eq!(world.evidence().await.iter().map(uid).collect::<Vec<_>>(), evidence);

    let released = world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    let account = world.account_ready().await.status.unwrap();
    let last = account.residual_denies.iter().map(|d| d.until.0).max().unwrap();
    let message = &released.status.as_ref().unwrap().targets[1].message;
    assert!(message.contains(&last.to_string()), "blocked until the last deny ends, {last}: {message}");
}

#[tokio::test]
async fn a_suspended_incident_holds_nothing_new_and_repairs_what_it_holds() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;

    world.change("inc", json!({ "suspend": true, "targets": [world.instance_target(0), world.user_target()] })).await;
    let target = world.until_target("inc", 1, |t| t.reason == "Suspended").await;
    assert!(target.message.contains("spec.suspend"), "{target:?}");
    let (_, message) = world.said("inc", "Ready").await;
    assert!(message.contains("spec.suspend"), "{message}");
    put_back(&world, &interfaces[0]).await;
    world.until_aws("the drift is repaired", async || sight::isolated(&world.aws, interfaces).await).await;
    assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Active"), "nobody holds the user");

    world.change("inc", json!({ "suspend": false })).await;
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn a_suspended_quarantine_is_watched_but_not_touched() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let interfaces = &world.scene.instances[0].interfaces;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;

    world.steer(id, json!({ "suspend": true })).await;
    let message = world.until_quarantine_says(id, "Ready", "Suspended").await;
    assert!(message.contains("suspended"), "{message}");
    world.until_drift_counts(id).await;
    put_back(&world, &interfaces[0]).await;
    world.until("inc", "Contained", "False").await;
    world.until_swept(2).await;
    sight::isolated(&world.aws, interfaces).await.unwrap_err();
    let status = world.quarantine_of(id).await.unwrap().status.unwrap();
    assert_eq!(status.drift_count, 0, "nothing was put back: {status:#?}");
    let said = status.actions.iter().find(|a| a.name == "isolateNetwork").unwrap();
    assert!(said.message.contains(&interfaces[0]), "which interface is open: {said:?}");
    assert!(said.wanted.as_ref().is_some_and(|w| w.isolate_network.is_some()), "what is asked for: {said:?}");
    world.until("inc", "EvidencePreserved", "True").await;
    let before = sight::snapshots(&world.aws).await.unwrap();
    world.declare("late", "Contain", json!({})).await;
    until_evidence_waits(&world).await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap(), before, "evidence is written to AWS, too");

    world.steer(id, json!({ "suspend": false })).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    world.until("late", "EvidencePreserved", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 2 * before.len());
}

async fn until_evidence_waits(world: &World<'_>) {
    eventually("evidence waits", SOON, async || {
        let evidence = world.evidence().await;
        let ready = |e: &Evidence| get_condition(&e.status.as_ref()?.conditions, "Ready").map(|c| c.reason.clone());
        ensure!(evidence.iter().filter_map(ready).any(|reason| reason == "Suspended"), "{evidence:#?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_incident_leaves_everything_contained_until_its_quarantine_is_deleted() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;

    world.delete_incident("inc").await;
    for quarantine in world.quarantines().await {
        assert_eq!(quarantine.spec.holders.iter().map(|h| h.state).collect::<Vec<_>>(), [HolderState::Retained]);
    }
    put_back(&world, &interfaces[0]).await;
    world.until_aws("what is retained is repaired", async || sight::isolated(&world.aws, interfaces).await).await;
    sight::cut_off(&world.aws).await.unwrap();
    assert_eq!((sight::snapshots(&world.aws).await.unwrap().len(), world.evidence().await.len()), (3, 1));

    let quarantine = world.quarantine_of(id).await.unwrap().name_any();
    world.all_quarantines().delete(&quarantine, &DeleteParams::default()).await.unwrap();
    firebreak_tests::eventually::gone(&world.all_quarantines(), &quarantine, firebreak_tests::world::SOON).await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn a_deleted_incident_gives_back_where_its_deletion_policy_says_so_and_leaves_the_evidence() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({ "deletionPolicy": "Release" })).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "EvidencePreserved", "True").await;

    world.delete_incident("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    assert!(sight::attached_policies(&world.aws).await.unwrap().is_empty());
    let evidence = world.evidence().await;
    assert_eq!((sight::snapshots(&world.aws).await.unwrap().len(), evidence.len()), (3, 1));
    assert_eq!(evidence[0].status.as_ref().unwrap().progress.as_deref(), Some("3/3"));
}

#[tokio::test]
async fn an_incident_that_comes_back_takes_over_what_its_predecessor_left() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    let first = world.quarantine_of(id).await.unwrap();
    world.delete_incident("inc").await;

    world.declare("inc", "Contain", json!({})).await;
    let incident = world.until("inc", "Contained", "True").await;
    let second = world.quarantine_of(id).await.unwrap();
    assert_eq!((uid(&second), &second.spec.original), (uid(&first), &first.spec.original));
    let holders: Vec<_> = second.spec.holders.iter().map(|h| (h.uid.clone(), h.state)).collect();
    assert_eq!(holders, [(uid(&incident), HolderState::Holding)]);

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
}

#[tokio::test]
async fn a_target_without_a_containment_action_is_not_called_contained_and_its_evidence_is_taken() {
    let (world, _guard) = world().await;
    let mut policy = standard_policy();
    policy["ec2Instance"]["contain"] = json!([]);
    world.plane.apply(&world.policy("evidence-only", policy).to_string()).await.unwrap();
    world.declare("inc", "Contain", json!({ "policyRef": { "name": world.policy_name("evidence-only") } })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until_target("inc", 0, |t| t.reason == "NothingToDo" && t.contained == "False").await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    world.until("inc", "Contained", "False").await;
    world
        .until_aws("the snapshots are there", async || {
            let snapshots = sight::snapshots(&world.aws).await?;
            ensure!(snapshots.len() == 3, "{snapshots:?}");
            Ok(())
        })
        .await;
}
