//! What an approval names: the digest of all that an Incident asks for, as its spec and its policy say it.
//!
//! It is of every target that the spec names, whether or not it can be held now: else whoever deletes a key, slows AWS down or fills
//! a limit would make another plan, and the approval of it would count no more.

use firebreak_crds::{AccessKeyScope, ContainmentPolicySpec, Incident, Resource, ResourceKind, Target};

use super::resolve;
use super::selector::{self, Chosen};
use crate::containment::{Planned, digest};
use crate::stores::Stores;

/// The digest of the plan as it stands now. `chosen`: what the selectors stand for.
pub fn of(stores: &Stores, incident: &Incident, chosen: &Chosen) -> String {
    let policy = Stores::named(&stores.policies, &incident.spec.policy_ref.name).map(|p| p.spec.clone()).unwrap_or_default();
    let named = incident.spec.targets.iter().flat_map(|target| resources(stores, chosen, target));
    let plan: Vec<Planned> = named.map(|resource| planned(&policy, resource)).collect();
    digest(&plan, policy.approvals.as_ref())
}

/// What a target names, without asking AWS. Nothing where its account is not known.
fn resources(stores: &Stores, chosen: &Chosen, target: &Target) -> Vec<Resource> {
    let Some(selector) = &target.ec2_selector else {
        return resolve::located(target, stores).map(|(resource, _)| resource).into_iter().collect();
    };
    let (Some(selection), Ok(account)) = (chosen.of(selector), resolve::account(&selector.account_ref, stores)) else {
        return Vec::new();
    };
    let instance = |(id, _): (&String, _)| selector::resource(&selection.record, &account.spec.account_id, id);
    selection.choices().map(instance).collect()
}

/// An access key stands for itself, also where it is its user that is contained: who that is, AWS says.
fn planned(policy: &ContainmentPolicySpec, resource: Resource) -> Planned {
    let of_the_user = policy.access_key.as_ref().is_some_and(|k| k.scope == AccessKeyScope::User);
    let kind = match resource.kind {
        ResourceKind::AccessKey if of_the_user => ResourceKind::IamUser,
        kind => kind,
    };
    let (actions, evidence) = resolve::of_policy(policy, kind);
    Planned { resource, actions, evidence }
}

#[cfg(test)]
#[path = "plan_digest_tests.rs"]
mod tests;
