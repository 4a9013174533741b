//! `isolateNetwork`: interfaces in any groups, several VPCs, rules in our groups, managed interfaces, windows in any state, and
//! allow-lists that come and go.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{
    ActionState, AllowList, AllowedFlow, AllowedProtocol, Conversion, ConversionState, IsolateNetwork, OnConflict,
    ResourceKind, SeverTrackedConnections, Text,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use serde_json::json;

use super::{Event, SINCE, Simulated, Simulation, at, calm, config, decisions, resource, script};
use crate::aws::{Call, Change, Group, GroupRole, IdleTimeouts, Instance, Interface, Peer, RouteTable, Rule};
use crate::containment::isolate_network::{Allowed, Isolation, Look, groups_on_record, in_force};
use crate::containment::{action::Action, case::Case, plan::Plan, plan::Verdict};

const VPCS: [&str; 2] = ["vpc-a", "vpc-b"];
const INTERFACES: [&str; 5] = ["eni-0", "eni-1", "eni-2", "eni-3", "eni-4"];
/// Groups of others.
const THEIRS: [&str; 4] = ["sg-web", "sg-db", "sg-open", "sg-attacker"];
const OURS: [GroupRole; 2] = [GroupRole::Isolation, GroupRole::Conversion];
/// The policy's own group, in the first VPC.
const CUSTOM: &str = "sg-0123456789abcdef0";
/// By its name the group of a list, though nobody asks for that one.
const STRANGE: GroupRole = GroupRole::Allowing(0xdead_beef);

#[derive(Clone, Debug)]
pub enum NetworkAttack {
    /// Puts an interface into groups of others, of ours, or both.
    Move(usize, BTreeSet<usize>),
    /// Attaches a new interface.
    Attach(usize, BTreeSet<usize>),
    Delete(usize),
    /// Adds a rule to the groups of ours of one kind.
    Open(Kind, bool),
    /// Deletes a group of others, where no interface is in it.
    DeleteGroup(usize),
    /// Takes all rules away from the groups of ours of one kind.
    Close(Kind),
    /// Gives the policy's own group these rules.
    Custom(Vec<usize>),
    /// How long an interface's idle flows are kept.
    Idle(usize, i32),
}

/// Rules that a group of the policy's own may have, and others.
fn custom_rules(numbers: &[usize]) -> Vec<Rule> {
    let rule = |peer, port| Rule { protocol: "tcp".into(), from: Some(port), to: Some(port), peer };
    let all = [
        rule(Peer::V4("10.1.2.3/32".into()), 22),
        rule(Peer::V4("10.1.0.0/16".into()), 22),
        rule(Peer::V6("2001:db8::/48".into()), 443),
        rule(Peer::V4("0.0.0.0/0".into()), 22),
        rule(Peer::Group("sg-db".into(), None), 22),
        rule(Peer::PrefixList("pl-1".into()), 22),
    ];
    numbers.iter().map(|n| all[*n].clone()).collect()
}

fn custom_group(numbers: &[usize]) -> Group {
    let (id, vpc, name) = (CUSTOM.into(), VPCS[0].into(), "forensics".into());
    Group { id, vpc, name, ingress: custom_rules(numbers), read: true, ..Group::default() }
}

/// Whether the policy's own group may be used: it names narrow networks alone, and what was recorded holds all that it lets through.
/// `record`: with what is about to be.
fn custom_is_right(group: &Group, record: &BTreeMap<String, String>) -> bool {
    let narrow = |r: &Rule| custom_rules(&[0, 1, 2]).contains(r);
    let before = record.get(&format!("isolateNetwork/rules-{CUSTOM}"));
    let before: Option<AllowList> = before.map(|text| serde_json::from_str(text).unwrap());
    let covers = |list: &AllowList, r: &Rule| {
        let (Peer::V4(cidr) | Peer::V6(cidr)) = &r.peer else { return false };
        list.ingress.iter().any(|f| f.cidr == *cidr || (f.cidr == "10.1.0.0/16" && cidr == "10.1.2.3/32"))
    };
    group.ingress.iter().all(|r| narrow(r) && before.as_ref().is_none_or(|list| covers(list, r)))
}

fn texts(case: &Case, plan: &Plan) -> BTreeMap<String, String> {
    let planned = plan.record.iter().map(|(key, value)| (key.clone(), value.to_string()));
    case.original.clone().into_iter().chain(planned).collect()
}

/// Groups of ours: one role, or those of all lists.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Of(GroupRole),
    Lists,
}

impl Kind {
    fn has(self, group: &Group) -> bool {
        match (self, GroupRole::named(&group.name)) {
            (Self::Of(role), named) => named == Some(role),
            (Self::Lists, named) => matches!(named, Some(GroupRole::Allowing(_))),
        }
    }
}

pub fn our_group(role: GroupRole, vpc: &str) -> String {
    format!("sg-{}-{vpc}", role.group_name())
}

/// The groups of those numbers that the VPC has: others' first, then ours, then those of lists.
fn groups(aws: &Look, vpc: &str, numbers: &BTreeSet<usize>) -> Vec<String> {
    let theirs = THEIRS.iter().map(|g| (*g).to_owned());
    let lists = aws.groups.iter().filter(|g| g.vpc == vpc && Kind::Lists.has(g)).map(|g| g.id.clone());
    let ours = OURS.iter().map(|role| our_group(*role, vpc));
    let custom = if vpc == VPCS[0] { CUSTOM } else { THEIRS[1] };
    let all: Vec<String> = theirs.chain(ours).chain([custom.to_owned()]).chain(lists).collect();
    let theirs = |id: &String| [&THEIRS[..], &[CUSTOM]].concat().contains(&id.as_str()) && !aws.lost.contains(id);
    let exists = |id: &String| theirs(id) || aws.groups.iter().any(|g| g.id == *id);
    let picked: Vec<String> = numbers.iter().filter_map(|n| all.get(*n).cloned()).filter(exists).collect();
    if picked.is_empty() { vec![THEIRS[0].into()] } else { picked }
}

fn attach(aws: &mut Look, id: &str, vpc: &str, numbers: &BTreeSet<usize>) {
    let groups = groups(aws, vpc, numbers);
    let subnet = format!("subnet-{id}");
    let interface = Interface { id: id.into(), vpc: vpc.into(), subnet, groups, ..Interface::default() };
    aws.interfaces.push(interface);
    aws.instance.iter_mut().for_each(|i| i.interfaces.push(id.into()));
}

fn is_our_group(look: &Look, group: &str) -> bool {
    look.custom.contains_key(group) || look.groups.iter().any(|g| g.id == group)
}

fn touched(look: &Look, interface: &Interface) -> bool {
    interface.groups.iter().any(|g| is_our_group(look, g))
}

/// Whether the interface is where only Firebreak puts one.
fn is_left_isolated(look: &Look, interface: &Interface) -> bool {
    !interface.managed && interface.groups.iter().all(|g| is_our_group(look, g))
}

fn in_role(interface: &Interface, role: GroupRole) -> bool {
    interface.groups == [our_group(role, &interface.vpc)]
}

fn original_groups(case: &Case, interface: &str) -> Option<BTreeSet<String>> {
    let text = case.original.get(&format!("isolateNetwork/{interface}"))?;
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(value["groups"].clone()).ok()
}

fn idle_record(interface: &str) -> String {
    format!("isolateNetwork/tracking-{interface}")
}

fn original_idle(case: &Case, interface: &str) -> Option<IdleTimeouts> {
    case.recorded(&idle_record(interface))
}

fn set(groups: &[String]) -> BTreeSet<String> {
    groups.iter().cloned().collect()
}

impl Simulated for Isolation {
    type Attack = NetworkAttack;

    fn read(aws: &Look, case: &Case, params: Option<&IsolateNetwork>) -> Look {
        let mut look = aws.clone();
        Isolation::trust(&mut look);
        look.lost.retain(|_| params.is_none());
        look.converted.clear();
        let auto = params.is_some_and(|p| p.sever_tracked_connections == SeverTrackedConnections::Auto);
        let undecided = look.interfaces.iter().filter(|i| !i.managed).any(|i| {
            // as `undecided` has it
            let due = matches!(case.conversion(&i.id), Some(ConversionState::Due | ConversionState::Open));
            let known = original_groups(case, &i.id).is_some() || touched(&look, i);
            due || (known && case.conversion(&i.id).is_none())
        });
        look.routes = aws.routes.clone().filter(|_| auto && undecided);
        let mut custom = groups_on_record(case.original.iter().map(|(key, text)| (key, text.clone())));
        custom.extend(params.iter().flat_map(|p| p.security_group_ids.iter().cloned()));
        look.custom.retain(|id, _| custom.contains(id));
        look
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        match call {
            Call::CreateSecurityGroup { vpc, role } => !is_our_group(aws, &our_group(*role, vpc)),
            Call::ModifyNetworkInterfaceAttribute { interface, groups, .. } => {
                let exist = groups.iter().all(|id| !aws.lost.contains(id));
                exist && aws.interfaces.iter().any(|i| i.id == *interface && !i.managed)
            }
            Call::SetIdleTimeouts { interface, .. } => aws.interfaces.iter().any(|i| i.id == *interface && !i.managed),
            _ => true,
        }
    }

    fn attack(aws: &mut Look, attack: &NetworkAttack, _: Timestamp) {
        match attack {
            NetworkAttack::Move(n, numbers) => {
                let Some(place) = aws.interfaces.iter().position(|i| i.id == INTERFACES[*n] && !i.managed) else { return };
                let vpc = aws.interfaces[place].vpc.clone();
                aws.interfaces[place].groups = groups(aws, &vpc, numbers);
            }
            NetworkAttack::Attach(n, numbers) => {
                if !aws.interfaces.iter().any(|i| i.id == INTERFACES[*n]) {
                    attach(aws, INTERFACES[*n], VPCS[n % 2], numbers);
                }
            }
            NetworkAttack::Delete(n) => {
                aws.interfaces.retain(|i| i.id != INTERFACES[*n] || i.managed);
                let left: Vec<String> = aws.interfaces.iter().map(|i| i.id.clone()).collect();
                aws.instance.iter_mut().for_each(|i| i.interfaces.retain(|id| left.contains(id)));
            }
            NetworkAttack::DeleteGroup(n) => {
                let group = THEIRS[*n].to_owned();
                if !aws.interfaces.iter().any(|i| i.groups.contains(&group)) {
                    aws.lost.insert(group);
                }
            }
            NetworkAttack::Open(kind, ingress) => {
                for group in aws.groups.iter_mut().filter(|g| kind.has(g)) {
                    let within = |id: &String| aws.interfaces.iter().any(|i| i.id == *id && i.groups.contains(&group.id));
                    aws.converted.retain(|id| !within(id));
                    let any_tcp = Rule { protocol: "tcp".into(), ..Rule::all()[0].clone() };
                    if *ingress { group.ingress.push(any_tcp) } else { group.egress.push(any_tcp) }
                }
            }
            NetworkAttack::Close(kind) => {
                for group in aws.groups.iter_mut().filter(|g| kind.has(g)) {
                    (group.ingress, group.egress) = Default::default();
                }
            }
            NetworkAttack::Custom(rules) => {
                aws.custom.insert(CUSTOM.into(), Some(custom_group(rules)));
            }
            NetworkAttack::Idle(n, seconds) => {
                let idle = IdleTimeouts { tcp_established: *seconds, ..IdleTimeouts::SHORTEST };
                aws.interfaces.iter_mut().filter(|i| i.id == INTERFACES[*n] && !i.managed).for_each(|i| i.idle = idle);
            }
        }
    }

    fn remember(aws: &mut Look, call: &Call, now: Timestamp) {
        let emptied = call.empties();
        aws.groups.iter_mut().filter(|g| Some(&g.id) == emptied).for_each(|g| g.emptied = Some(now));
    }

    fn by_hand(aws: &mut Look) {
        let isolated: Vec<usize> =
            (0..aws.interfaces.len()).filter(|n| is_left_isolated(aws, &aws.interfaces[*n])).collect();
        isolated.into_iter().for_each(|n| aws.interfaces[n].groups = vec![THEIRS[0].into()]);
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for (key, value) in &plan.record {
            let text = value.to_string();
            assert!(
                !look.groups.iter().any(|g| text.contains(&g.id))
                    && (!look.custom.contains_key(CUSTOM) || !text.contains(CUSTOM) || key.contains("/allowed-")),
                "{key}: our own groups are nobody's original: {text}"
            );
            let idle_of = key.strip_prefix("isolateNetwork/tracking-");
            assert!(
                idle_of.is_none_or(|id| original_groups(case, id).is_some()),
                "{key}: it was isolated before this record"
            );
        }
        let allowed = on_record(case, plan);
        if plan.verdict.state == ActionState::InForce && look.instance.is_some() {
            let right = |i: &Interface| lets_no_more(case, look, i, &allowed);
            look.interfaces.iter().for_each(|i| assert!(right(i), "{i:?}: {}", plan.verdict.message));
        }
        let role_of = |id: &str| look.groups.iter().find(|g| g.id == *id).and_then(|g| GroupRole::named(&g.name)).unwrap();
        for window in &plan.windows {
            let after = Case { conversions: conversions(case, plan), ..case.clone() };
            assert_eq!(after.conversion(&window.interface), Some(ConversionState::Open), "on record before");
            assert!(window.open.opens() && window.close.closes() && !window.lasts.is_zero());
        }
        let windows = plan.windows.iter().flat_map(|window| [&window.open, &window.close]);
        for call in plan.calls.iter().chain(windows) {
            match call {
                Call::CreateSecurityGroup { role, .. } => {
                    assert!(OURS.contains(role) || *role == allowed.role(), "{call}");
                }
                Call::RevokeSecurityGroupIngress { group, .. } | Call::RevokeSecurityGroupEgress { group, .. } => {
                    assert!([GroupRole::Isolation, allowed.role()].contains(&role_of(group)), "{call}");
                }
                Call::AuthorizeSecurityGroupIngress { group, rules } => check_rules(role_of(group), rules, &allowed, 0),
                Call::AuthorizeSecurityGroupEgress { group, rules } => check_rules(role_of(group), rules, &allowed, 1),
                Call::ModifyNetworkInterfaceAttribute { interface, groups, change } => {
                    let now = look.interfaces.iter().find(|i| i.id == *interface).unwrap();
                    check_swap(case, look, plan, now, groups, *change);
                }
                Call::SetIdleTimeouts { interface, timeouts, restore: false } => {
                    assert_eq!(*timeouts, IdleTimeouts::SHORTEST);
                    let recorded = texts(case, plan).contains_key(&idle_record(interface));
                    assert!(recorded || original_groups(case, interface).is_none(), "{call}: record before touch");
                }
                other => panic!("not a call of this action: {other}"),
            }
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let (interface, groups) = match call {
                Call::ModifyNetworkInterfaceAttribute { interface, groups, change: Change::Restore } => (interface, groups),
                Call::SetIdleTimeouts { interface, timeouts, restore: true } => {
                    assert_eq!(Some(*timeouts), original_idle(case, interface), "{call}");
                    continue;
                }
                Call::ModifyNetworkInterfaceAttribute { interface, groups, change: Change::Close } => {
                    let now = look.interfaces.iter().find(|i| i.id == *interface).unwrap();
                    assert!(in_role(now, GroupRole::Conversion), "{call}");
                    assert_eq!(*groups, [our_group(GroupRole::Isolation, &now.vpc)], "{call}");
                    continue;
                }
                _ => panic!("a release only restores, and closes: {call}"),
            };
            let original = original_groups(case, interface).unwrap();
            let overruled = case.decision == Some(OnConflict::RestoreOriginal);
            let left: BTreeSet<String> = original.difference(&look.lost).cloned().collect();
            assert_eq!(set(groups), left, "{call}");
            assert!(left == original || overruled, "{call}: a person decides over what is gone");
            let now = look.interfaces.iter().find(|i| i.id == *interface).unwrap();
            let is_ours = now.groups.iter().all(|g| is_our_group(look, g));
            assert!(is_ours || case.decision == Some(OnConflict::RestoreOriginal), "{call}: somebody else's change");
        }
    }

    fn contained(case: &Case, params: &IsolateNetwork, aws: &Look, verdict: &Verdict) {
        let own: Vec<&Interface> = aws.interfaces.iter().filter(|i| !i.managed).collect();
        let dead_end = aws.instance.is_none() || aws.interfaces.is_empty() || aws.interfaces.len() > own.len();
        let expected = if dead_end { ActionState::Failed } else { ActionState::InForce };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(!verdict.message.is_empty(), "a dead end says why");
        if aws.instance.is_none() {
            return;
        }
        let allowed = in_force(case, params);
        let custom = aws.custom[CUSTOM].as_ref().unwrap();
        for interface in &own {
            let admits =
                allowed.groups.contains(CUSTOM) && interface.vpc == VPCS[0] && custom_is_right(custom, &case.original);
            assert!(if admits { interface.groups == [CUSTOM] } else { in_role(interface, allowed.role()) }, "{interface:?}");
            if params.shorten_connection_tracking && aws.nitro == Some(true) {
                assert_eq!(interface.idle, IdleTimeouts::SHORTEST, "{interface:?}");
            }
            assert_ne!(case.conversion(&interface.id), Some(ConversionState::Open));
            if params.sever_tracked_connections == SeverTrackedConnections::Always {
                assert_eq!(case.conversion(&interface.id), Some(ConversionState::Closed), "{interface:?}");
            }
        }
        for vpc in own.iter().map(|i| &i.vpc) {
            let group = aws.groups.iter().find(|g| g.id == our_group(GroupRole::Isolation, vpc)).unwrap();
            assert!(has_exactly(group, &Allowed::default()), "{group:?}");
            let group = aws.groups.iter().find(|g| g.id == our_group(allowed.role(), vpc)).unwrap();
            assert!(has_exactly(group, &allowed), "{group:?}");
        }
        let unknown = own.iter().any(|i| original_groups(case, &i.id).is_none());
        assert_eq!(verdict.unknown, unknown);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        let (aws, mut conflict) = (&Isolation::read(aws, case, None), false);
        for interface in aws.interfaces.iter().filter(|i| !i.managed) {
            let Some(original) = original_idle(case, &interface.id) else { continue };
            let was = before.interfaces.iter().find(|i| i.id == interface.id).map(|i| i.idle);
            assert!(interface.idle == original || was == Some(interface.idle), "neither what was, nor the original");
            conflict |= interface.idle != original;
        }
        for interface in aws.interfaces.iter().filter(|i| !i.managed) {
            let (now, original) = (set(&interface.groups), original_groups(case, &interface.id));
            let was = before.interfaces.iter().find(|i| i.id == interface.id).map(|i| set(&i.groups));
            let left = original.as_ref().map(|o| o.difference(&aws.lost).cloned().collect::<BTreeSet<_>>());
            let closed = in_role(interface, GroupRole::Isolation)
                && was == Some(BTreeSet::from([our_group(GroupRole::Conversion, &interface.vpc)]));
            let stays = was == Some(now.clone()) || closed;
            assert!(left.as_ref() == Some(&now) || stays, "neither what was, nor the original: {now:?}");
            let can_close = aws.groups.iter().any(|g| g.id == our_group(GroupRole::Isolation, &interface.vpc));
            assert!(!(can_close && in_role(interface, GroupRole::Conversion)), "it stands open: {}", verdict.message);
            conflict |= original.is_some_and(|o| o != now);
            let noted = case.is_unknown("isolateNetwork");
            conflict |= original_groups(case, &interface.id).is_none() && (noted || touched(aws, interface));
        }
        let mut recorded = INTERFACES.iter().filter(|id| original_groups(case, id).is_some());
        conflict |= aws.instance.is_none() && recorded.any(|id| !aws.interfaces.iter().any(|i| i.id == *id));
        if verdict.state == ActionState::Released {
            let left = aws.interfaces.iter().find(|i| is_left_isolated(aws, i));
            assert_eq!(left, None, "no decision leaves our isolation behind: {}", verdict.message);
        }
        if case.decision.is_none() {
            let expected = if conflict { ActionState::Conflict } else { ActionState::Released };
            assert_eq!(verdict.state, expected, "{}", verdict.message);
        }
        if case.decision == Some(OnConflict::RestoreOriginal) {
            let known = aws.interfaces.iter().filter_map(|i| Some((set(&i.groups), original_groups(case, &i.id)?)));
            for (now, original) in known {
                let left: BTreeSet<String> = original.difference(&aws.lost).cloned().collect();
                let none = left.is_empty() && verdict.state == ActionState::Conflict;
                assert!(now == left || none, "{now:?} {original:?}: {}", verdict.message);
            }
            let idle = aws.interfaces.iter().filter_map(|i| Some((i.idle, original_idle(case, &i.id)?)));
            idle.for_each(|(now, original)| assert_eq!(now, original));
        }
    }
}

/// What the lists on record have in common, with what the plan records.
fn on_record(case: &Case, plan: &Plan) -> Allowed {
    let all = texts(case, plan);
    let lists = all.iter().filter(|(key, _)| key.starts_with("isolateNetwork/allowed-"));
    let lists = lists.map(|(_, text)| Allowed::recorded(text).unwrap());
    lists.reduce(|a, b| a.meet(&b)).unwrap_or_default()
}

/// The windows with what the plan has recorded.
fn conversions(case: &Case, plan: &Plan) -> Vec<Conversion> {
    let since = Time(at(SINCE));
    let planned = plan.conversions.iter();
    let planned = planned.map(|(id, state)| Conversion { interface_id: id.clone(), state: *state, since: since.clone() });
    planned.chain(case.conversions.clone()).collect()
}

/// Whether the interface is in one group of ours, which lets through what is allowed at most.
fn lets_no_more(case: &Case, look: &Look, interface: &Interface, allowed: &Allowed) -> bool {
    if interface.groups == [CUSTOM] {
        let right =
            look.custom[CUSTOM].as_ref().is_some_and(|g| custom_is_right(g, &case.original) && g.vpc == interface.vpc);
        return right && allowed.groups.contains(CUSTOM);
    }
    let Some(group) = look.groups.iter().find(|g| interface.groups == [g.id.clone()]) else { return false };
    let none = GroupRole::named(&group.name) == Some(GroupRole::Isolation);
    let [ingress, egress] = if none { Default::default() } else { allowed.rules() };
    let within = |rules: &[Rule], others: &[Rule]| rules.iter().all(|rule| others.contains(rule));
    within(&group.ingress, &ingress) && within(&group.egress, &egress)
}

fn check_rules(role: GroupRole, rules: &[Rule], allowed: &Allowed, direction: usize) {
    let right = if role == GroupRole::Conversion { Rule::all().to_vec() } else { allowed.rules()[direction].clone() };
    assert!(role == GroupRole::Conversion || role == allowed.role(), "{role:?}");
    assert!(rules.iter().all(|rule| right.contains(rule)), "{rules:?}");
}

fn has_exactly(group: &Group, allowed: &Allowed) -> bool {
    let one = |rules: &[Rule], others: &[Rule]| {
        rules.len() == others.len() && rules.iter().all(|rule| others.contains(rule)) // none is there twice
    };
    let [ingress, egress] = allowed.rules();
    one(&group.ingress, &ingress) && one(&group.egress, &egress)
}

fn check_swap(case: &Case, look: &Look, plan: &Plan, now: &Interface, groups: &[String], change: Change) {
    let key = format!("isolateNetwork/{}", now.id);
    let allowed = on_record(case, plan);
    let recorded = case.original.contains_key(&key) || plan.record.contains_key(&key);
    let from_before = !case.original.keys().any(|key| key.starts_with("isolateNetwork/eni-"));
    let lost = plan.verdict.unknown && (touched(look, now) || from_before);
    assert!(recorded || lost, "{}: record before touch", now.id);
    assert!(!now.managed);
    if groups == [CUSTOM] {
        let group = look.custom[CUSTOM].as_ref().unwrap();
        let record = texts(case, plan);
        assert!(record.contains_key(&format!("isolateNetwork/rules-{CUSTOM}")), "what it lets through is recorded");
        assert!(custom_is_right(group, &record) && group.vpc == now.vpc, "{group:?}");
        assert!(allowed.groups.contains(CUSTOM) && [Change::Isolate, Change::Close].contains(&change));
        return;
    }
    let group = look.groups.iter().find(|g| groups == [g.id.clone()]).unwrap();
    assert_eq!(group.vpc, now.vpc);
    match change {
        Change::Isolate | Change::Close => {
            let allowed = if group.name == GroupRole::Isolation.group_name() { Allowed::default() } else { allowed };
            assert_eq!(
                group.name,
                allowed.role().group_name(),
                "the group of the lists on record, or the one without rules"
            );
            let closes = change == Change::Close && in_role(now, GroupRole::Conversion);
            assert!((has_exactly(group, &allowed) && group.read) || closes, "verified before");
        }
        Change::Convert => {
            assert_eq!(group.name, GroupRole::Conversion.group_name());
            assert!(plan.windows.iter().any(|window| window.interface == now.id), "with what closes it");
            let isolated = |i: &Interface| lets_no_more(case, look, i, &allowed);
            let open = look.interfaces.iter().filter(|i| !i.managed && !isolated(i));
            assert_eq!(open.count(), 0, "everything is isolated before anything is opened");
        }
        Change::Restore => panic!("a containment restores nothing"),
    }
}

prop_compose! {
    fn networks()(
        groups_made in vec(any::<bool>(), 6),
        interfaces in vec((any::<bool>(), btree_set(0..7_usize, 1..3), prop::bool::weighted(0.1), any::<bool>()), 0..4),
        routes in vec(any::<bool>(), 2),
        instance in prop_oneof![1 => Just(None), 12 => Just(Some("running"))], marked in prop::bool::weighted(0.1),
        custom in vec(0..6_usize, 0..3), nitro in any::<bool>(), short in any::<bool>(),
    ) -> Look {
        let mut aws = Look::default();
        let tags: BTreeMap<_, _> =
            marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let shown = |state: &str| Instance { state: state.into(), tags: tags.clone(), ..Instance::default() };
        aws.instance = instance.map(shown);
        for (n, made) in groups_made.iter().enumerate().filter(|(_, made)| **made) {
            let (role, vpc) = ([OURS[0], OURS[1], STRANGE][n / 2], VPCS[n % 2]);
            let egress = if *made && n == 3 { Vec::new() } else { vec![Rule::all()[0].clone()] };
            let (id, name) = (our_group(role, vpc), role.group_name().into_owned());
            aws.groups.push(Group { id, vpc: vpc.into(), name, egress, ..Group::default() });
        }
        for (n, (second, numbers, managed, public)) in interfaces.into_iter().enumerate() {
            attach(&mut aws, INTERFACES[n], VPCS[usize::from(second)], &numbers);
            let last = aws.interfaces.last_mut().unwrap();
            (last.managed, last.public) = (managed, public);
            if short && n == 0 {
                last.idle = IdleTimeouts::SHORTEST;
            }
        }
        aws.custom.insert(CUSTOM.into(), Some(custom_group(&custom)));
        aws.nitro = Some(nitro);
        let table = |(vpc, internet): (&&str, bool)| RouteTable { vpc: (*vpc).into(), main: true, internet, ..RouteTable::default() };
        aws.routes = Some(VPCS.iter().zip(routes).map(table).collect());
        aws
    }
}

fn network_attacks() -> BoxedStrategy<NetworkAttack> {
    let kind = || prop_oneof![Just(Kind::Of(OURS[0])), Just(Kind::Of(OURS[1])), Just(Kind::Lists)];
    prop_oneof![
        4 => (0..5_usize, btree_set(0..8_usize, 1..3)).prop_map(|(n, g)| NetworkAttack::Move(n, g)),
        1 => (0..5_usize, btree_set(0..8_usize, 1..3)).prop_map(|(n, g)| NetworkAttack::Attach(n, g)),
        1 => (0..5_usize).prop_map(NetworkAttack::Delete),
        1 => (1..THEIRS.len()).prop_map(NetworkAttack::DeleteGroup),
        2 => (kind(), any::<bool>()).prop_map(|(k, ingress)| NetworkAttack::Open(k, ingress)),
        1 => kind().prop_map(NetworkAttack::Close),
        1 => vec(0..6_usize, 0..3).prop_map(NetworkAttack::Custom),
        1 => (0..5_usize, 60..63_i32).prop_map(|(n, seconds)| NetworkAttack::Idle(n, seconds)),
    ]
    .boxed()
}

/// Rules in the shared group, through which flows begin on whatever is in it.
fn openings() -> BoxedStrategy<NetworkAttack> {
    any::<bool>().prop_map(|ingress| NetworkAttack::Open(Kind::Of(GroupRole::Isolation), ingress)).boxed()
}

pub fn isolations() -> impl Strategy<Value = IsolateNetwork> {
    use SeverTrackedConnections::{Always, Auto, Never};
    let sever = prop_oneof![Just(Auto), Just(Always), Just(Never)];
    let none = || (None, Vec::new());
    let groups = prop_oneof![3 => Just(vec![CUSTOM.to_owned()]), 1 => Just(vec!["sg-00000000".to_owned()])];
    let allow = prop_oneof![
        1 => Just(none()),
        2 => allow_lists().prop_map(|list| (Some(list), Vec::new())),
        1 => groups.prop_map(|groups| (None, groups)),
    ];
    (sever, allow, any::<bool>()).prop_map(|(sever_tracked_connections, (allow, security_group_ids), shorten)| {
        let shorten_connection_tracking = shorten;
        IsolateNetwork { sever_tracked_connections, allow, security_group_ids, shorten_connection_tracking }
    })
}

/// Networks within one another and apart, of both families, written well and badly.
fn allow_lists() -> impl Strategy<Value = AllowList> {
    use AllowedProtocol::{All, Tcp, Udp};
    const NETWORKS: [&str; 8] = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "10.2.0.0/16",
        "10.9.9.9/8",
        "2001:db8::/32",
        "2001:0DB8:1::/48",
        "0.0.0.0/0",
    ];
    let flow = (0..NETWORKS.len(), prop_oneof![Just(Tcp), Just(Udp), Just(All)], 0..4_i32, prop::option::of(0..4_i32));
    let flow = flow.prop_map(|(n, protocol, from, to)| {
        let (from_port, to_port) = if protocol == All { (None, None) } else { (Some(from), to.map(|more| from + more)) };
        AllowedFlow { cidr: NETWORKS[n].into(), protocol, from_port, to_port }
    });
    let flows = || vec(flow.clone(), 0..4);
    (flows(), flows()).prop_map(|(ingress, egress)| AllowList { ingress, egress })
}

/// What an earlier process left behind: records, and windows in any state.
fn left_behind() -> impl Strategy<Value = Vec<(usize, BTreeSet<usize>, Option<ConversionState>)>> {
    use ConversionState::{Closed, Due, Open, Skipped};
    let window = prop_oneof![Just(None), Just(Some(Open)), Just(Some(Closed)), Just(Some(Skipped)), Just(Some(Due))];
    vec((0..5_usize, btree_set(0..4_usize, 1..3), window), 0..4)
}

fn leave(simulation: &mut Simulation<Isolation>, records: Vec<(usize, BTreeSet<usize>, Option<ConversionState>)>) {
    let managed = |id: &str| simulation.aws.interfaces.iter().any(|i| i.id == id && i.managed);
    let records: Vec<_> = records.into_iter().filter(|(n, ..)| !managed(INTERFACES[*n])).collect();
    for (n, numbers, window) in records {
        let id = INTERFACES[n];
        let groups: Vec<&str> = numbers.iter().map(|n| THEIRS[*n]).collect();
        let original = simulation.quarantine.spec.original.get_or_insert_default();
        original.entry(format!("isolateNetwork/{id}")).or_insert(Text(json!({ "groups": groups }).to_string()));
        let since = Time(at(SINCE));
        let window = window.map(|state| Conversion { interface_id: id.into(), state, since });
        simulation.quarantine.spec.conversions.retain(|c| c.interface_id != id);
        simulation.quarantine.spec.conversions.extend(window);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn network_isolation_holds_against_any_order_of_events(
        aws in networks(), params in isolations(), records in left_behind(),
        scripts in prop::array::uniform4(script(network_attacks())), decision in decisions(),
    ) {
        let mut simulation = Simulation::<Isolation>::new(resource(ResourceKind::Ec2Instance), aws, params);
        leave(&mut simulation, records);
        simulation.life(&scripts, decision);
    }

    #[test]
    fn an_undisturbed_isolation_is_given_back_exactly(
        mut aws in networks(), params in isolations(), scripts in prop::array::uniform4(script(network_attacks())),
    ) {
        for place in 0..aws.interfaces.len() {
            if touched(&aws, &aws.interfaces[place]) {
                aws.interfaces[place].groups = vec![THEIRS[0].into()];
            }
        }
        aws.instance.iter_mut().for_each(|i| i.tags.clear());
        let before = aws.interfaces.clone();
        let mut simulation = Simulation::<Isolation>::new(resource(ResourceKind::Ec2Instance), aws, params);
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released);
        prop_assert_eq!(&simulation.aws.interfaces, &before);
    }

    /// Incidents come and go, each with a list of its own: what is allowed only ever narrows.
    #[test]
    fn no_list_lets_through_more_than_one_before_it(
        aws in networks(), all in vec((isolations(), script(network_attacks())), 2..5),
    ) {
        let (resource, first) = (resource(ResourceKind::Ec2Instance), all[0].0.clone());
        let mut simulation = Simulation::<Isolation>::new(resource, aws, first);
        let mut before: Option<Allowed> = None;
        for (params, script) in all {
            simulation.params = params;
            simulation.disturbed(false, &script);
            simulation.contain();
            let now = in_force(&simulation.case(), &simulation.params);
            let asked = Allowed::of(&simulation.params);
            prop_assert_eq!(&now.meet(&asked), &now);
            if simulation.aws.interfaces.iter().any(|i| !i.managed) && simulation.aws.instance.is_some() {
                prop_assert!(before.is_none_or(|before| now.meet(&before) == now));
                before = Some(now);
            }
        }
    }

    /// Whatever AWS refuses and wherever the process dies: what is said to be converted went through the conversion group.
    #[test]
    fn no_window_is_called_closed_that_was_never_open(aws in networks(), params in isolations(), script in script(openings())) {
        let params = IsolateNetwork { sever_tracked_connections: SeverTrackedConnections::Always, ..params };
        let mut simulation = Simulation::<Isolation>::new(resource(ResourceKind::Ec2Instance), aws, params);
        simulation.disturbed(false, &script);
        let closed = |simulation: &Simulation<Isolation>| {
            let windows = simulation.quarantine.spec.conversions.clone().into_iter();
            windows.filter(|c| c.state == ConversionState::Closed).map(|c| c.interface_id).collect::<BTreeSet<_>>()
        };
        let seen = script.iter().all(|event| !matches!(event, Event::Attack(_)));
        prop_assert!(!seen || closed(&simulation).is_subset(&simulation.aws.converted));
        simulation.contain();
        let own = simulation.aws.interfaces.iter().filter(|i| !i.managed).map(|i| i.id.clone());
        let own: BTreeSet<String> = own.filter(|_| simulation.aws.instance.is_some()).collect();
        prop_assert!(own.is_subset(&closed(&simulation)) && own.is_subset(&simulation.aws.converted));
    }

    /// However the others fare: what stands open for its seconds is closed by the first pass that AWS lets through.
    #[test]
    fn an_open_window_is_closed_though_another_interface_cannot_be_isolated(params in isolations(), rules in any::<bool>()) {
        let mut aws = Look { instance: Some(Instance::default()), ..Look::default() };
        aws.custom.insert(CUSTOM.into(), Some(custom_group(&[])));
        for role in OURS {
            let (id, vpc, name) = (our_group(role, VPCS[0]), VPCS[0].into(), role.group_name().into_owned());
            let ingress = if rules { vec![Rule::all()[0].clone()] } else { Vec::new() };
            aws.groups.push(Group { id, vpc, name, ingress, ..Group::default() });
        }
        attach(&mut aws, "eni-0", VPCS[0], &BTreeSet::from([5]));
        attach(&mut aws, "eni-1", VPCS[0], &BTreeSet::from([0]));
        let mut simulation = Simulation::<Isolation>::new(resource(ResourceKind::Ec2Instance), aws, params);
        leave(&mut simulation, vec![(0, BTreeSet::from([0]), Some(ConversionState::Open))]);
        let plan = simulation.plan(false, &simulation.look(false));
        let closes = |c: &Call| matches!(c, Call::ModifyNetworkInterfaceAttribute { interface, .. } if interface == "eni-0");
        prop_assert!(plan.calls.iter().any(closes), "{:?}", plan.calls);
    }
}
