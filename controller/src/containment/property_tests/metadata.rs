//! `disableInstanceMetadata`: the endpoint and its tokens, set by anybody at any moment.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Instance, MetadataOptions};
use crate::containment::disable_instance_metadata::{Look, Metadata};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

#[derive(Clone, Debug)]
pub enum MetadataAttack {
    Switch(bool),
    Tokens(bool),
    Mark,
    Terminate,
}

fn tokens(required: bool) -> String {
    if required { "required" } else { "optional" }.to_owned()
}

/// Whether it was on, and its tokens.
fn original(case: &Case) -> Option<(bool, String)> {
    let value: serde_json::Value = serde_json::from_str(case.original.get("disableInstanceMetadata")?).unwrap();
    Some((value["enabled"].as_bool()?, value["httpTokens"].as_str()?.to_owned()))
}

fn there(look: &Look) -> Option<&Instance> {
    look.as_ref().filter(|i| !i.is_ended())
}

impl Simulated for Metadata {
    type Attack = MetadataAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        matches!(call, Call::ModifyInstanceMetadataOptions { .. }) && there(aws).is_some()
    }

    fn attack(aws: &mut Look, attack: &MetadataAttack, _: Timestamp) {
        let Some(instance) = aws.as_mut().filter(|i| !i.is_ended()) else { return };
        match attack {
            MetadataAttack::Switch(on) => instance.metadata.enabled = *on,
            MetadataAttack::Tokens(required) => instance.metadata.http_tokens = tokens(*required),
            MetadataAttack::Mark => drop(instance.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into())),
            MetadataAttack::Terminate => instance.state = "terminated".into(),
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        let recorded = original(case).is_some() || plan.record.contains_key("disableInstanceMetadata");
        for call in &plan.calls {
            let Call::ModifyInstanceMetadataOptions { enabled: false, tokens: None, .. } = call else {
                panic!("not a call that contains: {call}")
            };
            assert!(recorded || plan.verdict.unknown, "record before touch");
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::ModifyInstanceMetadataOptions { enabled, tokens, .. } = call else {
                panic!("not a call of this action: {call}")
            };
            let (before, before_tokens) = original(case).expect("nothing is given back that is not recorded");
            assert_eq!(*enabled, before);
            let now = &there(look).unwrap().metadata.http_tokens;
            let after = tokens.as_ref().map_or(now, |(t, _)| t);
            assert!(
                *after == before_tokens || case.decision == Some(OnConflict::KeepTheirs) || !before,
                "weaker than before"
            );
            assert!(before || case.decision == Some(OnConflict::RestoreOriginal), "somebody else's change");
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        if let Some(instance) = there(aws) {
            assert!(!instance.metadata.enabled);
            assert_eq!(verdict.unknown, original(case).is_none());
        }
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        let (Some(now), Some(was)) = (there(aws), there(before)) else {
            assert_eq!(verdict.state, ActionState::Released);
            return;
        };
        let Some((original, original_tokens)) = original(case) else {
            assert_eq!(now.metadata, was.metadata, "what is not known is not touched");
            return;
        };
        match (verdict.state, case.decision) {
            (ActionState::Conflict, None) => {
                assert_eq!(now.metadata, was.metadata);
                assert!(now.metadata.enabled != original || now.metadata.http_tokens != original_tokens);
            }
            (ActionState::Released, Some(OnConflict::KeepTheirs)) => assert!(now.metadata.enabled || !original),
            (ActionState::Released, _) => {
                assert_eq!(now.metadata.enabled, original);
                let given_back = original && !was.metadata.enabled;
                assert!(!given_back || now.metadata.http_tokens == original_tokens);
            }
            (state, _) => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

prop_compose! {
    fn instances()(
        there in prop::bool::weighted(0.95), enabled in any::<bool>(), required in any::<bool>(),
        marked in prop::bool::weighted(0.1),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let metadata = MetadataOptions { enabled, pending: false, http_tokens: tokens(required), hop_limit: 1 };
        there.then(|| Instance { id: "i-1".into(), state: "running".into(), tags, metadata, ..Instance::default() })
    }
}

fn attacks() -> BoxedStrategy<MetadataAttack> {
    prop_oneof![
        8 => any::<bool>().prop_map(MetadataAttack::Switch),
        4 => any::<bool>().prop_map(MetadataAttack::Tokens),
        1 => Just(MetadataAttack::Mark),
        1 => Just(MetadataAttack::Terminate),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_metadata_service_stays_off_against_any_order_of_events(
        aws in instances(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<Metadata>::new(resource(ResourceKind::Ec2Instance), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn an_undisturbed_metadata_service_is_given_back_exactly(
        mut aws in instances(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.iter_mut().for_each(|i| i.tags.clear());
        let before = aws.clone();
        let mut simulation = Simulation::<Metadata>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released);
        prop_assert_eq!(&simulation.aws, &before);
    }
}
