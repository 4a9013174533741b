use std::collections::BTreeMap;

use firebreak_crds::ReleasePolicy;

use super::*;
use crate::containment::example;

fn case() -> Case {
    example::case(example::user())
}

/// A key made that many seconds after the containment began.
fn key(id: &str, active: bool, age: i64) -> AccessKey {
    let created = case().since + k8s_openapi::jiff::SignedDuration::from_secs(age);
    AccessKey { id: id.into(), active, created: Some(created) }
}

fn look(keys: Vec<AccessKey>) -> Look {
    Look { keys, user: Some(User::default()) }
}

fn recorded(id: &str, active: bool) -> Case {
    example::recorded(case(), &format!("deactivateAccessKeys/{id}"), &Original { active })
}

fn switches(key: &str, active: bool) -> Call {
    Call::UpdateAccessKey { user: "mallory".into(), key: key.into(), active }
}

#[test]
fn every_active_key_goes_off_and_the_owners_keys_are_recorded() {
    let look = look(vec![key("A", true, -60), key("B", false, -60), key("C", true, 30)]);
    let plan = Keys::contain(&case(), &Empty {}, &look);
    assert_eq!(plan.calls, [switches("A", false), switches("C", false)]);
    let recorded: Vec<(&str, Original)> =
        plan.record.iter().map(|(k, v)| (k.as_str(), serde_json::from_value(v.clone()).unwrap())).collect();
    let original = |active| Original { active };
    assert_eq!(recorded, [("deactivateAccessKeys/A", original(true)), ("deactivateAccessKeys/B", original(false))]);
    assert_eq!(plan.verdict.drift.len(), 2);
}

#[test]
fn a_key_that_was_switched_on_again_goes_off_and_keeps_its_first_record() {
    let plan = Keys::contain(&recorded("A", true), &Empty {}, &look(vec![key("A", true, -60)]));
    assert_eq!(plan.calls, [switches("A", false)]);
    assert!(plan.record.is_empty());
    assert_eq!(plan.verdict.drift, ["access key A was active"]);
}

#[test]
fn with_all_keys_off_or_none_there_it_is_in_force() {
    for (keys, says) in [(vec![], "the user has no access keys"), (vec![key("A", false, -60)], "1 of 1 access keys off")] {
        let plan = Keys::contain(&recorded("A", true), &Empty {}, &look(keys));
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
        assert_eq!(plan.verdict.message, says);
    }
}

#[test]
fn no_user_is_a_dead_end() {
    assert_eq!(Keys::contain(&case(), &Empty {}, &Look::default()).verdict.state, ActionState::Failed);
}

#[test]
fn a_mark_of_an_earlier_containment_makes_the_originals_unknown() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let marked = |keys| Look { keys, user: Some(User { tags: tags.clone(), ..User::default() }) };
    let plan = Keys::contain(&case(), &Empty {}, &marked(vec![key("A", true, -60)]));
    assert!(plan.verdict.unknown);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["deactivateAccessKeys/unknown"]);
    assert_eq!(plan.calls, [switches("A", false)], "contained all the same");
    let noted = example::recorded(case(), "deactivateAccessKeys/unknown", &case().now);
    let plan = Keys::contain(&noted, &Empty {}, &marked(vec![key("A", false, -60)]));
    assert!(plan.verdict.unknown && plan.is_done(), "what is off now is nobody's original");
}

#[test]
fn firebreaks_own_mark_on_a_user_without_keys_says_nothing() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/inc-1".to_owned())]);
    let ours = example::recorded(case(), "tagResource", &Empty {});
    let look = Look { keys: vec![], user: Some(User { tags, ..User::default() }) };
    assert!(!Keys::contain(&ours, &Empty {}, &look).verdict.unknown);
}

#[test]
fn keys_come_back_only_where_the_policy_says_so_in_so_many_words() {
    let yes = ReleasePolicy { reactivate_access_keys: true };
    for (what, release, active, back) in [
        ("by default", ReleasePolicy::default(), true, false),
        ("where the policy says so", yes.clone(), true, true),
        ("that were off before", yes, false, false),
    ] {
        let case = Case { release, ..recorded("A", active) };
        let plan = Keys::release(&case, &look(vec![key("A", false, -60)]));
        assert_eq!(!plan.calls.is_empty(), back, "{what}");
        assert_eq!(plan.verdict.state == ActionState::Released, !back, "{what}");
    }
}

#[test]
fn a_key_that_is_not_on_record_does_not_come_back() {
    // as one that was made during the containment
    let case = Case { release: ReleasePolicy { reactivate_access_keys: true }, ..case() };
    assert!(Keys::release(&case, &look(vec![key("A", false, -60)])).is_done());
}

#[test]
fn what_somebody_switched_on_since_the_last_look_goes_off_before_the_release_ends() {
    let look = look(vec![key("A", true, -60), key("B", true, 90)]);
    let plan = Keys::release(&recorded("A", true), &look);
    assert_eq!(plan.calls, [switches("A", false), switches("B", false)]);
    assert!(plan.record.is_empty(), "B was made during the containment: never the owner's");
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..recorded("A", true) };
    assert!(Keys::release(&kept, &look).is_done(), "unless a person decides to keep it");
}

#[test]
fn every_holder_must_want_the_keys_back() {
    let mut quarantine = example::quarantine(example::user(), vec![]);
    for (answers, back) in [(vec![], false), (vec![true], true), (vec![true, false], false), (vec![true, true], true)] {
        let holder = |reactivate_access_keys: &bool| firebreak_crds::Holder {
            release: ReleasePolicy { reactivate_access_keys: *reactivate_access_keys },
            ..example::holder("u", "inc", vec![])
        };
        quarantine.spec.holders = answers.iter().map(holder).collect();
        assert_eq!(Case::of(&quarantine, "aws", case().now).release.reactivate_access_keys, back, "{answers:?}");
    }
}
