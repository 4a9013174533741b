//! What is wanted of a resource: the actions of all its holders, merged; and how a hold may change.

use std::collections::BTreeSet;

use firebreak_crds::{ApprovalPolicy, ContainAction, EvidenceAction, Holder, Resource};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::action::{Action, Merge, Stage};
use super::case::action_of;
use super::deactivate_access_keys::AccessKeys;
use super::deactivate_service_credentials::ServiceCredentials;
use super::deactivate_signing_certificates::SigningCertificates;
use super::deactivate_ssh_keys::SshKeys;
use super::deny_all::DenyAll;
use super::deny_session::SessionDeny;
use super::deregister_from_load_balancers::LoadBalancers;
use super::detach_from_auto_scaling::AutoScaling;
use super::disable_instance_metadata::Metadata;
use super::drive::{self, Pass};
use super::dry_run::{DryRun, dry_run};
use super::isolate_network::Isolation;
use super::protect_from_termination::Protection;
use super::remove_console_access::ConsoleAccess;
use super::remove_public_addresses::Addresses;
use super::report::Report;
use super::revoke_instance_role::InstanceRole;
use super::revoke_sessions::Sessions;
use super::seal_trust_policy::Seal;
use super::second_copy::Keys;
use super::stop_instance::Stop;
use super::tag_resource::TagResource;
use super::terminate_instance::Terminate;
use super::terminate_sessions::SystemsManager;
use crate::aws::{AwsError, Session};

/// The one list: per action the variant, its implementation, and its field in `ContainAction`.
macro_rules! actions {
    ($($variant:ident: $action:ty, $field:ident;)*) => {
        /// One action with its merged parameters.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // each has a file of its own
        pub enum Wanted {
            $($variant(<$action as Action>::Params),)*
            /// Of any resource; always last. With the keys that sign the copy of the record.
            TagResource(Keys),
        }

        impl Wanted {
            /// The action's name, as the policy has it.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$action>::NAME,)*
                    Self::TagResource(_) => TagResource::NAME,
                }
            }

            /// When a release gives it back.
            #[must_use]
            pub fn stage(&self) -> Stage {
                match self {
                    $(Self::$variant(_) => <$action>::STAGE,)*
                    Self::TagResource(_) => TagResource::STAGE,
                }
            }

            /// Carries it out, or takes it back.
            pub async fn run(&self, pass: &Pass<'_>) -> Report {
                match self {
                    $(Self::$variant(p) => Box::pin(drive::run::<$action>(pass, p)).await,)*
                    Self::TagResource(p) => Box::pin(drive::run::<TagResource>(pass, p)).await,
                }
            }

            /// What `run` would do, reading only.
            ///
            /// # Errors
            /// When AWS cannot be read.
            pub async fn dry_run(&self, aws: &Session, case: &super::Case) -> Result<DryRun, AwsError> {
                match self {
                    $(Self::$variant(p) => Box::pin(dry_run::<$action>(aws, case, p)).await,)*
                    Self::TagResource(p) => Box::pin(dry_run::<TagResource>(aws, case, p)).await,
                }
            }
        }

        fn all_of(actions: ContainAction) -> Vec<Wanted> {
            [$(actions.$field.map(Wanted::$variant)),*].into_iter().flatten().collect()
        }

        /// For property tests: one action with any parameters, for each of the list.
        #[cfg(test)]
        pub fn samples() -> Vec<proptest::strategy::BoxedStrategy<ContainAction>> {
            use proptest::strategy::Strategy;
            vec![$(
                <<$action as Action>::Params as super::property_tests::Sample>::sample()
                    .prop_map(|p| ContainAction { $field: Some(p), ..ContainAction::default() })
                    .boxed()
            ),*]
        }

        /// For property tests: whether the first asks for everything that the second asks for.
        #[cfg(test)]
        pub fn is_as_strict(a: &ContainAction, b: &ContainAction) -> bool {
            use super::property_tests::Sample;
            [$(b.$field.as_ref().is_none_or(|b| a.$field.as_ref().is_some_and(|a| a.is_as_strict_as(b)))),*]
                .into_iter()
                .all(|it_is| it_is)
        }

        /// The stricter of each parameter.
        pub(super) fn merge(a: &ContainAction, b: &ContainAction) -> ContainAction {
            ContainAction { $($field: either_or_both(a.$field.as_ref(), b.$field.as_ref())),* }
        }

        /// The action of that name alone.
        fn only(actions: &ContainAction, name: &str) -> Option<ContainAction> {
            $(if name == <$action>::NAME {
                let field = actions.$field.clone()?;
                return Some(ContainAction { $field: Some(field), ..ContainAction::default() });
            })*
            None
        }

        /// Adds the action of that name, as it is kept when nobody asks for it any more.
        fn keep(actions: &mut ContainAction, name: &str) {
            $(if name == <$action>::NAME {
                actions.$field.get_or_insert_with(Merge::kept);
            })*
        }

        /// Whether a text is what an action records under this key.
        ///
        /// # Errors
        /// Why it is not, in words for whoever wrote it.
        pub fn check_original(key: &str, text: &str) -> Result<(), String> {
            let (name, sub) = key.split_once('/').unwrap_or((key, ""));
            $(if name == <$action>::NAME {
                return <$action>::check(sub, text);
            })*
            Err("there is no action of this name".into())
        }

        /// Every action's name.
        #[cfg(test)]
        pub const NAMES: &[&str] = &[$(<$action>::NAME),*];

        /// What each says of itself, in a file of its field's name; the mark last.
        pub(super) const TEXTS: &[&str] = &[
            $(include_str!(concat!(stringify!($field), ".md")),)*
            include_str!("tag_resource.md"),
        ];

        /// The name of the one action that an item has.
        #[must_use]
        pub fn name_of(action: &ContainAction) -> &'static str {
            $(if action.$field.is_some() {
                return <$action>::NAME;
            })*
            "none"
        }
    };
}

actions! {
    IsolateNetwork: Isolation, isolate_network;
    ProtectFromTermination: Protection, protect_from_termination;
    DisableInstanceMetadata: Metadata, disable_instance_metadata;
    RemovePublicAddresses: Addresses, remove_public_addresses;
    DetachFromAutoScaling: AutoScaling, detach_from_auto_scaling;
    DeregisterFromLoadBalancers: LoadBalancers, deregister_from_load_balancers;
    RevokeInstanceRole: InstanceRole, revoke_instance_role;
    TerminateSessions: SystemsManager, terminate_sessions;
    StopInstance: Stop, stop_instance;
    TerminateInstance: Terminate, terminate_instance;
    DenyAll: DenyAll, deny_all;
    DeactivateAccessKeys: AccessKeys, deactivate_access_keys;
    DeactivateSshKeys: SshKeys, deactivate_ssh_keys;
    DeactivateServiceCredentials: ServiceCredentials, deactivate_service_credentials;
    DeactivateSigningCertificates: SigningCertificates, deactivate_signing_certificates;
    RemoveConsoleAccess: ConsoleAccess, remove_console_access;
    RevokeSessions: Sessions, revoke_sessions;
    SealTrustPolicy: Seal, seal_trust_policy;
    DenySession: SessionDeny, deny_session;
}

/// What destroys evidence: memory, or everything. It waits for all evidence, and goes after all else.
pub const DESTRUCTIVE: [&str; 2] = [Stop::NAME, Terminate::NAME];

/// The actions of all holders, merged; and those on record that no holder asks for any more, since nothing is given back
/// before the last lets go.
#[must_use]
pub fn wanted<'a>(holders: &'a [Holder], recorded: impl Iterator<Item = &'a String>) -> Vec<Wanted> {
    let mut sum = asked(holders);
    recorded.for_each(|key| keep(&mut sum, action_of(key)));
    all_of(sum)
}

fn asked(holders: &[Holder]) -> ContainAction {
    holders.iter().flat_map(|h| &h.actions).fold(ContainAction::default(), |sum, a| merge(&sum, a))
}

/// What the holders together ask for of the action of that name; None where nobody does.
#[must_use]
pub fn asked_of(holders: &[Holder], name: &str) -> Option<ContainAction> {
    only(&asked(holders), name)
}

fn either_or_both<P: Merge>(a: Option<&P>, b: Option<&P>) -> Option<P> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.merge(b)),
        (a, b) => a.or(b).cloned(),
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

/// What a plan asks for of one resource.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The resource, as the spec names it.
    pub resource: Resource,
    /// The policy's actions.
    pub actions: Vec<ContainAction>,
    /// The policy's evidence, without which nothing destructive goes.
    pub evidence: Vec<EvidenceAction>,
}

/// SHA-256 of the canonical JSON of the sorted (ARN, action, parameters), (ARN, evidence) and what the policy says of approvals.
/// Nothing observed goes in, so that the attacker cannot change it.
#[must_use]
pub fn digest(plan: &[Planned], approvals: Option<&ApprovalPolicy>) -> String {
    let mut rows: Vec<String> = plan.iter().flat_map(planned).collect();
    rows.extend(approvals.map(|ApprovalPolicy { count, actions, group }| {
        let actions: BTreeSet<&String> = actions.iter().collect();
        json!(["approvals", count, group, actions]).to_string()
    }));
    rows.sort();
    rows.dedup();
    let text = format!("[{}]", rows.join(","));
    hex::encode(Sha256::digest(text))
}

fn planned(target: &Planned) -> Vec<String> {
    let arn = target.resource.arn();
    let actions = target.actions.iter().map(|a| json!([arn, name_of(a), a]).to_string());
    let evidence = target.evidence.iter().map(|e| json!([arn, "evidence", e]).to_string());
    actions.chain(evidence).collect()
}

/// SHA-256 of who asks for what. A status that carries it speaks of the holds as they are, whatever else the spec says.
#[must_use]
pub fn holds_digest(holders: &[Holder]) -> String {
    let rows: Vec<_> = holders.iter().map(|h| json!([h.uid, h.actions])).collect();
    hex::encode(Sha256::digest(json!(rows).to_string()))
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
