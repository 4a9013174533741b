//! SIGKILL at every call that changes AWS, before AWS knows of it and after: the end is the same.
//!
//! Each victim is a world of its own on one plane, with the proxy holding one call; when all of a round are held, the one
//! controller is killed. The positions go up until neither a containment nor a release has so many calls.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::plane::ControllerManager;
use firebreak_tests::proxy::When;
use futures::future::join_all;
use tokio::sync::{Semaphore, watch};

use crate::apart::{Apart, apart};
use crate::scenario::Scenario;
use crate::victim::{Goal, Place, Seen, Victim};

/// Places that one kill tests.
const AT_ONCE: usize = 6;
/// The SDK gives an attempt up after 5 s: a call held longer may be sent again.
const HELD: Duration = Duration::from_millis(4500);
/// A place that came too late, since the machine is busy, is tried again.
const TRIES: usize = 4;
/// Each has many worlds at once: beside another, calls would be held for too long.
static ONE: Semaphore = Semaphore::const_new(1);
const BOTH: [When; 2] = [When::Before, When::After];

#[tokio::test]
async fn killed_at_any_call_with_groups_made_ahead_it_ends_the_same() {
    kill_everywhere(Scenario::GroupsAhead).await;
}

#[tokio::test]
async fn killed_at_any_call_with_groups_made_on_demand_it_ends_the_same() {
    kill_everywhere(Scenario::GroupsOnDemand).await;
}

#[tokio::test]
#[ignore = "calls come late on a busy machine: run it by its name with --ignored"]
async fn killed_at_any_call_of_an_isolation_with_a_list_it_ends_the_same() {
    kill_everywhere(Scenario::AllowList).await;
}

#[tokio::test]
#[ignore = "takes six minutes, and calls come late on a busy machine: run it by its name with --ignored"]
async fn killed_at_any_call_of_any_action_it_ends_the_same() {
    kill_everywhere(Scenario::EveryAction).await;
}

async fn kill_everywhere(scenario: Scenario) {
    let _alone = ONE.acquire().await.unwrap();
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "5s").await;
    let (started, mut victims, mut todo) = (Instant::now(), Vec::new(), Todo::of(scenario));
    while let Some(places) = todo.next() {
        let round = join_all(places.iter().map(|place| Victim::new(&plane, *place, scenario))).await;
        let contained = kill(&mut controller, &round, Goal::Contained).await;
        let released = kill(&mut controller, &round, Goal::Released).await;
        println!("{scenario:?} {:?} {places:?}: {contained:?} {released:?}", started.elapsed());
        for (place, seen) in places.into_iter().zip(contained.into_iter().zip(released)) {
            todo.done(place, [seen.0, seen.1]);
        }
        victims.extend(round);
    }
    join_all(victims.iter().map(Victim::has_one_set_of_snapshots)).await;
    println!("{scenario:?} {:?}: {} worlds", started.elapsed(), victims.len());
    for victim in &victims {
        let openings = victim.judge.assert_no_call_was_wrong();
        assert!(openings >= 6, "two interfaces there and back, and a user: {openings}");
    }
}

/// The places: by number until there are fewer calls; then the actions that were at none of these, since calls go out side by
/// side in any order.
#[derive(Debug)]
struct Todo {
    actions: &'static [&'static str],
    places: VecDeque<Place>,
    numbers: usize,
    beyond: bool,
    by_action: bool,
    held: BTreeSet<(String, bool)>,
}

impl Todo {
    fn of(scenario: Scenario) -> Self {
        let (actions, beyond) = (scenario.actions(), !scenario.by_number());
        Self { actions, places: VecDeque::new(), numbers: 0, beyond, by_action: false, held: BTreeSet::new() }
    }

    fn next(&mut self) -> Option<Vec<Place>> {
        while self.places.len() < AT_ONCE && !self.beyond {
            self.numbers += 1;
            self.places.extend(BOTH.map(|when| Place { nth: self.numbers, action: None, when, tries: 0 }));
        }
        if self.places.is_empty() && !self.by_action {
            self.by_action = true;
            let missed = self.missed().into_iter();
            self.places = missed.map(|(action, when)| Place { nth: 1, action: Some(action), when, tries: 0 }).collect();
        }
        let places: Vec<_> = self.places.drain(..AT_ONCE.min(self.places.len())).collect();
        assert!(!places.is_empty() || self.missed().is_empty(), "never held: {:?}", self.missed());
        (!places.is_empty()).then_some(places)
    }

    fn missed(&self) -> Vec<(&'static str, When)> {
        let all = self.actions.iter().flat_map(|action| BOTH.map(|when| (*action, when)));
        all.filter(|(action, when)| !self.held.contains(&((*action).to_owned(), *when == When::Before))).collect()
    }

    fn done(&mut self, place: Place, seen: [Seen; 2]) {
        self.beyond |= place.action.is_none() && seen == [Seen::Fewer, Seen::Fewer];
        let once = place.action.is_some() && seen.iter().any(|seen| matches!(seen, Seen::Held(_)));
        if seen.contains(&Seen::Late) && !once {
            assert!(place.tries < TRIES, "the machine is too slow for {place:?}");
            self.places.push_back(Place { tries: place.tries + 1, ..place });
        }
        let held = seen.into_iter().filter_map(Seen::action);
        self.held.extend(held.map(|action| (action, place.when == When::Before)));
    }
}

/// One kill: begins in every world, waits until each call is held, kills, and waits until each world is as it should be.
async fn kill(controller: &mut ControllerProcess, round: &[Victim<'_>], goal: Goal) -> Vec<Seen> {
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
    controller.start().unwrap();
    join_all(round.iter().map(|victim| victim.ends_as(goal))).await;
    seen
}
