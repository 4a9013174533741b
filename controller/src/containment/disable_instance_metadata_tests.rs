use super::*;
use crate::containment::example;

const KEY: &str = "disableInstanceMetadata";

fn case() -> Case {
    example::case(example::instance())
}

#[allow(clippy::unnecessary_wraps)] // as the action sees it
fn look(enabled: bool, http_tokens: &str) -> Look {
    let metadata = MetadataOptions { enabled, pending: false, http_tokens: http_tokens.into(), hop_limit: 2 };
    Some(Instance { id: "i-1".into(), state: "running".into(), metadata, ..Instance::default() })
}

fn contained(before: &Look) -> Case {
    example::recorded(case(), KEY, &Original::of(&before.as_ref().unwrap().metadata))
}

fn switched(enabled: bool, tokens: Option<(&str, i32)>) -> Call {
    let tokens = tokens.map(|(t, hops)| (t.to_owned(), hops));
    Call::ModifyInstanceMetadataOptions { instance: "i-1".into(), enabled, tokens }
}

#[test]
fn the_endpoint_goes_off_and_nothing_else_is_named() {
    let mut look = look(true, "required");
    let plan = Metadata::contain(&case(), &Empty {}, &look);
    assert_eq!(plan.calls, [switched(false, None)]);
    assert_eq!(
        plan.record[KEY],
        serde_json::json!({ "enabled": true, "httpTokens": "required", "httpPutResponseHopLimit": 2 })
    );
    Metadata::after(&mut look, &plan.calls[0], &Outcome::Done);
    let plan = Metadata::contain(&contained(&self::look(true, "required")), &Empty {}, &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
    assert!(plan.verdict.message.contains("stay valid until they expire or revokeInstanceRole"), "{}", plan.verdict.message);
}

#[test]
fn it_is_in_force_only_when_aws_has_applied_it() {
    let mut look = look(false, "required");
    look.as_mut().unwrap().metadata.pending = true;
    let case = contained(&look);
    assert_eq!(Metadata::contain(&case, &Empty {}, &look).verdict.state, ActionState::InProgress);
    look.as_mut().unwrap().state = "stopped".into();
    let stopped = Metadata::contain(&case, &Empty {}, &look).verdict.state;
    assert_eq!(stopped, ActionState::InForce, "a stopped instance applies it when it starts");
}

#[test]
fn what_was_on_comes_back_and_what_was_off_stays_off() {
    for (before, now, calls) in [(true, false, vec![switched(true, None)]), (true, true, vec![]), (false, false, vec![])] {
        let plan = Metadata::release(&contained(&look(before, "required")), &look(now, "required"));
        assert_eq!(plan.calls, calls, "{before} {now}");
        assert!(plan.verdict.state == ActionState::Released || !calls.is_empty());
    }
}

#[test]
fn a_service_that_was_weakened_meanwhile_comes_back_only_as_a_person_says() {
    let (case, now) = (contained(&look(true, "required")), look(false, "optional"));
    let asked = |decision| Metadata::release(&Case { decision, ..case.clone() }, &now);
    let plan = asked(None);
    assert!(plan.verdict.state == ActionState::Conflict && plan.calls.is_empty());
    assert!(plan.verdict.message.contains("HttpTokens optional") && plan.verdict.message.contains("HttpTokens required"));
    assert_eq!(asked(Some(OnConflict::KeepTheirs)).calls, [switched(true, None)]);
    assert_eq!(asked(Some(OnConflict::RestoreOriginal)).calls, [switched(true, Some(("required", 2)))]);
}

#[test]
fn a_service_that_somebody_switched_on_with_weaker_tokens_is_not_called_given_back() {
    let (case, now) = (contained(&look(true, "required")), look(true, "optional"));
    let asked = |decision| Metadata::release(&Case { decision, ..case.clone() }, &now);
    assert_eq!(asked(None).verdict.state, ActionState::Conflict);
    assert_eq!(asked(Some(OnConflict::KeepTheirs)).verdict.state, ActionState::Released);
    assert_eq!(asked(Some(OnConflict::RestoreOriginal)).calls, [switched(true, Some(("required", 2)))]);
}

#[test]
fn a_service_that_was_off_and_is_on_is_a_conflict() {
    let (case, now) = (contained(&look(false, "required")), look(true, "required"));
    let asked = |decision| Metadata::release(&Case { decision, ..case.clone() }, &now);
    assert_eq!(asked(None).verdict.state, ActionState::Conflict);
    assert_eq!(asked(Some(OnConflict::KeepTheirs)).verdict.state, ActionState::Released);
    assert_eq!(asked(Some(OnConflict::RestoreOriginal)).calls, [switched(false, None)]);
}

#[test]
fn what_carried_our_marks_before_goes_off_and_is_not_recorded() {
    let mut look = look(true, "required");
    look.as_mut().unwrap().tags.insert("firebreak.dev/incident".into(), "security/old".into());
    let plan = Metadata::contain(&case(), &Empty {}, &look);
    assert!(plan.verdict.unknown && plan.calls == [switched(false, None)]);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["disableInstanceMetadata/unknown"]);
    let unknown = example::recorded(case(), "disableInstanceMetadata/unknown", &"now");
    assert_eq!(Metadata::release(&unknown, &look).verdict.state, ActionState::Conflict);
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..unknown };
    assert_eq!(Metadata::release(&kept, &look).verdict.state, ActionState::Released);
}

#[test]
fn an_instance_that_is_gone_has_no_service_to_give_back() {
    let case = contained(&look(true, "required"));
    assert_eq!(Metadata::contain(&case, &Empty {}, &None).verdict.state, ActionState::Failed);
    assert_eq!(Metadata::release(&case, &None).verdict.state, ActionState::Conflict, "never seen to end");
    let seen = example::recorded(case.clone(), "instance/ended", &case.now);
    assert_eq!(Metadata::release(&seen, &None).verdict.state, ActionState::Released);
    let mut ended = look(true, "required");
    ended.as_mut().unwrap().state = "terminated".into();
    let plan = Metadata::contain(&case, &Empty {}, &ended);
    assert!(plan.calls.is_empty() && plan.verdict.state == ActionState::InForce);
}

#[test]
fn it_comes_back_when_access_is_given_back() {
    let place = |stage| Stage::ALL.iter().position(|s| *s == stage);
    assert!(place(Metadata::STAGE) > place(Stage::Access));
}
