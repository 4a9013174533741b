//! What may not go yet: actions that wait for people's approval, and destructive ones that wait for the evidence. All else
//! goes at once.
//!
//! A store is asked first, since what it does not know of yet only holds back for longer. Where it says "go", the API server
//! is asked: an approval may have been withdrawn, or evidence asked for, a moment ago.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use firebreak_crds::{Approval, ContainAction, Evidence, Incident, Mode, Quarantine, quarantine_name};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::approval::{self, Asked};
use super::resolve::{Refusal, Resolved, Target};
use super::selector::Chosen;
use super::{Notes, blast_radius, evidence, holds, pace, plan_digest};
use crate::clock;
use crate::containment::{DESTRUCTIVE, contained_since};
use crate::controllers::evidence::is_complete;
use crate::controllers::{Ctx, Error, kube};
use crate::stores::Stores;

/// Evidence and hold are asked for at the same moment; this is more than that moment takes.
const ASKED_WITHIN: SignedDuration = SignedDuration::from_mins(1);
/// The reason of what waits for evidence.
pub const AWAITING_EVIDENCE: &str = "AwaitingEvidence";

/// Takes out of each target what must wait, and notes it. A plan shows everything, and says what will wait.
pub async fn apply(ctx: &Ctx, incident: &Incident, chosen: &Chosen, targets: &mut [Target], notes: &mut Notes) {
    if incident.spec.mode == Mode::Release {
        return;
    }
    notes.digest = plan_digest::of(&ctx.stores, incident, chosen);
    blast_radius::note(ctx, incident, targets);
    let held: Vec<Vec<ContainAction>> = targets.iter().map(|t| held(ctx, incident, t)).collect();
    if incident.spec.mode == Mode::Contain && !incident.spec.suspend && pace::concerns(targets) {
        let begin = begin(ctx, incident, &notes.digest, targets, &held);
        pace::note(&ctx.stores.quarantines.state(), &mut ctx.memory.admitted(), targets, &begin, clock::now());
    }
    notes.approval = asked(ctx, incident, targets, &held, notes).await;
    if incident.spec.mode == Mode::Contain {
        approval::take_out(targets, &held, notes.approval.as_ref());
        await_evidence(ctx, incident, targets, &held, notes).await;
        notes.waiting = first(targets);
    } else {
        approval::tell(targets, &held, notes.approval.as_ref());
    }
}

/// What this Incident, or its predecessor of the same name, has of the target already.
fn held(ctx: &Ctx, incident: &Incident, target: &Target) -> Vec<ContainAction> {
    let Some(resource) = &target.resource else { return Vec::new() };
    let quarantine = ctx.stores.quarantine_of(resource);
    quarantine.map(|q| holds::actions(incident, &q.spec.holders)).unwrap_or_default()
}

/// Of which targets anything would begin now: an action that waits for nobody, or its evidence.
fn begin(ctx: &Ctx, incident: &Incident, digest: &str, targets: &[Target], held: &[Vec<ContainAction>]) -> Vec<bool> {
    let known = approvals(ctx, incident);
    let asked = approval::asked(incident, digest, targets, held, &known);
    let goes = |r: &Resolved, held| approval::goes(r, held, asked.as_ref()) || evidence::is_due(ctx, incident, r);
    let begins = |r: &Resolved, held| !r.ruled_out && goes(r, held);
    targets.iter().zip(held).map(|(t, held)| t.resolved.as_ref().is_ok_and(|r| begins(r, held))).collect()
}

/// As far as is known.
fn approvals(ctx: &Ctx, incident: &Incident) -> Vec<Arc<Approval>> {
    let namespace = incident.namespace();
    ctx.stores.approvals.state_filter(|a| a.namespace() == namespace)
}

async fn asked(
    ctx: &Ctx,
    incident: &Incident,
    targets: &[Target],
    held: &[Vec<ContainAction>],
    notes: &mut Notes,
) -> Option<Asked> {
    let known = approvals(ctx, incident);
    let asked = approval::asked(incident, &notes.digest, targets, held, &known)?;
    if incident.spec.mode != Mode::Contain || !asked.goes {
        return Some(asked);
    }
    let api = Api::<Approval>::namespaced(ctx.client.clone(), &incident.namespace().unwrap_or_default());
    match kube("list Approvals", api.list(&ListParams::default())).await {
        Ok(live) => approval::asked(incident, &notes.digest, targets, held, &live.items),
        Err(error) => {
            tracing::warn!(incident = %incident.name_any(), %error, "nothing is approved until that is known");
            notes.again = true;
            approval::asked::<Approval>(incident, &notes.digest, targets, held, &[])
        }
    }
}

async fn await_evidence(
    ctx: &Ctx,
    incident: &Incident,
    targets: &mut [Target],
    held: &[Vec<ContainAction>],
    notes: &mut Notes,
) {
    let resolved = targets.iter().zip(held).filter_map(|(t, held)| t.resolved.as_ref().ok().zip(Some(held)));
    let asking: Vec<_> = resolved.filter(|(r, held)| !new_of(&DESTRUCTIVE, r, held).is_empty()).collect();
    if asking.is_empty() {
        return; // nearly always: then nobody looks through the evidence
    }
    let known = ctx.stores.evidence.state();
    let known = by_arn(&known);
    let open = |r: &Resolved, known: &HashMap<String, Vec<&Evidence>>| open(incident, r, began(ctx, r), known);
    if !asking.iter().any(|(resolved, _)| open(resolved, &known).is_empty()) {
        return targets.iter_mut().zip(held).for_each(|(t, held)| keep(&DESTRUCTIVE, t, held, |r| open(r, &known)));
    }
    let live = kube("list Evidence", Api::<Evidence>::all(ctx.client.clone()).list(&ListParams::default())).await;
    notes.again |= live.is_err();
    let live = live.as_ref().map(|live| by_arn(&live.items));
    let said = |r: &Resolved| match &live {
        Ok(live) => open(r, live),
        Err(error) => vec![Error::to_string(error)],
    };
    targets.iter_mut().zip(held).for_each(|(t, held)| keep(&DESTRUCTIVE, t, held, said));
}

/// The actions of these names that are not held yet.
fn new_of(names: &[&str], target: &Resolved, held: &[ContainAction]) -> Vec<&'static str> {
    approval::hold_back(&target.actions, held, |n| names.contains(&n)).1
}

/// Takes the actions of these names out while anything is missing.
fn keep(names: &[&str], target: &mut Target, held: &[ContainAction], missing: impl Fn(&Resolved) -> Vec<String>) {
    let Ok(target) = &mut target.resolved else { return };
    let (now, waiting) = approval::hold_back(&target.actions, held, |n| names.contains(&n));
    if waiting.is_empty() {
        return;
    }
    let missing = missing(target);
    if !missing.is_empty() {
        target.actions = now;
        let what = format!("{} waits until all evidence is complete: {}", waiting.join(", "), missing.join("; "));
        target.waiting.push(Refusal::new(AWAITING_EVIDENCE, what));
    }
}

/// When a containment began.
#[derive(Clone, Copy, Debug)]
struct Began {
    /// In this cluster.
    here: Timestamp,
    /// In the one that it was exported from; else the same.
    first: Timestamp,
}

impl Began {
    fn of(quarantine: &Quarantine) -> Option<Self> {
        let here = quarantine.metadata.creation_timestamp.as_ref()?.0;
        Some(Self { here, first: contained_since(quarantine)? })
    }

    /// Whether evidence that was asked for at that time is of this containment. What is said of another cluster's time counts only
    /// for evidence that came from there with it: nobody makes old evidence of this cluster count by writing an older time.
    fn covers(self, evidence: &Evidence, asked: Timestamp) -> bool {
        let came_with_it = evidence.metadata.creation_timestamp.as_ref().is_some_and(|made| made.0 >= self.here);
        asked + ASKED_WITHIN >= if came_with_it { self.first } else { self.here }
    }
}

/// When the containment of a target began; None where it has not.
fn began(ctx: &Ctx, target: &Resolved) -> Option<Began> {
    let found = Stores::named(&ctx.stores.quarantines, &quarantine_name(&target.resource))?;
    Began::of(&found)
}

/// The evidence without which nothing is destroyed: what is not complete, and what shows an earlier containment only.
fn open(
    incident: &Incident,
    target: &Resolved,
    began: Option<Began>,
    known: &HashMap<String, Vec<&Evidence>>,
) -> Vec<String> {
    let mut open = missing(incident, target, known);
    let of_it = known.get(&target.resource.arn()).map(Vec::as_slice).unwrap_or_default();
    let taken = |e: &Evidence| e.status.as_ref().and_then(|s| s.request.as_ref()).map(|r| r.at.0);
    let of_before = |e: &Evidence| is_complete(e) && !began.zip(taken(e)).is_some_and(|(began, at)| began.covers(e, at));
    for (name, _) in evidence::wanted(incident, target) {
        if of_it.iter().any(|e| e.name_any() == name && of_before(e)) {
            open.push(format!("{name}: taken before this containment; another Incident takes a new set"));
        }
    }
    open
}

/// The evidence that is not complete: what this Incident's policy asks for, and what any other has of the same resource.
fn missing(incident: &Incident, target: &Resolved, known: &HashMap<String, Vec<&Evidence>>) -> Vec<String> {
    let of_it = known.get(&target.resource.arn()).map(Vec::as_slice).unwrap_or_default();
    let absent = evidence::wanted(incident, target).map(|(name, _)| name);
    let absent = absent.filter(|name| !of_it.iter().any(|e| e.name_any() == *name));
    let open = of_it.iter().filter(|e| !is_complete(e)).map(|e| evidence::standing(&e.name_any(), Some(e)));
    absent.map(|name| evidence::standing(&name, None)).chain(open).collect()
}

/// By the ARN of its resource: there may be thousands of both.
fn by_arn<E: Borrow<Evidence>>(known: &[E]) -> HashMap<String, Vec<&Evidence>> {
    let mut by_arn: HashMap<String, Vec<&Evidence>> = HashMap::new();
    for evidence in known.iter().map(Borrow::borrow) {
        by_arn.entry(evidence.spec.resource.arn()).or_default().push(evidence);
    }
    by_arn
}

/// What to say of the Incident as a whole: what people must do goes before what time will do.
fn first(targets: &[Target]) -> Option<Refusal> {
    let all: Vec<(&Resolved, &Refusal)> = targets
        .iter()
        .filter_map(|t| t.resolved.as_ref().ok())
        .flat_map(|r| r.waiting.iter().map(move |w| (r, w)))
        .collect();
    let (of, what) = all.iter().find(|(_, w)| w.reason == approval::AWAITING).or(all.first())?;
    Some(Refusal::new(what.reason, format!("{}: {}", of.resource, what.message)))
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
