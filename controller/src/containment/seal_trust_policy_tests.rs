use super::*;
use crate::containment::example;

const OPEN: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/ci/deployer"},"Action":"sts:AssumeRole"}]}"#;
const THEIRS: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
const DEPLOYER: &str = "arn:aws:iam::111122223333:role/ci/deployer";

fn case() -> Case {
    example::case(example::role())
}

fn recorded(trust: &str) -> Case {
    let trusted = BTreeMap::from([(DEPLOYER.to_owned(), "AROA1".to_owned())]);
    example::recorded(case(), "sealTrustPolicy", &Original { role_id: "AROA0".into(), trust: trust.into(), trusted })
}

fn look(trust: &str, deployer: Option<&str>) -> Look {
    let role = Identity { id: "AROA0".into(), trust: Some(trust.into()), ..Identity::default() };
    let trusted = deployer.map(|id| (DEPLOYER.to_owned(), id.to_owned())).into_iter().collect();
    Look { role: Some(role), trusted }
}

#[test]
fn the_text_and_who_it_names_are_recorded_before_it_is_replaced() {
    let plan = Seal::contain(&case(), &Empty {}, &look(OPEN, Some("AROA1")));
    let original: Original = serde_json::from_value(plan.record["sealTrustPolicy"].clone()).unwrap();
    assert_eq!((original.trust.as_str(), original.trusted[DEPLOYER].as_str()), (OPEN, "AROA1"));
    assert_eq!(plan.calls, [update(&case(), SEALED_TRUST)]);
    assert!(!plan.calls[0].widens() && update(&case(), OPEN).widens());
    assert_eq!(named(&case(), DEPLOYER), Some(Principal::Role("deployer".into())));
    assert_eq!(named(&case(), "arn:aws:iam::999999999999:role/x"), None, "another account cannot be looked into");
}

#[test]
fn a_role_that_is_sealed_already_is_unknown_and_stays_so() {
    let plan = Seal::contain(&case(), &Empty {}, &look(SEALED_TRUST, None));
    assert!(plan.verdict.unknown && plan.calls.is_empty());
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["sealTrustPolicy/unknown"]);
    let noted = example::recorded(case(), "sealTrustPolicy/unknown", &case().now);
    let again = Seal::contain(&noted, &Empty {}, &look(THEIRS, None));
    assert!(again.record.is_empty() && again.calls.len() == 1, "what somebody put there since is no original");
    assert_eq!(Seal::release(&noted, &look(SEALED_TRUST, None)).verdict.state, ActionState::Conflict);
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..noted };
    assert_eq!(Seal::release(&kept, &look(SEALED_TRUST, None)).verdict.state, ActionState::Released);
}

#[test]
fn a_trust_policy_that_is_found_with_marks_of_before_is_no_original() {
    let mut marked = look(THEIRS, None);
    marked.role.as_mut().unwrap().tags = BTreeMap::from([("firebreak.dev/incident".into(), "security/old".into())]);
    let plan = Seal::contain(&case(), &Empty {}, &marked);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["sealTrustPolicy/unknown"]);
    assert_eq!(plan.calls, [update(&case(), SEALED_TRUST)]);
    let noted = example::recorded(case(), "sealTrustPolicy/unknown", &case().now);
    assert_eq!(
        Seal::release(&noted, &look(THEIRS, None)).verdict.state,
        ActionState::Conflict,
        "nobody said that it is right"
    );
    let ours = example::recorded(case(), "tagResource", &Empty {});
    assert!(
        Seal::contain(&ours, &Empty {}, &marked).record.contains_key("sealTrustPolicy"),
        "the mark is this record's own"
    );
}

#[test]
fn a_release_is_three_way() {
    use ActionState::{Conflict, InProgress, Released};
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let gone =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"AROA9"},"Action":"sts:AssumeRole"}]}"#;
    for (what, was, is, deployer, decision, calls, state) in [
        ("ours", OPEN, SEALED_TRUST, Some("AROA1"), None, 1, InProgress),
        ("as it was", OPEN, OPEN, Some("AROA1"), None, 0, Released),
        ("theirs", OPEN, THEIRS, Some("AROA1"), None, 0, Conflict),
        ("theirs, kept", OPEN, THEIRS, Some("AROA1"), Some(KeepTheirs), 0, Released),
        ("theirs, overruled", OPEN, THEIRS, Some("AROA1"), Some(RestoreOriginal), 1, InProgress),
        ("made again", OPEN, SEALED_TRUST, Some("AROA2"), None, 0, Conflict),
        ("gone", OPEN, SEALED_TRUST, None, None, 0, Conflict),
        ("made again, wanted", OPEN, SEALED_TRUST, Some("AROA2"), Some(RestoreOriginal), 1, InProgress),
        ("gone before", gone, SEALED_TRUST, Some("AROA1"), None, 0, Conflict),
        ("no conflict to decide", OPEN, SEALED_TRUST, Some("AROA1"), Some(KeepTheirs), 1, InProgress),
    ] {
        let plan = Seal::release(&Case { decision, ..recorded(was) }, &look(is, deployer));
        assert_eq!((plan.calls.len(), plan.verdict.state), (calls, state), "{what}");
        let shown = |text: &str| plan.verdict.message.contains(text);
        assert!(state != Conflict || (shown(was) && (is == SEALED_TRUST || shown(is))), "{what}: {}", plan.verdict.message);
    }
    let mut again = look(SEALED_TRUST, Some("AROA1"));
    again.role.as_mut().unwrap().id = "AROA7".into();
    assert!(Seal::release(&recorded(OPEN), &again).verdict.message.contains("AROA0 is now AROA7"));
}
