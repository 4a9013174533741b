//! From the moment at which the API server has accepted the Incident to the moments that count.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use firebreak_tests::eventually::eventually;
use firebreak_tests::milestones::{Milestones, isolation_group};
use firebreak_tests::plane::Plane;
use firebreak_tests::proxy::Call;
use firebreak_tests::scene::USER;
use firebreak_tests::world::{self, World};
use firebreak_tests::{sight, tools};
use kube::api::PostParams;
use serde_json::json;
use tokio::process::Command;

use crate::{seconds, table};

const RUNS: usize = 5;
/// What the proxy adds to each AWS call.
const DELAY: Duration = Duration::from_millis(50);

/// Every action that there is.
const THOROUGH: &str = include_str!("../../../../examples/21-containment-policy-thorough.yaml");

/// How each is measured, in the order of the columns.
#[derive(Clone, Copy)]
enum How {
    Firebreak,
    /// Where the account wants to know first who depends on a target, which is the default.
    Asking,
    /// With every action.
    Thorough,
    Script,
}

const HOW: [(How, &str); 4] = [
    (How::Firebreak, "Firebreak"),
    (How::Asking, "Firebreak, asking first who depends on it"),
    (How::Thorough, "Firebreak, every action"),
    (How::Script, "sequential script"),
];

/// The calls that the cut is made of, whoever else makes some of them.
const CUT: [&str; 4] =
    ["DescribeInstances", "DescribeNetworkInterfaces", "DescribeSecurityGroups", "ModifyNetworkInterfaceAttribute"];
/// Those that a user is locked out with.
const LOCK_OUT: [&str; 8] = [
    "GetUser",
    "GetUserPolicy",
    "ListAccessKeys",
    "ListAttachedUserPolicies",
    "AttachUserPolicy",
    "PutUserPermissionsBoundary",
    "PutUserPolicy",
    "UpdateAccessKey",
];

/// One containment.
pub struct Run {
    /// The cut, the conversion, keys and deny, the snapshots.
    moments: [Duration; 4],
    calls: usize,
    changing: usize,
    /// Where the time to the cut went, and where that to the lock-out.
    phases: [Phases; 2],
}

/// The parts of the time to a milestone: until the first read, reading, until the first write, writing.
type Phases = [Duration; 4];

/// Firebreak in three ways, and the script, by turns, each time in an AWS account of its own.
pub async fn measure(plane: &Plane) -> anyhow::Result<[Vec<Run>; 4]> {
    let mut controller = world::install(plane, crate::controller(), "30s").await?;
    controller.start()?;
    let mut runs = [const { Vec::new() }; 4];
    for run in 1..=RUNS {
        eprintln!("bench: run {run} of {RUNS}");
        for (runs, (how, _)) in runs.iter_mut().zip(HOW) {
            runs.push(match how {
                How::Firebreak => firebreak(&scene(plane).await?, "standard").await?,
                How::Asking => firebreak(&asking(plane).await?, "standard").await?,
                How::Thorough => firebreak(&scene(plane).await?, "thorough").await?,
                How::Script => script(plane).await?,
            });
        }
    }
    Ok(runs)
}

async fn firebreak(world: &World<'_>, policy: &str) -> anyhow::Result<Run> {
    let thorough = format!("name: {}", world.policy_name("thorough"));
    world.plane.apply(&THOROUGH.replace("name: thorough", &thorough)).await?;
    let follow = json!({ "policyRef": { "name": world.policy_name(policy) } });
    let incident = serde_json::from_value(world.incident("inc", "Contain", follow))?;
    let before = world.proxy.log().len();
    world.incidents().create(&PostParams::default(), &incident).await?;
    let accepted = Instant::now();
    world.until("inc", "Contained", "True").await;
    let run = Run::of(world, accepted, &world.proxy.log().split_off(before)).await?;
    world.proxy.clear();
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until("inc", "Released", "True").await;
    Ok(run)
}

/// The clock starts with its first call, so that starting Python costs it nothing.
async fn script(plane: &Plane) -> anyhow::Result<Run> {
    let world = scene(plane).await?;
    let before = world.proxy.log().len();
    let script = Command::new("python3")
        .arg(tools::tests_folder().join("bench/sequential.py"))
        .args([&world.proxy.url(), firebreak_tests::emulator::REGION, &world.scene.instances[0].id, USER])
        .env("PYTHONPATH", tools::emulator_packages())
        .envs(world.aws.environment())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(script.status.success(), "the script failed: {}", String::from_utf8_lossy(&script.stderr));
    let log = world.proxy.log().split_off(before);
    let started = log.first().context("the script called nothing")?.started;
    Run::of(&world, started, &log).await
}

/// An account whose isolation groups are made, an instance that the internet can reach, and the delay on.
async fn scene(plane: &Plane) -> anyhow::Result<World<'_>> {
    let world = World::new(plane).await;
    world.scene.open_to_internet(&world.aws).await?;
    eventually("the isolation group is made ahead", world::SOON, async || {
        isolation_group(&world.aws, &world.scene.vpc).await
    })
    .await;
    world.proxy.delay(DELAY);
    Ok(world)
}

/// The same, where who depends on a target is asked first. Nobody does.
async fn asking(plane: &Plane) -> anyhow::Result<World<'_>> {
    let world = scene(plane).await?;
    plane.apply(&world.account(json!({ "approvals": { "wideBlastRadius": "Required" } })).to_string()).await?;
    Ok(world)
}

impl Run {
    async fn of(world: &World<'_>, since: Instant, log: &[Call]) -> anyhow::Result<Self> {
        sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await?;
        let failed: Vec<&Call> = log.iter().filter(|c| c.status.is_some_and(|s| s >= 500)).collect();
        ensure!(failed.is_empty(), "the emulator failed: {failed:#?}");
        let group = isolation_group(&world.aws, &world.scene.vpc).await?;
        let m = Milestones::of(log, &group);
        let after = |at: Option<Instant>, what| at.map(|at| at.saturating_duration_since(since)).context(what);
        Ok(Self {
            moments: [
                after(m.cut, "no cut")?,
                after(m.converted, "no conversion")?,
                after(m.locked_out, "no lock-out")?,
                after(m.snapshots, "no snapshots")?,
            ],
            calls: log.len(),
            changing: log.iter().filter(|c| c.is_changing()).count(),
            phases: [phases(log, since, m.cut, &CUT), phases(log, since, m.locked_out, &LOCK_OUT)],
        })
    }
}

fn phases(log: &[Call], since: Instant, end: Option<Instant>, such: &[&str]) -> Phases {
    let end = end.unwrap_or(since);
    let calls: Vec<&Call> = log.iter().filter(|c| such.contains(&c.action.as_str()) && c.started < end).collect();
    let first = |changing: bool| calls.iter().filter(|c| c.is_changing() == changing).map(|c| c.started).min();
    let (look, act) = (first(false).unwrap_or(since), first(true).unwrap_or(since));
    let reads = calls.iter().filter(|c| !c.is_changing()).filter_map(|c| c.finished).filter(|at| *at <= act);
    let looked = reads.max().unwrap_or(look);
    [(since, look), (look, looked), (looked, act), (act, end)].map(|(from, to)| to.saturating_duration_since(from))
}

/// The median of each moment, side by side.
pub fn print(all: &[Vec<Run>; 4]) {
    println!("\nEach AWS call takes {} ms longer than the emulator; median of {RUNS} runs.\n", DELAY.as_millis());
    let moments = ["last interface in the isolation group (the cut)", "conversion of tracked flows over"];
    let moments = moments.into_iter().chain(["last key off and denies in place", "snapshots started"]);
    let moment = |runs: &[Run], nth: usize| seconds(median(runs.iter().map(|r| r.moments[nth])));
    let count = |runs: &[Run]| {
        let (all, changing) = (median(runs.iter().map(|r| r.calls)), median(runs.iter().map(|r| r.changing)));
        format!("{all} ({changing} changing)")
    };
    let row = |what: &str, cells: Vec<String>| [vec![what.to_owned()], cells].concat();
    let rows = moments.enumerate().map(|(nth, what)| row(what, all.iter().map(|runs| moment(runs, nth)).collect()));
    let counts = row("AWS calls until it is verified", all.iter().map(|runs| count(runs)).collect());
    table(&[&[""][..], &HOW.map(|(_, name)| name)].concat(), rows.chain([counts]));
    println!("Where Firebreak's time goes, with the usual policy and with every action:\n");
    let parts = ["until the first read", "reading", "until the first write", "writing"];
    let part = |how: How, which: usize, nth: usize| {
        format!("{} ms", median(all[how as usize].iter().map(|r| r.phases[which][nth])).as_millis())
    };
    let both = |which: usize, nth: usize| [How::Firebreak, How::Thorough].map(|how| part(how, which, nth));
    let rows = parts.iter().enumerate().map(|(nth, what)| row(what, [both(0, nth), both(1, nth)].concat()));
    table(&["", "the cut", "with every action", "keys and denies", "with every action"], rows);
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.swap_remove(values.len() / 2)
}
