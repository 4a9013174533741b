//! Allow-lists as sets of flows. Two of them meet in what both allow; in force is only ever less than before.

use std::collections::BTreeSet;

use firebreak_crds::{AllowList, AllowedFlow, AllowedProtocol, IsolateNetwork};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Isolation;
use crate::aws::{Group, GroupRole, Peer, Rule};
use crate::conditions::few;
use crate::containment::action::Action;
use crate::containment::case::Case;
use crate::containment::plan::{Plan, RECORDS};

/// Shorter prefixes are no isolation. The API server refuses them; so does this.
const SHORTEST: [u8; 2] = [8, 32];
/// More flows than this are counted.
const NAMED: usize = 3;

/// Between the instance and a network. All protocols have all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    network: IpNet,
    protocol: AllowedProtocol,
    from: u16,
    to: u16,
}

/// What an isolated interface may still do, in canonical form: sorted, and no flow within another. Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::containment) struct Allowed {
    ingress: Vec<Flow>,
    egress: Vec<Flow>,
    /// Somebody's groups, in which it may be instead: then there are no flows besides.
    pub(in crate::containment) groups: BTreeSet<String>,
}

/// As it is recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    #[serde(flatten)]
    list: AllowList,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    security_group_ids: BTreeSet<String>,
}

impl Flow {
    /// None where it is not one, or a wide one: what cannot be understood is not allowed.
    fn of(flow: &AllowedFlow) -> Option<Self> {
        let network = flow.cidr.parse::<IpNet>().ok()?.trunc();
        let port = |port: i32| u16::try_from(port).ok();
        let (from, to) = match flow.protocol {
            AllowedProtocol::All => (0, u16::MAX),
            AllowedProtocol::Tcp | AllowedProtocol::Udp => (port(flow.from_port?)?, port(flow.to_port.or(flow.from_port)?)?),
        };
        let [v4, v6] = SHORTEST;
        let narrow = network.prefix_len() >= if matches!(network, IpNet::V4(_)) { v4 } else { v6 };
        (narrow && from <= to).then_some(Self { network, protocol: flow.protocol, from, to })
    }

    /// What a rule lets through; None where a list could not say so.
    fn seen(rule: &Rule) -> Option<Self> {
        let (Peer::V4(cidr) | Peer::V6(cidr)) = &rule.peer else { return None };
        let protocol = match rule.protocol.as_str() {
            "-1" => AllowedProtocol::All,
            "tcp" => AllowedProtocol::Tcp,
            "udp" => AllowedProtocol::Udp,
            _ => return None,
        };
        Self::of(&AllowedFlow { cidr: cidr.clone(), protocol, from_port: rule.from, to_port: rule.to })
    }

    fn meet(&self, other: &Self) -> Option<Self> {
        let network = match (self.network.contains(&other.network), other.network.contains(&self.network)) {
            (true, _) => other.network,
            (_, true) => self.network,
            _ => return None,
        };
        let protocol = match (self.protocol, other.protocol) {
            (a, AllowedProtocol::All) => a,
            (AllowedProtocol::All, b) => b,
            (a, b) => (a == b).then_some(a)?,
        };
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from <= to).then_some(Self { network, protocol, from, to })
    }

    fn within(&self, other: &Self) -> bool {
        self.meet(other).as_ref() == Some(self)
    }

    fn written(&self) -> AllowedFlow {
        let port = |port: u16| (self.protocol != AllowedProtocol::All).then(|| i32::from(port));
        let (from_port, to_port) = (port(self.from), port(self.to));
        AllowedFlow { cidr: self.network.to_string(), protocol: self.protocol, from_port, to_port }
    }

    /// As AWS has it.
    fn rule(&self) -> Rule {
        let AllowedFlow { cidr, from_port: from, to_port: to, .. } = self.written();
        let protocol = match self.protocol {
            AllowedProtocol::Tcp => "tcp",
            AllowedProtocol::Udp => "udp",
            AllowedProtocol::All => "-1",
        };
        let peer = if matches!(self.network, IpNet::V4(_)) { Peer::V4(cidr) } else { Peer::V6(cidr) };
        Rule { protocol: protocol.into(), from, to, peer }
    }
}

/// Sorted, each once, and none within another. A list that AWS would not take whole allows nothing.
fn canonical(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort();
    flows.dedup();
    let largest: Vec<Flow> =
        flows.iter().filter(|flow| !flows.iter().any(|o| o != *flow && flow.within(o))).copied().collect();
    if largest.len() > AllowList::MAX { Vec::new() } else { largest }
}

fn meet(a: &[Flow], b: &[Flow]) -> Vec<Flow> {
    canonical(a.iter().flat_map(|a| b.iter().filter_map(|b| a.meet(b))).collect())
}

impl Allowed {
    /// What a list allows; no list allows nothing.
    pub(in crate::containment) fn by(list: Option<&AllowList>) -> Self {
        let flows = |flows: &[AllowedFlow]| canonical(flows.iter().filter_map(Flow::of).collect());
        let of = |l: &AllowList| Self { ingress: flows(&l.ingress), egress: flows(&l.egress), ..Self::default() };
        list.map(of).unwrap_or_default()
    }

    /// What a policy asks for. A list and groups at once, which the API server refuses, allow nothing.
    pub(in crate::containment) fn of(params: &IsolateNetwork) -> Self {
        let groups: BTreeSet<String> = params.security_group_ids.iter().cloned().collect();
        match &params.allow {
            Some(_) if !groups.is_empty() => Self::default(),
            list => Self { groups, ..Self::by(list.as_ref()) },
        }
    }

    /// What somebody's group lets through; None where it is more than a list may, or cannot be said by one: other groups and prefix
    /// lists change without it.
    pub(super) fn seen(group: &Group) -> Option<Self> {
        let flows = |rules: &[Rule]| {
            let flows: Vec<Flow> = rules.iter().map(Flow::seen).collect::<Option<_>>()?;
            (flows.len() <= AllowList::MAX).then(|| canonical(flows))
        };
        Some(Self { ingress: flows(&group.ingress)?, egress: flows(&group.egress)?, ..Self::default() })
    }

    /// What a record says.
    pub(in crate::containment) fn recorded(text: &str) -> Option<Self> {
        serde_json::from_str::<Recorded>(text).ok().map(Self::from)
    }

    /// Whether the other lets through all of it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.meet(other) == *self
    }

    /// What both allow.
    pub(in crate::containment) fn meet(&self, other: &Self) -> Self {
        Self {
            ingress: meet(&self.ingress, &other.ingress),
            egress: meet(&self.egress, &other.egress),
            groups: self.groups.intersection(&other.groups).cloned().collect(),
        }
    }

    pub(in crate::containment) fn is_empty(&self) -> bool {
        !self.has_flows() && self.groups.is_empty()
    }

    fn has_flows(&self) -> bool {
        !self.ingress.is_empty() || !self.egress.is_empty()
    }

    /// The list that allows these flows; None where none are allowed.
    pub(in crate::containment) fn list(&self) -> Option<AllowList> {
        let written = |flows: &[Flow]| flows.iter().map(Flow::written).collect();
        self.has_flows().then(|| AllowList { ingress: written(&self.ingress), egress: written(&self.egress) })
    }

    fn written(&self) -> Recorded {
        Recorded { list: self.list().unwrap_or_default(), security_group_ids: self.groups.clone() }
    }

    /// The rules of its group: what may come in, and what may go out.
    pub(in crate::containment) fn rules(&self) -> [Vec<Rule>; 2] {
        [&self.ingress, &self.egress].map(|flows| flows.iter().map(Flow::rule).collect())
    }

    /// The group of ours that an isolated interface is in.
    pub(in crate::containment) fn role(&self) -> GroupRole {
        if self.has_flows() { GroupRole::Allowing(self.digest()) } else { GroupRole::Isolation }
    }

    fn digest(&self) -> u32 {
        let [ingress, egress] = self.rules().map(|rules| rules.iter().map(ToString::to_string).collect::<Vec<_>>());
        let groups = self.groups.iter().map(|id| format!("\n{id}")).collect::<Vec<_>>().concat();
        let hash = Sha256::digest(format!("in {}\nout {}{groups}", ingress.join(", "), egress.join(", ")));
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
    }

    /// In a few words; the first rules of each direction.
    pub(super) fn said(&self) -> String {
        let [ingress, egress] = self.rules();
        let directions = [said_of("in", &ingress), said_of("out", &egress)];
        directions.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

fn said_of(direction: &str, rules: &[Rule]) -> Option<String> {
    (!rules.is_empty()).then(|| format!("{direction} {}", few(rules.iter().map(ToString::to_string), NAMED)))
}

/// Whether two rules are one. AWS and people write the same IPv6 network in several ways.
pub(super) fn same(a: &Rule, b: &Rule) -> bool {
    let network = |peer: &Peer| match peer {
        Peer::V4(text) | Peer::V6(text) => text.parse::<IpNet>().ok().map(|n| n.trunc()),
        Peer::PrefixList(_) | Peer::Group(..) => None,
    };
    let one_network = || network(&a.peer).is_some_and(|n| network(&b.peer) == Some(n));
    (&a.protocol, a.from, a.to) == (&b.protocol, b.from, b.to) && (a.peer == b.peer || one_network())
}

/// What is allowed now: what the holders' lists have in common, and never more than was in force before, whoever let go
/// since. So what a list allowed is recorded; interfaces that were isolated without one stay so.
pub(in crate::containment) fn in_force(case: &Case, params: &IsolateNetwork) -> Allowed {
    let asked = Allowed::of(params);
    match recorded(case) {
        None if case.has_record_of(Isolation::NAME) => Allowed::default(),
        None => asked,
        Some(before) => {
            let now = asked.meet(&before);
            if now != before && case.original.len() >= RECORDS { Allowed::default() } else { now }
        }
    }
}

/// Has what is in force recorded where it is new.
pub(super) fn remember(plan: &mut Plan, case: &Case, allowed: &Allowed) {
    let before = recorded(case);
    let new = before.as_ref().map_or(!allowed.is_empty(), |before| before != allowed);
    let key = format!("{}/{ALLOWED}{:08x}", Isolation::NAME, allowed.digest());
    if new && !case.original.contains_key(&key) && case.original.len() < RECORDS {
        plan.record(key, &allowed.written());
    }
}

/// What all lists on record have in common; None where there is none. One that cannot be read allows nothing, and what a person
/// gave is none.
fn recorded(case: &Case) -> Option<Allowed> {
    let on_record = |sub: &&str| sub.starts_with(ALLOWED) && case.stored.contains(&super::key(sub));
    let keys = case.records_of(Isolation::NAME).filter(on_record);
    let lists = keys.filter_map(|sub| case.original.get(&super::key(sub)));
    lists.map(|text| Allowed::recorded(text).unwrap_or_default()).reduce(|a, b| a.meet(&b))
}

/// Somebody's groups that were ever allowed, by their record: Firebreak put interfaces there.
pub(in crate::containment) fn groups_on_record<'a>(record: impl Iterator<Item = (&'a String, String)>) -> BTreeSet<String> {
    let of_lists = record.filter(|(key, _)| key.starts_with(&super::key(ALLOWED)));
    of_lists.filter_map(|(_, text)| Allowed::recorded(&text)).flat_map(|allowed| allowed.groups).collect()
}

impl From<Recorded> for Allowed {
    fn from(recorded: Recorded) -> Self {
        Self { groups: recorded.security_group_ids, ..Self::by(Some(&recorded.list)) }
    }
}

/// Records of what was allowed go by this and the list's digest.
const ALLOWED: &str = "allowed-";

#[cfg(test)]
#[path = "allow_tests.rs"]
mod tests;
