//! Credentials besides access keys: every one goes off, stays off, and is given back only where the policy says so in so many
//! words. One test for each way, for every kind.

use firebreak_crds::conditions::DRIFT_DETECTED;
use firebreak_tests::credentials::Credentials;
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// The user is contained by the deny and by this kind's action.
async fn contain(world: &World<'_>, kind: Credentials, reactivate: bool) {
    let policy = json!({
        "iamUser": { "contain": [{ "denyAll": {} }, { kind.action(): {} }] },
        "release": { "reactivateCredentials": reactivate },
    });
    world.plane.apply(&world.policy("credentials", policy).to_string()).await.unwrap();
    let of_the_user = json!({ "policyRef": { "name": world.policy_name("credentials") }, "targets": [world.user_target()] });
    world.declare("inc", "Contain", of_the_user).await;
}

async fn until_off(world: &World<'_>, kind: Credentials, count: usize) {
    world.until_aws("all are off", async || kind.all_off(&world.aws, count).await).await;
}

async fn switched_on_again_they_go_off_and_a_release_gives_back_what_was(kind: Credentials) {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (on, off) = (kind.make(&world.aws).await.unwrap(), kind.make(&world.aws).await.unwrap());
    kind.switch(&world.aws, &off, false).await.unwrap();
    let before = kind.all(&world.aws).await.unwrap();
    assert_eq!((before[&on].as_str(), before[&off].as_str()), ("Active", "Inactive"));

    contain(&world, kind, true).await;
    world.until("inc", "Contained", "True").await;
    kind.all_off(&world.aws, 2).await.unwrap();
    world.until_drift_counts("mallory").await;
    kind.switch(&world.aws, &off, true).await.unwrap();
    until_off(&world, kind, 2).await;
    let told = world.until_quarantine_says("mallory", DRIFT_DETECTED, "Repaired").await;
    assert!(told.contains(&off), "{told}");

    world.release("inc").await;
    assert_eq!(kind.all(&world.aws).await.unwrap(), before);
    assert!(judge.assert_no_call_was_wrong() > 0, "one was given back");
}

async fn what_is_made_during_the_containment_never_comes_back(kind: Credentials) {
    let (world, _guard) = world().await;
    contain(&world, kind, true).await;
    world.until("inc", "Contained", "True").await;
    world.until_a_second_old("mallory").await;
    let first = kind.make(&world.aws).await.unwrap();
    until_off(&world, kind, 1).await;
    kind.delete(&world.aws, &first).await.unwrap();
    let second = kind.make(&world.aws).await.unwrap();
    until_off(&world, kind, 1).await;

    // Suspended, so that it is on when the release begins: with the deny gone it would be a way in.
    world.suspend("mallory").await;
    kind.switch(&world.aws, &second, true).await.unwrap();
    world.let_go("inc", "mallory").await;
    world.steer("mallory", json!({ "suspend": false })).await;
    world.until("inc", "Released", "True").await;
    kind.all_off(&world.aws, 1).await.unwrap();
}

async fn they_stay_off_after_a_release_unless_the_policy_says_otherwise(kind: Credentials) {
    let (world, _guard) = world().await;
    kind.make(&world.aws).await.unwrap();
    contain(&world, kind, false).await;
    world.until("inc", "Contained", "True").await;
    let quarantine = world.quarantine_of("mallory").await.unwrap().metadata.name.unwrap();
    world.release("inc").await;
    kind.all_off(&world.aws, 1).await.unwrap();
    let events = world.events_of(&quarantine).await;
    let told = events.iter().find(|e| e.starts_with("Released: ")).unwrap_or_else(|| panic!("{events:#?}"));
    assert!(told.contains(&format!("{}: 1 of 1", kind.action())) && told.contains("stay off"), "{told}");
}

async fn without_the_permission_the_deny_stays_and_nothing_is_called_off_that_is_not(kind: Credentials) {
    let (world, _guard) = world().await;
    kind.make(&world.aws).await.unwrap();
    world.proxy.fail(kind.operation(), 403, "AccessDenied", "not authorized");
    contain(&world, kind, false).await;
    let target = world.until_target("inc", 0, |t| t.reason == "AccessDenied").await;
    assert!(target.message.contains(&format!("iam:{}", kind.operation())), "{target:?}");
    world.until("inc", "Contained", "False").await;
    assert!(sight::inline_policies(&world.aws).await.unwrap().contains(&"firebreak-deny-all".to_owned()));
    assert_eq!(sight::attached_policies(&world.aws).await.unwrap(), ["AWSDenyAll"]);
    world.proxy.recover(kind.operation());
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    kind.all_off(&world.aws, 1).await.unwrap();
}

macro_rules! for_every_kind {
    ($($name:ident: $kind:ident;)*) => {$(
        mod $name {
            use super::Credentials;

            #[tokio::test]
            async fn switched_on_again_they_go_off_and_a_release_gives_back_what_was() {
                super::switched_on_again_they_go_off_and_a_release_gives_back_what_was(Credentials::$kind).await;
            }

            #[tokio::test]
            async fn what_is_made_during_the_containment_never_comes_back() {
                super::what_is_made_during_the_containment_never_comes_back(Credentials::$kind).await;
            }

            #[tokio::test]
            async fn they_stay_off_after_a_release_unless_the_policy_says_otherwise() {
                super::they_stay_off_after_a_release_unless_the_policy_says_otherwise(Credentials::$kind).await;
            }

            #[tokio::test]
            async fn without_the_permission_the_deny_stays_and_nothing_is_called_off_that_is_not() {
                super::without_the_permission_the_deny_stays_and_nothing_is_called_off_that_is_not(Credentials::$kind).await;
            }
        }
    )*};
}

for_every_kind! {
    ssh_keys: SshKeys;
    service_credentials: ServiceCredentials;
    signing_certificates: SigningCertificates;
}
