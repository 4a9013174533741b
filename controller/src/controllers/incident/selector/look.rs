//! Who matches a selector, asked of AWS.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebreak_crds::{Ec2SelectorTarget, Incident};
use futures::future::join_all;
use kube::ResourceExt;

use super::{Chosen, Seen, Selection, Standing};
use crate::aws::AwsError;
use crate::clock;
use crate::controllers::Ctx;
use crate::controllers::incident::resolve::{self, Refusal};
use crate::memory::next_sweep;

/// After so many sweeps without an answer nobody knows whether something new matches.
const PATIENCE: u32 = 3;
/// The reason then.
pub const NOT_OBSERVED: &str = "NotObserved";

/// When AWS was asked, and is asked next: by Incident and selector. Lost with the process, which then asks at once.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<(String, String), Look>>);

#[derive(Clone)]
struct Look {
    due: Instant,
    answered: Instant,
    problem: Option<Refusal>,
}

impl Looks {
    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, uid: &str, key: &str) -> Look {
        let now = Instant::now();
        let new = Look { due: now, answered: now, problem: None };
        self.all().entry((uid.to_owned(), key.to_owned())).or_insert(new).clone()
    }

    fn set(&self, uid: &str, key: &str, look: Look) {
        self.all().insert((uid.to_owned(), key.to_owned()), look);
    }

    /// How long until a selector of this Incident is to be asked for again.
    pub fn next(&self, uid: &str) -> Option<Duration> {
        let all = self.all();
        let waits =
            all.iter().filter(|((of, _), _)| of == uid).filter_map(|(_, l)| l.due.checked_duration_since(Instant::now()));
        waits.min()
    }

    /// Forgets an Incident that is gone, or what it asks no more.
    pub fn forget(&self, uid: &str, but: &[&str]) {
        self.all().retain(|(of, key), _| of != uid || but.contains(&key.as_str()));
    }
}

/// Asks AWS for every selector that is not settled, or follows; all side by side.
pub async fn look(ctx: &Ctx, incident: &Incident, chosen: &Chosen) -> Chosen {
    let uid = incident.uid().unwrap_or_default();
    let asks = |s: &&Selection| chosen.asks(incident) && s.is_open();
    let asking: Vec<&str> = chosen.all.iter().filter(asks).map(|s| s.record.key.as_str()).collect();
    ctx.looks.forget(&uid, &asking);
    let seen =
        join_all(chosen.all.iter().map(async |s| if asks(&s) { answer(ctx, incident, &uid, s).await } else { None })).await;
    chosen.clone().settle(seen, clock::now())
}

async fn answer(ctx: &Ctx, incident: &Incident, uid: &str, selection: &Selection) -> Option<Result<Seen, Refusal>> {
    let selector = selection.selector.as_ref()?;
    let (key, settled) = (&selection.record.key, selection.standing == Standing::Settled);
    let before = ctx.looks.of(uid, key);
    if before.due > Instant::now() {
        return before.problem.filter(|_| !settled || is_long_ago(ctx, before.answered)).map(Err);
    }
    let now = Instant::now();
    match ask(ctx, incident, selector, selection).await {
        Ok(seen) => {
            // one that is not settled is settled by this, once it is written: if not, it is asked again at once
            let wait = if settled { next_sweep(ctx.drift_interval, clock::now()) } else { Duration::ZERO };
            ctx.looks.set(uid, key, Look { due: now + wait, answered: now, problem: None });
            Some(Ok(seen))
        }
        Err((problem, wait)) => {
            let silent = settled && !is_long_ago(ctx, before.answered);
            let problem = if settled { unobserved(&problem) } else { problem };
            ctx.looks.set(uid, key, Look { due: now + wait, answered: before.answered, problem: Some(problem.clone()) });
            (!silent).then_some(Err(problem))
        }
    }
}

fn is_long_ago(ctx: &Ctx, answered: Instant) -> bool {
    answered.elapsed() > ctx.drift_interval * PATIENCE
}

/// What it stands for is told by the Quarantines; only what joined is not known.
fn unobserved(problem: &Refusal) -> Refusal {
    Refusal::new(NOT_OBSERVED, format!("whether new instances match is not known: {}", problem.message))
}

/// What AWS shows; or why it is not known, and when to ask again.
async fn ask(
    ctx: &Ctx,
    incident: &Incident,
    selector: &Ec2SelectorTarget,
    selection: &Selection,
) -> Result<Seen, (Refusal, Duration)> {
    let sweep = next_sweep(ctx.drift_interval, clock::now());
    let account = resolve::reach(ctx, incident, &selector.account_ref, &selector.region).map_err(|r| (r, sweep))?;
    let read = async {
        let session = ctx.accounts.session(&account).await?;
        let found = session.instances_selected(&selector.region, selector).await?;
        let unseen = selection.record.awaiting_approval.iter().filter(|id| !found.contains(*id));
        let looks = join_all(unseen.map(|id| session.instance(&selector.region, id))).await;
        let looks = looks.into_iter().collect::<Result<Vec<_>, AwsError>>()?;
        let ended = looks.into_iter().flatten().filter(crate::aws::Instance::is_ended).map(|i| i.id);
        Ok(Seen { ended: ended.collect::<BTreeSet<_>>(), found: (*found).clone() })
    };
    let refused = |e: AwsError| (Refusal::new(e.class.reason(), e.to_string()), e.class.retry_after().min(sweep));
    read.await.map_err(refused)
}
