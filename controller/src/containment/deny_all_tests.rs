use std::collections::BTreeMap;

use super::residual::Residual;
use super::*;
use crate::containment::example;

const AWS: &str = "arn:aws:iam::aws:policy/AWSDenyAll";
const OTHER: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

fn case() -> Case {
    example::case(example::user())
}

fn recorded(attached: bool) -> Case {
    example::recorded(case(), "denyAll", &Original { user_id: "AIDA1".into(), aws_deny_all_attached: attached })
}

/// A release whose residual deny is decided.
fn releasing(attached: bool) -> (Case, Residual) {
    let residual = Residual::decided(case().now);
    (example::recorded(recorded(attached), &residual.key(), &residual), residual)
}

fn look(inline: Option<&str>, attached: &[&str]) -> Look {
    Look {
        user: Some(User { id: "AIDA1".into(), ..User::default() }),
        inline: inline.map(str::to_owned),
        attached: attached.iter().map(|a| (*a).to_owned()).collect(),
        residual: None,
    }
}

/// What a release sees once its residual deny is read back.
fn look_with(residual: &Residual, inline: Option<&str>, attached: &[&str]) -> Look {
    Look { residual: Some((residual.document(), true)), ..look(inline, attached) }
}

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.calls.iter().map(Call::operation).collect()
}

#[test]
fn both_denies_go_out_side_by_side_and_either_is_enough() {
    for (inline, attached, calls, state) in [
        (None, &[][..], vec!["iam:PutUserPolicy", "iam:AttachUserPolicy"], ActionState::InProgress),
        (Some(DOCUMENT), &[], vec!["iam:AttachUserPolicy"], ActionState::InForce),
        (None, &[AWS], vec!["iam:PutUserPolicy"], ActionState::InForce),
        (Some(OTHER), &[], vec!["iam:PutUserPolicy", "iam:AttachUserPolicy"], ActionState::InProgress),
        (Some(DOCUMENT), &[AWS], vec![], ActionState::InForce),
    ] {
        let plan = DenyAll::contain(&recorded(false), &Empty {}, &look(inline, attached));
        assert_eq!((names(&plan), plan.verdict.state), (calls, state), "{inline:?} {attached:?}");
    }
}

#[test]
fn what_was_attached_before_is_recorded_with_the_first_calls() {
    for (attached, recorded) in [(&[][..], false), (&[AWS], true)] {
        let plan = DenyAll::contain(&case(), &Empty {}, &look(None, attached));
        assert_eq!(plan.record["denyAll"], serde_json::json!({ "userId": "AIDA1", "awsDenyAllAttached": recorded }));
        assert!(!plan.calls.is_empty());
    }
}

#[test]
fn white_space_in_a_policy_means_nothing() {
    let spaced = DOCUMENT.replace(',', ", ");
    assert!(look(Some(&spaced), &[]).inline_in_force());
    assert!(!look(Some("not json"), &[]).inline_in_force());
}

#[test]
fn the_partition_decides_the_policy_of_aws() {
    let case = Case { partition: "aws-cn".into(), ..recorded(false) };
    let plan = DenyAll::contain(&case, &Empty {}, &look(Some(DOCUMENT), &[AWS]));
    let arn = "arn:aws-cn:iam::aws:policy/AWSDenyAll".to_owned();
    assert_eq!(plan.calls, [Call::AttachUserPolicy { user: "mallory".into(), arn }]);
}

#[test]
fn a_user_that_was_contained_before_this_record_is_contained_and_unknown() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let mut marked = look(None, &[]);
    marked.user.as_mut().unwrap().tags = tags;
    for look in [look(Some(DOCUMENT), &[]), marked.clone()] {
        let plan = DenyAll::contain(&case(), &Empty {}, &look);
        assert!(plan.verdict.unknown && !plan.calls.is_empty());
        assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["denyAll/unknown"]);
        let noted = example::recorded(case(), "denyAll/unknown", &case().now);
        let again = DenyAll::contain(&noted, &Empty {}, &look);
        assert!(again.verdict.unknown && again.record.is_empty(), "noted once, and it stays so");
    }
    let ours = example::recorded(case(), "tagResource", &Empty {});
    assert!(!DenyAll::contain(&ours, &Empty {}, &marked).verdict.unknown, "the mark is this record's own");
}

#[test]
fn no_user_is_a_dead_end_and_a_deleted_user_is_released() {
    assert_eq!(DenyAll::contain(&case(), &Empty {}, &Look::default()).verdict.state, ActionState::Failed);
    assert_eq!(DenyAll::release(&recorded(false), &Look::default()).verdict.state, ActionState::Released);
}

#[test]
fn the_standing_deny_goes_only_after_the_residual_one_is_read_back() {
    let in_force = look(Some(DOCUMENT), &[AWS]);
    let first = DenyAll::release(&recorded(false), &in_force);
    assert!(first.calls.is_empty() && first.record.keys().all(|k| k.starts_with("denyAll/residual-")), "{first:?}");
    let (case, residual) = releasing(false);
    let put = DenyAll::release(&case, &in_force);
    assert_eq!(names(&put), ["iam:PutUserPolicy"]);
    let mut look = in_force;
    DenyAll::after(&mut look, &put.calls[0], &Outcome::Done);
    let expected = DenyAll::release(&case, &look);
    assert!(expected.calls.is_empty() && expected.look_again, "expected is not read");
    let lifted = DenyAll::release(&case, &look_with(&residual, Some(DOCUMENT), &[AWS]));
    assert_eq!(names(&lifted), ["iam:DeleteUserPolicy", "iam:DetachUserPolicy"]);
    let done = DenyAll::release(&case, &look_with(&residual, None, &[]));
    assert_eq!(done.verdict.state, ActionState::Released);
    assert!(done.verdict.message.contains("stay denied until"));
}

#[test]
fn a_residual_deny_that_somebody_changed_is_put_again_before_anything_else() {
    let (case, _) = releasing(false);
    let changed = Look { residual: Some((OTHER.into(), true)), ..look(Some(DOCUMENT), &[AWS]) };
    assert_eq!(names(&DenyAll::release(&case, &changed)), ["iam:PutUserPolicy"]);
}

#[test]
fn a_release_is_three_way() {
    use ActionState::{Conflict, InProgress, Released};
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let (delete, detach, attach) = ("iam:DeleteUserPolicy", "iam:DetachUserPolicy", "iam:AttachUserPolicy");
    for (what, was, inline, attached, decision, calls, state) in [
        ("undone already", false, None, &[][..], None, vec![], Released),
        ("attached before", true, Some(DOCUMENT), &[AWS], None, vec![delete], InProgress),
        ("changed: the other half stays too", false, Some(OTHER), &[AWS], None, vec![], Conflict),
        ("changed, kept", false, Some(OTHER), &[AWS], Some(KeepTheirs), vec![detach], InProgress),
        ("changed, overruled", false, Some(OTHER), &[AWS], Some(RestoreOriginal), vec![delete, detach], InProgress),
        ("detached since", true, Some(DOCUMENT), &[], None, vec![], Conflict),
        ("detached since, kept", true, Some(DOCUMENT), &[], Some(KeepTheirs), vec![delete], InProgress),
        ("detached since, overruled", true, Some(DOCUMENT), &[], Some(RestoreOriginal), vec![delete, attach], InProgress),
    ] {
        let (case, residual) = releasing(was);
        let plan = DenyAll::release(&Case { decision, ..case }, &look_with(&residual, inline, attached));
        let open = if plan.calls.is_empty() { plan.verdict.state } else { InProgress };
        assert_eq!((names(&plan), open), (calls, state), "{what}");
    }
}

#[test]
fn a_user_made_again_under_the_same_name_is_a_conflict() {
    let (case, residual) = releasing(false);
    let mut look = look_with(&residual, Some(DOCUMENT), &[]);
    look.user.as_mut().unwrap().id = "AIDA2".into();
    let plan = DenyAll::release(&case, &look);
    assert_eq!((plan.calls.len(), plan.verdict.state), (0, ActionState::Conflict));
    assert!(plan.verdict.message.contains("AIDA1 is now AIDA2"), "{}", plan.verdict.message);
}

#[test]
fn an_unknown_original_is_released_by_hand() {
    assert_eq!(DenyAll::release(&case(), &look(Some(DOCUMENT), &[])).verdict.state, ActionState::Conflict);
    assert_eq!(DenyAll::release(&case(), &look(None, &[])).verdict.state, ActionState::Released);
    let noted = example::recorded(case(), "denyAll/unknown", &case().now);
    assert_eq!(DenyAll::release(&noted, &look(None, &[AWS])).verdict.state, ActionState::Conflict, "half is still there");
    for (decision, state) in [
        (OnConflict::KeepTheirs, ActionState::Released),
        (OnConflict::RestoreOriginal, ActionState::Conflict), // there is none to restore
    ] {
        let decided = Case { decision: Some(decision), ..noted.clone() };
        assert_eq!(DenyAll::release(&decided, &look(Some(DOCUMENT), &[AWS])).verdict.state, state);
    }
}

#[test]
fn a_release_that_was_interrupted_and_a_new_one_have_each_their_residual_deny() {
    let (case, first) = releasing(false);
    let held = DenyAll::contain(&case, &Empty {}, &look(Some(DOCUMENT), &[AWS]));
    let (key, value) = held.record.first_key_value().unwrap();
    assert!(key.starts_with("denyAll/again-"), "{key}");
    let mut case = example::recorded(case, key, value);
    case.now += std::time::Duration::from_hours(1);
    assert!(DenyAll::contain(&case, &Empty {}, &look(Some(DOCUMENT), &[AWS])).is_done(), "said once");
    let again = DenyAll::release(&case, &look(Some(DOCUMENT), &[AWS]));
    let (_, value) = again.record.first_key_value().unwrap();
    let second: Residual = serde_json::from_value(value.clone()).unwrap();
    assert!(second.cutoff > first.cutoff && second.cutoff > case.now, "{second:?}");
}
