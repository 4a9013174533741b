//! The instance profile: taken off, kept off, and given back; and the one that takes its place.

use firebreak_crds::{ActionState, OnConflict};
use k8s_openapi::jiff::SignedDuration;

use super::record::{NotSeen, off, role_before, taken};
use super::{InstanceRole, Look, Original};
use crate::aws::{
    Call, DENY_PROFILE, DenyProfile, Instance, InstanceProfile, Principal, ProfileAssociation, ProfileRole, is_deny_profile,
    profile_name,
};
use crate::containment::action::Action;
use crate::containment::case::Case;
use crate::containment::deny_all::{DOCUMENT, POLICY};
use crate::containment::document::equal;
use crate::containment::plan::Plan;

/// EC2 may not know for so long of a profile that was just made: the instance has none meanwhile, and nobody took it off.
const NEW: SignedDuration = SignedDuration::from_mins(10);

/// The next calls that make Firebreak's own profile ready, and whether it is: used ahead of incidents too. Nothing but the role's deny
/// counts: no policy beside it, and no trust policy, allows what it denies.
#[must_use]
pub fn prepare_profile(own: &DenyProfile) -> (Vec<Call>, bool) {
    let denies = own.policy.as_deref().is_some_and(|text| equal(text, DOCUMENT));
    let mut calls = Vec::new();
    if !own.role {
        calls.push(Call::CreateRole);
    } else if !denies {
        let principal = Principal::Role(DENY_PROFILE.into());
        calls.push(Call::PutPolicy { principal, policy: POLICY.into(), document: DOCUMENT.into() });
    }
    match own.profile.as_ref().map(|p| &p.role) {
        None => calls.push(Call::CreateInstanceProfile),
        Some(Some(role)) if role.name != DENY_PROFILE => {
            calls.push(Call::RemoveRoleFromInstanceProfile { role: role.name.clone() });
        }
        Some(None) if own.role && denies => calls.push(Call::AddRoleToInstanceProfile),
        Some(_) => {}
    }
    let ready = calls.is_empty() && own.read;
    (calls, ready)
}

/// What a call does to our own profile.
pub(super) fn after(own: &mut DenyProfile, call: &Call) {
    match call {
        Call::CreateRole => own.role = true,
        Call::CreateInstanceProfile => own.profile = Some(InstanceProfile::default()),
        Call::PutPolicy { document, .. } => own.policy = Some(document.clone()),
        Call::AddRoleToInstanceProfile => own.profile.iter_mut().for_each(|p| p.role = Some(own_role())),
        Call::RemoveRoleFromInstanceProfile { .. } => own.profile.iter_mut().for_each(|p| p.role = None),
        _ => return,
    }
    own.read = false;
}

fn own_role() -> ProfileRole {
    ProfileRole { name: DENY_PROFILE.into(), id: String::new() }
}

fn own_arn(case: &Case, look: &Look) -> String {
    let shown = look.own.as_ref().and_then(|own| own.profile.as_ref()).map(|p| p.arn.clone()).filter(|arn| !arn.is_empty());
    let usual = || format!("arn:{}:iam::{}:instance-profile/{DENY_PROFILE}", case.partition, case.resource.account_id);
    shown.unwrap_or_else(usual)
}

/// As `prepare_profile`; where our profile was not read, it can neither be mended nor relied upon.
fn prepared(look: &Look) -> (Vec<Call>, bool) {
    look.own.as_ref().map(prepare_profile).unwrap_or_default()
}

/// Every profile but ours goes: replaced where that can be done, else taken off, which needs nothing prepared; then ours is put on.
/// Ours goes, too, while somebody's role is in it: taking the role out is another's call, and one of the two may be refused.
pub(super) fn take_off(plan: &mut Plan, case: &Case, look: &Look, instance: &Instance) {
    let giving: Vec<&ProfileAssociation> = look.giving().map(|(a, _)| a).collect();
    if giving.is_empty() && look.ours().is_none() && taken(case).next().is_none() {
        return; // it has none, and had none
    }
    let (prepare, ready) = prepared(look);
    if !prepare.is_empty() && look.ours().is_some() {
        plan.verdict.drift.push(format!("instance profile {DENY_PROFILE} was changed"));
    }
    plan.look_again |= look.own.is_some() && prepare.is_empty() && !ready;
    plan.calls.extend(prepare);
    let replaces = ready && instance.state == "running" && !look.cannot_replace && look.ours().is_none();
    for (n, a) in giving.iter().enumerate() {
        if !is_deny_profile(&a.profile) {
            plan.verdict.drift.push(format!("instance profile {} was put on it", profile_name(&a.profile)));
        }
        plan.calls.push(if replaces && n == 0 { replace(a, case, own_arn(case, look)) } else { take(a, case) });
    }
    if giving.is_empty() && look.ours().is_none() && !look.is_leaving() && ready {
        plan.calls.push(associate(case, own_arn(case, look)));
        let recent = taken(case).filter_map(|(id, _)| off(case, id)).max().is_none_or(|at| case.now < at + NEW);
        plan.verdict.drift.extend((!recent).then(|| format!("instance profile {DENY_PROFILE} was taken off")));
    }
}

/// Whether nothing of what the instance has gives it any access, and that is known.
pub(super) fn is_off(look: &Look, instance: &Instance) -> bool {
    let foreign = look.foreign().next().is_some();
    let changing = instance.state == "running" && look.associations.iter().any(|a| a.state != "associated");
    let ours_denies = look.ours().is_none() || prepared(look).1;
    instance.is_ended() || (!foreign && !changing && ours_denies)
}

pub(super) fn said(case: &Case, look: &Look, instance: &Instance) -> String {
    let names: Vec<&str> = look.foreign().map(|a| profile_name(&a.profile)).collect();
    match look.ours() {
        _ if instance.is_ended() => "the instance is terminated".into(),
        _ if !names.is_empty() => format!("it has instance profile {}", names.join(", ")),
        Some(_) if look.own.is_none() => {
            format!("its instance profile is {DENY_PROFILE}, of which AWS does not show what it may do")
        }
        Some(_) if !prepared(look).1 => format!("{DENY_PROFILE} was changed and is being mended"),
        Some(a) if a.state != "associated" => format!("AWS is still putting {DENY_PROFILE} on it"),
        Some(_) => format!("its instance profile is {DENY_PROFILE}, which may do nothing"),
        None if look.is_leaving() => "AWS is still taking its instance profile off".into(),
        None if taken(case).next().is_some() => {
            format!("its instance profile is taken off; {DENY_PROFILE} is put on as soon as AWS takes it")
        }
        None => "it has no instance profile; one that somebody puts on is taken off".into(),
    }
}

/// The next step back to the profile that it had. None at all is as much ours as our own profile: it is the step between.
pub(super) fn give_back(case: &Case, look: &Look) -> Plan {
    let done = |state, message: &str| Plan::done(state, message);
    let Some(instance) = look.instance.as_ref().filter(|i| !i.is_ended()) else {
        return Plan::gone(case, InstanceRole::NAME, look.instance.as_ref());
    };
    let Some(original) = case.recorded::<Original>(InstanceRole::NAME) else { return not_known(case, look) };
    if look.is_leaving() {
        return done(ActionState::InProgress, "AWS is still taking an instance profile off");
    }
    let back = Back { case, look, instance, role: role_before(case, &original) };
    match (look.live().next(), original.profile.as_deref()) {
        (None, None) => done(ActionState::Released, "it had no instance profile"),
        (Some(now), Some(before)) if now.profile == before => back.there_again(now, before),
        (Some(now), Some(before)) if is_deny_profile(&now.profile) => back.instead_of(now, before),
        (Some(now), None) if is_deny_profile(&now.profile) => calls(vec![take(now, case)]),
        (None, Some(before)) => back.onto_none(before),
        (Some(now), before) => back.decided(now, before),
    }
}

/// A step back.
struct Back<'a> {
    case: &'a Case,
    look: &'a Look,
    instance: &'a Instance,
    /// The role that was in the profile; an error where that is not known.
    role: Result<Option<ProfileRole>, NotSeen>,
}

fn calls(calls: Vec<Call>) -> Plan {
    Plan { calls, ..Plan::default() }
}

fn stays(now: Option<&ProfileAssociation>) -> Plan {
    let what = now
        .map_or("without an instance profile".to_owned(), |a| format!("with instance profile {}", profile_name(&a.profile)));
    Plan::done(ActionState::Released, format!("it stays {what}"))
}

impl Back<'_> {
    /// The profile that it had, in the place of what it has.
    fn instead_of(&self, now: &ProfileAssociation, before: &str) -> Plan {
        if let Some(why) = self.differs(before) {
            match self.case.decision {
                None => {
                    return Plan::done(
                        ActionState::Conflict,
                        format!(
                            "{why}: spec.release.onConflict decides (KeepTheirs leaves {} on it, RestoreOriginal puts back what is there of it)",
                            profile_name(&now.profile)
                        ),
                    );
                }
                Some(OnConflict::KeepTheirs) => return stays(Some(now)),
                Some(OnConflict::RestoreOriginal) if !self.is_there(before) => {
                    return calls(vec![take(now, self.case)]);
                }
                Some(OnConflict::RestoreOriginal) => {}
            }
        }
        if self.instance.state == "running" && !self.look.cannot_replace {
            return calls(vec![replace(now, self.case, before.to_owned())]);
        }
        calls(vec![take(now, self.case)])
    }

    /// The profile that it had is on it again: put there by us, or by somebody who may have put another role into it before. Taken out
    /// of it again by nobody here: Firebreak changes no profile but its own.
    fn there_again(&self, now: &ProfileAssociation, before: &str) -> Plan {
        match (self.differs(before), self.case.decision) {
            (None, _) => Plan::done(ActionState::Released, ""),
            (Some(_), Some(_)) => stays(Some(now)),
            (Some(why), None) => Plan::done(
                ActionState::Conflict,
                format!(
                    "{why}, and it is on the instance: put into it by hand what it had, or spec.release.onConflict: KeepTheirs (or RestoreOriginal) leaves it so"
                ),
            ),
        }
    }

    /// The profile that it had, where it has none.
    fn onto_none(&self, before: &str) -> Plan {
        match (self.differs(before), self.case.decision) {
            (Some(why), None) => Plan::done(
                ActionState::Conflict,
                format!(
                    "{why}: spec.release.onConflict decides (KeepTheirs leaves it without, RestoreOriginal puts back what is there of it)"
                ),
            ),
            (Some(_), Some(OnConflict::KeepTheirs)) => stays(None),
            (Some(why), _) if !self.is_there(before) => Plan::done(ActionState::Released, why),
            _ => calls(vec![associate(self.case, before.to_owned())]),
        }
    }

    /// Somebody changed what Firebreak had put there.
    fn decided(&self, now: &ProfileAssociation, before: Option<&str>) -> Plan {
        match (self.case.decision, before) {
            (None, _) => Plan::done(
                ActionState::Conflict,
                format!(
                    "its instance profile is {} now, before containment it was {}: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
                    profile_name(&now.profile),
                    before.map_or("none", profile_name)
                ),
            ),
            (Some(OnConflict::KeepTheirs), _) => stays(Some(now)),
            (Some(OnConflict::RestoreOriginal), Some(before)) => self.instead_of(now, before),
            (Some(OnConflict::RestoreOriginal), None) => calls(vec![take(now, self.case)]),
        }
    }

    fn is_there(&self, profile: &str) -> bool {
        self.look.profiles.contains_key(profile)
    }

    /// Why putting the profile back would not give the instance what it had: another role can be in it now.
    fn differs(&self, profile: &str) -> Option<String> {
        let name = profile_name(profile);
        let Some(now) = self.look.profiles.get(profile) else {
            return Some(format!("instance profile {name}, which it had, no longer exists"));
        };
        let Ok(role) = &self.role else { return Some(format!("which role was in instance profile {name} is not known")) };
        let id =
            |role: &Option<ProfileRole>| role.as_ref().map_or("no role".to_owned(), |r| format!("{} ({})", r.name, r.id));
        let what = || format!("instance profile {name} had {} in it, and has {} now", id(role), id(&now.role));
        (*role != now.role).then(what)
    }
}

/// Nothing was recorded: either nothing was done, or the record is lost.
fn not_known(case: &Case, look: &Look) -> Plan {
    let mut off = taken(case).map(|(_, t)| profile_name(&t.profile).to_owned()).collect::<Vec<_>>();
    off.dedup();
    let bare = look.live().next().is_none() && !off.is_empty();
    let left = case.is_unknown(InstanceRole::NAME) && (look.ours().is_some() || bare);
    if !left || case.decision == Some(OnConflict::KeepTheirs) {
        return Plan::done(ActionState::Released, "");
    }
    let seen = if off.is_empty() { String::new() } else { format!(" (taken off: {})", off.join(", ")) };
    Plan::done(
        ActionState::Conflict,
        format!(
            "which instance profile it had is not known{seen}: put it on by hand, then spec.release.onConflict: KeepTheirs"
        ),
    )
}

fn associate(case: &Case, profile: String) -> Call {
    Call::AssociateIamInstanceProfile { instance: case.resource.id.clone(), profile }
}

fn take(a: &ProfileAssociation, case: &Case) -> Call {
    Call::DisassociateIamInstanceProfile { instance: case.resource.id.clone(), association: a.id.clone() }
}

fn replace(a: &ProfileAssociation, case: &Case, profile: String) -> Call {
    let instance = case.resource.id.clone();
    Call::ReplaceIamInstanceProfileAssociation { instance, association: a.id.clone(), profile }
}
