//! `tagResource`: a contained resource says so in AWS, for whoever looks there: which incident, and since when.
//!
//! A mark, not a protection: whoever is in the account can write tags. It is put after the actions that cut, is not kept
//! against changes, and does not count for `Contained`.

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, ResourceKind};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::drive::Action;
use super::plan::Plan;
use crate::aws::{AwsError, Call, Outcome, Session};

/// The action's name.
pub const NAME: &str = "tagResource";
/// The tag that names the Incident.
pub const INCIDENT: &str = "firebreak.dev/incident";
const SINCE: &str = "firebreak.dev/since";

/// The action.
pub struct TagResource;

/// What is observed: the resource's tags; None where there is no such resource.
pub type Look = Option<BTreeMap<String, String>>;

/// What is recorded: the tags of these names that were there before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Original {
    tags: BTreeMap<String, String>,
}

/// Whether a resource carries our mark.
fn is_marked(tags: &BTreeMap<String, String>) -> bool {
    tags.contains_key(INCIDENT)
}

/// Whether a resource carries a mark that this record knows nothing of: somebody contained it before.
#[must_use]
pub fn is_marked_before(case: &Case, tags: &BTreeMap<String, String>) -> bool {
    is_marked(tags) && !case.has_record_of(NAME)
}

impl Action for TagResource {
    const NAME: &'static str = NAME;
    type Params = Empty;
    type Look = Look;

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let Some(region) = case.resource.region.as_deref() else {
            return Ok(aws.identity(&case.principal()).await?.map(|i| i.tags));
        };
        Ok(aws.instance(region, &case.resource.id).await?.map(|i| i.tags))
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(tags) = look else { return Plan::done(ActionState::Failed, "the resource cannot be seen") };
        let mut plan = Plan::default();
        if !case.has_record_of(NAME) && !is_marked(tags) {
            plan.record(NAME, &Original { tags: ours(tags) });
        }
        if !is_marked(tags) {
            plan.calls.push(put(case, marks(case)));
        }
        plan.settle(ActionState::InForce);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(tags) = look else { return Plan::done(ActionState::Released, "the resource no longer exists") };
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
        let Some(now) = look else { return };
        match call {
            Call::CreateTags { tags, .. } | Call::TagPrincipal { tags, .. } => now.extend(tags.clone()),
            Call::DeleteTags { tags, .. } | Call::UntagPrincipal { tags, .. } => now.retain(|k, _| !tags.contains_key(k)),
            _ => {}
        }
    }
}

fn ours(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    tags.iter().filter(|(k, _)| [INCIDENT, SINCE].contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn marks(case: &Case) -> BTreeMap<String, String> {
    let since = case.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    BTreeMap::from([(INCIDENT.to_owned(), case.incident.clone()), (SINCE.to_owned(), since)])
}

fn put(case: &Case, tags: BTreeMap<String, String>) -> Call {
    match case.resource.kind {
        ResourceKind::Ec2Instance => Call::CreateTags { resource: case.resource.id.clone(), tags },
        ResourceKind::IamUser | ResourceKind::IamRole => Call::TagPrincipal { principal: case.principal(), tags },
    }
}

fn delete(case: &Case, tags: BTreeMap<String, String>) -> Call {
    match case.resource.kind {
        ResourceKind::Ec2Instance => Call::DeleteTags { resource: case.resource.id.clone(), tags },
        ResourceKind::IamUser | ResourceKind::IamRole => Call::UntagPrincipal { principal: case.principal(), tags },
    }
}

#[cfg(test)]
#[path = "tag_resource_tests.rs"]
mod tests;
