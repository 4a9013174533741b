//! `denyAll`: policies that somebody changes, attachments that were there before, residual denies of several releases.

use firebreak_crds::{ActionState, Empty, OnConflict, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::{Simulated, Simulation, at, calm, config, decisions, resource, script};
use crate::aws::{Call, Identity, User};
use crate::containment::deny_all::{DOCUMENT, DenyAll, Look, POLICY};
use crate::containment::{case::Case, plan::Plan, plan::Verdict, residual};

const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const AWS_DENY_ALL: &str = "arn:aws:iam::aws:policy/AWSDenyAll";
const READ_ONLY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const ADMIN: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
const BOUNDARY: &str = "denyAll/boundary";
const FOUND: &str = "denyAll/boundary-found";

#[derive(Clone, Debug)]
pub enum UserAttack {
    DeleteInline,
    ChangeInline,
    Detach,
    Attach,
    DeleteBoundary,
    ChangeBoundary,
    DeleteResidual,
    ChangeResidual,
    MakeUserAgain,
}

fn denied(look: &Look) -> bool {
    let inline = look.inline.as_deref() == Some(DOCUMENT);
    inline || look.attached.iter().any(|a| a == AWS_DENY_ALL) || boundary(look) == Some(AWS_DENY_ALL)
}

fn boundary(look: &Look) -> Option<&str> {
    look.identity.as_ref()?.boundary.as_deref()
}

/// The boundary on record; null where there was none.
fn boundary_original(case: &Case) -> Option<serde_json::Value> {
    let value: serde_json::Value = serde_json::from_str(case.original.get(BOUNDARY)?).unwrap();
    value.get("arn").cloned()
}

fn set_boundary(look: &mut Look, arn: Option<&str>) {
    look.identity.iter_mut().for_each(|i| i.boundary = arn.map(str::to_owned));
}

/// All that a release gives back.
fn given(look: &Look) -> (&Option<String>, &[String], Option<&str>) {
    (&look.inline, &look.attached, boundary(look))
}

fn deny_original(case: &Case) -> Option<bool> {
    let value: serde_json::Value = serde_json::from_str(case.original.get("denyAll")?).unwrap();
    value["awsDenyAllAttached"].as_bool()
}

impl Simulated for DenyAll {
    type Attack = UserAttack;

    fn read(aws: &Look, case: &Case, _: Option<&Empty>) -> Look {
        let mut look = aws.clone();
        // The simulated AWS keeps the text only of the latest residual deny: its text names its release.
        let asked = residual::recorded(case, "denyAll");
        let there = |text: &String| asked.as_ref().is_some_and(|r| r.document() == *text || text == ALLOW);
        look.residual = aws.residual.clone().map(|(text, _)| text).filter(there).map(|text| (text, true));
        look
    }

    fn accepts(aws: &Look, call: &Call) -> bool {
        match call {
            Call::DeletePolicy { .. } => aws.inline.is_some(),
            Call::DetachPolicy { arn, .. } => aws.attached.contains(arn),
            // The IAM policy that we ask for allows no more.
            Call::DeletePermissionsBoundary { .. } => boundary(aws) == Some(AWS_DENY_ALL),
            _ => true,
        }
    }

    fn attack(aws: &mut Look, attack: &UserAttack, now: Timestamp) {
        match attack {
            UserAttack::DeleteInline => aws.inline = None,
            UserAttack::ChangeInline => aws.inline = Some(ALLOW.into()),
            UserAttack::Detach => aws.attached.retain(|a| a != AWS_DENY_ALL),
            UserAttack::Attach => aws.attached.push(AWS_DENY_ALL.into()),
            UserAttack::DeleteBoundary => set_boundary(aws, None),
            UserAttack::ChangeBoundary => set_boundary(aws, Some(ADMIN)),
            UserAttack::DeleteResidual => aws.residual = None,
            UserAttack::ChangeResidual => aws.residual = aws.residual.is_some().then(|| (ALLOW.to_owned(), false)),
            UserAttack::MakeUserAgain => {
                let id = format!("AIDA{now}");
                *aws = Look { identity: Some(Identity { id, ..User::default() }), ..Look::default() };
            }
        }
    }

    fn check_contain(case: &Case, _: &Look, plan: &Plan) {
        let recorded = deny_original(case).is_some() || plan.record.contains_key("denyAll");
        assert!(plan.calls.is_empty() || recorded || plan.verdict.unknown, "record before touch");
        let noted = |key: &str| case.original.contains_key(key) || plan.record.contains_key(key);
        let bounded = noted(BOUNDARY) || (plan.verdict.unknown && noted(FOUND));
        for call in &plan.calls {
            match call {
                Call::PutPolicy { policy, document, .. } => {
                    assert_eq!((policy.as_str(), document.as_str()), (POLICY, DOCUMENT));
                }
                Call::AttachPolicy { arn, .. } => assert_eq!(arn, AWS_DENY_ALL),
                Call::PutPermissionsBoundary { arn, .. } => assert!(arn == AWS_DENY_ALL && bounded, "record before touch"),
                other => panic!("not a call that contains: {other}"),
            }
        }
    }

    fn check_release(case: &Case, look: &Look, plan: &Plan) {
        let residual = residual::recorded(case, "denyAll");
        for call in &plan.calls {
            if let Call::PutPolicy { policy, document, .. } = call {
                let residual = residual.as_ref().expect("recorded before it is put");
                assert_eq!((policy, document), (&residual.policy, &residual.document()));
            }
            if call.widens() {
                let read_back = residual.as_ref().map(|r| (r.document(), true));
                assert_eq!(look.residual, read_back, "the residual deny is read back before {call}");
                assert!(residual.as_ref().is_some_and(|r| r.cutoff > case.now), "no session of before comes back: {call}");
                assert_ne!(plan.verdict.state, ActionState::Conflict, "nothing is given back in a conflict: {call}");
            }
        }
    }

    fn contained(case: &Case, _: &Empty, aws: &Look, verdict: &Verdict) {
        if aws.identity.is_none() {
            assert_eq!(verdict.state, ActionState::Failed);
            return;
        }
        assert_eq!(verdict.state, ActionState::InForce, "{}", verdict.message);
        assert_eq!(aws.inline.as_deref(), Some(DOCUMENT));
        assert!(aws.attached.iter().any(|a| a == AWS_DENY_ALL));
        assert_eq!(boundary(aws), Some(AWS_DENY_ALL));
        assert_eq!(verdict.unknown, deny_original(case).is_none());
        assert_eq!(residual::recorded(case, "denyAll"), None, "the residual deny of an earlier release is none of the next");
    }

    fn released(case: &Case, before: &Look, aws: &Look, verdict: &Verdict) {
        if aws.identity.is_none() {
            assert_eq!(verdict.state, ActionState::Released);
            return;
        }
        match (verdict.state, deny_original(case)) {
            (ActionState::Conflict, _) => {
                assert!(case.decision.is_none() || verdict.message.contains("not known"));
                assert!(denied(aws) || !denied(before), "a conflict gives nothing back");
                assert_eq!(given(aws), given(before));
            }
            (ActionState::Released, Some(original)) => {
                let attached = aws.attached.iter().any(|a| a == AWS_DENY_ALL);
                let theirs = case.decision == Some(OnConflict::KeepTheirs);
                assert!(aws.inline.is_none() || (theirs && aws.inline.as_deref() != Some(DOCUMENT)), "{:?}", aws.inline);
                assert!(attached == original || (theirs && !attached));
                let was = boundary_original(case).expect("recorded with the rest");
                let kept = theirs && boundary(aws) != Some(AWS_DENY_ALL);
                assert!(boundary(aws) == was.as_str() || kept, "{:?}", boundary(aws));
                let residual = residual::recorded(case, "denyAll").unwrap();
                assert_eq!(aws.residual.as_ref().map(|r| &r.0), Some(&residual.document()));
            }
            (ActionState::Released, None) => {
                assert_eq!(given(aws), given(before));
                let residual = residual::recorded(case, "denyAll").map(|r| r.document());
                assert_eq!(residual.is_some(), case.is_unknown("denyAll"));
                assert_eq!(aws.residual.as_ref().map(|r| &r.0).filter(|_| residual.is_some()), residual.as_ref());
            }
            (state, _) => panic!("a release ends released or in conflict: {state:?}"),
        }
    }
}

prop_compose! {
    fn users()(
        there in prop::bool::weighted(0.95),
        inline in prop_oneof![4 => Just(None), 1 => Just(Some(DOCUMENT)), 1 => Just(Some(ALLOW))],
        deny_attached in any::<bool>(),
        marked in prop::bool::weighted(0.1),
        bound in prop_oneof![3 => Just(None), 1 => Just(Some(AWS_DENY_ALL)), 1 => Just(Some(READ_ONLY))],
    ) -> Look {
        let tags = marked.then(|| ("firebreak.dev/incident".to_owned(), "security/old".to_owned())).into_iter().collect();
        let boundary = bound.map(str::to_owned);
        let identity = there.then(|| Identity { id: "AIDA1".into(), tags, boundary, ..User::default() });
        let other = READ_ONLY.to_owned();
        let attached = std::iter::once(other).chain(deny_attached.then(|| AWS_DENY_ALL.to_owned())).collect();
        Look { identity, inline: inline.map(str::to_owned), attached, ..Look::default() }
    }
}

fn user_attacks() -> BoxedStrategy<UserAttack> {
    use UserAttack::{
        Attach, ChangeBoundary, ChangeInline, ChangeResidual, DeleteBoundary, DeleteInline, DeleteResidual, Detach,
        MakeUserAgain,
    };
    prop_oneof![
        2 => Just(DeleteInline),
        2 => Just(ChangeInline),
        2 => Just(Detach),
        1 => Just(Attach),
        2 => Just(DeleteBoundary),
        2 => Just(ChangeBoundary),
        2 => Just(DeleteResidual),
        1 => Just(ChangeResidual),
        1 => Just(MakeUserAgain),
    ]
    .boxed()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_deny_holds_against_any_order_of_events(
        aws in users(), scripts in prop::array::uniform4(script(user_attacks())), decision in decisions(), role in any::<bool>(),
    ) {
        let kind = if role { ResourceKind::IamRole } else { ResourceKind::IamUser };
        Simulation::<DenyAll>::new(resource(kind), aws, Empty {}).life(&scripts, decision);
    }

    #[test]
    fn an_undisturbed_deny_is_given_back_exactly_and_no_session_comes_back(
        mut aws in users(), scripts in prop::array::uniform4(script(user_attacks())),
    ) {
        aws.inline = None;
        let boundary = aws.identity.and_then(|i| i.boundary);
        aws.identity = Some(Identity { boundary, ..User::default() });
        let before = aws.clone();
        let mut simulation = Simulation::<DenyAll>::new(resource(ResourceKind::IamUser), aws, Empty {});
        let [contain, release, again, last] = scripts.map(|s| calm(&s));
        simulation.disturbed(false, &contain);
        simulation.contain();
        simulation.disturbed(true, &release);
        simulation.disturbed(false, &again);
        simulation.contain();
        let held_until = at(simulation.now);
        simulation.disturbed(true, &last);
        prop_assert_eq!(simulation.release().state, ActionState::Released);
        prop_assert_eq!(given(&simulation.aws), given(&before));
        let residual = residual::recorded(&simulation.case(), "denyAll").unwrap();
        prop_assert!(residual.cutoff > held_until, "sessions made while it was held again stay denied");
    }
}
