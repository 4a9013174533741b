//! When rules were taken out of Firebreak's own security groups. Through such rules flows may have begun, which AWS goes on tracking,
//! and of all who look after an interface in that group one alone may have seen them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;

use super::call::Call;
use super::error::AwsError;

/// By the group's id; of all accounts, since this process began.
#[derive(Default)]
pub(super) struct Spills(Mutex<HashMap<String, Timestamp>>);

impl Spills {
    /// Notes a call that takes rules out, where AWS accepted it or may have.
    pub(super) fn note<T>(&self, call: &Call, answer: &Result<T, AwsError>, now: Timestamp) {
        let Some(group) = call.empties() else { return };
        if answer.as_ref().err().is_none_or(AwsError::may_have_happened) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), now);
        }
    }

    /// When that was last.
    pub(super) fn last(&self, group: &str) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(group).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{Class, Rule};

    #[test]
    fn what_aws_took_or_may_have_taken_out_is_remembered() {
        let (spills, now) = (Spills::default(), Timestamp::UNIX_EPOCH);
        let call = |group: &str| Call::RevokeSecurityGroupEgress { group: group.into(), rules: Rule::all().to_vec() };
        let failed =
            |code: &str| AwsError { class: Class::Transient, operation: "o".into(), code: code.into(), message: "m".into() };
        for (group, answer) in
            [("sg-done", Ok(())), ("sg-silent", Err(failed("NoAnswer"))), ("sg-busy", Err(failed("RequestLimitExceeded")))]
        {
            spills.note(&call(group), &answer, now);
        }
        let known = ["sg-done", "sg-silent", "sg-busy", "sg-other"].map(|group| spills.last(group).is_some());
        assert_eq!(known, [true, true, false, false]);
    }
}
