//! What the controller takes for AWS: an HTTP proxy in front of the emulator, one for each test, that logs every call
//! and can delay, fail, hang, hold and answer it late.
//!
//! It runs on a thread of its own, so that a test that blocks does not stop the controller's calls.

mod aws_request;
mod faults;
mod hold;
mod log;
mod members;
mod observer;
mod pages;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;

use aws_request::AwsRequest;
use faults::Faults;
pub use hold::{HeldCall, When};
pub use log::Call;
use log::Log;
use observer::Observed;
pub use observer::Observer;

/// A running proxy, stopped when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    inner: Arc<Inner>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    emulator: String,
    client: Client<HttpConnector, Full<Bytes>>,
    log: Log,
    faults: Faults,
    observed: Observed,
}

/// An answer of AWS, whole.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Proxy {
    /// Starts a proxy to the emulator on a free port.
    pub fn start(emulator_url: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            emulator: emulator_url.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            log: Log::default(),
            faults: Faults::default(),
            observed: Observed::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, inner.clone(), stopped);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || runtime.block_on(serving).expect("the proxy's port"));
        Ok(Self { address, inner, stop: Some(stop), thread: Some(thread) })
    }

    /// The endpoint to give the controller.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every call so far, in the order in which they came.
    pub fn log(&self) -> Vec<Call> {
        self.inner.log.calls()
    }

    /// How many calls so far are such.
    pub fn count(&self, such: impl Fn(&Call) -> bool) -> usize {
        self.log().iter().filter(|call| such(call)).count()
    }

    /// The calls so far that would change something.
    pub fn changing(&self) -> Vec<Call> {
        self.log().into_iter().filter(Call::is_changing).collect()
    }

    /// From now on each call takes that much longer.
    pub fn delay(&self, by: Duration) {
        self.inner.faults.delay(by);
    }

    /// From now on calls of this action get this error instead of being made. `Describe*` names all that begin so.
    pub fn fail(&self, action: &str, status: u16, code: &str, message: &str) {
        self.inner.faults.fail(action, status, code, message);
    }

    /// From now on calls of this action are not answered. They go on when the fault is cleared.
    pub fn hang(&self, action: &str) {
        self.inner.faults.hang(action);
    }

    /// For that long, calls of this action that were made before are answered as the last time: AWS is eventually
    /// consistent.
    pub fn stale(&self, action: &str, lasting: Duration) {
        self.inner.faults.stale(action, lasting);
    }

    /// From now on pages are short, and the first is empty: of EC2, IAM, Auto Scaling and Elastic Load Balancing.
    pub fn short_pages(&self) {
        self.inner.faults.short_pages();
    }

    /// From now on AWS's answers are dated that much later than this machine's clock says.
    pub fn clock_is_ahead(&self, by: Duration) {
        self.inner.faults.clock_is_ahead(by);
    }

    /// Ends the failing, hanging and staleness of this action.
    pub fn recover(&self, action: &str) {
        self.inner.faults.recover(action);
    }

    /// Ends every fault and delay. Held calls stay held.
    pub fn clear(&self) {
        self.inner.faults.clear();
    }

    /// Holds the `nth` changing call from now (the next one is the first).
    pub fn hold_changing(&self, nth: usize, when: When) -> HeldCall {
        self.inner.faults.hold(None, nth, when)
    }

    /// Holds the `nth` call of this changing action from now.
    pub fn hold_action(&self, action: &str, nth: usize, when: When) -> HeldCall {
        self.inner.faults.hold(Some(action), nth, when)
    }

    /// From now on every changing call waits until this observer has looked. There can be one.
    pub fn observe(&self, observer: Observer) {
        self.inner.observed.by(observer);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts until the other end of `stopped` is dropped; open connections end with the runtime.
async fn serve(listener: TcpListener, inner: Arc<Inner>, mut stopped: oneshot::Receiver<Infallible>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = &mut stopped => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let inner = inner.clone();
        let service = service_fn(move |request| inner.clone().handle(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

impl Inner {
    /// An error closes the connection without an answer.
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let request = AwsRequest::read(request).await?;
        let call = self.log.begin(&request);
        let answer = self.answer(&request, call).await?;
        self.log.finish(call, answer.status.as_u16(), error_code(&answer));
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        if let Some(date) = self.faults.date() {
            response.headers_mut().insert(header::DATE, date);
        }
        Ok(response)
    }

    async fn answer(&self, request: &AwsRequest, call: usize) -> anyhow::Result<Answer> {
        self.faults.wait(&request.action).await;
        if let Some(answer) = self.faults.answer_for(request) {
            return Ok(answer);
        }
        if request.is_changing() {
            self.observed.tell(self.log.call(call)).await;
        }
        let hold = if request.is_changing() { self.faults.take_hold(&request.action) } else { None };
        if let Some(hold) = hold {
            return hold.around(self.log.call(call), self.forward(request)).await;
        }
        if let Some(empty) = pages::first(request).filter(|_| self.faults.pages_are_short()) {
            return Ok(empty);
        }
        let answer = self.forward(request).await?;
        self.faults.remember(request, &answer);
        Ok(answer)
    }

    async fn forward(&self, request: &AwsRequest) -> anyhow::Result<Answer> {
        let uri: Uri = format!("{}{}", self.emulator, request.path).parse()?;
        let short = self.faults.pages_are_short();
        let whole = || members::whole(request).unwrap_or_else(|| pages::shortened(request));
        let body = if short { whole() } else { request.body.clone() };
        let mut forwarded = Request::builder().method(&request.method).uri(uri).body(Full::new(body))?;
        forwarded.headers_mut().extend(request.headers.clone());
        forwarded.headers_mut().remove(header::CONTENT_LENGTH); // the client counts anew
        let answer = self.client.request(forwarded).await.context("the emulator")?;
        let (mut parts, body) = answer.into_parts();
        for of_the_connection in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            parts.headers.remove(of_the_connection);
        }
        let body = body.collect().await.map_err(|error| anyhow!(error))?.to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        Ok(if short { members::page(request, answer) } else { answer })
    }
}

fn error_code(answer: &Answer) -> Option<String> {
    if !answer.status.is_client_error() && !answer.status.is_server_error() {
        return None;
    }
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&answer.body) {
        return json["__type"].as_str().map(str::to_owned);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    Some(code.to_owned())
}
