//! The residual deny: after a release, sessions issued before it stay denied until they have all expired.
//!
//! Permissions are evaluated at each request, so taking a deny away would switch stolen sessions on again. Long-term keys
//! carry no issue time and are not touched by this deny.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-tokenissuetime>

use firebreak_crds::{ActionState, ResidualDeny};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::case::Case;
use super::document;
use super::plan::{Plan, Verdict};
use crate::aws::{AwsError, Call, LONGEST_ROLE_SESSION, Principal, SESSION_DENIES, Session};

/// Where it is recorded, beneath the action: one key per release, since a resource can be held again before its release is finished.
const KEY: &str = "/residual-";
/// Where it is recorded that the resource was held again after a release had begun.
const AGAIN: &str = "/again-";
/// The beginning of its policy's name.
const UNTIL: &str = "firebreak-sessions-until-";
/// The longest life of a user's session: `GetSessionToken`, 36 hours.
const LIFE_OF_A_USERS: SignedDuration = SignedDuration::from_hours(36);
/// Sessions issued within this time after the decision are denied too: clocks differ, and IAM lags.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// A standing deny goes so long before the cutoff at the latest: AWS enforces late that it is gone, and never early.
const SPARE: SignedDuration = SignedDuration::from_secs(10);
/// So often the cutoff of one release doubles its distance.
const DOUBLED: u32 = 7;

/// A residual deny, as recorded before it is put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residual {
    /// The inline policy's name; carries the time of its end.
    pub policy: String,
    /// Sessions issued before this are denied.
    pub cutoff: Timestamp,
    /// When every such session has expired.
    pub until: Timestamp,
    /// Of those, only sessions with this `aws:userid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userid: Option<String>,
    /// The role that carries it, where that is not what is contained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Every residual deny on record: of this release, and of earlier ones that were not finished.
#[must_use]
pub fn all(case: &Case) -> Vec<Residual> {
    case.original.keys().filter(|k| k.contains(KEY)).filter_map(|k| case.recorded(k)).collect()
}

/// What outlives a release that ends now: of a session whose deny the last look showed, what it showed; else every decision on record. One
/// that was never put would deny sessions of after the release, once somebody puts it "back".
#[must_use]
pub fn left(case: &Case, shown: &[Residual]) -> Vec<Residual> {
    let of_it = |r: &Residual, s: &Residual| (&r.policy, &r.role, &r.userid) == (&s.policy, &s.role, &s.userid);
    let mut left = all(case);
    left.retain(|r| shown.contains(r) || !shown.iter().any(|s| of_it(r, s)));
    left
}

/// What is recorded for an action under such a key.
fn of<'a, T: serde::de::DeserializeOwned>(case: &'a Case, action: &'a str, key: &'a str) -> impl Iterator<Item = T> + 'a {
    let of_it = move |k: &&String| k.strip_prefix(action).is_some_and(|rest| rest.starts_with(key));
    case.original.keys().filter(of_it).filter_map(|k| case.recorded(k))
}

/// The residual deny of this release. One decided before the resource was last held again is of an earlier release: sessions
/// issued since would come back to life.
#[must_use]
pub fn recorded(case: &Case, action: &str) -> Option<Residual> {
    of_this_release(case, action).into_iter().max_by_key(|r| r.cutoff)
}

fn of_this_release(case: &Case, action: &str) -> Vec<Residual> {
    let again = last_held_again(case, action);
    of::<Residual>(case, action, KEY).filter(|r| again.is_none_or(|at| r.decided_at() >= at)).collect()
}

/// The residual deny of a release that begins now. Where it was decided for this release before, and the standing deny did not go in
/// time, it reaches farther: each decision is one more policy, and AWS may go on refusing.
fn decide(case: &Case, action: &str) -> Residual {
    let again = last_held_again(case, action);
    let doubled = u32::try_from(of_this_release(case, action).len()).unwrap_or(DOUBLED).min(DOUBLED);
    let now = again.map_or(case.now, |at| case.now.max(at));
    Residual::decided(now + MARGIN * (2_i32.pow(doubled) - 1), life(case))
}

fn decision(case: &Case, action: &str, new: impl FnOnce(Residual) -> Residual) -> Plan {
    let (mut plan, residual) = (Plan::default(), new(decide(case, action)));
    plan.record(residual.key(action), &residual);
    plan
}

/// What to record where the resource is held again although a release had begun: that release's residual deny is no longer it. Not
/// while that release waits, and keeps in force what it has not come to: an attacker who makes it wait must not fill the record.
#[must_use]
pub fn held_again(case: &Case, action: &str) -> Option<(String, Timestamp)> {
    let begun = recorded(case, action).filter(|_| case.is_held())?;
    let at = case.now.max(begun.decided_at() + SignedDuration::from_secs(1));
    Some((format!("{action}{AGAIN}{}", at.as_second()), at))
}

/// A release: first the deny for the sessions of before (as `new` makes of it what it is to be) is recorded, put in place and read
/// back; then `lift` takes the standing one away. Until then sessions can begin that only the standing one denies (a key is on for a
/// moment, a role is assumed): where it did not go at once, be it for a conflict or since AWS refused, the cutoff is decided anew.
pub fn before(
    case: &Case,
    action: &str,
    shown: &Shown,
    new: impl FnOnce(Residual) -> Residual,
    lift: impl FnOnce(&mut Plan),
) -> Plan {
    let Some(residual) = recorded(case, action) else { return decision(case, action, new) };
    let mut plan = Plan::default();
    residual.put(&mut plan, case, shown);
    if plan.is_done() {
        lift(&mut plan);
    }
    if plan.calls.iter().any(Call::widens) && residual.is_late(case.now) {
        return decision(case, action, new);
    }
    if plan.is_done() && plan.verdict.state != ActionState::Conflict {
        plan.verdict = Verdict::new(ActionState::Released, residual.stays());
    }
    plan
}

/// How long a session of this principal can be alive.
#[must_use]
pub fn life(case: &Case) -> SignedDuration {
    case.principal().either(LIFE_OF_A_USERS, LONGEST_ROLE_SESSION)
}

fn last_held_again(case: &Case, action: &str) -> Option<Timestamp> {
    of(case, action, AGAIN).max()
}

/// The session whose name such a policy's name carries.
#[must_use]
pub fn session_of(policy: &str) -> Option<&str> {
    policy.strip_prefix(UNTIL)?.split_once("Z-").map(|(_, session)| session)
}

/// What is seen of the residual deny: its text, and whether it was read from AWS, and not merely expected.
pub type Shown = Option<(String, bool)>;

/// Reads the inline policy of that name, where there is one on record.
///
/// # Errors
/// When AWS cannot be read.
pub async fn read(aws: &Session, case: &Case, policy: Option<&str>) -> Result<Shown, AwsError> {
    let Some(policy) = policy else { return Ok(None) };
    Ok(aws.inline_policy(&case.principal(), policy).await?.map(|text| (text, true)))
}

impl Residual {
    /// The next step to having it in place and read back; none where it is.
    pub fn put(&self, plan: &mut Plan, case: &Case, shown: &Shown) {
        match shown {
            Some((text, read)) if document::equal(text, &self.document()) => plan.look_again = !read,
            _ => plan.calls.push(document::put(case, &self.policy, &self.document())),
        }
    }

    /// The deny for a release decided now.
    #[must_use]
    pub fn decided(now: Timestamp, life: SignedDuration) -> Self {
        let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let cutoff = whole + MARGIN;
        let until = cutoff + life;
        let policy = format!("{UNTIL}{}", until.strftime("%Y%m%dT%H%M%SZ"));
        Self { policy, cutoff, until, userid: None, role: None }
    }

    /// The deny of sessions of one name only: its policy carries that name besides.
    #[must_use]
    pub fn of_session(self, userid: &str, session: &str) -> Self {
        Self { policy: format!("{}-{session}", self.policy), userid: Some(userid.to_owned()), ..self }
    }

    /// Whom it denies, and how long.
    #[must_use]
    pub fn stays(&self) -> String {
        let whose = if self.userid.is_some() { " of that name" } else { "" };
        format!("sessions{whose} issued before {} stay denied until {}", self.cutoff, self.until)
    }

    pub(super) fn decided_at(&self) -> Timestamp {
        self.cutoff - MARGIN
    }

    /// What is listed of it once the Quarantine is gone. Of a user the sessions need not be named: the deny is on that user.
    #[must_use]
    pub fn listed(deny: &ResidualDeny) -> Option<Self> {
        let principal = Principal::denied(deny)?;
        let (policy, until) = (deny.policy_name.clone(), deny.until.0);
        let userid = deny.user_id.clone().filter(|id| id.contains(':'));
        let cutoff = until - principal.either(LIFE_OF_A_USERS, LONGEST_ROLE_SESSION);
        let whole = session_of(&policy).is_none() && policy != SESSION_DENIES;
        (whole || userid.is_some()).then_some(Self { policy, cutoff, until, userid, role: deny.role_name.clone() })
    }

    /// Whether a standing deny that goes now would let sessions in that were issued after the cutoff.
    #[must_use]
    pub fn is_late(&self, now: Timestamp) -> bool {
        now > self.cutoff - SPARE
    }

    /// Its key in the record.
    #[must_use]
    pub fn key(&self, action: &str) -> String {
        format!("{action}{KEY}{}", self.cutoff.as_second())
    }

    /// The policy document.
    #[must_use]
    pub fn document(&self) -> String {
        let mut before = json!({ "DateLessThan": { "aws:TokenIssueTime": self.cutoff.to_string() } });
        if let Some(userid) = &self.userid {
            before["StringEquals"] = json!({ "aws:userid": userid });
        }
        let deny =
            json!({ "Sid": "FirebreakSessions", "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": before });
        json!({ "Version": "2012-10-17", "Statement": [deny] }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_session_it_is_by_name_and_time() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let all = Residual::decided(now, LONGEST_ROLE_SESSION);
        let one = all.clone().of_session("AROA1:ciZ-job", "ciZ-job");
        assert_eq!(one.policy, "firebreak-sessions-until-20260302T000030Z-ciZ-job");
        assert_eq!((session_of(&one.policy), session_of(&all.policy)), (Some("ciZ-job"), None));
        let condition = r#""Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-03-01T12:00:30Z"},"StringEquals":{"aws:userid":"AROA1:ciZ-job"}}"#;
        assert!(one.document().contains(condition), "{}", one.document());
    }

    #[test]
    fn what_is_listed_says_what_it_is_where_it_is_known_whose_sessions_it_denies() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let listed = |name: &str, residual: &Residual, user_id: Option<&str>| {
            let user = name == "mallory";
            Residual::listed(&ResidualDeny {
                user_name: user.then(|| name.into()),
                role_name: (!user).then(|| name.into()),
                policy_name: residual.policy.clone(),
                until: crate::clock::time(residual.until),
                user_id: user_id.map(str::to_owned),
            })
        };
        let of_a_user = Residual::decided(now, LIFE_OF_A_USERS);
        for id in [None, Some("AIDA1")] {
            assert_eq!(listed("mallory", &of_a_user, id), Some(of_a_user.clone()));
        }
        let of_a_role = Residual { role: Some("build".into()), ..Residual::decided(now, LONGEST_ROLE_SESSION) };
        assert_eq!(listed("build", &of_a_role, None), Some(of_a_role.clone()));
        let one = of_a_role.clone().of_session("AROA1:ci", "ci");
        assert_eq!(listed("build", &one, Some("AROA1:ci")), Some(one.clone()));
        assert_eq!(listed("build", &one, None), None, "of which role it was is not known");
        let instances = Residual { policy: SESSION_DENIES.into(), userid: Some("AROA1:i-1".into()), ..of_a_role };
        assert_eq!(listed("build", &instances, Some("AROA1:i-1")), Some(instances.clone()));
        assert_eq!(listed("build", &instances, None), None);
    }

    #[test]
    fn a_decision_that_was_never_put_does_not_outlive_the_release() {
        use crate::containment::example;
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let of = |role: &str, minutes| Residual {
            policy: SESSION_DENIES.into(),
            userid: Some(format!("{role}:i-1")),
            role: Some(role.into()),
            ..Residual::decided(now + SignedDuration::from_mins(minutes), LONGEST_ROLE_SESSION)
        };
        let (shared, own, other) = (of("web", 0), of("web", 1), of("other", 1));
        let mut case = example::case(example::user());
        for residual in [&shared, &own, &other] {
            let key = format!("-{}", residual.role.as_deref().unwrap());
            case = example::recorded(case, &(residual.key("revokeInstanceRole") + &key), residual);
        }
        let cutoffs = |shown: &[Residual]| {
            let mut left = left(&case, shown);
            left.sort_by_key(|r| (r.role.clone(), r.cutoff));
            left
        };
        assert_eq!(
            cutoffs(std::slice::from_ref(&shared)),
            [other.clone(), shared.clone()],
            "of the other role nothing was shown"
        );
        assert_eq!(cutoffs(&[own.clone(), other.clone()]), [other.clone(), own.clone()]);
        assert_eq!(cutoffs(&[]), [other, shared, own]);
    }

    #[test]
    fn it_outlives_every_session_issued_before_it() {
        let now: Timestamp = "2026-03-01T12:00:00.5Z".parse().unwrap();
        let residual = Residual::decided(now, LIFE_OF_A_USERS);
        assert_eq!(residual.cutoff.to_string(), "2026-03-01T12:00:30Z");
        assert_eq!(residual.policy, "firebreak-sessions-until-20260303T000030Z");
        assert!(residual.document().contains(r#""aws:TokenIssueTime":"2026-03-01T12:00:30Z""#));
    }
}
