//! The planners against every order of events: AWS is simulated by each action's own model, an attacker changes things between
//! the calls, calls are refused, and the process dies anywhere. What must hold at every step is in `check_contain` and
//! `check_release` of each action; what must hold at the end of an undisturbed pass is in `contained` and `released`.
//!
//! `Simulation::pass` is the loop of `drive::run` without its effects.

mod addresses;
mod balancing;
mod console;
mod credentials;
mod deny_all;
mod ending;
mod instance_role;
mod merge;
mod metadata;
mod network;
mod protection;
mod revoke;
mod scaling;
mod seal;
mod session;
mod terminate;

pub use merge::Sample;

use std::collections::{BTreeMap, VecDeque};

use firebreak_crds::{
    ActionState, ActionStatus, ConversionState, Holder, HolderState, KeyUser, NameRef, OnConflict, Quarantine,
    QuarantineSpec, QuarantineStatus, ReleaseDecision, ReleasePolicy, Resource, ResourceKind,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::action::Action;
use super::case::Case;
use super::drive::STEPS;
use super::ledger::{self, Change};
use super::plan::{Plan, Verdict};
use super::window::Window;
use crate::aws::{Call, Outcome};

/// When the containment began.
const SINCE: i64 = 1_800_000_000;

/// An action that can be simulated.
trait Simulated: Action<Look: Clone + std::fmt::Debug, Params: Clone + std::fmt::Debug> {
    /// Something that somebody else does.
    type Attack: Clone + std::fmt::Debug;

    /// What `look` shows of the simulated AWS.
    fn read(aws: &Self::Look, case: &Case, params: Option<&Self::Params>) -> Self::Look;
    /// Whether AWS accepts a call.
    fn accepts(aws: &Self::Look, call: &Call) -> bool;
    fn attack(aws: &mut Self::Look, attack: &Self::Attack, now: Timestamp);

    /// What the process remembers of a call that AWS took.
    fn remember(_: &mut Self::Look, _: &Call, _: Timestamp) {}

    /// What a person does by hand where no decision ends a conflict.
    fn by_hand(_: &mut Self::Look) {}

    /// What every plan to contain must obey.
    fn check_contain(case: &Case, look: &Self::Look, plan: &Plan);
    /// What every plan to release must obey.
    fn check_release(case: &Case, look: &Self::Look, plan: &Plan);
    /// What an undisturbed pass to contain ends in.
    fn contained(case: &Case, params: &Self::Params, aws: &Self::Look, verdict: &Verdict);
    /// What an undisturbed pass to release, that began with `before`, ends in.
    fn released(case: &Case, before: &Self::Look, aws: &Self::Look, verdict: &Verdict);
}

#[derive(Clone, Debug)]
enum Event<T> {
    /// The call goes through.
    Go,
    /// AWS refuses the call.
    Refuse,
    /// The process dies: what the plan asked for besides is not done.
    Crash,
    /// Somebody else is first.
    Attack(T),
}

fn script<T: Clone + std::fmt::Debug + 'static>(attack: BoxedStrategy<T>) -> BoxedStrategy<Vec<Event<T>>> {
    let event = prop_oneof![
        6 => Just(Event::Go),
        1 => Just(Event::Refuse),
        1 => Just(Event::Crash),
        3 => attack.prop_map(Event::Attack),
    ];
    vec(event, 0..14).boxed()
}

/// Crashes and refusals, but nobody else.
fn calm<T: Clone>(script: &[Event<T>]) -> Vec<Event<T>> {
    script.iter().filter(|e| !matches!(e, Event::Attack(_))).cloned().collect()
}

struct Simulation<A: Simulated> {
    quarantine: Quarantine,
    aws: A::Look,
    params: A::Params,
    script: VecDeque<Event<A::Attack>>,
    now: i64,
}

impl<A: Simulated> Simulation<A> {
    fn new(resource: Resource, aws: A::Look, params: A::Params) -> Self {
        let holder = Holder {
            uid: "u-1".into(),
            namespace: "security".into(),
            name: "inc-1".into(),
            severity: None,
            state: HolderState::Holding,
            actions: Vec::new(),
            release: ReleasePolicy::default(),
            selector: None,
        };
        let mut quarantine = Quarantine::new("q", QuarantineSpec::of(resource, vec![holder]));
        quarantine.metadata.creation_timestamp = Some(Time(at(SINCE)));
        Self { quarantine, aws, params, script: VecDeque::new(), now: SINCE }
    }

    fn case(&self) -> Case {
        Case::of(&self.quarantine, "aws", at(self.now))
    }

    fn decide(&mut self, decision: Option<OnConflict>) {
        self.quarantine.spec.release = decision.map(|_| ReleaseDecision { on_conflict: decision, original: None });
    }

    /// Plays the script to its end, over as many passes as it takes. The last one may be cut short.
    fn disturbed(&mut self, releasing: bool, script: &[Event<A::Attack>]) {
        self.script = script.to_vec().into();
        self.script.push_back(Event::Crash);
        while !self.script.is_empty() {
            self.pass(releasing);
            if let Some(Event::Crash | Event::Refuse | Event::Go) = self.script.front() {
                self.script.pop_front(); // a pass without calls must not wait for ever
            }
            self.attacks();
        }
    }

    /// A pass without disturbance: it ends, and says so.
    fn contain(&mut self) -> Verdict {
        let verdict = self.pass(false).expect("an undisturbed pass ends within its steps");
        self.tell(&verdict);
        A::contained(&self.case(), &self.params, &self.aws, &verdict);
        verdict
    }

    fn release(&mut self) -> Verdict {
        let before = self.aws.clone();
        let verdict = self.pass(true).expect("an undisturbed pass ends within its steps");
        A::released(&self.case(), &before, &self.aws, &verdict);
        self.tell(&verdict);
        verdict
    }

    /// The status of a pass: a decision is one about what was told.
    fn tell(&mut self, verdict: &Verdict) {
        let (name, state, message, since) = (A::NAME.to_owned(), verdict.state, verdict.message.clone(), Time(at(self.now)));
        let action = ActionStatus { name, wanted: None, state, message, since, undone: Vec::new() };
        self.quarantine.status = Some(QuarantineStatus { actions: vec![action], ..QuarantineStatus::default() });
    }

    /// One pass; None where it was cut short.
    fn pass(&mut self, releasing: bool) -> Option<Verdict> {
        let mut refused: Vec<Call> = Vec::new();
        let (mut look, mut fresh) = (self.look(releasing), true);
        for _ in 0..STEPS {
            self.now += 1;
            let mut plan = self.plan(releasing, &look);
            plan.leave_out(|call| refused.contains(call));
            if plan.is_done() && fresh {
                if !refused.is_empty() && plan.verdict.state == ActionState::InProgress {
                    plan.verdict.state = ActionState::Failed;
                }
                return Some(plan.verdict);
            }
            if plan.is_idle() {
                (look, fresh) = (self.look(releasing), true);
                continue;
            }
            self.attacks();
            if !self.script.is_empty() && self.dies() {
                return None;
            }
            self.store(plan.record, plan.conversions);
            for call in plan.calls {
                if !self.send(&mut look, call, &mut refused) {
                    return None;
                }
            }
            for Window { open, close, .. } in plan.windows {
                let alive = self.send(&mut look, open.clone(), &mut refused);
                if !alive || (!refused.contains(&open) && !self.send(&mut look, close, &mut refused)) {
                    return None;
                }
            }
            fresh = false;
        }
        None
    }

    fn look(&self, releasing: bool) -> A::Look {
        A::read(&self.aws, &self.case(), (!releasing).then_some(&self.params))
    }

    fn plan(&self, releasing: bool, look: &A::Look) -> Plan {
        let case = self.case();
        let plan = A::next(&case, (!releasing).then_some(&self.params), look);
        for key in plan.record.keys() {
            assert!(!case.original.contains_key(key), "{key} is recorded already: the first value stays");
        }
        if releasing {
            A::check_release(&case, look, &plan);
        } else {
            assert!(plan.calls.iter().all(|c| !c.widens()), "containing gives nothing back: {:?}", plan.calls);
            A::check_contain(&case, look, &plan);
        }
        plan
    }

    fn store(&mut self, record: BTreeMap<String, serde_json::Value>, conversions: BTreeMap<String, ConversionState>) {
        let before = self.quarantine.spec.original.clone().unwrap_or_default();
        ledger::apply(&mut self.quarantine.spec, &Change { record, conversions }, at(self.now));
        let after = self.quarantine.spec.original.clone().unwrap_or_default();
        assert!(before.iter().all(|(k, v)| after.get(k) == Some(v)), "the first recorded value stays");
    }

    /// False where the process dies before it.
    fn send(&mut self, look: &mut A::Look, call: Call, refused: &mut Vec<Call>) -> bool {
        self.attacks();
        match self.script.pop_front() {
            Some(Event::Crash) => return false,
            Some(Event::Refuse) => refuse::<A>(look, call, refused),
            _ if !A::accepts(&self.aws, &call) => refuse::<A>(look, call, refused),
            _ => {
                let outcome = outcome(&call);
                A::after(&mut self.aws, &call, &outcome);
                A::remember(&mut self.aws, &call, at(self.now));
                A::after(look, &call, &outcome);
            }
        }
        true
    }

    fn attacks(&mut self) {
        while let Some(Event::Attack(attack)) = self.script.front().cloned() {
            self.script.pop_front();
            A::attack(&mut self.aws, &attack, at(self.now));
        }
    }

    fn dies(&mut self) -> bool {
        matches!(self.script.pop_front(), Some(Event::Crash))
    }

    /// What an Incident's whole life does: contain; begin to release; contain again; release.
    fn life(&mut self, scripts: &[Vec<Event<A::Attack>>; 4], decision: Option<OnConflict>) -> Verdict {
        self.disturbed(false, &scripts[0]);
        self.contain();
        self.disturbed(true, &scripts[1]);
        self.disturbed(false, &scripts[2]);
        self.contain();
        self.disturbed(true, &scripts[3]);
        let verdict = self.release();
        if decision.is_none() || verdict.state == ActionState::Released {
            return verdict;
        }
        self.decide(decision);
        self.now += 3600; // people take their time
        let mut verdict = self.release();
        if decision == Some(OnConflict::RestoreOriginal) && cannot_be_restored(&verdict.message) {
            self.decide(Some(OnConflict::KeepTheirs));
            verdict = self.release();
        }
        if verdict.state == ActionState::Conflict && verdict.message.contains("by hand") {
            A::by_hand(&mut self.aws);
            verdict = self.release();
        }
        assert_eq!(verdict.state, ActionState::Released, "a decision ends the conflict: {}", verdict.message);
        verdict
    }
}

/// Whether there is no original, or it is gone.
fn cannot_be_restored(message: &str) -> bool {
    ["not known", "none exists any more", "never showed it to end"].iter().any(|words| message.contains(words))
}

fn refuse<A: Simulated>(look: &mut A::Look, call: Call, refused: &mut Vec<Call>) {
    A::refused(look, &call);
    refused.push(call);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn outcome(call: &Call) -> Outcome {
    match call {
        Call::CreateSecurityGroup { vpc, role } => Outcome::Created(network::our_group(*role, vpc)),
        Call::AssociateIamInstanceProfile { .. } | Call::ReplaceIamInstanceProfileAssociation { .. } => {
            Outcome::Created(instance_role::new_association())
        }
        _ => Outcome::Done,
    }
}

fn decisions() -> impl Strategy<Value = Option<OnConflict>> {
    prop_oneof![Just(None), Just(Some(OnConflict::KeepTheirs)), Just(Some(OnConflict::RestoreOriginal))]
}

/// About a thousand cases each; PROPTEST_CASES=20000 looks longer.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 4, failure_persistence: None, ..usual }
}

fn resource(kind: ResourceKind) -> Resource {
    let (region, id) = match kind {
        ResourceKind::Ec2Instance => (Some("eu-west-1".into()), "i-0123456789abcdef0"),
        ResourceKind::IamUser => (None, "mallory"),
        ResourceKind::AccessKey => (None, "ID0"),
        ResourceKind::RoleSession => (None, "build/ci-job"),
        ResourceKind::IamRole => (None, "build"),
    };
    let account_ref = NameRef { name: "prod".into() };
    let user = (kind == ResourceKind::AccessKey).then(|| KeyUser { name: "mallory".into(), id: "AIDA1".into() });
    Resource { kind, account_ref, account_id: "111122223333".into(), region, id: id.into(), user }
}
