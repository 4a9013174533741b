use firebreak_crds::{Holder, HolderState, OnConflict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::aws::AwsError;
use crate::containment::{LedgerError, Verdict, example};

fn at(second: u64) -> Timestamp {
    example::SINCE.parse::<Timestamp>().unwrap() + Duration::from_secs(second)
}

fn held() -> Quarantine {
    let actions = vec![example::deny_all(), example::keys_off()];
    example::quarantine(example::user(), vec![example::holder("1", "inc-1", actions)])
}

fn report(name: &'static str, state: ActionState) -> Report {
    let verdict = Verdict { state, message: format!("{name} says"), ..Verdict::default() };
    Report { seen: true, under_way: false, verdict, ..Report::under_way(name, "") }
}

fn failing(class: Class) -> Report {
    let error = AwsError { class, operation: "iam:PutUserPolicy".into(), code: "Code".into(), message: "m".into() };
    Report { error: Some(error), ..report("denyAll", ActionState::Failed) }
}

fn drifting(state: ActionState, wrote: bool) -> Report {
    let mut report = Report { wrote, open: true, ..report("denyAll", state) };
    report.verdict.drift = vec!["it was detached".into()];
    report
}

fn seen(reports: Vec<Report>) -> Seen {
    Seen { interval: Duration::from_secs(30), reports, ..Seen::default() }
}

fn in_force() -> Seen {
    seen(vec![report("denyAll", ActionState::InForce), report("deactivateAccessKeys", ActionState::InForce)])
}

/// The Quarantine after that was seen.
fn after(quarantine: &Quarantine, seen: &Seen, now: Timestamp) -> Quarantine {
    Quarantine { status: Some(status(quarantine, seen, now)), ..quarantine.clone() }
}

fn condition<'a>(quarantine: &'a Quarantine, kind: &str) -> Option<&'a Condition> {
    get_condition(&quarantine.status.as_ref().unwrap().conditions, kind)
}

/// Status and reason.
fn says(quarantine: &Quarantine, kind: &str) -> String {
    condition(quarantine, kind).map_or_else(|| "absent".into(), |c| format!("{} {}", c.status, c.reason))
}

#[test]
fn containment_is_enforcing_for_a_minute_and_then_enforced() {
    let mut quarantine = after(&held(), &in_force(), at(0));
    for (second, contained) in [(0, "True Enforcing"), (59, "True Enforcing"), (60, "True Enforced"), (90, "True Enforced")]
    {
        quarantine = after(&quarantine, &in_force(), at(second));
        assert_eq!(says(&quarantine, CONTAINED), contained, "{second} s");
        assert_eq!(says(&quarantine, READY), contained, "{second} s");
    }
    assert_eq!((says(&quarantine, STALLED), says(&quarantine, RECONCILING)), ("absent".into(), "absent".into()));
}

#[test]
fn a_settled_world_gets_the_same_status_again() {
    let first = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    assert_eq!(after(&first, &in_force(), at(90)).status, first.status);
}

#[test]
fn one_action_that_is_missing_is_no_containment() {
    for (state, reason) in [(ActionState::InProgress, "False Containing"), (ActionState::Failed, "False NotContained")] {
        let mixed = seen(vec![report("denyAll", ActionState::InForce), report("deactivateAccessKeys", state)]);
        let quarantine = after(&held(), &mixed, at(0));
        assert_eq!(says(&quarantine, CONTAINED), reason);
        assert_eq!(quarantine.status.unwrap().in_force_since, None);
    }
}

#[test]
fn more_that_is_asked_for_is_not_contained_before_every_action_was_looked_at() {
    let mut quarantine = after(&held(), &in_force(), at(0));
    quarantine.spec.holders.push(example::holder("2", "inc-2", vec![example::keys_off()]));
    let asked = Some(holds_digest(&quarantine.spec.holders));
    let error = failing(Class::Transient).error.unwrap();
    let half = seen(vec![report("denyAll", ActionState::InForce), Report::unseen("deactivateAccessKeys", error)]);
    let unseen = after(&quarantine, &half, at(70));
    assert_eq!(says(&unseen, CONTAINED), "False AwsUnreachable", "its InForce is of the time before");
    assert_ne!(unseen.status.as_ref().unwrap().observed_holds, asked);
    let looked = after(&unseen, &in_force(), at(75));
    assert_eq!(says(&looked, CONTAINED), "True Enforcing");
    assert_eq!(looked.status.unwrap().observed_holds, asked);
}

#[test]
fn what_is_undone_again_and_again_is_contested_and_not_called_contained() {
    let mut quarantine = after(&held(), &in_force(), at(0));
    let undone = seen(vec![drifting(ActionState::InForce, true), report("deactivateAccessKeys", ActionState::InForce)]);
    for second in [60, 120, 180, 240] {
        quarantine = after(&quarantine, &undone, at(second));
        assert_eq!(says(&quarantine, CONTAINED), "True Enforcing", "{second}");
    }
    quarantine = after(&quarantine, &undone, at(300));
    assert_eq!(
        (says(&quarantine, CONTAINED), says(&quarantine, STALLED)),
        ("False Contested".into(), "True Contested".into())
    );
    let said = &condition(&quarantine, CONTAINED).unwrap().message;
    assert!(said.contains("put back each time: the last time it was detached") && said.contains("CloudTrail"), "{said}");
    quarantine = after(&quarantine, &undone, at(320));
    assert_eq!(quarantine.status.as_ref().unwrap().drift_count, 6, "it is put back all the same");
    let quiet = after(&quarantine, &in_force(), at(719));
    assert_eq!(says(&quiet, CONTAINED), "False Contested", "five within ten minutes");
    let over = after(&quiet, &in_force(), at(721));
    assert_eq!((says(&over, CONTAINED), says(&over, STALLED)), ("True Enforcing".into(), "absent".into()));
}

#[test]
fn an_attacker_who_is_quick_or_changes_something_else_each_time_is_counted_too() {
    let mut quarantine = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    for second in 61..=65 {
        let mut undone = drifting(ActionState::InForce, true);
        undone.verdict.drift = vec![format!("key {second} was on")];
        let lagging = Seen { lags: true, ..seen(vec![undone, report("deactivateAccessKeys", ActionState::InForce)]) };
        quarantine = after(&quarantine, &lagging, at(second));
        assert_ne!(says(&quarantine, CONTAINED), "True Enforced", "the minute begins anew");
    }
    assert_eq!(says(&quarantine, CONTAINED), "False Contested");
    assert_eq!(quarantine.status.unwrap().drift_count, 0, "what may be AWS's lag is not told as drift");
}

#[test]
fn what_a_look_showed_open_is_not_in_force_though_no_later_look_is_answered() {
    let quarantine = after(&held(), &in_force(), at(0));
    let error = failing(Class::Transient).error;
    let unseen = |open| Report { seen: false, open, error: error.clone(), ..report("denyAll", ActionState::InProgress) };
    for (open, contained) in [(true, "False AwsUnreachable"), (false, "True Enforcing")] {
        let looked = seen(vec![unseen(open), report("deactivateAccessKeys", ActionState::InForce)]);
        assert_eq!(says(&after(&quarantine, &looked, at(30)), CONTAINED), contained, "open: {open}");
    }
}

#[test]
fn what_never_went_out_of_force_is_no_contest() {
    let mut quarantine = after(&held(), &in_force(), at(0));
    for second in 1..=10 {
        let rung = Report { open: false, ..drifting(ActionState::InForce, true) };
        quarantine = after(&quarantine, &seen(vec![rung]), at(second));
    }
    assert_eq!(says(&quarantine, CONTAINED), "True Enforcing");
    assert_eq!(quarantine.status.unwrap().drift_count, 10, "but drift");
}

#[test]
fn what_takes_two_passes_to_put_back_is_counted_when_it_is_seen() {
    let mut quarantine = after(&held(), &in_force(), at(0));
    for minute in 1..=5 {
        quarantine = after(&quarantine, &seen(vec![drifting(ActionState::InProgress, false)]), at(minute * 60));
        quarantine = after(&quarantine, &in_force(), at(minute * 60 + 1));
    }
    assert_eq!(says(&quarantine, CONTAINED), "False Contested");
}

#[test]
fn what_is_new_and_cannot_be_recorded_is_not_called_contained() {
    let before = after(&held(), &in_force(), at(0));
    for ledger in [LedgerError::Refused("no".into()), LedgerError::TooLong("denyAll".into())] {
        let unrecorded = Report { seen: false, ledger: Some(ledger), ..report("denyAll", ActionState::InProgress) };
        let unrecorded = seen(vec![unrecorded, report("deactivateAccessKeys", ActionState::InForce)]);
        assert_eq!(says(&after(&before, &unrecorded, at(10)), CONTAINED), "False NotRecorded");
    }
}

#[test]
fn the_mark_counts_for_nothing() {
    let mark = |state| report(TAG_RESOURCE, state);
    let mut with = in_force();
    with.reports.push(mark(ActionState::Failed));
    assert_eq!(says(&after(&held(), &with, at(0)), READY), "True Enforcing");
    assert_eq!(says(&after(&held(), &seen(vec![mark(ActionState::InForce)]), at(0)), CONTAINED), "False NothingToDo");
}

#[test]
fn a_dead_end_is_stalled_and_what_time_will_mend_is_reconciling() {
    let unknown = {
        let mut report = report("denyAll", ActionState::InForce);
        report.verdict.unknown = true;
        report
    };
    let pruned = Report { seen: false, ledger: Some(LedgerError::Pruned("spec.original".into())), ..failing(Class::Denied) };
    for (what, report, ready, stalled) in [
        ("denied", failing(Class::Denied), "False AccessDenied", true),
        ("refused", failing(Class::Terminal), "False AwsRefused", true),
        ("throttled", failing(Class::Transient), "False AwsUnreachable", false),
        ("not leading", failing(Class::Fenced), "False NotLeading", false),
        ("under way", report("denyAll", ActionState::InProgress), "False Containing", false),
        ("a dead end of the planner", report("denyAll", ActionState::Failed), "False NotContained", true),
        ("an unknown original", unknown, "False OriginalUnknown", true),
        ("an old CRD", pruned, "False NotRecorded", true),
    ] {
        let quarantine = after(&held(), &seen(vec![report]), at(0));
        assert_eq!(says(&quarantine, READY), ready, "{what}");
        assert_eq!(condition(&quarantine, STALLED).is_some(), stalled, "{what}");
        assert_eq!(condition(&quarantine, RECONCILING).is_some(), !stalled, "{what}");
    }
}

#[test]
fn what_a_person_must_end_comes_before_what_time_will_mend() {
    let other = report("deactivateAccessKeys", ActionState::Failed);
    let quarantine = after(&held(), &seen(vec![failing(Class::Transient), other]), at(0));
    assert_eq!(says(&quarantine, STALLED), "True NotContained");
    assert!(condition(&quarantine, STALLED).unwrap().message.contains("iam:PutUserPolicy"), "both are told");
}

#[test]
fn drift_that_was_put_back_is_told_counted_and_starts_the_minute_anew() {
    let quarantine = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    let repaired = after(&quarantine, &seen(vec![drifting(ActionState::InForce, true)]), at(90));
    assert_eq!(says(&repaired, DRIFT_DETECTED), "True Repaired");
    assert_eq!(condition(&repaired, DRIFT_DETECTED).unwrap().message, "put back: it was detached");
    assert_eq!((says(&repaired, CONTAINED), says(&repaired, READY)), ("True Enforcing".into(), "True Enforcing".into()));
    assert_eq!(repaired.status.as_ref().unwrap().drift_count, 1);
    let soon = after(&repaired, &in_force(), at(100));
    assert_eq!(says(&soon, DRIFT_DETECTED), "True Repaired", "for a minute");
    assert_eq!(says(&after(&soon, &in_force(), at(150)), DRIFT_DETECTED), "False NoDrift");
}

#[test]
fn not_everything_that_differs_is_drift() {
    let settled = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    let drift = || vec![drifting(ActionState::InForce, true)];
    for (what, quarantine, seen) in [
        ("the first cut", held(), seen(drift())),
        ("AWS's lag", settled.clone(), Seen { lags: true, ..seen(drift()) }),
        ("a release", settled.clone(), Seen { releasing: true, ..seen(drift()) }),
        ("a second deny that AWS never took", settled.clone(), seen(vec![drifting(ActionState::InForce, false)])),
    ] {
        let next = after(&quarantine, &seen, at(90));
        assert_eq!((says(&next, DRIFT_DETECTED), next.status.unwrap().drift_count), ("absent".into(), 0), "{what}");
    }
}

#[test]
fn drift_that_could_not_be_put_back_is_no_containment() {
    let settled = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    let failed = Report { error: failing(Class::Denied).error, ..drifting(ActionState::Failed, false) };
    let next = after(&settled, &seen(vec![failed]), at(90));
    assert_eq!(
        (says(&next, CONTAINED), says(&next, DRIFT_DETECTED)),
        ("False AccessDenied".into(), "True NotRepaired".into())
    );
    let unrecorded =
        Report { seen: false, ledger: Some(LedgerError::Refused("no".into())), ..drifting(ActionState::InProgress, false) };
    assert_eq!(says(&after(&settled, &seen(vec![unrecorded]), at(90)), CONTAINED), "False NotRecorded");
}

#[test]
fn an_action_that_cannot_be_looked_at_stands_where_it_stood_for_three_intervals() {
    let settled = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    let blind = |unseen_for| {
        let report = Report { seen: false, ..failing(Class::Transient) };
        let keys = Report { name: "deactivateAccessKeys", ..report.clone() };
        Seen { unseen_for: Duration::from_secs(unseen_for), ..seen(vec![report, keys]) }
    };
    let soon = after(&settled, &blind(90), at(150));
    assert_eq!((says(&soon, CONTAINED), says(&soon, READY)), ("True Enforced".into(), "False AwsUnreachable".into()));
    let late = after(&settled, &blind(91), at(151));
    assert_eq!(says(&late, CONTAINED), "Unknown NotObserved");
}

#[test]
fn a_release_ends_when_every_action_is_read_back_given_back() {
    let releasing = |reports| Seen { releasing: true, ..seen(reports) };
    let done = || report("denyAll", ActionState::Released);
    let unseen = Report { seen: false, ..done() };
    let failed = Report { error: failing(Class::Denied).error, ..done() };
    for (what, reports, released, ready) in [
        ("given back", vec![done()], "True Released", "False Released"),
        (
            "under way",
            vec![done(), report("deactivateAccessKeys", ActionState::InProgress)],
            "False Releasing",
            "False Releasing",
        ),
        ("in conflict", vec![report("denyAll", ActionState::Conflict)], "False Releasing", "False ReleaseConflict"),
        ("not read back", vec![unseen], "False Releasing", "False Releasing"),
        ("with an error", vec![failed], "False Releasing", "False AccessDenied"),
    ] {
        let seen = releasing(reports);
        let quarantine = after(&held(), &seen, at(0));
        assert_eq!((says(&quarantine, RELEASED).as_str(), says(&quarantine, READY).as_str()), (released, ready), "{what}");
        assert_eq!(seen.released(), released == "True Released", "{what}");
        assert_ne!(condition(&quarantine, CONTAINED).unwrap().status, "True", "{what}");
    }
}

#[test]
fn a_deleted_quarantine_that_is_held_says_who_holds_it() {
    let mut quarantine = held();
    quarantine.metadata.deletion_timestamp = Some(clock::time(at(0)));
    quarantine.spec.holders.push(Holder { state: HolderState::Retained, ..example::holder("2", "inc-2", vec![]) });
    let next = after(&quarantine, &in_force(), at(0));
    assert_eq!((says(&next, STALLED), says(&next, CONTAINED)), ("True DeletionBlocked".into(), "True Enforcing".into()));
    let message = &condition(&next, READY).unwrap().message;
    assert!(message.contains("security/inc-1") && !message.contains("inc-2"), "{message}");
    quarantine.spec.holders.remove(0);
    let next = after(&quarantine, &in_force(), at(0));
    assert!(condition(&next, READY).unwrap().message.contains("firebreak.dev/abandon"), "nobody holds: its CRD goes");
    quarantine.metadata.annotations = Some([(firebreak_crds::HELD_AGAIN.to_owned(), "2".to_owned())].into());
    let message = condition(&after(&quarantine, &in_force(), at(0)), READY).unwrap().message.clone();
    assert!(message.contains("security/inc-2") && message.contains("mode: Release"), "{message}");
}

#[test]
fn suspended_is_said_and_hides_nothing() {
    let mut quarantine = held();
    quarantine.spec.suspend = true;
    let next = after(&quarantine, &Seen { suspended: true, ..in_force() }, at(0));
    assert_eq!((says(&next, READY), says(&next, CONTAINED)), ("True Suspended".into(), "True Enforcing".into()));
    assert!(condition(&next, CONTAINED).unwrap().message.ends_with(SUSPENDED));
    let open = Seen { suspended: true, ..seen(vec![report("denyAll", ActionState::InProgress)]) };
    let next = after(&quarantine, &open, at(0));
    assert_eq!((says(&next, READY), says(&next, CONTAINED)), ("False Suspended".into(), "False Suspended".into()));
    assert_eq!(says(&next, STALLED), "True Suspended", "only a person ends it");
}

#[test]
fn what_only_a_deleted_incident_holds_is_said_to_be_retained() {
    let mut quarantine = held();
    let said = |q: &Quarantine| condition(&after(q, &in_force(), at(0)), CONTAINED).unwrap().message.clone();
    quarantine.spec.holders.iter_mut().for_each(|h| h.state = HolderState::Retained);
    assert!(said(&quarantine).contains("retained: Incident security/inc-1 was deleted"), "{}", said(&quarantine));
    quarantine.spec.holders[0].state = HolderState::Holding;
    assert!(!said(&quarantine).contains("retained"), "{}", said(&quarantine));
}

#[test]
fn what_somebody_undoes_while_suspended_is_told_and_not_called_repaired() {
    let mut settled = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    settled.spec.suspend = true;
    let undone = Seen { suspended: true, ..seen(vec![drifting(ActionState::InProgress, false)]) };
    let next = after(&settled, &undone, at(90));
    assert_eq!(says(&next, DRIFT_DETECTED), "True NotRepaired");
    assert_eq!(says(&next, CONTAINED), "False Suspended");
}

#[test]
fn actions_that_say_the_same_say_it_once() {
    let failed = |name| Report {
        verdict: Verdict { message: "no user".into(), ..report(name, ActionState::Failed).verdict },
        ..report(name, ActionState::Failed)
    };
    let quarantine = after(&held(), &seen(vec![failed("denyAll"), failed("deactivateAccessKeys")]), at(0));
    assert_eq!(condition(&quarantine, READY).unwrap().message, "denyAll, deactivateAccessKeys: no user");
}

#[test]
fn the_status_names_the_generation_and_answers_a_request() {
    let mut quarantine = held();
    quarantine.metadata.generation = Some(7);
    quarantine.spec.release =
        Some(firebreak_crds::ReleaseDecision { on_conflict: Some(OnConflict::KeepTheirs), original: None });
    let asked = [(firebreak_crds::RECONCILE_REQUESTED.to_owned(), "now".to_owned())];
    quarantine.metadata.annotations = Some(asked.into());
    let status = status(&quarantine, &in_force(), at(0));
    assert_eq!((status.observed_generation, status.last_handled_reconcile_at.as_deref()), (Some(7), Some("now")));
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(7)));
}

#[test]
fn an_action_keeps_the_time_since_when_it_stands_where_it_stands() {
    let quarantine = after(&after(&held(), &in_force(), at(0)), &in_force(), at(60));
    let action = |q: &Quarantine| q.status.as_ref().unwrap().actions[0].clone();
    assert_eq!(action(&quarantine).since, clock::time(at(0)));
    let failed = after(&quarantine, &seen(vec![failing(Class::Denied)]), at(90));
    assert_eq!((action(&failed).since, action(&failed).state), (clock::time(at(90)), ActionState::Failed));
    assert_eq!(failed.status.unwrap().actions.len(), 2, "what this pass did not touch stays listed");
}

#[test]
fn what_the_copy_was_made_of_is_kept_once_the_mark_is_in_force() {
    let copy = |digest: &str| CopySeen { digest: Some(digest.into()), refused: None };
    let with = |mark, digest| Seen { copy: copy(digest), ..seen(vec![report("denyAll", ActionState::InForce), mark]) };
    let mark = |state| report(TAG_RESOURCE, state);
    let observed = |q: &Quarantine| q.status.as_ref().unwrap().observed_copy.clone().unwrap_or_default();
    let failed = after(&held(), &with(mark(ActionState::Failed), "a"), at(0));
    assert_eq!(observed(&failed), "");
    let copied = after(&failed, &with(mark(ActionState::InForce), "a"), at(1));
    assert_eq!(observed(&copied), "a");
    let grown = Seen { copy: copy("b"), ..in_force() };
    assert_eq!(observed(&after(&copied, &grown, at(2))), "a", "the copy is still of what was");
}

#[test]
fn an_original_that_cannot_be_read_is_a_dead_end_that_names_its_field() {
    let mut quarantine = held();
    let original = Some([("denyAll".to_owned(), firebreak_crds::Text("{".into()))].into());
    quarantine.spec.release = Some(firebreak_crds::ReleaseDecision { on_conflict: None, original });
    let next = after(&quarantine, &in_force(), at(0));
    assert_eq!((says(&next, STALLED), says(&next, CONTAINED)), ("True InvalidOriginal".into(), "True Enforcing".into()));
    let message = &condition(&next, STALLED).unwrap().message;
    assert!(message.starts_with(r#"spec.release.original["denyAll"]: "#), "{message}");
}

#[test]
fn an_unknown_original_says_why_the_copy_was_not_believed_and_what_a_person_can_do() {
    let mut quarantine = held();
    quarantine.spec.original = Some([("denyAll/unknown".to_owned(), firebreak_crds::Text("0".into()))].into());
    let mut lost = report("denyAll", ActionState::InForce);
    lost.verdict.unknown = true;
    let copy = CopySeen { digest: None, refused: Some("its MAC is wrong".into()) };
    let next = after(&quarantine, &Seen { copy, ..seen(vec![lost]) }, at(0));
    let message = &condition(&next, STALLED).unwrap().message;
    assert!(message.contains("its MAC is wrong") && message.contains("spec.release.original"), "{message}");
}

#[test]
fn an_adopted_original_says_where_it_is_from() {
    let mut quarantine = held();
    let adopted = r#"{"since":"2026-03-01T12:00:00Z","incidents":["security/inc-1"],"actions":["denyAll"]}"#;
    quarantine.spec.original = Some([("copy/adopted".to_owned(), firebreak_crds::Text(adopted.into()))].into());
    let next = after(&quarantine, &in_force(), at(0));
    let message = &condition(&next, CONTAINED).unwrap().message;
    assert!(message.contains("adopted from its tags") && message.contains("security/inc-1"), "{message}");
}

#[test]
fn whose_name_another_user_has_is_not_called_contained_by_that_name() {
    let seen = Seen { renamed: Some("eve".into()), impostor: Some("AIDA2".into()), ..in_force() };
    let status = status(&held(), &seen, at(0));
    let contained = get_condition(&status.conditions, CONTAINED).unwrap();
    assert_eq!((contained.status.as_str(), contained.reason.as_str()), ("False", "NameTaken"));
    assert!(contained.message.contains("AIDA2"), "{}", contained.message);
    assert!(is_true(&status.conditions, STALLED));
}

#[test]
fn a_user_that_was_renamed_is_told_under_both_names() {
    let seen = Seen { renamed: Some("eve".into()), ..in_force() };
    let quarantine = Quarantine { status: Some(status(&held(), &seen, at(0))), ..held() };
    for kind in [CONTAINED, READY] {
        let message = &condition(&quarantine, kind).unwrap().message;
        assert!(message.contains("user mallory was renamed: it is eve now"), "{kind}: {message}");
    }
}
