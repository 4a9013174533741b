//! The conversion of tracked flows. An interface that is isolated already goes once through a group that allows everything,
//! which makes its flows untracked, and back. The window is recorded before it opens; a crash inside it resumes to isolation.

use std::collections::BTreeSet;
use std::time::Duration;

use firebreak_crds::{ConversionState, IsolateNetwork, SeverTrackedConnections};

use super::custom::Permit;
use super::reach::table_of;
use super::{Isolation, Look, Original, key, swap};
use crate::aws::{AwsError, Call, Change, Group, GroupRole, Interface, RouteTable, Rule, Session};
use crate::containment::case::Case;
use crate::containment::drive::Action;
use crate::containment::plan::Plan;
use crate::containment::window::Window;

/// How long an interface stays in the conversion group. AWS does not document how long it needs.
pub(super) const CONVERSION: Duration = Duration::from_secs(3);

/// What decides whether tracked flows can come from outside.
#[derive(Clone, Debug, Default)]
pub(in crate::containment) struct Paths {
    pub(in crate::containment) routes: Vec<RouteTable>,
    pub(in crate::containment) originals: Vec<Group>,
}

/// Whether a conversion depends on what is not read yet: some interface is recorded, or was moved, and has had no window.
pub(super) fn undecided(case: &Case, params: &IsolateNetwork, look: &Look) -> bool {
    let auto = params.sever_tracked_connections == SeverTrackedConnections::Auto;
    auto && look.own().any(|i| match case.conversion(&i.id) {
        None => case.original.contains_key(&key(&i.id)),
        window => matches!(window, Some(ConversionState::Due | ConversionState::Open)),
    })
}

/// Reads what decides it.
pub(super) async fn paths(aws: &Session, case: &Case, region: &str, look: &Look) -> Result<Paths, AwsError> {
    let vpcs: BTreeSet<String> = look.own().map(|i| i.vpc.clone()).collect();
    let records = case.records_of(Isolation::NAME).filter_map(|id| case.recorded::<Original>(&key(id)));
    let groups: BTreeSet<String> = records.flat_map(|o| o.groups).collect();
    let reads = futures::join!(
        aws.route_tables(region, vpcs.into_iter().collect()),
        aws.groups(region, groups.into_iter().collect())
    );
    Ok(Paths { routes: reads.0?, originals: reads.1? })
}

/// The conversion of tracked flows, only once everything is isolated. A window is over once the interface was seen in the conversion
/// group, or AWS accepted to put it there: one that AWS refused to open, or that a crash may have kept shut, is opened again.
pub(super) fn convert(plan: &mut Plan, case: &Case, params: &IsolateNetwork, look: &Look, permit: &Permit) {
    for interface in look.own() {
        let window = case.conversion(&interface.id);
        if window == Some(ConversionState::Open) && look.converted.contains(&interface.id) {
            plan.conversions.insert(interface.id.clone(), ConversionState::Closed);
        } else if window != Some(ConversionState::Closed) {
            match due(case, params, interface, look) {
                Some(true) => open(plan, window, interface, look, permit),
                Some(false) => note(plan, window, interface, ConversionState::Skipped),
                None if window == Some(ConversionState::Open) => note(plan, window, interface, ConversionState::Due),
                None => {}
            }
        }
    }
}

/// Back to isolation. Any group of ours closes it.
pub(super) fn close(plan: &mut Plan, interface: &Interface, look: &Look, permit: &Permit) {
    plan.calls.extend(closing(interface, look, permit));
}

fn closing(interface: &Interface, look: &Look, permit: &Permit) -> Option<Call> {
    let of = |role| look.group(&interface.vpc, role).map(|g| g.id.as_str());
    let refuge = look.refuge(&interface.vpc, permit).or(of(GroupRole::Isolation)).or(of(permit.allowed.role()));
    refuge.map(|group| swap(&interface.id, group, Change::Close))
}

fn open(plan: &mut Plan, window: Option<ConversionState>, interface: &Interface, look: &Look, permit: &Permit) {
    let Some(group) = look.group(&interface.vpc, GroupRole::Conversion) else {
        let create = Call::CreateSecurityGroup { vpc: interface.vpc.clone(), role: GroupRole::Conversion };
        if !plan.calls.contains(&create) {
            plan.calls.push(create);
        }
        return;
    };
    let missing = |rules: &[Rule]| Rule::all().into_iter().filter(|r| !rules.contains(r)).collect::<Vec<_>>();
    let (ingress, egress, id) = (missing(&group.ingress), missing(&group.egress), &group.id);
    if let (true, Some(close)) = (group.allows_all(), closing(interface, look, permit)) {
        note(plan, window, interface, ConversionState::Open);
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

/// Notes how the window stands, where that is new.
fn note(plan: &mut Plan, before: Option<ConversionState>, interface: &Interface, now: ConversionState) {
    if before != Some(now) {
        plan.conversions.insert(interface.id.clone(), now);
    }
}

/// Whether the interface's tracked flows are to be cut; None where that cannot be said from this look.
fn due(case: &Case, params: &IsolateNetwork, interface: &Interface, look: &Look) -> Option<bool> {
    match params.sever_tracked_connections {
        SeverTrackedConnections::Never => None,
        SeverTrackedConnections::Always => Some(true),
        SeverTrackedConnections::Auto => {
            // Since somebody moved it out of isolation, flows may be tracked whatever its own groups were.
            let moved = case.conversion(&interface.id) == Some(ConversionState::Due);
            let reachable = |p: &Paths| interface.public || p.internet(interface);
            look.paths.as_ref().map(|p| reachable(p) && (moved || !p.was_open(case, interface)))
        }
    }
}

impl Paths {
    /// Whether the interface's subnet has a route to an internet gateway.
    fn internet(&self, interface: &Interface) -> bool {
        table_of(&self.routes, interface).is_some_and(|t| t.internet)
    }

    /// Whether the original groups allowed everything both ways: AWS does not track such flows, so the swap cut them.
    fn was_open(&self, case: &Case, interface: &Interface) -> bool {
        let original = case.recorded::<Original>(&key(&interface.id));
        let groups = original.map(|o| o.groups).unwrap_or_default();
        self.originals.iter().any(|g| groups.contains(&g.id) && g.allows_all())
    }
}
