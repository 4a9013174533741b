//! A target that is an access key: whose it is, asked of AWS before anything is held. Nothing else waits for the answer: it is asked beside
//! what is held meanwhile, and goes on being asked where it takes long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebreak_crds::{AccessKeyScope, AwsAccount, Incident, KeyUser, Mode, Resource, ResourceKind, quarantine_name};
use futures::future::join_all;
use kube::ResourceExt;

use super::resolve::{self, Refusal};
use super::{AGAIN, protection};
use crate::aws::{AwsError, Class};
use crate::controllers::Ctx;
use crate::stores::Stores;

/// A reconcile waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A question that is older has got lost.
const LOST: Duration = Duration::from_mins(1);
/// An answer is good for so long, where AWS says nothing else. What waits is asked again with each sweep.
const KNOWN: Duration = Duration::from_mins(10);

/// What AWS said of access keys, by ARN. Lost with the process, which then asks.
#[derive(Default)]
pub struct Answers(Mutex<HashMap<String, Answer>>);

#[derive(Clone, Default)]
struct Answer {
    /// Whose it is. A key never becomes another's.
    user: Option<(Instant, KeyUser)>,
    /// Why the last question was not answered so.
    problem: Option<(Instant, Refusal)>,
    /// When the question was asked that is under way.
    asking: Option<Instant>,
}

type Said = Option<Result<KeyUser, Refusal>>;

impl Answer {
    /// What counts now. That AWS was not reached takes back nothing that it said.
    fn said(&self, now: Instant) -> Said {
        let user = self.user.as_ref().filter(|(at, _)| now - *at < KNOWN).map(|(_, user)| user.clone());
        match (&self.problem, user) {
            (Some((_, problem)), None) => Some(Err(problem.clone())),
            (Some((_, problem)), Some(_)) if problem.reason != protection::UNKNOWN => Some(Err(problem.clone())),
            (_, user) => user.map(Ok),
        }
    }

    fn is_asked(&self, now: Instant) -> bool {
        self.asking.is_some_and(|at| now - at < LOST)
    }

    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        let old = match (&self.problem, &self.user) {
            (Some((at, _)), _) => now - *at >= AGAIN,
            (None, Some((at, _))) => now - *at >= interval,
            (None, None) => true,
        };
        old && !self.is_asked(now)
    }

    fn learn(&mut self, said: Result<KeyUser, Refusal>, now: Instant) {
        self.asking = None;
        match said {
            Ok(user) => (self.user, self.problem) = (Some((now, user)), None),
            Err(problem) => self.problem = Some((now, problem)),
        }
    }
}

impl Answers {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &Resource) -> Answer {
        self.all().get(&key.arn()).cloned().unwrap_or_default()
    }

    fn change(&self, key: &Resource, change: impl FnOnce(&mut Answer)) {
        change(self.all().entry(key.arn()).or_default());
    }
}

/// A key of which it is not on record whose it is.
pub struct Open {
    key: Resource,
    account: Arc<AwsAccount>,
    /// What was known before this reconcile.
    before: Said,
    /// Whether AWS is asked now.
    due: bool,
}

/// The keys among the targets of which AWS must say whose they are.
pub fn open(ctx: &Ctx, incident: &Incident) -> Vec<Open> {
    if incident.spec.mode == Mode::Release {
        return Vec::new();
    }
    let now = Instant::now();
    let named = incident.spec.targets.iter().filter_map(|t| resolve::located(t, &ctx.stores).ok());
    let keys = named.filter(|(r, _)| r.kind == ResourceKind::AccessKey);
    let reached = keys.filter(|(key, account)| resolve::reachable(ctx, incident, key, account).is_ok());
    let unknown = reached.filter(|(key, _)| known(ctx, incident, key, scope(ctx, incident)).is_none());
    let open = |(key, account)| {
        let answer = ctx.keys.of(&key);
        Open { before: answer.said(now), due: answer.is_due(now, ctx.drift_interval), key, account }
    };
    unknown.map(open).collect()
}

/// What came of asking.
pub struct Asked {
    /// Something is known that was not.
    pub news: bool,
    /// AWS has not answered all yet.
    pub pending: bool,
}

/// Asks AWS about each that is due, and waits for a moment.
pub async fn look(ctx: &Arc<Ctx>, open: &[Open]) -> Asked {
    let asked = open.iter().filter(|o| o.due).map(|Open { key, account, .. }| {
        ctx.keys.change(key, |answer| answer.asking = Some(Instant::now()));
        let (ctx, key, account) = (ctx.clone(), key.clone(), account.clone());
        tokio::spawn(async move {
            let said = Box::pin(ask(&ctx, &key, &account)).await;
            ctx.keys.change(&key, |answer| answer.learn(said, Instant::now()));
        })
    });
    let asked: Vec<_> = asked.collect();
    let late = tokio::time::timeout(PATIENCE, join_all(asked)).await.is_err();
    if late {
        tracing::debug!("AWS has not said of all access keys whose they are: they are held when it has");
    }
    let now = Instant::now();
    let after: Vec<Answer> = open.iter().map(|o| ctx.keys.of(&o.key)).collect();
    Asked {
        news: open.iter().zip(&after).any(|(o, answer)| is_news(&o.before, &answer.said(now))),
        pending: after.iter().any(|answer| answer.is_asked(now)),
    }
}

/// Whether it must be acted upon at once. One problem for another can wait: else whoever answers in turns has it asked without end.
fn is_news(before: &Said, now: &Said) -> bool {
    match (before, now) {
        (_, None) | (Some(_), Some(Err(_))) => false,
        (None, Some(_)) | (Some(Err(_)), Some(Ok(_))) => true,
        (Some(Ok(before)), Some(Ok(now))) => before != now,
    }
}

/// What the key stands for: the key with its user; or the user, where the policy says so.
///
/// # Errors
/// Where the key is of another account, AWS shows no such key, or has not answered.
pub fn resolve(ctx: &Ctx, incident: &Incident, key: Resource) -> Result<Resource, Refusal> {
    let scope = scope(ctx, incident);
    if let Some(user) = known(ctx, incident, &key, scope) {
        return Ok(stands_for(key, user, scope));
    }
    if incident.spec.mode == Mode::Release {
        return Err(Refusal::new("NotHeld", format!("{key} is not held by this Incident")));
    }
    let said = ctx.keys.of(&key).said(Instant::now());
    let asking = || Err(Refusal::new("Resolving", format!("whose {key} is is being asked of AWS")));
    said.unwrap_or_else(asking).map(|user| stands_for(key, user, scope))
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
            let (_, user) = ctx.keys.of(key).user?;
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
    let what = format!("whose {key} is was not found out in AwsAccount {}", account.name_any());
    protection::unanswered(&what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> KeyUser {
        KeyUser { name: name.into(), id: "AIDA1".into() }
    }

    fn problem(reason: &'static str) -> Refusal {
        Refusal::new(reason, "why")
    }

    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn that_aws_does_not_answer_takes_back_nothing_that_it_said_but_for_a_time() {
        let (start, mut answer) = (Instant::now(), Answer::default());
        assert_eq!(answer.said(start), None);
        answer.learn(Err(problem(protection::UNKNOWN)), start);
        assert_eq!(answer.said(start), Some(Err(problem(protection::UNKNOWN))));
        answer.learn(Ok(user("mallory")), start);
        answer.learn(Err(problem(protection::UNKNOWN)), start);
        assert_eq!(answer.said(start), Some(Ok(user("mallory"))));
        assert_eq!(answer.said(start + KNOWN), Some(Err(problem(protection::UNKNOWN))));
        answer.learn(Err(problem("KeyNotFound")), start);
        assert_eq!(answer.said(start), Some(Err(problem("KeyNotFound"))), "it was deleted");
    }

    #[test]
    fn a_question_is_asked_once_at_a_time_and_again_in_its_time() {
        let (start, mut answer) = (Instant::now(), Answer::default());
        assert!(answer.is_due(start, INTERVAL));
        answer.asking = Some(start);
        assert!(answer.is_asked(start) && !answer.is_due(start, INTERVAL));
        assert!(answer.is_due(start + LOST, INTERVAL), "one that got lost");
        answer.learn(Err(problem(protection::UNKNOWN)), start);
        assert!(!answer.is_due(start, INTERVAL) && answer.is_due(start + AGAIN, INTERVAL));
        answer.learn(Ok(user("mallory")), start);
        assert!(!answer.is_due(start + AGAIN, INTERVAL) && answer.is_due(start + INTERVAL, INTERVAL));
    }

    #[test]
    fn what_was_not_known_is_news_and_another_problem_is_not() {
        let (ok, other) = (|| Some(Ok(user("mallory"))), || Some(Ok(user("bob"))));
        let failed = |reason| Some(Err(problem(reason)));
        for (before, now, news) in [
            (None, None, false),
            (None, ok(), true),
            (None, failed("KeyNotFound"), true),
            (failed("AccessDenied"), failed("KeyNotFound"), false),
            (failed("AccessDenied"), ok(), true),
            (ok(), ok(), false),
            (ok(), other(), true),
            (ok(), failed("KeyNotFound"), false),
        ] {
            assert_eq!(is_news(&before, &now), news, "{before:?} {now:?}");
        }
    }
}
