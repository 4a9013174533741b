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
