//! `ContainmentPolicy`: a way of responding, written by the security team.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::allow_list::{has_ports, is_narrow, lists_or_groups, names_networks};
use crate::rule::{approvals_are_of_actions, exactly_one, no_empty_section, no_key_twice, not_both};
use crate::{ContainAction, DetachFromAutoScaling, Empty, EndInstance, EvidenceAction, IsolateNetwork, ReleasePolicy};

/// A way of responding: which actions on each kind of target, which evidence, and what a release gives back.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "ContainmentPolicy",
    plural = "containmentpolicies",
    shortname = "cpol",
    category = "firebreak",
    doc = "A way of responding: which actions on each kind of target, which evidence, and what a release gives back.",
    printcolumn(name = "APPROVALS", type_ = "integer", json_path = ".spec.approvals.count"),
    printcolumn(name = "BY-GROUP", type_ = "string", json_path = ".spec.approvals.group"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = no_empty_section(&["ec2Instance", "iamUser", "iamRole", "accessKey", "roleSession"])
    .message("ec2Instance, iamUser, iamRole, accessKey, roleSession: nothing is written beneath it; say what to do, or leave it out"))]
#[x_kube(validation = approvals_are_of_actions()
    .message("approvals.actions: name only actions that this policy lists under contain, as it writes them there"))]
#[x_kube(validation = Rule::new("!has(self.accessKey) || !has(self.accessKey.scope) || self.accessKey.scope != 'User' || has(self.iamUser)")
    .message("accessKey.scope: with User, what iamUser lists is done to the key's user: add iamUser"))]
pub struct ContainmentPolicySpec {
    /// What is done to an EC2 instance. Absent: nothing, and a condition on the Incident says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_instance: Option<Ec2InstancePolicy>,
    /// What is done to an IAM user. Absent: nothing, and a condition on the Incident says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_user: Option<IamUserPolicy>,
    /// What is done to an IAM role. Absent: nothing, and a condition on the Incident says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam_role: Option<IamRolePolicy>,
    /// What is done where a target is an access key. Absent: nothing, and a condition on the Incident says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<AccessKeyPolicy>,
    /// What is done to one session of a role. Absent: nothing, and a condition on the Incident says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_session: Option<RoleSessionPolicy>,
    /// What a release gives back beyond the default.
    #[serde(default)]
    pub release: ReleasePolicy,
    /// What nobody may do alone. Absent: nothing, but for what always needs one approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalPolicy>,
}

/// Which actions wait until other people than the Incident's author have approved, and how many. All other actions go at
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalPolicy {
    /// How many people.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5))]
    pub count: i32,
    /// The names of the actions that wait, as they are written under `contain`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 64)))]
    pub actions: Vec<String>,
    /// A Kubernetes group: only its members' approvals count, given on its behalf. Absent: anybody's but the requester's.
    /// Without one no ServiceAccount counts, neither as who asks nor as who approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub group: Option<String>,
}

fn one() -> i32 {
    1
}

/// What is done to an EC2 instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(
    "(has(self.contain) && self.contain.size() > 0) || (has(self.evidence) && self.evidence.size() > 0)"
)
    .message("ec2Instance: list at least one item under contain or evidence, e.g. `- isolateNetwork: {}`, or leave ec2Instance out"))]
pub struct Ec2InstancePolicy {
    /// Actions that contain it; each item has exactly one key, e.g. `- isolateNetwork: {}`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = no_key_twice(&["isolateNetwork", "detachFromAutoScaling", "deregisterFromLoadBalancers", "protectFromTermination", "disableInstanceMetadata", "removePublicAddresses", "revokeInstanceRole", "terminateSessions", "stopInstance", "terminateInstance"]).message("ec2Instance.contain: the same key is listed twice; keep one"))]
    #[x_kube(validation = not_both("protectFromTermination", "terminateInstance")
    .message("ec2Instance.contain: protectFromTermination and terminateInstance contradict each other; keep one"))]
    pub contain: Vec<Ec2InstanceAction>,
    /// Evidence to preserve; each item has exactly one key, e.g. `- ebsSnapshots: {}`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(validation = no_key_twice(&["ebsSnapshots"])
    .message("ec2Instance.evidence: the same key is listed twice; keep one"))]
    pub evidence: Vec<Ec2InstanceEvidence>,
}

/// One containment action on an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["isolateNetwork", "detachFromAutoScaling", "deregisterFromLoadBalancers", "protectFromTermination", "disableInstanceMetadata", "removePublicAddresses", "revokeInstanceRole", "terminateSessions", "stopInstance", "terminateInstance"])
    .message("ec2Instance.contain: each item needs exactly one action: isolateNetwork, detachFromAutoScaling, deregisterFromLoadBalancers, protectFromTermination, disableInstanceMetadata, removePublicAddresses, revokeInstanceRole, terminateSessions, stopInstance or terminateInstance (write `isolateNetwork: {}`, not `isolateNetwork:`)"))]
pub struct Ec2InstanceAction {
    /// Moves every network interface to a security group without rules, or with those of `allow` alone; or to one of `securityGroupIds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = names_networks()
    .message("isolateNetwork.allow: each cidr is a network without host bits, such as 10.0.0.5/32 or 2001:db8::/64"))]
    #[x_kube(validation = is_narrow()
    .message("isolateNetwork.allow: what is open to 0.0.0.0/0, ::/0 or another wide network is not isolated: write at least /8, for IPv6 at least /32"))]
    #[x_kube(validation = has_ports()
    .message("isolateNetwork.allow: tcp and udp need fromPort, and no toPort below it; all has no ports"))]
    #[x_kube(validation = lists_or_groups()
    .message("isolateNetwork: either allow or securityGroupIds: what both together let through cannot be said"))]
    pub isolate_network: Option<IsolateNetwork>,
    /// Switches on termination protection and stop protection, lets a shutdown from within only stop the instance, and keeps
    /// its EBS volumes when it is terminated. A Spot instance cannot have the first two. Auto Scaling, scheduled events of AWS
    /// and Spot interruptions end an instance all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect_from_termination: Option<Empty>,
    /// Switches off the instance metadata service: no new credentials of the instance's role, no user data. What runs there and needs
    /// its role stops working when its credentials expire; those that were handed out stay valid until then, or until
    /// revokeInstanceRole denies them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_instance_metadata: Option<Empty>,
    /// Takes away every public IPv4 address: Elastic IPs are disassociated and stay allocated, what AWS assigned is given up. A release
    /// associates the same Elastic IPs again; an address that AWS assigns is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_public_addresses: Option<Empty>,
    /// Takes the role of its instance profile away: the profile is replaced by one whose role may do nothing, and the credentials that
    /// were handed out to this instance are denied on the role itself. Other instances with the role go on working. A release
    /// gives the profile back; the old credentials stay denied until they have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_instance_role: Option<Empty>,
    /// Ends every Session Manager session on it, and cancels every Run Command command that waits or runs on it (elsewhere it goes
    /// on), also those that come later. Nothing of it is given back. Whoever may call `ssm:StartSession` or `ssm:SendCommand` can
    /// begin again until the next look: `isolateNetwork` cuts the instance's agent off, so that nothing new begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminate_sessions: Option<Empty>,
    /// Takes it out of its Auto Scaling group, which could otherwise terminate it. The group launches a replacement. Not given
    /// back unless `release.rejoinAutoScaling` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach_from_auto_scaling: Option<DetachFromAutoScaling>,
    /// Takes it out of every target group of its VPC, and every classic load balancer, that has it by id or private address.
    /// They drain what is open. A release registers it again as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregister_from_load_balancers: Option<Empty>,
    /// Stops it, without letting its own shutdown scripts run, once all evidence that the policy asks for is complete; and again
    /// whenever somebody starts it. What is in memory is lost. Refused while it is in an Auto Scaling group, which would terminate
    /// it. A release starts it again if it ran. Stop protection stays off meanwhile, also that of `protectFromTermination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_instance: Option<EndInstance>,
    /// Terminates it, once all evidence that the policy asks for is complete, and somebody else has approved it. Nothing brings it
    /// back. Refused while it is in an Auto Scaling group, while termination protection is on, and while another holder's policy
    /// has `protectFromTermination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminate_instance: Option<EndInstance>,
}

/// One kind of evidence of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["ebsSnapshots"])
    .message("ec2Instance.evidence: each item needs exactly one kind of evidence: ebsSnapshots (write `ebsSnapshots: {}`, not `ebsSnapshots:`)"))]
pub struct Ec2InstanceEvidence {
    /// Snapshots of all EBS volumes, taken in one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_snapshots: Option<Empty>,
}

/// What is done to an IAM user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.contain) && self.contain.size() > 0")
    .message("iamUser.contain: list at least one action, e.g. `- denyAll: {}`, or leave iamUser out"))]
pub struct IamUserPolicy {
    /// Actions that contain it; each item has exactly one key, e.g. `- denyAll: {}`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = no_key_twice(&["denyAll", "deactivateAccessKeys", "deactivateSshKeys", "deactivateServiceCredentials", "deactivateSigningCertificates", "removeConsoleAccess"])
    .message("iamUser.contain: the same key is listed twice; keep one"))]
    pub contain: Vec<IamUserAction>,
}

/// One containment action on a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["denyAll", "deactivateAccessKeys", "deactivateSshKeys", "deactivateServiceCredentials", "deactivateSigningCertificates", "removeConsoleAccess"])
    .message("iamUser.contain: each item needs exactly one action: denyAll, deactivateAccessKeys, deactivateSshKeys, deactivateServiceCredentials, deactivateSigningCertificates or removeConsoleAccess (write `denyAll: {}`, not `denyAll:`)"))]
pub struct IamUserAction {
    /// Denies every call: by an inline policy, by the attached `AWSDenyAll`, and by `AWSDenyAll` as permissions boundary, side
    /// by side. Any of them is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_all: Option<Empty>,
    /// Switches off every access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_access_keys: Option<Empty>,
    /// Switches off every SSH public key, with which the user reaches CodeCommit. They stay off after a release unless
    /// `release.reactivateCredentials` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_ssh_keys: Option<Empty>,
    /// Switches off every service-specific credential: those of CodeCommit, Keyspaces and all other services, and Bedrock's
    /// API keys. They stay off after a release unless `release.reactivateCredentials` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_service_credentials: Option<Empty>,
    /// Switches off every X.509 signing certificate, with which old SOAP interfaces are called. They stay off after a release
    /// unless `release.reactivateCredentials` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_signing_certificates: Option<Empty>,
    /// Deletes the console password, and each that somebody makes again. No release gives it back: the password is gone, and the
    /// user needs a new one. `denyAll` alone blocks the console too, and can be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_console_access: Option<Empty>,
}

/// What is done to an IAM role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.contain) && self.contain.size() > 0")
    .message("iamRole.contain: list at least one action, e.g. `- denyAll: {}`, or leave iamRole out"))]
pub struct IamRolePolicy {
    /// Actions that contain it; each item has exactly one key, e.g. `- denyAll: {}`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = no_key_twice(&["denyAll", "revokeSessions", "sealTrustPolicy"]).message("iamRole.contain: the same key is listed twice; keep one"))]
    pub contain: Vec<IamRoleAction>,
}

/// One containment action on a role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["denyAll", "revokeSessions", "sealTrustPolicy"])
    .message("iamRole.contain: each item needs exactly one action: denyAll, revokeSessions or sealTrustPolicy (write `denyAll: {}`, not `denyAll:`)"))]
pub struct IamRoleAction {
    /// Denies every call of every session, old and new: by an inline policy, by the attached `AWSDenyAll`, and by `AWSDenyAll`
    /// as permissions boundary, side by side. Any of them is enough. Whatever runs with this role stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_all: Option<Empty>,
    /// Denies every session that was issued before the containment (and, as AWS lags, within its first two and a half minutes).
    /// Who may assume the role can do so again at once, also an attacker: `sealTrustPolicy` ends that. Old sessions stay denied
    /// after a release until they have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_sessions: Option<Empty>,
    /// Replaces the trust policy, so that nobody can assume the role, AWS's services neither. Sessions that are there live on
    /// until they expire: `revokeSessions` or `denyAll` ends those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_trust_policy: Option<Empty>,
}

/// How much is contained where a target is an access key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessKeyScope {
    /// That key, by the actions under `contain`. The user's other keys go on working.
    #[default]
    Key,
    /// The key's user, by the actions of `iamUser`, as if the user were the target.
    User,
}

/// What is done where a target is an access key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.scope) && self.scope == 'User') != (has(self.contain) && self.contain.size() > 0)")
    .message("accessKey.contain: list at least one action, e.g. `- deactivateAccessKeys: {}`; with scope: User list none, since those of iamUser are done"))]
pub struct AccessKeyPolicy {
    /// `Key` (default): that key only; `User`: its user.
    #[serde(default)]
    pub scope: AccessKeyScope,
    /// Actions that contain it; each item has exactly one key, e.g. `- deactivateAccessKeys: {}`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = no_key_twice(&["deactivateAccessKeys", "revokeSessions"])
    .message("accessKey.contain: the same key is listed twice; keep one"))]
    pub contain: Vec<AccessKeyAction>,
}

/// One containment action on an access key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["deactivateAccessKeys", "revokeSessions"])
    .message("accessKey.contain: each item needs exactly one action: deactivateAccessKeys or revokeSessions (write `revokeSessions: {}`, not `revokeSessions:`)"))]
pub struct AccessKeyAction {
    /// Switches off this key, and no other of its user. Sessions that it has opened live on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_access_keys: Option<Empty>,
    /// Denies every session of the key's user that was issued before the containment (and, as AWS lags, within its first two and
    /// a half minutes), and again whenever the key was switched on: AWS does not tell which key opened a session. The user's
    /// other keys go on working. Roles that the user assumed are not denied. Old sessions stay denied after a release until they
    /// have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_sessions: Option<Empty>,
}

impl From<&Ec2InstanceAction> for ContainAction {
    fn from(a: &Ec2InstanceAction) -> Self {
        Self {
            isolate_network: a.isolate_network.clone(),
            protect_from_termination: a.protect_from_termination,
            disable_instance_metadata: a.disable_instance_metadata,
            remove_public_addresses: a.remove_public_addresses,
            revoke_instance_role: a.revoke_instance_role,
            terminate_sessions: a.terminate_sessions,
            detach_from_auto_scaling: a.detach_from_auto_scaling.clone(),
            deregister_from_load_balancers: a.deregister_from_load_balancers,
            stop_instance: a.stop_instance,
            terminate_instance: a.terminate_instance,
            ..Self::default()
        }
    }
}

impl From<&IamUserAction> for ContainAction {
    fn from(a: &IamUserAction) -> Self {
        Self {
            deny_all: a.deny_all,
            deactivate_access_keys: a.deactivate_access_keys,
            deactivate_ssh_keys: a.deactivate_ssh_keys,
            deactivate_service_credentials: a.deactivate_service_credentials,
            deactivate_signing_certificates: a.deactivate_signing_certificates,
            remove_console_access: a.remove_console_access,
            ..Self::default()
        }
    }
}

impl From<&IamRoleAction> for ContainAction {
    fn from(a: &IamRoleAction) -> Self {
        Self {
            deny_all: a.deny_all,
            revoke_sessions: a.revoke_sessions,
            seal_trust_policy: a.seal_trust_policy,
            ..Self::default()
        }
    }
}

/// What is done to one session of a role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.contain) && self.contain.size() > 0")
    .message("roleSession.contain: list at least one action, e.g. `- denySession: {}`, or leave roleSession out"))]
pub struct RoleSessionPolicy {
    /// Actions that contain it; each item has exactly one key, e.g. `- denySession: {}`.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(validation = no_key_twice(&["denySession"]).message("roleSession.contain: the same key is listed twice; keep one"))]
    pub contain: Vec<RoleSessionAction>,
}

/// One containment action on a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["denySession"])
    .message("roleSession.contain: each item needs exactly one action: denySession (write `denySession: {}`, not `denySession:`)"))]
pub struct RoleSessionAction {
    /// Denies every call of this session, and of every one that is begun under its name, by an inline policy on the role. Who may
    /// assume the role can begin another under another name, the session itself too where the role may assume itself: contain the
    /// role against that. Sessions of that name that were issued before stay denied after a release until they have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_session: Option<Empty>,
}

impl From<&AccessKeyAction> for ContainAction {
    fn from(a: &AccessKeyAction) -> Self {
        Self { deactivate_access_keys: a.deactivate_access_keys, revoke_sessions: a.revoke_sessions, ..Self::default() }
    }
}

impl From<&RoleSessionAction> for ContainAction {
    fn from(a: &RoleSessionAction) -> Self {
        Self { deny_session: a.deny_session, ..Self::default() }
    }
}

impl From<&Ec2InstanceEvidence> for EvidenceAction {
    fn from(e: &Ec2InstanceEvidence) -> Self {
        Self { ebs_snapshots: e.ebs_snapshots }
    }
}
