//! `ec2Selector`: the instances that have something in common, as a target; and what the status keeps of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::NameRef;
use crate::rule::no_empty_section;

/// So many instances can be chosen by the selectors of one Incident: more do not fit into its status.
pub const MAX_SELECTED: usize = 5000;

/// Every EC2 instance that meets all of the criteria, as AWS shows them at the moment when the Incident turns to `Contain`.
/// That list is then kept: containing changes security groups and Auto Scaling groups, and an attacker changes tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.tags) || has(self.vpcId) || has(self.subnetId) || has(self.securityGroupId) || has(self.autoScalingGroup)"
).message("ec2Selector: give at least one of tags, vpcId, subnetId, securityGroupId and autoScalingGroup"))]
#[x_kube(validation = no_empty_section(&["tags", "vpcId", "subnetId", "securityGroupId", "autoScalingGroup"])
    .message("ec2Selector: a criterion that is written has a value; leave it out, or write it"))]
#[x_kube(validation = Rule::new("!self.follow || has(self.maxNewPerHour)")
    .message("ec2Selector.maxNewPerHour: needed with `follow: true`; what matches beyond it waits for approval"))]
#[x_kube(validation = Rule::new("self.follow || !has(self.maxNewPerHour)")
    .message("ec2Selector.maxNewPerHour: only with `follow: true`; without it nothing joins later"))]
pub struct Ec2SelectorTarget {
    /// The `AwsAccount` that they are in.
    pub account_ref: NameRef,
    /// Their region; one of the account's.
    #[schemars(length(max = 32), regex(pattern = r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$"))]
    pub region: String,
    /// Tags that they all have, with exactly these values. Whoever has `ec2:CreateTags` or `ec2:DeleteTags` decides who matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 10))]
    #[x_kube(validation = Rule::new("self.all(k, k.size() >= 1 && k.size() <= 128)")
        .message("ec2Selector.tags: a key has 1 to 128 characters"))]
    pub tags: Option<BTreeMap<String, TagValue>>,
    /// The VPC of one of their network interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 21), regex(pattern = r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$"))]
    pub vpc_id: Option<String>,
    /// The subnet of one of their network interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$"))]
    pub subnet_id: Option<String>,
    /// A security group of one of their network interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$"))]
    pub security_group_id: Option<String>,
    /// The Auto Scaling group that they are in, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^:\s]([^:]*[^:\s])?$"))]
    pub auto_scaling_group: Option<String>,
    /// Whether instances that match later join. Needs `maxNewPerHour`.
    #[serde(default)]
    pub follow: bool,
    /// With `follow`: so many join by themselves in any hour. What matches beyond that waits for an Approval of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5000))]
    pub max_new_per_hour: Option<i32>,
}

/// The value of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TagValue(#[schemars(length(max = 256))] pub String);

/// What a selector stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectorStatus {
    /// Its criteria, as 20 hex digits: `follow` and `maxNewPerHour` can change without making it another.
    #[schemars(length(max = 20))]
    pub key: String,
    /// Its criteria in words.
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// The `AwsAccount` that the instances are in.
    pub account_ref: NameRef,
    /// Their region.
    #[schemars(length(max = 32))]
    pub region: String,
    /// When it was resolved. From then on the list stays, whatever AWS shows.
    pub resolved_at: Time,
    /// When the list was lost, and made again of what the Quarantines said was held. What else matched then awaits approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt_at: Option<Time>,
    /// The ids of the instances that it stands for.
    #[serde(default)]
    #[schemars(length(max = 5000), inner(length(max = 19)))]
    pub instances: Vec<String>,
    /// The ids of those that match, but wait until the plan that has them is approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), inner(length(max = 19)))]
    pub awaiting_approval: Vec<String>,
    /// How many joined by themselves in the last hour, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub joined: Vec<Joined>,
}

/// Instances that joined together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// When.
    pub at: Time,
    /// How many.
    pub count: i32,
}

impl Ec2SelectorTarget {
    /// The digest of the criteria. Two selectors that differ only in `follow` and `maxNewPerHour` have the same.
    #[must_use]
    pub fn key(&self) -> String {
        let Self { account_ref, region, tags, vpc_id, subnet_id, security_group_id, auto_scaling_group, .. } = self;
        let criteria = json!([account_ref, region, tags, vpc_id, subnet_id, security_group_id, auto_scaling_group]);
        hex::encode(Sha256::digest(criteria.to_string()))[..20].to_owned()
    }
}

impl Display for Ec2SelectorTarget {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let tags = self.tags.iter().flatten().map(|(key, TagValue(value))| format!("with the tag {key}={value}"));
        let of = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!("{what} {value}"));
        let others = [
            of("in", &self.vpc_id),
            of("in", &self.subnet_id),
            of("in", &self.security_group_id),
            of("of the Auto Scaling group", &self.auto_scaling_group),
        ];
        let criteria: Vec<String> = tags.chain(others.into_iter().flatten()).collect();
        write!(f, "instances in {} {}", self.region, criteria.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(team: &str) -> BTreeMap<String, TagValue> {
        BTreeMap::from([("team".into(), TagValue(team.into()))])
    }

    fn selector(change: impl Fn(&mut Ec2SelectorTarget)) -> Ec2SelectorTarget {
        let mut selector = Ec2SelectorTarget {
            account_ref: NameRef { name: "prod".into() },
            region: "eu-west-1".into(),
            tags: Some(tags("web")),
            vpc_id: None,
            subnet_id: None,
            security_group_id: None,
            auto_scaling_group: None,
            follow: false,
            max_new_per_hour: None,
        };
        change(&mut selector);
        selector
    }

    /// Quarantines carry it: a version that computes another would take every list for lost.
    #[test]
    fn keys_never_change_between_versions() {
        assert_eq!(selector(|_| ()).key(), "84d5a09f8568ef9aa666");
    }

    #[test]
    fn a_key_is_of_the_criteria_alone() {
        let key = selector(|_| ()).key();
        assert_eq!(selector(|s| (s.follow, s.max_new_per_hour) = (true, Some(3))).key(), key);
        let others = [
            selector(|s| s.account_ref.name = "other".into()),
            selector(|s| s.region = "eu-west-2".into()),
            selector(|s| s.tags = Some(tags("db"))),
            selector(|s| s.vpc_id = Some("x".into())),
            selector(|s| s.subnet_id = Some("x".into())),
            selector(|s| s.security_group_id = Some("x".into())),
            selector(|s| s.auto_scaling_group = Some("x".into())),
        ];
        let keys: std::collections::BTreeSet<String> = others.iter().map(Ec2SelectorTarget::key).chain([key]).collect();
        assert_eq!(keys.len(), 8);
    }

    #[test]
    fn it_says_what_it_selects() {
        let text = selector(|s| s.vpc_id = Some("vpc-1".into())).to_string();
        assert_eq!(text, "instances in eu-west-1 with the tag team=web and in vpc-1");
    }
}
