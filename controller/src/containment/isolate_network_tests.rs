use firebreak_crds::{AllowList, AllowedFlow, AllowedProtocol, Conversion, Empty};
use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::aws::RouteTable;
use crate::clock;
use crate::containment::example;
use crate::containment::window::Window;
use SeverTrackedConnections::{Always, Auto, Never};

const VPC: &str = "vpc-a";
const ISOLATION: &str = "sg-isolation";
const CONVERSION_GROUP: &str = "sg-conversion";

fn params(sever: SeverTrackedConnections) -> IsolateNetwork {
    IsolateNetwork { sever_tracked_connections: sever, ..IsolateNetwork::default() }
}

fn group(role: GroupRole, rules: &[Rule]) -> Group {
    let id = if role == GroupRole::Isolation { ISOLATION } else { CONVERSION_GROUP };
    let (ingress, egress) = (rules.to_vec(), rules.to_vec());
    Group {
        id: id.into(),
        vpc: VPC.into(),
        name: role.group_name().into_owned(),
        ingress,
        egress,
        read: true,
        emptied: None,
    }
}

fn interface(id: &str, groups: &[&str]) -> Interface {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    Interface { id: id.into(), vpc: VPC.into(), subnet: "subnet-a".into(), groups, ..Interface::default() }
}

/// An instance whose VPC has an empty isolation group.
fn look(interfaces: Vec<Interface>) -> Look {
    let ids = interfaces.iter().map(|i| i.id.clone()).collect();
    let instance = Some(Instance { id: "i-1".into(), state: "running".into(), interfaces: ids, ..Instance::default() });
    Look { instance, interfaces, groups: vec![group(GroupRole::Isolation, &[])], ..Look::default() }
}

fn case() -> Case {
    example::case(example::instance())
}

/// `eni-1` was in `sg-web`.
fn recorded() -> Case {
    example::recorded(case(), "isolateNetwork/eni-1", &Original { groups: vec!["sg-web".into()] })
}

fn window(mut case: Case, state: ConversionState) -> Case {
    case.conversions.push(Conversion { interface_id: "eni-1".into(), state, since: clock::time(case.now) });
    case
}

fn isolates(interface: &str) -> Call {
    swap(interface, ISOLATION, Change::Isolate)
}

#[test]
fn the_first_step_records_and_cuts_every_interface_side_by_side() {
    let look = look(vec![interface("eni-1", &["sg-web"]), interface("eni-2", &["sg-db", "sg-web"])]);
    let plan = Isolation::contain(&case(), &params(Auto), &look);
    assert_eq!(plan.calls, [isolates("eni-1"), isolates("eni-2")]);
    let keys: Vec<&str> = plan.record.keys().map(String::as_str).collect();
    assert_eq!(keys, ["isolateNetwork/eni-1", "isolateNetwork/eni-2"]);
    assert_eq!(plan.record["isolateNetwork/eni-2"]["groups"], serde_json::json!(["sg-db", "sg-web"]));
}

#[test]
fn nothing_is_put_into_a_group_that_is_not_known_to_be_empty() {
    let all = Rule::all();
    let unread = Group { read: false, ..group(GroupRole::Isolation, &[]) };
    for (what, groups, calls, look_again) in [
        ("missing", vec![], 1, false),
        ("with rules", vec![group(GroupRole::Isolation, &all)], 2, false),
        ("expected to be empty, not read so", vec![unread], 0, true),
    ] {
        let look = Look { groups, ..look(vec![interface("eni-1", &["sg-web"])]) };
        let plan = Isolation::contain(&case(), &params(Auto), &look);
        assert!(!plan.calls.contains(&isolates("eni-1")), "{what}");
        assert_eq!((plan.calls.len(), plan.look_again), (calls, look_again), "{what}");
        assert!(plan.record.contains_key("isolateNetwork/eni-1"), "{what}: recorded all the same");
    }
}

#[test]
fn the_default_egress_rule_of_a_new_group_is_expected_and_revoked() {
    let mut look = Look { groups: vec![], ..look(vec![interface("eni-1", &["sg-web"])]) };
    let create = Call::CreateSecurityGroup { vpc: VPC.into(), role: GroupRole::Isolation };
    Isolation::after(&mut look, &create, &Outcome::Created(ISOLATION.into()));
    let plan = Isolation::contain(&recorded(), &params(Auto), &look);
    let revoke = Call::RevokeSecurityGroupEgress { group: ISOLATION.into(), rules: vec![Rule::all()[0].clone()] };
    assert_eq!(plan.calls, [revoke]);
}

#[test]
fn rules_that_somebody_adds_to_the_isolation_group_go_and_are_drift() {
    let groups = vec![group(GroupRole::Isolation, &Rule::all())];
    let look = Look { groups, ..look(vec![interface("eni-1", &[ISOLATION])]) };
    let plan = Isolation::contain(&recorded(), &params(Never), &look);
    assert_eq!(plan.calls.len(), 2, "{:?}", plan.calls);
    assert_eq!(plan.verdict.drift, ["rules in the isolation group of vpc-a"]);
}

#[test]
fn flows_that_began_through_rules_in_the_isolation_group_are_converted() {
    use ConversionState::{Closed, Due, Open, Skipped};
    let interfaces = || vec![interface("eni-1", &[ISOLATION])];
    let opened = Look { groups: vec![group(GroupRole::Isolation, &Rule::all())], ..look(interfaces()) };
    for (before, after) in [(Closed, Some(Due)), (Skipped, Some(Due)), (Due, None), (Open, None)] {
        let case = window(recorded(), before);
        let plan = Isolation::contain(&case, &params(Auto), &opened);
        assert_eq!(plan.conversions.get("eni-1"), after.as_ref(), "{before:?}");
    }
    let untouched = Isolation::contain(&window(recorded(), Closed), &params(Auto), &look(interfaces()));
    assert!(untouched.is_done() && untouched.verdict.state == ActionState::InForce, "{untouched:?}");
}

#[test]
fn flows_that_began_through_rules_that_another_look_took_out_are_converted_once() {
    use ConversionState::{Closed, Due, Skipped};
    let second = SignedDuration::from_secs(1);
    let since = case().now;
    for (before, at, after) in [
        (Closed, since + second, Some(Due)),
        (Skipped, since + second, Some(Due)),
        (Closed, since - second, None),
        (Due, since + second, None),
    ] {
        let emptied = Group { emptied: Some(at), ..group(GroupRole::Isolation, &[]) };
        let look = Look { groups: vec![emptied], ..look(vec![interface("eni-1", &[ISOLATION])]) };
        let plan = Isolation::contain(&window(recorded(), before), &params(Never), &look);
        assert_eq!(plan.conversions.get("eni-1"), after.as_ref(), "{before:?} {at}");
    }
    let elsewhere = Group { id: "sg-else".into(), emptied: Some(since + second), ..group(GroupRole::Isolation, &[]) };
    let look =
        Look { groups: vec![group(GroupRole::Isolation, &[]), elsewhere], ..look(vec![interface("eni-1", &[ISOLATION])]) };
    assert!(Isolation::contain(&window(recorded(), Closed), &params(Never), &look).is_done(), "of another VPC");
}

#[test]
fn an_interface_that_was_moved_away_is_put_back_and_converted_anew() {
    let case = window(recorded(), ConversionState::Closed);
    let plan = Isolation::contain(&case, &params(Auto), &look(vec![interface("eni-1", &["sg-attacker"])]));
    assert_eq!(plan.calls, [isolates("eni-1")]);
    assert_eq!(plan.verdict.drift, ["eni-1 was in [sg-attacker]"]);
    assert_eq!(plan.conversions["eni-1"], ConversionState::Due);
    assert!(plan.record.is_empty(), "the first value stays");
}

#[test]
fn our_groups_are_never_recorded_as_the_original_and_who_put_an_interface_there_may_have_flows() {
    for groups in [vec![ISOLATION], vec![CONVERSION_GROUP], vec![ISOLATION, "sg-web"]] {
        let mut look = look(vec![interface("eni-1", &groups)]);
        look.groups.push(group(GroupRole::Conversion, &Rule::all()));
        let plan = Isolation::contain(&case(), &params(Auto), &look);
        assert!(plan.verdict.unknown && !plan.record.contains_key("isolateNetwork/eni-1"), "{groups:?}");
        assert!(plan.record.contains_key("isolateNetwork/unknown"), "so that a release asks: {groups:?}");
        assert_eq!(plan.calls.contains(&isolates("eni-1")), groups != [ISOLATION], "{groups:?}");
        assert!(undecided(&case(), &params(Auto), &look), "{groups:?}");
        let found = plan.record.get("isolateNetwork/found-eni-1");
        let theirs = serde_json::json!({ "found": ["sg-web"] });
        assert_eq!(found, groups.contains(&"sg-web").then_some(&theirs), "what a person may want to know: {groups:?}");
    }
    let noted = example::recorded(case(), "isolateNetwork/unknown", &case().now);
    let noted = example::recorded(noted, "isolateNetwork/found-eni-1", &Found { found: vec!["sg-web".into()] });
    let mut reachable = look(vec![Interface { public: true, ..interface("eni-1", &[ISOLATION]) }]);
    reachable.groups.push(group(GroupRole::Conversion, &Rule::all()));
    assert_eq!(Isolation::contain(&noted, &params(Auto), &reachable).windows, [opens("eni-1", ISOLATION)]);
    let back = Isolation::release(&noted, &look(vec![interface("eni-1", &[ISOLATION])]));
    assert!(back.verdict.state == ActionState::Conflict && back.calls.is_empty(), "{back:?}");
    assert!(back.verdict.message.contains("not known; it was found in [sg-web]"), "{}", back.verdict.message);
}

#[test]
fn where_an_interface_is_found_with_marks_of_before_is_no_original() {
    let mut moved = look(vec![interface("eni-1", &["sg-attacker"]), interface("eni-2", &[ISOLATION])]);
    let marks = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    moved.instance.as_mut().unwrap().tags = marks;
    let plan = Isolation::contain(&case(), &params(Auto), &moved);
    assert_eq!(plan.calls, [isolates("eni-1")]);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["isolateNetwork/found-eni-1", "isolateNetwork/unknown"]);
    assert!(plan.verdict.unknown && plan.verdict.drift == ["eni-1 was in [sg-attacker]"], "{plan:?}");

    // Nor later: not without the marks, not where the call failed, and not at the release.
    let noted = example::recorded(case(), "isolateNetwork/unknown", &case().now);
    let noted = example::recorded(noted, "isolateNetwork/found-eni-1", &plan.record["isolateNetwork/found-eni-1"]);
    moved.instance.as_mut().unwrap().tags.clear();
    let plan = Isolation::contain(&noted, &params(Auto), &moved);
    assert!(plan.record.is_empty() && plan.calls == [isolates("eni-1")], "{plan:?}");
    let back = Isolation::release(&noted, &moved);
    assert!(back.calls.is_empty() && back.verdict.state == ActionState::Conflict, "{back:?}");
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..noted.clone() };
    assert_eq!(Isolation::release(&kept, &moved).verdict.state, ActionState::Conflict, "eni-2 is isolated");
    moved.interfaces.pop();
    assert_eq!(Isolation::release(&kept, &moved).verdict.state, ActionState::Released);

    // What a person says is given back; what is attached to an instance that is known is recorded as ever.
    let given = example::recorded(noted, "isolateNetwork/eni-1", &Original { groups: vec!["sg-web".into()] });
    let given = Case { resolved: ["isolateNetwork".to_owned()].into(), ..given };
    let mut attached = look(vec![interface("eni-1", &[ISOLATION]), interface("eni-3", &["sg-new"])]);
    assert_eq!(Isolation::release(&given, &attached).calls, [restore("eni-1", &["sg-web".to_owned()])]);
    attached.instance.as_mut().unwrap().tags = BTreeMap::from([("firebreak.dev/incident".into(), "security/old".into())]);
    assert!(Isolation::contain(&recorded(), &params(Auto), &attached).record.contains_key("isolateNetwork/eni-3"));
}

#[test]
fn what_cannot_be_isolated_is_said() {
    let managed = Interface { managed: true, ..interface("eni-1", &["sg-nat"]) };
    for (look, state, says) in [
        (Look { instance: None, ..look(vec![]) }, ActionState::Failed, "AWS shows no instance"),
        (look(vec![]), ActionState::Failed, "no network interface"),
        (look(vec![managed]), ActionState::Failed, "eni-1 belong to an AWS service"),
        (look(vec![interface("eni-1", &[ISOLATION])]), ActionState::InForce, "1 of 1 interfaces isolated"),
    ] {
        let plan = Isolation::contain(&recorded(), &params(Never), &look);
        assert!(plan.is_done() && plan.verdict.state == state, "{plan:?}");
        assert!(plan.verdict.message.contains(says), "{}", plan.verdict.message);
    }
}

#[test]
fn a_terminated_instance_is_contained_and_stays_so_when_aws_has_forgotten_it() {
    let mut look = look(vec![]);
    look.instance.as_mut().unwrap().state = "terminated".into();
    let plan = Isolation::contain(&case(), &params(Auto), &look);
    assert_eq!(plan.verdict.state, ActionState::InForce);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["instance/ended"]);
    look.instance = None;
    let noted = example::recorded(case(), "instance/ended", &"now");
    let plan = Isolation::contain(&noted, &params(Auto), &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    assert_eq!(Isolation::contain(&case(), &params(Auto), &look).verdict.state, ActionState::Failed, "absent is not ended");
}

#[test]
fn an_instance_that_is_ending_is_cut_and_may_lose_its_interfaces() {
    let ending = |interfaces, shown: &[&str]| {
        let mut look = look(interfaces);
        let instance = look.instance.as_mut().unwrap();
        (instance.state, instance.interfaces) = ("shutting-down".into(), shown.iter().map(|id| (*id).to_owned()).collect());
        look
    };
    let open = Isolation::contain(&recorded(), &params(Never), &ending(vec![interface("eni-1", &["sg-web"])], &["eni-1"]));
    assert!(open.calls.len() == 1 && open.verdict.state == ActionState::InProgress, "{open:?}");
    for look in [ending(vec![], &["eni-1"]), ending(vec![interface("eni-1", &[ISOLATION])], &["eni-1", "eni-2"])] {
        let plan = Isolation::contain(&recorded(), &params(Never), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    }
}

fn table(main: bool, subnets: &[&str], internet: bool) -> RouteTable {
    let subnets = subnets.iter().map(|s| (*s).to_owned()).collect();
    RouteTable { vpc: VPC.into(), main, subnets, internet, ..RouteTable::default() }
}

#[test]
fn auto_converts_what_can_be_reached_from_outside() {
    let own = vec![table(true, &[], true), table(false, &["subnet-a"], false)];
    for (what, public, routes, state) in [
        ("no way out", false, Some(vec![table(true, &[], false)]), Some(ConversionState::Skipped)),
        ("a public address", true, Some(vec![]), Some(ConversionState::Open)),
        ("a public address is enough", true, None, Some(ConversionState::Open)),
        ("the main table has a way out", false, Some(vec![table(true, &[], true)]), Some(ConversionState::Open)),
        ("its own table counts, not the main one", false, Some(own), Some(ConversionState::Skipped)),
        ("not read", false, None, None),
    ] {
        let mut look = look(vec![Interface { public, ..interface("eni-1", &[ISOLATION]) }]);
        look.groups.push(group(GroupRole::Conversion, &Rule::all()));
        look.routes = routes;
        for before in [None, Some(ConversionState::Due)] {
            let case = before.map_or_else(recorded, |state| window(recorded(), state));
            let plan = Isolation::contain(&case, &params(Auto), &look);
            assert_eq!(plan.conversions.get("eni-1"), state.as_ref(), "{what}");
            assert_eq!(!plan.windows.is_empty(), state == Some(ConversionState::Open), "{what}");
            assert_eq!(undecided(&case, &params(Auto), &look), !public, "read only where it decides: {what}");
        }
    }
}

#[test]
fn what_was_skipped_is_told_and_converted_once_a_way_to_it_comes_back() {
    let case = window(recorded(), ConversionState::Skipped);
    let mut look = look(vec![interface("eni-1", &[ISOLATION])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    let ways = |internet| {
        let routes = Some(std::sync::Arc::new(vec![table(true, &[], internet)]));
        let vpc = crate::aws::VpcWays { routes, endpoints: Some(vec![]), connect: Some(vec![]) };
        Some(Ways { serial_console: Some(false), vpcs: [(VPC.to_owned(), vpc)].into() })
    };
    for way in [None, ways(false)] {
        look.ways = way;
        let plan = Isolation::contain(&case, &params(Auto), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
        let left = "tracked flows left alone on eni-1: no public address, no route to an internet gateway";
        assert!(plan.verdict.message.contains(left), "{}", plan.verdict.message);
    }
    look.ways = ways(true);
    assert_eq!(Isolation::contain(&case, &params(Auto), &look).windows, [opens("eni-1", ISOLATION)]);
    assert!(Isolation::contain(&case, &params(Never), &look).is_done());
    (look.ways, look.interfaces[0].public) = (None, true);
    assert_eq!(Isolation::contain(&case, &params(Auto), &look).windows, [opens("eni-1", ISOLATION)]);
}

#[test]
fn a_trunk_is_told_since_its_branches_are_not_seen() {
    let look = look(vec![Interface { trunk: true, ..interface("eni-1", &[ISOLATION]) }]);
    let plan = Isolation::contain(&recorded(), &params(Never), &look);
    assert!(plan.verdict.message.contains("eni-1 carry branch interfaces"), "{}", plan.verdict.message);
}

#[test]
fn a_conversion_opens_after_everything_is_isolated_recorded_and_for_seconds() {
    let mut look = look(vec![interface("eni-1", &[ISOLATION]), interface("eni-2", &["sg-web"])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    assert_eq!(Isolation::contain(&recorded(), &params(Always), &look).calls, [isolates("eni-2")], "first the cut");
    look.interfaces[1] = interface("eni-2", &[ISOLATION]);
    let both = example::recorded(recorded(), "isolateNetwork/eni-2", &Original { groups: vec!["sg-web".into()] });
    let plan = Isolation::contain(&both, &params(Always), &look);
    assert!(plan.calls.is_empty() && plan.windows == [opens("eni-1", ISOLATION), opens("eni-2", ISOLATION)], "{plan:?}");
    assert_eq!(plan.conversions.values().collect::<Vec<_>>(), [&ConversionState::Open; 2]);
}

/// Open for seconds, and back to that group.
fn opens(interface: &str, back: &str) -> Window {
    let open = swap(interface, CONVERSION_GROUP, Change::Convert);
    let close = swap(interface, back, Change::Close);
    Window { interface: interface.into(), open, lasts: conversion::CONVERSION, close }
}

#[test]
fn the_conversion_group_is_made_and_opened_before_it_is_used() {
    let mut look = look(vec![interface("eni-1", &[ISOLATION])]);
    let plan = Isolation::contain(&recorded(), &params(Always), &look);
    assert_eq!(plan.calls, [Call::CreateSecurityGroup { vpc: VPC.into(), role: GroupRole::Conversion }]);
    Isolation::after(&mut look, &plan.calls[0], &Outcome::Created(CONVERSION_GROUP.into()));
    let plan = Isolation::contain(&recorded(), &params(Always), &look);
    let (ingress, egress) = (Rule::all().to_vec(), vec![Rule::all()[1].clone()]); // AWS adds IPv4 egress itself
    let (into, out) = (CONVERSION_GROUP.to_owned(), CONVERSION_GROUP.to_owned());
    assert_eq!(
        plan.calls,
        [
            Call::AuthorizeSecurityGroupIngress { group: into, rules: ingress },
            Call::AuthorizeSecurityGroupEgress { group: out, rules: egress }
        ]
    );
    assert!(plan.conversions.is_empty(), "no window before there is something to open");
}

#[test]
fn a_crash_inside_a_window_resumes_to_isolation() {
    let case = window(recorded(), ConversionState::Open);
    let mut look = look(vec![interface("eni-1", &[CONVERSION_GROUP]), interface("eni-2", &["sg-web"])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    for sever in [Auto, Always, Never] {
        let plan = Isolation::contain(&case, &params(sever), &look);
        let closes = swap("eni-1", ISOLATION, Change::Close);
        assert_eq!(plan.calls, [closes, isolates("eni-2")], "side by side with the others: {sever:?}");
        assert_eq!(plan.only_closing().calls.len(), 1, "also where nothing else is to be done");
    }
    look.interfaces.pop();
    Isolation::after(&mut look, &swap("eni-1", ISOLATION, Change::Close), &Outcome::Done);
    let plan = Isolation::contain(&case, &params(Never), &look);
    assert!(plan.calls.is_empty() && plan.conversions["eni-1"] == ConversionState::Closed, "{plan:?}");
}

#[test]
fn a_window_that_nobody_saw_open_is_not_called_closed() {
    let case = window(recorded(), ConversionState::Open);
    let mut look = look(vec![Interface { public: true, ..interface("eni-1", &[ISOLATION]) }]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    let (open, due) = (Some(&ConversionState::Open), Some(&ConversionState::Due));
    for (sever, opened, recorded) in [(Auto, 1, open), (Always, 1, open), (Never, 0, due)] {
        let plan = Isolation::contain(&case, &params(sever), &look);
        assert_eq!((plan.windows.len(), plan.conversions.get("eni-1")), (opened, recorded), "{sever:?}");
        assert!(plan.verdict.state == ActionState::InProgress && !plan.verdict.message.contains("attempted"), "{plan:?}");
    }
    let open = swap("eni-1", CONVERSION_GROUP, Change::Convert);
    let mut plan = Isolation::contain(&case, &params(Auto), &look);
    plan.leave_out(|call| *call == open);
    assert!(plan.is_done() && plan.verdict.state != ActionState::InForce, "AWS refuses it in this pass: {plan:?}");
    for call in [open, swap("eni-1", ISOLATION, Change::Close)] {
        Isolation::after(&mut look, &call, &Outcome::Done);
    }
    assert_eq!(Isolation::contain(&case, &params(Auto), &look).conversions["eni-1"], ConversionState::Closed);
}

#[test]
fn an_interface_in_the_conversion_group_without_a_window_is_isolated() {
    let mut look = look(vec![interface("eni-1", &[CONVERSION_GROUP])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    assert_eq!(Isolation::contain(&recorded(), &params(Always), &look).calls, [isolates("eni-1")]);
}

#[test]
fn a_release_gives_back_only_what_firebreak_put_there() {
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let original = Original { groups: vec!["sg-web".into()] };
    for (what, now, decision, restores, state) in [
        ("isolated", &[ISOLATION][..], None, true, ActionState::InProgress),
        ("the original already", &["sg-web"], None, false, ActionState::Released),
        ("somebody else's", &["sg-other"], None, false, ActionState::Conflict),
        ("somebody added one", &[ISOLATION, "sg-other"], None, false, ActionState::Conflict),
        ("theirs are kept", &["sg-other"], Some(KeepTheirs), false, ActionState::Released),
        ("theirs are overruled", &["sg-other"], Some(RestoreOriginal), true, ActionState::InProgress),
    ] {
        let mut look = look(vec![interface("eni-1", now)]);
        look.groups.push(group(GroupRole::Conversion, &Rule::all()));
        let plan = Isolation::release(&Case { decision, ..recorded() }, &look);
        let expected = if restores { vec![restore("eni-1", &original.groups)] } else { vec![] };
        assert_eq!((plan.calls, plan.verdict.state), (expected, state), "{what}");
    }
}

#[test]
fn a_release_closes_first_what_stands_open_whatever_it_waits_for() {
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let closes = swap("eni-1", ISOLATION, Change::Close);
    let open = |groups: &[&str]| {
        let mut look = look(vec![interface("eni-1", groups)]);
        look.groups.push(group(GroupRole::Conversion, &Rule::all()));
        look
    };
    let lost = Look { lost: ["sg-web".to_owned()].into(), ..open(&[CONVERSION_GROUP]) };
    for (what, case, now, state) in [
        ("its groups come back", recorded(), open(&[CONVERSION_GROUP]), ActionState::InProgress),
        ("they exist no more", recorded(), lost.clone(), ActionState::Conflict),
        ("its original is not known", case(), open(&[CONVERSION_GROUP]), ActionState::Conflict),
    ] {
        for decision in [None, Some(KeepTheirs), Some(RestoreOriginal)] {
            let plan = Isolation::release(&Case { decision, ..case.clone() }, &now);
            assert_eq!(
                (&plan.calls[..], plan.verdict.state),
                (std::slice::from_ref(&closes), state),
                "{what}: {decision:?}"
            );
            assert_eq!(plan.only_closing().calls, std::slice::from_ref(&closes), "{what}: also while suspended");
        }
    }
    let mut shut = open(&[CONVERSION_GROUP]);
    Isolation::after(&mut shut, &closes, &Outcome::Done);
    assert_eq!(Isolation::release(&recorded(), &shut).calls, [restore("eni-1", &["sg-web".to_owned()])]);
    shut.lost = lost.lost;
    let waits = Isolation::release(&recorded(), &shut);
    assert!(waits.is_done() && waits.verdict.state == ActionState::Conflict, "{waits:?}");
    shut.interfaces[0].groups = vec![CONVERSION_GROUP.into()];
    shut.groups.remove(0);
    shut.lost.clear();
    let without = Isolation::release(&recorded(), &shut).calls;
    assert_eq!(without, [restore("eni-1", &["sg-web".to_owned()])], "somebody deleted the isolation group");
}

#[test]
fn a_group_that_exists_no_more_is_a_conflict_and_each_decision_ends_it() {
    use ActionState::{Conflict, InProgress, Released};
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let two = Original { groups: vec!["sg-web".into(), "sg-old".into()] };
    let case = example::recorded(case(), "isolateNetwork/eni-1", &two);
    for (what, now, lost, decision, restored, state) in [
        ("one is gone", &[ISOLATION][..], &["sg-old"][..], None, None, Conflict),
        ("one is gone: what is left", &[ISOLATION], &["sg-old"], Some(RestoreOriginal), Some("sg-web"), InProgress),
        ("what is left is put back", &["sg-web"], &["sg-old"], Some(RestoreOriginal), None, Released),
        ("what is left, undecided", &["sg-web"], &["sg-old"], None, None, Conflict),
        ("one is gone: our isolation is not theirs", &[ISOLATION], &["sg-old"], Some(KeepTheirs), None, Conflict),
        ("one is gone: theirs are kept", &["sg-new"], &["sg-old"], Some(KeepTheirs), None, Released),
        ("both are gone", &[ISOLATION], &["sg-old", "sg-web"], Some(RestoreOriginal), None, Conflict),
        ("both are gone, decided of another", &[ISOLATION], &["sg-old", "sg-web"], Some(KeepTheirs), None, Conflict),
        ("both are gone: theirs are kept", &["sg-new"], &["sg-old", "sg-web"], Some(KeepTheirs), None, Released),
    ] {
        let look = Look { lost: lost.iter().map(|id| (*id).to_owned()).collect(), ..look(vec![interface("eni-1", now)]) };
        let plan = Isolation::release(&Case { decision, ..case.clone() }, &look);
        let calls: Vec<Call> = restored.map(|group: &str| restore("eni-1", &[group.to_owned()])).into_iter().collect();
        assert_eq!((plan.calls, plan.verdict.state), (calls, state), "{what}");
        let both = ["[sg-web, sg-old]", "no", "KeepTheirs"].iter().all(|words| plan.verdict.message.contains(words));
        assert!(both || state != Conflict, "{what}: {}", plan.verdict.message);
    }
}

#[test]
fn the_order_of_groups_means_nothing() {
    let original = Original { groups: vec!["sg-a".into(), "sg-b".into()] };
    let case = example::recorded(case(), "isolateNetwork/eni-1", &original);
    let plan = Isolation::release(&case, &look(vec![interface("eni-1", &["sg-b", "sg-a"])]));
    assert_eq!(plan.verdict.state, ActionState::Released);
}

#[test]
fn one_conflict_does_not_keep_the_other_interfaces() {
    let both = example::recorded(recorded(), "isolateNetwork/eni-2", &Original { groups: vec!["sg-db".into()] });
    let plan = Isolation::release(&both, &look(vec![interface("eni-1", &["sg-other"]), interface("eni-2", &[ISOLATION])]));
    assert_eq!(plan.calls.len(), 1);
    assert_eq!(plan.verdict.state, ActionState::Conflict);
    assert!(plan.verdict.message.contains("eni-1: now [sg-other], before containment [sg-web]"), "{}", plan.verdict.message);
}

#[test]
fn an_interface_that_is_gone_is_given_back() {
    let plan = Isolation::release(&recorded(), &look(vec![]));
    assert_eq!(plan.verdict.state, ActionState::Released);
    assert!(plan.verdict.message.contains("eni-1: no longer exists"));
    assert!(plan.verdict.absent, "one answer without it is not the end");
    let nothing = Look { instance: None, ..look(vec![]) };
    let asks = Isolation::release(&recorded(), &nothing).verdict;
    assert!(asks.state == ActionState::Conflict && asks.message.contains("never showed it to end"), "{asks:?}");
    let decided = Case { decision: Some(OnConflict::KeepTheirs), ..recorded() };
    assert_eq!(Isolation::release(&decided, &nothing).verdict.state, ActionState::Conflict, "of another conflict");
    let told = example::told(decided, "isolateNetwork", ActionState::Conflict, &asks.message);
    assert_eq!(Isolation::release(&told, &nothing).verdict.state, ActionState::Released);
}

#[test]
fn an_instance_that_is_not_shown_is_asked_about_where_the_record_names_no_interface() {
    let nothing = Look { instance: None, ..look(vec![]) };
    let noted = example::recorded(case(), "isolateNetwork/unknown", &case().now);
    let found = example::recorded(noted.clone(), "isolateNetwork/found-eni-1", &Found { found: vec!["sg-web".into()] });
    for case in [noted.clone(), found] {
        let plan = Isolation::release(&case, &nothing);
        assert!(plan.verdict.state == ActionState::Conflict && plan.verdict.absent, "{plan:?}");
        let ended = example::recorded(case, "instance/ended", &"now");
        let plan = Isolation::release(&ended, &nothing);
        assert!(plan.verdict.state == ActionState::Released && plan.verdict.absent, "seen twice: {plan:?}");
    }
    let empty = Isolation::release(&case(), &nothing).verdict;
    assert!(empty.state == ActionState::Released && empty.absent, "nothing was done to it: {empty:?}");
    let known = example::recorded(noted, "isolateNetwork/eni-1", &Original { groups: vec!["sg-web".into()] });
    let left = Look { interfaces: vec![interface("eni-1", &["sg-web"])], ..nothing };
    assert_eq!(Isolation::release(&known, &left).verdict.state, ActionState::Conflict, "another may be isolated");
    assert_eq!(Isolation::release(&recorded(), &left).verdict.state, ActionState::Released, "all that was done is undone");
}

#[test]
fn an_unknown_or_unreadable_original_waits_until_a_person_has_put_the_interface_where_it_belongs() {
    let unreadable = example::recorded(case(), "isolateNetwork/eni-1", &Empty {});
    let noted = example::recorded(case(), "isolateNetwork/unknown", &case().now);
    for (case, by_hand) in [(case(), false), (unreadable, false), (noted.clone(), false), (noted, true)] {
        let groups = if by_hand { ["sg-web"] } else { [ISOLATION] };
        let now = look(vec![interface("eni-1", &groups)]);
        assert_eq!(Isolation::release(&case, &now).verdict.state, ActionState::Conflict);
        for (decision, state) in [
            (OnConflict::KeepTheirs, if by_hand { ActionState::Released } else { ActionState::Conflict }),
            (OnConflict::RestoreOriginal, ActionState::Conflict), // there is none to restore
        ] {
            let decided = Case { decision: Some(decision), ..case.clone() };
            assert_eq!(Isolation::release(&decided, &now).verdict.state, state, "{decision:?} {groups:?}");
        }
    }
}

#[test]
fn interfaces_are_looked_up_by_the_record_too() {
    let case = example::recorded(recorded(), "isolateNetwork/unknown", &case().now);
    let ids: Vec<String> = known(&case, &look(vec![interface("eni-2", &["sg-web"])])).collect();
    assert_eq!(ids, ["eni-2", "eni-1"]);
}

const LISTED: &str = "sg-listed";

/// SSH from one workstation.
fn list(cidr: &str) -> AllowList {
    let (protocol, from_port) = (AllowedProtocol::Tcp, Some(22));
    AllowList { ingress: vec![AllowedFlow { cidr: cidr.into(), protocol, from_port, to_port: None }], egress: vec![] }
}

fn allowing(cidr: &str) -> IsolateNetwork {
    IsolateNetwork { allow: Some(list(cidr)), ..params(Never) }
}

/// The group of that list, as it must be.
fn listed(cidr: &str) -> Group {
    let allowed = Allowed::by(Some(&list(cidr)));
    let [ingress, egress] = allowed.rules();
    Group {
        id: LISTED.into(),
        ingress,
        egress,
        name: allowed.role().group_name().into_owned(),
        ..group(GroupRole::Isolation, &[])
    }
}

/// `eni-1` was in `sg-web`, and this list was in force.
fn recorded_with(cidr: &str) -> Case {
    let key = format!("isolateNetwork/allowed-{:08x}", 7);
    example::recorded(recorded(), &key, &list(cidr))
}

const WORKSTATION: &str = "10.0.0.5/32";

#[test]
fn the_cut_waits_for_no_allow_list_and_the_list_is_recorded_before() {
    let look = look(vec![interface("eni-1", &["sg-web"])]);
    let plan = Isolation::contain(&case(), &allowing(WORKSTATION), &look);
    let role = Allowed::by(Some(&list(WORKSTATION))).role();
    assert_eq!(plan.calls, [isolates("eni-1"), Call::CreateSecurityGroup { vpc: VPC.into(), role }]);
    let records: Vec<&String> = plan.record.keys().collect();
    assert!(records[0].starts_with("isolateNetwork/allowed-") && records[1] == "isolateNetwork/eni-1", "{records:?}");
}

#[test]
fn an_interface_goes_to_the_group_of_a_list_only_once_its_rules_are_read() {
    let right = listed(WORKSTATION);
    let unread = Group { read: false, ..right.clone() };
    let wide = Group { ingress: [&right.ingress[..], &Rule::all()].concat(), ..right.clone() };
    let short = Group { ingress: vec![], ..right.clone() };
    for (what, group, to) in
        [("right", right, LISTED), ("unread", unread, ISOLATION), ("wide", wide, ISOLATION), ("short", short, ISOLATION)]
    {
        let mut look = look(vec![interface("eni-1", &["sg-web"])]);
        look.groups.push(group);
        let plan = Isolation::contain(&case(), &allowing(WORKSTATION), &look);
        assert!(plan.calls.contains(&swap("eni-1", to, Change::Isolate)), "{what}: {:?}", plan.calls);
        look.interfaces = vec![interface("eni-1", &[ISOLATION])];
        let plan = Isolation::contain(&recorded_with(WORKSTATION), &allowing(WORKSTATION), &look);
        let moves = plan.calls.contains(&swap("eni-1", LISTED, Change::Isolate));
        assert_eq!(moves, to == LISTED, "{what}: {:?}", plan.calls);
        assert_eq!(plan.verdict.state, ActionState::InForce, "cut off all the while: {what}");
    }
}

#[test]
fn the_group_of_a_list_gets_its_rules_and_loses_the_default_one_side_by_side() {
    let mut look = look(vec![interface("eni-1", &[ISOLATION])]);
    let role = Allowed::by(Some(&list(WORKSTATION))).role();
    let create = Call::CreateSecurityGroup { vpc: VPC.into(), role };
    let plan = |look: &Look| Isolation::contain(&recorded_with(WORKSTATION), &allowing(WORKSTATION), look);
    assert_eq!(plan(&look).calls, std::slice::from_ref(&create));
    Isolation::after(&mut look, &create, &Outcome::Created(LISTED.into()));
    let group = || LISTED.to_owned();
    let calls = plan(&look).calls;
    assert_eq!(
        calls,
        [
            Call::RevokeSecurityGroupEgress { group: group(), rules: vec![Rule::all()[0].clone()] },
            Call::AuthorizeSecurityGroupIngress { group: group(), rules: listed(WORKSTATION).ingress },
        ]
    );
    calls.iter().for_each(|call| Isolation::after(&mut look, call, &Outcome::Done));
    assert!(plan(&look).look_again && plan(&look).calls.is_empty(), "expected to be right, not read so");
}

#[test]
fn what_somebody_changes_in_the_group_of_a_list_is_put_back_and_drift_and_more_is_not_in_force() {
    let right = listed(WORKSTATION);
    let wide = Group { egress: Rule::all().to_vec(), ..right.clone() };
    let narrow = Group { ingress: vec![], ..right.clone() };
    let group = || LISTED.to_owned();
    let revoke = Call::RevokeSecurityGroupEgress { group: group(), rules: Rule::all().to_vec() };
    let authorize = Call::AuthorizeSecurityGroupIngress { group: group(), rules: right.ingress.clone() };
    let (left, edited) = ("eni-1 was in [sg-listed]", "rules in the group of the allow-list of vpc-a");
    for (group, calls, state, drift) in [
        (wide, vec![isolates("eni-1"), revoke], ActionState::InProgress, &[left, edited][..]),
        (narrow, vec![authorize], ActionState::InForce, &[edited][..]),
    ] {
        let mut look = look(vec![interface("eni-1", &[LISTED])]);
        look.groups.push(group);
        let plan = Isolation::contain(&recorded_with(WORKSTATION), &allowing(WORKSTATION), &look);
        assert_eq!((plan.calls, plan.verdict.state), (calls, state));
        assert_eq!(plan.verdict.drift, drift);
    }
    let mut look = look(vec![interface("eni-1", &[LISTED])]);
    look.groups.push(right);
    let plan = Isolation::contain(&recorded_with(WORKSTATION), &allowing(WORKSTATION), &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    assert_eq!(plan.verdict.message, "1 of 1 interfaces isolated; allowed on 1 of them: in tcp 22 10.0.0.5/32");
}

#[test]
fn a_stricter_list_moves_the_interface_by_way_of_the_group_without_rules_and_is_no_drift() {
    let mut look = look(vec![interface("eni-1", &[LISTED])]);
    look.groups.push(listed("10.0.0.0/8"));
    let case = recorded_with("10.0.0.0/8");
    let plan = Isolation::contain(&case, &allowing(WORKSTATION), &look);
    assert!(plan.calls.contains(&isolates("eni-1")) && plan.verdict.drift.is_empty(), "{plan:?}");
    let plan = Isolation::contain(&case, &params(Never), &look);
    assert_eq!((&plan.calls[..], plan.record.len()), (&[isolates("eni-1")][..], 1), "a holder without a list");
    let case = recorded_with(WORKSTATION);
    let plan = Isolation::contain(&case, &allowing("10.0.0.0/8"), &look);
    assert_eq!(plan.verdict.drift, ["eni-1 was in [sg-listed]"], "the group of a list that is no longer in force");
}

#[test]
fn no_list_opens_what_was_isolated_without_one_and_the_message_says_so() {
    let mut look = look(vec![interface("eni-1", &[ISOLATION])]);
    look.groups.push(listed(WORKSTATION));
    let plan = Isolation::contain(&recorded(), &allowing(WORKSTATION), &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce, "{plan:?}");
    assert!(plan.verdict.message.contains("the list asked for is not allowed whole"), "{}", plan.verdict.message);
}

#[test]
fn a_window_closes_into_the_group_of_the_list() {
    let case = window(recorded_with(WORKSTATION), ConversionState::Open);
    let mut look = look(vec![interface("eni-1", &[CONVERSION_GROUP])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    look.groups.push(listed(WORKSTATION));
    let closes = |look: &Look| Isolation::contain(&case, &allowing(WORKSTATION), look).calls;
    assert_eq!(closes(&look), [swap("eni-1", LISTED, Change::Close)]);
    look.groups[2].read = false;
    assert_eq!(closes(&look), [swap("eni-1", ISOLATION, Change::Close)]);
    Isolation::after(&mut look, &swap("eni-1", LISTED, Change::Close), &Outcome::Done);
    let plan = Isolation::contain(&case, &allowing(WORKSTATION), &look);
    assert_eq!(plan.conversions["eni-1"], ConversionState::Closed);
}

#[test]
fn a_conversion_does_not_wait_for_the_group_of_a_list() {
    let mut look = look(vec![interface("eni-1", &[ISOLATION])]);
    look.groups.push(group(GroupRole::Conversion, &Rule::all()));
    look.groups.push(listed(WORKSTATION));
    let severing = IsolateNetwork { sever_tracked_connections: Always, ..allowing(WORKSTATION) };
    let plan = Isolation::contain(&recorded_with(WORKSTATION), &severing, &look);
    assert!(plan.calls.is_empty() && plan.windows == [opens("eni-1", LISTED)], "and is not moved meanwhile: {plan:?}");
    look.groups.pop();
    let plan = Isolation::contain(&recorded_with(WORKSTATION), &severing, &look);
    assert!(plan.calls.len() == 1 && plan.windows == [opens("eni-1", ISOLATION)], "{plan:?}");
}

#[test]
fn what_is_in_the_group_of_any_list_is_given_back() {
    let mut look = look(vec![interface("eni-1", &[LISTED])]);
    look.groups.push(listed(WORKSTATION));
    let original = Original { groups: vec!["sg-web".into()] };
    assert_eq!(Isolation::release(&recorded_with("10.0.0.0/8"), &look).calls, [restore("eni-1", &original.groups)]);
}
