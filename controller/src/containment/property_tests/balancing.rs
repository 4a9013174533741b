//! `deregisterFromLoadBalancers`: targets that are registered, taken out, and lost at any moment.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{Call, ClassicBalancer, Instance, Registration, Target, TargetGroup};
use crate::containment::deregister_from_load_balancers::{LoadBalancers, Look, Original};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const GROUPS: [&str; 3] = ["arn:a:targetgroup/a/1", "arn:a:targetgroup/b/2", "arn:a:targetgroup/c/3"];
const ID: &str = "i-0123456789abcdef0";
const IDS: [&str; 2] = [ID, "10.0.0.1"];

#[derive(Clone, Debug)]
pub enum BalancingAttack {
    Register(usize, usize, i32),
    Deregister(usize),
    /// What drains is gone.
    Settle,
    DeleteGroup(usize),
    Classic(bool),
    /// The address becomes another's.
    LoseAddress,
    Terminate,
}

fn key(place: &str) -> String {
    format!("deregisterFromLoadBalancers/{place}")
}

fn registration(id: usize, port: i32) -> Registration {
    Registration { id: IDS[id].into(), port: Some(port), ..Registration::default() }
}

fn registered(aws: &Look) -> Vec<(String, Registration)> {
    let of = |g: &TargetGroup| {
        let arn = g.arn.clone();
        let there: Vec<_> =
            g.targets.iter().filter(|t| t.registered).map(|t| (arn.clone(), t.registration.clone())).collect();
        there
    };
    let mut all: Vec<_> = aws.groups.iter().flat_map(of).collect();
    all.sort();
    all
}

fn in_classic(aws: &Look) -> bool {
    aws.classic.iter().any(|b| !b.instances.is_empty())
}

fn ended(aws: &Look) -> bool {
    aws.instance.as_ref().is_none_or(|i| i.state == "terminated")
}

impl Simulated for LoadBalancers {
    type Attack = BalancingAttack;

    fn read(aws: &Look, _: &Case, _: Option<&Empty>) -> Look {
        aws.clone()
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        match call {
            Call::DeregisterTargets { group, .. } | Call::RegisterTargets { group, .. } => {
                !ended(aws) && aws.groups.iter().any(|g| g.arn == *group)
            }
            _ => !ended(aws),
        }
    }

    fn attack(aws: &mut Look, attack: &BalancingAttack, _: Timestamp) {
        let gone = ended(aws);
        match attack {
            BalancingAttack::Register(n, id, port) if !gone && (*id == 0 || !aws.addresses.is_empty()) => {
                let (registration, place) = (registration(*id, *port), GROUPS[*n]);
                for group in aws.groups.iter_mut().filter(|g| g.arn == place) {
                    group.targets.retain(|t| t.registration != registration);
                    group.targets.push(Target { registration: registration.clone(), registered: true, ..Target::default() });
                }
            }
            BalancingAttack::Register(..) => {}
            BalancingAttack::Deregister(n) => {
                let targets = aws.groups.iter_mut().filter(|g| g.arn == GROUPS[*n]).flat_map(|g| &mut g.targets);
                targets.for_each(|t| (t.registered, t.draining) = (false, true));
            }
            BalancingAttack::Settle => aws.groups.iter_mut().for_each(|g| g.targets.retain(|t| t.registered)),
            BalancingAttack::DeleteGroup(n) => aws.groups.retain(|g| g.arn != GROUPS[*n]),
            BalancingAttack::Classic(there) => aws.classic.iter_mut().for_each(|b| {
                b.instances = there.then(|| ID.to_owned()).into_iter().collect();
            }),
            BalancingAttack::LoseAddress => {
                aws.addresses.clear();
                aws.groups.iter_mut().for_each(|g| g.targets.retain(|t| t.registration.id == ID));
            }
            BalancingAttack::Terminate => {
                aws.instance.iter_mut().for_each(|i| i.state = "terminated".into());
                aws.groups.iter_mut().for_each(|g| g.targets.clear());
            }
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        let recorded = case.original.contains_key("deregisterFromLoadBalancers");
        for call in &plan.calls {
            let place = match call {
                Call::DeregisterTargets { group, targets } => {
                    assert!(!targets.is_empty() && targets.iter().all(|t| IDS.contains(&t.id.as_str())), "{call}");
                    key(group)
                }
                Call::DeregisterInstancesFromLoadBalancer { balancer, .. } => key(&format!("classic/{balancer}")),
                other => panic!("not a call that contains: {other}"),
            };
            let known = recorded || plan.record.contains_key(&place);
            assert!(known || plan.verdict.unknown, "record before touch: {call}");
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            match call {
                Call::RegisterTargets { group, targets } => {
                    let original = case.recorded::<Original>(&key(group)).unwrap_or_default().targets;
                    let own = |t: &Registration| t.id == ID || look.addresses.contains(&t.id);
                    assert!(targets.iter().all(|t| original.contains(t) && own(t)), "{call}");
                }
                Call::RegisterInstancesWithLoadBalancer { balancer, .. } => {
                    assert!(case.original.contains_key(&key(&format!("classic/{balancer}"))), "{call}");
                }
                other => panic!("not a call of a release: {other}"),
            }
        }
    }

    fn contained(_: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        let expected = if aws.instance.is_some() { ActionState::InForce } else { ActionState::Failed };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        assert!(ended(aws) || (registered(aws).is_empty() && !in_classic(aws)), "{aws:?}");
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        let lost = case.is_unknown("deregisterFromLoadBalancers") && case.decision != Some(OnConflict::KeepTheirs);
        let expected = if lost && !ended(aws) { ActionState::Conflict } else { ActionState::Released };
        assert_eq!(verdict.state, expected, "{}", verdict.message);
        let (was, now) = (registered(before), registered(aws));
        assert!(was.iter().all(|r| now.contains(r)), "a release takes nothing out");
        for group in aws.groups.iter().filter(|_| !ended(aws)) {
            let original = case.recorded::<Original>(&key(&group.arn)).unwrap_or_default().targets;
            let own = original.into_iter().filter(|t| t.id == ID || aws.addresses.contains(&t.id));
            own.for_each(|t| assert!(now.contains(&(group.arn.clone(), t.clone())), "{t:?} is not back"));
        }
    }
}

prop_compose! {
    fn scenes()(
        there in prop::bool::weighted(0.95), targets in vec((0..3_usize, 0..2_usize, 80..82_i32, any::<bool>()), 0..6),
        classic in any::<bool>(), marked in prop::bool::weighted(0.1),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let instance = there.then(|| Instance { state: "running".into(), tags, ..Instance::default() });
        let mut groups: Vec<TargetGroup> = GROUPS.iter().map(|arn| TargetGroup { arn: (*arn).into(), ..TargetGroup::default() }).collect();
        for (group, id, port, registered) in targets.into_iter().filter(|_| there) {
            let registration = registration(id, port);
            groups[group].targets.retain(|t| t.registration != registration);
            groups[group].targets.push(Target { registration, registered, draining: !registered, healthy: false });
        }
        let instances = (classic && there).then(|| ID.to_owned()).into_iter().collect();
        let classic = vec![ClassicBalancer { name: "old".into(), instances }];
        Look { instance, addresses: vec![IDS[1].into()], groups, classic }
    }
}

fn attacks() -> BoxedStrategy<BalancingAttack> {
    prop_oneof![
        4 => (0..3_usize, 0..2_usize, 80..83_i32).prop_map(|(g, id, port)| BalancingAttack::Register(g, id, port)),
        2 => (0..3_usize).prop_map(BalancingAttack::Deregister),
        2 => Just(BalancingAttack::Settle),
        1 => (0..3_usize).prop_map(BalancingAttack::DeleteGroup),
        2 => any::<bool>().prop_map(BalancingAttack::Classic),
        1 => Just(BalancingAttack::LoseAddress),
        1 => Just(BalancingAttack::Terminate),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn leaving_load_balancers_holds_against_any_order_of_events(
        aws in scenes(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        Simulation::<LoadBalancers>::new(resource(ResourceKind::Ec2Instance), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn undisturbed_registrations_come_back_exactly(
        mut aws in scenes(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.instance = Some(Instance { state: "running".into(), ..Instance::default() });
        let before = (registered(&aws), in_classic(&aws));
        let mut simulation = Simulation::<LoadBalancers>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        simulation.life(&scripts.map(|s| calm(&s)), None);
        prop_assert_eq!((registered(&simulation.aws), in_classic(&simulation.aws)), before);
    }
}
