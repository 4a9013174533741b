//! The denies of instances' sessions on a role: one inline policy per role, with every session that is denied. Pure.
//!
//! A session of an instance has the user id `<id of the role>:<id of the instance>`. All instances that share a role share the
//! policy, so it has one writer: `act::session_denies`.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#policy-vars-infotouse>

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The policy's name.
pub const SESSION_DENIES: &str = "firebreak-deny-instances";
/// The longest that AWS gives a role's session. Not the role's own `MaxSessionDuration`: an attacker who lowers it shortens no
/// session that he has; and it does not bind the credentials of instances, which live about 6 hours.
pub const LONGEST_ROLE_SESSION: SignedDuration = SignedDuration::from_hours(12);
/// What all inline policies of a role may have together, white space aside.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
const QUOTA: usize = 10_240;
/// Left to the role's other inline policies. Where they have more, AWS refuses the deny of an instance, and that is told.
const FOR_OTHERS: usize = 240;
/// Statements about nobody, as long as those that releases need. So AWS itself keeps the room for them, whatever other inline policies
/// the role has, or gets: a release must not wait for room that somebody else has filled.
const ROOM: &str = "FirebreakRoomForOneRelease00Z";
/// So many: instances that are released side by side may need cutoffs of their own.
const ROOMS: usize = 3;
const NOBODY: &str = "-";

/// Whose sessions are denied on a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDenies {
    /// By user id: all sessions.
    pub standing: BTreeSet<String>,
    /// By cutoff, those that were released: the sessions issued before it.
    pub before: BTreeMap<Timestamp, BTreeSet<String>>,
    /// For how many more cutoffs it keeps room.
    pub rooms: usize,
}

/// One change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyEdit {
    /// All sessions of this user id are denied.
    Deny(String),
    /// Only those issued before the cutoff still are; none, where all of those have expired.
    Release(String, Option<Timestamp>),
    /// Those issued before the cutoff are still denied, where somebody took that away; no others.
    Keep(String, Timestamp),
    /// Cutoffs whose every session has expired go.
    EndExpired(Timestamp),
}

impl SessionDenies {
    /// What a text says, as far as it is understood: somebody may have changed it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).unwrap_or_default();
        let mut denies = Self::default();
        for statement in document["Statement"].as_array().into_iter().flatten() {
            let condition = &statement["Condition"];
            let room = statement["Sid"].as_str().is_some_and(|sid| sid.starts_with(ROOM));
            denies.rooms += usize::from(room);
            let ids = condition["StringEquals"]["aws:userid"].as_array().into_iter().flatten();
            let ids = ids.filter_map(Value::as_str).filter(|id| is_user_id(id)).map(str::to_owned);
            match &condition["DateLessThan"]["aws:TokenIssueTime"] {
                Value::Null => denies.standing.extend(ids),
                at => match at.as_str().and_then(ends) {
                    _ if room => {}
                    Some(cutoff) => denies.before.entry(cutoff).or_default().extend(ids),
                    None => denies.standing.extend(ids), // more is denied than must be, not less
                },
            }
        }
        denies
    }

    /// The same, None where the text is not exactly ours: then it may deny less than it seems to.
    #[must_use]
    pub fn exactly(text: &str) -> Option<Self> {
        let denies = Self::read(text);
        let ours = serde_json::from_str::<Value>(&denies.document()).ok();
        (serde_json::from_str(text).ok() == ours).then_some(denies)
    }

    /// The policy document.
    #[must_use]
    pub fn document(&self) -> String {
        let standing = (!self.standing.is_empty())
            .then(|| deny("FirebreakInstances", &json!({ "StringEquals": { "aws:userid": self.standing } })));
        let before = self.before.iter().map(|(cutoff, ids)| {
            let sid = format!("FirebreakUntil{}", until(*cutoff).strftime("%Y%m%dT%H%M%SZ"));
            let issued = json!({ "aws:TokenIssueTime": cutoff.to_string() });
            deny(&sid, &json!({ "StringEquals": { "aws:userid": ids }, "DateLessThan": issued }))
        });
        let nobody = json!({ "StringEquals": { "aws:userid": [NOBODY] }, "DateLessThan": { "aws:TokenIssueTime": Timestamp::UNIX_EPOCH.to_string() } });
        let room = (0..self.rooms).map(|n| deny(&format!("{ROOM}{n}"), &nobody));
        let statements: Vec<Value> = standing.into_iter().chain(before).chain(room).collect();
        json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
    }

    /// Whether nobody's are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty() && self.before.is_empty()
    }

    /// Whether those of this user id that were issued before the cutoff are denied, and no others.
    #[must_use]
    pub fn is_released(&self, session: &str, cutoff: Option<Timestamp>) -> bool {
        let still: Vec<Timestamp> =
            self.before.iter().filter(|(_, ids)| ids.contains(session)).map(|(cutoff, _)| *cutoff).collect();
        !self.standing.contains(session) && still == cutoff.into_iter().collect::<Vec<_>>()
    }

    /// Whether at least those of this user id that were issued before the cutoff are denied.
    #[must_use]
    pub fn keeps(&self, session: &str, cutoff: Timestamp) -> bool {
        self.standing.contains(session) || self.before.range(cutoff..).any(|(_, ids)| ids.contains(session))
    }

    /// What it is after a change; None where a role's inline policies have no room for it.
    #[must_use]
    pub fn after(&self, edit: &DenyEdit) -> Option<Self> {
        let (mut next, mut quota) = (self.clone(), QUOTA);
        match edit {
            DenyEdit::Deny(session) => {
                next.standing.insert(session.clone());
                next.rooms = ROOMS;
                quota -= FOR_OTHERS;
            }
            DenyEdit::Release(session, cutoff) => {
                next.standing.remove(session);
                next.before.values_mut().for_each(|ids| ids.retain(|id| id != session));
                if let Some(cutoff) = cutoff {
                    let new = !next.before.contains_key(cutoff);
                    next.rooms = next.rooms.saturating_sub(usize::from(new)); // it takes that room
                    next.before.entry(*cutoff).or_default().insert(session.clone());
                }
                next.before.retain(|_, ids| !ids.is_empty());
                if next.standing.is_empty() {
                    next.rooms = 0;
                }
            }
            DenyEdit::Keep(session, cutoff) if !self.keeps(session, *cutoff) => {
                next.before.entry(*cutoff).or_default().insert(session.clone());
            }
            DenyEdit::Keep(..) => {}
            DenyEdit::EndExpired(now) => next.before.retain(|cutoff, _| until(*cutoff) > *now),
        }
        let smaller = next.document().len() <= self.document().len();
        (smaller || next.document().len() <= quota).then_some(next)
    }

    /// A cutoff of those that are there, in a span of time: the fewer there are, the more room.
    #[must_use]
    pub fn cutoff_within(&self, earliest: Timestamp, latest: Timestamp) -> Option<Timestamp> {
        (earliest <= latest).then(|| self.before.range(earliest..=latest).next_back().map(|(cutoff, _)| *cutoff))?
    }
}

/// A cutoff whose end can be told: whoever may write the policy can write any time.
fn ends(cutoff: &str) -> Option<Timestamp> {
    let cutoff: Timestamp = cutoff.parse().ok()?;
    cutoff.checked_add(LONGEST_ROLE_SESSION).is_ok().then_some(cutoff)
}

/// When every session issued before the cutoff has expired.
#[must_use]
pub fn until(cutoff: Timestamp) -> Timestamp {
    cutoff + LONGEST_ROLE_SESSION
}

fn deny(sid: &str, condition: &Value) -> Value {
    json!({ "Sid": sid, "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition })
}

/// `AROA...:i-...`, and not what somebody wrote to fill the quota.
fn is_user_id(text: &str) -> bool {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    text.len() <= 64 && text.split_once(':').is_some_and(|(role, instance)| plain(role) && plain(instance))
}

impl std::fmt::Display for DenyEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deny(session) => write!(f, "deny {session}"),
            Self::Release(session, Some(cutoff)) => write!(f, "deny {session} only before {cutoff}"),
            Self::Release(session, None) => write!(f, "deny {session} no more"),
            Self::Keep(session, cutoff) => write!(f, "go on denying {session} before {cutoff}"),
            Self::EndExpired(_) => write!(f, "what is over goes"),
        }
    }
}

#[cfg(test)]
#[path = "session_denies_tests.rs"]
mod tests;
