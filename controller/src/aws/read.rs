//! What is read of AWS. EC2 is read by filters, never by ids: one bad id fails a whole call. Reads of one kind coalesce.
//!
//! One file per service beneath it.

mod autoscaling;
mod ec2;
mod elb;
mod iam;
mod keys;
mod marks;
mod profiles;
mod selected;
mod ssm;
mod tagged;
mod usage;
mod ways;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;

pub(super) use self::elb::Balancers;
pub use self::iam::same_document;
pub use self::profiles::DENY_POLICY;
pub(super) use self::profiles::ProfileReader;
use super::aws_clock::Hears;
use super::batch::Batcher;
use super::error::{AwsError, Class};
use super::instance_role::ProfileAssociation;
use super::kept::Kept;
use super::model::{
    ClassicBalancer, Group, Instance, InstanceKind, Interface, Membership, OpenCommand, OpenSession, RouteTable,
    ScalingGroup, Snapshot, TargetGroup,
};
use super::rate::{Priority, RateLimiter};
use super::session::Session;

/// AWS takes at most 200 values in a filter.
const FILTER_VALUES: usize = 200;
/// A type that AWS did not tell is asked about again after this: idle flows are kept long until it is known.
const TYPE_AGAIN: Duration = Duration::from_secs(10);

type Read<T> = Result<T, AwsError>;

/// A read that nobody waits for any longer than that.
///
/// # Errors
/// When AWS cannot be read, or does not answer in time.
pub async fn within<T>(patience: Duration, operation: &str, read: impl Future<Output = Read<T>>) -> Read<T> {
    timeout(patience, Box::pin(read)).await.unwrap_or_else(|_| Err(AwsError::silent(operation, patience)))
}

/// One region of one account.
pub struct RegionReader {
    pub(super) ec2: aws_sdk_ec2::Client,
    autoscaling: aws_sdk_autoscaling::Client,
    balancers: Balancers,
    ssm: aws_sdk_ssm::Client,
    pub(super) limiter: Arc<RateLimiter>,
    instances: Batcher<String, Instance, AwsError>,
    instance_types: Kept<String, InstanceKind>,
    selected: Batcher<selected::Criteria, Arc<BTreeSet<String>>, AwsError>,
    interfaces: Batcher<String, Vec<Interface>, AwsError>,
    our_groups: Batcher<(), Vec<Group>, AwsError>,
    groups: Batcher<String, Group, AwsError>,
    snapshots: Batcher<String, Snapshot, AwsError>,
    associations: Batcher<String, Vec<ProfileAssociation>, AwsError>,
    memberships: Batcher<String, Membership, AwsError>,
    scaling_groups: Batcher<String, ScalingGroup, AwsError>,
    target_groups: Batcher<String, Arc<Vec<TargetGroup>>, AwsError>,
    classic_balancers: Batcher<(), Arc<Vec<ClassicBalancer>>, AwsError>,
    sessions: Batcher<(), Arc<Vec<OpenSession>>, AwsError>,
    /// One per status.
    commands: [Batcher<(), Arc<Vec<OpenCommand>>, AwsError>; 3],
    routes: Kept<String, Arc<Vec<RouteTable>>>,
    endpoints: Kept<String, Vec<String>>,
    connect_endpoints: Kept<String, Vec<String>>,
    serial_console: Kept<(), bool>,
}

impl RegionReader {
    pub(super) fn new(config: &SdkConfig, hears: &Hears) -> Self {
        let listening = aws_sdk_ec2::config::Builder::from(config).interceptor(hears.clone());
        let client = aws_sdk_ec2::Client::from_conf(listening.build());
        let limiter = Arc::new(RateLimiter::new());
        let scaling = aws_sdk_autoscaling::Client::new(config);
        let balancers = Balancers {
            v1: aws_sdk_elasticloadbalancing::Client::new(config),
            v2: aws_sdk_elasticloadbalancingv2::Client::new(config),
            limiter: limiter.clone(),
        };
        let manager = aws_sdk_ssm::Client::new(config);
        let members = ("autoscaling", "DescribeAutoScalingInstances", autoscaling::INSTANCES);
        let groups = ("autoscaling", "DescribeAutoScalingGroups", autoscaling::GROUPS);
        Self {
            instances: batcher(&client, &limiter, "DescribeInstances", ec2::fetch_instances),
            instance_types: Kept::new(batcher(&client, &limiter, "DescribeInstanceTypes", ec2::fetch_instance_types))
                .asked_again_after(TYPE_AGAIN),
            selected: batcher_of(&client, &limiter, ("ec2", "DescribeInstances", 1), selected::fetch),
            interfaces: batcher(&client, &limiter, "DescribeNetworkInterfaces", ec2::fetch_interfaces),
            groups: batcher(&client, &limiter, "DescribeSecurityGroups", ec2::fetch_groups),
            our_groups: batcher(&client, &limiter, "DescribeSecurityGroups", ec2::fetch_our_groups),
            associations: batcher(&client, &limiter, "DescribeIamInstanceProfileAssociations", profiles::fetch_associations),
            snapshots: batcher(&client, &limiter, "DescribeSnapshots", ec2::fetch_snapshots),
            memberships: batcher_of(&scaling, &limiter, members, autoscaling::fetch_memberships),
            scaling_groups: batcher_of(&scaling, &limiter, groups, autoscaling::fetch_groups),
            target_groups: batcher_of(&balancers, &limiter, elb::READ_V2, elb::fetch_target_groups),
            classic_balancers: batcher_of(&balancers, &limiter, elb::READ_V1, elb::fetch_classic),
            sessions: batcher_of(&manager, &limiter, ssm::SESSIONS, ssm::fetch_sessions),
            commands: ssm::UNFINISHED
                .map(|status| batcher_of(&(manager.clone(), status), &limiter, ssm::COMMANDS, ssm::fetch_commands)),
            routes: Kept::new(batcher(&client, &limiter, "DescribeRouteTables", ways::fetch_routes)),
            endpoints: Kept::new(batcher(&client, &limiter, "DescribeVpcEndpoints", ways::fetch_endpoints)),
            connect_endpoints: Kept::new(batcher(&client, &limiter, ways::CONNECT, ways::fetch_connect_endpoints)),
            serial_console: Kept::new(batcher(&client, &limiter, ways::CONSOLE, ways::fetch_serial_console)),
            ec2: client,
            balancers,
            autoscaling: scaling,
            ssm: manager,
            limiter,
        }
    }
}

/// A batcher of EC2, which is read by filters.
fn batcher<K, V, F>(
    ec2: &aws_sdk_ec2::Client,
    limiter: &Arc<RateLimiter>,
    operation: &'static str,
    fetch: fn(aws_sdk_ec2::Client, Vec<K>) -> F,
) -> Batcher<K, V, AwsError>
where
    K: Clone + Eq + std::hash::Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Future<Output = Read<HashMap<K, V>>> + Send + 'static,
{
    batcher_of(ec2, limiter, ("ec2", operation, FILTER_VALUES), fetch)
}

/// A batcher whose every fetch takes a token of its operation first. `what`: the service, the operation, and how many keys a
/// call takes.
fn batcher_of<C, K, V, F>(
    client: &C,
    limiter: &Arc<RateLimiter>,
    what: (&'static str, &'static str, usize),
    fetch: fn(C, Vec<K>) -> F,
) -> Batcher<K, V, AwsError>
where
    C: Clone + Send + Sync + 'static,
    K: Clone + Eq + std::hash::Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    F: Future<Output = Read<HashMap<K, V>>> + Send + 'static,
{
    let (client, limiter, (service, operation, keys)) = (client.clone(), limiter.clone(), what);
    Batcher::new(keys, move |keys| -> BoxFuture<'static, Read<HashMap<K, V>>> {
        let (client, limiter) = (client.clone(), limiter.clone());
        async move {
            limiter.take(service, operation, Priority::Contain).await;
            fetch(client, keys).await
        }
        .boxed()
    })
}

impl Session {
    fn region(&self, region: &str) -> Read<&RegionReader> {
        self.regions.get(region).ok_or_else(|| AwsError {
            class: Class::Terminal,
            operation: "ec2".into(),
            code: "RegionNotAllowed".into(),
            message: format!("region {region} is not in spec.regions of AwsAccount {}", self.name),
        })
    }

    /// Counts and times a read.
    async fn measured<T>(&self, operation: &str, read: impl Future<Output = Read<T>>) -> Read<T> {
        let started = Instant::now();
        let result = read.await;
        let outcome = result.as_ref().map_or_else(|e| e.class.reason(), |_| "ok");
        self.count(operation, outcome, started.elapsed());
        result
    }

    /// The EC2 client of a region, for calls that change something.
    pub(super) fn ec2(&self, region: &str) -> Read<&aws_sdk_ec2::Client> {
        Ok(&self.region(region)?.ec2)
    }

    /// The rate limiter of a region.
    pub(super) fn limiter(&self, region: &str) -> Read<&RateLimiter> {
        Ok(&self.region(region)?.limiter)
    }
}

fn error<E, R>(operation: &str, error: &aws_sdk_ec2::error::SdkError<E, R>) -> AwsError
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    AwsError::from_sdk(operation, true, error)
}

/// For reads where "there is none" is an answer.
fn absent<T>(result: Read<Option<T>>) -> Read<Option<T>> {
    match result {
        Err(e) if e.class == Class::NotFound => Ok(None),
        other => other,
    }
}

#[allow(clippy::needless_pass_by_value)] // the shape that `and_then` wants
pub(super) fn timestamp(at: aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(at.secs()).ok()
}
