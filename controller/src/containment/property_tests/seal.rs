//! `sealTrustPolicy`: trust policies that somebody changes; roles and trusted principals that are made again.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Identity, SEALED_TRUST};
use crate::containment::seal_trust_policy::{Look, Original, Seal};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const OPEN: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/ci"}}]}"#;
const THEIRS: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"}}]}"#;
const CI: &str = "arn:aws:iam::111122223333:user/ci";

#[derive(Clone, Debug)]
pub enum TrustAttack {
    Set(&'static str),
    MakeRoleAgain,
    MakeTrustedAgain,
    DeleteTrusted,
}

fn original(case: &Case) -> Option<Original> {
    case.recorded("sealTrustPolicy")
}

fn trust(look: &Look) -> Option<&str> {
    look.role.as_ref()?.trust.as_deref()
}

impl Simulated for Seal {
    type Attack = TrustAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(_: &Look, _: &Call) -> bool {
        true
    }

    fn attack(aws: &mut Look, attack: &TrustAttack, now: Timestamp) {
        match attack {
            TrustAttack::Set(text) => aws.role.iter_mut().for_each(|r| r.trust = Some((*text).to_owned())),
            TrustAttack::MakeRoleAgain => {
                aws.role = Some(Identity { id: format!("AROA{now}"), trust: Some(THEIRS.into()), ..Identity::default() });
            }
            TrustAttack::MakeTrustedAgain => drop(aws.trusted.insert(CI.into(), format!("AIDA{now}"))),
            TrustAttack::DeleteTrusted => drop(aws.trusted.remove(CI)),
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::UpdateAssumeRolePolicy { document, .. } = call else { panic!("not a call that seals: {call}") };
            assert_eq!(document, SEALED_TRUST);
            let recorded = original(case).is_some() || plan.record.contains_key("sealTrustPolicy");
            assert!(recorded || plan.verdict.unknown, "record before touch");
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::UpdateAssumeRolePolicy { document, .. } = call else { panic!("not a call of this action: {call}") };
            let original = original(case).expect("recorded before it was sealed");
            assert_eq!(*document, original.trust);
            let same = look.role.as_ref().is_some_and(|r| r.id == original.role_id) && look.trusted == original.trusted;
            let ours = same && trust(look) == Some(SEALED_TRUST);
            assert!(ours || case.decision == Some(OnConflict::RestoreOriginal) || look.trusted != original.trusted);
            assert!(ours || case.decision.is_some(), "nobody decided that");
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let Some(role) = &aws.role else { return assert_eq!(verdict.state, ActionState::Failed) };
        assert_eq!((verdict.state, role.trust.as_deref()), (ActionState::InForce, Some(SEALED_TRUST)));
        assert_eq!(verdict.unknown, original(case).is_none());
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        match (verdict.state, original(case)) {
            (ActionState::Conflict, _) => {
                assert!(case.decision.is_none() || verdict.message.contains("not known"));
                assert_eq!(trust(aws), trust(before), "a conflict gives nothing back");
            }
            (ActionState::Released, Some(original)) if aws.role.is_some() => {
                let theirs = case.decision == Some(OnConflict::KeepTheirs) && trust(aws) == trust(before);
                assert!(theirs || trust(aws) == Some(&original.trust), "{:?}", trust(aws));
            }
            (ActionState::Released, _) => assert_eq!(trust(aws), trust(before)),
            (state, _) => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

prop_compose! {
    fn roles()(
        there in prop::bool::weighted(0.95), text in prop_oneof![4 => Just(OPEN), 1 => Just(SEALED_TRUST)],
        marked in prop::bool::weighted(0.1),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let role = there.then(|| Identity { id: "AROA0".into(), trust: Some(text.into()), tags, ..Identity::default() });
        Look { role, trusted: [(CI.to_owned(), "AIDA1".to_owned())].into() }
    }
}

fn attacks() -> BoxedStrategy<TrustAttack> {
    prop_oneof![
        3 => prop_oneof![Just(OPEN), Just(THEIRS), Just(SEALED_TRUST)].prop_map(TrustAttack::Set),
        1 => Just(TrustAttack::MakeRoleAgain),
        1 => Just(TrustAttack::MakeTrustedAgain),
        1 => Just(TrustAttack::DeleteTrusted),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_seal_holds_against_any_order_of_events(
        aws in roles(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<Seal>::new(resource(ResourceKind::IamRole), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn an_undisturbed_trust_policy_is_given_back_exactly(scripts in prop::array::uniform4(script(attacks()))) {
        let role = Identity { id: "AROA0".into(), trust: Some(OPEN.into()), ..Identity::default() };
        let aws = Look { role: Some(role), trusted: [(CI.to_owned(), "AIDA1".to_owned())].into() };
        let mut simulation = Simulation::<Seal>::new(resource(ResourceKind::IamRole), aws, Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!((verdict.state, trust(&simulation.aws)), (ActionState::Released, Some(OPEN)));
    }
}
