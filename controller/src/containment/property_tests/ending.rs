//! `stopInstance` and `terminateInstance`: an instance that is started, stopped, ended, protected and put into groups at any
//! moment.

use firebreak_crds::{ActionState, EndInstance, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Instance, InstanceAttribute, Membership};
use crate::containment::action::Action;
use crate::containment::ending::Look;
use crate::containment::example::end;
use crate::containment::stop_instance::{LIFTED, Stop};
use crate::containment::terminate_instance::Terminate;
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const ID: &str = "i-0123456789abcdef0";

#[derive(Clone, Debug)]
pub enum EndingAttack {
    Start,
    Stop,
    Protect(bool),
    Join(bool),
    Leave,
    Mark,
    Terminate,
}

/// The state on record.
fn original(case: &Case) -> Option<String> {
    let text = case.original.get(Stop::NAME)?;
    serde_json::from_str::<serde_json::Value>(text).unwrap()["state"].as_str().map(str::to_owned)
}

/// What was under way has happened by the next look.
fn settled(aws: &Look) -> Look {
    let mut look = aws.clone();
    let then = |state: &str| match state {
        "pending" => "running".to_owned(),
        "stopping" => "stopped".to_owned(),
        "shutting-down" => "terminated".to_owned(),
        other => other.to_owned(),
    };
    look.instance.iter_mut().for_each(|i| i.state = then(&i.state));
    look
}

fn is(look: &Look, state: &str) -> bool {
    settled(look).instance.is_some_and(|i| i.state == state)
}

fn there(look: &Look) -> bool {
    look.instance.is_some() && !is(look, "terminated")
}

/// Whether the evidence, or the service, would be lost.
fn must_not_end(look: &Look, params: EndInstance) -> bool {
    let store = look.store != Some(false) || look.instance.as_ref().is_some_and(|i| !i.ebs_root);
    look.membership.is_some() || (store && !params.acknowledge_instance_store_loss)
}

fn stoppable(look: &Look) -> bool {
    look.instance.as_ref().is_some_and(|i| i.ebs_root && (!i.spot || look.persistent))
}

fn attack(aws: &mut Look, attack: &EndingAttack) {
    *aws = settled(aws);
    let Some(instance) = aws.instance.as_mut().filter(|i| i.state != "terminated") else { return };
    match attack {
        EndingAttack::Start => instance.state = "running".into(),
        EndingAttack::Stop if instance.ebs_root => instance.state = "stopped".into(),
        EndingAttack::Stop => {}
        EndingAttack::Protect(on) => aws.protected = Some(*on && !instance.spot),
        EndingAttack::Join(standby) => {
            let state = if *standby { "Standby" } else { "InService" };
            aws.membership = Some(Membership { group: "web".into(), state: state.into(), protected: false });
        }
        EndingAttack::Leave => aws.membership = None,
        EndingAttack::Mark => drop(instance.tags.insert("firebreak.dev/incident".into(), "security/inc-1".into())),
        EndingAttack::Terminate => {
            instance.state = "terminated".into();
            aws.membership = None;
        }
    }
}

impl Simulated for Stop {
    type Attack = EndingAttack;

    fn read(aws: &Look, _: &Case, _: Option<&EndInstance>) -> Look {
        settled(aws)
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        match call {
            Call::StopInstances { .. } => is(aws, "running") && stoppable(aws) && aws.protected == Some(false),
            Call::StartInstances { .. } => is(aws, "stopped"),
            Call::LiftStopProtection { .. } | Call::ModifyInstanceAttribute { .. } => {
                there(aws) && aws.instance.as_ref().is_some_and(|i| !i.spot)
            }
            _ => false,
        }
    }

    fn attack(aws: &mut Look, what: &EndingAttack, _: Timestamp) {
        attack(aws, what);
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        let recorded = |key: &str| case.original.contains_key(key) || plan.record.contains_key(key);
        for call in &plan.calls {
            assert!(recorded(Stop::NAME) || plan.verdict.unknown, "record before touch");
            match call {
                Call::StopInstances { .. } => assert!(look.membership.is_none() && look.protected == Some(false)),
                Call::LiftStopProtection { .. } => assert!(recorded(LIFTED)),
                other => panic!("not a call that contains: {other}"),
            }
        }
    }

    fn check_release(case: &Case, _: &Look, plan: &Plan) {
        let ran = original(case).is_some_and(|state| state == "running");
        for call in &plan.calls {
            match call {
                Call::StartInstances { .. } => assert!(ran, "it did not run before"),
                Call::StopInstances { .. } | Call::LiftStopProtection { .. } => {
                    assert!(!ran && case.decision == Some(OnConflict::RestoreOriginal), "nobody decided so");
                }
                Call::ModifyInstanceAttribute { attribute: InstanceAttribute::DisableApiStop, protect, .. } => {
                    assert!(*protect && case.original.contains_key(LIFTED), "not what was there before");
                }
                other => panic!("not a call of a release: {other}"),
            }
        }
    }

    fn contained(case: &Case, params: &EndInstance, aws: &Look, verdict: &Verdict) {
        let expected = match () {
            () if aws.instance.is_none() => ActionState::Failed,
            () if !is(aws, "running") => ActionState::InForce,
            () if must_not_end(aws, *params) || !stoppable(aws) => ActionState::Failed,
            () => panic!("it runs, and nothing is in the way: {aws:?}"),
        };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(!there(aws) || original(case).is_some() || verdict.unknown, "whether it ran is not lost");
    }

    fn released(case: &Case, _: &Look, aws: &Look, verdict: &Verdict) {
        let was = original(case);
        match (verdict.state, &was) {
            _ if !there(aws) => assert_eq!(verdict.state, ActionState::Released),
            (ActionState::Released, Some(was)) if case.decision.is_none() => assert!(is(aws, was), "{aws:?}, not {was}"),
            (ActionState::Conflict, Some(was)) => assert!(was == "stopped" && is(aws, "running"), "{}", verdict.message),
            (ActionState::Conflict, None) => assert!(case.is_unknown(Stop::NAME)),
            (ActionState::Released, _) => {}
            (state, _) => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

impl Simulated for Terminate {
    type Attack = EndingAttack;

    fn read(aws: &Look, _: &Case, _: Option<&EndInstance>) -> Look {
        settled(aws)
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        matches!(call, Call::TerminateInstances { .. }) && there(aws) && aws.protected == Some(false)
    }

    fn attack(aws: &mut Look, what: &EndingAttack, _: Timestamp) {
        attack(aws, what);
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            assert!(matches!(call, Call::TerminateInstances { .. }), "not a call that contains: {call}");
            assert!(case.has_record_of(Terminate::NAME) || plan.record.contains_key(Terminate::NAME));
            assert!(look.membership.is_none() && look.protected == Some(false));
            assert!(!(look.persistent && look.instance.as_ref().is_some_and(|i| i.spot)), "AWS would launch another");
        }
    }

    fn check_release(_: &Case, _: &Look, plan: &Plan) {
        assert!(plan.calls.is_empty() && plan.record.is_empty(), "nothing brings it back: {plan:?}");
    }

    fn contained(_: &Case, params: &EndInstance, aws: &Look, verdict: &Verdict) {
        let again = aws.persistent && aws.instance.as_ref().is_some_and(|i| i.spot);
        let kept = there(aws) && (must_not_end(aws, *params) || aws.protected == Some(true) || again);
        let expected = if kept || aws.instance.is_none() { ActionState::Failed } else { ActionState::InForce };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert_eq!(there(aws), kept);
    }

    fn released(_: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        assert_eq!(verdict.state, ActionState::Released);
        assert_eq!(there(aws), there(before));
    }
}

prop_compose! {
    fn scenes()(
        there in prop::bool::weighted(0.95), running in prop::bool::weighted(0.8), spot in prop::bool::weighted(0.2),
        ebs_root in prop::bool::weighted(0.9), store in prop_oneof![6 => Just(Some(false)), 1 => Just(Some(true)), 1 => Just(None)],
        persistent in any::<bool>(), member in prop::bool::weighted(0.1), protected in any::<bool>(),
        marked in prop::bool::weighted(0.1),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let state = if running || !ebs_root { "running" } else { "stopped" }.to_owned();
        let instance = Instance { id: ID.into(), state, tags, spot, ebs_root, ..Instance::default() };
        let membership =
            (there && member).then(|| Membership { group: "web".into(), state: "InService".into(), protected: false });
        let (instance, protected) = (there.then_some(instance), Some(protected && !spot));
        Look { instance, membership, store, persistent, protected, trusted: false }
    }
}

fn attacks() -> BoxedStrategy<EndingAttack> {
    prop_oneof![
        6 => Just(EndingAttack::Start),
        3 => Just(EndingAttack::Stop),
        4 => any::<bool>().prop_map(EndingAttack::Protect),
        2 => any::<bool>().prop_map(EndingAttack::Join),
        2 => Just(EndingAttack::Leave),
        1 => Just(EndingAttack::Mark),
        1 => Just(EndingAttack::Terminate),
    ]
    .boxed()
}

pub fn endings() -> impl Strategy<Value = EndInstance> {
    any::<bool>().prop_map(|acknowledge_instance_store_loss| EndInstance { acknowledge_instance_store_loss })
}

fn simulation<A: Simulated<Look = Look, Params = EndInstance>>(aws: Look, params: EndInstance) -> Simulation<A> {
    let mut simulation = Simulation::<A>::new(resource(ResourceKind::Ec2Instance), aws, params);
    simulation.quarantine.spec.holders[0].actions = vec![end(A::NAME)];
    simulation
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_stop_holds_against_any_order_of_events(
        aws in scenes(), params in endings(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        let mut simulation = simulation::<Stop>(aws, params);
        let verdict = simulation.life(&scripts, None);
        simulation.decide(decision);
        let decided = simulation.release();
        if decision == Some(OnConflict::KeepTheirs) && verdict.state == ActionState::Conflict {
            prop_assert_eq!(decided.state, ActionState::Released, "{}", decided.message);
        }
    }

    #[test]
    fn undisturbed_an_instance_runs_again_only_if_it_ran_and_as_protected_as_it_was(
        mut aws in scenes(), params in endings(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.instance.iter_mut().for_each(|i| i.tags.clear());
        let before = aws.clone();
        let mut simulation = simulation::<Stop>(aws, params);
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        let now = settled(&simulation.aws);
        prop_assert_eq!((now.instance, now.protected), (before.instance, before.protected));
    }

    #[test]
    fn an_end_comes_only_where_nothing_speaks_against_it(
        aws in scenes(), params in endings(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        simulation::<Terminate>(aws, params).life(&scripts, None);
    }
}
