//! Credentials of every kind, made, deleted and switched on at any moment.

use firebreak_crds::{ActionState, Empty, ReleasePolicy, ResourceKind};
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
    /// Deletes the user, and makes one of the same name.
    Remake,
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

    fn read(aws: &Look, case: &Case, _: Option<&Empty>) -> Look {
        let mut look = aws.clone();
        look.credentials.retain(|c| is_contained(case, &c.id));
        look
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
            Attack::Remake => {
                aws.credentials.clear();
                aws.user = aws.user.is_some().then(|| User { id: "AIDA2".into(), ..User::default() });
            }
            Attack::Mark => aws.user.iter_mut().for_each(|u| {
                u.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into());
            }),
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Some((id, false)) = call.switches() else { panic!("not a call that contains: {call}") };
            assert!(is_contained(case, id), "{id} is none of ours");
            let recorded = was_active::<C>(case, id).is_some() || plan.record.contains_key(&format!("{}/{id}", C::ACTION));
            let made_since = look.credentials.iter().any(|c| c.id == id && c.created.is_some_and(|at| at > case.since));
            assert!(recorded || made_since || plan.verdict.unknown, "{id}: record before touch");
        }
    }

    fn check_release(case: &Case, _: &Look, plan: &Plan) {
        for call in &plan.calls {
            let Some((id, active)) = call.switches() else { panic!("not a call of this action: {call}") };
            assert!(is_contained(case, id), "{id} is none of ours");
            assert!(!active || comes_back::<C>(case, id), "{id} must not come back");
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let there = aws.user.as_ref().is_some_and(|user| !is_another(case, user));
        assert_eq!(verdict.state, if there { ActionState::InForce } else { ActionState::Failed });
        let mut contained = aws.credentials.iter().filter(|k| is_contained(case, &k.id));
        assert!(!there || contained.all(|k| !k.active), "{:?}", aws.credentials);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        if aws.user.as_ref().is_some_and(|user| is_another(case, user)) {
            assert_eq!(verdict.state == ActionState::Conflict, case.decision.is_none(), "{}", verdict.message);
            assert_eq!(aws.credentials, before.credentials, "another's");
            return;
        }
        assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        for key in aws.credentials.iter().filter(|k| aws.user.is_some() && is_contained(case, &k.id)) {
            assert_eq!(key.active, comes_back::<C>(case, &key.id), "{key:?}");
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
        Look { credentials, user: there.then(|| User { tags, ..owner() }), contained_before: false }
    }
}

fn owner() -> User {
    User { id: "AIDA1".into(), ..User::default() }
}

/// Of an access key only that, of a user all.
fn is_contained(case: &Case, id: &str) -> bool {
    case.resource.kind != ResourceKind::AccessKey || case.resource.id == id
}

fn is_another(case: &Case, user: &User) -> bool {
    case.resource.user.as_ref().is_some_and(|u| u.id != user.id)
}

fn attacks() -> BoxedStrategy<Attack> {
    prop_oneof![
        2 => (0..4_usize).prop_map(Attack::Make),
        3 => (0..4_usize).prop_map(Attack::Activate),
        1 => (0..4_usize).prop_map(Attack::Deactivate),
        1 => (0..4_usize).prop_map(Attack::Delete),
        1 => Just(Attack::Remake),
        1 => Just(Attack::Mark),
    ]
    .boxed()
}

fn simulation<C: Credentials>(aws: Look, back: bool) -> Simulation<C> {
    simulation_of(ResourceKind::IamUser, aws, back)
}

fn simulation_of<C: Credentials>(kind: ResourceKind, aws: Look, back: bool) -> Simulation<C> {
    let mut simulation = Simulation::<C>::new(resource(kind), aws, Empty {});
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
                    aws.user = Some(owner());
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

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_key_stays_off_and_the_others_are_left_alone_against_any_order_of_events(
        aws in key_rings(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(), back in any::<bool>(),
    ) {
        let mut simulation = simulation_of::<AccessKeys>(ResourceKind::AccessKey, aws, back);
        simulation.decide(decision);
        simulation.life(&scripts, decision);
    }

    #[test]
    fn undisturbed_one_key_is_given_back_only_where_the_policy_says_so(
        mut aws in key_rings(), scripts in prop::array::uniform4(script(attacks())), back in any::<bool>(),
    ) {
        aws.user = Some(owner());
        let before = aws.clone();
        let mut simulation = simulation_of::<AccessKeys>(ResourceKind::AccessKey, aws, back);
        simulation.life(&scripts.map(|s| calm(&s)), None);
        for (now, was) in simulation.aws.credentials.iter().zip(&before.credentials) {
            let made_before = was.created.is_some_and(|at| at.as_second() <= SINCE);
            let same = now.id != "ID0" || (back && made_before);
            prop_assert_eq!(now.active, same && was.active, "{:?}", now);
        }
    }
}

for_every_kind! {
    access_keys: AccessKeys;
    ssh_keys: SshKeys;
    service_credentials: ServiceCredentials;
    signing_certificates: SigningCertificates;
}
