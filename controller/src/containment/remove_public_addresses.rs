//! `removePublicAddresses`: no interface of the instance has a public IPv4 address.
//!
//! Elastic IPs are disassociated and stay allocated; an address that AWS assigned goes by the interface's own switch, and where an
//! Elastic IP goes AWS may assign one: the next look takes it away too. What is recorded per interface is what it had when first seen;
//! what comes later is not given back.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-instance-addressing.html>

mod giving_back;

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::{Plan, RECORDS};
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, ElasticAddress, Instance, Interface, Outcome, PublicAddress, Session};

/// The action.
pub struct Addresses;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    pub(super) interfaces: Vec<Interface>,
    /// The recorded Elastic IPs, wherever they are now; read when releasing.
    pub(super) elastic: Vec<ElasticAddress>,
}

/// What is recorded per interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Original {
    elastic: Vec<Elastic>,
    /// Whether AWS had assigned an address.
    assigned: bool,
    /// AWS shows no assigned address beneath an Elastic IP, and none while the instance does not run: one that shows up later was
    /// there before.
    hidden: bool,
}

/// An Elastic IP of an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Elastic {
    allocation_id: String,
    private_ip_address: String,
    public_ip: String,
}

impl Action for Addresses {
    const NAME: &'static str = "removePublicAddresses";
    const STAGE: Stage = Stage::Access;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub.split_once('/') {
            None if sub.starts_with("eni-") => reads::<Original>(text),
            Some((_, "assigned")) => reads::<bool>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let (instance, interfaces) = futures::join!(aws.instance(region, id), aws.interfaces(region, id));
        let mut look = Look { instance: instance?, interfaces: interfaces?, elastic: Vec::new() };
        if params.is_none() {
            let missing: Vec<String> = originals(case).map(|(id, _)| id).filter(|id| look.interface(id).is_none()).collect();
            let allocations = originals(case).flat_map(|(_, o)| o.elastic).map(|e| e.allocation_id).collect();
            let (more, elastic) =
                futures::join!(aws.interfaces_by_id(region, missing), aws.elastic_addresses(region, allocations));
            look.interfaces.extend(more?);
            look.elastic = elastic?;
        }
        Ok(look)
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_terminated() {
            return Plan::ended(case, instance, "the instance is terminated: it has no addresses");
        }
        let mut plan = Plan::default();
        if case.is_unknown(Self::NAME) || (!case.has_record_of(Self::NAME) && is_marked_before(case, &instance.tags)) {
            plan.unknown(case, Self::NAME);
        }
        for interface in look.interfaces.iter().filter(|i| !i.managed) {
            record(&mut plan, case, instance, interface);
            plan.calls.extend(interface.addresses.iter().filter_map(|address| take_away(interface, address)));
        }
        judge(&mut plan, look, instance);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        giving_back::plan(case, look)
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::DisassociateAddress { association, .. } => look.freed(association),
            Call::AssociateAddress { allocation, interface, private, public } => {
                look.associated(allocation, interface, private, public);
            }
            Call::AssociatePublicIpAddress { interface, on } => look.assigned(interface, *on),
            _ => {}
        }
    }
}

impl Look {
    fn interface(&self, id: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.id == id)
    }

    fn freed(&mut self, association: &str) {
        let is_it = |a: &Option<String>| a.as_deref() == Some(association);
        self.interfaces.iter_mut().for_each(|i| i.addresses.retain(|a| !is_it(&a.association)));
        for address in self.elastic.iter_mut().filter(|e| is_it(&e.association)) {
            (address.association, address.interface, address.private) = (None, None, None);
        }
    }

    /// An Elastic IP takes the place of what the private address had.
    fn associated(&mut self, allocation: &str, interface: &str, private: &str, public: &str) {
        let association = Some(format!("{allocation} on {interface}"));
        for address in self.elastic.iter_mut().filter(|e| e.allocation == allocation) {
            address.association.clone_from(&association);
            (address.interface, address.private) = (Some(interface.to_owned()), Some(private.to_owned()));
        }
        for interface in self.interfaces.iter_mut().filter(|i| i.id == interface) {
            interface.addresses.retain(|a| a.private != private);
            let allocation = Some(allocation.to_owned());
            let (public, private, association) = (public.to_owned(), private.to_owned(), association.clone());
            interface.addresses.push(PublicAddress { public, private, allocation, association });
        }
    }

    fn assigned(&mut self, interface: &str, on: bool) {
        for interface in self.interfaces.iter_mut().filter(|i| i.id == interface) {
            interface.addresses.retain(|a| a.allocation.is_some());
            if on {
                let (public, private) = ("(new)".to_owned(), interface.private.clone());
                interface.addresses.push(PublicAddress { public, private, allocation: None, association: None });
            }
        }
    }
}

impl Original {
    /// An Elastic IP that is on record for another interface was moved here since: it is that one's.
    fn of(case: &Case, instance: &Instance, interface: &Interface) -> Self {
        let known: Vec<String> = originals(case).flat_map(|(_, o)| o.elastic).map(|e| e.allocation_id).collect();
        let elastic = |a: &PublicAddress| {
            let allocation_id = a.allocation.clone().filter(|id| !known.contains(id))?;
            Some(Elastic { allocation_id, private_ip_address: a.private.clone(), public_ip: a.public.clone() })
        };
        let covered = interface.addresses.iter().any(|a| a.allocation.is_some() && a.private == interface.private);
        Self {
            elastic: interface.addresses.iter().filter_map(elastic).collect(),
            assigned: is_assigned(interface),
            hidden: covered || instance.state != "running",
        }
    }
}

/// Whether AWS itself assigned an address to the interface.
fn is_assigned(interface: &Interface) -> bool {
    interface.addresses.iter().any(|a| a.allocation.is_none())
}

/// What each interface had when it was first seen.
fn originals(case: &Case) -> impl Iterator<Item = (String, Original)> + '_ {
    case.records_of(Addresses::NAME).filter_map(|id| Some((id.to_owned(), case.recorded(&key(id))?)))
}

/// Records an interface once; and an assigned address that shows up where none could be seen before.
fn record(plan: &mut Plan, case: &Case, instance: &Instance, interface: &Interface) {
    let original = case.recorded::<Original>(&key(&interface.id));
    let (known, hidden) = (original.is_some(), original.is_some_and(|o| o.hidden));
    let surfaced = hidden && is_assigned(interface) && !case.original.contains_key(&surfaced_key(&interface.id));
    if known && !surfaced {
        let what = |a: &PublicAddress| format!("{} had the public address {}", interface.id, a.public);
        plan.verdict.drift.extend(interface.addresses.iter().map(what));
    } else if known {
        plan.record(surfaced_key(&interface.id), &true);
    } else if !plan.verdict.unknown && case.original.len() + plan.record.len() >= RECORDS {
        plan.unknown(case, Addresses::NAME); // taken away all the same
    } else if !plan.verdict.unknown {
        plan.record(key(&interface.id), &Original::of(case, instance, interface));
    }
}

fn key(interface: &str) -> String {
    format!("{}/{interface}", Addresses::NAME)
}

/// Under this key it is noted that AWS assigned an address once nothing hid it any more.
fn surfaced_key(interface: &str) -> String {
    format!("{}/{interface}/assigned", Addresses::NAME)
}

fn take_away(interface: &Interface, address: &PublicAddress) -> Option<Call> {
    match (&address.allocation, &address.association) {
        (Some(_), Some(association)) => {
            Some(Call::DisassociateAddress { association: association.clone(), public: address.public.clone() })
        }
        (Some(_), None) => None,
        (None, _) => Some(Call::AssociatePublicIpAddress { interface: interface.id.clone(), on: false }),
    }
}

/// How it stands, in one sentence.
fn judge(plan: &mut Plan, look: &Look, instance: &Instance) {
    let (total, own) = (look.interfaces.len(), look.interfaces.iter().filter(|i| !i.managed));
    let left: Vec<String> = own.flat_map(|i| i.addresses.iter().map(|a| format!("{} has {}", i.id, a.public))).collect();
    let managed: Vec<&str> =
        look.interfaces.iter().filter(|i| i.managed && !i.addresses.is_empty()).map(|i| i.id.as_str()).collect();
    let unseen: Vec<&str> =
        instance.interfaces.iter().filter(|id| look.interface(id).is_none()).map(String::as_str).collect();
    let unseen = if instance.is_ended() { Vec::new() } else { unseen }; // its interfaces go, one after the other
    let ipv6: usize = look.interfaces.iter().map(|i| i.ipv6).sum();
    let without = look.interfaces.iter().filter(|i| i.addresses.is_empty()).count();
    let said = [
        Some(format!("{without} of {total} interfaces have no public IPv4 address")),
        (!left.is_empty()).then(|| left.join(", ")),
        (!unseen.is_empty()).then(|| format!("{} cannot be looked at yet", unseen.join(", "))),
        (!managed.is_empty()).then(|| format!("{} belong to an AWS service and keep theirs", managed.join(", "))),
        (ipv6 > 0).then(|| format!("{ipv6} IPv6 addresses stay: isolateNetwork cuts them")),
        plan.verdict.unknown.then(|| {
            "the instance carried Firebreak's marks before this record began, or the record is full: which addresses it had is not known".to_owned()
        }),
    ];
    plan.verdict.state = match (plan.is_done(), left.is_empty() && managed.is_empty()) {
        (true, true) if unseen.is_empty() => ActionState::InForce,
        (true, false) => ActionState::Failed,
        _ => ActionState::InProgress,
    };
    plan.verdict.message = said.into_iter().flatten().collect::<Vec<_>>().join("; ");
}

#[cfg(test)]
#[path = "remove_public_addresses_tests.rs"]
mod tests;
