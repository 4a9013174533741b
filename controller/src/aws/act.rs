//! The only place that changes AWS: leadership, hold, rate limit, retry class, audit line, metric, in this order.

use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::types::{
    self as ec2, IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType, TagSpecification, UserIdGroupPair,
};
use aws_sdk_iam::types as iam;
use firebreak_crds::Quarantine;
use k8s_openapi::jiff::SignedDuration;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tracing::info;

use super::call::{Call, Change, GroupRole};
use super::error::{AwsError, Class};
use super::model::{Peer, Rule, Snapshot};
use super::rate::Priority;
use super::read::timestamp;
use super::session::Session;
use crate::clock;
use crate::lease::Claim;

/// What a call brought back.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// AWS accepted it.
    Done,
    /// The id of what was made.
    Created(String),
    /// The snapshots that were started.
    Snapshots(Vec<Snapshot>),
}

/// What a call needs to be true at the moment that it is sent, besides leadership.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Nothing: it narrows, or changes no access.
    Narrowing,
    /// This Quarantine, with this uid, is still to be released.
    StillToRelease {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// Before the second and the third attempt of a call.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// Sends calls.
pub struct Actor {
    claim: watch::Receiver<Option<Claim>>,
    kube: Client,
}

impl Actor {
    /// An actor that sends only while the claim covers the moment.
    #[must_use]
    pub fn new(claim: watch::Receiver<Option<Claim>>, kube: Client) -> Self {
        Self { claim, kube }
    }

    /// Sends one call, and again where AWS was busy or did not answer: each time only if it is still right.
    ///
    /// # Errors
    /// `Fenced` when it was not right to send it; else AWS's answer.
    pub async fn act(
        &self,
        session: &Session,
        region: Option<&str>,
        call: &Call,
        guard: &Guard,
        priority: Priority,
    ) -> Result<Outcome, AwsError> {
        for pause in PAUSES {
            match self.once(session, region, call, guard, priority).await {
                Err(error) if error.class == Class::Transient => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.once(session, region, call, guard, priority).await
    }

    async fn once(
        &self,
        session: &Session,
        region: Option<&str>,
        call: &Call,
        guard: &Guard,
        priority: Priority,
    ) -> Result<Outcome, AwsError> {
        let limiter = region.map_or(Ok(&session.iam_limiter), |r| session.limiter(r))?;
        let (service, operation) = call.operation().split_once(':').unwrap_or_default();
        limiter.take(service, operation, priority).await;
        if call.widens() {
            self.still_to_release(call, guard).await?;
        }
        self.leads(call)?;
        let started = Instant::now();
        let result = send(session, region, call).await;
        audit(session, region, call, &result, started);
        result
    }

    /// Leadership, checked at the effect.
    fn leads(&self, call: &Call) -> Result<(), AwsError> {
        match &*self.claim.borrow() {
            Some(claim) if claim.covers(clock::now() + needs(call)) => Ok(()),
            _ => Err(AwsError::fenced(call.operation(), "this controller does not hold the lease now")),
        }
    }

    /// The hold, checked at the effect: a live read, since a cache may not know yet of an Incident that holds again.
    async fn still_to_release(&self, call: &Call, guard: &Guard) -> Result<(), AwsError> {
        let fenced = |why: String| Err(AwsError::fenced(call.operation(), why));
        let Guard::StillToRelease { name, uid } = guard else {
            return fenced("gives access back, but no release asks for it".into());
        };
        match Api::<Quarantine>::all(self.kube.clone()).get(name).await {
            Ok(q) if q.uid().as_ref() != Some(uid) => fenced(format!("Quarantine {name} is another one now")),
            Ok(q) if !crate::controllers::to_be_released(&q) => fenced(format!("Quarantine {name} is held again")),
            Ok(_) => Ok(()),
            Err(e) => fenced(format!("Quarantine {name} cannot be read: {e}")),
        }
    }
}

/// How long leadership must last beyond the call: an interface that is opened for 3 seconds must be closed by the same hand.
fn needs(call: &Call) -> SignedDuration {
    match call {
        Call::ModifyNetworkInterfaceAttribute { change: Change::Convert, .. } => SignedDuration::from_secs(6),
        _ => SignedDuration::ZERO,
    }
}

fn audit(session: &Session, region: Option<&str>, call: &Call, result: &Result<Outcome, AwsError>, started: Instant) {
    let outcome = result.as_ref().map_or_else(|e| e.class.reason(), |_| "ok");
    session.count(call.operation(), outcome, started.elapsed());
    let error = result.as_ref().err().map(ToString::to_string);
    let region = region.unwrap_or("global");
    let widens = call.widens().then_some(true);
    info!(target: "audit", account = %session.account_id, region, call = %call, widens, outcome, error);
}

async fn send(session: &Session, region: Option<&str>, call: &Call) -> Result<Outcome, AwsError> {
    match region {
        Some(region) => send_ec2(session.ec2(region)?, call).await,
        None => send_iam(&session.iam, call).await,
    }
}

/// Sends the SDK request, once, and classes its error. The SDK's own retries would send it again without asking whether it is
/// still right.
macro_rules! sent {
    ($sdk:ident, $call:expr, $request:expr) => {{
        let once = $sdk::config::Config::builder().retry_config(RetryConfig::disabled());
        let answer = $request.customize().config_override(once).send().await;
        answer.map_err(|e| AwsError::from_sdk($call.operation(), $call.idempotent(), &e))
    }};
}

async fn send_ec2(ec2: &aws_sdk_ec2::Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::CreateSecurityGroup { vpc, role } => return create_group(ec2, call, vpc, *role).await,
        Call::CreateSnapshots { instance, description, tags } => {
            return create_snapshots(ec2, call, instance, description, tags).await;
        }
        Call::RevokeSecurityGroupIngress { group, rules } => {
            let request = ec2.revoke_security_group_ingress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::RevokeSecurityGroupEgress { group, rules } => {
            let request = ec2.revoke_security_group_egress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::AuthorizeSecurityGroupIngress { group, rules } => {
            let request =
                ec2.authorize_security_group_ingress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::AuthorizeSecurityGroupEgress { group, rules } => {
            let request = ec2.authorize_security_group_egress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::ModifyNetworkInterfaceAttribute { interface, groups, .. } => {
            let request = ec2.modify_network_interface_attribute().network_interface_id(interface);
            sent!(aws_sdk_ec2, call, request.set_groups(Some(groups.clone())))?;
        }
        Call::CreateTags { resource, tags } => {
            sent!(aws_sdk_ec2, call, ec2.create_tags().resources(resource).set_tags(Some(ec2_tags(tags))))?;
        }
        Call::DeleteTags { resource, tags } => {
            sent!(aws_sdk_ec2, call, ec2.delete_tags().resources(resource).set_tags(Some(ec2_tags(tags))))?;
        }
        other => return Err(AwsError::fenced(other.operation(), "IAM is global: this call takes no region")),
    }
    Ok(Outcome::Done)
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html>
async fn create_group(ec2: &aws_sdk_ec2::Client, call: &Call, vpc: &str, role: GroupRole) -> Result<Outcome, AwsError> {
    let tag = ec2::Tag::builder().key("firebreak.dev/role").value(role.group_name()).build();
    let tags = TagSpecification::builder().resource_type(ResourceType::SecurityGroup).tags(tag).build();
    let request = ec2.create_security_group().group_name(role.group_name()).description(role.description()).vpc_id(vpc);
    let answer = sent!(aws_sdk_ec2, call, request.tag_specifications(tags))?;
    Ok(Outcome::Created(answer.group_id.unwrap_or_default()))
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html>
async fn create_snapshots(
    ec2: &aws_sdk_ec2::Client,
    call: &Call,
    instance: &str,
    description: &str,
    tags: &BTreeMap<String, String>,
) -> Result<Outcome, AwsError> {
    let instance = ec2::InstanceSpecification::builder().instance_id(instance).exclude_boot_volume(false).build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot).set_tags(Some(ec2_tags(tags))).build();
    let request = ec2.create_snapshots().instance_specification(instance).description(description).tag_specifications(tags);
    let answer = sent!(aws_sdk_ec2, call, request)?;
    Ok(Outcome::Snapshots(answer.snapshots.unwrap_or_default().into_iter().map(snapshot_info).collect()))
}

fn snapshot_info(s: ec2::SnapshotInfo) -> Snapshot {
    Snapshot {
        id: s.snapshot_id.unwrap_or_default(),
        volume: s.volume_id.unwrap_or_default(),
        state: s.state.map(|s| s.as_str().to_owned()).unwrap_or_default(),
        progress: s.progress.unwrap_or_default(),
        size: s.volume_size.unwrap_or_default(),
        started: s.start_time.and_then(timestamp),
        description: s.description.unwrap_or_default(),
        message: String::new(),
    }
}

async fn send_iam(client: &aws_sdk_iam::Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::PutUserPolicy { user, policy, document } => {
            let request = client.put_user_policy().user_name(user).policy_name(policy).policy_document(document);
            sent!(aws_sdk_iam, call, request)?;
        }
        Call::DeleteUserPolicy { user, policy } | Call::DeleteExpiredSessionsDeny { user, policy } => {
            sent!(aws_sdk_iam, call, client.delete_user_policy().user_name(user).policy_name(policy))?;
        }
        Call::AttachUserPolicy { user, arn } => {
            sent!(aws_sdk_iam, call, client.attach_user_policy().user_name(user).policy_arn(arn))?;
        }
        Call::DetachUserPolicy { user, arn } => {
            sent!(aws_sdk_iam, call, client.detach_user_policy().user_name(user).policy_arn(arn))?;
        }
        Call::UpdateAccessKey { user, key, active } => {
            let status = if *active { iam::StatusType::Active } else { iam::StatusType::Inactive };
            sent!(aws_sdk_iam, call, client.update_access_key().user_name(user).access_key_id(key).status(status))?;
        }
        Call::TagUser { user, tags } => {
            sent!(aws_sdk_iam, call, client.tag_user().user_name(user).set_tags(Some(iam_tags(call, tags)?)))?;
        }
        Call::UntagUser { user, tags } => {
            sent!(
                aws_sdk_iam,
                call,
                client.untag_user().user_name(user).set_tag_keys(Some(tags.keys().cloned().collect()))
            )?;
        }
        other => return Err(AwsError::fenced(other.operation(), "EC2 is regional: this call needs a region")),
    }
    Ok(Outcome::Done)
}

fn ec2_tags(tags: &BTreeMap<String, String>) -> Vec<ec2::Tag> {
    tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build()).collect()
}

fn iam_tags(call: &Call, tags: &BTreeMap<String, String>) -> Result<Vec<iam::Tag>, AwsError> {
    let tag = |(key, value)| iam::Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect::<Result<_, _>>().map_err(|e| AwsError::fenced(call.operation(), e.to_string()))
}

fn permissions(rules: &[Rule]) -> Vec<IpPermission> {
    rules.iter().map(permission).collect()
}

fn permission(rule: &Rule) -> IpPermission {
    let p = IpPermission::builder().ip_protocol(&rule.protocol).set_from_port(rule.from).set_to_port(rule.to);
    match &rule.peer {
        Peer::V4(cidr) => p.ip_ranges(IpRange::builder().cidr_ip(cidr).build()),
        Peer::V6(cidr) => p.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).build()),
        Peer::PrefixList(id) => p.prefix_list_ids(PrefixListId::builder().prefix_list_id(id).build()),
        Peer::Group(id, owner) => {
            p.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).set_user_id(owner.clone()).build())
        }
    }
    .build()
}
