//! `tagResource`: a contained resource says so in AWS, for whoever looks there: which incident, how bad, and since when. And it carries a
//! copy of the record, from which a new cluster goes on (`second_copy.rs`).
//!
//! Marks, not a protection: whoever is in the account can write tags. They are put after the actions that cut, are not kept
//! against changes, and do not count for `Contained`. Nor does a copy that cannot be made: the status says why.

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, ResourceKind};
use serde::{Deserialize, Serialize};

use super::action::{Action, Merge};
use super::case::Case;
use super::given::no_such_key;
use super::plan::Plan;
use super::second_copy::{Keys, SecondCopy, fit, is_of_copy, room};
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, Outcome, Session};

/// The action's name.
pub const NAME: &str = "tagResource";
/// The tag that names the Incident.
pub const INCIDENT: &str = "firebreak.dev/incident";
pub(super) const SINCE: &str = "firebreak.dev/since";
/// How bad the worst of its Incidents was when it was marked.
pub(super) const SEVERITY: &str = "firebreak.dev/severity";
const MARKS: [&str; 3] = [INCIDENT, SINCE, SEVERITY];

/// The action.
pub struct TagResource;

/// What is observed; None where there is no such resource.
pub type Look = Option<Tagged>;

/// A resource's tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// AWS's unique id of the resource.
    pub(super) unique: String,
    pub(super) tags: BTreeMap<String, String>,
}

/// What is recorded: the tags of these names that were there before. None of a copy's: what was there was nobody's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Original {
    tags: BTreeMap<String, String>,
}

/// Whether a resource carries our mark.
fn is_marked(tags: &BTreeMap<String, String>) -> bool {
    tags.contains_key(INCIDENT)
}

/// Whether a resource carries a mark that neither this record nor one beside it knows of: somebody contained it before.
#[must_use]
pub fn is_marked_before(case: &Case, tags: &BTreeMap<String, String>) -> bool {
    let ours = case.original.contains_key(NAME) || case.beside.iter().any(|b| b.original.contains_key(NAME));
    is_marked(tags) && !ours
}

impl Merge for Keys {
    fn merge(&self, _: &Self) -> Self {
        self.clone()
    }

    fn kept() -> Self {
        Self::default()
    }
}

impl Action for TagResource {
    const NAME: &'static str = NAME;
    type Params = Keys;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.as_ref().map(|l| &l.tags)
    }

    fn user(look: &Look) -> Option<&str> {
        look.as_ref().map(|l| &*l.unique)
    }

    fn check(_: &str, _: &str) -> Result<(), String> {
        no_such_key()
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Keys>) -> Result<Look, AwsError> {
        let Some(region) = case.resource.region.as_deref() else {
            let identity = aws.identity(&case.principal()).await?;
            return Ok(identity.map(|i| Tagged { unique: i.id, tags: i.tags }));
        };
        Ok(aws.instance(region, &case.resource.id).await?.map(|i| Tagged { unique: i.id, tags: i.tags }))
    }

    fn contain(case: &Case, keys: &Keys, look: &Look) -> Plan {
        let Some(now) = look else { return Plan::done(ActionState::Failed, "the resource cannot be seen") };
        if is_marked_before(case, &now.tags) {
            // Whatever copy is there may be the only one that there is of the true original.
            return Plan::done(ActionState::InForce, "it carried Firebreak's marks before this record began: they stay");
        }
        let mut plan = Plan::default();
        if !case.original.contains_key(NAME) {
            plan.record(NAME, &Original { tags: marks_of(&now.tags) });
            return plan; // with it, the record is whole
        }
        let marks = marks(case, now);
        let (copy, said) = copy(case, keys, now, &marks);
        let mut missing = if is_marked(&now.tags) { BTreeMap::new() } else { marks };
        let stale = |key: &String| copy.as_ref().is_some_and(|copy| is_of_copy(key) && !copy.contains_key(key));
        let stale: BTreeMap<_, _> = now.tags.iter().filter(|(k, _)| stale(k)).map(own).collect();
        missing.extend(copy.iter().flatten().filter(|(k, v)| now.tags.get(*k) != Some(v)).map(own));
        plan.calls.extend((!missing.is_empty()).then(|| put(case, missing)));
        plan.calls.extend((!stale.is_empty()).then(|| delete(case, stale)));
        plan.settle(ActionState::InForce);
        plan.verdict.message = said;
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(Tagged { tags, .. }) = look else {
            let gone = || Plan::absent("the resource no longer exists");
            return if case.is_of_a_user() { not_shown(case, NAME) } else { gone() };
        };
        let mut plan = Plan::default();
        let original = case.recorded::<Original>(NAME).unwrap_or_default().tags;
        let now = ours(tags);
        if now != original {
            let gone: BTreeMap<_, _> = now.into_iter().filter(|(k, _)| !original.contains_key(k)).collect();
            plan.calls.extend((!gone.is_empty()).then(|| delete(case, gone)));
            plan.calls.extend((!original.is_empty()).then(|| put(case, original)));
        }
        plan.settle(ActionState::Released);
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        let Some(Tagged { tags: now, .. }) = look else { return };
        match call {
            Call::CreateTags { tags, .. } | Call::TagPrincipal { tags, .. } => now.extend(tags.clone()),
            Call::DeleteTags { tags, .. } | Call::UntagPrincipal { tags, .. } => now.retain(|k, _| !tags.contains_key(k)),
            _ => {}
        }
    }
}

/// The tags of the copy as they should be, none where it does not fit, None where they are left as they are; and what to say.
fn copy(
    case: &Case,
    keys: &Keys,
    now: &Tagged,
    marks: &BTreeMap<String, String>,
) -> (Option<BTreeMap<String, String>>, String) {
    if let Some(problem) = keys.problem() {
        return (None, format!("no copy of the original is kept in its tags: {problem}"));
    }
    let copy = SecondCopy::of(case).tags(&case.resource, &now.unique, keys).unwrap_or_default();
    let (needed, room) = (copy.len(), room(&now.tags, &marks.keys().map(String::as_str).collect::<Vec<_>>()));
    if needed > room {
        let said =
            format!("no copy of the original is kept in its tags: it takes {needed} of them, and there is room for {room}");
        return (Some(BTreeMap::new()), said); // an older one would speak of less than is on record
    }
    (Some(copy), format!("a copy of the original is kept in {needed} of its tags"))
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// All that is ours.
fn ours(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let copy = tags.iter().filter(|(k, _)| is_of_copy(k)).map(own);
    marks_of(tags).into_iter().chain(copy).collect()
}

fn marks_of(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().filter(|(k, _)| MARKS.contains(&k.as_str())).map(own).collect()
}

/// Those that are there, or are to be. The severity where there is room for it.
fn marks(case: &Case, now: &Tagged) -> BTreeMap<String, String> {
    let since = case.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let fits = if is_marked(&now.tags) { now.tags.contains_key(SEVERITY) } else { fit(&now.tags, &MARKS) };
    let worst = case.holders.iter().filter_map(|h| h.severity).max().filter(|_| fits);
    let severity = worst.map(|s| (SEVERITY.to_owned(), format!("{s:?}")));
    let marks = [(INCIDENT.to_owned(), case.incident.clone()), (SINCE.to_owned(), since)];
    marks.into_iter().chain(severity).collect()
}

fn put(case: &Case, tags: BTreeMap<String, String>) -> Call {
    match case.resource.kind {
        ResourceKind::Ec2Instance => Call::CreateTags { resource: case.resource.id.clone(), tags },
        _ => Call::TagPrincipal { principal: case.principal(), tags },
    }
}

fn delete(case: &Case, tags: BTreeMap<String, String>) -> Call {
    match case.resource.kind {
        ResourceKind::Ec2Instance => Call::DeleteTags { resource: case.resource.id.clone(), tags },
        _ => Call::UntagPrincipal { principal: case.principal(), tags },
    }
}

#[cfg(test)]
#[path = "tag_resource_tests.rs"]
mod tests;
