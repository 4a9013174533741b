//! What a pure plan returns: data, never effects.

use firebreak_crds::{ActionState, ConversionState};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::case::{Case, ENDED, unknown_key};
use super::residual::Residual;
use super::window::Window;
use crate::aws::{AwsError, Call, Instance};

/// The record has room for 256 entries; some are kept for what every action must note.
pub const RECORDS: usize = 200;
/// How a person is told of an instance that may be there, or not.
const NEVER_ENDED: &str = "never showed it to end";

/// The next step of one action, and how it stands.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What must be stored in the Quarantine before any of the calls goes out: key to recorded state.
    pub record: BTreeMap<String, Value>,
    /// Changes of conversion windows, stored with the record.
    pub conversions: BTreeMap<String, ConversionState>,
    /// The calls that may go out now, side by side.
    pub calls: Vec<Call>,
    /// What is opened for seconds beside them, each by itself.
    pub windows: Vec<Window>,
    /// The next step must be planned from a fresh look, not from what the calls are expected to do.
    pub look_again: bool,
    /// How the action stands, as seen in this look.
    pub verdict: Verdict,
}

/// How an action stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The state.
    pub state: ActionState,
    /// What is so, and what to do.
    pub message: String,
    /// What somebody else changed: counts as drift where the action was in force before.
    pub drift: Vec<String>,
    /// The original of something is not known: it stays contained, and a person decides.
    pub unknown: bool,
    /// It rests on AWS not showing something: one answer does not end a release.
    pub absent: bool,
    /// What could not be read, though the rest was: tried again as after a failed call.
    pub unread: Option<AwsError>,
    /// Of instances released in their roles' lists: what stays denied there, as this look shows it. The record may have more decisions.
    pub shown: Vec<Residual>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            state: ActionState::InProgress,
            message: String::new(),
            drift: Vec::new(),
            unknown: false,
            absent: false,
            unread: None,
            shown: Vec::new(),
        }
    }
}

impl Verdict {
    /// A state with its message.
    pub fn new(state: ActionState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), ..Self::default() }
    }
}

impl Plan {
    /// A plan that does nothing more.
    pub fn done(state: ActionState, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::new(state, message), ..Self::default() }
    }

    /// Nothing is left to contain of an instance that has ended, or is ending. Once it is terminated that is noted, since AWS forgets
    /// such an instance: absent alone is not ended.
    pub fn ended(case: &Case, instance: &Instance, message: impl Into<String>) -> Self {
        let mut plan = Self::done(ActionState::InForce, message);
        if instance.is_terminated() && !case.has_ended() {
            plan.record(ENDED, &case.now);
        }
        plan
    }

    /// The end of a release of what AWS does not show.
    pub fn absent(message: impl Into<String>) -> Self {
        let mut plan = Self::done(ActionState::Released, message);
        plan.verdict.absent = true;
        plan
    }

    /// A release of an instance that is ending, or that AWS does not show. Where it never showed it to end, it may be there with all that
    /// was done to it, and the record goes with the release: so a person says that it is gone, once told of it.
    pub fn gone(case: &Case, action: &str, instance: Option<&Instance>) -> Self {
        let gone = "the instance no longer exists";
        let (region, id) = case.instance();
        match instance {
            Some(instance) => {
                let mut plan = Self::ended(case, instance, gone);
                plan.verdict.state = ActionState::Released;
                plan
            }
            None if case.has_ended() => Self::absent(gone),
            None if case.keeps_what_was_told(action, NEVER_ENDED) => {
                Self::absent(format!("{gone}, as was decided: AWS {NEVER_ENDED}"))
            }
            None if !case.has_record_of(action) => Self::absent(gone), // nothing was done to it
            None => Self::done(
                ActionState::Conflict,
                format!(
                    "AWS shows no instance {id} in {region}, and {NEVER_ENDED}: it is looked for at each look; if it is gone, spec.release.onConflict: KeepTheirs"
                ),
            ),
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_idle() && !self.look_again
    }

    /// Whether there is nothing to store and nothing to send.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.record.is_empty() && self.conversions.is_empty() && self.calls.is_empty() && self.windows.is_empty()
    }

    /// Leaves out what AWS refused in this pass; a window with what would be recorded of it.
    pub fn leave_out(&mut self, refused: impl Fn(&Call) -> bool) {
        self.calls.retain(|call| !refused(call));
        for shut in self.windows.extract_if(.., |window| refused(&window.open)) {
            self.conversions.remove(&shut.interface);
        }
    }

    /// Only what closes what stands open.
    #[must_use]
    pub fn only_closing(self) -> Self {
        let calls = self.calls.into_iter().filter(Call::closes).collect();
        Self { calls, verdict: self.verdict, ..Self::default() }
    }

    /// The state where nothing is left to do; until then it is in progress.
    pub fn settle(&mut self, when_done: ActionState) {
        self.verdict.state = if self.is_done() { when_done } else { ActionState::InProgress };
    }

    /// The state of a release: what a person must decide goes before what the calls will give back.
    pub fn settle_release(&mut self, conflict: bool) {
        self.verdict.state = match (conflict, self.calls.is_empty()) {
            (true, _) => ActionState::Conflict,
            (false, false) => ActionState::InProgress,
            (false, true) => ActionState::Released,
        };
    }

    /// Says that the original of something is not known, and notes it once.
    pub fn unknown(&mut self, case: &Case, action: &str) {
        self.verdict.unknown = true;
        if !case.is_noted_unknown(action) {
            self.record(unknown_key(action), &case.now);
        }
    }

    /// Asks for a state to be recorded.
    pub fn record(&mut self, key: impl Into<String>, value: &impl Serialize) {
        self.record.insert(key.into(), serde_json::to_value(value).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use firebreak_crds::OnConflict;

    use super::*;
    use crate::containment::example;

    fn instance(state: &str) -> Instance {
        Instance { state: state.into(), ..Instance::default() }
    }

    #[test]
    fn an_instance_is_gone_where_it_was_seen_to_end_or_a_person_says_so_and_not_where_it_is_not_shown() {
        let action = "stopInstance";
        let known = example::recorded(example::case(example::instance()), action, &true);
        let ended = example::recorded(known.clone(), ENDED, &known.now);
        let decided = |decision| Case { decision: Some(decision), ..known.clone() };
        let kept = |by, state, message: &str| example::told(decided(OnConflict::KeepTheirs), by, state, message);
        let asked = Plan::gone(&known, action, None).verdict.message;
        for (what, case, state) in [
            ("never seen to end", &known, ActionState::Conflict),
            ("nothing to restore it with", &decided(OnConflict::RestoreOriginal), ActionState::Conflict),
            ("decided before it was told", &decided(OnConflict::KeepTheirs), ActionState::Conflict),
            ("decided of another", &kept(action, ActionState::Conflict, "eni-2 was moved"), ActionState::Conflict),
            ("a person knows", &kept(action, ActionState::Conflict, &asked), ActionState::Released),
            ("told by another action", &kept("tagResource", ActionState::Conflict, &asked), ActionState::Released),
            ("gone already", &kept(action, ActionState::Released, ""), ActionState::Released),
            ("another is given back", &kept("tagResource", ActionState::Released, ""), ActionState::Conflict),
            ("contained again since", &kept(action, ActionState::InForce, ""), ActionState::Conflict),
            ("seen to end", &ended, ActionState::Released),
            ("nothing was done to it", &example::case(example::instance()), ActionState::Released),
        ] {
            let plan = Plan::gone(case, action, None);
            assert_eq!((plan.is_done(), plan.verdict.state), (true, state), "{what}");
            assert_eq!(plan.verdict.absent, state == ActionState::Released, "{what}: seen twice");
        }
        let seen = Plan::gone(&known, action, Some(&instance("terminated")));
        assert!(seen.record.contains_key(ENDED) && seen.verdict.state == ActionState::Released, "{seen:?}");
        let going = Plan::gone(&known, action, Some(&instance("shutting-down")));
        assert!(going.is_done() && going.verdict.state == ActionState::Released, "{going:?}");
    }

    #[test]
    fn what_is_not_shown_is_seen_twice() {
        assert!(Plan::absent("").verdict.absent && !Plan::done(ActionState::Released, "").verdict.absent);
    }
}
