//! `revokeInstanceRole`: an instance loses its role. Its instance profile gives way to one of Firebreak's own, whose role may do
//! nothing; and what was handed out before is denied on the role itself, for this instance alone.
//!
//! The two go out side by side, and neither waits for the other. Every profile that is ever seen on the instance is recorded, with
//! its role, before it is taken off: each role gets the deny, and the time at which the last was off is the cutoff of the deny
//! that stays after a release.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html>

mod profile;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{ActionState, Empty};
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::profile::prepare_profile;
use self::sessions::Standing;
use super::case::Case;
use super::drive::{Action, Stage};
use super::given::{no_such_key, reads};
use super::plan::{Plan, RECORDS};
use super::tag_resource::is_marked_before;
use crate::aws::{
    AwsError, Call, DenyProfile, Instance, InstanceProfile, Outcome, ProfileAssociation, ProfileRole, Session,
    SessionDenies, is_deny_profile, profile_name,
};

/// The action's name.
pub const NAME: &str = "revokeInstanceRole";

/// The action.
pub struct InstanceRole;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    pub(super) associations: Vec<ProfileAssociation>,
    /// Firebreak's own profile; not read for a release.
    pub(super) own: DenyProfile,
    /// By ARN: the profiles on the instance, and for a release the one that it had.
    pub(super) profiles: BTreeMap<String, InstanceProfile>,
    /// By name: every role that the instance has, or had during the containment.
    pub(super) roles: BTreeMap<String, Role>,
    /// AWS refused to replace the profile in this pass.
    pub(super) cannot_replace: bool,
}

/// A role, as far as its sessions go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub(super) id: String,
    /// The text of the policy that lists the denied sessions.
    pub(super) denies: Option<String>,
    /// Why it may not be touched.
    pub(super) forbidden: Option<String>,
}

/// What is recorded first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Original {
    /// The ARN of the profile that it had.
    pub(super) profile: Option<String>,
    /// The role in it.
    pub(super) role: Option<ProfileRole>,
}

/// What is recorded of each association with a profile that is not ours, by its id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) profile: String,
    pub(super) role: Option<ProfileRole>,
}

impl Action for InstanceRole {
    const NAME: &'static str = NAME;
    const STAGE: Stage = Stage::Access;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let own = async { if params.is_some() { aws.deny_profile().await } else { Ok(DenyProfile::default()) } };
        let shown = futures::join!(aws.instance(region, id), aws.profile_associations(region, id), own);
        let mut look = Look { instance: shown.0?, associations: shown.1?, own: shown.2?, ..Look::default() };
        let before = case.recorded::<Original>(Self::NAME).and_then(|o| o.profile).filter(|_| params.is_none());
        let arns: BTreeSet<String> = look.foreign().map(|a| a.profile.clone()).chain(before).collect();
        let profiles = arns.into_iter().map(async |arn| {
            Ok::<_, AwsError>(aws.instance_profile(profile_name(&arn)).await?.map(|profile| (arn, profile)))
        });
        look.profiles = try_join_all(profiles).await?.into_iter().flatten().collect();
        let names: BTreeSet<String> = sessions::roles(case, &look).into_iter().map(|(name, _)| name).collect();
        let roles = names.into_iter().map(async |name| Ok::<_, AwsError>(role(aws, &name).await?.map(|r| (name, r))));
        look.roles = try_join_all(roles).await?.into_iter().flatten().collect();
        Ok(look)
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        // Its credentials outlive an instance that AWS shows no more.
        let ended = case.has_ended().then(|| Instance { state: "terminated".into(), ..Instance::default() });
        let Some(instance) = look.instance.as_ref().or(ended.as_ref()) else {
            return super::isolate_network::not_seen(case);
        };
        let mut plan = Plan::default();
        record(&mut plan, case, look, instance);
        sessions::deny(&mut plan, case, look);
        if !instance.is_ended() {
            profile::take_off(&mut plan, case, look, instance);
        }
        judge(&mut plan, case, look, instance);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let back = profile::give_back(case, look);
        if back.verdict.state == ActionState::Conflict {
            return back; // then nothing is given back
        }
        let mut plan = Plan::default();
        let from = sessions::release(&mut plan, case, look);
        if !plan.is_done() {
            return plan;
        }
        match from {
            Some(from) if !back.is_done() && case.now < from => Plan::done(
                ActionState::InProgress,
                format!(
                    "the instance profile comes back at {from}: credentials of before would be denied with the old ones"
                ),
            ),
            _ => sessions::say_until(back, case),
        }
    }

    fn after(look: &mut Look, call: &Call, outcome: &Outcome) {
        let id = if let Outcome::Created(id) = outcome { id.clone() } else { String::new() };
        let new = |profile: &String| ProfileAssociation {
            id: id.clone(),
            profile: profile.clone(),
            state: "associated".into(),
            since: None,
        };
        match call {
            Call::AssociateIamInstanceProfile { profile, .. } => look.associations.push(new(profile)),
            Call::ReplaceIamInstanceProfileAssociation { association, profile, .. } => {
                look.associations.retain(|a| a.id != *association);
                look.associations.push(new(profile));
            }
            Call::DisassociateIamInstanceProfile { association, .. } => {
                look.associations.retain(|a| a.id != *association);
            }
            Call::EditSessionDenies { role, edit } => {
                let Some(role) = look.roles.get_mut(role) else { return };
                let next = role.read().after(edit).unwrap_or_default();
                role.denies = (!next.is_empty()).then(|| next.document());
            }
            _ => profile::after(&mut look.own, call),
        }
    }

    fn refused(look: &mut Look, call: &Call) {
        look.cannot_replace |= matches!(call, Call::ReplaceIamInstanceProfileAssociation { .. });
    }

    fn trust(look: &mut Look) {
        look.own.read = true;
    }
}

async fn role(aws: &Session, name: &str) -> Result<Option<Role>, AwsError> {
    Ok(aws.denied_role(name).await?.map(|role| Role {
        forbidden: aws.protected.forbids_role(&role.identity.arn).or_else(|| managed(&role.identity)),
        id: role.identity.id,
        denies: role.denies,
    }))
}

fn managed(role: &crate::aws::Identity) -> Option<String> {
    role.managed_by().map(|by| format!("it is managed by {by}, and AWS lets nobody change it"))
}

impl Look {
    fn live(&self) -> impl Iterator<Item = &ProfileAssociation> {
        self.associations.iter().filter(|a| a.is_live())
    }

    /// Profiles that are not ours.
    fn foreign(&self) -> impl Iterator<Item = &ProfileAssociation> {
        self.live().filter(|a| !is_deny_profile(&a.profile))
    }

    fn ours(&self) -> Option<&ProfileAssociation> {
        self.live().find(|a| is_deny_profile(&a.profile))
    }

    /// Whether AWS is still taking a profile off.
    fn is_leaving(&self) -> bool {
        self.associations.iter().any(|a| a.state == "disassociating")
    }

    fn role_in(&self, profile: &str) -> Option<ProfileRole> {
        self.profiles.get(profile).and_then(|p| p.role.clone())
    }

    fn has(&self, association: &str) -> bool {
        self.associations.iter().any(|a| a.id == association)
    }
}

impl Role {
    fn read(&self) -> SessionDenies {
        self.denies.as_deref().map(SessionDenies::read).unwrap_or_default()
    }
}

fn key(sub: &str) -> String {
    format!("{}/{sub}", InstanceRole::NAME)
}

/// When an association was first seen to be gone.
fn off_key(association: &str) -> String {
    key(&format!("off-{association}"))
}

/// Every association on record, with its id.
fn taken(case: &Case) -> impl Iterator<Item = (&str, Taken)> {
    let subs = case.records_of(InstanceRole::NAME).filter(|sub| sub.starts_with("iip-assoc-"));
    subs.filter_map(|sub| Some((sub, case.recorded(&key(sub))?)))
}

/// When it was seen to be gone.
fn off(case: &Case, association: &str) -> Option<Timestamp> {
    case.recorded(&off_key(association))
}

/// It is noted here that an association could not be recorded.
const LOST: &str = "lost";

/// Two more entries may be needed for an association.
fn has_room(case: &Case) -> bool {
    case.original.len() + 2 <= RECORDS
}

/// Notes what there is, and what is no longer there.
fn record(plan: &mut Plan, case: &Case, look: &Look, instance: &Instance) {
    let nothing = instance.is_ended() && look.associations.is_empty();
    if !case.original.contains_key(InstanceRole::NAME) {
        let ours = is_marked_before(case, &instance.tags) || look.ours().is_some();
        if case.is_unknown(InstanceRole::NAME) || (ours && !nothing) {
            plan.unknown(case, InstanceRole::NAME);
        } else if !nothing {
            let profile = look.foreign().next().map(|a| a.profile.clone());
            let role = profile.as_ref().and_then(|arn| look.role_in(arn));
            plan.record(InstanceRole::NAME, &Original { profile, role });
        }
    }
    for a in look.foreign().filter(|a| !case.original.contains_key(&key(&a.id))) {
        if has_room(case) {
            plan.record(key(&a.id), &Taken { profile: a.profile.clone(), role: look.role_in(&a.profile) });
        } else if !case.original.contains_key(&key(LOST)) {
            plan.record(key(LOST), &case.now);
        }
    }
    note_gone(plan, case, look);
}

fn note_gone(plan: &mut Plan, case: &Case, look: &Look) {
    for (id, _) in taken(case).filter(|(id, _)| !look.has(id) && off(case, id).is_none()) {
        plan.record(off_key(id), &case.now);
    }
}

/// How it stands, in one sentence.
fn judge(plan: &mut Plan, case: &Case, look: &Look, instance: &Instance) {
    let ended = instance.is_ended();
    let roles = sessions::roles(case, look);
    let standings: Vec<(&String, Standing)> =
        roles.iter().map(|(name, id)| (name, sessions::standing(case, look, name, id))).collect();
    let lost = case.original.contains_key(&key(LOST)) || plan.record.contains_key(&key(LOST));
    let nameless = sessions::nameless(case, look);
    let unseen = ended && roles.is_empty() && !case.original.contains_key(InstanceRole::NAME);
    let open = standings.iter().any(|(_, s)| matches!(s, Standing::Open(_)));
    let under_way = !profile::is_off(look, instance) || standings.iter().any(|(_, s)| *s == Standing::Pending);
    plan.verdict.state = match () {
        () if under_way => ActionState::InProgress,
        () if open || lost || unseen || nameless.is_some() => ActionState::Failed,
        () => ActionState::InForce,
    };
    let said = [
        Some(profile::said(case, look, instance)),
        sessions::said(&standings),
        nameless,
        lost.then(|| "more profiles were put on it than can be recorded: the sessions of their roles are not denied; contain the roles".into()),
        unseen.then(|| "which role it had is not known; credentials that it got live for hours: contain the role".into()),
        plan.verdict.unknown.then(|| {
            "it carried Firebreak's marks before this record began: the instance profile that it had is not known".into()
        }),
    ];
    plan.verdict.message = said.into_iter().flatten().collect::<Vec<_>>().join("; ");
}

#[cfg(test)]
#[path = "revoke_instance_role_tests.rs"]
mod tests;
