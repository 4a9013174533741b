use std::collections::BTreeMap;

use super::residual::Residual;
use super::*;
use crate::aws::Principal;
use crate::containment::example;
use crate::containment::whereabouts::Whereabouts;

const AWS: &str = "arn:aws:iam::aws:policy/AWSDenyAll";
const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
const OTHER: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

fn case() -> Case {
    example::case(example::user())
}

fn recorded(attached: bool) -> Case {
    let case = example::recorded(
        case(),
        "denyAll",
        &Original { user_id: "AIDA1".into(), aws_deny_all_attached: attached, ..Original::default() },
    );
    bounded(case, None)
}

/// The case with that boundary on record.
fn bounded(case: Case, arn: Option<&str>) -> Case {
    example::recorded(case, boundary::KEY, &boundary::Original { arn: arn.map(str::to_owned) })
}

/// A release whose residual deny is decided.
fn releasing(attached: bool) -> (Case, Residual) {
    let residual = Residual::decided(case().now, residual::life(&case()));
    (example::recorded(recorded(attached), &residual.key("denyAll"), &residual), residual)
}

fn look(inline: Option<&str>, attached: &[&str]) -> Look {
    Look {
        identity: Some(Identity { id: "AIDA1".into(), ..Identity::default() }),
        inline: inline.map(str::to_owned),
        attached: attached.iter().map(|a| (*a).to_owned()).collect(),
        ..Look::default()
    }
}

#[test]
fn what_iam_does_not_show_of_one_deny_keeps_no_other_back() {
    let denied = || AwsError::silent("iam:GetUserPolicy", Duration::from_secs(5));
    let unread = |inline: bool, attached: bool| Unread { inline: inline.then(denied), attached: attached.then(denied) };
    let plan = |case: &Case, unread| DenyAll::contain(case, &Empty {}, &Look { unread, ..look(None, &[]) });
    let (boundary, inline, attach) = ("iam:PutUserPermissionsBoundary", "iam:PutUserPolicy", "iam:AttachUserPolicy");
    for (what, unread, calls) in [
        ("the inline policy", unread(true, false), vec![boundary, inline, attach]),
        ("what is attached", unread(false, true), vec![boundary, inline]),
        ("both", unread(true, true), vec![boundary, inline]),
    ] {
        let first = plan(&case(), unread.clone());
        assert_eq!(names(&first), calls, "{what}");
        let known = first.record.iter().fold(case(), |case, (key, value)| example::recorded(case, key, value));
        let again = plan(&known, unread);
        assert!(
            again.record.is_empty() && !names(&again).contains(&if what == "what is attached" { attach } else { inline })
        );
        assert_eq!(again.verdict.state, ActionState::InProgress, "{what}: no look has shown a deny");
        assert!(again.verdict.unread.is_some() && again.verdict.message.contains("iam:GetUserPolicy"), "{what}");
    }
}

#[test]
fn what_was_never_seen_is_neither_attached_nor_detached() {
    let seen_later = Original { user_id: "AIDA1".into(), attached_unread: true, ..Original::default() };
    let known = bounded(example::recorded(case(), "denyAll", &seen_later), None);
    let later = DenyAll::contain(&known, &Empty {}, &under(look(Some(DOCUMENT), &[]), Some(AWS)));
    assert_eq!((later.record.keys().next().unwrap().as_str(), names(&later)), (SEEN_LATER, vec!["iam:AttachUserPolicy"]));
    let residual = Residual::decided(case().now, residual::life(&case()));
    let releasing = example::recorded(known, &residual.key("denyAll"), &residual);
    let plan = DenyAll::release(&releasing, &under(look_with(&residual, Some(DOCUMENT), &[AWS]), Some(AWS)));
    assert_eq!(names(&plan), ["iam:DeleteUserPermissionsBoundary", "iam:DeleteUserPolicy"], "AWSDenyAll is somebody's");
    let ours = example::recorded(releasing, SEEN_LATER, &true);
    let plan = DenyAll::release(&ours, &under(look_with(&residual, Some(DOCUMENT), &[AWS]), Some(AWS)));
    assert!(names(&plan).contains(&"iam:DetachUserPolicy"), "{plan:?}");
}

#[test]
fn a_deny_of_before_is_not_taken_for_the_owners_where_the_policy_that_tells_is_not_shown() {
    let unread = Unread { inline: Some(AwsError::silent("iam:GetUserPolicy", Duration::from_secs(5))), attached: None };
    for look in [look(None, &[AWS]), under(look(None, &[]), Some(AWS))] {
        let plan = DenyAll::contain(&case(), &Empty {}, &Look { unread: unread.clone(), ..look });
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "nothing is recorded, or done: {plan:?}");
        assert!(plan.verdict.message.contains("iam:GetUserPolicy"), "{}", plan.verdict.message);
    }
}

/// What a release sees once its residual deny is read back.
fn look_with(residual: &Residual, inline: Option<&str>, attached: &[&str]) -> Look {
    Look { residual: Some((residual.document(), true)), ..look(inline, attached) }
}

/// The look with that boundary.
fn under(mut look: Look, arn: Option<&str>) -> Look {
    look.identity.as_mut().unwrap().boundary = arn.map(str::to_owned);
    look
}

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.calls.iter().map(Call::operation).collect()
}

#[test]
fn all_denies_go_out_side_by_side_and_any_is_enough() {
    let (put, attach, bound) = ("iam:PutUserPolicy", "iam:AttachUserPolicy", "iam:PutUserPermissionsBoundary");
    for (inline, attached, boundary, calls, state) in [
        (None, &[][..], None, vec![bound, put, attach], ActionState::InProgress),
        (Some(DOCUMENT), &[], None, vec![bound, attach], ActionState::InForce),
        (None, &[AWS], None, vec![bound, put], ActionState::InForce),
        (None, &[], Some(AWS), vec![put, attach], ActionState::InForce),
        (Some(OTHER), &[], Some(ADMIN), vec![bound, put, attach], ActionState::InProgress),
        (Some(DOCUMENT), &[AWS], Some(AWS), vec![], ActionState::InForce),
    ] {
        let plan = DenyAll::contain(&recorded(false), &Empty {}, &under(look(inline, attached), boundary));
        assert_eq!((names(&plan), plan.verdict.state), (calls, state), "{inline:?} {attached:?} {boundary:?}");
    }
}

#[test]
fn the_message_says_which_denies_are_in_force() {
    for (look, message) in [
        (look(None, &[]), "not denied yet"),
        (under(look(None, &[]), Some(AWS)), "denied by the boundary; not in force: the inline policy, AWSDenyAll"),
        (under(look(Some(DOCUMENT), &[AWS]), Some(AWS)), "denied by the inline policy, AWSDenyAll, the boundary"),
    ] {
        assert_eq!(DenyAll::contain(&recorded(false), &Empty {}, &look).verdict.message, message);
    }
}

#[test]
fn the_boundary_that_was_there_is_recorded_with_the_first_calls_also_by_a_record_of_an_earlier_version() {
    let earlier = example::recorded(case(), "denyAll", &Original { user_id: "AIDA1".into(), ..Original::default() });
    for case in [case(), earlier] {
        let plan = DenyAll::contain(&case, &Empty {}, &under(look(None, &[]), Some(ADMIN)));
        assert_eq!(plan.record["denyAll/boundary"], serde_json::json!({ "arn": ADMIN }));
        assert!(names(&plan).contains(&"iam:PutUserPermissionsBoundary"));
    }
}

#[test]
fn a_boundary_is_given_back_three_way() {
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let (delete, put) = ("iam:DeleteUserPermissionsBoundary", "iam:PutUserPermissionsBoundary");
    for (what, was, is, decision, calls, state) in [
        ("ours, none before", None, Some(AWS), None, vec![delete], ActionState::InProgress),
        ("ours, another before", Some(ADMIN), Some(AWS), None, vec![put], ActionState::InProgress),
        ("the deny was there before", Some(AWS), Some(AWS), None, vec![], ActionState::Released),
        ("given back already", Some(ADMIN), Some(ADMIN), None, vec![], ActionState::Released),
        ("theirs", Some(ADMIN), None, None, vec![], ActionState::Conflict),
        ("theirs, none before", None, Some(ADMIN), None, vec![], ActionState::Conflict),
        ("theirs, kept", None, Some(ADMIN), Some(KeepTheirs), vec![], ActionState::Released),
        ("theirs, overruled", Some(ADMIN), None, Some(RestoreOriginal), vec![put], ActionState::InProgress),
        ("theirs, overruled: ours first", None, Some(ADMIN), Some(RestoreOriginal), vec![put], ActionState::InProgress),
    ] {
        let (case, residual) = releasing(false);
        let case = Case { decision, ..bounded(case, was) };
        let plan = DenyAll::release(&case, &under(look_with(&residual, None, &[]), is));
        let open = if plan.calls.is_empty() { plan.verdict.state } else { ActionState::InProgress };
        assert_eq!((names(&plan), open), (calls, state), "{what}");
    }
}

#[test]
fn a_boundary_whose_policy_was_deleted_is_not_asked_of_aws_for_ever() {
    let (case, residual) = releasing(false);
    let case = bounded(case, Some("arn:aws:iam::111122223333:policy/limits"));
    let gone = Look { boundary_gone: true, ..under(look_with(&residual, None, &[]), Some(AWS)) };
    for decision in [None, Some(OnConflict::RestoreOriginal)] {
        let plan = DenyAll::release(&Case { decision, ..case.clone() }, &gone);
        assert_eq!((plan.calls.len(), plan.verdict.state), (0, ActionState::Conflict));
        assert!(plan.verdict.message.contains("policy/limits, a policy that exists no more"), "{}", plan.verdict.message);
    }
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    assert_eq!(names(&DenyAll::release(&kept, &gone)), ["iam:DeleteUserPermissionsBoundary"]);
}

#[test]
fn a_boundary_that_no_record_speaks_of_is_left_alone() {
    let (mut case, residual) = releasing(false);
    case.original.remove(boundary::KEY);
    let plan = DenyAll::release(&case, &under(look_with(&residual, None, &[]), Some(AWS)));
    assert_eq!((plan.calls, plan.verdict.state), (vec![], ActionState::Released));
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
    let plan = DenyAll::contain(&case, &Empty {}, &under(look(Some(DOCUMENT), &[AWS]), Some(AWS)));
    let (principal, arn) = (Principal::User("mallory".into()), "arn:aws-cn:iam::aws:policy/AWSDenyAll".to_owned());
    let bound = Call::PutPermissionsBoundary { principal: principal.clone(), arn: arn.clone() };
    assert_eq!(plan.calls, [bound, Call::AttachPolicy { principal, arn }]);
}

#[test]
fn a_user_that_was_contained_before_this_record_is_contained_and_unknown() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let mut marked = look(None, &[]);
    marked.identity.as_mut().unwrap().tags = tags;
    for look in [look(Some(DOCUMENT), &[]), marked.clone()] {
        let plan = DenyAll::contain(&case(), &Empty {}, &look);
        assert!(plan.verdict.unknown && !plan.calls.is_empty());
        assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["denyAll/boundary-found", "denyAll/unknown"]);
        let noted = example::recorded(case(), "denyAll/unknown", &case().now);
        let noted = example::recorded(noted, boundary::FOUND, &plan.record[boundary::FOUND]);
        let again = DenyAll::contain(&noted, &Empty {}, &look);
        assert!(again.verdict.unknown && again.record.is_empty(), "noted once, and it stays so");
    }
    let ours = example::recorded(case(), "tagResource", &Empty {});
    assert!(!DenyAll::contain(&ours, &Empty {}, &marked).verdict.unknown, "the mark is this record's own");
}

#[test]
fn no_user_is_a_dead_end_and_a_deleted_user_is_released() {
    assert_eq!(DenyAll::contain(&case(), &Empty {}, &Look::default()).verdict.state, ActionState::Failed);
    let release = |whereabouts| DenyAll::release(&recorded(false).at(whereabouts), &Look::default()).verdict.state;
    assert_eq!(release(Whereabouts::Gone), ActionState::Released);
    assert_eq!(release(Whereabouts::Named("mallory".into())), ActionState::InProgress, "renamed a moment ago");
    assert_eq!(release(Whereabouts::NotAsked), ActionState::Conflict);
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
    look.identity.as_mut().unwrap().id = "AIDA2".into();
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
    let decided = |decision| Case { decision: Some(decision), ..noted.clone() };
    let none_to_restore = DenyAll::release(&decided(OnConflict::RestoreOriginal), &look(Some(DOCUMENT), &[AWS]));
    assert_eq!(none_to_restore.verdict.state, ActionState::Conflict);
    let kept = DenyAll::release(&decided(OnConflict::KeepTheirs), &look(Some(DOCUMENT), &[AWS]));
    let (key, residual) = kept.record.first_key_value().expect("old sessions stay denied here, too");
    let case = example::recorded(decided(OnConflict::KeepTheirs), key, residual);
    let residual: Residual = serde_json::from_value(residual.clone()).unwrap();
    assert_eq!(names(&DenyAll::release(&case, &look(Some(DOCUMENT), &[AWS]))), ["iam:PutUserPolicy"]);
    let done = DenyAll::release(&case, &look_with(&residual, Some(DOCUMENT), &[AWS]));
    assert!(done.is_done() && done.verdict.state == ActionState::Released, "{done:?}");
}

#[test]
fn a_release_that_was_interrupted_and_a_new_one_have_each_their_residual_deny() {
    let (case, first) = releasing(false);
    let kept = DenyAll::contain(&case, &Empty {}, &look(None, &[]));
    assert!(kept.record.is_empty() && kept.calls.len() == 3, "kept in force while its release waits: {kept:?}");
    let case = Case { holders: vec![example::holder("1", "inc-1", vec![])], ..case };
    let held = DenyAll::contain(&case, &Empty {}, &look(Some(DOCUMENT), &[AWS]));
    let (key, value) = held.record.first_key_value().unwrap();
    assert!(key.starts_with("denyAll/again-"), "{key}");
    let mut case = example::recorded(case, key, value);
    case.now += std::time::Duration::from_hours(1);
    assert!(DenyAll::contain(&case, &Empty {}, &under(look(Some(DOCUMENT), &[AWS]), Some(AWS))).is_done(), "said once");
    let again = DenyAll::release(&case, &look(Some(DOCUMENT), &[AWS]));
    let (_, value) = again.record.first_key_value().unwrap();
    let second: Residual = serde_json::from_value(value.clone()).unwrap();
    assert!(second.cutoff > first.cutoff && second.cutoff > case.now, "{second:?}");
}

#[test]
fn a_release_that_hung_denies_the_sessions_of_that_time_too_before_anything_goes() {
    let (case, first) = releasing(false);
    let changed = look_with(&first, Some(OTHER), &[AWS]);
    assert_eq!(DenyAll::release(&case, &changed).verdict.state, ActionState::Conflict);
    // An hour later a person decides. Meanwhile a key was on for a moment, and a session began.
    let mut case = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    case.now += std::time::Duration::from_hours(1);
    let issued = case.now;
    let mut earlier = first;
    for at_least in [30, 60, 120] {
        let anew = DenyAll::release(&case, &look_with(&earlier, Some(OTHER), &[AWS]));
        let [(key, value)] = anew.record.iter().collect::<Vec<_>>()[..] else { panic!("{anew:?}") };
        assert!(anew.calls.is_empty(), "nothing goes before: {anew:?}");
        let next: Residual = serde_json::from_value(value.clone()).unwrap();
        assert!(next.cutoff > issued && next.cutoff > earlier.cutoff, "{next:?}");
        assert!(next.cutoff.duration_since(case.now).as_secs() >= at_least, "what AWS refuses fills nothing: {next:?}");
        case = example::recorded(case, key, value);
        assert_eq!(names(&DenyAll::release(&case, &look_with(&earlier, Some(OTHER), &[AWS]))), ["iam:PutUserPolicy"]);
        assert_eq!(names(&DenyAll::release(&case, &look_with(&next, Some(OTHER), &[AWS]))), ["iam:DetachUserPolicy"]);
        case.now = next.cutoff; // AWS refused it all the time
        earlier = next;
    }
    let done = DenyAll::release(&case, &look_with(&earlier, Some(OTHER), &[]));
    assert!(done.is_done() && done.verdict.state == ActionState::Released, "what is gone is not denied longer: {done:?}");
}

#[test]
fn a_role_is_denied_by_its_own_operations_and_its_sessions_live_no_longer_than_12_hours() {
    let role = example::case(example::role());
    let plan = DenyAll::contain(&role, &Empty {}, &look(None, &[]));
    assert_eq!(names(&plan), ["iam:PutRolePermissionsBoundary", "iam:PutRolePolicy", "iam:AttachRolePolicy"]);
    let original = Original { user_id: "AIDA1".into(), ..Original::default() };
    let plan = DenyAll::release(&example::recorded(role.clone(), "denyAll", &original), &look(Some(DOCUMENT), &[]));
    let residual: Residual = serde_json::from_value(plan.record.into_values().next().unwrap()).unwrap();
    assert_eq!(residual.until.duration_since(residual.cutoff).as_hours(), 12);
}

#[test]
fn a_role_that_aws_manages_is_not_touched() {
    for (path, by) in
        [("aws-service-role/ecs.amazonaws.com", "service"), ("aws-reserved/sso.amazonaws.com", "Identity Center")]
    {
        let mut look = look(None, &[]);
        look.identity.as_mut().unwrap().arn = format!("arn:aws:iam::111122223333:role/{path}/build");
        let plan = DenyAll::contain(&example::case(example::role()), &Empty {}, &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Failed, "{plan:?}");
        assert!(plan.verdict.message.contains(by), "{}", plan.verdict.message);
    }
}
