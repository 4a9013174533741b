//! `removePublicAddresses`: addresses that are moved, released and assigned at any moment.

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, ElasticAddress, Instance, Interface, Outcome};
use crate::containment::action::Action;
use crate::containment::remove_public_addresses::{Addresses, Look};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const ID: &str = "i-0123456789abcdef0";

#[derive(Clone, Debug)]
pub enum AddressAttack {
    /// Puts an Elastic IP on an interface, or elsewhere.
    Move(usize, usize),
    Free(usize),
    Release(usize),
    Assign(usize),
    Attach(usize),
    Delete(usize),
    Mark,
}

fn allocation(n: usize) -> String {
    format!("eipalloc-{n}")
}

fn interface_id(n: usize) -> String {
    format!("eni-{n}")
}

fn interface(n: usize) -> Interface {
    let private = format!("10.0.0.{n}");
    Interface { id: interface_id(n), private, instance: Some(ID.into()), ..Interface::default() }
}

/// As AWS associates: what stood there is pushed out, and where it was before it is no more.
fn associate(aws: &mut Look, n: usize, to: usize) {
    free(aws, n);
    let (id, private) = (interface_id(to), format!("10.0.0.{to}"));
    let is_ours = aws.elastic.iter().any(|e| e.allocation == allocation(n));
    if !is_ours || aws.interfaces.iter().any(|i| i.id == id && i.managed) {
        return; // released, or AWS's own interface
    }
    let there = aws.interfaces.iter().filter(|i| i.id == id).flat_map(|i| &i.addresses).find(|a| a.private == private);
    if let Some(association) = there.and_then(|a| a.association.clone()) {
        aws_disassociates(aws, association);
    }
    let public = format!("192.0.2.{n}");
    let call = Call::AssociateAddress { allocation: allocation(n), interface: id, private, public };
    Addresses::after(aws, &call, &Outcome::Done);
}

fn aws_disassociates(aws: &mut Look, association: String) {
    Addresses::after(aws, &Call::DisassociateAddress { association, public: String::new() }, &Outcome::Done);
}

fn free(aws: &mut Look, n: usize) {
    let found = aws.elastic.iter().find(|e| e.allocation == allocation(n));
    if let Some(association) = found.and_then(|e| e.association.clone()) {
        aws_disassociates(aws, association);
    }
}

/// An interface that is attached brings along the Elastic IPs that were put on it meanwhile.
fn bring(aws: &mut Look, n: usize) {
    let there = |e: &&ElasticAddress| e.interface == Some(interface_id(n));
    let on_it: Vec<String> = aws.elastic.iter().filter(there).map(|e| e.allocation.clone()).collect();
    (0..4).filter(|m| on_it.contains(&allocation(*m))).for_each(|m| associate(aws, m, n));
}

fn assign(aws: &mut Look, n: usize) {
    let there = aws.interfaces.iter().find(|i| i.id == interface_id(n));
    if there.is_some_and(|i| !i.managed && i.addresses.is_empty()) {
        Addresses::after(aws, &Call::AssociatePublicIpAddress { interface: interface_id(n), on: true }, &Outcome::Done);
    }
}

/// What is recorded of an interface: its Elastic IPs, and whether AWS assigned it an address.
fn original(case: &Case, interface: &str) -> Option<(Vec<String>, bool)> {
    let text = case.original.get(&format!("removePublicAddresses/{interface}"))?;
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let elastic = value["elastic"].as_array().unwrap().iter().map(|e| e["allocationId"].as_str().unwrap().to_owned());
    let surfaced = case.original.contains_key(&format!("removePublicAddresses/{interface}/assigned"));
    Some((elastic.collect(), surfaced || value["assigned"] == true))
}

/// The allocations on an interface; an empty name where AWS assigned the address.
fn shown(look: &Look) -> BTreeMap<String, Vec<String>> {
    let of = |i: &Interface| i.addresses.iter().map(|a| a.allocation.clone().unwrap_or_default()).collect();
    look.interfaces.iter().map(|i| (i.id.clone(), of(i))).collect()
}

impl Simulated for Addresses {
    type Attack = AddressAttack;

    fn read(aws: &Look, case: &Case, params: Option<&Empty>) -> Look {
        let mut look = aws.clone();
        let asked = |e: &ElasticAddress| case.original.values().any(|text| text.contains(&e.allocation));
        look.elastic.retain(|e| params.is_none() && asked(e));
        look
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        match call {
            Call::DisassociateAddress { association, .. } => {
                aws.elastic.iter().any(|e| e.association.as_ref() == Some(association))
            }
            Call::AssociateAddress { allocation, interface, private, .. } => {
                let free = aws.elastic.iter().any(|e| e.allocation == *allocation && e.association.is_none());
                let there = aws.interfaces.iter().find(|i| i.id == *interface && !i.managed);
                let taken = |i: &Interface| i.addresses.iter().any(|a| a.private == *private && a.allocation.is_some());
                free && there.is_some_and(|i| !taken(i))
            }
            Call::AssociatePublicIpAddress { interface, .. } => {
                aws.interfaces.iter().any(|i| i.id == *interface && !i.managed)
            }
            _ => false,
        }
    }

    fn attack(aws: &mut Look, attack: &AddressAttack, _: Timestamp) {
        match attack {
            AddressAttack::Move(n, to) => associate(aws, *n, *to),
            AddressAttack::Free(n) => free(aws, *n),
            AddressAttack::Release(n) => {
                free(aws, *n);
                aws.elastic.retain(|e| e.allocation != allocation(*n));
            }
            AddressAttack::Assign(n) => assign(aws, *n),
            AddressAttack::Attach(n) => {
                let Some(instance) = &mut aws.instance else { return };
                if !instance.interfaces.contains(&interface_id(*n)) {
                    instance.interfaces.push(interface_id(*n));
                    aws.interfaces.push(interface(*n));
                    bring(aws, *n);
                }
            }
            AddressAttack::Delete(n) => {
                let id = interface_id(*n);
                for address in aws.elastic.iter_mut().filter(|e| e.interface.as_ref() == Some(&id)) {
                    (address.association, address.interface, address.private) = (None, None, None);
                }
                aws.interfaces.retain(|i| i.id != id);
                aws.instance.iter_mut().for_each(|i| i.interfaces.retain(|i| *i != id));
            }
            AddressAttack::Mark => aws.instance.iter_mut().for_each(|i| {
                i.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into());
            }),
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let touched = match call {
                Call::AssociatePublicIpAddress { interface, on: false } => interface.clone(),
                Call::DisassociateAddress { association, .. } => {
                    let has = |i: &&Interface| i.addresses.iter().any(|a| a.association.as_ref() == Some(association));
                    look.interfaces.iter().find(has).unwrap().id.clone()
                }
                other => panic!("not a call that contains: {other}"),
            };
            let key = format!("removePublicAddresses/{touched}");
            let recorded = case.original.contains_key(&key) || plan.record.contains_key(&key);
            assert!(recorded || plan.verdict.unknown, "{touched}: record before touch");
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        let restores = case.decision == Some(OnConflict::RestoreOriginal);
        for call in &plan.calls {
            match call {
                Call::AssociateAddress { allocation, interface, .. } => {
                    assert!(original(case, interface).unwrap().0.contains(allocation), "{call}: it was not there before");
                    let now = look.elastic.iter().find(|e| e.allocation == *allocation).unwrap();
                    assert_eq!(now.association, None, "{call}: somebody has it");
                }
                Call::AssociatePublicIpAddress { interface, on: true } => assert!(original(case, interface).unwrap().1),
                Call::AssociatePublicIpAddress { .. } | Call::DisassociateAddress { .. } => {
                    assert!(restores, "{call}: nobody asked for it");
                }
                other => panic!("not a call of this action: {other}"),
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        if aws.instance.is_none() {
            assert_eq!(verdict.state, ActionState::Failed);
            return;
        }
        let (managed, own): (Vec<&Interface>, Vec<_>) = aws.interfaces.iter().partition(|i| i.managed);
        let expected =
            if managed.iter().all(|i| i.addresses.is_empty()) { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(own.iter().all(|i| i.addresses.is_empty()), "{own:?}");
        assert!(verdict.unknown || own.iter().all(|i| original(case, &i.id).is_some()));
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        if aws.instance.is_none() {
            assert_eq!(verdict.state, ActionState::Released);
            return;
        }
        let (now, was) = (shown(aws), shown(before));
        let mut all_back = !case.is_unknown("removePublicAddresses");
        for (id, addresses) in &now {
            let (elastic, assigned) = original(case, id).unwrap_or_default();
            for address in addresses {
                let had = if address.is_empty() { assigned } else { elastic.contains(address) };
                assert!(had || was[id].contains(address), "{id}: {address} was never there");
            }
            all_back &= elastic.iter().all(|e| addresses.contains(e));
            all_back &= addresses.iter().all(|a| a.is_empty() || elastic.contains(a)) || original(case, id).is_none();
        }
        match (verdict.state, case.decision) {
            (ActionState::Released, None) => assert!(all_back, "{now:?}: {}", verdict.message),
            (ActionState::Conflict, None) => assert!(!verdict.message.is_empty()),
            (ActionState::Conflict, _) => assert!(verdict.message.contains("not known"), "{}", verdict.message),
            (ActionState::Released, _) => {}
            (state, _) => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

prop_compose! {
    fn instances()(
        there in prop::bool::weighted(0.95), marked in prop::bool::weighted(0.1),
        interfaces in vec((prop::bool::weighted(0.1), prop_oneof![Just(None), Just(Some(true)), Just(Some(false))]), 0..3),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let instance = Instance { id: ID.into(), state: "running".into(), tags, ..Instance::default() };
        let free = |n| ElasticAddress { allocation: allocation(n), ..ElasticAddress::default() };
        let mut aws = Look { instance: there.then_some(instance), elastic: (0..4).map(free).collect(), ..Look::default() };
        for (n, (managed, address)) in interfaces.into_iter().enumerate().filter(|_| there) {
            Addresses::attack(&mut aws, &AddressAttack::Attach(n), Timestamp::UNIX_EPOCH);
            match address {
                Some(true) => associate(&mut aws, n, n),
                Some(false) => assign(&mut aws, n),
                None => {}
            }
            aws.interfaces[n].managed = managed;
        }
        aws
    }
}

fn attacks() -> BoxedStrategy<AddressAttack> {
    prop_oneof![
        6 => (0..4_usize, 0..5_usize).prop_map(|(n, to)| AddressAttack::Move(n, to)),
        2 => (0..4_usize).prop_map(AddressAttack::Free),
        1 => (0..4_usize).prop_map(AddressAttack::Release),
        4 => (0..4_usize).prop_map(AddressAttack::Assign),
        2 => (0..4_usize).prop_map(AddressAttack::Attach),
        1 => (0..4_usize).prop_map(AddressAttack::Delete),
        1 => Just(AddressAttack::Mark),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_address_stays_public_against_any_order_of_events(
        aws in instances(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<Addresses>::new(resource(ResourceKind::Ec2Instance), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn undisturbed_addresses_are_given_back_exactly(
        mut aws in instances(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.instance.iter_mut().for_each(|i| i.tags.clear());
        let before = shown(&aws);
        let mut simulation = Simulation::<Addresses>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released);
        prop_assert_eq!(shown(&simulation.aws), before);
    }
}
