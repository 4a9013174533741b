//! EC2 instances by what they have in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_sdk_ec2::types::Filter;
use firebreak_crds::Ec2SelectorTarget;

use super::Read;
use super::ec2::describe_instances;
use crate::aws::model::Instance;
use crate::aws::session::Session;

/// What AWS writes itself, and lets nobody else write.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html>
const SCALING_GROUP: &str = "aws:autoscaling:groupName";
/// Those of which something is left to contain.
const THERE: [&str; 4] = ["pending", "running", "stopping", "stopped"];

/// EC2's filters, with one value each: an instance must pass all of them.
pub type Criteria = BTreeMap<String, String>;

impl Session {
    /// The ids of the instances that meet the criteria, and have not ended.
    pub async fn instances_selected(&self, region: &str, selector: &Ec2SelectorTarget) -> Read<Arc<BTreeSet<String>>> {
        let reader = &self.region(region)?.selected;
        let found = self.measured("ec2:DescribeInstances", reader.get(criteria(selector))).await?;
        Ok(found.unwrap_or_default())
    }
}

fn criteria(selector: &Ec2SelectorTarget) -> Criteria {
    let tags = selector.tags.iter().flatten().map(|(key, value)| (format!("tag:{key}"), value.0.clone()));
    let group = selector.auto_scaling_group.clone().map(|name| (format!("tag:{SCALING_GROUP}"), name));
    let of_interfaces = [
        ("network-interface.vpc-id", &selector.vpc_id),
        ("network-interface.subnet-id", &selector.subnet_id),
        ("network-interface.group-id", &selector.security_group_id),
    ];
    let of_interfaces = of_interfaces.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id.clone()?)));
    tags.chain(group).chain(of_interfaces).collect()
}

/// Each in a call of its own.
pub(super) async fn fetch(ec2: aws_sdk_ec2::Client, all: Vec<Criteria>) -> Read<HashMap<Criteria, Arc<BTreeSet<String>>>> {
    let mut answers = HashMap::new();
    for criteria in all {
        let found = describe_instances(&ec2, filters(&criteria)).await?;
        let ids = found.into_iter().filter(|i| meets(i, &criteria)).map(|i| i.id).collect();
        answers.insert(criteria, Arc::new(ids));
    }
    Ok(answers)
}

fn filters(criteria: &Criteria) -> Vec<Filter> {
    let there = Filter::builder().name("instance-state-name").set_values(Some(THERE.map(str::to_owned).to_vec())).build();
    let one = |(name, value): (&String, &String)| Filter::builder().name(name).values(literally(value)).build();
    criteria.iter().map(one).chain([there]).collect()
}

/// AWS takes `*` and `?` in the value of a filter for wildcards.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html>
fn literally(value: &str) -> String {
    value.chars().flat_map(|c| ['*', '?', '\\'].contains(&c).then_some('\\').into_iter().chain([c])).collect()
}

/// Where the answer can be checked, it is: a filter that AWS read otherwise must not choose more.
fn meets(instance: &Instance, criteria: &Criteria) -> bool {
    let has = |(name, value): (&String, &String)| {
        name.strip_prefix("tag:").is_none_or(|key| instance.tags.get(key) == Some(value))
    };
    !instance.is_ended() && criteria.iter().all(has)
}

#[cfg(test)]
mod tests {
    use firebreak_crds::{NameRef, TagValue};

    use super::*;

    fn selector() -> Ec2SelectorTarget {
        Ec2SelectorTarget {
            account_ref: NameRef { name: "prod".into() },
            region: "eu-west-1".into(),
            tags: Some(BTreeMap::from([("team".into(), TagValue("web*".into()))])),
            vpc_id: Some("vpc-1".into()),
            subnet_id: None,
            security_group_id: Some("sg-1".into()),
            auto_scaling_group: Some("fleet".into()),
            follow: false,
            max_new_per_hour: None,
        }
    }

    #[test]
    fn every_criterion_is_a_filter_and_none_is_a_wildcard() {
        let all = filters(&criteria(&selector()));
        let shown: Vec<String> = all.iter().map(|f| format!("{}={}", f.name().unwrap(), f.values().join(","))).collect();
        assert_eq!(
            shown,
            [
                "network-interface.group-id=sg-1",
                "network-interface.vpc-id=vpc-1",
                "tag:aws:autoscaling:groupName=fleet",
                r"tag:team=web\*",
                "instance-state-name=pending,running,stopping,stopped",
            ]
        );
        assert_eq!(literally(r"a\b?c"), r"a\\b\?c");
    }

    #[test]
    fn an_answer_that_is_wider_than_was_asked_for_chooses_no_more() {
        let criteria = criteria(&selector());
        let tags = |team: &str, group: &str| {
            BTreeMap::from([("team".to_owned(), team.to_owned()), (SCALING_GROUP.to_owned(), group.to_owned())])
        };
        for (what, state, tags, expected) in [
            ("as asked for", "running", tags("web*", "fleet"), true),
            ("another tag", "running", tags("web-2", "fleet"), false),
            ("another group", "running", tags("web*", "fleet-2"), false),
            ("no tags", "running", BTreeMap::new(), false),
            ("ended", "terminated", tags("web*", "fleet"), false),
            ("ending", "shutting-down", tags("web*", "fleet"), false),
            ("stopped", "stopped", tags("web*", "fleet"), true),
        ] {
            let instance = Instance { state: state.into(), tags, ..Instance::default() };
            assert_eq!(meets(&instance, &criteria), expected, "{what}");
        }
    }
}
