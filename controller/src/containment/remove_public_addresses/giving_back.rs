//! The way back: the same Elastic IPs to the same interfaces, and an address of AWS's where it had assigned one. That one is new.
//!
//! Given back only where AWS shows what the containment left: free addresses, and interfaces without any. Never away from somebody who
//! uses the address meanwhile.

use std::collections::BTreeSet;

use firebreak_crds::{ActionState, OnConflict};

use super::{Addresses, Elastic, Look, Original, is_assigned, originals, surfaced_key, take_away};
use crate::aws::{Call, ElasticAddress, Instance, Interface};
use crate::containment::action::Action as _;
use crate::containment::case::Case;
use crate::containment::plan::Plan;

/// What can be said and done about one release.
#[derive(Default)]
struct Way {
    calls: Vec<Call>,
    said: Vec<String>,
    conflict: bool,
    absent: bool,
}

pub(super) fn plan(case: &Case, look: &Look) -> Plan {
    let mut way = Way::default();
    if look.instance.as_ref().is_none_or(Instance::is_ended) {
        let mut plan = Plan::gone(case, Addresses::NAME, look.instance.as_ref());
        if plan.verdict.state == ActionState::Released {
            plan.verdict.message.push_str(": its Elastic IPs stay allocated, and free");
        }
        return plan;
    }
    for (id, original) in originals(case) {
        match look.interface(&id) {
            None => {
                way.absent = true;
                way.said.push(format!("{id}: no longer exists; its Elastic IPs stay free"));
            }
            Some(i) if i.instance.as_ref().is_some_and(|other| *other != case.resource.id) => {
                if case.decision != Some(OnConflict::KeepTheirs) && !original.is_empty(case, &id) {
                    way.conflict(format!("{id}: is attached to another instance now; detach it, or spec.release.onConflict: KeepTheirs leaves it as it is"));
                }
            }
            Some(interface) => way.interface(case, look, interface, &original),
        }
    }
    if case.is_unknown(Addresses::NAME) && case.decision != Some(OnConflict::KeepTheirs) {
        way.conflict("which public addresses it had before is not known: associate them by hand, then spec.release.onConflict: KeepTheirs".into());
    }
    way.plan()
}

impl Original {
    fn is_empty(&self, case: &Case, interface: &str) -> bool {
        self.elastic.is_empty() && !self.was_assigned(case, interface)
    }

    /// Whether AWS assigns an address to this interface.
    fn was_assigned(&self, case: &Case, interface: &str) -> bool {
        self.assigned || case.original.contains_key(&surfaced_key(interface))
    }
}

impl Way {
    fn conflict(&mut self, what: String) {
        self.conflict = true;
        self.said.push(what);
    }

    fn plan(mut self) -> Plan {
        // Two interfaces can speak of one address that was moved from one to the other.
        let mut once = Vec::with_capacity(self.calls.len());
        self.calls.drain(..).for_each(|call| {
            if !once.contains(&call) {
                once.push(call);
            }
        });
        let mut plan = Plan { calls: once, ..Plan::default() };
        plan.settle_release(self.conflict);
        plan.verdict.message = self.said.join("; ");
        plan.verdict.absent = self.absent;
        plan
    }

    fn interface(&mut self, case: &Case, look: &Look, interface: &Interface, original: &Original) {
        self.others(case, interface, original);
        if self.assigned(case, look, interface, original) {
            return; // AWS's address first: an Elastic IP then takes its place, and hides it as before
        }
        for elastic in &original.elastic {
            self.elastic(case, look, interface, elastic);
        }
    }

    /// Addresses that somebody gave it and that it did not have before.
    fn others(&mut self, case: &Case, interface: &Interface, original: &Original) {
        let had: BTreeSet<&str> = original.elastic.iter().map(|e| e.allocation_id.as_str()).collect();
        let assigned = original.was_assigned(case, &interface.id) || original.hidden;
        for address in &interface.addresses {
            if address.allocation.as_deref().map_or(assigned, |a| had.contains(a)) {
                continue;
            }
            match case.decision {
                Some(OnConflict::KeepTheirs) => {}
                Some(OnConflict::RestoreOriginal) => self.calls.extend(take_away(interface, address)),
                None => self.conflict(format!(
                    "{} has {} now, which it had not before containment: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
                    interface.id, address.public
                )),
            }
        }
    }

    /// Whether AWS's own address is to come back first.
    fn assigned(&mut self, case: &Case, look: &Look, interface: &Interface, original: &Original) -> bool {
        let covered = interface.addresses.iter().any(|a| a.private == interface.private);
        if !original.was_assigned(case, &interface.id) {
            return false;
        }
        if is_assigned(interface) {
            self.said.push(format!("{}: the address that AWS assigned is a new one", interface.id));
        }
        if covered || is_assigned(interface) {
            return false;
        }
        if look.instance.as_ref().is_some_and(|i| i.state == "running") {
            self.calls.push(Call::AssociatePublicIpAddress { interface: interface.id.clone(), on: true });
            return true;
        }
        if case.decision != Some(OnConflict::KeepTheirs) {
            self.conflict(format!("{}: AWS assigned it an address, and does so only while the instance runs: start it, or spec.release.onConflict: KeepTheirs leaves it without", interface.id));
        }
        false
    }

    fn elastic(&mut self, case: &Case, look: &Look, interface: &Interface, elastic: &Elastic) {
        let Elastic { allocation_id, private_ip_address, public_ip } = elastic;
        let Some(now) = look.elastic.iter().find(|e| e.allocation == *allocation_id) else {
            let what =
                format!("Elastic IP {public_ip} ({allocation_id}) of {} was released and cannot come back", interface.id);
            return match case.decision {
                Some(_) => self.said.push(what),
                None => self.conflict(format!("{what}: spec.release.onConflict: KeepTheirs goes on without it")),
            };
        };
        match now {
            ElasticAddress { association: None, .. } if !has(interface, private_ip_address) => {
                let what = format!("{} has the private address {private_ip_address} no longer, where Elastic IP {public_ip} was", interface.id);
                match case.decision {
                    Some(_) => self.said.push(what),
                    None => self.conflict(format!("{what}: assign it again, or spec.release.onConflict: KeepTheirs goes on without it")),
                }
            }
            ElasticAddress { association: None, .. } if !is_taken(interface, private_ip_address) => {
                self.calls.push(Call::AssociateAddress {
                    allocation: allocation_id.clone(),
                    interface: interface.id.clone(),
                    private: private_ip_address.clone(),
                    public: public_ip.clone(),
                });
            }
            ElasticAddress { association: None, .. } => {} // what is there is somebody's: it was spoken of already
            now if now.is_on(&interface.id, private_ip_address) => {}
            ElasticAddress { association, interface: at, .. } => match (case.decision, association) {
                (Some(OnConflict::RestoreOriginal), Some(association)) => {
                    self.calls.push(Call::DisassociateAddress { association: association.clone(), public: public_ip.clone() });
                }
                (None, _) => self.conflict(format!(
                    "Elastic IP {public_ip} ({allocation_id}) of {} is at {} now: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
                    interface.id,
                    at.as_deref().unwrap_or("another place")
                )),
                _ => {}
            },
        }
    }
}

fn has(interface: &Interface, private: &str) -> bool {
    interface.private == private || interface.private_addresses.iter().any(|a| a == private)
}

/// Whether another Elastic IP stands at that private address.
fn is_taken(interface: &Interface, private: &str) -> bool {
    interface.addresses.iter().any(|a| a.private == private && a.allocation.is_some())
}
