//! `denyAll`: an IAM user or role may do nothing, by an inline policy, by the attached `AWSDenyAll`, and by `AWSDenyAll` as the
//! permissions boundary, side by side: any of them is enough. The attacker can have filled the quotas of the first two; the
//! boundary has none.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

mod boundary;

use std::collections::BTreeMap;
use std::time::Duration;

use firebreak_crds::{ActionState, Empty, OnConflict};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::document::{equal, put, shown};
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::residual;
use super::tag_resource::is_marked_before;
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, DENY_POLICY, Identity, Outcome, Session, within};

/// The inline policy's name.
pub(super) const POLICY: &str = DENY_POLICY;
pub(super) const DOCUMENT: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"FirebreakDenyAll","Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// Where it is recorded that `AWSDenyAll` was seen not to be attached, after what was attached could not be read at first.
const SEEN_LATER: &str = "denyAll/attached-later";
/// So long one deny waits for the reads of another.
const PATIENCE: Duration = Duration::from_secs(5);

/// The action.
pub struct DenyAll;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) identity: Option<Identity>,
    pub(super) inline: Option<String>,
    pub(super) attached: Vec<String>,
    /// What IAM did not show: the other denies go all the same.
    pub(super) unread: Unread,
    pub(super) residual: residual::Shown,
    /// The policy that was the boundary before is gone; read when releasing.
    pub(super) boundary_gone: bool,
}

/// Why the inline policy, or what is attached, could not be read. None of it when releasing: what is given back is known first.
#[derive(Clone, Debug, Default)]
pub struct Unread {
    pub(super) inline: Option<AwsError>,
    pub(super) attached: Option<AwsError>,
}

impl Unread {
    fn all(&self) -> impl Iterator<Item = &AwsError> {
        self.inline.iter().chain(&self.attached)
    }
}

/// What is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    user_id: String,
    aws_deny_all_attached: bool,
    /// What was attached could not be read: so nothing is attached, and nothing detached, until it was seen not to be there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    attached_unread: bool,
}

impl Action for DenyAll {
    const NAME: &'static str = "denyAll";
    const STAGE: Stage = Stage::Access;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.identity.as_ref().map(|i| &i.tags)
    }

    fn user(look: &Look) -> Option<&str> {
        look.identity.as_ref().map(|i| &*i.id)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            "boundary" => boundary::check(text),
            _ => no_such_key(), // `SEEN_LATER` too: nobody has seen it but a look
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        if params.is_none() {
            return Box::pin(look_back(aws, case)).await;
        }
        let principal = case.principal();
        let get = principal.either("iam:GetUserPolicy", "iam:GetRolePolicy");
        let list = principal.either("iam:ListAttachedUserPolicies", "iam:ListAttachedRolePolicies");
        let (identity, inline, attached) = futures::join!(
            aws.identity(&principal),
            within(PATIENCE, get, aws.inline_policy(&principal, POLICY)),
            within(PATIENCE, list, aws.attached_policies(&principal))
        );
        let unread = Unread { inline: inline.as_ref().err().cloned(), attached: attached.as_ref().err().cloned() };
        let (inline, attached) = (inline.unwrap_or_default(), attached.unwrap_or_default());
        Ok(Look { identity: identity?, inline, attached, unread, ..Look::default() })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(identity) = &look.identity else { return no_principal(case) };
        if let Some(refused) = managed(case, identity) {
            return refused;
        }
        let rungs = look.rungs(case);
        let known = case.original.contains_key(Self::NAME);
        if !known && look.unread.inline.is_some() && rungs.any() {
            // that policy tells whether the others are the owner's
            return Plan::done(ActionState::InForce, look.said(rungs, false));
        }
        let mut plan = Plan::default();
        if !known && (case.is_unknown(Self::NAME) || look.inline.is_some() || is_marked_before(case, &identity.tags)) {
            plan.unknown(case, Self::NAME);
        } else if !known {
            plan.record(Self::NAME, &look.original(identity, rungs));
        }
        if let Some((key, at)) = residual::held_again(case, DenyAll::NAME) {
            plan.record(key, &at);
        }
        boundary::contain(&mut plan, case, identity);
        let blind = look.unread.inline.is_some();
        if !rungs.inline && (!blind || plan.record.contains_key(Self::NAME)) {
            plan.calls.push(put(case, POLICY, DOCUMENT)); // blind it is put once
            plan.verdict.drift.extend((!blind).then(|| format!("inline policy {POLICY} was gone or changed")));
        }
        if !rungs.attached && look.unread.attached.is_none() {
            let first_seen = case.recorded::<Original>(Self::NAME).is_some_and(|o| o.attached_unread);
            if first_seen && !case.original.contains_key(SEEN_LATER) {
                plan.record(SEEN_LATER, &true);
            }
            plan.calls.push(Call::AttachPolicy { principal: case.principal(), arn: aws_deny_all(case) });
            plan.verdict.drift.push("AWSDenyAll was detached".into());
        }
        plan.verdict.state = if rungs.any() { ActionState::InForce } else { ActionState::InProgress };
        plan.verdict.unread = look.unread.all().next().filter(|_| !rungs.any()).cloned();
        plan.verdict.message = look.said(rungs, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(identity) = &look.identity else { return not_shown(case, Self::NAME) };
        let Some(original) = case.recorded::<Original>(Self::NAME) else { return release_unknown(case, look) };
        if original.user_id != identity.id && case.decision.is_none() {
            let why = made_again(case, &original.user_id, &identity.id);
            return Plan::done(ActionState::Conflict, format!("{why}: spec.release.onConflict decides"));
        }
        residual::before(case, DenyAll::NAME, &look.residual, std::convert::identity, |plan| {
            lift(plan, case, look, identity, &original);
        })
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::PutPolicy { policy, document, .. } if policy == POLICY => look.inline = Some(document.clone()),
            Call::PutPolicy { document, .. } => look.residual = Some((document.clone(), false)),
            Call::DeletePolicy { .. } => look.inline = None,
            Call::AttachPolicy { arn, .. } => look.attached.push(arn.clone()),
            Call::DetachPolicy { arn, .. } => look.attached.retain(|a| a != arn),
            Call::PutPermissionsBoundary { arn, .. } => look.set_boundary(Some(arn)),
            Call::DeletePermissionsBoundary { .. } => look.set_boundary(None),
            _ => {}
        }
    }
}

/// What a release looks at: all of it, or nothing is given back.
async fn look_back(aws: &Session, case: &Case) -> Result<Look, AwsError> {
    let (principal, residual) = (case.principal(), residual::recorded(case, DenyAll::NAME).map(|r| r.policy));
    let (identity, inline, attached, residual, boundary_gone) = futures::try_join!(
        aws.identity(&principal),
        aws.inline_policy(&principal, POLICY),
        aws.attached_policies(&principal),
        residual::read(aws, case, residual.as_deref()),
        boundary::is_gone(aws, case)
    )?;
    Ok(Look { identity, inline, attached, residual, boundary_gone, ..Look::default() })
}

impl Look {
    fn inline_in_force(&self) -> bool {
        self.inline.as_deref().is_some_and(|text| equal(text, DOCUMENT))
    }

    fn attached(&self, case: &Case) -> bool {
        self.attached.contains(&aws_deny_all(case))
    }

    fn rungs(&self, case: &Case) -> Rungs {
        let boundary = self.identity.as_ref().is_some_and(|i| boundary::in_force(case, i));
        Rungs { inline: self.inline_in_force(), attached: self.attached(case), boundary }
    }

    /// How it stands, and what IAM did not show.
    fn said(&self, rungs: Rungs, unknown: bool) -> String {
        let said = [rungs.message(unknown)].into_iter().chain(self.unread.all().map(ToString::to_string));
        said.collect::<Vec<_>>().join("; ")
    }

    fn original(&self, identity: &Identity, rungs: Rungs) -> Original {
        let attached_unread = self.unread.attached.is_some();
        Original { user_id: identity.id.clone(), aws_deny_all_attached: rungs.attached, attached_unread }
    }

    fn set_boundary(&mut self, arn: Option<&String>) {
        self.identity.iter_mut().for_each(|i| i.boundary = arn.cloned());
    }
}

/// Which of the three denies are in force.
#[derive(Clone, Copy)]
struct Rungs {
    inline: bool,
    attached: bool,
    boundary: bool,
}

impl Rungs {
    fn any(self) -> bool {
        self.inline || self.attached || self.boundary
    }

    fn message(self, unknown: bool) -> String {
        let all = [(self.inline, "the inline policy"), (self.attached, "AWSDenyAll"), (self.boundary, "the boundary")];
        let named = |there: bool| {
            let names: Vec<&str> = all.iter().filter(|(is, _)| *is == there).map(|(_, name)| *name).collect();
            names.join(", ")
        };
        let how = match (self.any(), named(false)) {
            (false, _) => "not denied yet".to_owned(),
            (true, missing) if missing.is_empty() => format!("denied by {}", named(true)),
            (true, missing) => format!("denied by {}; not in force: {missing}", named(true)),
        };
        let lost = "; it carried Firebreak's marks before this record began: the original is not known";
        format!("{how}{}", if unknown { lost } else { "" })
    }
}

/// Takes the standing deny away, where AWS still shows what Firebreak put there. In a conflict nothing is taken away.
fn lift(plan: &mut Plan, case: &Case, look: &Look, identity: &Identity, original: &Original) {
    let changed = look.inline.as_deref().filter(|text| !equal(text, DOCUMENT));
    let theirs = changed.is_some();
    let detached = original.aws_deny_all_attached && !look.attached(case);
    let bounded = boundary::conflict(case, identity, look.boundary_gone);
    let impossible = look.boundary_gone && case.decision != Some(OnConflict::KeepTheirs);
    if impossible || (case.decision.is_none() && (theirs || detached || bounded.is_some())) {
        plan.verdict = super::plan::Verdict::new(ActionState::Conflict, conflict(changed, detached, bounded));
        return;
    }
    boundary::lift(plan, case, identity, look.boundary_gone);
    let (principal, arn) = (case.principal(), aws_deny_all(case));
    let restore = case.decision == Some(OnConflict::RestoreOriginal);
    if look.inline_in_force() || (theirs && restore) {
        plan.calls.push(Call::DeletePolicy { principal: principal.clone(), policy: POLICY.into() });
    }
    let ours = !original.attached_unread || case.original.contains_key(SEEN_LATER);
    if look.attached(case) && !original.aws_deny_all_attached && ours {
        plan.calls.push(Call::DetachPolicy { principal, arn });
    } else if detached && restore {
        plan.calls.push(Call::AttachPolicy { principal, arn });
    }
}

fn conflict(theirs: Option<&str>, detached: bool, bounded: Option<String>) -> String {
    let inline = theirs.map(|text| {
        format!(
            "there was no inline policy {POLICY} before the containment; Firebreak's was changed by somebody, and is {} now (KeepTheirs leaves that, RestoreOriginal deletes it)",
            shown(text)
        )
    });
    let attached = "AWSDenyAll was attached before the containment and is detached now (RestoreOriginal attaches it again)";
    let what = [inline, detached.then(|| attached.to_owned()), bounded];
    format!("{}: spec.release.onConflict decides", what.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// Nothing was recorded: either nothing was done, or the record is lost.
fn release_unknown(case: &Case, look: &Look) -> Plan {
    let rungs = look.rungs(case);
    // A record that cannot be read is none that says what was there.
    let denied = case.is_unknown(DenyAll::NAME) || case.original.contains_key(DenyAll::NAME);
    let left = look.inline.is_some() || (denied && (rungs.attached || rungs.boundary));
    match (left && case.decision != Some(OnConflict::KeepTheirs), denied) {
        (true, _) => {}
        // Whoever put the policies by hand brought no old session back to life.
        (false, true) => return residual::before(case, DenyAll::NAME, &look.residual, std::convert::identity, |_| {}),
        (false, false) => return Plan::done(ActionState::Released, ""),
    }
    Plan::done(
        ActionState::Conflict,
        format!(
            "it was denied before this record began: the original is not known. Put {POLICY}, AWSDenyAll and the permissions boundary by hand as they should be{}, then set spec.release.onConflict: KeepTheirs",
            boundary::found_text(case)
        ),
    )
}

/// The unique id of who was denied.
pub(super) fn recorded_id(case: &Case) -> Option<String> {
    case.recorded::<Original>(DenyAll::NAME).map(|o| o.user_id)
}

/// The target cannot be found.
pub(super) fn no_principal(case: &Case) -> Plan {
    let (principal, account) = (case.principal(), &case.resource.account_id);
    let kind = principal.either("user", "role");
    let what = format!("AWS shows no {kind} {principal} in account {account}: check the name and the account");
    Plan::done(ActionState::Failed, what)
}

/// What AWS lets nobody change.
pub(super) fn managed(case: &Case, identity: &Identity) -> Option<Plan> {
    let by = identity.managed_by()?;
    Some(Plan::done(ActionState::Failed, format!("{} is managed by {by}: AWS lets nobody change it", case.resource)))
}

pub(super) fn made_again(case: &Case, was: &str, is: &str) -> String {
    format!("{} was deleted and made again ({was} is now {is})", case.resource)
}

pub(super) fn aws_deny_all(case: &Case) -> String {
    format!("arn:{}:iam::aws:policy/AWSDenyAll", case.partition)
}

#[cfg(test)]
#[path = "deny_all_tests.rs"]
mod tests;
