//! An interface that is opened for seconds is closed by the same hand, whatever becomes of all else in the pass: of other calls,
//! of the record, of what waits for its turn.

use std::time::Duration;

use tokio::time::Instant;

use super::progress::Waiting;
use crate::aws::{AwsError, Call, Class, Outcome};

/// Between two tries to close; each is up to three calls.
const AGAIN: Duration = Duration::from_millis(500);
/// So long it is tried before that is told as a failure, and the next pass goes on with it a second later.
const INSISTS: Duration = Duration::from_secs(30);

/// What is opened, and closed after that long.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The interface.
    pub interface: String,
    /// Opens.
    pub open: Call,
    /// How long it stays open.
    pub lasts: Duration,
    /// Closes.
    pub close: Call,
}

/// A call, and what AWS answered.
pub(super) type Sent = (Call, Result<Outcome, AwsError>);

/// Whoever sends calls.
pub(super) trait Hand: Sync {
    /// Sends one.
    fn send(&self, call: &Call) -> impl Future<Output = Result<Outcome, AwsError>> + Send;

    /// Tells that it is sent until AWS accepts it.
    fn insists(&self, _: &Call) -> Option<Waiting<'_>> {
        None
    }
}

/// Opens, waits, and closes. Where AWS did not say whether it opened, it is closed at once.
pub(super) async fn pass_through(hand: &impl Hand, window: Window) -> Vec<Sent> {
    let Window { open, lasts, close, .. } = window;
    let opened = hand.send(&open).await;
    match &opened {
        Ok(_) => tokio::time::sleep(lasts).await,
        Err(error) if error.may_have_happened() => {}
        Err(_) => return vec![(open, opened)],
    }
    let closed = insist(hand, &close).await;
    vec![(open, opened), (close, closed)]
}

/// Sends what closes until AWS accepts it. An attacker can have AWS throttle it, but not for ever.
pub(super) async fn insist(hand: &impl Hand, close: &Call) -> Result<Outcome, AwsError> {
    let (begun, _waiting) = (Instant::now(), hand.insists(close));
    loop {
        match hand.send(close).await {
            Err(error) if begun.elapsed() < INSISTS && !is_moot(&error) => tokio::time::sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

/// Whether there is nothing left to close, or it is another's to close.
fn is_moot(error: &AwsError) -> bool {
    matches!(error.class, Class::NotFound | Class::Fenced)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::aws::Change;

    const LASTS: Duration = Duration::from_secs(3);

    /// Answers as told, and accepts what comes after that.
    struct Aws {
        begun: Instant,
        answers: Mutex<VecDeque<&'static str>>,
        calls: Mutex<Vec<(Call, Duration)>>,
    }

    impl Aws {
        fn answering(codes: &[&'static str]) -> Self {
            let answers = codes.iter().copied().collect::<VecDeque<_>>().into();
            Self { begun: Instant::now(), answers, calls: Mutex::default() }
        }
    }

    impl Hand for Aws {
        async fn send(&self, call: &Call) -> Result<Outcome, AwsError> {
            self.calls.lock().unwrap().push((call.clone(), self.begun.elapsed()));
            let (code, class) = match self.answers.lock().unwrap().pop_front() {
                None | Some("") => return Ok(Outcome::Done),
                Some(code @ "UnauthorizedOperation") => (code, Class::Denied),
                Some(code @ "InvalidNetworkInterfaceID.NotFound") => (code, Class::NotFound),
                Some(code) => (code, Class::Transient),
            };
            Err(AwsError { class, operation: call.operation().into(), code: code.into(), message: String::new() })
        }
    }

    fn call(change: Change) -> Call {
        Call::ModifyNetworkInterfaceAttribute { interface: "eni-1".into(), groups: vec!["sg".into()], change }
    }

    fn window() -> Window {
        Window { interface: "eni-1".into(), open: call(Change::Convert), lasts: LASTS, close: call(Change::Close) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_opened_is_closed_after_its_seconds_however_often_aws_refuses() {
        let mut codes = vec![""];
        codes.extend(["RequestLimitExceeded"; 20]);
        codes.push("UnauthorizedOperation");
        let aws = Aws::answering(&codes);
        let sent = pass_through(&aws, window()).await;
        assert!(sent.len() == 2 && sent.iter().all(|(_, answer)| answer.is_ok()), "{sent:?}");
        let calls = aws.calls.lock().unwrap();
        assert_eq!(calls[1], (call(Change::Close), LASTS));
        let pause = calls.windows(2).skip(1).map(|pair| pair[1].1.saturating_sub(pair[0].1)).max().unwrap();
        assert!(calls.len() == 23 && pause <= Duration::from_secs(1), "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_opened_is_not_closed_unless_that_is_not_known() {
        for (code, calls, seconds) in
            [("RequestLimitExceeded", 1, 0), ("NoAnswer", 2, 0), ("InternalError", 2, 0), ("", 2, 3)]
        {
            let aws = Aws::answering(&[code]);
            pass_through(&aws, window()).await;
            assert_eq!((aws.calls.lock().unwrap().len(), aws.begun.elapsed().as_secs()), (calls, seconds), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_is_gone_is_left_and_one_that_cannot_be_closed_is_told() {
        let gone = Aws::answering(&["InvalidNetworkInterfaceID.NotFound"]);
        assert!(insist(&gone, &call(Change::Close)).await.is_err() && gone.calls.lock().unwrap().len() == 1);
        let denied = Aws::answering(&["UnauthorizedOperation"; 1000]);
        assert_eq!(insist(&denied, &call(Change::Close)).await.unwrap_err().class, Class::Denied);
        assert!((INSISTS..INSISTS + AGAIN * 2).contains(&denied.begun.elapsed()), "{:?}", denied.begun.elapsed());
    }
}
