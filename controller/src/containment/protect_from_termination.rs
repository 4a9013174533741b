//! `protectFromTermination`: the instance and its volumes stay, so that there is something to investigate.
//!
//! Four attributes, each set by a call of its own: one that AWS refuses holds no other back. All are alike: protected or not.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_ChangingDisableAPITermination.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-stop-protection.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, OnConflict};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::{Plan, RECORDS};
use super::stop_instance::{LIFTED, Stop};
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Instance, InstanceAttribute, InstanceProtection, Outcome, Session};

const TERMINATION: &str = "disableApiTermination";
const STOP: &str = "disableApiStop";
const SHUTDOWN: &str = "instanceInitiatedShutdownBehavior";
/// Volumes are recorded by their id.
const VOLUME: &str = "vol-";

/// The action.
pub struct Protection;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    pub(super) protection: Option<InstanceProtection>,
}

/// What is recorded per attribute and per volume: for a volume, whether it outlives the instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Original {
    protected: bool,
}

impl Action for Protection {
    const NAME: &'static str = "protectFromTermination";
    const STAGE: Stage = Stage::Service;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            TERMINATION | STOP | SHUTDOWN => reads::<Original>(text),
            volume if volume.starts_with(VOLUME) => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let (instance, protection) = futures::join!(aws.instance(region, id), aws.instance_protection(region, id));
        Ok(Look { instance: instance?, protection: protection? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_ended() {
            return Plan::ended(case, instance, "the instance is terminated: nothing is left to protect");
        }
        let Some(mut shown) = look.shown() else { return not_yet() };
        // It would stop our own call: once it is lifted for that, or the instance does not run, stopInstance has it in hand.
        let stops = case.wants(Stop::NAME) && (case.original.contains_key(LIFTED) || instance.state != "running");
        shown.retain(|name, _| !(stops && name == STOP));
        let mut plan = Plan::default();
        if case.is_unknown(Self::NAME) || (!case.has_record_of(Self::NAME) && is_marked_before(case, &instance.tags)) {
            plan.unknown(case, Self::NAME);
        }
        for (name, protected) in &shown {
            record(&mut plan, case, name, *protected);
        }
        let open: Vec<&str> = shown.iter().filter(|(_, protected)| !**protected).map(|(name, _)| name.as_str()).collect();
        plan.verdict.drift = open.iter().map(|name| format!("{name} was unprotected")).collect();
        plan.calls = calls(instance, &open, true);
        plan.settle(ActionState::InForce);
        plan.verdict.message = message(instance, &shown, stops, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(instance) = look.instance.as_ref().filter(|i| !i.is_ended()) else {
            return Plan::gone(case, Self::NAME, look.instance.as_ref());
        };
        let Some(shown) = look.shown() else { return not_yet() };
        let (mut back, mut again, mut said, mut conflict) = (Vec::new(), Vec::new(), Vec::new(), false);
        let by_stop = case.original.contains_key(LIFTED); // stopInstance gives it back
        for name in case.records_of(Self::NAME).filter(|name| !(by_stop && *name == STOP)) {
            let Some(original) = case.recorded::<Original>(&key(name)) else { continue };
            match (shown.get(name), case.decision) {
                (None, _) => said.push(format!("{name}: is not attached any more")),
                (Some(now), _) if *now == original.protected => {}
                (Some(true), _) => back.push(name), // AWS shows what we put there
                (Some(false), Some(OnConflict::KeepTheirs)) => {}
                (Some(false), Some(OnConflict::RestoreOriginal)) => again.push(name),
                (Some(false), None) => {
                    conflict = true;
                    said.push(taken_away(name));
                }
            }
        }
        if case.is_unknown(Self::NAME) && case.decision != Some(OnConflict::KeepTheirs) {
            conflict = true;
            said.push(
                "what was protected before is not known: set it by hand, then spec.release.onConflict: KeepTheirs".into(),
            );
        }
        let mut plan = Plan { calls: calls(instance, &back, false), ..Plan::default() };
        plan.calls.extend(calls(instance, &again, true));
        plan.settle_release(conflict);
        plan.verdict.message = said.join("; ");
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        let Call::ModifyInstanceAttribute { attribute, protect, .. } = call else { return };
        let (Some(instance), Some(shown)) = (&mut look.instance, &mut look.protection) else { return };
        match attribute {
            InstanceAttribute::DisableApiTermination => shown.disable_api_termination = *protect,
            InstanceAttribute::DisableApiStop => shown.disable_api_stop = *protect,
            InstanceAttribute::InstanceInitiatedShutdownBehavior => shown.shutdown_stops = *protect,
            InstanceAttribute::DeleteOnTermination(devices) => {
                let named = instance.volumes.iter_mut().filter(|v| devices.contains(&v.device));
                named.for_each(|v| v.delete_on_termination = !protect);
            }
        }
    }
}

impl Look {
    /// What this kind of instance can have, and whether it has it.
    pub(super) fn shown(&self) -> Option<BTreeMap<String, bool>> {
        let (instance, protection) = (self.instance.as_ref()?, self.protection?);
        let attributes = [
            (TERMINATION, protection.disable_api_termination, !instance.spot),
            (STOP, protection.disable_api_stop, !instance.spot && instance.ebs_root),
            (SHUTDOWN, protection.shutdown_stops, instance.ebs_root),
        ];
        let attributes = attributes.into_iter().filter(|(.., can)| *can).map(|(name, on, _)| (name.to_owned(), on));
        let volumes = instance.volumes.iter().map(|v| (v.id.clone(), !v.delete_on_termination));
        Some(attributes.chain(volumes).collect())
    }
}

fn not_yet() -> Plan {
    Plan::done(ActionState::InProgress, "AWS does not show the instance's attributes yet")
}

/// Records an attribute or a volume once, when it is first seen; when the record is full, what it was is not known.
fn record(plan: &mut Plan, case: &Case, name: &str, protected: bool) {
    if plan.verdict.unknown || case.original.contains_key(&key(name)) {
        return;
    }
    if case.original.len() + plan.record.len() >= RECORDS {
        plan.unknown(case, Protection::NAME); // protected all the same: whoever attaches volumes all day must not lose them
    } else {
        plan.record(key(name), &Original { protected });
    }
}

fn key(name: &str) -> String {
    format!("{}/{name}", Protection::NAME)
}

/// One call for each attribute, and one for all volumes.
fn calls(instance: &Instance, names: &[&str], protect: bool) -> Vec<Call> {
    let attribute = |name: &&str| match *name {
        TERMINATION => Some(InstanceAttribute::DisableApiTermination),
        STOP => Some(InstanceAttribute::DisableApiStop),
        SHUTDOWN => Some(InstanceAttribute::InstanceInitiatedShutdownBehavior),
        _ => None,
    };
    let volumes = instance.volumes.iter().filter(|v| names.contains(&v.id.as_str()));
    let devices: Vec<String> = volumes.map(|v| v.device.clone()).collect();
    let volumes = (!devices.is_empty()).then_some(InstanceAttribute::DeleteOnTermination(devices));
    let call = |attribute| Call::ModifyInstanceAttribute { instance: instance.id.clone(), attribute, protect };
    names.iter().filter_map(attribute).chain(volumes).map(call).collect()
}

/// Whether stop protection was on before this action set it; None where it did not.
pub(super) fn stop_was_protected(case: &Case) -> Option<bool> {
    case.recorded::<Original>(&key(STOP)).map(|original| original.protected)
}

fn taken_away(name: &str) -> String {
    format!(
        "{name}: was protected before containment and is not now: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)"
    )
}

/// How it stands, and what this cannot prevent.
fn message(instance: &Instance, shown: &BTreeMap<String, bool>, stops: bool, unknown: bool) -> String {
    let group = instance.tags.get("aws:autoscaling:groupName");
    let said = [
        Some(protected(shown)),
        stops.then(|| "no stop protection, since stopInstance stops it".into()),
        instance.spot.then(|| "a Spot instance has no termination or stop protection: it can be ended all the same".into()),
        (!instance.ebs_root).then(|| "its root is instance store: a shutdown from within ends it".into()),
        group.map(|group| format!("Auto Scaling group {group} can terminate it all the same")),
        unknown.then(|| "it carried Firebreak's marks before this record began, or the record is full: what was protected before is not known".into()),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn protected(shown: &BTreeMap<String, bool>) -> String {
    let (volumes, attributes): (Vec<_>, Vec<_>) = shown.iter().partition(|(name, _)| name.starts_with(VOLUME));
    let count = |of: &[(&String, &bool)]| of.iter().filter(|(_, protected)| **protected).count();
    let (of_attributes, of_volumes) = (count(&attributes), count(&volumes));
    format!(
        "{of_attributes} of {} attributes protect it; {of_volumes} of {} volumes outlive it",
        attributes.len(),
        volumes.len()
    )
}

#[cfg(test)]
#[path = "protect_from_termination_tests.rs"]
mod tests;
