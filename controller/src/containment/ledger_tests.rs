use std::future::pending;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::containment::example;

fn spec() -> QuarantineSpec {
    example::quarantine(example::instance(), vec![]).spec
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record(key: &str, value: Value) -> Change {
    Change { record: BTreeMap::from([(key.to_owned(), value)]), ..Change::default() }
}

fn window(interface: &str, state: ConversionState) -> Change {
    Change { conversions: BTreeMap::from([(interface.to_owned(), state)]), ..Change::default() }
}

#[test]
fn the_first_recorded_value_stays() {
    let mut spec = spec();
    apply(&mut spec, &record("a", json!({ "groups": ["sg-1"] })), at(1));
    apply(&mut spec, &record("a", json!({ "groups": ["sg-2"] })), at(2));
    apply(&mut spec, &record("b", json!(1)), at(2));
    let original = spec.original.unwrap();
    assert_eq!(original["a"].0, r#"{"groups":["sg-1"]}"#);
    assert_eq!(original["b"].0, "1");
}

#[test]
fn an_interface_has_one_window_at_most() {
    let mut spec = spec();
    apply(&mut spec, &window("eni-1", ConversionState::Open), at(1));
    apply(&mut spec, &window("eni-2", ConversionState::Skipped), at(1));
    apply(&mut spec, &window("eni-1", ConversionState::Closed), at(2));
    let closed = spec.conversions.iter().find(|c| c.interface_id == "eni-1").unwrap();
    assert_eq!((spec.conversions.len(), closed.state, closed.since.0), (2, ConversionState::Closed, at(2)));
}

#[test]
fn each_opening_is_a_write_of_its_own() {
    let mut spec = spec();
    apply(&mut spec, &window("eni-1", ConversionState::Open), at(1));
    let before = spec.clone();
    apply(&mut spec, &window("eni-1", ConversionState::Open), at(2));
    assert_ne!(spec, before, "what cannot be stored opens nothing");
}

#[test]
fn nothing_to_store_changes_nothing() {
    let mut changed = spec();
    apply(&mut changed, &Change::default(), at(1));
    assert_eq!(changed, spec());
}

#[test]
fn what_an_older_crd_drops_is_noticed() {
    let mut sent = spec();
    apply(&mut sent, &record("a", json!(1)), at(1));
    apply(&mut sent, &window("eni-1", ConversionState::Open), at(1));
    let without_original = QuarantineSpec { original: None, ..sent.clone() };
    let without_windows = QuarantineSpec { conversions: vec![], ..sent.clone() };
    assert_eq!(verify(&sent, &sent), Ok(()));
    assert_eq!(verify(&sent, &without_original), Err(LedgerError::Pruned("spec.original".into())));
    assert_eq!(verify(&sent, &without_windows), Err(LedgerError::Pruned("spec.conversions".into())));
}

#[test]
fn what_is_too_long_for_a_record_is_refused_before_it_spoils_the_others() {
    let text = |length| BTreeMap::from([("a".to_owned(), Value::String("x".repeat(length)))]);
    assert_eq!(fits(&text(TEXT - 2)), Ok(()));
    assert_eq!(fits(&text(TEXT - 1)), Err(LedgerError::TooLong("a".into())));
}

/// An API server that has one Quarantine, and answers no write of its status. `stores`: whether it takes it all the same.
#[derive(Clone)]
struct Server {
    quarantine: Arc<Mutex<Quarantine>>,
    stores: bool,
}

type Answer = (StatusCode, String);

impl Server {
    fn new(stores: bool) -> Self {
        let mut quarantine = example::quarantine(example::user(), vec![]);
        quarantine.metadata.resource_version = Some("1".into());
        Self { quarantine: Arc::new(Mutex::new(quarantine)), stores }
    }

    fn ledger(&self) -> Ledger {
        let path = "/apis/firebreak.dev/v1alpha1/quarantines/q";
        let router = Router::new().route(path, get(read).put(replace)).route(&format!("{path}/status"), put(replace_status));
        let client = kube::Client::new(router.with_state(self.clone()), "default");
        Ledger::new(Api::all(client), self.now())
    }

    fn now(&self) -> Quarantine {
        self.quarantine.lock().unwrap().clone()
    }

    /// Takes a write where it was made of what is there.
    fn take(&self, sent: &str, change: impl FnOnce(&mut Quarantine, Quarantine)) -> Answer {
        let sent: Quarantine = serde_json::from_str(sent).unwrap();
        let mut now = self.quarantine.lock().unwrap();
        if sent.resource_version() != now.resource_version() {
            let conflict =
                json!({ "kind": "Status", "status": "Failure", "reason": "Conflict", "message": "", "code": 409 });
            return (StatusCode::CONFLICT, conflict.to_string());
        }
        let next: u64 = now.resource_version().unwrap().parse().unwrap();
        change(&mut now, sent);
        now.metadata.resource_version = Some((next + 1).to_string());
        (StatusCode::OK, serde_json::to_string(&*now).unwrap())
    }
}

async fn read(State(server): State<Server>) -> String {
    serde_json::to_string(&server.now()).unwrap()
}

async fn replace(State(server): State<Server>, sent: String) -> Answer {
    server.take(&sent, |now, sent| now.spec = sent.spec)
}

async fn replace_status(State(server): State<Server>, sent: String) -> Answer {
    if server.stores {
        server.take(&sent, |now, sent| now.status = sent.status);
    }
    pending().await
}

fn told(_: &Quarantine) -> QuarantineStatus {
    QuarantineStatus { drift_count: 7, ..QuarantineStatus::default() }
}

#[tokio::test(start_paused = true)]
async fn no_record_waits_for_a_status_that_is_not_answered() {
    for stores in [false, true] {
        let (server, began) = (Server::new(stores), Instant::now());
        let ledger = server.ledger();
        let record = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let stored = ledger.store(BTreeMap::from([("a".to_owned(), json!(1))]), BTreeMap::new()).await;
            (stored, began.elapsed() < BRIEFLY)
        };
        let (said, stored) = tokio::join!(ledger.tell(told), record);
        assert_eq!((said, stored), (Told::Later, (Ok(()), true)), "{stores}");
        let stored = ledger.store(BTreeMap::from([("b".to_owned(), json!(2))]), BTreeMap::new()).await;
        assert_eq!(stored, Ok(()), "{stores}: nor afterwards");
        let (now, known) = (server.now(), ledger.latest().await);
        assert_eq!(now.spec.original.unwrap().into_keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((known.resource_version(), known.status), (now.metadata.resource_version, now.status), "{stores}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_answered_in_time_ends_no_record() {
    let server = Server::new(true);
    let ledger = server.ledger();
    assert_eq!(ledger.tell(told).await, Told::Never);
    let stored = ledger.store(BTreeMap::from([("a".to_owned(), json!(1))]), BTreeMap::new()).await;
    assert_eq!((stored, server.now().status.map(|s| s.drift_count)), (Ok(()), Some(7)));
}

#[tokio::test(start_paused = true)]
async fn what_else_changed_ends_the_pass() {
    let held = |q: &mut Quarantine| q.spec.holders.push(example::holder("2", "inc-2", vec![]));
    let deleted = |q: &mut Quarantine| q.metadata.deletion_timestamp = Some(clock::time(at(1)));
    let remade = |q: &mut Quarantine| q.metadata.uid = Some("another".into());
    for change in [&held as &dyn Fn(&mut Quarantine), &deleted, &remade] {
        let server = Server::new(true);
        let ledger = server.ledger();
        {
            let mut now = server.quarantine.lock().unwrap();
            now.metadata.resource_version = Some("2".into());
            change(&mut now);
        }
        let stored = ledger.store(BTreeMap::from([("a".to_owned(), json!(1))]), BTreeMap::new()).await;
        assert_eq!((stored, server.now().spec.original), (Err(LedgerError::Changed), None));
    }
}
