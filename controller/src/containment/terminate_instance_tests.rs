use super::super::ending::example::{self as ending, look, params, with};
use super::*;
use crate::aws::Membership;
use crate::containment::example::{self, end, protect};

fn case() -> Case {
    ending::case("terminateInstance")
}

fn ends() -> Vec<Call> {
    vec![Call::TerminateInstances { instance: "i-1".into() }]
}

#[test]
fn it_is_noted_and_ended_whether_it_runs_or_not() {
    for state in ["pending", "running", "stopping", "stopped"] {
        let plan = Terminate::contain(&case(), &params(false), &look(state));
        assert_eq!((plan.calls, &plan.record["terminateInstance"]), (ends(), &serde_json::json!({ "state": state })));
    }
    let ending = Terminate::contain(&case(), &params(false), &look("shutting-down"));
    assert!(ending.is_done() && ending.verdict.state == ActionState::InProgress, "it may have traffic: {ending:?}");
    let ended = Terminate::contain(&case(), &params(false), &look("terminated"));
    assert!(ended.calls.is_empty() && ended.verdict.state == ActionState::InForce, "{ended:?}");
    assert!(ended.verdict.message.contains("nothing brings it back"), "{ended:?}");
}

#[test]
fn what_was_only_retained_is_ended_by_nobody() {
    let mut case = case();
    case.holders.iter_mut().for_each(|h| h.state = firebreak_crds::HolderState::Retained);
    let plan = Terminate::contain(&case, &params(false), &look("running"));
    assert!(plan.is_done() && plan.verdict.message.contains("no Incident asks for it any more"), "{plan:?}");
}

#[test]
fn a_spot_request_that_outlives_the_instance_keeps_it() {
    let persistent = with(|l| {
        l.instance.as_mut().unwrap().spot = true;
        l.persistent = true;
    });
    let plan = Terminate::contain(&case(), &params(true), &persistent);
    assert!(plan.is_done() && plan.verdict.message.contains("cancel that request first"), "{plan:?}");
}

#[test]
fn anything_that_speaks_against_it_keeps_the_instance_and_is_said() {
    let contradicted = || {
        let mut case = case();
        case.holders.push(example::holder("2", "inc-2", vec![protect()]));
        case
    };
    let on_record = example::recorded(case(), "protectFromTermination/vol-1", &"");
    let member = Some(Membership { group: "web".into(), state: "InService".into(), protected: false });
    let in_group = with(|l| l.membership = member);
    let rooted = with(|l| l.instance.as_mut().unwrap().ebs_root = false);
    for (what, case, acknowledged, look, says) in [
        ("another holder keeps it", contradicted(), true, look("running"), "contradicts it"),
        ("another holder kept it", on_record, true, look("running"), "contradicts it"),
        ("in a group", case(), true, in_group, "in Auto Scaling group web"),
        ("instance store", case(), false, with(|l| l.store = Some(true)), "acknowledgeInstanceStoreLoss"),
        ("its root is instance store", case(), false, rooted.clone(), "its root is instance store"),
        ("protected", case(), true, with(|l| l.protected = Some(true)), "DisableApiTermination"),
    ] {
        let plan = Terminate::contain(&case, &params(acknowledged), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Failed, "{what}: {plan:?}");
        assert!(plan.verdict.message.contains(says), "{what}: {}", plan.verdict.message);
    }
    assert_eq!(Terminate::contain(&case(), &params(true), &rooted).calls, ends());
    let blind = Terminate::contain(&case(), &params(true), &with(|l| l.protected = None));
    assert!(blind.is_done() && blind.verdict.state == ActionState::InProgress, "{blind:?}");
}

/// Noted, but not ended when the controller died; then who asked for it let go.
#[test]
fn what_nobody_asks_for_any_more_is_not_carried_out() {
    let mut case = example::recorded(case(), Terminate::NAME, &Original { state: "running".into() });
    case.holders = vec![example::holder("2", "inc-2", vec![end("stopInstance")])];
    let plan = Terminate::contain(&case, &params(true), &look("running"));
    assert!(plan.is_done() && plan.verdict.message.contains("not terminated"), "{plan:?}");
}

#[test]
fn a_release_says_that_nothing_comes_back() {
    for (look, says) in [
        (look("terminated"), "nothing brings it back"),
        (Look::default(), "nothing brings it back"),
        (look("running"), "not terminated"),
    ] {
        let plan = Terminate::release(&case(), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{plan:?}");
        assert!(plan.verdict.message.contains(says), "{plan:?}");
    }
}
