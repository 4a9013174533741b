//! What becomes of a release where AWS refuses to take something back, and will again: a target group that is gone, a trust policy
//! that names a deleted principal of another account. A person mends what AWS names, or decides to leave it as it is now.
//!
//! Only of calls that give access back. What keeps it away must be in place before anything opens: a residual deny, a credential
//! switched off. And only where AWS itself said so: a missing permission, no answer, or a hold that is back are something else.
//! What AWS refuses for a moment looks the same (an instance that is starting), and a decision may be one about another conflict: so
//! nothing is left out before an earlier look has told that it is refused.

use firebreak_crds::{ActionState, OnConflict};

use super::case::Case;
use super::plan::Verdict;
use crate::aws::{AwsError, Call, Class};

/// How a conflict begins that is told of what AWS refuses.
const REFUSES: &str = "AWS refuses";

/// A call that AWS did not take, and what it said.
pub type Refused = (Call, AwsError);

/// Whether a release goes no further than it has come, and all that stands in its way is such a refusal.
#[must_use]
pub fn ends(verdict: &Verdict, failed: &[Refused]) -> bool {
    let lasting = |(call, error): &Refused| call.widens() && matches!(error.class, Class::Terminal | Class::NotFound);
    let open = matches!(verdict.state, ActionState::InProgress | ActionState::Conflict);
    open && !failed.is_empty() && failed.iter().all(lasting)
}

/// Whether an earlier look has told that AWS refuses what a release of that action needs.
#[must_use]
pub fn is_told(case: &Case, action: &str) -> bool {
    let mut actions = case.told.iter().filter(|a| a.name == action);
    actions.any(|a| a.state == ActionState::Conflict && a.message.contains(REFUSES))
}

/// How such a release stands; None where it is not one, or where a person must decide something else besides. `told`: whether an
/// earlier look has told it.
#[must_use]
pub fn verdict(so_far: &Verdict, failed: &[Refused], decision: Option<OnConflict>, told: bool) -> Option<Verdict> {
    if !ends(so_far, failed) {
        return None;
    }
    let said = failed.iter().map(|(call, error)| format!("{call}: {}: {}", error.code, error.message));
    let said = said.collect::<Vec<_>>().join("; ");
    match (decision, so_far.state) {
        (Some(OnConflict::KeepTheirs), ActionState::Conflict) => None,
        (Some(OnConflict::KeepTheirs), _) if told => {
            let what = "not given back, nor what would have come after it, as spec.release.onConflict: KeepTheirs says";
            Some(Verdict::new(ActionState::Released, format!("{what}: {said}")))
        }
        _ => {
            let way_out = "mend what it names (it is tried again at each look), or spec.release.onConflict: KeepTheirs leaves it as it is now";
            let before = if so_far.message.is_empty() { String::new() } else { format!("{}; ", so_far.message) };
            Some(Verdict::new(ActionState::Conflict, format!("{before}{REFUSES} {said}: {way_out}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{Change, Principal};
    use crate::containment::example;

    fn refused(call: Call, class: Class) -> Refused {
        let (operation, code) = (call.operation().to_owned(), "InvalidGroup.NotFound".to_owned());
        (call, AwsError { class, operation, code, message: "sg-9 does not exist".into() })
    }

    fn restore() -> Call {
        Call::ModifyNetworkInterfaceAttribute {
            interface: "eni-1".into(),
            groups: vec!["sg-9".into()],
            change: Change::Restore,
        }
    }

    fn residual() -> Call {
        Call::PutPolicy { principal: Principal::User("mallory".into()), policy: "p".into(), document: "{}".into() }
    }

    fn off() -> Call {
        Call::UpdateAccessKey { user: "mallory".into(), id: "AKIA1".into(), active: false }
    }

    fn state(failed: &[Refused], decision: Option<OnConflict>) -> Option<ActionState> {
        verdict(&Verdict::default(), failed, decision, true).map(|v| v.state)
    }

    #[test]
    fn what_aws_will_never_take_back_is_a_conflict_that_a_person_can_end() {
        for class in [Class::Terminal, Class::NotFound] {
            let failed = [refused(restore(), class)];
            let undecided = verdict(&Verdict::default(), &failed, None, false).unwrap();
            assert_eq!(undecided.state, ActionState::Conflict);
            for word in ["eni-1", "sg-9 does not exist", "mend", "KeepTheirs"] {
                assert!(undecided.message.contains(word), "no {word}: {}", undecided.message);
            }
            let kept = verdict(&Verdict::default(), &failed, Some(OnConflict::KeepTheirs), true).unwrap();
            assert_eq!(kept.state, ActionState::Released);
            assert!(kept.message.contains("not given back") && kept.message.contains("eni-1"), "{}", kept.message);
            assert_eq!(state(&failed, Some(OnConflict::RestoreOriginal)), Some(ActionState::Conflict));
        }
    }

    #[test]
    fn nothing_is_left_out_before_it_was_told() {
        let failed = [refused(restore(), Class::Terminal)];
        let first = verdict(&Verdict::default(), &failed, Some(OnConflict::KeepTheirs), false).unwrap();
        assert_eq!(first.state, ActionState::Conflict);
        let case = example::case(example::instance());
        assert!(!is_told(&case, "isolateNetwork"));
        let tell =
            |state, message: &str| is_told(&example::told(case.clone(), "isolateNetwork", state, message), "isolateNetwork");
        assert!(tell(ActionState::Conflict, &first.message));
        assert!(!tell(ActionState::Conflict, "eni-1 was moved"), "another conflict");
        assert!(!tell(ActionState::Failed, &first.message));
    }

    #[test]
    fn what_may_yet_go_through_is_tried_again_whatever_was_decided() {
        for class in [Class::Denied, Class::Transient, Class::Unknown, Class::Fenced, Class::Awaiting] {
            for decision in [None, Some(OnConflict::KeepTheirs), Some(OnConflict::RestoreOriginal)] {
                assert_eq!(state(&[refused(restore(), class)], decision), None, "{class:?}");
                let both = [refused(restore(), Class::Terminal), refused(restore(), class)];
                assert_eq!(state(&both, decision), None, "{class:?} among others");
            }
        }
    }

    #[test]
    fn what_keeps_access_away_must_be_in_place_whatever_was_decided() {
        for call in [residual(), off()] {
            for failed in [
                vec![refused(call.clone(), Class::Terminal)],
                vec![refused(restore(), Class::Terminal), refused(call.clone(), Class::NotFound)],
            ] {
                assert_eq!(state(&failed, Some(OnConflict::KeepTheirs)), None, "{call}");
                assert_eq!(state(&failed, None), None, "{call}");
            }
        }
        assert_eq!(state(&[], Some(OnConflict::KeepTheirs)), None, "nothing was refused");
    }

    #[test]
    fn what_a_person_must_decide_besides_is_told_with_it_and_not_passed_over() {
        let failed = [refused(restore(), Class::Terminal)];
        let besides = Verdict::new(ActionState::Conflict, "eni-2 was moved");
        let both = verdict(&besides, &failed, None, true).unwrap();
        assert!(both.state == ActionState::Conflict && both.message.starts_with("eni-2 was moved; AWS refuses"), "{both:?}");
        assert_eq!(verdict(&besides, &failed, Some(OnConflict::KeepTheirs), true), None);
        for state in [ActionState::Released, ActionState::Failed] {
            assert_eq!(verdict(&Verdict::new(state, ""), &failed, None, true), None, "{state:?}");
        }
    }
}
