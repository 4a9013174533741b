use firebreak_crds::OnConflict;

use super::*;
use crate::containment::example;

fn case() -> Case {
    example::case(example::instance())
}

fn elastic(n: &str, private: &str) -> PublicAddress {
    let (allocation, association) = (Some(format!("eipalloc-{n}")), Some(format!("eipassoc-{n}")));
    PublicAddress { public: format!("192.0.2.{n}"), private: private.into(), allocation, association }
}

fn assigned(private: &str) -> PublicAddress {
    PublicAddress { public: "198.51.100.1".into(), private: private.into(), ..PublicAddress::default() }
}

fn interface(n: u8, addresses: Vec<PublicAddress>) -> Interface {
    let (id, private) = (format!("eni-{n}"), format!("10.0.0.{n}"));
    let private_addresses = vec![private.clone(), "10.0.0.77".into()];
    Interface { id, private, addresses, private_addresses, instance: Some("i-1".into()), ..Interface::default() }
}

fn look(interfaces: Vec<Interface>) -> Look {
    let instance = Instance {
        id: "i-1".into(),
        state: "running".into(),
        interfaces: interfaces.iter().map(|i| i.id.clone()).collect(),
        ..Instance::default()
    };
    let shown = interfaces.iter().flat_map(|i| i.addresses.iter().map(move |a| (i, a)));
    let elastic = |(i, a): (&Interface, &PublicAddress)| {
        Some(ElasticAddress {
            allocation: a.allocation.clone()?,
            association: a.association.clone(),
            interface: Some(i.id.clone()),
            private: Some(a.private.clone()),
        })
    };
    Look { instance: Some(instance), elastic: shown.filter_map(elastic).collect(), interfaces }
}

/// An Elastic IP on a secondary address of the first, one that AWS assigned on the second.
fn public() -> Look {
    look(vec![interface(1, vec![elastic("7", "10.0.0.77")]), interface(2, vec![assigned("10.0.0.2")])])
}

/// Plans until nothing is left to do.
fn settle(mut case: Case, mut look: Look, plan: fn(&Case, &Look) -> Plan) -> (Case, Look, Plan) {
    for _ in 0..10 {
        let next = plan(&case, &look);
        if next.is_done() {
            return (case, look, next);
        }
        case = next.record.iter().fold(case, |case, (key, value)| example::recorded(case, key, value));
        next.calls.iter().for_each(|call| Addresses::after(&mut look, call, &Outcome::Done));
    }
    panic!("the plan does not end")
}

fn contain(case: &Case, look: &Look) -> Plan {
    Addresses::contain(case, &Empty {}, look)
}

fn contained(before: &Look) -> (Case, Look) {
    let (case, look, _) = settle(case(), before.clone(), contain);
    (case, look)
}

fn off(n: u8) -> Call {
    Call::AssociatePublicIpAddress { interface: format!("eni-{n}"), on: false }
}

fn disassociated(n: &str) -> Call {
    Call::DisassociateAddress { association: format!("eipassoc-{n}"), public: format!("192.0.2.{n}") }
}

/// Each address of each interface without what AWS issues anew.
fn shown(look: &Look) -> Vec<(String, String, Option<String>)> {
    let of = |i: &Interface| i.addresses.iter().map(|a| (i.id.clone(), a.private.clone(), a.allocation.clone())).collect();
    look.interfaces.iter().flat_map::<Vec<_>, _>(of).collect()
}

#[test]
fn every_public_address_goes_and_each_interface_is_recorded_first() {
    let plan = contain(&case(), &public());
    assert_eq!(plan.calls, [disassociated("7"), off(2)]);
    let first = serde_json::json!({
        "elastic": [{ "allocationId": "eipalloc-7", "privateIpAddress": "10.0.0.77", "publicIp": "192.0.2.7" }],
        "assigned": false, "hidden": false,
    });
    assert_eq!(plan.record["removePublicAddresses/eni-1"], first);
    assert!(plan.record.contains_key("removePublicAddresses/eni-2") && plan.verdict.drift.is_empty());
    let (_, _, end) = settle(case(), public(), contain);
    assert_eq!(
        (end.verdict.state, end.verdict.message.as_str()),
        (ActionState::InForce, "2 of 2 interfaces have no public IPv4 address")
    );
}

#[test]
fn a_release_gives_the_same_addresses_back_and_says_which_is_new() {
    let (case, look) = contained(&public());
    let plan = Addresses::release(&case, &look);
    assert!(plan.calls.iter().all(Call::widens) && plan.calls.len() == 2);
    let (_, released, end) = settle(case, look, Addresses::release);
    assert_eq!(shown(&released), shown(&public()));
    assert_eq!(end.verdict.state, ActionState::Released);
    assert_eq!(end.verdict.message, "eni-2: the address that AWS assigned is a new one");
}

#[test]
fn what_aws_assigns_where_an_elastic_ip_went_is_taken_away_and_comes_back_beneath_it() {
    let before = look(vec![interface(1, vec![elastic("7", "10.0.0.1")])]);
    let (case, mut after) = contained(&before);
    after.interfaces[0].addresses.push(assigned("10.0.0.1"));
    let plan = contain(&case, &after);
    assert_eq!((plan.calls.as_slice(), plan.record.len()), ([off(1)].as_slice(), 1));
    assert!(plan.verdict.drift.is_empty(), "AWS did that, nobody else");
    let (case, look, _) = settle(case, after, contain);
    let plan = Addresses::release(&case, &look);
    assert_eq!(
        plan.calls,
        [Call::AssociatePublicIpAddress { interface: "eni-1".into(), on: true }],
        "first what lies beneath"
    );
    let (_, released, _) = settle(case, look, Addresses::release);
    assert_eq!(shown(&released), shown(&before));
}

#[test]
fn what_somebody_adds_later_goes_and_does_not_come_back() {
    let (case, mut look) = contained(&public());
    look.interfaces[0].addresses.push(elastic("9", "10.0.0.1"));
    look.interfaces[1].addresses.push(assigned("10.0.0.2"));
    look.elastic.push(ElasticAddress {
        allocation: "eipalloc-9".into(),
        association: Some("eipassoc-9".into()),
        interface: Some("eni-1".into()),
        private: Some("10.0.0.1".into()),
    });
    let plan = contain(&case, &look);
    assert_eq!(plan.calls, [disassociated("9"), off(2)]);
    assert!(plan.record.is_empty());
    assert_eq!(plan.verdict.drift, ["eni-1 had the public address 192.0.2.9", "eni-2 had the public address 198.51.100.1"]);
    let (case, look, _) = settle(case, look, contain);
    let (_, released, _) = settle(case, look, Addresses::release);
    assert_eq!(shown(&released), shown(&public()));
}

#[test]
fn an_address_that_went_elsewhere_or_was_released_is_a_conflict() {
    let (case, look) = contained(&public());
    let moved = |look: &mut Look| {
        let address = &mut look.elastic[0];
        (address.association, address.interface) = (Some("eipassoc-new".into()), Some("eni-nat".into()));
    };
    let gone = |look: &mut Look| look.elastic.clear();
    let decided = |change: &dyn Fn(&mut Look), decision| {
        let mut look = look.clone();
        change(&mut look);
        Addresses::release(&Case { decision, ..case.clone() }, &look)
    };
    for (change, says) in [(&moved as &dyn Fn(&mut Look), "is at eni-nat now"), (&gone, "was released and cannot come back")]
    {
        let plan = decided(change, None);
        assert_eq!(plan.verdict.state, ActionState::Conflict);
        assert!(
            plan.verdict.message.contains(says) && plan.verdict.message.contains("192.0.2.7"),
            "{}",
            plan.verdict.message
        );
        assert_eq!(plan.calls.len(), 1, "what is in no conflict is given back");
        assert_eq!(decided(change, Some(OnConflict::KeepTheirs)).calls.len(), 1);
    }
    let back = decided(&moved, Some(OnConflict::RestoreOriginal)).calls;
    assert!(back.contains(&Call::DisassociateAddress { association: "eipassoc-new".into(), public: "192.0.2.7".into() }));
}

#[test]
fn a_private_address_that_is_gone_takes_no_elastic_ip_back() {
    let (case, mut look) = contained(&public());
    look.interfaces.iter_mut().for_each(|i| {
        i.private = "10.0.0.99".into();
        i.private_addresses.clear();
    });
    let plan = |decision| Addresses::release(&Case { decision, ..case.clone() }, &look);
    let back = |plan: &Plan| plan.calls.iter().any(|c| matches!(c, Call::AssociateAddress { .. }));
    let asked = plan(None);
    assert!(!back(&asked) && asked.verdict.state == ActionState::Conflict, "{asked:?}");
    assert!(asked.verdict.message.contains("no longer, where Elastic IP 192.0.2.7 was"), "{}", asked.verdict.message);
    assert_ne!(plan(Some(OnConflict::KeepTheirs)).verdict.state, ActionState::Conflict);
}

#[test]
fn an_address_that_somebody_put_there_before_the_release_is_a_conflict() {
    let (case, mut look) = contained(&public());
    look.interfaces[0].addresses.push(elastic("9", "10.0.0.77"));
    let asked = |decision| Addresses::release(&Case { decision, ..case.clone() }, &look);
    assert_eq!(asked(None).verdict.state, ActionState::Conflict);
    assert!(asked(Some(OnConflict::RestoreOriginal)).calls.contains(&disassociated("9")));
    let kept = asked(Some(OnConflict::KeepTheirs));
    assert!(!kept.calls.iter().any(|c| matches!(c, Call::AssociateAddress { .. })), "theirs is not pushed out");
}

#[test]
fn an_assigned_address_comes_back_only_while_the_instance_runs() {
    let (case, mut look) = contained(&public());
    look.instance.as_mut().unwrap().state = "stopped".into();
    let plan = Addresses::release(&case, &look);
    assert!(plan.verdict.state == ActionState::Conflict && plan.verdict.message.contains("only while the instance runs"));
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..case };
    assert_eq!(settle(kept, look, Addresses::release).2.verdict.state, ActionState::Released);
}

#[test]
fn what_cannot_be_taken_away_is_said() {
    let mut managed = interface(1, vec![elastic("7", "10.0.0.1")]);
    managed.managed = true;
    let six = Interface { ipv6: 2, ..interface(2, vec![]) };
    let (_, _, end) = settle(case(), look(vec![managed, six]), contain);
    assert_eq!(end.verdict.state, ActionState::Failed);
    assert!(
        end.verdict.message.contains("eni-1 belong to an AWS service")
            && end.verdict.message.contains("2 IPv6 addresses stay")
    );
}

#[test]
fn an_interface_that_cannot_be_seen_yet_is_not_called_free_of_addresses() {
    let mut look = public();
    look.interfaces.pop();
    let (_, _, end) = settle(case(), look, contain);
    assert_eq!(end.verdict.state, ActionState::InProgress);
}

#[test]
fn what_carried_our_marks_before_is_cut_and_not_recorded() {
    let mut look = public();
    look.instance.as_mut().unwrap().tags.insert("firebreak.dev/incident".into(), "security/old".into());
    let plan = contain(&case(), &look);
    assert!(plan.verdict.unknown && plan.calls.len() == 2);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["removePublicAddresses/unknown"]);
    let unknown = example::recorded(case(), "removePublicAddresses/unknown", &"now");
    assert_eq!(Addresses::release(&unknown, &look).verdict.state, ActionState::Conflict);
}

#[test]
fn an_instance_or_an_interface_that_is_gone_holds_no_release_up() {
    let (case, look) = contained(&public());
    let ended = Look { instance: None, ..look.clone() };
    assert_eq!(contain(&case, &ended).verdict.state, ActionState::Failed);
    assert_eq!(Addresses::release(&case, &ended).verdict.state, ActionState::Conflict, "never seen to end");
    let seen = example::recorded(case.clone(), "instance/ended", &case.now);
    assert_eq!(Addresses::release(&seen, &ended).verdict.state, ActionState::Released);
    let mut fewer = look;
    fewer.interfaces.remove(0);
    let (_, _, end) = settle(case, fewer, Addresses::release);
    assert!(end.verdict.state == ActionState::Released && end.verdict.message.contains("eni-1: no longer exists"));
    assert!(end.verdict.absent, "one answer without it is not the end");
}

#[test]
fn an_instance_that_is_ending_may_lose_its_interfaces() {
    let (case, mut look) = contained(&public());
    look.instance.as_mut().unwrap().state = "shutting-down".into();
    look.interfaces.pop();
    assert_eq!(contain(&case, &look).verdict.state, ActionState::InForce);
}
