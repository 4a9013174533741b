//! What goes wrong on the way to AWS.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

use super::Answer;
use super::aws_request::AwsRequest;
use super::hold::{self, HeldCall, Hold, When};

#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    /// By action
    faults: BTreeMap<String, Fault>,
    holds: Vec<Waiting>,
    short_pages: bool,
    /// How far AWS's clock is ahead
    ahead: Option<Duration>,
    /// The last answer to each request that reads
    remembered: HashMap<Bytes, Answer>,
}

/// A hold whose call has not come yet.
#[derive(Debug)]
struct Waiting {
    /// Of this action, or of any
    action: Option<String>,
    /// How many such calls are still to let pass
    before: usize,
    hold: Hold,
}

impl Waiting {
    fn is_for(&self, action: &str) -> bool {
        self.action.as_deref().is_none_or(|wanted| wanted == action)
    }
}

#[derive(Debug)]
enum Fault {
    Fail { status: StatusCode, code: String, message: String },
    Hang,
    Stale { until: Instant },
}

impl Faults {
    pub fn delay(&self, by: Duration) {
        self.state.lock().unwrap().delay = by;
    }

    pub fn fail(&self, action: &str, status: u16, code: &str, message: &str) {
        let status = StatusCode::from_u16(status).expect("an HTTP status");
        self.set(action, Fault::Fail { status, code: code.to_owned(), message: message.to_owned() });
    }

    pub fn hang(&self, action: &str) {
        self.set(action, Fault::Hang);
    }

    pub fn stale(&self, action: &str, lasting: Duration) {
        self.set(action, Fault::Stale { until: Instant::now() + lasting });
    }

    pub fn short_pages(&self) {
        self.state.lock().unwrap().short_pages = true;
    }

    pub fn clock_is_ahead(&self, by: Duration) {
        self.state.lock().unwrap().ahead = Some(by);
    }

    /// The date of an answer of now, where it is not the emulator's.
    pub fn date(&self) -> Option<HeaderValue> {
        let date = Timestamp::now() + self.state.lock().unwrap().ahead?;
        Some(HeaderValue::from_str(&date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).expect("a header"))
    }

    pub fn pages_are_short(&self) -> bool {
        self.state.lock().unwrap().short_pages
    }

    fn set(&self, action: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(action.to_owned(), fault);
        self.changed.notify_waiters();
    }

    pub fn recover(&self, action: &str) {
        self.state.lock().unwrap().faults.remove(action);
        self.changed.notify_waiters();
    }

    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap();
        state.faults.clear();
        state.short_pages = false;
        state.delay = Duration::ZERO;
        state.ahead = None;
        self.changed.notify_waiters();
    }

    pub fn hold(&self, action: Option<&str>, nth: usize, when: When) -> HeldCall {
        let (hold, call) = hold::hold(when);
        let before = nth.checked_sub(1).expect("calls are counted from 1");
        self.state.lock().unwrap().holds.push(Waiting { action: action.map(str::to_owned), before, hold });
        call
    }

    /// The delay, and as long as this action hangs.
    pub async fn wait(&self, action: &str) {
        let delay = self.state.lock().unwrap().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            let changed = self.changed.notified();
            if !matches!(self.state.lock().unwrap().fault(action), Some(Fault::Hang)) {
                return;
            }
            changed.await;
        }
    }

    /// The answer that is given instead of AWS's, if any.
    pub fn answer_for(&self, request: &AwsRequest) -> Option<Answer> {
        let state = self.state.lock().unwrap();
        match state.fault_of(request)? {
            Fault::Fail { status, code, message } => Some(error(&request.service, *status, code, message)),
            Fault::Stale { until } if Instant::now() < *until => state.remembered.get(&request.body).cloned(),
            Fault::Stale { .. } | Fault::Hang => None,
        }
    }

    /// For [`Fault::Stale`].
    pub fn remember(&self, request: &AwsRequest, answer: &Answer) {
        if !request.is_changing() {
            self.state.lock().unwrap().remembered.insert(request.body.clone(), answer.clone());
        }
    }

    /// Counts a changing call, and gives the hold that it is the one for.
    pub fn take_hold(&self, action: &str) -> Option<Hold> {
        let holds = &mut self.state.lock().unwrap().holds;
        holds.retain(|h| !h.hold.is_cancelled());
        let due = holds.iter().position(|h| h.before == 0 && h.is_for(action)).map(|index| holds.remove(index).hold);
        for waiting in holds.iter_mut().filter(|h| h.is_for(action)) {
            waiting.before = waiting.before.saturating_sub(1);
        }
        due
    }
}

impl State {
    fn fault(&self, action: &str) -> Option<&Fault> {
        let (_, fault) = self.faults.iter().find(|(pattern, _)| matches(pattern, action))?;
        Some(fault)
    }

    /// Of its action, or of `Action/Parameter` where it has such a parameter.
    fn fault_of(&self, request: &AwsRequest) -> Option<&Fault> {
        let has = |name: &str| request.params.keys().any(|key| key.starts_with(name));
        let fits = |pattern: &str| match pattern.split_once('/') {
            Some((action, parameter)) => action == request.action && has(parameter),
            None => matches(pattern, &request.action),
        };
        self.faults.iter().find(|(pattern, _)| fits(pattern)).map(|(_, fault)| fault)
    }
}

fn matches(pattern: &str, action: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == action, |prefix| action.starts_with(prefix))
}

/// EC2 has a shape of its own; the other query services share one; Systems Manager speaks JSON.
fn error(service: &str, status: StatusCode, code: &str, message: &str) -> Answer {
    if service == "ssm" {
        let body = serde_json::json!({ "__type": code, "message": message }).to_string();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"))]);
        return Answer { status, headers, body: body.into() };
    }
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    let body = if service == "ec2" {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>proxy</RequestID></Response>"
        )
    } else {
        format!(
            "<ErrorResponse><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>proxy</RequestId></ErrorResponse>"
        )
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/xml"))]);
    Answer { status, headers, body: format!("<?xml version=\"1.0\"?>{body}").into() }
}
