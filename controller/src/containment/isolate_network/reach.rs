//! What stays reachable though every interface is isolated. It is told, so that nobody takes the isolation for more than it is.

use std::collections::BTreeSet;

use super::custom::Permit;
use super::{Look, NAMED};
use crate::aws::{AwsError, Interface, RouteTable, Session, VpcWays, Ways};
use crate::conditions::few;

/// No security group stops it.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html>
const DNS: &str = "the VPC's DNS still answers it";

/// Whether all is cut, and lives: before, nothing else counts.
pub(super) fn is_worth_telling(look: &Look, permit: &Permit) -> bool {
    look.instance.as_ref().is_some_and(|i| !i.is_ended()) && look.own().all(|i| look.isolated(i, permit))
}

/// Reads it.
pub(super) async fn ways(aws: &Session, region: &str, look: &Look) -> Result<Ways, AwsError> {
    aws.ways(region, look.own().map(|i| i.vpc.clone()).collect()).await
}

/// The route table of an interface's subnet.
pub(super) fn table_of<'a>(routes: &'a [RouteTable], interface: &Interface) -> Option<&'a RouteTable> {
    let own = routes.iter().find(|t| t.subnets.contains(&interface.subnet));
    own.or_else(|| routes.iter().find(|t| t.main && t.vpc == interface.vpc))
}

/// In a fixed order and short: a message that flaps would be written each time.
pub(super) fn said(look: &Look) -> Vec<String> {
    let Some(ways) = &look.ways else { return Vec::new() };
    let (through, unknown) = (through(look, ways), unknown(ways));
    let said = [
        (!through.is_empty()).then(|| format!("open flows may go on through {}", few(&through, NAMED))),
        (ways.serial_console == Some(true)).then(|| "the account's EC2 serial console is on".to_owned()),
        (!unknown.is_empty())
            .then(|| format!("what else reaches it is not known: AWS does not answer {}", unknown.join(", "))),
        Some(DNS.to_owned()),
    ];
    said.into_iter().flatten().collect()
}

/// What may carry a flow that is open: AWS tracks all flows through it, or it is a way in of its own.
fn through(look: &Look, ways: &Ways) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for interface in look.own() {
        let Some(vpc) = ways.vpcs.get(&interface.vpc) else { continue };
        let table = vpc.routes.as_ref().and_then(|routes| table_of(routes, interface));
        all.extend(table.iter().flat_map(|t| t.tracked.iter().cloned()));
        all.extend(vpc.endpoints.iter().chain(&vpc.connect).flatten().cloned());
    }
    all
}

/// The reads that gave nothing, by the permission that they need.
fn unknown(ways: &Ways) -> Vec<&'static str> {
    let any = |missing: fn(&VpcWays) -> bool| ways.vpcs.values().any(missing);
    let reads = [
        ("ec2:DescribeInstanceConnectEndpoints", any(|w| w.connect.is_none())),
        ("ec2:DescribeRouteTables", any(|w| w.routes.is_none())),
        ("ec2:DescribeVpcEndpoints", any(|w| w.endpoints.is_none())),
        ("ec2:GetSerialConsoleAccessStatus", ways.serial_console.is_none()),
    ];
    reads.into_iter().filter(|(_, missing)| *missing).map(|(read, _)| read).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::Instance;
    use crate::aws::{Group, GroupRole};

    const VPC: &str = "vpc-a";

    fn table(main: bool, subnets: &[&str], tracked: &[&str]) -> RouteTable {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let tracked = owned(tracked).into_iter().collect();
        RouteTable { vpc: VPC.into(), main, subnets: owned(subnets), tracked, ..RouteTable::default() }
    }

    fn vpc(routes: Vec<RouteTable>, connect: &[&str]) -> VpcWays {
        let connect = connect.iter().map(|id| (*id).to_owned()).collect();
        VpcWays { routes: Some(Arc::new(routes)), endpoints: Some(Vec::new()), connect: Some(connect) }
    }

    /// One isolated interface in `subnet-a` of a VPC with these ways.
    fn look(serial_console: Option<bool>, of_vpc: VpcWays) -> Look {
        let ways = Ways { serial_console, vpcs: [(VPC.to_owned(), of_vpc)].into() };
        let name = GroupRole::Isolation.group_name().into_owned();
        let group = Group { id: "sg-i".into(), vpc: VPC.into(), name, read: true, ..Group::default() };
        let (id, subnet) = ("eni-1".into(), "subnet-a".into());
        let interface = Interface { id, vpc: VPC.into(), subnet, groups: vec!["sg-i".into()], ..Interface::default() };
        let (instance, interfaces, groups) = (Some(Instance::default()), vec![interface], vec![group]);
        Look { instance, interfaces, groups, ways: Some(ways), ..Look::default() }
    }

    #[test]
    fn what_may_carry_open_flows_is_named_in_one_order() {
        let main = table(true, &[], &["tgw-main"]);
        let own = table(false, &["subnet-a"], &["tgw-1", "nat-1"]);
        for (routes, through) in [
            (vec![main.clone(), own.clone()], "eice-1, eice-2, nat-1, tgw-1"),
            (vec![own, main.clone()], "eice-1, eice-2, nat-1, tgw-1"),
            (vec![main], "eice-1, eice-2, tgw-main"),
        ] {
            let said = said(&look(Some(false), vpc(routes, &["eice-2", "eice-1"])));
            assert_eq!(said, [format!("open flows may go on through {through}"), DNS.to_owned()]);
        }
    }

    #[test]
    fn many_are_counted_and_none_are_not_spoken_of() {
        let many: Vec<String> = (1..=8).map(|n| format!("eice-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let said_of = |connect: &[&str]| said(&look(Some(false), vpc(vec![], connect)));
        assert_eq!(said_of(&many)[0].split(" through ").last(), Some("eice-1, eice-2, eice-3, eice-4, eice-5 and 3 more"));
        assert_eq!(said_of(&[]), [DNS]);
    }

    #[test]
    fn what_aws_does_not_say_is_not_taken_for_none() {
        assert_eq!(said(&look(Some(true), vpc(vec![], &[]))), ["the account's EC2 serial console is on", DNS]);
        let said = said(&look(None, VpcWays { endpoints: Some(vec![]), ..VpcWays::default() }));
        let reads = "ec2:DescribeInstanceConnectEndpoints, ec2:DescribeRouteTables, ec2:GetSerialConsoleAccessStatus";
        assert_eq!(said, [format!("what else reaches it is not known: AWS does not answer {reads}"), DNS.to_owned()]);
    }

    #[test]
    fn nothing_is_read_before_all_is_cut_or_when_the_instance_is_gone() {
        let mut look = look(None, VpcWays::default());
        assert!(is_worth_telling(&look, &Permit::default()));
        look.instance.as_mut().unwrap().state = "terminated".into();
        assert!(!is_worth_telling(&look, &Permit::default()));
        look.instance.as_mut().unwrap().state = "running".into();
        look.interfaces[0].groups.push("sg-web".into());
        assert!(!is_worth_telling(&look, &Permit::default()));
    }
}
