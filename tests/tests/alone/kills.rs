//! SIGKILL at every call that changes AWS, before AWS knows of it and after: the end is the same.
//!
//! Each victim is a world of its own on one plane, with the proxy holding one call; when all of a round are held, the one
//! controller is killed. The positions go up until neither a containment nor a release has so many calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::ensure;
use firebreak_crds::{ActionState, ConversionState, RequestOutcome, is_true};
use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::eventually::eventually;
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::proxy::{Call, HeldCall, When};
use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::{SOON, World};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::apart::{Apart, apart};
use crate::picture::Picture;

/// Places that one kill tests.
const AT_ONCE: usize = 6;
/// The SDK gives an attempt up after 5 s: a call held longer may be sent again.
const HELD: Duration = Duration::from_millis(4500);
/// So long is waited for the others once the first is held.
const PATIENCE: Duration = Duration::from_millis(3500);
/// A place that came too late, since the machine is busy, is tried again.
const TRIES: usize = 4;
/// A lost `CreateSnapshots` is repeated after 60 s.
const LOST: Duration = Duration::from_secs(100);
/// Every action of a containment and of its release.
const ACTIONS: [&str; 14] = [
    "AttachUserPolicy",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateSnapshots",
    "CreateTags",
    "DeleteTags",
    "DeleteUserPolicy",
    "DetachUserPolicy",
    "ModifyNetworkInterfaceAttribute",
    "PutUserPolicy",
    "TagUser",
    "UntagUser",
    "UpdateAccessKey",
];
const BOTH: [When; 2] = [When::Before, When::After];

#[tokio::test]
async fn killed_at_any_call_with_groups_made_ahead_it_ends_the_same() {
    kill_everywhere("AllVpcs").await;
}

#[tokio::test]
async fn killed_at_any_call_with_groups_made_on_demand_it_ends_the_same() {
    kill_everywhere("OnDemand").await;
}

/// Where to kill: at the n-th changing call of a containment, and again at the n-th of its release.
#[derive(Debug, Clone, Copy)]
struct Place {
    nth: usize,
    /// Of this action, or of any
    action: Option<&'static str>,
    when: When,
    tries: usize,
}

async fn kill_everywhere(isolation_groups: &str) {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "5s").await;
    let (started, mut victims, mut todo) = (Instant::now(), Vec::new(), Todo::default());
    while let Some(places) = todo.next() {
        let round = join_all(places.iter().map(|place| Victim::new(&plane, *place, isolation_groups))).await;
        let contained = kill(&mut controller, &round, Goal::Contained).await;
        let released = kill(&mut controller, &round, Goal::Released).await;
        println!("{isolation_groups} {:?} {places:?}: {contained:?} {released:?}", started.elapsed());
        for (place, seen) in places.into_iter().zip(contained.into_iter().zip(released)) {
            todo.done(place, [seen.0, seen.1]);
        }
        victims.extend(round);
    }
    join_all(victims.iter().map(Victim::has_one_set_of_snapshots)).await;
    println!("{isolation_groups} {:?}: {} worlds", started.elapsed(), victims.len());
    for victim in &victims {
        let openings = victim.judge.assert_no_call_was_wrong();
        assert!(openings >= 6, "two interfaces there and back, and a user: {openings}");
    }
}

/// The places: by number until there are fewer calls; then the actions that were at none of these, since calls go out side by
/// side in any order.
#[derive(Debug, Default)]
struct Todo {
    places: VecDeque<Place>,
    numbers: usize,
    beyond: bool,
    by_action: bool,
    held: BTreeSet<(String, bool)>,
}

impl Todo {
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
        let all = ACTIONS.into_iter().flat_map(|action| BOTH.map(|when| (action, when)));
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

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Killed while this was held
    Held(String),
    /// There are fewer calls
    Fewer,
    /// Not held at the moment of the kill
    Late,
}

impl Seen {
    fn action(self) -> Option<String> {
        if let Self::Held(action) = self { Some(action) } else { None }
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

/// Until long enough after the first call was held.
async fn patience(first: &watch::Sender<Option<Instant>>) {
    let first = first.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
    tokio::time::sleep_until((first + PATIENCE).into()).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Contained,
    Released,
}

/// A world in which one call is held.
struct Victim<'p> {
    world: World<'p>,
    judge: Judge,
    place: Place,
    before: Picture,
}

impl<'p> Victim<'p> {
    async fn new(plane: &'p Plane, place: Place, isolation_groups: &str) -> Self {
        let world = World::unannounced(plane, 1).await;
        let judge = Judge::of(&world).await;
        let before = Picture::of(&world).await;
        let account = world.account(json!({ "prepare": { "isolationGroups": isolation_groups } }));
        plane.apply(&account.to_string()).await.unwrap();
        plane.apply(&world.policy("standard", policy()).to_string()).await.unwrap();
        world.account_ready().await;
        Self { world, judge, place, before }
    }

    /// Begins, and gives the call once it is held.
    async fn go(&self, goal: Goal, first: &watch::Sender<Option<Instant>>) -> Result<(Call, HeldCall), Seen> {
        let Place { nth, when, .. } = self.place;
        let proxy = &self.world.proxy;
        let mut held = match self.place.action {
            Some(action) => proxy.hold_action(action, nth, when),
            None => proxy.hold_changing(nth, when),
        };
        match goal {
            Goal::Contained => self.world.declare("inc", "Contain", json!({})).await,
            Goal::Released => self.world.change("inc", json!({ "mode": "Release" })).await,
        }
        let call = tokio::select! {
            call = held.reached_in_time() => call.ok_or(Seen::Late)?,
            () = self.ends_as(goal) => return Err(Seen::Fewer),
            () = patience(first) => return Err(Seen::Late),
        };
        first.send_if_modified(|first| first.replace(first.unwrap_or(call.started)).is_none());
        Ok((call, held))
    }

    async fn ends_as(&self, goal: Goal) {
        let what = format!("{goal:?} after a kill at {:?}", self.place);
        eventually(&what, SOON, async || match goal {
            Goal::Contained => self.is_contained().await,
            Goal::Released => self.is_released().await,
        })
        .await;
    }

    async fn is_contained(&self) -> anyhow::Result<()> {
        let world = &self.world;
        let incident = world.incidents().get("inc").await?.status.unwrap_or_default();
        ensure!(is_true(&incident.conditions, "Contained"), "{incident:#?}");
        for quarantine in world.quarantines().await {
            let actions = quarantine.status.clone().unwrap_or_default().actions;
            ensure!(actions.iter().all(|a| a.state == ActionState::InForce), "{actions:#?}");
            ensure!(actions.iter().any(|a| a.name == "tagResource"), "not marked yet: {actions:#?}");
        }
        let asked = world.evidence().await.iter().all(|e| e.status.as_ref().is_some_and(|s| s.request.is_some()));
        ensure!(asked, "the snapshots are not asked for yet");
        sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await?;
        sight::cut_off(&world.aws).await?;
        self.is_recorded().await
    }

    /// The originals are those of before, and every window is closed.
    async fn is_recorded(&self) -> anyhow::Result<()> {
        let [instance, user] = [self.world.scene.instances[0].id.as_str(), USER];
        let instance = self.world.quarantine_of(instance).await.expect("a Quarantine").spec;
        let windows: Vec<_> = instance.conversions.iter().map(|c| c.state).collect();
        ensure!(windows == [ConversionState::Closed; 2], "{windows:?}");
        let recorded = |spec: firebreak_crds::QuarantineSpec| {
            let original = spec.original.unwrap_or_default().into_iter();
            original.map(|(k, v)| (k, serde_json::from_str(&v.0).unwrap())).collect::<BTreeMap<String, Value>>()
        };
        let interfaces = recorded(instance);
        for (interface, groups) in &self.before.groups {
            let found = &interfaces[&format!("isolateNetwork/{interface}")]["groups"];
            ensure!(*found == json!(groups), "{interface}: {found}, not {groups:?}");
        }
        let user = recorded(self.world.quarantine_of(user).await.expect("a Quarantine").spec);
        for key in self.before.keys.keys() {
            let found = &user[&format!("deactivateAccessKeys/{key}")]["active"];
            ensure!(*found == json!(true), "{key}: {found}");
        }
        ensure!(user["denyAll"]["awsDenyAllAttached"] == json!(false), "{user:#?}");
        Ok(())
    }

    async fn is_released(&self) -> anyhow::Result<()> {
        let incident = self.world.incidents().get("inc").await?.status.unwrap_or_default();
        ensure!(is_true(&incident.conditions, "Released"), "{incident:#?}");
        let left = self.world.quarantines().await;
        ensure!(left.is_empty(), "{left:#?}");
        let now = Picture::of(&self.world).await;
        ensure!(now == Picture { residual: 1, ..self.before.clone() }, "{now:#?}, before: {:#?}", self.before);
        Ok(())
    }

    async fn has_one_set_of_snapshots(&self) {
        let what = format!("one set of snapshots after a kill at {:?}", self.place);
        eventually(&what, LOST, async || {
            let evidence = self.world.evidence().await;
            let [evidence] = evidence.as_slice() else { anyhow::bail!("{evidence:#?}") };
            let status = evidence.status.clone().unwrap_or_default();
            ensure!(is_true(&status.conditions, "Ready"), "{status:#?}");
            ensure!(status.request.is_some_and(|r| r.outcome == RequestOutcome::Accepted));
            let known: BTreeSet<_> = status.volumes.iter().map(|v| v.snapshot_id.clone()).collect();
            let found: BTreeSet<_> = sight::snapshots(&self.world.aws).await?.into_iter().collect();
            assert_eq!((found.len(), &found), (3, &known), "{what}");
            Ok(())
        })
        .await;
    }
}

/// Windows for every interface, and keys that come back.
fn policy() -> Value {
    json!({
        "ec2Instance": {
            "contain": [{ "isolateNetwork": { "severTrackedConnections": "Always" } }],
            "evidence": [{ "ebsSnapshots": {} }],
        },
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
        "release": { "reactivateAccessKeys": true },
    })
}
