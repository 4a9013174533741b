//! The loop that every action goes through: look, plan (pure), record, act, and look again to verify.
//!
//! Between the calls of a chain nothing is read: the action's own model says what each call does. Only the end is verified
//! by reading. A call that failed is not repeated in the same pass, but for one that closes; the others go on.

use std::time::Duration;

use firebreak_crds::{ActionState, OnConflict};
use futures::FutureExt;
use futures::future::join_all;
use tokio::time::timeout;

use super::action::Action;
use super::adopt::{Adopting, Adoption};
use super::beside::Beside;
use super::case::Case;
use super::ledger::Ledger;
use super::plan::{Plan, Verdict};
use super::progress::{Progress, Waiting};
use super::quota;
use super::refused::{self, Refused};
use super::report::Report;
use super::whereabouts::Whereabouts;
use super::window::{Hand, Sent, insist, pass_through};
use crate::aws::{Actor, AwsError, Call, Guard, Outcome, Priority, Session};

/// More steps than any chain needs: a plan that never ends is a defect, and the next pass takes it up again.
pub(super) const STEPS: usize = 24;
/// Two reads of a conflict, or of what is gone, must agree, this far apart.
const CONFIRM: Duration = Duration::from_secs(2);
/// So long the rules in a group of ours stay there at most, for what is in it to be on record as open: it is converted then, also by the
/// process after this one.
const HEADSTART: Duration = Duration::from_secs(2);

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
        self.report.error.clone_from(&self.report.verdict.unread);
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
        Call::AssociatePublicIpAddress { .. } | Call::SetIdleTimeouts { .. } => Priority::Narrow,
        _ => Priority::Contain,
    }
}

/// Whether a second look must show the same: where it ends in what a person decides, or has decided, or in what AWS does not show.
/// The record goes with a release, and one answer may be late, or of before.
fn is_seen_twice(releasing: bool, verdict: &Verdict, failed: &[Refused]) -> bool {
    verdict.state == ActionState::Conflict || (releasing && (verdict.absent || refused::ends(verdict, failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_neither_asks_a_person_nor_ends_a_release() {
        let released = |absent| Verdict { absent, ..Verdict::new(ActionState::Released, "") };
        for (releasing, verdict, twice) in [
            (true, released(false), false),
            (true, released(true), true),
            (true, Verdict::new(ActionState::Conflict, ""), true),
            (true, Verdict::new(ActionState::InProgress, ""), false),
            (false, Verdict { absent: true, ..Verdict::new(ActionState::InForce, "") }, false),
        ] {
            assert_eq!(is_seen_twice(releasing, &verdict, &[]), twice, "{verdict:?}");
        }
    }
}
