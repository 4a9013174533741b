//! Each action by itself: contained, undone by somebody and repaired, then given back, and AWS shows the same as before. What else
//! somebody may do meanwhile is in the tests of each action.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::ensure;
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::cases::{CASES, Case};
use firebreak_tests::eventually::{condition, eventually};
use firebreak_tests::everything::{Everything, at_rest, everything};
use firebreak_tests::in_force::in_force;
use firebreak_tests::judge::Judge;
use firebreak_tests::tampering::undo;
use firebreak_tests::world::World;
use futures::{FutureExt, StreamExt, stream};
use serde_json::json;

use crate::ground_up::world;

/// A release of a role waits for 35 s; and there are several at once here.
const LONG: Duration = Duration::from_mins(3);
/// So many cases side by side.
const AT_ONCE: usize = 6;

async fn contained(world: &World<'_>, case: &Case) {
    world.plane.apply(&case.policy(world).to_string()).await.unwrap();
    world.declare("inc", "Contain", case.spec(world)).await;
    if case.needs_approval() {
        let_approve(world).await;
        world.until("inc", "Approved", "False").await;
        approve(world, "bob", &[APPROVERS], &blank(world, "bob").await).await;
    }
    condition(&world.incidents(), "inc", "Contained", "True", LONG).await;
    // `Contained` waits for nothing that destroys evidence.
    eventually(&format!("AWS shows {case}"), LONG, async || in_force(world, case).await).await;
}

async fn shown(world: &World<'_>) -> Everything {
    everything(&world.aws, &world.scene).await.unwrap()
}

/// What is undone is done again, by a call of Firebreak's, and all is as it was contained.
async fn repaired(world: &World<'_>, case: &Case, contained: &Everything) {
    if !case.can_be_undone() {
        return;
    }
    let writes = || world.proxy.changing().len();
    let before = writes();
    undo(world, case).await.unwrap();
    eventually(&format!("{case} is repaired"), LONG, async || {
        let now = at_rest(&everything(&world.aws, &world.scene).await?);
        let different = case.wrong(&at_rest(contained), &now).0;
        ensure!(different.is_empty() && writes() > before, "{} writes, {}", writes() - before, different.join("\n"));
        in_force(world, case).await
    })
    .await;
}

async fn comes_back_exactly(case: &Case) {
    let (world, _guard) = world().await;
    case.dress(&world).await.unwrap();
    let judge = Judge::of(&world).await;
    let before = shown(&world).await;
    contained(&world, case).await;
    let during = shown(&world).await;
    repaired(&world, case, &during).await;
    world.change("inc", json!({ "mode": "Release" })).await;
    condition(&world.incidents(), "inc", "Released", "True", LONG).await;
    world.until_nothing_is_held().await;
    let (wrong, missing) = case.wrong(&before, &shown(&world).await);
    assert!(wrong.is_empty() && missing.is_empty(), "{case}: {missing:?} did not differ, but:\n{}", wrong.join("\n"));
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn every_action_by_itself_gives_back_all_that_aws_shows() {
    let run = async |case| AssertUnwindSafe(comes_back_exactly(case)).catch_unwind().await.is_err().then_some(case);
    let failed: Vec<Option<&Case>> = stream::iter(CASES).map(run).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<_> = failed.into_iter().flatten().map(Case::to_string).collect();
    assert!(failed.is_empty(), "for each, above: {failed:?}");
}

#[test]
fn the_cases_are_of_every_action() {
    let code = include_str!("../../../controller/src/containment/wanted.rs");
    let list = code.split_once("\nactions! {").unwrap().1.split_once("\n}").unwrap().0;
    let lines = list.lines().filter_map(|line| line.trim().split_once(':')).map(|(variant, _)| variant);
    let mut all: Vec<String> = lines.map(|name| name[..1].to_lowercase() + &name[1..]).collect();
    let mut tested: Vec<&str> = CASES.iter().map(|case| case.action).collect();
    all.sort_unstable();
    tested.sort_unstable();
    tested.dedup();
    assert_eq!(tested, all);
}
