//! An instance leaves every load balancer that has it, stays out, and is registered again exactly as it was.

use std::collections::BTreeMap;

use anyhow::ensure;
use firebreak_crds::ActionState;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{Balancers, balance};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::{world, worlds};

/// By load balancer, what is registered with it.
type Shown = BTreeMap<String, Vec<String>>;

async fn declare(world: &World<'_>) {
    let policy = json!({ "ec2Instance": { "contain": [{ "isolateNetwork": {} }, { "deregisterFromLoadBalancers": {} }] } });
    world.plane.apply(&world.policy("balancing", policy).to_string()).await.unwrap();
    let spec = json!({ "policyRef": { "name": world.policy_name("balancing") }, "targets": [world.instance_target(0)] });
    world.declare("inc", "Contain", spec).await;
}

/// Only the other instance is left.
async fn until_out(world: &World<'_>, other: &Shown) {
    world
        .until_aws("it is registered nowhere", async || {
            let now = sight::registrations(&world.aws).await?;
            ensure!(now == *other, "{now:#?}");
            Ok(())
        })
        .await;
}

async fn register(world: &World<'_>, group: &str, id: &str, port: i32) {
    let target = aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder().id(id).port(port).build();
    world.aws.elbv2.register_targets().target_group_arn(group).targets(target).send().await.unwrap();
}

/// Two instances are registered everywhere; the first is contained. What was registered, and what the other has.
async fn contained(world: &World<'_>) -> (Balancers, Shown, Shown) {
    let balancers = balance(&world.aws, &world.scene, 1).await.unwrap();
    let other = sight::registrations(&world.aws).await.unwrap();
    balancers.register(&world.aws, &world.scene, 0).await.unwrap();
    let before = sight::registrations(&world.aws).await.unwrap();
    declare(world).await;
    world.until("inc", "Contained", "True").await;
    (balancers, before, other)
}

#[tokio::test]
async fn an_instance_leaves_its_load_balancers_by_id_and_by_address_and_comes_back_as_it_was() {
    let (world, _guard) = worlds(2).await;
    let id = &world.scene.instances[0].id;
    let judge = Judge::of(&world).await;
    let (balancers, before, other) = contained(&world).await;
    assert_eq!(before["web"].len() + before["api"].len() + before["old"].len(), 10, "{before:#?}");
    until_out(&world, &other).await;
    world
        .until_aws("an event says where it drains", async || {
            let events = world.events_of("inc").await;
            let contained = events.iter().find(|e| e.starts_with("InForce"));
            let words = ["Draining: ", "api until 2", "web until 2"];
            ensure!(contained.is_some_and(|e| words.iter().all(|word| e.contains(word))), "{events:#?}");
            Ok(())
        })
        .await;

    world.until_drift_counts(id).await;
    register(&world, &balancers.web, id, 22).await;
    until_out(&world, &other).await;
    world.until_event("inc", "DriftDetected", &[":22 was registered with web"]).await;
    balancers.register(&world.aws, &world.scene, 0).await.unwrap();
    until_out(&world, &other).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::registrations(&world.aws).await.unwrap(), before);
    assert!(judge.assert_no_call_was_wrong() > 0);
}

#[tokio::test]
async fn a_load_balancer_that_is_gone_is_said_and_ends_no_release() {
    let (world, _guard) = worlds(2).await;
    let (balancers, before, other) = contained(&world).await;
    until_out(&world, &other).await;
    world.aws.elbv2.delete_target_group().target_group_arn(&balancers.web).send().await.unwrap();
    world.release("inc").await;
    world.until_nothing_is_held().await;
    let now = sight::registrations(&world.aws).await.unwrap();
    assert_eq!((now.get("web"), &now["api"], &now["old"]), (None, &before["api"], &before["old"]));
    world.until_event("inc", "Released", &["target group web no longer exists"]).await;
}

#[tokio::test]
async fn one_load_balancer_that_refuses_holds_back_neither_the_others_nor_the_isolation() {
    let (world, _guard) = worlds(2).await;
    let id = &world.scene.instances[0].id;
    let balancers = balance(&world.aws, &world.scene, 1).await.unwrap();
    balancers.register(&world.aws, &world.scene, 0).await.unwrap();
    world.proxy.fail("DeregisterInstancesFromLoadBalancer", 403, "AccessDenied", "not authorized");
    declare(&world).await;
    let permission = "elasticloadbalancing:DeregisterInstancesFromLoadBalancer";
    let target = world.until_target("inc", 0, |t| t.message.contains(permission)).await;
    assert!(target.contained == "False", "{target:?}");
    let now = sight::registrations(&world.aws).await.unwrap();
    assert_eq!((now["web"].len(), now["api"].len(), now["old"].len()), (2, 2, 2), "{now:#?}");
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();

    world.proxy.recover("DeregisterInstancesFromLoadBalancer");
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    assert!(!sight::registrations(&world.aws).await.unwrap()["old"].contains(id));
}

#[tokio::test]
async fn an_instance_registered_nowhere_is_contained() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    declare(&world).await;
    world.until("inc", "Contained", "True").await;
    world
        .until_quarantine(id, "says so", |q| {
            let actions = q.status.iter().flat_map(|s| &s.actions);
            let found = actions.into_iter().find(|a| a.name == "deregisterFromLoadBalancers");
            found.is_some_and(|a| a.state == ActionState::InForce && a.message == "registered with no load balancer")
        })
        .await;
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert!(sight::registrations(&world.aws).await.unwrap().is_empty());
}
