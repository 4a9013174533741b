//! What carrying an action out would do: the same look and the same plans, with the action's model in the place of AWS.

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Conversion, Text};
use k8s_openapi::jiff::Timestamp;

use super::action::Action;
use super::case::Case;
use super::drive::STEPS;
use super::plan::Plan;
use crate::aws::{AwsError, Call, Outcome, Session};
use crate::clock;

/// What `Contain` would do.
#[derive(Clone, Debug, Default)]
pub struct DryRun {
    /// The calls, in order.
    pub calls: Vec<String>,
    /// What stands in the way.
    pub problem: Option<String>,
}

/// What `run` would do: the same look and the same plans, with the action's model in the place of AWS.
///
/// # Errors
/// When AWS cannot be read.
pub async fn dry_run<A: Action>(aws: &Session, case: &Case, params: &A::Params) -> Result<DryRun, AwsError> {
    let mut case = case.clone();
    let mut look = A::look(aws, &case, Some(params)).await?;
    let first = A::next(&case, Some(params), &look);
    if !first.record.is_empty() {
        note(&mut case, &first);
        look = A::look(aws, &case, Some(params)).await?; // what is read depends on what is recorded
    }
    let (mut calls, mut trusted) = (Vec::new(), false);
    for _ in 0..STEPS {
        let plan = A::next(&case, Some(params), &look);
        if plan.is_done() && plan.verdict.state != ActionState::InForce && !trusted {
            A::trust(&mut look); // it may wait for another action
            trusted = true;
            continue;
        }
        if plan.is_done() {
            let problem =
                (plan.verdict.state == ActionState::Failed || plan.verdict.unknown).then_some(plan.verdict.message);
            return Ok(DryRun { calls, problem });
        }
        note(&mut case, &plan);
        let windows = plan.windows.into_iter().flat_map(|window| [window.open, window.close]);
        for call in plan.calls.into_iter().chain(windows) {
            calls.push(call.to_string());
            A::after(&mut look, &call, &expected(&call));
        }
        A::trust(&mut look);
    }
    Ok(DryRun { calls, problem: Some("the plan does not end".into()) })
}

fn note(case: &mut Case, plan: &Plan) {
    let texts: BTreeMap<String, Text> = plan.record.iter().map(|(k, v)| (k.clone(), Text(v.to_string()))).collect();
    case.stored.extend(texts.keys().cloned());
    case.original.extend(texts.into_iter().map(|(k, v)| (k, v.0)));
    for (interface, state) in &plan.conversions {
        case.conversions.retain(|c| c.interface_id != *interface);
        let since = clock::time(Timestamp::UNIX_EPOCH);
        case.conversions.push(Conversion { interface_id: interface.clone(), state: *state, since });
    }
}

/// What AWS would answer.
fn expected(call: &Call) -> Outcome {
    match call {
        Call::CreateSecurityGroup { role, .. } => Outcome::Created(format!("(new {})", role.group_name())),
        _ => Outcome::Done,
    }
}

#[cfg(test)]
mod tests {
    use firebreak_crds::ConversionState;
    use serde_json::json;

    use super::*;
    use crate::aws::{GroupRole, Principal};
    use crate::containment::example;

    #[test]
    fn a_dry_run_goes_on_as_if_the_plan_had_been_recorded() {
        let mut case = example::case(example::instance());
        let mut plan = Plan::default();
        plan.record("isolateNetwork/eni-1", &json!({ "groups": ["sg-1"] }));
        plan.conversions.insert("eni-1".into(), ConversionState::Open);
        note(&mut case, &plan);
        assert_eq!(case.original["isolateNetwork/eni-1"], r#"{"groups":["sg-1"]}"#);
        assert_eq!(case.conversion("eni-1"), Some(ConversionState::Open));
        plan.conversions.insert("eni-1".into(), ConversionState::Closed);
        note(&mut case, &plan);
        assert_eq!(case.conversion("eni-1"), Some(ConversionState::Closed));
    }

    #[test]
    fn a_dry_run_says_what_it_expects_of_aws() {
        let create = Call::CreateSecurityGroup { vpc: "vpc-a".into(), role: GroupRole::Isolation };
        assert!(matches!(expected(&create), Outcome::Created(id) if id == "(new firebreak-isolation)"));
        let attach = Call::AttachPolicy { principal: Principal::User("mallory".into()), arn: String::new() };
        assert!(matches!(expected(&attach), Outcome::Done));
    }
}
