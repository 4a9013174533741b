//! What an isolated instance may still reach, and who may reach it.

use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// AWS takes 60 rules per direction and group.
const FLOWS: usize = 50;

/// The flows that isolation lets through, e.g. those of a forensic workstation. Nothing is added that is not written here: what
/// one direction allows may be answered, since security groups track flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowList {
    /// Who may reach the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub ingress: Vec<AllowedFlow>,
    /// What the instance may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub egress: Vec<AllowedFlow>,
}

impl AllowList {
    /// So many flows can be listed in one direction.
    pub const MAX: usize = FLOWS;
}

/// Flows between the instance and one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedFlow {
    /// The network on the other side, e.g. `10.0.0.5/32`: at least /8 (IPv6: /32) long, and without host bits.
    #[schemars(length(min = 1, max = 43))]
    pub cidr: String,
    /// The protocol.
    pub protocol: AllowedProtocol,
    /// The lowest port, of the side that is connected to. Of `tcp` and `udp` only, which need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub from_port: Option<i32>,
    /// The highest port. Absent: the lowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub to_port: Option<i32>,
}

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AllowedProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Every protocol, and every port.
    All,
}

/// What each flow of `isolateNetwork.allow` must satisfy.
fn each_flow(must: &str) -> Rule {
    let all = |list: &str| format!("(!has(self.allow.{list}) || self.allow.{list}.all(f, {must}))");
    Rule::new(format!("!has(self.allow) || ({} && {})", all("ingress"), all("egress")))
}

/// A network, as AWS would show it.
pub(crate) fn names_networks() -> Rule {
    each_flow("isCIDR(f.cidr) && cidr(f.cidr).masked() == cidr(f.cidr)")
}

/// An isolation that lets half of the internet through is none.
pub(crate) fn is_narrow() -> Rule {
    each_flow("!isCIDR(f.cidr) || cidr(f.cidr).prefixLength() >= (cidr(f.cidr).ip().family() == 4 ? 8 : 32)")
}

/// Rules to make, or groups that have them.
pub(crate) fn lists_or_groups() -> Rule {
    Rule::new("!has(self.allow) || !has(self.securityGroupIds) || size(self.securityGroupIds) == 0")
}

/// Ports of what has ports.
pub(crate) fn has_ports() -> Rule {
    let of_all = "!has(f.fromPort) && !has(f.toPort)";
    let of_others = "has(f.fromPort) && (!has(f.toPort) || f.fromPort <= f.toPort)";
    each_flow(&format!("f.protocol == 'all' ? {of_all} : {of_others}"))
}
