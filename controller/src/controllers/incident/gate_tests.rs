use firebreak_crds::conditions::READY;
use firebreak_crds::{EvidenceAction, EvidenceSpec, EvidenceStatus, IncidentRef, Resource, SeverTrackedConnections};

use super::*;
use crate::conditions::Conditions;
use crate::containment::example::{self, end, isolate};
use crate::controllers::incident::approval::tests::{incident, target};

/// Snapshots that an Incident asked for.
fn snapshots(uid: &str, of: Resource, ready: Option<&str>) -> Evidence {
    let incident_ref = IncidentRef { uid: uid.into(), namespace: "security".into(), name: "inc".into() };
    let name = firebreak_crds::evidence_name("ebssnapshots", &of, uid);
    let spec = EvidenceSpec { incident_ref, resource: of, collect: EvidenceAction::default() };
    let mut evidence = Evidence::new(&name, spec);
    evidence.status = ready.map(|ready| {
        let mut c = Conditions::new(&[], None, example::SINCE.parse().unwrap());
        c.set(READY, ready, "R", "2 of 3 snapshots");
        EvidenceStatus { conditions: c.done(), ..EvidenceStatus::default() }
    });
    evidence
}

/// An instance of which the policy asks for this many kinds of evidence.
fn instance(evidence: usize) -> Target {
    let mut target = target(vec![isolate(SeverTrackedConnections::Auto)], None);
    let resolved = target.resolved.as_mut().unwrap();
    resolved.resource = example::instance();
    resolved.evidence = vec![EvidenceAction::default(); evidence];
    target
}

fn missing_of(target: &Target, known: &[Evidence]) -> Vec<String> {
    missing(&incident(), target.resolved.as_ref().unwrap(), &by_arn(known))
}

#[test]
fn evidence_is_complete_when_every_piece_of_the_resource_is() {
    let of = |uid, ready| snapshots(uid, example::instance(), ready);
    let same_through_another = || {
        let mut elsewhere = example::instance();
        elsewhere.account_ref.name = "twin".into();
        snapshots("2", elsewhere, Some("False"))
    };
    for (what, asked, known, open) in [
        ("asked for, not there", 1, vec![], 1),
        ("there, not looked at", 1, vec![of("1", None)], 1),
        ("under way", 1, vec![of("1", Some("False"))], 1),
        ("not known", 1, vec![of("1", Some("Unknown"))], 1),
        ("complete", 1, vec![of("1", Some("True"))], 0),
        ("another Incident's only", 1, vec![of("2", Some("True"))], 1),
        ("another Incident's is under way", 1, vec![of("1", Some("True")), of("2", Some("False"))], 1),
        ("the same instance, named otherwise", 1, vec![of("1", Some("True")), same_through_another()], 1),
        ("of another resource", 0, vec![snapshots("2", example::user(), Some("False"))], 0),
        ("none asked for", 0, vec![], 0),
        ("none asked for, another's is under way", 0, vec![of("2", None)], 1),
    ] {
        let missing = missing_of(&instance(asked), &known);
        assert_eq!(missing.len(), open, "{what}: {missing:?}");
    }
    let message = missing_of(&instance(1), &[of("1", Some("False"))]).pop().unwrap();
    assert!(message.ends_with("ebssnapshots-1: 2 of 3 snapshots"), "{message}");
}

#[test]
fn what_destroys_nothing_waits_for_no_evidence() {
    let mut target = instance(1);
    keep(&DESTRUCTIVE, &mut target, &[], |_| panic!("nothing here is destructive"));
    let resolved = target.resolved.unwrap();
    assert_eq!((resolved.actions.len(), resolved.waiting.len()), (1, 0));
}

#[test]
fn what_is_destructive_waits_while_anything_is_missing_unless_it_is_held() {
    let asked = || [end("stopInstance"), end("terminateInstance")];
    let held = asked();
    for (what, held, missing, goes, waits) in [
        ("nothing is missing", &[][..], vec![], 3, 0),
        ("evidence is missing", &[], vec!["snapshots: 2 of 3".to_owned()], 1, 1),
        ("held already", &held, vec!["snapshots: 2 of 3".to_owned()], 3, 0),
    ] {
        let mut target = instance(1);
        target.resolved.as_mut().unwrap().actions.extend(asked());
        keep(&DESTRUCTIVE, &mut target, held, |_| missing.clone());
        let Resolved { actions, waiting, .. } = target.resolved.unwrap();
        assert_eq!((actions.len(), waiting.len()), (goes, waits), "{what}");
        assert!(actions.contains(&isolate(SeverTrackedConnections::Auto)), "{what}");
        for waits in waiting {
            let expected = "stopInstance, terminateInstance waits until all evidence is complete: snapshots: 2 of 3";
            assert_eq!((waits.reason, waits.message.as_str()), (AWAITING_EVIDENCE, expected), "{what}");
        }
    }
}

#[test]
fn what_people_must_do_is_said_before_what_time_will_do() {
    let waits = |reason| {
        let mut target = instance(0);
        target.resolved.as_mut().unwrap().waiting.push(Refusal::new(reason, "why"));
        target
    };
    assert_eq!(first(&[instance(0)]), None);
    let told = first(&[waits(AWAITING_EVIDENCE), waits(approval::AWAITING)]).unwrap();
    assert_eq!((told.reason, told.message.as_str()), (approval::AWAITING, "instance i-1: why"));
    assert_eq!(first(&[waits(AWAITING_EVIDENCE)]).unwrap().reason, AWAITING_EVIDENCE);
}

#[test]
fn evidence_of_an_earlier_containment_lets_nothing_be_destroyed() {
    let target = instance(1);
    let resolved = target.resolved.as_ref().unwrap();
    let mut evidence = snapshots(&incident().metadata.uid.unwrap(), example::instance(), Some("True"));
    let at = |second| Timestamp::from_second(second).unwrap();
    let request = |second| firebreak_crds::Request {
        at: crate::clock::time(at(second)),
        outcome: firebreak_crds::RequestOutcome::Accepted,
        message: String::new(),
        description: String::new(),
    };
    for (taken, began, goes) in [
        (1000, Some(1000), true),
        (1000, Some(1030), true),
        (1000, Some(900), true),
        (1000, Some(5000), false),
        (1000, None, false),
    ] {
        evidence.status.as_mut().unwrap().request = Some(request(taken));
        let began = began.map(|second| Began { here: at(second), first: at(second) });
        let open = open(&incident(), resolved, began, &by_arn(std::slice::from_ref(&evidence)));
        assert_eq!(open.is_empty(), goes, "{taken} {began:?}: {open:?}");
    }
}

#[test]
fn the_time_of_another_cluster_counts_only_for_evidence_that_came_from_there() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut evidence = snapshots("u-1", example::instance(), Some("True"));
    for (made, here, first, covers) in [
        (Some(5001), 5000, 1000, true),  // imported, with its Quarantine
        (Some(1000), 5000, 1000, false), // somebody says that a later containment is older
        (None, 5000, 1000, false),
        (Some(5001), 5000, 2000, false), // imported, but of before that containment
    ] {
        evidence.metadata.creation_timestamp = made.map(|second| crate::clock::time(at(second)));
        let began = Began { here: at(here), first: at(first) };
        assert_eq!(began.covers(&evidence, at(1000)), covers, "{made:?} {began:?}");
    }
}

#[test]
fn an_imported_quarantine_says_both_times() {
    let mut quarantine = example::quarantine(example::instance(), vec![]);
    assert!(Began::of(&quarantine).is_none());
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    quarantine.metadata.creation_timestamp = Some(crate::clock::time(at("2026-03-02T12:00:00Z")));
    quarantine.metadata.annotations =
        Some([(firebreak_crds::CONTAINED_SINCE.to_owned(), "2026-03-01T12:00:00Z".to_owned())].into());
    let began = Began::of(&quarantine).unwrap();
    assert_eq!((began.here, began.first), (at("2026-03-02T12:00:00Z"), at("2026-03-01T12:00:00Z")));
}
