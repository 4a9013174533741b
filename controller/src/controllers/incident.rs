//! The Incident controller: decides which resources are held, and with which actions. Changes nothing in AWS.

mod access_key;
mod approval;
mod deleting;
mod dry_run;
mod evidence;
mod gate;
mod holds;
mod protection;
mod report;
mod resolve;
mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebreak_crds::{FINALIZER, Incident, Mode, Quarantine, quarantine_name};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use self::resolve::{Refusal, Resolved, Target};
use super::{Ctx, Error, reconcile_requested, set_finalizer, write_status};
use crate::clock;
use crate::memory::next_sweep;
use crate::stores::Stores;

/// The second and later changes of a status wait so long for each other.
const STATUS_PACE: Duration = Duration::from_secs(1);

/// Reconciles one Incident.
///
/// # Errors
/// Where the API server must be asked again.
pub async fn reconcile(incident: Arc<Incident>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let api = Api::<Incident>::namespaced(ctx.client.clone(), &incident.namespace().unwrap_or_default());
    if incident.metadata.deletion_timestamp.is_some() {
        if incident.finalizers().iter().any(|f| f == FINALIZER) {
            deleting::let_go(&ctx, &api, &incident).await?;
        }
        ctx.memory.forget(&incident.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let (mut targets, mut notes) = (resolve::all(&ctx, &incident).await, Notes::default());
    notes.again = targets.iter().any(|t| t.resolved.as_ref().is_err_and(|r| r.reason == protection::UNKNOWN));
    gate::apply(&ctx, &incident, &mut targets, &mut notes).await;
    let incident = act(&ctx, &api, (*incident).clone(), &targets, &mut notes).await?;
    report(&ctx, &api, &incident, &targets, &notes).await
}

/// What the reconcile did that the status must tell.
#[derive(Default)]
pub struct Notes {
    /// Why a target was not held, or is held otherwise than the policy now says: by Quarantine name.
    pub per_target: Vec<(String, Refusal)>,
    /// What `Contain` would do.
    pub plan: Option<firebreak_crds::Plan>,
    /// A hold was let go just now.
    pub letting_go: bool,
    /// Plan on an Incident that holds.
    pub frozen: bool,
    /// What there is to approve.
    pub approval: Option<approval::Asked>,
    /// What an action of some target waits for, though the others are held.
    pub waiting: Option<Refusal>,
    /// A hold or a letting go that must be tried again.
    pub again: bool,
}

async fn act(
    ctx: &Ctx,
    api: &Api<Incident>,
    incident: Incident,
    targets: &[Target],
    notes: &mut Notes,
) -> Result<Incident, Error> {
    match incident.spec.mode {
        Mode::Contain if incident.spec.suspend => {}
        Mode::Contain => {
            let incident = set_finalizer(api, &incident, true).await?;
            hold(ctx, &incident, targets, notes).await;
            return Ok(incident);
        }
        Mode::Plan if held(ctx, &incident).next().is_some() => notes.frozen = true,
        Mode::Plan => notes.plan = Some(dry_run::plan(ctx, &incident, targets).await),
        Mode::Release => {
            notes.letting_go = holds::let_go_everywhere(ctx, &incident, holds::End::LetGo).await?;
            notes.again |= notes.letting_go;
        }
    }
    Ok(incident)
}

/// All holds side by side, and the evidence at the same moment; none waits for another.
async fn hold(ctx: &Ctx, incident: &Incident, targets: &[Target], notes: &mut Notes) {
    let resolved: Vec<&Resolved> = targets.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
    let holds = futures::future::join_all(resolved.iter().map(|r| holds::hold(ctx, incident, r)));
    let pieces = futures::future::join_all(resolved.iter().map(|r| evidence::request(ctx, incident, r)));
    let (held, asked) = futures::join!(holds, pieces);
    for (target, result) in resolved.iter().zip(held) {
        let name = quarantine_name(&target.resource);
        match result {
            Ok(None) => {}
            Ok(Some(refusal)) => {
                notes.again |= refusal.reason == protection::UNKNOWN;
                notes.per_target.push((name, refusal));
            }
            Err(error) => {
                notes.again = true;
                notes.per_target.push((name, Refusal::new("NotHeld", error.to_string())));
            }
        }
    }
    for error in asked.into_iter().filter_map(Result::err) {
        tracing::warn!(incident = %incident.name_any(), %error, "evidence could not be asked for; it is tried again");
        notes.again = true;
    }
}

/// The Quarantines that this Incident holds, as far as is known.
fn held<'a>(ctx: &Ctx, incident: &'a Incident) -> impl Iterator<Item = Arc<Quarantine>> + 'a {
    let uid = incident.uid().unwrap_or_default();
    ctx.stores.quarantines.state().into_iter().filter(move |q| q.spec.holders.iter().any(|h| h.uid == uid))
}

/// The names of the Quarantines that this Incident speaks of: of its targets, and of those that its status names.
pub fn names_of<'a>(incident: &'a Incident, stores: &'a Stores) -> impl Iterator<Item = String> + 'a {
    let now =
        incident.spec.targets.iter().filter_map(|t| resolve::located(t, stores).ok()).map(|(r, _)| quarantine_name(&r));
    let before = incident.status.iter().flat_map(|s| &s.targets).filter_map(|t| t.quarantine.clone());
    now.chain(before)
}

async fn report(
    ctx: &Ctx,
    api: &Api<Incident>,
    incident: &Incident,
    targets: &[Target],
    notes: &Notes,
) -> Result<Action, Error> {
    let world = report::World::of(ctx, incident, targets);
    let status = report::status(incident, targets, notes, &world, clock::now());
    let again = notes.again.then_some(Duration::from_millis(500));
    let refused = targets.iter().any(|t| t.resolved.is_err()) || !notes.per_target.is_empty() || notes.waiting.is_some();
    let open = refused || incident.spec.mode != Mode::Contain;
    let sweep = open.then(|| next_sweep(ctx.drift_interval, clock::now()));
    let wait = again.or(sweep).map_or_else(Action::await_change, Action::requeue);
    if incident.status.as_ref() == Some(&status) {
        return Ok(wait);
    }
    let uid = incident.uid().unwrap_or_default();
    let memo = ctx.memory.of(&uid);
    let asked_for = incident.status.is_none() || reconcile_requested(incident) != status.last_handled_reconcile_at;
    if memo.due > Instant::now() && !asked_for {
        return Ok(Action::requeue(memo.due - Instant::now()));
    }
    let next = Incident { status: Some(status), ..incident.clone() };
    let written = write_status(api, &next).await?;
    report::publish(&ctx.events, incident, &written).await;
    ctx.memory.set(&uid, crate::memory::Memo { due: Instant::now() + STATUS_PACE, ..memo });
    Ok(wait)
}
