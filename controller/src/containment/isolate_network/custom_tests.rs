use firebreak_crds::{ActionState, ConversionState, OnConflict, SeverTrackedConnections};
use serde_json::json;

use super::super::{Isolation, restore, swap};
use super::*;
use crate::aws::{Call, Change, GroupRole, Instance, Peer, Rule};
use crate::containment::action::{Action, Merge};
use crate::containment::example;

const VPC: &str = "vpc-a";
const CUSTOM: &str = "sg-0123456789abcdef0";
const ISOLATION: &str = "sg-isolation";

fn rule(peer: Peer) -> Rule {
    Rule { protocol: "tcp".into(), from: Some(22), to: Some(22), peer }
}

fn network(cidr: &str) -> Rule {
    rule(Peer::V4(cidr.into()))
}

fn group(ingress: Vec<Rule>) -> Group {
    let (id, vpc, name) = (CUSTOM.into(), VPC.into(), "forensics".into());
    Group { id, vpc, name, ingress, read: true, ..Group::default() }
}

fn params() -> IsolateNetwork {
    let sever_tracked_connections = SeverTrackedConnections::Never;
    IsolateNetwork { sever_tracked_connections, security_group_ids: vec![CUSTOM.into()], ..IsolateNetwork::default() }
}

/// `eni-1` in these groups, in a VPC with an empty isolation group.
fn look(groups: &[&str], custom: Option<Group>) -> Look {
    let name = GroupRole::Isolation.group_name().into_owned();
    let isolation = Group { id: ISOLATION.into(), vpc: VPC.into(), name, read: true, ..Group::default() };
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    let interface = Interface { id: "eni-1".into(), vpc: VPC.into(), groups, ..Interface::default() };
    let instance = Instance { state: "running".into(), interfaces: vec!["eni-1".into()], ..Instance::default() };
    let custom = [(CUSTOM.to_owned(), custom)].into();
    Look { instance: Some(instance), interfaces: vec![interface], groups: vec![isolation], custom, ..Look::default() }
}

fn case() -> Case {
    example::case(example::instance())
}

/// Recorded is what a first pass with this group records.
fn recorded(custom: Group) -> Case {
    let plan = Isolation::contain(&case(), &params(), &look(&["sg-web"], Some(custom)));
    plan.record.iter().fold(case(), |case, (key, value)| example::recorded(case, key, value))
}

fn to(group: &str) -> Call {
    swap("eni-1", group, Change::Isolate)
}

#[test]
fn an_interface_goes_there_at_once_and_what_the_group_lets_through_is_recorded_before() {
    let plan = Isolation::contain(&case(), &params(), &look(&["sg-web"], Some(group(vec![network("10.0.0.5/32")]))));
    assert_eq!(plan.calls, [to(CUSTOM)]);
    let keys: Vec<&str> = plan.record.keys().map(String::as_str).collect();
    assert!(keys[0].starts_with("isolateNetwork/allowed-"), "{keys:?}");
    assert_eq!(keys[1..], ["isolateNetwork/eni-1", "isolateNetwork/rules-sg-0123456789abcdef0"]);
}

#[test]
fn in_force_is_what_is_in_the_group_and_the_status_says_so() {
    let right = group(vec![network("10.0.0.5/32")]);
    let plan = Isolation::contain(&recorded(right.clone()), &params(), &look(&[CUSTOM], Some(right)));
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    let said = "1 of 1 interfaces isolated; allowed on 1 of them: what sg-0123456789abcdef0 lets through";
    assert_eq!(plan.verdict.message, said);
}

#[test]
fn a_group_that_lets_through_more_than_a_list_could_or_what_changes_without_it_is_never_used() {
    let icmp = Rule { protocol: "icmp".into(), from: Some(-1), to: Some(-1), peer: Peer::V4("10.0.0.5/32".into()) };
    let many: Vec<Rule> = (0..51).map(|n| network(&format!("10.0.{n}.0/24"))).collect();
    for (what, wrong) in [
        ("everybody", Some(group(vec![network("0.0.0.0/0")]))),
        ("everybody, IPv6", Some(group(vec![rule(Peer::V6("::/0".into()))]))),
        ("a wide network", Some(group(vec![network("10.0.0.5/32"), network("8.0.0.0/7")]))),
        ("everybody, out", Some(Group { egress: Rule::all().to_vec(), ..group(vec![]) })),
        ("another group", Some(group(vec![rule(Peer::Group("sg-web".into(), None))]))),
        ("a prefix list", Some(group(vec![rule(Peer::PrefixList("pl-1".into()))]))),
        ("icmp", Some(group(vec![icmp]))),
        ("more rules than can be told", Some(group(many))),
        ("no group", None),
    ] {
        for at in [["sg-web"], [CUSTOM]] {
            let plan = Isolation::contain(&case(), &params(), &look(&at, wrong.clone()));
            assert_eq!(plan.calls, [to(ISOLATION)], "{what}");
            assert!(plan.verdict.message.contains("sg-0123456789abcdef0 is not used"), "{what}: {}", plan.verdict.message);
        }
    }
}

#[test]
fn one_that_was_opened_since_is_left_at_once_and_never_edited() {
    let case = recorded(group(vec![network("10.0.0.5/32")]));
    let wider = group(vec![network("10.0.0.5/32"), network("10.0.0.6/32")]);
    let plan = Isolation::contain(&case, &params(), &look(&[CUSTOM], Some(wider.clone())));
    assert_eq!((plan.calls, plan.verdict.state), (vec![to(ISOLATION)], ActionState::InProgress));
    assert_eq!(plan.verdict.drift, ["eni-1 was in [sg-0123456789abcdef0]"]);
    let plan = Isolation::contain(&case, &params(), &look(&[ISOLATION], Some(wider)));
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "cut off, and stays so: {plan:?}");
    assert!(plan.verdict.message.contains("it lets through more than when it was first used"), "{}", plan.verdict.message);
    let less = group(vec![]);
    let plan = Isolation::contain(&case, &params(), &look(&[ISOLATION], Some(less)));
    assert_eq!(plan.calls, [to(CUSTOM)], "less is no harm");
}

#[test]
fn a_group_of_another_vpc_is_none_for_an_interface() {
    let elsewhere = Group { vpc: "vpc-b".into(), ..group(vec![network("10.0.0.5/32")]) };
    let plan = Isolation::contain(&case(), &params(), &look(&["sg-web"], Some(elsewhere)));
    assert_eq!(plan.calls, [to(ISOLATION)]);
}

#[test]
fn a_group_and_a_list_together_let_nothing_through_also_when_one_has_let_go() {
    let list = || AllowList {
        ingress: serde_json::from_value(json!([{ "cidr": "10.0.0.5/32", "protocol": "all" }])).unwrap(),
        egress: vec![],
    };
    let other = IsolateNetwork { allow: Some(list()), security_group_ids: vec![], ..params() };
    assert_eq!(params().merge(&other), IsolateNetwork { security_group_ids: vec![], ..params() });
    let right = group(vec![network("10.0.0.5/32")]);
    let case = recorded(right.clone());
    let plan = Isolation::contain(&case, &params().merge(&other), &look(&[CUSTOM], Some(right.clone())));
    assert_eq!((plan.calls, plan.verdict.drift.len()), (vec![to(ISOLATION)], 0));
    let case = plan.record.iter().fold(case, |case, (key, value)| example::recorded(case, key, value));
    let plan = Isolation::contain(&case, &params(), &look(&[ISOLATION], Some(right)));
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
}

#[test]
fn what_was_in_the_group_before_anything_was_recorded_is_of_unknown_origin() {
    let plan = Isolation::contain(&case(), &params(), &look(&[CUSTOM], Some(group(vec![]))));
    assert!(plan.verdict.unknown && !plan.record.contains_key("isolateNetwork/eni-1"), "{plan:?}");
}

#[test]
fn a_release_gives_back_from_the_group_and_leaves_it_as_it_is() {
    let case = recorded(group(vec![]));
    let plan = Isolation::release(&case, &look(&[CUSTOM], Some(group(vec![]))));
    assert_eq!(plan.calls, [restore("eni-1", &["sg-web".into()])]);
    let plan = Isolation::release(&case, &look(&["sg-web"], None));
    assert!(plan.verdict.state == ActionState::Released && plan.verdict.message.is_empty(), "{plan:?}");
    let decided = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    assert!(Isolation::release(&decided, &look(&["sg-db"], None)).calls.is_empty());
}

#[test]
fn a_window_closes_into_the_group() {
    let mut case = recorded(group(vec![]));
    case.conversions.push(firebreak_crds::Conversion {
        interface_id: "eni-1".into(),
        state: ConversionState::Open,
        since: crate::clock::time(case.now),
    });
    let mut look = look(&["sg-conversion"], Some(group(vec![])));
    let name = GroupRole::Conversion.group_name().into_owned();
    let (ingress, egress) = (Rule::all().to_vec(), Rule::all().to_vec());
    look.groups.push(Group {
        id: "sg-conversion".into(),
        vpc: VPC.into(),
        name,
        ingress,
        egress,
        read: true,
        emptied: None,
    });
    let closes = swap("eni-1", CUSTOM, Change::Close);
    assert_eq!(Isolation::contain(&case, &params(), &look).calls, [closes]);
}
