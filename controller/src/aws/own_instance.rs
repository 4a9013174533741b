//! The EC2 instance on which this controller runs, as the instance metadata service (IMDS) says: it must not cut itself off.
//!
//! A pod reaches IMDS only where the instance's hop limit is 2 or more. Without an answer nothing is known, and nothing refused:
//! `AwsAccount.spec.protected.arns` can name the instances.

use std::time::Duration;

use aws_config::imds::Client;
use aws_config::imds::client::Builder;
use tracing::{debug, info};

const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
/// There is no IMDS elsewhere than on EC2, and nobody says so: the request goes unanswered.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asked once, at the start. Where IMDS is, follows AWS's own settings (`AWS_EC2_METADATA_SERVICE_ENDPOINT`).
pub async fn own_instance() -> Option<String> {
    let disabled = std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| is_true(&value));
    if disabled { None } else { ask(Client::builder()).await }
}

/// As the SDK reads it.
fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

async fn ask(imds: Builder) -> Option<String> {
    let imds = imds.max_attempts(1).connect_timeout(PATIENCE).read_timeout(PATIENCE).build();
    match tokio::time::timeout(PATIENCE, imds.get(INSTANCE_ID)).await {
        Ok(Ok(id)) => known(id.as_ref()),
        Ok(Err(error)) => {
            debug!(%error, "not on an EC2 instance that says so");
            None
        }
        Err(_) => None,
    }
}

fn known(answer: &str) -> Option<String> {
    let id = answer.trim();
    if !id.starts_with("i-") {
        return None;
    }
    info!(instance = id, "runs on this instance: it will not be contained");
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// An IMDS that answers every instance id with `body`.
    async fn imds(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap_or_default();
                let body = if request[..length].starts_with(b"PUT") { "token" } else { body };
                let head =
                    "HTTP/1.1 200 OK\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\nconnection: close\r\ncontent-length:";
                let answer = format!("{head} {}\r\n\r\n{body}", body.len());
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    async fn asked(url: &str) -> Option<String> {
        ask(Client::builder().endpoint(url).unwrap()).await
    }

    #[tokio::test]
    async fn the_instance_is_what_imds_says() {
        assert_eq!(asked(&imds("i-0123456789abcdef0").await).await.as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(asked(&imds("<html>a captive portal</html>").await).await, None);
    }

    #[tokio::test]
    async fn where_nobody_answers_there_is_none_and_the_start_is_not_delayed_for_long() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let started = tokio::time::Instant::now();
        assert_eq!(asked(&format!("http://{}", silent.local_addr().unwrap())).await, None);
        assert!(started.elapsed() < PATIENCE * 5, "{:?}", started.elapsed());
        assert_eq!(asked("http://127.0.0.1:1").await, None);
    }

    #[test]
    fn disabled_is_what_the_sdk_takes_for_it() {
        assert!(is_true("true") && is_true("True") && !is_true("false") && !is_true("1") && !is_true(""));
    }
}
