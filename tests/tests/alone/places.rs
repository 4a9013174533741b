//! Where to kill, and where that was done already.

use std::collections::{BTreeSet, VecDeque};

use firebreak_tests::proxy::When;

/// Places that one kill tests.
const AT_ONCE: usize = 10;
/// A place that came too late, since the machine is busy or AWS is waited for, is tried again: once beside others that were late, then
/// beside none but its twin.
const TRIES: usize = 4;
const BOTH: [When; 2] = [When::Before, When::After];

/// Where to kill: at the n-th changing call of a containment, and again at the n-th of its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// From 1
    pub nth: usize,
    /// Of this operation, or of any
    pub operation: Option<String>,
    /// Before or after AWS has it
    pub when: When,
    /// How often it came too late
    tries: usize,
}

impl Place {
    fn is_beside(&self, other: &Self) -> bool {
        let twins = (self.nth, &self.operation) == (other.nth, &other.operation);
        self.tries == other.tries && (twins || self.tries <= 1)
    }
}

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Killed while this was held
    Held(String),
    /// There are fewer calls
    Fewer,
    /// Not held at the moment of the kill
    Late,
}

impl Seen {
    fn operation(self) -> Option<String> {
        if let Self::Held(operation) = self { Some(operation) } else { None }
    }
}

/// The places: by number until there are fewer calls; then the operations that were seen, but held at none of these, since calls
/// go out side by side in any order.
#[derive(Debug, Default)]
pub struct Places {
    left: VecDeque<Place>,
    numbers: usize,
    beyond: bool,
    by_operation: bool,
    seen: BTreeSet<String>,
    held: BTreeSet<(String, bool)>,
}

impl Places {
    /// The places of the next kill; None when there are none left.
    pub fn next(&mut self) -> Option<Vec<Place>> {
        while self.left.len() < AT_ONCE && !self.beyond {
            self.numbers += 1;
            self.left.extend(BOTH.map(|when| Place { nth: self.numbers, operation: None, when, tries: 0 }));
        }
        if self.left.is_empty() && !self.by_operation {
            self.by_operation = true;
            let missed = self.missed().into_iter();
            self.left = missed.map(|(name, when)| Place { nth: 1, operation: Some(name), when, tries: 0 }).collect();
        }
        let first = self.left.front().cloned();
        let beside = self.left.iter().take(AT_ONCE).take_while(|place| first.as_ref().is_some_and(|f| place.is_beside(f)));
        let count = beside.count();
        let places: Vec<_> = self.left.drain(..count).collect();
        assert!(!places.is_empty() || self.missed().is_empty(), "never held: {:?}", self.missed());
        (!places.is_empty()).then_some(places)
    }

    fn missed(&self) -> Vec<(String, When)> {
        let all = self.seen.iter().flat_map(|name| BOTH.map(|when| (name.clone(), when)));
        all.filter(|(name, when)| !self.held.contains(&(name.clone(), *when == When::Before))).collect()
    }

    /// What came of a place in a containment and in its release, and what operations changed AWS there.
    pub fn done(&mut self, place: &Place, seen: [Seen; 2], operations: impl IntoIterator<Item = String>) {
        self.seen.extend(operations);
        self.beyond |= place.operation.is_none() && seen == [Seen::Fewer, Seen::Fewer];
        let once = place.operation.is_some() && seen.iter().any(|seen| matches!(seen, Seen::Held(_)));
        if seen.contains(&Seen::Late) && !once {
            assert!(place.tries < TRIES, "the machine is too slow for {place:?}");
            self.left.push_back(Place { tries: place.tries + 1, ..place.clone() });
        }
        let held = seen.into_iter().filter_map(Seen::operation);
        self.held.extend(held.map(|operation| (operation, place.when == When::Before)));
    }

    /// The operations that were held, before and after AWS had them.
    pub fn held(self) -> impl Iterator<Item = String> {
        self.held.into_iter().filter_map(|(operation, before)| before.then_some(operation))
    }
}
