//! What waits for approval though no policy says so: targets that carried a protected tag before the Incident was declared, and
//! actions that would cut many others off. It never refuses: people say whether it goes.
//!
//! AWS is asked about a target once, before its hold. Who is in the account may change the answer, and can so delay a containment until
//! somebody approves, or spare it the approval; never prevent it. What AWS does not say in time does not wait.

mod instance;
mod role;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use firebreak_crds::{AwsAccount, Incident, Quarantine, Resource, ResourceKind, WideBlastRadius, quarantine_name};
use futures::FutureExt;
use futures::future::join_all;
use kube::ResourceExt;
use tokio::time::Instant;

use super::resolve::{Resolved, Target};
use crate::aws::{AwsError, Class, Principal};
use crate::containment::name_of;
use crate::controllers::Ctx;
use crate::events;
use crate::memory::CutOff;

/// What cuts off those whom an instance serves.
const OF_AN_INSTANCE: [&str; 6] = [
    "isolateNetwork",
    "removePublicAddresses",
    "detachFromAutoScaling",
    "deregisterFromLoadBalancers",
    "stopInstance",
    "terminateInstance",
];
/// What cuts off those who use a role.
const OF_A_ROLE: [&str; 3] = ["denyAll", "revokeSessions", "sealTrustPolicy"];
/// Containing a target is delayed by no more.
const PATIENCE: Duration = Duration::from_secs(2);

/// So much of what AWS does not say is told.
const SHOWN: usize = 5;

/// Why actions of a target wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The names of the actions; None: all.
    actions: Option<&'static [&'static str]>,
    /// In words that are said of the target: `it is ...`.
    pub why: String,
    /// Whether its evidence waits, too.
    pub evidence_too: bool,
}

impl Cause {
    /// Why these actions wait, or all: not the evidence.
    pub fn of(actions: Option<&'static [&'static str]>, why: impl Into<String>) -> Self {
        Self { actions, why: why.into(), evidence_too: false }
    }

    /// There are too many: nothing at all is done.
    pub fn too_many(why: String) -> Self {
        Self { actions: None, why, evidence_too: true }
    }

    /// Whether an action of this name waits for it.
    pub fn concerns(&self, action: &str) -> bool {
        self.actions.is_none_or(|actions| actions.contains(&action))
    }
}

/// A target that AWS is to be asked about.
pub type Due = (Resource, Arc<AwsAccount>);

/// What was found about a target.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whom it would cut off.
    facts: Vec<CutOff>,
    /// What AWS did not say.
    unread: Vec<String>,
}

impl Seen {
    /// What was read; nothing where it could not be read.
    fn take<T: Default>(&mut self, read: Result<T, AwsError>) -> T {
        read.unwrap_or_else(|error| {
            self.unread.push(error.to_string());
            T::default()
        })
    }

    /// Whom it would cut off, as far as that is known: what was known before counts where not all could be read.
    fn with(self, before: Option<Vec<CutOff>>) -> Vec<CutOff> {
        let before = before.filter(|_| !self.unread.is_empty()).unwrap_or_default();
        let still = before.into_iter().filter(|b| !self.facts.contains(b)).collect::<Vec<_>>();
        self.facts.into_iter().chain(still).collect()
    }
}

/// Says of each target why actions of it wait. Of one that is to be looked at first, all wait.
pub fn note(ctx: &Ctx, incident: &Incident, targets: &mut [Target]) {
    for target in targets.iter_mut().filter_map(|t| t.resolved.as_mut().ok()) {
        let quarantine = ctx.stores.quarantine_of(&target.resource);
        target.causes.extend(tagged(incident, target, quarantine.as_deref()));
        if let Some(actions) = asks(target, quarantine.as_deref()) {
            let known = ctx.memory.cut_off(&quarantine_name(&target.resource));
            target.causes.extend(cuts_off(&target.account, actions, known, ctx.drift_interval));
        }
    }
}

/// Why these actions wait, or all where AWS was not asked lately; None where nothing counts against them.
fn cuts_off(
    account: &AwsAccount,
    actions: &'static [&'static str],
    known: Option<(Duration, Vec<CutOff>)>,
    interval: Duration,
) -> Option<Cause> {
    let first = || Some(Cause::of(None, "it is looked at first"));
    let Some((age, facts)) = known else { return first() };
    let facts: Vec<&str> = counted(account, &facts).collect();
    match facts.is_empty() {
        true if age < interval => None,
        true => first(),
        false => {
            let asker = account.name_any();
            let why = format!("{} (AwsAccount {asker} asks for that: spec.approvals)", facts.join("; "));
            Some(Cause::of(Some(actions), why))
        }
    }
}

/// Whom it would cut off, in words, but for what the account does not count.
fn counted<'f>(account: &AwsAccount, facts: &'f [CutOff]) -> impl Iterator<Item = &'f str> {
    let ignored = &account.spec.approvals.ignored_causes;
    facts.iter().filter(|(cause, _)| !ignored.contains(cause)).map(|(_, who)| who.as_str())
}

/// The targets to ask AWS about: never asked about, or not for some time.
pub fn due(ctx: &Ctx, targets: &[Target]) -> Vec<Due> {
    let old = |r: &Resolved| {
        let known = ctx.memory.cut_off(&quarantine_name(&r.resource));
        known.is_none_or(|(age, _)| age >= ctx.drift_interval)
    };
    let asked = targets.iter().filter_map(|t| t.resolved.as_ref().ok());
    let asked = asked.filter(|r| asks(r, ctx.stores.quarantine_of(&r.resource).as_deref()).is_some() && old(r));
    asked.map(|r| (r.resource.clone(), r.account.clone())).collect()
}

/// Asks AWS about each. Whether that changes what waits. What AWS said before holds while it does not answer: whoever empties its
/// buckets spares nobody an approval that is asked for.
pub async fn look(ctx: &Ctx, incident: &Incident, due: &[Due]) -> bool {
    let seen = join_all(due.iter().map(|(resource, account)| at(ctx, resource, account))).await;
    let (mut news, mut unread) = (false, Vec::new());
    for ((resource, account), seen) in due.iter().zip(seen) {
        let name = quarantine_name(resource);
        unread.extend(seen.unread.iter().map(|error| format!("{resource}: {error}")));
        let facts = seen.with(ctx.memory.cut_off(&name).map(|(_, before)| before));
        news |= counted(account, &facts).next().is_none(); // it goes, and waited for this look at most
        news |= ctx.memory.learn_cut_off(&name, &facts);
    }
    if !unread.is_empty() {
        let (shown, more) = (&unread[..unread.len().min(SHOWN)], unread.len().saturating_sub(SHOWN));
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let what = format!("what would be cut off is not fully known, and so waits for nothing: {}{more}", shown.join("; "));
        ctx.events.warning(&events::reference(incident), "BlastRadiusUnknown", what).await;
    }
    news
}

async fn at(ctx: &Ctx, resource: &Resource, account: &AwsAccount) -> Seen {
    let (deadline, mut seen) = (Instant::now() + PATIENCE, Seen::default());
    let session = match by(deadline, "sts:GetCallerIdentity", ctx.accounts.session(account)).await {
        Ok(session) => session,
        Err(error) => {
            seen.unread.push(error.to_string());
            return seen;
        }
    };
    match resource.kind {
        ResourceKind::Ec2Instance => instance::look(&session, resource, instance::hosts(account), deadline).await,
        ResourceKind::IamRole => role::look(&session, resource, deadline).boxed().await,
        ResourceKind::IamUser | ResourceKind::AccessKey | ResourceKind::RoleSession => seen,
    }
}

/// What is read, or an error that names the operation where that takes too long.
async fn by<T>(deadline: Instant, operation: &str, read: impl Future<Output = Result<T, AwsError>>) -> Result<T, AwsError> {
    let late = |_| AwsError {
        class: Class::Transient,
        operation: operation.into(),
        code: "NoAnswer".into(),
        message: format!("AWS did not say within {} s", PATIENCE.as_secs()),
    };
    tokio::time::timeout_at(deadline, read).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// The actions that may cut others off, where the account asks for approval of them and any is not in force already.
fn asks(target: &Resolved, quarantine: Option<&Quarantine>) -> Option<&'static [&'static str]> {
    let actions: &[&str] = match target.resource.kind {
        ResourceKind::Ec2Instance => &OF_AN_INSTANCE,
        ResourceKind::IamRole => &OF_A_ROLE,
        ResourceKind::IamUser | ResourceKind::AccessKey | ResourceKind::RoleSession => return None,
    };
    let held =
        |name: &str| quarantine.is_some_and(|q| q.spec.holders.iter().flat_map(|h| &h.actions).any(|a| name_of(a) == name));
    let new = target.actions.iter().map(name_of).any(|name| actions.contains(&name) && !held(name));
    (new && target.account.spec.approvals.wide_blast_radius == WideBlastRadius::Required).then_some(actions)
}

/// Whether it carried a protected tag before the Incident was there. What is held is held: then no tag counts any more.
fn tagged(incident: &Incident, target: &Resolved, quarantine: Option<&Quarantine>) -> Option<Cause> {
    let (resource, declared) = (&target.resource, incident.metadata.creation_timestamp.as_ref()?.0);
    let known = target.account.status.iter().flat_map(|s| &s.protected_by_tag);
    let (kind, id) = carrier(resource);
    let mut earlier = known.filter(|k| (k.kind, &k.region, &k.id) == (kind, &resource.region, &id));
    let tag = earlier.find(|k| k.since.0 < declared).filter(|_| quarantine.is_none())?;
    let (key, since) = (&tag.key, tag.since.0);
    let why = format!(
        "it has carried the tag {key}, which AwsAccount {} protects, since {since} or earlier",
        target.account.name_any()
    );
    Some(Cause::of(None, why))
}

/// What carries the tags: of an access key its user, of a session its role.
fn carrier(resource: &Resource) -> (ResourceKind, String) {
    match (resource.kind, Principal::of(resource)) {
        (ResourceKind::Ec2Instance, _) => (resource.kind, resource.id.clone()),
        (_, Principal::User(name)) => (ResourceKind::IamUser, name),
        (_, Principal::Role(name)) => (ResourceKind::IamRole, name),
    }
}

#[cfg(test)]
#[path = "blast_radius_tests.rs"]
mod tests;
