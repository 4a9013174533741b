//! `revokeInstanceRole`: an instance loses its role. Its instance profile gives way to one of Firebreak's own, whose role may do
//! nothing; and what was handed out before is denied on the role itself, for this instance alone.
//!
//! The two go out side by side, and neither waits for the other. Every profile that is ever seen on the instance is recorded, with
//! its role, before it is taken off: each role gets the deny, and the time at which the last was off is the cutoff of the deny
//! that stays after a release.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html>

mod profile;
mod record;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{ActionState, Empty};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

pub use self::profile::prepare_profile;
#[cfg(test)]
pub(super) use self::record::Taken;
use self::record::{LOST, key, record};
use self::sessions::Standing;
use super::action::{Action, Stage};
use super::case::Case;
use super::document::principals;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use crate::aws::{
    AwsError, Call, Class, DENY_PROFILE, DenyProfile, Instance, InstanceProfile, Outcome, ProfileAssociation, ProfileRole,
    Session, SessionDenies, is_deny_profile, profile_name,
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
    /// Firebreak's own profile, where it was read: not for a release.
    pub(super) own: Option<DenyProfile>,
    /// By ARN: the profiles on the instance, and for a release the one that it had.
    pub(super) profiles: BTreeMap<String, InstanceProfile>,
    /// By name: every role that the instance has, or had during the containment.
    pub(super) roles: BTreeMap<String, Role>,
    /// AWS refused to replace the profile in this pass.
    pub(super) cannot_replace: bool,
    /// What IAM did not show, by the profile's ARN or the role's name: what EC2 shows is taken off all the same.
    pub(super) unread: BTreeMap<String, AwsError>,
}

/// A role, as far as its sessions go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub(super) id: String,
    /// The text of the policy that lists the denied sessions.
    pub(super) denies: Option<String>,
    /// Why it may not be touched.
    pub(super) forbidden: Option<String>,
    /// Whether its trust policy lets the role itself, or all of its account, assume it: under another name nobody is denied.
    pub(super) assumes_itself: bool,
}

/// What is recorded first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Original {
    /// The ARN of the profile that it had.
    pub(super) profile: Option<String>,
    /// The role in it.
    pub(super) role: Option<ProfileRole>,
    /// IAM did not show which role is in it.
    #[serde(default, skip_serializing_if = "record::is_false")]
    pub(super) unread: bool,
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
        let own = async { if params.is_some() { aws.deny_profile().await.map(Some) } else { Ok(None) } };
        let shown = futures::join!(aws.instance(region, id), aws.profile_associations(region, id), own);
        let mut look = Look { instance: shown.0?, associations: shown.1?, ..Look::default() };
        look.own = look.shown(DENY_PROFILE, shown.2);
        let before = case.recorded::<Original>(Self::NAME).and_then(|o| o.profile).filter(|_| params.is_none());
        let unseen = record::unseen(case).map(|(_, profile)| profile);
        let arns: BTreeSet<String> = look.foreign().map(|a| a.profile.clone()).chain(before).chain(unseen).collect();
        let reads = arns.into_iter().map(async |arn| (aws.instance_profile(profile_name(&arn)).await, arn));
        for (read, arn) in join_all(reads).await {
            let profile = look.shown(&arn, read);
            look.profiles.extend(profile.map(|p| (arn, p)));
        }
        let names: BTreeSet<String> = sessions::roles(case, &look).into_iter().map(|(name, _)| name).collect();
        for (read, name) in join_all(names.into_iter().map(async |name| (role(aws, &name).await, name))).await {
            let role = look.shown(&name, read);
            look.roles.extend(role.map(|r| (name, r)));
        }
        match look.unread.values().next() {
            Some(error) if params.is_none() => Err(error.clone()), // what is given back is known first
            _ => Ok(look),
        }
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
            Some(from) if !back.calls.is_empty() && case.now < from => Plan::done(
                ActionState::InProgress,
                format!(
                    "the instance profile comes back at {from}: credentials of before would be denied with the old ones"
                ),
            ),
            _ => {
                let mut end = sessions::say_until(back, case, plan.verdict.shown);
                end.verdict.absent |= sessions::is_absent(case, look);
                end
            }
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
            _ => look.own.iter_mut().for_each(|own| profile::after(own, call)),
        }
    }

    fn refused(look: &mut Look, call: &Call) {
        look.cannot_replace |= matches!(call, Call::ReplaceIamInstanceProfileAssociation { .. });
    }

    fn trust(look: &mut Look) {
        look.own.iter_mut().for_each(|own| own.read = true);
    }
}

async fn role(aws: &Session, name: &str) -> Result<Option<Role>, AwsError> {
    Ok(aws.denied_role(name).await?.map(|role| Role {
        assumes_itself: assumes_itself(&role.identity),
        forbidden: aws.protected.forbids_role(&role.identity.arn).or_else(|| managed(&role.identity)),
        id: role.identity.id,
        denies: role.denies,
    }))
}

/// Also where only some of its account may: what their own policies say is not looked at.
fn assumes_itself(role: &crate::aws::Identity) -> bool {
    let account = role.arn.split(':').nth(4).unwrap_or_default();
    let root = format!(":iam::{account}:root");
    let itself = |p: &String| *p == role.arn || p == account || p == "*" || p.ends_with(&root);
    principals(role.trust.as_deref().unwrap_or_default()).iter().any(itself)
}

fn managed(role: &crate::aws::Identity) -> Option<String> {
    role.managed_by().map(|by| format!("it is managed by {by}, and AWS lets nobody change it"))
}

impl Look {
    /// What was read; or it is noted why it was not.
    fn shown<T>(&mut self, name: &str, read: Result<Option<T>, AwsError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.unread.insert(name.to_owned(), error);
            None
        })
    }

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

    /// The profile of an association, where it was read.
    fn profile(&self, a: &ProfileAssociation) -> Option<&InstanceProfile> {
        let own = || self.own.as_ref().and_then(|own| own.profile.as_ref());
        if is_deny_profile(&a.profile) { own() } else { self.profiles.get(&a.profile) }
    }

    /// All that gives the instance a role: profiles that are not ours, and ours while somebody has put a role of theirs into it.
    fn giving(&self) -> impl Iterator<Item = (&ProfileAssociation, Option<&ProfileRole>)> {
        let role = |a| self.profile(a).and_then(|p| p.role.as_ref());
        let all = self.live().map(move |a| (a, role(a)));
        all.filter(|(a, role)| !is_deny_profile(&a.profile) || role.is_some_and(|r| r.name != DENY_PROFILE))
    }
}

impl Role {
    fn read(&self) -> SessionDenies {
        self.denies.as_deref().map(SessionDenies::read).unwrap_or_default()
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
    let unread = look.unread.values().next();
    let unseen = ended && roles.is_empty() && !case.original.contains_key(InstanceRole::NAME);
    let open = standings.iter().any(|(_, s)| matches!(s, Standing::Open(_)));
    let under_way = !profile::is_off(look, instance) || standings.iter().any(|(_, s)| *s == Standing::Pending);
    plan.verdict.state = match () {
        () if under_way || unread.is_some_and(|e| e.class == Class::Transient) => ActionState::InProgress,
        () if open || unread.is_some() || lost || unseen || nameless.is_some() => ActionState::Failed,
        () => ActionState::InForce,
    };
    let said = [
        Some(profile::said(case, look, instance)),
        sessions::said(&standings),
        sessions::escapes(look, &standings),
        nameless,
        unread.map(ToString::to_string),
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
