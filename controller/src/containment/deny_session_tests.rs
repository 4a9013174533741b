use firebreak_crds::OnConflict;
use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::containment::example;

const SOFT: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

fn case() -> Case {
    example::case(example::role_session())
}

fn role(id: &str) -> Identity {
    Identity { id: id.into(), arn: "arn:aws:iam::111122223333:role/build".into(), ..Identity::default() }
}

fn look(policy: Option<String>) -> Look {
    Look { role: Some(role("AROA1")), policy, residual: None }
}

fn noted(mut case: Case, plan: &Plan) -> Case {
    for (key, value) in &plan.record {
        case = example::recorded(case, key, value);
    }
    case.now += SignedDuration::from_secs(1);
    case
}

/// A contained session: the case, and what AWS shows.
fn contained() -> (Case, Look) {
    let mut seen = look(None);
    let plan = SessionDeny::contain(&case(), &Empty {}, &seen);
    SessionDeny::after(&mut seen, &plan.calls[0], &Outcome::Done);
    (noted(case(), &plan), seen)
}

#[test]
fn it_is_denied_by_its_role_and_name_alone_and_recorded_before() {
    let plan = SessionDeny::contain(&case(), &Empty {}, &look(None));
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["denySession/role-AROA1"]);
    let [Call::PutPolicy { principal, policy, document }] = &plan.calls[..] else { panic!("{plan:?}") };
    assert_eq!((principal.name(), policy.as_str()), ("build", "firebreak-deny-session-ci-job"));
    assert!(document.contains(r#""StringEquals":{"aws:userid":"AROA1:ci-job"}"#), "{document}");
    assert!(!plan.calls[0].widens());
    let (case, seen) = contained();
    let done = SessionDeny::contain(&case, &Empty {}, &seen);
    assert_eq!((done.is_done(), done.verdict.state), (true, ActionState::InForce));
    assert!(done.verdict.message.contains("under another"), "what it does not stop: {}", done.verdict.message);
}

#[test]
fn what_somebody_changed_is_put_back_and_a_role_that_was_made_again_is_denied_anew() {
    let (case, _) = contained();
    for tampered in [None, Some(SOFT.to_owned())] {
        let plan = SessionDeny::contain(&case, &Empty {}, &look(tampered));
        assert_eq!((plan.calls.len(), plan.record.len(), plan.verdict.drift.len()), (1, 0, 1));
    }
    let again = Look { role: Some(role("AROA2")), ..look(None) };
    let plan = SessionDeny::contain(&case, &Empty {}, &again);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["denySession/role-AROA2"]);
    assert!(matches!(&plan.calls[..], [Call::PutPolicy { document, .. }] if document.contains("AROA2:ci-job")));
}

#[test]
fn a_role_that_is_not_there_or_not_to_be_changed_is_a_dead_end() {
    let managed =
        Identity { arn: "arn:aws:iam::1:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_A".into(), ..role("A") };
    for (role, says) in [(None, "AWS shows no role build"), (Some(managed), "Identity Center")] {
        let plan = SessionDeny::contain(&case(), &Empty {}, &Look { role, ..Look::default() });
        assert_eq!((plan.is_done(), plan.verdict.state), (true, ActionState::Failed));
        assert!(plan.verdict.message.contains(says), "{}", plan.verdict.message);
    }
}

#[test]
fn sessions_of_before_stay_denied_by_name_and_time_before_the_deny_goes() {
    let (case, mut seen) = contained();
    let decided = SessionDeny::release(&case, &seen);
    assert_eq!((decided.record.len(), decided.calls.len()), (1, 0));
    let case = noted(case, &decided);
    let put = SessionDeny::release(&case, &seen);
    let [Call::PutPolicy { policy, document, .. }] = &put.calls[..] else { panic!("{put:?}") };
    assert!(policy.starts_with("firebreak-sessions-until-") && policy.ends_with("-ci-job"), "{policy}");
    assert!(document.contains("DateLessThan") && document.contains("AROA1:ci-job"), "{document}");
    let residual = residual::all(&case).pop().expect("for the AwsAccount to end");
    assert_eq!(residual.until.duration_since(residual.cutoff).as_hours(), 12, "as long as a role's session lives");
    SessionDeny::after(&mut seen, &put.calls[0], &Outcome::Done);
    assert!(SessionDeny::release(&case, &seen).look_again, "expected is not read");
    seen.residual = seen.residual.map(|(text, _)| (text, true));
    let lifted = SessionDeny::release(&case, &seen);
    assert!(matches!(&lifted.calls[..], [Call::DeletePolicy { policy, .. }] if *policy == super::policy(&case)));
    SessionDeny::after(&mut seen, &lifted.calls[0], &Outcome::Done);
    let done = SessionDeny::release(&case, &seen);
    assert!(done.verdict.state == ActionState::Released && done.verdict.message.contains("stay denied until"));

    let kept = SessionDeny::contain(&case, &Empty {}, &seen);
    assert!(kept.record.is_empty() && kept.calls.len() == 1, "kept in force while its release waits: {kept:?}");
    let case = Case { holders: vec![example::holder("1", "inc-1", vec![])], ..case };
    let again = SessionDeny::contain(&case, &Empty {}, &seen);
    assert!(again.record.keys().any(|k| k.starts_with("denySession/again-")), "{again:?}");
    let case = noted(case, &again);
    let anew = SessionDeny::release(&case, &seen);
    assert!(anew.record.keys().all(|k| k.starts_with("denySession/residual-")) && anew.record.len() == 1, "{anew:?}");
}

#[test]
fn what_somebody_put_in_its_place_is_a_conflict() {
    let (case, mut seen) = contained();
    let case = noted(case.clone(), &SessionDeny::release(&case, &seen));
    let put = SessionDeny::release(&case, &seen);
    SessionDeny::after(&mut seen, &put.calls[0], &Outcome::Done);
    seen.residual = seen.residual.map(|(text, _)| (text, true));
    seen.policy = Some(SOFT.into());
    for (decision, calls, state) in [
        (None, 0, ActionState::Conflict),
        (Some(OnConflict::KeepTheirs), 0, ActionState::Released),
        (Some(OnConflict::RestoreOriginal), 1, ActionState::InProgress),
    ] {
        let plan = SessionDeny::release(&Case { decision, ..case.clone() }, &seen);
        assert_eq!((plan.calls.len(), plan.verdict.state), (calls, state), "{decision:?}");
    }
}
