//! The AwsAccount controller: checks the way in, makes isolation groups ahead, keeps the denies of old sessions, and ends
//! those whose time is over.

mod deleting;
mod old_sessions;
mod tagged;

use std::sync::Arc;
use std::time::Duration;

use firebreak_crds::conditions::{READY, RECONCILING, STALLED};
use firebreak_crds::{
    AwsAccount, AwsAccountStatus, DenyProfile, FINALIZER, IsolationGroup, IsolationGroups, ResidualDeny, is_true,
};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};

use super::{Ctx, Error, reconcile_requested, set_finalizer, write_status};
use crate::aws::{AwsError, Call, Class, DenyEdit, GroupRole, Guard, Outcome, Principal, Priority, SESSION_DENIES, Session};
use crate::clock;
use crate::conditions::Conditions;
use crate::containment::{prepare_group, prepare_profile};
use crate::events;
use crate::memory::next_sweep;

/// What is made ahead is looked at so often, and so are the denies of old sessions of an account that is being deleted; groups in use are looked
/// at with what they isolate.
const PREPARED: Duration = Duration::from_mins(5);
/// The denies of old sessions are read so often at most, unless a look is asked for: a release that ends, or an account that cannot be
/// used as asked, is no reason to read them all again.
const KEPT: Duration = Duration::from_secs(30);
/// More steps than making one group takes.
const STEPS: usize = 6;

/// Reconciles one AwsAccount.
///
/// # Errors
/// Where the API server must be asked again; what AWS says goes into conditions.
pub async fn reconcile(account: Arc<AwsAccount>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let api = Api::<AwsAccount>::all(ctx.client.clone());
    if account.metadata.deletion_timestamp.is_some() {
        return deleting::delete(&ctx, &api, &account).await;
    }
    let (uid, basis) = (account.uid().unwrap_or_default(), basis(&account));
    if let Some(wait) = ctx.memory.not_due(&uid, &basis) {
        return Ok(Action::requeue(wait));
    }
    let account = set_finalizer(&api, &account, true).await?;
    let asked = account.status.as_ref().and_then(|s| s.last_handled_reconcile_at.clone()) != reconcile_requested(&account);
    let (status, wait) = look(&ctx, &account).await;
    let mut next = account.clone();
    if next.status.as_ref() != Some(&status) {
        next.status = Some(status);
        next = write_status(&api, &next).await?;
        publish(&ctx, &account, &next).await;
    }
    let memo = ctx.memory.of(&uid);
    ctx.memory.set(&uid, crate::memory::Memo { basis: self::basis(&next), due: std::time::Instant::now() + wait, ..memo });
    if ctx.memory.keeps(&uid, KEPT) || asked {
        keep_denied(&ctx, &next).await;
    }
    Ok(Action::requeue(wait))
}

/// The old sessions of what was released. After the status is written, since what is slow or refused here must hold nothing else back;
/// the account can be used all the same, so what fails is told as an event, and tried again with the next look.
async fn keep_denied(ctx: &Ctx, account: &AwsAccount) {
    let denies = account.status.as_ref().map_or(&[][..], |s| &s.residual_denies);
    if denies.is_empty() || older_twin(ctx, account).is_some() {
        return;
    }
    let Ok(session) = ctx.accounts.session(account).await else { return }; // Ready says so
    if let Err(error) = old_sessions::keep(ctx, &session, account, denies).await {
        let what = format!("what denies the old sessions of what was released is not all known to be in place: {error}");
        ctx.events.warning(&events::reference(account), "OldSessionsNotKept", what).await;
    }
}

fn basis(account: &AwsAccount) -> String {
    let denies = account.status.as_ref().map_or(0, |s| s.residual_denies.len());
    format!("{:?} {:?} {denies}", account.metadata.generation, reconcile_requested(account))
}

/// The whole status, and when to look again.
async fn look(ctx: &Ctx, account: &AwsAccount) -> (AwsAccountStatus, Duration) {
    let mut status = account.status.clone().unwrap_or_default();
    status.observed_generation = account.metadata.generation;
    status.last_handled_reconcile_at = reconcile_requested(account);
    let result = use_it(ctx, account, &mut status).await;
    let previous = std::mem::take(&mut status.conditions);
    let mut c = Conditions::new(&previous, account.metadata.generation, clock::now());
    let wait = match &result {
        Ok(()) => {
            c.set(READY, "True", "Verified", format!("reached as {}", status.caller_arn.clone().unwrap_or_default()));
            if prepares(account) { PREPARED } else { next_sweep(PREPARED, clock::now()) }
        }
        Err(problem) => {
            let (reason, message) = (problem.reason(), problem.to_string());
            c.set(READY, "False", reason, &*message);
            c.set(if problem.is_dead_end() { STALLED } else { RECONCILING }, "True", reason, message);
            problem.retry_after()
        }
    };
    status.conditions = c.done();
    let now = clock::now();
    let ahead = status.residual_denies.iter().filter(|d| d.until.0 > now); // one that is over is tried again with the next look
    let next_deny = ahead.map(|d| clock::since(now, d.until.0)).min();
    (status, next_deny.map_or(wait, |d| wait.min(d.max(Duration::from_secs(1)))))
}

/// Whether anything is made ahead, and so looked at from time to time.
fn prepares(account: &AwsAccount) -> bool {
    let prepare = &account.spec.prepare;
    prepare.isolation_groups == IsolationGroups::AllVpcs || prepare.deny_profile == DenyProfile::Always
}

/// Why an account cannot be used as asked.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "AwsAccount {0} has the same accountId, and came first (of one second: by name): it is the one that is used; delete this one"
    )]
    Duplicate(String),
    #[error(transparent)]
    Aws(#[from] AwsError),
}

impl Problem {
    fn reason(&self) -> &'static str {
        match self {
            Self::Duplicate(_) => "DuplicateAccount",
            Self::Aws(e) if e.code == "WrongAccount" => "WrongAccount",
            Self::Aws(e) => e.class.reason(),
        }
    }

    fn is_dead_end(&self) -> bool {
        !matches!(self, Self::Aws(AwsError { class: Class::Transient | Class::Fenced | Class::Unknown, .. }))
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::Duplicate(_) => Duration::from_secs(10),
            Self::Aws(e) => e.class.retry_after().max(Duration::from_secs(2)),
        }
    }
}

async fn use_it(ctx: &Ctx, account: &AwsAccount, status: &mut AwsAccountStatus) -> Result<(), Problem> {
    if let Some(older) = older_twin(ctx, account) {
        return Err(Problem::Duplicate(older));
    }
    let session = ctx.accounts.session(account).await?;
    status.caller_arn = Some(session.caller_arn.clone());
    status.base_caller_arn.clone_from(&session.base_caller_arn);
    let AwsAccountStatus { residual_denies, isolation_groups, protected_by_tag, .. } = status;
    let (denies, profile, groups, tags) = futures::join!(
        end_residual_denies(ctx, &session, residual_denies),
        prepare_denied(ctx, account, &session),
        prepare(ctx, account, &session, isolation_groups),
        tagged::look(&session, account, protected_by_tag)
    );
    if let Err(error) = tags {
        let what = format!("what carries a protected tag is not all known anew, and what was known before counts: {error}");
        ctx.events.warning(&events::reference(account), "ProtectedTagsNotRead", what).await;
    }
    denies.and(profile).and(groups).map_err(Problem::Aws) // none of them holds another back; the first is told
}

/// Two objects for one account could undo each other: the older wins.
fn older_twin(ctx: &Ctx, account: &AwsAccount) -> Option<String> {
    let age = |a: &AwsAccount| (a.meta().creation_timestamp.as_ref().map(|t| t.0), a.name_any());
    let twins = ctx
        .stores
        .accounts
        .state()
        .into_iter()
        .filter(|a| a.spec.account_id == account.spec.account_id && a.uid() != account.uid());
    let live = twins.filter(|a| a.finalizers().iter().any(|f| f == FINALIZER) || a.meta().deletion_timestamp.is_none());
    live.filter(|a| age(a) < age(account)).min_by_key(|a| age(a)).map(|a| a.name_any())
}

/// The isolation group of every VPC of every region: made where missing, emptied where it has rules, and read back. `ready` has those that
/// are; of a region that cannot be read, those that were.
async fn prepare(
    ctx: &Ctx,
    account: &AwsAccount,
    session: &Session,
    ready: &mut Vec<IsolationGroup>,
) -> Result<(), AwsError> {
    if account.spec.prepare.isolation_groups != IsolationGroups::AllVpcs {
        return Ok(());
    }
    let regions = &account.spec.regions;
    let looks = join_all(regions.iter().map(|region| prepare_region(ctx, session, region))).await;
    let (mut first, before) = (Ok(()), std::mem::take(ready));
    for (region, look) in regions.iter().zip(looks) {
        match look {
            Ok((groups, problem)) => {
                ready.extend(groups);
                first = first.and(problem);
            }
            Err(error) => {
                ready.extend(before.iter().filter(|g| g.region == *region).cloned());
                first = first.and(Err(error));
            }
        }
    }
    ready.sort_by(|a, b| (&a.region, &a.vpc_id).cmp(&(&b.region, &b.vpc_id)));
    first
}

/// The groups of one region that are ready, and what became of the others: a VPC that takes no group more holds no other back.
async fn prepare_region(
    ctx: &Ctx,
    session: &Session,
    region: &str,
) -> Result<(Vec<IsolationGroup>, Result<(), AwsError>), AwsError> {
    let (mut vpcs, mut first) = (session.vpcs(region).await?, Ok(()));
    let mut ready = Vec::new();
    for _ in 0..STEPS {
        let groups = session.our_groups(region).await?;
        let calls: Vec<Vec<Call>> = vpcs.iter().map(|vpc| prepare_group(&groups, vpc).0).collect();
        if calls.iter().all(Vec::is_empty) {
            let ours = groups.into_iter().filter(|g| g.name == GroupRole::Isolation.group_name() && vpcs.contains(&g.vpc));
            ready.extend(ours.map(|g| IsolationGroup { region: region.to_owned(), vpc_id: g.vpc, group_id: g.id }));
            break;
        }
        let sent = join_all(calls.into_iter().map(|calls| send(ctx, session, Some(region), calls))).await;
        let mut fine = sent.iter().map(Result::is_ok);
        vpcs.retain(|_| fine.next().unwrap_or_default());
        first = sent.into_iter().fold(first, Result::and);
    }
    Ok((ready, first))
}

/// The profile whose role may do nothing: made where it is missing, mended where somebody changed it, and read back.
async fn prepare_denied(ctx: &Ctx, account: &AwsAccount, session: &Session) -> Result<(), AwsError> {
    if account.spec.prepare.deny_profile != DenyProfile::Always {
        return Ok(());
    }
    for _ in 0..STEPS {
        let (calls, ready) = prepare_profile(&session.deny_profile().await?);
        if ready {
            break;
        }
        send(ctx, session, None, calls).await?;
    }
    Ok(())
}

async fn send(ctx: &Ctx, session: &Session, region: Option<&str>, calls: Vec<Call>) -> Result<(), AwsError> {
    let sent = calls.iter().map(|call| ctx.actor.act(session, region, call, &Guard::Narrowing, Priority::Sweep));
    join_all(sent).await.into_iter().try_for_each(settled)
}

/// What is there already is made: by somebody, or by a call of ours whose answer was lost. The next look shows it.
fn settled(answer: Result<Outcome, AwsError>) -> Result<(), AwsError> {
    match answer {
        Err(error) if !error.is_overtaken() => Err(error),
        _ => Ok(()),
    }
}

/// Denies whose every session has expired: they give nothing back any more. One that stays holds no other back.
async fn end_residual_denies(ctx: &Ctx, session: &Session, denies: &mut Vec<ResidualDeny>) -> Result<(), AwsError> {
    let now = clock::now();
    let over: Vec<ResidualDeny> = denies.iter().filter(|d| d.until.0 <= now).cloned().collect();
    let ended = join_all(over.iter().map(|deny| end_residual_deny(ctx, session, deny, now))).await;
    let mut first = Ok(());
    for (deny, ended) in over.iter().zip(ended) {
        match ended {
            Ok(()) => denies.retain(|d| d != deny),
            Err(error) => first = first.and(Err(error)),
        }
    }
    first
}

async fn end_residual_deny(ctx: &Ctx, session: &Session, deny: &ResidualDeny, now: Timestamp) -> Result<(), AwsError> {
    let Some(principal) = Principal::denied(deny) else { return Ok(()) };
    let call = match &principal {
        Principal::Role(role) if deny.policy_name == SESSION_DENIES => {
            Call::EditSessionDenies { role: role.clone(), edit: DenyEdit::EndExpired(now) }
        }
        _ => Call::DeleteExpiredSessionsDeny { principal, policy: deny.policy_name.clone() },
    };
    match ctx.actor.act(session, None, &call, &Guard::Narrowing, Priority::Sweep).await {
        Err(error) if error.class != Class::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn publish(ctx: &Ctx, before: &AwsAccount, now: &AwsAccount) {
    let ready = |a: &AwsAccount| a.status.as_ref().is_some_and(|s| is_true(&s.conditions, READY));
    let condition = now.status.as_ref().and_then(|s| firebreak_crds::get_condition(&s.conditions, READY));
    let Some(condition) = condition.filter(|_| ready(now) != ready(before) || before.status.is_none()) else { return };
    let on = events::reference(now);
    if ready(now) {
        ctx.events.normal(&on, &condition.reason, condition.message.clone()).await;
    } else {
        ctx.events.warning(&on, &condition.reason, condition.message.clone()).await;
    }
}
