use std::collections::BTreeMap;

use firebreak_crds::{OnConflict, ReleasePolicy};

use super::*;
use crate::containment::deactivate_access_keys::AccessKeys;
use crate::containment::deactivate_service_credentials::ServiceCredentials;
use crate::containment::deactivate_signing_certificates::SigningCertificates;
use crate::containment::deactivate_ssh_keys::SshKeys;
use crate::containment::example;

fn case() -> Case {
    example::case(example::user())
}

/// A key made that many seconds after the containment began.
fn key(id: &str, active: bool, age: i64) -> Credential {
    let created = case().since + k8s_openapi::jiff::SignedDuration::from_secs(age);
    Credential { id: id.into(), active, created: Some(created), expired: false }
}

fn look(credentials: Vec<Credential>) -> Look {
    Look { credentials, user: Some(User::default()), ..Look::default() }
}

fn recorded(id: &str, active: bool) -> Case {
    example::recorded(case(), &format!("deactivateAccessKeys/{id}"), &Original { active })
}

fn switches(key: &str, active: bool) -> Call {
    Call::UpdateAccessKey { user: "mallory".into(), id: key.into(), active }
}

#[test]
fn a_key_that_was_contained_when_the_cluster_was_lost_has_no_known_original() {
    let key = Case { resource: example::access_key("AKIA1"), ..case() };
    let off = Look { contained_before: true, ..of_its_user(vec![self::key("AKIA1", false, -60)], "AIDA1") };
    let plan = AccessKeys::contain(&key, &Empty {}, &off);
    assert!(plan.verdict.unknown && !plan.record.contains_key("deactivateAccessKeys/AKIA1"), "{plan:?}");
    let off = Look { contained_before: false, ..off };
    let met = example::recorded(key.clone(), revoke_sessions::MET_OLDER, &true);
    assert!(AccessKeys::contain(&met, &Empty {}, &off).verdict.unknown, "the deny is this containment's own by now");
    let known = AccessKeys::contain(&key, &Empty {}, &off);
    assert!(!known.verdict.unknown && known.record.contains_key("deactivateAccessKeys/AKIA1"), "{known:?}");
}

#[test]
fn every_active_key_goes_off_and_the_owners_keys_are_recorded() {
    let look = look(vec![key("A", true, -60), key("B", false, -60), key("C", true, 30)]);
    let plan = AccessKeys::contain(&case(), &Empty {}, &look);
    assert_eq!(plan.calls, [switches("A", false), switches("C", false)]);
    let recorded: Vec<(&str, Original)> =
        plan.record.iter().map(|(k, v)| (k.as_str(), serde_json::from_value(v.clone()).unwrap())).collect();
    let original = |active| Original { active };
    assert_eq!(recorded, [("deactivateAccessKeys/A", original(true)), ("deactivateAccessKeys/B", original(false))]);
    assert_eq!(plan.verdict.drift.len(), 2);
}

#[test]
fn a_key_that_was_switched_on_again_goes_off_and_keeps_its_first_record() {
    let plan = AccessKeys::contain(&recorded("A", true), &Empty {}, &look(vec![key("A", true, -60)]));
    assert_eq!(plan.calls, [switches("A", false)]);
    assert!(plan.record.is_empty());
    assert_eq!(plan.verdict.drift, ["access key A was active"]);
}

#[test]
fn with_all_keys_off_or_none_there_it_is_in_force() {
    for (keys, says) in [(vec![], "the user has no access keys"), (vec![key("A", false, -60)], "1 of 1 access keys off")] {
        let plan = AccessKeys::contain(&recorded("A", true), &Empty {}, &look(keys));
        assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
        assert_eq!(plan.verdict.message, says);
    }
}

#[test]
fn no_user_is_a_dead_end() {
    assert_eq!(AccessKeys::contain(&case(), &Empty {}, &Look::default()).verdict.state, ActionState::Failed);
}

#[test]
fn a_mark_of_an_earlier_containment_makes_the_originals_unknown() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/old".to_owned())]);
    let marked =
        |credentials| Look { credentials, user: Some(User { tags: tags.clone(), ..User::default() }), ..Look::default() };
    let plan = AccessKeys::contain(&case(), &Empty {}, &marked(vec![key("A", true, -60)]));
    assert!(plan.verdict.unknown);
    assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["deactivateAccessKeys/unknown"]);
    assert_eq!(plan.calls, [switches("A", false)], "contained all the same");
    let noted = example::recorded(case(), "deactivateAccessKeys/unknown", &case().now);
    let plan = AccessKeys::contain(&noted, &Empty {}, &marked(vec![key("A", false, -60)]));
    assert!(plan.verdict.unknown && plan.is_done(), "what is off now is nobody's original");
}

#[test]
fn firebreaks_own_mark_on_a_user_without_keys_says_nothing() {
    let tags = BTreeMap::from([("firebreak.dev/incident".to_owned(), "security/inc-1".to_owned())]);
    let ours = example::recorded(case(), "tagResource", &Empty {});
    let look = Look { credentials: vec![], user: Some(User { tags, ..User::default() }), ..Look::default() };
    assert!(!AccessKeys::contain(&ours, &Empty {}, &look).verdict.unknown);
}

#[test]
fn keys_come_back_only_where_the_policy_says_so_in_so_many_words() {
    let yes = ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() };
    for (what, release, active, back) in [
        ("by default", ReleasePolicy::default(), true, false),
        ("where the policy says so", yes.clone(), true, true),
        ("that were off before", yes, false, false),
    ] {
        let case = Case { release, ..recorded("A", active) };
        let plan = AccessKeys::release(&case, &look(vec![key("A", false, -60)]));
        assert_eq!(!plan.calls.is_empty(), back, "{what}");
        assert_eq!(plan.verdict.state == ActionState::Released, !back, "{what}");
    }
}

#[test]
fn a_key_that_is_not_on_record_does_not_come_back() {
    // as one that was made during the containment
    let case = Case { release: ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() }, ..case() };
    assert!(AccessKeys::release(&case, &look(vec![key("A", false, -60)])).is_done());
}

#[test]
fn what_somebody_switched_on_since_the_last_look_goes_off_before_the_release_ends() {
    let look = look(vec![key("A", true, -60), key("B", true, 90)]);
    let plan = AccessKeys::release(&recorded("A", true), &look);
    assert_eq!(plan.calls, [switches("A", false), switches("B", false)]);
    assert!(plan.record.is_empty(), "B was made during the containment: never the owner's");
    for decision in [OnConflict::KeepTheirs, OnConflict::RestoreOriginal] {
        let decided = Case { decision: Some(decision), ..recorded("A", true) };
        assert_eq!(AccessKeys::release(&decided, &look).calls, plan.calls, "that is decided of conflicts: {decision:?}");
    }
}

#[test]
fn every_holder_must_want_the_keys_back() {
    let mut quarantine = example::quarantine(example::user(), vec![]);
    for (answers, back) in [(vec![], false), (vec![true], true), (vec![true, false], false), (vec![true, true], true)] {
        let holder = |reactivate_access_keys: &bool| firebreak_crds::Holder {
            release: ReleasePolicy { reactivate_access_keys: *reactivate_access_keys, ..ReleasePolicy::default() },
            ..example::holder("u", "inc", vec![])
        };
        quarantine.spec.holders = answers.iter().map(holder).collect();
        assert_eq!(Case::of(&quarantine, "aws", case().now).release.reactivate_access_keys, back, "{answers:?}");
    }
}

#[test]
fn where_nothing_was_the_owners_it_is_on_record_that_a_release_must_look() {
    for credentials in [vec![], vec![key("A", true, 30)]] {
        let plan = AccessKeys::contain(&case(), &Empty {}, &look(credentials));
        assert_eq!(plan.record.keys().collect::<Vec<_>>(), ["deactivateAccessKeys"]);
    }
    let noted = example::recorded(case(), "deactivateAccessKeys", &Empty {});
    let plan = AccessKeys::contain(&noted, &Empty {}, &look(vec![]));
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
    assert_eq!(AccessKeys::release(&noted, &look(vec![key("A", true, 30)])).calls, [switches("A", false)]);
}

#[test]
fn what_is_not_known_stays_off_whatever_the_policy_says() {
    let release = ReleasePolicy { reactivate_access_keys: true, reactivate_credentials: true, ..ReleasePolicy::default() };
    let case = Case { release, ..example::recorded(case(), "deactivateAccessKeys/unknown", &case().now) };
    let plan = AccessKeys::release(&case, &look(vec![key("A", true, -60)]));
    assert_eq!(plan.calls, [switches("A", false)]);
    assert!(plan.record.is_empty(), "else it would be on record as active, and be switched on again");
}

#[test]
fn what_has_expired_is_left_as_it_is() {
    let expired = |active| Credential { expired: true, ..key("A", active, -60) };
    let release = ReleasePolicy { reactivate_access_keys: true, reactivate_credentials: true, ..ReleasePolicy::default() };
    let was_active = Original { active: true };
    let case = Case { release, ..example::recorded(case(), "deactivateServiceCredentials/A", &was_active) };
    assert!(ServiceCredentials::release(&case, &look(vec![expired(false)])).is_done(), "AWS would refuse it for ever");
    assert!(ServiceCredentials::contain(&case, &Empty {}, &look(vec![expired(false)])).is_done());
    let lagging = ServiceCredentials::contain(&case, &Empty {}, &look(vec![expired(true)]));
    assert_eq!(lagging.calls.len(), 1, "by our clock it is over, but AWS shows it as active");
}

/// Its record, its call, and what gives it back.
fn judge<C: Credentials>(action: &str, call: &str, flag: &ReleasePolicy) {
    let plan = C::contain(&case(), &Empty {}, &look(vec![key("A", true, -60)]));
    let said = format!("{action}/A {call} mallory: A Inactive");
    assert_eq!(format!("{} {}", plan.record.keys().next().unwrap(), plan.calls[0]), said);
    assert!(!plan.calls[0].widens() && plan.calls[0].idempotent());
    for release in [
        ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() },
        ReleasePolicy { reactivate_credentials: true, ..ReleasePolicy::default() },
    ] {
        let back = release == *flag;
        let case = Case { release, ..example::recorded(case(), &format!("{action}/A"), &Original { active: true }) };
        let plan = C::release(&case, &look(vec![key("A", false, -60)]));
        assert_eq!(
            plan.calls.iter().map(ToString::to_string).collect::<Vec<_>>(),
            back.then(|| format!("{call} mallory: A Active")).into_iter().collect::<Vec<_>>()
        );
        assert!(plan.calls.iter().all(Call::widens));
    }
}

#[test]
fn each_kind_has_its_own_record_and_call_and_comes_back_by_its_own_flag() {
    let keys = ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() };
    let credentials = ReleasePolicy { reactivate_credentials: true, ..ReleasePolicy::default() };
    judge::<AccessKeys>("deactivateAccessKeys", "iam:UpdateAccessKey", &keys);
    judge::<SshKeys>("deactivateSshKeys", "iam:UpdateSSHPublicKey", &credentials);
    let service = ("deactivateServiceCredentials", "iam:UpdateServiceSpecificCredential");
    judge::<ServiceCredentials>(service.0, service.1, &credentials);
    judge::<SigningCertificates>("deactivateSigningCertificates", "iam:UpdateSigningCertificate", &credentials);
}

fn of_a_key(id: &str) -> Case {
    example::case(example::access_key(id))
}

fn of_its_user(credentials: Vec<Credential>, id: &str) -> Look {
    Look { credentials, user: Some(User { id: id.into(), ..User::default() }), ..Look::default() }
}

/// Another Quarantine of the same user.
fn beside(key: Option<&str>, held: bool, back: bool, original: &[(&str, &str)]) -> Beside {
    Beside {
        name: "other".into(),
        held_since: held.then(|| case().since),
        key: key.map(str::to_owned),
        actions: vec!["deactivateAccessKeys"],
        release: ReleasePolicy { reactivate_access_keys: back, ..ReleasePolicy::default() },
        original: original.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

#[test]
fn a_key_of_a_user_that_was_made_again_is_never_called_off() {
    let case = example::recorded(of_a_key("A"), "deactivateAccessKeys/A", &Original { active: true });
    let plan = AccessKeys::contain(&case, &Empty {}, &of_its_user(vec![], "AIDA2"));
    assert_eq!((plan.is_done(), plan.verdict.state), (true, ActionState::Failed));
    assert!(plan.verdict.message.contains("AIDA1 is now AIDA2"), "{}", plan.verdict.message);
    let deleted = AccessKeys::contain(&case, &Empty {}, &of_its_user(vec![], "AIDA1"));
    assert_eq!(deleted.verdict.message, "access key A of user mallory no longer exists");
    assert_eq!(deleted.verdict.state, ActionState::InForce, "nothing brings it back");
    for (decision, state) in [(None, ActionState::Conflict), (Some(OnConflict::KeepTheirs), ActionState::Released)] {
        let release = AccessKeys::release(&Case { decision, ..case.clone() }, &of_its_user(vec![], "AIDA2"));
        assert_eq!((release.is_done(), release.verdict.state), (true, state), "{decision:?}");
    }
}

#[test]
fn a_key_that_was_switched_on_again_leaves_a_note_for_the_sessions() {
    let recorded = example::recorded(of_a_key("A"), "deactivateAccessKeys/A", &Original { active: true });
    let look = of_its_user(vec![key("A", true, -60)], "AIDA1");
    assert_eq!(switched_on(&recorded).count(), 0);
    let plan = AccessKeys::contain(&recorded, &Empty {}, &look);
    let noted = plan.record.iter().fold(recorded.clone(), |case, (k, v)| example::recorded(case, k, v));
    assert_eq!(switched_on(&noted).collect::<Vec<_>>(), [recorded.now]);
    assert_eq!(plan.calls, [switches("A", false)]);
    let first = AccessKeys::contain(&of_a_key("A"), &Empty {}, &look);
    assert_eq!(first.record.keys().collect::<Vec<_>>(), ["deactivateAccessKeys/A"], "it was on before: no note");
    let full = (0..SWITCHED_ON_MOST)
        .fold(recorded.clone(), |case, n| example::recorded(case, &format!("{SWITCHED_ON}{n}"), &recorded.now));
    let plan = AccessKeys::contain(&full, &Empty {}, &look);
    assert_eq!((plan.record.len(), &plan.calls[..]), (0, &[switches("A", false)][..]), "off it goes all the same");
}

#[test]
fn what_another_quarantine_has_on_record_is_what_was_there_before() {
    let look = of_its_user(vec![key("A", false, -60)], "AIDA1");
    let was_on = beside(None, true, true, &[("deactivateAccessKeys/A", r#"{"active":true}"#)]);
    let plan = AccessKeys::contain(&of_a_key("A").with(vec![was_on]), &Empty {}, &look);
    assert_eq!(plan.record["deactivateAccessKeys/A"], serde_json::json!({ "active": true }));
    let marked = Look {
        user: Some(User {
            tags: BTreeMap::from([("firebreak.dev/incident".to_owned(), "x".to_owned())]),
            ..look.user.clone().unwrap()
        }),
        ..look
    };
    let knows = |record: &[(&str, &str)]| {
        let case = of_a_key("A").with(vec![beside(None, true, true, record)]);
        !AccessKeys::contain(&case, &Empty {}, &marked).verdict.unknown
    };
    assert!(knows(&[("tagResource", "{}")]) && !knows(&[]), "the mark of a Quarantine that is there says nothing");
}

#[test]
fn what_was_made_while_another_quarantine_held_was_never_the_owners() {
    let mut case = of_a_key("A").with(vec![beside(None, true, true, &[])]);
    case.since += k8s_openapi::jiff::SignedDuration::from_mins(10);
    let plan = AccessKeys::contain(&case, &Empty {}, &of_its_user(vec![key("A", true, 60)], "AIDA1"));
    assert!(!plan.record.contains_key("deactivateAccessKeys/A") && plan.calls.len() == 1, "{plan:?}");
    case.beside[0].key = Some("B".into());
    let plan = AccessKeys::contain(&case, &Empty {}, &of_its_user(vec![key("A", true, 60)], "AIDA1"));
    assert!(plan.record.contains_key("deactivateAccessKeys/A"), "only another key was held then: {plan:?}");
}

#[test]
fn what_another_quarantine_keeps_off_stays_off() {
    let yes = ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() };
    let look = look(vec![key("A", false, -60)]);
    for (what, others, back) in [
        ("nobody else", vec![], true),
        ("its user is held", vec![beside(None, true, true, &[])], false),
        ("the key itself is held", vec![beside(Some("A"), true, true, &[])], false),
        ("another key is held", vec![beside(Some("B"), true, true, &[])], true),
        ("released, and leaves it off", vec![beside(Some("A"), false, false, &[])], false),
        ("released, and gives it back", vec![beside(Some("A"), false, true, &[])], true),
    ] {
        let case = Case { release: yes.clone(), ..recorded("A", true).with(others) };
        assert_eq!(!AccessKeys::release(&case, &look).calls.is_empty(), back, "{what}");
    }
    let case = example::recorded(Case { release: yes, ..recorded("A", true) }, &stays_off("A"), &true);
    assert!(AccessKeys::release(&case, &look).is_done(), "another's release left it off");
}
