//! Conditions, written once at the end of a reconcile: `lastTransitionTime` moves only with the status.

use firebreak_crds::get_condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::clock;

/// Kubernetes' own bound is 32 KiB; nobody reads more than this.
const MESSAGE: usize = 2000;

/// The conditions of one object, being decided. What is not set is not kept.
pub struct Conditions<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Begins with none; `previous` gives the transition times.
    #[must_use]
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { previous, generation, now, list: Vec::new() }
    }

    /// Sets a condition to `True`, `False` or `Unknown`.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: impl Into<String>) {
        let before = get_condition(self.previous, kind).filter(|c| c.status == status);
        let since = before.map_or_else(|| clock::time(self.now), |c| c.last_transition_time.clone());
        self.list.retain(|c| c.type_ != kind);
        self.list.push(Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: bounded(message.into(), MESSAGE),
            last_transition_time: since,
            observed_generation: self.generation,
        });
    }

    /// Keeps a condition as it was before.
    pub fn keep(&mut self, kind: &str) {
        if let Some(c) = get_condition(self.previous, kind).cloned() {
            self.set(kind, &c.status, &c.reason, c.message);
        }
    }

    /// The list.
    #[must_use]
    pub fn done(self) -> Vec<Condition> {
        self.list
    }
}

/// At most that many bytes, cut at a character.
#[must_use]
pub fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or_default();
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The first of some names, and how many more there are: `a, b and 3 more`.
#[must_use]
pub fn few(names: impl IntoIterator<Item = impl Into<String>>, most: usize) -> String {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(most).map(Into::into).collect();
    match (shown.join(", "), names.count()) {
        (shown, 0) => shown,
        (shown, more) => format!("{shown} and {more} more"),
    }
}

/// `1 call`, `2 calls`.
#[must_use]
pub fn counted<N: Copy + std::fmt::Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    format!("{count} {}", if count == N::from(1) { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut first = Conditions::new(&[], Some(1), at(10));
        first.set("Ready", "False", "A", "");
        let first = first.done();
        let mut second = Conditions::new(&first, Some(2), at(20));
        second.set("Ready", "False", "B", "other");
        let second = second.done();
        assert_eq!(second[0].last_transition_time.0, at(10));
        let mut third = Conditions::new(&second, Some(2), at(30));
        third.set("Ready", "True", "C", "");
        assert_eq!(third.done()[0].last_transition_time.0, at(30));
    }

    #[test]
    fn a_condition_that_is_not_set_goes() {
        let mut first = Conditions::new(&[], None, at(1));
        first.set("Stalled", "True", "A", "");
        let first = first.done();
        assert!(Conditions::new(&first, None, at(2)).done().is_empty());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(bounded("äöü".repeat(10), 9), "äöü...");
    }
}
