//! The end of a verified release: the Quarantine goes. One Quarantine is one containment.

use firebreak_crds::{AwsAccount, Quarantine, ResidualDeny, Text};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};

use crate::aws::Principal;
use crate::clock;
use crate::containment::{Case, Report, Residual, beside, keeps_keys_off, release_of, stays_off, what_is_left};
use crate::controllers::{Ctx, Error, find, kube, set_finalizer, to_be_released, write_status};

/// A Quarantine whose release is verified.
pub struct Finished<'a> {
    /// As last written.
    pub quarantine: &'a Quarantine,
    /// The name of a user that has another now than the one under which it was contained.
    pub renamed: Option<&'a str>,
    /// What the last pass saw, by action.
    pub reports: &'a [Report],
}

/// Hands the residual deny over to the AwsAccount, then deletes the Quarantine.
///
/// # Errors
/// `Changed` where somebody holds it again meanwhile: then it stays.
pub async fn finish(
    ctx: &Ctx,
    api: &Api<Quarantine>,
    finished: &Finished<'_>,
    account: Option<&AwsAccount>,
) -> Result<(), Error> {
    let quarantine = finished.quarantine;
    if !to_be_released(quarantine) {
        return Err(Error::Changed(quarantine.name_any())); // held again while it was being given back
    }
    if let Some(account) = account {
        hand_over(ctx, finished, account).await?;
    }
    pass_on(ctx, api, quarantine).await?;
    let name = quarantine.name_any();
    let mut last = quarantine.clone();
    if last.metadata.deletion_timestamp.is_none() {
        let exactly = Preconditions { uid: last.uid(), resource_version: last.resource_version() };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        kube("delete a released Quarantine", api.delete(&name, &params)).await?;
        match find("read a released Quarantine", api.get(&name)).await? {
            Some(live) if live.uid() == last.uid() && live.spec == last.spec => last = live,
            Some(_) => return Err(Error::Changed(name)),
            None => return Ok(()),
        }
    }
    set_finalizer(api, &last, false).await?;
    ctx.metrics.forget(&name);
    Ok(())
}

/// A key that this release leaves off stays off when another Quarantine of the same user is released: more than the default is
/// given back only if everybody says so.
async fn pass_on(ctx: &Ctx, api: &Api<Quarantine>, quarantine: &Quarantine) -> Result<(), Error> {
    if release_of(&quarantine.spec).reactivate_access_keys || !keeps_keys_off(quarantine) {
        return Ok(());
    }
    for other in beside(quarantine, || ctx.stores.quarantines.state()) {
        let Some(key) = other.shared_key(quarantine).map(stays_off) else { continue };
        let Some(mut live) = find("read a Quarantine of the same user", api.get(&other.name)).await? else { continue };
        let keeps = keeps_keys_off(&live); // before the note, which is one of that action's
        let original = live.spec.original.get_or_insert_default();
        if keeps && original.insert(key, Text("true".into())).is_none() {
            kube("keep a key off", api.replace(&other.name, &PostParams::default(), &live)).await?;
        }
    }
    Ok(())
}

fn entry(finished: &Finished<'_>, case: &Case, residual: Residual) -> ResidualDeny {
    let renamed = || finished.renamed.map(|name| Principal::User(name.to_owned()));
    let own = || renamed().unwrap_or_else(|| Principal::of(&finished.quarantine.spec.resource));
    let principal = residual.role.map_or_else(own, Principal::Role);
    let name = || principal.name().to_owned();
    ResidualDeny {
        user_name: matches!(principal, Principal::User(_)).then(name),
        role_name: matches!(principal, Principal::Role(_)).then(name),
        policy_name: residual.policy,
        until: clock::time(residual.until),
        user_id: residual.userid.or_else(|| case.principal_id()),
    }
}

/// The residual deny outlives the Quarantine: the AwsAccount controller removes it in its time.
async fn hand_over(ctx: &Ctx, finished: &Finished<'_>, account: &AwsAccount) -> Result<(), Error> {
    let shown: Vec<Residual> = finished.reports.iter().flat_map(|r| r.verdict.shown.clone()).collect();
    let case = Case::of(finished.quarantine, "aws", clock::now());
    let left = what_is_left(&case, &shown).into_iter();
    let mut entries: Vec<ResidualDeny> = left.map(|residual| entry(finished, &case, residual)).collect();
    entries.dedup();
    if entries.is_empty() {
        return Ok(());
    }
    let api = Api::<AwsAccount>::all(ctx.client.clone());
    let mut live = kube("read the AwsAccount", api.get(&account.name_any())).await?;
    let status = live.status.get_or_insert_default();
    let new: Vec<ResidualDeny> = entries.into_iter().filter(|e| !status.residual_denies.contains(e)).collect();
    if !new.is_empty() {
        status.residual_denies.extend(new);
        write_status(&api, &live).await?;
    }
    Ok(())
}
