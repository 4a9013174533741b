use std::collections::BTreeMap;

use firebreak_crds::ReleasePolicy;

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
    Look { credentials, user: Some(User::default()) }
}

fn recorded(id: &str, active: bool) -> Case {
    example::recorded(case(), &format!("deactivateAccessKeys/{id}"), &Original { active })
}

fn switches(key: &str, active: bool) -> Call {
    Call::UpdateAccessKey { user: "mallory".into(), id: key.into(), active }
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
    let marked = |credentials| Look { credentials, user: Some(User { tags: tags.clone(), ..User::default() }) };
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
    let look = Look { credentials: vec![], user: Some(User { tags, ..User::default() }) };
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
    let kept = Case { decision: Some(OnConflict::KeepTheirs), ..recorded("A", true) };
    assert!(AccessKeys::release(&kept, &look).is_done(), "unless a person decides to keep it");
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
