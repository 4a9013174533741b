//! What is wanted of a resource: the actions of all its holders, merged; and how a hold may change.

use firebreak_crds::{ContainAction, Empty, Holder, IsolateNetwork, Resource};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::deactivate_access_keys::Keys;
use super::deny_all::DenyAll;
use super::drive::{self, Action, DryRun, Pass, Report};
use super::isolate_network::{self, Isolation};
use super::tag_resource::TagResource;
use crate::aws::{AwsError, Session};

/// One action with its merged parameters: the one list of what can be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// EC2 instance.
    IsolateNetwork(IsolateNetwork),
    /// IAM user.
    DenyAll(Empty),
    /// IAM user.
    DeactivateAccessKeys(Empty),
    /// Any resource; always last.
    TagResource(Empty),
}

impl Wanted {
    /// The action's name, as the policy has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::IsolateNetwork(_) => Isolation::NAME,
            Self::DenyAll(_) => DenyAll::NAME,
            Self::DeactivateAccessKeys(_) => Keys::NAME,
            Self::TagResource(_) => TagResource::NAME,
        }
    }

    /// Carries it out, or takes it back.
    pub async fn run(&self, pass: &Pass<'_>) -> Report {
        match self {
            Self::IsolateNetwork(p) => Box::pin(drive::run::<Isolation>(pass, p)).await,
            Self::DenyAll(p) => Box::pin(drive::run::<DenyAll>(pass, p)).await,
            Self::DeactivateAccessKeys(p) => Box::pin(drive::run::<Keys>(pass, p)).await,
            Self::TagResource(p) => Box::pin(drive::run::<TagResource>(pass, p)).await,
        }
    }

    /// What `run` would do, reading only.
    ///
    /// # Errors
    /// When AWS cannot be read.
    pub async fn dry_run(&self, aws: &Session, case: &super::Case) -> Result<DryRun, AwsError> {
        match self {
            Self::IsolateNetwork(p) => Box::pin(drive::dry_run::<Isolation>(aws, case, p)).await,
            Self::DenyAll(p) => Box::pin(drive::dry_run::<DenyAll>(aws, case, p)).await,
            Self::DeactivateAccessKeys(p) => Box::pin(drive::dry_run::<Keys>(aws, case, p)).await,
            Self::TagResource(p) => Box::pin(drive::dry_run::<TagResource>(aws, case, p)).await,
        }
    }
}

/// The actions of all holders, merged; and those on record that no holder asks for any more, since nothing is given back
/// before the last lets go.
#[must_use]
pub fn wanted<'a>(holders: &'a [Holder], recorded: impl Iterator<Item = &'a String>) -> Vec<Wanted> {
    let mut sum = holders.iter().flat_map(|h| &h.actions).fold(ContainAction::default(), |sum, a| merge(&sum, a));
    for key in recorded {
        match key.split('/').next() {
            Some(Isolation::NAME) => sum.isolate_network = sum.isolate_network.or(Some(kept())),
            Some(DenyAll::NAME) => sum.deny_all = Some(Empty {}),
            Some(Keys::NAME) => sum.deactivate_access_keys = Some(Empty {}),
            _ => {}
        }
    }
    let all = [
        sum.isolate_network.map(Wanted::IsolateNetwork),
        sum.deny_all.map(Wanted::DenyAll),
        sum.deactivate_access_keys.map(Wanted::DeactivateAccessKeys),
    ];
    all.into_iter().flatten().collect()
}

/// Isolation that nobody asks for any more is kept, without new conversions.
fn kept() -> IsolateNetwork {
    IsolateNetwork { sever_tracked_connections: firebreak_crds::SeverTrackedConnections::Never }
}

/// The stricter of each parameter.
fn merge(a: &ContainAction, b: &ContainAction) -> ContainAction {
    ContainAction {
        isolate_network: match (&a.isolate_network, &b.isolate_network) {
            (Some(a), Some(b)) => Some(isolate_network::merge(a, b)),
            (a, b) => a.clone().or_else(|| b.clone()),
        },
        deny_all: a.deny_all.or(b.deny_all),
        deactivate_access_keys: a.deactivate_access_keys.or(b.deactivate_access_keys),
    }
}

/// The name of the one action that an item has.
#[must_use]
pub fn name_of(action: &ContainAction) -> &'static str {
    match action {
        ContainAction { isolate_network: Some(_), .. } => Isolation::NAME,
        ContainAction { deny_all: Some(_), .. } => DenyAll::NAME,
        ContainAction { deactivate_access_keys: Some(_), .. } => Keys::NAME,
        _ => "none",
    }
}

/// A hold only grows: what the policy adds is added; a parameter changes only where the new one is the stricter; what the
/// policy takes away stays. Returns the new actions, and the names of those that stay though the policy has them no more.
#[must_use]
pub fn grow(held: &[ContainAction], policy: &[ContainAction]) -> (Vec<ContainAction>, Vec<&'static str>) {
    let same = |a: &ContainAction, b: &ContainAction| name_of(a) == name_of(b);
    let mut grown: Vec<ContainAction> =
        held.iter().map(|h| policy.iter().find(|p| same(h, p)).map_or_else(|| h.clone(), |p| merge(h, p))).collect();
    grown.extend(policy.iter().filter(|p| !held.iter().any(|h| same(h, p))).cloned());
    let stays = held.iter().filter(|h| !policy.iter().any(|p| same(h, p))).map(name_of).collect();
    (grown, stays)
}

/// SHA-256 of the canonical JSON of the sorted (ARN, action, parameters). Nothing observed goes in, so that the attacker
/// cannot change it.
#[must_use]
pub fn digest(targets: &[(Resource, Vec<ContainAction>)]) -> String {
    let mut rows: Vec<String> = targets
        .iter()
        .flat_map(|(resource, actions)| actions.iter().map(|a| json!([resource.arn(), name_of(a), a]).to_string()))
        .collect();
    rows.sort();
    rows.dedup();
    let text = format!("[{}]", rows.join(","));
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
