use firebreak_crds::{ContainAction, Text};
use serde_json::json;

use super::*;
use crate::containment::example;

fn copy(entries: &[(&str, Value)]) -> SecondCopy {
    SecondCopy {
        since: example::SINCE.parse().unwrap(),
        incidents: [("old-uid".to_owned(), "security/inc-1".to_owned())].into(),
        original: entries.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    }
}

fn whole() -> SecondCopy {
    copy(&[
        ("tagResource", json!({ "tags": {} })),
        ("denyAll", json!({ "userId": "AIDA1", "awsDenyAllAttached": false })),
        ("deactivateAccessKeys/AKIA1", json!({ "active": true })),
    ])
}

/// A day later, in another cluster.
fn quarantine(recorded: &[&str], actions: Vec<ContainAction>) -> Quarantine {
    let entries: Vec<_> = recorded.iter().map(|key| (*key, json!({}))).collect();
    noted(&entries, actions)
}

fn noted(recorded: &[(&str, Value)], actions: Vec<ContainAction>) -> Quarantine {
    let mut quarantine = example::quarantine(example::user(), vec![example::holder("new-uid", "inc-1", actions)]);
    let entry = |(key, value): &(&str, Value)| ((*key).to_owned(), Text(value.to_string()));
    quarantine.spec.original = (!recorded.is_empty()).then(|| recorded.iter().map(entry).collect());
    quarantine.metadata.creation_timestamp = Some(crate::clock::time("2026-03-02T12:00:00Z".parse().unwrap()));
    quarantine
}

fn case(quarantine: &Quarantine) -> Case {
    Case::of(quarantine, "aws", "2026-03-02T12:00:01Z".parse().unwrap())
}

fn stored(quarantine: &Quarantine, copy: &SecondCopy) -> Quarantine {
    let mut next = quarantine.clone();
    let record = record(&case(quarantine), copy).into_iter().map(|(k, v)| (k, Text(v.to_string())));
    next.spec.original.get_or_insert_default().extend(record);
    next
}

#[test]
fn a_record_is_what_the_copy_says_and_the_containment_is_as_old() {
    let new = quarantine(&[], vec![example::deny_all(), example::keys_off()]);
    let adopted = case(&stored(&new, &whole()));
    assert_eq!(adopted.since, whole().since);
    for (key, value) in &whole().original {
        assert_eq!(adopted.recorded::<Value>(key).as_ref(), Some(value));
    }
    assert_eq!(SecondCopy::of(&adopted).original, whole().original, "the next copy is the same record");
    let said = adopted.adopted.unwrap().to_string();
    assert!(said.contains("adopted from its tags") && said.contains("security/inc-1"), "{said}");
}

#[test]
fn what_is_asked_for_and_not_in_the_copy_is_unknown() {
    let new = quarantine(&[], vec![example::deny_all(), example::keys_off()]);
    let older = copy(&[("tagResource", json!({})), ("denyAll", json!({}))]);
    let case = case(&stored(&new, &older));
    assert!(case.is_unknown("deactivateAccessKeys") && !case.is_unknown("denyAll"));
}

#[test]
fn what_was_noted_as_unknown_is_known_once_a_copy_is_believed() {
    let notes = [MET, "denyAll/unknown", "deactivateAccessKeys/unknown"];
    let new = quarantine(&notes, vec![example::deny_all(), example::keys_off()]);
    assert_eq!(objection(&case(&new), &whole()), None, "the key may have come later");
    let case = case(&stored(&new, &whole()));
    assert!(case.is_noted_unknown("denyAll") && !case.is_unknown("denyAll") && !case.is_unknown("deactivateAccessKeys"));
}

#[test]
fn a_right_mac_is_not_enough() {
    let objected = |quarantine: &Quarantine, copy: &SecondCopy| objection(&case(quarantine), copy).unwrap_or_default();
    let new = quarantine(&[], vec![]);
    assert_eq!(objected(&new, &whole()), "");
    let late = quarantine(&["deactivateAccessKeys/AKIA1"], vec![]);
    assert!(objected(&late, &whole()).contains("too late"));
    let of_another = SecondCopy { incidents: [("u".to_owned(), "security/inc-0".to_owned())].into(), ..whole() };
    assert!(objected(&new, &of_another).contains("security/inc-0"));
    let let_go = Quarantine { spec: firebreak_crds::QuarantineSpec { holders: vec![], ..new.spec.clone() }, ..new.clone() };
    assert!(objected(&let_go, &whole()).contains("security/inc-1"));
    assert!(!objected(&new, &copy(&[("denyAll", json!({}))])).is_empty());
}

#[test]
fn a_copy_comes_too_late_only_where_this_record_says_what_was_there() {
    let met = (MET, json!("2026-03-02T12:00:01Z"));
    let late = |entries: &[(&str, Value)]| {
        let entries: Vec<_> = entries.iter().cloned().chain([met.clone()]).collect();
        comes_late(&case(&noted(&entries, vec![])), &whole())
    };
    let cutoff = json!({ "deny": {}, "round": "2026-03-02T12:00:01Z", "holders": [] });
    assert!(!late(&[("revokeSessions/cutoff-1", cutoff), ("denyAll/boundary-found", json!({ "arn": "arn:x" }))]));
    assert!(!late(&[("revokeInstanceRole/iip-assoc-1", json!({ "profile": "arn:x" })), ("denyAll/unknown", json!("now"))]));
    assert!(!late(&[("deactivateAccessKeys/AKIA1", json!({ "active": true }))]), "the same");
    for (key, value) in [
        ("deactivateAccessKeys/AKIA1", json!({ "active": false })),
        ("deactivateAccessKeys/AKIA2", json!({ "active": true })),
        ("sealTrustPolicy", json!({ "roleId": "AROA1", "trust": "{}", "trusted": {} })),
    ] {
        assert!(late(&[(key, value)]), "{key}");
    }
}

#[test]
fn what_was_not_contained_when_it_was_met_is_no_matter_of_a_copy_that_comes_later() {
    let touched = quarantine(&["denyAll/unknown"], vec![]);
    assert!(objection(&case(&touched), &whole()).unwrap().contains("too late"), "it may be of an earlier containment");
    assert_eq!(objection(&case(&quarantine(&["denyAll/unknown", MET], vec![])), &whole()), None);
}

#[test]
fn only_marks_that_the_record_knows_nothing_of_are_looked_into() {
    let marked = BTreeMap::from([(INCIDENT.to_owned(), "security/inc-1".to_owned())]);
    let copied = BTreeMap::from([("firebreak.dev/original-0".to_owned(), "AAAA".to_owned())]);
    let new = quarantine(&[], vec![]);
    assert!(is_met_contained(&new, &marked) && is_met_contained(&new, &copied));
    assert!(!is_met_contained(&new, &BTreeMap::from([("Name".to_owned(), "web".to_owned())])));
    assert!(!is_met_contained(&quarantine(&["tagResource"], vec![]), &marked));
    assert!(!is_met_contained(&stored(&new, &whole()), &marked));
}
