//! Credentials of every kind, made, deleted and switched on at any moment.

use firebreak_crds::{ActionState, Empty, OnConflict, ReleasePolicy, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{SINCE, Simulated, Simulation, at, calm, config, decisions, resource, script};
use crate::aws::{Call, Credential, User};
use crate::containment::credentials::{Credentials, Look};
use crate::containment::deactivate_access_keys::AccessKeys;
use crate::containment::deactivate_service_credentials::ServiceCredentials;
use crate::containment::deactivate_signing_certificates::SigningCertificates;
use crate::containment::deactivate_ssh_keys::SshKeys;
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

#[derive(Clone, Debug)]
pub enum Attack {
    Make(usize),
    Activate(usize),
    Deactivate(usize),
    Delete(usize),
    /// Writes Firebreak's mark.
    Mark,
}

fn was_active<C: Credentials>(case: &Case, id: &str) -> Option<bool> {
    let value: serde_json::Value = serde_json::from_str(case.original.get(&format!("{}/{id}", C::ACTION))?).unwrap();
    value["active"].as_bool()
}

/// Whether the policy gives it back in so many words.
fn comes_back<C: Credentials>(case: &Case, id: &str) -> bool {
    C::come_back(&case.release) && was_active::<C>(case, id) == Some(true)
}

impl<C: Credentials> Simulated for C {
    type Attack = Attack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        call.switches().is_some_and(|(id, _)| aws.credentials.iter().any(|c| c.id == id))
    }

    fn attack(aws: &mut Look, attack: &Attack, now: Timestamp) {
        let id = |n: &usize| format!("ID{n}");
        let switch = |keys: &mut Vec<Credential>, n, on| {
            keys.iter_mut().filter(|k| k.id == id(n)).for_each(|k| k.active = on);
        };
        match attack {
            Attack::Make(n) if !aws.credentials.iter().any(|k| k.id == id(n)) => {
                aws.credentials.push(Credential { id: id(n), active: true, created: Some(now), expired: false });
            }
            Attack::Make(_) => {}
            Attack::Activate(n) => switch(&mut aws.credentials, n, true),
            Attack::Deactivate(n) => switch(&mut aws.credentials, n, false),
            Attack::Delete(n) => aws.credentials.retain(|k| k.id != id(n)),
            Attack::Mark => aws.user.iter_mut().for_each(|u| {
                u.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into());
            }),
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Some((id, false)) = call.switches() else { panic!("not a call that contains: {call}") };
            let recorded = was_active::<C>(case, id).is_some() || plan.record.contains_key(&format!("{}/{id}", C::ACTION));
            let made_since = look.credentials.iter().any(|c| c.id == id && c.created.is_some_and(|at| at > case.since));
            assert!(recorded || made_since || plan.verdict.unknown, "{id}: record before touch");
        }
    }

    fn check_release(case: &Case, _: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Some((id, active)) = call.switches() else { panic!("not a call of this action: {call}") };
            assert!(!active || comes_back::<C>(case, id), "{id} must not come back");
        }
    }

    fn contained(_: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.user.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected);
        assert!(aws.user.is_none() || aws.credentials.iter().all(|k| !k.active), "{:?}", aws.credentials);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        for key in aws.credentials.iter().filter(|_| aws.user.is_some()) {
            let was = before.credentials.iter().any(|k| k.id == key.id && k.active);
            let theirs = case.decision == Some(OnConflict::KeepTheirs) && was;
            assert!(key.active == comes_back::<C>(case, &key.id) || theirs, "{key:?}");
        }
    }
}

prop_compose! {
    fn key_rings()(
        keys in vec((any::<bool>(), -5..5_i64), 0..3), marked in prop::bool::weighted(0.1), there in prop::bool::weighted(0.95),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let key = |(n, (active, age)): (usize, (bool, i64))| {
            Credential { id: format!("ID{n}"), active, created: Some(at(SINCE + age)), expired: false }
        };
        let credentials = if there { keys.into_iter().enumerate().map(key).collect() } else { Vec::new() };
        Look { credentials, user: there.then(|| User { tags, ..User::default() }) }
    }
}

fn attacks() -> BoxedStrategy<Attack> {
    prop_oneof![
        2 => (0..4_usize).prop_map(Attack::Make),
        3 => (0..4_usize).prop_map(Attack::Activate),
        1 => (0..4_usize).prop_map(Attack::Deactivate),
        1 => (0..4_usize).prop_map(Attack::Delete),
        1 => Just(Attack::Mark),
    ]
    .boxed()
}

fn simulation<C: Credentials>(aws: Look, back: bool) -> Simulation<C> {
    let mut simulation = Simulation::<C>::new(resource(ResourceKind::IamUser), aws, Empty {});
    let both = ReleasePolicy { reactivate_access_keys: back, reactivate_credentials: back, ..ReleasePolicy::default() };
    simulation.quarantine.spec.holders[0].release = both;
    simulation
}

macro_rules! for_every_kind {
    ($($name:ident: $kind:ty;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(config())]

                #[test]
                fn they_stay_off_against_any_order_of_events(
                    aws in key_rings(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(), back in any::<bool>(),
                ) {
                    let mut simulation = simulation::<$kind>(aws, back);
                    simulation.decide(decision);
                    simulation.life(&scripts, decision);
                }

                #[test]
                fn undisturbed_they_are_given_back_only_where_the_policy_says_so(
                    mut aws in key_rings(), scripts in prop::array::uniform4(script(attacks())), back in any::<bool>(),
                ) {
                    aws.user = Some(User::default());
                    let before = aws.clone();
                    let mut simulation = simulation::<$kind>(aws, back);
                    simulation.life(&scripts.map(|s| calm(&s)), None);
                    for (now, was) in simulation.aws.credentials.iter().zip(&before.credentials) {
                        let made_before = was.created.is_some_and(|at| at.as_second() <= SINCE);
                        prop_assert_eq!(now.active, back && was.active && made_before, "{:?}", now);
                    }
                }
            }
        }
    )*};
}

for_every_kind! {
    access_keys: AccessKeys;
    ssh_keys: SshKeys;
    service_credentials: ServiceCredentials;
    signing_certificates: SigningCertificates;
}
