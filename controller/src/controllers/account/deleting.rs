//! A deleted AwsAccount: without it nobody could give back, finish or end what it was used for.

use std::time::Duration;

use firebreak_crds::conditions::{READY, RECONCILING};
use firebreak_crds::{ABANDON, AwsAccount, Evidence, Quarantine, ResidualDeny, Resource as AwsResource};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::{PREPARED, end_residual_denies, old_sessions};
use crate::aws::Session;
use crate::clock;
use crate::conditions::Conditions;
use crate::controllers::evidence::is_complete;
use crate::controllers::{Ctx, Error, account_of, is_abandoned, list, set_finalizer, write_status};

/// It stays while something needs it, and says what; residual denies are kept, and ended in their time, meanwhile.
pub async fn delete(ctx: &Ctx, api: &Api<AwsAccount>, account: &AwsAccount) -> Result<Action, Error> {
    let needs = if is_abandoned(account) { Vec::new() } else { needs(ctx, account).await? };
    if needs.is_empty() {
        set_finalizer(api, account, false).await?;
        ctx.memory.forget(&account.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let mut status = account.status.clone().unwrap_or_default();
    let problem = match ctx.accounts.session(account).await {
        Ok(session) => keep_and_end(ctx, &session, account, &mut status.residual_denies).await,
        Err(error) => Some(error.to_string()),
    };
    let problem = problem.map(|p| format!("; {p}")).unwrap_or_default();
    let message = format!("being deleted, but still needed: {}{problem}", needs.join("; "));
    let mut c = Conditions::new(&status.conditions, account.metadata.generation, clock::now());
    c.set(READY, "False", "DeletionBlocked", &*message);
    c.set(RECONCILING, "True", "DeletionBlocked", message);
    status.conditions = c.done();
    if account.status.as_ref() != Some(&status) {
        write_status(api, &AwsAccount { status: Some(status), ..account.clone() }).await?;
    }
    Ok(Action::requeue(Duration::from_secs(5)))
}

/// Keeps the denies, which are looked at more rarely than this is called, and ends those that are over. Why one may not be as it is to
/// be: what a look found stands until the next one.
async fn keep_and_end(ctx: &Ctx, session: &Session, account: &AwsAccount, denies: &mut Vec<ResidualDeny>) -> Option<String> {
    let uid = account.uid().unwrap_or_default();
    let mut looked = None;
    if ctx.memory.keeps(&uid, PREPARED) {
        looked = Some(old_sessions::keep(ctx, session, account, denies).await.map_err(|e| e.to_string()));
    }
    let ended = end_residual_denies(ctx, session, denies).await;
    let not_kept = ctx.memory.not_kept(&uid, looked);
    ended.err().map(|e| e.to_string()).or(not_kept)
}

/// What needs the account, by live reads: Quarantines, evidence that is not complete, and denies that have not expired. What is of
/// another account, which had the name before, is neither contained nor given back in this one.
async fn needs(ctx: &Ctx, account: &AwsAccount) -> Result<Vec<String>, Error> {
    let is_in_it = |resource: &AwsResource| {
        resource.account_ref.name == account.name_any() && account_of(resource, Some(account)).is_ok()
    };
    let live = list::<Quarantine>(&ctx.client).await?;
    let held = live.iter().filter(|q| is_in_it(&q.spec.resource));
    let mut needs: Vec<String> = held.map(|q| format!("Quarantine {}", q.name_any())).collect();
    let live = list::<Evidence>(&ctx.client).await?;
    let open = live.iter().filter(|e| is_in_it(&e.spec.resource) && !is_complete(e));
    needs.extend(open.map(|e| format!("Evidence {}, which is not complete", e.name_any())));
    let denies = account.status.iter().flat_map(|s| &s.residual_denies);
    if let Some(last) = denies.clone().map(|d| d.until.0).max() {
        needs.push(format!(
            "{} residual denies of sessions, the last until {last} (the annotation {ABANDON}: <uid> leaves them in AWS)",
            denies.count()
        ));
    }
    Ok(needs)
}
