//! EC2 Auto Scaling.

use std::collections::HashMap;

use aws_sdk_autoscaling::types as autoscaling;

use super::{Read, error};
use crate::aws::model::{Membership, ScalingGroup};
use crate::aws::session::Session;

/// AWS takes at most 50 ids in `DescribeAutoScalingInstances`. It leaves out those that are in no group.
pub(super) const INSTANCES: usize = 50;
/// Names in `DescribeAutoScalingGroups`; as many as its default page.
pub(super) const GROUPS: usize = 50;

impl Session {
    /// The Auto Scaling group that an instance is in; None where it is in none.
    pub async fn membership(&self, region: &str, instance: &str) -> Read<Option<Membership>> {
        let reader = &self.region(region)?.memberships;
        self.measured("autoscaling:DescribeAutoScalingInstances", reader.get(instance.to_owned())).await
    }

    /// A group; None where there is none of that name.
    pub async fn scaling_group(&self, region: &str, name: &str) -> Read<Option<ScalingGroup>> {
        let reader = &self.region(region)?.scaling_groups;
        self.measured("autoscaling:DescribeAutoScalingGroups", reader.get(name.to_owned())).await
    }

    /// The Auto Scaling client of a region, for calls that change something.
    pub(in crate::aws) fn autoscaling(&self, region: &str) -> Read<&aws_sdk_autoscaling::Client> {
        Ok(&self.region(region)?.autoscaling)
    }
}

pub(super) async fn fetch_memberships(
    client: aws_sdk_autoscaling::Client,
    ids: Vec<String>,
) -> Read<HashMap<String, Membership>> {
    let pages = client.describe_auto_scaling_instances().set_instance_ids(Some(ids)).into_paginator().items().send();
    let found: Vec<_> =
        pages.collect::<Result<_, _>>().await.map_err(|e| error("autoscaling:DescribeAutoScalingInstances", &e))?;
    Ok(found.into_iter().map(|i| (i.instance_id.clone().unwrap_or_default(), membership(i))).collect())
}

pub(super) async fn fetch_groups(
    client: aws_sdk_autoscaling::Client,
    names: Vec<String>,
) -> Read<HashMap<String, ScalingGroup>> {
    let pages =
        client.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names)).into_paginator().items().send();
    let found: Vec<_> =
        pages.collect::<Result<_, _>>().await.map_err(|e| error("autoscaling:DescribeAutoScalingGroups", &e))?;
    Ok(found.into_iter().map(|g| (g.auto_scaling_group_name.clone().unwrap_or_default(), group(&g))).collect())
}

fn membership(i: autoscaling::AutoScalingInstanceDetails) -> Membership {
    Membership {
        group: i.auto_scaling_group_name.unwrap_or_default(),
        state: i.lifecycle_state.unwrap_or_default(),
        protected: i.protected_from_scale_in.unwrap_or_default(),
    }
}

/// A group that is being deleted, and so has a status, takes nobody in.
fn group(g: &autoscaling::AutoScalingGroup) -> ScalingGroup {
    let in_service = g.instances().iter().filter(|i| i.lifecycle_state == Some(autoscaling::LifecycleState::InService));
    ScalingGroup {
        in_service: in_service.filter_map(|i| i.instance_id.clone()).collect(),
        suspended: g.suspended_processes().iter().filter_map(|p| p.process_name.clone()).collect(),
        desired: g.desired_capacity.unwrap_or_default(),
        max: g.max_size.unwrap_or_default(),
        deleting: g.status.is_some(),
    }
}
