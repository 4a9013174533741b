//! The loop that every action goes through: look, plan (pure), record, act, and look again to verify.
//!
//! Between the calls of a chain nothing is read: the action's own model says what each call does. Only the end is verified
//! by reading. A call that failed is not repeated in the same pass, but for one that closes; the others go on.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use firebreak_crds::{ActionState, Conversion, Empty, OnConflict, Text};
use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

use super::adopt::{Adopting, Adoption};
use super::beside::Beside;
use super::case::Case;
use super::ledger::{Ledger, LedgerError};
use super::plan::{Plan, Verdict};
use super::progress::{Progress, Waiting};
use super::quota;
use super::refused::{self, Refused};
use super::whereabouts::{Whereabouts, exchanged};
use super::window::{Hand, Sent, insist, pass_through};
use crate::aws::{Actor, AwsError, Call, Guard, Outcome, Priority, Session};
use crate::clock;

/// More steps than any chain needs: a plan that never ends is a defect, and the next pass takes it up again.
pub(super) const STEPS: usize = 24;
/// Two reads of a conflict, or of what is gone, must agree, this far apart.
const CONFIRM: Duration = Duration::from_secs(2);
/// So long the rules in a group of ours stay there at most, for what is in it to be on record as open: it is converted then, also by the
/// process after this one.
const HEADSTART: Duration = Duration::from_secs(2);

/// The parameters of an action.
pub trait Merge: Clone {
    /// The stricter of two: commutative, associative, and never weaker than either.
    #[must_use]
    fn merge(&self, other: &Self) -> Self;
    /// With what the action is kept in force when no holder asks for it any more.
    fn kept() -> Self;
}

impl Merge for Empty {
    fn merge(&self, _: &Self) -> Self {
        Self {}
    }

    fn kept() -> Self {
        Self {}
    }
}

/// When a release gives an action back. Each stage begins when all of the one before it is read back as released: so access comes
/// last, and no deny goes while a credential may still work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What gives nobody access: credentials that stay off or sleep under the deny.
    Before,
    /// What runs again, isolated as it is.
    Start,
    /// Access: the network, the deny, who may assume the role.
    Access,
    /// What is for when access is decided: the metadata service, which hands out the role's credentials, and work: load balancers and Auto
    /// Scaling, which end what does not answer them. Protection goes with them: until here, nobody ends it.
    Service,
}

impl Stage {
    /// In their order.
    pub const ALL: [Self; 4] = [Self::Before, Self::Start, Self::Access, Self::Service];
}

/// One way of containing one kind of resource.
pub trait Action {
    /// The policy's field.
    const NAME: &'static str;
    /// When a release gives it back.
    const STAGE: Stage = Stage::Before;
    /// Its parameters.
    type Params: Merge + Send + Sync;
    /// What it observes.
    type Look: Send + Sync;

    /// The resource's tags, as the look shows them.
    fn tags(look: &Self::Look) -> Option<&BTreeMap<String, String>>;
    /// The unique id of the user whom the look shows: calls go by name.
    fn user(_: &Self::Look) -> Option<&str> {
        None
    }
    /// Whether a text is what the action records under one of its keys; `sub` is what comes after its name.
    ///
    /// # Errors
    /// Why it is not.
    fn check(sub: &str, text: &str) -> Result<(), String>;
    /// Reads AWS. `params` is None when releasing.
    fn look(
        aws: &Session,
        case: &Case,
        params: Option<&Self::Params>,
    ) -> impl Future<Output = Result<Self::Look, AwsError>> + Send;
    /// The next step; back where `params` is None. Pure.
    fn next(case: &Case, params: Option<&Self::Params>, look: &Self::Look) -> Plan {
        if let Some(again) = Self::user(look).and_then(|id| exchanged(case, id)) {
            return again;
        }
        match params {
            Some(params) => Self::contain(case, params, look),
            None => Self::release(case, look),
        }
    }
    /// The next step towards containment. Pure.
    fn contain(case: &Case, params: &Self::Params, look: &Self::Look) -> Plan;
    /// The next step back to what was there. Pure.
    fn release(case: &Case, look: &Self::Look) -> Plan;
    /// What a call that was accepted does to what was observed.
    fn after(look: &mut Self::Look, call: &Call, outcome: &Outcome);
    /// What is known of a call that was refused: another way may be left.
    fn refused(_: &mut Self::Look, _: &Call) {}
    /// For a dry run: takes what is expected for read.
    fn trust(_: &mut Self::Look) {}
}

/// One pass over one Quarantine.
pub struct Pass<'a> {
    /// Reads.
    pub session: &'a Session,
    /// Writes.
    pub actor: &'a Actor,
    /// The record.
    pub ledger: &'a Ledger,
    /// Where the record may come from, if there is none yet.
    pub adoption: &'a Adoption,
    /// Contain, or give back.
    pub releasing: bool,
    /// Looks and reports only, but for what closes an interface.
    pub suspended: bool,
    /// What calls that give access back need.
    pub guard: Guard,
    /// The other Quarantines of the same user.
    pub beside: Vec<Beside>,
    /// Of a user: under which name it is there.
    pub whereabouts: Whereabouts,
    /// What the actions under way have shown so far.
    pub progress: Progress,
}

/// What came of one action in one pass.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Report {
    /// The action.
    pub name: &'static str,
    /// How it stands, and what others changed.
    pub verdict: Verdict,
    /// Why it could not be looked at, or what failed first.
    pub error: Option<AwsError>,
    /// Whether the verdict rests on a look of this pass.
    pub seen: bool,
    /// Whether this pass has not ended it yet.
    pub under_way: bool,
    /// Whether a call was accepted.
    pub wrote: bool,
    /// Whether the first look of this pass showed it out of force.
    pub open: bool,
    /// Whether an interface stands open that AWS does not let be closed.
    pub gapes: bool,
    /// The record could not be written.
    pub ledger: Option<LedgerError>,
}

/// What `Contain` would do.
#[derive(Clone, Debug, Default)]
pub struct DryRun {
    /// The calls, in order.
    pub calls: Vec<String>,
    /// What stands in the way.
    pub problem: Option<String>,
}

/// Carries one action out, or takes it back, until nothing is left to do in this pass.
pub async fn run<A: Action>(pass: &Pass<'_>, params: &A::Params) -> Report {
    let (failed, accepted) = (Vec::new(), Vec::new());
    let (report, region) = (Report::of::<A>(), pass.ledger.latest().await.spec.resource.region);
    let mut state =
        Running::<A> { pass, params, region, report, failed, accepted, drift: None, decision: None, told: false };
    pass.progress.begin(A::NAME);
    if let Err(error) = state.go().await {
        state.report.error.get_or_insert(error);
        state.report.seen = false;
    }
    state.report.verdict.drift = state.drift.unwrap_or_default();
    state.report
}

struct Running<'a, A: Action> {
    pass: &'a Pass<'a>,
    params: &'a A::Params,
    region: Option<String>,
    report: Report,
    failed: Vec<Refused>,
    /// What AWS accepted in this pass.
    accepted: Vec<Call>,
    /// What the first look showed to be changed.
    drift: Option<Vec<String>>,
    /// What a person decided about conflicts, as of the latest plan.
    decision: Option<OnConflict>,
    /// Whether an earlier look has told what AWS refuses.
    told: bool,
}

impl<A: Action> Running<'_, A> {
    async fn go(&mut self) -> Result<(), AwsError> {
        let (mut look, mut fresh, mut confirmed, mut waited) = (self.look().await?, true, false, false);
        match self.adopted(&look).await? {
            Adopting::Nothing => {}
            Adopting::Done => look = self.look().await?, // what is read depends on what is recorded
            Adopting::NotStored(error) => {
                self.report.ledger = Some(error);
                return Ok(());
            }
        }
        for _ in 0..STEPS {
            let mut plan = self.plan(&look).await;
            if self.pass.suspended {
                plan = plan.only_closing();
            }
            if fresh {
                self.pass.progress.looked(A::NAME, &plan.verdict);
            }
            if fresh && !waited && plan.calls.iter().any(|c| self.accepted.contains(c)) {
                // AWS shows what was before our own call, or somebody was quick: one more look tells the two apart.
                tokio::time::sleep(CONFIRM).await;
                (look, waited) = (self.look().await?, true);
                continue;
            }
            if plan.is_done() && fresh {
                if confirmed || self.pass.suspended || !is_seen_twice(self.pass.releasing, &plan.verdict, &self.failed) {
                    self.conclude(plan);
                    return Ok(());
                }
                tokio::time::sleep(CONFIRM).await;
                confirmed = true;
            }
            if plan.is_idle() {
                (look, fresh) = (self.look().await?, true);
                continue;
            }
            if !self.step(plan, &mut look).await {
                return Ok(());
            }
            fresh = false;
        }
        Ok(())
    }

    /// What becomes of the copy of a record that the look shows, before anything else is recorded.
    async fn adopted(&self, look: &A::Look) -> Result<Adopting, AwsError> {
        let Pass { session, ledger, adoption, suspended, .. } = self.pass;
        match A::tags(look) {
            Some(tags) if !suspended => adoption.consider(session, ledger, tags).await,
            _ => Ok(Adopting::Nothing),
        }
    }

    async fn look(&self) -> Result<A::Look, AwsError> {
        let params = (!self.pass.releasing).then_some(self.params);
        let _waiting = self.pass.progress.waiting(A::NAME, "a look");
        A::look(self.pass.session, &self.case().await, params).await
    }

    async fn case(&self) -> Case {
        let latest = self.pass.ledger.latest().await;
        let case = Case::of(&latest, &self.pass.session.partition, self.pass.session.now());
        case.with(self.pass.beside.clone()).at(self.pass.whereabouts.clone())
    }

    async fn plan(&mut self, look: &A::Look) -> Plan {
        let case = self.case().await;
        self.decision = case.decision;
        self.told = refused::is_told(&case, A::NAME);
        let mut plan = A::next(&case, (!self.pass.releasing).then_some(self.params), look);
        if self.drift.is_none() {
            self.report.open = plan.verdict.state != ActionState::InForce;
            self.drift = Some(plan.verdict.drift.clone());
        }
        plan.leave_out(|call| self.failed.iter().any(|(failed, _)| failed == call));
        plan
    }

    /// Records, then sends the calls side by side. What closes an interface waits for no record, and what closes a group of ours not for
    /// long, whatever comes of it. False ends the pass.
    async fn step(&mut self, plan: Plan, look: &mut A::Look) -> bool {
        let (closing, calls): (Vec<Call>, Vec<Call>) = plan.calls.into_iter().partition(Call::closes);
        let (emptying, calls): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| call.empties().is_some());
        let this = &*self;
        let stored = this.pass.ledger.store(plan.record, plan.conversions).boxed().shared();
        let emptied = async {
            let _whatever = timeout(HEADSTART, stored.clone()).await;
            join_all(emptying.into_iter().map(|call| this.sent(call))).await
        };
        let others = async {
            stored.clone().await?;
            let windows = join_all(plan.windows.into_iter().map(|window| pass_through(this, window)));
            let (sent, windows) = futures::join!(join_all(calls.into_iter().map(|call| this.sent(call))), windows);
            Ok(sent.into_iter().chain(windows.into_iter().flatten()).collect::<Vec<_>>())
        };
        let closed = join_all(closing.into_iter().map(|call| this.sent(call)));
        let (closed, emptied, others) = futures::join!(closed, emptied, others);
        closed.into_iter().chain(emptied).for_each(|sent| self.note(look, sent));
        match others {
            Ok(others) => others.into_iter().for_each(|sent| self.note(look, sent)),
            Err(error) => self.report.ledger = Some(error),
        }
        self.report.ledger.is_none()
    }

    async fn sent(&self, call: Call) -> Sent {
        let answer = if call.closes() { insist(self, &call).await } else { self.send(&call).await };
        (call, answer)
    }

    fn note(&mut self, look: &mut A::Look, (call, answer): Sent) {
        match answer {
            Ok(outcome) => {
                self.report.wrote = true;
                A::after(look, &call, &outcome);
                self.accepted.push(call);
            }
            Err(error) => {
                A::refused(look, &call);
                self.report.gapes |= call.closes();
                self.failed.push((call, error));
            }
        }
    }

    /// The verdict, with what failed on the way.
    fn conclude(&mut self, plan: Plan) {
        self.report.seen = true;
        self.report.verdict = plan.verdict;
        let in_force = self.report.verdict.state == ActionState::InForce;
        let moot = |call: &Call, e: &AwsError| in_force && (call.optional() || e.is_overtaken());
        let failed = || self.failed.iter().filter(|(call, e)| !moot(call, e)).map(|(_, e)| e);
        let errors: Vec<String> = failed().map(ToString::to_string).collect();
        if errors.is_empty() {
            return;
        }
        let ending = refused::verdict(&self.report.verdict, &self.failed, self.decision, self.told);
        if let (true, Some(verdict)) = (self.pass.releasing, ending) {
            self.report.verdict = verdict;
            return;
        }
        self.report.error = failed().next().cloned();
        let verdict = &mut self.report.verdict;
        if verdict.state == ActionState::InProgress {
            verdict.state = ActionState::Failed;
        }
        let so_far = std::mem::take(&mut verdict.message);
        verdict.message = [so_far].into_iter().filter(|t| !t.is_empty()).chain(errors).collect::<Vec<_>>().join("; ");
    }
}

impl<A: Action> Hand for Running<'_, A> {
    async fn send(&self, call: &Call) -> Result<Outcome, AwsError> {
        let Pass { session, actor, guard, releasing, .. } = self.pass;
        let waiting = self.pass.progress.queued(A::NAME, call.operation());
        let priority = priority(call, *releasing);
        match actor.act_told(session, self.region.as_deref(), call, guard, priority, &|| waiting.sent()).await {
            Err(error) => Err(quota::explained(session, call, error).await),
            done => done,
        }
    }

    fn insists(&self, call: &Call) -> Option<Waiting<'_>> {
        Some(self.pass.progress.waiting(A::NAME, call.operation()))
    }
}

fn priority(call: &Call, releasing: bool) -> Priority {
    match call {
        _ if call.closes() => Priority::Close,
        _ if call.opens() => Priority::Convert,
        _ if releasing => Priority::Release,
        _ => Priority::Contain,
    }
}

/// Whether a second look must show the same: where it ends in what a person decides, or has decided, or in what AWS does not show.
/// The record goes with a release, and one answer may be late, or of before.
fn is_seen_twice(releasing: bool, verdict: &Verdict, failed: &[Refused]) -> bool {
    verdict.state == ActionState::Conflict || (releasing && (verdict.absent || refused::ends(verdict, failed)))
}

impl Report {
    /// Whether it is given back, and read back so.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.seen && self.error.is_none() && self.verdict.state == ActionState::Released
    }

    /// An action that could not even be looked at.
    #[must_use]
    pub fn unseen(name: &'static str, error: AwsError) -> Self {
        Self { error: Some(error), under_way: false, ..Self::under_way(name, "") }
    }

    /// An action that is not ended yet, and was not looked at.
    #[must_use]
    pub fn under_way(name: &'static str, message: &str) -> Self {
        let verdict = Verdict::new(ActionState::InProgress, message);
        Self {
            name,
            verdict,
            error: None,
            seen: false,
            under_way: true,
            wrote: false,
            open: false,
            gapes: false,
            ledger: None,
        }
    }

    /// What came of an action that was carried out twice in one pass. What the second could not look at stands as the first left it. What
    /// it found undone after the first had written, and left in force, may be an answer of before that write: nobody is blamed.
    #[must_use]
    pub fn then(self, second: Self) -> Self {
        let blind = !second.seen && !second.open && second.ledger.is_none();
        let late = self.wrote && second.seen && second.verdict.state == ActionState::InForce;
        let known = &self.verdict.drift;
        let more: Vec<String> = second.verdict.drift.iter().filter(|d| !late && !known.contains(d)).cloned().collect();
        let drift = [known.clone(), more].concat();
        let (wrote, open) = (self.wrote || second.wrote, self.open || (second.open && !late));
        let last = if blind { self } else { second };
        let verdict = Verdict { drift, ..last.verdict };
        Self { verdict, wrote, open, ..last }
    }

    /// An action that waits until what another changes is on record: what stands in that one's way stands in its way too.
    #[must_use]
    pub fn waits(name: &'static str, other: &Self) -> Self {
        let message = format!("it waits until what {} changes is on record", other.name);
        let verdict = Verdict::new(ActionState::InProgress, message);
        Self {
            name,
            verdict,
            error: other.error.clone(),
            seen: true,
            under_way: false,
            ledger: other.ledger.clone(),
            ..Self::under_way(name, "")
        }
    }

    fn of<A: Action>() -> Self {
        Self { under_way: false, ..Self::under_way(A::NAME, "") }
    }
}

/// What `run` would do: the same look and the same plans, with the action's model in the place of AWS.
///
/// # Errors
/// When AWS cannot be read.
pub async fn dry_run<A: Action>(aws: &Session, case: &Case, params: &A::Params) -> Result<DryRun, AwsError> {
    let mut case = case.clone();
    let mut look = A::look(aws, &case, Some(params)).await?;
    let first = A::next(&case, Some(params), &look);
    if !first.record.is_empty() {
        note(&mut case, &first);
        look = A::look(aws, &case, Some(params)).await?; // what is read depends on what is recorded
    }
    let (mut calls, mut trusted) = (Vec::new(), false);
    for _ in 0..STEPS {
        let plan = A::next(&case, Some(params), &look);
        if plan.is_done() && plan.verdict.state != ActionState::InForce && !trusted {
            A::trust(&mut look); // it may wait for another action
            trusted = true;
            continue;
        }
        if plan.is_done() {
            let problem =
                (plan.verdict.state == ActionState::Failed || plan.verdict.unknown).then_some(plan.verdict.message);
            return Ok(DryRun { calls, problem });
        }
        note(&mut case, &plan);
        let windows = plan.windows.into_iter().flat_map(|window| [window.open, window.close]);
        for call in plan.calls.into_iter().chain(windows) {
            calls.push(call.to_string());
            A::after(&mut look, &call, &expected(&call));
        }
        A::trust(&mut look);
    }
    Ok(DryRun { calls, problem: Some("the plan does not end".into()) })
}

fn note(case: &mut Case, plan: &Plan) {
    let texts: BTreeMap<String, Text> = plan.record.iter().map(|(k, v)| (k.clone(), Text(v.to_string()))).collect();
    case.stored.extend(texts.keys().cloned());
    case.original.extend(texts.into_iter().map(|(k, v)| (k, v.0)));
    for (interface, state) in &plan.conversions {
        case.conversions.retain(|c| c.interface_id != *interface);
        let since = clock::time(Timestamp::UNIX_EPOCH);
        case.conversions.push(Conversion { interface_id: interface.clone(), state: *state, since });
    }
}

/// What AWS would answer.
fn expected(call: &Call) -> Outcome {
    match call {
        Call::CreateSecurityGroup { role, .. } => Outcome::Created(format!("(new {})", role.group_name())),
        _ => Outcome::Done,
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
