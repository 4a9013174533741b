use firebreak_crds::{
    ActionState, ActionStatus, Ec2InstanceTarget, EvidenceAction, EvidenceSpec, EvidenceStatus, Holder, HolderState,
    IncidentRef, IncidentSpec, NameRef, Plan, PlanTarget, QuarantineStatus, Resource, quarantine_name,
};

use super::*;
use crate::clock;
use crate::containment::example::{self, deny_all, isolate, keys_off};
use crate::containment::holds_digest;
use crate::controllers::incident::resolve::Refusal;

pub fn now() -> Timestamp {
    example::SINCE.parse().unwrap()
}

pub fn incident(mode: Mode) -> Incident {
    let spec = IncidentSpec {
        title: "t".into(),
        description: None,
        severity: firebreak_crds::Severity::High,
        mode,
        policy_ref: NameRef { name: "standard".into() },
        deletion_policy: firebreak_crds::DeletionPolicy::Retain,
        suspend: false,
        requested_by: None,
        authors: vec![],
        targets: vec![firebreak_crds::Target {
            ec2_instance: Some(Ec2InstanceTarget {
                account_ref: NameRef { name: "prod".into() },
                region: "eu-west-1".into(),
                instance_id: "i-1".into(),
            }),
            ..firebreak_crds::Target::default()
        }],
    };
    let mut incident = Incident::new("inc-1", spec);
    (incident.metadata.namespace, incident.metadata.uid) = (Some("security".into()), Some("1".into()));
    incident.metadata.generation = Some(3);
    incident
}

/// A target that was resolved: all that its row needs is the resource.
pub fn found(resource: Resource) -> Target {
    let account = serde_json::json!({ "accountId": "111122223333", "regions": ["eu-west-1"] });
    let account = firebreak_crds::AwsAccount::new("prod", serde_json::from_value(account).unwrap());
    let resolved = crate::controllers::incident::resolve::Resolved {
        resource: resource.clone(),
        account: Arc::new(account),
        actions: vec![],
        evidence: vec![],
        release: firebreak_crds::ReleasePolicy::default(),
        approvals: None,
        causes: vec![],
        waiting: vec![],
        ruled_out: false,
        open: false,
        chosen: None,
    };
    Target { resource: Some(resource), resolved: Ok(resolved) }
}

fn refused(reason: &'static str) -> Target {
    Target { resource: Some(example::user()), resolved: Err(Refusal::new(reason, "why")) }
}

pub fn in_state(name: &str, state: ActionState) -> ActionStatus {
    ActionStatus {
        name: name.into(),
        wanted: None,
        state,
        since: clock::time(now()),
        message: String::new(),
        undone: vec![],
    }
}

pub fn quarantine(
    resource: Resource,
    holders: Vec<Holder>,
    contained: (&str, &str),
    actions: Vec<ActionStatus>,
) -> Quarantine {
    let name = quarantine_name(&resource);
    let mut quarantine = example::quarantine(resource, holders);
    quarantine.metadata.name = Some(name);
    let mut c = Conditions::new(&[], Some(1), now());
    c.set(CONTAINED, contained.0, contained.1, "said");
    let observed_holds = Some(holds_digest(&quarantine.spec.holders));
    let conditions = c.done();
    let status =
        QuarantineStatus { observed_generation: Some(1), observed_holds, conditions, actions, ..Default::default() };
    quarantine.status = Some(status);
    quarantine
}

/// An instance that the Incident holds and that is contained.
fn contained_instance() -> Quarantine {
    let holder = example::holder("1", "inc-1", vec![isolate(firebreak_crds::SeverTrackedConnections::Auto)]);
    let actions = vec![in_state("isolateNetwork", ActionState::InForce)];
    quarantine(example::instance(), vec![holder], ("True", "Enforced"), actions)
}

pub fn world(quarantines: Vec<Quarantine>) -> World {
    let quarantines = quarantines.into_iter().map(|q| (q.name_any(), Arc::new(q))).collect();
    World { quarantines, evidence: BTreeMap::new(), said: BTreeMap::new(), residual: Vec::new() }
}

pub fn says(status: &IncidentStatus, kind: &str) -> String {
    get_condition(&status.conditions, kind).map_or_else(|| "absent".into(), |c| format!("{} {}", c.status, c.reason))
}

pub fn look(incident: &Incident, targets: &[Target], world: &World) -> IncidentStatus {
    status(incident, targets, &Notes::default(), world, now())
}

#[test]
fn an_incident_is_contained_when_every_target_is() {
    let status = look(&incident(Mode::Contain), &[found(example::instance())], &world(vec![contained_instance()]));
    assert_eq!((says(&status, CONTAINED), says(&status, READY)), ("True Enforced".into(), "True Contained".into()));
    assert_eq!((status.contained.as_deref(), status.observed_generation), (Some("1/1"), Some(3)));
    let targets = [found(example::instance()), found(example::user())];
    let status = look(&incident(Mode::Contain), &targets, &world(vec![contained_instance()]));
    assert_eq!(
        (says(&status, CONTAINED), says(&status, RECONCILING)),
        ("False Containing".into(), "True Containing".into())
    );
    assert_eq!(status.contained.as_deref(), Some("1/2"));
}

#[test]
fn a_target_is_contained_only_for_what_this_holder_asks_as_the_spec_is_now() {
    let user = |actions, contained, states| {
        quarantine(example::user(), vec![example::holder("1", "inc-1", actions)], contained, states)
    };
    let deny = |state| vec![in_state("denyAll", state)];
    let both = |keys| vec![in_state("denyAll", ActionState::InForce), in_state("deactivateAccessKeys", keys)];
    let mut stale = user(vec![deny_all()], ("True", "Enforced"), deny(ActionState::InForce));
    stale.spec.holders.push(example::holder("2", "inc-2", vec![keys_off()]));
    let mut unseen = stale.clone();
    unseen.status = None;
    let mut refused = user(vec![deny_all()], ("False", "AccessDenied"), deny(ActionState::Failed));
    refused.spec.holders.push(example::holder("2", "inc-2", vec![keys_off()]));
    let others = both(ActionState::Failed);
    for (what, quarantine, contained, reason) in [
        ("in force", user(vec![deny_all()], ("True", "Enforced"), deny(ActionState::InForce)), "True", "Enforced"),
        ("of an older spec", stale, "False", "Containing"),
        ("of an older spec, and refused since", refused, "False", "AccessDenied"),
        ("not looked at yet", unseen, "False", "Containing"),
        (
            "only another's action fails",
            user(vec![deny_all()], ("False", "AccessDenied"), others.clone()),
            "True",
            "Enforcing",
        ),
        (
            "its own action fails",
            user(vec![deny_all(), keys_off()], ("False", "AccessDenied"), others),
            "False",
            "AccessDenied",
        ),
        ("not listed", user(vec![keys_off()], ("True", "Enforced"), deny(ActionState::InForce)), "False", "Enforced"),
        ("nothing to do", user(vec![], ("True", "Enforced"), both(ActionState::InForce)), "False", "NothingToDo"),
        (
            "not seen",
            user(vec![deny_all()], ("Unknown", "NotObserved"), deny(ActionState::InForce)),
            "Unknown",
            "NotObserved",
        ),
    ] {
        let status = look(&incident(Mode::Contain), &[found(example::user())], &world(vec![quarantine]));
        let row = &status.targets[0];
        assert_eq!((row.contained.as_str(), row.reason.as_str()), (contained, reason), "{what}");
    }
}

#[test]
fn what_time_will_mend_is_reconciling_and_what_a_person_must_end_is_stalled() {
    let user = |contained| {
        let holder = example::holder("1", "inc-1", vec![deny_all()]);
        world(vec![quarantine(example::user(), vec![holder], contained, vec![in_state("denyAll", ActionState::Failed)])])
    };
    for (world, ready, stalled) in [
        (user(("False", "AwsUnreachable")), "False AwsUnreachable", false),
        (user(("Unknown", "NotObserved")), "False NotObserved", false),
        (user(("False", "OutcomeUnknown")), "False OutcomeUnknown", false),
        (user(("False", "AccessDenied")), "False AccessDenied", true),
        (user(("False", "OriginalUnknown")), "False OriginalUnknown", true),
    ] {
        let status = look(&incident(Mode::Contain), &[found(example::user())], &world);
        assert_eq!(says(&status, READY), ready);
        assert_eq!(
            (says(&status, STALLED) != "absent", says(&status, RECONCILING) != "absent"),
            (stalled, !stalled),
            "{ready}"
        );
    }
}

#[test]
fn a_refused_target_is_named_and_the_others_go_on() {
    let targets = [refused("Protected"), found(example::instance())];
    let status = look(&incident(Mode::Contain), &targets, &world(vec![contained_instance()]));
    assert_eq!((says(&status, STALLED), status.contained.as_deref()), ("True Protected".into(), Some("1/2")));
    assert!(get_condition(&status.conditions, READY).unwrap().message.contains("user mallory: why"));
}

#[test]
fn a_target_taken_out_of_the_spec_is_still_told() {
    let status = look(&incident(Mode::Contain), &[], &world(vec![contained_instance()]));
    assert_eq!((status.targets.len(), status.contained.as_deref()), (1, Some("1/1")));
    assert!(status.targets[0].message.starts_with("no longer a target; stays contained until release"));
}

#[test]
fn a_note_on_a_held_target_is_told_beside_its_state() {
    let note = Refusal::new("ActionStays", "denyAll is no longer in the policy");
    let notes = Notes { per_target: vec![(quarantine_name(&example::instance()), note)], ..Notes::default() };
    let world = world(vec![contained_instance()]);
    let status = status(&incident(Mode::Contain), &[found(example::instance())], &notes, &world, now());
    assert_eq!(status.targets[0].contained, "True");
    assert!(status.targets[0].message.contains("no longer in the policy"));
}

#[test]
fn a_plan_is_ready_when_it_could_be_made_for_every_target() {
    let plan = |problem: Option<&str>| {
        let target = PlanTarget { resource: "arn".into(), calls: vec![], problem: problem.map(str::to_owned) };
        Notes { plan: Some(Plan { call_count: 2, targets: vec![target], ..Plan::default() }), ..Notes::default() }
    };
    for (what, target, notes, ready, stalled) in [
        ("made", found(example::instance()), plan(None), "True Planned", "absent"),
        ("with a problem", found(example::instance()), plan(Some("gone")), "False PlanHasProblems", "True PlanHasProblems"),
        ("refused", refused("RegionNotAllowed"), plan(None), "False RegionNotAllowed", "True RegionNotAllowed"),
    ] {
        let status = status(&incident(Mode::Plan), &[target], &notes, &world(vec![]), now());
        assert_eq!((says(&status, READY).as_str(), says(&status, STALLED).as_str()), (ready, stalled), "{what}");
        assert_eq!(says(&status, CONTAINED), "False PlanOnly", "{what}");
    }
}

#[test]
fn plan_on_an_incident_that_holds_is_frozen_and_tells_the_truth() {
    let notes = Notes { frozen: true, ..Notes::default() };
    let world = world(vec![contained_instance()]);
    let status = status(&incident(Mode::Plan), &[found(example::instance())], &notes, &world, now());
    assert_eq!((says(&status, CONTAINED), says(&status, READY)), ("True Enforced".into(), "True Frozen".into()));
    assert!(get_condition(&status.conditions, READY).unwrap().message.contains("nothing is let go"));
}

#[test]
fn suspended_says_so_for_what_is_held_and_what_is_not() {
    let mut incident = incident(Mode::Contain);
    incident.spec.suspend = true;
    let held = look(&incident, &[found(example::instance())], &world(vec![contained_instance()]));
    assert_eq!(says(&held, READY), "True Suspended");
    let not = look(&incident, &[found(example::instance())], &world(vec![]));
    assert_eq!((not.targets[0].reason.as_str(), says(&not, READY)), ("Suspended", "False Suspended".into()));
}

#[test]
fn a_release_ends_when_nothing_is_left_of_the_hold() {
    let others = || vec![example::holder("2", "inc-2", vec![deny_all()])];
    let of = |holders, ready: &str| {
        let mut quarantine = quarantine(example::user(), holders, ("False", "Releasing"), vec![]);
        let mut c = Conditions::new(&[], None, now());
        c.set(READY, "False", ready, "theirs");
        quarantine.status.as_mut().unwrap().conditions = c.done();
        world(vec![quarantine])
    };
    let mine = || vec![example::holder("1", "inc-1", vec![deny_all()])];
    let left = || vec![Holder { state: HolderState::Retained, ..example::holder("0", "inc-1", vec![deny_all()]) }];
    for (what, world, row, released, ready) in [
        ("given back", world(vec![]), "Released", "True Released", "True Released"),
        ("another holds on", of(others(), "Enforced"), "LetGo", "True Released", "True Released"),
        ("under way", of(vec![], "Releasing"), "Releasing", "False Releasing", "False Releasing"),
        ("in conflict", of(vec![], "ReleaseConflict"), "ReleaseConflict", "False ReleaseConflict", "False ReleaseConflict"),
        (
            "left by its predecessor, as far as is known",
            of(left(), "Enforced"),
            "Releasing",
            "False Releasing",
            "False Releasing",
        ),
        ("still held by this one", of(mine(), "Enforced"), "Containing", "False Releasing", "False Releasing"),
    ] {
        let status = look(&incident(Mode::Release), &[found(example::user())], &world);
        assert_eq!(status.targets[0].reason, row, "{what}");
        assert_eq!((says(&status, RELEASED).as_str(), says(&status, READY).as_str()), (released, ready), "{what}");
        assert_eq!(says(&status, CONTAINED), "False Release", "{what}");
    }
}

#[test]
fn what_was_let_go_this_moment_is_not_called_released() {
    let notes = Notes { letting_go: true, ..Notes::default() };
    let status = status(&incident(Mode::Release), &[found(example::user())], &notes, &world(vec![]), now());
    assert_eq!((says(&status, RELEASED), says(&status, READY)), ("False Releasing".into(), "False Releasing".into()));
}

#[test]
fn what_was_said_when_a_release_had_ended_stays_said() {
    let mut incident = incident(Mode::Contain);
    let held = look(&incident, &[found(example::instance())], &world(vec![contained_instance()]));
    assert_eq!(held.targets[0].held_since, Some(clock::time(now())));
    (incident.status, incident.spec.mode, incident.metadata.generation) = (Some(held), Mode::Release, Some(4));
    let released = look(&incident, &[found(example::instance())], &world(vec![]));
    assert_eq!(released.targets[0].message, "let go, and its Quarantine is gone", "who knows whether it was abandoned");
    let mut verified = world(vec![]);
    verified.said.insert(quarantine_name(&example::instance()), "eni-1 stays as it is".into());
    let told = look(&incident, &[found(example::instance())], &verified);
    assert_eq!(told.targets[0].message, "given back; eni-1 stays as it is");
    incident.status = Some(released.clone());
    let mut others = contained_instance();
    others.spec.holders[0].uid = "2".into();
    let later = look(&incident, &[found(example::instance())], &world(vec![others.clone()]));
    assert_eq!(later, released, "another Incident holds it since");
    incident.metadata.generation = Some(5);
    let asked_again = look(&incident, &[found(example::instance())], &world(vec![others]));
    assert_eq!(asked_again.targets[0].reason, "LetGo");
}

#[test]
fn a_target_that_was_taken_out_and_released_is_still_told() {
    let mut incident = incident(Mode::Contain);
    incident.status = Some(look(&incident, &[found(example::instance())], &world(vec![contained_instance()])));
    incident.spec.mode = Mode::Release;
    let status = look(&incident, &[], &world(vec![]));
    assert_eq!((status.targets.len(), status.targets[0].reason.as_str()), (1, "Released"));
}

#[test]
fn nothing_is_called_given_back_that_was_never_held() {
    let status = look(&incident(Mode::Release), &[found(example::user())], &world(vec![]));
    assert_eq!(status.targets[0].message, "this Incident holds nothing of it, and nobody else does");
    assert_eq!((&status.targets[0].quarantine, &status.targets[0].held_since), (&None, &None));
}

#[test]
fn a_change_of_anything_but_the_holds_makes_no_status_older() {
    let mut suspended = contained_instance();
    (suspended.spec.suspend, suspended.metadata.generation) = (true, Some(2));
    let status = look(&incident(Mode::Contain), &[found(example::instance())], &world(vec![suspended]));
    assert_eq!(says(&status, CONTAINED), "True Enforced");
    let said = &get_condition(&status.conditions, CONTAINED).unwrap().message;
    assert!(said.contains("Suspended, so nothing is repaired: instance i-"), "{said}");
}

#[test]
fn a_residual_deny_is_told_after_the_release() {
    let deny = ResidualDeny {
        user_id: None,
        user_name: Some("mallory".into()),
        role_name: None,
        policy_name: "p".into(),
        until: clock::time(now()),
    };
    let mut world = world(vec![]);
    for (account, told) in [("prod", true), ("other", false)] {
        world.residual = vec![(account.into(), deny.clone())];
        let status = look(&incident(Mode::Release), &[found(example::user())], &world);
        assert_eq!(status.targets[0].message.contains("stay denied until"), told, "{account}");
    }
}

#[test]
fn evidence_is_preserved_when_every_piece_is() {
    let piece = |ready: &str| {
        let incident_ref = IncidentRef { uid: "1".into(), namespace: "security".into(), name: "inc-1".into() };
        let spec = EvidenceSpec { incident_ref, resource: example::instance(), collect: EvidenceAction::default() };
        let mut c = Conditions::new(&[], None, now());
        c.set(READY, ready, "R", "m");
        let status = EvidenceStatus { conditions: c.done(), ..EvidenceStatus::default() };
        let mut evidence = Evidence::new("e", spec);
        evidence.status = Some(status);
        Some(Arc::new(evidence))
    };
    for (what, pieces, shown, condition) in [
        ("none asked for", vec![], None, "absent"),
        ("not started", vec![None], Some("0/1"), "False InProgress"),
        ("one of two", vec![piece("True"), piece("False")], Some("1/2"), "False InProgress"),
        ("all", vec![piece("True"), piece("True")], Some("2/2"), "True Complete"),
    ] {
        let mut world = world(vec![contained_instance()]);
        world.evidence = pieces.into_iter().enumerate().map(|(n, e)| (format!("e-{n}"), e)).collect();
        let status = look(&incident(Mode::Contain), &[found(example::instance())], &world);
        assert_eq!((status.evidence.as_deref(), says(&status, EVIDENCE_PRESERVED).as_str()), (shown, condition), "{what}");
        assert_eq!(says(&status, READY), "True Contained", "evidence does not hold up containment: {what}");
    }
}

#[test]
fn a_retained_hold_of_another_incident_is_none_of_this_one() {
    let holder = Holder { state: HolderState::Retained, ..example::holder("0", "inc-0", vec![deny_all()]) };
    let held =
        quarantine(example::user(), vec![holder], ("True", "Enforced"), vec![in_state("denyAll", ActionState::InForce)]);
    let status = look(&incident(Mode::Contain), &[found(example::user())], &world(vec![held]));
    assert_eq!((status.targets[0].contained.as_str(), status.targets[0].reason.as_str()), ("False", "Containing"));
}

/// A target of which an action waits, and what the Incident says of it.
fn awaiting(reason: &'static str) -> (Target, Notes) {
    let mut target = found(example::instance());
    let waits = Refusal::new(reason, "stopInstance waits");
    target.resolved.as_mut().unwrap().waiting.push(waits.clone());
    (target, Notes { waiting: Some(waits), ..Notes::default() })
}

#[test]
fn an_incident_of_which_an_action_waits_is_contained_but_not_ready() {
    for (reason, stalled) in [(approval::AWAITING, true), (gate::AWAITING_EVIDENCE, false)] {
        let (target, notes) = awaiting(reason);
        let status = status(&incident(Mode::Contain), &[target], &notes, &world(vec![contained_instance()]), now());
        assert_eq!((says(&status, CONTAINED), status.targets[0].contained.as_str()), ("True Enforced".into(), "True"));
        assert!(status.targets[0].message.ends_with("stopInstance waits"), "{:?}", status.targets[0]);
        assert_eq!(says(&status, READY), format!("False {reason}"));
        let (in_a_dead_end, under_way) = (says(&status, STALLED) != "absent", says(&status, RECONCILING) != "absent");
        assert_eq!((in_a_dead_end, under_way), (stalled, !stalled), "{reason}");
    }
}

#[test]
fn what_goes_but_is_not_held_yet_is_not_contained() {
    use firebreak_crds::SeverTrackedConnections::{Always, Auto, Never};
    let mut target = found(example::instance());
    for (what, actions, mode, expected) in [
        ("as it is held", vec![isolate(Auto)], Mode::Contain, "True Enforced"),
        ("a weaker one changes nothing", vec![isolate(Never)], Mode::Contain, "True Enforced"),
        ("stricter", vec![isolate(Always)], Mode::Contain, "False Containing"),
        ("more", vec![isolate(Auto), example::protect()], Mode::Contain, "False Containing"),
        ("less", vec![], Mode::Contain, "True Enforced"),
        ("more, but frozen", vec![isolate(Auto), example::protect()], Mode::Plan, "True Enforced"),
    ] {
        target.resolved.as_mut().unwrap().actions = actions;
        let status = look(&incident(mode), std::slice::from_ref(&target), &world(vec![contained_instance()]));
        assert_eq!(says(&status, CONTAINED), expected, "{what}");
    }
    let mut suspended = incident(Mode::Contain);
    suspended.spec.suspend = true;
    target.resolved.as_mut().unwrap().actions = vec![example::protect()];
    let status = look(&suspended, &[target], &world(vec![contained_instance()]));
    assert_eq!(says(&status, CONTAINED), "True Enforced", "suspended: nothing new goes");
}

#[test]
fn a_target_that_stays_open_until_somebody_approves_is_not_contained() {
    let (mut target, notes) = awaiting(approval::AWAITING);
    target.resolved.as_mut().unwrap().open = true;
    for mode in [Mode::Contain, Mode::Plan] {
        let targets = std::slice::from_ref(&target);
        let status = status(&incident(mode), targets, &notes, &world(vec![contained_instance()]), now());
        assert_eq!(says(&status, CONTAINED), "False AwaitingApproval", "{mode:?}");
        assert_eq!(says(&status, STALLED), "True AwaitingApproval", "{mode:?}");
        assert_eq!(status.contained.as_deref(), Some("0/1"), "{mode:?}");
    }
}

#[test]
fn what_a_person_must_end_is_named_though_another_target_is_under_way() {
    let (target, mut notes) = awaiting(approval::AWAITING);
    notes.per_target = vec![(quarantine_name(&example::instance()), notes.waiting.clone().unwrap())];
    let status = status(&incident(Mode::Contain), &[found(example::user()), target], &notes, &world(vec![]), now());
    assert_eq!(
        (says(&status, CONTAINED), says(&status, STALLED)),
        ("False Containing".into(), "True AwaitingApproval".into())
    );
}

#[test]
fn a_target_of_which_everything_waits_is_not_contained() {
    for (reason, stalled) in [(approval::AWAITING, true), (gate::AWAITING_EVIDENCE, false)] {
        let (target, mut notes) = awaiting(reason);
        notes.per_target = vec![(quarantine_name(&example::instance()), notes.waiting.clone().unwrap())];
        let status = status(&incident(Mode::Contain), &[target], &notes, &world(vec![]), now());
        assert_eq!(says(&status, CONTAINED), format!("False {reason}"));
        assert_eq!(says(&status, READY), format!("False {reason}"));
        assert_eq!(says(&status, STALLED) != "absent", stalled, "{reason}");
    }
}

#[test]
fn what_a_selector_chose_and_nobody_said_was_held_is_let_go_all_the_same() {
    let mut target = found(example::instance());
    for (awaits, told) in [(None, "let go"), (Some("it waits"), "this Incident holds nothing of it")] {
        target.resolved.as_mut().unwrap().chosen =
            Some(crate::controllers::incident::selector::Choice { selector: "k".into(), awaits });
        let status = look(&incident(Mode::Release), std::slice::from_ref(&target), &world(vec![]));
        assert!(status.targets[0].message.starts_with(told), "{status:#?}");
    }
}

#[test]
fn a_selector_that_cannot_be_watched_is_not_known_to_be_contained() {
    let unseen = Target { resource: None, resolved: Err(Refusal::new("NotObserved", "instances of prod: no answer")) };
    let status = look(&incident(Mode::Contain), &[found(example::instance()), unseen], &world(vec![contained_instance()]));
    assert_eq!((says(&status, CONTAINED), says(&status, STALLED)), ("Unknown NotObserved".into(), "absent".into()));
}

/// The user was no target any more when it was let go, and the status had no room for its row.
#[test]
fn a_release_is_not_over_while_anything_that_was_let_go_is_not_given_back() {
    let let_go = |reason: &str| {
        let mut user = quarantine(example::user(), vec![], ("False", reason), vec![]);
        user.spec.let_go_by = vec!["1".into()];
        let mut c = Conditions::new(&[], Some(1), now());
        c.set(READY, "False", reason, "somebody changed it");
        user.status.as_mut().unwrap().conditions = c.done();
        user
    };
    let of = |incident: &Incident, quarantines| {
        status(incident, &[found(example::instance())], &Notes::default(), &world(quarantines), now())
    };
    let incident = incident(Mode::Release);
    let conflict = of(&incident, vec![let_go("ReleaseConflict")]);
    assert_eq!(says(&conflict, RELEASED), "False ReleaseConflict");
    assert_eq!(says(&conflict, STALLED), "True ReleaseConflict");
    assert_eq!(says(&of(&incident, vec![let_go("Releasing")]), RELEASED), "False Releasing");

    let mut of_others = let_go("Enforced");
    of_others.spec.holders = vec![example::holder("2", "inc-2", vec![deny_all()])];
    assert_eq!(says(&of(&incident, vec![of_others]), RELEASED), "True Released", "others hold it: that is theirs to tell");
    let mut another = let_go("ReleaseConflict");
    another.spec.let_go_by = vec!["2".into()];
    assert_eq!(says(&of(&incident, vec![another]), RELEASED), "True Released", "another Incident's");

    let mut over = incident.clone();
    over.status = Some(of(&incident, vec![]));
    assert_eq!(says(&of(&over, vec![let_go("Releasing")]), RELEASED), "True Released", "what was said stays said");
}
