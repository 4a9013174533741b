//! One leader: of two controllers one acts, the other takes over, and whoever has lost the lease changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::emulator::Aws;
use firebreak_tests::eventually::eventually;
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::proxy::When;
use firebreak_tests::sight;
use firebreak_tests::world::{NAMESPACE, SOON, World};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use crate::apart::{Apart, CONTROLLER, apart};

/// A lease that nobody renews lasts so long.
const TTL: Duration = Duration::from_secs(15);

/// The first leads already; this one waits.
async fn second(plane: &Plane) -> ControllerProcess {
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "firebreak").await.unwrap();
    let second = ControllerProcess::new(CONTROLLER, &kubeconfig).arg("run").arg("--http-addr=127.0.0.1:0");
    let mut second = second.arg("--drift-interval=1s").env("POD_NAMESPACE", NAMESPACE).env("POD_NAME", "firebreak-1");
    second.start().unwrap();
    eventually("the second is up, and says that it does not lead", SOON, async || {
        let (status, why) = second.http("/readyz").await?;
        ensure!(status == 503 && why.contains("does not hold the lease"), "{status} {why}");
        Ok(())
    })
    .await;
    second
}

async fn until_leads(plane: &Plane, holder: &str, deadline: Duration) {
    let leases = Api::<Lease>::namespaced(plane.client().await, NAMESPACE);
    eventually(&format!("{holder} leads"), deadline, async || {
        let lease = leases.get("firebreak-controller").await?.spec.context("a spec")?;
        ensure!(lease.holder_identity.as_deref() == Some(holder), "{lease:?}");
        Ok(())
    })
    .await;
}

async fn until_isolated(world: &World<'_>, deadline: Duration) {
    eventually("isolated", deadline, async || sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await).await;
}

/// The attacker puts the instance's first interface back.
async fn tamper(world: &World<'_>) {
    swap(&world.aws, &world.scene.instances[0].interfaces[0], &world.scene.groups[0]).await;
}

async fn swap(aws: &Aws, interface: &str, group: &str) {
    aws.ec2.modify_network_interface_attribute().network_interface_id(interface).groups(group).send().await.unwrap();
}

#[tokio::test]
async fn of_two_controllers_one_acts_and_the_other_takes_over_when_it_stops() {
    let Apart { plane, controller: mut first, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    let second = second(&plane).await;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;
    assert_eq!(first.sent().len(), world.proxy.changing().len());
    assert_eq!(second.sent(), [""; 0]);

    let by_first = first.sent().len();
    assert!(first.stop().unwrap().success());
    let stopped = Instant::now();
    tamper(&world).await;
    until_isolated(&world, TTL).await;
    println!("taken over and put back {:?} after the first had stopped", stopped.elapsed());
    until_leads(&plane, "firebreak-1", SOON).await;
    assert_eq!((first.sent().len(), second.sent().is_empty()), (by_first, false));
    assert_eq!(second.http("/readyz").await.unwrap(), (200, "ok".to_owned()));
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_takes_over_once_the_lease_has_run_out() {
    let Apart { plane, controller: mut first, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    let second = second(&plane).await;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    first.kill_9();
    let killed = Instant::now();
    tamper(&world).await;
    until_isolated(&world, TTL * 2).await;
    let took = killed.elapsed();
    println!("taken over and put back {took:?} after the first was killed");
    assert!(
        took + Duration::from_secs(6) > TTL,
        "the lease was renewed at most 5 s ago, and nobody may lead before it ends"
    );
    until_leads(&plane, "firebreak-1", SOON).await;
    assert!(!second.sent().is_empty());
}

#[tokio::test]
async fn a_leader_that_slept_past_its_lease_changes_nothing_when_it_wakes() {
    let Apart { plane, controller: mut first, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    let judge = Judge::of(&world).await;
    let _second = second(&plane).await;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;

    // It sleeps in the middle of giving back; the connection of that call is gone when it wakes.
    let mut held = world.proxy.hold_changing(1, When::Before);
    world.change("inc", json!({ "mode": "Release" })).await;
    held.reached().await;
    first.pause();
    drop(held);
    until_leads(&plane, "firebreak-1", TTL * 2).await;
    world.until("inc", "Released", "True").await;
    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    until_looked_at_again(&world).await;
    let so_far = world.proxy.changing().len();
    first.go_on();
    eventually("the sleeper has noticed that it no longer leads", SOON, async || {
        let log = first.log();
        ensure!(log.contains("no longer leading") || first.exited().is_some(), "{log}");
        Ok(())
    })
    .await;
    until_looked_at_again(&world).await;
    assert_eq!(world.proxy.changing().len(), so_far, "{:#?}", world.proxy.changing());
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_call_without_an_answer_is_not_repeated_unless_it_is_still_right() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    let judge = Judge::of(&world).await;
    let (instance, targets) = (&world.scene.instances[0].id, json!([world.instance_target(0)]));
    world.declare("inc", "Contain", json!({ "targets": targets })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;

    let mut held = world.proxy.hold_changing(1, When::Before);
    world.change("inc", json!({ "mode": "Release" })).await;
    assert_eq!(held.reached().await.action, "ModifyNetworkInterfaceAttribute");
    world.change("inc", json!({ "mode": "Contain" })).await;
    eventually("held again", SOON, async || {
        let quarantine = world.quarantine_of(instance).await.context("a Quarantine")?;
        ensure!(!quarantine.spec.holders.is_empty(), "{quarantine:#?}");
        Ok(())
    })
    .await;
    drop(held); // the connection ends without an answer
    until_isolated(&world, SOON).await;
    world.until("inc", "Contained", "True").await;
    assert!(judge.assert_no_call_was_wrong() > 0, "the release had begun");
}

/// Two more sweeps, so that whatever was about to be done is done.
async fn until_looked_at_again(world: &World<'_>) {
    let (from, sweep) = (world.proxy.log().len(), "DescribeNetworkInterfaces");
    eventually("two more sweeps", SOON, async || {
        let sweeps = world.proxy.log()[from..].iter().filter(|call| call.action == sweep && call.finished.is_some()).count();
        ensure!(sweeps >= 4, "{sweeps}");
        Ok(())
    })
    .await;
}
