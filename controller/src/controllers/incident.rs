//! The Incident controller: decides which resources are held, and with which actions. Changes nothing in AWS.

mod access_key;
mod approval;
mod blast_radius;
mod deleting;
mod dry_run;
mod evidence;
mod gate;
mod holds;
mod limit;
mod pace;
mod plan_digest;
mod protection;
mod report;
mod resolve;
mod rows;
mod selector;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebreak_crds::{FINALIZER, Incident, IncidentStatus, Mode, Quarantine, Resource, SelectorStatus, quarantine_name};
use futures::FutureExt;
use futures::future::join_all;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use tokio::sync::Semaphore;

pub use self::access_key::Answers as KeyAnswers;
use self::resolve::{Refusal, Resolved, Target};
use self::selector::Chosen;
pub use self::selector::Looks;
use super::{Ctx, Error, reconcile_requested, set_finalizer, write_status};
use crate::clock;
use crate::memory::next_sweep;
use crate::stores::Stores;

/// How soon it goes on where AWS or the API server must be asked again. A plan reads all that it is of, and holds nothing.
const AGAIN: Duration = Duration::from_millis(500);
const PLANNED: Duration = Duration::from_secs(5);
/// The second and later changes of a status wait so long for each other; and once more for every so many targets.
const STATUS_PACE: Duration = Duration::from_secs(1);
const STATUS_TARGETS: usize = 1000;

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
        let uid = incident.uid().unwrap_or_default();
        ctx.memory.forget(&uid);
        ctx.looks.forget(&uid, &[]);
        return Ok(Action::await_change());
    }
    let mut known = Chosen::known(&incident, &ctx.stores.quarantines.state(), clock::now());
    let (plans, keys) = (incident.spec.mode == Mode::Plan && !known.holds, access_key::open(&ctx, &incident));
    let mut pending = false;
    if plans {
        let selected = selector::look(&ctx, &incident, &known).boxed();
        let (chosen, asked) = futures::join!(selected, access_key::look(&ctx, &keys).boxed()); // nothing else is to be done
        (known, pending) = (chosen, asked.pending);
    }
    let (mut targets, mut notes) = (resolve::all(&ctx, &incident, &known), Notes::default());
    notes.again = targets.iter().any(|t| t.resolved.as_ref().is_err_and(|r| r.reason == protection::UNKNOWN));
    let due = if incident.spec.mode == Mode::Release { Vec::new() } else { blast_radius::due(&ctx, &targets) };
    let contains = incident.spec.mode == Mode::Contain && !incident.spec.suspend;
    if !contains {
        blast_radius::look(&ctx, &incident, &due).await; // nothing waits for it
    }
    let looking = async { contains && blast_radius::look(&ctx, &incident, &due).await };
    let acting = async {
        gate::apply(&ctx, &incident, &known, &mut targets, &mut notes).await;
        act(&ctx, &api, (*incident).clone(), &targets, &mut notes).await
    };
    // what is known is held meanwhile; what is found out is written first, and held then
    let (acted, chosen, news) = if plans {
        (acting.boxed().await, known.clone(), false)
    } else {
        let selected = selector::look(&ctx, &incident, &known).boxed();
        let keys = access_key::look(&ctx, &keys).boxed();
        let (acted, chosen, news, asked) = futures::join!(acting.boxed(), selected, looking.boxed(), keys);
        pending = asked.pending;
        (acted, chosen, news || asked.news)
    };
    notes.again |= pending;
    if !plans {
        notes.selectors = chosen.records(&given(&incident, &targets, &notes));
    }
    let acted = acted?;
    let chosen_before = incident.status.as_ref().map(|s| &s.selectors[..]).unwrap_or_default();
    if news && notes.selectors == chosen_before {
        return Ok(Action::requeue(Duration::ZERO)); // what was looked at is held now, or waits
    }
    targets.extend(chosen.open(&known, &incident));
    let wait = report(&ctx, &api, &acted, &targets, &notes).await?;
    Ok(if news { Action::requeue(Duration::ZERO) } else { wait })
}

/// What waited for an approval until now.
fn given(incident: &Incident, targets: &[Target], notes: &Notes) -> HashSet<(String, String)> {
    let held = incident.spec.mode == Mode::Contain && !incident.spec.suspend;
    if held { approval::given(targets, notes.approval.as_ref()) } else { HashSet::new() }
}

/// What the reconcile did that the status must tell.
#[derive(Default)]
pub struct Notes {
    /// Why a target was not held, or is held otherwise than the policy now says: by Quarantine name.
    pub per_target: Vec<(String, Refusal)>,
    /// The digest of all that is asked for, as an approval names it.
    pub digest: String,
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
    /// What the selectors stand for.
    pub selectors: Vec<SelectorStatus>,
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
        Mode::Plan if holds_any(ctx, &incident) => notes.frozen = true,
        Mode::Plan => notes.plan = Some(dry_run::plan(ctx, &incident, targets, &notes.digest).await),
        Mode::Release => let_go(ctx, &incident, notes).await?,
    }
    Ok(incident)
}

/// Ends every hold, found by a live list: where thousands are given back, not one list for each, but one in each sweep.
async fn let_go(ctx: &Ctx, incident: &Incident, notes: &mut Notes) -> Result<(), Error> {
    let uid = incident.uid().unwrap_or_default();
    let basis = format!("let go of generation {:?}", incident.metadata.generation);
    let memo = ctx.memory.of(&uid);
    let listed = memo.basis == basis && memo.seen.elapsed() < ctx.drift_interval;
    if listed && !holds_any(ctx, incident) {
        return Ok(());
    }
    let seen = Instant::now();
    notes.letting_go = holds::let_go_everywhere(ctx, incident, holds::End::LetGo).await?;
    notes.again |= notes.letting_go;
    if !notes.letting_go {
        ctx.memory.set(&uid, crate::memory::Memo { basis, seen, ..memo });
    }
    Ok(())
}

/// The holds side by side, and the evidence at the same moment; none waits for another: there is a limit for writes to the API server
/// only, and not for who waits for AWS.
async fn hold(ctx: &Ctx, incident: &Incident, targets: &[Target], notes: &mut Notes) {
    let resolved: Vec<&Resolved> = targets.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
    let (resolved, refused) =
        limit::claim(&mut ctx.memory.claimed(), || ctx.stores.quarantines.state(), incident, resolved, clock::now());
    let places = (Semaphore::new(holds::SIDE_BY_SIDE), Semaphore::new(holds::SIDE_BY_SIDE));
    let begun = join_all(resolved.iter().map(|r| begin(ctx, incident, r, &places).boxed()));
    let full = join_all(refused.into_iter().map(|(target, full)| why(ctx, target, full).boxed()));
    let (begun, full) = futures::join!(begun, full);
    notes.per_target.extend(full);
    let (held, asked): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
    for (target, result) in resolved.iter().zip(held) {
        let name = quarantine_name(&target.resource);
        match result {
            Ok(None) => {}
            Ok(Some(refusal)) => {
                ctx.memory.claimed().remove(&name);
                let news = !target.ruled_out && ctx.memory.is_ruled_out(&name); // its place is another's
                notes.again |= news || [protection::UNKNOWN, pace::TAKEN].contains(&refusal.reason);
                notes.per_target.push((name, refusal));
            }
            Err(error) => {
                ctx.memory.admitted().remove(&name);
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

/// Why a target has no place. What AWS showed to be refused is looked at again, and told for what it is.
async fn why(ctx: &Ctx, target: &Resolved, full: Refusal) -> (String, Refusal) {
    let why = if target.ruled_out { protection::look(ctx, target).await.err().unwrap_or(full) } else { full };
    (quarantine_name(&target.resource), why)
}

/// The hold and the evidence of one target, neither of which waits for the other.
async fn begin(
    ctx: &Ctx,
    incident: &Incident,
    target: &Resolved,
    (holds, pieces): &(Semaphore, Semaphore),
) -> (Result<Option<Refusal>, Error>, Result<(), Error>) {
    if let Err(refusal) = holds::may_begin(ctx, incident, target).await {
        return (Ok(Some(refusal)), Ok(()));
    }
    futures::join!(holds::hold(ctx, incident, target, holds), evidence::request(ctx, incident, target, pieces))
}

/// Whether this Incident holds anything, as far as is known.
fn holds_any(ctx: &Ctx, incident: &Incident) -> bool {
    let uid = incident.uid().unwrap_or_default();
    ctx.stores.quarantines.find(|q| q.spec.is_held_by(&uid)).is_some()
}

/// The names of the Quarantines that this Incident speaks of: of its targets, and of those that its status names.
fn names_of<'a>(incident: &'a Incident, stores: &'a Stores) -> impl Iterator<Item = String> + 'a {
    let chosen = selector::resources(incident, stores).map(|r| quarantine_name(&r));
    named(incident, stores).chain(chosen)
}

/// The same, but for what its selectors chose.
fn named<'a>(incident: &'a Incident, stores: &'a Stores) -> impl Iterator<Item = String> + 'a {
    let now =
        incident.spec.targets.iter().filter_map(|t| resolve::located(t, stores).ok()).map(|(r, _)| quarantine_name(&r));
    let before = incident.status.iter().flat_map(|s| &s.targets).filter_map(|t| t.quarantine.clone());
    now.chain(before)
}

/// Whether this Incident speaks of that Quarantine.
pub fn concerns(incident: &Incident, quarantine: &Quarantine, stores: &Stores) -> bool {
    let (name, resource): (String, &Resource) = (quarantine.name_any(), &quarantine.spec.resource);
    let let_go = incident.uid().is_some_and(|uid| quarantine.spec.let_go_by.contains(&uid));
    let_go || named(incident, stores).any(|n| n == name) || selector::is_chosen(incident, resource)
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
    let again = notes.again.then_some(if incident.spec.mode == Mode::Plan { PLANNED } else { AGAIN });
    let refused = targets.iter().any(|t| t.resolved.is_err()) || !notes.per_target.is_empty() || notes.waiting.is_some();
    let open = refused || incident.spec.mode != Mode::Contain;
    let sweep = open.then(|| next_sweep(ctx.drift_interval, clock::now()));
    let uid = incident.uid().unwrap_or_default();
    let wait = [again.or(sweep), ctx.looks.next(&uid)].into_iter().flatten().min();
    let wait = wait.map_or_else(Action::await_change, Action::requeue);
    if incident.status.as_ref() == Some(&status) {
        return Ok(wait);
    }
    let memo = ctx.memory.of(&uid);
    if memo.due > Instant::now() && !is_urgent(incident, &status) {
        return Ok(Action::requeue(memo.due - Instant::now()));
    }
    let next = Incident { status: Some(status), ..incident.clone() };
    let written = write_status(api, &next).await?;
    report::publish(&ctx.events, incident, &written).await;
    let pace = STATUS_PACE * u32::try_from(1 + targets.len() / STATUS_TARGETS).unwrap_or(u32::MAX);
    ctx.memory.set(&uid, crate::memory::Memo { due: Instant::now() + pace, ..memo });
    Ok(wait)
}

/// Whether somebody waits for an answer, or something is not held before it is written.
fn is_urgent(incident: &Incident, status: &IncidentStatus) -> bool {
    let Some(before) = &incident.status else { return true };
    reconcile_requested(incident) != before.last_handled_reconcile_at || before.selectors != status.selectors
}
