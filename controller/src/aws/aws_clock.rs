//! AWS's clock, as the `Date` of its answers shows it. The cutoff of a deny is compared with when AWS issued a session: decided by
//! the clock of a node that is slow, it would let the latest sessions through.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_iam::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_iam::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::clock;

/// AWS takes no call that is signed further from its own time: an answer that is dated later is of no clock that AWS works by.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv_troubleshooting.html>
const FURTHEST: SignedDuration = SignedDuration::from_mins(15);
/// An answer is on its way for a moment, so the clock is as far ahead as the quickest of a while says.
const A_WHILE: Duration = Duration::from_mins(10);

/// How far AWS's clock is ahead of this node's.
#[derive(Debug, Default)]
pub struct AwsClock {
    heard: Mutex<Option<Heard>>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    ahead: SignedDuration,
    at: Instant,
}

impl AwsClock {
    /// Now, by whichever clock is ahead: a cutoff that is too late denies more than it must, and none that is too early is one.
    pub fn now(&self) -> Timestamp {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        clock::now() + heard.map_or(SignedDuration::ZERO, |h| h.ahead.max(SignedDuration::ZERO))
    }

    /// Takes the date of an answer that came now.
    fn hear(&self, date: Timestamp, now: Timestamp, at: Instant) {
        let said = date.duration_since(now);
        let ahead = said.min(FURTHEST);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_some_and(|h| h.ahead > ahead && at.duration_since(h.at) < A_WHILE) {
            return;
        }
        if said > FURTHEST && heard.is_none_or(|h| h.ahead < ahead) {
            tracing::warn!(%date, %now, "AWS's answers are dated further ahead than AWS would take calls: cutoffs go by {FURTHEST} only");
        }
        *heard = Some(Heard { ahead, at });
    }
}

/// Hears the answers of a client.
#[derive(Clone, Debug)]
pub struct Hears(pub Arc<AwsClock>);

impl Intercept for Hears {
    fn name(&self) -> &'static str {
        "AwsClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if let Some(date) = context.response().headers().get("date").and_then(date) {
            self.0.hear(date, clock::now(), Instant::now());
        }
        Ok(())
    }
}

/// <https://www.rfc-editor.org/rfc/rfc9110#name-date>
fn date(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(DateTime::from_str(text, Format::HttpDate).ok()?.secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(clock: &AwsClock) -> i64 {
        clock.now().duration_since(clock::now()).as_secs()
    }

    fn heard(seconds: &[i64]) -> AwsClock {
        let (clock, now, at) = (AwsClock::default(), clock::now(), Instant::now());
        seconds.iter().for_each(|s| clock.hear(now + SignedDuration::from_secs(*s), now, at));
        clock
    }

    #[test]
    fn the_clock_that_is_ahead_counts_and_of_several_answers_the_quickest() {
        for (seconds, expected) in [
            (&[][..], 0),
            (&[-90], 0),
            (&[90], 90),
            (&[90, 60, -3600], 90),
            (&[60, 90], 90),
            (&[-90, 60], 60),
            (&[86_400], FURTHEST.as_secs()),
        ] {
            assert!((expected - 1..=expected).contains(&ahead(&heard(seconds))), "{seconds:?}: {}", ahead(&heard(seconds)));
        }
    }

    #[test]
    fn a_clock_that_was_put_right_counts_again_after_a_while() {
        let (clock, now) = (heard(&[600]), clock::now());
        clock.hear(now, now, Instant::now() + A_WHILE / 2);
        assert!(ahead(&clock) > 590);
        clock.hear(now, now, Instant::now() + A_WHILE * 2);
        assert_eq!(ahead(&clock), 0);
    }

    #[test]
    fn the_date_of_an_answer_is_read_as_http_has_it() {
        assert_eq!(date("Sun, 01 Mar 2026 12:00:00 GMT").unwrap().to_string(), "2026-03-01T12:00:00Z");
        assert_eq!(date("yesterday"), None);
    }
}
