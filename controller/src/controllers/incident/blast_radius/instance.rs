//! Whom an instance serves: what would be cut off with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use firebreak_crds::{AwsAccount, BlastRadiusCause, Resource};
use futures::future::try_join_all;
use tokio::time::Instant;

use super::{Seen, by};
use crate::aws::{
    AwsError, ClassicBalancer, Interface, Membership, RouteTable, ScalingGroup, Session, Target, TargetGroup,
    target_group_name,
};
use crate::memory::CutOff;

/// The environment variables that name what is between this process and AWS, or the API server.
const WAYS: [&str; 7] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "KUBERNETES_SERVICE_HOST"];

/// What is known of an instance.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) id: String,
    pub(super) interfaces: Vec<Interface>,
    pub(super) routes: Vec<RouteTable>,
    pub(super) groups: Vec<Arc<Vec<TargetGroup>>>,
    pub(super) classic: Arc<Vec<ClassicBalancer>>,
    pub(super) scaling: Option<(Membership, ScalingGroup)>,
    /// The hosts through which this process reaches AWS and the API server.
    pub(super) hosts: Vec<String>,
}

/// Two round trips, and a third where there are target groups. What can be is read side by side: nothing waits for what hangs.
pub(super) async fn look(session: &Session, resource: &Resource, hosts: Vec<String>, deadline: Instant) -> Seen {
    let (region, id) = (resource.region.as_deref().unwrap_or_default(), &resource.id);
    let ((interfaces, routes, groups), scaling, classic) = futures::join!(
        network(session, region, id, deadline),
        by(deadline, "autoscaling:DescribeAutoScalingInstances", scaling(session, region, id)),
        by(deadline, "elasticloadbalancing:DescribeLoadBalancers", session.classic_balancers(region)),
    );
    let mut seen = Seen::default();
    let (interfaces, routes, groups) = (seen.take(interfaces), seen.take(routes), seen.take(groups));
    let (scaling, classic) = (seen.take(scaling), seen.take(classic));
    let facts = Facts { id: id.clone(), interfaces, routes, groups, classic, scaling, hosts };
    seen.facts = facts.judged();
    seen
}

type Network =
    (Result<Vec<Interface>, AwsError>, Result<Vec<RouteTable>, AwsError>, Result<Vec<Arc<Vec<TargetGroup>>>, AwsError>);

/// Its interfaces, then what there is in their VPCs. Interfaces that could not be read are in none.
async fn network(session: &Session, region: &str, id: &str, deadline: Instant) -> Network {
    let interfaces = by(deadline, "ec2:DescribeNetworkInterfaces", session.interfaces(region, id)).await;
    let vpcs: BTreeSet<String> = interfaces.iter().flatten().map(|i| i.vpc.clone()).collect();
    let groups = try_join_all(vpcs.iter().map(|vpc| session.target_groups(region, vpc)));
    let routes = session.route_tables(region, vpcs.iter().cloned().collect());
    let (routes, groups) = futures::join!(
        by(deadline, "ec2:DescribeRouteTables", routes),
        by(deadline, "elasticloadbalancing:DescribeTargetHealth", groups),
    );
    (interfaces, routes, groups)
}

async fn scaling(session: &Session, region: &str, id: &str) -> Result<Option<(Membership, ScalingGroup)>, AwsError> {
    let Some(membership) = session.membership(region, id).await? else { return Ok(None) };
    Ok(session.scaling_group(region, &membership.group).await?.map(|group| (membership, group)))
}

/// Through what this process reaches AWS and the API server, as far as its environment and the account say.
pub(super) fn hosts(account: &AwsAccount) -> Vec<String> {
    let named = WAYS.iter().filter_map(|name| std::env::var(name).ok()).chain(account.spec.endpoint_url.clone());
    named.filter_map(|url| host(&url)).collect()
}

/// `10.0.0.1` of `http://user@10.0.0.1:3128/`, or of itself.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let place = authority.rsplit('@').next()?;
    let host = match place.strip_prefix('[') {
        Some(six) => six.split(']').next()?,
        None if place.matches(':').count() == 1 => place.split(':').next()?,
        None => place,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

impl Facts {
    /// Whom it serves, in words.
    pub(super) fn judged(&self) -> Vec<CutOff> {
        let all = [
            (BlastRadiusCause::RouteTarget, self.routed().into_iter().collect()),
            (BlastRadiusCause::Forwards, self.forwards().into_iter().collect()),
            (BlastRadiusCause::FirebreaksPath, self.own_way().into_iter().collect()),
            (BlastRadiusCause::LastHealthyTarget, self.last_healthy()),
            (BlastRadiusCause::OnlyBehindLoadBalancer, self.only_instance()),
            (BlastRadiusCause::AloneInAutoScaling, self.alone().into_iter().collect()),
            (BlastRadiusCause::NotReplaced, self.not_replaced().into_iter().collect()),
        ];
        all.into_iter().flat_map(|(cause, who): (_, Vec<String>)| who.into_iter().map(move |who| (cause, who))).collect()
    }

    fn routed(&self) -> Option<String> {
        let ours = |to: &String| *to == self.id || self.interfaces.iter().any(|i| i.id == *to);
        let routed = self.routes.iter().flat_map(|table| &table.through).any(ours);
        routed.then(|| "a route of its VPC leads to it".to_owned())
    }

    fn forwards(&self) -> Option<String> {
        let forwards = self.interfaces.iter().find(|i| i.forwards)?;
        Some(format!("it passes on what is not its own (SourceDestCheck of {} is off)", forwards.id))
    }

    fn own_way(&self) -> Option<String> {
        let public = self.interfaces.iter().flat_map(|i| &i.addresses).map(|a| &a.public);
        let ours: Vec<&String> = self.addresses().into_iter().chain(public).collect();
        let way = self.hosts.iter().find(|host| ours.contains(host))?;
        Some(format!("Firebreak reaches AWS or Kubernetes through it ({way})"))
    }

    fn addresses(&self) -> Vec<&String> {
        self.interfaces.iter().flat_map(|i| &i.private_addresses).collect()
    }

    /// Target groups in which no other target is healthy.
    fn last_healthy(&self) -> Vec<String> {
        let addresses = self.addresses();
        let ours = |t: &&Target| t.registration.id == self.id || addresses.contains(&&t.registration.id);
        let last = |group: &&TargetGroup| {
            let (ours, others): (Vec<&Target>, Vec<&Target>) = group.targets.iter().filter(|t| t.healthy).partition(ours);
            !ours.is_empty() && others.is_empty()
        };
        let groups = self.groups.iter().flat_map(|groups| groups.iter()).filter(last);
        groups.map(|g| format!("it is the last healthy target of {}", target_group_name(&g.arn))).collect()
    }

    fn only_instance(&self) -> Vec<String> {
        let only = self.classic.iter().filter(|b| b.instances.iter().all(|i| *i == self.id) && !b.instances.is_empty());
        only.map(|b| format!("it is the only instance of load balancer {}", b.name)).collect()
    }

    /// The Auto Scaling group in which it is in service.
    fn scaled(&self) -> Option<(&str, &ScalingGroup)> {
        let (membership, group) = self.scaling.as_ref()?;
        (membership.state == "InService").then_some((membership.group.as_str(), group))
    }

    fn alone(&self) -> Option<String> {
        let (name, group) = self.scaled()?;
        let alone = group.in_service.iter().all(|i| *i == self.id);
        alone.then(|| format!("it is alone in Auto Scaling group {name}"))
    }

    fn not_replaced(&self) -> Option<String> {
        let (name, group) = self.scaled()?;
        let stopped = group.suspended.iter().find(|p| ["Launch", "ReplaceUnhealthy"].contains(&p.as_str()))?;
        Some(format!("Auto Scaling group {name} would not replace it ({stopped} is suspended)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_between_the_scheme_and_the_port() {
        for (url, expected) in [
            ("http://10.0.0.1:3128", Some("10.0.0.1")),
            ("http://user:pass@10.0.0.1:3128/", Some("10.0.0.1")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:3128", Some("10.0.0.1")),
            ("https://vpce.example/x?y", Some("vpce.example")),
            ("http://[fd00::1]:3128", Some("fd00::1")),
            ("fd00::1", Some("fd00::1")),
            ("", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }
}
