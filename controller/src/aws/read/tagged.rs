//! What carries tags that an account protects.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::operation::get_account_authorization_details::GetAccountAuthorizationDetailsOutput;
use aws_sdk_iam::types::Tag;
use firebreak_crds::{ProtectedTag, ResourceKind};
use futures::future::try_join_all;

use super::Read;
use crate::aws::model::Carrier;
use crate::aws::rate::Priority;
use crate::aws::session::Session;

impl Session {
    /// The instances of a region that carry any of the tags: one call for each key.
    pub async fn instances_carrying(&self, region: &str, tags: &[ProtectedTag]) -> Read<Vec<Carrier>> {
        let (ec2, limiter) = (self.ec2(region)?, self.limiter(region)?);
        let keys: BTreeSet<&String> = tags.iter().map(|t| &t.key).collect();
        let read = try_join_all(keys.into_iter().map(async |key| {
            let values = tags.iter().filter(|t| t.key == *key).map(|t| t.value.clone()).collect();
            limiter.take("ec2", "DescribeInstances", Priority::Sweep).await;
            super::ec2::describe_instances(ec2, vec![super::ec2::filter(&format!("tag:{key}"), values)]).await
        }));
        let found = self.measured("ec2:DescribeInstances", read).await?;
        let living = found.into_iter().flatten().filter(|i| !i.is_ended());
        let carrier =
            |key: &str, id: String| Carrier { region: Some(region.into()), ..carrier(ResourceKind::Ec2Instance, id, key) };
        Ok(living.filter_map(|i| carried(&i.tags, tags).map(|key| carrier(key, i.id))).collect())
    }

    /// The users and roles that carry any of the tags. IAM finds nothing by tags: all of the account's users and roles are read, in
    /// pages.
    pub async fn principals_carrying(&self, tags: &[ProtectedTag]) -> Read<Vec<Carrier>> {
        Ok(self.users_and_roles().await?.iter().flat_map(|page| principals(page, tags)).collect())
    }
}

fn principals(page: &GetAccountAuthorizationDetailsOutput, tags: &[ProtectedTag]) -> Vec<Carrier> {
    let users = page.user_detail_list().iter().map(|u| (ResourceKind::IamUser, u.user_name(), u.tags()));
    let roles = page.role_detail_list().iter().map(|r| (ResourceKind::IamRole, r.role_name(), r.tags()));
    let found = users.chain(roles).filter_map(|(kind, name, own)| {
        let own = own.iter().map(|t: &Tag| (t.key().to_owned(), t.value().to_owned())).collect();
        Some(carrier(kind, name?.to_owned(), carried(&own, tags)?))
    });
    found.collect()
}

fn carrier(kind: ResourceKind, id: String, key: &str) -> Carrier {
    Carrier { kind, region: None, id, key: key.to_owned() }
}

/// The key of the first of the tags that is among those of a resource. EC2's filters take `*` in a value for any characters:
/// judged here again.
fn carried<'a>(own: &BTreeMap<String, String>, tags: &'a [ProtectedTag]) -> Option<&'a str> {
    tags.iter().find(|t| own.get(&t.key) == Some(&t.value)).map(|t| t.key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_carried_where_key_and_value_are_the_same() {
        let tag = |key: &str, value: &str| ProtectedTag { key: key.into(), value: value.into() };
        let own = [("tier", "gold"), ("team", "a*")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (tags, carries) in [
            (vec![tag("tier", "gold")], Some("tier")),
            (vec![tag("tier", "silver"), tag("tier", "gold")], Some("tier")),
            (vec![tag("team", "a*")], Some("team")),
            (vec![tag("tier", "*")], None),
            (vec![tag("Tier", "gold")], None),
            (vec![tag("tier", "")], None),
            (vec![], None),
        ] {
            assert_eq!(carried(&own, &tags), carries, "{tags:?}");
        }
    }
}
