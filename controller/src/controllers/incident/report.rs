//! The status of an Incident: every condition decided here, once, from the Quarantines and the Evidence. Pure, but for the
//! events.

use std::collections::BTreeMap;
use std::sync::Arc;

use firebreak_crds::conditions::{CONTAINED, EVIDENCE_PRESERVED, READY, RECONCILING, RELEASED, STALLED};
use firebreak_crds::{
    ActionState, Evidence, Incident, IncidentStatus, Mode, Quarantine, ResidualDeny, Resource, TargetStatus, get_condition,
    is_true, quarantine_name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::resolve::{Refusal, Target};
use super::{Notes, evidence, names_of};
use crate::conditions::{Conditions, bounded};
use crate::containment::name_of;
use crate::controllers::{Ctx, reconcile_requested};
use crate::events::{self, Events};
use crate::stores::Stores;

/// Why a target is not contained although nobody need act: time will do.
const UNDER_WAY: [&str; 7] =
    ["Containing", "Releasing", "AwsUnreachable", "OutcomeUnknown", "NotObserved", "NotHeld", "NotLeading"];

/// What of the cluster the status rests on.
pub struct World {
    /// The Quarantines that this Incident speaks of.
    pub quarantines: BTreeMap<String, Arc<Quarantine>>,
    /// The evidence that its policy asks for: None where there is no such object yet.
    pub evidence: BTreeMap<String, Option<Arc<Evidence>>>,
    /// The denies that outlive releases, with the accounts' names.
    pub residual: Vec<(String, ResidualDeny)>,
}

impl World {
    /// What is known now.
    pub fn of(ctx: &Ctx, incident: &Incident, targets: &[Target]) -> Self {
        let names = names_of(incident, &ctx.stores).chain(super::held(ctx, incident).map(|q| q.name_any()));
        let quarantines = names.filter_map(|n| Stores::named(&ctx.stores.quarantines, &n).map(|q| (n, q))).collect();
        let resolved = targets.iter().filter_map(|t| t.resolved.as_ref().ok());
        let wanted = resolved.flat_map(|r| evidence::wanted(incident, r)).map(|(name, _)| name);
        let uid = incident.uid().unwrap_or_default();
        let there = ctx.stores.evidence.state().into_iter().filter(|e| e.spec.incident_ref.uid == uid);
        let mut all: BTreeMap<String, Option<Arc<Evidence>>> = there.map(|e| (e.name_any(), Some(e))).collect();
        for name in wanted {
            all.entry(name).or_default();
        }
        let accounts = ctx.stores.accounts.state();
        let denies = accounts
            .iter()
            .flat_map(|a| a.status.iter().flat_map(|s| &s.residual_denies).map(|d| (a.name_any(), d.clone())));
        Self { quarantines, evidence: all, residual: denies.collect() }
    }

    fn holds(&self, uid: &str) -> impl Iterator<Item = &Arc<Quarantine>> {
        self.quarantines.values().filter(move |q| q.spec.holders.iter().any(|h| h.uid == uid))
    }
}

/// The status that says it all.
pub fn status(incident: &Incident, targets: &[Target], notes: &Notes, world: &World, now: Timestamp) -> IncidentStatus {
    let rows = rows(incident, targets, notes, world);
    let spec_rows = &rows[..targets.len()];
    let contained = rows.iter().filter(|t| t.contained == "True").count();
    let complete = world.evidence.values().flatten().filter(|e| preserved(e)).count();
    let asked = world.evidence.len();
    let mut status = IncidentStatus {
        observed_generation: incident.metadata.generation,
        conditions: Vec::new(),
        last_handled_reconcile_at: reconcile_requested(incident),
        contained: Some(format!("{contained}/{}", rows.len().max(spec_rows.len()))),
        evidence: (asked > 0).then(|| format!("{complete}/{asked}")),
        targets: rows,
        plan: notes.plan.clone(),
    };
    status.conditions = conditions(incident, notes, world, &status, now);
    status
}

fn preserved(evidence: &Evidence) -> bool {
    evidence.status.as_ref().is_some_and(|s| is_true(&s.conditions, READY))
}

/// Each target of the spec, then what is still held though the spec names it no more.
fn rows(incident: &Incident, targets: &[Target], notes: &Notes, world: &World) -> Vec<TargetStatus> {
    let mut rows: Vec<TargetStatus> = targets.iter().map(|t| row(incident, t, notes, world)).collect();
    let uid = incident.uid().unwrap_or_default();
    for quarantine in world.holds(&uid) {
        let name = quarantine.name_any();
        if !rows.iter().any(|r| r.quarantine.as_ref() == Some(&name)) {
            let (contained, reason, message) = containment(incident, quarantine);
            let message = format!("no longer a target; stays contained until release. {message}");
            rows.push(target(Some(quarantine.spec.resource.clone()), contained, reason, message));
        }
    }
    rows.truncate(400); // what the API has room for
    rows
}

fn target(
    resource: Option<Resource>,
    contained: &str,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> TargetStatus {
    TargetStatus {
        quarantine: resource.as_ref().map(quarantine_name),
        resource,
        contained: contained.into(),
        reason: reason.into(),
        message: bounded(message.into(), 2000),
    }
}

fn row(incident: &Incident, t: &Target, notes: &Notes, world: &World) -> TargetStatus {
    let name = t.resource.as_ref().map(quarantine_name).unwrap_or_default();
    let uid = incident.uid().unwrap_or_default();
    let quarantine = world.quarantines.get(&name).filter(|q| q.spec.holders.iter().any(|h| h.uid == uid));
    let note = notes.per_target.iter().find(|(n, _)| *n == name).map(|(_, r)| r);
    if let Some(quarantine) = quarantine {
        let (contained, reason, message) = containment(incident, quarantine);
        let refusal = t.resolved.as_ref().err().map(|r| format!("{}; it stays contained until release", r.message));
        let all = [Some(message), note.map(|n| n.message.clone()), refusal].into_iter().flatten().filter(|m| !m.is_empty());
        return target(t.resource.clone(), contained, reason, all.collect::<Vec<_>>().join("; "));
    }
    if incident.spec.mode == Mode::Release {
        return released(t.resource.clone(), world.quarantines.get(&name), world);
    }
    match (&t.resolved, note) {
        (Err(Refusal { reason, message }), _) | (_, Some(Refusal { reason, message })) => {
            target(t.resource.clone(), "False", *reason, message.clone())
        }
        _ if incident.spec.mode == Mode::Plan => {
            target(t.resource.clone(), "False", "PlanOnly", "mode is Plan: set Contain to contain it")
        }
        _ if incident.spec.suspend => target(t.resource.clone(), "False", "Suspended", "spec.suspend: no new holds"),
        _ => target(t.resource.clone(), "False", "Containing", "the hold is being made"),
    }
}

/// Whether the target is contained for this holder: its Quarantine speaks of the spec as it is now, and every action that
/// this holder asks for is read back in force, and there is at least one.
fn containment(incident: &Incident, quarantine: &Quarantine) -> (&'static str, String, String) {
    let uid = incident.uid().unwrap_or_default();
    let Some(status) = &quarantine.status else { return ("False", "Containing".into(), "not looked at yet".into()) };
    let Some(condition) = get_condition(&status.conditions, CONTAINED) else {
        return ("False", "Containing".into(), "not looked at yet".into());
    };
    let asked: Vec<&str> =
        quarantine.spec.holders.iter().filter(|h| h.uid == uid).flat_map(|h| &h.actions).map(name_of).collect();
    let in_force = |name: &&str| status.actions.iter().any(|a| a.name == *name && a.state == ActionState::InForce);
    let current = status.observed_generation == quarantine.metadata.generation;
    let (reason, message) = (condition.reason.clone(), condition.message.clone());
    match () {
        () if asked.is_empty() => {
            ("False", "NothingToDo".into(), "the policy has no containment action for this kind of target".into())
        }
        () if condition.status == "Unknown" => ("Unknown", reason, message),
        () if !current => ("False", "Containing".into(), "a change is not carried out yet".into()),
        () if asked.iter().all(in_force) && condition.status == "True" => ("True", reason, message),
        () if asked.iter().all(in_force) => ("True", "Enforcing".into(), message),
        () => ("False", reason, message),
    }
}

fn released(resource: Option<Resource>, quarantine: Option<&Arc<Quarantine>>, world: &World) -> TargetStatus {
    let Some(quarantine) = quarantine else {
        let on =
            |r: &Resource, (account, d): &&(String, ResidualDeny)| *account == r.account_ref.name && d.user_name == r.id;
        let deny = resource.as_ref().and_then(|r| world.residual.iter().filter(|d| on(r, d)).max_by_key(|(_, d)| d.until.0));
        let message = deny.map_or_else(
            || "given back".to_owned(),
            |(_, d)| format!("given back; sessions issued before the release stay blocked until {}", d.until.0),
        );
        return target(resource, "False", "Released", message);
    };
    if !quarantine.spec.holders.is_empty() {
        let others: Vec<String> = quarantine.spec.holders.iter().map(|h| format!("{}/{}", h.namespace, h.name)).collect();
        return target(resource, "False", "LetGo", format!("let go; still held by {}", others.join(", ")));
    }
    let condition = quarantine.status.as_ref().and_then(|s| get_condition(&s.conditions, READY));
    let (reason, message) = condition.map_or(("Releasing".into(), String::new()), |c| (c.reason.clone(), c.message.clone()));
    let reason = if reason == "ReleaseConflict" { reason } else { "Releasing".to_owned() };
    target(resource, "False", reason, message)
}

fn conditions(incident: &Incident, notes: &Notes, world: &World, status: &IncidentStatus, now: Timestamp) -> Vec<Condition> {
    let previous = incident.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let mut c = Conditions::new(&previous, incident.metadata.generation, now);
    let holds = world.holds(&incident.uid().unwrap_or_default()).next().is_some();
    let (contained, reason, message) = contained(incident, status, holds);
    c.set(CONTAINED, contained, &reason, &*message);
    evidence_condition(&mut c, world);
    match incident.spec.mode {
        Mode::Release => release(&mut c, status, holds),
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
            (value, t.reason.clone(), format!("{done} of {all} targets contained. {}", explained(t)))
        }
    }
}

fn explained(t: &TargetStatus) -> String {
    let what = t.resource.as_ref().map_or_else(|| "target".to_owned(), ToString::to_string);
    format!("{what}: {}", t.message)
}

fn evidence_condition(c: &mut Conditions<'_>, world: &World) {
    let missing: Vec<String> = world
        .evidence
        .iter()
        .filter(|(_, e)| !e.as_ref().is_some_and(|e| preserved(e)))
        .map(|(name, e)| {
            let said = e.as_ref().and_then(|e| e.status.as_ref()).and_then(|s| get_condition(&s.conditions, READY));
            format!("{name}: {}", said.map_or("not started", |c| &c.message))
        })
        .collect();
    match (world.evidence.is_empty(), missing.is_empty()) {
        (true, _) => {}
        (_, true) => c.set(
            EVIDENCE_PRESERVED,
            "True",
            "Complete",
            format!("{0} of {0} pieces of evidence complete", world.evidence.len()),
        ),
        _ => c.set(EVIDENCE_PRESERVED, "False", "InProgress", missing.join("; ")),
    }
}

fn release(c: &mut Conditions<'_>, status: &IncidentStatus, holds: bool) {
    let open: Vec<&TargetStatus> =
        status.targets.iter().filter(|t| t.reason == "Releasing" || t.reason == "ReleaseConflict").collect();
    let conflict = open.iter().find(|t| t.reason == "ReleaseConflict");
    let text = open.iter().map(|t| explained(t)).collect::<Vec<_>>().join("; ");
    match (holds || !open.is_empty(), conflict) {
        (false, _) => {
            let done: Vec<String> = status.targets.iter().map(explained).collect();
            c.set(RELEASED, "True", "Released", done.join("; "));
            c.set(READY, "True", "Released", done.join("; "));
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
            format!("{calls} AWS calls planned (status.plan); nothing is held. Set mode: Contain"),
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
            let worst = status.targets.iter().find(|t| t.contained != "True").map_or_else(|| message.to_owned(), explained);
            stalled(c, reason, &format!("{note}{worst}"));
        }
    }
}

/// What people see with `kubectl describe incident`.
pub async fn publish(events: &Events, before: &Incident, now: &Incident) {
    let on = events::reference(now);
    for kind in [CONTAINED, EVIDENCE_PRESERVED, RELEASED] {
        let get = |i: &Incident| i.status.as_ref().and_then(|s| get_condition(&s.conditions, kind)).cloned();
        let met = |c: &Condition| c.status == "True";
        if let Some(c) = get(now).filter(|c| met(c) && !get(before).as_ref().is_some_and(met)) {
            events.normal(&on, kind, c.message).await;
        }
    }
    let stalled = |i: &Incident| {
        i.status.as_ref().and_then(|s| get_condition(&s.conditions, STALLED)).map(|c| (c.reason.clone(), c.message.clone()))
    };
    if let (Some((reason, message)), true) = (stalled(now), stalled(now) != stalled(before)) {
        events.warning(&on, &reason, message).await;
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
