//! Security groups of the policy's own choice. Firebreak never edits them, so each is verified at every look: it may let through no
//! more than an allow-list could, and no more than when it was first used. One that does is left for the group without rules.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{AllowList, IsolateNetwork};

use super::allow::{Allowed, groups_on_record, in_force};
use super::{Look, key};
use crate::aws::{AwsError, Group, Interface, Session};
use crate::containment::case::Case;
use crate::containment::plan::{Plan, RECORDS};

/// What is allowed, with the groups of the policy's choice as far as they are verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Permit {
    pub(super) allowed: Allowed,
    /// By VPC.
    verified: BTreeMap<String, String>,
    /// Why others are not used.
    pub(super) refused: Vec<String>,
}

impl Permit {
    pub(super) fn of(case: &Case, params: &IsolateNetwork, look: &Look) -> Self {
        let mut permit = Self { allowed: in_force(case, params), ..Self::default() };
        for id in &permit.allowed.groups {
            match verify(case, look, id) {
                Ok((group, _)) => {
                    permit.verified.entry(group.vpc.clone()).or_insert_with(|| id.clone());
                }
                Err(why) => permit.refused.push(format!("{id} is not used, nothing gets through instead: {why}")),
            }
        }
        permit
    }

    /// The group for interfaces of this VPC.
    pub(super) fn custom(&self, vpc: &str) -> Option<&str> {
        self.verified.get(vpc).map(String::as_str)
    }

    /// Whether the interface is in such a group, and in no other.
    pub(super) fn has(&self, interface: &Interface) -> bool {
        self.custom(&interface.vpc).is_some_and(|id| interface.groups == [id])
    }

    /// What is allowed, in a few words; None where that is nothing.
    pub(super) fn said(&self) -> Option<String> {
        let groups: Vec<&str> = self.verified.values().map(String::as_str).collect();
        match (groups.is_empty(), self.allowed.list()) {
            (false, _) => Some(format!("what {} lets through", groups.join(", "))),
            (true, list) => list.map(|_| self.allowed.said()),
        }
    }
}

/// A group that may be used, and what it lets through; or why not.
fn verify<'a>(case: &Case, look: &'a Look, id: &str) -> Result<(&'a Group, Allowed), &'static str> {
    let group = look.custom.get(id).and_then(Option::as_ref).ok_or("AWS does not show it")?;
    let seen = Allowed::seen(group).ok_or(
        "it may name networks alone, of at least /8 (IPv6: /32), for tcp, udp or all, in at most 50 rules each way; \
         no other group, no prefix list",
    )?;
    let full = case.original.len() >= RECORDS;
    match (case.original.contains_key(&record_of(id)), case.recorded::<AllowList>(&record_of(id))) {
        (false, _) if full => Err("the record has no room for its rules"),
        (false, _) => Ok((group, seen)),
        (true, before) if seen.is_within(&Allowed::by(before.as_ref())) => Ok((group, seen)),
        (true, _) => Err("it lets through more than when it was first used"),
    }
}

/// Has recorded what each group that is used lets through.
pub(super) fn remember(plan: &mut Plan, case: &Case, look: &Look, permit: &Permit) {
    for id in permit.verified.values().filter(|id| !case.original.contains_key(&record_of(id))) {
        if let Ok((_, seen)) = verify(case, look, id) {
            plan.record(record_of(id), &seen.list().unwrap_or_default());
        }
    }
}

fn record_of(group: &str) -> String {
    key(&format!("rules-{group}"))
}

/// Reads the groups that are asked for, and those where interfaces may be of old. None: AWS shows no such group.
pub(super) async fn read(
    aws: &Session,
    case: &Case,
    params: Option<&IsolateNetwork>,
) -> Result<BTreeMap<String, Option<Group>>, AwsError> {
    let asked = params.iter().flat_map(|p| p.security_group_ids.iter().cloned());
    let recorded = groups_on_record(case.original.iter().map(|(key, text)| (key, text.clone())));
    let ids: BTreeSet<String> = asked.chain(recorded).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = aws.groups(case.instance().0, ids.iter().cloned().collect()).await?;
    let shown = |id: &String| found.iter().find(|g| g.id == *id).cloned();
    Ok(ids.iter().map(|id| (id.clone(), shown(id))).collect())
}

#[cfg(test)]
#[path = "custom_tests.rs"]
mod tests;
