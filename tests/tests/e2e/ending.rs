//! Instances are stopped and terminated only behind the evidence, after all else, and where nothing speaks against it.

use anyhow::ensure;
use aws_sdk_ec2::types::{AttributeBooleanValue, Instance};
use firebreak_crds::{ActionState, HolderState, Quarantine};
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::eventually::eventually;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::join_scaling_group;
use firebreak_tests::sight;
use firebreak_tests::world::{ADMIN, SOON, World};
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::ground_up::world;

const GROUP: &str = "web";
/// Longer than the controller takes AWS's answers to lag behind its own writes, in seconds.
const LAG: i64 = 12;

fn with_snapshots(contain: &Value) -> Value {
    json!({ "ec2Instance": { "contain": contain, "evidence": [{ "ebsSnapshots": {} }] } })
}

/// An Incident over the scene's instance, with this policy.
async fn declare(world: &World<'_>, incident: &str, mode: &str, policy: Value) {
    world.plane.apply(&world.policy(incident, policy).to_string()).await.unwrap();
    let spec = json!({
        "policyRef": { "name": world.policy_name(incident) },
        "targets": [world.instance_target(0)],
        "requestedBy": ADMIN,
    });
    world.declare(incident, mode, spec).await;
}

/// The snapshots stay pending, as far as the controller can see.
fn hold_snapshots(world: &World<'_>) {
    world.proxy.fail("DescribeSnapshots", 503, "Unavailable", "not now");
}

async fn complete_snapshots(world: &World<'_>) {
    world.proxy.recover("DescribeSnapshots");
    world.look_now().await;
}

fn sent(world: &World<'_>, action: &str) -> usize {
    world.proxy.count(|call| call.action == action)
}

async fn until_state(world: &World<'_>, state: &str) {
    let id = &world.scene.instances[0].id;
    world
        .until_aws(state, async || {
            let now = sight::state(&world.aws, id).await?;
            ensure!(now == state, "{now}");
            Ok(())
        })
        .await;
}

/// Long enough for it to be stopped or terminated, if nothing held that back: the instance was looked at again.
async fn until_looked_at(world: &World<'_>) {
    world.until_answered("DescribeInstances", 3).await;
}

/// Nothing was done to it, but for what the other actions do.
async fn runs_isolated(world: &World<'_>) {
    until_looked_at(world).await;
    assert_eq!((sent(world, "StopInstances"), sent(world, "TerminateInstances")), (0, 0));
    assert_eq!(sight::state(&world.aws, &world.scene.instances[0].id).await.unwrap(), "running");
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}

/// The stop is old enough for a start to count as somebody's: before, AWS may merely be late to show it.
async fn until_a_start_counts(world: &World<'_>) {
    let id = &world.scene.instances[0].id;
    world
        .until_quarantine(id, "stopped for a while", |q| {
            let stop = q.status.iter().flat_map(|s| &s.actions).find(|a| a.name == "stopInstance");
            stop.is_some_and(|a| {
                a.state == ActionState::InForce && Timestamp::now().as_second() - a.since.0.as_second() > LAG
            })
        })
        .await;
}

/// All that AWS shows of an instance, but for when and why it was last started and stopped.
async fn shown(world: &World<'_>) -> Instance {
    let mut shown = sight::instance(&world.aws, &world.scene.instances[0].id).await.unwrap();
    (shown.launch_time, shown.state_transition_reason, shown.state_reason) = (None, None, None);
    shown
}

#[tokio::test]
async fn an_instance_is_stopped_after_the_evidence_and_again_when_it_is_started_and_runs_again_after_the_release() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let groups = sight::groups(&world.aws, interfaces).await.unwrap();
    let (before, protection) = (shown(&world).await, sight::protection(&world.aws, id).await.unwrap());
    let judge = Judge::of(&world).await;
    hold_snapshots(&world);
    let contain = json!([{ "isolateNetwork": {} }, { "protectFromTermination": {} }, { "stopInstance": {} }]);
    declare(&world, "inc", "Contain", with_snapshots(&contain)).await;
    world.until("inc", "Contained", "True").await;
    world.until_reason("inc", "Ready", "AwaitingEvidence").await;
    let waiting = world.until_target("inc", 0, |t| t.message.contains("stopInstance waits until all evidence")).await;
    assert!(waiting.contained == "True" && waiting.message.contains("3 of 3 attributes protect it"), "{waiting:?}");
    runs_isolated(&world).await;

    complete_snapshots(&world).await;
    until_state(&world, "stopped").await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("stopInstance: stopped")).await;
    assert_eq!(sight::protection(&world.aws, id).await.unwrap()["DisableApiStop"], "false", "it would stop our own call");
    world.until("inc", "Ready", "True").await;

    until_a_start_counts(&world).await;
    let on = AttributeBooleanValue::builder().value(true).build();
    world.aws.ec2.modify_instance_attribute().instance_id(id).disable_api_stop(on).send().await.unwrap();
    world.aws.ec2.start_instances().instance_ids(id).send().await.unwrap();
    until_state(&world, "stopped").await;
    eventually("the drift is told", SOON, async || {
        let events = world.events_of("inc").await;
        ensure!(events.iter().any(|e| e.contains("DriftDetected") && e.contains("it was running")), "{events:#?}");
        Ok(())
    })
    .await;
    world.until("inc", "Contained", "True").await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(shown(&world).await, before);
    assert_eq!(sight::protection(&world.aws, id).await.unwrap(), protection);
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), groups);
    assert!(judge.assert_no_call_was_wrong() > 0, "StartInstances was judged");
}

#[tokio::test]
async fn an_instance_is_terminated_only_after_approval_and_evidence_and_nothing_brings_it_back() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let_approve(&world).await;
    let judge = Judge::of(&world).await;
    hold_snapshots(&world);
    let contain = json!([{ "isolateNetwork": {} }, { "removePublicAddresses": {} }, { "terminateInstance": {} }]);
    declare(&world, "inc", "Contain", with_snapshots(&contain)).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "Approved", "False").await;
    world.until_target("inc", 0, |t| t.message.contains("terminateInstance waits for approval")).await;
    runs_isolated(&world).await;

    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until("inc", "Approved", "True").await;
    world.until_target("inc", 0, |t| t.message.contains("terminateInstance waits until all evidence is complete")).await;
    runs_isolated(&world).await;

    complete_snapshots(&world).await;
    until_state(&world, "terminated").await;
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("nothing brings it back")).await;
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("nothing is left to isolate")).await;
    world.until("inc", "Ready", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3);

    let original = world.quarantine_of(id).await.unwrap().spec.original.unwrap();
    assert!(original.contains_key("instance/ended"), "AWS will not show it for long: {original:?}");

    let released = world.release("inc").await;
    world.until_nothing_is_held().await;
    let said = &released.status.unwrap().targets[0].message;
    assert!(said.contains("nothing brings it back"), "{said}");
    assert_eq!(sight::state(&world.aws, id).await.unwrap(), "terminated");
    judge.assert_no_call_was_wrong();
}

/// Approved were the snapshots, and then the end: the policy without the snapshots has another plan.
#[tokio::test]
async fn an_approval_does_not_outlive_a_change_to_a_policy_without_the_evidence() {
    let (world, _guard) = world().await;
    let_approve(&world).await;
    let contain = json!([{ "isolateNetwork": {} }, { "terminateInstance": {} }]);
    declare(&world, "inc", "Plan", with_snapshots(&contain)).await;
    world.until("inc", "Approved", "False").await;
    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until("inc", "Approved", "True").await;

    world.plane.apply(&world.policy("bare", json!({ "ec2Instance": { "contain": contain } })).to_string()).await.unwrap();
    world.change("inc", json!({ "mode": "Contain", "policyRef": { "name": world.policy_name("bare") } })).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "Approved", "False").await;
    runs_isolated(&world).await;

    world.change("inc", json!({ "policyRef": { "name": world.policy_name("inc") } })).await;
    world.until("inc", "Approved", "True").await;
    until_state(&world, "terminated").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3, "what was approved was done");
}

#[tokio::test]
async fn an_incident_declared_again_ends_nothing_that_was_approved_for_its_predecessor() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let protect = |on| AttributeBooleanValue::builder().value(on).build();
    let attribute = || world.aws.ec2.modify_instance_attribute().instance_id(id);
    attribute().disable_api_termination(protect(true)).send().await.unwrap();
    let_approve(&world).await;
    let with = |actions: Value| json!({ "ec2Instance": { "contain": actions } });
    declare(&world, "inc", "Contain", with(json!([{ "isolateNetwork": {} }, { "terminateInstance": {} }]))).await;
    world.until("inc", "Approved", "False").await;
    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until_target("inc", 0, |t| t.message.contains("terminateInstance: not done")).await;

    world.incidents().delete("inc", &DeleteParams::default()).await.unwrap();
    let retained = |q: &Quarantine| q.spec.holders.iter().all(|h| h.state == HolderState::Retained);
    world.until_quarantine(id, "retained", retained).await;
    attribute().disable_api_termination(protect(false)).send().await.unwrap();
    declare(&world, "inc", "Contain", with(json!([{ "isolateNetwork": {} }]))).await;
    world.until("inc", "Contained", "True").await;
    runs_isolated(&world).await;
    let held = world.quarantine_of(id).await.unwrap().spec.holders;
    assert!(held.iter().flat_map(|h| &h.actions).all(|a| a.terminate_instance.is_none()), "{held:?}");
}

#[tokio::test]
async fn what_is_to_be_kept_is_not_terminated_neither_by_one_policy_nor_by_two() {
    let (world, _guard) = world().await;
    let contradicting = json!([{ "protectFromTermination": {} }, { "terminateInstance": {} }]);
    let policy = world.policy("both", json!({ "ec2Instance": { "contain": contradicting } }));
    let refused = world.plane.apply(&policy.to_string()).await.unwrap_err().to_string();
    assert!(refused.contains("protectFromTermination and terminateInstance contradict each other"), "{refused}");

    let_approve(&world).await;
    let judge = Judge::of(&world).await;
    let keep = json!([{ "isolateNetwork": {} }, { "protectFromTermination": {} }]);
    declare(&world, "keep", "Contain", json!({ "ec2Instance": { "contain": keep } })).await;
    world.until("keep", "Contained", "True").await;
    let end = json!([{ "isolateNetwork": {} }, { "terminateInstance": {} }]);
    declare(&world, "inc", "Contain", json!({ "ec2Instance": { "contain": end } })).await;
    world.until("inc", "Approved", "False").await;
    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("not done: protectFromTermination")).await;
    assert_eq!(target.contained, "False", "{target:?}");
    runs_isolated(&world).await;
    world.until("keep", "Contained", "True").await;
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn an_instance_of_an_auto_scaling_group_is_stopped_only_when_it_is_out_and_the_rest_is_contained() {
    let (world, _guard) = world().await;
    join_scaling_group(&world.aws, &world.scene, GROUP, 3).await.unwrap();
    let judge = Judge::of(&world).await;
    let contain = json!([{ "isolateNetwork": {} }, { "stopInstance": {} }]);
    declare(&world, "inc", "Contain", json!({ "ec2Instance": { "contain": contain } })).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("InService in Auto Scaling group web")).await;
    assert!(target.contained == "False" && target.message.contains("detachFromAutoScaling"), "{target:?}");
    runs_isolated(&world).await;

    let contain = json!([{ "isolateNetwork": {} }, { "detachFromAutoScaling": {} }, { "stopInstance": {} }]);
    declare(&world, "plan", "Plan", json!({ "ec2Instance": { "contain": contain.clone() } })).await;
    let planned = world.until_reason("plan", "Ready", "Planned").await.status.unwrap().plan.unwrap();
    let operations: Vec<&str> = planned.targets[0].calls.iter().filter_map(|call| call.split(' ').next()).collect();
    assert_eq!(operations.iter().filter(|o| **o == "ec2:StopInstances").count(), 1, "{operations:?}");

    world.plane.apply(&world.policy("inc", json!({ "ec2Instance": { "contain": contain } })).to_string()).await.unwrap();
    until_state(&world, "stopped").await;
    world.until("inc", "Contained", "True").await;
    assert_eq!(sight::membership(&world.aws, &world.scene.instances[0].id).await.unwrap(), None);
    world.release("inc").await;
    until_state(&world, "running").await;
    judge.assert_no_call_was_wrong();
}
