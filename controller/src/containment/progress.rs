//! What an action that is still under way has shown so far, and what it waits for. Nothing here decides anything: it is told while
//! AWS keeps the action waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firebreak_crds::ActionState;
use tokio::time::Instant;

use super::plan::Verdict;
use super::report::Report;

/// How long AWS may keep an action waiting until that is told.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The actions of one pass.
#[derive(Debug, Default)]
pub struct Progress(Mutex<BTreeMap<&'static str, Known>>);

#[derive(Debug, Default)]
struct Known {
    /// As the last look showed it, without what was sent since.
    verdict: Option<Verdict>,
    /// What is to be asked of AWS and is not answered, by number; and since when it is asked, where it does not wait for its turn.
    waits: BTreeMap<u64, (String, Option<Instant>)>,
    next: u64,
}

/// Something that AWS is asked. Dropped when it is answered, or given up.
#[derive(Debug)]
pub struct Waiting<'p> {
    progress: &'p Progress,
    action: &'static str,
    number: u64,
}

impl Progress {
    fn known(&self) -> MutexGuard<'_, BTreeMap<&'static str, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The action begins, or begins again.
    pub(super) fn begin(&self, action: &'static str) {
        self.known().insert(action, Known::default());
    }

    /// A look showed this.
    pub(super) fn looked(&self, action: &'static str, verdict: &Verdict) {
        self.known().entry(action).or_default().verdict = Some(verdict.clone());
    }

    /// From now on AWS is asked that.
    pub(super) fn waiting(&self, action: &'static str, what: &str) -> Waiting<'_> {
        let waiting = self.queued(action, what);
        waiting.sent();
        waiting
    }

    /// It waits for its turn to be asked.
    pub(super) fn queued(&self, action: &'static str, what: &str) -> Waiting<'_> {
        let mut all = self.known();
        let known = all.entry(action).or_default();
        known.next += 1;
        known.waits.insert(known.next, (what.to_owned(), None));
        Waiting { progress: self, action, number: known.next }
    }

    /// Whether AWS has kept the action waiting for so long.
    #[must_use]
    pub fn hangs(&self, action: &str, long: Duration) -> bool {
        self.known().get(action).is_some_and(|k| k.hung(long).next().is_some())
    }

    /// How the action stands while it is under way. In force only where a look of this pass showed it so; where none was answered
    /// yet, it stands as it was found earlier in the pass, or is not seen.
    #[must_use]
    pub fn report(&self, action: &'static str, earlier: Option<&Report>) -> Report {
        let known = self.known();
        let Some(known) = known.get(action) else { return Report::under_way(action, "it waits for the other actions") };
        match (&known.verdict, earlier) {
            (None, Some(earlier)) => earlier.clone(),
            (None, None) => Report::under_way(action, &known.message()),
            (Some(verdict), earlier) => known.so_far(action, verdict.clone(), earlier),
        }
    }
}

impl Waiting<'_> {
    /// It has its turn.
    pub(super) fn sent(&self) {
        let mut all = self.progress.known();
        if let Some((_, since)) = all.get_mut(self.action).and_then(|known| known.waits.get_mut(&self.number)) {
            since.get_or_insert_with(Instant::now);
        }
    }
}

impl Known {
    /// What the last look showed. After a write of this pass that may be an answer of before it: whoever changed something is told then
    /// as far as it was known before.
    fn so_far(&self, action: &'static str, verdict: Verdict, earlier: Option<&Report>) -> Report {
        let in_force = verdict.state == ActionState::InForce;
        let so_far = Verdict { state: ActionState::InProgress, message: self.message(), ..verdict.clone() };
        let verdict = if in_force { verdict } else { so_far };
        let report = Report { seen: true, under_way: true, open: !in_force, verdict, ..Report::under_way(action, "") };
        let Some(earlier) = earlier.filter(|e| e.wrote) else { return report };
        let verdict = Verdict { drift: earlier.verdict.drift.clone(), ..report.verdict };
        Report { verdict, wrote: true, open: earlier.open, ..report }
    }

    /// What AWS has not answered for so long.
    fn hung(&self, long: Duration) -> impl Iterator<Item = &str> {
        let late = move |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() >= long);
        self.waits.values().filter(move |(_, since)| late(since)).map(|(what, _)| what.as_str())
    }

    fn message(&self) -> String {
        let what: BTreeSet<&str> = self.hung(PATIENCE).collect();
        match what.len() {
            0 => "under way".into(),
            _ => format!(
                "no answer to {} for {} s; it is awaited, and sent again",
                what.into_iter().collect::<Vec<_>>().join(", "),
                PATIENCE.as_secs()
            ),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.progress.known().get_mut(self.action) {
            known.waits.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "deactivateAccessKeys";

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_named_and_nothing_is_in_force_that_no_look_showed() {
        let progress = Progress::default();
        assert!(!progress.report(KEYS, None).seen);
        progress.begin(KEYS);
        let look = progress.waiting(KEYS, "a look");
        assert!(!progress.hangs(KEYS, PATIENCE));
        tokio::time::advance(PATIENCE).await;
        assert!(progress.hangs(KEYS, PATIENCE) && !progress.report(KEYS, None).seen);
        drop(look);
        progress.looked(KEYS, &Verdict::new(ActionState::InProgress, "one key is on"));
        let (_first, _second) =
            (progress.waiting(KEYS, "iam:UpdateAccessKey"), progress.waiting(KEYS, "iam:UpdateAccessKey"));
        tokio::time::advance(PATIENCE).await;
        let report = progress.report(KEYS, None);
        assert_eq!((report.seen, report.verdict.state), (true, ActionState::InProgress));
        assert!(report.verdict.message.starts_with("no answer to iam:UpdateAccessKey for 2 s"), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_is_not_called_unanswered() {
        let progress = Progress::default();
        progress.begin(KEYS);
        let call = progress.queued(KEYS, "iam:UpdateAccessKey");
        tokio::time::advance(PATIENCE).await;
        assert!(!progress.hangs(KEYS, PATIENCE));
        call.sent();
        tokio::time::advance(PATIENCE).await;
        call.sent(); // and once more, since AWS did not answer
        assert!(progress.hangs(KEYS, PATIENCE));
    }

    #[test]
    fn an_answer_that_may_be_of_before_our_own_write_blames_nobody() {
        let progress = Progress::default();
        let detached = |state| Verdict { drift: vec!["detached".into()], ..Verdict::new(state, "") };
        progress.begin(KEYS);
        progress.looked(KEYS, &detached(ActionState::InProgress));
        let earlier = Report { seen: true, under_way: false, ..Report::under_way(KEYS, "") };
        let wrote = Report { wrote: true, ..earlier.clone() };
        let told = |earlier: &Report| {
            let report = progress.report(KEYS, Some(earlier));
            (report.open, report.verdict.drift.len(), report.verdict.state)
        };
        assert_eq!(told(&earlier), (true, 1, ActionState::InProgress));
        assert_eq!(told(&wrote), (false, 0, ActionState::InProgress), "and it is not called in force");
        let put_back = Report { open: true, verdict: detached(ActionState::InForce), ..wrote };
        assert_eq!(told(&put_back), (true, 1, ActionState::InProgress), "once");
    }

    #[test]
    fn what_a_look_showed_in_force_stands_until_another_shows_it_open() {
        let progress = Progress::default();
        progress.begin(KEYS);
        progress.looked(KEYS, &Verdict::new(ActionState::InForce, "all keys are off"));
        let in_force = progress.report(KEYS, None);
        assert_eq!((in_force.seen, in_force.open, in_force.verdict.state), (true, false, ActionState::InForce));
        progress.begin(KEYS);
        assert_eq!(progress.report(KEYS, Some(&in_force)).verdict.state, ActionState::InForce, "not looked at again yet");
        progress.looked(KEYS, &Verdict::new(ActionState::Failed, "one is on"));
        assert_eq!(progress.report(KEYS, Some(&in_force)).verdict.state, ActionState::InProgress);
    }
}
