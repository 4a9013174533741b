//! `revokeSessions`: the sessions of a role that were issued before a cutoff are denied, by an inline policy; the role goes on
//! working for who assumes it anew.
//!
//! Of an access key it is the sessions of its user: AWS does not tell which key opened one. Long-term keys carry no issue time,
//! so the user's other keys go on working. Each key has a policy of its own, so that two do not undo each other.
//!
//! The cutoff is recorded before it is put in place, and only moves forward: AWS enforces late, clocks differ, and a trust that
//! was sealed a moment ago may have let somebody in. It moves too when another Incident asks, when it is contained again after a
//! release began (the responder means the sessions of now), and when an access key was found switched on. At release the same
//! deny stays under another name until the last such session has expired.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, HolderState};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::credentials::{SWITCHED_ON_MOST, another_users, is_a_key, switched_on};
use super::deny_all::{managed, no_principal};
use super::document::{self, equal, put};
use super::given::no_such_key;
use super::plan::Plan;
use super::residual::{self, Residual};
use super::whereabouts::not_shown;
use crate::aws::{AwsError, Call, Identity, Outcome, Session};

/// The inline policy's name during the containment; that of an access key has its id besides.
pub(super) const POLICY: &str = "firebreak-revoke-sessions";
const KEY: &str = "revokeSessions/cutoff-";
/// Where it is recorded that a deny from before this containment was there, which the first write of this one replaces.
pub(super) const MET_OLDER: &str = "revokeSessions/met-older";
/// When the cutoff moves forward, after it was first decided.
const AGAIN: [SignedDuration; 2] = [SignedDuration::from_secs(30), SignedDuration::from_secs(120)];
/// More cutoffs than that are not recorded: the record has room for other things, too.
const CUTOFFS: usize = 96;

/// The action.
pub struct Sessions;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) identity: Option<Identity>,
    pub(super) policy: Option<String>,
    /// What stays after the release.
    pub(super) residual: residual::Shown,
}

/// What is recorded: a cutoff, who asked for it, and when its round began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cutoff {
    pub(super) deny: Residual,
    pub(super) round: Timestamp,
    pub(super) holders: Vec<String>,
}

impl Action for Sessions {
    const NAME: &'static str = "revokeSessions";
    const STAGE: Stage = Stage::Access; // when the key is read back off
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.identity.as_ref().map(|i| &i.tags)
    }

    fn user(look: &Look) -> Option<&str> {
        look.identity.as_ref().map(|i| &*i.id)
    }

    /// The cutoffs are ours: there is nothing of the owner's to know.
    fn check(_: &str, _: &str) -> Result<(), String> {
        no_such_key()
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let (principal, residual) = (case.principal(), cutoffs(case).pop().map(|c| c.deny.policy));
        let read_residual = residual::read(aws, case, residual.as_deref());
        let policy = policy(case);
        let reads = futures::join!(aws.identity(&principal), aws.inline_policy(&principal, &policy), read_residual);
        Ok(Look { identity: reads.0?, policy: reads.1?, residual: reads.2? })
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(identity) = &look.identity else { return no_principal(case) };
        if let Some(refused) = managed(case, identity) {
            return refused;
        }
        if let Some(why) = case.another_user(identity) {
            return Plan::done(ActionState::Failed, why);
        }
        let mut plan = Plan::default();
        let latest = cutoffs(case).pop();
        let due = due(case);
        if let Some(next) = &due {
            plan.record(format!("{KEY}{}", next.deny.cutoff.as_second()), next);
            if latest.is_none() && look.policy.as_ref().is_some_and(|text| is_older(text, case.since)) {
                plan.record(MET_OLDER, &true);
            }
        }
        let Some(deny) = due.as_ref().or(latest.as_ref()).map(|c| &c.deny) else { return plan };
        if !look.shows(&deny.document()) {
            plan.calls.push(put(case, &policy(case), &deny.document()));
            if due.is_none() {
                plan.verdict.drift.push(format!("inline policy {} was gone or changed", policy(case)));
            }
        }
        let behind = is_behind(case);
        plan.settle(if behind { ActionState::Failed } else { ActionState::InForce });
        plan.verdict.message = message(case, deny, behind);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(identity) = &look.identity else { return not_shown(case, Self::NAME) };
        if let Some(why) = case.another_user(identity) {
            return another_users(case, &why);
        }
        let cutoffs = cutoffs(case);
        let Some(Cutoff { deny, .. }) = cutoffs.last() else { return Plan::done(ActionState::Released, "") };
        let mut plan = Plan::default();
        if let Some(next) = later(case, &cutoffs) {
            plan.record(format!("{KEY}{}", next.deny.cutoff.as_second()), &next);
            return plan;
        }
        let over = deny.until <= case.now;
        if !over && !stays(&mut plan, case, look, deny) {
            return plan;
        }
        lift(&mut plan, case, look, &cutoffs);
        if plan.is_done() && plan.verdict.state != ActionState::Conflict {
            plan.verdict.state = ActionState::Released;
            plan.verdict.message = if over { "every session that was denied has expired".into() } else { deny.stays() };
        }
        plan
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::PutPolicy { policy, document, .. } if policy.starts_with(POLICY) => look.policy = Some(document.clone()),
            Call::PutPolicy { document, .. } => look.residual = Some((document.clone(), false)),
            Call::DeletePolicy { .. } => look.policy = None,
            _ => {}
        }
    }
}

impl Look {
    fn shows(&self, document: &str) -> bool {
        self.policy.as_deref().is_some_and(|text| equal(text, document))
    }
}

/// Every cutoff on record, the latest last.
fn cutoffs(case: &Case) -> Vec<Cutoff> {
    let keys = case.original.keys().filter(|k| k.starts_with(KEY));
    let mut all: Vec<Cutoff> = keys.filter_map(|k| case.recorded(k)).collect();
    all.sort_by_key(|c| c.deny.cutoff);
    all
}

/// The next cutoff, where it is time for one.
fn due(case: &Case) -> Option<Cutoff> {
    let (all, asking) = (cutoffs(case), asking(case));
    let new = |round| {
        let deny = Residual::decided(case.now, residual::life(case));
        Cutoff { deny, round, holders: asking.clone() }
    };
    let Some(latest) = all.last() else { return Some(new(case.now)) };
    let next = if asks_for_more(case, latest) {
        new(case.now)
    } else {
        let so_far = all.iter().filter(|c| c.round == latest.round).count();
        let wait = AGAIN.get(so_far.checked_sub(1)?)?;
        (case.now >= latest.round + *wait).then(|| new(latest.round))?
    };
    (all.len() < CUTOFFS && next.deny.cutoff > latest.deny.cutoff).then_some(next)
}

/// At a release: the cutoff for sessions of a key that was found switched on since the last one was decided.
fn later(case: &Case, all: &[Cutoff]) -> Option<Cutoff> {
    let latest = all.last().filter(|latest| switched_on(case).any(|at| latest.deny.decided_at() < at))?;
    let next = Cutoff { deny: Residual::decided(case.now, residual::life(case)), ..latest.clone() };
    (next.deny.cutoff > latest.deny.cutoff).then_some(next)
}

/// Whether it is held again after a release had begun since that cutoff: who holds it means the sessions of now. Kept in force while a
/// release waits, nobody does.
fn is_held_again(case: &Case, latest: &Cutoff) -> bool {
    case.is_held() && case.original.contains_key(&latest.deny.key(Sessions::NAME))
}

/// Whether somebody asked, or asked again, or the access key was found switched on, since the latest cutoff was decided.
fn asks_for_more(case: &Case, latest: &Cutoff) -> bool {
    let all = cutoffs(case);
    let unheard = asking(case).iter().any(|uid| !all.iter().any(|c| c.holders.contains(uid)));
    unheard || is_held_again(case, latest) || switched_on(case).any(|at| latest.deny.decided_at() < at)
}

/// Whether a later cutoff is needed for which the record has no room.
fn is_behind(case: &Case) -> bool {
    let all = cutoffs(case);
    let full = all.len() >= CUTOFFS && all.last().is_some_and(|latest| asks_for_more(case, latest));
    full || switched_on(case).count() >= SWITCHED_ON_MOST
}

fn message(case: &Case, deny: &Residual, behind: bool) -> String {
    let so_far = format!("sessions issued before {} are denied", deny.cutoff);
    match (behind, is_a_key(case)) {
        (true, _) => format!(
            "{so_far}, but not those since: the cutoff was moved as often as the record has room for. Contain the {} with denyAll",
            case.principal().either("user", "role")
        ),
        (_, true) => {
            format!("{so_far} of user {}, whichever key opened them; roles that it assumed are not denied", case.principal())
        }
        (_, false) => format!("{so_far}; whom the trust policy lets assume the role gets a new one"),
    }
}

/// The name of the inline policy.
pub(super) fn policy(case: &Case) -> String {
    if is_a_key(case) { format!("{POLICY}-{}", case.resource.id) } else { POLICY.to_owned() }
}

/// Whether the cutoff of that policy lies before this time.
pub(super) fn is_older(policy: &str, than: Timestamp) -> bool {
    let document: serde_json::Value = serde_json::from_str(policy).unwrap_or_default();
    let cutoff = document.pointer("/Statement/0/Condition/DateLessThan/aws:TokenIssueTime").and_then(|at| at.as_str());
    cutoff.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at < than)
}

/// The Incidents that hold it with this action.
fn asking(case: &Case) -> Vec<String> {
    let asks = |h: &&firebreak_crds::Holder| {
        h.state == HolderState::Holding && h.actions.iter().any(|a| a.revoke_sessions.is_some())
    };
    case.holders.iter().filter(asks).map(|h| h.uid.clone()).collect()
}

/// Whether the deny that stays is recorded, in place and read back; else plans the next step to that.
fn stays(plan: &mut Plan, case: &Case, look: &Look, deny: &Residual) -> bool {
    let key = deny.key(Sessions::NAME);
    if !case.original.contains_key(&key) {
        plan.record(key, deny);
        return false;
    }
    deny.put(plan, case, &look.residual);
    plan.is_done()
}

/// One of an earlier cutoff is ours as well: the process may have died before the next was put.
fn lift(plan: &mut Plan, case: &Case, look: &Look, cutoffs: &[Cutoff]) {
    let ours = |text: &str| cutoffs.iter().any(|c| equal(text, &c.deny.document()));
    document::lift(plan, case, &policy(case), look.policy.as_ref(), ours);
}

#[cfg(test)]
#[path = "revoke_sessions_tests.rs"]
mod tests;
