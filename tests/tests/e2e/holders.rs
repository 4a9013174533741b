//! Several Incidents on one resource, and holds that only grow.

use firebreak_crds::{ConversionState, Quarantine, SeverTrackedConnections};
use firebreak_tests::sight;
use firebreak_tests::world::{World, standard_policy};
use serde_json::{Value, json};

use crate::ground_up::{world, worlds};

/// A policy for instances.
fn severing(tracked: &str) -> Value {
    json!({ "ec2Instance": { "contain": [{ "isolateNetwork": { "severTrackedConnections": tracked } }] } })
}

/// A policy for users.
fn users(contain: &[&str]) -> Value {
    json!({ "iamUser": { "contain": contain.iter().map(|action| json!({ *action: {} })).collect::<Vec<_>>() } })
}

async fn apply(world: &World<'_>, policy: &str, spec: Value) {
    world.plane.apply(&world.policy(policy, spec).to_string()).await.unwrap();
}

/// An Incident with this policy, over one target.
async fn declare(world: &World<'_>, incident: &str, policy: &str, target: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name(policy) }, "targets": [target] });
    world.declare(incident, "Contain", spec).await;
}

fn conversions(quarantine: &Quarantine) -> Vec<ConversionState> {
    quarantine.spec.conversions.iter().map(|c| c.state).collect()
}

#[tokio::test]
async fn the_stricter_of_two_policies_counts_and_nothing_is_given_back_before_the_last_lets_go() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    apply(&world, "never", severing("Never")).await;
    apply(&world, "always", severing("Always")).await;
    declare(&world, "first", "never", world.instance_target(0)).await;
    world.until("first", "Contained", "True").await;
    assert!(conversions(&world.quarantine_of(id).await.unwrap()).is_empty());

    declare(&world, "second", "always", world.instance_target(0)).await;
    world.until("second", "Contained", "True").await;
    let quarantine = world.until_quarantine(id, "converted", |q| conversions(q) == [ConversionState::Closed; 2]).await;
    let holders: Vec<_> = quarantine.spec.holders.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(holders, ["first", "second"]);
    sight::isolated(&world.aws, interfaces).await.unwrap();

    let second = world.release("second").await;
    let said = &second.status.unwrap().targets[0];
    assert!(said.reason == "LetGo" && said.message.contains("still held by"), "{said:?}");
    assert!(said.message.contains(&format!("{}/first", world.namespace)), "{said:?}");
    world.until("first", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();

    world.release("first").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
}

#[tokio::test]
async fn an_action_added_to_the_policy_reaches_incidents_under_way() {
    let (world, _guard) = world().await;
    apply(&world, "growing", users(&["denyAll"])).await;
    declare(&world, "inc", "growing", world.user_target()).await;
    world.until("inc", "Contained", "True").await;
    assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Active"));

    apply(&world, "growing", users(&["denyAll", "deactivateAccessKeys"])).await;
    world.until_aws("the keys are off, too", async || sight::cut_off(&world.aws).await).await;
    world.until("inc", "Contained", "True").await;
}

#[tokio::test]
async fn an_action_taken_out_of_the_policy_stays_in_force_and_the_status_says_so() {
    let (world, _guard) = world().await;
    apply(&world, "shrinking", users(&["denyAll", "deactivateAccessKeys"])).await;
    declare(&world, "inc", "shrinking", world.user_target()).await;
    world.until("inc", "Contained", "True").await;

    apply(&world, "shrinking", users(&["denyAll"])).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("no longer in the policy")).await;
    assert!(target.contained == "True" && target.message.contains("deactivateAccessKeys"), "{target:?}");
    let key = &world.scene.access_keys[0];
    world.aws.iam.update_access_key().user_name("mallory").access_key_id(key).status("Active".into()).send().await.unwrap();
    world.until_aws("the key is off again", async || sight::cut_off(&world.aws).await).await;
}

#[tokio::test]
async fn a_parameter_that_the_policy_loosens_stays_as_strict_as_it_was() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    apply(&world, "loosening", severing("Always")).await;
    declare(&world, "inc", "loosening", world.instance_target(0)).await;
    world.until("inc", "Contained", "True").await;

    // The evidence shows that the change has arrived.
    let mut looser = severing("Never");
    looser["ec2Instance"]["evidence"] = json!([{ "ebsSnapshots": {} }]);
    apply(&world, "loosening", looser).await;
    world.until("inc", "EvidencePreserved", "True").await;
    let holder = &world.quarantine_of(id).await.unwrap().spec.holders[0];
    let held = holder.actions[0].isolate_network.as_ref().unwrap();
    assert_eq!(held.sever_tracked_connections, SeverTrackedConnections::Always);
}

#[tokio::test]
async fn a_target_taken_out_of_the_spec_stays_contained_until_release_and_the_status_says_so() {
    let (world, _guard) = worlds(2).await;
    let first = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, first).await.unwrap();
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0), world.instance_target(1)] })).await;
    world.until("inc", "Contained", "True").await;

    world.change("inc", json!({ "targets": [world.instance_target(1)] })).await;
    let target = world.until_target("inc", 1, |t| t.message.contains("no longer a target")).await;
    assert_eq!(target.resource.as_ref().unwrap().id, world.scene.instances[0].id);
    let incident = world.until("inc", "Contained", "True").await;
    assert_eq!(incident.status.unwrap().contained.as_deref(), Some("2/2"));
    let group = &world.scene.groups[0];
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(&first[0]).groups(group);
    call.send().await.unwrap();
    world.until_aws("its drift is repaired", async || sight::isolated(&world.aws, first).await).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, first).await.unwrap(), before);
}

#[tokio::test]
async fn what_is_held_stays_contained_when_its_policy_goes_and_the_status_says_so() {
    let (world, _guard) = world().await;
    apply(&world, "short-lived", standard_policy()).await;
    declare(&world, "inc", "short-lived", world.user_target()).await;
    world.until("inc", "Contained", "True").await;

    let name = world.policy_name("short-lived");
    world.plane.kubectl(&["delete", "containmentpolicy", &name]).await.unwrap();
    let target = world.until_target("inc", 0, |t| t.message.contains(&name)).await;
    assert!(target.contained == "True" && target.message.contains("does not exist"), "{target:?}");
    let key = &world.scene.access_keys[0];
    world.aws.iam.update_access_key().user_name("mallory").access_key_id(key).status("Active".into()).send().await.unwrap();
    world.until_aws("the key is off again", async || sight::cut_off(&world.aws).await).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert!(sight::attached_policies(&world.aws).await.unwrap().is_empty());
}
