//! `protectFromTermination`: attributes that somebody sets, volumes that come and go.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{AttachedVolume, Call, Instance, InstanceAttribute, InstanceProtection, Outcome};
use crate::containment::action::Action;
use crate::containment::protect_from_termination::{Look, Protection};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const ID: &str = "i-0123456789abcdef0";

#[derive(Clone, Debug)]
pub enum ProtectionAttack {
    Set(InstanceAttribute, bool),
    Attach(usize, bool),
    Detach(usize),
    Mark,
    Terminate,
}

fn original(case: &Case, name: &str) -> Option<bool> {
    let text = case.original.get(&format!("protectFromTermination/{name}"))?;
    serde_json::from_str::<serde_json::Value>(text).unwrap()["protected"].as_bool()
}

fn device(n: usize) -> String {
    format!("/dev/sd{n}")
}

fn volume(n: usize, delete_on_termination: bool) -> AttachedVolume {
    AttachedVolume { id: format!("vol-{n}"), device: device(n), delete_on_termination }
}

/// The names that a call speaks of.
fn named(look: &Look, attribute: &InstanceAttribute) -> Vec<String> {
    let one = |name: &str| vec![name.to_owned()];
    match attribute {
        InstanceAttribute::DisableApiTermination => one("disableApiTermination"),
        InstanceAttribute::DisableApiStop => one("disableApiStop"),
        InstanceAttribute::InstanceInitiatedShutdownBehavior => one("instanceInitiatedShutdownBehavior"),
        InstanceAttribute::DeleteOnTermination(devices) => {
            let volumes = look.instance.iter().flat_map(|i| &i.volumes);
            volumes.filter(|v| devices.contains(&v.device)).map(|v| v.id.clone()).collect()
        }
    }
}

fn is_there(look: &Look) -> bool {
    look.instance.as_ref().is_some_and(|i| !i.is_ended())
}

impl Simulated for Protection {
    type Attack = ProtectionAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    /// As AWS refuses what a kind of instance cannot have, and a device that is not there.
    fn accepts(aws: &Look, call: &Call) -> bool {
        let Call::ModifyInstanceAttribute { attribute, .. } = call else { return false };
        let Some(instance) = aws.instance.as_ref().filter(|i| !i.is_ended()) else { return false };
        match attribute {
            InstanceAttribute::DisableApiTermination => !instance.spot,
            InstanceAttribute::DisableApiStop => !instance.spot && instance.ebs_root,
            InstanceAttribute::InstanceInitiatedShutdownBehavior => instance.ebs_root,
            InstanceAttribute::DeleteOnTermination(devices) => {
                devices.iter().all(|d| instance.volumes.iter().any(|v| v.device == *d))
            }
        }
    }

    fn attack(aws: &mut Look, attack: &ProtectionAttack, _: Timestamp) {
        if let ProtectionAttack::Set(attribute, protect) = attack {
            let call =
                Call::ModifyInstanceAttribute { instance: ID.into(), attribute: attribute.clone(), protect: *protect };
            if Self::accepts(aws, &call) {
                Self::after(aws, &call, &Outcome::Done);
            }
            return;
        }
        let Some(instance) = aws.instance.as_mut().filter(|i| !i.is_ended()) else { return };
        match attack {
            ProtectionAttack::Attach(n, delete) if instance.volumes.iter().all(|v| v.device != device(*n)) => {
                instance.volumes.push(volume(*n, *delete));
            }
            ProtectionAttack::Detach(n) => instance.volumes.retain(|v| v.device != device(*n)),
            ProtectionAttack::Mark => drop(instance.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into())),
            ProtectionAttack::Terminate => instance.state = "terminated".into(),
            _ => {}
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::ModifyInstanceAttribute { attribute, protect: true, .. } = call else {
                panic!("not a call that contains: {call}")
            };
            for name in named(look, attribute) {
                let key = format!("protectFromTermination/{name}");
                let recorded = case.original.contains_key(&key) || plan.record.contains_key(&key);
                assert!(recorded || plan.verdict.unknown, "{name}: record before touch");
            }
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::ModifyInstanceAttribute { attribute, protect, .. } = call else {
                panic!("not a call of this action: {call}")
            };
            for name in named(look, attribute) {
                assert_eq!(original(case, &name), Some(*protect), "{name}: only to what was there");
                let ours = look.shown().unwrap()[&name];
                assert!(ours || case.decision == Some(OnConflict::RestoreOriginal), "{name}: somebody else's change");
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.instance.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(!verdict.message.is_empty());
        if is_there(aws) {
            let shown = aws.shown().unwrap();
            assert!(shown.values().all(|protected| *protected), "{shown:?}");
            let unknown = shown.keys().any(|name| original(case, name).is_none());
            assert!(verdict.unknown == unknown || shown.is_empty());
        }
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        let (true, Some(shown), Some(was)) = (is_there(aws), aws.shown(), before.shown()) else {
            assert_eq!(verdict.state, ActionState::Released);
            return;
        };
        let mut conflict = case.is_unknown("protectFromTermination");
        for (name, now) in &shown {
            let original = original(case, name);
            assert!(original == Some(*now) || was.get(name) == Some(now), "{name}: neither what was, nor the original");
            conflict |= original.is_some_and(|o| o != *now);
        }
        match case.decision {
            None => assert_eq!(verdict.state == ActionState::Conflict, conflict, "{}", verdict.message),
            Some(OnConflict::KeepTheirs) => assert_eq!(verdict.state, ActionState::Released),
            Some(OnConflict::RestoreOriginal) => {
                assert!(shown.iter().all(|(name, now)| original(case, name).is_none_or(|o| o == *now)));
            }
        }
    }
}

prop_compose! {
    fn instances()(
        there in prop::bool::weighted(0.95), spot in prop::bool::weighted(0.2), ebs_root in prop::bool::weighted(0.8),
        attributes in any::<[bool; 3]>(), volumes in vec(any::<bool>(), 0..3), marked in prop::bool::weighted(0.1),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let volumes = volumes.into_iter().enumerate().map(|(n, delete)| volume(n, delete)).collect();
        let state = "running".to_owned();
        let instance = Instance { id: ID.into(), state, tags, spot, ebs_root, volumes, ..Instance::default() };
        let [termination, stop, shutdown] = attributes;
        let protection = InstanceProtection {
            disable_api_termination: termination && !spot,
            disable_api_stop: stop && !spot && ebs_root,
            shutdown_stops: shutdown && ebs_root,
        };
        Look { instance: there.then_some(instance), protection: there.then_some(protection) }
    }
}

fn attacks() -> BoxedStrategy<ProtectionAttack> {
    use InstanceAttribute::{DeleteOnTermination, DisableApiStop, DisableApiTermination, InstanceInitiatedShutdownBehavior};
    let attribute = prop_oneof![
        Just(DisableApiTermination),
        Just(DisableApiStop),
        Just(InstanceInitiatedShutdownBehavior),
        (0..4_usize).prop_map(|n| DeleteOnTermination(vec![device(n)])),
    ];
    prop_oneof![
        10 => (attribute, any::<bool>()).prop_map(|(a, on)| ProtectionAttack::Set(a, on)),
        3 => (0..4_usize, any::<bool>()).prop_map(|(n, delete)| ProtectionAttack::Attach(n, delete)),
        3 => (0..4_usize).prop_map(ProtectionAttack::Detach),
        1 => Just(ProtectionAttack::Mark),
        1 => Just(ProtectionAttack::Terminate),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn protection_holds_against_any_order_of_events(
        aws in instances(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<Protection>::new(resource(ResourceKind::Ec2Instance), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn undisturbed_protection_is_given_back_exactly(
        mut aws in instances(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.instance.iter_mut().for_each(|i| i.tags.clear());
        let before = aws.clone();
        let mut simulation = Simulation::<Protection>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released);
        prop_assert_eq!((&simulation.aws.instance, &simulation.aws.protection), (&before.instance, &before.protection));
    }
}
