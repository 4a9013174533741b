//! What can be done to a resource: one field per action. Policies, holders and evidence all speak in these.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AllowList;
use crate::rule::exactly_one;

/// An action without parameters: `denyAll: {}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Empty {}

/// Whether flows that the VPC already tracks are cut too. A group swap alone stops new flows only.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SeverTrackedConnections {
    /// Interfaces that can have flows from outside: a public address, or a route to an internet gateway.
    #[default]
    Auto,
    /// Every interface.
    Always,
    /// None: the interface is never opened, not even for the seconds that the conversion takes.
    Never,
}

/// Moves every network interface of the instance to a security group without rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IsolateNetwork {
    /// Whether tracked TCP and UDP flows are cut as well. To do so the interface goes through a group that allows all
    /// traffic for about 3 seconds, after it was isolated.
    #[serde(default)]
    pub sever_tracked_connections: SeverTrackedConnections,
    /// Flows that get through all the same. Absent: none. The interfaces are then in a security group of this list's own. Of
    /// several lists only what all of them allow gets through, and a list that comes later only ever narrows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<AllowList>,
    /// Security groups of your own to isolate in, instead of a list: one for each VPC. They are never edited, but verified at each
    /// look: no rule may name another group, a prefix list or a wide network. One that is not so, or lets through more than
    /// when it was first used, is left for the group without rules. Of several Incidents' groups those that all of them name are
    /// used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 20), regex(pattern = r"^sg-[0-9a-f]{8,17}$")))]
    pub security_group_ids: Vec<String>,
    /// Whether AWS is to forget tracked flows after 60 s without traffic, and not after 5 days (TCP) or 180 s (UDP), until the
    /// release. Of Nitro instances only. It takes one call more for each interface, after all is cut, and cuts nothing that
    /// talks on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shorten_connection_tracking: bool,
}

/// How an instance leaves its Auto Scaling group. Either way the group keeps its desired capacity, so that it launches a
/// replacement and the service stays up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DetachMode {
    /// Out of the group altogether: no scaling, health check or instance refresh can end it.
    #[default]
    Detach,
    /// Into `Standby`: it stays in the group, which no longer checks its health, but an instance refresh may end it.
    Standby,
}

/// Takes the instance out of its Auto Scaling group, which could otherwise terminate it, and the evidence with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DetachFromAutoScaling {
    /// `Detach` (default), or `Standby`. `Detach` is the stricter. An instance that is in Standby already stays there, since
    /// AWS detaches only what is in service.
    #[serde(default)]
    pub mode: DetachMode,
}

/// What a stop or a termination may destroy besides what the policy's evidence keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndInstance {
    /// Go ahead though the instance may have data on disks of its host (instance store), which no snapshot keeps and a stop
    /// destroys. AWS does not show whether such a disk is in use: an instance counts if its type has any, or its root is one.
    #[serde(default)]
    pub acknowledge_instance_store_loss: bool,
}

/// One action as a holder asks for it: a copy of the policy's, resolved when the hold was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["isolateNetwork", "detachFromAutoScaling", "deregisterFromLoadBalancers", "protectFromTermination", "disableInstanceMetadata", "removePublicAddresses", "revokeInstanceRole", "terminateSessions", "stopInstance", "terminateInstance", "denyAll", "deactivateAccessKeys", "deactivateSshKeys", "deactivateServiceCredentials", "deactivateSigningCertificates", "removeConsoleAccess", "revokeSessions", "sealTrustPolicy", "denySession"])
    .message("actions: each item needs exactly one of isolateNetwork, detachFromAutoScaling, deregisterFromLoadBalancers, protectFromTermination, disableInstanceMetadata, removePublicAddresses, revokeInstanceRole, terminateSessions, stopInstance, terminateInstance, denyAll, deactivateAccessKeys, deactivateSshKeys, deactivateServiceCredentials, deactivateSigningCertificates, removeConsoleAccess, revokeSessions, sealTrustPolicy, denySession"))]
pub struct ContainAction {
    /// EC2 instance: network isolation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolate_network: Option<IsolateNetwork>,
    /// EC2 instance: keep it, and its volumes, from being stopped or destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect_from_termination: Option<Empty>,
    /// EC2 instance: switch off its metadata service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_instance_metadata: Option<Empty>,
    /// EC2 instance: take its public IPv4 addresses away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_public_addresses: Option<Empty>,
    /// EC2 instance: take its role away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_instance_role: Option<Empty>,
    /// EC2 instance: end its Session Manager sessions, and cancel the commands that run on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminate_sessions: Option<Empty>,
    /// EC2 instance: out of its Auto Scaling group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach_from_auto_scaling: Option<DetachFromAutoScaling>,
    /// EC2 instance: out of its load balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregister_from_load_balancers: Option<Empty>,
    /// EC2 instance: stop it, and again whenever somebody starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_instance: Option<EndInstance>,
    /// EC2 instance: terminate it, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminate_instance: Option<EndInstance>,
    /// IAM user or role: deny every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_all: Option<Empty>,
    /// IAM user: switch off every access key. Access key: switch off that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_access_keys: Option<Empty>,
    /// IAM user: switch off every SSH public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_ssh_keys: Option<Empty>,
    /// IAM user: switch off every service-specific credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_service_credentials: Option<Empty>,
    /// IAM user: switch off every signing certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivate_signing_certificates: Option<Empty>,
    /// IAM user: delete the console password, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_console_access: Option<Empty>,
    /// IAM role, or access key: deny the sessions of the role, or of the key's user, that were issued before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_sessions: Option<Empty>,
    /// IAM role: let nobody assume it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_trust_policy: Option<Empty>,
    /// Role session: deny every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_session: Option<Empty>,
}

/// One kind of evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["ebsSnapshots"])
    .message("collect: exactly one kind of evidence is needed: ebsSnapshots"))]
pub struct EvidenceAction {
    /// Snapshots of all EBS volumes of the instance, taken in one call, so that they show one moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_snapshots: Option<Empty>,
}

/// What a release gives back beyond the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleasePolicy {
    /// Switch the access keys that were active back on. Off by default: a key that leaked stays leaked.
    #[serde(default)]
    pub reactivate_access_keys: bool,
    /// Switch the SSH public keys, service-specific credentials and signing certificates that were active back on. Off by
    /// default: what leaked stays leaked.
    #[serde(default)]
    pub reactivate_credentials: bool,
    /// Put an instance back into service in the Auto Scaling group that it was in. Off by default: the group has a replacement,
    /// and its desired capacity grows by one.
    #[serde(default)]
    pub rejoin_auto_scaling: bool,
}
