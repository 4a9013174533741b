//! `detachFromAutoScaling`: an instance leaves its Auto Scaling group, which could otherwise terminate it and the evidence
//! with it. The group keeps its desired capacity, so that it launches a replacement and the service stays up.
//!
//! `Detach` leaves the group; `Standby` stays in it, out of service. Protection from scale-in goes out beside either, for the
//! case that AWS refuses the other; nothing waits for it. A release gives the place in the group back only where every
//! holder's policy says so, since it raises the desired capacity.
//! <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-detach-attach-instances.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, DetachFromAutoScaling, DetachMode, OnConflict};
use serde::{Deserialize, Serialize};

use super::action::{Action, Merge, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Instance, Membership, Outcome, ScalingGroup, Session};

/// The action.
pub struct AutoScaling;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    /// None: it is in no group.
    pub(super) membership: Option<Membership>,
    /// The recorded group; read only where a release may put the instance back into it.
    pub(super) group: Option<ScalingGroup>,
}

/// What is recorded: the group's name is the only way back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Original {
    /// None: it was in no group.
    pub(super) group: Option<String>,
    pub(super) state: String,
    pub(super) protected: bool,
}

impl Action for AutoScaling {
    const NAME: &'static str = "detachFromAutoScaling";
    const STAGE: Stage = Stage::Service;
    type Params = DetachFromAutoScaling;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&DetachFromAutoScaling>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let back_to = case.recorded::<Original>(Self::NAME).and_then(|o| o.group);
        let back_to = back_to.filter(|_| params.is_none() && case.release.rejoin_auto_scaling);
        let group = async {
            match &back_to {
                Some(name) => aws.scaling_group(region, name).await,
                None => Ok(None),
            }
        };
        let reads = futures::join!(aws.instance(region, id), aws.membership(region, id), group);
        Ok(Look { instance: reads.0?, membership: reads.1?, group: reads.2? })
    }

    fn contain(case: &Case, params: &DetachFromAutoScaling, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_ended() {
            return Plan::ended(case, instance, "the instance is terminated: nothing is left to detach");
        }
        let mut plan = Plan::default();
        record(&mut plan, case, instance, look.membership.as_ref());
        match &look.membership {
            None => (plan.verdict.state, plan.verdict.message) = (ActionState::InForce, out(case)),
            Some(now) => leave(&mut plan, case, params.mode, now),
        }
        if plan.verdict.unknown {
            plan.verdict.message.push_str("; it carried Firebreak's marks before this record began: its group is not known");
        }
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(original) = case.recorded::<Original>(Self::NAME) else { return release_unknown(case) };
        if look.instance.as_ref().is_none_or(Instance::is_ended) {
            return Plan::gone(case, Self::NAME, look.instance.as_ref());
        }
        let rejoins = case.release.rejoin_auto_scaling;
        match (&look.membership, &original.group) {
            (None, None) => Plan::done(ActionState::Released, "it was in no Auto Scaling group"),
            (None, Some(group)) => rejoin(case, look, &original, group, false),
            (Some(now), Some(group)) if now.group == *group => match place(&now.state) {
                Place::Leaving if rejoins => waits(format!("it is still leaving Auto Scaling group {group}")),
                Place::Leaving => rejoin(case, look, &original, group, false),
                Place::Standby if in_service(&original) => rejoin(case, look, &original, group, true),
                _ => restore_protection(case, &original, now),
            },
            (Some(now), _) => theirs(case, &original, now),
        }
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::DetachInstances { .. } => look.membership = None,
            // A member is protected only once it is in service, which the next look shows.
            Call::AttachInstances { group, .. } => {
                look.membership = Some(Membership { group: group.clone(), state: "Pending".into(), protected: false });
            }
            _ => {}
        }
        let Some(now) = &mut look.membership else { return };
        match call {
            Call::SetInstanceProtection { protect, .. } => now.protected = *protect,
            Call::EnterStandby { .. } => now.state = "Standby".into(),
            Call::ExitStandby { .. } => now.state = "Pending".into(),
            _ => {}
        }
    }
}

/// Detach is the stricter. Where nobody asks any more, what is in Standby is not moved further.
impl Merge for DetachFromAutoScaling {
    fn merge(&self, other: &Self) -> Self {
        if self.mode == DetachMode::Detach { self.clone() } else { other.clone() }
    }

    fn kept() -> Self {
        Self { mode: DetachMode::Standby }
    }
}

/// What a lifecycle state comes to.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not there yet: AWS neither detaches nor protects it.
    Joining,
    In,
    /// In a warm pool, where AWS protects nothing.
    Warm,
    Standby,
    /// AWS drains its load balancers, then lets it go: nothing brings it back.
    Leaving,
    /// Too late.
    Ending,
}

fn place(state: &str) -> Place {
    match state {
        "Standby" | "EnteringStandby" => Place::Standby,
        "Detaching" | "Detached" => Place::Leaving,
        s if s.contains("Terminat") => Place::Ending,
        s if s.starts_with("Pending") => Place::Joining,
        s if s.starts_with("Warmed") => Place::Warm,
        _ => Place::In,
    }
}

/// Whether it is on its way out of its group.
pub(super) fn is_leaving(now: &Membership) -> bool {
    place(&now.state) == Place::Leaving
}

/// Whether it is in its group, out of service: AWS takes nothing out from there.
pub(super) fn is_standing_by(now: &Membership) -> bool {
    matches!(place(&now.state), Place::Standby | Place::Ending)
}

/// Whether it was in service, or on the way there: what Standby or a warm pool held is not put into service by a release.
fn in_service(original: &Original) -> bool {
    matches!(place(&original.state), Place::In | Place::Joining)
}

/// Once, with the first look: whatever group it joins later is none that it comes back to. Nor is one in which it is found with marks
/// of before: somebody may have put it there while nobody looked.
fn record(plan: &mut Plan, case: &Case, instance: &Instance, now: Option<&Membership>) {
    if case.original.contains_key(AutoScaling::NAME) {
        return;
    }
    if case.is_unknown(AutoScaling::NAME) || is_marked_before(case, &instance.tags) {
        plan.unknown(case, AutoScaling::NAME);
        return;
    }
    let original = now.map(|m| Original { group: Some(m.group.clone()), state: m.state.clone(), protected: m.protected });
    plan.record(AutoScaling::NAME, &original.unwrap_or_default());
}

/// The next calls of an instance that is in a group.
fn leave(plan: &mut Plan, case: &Case, mode: DetachMode, now: &Membership) {
    let (group, instance) = (now.group.clone(), case.resource.id.clone());
    let place = place(&now.state);
    if !now.protected && matches!(place, Place::In | Place::Standby) {
        plan.calls.push(protect(case, now, true));
    }
    if matches!(place, Place::In | Place::Warm) {
        plan.verdict.drift.push(format!("it was {} in Auto Scaling group {group}", now.state));
        plan.calls.push(match mode {
            DetachMode::Detach => Call::DetachInstances { group, instance },
            DetachMode::Standby => Call::EnterStandby { group, instance },
        });
    } else if place == Place::Standby && !now.protected {
        plan.verdict.drift.push(format!("scale-in protection in Auto Scaling group {group} was off"));
    }
    plan.verdict.state = match place {
        Place::Standby | Place::Leaving => ActionState::InForce,
        Place::Ending => ActionState::Failed,
        Place::Joining | Place::In | Place::Warm => ActionState::InProgress,
    };
    plan.verdict.message = said(mode, place, now);
}

fn said(mode: DetachMode, place: Place, now: &Membership) -> String {
    let what = format!("{} in Auto Scaling group {}", now.state, now.group);
    let open = if now.protected { "" } else { ", not protected from scale-in" };
    match place {
        Place::In | Place::Warm => what,
        Place::Joining => format!("{what}: AWS takes out only what is in service"),
        Place::Leaving => format!("{what}: AWS drains its load balancers, then lets it go"),
        Place::Ending => format!("{what}: Auto Scaling ends the instance, and nothing here stops that"),
        Place::Standby if mode == DetachMode::Detach => {
            format!("{what}{open}: AWS detaches only what is in service; an instance refresh may end it")
        }
        Place::Standby => format!("{what}{open}: an instance refresh may end it"),
    }
}

fn out(case: &Case) -> String {
    match case.recorded::<Original>(AutoScaling::NAME).and_then(|o| o.group) {
        Some(group) => format!("out of Auto Scaling group {group}"),
        None => "in no Auto Scaling group".into(),
    }
}

fn protect(case: &Case, now: &Membership, protect: bool) -> Call {
    Call::SetInstanceProtection { group: now.group.clone(), instance: case.resource.id.clone(), protect }
}

fn waits(what: String) -> Plan {
    Plan::done(ActionState::InProgress, what)
}

fn release_unknown(case: &Case) -> Plan {
    let asks = case.is_unknown(AutoScaling::NAME) && case.release.rejoin_auto_scaling;
    if asks && case.decision != Some(OnConflict::KeepTheirs) {
        let what =
            "which Auto Scaling group it was in is not known: attach it by hand, then spec.release.onConflict: KeepTheirs";
        return Plan::done(ActionState::Conflict, what);
    }
    Plan::done(ActionState::Released, "which Auto Scaling group it was in is not known: it stays as it is")
}

/// Back into service in its group, where that is asked for and there is room.
fn rejoin(case: &Case, look: &Look, original: &Original, group: &str, standby: bool) -> Plan {
    let stays = if standby { format!("in Standby in Auto Scaling group {group}") } else { format!("out of {group}") };
    let done = |why: &str| Plan::done(ActionState::Released, format!("it stays {stays}: {why}"));
    if !case.release.rejoin_auto_scaling {
        return done("release.rejoinAutoScaling in the policy of every holder would have put it back");
    }
    if !in_service(original) {
        return done(&format!("before, it was {}, which cannot be given back", original.state));
    }
    match look.instance.as_ref().map_or("", |i| i.state.as_str()) {
        "running" => {}
        "pending" => return waits("the instance is starting".into()),
        state if case.decision == Some(OnConflict::KeepTheirs) => return done(&format!("the instance is {state}")),
        state => return Plan::done(ActionState::Conflict, not_running(group, state, &stays)),
    }
    let Some(there) = look.group.as_ref().filter(|g| !g.deleting) else {
        return Plan::absent(format!("it stays {stays}: that group no longer exists"));
    };
    if there.desired >= there.max && case.decision == Some(OnConflict::KeepTheirs) {
        return done("as spec.release.onConflict says");
    }
    if there.desired >= there.max {
        return Plan::done(ActionState::Conflict, no_room(group, there, &stays));
    }
    let (group, instance) = (group.to_owned(), case.resource.id.clone());
    let wants = there.desired + 1;
    let mut plan = waits(format!("rejoins Auto Scaling group {group}, whose desired capacity grows by one, to {wants}"));
    plan.calls.push(if standby { Call::ExitStandby { group, instance } } else { Call::AttachInstances { group, instance } });
    plan
}

fn not_running(group: &str, state: &str, stays: &str) -> String {
    format!(
        "the instance is {state}, and {group} takes only a running one: start it, or let it stay {stays} by \
         spec.release.onConflict: KeepTheirs"
    )
}

fn no_room(group: &str, there: &ScalingGroup, stays: &str) -> String {
    let (desired, max) = (there.desired, there.max);
    format!(
        "rejoining {group} would raise its desired capacity, now {desired}, past its MaxSize of {max}: raise MaxSize, or let \
         it stay {stays} by spec.release.onConflict: KeepTheirs"
    )
}

/// In its group again: only the protection is left.
fn restore_protection(case: &Case, original: &Original, now: &Membership) -> Plan {
    let group = &now.group;
    if place(&now.state) == Place::Joining {
        return waits(format!("{} in Auto Scaling group {group}: not in service yet", now.state));
    }
    if now.protected == original.protected || matches!(place(&now.state), Place::Ending | Place::Warm) {
        let grew = if in_service(original) { "; if it was taken back, the desired capacity grew by one" } else { "" };
        return Plan::done(ActionState::Released, format!("{} in Auto Scaling group {group}{grew}", now.state));
    }
    let mut plan = waits(format!("{} in Auto Scaling group {group}", now.state));
    plan.calls.push(protect(case, now, original.protected));
    plan
}

/// Somebody put it into another group.
fn theirs(case: &Case, original: &Original, now: &Membership) -> Plan {
    let before = original.group.as_deref().unwrap_or("none");
    match case.decision {
        None => Plan::done(
            ActionState::Conflict,
            format!(
                "in Auto Scaling group {} now, before containment in {before}: spec.release.onConflict decides (KeepTheirs \
                 or RestoreOriginal)",
                now.group
            ),
        ),
        Some(OnConflict::KeepTheirs) => {
            Plan::done(ActionState::Released, format!("it stays in Auto Scaling group {}", now.group))
        }
        Some(OnConflict::RestoreOriginal) => {
            let mut plan = waits(format!("{} in Auto Scaling group {}", now.state, now.group));
            if matches!(place(&now.state), Place::In | Place::Warm | Place::Standby) {
                plan.calls.push(Call::DetachInstances { group: now.group.clone(), instance: case.resource.id.clone() });
            }
            plan
        }
    }
}

#[cfg(test)]
#[path = "detach_from_auto_scaling_tests.rs"]
mod tests;
