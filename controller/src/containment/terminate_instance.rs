//! `terminateInstance`: an instance is ended, for good. Nothing gives it back.
//!
//! It is held only when people have approved it and all evidence is complete (`controllers::incident::gate`), which is asked
//! again when the call goes out (`aws::act`). Here it goes last, when what the other actions change is on record, and not at all
//! while anything speaks against it: termination protection is nothing that this action takes away.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, EndInstance};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::case::Case;
pub use super::ending::Look;
use super::ending::{in_a_group, loses_data};
use super::given::no_such_key;
use super::plan::{Plan, Verdict};
use super::protect_from_termination::Protection;
use crate::aws::{AwsError, Call, Instance, Outcome, Session};

/// The action.
pub struct Terminate;

/// What is recorded: there is no way back, but whoever releases is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Original {
    state: String,
}

impl Action for Terminate {
    const NAME: &'static str = "terminateInstance";
    type Params = EndInstance;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    /// Nothing gives it back.
    fn check(_: &str, _: &str) -> Result<(), String> {
        no_such_key()
    }

    async fn look(aws: &Session, case: &Case, params: Option<&EndInstance>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        match aws.instance(region, id).await? {
            Some(instance) if params.is_some() && !instance.is_ended() => {
                let (look, protected) =
                    futures::join!(Look::at(aws, region, instance), aws.termination_protection(region, id));
                Ok(Look { protected: protected?, ..look? })
            }
            instance => Ok(Look { instance, ..Look::default() }),
        }
    }

    fn contain(case: &Case, params: &EndInstance, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_terminated() {
            return Plan::ended(case, instance, "the instance is terminated: nothing brings it back");
        }
        if instance.is_ended() {
            return Plan::done(ActionState::InProgress, "AWS is ending the instance");
        }
        if !case.holds(Self::NAME) {
            return Plan::done(ActionState::InForce, "no Incident asks for it any more: the instance is not terminated");
        }
        let refused = contradicted(case)
            .or_else(|| in_a_group(case, look))
            .or_else(|| loses_data(look, instance, *params))
            .or_else(|| is_protected(look))
            .or_else(|| comes_again(look, instance));
        if let Some(verdict) = refused {
            return Plan { verdict, ..Plan::default() };
        }
        let mut plan = Plan::default();
        if !case.has_record_of(Self::NAME) {
            plan.record(Self::NAME, &Original { state: instance.state.clone() });
        }
        plan.calls.push(Call::TerminateInstances { instance: instance.id.clone() });
        plan.verdict.message = format!("it is {}", instance.state);
        plan
    }

    fn release(_: &Case, look: &Look) -> Plan {
        let ended = look.instance.as_ref().is_none_or(Instance::is_ended);
        let what = if ended { "the instance was terminated: nothing brings it back" } else { "it was not terminated" };
        Plan::done(ActionState::Released, what)
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        if let (Some(instance), Call::TerminateInstances { .. }) = (&mut look.instance, call) {
            instance.state = "shutting-down".into();
        }
    }

    fn trust(look: &mut Look) {
        look.trusted = true;
    }
}

/// What is kept can still be ended; not the other way round.
fn contradicted(case: &Case) -> Option<Verdict> {
    let why =
        "not done: protectFromTermination, which another Incident holds it with, contradicts it; this one must be let go";
    case.wants(Protection::NAME).then(|| Verdict::new(ActionState::Failed, why))
}

/// AWS answers the end of such an instance with another one from the same image, in no quarantine.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-requests.html>
fn comes_again(look: &Look, instance: &Instance) -> Option<Verdict> {
    let why = "not done: its Spot request is persistent, so AWS would launch another like it; cancel that request first";
    (instance.spot && look.persistent).then(|| Verdict::new(ActionState::Failed, why))
}

fn is_protected(look: &Look) -> Option<Verdict> {
    match look.protected {
        Some(false) => None,
        Some(true) => {
            let why = "not done while its termination protection (DisableApiTermination) is on: whoever wants it gone takes it off";
            Some(Verdict::new(ActionState::Failed, why))
        }
        None => {
            let what = "AWS does not show yet whether it is protected from termination";
            Some(Verdict::new(ActionState::InProgress, what))
        }
    }
}

#[cfg(test)]
#[path = "terminate_instance_tests.rs"]
mod tests;
