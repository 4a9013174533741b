//! The actions of a containment, side by side. A call that AWS does not answer holds up its own action and no other: after two
//! seconds it is told how all stand, and the others are looked at again when that is due, until the last has ended.
//!
//! All of it is one pass: nobody else reconciles the Quarantine meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::containment::{PATIENCE, Report, Told};

/// When the others are looked at again: AWS enforces late, and attackers undo things within seconds.
const LOOKS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];
/// A shorter wait is none.
const SHORT: Duration = Duration::from_millis(500);
/// How often it is asked whether an action hangs.
const OFTEN: Duration = Duration::from_millis(250);

/// What goes side by side, by place.
pub trait Round: Sync {
    /// Carries an action out.
    fn run(&self, place: usize) -> BoxFuture<'_, Report>;
    /// Whether AWS has kept it waiting for so long.
    fn hangs(&self, place: usize, long: Duration) -> bool;
    /// Whether what has ended is looked at again while another hangs.
    fn looks_again(&self) -> BoxFuture<'_, bool>;
    /// Tells how all stand. `busy`: those that are under way, for the first time or again.
    fn tell(&self, reports: Vec<Option<Report>>, busy: BTreeSet<usize>) -> BoxFuture<'_, Told>;
}

/// Carries all out, and gives what came of each.
pub async fn side_by_side(round: &impl Round, count: usize) -> Vec<Report> {
    let mut state = Side::new(round, count);
    loop {
        tokio::select! {
            event = state.events.next() => match event {
                Some(event) => state.take(event),
                None => return state.reports.into_iter().flatten().collect(),
            },
            () = tokio::time::sleep(OFTEN), if !state.busy.is_empty() => state.while_it_hangs(),
        }
    }
}

enum Event {
    Ended(usize, Box<Report>),
    Due(bool),
    Told(Told),
}

struct Side<'r, R: Round> {
    round: &'r R,
    events: FuturesUnordered<BoxFuture<'r, Event>>,
    reports: Vec<Option<Report>>,
    /// Those that have not ended once.
    first: BTreeSet<usize>,
    /// Those that are under way.
    busy: BTreeSet<usize>,
    started: Instant,
    looks: usize,
    /// Whether something is to be told that was not; None where nothing can be told any more.
    news: Option<bool>,
    telling: bool,
}

impl<'r, R: Round> Side<'r, R> {
    fn new(round: &'r R, count: usize) -> Self {
        let all: BTreeSet<usize> = (0..count).collect();
        let (events, reports) = (FuturesUnordered::new(), vec![None; count]);
        let mut side = Self {
            round,
            events,
            reports,
            first: all.clone(),
            busy: BTreeSet::new(),
            started: Instant::now(),
            looks: 0,
            news: Some(true),
            telling: false,
        };
        all.into_iter().for_each(|place| side.run(place));
        side
    }

    fn run(&mut self, place: usize) {
        if self.busy.insert(place) {
            self.events.push(self.round.run(place).map(move |report| Event::Ended(place, Box::new(report))).boxed());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ended(place, report) => {
                self.first.remove(&place);
                self.busy.remove(&place);
                let earlier = self.reports[place].take();
                self.reports[place] = Some(match earlier {
                    Some(earlier) => earlier.then(*report),
                    None => *report,
                });
                self.news = self.news.map(|_| true);
            }
            Event::Due(true) => {
                // what AWS refused is tried again when its class says so, not now
                let well =
                    |report: &Option<Report>| report.as_ref().is_some_and(|r| r.error.is_none() && r.ledger.is_none());
                let ended: Vec<usize> = (0..self.reports.len()).filter(|place| well(&self.reports[*place])).collect();
                ended.into_iter().for_each(|place| self.run(place));
            }
            Event::Due(false) => self.looks = LOOKS.len(),
            Event::Told(told) => {
                self.telling = false;
                match told {
                    Told::Done => {}
                    Told::Later => self.news = self.news.map(|_| true),
                    Told::Never => self.news = None,
                }
            }
        }
    }

    fn while_it_hangs(&mut self) {
        let hangs = |long| self.first.iter().any(|place| self.round.hangs(*place, long));
        let due = LOOKS.iter().filter(|look| self.started.elapsed() >= **look).count();
        if hangs(SHORT) && due > self.looks {
            self.looks = due;
            self.events.push(self.round.looks_again().map(Event::Due).boxed());
        }
        // those that are only looked at again may hang in turn: the end of the last is told all the same
        let late = self.first.is_empty() || hangs(PATIENCE);
        if late && !self.telling && self.news == Some(true) {
            (self.telling, self.news) = (true, Some(false));
            let told = self.round.tell(self.reports.clone(), self.busy.clone());
            self.events.push(told.map(Event::Told).boxed());
        }
    }
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
