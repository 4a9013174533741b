//! Who matches a selector, asked of AWS.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebreak_crds::{Ec2SelectorTarget, Incident};
use futures::future::join_all;
use kube::ResourceExt;

use super::{Chosen, Seen, Selection, Standing};
use crate::aws::{AwsError, Instance};
use crate::clock;
use crate::controllers::Ctx;
use crate::controllers::incident::resolve::{self, Refusal};
use crate::memory::next_sweep;

/// After so many sweeps without an answer nobody knows whether something new matches.
const PATIENCE: u32 = 3;
/// An instance that AWS shows at neither of two looks so far apart is gone: after its end AWS shows it for about an hour.
const AGREE: Duration = Duration::from_secs(2);
/// The reason of a selector of which that is not known.
pub const NOT_OBSERVED: &str = "NotObserved";

/// When AWS was asked, and is asked next: by Incident and selector. Lost with the process, which then asks at once.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<(String, String), Look>>);

#[derive(Clone)]
struct Look {
    due: Instant,
    answered: Instant,
    problem: Option<Refusal>,
    missing: Missing,
}

/// What awaits approval and is not shown by AWS, since when.
type Missing = BTreeMap<String, Instant>;

impl Looks {
    fn all(&self) -> MutexGuard<'_, HashMap<(String, String), Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, uid: &str, key: &str) -> Look {
        let now = Instant::now();
        let new = Look { due: now, answered: now, problem: None, missing: Missing::new() };
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
    match ask(ctx, incident, selector, selection, &before.missing).await {
        Ok((seen, missing)) => {
            // one that is not settled is settled by this, once it is written: if not, it is asked again at once
            let wait = if settled { next_sweep(ctx.drift_interval, clock::now()) } else { Duration::ZERO };
            ctx.looks.set(uid, key, Look { due: now + wait, answered: now, problem: None, missing });
            Some(Ok(seen))
        }
        Err((problem, wait)) => {
            let silent = settled && !is_long_ago(ctx, before.answered);
            let problem = if settled { unobserved(&problem) } else { problem };
            ctx.looks.set(uid, key, Look { due: now + wait, problem: Some(problem.clone()), ..before });
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

/// What AWS shows, and since when it does not show what awaits approval; or why it is not known, and when to ask again.
async fn ask(
    ctx: &Ctx,
    incident: &Incident,
    selector: &Ec2SelectorTarget,
    selection: &Selection,
    missing: &Missing,
) -> Result<(Seen, Missing), (Refusal, Duration)> {
    let sweep = next_sweep(ctx.drift_interval, clock::now());
    let account = resolve::reach(ctx, incident, &selector.account_ref, &selector.region).map_err(|r| (r, sweep))?;
    let read = async {
        let session = ctx.accounts.session(&account).await?;
        let found = session.instances_selected(&selector.region, selector).await?;
        let unseen = selection.record.awaiting_approval.iter().filter(|id| !found.contains(*id));
        let looks = unseen.map(async |id| Ok((id.clone(), session.instance(&selector.region, id).await?)));
        let looks = join_all(looks).await.into_iter().collect::<Result<Vec<_>, AwsError>>()?;
        let (ended, missing) = ended(looks, missing, Instant::now());
        Ok((Seen { ended, found: (*found).clone() }, missing))
    };
    let refused = |e: AwsError| (Refusal::new(e.class.reason(), e.to_string()), e.class.retry_after().min(sweep));
    read.await.map_err(refused)
}

/// Those of what was looked for that have ended, and those that AWS does not show, since when.
fn ended(looks: Vec<(String, Option<Instance>)>, before: &Missing, now: Instant) -> (BTreeSet<String>, Missing) {
    let (mut ended, mut missing) = (BTreeSet::new(), Missing::new());
    for (id, seen) in looks {
        let since = *before.get(&id).unwrap_or(&now);
        if seen.is_none() {
            missing.insert(id.clone(), since);
        }
        if seen.map_or(now - since >= AGREE, |instance| instance.is_ended()) {
            ended.insert(id);
        }
    }
    (ended, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_shows_at_neither_of_two_looks_is_gone_and_what_it_shows_again_is_not() {
        let (start, instance) = (Instant::now(), Instance { id: "i-1".into(), ..Instance::default() });
        let look = |shown: bool, before: &Missing, seconds| {
            let looks = vec![("i-1".to_owned(), shown.then(|| instance.clone()))];
            let (ended, missing) = ended(looks, before, start + Duration::from_secs(seconds));
            (ended.contains("i-1"), missing)
        };
        let (gone, once) = look(false, &Missing::new(), 0);
        assert!(!gone, "absent from an answer is not gone");
        assert!(!look(false, &once, 1).0, "nor at once again");
        let (gone, twice) = look(false, &once, 2);
        assert!(gone && look(false, &twice, 3).0);
        let (gone, shown) = look(true, &once, 30);
        assert!(!gone && !look(false, &shown, 60).0, "it was there meanwhile");
    }

    #[test]
    fn what_aws_shows_as_terminated_has_ended() {
        let instance = |state: &str| Instance { id: state.into(), state: state.into(), ..Instance::default() };
        let looks = ["terminated", "running"].map(|state| (state.to_owned(), Some(instance(state))));
        let (ended, missing) = ended(looks.into(), &Missing::new(), Instant::now());
        assert_eq!((ended, missing), (BTreeSet::from(["terminated".to_owned()]), Missing::new()));
    }
}
