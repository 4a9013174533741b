//! `revokeInstanceRole`: profiles that are put on and taken off, roles that are swapped, denies and our own profile that somebody
//! changes, an instance that stops and ends.

use std::sync::atomic::{AtomicU64, Ordering};

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Event, Simulated, Simulation, calm, config, decisions, resource, script};
use crate::aws::{
    Call, DENY_PROFILE, DenyEdit, DenyProfile, Instance, InstanceProfile, ProfileAssociation, ProfileRole, SessionDenies,
    is_deny_profile,
};
use crate::containment::deny_all::DOCUMENT;
use crate::containment::revoke_instance_role::{InstanceRole, Look, Original, Role, Taken, prepare_profile};
use crate::containment::{case::Case, plan::Plan, plan::Verdict};

const OURS: &str = "arn:aws:iam::111122223333:instance-profile/firebreak-deny-all";
const NAMES: [&str; 2] = ["web", "attackers"];

#[derive(Clone, Debug)]
pub enum RoleAttack {
    Put(usize),
    TakeOff,
    Denies(usize, Option<&'static str>),
    OwnPolicy(Option<&'static str>),
    OwnProfile(Option<&'static str>),
    SwapRole(usize),
    Stop(bool),
    Terminate,
}

/// AWS gives every association an id of its own.
pub fn new_association() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("iip-assoc-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn arn(name: &str) -> String {
    format!("arn:aws:iam::111122223333:instance-profile/{name}")
}

fn role_of(name: &str) -> ProfileRole {
    ProfileRole { name: name.into(), id: format!("AROA{}", name.to_uppercase()) }
}

fn profile(name: &str, role: &str) -> InstanceProfile {
    InstanceProfile { arn: arn(name), id: String::new(), role: Some(role_of(role)) }
}

fn put(aws: &mut Look, profile: &str) {
    let (id, profile) = (new_association(), arn(profile));
    aws.associations = vec![ProfileAssociation { id, profile, state: "associated".into(), since: None }];
}

fn own(aws: &Look) -> &DenyProfile {
    aws.own.as_ref().expect("read")
}

fn state(aws: &Look) -> &str {
    aws.instance.as_ref().map_or("terminated", |i| i.state.as_str())
}

fn live(aws: &Look) -> Option<&str> {
    aws.associations.first().map(|a| a.profile.as_str())
}

fn original(case: &Case) -> Option<Original> {
    case.recorded("revokeInstanceRole")
}

/// Every association on record that had a role.
fn taken(case: &Case) -> Vec<(String, ProfileRole)> {
    let keys = case.original.keys().filter_map(|k| k.strip_prefix("revokeInstanceRole/iip-assoc-"));
    let read = |id: &str| case.recorded::<Taken>(&format!("revokeInstanceRole/iip-assoc-{id}")).and_then(|t| t.role);
    keys.filter_map(|id| Some((format!("iip-assoc-{id}"), read(id)?))).collect()
}

fn off(case: &Case, association: &str) -> Option<Timestamp> {
    case.recorded(&format!("revokeInstanceRole/off-{association}"))
}

fn session(case: &Case, role: &ProfileRole) -> String {
    format!("{}:{}", role.id, case.resource.id)
}

/// What is denied on a role; None where the policy is not exactly ours.
fn denies(aws: &Look, role: &str) -> Option<SessionDenies> {
    aws.roles[role].denies.as_deref().map_or_else(|| Some(SessionDenies::default()), SessionDenies::exactly)
}

impl Simulated for InstanceRole {
    type Attack = RoleAttack;

    fn read(aws: &Look, _: &Case, params: Option<&Empty>) -> Look {
        let read = |own: &DenyProfile| DenyProfile { read: true, ..own.clone() };
        let own = aws.own.as_ref().filter(|_| params.is_some()).map(read);
        Look { cannot_replace: false, own, ..aws.clone() }
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        let there = |id: &String| aws.associations.iter().any(|a| a.id == *id);
        let own = own(aws);
        let known = |arn: &String| if arn == OURS { own.profile.is_some() } else { aws.profiles.contains_key(arn) };
        let in_ours = own.profile.as_ref().map(|p| p.role.as_ref().map(|r| r.name.clone()));
        match call {
            Call::ReplaceIamInstanceProfileAssociation { association, profile, .. } => {
                there(association) && known(profile) && state(aws) == "running"
            }
            Call::AssociateIamInstanceProfile { profile, .. } => {
                state(aws) != "terminated" && aws.associations.is_empty() && known(profile)
            }
            Call::DisassociateIamInstanceProfile { association, .. } => there(association),
            Call::CreateRole | Call::CreateInstanceProfile => true,
            Call::PutPolicy { principal, .. } => principal.name() == DENY_PROFILE && own.role,
            Call::AddRoleToInstanceProfile => own.role && in_ours == Some(None),
            Call::RemoveRoleFromInstanceProfile { role } => in_ours == Some(Some(role.clone())),
            Call::EditSessionDenies { role, .. } => aws.roles.contains_key(role),
            _ => false,
        }
    }

    fn attack(aws: &mut Look, attack: &RoleAttack, _: Timestamp) {
        let ended = state(aws) == "terminated";
        match attack {
            RoleAttack::Put(n) if !ended => put(aws, NAMES[*n]),
            RoleAttack::TakeOff => aws.associations.clear(),
            RoleAttack::Denies(n, text) => {
                let role = aws.roles.get_mut(NAMES[*n]).unwrap();
                role.denies = text.map(str::to_owned);
            }
            RoleAttack::OwnPolicy(text) => {
                aws.own.iter_mut().filter(|own| own.role).for_each(|own| own.policy = text.map(str::to_owned));
            }
            RoleAttack::OwnProfile(role) => {
                aws.own.iter_mut().flat_map(|own| &mut own.profile).for_each(|p| p.role = role.map(role_of));
            }
            RoleAttack::SwapRole(n) => {
                aws.profiles.insert(arn("web"), profile("web", NAMES[*n]));
            }
            RoleAttack::Stop(stop) if !ended => {
                aws.instance.iter_mut().for_each(|i| i.state = if *stop { "stopped" } else { "running" }.into());
            }
            RoleAttack::Terminate if aws.instance.is_some() => {
                aws.instance.iter_mut().for_each(|i| i.state = "terminated".into());
                aws.associations.clear();
            }
            _ => {}
        }
    }

    fn check_contain(case: &Case, look: &Look, plan: &Plan) {
        let recorded = |id: &String| {
            let key = format!("revokeInstanceRole/{id}");
            let ours = look.associations.iter().any(|a| a.id == *id && is_deny_profile(&a.profile));
            let lost = "revokeInstanceRole/lost";
            ours || [key.as_str(), lost].iter().any(|k| case.original.contains_key(*k) || plan.record.contains_key(*k))
        };
        for call in &plan.calls {
            match call {
                Call::ReplaceIamInstanceProfileAssociation { association, profile, .. } => {
                    assert!(recorded(association) && profile == OURS && prepare_profile(own(look)).1, "{call}");
                }
                Call::DisassociateIamInstanceProfile { association, .. } => assert!(recorded(association), "{call}"),
                Call::AssociateIamInstanceProfile { profile, .. } => assert_eq!(profile, OURS),
                Call::EditSessionDenies { edit: DenyEdit::Deny(id), .. } => assert!(id.ends_with(&case.resource.id)),
                call => assert!(prepare_profile(own(look)).0.contains(call), "not a call that contains: {call}"),
            }
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        for call in &plan.calls {
            match call {
                Call::EditSessionDenies { role, edit: DenyEdit::Release(id, Some(cutoff)) } => {
                    assert!(id.ends_with(&case.resource.id));
                    let key = format!("revokeInstanceRole/residual-{role}-{}", cutoff.as_second());
                    assert!(case.original.contains_key(&key) || plan.record.contains_key(&key), "{call}");
                }
                Call::AssociateIamInstanceProfile { profile, .. }
                | Call::ReplaceIamInstanceProfileAssociation { profile, .. } => {
                    assert_eq!(Some(profile), original(case).expect("a record").profile.as_ref());
                    for (association, role) in taken(case) {
                        let shown = denies(look, &role.name).expect("ours");
                        let before = shown.before.iter().filter(|(_, ids)| ids.contains(&session(case, &role)));
                        let latest = before.map(|(cutoff, _)| *cutoff).max().expect("old sessions stay denied");
                        assert!(latest < case.now, "what comes now is not denied");
                        assert!(off(case, &association).is_none_or(|at| at < latest), "what came before is");
                    }
                }
                Call::DisassociateIamInstanceProfile { .. } => {}
                other => panic!("not a call of this release: {other}"),
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        if aws.instance.is_none() {
            return assert_eq!(verdict.state, ActionState::Failed);
        }
        assert!(aws.associations.iter().all(|a| is_deny_profile(&a.profile)), "{:?}", aws.associations);
        if live(aws).is_some() {
            let own = DenyProfile { read: true, ..own(aws).clone() };
            assert!(prepare_profile(&own).1, "{own:?}");
        }
        for (association, role) in taken(case) {
            let denied = denies(aws, &role.name).is_some_and(|d| d.standing.contains(&session(case, &role)));
            assert!(denied && off(case, &association).is_some(), "{role:?}");
        }
        let nothing_is_known = state(aws) == "terminated" && original(case).is_none() && taken(case).is_empty();
        assert_eq!(verdict.state == ActionState::InForce, !nothing_is_known, "{}", verdict.message);
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        match verdict.state {
            ActionState::Conflict => assert!(aws.associations == before.associations && aws.roles == before.roles),
            ActionState::InProgress => assert!(verdict.message.contains("comes back at"), "{}", verdict.message),
            ActionState::Released => {
                for (_, role) in taken(case) {
                    let shown = denies(aws, &role.name).expect("ours");
                    assert!(!shown.standing.contains(&session(case, &role)));
                }
                let known = original(case).filter(|_| state(aws) != "terminated" && case.decision.is_none());
                if let Some(original) = known {
                    assert_eq!(live(aws), original.profile.as_deref());
                    let role = original.profile.and_then(|profile| aws.profiles[&profile].role.clone());
                    assert_eq!(role, original.role, "what it had, and not another role under its name");
                }
            }
            state => panic!("{state:?}: {}", verdict.message),
        }
    }
}

prop_compose! {
    fn scenes()(
        there in prop::bool::weighted(0.97), on in prop::option::weighted(0.8, 0..1_usize), stopped in prop::bool::weighted(0.3),
        marked in prop::bool::weighted(0.05), ready in any::<bool>(),
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let state = if stopped { "stopped" } else { "running" }.to_owned();
        let instance = there.then(|| Instance { state, tags, ..Instance::default() });
        let roles = NAMES.map(|name| (name.to_owned(), Role { id: role_of(name).id, ..Role::default() })).into();
        let profiles = NAMES.map(|name| (arn(name), profile(name, name))).into();
        let full = DenyProfile { role: true, policy: Some(DOCUMENT.into()), profile: Some(profile(DENY_PROFILE, DENY_PROFILE)), read: true };
        let own = Some(if ready { full } else { DenyProfile::default() });
        let mut look = Look { instance, own, profiles, roles, ..Look::default() };
        on.filter(|_| there).into_iter().for_each(|n| put(&mut look, NAMES[n]));
        look
    }
}

fn attacks() -> BoxedStrategy<RoleAttack> {
    let text = prop_oneof![Just(None), Just(Some("{}")), Just(Some(DOCUMENT))];
    prop_oneof![
        4 => (0..2_usize).prop_map(RoleAttack::Put),
        2 => Just(RoleAttack::TakeOff),
        3 => (0..2_usize, text.clone()).prop_map(|(n, text)| RoleAttack::Denies(n, text)),
        2 => text.prop_map(RoleAttack::OwnPolicy),
        2 => prop_oneof![Just(None), Just(Some("attackers"))].prop_map(RoleAttack::OwnProfile),
        1 => (0..2_usize).prop_map(RoleAttack::SwapRole),
        2 => any::<bool>().prop_map(RoleAttack::Stop),
        1 => Just(RoleAttack::Terminate),
    ]
    .boxed()
}

/// Contain; begin to release; contain again; release: with time between, since a release waits for its cutoff.
fn life(simulation: &mut Simulation<InstanceRole>, scripts: &[Vec<Event<RoleAttack>>; 4]) -> Verdict {
    for half in scripts.chunks(2) {
        simulation.disturbed(false, &half[0]);
        simulation.contain();
        simulation.now += 120;
        simulation.disturbed(true, &half[1]);
    }
    release(simulation)
}

fn release(simulation: &mut Simulation<InstanceRole>) -> Verdict {
    let mut verdict = simulation.release();
    for _ in 0..2 {
        if verdict.state == ActionState::InProgress {
            simulation.now += 60;
            verdict = simulation.release();
        }
    }
    verdict
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_instance_has_no_role_against_any_order_of_events(
        aws in scenes(), scripts in prop::array::uniform4(script(attacks())), decision in decisions(),
    ) {
        let mut simulation = Simulation::<InstanceRole>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        let mut verdict = life(&mut simulation, &scripts);
        if verdict.state == ActionState::Conflict && decision.is_some() {
            simulation.decide(decision);
            verdict = release(&mut simulation);
            if verdict.message.contains("not known") {
                simulation.decide(Some(OnConflict::KeepTheirs)); // there is none to restore
                verdict = release(&mut simulation);
            }
            prop_assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        }
    }

    #[test]
    fn undisturbed_the_profile_comes_back_and_old_sessions_stay_denied(
        mut aws in scenes(), scripts in prop::array::uniform4(script(attacks())),
    ) {
        aws.instance.iter_mut().for_each(|i| i.tags.clear());
        let before = aws.clone();
        let mut simulation = Simulation::<InstanceRole>::new(resource(ResourceKind::Ec2Instance), aws, Empty {});
        let verdict = life(&mut simulation, &scripts.map(|s| calm(&s)));
        prop_assert_eq!(verdict.state, ActionState::Released, "{}", verdict.message);
        prop_assert_eq!(live(&simulation.aws), live(&before));
        let old = denies(&simulation.aws, "web").unwrap();
        prop_assert!(old.standing.is_empty());
        let margin = SignedDuration::from_secs(30);
        for (association, role) in taken(&simulation.case()) {
            let id = session(&simulation.case(), &role);
            let latest = old.before.iter().filter(|(_, ids)| ids.contains(&id)).map(|(cutoff, _)| *cutoff).max();
            prop_assert!(off(&simulation.case(), &association).is_none_or(|at| latest >= Some(at + margin)));
        }
    }
}
