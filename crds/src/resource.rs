//! References: to objects of the cluster, and to resources of AWS.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a cluster-scoped object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// `metadata.name` of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One Incident, by name and by uid: one made again under the same name is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentRef {
    /// `metadata.uid`.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// `metadata.namespace`.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// `metadata.name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What kind of AWS resource is contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ResourceKind {
    /// An EC2 instance.
    Ec2Instance,
    /// An IAM user.
    IamUser,
    /// An IAM role.
    IamRole,
    /// An access key of an IAM user.
    AccessKey,
    /// A session of an IAM role.
    RoleSession,
}

impl ResourceKind {
    /// Whether it can carry tags of its own.
    #[must_use]
    pub fn has_tags(self) -> bool {
        !matches!(self, Self::AccessKey | Self::RoleSession)
    }
}

/// The user of an access key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct KeyUser {
    /// Its name, without path.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// AWS's unique id, `AIDA...`: a user that was deleted and made again has another.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
}

/// One AWS resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.region) == (self.kind == 'Ec2Instance')")
    .message("region: an instance has one, a user or a role has none"))]
#[x_kube(validation = Rule::new("has(self.user) == (self.kind == 'AccessKey')")
    .message("user: an access key has one, nothing else has"))]
pub struct Resource {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// The `AwsAccount` through which it is reached.
    pub account_ref: NameRef,
    /// The twelve digits of the account.
    #[schemars(length(max = 12), regex(pattern = r"^[0-9]{12}$"))]
    pub account_id: String,
    /// The region; absent for IAM, which is global.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub region: Option<String>,
    /// The instance id, the name of the user or the role, the access key's id, or `role/session`.
    #[schemars(length(min = 1, max = 256))]
    pub id: String,
    /// Of an access key: the user whose it is, as AWS said before the key was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<KeyUser>,
}

impl Resource {
    /// The Amazon Resource Name, as far as it can be said without asking AWS: the partition is `aws`, and the path of a
    /// user or a role is left out. Used to name things and in plan digests, never sent to AWS.
    #[must_use]
    pub fn arn(&self) -> String {
        let (account, id) = (&self.account_id, &self.id);
        match self.kind {
            ResourceKind::Ec2Instance => {
                format!("arn:aws:ec2:{}:{account}:instance/{id}", self.region.as_deref().unwrap_or_default())
            }
            ResourceKind::IamUser => format!("arn:aws:iam::{account}:user/{id}"),
            ResourceKind::IamRole => format!("arn:aws:iam::{account}:role/{id}"),
            ResourceKind::RoleSession => format!("arn:aws:sts::{account}:assumed-role/{id}"),
            // AWS has none for it. Its user is not part of this one: what a plan is approved by must not need AWS.
            ResourceKind::AccessKey => format!("arn:aws:iam::{account}:access-key/{id}"),
        }
    }

    /// Of a role session: the names of the role and of the session. Neither can have a slash.
    #[must_use]
    pub fn role_and_session(&self) -> Option<(&str, &str)> {
        self.id.split_once('/').filter(|_| self.kind == ResourceKind::RoleSession)
    }

    /// The kind in lower case, as used in names.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self.kind {
            ResourceKind::Ec2Instance => "ec2instance",
            ResourceKind::IamUser => "iamuser",
            ResourceKind::IamRole => "iamrole",
            ResourceKind::AccessKey => "accesskey",
            ResourceKind::RoleSession => "rolesession",
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            ResourceKind::Ec2Instance => write!(f, "instance {}", self.id),
            ResourceKind::IamUser => write!(f, "user {}", self.id),
            ResourceKind::IamRole => write!(f, "role {}", self.id),
            ResourceKind::AccessKey => write!(f, "access key {}", self.id),
            ResourceKind::RoleSession => write!(f, "role session {}", self.id),
        }
    }
}
