//! When rules were taken out of Firebreak's own security groups. Through such rules flows may have begun, which AWS goes on tracking,
//! and of all who look after an interface in that group one alone may have seen them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;

use super::act::Outcome;
use super::call::Call;
use super::error::AwsError;

/// By the group's id; of all accounts, since this process began. None of one that was just made: nothing is in it before the rule that
/// AWS gives every new group is gone.
#[derive(Default)]
pub(super) struct Spills(Mutex<HashMap<String, Option<Timestamp>>>);

impl Spills {
    /// Notes what AWS answered to a call.
    pub(super) fn note(&self, call: &Call, answer: &Result<Outcome, AwsError>, now: Timestamp) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Call::CreateSecurityGroup { .. }, Ok(Outcome::Created(group))) = (call, answer) {
            groups.insert(group.clone(), None);
        }
        let Some(group) = call.empties() else { return };
        let taken = matches!(answer, Ok(Outcome::Done)) || answer.as_ref().is_err_and(AwsError::may_have_happened);
        let gone = matches!(answer, Ok(Outcome::Moot)) || answer.as_ref().is_err_and(AwsError::is_overtaken);
        let first = groups.get(group) == Some(&None) && matches!(call, Call::RevokeSecurityGroupEgress { .. });
        if first && (taken || gone) {
            groups.remove(group);
        } else if taken {
            groups.insert(group.clone(), Some(now));
        }
    }

    /// When that was last.
    pub(super) fn last(&self, group: &str) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(group).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{Class, GroupRole, Rule};

    fn revoke(group: &str) -> Call {
        Call::RevokeSecurityGroupEgress { group: group.into(), rules: Rule::all().to_vec() }
    }

    #[test]
    fn what_aws_took_or_may_have_taken_out_is_remembered() {
        let (spills, now) = (Spills::default(), Timestamp::UNIX_EPOCH);
        let failed =
            |code: &str| AwsError { class: Class::Transient, operation: "o".into(), code: code.into(), message: "m".into() };
        for (group, answer, noted) in [
            ("sg-done", Ok(Outcome::Done), true),
            ("sg-silent", Err(failed("NoAnswer")), true),
            ("sg-busy", Err(failed("RequestLimitExceeded")), false),
            ("sg-empty", Ok(Outcome::Moot), false),
        ] {
            spills.note(&revoke(group), &answer, now);
            assert_eq!(spills.last(group).is_some(), noted, "{group}");
        }
    }

    #[test]
    fn the_rule_that_aws_gives_a_new_group_let_nobody_through() {
        let (spills, now) = (Spills::default(), Timestamp::UNIX_EPOCH);
        let create = Call::CreateSecurityGroup { vpc: "vpc-a".into(), role: GroupRole::Isolation };
        spills.note(&create, &Ok(Outcome::Created("sg-new".into())), now);
        spills.note(&revoke("sg-new"), &Ok(Outcome::Done), now);
        assert_eq!(spills.last("sg-new"), None);
        spills.note(&create, &Ok(Outcome::Created("sg-other".into())), now);
        spills.note(&revoke("sg-other"), &Ok(Outcome::Moot), now); // somebody else took it out
        spills.note(&revoke("sg-other"), &Ok(Outcome::Done), now);
        assert_eq!(spills.last("sg-other"), Some(now));
        spills.note(&revoke("sg-new"), &Ok(Outcome::Done), now);
        assert_eq!(spills.last("sg-new"), Some(now), "what comes later is somebody's");
    }
}
