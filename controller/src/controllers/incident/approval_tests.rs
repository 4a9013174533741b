use std::sync::Arc;

use firebreak_crds::conditions::READY;
use firebreak_crds::{
    AccountApprovals, ApprovalPolicy, ApprovalSpec, ApprovedIncident, SeverTrackedConnections, get_condition,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::from_value;

use super::super::selector::Choice;
use super::*;
use crate::containment::example::{self, deny_all, isolate, keys_off};
use crate::containment::{Planned, digest};
use crate::controllers::incident::blast_radius::Cause;

/// An Incident that alice asked for.
pub fn incident() -> Incident {
    let spec = json!({
        "title": "t", "severity": "High", "mode": "Contain", "policyRef": { "name": "standard" },
        "requestedBy": "alice", "authors": ["arthur"], "targets": [],
    });
    let mut incident = Incident::new("inc-1", from_value(spec).unwrap());
    (incident.metadata.namespace, incident.metadata.uid) = (Some("security".into()), Some("1".into()));
    incident
}

pub fn target(actions: Vec<ContainAction>, approvals: Option<ApprovalPolicy>) -> Target {
    let account = json!({ "accountId": "111122223333", "regions": ["eu-west-1"] });
    let resolved = Resolved {
        resource: example::user(),
        account: Arc::new(firebreak_crds::AwsAccount::new("prod", from_value(account).unwrap())),
        actions,
        evidence: vec![],
        release: firebreak_crds::ReleasePolicy::default(),
        approvals,
        causes: vec![],
        waiting: vec![],
        ruled_out: false,
        open: false,
        chosen: None,
    };
    Target { resource: Some(example::user()), resolved: Ok(resolved) }
}

fn policy(count: i32, action: &str, group: Option<&str>) -> ApprovalPolicy {
    ApprovalPolicy { count, actions: vec![action.into()], group: group.map(str::to_owned) }
}

/// A target of whose actions the keys need one approval on behalf of the leads.
fn of_the_leads() -> [Target; 1] {
    [target(vec![deny_all(), keys_off()], Some(policy(1, "deactivateAccessKeys", Some("leads"))))]
}

fn approval(by: &str, digest: &str) -> Approval {
    let incident_ref = ApprovedIncident { name: "inc-1".into(), uid: "1".into() };
    let spec =
        ApprovalSpec { incident_ref, plan_digest: digest.into(), approved_by: by.into(), groups: vec!["leads".into()] };
    let mut approval = Approval::new("a", spec);
    approval.metadata.namespace = Some("security".into());
    approval
}

/// As `plan_digest` has it of an Incident with these targets.
fn digest_of(targets: &[Target]) -> String {
    let planned = |t: &Target| match &t.resolved {
        Ok(r) => Some(Planned { resource: r.resource.clone(), actions: r.actions.clone(), evidence: vec![] }),
        Err(_) => t.resource.clone().map(|resource| Planned { resource, actions: vec![], evidence: vec![] }),
    };
    digest(&targets.iter().filter_map(planned).collect::<Vec<_>>(), None)
}

fn ask(incident: &Incident, targets: &[Target], approvals: &[Approval]) -> Asked {
    asked(incident, &digest_of(targets), targets, &vec![vec![]; targets.len()], approvals).unwrap()
}

#[test]
fn an_approval_counts_for_this_plan_of_this_incident_by_another_person_of_the_group() {
    let targets = of_the_leads();
    let good = || approval("bob", &digest_of(&targets));
    let changed = |change: &dyn Fn(&mut Approval)| {
        let mut approval = good();
        change(&mut approval);
        approval
    };
    let later = || example::SINCE.parse::<Timestamp>().map(crate::clock::time).unwrap();
    for (what, given, counts) in [
        ("a second person's", good(), true),
        ("the requester's own", approval("alice", &digest_of(&targets)), false),
        ("an author's", approval("arthur", &digest_of(&targets)), false),
        ("on behalf of another group", changed(&|a| a.spec.groups = vec!["others".into()]), false),
        ("on behalf of nobody", changed(&|a| a.spec.groups.clear()), false),
        ("of more groups than needed", changed(&|a| a.spec.groups.push("others".into())), true),
        ("of an older plan", approval("bob", &"0".repeat(64)), false),
        ("of an earlier Incident of the name", changed(&|a| a.spec.incident_ref.uid = "0".into()), false),
        ("of another name", changed(&|a| a.spec.incident_ref.name = "inc-2".into()), false),
        ("in another namespace", changed(&|a| a.metadata.namespace = Some("elsewhere".into())), false),
        ("withdrawn", changed(&|a| a.metadata.deletion_timestamp = Some(later())), false),
    ] {
        let asked = ask(&incident(), &targets, &[given]);
        assert_eq!((asked.enough(), asked.status.approved_by.len()), (counts, usize::from(counts)), "{what}");
        let waits: &[&str] = if counts { &[] } else { &["deactivateAccessKeys"] };
        assert_eq!(asked.waiting(), waits, "{what}");
    }
}

#[test]
fn a_person_counts_once() {
    let targets = [target(vec![keys_off()], Some(policy(2, "deactivateAccessKeys", None)))];
    let given = |people: &[&str]| people.iter().map(|p| approval(p, &digest_of(&targets))).collect::<Vec<_>>();
    assert!(!ask(&incident(), &targets, &given(&["bob", "bob", "bob"])).enough());
    let both = ask(&incident(), &targets, &given(&["carol", "bob", "bob"]));
    assert!(both.enough());
    assert_eq!(both.status.approved_by, ["bob", "carol"]);
}

#[test]
fn a_service_account_is_a_second_person_only_where_a_group_is_named() {
    let robot = "system:serviceaccount:security:robot";
    for (requested_by, by, group, counts) in [
        ("alice", robot, None, false),
        ("alice", robot, Some("leads"), true),
        ("alice", robot, Some("system:serviceaccounts"), false),
        ("alice", "bob", Some("system:authenticated"), true),
        (robot, "bob", None, false),
        (robot, "bob", Some("leads"), true),
        (robot, "bob", Some("system:authenticated"), false),
        (robot, robot, Some("leads"), false),
    ] {
        let targets = [target(vec![keys_off()], Some(policy(1, "deactivateAccessKeys", group)))];
        let mut incident = incident();
        incident.spec.requested_by = Some(requested_by.into());
        let mut given = approval(by, &digest_of(&targets));
        given.spec.groups.extend(["system:authenticated".into(), "system:serviceaccounts".into()]);
        let asked = ask(&incident, &targets, &[given]);
        assert_eq!(asked.enough(), counts, "{requested_by} {by} {group:?}");
    }
}

#[test]
fn where_a_service_account_asks_and_no_group_is_named_what_to_do_is_said() {
    let mut incident = incident();
    incident.spec.requested_by = Some("system:serviceaccount:flux-system:kustomize-controller".into());
    for group in [None, Some("system:authenticated"), Some("system:serviceaccounts")] {
        let asked = ask(&incident, &[target(vec![keys_off()], Some(policy(1, "deactivateAccessKeys", group)))], &[]);
        let said = said(&incident, &asked);
        assert!(said.contains("approvals.group") && !said.contains("kubectl create"), "{said}");
    }
    let asked = ask(&incident, &of_the_leads(), &[]);
    assert!(self::said(&incident, &asked).contains("kubectl create"), "its members may approve");
}

#[test]
fn without_a_requester_nobody_is_somebody_else() {
    let (targets, mut anonymous) = (of_the_leads(), incident());
    anonymous.spec.requested_by = None;
    let asked = ask(&anonymous, &targets, &[approval("bob", &digest_of(&targets))]);
    assert!(!asked.enough() && asked.status.approved_by.is_empty());
    assert!(said(&anonymous, &asked).contains("set it to your own user name"));
}

#[test]
fn whoever_changes_the_plan_needs_a_new_approval() {
    let plan = of_the_leads();
    let approvals = [approval("bob", &digest_of(&plan))];
    let [first] = of_the_leads();
    let mut second = target(vec![isolate(SeverTrackedConnections::Auto)], None);
    second.resolved.as_mut().unwrap().resource = example::instance();
    let asked = ask(&incident(), &[first, second], &approvals);
    assert_ne!(asked.status.digest, digest_of(&plan));
    assert!(!asked.enough(), "a target more");
}

#[test]
fn nothing_is_asked_where_nothing_needs_it() {
    let not_this = policy(1, "isolateNetwork", None);
    for approvals in [None, Some(not_this)] {
        let targets = [target(vec![deny_all(), keys_off()], approvals)];
        assert_eq!(asked::<Approval>(&incident(), &digest_of(&targets), &targets, &[vec![]], &[]), None);
    }
    let refused = Target { resource: None, resolved: Err(Refusal::new("Protected", "why")) };
    assert_eq!(asked::<Approval>(&incident(), "", &[refused], &[vec![]], &[]), None);
}

#[test]
fn termination_needs_approval_whatever_the_policy_says() {
    let needed = |policy, name| {
        let [Target { resolved: Ok(target), .. }] = [target(vec![], policy)] else { panic!("resolved") };
        !bars(&target, name).is_empty()
    };
    assert!(needed(None, "terminateInstance"));
    assert!(needed(Some(policy(1, "denyAll", None)), "terminateInstance"));
    assert!(needed(Some(policy(1, "denyAll", None)), "denyAll"));
    assert!(!needed(Some(policy(1, "denyAll", None)), "deactivateAccessKeys"));
    assert!(!needed(None, "denyAll"));
}

/// A target of whose actions these wait though the policy does not say so, in an account that asks for so many of a group.
fn unasked(policy: Option<ApprovalPolicy>, count: i32, group: Option<&str>) -> [Target; 1] {
    let mut target = target(vec![deny_all(), keys_off()], policy);
    let resolved = target.resolved.as_mut().unwrap();
    resolved.causes = vec![Cause::of(Some(&["denyAll"]), "it is dear to many")];
    let account = Arc::make_mut(&mut resolved.account);
    account.spec.approvals = AccountApprovals { count, group: group.map(str::to_owned), ..AccountApprovals::default() };
    [target]
}

#[test]
fn what_waits_unasked_must_clear_the_bar_of_the_account_and_that_of_the_policy() {
    let leads = |count| Some(policy(count, "deactivateAccessKeys", Some("leads")));
    let bar = |count, group: &str| Bar { count, group: (!group.is_empty()).then(|| group.to_owned()) };
    for (what, targets, expected) in [
        ("nobody says more", unasked(None, 1, None), vec![bar(1, "")]),
        ("the account says more", unasked(None, 2, Some("owners")), vec![bar(2, "owners")]),
        ("the policy says more", unasked(leads(2), 1, None), vec![bar(2, "leads")]),
        ("the account asks for more of the same", unasked(leads(1), 2, Some("leads")), vec![bar(2, "leads")]),
        ("each has a group", unasked(leads(1), 1, Some("owners")), vec![bar(1, "leads"), bar(1, "owners")]),
        ("one has a group, the other more people", unasked(leads(1), 2, None), vec![bar(1, "leads"), bar(2, "")]),
    ] {
        let [Target { resolved: Ok(target), .. }] = &targets else { panic!("resolved") };
        assert_eq!(bars(target, "denyAll"), expected, "{what}");
        let of_policy: Vec<Bar> = target.approvals.iter().map(|p| bar(p.count, "leads")).collect();
        assert_eq!(
            bars(target, "deactivateAccessKeys"),
            of_policy,
            "{what}: the account has no say in what is the policy's"
        );
    }
}

#[test]
fn each_action_goes_when_its_own_bars_are_cleared() {
    let targets = unasked(Some(policy(1, "deactivateAccessKeys", Some("leads"))), 1, Some("owners"));
    let (incident, digest) = (incident(), digest_of(&targets));
    let by = |name: &str, group: &str| {
        let mut approval = approval(name, &digest);
        approval.spec.groups = vec![group.into()];
        approval
    };
    let (lead, owner) = (by("bob", "leads"), by("olga", "owners"));
    for (what, given, waiting, goes, shown) in [
        ("nobody's", vec![], vec!["deactivateAccessKeys", "denyAll"], false, "leads"),
        ("a lead's", vec![lead.clone()], vec!["denyAll"], true, "owners"),
        ("an owner's", vec![owner.clone()], vec!["deactivateAccessKeys", "denyAll"], false, "leads"),
        ("both", vec![lead, owner], vec![], true, "leads"),
    ] {
        let asked = ask(&incident, &targets, &given);
        assert_eq!((asked.waiting(), asked.goes), (&*waiting, goes), "{what}");
        assert_eq!((asked.status.group.as_deref(), asked.enough()), (Some(shown), waiting.is_empty()), "{what}");
        let mut targets = targets.clone();
        take_out(&mut targets, &[vec![]], Some(&asked));
        let [Target { resolved: Ok(left), .. }] = &targets else { panic!("resolved") };
        assert_eq!(left.actions.len(), 2 - waiting.len(), "{what}");
    }
}

#[test]
fn that_it_was_approved_stays_said_when_nothing_waits_any_more() {
    let targets = unasked(None, 1, Some("leads"));
    let mut incident = incident();
    let before = ask(&incident, &targets, &[]).status;
    let given = [approval("bob", &before.digest)];
    incident.status = Some(firebreak_crds::IncidentStatus { approval: Some(before), ..Default::default() });
    let plain = [target(vec![deny_all(), keys_off()], None)];
    let said = asked(&incident, &digest_of(&plain), &plain, &[vec![]], &given).unwrap();
    assert_eq!(
        (said.enough(), said.goes, said.waiting(), &said.status.approved_by[..]),
        (true, false, &[][..], &["bob".to_owned()][..])
    );
    assert_eq!(
        asked::<Approval>(&incident, &digest_of(&plain), &plain, &[vec![]], &[]),
        None,
        "it goes by itself now: nobody approved it"
    );
    let other = [target(vec![deny_all()], None)];
    assert_eq!(asked(&incident, &digest_of(&other), &other, &[vec![]], &given), None, "another plan");
}

#[test]
fn why_it_waits_is_said_and_a_plan_takes_nothing_out() {
    let mut targets = unasked(None, 1, None);
    let asked = ask(&incident(), &targets, &[]);
    tell(&mut targets, &[vec![]], Some(&asked));
    let [Target { resolved: Ok(told), .. }] = &targets else { panic!("resolved") };
    let message = "denyAll waits for approval, since it is dear to many: the condition Approved says how to give it";
    assert_eq!((told.actions.len(), told.waiting[0].message.as_str()), (2, message));
}

#[test]
fn what_is_held_stays_as_it_is_held_and_the_rest_waits() {
    use SeverTrackedConnections::{Always, Auto, Never};
    let isolation = |n: &str| n == "isolateNetwork";
    for (what, actions, held, now, waiting) in [
        ("new", vec![isolate(Auto), deny_all()], vec![], vec![deny_all()], vec!["isolateNetwork"]),
        ("held", vec![isolate(Auto)], vec![isolate(Auto)], vec![isolate(Auto)], vec![]),
        ("held in a stricter form", vec![isolate(Never)], vec![isolate(Always)], vec![isolate(Never)], vec![]),
        ("to be stricter", vec![isolate(Always)], vec![isolate(Auto)], vec![isolate(Auto)], vec!["isolateNetwork"]),
        ("another's", vec![keys_off()], vec![deny_all()], vec![keys_off()], vec![]),
    ] {
        assert_eq!(hold_back(&actions, &held, isolation), (now, waiting), "{what}");
    }
}

#[test]
fn only_what_needs_approval_is_taken_out_until_it_is_given() {
    let mut targets = of_the_leads();
    let digest = digest_of(&targets);
    let missing = ask(&incident(), &targets, &[]);
    take_out(&mut targets, &[vec![]], Some(&missing));
    let [Target { resolved: Ok(waits), .. }] = &targets else { panic!("resolved") };
    assert_eq!((&waits.actions, waits.waiting[0].reason), (&vec![deny_all()], AWAITING));
    assert!(waits.open, "nobody may read that it is contained");

    let mut targets = of_the_leads();
    let given = ask(&incident(), &targets, &[approval("bob", &digest)]);
    take_out(&mut targets, &[vec![]], Some(&given));
    let [Target { resolved: Ok(goes), .. }] = &targets else { panic!("resolved") };
    assert_eq!((&goes.actions, goes.waiting.len()), (&vec![deny_all(), keys_off()], 0));
    assert!(!goes.open);
}

#[test]
fn what_only_destroys_or_grows_stricter_leaves_nothing_open_meanwhile() {
    use SeverTrackedConnections::{Always, Auto};
    let terminate: ContainAction = from_value(json!({ "terminateInstance": {} })).unwrap();
    let isolation = || Some(policy(1, "isolateNetwork", None));
    for (what, asks, held, open) in [
        ("an isolation that is not held", vec![isolate(Auto)], vec![], true),
        ("one that is to be stricter", vec![isolate(Always)], vec![isolate(Auto)], false),
        ("a termination", vec![isolate(Auto), terminate], vec![isolate(Auto)], false),
    ] {
        let mut targets = [target(asks, isolation())];
        let held = [held];
        let asked = asked::<Approval>(&incident(), &digest_of(&targets), &targets, &held, &[]);
        take_out(&mut targets, &held, asked.as_ref());
        let [Target { resolved: Ok(waits), .. }] = &targets else { panic!("resolved") };
        assert_eq!((waits.waiting.len(), waits.open), (1, open), "{what}");
    }
}

#[test]
fn a_deleted_approval_takes_nothing_away() {
    let mut targets = of_the_leads();
    let held = [vec![keys_off(), deny_all()]];
    let asked = asked::<Approval>(&incident(), &digest_of(&targets), &targets, &held, &[]).unwrap();
    assert!(!asked.enough() && asked.waiting().is_empty());
    take_out(&mut targets, &held, Some(&asked));
    let [Target { resolved: Ok(stays), .. }] = &targets else { panic!("resolved") };
    assert_eq!((&stays.actions, stays.waiting.len()), (&vec![deny_all(), keys_off()], 0));
    assert!(said(&incident(), &asked).contains("takes nothing away"));
}

/// The message of the condition, which is True exactly where nothing waits.
fn said(incident: &Incident, asked: &Asked) -> String {
    let mut c = Conditions::new(&[], None, example::SINCE.parse().unwrap());
    condition(&mut c, incident, Some(asked));
    let list = c.done();
    assert!(get_condition(&list, READY).is_none());
    let approved = get_condition(&list, APPROVED).unwrap();
    assert_eq!(approved.status == "True", asked.waiting().is_empty());
    approved.message.clone()
}

#[test]
fn the_condition_has_the_command_that_approves() {
    let mut incident = incident();
    incident.spec.requested_by = Some("o'alice".into());
    let [mut target] = of_the_leads();
    target.resolved.as_mut().unwrap().approvals = Some(policy(2, "deactivateAccessKeys", Some("the 'leads'")));
    let asked = ask(&incident, &[target], &[]);
    let message = said(&incident, &asked);
    assert!(message.starts_with("deactivateAccessKeys waits for approval: 0 of 2 given"), "{message}");
    let (_, json) = message.split_once("kubectl create -n security -f - <<< '").unwrap();
    let approval: Approval = serde_json::from_str(json.strip_suffix('\'').unwrap()).unwrap();
    assert!(!json[..json.len() - 1].contains('\''), "the shell would end the text there: {json}");
    assert_eq!(approval.spec.plan_digest, asked.status.digest);
    assert_eq!((approval.spec.incident_ref.uid.as_str(), approval.spec.groups), ("1", vec!["the 'leads'".to_owned()]));
}

#[test]
fn a_plan_says_what_will_wait() {
    let asked = ask(&incident(), &of_the_leads(), &[]);
    assert_eq!(note(Some(&asked)), ", of which deactivateAccessKeys waits for approval (condition Approved)");
    assert_eq!(note(None), "");
}

/// An instance that a selector chose, but may not take by itself.
fn beyond(id: &str) -> Target {
    let mut target = target(vec![isolate(SeverTrackedConnections::Auto)], None);
    let resolved = target.resolved.as_mut().unwrap();
    resolved.resource = firebreak_crds::Resource { id: id.into(), ..example::instance() };
    resolved.evidence = vec![firebreak_crds::EvidenceAction::default()];
    resolved.chosen = Some(Choice { selector: "k".into(), awaits: Some("it is beyond the limit") });
    target
}

#[test]
fn all_that_is_to_be_done_to_an_instance_beyond_the_limit_waits_and_its_evidence_too() {
    let mut targets = [beyond("i-2"), target(vec![deny_all()], None)];
    let held = vec![vec![]; 2];
    let asked = asked(&incident(), &digest_of(&targets), &targets, &held, &[] as &[Approval]).unwrap();
    assert_eq!((asked.instances, asked.new.as_slice(), asked.status.required), (1, ["isolateNetwork"].as_slice(), 1));
    assert!(how(&incident(), &asked).starts_with("isolateNetwork, all of it for 1 instances that a selector may not take"));
    assert!(given(&targets, Some(&asked)).is_empty());
    take_out(&mut targets, &held, Some(&asked));
    let [waits, goes] = targets.map(|t| t.resolved.unwrap());
    assert_eq!((waits.actions.len(), waits.evidence.len(), waits.waiting[0].reason), (0, 0, AWAITING));
    assert!(waits.waiting[0].message.contains("waits for approval: it is beyond the limit"), "{:?}", waits.waiting);
    assert_eq!((goes.actions.len(), goes.waiting.len()), (1, 0), "all else goes at once");
}

#[test]
fn an_approval_of_the_plan_lets_the_instances_in_it_go_and_no_other() {
    let refused = Target { resolved: Err(Refusal::new("LimitReached", "full")), ..beyond("i-3") };
    let mut targets = [beyond("i-2"), refused];
    let approvals = [approval("bob", &digest_of(&targets))];
    let asked = ask(&incident(), &targets, &approvals);
    assert!(asked.enough());
    let expected = HashSet::from([("k".to_owned(), "i-2".to_owned())]);
    assert_eq!(given(&targets, Some(&asked)), expected, "what is refused goes nowhere");
    take_out(&mut targets, &[vec![], vec![]], Some(&asked));
    let goes = targets[0].resolved.as_ref().unwrap();
    assert_eq!((goes.actions.len(), goes.evidence.len(), goes.waiting.len()), (1, 1, 0));
    let more = [beyond("i-2"), beyond("i-4")];
    assert!(!ask(&incident(), &more, &approvals).enough(), "one more is another plan");
}
