//! In which order the actions of one pass go.

use std::collections::BTreeSet;
use std::time::Duration;

use firebreak_crds::{ActionState, Quarantine};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use super::report;
use super::round::{self, Round};
use super::telling::Meanwhile;
use crate::aws::Class;
use crate::containment::{DESTRUCTIVE, Pass, Report, Stage, Told, Wanted, action_of};

/// What takes an instance out of work. It cuts nobody off.
const WORK: [&str; 2] = ["deregisterFromLoadBalancers", "detachFromAutoScaling"];

async fn side_by_side(wanted: impl IntoIterator<Item = &Wanted>, pass: &Pass<'_>) -> Vec<Report> {
    join_all(wanted.into_iter().map(|action| action.run(pass))).await
}

/// Stage after stage, each when the one before it is given back. What waits for its stage is kept in force meanwhile, as before the
/// release. `due`: also while time alone will end what it waits for, since such passes follow each other quickly.
pub async fn give_back(wanted: &[Wanted], releases: &Pass<'_>, holding: &Pass<'_>, due: impl Fn() -> bool) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::with_capacity(wanted.len());
    let mut keeps = None;
    for stage in Stage::ALL {
        let of_it = wanted.iter().filter(|w| w.stage() == stage);
        if keeps.is_none() && reports.iter().all(Report::is_released) {
            reports.extend(side_by_side(of_it, releases).await);
        } else if *keeps.get_or_insert_with(|| reports.iter().any(waits_for_a_person) || due()) {
            let quarantine = releases.ledger.latest().await;
            reports.extend(side_by_side(of_it.filter(|w| is_kept(&quarantine, w.name())), holding).await);
        }
    }
    reports
}

/// Whether an action is kept in force that waits for its stage. Not what the release had come to already, as was told: that is not
/// taken again. What it had come to and nobody was told is taken again, since nobody knows how far it is, and given back anew. But not
/// what is under way back to work: an instance that is taken out of its group again is replaced, and then there is one too many.
fn is_kept(quarantine: &Quarantine, action: &str) -> bool {
    let given_back = |state| match state {
        ActionState::Released | ActionState::Conflict => true,
        ActionState::InProgress => WORK.contains(&action),
        _ => false,
    };
    !DESTRUCTIVE.contains(&action) && !report::was(quarantine, action).is_some_and(given_back)
}

/// Whether only a person ends what stands in the way.
fn waits_for_a_person(report: &Report) -> bool {
    let refused = report.error.as_ref().is_some_and(|e| matches!(e.class, Class::Denied | Class::Terminal));
    report.seen && (refused || report.verdict.state == ActionState::Conflict)
}

/// Actions of a containment that go side by side.
struct Containing<'a> {
    /// What went before, and has ended.
    ended: &'a [Report],
    actions: &'a [&'a Wanted],
    /// What goes after these.
    later: &'a [&'a Wanted],
    pass: &'a Pass<'a>,
    meanwhile: &'a Meanwhile,
}

impl Containing<'_> {
    async fn all(&self) -> Vec<Report> {
        round::side_by_side(self, self.actions.len()).await
    }
}

impl Round for Containing<'_> {
    fn run(&self, place: usize) -> BoxFuture<'_, Report> {
        self.actions[place].run(self.pass).boxed()
    }

    fn hangs(&self, place: usize, long: Duration) -> bool {
        self.pass.progress.hangs(self.actions[place].name(), long)
    }

    fn looks_again(&self) -> BoxFuture<'_, bool> {
        let others = self.actions.len() > 1; // of one by itself none has ended
        async move { others && self.meanwhile.looks && self.pass.ledger.is_current().await }.boxed()
    }

    fn tell(&self, reports: Vec<Option<Report>>, busy: BTreeSet<usize>) -> BoxFuture<'_, Told> {
        let progress = &self.pass.progress;
        let so_far = |(place, report): (usize, Option<Report>)| match report {
            Some(report) if !busy.contains(&place) => report,
            earlier => progress.report(self.actions[place].name(), earlier.as_ref()),
        };
        let not_yet = self.later.iter().map(|action| progress.report(action.name(), None));
        let reports = reports.into_iter().enumerate().map(so_far);
        let reports: Vec<Report> = self.ended.iter().cloned().chain(reports).chain(not_yet).collect();
        async move { self.pass.ledger.tell(|quarantine| self.meanwhile.status(quarantine, reports)).await }.boxed()
    }
}

/// Carries the mark out, when all others have ended: how they stand is told while AWS keeps it waiting.
pub async fn mark(mark: &Wanted, ended: &[Report], pass: &Pass<'_>, meanwhile: &Meanwhile) -> Vec<Report> {
    if pass.releasing {
        return vec![mark.run(pass).await];
    }
    Containing { ended, actions: &[mark], later: &[], pass, meanwhile }.all().await
}

/// All but what destroys, side by side; then that, one after the other, once what the others change is on record.
pub async fn contain(wanted: &[Wanted], pass: &Pass<'_>, meanwhile: &Meanwhile) -> Vec<Report> {
    let (later, actions): (Vec<_>, Vec<_>) = wanted.iter().partition(|a| DESTRUCTIVE.contains(&a.name()));
    let mut reports = Containing { ended: &[], actions: &actions, later: &later, pass, meanwhile }.all().await;
    for (place, action) in later.iter().enumerate() {
        let quarantine = pass.ledger.latest().await;
        // What it was to wait for is on record, or lost, since it was in force for the first time.
        let again = matches!(report::was(&quarantine, action.name()), Some(ActionState::InForce | ActionState::Contested));
        let report = match unrecorded(&quarantine, &reports).filter(|_| !again) {
            None => {
                let (actions, later) = (&later[place..=place], &later[place + 1..]);
                Containing { ended: &reports, actions, later, pass, meanwhile }.all().await
            }
            Some(other) => vec![Report::waits(action.name(), other)],
        };
        reports.extend(report);
    }
    reports
}

/// The first of the actions that changed nothing yet, since nothing could be recorded: what it would record must not be destroyed.
fn unrecorded<'r>(quarantine: &Quarantine, reports: &'r [Report]) -> Option<&'r Report> {
    let recorded = |r: &Report| quarantine.spec.original.iter().flat_map(|o| o.keys()).any(|key| action_of(key) == r.name);
    let nothing_to_lose = |r: &Report| r.seen && r.verdict.state != ActionState::InProgress;
    reports.iter().find(|r| r.ledger.is_some() || !(nothing_to_lose(r) || recorded(r)))
}

#[cfg(test)]
mod tests {
    use firebreak_crds::Text;

    use super::*;
    use crate::aws::AwsError;
    use crate::containment::LedgerError;
    use crate::containment::example;

    #[test]
    fn what_only_a_person_ends_keeps_what_comes_after_it_in_force() {
        let error = |class| AwsError { class, operation: "o".into(), code: "c".into(), message: "m".into() };
        let report = |state, class: Option<Class>| Report {
            seen: true,
            verdict: crate::containment::Verdict::new(state, ""),
            error: class.map(error),
            ..Report::unseen("sealTrustPolicy", error(Class::Transient))
        };
        for (what, report, waits) in [
            ("a conflict, as what AWS will never take back is", report(ActionState::Conflict, None), true),
            ("a missing permission", report(ActionState::Failed, Some(Class::Denied)), true),
            ("a full quota", report(ActionState::Failed, Some(Class::Terminal)), true),
            ("AWS was busy", report(ActionState::Failed, Some(Class::Transient)), false),
            ("under way", report(ActionState::InProgress, None), false),
            ("given back", report(ActionState::Released, None), false),
        ] {
            assert_eq!(waits_for_a_person(&report), waits, "{what}");
            assert!(!waits_for_a_person(&Report { seen: false, ..report }), "{what}, not seen");
        }
    }

    #[test]
    fn what_waits_for_its_stage_is_kept_unless_it_was_told_to_be_given_back() {
        let mut quarantine = example::quarantine(example::instance(), vec![]);
        assert!(is_kept(&quarantine, "isolateNetwork"), "a new process knows of nothing");
        for (state, kept) in [
            (ActionState::InForce, true),
            (ActionState::Contested, true),
            (ActionState::InProgress, true),
            (ActionState::Failed, true),
            (ActionState::Conflict, false),
            (ActionState::Released, false),
        ] {
            let since = crate::clock::time(example::SINCE.parse().unwrap());
            let told = |name: &str| firebreak_crds::ActionStatus {
                name: name.into(),
                wanted: None,
                state,
                message: String::new(),
                since: since.clone(),
                undone: Vec::new(),
            };
            let actions = [&["isolateNetwork", "stopInstance"], &WORK[..]].concat().into_iter().map(told).collect();
            quarantine.status = Some(firebreak_crds::QuarantineStatus { actions, ..Default::default() });
            assert_eq!(is_kept(&quarantine, "isolateNetwork"), kept, "{state:?}");
            assert!(!is_kept(&quarantine, "stopInstance"), "nothing is stopped again");
            let of_work = WORK.map(|action| is_kept(&quarantine, action));
            assert_eq!(of_work, [kept && state != ActionState::InProgress; 2], "{state:?}: what goes back to work goes on");
        }
    }

    #[test]
    fn what_destroys_waits_until_what_the_others_change_is_on_record() {
        let error = AwsError { class: Class::Denied, operation: "o".into(), code: "c".into(), message: "m".into() };
        let unseen = Report::unseen("isolateNetwork", error.clone());
        let verdict = crate::containment::Verdict::new(ActionState::Failed, "");
        let seen = Report { seen: true, verdict, ..unseen.clone() };
        let not_yet = Report { seen: true, error: Some(error.clone()), ..unseen.clone() };
        let unstored = Report { ledger: Some(LedgerError::Refused("no".into())), ..seen.clone() };
        let fresh = example::quarantine(example::instance(), vec![]);
        let mut known = fresh.clone();
        known.spec.original.get_or_insert_default().insert("isolateNetwork/eni-1".into(), Text("{}".into()));
        for (what, quarantine, report, waits) in [
            ("looked at, whatever came of it", &fresh, seen, false),
            ("not looked at, nothing on record", &fresh, unseen.clone(), true),
            ("looked at, and not all is shown yet", &fresh, not_yet, true),
            ("not looked at, on record from before", &known, unseen, false),
            ("what is new could not be stored", &known, unstored, true),
        ] {
            let reports = [report];
            let other = unrecorded(quarantine, &reports);
            assert_eq!(other.is_some(), waits, "{what}");
            let waiting = other.map(|other| Report::waits("stopInstance", other));
            assert!(waiting.is_none_or(|w| w.error.as_ref() == Some(&error) && !w.is_released()), "{what}");
        }
    }
}
