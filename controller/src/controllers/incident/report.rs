//! The status of an Incident: every condition decided here, once, from the Quarantines and the Evidence. Pure, but for the
//! events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firebreak_crds::conditions::{APPROVED, CONTAINED, EVIDENCE_PRESERVED, READY, RECONCILING, RELEASED, STALLED};
use firebreak_crds::{Evidence, Incident, IncidentStatus, Mode, Quarantine, ResidualDeny, TargetStatus, get_condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::resolve::{Refusal, Target};
use super::rows::{self, explained};
use super::{Notes, approval, evidence, gate, names_of};
use crate::conditions::{self, Conditions, counted};
use crate::controllers::evidence::is_complete;
use crate::controllers::{Ctx, reconcile_requested};
use crate::events::{self, Events};
use crate::stores::Stores;

/// Why a target is not contained although nobody need act: time will do.
pub const UNDER_WAY: [&str; 9] = [
    "Containing",
    "Resolving",
    "Releasing",
    "AwsUnreachable",
    "OutcomeUnknown",
    "NotObserved",
    "NotHeld",
    "NotLeading",
    gate::AWAITING_EVIDENCE,
];

/// So many targets are named in a condition.
const SHOWN: usize = 5;

/// What of the cluster the status rests on.
pub struct World {
    /// The Quarantines that this Incident speaks of.
    pub quarantines: BTreeMap<String, Arc<Quarantine>>,
    /// The evidence that its policy asks for: None where there is no such object yet.
    pub evidence: BTreeMap<String, Option<Arc<Evidence>>>,
    /// What releases that ended not long ago said, by Quarantine.
    pub said: BTreeMap<String, String>,
    /// The denies that outlive releases, with the accounts' names.
    pub residual: Vec<(String, ResidualDeny)>,
}

impl World {
    /// What is known now.
    pub fn of(ctx: &Ctx, incident: &Incident, targets: &[Target]) -> Self {
        let uid = incident.uid().unwrap_or_default();
        let its = ctx.stores.quarantines.state_filter(|q| q.spec.is_held_by(&uid) || q.spec.let_go_by.contains(&uid));
        let names: BTreeSet<String> = names_of(incident, &ctx.stores).chain(its.into_iter().map(|q| q.name_any())).collect();
        let said = names.iter().filter_map(|n| Some((n.clone(), ctx.memory.said(n)?))).collect();
        let quarantines =
            names.into_iter().filter_map(|n| Stores::named(&ctx.stores.quarantines, &n).map(|q| (n, q))).collect();
        let resolved = targets.iter().filter_map(|t| t.resolved.as_ref().ok());
        let wanted = resolved.flat_map(|r| evidence::wanted(incident, r)).map(|(name, _)| name);
        let there = ctx.stores.evidence.state().into_iter().filter(|e| e.spec.incident_ref.uid == uid);
        let mut all: BTreeMap<String, Option<Arc<Evidence>>> = there.map(|e| (e.name_any(), Some(e))).collect();
        for name in wanted {
            all.entry(name).or_default();
        }
        let accounts = ctx.stores.accounts.state();
        let denies = accounts
            .iter()
            .flat_map(|a| a.status.iter().flat_map(|s| &s.residual_denies).map(|d| (a.name_any(), d.clone())));
        Self { quarantines, evidence: all, said, residual: denies.collect() }
    }

    /// The Quarantines that the Incident holds.
    pub fn holds(&self, uid: &str) -> impl Iterator<Item = &Arc<Quarantine>> {
        self.quarantines.values().filter(move |q| q.spec.is_held_by(uid))
    }

    /// The Quarantines that the Incident has let go of, and that are still there.
    pub fn let_go(&self, uid: &str) -> impl Iterator<Item = &Arc<Quarantine>> {
        self.quarantines.values().filter(move |q| q.spec.let_go_by.iter().any(|by| by == uid))
    }
}

/// The status that says it all.
pub fn status(incident: &Incident, targets: &[Target], notes: &Notes, world: &World, now: Timestamp) -> IncidentStatus {
    let rows = rows::all(incident, targets, notes, world, now);
    let contained = rows.iter().filter(|t| t.contained == "True").count();
    let complete = world.evidence.values().flatten().filter(|e| is_complete(e)).count();
    let asked = world.evidence.len();
    let mut status = IncidentStatus {
        observed_generation: incident.metadata.generation,
        conditions: Vec::new(),
        last_handled_reconcile_at: reconcile_requested(incident),
        contained: Some(format!("{contained}/{}", rows.len())),
        evidence: (asked > 0).then(|| format!("{complete}/{asked}")),
        targets: rows,
        selectors: notes.selectors.clone(),
        plan: notes.plan.clone(),
        approval: notes.approval.as_ref().map(|a| a.status.clone()),
    };
    status.conditions = conditions(incident, notes, world, &status, now);
    status.targets = rows::shown(status.targets); // the conditions speak of all
    status
}

fn conditions(incident: &Incident, notes: &Notes, world: &World, status: &IncidentStatus, now: Timestamp) -> Vec<Condition> {
    let previous = incident.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let mut c = Conditions::new(&previous, incident.metadata.generation, now);
    let holds = world.holds(&incident.uid().unwrap_or_default()).next().is_some();
    let (contained, reason, mut message) = contained(incident, status, holds);
    message.extend(suspended(incident, world));
    c.set(CONTAINED, contained, &reason, &*message);
    if holds || incident.spec.mode == Mode::Contain || world.evidence.values().any(Option::is_some) {
        evidence_condition(&mut c, world);
    }
    approval::condition(&mut c, incident, notes.approval.as_ref());
    match incident.spec.mode {
        Mode::Release => release(&mut c, status, holds || notes.letting_go),
        Mode::Plan if !holds => plan(&mut c, notes, status),
        _ => ready(&mut c, incident, notes, status, contained, &reason, &message),
    }
    c.done()
}

fn contained(incident: &Incident, status: &IncidentStatus, holds: bool) -> (&'static str, String, String) {
    let (all, done) = (status.targets.len(), status.targets.iter().filter(|t| t.contained == "True").count());
    let worst = status
        .targets
        .iter()
        .find(|t| t.contained == "False")
        .or_else(|| status.targets.iter().find(|t| t.contained == "Unknown"));
    match worst {
        _ if incident.spec.mode == Mode::Plan && !holds => {
            ("False", "PlanOnly".into(), "nothing is held: mode is Plan".into())
        }
        _ if incident.spec.mode == Mode::Release => ("False", "Release".into(), "mode is Release".into()),
        None => {
            let settled = status.targets.iter().all(|t| t.reason == "Enforced");
            ("True", if settled { "Enforced" } else { "Enforcing" }.into(), format!("{done} of {all} targets contained"))
        }
        Some(t) => {
            let value = if t.contained == "Unknown" { "Unknown" } else { "False" };
            (value, t.reason.clone(), format!("{done} of {all} targets contained. {}", open(status)))
        }
    }
}

/// What somebody keeps Firebreak's hands off stays contained only as long as nobody else touches it.
fn suspended(incident: &Incident, world: &World) -> Option<String> {
    let names: Vec<String> = world
        .holds(&incident.uid().unwrap_or_default())
        .filter(|q| q.spec.suspend)
        .map(|q| q.spec.resource.to_string())
        .collect();
    (!names.is_empty()).then(|| format!(". Suspended, so nothing is repaired: {}", conditions::few(names, SHOWN)))
}

/// The targets that are not contained.
fn open(status: &IncidentStatus) -> String {
    let open: Vec<&TargetStatus> = status.targets.iter().filter(|t| t.contained != "True").collect();
    few(&open, |t| explained(t), " (status.targets)")
}

/// The first few, and how many more.
fn few<T>(all: &[T], said: impl Fn(&T) -> String, of: &str) -> String {
    let more = all.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = all.iter().take(SHOWN).map(said).collect();
    shown.extend((more > 0).then(|| format!("and {more} more{of}")));
    shown.join("; ")
}

fn evidence_condition(c: &mut Conditions<'_>, world: &World) {
    let missing: Vec<_> = world.evidence.iter().filter(|(_, e)| !e.as_ref().is_some_and(|e| is_complete(e))).collect();
    match (world.evidence.is_empty(), missing.is_empty()) {
        (true, _) => {}
        (_, true) => {
            let asked =
                world.evidence.values().flatten().filter_map(|e| e.metadata.creation_timestamp.as_ref()).map(|t| t.0);
            let since = asked.min().map(|at| format!(", asked for at {at}")).unwrap_or_default();
            let what =
                format!("{} complete{since}", counted(world.evidence.len(), "piece of evidence", "pieces of evidence"));
            c.set(EVIDENCE_PRESERVED, "True", "Complete", what);
        }
        _ => {
            let standing = few(&missing, |(name, e)| evidence::standing(name, e.as_deref()), " (Evidence)");
            let problem = missing.iter().find_map(|(_, e)| evidence::problem(e.as_deref()?));
            c.set(EVIDENCE_PRESERVED, "False", problem.unwrap_or("InProgress"), standing);
        }
    }
}

fn release(c: &mut Conditions<'_>, status: &IncidentStatus, holds: bool) {
    let open: Vec<&TargetStatus> =
        status.targets.iter().filter(|t| t.reason == "Releasing" || t.reason == "ReleaseConflict").collect();
    let conflict = open.iter().find(|t| t.reason == "ReleaseConflict");
    let text = few(&open, |t| explained(t), "");
    match (holds || !open.is_empty(), conflict) {
        (false, _) => {
            let done = few(&status.targets, explained, "");
            c.set(RELEASED, "True", "Released", &*done);
            c.set(READY, "True", "Released", done);
        }
        (true, Some(t)) => {
            c.set(RELEASED, "False", "ReleaseConflict", &*text);
            c.set(READY, "False", "ReleaseConflict", explained(t));
            c.set(STALLED, "True", "ReleaseConflict", explained(t));
        }
        (true, None) => {
            c.set(RELEASED, "False", "Releasing", &*text);
            c.set(READY, "False", "Releasing", &*text);
            c.set(RECONCILING, "True", "Releasing", text);
        }
    }
}

/// A plan that could be made for every target is what was asked for.
fn plan(c: &mut Conditions<'_>, notes: &Notes, status: &IncidentStatus) {
    let refused = status.targets.iter().find(|t| t.reason != "PlanOnly");
    let calls = notes.plan.as_ref().map_or(0, |p| p.call_count);
    let problem =
        notes.plan.iter().flat_map(|p| &p.targets).find_map(|t| t.problem.as_ref().map(|p| format!("{}: {p}", t.resource)));
    match (refused, problem) {
        (Some(t), _) => stalled(c, &t.reason, &explained(t)),
        (None, Some(problem)) => stalled(c, "PlanHasProblems", &problem),
        (None, None) => c.set(
            READY,
            "True",
            "Planned",
            format!(
                "{} planned (status.plan){}; nothing is held. Set mode: Contain",
                counted(calls, "AWS call", "AWS calls"),
                approval::note(notes.approval.as_ref())
            ),
        ),
    }
}

fn stalled(c: &mut Conditions<'_>, reason: &str, message: &str) {
    c.set(READY, "False", reason, message);
    c.set(STALLED, "True", reason, message);
}

fn ready(
    c: &mut Conditions<'_>,
    incident: &Incident,
    notes: &Notes,
    status: &IncidentStatus,
    contained: &str,
    reason: &str,
    message: &str,
) {
    let frozen = notes.frozen.then_some(
        "mode is Plan on an Incident that holds: frozen, nothing new is held and nothing is let go. Set Contain or Release",
    );
    let suspended =
        incident.spec.suspend.then_some("spec.suspend: no new holds and no new actions; what is held is repaired");
    let note = frozen.or(suspended).map(|n| format!("{n}. ")).unwrap_or_default();
    let under_way = status.targets.iter().filter(|t| t.contained != "True").all(|t| UNDER_WAY.contains(&t.reason.as_str()));
    match (contained, under_way) {
        ("True", _) if notes.waiting.is_some() && !incident.spec.suspend => waiting(c, notes, message),
        ("True", _) => {
            let reason = if notes.frozen {
                "Frozen"
            } else if incident.spec.suspend {
                "Suspended"
            } else {
                "Contained"
            };
            c.set(READY, "True", reason, format!("{note}{message}"));
        }
        (_, true) => {
            c.set(READY, "False", reason, format!("{note}{message}"));
            c.set(RECONCILING, "True", reason, message);
        }
        (_, false) => {
            let ends = |t: &&TargetStatus| t.contained != "True" && !UNDER_WAY.contains(&t.reason.as_str());
            // that one waits for people is told by itself: what nobody's approval ends comes first
            let waits = |t: &&TargetStatus| t.reason == approval::AWAITING;
            let reason = status.targets.iter().filter(ends).min_by_key(waits).map_or(reason, |t| &t.reason);
            stalled(c, reason, &format!("{note}{}", open(status)));
        }
    }
}

/// What is held is in force, but the policy asks for more: people must say so, or time will do.
fn waiting(c: &mut Conditions<'_>, notes: &Notes, message: &str) {
    let Some(Refusal { reason, message: what }) = &notes.waiting else { return };
    let message = format!("{message}. {what}");
    if UNDER_WAY.contains(reason) {
        c.set(READY, "False", reason, &*message);
        c.set(RECONCILING, "True", reason, message);
    } else {
        stalled(c, reason, &message);
    }
}

/// What people see with `kubectl describe incident`.
pub async fn publish(events: &Events, before: &Incident, now: &Incident) {
    let on = events::reference(now);
    let get = |i: &Incident, kind| i.status.as_ref().and_then(|s| get_condition(&s.conditions, kind)).cloned();
    for kind in [CONTAINED, EVIDENCE_PRESERVED, RELEASED, APPROVED] {
        let met = |c: &Condition| c.status == "True";
        if let Some(c) = get(now, kind).filter(|c| met(c) && !get(before, kind).as_ref().is_some_and(met)) {
            events.normal(&on, kind, c.message).await;
        }
    }
    let waits = |c: &Condition| c.status == "False";
    if let Some(c) = get(now, APPROVED).filter(|c| waits(c) && !get(before, APPROVED).as_ref().is_some_and(waits)) {
        events.warning(&on, &c.reason, c.message).await;
    }
    let stalled = |i: &Incident| {
        // that it waits for approval was said above
        get(i, STALLED).filter(|c| c.reason != approval::AWAITING).map(|c| (c.reason, c.message))
    };
    if let (Some((reason, message)), true) = (stalled(now), stalled(now) != stalled(before)) {
        events.warning(&on, &reason, message).await;
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "many_tests.rs"]
mod many;
