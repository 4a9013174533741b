//! When an action that is not through is tried again.

use std::time::Duration;

use firebreak_crds::{ActionState, Conversion, ConversionState, Quarantine};
use k8s_openapi::jiff::SignedDuration;

use crate::aws::Class;
use crate::clock;
use crate::containment::{ISOLATE_NETWORK, Report};

/// While an interface may stand open.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What AWS does not let be looked at for so long is not asked for each second any more.
const MAY_GAPE: SignedDuration = SignedDuration::from_mins(2);

/// None where nothing is left to try before the next sweep.
pub(super) fn retry_after(quarantine: &Quarantine, report: &Report) -> Option<Duration> {
    match (&report.error, &report.ledger) {
        _ if report.gapes || may_gape(quarantine, report) => Some(AT_ONCE),
        (_, Some(_)) => Some(Duration::from_secs(5)),
        // Something went while it was being changed: the next look shows what is there now.
        (Some(error), _) if report.seen && error.class == Class::NotFound => Some(Duration::from_secs(2)),
        (Some(error), _) => Some(error.class.retry_after()),
        _ if quarantine.spec.suspend => None,
        _ => (report.verdict.state == ActionState::InProgress).then_some(Duration::from_secs(1)),
    }
}

/// Whether a window is on record that nobody has seen closed, since AWS cannot be looked at.
fn may_gape(quarantine: &Quarantine, report: &Report) -> bool {
    let blind = report.name == ISOLATE_NETWORK && !report.seen;
    let opened = |c: &Conversion| c.state == ConversionState::Open && clock::now() < c.since.0 + MAY_GAPE;
    blind && quarantine.spec.conversions.iter().any(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsError;
    use crate::containment::{LedgerError, REVOKE_INSTANCE_ROLE, example};

    fn quarantine(windows: &[ConversionState]) -> Quarantine {
        let mut quarantine = example::quarantine(example::instance(), vec![]);
        let since = clock::time(clock::now());
        let recorded = |state| Conversion { interface_id: "eni-1".into(), state, since: since.clone() };
        quarantine.spec.conversions = windows.iter().copied().map(recorded).collect();
        quarantine
    }

    fn denied(name: &'static str) -> Report {
        let error = AwsError { class: Class::Denied, operation: "o".into(), code: "c".into(), message: "m".into() };
        Report::unseen(name, error)
    }

    #[test]
    fn a_window_that_nobody_saw_closed_is_looked_at_at_once_whatever_aws_says() {
        use ConversionState::{Closed, Open};
        let unstored = Report { ledger: Some(LedgerError::Refused("no".into())), ..denied(ISOLATE_NETWORK) };
        let refused = Report { seen: true, gapes: true, ..denied(ISOLATE_NETWORK) };
        for (what, windows, report, seconds) in [
            ("AWS refuses to close it, as was seen", &[Open][..], refused, 1),
            ("no look", &[Closed, Open], denied(ISOLATE_NETWORK), 1),
            ("no look, and the record cannot be written", &[Open], unstored.clone(), 1),
            ("no look, all closed", &[Closed], denied(ISOLATE_NETWORK), 60),
            ("all closed, and the record cannot be written", &[Closed], unstored, 5),
            ("seen, and the opening is refused", &[Open], Report { seen: true, ..denied(ISOLATE_NETWORK) }, 60),
            ("another action", &[Open], denied(REVOKE_INSTANCE_ROLE), 60),
        ] {
            let retry = retry_after(&quarantine(windows), &report);
            assert_eq!(retry, Some(Duration::from_secs(seconds)), "{what}");
        }
        let mut old = quarantine(&[Open]);
        old.spec.conversions[0].since.0 -= MAY_GAPE;
        assert_eq!(retry_after(&old, &denied(ISOLATE_NETWORK)), Some(Duration::from_mins(1)), "minutes later");
    }

    #[test]
    fn where_nothing_is_written_what_is_under_way_waits_for_the_sweep() {
        let mut quarantine = quarantine(&[]);
        let report = Report { seen: true, ..Report::under_way(ISOLATE_NETWORK, "") };
        assert_eq!(retry_after(&quarantine, &report), Some(Duration::from_secs(1)));
        quarantine.spec.suspend = true;
        assert_eq!(retry_after(&quarantine, &report), None);
    }
}
