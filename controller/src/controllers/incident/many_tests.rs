//! The status of an Incident with thousands of targets.

use firebreak_crds::{ActionState, NameRef, Resource};

use super::tests::{found, in_state, incident, now, quarantine, says, world};
use super::*;
use crate::clock;
use crate::containment::example::{self, isolate};

/// So many instances that a selector chose and the Incident holds; every 500th is not contained.
fn thousands(count: usize) -> (Vec<Target>, World, Notes) {
    let (mut targets, mut quarantines, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        let resource = Resource { id: format!("i-{n:017x}"), ..example::instance() };
        let holder = example::holder("1", "inc-1", vec![isolate(firebreak_crds::SeverTrackedConnections::Auto)]);
        let (said, state) = match n % 500 {
            0 => (("False", "AccessDenied"), ActionState::Failed),
            1 => (("False", "Containing"), ActionState::InProgress),
            _ => (("True", "Enforced"), ActionState::InForce),
        };
        selected.push(resource.id.clone());
        quarantines.push(quarantine(resource.clone(), vec![holder], said, vec![in_state("isolateNetwork", state)]));
        targets.push(found(resource));
    }
    let record = firebreak_crds::SelectorStatus {
        key: "0".repeat(20),
        selector: "instances in eu-west-1 with the tag team=web".into(),
        account_ref: NameRef { name: "prod".into() },
        region: "eu-west-1".into(),
        resolved_at: clock::time(now()),
        rebuilt_at: None,
        instances: selected,
        awaiting_approval: vec![],
        joined: vec![],
    };
    (targets, world(quarantines), Notes { selectors: vec![record], ..Notes::default() })
}

#[test]
fn a_status_of_5000_targets_is_small_and_names_those_that_need_somebody() {
    let (targets, world, notes) = thousands(5000);
    let status = status(&incident(Mode::Contain), &targets, &notes, &world, now());
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!((100_000..160_000).contains(&size), "{size} bytes");
    assert_eq!((status.contained.as_deref(), status.targets.len()), (Some("4980/5000"), 100));
    let reasons: Vec<&str> = status.targets.iter().map(|t| t.reason.as_str()).collect();
    assert!(reasons[..10].iter().all(|r| *r == "AccessDenied") && reasons[10..20].iter().all(|r| *r == "Containing"));
    assert_eq!((reasons[20], says(&status, STALLED).as_str()), ("Enforced", "True AccessDenied"));
    let message = &get_condition(&status.conditions, CONTAINED).unwrap().message;
    assert!(message.starts_with("4980 of 5000 targets contained. ") && message.contains("and 15 more"), "{message}");
}

#[test]
fn a_status_of_thousands_is_the_same_again_where_nothing_changed() {
    let (targets, world, notes) = thousands(1500);
    let mut incident = incident(Mode::Contain);
    let first = status(&incident, &targets, &notes, &world, now());
    incident.status = Some(first.clone());
    let later = now() + std::time::Duration::from_mins(5);
    assert_eq!(status(&incident, &targets, &notes, &world, later), first);
}

#[test]
fn a_release_of_thousands_is_over_when_the_last_is_given_back() {
    let (targets, mut world, notes) = thousands(300);
    let mut incident = incident(Mode::Contain);
    incident.status = Some(status(&incident, &targets, &notes, &world, now()));
    incident.spec.mode = Mode::Release;
    let last = world.quarantines.pop_last().unwrap();
    let mut releasing = (*last.1).clone();
    releasing.spec.holders.clear();
    world.quarantines = BTreeMap::from([(last.0, Arc::new(releasing))]);
    let under_way = status(&incident, &targets, &notes, &world, now());
    assert_eq!(
        (says(&under_way, RELEASED).as_str(), under_way.targets[0].reason.as_str()),
        ("False Releasing", "Releasing")
    );
    world.quarantines.clear();
    assert_eq!(says(&status(&incident, &targets, &notes, &world, now()), RELEASED), "True Released");
}
