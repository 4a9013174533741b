//! The Quarantine controller: makes AWS match for one resource, keeps it so, and gives it back when nobody holds it.

mod again;
mod finish;
mod holders;
mod order;
mod report;
mod round;
mod telling;

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebreak_crds::conditions::RELEASED;
use firebreak_crds::{ActionState, AwsAccount, FINALIZER, Quarantine, QuarantineStatus, Resource, get_condition};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use tracing::warn;

pub use self::report::NAME_TAKEN;
use self::report::{CopySeen, Seen};
use self::telling::Meanwhile;
use super::{
    Ctx, Error, account_of, is_abandoned, kube, reconcile_requested, set_finalizer, terminating_crds, to_be_released,
    write_status,
};
use crate::aws::{AwsError, Guard, Session};
use crate::clock;
use crate::containment::{
    Adopted, Adoption, Case, Keys, Ledger, LedgerError, Pass, Progress, REVOKE_INSTANCE_ROLE, Report, SecondCopy,
    TAG_RESOURCE, Wanted, Whereabouts, beside, wanted,
};
use crate::memory::{Memo, Untold, next_sweep};
use crate::stores::Stores;

/// While a release waits for AWS, a pass follows the other within a second: what waits for its stage is looked at so often.
const KEPT: Duration = Duration::from_secs(5);

/// Reconciles one Quarantine.
///
/// # Errors
/// Where the API server must be asked again; what AWS says goes into conditions.
pub async fn reconcile(quarantine: Arc<Quarantine>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    if !quarantine.finalizers().iter().any(|f| f == FINALIZER) {
        ctx.memory.forget(&quarantine.uid().unwrap_or_default());
        ctx.metrics.forget(&quarantine.name_any());
        return Ok(Action::await_change());
    }
    let api = Api::<Quarantine>::all(ctx.client.clone());
    if is_abandoned(&*quarantine) && quarantine.metadata.deletion_timestamp.is_some() {
        warn!(quarantine = %quarantine.name_any(), "abandoned on request: AWS is left as it is");
        set_finalizer(&api, &quarantine, false).await?;
        return Ok(Action::await_change());
    }
    let account = Stores::named(&ctx.stores.accounts, &quarantine.spec.resource.account_ref.name);
    let (uid, basis) = (quarantine.uid().unwrap_or_default(), basis(&quarantine, account.as_deref()));
    if let Some(wait) = ctx.memory.not_due(&uid, &basis) {
        return Ok(Action::requeue(wait));
    }
    let quarantine = holders::retain_orphans(&ctx, &api, (*quarantine).clone()).await?;
    Box::pin(Turn { ctx: &ctx, api, uid, account }.take(quarantine)).await
}

/// What a reconcile rests on: while this is the same, nothing is done before the next look is due.
fn basis(quarantine: &Quarantine, account: Option<&AwsAccount>) -> String {
    let ready = account.and_then(|a| a.status.as_ref()).is_some_and(|s| firebreak_crds::is_true(&s.conditions, "Ready"));
    format!(
        "{:?} {:?} {:?} {:?} {ready}",
        quarantine.metadata.generation,
        quarantine.metadata.deletion_timestamp.is_some(),
        reconcile_requested(quarantine),
        account.and_then(|a| a.metadata.generation),
    )
}

/// One reconcile of one Quarantine.
struct Turn<'a> {
    ctx: &'a Ctx,
    api: Api<Quarantine>,
    uid: String,
    account: Option<Arc<AwsAccount>>,
}

impl Turn<'_> {
    async fn take(&self, quarantine: Quarantine) -> Result<Action, Error> {
        let releasing = self.releasing(&quarantine).await?;
        let before = self.ctx.memory.of(&self.uid);
        let lags = self.ctx.memory.lags(&self.uid) && before.untold.is_empty();
        let mut meanwhile = self.meanwhile(&quarantine, releasing, lags, &before);
        let Carried { mut reports, quarantine, copy, adopted } = Box::pin(self.carry_out(quarantine, &mut meanwhile)).await;
        if let Some(adopted) = adopted {
            report::publish_adopted(&self.ctx.events, &quarantine, &adopted).await;
            return Err(Error::Changed(quarantine.name_any())); // there may be more to carry out than this pass knew of
        }
        let untold = before.untold.clone();
        let memo = Memo { untold: Vec::new(), ..self.remember(&quarantine, &reports, before) };
        recall(&mut reports, untold);
        let open = if lags { Vec::new() } else { drifts(&reports) };
        self.ctx.memory.set(&self.uid, Memo { untold: open, ..memo.clone() }); // whatever becomes of this pass
        if reports.iter().any(|r| r.ledger == Some(LedgerError::Changed)) {
            return Err(Error::Changed(quarantine.name_any()));
        }
        let unseen_for = memo.seen.elapsed();
        let seen = Seen { unseen_for, reports, copy, ..meanwhile.seen.clone() };
        let acted = quarantine.clone();
        let quarantine = self.tell(quarantine, &meanwhile, &seen).await?;
        self.ctx.memory.end(&self.uid);
        if releasing && seen.released() {
            let said = quarantine.status.as_ref().and_then(|s| get_condition(&s.conditions, RELEASED));
            self.ctx.memory.released(&quarantine.name_any(), said.map(|c| c.message.clone()).unwrap_or_default());
            let (renamed, reports) = (seen.renamed.as_deref(), &seen.reports);
            let finished = finish::Finished { quarantine: &quarantine, renamed, reports };
            finish::finish(self.ctx, &self.api, &finished, self.account.as_deref()).await?;
            self.ctx.memory.forget(&self.uid);
            return Ok(Action::await_change());
        }
        let wait = self.next(&quarantine, &seen, &memo);
        let basis = basis(&acted, self.account.as_deref());
        self.ctx.memory.set(&self.uid, Memo { basis, due: Instant::now() + wait, ..memo });
        Ok(Action::requeue(wait))
    }

    /// Whether to give back. A Quarantine that goes with its CRD is kept: nobody decided to release it.
    async fn releasing(&self, quarantine: &Quarantine) -> Result<bool, Error> {
        if !to_be_released(quarantine) {
            return Ok(false);
        }
        if quarantine.spec.holders.is_empty() && quarantine.metadata.deletion_timestamp.is_none() {
            return Ok(true);
        }
        Ok(terminating_crds(&self.ctx.client).await?.is_empty())
    }

    /// What a status in the middle of the pass rests on.
    fn meanwhile(&self, quarantine: &Quarantine, releasing: bool, lags: bool, before: &Memo) -> Meanwhile {
        let seen = Seen {
            releasing,
            suspended: quarantine.spec.suspend,
            lags,
            interval: self.ctx.drift_interval,
            unseen_for: before.seen.elapsed(),
            ..Seen::default()
        };
        let looks = quarantine.spec.resource.region.is_none() || has_role(wanted_of(quarantine).iter().map(Wanted::name));
        Meanwhile { before: self.ctx.memory.begin(&self.uid, quarantine.status.clone()), seen, looks }
    }

    /// All actions, or in the stages of a release; the mark last, when the others are through. `meanwhile` learns under which name a user is
    /// there, and who else has the old one.
    async fn carry_out(&self, quarantine: Quarantine, meanwhile: &mut Meanwhile) -> Carried {
        let releasing = meanwhile.seen.releasing;
        let wanted = wanted_of(&quarantine);
        let session = match self.session(&quarantine.spec.resource).await {
            Ok(session) => session,
            Err(error) => return Carried::blind(&wanted, &error, quarantine),
        };
        let keys = Keys::read(self.ctx.mac_key_file.as_deref()).await;
        let case = Case::of(&quarantine, &session.partition, clock::now());
        let (whereabouts, impostor) = match Whereabouts::of(&case, &session, releasing).await {
            Ok(found) => found,
            Err(error) => return Carried::blind(&wanted, &error, quarantine),
        };
        (meanwhile.seen.renamed, meanwhile.seen.impostor) = (whereabouts.renamed(&case).map(str::to_owned), impostor);
        let meanwhile = &*meanwhile;
        let (name, uid, suspended) = (quarantine.name_any(), self.uid.clone(), quarantine.spec.suspend);
        let beside = beside(&quarantine, || self.ctx.stores.quarantines.state());
        let (ledger, adoption) = (Ledger::new(self.api.clone(), quarantine), Adoption::new(keys.clone()));
        let (actor, session, records) = (&self.ctx.actor, &*session, &ledger);
        let pass = |releasing, guard| {
            let (beside, whereabouts, progress) = (beside.clone(), whereabouts.clone(), Progress::default());
            let (ledger, adoption) = (records, &adoption);
            Pass { session, actor, ledger, adoption, releasing, suspended, guard, beside, whereabouts, progress }
        };
        let holding = pass(false, Guard::StillHeld { name: name.clone(), uid: uid.clone() });
        let releases = pass(true, Guard::StillToRelease { name, uid });
        let mut reports = if releasing {
            order::give_back(&wanted, &releases, &holding, || self.ctx.memory.keeps(&self.uid, KEPT)).await
        } else {
            order::contain(&wanted, &holding, meanwhile).await
        };
        let held = |r: &Report| r.seen && !matches!(r.verdict.state, ActionState::InProgress | ActionState::Conflict);
        let through = reports.iter().all(|r| if releasing { r.is_released() } else { held(r) });
        let pass = if releasing { releases } else { holding };
        let all = reports.len() == wanted.len() && !wanted.is_empty();
        let digest = async || copy_digest(&ledger.latest().await, &session.partition, &keys);
        let mark = mark(&ledger.latest().await, releasing, digest().await.as_ref(), &keys);
        if let (true, true, Some(mark)) = (through, all, mark) {
            let marked = Box::pin(order::mark(&mark, &reports, &pass, meanwhile)).await;
            reports.extend(marked);
        }
        let copy = CopySeen { digest: digest().await, refused: adoption.refused().map(str::to_owned) };
        Carried { reports, quarantine: ledger.latest().await, copy, adopted: adoption.done().cloned() }
    }

    async fn session(&self, resource: &Resource) -> Result<Arc<Session>, AwsError> {
        self.ctx.accounts.session(account_of(resource, self.account.as_deref())?).await
    }

    fn remember(&self, quarantine: &Quarantine, reports: &[Report], before: Memo) -> Memo {
        let now = Instant::now();
        let all_seen = !reports.is_empty() && reports.iter().all(|r| r.seen);
        if all_seen {
            self.ctx.metrics.looked(&quarantine.name_any(), clock::now());
        }
        Memo {
            changed: if reports.iter().any(|r| r.wrote) { now } else { before.changed },
            seen: if all_seen { now } else { before.seen },
            ..before
        }
    }

    /// Writes the status where it changed, and the events that go with it: since the pass began, whatever was told in the middle.
    async fn tell(&self, quarantine: Quarantine, meanwhile: &Meanwhile, seen: &Seen) -> Result<Quarantine, Error> {
        let before = meanwhile.of_before(&quarantine);
        let status = meanwhile.status_at(&quarantine, seen, clock::now());
        for drifted in seen.drifted(&before) {
            self.ctx.metrics.drift(drifted.name);
        }
        if before.status.as_ref() == Some(&status) && quarantine.status == before.status {
            return Ok(quarantine);
        }
        // what was told in the middle of the pass was told without events
        let told = quarantine.status.as_ref() == Some(&status);
        let written = if told { quarantine } else { self.write(&quarantine, status).await? };
        report::publish(&self.ctx.events, &before, &written, seen).await;
        Ok(written)
    }

    /// What was seen must not be lost because somebody changed the spec meanwhile: the status still says of which generation
    /// it speaks.
    async fn write(&self, quarantine: &Quarantine, status: QuarantineStatus) -> Result<Quarantine, Error> {
        let next = Quarantine { status: Some(status), ..quarantine.clone() };
        match write_status(&self.api, &next).await {
            Err(Error::Changed(_)) => {}
            result => return result,
        }
        let live = kube("read a Quarantine", self.api.get(&quarantine.name_any())).await?;
        if live.uid() != quarantine.uid() {
            return Err(Error::Changed(quarantine.name_any()));
        }
        write_status(&self.api, &Quarantine { status: next.status, ..live }).await
    }

    /// When to look again: soon while something is open, after a change at growing distances, else with the next sweep.
    fn next(&self, quarantine: &Quarantine, seen: &Seen, memo: &Memo) -> Duration {
        let sweep = next_sweep(self.ctx.drift_interval, clock::now());
        let retry = seen.reports.iter().filter_map(|r| again::retry_after(quarantine, r)).min();
        let iam = quarantine.spec.resource.region.is_none() || has_role(seen.reports.iter().map(|r| r.name));
        let look = if iam { memo.next_look() } else { None };
        // What failed may be tried again later than that; what is in force is watched all the same.
        retry.into_iter().chain(look).fold(sweep, Duration::min)
    }
}

fn wanted_of(quarantine: &Quarantine) -> Vec<Wanted> {
    wanted(&quarantine.spec.holders, quarantine.spec.original.iter().flat_map(|o| o.keys()))
}

/// Whether one of these actions changes IAM, though the resource is none of IAM's.
fn has_role(mut actions: impl Iterator<Item = &'static str>) -> bool {
    actions.any(|name| name == REVOKE_INSTANCE_ROLE)
}

/// What was changed by somebody, to be told later where it cannot be told now.
fn drifts(reports: &[Report]) -> Vec<Untold> {
    let drifted = reports.iter().filter(|r| !r.verdict.drift.is_empty());
    drifted.map(|r| Untold { action: r.name, drift: r.verdict.drift.clone(), open: r.open }).collect()
}

/// What an earlier pass put back and could not tell is told with this one.
fn recall(reports: &mut [Report], untold: Vec<Untold>) {
    for Untold { action, drift, open } in untold {
        for report in reports.iter_mut().filter(|r| r.name == action && r.verdict.drift.is_empty()) {
            report.verdict.drift.clone_from(&drift);
            (report.open, report.wrote) = (open, true);
        }
    }
}

/// What came of one pass.
struct Carried {
    reports: Vec<Report>,
    quarantine: Quarantine,
    copy: CopySeen,
    /// The record that the pass found in tags.
    adopted: Option<Adopted>,
}

impl Carried {
    /// AWS could not be reached at all.
    fn blind(wanted: &[Wanted], error: &AwsError, quarantine: Quarantine) -> Self {
        let reports = wanted.iter().map(|w| Report::unseen(w.name(), error.clone())).collect();
        Self { reports, quarantine, copy: CopySeen::default(), adopted: None }
    }
}

/// The marks and the copy are put once, and again where the copy is to be another; at release they are taken away. On what can
/// carry them.
fn mark(quarantine: &Quarantine, releasing: bool, digest: Option<&String>, keys: &Keys) -> Option<Wanted> {
    if !quarantine.spec.resource.kind.has_tags() {
        return None;
    }
    let status = quarantine.status.as_ref();
    let there = report::was(quarantine, TAG_RESOURCE) == Some(ActionState::InForce);
    let same = status.is_some_and(|s| s.observed_copy.as_ref() == digest);
    (releasing || !there || !same).then(|| Wanted::TagResource(keys.clone()))
}

fn copy_digest(quarantine: &Quarantine, partition: &str, keys: &Keys) -> Option<String> {
    let has_tags = quarantine.spec.resource.kind.has_tags();
    has_tags.then(|| SecondCopy::of(&Case::of(quarantine, partition, clock::now())).digest(keys)).flatten()
}
