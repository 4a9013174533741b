//! Shorter memory of idle flows: what the VPC tracks already is forgotten after a minute without traffic, and not after days. It cuts
//! nothing that talks on. Nothing waits for it, and it needs the Nitro system.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html#connection-tracking-timeouts>

use firebreak_crds::{IsolateNetwork, OnConflict};

use super::{Isolation, Look, key};
use crate::aws::{AwsError, Call, IdleTimeouts, Interface, Session};
use crate::containment::action::Action;
use crate::containment::case::Case;
use crate::containment::plan::{Plan, RECORDS};

const SHORT: IdleTimeouts = IdleTimeouts::SHORTEST;
/// Records of what was there before go by this and the interface.
pub(super) const TRACKING: &str = "tracking-";

/// Whether it is asked for, or was: it stays until the release.
fn is_wanted(case: &Case, params: &IsolateNetwork) -> bool {
    params.shorten_connection_tracking || records(case).next().is_some()
}

fn records(case: &Case) -> impl Iterator<Item = (&str, Option<IdleTimeouts>)> {
    let interfaces = case.records_of(Isolation::NAME).filter_map(|sub| sub.strip_prefix(TRACKING));
    interfaces.map(|id| (id, case.recorded(&record_of(id))))
}

fn record_of(interface: &str) -> String {
    key(&format!("{TRACKING}{interface}"))
}

fn long(look: &Look) -> impl Iterator<Item = &Interface> {
    look.own().filter(|i| i.idle != SHORT)
}

/// Whether this record began before the interface was isolated. Where it did not, somebody may have set anything since: what is found
/// is no original.
fn is_known(case: &Case, interface: &Interface) -> bool {
    case.stored.contains(&key(&interface.id))
}

/// Whether the instance can have it: read where something is to be set, once all is cut. None where that is not known.
pub(super) async fn nitro(
    aws: &Session,
    case: &Case,
    params: &IsolateNetwork,
    look: &Look,
) -> Result<Option<bool>, AwsError> {
    match &look.instance {
        Some(instance) if is_wanted(case, params) && long(look).next().is_some() => {
            aws.is_nitro(case.instance().0, &instance.kind).await
        }
        _ => Ok(None),
    }
}

/// Sets what is longer, once everything is cut.
pub(super) fn shorten(plan: &mut Plan, case: &Case, params: &IsolateNetwork, look: &Look) {
    if !is_wanted(case, params) || look.nitro != Some(true) {
        return;
    }
    for interface in long(look) {
        let record = record_of(&interface.id);
        if case.original.contains_key(&record) {
            plan.verdict.drift.push(format!("{}: idle flows were kept longer: {}", interface.id, interface.idle));
        } else if is_known(case, interface) {
            if case.original.len() >= RECORDS {
                continue;
            }
            plan.record(record, &interface.idle);
        }
        plan.calls.push(set(&interface.id, SHORT, false));
    }
}

fn set(interface: &str, timeouts: IdleTimeouts, restore: bool) -> Call {
    Call::SetIdleTimeouts { interface: interface.to_owned(), timeouts, restore }
}

/// How far it is, in a few words.
pub(super) fn said(case: &Case, params: &IsolateNetwork, look: &Look) -> Option<String> {
    let (short, all) = (look.own().filter(|i| i.idle == SHORT).count(), look.own().count());
    let why = match look.nitro {
        Some(false) => ": AWS shows no Nitro hypervisor for its type",
        None if short < all => ": AWS does not answer ec2:DescribeInstanceTypes",
        _ => "",
    };
    is_wanted(case, params).then(|| format!("flows idle for 60 s are forgotten on {short} of {all}{why}"))
}

/// Gives back what was there before, where AWS still shows ours. Returns what a person must decide.
pub(super) fn restore(plan: &mut Plan, case: &Case, look: &Look) -> Vec<String> {
    let mut theirs = Vec::new();
    for (id, original) in records(case) {
        let (Some(now), Some(original)) = (look.interface(id), original) else { continue };
        match case.decision {
            _ if now.idle == original => {}
            _ if now.idle == SHORT => plan.calls.push(set(id, original, true)),
            Some(OnConflict::KeepTheirs) => {}
            Some(OnConflict::RestoreOriginal) => plan.calls.push(set(id, original, true)),
            None => theirs.push(format!(
                "{id}: idle flows: now {}, before containment {original}: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
                now.idle
            )),
        }
    }
    theirs
}

#[cfg(test)]
#[path = "tracking_tests.rs"]
mod tests;
