use std::collections::BTreeMap;

use super::*;
use crate::containment::example;

const WEB: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/0123456789abcdef";
const API: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/api/fedcba9876543210";

fn registration(id: &str, port: i32) -> Registration {
    Registration { id: id.into(), port: Some(port), ..Registration::default() }
}

fn target(id: &str, port: i32) -> Target {
    Target { registration: registration(id, port), registered: true, ..Target::default() }
}

fn draining(id: &str, port: i32) -> Target {
    Target { registered: false, draining: true, ..target(id, port) }
}

fn group(arn: &str, targets: Vec<Target>) -> TargetGroup {
    TargetGroup { arn: arn.into(), targets, drains_for: Some(300) }
}

fn classic(there: bool) -> ClassicBalancer {
    ClassicBalancer { name: "old".into(), instances: there.then(|| "i-1".to_owned()).into_iter().collect() }
}

fn look(groups: Vec<TargetGroup>, classic: Vec<ClassicBalancer>) -> Look {
    let instance = Some(Instance { id: "i-1".into(), state: "running".into(), ..Instance::default() });
    Look { instance, addresses: vec!["10.0.0.1".into()], groups, classic }
}

fn everywhere() -> Look {
    let web = group(WEB, vec![target("i-1", 80), target("i-1", 8080)]);
    look(vec![web, group(API, vec![target("10.0.0.1", 443)])], vec![classic(true)])
}

fn case() -> Case {
    example::case(example::instance())
}

fn noted(mut case: Case, plan: &Plan) -> Case {
    for (key, value) in &plan.record {
        case = example::recorded(case, key, value);
    }
    case
}

fn after(look: &Look, plan: &Plan) -> Look {
    let mut look = look.clone();
    plan.calls.iter().for_each(|call| LoadBalancers::after(&mut look, call, &Outcome::Done));
    look
}

/// Contained from everywhere, and the record of it.
fn contained() -> (Case, Look) {
    let plan = LoadBalancers::contain(&case(), &Empty {}, &everywhere());
    (noted(case(), &plan), after(&everywhere(), &plan))
}

fn operations(plan: &Plan) -> Vec<&'static str> {
    plan.calls.iter().map(Call::operation).collect()
}

#[test]
fn every_registration_is_recorded_and_goes_side_by_side() {
    let plan = LoadBalancers::contain(&case(), &Empty {}, &everywhere());
    assert_eq!(
        operations(&plan),
        [
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
        ]
    );
    assert_eq!(plan.record.len(), 4, "three places, and that they are all: {:?}", plan.record);
    let expected = serde_json::json!({ "targets": [{ "id": "i-1", "port": 80 }, { "id": "i-1", "port": 8080 }] });
    assert_eq!(plan.record[&key(WEB)], expected);
    assert!(plan.calls.iter().all(|c| !c.widens()));
}

#[test]
fn it_is_in_force_while_load_balancers_drain_and_says_which() {
    let (case, look) = contained();
    let plan = LoadBalancers::contain(&case, &Empty {}, &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    let message = &plan.verdict.message;
    for words in ["out of", "web", "api", "old", "Draining: web until 2", "api until 2"] {
        assert!(message.contains(words), "no {words}: {message}");
    }
}

#[test]
fn what_is_registered_later_goes_and_is_drift_and_does_not_come_back() {
    let (case, mut look) = contained();
    look.groups[0].targets = vec![target("i-1", 22)];
    let plan = LoadBalancers::contain(&case, &Empty {}, &look);
    let goes = Call::DeregisterTargets { group: WEB.into(), targets: vec![registration("i-1", 22)] };
    assert_eq!(plan.calls, [goes]);
    assert!(plan.record.is_empty(), "{:?}", plan.record);
    assert_eq!(plan.verdict.drift, ["i-1:22 was registered with web"]);
    let back = LoadBalancers::release(&case, &after(&look, &plan));
    let ports = |c: &Call| match c {
        Call::RegisterTargets { targets, .. } => targets.iter().filter_map(|t| t.port).collect(),
        _ => vec![],
    };
    assert_eq!(back.calls.iter().flat_map(ports).collect::<Vec<_>>(), [443, 80, 8080]);
}

#[test]
fn an_instance_registered_nowhere_is_contained() {
    let look = look(vec![group(WEB, vec![])], vec![classic(false)]);
    let plan = LoadBalancers::contain(&case(), &Empty {}, &look);
    assert!(plan.calls.is_empty() && plan.record.len() == 1, "{plan:?}");
    assert_eq!(plan.verdict.message, "registered with no load balancer");
}

#[test]
fn what_drains_was_registered_only_if_our_own_detachment_began_it() {
    let look = look(vec![group(WEB, vec![draining("i-1", 80)])], vec![]);
    let plan = LoadBalancers::contain(&case(), &Empty {}, &look);
    assert!(!plan.record.contains_key(&key(WEB)), "somebody took it out before");
    let scaling = |group: Option<&str>| {
        let place = serde_json::json!({ "group": group, "state": "InService", "protected": false });
        LoadBalancers::contain(&example::recorded(case(), "detachFromAutoScaling", &place), &Empty {}, &look)
    };
    assert!(!scaling(None).record.contains_key(&key(WEB)), "nothing of ours began it");
    let plan = scaling(Some("web"));
    assert!(plan.record.contains_key(&key(WEB)) && plan.calls.is_empty(), "{plan:?}");
}

#[test]
fn a_release_registers_what_is_missing_where_it_was() {
    let (case, look) = contained();
    let plan = LoadBalancers::release(&case, &look);
    assert_eq!(plan.calls.len(), 3);
    assert!(plan.calls.iter().all(Call::widens));
    let back = after(&look, &plan);
    let before = everywhere();
    let targets = |l: &Look| l.groups.iter().map(registered).collect::<Vec<_>>();
    assert_eq!((targets(&back), &back.classic), (targets(&before), &before.classic));
    let done = LoadBalancers::release(&case, &back);
    assert!(done.is_done() && done.verdict.state == ActionState::Released, "{done:?}");
    assert!(done.verdict.message.contains("registered again with web"), "{}", done.verdict.message);
}

#[test]
fn a_target_group_takes_only_a_running_instance() {
    let (case, look) = contained();
    let decided = |state: &str, decision| {
        let instance = Some(Instance { state: state.into(), ..look.instance.clone().unwrap() });
        LoadBalancers::release(&Case { decision, ..case.clone() }, &Look { instance, ..look.clone() })
    };
    let calls_of = |plan: &Plan| plan.calls.len();
    let stopped = decided("stopped", None);
    assert_eq!(calls_of(&stopped), 2, "an address and a classic load balancer take it in any state");
    assert!(stopped.verdict.message.contains("it is stopped, and web takes only a running instance"));
    let rest = |decision| {
        let mut look = after(&look, &stopped);
        look.instance.as_mut().unwrap().state = "stopped".into();
        LoadBalancers::release(&Case { decision, ..case.clone() }, &look).verdict.state
    };
    assert_eq!((rest(None), rest(Some(OnConflict::KeepTheirs))), (ActionState::Conflict, ActionState::Released));
    assert_eq!(decided("pending", None).verdict.state, ActionState::InProgress);
}

#[test]
fn what_cannot_come_back_is_said() {
    let (case, mut look) = contained();
    look.groups.retain(|g| g.arn != WEB);
    look.classic.clear();
    look.addresses = vec!["10.0.0.9".into()];
    let plan = LoadBalancers::release(&case, &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::Released, "{plan:?}");
    let message = &plan.verdict.message;
    for words in [
        "target group web no longer exists",
        "classic load balancer old no longer exists",
        "10.0.0.1 is the instance's address no longer",
    ] {
        assert!(message.contains(words), "no {words}: {message}");
    }
    let ended = Look { instance: Some(Instance { state: "terminated".into(), ..Instance::default() }), ..look };
    assert_eq!(LoadBalancers::release(&case, &ended).verdict.message, "the instance no longer exists");
    assert_eq!(LoadBalancers::contain(&case, &Empty {}, &ended).verdict.state, ActionState::InForce);
}

#[test]
fn more_than_the_record_holds_is_left_all_the_same_and_a_person_decides() {
    let groups = (0..=RECORDS).map(|n| group(&format!("{WEB}{n}"), vec![target("i-1", 80)])).collect();
    let many = look(groups, vec![]);
    let ports = look(vec![group(WEB, (0..=64).map(|port| target("i-1", port)).collect())], vec![]);
    for look in [many, ports] {
        let plan = LoadBalancers::contain(&case(), &Empty {}, &look);
        assert!(plan.verdict.unknown && plan.calls.len() == look.groups.len(), "{plan:?}");
        assert!(plan.record.len() <= RECORDS + 2);
        let (case, look) = (noted(case(), &plan), after(&look, &plan));
        let back = LoadBalancers::release(&case, &look);
        assert!(!back.calls.is_empty() && back.verdict.state == ActionState::InProgress);
        let look = after(&look, &back);
        assert_eq!(LoadBalancers::release(&case, &look).verdict.state, ActionState::Conflict);
        let decided = Case { decision: Some(OnConflict::KeepTheirs), ..case };
        assert_eq!(LoadBalancers::release(&decided, &look).verdict.state, ActionState::Released);
    }
}

#[test]
fn an_instance_that_was_contained_before_this_record_began_may_have_been_registered_elsewhere() {
    let mut look = everywhere();
    look.instance.as_mut().unwrap().tags = BTreeMap::from([("firebreak.dev/incident".into(), "security/old".into())]);
    let plan = LoadBalancers::contain(&case(), &Empty {}, &look);
    assert!(plan.verdict.unknown && plan.calls.len() == 3, "{plan:?}");
    let only_that = ["deregisterFromLoadBalancers/unknown"];
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), only_that, "somebody may have registered it there since");
    let noted = noted(case(), &plan);
    let again = LoadBalancers::contain(&noted, &Empty {}, &everywhere());
    assert!(again.record.is_empty() && again.calls.len() == 3, "nor without the marks: {again:?}");
    let given = example::recorded(noted, &key(WEB), &Original { targets: vec![] });
    let given = Case { resolved: ["deregisterFromLoadBalancers".to_owned()].into(), ..given };
    assert!(LoadBalancers::contain(&given, &Empty {}, &everywhere()).record.is_empty(), "a person said where");
}
