//! The small web server that the kubelet and Prometheus talk to.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// The content type of [`Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What keeps this process from doing its work.
pub trait Readiness: Send + Sync {
    /// One line per problem; none when ready.
    fn problems(&self) -> BoxFuture<'_, Vec<String>>;
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown` resolves and the open requests are answered.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<dyn Readiness>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(shutdown).await
}

fn router(readiness: Arc<dyn Readiness>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        // Restarting the process cures only a process that no longer answers.
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(print_metrics).with_state(metrics))
}

async fn readyz(State(readiness): State<Arc<dyn Readiness>>) -> Response {
    let problems = readiness.problems().await;
    if problems.is_empty() {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n")).into_response()
}

async fn print_metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    #[derive(Default)]
    struct Problems(Mutex<Vec<String>>);

    impl Readiness for Problems {
        fn problems(&self) -> BoxFuture<'_, Vec<String>> {
            async { self.0.lock().unwrap().clone() }.boxed()
        }
    }

    struct Server {
        address: SocketAddr,
        problems: Arc<Problems>,
        metrics: Arc<Metrics>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (problems, metrics): (Arc<Problems>, Arc<Metrics>) = Default::default();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, problems.clone(), metrics.clone(), stopped.map(drop)));
        Server { address, problems, metrics, stop, task }
    }

    /// The whole answer: status line, headers, body.
    async fn get(server: &Server, path: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: firebreak\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn healthy_while_the_process_answers() {
        let server = start().await;
        server.problems.0.lock().unwrap().push("not ready".into());
        let answer = get(&server, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }

    #[tokio::test]
    async fn ready_without_problems() {
        let answer = get(&start().await, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nok"), "{answer}");
    }

    #[tokio::test]
    async fn not_ready_says_why_a_line_each() {
        let server = start().await;
        server.problems.0.lock().unwrap().extend(["no Incidents yet".into(), "a CRD is terminating".into()]);
        let answer = get(&server, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nno Incidents yet\na CRD is terminating"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let server = start().await;
        server.metrics.leader(true);
        let answer = get(&server, "/metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
        assert!(answer.contains("\nfirebreak_leader 1\n") && answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn stops_when_told_to() {
        let server = start().await;
        get(&server, "/healthz").await;
        server.stop.send(()).unwrap();
        server.task.await.unwrap().unwrap();
    }
}
