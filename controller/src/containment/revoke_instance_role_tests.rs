use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::super::deny_all::DOCUMENT;
use super::super::residual;
use super::*;
use crate::aws::{DENY_PROFILE, DenyEdit, LONGEST_ROLE_SESSION};
use crate::containment::example::{self, recorded};
use firebreak_crds::OnConflict;

const WEB: &str = "arn:aws:iam::111122223333:instance-profile/web";
const OTHER: &str = "arn:aws:iam::111122223333:instance-profile/other";
const OURS: &str = "arn:aws:iam::111122223333:instance-profile/firebreak-deny-all";

fn profile(arn: &str, role: &str) -> InstanceProfile {
    let role = Some(ProfileRole { name: role.into(), id: format!("AROA{}", role.to_uppercase()) });
    InstanceProfile { arn: arn.into(), id: String::new(), role }
}

fn ready() -> DenyProfile {
    DenyProfile { role: true, policy: Some(DOCUMENT.into()), profile: Some(profile(OURS, DENY_PROFILE)), read: true }
}

fn role(denies: Option<String>) -> Role {
    Role { id: "AROAWEB".into(), denies, ..Role::default() }
}

fn association(id: &str, profile: &str) -> ProfileAssociation {
    ProfileAssociation { id: format!("iip-assoc-{id}"), profile: profile.into(), state: "associated".into(), since: None }
}

/// An instance in that state with these associations; the profiles `web` and `other` are there.
fn look(state: &str, associations: &[(&str, &str)]) -> Look {
    let profiles = [(WEB, "web"), (OTHER, "other")].map(|(arn, role)| (arn.to_owned(), profile(arn, role)));
    Look {
        instance: Some(Instance { id: "i-1".into(), state: state.into(), ..Instance::default() }),
        associations: associations.iter().map(|(id, profile)| association(id, profile)).collect(),
        own: Some(ready()),
        profiles: profiles.into(),
        roles: [("web".to_owned(), role(None))].into(),
        ..Look::default()
    }
}

/// As it is `seconds` later, with what the plan asked to be recorded.
fn later(mut case: Case, plan: &Plan, seconds: i64) -> Case {
    for (key, value) in &plan.record {
        case = recorded(case, key, value);
    }
    case.now += SignedDuration::from_secs(seconds);
    case
}

fn denying(sessions: &[&str]) -> String {
    let standing = sessions.iter().map(|s| (*s).to_owned()).collect();
    SessionDenies { standing, ..SessionDenies::default() }.document()
}

fn texts(plan: &Plan) -> Vec<String> {
    plan.calls.iter().map(ToString::to_string).collect()
}

/// Contained and quiet: our profile is on it, and its sessions are denied.
fn contained() -> (Case, Look) {
    let case = example::case(example::instance());
    let first = InstanceRole::contain(&case, &Empty {}, &look("running", &[("1", WEB)]));
    let case = later(case, &first, 1);
    let mut seen = look("running", &[("2", OURS)]);
    seen.roles.insert("web".into(), role(Some(denying(&["AROAWEB:i-1"]))));
    let gone = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(gone.record.keys().collect::<Vec<_>>(), ["revokeInstanceRole/off-iip-assoc-1"]);
    (later(case, &gone, 1), seen)
}

#[test]
fn the_profile_and_its_role_are_recorded_with_the_calls_that_take_them_away() {
    let case = example::case(example::instance());
    let plan = InstanceRole::contain(&case, &Empty {}, &look("running", &[("1", WEB)]));
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["revokeInstanceRole", "revokeInstanceRole/iip-assoc-1"]);
    assert_eq!(
        texts(&plan),
        [
            "iam:PutRolePolicy web: firebreak-deny-instances: deny AROAWEB:i-1",
            "ec2:ReplaceIamInstanceProfileAssociation i-1: firebreak-deny-all"
        ]
    );
    let (case, seen) = contained();
    let quiet = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(quiet.is_done() && quiet.verdict.state == ActionState::InForce, "{quiet:?}");
    assert_eq!(
        quiet.verdict.message,
        "its instance profile is firebreak-deny-all, which may do nothing; its sessions of web are denied"
    );
    let mut open = seen;
    open.roles.get_mut("web").unwrap().assumes_itself = true;
    let told = InstanceRole::contain(&case, &Empty {}, &open).verdict;
    assert!(
        told.state == ActionState::InForce && told.message.contains("the trust policy of web lets it be assumed"),
        "{told:?}"
    );
}

#[test]
fn a_role_is_assumed_by_itself_where_its_trust_policy_lets_it_or_its_whole_account() {
    let arn = "arn:aws:iam::111122223333:role/web";
    let with = |principal: serde_json::Value| {
        let statement = serde_json::json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
        let trust = Some(serde_json::json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string());
        assumes_itself(&crate::aws::Identity { arn: arn.into(), trust, ..crate::aws::Identity::default() })
    };
    for (principal, itself) in [
        (serde_json::json!({ "AWS": arn }), true),
        (serde_json::json!({ "AWS": ["arn:aws:iam::111122223333:root"] }), true),
        (serde_json::json!({ "AWS": "111122223333" }), true),
        (serde_json::json!("*"), true),
        (serde_json::json!({ "Service": "ec2.amazonaws.com" }), false),
        (serde_json::json!({ "AWS": "arn:aws:iam::999999999999:root" }), false),
        (serde_json::json!({ "AWS": "arn:aws:iam::111122223333:role/web2" }), false),
    ] {
        assert_eq!(with(principal.clone()), itself, "{principal}");
    }
}

#[test]
fn what_cannot_be_replaced_is_taken_off_at_once() {
    let case = example::case(example::instance());
    let stopped = look("stopped", &[("1", WEB)]);
    let refused = Look { cannot_replace: true, ..look("running", &[("1", WEB)]) };
    let unprepared =
        Look { own: Some(DenyProfile { read: true, ..DenyProfile::default() }), ..look("running", &[("1", WEB)]) };
    for seen in [stopped, refused, unprepared] {
        let plan = InstanceRole::contain(&case, &Empty {}, &seen);
        let calls = texts(&plan);
        assert!(calls.contains(&"ec2:DisassociateIamInstanceProfile i-1: iip-assoc-1".into()), "{calls:?}");
        assert!(!calls.iter().any(|c| c.contains("Replace") || c.contains("Associate")), "{calls:?}");
        let case = later(case.clone(), &plan, 1);
        let mut next = Look { associations: vec![], own: Some(ready()), ..seen };
        next.roles.insert("web".into(), role(Some(denying(&["AROAWEB:i-1"]))));
        let plan = InstanceRole::contain(&case, &Empty {}, &next);
        assert_eq!(texts(&plan), ["ec2:AssociateIamInstanceProfile i-1: firebreak-deny-all"]);
        assert_eq!((plan.verdict.state, plan.verdict.drift.len()), (ActionState::InForce, 0), "off is off");
    }
}

#[test]
fn our_own_profile_is_made_step_by_step_and_mended() {
    let calls = |own: &DenyProfile| prepare_profile(own).0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut own = DenyProfile { read: true, ..DenyProfile::default() };
    assert_eq!(
        calls(&own),
        ["iam:CreateRole firebreak-deny-all: may do nothing", "iam:CreateInstanceProfile firebreak-deny-all"]
    );
    for expected in ["iam:PutRolePolicy", "iam:AddRoleToInstanceProfile"] {
        prepare_profile(&own).0.iter().for_each(|call| profile::after(&mut own, call));
        assert!(calls(&own).len() == 1 && calls(&own)[0].starts_with(expected), "{:?}", calls(&own));
    }
    prepare_profile(&own).0.iter().for_each(|call| profile::after(&mut own, call));
    assert_eq!(prepare_profile(&own), (vec![], false), "expected is not read");
    own.read = true;
    assert!(prepare_profile(&own).1);
    own.profile = Some(profile(OURS, "admin"));
    assert_eq!(calls(&own), ["iam:RemoveRoleFromInstanceProfile firebreak-deny-all: admin"]);
    let (case, mut seen) = contained();
    seen.own = Some(DenyProfile { policy: None, ..ready() });
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!((plan.calls.len(), plan.verdict.drift.len(), plan.verdict.state), (1, 1, ActionState::InProgress));
}

#[test]
fn whatever_somebody_undoes_is_done_again() {
    let (case, seen) = contained();
    for changed in [None, Some("{}".to_owned()), Some(denying(&["AROAWEB:i-2"]))] {
        let mut seen = seen.clone();
        seen.roles.insert("web".into(), role(changed));
        let plan = InstanceRole::contain(&case, &Empty {}, &seen);
        assert_eq!(texts(&plan), ["iam:PutRolePolicy web: firebreak-deny-instances: deny AROAWEB:i-1"]);
        assert_eq!((plan.verdict.drift.len(), plan.verdict.state), (1, ActionState::InProgress));
    }
    let mut replaced = seen.clone();
    replaced.associations = vec![association("3", OTHER)];
    replaced.roles.insert("other".into(), Role { id: "AROAOTHER".into(), ..Role::default() });
    let plan = InstanceRole::contain(&case, &Empty {}, &replaced);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["revokeInstanceRole/iip-assoc-3"]);
    assert!(texts(&plan)[0].contains("other: firebreak-deny-instances: deny AROAOTHER:i-1"), "{:?}", texts(&plan));
    assert!(texts(&plan)[1].contains("Replace"), "{:?}", texts(&plan));
    let mut long_ago = case;
    long_ago.now += SignedDuration::from_hours(1);
    let taken_off = InstanceRole::contain(&long_ago, &Empty {}, &Look { associations: vec![], ..seen });
    assert_eq!((taken_off.calls.len(), taken_off.verdict.drift.len()), (1, 1));
}

#[test]
fn without_a_profile_there_is_nothing_to_do_until_somebody_puts_one_on() {
    let case = example::case(example::instance());
    let plan = InstanceRole::contain(&case, &Empty {}, &look("running", &[]));
    assert_eq!((plan.calls.len(), plan.record.len()), (0, 1));
    let case = later(case, &plan, 1);
    let quiet = InstanceRole::contain(&case, &Empty {}, &look("running", &[]));
    assert_eq!((quiet.is_done(), quiet.verdict.state), (true, ActionState::InForce));
    assert!(quiet.verdict.message.starts_with("it has no instance profile"), "{}", quiet.verdict.message);
    let plan = InstanceRole::contain(&case, &Empty {}, &look("running", &[("1", WEB)]));
    assert_eq!(plan.calls.len(), 2);
    let case = later(case, &plan, 1);
    let back = InstanceRole::release(&later(case.clone(), &Plan::default(), 60), &look("running", &[("2", OURS)]));
    assert!(texts(&back).iter().all(|c| c.contains("deny AROAWEB:i-1 only before")), "{:?}", texts(&back));
    let mut seen = look("running", &[("2", OURS)]);
    let case = later(case, &back, 240);
    InstanceRole::after(&mut seen, &back.calls[0], &Outcome::Done);
    assert_eq!(texts(&InstanceRole::release(&case, &seen)), ["ec2:DisassociateIamInstanceProfile i-1: iip-assoc-2"]);
}

#[test]
fn a_role_that_may_not_be_touched_keeps_its_sessions_and_that_is_no_containment() {
    for (forbidden, denies) in [
        (Some("it is protected by AwsAccount prod (arn:*)".to_owned()), None),
        (
            None,
            Some(denying(
                &(0..226)
                    .map(|n| format!("AROAWEB:i-0123456789abcdef{n:05}"))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            )),
        ),
    ] {
        let (case, mut seen) = contained();
        let full = denies.map(|text| text.replace("AROAWEB", "AROAWEBWEBWEBWEBWEBWEB"));
        seen.roles.insert("web".into(), Role { id: "AROAWEB".into(), denies: full, forbidden, ..Role::default() });
        let plan = InstanceRole::contain(&case, &Empty {}, &seen);
        assert!(plan.calls.is_empty() && plan.verdict.state == ActionState::Failed, "{plan:?}");
        assert!(plan.verdict.message.contains("its sessions of web are not denied: it"), "{}", plan.verdict.message);
        assert!(plan.verdict.message.contains("until they expire"), "{}", plan.verdict.message);
        let (released, mut much_later) = (InstanceRole::release(&later(case.clone(), &plan, 60), &seen), case);
        assert_eq!(texts(&released), ["ec2:ReplaceIamInstanceProfileAssociation i-1: web"]);
        much_later.now += LONGEST_ROLE_SESSION + SignedDuration::from_mins(1);
        assert_eq!(InstanceRole::contain(&much_later, &Empty {}, &seen).verdict.state, ActionState::InForce, "expired");
    }
}

#[test]
fn a_profile_without_a_role_may_have_had_one() {
    let case = example::case(example::instance());
    let mut seen = look("running", &[("1", WEB)]);
    seen.profiles.get_mut(WEB).unwrap().role = None;
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(plan.calls.len(), 1);
    let case = later(case, &plan, 1);
    let seen = look("running", &[("2", OURS)]);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    let case = later(case, &plan, 1);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(plan.verdict.state, ActionState::Failed);
    assert!(plan.verdict.message.contains("whose credentials it got before is not known"), "{}", plan.verdict.message);
}

#[test]
fn the_old_sessions_stay_denied_in_the_write_that_lifts_the_deny_and_the_profile_comes_last() {
    let (case, mut seen) = contained();
    let lift = InstanceRole::release(&case, &seen);
    let [Call::EditSessionDenies { edit: DenyEdit::Release(session, Some(cutoff)), .. }] = &lift.calls[..] else {
        panic!("{lift:?}")
    };
    assert_eq!(session, "AROAWEB:i-1");
    let gone: Timestamp = case.recorded("revokeInstanceRole/off-iip-assoc-1").unwrap();
    let soonest = gone + SignedDuration::from_secs(30);
    assert!((soonest..soonest + SignedDuration::from_secs(60)).contains(cutoff) && cutoff.as_second() % 60 == 0, "{cutoff}");
    let case = later(case, &lift, 1);
    let [kept] = &residual::all(&case)[..] else { panic!("{:?}", case.original) };
    assert_eq!((kept.role.as_deref(), kept.policy.as_str()), (Some("web"), "firebreak-deny-instances"));
    InstanceRole::after(&mut seen, &lift.calls[0], &Outcome::Done);
    let waits = InstanceRole::release(&case, &seen);
    assert!(waits.is_done() && waits.verdict.state == ActionState::InProgress, "{waits:?}");
    let case = later(case, &Plan::default(), 100);
    let back = InstanceRole::release(&case, &seen);
    assert_eq!(texts(&back), ["ec2:ReplaceIamInstanceProfileAssociation i-1: web"]);
    assert!(back.calls[0].widens() && lift.calls[0].widens());
    seen.associations = vec![association("4", WEB)];
    let done = InstanceRole::release(&case, &seen);
    assert!(done.is_done() && done.verdict.state == ActionState::Released, "{done:?}");
    assert!(done.verdict.message.contains("stay denied until"), "{}", done.verdict.message);
}

#[test]
fn the_cutoff_of_another_instances_release_is_shared_where_it_can_be() {
    let (case, mut seen) = contained();
    let case = later(case, &Plan::default(), 3600);
    let theirs = case.now - SignedDuration::from_mins(5);
    let both = SessionDenies::read(&denying(&["AROAWEB:i-1", "AROAWEB:i-2"]));
    let both = both.after(&DenyEdit::Release("AROAWEB:i-2".into(), Some(theirs))).unwrap();
    seen.roles.insert("web".into(), role(Some(both.document())));
    let lift = InstanceRole::release(&case, &seen);
    assert!(texts(&lift)[0].ends_with(&format!("deny AROAWEB:i-1 only before {theirs}")), "{:?}", texts(&lift));
    seen.roles.insert("web".into(), role(Some(denying(&["AROAWEB:i-1"]))));
    let lift = InstanceRole::release(&case, &seen);
    let alone = cutoff_of(&lift);
    assert!(alone.as_second() % 60 == 0 && alone <= case.now - SignedDuration::from_mins(1), "a round one: {alone}");
    let case = later(case, &lift, 1);
    seen.roles.insert("web".into(), role(Some(both.document())));
    assert_eq!(
        cutoff_of(&InstanceRole::release(&case, &seen)),
        theirs,
        "theirs came first: there may be no room for another"
    );

    let taken = InstanceRole::release(&case, &seen);
    let case = later(case, &taken, 100);
    taken.calls.iter().for_each(|call| InstanceRole::after(&mut seen, call, &Outcome::Done));
    seen.associations = vec![association("4", WEB)];
    let done = InstanceRole::release(&case, &seen);
    assert!(done.is_done() && done.verdict.state == ActionState::Released, "{done:?}");
    let cutoffs = |residuals: Vec<residual::Residual>| residuals.iter().map(|r| r.cutoff).collect::<Vec<_>>();
    assert_eq!(residual::all(&case).len(), 2, "its own is on record");
    assert_eq!(cutoffs(residual::left(&case, &done.verdict.shown)), [theirs], "its own was never put");
    assert!(done.verdict.message.contains(&format!("before {theirs} stay denied")), "{}", done.verdict.message);
}

fn cutoff_of(plan: &Plan) -> Timestamp {
    match &plan.calls[0] {
        Call::EditSessionDenies { edit: DenyEdit::Release(_, Some(cutoff)), .. } => *cutoff,
        other => panic!("{other}"),
    }
}

#[test]
fn an_instance_that_is_held_again_gets_a_new_cutoff() {
    let (case, mut seen) = contained();
    let lift = InstanceRole::release(&case, &seen);
    let case = later(case, &lift, 60);
    InstanceRole::after(&mut seen, &lift.calls[0], &Outcome::Done);
    seen.associations = vec![association("9", WEB)];
    let again = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(again.calls.len(), 2, "{again:?}");
    let case = later(case, &again, 10);
    for call in &again.calls {
        InstanceRole::after(&mut seen, call, &Outcome::Created("iip-assoc-10".into()));
    }
    let gone = InstanceRole::contain(&case, &Empty {}, &seen);
    let case = later(case, &gone, 1);
    let second = InstanceRole::release(&case, &seen);
    assert!(cutoff_of(&second) > cutoff_of(&lift) && second.record.len() == 1, "{second:?}");
}

#[test]
fn what_somebody_else_put_there_is_for_a_person_to_decide() {
    let case = later(contained().0, &Plan::default(), 120);
    let mut seen = look("running", &[("5", OTHER)]);
    seen.roles.insert("web".into(), role(Some(denying(&["AROAWEB:i-1"]))));
    let conflict = InstanceRole::release(&case, &seen);
    assert!(conflict.calls.is_empty() && conflict.verdict.state == ActionState::Conflict, "{conflict:?}");
    assert!(conflict.verdict.message.contains("is other now, before containment it was web"), "{conflict:?}");
    seen.roles.insert("web".into(), role(None));
    let decided = |decision, seen: &Look| {
        let case = Case { decision: Some(decision), ..case.clone() };
        let lift = InstanceRole::release(&case, seen);
        let (case, mut seen) = (later(case, &lift, 1), seen.clone());
        lift.calls.iter().for_each(|call| InstanceRole::after(&mut seen, call, &Outcome::Done));
        InstanceRole::release(&case, &seen)
    };
    let keep = decided(OnConflict::KeepTheirs, &seen);
    assert!(keep.is_done() && keep.verdict.message.contains("it stays with instance profile other"), "{keep:?}");
    let restore = decided(OnConflict::RestoreOriginal, &seen);
    assert_eq!(texts(&restore), ["ec2:ReplaceIamInstanceProfileAssociation i-1: web"]);
    let gone = Look { profiles: BTreeMap::new(), ..seen };
    let restore = decided(OnConflict::RestoreOriginal, &gone);
    assert_eq!(texts(&restore), ["ec2:DisassociateIamInstanceProfile i-1: iip-assoc-5"]);
}

#[test]
fn a_profile_with_another_role_in_it_is_not_what_the_instance_had() {
    let (case, mut seen) = contained();
    seen.profiles.insert(WEB.into(), profile(WEB, "admin"));
    let conflict = InstanceRole::release(&case, &seen);
    assert!(conflict.calls.is_empty() && conflict.verdict.message.contains("has admin (AROAADMIN) now"), "{conflict:?}");
    seen.profiles.remove(WEB);
    let gone = InstanceRole::release(&case, &seen);
    assert!(gone.verdict.state == ActionState::Conflict && gone.verdict.message.contains("no longer exists"), "{gone:?}");
}

#[test]
fn a_profile_that_somebody_put_back_is_what_it_was_only_with_its_own_role_in_it() {
    let (case, mut seen) = contained();
    seen.associations = vec![association("9", WEB)];
    seen.profiles.insert(WEB.into(), profile(WEB, "admin"));
    let conflict = InstanceRole::release(&case, &seen);
    assert!(conflict.calls.is_empty() && conflict.verdict.state == ActionState::Conflict, "{conflict:?}");
    assert!(conflict.verdict.message.contains("had web (AROAWEB) in it, and has admin (AROAADMIN) now"), "{conflict:?}");
    seen.roles.insert("web".into(), role(None));
    let case = later(case, &Plan::default(), 120);
    let released = |case: &Case, seen: &Look| {
        let lift = InstanceRole::release(case, seen);
        let (case, mut seen) = (later(case.clone(), &lift, 1), seen.clone());
        lift.calls.iter().for_each(|call| InstanceRole::after(&mut seen, call, &Outcome::Done));
        let done = InstanceRole::release(&case, &seen);
        assert!(done.is_done() && done.verdict.state == ActionState::Released, "{done:?}");
        done.verdict.message
    };
    for decision in [OnConflict::KeepTheirs, OnConflict::RestoreOriginal] {
        let said = released(&Case { decision: Some(decision), ..case.clone() }, &seen);
        assert!(said.starts_with("it stays with instance profile web"), "{said}");
    }
    seen.profiles.insert(WEB.into(), profile(WEB, "web"));
    assert!(released(&case, &seen).starts_with("credentials that it got before"), "mended by hand");
}

#[test]
fn a_stopped_instance_gets_its_profile_back_in_two_steps_that_survive_a_crash() {
    let (case, mut seen) = contained();
    let lift = InstanceRole::release(&case, &seen);
    let case = later(case, &lift, 120);
    lift.calls.iter().for_each(|call| InstanceRole::after(&mut seen, call, &Outcome::Done));
    seen.instance.as_mut().unwrap().state = "stopped".into();
    let off = InstanceRole::release(&case, &seen);
    assert_eq!(texts(&off), ["ec2:DisassociateIamInstanceProfile i-1: iip-assoc-2"]);
    let case = later(case, &off, 1);
    seen.associations.clear();
    let on = InstanceRole::release(&case, &seen);
    assert_eq!(texts(&on), ["ec2:AssociateIamInstanceProfile i-1: web"]);
}

#[test]
fn marks_of_before_this_record_are_not_taken_for_the_original() {
    let case = example::case(example::instance());
    let mut marked = look("running", &[("1", WEB)]);
    let tag = ("firebreak.dev/incident".to_owned(), "security/old".to_owned());
    marked.instance.as_mut().unwrap().tags.extend([tag]);
    for seen in [marked, look("running", &[("1", OURS)])] {
        let plan = InstanceRole::contain(&case, &Empty {}, &seen);
        assert!(plan.verdict.unknown && !plan.record.contains_key("revokeInstanceRole"), "{plan:?}");
    }
    let case = recorded(case, "revokeInstanceRole/unknown", &"2026-03-01T12:00:00Z");
    let conflict = InstanceRole::release(&case, &look("running", &[("1", OURS)]));
    assert_eq!(conflict.verdict.state, ActionState::Conflict);
    assert_eq!(InstanceRole::release(&case, &look("running", &[("1", WEB)])).verdict.state, ActionState::Released);
}

#[test]
fn an_instance_that_is_gone_has_sessions_all_the_same() {
    let case = example::case(example::instance());
    let plan = InstanceRole::contain(&case, &Empty {}, &look("terminated", &[]));
    assert!(plan.is_done() && plan.verdict.state == ActionState::Failed, "{plan:?}");
    let (case, mut seen) = contained();
    seen.instance.as_mut().unwrap().state = "terminated".into();
    seen.associations.clear();
    assert_eq!(InstanceRole::contain(&case, &Empty {}, &seen).verdict.state, ActionState::InForce);
    let lift = InstanceRole::release(&case, &seen);
    assert!(texts(&lift)[0].contains("only before"), "{lift:?}");
}

#[test]
fn what_aws_has_forgotten_ends_no_session_of_its_role() {
    let (case, mut seen) = contained();
    let case = recorded(case, "instance/ended", &"2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    (seen.instance, seen.associations) = (None, vec![]);
    assert_eq!(InstanceRole::contain(&case, &Empty {}, &seen).verdict.state, ActionState::InForce);
    seen.roles.insert("web".into(), role(None));
    let open = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(open.verdict.state != ActionState::InForce && open.calls.len() == 1, "denied again: {open:?}");
}

#[test]
fn one_answer_without_a_role_that_it_had_does_not_end_the_release() {
    let (case, _) = contained();
    let mut seen = look("running", &[("3", WEB)]);
    for (what, roles, absent) in [
        ("not shown", BTreeMap::new(), true),
        (
            "made again under its name",
            BTreeMap::from([("web".to_owned(), Role { id: "AROANEW".into(), ..role(None) })]),
            false,
        ),
    ] {
        seen.roles = roles;
        let end = InstanceRole::release(&case, &seen);
        assert!(end.is_done() && end.verdict.state == ActionState::Released, "{what}: {end:?}");
        assert_eq!(end.verdict.absent, absent, "{what}: its deny may stand");
    }
}

#[test]
fn a_role_made_again_under_its_name_is_another() {
    let (case, mut seen) = contained();
    let again = ProfileRole { name: "web".into(), id: "AROAAGAIN".into() };
    let taken = Taken { role: Some(again), ..case.recorded::<Taken>("revokeInstanceRole/iip-assoc-1").unwrap() };
    let case = recorded(case, "revokeInstanceRole/iip-assoc-9", &taken);
    let case = recorded(case, "revokeInstanceRole/off-iip-assoc-9", &example::SINCE.parse::<Timestamp>().unwrap());
    seen.roles.insert("web".into(), Role { id: "AROAAGAIN".into(), ..Role::default() });
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(texts(&plan).iter().any(|call| call.contains("AROAAGAIN:i-1")), "{plan:?}");
}

fn refused(operation: &str) -> AwsError {
    let (operation, code) = (operation.to_owned(), "AccessDenied".to_owned());
    AwsError { class: Class::Denied, operation, code, message: String::new() }
}

fn unread(names: &[(&str, &str)]) -> BTreeMap<String, AwsError> {
    names.iter().map(|(name, operation)| ((*name).to_owned(), refused(operation))).collect()
}

#[test]
fn a_role_that_somebody_puts_into_our_own_profile_is_recorded_taken_out_and_its_sessions_denied() {
    let (case, mut seen) = contained();
    seen.own = Some(DenyProfile { profile: Some(profile(OURS, "admin")), ..ready() });
    seen.roles.insert("admin".into(), Role { id: "AROAADMIN".into(), ..Role::default() });
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    let sub = format!("iip-assoc-2.AROAADMIN.{}", case.now.as_second());
    assert!(plan.record.contains_key(&format!("revokeInstanceRole/{sub}")), "{:?}", plan.record);
    assert_eq!(
        texts(&plan),
        [
            "iam:PutRolePolicy admin: firebreak-deny-instances: deny AROAADMIN:i-1",
            "iam:RemoveRoleFromInstanceProfile firebreak-deny-all: admin",
            "ec2:DisassociateIamInstanceProfile i-1: iip-assoc-2",
        ]
    );
    assert_eq!(plan.verdict.state, ActionState::InProgress);

    let case = later(case, &plan, 1);
    seen.own = Some(ready());
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(plan.record.contains_key(&format!("revokeInstanceRole/off-{sub}")), "out is off: {:?}", plan.record);
    let case = later(case, &plan, 1);
    seen.own = Some(DenyProfile { profile: Some(profile(OURS, "admin")), ..ready() });
    let again = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(again.record.len(), 1, "the same role again is on record again: {:?}", again.record);
}

#[test]
fn another_role_in_a_profile_on_record_is_recorded_too() {
    let case = example::case(example::instance());
    let mut seen = look("running", &[("1", WEB)]);
    let case = later(case.clone(), &InstanceRole::contain(&case, &Empty {}, &seen), 1);
    seen.profiles.insert(WEB.into(), profile(WEB, "admin"));
    seen.roles.insert("admin".into(), Role { id: "AROAADMIN".into(), ..Role::default() });
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    let denied = ["admin: firebreak-deny-instances: deny AROAADMIN:i-1", "web: firebreak-deny-instances: deny AROAWEB:i-1"];
    assert_eq!(texts(&plan)[..2], denied.map(|d| format!("iam:PutRolePolicy {d}")));
    let case = later(case, &plan, 1);
    let seen = Look { associations: vec![], ..seen };
    let gone = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(gone.record.len(), 2, "{:?}", gone.record);
    assert!(texts(&gone).iter().any(|c| c.contains("deny AROAADMIN")), "on record it is denied, off or not");
}

#[test]
fn what_iam_does_not_show_keeps_no_profile_on_the_instance() {
    let case = example::case(example::instance());
    let mut seen = look("running", &[("1", WEB)]);
    seen.profiles.remove(WEB);
    seen.own = None;
    seen.unread = unread(&[(WEB, "iam:GetInstanceProfile"), (DENY_PROFILE, "iam:GetInstanceProfile")]);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(texts(&plan), ["ec2:DisassociateIamInstanceProfile i-1: iip-assoc-1"]);
    let case = later(case, &plan, 1);
    seen.associations.clear();
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    let case = later(case, &plan, 1);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(plan.is_done(), "{plan:?}");
    assert_eq!(plan.verdict.state, ActionState::Failed);
    for word in ["whose credentials it got before is not known", "web", "grant it"] {
        assert!(plan.verdict.message.contains(word), "{word}: {}", plan.verdict.message);
    }
    let release = InstanceRole::release(&case, &look("running", &[]));
    assert_eq!(release.verdict.state, ActionState::Conflict, "{}", release.verdict.message);

    // Shown later, it is on record, its sessions are denied, and the profile can come back.
    let mut seen = look("running", &[]);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    let case = later(case, &plan, 1);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(texts(&plan).contains(&"iam:PutRolePolicy web: firebreak-deny-instances: deny AROAWEB:i-1".into()));
    let case = later(case, &plan, 1);
    seen.associations = vec![association("2", OURS)];
    seen.roles.insert("web".into(), role(Some(denying(&["AROAWEB:i-1"]))));
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert_eq!(plan.verdict.state, ActionState::InForce, "{}", plan.verdict.message);
    assert_ne!(InstanceRole::release(&case, &seen).verdict.state, ActionState::Conflict);
}

#[test]
fn a_role_that_iam_does_not_show_is_not_called_denied() {
    let (case, mut seen) = contained();
    seen.roles.remove("web");
    seen.unread = unread(&[("web", "iam:GetRole")]);
    let plan = InstanceRole::contain(&case, &Empty {}, &seen);
    assert!(plan.is_done() && plan.verdict.state == ActionState::Failed, "{plan:?}");
    assert!(
        plan.verdict.message.contains("its sessions of web are not denied: AWS denied iam:GetRole"),
        "{}",
        plan.verdict.message
    );
    let slow = AwsError { class: Class::Transient, ..refused("iam:GetRole") };
    seen.unread.insert("web".into(), slow);
    assert_eq!(InstanceRole::contain(&case, &Empty {}, &seen).verdict.state, ActionState::InProgress);
}
