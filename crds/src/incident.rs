//! `Incident`: what a responder declares.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::exactly_one;
use crate::{Ec2SelectorTarget, NameRef, Resource, SelectorStatus};

// No rule here compares with the old object: a GitOps tool turns a refused edit into delete and create.
/// What happened, which resources are in the attacker's reach, and how to respond.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "Incident",
    namespaced,
    shortname = "inc",
    category = "firebreak",
    status = "IncidentStatus",
    doc = "What happened, which resources are in the attacker's reach, and how to respond.",
    selectable = ".spec.mode",
    selectable = ".spec.severity",
    printcolumn(name = "MODE", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "CONTAINED", type_ = "string", json_path = ".status.contained"),
    printcolumn(name = "EVIDENCE", type_ = "string", json_path = ".status.evidence"),
    printcolumn(name = "APPROVED", type_ = "string", json_path = r#".status.conditions[?(@.type=="Approved")].status"#),
    printcolumn(name = "SEVERITY", type_ = "string", json_path = ".spec.severity"),
    printcolumn(name = "READY", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "REASON", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// One line that says what happened.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.trim() != '' && !self.trim().contains('\\n')")
        .message("title: write one line that says what happened; the rest belongs in description"))]
    pub title: String,
    /// The narrative: what is known, in as many lines as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub description: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What Firebreak does: look only (the default), contain, or give back.
    #[serde(default)]
    pub mode: Mode,
    /// The `ContainmentPolicy` to follow.
    pub policy_ref: NameRef,
    /// What happens to the holds when this object is deleted. By default they are retained.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// No new holds and no new actions; what is held stays, and is repaired.
    #[serde(default)]
    pub suspend: bool,
    /// Who asks for this: the user name of whoever wrote this spec last, as `kubectl auth whoami` shows it. Needed where
    /// actions need approval, which is given by other people; where it is a ServiceAccount, on behalf of a
    /// group that the policy or the AwsAccount names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub requested_by: Option<String>,
    /// User names of those who wrote this in Git, where `requestedBy` is a GitOps tool: they may not approve it either.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    pub authors: Vec<String>,
    /// The AWS resources in the attacker's reach; each item has exactly one kind.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.all(t, self.filter(u, u == t).size() == 1)")
        .message("targets: the same target is listed twice; keep one"))]
    pub targets: Vec<Target>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

/// What Firebreak does with the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Look only, and say in status what `Contain` would do. On an Incident that holds: freezes, and lets nothing go.
    #[default]
    Plan,
    /// Contain the targets, and keep them contained.
    Contain,
    /// Let go: what no other Incident holds is given back.
    Release,
}

/// What happens to the holds of a deleted Incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The resources stay contained until somebody deletes their Quarantines.
    #[default]
    Retain,
    /// As `mode: Release`. A namespace or CRD that goes still retains.
    Release,
}

/// One AWS resource to contain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["ec2Instance", "iamUser", "iamRole", "accessKey", "roleSession", "arn", "ec2Selector"])
    .message("targets: each item needs exactly one of ec2Instance, iamUser, iamRole, accessKey, roleSession, arn and ec2Selector, with its fields beneath it"))]
pub struct Target {
    /// An EC2 instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_instance: Option<Ec2InstanceTarget>,
    /// An IAM user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_user: Option<IamUserTarget>,
    /// An IAM role. Not one that AWS manages: service-linked roles, and those of Identity Center.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_role: Option<IamRoleTarget>,
    /// An access key of an IAM user, where only that is known to have leaked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeyTarget>,
    /// One session of an IAM role, by its name. The role's other sessions go on working. Not of a role that AWS manages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_session: Option<RoleSessionTarget>,
    /// An instance, a user, a role, or a session of a role, by its ARN: the same target as in the other form. Access keys have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<ArnTarget>,
    /// EC2 instances that have something in common. Who they are is settled when the Incident turns to `Contain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_selector: Option<Ec2SelectorTarget>,
}

impl Target {
    /// The `AwsAccount` of whatever it names.
    #[must_use]
    pub fn account_ref(&self) -> Option<&NameRef> {
        let kinds = [
            self.ec2_instance.as_ref().map(|t| &t.account_ref),
            self.ec2_selector.as_ref().map(|t| &t.account_ref),
            self.iam_user.as_ref().map(|t| &t.account_ref),
            self.iam_role.as_ref().map(|t| &t.account_ref),
            self.access_key.as_ref().map(|t| &t.account_ref),
            self.role_session.as_ref().map(|t| &t.account_ref),
            self.arn.as_ref().map(|t| &t.account_ref),
        ];
        kinds.into_iter().flatten().next()
    }
}

/// An EC2 instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ec2InstanceTarget {
    /// The `AwsAccount` that it is in.
    pub account_ref: NameRef,
    /// Its region; one of the account's.
    #[schemars(length(max = 32), regex(pattern = r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$"))]
    pub region: String,
    /// Its id.
    #[schemars(length(max = 19), regex(pattern = r"^i-([0-9a-f]{8}|[0-9a-f]{17})$"))]
    pub instance_id: String,
}

/// An IAM user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IamUserTarget {
    /// The `AwsAccount` that it is in.
    pub account_ref: NameRef,
    /// Its name, without path.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9+=,.@_-]{1,64}$"))]
    pub user_name: String,
}

/// An IAM role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IamRoleTarget {
    /// The `AwsAccount` that it is in.
    pub account_ref: NameRef,
    /// Its name, without path.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9+=,.@_-]{1,64}$"))]
    pub role_name: String,
}

/// An access key of an IAM user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyTarget {
    /// The `AwsAccount` that it is of.
    pub account_ref: NameRef,
    /// Its id, `AKIA...`. Firebreak asks AWS for its user.
    #[schemars(length(max = 20), regex(pattern = r"^A[KS]IA[A-Z0-9]{16}$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('ASIA')")
        .message("accessKeyId: ASIA... is a temporary key, of a session. AWS switches none off: CloudTrail shows whose session it is (userIdentity.arn); name that user as iamUser, or that role as iamRole"))]
    pub access_key_id: String,
}

/// One session of an IAM role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleSessionTarget {
    /// The `AwsAccount` that the role is in.
    pub account_ref: NameRef,
    /// The role's name, without path.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9+=,.@_-]{1,64}$"))]
    pub role_name: String,
    /// The session's name, as CloudTrail has it at the end of `userIdentity.arn`. Of an EC2 instance's credentials it is the instance's id.
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9+=,.@_-]{2,64}$"))]
    pub session_name: String,
}

/// What can be named by an ARN: of EC2 an instance, of IAM a user or a role with any path, of STS an assumed role's session.
const ARN: &str = "self.matches('^arn:(aws|aws-cn|aws-us-gov):(ec2:[a-z0-9-]+:[0-9]{12}:instance/i-([0-9a-f]{8}|[0-9a-f]{17})|iam::[0-9]{12}:((user|role)/([!-~]+/)?[A-Za-z0-9+=,.@_-]{1,64}|root)|sts::[0-9]{12}:assumed-role/[A-Za-z0-9+=,.@_-]{1,64}/[A-Za-z0-9+=,.@_-]{2,64})$')";

/// Nothing within an account holds its root user back.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_root-user.html>
const NO_ROOT: &str = "!self.endsWith(':root')";

/// A target named by its ARN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArnTarget {
    /// The `AwsAccount` that it is in: the one of the account in the ARN.
    pub account_ref: NameRef,
    /// Its ARN, as GuardDuty and CloudTrail have it.
    #[schemars(length(max = 640))]
    #[x_kube(validation = Rule::new(ARN)
        .message("arn: write the ARN of an EC2 instance, an IAM user, an IAM role, or a role's session (arn:aws:sts::<account>:assumed-role/<role>/<session>)"))]
    #[x_kube(validation = Rule::new(NO_ROOT)
        .message("arn: nothing in an account holds its root user back: sign in as root to change its password and delete its access keys, or let your organization's management account do it"))]
    pub arn: String,
}

/// What Firebreak found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Contained`, `EvidencePreserved`, `Released`, `Approved`, and `Reconciling` or `Stalled` while they are so.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last value of the annotation `firebreak.dev/reconcile-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Contained targets of all, e.g. `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub contained: Option<String>,
    /// Complete pieces of evidence of all that the policy asks for, e.g. `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub evidence: Option<String>,
    /// Each target, in the order of the spec; then those that are still held though the spec names them no more. Where there are
    /// more than 100: those that are not contained first, and no more than 100. Each has a Quarantine, which says it all.
    #[serde(default)]
    #[schemars(length(max = 400))]
    pub targets: Vec<TargetStatus>,
    /// What each `ec2Selector` stands for, since it was resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub selectors: Vec<SelectorStatus>,
    /// In mode Plan: what `Contain` would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Where an action needs approval: what there is to approve, and who did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStatus>,
}

/// What there is to approve, and who did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// The plan as it stands now: `planDigest` of an Approval. SHA-256 of all that is asked for: each target that the spec names, with
    /// the policy's actions and evidence for it, and the policy's `approvals`.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// How many approvals are needed.
    pub required: i32,
    /// The group on whose behalf they must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub group: Option<String>,
    /// The actions of the plan that need them.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub actions: Vec<String>,
    /// Whose approvals of this plan count.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 512)))]
    pub approved_by: Vec<String>,
}

/// One target, as last seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The resource; absent where the target could not be resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The name of its Quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub quarantine: Option<String>,
    /// Whether it is contained: `True`, `False` or `Unknown`.
    #[schemars(length(max = 16))]
    pub contained: String,
    /// One word that says why.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What is so, and what to do.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// Since when this Incident has held it; absent where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Time>,
}

/// What `Contain` would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// SHA-256 of all that is asked for: each target that the spec names, with the policy's actions and evidence for it, and the
    /// policy's `approvals`. Nothing observed goes in, so that the attacker cannot change it.
    #[schemars(length(max = 64))]
    pub digest: String,
    /// How many targets would be contained.
    pub target_count: i32,
    /// How many changing AWS calls that takes; of the first 100 targets.
    pub call_count: i32,
    /// The first 50 targets with their first 20 calls each.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub targets: Vec<PlanTarget>,
}

/// What `Contain` would do to one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanTarget {
    /// The resource.
    #[schemars(length(max = 512))]
    pub resource: String,
    /// The changing calls, in order; the last may be `and N more`.
    #[serde(default)]
    #[schemars(length(max = 21), inner(length(max = 512)))]
    pub calls: Vec<String>,
    /// Why there is no plan, or what stands in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub problem: Option<String>,
}
