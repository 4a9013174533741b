//! Firebreak's own groups: made where they are missing, and kept with exactly the rules that they must have.

use std::collections::BTreeSet;

use super::allow::{Allowed, same};
use super::conversion::be_due;
use super::custom::Permit;
use super::{Look, swap};
use crate::aws::{Call, Change, Group, GroupRole, Interface, Rule};
use crate::containment::case::Case;
use crate::containment::plan::Plan;

/// The next calls that make an isolation group of a VPC ready, and whether it is: used ahead of incidents too.
#[must_use]
pub fn prepare_group(groups: &[Group], vpc: &str) -> (Vec<Call>, bool) {
    tend(groups, vpc, &Allowed::default())
}

/// The same for the group of what is allowed. Ready: read from AWS, and with those rules alone.
fn tend(groups: &[Group], vpc: &str, allowed: &Allowed) -> (Vec<Call>, bool) {
    let role = allowed.role();
    let Some(group) = find(groups, vpc, role) else {
        return (vec![Call::CreateSecurityGroup { vpc: vpc.to_owned(), role }], false);
    };
    let ([ingress, egress], id) = (allowed.rules(), || group.id.clone());
    let calls = [
        some(without(&group.ingress, &ingress)).map(|rules| Call::RevokeSecurityGroupIngress { group: id(), rules }),
        some(without(&group.egress, &egress)).map(|rules| Call::RevokeSecurityGroupEgress { group: id(), rules }),
        some(without(&ingress, &group.ingress)).map(|rules| Call::AuthorizeSecurityGroupIngress { group: id(), rules }),
        some(without(&egress, &group.egress)).map(|rules| Call::AuthorizeSecurityGroupEgress { group: id(), rules }),
    ];
    let calls: Vec<Call> = calls.into_iter().flatten().collect();
    let ready = calls.is_empty() && group.read;
    (calls, ready)
}

/// The rules that are none of the others.
fn without(rules: &[Rule], others: &[Rule]) -> Vec<Rule> {
    rules.iter().filter(|rule| !others.iter().any(|other| same(rule, other))).cloned().collect()
}

fn some(rules: Vec<Rule>) -> Option<Vec<Rule>> {
    (!rules.is_empty()).then_some(rules)
}

pub(super) fn find<'a>(groups: &'a [Group], vpc: &str, role: GroupRole) -> Option<&'a Group> {
    groups.iter().find(|g| g.vpc == vpc && g.name == role.group_name())
}

/// Whether a group lets through no more than is allowed, as far as it is known.
fn is_within(group: &Group, allowed: &Allowed) -> bool {
    let [ingress, egress] = allowed.rules();
    without(&group.ingress, &ingress).is_empty() && without(&group.egress, &egress).is_empty()
}

impl Look {
    /// The group of this VPC in which only this is allowed; None where it is not known to be so.
    pub(super) fn ready(&self, vpc: &str, allowed: &Allowed) -> Option<&Group> {
        tend(&self.groups, vpc, allowed).1.then(|| self.group(vpc, allowed.role())).flatten()
    }

    /// The group in which an interface may do what is allowed; None where it is not known to be so.
    fn admitting<'a>(&'a self, vpc: &str, permit: &'a Permit) -> Option<&'a str> {
        let of_list = || self.ready(vpc, &permit.allowed).map(|g| g.id.as_str());
        if permit.allowed.groups.is_empty() { of_list() } else { permit.custom(vpc) }
    }

    /// Where an interface goes: to the group of what is allowed once that is verified, until then to the one without rules.
    pub(super) fn refuge<'a>(&'a self, vpc: &str, permit: &'a Permit) -> Option<&'a str> {
        self.admitting(vpc, permit).or_else(|| self.ready(vpc, &Allowed::default()).map(|g| g.id.as_str()))
    }

    /// Whether the interface is in the group of what is allowed, and that lets through no more. One that lets through more is left
    /// at once, whether or not its rules can be put right.
    pub(super) fn in_allowed(&self, interface: &Interface, permit: &Permit) -> bool {
        if !permit.allowed.groups.is_empty() {
            return permit.has(interface);
        }
        let group = self.group(&interface.vpc, permit.allowed.role());
        group.is_some_and(|g| interface.groups == [g.id.clone()] && is_within(g, &permit.allowed))
    }

    /// Whether rules were taken out of a group of the interface since its window was over.
    fn was_emptied_since(&self, case: &Case, interface: &Interface) -> bool {
        let of_it = self.groups.iter().filter(|g| interface.groups.contains(&g.id));
        of_it.filter_map(|g| g.emptied).any(|at| case.converted_before(&interface.id, at))
    }

    /// Whether the groups of all isolated interfaces let through no more than is allowed.
    pub(super) fn holds(&self, permit: &Permit) -> bool {
        let (none, allowed) = (Allowed::default(), &permit.allowed);
        let of = |group: &Group| if group.name == allowed.role().group_name() { allowed } else { &none };
        self.own().all(|i| match self.groups.iter().find(|g| i.groups == [g.id.clone()]) {
            Some(group) => group.read && is_within(group, of(group)),
            None => permit.has(i),
        })
    }
}

fn vpcs(look: &Look) -> BTreeSet<&str> {
    look.own().map(|i| i.vpc.as_str()).collect()
}

/// Makes the isolation group of each VPC, and empties it. Through what was in it flows may have begun, which AWS goes on tracking, also
/// where another look than this one found and emptied it.
pub(super) fn prepare(plan: &mut Plan, case: &Case, look: &Look) {
    for vpc in vpcs(look) {
        let (calls, ready) = prepare_group(&look.groups, vpc);
        plan.look_again |= calls.is_empty() && !ready;
        if !calls.is_empty() && look.group(vpc, GroupRole::Isolation).is_some_and(|g| g.read) {
            plan.verdict.drift.push(format!("rules in the isolation group of {vpc}"));
            let within = look.own().filter(|i| i.vpc == vpc && look.in_group(i, GroupRole::Isolation));
            within.for_each(|interface| be_due(plan, case, interface));
        }
        plan.calls.extend(calls);
    }
    for interface in look.own().filter(|i| look.was_emptied_since(case, i)) {
        be_due(plan, case, interface);
    }
}

/// Makes the group of what is allowed, keeps its rules, and moves what is isolated there. Nothing waits for it.
pub(super) fn admit(plan: &mut Plan, case: &Case, look: &Look, permit: &Permit) {
    let allowed = &permit.allowed;
    if allowed.is_empty() {
        return;
    }
    for vpc in vpcs(look).into_iter().filter(|_| allowed.groups.is_empty()) {
        let (calls, ready) = tend(&look.groups, vpc, allowed);
        plan.look_again |= calls.is_empty() && !ready;
        let used = look.own().any(|i| i.vpc == vpc && look.in_group(i, allowed.role()));
        if used && !calls.is_empty() && look.group(vpc, allowed.role()).is_some_and(|g| g.read) {
            plan.verdict.drift.push(format!("rules in the group of the allow-list of {vpc}"));
        }
        plan.calls.extend(calls);
    }
    for interface in look.own().filter(|i| look.in_group(i, GroupRole::Isolation)) {
        let opens = plan.windows.iter().any(|window| window.interface == interface.id);
        let recorded = case.original.contains_key(&super::key(&interface.id)) || case.is_noted_unknown(super::NAME);
        if let (false, true, Some(group)) = (opens, recorded, look.admitting(&interface.vpc, permit)) {
            plan.calls.push(swap(&interface.id, group, Change::Isolate));
        }
    }
}
