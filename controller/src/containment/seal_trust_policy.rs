//! `sealTrustPolicy`: nobody can assume the role. Its trust policy is replaced by one that allows nothing.
//!
//! A trust policy keeps the unique ids of the users and roles that it names: restored after one of them was deleted and made
//! again, the same text lets another in. So those of this account are recorded with it, and a difference is a conflict.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>

use std::collections::BTreeMap;
use std::time::Duration;

use firebreak_crds::{ActionState, Empty, OnConflict};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::deny_all::{made_again, managed, no_principal};
use super::document::{compact, equal, principals, shown};
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Identity, Outcome, Principal, SEALED_TRUST, Session, within};

/// So long the seal waits for who was trusted.
const PATIENCE: Duration = Duration::from_secs(5);

/// The action.
pub struct Seal;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) role: Option<Identity>,
    /// The users and roles of this account that the original names, with their unique ids; those that are there.
    pub(super) trusted: BTreeMap<String, String>,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Original {
    pub(super) role_id: String,
    pub(super) trust: String,
    pub(super) trusted: BTreeMap<String, String>,
}

impl Action for Seal {
    const NAME: &'static str = "sealTrustPolicy";
    const STAGE: Stage = Stage::Access;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.role.as_ref().map(|r| &r.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    /// Who is trusted is read to be recorded, and to be compared. Whom IAM does not show at first, a release does not take for the same: that is
    /// a conflict.
    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        let role = aws.identity(&case.principal()).await?;
        let recorded = case.recorded::<Original>(Self::NAME).map(|o| o.trust);
        let text = recorded.or_else(|| role.as_ref().and_then(|r| r.trust.clone())).unwrap_or_default();
        let named = principals(&text).into_iter().filter_map(|arn| Some((named(case, &arn)?, arn)));
        let needed = named.filter(|_| params.is_none() || !case.original.contains_key(Self::NAME));
        let reads = needed.map(async |(principal, arn)| {
            let read = aws.identity(&principal);
            let found = match params {
                Some(_) => within(PATIENCE, principal.either("iam:GetUser", "iam:GetRole"), read).await.ok().flatten(),
                None => read.await?,
            };
            Ok::<_, AwsError>(found.map(|identity| (arn, identity.id)))
        });
        let trusted: Vec<Option<_>> = try_join_all(reads).await?;
        Ok(Look { role, trusted: trusted.into_iter().flatten().collect() })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(role) = &look.role else { return no_principal(case) };
        if let Some(refused) = managed(case, role) {
            return refused;
        }
        let mut plan = Plan::default();
        let (trust, sealed) = (role.trust.clone().unwrap_or_default(), is_sealed(role));
        let known = case.original.contains_key(Self::NAME);
        if !known && (sealed || case.is_unknown(Self::NAME) || is_marked_before(case, &role.tags)) {
            plan.unknown(case, Self::NAME);
        } else if !known {
            let (role_id, trusted) = (role.id.clone(), look.trusted.clone());
            plan.record(Self::NAME, &Original { role_id, trust: compact(&trust), trusted });
        }
        if !sealed {
            plan.calls.push(update(case, SEALED_TRUST));
            plan.verdict.drift.push("the trust policy was changed".into());
        }
        plan.settle(ActionState::InForce);
        plan.verdict.message = message(sealed, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(role) = &look.role else {
            return Plan::absent(format!("{} no longer exists", case.resource));
        };
        let Some(original) = case.recorded::<Original>(Self::NAME) else { return release_unknown(case, role) };
        let same = role.id == original.role_id || case.decision == Some(OnConflict::RestoreOriginal);
        if same && role.trust.as_deref().is_some_and(|text| equal(text, &original.trust)) {
            return Plan::done(ActionState::Released, "the trust policy is as it was");
        }
        match (conflict(case, look, role, &original), case.decision) {
            (Some(why), None) => Plan::done(ActionState::Conflict, format!("{why}: spec.release.onConflict decides")),
            (Some(_), Some(OnConflict::KeepTheirs)) => {
                Plan::done(ActionState::Released, "the trust policy is left as it is now")
            }
            _ => Plan { calls: vec![update(case, &original.trust)], ..Plan::default() },
        }
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let Call::UpdateAssumeRolePolicy { document, .. } = call {
            look.role.iter_mut().for_each(|r| r.trust = Some(document.clone()));
        }
    }
}

/// The user or role of this account that an ARN names. A path is no part of what IAM's calls take.
fn named(case: &Case, arn: &str) -> Option<Principal> {
    let (kind, path) = arn.split_once(&format!(":iam::{}:", case.resource.account_id))?.1.split_once('/')?;
    let name = path.rsplit('/').next()?.to_owned();
    match kind {
        "user" => Some(Principal::User(name)),
        "role" => Some(Principal::Role(name)),
        _ => None,
    }
}

fn is_sealed(role: &Identity) -> bool {
    role.trust.as_deref().is_some_and(|text| equal(text, SEALED_TRUST))
}

/// Why the original cannot simply be put back.
fn conflict(case: &Case, look: &Look, role: &Identity, original: &Original) -> Option<String> {
    if role.id != original.role_id {
        return Some(made_again(case, &original.role_id, &role.id));
    }
    if !is_sealed(role) {
        let (was, is) = (shown(&original.trust), shown(role.trust.as_deref().unwrap_or_default()));
        return Some(format!(
            "the trust policy was changed by somebody: before the containment it was {was}, and it is {is} now (KeepTheirs leaves that, RestoreOriginal puts back what was)"
        ));
    }
    if let Some(id) = principals(&original.trust).into_iter().find(|p| is_unique_id(p)) {
        return Some(format!(
            "the recorded trust policy names {id}, who no longer exists: AWS does not take it. Write the trust policy by hand, then KeepTheirs. It was {}",
            shown(&original.trust)
        ));
    }
    let mut named = original.trusted.keys().chain(look.trusted.keys());
    let arn = named.find(|arn| look.trusted.get(*arn) != original.trusted.get(*arn))?;
    let [was, now] =
        [&original.trusted, &look.trusted].map(|ids| ids.get(arn).map_or("nobody that IAM showed", String::as_str));
    Some(format!(
        "the recorded trust policy names {arn}, which was {was} and is {now} now: the same text would mean somebody else. It was {}",
        shown(&original.trust)
    ))
}

/// How AWS shows a principal that was deleted.
fn is_unique_id(principal: &str) -> bool {
    let letters = principal.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    letters && ["AIDA", "AROA"].iter().any(|prefix| principal.starts_with(prefix))
}

/// Nothing was recorded: either nothing was done, or the record is lost. Then a trust policy that somebody wrote is none to give
/// the role back with, unless a person says so.
fn release_unknown(case: &Case, role: &Identity) -> Plan {
    let lost = is_sealed(role) || case.is_unknown(Seal::NAME);
    if !lost || case.decision == Some(OnConflict::KeepTheirs) {
        return Plan::done(ActionState::Released, "");
    }
    let what = "the trust policy was sealed before this record began: the original is not known. Write it by hand, then set spec.release.onConflict: KeepTheirs";
    Plan::done(ActionState::Conflict, what)
}

fn message(sealed: bool, unknown: bool) -> String {
    let how = if sealed {
        "nobody can assume the role; this ends no session that is there"
    } else {
        "the role can still be assumed"
    };
    let lost =
        "; it was sealed, or carried Firebreak's marks, before this record began: the original trust policy is not known";
    format!("{how}{}", if unknown { lost } else { "" })
}

fn update(case: &Case, document: &str) -> Call {
    Call::UpdateAssumeRolePolicy { role: case.resource.id.clone(), document: document.into() }
}

#[cfg(test)]
#[path = "seal_trust_policy_tests.rs"]
mod tests;
