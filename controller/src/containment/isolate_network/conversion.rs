//! The conversion of tracked flows. An interface that is isolated already goes once through a group that allows everything,
//! which makes its flows untracked, and back. The window is recorded before it opens; a crash inside it resumes to isolation.

use std::collections::BTreeSet;
use std::time::Duration;

use firebreak_crds::{ConversionState, IsolateNetwork, SeverTrackedConnections};

use super::custom::Permit;
use super::reach::table_of;
use super::{Look, key, swap};
use crate::aws::{AwsError, Call, Change, GroupRole, Interface, RouteTable, Rule, Session, within};
use crate::containment::case::Case;
use crate::containment::plan::Plan;
use crate::containment::window::Window;

/// How long an interface stays in the conversion group. AWS does not document how long it needs.
pub(super) const CONVERSION: Duration = Duration::from_secs(3);
/// So long what is to be cut waits for what only decides about a conversion.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a conversion depends on what is not read yet: some interface is recorded, or in a group of ours already, and its window is not
/// over.
pub(super) fn undecided(case: &Case, params: &IsolateNetwork, look: &Look) -> bool {
    let auto = params.sever_tracked_connections == SeverTrackedConnections::Auto;
    let unknown = |i: &&Interface| !i.public;
    auto && look.own().filter(unknown).any(|i| match case.conversion(&i.id) {
        None => case.original.contains_key(&key(&i.id)) || look.touched(i),
        window => matches!(window, Some(ConversionState::Due | ConversionState::Open)),
    })
}

/// Reads what decides it. What is still to be cut does not wait for it.
pub(super) async fn routes(aws: &Session, region: &str, look: &Look, cut: bool) -> Result<Vec<RouteTable>, AwsError> {
    let vpcs: BTreeSet<String> = look.own().map(|i| i.vpc.clone()).collect();
    let read = aws.route_tables(region, vpcs.into_iter().collect());
    if cut { read.await } else { within(PATIENCE, "ec2:DescribeRouteTables", read).await }
}

/// The conversion of tracked flows, only once everything is isolated. A window is over once the interface was seen in the conversion
/// group, or AWS accepted to put it there: one that AWS refused to open, or that a crash may have kept shut, is opened again.
pub(super) fn convert(plan: &mut Plan, case: &Case, params: &IsolateNetwork, look: &Look, permit: &Permit) {
    for interface in look.own() {
        let window = case.conversion(&interface.id);
        if window == Some(ConversionState::Open) && look.converted.contains(&interface.id) {
            plan.conversions.insert(interface.id.clone(), ConversionState::Closed);
        } else if window != Some(ConversionState::Closed) {
            match due(window, params, interface, look) {
                Some(true) => open(plan, interface, look, permit),
                Some(false) => note(plan, window, interface, ConversionState::Skipped),
                None if window == Some(ConversionState::Open) => note(plan, window, interface, ConversionState::Due),
                None => {}
            }
        }
    }
}

/// Back to isolation. Any group of ours closes it.
pub(super) fn closing(interface: &Interface, look: &Look, permit: &Permit) -> Option<Call> {
    let of = |role| look.group(&interface.vpc, role).map(|g| g.id.as_str());
    let refuge = look.refuge(&interface.vpc, permit).or(of(GroupRole::Isolation)).or(of(permit.allowed.role()));
    refuge.map(|group| swap(&interface.id, group, Change::Close))
}

/// Recorded anew each time, also where it is on record as open: what cannot be recorded as closed must not be opened with each pass.
fn open(plan: &mut Plan, interface: &Interface, look: &Look, permit: &Permit) {
    let Some(group) = look.group(&interface.vpc, GroupRole::Conversion) else {
        let create = Call::CreateSecurityGroup { vpc: interface.vpc.clone(), role: GroupRole::Conversion };
        if !plan.calls.contains(&create) {
            plan.calls.push(create);
        }
        return;
    };
    let missing = |rules: &[Rule]| Rule::all().into_iter().filter(|r| !rules.contains(r)).collect::<Vec<_>>();
    let (ingress, egress, id) = (missing(&group.ingress), missing(&group.egress), &group.id);
    if let (true, Some(close)) = (ingress.is_empty() && egress.is_empty(), closing(interface, look, permit)) {
        plan.conversions.insert(interface.id.clone(), ConversionState::Open);
        let open = swap(&interface.id, id, Change::Convert);
        plan.windows.push(Window { interface: interface.id.clone(), open, lasts: CONVERSION, close });
        return;
    }
    let calls = [
        (!ingress.is_empty()).then(|| Call::AuthorizeSecurityGroupIngress { group: id.clone(), rules: ingress }),
        (!egress.is_empty()).then(|| Call::AuthorizeSecurityGroupEgress { group: id.clone(), rules: egress }),
    ];
    for call in calls.into_iter().flatten().filter(|c| !plan.calls.contains(c)).collect::<Vec<_>>() {
        plan.calls.push(call);
    }
}

/// Notes that flows may be tracked since the window was over: it is opened once more.
pub(super) fn be_due(plan: &mut Plan, case: &Case, interface: &Interface) {
    let before = case.conversion(&interface.id);
    if matches!(before, Some(ConversionState::Closed | ConversionState::Skipped)) {
        note(plan, before, interface, ConversionState::Due);
    }
}

/// Notes how the window stands, where that is new.
fn note(plan: &mut Plan, before: Option<ConversionState>, interface: &Interface, now: ConversionState) {
    if before != Some(now) {
        plan.conversions.insert(interface.id.clone(), now);
    }
}

/// Whether the interface's tracked flows are to be cut; None where that cannot be said from this look. Flows through a group that
/// allowed everything were never tracked, and would not need it. But what its own groups allow can be read only after the swap, and
/// by then an attacker may have opened them.
fn due(window: Option<ConversionState>, params: &IsolateNetwork, interface: &Interface, look: &Look) -> Option<bool> {
    match params.sever_tracked_connections {
        SeverTrackedConnections::Never => None,
        SeverTrackedConnections::Always => Some(true),
        SeverTrackedConnections::Auto if interface.public => Some(true),
        SeverTrackedConnections::Auto => routes_of(window, interface, look).map(|routes| internet(routes, interface)),
    }
}

/// The routes by which it is decided; where nothing came of it then, those that are read for the status: a way may have come back.
fn routes_of<'a>(window: Option<ConversionState>, interface: &Interface, look: &'a Look) -> Option<&'a [RouteTable]> {
    let told = || look.ways.as_ref()?.vpcs.get(&interface.vpc)?.routes.as_ref().map(|routes| routes.as_slice());
    if window == Some(ConversionState::Skipped) { told() } else { look.routes.as_deref() }
}

/// Whether the interface's subnet has a route to an internet gateway.
fn internet(routes: &[RouteTable], interface: &Interface) -> bool {
    table_of(routes, interface).is_some_and(|t| t.internet)
}
