//! What the actions share that switch credentials of an IAM user off: every credential of a kind goes off, also those that the
//! attacker makes or switches on later. A kind is a few lines in the file of its action, e.g. `deactivate_access_keys.rs`.
//!
//! Credentials stay off after a release unless every holder's policy says otherwise in so many words, and then only those come
//! back that were active before and were not made during the containment. What somebody switched on since the last look goes
//! off before the release ends, whatever `spec.release.onConflict` says: with the deny gone, it would be a way in, and that decision
//! is one about what is shown as a conflict.
//!
//! Where an access key is contained, and not its user, all this is so of that key alone. A credential that another Quarantine
//! keeps off stays off when this one is released, and what that one has on record is what was there before.

use std::collections::BTreeMap;
use std::future::Future;

use firebreak_crds::{ActionState, Empty, ReleasePolicy, ResourceKind};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::beside::{Beside, stays_off};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::revoke_sessions;
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, Class, Credential, Outcome, Session, User};

/// Where it is recorded that an access key was found switched on during its containment.
const SWITCHED_ON: &str = "deactivateAccessKeys/switched-on-";
/// The record has room for so many of these, with the cutoffs of `revokeSessions` that each brings.
pub(super) const SWITCHED_ON_MOST: usize = 24;

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
    /// An access key was contained before this containment began: it has no tags that say so.
    pub(super) contained_before: bool,
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

    fn user(look: &Look) -> Option<&str> {
        look.user.as_ref().map(|u| &*u.id)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Empty>(text), // that none was active
            "unknown" => no_such_key(),
            _ if sub.starts_with("switched-on-") || sub.starts_with("stays-off-") => no_such_key(),
            _ => reads::<Original>(text),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        let name = case.principal().name().to_owned();
        let (credentials, user) = futures::join!(C::list(aws, &name), aws.user(&name));
        let mut credentials = credentials.or_else(AwsError::none_where_not_found)?;
        if is_a_key(case) {
            credentials.retain(|one| one.id == case.resource.id);
            credentials.extend(unlisted(aws, case, &credentials).await?);
        }
        let first = params.is_some() && !case.has_record_of(C::ACTION);
        let contained_before = first && contained_before(aws, case, &credentials).await?;
        Ok(Look { credentials, user: user?, contained_before })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(user) = &look.user else { return super::deny_all::no_principal(case) };
        if let Some(why) = case.another_user(user) {
            return Plan::done(ActionState::Failed, why);
        }
        let mut plan = Plan::default();
        let new = !case.has_record_of(C::ACTION);
        let met = is_a_key(case) && case.original.contains_key(revoke_sessions::MET_OLDER);
        let before = look.contained_before || met || super::tag_resource::is_marked_before(case, &user.tags);
        if case.is_unknown(C::ACTION) || (new && before) {
            plan.unknown(case, C::ACTION);
        }
        for one in &look.credentials {
            if !plan.verdict.unknown {
                record::<C>(&mut plan, case, one);
            }
            if one.active {
                if !new && is_a_key(case) {
                    note_switched_on(&mut plan, case);
                }
                plan.calls.push(switch::<C>(case, one, false));
                plan.verdict.drift.push(format!("{} {} was active", C::NOUN, one.id));
            }
        }
        if new && plan.record.is_empty() {
            // Nothing was the owner's. With this on record a release looks here too, for what was made since.
            plan.record(C::ACTION, &Empty {});
        }
        plan.settle(ActionState::InForce);
        plan.verdict.message = message::<C>(case, look, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(user) = &look.user else { return not_shown(case, C::ACTION) };
        if let Some(why) = case.another_user(user) {
            return another_users(case, &why);
        }
        let mut plan = Plan::default();
        for one in &look.credentials {
            let back = comes_back::<C>(case, one);
            if one.active == back {
                continue;
            }
            if !case.is_unknown(C::ACTION) {
                record::<C>(&mut plan, case, one);
            }
            // A note of a moment ago is enough: the cutoff lies later than that.
            let noted = |at: Timestamp| at + SignedDuration::from_secs(20) > case.now;
            if is_a_key(case) && !back && !switched_on(case).any(noted) {
                note_switched_on(&mut plan, case);
            }
            plan.calls.push(switch::<C>(case, one, back));
        }
        plan.settle(ActionState::Released);
        plan.verdict.message = left::<C>(case, look);
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let Some((id, active)) = call.switches() {
            look.credentials.iter_mut().filter(|c| c.id == id).for_each(|c| c.active = active);
        }
    }
}

/// The access key, where AWS knows whose it is though it lists it not, or not yet: on, for all that is known. One that is deleted
/// is shown by neither.
async fn unlisted(aws: &Session, case: &Case, listed: &[Credential]) -> Result<Option<Credential>, AwsError> {
    if !listed.is_empty() {
        return Ok(None);
    }
    let id = case.resource.id.clone();
    match aws.user_of_key(&id).await {
        Ok(user) => Ok(user.map(|_| Credential { id, active: true, created: None, expired: false })),
        Err(error) if error.class == Class::Denied => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the access key is off and the deny of its sessions is older than this containment: the cluster that knew of it is lost.
async fn contained_before(aws: &Session, case: &Case, key: &[Credential]) -> Result<bool, AwsError> {
    if !is_a_key(case) || key.iter().any(|one| one.active) {
        return Ok(false);
    }
    let deny = aws.inline_policy(&case.principal(), &revoke_sessions::policy(case)).await?;
    Ok(deny.is_some_and(|text| revoke_sessions::is_older(&text, case.since)))
}

/// Records a credential once, when it is first seen. Not one that was made during the containment: it was never the owner's,
/// and an attacker who makes keys all day must not fill the record. And none once the record was adopted: what it does not name
/// was ours to switch off, or somebody's while nobody looked.
fn record<C: Credentials>(plan: &mut Plan, case: &Case, one: &Credential) {
    let key = record_key::<C>(one);
    if !case.original.contains_key(&key) && !made_during_containment(case, one) && case.adopted.is_none() {
        let before = case.beside.iter().find_map(|other| other.recorded(&key));
        plan.record(key, &before.unwrap_or(Original { active: one.active }));
    }
}

/// This one, or another of the same user that was there before.
fn made_during_containment(case: &Case, one: &Credential) -> bool {
    let others = case.beside.iter().filter(|other| other.is_about(&one.id)).filter_map(|other| other.held_since);
    let since = others.fold(case.since, Timestamp::min);
    one.created.is_some_and(|at| at > since)
}

/// Whether an access key is contained, and not its user.
pub(super) fn is_a_key(case: &Case) -> bool {
    case.resource.kind == ResourceKind::AccessKey
}

/// A key that was switched on during the containment may have opened sessions: `revokeSessions` denies those too.
fn note_switched_on(plan: &mut Plan, case: &Case) {
    let key = format!("{SWITCHED_ON}{}", case.now.as_second());
    if switched_on(case).count() < SWITCHED_ON_MOST && !case.original.contains_key(&key) {
        plan.record(key, &case.now);
    }
}

/// When the access key was found switched on during its containment.
pub(super) fn switched_on(case: &Case) -> impl Iterator<Item = Timestamp> {
    case.original.keys().filter(|k| k.starts_with(SWITCHED_ON)).filter_map(|k| case.recorded(k))
}

/// What is there now was never ours: it is left as it is.
pub(super) fn another_users(case: &Case, why: &str) -> Plan {
    match case.decision {
        None => Plan::done(ActionState::Conflict, format!("{why}: spec.release.onConflict decides; nothing is changed")),
        Some(_) => Plan::absent(why),
    }
}

fn comes_back<C: Credentials>(case: &Case, one: &Credential) -> bool {
    let was_active = case.recorded::<Original>(&record_key::<C>(one)).is_some_and(|o| o.active);
    let kept = case.original.contains_key(&stays_off(&one.id)) || kept_by::<C>(case, one).is_some();
    C::come_back(&case.release) && was_active && !one.expired && !kept
}

/// The name of another Quarantine that keeps it off.
fn kept_by<'a, C: Credentials>(case: &'a Case, one: &Credential) -> Option<&'a str> {
    let keeps = |other: &&Beside| other.keeps_off(C::ACTION, &one.id, C::come_back);
    case.beside.iter().find(keeps).map(|other| other.name.as_str())
}

fn record_key<C: Credentials>(one: &Credential) -> String {
    format!("{}/{}", C::ACTION, one.id)
}

fn switch<C: Credentials>(case: &Case, one: &Credential, active: bool) -> Call {
    C::switch(case.principal().name().to_owned(), one.id.clone(), active)
}

/// How many are off, of how many.
fn count(look: &Look) -> (usize, usize) {
    (look.credentials.iter().filter(|c| !c.active).count(), look.credentials.len())
}

/// What a release leaves behind.
fn left<C: Credentials>(case: &Case, look: &Look) -> String {
    let kept = look.credentials.iter().filter_map(|one| kept_by::<C>(case, one).map(|by| (&one.id, by)));
    let kept: Vec<String> = kept.map(|(id, by)| format!("; Quarantine {by} keeps {id} off")).collect();
    let what = match count(look) {
        (_, 0) if is_a_key(case) => format!("{} no longer exists", case.resource),
        (0, _) if is_a_key(case) => format!("{} is on", case.resource),
        _ if is_a_key(case) => format!("{} stays off", case.resource),
        (_, 0) => format!("the user has no {}s", C::NOUN),
        (off, all) => format!("{off} of {all} {}s stay off", C::NOUN),
    };
    what + &kept.concat()
}

fn message<C: Credentials>(case: &Case, look: &Look, unknown: bool) -> String {
    let lost = if unknown {
        format!("; it was contained before this record began: which {}s were active is not known", C::NOUN)
    } else {
        String::new()
    };
    let of = || format!("{} of user {}", case.resource, case.principal());
    match count(look) {
        (_, 0) if is_a_key(case) => format!("{} no longer exists{lost}", of()),
        (0, _) if is_a_key(case) => format!("{} is on{lost}", of()),
        _ if is_a_key(case) => format!("{} is off{lost}", of()),
        (_, 0) => format!("the user has no {}s{lost}", C::NOUN),
        (off, all) => format!("{off} of {all} {}s off{lost}", C::NOUN),
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
