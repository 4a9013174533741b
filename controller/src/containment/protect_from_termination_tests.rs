use super::*;
use crate::aws::AttachedVolume;
use crate::containment::example;

fn case() -> Case {
    example::case(example::instance())
}

/// Protected by nothing: a root volume that goes with it, and a data volume that stays.
fn unprotected() -> Look {
    let volume = |n: &str, delete_on_termination| AttachedVolume {
        id: format!("vol-{n}"),
        device: format!("/dev/sd{n}"),
        delete_on_termination,
    };
    let volumes = vec![volume("a", true), volume("b", false), volume("c", true)];
    let instance = Instance { id: "i-1".into(), state: "running".into(), ebs_root: true, volumes, ..Instance::default() };
    Look { instance: Some(instance), protection: Some(InstanceProtection::default()) }
}

fn with(change: impl FnOnce(&mut Instance)) -> Look {
    let mut look = unprotected();
    change(look.instance.as_mut().unwrap());
    look
}

fn set(attribute: InstanceAttribute, protect: bool) -> Call {
    Call::ModifyInstanceAttribute { instance: "i-1".into(), attribute, protect }
}

fn devices(names: &[&str]) -> InstanceAttribute {
    InstanceAttribute::DeleteOnTermination(names.iter().map(|n| (*n).to_owned()).collect())
}

/// What `calls` leave behind.
fn after(mut look: Look, calls: &[Call]) -> Look {
    calls.iter().for_each(|call| Protection::after(&mut look, call, &Outcome::Done));
    look
}

/// Contained from that on, as recorded.
fn contained(before: &Look) -> (Case, Look) {
    let plan = Protection::contain(&case(), &Empty {}, before);
    let case = plan.record.iter().fold(case(), |case, (key, value)| example::recorded(case, key, value));
    (case, after(before.clone(), &plan.calls))
}

use InstanceAttribute::{DisableApiStop, DisableApiTermination, InstanceInitiatedShutdownBehavior};

#[test]
fn each_attribute_has_a_call_of_its_own_and_the_volumes_share_one() {
    let plan = Protection::contain(&case(), &Empty {}, &unprotected());
    let expected =
        [DisableApiStop, DisableApiTermination, InstanceInitiatedShutdownBehavior, devices(&["/dev/sda", "/dev/sdc"])];
    assert_eq!(plan.calls, expected.map(|attribute| set(attribute, true)));
    let keys: Vec<&str> = plan.record.keys().map(|k| k.split_once('/').unwrap().1).collect();
    assert_eq!(keys, [STOP, TERMINATION, SHUTDOWN, "vol-a", "vol-b", "vol-c"], "also what is as it should be");
    assert_eq!(plan.record["protectFromTermination/vol-b"], serde_json::json!({ "protected": true }));
    assert_eq!(plan.verdict.state, ActionState::InProgress);
}

#[test]
fn it_is_in_force_when_all_of_it_is() {
    let (case, look) = contained(&unprotected());
    let plan = Protection::contain(&case, &Empty {}, &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
    assert_eq!(plan.verdict.message, "3 of 3 attributes protect it; 3 of 3 volumes outlive it");
}

#[test]
fn what_an_instance_cannot_have_is_not_asked_for_and_said() {
    let group = |i: &mut Instance| drop(i.tags.insert("aws:autoscaling:groupName".into(), "web".into()));
    for (what, look, asked, says) in [
        ("spot", with(|i| i.spot = true), vec![InstanceInitiatedShutdownBehavior], "a Spot instance has no"),
        ("instance store", with(|i| i.ebs_root = false), vec![DisableApiTermination], "a shutdown from within ends it"),
        (
            "auto scaling",
            with(group),
            vec![DisableApiStop, DisableApiTermination, InstanceInitiatedShutdownBehavior],
            "Auto Scaling group web can",
        ),
    ] {
        let plan = Protection::contain(&case(), &Empty {}, &look);
        let volumes = devices(&["/dev/sda", "/dev/sdc"]);
        let expected: Vec<Call> = asked.into_iter().chain([volumes]).map(|attribute| set(attribute, true)).collect();
        assert_eq!(plan.calls, expected, "{what}");
        assert!(plan.verdict.message.contains(says), "{what}: {}", plan.verdict.message);
        let (case, look) = contained(&look);
        assert_eq!(Protection::contain(&case, &Empty {}, &look).verdict.state, ActionState::InForce, "{what}");
    }
}

#[test]
fn a_release_gives_back_exactly_what_was_there() {
    let before = unprotected();
    let (case, look) = contained(&before);
    let plan = Protection::release(&case, &look);
    assert!(plan.calls.iter().all(Call::widens), "{:?}", plan.calls);
    let released = after(look, &plan.calls);
    assert_eq!((&released.protection, &released.instance), (&before.protection, &before.instance));
    let plan = Protection::release(&case, &released);
    assert!(plan.is_done() && plan.verdict.state == ActionState::Released);
}

#[test]
fn a_protection_from_before_that_somebody_took_away_is_a_conflict() {
    let mut before = unprotected();
    before.protection.as_mut().unwrap().disable_api_termination = true;
    let (case, mut look) = contained(&before);
    look.protection.as_mut().unwrap().disable_api_termination = false;
    let asked = |decision| Protection::release(&Case { decision, ..case.clone() }, &look);
    let plan = asked(None);
    assert_eq!(plan.verdict.state, ActionState::Conflict);
    assert!(plan.verdict.message.contains("disableApiTermination: was protected before"), "{}", plan.verdict.message);
    assert_eq!(plan.calls.len(), 3, "what is in no conflict is given back");
    assert!(!asked(Some(OnConflict::KeepTheirs)).calls.contains(&set(DisableApiTermination, true)));
    assert!(asked(Some(OnConflict::RestoreOriginal)).calls.contains(&set(DisableApiTermination, true)));
}

#[test]
fn stop_protection_is_left_to_what_stops_the_instance() {
    let (mut case, look) = contained(&unprotected());
    case.holders = vec![example::holder("1", "inc-1", vec![example::protect(), example::end("stopInstance")])];
    let mut unlifted = look.clone();
    unlifted.protection.as_mut().unwrap().disable_api_stop = false;
    let plan = Protection::contain(&case, &Empty {}, &unlifted);
    assert_eq!(plan.calls, [set(DisableApiStop, true)], "a stop that is refused must not leave it open");
    let lifted = example::recorded(case.clone(), LIFTED, &serde_json::json!({ "protected": false }));
    let stopped = |look: &Look| {
        let mut look = look.clone();
        look.instance.as_mut().unwrap().state = "stopped".into();
        look
    };
    for (case, look) in
        [(&lifted, look.clone()), (&lifted, unlifted.clone()), (&case, stopped(&look)), (&case, stopped(&unlifted))]
    {
        let plan = Protection::contain(case, &Empty {}, &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
        assert!(plan.verdict.drift.is_empty() && plan.verdict.message.contains("no stop protection"), "{plan:?}");
    }
    let gives_back = |case: &Case, look| Protection::release(case, look).calls.contains(&set(DisableApiStop, false));
    assert!(gives_back(&case, &look), "nothing was lifted");
    let case = example::recorded(case, LIFTED, &serde_json::json!({ "protected": false }));
    assert!(!gives_back(&case, &look), "stopInstance gives it back");
    assert_eq!(stop_was_protected(&case), Some(false));
}

#[test]
fn a_volume_that_is_gone_holds_no_release_up() {
    let (case, mut look) = contained(&unprotected());
    look.instance.as_mut().unwrap().volumes.remove(0);
    let plan = Protection::release(&case, &look);
    let look = after(look, &plan.calls);
    let plan = Protection::release(&case, &look);
    assert_eq!(
        (plan.verdict.state, plan.verdict.message.as_str()),
        (ActionState::Released, "vol-a: is not attached any more")
    );
}

#[test]
fn what_carried_our_marks_before_is_protected_and_not_recorded() {
    let look = with(|i| drop(i.tags.insert("firebreak.dev/incident".into(), "security/old".into())));
    let plan = Protection::contain(&case(), &Empty {}, &look);
    assert!(plan.verdict.unknown && plan.calls.len() == 4);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["protectFromTermination/unknown"]);
    let case = example::recorded(case(), "protectFromTermination/unknown", &"now");
    let plan = Protection::release(&case, &look);
    assert!(plan.verdict.state == ActionState::Conflict && plan.calls.is_empty());
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    assert_eq!(Protection::release(&kept, &look).verdict.state, ActionState::Released);
}

#[test]
fn with_the_record_full_a_new_volume_is_kept_all_the_same() {
    let (mut case, mut look) = contained(&unprotected());
    case.original.extend((0..RECORDS).map(|n| (format!("isolateNetwork/eni-{n}"), "{}".to_owned())));
    let new = AttachedVolume { id: "vol-z".into(), device: "/dev/sdz".into(), delete_on_termination: true };
    look.instance.as_mut().unwrap().volumes.push(new);
    let plan = Protection::contain(&case, &Empty {}, &look);
    assert_eq!(plan.calls, [set(devices(&["/dev/sdz"]), true)]);
    assert!(plan.verdict.unknown);
}

#[test]
fn an_instance_that_is_gone_has_nothing_to_protect_or_to_give_back() {
    let (case, contained) = contained(&unprotected());
    for (instance, state, released) in [
        (None, ActionState::Failed, ActionState::Conflict),
        (Some("terminated"), ActionState::InForce, ActionState::Released),
    ] {
        let mut look = contained.clone();
        look.instance = instance.map(|s| Instance { state: s.into(), ..contained.instance.clone().unwrap() });
        let plan = Protection::contain(&case, &Empty {}, &look);
        assert!(plan.calls.is_empty() && plan.verdict.state == state, "{}", plan.verdict.message);
        assert_eq!(Protection::release(&case, &look).verdict.state, released);
    }
    let blind = Look { protection: None, ..contained };
    assert_eq!(Protection::contain(&case, &Empty {}, &blind).verdict.state, ActionState::InProgress);
    assert_eq!(Protection::release(&case, &blind).verdict.state, ActionState::InProgress);
}
