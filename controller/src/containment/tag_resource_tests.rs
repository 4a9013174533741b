use super::*;
use crate::aws::Principal;
use crate::containment::example;

fn tags(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn case() -> Case {
    example::case(example::instance())
}

#[test]
fn the_mark_says_which_incident_and_since_when() {
    let plan = TagResource::contain(&case(), &Empty {}, &Some(tags(&[("Name", "web")])));
    let mark = tags(&[(INCIDENT, "security/inc-1"), (SINCE, example::SINCE)]);
    assert_eq!(plan.calls, [Call::CreateTags { resource: "i-1".into(), tags: mark.clone() }]);
    assert_eq!(plan.record[NAME], serde_json::json!({ "tags": {} }));
    let user = TagResource::contain(&example::case(example::user()), &Empty {}, &Some(tags(&[])));
    assert_eq!(user.calls, [Call::TagPrincipal { principal: Principal::User("mallory".into()), tags: mark }]);
}

#[test]
fn a_marked_resource_is_left_alone_and_not_recorded() {
    let marked = Some(tags(&[(INCIDENT, "security/other")]));
    let plan = TagResource::contain(&case(), &Empty {}, &marked);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
}

#[test]
fn a_release_leaves_the_tags_as_they_were() {
    let before = Original { tags: tags(&[(SINCE, "yesterday")]) };
    for (what, original, now, operations) in [
        ("gone already", Original::default(), tags(&[("Name", "web")]), vec![]),
        ("ours go", Original::default(), tags(&[(INCIDENT, "a"), (SINCE, "b"), ("Name", "web")]), vec!["ec2:DeleteTags"]),
        (
            "what was there comes back",
            before,
            tags(&[(INCIDENT, "a"), (SINCE, "b")]),
            vec!["ec2:DeleteTags", "ec2:CreateTags"],
        ),
    ] {
        let case = example::recorded(case(), NAME, &original);
        let mut look = Some(now);
        let plan = TagResource::release(&case, &look);
        assert_eq!(plan.calls.iter().map(Call::operation).collect::<Vec<_>>(), operations, "{what}");
        plan.calls.iter().for_each(|call| TagResource::after(&mut look, call, &Outcome::Done));
        assert_eq!(ours(look.as_ref().unwrap()), original.tags, "{what}");
        assert_eq!(TagResource::release(&case, &look).verdict.state, ActionState::Released, "{what}");
    }
}

#[test]
fn a_resource_that_is_gone_has_no_mark_to_give_back() {
    assert_eq!(TagResource::release(&case(), &None).verdict.state, ActionState::Released);
    assert_eq!(TagResource::contain(&case(), &Empty {}, &None).verdict.state, ActionState::Failed);
}

#[test]
fn only_a_mark_that_this_record_does_not_know_tells_of_an_earlier_containment() {
    let marked = tags(&[(INCIDENT, "security/inc-1")]);
    let ours = example::recorded(case(), NAME, &Original::default());
    assert!(is_marked_before(&case(), &marked));
    assert!(!is_marked_before(&ours, &marked) && !is_marked_before(&case(), &tags(&[])));
}
