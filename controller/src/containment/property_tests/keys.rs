//! `deactivateAccessKeys`: keys that are made, deleted and switched on at any moment.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{SINCE, Simulated, Simulation, at, calm, config, decisions, resource, script};
use crate::aws::{AccessKey, Call, User};
use crate::containment::deactivate_access_keys::{Keys, Look};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

#[derive(Clone, Debug)]
pub enum KeyAttack {
    Make(usize),
    Activate(usize),
    Deactivate(usize),
    Delete(usize),
    /// Writes Firebreak's mark.
    Mark,
}

fn was_active(case: &Case, key: &str) -> Option<bool> {
    let value: serde_json::Value = serde_json::from_str(case.original.get(&format!("deactivateAccessKeys/{key}"))?).unwrap();
    value["active"].as_bool()
}

/// Whether the policy gives this key back in so many words.
fn comes_back(case: &Case, key: &str) -> bool {
    case.release.reactivate_access_keys && was_active(case, key) == Some(true)
}

impl Simulated for Keys {
    type Attack = KeyAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        matches!(call, Call::UpdateAccessKey { key, .. } if aws.keys.iter().any(|k| k.id == *key))
    }

    fn attack(aws: &mut Look, attack: &KeyAttack, now: Timestamp) {
        let id = |n: &usize| format!("AKIA{n}");
        let switch = |keys: &mut Vec<AccessKey>, n, on| {
            keys.iter_mut().filter(|k| k.id == id(n)).for_each(|k| k.active = on);
        };
        match attack {
            KeyAttack::Make(n) if !aws.keys.iter().any(|k| k.id == id(n)) => {
                aws.keys.push(AccessKey { id: id(n), active: true, created: Some(now) });
            }
            KeyAttack::Make(_) => {}
            KeyAttack::Activate(n) => switch(&mut aws.keys, n, true),
            KeyAttack::Deactivate(n) => switch(&mut aws.keys, n, false),
            KeyAttack::Delete(n) => aws.keys.retain(|k| k.id != id(n)),
            KeyAttack::Mark => aws.user.iter_mut().for_each(|u| {
                u.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into());
            }),
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::UpdateAccessKey { key, active: false, .. } = call else { panic!("not a call that contains: {call}") };
            let recorded =
                was_active(case, key).is_some() || plan.record.contains_key(&format!("deactivateAccessKeys/{key}"));
            let made_since = look.keys.iter().any(|k| k.id == *key && k.created.is_some_and(|at| at > case.since));
            assert!(recorded || made_since || plan.verdict.unknown, "{key}: record before touch");
        }
    }

    fn check_release(case: &Case, _: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Call::UpdateAccessKey { key, active, .. } = call else { panic!("not a call of this action: {call}") };
            assert!(!active || comes_back(case, key), "{key} must not come back");
        }
    }

    fn contained(_: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.user.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected);
        assert!(aws.user.is_none() || aws.keys.iter().all(|k| !k.active), "{:?}", aws.keys);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        for key in aws.keys.iter().filter(|_| aws.user.is_some()) {
            let was = before.keys.iter().any(|k| k.id == key.id && k.active);
            let theirs = case.decision == Some(OnConflict::KeepTheirs) && was;
            assert!(key.active == comes_back(case, &key.id) || theirs, "{key:?}");
        }
    }
}

prop_compose! {
    fn key_rings()(
        keys in vec((any::<bool>(), -5..5_i64), 0..3), marked in prop::bool::weighted(0.1), there in prop::bool::weighted(0.95),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let key = |(n, (active, age)): (usize, (bool, i64))| {
            AccessKey { id: format!("AKIA{n}"), active, created: Some(at(SINCE + age)) }
        };
        let keys = if there { keys.into_iter().enumerate().map(key).collect() } else { Vec::new() };
        Look { keys, user: there.then(|| User { tags, ..User::default() }) }
    }
}

fn key_attacks() -> BoxedStrategy<KeyAttack> {
    prop_oneof![
        2 => (0..4_usize).prop_map(KeyAttack::Make),
        3 => (0..4_usize).prop_map(KeyAttack::Activate),
        1 => (0..4_usize).prop_map(KeyAttack::Deactivate),
        1 => (0..4_usize).prop_map(KeyAttack::Delete),
        1 => Just(KeyAttack::Mark),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn keys_stay_off_against_any_order_of_events(
        aws in key_rings(), scripts in prop::array::uniform4(script(key_attacks())), decision in decisions(), back in any::<bool>(),
    ) {
        let mut simulation = Simulation::<Keys>::new(resource(ResourceKind::IamUser), aws, Empty {});
        simulation.quarantine.spec.holders[0].release.reactivate_access_keys = back;
        simulation.decide(decision);
        simulation.life(&scripts, decision);
    }

    #[test]
    fn undisturbed_keys_are_given_back_only_where_the_policy_says_so(
        mut aws in key_rings(), scripts in prop::array::uniform4(script(key_attacks())), back in any::<bool>(),
    ) {
        aws.user = Some(User::default());
        let before = aws.clone();
        let mut simulation = Simulation::<Keys>::new(resource(ResourceKind::IamUser), aws, Empty {});
        simulation.quarantine.spec.holders[0].release.reactivate_access_keys = back;
        simulation.life(&scripts.map(|s| calm(&s)), None);
        for (key, was) in simulation.aws.keys.iter().zip(&before.keys) {
            let made_before = was.created.is_some_and(|at| at.as_second() <= SINCE);
            prop_assert_eq!(key.active, back && was.active && made_before, "{:?}", key);
        }
    }
}
