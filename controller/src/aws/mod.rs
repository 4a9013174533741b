//! AWS as Firebreak uses it: `Session` reads, `act` is the only place that changes anything, `Call` lists all that it can change.

mod act;
mod aws_clock;
mod batch;
mod call;
mod error;
mod instance_role;
mod kept;
mod login;
mod model;
mod own_instance;
mod permissions;
mod protected;
mod rate;
mod read;
mod session;
mod session_denies;
mod spills;

pub use act::{Actor, Guard, Outcome};
pub use call::{Call, Change, GroupRole, InstanceAttribute, SEALED_TRUST};
pub use error::{AwsError, Class};
pub use instance_role::{
    DENY_PROFILE, DenyProfile, InstanceProfile, ProfileAssociation, ProfileRole, is_deny_profile, profile_name,
};
#[cfg(test)]
pub use model::AttachedVolume;
pub use model::{
    Carrier, ClassicBalancer, Credential, ElasticAddress, Group, Identity, IdleTimeouts, Instance, InstanceProtection,
    Interface, LoginProfile, Marked, Membership, MetadataOptions, OpenCommand, OpenSession, Peer, Principal, PublicAddress,
    Registration, RouteTable, Rule, ScalingGroup, Snapshot, Target, TargetGroup, User, VpcWays, Ways, target_group_name,
};
pub use own_instance::own_instance;
pub use permissions::iam_policy;
pub use protected::{assumed_role, own, protects, unpartitioned};
pub use rate::Priority;
pub use read::{DENY_POLICY, same_document, within};
pub use session::{Accounts, Session};
pub use session_denies::{DenyEdit, LONGEST_ROLE_SESSION, SESSION_DENIES, SessionDenies, until as sessions_until};
