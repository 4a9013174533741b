//! What came of one action in one pass.

use firebreak_crds::ActionState;

use super::action::Action;
use super::ledger::LedgerError;
use super::plan::Verdict;
use crate::aws::AwsError;

/// What came of one action in one pass.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Report {
    /// The action.
    pub name: &'static str,
    /// How it stands, and what others changed.
    pub verdict: Verdict,
    /// Why it could not be looked at, or what failed first.
    pub error: Option<AwsError>,
    /// Whether the verdict rests on a look of this pass.
    pub seen: bool,
    /// Whether this pass has not ended it yet.
    pub under_way: bool,
    /// Whether a call was accepted.
    pub wrote: bool,
    /// Whether the first look of this pass showed it out of force.
    pub open: bool,
    /// Whether an interface stands open that AWS does not let be closed.
    pub gapes: bool,
    /// The record could not be written.
    pub ledger: Option<LedgerError>,
}

impl Report {
    /// Whether it is given back, and read back so.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.seen && self.error.is_none() && self.verdict.state == ActionState::Released
    }

    /// An action that could not even be looked at.
    #[must_use]
    pub fn unseen(name: &'static str, error: AwsError) -> Self {
        Self { error: Some(error), under_way: false, ..Self::under_way(name, "") }
    }

    /// An action that is not ended yet, and was not looked at.
    #[must_use]
    pub fn under_way(name: &'static str, message: &str) -> Self {
        let verdict = Verdict::new(ActionState::InProgress, message);
        Self {
            name,
            verdict,
            error: None,
            seen: false,
            under_way: true,
            wrote: false,
            open: false,
            gapes: false,
            ledger: None,
        }
    }

    /// What came of an action that was carried out twice in one pass. What the second could not look at stands as the first left it. What
    /// it found undone after the first had written, and left in force, may be an answer of before that write: nobody is blamed.
    #[must_use]
    pub fn then(self, second: Self) -> Self {
        let blind = !second.seen && !second.open && second.ledger.is_none();
        let late = self.wrote && second.seen && second.verdict.state == ActionState::InForce;
        let known = &self.verdict.drift;
        let more: Vec<String> = second.verdict.drift.iter().filter(|d| !late && !known.contains(d)).cloned().collect();
        let drift = [known.clone(), more].concat();
        let (wrote, open) = (self.wrote || second.wrote, self.open || (second.open && !late));
        let last = if blind { self } else { second };
        let verdict = Verdict { drift, ..last.verdict };
        Self { verdict, wrote, open, ..last }
    }

    /// An action that waits until what another changes is on record: what stands in that one's way stands in its way too.
    #[must_use]
    pub fn waits(name: &'static str, other: &Self) -> Self {
        let message = format!("it waits until what {} changes is on record", other.name);
        let verdict = Verdict::new(ActionState::InProgress, message);
        Self {
            name,
            verdict,
            error: other.error.clone(),
            seen: true,
            under_way: false,
            ledger: other.ledger.clone(),
            ..Self::under_way(name, "")
        }
    }

    /// Of an action that begins.
    pub(super) fn of<A: Action>() -> Self {
        Self { under_way: false, ..Self::under_way(A::NAME, "") }
    }
}
