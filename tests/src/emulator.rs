//! The AWS emulator: moto's server, corrected by `tests/emulator`, and clients of the accounts in it.

use anyhow::{Context, ensure};
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_sts::config::SharedCredentialsProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy::Proxy;
use crate::served::Served;
use crate::tools;

/// The region of every test.
pub const REGION: &str = "eu-west-1";

/// An AWS emulator, stopped when dropped. Its snapshots are pending at the first look and completed at the second.
#[derive(Debug)]
pub struct Emulator(Served);

impl Emulator {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        let on = |port| (format!("-m firebreak_moto -H 127.0.0.1 -p {port}"), environment());
        Ok(Self(Served::start("the AWS emulator", on).await?))
    }

    /// Its endpoint for every AWS service.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Clients of an account, straight to the emulator. An account exists as soon as someone assumes a role in it.
    pub async fn account(&self, id: &str) -> anyhow::Result<Aws> {
        let anyone = Credentials::new("test", "test", None, None, "test");
        let sts = aws_sdk_sts::Client::new(&config(&self.url(), anyone));
        let assume = sts.assume_role().role_arn(role_arn(id)).role_session_name("test");
        let given = assume.send().await?.credentials.context("credentials")?;
        let (key, secret, token) = (given.access_key_id, given.secret_access_key, given.session_token);
        Ok(Aws::new(id, &self.url(), Credentials::new(key, secret, Some(token), None, "test")))
    }

    /// Snapshots complete at the `looks`-th `DescribeSnapshots` that sees them: of all accounts, so only for an
    /// emulator of one's own.
    pub async fn complete_snapshots_after(&self, looks: u32) -> anyhow::Result<()> {
        let body =
            format!(r#"{{"model_name": "ec2::snapshot", "transition": {{"progression": "manual", "times": {looks}}}}}"#);
        self.post("/moto-api/state-manager/set-transition", &body).await
    }

    async fn post(&self, path: &str, body: &str) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.0.port())).await?;
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        ensure!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{answer}");
        Ok(())
    }
}

/// Without stock images, whose 1,300 snapshots would be everybody's; with `AWSDenyAll`.
fn environment() -> Vec<(String, String)> {
    let path = format!("{}:{}", tools::emulator_packages().display(), tools::tests_folder().join("emulator").display());
    let pairs = [
        ("PYTHONPATH", path.as_str()),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("MOTO_EC2_LOAD_DEFAULT_AMIS", "false"),
        ("MOTO_IAM_LOAD_MANAGED_POLICIES", "true"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn config(endpoint: &str, credentials: Credentials) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .build()
}

/// The role that leads into an account: for `AwsAccount.spec.assumeRole`.
pub fn role_arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/firebreak")
}

/// Clients of one AWS account, for arranging and looking. They do not retry.
#[derive(Debug, Clone)]
pub struct Aws {
    /// Twelve digits
    pub account: String,
    /// EC2 in [`REGION`]
    pub ec2: aws_sdk_ec2::Client,
    /// EC2 Auto Scaling in [`REGION`]
    pub autoscaling: aws_sdk_autoscaling::Client,
    /// Classic load balancers in [`REGION`]
    pub elb: aws_sdk_elasticloadbalancing::Client,
    /// Load balancers with target groups, in [`REGION`]
    pub elbv2: aws_sdk_elasticloadbalancingv2::Client,
    /// IAM
    pub iam: aws_sdk_iam::Client,
    /// Systems Manager in [`REGION`]
    pub ssm: aws_sdk_ssm::Client,
    /// STS
    pub sts: aws_sdk_sts::Client,
    credentials: Credentials,
}

impl Aws {
    /// With these credentials, at this endpoint.
    pub fn new(account: &str, endpoint: &str, credentials: Credentials) -> Self {
        let config = config(endpoint, credentials.clone());
        Self {
            account: account.to_owned(),
            ec2: aws_sdk_ec2::Client::new(&config),
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            elb: aws_sdk_elasticloadbalancing::Client::new(&config),
            elbv2: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            iam: aws_sdk_iam::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            credentials,
        }
    }

    /// The credentials, as environment variables that every AWS tool knows.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", self.credentials.access_key_id().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.credentials.secret_access_key().to_owned()),
            ("AWS_SESSION_TOKEN", self.credentials.session_token().unwrap_or_default().to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// The same account, reached through a proxy as the controller does.
    #[must_use]
    pub fn through(&self, proxy: &Proxy) -> Self {
        Self::new(&self.account, &proxy.url(), self.credentials.clone())
    }
}
