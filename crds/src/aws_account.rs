//! `AwsAccount`: how an account is reached, who may use it, and what must never be touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ResourceKind;

/// What Kubernetes itself refuses in a selector. Refused here too, since one that cannot be read allows no namespace.
const SELECTOR_IS_VALID: &str = "!has(self.matchExpressions) || self.matchExpressions.all(e, \
    e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : \
    e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || e.values.size() == 0))";

/// One AWS account: how to reach it, who may use it, what must never be touched, and limits.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "AwsAccount",
    shortname = "awsa",
    category = "firebreak",
    status = "AwsAccountStatus",
    doc = "One AWS account: how to reach it, who may use it, what must never be touched, and limits.",
    selectable = ".spec.accountId",
    printcolumn(name = "ACCOUNT", type_ = "string", json_path = ".spec.accountId"),
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
#[x_kube(validation = Rule::new(
    "!has(self.assumeRole) || self.assumeRole.roleArn.contains(':iam::' + self.accountId + ':role/')"
).message("assumeRole.roleArn: the role must be one of the account in accountId").field_path(".assumeRole.roleArn"))]
pub struct AwsAccountSpec {
    /// The twelve digits of the account. Checked against `sts:GetCallerIdentity` before anything else; cannot be changed.
    #[schemars(length(max = 12), regex(pattern = r"^[0-9]{12}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accountId cannot be changed: make another AwsAccount"))]
    pub account_id: String,
    /// The regions in which targets may be contained.
    #[schemars(length(min = 1, max = 40), inner(length(max = 32), regex(pattern = r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")))]
    pub regions: Vec<String>,
    /// The role to assume. Absent: the controller's own credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
    /// Where AWS is reached, for private endpoints and emulators. Absent: AWS's own endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/\s]+"))]
    pub endpoint_url: Option<String>,
    /// The namespaces whose Incidents may use this account, by their labels. `{}` is every namespace, absent is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(SELECTOR_IS_VALID).message(
        "allowedNamespaces.matchExpressions: operator is In or NotIn with values, or Exists or DoesNotExist without"
    ))]
    pub allowed_namespaces: Option<LabelSelector>,
    /// What is made ahead of an incident.
    #[serde(default)]
    pub prepare: Prepare,
    /// What must never be touched.
    #[serde(default)]
    pub protected: Protected,
    /// What waits for other people's approval though no policy says so.
    #[serde(default)]
    pub approvals: AccountApprovals,
    /// Limits against mistakes.
    #[serde(default)]
    pub limits: Limits,
}

/// How to become somebody in the account. <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// The role's ARN.
    #[schemars(length(max = 2048), regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$"))]
    pub role_arn: String,
    /// The external id that the role's trust policy asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1224))]
    pub external_id: Option<String>,
}

/// What is made ahead of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prepare {
    /// When the isolation group of a VPC is made.
    #[serde(default)]
    pub isolation_groups: IsolationGroups,
    /// When the instance profile is made that takes the place of a contained instance's.
    #[serde(default)]
    pub deny_profile: DenyProfile,
}

/// When the isolation group of a VPC is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IsolationGroups {
    /// When the first instance in the VPC is isolated: three to four calls later than with `AllVpcs`.
    #[default]
    OnDemand,
    /// Ahead, in every VPC of every region of the account: isolating then takes two round trips.
    AllVpcs,
}

/// When the instance profile is made whose role may do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DenyProfile {
    /// When the first instance loses its role: that instance is without any profile until AWS knows of the new one.
    #[default]
    OnDemand,
    /// Ahead, and checked every five minutes.
    Always,
}

/// What must never be touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Protected {
    /// ARNs of targets that are refused; `*` stands for any characters, colons too. `*` alone refuses every target.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 2048), regex(pattern = r"^(arn:|\*)")))]
    pub arns: Vec<String>,
    /// Tags of targets that need an approval before anything is done to them. An attacker can write tags: one counts only if it was
    /// seen on the resource before the Incident was created (`status.protectedByTag`).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tags: Vec<ProtectedTag>,
}

/// A tag of EC2 instances, IAM users or roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProtectedTag {
    /// Its key.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,
    /// Its value; nothing stands for any characters here.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub value: String,
}

/// What waits for other people's approval though no policy says so, and how many of whom must give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountApprovals {
    /// Whether what would cut many others off waits.
    #[serde(default)]
    pub wide_blast_radius: WideBlastRadius,
    /// How others may depend on a target without anything waiting for it: docs/approvals.md says what each name stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ignored_causes: Vec<BlastRadiusCause>,
    /// How many people.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5))]
    pub count: i32,
    /// A Kubernetes group: only its members' approvals count, given on its behalf. Absent: anybody's but the requester's.
    /// Without one no ServiceAccount counts, neither as who asks nor as who approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub group: Option<String>,
}

impl Default for AccountApprovals {
    fn default() -> Self {
        Self { wide_blast_radius: WideBlastRadius::default(), ignored_causes: Vec::new(), count: one(), group: None }
    }
}

fn one() -> i32 {
    1
}

/// Whether what would cut many others off waits for approval: docs/approvals.md says of which targets that is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WideBlastRadius {
    /// It waits.
    #[default]
    Required,
    /// It goes at once, and nothing is read to find out.
    NotRequired,
}

/// How others can depend on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BlastRadiusCause {
    /// A route leads to the instance.
    RouteTarget,
    /// `SourceDestCheck` is off: the instance passes on what is not its own.
    Forwards,
    /// Firebreak reaches AWS or Kubernetes through the instance.
    FirebreaksPath,
    /// No other target of a target group is healthy.
    LastHealthyTarget,
    /// No other instance is behind a classic load balancer.
    OnlyBehindLoadBalancer,
    /// No other instance of its Auto Scaling group is in service.
    AloneInAutoScaling,
    /// Its Auto Scaling group would not replace the instance.
    NotReplaced,
    /// Running instances have the role by their profile.
    RunningInstances,
    /// The role's trust policy lets a service, an identity provider or another account assume it.
    TrustedFromOutside,
    /// The role was used within the last 7 days.
    UsedRecently,
}

/// Limits against mistakes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// How many resources of this account may be held at once. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_quarantines: Option<i32>,
    /// How many containments of this account's resources may begin within an hour; more wait for approval, as `approvals` says.
    /// Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_new_per_hour: Option<i32>,
}

/// What Firebreak found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsAccountStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Stalled` while a person must act.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last value of the annotation `firebreak.dev/reconcile-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Whom AWS says we are: the ARN that `sts:GetCallerIdentity` returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub caller_arn: Option<String>,
    /// Who the controller is before it assumes `spec.assumeRole`: the ARN of its own credentials. Neither is ever contained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub base_caller_arn: Option<String>,
    /// The isolation groups made ahead.
    #[serde(default)]
    #[schemars(length(max = 2000))]
    pub isolation_groups: Vec<IsolationGroup>,
    /// Denies that outlive a release, until every session issued before it has expired.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub residual_denies: Vec<ResidualDeny>,
    /// What carries a tag of `protected.tags`, and since when that is known.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub protected_by_tag: Vec<ProtectedByTag>,
}

/// A resource that carries a tag of `protected.tags`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedByTag {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// The region; absent for IAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub region: Option<String>,
    /// The instance id, or the name of the user or the role.
    #[schemars(length(max = 128))]
    pub id: String,
    /// The tag's key.
    #[schemars(length(max = 128))]
    pub key: String,
    /// When Firebreak first saw it there.
    pub since: Time,
}

/// A security group without rules, one per VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IsolationGroup {
    /// The region.
    #[schemars(length(max = 32))]
    pub region: String,
    /// The VPC.
    #[schemars(length(max = 64))]
    pub vpc_id: String,
    /// The group.
    #[schemars(length(max = 64))]
    pub group_id: String,
}

/// A policy that denies what was issued before a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.userName) != has(self.roleName)")
    .message("residualDenies: each is of a user or of a role"))]
pub struct ResidualDeny {
    /// The user that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub user_name: Option<String>,
    /// The role that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub role_name: Option<String>,
    /// The inline policy's name; it carries the time too.
    #[schemars(length(max = 128))]
    pub policy_name: String,
    /// When it is removed: no session issued before the release can be alive then.
    pub until: Time,
    /// Whose sessions it denies: of a user or a role its unique id; where it is only those of one name, `<the role's unique id>:<that name>`, as
    /// `aws:userid` has it. Absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub user_id: Option<String>,
}
