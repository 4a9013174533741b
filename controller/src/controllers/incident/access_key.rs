//! A target that is an access key: whose it is, asked of AWS before anything is held.

use firebreak_crds::{AccessKeyScope, AwsAccount, Incident, KeyUser, Mode, Resource, ResourceKind, quarantine_name};
use kube::ResourceExt;

use super::protection;
use super::resolve::Refusal;
use crate::aws::{AwsError, Class};
use crate::controllers::Ctx;
use crate::stores::Stores;

/// What the key stands for: the key with its user; or the user, where the policy says so.
///
/// # Errors
/// Where the key is of another account, AWS shows no such key, or does not answer.
pub async fn resolve(ctx: &Ctx, incident: &Incident, key: Resource, account: &AwsAccount) -> Result<Resource, Refusal> {
    let scope = scope(ctx, incident);
    if let Some(user) = known(ctx, incident, &key, scope) {
        return Ok(stands_for(key, user, scope));
    }
    if incident.spec.mode == Mode::Release {
        return Err(Refusal::new("NotHeld", format!("{key} is not held by this Incident")));
    }
    let user = Box::pin(ask(ctx, &key, account)).await?;
    ctx.memory.learn(&key.arn(), user.clone());
    Ok(stands_for(key, user, scope))
}

fn scope(ctx: &Ctx, incident: &Incident) -> AccessKeyScope {
    let policy = Stores::named(&ctx.stores.policies, &incident.spec.policy_ref.name);
    policy.and_then(|p| p.spec.access_key.as_ref().map(|k| k.scope)).unwrap_or_default()
}

fn stands_for(key: Resource, user: KeyUser, scope: AccessKeyScope) -> Resource {
    match scope {
        AccessKeyScope::Key => Resource { user: Some(user), ..key },
        AccessKeyScope::User => Resource { kind: ResourceKind::IamUser, id: user.name, ..key },
    }
}

/// Whose it is, where that was found out before and is still relied upon: what is held needs no AWS to be told.
fn known(ctx: &Ctx, incident: &Incident, key: &Resource, scope: AccessKeyScope) -> Option<KeyUser> {
    let same = |r: &&Resource| Resource { user: None, ..(*r).clone() } == *key;
    let held = |name: &str| Stores::named(&ctx.stores.quarantines, name);
    let released = incident.status.iter().flat_map(|s| &s.targets).filter_map(|t| t.resource.as_ref());
    match scope {
        AccessKeyScope::Key => {
            let quarantine = held(&quarantine_name(key));
            let of_it = quarantine.as_ref().map(|q| &q.spec.resource).filter(same);
            let before = released.filter(|_| incident.spec.mode == Mode::Release).find(same);
            of_it.or(before).and_then(|r| r.user.clone())
        }
        AccessKeyScope::User => {
            let user = ctx.memory.learnt(&key.arn())?;
            let is_held = held(&quarantine_name(&stands_for(key.clone(), user.clone(), scope))).is_some();
            (is_held || incident.spec.mode == Mode::Release).then_some(user)
        }
    }
}

async fn ask(ctx: &Ctx, key: &Resource, account: &AwsAccount) -> Result<KeyUser, Refusal> {
    let session = ctx.accounts.session(account).await.map_err(|e| unanswered(key, account, &e))?;
    let (owner, user) = futures::join!(session.account_of_key(&key.id), session.user_of_key(&key.id));
    let owner = owner.map_err(|e| unanswered(key, account, &e))?;
    if owner != account.spec.account_id {
        return Err(of_another_account(key, account, &owner));
    }
    let name = match user {
        Ok(name) => name.ok_or_else(|| unknown(key))?,
        Err(error) if error.class == Class::Denied => return Err(unknown(key)),
        Err(error) => return Err(unanswered(key, account, &error)),
    };
    let user = session.user(&name).await.map_err(|e| unanswered(key, account, &e))?;
    user.map(|u| KeyUser { name, id: u.id }).ok_or_else(|| of_no_user(key))
}

fn of_another_account(key: &Resource, account: &AwsAccount, owner: &str) -> Refusal {
    let (name, id) = (account.name_any(), &account.spec.account_id);
    let what = format!(
        "{key} is of account {owner}, and AwsAccount {name} is {id}: name the AwsAccount of account {owner} in accountRef"
    );
    Refusal::new("WrongAccount", what)
}

fn unknown(key: &Resource) -> Refusal {
    let what = format!(
        "AWS shows no {key} in account {}: check the id; a key that was deleted needs no containment. AWS answers alike where the role lacks iam:GetAccessKeyLastUsed",
        key.account_id
    );
    Refusal::new("KeyNotFound", what)
}

/// The root user is no IAM user.
fn of_no_user(key: &Resource) -> Refusal {
    let what = format!(
        "{key} is of no IAM user: one of the account's root user can be switched off by the root user only, in the console under Security credentials"
    );
    Refusal::new("KeyNotFound", what)
}

fn unanswered(key: &Resource, account: &AwsAccount, error: &AwsError) -> Refusal {
    let what = format!("whose {key} is was not found out in AwsAccount {}: {error}", account.name_any());
    Refusal::new(if error.class == Class::Transient { protection::UNKNOWN } else { error.class.reason() }, what)
}
