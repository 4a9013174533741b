//! What is made once, by one attempt at a time: all who wait for an attempt share what comes of it, a failure too. Else a thousand who wait
//! for an account that does not answer would fail one after the other, each after a time-out of its own.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::error::AwsError;

/// One thing that is made once.
pub struct Login<T> {
    made: OnceCell<T>,
    /// When the last attempt failed, and why.
    failed: Mutex<Option<(Instant, AwsError)>>,
}

impl<T> Default for Login<T> {
    fn default() -> Self {
        Self { made: OnceCell::new(), failed: Mutex::default() }
    }
}

impl<T: Clone> Login<T> {
    /// What was made; else what comes of the attempt that is under way, or of one that begins now.
    ///
    /// # Errors
    /// Where that attempt failed.
    pub async fn get<F: Future<Output = Result<T, AwsError>>>(&self, attempt: impl FnOnce() -> F) -> Result<T, AwsError> {
        let asked = Instant::now();
        let attempt = async || match self.failed_since(asked) {
            Some(error) => Err(error),
            None => attempt().await.inspect_err(|error| self.fails(error)),
        };
        self.made.get_or_try_init(attempt).await.cloned()
    }

    fn failed_since(&self, asked: Instant) -> Option<AwsError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(at, _)| *at >= asked).map(|(_, error)| error.clone())
    }

    fn fails(&self, error: &AwsError) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;
    use crate::aws::Class;

    /// Takes five seconds, and fails so often.
    async fn attempt(made: &AtomicUsize, failing: usize) -> Result<usize, AwsError> {
        let nth = made.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let error = || AwsError {
            class: Class::Transient,
            operation: "sts:GetCallerIdentity".into(),
            code: "NoAnswer".into(),
            message: format!("attempt {nth}"),
        };
        if nth > failing { Ok(nth) } else { Err(error()) }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_for_an_attempt_share_its_failure_and_who_comes_later_makes_another() {
        let (login, made) = (Login::default(), AtomicUsize::new(0));
        let started = Instant::now();
        let waiting = join_all((0..1000).map(|_| login.get(|| attempt(&made, 2)))).await;
        assert!(waiting.iter().all(|r| r.as_ref().is_err_and(|e| e.message == "attempt 1")), "{waiting:?}");
        assert_eq!((made.load(Ordering::SeqCst), started.elapsed()), (1, Duration::from_secs(5)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(login.get(|| attempt(&made, 2)).await.unwrap_err().message, "attempt 2");
        tokio::time::advance(Duration::from_millis(1)).await;
        let all = join_all((0..10).map(|_| login.get(|| attempt(&made, 2)))).await;
        assert!(all.iter().all(|r| *r == Ok(3)), "{all:?}");
        assert_eq!(login.get(|| attempt(&made, 9)).await, Ok(3), "made once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_attempt_to_the_next() {
        let (login, made) = (Login::default(), AtomicUsize::new(0));
        let impatient = tokio::time::timeout(Duration::from_secs(2), login.get(|| attempt(&made, 0)));
        let (gave_up, waited) = futures::join!(impatient, login.get(|| attempt(&made, 0)));
        assert!(gave_up.is_err());
        assert_eq!(waited, Ok(2));
    }
}
