//! `Call`: the complete list of what Firebreak can do to an account. The dry-run text, the audit line, the metric label and
//! the IAM policy all come from it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use firebreak_crds::{NameRef, Resource, ResourceKind, quarantine_name};

use super::instance_role::{DENY_PROFILE, is_deny_profile, profile_name};
use super::model::{IdleTimeouts, Principal, Registration, Rule};
use super::session_denies::{DenyEdit, SESSION_DENIES};
use crate::conditions::counted;

/// What a security group of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupRole {
    /// Has no rules, ever.
    Isolation,
    /// Allows all, so that flows through it are untracked; an interface is in it for seconds.
    Conversion,
    /// Has the rules of one allow-list, and no other. The list goes by its digest.
    Allowing(u32),
}

impl GroupRole {
    /// The group's name, one per VPC.
    #[must_use]
    pub fn group_name(self) -> Cow<'static, str> {
        match self {
            Self::Isolation => "firebreak-isolation".into(),
            Self::Conversion => "firebreak-conversion".into(),
            Self::Allowing(list) => format!("firebreak-isolation-{list:08x}").into(),
        }
    }

    /// The role of the group of that name; None where it is none of ours.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let list = name.strip_prefix("firebreak-isolation-").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let all = [Some(Self::Isolation), Some(Self::Conversion), list.map(Self::Allowing)];
        all.into_iter().flatten().find(|role| role.group_name() == name)
    }

    /// The group's description in AWS.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Isolation => "Firebreak: isolates instances. Must never have rules.",
            Self::Conversion => "Firebreak: makes tracked flows untracked before they are cut.",
            Self::Allowing(_) => "Firebreak: isolates instances but for one allow-list. Its rules are kept as they are.",
        }
    }
}

/// Why an interface's groups are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// To the isolation group, or that of the allow-list in force.
    Isolate,
    /// To the conversion group, for seconds, inside a recorded window.
    Convert,
    /// Back from there.
    Close,
    /// To what was there before.
    Restore,
}

/// What `ModifyInstanceAttribute` sets: one attribute a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceAttribute {
    /// Termination protection.
    DisableApiTermination,
    /// Stop protection.
    DisableApiStop,
    /// What a shutdown from within does.
    InstanceInitiatedShutdownBehavior,
    /// Whether the volumes at these devices go with the instance.
    DeleteOnTermination(Vec<String>),
}

/// A trust policy that lets nobody assume the role: it allows nothing, and AWS takes none without a statement. IAM refuses
/// `"Principal": "*"` in a trust policy, and takes this form of it.
pub const SEALED_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"FirebreakSealed","Effect":"Deny","Principal":{"AWS":"*"},"Action":["sts:AssumeRole","sts:AssumeRoleWithSAML","sts:AssumeRoleWithWebIdentity","sts:SetSourceIdentity","sts:TagSession"]}]}"#;

/// One changing AWS operation with its parameters.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the fields are AWS's own parameters
pub enum Call {
    CreateSecurityGroup {
        vpc: String,
        role: GroupRole,
    },
    RevokeSecurityGroupIngress {
        group: String,
        rules: Vec<Rule>,
    },
    RevokeSecurityGroupEgress {
        group: String,
        rules: Vec<Rule>,
    },
    /// On the conversion group, and on those of allow-lists.
    AuthorizeSecurityGroupIngress {
        group: String,
        rules: Vec<Rule>,
    },
    /// On the conversion group, and on those of allow-lists.
    AuthorizeSecurityGroupEgress {
        group: String,
        rules: Vec<Rule>,
    },
    ModifyNetworkInterfaceAttribute {
        interface: String,
        groups: Vec<String>,
        change: Change,
    },
    /// When AWS forgets idle flows: an attribute of `ModifyNetworkInterfaceAttribute`.
    SetIdleTimeouts {
        interface: String,
        timeouts: IdleTimeouts,
        restore: bool,
    },
    /// Whether AWS assigns the interface a public address: an attribute of `ModifyNetworkInterfaceAttribute`.
    AssociatePublicIpAddress {
        interface: String,
        on: bool,
    },
    /// Never takes an address away from somebody who uses it.
    AssociateAddress {
        allocation: String,
        interface: String,
        private: String,
        public: String,
    },
    DisassociateAddress {
        association: String,
        public: String,
    },
    /// Refused where the instance has a profile.
    AssociateIamInstanceProfile {
        instance: String,
        profile: String,
    },
    DisassociateIamInstanceProfile {
        instance: String,
        association: String,
    },
    /// Of a running instance.
    ReplaceIamInstanceProfileAssociation {
        instance: String,
        association: String,
        profile: String,
    },
    /// `tokens` (`HttpTokens` and hop limit) only where they too are given back; what is not named, AWS keeps.
    ModifyInstanceMetadataOptions {
        instance: String,
        enabled: bool,
        tokens: Option<(String, i32)>,
    },
    /// `protect`: to the value that keeps the instance and its data; else to the other.
    ModifyInstanceAttribute {
        instance: String,
        attribute: InstanceAttribute,
        protect: bool,
    },
    /// Takes stop protection away from an instance that is stopped next: `ModifyInstanceAttribute` that gives nothing back.
    LiftStopProtection {
        instance: String,
    },
    /// Without the instance's own shutdown scripts.
    StopInstances {
        instance: String,
    },
    StartInstances {
        instance: String,
    },
    /// Without the instance's own shutdown scripts. Nothing gives it back.
    TerminateInstances {
        instance: String,
    },
    CreateTags {
        resource: String,
        tags: BTreeMap<String, String>,
    },
    DeleteTags {
        resource: String,
        tags: BTreeMap<String, String>,
    },
    /// `instance` is snapshotted; `evidence` goes into the description, by which it is found again.
    CreateSnapshots {
        instance: String,
        description: String,
        tags: BTreeMap<String, String>,
    },
    DeregisterTargets {
        group: String,
        targets: Vec<Registration>,
    },
    RegisterTargets {
        group: String,
        targets: Vec<Registration>,
    },
    /// A classic load balancer's.
    DeregisterInstancesFromLoadBalancer {
        balancer: String,
        instance: String,
    },
    /// A classic load balancer's.
    RegisterInstancesWithLoadBalancer {
        balancer: String,
        instance: String,
    },
    /// Of Session Manager.
    TerminateSession {
        instance: String,
        session: String,
        owner: String,
    },
    /// Of Run Command, on this instance only: it goes on elsewhere.
    CancelCommand {
        instance: String,
        command: String,
        document: String,
    },
    /// From scale-in, by its group.
    SetInstanceProtection {
        group: String,
        instance: String,
        protect: bool,
    },
    /// The group's desired capacity stays.
    DetachInstances {
        group: String,
        instance: String,
    },
    /// The group's desired capacity stays.
    EnterStandby {
        group: String,
        instance: String,
    },
    /// The group's desired capacity grows by one.
    ExitStandby {
        group: String,
        instance: String,
    },
    /// The group's desired capacity grows by one.
    AttachInstances {
        group: String,
        instance: String,
    },
    /// Firebreak's own role, which may do nothing.
    CreateRole,
    /// Firebreak's own profile.
    CreateInstanceProfile,
    /// Firebreak's own role to its own profile.
    AddRoleToInstanceProfile,
    /// From Firebreak's own profile.
    RemoveRoleFromInstanceProfile {
        role: String,
    },
    /// `PutRolePolicy`, or `DeleteRolePolicy` where nothing is left: one change of the policy that lists the denied sessions of
    /// instances. What is sent is decided when nobody else writes it.
    EditSessionDenies {
        role: String,
        edit: DenyEdit,
    },
    /// `PutUserPolicy` or `PutRolePolicy`; those below have their two names likewise.
    PutPolicy {
        principal: Principal,
        policy: String,
        document: String,
    },
    DeletePolicy {
        principal: Principal,
        policy: String,
    },
    /// The same operation on a deny whose time is over: gives nothing back.
    DeleteExpiredSessionsDeny {
        principal: Principal,
        policy: String,
    },
    AttachPolicy {
        principal: Principal,
        arn: String,
    },
    DetachPolicy {
        principal: Principal,
        arn: String,
    },
    PutPermissionsBoundary {
        principal: Principal,
        arn: String,
    },
    DeletePermissionsBoundary {
        principal: Principal,
    },
    UpdateAssumeRolePolicy {
        role: String,
        document: String,
    },
    UpdateAccessKey {
        user: String,
        id: String,
        active: bool,
    },
    UpdateSshPublicKey {
        user: String,
        id: String,
        active: bool,
    },
    UpdateServiceSpecificCredential {
        user: String,
        id: String,
        active: bool,
    },
    UpdateSigningCertificate {
        user: String,
        id: String,
        active: bool,
    },
    /// The console password. Nothing gives it back.
    DeleteLoginProfile {
        user: String,
    },
    TagPrincipal {
        principal: Principal,
        tags: BTreeMap<String, String>,
    },
    UntagPrincipal {
        principal: Principal,
        tags: BTreeMap<String, String>,
    },
}

impl Call {
    /// AWS's name for it, with the service: the IAM action that must be granted.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::CreateSecurityGroup { .. } => "ec2:CreateSecurityGroup",
            Self::RevokeSecurityGroupIngress { .. } => "ec2:RevokeSecurityGroupIngress",
            Self::RevokeSecurityGroupEgress { .. } => "ec2:RevokeSecurityGroupEgress",
            Self::AuthorizeSecurityGroupIngress { .. } => "ec2:AuthorizeSecurityGroupIngress",
            Self::AuthorizeSecurityGroupEgress { .. } => "ec2:AuthorizeSecurityGroupEgress",
            Self::ModifyNetworkInterfaceAttribute { .. }
            | Self::SetIdleTimeouts { .. }
            | Self::AssociatePublicIpAddress { .. } => "ec2:ModifyNetworkInterfaceAttribute",
            Self::AssociateAddress { .. } => "ec2:AssociateAddress",
            Self::DisassociateAddress { .. } => "ec2:DisassociateAddress",
            Self::AssociateIamInstanceProfile { .. } => "ec2:AssociateIamInstanceProfile",
            Self::DisassociateIamInstanceProfile { .. } => "ec2:DisassociateIamInstanceProfile",
            Self::ReplaceIamInstanceProfileAssociation { .. } => "ec2:ReplaceIamInstanceProfileAssociation",
            Self::CreateRole => "iam:CreateRole",
            Self::CreateInstanceProfile => "iam:CreateInstanceProfile",
            Self::AddRoleToInstanceProfile => "iam:AddRoleToInstanceProfile",
            Self::RemoveRoleFromInstanceProfile { .. } => "iam:RemoveRoleFromInstanceProfile",
            Self::EditSessionDenies { .. } => "iam:PutRolePolicy",
            Self::ModifyInstanceMetadataOptions { .. } => "ec2:ModifyInstanceMetadataOptions",
            Self::ModifyInstanceAttribute { .. } | Self::LiftStopProtection { .. } => "ec2:ModifyInstanceAttribute",
            Self::StopInstances { .. } => "ec2:StopInstances",
            Self::StartInstances { .. } => "ec2:StartInstances",
            Self::TerminateInstances { .. } => "ec2:TerminateInstances",
            Self::CreateTags { .. } => "ec2:CreateTags",
            Self::DeleteTags { .. } => "ec2:DeleteTags",
            Self::CreateSnapshots { .. } => "ec2:CreateSnapshots",
            Self::DeregisterTargets { .. } => "elasticloadbalancing:DeregisterTargets",
            Self::RegisterTargets { .. } => "elasticloadbalancing:RegisterTargets",
            Self::DeregisterInstancesFromLoadBalancer { .. } => "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
            Self::RegisterInstancesWithLoadBalancer { .. } => "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
            Self::TerminateSession { .. } => "ssm:TerminateSession",
            Self::CancelCommand { .. } => "ssm:CancelCommand",
            Self::SetInstanceProtection { .. } => "autoscaling:SetInstanceProtection",
            Self::DetachInstances { .. } => "autoscaling:DetachInstances",
            Self::EnterStandby { .. } => "autoscaling:EnterStandby",
            Self::ExitStandby { .. } => "autoscaling:ExitStandby",
            Self::AttachInstances { .. } => "autoscaling:AttachInstances",
            Self::PutPolicy { principal, .. } => principal.either("iam:PutUserPolicy", "iam:PutRolePolicy"),
            Self::DeletePolicy { principal, .. } | Self::DeleteExpiredSessionsDeny { principal, .. } => {
                principal.either("iam:DeleteUserPolicy", "iam:DeleteRolePolicy")
            }
            Self::AttachPolicy { principal, .. } => principal.either("iam:AttachUserPolicy", "iam:AttachRolePolicy"),
            Self::DetachPolicy { principal, .. } => principal.either("iam:DetachUserPolicy", "iam:DetachRolePolicy"),
            Self::PutPermissionsBoundary { principal, .. } => {
                principal.either("iam:PutUserPermissionsBoundary", "iam:PutRolePermissionsBoundary")
            }
            Self::DeletePermissionsBoundary { principal } => {
                principal.either("iam:DeleteUserPermissionsBoundary", "iam:DeleteRolePermissionsBoundary")
            }
            Self::UpdateAssumeRolePolicy { .. } => "iam:UpdateAssumeRolePolicy",
            Self::UpdateAccessKey { .. } => "iam:UpdateAccessKey",
            Self::UpdateSshPublicKey { .. } => "iam:UpdateSSHPublicKey",
            Self::UpdateServiceSpecificCredential { .. } => "iam:UpdateServiceSpecificCredential",
            Self::UpdateSigningCertificate { .. } => "iam:UpdateSigningCertificate",
            Self::DeleteLoginProfile { .. } => "iam:DeleteLoginProfile",
            Self::TagPrincipal { principal, .. } => principal.either("iam:TagUser", "iam:TagRole"),
            Self::UntagPrincipal { principal, .. } => principal.either("iam:UntagUser", "iam:UntagRole"),
        }
    }

    /// The service's prefix in IAM policies.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.operation().split_once(':').map_or("", |(service, _)| service)
    }

    /// Whether it opens an interface for seconds.
    #[must_use]
    pub fn opens(&self) -> bool {
        matches!(self, Self::ModifyNetworkInterfaceAttribute { change: Change::Convert, .. })
    }

    /// Whether it closes one that stands open for its seconds.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Self::ModifyNetworkInterfaceAttribute { change: Change::Close, .. })
    }

    /// The group of ours that it takes rules out of.
    #[must_use]
    pub fn empties(&self) -> Option<&String> {
        match self {
            Self::RevokeSecurityGroupIngress { group, .. } | Self::RevokeSecurityGroupEgress { group, .. } => Some(group),
            _ => None,
        }
    }

    /// Whether it gives access back. Each such call is preceded by a live read of its Quarantine.
    #[must_use]
    pub fn widens(&self) -> bool {
        match self {
            Self::ModifyNetworkInterfaceAttribute { change, .. } => *change == Change::Restore,
            Self::SetIdleTimeouts { restore, .. } => *restore,
            Self::AssociatePublicIpAddress { on, .. } => *on,
            Self::ModifyInstanceMetadataOptions { enabled, .. } => *enabled,
            // Without protection the instance can be destroyed.
            Self::ModifyInstanceAttribute { protect, .. } | Self::SetInstanceProtection { protect, .. } => !protect,
            Self::UpdateAccessKey { active, .. }
            | Self::UpdateSshPublicKey { active, .. }
            | Self::UpdateServiceSpecificCredential { active, .. }
            | Self::UpdateSigningCertificate { active, .. } => *active,
            Self::UpdateAssumeRolePolicy { document, .. } => document != SEALED_TRUST,
            Self::AssociateIamInstanceProfile { profile, .. }
            | Self::ReplaceIamInstanceProfileAssociation { profile, .. } => !is_deny_profile(profile),
            Self::EditSessionDenies { edit, .. } => matches!(edit, DenyEdit::Release(..)),
            Self::DeletePolicy { .. }
            | Self::DetachPolicy { .. }
            | Self::DeletePermissionsBoundary { .. }
            | Self::AssociateAddress { .. }
            | Self::StartInstances { .. }
            | Self::ExitStandby { .. }
            | Self::RegisterTargets { .. }
            | Self::RegisterInstancesWithLoadBalancer { .. }
            | Self::AttachInstances { .. } => true,
            Self::PutPermissionsBoundary { arn, .. } => !arn.ends_with(":iam::aws:policy/AWSDenyAll"),
            // Each by its name: whoever adds a call must decide.
            Self::CreateSecurityGroup { .. }
            | Self::RevokeSecurityGroupIngress { .. }
            | Self::RevokeSecurityGroupEgress { .. }
            | Self::AuthorizeSecurityGroupIngress { .. }
            | Self::AuthorizeSecurityGroupEgress { .. }
            | Self::DisassociateAddress { .. }
            | Self::DisassociateIamInstanceProfile { .. }
            | Self::CreateRole
            | Self::CreateInstanceProfile
            | Self::AddRoleToInstanceProfile
            | Self::RemoveRoleFromInstanceProfile { .. }
            | Self::CreateTags { .. }
            | Self::DeleteTags { .. }
            | Self::CreateSnapshots { .. }
            | Self::DeregisterTargets { .. }
            | Self::DeregisterInstancesFromLoadBalancer { .. }
            | Self::TerminateSession { .. }
            | Self::CancelCommand { .. }
            | Self::DetachInstances { .. }
            | Self::EnterStandby { .. }
            | Self::PutPolicy { .. }
            | Self::DeleteExpiredSessionsDeny { .. }
            | Self::AttachPolicy { .. }
            | Self::DeleteLoginProfile { .. }
            | Self::TagPrincipal { .. }
            | Self::UntagPrincipal { .. }
            // Who stops it next loses nothing by it; a release puts it back.
            | Self::LiftStopProtection { .. }
            | Self::StopInstances { .. }
            | Self::TerminateInstances { .. } => false,
        }
    }

    /// Whether it destroys what nothing gives back. Each such call is preceded by a live read of its Quarantine: that it is still
    /// held.
    #[must_use]
    pub fn destroys(&self) -> bool {
        matches!(self, Self::StopInstances { .. } | Self::TerminateInstances { .. })
    }

    /// The credential that it switches, and whether on.
    #[must_use]
    pub fn switches(&self) -> Option<(&str, bool)> {
        match self {
            Self::UpdateAccessKey { id, active, .. }
            | Self::UpdateSshPublicKey { id, active, .. }
            | Self::UpdateServiceSpecificCredential { id, active, .. }
            | Self::UpdateSigningCertificate { id, active, .. } => Some((id, *active)),
            _ => None,
        }
    }

    /// The names of the Quarantines by which what it gives back can be held: its user's, under the name that it has; of an access key
    /// that key's own besides, and its user's under the name that it was contained with.
    #[must_use]
    pub fn held_as(&self, account_id: &str, declared: &str) -> Vec<String> {
        let named = |kind, id: &str| Resource {
            kind,
            account_ref: NameRef { name: String::new() }, // no part of the name
            account_id: account_id.to_owned(),
            region: None,
            id: id.to_owned(),
            user: None,
        };
        let of = |resources: Vec<Resource>| resources.iter().map(quarantine_name).collect();
        match (self, self.user()) {
            (Self::UpdateAccessKey { user, id, .. }, _) => of(vec![
                named(ResourceKind::AccessKey, id),
                named(ResourceKind::IamUser, user),
                named(ResourceKind::IamUser, declared),
            ]),
            (_, Some(user)) => of(vec![named(ResourceKind::IamUser, user)]),
            _ => Vec::new(),
        }
    }

    /// Whether it switches an access key.
    #[must_use]
    pub fn is_of_a_key(&self) -> bool {
        matches!(self, Self::UpdateAccessKey { .. })
    }

    /// The IAM user that it changes.
    fn user(&self) -> Option<&str> {
        match self {
            Self::PutPolicy { principal, .. }
            | Self::DeletePolicy { principal, .. }
            | Self::AttachPolicy { principal, .. }
            | Self::DetachPolicy { principal, .. }
            | Self::PutPermissionsBoundary { principal, .. }
            | Self::DeletePermissionsBoundary { principal, .. } => match principal {
                Principal::User(name) => Some(name),
                Principal::Role(_) => None,
            },
            Self::UpdateAccessKey { user, .. }
            | Self::UpdateSshPublicKey { user, .. }
            | Self::UpdateServiceSpecificCredential { user, .. }
            | Self::UpdateSigningCertificate { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether a refusal is no failure where the action is in force without it.
    #[must_use]
    pub fn optional(&self) -> bool {
        match self {
            Self::SetInstanceProtection { protect, .. } => *protect,
            Self::SetIdleTimeouts { restore, .. } => !restore,
            // The profile is taken off where it cannot be replaced.
            Self::AssociateIamInstanceProfile { .. } | Self::ReplaceIamInstanceProfileAssociation { .. } => !self.widens(),
            Self::CreateRole
            | Self::CreateInstanceProfile
            | Self::AddRoleToInstanceProfile
            | Self::RemoveRoleFromInstanceProfile { .. }
            | Self::TerminateSession { .. }
            | Self::CancelCommand { .. } => true,
            _ => false,
        }
    }

    /// Whether repeating it is harmless. AWS gives `CreateSnapshots` no client token.
    #[must_use]
    pub fn idempotent(&self) -> bool {
        !matches!(self, Self::CreateSnapshots { .. })
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.operation())?;
        match self {
            Self::CreateSecurityGroup { vpc, role } => write!(f, "{} in {vpc}", role.group_name()),
            Self::RevokeSecurityGroupIngress { group, rules } | Self::RevokeSecurityGroupEgress { group, rules } => {
                write!(f, "{group}: {}", counted(rules.len(), "rule", "rules"))
            }
            Self::AuthorizeSecurityGroupIngress { group, rules } => write!(f, "{group}: {} in", traffic(rules)),
            Self::AuthorizeSecurityGroupEgress { group, rules } => write!(f, "{group}: {} out", traffic(rules)),
            Self::ModifyNetworkInterfaceAttribute { interface, groups, change } => {
                let why = match change {
                    Change::Isolate => "isolate",
                    Change::Convert => "convert tracked flows, about 3 s",
                    Change::Close => "isolate again",
                    Change::Restore => "restore",
                };
                write!(f, "{interface}: groups [{}] ({why})", groups.join(", "))
            }
            Self::SetIdleTimeouts { interface, timeouts, .. } => write!(f, "{interface}: idle flows: {timeouts}"),
            Self::AssociatePublicIpAddress { interface, on } => write!(f, "{interface}: AssociatePublicIpAddress {on}"),
            Self::AssociateAddress { allocation, interface, private, public } => {
                write!(f, "{public} ({allocation}) to {interface}, {private}")
            }
            Self::DisassociateAddress { association, public } => write!(f, "{public} ({association})"),
            Self::AssociateIamInstanceProfile { instance, profile }
            | Self::ReplaceIamInstanceProfileAssociation { instance, profile, .. } => {
                write!(f, "{instance}: {}", profile_name(profile))
            }
            Self::DisassociateIamInstanceProfile { instance, association } => write!(f, "{instance}: {association}"),
            Self::CreateRole => write!(f, "{DENY_PROFILE}: may do nothing"),
            Self::CreateInstanceProfile => write!(f, "{DENY_PROFILE}"),
            Self::AddRoleToInstanceProfile => write!(f, "{DENY_PROFILE}: {DENY_PROFILE}"),
            Self::RemoveRoleFromInstanceProfile { role } => write!(f, "{DENY_PROFILE}: {role}"),
            Self::EditSessionDenies { role, edit } => write!(f, "{role}: {SESSION_DENIES}: {edit}"),
            Self::ModifyInstanceMetadataOptions { instance, enabled, tokens } => {
                let how = if *enabled { "enabled" } else { "disabled" };
                let with = tokens.as_ref().map(|(t, hops)| format!(", HttpTokens {t}, HttpPutResponseHopLimit {hops}"));
                write!(f, "{instance}: HttpEndpoint {how}{}", with.unwrap_or_default())
            }
            Self::ModifyInstanceAttribute { instance, attribute, protect } => {
                write!(f, "{instance}: {}", attribute.set_to(*protect))
            }
            Self::LiftStopProtection { instance } => write!(f, "{instance}: DisableApiStop false, to stop it"),
            Self::StopInstances { instance } => write!(f, "{instance}: what is in memory is lost"),
            Self::StartInstances { instance } => write!(f, "{instance}"),
            Self::TerminateInstances { instance } => write!(f, "{instance}: for good"),
            Self::CreateTags { resource, tags } | Self::DeleteTags { resource, tags } => {
                write!(f, "{resource}: {}", keys(tags))
            }
            Self::CreateSnapshots { instance, .. } => write!(f, "{instance}: all volumes"),
            Self::DeregisterTargets { group, targets } | Self::RegisterTargets { group, targets } => {
                let ports = |t: &Registration| t.port.map_or_else(|| t.id.clone(), |port| format!("{}:{port}", t.id));
                write!(f, "{} in {group}", targets.iter().map(ports).collect::<Vec<_>>().join(", "))
            }
            Self::DeregisterInstancesFromLoadBalancer { balancer, instance }
            | Self::RegisterInstancesWithLoadBalancer { balancer, instance } => write!(f, "{instance} in {balancer}"),
            Self::TerminateSession { instance, session, owner } => write!(f, "{session} of {owner} on {instance}"),
            Self::CancelCommand { instance, command, document } => write!(f, "{command} ({document}) on {instance} only"),
            Self::SetInstanceProtection { group, instance, protect } => {
                write!(f, "{instance} in {group}: scale-in protection {}", if *protect { "on" } else { "off" })
            }
            Self::DetachInstances { group, instance } => write!(f, "{instance} from {group}: it launches a replacement"),
            Self::EnterStandby { group, instance } => write!(f, "{instance} in {group}: it launches a replacement"),
            Self::ExitStandby { group, instance } => write!(f, "{instance} in {group}: its desired capacity grows by one"),
            Self::AttachInstances { group, instance } => {
                write!(f, "{instance} to {group}: its desired capacity grows by one")
            }
            Self::PutPolicy { principal, policy, .. } | Self::DeletePolicy { principal, policy } => {
                write!(f, "{principal}: {policy}")
            }
            Self::DeleteExpiredSessionsDeny { principal, policy } => write!(f, "{principal}: {policy} (expired)"),
            Self::AttachPolicy { principal, arn }
            | Self::DetachPolicy { principal, arn }
            | Self::PutPermissionsBoundary { principal, arn } => write!(f, "{principal}: {arn}"),
            Self::DeletePermissionsBoundary { principal } => write!(f, "{principal}"),
            Self::UpdateAssumeRolePolicy { role, document } => {
                write!(f, "{role}: {}", if document == SEALED_TRUST { "nobody may assume it" } else { "restore" })
            }
            Self::UpdateAccessKey { user, id, active }
            | Self::UpdateSshPublicKey { user, id, active }
            | Self::UpdateServiceSpecificCredential { user, id, active }
            | Self::UpdateSigningCertificate { user, id, active } => {
                write!(f, "{user}: {id} {}", if *active { "Active" } else { "Inactive" })
            }
            Self::DeleteLoginProfile { user } => write!(f, "{user}: the password is gone: the user needs a new one"),
            Self::TagPrincipal { principal, tags } | Self::UntagPrincipal { principal, tags } => {
                write!(f, "{principal}: {}", keys(tags))
            }
        }
    }
}

impl InstanceAttribute {
    /// The attribute with its value, as AWS has them.
    fn set_to(&self, protect: bool) -> String {
        match self {
            Self::DisableApiTermination => format!("DisableApiTermination {protect}"),
            Self::DisableApiStop => format!("DisableApiStop {protect}"),
            Self::InstanceInitiatedShutdownBehavior => {
                format!("InstanceInitiatedShutdownBehavior {}", shutdown_behavior(protect))
            }
            Self::DeleteOnTermination(devices) => format!("DeleteOnTermination {} of {}", !protect, devices.join(", ")),
        }
    }
}

/// AWS's word for what a shutdown from within does.
#[must_use]
pub fn shutdown_behavior(protect: bool) -> &'static str {
    if protect { "stop" } else { "terminate" }
}

fn traffic(rules: &[Rule]) -> String {
    if rules.iter().all(|rule| Rule::all().contains(rule)) {
        return "all traffic".to_owned();
    }
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The keys, and numbered ones once.
fn keys(tags: &BTreeMap<String, String>) -> String {
    let name = |key: &String| match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
        numbered if numbered.len() < key.len() && numbered.ends_with('-') => format!("{numbered}*"),
        _ => key.clone(),
    };
    let mut names: Vec<String> = tags.keys().map(name).collect();
    names.dedup();
    names.join(", ")
}
