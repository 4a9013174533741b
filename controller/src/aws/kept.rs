//! Reads of what nothing that cuts depends on: kept for minutes, so that sweeps make no calls for it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::batch::Batcher;
use super::error::AwsError;

/// So long an answer is told.
const GOOD: Duration = Duration::from_mins(5);
/// So long nobody asks again after a failure, where it is only told.
const AGAIN: Duration = Duration::from_mins(1);
/// So long a caller waits: nothing that counts may wait behind it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the answers of a batcher.
pub(super) struct Kept<K, V> {
    reads: Batcher<K, V, AwsError>,
    known: Mutex<HashMap<K, Known<V>>>,
    again: Duration,
}

#[derive(Clone)]
struct Known<V> {
    until: Instant,
    value: Option<V>,
}

impl<K, V> Kept<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn new(reads: Batcher<K, V, AwsError>) -> Self {
        Self { reads, known: Mutex::default(), again: AGAIN }
    }

    /// Asked again so soon after a failure: something is done once it is known.
    pub(super) fn asked_again_after(self, again: Duration) -> Self {
        Self { again, ..self }
    }

    /// Reads it from AWS; to be passed to `get`.
    pub(super) async fn read(&self, key: K) -> Result<Option<V>, AwsError> {
        self.reads.get(key).await
    }

    /// What AWS last said of the key; None where it never did. An answer that cannot be had anew is told on. `read` is begun
    /// only where it is needed.
    pub(super) async fn get(&self, key: K, read: impl Future<Output = Result<Option<V>, AwsError>>) -> Option<V> {
        if let Some(known) = self.fresh(&key) {
            return known.value;
        }
        let answer = match timeout(PATIENCE, read).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what nothing depends on is not read");
                None
            }
            Err(_) => None,
        };
        self.note(key, answer)
    }

    fn fresh(&self, key: &K) -> Option<Known<V>> {
        self.lock().get(key).filter(|known| Instant::now() < known.until).cloned()
    }

    fn note(&self, key: K, answer: Option<V>) -> Option<V> {
        let mut all = self.lock();
        let until = Instant::now() + if answer.is_some() { GOOD } else { self.again };
        let known = all.entry(key).or_insert(Known { until, value: None });
        (known.until, known.value) = (until, answer.or_else(|| known.value.take()));
        known.value.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Known<V>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::aws::batch::Lost;

    /// An AWS that counts the reads, and answers each with its number; or with an error, or never.
    #[derive(Default)]
    struct Aws {
        reads: AtomicUsize,
        fails: AtomicBool,
        hangs: AtomicBool,
    }

    fn kept(aws: &Arc<Aws>) -> Kept<u8, usize> {
        let aws = aws.clone();
        Kept::new(Batcher::new(200, move |keys: Vec<u8>| {
            let aws = aws.clone();
            async move {
                let number = aws.reads.fetch_add(1, Ordering::SeqCst) + 1;
                if aws.hangs.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let answer = keys.into_iter().map(|key| (key, number)).collect();
                if aws.fails.load(Ordering::SeqCst) { Err(Lost.into()) } else { Ok(answer) }
            }
            .boxed()
        }))
    }

    async fn told(kept: &Kept<u8, usize>) -> Option<usize> {
        kept.get(1, kept.read(1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_minutes_and_then_read_anew() {
        let aws = Arc::new(Aws::default());
        let kept = kept(&aws);
        assert_eq!((told(&kept).await, told(&kept).await), (Some(1), Some(1)));
        tokio::time::advance(GOOD).await;
        assert_eq!(told(&kept).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_asked_about_again_at_once_and_does_not_forget_what_was_known() {
        let aws = Arc::new(Aws::default());
        let kept = kept(&aws);
        aws.fails.store(true, Ordering::SeqCst);
        assert_eq!((told(&kept).await, told(&kept).await), (None, None));
        assert_eq!(aws.reads.load(Ordering::SeqCst), 1);
        tokio::time::advance(AGAIN).await;
        aws.fails.store(false, Ordering::SeqCst);
        assert_eq!(told(&kept).await, Some(2));
        aws.fails.store(true, Ordering::SeqCst);
        tokio::time::advance(GOOD).await;
        assert_eq!(told(&kept).await, Some(2), "told on");
        assert_eq!(aws.reads.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_something_waits_for_is_asked_about_again_sooner() {
        let aws = Arc::new(Aws::default());
        let kept = kept(&aws).asked_again_after(AGAIN / 6);
        aws.fails.store(true, Ordering::SeqCst);
        assert_eq!(told(&kept).await, None);
        aws.fails.store(false, Ordering::SeqCst);
        assert_eq!(told(&kept).await, None, "not at once");
        tokio::time::advance(AGAIN / 6).await;
        assert_eq!(told(&kept).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_an_answer_that_does_not_come() {
        let aws = Arc::new(Aws::default());
        aws.hangs.store(true, Ordering::SeqCst);
        let start = Instant::now();
        assert_eq!(told(&kept(&aws)).await, None);
        assert_eq!(start.elapsed(), PATIENCE);
    }
}
