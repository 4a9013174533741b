//! A world in which one call is held while the controller is killed, and as what it must end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use firebreak_crds::{ActionState, ConversionState, RequestOutcome, is_true};
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::eventually::eventually;
use firebreak_tests::everything::{Everything, differences, everything};
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::Plane;
use firebreak_tests::proxy::{Call, HeldCall};
use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::places::{Place, Seen};
use crate::scenario::Scenario;

/// So long is waited for the others once the first is held.
const PATIENCE: Duration = Duration::from_millis(3500);
/// A lost `CreateSnapshots` is repeated after 60 s.
const LOST: Duration = Duration::from_secs(100);
/// A release of a role waits until old credentials are told from new ones, and a kill may come in that time.
const LONG: Duration = Duration::from_mins(4);

/// What the world is on the way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// From nothing
    Contained,
    /// From contained
    Released,
}

/// A world in which one call is held.
pub struct Victim<'p> {
    world: World<'p>,
    judge: Judge,
    place: Place,
    scenario: Scenario,
    before: Everything,
    /// Calls that had changed AWS before anything was declared: what an account has made ahead
    ahead: usize,
}

impl<'p> Victim<'p> {
    /// Not contained yet.
    pub async fn new(on: &'p Plane, place: Place, scenario: Scenario) -> Self {
        let world = World::unannounced(on, 1).await;
        scenario.dress(&world).await.unwrap();
        let judge = Judge::of(&world).await;
        let before = everything(&world.aws, &world.scene).await.unwrap();
        on.apply(&world.account(scenario.account()).to_string()).await.unwrap();
        on.apply(&scenario.policy(&world).to_string()).await.unwrap();
        let_approve(&world).await;
        world.account_ready().await;
        let ahead = world.proxy.changing().len();
        Self { world, judge, place, scenario, before, ahead }
    }

    /// Begins, and gives the call once it is held.
    pub async fn go(&self, goal: Goal, first: &watch::Sender<Option<Instant>>) -> Result<(Call, HeldCall), Seen> {
        let (nth, when, proxy) = (self.place.nth, self.place.when, &self.world.proxy);
        let mut held = match &self.place.operation {
            Some(operation) => proxy.hold_action(operation, nth, when),
            None => proxy.hold_changing(nth, when),
        };
        match goal {
            Goal::Contained => self.world.declare("inc", "Contain", self.scenario.spec(&self.world)).await,
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

    /// Somebody undoes, while nobody watches, what is done by now. Whether that took something out of force.
    pub async fn attack(&self) -> bool {
        let was_in_force = self.scenario.in_force(&self.world).await;
        let done = self.scenario.attack(&self.world).await;
        if let Err(nothing) = &done {
            println!("{:?}: nothing to undo yet: {nothing}", self.place);
        }
        was_in_force.is_ok() && done.is_ok() && self.scenario.in_force(&self.world).await.is_err()
    }

    /// Waits until it is all that it must be.
    pub async fn ends_as(&self, goal: Goal) {
        let what = format!("{goal:?} after a kill at {:?}", self.place);
        eventually(&what, LONG, async || match goal {
            Goal::Contained => self.is_contained().await,
            Goal::Released => self.is_released().await,
        })
        .await;
    }

    async fn is_contained(&self) -> anyhow::Result<()> {
        self.approve_if_asked().await;
        let world = &self.world;
        let incident = world.incidents().get("inc").await?.status.unwrap_or_default();
        ensure!(is_true(&incident.conditions, "Contained"), "{incident:#?}");
        for quarantine in world.quarantines().await {
            let actions = quarantine.status.clone().unwrap_or_default().actions;
            ensure!(actions.iter().all(|a| a.state == ActionState::InForce), "{actions:#?}");
            let marked = actions.iter().any(|a| a.name == "tagResource") || !quarantine.spec.resource.kind.has_tags();
            ensure!(marked, "not marked yet: {actions:#?}");
        }
        let asked = world.evidence().await.iter().all(|e| e.status.as_ref().is_some_and(|s| s.request.is_some()));
        ensure!(asked, "the snapshots are not asked for yet");
        self.scenario.in_force(world).await?;
        if self.scenario.case().is_some() { Ok(()) } else { self.is_recorded().await }
    }

    async fn approve_if_asked(&self) {
        let waits = self.world.said("inc", "Approved").await.0 == "AwaitingApproval";
        if waits && self.world.approvals().list(&ListParams::default()).await.unwrap().items.is_empty() {
            approve(&self.world, "bob", &[APPROVERS], &blank(&self.world, "bob").await).await;
        }
    }

    /// The originals of the usual policy are those of before, and every window is closed.
    async fn is_recorded(&self) -> anyhow::Result<()> {
        let [instance, user] = [self.world.scene.instances[0].id.as_str(), USER];
        let instance = self.world.quarantine_of(instance).await.expect("a Quarantine").spec;
        let windows: Vec<_> = instance.conversions.iter().map(|c| c.state).collect();
        ensure!(windows == vec![ConversionState::Closed; 2], "{windows:?}");
        let recorded = |spec: firebreak_crds::QuarantineSpec| {
            let original = spec.original.unwrap_or_default().into_iter();
            original.map(|(k, v)| (k, serde_json::from_str(&v.0).unwrap())).collect::<BTreeMap<String, Value>>()
        };
        let interfaces = recorded(instance);
        let scene = &self.world.scene;
        for (interface, group) in scene.instances[0].interfaces.iter().zip(&scene.groups) {
            let found = &interfaces[&format!("isolateNetwork/{interface}")]["groups"];
            ensure!(*found == json!([group]), "{interface}: {found}, not [{group}]");
        }
        let user = recorded(self.world.quarantine_of(user).await.expect("a Quarantine").spec);
        for key in &scene.access_keys {
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
        let now = everything(&self.world.aws, &self.world.scene).await?;
        let wrong = match self.scenario.case() {
            Some(case) => case.wrong(&self.before, &now).0,
            None => differences(&self.before, &now),
        };
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        if self.scenario.case().is_none() {
            let residual = sight::user(&self.world.aws).await?.residual;
            ensure!(residual.len() == 1, "{residual:?}");
        }
        Ok(())
    }

    /// The operations that changed AWS since the incident was declared.
    pub fn operations(&self) -> BTreeSet<String> {
        let done = self.world.proxy.changing().into_iter().skip(self.ahead).filter(Call::succeeded);
        done.map(|call| call.action).collect()
    }

    /// Takes away what it declared, so that the controller has nothing more to do here. No call of it all was wrong.
    pub async fn leave(self) {
        let usual = self.scenario.case().is_none();
        if usual {
            self.has_one_set_of_snapshots().await;
        }
        drop(self.world.sweeper());
        let openings = self.judge.assert_no_call_was_wrong();
        assert!(openings >= 6 || !usual, "two interfaces there and back, and a user: {openings}");
    }

    /// Waits until they are complete; more than three are a failure at once.
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

/// Until long enough after the first call was held.
async fn patience(first: &watch::Sender<Option<Instant>>) {
    let first = first.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
    tokio::time::sleep_until((first + PATIENCE).into()).await;
}
