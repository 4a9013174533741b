//! What is told in the middle of a pass, while AWS keeps one of its actions waiting.

use firebreak_crds::{Quarantine, QuarantineStatus};
use k8s_openapi::jiff::Timestamp;

use super::report::{self, Seen};
use crate::clock;
use crate::containment::Report;

/// What such a status rests on.
pub struct Meanwhile {
    /// The status when the pass began. The last status of a pass rests on it too, so that nothing is counted twice.
    pub before: Option<QuarantineStatus>,
    /// What is known of the pass but for its reports.
    pub seen: Seen,
    /// Whether what is in force is looked at again meanwhile.
    pub looks: bool,
}

impl Meanwhile {
    /// The status that says how the actions stand, those that are under way too.
    pub fn status(&self, quarantine: &Quarantine, reports: Vec<Report>) -> QuarantineStatus {
        self.status_at(quarantine, &Seen { reports, ..self.seen.clone() }, clock::now())
    }

    /// The status of a pass, in its middle or at its end. Since when something is so is kept from what was told last.
    pub fn status_at(&self, quarantine: &Quarantine, seen: &Seen, now: Timestamp) -> QuarantineStatus {
        let mut status = report::status(&self.of_before(quarantine), seen, now);
        let Some(told) = &quarantine.status else { return status };
        for action in &mut status.actions {
            let same = told.actions.iter().find(|t| (&t.name, t.state) == (&action.name, action.state));
            let Some(same) = same else { continue };
            action.since.clone_from(&same.since);
            if action.undone.len() == same.undone.len() {
                action.undone.clone_from(&same.undone);
            }
        }
        for condition in &mut status.conditions {
            let same = told.conditions.iter().find(|t| (&t.type_, &t.status) == (&condition.type_, &condition.status));
            same.into_iter().for_each(|same| condition.last_transition_time.clone_from(&same.last_transition_time));
        }
        status
    }

    /// The Quarantine with the status of before.
    pub fn of_before(&self, quarantine: &Quarantine) -> Quarantine {
        Quarantine { status: self.before.clone(), ..quarantine.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firebreak_crds::conditions::CONTAINED;
    use firebreak_crds::{ActionState, is_true};

    use super::*;
    use crate::containment::{Verdict, example};

    fn meanwhile(before: Option<QuarantineStatus>) -> Meanwhile {
        let seen = Seen { interval: Duration::from_secs(30), ..Seen::default() };
        Meanwhile { before, seen, looks: true }
    }

    fn done(name: &'static str) -> Report {
        let verdict = Verdict::new(ActionState::InForce, "");
        Report { seen: true, under_way: false, verdict, ..Report::under_way(name, "") }
    }

    fn says(reports: Vec<Report>, before: Option<QuarantineStatus>) -> QuarantineStatus {
        let actions = vec![example::deny_all(), example::keys_off()];
        let quarantine = example::quarantine(example::user(), vec![example::holder("1", "inc-1", actions)]);
        let meanwhile = meanwhile(before);
        let seen = Seen { reports, ..meanwhile.seen.clone() };
        meanwhile.status_at(&quarantine, &seen, example::SINCE.parse().unwrap())
    }

    #[test]
    fn what_is_in_force_is_told_and_nothing_is_contained_while_an_action_is_under_way() {
        let waits = Report::under_way("deactivateAccessKeys", "no answer");
        let first = says(vec![done("denyAll"), waits.clone()], None);
        let states: Vec<_> = first.actions.iter().map(|a| a.state).collect();
        assert_eq!(states, [ActionState::InForce, ActionState::InProgress]);
        assert!(!is_true(&first.conditions, CONTAINED) && first.in_force_since.is_none() && first.observed_holds.is_none());

        let all = says(vec![done("denyAll"), done("deactivateAccessKeys")], None);
        assert!(is_true(&all.conditions, CONTAINED));
        let slow = says(vec![done("denyAll"), waits.clone()], Some(all.clone()));
        assert!(is_true(&slow.conditions, CONTAINED), "a look that is slow undoes nothing");
        let verdict = Verdict::new(ActionState::InProgress, "no answer");
        let open = says(vec![done("denyAll"), Report { seen: true, open: true, verdict, ..waits }], Some(all));
        assert!(!is_true(&open.conditions, CONTAINED) && open.in_force_since.is_none());
    }

    #[test]
    fn in_the_middle_too_nobody_is_contained_by_the_name_of_another() {
        let user = example::quarantine(example::user(), vec![example::holder("1", "inc-1", vec![example::deny_all()])]);
        let says =
            |meanwhile: &Meanwhile| meanwhile.status(&user, vec![done("denyAll"), Report::under_way("tagResource", "")]);
        let meanwhile = meanwhile(None);
        assert!(is_true(&says(&meanwhile).conditions, CONTAINED));
        let seen = Seen { renamed: Some("eve".into()), impostor: Some("AIDA2".into()), ..meanwhile.seen.clone() };
        let other = Meanwhile { seen, ..meanwhile };
        assert!(!is_true(&says(&other).conditions, CONTAINED));
    }

    #[test]
    fn a_status_in_the_middle_moves_no_time_and_counts_nothing_twice() {
        let start: Timestamp = example::SINCE.parse().unwrap();
        let at = |second| start + Duration::from_secs(second);
        let all = says(vec![done("denyAll"), done("deactivateAccessKeys")], None);
        let meanwhile = meanwhile(Some(all.clone()));
        let seen = |reports| Seen { reports, ..meanwhile.seen.clone() };
        let mut quarantine = example::quarantine(example::user(), vec![example::holder("1", "inc-1", vec![])]);
        quarantine.status = Some(all);
        let verdict = Verdict { drift: vec!["detached".into()], ..Verdict::new(ActionState::InForce, "") };
        let put_back = Report { wrote: true, open: true, verdict, ..done("denyAll") };
        let waits = Report::under_way("deactivateAccessKeys", "no answer");
        let first = meanwhile.status_at(&quarantine, &seen(vec![put_back.clone(), waits.clone()]), at(2));
        assert_eq!(first.drift_count, 1);
        quarantine.status = Some(first.clone());
        let again = meanwhile.status_at(&quarantine, &seen(vec![put_back.clone(), waits]), at(5));
        assert_eq!(again, QuarantineStatus { in_force_since: again.in_force_since.clone(), ..first.clone() });
        let last = meanwhile.status_at(&quarantine, &seen(vec![put_back, done("deactivateAccessKeys")]), at(15));
        assert_eq!((last.drift_count, &last.actions[0].since), (1, &first.actions[0].since));
    }
}
