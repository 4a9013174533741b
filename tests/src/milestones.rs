//! When the attacker was cut off, from the log of what AWS was asked and when it had answered.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use aws_sdk_ec2::types::Filter;

use crate::emulator::Aws;
use crate::proxy::Call;

/// The moments that count: when AWS had answered the last call of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Milestones {
    /// Every interface was in the isolation group for the first time.
    pub cut: Option<Instant>,
    /// Every interface was back from the conversion of tracked flows.
    pub converted: Option<Instant>,
    /// Every access key was off and both denies were in place.
    pub locked_out: Option<Instant>,
    /// The snapshots were started.
    pub snapshots: Option<Instant>,
}

impl Milestones {
    /// Of one containment. Calls that failed count for nothing.
    pub fn of(calls: &[Call], isolation_group: &str) -> Self {
        let done: Vec<&Call> = calls.iter().filter(|c| c.succeeded()).collect();
        let mut cuts: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
        for (call, at) in done.iter().filter_map(|c| Some((c, c.finished?))) {
            if let Some((interface, true)) = swap(call).map(|(interface, group)| (interface, group == isolation_group)) {
                cuts.entry(interface).or_default().push(at);
            }
        }
        let last = |actions: &[&str]| {
            let such = done.iter().filter(|c| actions.contains(&c.action.as_str()));
            such.filter_map(|c| c.finished).max()
        };
        Self {
            cut: cuts.values().filter_map(|times| times.first().copied()).max(),
            converted: cuts.values().filter_map(|times| times.get(1).copied()).max(),
            locked_out: last(&["UpdateAccessKey", "PutUserPolicy", "AttachUserPolicy", "PutUserPermissionsBoundary"]),
            snapshots: last(&["CreateSnapshots"]),
        }
    }
}

/// The interface that a call moves, and the group that it goes to.
pub fn swap(call: &Call) -> Option<(&str, &str)> {
    let moves = call.action == "ModifyNetworkInterfaceAttribute";
    let parameter = |name: &str| call.params.get(name).map(String::as_str);
    moves.then(|| Some((parameter("NetworkInterfaceId")?, parameter("SecurityGroupId.1")?))).flatten()
}

/// Firebreak's isolation group of a VPC.
pub async fn isolation_group(aws: &Aws, vpc: &str) -> anyhow::Result<String> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let request = aws.ec2.describe_security_groups().filters(filter("group-name", "firebreak-isolation"));
    let answer = request.filters(filter("vpc-id", vpc)).send().await?;
    answer.security_groups().first().and_then(|g| g.group_id.clone()).context("an isolation group")
}
