use serde_json::json;

use super::*;
use crate::containment::example;

fn spec() -> QuarantineSpec {
    example::quarantine(example::instance(), vec![]).spec
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record(key: &str, value: Value) -> Change {
    Change { record: BTreeMap::from([(key.to_owned(), value)]), ..Change::default() }
}

fn window(interface: &str, state: ConversionState) -> Change {
    Change { conversions: BTreeMap::from([(interface.to_owned(), state)]), ..Change::default() }
}

#[test]
fn the_first_recorded_value_stays() {
    let mut spec = spec();
    apply(&mut spec, &record("a", json!({ "groups": ["sg-1"] })), at(1));
    apply(&mut spec, &record("a", json!({ "groups": ["sg-2"] })), at(2));
    apply(&mut spec, &record("b", json!(1)), at(2));
    let original = spec.original.unwrap();
    assert_eq!(original["a"].0, r#"{"groups":["sg-1"]}"#);
    assert_eq!(original["b"].0, "1");
}

#[test]
fn an_interface_has_one_window_at_most() {
    let mut spec = spec();
    apply(&mut spec, &window("eni-1", ConversionState::Open), at(1));
    apply(&mut spec, &window("eni-2", ConversionState::Skipped), at(1));
    apply(&mut spec, &window("eni-1", ConversionState::Closed), at(2));
    let closed = spec.conversions.iter().find(|c| c.interface_id == "eni-1").unwrap();
    assert_eq!((spec.conversions.len(), closed.state, closed.since.0), (2, ConversionState::Closed, at(2)));
}

#[test]
fn nothing_to_store_changes_nothing() {
    let mut changed = spec();
    apply(&mut changed, &Change::default(), at(1));
    assert_eq!(changed, spec());
}

#[test]
fn what_an_older_crd_drops_is_noticed() {
    let mut sent = spec();
    apply(&mut sent, &record("a", json!(1)), at(1));
    apply(&mut sent, &window("eni-1", ConversionState::Open), at(1));
    let without_original = QuarantineSpec { original: None, ..sent.clone() };
    let without_windows = QuarantineSpec { conversions: vec![], ..sent.clone() };
    assert_eq!(verify(&sent, &sent), Ok(()));
    assert_eq!(verify(&sent, &without_original), Err(LedgerError::Pruned("spec.original".into())));
    assert_eq!(verify(&sent, &without_windows), Err(LedgerError::Pruned("spec.conversions".into())));
}

#[test]
fn what_is_too_long_for_a_record_is_refused_before_it_spoils_the_others() {
    let text = |length| BTreeMap::from([("a".to_owned(), Value::String("x".repeat(length)))]);
    assert_eq!(fits(&text(TEXT - 2)), Ok(()));
    assert_eq!(fits(&text(TEXT - 1)), Err(LedgerError::TooLong("a".into())));
}
