use firebreak_crds::{Holder, Severity};

use super::*;
use crate::aws::Principal;
use crate::containment::example;
use crate::containment::second_copy::PREFIX;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn tags(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[allow(clippy::unnecessary_wraps, reason = "it is what is observed")]
fn tagged(tags: BTreeMap<String, String>) -> Look {
    Some(Tagged { unique: "i-1".into(), tags })
}

fn keys() -> Keys {
    Keys::parse(KEY).unwrap()
}

fn none() -> Keys {
    Keys::default()
}

/// A case whose record is whole but for what others put into it.
fn case() -> Case {
    example::recorded(example::case(example::instance()), NAME, &Original::default())
}

/// The tags after a pass that is left alone.
fn contained(case: &Case, keys: &Keys, before: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut look = tagged(before);
    let plan = TagResource::contain(case, keys, &look);
    assert!(plan.calls.iter().filter(|c| c.operation() == "ec2:CreateTags").count() <= 1, "as few calls as without a copy");
    plan.calls.iter().for_each(|call| TagResource::after(&mut look, call, &Outcome::Done));
    let settled = TagResource::contain(case, keys, &look);
    assert!(settled.is_done() && settled.verdict.state == ActionState::InForce, "{settled:#?}");
    look.unwrap().tags
}

fn read(case: &Case, tags: &BTreeMap<String, String>) -> SecondCopy {
    SecondCopy::from_tags(tags, &case.resource, "i-1", &keys()).unwrap()
}

#[test]
fn the_mark_says_which_incident_and_since_when_once_it_is_recorded_what_was_there() {
    let before = tagged(tags(&[("Name", "web"), (SINCE, "yesterday"), ("firebreak.dev/original-0", "planted")]));
    let first = TagResource::contain(&example::case(example::instance()), &none(), &before);
    assert_eq!(first.record[NAME], serde_json::json!({ "tags": { SINCE: "yesterday" } }));
    assert!(first.calls.is_empty() && !first.is_done());
    let mark = tags(&[(INCIDENT, "security/inc-1"), (SINCE, example::SINCE)]);
    let plan = TagResource::contain(&case(), &none(), &before);
    assert_eq!(plan.calls, [Call::CreateTags { resource: "i-1".into(), tags: mark.clone() }]);
    let holder = |severity| Holder { severity, ..example::holder("1", "inc-1", vec![]) };
    let holders = [None, Some(Severity::High), Some(Severity::Low)].map(holder).to_vec();
    let plan = TagResource::contain(&Case { holders, ..case() }, &none(), &before);
    let worst = mark.clone().into_iter().chain([(SEVERITY.to_owned(), "High".to_owned())]).collect();
    assert_eq!(plan.calls, [Call::CreateTags { resource: "i-1".into(), tags: worst }]);
    let user = example::recorded(example::case(example::user()), NAME, &Original::default());
    let user = TagResource::contain(&user, &none(), &tagged(tags(&[])));
    assert_eq!(user.calls, [Call::TagPrincipal { principal: Principal::User("mallory".into()), tags: mark }]);
}

#[test]
fn a_resource_that_was_marked_before_is_left_alone_and_not_recorded() {
    let marked = tagged(tags(&[(INCIDENT, "security/other"), ("firebreak.dev/original-0", "AAAA")]));
    let plan = TagResource::contain(&example::case(example::instance()), &keys(), &marked);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
}

#[test]
fn the_copy_goes_with_the_marks_and_again_when_the_record_has_grown() {
    let first = contained(&case(), &keys(), tags(&[("Name", "web")]));
    assert_eq!(read(&case(), &first), SecondCopy::of(&case()));
    let grown = (0..30).fold(case(), |case, n| example::recorded(case, &format!("isolateNetwork/eni-{n}"), &"sg-1"));
    let second = contained(&grown, &keys(), first.clone());
    assert_eq!(read(&grown, &second).original.len(), 31);
    assert!(second.len() > first.len() && second["Name"] == "web");
    let back = contained(&case(), &keys(), second);
    assert_eq!(back, first, "tags of a longer copy would make it none");
}

#[test]
fn what_somebody_planted_among_the_tags_of_the_copy_goes() {
    let planted = tags(&[("firebreak.dev/original-0", "AAAA"), ("firebreak.dev/original-7", "AAAA")]);
    assert_eq!(read(&case(), &contained(&case(), &keys(), planted)), SecondCopy::of(&case()));
}

#[test]
fn where_there_is_no_room_or_no_key_the_marks_are_put_all_the_same_and_it_says_why() {
    let old = contained(&case(), &keys(), tags(&[]));
    let mut full: BTreeMap<_, _> = (0..48).map(|n| (format!("k{n}"), String::new())).collect();
    full.insert(format!("{PREFIX}0"), old[&format!("{PREFIX}0")].clone());
    let after = contained(&case(), &keys(), full);
    assert!(after.contains_key(INCIDENT) && !after.keys().any(|k| is_of_copy(k)), "an outdated copy is worse than none");
    let look = tagged(after);
    let said = TagResource::contain(&case(), &keys(), &look).verdict.message;
    assert!(said.contains("no copy") && said.contains("room for 0"), "{said}");

    let without = contained(&case(), &none(), old.clone());
    assert_eq!(without, old, "who lost the key must not lose the copies, too");
    assert!(TagResource::contain(&case(), &none(), &tagged(old)).verdict.message.starts_with("no copy"));
}

#[test]
fn where_two_marks_fit_and_no_third_the_severity_is_left_out() {
    let holder = Holder { severity: Some(Severity::Low), ..example::holder("1", "inc-1", vec![]) };
    let case = Case { holders: vec![holder], ..case() };
    for (count, put) in [(47, true), (48, false)] {
        let tags = (0..count).map(|n| (format!("k{n}"), String::new())).collect();
        let after = contained(&case, &none(), tags);
        assert!(after.len() == 50 && after.contains_key(INCIDENT) && after.contains_key(SEVERITY) == put, "{count}");
    }
}

#[test]
fn a_release_leaves_the_tags_as_they_were() {
    let before = Original { tags: tags(&[(SINCE, "yesterday")]) };
    for (what, original, now, operations) in [
        ("gone already", Original::default(), tags(&[("Name", "web")]), vec![]),
        (
            "ours go",
            Original::default(),
            tags(&[(INCIDENT, "a"), (SINCE, "b"), (SEVERITY, "Low"), ("firebreak.dev/original-0", "c"), ("Name", "web")]),
            vec!["ec2:DeleteTags"],
        ),
        (
            "what was there comes back",
            before,
            tags(&[(INCIDENT, "a"), (SINCE, "b"), ("firebreak.dev/original-12", "c")]),
            vec!["ec2:DeleteTags", "ec2:CreateTags"],
        ),
    ] {
        let case = example::recorded(case(), NAME, &original);
        let mut look = tagged(now);
        let plan = TagResource::release(&case, &look);
        assert_eq!(plan.calls.iter().map(Call::operation).collect::<Vec<_>>(), operations, "{what}");
        plan.calls.iter().for_each(|call| TagResource::after(&mut look, call, &Outcome::Done));
        assert_eq!(ours(&look.as_ref().unwrap().tags), original.tags, "{what}");
        assert_eq!(TagResource::release(&case, &look).verdict.state, ActionState::Released, "{what}");
    }
}

#[test]
fn a_resource_that_is_gone_has_no_mark_to_give_back() {
    assert_eq!(TagResource::release(&case(), &None).verdict.state, ActionState::Released);
    assert_eq!(TagResource::contain(&case(), &none(), &None).verdict.state, ActionState::Failed);
}

#[test]
fn only_a_mark_that_this_record_does_not_know_tells_of_an_earlier_containment() {
    let (marked, new) = (tags(&[(INCIDENT, "security/inc-1")]), example::case(example::instance()));
    assert!(is_marked_before(&new, &marked));
    assert!(!is_marked_before(&case(), &marked) && !is_marked_before(&new, &tags(&[])));
}
