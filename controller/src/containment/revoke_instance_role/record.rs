//! What is on record of an instance's role: each association with the role that it gave, from when on it was gone, and what there
//! was no room for.
//!
//! The key of an association is its id. Where another role than that of the record gives the instance credentials by it, which
//! somebody swapped into the profile, or into Firebreak's own, it is `<association>.<role id>.<second>`: the same role may come twice.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{InstanceRole, Look, Original};
use crate::aws::{Instance, ProfileAssociation, ProfileRole, is_deny_profile};
use crate::containment::action::Action;
use crate::containment::case::Case;
use crate::containment::plan::{Plan, RECORDS};
use crate::containment::tag_resource::is_marked_before;

/// It is noted here that an association could not be recorded.
pub const LOST: &str = "lost";

/// IAM never showed it.
pub struct NotSeen;

/// What is recorded of each association that gives the instance a role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub profile: String,
    pub role: Option<ProfileRole>,
    /// IAM did not show which role is in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unread: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub fn is_false(it: &bool) -> bool {
    !it
}

pub fn key(sub: &str) -> String {
    format!("{}/{sub}", InstanceRole::NAME)
}

/// When an association was first seen to be gone.
fn off_key(sub: &str) -> String {
    key(&format!("off-{sub}"))
}

/// Every association on record, with its key.
pub fn taken(case: &Case) -> impl Iterator<Item = (&str, Taken)> {
    let subs = case.records_of(InstanceRole::NAME).filter(|sub| sub.starts_with("iip-assoc-"));
    subs.filter_map(|sub| Some((sub, case.recorded(&key(sub))?)))
}

/// The associations of which IAM did not show the role, and has not since: their profiles.
pub fn unseen(case: &Case) -> impl Iterator<Item = (&str, String)> {
    let later = |id: &str| taken(case).any(|(sub, _)| sub.split_once('.').is_some_and(|(a, _)| a == id));
    taken(case).filter(move |(id, t)| t.unread && !later(id)).map(|(id, t)| (id, t.profile))
}

/// When it was seen to be gone.
pub fn off(case: &Case, sub: &str) -> Option<Timestamp> {
    case.recorded(&off_key(sub))
}

/// Two more entries may be needed for an association.
fn has_room(case: &Case) -> bool {
    case.original.len() + 2 <= RECORDS
}

/// The roles that what the instance has gives it, as far as there is room to record them.
pub fn given(case: &Case, look: &Look) -> impl Iterator<Item = ProfileRole> {
    let giving = look.giving().filter(|(a, role)| unrecorded(case, a, *role).is_none() || has_room(case));
    giving.filter_map(|(_, role)| role.cloned())
}

/// Notes what there is, and what is no longer there.
pub fn record(plan: &mut Plan, case: &Case, look: &Look, instance: &Instance) {
    let nothing = instance.is_ended() && look.associations.is_empty();
    if !case.original.contains_key(InstanceRole::NAME) {
        let ours = is_marked_before(case, &instance.tags) || look.ours().is_some();
        if case.is_unknown(InstanceRole::NAME) || (ours && !nothing) {
            plan.unknown(case, InstanceRole::NAME);
        } else if !nothing {
            plan.record(InstanceRole::NAME, &original(look));
        }
    }
    for (a, role) in look.giving() {
        let Some(sub) = unrecorded(case, a, role) else { continue };
        note(plan, case, &sub, &Taken::of(&a.profile, role, look));
    }
    for (id, profile) in unseen(case) {
        let Some(role) = look.profiles.get(&profile).and_then(|p| p.role.as_ref()) else { continue };
        note(plan, case, &later_key(case, id, role), &Taken::of(&profile, Some(role), look));
    }
    note_gone(plan, case, look);
}

impl Taken {
    fn of(profile: &str, role: Option<&ProfileRole>, look: &Look) -> Self {
        Self { profile: profile.to_owned(), role: role.cloned(), unread: look.unread.contains_key(profile) }
    }
}

fn note(plan: &mut Plan, case: &Case, sub: &str, taken: &Taken) {
    if has_room(case) {
        plan.record(key(sub), taken);
    } else if !case.original.contains_key(&key(LOST)) {
        plan.record(key(LOST), &case.now);
    }
}

fn original(look: &Look) -> Original {
    let Some(a) = look.foreign().next() else { return Original::default() };
    let role = look.profile(a).and_then(|p| p.role.clone());
    Original { profile: Some(a.profile.clone()), role, unread: look.unread.contains_key(&a.profile) }
}

/// Under which key an association with that role is to be recorded, if it is not.
fn unrecorded(case: &Case, a: &ProfileAssociation, role: Option<&ProfileRole>) -> Option<String> {
    let first = case.recorded::<Taken>(&key(&a.id));
    if first.is_none() && !is_deny_profile(&a.profile) {
        return Some(a.id.clone());
    }
    let role = role.filter(|role| first.and_then(|t| t.role).as_ref() != Some(*role))?;
    let prefix = format!("{}.{}.", a.id, role.id);
    let known = taken(case).any(|(sub, _)| sub.starts_with(&prefix) && off(case, sub).is_none());
    (!known).then(|| later_key(case, &a.id, role))
}

fn later_key(case: &Case, association: &str, role: &ProfileRole) -> String {
    format!("{association}.{}.{}", role.id, case.now.as_second())
}

pub fn note_gone(plan: &mut Plan, case: &Case, look: &Look) {
    for (sub, _) in taken(case).filter(|(sub, _)| !is_there(look, sub) && off(case, sub).is_none()) {
        plan.record(off_key(sub), &case.now);
    }
}

/// Whether an association on record gives the instance its role still. What was not read is still there.
fn is_there(look: &Look, sub: &str) -> bool {
    let (id, role) = sub.split_once('.').map_or((sub, None), |(id, rest)| (id, rest.split('.').next()));
    let Some(a) = look.associations.iter().find(|a| a.id == id) else { return false };
    let has = |role| look.profile(a).is_none_or(|p| p.role.as_ref().is_some_and(|r| r.id == role));
    role.is_none_or(has)
}

/// The role that was in the profile that the instance had. Where IAM did not show it at first, it is the one that was seen in it
/// later, if there was but one.
pub fn role_before(case: &Case, original: &Original) -> Result<Option<ProfileRole>, NotSeen> {
    if !original.unread {
        return Ok(original.role.clone());
    }
    let of_it = taken(case).filter(|(_, t)| Some(&t.profile) == original.profile.as_ref()).filter_map(|(_, t)| t.role);
    let mut seen: Vec<ProfileRole> = of_it.collect();
    seen.dedup();
    if seen.len() == 1 { Ok(seen.pop()) } else { Err(NotSeen) }
}
