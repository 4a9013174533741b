//! Instance profiles, their roles, and which instance has which. All that is in force at many instances at once coalesces.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_ec2::operation::describe_iam_instance_profile_associations::builders::DescribeIamInstanceProfileAssociationsFluentBuilder;
use aws_sdk_ec2::types as ec2;
use aws_sdk_iam::Client;
use futures::future::try_join_all;

use super::ec2::filter;
use super::iam::{decoded, role};
use super::{Read, absent, batcher_of, error, timestamp};
use crate::aws::batch::Batcher;
use crate::aws::error::AwsError;
use crate::aws::instance_role::{
    DENY_PROFILE, DeniedRole, DenyProfile, InstanceProfile, ProfileAssociation, ProfileRole, is_deny_profile,
};
use crate::aws::model::Identity;
use crate::aws::rate::RateLimiter;
use crate::aws::session::Session;
use crate::aws::session_denies::SESSION_DENIES;

/// IAM reads one at a time: so many go out side by side.
const AT_ONCE: usize = 20;
/// The inline policy of the role in our own profile.
pub const DENY_POLICY: &str = "firebreak-deny-all";

/// IAM's reads that instances share.
pub struct ProfileReader {
    profiles: Batcher<String, InstanceProfile, AwsError>,
    roles: Batcher<String, DeniedRole, AwsError>,
    own: Batcher<(), DenyProfile, AwsError>,
}

impl ProfileReader {
    pub(in crate::aws) fn new(iam: &Client, limiter: &Arc<RateLimiter>) -> Self {
        Self {
            profiles: batcher_of(iam, limiter, ("iam", "GetInstanceProfile", AT_ONCE), fetch_profiles),
            roles: batcher_of(iam, limiter, ("iam", "GetRole", AT_ONCE), fetch_roles),
            own: batcher_of(iam, limiter, ("iam", "GetInstanceProfile", AT_ONCE), fetch_own),
        }
    }
}

impl Session {
    /// Which profiles an instance has, or is about to get or to lose.
    pub async fn profile_associations(&self, region: &str, instance: &str) -> Read<Vec<ProfileAssociation>> {
        let reader = &self.region(region)?.associations;
        let found = self.measured("ec2:DescribeIamInstanceProfileAssociations", reader.get(instance.to_owned())).await?;
        Ok(found.unwrap_or_default())
    }

    /// The instances that have Firebreak's own profile.
    pub async fn instances_with_deny_profile(&self, region: &str) -> Read<Vec<String>> {
        let read = all_associations(self.ec2(region)?.describe_iam_instance_profile_associations());
        let found = self.measured("ec2:DescribeIamInstanceProfileAssociations", read).await?;
        let ours = |a: &ec2::IamInstanceProfileAssociation| {
            a.iam_instance_profile.as_ref().and_then(|p| p.arn.as_deref()).is_some_and(is_deny_profile)
        };
        Ok(found.into_iter().filter(ours).filter_map(|a| a.instance_id).collect())
    }

    /// An instance profile, or None where there is none of that name.
    pub async fn instance_profile(&self, name: &str) -> Read<Option<InstanceProfile>> {
        self.measured("iam:GetInstanceProfile", self.profiles.profiles.get(name.to_owned())).await
    }

    /// A role with its denies of instances' sessions, or None where there is none of that name.
    pub async fn denied_role(&self, name: &str) -> Read<Option<DeniedRole>> {
        self.measured("iam:GetRolePolicy", self.profiles.roles.get(name.to_owned())).await
    }

    /// Firebreak's own profile, as far as it is there.
    pub async fn deny_profile(&self) -> Read<DenyProfile> {
        Ok(self.measured("iam:GetInstanceProfile", self.profiles.own.get(())).await?.unwrap_or_default())
    }
}

pub(super) async fn fetch_associations(
    client: aws_sdk_ec2::Client,
    instances: Vec<String>,
) -> Read<HashMap<String, Vec<ProfileAssociation>>> {
    let request = client.describe_iam_instance_profile_associations().filters(filter("instance-id", instances));
    let found = all_associations(request).await?;
    let mut by_instance: HashMap<String, Vec<ProfileAssociation>> = HashMap::new();
    for a in found {
        by_instance.entry(a.instance_id.clone().unwrap_or_default()).or_default().push(association(a));
    }
    Ok(by_instance)
}

async fn all_associations(
    request: DescribeIamInstanceProfileAssociationsFluentBuilder,
) -> Read<Vec<ec2::IamInstanceProfileAssociation>> {
    let pages = request.max_results(1000).into_paginator().items().send();
    pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeIamInstanceProfileAssociations", &e))
}

fn association(a: ec2::IamInstanceProfileAssociation) -> ProfileAssociation {
    ProfileAssociation {
        id: a.association_id.unwrap_or_default(),
        profile: a.iam_instance_profile.and_then(|p| p.arn).unwrap_or_default(),
        state: a.state.map(|s| s.as_str().to_owned()).unwrap_or_default(),
        since: a.timestamp.and_then(timestamp),
    }
}

async fn fetch_profiles(iam: Client, names: Vec<String>) -> Read<HashMap<String, InstanceProfile>> {
    let reads = names.into_iter().map(async |name| Ok::<_, AwsError>(profile(&iam, &name).await?.map(|p| (name, p))));
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn fetch_roles(iam: Client, names: Vec<String>) -> Read<HashMap<String, DeniedRole>> {
    let reads = names.into_iter().map(async |name| {
        let (identity, denies) = futures::join!(identity(&iam, &name), inline(&iam, &name, SESSION_DENIES));
        let (identity, denies) = (identity?, denies?);
        Ok::<_, AwsError>(identity.map(|identity| (name, DeniedRole { identity, denies })))
    });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn fetch_own(iam: Client, _: Vec<()>) -> Read<HashMap<(), DenyProfile>> {
    let reads =
        futures::join!(identity(&iam, DENY_PROFILE), inline(&iam, DENY_PROFILE, DENY_POLICY), profile(&iam, DENY_PROFILE));
    let own = DenyProfile { role: reads.0?.is_some(), policy: reads.1?, profile: reads.2?, read: true };
    Ok(HashMap::from([((), own)]))
}

async fn identity(iam: &Client, name: &str) -> Read<Option<Identity>> {
    let answer = iam.get_role().role_name(name).send().await;
    absent(answer.map_err(|e| error("iam:GetRole", &e)).map(|a| a.role.map(role)))
}

async fn inline(iam: &Client, name: &str, policy: &str) -> Read<Option<String>> {
    let answer = iam.get_role_policy().role_name(name).policy_name(policy).send().await;
    absent(answer.map_err(|e| error("iam:GetRolePolicy", &e)).map(|a| Some(decoded(&a.policy_document))))
}

async fn profile(iam: &Client, name: &str) -> Read<Option<InstanceProfile>> {
    let answer = iam.get_instance_profile().instance_profile_name(name).send().await;
    absent(answer.map_err(|e| error("iam:GetInstanceProfile", &e)).map(|a| a.instance_profile.map(instance_profile)))
}

fn instance_profile(p: aws_sdk_iam::types::InstanceProfile) -> InstanceProfile {
    let role = p.roles.into_iter().next().map(|r| ProfileRole { name: r.role_name, id: r.role_id });
    InstanceProfile { arn: p.arn, id: p.instance_profile_id, role }
}
