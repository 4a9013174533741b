//! `stopInstance`: an instance does not run, and is stopped again whenever somebody starts it.
//!
//! It goes last in a pass, when what the other actions change is on record: a stop ends public addresses that AWS assigned. Stop
//! protection would stop our own call, so it is taken away for as long as this is wanted, whoever had set it, and given back
//! exactly. A release starts it first, isolated as it is: access comes back when it runs. Without the instance's own shutdown scripts, which may be the attacker's.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Stop_Start.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, EndInstance, OnConflict};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
pub use super::ending::Look;
use super::ending::{in_a_group, loses_data};
use super::given::{no_such_key, reads};
use super::plan::{Plan, Verdict};
use super::protect_from_termination::stop_was_protected;
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Instance, InstanceAttribute, Outcome, Session};

/// Under this key it is noted whether stop protection was on, before it is taken away.
pub(super) const LIFTED: &str = "stopInstance/disableApiStop";

/// The action.
pub struct Stop;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Original {
    pub(super) state: String,
}

/// What is recorded of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Protected {
    protected: bool,
}

impl Action for Stop {
    const NAME: &'static str = "stopInstance";
    const STAGE: Stage = Stage::Start;
    type Params = EndInstance;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            "disableApiStop" => reads::<Protected>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&EndInstance>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let instance = aws.instance(region, id).await?;
        let mut look = match instance {
            Some(instance) if runs(&instance) => Look::at(aws, region, instance).await?,
            instance => Look { instance, ..Look::default() },
        };
        let gives_back = params.is_none() && case.original.contains_key(LIFTED);
        if look.instance.as_ref().is_some_and(|i| runs(i) || gives_back) {
            look.protected = aws.stop_protection(region, id).await?;
        }
        Ok(look)
    }

    fn contain(case: &Case, params: &EndInstance, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_ended() {
            return Plan::ended(case, instance, "the instance is terminated: nothing is left to stop");
        }
        let mut plan = Plan::default();
        record(&mut plan, case, instance);
        match instance.state.as_str() {
            "stopped" => {
                plan.settle(ActionState::InForce);
                plan.verdict.message = "stopped".into();
            }
            "stopping" => plan.verdict.message = "AWS is stopping it".into(),
            _ => {
                plan.verdict.drift.extend(case.has_record_of(Self::NAME).then(|| format!("it was {}", instance.state)));
                stop(&mut plan, case, *params, look, instance);
            }
        }
        if plan.verdict.unknown {
            plan.verdict
                .message
                .push_str("; it carried Firebreak's marks before this record began: whether it ran is not known");
        }
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(instance) = look.instance.as_ref().filter(|i| !i.is_ended()) else {
            return Plan::gone(case, Self::NAME, look.instance.as_ref());
        };
        let mut plan = as_before(case, look, instance);
        if plan.verdict.state == ActionState::Released {
            protect_again(&mut plan, case, look, instance);
        }
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        let Some(instance) = &mut look.instance else { return };
        match call {
            Call::StopInstances { .. } => instance.state = "stopping".into(),
            Call::StartInstances { .. } => instance.state = "pending".into(),
            Call::LiftStopProtection { .. } => look.protected = Some(false),
            Call::ModifyInstanceAttribute { attribute: InstanceAttribute::DisableApiStop, protect, .. } => {
                look.protected = Some(*protect);
            }
            _ => {}
        }
    }

    fn trust(look: &mut Look) {
        look.trusted = true;
    }
}

impl Original {
    fn ran(&self) -> bool {
        ["pending", "running"].contains(&self.state.as_str())
    }
}

fn runs(instance: &Instance) -> bool {
    !instance.is_ended() && !["stopping", "stopped"].contains(&instance.state.as_str())
}

/// Once, with the first look.
fn record(plan: &mut Plan, case: &Case, instance: &Instance) {
    if case.original.contains_key(Stop::NAME) {
        return;
    }
    if case.is_unknown(Stop::NAME) || is_marked_before(case, &instance.tags) {
        plan.unknown(case, Stop::NAME);
    } else {
        plan.record(Stop::NAME, &Original { state: instance.state.clone() });
    }
}

/// The next call, where nothing is in the way.
fn stop(plan: &mut Plan, case: &Case, params: EndInstance, look: &Look, instance: &Instance) {
    if instance.state != "running" {
        plan.verdict.message = format!("it is {}: AWS stops only what runs", instance.state);
        return;
    }
    let refused =
        in_a_group(case, look).or_else(|| cannot_stop(look, instance)).or_else(|| loses_data(look, instance, params));
    if let Some(Verdict { state, message, .. }) = refused {
        (plan.verdict.state, plan.verdict.message) = (state, message);
        return;
    }
    plan.verdict.message = "it runs".into();
    match look.protected {
        None => plan.verdict.message = "AWS does not show yet whether it is protected from stopping".into(),
        Some(false) => plan.calls.push(Call::StopInstances { instance: instance.id.clone() }),
        Some(true) => {
            if !case.original.contains_key(LIFTED) {
                plan.record(LIFTED, &Protected { protected: stop_was_protected(case).unwrap_or(true) });
            }
            plan.calls.push(Call::LiftStopProtection { instance: instance.id.clone() });
        }
    }
}

/// What AWS stops not at all.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/stop-spot-instances.html>
fn cannot_stop(look: &Look, instance: &Instance) -> Option<Verdict> {
    let why = match (instance.ebs_root, instance.spot && !look.persistent) {
        (false, _) => "its root is instance store",
        (_, true) => "it is a Spot instance without a persistent request",
        _ => return None,
    };
    Some(Verdict::new(ActionState::Failed, format!("AWS cannot stop it: {why}; terminateInstance ends it")))
}

/// It runs again if it ran.
fn as_before(case: &Case, look: &Look, instance: &Instance) -> Plan {
    let Some(original) = case.recorded::<Original>(Stop::NAME) else { return release_unknown(case) };
    match (original.ran(), instance.state.as_str()) {
        (true, "running") | (false, "stopped" | "stopping") => Plan::done(ActionState::Released, ""),
        (true, "stopped") if case.decision == Some(OnConflict::KeepTheirs) => {
            Plan::done(ActionState::Released, "it stays stopped, as was decided")
        }
        (true, "stopped") => {
            let calls = vec![Call::StartInstances { instance: instance.id.clone() }]; // AWS shows what we left
            let what = "it starts again; where AWS cannot start it, spec.release.onConflict: KeepTheirs leaves it stopped";
            Plan { calls, verdict: Verdict::new(ActionState::InProgress, what), ..Plan::default() }
        }
        (true, state) => Plan::done(ActionState::InProgress, format!("it is {state}")),
        (false, _) => ran_since(case, look, instance),
    }
}

/// It did not run before, and somebody started it since the last look.
fn ran_since(case: &Case, look: &Look, instance: &Instance) -> Plan {
    match case.decision {
        Some(OnConflict::KeepTheirs) => Plan::done(ActionState::Released, "it runs"),
        None => Plan::done(
            ActionState::Conflict,
            "it was stopped before containment and runs now: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
        ),
        Some(OnConflict::RestoreOriginal) => {
            let mut plan = Plan::default();
            stop(&mut plan, case, EndInstance { acknowledge_instance_store_loss: true }, look, instance);
            if plan.verdict.state == ActionState::Failed {
                plan.verdict.state = ActionState::Conflict;
            }
            plan
        }
    }
}

fn release_unknown(case: &Case) -> Plan {
    if !case.is_unknown(Stop::NAME) || case.decision == Some(OnConflict::KeepTheirs) {
        return Plan::done(ActionState::Released, "");
    }
    let what = "whether it ran before is not known: start it by hand, or leave it, then spec.release.onConflict: KeepTheirs";
    Plan::done(ActionState::Conflict, what)
}

/// Stop protection as it was before anything of ours changed it.
fn protect_again(plan: &mut Plan, case: &Case, look: &Look, instance: &Instance) {
    let Some(Protected { protected }) = case.recorded(LIFTED) else { return };
    if look.protected == Some(protected) {
        return;
    }
    plan.verdict = Verdict::new(ActionState::InProgress, "its stop protection is put back");
    if look.protected.is_some() {
        let (instance, attribute) = (instance.id.clone(), InstanceAttribute::DisableApiStop);
        plan.calls.push(Call::ModifyInstanceAttribute { instance, attribute, protect: protected });
    }
}

#[cfg(test)]
#[path = "stop_instance_tests.rs"]
mod tests;
