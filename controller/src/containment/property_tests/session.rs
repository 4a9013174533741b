//! `denySession`: the policy that somebody changes, and a role that is deleted and made again.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Identity};
use crate::containment::deny_session::{Look, SessionDeny, document, policy as policy_of};
use crate::containment::residual;
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

#[derive(Clone, Debug)]
pub enum DenyAttack {
    Delete,
    Change,
    DeleteResidual,
    /// Deletes the role, and makes one of the same name.
    Remake(u8),
}

fn wanted(case: &Case, aws: &Look) -> Option<String> {
    aws.role.as_ref().map(|role| document(case, &role.id))
}

fn residual_document(case: &Case) -> Option<String> {
    residual::recorded(case, "denySession").map(|r| r.document())
}

impl Simulated for SessionDeny {
    type Attack = DenyAttack;

    fn read(aws: &Look, case: &Case, _: Option<&Empty>) -> Look {
        let mut look = aws.clone();
        // The simulated AWS keeps one residual deny: its text says which.
        let latest = residual_document(case);
        look.residual = aws.residual.clone().map(|(text, _)| text).filter(|t| Some(t) == latest.as_ref()).map(|t| (t, true));
        look
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        aws.role.is_some() && (!matches!(call, Call::DeletePolicy { .. }) || aws.policy.is_some())
    }

    fn attack(aws: &mut Look, attack: &DenyAttack, _: Timestamp) {
        match attack {
            DenyAttack::Delete => aws.policy = None,
            DenyAttack::Change => aws.policy = aws.role.is_some().then(|| ALLOW.to_owned()),
            DenyAttack::DeleteResidual => aws.residual = None,
            DenyAttack::Remake(n) => {
                let again = aws.role.is_some().then(|| Identity { id: format!("AROA{n}"), ..Identity::default() });
                *aws = Look { role: again, ..Look::default() };
            }
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::PutPolicy { policy, document, .. } = call else { panic!("not a call that contains: {call}") };
            assert_eq!((policy, Some(document)), (&policy_of(case), wanted(case, look).as_ref()));
            let key = format!("denySession/role-{}", look.role.as_ref().unwrap().id);
            assert!(case.original.contains_key(&key) || plan.record.contains_key(&key), "record before touch");
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            match call {
                Call::PutPolicy { document, .. } => assert_eq!(Some(document), residual_document(case).as_ref()),
                Call::DeletePolicy { policy, .. } => {
                    assert_eq!(*policy, policy_of(case));
                    assert_eq!(look.residual, residual_document(case).map(|t| (t, true)), "read back before {call}");
                    let cutoff = residual::recorded(case, "denySession").map(|r| r.cutoff);
                    assert!(cutoff > Some(case.now), "no session of before comes back: {call}");
                }
                other => panic!("not a call of this action: {other}"),
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.role.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert_eq!(aws.policy, wanted(case, aws));
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        match verdict.state {
            ActionState::Conflict => assert!(case.decision.is_none() && aws.policy == before.policy),
            ActionState::Released => {
                let theirs = case.decision == Some(OnConflict::KeepTheirs) && aws.policy.as_deref() == Some(ALLOW);
                assert!(aws.policy.is_none() || theirs, "{:?}", aws.policy);
                assert!(aws.role.is_none() || aws.residual.as_ref().map(|r| &r.0) == residual_document(case).as_ref());
            }
            state => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

fn attacks() -> BoxedStrategy<DenyAttack> {
    use DenyAttack::{Change, Delete, DeleteResidual, Remake};
    prop_oneof![2 => Just(Delete), 2 => Just(Change), 1 => Just(DeleteResidual), 1 => (1..4_u8).prop_map(Remake)].boxed()
}

fn role(there: bool) -> Look {
    Look { role: there.then(|| Identity { id: "AROA1".into(), ..Identity::default() }), ..Look::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_session_stays_denied_against_any_order_of_events(
        there in prop::bool::weighted(0.95), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<SessionDeny>::new(resource(ResourceKind::RoleSession), role(there), Empty {}).life(&scripts, decision);
    }

    #[test]
    fn undisturbed_nothing_but_the_residual_deny_is_left(scripts in prop::array::uniform4(script(attacks()))) {
        let mut simulation = Simulation::<SessionDeny>::new(resource(ResourceKind::RoleSession), role(true), Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!((verdict.state, &simulation.aws.policy), (ActionState::Released, &None));
    }
}
