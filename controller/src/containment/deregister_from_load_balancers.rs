//! `deregisterFromLoadBalancers`: an instance gets no more new requests from load balancers. Every target group of its VPC, and
//! every classic load balancer, that has it by id or by any private address of any interface lets it go.
//!
//! Load balancers drain what is open (300 s by default); nothing waits for that, and the status says where it is so. The first
//! look records where it was registered; what somebody registers later goes too, and is none that comes back.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeregisterTargets.html>

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{ActionState, Empty, OnConflict};
use futures::future::try_join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::tag_resource::is_marked_before;
use crate::aws::{
    AwsError, Call, ClassicBalancer, Instance, Outcome, Registration, Session, Target, TargetGroup,
    target_group_name as name,
};

/// The record has room for 256 entries of all actions; more load balancers than this are not recorded, but left all the same.
const RECORDS: usize = 40;
/// So many ports of one instance fit into one entry.
const TARGETS: usize = 64;
/// Between the action's name and a classic load balancer's: target groups have ARNs.
const CLASSIC: &str = "classic/";

/// The action.
pub struct LoadBalancers;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    /// The private addresses of its interfaces.
    pub(super) addresses: Vec<String>,
    /// All target groups of its VPC; of their targets only those that are this instance.
    pub(super) groups: Vec<TargetGroup>,
    /// All classic load balancers; of their instances only this one.
    pub(super) classic: Vec<ClassicBalancer>,
}

/// What is recorded per target group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Original {
    pub(super) targets: Vec<Registration>,
}

/// What is recorded of the first look.
#[derive(Deserialize)]
struct First {
    at: Timestamp,
}

impl Action for LoadBalancers {
    const NAME: &'static str = "deregisterFromLoadBalancers";
    const STAGE: Stage = Stage::Service;
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Empty>(text), // that it was registered nowhere else
            place if is_place(place) => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let (instance, interfaces) = futures::join!(aws.instance(region, id), aws.interfaces(region, id));
        let (instance, interfaces) = (instance?, interfaces?);
        let vpcs: BTreeSet<&String> = interfaces.iter().map(|i| &i.vpc).collect();
        let groups = try_join_all(vpcs.into_iter().map(|vpc| aws.target_groups(region, vpc)));
        let (groups, classic) = futures::join!(groups, aws.classic_balancers(region));
        let addresses: Vec<String> = interfaces.into_iter().flat_map(|i| i.private_addresses).collect();
        let is_it = |target: &Registration| target.id == *id || addresses.contains(&target.id);
        let groups = groups?.iter().flat_map(|groups| groups.iter()).map(|g| g.with(|t| is_it(&t.registration))).collect();
        let classic = classic?.iter().map(|b| b.with(id)).collect();
        Ok(Look { instance, addresses, groups, classic })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_terminated() {
            return Plan::ended(case, instance, "the instance is terminated: load balancers let it go by themselves");
        }
        let mut plan = Plan::default();
        record(&mut plan, case, instance, look);
        leave(&mut plan, case, look);
        plan.verdict.state = if plan.calls.is_empty() { ActionState::InForce } else { ActionState::InProgress };
        plan.verdict.message = said(case, look, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        if look.instance.as_ref().is_none_or(Instance::is_ended) {
            return Plan::gone(case, Self::NAME, look.instance.as_ref());
        }
        let mut back = Back::default();
        for place in places(case) {
            let call = match place.strip_prefix(CLASSIC) {
                Some(name) => back_to_classic(case, look, name, &mut back.notes),
                None => back_to_group(case, look, place, &mut back),
            };
            back.calls.extend(call);
        }
        if case.is_unknown(Self::NAME) && case.decision != Some(OnConflict::KeepTheirs) {
            back.conflict = true;
            let what = "what else it was registered with is not known: register it by hand, then spec.release.onConflict: KeepTheirs";
            back.notes.push(what.into());
        }
        let mut plan = back.plan();
        plan.verdict.absent = places(case).any(|place| !look.has(place));
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::DeregisterTargets { group, targets } => look.set(group, targets, false),
            Call::RegisterTargets { group, targets } => look.set(group, targets, true),
            Call::DeregisterInstancesFromLoadBalancer { balancer, .. } => {
                look.classic.iter_mut().filter(|b| b.name == *balancer).for_each(|b| b.instances.clear());
            }
            Call::RegisterInstancesWithLoadBalancer { balancer, instance } => {
                look.classic.iter_mut().filter(|b| b.name == *balancer).for_each(|b| b.instances = vec![instance.clone()]);
            }
            _ => {}
        }
    }
}

/// A release.
#[derive(Default)]
struct Back {
    calls: Vec<Call>,
    notes: Vec<String>,
    conflict: bool,
    waits: bool,
}

impl Back {
    fn plan(self) -> Plan {
        let state = match (self.calls.is_empty() && !self.waits, self.conflict) {
            (false, _) => ActionState::InProgress,
            (true, true) => ActionState::Conflict,
            (true, false) => ActionState::Released,
        };
        Plan { calls: self.calls, ..Plan::done(state, self.notes.join("; ")) }
    }

    /// Whether AWS takes the instance into a target group: only while it runs.
    fn takes(&mut self, case: &Case, look: &Look, group: &str) -> bool {
        match look.instance.as_ref().map_or("", |i| i.state.as_str()) {
            "running" => return true,
            "pending" => {
                self.waits = true;
                self.notes.push(format!("{group} takes it when it runs: it is starting"));
            }
            state if case.decision == Some(OnConflict::KeepTheirs) => {
                self.notes.push(format!("not registered again with {group}: it is {state}"));
            }
            state => {
                self.conflict = true;
                self.notes.push(format!("it is {state}, and {group} takes only a running instance: start it, or spec.release.onConflict: KeepTheirs leaves it out"));
            }
        }
        false
    }
}

impl Look {
    fn group(&self, arn: &str) -> Option<&TargetGroup> {
        self.groups.iter().find(|g| g.arn == arn)
    }

    /// Whether AWS shows the load balancer or target group on record under that name.
    fn has(&self, place: &str) -> bool {
        match place.strip_prefix(CLASSIC) {
            Some(name) => self.classic.iter().any(|b| b.name == name),
            None => self.group(place).is_some(),
        }
    }

    /// What a call does: a target that is taken out drains first.
    fn set(&mut self, arn: &str, targets: &[Registration], registered: bool) {
        let Some(group) = self.groups.iter_mut().find(|g| g.arn == arn) else { return };
        group.targets.retain(|t| !targets.contains(&t.registration));
        let target =
            |r: &Registration| Target { registration: r.clone(), registered, draining: !registered, healthy: false };
        group.targets.extend(targets.iter().map(target));
    }
}

fn registered(group: &TargetGroup) -> Vec<Registration> {
    group.targets.iter().filter(|t| t.registered).map(|t| t.registration.clone()).collect()
}

fn key(place: &str) -> String {
    format!("{}/{place}", LoadBalancers::NAME)
}

/// What it was registered with: ARNs of target groups, and names of classic load balancers.
fn places(case: &Case) -> impl Iterator<Item = &str> {
    case.records_of(LoadBalancers::NAME).filter(|place| is_place(place))
}

fn is_place(sub: &str) -> bool {
    sub.starts_with("arn:") || sub.starts_with(CLASSIC)
}

/// Once, with the first look, everything in one write. Nothing where it carries marks of before: somebody may have registered it
/// while nobody looked.
fn record(plan: &mut Plan, case: &Case, instance: &Instance, look: &Look) {
    let first = !case.has_record_of(LoadBalancers::NAME);
    if case.is_unknown(LoadBalancers::NAME) || (first && is_marked_before(case, &instance.tags)) {
        plan.unknown(case, LoadBalancers::NAME);
    }
    if !first || plan.verdict.unknown {
        return;
    }
    let found = found(case, look);
    if found.len() > RECORDS || found.iter().any(|(_, original)| original.targets.len() > TARGETS) {
        plan.unknown(case, LoadBalancers::NAME); // left all the same: whoever registers it everywhere must not keep it there
    }
    plan.record(LoadBalancers::NAME, &serde_json::json!({ "loadBalancers": found.len(), "at": case.now }));
    for (place, mut original) in found.into_iter().take(RECORDS) {
        original.targets.truncate(TARGETS);
        plan.record(key(&place), &original);
    }
}

/// Where it is registered now. Auto Scaling takes what leaves a group out of its load balancers itself: where our own
/// `detachFromAutoScaling` took it out of one first, what drains was registered before.
fn found(case: &Case, look: &Look) -> Vec<(String, Original)> {
    use super::detach_from_auto_scaling::{AutoScaling, Original as Place};
    let ours = case.recorded::<Place>(AutoScaling::NAME).is_some_and(|o| o.group.is_some());
    let counts = |t: &&Target| t.registered || (ours && t.draining);
    let targets = |g: &TargetGroup| g.targets.iter().filter(counts).map(|t| t.registration.clone()).collect::<Vec<_>>();
    let groups = look.groups.iter().map(|g| (g.arn.clone(), Original { targets: targets(g) }));
    let classic = look.classic.iter().filter(|b| !b.instances.is_empty());
    let classic = classic.map(|b| (format!("{CLASSIC}{}", b.name), Original::default()));
    groups.filter(|(_, original)| !original.targets.is_empty()).chain(classic).collect()
}

/// All at once, side by side.
fn leave(plan: &mut Plan, case: &Case, look: &Look) {
    for group in &look.groups {
        let targets = registered(group);
        plan.verdict.drift.extend(targets.iter().map(|t| format!("{} was registered with {}", shown(t), name(&group.arn))));
        if !targets.is_empty() {
            plan.calls.push(Call::DeregisterTargets { group: group.arn.clone(), targets });
        }
    }
    for balancer in look.classic.iter().filter(|b| !b.instances.is_empty()) {
        let (balancer, instance) = (balancer.name.clone(), case.resource.id.clone());
        plan.verdict.drift.push(format!("it was registered with the classic load balancer {balancer}"));
        plan.calls.push(Call::DeregisterInstancesFromLoadBalancer { balancer, instance });
    }
}

fn shown(target: &Registration) -> String {
    target.port.map_or_else(|| target.id.clone(), |port| format!("{}:{port}", target.id))
}

/// How it stands, in one sentence.
fn said(case: &Case, look: &Look, unknown: bool) -> String {
    let with = |such: fn(&Target) -> bool| {
        let groups = look.groups.iter().filter(move |g| g.targets.iter().any(such));
        groups.map(|g| name(&g.arn)).collect::<Vec<_>>().join(", ")
    };
    let classic: Vec<&str> = look.classic.iter().filter(|b| !b.instances.is_empty()).map(|b| b.name.as_str()).collect();
    let registered = with(|t| t.registered);
    let drains = look.groups.iter().filter(|g| g.targets.iter().any(|t| t.draining));
    let draining = drains.map(|g| name(&g.arn).to_owned() + &until(case, g)).collect::<Vec<_>>().join(", ");
    let left = places(case).map(name).collect::<Vec<_>>().join(", ");
    let lines = [
        (!registered.is_empty()).then(|| format!("registered with {registered}")),
        (!classic.is_empty()).then(|| format!("registered with the classic {}", classic.join(", "))),
        (registered.is_empty() && classic.is_empty())
            .then(|| if left.is_empty() { "registered with no load balancer".to_owned() } else { format!("out of {left}") }),
        (!draining.is_empty()).then(|| format!("Draining: {draining} still serve what is open")),
        unknown.then(|| "what else it was registered with is not known".to_owned()),
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// How long it drains what was taken out at first. What somebody registered since drains for as long again.
fn until(case: &Case, group: &TargetGroup) -> String {
    let first = case.recorded::<First>(LoadBalancers::NAME);
    let until = first.zip(group.drains_for).map(|(first, delay)| first.at + SignedDuration::from_secs(delay));
    until.filter(|until| *until > case.now).map_or_else(String::new, |until| format!(" until {until}"))
}

/// The recorded targets that are missing, but for an address that is another's by now.
fn back_to_group(case: &Case, look: &Look, arn: &str, back: &mut Back) -> Option<Call> {
    let Some(group) = look.group(arn) else {
        back.notes.push(format!("target group {} no longer exists", name(arn)));
        return None;
    };
    let now = registered(group);
    let original = case.recorded::<Original>(&key(arn)).unwrap_or_default();
    let missing = original.targets.into_iter().filter(|t| !now.contains(t));
    let (own, lost): (Vec<_>, Vec<_>) = missing.partition(|t| t.id == case.resource.id || look.addresses.contains(&t.id));
    back.notes.extend(lost.iter().map(|t| format!("{} is the instance's address no longer: not registered", t.id)));
    if own.iter().any(|t| t.id == case.resource.id) && !back.takes(case, look, name(arn)) {
        return None;
    }
    if !own.is_empty() || lost.is_empty() {
        let how = if own.is_empty() { "registered again with" } else { "registers again with" };
        back.notes.push(format!("{how} {}", name(arn)));
    }
    (!own.is_empty()).then(|| Call::RegisterTargets { group: arn.to_owned(), targets: own })
}

fn back_to_classic(case: &Case, look: &Look, balancer: &str, notes: &mut Vec<String>) -> Option<Call> {
    match look.classic.iter().find(|b| b.name == balancer) {
        None => notes.push(format!("classic load balancer {balancer} no longer exists")),
        Some(b) if b.instances.is_empty() => {
            let (balancer, instance) = (balancer.to_owned(), case.resource.id.clone());
            return Some(Call::RegisterInstancesWithLoadBalancer { balancer, instance });
        }
        Some(_) => notes.push(format!("registered again with {balancer}")),
    }
    None
}

#[cfg(test)]
#[path = "deregister_from_load_balancers_tests.rs"]
mod tests;
