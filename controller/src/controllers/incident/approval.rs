//! Approvals: which actions wait for other people, whose consent counts, and what the status says of it. Pure.
//!
//! The API server proves who made an Approval (the chart's admission policies); whether it counts is decided here, from
//! scratch each time.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};

use firebreak_crds::conditions::APPROVED;
use firebreak_crds::{Approval, ApprovalStatus, ContainAction, Incident};
use kube::ResourceExt;
use serde_json::json;

use super::resolve::{Refusal, Resolved, Target};
use crate::conditions::Conditions;
use crate::containment::{DESTRUCTIVE, grow, name_of};

/// What nobody does alone, whatever the policy says: nothing brings a terminated instance back.
const ALWAYS: [&str; 1] = ["terminateInstance"];
/// The name of no action: what all of a target's must clear.
const ALL: &str = "";
/// The reason of what waits for people.
pub const AWAITING: &str = "AwaitingApproval";
/// How the user name of a ServiceAccount begins. It is nobody in particular: whoever may write to its namespace can act as it.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// The groups that every ServiceAccount is in: who names one of them names nobody.
const EVERYBODY: [&str; 2] = ["system:authenticated", "system:serviceaccounts"];
/// As many approvers as the status has room for.
const SHOWN: usize = 64;

/// What there is to approve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// For the status: of several bars, the first that is not cleared.
    pub status: ApprovalStatus,
    /// The actions that need approval and are not held yet as the plan has them.
    pub new: Vec<&'static str>,
    /// So many instances of selectors are not held at all before.
    pub instances: usize,
    /// Whether approvals let any of them go.
    pub goes: bool,
    open: Vec<Bar>,
    waiting: Vec<&'static str>,
}

impl Asked {
    /// `new`: the actions that are not held yet, with their bars.
    fn of(status: ApprovalStatus, open: Vec<Bar>, new: &[(&'static str, Vec<Bar>)]) -> Self {
        let is_open = |(_, bars): &&(&'static str, Vec<Bar>)| bars.iter().any(|bar| open.contains(bar));
        let waiting: BTreeSet<&'static str> = new.iter().filter(is_open).map(|(n, _)| *n).collect();
        let goes = !new.iter().all(|n| is_open(&n));
        let new: BTreeSet<&'static str> = new.iter().map(|(n, _)| *n).collect();
        let (new, waiting) = (new.into_iter().collect(), waiting.into_iter().collect());
        Self { status, new, instances: 0, goes, waiting, open }
    }

    /// Whether as many people as are needed have approved.
    pub fn enough(&self) -> bool {
        self.open.is_empty()
    }

    /// The actions that wait.
    pub fn waiting(&self) -> &[&'static str] {
        &self.waiting
    }

    fn is_open(&self, bars: &[Bar]) -> bool {
        bars.iter().any(|bar| self.open.contains(bar))
    }
}

/// How many people must approve, and on whose behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bar {
    count: i32,
    group: Option<String>,
}

impl Bar {
    /// Whether whoever clears it clears the other too.
    fn implies(&self, other: &Self) -> bool {
        self.count >= other.count && (other.group.is_none() || self.group == other.group)
    }

    fn is_cleared_by(&self, people: &[String]) -> bool {
        i32::try_from(people.len()).is_ok_and(|n| n >= self.count)
    }
}

/// What an action of this name must clear for this target; none: it goes. What waits though the policy does not say so must
/// clear the account's bar, and the policy's where it has one.
fn bars(target: &Resolved, name: &str) -> Vec<Bar> {
    let caused = of_a_selector(target).is_some() || target.causes.iter().any(|c| c.concerns(name));
    let unasked = caused || ALWAYS.contains(&name);
    let policy = target.approvals.as_ref();
    if !unasked && !policy.is_some_and(|p| p.actions.iter().any(|a| a == name)) {
        return Vec::new();
    }
    let policy = policy.map(|p| Bar { count: p.count, group: p.group.clone() });
    let account = &target.account.spec.approvals;
    let account = unasked.then(|| Bar { count: account.count, group: account.group.clone() });
    match (policy, account) {
        (Some(policy), Some(account)) if policy.implies(&account) => vec![policy],
        (Some(policy), Some(account)) if account.implies(&policy) => vec![account],
        (policy, account) => policy.into_iter().chain(account).collect(),
    }
}

/// What there is to approve in the plan of this digest, and who did. None: nothing. `held` has the actions that this
/// Incident holds already, for each target.
pub fn asked<A: Borrow<Approval>>(
    incident: &Incident,
    digest: &str,
    targets: &[Target],
    held: &[Vec<ContainAction>],
    approvals: &[A],
) -> Option<Asked> {
    let resolved: Vec<(&Resolved, &Vec<ContainAction>)> =
        targets.iter().zip(held).filter_map(|(t, held)| t.resolved.as_ref().ok().map(|r| (r, held))).collect();
    let (mut actions, mut all, mut new) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (target, held) in &resolved {
        for (name, bars) in target.actions.iter().map(name_of).map(|n| (n, bars(target, n))).filter(|(_, b)| !b.is_empty()) {
            actions.insert(name);
            bars.into_iter().for_each(|bar| add(&mut all, bar));
        }
        let waits = hold_back(&target.actions, held, |n| !bars(target, n).is_empty()).1;
        new.extend(waits.into_iter().map(|n| (n, bars(target, n))));
    }
    let by = |bar: &Bar| who(incident, digest, bar.group.as_deref(), approvals);
    let open: Vec<Bar> = all.iter().filter(|bar| !bar.is_cleared_by(&by(bar))).cloned().collect();
    let Some(shown) = open.first().or(all.first()) else { return given_before(incident, digest, approvals) };
    let everybody = || all.iter().flat_map(by).collect::<BTreeSet<_>>().into_iter().collect();
    let mut approved_by: Vec<String> = if open.is_empty() { everybody() } else { by(shown) };
    approved_by.truncate(SHOWN);
    let actions = actions.into_iter().map(str::to_owned).collect();
    let (required, group) = (shown.count, shown.group.clone());
    let status = ApprovalStatus { digest: digest.to_owned(), required, group, actions, approved_by };
    let instances = resolved.iter().filter(|(r, _)| of_a_selector(r).is_some()).count();
    Some(Asked { instances, ..Asked::of(status, open, &new) })
}

/// Why all that is to be done to an instance that a selector chose needs approval.
fn of_a_selector(target: &Resolved) -> Option<&'static str> {
    target.chosen.as_ref().and_then(|c| c.awaits)
}

fn add(all: &mut Vec<Bar>, bar: Bar) {
    if !all.contains(&bar) {
        all.push(bar);
    }
}

/// What was asked for and given, of a plan that is the same still: that it was approved stays said when all of it is held.
fn given_before<A: Borrow<Approval>>(incident: &Incident, digest: &str, approvals: &[A]) -> Option<Asked> {
    let before = incident.status.as_ref()?.approval.as_ref().filter(|a| a.digest == digest)?;
    let approved_by = who(incident, digest, before.group.as_deref(), approvals);
    let bar = Bar { count: before.required, group: before.group.clone() };
    let status = ApprovalStatus { approved_by, ..before.clone() };
    bar.is_cleared_by(&status.approved_by).then(|| Asked::of(status, Vec::new(), &[]))
}

/// Whose approvals count: of this very Incident and plan, on behalf of the policy's group, by others than its authors. An
/// Incident that nobody put a name to has no other people. Where one of the two is a ServiceAccount, a group that is named vouches for
/// the other being somebody else.
fn who<A: Borrow<Approval>>(incident: &Incident, digest: &str, group: Option<&str>, approvals: &[A]) -> Vec<String> {
    let Some(author) = &incident.spec.requested_by else { return Vec::new() };
    let of_this = |a: &Approval| {
        let named = &a.spec.incident_ref;
        a.namespace() == incident.namespace()
            && named.name == incident.name_any()
            && Some(&named.uid) == incident.uid().as_ref()
    };
    let another = |name: &String| {
        let is_person = !is_service_account(name) && !is_service_account(author);
        name != author && !incident.spec.authors.contains(name) && (vouches(group) || is_person)
    };
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

/// Whether an approval on its behalf is somebody's in particular, also where a ServiceAccount asked or approves.
fn vouches(group: Option<&str>) -> bool {
    group.is_some_and(|group| !EVERYBODY.contains(&group))
}

fn is_service_account(name: &str) -> bool {
    name.starts_with(SERVICE_ACCOUNT)
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
    for (target, held) in targets.iter_mut().zip(held) {
        let Ok(target) = &mut target.resolved else { continue };
        let now = without(target, held, asked);
        let too_many = of_a_selector(target).is_some() || target.causes.iter().any(|c| c.evidence_too);
        if too_many && now.is_empty() {
            target.evidence.clear(); // asked for with the hold: nobody may fill an account with snapshots
        }
        target.actions = now;
    }
}

/// Says what waits, and takes nothing out: for a plan.
pub fn tell(targets: &mut [Target], held: &[Vec<ContainAction>], asked: Option<&Asked>) {
    for (target, held) in targets.iter_mut().zip(held) {
        let Ok(target) = &mut target.resolved else { continue };
        without(target, held, asked);
    }
}

/// What goes without any more approval, and the names of what waits.
fn split(target: &Resolved, held: &[ContainAction], asked: Option<&Asked>) -> (Vec<ContainAction>, Vec<&'static str>) {
    hold_back(&target.actions, held, |n| asked.is_some_and(|asked| asked.is_open(&bars(target, n))))
}

/// Whether anything of the target goes without any more approval.
pub fn goes(target: &Resolved, held: &[ContainAction], asked: Option<&Asked>) -> bool {
    !split(target, held, asked).0.is_empty()
}

/// What goes without approval. Notes the rest: of a target that stays open until then, nobody may read that it is contained.
fn without(target: &mut Resolved, held: &[ContainAction], asked: Option<&Asked>) -> Vec<ContainAction> {
    let (now, waiting) = split(target, held, asked);
    if waiting.is_empty() {
        return now;
    }
    let causes = target.causes.iter().filter(|c| waiting.iter().any(|n| c.concerns(n))).map(|c| c.why.clone());
    let causes: Vec<String> = causes.collect();
    let chosen = of_a_selector(target).map(|why| format!(": {why}")).unwrap_or_default();
    let since = if causes.is_empty() { String::new() } else { format!(", since {}", causes.join("; ")) };
    let why = chosen + &since;
    let what = format!("{} waits for approval{why}: the condition Approved says how to give it", waiting.join(", "));
    target.open = waiting.iter().any(|n| !DESTRUCTIVE.contains(n) && !held.iter().any(|h| name_of(h) == *n));
    target.waiting.push(Refusal::new(AWAITING, what));
    now
}

/// The instances that waited for this approval and have it, with the keys of the selectors that chose them.
pub fn given(targets: &[Target], asked: Option<&Asked>) -> HashSet<(String, String)> {
    let Some(asked) = asked else { return HashSet::new() };
    let resolved = targets.iter().filter_map(|t| t.resolved.as_ref().ok());
    let waited = resolved.filter(|r| of_a_selector(r).is_some());
    let chosen = waited.filter(|r| !asked.is_open(&bars(r, ALL))).filter_map(|r| Some((r, r.chosen.as_ref()?)));
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
    if !vouches(group.as_deref()) && is_service_account(author) {
        return waits
            + "None counts while spec.requestedBy is a ServiceAccount and no group is named but those that everybody is in (system:authenticated, system:serviceaccounts), since whoever approves may be who acts as it: name one in approvals.group of the policy, or of the AwsAccount for what waits though no policy says so; or put your own user name (kubectl auth whoami) into spec.requestedBy";
    }
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
