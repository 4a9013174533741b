//! Reads that are asked for at the same time go out together.
//!
//! A read goes out at once when none of its kind is in flight; those that arrive meanwhile share the next one. There is
//! no timer: a lone read pays no delay, and the busier AWS is, the more each read carries.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, join_all};
use tokio::sync::oneshot;

/// The fetch ended without an answer: it panicked, or the runtime is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read ended without an answer")]
pub struct Lost;

/// Coalesces the reads of one operation.
///
/// An answer always comes from a fetch that began after the caller asked. A key that the fetch did not return is
/// `Ok(None)`; an error goes to everyone who shared that fetch, and to nobody else.
pub struct Batcher<K, V, E> {
    shared: Arc<Shared<K, V, E>>,
}

type Answer<V, E> = Result<Option<V>, E>;
type Waiting<K, V, E> = HashMap<K, Vec<oneshot::Sender<Answer<V, E>>>>;
type Fetched<K, V, E> = BoxFuture<'static, Result<HashMap<K, V>, E>>;

struct Shared<K, V, E> {
    max: usize,
    fetch: Box<dyn Fn(Vec<K>) -> Fetched<K, V, E> + Send + Sync>,
    queue: Mutex<Queue<K, V, E>>,
}

struct Queue<K, V, E> {
    /// A task is fetching, and looks here again before it ends.
    busy: bool,
    waiting: Waiting<K, V, E>,
}

impl<K, V, E> fmt::Debug for Batcher<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("max", &self.shared.max).finish_non_exhaustive()
    }
}

impl<K, V, E> Batcher<K, V, E>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<Lost> + Send + 'static,
{
    /// A batcher whose fetches carry at most `max` distinct keys.
    ///
    /// Later reads wait for the fetch in flight, so `fetch` must have a time limit of its own.
    pub fn new(max: usize, fetch: impl Fn(Vec<K>) -> Fetched<K, V, E> + Send + Sync + 'static) -> Self {
        let queue = Mutex::new(Queue { busy: false, waiting: HashMap::new() });
        Self { shared: Arc::new(Shared { max: max.max(1), fetch: Box::new(fetch), queue }) }
    }

    /// Reads one key, together with whoever else is asking.
    ///
    /// # Errors
    /// The error of the fetch that carried this key, or [`Lost`] where it gave no answer.
    pub async fn get(&self, key: K) -> Result<Option<V>, E> {
        let (sender, answer) = oneshot::channel();
        if self.shared.enqueue(key, sender) {
            tokio::spawn(Shared::drive(self.shared.clone()));
        }
        answer.await.unwrap_or_else(|_| Err(Lost.into()))
    }
}

impl<K, V, E> Shared<K, V, E>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
    E: Clone + From<Lost> + Send + 'static,
{
    fn lock(&self) -> MutexGuard<'_, Queue<K, V, E>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller; true when nobody is fetching and the caller must start it.
    fn enqueue(&self, key: K, sender: oneshot::Sender<Answer<V, E>>) -> bool {
        let mut queue = self.lock();
        queue.waiting.entry(key).or_default().push(sender);
        !std::mem::replace(&mut queue.busy, true)
    }

    /// Fetches until nobody waits. A task of its own: no caller that goes away takes the others with it.
    async fn drive(self: Arc<Self>) {
        while let Some(round) = self.next_round() {
            join_all(round.into_iter().map(|batch| self.serve(batch))).await;
        }
    }

    /// Everyone who waits now, in batches of at most `max` keys; None, and no longer busy, when nobody does.
    fn next_round(&self) -> Option<Vec<Waiting<K, V, E>>> {
        let mut queue = self.lock();
        let mut waiting = std::mem::take(&mut queue.waiting).into_iter().filter(still_wanted).peekable();
        queue.busy = waiting.peek().is_some();
        let mut round = Vec::new();
        while waiting.peek().is_some() {
            round.push(waiting.by_ref().take(self.max).collect());
        }
        queue.busy.then_some(round)
    }

    async fn serve(&self, batch: Waiting<K, V, E>) {
        let fetched = self.fetch_apart(batch.keys().cloned().collect()).await;
        for (key, senders) in batch {
            let answer = fetched.as_ref().map(|values| values.get(&key).cloned()).map_err(Clone::clone);
            for sender in senders {
                // A caller that went away needs no answer.
                let _ = sender.send(answer.clone());
            }
        }
    }

    /// Runs the fetch as a task, so that its panic ends there.
    async fn fetch_apart(&self, keys: Vec<K>) -> Result<HashMap<K, V>, E> {
        let Ok(fetch) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.fetch)(keys))) else {
            return Err(Lost.into());
        };
        tokio::spawn(fetch).await.unwrap_or_else(|_| Err(Lost.into()))
    }
}

/// Whether anyone still waits for this key; fetching for callers that went away would waste the account's quota.
fn still_wanted<K, T>((_, senders): &(K, Vec<oneshot::Sender<T>>)) -> bool {
    senders.iter().any(|sender| !sender.is_closed())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Failure {
        Denied,
        Lost,
    }

    impl From<Lost> for Failure {
        fn from(_: Lost) -> Self {
            Self::Lost
        }
    }

    /// A fetch that waits for the test's leave, and answers each key with the number of the fetch that read it.
    #[derive(Default)]
    struct Aws {
        begun: AtomicUsize,
        sizes: Mutex<Vec<usize>>,
        fails: Mutex<Option<Failure>>,
        leave: Option<Semaphore>,
    }

    impl Aws {
        fn gated() -> Arc<Self> {
            Arc::new(Self { leave: Some(Semaphore::new(0)), ..Self::default() })
        }

        fn let_go(&self, fetches: usize) {
            self.leave.as_ref().unwrap().add_permits(fetches);
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }

        async fn fetch(self: Arc<Self>, keys: Vec<u32>) -> Result<HashMap<u32, usize>, Failure> {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.sizes.lock().unwrap().push(keys.len());
            let failure = self.fails.lock().unwrap().take();
            if let Some(leave) = &self.leave {
                leave.acquire().await.unwrap().forget();
            }
            assert!(failure != Some(Failure::Lost), "the fetch panics, as the test asked");
            failure.map_or_else(|| Ok(keys.into_iter().filter(|key| *key < 9000).map(|key| (key, number)).collect()), Err)
        }
    }

    fn batcher(aws: &Arc<Aws>) -> Arc<Batcher<u32, usize, Failure>> {
        let aws = aws.clone();
        Arc::new(Batcher::new(200, move |keys| aws.clone().fetch(keys).boxed()))
    }

    type Caller = tokio::task::JoinHandle<Result<Option<usize>, Failure>>;

    fn ask(batcher: &Arc<Batcher<u32, usize, Failure>>, key: u32) -> Caller {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.get(key).await })
    }

    /// Lets every task run until it waits for something.
    async fn settle() {
        for _ in 0..100 {
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_read_goes_at_once() {
        let aws = Arc::new(Aws::default());
        let start = tokio::time::Instant::now();
        assert_eq!(batcher(&aws).get(7).await, Ok(Some(1)));
        assert_eq!((aws.sizes(), start.elapsed().as_nanos()), (vec![1], 0));
    }

    #[tokio::test]
    async fn what_the_fetch_does_not_return_is_none() {
        assert_eq!(batcher(&Arc::new(Aws::default())).get(9001).await, Ok(None));
    }

    #[tokio::test]
    async fn reads_that_arrive_meanwhile_share_the_fewest_fetches() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        let first = ask(&batcher, 0);
        settle().await;
        let rest: Vec<_> = (0..450).map(|key| ask(&batcher, key)).collect();
        settle().await;
        assert_eq!(aws.sizes(), [1]);
        aws.let_go(1);
        settle().await;
        assert_eq!(aws.sizes(), [1, 200, 200, 50], "side by side: none of the three has been let go yet");
        aws.let_go(3);
        assert_eq!(first.await.unwrap(), Ok(Some(1)));
        for caller in rest {
            assert!(caller.await.unwrap().unwrap().unwrap() > 1);
        }
        assert_eq!(aws.begun.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn callers_of_one_key_share_one_place() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        let callers: Vec<_> = (0..500).map(|_| ask(&batcher, 7)).collect();
        settle().await;
        aws.let_go(2);
        for caller in callers {
            assert!(caller.await.unwrap().unwrap().is_some());
        }
        assert!(aws.sizes().iter().all(|size| *size == 1) && aws.sizes().len() <= 2);
    }

    #[tokio::test]
    async fn an_answer_comes_from_a_fetch_that_began_after_the_question() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        let early = ask(&batcher, 7);
        settle().await;
        let late = ask(&batcher, 7);
        settle().await;
        aws.let_go(2);
        assert_eq!((early.await.unwrap(), late.await.unwrap()), (Ok(Some(1)), Ok(Some(2))));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_holds_nobody_up() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        let (gone, stays) = (ask(&batcher, 1), ask(&batcher, 2));
        settle().await;
        gone.abort();
        let (gone_too, next) = (ask(&batcher, 3), ask(&batcher, 4));
        settle().await;
        gone_too.abort();
        settle().await;
        aws.let_go(2);
        assert_eq!((stays.await.unwrap(), next.await.unwrap()), (Ok(Some(1)), Ok(Some(2))));
        assert_eq!(aws.sizes(), [2, 1], "nothing is fetched for a caller that went away in time");
    }

    #[tokio::test]
    async fn nothing_is_fetched_when_every_caller_went_away() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        let first = ask(&batcher, 1);
        settle().await;
        let gone = ask(&batcher, 2);
        settle().await;
        gone.abort();
        aws.let_go(2);
        assert_eq!(first.await.unwrap(), Ok(Some(1)));
        settle().await;
        assert_eq!((aws.sizes(), batcher.get(3).await), (vec![1], Ok(Some(2))));
    }

    #[tokio::test]
    async fn an_error_reaches_everyone_in_its_batch_and_nobody_later() {
        let aws = Aws::gated();
        let batcher = batcher(&aws);
        *aws.fails.lock().unwrap() = Some(Failure::Denied);
        let failing = [ask(&batcher, 1), ask(&batcher, 2)];
        settle().await;
        let later = ask(&batcher, 3);
        settle().await;
        aws.let_go(2);
        for caller in failing {
            assert_eq!(caller.await.unwrap(), Err(Failure::Denied));
        }
        assert_eq!(later.await.unwrap(), Ok(Some(2)));
    }

    #[tokio::test]
    async fn a_fetch_that_panics_is_an_error_and_not_the_end() {
        let aws = Arc::new(Aws::default());
        let batcher = batcher(&aws);
        *aws.fails.lock().unwrap() = Some(Failure::Lost);
        assert_eq!(batcher.get(1).await, Err(Failure::Lost));
        assert_eq!(batcher.get(1).await, Ok(Some(2)));
    }

    #[tokio::test]
    async fn a_fetch_that_panics_before_its_first_await_is_no_different() {
        let batcher: Batcher<u32, usize, Failure> = Batcher::new(200, |keys| {
            assert!(keys[0] != 1, "the closure panics, as the test asked");
            std::future::ready(Ok(HashMap::from([(keys[0], 1)]))).boxed()
        });
        assert_eq!(batcher.get(1).await, Err(Failure::Lost));
        assert_eq!(batcher.get(2).await, Ok(Some(1)));
    }
}
