use std::sync::Mutex;

use firebreak_crds::ActionState;

use super::*;
use crate::containment::Verdict;

const HANGS: usize = 1;

/// Two actions: one ends at once, the other takes its time.
struct Two {
    takes: Duration,
    /// How long a further look at the first takes.
    looks: Duration,
    current: bool,
    answers: Told,
    started: Instant,
    /// When the first was carried out.
    runs: Mutex<Vec<Duration>>,
    /// What was told: the places that had ended, and those under way.
    told: Mutex<Vec<(Duration, usize, Vec<usize>)>>,
}

impl Two {
    fn new(takes: u64, current: bool, answers: Told) -> Self {
        let (runs, told) = (Mutex::default(), Mutex::default());
        let (takes, looks) = (Duration::from_secs(takes), Duration::ZERO);
        Self { takes, looks, current, answers, started: Instant::now(), runs, told }
    }

    /// Whole seconds.
    fn runs(&self) -> Vec<u64> {
        self.runs.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}

impl Round for Two {
    fn run(&self, place: usize) -> BoxFuture<'_, Report> {
        async move {
            if place == HANGS {
                tokio::time::sleep(self.takes).await;
            } else {
                self.runs.lock().unwrap().push(self.started.elapsed());
                tokio::time::sleep(if self.runs().len() > 1 { self.looks } else { Duration::ZERO }).await;
            }
            let verdict = Verdict::new(ActionState::InForce, "");
            Report { seen: true, under_way: false, verdict, ..Report::under_way("denyAll", "") }
        }
        .boxed()
    }

    fn hangs(&self, place: usize, long: Duration) -> bool {
        place == HANGS && self.started.elapsed() >= long
    }

    fn looks_again(&self) -> BoxFuture<'_, bool> {
        async { self.current }.boxed()
    }

    fn tell(&self, reports: Vec<Option<Report>>, busy: BTreeSet<usize>) -> BoxFuture<'_, Told> {
        let ended = reports.iter().flatten().count();
        self.told.lock().unwrap().push((self.started.elapsed(), ended, busy.into_iter().collect()));
        async { self.answers }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_soon_is_told_once_at_its_end() {
    let two = Two::new(0, true, Told::Done);
    assert_eq!(side_by_side(&two, 2).await.len(), 2);
    assert!(two.told.lock().unwrap().is_empty());
    assert_eq!(two.runs(), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_holds_back_neither_what_is_told_of_the_others_nor_their_looks() {
    let two = Two::new(15, true, Told::Done);
    assert_eq!(side_by_side(&two, 2).await.len(), 2);
    assert_eq!(two.runs(), [0, 1, 2, 5, 10]);
    let told = two.told.lock().unwrap();
    let (when, ended, busy) = &told[0];
    assert!((PATIENCE..PATIENCE + OFTEN * 2).contains(when), "{when:?}");
    assert_eq!((*ended, busy.contains(&HANGS)), (1, true));
    assert!(told.len() <= LOOKS.len(), "only what is new: {told:?}");
    assert_eq!(two.started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_hung_is_told_though_a_further_look_at_another_hangs() {
    let two = Two { looks: Duration::from_secs(20), ..Two::new(8, true, Told::Done) };
    side_by_side(&two, 2).await;
    assert_eq!(two.runs(), [0, 1]);
    let told = two.told.lock().unwrap();
    let end = told.iter().find(|(_, ended, busy)| *ended == 2 && !busy.contains(&HANGS)).unwrap();
    assert!((two.takes..two.takes + OFTEN * 2).contains(&end.0), "{told:?}");
    assert_eq!(two.started.elapsed().as_secs(), 21);
}

#[tokio::test(start_paused = true)]
async fn where_the_quarantine_changed_nothing_is_begun_again() {
    let two = Two::new(15, false, Told::Never);
    assert_eq!(side_by_side(&two, 2).await.len(), 2);
    assert_eq!(two.runs(), [0]);
    assert_eq!(two.told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_now_is_told_later() {
    let two = Two::new(4, false, Told::Later);
    side_by_side(&two, 2).await;
    assert!(two.told.lock().unwrap().len() > 3);
}

#[test]
fn what_was_found_undone_stays_told_and_a_look_that_failed_changes_nothing() {
    let report = |state, drift: &[&str]| {
        let drift = drift.iter().map(|d| (*d).to_owned()).collect();
        let verdict = Verdict { drift, ..Verdict::new(state, "") };
        Report { seen: true, under_way: false, verdict, ..Report::under_way("denyAll", "") }
    };
    let first = Report { wrote: true, ..report(ActionState::InForce, &["detached"]) };
    let second = Report { open: true, ..report(ActionState::Failed, &["gone"]) };
    let both = first.clone().then(second);
    assert_eq!((both.wrote, both.open, both.verdict.state), (true, true, ActionState::Failed));
    assert_eq!(both.verdict.drift, ["detached", "gone"]);
    let blind = first.then(Report { under_way: false, ..Report::under_way("denyAll", "") });
    assert_eq!((blind.seen, blind.verdict.state), (true, ActionState::InForce));
}

#[test]
fn an_answer_of_before_our_own_write_blames_nobody() {
    let report = |state, wrote, open| {
        let verdict = Verdict { drift: vec!["detached".to_owned()], ..Verdict::new(state, "") };
        Report { seen: true, under_way: false, wrote, open, verdict, ..Report::under_way("denyAll", "") }
    };
    let clean = |wrote| {
        let report = report(ActionState::InForce, wrote, false);
        Report { verdict: Verdict::new(ActionState::InForce, ""), ..report }
    };
    let put_back = report(ActionState::InForce, true, true);
    for (what, first, second, drift, open) in [
        ("it was put on a moment ago", clean(true), put_back.clone(), 0, false),
        ("somebody undid it, and it was put back", put_back.clone(), put_back.clone(), 1, true),
        ("it was in force, and nothing was written", clean(false), put_back.clone(), 1, true),
        ("it is not put back: that is no lag", clean(true), report(ActionState::Failed, true, true), 1, true),
    ] {
        let both = first.then(second);
        assert_eq!((both.verdict.drift.len(), both.open, both.wrote), (drift, open, true), "{what}");
    }
}
