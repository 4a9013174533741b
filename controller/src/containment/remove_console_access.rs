//! `removeConsoleAccess`: the console password of an IAM user is deleted, and deleted again where somebody makes a new one.
//!
//! Nothing brings a password back: AWS shows it to nobody. So it is done only where a policy lists it, and the calls, the status
//! and the release say that the user needs a new one. Console sessions that are open live on: `denyAll` denies those.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteLoginProfile.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, OnConflict};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::tag_resource::is_marked_before;
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, LoginProfile, Outcome, Session, User};

/// The action.
pub struct ConsoleAccess;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) profile: Option<LoginProfile>,
    pub(super) user: Option<User>,
}

/// What is recorded: when the password was made; None where there was none. By that a release knows the user's own, where it could
/// not be deleted, from one that somebody made since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    login_profile_created: Option<Timestamp>,
}

impl Action for ConsoleAccess {
    const NAME: &'static str = "removeConsoleAccess";
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.user.as_ref().map(|u| &u.tags)
    }

    fn user(look: &Look) -> Option<&str> {
        look.user.as_ref().map(|u| &*u.id)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let name = case.principal().name().to_owned();
        let (profile, user) = futures::join!(aws.login_profile(&name), aws.user(&name));
        Ok(Look { profile: profile?, user: user? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(user) = &look.user else { return super::deny_all::no_principal(case) };
        let mut plan = Plan::default();
        let new = !case.has_record_of(Self::NAME);
        if case.is_unknown(Self::NAME) || (new && is_marked_before(case, &user.tags)) {
            plan.unknown(case, Self::NAME);
        } else if new {
            let login_profile_created = look.profile.map(|p| p.created).filter(|at| *at <= case.since);
            plan.record(Self::NAME, &Original { login_profile_created });
        }
        if look.profile.is_some() {
            plan.calls.push(delete(case));
            plan.verdict.drift.push("there was a console password".into());
        }
        plan.settle(ActionState::InForce);
        plan.verdict.message = match look.profile {
            Some(_) => "there is a console password".into(),
            None => format!("no console password; {}", what_became_of_it(case)),
        };
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        if look.user.is_none() {
            return not_shown(case, Self::NAME);
        }
        match look.profile {
            None => Plan::done(ActionState::Released, what_became_of_it(case)),
            Some(profile) if is_original(case, profile) && case.decision == Some(OnConflict::KeepTheirs) => {
                Plan::done(ActionState::Released, "the console password that is there stays, as was decided")
            }
            Some(profile) if is_original(case, profile) && case.decision.is_none() => Plan::done(
                ActionState::Conflict,
                "the console password could not be deleted, and AWS does not show whether somebody reset it meanwhile: reset or delete it by hand, then spec.release.onConflict: KeepTheirs",
            ),
            // Made since the last look: with the deny gone it would be a way in, and no conflict was shown of it.
            Some(_) => Plan { calls: vec![delete(case)], ..Plan::default() },
        }
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let Call::DeleteLoginProfile { .. } = call {
            look.profile = None;
        }
    }
}

fn is_original(case: &Case, profile: LoginProfile) -> bool {
    let original = case.recorded::<Original>(ConsoleAccess::NAME);
    original.is_some_and(|o| o.login_profile_created == Some(profile.created))
}

fn what_became_of_it(case: &Case) -> &'static str {
    match case.recorded::<Original>(ConsoleAccess::NAME) {
        Some(Original { login_profile_created: Some(_) }) => "the password is gone: the user needs a new one",
        Some(_) => "the user had none",
        None => {
            "the user carried Firebreak's marks before this record began: whether there was a password is not known; if so, \
             the user needs a new one"
        }
    }
}

fn delete(case: &Case) -> Call {
    Call::DeleteLoginProfile { user: case.principal().name().to_owned() }
}

#[cfg(test)]
#[path = "remove_console_access_tests.rs"]
mod tests;
