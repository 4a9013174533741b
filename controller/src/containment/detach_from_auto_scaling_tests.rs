use DetachMode::{Detach, Standby};
use firebreak_crds::ReleasePolicy;
use std::collections::BTreeMap;

use super::*;
use crate::containment::example;

const GROUP: &str = "web";

fn params(mode: DetachMode) -> DetachFromAutoScaling {
    DetachFromAutoScaling { mode }
}

fn case() -> Case {
    example::case(example::instance())
}

/// It was in service, not protected.
fn recorded() -> Case {
    original("InService", false)
}

fn original(state: &str, protected: bool) -> Case {
    let original = Original { group: Some(GROUP.into()), state: state.into(), protected };
    example::recorded(case(), AutoScaling::NAME, &original)
}

fn rejoining(mut case: Case) -> Case {
    case.release = ReleasePolicy { rejoin_auto_scaling: true, ..ReleasePolicy::default() };
    case
}

fn look(state: Option<&str>) -> Look {
    let instance = Some(Instance { id: "i-1".into(), state: "running".into(), ..Instance::default() });
    let membership = state.map(|state| Membership { group: GROUP.into(), state: state.into(), protected: false });
    Look { instance, membership, group: Some(ScalingGroup { desired: 1, max: 2, ..ScalingGroup::default() }) }
}

fn protected(mut look: Look) -> Look {
    look.membership.as_mut().unwrap().protected = true;
    look
}

fn operations(plan: &Plan) -> Vec<&'static str> {
    plan.calls.iter().map(Call::operation).collect()
}

#[test]
fn the_group_is_recorded_and_left_and_nothing_waits_for_the_protection() {
    for (mode, leaves) in [(Detach, "autoscaling:DetachInstances"), (Standby, "autoscaling:EnterStandby")] {
        let plan = AutoScaling::contain(&case(), &params(mode), &look(Some("InService")));
        assert_eq!(operations(&plan), ["autoscaling:SetInstanceProtection", leaves]);
        let expected = serde_json::json!({ "group": GROUP, "state": "InService", "protected": false });
        assert_eq!(plan.record[AutoScaling::NAME], expected);
        assert_eq!(plan.verdict.state, ActionState::InProgress);
    }
}

#[test]
fn each_lifecycle_state_has_its_own_answer() {
    for (state, mode, verdict, calls, says) in [
        ("InService", Detach, ActionState::InProgress, 2, "InService in Auto Scaling group web"),
        ("Warmed:Stopped", Detach, ActionState::InProgress, 1, "Warmed:Stopped"),
        ("Pending:Wait", Detach, ActionState::InProgress, 0, "only what is in service"),
        ("Detaching", Detach, ActionState::InForce, 0, "then lets it go"),
        ("Standby", Standby, ActionState::InForce, 1, "not protected from scale-in: an instance refresh may end it"),
        ("EnteringStandby", Standby, ActionState::InForce, 1, "EnteringStandby"),
        ("Standby", Detach, ActionState::InForce, 1, "AWS detaches only what is in service"),
        ("Terminating:Wait", Detach, ActionState::Failed, 0, "nothing here stops that"),
        ("Warmed:Terminating", Standby, ActionState::Failed, 0, "nothing here stops that"),
    ] {
        let plan = AutoScaling::contain(&recorded(), &params(mode), &look(Some(state)));
        assert_eq!((plan.verdict.state, plan.calls.len()), (verdict, calls), "{state}");
        assert!(plan.verdict.message.contains(says), "{state}: {}", plan.verdict.message);
    }
}

#[test]
fn an_instance_in_no_group_is_contained_and_a_later_group_is_drift_and_not_its_own() {
    let plan = AutoScaling::contain(&case(), &params(Detach), &look(None));
    assert_eq!(plan.record[AutoScaling::NAME]["group"], serde_json::Value::Null);
    assert_eq!((plan.verdict.state, plan.verdict.message.as_str()), (ActionState::InForce, "in no Auto Scaling group"));
    let case = example::recorded(case(), AutoScaling::NAME, &Original::default());
    let plan = AutoScaling::contain(&case, &params(Detach), &look(Some("InService")));
    assert!(plan.record.is_empty() && plan.calls.len() == 2, "{plan:?}");
    assert_eq!(plan.verdict.drift, ["it was InService in Auto Scaling group web"]);
    assert!(AutoScaling::release(&rejoining(case), &look(None)).is_done());
}

#[test]
fn a_refused_protection_is_no_failure_but_is_said() {
    let call = Call::SetInstanceProtection { group: GROUP.into(), instance: "i-1".into(), protect: true };
    assert!(call.optional() && !call.widens());
    let off = Call::SetInstanceProtection { group: GROUP.into(), instance: "i-1".into(), protect: false };
    assert!(off.widens() && !off.optional());
    let held = protected(look(Some("Standby")));
    let plan = AutoScaling::contain(&recorded(), &params(Standby), &held);
    assert!(plan.is_done() && !plan.verdict.message.contains("not protected"), "{plan:?}");
}

#[test]
fn an_instance_that_was_contained_before_this_record_began_has_an_unknown_group() {
    let marks = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    for state in [None, Some("Standby"), Some("InService")] {
        let mut look = look(state);
        look.instance.as_mut().unwrap().tags.clone_from(&marks);
        let plan = AutoScaling::contain(&case(), &params(Detach), &look);
        assert!(plan.verdict.unknown, "{state:?}");
        assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["detachFromAutoScaling/unknown"], "{state:?}");
    }
    let unknown = example::recorded(case(), "detachFromAutoScaling/unknown", &"now");
    assert_eq!(AutoScaling::release(&unknown, &look(None)).verdict.state, ActionState::Released);
    let asked = AutoScaling::release(&rejoining(unknown), &look(None));
    assert_eq!(asked.verdict.state, ActionState::Conflict);
}

#[test]
fn a_release_leaves_it_out_and_says_so_unless_the_policy_says_otherwise() {
    for (state, says) in [(None, "it stays out of web"), (Some("Standby"), "it stays in Standby in Auto Scaling group web")]
    {
        let plan = AutoScaling::release(&recorded(), &look(state));
        assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{plan:?}");
        let message = &plan.verdict.message;
        assert!(message.contains(says) && message.contains("release.rejoinAutoScaling"), "{message}");
    }
}

#[test]
fn a_release_that_rejoins_says_that_the_desired_capacity_grows_and_restores_the_protection() {
    for (state, call) in [(None, "autoscaling:AttachInstances"), (Some("Standby"), "autoscaling:ExitStandby")] {
        let plan = AutoScaling::release(&rejoining(recorded()), &look(state));
        assert_eq!(operations(&plan), [call]);
        assert!(plan.calls[0].widens() && plan.calls[0].to_string().contains("grows by one"), "{}", plan.calls[0]);
        assert!(plan.verdict.message.contains("grows by one, to 2"), "{}", plan.verdict.message);
    }
    for (was, now, call) in [(false, true, Some(false)), (true, false, Some(true)), (true, true, None)] {
        let mut look = look(Some("InService"));
        look.membership.as_mut().unwrap().protected = now;
        let plan = AutoScaling::release(&rejoining(original("InService", was)), &look);
        let expected = call.map(protect_call).into_iter().collect::<Vec<_>>();
        assert_eq!(plan.calls, expected);
        assert_eq!(plan.is_done(), plan.verdict.state == ActionState::Released);
    }
    for was in [true, false] {
        let waits = AutoScaling::release(&rejoining(original("InService", was)), &look(Some("Pending")));
        assert!(waits.is_done() && waits.verdict.state == ActionState::InProgress, "not in service yet: {waits:?}");
    }
}

#[test]
fn only_a_running_instance_rejoins() {
    let plan = |state: &str, decision| {
        let instance = Some(Instance { id: "i-1".into(), state: state.into(), ..Instance::default() });
        AutoScaling::release(&Case { decision, ..rejoining(recorded()) }, &Look { instance, ..look(None) })
    };
    let stopped = plan("stopped", None);
    assert!(stopped.is_done() && stopped.verdict.state == ActionState::Conflict, "{stopped:?}");
    assert!(stopped.verdict.message.contains("takes only a running one"), "{}", stopped.verdict.message);
    assert_eq!(plan("stopped", Some(OnConflict::KeepTheirs)).verdict.state, ActionState::Released);
    let starting = plan("pending", None);
    assert!(starting.is_done() && starting.verdict.state == ActionState::InProgress, "{starting:?}");
}

fn protect_call(protect: bool) -> Call {
    Call::SetInstanceProtection { group: GROUP.into(), instance: "i-1".into(), protect }
}

#[test]
fn a_group_without_room_is_a_conflict_that_says_why() {
    for state in [None, Some("Standby")] {
        let look = Look { group: Some(ScalingGroup { desired: 2, max: 2, ..ScalingGroup::default() }), ..look(state) };
        let plan = AutoScaling::release(&rejoining(recorded()), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Conflict, "{plan:?}");
        let message = &plan.verdict.message;
        assert!(message.contains("past its MaxSize of 2") && message.contains("KeepTheirs"), "{message}");
        let decided = Case { decision: Some(OnConflict::KeepTheirs), ..rejoining(recorded()) };
        assert_eq!(AutoScaling::release(&decided, &look).verdict.state, ActionState::Released);
    }
}

#[test]
fn what_cannot_be_rejoined_is_said() {
    let deleting = Some(ScalingGroup { deleting: true, ..ScalingGroup::default() });
    let ended = Look { instance: Some(Instance { state: "terminated".into(), ..Instance::default() }), ..look(None) };
    for (case, look, says) in [
        (recorded(), Look { group: None, ..look(None) }, "no longer exists"),
        (recorded(), Look { group: deleting, ..look(None) }, "no longer exists"),
        (original("Standby", false), look(None), "before, it was Standby"),
        (original("Warmed:Stopped", false), look(None), "before, it was Warmed:Stopped"),
        (example::recorded(recorded(), "instance/ended", &case().now), ended, "the instance no longer exists"),
        (
            example::recorded(recorded(), "instance/ended", &case().now),
            Look { instance: None, ..look(None) },
            "the instance no longer exists",
        ),
    ] {
        let plan = AutoScaling::release(&rejoining(case), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{plan:?}");
        assert!(plan.verdict.message.contains(says), "{}", plan.verdict.message);
    }
}

#[test]
fn another_group_is_a_conflict_that_a_person_decides() {
    let mut look = look(Some("InService"));
    look.membership.as_mut().unwrap().group = "theirs".into();
    let in_none = example::recorded(case(), AutoScaling::NAME, &Original::default());
    for case in [recorded(), in_none] {
        let plan = AutoScaling::release(&case, &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Conflict, "{plan:?}");
        let keep = Case { decision: Some(OnConflict::KeepTheirs), ..case.clone() };
        assert_eq!(AutoScaling::release(&keep, &look).verdict.state, ActionState::Released);
        let restore = Case { decision: Some(OnConflict::RestoreOriginal), ..case };
        assert_eq!(operations(&AutoScaling::release(&restore, &look)), ["autoscaling:DetachInstances"]);
    }
}

#[test]
fn a_terminated_instance_is_contained_and_one_that_is_not_shown_is_not() {
    let ended = Look { instance: Some(Instance { state: "terminated".into(), ..Instance::default() }), ..look(None) };
    assert_eq!(AutoScaling::contain(&case(), &params(Detach), &ended).verdict.state, ActionState::InForce);
    let unseen = Look { instance: None, ..look(None) };
    assert_eq!(AutoScaling::contain(&case(), &params(Detach), &unseen).verdict.state, ActionState::Failed);
}

#[test]
fn detach_is_the_stricter() {
    assert_eq!(params(Detach).merge(&params(Standby)), params(Detach));
    assert_eq!(params(Standby).merge(&params(Detach)), params(Detach));
    assert_eq!(params(Standby).merge(&params(Standby)), params(Standby));
}
