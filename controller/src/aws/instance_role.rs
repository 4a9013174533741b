//! How an instance gets its role, as plain data: its association with an instance profile, and the role in that.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::model::Identity;

/// The name of the profile that takes the place of a contained instance's, and of the role in it, which may do nothing.
pub const DENY_PROFILE: &str = "firebreak-deny-all";

/// A role in an instance profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRole {
    /// Its name, without path.
    pub name: String,
    /// `AROA...`.
    pub id: String,
}

/// An instance profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceProfile {
    /// Its ARN.
    pub arn: String,
    /// `AIPA...`.
    pub id: String,
    /// Its role; AWS allows one.
    pub role: Option<ProfileRole>,
}

/// That an instance has a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileAssociation {
    /// `iip-assoc-...`: another, each time that the profile changes.
    pub id: String,
    /// The profile's ARN.
    pub profile: String,
    /// `associating`, `associated`, `disassociating`.
    pub state: String,
    /// When it was made.
    pub since: Option<Timestamp>,
}

impl ProfileAssociation {
    /// Whether it is, or is about to be, what the instance has.
    #[must_use]
    pub fn is_live(&self) -> bool {
        ["associating", "associated"].contains(&self.state.as_str())
    }
}

/// Firebreak's own profile, and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyProfile {
    /// Whether there is the role.
    pub role: bool,
    /// The text of the role's deny.
    pub policy: Option<String>,
    /// The profile.
    pub profile: Option<InstanceProfile>,
    /// Whether this was read from AWS, and not merely expected.
    pub read: bool,
}

/// A role on which sessions of instances are denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedRole {
    /// Who it is.
    pub identity: Identity,
    /// The text of the policy that lists the sessions.
    pub denies: Option<String>,
}

/// The name of a profile, of which the ARN has a path before it.
#[must_use]
pub fn profile_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// Whether it is Firebreak's own.
#[must_use]
pub fn is_deny_profile(arn: &str) -> bool {
    profile_name(arn) == DENY_PROFILE
}
