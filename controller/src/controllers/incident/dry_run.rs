//! `mode: Plan`: the same look and the same plans as `Contain`, reading only.

use firebreak_crds::{Incident, Plan, PlanTarget};
use futures::{FutureExt, StreamExt, stream};
use kube::ResourceExt;

use super::resolve::{Resolved, Target};
use crate::clock;
use crate::conditions::bounded;
use crate::containment::{Case, DryRun, Wanted, digest, wanted};
use crate::controllers::Ctx;

/// The status shows so many targets, with so many calls each.
const TARGETS: usize = 50;
const CALLS: usize = 20;
/// Looks side by side.
const LOOKS: usize = 16;

/// What `Contain` would do.
pub async fn plan(ctx: &Ctx, incident: &Incident, targets: &[Target]) -> Plan {
    let resolved: Vec<&Resolved> = targets.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
    let runs: Vec<_> = resolved.iter().map(|r| target(ctx, incident, r).boxed()).collect();
    let rows: Vec<(usize, PlanTarget)> = stream::iter(runs).buffered(LOOKS).collect().await;
    let asked: Vec<_> = resolved.iter().map(|r| (r.resource.clone(), r.actions.clone())).collect();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    Plan {
        digest: digest(&asked),
        target_count: count(resolved.len()),
        call_count: count(rows.iter().map(|(calls, _)| calls).sum()),
        targets: rows.into_iter().map(|(_, row)| row).take(TARGETS).collect(),
    }
}

async fn target(ctx: &Ctx, incident: &Incident, target: &Resolved) -> (usize, PlanTarget) {
    let (mut calls, mut problems) = (Vec::new(), Vec::new());
    match ctx.accounts.session(&target.account).await {
        Err(error) => problems.push(error.to_string()),
        Ok(session) => {
            let case = case(incident, target, &session.partition);
            let wanted = actions(target);
            for run in futures::future::join_all(wanted.iter().map(|w| w.dry_run(&session, &case))).await {
                match run {
                    Ok(DryRun { calls: more, problem }) => {
                        calls.extend(more);
                        problems.extend(problem);
                    }
                    Err(error) => problems.push(error.to_string()),
                }
            }
        }
    }
    if problems.is_empty() {
        calls.extend(target.evidence.iter().map(|_| format!("ec2:CreateSnapshots {}: all volumes", target.resource.id)));
    }
    let problem = (!problems.is_empty()).then(|| bounded(problems.join("; "), 2000));
    (calls.len(), PlanTarget { resource: target.resource.arn(), calls: shown(calls), problem })
}

fn actions(target: &Resolved) -> Vec<Wanted> {
    let holder = firebreak_crds::Holder {
        uid: String::new(),
        namespace: String::new(),
        name: String::new(),
        state: firebreak_crds::HolderState::Holding,
        actions: target.actions.clone(),
        release: target.release.clone(),
    };
    let mut wanted = wanted(&[holder], std::iter::empty());
    if !wanted.is_empty() {
        wanted.push(Wanted::TagResource(firebreak_crds::Empty {}));
    }
    wanted
}

/// A case without a record: as if it were contained now.
fn case(incident: &Incident, target: &Resolved, partition: &str) -> Case {
    let now = clock::now();
    Case {
        resource: target.resource.clone(),
        original: std::collections::BTreeMap::new(),
        conversions: Vec::new(),
        decision: None,
        release: target.release.clone(),
        since: now,
        incident: format!("{}/{}", incident.namespace().unwrap_or_default(), incident.name_any()),
        partition: partition.to_owned(),
        now,
    }
}

fn shown(calls: Vec<String>) -> Vec<String> {
    let more = calls.len().saturating_sub(CALLS);
    let mut calls: Vec<String> = calls.into_iter().take(CALLS).map(|c| bounded(c, 500)).collect();
    calls.extend((more > 0).then(|| format!("and {more} more")));
    calls
}
