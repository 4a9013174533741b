//! What the actions share that switch credentials of an IAM user off: every credential of a kind goes off, also those that the
//! attacker makes or switches on later. A kind is a few lines in the file of its action, e.g. `deactivate_access_keys.rs`.
//!
//! Credentials stay off after a release unless every holder's policy says otherwise in so many words, and then only those come
//! back that were active before and were not made during the containment. What somebody switched on since the last look goes
//! off before the release ends: with the deny gone, it would be a way in.

use std::collections::BTreeMap;
use std::future::Future;

use firebreak_crds::{ActionState, Empty, OnConflict, ReleasePolicy};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::drive::Action;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use crate::aws::{AwsError, Call, Credential, Outcome, Session, User};

/// A kind of credentials of which a user can have several, each active or not.
pub trait Credentials: Send + Sync + 'static {
    /// The name of the action that switches them off.
    const ACTION: &'static str;
    /// What people call one; several, with an s.
    const NOUN: &'static str;

    /// All that the user has.
    fn list(aws: &Session, user: &str) -> impl Future<Output = Result<Vec<Credential>, AwsError>> + Send;
    /// The call that switches one.
    fn switch(user: String, id: String, active: bool) -> Call;
    /// Whether a release may switch on what was active.
    fn come_back(release: &ReleasePolicy) -> bool;
}

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) credentials: Vec<Credential>,
    pub(super) user: Option<User>,
}

/// What is recorded per credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    active: bool,
}

impl<C: Credentials> Action for C {
    const NAME: &'static str = C::ACTION;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.user.as_ref().map(|u| &u.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Empty>(text), // that none was active
            "unknown" => no_such_key(),
            _ => reads::<Original>(text),
        }
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let name = &case.resource.id;
        let (credentials, user) = futures::join!(C::list(aws, name), aws.user(name));
        Ok(Look { credentials: credentials.or_else(AwsError::none_where_not_found)?, user: user? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(user) = &look.user else { return super::deny_all::no_principal(case) };
        let mut plan = Plan::default();
        let new = !case.has_record_of(C::ACTION);
        if case.is_unknown(C::ACTION) || (new && super::tag_resource::is_marked_before(case, &user.tags)) {
            plan.unknown(case, C::ACTION);
        }
        for one in &look.credentials {
            if !plan.verdict.unknown {
                record::<C>(&mut plan, case, one);
            }
            if one.active {
                plan.calls.push(switch::<C>(case, one, false));
                plan.verdict.drift.push(format!("{} {} was active", C::NOUN, one.id));
            }
        }
        if new && plan.record.is_empty() {
            // Nothing was the owner's. With this on record a release looks here too, for what was made since.
            plan.record(C::ACTION, &Empty {});
        }
        plan.settle(ActionState::InForce);
        plan.verdict.message = message::<C>(look, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let mut plan = Plan::default();
        for one in &look.credentials {
            let back = comes_back::<C>(case, one);
            let theirs = one.active && case.decision == Some(OnConflict::KeepTheirs);
            if one.active == back || theirs {
                continue;
            }
            if !case.is_unknown(C::ACTION) {
                record::<C>(&mut plan, case, one);
            }
            plan.calls.push(switch::<C>(case, one, back));
        }
        plan.settle(ActionState::Released);
        plan.verdict.message = match count(look) {
            (_, 0) => format!("the user has no {}s", C::NOUN),
            (off, all) => format!("{off} of {all} {}s stay off", C::NOUN),
        };
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let Some((id, active)) = call.switches() {
            look.credentials.iter_mut().filter(|c| c.id == id).for_each(|c| c.active = active);
        }
    }
}

/// Records a credential once, when it is first seen. Not one that was made during the containment: it was never the owner's,
/// and an attacker who makes keys all day must not fill the record. And none once the record was adopted: what it does not name
/// was ours to switch off, or somebody's while nobody looked.
fn record<C: Credentials>(plan: &mut Plan, case: &Case, one: &Credential) {
    let key = record_key::<C>(one);
    if !case.original.contains_key(&key) && !made_during_containment(case, one) && case.adopted.is_none() {
        plan.record(key, &Original { active: one.active });
    }
}

fn made_during_containment(case: &Case, one: &Credential) -> bool {
    one.created.is_some_and(|at| at > case.since)
}

fn comes_back<C: Credentials>(case: &Case, one: &Credential) -> bool {
    let was_active = case.recorded::<Original>(&record_key::<C>(one)).is_some_and(|o| o.active);
    C::come_back(&case.release) && was_active && !one.expired
}

fn record_key<C: Credentials>(one: &Credential) -> String {
    format!("{}/{}", C::ACTION, one.id)
}

fn switch<C: Credentials>(case: &Case, one: &Credential, active: bool) -> Call {
    C::switch(case.resource.id.clone(), one.id.clone(), active)
}

/// How many are off, of how many.
fn count(look: &Look) -> (usize, usize) {
    (look.credentials.iter().filter(|c| !c.active).count(), look.credentials.len())
}

fn message<C: Credentials>(look: &Look, unknown: bool) -> String {
    let lost = if unknown {
        format!("; the user carried Firebreak's marks before this record began: which {}s were active is not known", C::NOUN)
    } else {
        String::new()
    };
    match count(look) {
        (_, 0) => format!("the user has no {}s{lost}", C::NOUN),
        (off, all) => format!("{off} of {all} {}s off{lost}", C::NOUN),
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
