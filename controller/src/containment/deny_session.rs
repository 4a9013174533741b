//! `denySession`: one session of a role may do nothing, and the role's other sessions go on working. An inline policy on the role
//! denies everything to `aws:userid` = `<role id>:<session name>`, which no session can choose but by its name.
//!
//! Each session has a policy of its own: two Quarantines of one role never write the same one, and what one gives back is no
//! part of another's. A role's inline policies share 10,240 characters, which is room for some forty sessions.
//!
//! The deny is of the name, so whoever assumes the role under that name again is denied too. At release the sessions of before stay
//! denied, by that name and by the time of their issue, until the last of them has expired.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-userid>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::action::{Action, Stage};
use super::case::Case;
use super::deny_all::{managed, no_principal};
use super::document::{self, equal, put};
use super::given::no_such_key;
use super::plan::Plan;
use super::residual::{self, Residual};
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, Identity, Outcome, Session};

/// The beginning of the inline policy's name; then comes the session's, which may have the same letters.
pub(super) const POLICY: &str = "firebreak-deny-session-";
/// Where it is recorded of which role it was: one that was made again has another id.
const ROLE: &str = "denySession/role-";

/// The action.
pub struct SessionDeny;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) role: Option<Identity>,
    pub(super) policy: Option<String>,
    /// What stays after the release.
    pub(super) residual: residual::Shown,
}

/// What is recorded, before the policy is put on that role: that there was none of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Original {
    pub(super) role_id: String,
}

impl Action for SessionDeny {
    const NAME: &'static str = "denySession";
    const STAGE: Stage = Stage::Access;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.role.as_ref().map(|r| &r.tags)
    }

    /// There was no policy of that name: there is nothing of the owner's to know.
    fn check(_: &str, _: &str) -> Result<(), String> {
        no_such_key()
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let (principal, policy) = (case.principal(), policy(case));
        let residual = residual::recorded(case, Self::NAME).map(|r| r.policy);
        let reads = futures::join!(
            aws.identity(&principal),
            aws.inline_policy(&principal, &policy),
            residual::read(aws, case, residual.as_deref())
        );
        Ok(Look { role: reads.0?, policy: reads.1?, residual: reads.2? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(role) = &look.role else { return no_principal(case) };
        if let Some(refused) = managed(case, role) {
            return refused;
        }
        let mut plan = Plan::default();
        let key = format!("{ROLE}{}", role.id);
        if !case.original.contains_key(&key) {
            plan.record(key, &Original { role_id: role.id.clone() });
        }
        if let Some((key, at)) = residual::held_again(case, Self::NAME) {
            plan.record(key, &at);
        }
        let document = document(case, &role.id);
        if !look.policy.as_deref().is_some_and(|text| equal(text, &document)) {
            plan.calls.push(put(case, &policy(case), &document));
            plan.verdict.drift.push(format!("inline policy {} was gone or changed", policy(case)));
        }
        plan.settle(ActionState::InForce);
        plan.verdict.message = format!(
            "{} is denied, and who assumes the role under that name again; not who assumes it under another, be it the session itself where the role may assume itself: that needs iamRole as target",
            case.resource
        );
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(role) = &look.role else { return not_shown(case, Self::NAME) };
        if roles(case).is_empty() {
            return Plan::done(ActionState::Released, "");
        }
        let of_this = |residual: Residual| residual.of_session(&userid(case, &role.id), session(case));
        residual::before(case, Self::NAME, &look.residual, of_this, |plan| lift(plan, case, look))
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::PutPolicy { policy, document, .. } if policy.starts_with(POLICY) => look.policy = Some(document.clone()),
            Call::PutPolicy { document, .. } => look.residual = Some((document.clone(), false)),
            Call::DeletePolicy { .. } => look.policy = None,
            _ => {}
        }
    }
}

/// The name of the inline policy.
pub(super) fn policy(case: &Case) -> String {
    format!("{POLICY}{}", session(case))
}

fn session(case: &Case) -> &str {
    case.resource.role_and_session().map_or("", |(_, session)| session)
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#principaltable>
fn userid(case: &Case, role_id: &str) -> String {
    format!("{role_id}:{}", session(case))
}

pub(super) fn document(case: &Case, role_id: &str) -> String {
    let of_the_session = json!({ "StringEquals": { "aws:userid": userid(case, role_id) } });
    let deny = json!({ "Sid": "FirebreakDenySession", "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": of_the_session });
    json!({ "Version": "2012-10-17", "Statement": [deny] }).to_string()
}

/// The ids of the roles that it was put on.
fn roles(case: &Case) -> Vec<String> {
    let keys = case.original.keys().filter(|k| k.starts_with(ROLE));
    keys.filter_map(|k| case.recorded::<Original>(k)).map(|o| o.role_id).collect()
}

/// One that was put on a role of that name before is ours as well.
fn lift(plan: &mut Plan, case: &Case, look: &Look) {
    let ours = |text: &str| roles(case).iter().any(|id| equal(text, &document(case, id)));
    document::lift(plan, case, &policy(case), look.policy.as_ref(), ours);
}

#[cfg(test)]
#[path = "deny_session_tests.rs"]
mod tests;
