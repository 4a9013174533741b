//! `detachFromAutoScaling`: groups that are joined, left, filled and deleted at any moment.

use firebreak_crds::{ActionState, DetachFromAutoScaling, DetachMode, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, Instance, Membership, ScalingGroup};
use crate::containment::detach_from_auto_scaling::{AutoScaling, Look, Original};
use crate::containment::{action::Action, case::Case, plan::Plan, plan::Verdict};

/// The first is the one that the instance may be in at the beginning.
const GROUPS: [&str; 2] = ["web", "attackers"];
/// `Pending:Wait` is held by a lifecycle hook: AWS takes nothing out of it.
const STATES: [&str; 5] = ["InService", "Standby", "Pending:Wait", "Warmed:Running", "Terminating"];

#[derive(Clone, Debug)]
pub enum ScalingAttack {
    Join(usize, usize),
    Leave,
    State(usize),
    Protect(bool),
    /// Sets the desired capacity of the first group, which may have two.
    Desire(i32),
    DeleteGroup,
    Terminate,
}

fn original(case: &Case) -> Option<Original> {
    case.recorded(AutoScaling::NAME)
}

fn shown(aws: &Look) -> Look {
    let mut look = aws.clone();
    look.membership.iter_mut().filter(|m| m.state == "Pending").for_each(|m| m.state = "InService".into());
    look
}

fn state(look: &Look) -> Option<&str> {
    look.membership.as_ref().map(|m| m.state.as_str())
}

impl Simulated for AutoScaling {
    type Attack = ScalingAttack;

    /// Who was taken in is in service by the next look.
    fn read(aws: &Look, _: &Case, _: Option<&DetachFromAutoScaling>) -> Look {
        shown(aws)
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        let there = |group: &String| aws.membership.as_ref().is_some_and(|m| m.group == *group);
        let state = state(&shown(aws)).unwrap_or_default().to_owned();
        let usual = ["InService", "Standby"].contains(&state.as_str());
        match call {
            Call::SetInstanceProtection { group, .. } => there(group) && usual,
            Call::EnterStandby { group, .. } | Call::DetachInstances { group, .. } => {
                there(group) && (usual || state.starts_with("Warmed"))
            }
            Call::ExitStandby { group, .. } => there(group) && state == "Standby" && room(aws),
            Call::AttachInstances { .. } => !ended(aws) && aws.membership.is_none() && room(aws),
            _ => false,
        }
    }

    fn attack(aws: &mut Look, attack: &ScalingAttack, _: Timestamp) {
        match attack {
            ScalingAttack::Join(group, state) if aws.membership.is_none() && !ended(aws) => {
                let (group, state) = (GROUPS[*group].into(), STATES[*state].into());
                aws.membership = Some(Membership { group, state, protected: false });
            }
            ScalingAttack::Join(..) => {}
            ScalingAttack::Leave => aws.membership = None,
            ScalingAttack::State(n) => aws.membership.iter_mut().for_each(|m| m.state = STATES[*n].into()),
            ScalingAttack::Protect(on) => aws.membership.iter_mut().for_each(|m| m.protected = *on),
            ScalingAttack::Desire(n) => aws.group.iter_mut().for_each(|g| g.desired = *n),
            ScalingAttack::DeleteGroup => {
                aws.group = None;
                aws.membership = aws.membership.take().filter(|m| m.group != GROUPS[0]);
            }
            ScalingAttack::Terminate => {
                aws.instance.iter_mut().for_each(|i| i.state = "terminated".into());
                aws.membership = None;
            }
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        let recorded = original(case).is_some() || plan.record.contains_key(AutoScaling::NAME);
        assert!(plan.calls.is_empty() || recorded || plan.verdict.unknown, "record before touch: {:?}", plan.calls);
        let leaves = |c: &Call| {
            matches!(
                c,
                Call::DetachInstances { .. } | Call::EnterStandby { .. } | Call::SetInstanceProtection { protect: true, .. }
            )
        };
        assert!(plan.calls.iter().all(leaves), "{:?}", plan.calls);
    }

    fn check_release(case: &Case, _: &Look, plan: &Plan) {
        let original = original(case).unwrap_or_default();
        let own = |group: &String| original.group.as_ref() == Some(group);
        for call in &plan.calls {
            match call {
                Call::AttachInstances { group, .. } | Call::ExitStandby { group, .. } => {
                    assert!(case.release.rejoin_auto_scaling && own(group), "{call}");
                }
                Call::SetInstanceProtection { group, protect, .. } => {
                    assert!(*protect == original.protected && own(group), "{call}");
                }
                Call::DetachInstances { group, .. } => {
                    assert!(case.decision == Some(OnConflict::RestoreOriginal) && !own(group), "{call}");
                }
                other => panic!("not a call of a release: {other}"),
            }
        }
    }

    fn contained(case: &Case, _: &DetachFromAutoScaling, aws: &Look, verdict: &Verdict) {
        let expected = match (&aws.instance, state(aws)) {
            (None, _) | (_, Some("Terminating")) => ActionState::Failed,
            (_, Some("Pending:Wait")) => ActionState::InProgress,
            _ => ActionState::InForce,
        };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        if expected == ActionState::InForce {
            assert!(matches!(state(aws), None | Some("Standby")), "{aws:?}");
        }
        assert!(ended(aws) || original(case).is_some() || verdict.unknown, "its group is not lost");
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        let original = original(case).unwrap_or_default();
        if !case.release.rejoin_auto_scaling && case.decision.is_none() {
            let place = |look: &Look| look.membership.as_ref().map(|m| (m.group.clone(), m.state.clone()));
            assert_eq!(place(&shown(before)), place(&shown(aws)), "nothing was given back");
        }
        let expected = [ActionState::Released, ActionState::Conflict, ActionState::InProgress];
        assert!(expected.contains(&verdict.state), "{}", verdict.message);
        let waits = matches!(state(aws), Some("Pending:Wait" | "Terminating" | "Warmed:Running"));
        let is_open = verdict.state == ActionState::InProgress;
        assert!(!is_open || waits, "{}", verdict.message);
        let rejoined = aws.membership.as_ref().is_some_and(|m| Some(&m.group) == original.group.as_ref());
        if rejoined && verdict.state == ActionState::Released && state(aws) == Some("InService") {
            assert_eq!(aws.membership.as_ref().map(|m| m.protected), Some(original.protected));
        }
    }
}

fn ended(aws: &Look) -> bool {
    aws.instance.as_ref().is_none_or(|i| i.state == "terminated")
}

fn room(aws: &Look) -> bool {
    aws.group.as_ref().is_some_and(|g| g.desired < g.max)
}

prop_compose! {
    fn scenes()(
        there in prop::bool::weighted(0.95), member in prop::option::weighted(0.8, (0..STATES.len(), any::<bool>())),
        marked in prop::bool::weighted(0.1), desired in 0..3_i32,
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let instance = there.then(|| Instance { state: "running".into(), tags, ..Instance::default() });
        let membership = member.filter(|_| there).map(|(state, protected)| {
            Membership { group: GROUPS[0].into(), state: STATES[state].into(), protected }
        });
        Look { instance, membership, group: Some(ScalingGroup { desired, max: 2, ..ScalingGroup::default() }) }
    }
}

fn attacks() -> BoxedStrategy<ScalingAttack> {
    prop_oneof![
        3 => (0..2_usize, 0..3_usize).prop_map(|(g, s)| ScalingAttack::Join(g, s)),
        2 => Just(ScalingAttack::Leave),
        3 => (0..STATES.len()).prop_map(ScalingAttack::State),
        2 => any::<bool>().prop_map(ScalingAttack::Protect),
        2 => (0..3_i32).prop_map(ScalingAttack::Desire),
        1 => Just(ScalingAttack::DeleteGroup),
        1 => Just(ScalingAttack::Terminate),
    ]
    .boxed()
}

pub fn detachments() -> impl Strategy<Value = DetachFromAutoScaling> {
    prop_oneof![Just(DetachMode::Detach), Just(DetachMode::Standby)].prop_map(|mode| DetachFromAutoScaling { mode })
}

fn simulation(aws: Look, params: DetachFromAutoScaling, rejoin: bool) -> Simulation<AutoScaling> {
    let mut simulation = Simulation::<AutoScaling>::new(resource(ResourceKind::Ec2Instance), aws, params);
    simulation.quarantine.spec.holders[0].release.rejoin_auto_scaling = rejoin;
    simulation
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn leaving_holds_against_any_order_of_events(
        aws in scenes(), params in detachments(), scripts in prop::array::uniform4(script(attacks())), rejoin in any::<bool>(),
    ) {
        simulation(aws, params, rejoin).life(&scripts, None);
    }

    /// A decision ends what a person can decide; who waits for AWS, or for room, goes on waiting.
    #[test]
    fn a_decision_is_carried_out(
        aws in scenes(), params in detachments(), scripts in prop::array::uniform4(script(attacks())), rejoin in any::<bool>(),
        decision in decisions(),
    ) {
        let mut simulation = simulation(aws, params, rejoin);
        let verdict = simulation.life(&scripts, None);
        simulation.decide(decision);
        let decided = simulation.release();
        if decision == Some(OnConflict::KeepTheirs) && verdict.state == ActionState::Conflict {
            prop_assert_eq!(decided.state, ActionState::Released, "{}", decided.message);
        }
    }

    #[test]
    fn undisturbed_the_place_comes_back_only_where_the_policy_says_so(
        protected in any::<bool>(), params in detachments(), scripts in prop::array::uniform4(script(attacks())), rejoin in any::<bool>(),
    ) {
        let instance = Some(Instance { state: "running".into(), ..Instance::default() });
        let membership = Some(Membership { group: GROUPS[0].into(), state: "InService".into(), protected });
        let aws = Look { instance, membership, group: Some(ScalingGroup { desired: 1, max: 9, ..ScalingGroup::default() }) };
        let before = aws.membership.clone();
        let mut simulation = simulation(aws, params, rejoin);
        let verdict = simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        let now = shown(&simulation.aws).membership;
        prop_assert_eq!(now == before, rejoin, "{:?}", now);
    }
}
