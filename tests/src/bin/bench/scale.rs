//! What holding many instances costs: memory, and AWS calls while nothing changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use firebreak_crds::{get_condition, is_true};
use firebreak_tests::eventually::eventually;
use firebreak_tests::milestones::{Milestones, isolation_group};
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::world::{self, World};
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{seconds, table};

const INTERVAL: Duration = Duration::from_secs(10);
/// Sweeps come at random moments, four in three intervals: so many intervals show about eight.
const INTERVALS: u32 = 6;

/// One size.
pub struct Row {
    count: usize,
    last_cut: Duration,
    resident: String,
    per_interval: BTreeMap<String, usize>,
}

/// `count` instances held by one Incident, in a cluster and an AWS account of their own.
pub async fn measure(shared: &Plane, count: usize) -> anyhow::Result<Row> {
    let plane = Plane::beside(shared, ControllerManager::Absent).await?;
    let mut controller = world::install(&plane, crate::controller(), "10s").await?;
    controller.start()?;
    let world = World::with_instances(&plane, count).await;
    let targets: Vec<Value> = (0..count).map(|nth| world.instance_target(nth)).collect();
    let incident = serde_json::from_value(world.incident("inc", "Contain", json!({ "targets": targets })))?;
    let before = world.proxy.log().len();
    world.incidents().create(&PostParams::default(), &incident).await?;
    let accepted = Instant::now();
    eventually("all is contained and preserved", Duration::from_mins(4), async || {
        let conditions = world.incidents().get("inc").await?.status.unwrap_or_default().conditions;
        ensure!(get_condition(&conditions, "Contained").is_some_and(|c| c.reason == "Enforced"), "{conditions:#?}");
        ensure!(is_true(&conditions, "EvidencePreserved"), "{conditions:#?}");
        Ok(())
    })
    .await;
    let log = world.proxy.log().split_off(before);
    let group = isolation_group(&world.aws, &world.scene.vpc).await?;
    let cut = Milestones::of(&log, &group).cut.context("no cut")?;
    let per_interval = at_rest(&world).await;
    let resident = resident(controller.pid().context("the controller ended")?)?;
    Ok(Row { count, last_cut: cut.saturating_duration_since(accepted), resident, per_interval })
}

/// The calls of one interval, by action: the mean, rounded up.
async fn at_rest(world: &World<'_>) -> BTreeMap<String, usize> {
    let before = world.proxy.log().len();
    tokio::time::sleep(INTERVAL * INTERVALS).await;
    let mut actions = BTreeMap::new();
    for call in world.proxy.log().split_off(before) {
        *actions.entry(call.action).or_default() += 1;
    }
    actions.into_iter().map(|(action, calls): (_, usize)| (action, calls.div_ceil(INTERVALS as usize))).collect()
}

fn resident(pid: u32) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (now, peak) = kilobytes("VmRSS:").zip(kilobytes("VmHWM:")).context("memory")?;
    Ok(format!("{} MiB ({} MiB)", now / 1024, peak / 1024))
}

/// One row per size.
pub fn print(rows: &[Row]) {
    println!("Without the delay; drift interval {} s, the calls of {INTERVALS} intervals:\n", INTERVAL.as_secs());
    let cells = rows.iter().map(|row| {
        let calls: Vec<String> = row.per_interval.iter().map(|(action, calls)| format!("{calls} {action}")).collect();
        let all: usize = row.per_interval.values().sum();
        vec![row.count.to_string(), seconds(row.last_cut), row.resident.clone(), all.to_string(), calls.join(", ")]
    });
    table(&["instances", "last one cut off", "resident (peak)", "AWS calls per interval", "of which"], cells);
}
