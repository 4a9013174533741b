//! `removeConsoleAccess`: passwords that are made and deleted at any moment.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{SINCE, Simulated, Simulation, at, calm, config, decisions, resource, script};
use crate::aws::{Call, LoginProfile, User};
use crate::containment::remove_console_access::{ConsoleAccess, Look};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const NAME: &str = "removeConsoleAccess";

#[derive(Clone, Debug)]
pub enum ConsoleAttack {
    Make,
    Delete,
    /// Writes Firebreak's mark.
    Mark,
}

/// When the password on record was made.
fn original(case: &Case) -> Option<Timestamp> {
    let record: serde_json::Value = serde_json::from_str(case.original.get(NAME)?).unwrap();
    record["loginProfileCreated"].as_str().map(|at| at.parse().unwrap())
}

impl Simulated for ConsoleAccess {
    type Attack = ConsoleAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        matches!(call, Call::DeleteLoginProfile { .. }) && aws.profile.is_some()
    }

    fn attack(aws: &mut Look, attack: &ConsoleAttack, now: Timestamp) {
        match attack {
            ConsoleAttack::Make if aws.user.is_some() => {
                aws.profile.get_or_insert(LoginProfile { created: now });
            }
            ConsoleAttack::Make => {}
            ConsoleAttack::Delete => aws.profile = None,
            ConsoleAttack::Mark => aws.user.iter_mut().for_each(|u| {
                u.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into());
            }),
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        assert!(plan.calls.iter().all(|c| matches!(c, Call::DeleteLoginProfile { .. })), "{:?}", plan.calls);
        let known = case.has_record_of(NAME) || !plan.record.is_empty();
        assert!(plan.calls.is_empty() || known, "record before touch");
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        let own = look.profile.is_some_and(|p| original(case) == Some(p.created));
        assert!(!own || plan.calls.is_empty() || case.decision.is_some(), "nothing of the user's goes unasked");
        assert!(plan.calls.iter().all(|c| matches!(c, Call::DeleteLoginProfile { .. })), "{:?}", plan.calls);
    }

    fn contained(_: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.user.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected);
        assert!(aws.user.is_none() || aws.profile.is_none(), "{:?}", aws.profile);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        if verdict.state == ActionState::Conflict {
            // It could not be deleted, and somebody may have reset it.
            assert!(case.decision.is_none() && aws.profile.is_some_and(|p| original(case) == Some(p.created)));
            return;
        }
        assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        let own = aws.profile.is_some_and(|p| original(case) == Some(p.created)) && aws.profile == before.profile;
        let kept = case.decision == Some(OnConflict::KeepTheirs) && own;
        assert!(aws.profile.is_none() || kept, "{:?}", aws.profile);
    }
}

prop_compose! {
    fn users()(
        made in prop::option::of(-5..5_i64), marked in prop::bool::weighted(0.1), there in prop::bool::weighted(0.95),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let profile = made.filter(|_| there).map(|age| LoginProfile { created: at(SINCE + age) });
        Look { profile, user: there.then(|| User { tags, ..User::default() }) }
    }
}

fn attacks() -> BoxedStrategy<ConsoleAttack> {
    prop_oneof![3 => Just(ConsoleAttack::Make), 1 => Just(ConsoleAttack::Delete), 1 => Just(ConsoleAttack::Mark)].boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn there_is_no_password_against_any_order_of_events(
        aws in users(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        let mut simulation = Simulation::<ConsoleAccess>::new(resource(ResourceKind::IamUser), aws, Empty {});
        simulation.decide(decision);
        simulation.life(&scripts, decision);
    }

    #[test]
    fn undisturbed_it_is_gone_and_what_was_there_is_on_record(
        mut aws in users(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.user = Some(User::default());
        let before = aws.profile.map(|p| p.created).filter(|at| at.as_second() <= SINCE);
        let mut simulation = Simulation::<ConsoleAccess>::new(resource(ResourceKind::IamUser), aws, Empty {});
        simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(simulation.aws.profile, None);
        prop_assert_eq!(original(&simulation.case()), before);
    }
}
