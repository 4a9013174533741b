//! One `Session` per AwsAccount and generation: verified credentials, clients, and the readers that coalesce.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use firebreak_crds::AwsAccount;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::aws_clock::{AwsClock, Hears};
use super::error::{AwsError, Class};
use super::login::Login;
use super::protected::{Protected, own};
use super::rate::RateLimiter;
use super::read::{ProfileReader, RegionReader};
use super::spills::Spills;
use crate::metrics::Metrics;

/// The sessions of all accounts.
pub struct Accounts {
    base: SdkConfig,
    metrics: Arc<Metrics>,
    sessions: Mutex<HashMap<String, Slot>>,
    spills: Arc<Spills>,
}

type Slot = (i64, Arc<Login<Arc<Session>>>);

/// Verified access to one account.
pub struct Session {
    /// The AwsAccount's name, for metrics and the audit line.
    pub name: String,
    /// The twelve digits, as AWS said them.
    pub account_id: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// Who we are there.
    pub caller_arn: String,
    /// Who we are before a role is assumed; None where none is.
    pub base_caller_arn: Option<String>,
    /// IAM is global.
    pub(super) iam: aws_sdk_iam::Client,
    /// For whose an access key is.
    pub(super) sts: aws_sdk_sts::Client,
    /// IAM's own buckets.
    pub(super) iam_limiter: Arc<RateLimiter>,
    /// IAM's reads that instances share.
    pub(super) profiles: ProfileReader,
    /// What must never be touched there.
    pub protected: Protected,
    /// One reader and client per region of the AwsAccount.
    pub(super) regions: HashMap<String, RegionReader>,
    /// When our own groups were emptied.
    pub(super) spills: Arc<Spills>,
    clock: Arc<AwsClock>,
    metrics: Arc<Metrics>,
}

impl Session {
    /// Now, by AWS's clock where that is ahead of this node's: what is compared with the time at which AWS issued a session.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Counts and times a call; `operation` carries its service: `ec2:DescribeInstances`.
    pub(super) fn count(&self, operation: &str, outcome: &str, elapsed: Duration) {
        let (service, operation) = operation.split_once(':').unwrap_or(("", operation));
        self.metrics.aws_call(&self.name, service, operation, outcome, elapsed);
    }
}

impl Accounts {
    /// Loads AWS's own configuration: environment, profile, web identity, instance role.
    pub async fn load(metrics: Arc<Metrics>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(5))
            .operation_timeout(Duration::from_secs(12));
        let retries = RetryConfig::standard().with_max_attempts(3).with_max_backoff(Duration::from_secs(1));
        let config = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts.build()).retry_config(retries);
        Self { base: config.load().await, metrics, sessions: Mutex::default(), spills: Arc::default() }
    }

    /// The session for that account as its spec now says; made, and checked with `sts:GetCallerIdentity`, once.
    ///
    /// # Errors
    /// When the role cannot be assumed, AWS does not answer, or the account is another than the spec says.
    pub async fn session(&self, account: &AwsAccount) -> Result<Arc<Session>, AwsError> {
        self.slot(account).get(|| Box::pin(self.connect(account))).await
    }

    fn slot(&self, account: &AwsAccount) -> Arc<Login<Arc<Session>>> {
        let generation = account.metadata.generation.unwrap_or_default();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = sessions.entry(account.uid().unwrap_or_default()).or_insert_with(|| (generation, Arc::default()));
        if slot.0 != generation {
            *slot = (generation, Arc::default());
        }
        slot.1.clone()
    }

    async fn connect(&self, account: &AwsAccount) -> Result<Arc<Session>, AwsError> {
        let home = self.config(account, account.spec.regions.first().map_or("us-east-1", String::as_str), None);
        let base = account.spec.assume_role.as_ref().map(|_| home.clone());
        let credentials = assume(account, &home).await;
        let at = |region: &str| self.config(account, region, credentials.clone());
        let home = at(home.region().map_or("us-east-1", AsRef::as_ref));
        let clock = Arc::new(AwsClock::default());
        let hears = Hears(clock.clone());
        let sts = aws_sdk_sts::config::Builder::from(&home).interceptor(hears.clone());
        let sts = aws_sdk_sts::Client::from_conf(sts.build());
        let base = base.map(|config| aws_sdk_sts::Client::new(&config));
        let base = async { if let Some(base) = &base { base_identity(base).await } else { Ok(None) } };
        let ((account_id, caller_arn), base_caller_arn) = futures::try_join!(identity(&sts), base)?;
        if account_id != account.spec.account_id {
            return Err(wrong_account(&account.spec.account_id, &account_id, &caller_arn));
        }
        let regions = account.spec.regions.iter().map(|r| (r.clone(), RegionReader::new(&at(r), &hears))).collect();
        let partition = caller_arn.split(':').nth(1).unwrap_or("aws").to_owned();
        let iam = aws_sdk_iam::config::Builder::from(&home).interceptor(hears.clone());
        let (iam, iam_limiter) = (aws_sdk_iam::Client::from_conf(iam.build()), Arc::new(RateLimiter::new()));
        Ok(Arc::new(Session {
            name: account.name_any(),
            profiles: ProfileReader::new(&iam, &iam_limiter),
            protected: Protected::of(account, &own(&account_id, [Some(&caller_arn), base_caller_arn.as_ref()])),
            account_id,
            partition,
            caller_arn,
            base_caller_arn,
            iam,
            sts,
            iam_limiter,
            regions,
            spills: self.spills.clone(),
            clock,
            metrics: self.metrics.clone(),
        }))
    }

    fn config(&self, account: &AwsAccount, region: &str, credentials: Option<SharedCredentialsProvider>) -> SdkConfig {
        let mut config = self.base.to_builder().region(Region::new(region.to_owned()));
        config.set_endpoint_url(account.spec.endpoint_url.clone().or_else(|| self.base.endpoint_url().map(str::to_owned)));
        if credentials.is_some() {
            config.set_credentials_provider(credentials);
        }
        config.build()
    }
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
async fn assume(account: &AwsAccount, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
    let role = account.spec.assume_role.as_ref()?;
    let mut provider = AssumeRoleProvider::builder(&role.role_arn).session_name("firebreak").configure(config);
    if let Some(id) = &role.external_id {
        provider = provider.external_id(id);
    }
    Some(SharedCredentialsProvider::new(provider.build().await))
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
async fn identity(sts: &aws_sdk_sts::Client) -> Result<(String, String), AwsError> {
    let answer = sts.get_caller_identity().send().await;
    let answer = answer.map_err(|e| AwsError::from_sdk("sts:GetCallerIdentity", true, &e))?;
    Ok((answer.account.unwrap_or_default(), answer.arn.unwrap_or_default()))
}

/// Who we are before a role is assumed. What may do nothing but assume it is told, and no reason not to use it.
async fn base_identity(sts: &aws_sdk_sts::Client) -> Result<Option<String>, AwsError> {
    match identity(sts).await {
        Ok((_, arn)) => Ok(Some(arn)),
        Err(error) if error.class == Class::Denied => {
            tracing::warn!(%error, "who the controller is before it assumes a role is not known: it can be contained like anybody");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn wrong_account(wanted: &str, got: &str, arn: &str) -> AwsError {
    AwsError {
        class: Class::Terminal,
        operation: "sts:GetCallerIdentity".into(),
        code: "WrongAccount".into(),
        message: format!(
            "spec.accountId is {wanted}, but these credentials are {arn} of account {got}: mend spec.accountId or spec.assumeRole"
        ),
    }
}
