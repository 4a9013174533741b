//! Approvals: which actions wait for other people, whose consent counts, and what the status says of it. Pure.
//!
//! The API server proves who made an Approval (the chart's admission policies); whether it counts is decided here, from
//! scratch each time.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};

use firebreak_crds::conditions::APPROVED;
use firebreak_crds::{Approval, ApprovalPolicy, ApprovalStatus, ContainAction, Incident};
use kube::ResourceExt;
use serde_json::json;

use super::resolve::{Refusal, Resolved, Target};
use crate::conditions::Conditions;
use crate::containment::{digest, grow, name_of};

/// What nobody does alone, whatever the policy says: nothing brings a terminated instance back.
const ALWAYS: [&str; 1] = ["terminateInstance"];
/// The reason of what waits for people.
pub const AWAITING: &str = "AwaitingApproval";
/// As many approvers as the status has room for.
const SHOWN: usize = 64;

/// What there is to approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For the status.
    pub status: ApprovalStatus,
    /// The actions that need approval and are not held yet as the plan has them.
    pub new: Vec<&'static str>,
    /// So many instances of selectors are not held at all before.
    pub instances: usize,
}

impl Asked {
    /// Whether as many people as are needed have approved.
    pub fn enough(&self) -> bool {
        i32::try_from(self.status.approved_by.len()).is_ok_and(|n| n >= self.status.required)
    }

    /// The actions that wait.
    pub fn waiting(&self) -> &[&'static str] {
        if self.enough() { &[] } else { &self.new }
    }
}

/// What there is to approve in the plan as it stands now, and who did. None: nothing. `held` has the actions that this
/// Incident holds already, for each target.
pub fn asked<A: Borrow<Approval>>(
    incident: &Incident,
    targets: &[Target],
    held: &[Vec<ContainAction>],
    approvals: &[A],
) -> Option<Asked> {
    let resolved: Vec<(&Resolved, &Vec<ContainAction>)> =
        targets.iter().zip(held).filter_map(|(t, held)| t.resolved.as_ref().ok().map(|r| (r, held))).collect();
    let needing = |r: &Resolved| r.actions.iter().map(name_of).filter(|n| waits(r, n)).collect::<Vec<_>>();
    let actions: BTreeSet<&str> = resolved.iter().flat_map(|(r, _)| needing(r)).collect();
    if actions.is_empty() {
        return None;
    }
    let new: BTreeSet<&str> = resolved.iter().flat_map(|(r, held)| hold_back(&r.actions, held, |n| waits(r, n)).1).collect();
    let instances = resolved.iter().filter(|(r, _)| of_a_selector(r).is_some()).count();
    let policy = resolved.iter().find_map(|(r, _)| r.approvals.as_ref());
    let group = policy.and_then(|p| p.group.clone());
    let digest = digest(&resolved.iter().map(|(r, _)| (r.resource.clone(), r.actions.clone())).collect::<Vec<_>>());
    let mut by = who(incident, &digest, group.as_deref(), approvals);
    by.truncate(SHOWN);
    let status = ApprovalStatus {
        digest,
        required: policy.map_or(1, |p| p.count),
        group,
        actions: actions.into_iter().map(str::to_owned).collect(),
        approved_by: by,
    };
    Some(Asked { status, new: new.into_iter().collect(), instances })
}

/// Whether an action of this name needs approval for this target.
fn waits(target: &Resolved, name: &str) -> bool {
    of_a_selector(target).is_some() || needed(target.approvals.as_ref(), name)
}

/// Why all that is to be done to an instance that a selector chose needs approval.
fn of_a_selector(target: &Resolved) -> Option<&'static str> {
    target.chosen.as_ref().and_then(|c| c.awaits)
}

/// Whether an action of this name needs approval.
pub fn needed(policy: Option<&ApprovalPolicy>, name: &str) -> bool {
    ALWAYS.contains(&name) || policy.is_some_and(|p| p.actions.iter().any(|a| a == name))
}

/// Whose approvals count: of this very Incident and plan, on behalf of the policy's group, by others than its authors. An
/// Incident that nobody put a name to has no other people.
fn who<A: Borrow<Approval>>(incident: &Incident, digest: &str, group: Option<&str>, approvals: &[A]) -> Vec<String> {
    let Some(author) = &incident.spec.requested_by else { return Vec::new() };
    let of_this = |a: &Approval| {
        let named = &a.spec.incident_ref;
        a.namespace() == incident.namespace()
            && named.name == incident.name_any()
            && Some(&named.uid) == incident.uid().as_ref()
    };
    let another = |name: &String| name != author && !incident.spec.authors.contains(name);
    let counts = |a: &&Approval| {
        let spec = &a.spec;
        of_this(a)
            && a.metadata.deletion_timestamp.is_none()
            && spec.plan_digest == digest
            && another(&spec.approved_by)
            && group.is_none_or(|group| spec.groups.iter().any(|g| g == group))
    };
    let people: BTreeSet<String> =
        approvals.iter().map(Borrow::borrow).filter(counts).map(|a| a.spec.approved_by.clone()).collect();
    people.into_iter().collect()
}

/// What may be held now, and the names of what waits. What is held already stays, as it is held: a stricter parameter waits
/// like an action.
pub fn hold_back(
    actions: &[ContainAction],
    held: &[ContainAction],
    waits: impl Fn(&str) -> bool,
) -> (Vec<ContainAction>, Vec<&'static str>) {
    let (mut now, mut waiting) = (Vec::new(), Vec::new());
    for action in actions {
        let name = name_of(action);
        let mine = held.iter().find(|h| name_of(h) == name);
        if !waits(name) || mine.is_some_and(|mine| changes_nothing(mine, action)) {
            now.push(action.clone());
        } else {
            waiting.push(name);
            now.extend(mine.cloned());
        }
    }
    (now, waiting)
}

fn changes_nothing(held: &ContainAction, asked: &ContainAction) -> bool {
    grow(std::slice::from_ref(held), std::slice::from_ref(asked)).0 == [held.clone()]
}

/// Takes what waits for approval out of what each target asks for; all else goes at once.
pub fn take_out(targets: &mut [Target], held: &[Vec<ContainAction>], asked: Option<&Asked>) {
    let waiting = asked.map(Asked::waiting).unwrap_or_default();
    for (target, held) in targets.iter_mut().zip(held) {
        let Ok(target) = &mut target.resolved else { continue };
        let (now, waiting) = hold_back(&target.actions, held, |n| waiting.contains(&n) && waits(target, n));
        if !waiting.is_empty() {
            let why = of_a_selector(target).map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{} waits for approval{why}: the condition Approved says how to give it", waiting.join(", "));
            target.waiting.push(Refusal::new(AWAITING, what));
        }
        if of_a_selector(target).is_some() && now.is_empty() {
            target.evidence.clear(); // asked for with the hold: nobody may fill an account with snapshots
        }
        target.actions = now;
    }
}

/// The instances that waited for this approval and have it, with the keys of the selectors that chose them.
pub fn given(targets: &[Target], asked: Option<&Asked>) -> HashSet<(String, String)> {
    if !asked.is_some_and(Asked::enough) {
        return HashSet::new();
    }
    let resolved = targets.iter().filter_map(|t| t.resolved.as_ref().ok());
    let chosen = resolved.filter(|r| of_a_selector(r).is_some()).filter_map(|r| Some((r, r.chosen.as_ref()?)));
    chosen.map(|(r, choice)| (choice.selector.clone(), r.resource.id.clone())).collect()
}

/// The condition `Approved`, where something needs approval.
pub fn condition(c: &mut Conditions<'_>, incident: &Incident, asked: Option<&Asked>) {
    let Some(asked) = asked else { return };
    match (asked.enough(), asked.waiting().is_empty()) {
        (true, _) => c.set(APPROVED, "True", "Approved", format!("approved by {}", asked.status.approved_by.join(", "))),
        (_, true) => {
            let what = "what needs approval was approved, and is held: deleting an Approval takes nothing away";
            c.set(APPROVED, "True", "Approved", what);
        }
        _ => c.set(APPROVED, "False", AWAITING, how(incident, asked)),
    }
}

/// What waits, and what to do.
fn how(incident: &Incident, asked: &Asked) -> String {
    let ApprovalStatus { required, group, approved_by, .. } = &asked.status;
    let who = group.as_ref().map_or_else(String::new, |group| format!(", given on behalf of the group {group}"));
    let of = match asked.instances {
        0 => String::new(),
        n => format!(", all of it for {n} instances that a selector may not take by itself,"),
    };
    let waits = format!("{}{of} waits for approval: {} of {required} given{who}. ", asked.new.join(", "), approved_by.len());
    let Some(author) = &incident.spec.requested_by else {
        return waits + "None counts while spec.requestedBy is empty: set it to your own user name (kubectl auth whoami)";
    };
    let namespace = incident.namespace().unwrap_or_default();
    let command =
        format!("kubectl create -n {namespace} -f - <<< '{}'", blank(incident, asked).to_string().replace('\'', r"\u0027"));
    format!(
        "{waits}Somebody else than {author} looks at this plan, and runs, with their own user name (kubectl auth whoami): {command}"
    )
}

/// The Approval that is asked for, to be filled in.
fn blank(incident: &Incident, asked: &Asked) -> serde_json::Value {
    json!({
        "apiVersion": "firebreak.dev/v1alpha1",
        "kind": "Approval",
        "metadata": { "generateName": format!("{}-", incident.name_any()) },
        "spec": {
            "incidentRef": { "name": incident.name_any(), "uid": incident.uid() },
            "planDigest": asked.status.digest,
            "approvedBy": "YOUR-NAME",
            "groups": asked.status.group.iter().collect::<Vec<_>>(),
        },
    })
}

/// What a plan says of it.
pub fn note(asked: Option<&Asked>) -> String {
    match asked.map(Asked::waiting).unwrap_or_default() {
        [] => String::new(),
        waiting => format!(", of which {} waits for approval (condition Approved)", waiting.join(", ")),
    }
}

#[cfg(test)]
#[path = "approval_tests.rs"]
pub mod tests;
