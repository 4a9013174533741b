//! Who uses a role.

use futures::future::try_join_all;

use super::ec2::{describe_instances, filter};
use super::{Read, RegionReader, error};
use crate::aws::error::AwsError;
use crate::aws::rate::Priority;
use crate::aws::session::Session;

impl Session {
    /// The running instances of the account's regions that get their credentials from the role; none where there is no such role.
    pub async fn running_with_role(&self, role: &str) -> Read<Vec<String>> {
        let profiles = self.profiles_of(role).await?;
        if profiles.is_empty() {
            return Ok(Vec::new());
        }
        let read = try_join_all(self.regions.values().map(|region| running_with(region, &profiles)));
        let found = self.measured("ec2:DescribeInstances", read).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The ARNs of the instance profiles that carry a role.
    async fn profiles_of(&self, role: &str) -> Read<Vec<String>> {
        let read = async {
            let list = self.iam.list_instance_profiles_for_role().role_name(role).into_paginator().items().send();
            let list: Vec<_> =
                list.collect::<Result<_, _>>().await.map_err(|e| error("iam:ListInstanceProfilesForRole", &e))?;
            Ok(list.into_iter().map(|p| p.arn).collect())
        };
        let read = async { read.await.or_else(AwsError::none_where_not_found) };
        self.measured("iam:ListInstanceProfilesForRole", read).await
    }
}

async fn running_with(region: &RegionReader, profiles: &[String]) -> Read<Vec<String>> {
    region.limiter.take("ec2", "DescribeInstances", Priority::Contain).await;
    let running = ["pending", "running"].map(str::to_owned).to_vec();
    let filters = vec![filter("iam-instance-profile.arn", profiles.to_vec()), filter("instance-state-name", running)];
    Ok(describe_instances(&region.ec2, filters).await?.into_iter().map(|i| i.id).collect())
}
