use firebreak_crds::conditions::{READY, RELEASED};
use firebreak_crds::{Holder, HolderState, IncidentStatus, Resource};
use serde_json::{from_value, json};

use super::*;
use crate::conditions::Conditions;
use crate::containment::example;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(60 * minute).unwrap()
}

fn ids(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn seen(found: &str) -> Seen {
    Seen { found: ids(found), ended: BTreeSet::new() }
}

fn selector(follow: Option<i32>) -> Ec2SelectorTarget {
    let mut selector = json!({ "accountRef": { "name": "prod" }, "region": "eu-west-1", "tags": { "team": "web" } });
    if let Some(max) = follow {
        selector["follow"] = true.into();
        selector["maxNewPerHour"] = max.into();
    }
    from_value(selector).unwrap()
}

fn incident(mode: Mode, follow: Option<i32>) -> Incident {
    let targets = json!([{ "ec2Selector": selector(follow) }]);
    let spec = json!({ "title": "t", "severity": "High", "policyRef": { "name": "standard" }, "targets": targets });
    let mut incident = Incident::new("inc-1", from_value(spec).unwrap());
    (incident.metadata.namespace, incident.metadata.uid) = (Some("security".into()), Some("1".into()));
    incident.spec.mode = mode;
    incident
}

/// With what was resolved before.
fn with(mut incident: Incident, records: Vec<SelectorStatus>) -> Incident {
    incident.status = Some(IncidentStatus { selectors: records, ..IncidentStatus::default() });
    incident
}

/// An instance that an Incident of the name holds, chosen by the selector.
fn held(uid: &str, id: &str) -> Arc<Quarantine> {
    let holder = Holder { selector: Some(selector(None).key()), ..example::holder(uid, "inc-1", vec![]) };
    Arc::new(example::quarantine(Resource { id: id.into(), ..example::instance() }, vec![holder]))
}

fn known(incident: &Incident, quarantines: &[Arc<Quarantine>]) -> Chosen {
    Chosen::known(incident, quarantines, at(0))
}

/// What is on record after AWS was asked.
fn look(incident: &Incident, quarantines: &[Arc<Quarantine>], found: Seen, now: Timestamp) -> (SelectorStatus, Chosen) {
    let settled = Chosen::known(incident, quarantines, now).settle(vec![Some(Ok(found))], now);
    assert_eq!(settled.all[0].problem, None);
    (settled.records(&HashSet::new())[0].clone(), settled)
}

fn list(record: &SelectorStatus) -> (String, String) {
    (record.instances.join(" "), record.awaiting_approval.join(" "))
}

fn lists(instances: &str, awaiting: &str) -> (String, String) {
    (instances.to_owned(), awaiting.to_owned())
}

fn settled(found: &str, follow: Option<i32>) -> SelectorStatus {
    look(&incident(Mode::Contain, follow), &[], seen(found), at(0)).0
}

#[test]
fn what_matches_when_it_turns_to_contain_is_kept_and_nothing_joins_later() {
    let record = settled("i-1 i-2", None);
    assert_eq!((list(&record), record.resolved_at.0), (lists("i-1 i-2", ""), at(0)));
    let later = with(incident(Mode::Contain, None), vec![record.clone()]);
    let chosen = known(&later, &[]);
    assert!(!chosen.all[0].is_open(), "AWS is not asked again");
    assert_eq!(chosen.records(&HashSet::new()), std::slice::from_ref(&record));
    let (asked_all_the_same, _) = look(&later, &[], seen("i-2 i-3"), at(5));
    assert_eq!(asked_all_the_same, record, "neither does one that matches no more fall out");
}

#[test]
fn one_that_is_held_is_in_the_list_whatever_the_status_says() {
    let mut record = settled("i-1 i-2", None);
    record.instances = vec!["i-2".into()];
    let chosen = known(&with(incident(Mode::Contain, None), vec![record]), &[held("1", "i-1")]);
    assert_eq!(list(&chosen.all[0].record), lists("i-1 i-2", ""));
}

#[test]
fn a_list_that_is_lost_is_made_of_what_is_held_and_all_else_waits_for_approval() {
    for (what, status) in [("no status", None), ("no list", Some(IncidentStatus::default()))] {
        let lost = Incident { status, ..incident(Mode::Contain, None) };
        let chosen = known(&lost, &[held("1", "i-1")]);
        assert_eq!((chosen.all[0].standing, list(&chosen.all[0].record)), (Standing::Lost, lists("i-1", "")), "{what}");
        assert!(chosen.records(&HashSet::new()).is_empty(), "{what}: not settled before AWS was asked");
        assert_eq!(chosen.open(&chosen, &lost).len(), 1, "{what}: it does not look complete meanwhile");
        let (record, _) = look(&lost, &[held("1", "i-1")], seen("i-2 i-3"), at(5));
        assert_eq!((list(&record), record.rebuilt_at.map(|t| t.0)), (lists("i-1", "i-2 i-3"), Some(at(5))), "{what}");
    }
}

#[test]
fn what_waits_since_the_list_was_lost_waits_without_follow_too() {
    let lost = incident(Mode::Contain, None);
    let (record, _) = look(&lost, &[held("1", "i-1")], seen("i-1 i-2"), at(5));
    let again = known(&with(lost, vec![record]), &[held("1", "i-1")]);
    assert_eq!(list(&again.all[0].record), lists("i-1", "i-2"));
    let why: Vec<_> = again.all[0].choices().map(|(id, choice)| (id.as_str(), choice.awaits)).collect();
    assert_eq!(why, [("i-1", None), ("i-2", Some(LOST))]);
}

#[test]
fn an_incident_of_the_same_name_takes_over_what_its_predecessor_chose() {
    let mut left = (*held("0", "i-1")).clone();
    left.spec.holders[0].state = HolderState::Retained;
    let left = [Arc::new(left)];
    let new = incident(Mode::Contain, None);
    assert_eq!(known(&new, &left).all[0].standing, Standing::Open);
    let (record, _) = look(&new, &left, seen("i-2"), at(0));
    assert_eq!(list(&record), lists("i-1 i-2", ""));
}

#[test]
fn a_release_speaks_of_what_is_held_and_of_what_a_predecessor_left_behind() {
    let chosen = known(&incident(Mode::Release, None), &[held("1", "i-1"), held("0", "i-2")]);
    assert_eq!(list(&chosen.records(&HashSet::new())[0]), lists("i-1 i-2", ""), "no status is left to say so");
}

#[test]
fn a_list_counts_until_the_release_is_over_or_a_plan_holds_nothing() {
    let released = |status: &str| {
        let mut c = Conditions::new(&[], None, at(0));
        c.set(RELEASED, status, "R", "");
        c.set(READY, status, "R", "");
        c.done()
    };
    let one = || vec![held("1", "i-1")];
    for (what, mode, conditions, quarantines, counts) in [
        ("under way", Mode::Contain, vec![], vec![], true),
        ("let go, not yet given back", Mode::Contain, released("False"), vec![], true),
        ("contained again after a release", Mode::Contain, released("True"), vec![], false),
        ("the status is of a release, but it holds", Mode::Contain, released("True"), one(), true),
        ("a plan that holds", Mode::Plan, vec![], one(), true),
        ("a plan that holds nothing", Mode::Plan, vec![], vec![], false),
        ("a release", Mode::Release, vec![], vec![], true),
        ("a release that is over", Mode::Release, released("True"), vec![], true),
    ] {
        let mut incident = with(incident(mode, None), vec![settled("i-1 i-2", None)]);
        incident.status.as_mut().unwrap().conditions = conditions;
        let standing = known(&incident, &quarantines).all[0].standing;
        assert_eq!(standing == Standing::Settled, counts, "{what}: {standing:?}");
    }
}

#[test]
fn a_selector_taken_out_of_the_spec_keeps_its_list_while_anything_of_it_is_held() {
    let of = |mode, quarantines: &[Arc<Quarantine>]| {
        let mut incident = with(incident(mode, None), vec![settled("i-1 i-2", None)]);
        incident.spec.targets.clear();
        known(&incident, quarantines).records(&HashSet::new()).len()
    };
    assert_eq!((of(Mode::Contain, &[held("1", "i-1")]), of(Mode::Contain, &[]), of(Mode::Release, &[])), (1, 0, 1));
}

#[test]
fn another_selector_is_another_list() {
    let mut incident = with(incident(Mode::Contain, None), vec![settled("i-1", None)]);
    let other = incident.spec.targets[0].ec2_selector.as_mut().unwrap();
    other.region = "eu-west-2".into();
    let chosen = known(&incident, &[held("1", "i-1")]);
    let standings: Vec<Standing> = chosen.all.iter().map(|s| s.standing).collect();
    assert_eq!(standings, [Standing::Open, Standing::Settled], "the old one is kept");
}

#[test]
fn what_matches_later_joins_as_the_hour_has_room_and_what_is_beyond_waits_for_people() {
    let mut incident = with(incident(Mode::Contain, Some(2)), vec![settled("i-1", Some(2))]);
    let mut sweep = |found: &str, minute, expected: (String, String)| {
        let (record, _) = look(&incident, &[], seen(found), at(minute));
        assert_eq!(list(&record), expected, "minute {minute}");
        incident.status.as_mut().unwrap().selectors = vec![record];
    };
    sweep("i-1 i-2", 1, lists("i-1 i-2", ""));
    sweep("i-1 i-2 i-3", 30, lists("i-1 i-2 i-3", ""));
    sweep("i-1 i-2 i-3 i-4", 60, lists("i-1 i-2 i-3", "i-4"));
    sweep("i-1 i-2 i-3 i-4", 200, lists("i-1 i-2 i-3", "i-4"));
    sweep("i-1 i-2 i-3 i-4 i-5", 201, lists("i-1 i-2 i-3", "i-4"));
}

#[test]
fn the_hour_has_room_again_an_hour_after_each_that_joined() {
    let mut incident = with(incident(Mode::Contain, Some(2)), vec![settled("i-1", Some(2))]);
    for (minute, found, expected) in [
        (1, "i-1 i-2", lists("i-1 i-2", "")),
        (30, "i-1 i-2 i-3", lists("i-1 i-2 i-3", "")),
        (61, "i-1 i-2 i-3 i-4", lists("i-1 i-2 i-3 i-4", "")),
        (62, "i-1 i-2 i-3 i-4 i-5", lists("i-1 i-2 i-3 i-4", "i-5")),
    ] {
        let (record, _) = look(&incident, &[], seen(found), at(minute));
        assert_eq!(list(&record), expected, "minute {minute}");
        incident.status.as_mut().unwrap().selectors = vec![record];
    }
}

#[test]
fn with_no_room_at_all_everything_new_waits() {
    let incident = with(incident(Mode::Contain, Some(0)), vec![settled("i-1", Some(0))]);
    assert_eq!(list(&look(&incident, &[], seen("i-2 i-3"), at(1)).0), lists("i-1", "i-2 i-3"));
}

#[test]
fn what_waits_does_so_until_it_is_approved_has_ended_or_nobody_follows() {
    let waiting = || SelectorStatus { awaiting_approval: vec!["i-2".into(), "i-3".into()], ..settled("i-1", Some(0)) };
    let incident = with(incident(Mode::Contain, Some(0)), vec![waiting()]);
    let (record, chosen) = look(&incident, &[], seen("i-1"), at(1));
    assert_eq!(list(&record), lists("i-1", "i-2 i-3"), "no longer matching is not gone");
    let (record, _) = look(&incident, &[], Seen { ended: ids("i-2"), found: ids("i-1") }, at(1));
    assert_eq!(list(&record), lists("i-1", "i-3"));
    let approved = HashSet::from([(waiting().key, "i-2".to_owned()), ("another".into(), "i-3".into())]);
    assert_eq!(list(&chosen.records(&approved)[0]), lists("i-1 i-2", "i-3"));
    let held_meanwhile = known(&incident, &[held("1", "i-3")]);
    assert_eq!(list(&held_meanwhile.all[0].record), lists("i-1 i-3", "i-2"));
    let mut stays = incident.clone();
    stays.spec.targets = self::incident(Mode::Contain, None).spec.targets;
    assert_eq!(list(&known(&stays, &[]).all[0].record), lists("i-1", ""));
}

#[test]
fn an_answer_of_aws_that_is_none_settles_nothing() {
    let incident = incident(Mode::Contain, None);
    let before = known(&incident, &[]);
    let after = before.clone().settle(vec![Some(Err(Refusal::new("AwsUnreachable", "no answer")))], at(1));
    assert!(after.records(&HashSet::new()).is_empty());
    let rows = after.open(&before, &incident);
    let refusal = rows[0].resolved.as_ref().unwrap_err();
    let expected = "instances in eu-west-1 with the tag team=web: no answer";
    assert_eq!((refusal.reason, refusal.message.as_str()), ("AwsUnreachable", expected));
    assert!(after.settle(vec![None], at(1)).records(&HashSet::new()).is_empty());
}

#[test]
fn more_than_the_status_has_room_for_are_refused_together() {
    let many = |n: usize| Seen { found: (0..n).map(|n| format!("i-{n:017x}")).collect(), ended: BTreeSet::new() };
    let incident = incident(Mode::Contain, Some(5000));
    assert_eq!(look(&incident, &[], many(MAX_SELECTED), at(0)).0.instances.len(), MAX_SELECTED);
    let refused = known(&incident, &[]).settle(vec![Some(Ok(many(MAX_SELECTED + 1)))], at(0));
    assert_eq!(
        (refused.records(&HashSet::new()).len(), refused.all[0].problem.as_ref().unwrap().reason),
        (0, "TooManyMatches")
    );
    let full = with(incident.clone(), vec![look(&incident, &[], many(MAX_SELECTED), at(0)).0]);
    let refused = known(&full, &[]).settle(vec![Some(Ok(many(MAX_SELECTED + 1)))], at(1));
    assert_eq!((refused.all[0].size(), refused.all[0].problem.as_ref().unwrap().reason), (MAX_SELECTED, "TooManyMatches"));
}

#[test]
fn a_selector_says_what_is_open_of_it() {
    let says = |incident: &Incident, before: &Chosen, after: &Chosen| {
        let rows = after.open(before, incident);
        rows.into_iter().map(|t| t.resolved.unwrap_err().reason).collect::<Vec<_>>()
    };
    let of = |mode, found: Option<&str>, suspend| {
        let mut incident = incident(mode, None);
        incident.spec.suspend = suspend;
        let before = known(&incident, &[]);
        let after = before.clone().settle(vec![found.map(|f| Ok(seen(f)))], at(0));
        says(&incident, &before, &after)
    };
    assert_eq!(of(Mode::Contain, None, false), ["Resolving"]);
    assert_eq!(of(Mode::Contain, None, true), ["Suspended"]);
    assert_eq!(of(Mode::Release, None, false), ["Released"]);
    assert_eq!(of(Mode::Contain, Some("i-1"), false), ["Containing"], "nothing is held before it is written");
    assert_eq!(of(Mode::Contain, Some(""), false), ["NothingMatches"]);
    let settled = with(incident(Mode::Contain, None), vec![settled("i-1", None)]);
    let later = known(&settled, &[]);
    assert_eq!(says(&settled, &later, &later), Vec::<&str>::new());
}

#[test]
fn nothing_is_asked_of_aws_where_nothing_new_may_be_held() {
    for (what, mode, suspend, quarantines, asks) in [
        ("contain", Mode::Contain, false, vec![], true),
        ("suspended", Mode::Contain, true, vec![], false),
        ("plan", Mode::Plan, false, vec![], true),
        ("frozen", Mode::Plan, false, vec![held("1", "i-1")], false),
        ("release", Mode::Release, false, vec![], false),
    ] {
        let mut incident = incident(mode, Some(2));
        incident.spec.suspend = suspend;
        assert_eq!(known(&incident, &quarantines).asks(&incident), asks, "{what}");
    }
}

#[test]
fn an_incident_is_concerned_by_what_its_selectors_chose() {
    let incident = with(incident(Mode::Contain, None), vec![settled("i-1", None)]);
    let elsewhere = Resource { region: Some("eu-west-2".into()), ..example::instance() };
    assert!(is_chosen(&incident, &example::instance()) && !is_chosen(&incident, &elsewhere));
    assert!(!is_chosen(&incident, &Resource { id: "i-2".into(), ..example::instance() }));
}

#[test]
fn what_is_held_in_another_way_awaits_nothing_and_the_next_can_join() {
    let mut record = settled("i-1", Some(1));
    record.awaiting_approval = vec!["i-9".into()];
    let incident = with(incident(Mode::Contain, Some(1)), vec![record]);
    let named = example::quarantine(
        Resource { id: "i-9".into(), ..example::instance() },
        vec![example::holder("1", "inc-1", vec![])],
    );
    let (record, _) = look(&incident, &[Arc::new(named)], seen("i-1 i-9 i-10"), at(120));
    assert_eq!(list(&record), lists("i-1 i-10 i-9", ""));
}

#[test]
fn of_two_that_choose_alike_the_one_that_follows_counts() {
    let mut incident = incident(Mode::Contain, None);
    let follows = firebreak_crds::Target { ec2_selector: Some(selector(Some(5))), ..firebreak_crds::Target::default() };
    incident.spec.targets.push(follows);
    let incident = with(incident, vec![settled("i-1", None)]);
    let (record, chosen) = look(&incident, &[], seen("i-1 i-2"), at(120));
    assert_eq!(list(&record), lists("i-1 i-2", ""));
    assert!(chosen.of(&selector(None)).is_some() && chosen.of(&selector(Some(5))).is_some());
}
