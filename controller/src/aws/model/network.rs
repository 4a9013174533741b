//! The network as it is read of AWS: interfaces, their addresses, security groups, and the ways that no group stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Interface {
    /// `eni-...`.
    pub id: String,
    /// The VPC that it is in.
    pub vpc: String,
    /// Its private addresses, IPv4 and IPv6.
    pub private_addresses: Vec<String>,
    /// The subnet that it is in.
    pub subnet: String,
    /// Its security groups, in AWS's order.
    pub groups: Vec<String>,
    /// Whether it has a public IPv4 or any IPv6 address.
    pub public: bool,
    /// Whether another AWS service owns it, so that its groups cannot be changed.
    pub managed: bool,
    /// Whether it carries branch interfaces, which are attached to it and not to the instance.
    pub trunk: bool,
    /// The instance it is attached to.
    pub instance: Option<String>,
    /// Its primary private address.
    pub private: String,
    /// Its public IPv4 addresses.
    pub addresses: Vec<PublicAddress>,
    /// How many IPv6 addresses it has.
    pub ipv6: usize,
    /// Whether it passes on what is not its own: its `SourceDestCheck` is off.
    pub forwards: bool,
    /// How long AWS keeps flows that are idle.
    pub idle: IdleTimeouts,
}

/// After how many idle seconds AWS forgets a tracked flow. Where an interface shows none it has AWS's own: the default.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html#connection-tracking-timeouts>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdleTimeouts {
    /// `TcpEstablishedTimeout`.
    pub tcp_established: i32,
    /// `UdpStreamTimeout`.
    pub udp_stream: i32,
}

impl IdleTimeouts {
    /// The shortest that AWS takes.
    pub const SHORTEST: Self = Self { tcp_established: 60, udp_stream: 60 };
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self { tcp_established: 432_000, udp_stream: 180 }
    }
}

impl std::fmt::Display for IdleTimeouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TCP {} s, UDP streams {} s", self.tcp_established, self.udp_stream)
    }
}

/// A public IPv4 address of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicAddress {
    /// The address.
    pub public: String,
    /// The private address that it stands for.
    pub private: String,
    /// `eipalloc-...`; None where AWS assigned it.
    pub allocation: Option<String>,
    /// `eipassoc-...`; None where AWS assigned it.
    pub association: Option<String>,
}

/// An Elastic IP, wherever it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElasticAddress {
    /// `eipalloc-...`.
    pub allocation: String,
    /// `eipassoc-...`; None where it is free.
    pub association: Option<String>,
    /// The interface that has it.
    pub interface: Option<String>,
    /// The private address that it stands for.
    pub private: Option<String>,
}

impl ElasticAddress {
    /// Whether it stands for that private address of that interface.
    #[must_use]
    pub fn is_on(&self, interface: &str, private: &str) -> bool {
        (self.interface.as_deref(), self.private.as_deref()) == (Some(interface), Some(private))
    }
}

/// One rule of a security group: one permission with one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Protocol, `-1` for all.
    pub protocol: String,
    /// The lower port.
    pub from: Option<i32>,
    /// The upper port.
    pub to: Option<i32>,
    /// The peer.
    pub peer: Peer,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.protocol == "-1" { "all" } else { &self.protocol };
        match (self.from, self.to) {
            (Some(from), Some(to)) if from == to => write!(f, "{protocol} {from} ")?,
            (Some(from), Some(to)) => write!(f, "{protocol} {from}-{to} ")?,
            _ => write!(f, "{protocol} ")?,
        }
        match &self.peer {
            Peer::V4(peer) | Peer::V6(peer) | Peer::PrefixList(peer) | Peer::Group(peer, _) => f.write_str(peer),
        }
    }
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An IPv4 range.
    V4(String),
    /// An IPv6 range.
    V6(String),
    /// A prefix list.
    PrefixList(String),
    /// Another security group, with its owner.
    Group(String, Option<String>),
}

/// A security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `sg-...`.
    pub id: String,
    /// The VPC.
    pub vpc: String,
    /// The name.
    pub name: String,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
    /// Whether these rules were read from AWS, and not merely expected.
    pub read: bool,
    /// Of one of ours: when this process last took rules out of it.
    pub emptied: Option<Timestamp>,
}

impl Rule {
    /// All traffic, IPv4 and IPv6.
    #[must_use]
    pub fn all() -> [Self; 2] {
        let all = |peer| Self { protocol: "-1".into(), from: None, to: None, peer };
        [all(Peer::V4("0.0.0.0/0".into())), all(Peer::V6("::/0".into()))]
    }
}

/// A route table, as far as ways out, instances and interfaces go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// The VPC.
    pub vpc: String,
    /// Whether it is the VPC's main table: that of subnets without one of their own.
    pub main: bool,
    /// The subnets that name it.
    pub subnets: Vec<String>,
    /// Whether any route goes to an internet gateway.
    pub internet: bool,
    /// What its routes go through where AWS tracks every flow: `nat-...`, `tgw-...`, `eigw-...`, and `vpce-...` of a Gateway Load
    /// Balancer or a Network Firewall.
    pub tracked: BTreeSet<String>,
    /// The interfaces, and the instances, that routes go to.
    pub through: Vec<String>,
}

/// What no security group stops, as far as it can be seen. It may be some minutes old: it is told, and what was not converted for want of a
/// way in is decided anew by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Whether the account may use the serial console in this region; None where AWS did not say.
    pub serial_console: Option<bool>,
    /// By VPC.
    pub vpcs: BTreeMap<String, VpcWays>,
}

/// The ways of one VPC; None where AWS did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VpcWays {
    /// Its route tables.
    pub routes: Option<Arc<Vec<RouteTable>>>,
    /// Its interface endpoints (PrivateLink): `vpce-...`.
    pub endpoints: Option<Vec<String>>,
    /// Its Instance Connect endpoints: `eice-...`.
    pub connect: Option<Vec<String>>,
}
