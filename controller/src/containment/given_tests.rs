use firebreak_crds::{OnConflict, ReleaseDecision, Text};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::containment::case::Case;
use crate::containment::example;

fn quarantine(recorded: &[(&str, Value)], given: &[(&str, &str)]) -> Quarantine {
    let mut quarantine = example::quarantine(example::user(), vec![]);
    quarantine.spec.original = Some(recorded.iter().map(|(k, v)| ((*k).to_owned(), Text(v.to_string()))).collect());
    let original = Some(given.iter().map(|(k, v)| ((*k).to_owned(), Text((*v).to_owned()))).collect());
    quarantine.spec.release = Some(ReleaseDecision { on_conflict: None, original });
    quarantine
}

fn case(quarantine: &Quarantine) -> Case {
    Case::of(quarantine, "aws", Timestamp::UNIX_EPOCH)
}

#[test]
fn what_a_person_gives_makes_an_unknown_original_known() {
    let unknown = [("denyAll/unknown", json!("2026-03-01T12:00:00Z"))];
    let given = [("denyAll", r#"{ "userId": "AIDA1", "awsDenyAllAttached": false }"#)];
    assert!(case(&quarantine(&unknown, &[])).is_unknown("denyAll"));
    let case = case(&quarantine(&unknown, &given));
    assert!(!case.is_unknown("denyAll") && case.is_noted_unknown("denyAll"));
    assert_eq!(case.recorded::<Value>("denyAll").unwrap()["userId"], "AIDA1");
    assert_eq!(case.decision, None::<OnConflict>);
}

#[test]
fn what_is_on_record_wins() {
    let recorded = [("deactivateAccessKeys/AKIA1", json!({ "active": false }))];
    let case = case(&quarantine(&recorded, &[("deactivateAccessKeys/AKIA1", r#"{"active":true}"#)]));
    assert_eq!(case.recorded::<Value>("deactivateAccessKeys/AKIA1").unwrap()["active"], false);
}

#[test]
fn what_cannot_be_read_counts_for_nothing_and_names_its_field() {
    for (key, text, why) in [
        ("denyAll", "{", "EOF"),
        ("denyAll", "{}", "userId"),
        ("denyAll/boundary", "[]", "invalid"),
        ("denyAll/unknown", r#""2026-03-01T12:00:00Z""#, "under this key"),
        ("denyAll/residual-1", "{}", "under this key"),
        ("isolateNetwork/eni-1", r#"{"groups":"sg-1"}"#, "expected a sequence"),
        ("isolateNetwork", r#"{"groups":["sg-1"]}"#, "under this key"),
        ("protectFromTermination/vol-1", r#"{"protected":"no"}"#, "boolean"),
        ("removePublicAddresses/eni-1/assigned", "1", "boolean"),
        ("deactivateSshKeys/APKA1", "active", "expected value"),
        ("sealTrustPolicy", "{}", "roleId"),
        ("revokeSessions/cutoff-1", "{}", "under this key"),
        ("terminateInstance", r#"{"state":"running"}"#, "under this key"),
        ("isolateNetworks/eni-1", "{}", "no action of this name"),
        ("tagResource", "{}", "no action of this name"),
        ("", "{}", "no action of this name"),
    ] {
        let quarantine = quarantine(&[("denyAll/unknown", json!(0))], &[(key, text)]);
        let [problem] = problems(&quarantine).try_into().unwrap_or_else(|p| panic!("{key} {text}: {p:?}"));
        assert!(problem.starts_with(&format!("spec.release.original[{key:?}]: ")) && problem.contains(why), "{problem}");
        assert!(originals(&quarantine).is_empty() && case(&quarantine).is_unknown("denyAll"), "{key}");
    }
}

#[test]
fn one_typo_holds_all_of_it_back() {
    let given = [("deactivateAccessKeys/AKIA1", r#"{"active":true}"#), ("denyAll", "{")];
    let case = case(&quarantine(&[("deactivateAccessKeys/unknown", json!(0))], &given));
    assert!(case.is_unknown("deactivateAccessKeys") && case.recorded::<Value>("deactivateAccessKeys/AKIA1").is_none());
}

#[test]
fn every_form_that_an_action_records_can_be_given() {
    let given = [
        ("isolateNetwork/eni-1", r#"{"groups":["sg-1","sg-2"]}"#),
        ("protectFromTermination/disableApiStop", r#"{"protected":false}"#),
        ("protectFromTermination/vol-1", r#"{"protected":false}"#),
        ("disableInstanceMetadata", r#"{"enabled":true,"httpTokens":"required","httpPutResponseHopLimit":1}"#),
        ("removePublicAddresses/eni-1", r#"{"elastic":[],"assigned":true,"hidden":false}"#),
        ("removePublicAddresses/eni-1/assigned", "true"),
        ("detachFromAutoScaling", r#"{"group":"web","state":"InService","protected":false}"#),
        ("deregisterFromLoadBalancers", "{}"),
        ("deregisterFromLoadBalancers/classic/old", r#"{"targets":[]}"#),
        ("deregisterFromLoadBalancers/arn:aws:elasticloadbalancing:x", r#"{"targets":[{"id":"i-1","port":80}]}"#),
        ("stopInstance", r#"{"state":"running"}"#),
        ("stopInstance/disableApiStop", r#"{"protected":true}"#),
        ("denyAll", r#"{"userId":"AIDA1","awsDenyAllAttached":false}"#),
        ("denyAll/boundary", r#"{"arn":null}"#),
        ("deactivateAccessKeys", "{}"),
        ("deactivateAccessKeys/AKIA1", r#"{"active":true}"#),
        ("removeConsoleAccess", r#"{"loginProfileCreated":null}"#),
        ("sealTrustPolicy", r#"{"roleId":"AROA1","trust":"{}","trusted":{}}"#),
    ];
    let quarantine = quarantine(&[], &given);
    assert_eq!(problems(&quarantine), Vec::<String>::new());
    assert_eq!(originals(&quarantine).len(), given.len());
}
