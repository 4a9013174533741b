//! A settled world is left alone: nobody is written to, and AWS is read from as little as can be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use firebreak_crds::get_condition;
use firebreak_tests::eventually::eventually;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::proxy::{Call, Proxy};
use firebreak_tests::world::{CONTROLLER_USER, SOON, World};
use serde_json::json;

use crate::apart::{Apart, apart};

const INTERVAL: Duration = Duration::from_secs(3);
/// Containment counts as enforced after a minute without drift.
const ENFORCED: Duration = Duration::from_secs(100);
/// Sweeps fall together, and take less than this.
const SWEEP: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_settled_world_is_written_to_by_nobody() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "3s").await;
    let (held, planned, released) = tokio::join!(World::new(&plane), World::new(&plane), World::new(&plane));
    held.declare("inc", "Contain", json!({})).await;
    planned.declare("inc", "Plan", json!({})).await;
    released.declare("inc", "Contain", json!({})).await;
    released.until("inc", "EvidencePreserved", "True").await;
    released.change("inc", json!({ "mode": "Release" })).await;
    released.until("inc", "Released", "True").await;
    planned.until_reason("inc", "Contained", "PlanOnly").await;
    held.until("inc", "EvidencePreserved", "True").await;
    until_enforced(&held).await;

    let worlds = [&held, &planned, &released];
    let settled = Instant::now();
    let (changes, writes) = (worlds.map(|w| w.proxy.changing().len()), plane.writes_of(CONTROLLER_USER));
    looks_after(&held.proxy, settled + 2 * INTERVAL).await;
    looks_after(&planned.proxy, settled + 2 * INTERVAL).await;
    assert_eq!(worlds.map(|w| w.proxy.changing().len()), changes);
    let since = &plane.writes_of(CONTROLLER_USER)[writes.len()..];
    assert!(since.is_empty(), "{since:#?}");
    let reads = worlds.map(|w| w.proxy.count(|call| call.started > settled));
    println!("AWS reads in {:?}: held {}, planned {}, released {}", settled.elapsed(), reads[0], reads[1], reads[2]);
    assert_eq!(reads[2], 0, "nothing is left to look at: {:#?}", released.proxy.log());
}

async fn until_enforced(world: &World<'_>) {
    eventually("the Incident and its Quarantines are Enforced", ENFORCED, async || {
        let incident = world.incidents().get("inc").await?.status.unwrap_or_default().conditions;
        let mut all = vec![incident];
        all.extend(world.quarantines().await.into_iter().map(|q| q.status.unwrap_or_default().conditions));
        for conditions in all {
            let reason = get_condition(&conditions, "Contained").map(|c| c.reason.as_str());
            ensure!(reason == Some("Enforced"), "{conditions:#?}");
        }
        Ok(())
    })
    .await;
}

/// Waits until AWS is looked at after that moment.
async fn looks_after(proxy: &Proxy, moment: Instant) {
    eventually("AWS is looked at again", SOON, async || {
        let last = proxy.log().last().map(|call| call.started);
        ensure!(last > Some(moment), "last at {last:?}, not after {moment:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_reads_of_one_and_of_ten_instances_cost_the_same() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "3s").await;
    let (one, ten) = tokio::join!(reads_of_a_sweep(&plane, 1), reads_of_a_sweep(&plane, 10));
    println!("most calls in one sweep: of one instance {one:?}, of ten {ten:?}");
    for (action, most) in &ten {
        assert!(*most <= 2, "a first read, and one that all others share, of {action}: {ten:?}");
        assert!(*most <= one.get(action).unwrap_or(&0) + 1, "{action}: {one:?} {ten:?}");
    }
    assert!(ten.contains_key("DescribeNetworkInterfaces"), "{ten:?}");
}

/// The most calls of each action in one of four sweeps.
async fn reads_of_a_sweep(plane: &Plane, instances: usize) -> BTreeMap<String, usize> {
    let world = World::with_instances(plane, instances).await;
    let targets: Vec<_> = (0..instances).map(|index| world.instance_target(index)).collect();
    world.declare("inc", "Contain", json!({ "targets": targets })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;
    let settled = Instant::now();
    let sweeps = eventually("six sweeps", SOON, async || {
        let sweeps = sweeps(world.proxy.log().into_iter().filter(|call| call.started > settled));
        ensure!(sweeps.len() >= 6, "{}", sweeps.len());
        Ok(sweeps)
    })
    .await;
    let mut most = BTreeMap::<String, usize>::new();
    for sweep in &sweeps[1..5] {
        let mut counts = BTreeMap::<String, usize>::new();
        sweep.iter().for_each(|call| *counts.entry(call.action.clone()).or_default() += 1);
        for (action, count) in counts {
            let so_far = most.entry(action).or_default();
            *so_far = count.max(*so_far);
        }
    }
    most
}

/// The calls, where a new sweep begins after a pause.
fn sweeps(calls: impl Iterator<Item = Call>) -> Vec<Vec<Call>> {
    let mut sweeps = Vec::<Vec<Call>>::new();
    for call in calls {
        match sweeps.last_mut() {
            Some(sweep) if call.started - sweep[0].started < SWEEP => sweep.push(call),
            _ => sweeps.push(vec![call]),
        }
    }
    sweeps
}
