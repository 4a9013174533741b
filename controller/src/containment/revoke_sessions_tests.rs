use firebreak_crds::OnConflict;

use super::*;
use crate::containment::example;

const SOFT: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

fn asks(uid: &str) -> firebreak_crds::Holder {
    let action =
        firebreak_crds::ContainAction { revoke_sessions: Some(Empty {}), ..firebreak_crds::ContainAction::default() };
    example::holder(uid, "inc", vec![action])
}

fn case() -> Case {
    Case { holders: vec![asks("1")], ..example::case(example::role()) }
}

/// As it is `seconds` later, with what the plan asked to be recorded.
fn later(mut case: Case, plan: &Plan, seconds: i64) -> Case {
    for (key, value) in &plan.record {
        case = example::recorded(case, key, value);
    }
    case.now += SignedDuration::from_secs(seconds);
    case
}

fn look(policy: Option<String>) -> Look {
    Look { identity: Some(Identity::default()), policy, residual: None }
}

fn contained() -> (Case, String) {
    let first = Sessions::contain(&case(), &Empty {}, &look(None));
    let case = later(case(), &first, 1);
    let document = cutoffs(&case)[0].deny.document();
    (case, document)
}

#[test]
fn the_cutoff_is_recorded_with_the_call_and_read_back() {
    let first = Sessions::contain(&case(), &Empty {}, &look(None));
    assert_eq!((first.record.len(), first.calls.len(), first.verdict.drift.len()), (1, 1, 0));
    let (case, document) = contained();
    assert!(document.contains("DateLessThan"));
    let done = Sessions::contain(&case, &Empty {}, &look(Some(document)));
    assert_eq!((done.is_done(), done.verdict.state), (true, ActionState::InForce));
    for tampered in [None, Some(SOFT.to_owned())] {
        let plan = Sessions::contain(&case, &Empty {}, &look(tampered));
        assert_eq!((plan.calls.len(), plan.record.len(), plan.verdict.drift.len()), (1, 0, 1));
    }
}

#[test]
fn the_cutoff_moves_forward_twice_and_then_it_is_quiet() {
    let (mut case, _) = contained();
    let mut last = cutoffs(&case)[0].deny.cutoff;
    for seconds in [30, 90] {
        case.now += SignedDuration::from_secs(seconds);
        let document = cutoffs(&case).pop().unwrap().deny.document();
        let plan = Sessions::contain(&case, &Empty {}, &look(Some(document)));
        assert_eq!((plan.record.len(), plan.calls.len(), plan.verdict.drift.len()), (1, 1, 0), "{seconds}");
        case = later(case, &plan, 0);
        let next = cutoffs(&case).pop().unwrap().deny.cutoff;
        assert!(next > last);
        last = next;
    }
    case.now += SignedDuration::from_hours(48);
    let document = cutoffs(&case).pop().unwrap().deny.document();
    assert!(Sessions::contain(&case, &Empty {}, &look(Some(document))).is_done());
}

#[test]
fn another_incident_moves_it_to_its_own_time() {
    let (case, document) = contained();
    let mut case = later(case, &Plan::default(), 3600);
    case.original.retain(|key, _| key.starts_with(KEY));
    case.holders.push(asks("2"));
    let plan = Sessions::contain(&case, &Empty {}, &look(Some(document)));
    assert_eq!((plan.record.len(), plan.calls.len()), (1, 1));
    let case = later(case, &plan, 1);
    assert_eq!(cutoffs(&case)[1].holders, ["1", "2"]);
    assert!(cutoffs(&case)[1].deny.cutoff > case.now);
}

#[test]
fn the_deny_stays_under_another_name_before_its_own_goes() {
    let (case, document) = contained();
    let recorded = Sessions::release(&case, &look(Some(document.clone())));
    assert!(
        recorded.calls.is_empty() && recorded.record.keys().all(|k| k.starts_with("revokeSessions/residual-")),
        "{recorded:?}"
    );
    let case = later(case, &recorded, 1);
    let mut seen = look(Some(document.clone()));
    let put = Sessions::release(&case, &seen);
    assert!(matches!(&put.calls[..], [Call::PutPolicy { policy, .. }] if policy.starts_with("firebreak-sessions-until-")));
    Sessions::after(&mut seen, &put.calls[0], &Outcome::Done);
    let expected = Sessions::release(&case, &seen);
    assert!(expected.calls.is_empty() && expected.look_again, "expected is not read");
    seen.residual = Some((document, true));
    let lifted = Sessions::release(&case, &seen);
    assert!(matches!(&lifted.calls[..], [Call::DeletePolicy { policy, .. }] if policy == POLICY));
    seen.policy = None;
    let done = Sessions::release(&case, &seen);
    assert!(done.verdict.state == ActionState::Released && done.verdict.message.contains("stay denied until"));
    assert_eq!(residual::all(&case).len(), 1, "the AwsAccount ends it");
}

#[test]
fn who_holds_it_again_after_a_release_began_means_the_sessions_of_now() {
    let (case, document) = contained();
    let began = Sessions::release(&case, &look(Some(document.clone())));
    let kept = Case { holders: vec![], ..later(case.clone(), &began, 10) };
    let case = later(case, &began, 3600);
    let kept = Sessions::contain(&kept, &Empty {}, &look(None));
    assert!(kept.record.is_empty() && kept.calls.len() == 1, "kept in force while its release waits: {kept:?}");
    let again = Sessions::contain(&case, &Empty {}, &look(Some(document)));
    let (key, cutoff) = again.record.first_key_value().expect("a cutoff of its own");
    let cutoff: Cutoff = serde_json::from_value(cutoff.clone()).unwrap();
    assert!(key.starts_with(KEY) && cutoff.deny.cutoff > case.now, "{cutoff:?}");
    assert_eq!(again.calls.len(), 1);
    let case = later(case, &again, 1);
    assert!(Sessions::contain(&case, &Empty {}, &look(Some(cutoff.deny.document()))).is_done(), "once");
}

#[test]
fn a_key_found_on_at_the_release_moves_the_cutoff_before_the_deny_goes() {
    let (case, document) = contained();
    let at = case.now + SignedDuration::from_mins(10);
    let mut case = example::recorded(case, "deactivateAccessKeys/switched-on-1", &at);
    case.now = at + SignedDuration::from_secs(1);
    let plan = Sessions::release(&case, &look(Some(document.clone())));
    let (key, next) = plan.record.first_key_value().expect("a later cutoff");
    let next: Cutoff = serde_json::from_value(next.clone()).unwrap();
    assert!(key.starts_with(KEY) && next.deny.cutoff > at && plan.calls.is_empty(), "{plan:?}");
    let case = later(case, &plan, 1);
    let then = Sessions::release(&case, &look(Some(document)));
    assert!(then.record.keys().all(|k| k.starts_with("revokeSessions/residual-")), "once: {then:?}");
}

#[test]
fn what_somebody_put_in_its_place_is_a_conflict_and_nothing_stays_when_all_have_expired() {
    let (mut case, document) = contained();
    case.now += SignedDuration::from_hours(13);
    assert_eq!(Sessions::release(&case, &look(Some(document))).calls.len(), 1, "no residual deny any more");
    let theirs = look(Some(SOFT.into()));
    for (decision, calls, state) in [
        (None, 0, ActionState::Conflict),
        (Some(OnConflict::KeepTheirs), 0, ActionState::Released),
        (Some(OnConflict::RestoreOriginal), 1, ActionState::InProgress),
    ] {
        let plan = Sessions::release(&Case { decision, ..case.clone() }, &theirs);
        assert_eq!((plan.calls.len(), plan.verdict.state), (calls, state), "{decision:?}");
    }
}

fn of_a_key() -> Case {
    Case { holders: vec![asks("1")], ..example::case(example::access_key("AKIA1")) }
}

fn of_its_user(policy: Option<String>) -> Look {
    Look { identity: Some(Identity { id: "AIDA1".into(), ..Identity::default() }), policy, residual: None }
}

#[test]
fn of_an_access_key_it_is_the_sessions_of_its_user_by_a_policy_of_its_own() {
    let plan = Sessions::contain(&of_a_key(), &Empty {}, &of_its_user(None));
    let case = later(of_a_key(), &plan, 1);
    let deny = &cutoffs(&case)[0].deny;
    assert_eq!(deny.until.duration_since(deny.cutoff).as_hours(), 36, "as long as a user's session lives");
    let principal = crate::aws::Principal::User("mallory".into());
    let put = Call::PutPolicy { principal, policy: "firebreak-revoke-sessions-AKIA1".into(), document: deny.document() };
    assert_eq!(plan.calls, [put]);
    let made_again = Look { identity: Some(Identity { id: "AIDA2".into(), ..Identity::default() }), ..look(None) };
    assert_eq!(Sessions::contain(&case, &Empty {}, &made_again).verdict.state, ActionState::Failed);
    assert_eq!(Sessions::release(&case, &made_again).verdict.state, ActionState::Conflict);
}

#[test]
fn the_cutoff_moves_whenever_the_key_was_found_switched_on() {
    let first = Sessions::contain(&of_a_key(), &Empty {}, &of_its_user(None));
    let case = later(of_a_key(), &first, 3600);
    let settled = |case: &Case| of_its_user(cutoffs(case).last().map(|c| c.deny.document()));
    let rounds = |mut case: Case| {
        for _ in 0..3 {
            let plan = Sessions::contain(&case, &Empty {}, &settled(&case));
            case = later(case, &plan, 120);
        }
        case
    };
    let case = rounds(case);
    assert!(Sessions::contain(&case, &Empty {}, &settled(&case)).is_done());
    let at = case.now;
    let noted = example::recorded(case, "deactivateAccessKeys/switched-on-1", &at);
    let plan = Sessions::contain(&noted, &Empty {}, &settled(&noted));
    assert_eq!((plan.record.len(), plan.calls.len()), (1, 1));
    let case = later(noted, &plan, 1);
    assert!(cutoffs(&case).pop().unwrap().deny.cutoff > at);
    assert!(Sessions::contain(&case, &Empty {}, &settled(&case)).is_done());
}

#[test]
fn a_key_that_was_switched_on_too_often_is_not_called_contained() {
    let first = Sessions::contain(&of_a_key(), &Empty {}, &of_its_user(None));
    let mut case = later(of_a_key(), &first, 1);
    for n in 0..SWITCHED_ON_MOST {
        let at = case.since - SignedDuration::from_hours(1);
        case = example::recorded(case, &format!("deactivateAccessKeys/switched-on-{n}"), &at);
    }
    let document = cutoffs(&case)[0].deny.document();
    let plan = Sessions::contain(&case, &Empty {}, &of_its_user(Some(document)));
    assert_eq!(plan.verdict.state, ActionState::Failed);
    assert!(plan.verdict.message.contains("Contain the user with denyAll"), "{}", plan.verdict.message);
}

#[test]
fn a_deny_tells_whether_it_is_from_before() {
    let now: Timestamp = example::SINCE.parse().unwrap();
    let deny = Residual::decided(now, SignedDuration::from_hours(36)).document();
    let second = SignedDuration::from_secs(1);
    let ages = [now, now + SignedDuration::from_secs(30), now + SignedDuration::from_secs(30) + second];
    assert_eq!(ages.map(|at| is_older(&deny, at)), [false, false, true]);
    assert!(!is_older(SOFT, now) && !is_older("not a policy", now));
}

#[test]
fn a_deny_from_before_is_noted_with_the_write_that_replaces_it() {
    let older = Residual::decided(case().since - SignedDuration::from_mins(5), SignedDuration::from_hours(36)).document();
    for (policy, noted) in [(None, false), (Some(older), true), (Some(SOFT.to_owned()), false)] {
        let plan = Sessions::contain(&case(), &Empty {}, &look(policy.clone()));
        assert_eq!(plan.record.contains_key(MET_OLDER), noted, "{policy:?}");
        assert_eq!(plan.calls.len(), 1);
    }
}
