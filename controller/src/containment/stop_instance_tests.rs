use std::collections::BTreeMap;

use super::super::ending::example::{self as ending, look, params, with};
use super::*;
use crate::aws::Membership;
use crate::containment::example::{self, protect};

fn case() -> Case {
    ending::case("stopInstance")
}

/// It was so when it was first looked at.
fn recorded(state: &str) -> Case {
    example::recorded(case(), Stop::NAME, &Original { state: state.into() })
}

fn in_group(state: &str) -> Look {
    let member = Membership { group: "web".into(), state: state.into(), protected: false };
    with(|l| l.membership = Some(member))
}

fn stops() -> Vec<Call> {
    vec![Call::StopInstances { instance: "i-1".into() }]
}

fn lifts() -> Vec<Call> {
    vec![Call::LiftStopProtection { instance: "i-1".into() }]
}

fn protects(protect: bool) -> Vec<Call> {
    let attribute = InstanceAttribute::DisableApiStop;
    vec![Call::ModifyInstanceAttribute { instance: "i-1".into(), attribute, protect }]
}

/// What the plan records, and what its calls do.
fn done(case: Case, mut look: Look, plan: &Plan) -> (Case, Look) {
    plan.calls.iter().for_each(|call| Stop::after(&mut look, call, &Outcome::Done));
    (plan.record.iter().fold(case, |case, (key, value)| example::recorded(case, key, value)), look)
}

#[test]
fn it_is_recorded_and_stopped_and_in_force_once_it_is_seen_stopped() {
    let plan = Stop::contain(&case(), &params(false), &look("running"));
    assert_eq!((&plan.calls, &plan.record["stopInstance"]), (&stops(), &serde_json::json!({ "state": "running" })));
    assert!(plan.verdict.drift.is_empty() && plan.verdict.state == ActionState::InProgress, "{plan:?}");
    let (case, look) = done(case(), look("running"), &plan);
    let plan = Stop::contain(&case, &params(false), &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InProgress, "stopping is not stopped: {plan:?}");
    let plan = Stop::contain(&case, &params(false), &self::look("stopped"));
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
}

#[test]
fn who_is_started_again_is_stopped_again_as_soon_as_it_runs() {
    let starting = Stop::contain(&recorded("running"), &params(false), &look("pending"));
    assert!(starting.calls.is_empty() && starting.verdict.state == ActionState::InProgress, "{starting:?}");
    let plan = Stop::contain(&recorded("running"), &params(false), &look("running"));
    assert_eq!((plan.calls, plan.verdict.drift), (stops(), vec!["it was running".to_owned()]));
}

#[test]
fn what_must_not_or_cannot_be_stopped_is_left_and_the_reason_said() {
    let detaches = || {
        let mut case = recorded("running");
        let detach = serde_json::from_value(serde_json::json!({ "detachFromAutoScaling": {} })).unwrap();
        case.holders.push(example::holder("2", "inc-2", vec![detach]));
        case
    };
    let spot = |persistent| {
        with(|l| {
            l.instance.as_mut().unwrap().spot = true;
            l.persistent = persistent;
        })
    };
    let store = |store| with(|l| l.store = store);
    let rooted = || with(|l| l.instance.as_mut().unwrap().ebs_root = false);
    let (failed, waits) = (ActionState::Failed, ActionState::InProgress);
    for (what, case, acknowledged, look, state, says) in [
        ("in a group", recorded("running"), true, in_group("InService"), failed, "would end or replace it"),
        ("standing by", detaches(), true, in_group("Standby"), failed, "Standby in Auto Scaling group web"),
        ("taken out next", detaches(), true, in_group("InService"), failed, "not done before detachFromAutoScaling is"),
        ("on its way out", recorded("running"), true, in_group("Detaching"), waits, "it waits: Detaching in Auto"),
        ("instance store", recorded("running"), false, store(Some(true)), failed, "acknowledgeInstanceStoreLoss: true"),
        ("perhaps instance store", recorded("running"), false, store(None), failed, "is not shown"),
        ("its root is instance store", recorded("running"), true, rooted(), failed, "AWS cannot stop it"),
        ("spot, once", recorded("running"), true, spot(false), failed, "without a persistent request"),
        ("not known to be unprotected", recorded("running"), true, with(|l| l.protected = None), waits, "AWS does not show"),
    ] {
        let plan = Stop::contain(&case, &params(acknowledged), &look);
        assert!(plan.is_done() && plan.verdict.state == state, "{what}: {plan:?}");
        assert!(plan.verdict.message.contains(says), "{what}: {}", plan.verdict.message);
    }
    for (what, acknowledged, look) in [
        ("a persistent request", false, spot(true)),
        ("acknowledged", true, store(Some(true))),
        ("acknowledged, not shown", true, store(None)),
    ] {
        assert_eq!(Stop::contain(&recorded("running"), &params(acknowledged), &look).calls, stops(), "{what}");
    }
    let trusted = Look { trusted: true, ..in_group("InService") };
    assert_eq!(Stop::contain(&detaches(), &params(false), &trusted).calls, stops(), "a dry run shows what comes after");
    assert!(Stop::contain(&recorded("running"), &params(false), &trusted).calls.is_empty(), "nobody takes it out");
}

#[test]
fn stop_protection_goes_first_and_comes_back_as_it_was_before_anything_of_ours() {
    for (what, protected_before, original) in [("the owner's", None, true), ("ours", Some(false), false)] {
        let mut case = recorded("running");
        if let Some(protected) = protected_before {
            case.holders.push(example::holder("2", "inc-2", vec![protect()]));
            case = example::recorded(case, "protectFromTermination/disableApiStop", &Protected { protected });
        }
        let look = with(|l| l.protected = Some(true));
        let plan = Stop::contain(&case, &params(false), &look);
        assert_eq!((&plan.calls, &plan.record[LIFTED]), (&lifts(), &serde_json::json!({ "protected": original })), "{what}");
        assert!(!plan.calls[0].widens());
        let (case, look) = done(case, look, &plan);
        assert_eq!(Stop::contain(&case, &params(false), &look).calls, stops(), "{what}");
        let running = |protected| with(|l| l.protected = Some(protected));
        let back = Stop::release(&case, &running(!original));
        assert_eq!((back.calls, back.verdict.state), (protects(original), ActionState::InProgress), "{what}");
        let back = Stop::release(&case, &running(original));
        assert!(back.is_done() && back.verdict.state == ActionState::Released, "{what}: {back:?}");
        let unseen = Stop::release(&case, &with(|l| l.protected = None));
        assert!(unseen.is_done() && unseen.verdict.state == ActionState::InProgress, "{what}: {unseen:?}");
    }
}

#[test]
fn a_release_starts_only_what_ran() {
    let starts = vec![Call::StartInstances { instance: "i-1".into() }];
    for (before, now, calls, state) in [
        ("running", "stopped", starts.clone(), ActionState::InProgress),
        ("pending", "stopped", starts, ActionState::InProgress),
        ("running", "stopping", vec![], ActionState::InProgress),
        ("running", "pending", vec![], ActionState::InProgress),
        ("running", "running", vec![], ActionState::Released),
        ("running", "shutting-down", vec![], ActionState::Released),
        ("stopped", "stopped", vec![], ActionState::Released),
        ("stopped", "running", vec![], ActionState::Conflict),
        ("stopped", "terminated", vec![], ActionState::Released),
    ] {
        let plan = Stop::release(&recorded(before), &look(now));
        assert!(plan.calls.iter().all(Call::widens));
        assert_eq!((plan.calls, plan.verdict.state), (calls, state), "{before}, now {now}");
    }
    let nothing = Look::default();
    assert_eq!(Stop::release(&recorded("running"), &nothing).verdict.state, ActionState::Conflict, "never seen to end");
    let seen = example::recorded(recorded("running"), "instance/ended", &"2026-03-01T13:00:00Z");
    assert_eq!(Stop::release(&seen, &nothing).verdict.state, ActionState::Released);
}

#[test]
fn what_somebody_started_that_did_not_run_before_is_for_a_person_to_decide() {
    let decided = |decision, look: &Look| Stop::release(&Case { decision, ..recorded("stopped") }, look);
    let running = look("running");
    assert_eq!(decided(Some(OnConflict::KeepTheirs), &running).verdict.state, ActionState::Released);
    assert_eq!(decided(Some(OnConflict::RestoreOriginal), &running).calls, stops());
    let plan = decided(Some(OnConflict::RestoreOriginal), &in_group("InService"));
    assert!(plan.is_done() && plan.verdict.state == ActionState::Conflict, "{plan:?}");
}

#[test]
fn what_carried_our_marks_before_is_stopped_and_not_recorded() {
    let mark = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let marked = with(|l| l.instance.as_mut().unwrap().tags = mark);
    let plan = Stop::contain(&case(), &params(false), &marked);
    assert!(plan.verdict.unknown && plan.calls == stops(), "{plan:?}");
    let (case, _) = done(case(), marked, &plan);
    assert_eq!(case.original.keys().collect::<Vec<_>>(), ["stopInstance/unknown"]);
    assert_eq!(Stop::release(&case, &look("stopped")).verdict.state, ActionState::Conflict);
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    assert_eq!(Stop::release(&kept, &look("stopped")).verdict.state, ActionState::Released);
}

#[test]
fn an_instance_that_is_gone_is_contained_and_gives_nothing_back() {
    let plan = Stop::contain(&recorded("running"), &params(false), &look("terminated"));
    assert!(plan.calls.is_empty() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    let forgotten = example::recorded(recorded("running"), "instance/ended", &"now");
    for (case, state) in [(forgotten, ActionState::InForce), (recorded("running"), ActionState::Failed)] {
        assert_eq!(Stop::contain(&case, &params(false), &Look::default()).verdict.state, state);
    }
}

#[test]
fn an_instance_that_aws_cannot_start_holds_no_release_up_once_a_person_says_so() {
    let case = example::recorded(case(), Stop::NAME, &Original { state: "running".into() });
    assert_eq!(Stop::release(&case, &look("stopped")).calls.len(), 1);
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    let plan = Stop::release(&kept, &look("stopped"));
    assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{plan:?}");
}
