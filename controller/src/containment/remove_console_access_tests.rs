use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::containment::example;
use crate::containment::whereabouts::Whereabouts;

const NAME: &str = "removeConsoleAccess";

fn case() -> Case {
    example::case(example::user())
}

fn at(age: i64) -> Timestamp {
    case().since + SignedDuration::from_secs(age)
}

/// A password that was made that many seconds after the containment began.
fn look(age: Option<i64>) -> Look {
    Look { profile: age.map(|age| LoginProfile { created: at(age) }), user: Some(User::default()) }
}

fn recorded(age: Option<i64>) -> Case {
    example::recorded(case(), NAME, &Original { login_profile_created: age.map(at) })
}

fn deletes() -> Vec<Call> {
    vec![Call::DeleteLoginProfile { user: "mallory".into() }]
}

#[test]
fn a_password_is_recorded_and_deleted() {
    let plan = ConsoleAccess::contain(&case(), &Empty {}, &look(Some(-60)));
    assert_eq!((&plan.calls, plan.verdict.state), (&deletes(), ActionState::InProgress));
    assert_eq!(plan.record[NAME], serde_json::to_value(Original { login_profile_created: Some(at(-60)) }).unwrap());
    assert!(!plan.calls[0].widens() && plan.calls[0].idempotent());
    assert!(plan.calls[0].to_string().contains("the user needs a new one"), "the plan says so: {}", plan.calls[0]);
}

#[test]
fn whether_there_was_one_is_on_record_and_the_status_says_what_became_of_it() {
    for (before, was, says) in
        [(None, None, "had none"), (Some(5), None, "had none"), (Some(-5), Some(-5), "needs a new one")]
    {
        let plan = ConsoleAccess::contain(&case(), &Empty {}, &look(before));
        let record = Original { login_profile_created: was.map(at) };
        assert_eq!(plan.record[NAME], serde_json::to_value(&record).unwrap(), "{before:?}");
        let plan = ConsoleAccess::contain(&recorded(was), &Empty {}, &look(None));
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{before:?}");
        assert!(plan.verdict.message.contains(says), "{}", plan.verdict.message);
        let plan = ConsoleAccess::release(&recorded(was), &look(None));
        assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{before:?}");
        assert!(plan.verdict.message.contains(says), "{}", plan.verdict.message);
    }
}

#[test]
fn one_that_somebody_makes_is_drift_and_goes_again() {
    let plan = ConsoleAccess::contain(&recorded(Some(-60)), &Empty {}, &look(Some(30)));
    assert_eq!((plan.calls, plan.record.len(), plan.verdict.drift.len()), (deletes(), 0, 1));
}

#[test]
fn one_that_was_made_since_the_last_look_goes_before_the_release_ends() {
    for was in [None, Some(-60)] {
        for decision in [None, Some(OnConflict::KeepTheirs), Some(OnConflict::RestoreOriginal)] {
            let case = Case { decision, ..recorded(was) };
            assert_eq!(ConsoleAccess::release(&case, &look(Some(30))).calls, deletes(), "{was:?} {decision:?}");
        }
    }
}

#[test]
fn the_users_own_that_could_not_be_deleted_may_have_been_reset_so_a_person_decides() {
    let decided = |decision| {
        let case = Case { decision, ..recorded(Some(-60)) };
        ConsoleAccess::release(&case, &look(Some(-60)))
    };
    let plan = decided(None);
    assert!(plan.is_done() && plan.verdict.state == ActionState::Conflict);
    assert!(plan.verdict.message.contains("could not be deleted"), "{}", plan.verdict.message);
    assert_eq!(decided(Some(OnConflict::KeepTheirs)).verdict.state, ActionState::Released);
    assert_eq!(decided(Some(OnConflict::RestoreOriginal)).calls, deletes());
}

#[test]
fn a_mark_of_an_earlier_containment_makes_the_original_unknown() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let marked = |age| Look { user: Some(User { tags: tags.clone(), ..User::default() }), ..look(age) };
    let plan = ConsoleAccess::contain(&case(), &Empty {}, &marked(Some(-60)));
    assert!(plan.verdict.unknown);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["removeConsoleAccess/unknown"]);
    assert_eq!(plan.calls, deletes(), "contained all the same");
    let noted = example::recorded(case(), "removeConsoleAccess/unknown", &case().now);
    let plan = ConsoleAccess::release(&noted, &look(None));
    assert!(plan.is_done() && plan.verdict.message.contains("not known"), "{}", plan.verdict.message);
    assert_eq!(ConsoleAccess::release(&noted, &look(Some(-60))).calls, deletes());
}

#[test]
fn no_user_is_a_dead_end_and_needs_no_release() {
    assert_eq!(ConsoleAccess::contain(&case(), &Empty {}, &Look::default()).verdict.state, ActionState::Failed);
    let gone = recorded(None).at(Whereabouts::Gone);
    assert_eq!(ConsoleAccess::release(&gone, &Look::default()).verdict.state, ActionState::Released);
    assert_eq!(ConsoleAccess::release(&recorded(None), &Look::default()).verdict.state, ActionState::Conflict);
}
