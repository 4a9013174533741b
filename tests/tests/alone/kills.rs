//! SIGKILL at every call that changes AWS, before AWS knows of it and after, and somebody who undoes what is done before the controller
//! is back: the end is the same.
//!
//! Each victim is a world of its own on one plane, with the proxy holding one call; when all of a round are held, the one
//! controller is killed. The positions go up until neither a containment nor a release has so many calls.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use firebreak_tests::cases::{CASES, Case};
use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::plane::{ControllerManager, Plane};
use futures::future::join_all;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::apart::{Apart, apart};
use crate::places::{Places, Seen};
use crate::scenario::Scenario;
use crate::victim::{Goal, Victim};

/// The SDK gives an attempt up after 5 s: a call held longer may be sent again.
const HELD: Duration = Duration::from_millis(4500);
/// Each has many worlds at once: beside more of them, calls would be held for too long.
static TWO: Semaphore = Semaphore::const_new(2);

/// What no action by itself has held, and why.
const HELD_NOWHERE: &[(&str, &str)] = &[
    ("CreateSnapshots", "is evidence: the matrices of the usual policy hold it"),
    ("PassRole", "a permission that goes with other calls"),
    ("TagInstanceProfile", "goes with CreateInstanceProfile"),
];

#[tokio::test]
async fn killed_at_any_call_with_groups_made_ahead_it_ends_the_same() {
    kill_everywhere([Scenario::GroupsAhead]).await;
}

#[tokio::test]
async fn killed_at_any_call_with_groups_made_on_demand_it_ends_the_same() {
    kill_everywhere([Scenario::GroupsOnDemand]).await;
}

#[tokio::test]
async fn killed_at_any_call_of_any_action_it_ends_the_same() {
    let waits = |case: &&Case| case.action == "revokeInstanceRole"; // each release of it, for half a minute or more
    let (slow, quick): (Vec<_>, Vec<_>) = CASES.iter().partition(waits);
    let all = [slow, quick].map(|cases| kill_everywhere(cases.into_iter().map(Scenario::Only)));
    let held: BTreeSet<String> = join_all(all).await.into_iter().flatten().collect();
    let nowhere: BTreeSet<String> = HELD_NOWHERE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(operations().difference(&held).cloned().collect::<BTreeSet<_>>(), nowhere);
}

/// Returns the operations that were held.
async fn kill_everywhere(scenarios: impl IntoIterator<Item = Scenario>) -> BTreeSet<String> {
    let _few = TWO.acquire().await.unwrap();
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "5s").await;
    let mut held = BTreeSet::new();
    for scenario in scenarios {
        held.extend(kill_in(&plane, &mut controller, scenario).await);
    }
    held
}

async fn kill_in(
    plane: &Plane,
    controller: &mut ControllerProcess,
    scenario: Scenario,
) -> impl Iterator<Item = String> + use<> {
    let (started, mut places, mut worlds, mut attacks) = (Instant::now(), Places::default(), 0, 0);
    while let Some(round) = places.next() {
        let victims = join_all(round.iter().map(|place| Victim::new(plane, place.clone(), scenario))).await;
        let (contained, attacked) = kill(controller, &victims, Goal::Contained).await;
        let (released, _) = kill(controller, &victims, Goal::Released).await;
        println!("{scenario} {:?} {round:?}: {contained:?} {released:?}", started.elapsed());
        (worlds, attacks) = (worlds + victims.len(), attacks + attacked);
        for ((place, victim), seen) in round.into_iter().zip(&victims).zip(contained.into_iter().zip(released)) {
            places.done(&place, [seen.0, seen.1], victim.operations());
        }
        join_all(victims.into_iter().map(Victim::leave)).await;
    }
    println!("{scenario} {:?}: {worlds} worlds, {attacks} attacks", started.elapsed());
    assert_eq!(attacks > 0, scenario.can_be_undone(), "{scenario}: whether somebody undid something meanwhile");
    places.held()
}

/// One kill: begins in every world, waits until each call is held, kills, has what is done undone while nobody watches, and waits
/// until each world is as it should be. How many found something to undo.
async fn kill(controller: &mut ControllerProcess, round: &[Victim<'_>], goal: Goal) -> (Vec<Seen>, usize) {
    let first = watch::Sender::new(None);
    let held = join_all(round.iter().map(|victim| victim.go(goal, &first))).await;
    controller.kill_9();
    let seen = held.iter().map(|held| match held {
        Ok((call, _)) if call.started.elapsed() < HELD => Seen::Held(call.action.clone()),
        Ok(_) => Seen::Late,
        Err(seen) => seen.clone(),
    });
    let seen = seen.collect();
    drop(held); // the connections end without an answer
    let attacks = match goal {
        Goal::Contained => join_all(round.iter().map(Victim::attack)).await,
        Goal::Released => Vec::new(), // what somebody does during a release is a conflict, or the original
    };
    controller.start().unwrap();
    join_all(round.iter().map(|victim| victim.ends_as(goal))).await;
    (seen, attacks.into_iter().filter(|attacked| *attacked).count())
}

/// The operations that the role in an account is allowed, but for those that read.
fn operations() -> BTreeSet<String> {
    let policy: Value = serde_json::from_str(include_str!("../../../docs/iam-policy.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter().filter(|s| s["Effect"] == "Allow");
    let actions = statements.flat_map(|s| s["Action"].as_array().cloned().unwrap_or_else(|| vec![s["Action"].clone()]));
    let names = actions.map(|action| action.as_str().unwrap().split_once(':').unwrap().1.to_owned());
    names.filter(|name| !["Describe", "Get", "List"].iter().any(|verb| name.starts_with(verb))).collect()
}
