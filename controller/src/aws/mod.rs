//! AWS as Firebreak uses it: `Session` reads, `act` is the only place that changes anything, `Call` lists all that it can change.

mod act;
mod batch;
mod call;
mod error;
mod model;
mod own_instance;
mod permissions;
mod rate;
mod read;
mod session;

pub use act::{Actor, Guard, Outcome};
pub use call::{Call, Change, GroupRole, InstanceAttribute, SEALED_TRUST};
pub use error::{AwsError, Class};
#[cfg(test)]
pub use model::AttachedVolume;
pub use model::{
    ClassicBalancer, Credential, ElasticAddress, Group, Identity, Instance, InstanceProtection, Interface, LoginProfile,
    Marked, Membership, MetadataOptions, Principal, PublicAddress, Registration, RouteTable, Rule, ScalingGroup, Snapshot,
    Target, TargetGroup, User,
};
pub use own_instance::own_instance;
pub use permissions::iam_policy;
pub use rate::Priority;
pub use session::{Accounts, Session};
