//! The rows of an Incident's status: each target, as its Quarantine says it is. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use firebreak_crds::conditions::{CONTAINED, READY, RELEASED};
use firebreak_crds::{
    ActionState, Incident, Mode, Quarantine, ResidualDeny, Resource, TargetStatus, get_condition, is_true, quarantine_name,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::approval::AWAITING;
use super::report::{UNDER_WAY, World};
use super::resolve::{Refusal, Resolved, Target};
use super::selector::NOT_OBSERVED;
use super::{Notes, holds};
use crate::aws::Principal;
use crate::clock;
use crate::conditions::bounded;
use crate::containment::{grow, holds_digest, name_of, session_of};
use crate::controllers::quarantine::NAME_TAKEN;
use crate::controllers::to_be_released;

/// So many targets stand in the status; of more than that, those that need somebody first.
const ROWS: usize = 100;
/// As much of their messages then.
const MESSAGE: usize = 500;

/// What the rows rest on, found by name.
struct About<'a> {
    incident: &'a Incident,
    uid: String,
    notes: HashMap<&'a str, &'a Refusal>,
    problems: HashMap<&'a str, &'a String>,
    earlier: HashMap<&'a Resource, &'a TargetStatus>,
    world: &'a World,
}

impl<'a> About<'a> {
    fn new(incident: &'a Incident, notes: &'a Notes, world: &'a World) -> Self {
        let planned = notes.plan.iter().flat_map(|p| &p.targets);
        Self {
            incident,
            uid: incident.uid().unwrap_or_default(),
            notes: notes.per_target.iter().rev().map(|(name, note)| (name.as_str(), note)).collect(),
            problems: planned.filter_map(|t| Some((t.resource.as_str(), t.problem.as_ref()?))).collect(),
            earlier: earlier(incident).filter_map(|t| Some((t.resource.as_ref()?, t))).collect(),
            world,
        }
    }

    fn earlier(&self, resource: Option<&Resource>) -> Option<&'a TargetStatus> {
        resource.and_then(|r| self.earlier.get(r)).copied()
    }
}

/// Each target of the spec; then what is still held, or was until it was released, though the spec names it no more: by the status,
/// and, since that has room for so many only, by the Quarantines.
pub fn all(incident: &Incident, targets: &[Target], notes: &Notes, world: &World, now: Timestamp) -> Vec<TargetStatus> {
    let about = About::new(incident, notes, world);
    let mut rows: Vec<TargetStatus> = targets.iter().map(|t| row(&about, t)).collect();
    let mut told: HashSet<&Resource> = targets.iter().filter_map(|t| t.resource.as_ref()).collect();
    for quarantine in world.holds(&about.uid).filter(|q| !told.contains(&q.spec.resource)) {
        let (contained, reason, message) = containment(incident, quarantine);
        let message = format!("no longer a target; stays contained until release. {message}");
        rows.push(target(Some(quarantine.spec.resource.clone()), contained, reason, message));
    }
    told.extend(world.holds(&about.uid).map(|q| &q.spec.resource));
    if incident.spec.mode == Mode::Release {
        let held = || earlier(incident).filter(|b| b.held_since.is_some());
        let untold = held().filter(|b| b.resource.as_ref().is_none_or(|r| !told.contains(r)));
        rows.extend(untold.map(|b| released(&about, b.resource.clone(), false)));
        told.extend(held().filter_map(|b| b.resource.as_ref()));
        // what the status had no room for; and nothing any more when it was said that the release has ended
        if !is_over(incident) {
            let on_record = world.let_go(&about.uid).map(|q| &q.spec.resource).filter(|r| !told.contains(r));
            rows.extend(on_record.map(|resource| released(&about, Some(resource.clone()), true)));
        }
    }
    rows.iter_mut().for_each(|row| complete(row, &about, now));
    rows
}

/// The rows that the status has room for.
pub fn shown(mut rows: Vec<TargetStatus>) -> Vec<TargetStatus> {
    if rows.len() > ROWS {
        rows.sort_by_key(urgency);
        rows.truncate(ROWS);
        rows.iter_mut().for_each(|row| row.message = bounded(std::mem::take(&mut row.message), MESSAGE));
    }
    rows
}

/// What a person must look at comes first, then what time will do, then what is done.
fn urgency(row: &TargetStatus) -> u8 {
    match (row.contained.as_str(), row.reason.as_str()) {
        ("True", "Enforced") | (_, "Released" | "LetGo") => 4,
        ("True", _) => 3,
        (_, reason) if UNDER_WAY.contains(&reason) => 2,
        ("Unknown", _) => 1,
        _ => 0,
    }
}

fn earlier(incident: &Incident) -> impl Iterator<Item = &TargetStatus> {
    incident.status.iter().flat_map(|s| &s.targets)
}

/// Since when this Incident has held it, and the name of its Quarantine where there is one.
fn complete(row: &mut TargetStatus, about: &About<'_>, now: Timestamp) {
    let Some(name) = row.resource.as_ref().map(quarantine_name) else { return };
    let quarantine = about.world.quarantines.get(&name);
    let before = about.earlier(row.resource.as_ref());
    let holds = quarantine.filter(|q| q.spec.is_held_by(&about.uid));
    let since = holds.map(|q| since(about, q, now));
    row.held_since = before.and_then(|b| b.held_since.clone()).or(since);
    row.quarantine = quarantine.filter(|_| row.reason != "Released").map(|_| name);
}

/// Of a hold that the status had no room for, its Quarantine knows best since when it has been.
fn since(about: &About<'_>, quarantine: &Quarantine, now: Timestamp) -> Time {
    let made = quarantine.metadata.creation_timestamp.clone().filter(|_| about.earlier.len() >= ROWS);
    made.unwrap_or_else(|| clock::time(now))
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

fn row(about: &About<'_>, t: &Target) -> TargetStatus {
    let About { incident, world, .. } = about;
    let name = t.resource.as_ref().map(quarantine_name).unwrap_or_default();
    let quarantine = world.quarantines.get(&name).filter(|q| q.spec.is_held_by(&about.uid));
    let note = about.notes.get(name.as_str());
    if let Some(quarantine) = quarantine {
        let (contained, reason, message) = match (containment(incident, quarantine), &t.resolved) {
            (("True", ..), Ok(target)) if !is_held(incident, target, quarantine) => {
                ("False", "Containing".into(), "a change is not held yet".into())
            }
            (("True", _, message), Ok(target)) if target.open => ("False", AWAITING.into(), message),
            (contained, _) => contained,
        };
        let refusal = t.resolved.as_ref().err().map(|r| format!("{}; it stays contained until release", r.message));
        let waiting = t.resolved.iter().flat_map(|r| &r.waiting).map(|w| w.message.clone());
        let all = [Some(message), note.map(|n| n.message.clone()), refusal].into_iter().flatten().chain(waiting);
        let all = all.filter(|m| !m.is_empty());
        return target(t.resource.clone(), contained, reason, all.collect::<Vec<_>>().join("; "));
    }
    if incident.spec.mode == Mode::Release {
        let chosen = t.resolved.as_ref().is_ok_and(|r| r.chosen.as_ref().is_some_and(|c| c.awaits.is_none()));
        return released(about, t.resource.clone(), chosen);
    }
    match (&t.resolved, note) {
        (Err(Refusal { reason, message }), _) | (_, Some(Refusal { reason, message })) => {
            let contained = if *reason == NOT_OBSERVED { "Unknown" } else { "False" };
            target(t.resource.clone(), contained, *reason, message.clone())
        }
        _ if incident.spec.mode == Mode::Plan => {
            let waiting = t.resolved.iter().flat_map(|r| &r.waiting).map(|w| w.message.clone());
            let all: Vec<String> = [planned(about, t.resource.as_ref())].into_iter().chain(waiting).collect();
            target(t.resource.clone(), "False", "PlanOnly", all.join("; "))
        }
        _ if incident.spec.suspend => target(t.resource.clone(), "False", "Suspended", "spec.suspend: no new holds"),
        _ => target(t.resource.clone(), "False", "Containing", "the hold is being made"),
    }
}

/// In mode Plan: what stands in the way, if anything does.
fn planned(about: &About<'_>, resource: Option<&Resource>) -> String {
    let problem = resource.and_then(|r| about.problems.get(r.arn().as_str()));
    problem.map_or_else(|| "mode is Plan: set Contain to contain it".to_owned(), |p| (*p).clone())
}

/// Whether all that goes for a target is in this Incident's entry, as far as it may be. What was approved a moment ago is not in
/// the Quarantine that is known here.
fn is_held(incident: &Incident, target: &Resolved, quarantine: &Quarantine) -> bool {
    let takes = incident.spec.mode == Mode::Contain && !incident.spec.suspend;
    let held = holds::actions(incident, &quarantine.spec.holders);
    !takes || grow(&held, &target.actions).0 == held
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
    let (reason, message) = (condition.reason.clone(), condition.message.clone());
    match () {
        () if asked.is_empty() => {
            ("False", "NothingToDo".into(), "the policy has no containment action for this kind of target".into())
        }
        () if condition.status == "Unknown" => ("Unknown", reason, message),
        () if !current && condition.status == "True" => {
            ("False", "Containing".into(), "a change is not carried out yet".into())
        }
        () if !current => ("False", reason, format!("a change is not carried out yet; {message}")),
        () if reason == NAME_TAKEN => ("False", reason, message),
        () if asked.iter().all(in_force) && condition.status == "True" => ("True", reason, message),
        () if asked.iter().all(in_force) => ("True", "Enforcing".into(), message),
        () => ("False", reason, message),
    }
}

/// Whether it was said that the release has ended.
fn is_over(incident: &Incident) -> bool {
    let status = incident.status.as_ref();
    status.is_some_and(|s| is_true(&s.conditions, RELEASED) && s.observed_generation == incident.metadata.generation)
}

/// A target in mode Release that this Incident does not hold. `chosen`: a selector's list has it, so it was held if the status had
/// no room to say so. What was said when the release had ended stays said: what
/// others do to the resource later is no longer this Incident's.
fn released(about: &About<'_>, resource: Option<Resource>, chosen: bool) -> TargetStatus {
    let About { incident, world, .. } = about;
    let before = about.earlier(resource.as_ref());
    if let (true, Some(before)) = (is_over(incident), before) {
        return before.clone();
    }
    let quarantine = resource.as_ref().and_then(|r| world.quarantines.get(&quarantine_name(r)));
    let held = before.map_or(chosen, |b| b.held_since.is_some());
    match quarantine {
        Some(quarantine) if quarantine.spec.holders.iter().any(|h| holds::is_mine(incident, h)) => {
            target(resource, "False", "Releasing", "the hold is being let go")
        }
        Some(quarantine) if !to_be_released(quarantine) => let_go(resource, quarantine, held),
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
        None => "this Incident holds nothing of it, and nobody else does".to_owned(),
    };
    let message = deny.filter(|_| !what.contains("stay denied until")).map_or_else(
        || what.clone(),
        |(_, d)| format!("{what}; sessions issued before the release stay denied until {}", d.until.0),
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
    let message = if message.is_empty() { "is being given back".to_owned() } else { message };
    target(resource, "False", reason, format!("Quarantine {name}: {message}"))
}
