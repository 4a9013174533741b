//! The permissions boundary: the rung of `denyAll` that needs no quota. A principal has one at most, so the one that was there
//! is recorded, and put back.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html>

use firebreak_crds::OnConflict;
use serde::{Deserialize, Serialize};

use super::aws_deny_all;
use crate::aws::{AwsError, Call, Identity, Session};
use crate::containment::action::Action as _;
use crate::containment::case::Case;
use crate::containment::given::reads;
use crate::containment::plan::Plan;

/// A key of its own: what an earlier version recorded knows nothing of boundaries.
pub(in crate::containment) const KEY: &str = "denyAll/boundary";
/// Where the original is not known, what is found is noted here: for who puts it right by hand.
pub(in crate::containment) const FOUND: &str = "denyAll/boundary-found";

/// What was the boundary before; None where there was none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Original {
    pub(super) arn: Option<String>,
}

pub(super) fn in_force(case: &Case, identity: &Identity) -> bool {
    identity.boundary.as_ref() == Some(&aws_deny_all(case))
}

/// Whether a text is what is recorded.
///
/// # Errors
/// Why it is not.
pub(super) fn check(text: &str) -> Result<(), String> {
    reads::<Original>(text)
}

/// Whether the deny was there before this record began: then its boundary is not the owner's.
fn found_denied(case: &Case) -> bool {
    case.is_noted_unknown(super::DenyAll::NAME) || case.adopted.is_some()
}

/// Where the rest of the original is not known, the boundary that is there may be anybody's. It is noted all the same, since putting
/// another in its place would lose it; but not as what a release gives back.
pub(super) fn contain(plan: &mut Plan, case: &Case, identity: &Identity) {
    let there = in_force(case, identity);
    let unknown = plan.verdict.unknown || case.is_noted_unknown(super::DenyAll::NAME);
    let ours_for_all_we_know = there && (unknown || found_denied(case));
    let key = if unknown { FOUND } else { KEY };
    let noted = [KEY, key].iter().any(|key| case.original.contains_key(*key));
    if !noted && !ours_for_all_we_know {
        plan.record(key, &Original { arn: identity.boundary.clone() });
    }
    if !there {
        plan.calls.push(Call::PutPermissionsBoundary { principal: case.principal(), arn: aws_deny_all(case) });
        plan.verdict.drift.push("the permissions boundary AWSDenyAll was gone or another".into());
    }
}

/// Whether the policy that was the boundary exists no more: AWS does not take it then. Those of AWS's own stay.
pub(super) async fn is_gone(aws: &Session, case: &Case) -> Result<bool, AwsError> {
    let arn = case.recorded::<Original>(KEY).and_then(|o| o.arn).filter(|arn| !arn.contains(":iam::aws:policy/"));
    match arn {
        Some(arn) => Ok(!aws.policy_exists(&arn).await?),
        None => Ok(false),
    }
}

/// Gives back what was there, where AWS still shows what Firebreak put there, or a person said so.
pub(super) fn lift(plan: &mut Plan, case: &Case, identity: &Identity, gone: bool) {
    let Some(Original { arn }) = case.recorded(KEY) else { return };
    let arn = arn.filter(|_| !gone);
    let theirs = is_theirs(case, identity, arn.as_ref());
    if arn == identity.boundary || (theirs && case.decision != Some(OnConflict::RestoreOriginal)) {
        return;
    }
    let principal = case.principal();
    plan.calls.push(match arn {
        Some(arn) => Call::PutPermissionsBoundary { principal, arn },
        // Firebreak may take away no boundary but its own: theirs makes room for it first.
        None if theirs => Call::PutPermissionsBoundary { principal, arn: aws_deny_all(case) },
        None => Call::DeletePermissionsBoundary { principal },
    });
}

/// What a person must decide about the boundary.
pub(super) fn conflict(case: &Case, identity: &Identity, gone: bool) -> Option<String> {
    let Some(Original { arn: original }) = case.recorded::<Original>(KEY) else {
        let lost = "what the permissions boundary was before the containment is not known (KeepTheirs leaves what is there, spec.release.original gives denyAll/boundary)";
        return found_denied(case).then(|| format!("{lost}{}", found_text(case)));
    };
    if gone {
        let was = named(original.as_ref());
        return Some(format!(
            "the permissions boundary was {was}, a policy that exists no more: make it again, or KeepTheirs goes on without a boundary"
        ));
    }
    is_theirs(case, identity, original.as_ref()).then(|| {
        let (was, is) = (named(original.as_ref()), named(identity.boundary.as_ref()));
        format!("the permissions boundary was {was} before the containment and is {is} now (KeepTheirs leaves it, RestoreOriginal puts back what was)")
    })
}

/// For who puts it back by hand.
pub(super) fn found_text(case: &Case) -> String {
    let recorded = case.recorded::<Original>(FOUND).or_else(|| case.recorded(KEY));
    recorded.map(|o| format!(" (the boundary found was {})", named(o.arn.as_ref()))).unwrap_or_default()
}

fn is_theirs(case: &Case, identity: &Identity, original: Option<&String>) -> bool {
    !in_force(case, identity) && identity.boundary.as_ref() != original
}

fn named(arn: Option<&String>) -> &str {
    arn.map_or("none", String::as_str)
}
