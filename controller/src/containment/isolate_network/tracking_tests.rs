use firebreak_crds::{ActionState, SeverTrackedConnections};

use super::*;
use crate::aws::{Group, GroupRole, Instance};
use crate::containment::example;

const VPC: &str = "vpc-a";
const THEIRS: IdleTimeouts = IdleTimeouts { tcp_established: 350, udp_stream: 180 };

fn params(shorten_connection_tracking: bool) -> IsolateNetwork {
    let sever_tracked_connections = SeverTrackedConnections::Never;
    IsolateNetwork { sever_tracked_connections, shorten_connection_tracking, ..IsolateNetwork::default() }
}

/// `eni-1` isolated, of a Nitro instance.
fn look(idle: IdleTimeouts) -> Look {
    let name = GroupRole::Isolation.group_name().into_owned();
    let group = Group { id: "sg-i".into(), vpc: VPC.into(), name, read: true, ..Group::default() };
    let (id, groups) = ("eni-1".into(), vec!["sg-i".into()]);
    let interface = Interface { id, vpc: VPC.into(), groups, idle, ..Interface::default() };
    let instance = Instance { state: "running".into(), interfaces: vec!["eni-1".into()], ..Instance::default() };
    let (instance, interfaces, groups) = (Some(instance), vec![interface], vec![group]);
    Look { instance, interfaces, groups, nitro: Some(true), ..Look::default() }
}

/// `eni-1` was in `sg-web`.
fn case() -> Case {
    example::recorded(
        example::case(example::instance()),
        "isolateNetwork/eni-1",
        &serde_json::json!({ "groups": ["sg-web"] }),
    )
}

fn shortened() -> Case {
    example::recorded(case(), "isolateNetwork/tracking-eni-1", &THEIRS)
}

#[test]
fn it_is_shortened_once_all_is_cut_and_recorded_before() {
    let plan = Isolation::contain(&case(), &params(true), &look(THEIRS));
    assert_eq!(plan.calls, [set("eni-1", SHORT, false)]);
    assert_eq!(plan.record["isolateNetwork/tracking-eni-1"], serde_json::json!({ "tcpEstablished": 350, "udpStream": 180 }));
    let mut open = look(THEIRS);
    open.interfaces[0].groups = vec!["sg-web".into()];
    let plan = Isolation::contain(&case(), &params(true), &open);
    assert!(!plan.calls.contains(&set("eni-1", SHORT, false)), "{:?}", plan.calls);
}

#[test]
fn nobody_who_does_not_ask_for_it_gets_it_but_it_stays_until_the_release() {
    assert!(Isolation::contain(&case(), &params(false), &look(THEIRS)).is_done());
    let plan = Isolation::contain(&shortened(), &params(false), &look(THEIRS));
    assert_eq!(plan.calls, [set("eni-1", SHORT, false)]);
    assert_eq!(plan.verdict.drift, ["eni-1: idle flows were kept longer: TCP 350 s, UDP streams 180 s"]);
    assert_eq!(plan.verdict.state, ActionState::InForce, "cut off all the while");
}

#[test]
fn only_nitro_instances_have_it_and_others_are_isolated_all_the_same() {
    for (nitro, why) in [
        (Some(false), "0 of 1: AWS shows no Nitro hypervisor for its type"),
        (None, "0 of 1: AWS does not answer ec2:DescribeInstanceTypes"),
    ] {
        let plan = Isolation::contain(&case(), &params(true), &Look { nitro, ..look(THEIRS) });
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
        assert!(plan.verdict.message.ends_with(why), "{}", plan.verdict.message);
    }
}

#[test]
fn what_was_short_before_is_neither_recorded_nor_given_back() {
    let plan = Isolation::contain(&case(), &params(true), &look(SHORT));
    assert!(plan.is_done() && plan.verdict.message.ends_with("flows idle for 60 s are forgotten on 1 of 1"), "{plan:?}");
}

#[test]
fn what_is_set_on_an_interface_that_was_isolated_before_this_record_began_is_no_original() {
    let fresh = example::case(example::instance());
    let noted = example::recorded(fresh.clone(), "isolateNetwork/unknown", &fresh.now);
    let groups = r#"{"groups":["sg-web"]}"#.to_owned();
    let mut given = noted.clone(); // by a person, since
    given.original.insert("isolateNetwork/eni-1".into(), groups);
    given.resolved.insert("isolateNetwork".into());
    for case in [noted, given] {
        let plan = Isolation::contain(&case, &params(true), &look(THEIRS));
        assert_eq!(plan.calls, [set("eni-1", SHORT, false)], "it is shortened all the same");
        assert!(plan.record.is_empty() && plan.verdict.drift.is_empty(), "{plan:?}");
        assert!(!Isolation::release(&case, &look(SHORT)).calls.contains(&set("eni-1", THEIRS, true)));
    }
}

#[test]
fn a_release_gives_back_what_was_there_where_ours_is_there_still() {
    let mut back = look(SHORT);
    back.interfaces[0].groups = vec!["sg-web".into()];
    assert_eq!(Isolation::release(&shortened(), &back).calls, [set("eni-1", THEIRS, true)]);
    back.interfaces[0].idle = THEIRS;
    assert_eq!(Isolation::release(&shortened(), &back).verdict.state, ActionState::Released);
    back.interfaces[0].idle = IdleTimeouts { tcp_established: 61, ..THEIRS };
    let plan = Isolation::release(&shortened(), &back);
    assert_eq!((plan.calls.len(), plan.verdict.state), (0, ActionState::Conflict));
    let decided = |decision| Case { decision: Some(decision), ..shortened() };
    let kept = Isolation::release(&decided(OnConflict::KeepTheirs), &back);
    assert_eq!((kept.calls.len(), kept.verdict.state), (0, ActionState::Released));
    let plan = Isolation::release(&decided(OnConflict::RestoreOriginal), &back);
    assert_eq!(plan.calls, [set("eni-1", THEIRS, true)]);
}

#[test]
fn a_call_that_shortens_gives_nothing_back_and_may_be_refused() {
    let [short, back] = [set("eni-1", SHORT, false), set("eni-1", THEIRS, true)];
    assert_eq!((short.widens(), short.optional()), (false, true));
    assert_eq!((back.widens(), back.optional()), (true, false));
    assert_eq!(short.operation(), "ec2:ModifyNetworkInterfaceAttribute");
}
