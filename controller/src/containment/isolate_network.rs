//! `isolateNetwork`: every network interface of an instance goes to a security group without rules.
//!
//! The swap stops new flows at once; that is the cut. Flows that the VPC already tracks go on, so where it helps each
//! interface then passes once through a group that allows everything: see `conversion`.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>

mod allow;
mod conversion;
mod custom;
mod giving_back;
mod groups;
mod reach;
mod tracking;

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{ActionState, ConversionState, IsolateNetwork, OnConflict, SeverTrackedConnections};

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(in crate::containment) use self::allow::in_force;
pub(in crate::containment) use self::allow::{Allowed, groups_on_record};
use self::conversion::{closing, convert, routes, undecided};
use self::custom::Permit;
use self::giving_back::Way;
pub use self::groups::prepare_group;
use self::groups::{admit, find, prepare};
use super::action::{Action, Merge, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::{Plan, RECORDS};
use super::tag_resource::is_marked_before;
use crate::aws::{
    AwsError, Call, Change, Group, GroupRole, IdleTimeouts, Instance, Interface, Outcome, RouteTable, Rule, Session, Ways,
};
use crate::conditions::few;

/// The action.
pub struct Isolation;

/// The action's name.
pub const NAME: &str = Isolation::NAME;
/// More interfaces than this are counted.
const NAMED: usize = 5;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    pub(super) interfaces: Vec<Interface>,
    /// Firebreak's own groups, in every VPC of the region.
    pub(super) groups: Vec<Group>,
    /// Groups on record that exist no more; read when releasing.
    pub(super) lost: BTreeSet<String>,
    /// Groups of the policy's choice, by id; None where AWS shows none.
    pub(super) custom: BTreeMap<String, Option<Group>>,
    /// Whether it runs on the Nitro system; read where that counts.
    pub(super) nitro: Option<bool>,
    /// The interfaces that were seen in the conversion group, or that AWS accepted to put there, since this look began.
    pub(super) converted: BTreeSet<String>,
    /// The route tables; read once the conversion must be decided.
    pub(super) routes: Option<Vec<RouteTable>>,
    /// Why the route tables could not be read.
    pub(super) unread: Option<AwsError>,
    /// What no group stops; read once the interfaces are isolated, since no cut waits for it.
    pub(super) ways: Option<Ways>,
}

/// What is recorded per interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Original {
    groups: Vec<String>,
}

/// In which groups of others an interface was found whose original is not known. It is told, and never given back.
#[derive(Serialize, Deserialize)]
struct Found {
    found: Vec<String>,
}

impl Action for Isolation {
    const NAME: &'static str = "isolateNetwork";
    const STAGE: Stage = Stage::Access;
    type Params = IsolateNetwork;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            eni if eni.starts_with("eni-") => reads::<Original>(text),
            idle if idle.starts_with(tracking::TRACKING) => reads::<IdleTimeouts>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, params: Option<&IsolateNetwork>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        let reads = futures::join!(
            aws.instance(region, id),
            aws.interfaces(region, id),
            aws.our_groups(region),
            custom::read(aws, case, params)
        );
        let (instance, interfaces, groups, custom) = (reads.0?, reads.1?, reads.2?, reads.3?);
        let mut look = Look { instance, interfaces, groups, custom, ..Look::default() };
        let missing: Vec<String> = known(case, &look).filter(|id| look.interface(id).is_none()).collect();
        if !missing.is_empty() {
            look.interfaces.extend(aws.interfaces_by_id(region, missing).await?);
        }
        let Some(params) = params else {
            look.lost = giving_back::lost(aws, case, region, &look).await?;
            return Ok(look);
        };
        let (undecided, cut) =
            (undecided(case, params, &look), reach::is_worth_telling(&look, &Permit::of(case, params, &look)));
        let decides = async { if undecided { routes(aws, region, &look, cut).await.map(Some) } else { Ok(None) } };
        let told = async { if cut { reach::ways(aws, region, &look).await.map(Some) } else { Ok(None) } };
        let nitro = async { if cut { tracking::nitro(aws, case, params, &look).await } else { Ok(None) } };
        let (routes, ways, nitro) = futures::join!(decides, told, nitro);
        (look.ways, look.nitro) = (ways?, nitro?);
        match routes {
            Ok(routes) => look.routes = routes,
            Err(error) => look.unread = Some(error), // what is to be cut, and closed, is so without them
        }
        Ok(look)
    }

    fn contain(case: &Case, params: &IsolateNetwork, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return not_seen(case) };
        if instance.is_terminated() {
            return Plan::ended(case, instance, "the instance is terminated: nothing is left to isolate");
        }
        let (mut plan, permit) = (Plan::default(), Permit::of(case, params, look));
        allow::remember(&mut plan, case, &permit.allowed);
        let narrows = !plan.record.is_empty();
        custom::remember(&mut plan, case, look, &permit);
        prepare(&mut plan, case, look);
        isolate(&mut plan, case, look, &permit, narrows);
        if plan.is_done() {
            convert(&mut plan, case, params, look, &permit);
        }
        let cut = plan.is_done();
        admit(&mut plan, case, look, &permit);
        if cut {
            tracking::shorten(&mut plan, case, params, look);
        }
        judge(&mut plan, case, look, &permit, cut);
        let kept = "the list asked for is not allowed whole: nothing is widened before the release";
        let kept = (permit.allowed != Allowed::of(params)).then(|| kept.to_owned());
        let said = [Some(std::mem::take(&mut plan.verdict.message)), kept, tracking::said(case, params, look)];
        plan.verdict.message = said.into_iter().flatten().collect::<Vec<_>>().join("; ");
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let mut plan = Plan { calls: giving_back::closings(look).collect(), ..Plan::default() };
        let (mut ask, mut said) = (Vec::new(), Vec::new());
        for way in giving_back::ways(case, look) {
            match way {
                Way::Done => {}
                Way::Said(what) => said.push(what),
                Way::Restore(call) => plan.calls.push(call),
                Way::Ask(what) => ask.push(what),
            }
        }
        let theirs = |i: &&Interface| case.decision == Some(OnConflict::KeepTheirs) && !look.are_ours(&i.groups);
        ask.extend(unknown(case, look).filter(|i| !theirs(i)).map(|i| {
            let found =
                case.recorded::<Found>(&found_key(&i.id)).map(|f| format!("; it was found in [{}]", f.found.join(", ")));
            let what = format!("{}: what was there before is not known{}", i.id, found.unwrap_or_default());
            format!("{what}. Set its groups by hand, then spec.release.onConflict: KeepTheirs")
        }));
        ask.extend(tracking::restore(&mut plan, case, look));
        plan.verdict.absent = is_absent(case, look);
        if plan.verdict.absent && look.instance.is_none() {
            let gone = Plan::gone(case, NAME, None).verdict;
            let told = if gone.state == ActionState::Conflict { &mut ask } else { &mut said };
            told.insert(0, gone.message);
        }
        plan.settle_release(!ask.is_empty());
        plan.verdict.message = ask.into_iter().chain(said).collect::<Vec<_>>().join("; ");
        plan
    }

    fn trust(look: &mut Look) {
        look.groups.iter_mut().for_each(|g| g.read = true);
    }

    fn after(look: &mut Look, call: &Call, outcome: &Outcome) {
        match (call, outcome) {
            (Call::CreateSecurityGroup { vpc, role }, Outcome::Created(id)) => {
                let name = role.group_name().into_owned();
                let egress = vec![Rule::all()[0].clone()]; // what AWS gives every new group
                look.groups.push(Group { id: id.clone(), vpc: vpc.clone(), name, egress, ..Group::default() });
            }
            (Call::RevokeSecurityGroupIngress { group, rules }, _) => {
                look.edit(group, |g| g.ingress.retain(|r| !rules.contains(r)));
            }
            (Call::RevokeSecurityGroupEgress { group, rules }, _) => {
                look.edit(group, |g| g.egress.retain(|r| !rules.contains(r)));
            }
            (Call::AuthorizeSecurityGroupIngress { group, rules }, _) => {
                look.edit(group, |g| g.ingress.extend(rules.clone()));
            }
            (Call::AuthorizeSecurityGroupEgress { group, rules }, _) => look.edit(group, |g| g.egress.extend(rules.clone())),
            (Call::ModifyNetworkInterfaceAttribute { interface, groups, change }, _) => {
                if *change == Change::Convert
                    || look.interface(interface).is_some_and(|i| look.in_group(i, GroupRole::Conversion))
                {
                    look.converted.insert(interface.clone());
                }
                look.interfaces.iter_mut().filter(|i| i.id == *interface).for_each(|i| i.groups.clone_from(groups));
            }
            (Call::SetIdleTimeouts { interface, timeouts, .. }, _) => {
                look.interfaces.iter_mut().filter(|i| i.id == *interface).for_each(|i| i.idle = *timeouts);
            }
            _ => {}
        }
    }
}

/// The stricter is what cuts more, and what both lists allow. Kept without new conversions, and without a list.
impl Merge for IsolateNetwork {
    fn merge(&self, other: &Self) -> Self {
        if self == other {
            return self.clone(); // as it was written
        }
        let rank = |p: &Self| match p.sever_tracked_connections {
            SeverTrackedConnections::Never => 0,
            SeverTrackedConnections::Auto => 1,
            SeverTrackedConnections::Always => 2,
        };
        let sever_tracked_connections =
            [self, other].into_iter().max_by_key(|p| rank(p)).unwrap_or(self).sever_tracked_connections;
        let both = Allowed::of(self).meet(&Allowed::of(other));
        Self {
            sever_tracked_connections,
            allow: both.list(),
            security_group_ids: both.groups.into_iter().collect(),
            shorten_connection_tracking: self.shorten_connection_tracking || other.shorten_connection_tracking,
        }
    }

    fn kept() -> Self {
        Self { sever_tracked_connections: SeverTrackedConnections::Never, ..Self::default() }
    }
}

impl Look {
    fn interface(&self, id: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.id == id)
    }

    /// The interfaces that can be isolated.
    fn own(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|i| !i.managed)
    }

    fn group(&self, vpc: &str, role: GroupRole) -> Option<&Group> {
        find(&self.groups, vpc, role)
    }

    /// Whether it is a group into which Firebreak puts interfaces.
    fn is_ours(&self, group: &String) -> bool {
        self.custom.contains_key(group) || self.groups.iter().any(|g| g.id == *group)
    }

    /// Whether these are groups that Firebreak put there.
    fn are_ours(&self, groups: &[String]) -> bool {
        !groups.is_empty() && groups.iter().all(|id| self.is_ours(id))
    }

    /// Whether Firebreak put the interface into a group, whatever somebody added since.
    fn touched(&self, interface: &Interface) -> bool {
        interface.groups.iter().any(|id| self.is_ours(id))
    }

    fn in_group(&self, interface: &Interface, role: GroupRole) -> bool {
        self.group(&interface.vpc, role).is_some_and(|g| interface.groups == [g.id.clone()])
    }

    /// Whether the interface is in the group without rules, or in that of what is allowed.
    fn isolated(&self, interface: &Interface, permit: &Permit) -> bool {
        self.in_group(interface, GroupRole::Isolation) || self.in_allowed(interface, permit)
    }

    /// Whether the interface is in the group of an allow-list, of whatever list, or in one of a policy's choice.
    fn in_list(&self, interface: &Interface) -> bool {
        let is_list = |g: &&Group| matches!(GroupRole::named(&g.name), Some(GroupRole::Allowing(_)));
        let lists = self.groups.iter().filter(is_list).map(|g| &g.id);
        lists.chain(self.custom.keys()).any(|id| interface.groups == [id.clone()])
    }

    fn edit(&mut self, group: &str, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.iter_mut().find(|g| g.id == group) {
            change(group);
            group.read = false;
        }
    }
}

fn key(interface: &str) -> String {
    format!("{}/{interface}", Isolation::NAME)
}

fn same(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

/// Every interface that the instance or the record names.
fn known<'a>(case: &'a Case, look: &'a Look) -> impl Iterator<Item = String> + 'a {
    let shown = look.instance.iter().flat_map(|i| i.interfaces.iter().cloned());
    shown.chain(case.records_of(Isolation::NAME).filter(|id| id.starts_with("eni-")).map(str::to_owned))
}

/// Whether AWS does not show what a release looks at: an interface on record, or the instance where that alone would name one.
fn is_absent(case: &Case, look: &Look) -> bool {
    let nameless = case.is_unknown(NAME) || known(case, look).next().is_none();
    known(case, look).any(|id| look.interface(&id).is_none()) || (look.instance.is_none() && nameless)
}

/// Interfaces of which no original is recorded: in our groups, or in whatever groups where it is noted that it is not known.
fn unknown<'a>(case: &'a Case, look: &'a Look) -> impl Iterator<Item = &'a Interface> {
    let noted = case.is_unknown(Isolation::NAME);
    look.own().filter(move |i| (noted || look.touched(i)) && case.recorded::<Original>(&key(&i.id)).is_none())
}

/// Whether it was contained before this record, which knows no interface yet: then somebody may have moved them while nobody looked,
/// and what they are in is no original. What is attached to an instance of which the record knows is another matter.
fn is_from_before(case: &Case, look: &Look) -> bool {
    let known = case.records_of(Isolation::NAME).any(|sub| sub.starts_with("eni-"));
    let marked = look.instance.as_ref().is_some_and(|i| is_marked_before(case, &i.tags));
    !known && (marked || case.is_unknown(Isolation::NAME))
}

/// The target cannot be found, unless it is known to have ended.
pub(super) fn not_seen(case: &Case) -> Plan {
    if case.has_ended() {
        return Plan::done(ActionState::InForce, "the instance is terminated, and AWS shows it no more");
    }
    let (region, id) = case.instance();
    let what = format!("AWS shows no instance {id} in {region}: check the id, the region and the account");
    Plan::done(ActionState::Failed, what)
}

/// The cut: each interface to the isolation group of its VPC, once that is known to be empty; or to that of the allow-list, where
/// that is ready. A list that is new moves what is in another list's group: that is nobody's drift.
fn isolate(plan: &mut Plan, case: &Case, look: &Look, permit: &Permit, narrows: bool) {
    let from_before = is_from_before(case, look);
    for interface in look.own().filter(|i| !look.isolated(i, permit)) {
        let window = case.conversion(&interface.id) == Some(ConversionState::Open);
        if window && look.in_group(interface, GroupRole::Conversion) {
            plan.calls.extend(closing(interface, look, permit)); // whatever becomes of the others: it stands open
            continue;
        }
        let new = !case.original.contains_key(&key(&interface.id));
        if new && (case.original.len() >= RECORDS || from_before || look.touched(interface)) {
            is_lost(plan, case, look, interface); // cut all the same: whoever attaches interfaces all day must not keep them
        } else if new {
            plan.record(key(&interface.id), &Original { groups: interface.groups.clone() });
        } else if !(narrows && look.in_list(interface)) {
            plan.verdict.drift.push(format!("{} was in [{}]", interface.id, interface.groups.join(", ")));
        }
        if case.conversion(&interface.id).is_some_and(|state| state != ConversionState::Due) {
            plan.conversions.insert(interface.id.clone(), ConversionState::Due); // flows may have started meanwhile
        }
        if let Some(group) = look.refuge(&interface.vpc, permit) {
            plan.calls.push(swap(&interface.id, group, Change::Isolate));
        }
    }
}

/// Notes that it is not known where the interface was. The groups that are not ours are noted: they may be where it was, or an
/// attacker's, so a person says what comes back.
fn is_lost(plan: &mut Plan, case: &Case, look: &Look, interface: &Interface) {
    plan.unknown(case, Isolation::NAME);
    plan.verdict.drift.push(format!("{} was in [{}]", interface.id, interface.groups.join(", ")));
    let theirs: Vec<String> = interface.groups.iter().filter(|id| !look.is_ours(id)).cloned().collect();
    let record = found_key(&interface.id);
    if !theirs.is_empty() && case.original.len() < RECORDS && !case.original.contains_key(&record) {
        plan.record(record, &Found { found: theirs });
    }
}

fn found_key(interface: &str) -> String {
    key(&format!("found-{interface}"))
}

fn swap(interface: &str, group: &str, change: Change) -> Call {
    Call::ModifyNetworkInterfaceAttribute { interface: interface.to_owned(), groups: vec![group.to_owned()], change }
}

fn restore(interface: &str, groups: &[String]) -> Call {
    let (interface, groups) = (interface.to_owned(), groups.to_vec());
    Call::ModifyNetworkInterfaceAttribute { interface, groups, change: Change::Restore }
}

/// How it stands, in one sentence. `cut`: nothing is left to do but what the allow-list lets through, which nobody waits for.
fn judge(plan: &mut Plan, case: &Case, look: &Look, permit: &Permit, cut: bool) {
    let total = look.interfaces.len();
    let isolated = look.own().filter(|i| look.isolated(i, permit)).count();
    let admitted = look.own().filter(|i| look.in_allowed(i, permit)).count();
    let managed: Vec<&str> = look.interfaces.iter().filter(|i| i.managed).map(|i| i.id.as_str()).collect();
    let converted = case.conversions.iter().filter(|c| c.state == ConversionState::Closed).count();
    let ids = |such: &dyn Fn(&&Interface) -> bool| look.own().filter(such).map(|i| i.id.clone()).collect::<Vec<_>>();
    let skipped = ids(&|i| case.conversion(&i.id) == Some(ConversionState::Skipped));
    let trunks = ids(&|i| i.trunk);
    let unknown: Vec<&str> = unknown(case, look).map(|i| i.id.as_str()).collect();
    let open = look.own().filter(|i| !look.isolated(i, permit)).map(|i| format!("{} is in [{}]", i.id, i.groups.join(", ")));
    let ending = look.instance.as_ref().is_some_and(Instance::is_ended); // then its interfaces go, one after the other
    let shown = look.instance.iter().filter(|_| !ending).flat_map(|i| &i.interfaces);
    let unseen: Vec<&str> = shown.filter(|id| look.interface(id).is_none()).map(String::as_str).collect();
    let said = [
        (!unseen.is_empty()).then(|| format!("{} cannot be looked at yet", unseen.join(", "))),
        Some(format!("{isolated} of {total} interfaces isolated")),
        open.reduce(|a, b| format!("{a}; {b}")),
        permit.said().map(|what| format!("allowed on {admitted} of them: {what}")),
        (!permit.refused.is_empty()).then(|| permit.refused.join("; ")),
        (converted > 0).then(|| format!("conversion of tracked flows attempted on {converted}")),
        (!skipped.is_empty()).then(|| {
            format!(
                "tracked flows left alone on {}: no public address, no route to an internet gateway",
                few(skipped, NAMED)
            )
        }),
        (!trunks.is_empty())
            .then(|| format!("{} carry branch interfaces (of pods), which are not looked at", few(trunks, NAMED))),
        (!managed.is_empty()).then(|| format!("{} belong to an AWS service and cannot be isolated", managed.join(", "))),
        (!unknown.is_empty()).then(|| {
            let what = "carried Firebreak's groups, or its instance Firebreak's marks, before this record began";
            format!("{} {what}: the original is not known", unknown.join(", "))
        }),
        (total == 0).then(|| "AWS shows no network interface of the instance".to_owned()),
        ending.then(|| "the instance is ending".to_owned()),
        look.unread.as_ref().map(|error| format!("whether its tracked flows are to be cut is not known: {error}")),
    ];
    if !unknown.is_empty() {
        plan.unknown(case, Isolation::NAME);
    }
    plan.verdict.state = match plan.is_done() {
        _ if total == 0 && !ending => ActionState::Failed,
        _ if cut
            && plan.record.is_empty()
            && managed.is_empty()
            && isolated == total
            && unseen.is_empty()
            && look.unread.is_none()
            && look.holds(permit) =>
        {
            ActionState::InForce
        }
        true => ActionState::Failed,
        false => ActionState::InProgress,
    };
    plan.verdict.message = said.into_iter().flatten().chain(reach::said(look)).collect::<Vec<_>>().join("; ");
    plan.verdict.unread.clone_from(&look.unread);
}

#[cfg(test)]
#[path = "isolate_network_tests.rs"]
mod tests;
