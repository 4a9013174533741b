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

#[test]
fn one_answer_neither_asks_a_person_nor_ends_a_release() {
    let released = |absent| Verdict { absent, ..Verdict::new(ActionState::Released, "") };
    for (releasing, verdict, twice) in [
        (true, released(false), false),
        (true, released(true), true),
        (true, Verdict::new(ActionState::Conflict, ""), true),
        (true, Verdict::new(ActionState::InProgress, ""), false),
        (false, Verdict { absent: true, ..Verdict::new(ActionState::InForce, "") }, false),
    ] {
        assert_eq!(is_seen_twice(releasing, &verdict, &[]), twice, "{verdict:?}");
    }
}
