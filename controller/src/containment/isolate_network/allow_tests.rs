use serde_json::json;

use super::*;
use crate::containment::example;

fn flow(cidr: &str, ports: &str) -> AllowedFlow {
    let port = |text: &str| text.parse().ok();
    let (protocol, ports) = ports.split_once(' ').unwrap_or((ports, ""));
    let (from_port, to_port) = ports.split_once('-').map_or((port(ports), None), |(from, to)| (port(from), port(to)));
    let protocol = serde_json::from_value(json!(protocol)).unwrap();
    AllowedFlow { cidr: cidr.into(), protocol, from_port, to_port }
}

/// Pairs of network and ports, e.g. `tcp 22`.
fn ingress(flows: &[(&str, &str)]) -> AllowList {
    AllowList { ingress: flows.iter().map(|(cidr, ports)| flow(cidr, ports)).collect(), egress: Vec::new() }
}

fn allowed(flows: &[(&str, &str)]) -> Allowed {
    Allowed::by(Some(&ingress(flows)))
}

fn params(allow: Option<AllowList>) -> IsolateNetwork {
    IsolateNetwork { allow, ..IsolateNetwork::default() }
}

#[test]
fn two_lists_meet_in_what_both_allow() {
    let ten = ("10.0.0.0/8", "tcp 22");
    for (a, b, both) in [
        (vec![ten], vec![("10.1.0.0/16", "tcp 22")], vec![("10.1.0.0/16", "tcp 22")]),
        (vec![ten], vec![("11.0.0.0/8", "tcp 22")], vec![]),
        (vec![ten], vec![("10.0.0.0/8", "udp 22")], vec![]),
        (vec![ten], vec![("10.0.0.5/32", "all")], vec![("10.0.0.5/32", "tcp 22")]),
        (vec![("10.0.0.0/8", "tcp 20-30")], vec![("10.0.0.0/8", "tcp 25-90")], vec![("10.0.0.0/8", "tcp 25-30")]),
        (vec![("2001:db8::/32", "all")], vec![("2001:db8:1::/48", "all")], vec![("2001:db8:1::/48", "all")]),
        (vec![("2001:db8::/32", "all")], vec![ten], vec![]),
        (vec![ten], vec![], vec![]),
        (
            vec![("10.1.0.0/16", "all"), ("10.2.0.0/16", "tcp 1-9")],
            vec![("10.0.0.0/8", "tcp 5"), ("10.2.0.9/32", "udp 5")],
            vec![("10.1.0.0/16", "tcp 5"), ("10.2.0.0/16", "tcp 5")],
        ),
    ] {
        let (a, b, both) = (allowed(&a), allowed(&b), allowed(&both));
        assert_eq!((a.meet(&b), b.meet(&a)), (both.clone(), both), "{a:?} {b:?}");
    }
}

#[test]
fn one_list_has_one_form_and_one_group() {
    let list = allowed(&[("10.1.0.0/16", "tcp 22"), ("10.0.0.0/8", "tcp 22-22"), ("2001:db8::/32", "all")]);
    for other in [
        vec![("2001:0DB8::/32", "all"), ("10.0.0.0/8", "tcp 22")],
        vec![("10.9.9.9/8", "tcp 22"), ("10.0.0.0/8", "tcp 22"), ("2001:db8::/32", "all"), ("2001:db8::/64", "udp 9")],
    ] {
        assert_eq!((allowed(&other), allowed(&other).role()), (list.clone(), list.role()), "{other:?}");
    }
    assert_ne!(allowed(&[("10.0.0.0/8", "tcp 23")]).role(), list.role());
    assert_eq!(allowed(&[]).role(), GroupRole::Isolation);
    assert_eq!(Allowed::by(list.list().as_ref()), list, "what is recorded is what was meant");
}

#[test]
fn the_direction_counts() {
    let (inwards, outwards) = (ingress(&[("10.0.0.0/8", "all")]), ingress(&[("10.0.0.0/8", "all")]).ingress);
    let outwards = Allowed::by(Some(&AllowList { egress: outwards, ingress: Vec::new() }));
    assert!(Allowed::by(Some(&inwards)).meet(&outwards).is_empty());
    assert_ne!(Allowed::by(Some(&inwards)).role(), outwards.role());
}

#[test]
fn what_is_wide_or_cannot_be_understood_is_not_allowed() {
    for (cidr, ports) in [
        ("0.0.0.0/0", "all"),
        ("10.0.0.0/7", "all"),
        ("::/0", "tcp 22"),
        ("2001::/31", "all"),
        ("workstation", "all"),
        ("10.0.0.5", "all"),
        ("10.0.0.5/32", "tcp"),
        ("10.0.0.5/32", "tcp 23-22"),
        ("10.0.0.5/32", "udp 65536"),
    ] {
        assert!(allowed(&[(cidr, ports)]).is_empty(), "{cidr} {ports}");
    }
    assert!(!allowed(&[("10.0.0.0/8", "tcp 22"), ("0.0.0.0/0", "all")]).is_empty(), "the others stay");
}

#[test]
fn more_than_aws_takes_is_nothing() {
    let networks: Vec<String> = (0..20).map(|n| format!("10.0.{n}.0/24")).collect();
    let networks: Vec<_> = networks.iter().map(|cidr| (cidr.as_str(), "all")).collect();
    let ports: Vec<String> = (0..20).map(|n| format!("tcp {}", 2 * n)).collect();
    let ports: Vec<_> = ports.iter().map(|ports| ("10.0.0.0/8", ports.as_str())).collect();
    assert!(allowed(&networks).meet(&allowed(&ports)).is_empty());
    assert_eq!(allowed(&networks).meet(&allowed(&ports[..2])).ingress.len(), 40);
}

#[test]
fn what_is_allowed_is_said_shortly() {
    let many: Vec<String> = (1..=5).map(|n| format!("10.0.0.{n}/32")).collect();
    let many: Vec<_> = many.iter().map(|cidr| (cidr.as_str(), "tcp 22-23")).collect();
    let named = "in tcp 22-23 10.0.0.1/32, tcp 22-23 10.0.0.2/32, tcp 22-23 10.0.0.3/32 and 2 more";
    assert_eq!(allowed(&many).said(), named);
    let both = AllowList { egress: vec![flow("10.0.0.9/32", "all")], ..ingress(&[("10.0.0.1/32", "udp 53")]) };
    assert_eq!(Allowed::by(Some(&both)).said(), "in udp 53 10.0.0.1/32; out all 10.0.0.9/32");
}

#[test]
fn one_network_is_one_however_it_is_written() {
    let rule = |peer| Rule { protocol: "tcp".into(), from: Some(22), to: Some(22), peer };
    let v6 = |text: &str| rule(Peer::V6(text.into()));
    assert!(same(&v6("2001:db8::/32"), &v6("2001:0DB8:0::/32")));
    assert!(!same(&v6("2001:db8::/32"), &v6("2001:db8::/33")));
    assert!(!same(&v6("2001:db8::/32"), &Rule { to: Some(23), ..v6("2001:db8::/32") }));
    let list = || rule(Peer::PrefixList("pl-1".into()));
    assert!(same(&list(), &list()) && !same(&list(), &rule(Peer::PrefixList("pl-2".into()))));
}

/// What the plan records, as the next pass finds it.
fn remembered(case: Case, allowed: &Allowed) -> Case {
    let mut plan = Plan::default();
    remember(&mut plan, &case, allowed);
    plan.record.iter().fold(case, |case, (key, value)| example::recorded(case, key, value))
}

#[test]
fn what_is_allowed_only_ever_narrows_whoever_lets_go() {
    let (wide, narrow) = (ingress(&[("10.0.0.0/8", "tcp 22")]), ingress(&[("10.0.0.5/32", "tcp 22")]));
    let case = || example::case(example::instance());
    assert_eq!(in_force(&case(), &params(Some(wide.clone()))), Allowed::by(Some(&wide)), "the first hold");
    let first = remembered(case(), &Allowed::by(Some(&wide)));
    assert_eq!(in_force(&first, &params(Some(wide.clone()))), Allowed::by(Some(&wide)), "again");
    let both = in_force(&first, &params(Some(narrow.clone())));
    assert_eq!(both, Allowed::by(Some(&narrow)), "a narrower list joins");
    let second = remembered(first.clone(), &both);
    assert_eq!(in_force(&second, &params(Some(wide.clone()))), both, "and its holder lets go");
    let none = remembered(second, &in_force(&first, &params(None)));
    assert!(in_force(&none, &params(Some(wide.clone()))).is_empty(), "a holder without a list was there");
    let without = example::recorded(case(), "isolateNetwork/eni-1", &json!({ "groups": ["sg-web"] }));
    assert!(in_force(&without, &params(Some(wide))).is_empty(), "it was isolated without a list");
}

#[test]
fn nothing_is_recorded_twice_or_where_nothing_is_allowed() {
    let case = example::case(example::instance());
    let list = allowed(&[("10.0.0.0/8", "tcp 22")]);
    let known = remembered(case.clone(), &list);
    assert_eq!(known.original.len(), case.original.len() + 1);
    assert_eq!(remembered(known.clone(), &list).original.len(), known.original.len());
    assert_eq!(remembered(case.clone(), &Allowed::default()).original.len(), case.original.len());
    assert_eq!(remembered(known.clone(), &Allowed::default()).original.len(), known.original.len() + 1);
}

#[test]
fn a_record_that_cannot_be_read_or_has_no_room_allows_nothing() {
    let list = ingress(&[("10.0.0.0/8", "tcp 22")]);
    let broken = example::recorded(example::case(example::instance()), "isolateNetwork/allowed-00000000", &json!(7));
    assert!(in_force(&broken, &params(Some(list.clone()))).is_empty());
    let mut given = broken.clone();
    given.original.insert("isolateNetwork/allowed-00000000".into(), serde_json::to_string(&list).unwrap());
    given.stored.clear();
    assert!(
        in_force(&given, &params(Some(list.clone()))).is_empty(),
        "a person says what was there before, not what is allowed"
    );
    let mut full = remembered(example::case(example::instance()), &Allowed::by(Some(&list)));
    full.original.extend((0..RECORDS).map(|n| (format!("other/{n}"), String::new())));
    assert_eq!(in_force(&full, &params(Some(list))), allowed(&[("10.0.0.0/8", "tcp 22")]), "what is recorded stays");
    assert!(in_force(&full, &params(Some(ingress(&[("10.0.0.5/32", "tcp 22")])))).is_empty());
}
