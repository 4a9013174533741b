//! `revokeSessions`: policies that somebody changes, and a cutoff that only moves forward.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Identity};
use crate::containment::revoke_sessions::{Cutoff, Look, Sessions, policy as policy_of};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

#[derive(Clone, Debug)]
pub enum SessionAttack {
    Delete,
    Change,
    DeleteResidual,
    ChangeResidual,
}

fn cutoffs(case: &Case) -> Vec<Cutoff> {
    let keys = case.original.keys().filter(|k| k.starts_with("revokeSessions/cutoff-"));
    let mut all: Vec<Cutoff> = keys.filter_map(|k| case.recorded(k)).collect();
    all.sort_by_key(|c| c.deny.cutoff);
    all
}

fn latest(case: &Case) -> Option<String> {
    cutoffs(case).last().map(|c| c.deny.document())
}

impl Simulated for Sessions {
    type Attack = SessionAttack;

    fn read(aws: &Look, case: &Case, _: Option<&Empty>) -> Look {
        let mut look = aws.clone();
        // The simulated AWS keeps the text only of the latest residual deny: its text names its cutoff.
        let there = |text: &String| latest(case).as_ref() == Some(text) || text == ALLOW;
        look.residual = aws.residual.clone().map(|(text, _)| text).filter(there).map(|text| (text, true));
        look
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        !matches!(call, Call::DeletePolicy { .. }) || aws.policy.is_some()
    }

    fn attack(aws: &mut Look, attack: &SessionAttack, _: Timestamp) {
        match attack {
            SessionAttack::Delete => aws.policy = None,
            SessionAttack::Change => aws.policy = Some(ALLOW.into()),
            SessionAttack::DeleteResidual => aws.residual = None,
            SessionAttack::ChangeResidual => aws.residual = aws.residual.is_some().then(|| (ALLOW.to_owned(), false)),
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        let new: Vec<Cutoff> = plan.record.values().map(|v| serde_json::from_value(v.clone()).unwrap()).collect();
        let known = cutoffs(case);
        let last = new.first().or(known.last());
        assert!(new.iter().all(|n| known.iter().all(|k| n.deny.cutoff > k.deny.cutoff)), "only forward");
        for call in &plan.calls {
            let Call::PutPolicy { policy, document, .. } = call else { panic!("not a call that contains: {call}") };
            assert_eq!(
                (policy.as_str(), Some(document)),
                (&*policy_of(case), last.map(|c| c.deny.document()).as_ref()),
                "recorded"
            );
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            match call {
                Call::PutPolicy { policy, document, .. } => {
                    let known = cutoffs(case);
                    let deny = &known.last().expect("a cutoff").deny;
                    assert_eq!((policy, document), (&deny.policy, &deny.document()));
                    assert!(case.original.contains_key(&format!("revokeSessions/residual-{}", deny.cutoff.as_second())));
                }
                Call::DeletePolicy { policy, .. } => {
                    assert_eq!(*policy, policy_of(case));
                    assert_eq!(look.residual, latest(case).map(|text| (text, true)), "read back before {call}");
                }
                other => panic!("not a call of this action: {other}"),
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.identity.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(aws.identity.is_none() || aws.policy == latest(case));
        assert!(cutoffs(case).len() <= 3);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        match verdict.state {
            ActionState::Conflict => assert!(case.decision.is_none() && aws.policy == before.policy),
            ActionState::Released if aws.identity.is_some() => {
                let theirs = case.decision == Some(OnConflict::KeepTheirs) && aws.policy.as_deref() == Some(ALLOW);
                assert!(aws.policy.is_none() || theirs, "{:?}", aws.policy);
                assert_eq!(aws.residual.as_ref().map(|r| &r.0), latest(case).as_ref());
            }
            ActionState::Released => {}
            state => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

fn attacks() -> BoxedStrategy<SessionAttack> {
    use SessionAttack::{Change, ChangeResidual, Delete, DeleteResidual};
    prop_oneof![2 => Just(Delete), 2 => Just(Change), 1 => Just(DeleteResidual), 1 => Just(ChangeResidual)].boxed()
}

fn principal(there: bool) -> Look {
    let identity = Identity { id: "AIDA1".into(), ..Identity::default() };
    Look { identity: there.then_some(identity), policy: None, residual: None }
}

/// A role; or the user of an access key.
fn kinds() -> impl Strategy<Value = ResourceKind> {
    prop_oneof![Just(ResourceKind::IamRole), Just(ResourceKind::AccessKey)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn old_sessions_stay_denied_against_any_order_of_events(
        kind in kinds(), there in prop::bool::weighted(0.95), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<Sessions>::new(resource(kind), principal(there), Empty {}).life(&scripts, decision);
    }

    #[test]
    fn undisturbed_nothing_but_the_residual_deny_is_left(
        kind in kinds(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        let mut simulation = Simulation::<Sessions>::new(resource(kind), principal(true), Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!((verdict.state, &simulation.aws.policy), (ActionState::Released, &None));
    }
}
