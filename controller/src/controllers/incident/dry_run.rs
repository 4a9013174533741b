//! `mode: Plan`: the same look and the same plans as `Contain`, reading only.

use super::resolve::{Resolved, Target};
use super::{evidence, holds};
use crate::conditions::bounded;
use crate::containment::{Case, DryRun, Keys, Wanted, beside, wanted};
use crate::controllers::Ctx;
use crate::stores::Stores;
use firebreak_crds::{Incident, Plan, PlanTarget, Quarantine, quarantine_name};
use futures::{FutureExt, StreamExt, stream};

/// The status shows so many targets, with so many calls each.
const TARGETS: usize = 50;
const CALLS: usize = 20;
/// So many targets are looked at: a selector may stand for thousands.
const LOOKED_AT: usize = 100;
/// Looks side by side.
const LOOKS: usize = 16;

/// What `Contain` would do.
pub async fn plan(ctx: &Ctx, incident: &Incident, targets: &[Target], digest: &str) -> Plan {
    let resolved: Vec<&Resolved> = targets.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
    let runs: Vec<_> = resolved.iter().take(LOOKED_AT).map(|r| target(ctx, incident, r).boxed()).collect();
    let rows: Vec<(usize, PlanTarget)> = stream::iter(runs).buffered(LOOKS).collect().await;
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    Plan {
        digest: digest.to_owned(),
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
            let quarantine = as_if_held(ctx, incident, target);
            let beside = beside(&quarantine, || ctx.stores.quarantines.state());
            let case = Case::of(&quarantine, &session.partition, session.now()).with(beside);
            let wanted = actions(&quarantine, Keys::read(ctx.mac_key_file.as_deref()).await);
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
        let missing = |(name, _): &(String, _)| Stores::named(&ctx.stores.evidence, name).is_none();
        let pieces = evidence::wanted(incident, target).filter(missing);
        calls.extend(pieces.map(|_| format!("ec2:CreateSnapshots {}: all volumes", target.resource.id)));
    }
    let problem = (!problems.is_empty()).then(|| bounded(problems.join("; "), 2000));
    (calls.len(), PlanTarget { resource: target.resource.arn(), calls: shown(calls), problem })
}

/// Its Quarantine as it would be: the one that is there, with its record and its holders, or a new one.
fn as_if_held(ctx: &Ctx, incident: &Incident, target: &Resolved) -> Quarantine {
    let there = ctx.stores.quarantine_of(&target.resource);
    let mut quarantine = there.map_or_else(|| holds::new(target, &quarantine_name(&target.resource)), |q| (*q).clone());
    let (holder, _) = holds::holder(incident, target, &quarantine.spec.holders);
    holds::put(&mut quarantine.spec.holders, holder);
    quarantine
}

/// All that is wanted of it then; the mark comes last.
fn actions(quarantine: &Quarantine, keys: Keys) -> Vec<Wanted> {
    let mut wanted = wanted(&quarantine.spec.holders, quarantine.spec.original.iter().flat_map(|o| o.keys()));
    if !wanted.is_empty() && quarantine.spec.resource.kind.has_tags() {
        wanted.push(Wanted::TagResource(keys));
    }
    wanted
}

fn shown(calls: Vec<String>) -> Vec<String> {
    let more = calls.len().saturating_sub(CALLS);
    let mut calls: Vec<String> = calls.into_iter().take(CALLS).map(|c| bounded(c, 500)).collect();
    calls.extend((more > 0).then(|| format!("and {more} more")));
    calls
}
