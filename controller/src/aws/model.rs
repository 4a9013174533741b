//! What is read of AWS, as plain data: only the fields that a decision needs.

use firebreak_crds::{ResidualDeny, Resource, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod network;

pub use network::{ElasticAddress, Group, IdleTimeouts, Interface, Peer, PublicAddress, RouteTable, Rule, VpcWays, Ways};

/// An EC2 instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// `i-...`.
    pub id: String,
    /// `running`, `stopped`, `terminated`, ...
    pub state: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The ids of the interfaces that the instance shows; their details come from `Interface`.
    pub interfaces: Vec<String>,
    /// Whether it is a Spot instance.
    pub spot: bool,
    /// Its type, e.g. `t3.small`.
    pub kind: String,
    /// Whether its root device is an EBS volume; else it cannot be stopped.
    pub ebs_root: bool,
    /// Its EBS volumes.
    pub volumes: Vec<AttachedVolume>,
    /// Its metadata service.
    pub metadata: MetadataOptions,
}

impl Instance {
    /// Whether it will never run again: nothing of it can be changed, or given back.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_terminated() || self.state == "shutting-down"
    }

    /// Whether it runs no more, for good. One that is still shutting down may have traffic for minutes: that is cut to the end.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.state == "terminated"
    }
}

/// An EBS volume of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachedVolume {
    /// `vol-...`.
    pub id: String,
    /// `/dev/sda1`.
    pub device: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
}

/// The metadata service of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataOptions {
    /// `HttpEndpoint`.
    pub enabled: bool,
    /// Whether AWS is still applying a change.
    pub pending: bool,
    /// `required` or `optional`.
    pub http_tokens: String,
    /// `HttpPutResponseHopLimit`.
    pub hop_limit: i32,
}

/// What keeps an instance from being destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceProtection {
    /// `DisableApiTermination`.
    pub disable_api_termination: bool,
    /// `DisableApiStop`.
    pub disable_api_stop: bool,
    /// Whether `InstanceInitiatedShutdownBehavior` is `stop`, and not `terminate`.
    pub shutdown_stops: bool,
}

/// What all instances of a type have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceKind {
    /// Disks of their host; None where AWS does not say.
    pub store: Option<bool>,
    /// The Nitro system.
    pub nitro: bool,
}

/// An instance's place in an Auto Scaling group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The group's name.
    pub group: String,
    /// `InService`, `Standby`, `Pending:Wait`, ...
    pub state: String,
    /// Whether scale-in spares it.
    pub protected: bool,
}

/// An Auto Scaling group, as far as taking an instance in or out goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingGroup {
    /// How many instances it wants.
    pub desired: i32,
    /// How many it may want.
    pub max: i32,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The ids of its instances that are in service.
    pub in_service: Vec<String>,
    /// The processes that somebody suspended: `Launch`, ...
    pub suspended: Vec<String>,
}

/// What a target group has registered: given back exactly so.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// `i-...`, or an address.
    pub id: String,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// The zone, or `all`; of addresses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Where the protocol is QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic_server_id: Option<String>,
}

/// A target, and whether it gets new requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// What is registered.
    pub registration: Registration,
    /// Whether it is registered, healthy or not.
    pub registered: bool,
    /// Whether it was taken out and serves what is open.
    pub draining: bool,
    /// Whether it passes its health checks, or AWS makes none.
    pub healthy: bool,
}

/// A target group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: String,
    /// Its targets.
    pub targets: Vec<Target>,
    /// For how many seconds it drains what is taken out; read while it does.
    pub drains_for: Option<i64>,
}

/// `web` of `arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/0123456789abcdef`.
#[must_use]
pub fn target_group_name(arn: &str) -> &str {
    arn.split('/').nth(1).unwrap_or(arn)
}

impl TargetGroup {
    /// The group with only some of its targets.
    #[must_use]
    pub fn with(&self, such: impl Fn(&&Target) -> bool) -> Self {
        let targets = self.targets.iter().filter(such).cloned().collect();
        Self { arn: self.arn.clone(), targets, drains_for: self.drains_for }
    }
}

/// A classic load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicBalancer {
    /// Its name.
    pub name: String,
    /// The ids of the instances registered with it.
    pub instances: Vec<String>,
}

impl ClassicBalancer {
    /// The load balancer with only this instance, if it has it.
    #[must_use]
    pub fn with(&self, instance: &str) -> Self {
        let instances = self.instances.iter().filter(|i| *i == instance).take(1).cloned().collect();
        Self { name: self.name.clone(), instances }
    }
}

/// A session of Session Manager that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenSession {
    /// `mallory-0123456789abcdef0`.
    pub id: String,
    /// The managed node that it is on: an instance's id, or something else's.
    pub target: String,
    /// The ARN of whoever opened it.
    pub owner: String,
    /// Whether AWS is ending it.
    pub ending: bool,
}

/// A command of Run Command on one instance, that waits or runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenCommand {
    /// The command, of all its instances.
    pub id: String,
    /// This instance.
    pub target: String,
    /// The document that it runs.
    pub document: String,
    /// Whether AWS is cancelling it.
    pub ending: bool,
}

/// An EBS snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// `snap-...`.
    pub id: String,
    /// The volume that it is of.
    pub volume: String,
    /// `pending`, `completed`, `error`, ...
    pub state: String,
    /// AWS's progress, e.g. `42%`.
    pub progress: String,
    /// The volume's size in GiB.
    pub size: i32,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// Its description.
    pub description: String,
    /// AWS's word on what went wrong.
    pub message: String,
}

/// Who acts in an account: an IAM user or role, by name. What is done to one is done to the other by an operation of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A user.
    User(String),
    /// A role.
    Role(String),
}

impl Principal {
    /// The user or role that is contained; of an access key its user, of a session its role. An instance is none; IAM's calls are not made for one.
    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        match resource.kind {
            ResourceKind::IamRole => Self::Role(resource.id.clone()),
            ResourceKind::RoleSession => Self::Role(resource.role_and_session().map_or("", |(role, _)| role).to_owned()),
            ResourceKind::IamUser | ResourceKind::Ec2Instance => Self::User(resource.id.clone()),
            ResourceKind::AccessKey => Self::User(resource.user.as_ref().map(|u| u.name.clone()).unwrap_or_default()),
        }
    }

    /// Whom a deny of sessions is on.
    #[must_use]
    pub fn denied(deny: &ResidualDeny) -> Option<Self> {
        let user = deny.user_name.clone().map(Self::User);
        user.or_else(|| deny.role_name.clone().map(Self::Role))
    }

    /// Its name, without path.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Role(name) => name,
        }
    }

    /// What is said of a user, or of a role.
    pub fn either<T>(&self, user: T, role: T) -> T {
        match self {
            Self::User(_) => user,
            Self::Role(_) => role,
        }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An IAM user or role as AWS shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `AIDA...` or `AROA...`: one made again under the same name has another.
    pub id: String,
    /// Its ARN; carries the partition and the path.
    pub arn: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The ARN of the policy that is its permissions boundary.
    pub boundary: Option<String>,
    /// Of a role: the text of its trust policy.
    pub trust: Option<String>,
    /// Of a role: when it last made a call, as far as AWS has noticed.
    pub last_used: Option<Timestamp>,
}

impl Identity {
    /// Whose it is, where AWS lets nobody change it.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-service-linked-role>
    #[must_use]
    pub fn managed_by(&self) -> Option<&'static str> {
        let managed = [
            (":role/aws-service-role/", "the AWS service that it is linked to"),
            (":role/aws-reserved/", "Identity Center"),
        ];
        managed.into_iter().find(|(path, _)| self.arn.contains(path)).map(|(_, by)| by)
    }
}

/// An IAM user.
pub type User = Identity;

/// One credential of an IAM user, of a kind of which there can be several: an access key, an SSH public key, a
/// service-specific credential, a signing certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// `AKIA...`, `APKA...`, `ACCA...`.
    pub id: String,
    /// Whether it can be used.
    pub active: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether its time is over: nothing brings it back. Only Bedrock's API keys have one.
    pub expired: bool,
}

/// A user or role with what Firebreak put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Who.
    pub principal: Principal,
    /// AWS's unique id.
    pub id: String,
    /// The policies, in words.
    pub policies: Vec<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

/// A resource that carries a tag that its account protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// What it is.
    pub kind: ResourceKind,
    /// The region; None for IAM.
    pub region: Option<String>,
    /// The instance id, or the name of the user or the role.
    pub id: String,
    /// The tag's key.
    pub key: String,
}

/// That an IAM user has a console password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginProfile {
    /// When the password was made.
    pub created: Timestamp,
}
