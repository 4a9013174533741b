use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::containment::example;
use crate::containment::tag_resource::{INCIDENT, SINCE};

type Tags = BTreeMap<String, String>;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NEXT: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
const UNIQUE: &str = "AIDA1";

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

/// A record that takes several tags.
fn copy() -> SecondCopy {
    let keys = (0..20).map(|n| (format!("deactivateAccessKeys/AKIA{n:016}"), json!({ "active": n % 2 == 0 })));
    SecondCopy {
        since: example::SINCE.parse().unwrap(),
        incidents: [("u-1".to_owned(), "security/inc-1".to_owned())].into(),
        original: keys.collect(),
    }
}

fn tags() -> Tags {
    copy().tags(&example::user(), UNIQUE, &keys(KEY)).unwrap()
}

fn read(tags: &Tags) -> Result<SecondCopy, Disbelief> {
    SecondCopy::from_tags(tags, &example::user(), UNIQUE, &keys(KEY))
}

#[test]
fn what_is_read_is_what_was_written_and_fits_into_tags_of_aws() {
    let tags = tags();
    assert_eq!(read(&tags), Ok(copy()));
    assert!(tags.len() > 3 && tags.values().all(|v| v.len() <= 256), "{tags:?}");
    let of_iam = |c: char| c.is_ascii_alphanumeric() || "_.:/=+-@".contains(c);
    assert!(tags.iter().all(|(k, v)| k.chars().all(of_iam) && v.chars().all(of_iam)), "{tags:?}");
}

#[test]
fn any_character_of_any_tag_that_is_another_is_noticed() {
    for (key, value) in tags() {
        for at in 0..value.len() {
            for other in "Az9_=\u{e9}".chars().filter(|c| !value[at..].starts_with(*c)) {
                let mut changed = tags();
                let next = changed.get_mut(&key).unwrap();
                next.replace_range(at..=at, &other.to_string());
                assert_eq!(read(&changed), Err(Disbelief::Forged), "{key} at {at}: {other}");
            }
        }
    }
}

#[test]
fn a_part_is_no_copy_and_neither_is_more_than_one() {
    let all = tags();
    for key in all.keys() {
        let mut less = all.clone();
        less.remove(key);
        assert!(matches!(read(&less), Err(Disbelief::NotWhole | Disbelief::Forged)), "without {key}");
        let mut renamed = less.clone();
        renamed.insert(format!("{PREFIX}0{}", key.trim_start_matches(PREFIX)), all[key].clone());
        assert_eq!(read(&renamed), Err(Disbelief::NotWhole), "{key} by another name");
    }
    for (name, value) in [(all.len().to_string(), "AAAA"), ("x".into(), ""), ("99".into(), "AAAA"), (String::new(), "")] {
        let mut more = all.clone();
        more.insert(format!("{PREFIX}{name}"), value.into());
        assert!(read(&more).is_err(), "with {name}");
    }
    let swapped: Tags = all.keys().cloned().zip(all.values().rev().cloned()).collect();
    assert_eq!(read(&swapped), Err(Disbelief::Forged));
    let mut short = all.clone();
    let (last, value) = short.pop_last().unwrap();
    short.insert(last, value[..value.len() - 1].to_owned());
    assert_eq!(read(&short), Err(Disbelief::Forged));
    assert_eq!(read(&[(format!("{PREFIX}0"), "AAAA".to_owned())].into()), Err(Disbelief::NotWhole));
    assert_eq!(read(&[(INCIDENT.to_owned(), "security/inc-1".to_owned())].into()), Err(Disbelief::Absent));
}

#[test]
fn a_copy_of_something_else_is_none() {
    let tags = tags();
    let other_account = Resource { account_id: "999988887777".into(), ..example::user() };
    let other_user = Resource { id: "eve".into(), ..example::user() };
    let other_kind = Resource { id: "mallory".into(), ..example::role() };
    for (what, resource, unique) in [
        ("another account", other_account, UNIQUE),
        ("another user", other_user, UNIQUE),
        ("a role of that name", other_kind, UNIQUE),
        ("one made again under that name", example::user(), "AIDA2"),
    ] {
        let read = SecondCopy::from_tags(&tags, &resource, unique, &keys(KEY));
        assert_eq!(read, Err(Disbelief::Forged), "{what}");
    }
}

#[test]
fn the_first_key_signs_and_all_verify() {
    let both = keys(&format!("# the new one first\n{NEXT}\n\n{KEY}\n"));
    let by = |tags: &Tags, keys: &Keys| SecondCopy::from_tags(tags, &example::user(), UNIQUE, keys);
    let new = copy().tags(&example::user(), UNIQUE, &both).unwrap();
    assert_eq!((by(&tags(), &both), by(&new, &both)), (Ok(copy()), Ok(copy())));
    assert_eq!(by(&new, &keys(NEXT)), Ok(copy()));
    assert_eq!((by(&new, &keys(KEY)), by(&tags(), &keys(NEXT))), (Err(Disbelief::Forged), Err(Disbelief::Forged)));
    assert_ne!(copy().digest(&both), copy().digest(&keys(KEY)), "another key signs: it is written again");
}

#[test]
fn keys_that_are_none_say_why_and_none_is_shown() {
    assert!(Keys::parse("").unwrap_err().contains("no key"));
    assert!(Keys::parse(&format!("{KEY}\nshort")).unwrap_err().contains("line 2"));
    assert!(!format!("{:?}", keys(KEY)).contains(KEY));
    let none = Keys::none("the controller was given no MAC key".into());
    assert_eq!(copy().tags(&example::user(), UNIQUE, &none), None);
    let read = SecondCopy::from_tags(&tags(), &example::user(), UNIQUE, &none);
    assert_eq!(read, Err(Disbelief::NoKey("the controller was given no MAC key".into())));
}

#[test]
fn what_is_unknown_or_given_by_a_person_is_not_copied() {
    let mut quarantine = example::quarantine(example::user(), vec![example::holder("u-1", "inc-1", vec![])]);
    let text = |value: serde_json::Value| firebreak_crds::Text(value.to_string());
    let given = Some([("deactivateAccessKeys/AKIA2".to_owned(), text(json!({ "active": true })))].into());
    quarantine.spec.release = Some(firebreak_crds::ReleaseDecision { on_conflict: None, original: given });
    let recorded = json!({ "active": false });
    quarantine.spec.original = Some(
        [
            ("deactivateAccessKeys/AKIA1".to_owned(), text(recorded.clone())),
            ("denyAll/unknown".to_owned(), text(json!("2026-03-01T12:00:00Z"))),
            (format!("{OURS}adopted"), text(json!({}))),
        ]
        .into(),
    );
    let case = Case::of(&quarantine, "aws", example::SINCE.parse().unwrap());
    assert!(case.original.contains_key("deactivateAccessKeys/AKIA2"));
    assert_eq!(SecondCopy::of(&case).original, [("deactivateAccessKeys/AKIA1".to_owned(), recorded)].into());
}

#[test]
fn aws_s_own_tags_take_no_room_and_ours_are_counted_once() {
    let with = |keys: &[&str]| keys.iter().map(|k| ((*k).to_owned(), String::new())).collect::<Tags>();
    let marks = [INCIDENT, SINCE];
    assert_eq!(room(&with(&[]), &marks), 48);
    assert_eq!(room(&with(&["Name", "aws:cloudformation:stack-name", INCIDENT, "firebreak.dev/original-0"]), &marks), 47);
    let full: Tags = (0..50).map(|n| (format!("k{n}"), String::new())).collect();
    assert_eq!(room(&full, &marks), 0);
}

proptest! {
    #[test]
    fn a_tag_set_that_anybody_made_up_is_never_believed(chunks in proptest::collection::vec("[A-Za-z0-9_-]{0,256}", 1..6)) {
        let tags: Tags = chunks.into_iter().enumerate().map(|(n, chunk)| (format!("{PREFIX}{n}"), chunk)).collect();
        prop_assert!(read(&tags).is_err());
    }

    #[test]
    fn whatever_is_recorded_comes_back_as_it_was(record in proptest::collection::btree_map(".{1,40}", ".{0,200}", 0..12)) {
        let original = record.into_iter().map(|(k, v)| (k, json!({ "text": v }))).collect();
        let copy = SecondCopy { original, ..copy() };
        let tags = copy.tags(&example::user(), UNIQUE, &keys(KEY)).unwrap();
        prop_assert_eq!(read(&tags), Ok(copy));
    }
}
