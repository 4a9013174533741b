//! What a process remembers between reconciles. Nothing here is needed to be right: a restart forgets it, and looks again.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebreak_crds::{BlastRadiusCause, QuarantineStatus};
use k8s_openapi::jiff::Timestamp;

/// Looks after a change: AWS enforces IAM late, and an attacker undoes things within seconds.
const LOOKS: [u64; 7] = [1, 2, 5, 10, 30, 60, 120];
/// After a write, reads that contradict it are AWS's own lag.
const LAG: Duration = Duration::from_secs(10);
/// So long it is remembered what a release said when it ended: Incidents that let go tell it, and their status keeps it.
const SAID: Duration = Duration::from_mins(10);

/// So long it is remembered that a target was refused by what AWS shows of it. While anybody names it, it is looked at again before that.
const RULED_OUT: Duration = Duration::from_mins(10);
/// So long it is remembered who would be cut off with a resource. What waits is looked at again before that.
const KNOWN: Duration = Duration::from_mins(10);

/// What is remembered of one object.
#[derive(Clone, Debug)]
pub struct Memo {
    /// What the last reconcile was based on.
    pub basis: String,
    /// When the next look is due.
    pub due: Instant,
    /// When something was last written to AWS.
    pub changed: Instant,
    /// When AWS was last seen.
    pub seen: Instant,
    /// What somebody changed, of which no status and no event tells yet.
    pub untold: Vec<Untold>,
}

/// A change of somebody else's that was seen.
#[derive(Clone, Debug)]
pub struct Untold {
    /// The action that it undid, in part or wholly.
    pub action: &'static str,
    /// What was changed.
    pub drift: Vec<String>,
    /// Whether it put the action out of force.
    pub open: bool,
}

/// How others depend on a resource, and in words whom it would cut off.
pub type CutOff = (BlastRadiusCause, String);

/// Places under a limit, by the Quarantine's name: in which AwsAccount, and since when. Many Incidents may ask at once, before the first
/// Quarantine is known.
pub type Reserved = HashMap<String, (String, Timestamp)>;

/// What is remembered, by uid.
#[derive(Default)]
pub struct Memory {
    memos: Mutex<HashMap<String, Memo>>,
    said: Mutex<HashMap<String, (Instant, String)>>,
    cut_off: Mutex<HashMap<String, (Instant, Vec<CutOff>)>>,
    told: Mutex<HashMap<String, Option<QuarantineStatus>>>,
    admitted: Mutex<Reserved>,
    claimed: Mutex<Reserved>,
    ruled_out: Mutex<HashMap<String, Instant>>,
    kept: Mutex<HashMap<String, Instant>>,
    not_kept: Mutex<HashMap<String, String>>,
}

impl Memory {
    fn memos(&self) -> MutexGuard<'_, HashMap<String, Memo>> {
        self.memos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containments that were let go under `limits.maxNewPerHour`, which the stores may not know of yet.
    pub fn admitted(&self) -> MutexGuard<'_, Reserved> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places under `limits.maxQuarantines` that are taken by what the stores may not know of yet.
    pub fn claimed(&self) -> MutexGuard<'_, Reserved> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers whether the resource of that Quarantine was refused by what AWS shows of it.
    pub fn rule_out(&self, quarantine: &str, refused: bool) {
        let mut ruled_out = self.ruled_out.lock().unwrap_or_else(PoisonError::into_inner);
        ruled_out.retain(|name, at| name != quarantine && at.elapsed() < RULED_OUT);
        if refused {
            ruled_out.insert(quarantine.to_owned(), Instant::now());
        }
    }

    /// Whether it was, not long ago.
    #[must_use]
    pub fn is_ruled_out(&self, quarantine: &str) -> bool {
        let ruled_out = self.ruled_out.lock().unwrap_or_else(PoisonError::into_inner);
        ruled_out.get(quarantine).is_some_and(|at| at.elapsed() < RULED_OUT)
    }

    /// How long nothing is to be done, where nothing has changed since the last reconcile.
    #[must_use]
    pub fn not_due(&self, uid: &str, basis: &str) -> Option<Duration> {
        let now = Instant::now();
        self.memos().get(uid).filter(|m| m.basis == basis && m.due > now).map(|m| m.due - now)
    }

    /// What is remembered of an object; for one never met, as if it had just been changed and seen.
    #[must_use]
    pub fn of(&self, uid: &str) -> Memo {
        let now = Instant::now();
        let new = Memo { basis: String::new(), due: now, changed: now, seen: now, untold: Vec::new() };
        self.memos().entry(uid.to_owned()).or_insert(new).clone()
    }

    /// Remembers.
    pub fn set(&self, uid: &str, memo: Memo) {
        self.memos().insert(uid.to_owned(), memo);
    }

    /// Whether the object was met before, and was written to so recently that reads may still show what was before.
    #[must_use]
    pub fn lags(&self, uid: &str) -> bool {
        self.memos().get(uid).is_some_and(|m| !m.basis.is_empty() && m.changed.elapsed() < LAG)
    }

    /// Remembers what the verified release of a Quarantine said, which goes with it.
    pub fn released(&self, quarantine: &str, message: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, (at, _)| at.elapsed() < SAID);
        said.insert(quarantine.to_owned(), (Instant::now(), message));
    }

    /// What the release of the Quarantine of that name said, where it ended not long ago.
    #[must_use]
    pub fn said(&self, quarantine: &str) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(quarantine).filter(|(at, _)| at.elapsed() < SAID).map(|(_, message)| message.clone())
    }

    /// Remembers who would be cut off with the resource of that Quarantine. Whether that is news.
    pub fn learn_cut_off(&self, quarantine: &str, who: &[CutOff]) -> bool {
        let mut known = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < KNOWN);
        let before = known.insert(quarantine.to_owned(), (Instant::now(), who.to_vec()));
        before.is_none_or(|(_, before)| before != who)
    }

    /// Who would be cut off with the resource of that Quarantine, and how long ago AWS said so.
    #[must_use]
    pub fn cut_off(&self, quarantine: &str) -> Option<(Duration, Vec<CutOff>)> {
        let known = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(quarantine).map(|(at, who)| (at.elapsed(), who.clone())).filter(|(age, _)| *age < KNOWN)
    }

    /// A pass begins, with this status. Returns the one on which its last status rests: that of the pass before, where that one told
    /// something in its middle and nothing at its end.
    #[must_use]
    pub fn begin(&self, uid: &str, status: Option<QuarantineStatus>) -> Option<QuarantineStatus> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entry(uid.to_owned()).or_insert(status).clone()
    }

    /// The pass has told its last status.
    pub fn end(&self, uid: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Whether what an object keeps in place is to be looked at now: so often at most, however often it is reconciled.
    pub fn keeps(&self, uid: &str, every: Duration) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = kept.get(uid).is_none_or(|at| at.elapsed() >= every);
        if due {
            kept.insert(uid.to_owned(), Instant::now());
        }
        due
    }

    /// Why what an object keeps in place may not be there, as the last look found. `looked`: what one of now found.
    pub fn not_kept(&self, uid: &str, looked: Option<Result<(), String>>) -> Option<String> {
        let mut not_kept = self.not_kept.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Some(Err(why)) => not_kept.insert(uid.to_owned(), why),
            Some(Ok(())) => not_kept.remove(uid),
            None => None,
        };
        not_kept.get(uid).cloned()
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.end(uid);
        self.not_kept(uid, Some(Ok(())));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.memos().remove(uid);
    }
}

impl Memo {
    /// How long until the next of the looks that follow a change; None when they are over.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let elapsed = self.changed.elapsed();
        LOOKS.iter().find_map(|s| Duration::from_secs(*s).checked_sub(elapsed)).filter(|left| !left.is_zero())
    }
}

/// How long until the next sweep. All sweeps fall on the same moments, so that their reads coalesce. Nobody else knows which: two are
/// a half to a whole interval apart.
#[must_use]
pub fn next_sweep(interval: Duration, now: Timestamp) -> Duration {
    static CHANCE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    next_by(interval, now, |slot| CHANCE.hash_one(slot))
}

/// One sweep in each slot of three quarters of the interval, somewhere in its first third.
fn next_by(interval: Duration, now: Timestamp, chance: impl Fn(i64) -> u64) -> Duration {
    let slot_ms = i64::try_from(interval.as_millis() * 3 / 4).unwrap_or(i64::MAX / 4).max(3);
    let third = u64::try_from(slot_ms / 3).unwrap_or(1);
    let sweep = |slot: i64| slot * slot_ms + i64::try_from(chance(slot) % third).unwrap_or_default();
    let (now, slot) = (now.as_millisecond(), now.as_millisecond().div_euclid(slot_ms));
    let next = Some(sweep(slot)).filter(|at| *at > now).unwrap_or_else(|| sweep(slot + 1));
    Duration::from_millis(u64::try_from(next - now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_of_all_objects_fall_together_and_nobody_foresees_when() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let interval = Duration::from_secs(30);
        let dice = |slot: i64| RandomState::new().hash_one(slot); // another each time, as to whoever has to guess
        let chance = RandomState::new();
        let mut now = 1_800_000_000_123;
        let mut apart = Vec::new();
        for _ in 0..1000 {
            let next =
                |now| now + i64::try_from(next_by(interval, at(now), |slot| chance.hash_one(slot)).as_millis()).unwrap();
            let (sweep, half) = (next(now), now + (next(now) - now) / 2);
            assert_eq!(next(half), sweep, "whoever asks later");
            apart.push(sweep - now);
            now = sweep;
        }
        apart.remove(0);
        assert!(apart.iter().all(|ms| (15_000 - 1..=30_000).contains(ms)), "{apart:?}");
        let told: std::collections::BTreeSet<_> = (0..20).map(|_| next_by(interval, at(now), dice)).collect();
        assert!(told.len() > 10, "{told:?}");
        assert!(next_by(Duration::ZERO, at(now), dice) > Duration::ZERO);
    }

    #[test]
    fn what_changed_is_looked_at_again_soon() {
        let memory = Memory::default();
        let first = memory.of("a").next_look().unwrap();
        assert!(first <= Duration::from_secs(1), "{first:?}");
    }

    #[test]
    fn a_pass_that_told_nothing_at_its_end_is_taken_up_where_it_began() {
        let memory = Memory::default();
        let status = |drift_count| Some(QuarantineStatus { drift_count, ..QuarantineStatus::default() });
        assert_eq!(memory.begin("a", status(1)), status(1));
        assert_eq!(memory.begin("a", status(2)), status(1));
        memory.end("a");
        assert_eq!(memory.begin("a", status(3)), status(3));
    }

    #[test]
    fn what_waits_for_its_stage_is_looked_at_at_once_and_not_with_every_pass() {
        let memory = Memory::default();
        let keeps = |uid| memory.keeps(uid, Duration::from_mins(1));
        assert!(keeps("a") && keeps("b") && !keeps("a"));
        memory.forget("a");
        assert!(keeps("a") && !keeps("b") && memory.keeps("b", Duration::ZERO));
    }

    #[test]
    fn what_a_look_found_stands_until_the_next_one() {
        let memory = Memory::default();
        let denied = Some("denied".to_owned());
        assert_eq!(memory.not_kept("a", None), None);
        assert_eq!(memory.not_kept("a", Some(Err("denied".into()))), denied);
        assert_eq!((memory.not_kept("a", None), memory.not_kept("b", None)), (denied.clone(), None));
        assert_eq!((memory.not_kept("a", Some(Ok(()))), memory.not_kept("a", None)), (None, None));
        memory.not_kept("a", Some(Err("denied".into())));
        memory.forget("a");
        assert_eq!(memory.not_kept("a", None), None);
    }

    #[test]
    fn an_object_whose_basis_changed_is_due_at_once() {
        let memory = Memory::default();
        let due = Instant::now() + Duration::from_mins(1);
        memory.set("a", Memo { basis: "1".into(), due, ..memory.of("a") });
        assert!(memory.not_due("a", "1").is_some());
        assert!(memory.not_due("a", "2").is_none());
    }
}
