//! The status of a Quarantine: every condition decided here, once, from what was observed. Pure, but for the events.

mod contested;

use std::time::Duration;

use firebreak_crds::conditions::{CONTAINED, DRIFT_DETECTED, READY, RECONCILING, RELEASED, STALLED};
use firebreak_crds::{ActionState, ActionStatus, Holder, HolderState, Quarantine, QuarantineStatus, get_condition, is_true};
use k8s_openapi::jiff::Timestamp;

use crate::aws::{Class, Principal};
use crate::clock;
use crate::conditions::{Conditions, bounded};
use crate::containment::{Adopted, LedgerError, Report, TAG_RESOURCE, asked_of, holds_digest, problems_of_given};
use crate::controllers::{held_again, reconcile_requested};
use crate::events::{self, Events};

/// So long without drift, and containment counts as enforced: IAM enforces late.
const SETTLED: Duration = Duration::from_mins(1);

const CONTESTED: &str = "Contested";
/// The reason where another user has the name of the contained one: who is declared under that name is not contained.
pub const NAME_TAKEN: &str = "NameTaken";

const SUSPENDED: &str = "suspended (spec.suspend): nothing is written to AWS, but to close an interface that a conversion left open, and \
     nothing is repaired";

/// What a pass saw.
#[derive(Clone, Default)]
pub struct Seen {
    /// Whether the pass gave back.
    pub releasing: bool,
    /// Whether nothing may be written to AWS, but what closes an interface.
    pub suspended: bool,
    /// Whether the last write was so recent that reads may lag behind it.
    pub lags: bool,
    /// The drift interval.
    pub interval: Duration,
    /// How long AWS has not been seen.
    pub unseen_for: Duration,
    /// One per action.
    pub reports: Vec<Report>,
    /// The copy of the record in the resource's tags.
    pub copy: CopySeen,
    /// The name of a user that has another now than the one under which it was contained.
    pub renamed: Option<String>,
    /// The unique id of another user, who has the name under which it was contained.
    pub impostor: Option<String>,
}

/// What a pass saw of the copy of the record.
#[derive(Clone, Debug, Default)]
pub struct CopySeen {
    /// What is to be copied, in short.
    pub digest: Option<String>,
    /// Why one that is there was not believed.
    pub refused: Option<String>,
}

impl Seen {
    /// Whether everything is given back, and read back so.
    pub fn released(&self) -> bool {
        self.reports.iter().all(Report::is_released)
    }

    /// The actions in force that somebody undid. Reads that contradict our own recent write are AWS's lag, not drift; and what
    /// was never achieved, though the action is in force without it, was undone by nobody.
    pub fn drifted<'a>(&'a self, quarantine: &'a Quarantine) -> impl Iterator<Item = &'a Report> {
        let in_force = move |r: &&Report| before(quarantine, r.name).is_some_and(was_in_force);
        let counts = !self.lags && !self.releasing;
        let undone = |r: &&Report| r.wrote || r.verdict.state != ActionState::InForce;
        self.reports.iter().filter(move |r| counts && !r.verdict.drift.is_empty()).filter(in_force).filter(undone)
    }

    /// The actions that somebody put out of force. However soon after our own write: that had been read back.
    fn undone<'a>(&'a self, quarantine: &'a Quarantine) -> impl Iterator<Item = &'a Report> {
        let counts = !self.releasing;
        let undone = move |r: &&Report| counts && r.open && !r.verdict.drift.is_empty();
        self.reports.iter().filter(undone).filter(|r| before(quarantine, r.name).is_some_and(was_in_force))
    }

    /// Whether AWS has not been seen for too long to say anything.
    fn blind(&self) -> bool {
        self.unseen_for > self.interval * 3
    }
}

fn was_in_force(action: &ActionStatus) -> bool {
    matches!(action.state, ActionState::InForce | ActionState::Contested)
}

fn before<'a>(quarantine: &'a Quarantine, action: &str) -> Option<&'a ActionStatus> {
    quarantine.status.as_ref()?.actions.iter().find(|a| a.name == action)
}

/// How an action stood when it was last told.
pub fn was(quarantine: &Quarantine, action: &str) -> Option<ActionState> {
    before(quarantine, action).map(|a| a.state)
}

/// The status that says what was seen.
pub fn status(quarantine: &Quarantine, seen: &Seen, now: Timestamp) -> QuarantineStatus {
    let previous = quarantine.status.clone().unwrap_or_default();
    let actions = actions(quarantine, seen, now);
    let drift: Vec<String> = seen.drifted(quarantine).flat_map(|r| r.verdict.drift.clone()).collect();
    let repaired = seen.drifted(quarantine).filter(|r| r.wrote).flat_map(|r| &r.verdict.drift).count();
    let observed_holds = observed_holds(quarantine, seen);
    let current = observed_holds.as_ref() == Some(&holds_digest(&quarantine.spec.holders));
    let in_force = current && all_in_force(&actions) && !seen.releasing;
    let unbroken = drift.is_empty() && seen.undone(quarantine).next().is_none();
    let in_force_since = match (&previous.in_force_since, in_force, unbroken) {
        (_, false, _) => None,
        (Some(since), true, true) => Some(since.clone()),
        _ => Some(clock::time(now)),
    };
    let mut status = QuarantineStatus {
        observed_generation: quarantine.metadata.generation,
        conditions: Vec::new(),
        last_handled_reconcile_at: reconcile_requested(quarantine),
        observed_holds,
        observed_copy: if marked(seen) { seen.copy.digest.clone() } else { previous.observed_copy },
        actions,
        drift_count: previous.drift_count + i64::try_from(repaired).unwrap_or_default(),
        in_force_since,
    };
    status.conditions = conditions(quarantine, seen, &status, &drift, now);
    status
}

/// The holds that this status speaks of: those of now where every action was looked at, else still those of before. An action
/// that could not be looked at is shown as it stood, and that was before somebody asked for more.
fn observed_holds(quarantine: &Quarantine, seen: &Seen) -> Option<String> {
    if reported(seen).all(|r| r.seen) {
        return Some(holds_digest(&quarantine.spec.holders));
    }
    quarantine.status.as_ref().and_then(|s| s.observed_holds.clone())
}

/// Whether the marks and the copy are as this pass would have them.
fn marked(seen: &Seen) -> bool {
    let mark = seen.reports.iter().find(|r| r.name == TAG_RESOURCE);
    mark.is_some_and(|r| r.seen && r.verdict.state == ActionState::InForce)
}

fn actions(quarantine: &Quarantine, seen: &Seen, now: Timestamp) -> Vec<ActionStatus> {
    let mut list: Vec<ActionStatus> = seen.reports.iter().map(|r| action(quarantine, seen, r, now)).collect();
    let untouched =
        quarantine.status.iter().flat_map(|s| &s.actions).filter(|a| !seen.reports.iter().any(|r| r.name == a.name));
    list.extend(untouched.cloned());
    list.iter_mut().for_each(|a| a.wanted = asked_of(&quarantine.spec.holders, &a.name));
    list
}

/// An action that could not be looked at stands where it stood, until that is too long ago; but not one that was seen undone, or of
/// which something new could not be recorded.
fn action(quarantine: &Quarantine, seen: &Seen, report: &Report, now: Timestamp) -> ActionStatus {
    let before = before(quarantine, report.name);
    let ended = report.error.is_none() && !report.under_way;
    let undone = !report.verdict.drift.is_empty() || (report.open && !seen.releasing);
    let shown = report.seen || ended || report.ledger.is_some() || undone;
    if let (false, false, Some(before)) = (shown, seen.blind(), before) {
        return before.clone();
    }
    let (state, message) = match (report.seen, &report.error, &report.ledger) {
        (true, _, _) => (report.verdict.state, report.verdict.message.clone()),
        (false, _, Some(ledger)) => (ActionState::Failed, ledger.to_string()),
        (false, Some(error), None) => (ActionState::Failed, error.to_string()),
        (false, None, None) if report.under_way => (ActionState::InProgress, report.verdict.message.clone()),
        (false, None, None) => (ActionState::InProgress, "not finished in this pass".into()),
    };
    let undone = contested::undone(quarantine, seen, report, now);
    let (state, message) = match contested::again_and_again(&undone) {
        Some(what) if state == ActionState::InForce => (ActionState::Contested, contested::message(&message, what)),
        _ if seen.suspended && state == ActionState::InProgress => (ActionState::Planned, message),
        _ => (state, message),
    };
    let since = before.filter(|b| b.state == state).map_or_else(|| clock::time(now), |b| b.since.clone());
    ActionStatus { name: report.name.into(), wanted: None, state, since, message: bounded(message, 2000), undone }
}

/// The mark counts for nothing.
fn counted(actions: &[ActionStatus]) -> impl Iterator<Item = &ActionStatus> {
    actions.iter().filter(|a| a.name != TAG_RESOURCE)
}

fn all_in_force(actions: &[ActionStatus]) -> bool {
    counted(actions).next().is_some() && counted(actions).all(|a| a.state == ActionState::InForce)
}

fn conditions(
    quarantine: &Quarantine,
    seen: &Seen,
    status: &QuarantineStatus,
    drift: &[String],
    now: Timestamp,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let previous = quarantine.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let mut c = Conditions::new(&previous, quarantine.metadata.generation, now);
    let settled = status.in_force_since.as_ref().is_some_and(|since| clock::since(since.0, now) >= SETTLED);
    let (contained, reason) = contained(seen, status, settled);
    let said = said(quarantine, seen, &status.actions);
    c.set(CONTAINED, contained, reason, &*said);
    match (drift.is_empty(), settled) {
        (false, _) if seen.drifted(quarantine).all(|r| r.wrote) => {
            c.set(DRIFT_DETECTED, "True", "Repaired", format!("put back: {}", drift.join("; ")));
        }
        (false, _) => c.set(DRIFT_DETECTED, "True", "NotRepaired", format!("not put back: {}", drift.join("; "))),
        (true, true) if get_condition(&previous, DRIFT_DETECTED).is_some() => c.set(DRIFT_DETECTED, "False", "NoDrift", ""),
        _ => c.keep(DRIFT_DETECTED),
    }
    if seen.releasing {
        let (value, reason) = if seen.released() { ("True", "Released") } else { ("False", "Releasing") };
        c.set(RELEASED, value, reason, &*said);
    }
    ready(&mut c, quarantine, seen, contained, reason, &said);
    c.done()
}

fn contained(seen: &Seen, status: &QuarantineStatus, settled: bool) -> (&'static str, &'static str) {
    match () {
        () if seen.releasing && seen.released() => ("False", "Released"),
        () if seen.releasing && first_problem(seen) == Some("ReleaseConflict") => ("False", "ReleaseConflict"),
        () if seen.releasing => ("False", "Releasing"),
        () if counted(&status.actions).next().is_none() => ("False", "NothingToDo"),
        () if seen.blind() => ("Unknown", "NotObserved"),
        () if seen.impostor.is_some() => ("False", NAME_TAKEN),
        () if is_contested(status) => ("False", CONTESTED),
        () if status.in_force_since.is_some() && settled => ("True", "Enforced"),
        () if status.in_force_since.is_some() => ("True", "Enforcing"),
        () => ("False", first_problem(seen).unwrap_or(if seen.suspended { "Suspended" } else { "Containing" })),
    }
}

fn is_contested(status: &QuarantineStatus) -> bool {
    counted(&status.actions).any(|a| a.state == ActionState::Contested)
}

/// One word for what stands in the way, first of all for what a person must end; None while calls are merely under way.
fn first_problem(seen: &Seen) -> Option<&'static str> {
    let problem = |r: &Report| match (r.verdict.state, &r.error, &r.ledger) {
        (_, _, Some(_)) => Some("NotRecorded"),
        (_, Some(error), _) => Some(error.class.reason()),
        (ActionState::Conflict, ..) => Some("ReleaseConflict"),
        (ActionState::Failed, ..) => Some("NotContained"),
        _ if r.verdict.unknown => Some("OriginalUnknown"),
        _ => None,
    };
    let theirs = reported(seen).filter(|r| needs_a_person(r)).find_map(problem);
    theirs.or_else(|| reported(seen).find_map(problem))
}

fn reported(seen: &Seen) -> impl Iterator<Item = &Report> {
    seen.reports.iter().filter(|r| r.name != TAG_RESOURCE)
}

fn said(quarantine: &Quarantine, seen: &Seen, actions: &[ActionStatus]) -> String {
    let mut lines = lines(counted(actions).map(|a| (a.name.as_str(), a.message.as_str())));
    lines.extend(seen.impostor.as_ref().map(|id| {
        let was = Principal::of(&quarantine.spec.resource);
        format!("the name {was} is another user's now ({id}), who is not contained: delete or rename that one, or release this and declare {was} again")
    }));
    lines.extend(seen.renamed.as_ref().map(|name| {
        let was = Principal::of(&quarantine.spec.resource);
        format!("user {was} was renamed: it is {name} now, and everything is done to it there; find out who may call iam:UpdateUser")
    }));
    lines.extend(Adopted::of(quarantine).map(|adopted| adopted.to_string()));
    if lines.is_empty() && counted(actions).next().is_none() {
        lines.push("no holder's policy has an action for this kind of resource".into());
    }
    lines.extend(retained(quarantine));
    lines.extend(quarantine.spec.suspend.then(|| SUSPENDED.to_owned()));
    lines.join("; ")
}

/// What is held by nobody who is still there.
fn retained(quarantine: &Quarantine) -> Option<String> {
    let holders = &quarantine.spec.holders;
    let first = holders.first().filter(|_| holders.iter().all(|h| h.state == HolderState::Retained))?;
    let deleted = quarantine.metadata.deletion_timestamp.is_some(); // before it was held, or with its CRD
    let or = if deleted { "" } else { ", or this Quarantine is deleted" };
    Some(format!(
        "retained: Incident {}/{} was deleted, and it stays contained until one of that name says mode: Release{or}",
        first.namespace, first.name
    ))
}

/// `names: message`, once for those that say the same.
fn lines<'a>(said: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut lines: Vec<(Vec<&str>, &str)> = Vec::new();
    for (name, message) in said.filter(|(_, message)| !message.is_empty()) {
        match lines.iter_mut().find(|(_, m)| *m == message) {
            Some((names, _)) => names.push(name),
            None => lines.push((vec![name], message)),
        }
    }
    lines.into_iter().map(|(names, message)| format!("{}: {message}", names.join(", "))).collect()
}

/// `Stalled` where a person must act, `Reconciling` where time will do.
fn ready(c: &mut Conditions<'_>, quarantine: &Quarantine, seen: &Seen, contained: &str, reason: &str, said: &str) {
    let blocked = quarantine.metadata.deletion_timestamp.is_some() && !seen.releasing;
    let problem = first_problem(seen);
    let problems: Vec<(&str, String)> = reported(seen).filter_map(|r| Some((r.name, problem_text(r)?))).collect();
    let errors = lines(problems.iter().map(|(name, text)| (*name, text.as_str())));
    let said_of_errors = errors.into_iter().chain(way_out(quarantine, seen, problem)).collect::<Vec<_>>();
    let message = if said_of_errors.is_empty() { said.to_owned() } else { said_of_errors.join("; ") };
    let given = problems_of_given(quarantine);
    match problem {
        _ if blocked => stalled(c, "DeletionBlocked", &deletion_blocked(quarantine)),
        _ if !given.is_empty() => {
            let message = [given.join("; "), message].into_iter().filter(|m| !m.is_empty()).collect::<Vec<_>>();
            stalled(c, "InvalidOriginal", &message.join("; "));
        }
        None if quarantine.spec.suspend && contained != "True" => stalled(c, "Suspended", &message),
        Some(problem) if reported(seen).any(needs_a_person) => stalled(c, problem, &message),
        None if [CONTESTED, NAME_TAKEN].contains(&reason) => stalled(c, reason, &message),
        None if contained == "True" => {
            c.set(READY, "True", if quarantine.spec.suspend { "Suspended" } else { reason }, said);
        }
        problem => {
            let reason = problem.unwrap_or(reason);
            c.set(READY, "False", reason, &*message);
            c.set(RECONCILING, "True", reason, message);
        }
    }
}

/// What a person can do about an original that is not known.
fn way_out(quarantine: &Quarantine, seen: &Seen, problem: Option<&str>) -> Vec<String> {
    let noted = quarantine.spec.original.iter().flat_map(|o| o.keys()).any(|key| key.ends_with("/unknown"));
    if !noted || !matches!(problem, Some("OriginalUnknown" | "ReleaseConflict")) {
        return Vec::new();
    }
    let say = "what was there can be said in spec.release.original, as docs/adoption.md shows".to_owned();
    seen.copy.refused.iter().cloned().chain([say]).collect()
}

fn problem_text(report: &Report) -> Option<String> {
    let ledger = report.ledger.as_ref().map(ToString::to_string);
    let error = report.error.as_ref().map(ToString::to_string);
    let verdict = matches!(report.verdict.state, ActionState::Failed | ActionState::Conflict) || report.verdict.unknown;
    ledger.or(error).or_else(|| verdict.then(|| report.verdict.message.clone()))
}

fn stalled(c: &mut Conditions<'_>, reason: &str, message: &str) {
    c.set(READY, "False", reason, message);
    c.set(STALLED, "True", reason, message);
}

fn needs_a_person(report: &Report) -> bool {
    match (&report.error, &report.ledger) {
        (_, Some(ledger)) => matches!(ledger, LedgerError::Pruned(_) | LedgerError::TooLong(_)),
        (Some(e), _) => matches!(e.class, Class::Denied | Class::Terminal | Class::NotFound),
        _ => report.verdict.unknown || matches!(report.verdict.state, ActionState::Failed | ActionState::Conflict),
    }
}

fn deletion_blocked(quarantine: &Quarantine) -> String {
    let holding: Vec<String> = quarantine
        .spec
        .holders
        .iter()
        .filter(|h| h.state == HolderState::Holding)
        .map(|h| format!("{}/{}", h.namespace, h.name))
        .collect();
    let later = quarantine.spec.holders.iter().find(|h| held_again(quarantine, h));
    if let (true, Some(Holder { namespace, name, .. })) = (holding.is_empty(), later) {
        return format!(
            "deleted before Incident {namespace}/{name} held it again, which is gone: an Incident of that name with mode: Release ends that hold. The resource stays contained"
        );
    }
    if holding.is_empty() {
        return "a CustomResourceDefinition of Firebreak is being deleted: that is no decision to release, so the resource stays contained; export what you need, then annotate with firebreak.dev/abandon: <uid> to let this object go without touching AWS".into();
    }
    format!("deleted, but held by {}: set mode: Release there. The resource stays contained", holding.join(", "))
}

/// Says on the Quarantine, and on each holder's Incident, where its record is from.
pub async fn publish_adopted(events: &Events, quarantine: &Quarantine, adopted: &Adopted) {
    let resource = &quarantine.spec.resource;
    for object in std::iter::once(events::reference(quarantine)).chain(quarantine.spec.holders.iter().map(events::holder)) {
        events.normal(&object, "Adopted", format!("{resource}: {adopted}")).await;
    }
}

/// What people see with `kubectl describe`, on the Quarantine and on each holder's Incident.
pub async fn publish(events: &Events, before: &Quarantine, now: &Quarantine, seen: &Seen) {
    let is = |q: &Quarantine, kind| q.status.as_ref().is_some_and(|s| is_true(&s.conditions, kind));
    let message = |kind| {
        now.status.as_ref().and_then(|s| get_condition(&s.conditions, kind)).map(|c| c.message.clone()).unwrap_or_default()
    };
    let on: Vec<_> = std::iter::once(events::reference(now)).chain(now.spec.holders.iter().map(events::holder)).collect();
    let resource = &now.spec.resource;
    let drift: Vec<String> = seen.drifted(before).flat_map(|r| r.verdict.drift.clone()).collect();
    let put_back = seen.drifted(before).all(|r| r.wrote);
    for object in &on {
        if is(now, CONTAINED) && !is(before, CONTAINED) {
            events.normal(object, "InForce", format!("{resource}: {}", message(CONTAINED))).await;
        }
        if !drift.is_empty() {
            let what = if put_back { "put back" } else { "not put back" };
            let note = format!("{resource}: somebody changed it, {what}: {}", drift.join("; "));
            events.warning(object, "DriftDetected", note).await;
        }
        if is(now, STALLED) && !is(before, STALLED) {
            let reason = now.status.as_ref().and_then(|s| get_condition(&s.conditions, STALLED)).map(|c| c.reason.clone());
            events
                .warning(object, reason.as_deref().unwrap_or("Stalled"), format!("{resource}: {}", message(STALLED)))
                .await;
        }
        if is(now, RELEASED) && !is(before, RELEASED) {
            let said = message(RELEASED);
            let note = if said.is_empty() { "given back".to_owned() } else { format!("given back; {said}") };
            events.normal(object, "Released", format!("{resource}: {note}")).await;
        }
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
