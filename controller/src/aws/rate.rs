//! Token buckets on our side of the wire, so that AWS's are never empty when containment needs them.
//!
//! AWS's buckets are shared with everyone in the account: the owners, and the attacker. These follow what AWS documents
//! ([EC2](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html)) and keep sweeps to half of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a call is for. A waiting call goes before every call that stands below it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Closing an interface that stands open. It waits for nobody: its token was taken with that of the opening.
    Close,
    /// Cutting the attacker off.
    Contain,
    /// Cutting what is left to one that is cut off: public addresses, idle flows. It shares a bucket with what cuts off.
    Narrow,
    /// Opening an interface for seconds, to cut the flows that are tracked. Never before somebody's cut, and with the token of
    /// the closing in hand: what stands open must not wait for its turn.
    Convert,
    /// Giving something back.
    Release,
    /// Preserving evidence, and watching it get done.
    Evidence,
    /// Looking for drift. At most half of each bucket: the account's owners need the rest.
    Sweep,
}

impl Priority {
    fn tokens(self) -> f64 {
        match self {
            Self::Close => 0.0,
            Self::Convert => 2.0,
            Self::Contain | Self::Narrow | Self::Release | Self::Evidence | Self::Sweep => 1.0,
        }
    }
}

/// The buckets of one account in one region, one per operation.
///
/// IAM is global: give each account one more of these for it, rather than one per region.
#[derive(Debug, Default)]
pub struct RateLimiter {
    buckets: Mutex<HashMap<(String, String), Arc<Bucket>>>,
}

impl RateLimiter {
    /// Full buckets for everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a call of this operation may go out. `service` is the prefix in IAM policies: `ec2`, `iam`.
    ///
    /// A caller that goes away while it waits takes nothing.
    pub async fn take(&self, service: &str, operation: &str, priority: Priority) {
        self.bucket(service, operation).take(priority).await;
    }

    fn bucket(&self, service: &str, operation: &str) -> Arc<Bucket> {
        let new = || Arc::new(Bucket::new(Limit::of(service, operation), Instant::now()));
        lock(&self.buckets).entry((service.to_owned(), operation.to_owned())).or_insert_with(new).clone()
    }
}

/// How many calls may go out at once, and how many a second after that.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    burst: f64,
    per_second: f64,
}

impl Limit {
    fn of(service: &str, operation: &str) -> Self {
        match service {
            "ec2" => Self::ec2(operation),
            // Each version of the API has a bucket for all its reads.
            // https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html
            "elb" | "elbv2" => Self::new(40, 10),
            // AWS publishes no rate for IAM or STS: this one is ours.
            _ => Self::new(20, 10),
        }
    }

    fn ec2(operation: &str) -> Self {
        match operation {
            "CreateTags" | "DeleteTags" => Self::new(100, 10),
            "AssociateIamInstanceProfile"
            | "CreateSnapshot"
            | "CreateSnapshots"
            | "DisassociateIamInstanceProfile"
            | "ModifyInstanceMetadataOptions"
            | "ModifyNetworkInterfaceAttribute"
            | "ModifySnapshotAttribute"
            | "TerminateInstances" => Self::new(100, 5),
            "StartInstances" => Self::new(5, 2),
            _ if ["Describe", "Get", "List", "Search"].iter().any(|verb| operation.starts_with(verb)) => Self::new(100, 20),
            _ => Self::new(50, 5),
        }
    }

    fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: f64::from(burst), per_second: f64::from(per_second) }
    }

    fn half(self) -> Self {
        Self { burst: self.burst / 2.0, per_second: self.per_second / 2.0 }
    }
}

/// The tokens there are now.
#[derive(Debug)]
struct Tokens {
    limit: Limit,
    level: f64,
    at: Instant,
}

impl Tokens {
    fn full(limit: Limit, now: Instant) -> Self {
        Self { limit, level: limit.burst, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.limit.per_second;
        self.level = (self.level + gained).min(self.limit.burst);
        self.at = now;
    }

    /// How long until there are `wanted` tokens.
    fn until(&self, wanted: f64) -> Duration {
        Duration::from_secs_f64((wanted - self.level).max(0.0) / self.limit.per_second)
    }
}

/// One operation's tokens, and who waits for them.
#[derive(Debug)]
struct Bucket {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    all: Tokens,
    /// What sweeps may use; they take from both.
    sweep: Tokens,
    queue: BTreeSet<Ticket>,
    next: u64,
}

/// A place in the queue: by priority, then by arrival.
type Ticket = (Priority, u64);

impl Bucket {
    fn new(limit: Limit, now: Instant) -> Self {
        let (all, sweep) = (Tokens::full(limit, now), Tokens::full(limit.half(), now));
        Self { state: Mutex::new(State { all, sweep, queue: BTreeSet::new(), next: 0 }) }
    }

    async fn take(&self, priority: Priority) {
        if priority == Priority::Close {
            return;
        }
        let place = Place::new(self, priority);
        loop {
            let wait = lock(&self.state).try_take(place.ticket, Instant::now());
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait).await;
        }
    }
}

impl State {
    /// Takes a token, or says when to look again.
    ///
    /// Whoever is not first looks again when there will be one token more than there is now: by then the first has
    /// taken its own.
    fn try_take(&mut self, ticket: Ticket, now: Instant) -> Option<Duration> {
        self.all.refill(now);
        self.sweep.refill(now);
        if self.queue.first() != Some(&ticket) {
            return Some(self.all.until(self.all.level.floor() + 1.0));
        }
        let (tokens, sweep) = (ticket.0.tokens(), if ticket.0 == Priority::Sweep { 1.0 } else { 0.0 });
        let wait = self.all.until(tokens).max(self.sweep.until(sweep));
        if wait.is_zero() {
            self.all.level -= tokens;
            self.sweep.level -= sweep;
            return None;
        }
        Some(wait)
    }
}

/// A caller's place in the queue, given up when the caller has its token or goes away.
struct Place<'a> {
    bucket: &'a Bucket,
    ticket: Ticket,
}

impl<'a> Place<'a> {
    fn new(bucket: &'a Bucket, priority: Priority) -> Self {
        let mut state = lock(&bucket.state);
        let ticket = (priority, state.next);
        state.next += 1;
        state.queue.insert(ticket);
        Self { bucket, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.bucket.state).queue.remove(&self.ticket);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    const SWAP: &str = "ModifyNetworkInterfaceAttribute";

    async fn take_many(limiter: &RateLimiter, operation: &str, priority: Priority, calls: usize) -> f64 {
        let start = Instant::now();
        join_all((0..calls).map(|_| limiter.take("ec2", operation, priority))).await;
        start.elapsed().as_secs_f64()
    }

    /// How many calls go out without any wait.
    fn burst(limiter: &RateLimiter, service: &str, operation: &str, priority: Priority) -> usize {
        std::iter::from_fn(|| limiter.take(service, operation, priority).now_or_never()).count()
    }

    /// Takes a token, then notes who did.
    fn queue_up(
        limiter: &Arc<RateLimiter>,
        priority: Priority,
        order: &Arc<Mutex<Vec<Priority>>>,
    ) -> tokio::task::JoinHandle<()> {
        let (limiter, order) = (limiter.clone(), order.clone());
        tokio::spawn(async move {
            limiter.take("ec2", SWAP, priority).await;
            order.lock().unwrap().push(priority);
        })
    }

    #[tokio::test(start_paused = true)]
    async fn each_operation_has_the_burst_that_aws_documents() {
        let cases = [
            ("ec2", "DescribeInstances", 100),
            ("ec2", "GetConsoleOutput", 100),
            ("ec2", SWAP, 100),
            ("ec2", "CreateSnapshots", 100),
            ("ec2", "CreateTags", 100),
            ("ec2", "ModifyInstanceAttribute", 50),
            ("ec2", "CreateSecurityGroup", 50),
            ("ec2", "StartInstances", 5),
            ("iam", "PutUserPolicy", 20),
            ("sts", "GetCallerIdentity", 20),
            ("elbv2", "Describe", 40),
            ("elb", "Describe", 40),
        ];
        let limiter = RateLimiter::new();
        for (service, operation, calls) in cases {
            assert_eq!(burst(&limiter, service, operation, Priority::Contain), calls, "{service}:{operation}");
        }
    }

    #[test]
    fn each_operation_refills_as_aws_documents() {
        let limits = ["DescribeVpcs", "CreateTags", SWAP, "ModifyInstanceAttribute", "StartInstances"]
            .map(|operation| Limit::of("ec2", operation));
        assert_eq!(limits, [(100, 20), (100, 10), (100, 5), (50, 5), (5, 2)].map(|(burst, rate)| Limit::new(burst, rate)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_instances_are_swapped_in_the_time_that_the_refill_allows() {
        let took = take_many(&RateLimiter::new(), SWAP, Priority::Contain, 1000).await;
        assert!((180.0..181.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn sweeps_get_half_of_the_burst_and_half_of_the_refill() {
        let limiter = RateLimiter::new();
        assert_eq!(burst(&limiter, "ec2", "DescribeInstances", Priority::Sweep), 50);
        let took = take_many(&limiter, "DescribeInstances", Priority::Sweep, 100).await;
        assert!((10.0..10.2).contains(&took), "{took}");
        assert_eq!(burst(&limiter, "ec2", "DescribeInstances", Priority::Contain), 99, "all but the last sweep's");
    }

    #[tokio::test(start_paused = true)]
    async fn containment_waits_for_no_sweep() {
        let limiter = Arc::new(RateLimiter::new());
        let order = Arc::default();
        let sweeps: Vec<_> = (0..60).map(|_| queue_up(&limiter, Priority::Sweep, &order)).collect();
        tokio::task::yield_now().await;
        assert_eq!(order.lock().unwrap().len(), 50);
        assert_eq!(limiter.take("ec2", SWAP, Priority::Contain).now_or_never(), Some(()));
        join_all(sweeps).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_call_goes_before_those_of_lower_priority() {
        use Priority::{Contain, Evidence, Narrow, Release, Sweep};
        let limiter = Arc::new(RateLimiter::new());
        burst(&limiter, "ec2", SWAP, Contain);
        let order = Arc::default();
        let arrivals = [Sweep, Evidence, Narrow, Contain, Release, Sweep, Evidence, Contain];
        let start = Instant::now();
        join_all(arrivals.map(|priority| queue_up(&limiter, priority, &order))).await;
        assert_eq!(*order.lock().unwrap(), [Contain, Contain, Narrow, Release, Evidence, Evidence, Sweep, Sweep]);
        let took = start.elapsed().as_secs_f64();
        assert!((1.6..1.7).contains(&took), "no token was wasted: {took}");
    }

    #[tokio::test(start_paused = true)]
    async fn three_hundred_interfaces_are_opened_for_their_seconds_and_no_longer() {
        const LASTS: Duration = Duration::from_secs(3);
        let limiter = &RateLimiter::new();
        let start = Instant::now();
        let each = (0..300).map(|_| async move {
            limiter.take("ec2", SWAP, Priority::Contain).await;
            let cut = start.elapsed();
            tokio::time::sleep(Duration::from_millis(200)).await; // it is read back
            limiter.take("ec2", SWAP, Priority::Convert).await;
            let opened = start.elapsed();
            tokio::time::sleep(LASTS).await;
            limiter.take("ec2", SWAP, Priority::Close).await;
            (cut, opened, start.elapsed().saturating_sub(opened))
        });
        let all = join_all(each).await;
        let open = all.iter().map(|a| a.2).max().unwrap();
        assert!(open < LASTS + Duration::from_millis(10), "{open:?}");
        let (last_cut, first_opened) = (all.iter().map(|a| a.0).max().unwrap(), all.iter().map(|a| a.1).min().unwrap());
        assert!(last_cut < Duration::from_secs(41) && last_cut <= first_opened, "{last_cut:?} {first_opened:?}");
        let last = start.elapsed().as_secs();
        assert!((160..165).contains(&last), "as many calls as AWS allows, in all: {last}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_cut_goes_before_every_opening_that_waits() {
        use Priority::{Contain, Convert};
        let limiter = Arc::new(RateLimiter::new());
        assert_eq!(burst(&limiter, "ec2", SWAP, Convert), 50, "each with its closing");
        let order = Arc::default();
        join_all([Convert, Convert, Contain].map(|priority| queue_up(&limiter, priority, &order))).await;
        assert_eq!(*order.lock().unwrap(), [Contain, Convert, Convert]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_frees_its_place_and_takes_nothing() {
        let limiter = Arc::new(RateLimiter::new());
        burst(&limiter, "ec2", SWAP, Priority::Contain);
        let order = Arc::default();
        let gone = queue_up(&limiter, Priority::Contain, &order);
        let stays = queue_up(&limiter, Priority::Sweep, &order);
        tokio::task::yield_now().await;
        let start = Instant::now();
        gone.abort();
        stays.await.unwrap();
        assert_eq!(*order.lock().unwrap(), [Priority::Sweep]);
        assert!(start.elapsed() < Duration::from_millis(210), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn operations_do_not_share_a_bucket() {
        let limiter = RateLimiter::new();
        burst(&limiter, "ec2", SWAP, Priority::Contain);
        assert_eq!(limiter.take("ec2", "CreateTags", Priority::Contain).now_or_never(), Some(()));
    }
}
