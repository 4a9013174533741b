//! `deactivateAccessKeys`: every access key of an IAM user goes off, also those that the attacker makes or switches on later.
//!
//! Keys stay off after a release unless every holder's policy says otherwise in so many words, and then only those come back
//! that were active before and were not made during the containment. What somebody switched on since the last look goes off
//! before the release ends: with the deny gone, it would be a way in.

use firebreak_crds::{ActionState, Empty, OnConflict};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::drive::Action;
use super::plan::Plan;
use crate::aws::{AccessKey, AwsError, Call, Outcome, Session, User};

/// The action.
pub struct Keys;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) keys: Vec<AccessKey>,
    pub(super) user: Option<User>,
}

/// What is recorded per key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    active: bool,
}

impl Action for Keys {
    const NAME: &'static str = "deactivateAccessKeys";
    type Params = Empty;
    type Look = Look;

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let name = &case.resource.id;
        let (keys, user) = futures::join!(aws.access_keys(name), aws.user(name));
        Ok(Look { keys: keys.or_else(AwsError::none_where_not_found)?, user: user? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(user) = &look.user else { return super::deny_all::no_user(case) };
        let mut plan = Plan::default();
        let new = !case.has_record_of(Self::NAME);
        if case.is_unknown(Self::NAME) || (new && super::tag_resource::is_marked_before(case, &user.tags)) {
            plan.unknown(case, Self::NAME);
        }
        for key in &look.keys {
            if !plan.verdict.unknown {
                record(&mut plan, case, key);
            }
            if key.active {
                plan.calls.push(switch(case, key, false));
                plan.verdict.drift.push(format!("access key {} was active", key.id));
            }
        }
        plan.verdict.state = if plan.is_done() { ActionState::InForce } else { ActionState::InProgress };
        plan.verdict.message = message(look, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let mut plan = Plan::default();
        for key in &look.keys {
            let back = case.release.reactivate_access_keys && was_active(case, key);
            let theirs = key.active && case.decision == Some(OnConflict::KeepTheirs);
            if key.active != back && !theirs {
                record(&mut plan, case, key);
                plan.calls.push(switch(case, key, back));
            }
        }
        plan.verdict.state = if plan.is_done() { ActionState::Released } else { ActionState::InProgress };
        let off = look.keys.iter().filter(|k| !k.active).count();
        plan.verdict.message = format!("{off} of {} access keys stay off", look.keys.len());
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let Call::UpdateAccessKey { key, active, .. } = call {
            look.keys.iter_mut().filter(|k| k.id == *key).for_each(|k| k.active = *active);
        }
    }
}

/// Records a key once, when it is first seen. Not one that was made during the containment: it was never the owner's, and an
/// attacker who makes keys all day must not fill the record.
fn record(plan: &mut Plan, case: &Case, key: &AccessKey) {
    if !case.original.contains_key(&record_key(key)) && !made_during_containment(case, key) {
        plan.record(record_key(key), &Original { active: key.active });
    }
}

fn made_during_containment(case: &Case, key: &AccessKey) -> bool {
    key.created.is_some_and(|at| at > case.since)
}

fn was_active(case: &Case, key: &AccessKey) -> bool {
    case.recorded::<Original>(&record_key(key)).is_some_and(|o| o.active)
}

fn record_key(key: &AccessKey) -> String {
    format!("{}/{}", Keys::NAME, key.id)
}

fn switch(case: &Case, key: &AccessKey, active: bool) -> Call {
    Call::UpdateAccessKey { user: case.resource.id.clone(), key: key.id.clone(), active }
}

fn message(look: &Look, unknown: bool) -> String {
    let (off, all) = (look.keys.iter().filter(|k| !k.active).count(), look.keys.len());
    let lost = if unknown {
        "; the user carried Firebreak's marks before this record began: which keys were active is not known"
    } else {
        ""
    };
    match all {
        0 => format!("the user has no access keys{lost}"),
        _ => format!("{off} of {all} access keys off{lost}"),
    }
}

#[cfg(test)]
#[path = "deactivate_access_keys_tests.rs"]
mod tests;
