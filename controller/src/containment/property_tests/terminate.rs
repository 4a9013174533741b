//! `terminateSessions`: sessions and commands that begin, end by themselves, and resist at any moment.

use firebreak_crds::{ActionState, Empty, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Simulated, Simulation, config, decisions, resource, script};
use crate::aws::{Call, Instance, OpenCommand, OpenSession};
use crate::containment::terminate_sessions::{Look, SystemsManager};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const NAME: &str = "terminateSessions";

#[derive(Clone, Debug)]
pub enum SessionAttack {
    StartSession(u8),
    SendCommand(u8),
    /// What was asked to end does not.
    Resist,
    /// It ends by itself.
    End,
    Terminate,
}

fn session(n: u8) -> OpenSession {
    OpenSession { id: format!("s-{n}"), target: "i-1".into(), owner: "mallory".into(), ending: false }
}

fn command(n: u8) -> OpenCommand {
    OpenCommand { id: format!("c-{n}"), target: "i-1".into(), document: "AWS-RunShellScript".into(), ending: false }
}

impl Simulated for SystemsManager {
    type Attack = SessionAttack;

    fn read(aws: &Look, _: &Case, params: Option<&Empty>) -> Look {
        params.map_or_else(Look::default, |_| aws.clone())
    }

    /// AWS takes both whether or not it is still open.
    fn accepts(_: &Look, call: &Call) -> bool {
        matches!(call, Call::TerminateSession { .. } | Call::CancelCommand { .. })
    }

    fn attack(aws: &mut Look, attack: &SessionAttack, _: Timestamp) {
        match attack {
            SessionAttack::StartSession(n) if aws.instance.is_some() => aws.sessions.push(session(*n)),
            SessionAttack::SendCommand(n) if aws.instance.is_some() => aws.commands.push(command(*n)),
            SessionAttack::StartSession(_) | SessionAttack::SendCommand(_) => {}
            SessionAttack::Resist => aws.sessions.iter_mut().take(1).for_each(|s| s.ending = true),
            SessionAttack::End => aws.sessions.truncate(aws.sessions.len().saturating_sub(1)),
            SessionAttack::Terminate => {
                aws.instance = None;
                aws.sessions.clear();
                aws.commands.clear();
            }
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            let open = match call {
                Call::TerminateSession { session, .. } => look.sessions.iter().any(|s| s.id == *session && !s.ending),
                Call::CancelCommand { command, .. } => look.commands.iter().any(|c| c.id == *command),
                _ => panic!("not a call of this action: {call}"),
            };
            assert!(open, "{call}");
        }
        assert!(plan.calls.is_empty() || case.has_record_of(NAME) || plan.record.contains_key(NAME), "record before touch");
        let quiet = look.sessions.is_empty() && look.commands.is_empty();
        assert!(quiet || plan.verdict.state != ActionState::InForce, "what is open is not in force");
    }

    fn check_release(_: &Case, _: &Look, plan: &Plan) {
        assert!(plan.is_done(), "there is nothing to give back");
    }

    fn contained(_: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let left = aws.sessions.iter().filter(|s| !s.ending).count() + aws.commands.len();
        assert_eq!(left, 0, "{aws:?}");
        let expected = match (&aws.instance, aws.sessions.is_empty()) {
            (None, _) => ActionState::Failed,
            (Some(_), true) => ActionState::InForce,
            (Some(_), false) => ActionState::InProgress,
        };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
    }

    fn released(_: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        assert_eq!(verdict.state, ActionState::Released);
        assert_eq!((&aws.sessions, &aws.commands), (&before.sessions, &before.commands));
    }
}

prop_compose! {
    fn instances()(
        there in prop::bool::weighted(0.95), sessions in vec(0..4_u8, 0..3), commands in vec(0..4_u8, 0..3),
    ) -> Look {
        let instance = there.then(|| Instance { id: "i-1".into(), state: "running".into(), ..Instance::default() });
        let (sessions, commands) = if there { (sessions, commands) } else { (vec![], vec![]) };
        Look {
            instance,
            sessions: sessions.into_iter().map(session).collect(),
            commands: commands.into_iter().map(command).collect(),
            unread: None,
        }
    }
}

fn attacks() -> BoxedStrategy<SessionAttack> {
    prop_oneof![
        6 => (0..9_u8).prop_map(SessionAttack::StartSession),
        4 => (0..9_u8).prop_map(SessionAttack::SendCommand),
        1 => Just(SessionAttack::Resist),
        2 => Just(SessionAttack::End),
        1 => Just(SessionAttack::Terminate),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nobody_stays_on_the_instance_against_any_order_of_events(
        aws in instances(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<SystemsManager>::new(resource(ResourceKind::Ec2Instance), aws, Empty {}).life(&scripts, decision);
    }
}
