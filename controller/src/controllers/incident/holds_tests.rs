use firebreak_crds::{AwsAccount, AwsAccountSpec, IncidentSpec, Mode, NameRef, ReleasePolicy, SeverTrackedConnections};
use std::sync::Arc;

use super::*;
use crate::containment::example::{self, deny_all, isolate, keys_off};

fn incident(uid: &str, name: &str) -> Incident {
    let spec = IncidentSpec {
        title: "t".into(),
        description: None,
        severity: firebreak_crds::Severity::High,
        mode: Mode::Contain,
        policy_ref: NameRef { name: "standard".into() },
        deletion_policy: firebreak_crds::DeletionPolicy::Retain,
        suspend: false,
        requested_by: None,
        authors: vec![],
        targets: vec![],
    };
    let mut incident = Incident::new(name, spec);
    (incident.metadata.namespace, incident.metadata.uid) = (Some("security".into()), Some(uid.into()));
    incident
}

fn target(actions: Vec<firebreak_crds::ContainAction>) -> Resolved {
    let account: AwsAccountSpec =
        serde_json::from_value(serde_json::json!({ "accountId": "111122223333", "regions": ["eu-west-1"] })).unwrap();
    Resolved {
        resource: example::user(),
        account: Arc::new(AwsAccount::new("prod", account)),
        actions,
        evidence: vec![],
        release: ReleasePolicy::default(),
        approvals: None,
        causes: vec![],
        waiting: vec![],
        ruled_out: false,
        open: false,
        chosen: None,
    }
}

/// The entry of an Incident that is as bad as those here are.
fn held(uid: &str, name: &str, actions: Vec<ContainAction>) -> Holder {
    Holder { severity: Some(incident(uid, name).spec.severity), ..example::holder(uid, name, actions) }
}

#[test]
fn a_new_hold_asks_for_what_the_policy_says() {
    let (holder, stays) = holder(&incident("1", "a"), &target(vec![deny_all()]), &[]);
    assert_eq!(holder, held("1", "a", vec![deny_all()]));
    assert!(stays.is_empty());
}

#[test]
fn an_entry_that_has_no_severity_is_not_written_again_for_it() {
    let (wanted, old) = (held("1", "a", vec![deny_all()]), example::holder("1", "a", vec![deny_all()]));
    assert!(is_same(&wanted, &wanted) && is_same(&old, &wanted));
    assert!(!is_same(&example::holder("1", "a", vec![]), &wanted));
    let worse = Holder { severity: Some(firebreak_crds::Severity::Critical), ..wanted.clone() };
    assert!(wanted.severity != worse.severity && !is_same(&wanted, &worse));
}

#[test]
fn a_hold_grows_from_its_own_entry_or_its_predecessors() {
    let retained = Holder { state: HolderState::Retained, ..example::holder("1", "a", vec![keys_off()]) };
    let other = example::holder("9", "b", vec![isolate(SeverTrackedConnections::Always)]);
    for (what, uid, name, actions, stays) in [
        ("its own", "1", "a", vec![keys_off(), deny_all()], vec!["deactivateAccessKeys"]),
        ("its predecessor's", "2", "a", vec![keys_off(), deny_all()], vec!["deactivateAccessKeys"]),
        ("nobody else's", "3", "c", vec![deny_all()], vec![]),
    ] {
        let holders = [retained.clone(), other.clone()];
        let (holder, stay) = holder(&incident(uid, name), &target(vec![deny_all()]), &holders);
        assert_eq!(holder, held(uid, name, actions), "{what}");
        assert_eq!(stay, stays, "{what}");
    }
}

#[test]
fn nothing_that_destroys_is_taken_over_from_a_predecessor() {
    let before = vec![example::end("stopInstance"), example::end("terminateInstance"), deny_all()];
    let holders = [Holder { state: HolderState::Retained, ..example::holder("1", "a", before.clone()) }];
    for (what, uid, expected) in [("its own", "1", before), ("its predecessor's", "2", vec![deny_all()])] {
        assert_eq!(actions(&incident(uid, "a"), &holders), expected, "{what}");
        assert_eq!(holder(&incident(uid, "a"), &target(vec![]), &holders).0.actions, expected, "{what}");
    }
    let asked = vec![example::end("terminateInstance")];
    let (again, _) = holder(&incident("2", "a"), &target(asked.clone()), &holders);
    assert_eq!(again.actions, [vec![deny_all()], asked].concat(), "what this one asks for, and was let through, is held");
}

#[test]
fn its_own_entry_counts_before_one_of_its_name() {
    let holders = [example::holder("0", "a", vec![keys_off()]), example::holder("1", "a", vec![deny_all()])];
    let (holder, _) = holder(&incident("1", "a"), &target(vec![]), &holders);
    assert_eq!(holder.actions, [deny_all()]);
}

#[test]
fn an_entry_replaces_its_own_and_its_predecessors_in_their_place() {
    let names = |holders: &[Holder]| holders.iter().map(|h| format!("{} {}", h.uid, h.name)).collect::<Vec<_>>();
    let held = || ["1 a", "2 b", "3 c"].map(|h| example::holder(&h[..1], &h[2..], vec![])).to_vec();
    for (what, uid, name, expected) in [
        ("a new one goes last", "4", "d", vec!["1 a", "2 b", "3 c", "4 d"]),
        ("its own", "2", "b", vec!["1 a", "2 b", "3 c"]),
        ("its predecessor's", "9", "a", vec!["9 a", "2 b", "3 c"]),
        ("the last", "9", "c", vec!["1 a", "2 b", "9 c"]),
    ] {
        let mut holders = held();
        put(&mut holders, example::holder(uid, name, vec![]));
        assert_eq!(names(&holders), expected, "{what}");
    }
    let mut both =
        vec![example::holder("1", "a", vec![]), example::holder("2", "b", vec![]), example::holder("9", "a", vec![])];
    put(&mut both, example::holder("9", "a", vec![]));
    assert_eq!(names(&both), ["9 a", "2 b"], "never two of one Incident");
}

#[test]
fn an_incident_of_another_namespace_is_no_predecessor() {
    let elsewhere = Holder { namespace: "other".into(), ..example::holder("1", "a", vec![keys_off()]) };
    let (mine, _) = holder(&incident("2", "a"), &target(vec![deny_all()]), std::slice::from_ref(&elsewhere));
    assert_eq!(mine.actions, [deny_all()]);
    let mut holders = vec![elsewhere];
    put(&mut holders, mine);
    assert_eq!(holders.len(), 2);
}

#[test]
fn a_quarantine_of_another_resource_is_never_taken() {
    let user = example::user();
    assert_eq!(mismatch(&user, &user, "q"), None);
    let through = firebreak_crds::Resource { account_ref: NameRef { name: "other".into() }, ..example::user() };
    assert!(mismatch(&through, &user, "q").unwrap().message.contains("through AwsAccount other"));
    assert!(mismatch(&example::instance(), &user, "q").unwrap().message.contains("of another resource"));
}

#[test]
fn a_release_takes_over_what_its_predecessor_left_behind() {
    let entry = |state, name| Holder { state, ..example::holder("0", name, vec![]) };
    for (mode, entry, expected) in [
        (Mode::Release, entry(HolderState::Retained, "inc-1"), true),
        (Mode::Release, entry(HolderState::Holding, "inc-1"), false),
        (Mode::Release, entry(HolderState::Retained, "inc-2"), false),
        (Mode::Plan, entry(HolderState::Retained, "inc-1"), false),
        (Mode::Contain, entry(HolderState::Retained, "inc-1"), false),
    ] {
        let mut incident = incident("1", "inc-1");
        incident.spec.mode = mode;
        assert_eq!(is_mine(&incident, &entry), expected, "{mode:?} {entry:?}");
    }
}

#[test]
fn a_hold_ends_once() {
    let of = |uid: &'static str| move |h: &Holder| h.uid == uid;
    let with = |state| {
        let holder = Holder { state, ..example::holder("1", "a", vec![]) };
        example::quarantine(example::user(), vec![holder])
    };
    for (state, end, expected) in [
        (HolderState::Holding, End::LetGo, true),
        (HolderState::Retained, End::LetGo, true),
        (HolderState::Holding, End::Retain, true),
        (HolderState::Retained, End::Retain, false),
    ] {
        assert_eq!(ends(&with(state), of("1"), end), expected, "{state:?} {end:?}");
        assert!(!ends(&with(state), of("2"), end), "not another's");
    }
}

#[test]
fn a_hold_says_which_selector_chose_it() {
    let mut chosen = target(vec![deny_all()]);
    chosen.chosen = Some(super::super::selector::Choice { selector: "k".into(), awaits: None });
    let (first, _) = holder(&incident("1", "a"), &chosen, &[]);
    assert_eq!(first.selector.as_deref(), Some("k"));
    let (named_too, _) = holder(&incident("1", "a"), &target(vec![deny_all()]), &[first]);
    assert_eq!(named_too.selector, None, "the spec names it itself now");
}

#[test]
fn one_that_is_being_deleted_is_held_again_unless_it_goes_in_a_moment() {
    let deleted = |status: Option<&str>| {
        let mut quarantine = example::quarantine(example::user(), vec![]);
        let at: k8s_openapi::jiff::Timestamp = example::SINCE.parse().unwrap();
        quarantine.metadata.deletion_timestamp = Some(crate::clock::time(at));
        quarantine.metadata.uid = Some("u-1".into());
        let mut c = crate::conditions::Conditions::new(&[], None, at);
        status.into_iter().for_each(|status| c.set(RELEASED, status, "R", ""));
        quarantine.status = Some(firebreak_crds::QuarantineStatus { conditions: c.done(), ..Default::default() });
        quarantine
    };
    let mut abandoned = deleted(Some("False"));
    abandoned.metadata.annotations = Some([(firebreak_crds::ABANDON.to_owned(), "u-1".to_owned())].into());
    let mut stays = deleted(Some("True"));
    stays.metadata.deletion_timestamp = None;
    for (what, quarantine, going) in [
        ("not begun", deleted(None), false),
        ("in conflict, or on its way", deleted(Some("False")), false),
        ("given back", deleted(Some("True")), true),
        ("abandoned", abandoned, true),
        ("not deleted", stays, false),
    ] {
        assert_eq!(is_going(&quarantine), going, "{what}");
    }
}

#[test]
fn a_hold_that_begins_after_the_deletion_is_noted_with_it() {
    let left = Holder { state: HolderState::Retained, ..example::holder("1", "a", vec![]) };
    let mut quarantine = example::quarantine(example::user(), vec![left.clone(), example::holder("2", "b", vec![])]);
    let hold = |quarantine: &mut Quarantine, uid, name| {
        let holder = example::holder(uid, name, vec![deny_all()]);
        note_again(quarantine, &holder);
        put(&mut quarantine.spec.holders, holder);
        quarantine.annotations().get(HELD_AGAIN).cloned()
    };
    assert_eq!(hold(&mut quarantine, "3", "c"), None, "it is not deleted");
    quarantine.metadata.deletion_timestamp = Some(crate::clock::time(example::SINCE.parse().unwrap()));
    assert_eq!(hold(&mut quarantine, "2", "b"), None, "it held before");
    assert_eq!(hold(&mut quarantine, "4", "d").as_deref(), Some("4"));
    assert_eq!(hold(&mut quarantine, "5", "a").as_deref(), Some("4 5"), "what its predecessor left behind was to go");
    let_go(&mut quarantine.spec, &incident("4", "d"), End::LetGo);
    assert_eq!(hold(&mut quarantine, "6", "e").as_deref(), Some("5 6"), "of those that hold");
    quarantine.spec.holders = vec![left];
    assert_eq!(hold(&mut quarantine, "1", "a").as_deref(), Some("1"), "it was retained, and holds again");
}

#[test]
fn who_has_let_go_is_on_record_with_the_same_write_and_once() {
    let held = |uids: &[&str]| {
        let holders = uids.iter().map(|uid| example::holder(uid, uid, vec![])).collect();
        example::quarantine(example::user(), holders).spec
    };
    let mut spec = held(&["1", "2"]);
    let_go(&mut spec, &incident("1", "a"), End::LetGo);
    assert_eq!((spec.holders.len(), &spec.let_go_by), (1, &vec!["1".to_owned()]));
    spec.holders.push(example::holder("1", "a", vec![]));
    let_go(&mut spec, &incident("2", "b"), End::LetGo);
    let_go(&mut spec, &incident("1", "a"), End::LetGo);
    assert_eq!((spec.holders.len(), &spec.let_go_by), (0, &vec!["2".to_owned(), "1".to_owned()]), "once, and last");

    let mut retained = held(&["1"]);
    let_go(&mut retained, &incident("1", "a"), End::Retain);
    assert!(retained.let_go_by.is_empty() && retained.holders.len() == 1);
    for n in 0..=HOLDERS {
        let_go(&mut retained, &incident(&format!("u{n}"), "c"), End::LetGo);
    }
    assert_eq!((retained.let_go_by.len(), retained.let_go_by[0].as_str()), (HOLDERS, "u1"), "there is room for so many");
}
