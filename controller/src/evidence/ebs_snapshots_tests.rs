use firebreak_crds::{EvidenceAction, EvidenceSpec, IncidentRef};

use super::*;
use crate::containment::example;

fn now() -> Timestamp {
    example::SINCE.parse().unwrap()
}

fn evidence() -> Evidence {
    let incident_ref = IncidentRef { uid: "u-1".into(), namespace: "security".into(), name: "inc-1".into() };
    let spec = EvidenceSpec { incident_ref, resource: example::instance(), collect: EvidenceAction::default() };
    let mut evidence = Evidence::new("e", spec);
    evidence.metadata.uid = Some("e-1".into());
    evidence
}

fn asked(outcome: RequestOutcome) -> Request {
    Request { at: clock::time(now()), outcome, message: String::new(), description: String::new() }
}

fn seen(state: &str) -> Snapshot {
    Snapshot { id: "snap-1".into(), volume: "vol-1".into(), state: state.into(), ..Snapshot::default() }
}

#[test]
fn what_was_asked_decides_what_comes_next() {
    for (request, expected) in [
        (None, Next::Send),
        (Some(asked(RequestOutcome::Refused)), Next::Send),
        (Some(asked(RequestOutcome::Unknown)), Next::Find),
        (Some(asked(RequestOutcome::Accepted)), Next::Follow),
    ] {
        assert_eq!(next(&EvidenceStatus { request: request.clone(), ..EvidenceStatus::default() }), expected, "{request:?}");
    }
}

#[test]
fn a_request_of_unknown_outcome_is_repeated_after_a_minute() {
    let request = asked(RequestOutcome::Unknown);
    for (seconds, lost) in [(0, false), (59, false), (60, true), (3600, true)] {
        assert_eq!(is_lost(&request, now() + Duration::from_secs(seconds)), lost, "{seconds} s");
    }
    assert!(!is_lost(&request, now() - Duration::from_hours(1)), "a clock that goes back repeats nothing");
}

#[test]
fn they_are_found_by_what_was_asked_though_another_object_has_taken_the_record_over() {
    let mut evidence = evidence();
    assert_eq!(description(&evidence), "firebreak evidence e-1");
    let asked = Request { description: "firebreak evidence e-0".into(), ..asked(RequestOutcome::Unknown) };
    evidence.status.get_or_insert_default().request = Some(asked);
    assert_eq!(description(&evidence), "firebreak evidence e-0");
    assert_eq!(new_description(&evidence), "firebreak evidence e-1", "what is asked for anew is of this object");
}

#[test]
fn the_uid_is_in_the_description_and_in_the_tags_of_one_call_for_all_volumes() {
    let Call::CreateSnapshots { instance, description, tags } = request(&evidence()) else { panic!() };
    assert_eq!((instance.as_str(), description.as_str()), ("i-1", "firebreak evidence e-1"));
    assert_eq!(tags["firebreak.dev/evidence"], "e-1");
    assert_eq!(tags["firebreak.dev/incident"], "security/inc-1");
    assert!(!request(&evidence()).idempotent());
}

#[test]
fn the_time_of_completion_is_that_of_the_first_look_that_showed_it() {
    let pending = volume(&seen(""), None, now());
    assert_eq!((pending.state.as_str(), &pending.completed_at), ("pending", &None));
    let complete = volume(&seen("completed"), Some(&pending), now());
    assert_eq!(complete.completed_at, Some(clock::time(now())));
    let later = volume(&seen("completed"), Some(&complete), now() + Duration::from_mins(1));
    assert_eq!(later, complete, "a later look changes nothing");
}

#[test]
fn a_snapshot_that_vanishes_after_it_was_complete_is_missing() {
    let pending = volume(&seen("pending"), None, now());
    assert_eq!(unseen(&pending), pending, "AWS shows new ones late");
    let complete = volume(&seen("completed"), None, now());
    assert_eq!(unseen(&complete).state, "missing");
    assert_eq!(
        volume(&seen("completed"), Some(&unseen(&complete)), now()),
        complete,
        "and it is back when it is seen again"
    );
}

#[test]
fn evidence_is_complete_when_every_volume_is_and_there_is_one() {
    let of = |states: &[&str]| states.iter().map(|s| volume(&seen(s), None, now())).collect::<Vec<_>>();
    for (states, shown, whole) in [
        (&[][..], "0/0", false),
        (&["completed"], "1/1", true),
        (&["completed", "pending"], "1/2", false),
        (&["completed", "error"], "1/2", false),
        (&["completed", "completed"], "2/2", true),
    ] {
        assert_eq!((progress(&of(states)).as_str(), complete(&of(states))), (shown, whole), "{states:?}");
    }
}

#[test]
fn the_digest_shows_any_later_change_of_the_record() {
    let record = vec![volume(&seen("completed"), None, now())];
    let mut forged = record.clone();
    forged[0].snapshot_id = "snap-2".into();
    assert_eq!(digest(&record), digest(&record.clone()));
    assert_ne!(digest(&record), digest(&forged));
    assert_eq!(digest(&record).len(), 64);
}
