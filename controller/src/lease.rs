//! One leader: the holder of a `Lease`.
//!
//! A claim is a fence: whoever changes AWS checks it, with its expiry, right before each call. It runs from *before* the
//! write that earned it was sent, and when renewals fail it simply runs out, whether or not anyone notices.
//!
//! Clocks of two nodes are never compared: a lease has expired when this process has *watched it unchanged* for as long
//! as it lasts. So a node whose clock is ahead does not take the lease from a living leader. The price is that a new
//! process waits that long once, where a predecessor of another name died without giving the lease up.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock;

/// How long before its expiry a claim stops covering: what starts now has to arrive at AWS too.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);

/// How long a lease lasts without renewal, unless a test wants less.
pub const TTL: Duration = Duration::from_secs(15);

/// The right to change AWS, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who leads.
    pub holder: String,
    /// From when on somebody else may lead.
    pub expires: Timestamp,
}

impl Claim {
    /// Whether a call may still go out.
    #[must_use]
    pub fn covers(&self, now: Timestamp) -> bool {
        self.expires.duration_since(now) > MARGIN
    }

    /// The claim that a write sent at `sent` earns.
    fn earned(holder: &str, sent: Timestamp, ttl: Duration) -> Self {
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::ZERO);
        // Out of range is a claim that covers nothing.
        Self { holder: holder.to_owned(), expires: sent.checked_add(ttl).unwrap_or(sent) }
    }
}

/// What to do about the lease now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Acquire, renew or take over by writing this.
    Write(LeaseSpec),
    /// Somebody else holds it: look again after this time.
    Wait(Duration),
}

/// What `me` does about a lease that it has watched unchanged for `watched`.
#[must_use]
pub fn decide(now: Timestamp, lease: Option<&Lease>, watched: Duration, me: &str, ttl: Duration) -> Decision {
    let current = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    match holder(&current) {
        Some(holder) if holder == me => Decision::Write(renewed(current, now, ttl)),
        Some(_) => match lasts(&current, ttl).checked_sub(watched) {
            Some(left) if !left.is_zero() => Decision::Wait(left.min(pause(ttl))),
            _ => Decision::Write(taken(current, now, me, ttl)),
        },
        None => Decision::Write(taken(current, now, me, ttl)),
    }
}

/// The lease as `me` leaves it, so that a successor starts at once; None where `me` does not hold it.
#[must_use]
pub fn release(now: Timestamp, lease: &Lease, me: &str) -> Option<LeaseSpec> {
    let spec = lease.spec.clone().filter(|spec| holder(spec) == Some(me))?;
    Some(LeaseSpec { holder_identity: Some(String::new()), renew_time: Some(MicroTime(now)), ..spec })
}

fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// How long the holder said that its lease lasts.
fn lasts(spec: &LeaseSpec, ttl: Duration) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).map_or(ttl, Duration::from_secs)
}

fn renewed(spec: LeaseSpec, now: Timestamp, ttl: Duration) -> LeaseSpec {
    let seconds = i32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i32::MAX).max(1);
    LeaseSpec { lease_duration_seconds: Some(seconds), renew_time: Some(MicroTime(now)), ..spec }
}

fn taken(spec: LeaseSpec, now: Timestamp, me: &str, ttl: Duration) -> LeaseSpec {
    let transitions = spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1));
    let acquired = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        acquire_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..spec
    };
    renewed(acquired, now, ttl)
}

/// Between two looks at a lease that somebody else holds, and after an error.
fn pause(ttl: Duration) -> Duration {
    ttl / 15
}

/// Competes for the lease until `shutdown` resolves, then gives it up.
///
/// The receiver shows the claim, and None while there is none; check [`Claim::covers`] at each effect all the same.
/// `shutdown` must resolve only when the last call that the claim covers has ended: the successor starts at once.
pub fn start(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    ttl: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (watch::Receiver<Option<Claim>>, JoinHandle<()>) {
    let (claim, receiver) = watch::channel(None);
    let candidate = Candidate {
        api: Api::namespaced(client, namespace),
        name: name.to_owned(),
        me: identity.to_owned(),
        ttl,
        seen: None,
        claim,
        deadline: Instant::now(),
    };
    (receiver, tokio::spawn(candidate.run(shutdown)))
}

/// What was being done when the API server failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the lease: {0}")]
    Read(Box<kube::Error>),
    #[error("writing the lease: {0}")]
    Write(Box<kube::Error>),
    #[error("the API server did not answer in {0:?}")]
    Silence(Duration),
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    ttl: Duration,
    /// The lease as last read, and since when it is like that.
    seen: Option<(LeaseSpec, Instant)>,
    claim: watch::Sender<Option<Claim>>,
    /// When the claim runs out, by the clock that nobody sets.
    deadline: Instant,
}

impl Candidate {
    async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        loop {
            let (leads, deadline) = (self.leads(), self.deadline);
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = sleep_until(deadline), if leads => self.lose("it ran out"),
                () = self.turn() => {}
            }
        }
        self.give_up().await;
    }

    fn leads(&self) -> bool {
        self.claim.borrow().is_some()
    }

    /// One round, and the pause after it.
    async fn turn(&mut self) {
        let wait = self.round().await.unwrap_or_else(|error| {
            tracing::warn!(lease = self.name, %error, "cannot compete for the lease; trying again");
            pause(self.ttl)
        });
        sleep(wait).await;
    }

    /// Looks, decides, writes; returns when to do so again.
    async fn round(&mut self) -> Result<Duration, Error> {
        let lease = self.read().await?;
        let watched = self.watched(lease.as_ref());
        let (now, sent) = (clock::now(), Instant::now());
        let spec = match decide(now, lease.as_ref(), watched, &self.me, self.ttl) {
            Decision::Write(spec) => spec,
            Decision::Wait(wait) => {
                self.lose("somebody else holds it");
                return Ok(wait);
            }
        };
        if !self.write(lease, spec).await? {
            return Ok(pause(self.ttl) / 10);
        }
        self.win(now, sent);
        Ok(self.ttl / 3)
    }

    /// How long the lease has been as it is, as far as this process has seen.
    fn watched(&mut self, lease: Option<&Lease>) -> Duration {
        let spec = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn win(&mut self, now: Timestamp, sent: Instant) {
        self.deadline = sent + self.ttl;
        let before = self.claim.send_replace(Some(Claim::earned(&self.me, now, self.ttl)));
        if before.is_none() {
            tracing::info!(lease = self.name, holder = self.me, "leading");
        }
    }

    fn lose(&self, why: &str) {
        if self.claim.send_replace(None).is_some() {
            tracing::warn!(lease = self.name, holder = self.me, why, "no longer leading");
        }
    }

    async fn give_up(self) {
        self.claim.send_replace(None);
        match self.hand_over().await {
            Ok(true) => tracing::info!(lease = self.name, holder = self.me, "gave the lease up"),
            Ok(false) => {}
            Err(error) => tracing::warn!(lease = self.name, %error, "cannot give the lease up; it will expire"),
        }
    }

    /// False where this process does not hold the lease.
    async fn hand_over(&self) -> Result<bool, Error> {
        let Some(lease) = self.read().await? else { return Ok(false) };
        let Some(spec) = release(clock::now(), &lease, &self.me) else { return Ok(false) };
        self.write(Some(lease), spec).await
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.bounded(self.api.get_opt(&self.name)).await?.map_err(|error| Error::Read(Box::new(error)))
    }

    /// Writes over exactly what was read; false where that is no longer what is there.
    async fn write(&self, read: Option<Lease>, spec: LeaseSpec) -> Result<bool, Error> {
        let create = read.is_none();
        let metadata = read.map_or_else(|| named(&self.name), |lease| lease.metadata);
        let lease = Lease { metadata, spec: Some(spec) };
        let params = PostParams::default();
        let written = if create {
            self.bounded(self.api.create(&params, &lease)).await?
        } else {
            self.bounded(self.api.replace(&self.name, &params, &lease)).await?
        };
        match written {
            Ok(_) => Ok(true),
            // 409: written meanwhile; 404: deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && !create) => Ok(false),
            Err(error) => Err(Error::Write(Box::new(error))),
        }
    }

    /// A round is two calls, and two rounds must fit into a claim.
    async fn bounded<T>(&self, call: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.ttl / 5;
        timeout(limit, call).await.map_err(|_| Error::Silence(limit))
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::{get, post};
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn lease(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            acquire_time: Some(MicroTime(at(-100))),
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(20),
            lease_transitions: Some(4),
            renew_time: Some(MicroTime(at(renewed))),
            ..LeaseSpec::default()
        };
        Lease { metadata: named("firebreak"), spec: Some(spec) }
    }

    fn decided(lease: Option<&Lease>, watched: u64) -> Decision {
        decide(at(0), lease, Duration::from_secs(watched), "me", TTL)
    }

    fn written(lease: Option<&Lease>, watched: u64) -> LeaseSpec {
        match decided(lease, watched) {
            Decision::Write(spec) => spec,
            Decision::Wait(wait) => panic!("waits for {wait:?}"),
        }
    }

    #[test]
    fn a_claim_covers_until_two_seconds_before_it_expires() {
        let claim = Claim::earned("me", at(0), TTL);
        assert_eq!(claim.expires, at(15));
        let covered = [-1, 0, 12, 13, 14, 15, 100].map(|second| claim.covers(at(second)));
        assert_eq!(covered, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_claim_beyond_the_calendar_covers_nothing() {
        assert!(!Claim::earned("me", Timestamp::MAX, TTL).covers(Timestamp::MAX));
        assert!(!Claim::earned("me", at(0), Duration::MAX).covers(at(0)));
    }

    #[test]
    fn a_lease_that_is_missing_or_empty_or_given_up_is_taken_at_once() {
        let empty = Lease { metadata: named("firebreak"), spec: None };
        for (lease, transitions) in [(None, 0), (Some(empty), 0), (Some(lease("", 0)), 5)] {
            let spec = written(lease.as_ref(), 0);
            assert_eq!((holder(&spec), spec.lease_transitions), (Some("me"), Some(transitions)));
            assert_eq!((spec.acquire_time, spec.renew_time), (Some(MicroTime(at(0))), Some(MicroTime(at(0)))));
            assert_eq!(spec.lease_duration_seconds, Some(15));
        }
    }

    #[test]
    fn ones_own_lease_is_renewed_however_old_it_is() {
        for (renewed, watched) in [(-5, 0), (-500, 0), (-500, 500)] {
            let spec = written(Some(&lease("me", renewed)), watched);
            assert_eq!((holder(&spec), spec.lease_transitions), (Some("me"), Some(4)));
            assert_eq!((spec.acquire_time, spec.renew_time), (Some(MicroTime(at(-100))), Some(MicroTime(at(0)))));
        }
    }

    #[test]
    fn anothers_lease_is_left_for_as_long_as_its_holder_said() {
        for watched in [0, 15, 19] {
            assert_eq!(decided(Some(&lease("you", 0)), watched), Decision::Wait(Duration::from_secs(1)));
        }
        let spec = written(Some(&lease("you", 0)), 20);
        assert_eq!((holder(&spec), spec.lease_transitions), (Some("me"), Some(5)));
    }

    #[test]
    fn anothers_clock_proves_nothing() {
        for renewed in [-1000, 1000] {
            assert!(matches!(decided(Some(&lease("you", renewed)), 0), Decision::Wait(_)));
            assert!(matches!(decided(Some(&lease("you", renewed)), 20), Decision::Write(_)));
        }
    }

    #[test]
    fn the_last_wait_is_no_longer_than_what_is_left() {
        let watched = Duration::from_millis(19_700);
        let decision = decide(at(0), Some(&lease("you", 0)), watched, "me", TTL);
        assert_eq!(decision, Decision::Wait(Duration::from_millis(300)));
    }

    #[test]
    fn a_lease_without_a_sane_duration_lasts_as_long_as_ours() {
        for seconds in [None, Some(0), Some(-1)] {
            let mut lease = lease("you", 0);
            lease.spec.as_mut().unwrap().lease_duration_seconds = seconds;
            assert!(matches!(decided(Some(&lease), 14), Decision::Wait(_)));
            assert!(matches!(decided(Some(&lease), 15), Decision::Write(_)));
        }
    }

    #[test]
    fn only_the_holder_releases() {
        let spec = release(at(0), &lease("me", -5), "me").unwrap();
        assert_eq!((holder(&spec), spec.lease_transitions), (None, Some(4)));
        assert_eq!(release(at(0), &lease("you", -5), "me"), None);
        assert_eq!(release(at(0), &lease("", -5), "me"), None);
    }

    /// An API server that knows one lease, in memory, so that the task can be tried in no time.
    #[derive(Default)]
    struct Server {
        lease: Mutex<Option<Lease>>,
        writes: Mutex<u32>,
        /// Calls are never answered.
        silent: Mutex<bool>,
        /// Somebody else writes the lease just before the next write of ours.
        rival: Mutex<Option<Lease>>,
    }

    impl Server {
        fn client(self: &Arc<Self>) -> Client {
            let leases = "/apis/coordination.k8s.io/v1/namespaces/firebreak/leases";
            let router = Router::new()
                .route(leases, post(write))
                .route(&format!("{leases}/{{name}}"), get(read).put(write))
                .with_state(self.clone());
            Client::new(router, "firebreak")
        }

        fn store(&self, mut lease: Lease) -> Lease {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            lease.metadata.resource_version = Some(writes.to_string());
            *self.lease.lock().unwrap() = Some(lease.clone());
            lease
        }

        fn holder(&self) -> Option<String> {
            let lease = self.lease.lock().unwrap().clone();
            lease.and_then(|lease| lease.spec).and_then(|spec| holder(&spec).map(str::to_owned))
        }

        fn silence(&self, silent: bool) {
            *self.silent.lock().unwrap() = silent;
        }

        async fn answer(&self) {
            if *self.silent.lock().unwrap() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn read(State(server): State<Arc<Server>>) -> Response {
        server.answer().await;
        let lease = server.lease.lock().unwrap().clone();
        lease.map_or_else(|| refused(StatusCode::NOT_FOUND), |lease| body(&lease).into_response())
    }

    async fn write(State(server): State<Arc<Server>>, sent: String) -> Response {
        let lease: Lease = serde_json::from_str(&sent).unwrap();
        server.answer().await;
        if let Some(rival) = server.rival.lock().unwrap().take() {
            server.store(rival);
        }
        let current = server.lease.lock().unwrap().as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if current != lease.metadata.resource_version {
            return refused(StatusCode::CONFLICT);
        }
        body(&server.store(lease)).into_response()
    }

    fn refused(status: StatusCode) -> Response {
        let reason = if status == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
        let why = json!({ "kind": "Status", "status": "Failure", "code": status.as_u16(), "reason": reason });
        (status, why.to_string()).into_response()
    }

    fn body(lease: &Lease) -> String {
        serde_json::to_string(lease).unwrap()
    }

    struct Process {
        claim: watch::Receiver<Option<Claim>>,
        task: JoinHandle<()>,
        stop: oneshot::Sender<()>,
    }

    impl Process {
        fn start(server: &Arc<Server>, identity: &str) -> Self {
            let (stop, stopped) = oneshot::channel();
            let shutdown = async {
                let _ = stopped.await;
            };
            let (claim, task) = start(server.client(), "firebreak", "firebreak", identity, TTL, shutdown);
            Self { claim, task, stop }
        }

        fn leads(&self) -> bool {
            self.claim.borrow().is_some()
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.task.await.unwrap();
        }
    }

    async fn seconds(seconds: f64) {
        sleep(Duration::from_secs_f64(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_leads_at_once_and_keeps_leading() {
        let server = Arc::default();
        let first = Process::start(&server, "first");
        seconds(0.1).await;
        assert!(first.leads());
        let second = Process::start(&server, "second");
        for _ in 0..100 {
            seconds(1.0).await;
            assert!(first.leads() && !second.leads());
        }
        assert_eq!(*server.writes.lock().unwrap(), 21, "a write every five seconds");
        assert_eq!(first.claim.borrow().as_ref().unwrap().holder, "first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_starts_when_the_lease_is_given_up() {
        let server = Arc::default();
        let (first, second) = (Process::start(&server, "first"), Process::start(&server, "second"));
        seconds(30.0).await;
        let claim = first.claim.clone();
        first.stop().await;
        assert_eq!((server.holder(), claim.borrow().is_some()), (None, false));
        seconds(1.1).await;
        assert!(second.leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_successor_waits_for_one_that_died_but_not_for_its_former_self() {
        let server = Arc::default();
        let first = Process::start(&server, "first");
        seconds(1.0).await;
        first.task.abort();
        let second = Process::start(&server, "second");
        seconds(14.9).await;
        assert!(!second.leads());
        seconds(0.2).await;
        assert!(second.leads());
        second.task.abort();
        let again = Process::start(&server, "second");
        seconds(0.1).await;
        assert!(again.leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_runs_out_when_renewals_fail_and_comes_back() {
        let server = Arc::default();
        let first = Process::start(&server, "first");
        seconds(1.0).await;
        server.silence(true);
        seconds(13.9).await;
        assert!(first.leads());
        seconds(0.2).await;
        assert!(!first.leads());
        server.silence(false);
        seconds(4.1).await;
        assert!(first.leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_delays_no_shutdown_for_long() {
        let server = Arc::default();
        let first = Process::start(&server, "first");
        seconds(1.0).await;
        server.silence(true);
        let start = Instant::now();
        first.stop().await;
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn losing_a_race_is_no_claim() {
        let server: Arc<Server> = Arc::default();
        server.store(lease("", 0));
        *server.rival.lock().unwrap() = Some(lease("rival", 0));
        let first = Process::start(&server, "first");
        seconds(10.0).await;
        assert!(!first.leads());
        assert_eq!(server.holder().as_deref(), Some("rival"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_somebody_took_is_no_claim() {
        let server = Arc::default();
        let first = Process::start(&server, "first");
        seconds(1.0).await;
        server.store(lease("rival", 0));
        seconds(5.0).await;
        assert!(!first.leads());
        first.stop().await;
        assert_eq!(server.holder().as_deref(), Some("rival"), "it is not ours to give up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_deleted_is_made_again() {
        let server: Arc<Server> = Arc::default();
        let first = Process::start(&server, "first");
        seconds(1.0).await;
        *server.lease.lock().unwrap() = None;
        seconds(6.0).await;
        assert_eq!((first.leads(), server.holder().as_deref()), (true, Some("first")));
    }
}
