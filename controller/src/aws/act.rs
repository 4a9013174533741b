//! The only place that changes AWS: leadership, hold, rate limit, retry class, audit line, metric, in this order.
//!
//! One file per service beneath it turns a `Call` into the SDK's request.

/// Sends the SDK request, once, and classes its error. The SDK's own retries would send it again without asking whether it is
/// still right.
macro_rules! sent {
    ($sdk:ident, $call:expr, $request:expr) => {{
        let once = $sdk::config::Config::builder().retry_config(RetryConfig::disabled());
        let answer = $request.customize().config_override(once).send().await;
        answer.map_err(|e| AwsError::from_sdk($call.operation(), $call.idempotent(), &e))
    }};
}

mod autoscaling;
mod ec2;
mod elb;
mod iam;
mod principal;
mod session_denies;
mod ssm;

use std::time::{Duration, Instant};

use firebreak_crds::{ContainAction, Evidence, Holder, HolderState, Quarantine, ResourceKind, SeverTrackedConnections};
use k8s_openapi::jiff::SignedDuration;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tracing::info;

use super::call::Call;
use super::error::{AwsError, Class};
use super::model::{Principal, Snapshot};
use super::rate::Priority;
use super::session::Session;
use crate::clock;
use crate::containment::keeps_keys_off;
use crate::controllers::to_be_released;
use crate::lease::Claim;

/// What a call brought back.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// AWS accepted it.
    Done,
    /// The id of what was made.
    Created(String),
    /// The snapshots that were started.
    Snapshots(Vec<Snapshot>),
    /// AWS accepted it, and there was nothing to change.
    Moot,
}

/// What a call needs to be true at the moment that it is sent, besides leadership.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Nothing: it narrows, or changes no access.
    Narrowing,
    /// For what destroys, or opens an interface for seconds: this Quarantine, with this uid, is still held.
    StillHeld {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// This Quarantine, with this uid, is still to be released.
    StillToRelease {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// What every attempt of a call has in common.
#[derive(Clone, Copy)]
struct Sending<'a> {
    session: &'a Session,
    region: Option<&'a str>,
    /// What was asked for, which a call of another kind may carry out.
    asked: &'a Call,
    guard: &'a Guard,
    priority: Priority,
    /// Told when a call goes out.
    sent: &'a (dyn Fn() + Sync),
}

/// Before the second and the third attempt of a call.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// Sends calls.
pub struct Actor {
    claim: watch::Receiver<Option<Claim>>,
    kube: Client,
    writers: session_denies::Writers,
}

impl Actor {
    /// An actor that sends only while the claim covers the moment.
    #[must_use]
    pub fn new(claim: watch::Receiver<Option<Claim>>, kube: Client) -> Self {
        Self { claim, kube, writers: session_denies::Writers::default() }
    }

    /// Sends one call, and again where AWS was busy or did not answer: each time only if it is still right.
    ///
    /// # Errors
    /// `Fenced` when it was not right to send it; else AWS's answer.
    pub async fn act(
        &self,
        session: &Session,
        region: Option<&str>,
        call: &Call,
        guard: &Guard,
        priority: Priority,
    ) -> Result<Outcome, AwsError> {
        self.act_told(session, region, call, guard, priority, &|| {}).await
    }

    /// The same; `sent` is told when the call goes out, since it may wait for its turn before.
    ///
    /// # Errors
    /// As `act`.
    pub async fn act_told(
        &self,
        session: &Session,
        region: Option<&str>,
        call: &Call,
        guard: &Guard,
        priority: Priority,
        sent: &(dyn Fn() + Sync),
    ) -> Result<Outcome, AwsError> {
        let sending = Sending { session, region, asked: call, guard, priority, sent };
        if let Call::EditSessionDenies { role, edit } = call {
            return self.edit_denies(session_denies::Asked { sending, role, edit }).await;
        }
        self.again(sending, call).await
    }

    async fn again(&self, sending: Sending<'_>, call: &Call) -> Result<Outcome, AwsError> {
        for pause in PAUSES {
            match self.once(sending, call).await {
                Err(error) if error.class == Class::Transient => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.once(sending, call).await
    }

    async fn once(&self, sending: Sending<'_>, call: &Call) -> Result<Outcome, AwsError> {
        let Sending { session, region, asked, guard, priority, sent } = sending;
        let limiter = match call.service() {
            "iam" => session.iam_limiter.as_ref(),
            _ => session.limiter(needed(region, call)?)?,
        };
        let (service, operation) = call.operation().split_once(':').unwrap_or_default();
        limiter.take(service, operation, priority).await;
        if call.widens() || asked.widens() {
            self.still_to_release(session, call, guard).await?;
        }
        if call.destroys() || call.opens() {
            self.still_decided(session, call, guard).await?;
        }
        self.leads(call)?;
        sent();
        let started = Instant::now();
        let result = send(session, region, call).await;
        session.spills.note(call, &result, clock::now());
        audit(sending, call, &result, started);
        result
    }

    /// Leadership, checked at the effect.
    fn leads(&self, call: &Call) -> Result<(), AwsError> {
        match &*self.claim.borrow() {
            Some(claim) if claim.covers(clock::now() + needs(call)) => Ok(()),
            _ => Err(AwsError::fenced(call.operation(), "this controller does not hold the lease now")),
        }
    }

    /// The hold, checked at the effect: a live read, since a cache may not know yet of an Incident that holds again.
    async fn still_to_release(&self, session: &Session, call: &Call, guard: &Guard) -> Result<(), AwsError> {
        let fenced = |why: String| Err(AwsError::fenced(call.operation(), why));
        let Guard::StillToRelease { name, uid } = guard else {
            return fenced("gives access back, but no release asks for it".into());
        };
        match Api::<Quarantine>::all(self.kube.clone()).get(name).await {
            Ok(q) if q.uid().as_ref() != Some(uid) => fenced(format!("Quarantine {name} is another one now")),
            Ok(q) if !to_be_released(&q) => fenced(format!("Quarantine {name} is held again")),
            Ok(q) => self.held_by_no_other(session, call, &q).await,
            Err(e) => fenced(format!("Quarantine {name} cannot be read: {e}")),
        }
    }

    /// An access key can be held by itself, and with its user: who releases one does not switch on what the other keeps off. And a
    /// user that was renamed can be held under both names.
    async fn held_by_no_other(&self, session: &Session, call: &Call, own: &Quarantine) -> Result<(), AwsError> {
        let fenced = |why: String| Err(AwsError::fenced(call.operation(), why));
        if own.spec.resource.kind != ResourceKind::IamUser && !call.is_of_a_key() {
            return Ok(()); // of a key it is that key's own policy
        }
        let declared = Principal::of(&own.spec.resource); // it may have been renamed since
        for name in call.held_as(&session.account_id, declared.name()).into_iter().filter(|name| *name != own.name_any()) {
            match Api::<Quarantine>::all(self.kube.clone()).get_opt(&name).await {
                Ok(Some(q)) if !to_be_released(&q) && (keeps_keys_off(&q) || !call.is_of_a_key()) => {
                    return fenced(format!("Quarantine {name} holds it, too"));
                }
                Ok(_) => {}
                Err(e) => return fenced(format!("Quarantine {name} cannot be read: {e}")),
            }
        }
        Ok(())
    }
}

impl Actor {
    /// What nothing gives back is decided at the effect too: who asked for it may have let go a moment ago, and what is only
    /// asked for now may be evidence. So is what opens an interface: it may have waited minutes for its turn.
    async fn still_decided(&self, session: &Session, call: &Call, guard: &Guard) -> Result<(), AwsError> {
        let Guard::StillHeld { name, uid } = guard else { return self.still_to_release(session, call, guard).await };
        let unknown = |e: &dyn std::fmt::Display| AwsError::fenced(call.operation(), format!("not known to be right: {e}"));
        let quarantine = Api::<Quarantine>::all(self.kube.clone()).get(name).await.map_err(|e| unknown(&e))?;
        let evidence = match call {
            Call::TerminateInstances { .. } => {
                let all = Api::<Evidence>::all(self.kube.clone()).list(&ListParams::default()).await;
                all.map_err(|e| unknown(&e))?.items
            }
            // A stop leaves the volumes, and it is put back without waiting for anything; an opening touches none.
            _ => Vec::new(),
        };
        let held = (quarantine.uid().as_ref() == Some(uid)).then_some(&quarantine);
        spared(call, held)?;
        match held.and_then(|q| incomplete(q, &evidence)) {
            Some(name) => {
                let why = format!("it waits until all evidence is complete: {name}");
                Err(AwsError { class: Class::Awaiting, ..AwsError::fenced(call.operation(), why) })
            }
            None => Ok(()),
        }
    }
}

/// Whether a call that destroys, or opens an interface, is still what its holders ask for.
fn spared(call: &Call, held: Option<&Quarantine>) -> Result<(), AwsError> {
    let fenced = |why: &str| Err(AwsError::fenced(call.operation(), why));
    let Some(quarantine) = held.filter(|q| !crate::controllers::to_be_released(q)) else {
        return fenced("nobody holds it any more");
    };
    if quarantine.spec.suspend {
        return fenced("its Quarantine is suspended");
    }
    let asked = |h: &Holder, such: fn(&ContainAction) -> bool| h.actions.iter().any(such);
    let mut holders = quarantine.spec.holders.iter();
    let kept = holders.clone().any(|h| asked(h, |a| a.protect_from_termination.is_some()));
    // What was only retained is a decision of before, and nobody keeps its evidence.
    let agreed = !kept && holders.any(|h| h.state == HolderState::Holding && asked(h, |a| a.terminate_instance.is_some()));
    if matches!(call, Call::TerminateInstances { .. }) && !agreed {
        return fenced("its holders do not agree to it any more");
    }
    if call.opens() && !quarantine.spec.holders.iter().any(|h| asked(h, converts)) {
        return fenced("its holders do not ask for it any more");
    }
    Ok(())
}

/// Whether an action may open an interface for seconds.
fn converts(action: &ContainAction) -> bool {
    let sever = action.isolate_network.as_ref().map(|i| i.sever_tracked_connections);
    sever.is_some_and(|sever| sever != SeverTrackedConnections::Never)
}

/// A piece of evidence of the resource that is not complete.
fn incomplete(quarantine: &Quarantine, evidence: &[Evidence]) -> Option<String> {
    let arn = quarantine.spec.resource.arn();
    let open = evidence.iter().find(|e| e.spec.resource.arn() == arn && !crate::controllers::evidence::is_complete(e));
    open.map(ResourceExt::name_any)
}

/// How long leadership must last beyond the call: an interface that is opened for 3 seconds must be closed by the same hand.
fn needs(call: &Call) -> SignedDuration {
    if call.opens() { SignedDuration::from_secs(6) } else { SignedDuration::ZERO }
}

fn audit(sending: Sending<'_>, call: &Call, result: &Result<Outcome, AwsError>, started: Instant) {
    let Sending { session, region, asked, .. } = sending;
    let outcome = result.as_ref().map_or_else(|e| e.class.reason(), |_| "ok");
    session.count(call.operation(), outcome, started.elapsed());
    let error = result.as_ref().err().map(ToString::to_string);
    let region = region.unwrap_or("global");
    let widens = (call.widens() || asked.widens()).then_some(true);
    info!(target: "audit", account = %session.account_id, region, call = %asked, widens, outcome, error);
}

/// Whoever the operation's service is.
async fn send(session: &Session, region: Option<&str>, call: &Call) -> Result<Outcome, AwsError> {
    match call.service() {
        "iam" => iam::send(&session.iam, call).await,
        "autoscaling" => autoscaling::send(session.autoscaling(needed(region, call)?)?, call).await,
        "elasticloadbalancing" => elb::send(session.balancers(needed(region, call)?)?, call).await,
        "ssm" => ssm::send(session.systems_manager(needed(region, call)?)?, call).await,
        "ec2" => ec2::send(session.ec2(needed(region, call)?)?, call).await,
        _ => Err(unknown(call)),
    }
}

fn needed<'a>(region: Option<&'a str>, call: &Call) -> Result<&'a str, AwsError> {
    region.ok_or_else(|| AwsError::fenced(call.operation(), "the service is regional: this call needs a region"))
}

fn unknown(call: &Call) -> AwsError {
    AwsError::fenced(call.operation(), "nothing sends this call")
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
