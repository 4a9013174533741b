//! The API of Firebreak: group `firebreak.dev`, version `v1alpha1`.
//!
//! One file per kind. No AWS and no runtime here: what the API server can judge is CEL beside the field it judges, and the
//! manifests in `crds/manifests` and `docs/api.md` are generated from these types by `firebreak-crdgen`.

#![allow(clippy::duplicated_attributes, reason = "each `printcolumn` has a type, and most have the same")]

mod action;
mod allow_list;
mod approval;
mod arn;
mod aws_account;
mod condition;
mod containment_policy;
pub mod docs;
mod evidence;
mod incident;
mod names;
mod quarantine;
mod resource;
mod rule;
mod selector;

pub use action::{
    ContainAction, DetachFromAutoScaling, DetachMode, Empty, EndInstance, EvidenceAction, IsolateNetwork, ReleasePolicy,
    SeverTrackedConnections,
};
pub use allow_list::{AllowList, AllowedFlow, AllowedProtocol};
pub use approval::{Approval, ApprovalSpec, ApprovedIncident};
pub use arn::Named;
pub use aws_account::{
    AccountApprovals, AssumeRole, AwsAccount, AwsAccountSpec, AwsAccountStatus, BlastRadiusCause, DenyProfile,
    IsolationGroup, IsolationGroups, Limits, Prepare, Protected, ProtectedByTag, ProtectedTag, ResidualDeny,
    WideBlastRadius,
};
pub use condition::{conditions, get as get_condition, is_true};
pub use containment_policy::{
    AccessKeyAction, AccessKeyPolicy, AccessKeyScope, ApprovalPolicy, ContainmentPolicy, ContainmentPolicySpec,
    Ec2InstanceAction, Ec2InstanceEvidence, Ec2InstancePolicy, IamRoleAction, IamRolePolicy, IamUserAction, IamUserPolicy,
    RoleSessionAction, RoleSessionPolicy,
};
pub use evidence::{CustodyEntry, Evidence, EvidenceSpec, EvidenceStatus, Request, RequestOutcome, VolumeSnapshot};
pub use incident::{
    AccessKeyTarget, ApprovalStatus, ArnTarget, DeletionPolicy, Ec2InstanceTarget, IamRoleTarget, IamUserTarget, Incident,
    IncidentSpec, IncidentStatus, Mode, Plan, PlanTarget, RoleSessionTarget, Severity, Target, TargetStatus,
};
pub use names::{evidence_name, quarantine_name};
pub use quarantine::{
    ActionState, ActionStatus, Conversion, ConversionState, Holder, HolderState, OnConflict, Quarantine, QuarantineSpec,
    QuarantineStatus, ReleaseDecision, Text, Undone,
};
pub use resource::{IncidentRef, KeyUser, NameRef, Resource, ResourceKind};
pub use selector::{Ec2SelectorTarget, Joined, MAX_SELECTED, SelectorStatus, TagValue};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The finalizer on every object whose going must not lose a hold.
pub const FINALIZER: &str = "firebreak.dev/hold";
/// Annotation: set it to anything new to have the object reconciled now.
pub const RECONCILE_REQUESTED: &str = "firebreak.dev/reconcile-requested-at";
/// Annotation: the object's own uid lets it go without touching AWS. For a dying set of CRDs.
pub const ABANDON: &str = "firebreak.dev/abandon";
/// Annotation of a Quarantine, written by `firebreak-controller export` only: since when the resource is contained. An imported one
/// is younger than that.
pub const CONTAINED_SINCE: &str = "firebreak.dev/contained-since";
/// Annotation of a Quarantine, written by the controller only: the uids of the Incidents that hold it since after it was deleted. What
/// was decided before they held does not end their holds.
pub const HELD_AGAIN: &str = "firebreak.dev/held-again";

/// Every kind's definition, in the order people read them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AwsAccount::crd(), ContainmentPolicy::crd(), Incident::crd(), Quarantine::crd(), Evidence::crd(), Approval::crd()]
}
