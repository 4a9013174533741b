//! Elastic Load Balancing. AWS has no way to ask where a target is registered: every target group of a VPC is asked for its
//! targets, once for all who look at instances there.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_elasticloadbalancing as v1;
use aws_sdk_elasticloadbalancingv2 as v2;
use futures::future::join_all;

use super::{Read, error};
use crate::aws::error::Class;
use crate::aws::model::{ClassicBalancer, Registration, Target, TargetGroup};
use crate::aws::rate::{Priority, RateLimiter};
use crate::aws::session::Session;

/// The clients of both versions of the API.
#[derive(Clone)]
pub(in crate::aws) struct Balancers {
    pub(in crate::aws) v1: v1::Client,
    pub(in crate::aws) v2: v2::Client,
    pub(super) limiter: Arc<RateLimiter>,
}

/// Reads of version 2 share a bucket.
pub(super) const READ_V2: (&str, &str, usize) = ("elbv2", "Describe", usize::MAX);
/// And those of version 1 another.
pub(super) const READ_V1: (&str, &str, usize) = ("elb", "Describe", 1);

impl Session {
    /// The target groups of a VPC with their targets.
    pub async fn target_groups(&self, region: &str, vpc: &str) -> Read<Arc<Vec<TargetGroup>>> {
        let reader = &self.region(region)?.target_groups;
        let read = self.measured("elasticloadbalancing:DescribeTargetHealth", reader.get(vpc.to_owned()));
        Ok(read.await?.unwrap_or_default())
    }

    /// The classic load balancers of a region.
    pub async fn classic_balancers(&self, region: &str) -> Read<Arc<Vec<ClassicBalancer>>> {
        let reader = &self.region(region)?.classic_balancers;
        let read = self.measured("elasticloadbalancing:DescribeLoadBalancers", reader.get(()));
        Ok(read.await?.unwrap_or_default())
    }

    /// The clients of a region, for calls that change something.
    pub(in crate::aws) fn balancers(&self, region: &str) -> Read<&Balancers> {
        Ok(&self.region(region)?.balancers)
    }
}

/// The targets of each group side by side.
pub(super) async fn fetch_target_groups(
    clients: Balancers,
    vpcs: Vec<String>,
) -> Read<HashMap<String, Arc<Vec<TargetGroup>>>> {
    let pages = clients.v2.describe_target_groups().into_paginator().items().send();
    let all: Vec<_> =
        pages.collect::<Result<_, _>>().await.map_err(|e| error("elasticloadbalancing:DescribeTargetGroups", &e))?;
    let wanted = all.into_iter().filter(|g| g.vpc_id.as_ref().is_some_and(|vpc| vpcs.contains(vpc)));
    let read = wanted.map(|g| async {
        let arn = g.target_group_arn.unwrap_or_default();
        Ok((g.vpc_id.unwrap_or_default(), group(&clients, arn).await?))
    });
    let mut found: HashMap<String, Vec<TargetGroup>> = vpcs.iter().map(|vpc| (vpc.clone(), Vec::new())).collect();
    for (vpc, group) in join_all(read).await.into_iter().collect::<Read<Vec<_>>>()? {
        found.entry(vpc).or_default().extend(group);
    }
    Ok(found.into_iter().map(|(vpc, groups)| (vpc, Arc::new(groups))).collect())
}

/// None: the group was deleted meanwhile.
async fn group(clients: &Balancers, arn: String) -> Read<Option<TargetGroup>> {
    let Some(targets) = targets(clients, &arn).await? else { return Ok(None) };
    let drains_for = if targets.iter().any(|t| t.draining) { drains_for(clients, &arn).await } else { None };
    Ok(Some(TargetGroup { arn, targets, drains_for }))
}

/// `deregistration_delay.timeout_seconds`. None where AWS does not say: it is only told, and nothing depends on it.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html>
async fn drains_for(clients: &Balancers, group: &str) -> Option<i64> {
    let (service, operation, _) = READ_V2;
    clients.limiter.take(service, operation, Priority::Sweep).await;
    let answer = clients.v2.describe_target_group_attributes().target_group_arn(group).send().await;
    let answer = answer.map_err(|e| error("elasticloadbalancing:DescribeTargetGroupAttributes", &e));
    let attributes = answer.inspect_err(|error| tracing::debug!(%error, group, "for how long it drains is not known"));
    let attributes = attributes.ok()?.attributes.unwrap_or_default();
    let delay = attributes.into_iter().find(|a| a.key.as_deref() == Some("deregistration_delay.timeout_seconds"))?;
    delay.value?.parse().ok()
}

async fn targets(clients: &Balancers, group: &str) -> Read<Option<Vec<Target>>> {
    let (service, operation, _) = READ_V2;
    clients.limiter.take(service, operation, Priority::Contain).await;
    let answer = clients.v2.describe_target_health().target_group_arn(group).send().await;
    match answer.map_err(|e| error("elasticloadbalancing:DescribeTargetHealth", &e)) {
        Ok(answer) => Ok(Some(answer.target_health_descriptions.unwrap_or_default().into_iter().map(target).collect())),
        Err(e) if e.class == Class::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// `unused` alone does not say that a target has left: those of a group without a load balancer are unused, too.
fn target(t: v2::types::TargetHealthDescription) -> Target {
    use v2::types::{TargetHealthReasonEnum as Reason, TargetHealthStateEnum as State};
    let health = t.target_health.unwrap_or_else(|| v2::types::TargetHealth::builder().build());
    let gone = health.reason == Some(Reason::NotRegistered) && health.state != Some(State::Draining);
    let description = t.target.unwrap_or_else(|| v2::types::TargetDescription::builder().build());
    Target {
        registered: !gone && health.state != Some(State::Draining),
        draining: health.state == Some(State::Draining),
        healthy: matches!(health.state, Some(State::Healthy | State::Unavailable)),
        registration: Registration {
            id: description.id.unwrap_or_default(),
            port: description.port,
            availability_zone: description.availability_zone,
            quic_server_id: description.quic_server_id,
        },
    }
}

pub(super) async fn fetch_classic(clients: Balancers, _: Vec<()>) -> Read<HashMap<(), Arc<Vec<ClassicBalancer>>>> {
    let pages = clients.v1.describe_load_balancers().into_paginator().items().send();
    let all: Vec<_> =
        pages.collect::<Result<_, _>>().await.map_err(|e| error("elasticloadbalancing:DescribeLoadBalancers", &e))?;
    Ok(HashMap::from([((), Arc::new(all.into_iter().map(classic).collect()))]))
}

fn classic(b: v1::types::LoadBalancerDescription) -> ClassicBalancer {
    ClassicBalancer {
        name: b.load_balancer_name.unwrap_or_default(),
        instances: b.instances.unwrap_or_default().into_iter().filter_map(|i| i.instance_id).collect(),
    }
}
