//! The rows of an Incident's status: each target, as its Quarantine says it is. Pure.

use std::sync::Arc;

use firebreak_crds::conditions::{CONTAINED, READY, RELEASED};
use firebreak_crds::{
    ActionState, Incident, Mode, Quarantine, ResidualDeny, Resource, TargetStatus, get_condition, is_true, quarantine_name,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::report::World;
use super::resolve::{Refusal, Target};
use super::{Notes, holds};
use crate::aws::Principal;
use crate::clock;
use crate::conditions::bounded;
use crate::containment::{holds_digest, name_of, session_of};

/// What the API has room for.
const ROWS: usize = 400;

/// Each target of the spec; then what is still held, or was until it was released, though the spec names it no more.
pub fn all(incident: &Incident, targets: &[Target], notes: &Notes, world: &World, now: Timestamp) -> Vec<TargetStatus> {
    let mut rows: Vec<TargetStatus> = targets.iter().map(|t| row(incident, t, notes, world)).collect();
    let uid = incident.uid().unwrap_or_default();
    for quarantine in world.holds(&uid) {
        let resource = &quarantine.spec.resource;
        if !rows.iter().any(|r| r.resource.as_ref() == Some(resource)) {
            let (contained, reason, message) = containment(incident, quarantine);
            let message = format!("no longer a target; stays contained until release. {message}");
            rows.push(target(Some(resource.clone()), contained, reason, message));
        }
    }
    for before in earlier(incident).filter(|b| b.held_since.is_some()) {
        if incident.spec.mode == Mode::Release && !rows.iter().any(|r| r.resource == before.resource) {
            rows.push(released(incident, before.resource.clone(), world));
        }
    }
    rows.truncate(ROWS);
    rows.iter_mut().for_each(|row| complete(row, incident, world, now));
    rows
}

fn earlier(incident: &Incident) -> impl Iterator<Item = &TargetStatus> {
    incident.status.iter().flat_map(|s| &s.targets)
}

fn earlier_row<'a>(incident: &'a Incident, resource: Option<&Resource>) -> Option<&'a TargetStatus> {
    earlier(incident).find(|t| t.resource.is_some() && t.resource.as_ref() == resource)
}

/// Since when this Incident has held it, and the name of its Quarantine where there is one.
fn complete(row: &mut TargetStatus, incident: &Incident, world: &World, now: Timestamp) {
    let name = row.resource.as_ref().map(quarantine_name);
    let uid = incident.uid().unwrap_or_default();
    let holds = world.holds(&uid).any(|q| Some(q.name_any()) == name);
    let before = earlier_row(incident, row.resource.as_ref()).and_then(|b| b.held_since.clone());
    row.held_since = before.or_else(|| holds.then(|| clock::time(now)));
    row.quarantine = name.filter(|n| row.reason != "Released" && world.quarantines.contains_key(n));
}

fn target(
    resource: Option<Resource>,
    contained: &str,
    reason: impl Into<String>,
    message: impl Into<String>,
) -> TargetStatus {
    TargetStatus {
        quarantine: None,
        resource,
        contained: contained.into(),
        reason: reason.into(),
        message: bounded(message.into(), 2000),
        held_since: None,
    }
}

/// One target with its resource before it, unless it says that itself.
pub fn explained(t: &TargetStatus) -> String {
    let what = t.resource.as_ref().map_or_else(|| "target".to_owned(), ToString::to_string);
    if t.message.starts_with(&what) { t.message.clone() } else { format!("{what}: {}", t.message) }
}

fn row(incident: &Incident, t: &Target, notes: &Notes, world: &World) -> TargetStatus {
    let name = t.resource.as_ref().map(quarantine_name).unwrap_or_default();
    let uid = incident.uid().unwrap_or_default();
    let quarantine = world.quarantines.get(&name).filter(|q| q.spec.holders.iter().any(|h| h.uid == uid));
    let note = notes.per_target.iter().find(|(n, _)| *n == name).map(|(_, r)| r);
    if let Some(quarantine) = quarantine {
        let (contained, reason, message) = containment(incident, quarantine);
        let refusal = t.resolved.as_ref().err().map(|r| format!("{}; it stays contained until release", r.message));
        let waiting = t.resolved.iter().flat_map(|r| &r.waiting).map(|w| w.message.clone());
        let all = [Some(message), note.map(|n| n.message.clone()), refusal].into_iter().flatten().chain(waiting);
        let all = all.filter(|m| !m.is_empty());
        return target(t.resource.clone(), contained, reason, all.collect::<Vec<_>>().join("; "));
    }
    if incident.spec.mode == Mode::Release {
        return released(incident, t.resource.clone(), world);
    }
    match (&t.resolved, note) {
        (Err(Refusal { reason, message }), _) | (_, Some(Refusal { reason, message })) => {
            target(t.resource.clone(), "False", *reason, message.clone())
        }
        _ if incident.spec.mode == Mode::Plan => {
            target(t.resource.clone(), "False", "PlanOnly", planned(notes, t.resource.as_ref()))
        }
        _ if incident.spec.suspend => target(t.resource.clone(), "False", "Suspended", "spec.suspend: no new holds"),
        _ => target(t.resource.clone(), "False", "Containing", "the hold is being made"),
    }
}

/// In mode Plan: what stands in the way, if anything does.
fn planned(notes: &Notes, resource: Option<&Resource>) -> String {
    let arn = resource.map(Resource::arn).unwrap_or_default();
    let row = notes.plan.iter().flat_map(|p| &p.targets).find(|t| t.resource == arn);
    row.and_then(|t| t.problem.clone()).unwrap_or_else(|| "mode is Plan: set Contain to contain it".to_owned())
}

/// Whether the target is contained for this holder: its Quarantine's status speaks of the holds as they are now, and every
/// action that this holder asks for is read back in force, and there is at least one.
fn containment(incident: &Incident, quarantine: &Quarantine) -> (&'static str, String, String) {
    let uid = incident.uid().unwrap_or_default();
    let Some(status) = &quarantine.status else { return ("False", "Containing".into(), "not looked at yet".into()) };
    let Some(condition) = get_condition(&status.conditions, CONTAINED) else {
        return ("False", "Containing".into(), "not looked at yet".into());
    };
    let asked: Vec<&str> =
        quarantine.spec.holders.iter().filter(|h| h.uid == uid).flat_map(|h| &h.actions).map(name_of).collect();
    let in_force = |name: &&str| status.actions.iter().any(|a| a.name == *name && a.state == ActionState::InForce);
    let current = status.observed_holds.as_ref() == Some(&holds_digest(&quarantine.spec.holders));
    let suspended = if quarantine.spec.suspend { "; its Quarantine is suspended: nothing is repaired" } else { "" };
    let (reason, message) = (condition.reason.clone(), format!("{}{suspended}", condition.message));
    match () {
        () if asked.is_empty() => {
            ("False", "NothingToDo".into(), "the policy has no containment action for this kind of target".into())
        }
        () if condition.status == "Unknown" => ("Unknown", reason, message),
        () if !current && (asked.iter().all(in_force) || condition.status == "True") => {
            ("False", "Containing".into(), "a change is not carried out yet".into())
        }
        () if asked.iter().all(in_force) && condition.status == "True" => ("True", reason, message),
        () if asked.iter().all(in_force) => ("True", "Enforcing".into(), message),
        () => ("False", reason, message),
    }
}

/// A target in mode Release that this Incident does not hold. What was said when the release had ended stays said: what
/// others do to the resource later is no longer this Incident's.
fn released(incident: &Incident, resource: Option<Resource>, world: &World) -> TargetStatus {
    let before = earlier_row(incident, resource.as_ref());
    let over = incident
        .status
        .as_ref()
        .is_some_and(|s| is_true(&s.conditions, RELEASED) && s.observed_generation == incident.metadata.generation);
    if let (true, Some(before)) = (over, before) {
        return before.clone();
    }
    let quarantine = resource.as_ref().and_then(|r| world.quarantines.get(&quarantine_name(r)));
    let held = before.is_some_and(|b| b.held_since.is_some());
    match quarantine {
        Some(quarantine) if quarantine.spec.holders.iter().any(|h| holds::is_mine(incident, h)) => {
            target(resource, "False", "Releasing", "the hold is being let go")
        }
        Some(quarantine) if !quarantine.spec.holders.is_empty() => let_go(resource, quarantine, held),
        Some(quarantine) => releasing(resource, quarantine),
        None => gone(resource, held, world),
    }
}

/// Without a Quarantine. It goes after a verified release, which says so, or when somebody abandons it.
fn gone(resource: Option<Resource>, held: bool, world: &World) -> TargetStatus {
    let on = |r: &Resource, (account, d): &&(String, ResidualDeny)| {
        let session = r.role_and_session().map(|(_, session)| session);
        *account == r.account_ref.name
            && Principal::denied(d) == Some(Principal::of(r))
            && session_of(&d.policy_name) == session
    };
    let deny = resource.as_ref().and_then(|r| world.residual.iter().filter(|d| on(r, d)).max_by_key(|(_, d)| d.until.0));
    let said = resource.as_ref().and_then(|r| world.said.get(&quarantine_name(r))).filter(|_| held);
    let what = match said {
        Some(said) if said.is_empty() => "given back".to_owned(),
        Some(said) => format!("given back; {said}"),
        None if held => "let go, and its Quarantine is gone".to_owned(),
        None => "nobody holds it: nothing is left to give back".to_owned(),
    };
    let message = deny.filter(|_| !what.contains("stay denied until")).map_or_else(
        || what.clone(),
        |(_, d)| format!("{what}; sessions issued before the release stay blocked until {}", d.until.0),
    );
    target(resource, "False", "Released", message)
}

fn let_go(resource: Option<Resource>, quarantine: &Arc<Quarantine>, held: bool) -> TargetStatus {
    let others: Vec<String> = quarantine.spec.holders.iter().map(|h| format!("{}/{}", h.namespace, h.name)).collect();
    let mine = if held { "let go; still held" } else { "this Incident does not hold it; it is held" };
    target(resource, "False", "LetGo", format!("{mine} by {}", others.join(", ")))
}

fn releasing(resource: Option<Resource>, quarantine: &Arc<Quarantine>) -> TargetStatus {
    let name = quarantine.name_any();
    let condition = quarantine.status.as_ref().and_then(|s| get_condition(&s.conditions, READY));
    let (reason, message) = condition.map_or(("", String::new()), |c| (c.reason.as_str(), c.message.clone()));
    let reason = if reason == "ReleaseConflict" { reason } else { "Releasing" };
    target(resource, "False", reason, format!("Quarantine {name}: {message}"))
}
