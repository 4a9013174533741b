//! A world in which one call is held while the controller is killed, and as what it must end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use firebreak_crds::{ActionState, ConversionState, RequestOutcome, is_true};
use firebreak_tests::eventually::eventually;
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::Plane;
use firebreak_tests::proxy::{Call, HeldCall, When};
use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::{SOON, World};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::picture::Picture;
use crate::scenario::{self, Scenario};

/// So long is waited for the others once the first is held.
const PATIENCE: Duration = Duration::from_millis(3500);
/// A lost `CreateSnapshots` is repeated after 60 s.
const LOST: Duration = Duration::from_secs(100);

/// Where to kill: at the n-th changing call of a containment, and again at the n-th of its release.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// From 1
    pub nth: usize,
    /// Of this action, or of any
    pub action: Option<&'static str>,
    /// Before or after AWS has it
    pub when: When,
    /// How often it came too late
    pub tries: usize,
}

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Killed while this was held
    Held(String),
    /// There are fewer calls
    Fewer,
    /// Not held at the moment of the kill
    Late,
}

impl Seen {
    /// What was held.
    pub fn action(self) -> Option<String> {
        if let Self::Held(action) = self { Some(action) } else { None }
    }
}

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
    /// Of all its calls
    pub judge: Judge,
    place: Place,
    scenario: Scenario,
    before: Picture,
    /// What only some scenarios have
    more: Vec<String>,
}

impl<'p> Victim<'p> {
    /// Not contained yet.
    pub async fn new(on: &'p Plane, place: Place, scenario: Scenario) -> Self {
        let world = World::unannounced(on, 1).await;
        scenario.dress(&world).await.unwrap();
        let judge = Judge::of(&world).await;
        let before = Picture::of(&world).await;
        let more = scenario::more(&world, scenario).await.unwrap();
        let account = world.account(json!({ "prepare": { "isolationGroups": scenario.isolation_groups() } }));
        on.apply(&account.to_string()).await.unwrap();
        on.apply(&world.policy("standard", scenario.policy()).to_string()).await.unwrap();
        world.account_ready().await;
        Self { world, judge, place, scenario, before, more }
    }

    /// Begins, and gives the call once it is held.
    pub async fn go(&self, goal: Goal, first: &watch::Sender<Option<Instant>>) -> Result<(Call, HeldCall), Seen> {
        let Place { nth, when, .. } = self.place;
        let proxy = &self.world.proxy;
        let mut held = match self.place.action {
            Some(action) => proxy.hold_action(action, nth, when),
            None => proxy.hold_changing(nth, when),
        };
        match goal {
            Goal::Contained => {
                self.world.declare("inc", "Contain", json!({ "targets": self.scenario.targets(&self.world) })).await;
            }
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

    /// Waits until it is all that it must be.
    pub async fn ends_as(&self, goal: Goal) {
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
        scenario::is_isolated(world, self.scenario).await?;
        sight::cut_off(&world.aws).await?;
        self.is_recorded().await
    }

    /// The originals are those of before, and every window is closed.
    async fn is_recorded(&self) -> anyhow::Result<()> {
        let [instance, user] = [self.world.scene.instances[0].id.as_str(), USER];
        let instance = self.world.quarantine_of(instance).await.expect("a Quarantine").spec;
        let windows: Vec<_> = instance.conversions.iter().map(|c| c.state).collect();
        let expected = if self.scenario.has_windows() { 2 } else { 0 };
        ensure!(windows == vec![ConversionState::Closed; expected], "{windows:?}");
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
        let more = scenario::more(&self.world, self.scenario).await?;
        ensure!(more == self.more, "{more:#?}, before: {:#?}", self.more);
        Ok(())
    }

    /// Waits until they are complete; more than three are a failure at once.
    pub async fn has_one_set_of_snapshots(&self) {
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
