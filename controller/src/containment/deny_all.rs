//! `denyAll`: an IAM user may do nothing, by an inline policy and by the attached `AWSDenyAll`, side by side: either is enough,
//! and the attacker can have filled the quota of one.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use firebreak_crds::{ActionState, Empty, OnConflict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Case;
use super::drive::Action;
use super::plan::Plan;
use super::residual;
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Outcome, Session, User};

/// The inline policy's name.
pub(super) const POLICY: &str = "firebreak-deny-all";
pub(super) const DOCUMENT: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"FirebreakDenyAll","Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// The action.
pub struct DenyAll;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) user: Option<User>,
    pub(super) inline: Option<String>,
    pub(super) attached: Vec<String>,
    /// The residual deny's text, where one is recorded; and whether it was read from AWS.
    pub(super) residual: Option<(String, bool)>,
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    user_id: String,
    aws_deny_all_attached: bool,
}

impl Action for DenyAll {
    const NAME: &'static str = "denyAll";
    type Params = Empty;
    type Look = Look;

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let name = &case.resource.id;
        let residual = residual::recorded(case).map(|r| r.policy);
        let read_residual = async {
            match &residual {
                Some(policy) => aws.user_policy(name, policy).await,
                None => Ok(None),
            }
        };
        let reads = futures::join!(aws.user(name), aws.user_policy(name, POLICY), attached(aws, name), read_residual);
        Ok(Look { user: reads.0?, inline: reads.1?, attached: reads.2?, residual: reads.3?.map(|text| (text, true)) })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(user) = &look.user else { return no_user(case) };
        let (inline, attached) = (look.inline_in_force(), look.attached(case));
        let mut plan = Plan::default();
        let known = case.original.contains_key(Self::NAME);
        if !known && (case.is_unknown(Self::NAME) || look.inline.is_some() || is_marked_before(case, &user.tags)) {
            plan.unknown(case, Self::NAME);
        } else if !known {
            plan.record(Self::NAME, &Original { user_id: user.id.clone(), aws_deny_all_attached: attached });
        }
        if let Some((key, at)) = residual::held_again(case) {
            plan.record(key, &at);
        }
        if !inline {
            plan.calls.push(put(case, POLICY, DOCUMENT));
            plan.verdict.drift.push(format!("inline policy {POLICY} was gone or changed"));
        }
        if !attached {
            plan.calls.push(Call::AttachUserPolicy { user: case.resource.id.clone(), arn: aws_deny_all(case) });
            plan.verdict.drift.push("AWSDenyAll was detached".into());
        }
        plan.verdict.state = if inline || attached { ActionState::InForce } else { ActionState::InProgress };
        plan.verdict.message = message(inline, attached, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(user) = &look.user else { return Plan::done(ActionState::Released, "the user no longer exists") };
        let Some(original) = case.recorded::<Original>(Self::NAME) else { return release_unknown(case, look) };
        if original.user_id != user.id && case.decision.is_none() {
            return Plan::done(ActionState::Conflict, made_again(case, &original.user_id, &user.id));
        }
        let mut plan = Plan::default();
        let Some(residual) = residual::recorded(case) else {
            let residual = residual::decide(case);
            plan.record(residual.key(), &residual);
            return plan;
        };
        match &look.residual {
            Some((text, read)) if equal(text, &residual.document()) => plan.look_again = !read,
            _ => plan.calls.push(put(case, &residual.policy, &residual.document())),
        }
        if plan.is_done() {
            lift(&mut plan, case, look, &original);
        }
        if plan.is_done() && plan.verdict.state != ActionState::Conflict {
            plan.verdict.state = ActionState::Released;
            plan.verdict.message =
                format!("sessions issued before {} stay denied until {}", residual.cutoff, residual.until);
        }
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::PutUserPolicy { policy, document, .. } if policy == POLICY => look.inline = Some(document.clone()),
            Call::PutUserPolicy { document, .. } => look.residual = Some((document.clone(), false)),
            Call::DeleteUserPolicy { .. } => look.inline = None,
            Call::AttachUserPolicy { arn, .. } => look.attached.push(arn.clone()),
            Call::DetachUserPolicy { arn, .. } => look.attached.retain(|a| a != arn),
            _ => {}
        }
    }
}

impl Look {
    fn inline_in_force(&self) -> bool {
        self.inline.as_deref().is_some_and(|text| equal(text, DOCUMENT))
    }

    fn attached(&self, case: &Case) -> bool {
        self.attached.contains(&aws_deny_all(case))
    }
}

/// The attached policies; none where there is no user, which `GetUser` says.
async fn attached(aws: &Session, name: &str) -> Result<Vec<String>, AwsError> {
    aws.attached_policies(name).await.or_else(AwsError::none_where_not_found)
}

/// Takes the standing deny away, where AWS still shows what Firebreak put there. In a conflict nothing is taken away.
fn lift(plan: &mut Plan, case: &Case, look: &Look, original: &Original) {
    let theirs = look.inline.as_deref().is_some_and(|text| !equal(text, DOCUMENT));
    let detached = original.aws_deny_all_attached && !look.attached(case);
    if case.decision.is_none() && (theirs || detached) {
        plan.verdict = super::plan::Verdict::new(ActionState::Conflict, conflict(theirs, detached));
        return;
    }
    let (user, arn) = (case.resource.id.clone(), aws_deny_all(case));
    let restore = case.decision == Some(OnConflict::RestoreOriginal);
    if look.inline_in_force() || (theirs && restore) {
        plan.calls.push(Call::DeleteUserPolicy { user: user.clone(), policy: POLICY.into() });
    }
    if look.attached(case) && !original.aws_deny_all_attached {
        plan.calls.push(Call::DetachUserPolicy { user, arn });
    } else if detached && restore {
        plan.calls.push(Call::AttachUserPolicy { user, arn });
    }
}

fn conflict(theirs: bool, detached: bool) -> String {
    let inline =
        format!("inline policy {POLICY} was changed by somebody (KeepTheirs leaves it, RestoreOriginal deletes it)");
    let attached = "AWSDenyAll was attached before the containment and is detached now (RestoreOriginal attaches it again)";
    let what = [theirs.then_some(inline), detached.then(|| attached.to_owned())];
    format!("{}: spec.release.onConflict decides", what.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// Nothing was recorded: either nothing was done, or the record is lost.
fn release_unknown(case: &Case, look: &Look) -> Plan {
    let left = look.inline.is_some() || (case.is_unknown(DenyAll::NAME) && look.attached(case));
    if !left || case.decision == Some(OnConflict::KeepTheirs) {
        return Plan::done(ActionState::Released, "");
    }
    Plan::done(
        ActionState::Conflict,
        format!(
            "the user was denied before this record began: the original is not known. Remove {POLICY} and AWSDenyAll by hand as they should be, then set spec.release.onConflict: KeepTheirs"
        ),
    )
}

/// The target cannot be found.
pub(super) fn no_user(case: &Case) -> Plan {
    let what = format!(
        "AWS shows no user {} in account {}: check the name and the account",
        case.resource.id, case.resource.account_id
    );
    Plan::done(ActionState::Failed, what)
}

fn made_again(case: &Case, was: &str, is: &str) -> String {
    format!("user {} was deleted and made again ({was} is now {is}): spec.release.onConflict decides", case.resource.id)
}

fn message(inline: bool, attached: bool, unknown: bool) -> String {
    let how = match (inline, attached) {
        (true, true) => "denied by inline policy and AWSDenyAll",
        (true, false) => "denied by inline policy; AWSDenyAll is not attached",
        (false, true) => "denied by AWSDenyAll; the inline policy is missing",
        (false, false) => "not denied yet",
    };
    let lost =
        if unknown { "; it carried Firebreak's marks before this record began: the original is not known" } else { "" };
    format!("{how}{lost}")
}

fn put(case: &Case, policy: &str, document: &str) -> Call {
    Call::PutUserPolicy { user: case.resource.id.clone(), policy: policy.into(), document: document.into() }
}

fn aws_deny_all(case: &Case) -> String {
    format!("arn:{}:iam::aws:policy/AWSDenyAll", case.partition)
}

/// Policy texts are compared as parsed JSON: AWS may change white space.
fn equal(a: &str, b: &str) -> bool {
    let parsed = |t: &str| serde_json::from_str::<Value>(t).ok();
    parsed(a).is_some() && parsed(a) == parsed(b)
}

#[cfg(test)]
#[path = "deny_all_tests.rs"]
mod tests;
