//! No action waits for another: whichever call AWS refuses or does not answer, the network and the keys are cut as without it, and
//! what is in force is told and watched meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use firebreak_crds::{ActionState, Quarantine, is_true};
use firebreak_tests::judge::Judge;
use firebreak_tests::milestones::swap;
use firebreak_tests::proxy::Call;
use firebreak_tests::scene;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::{Guard, world};
use crate::instance_role::prepare;

/// What AWS does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Never,
}

/// All that can be done to an instance and leaves it running, but for the windows: they take seconds.
const INSTANCE: [&str; 7] = [
    "protectFromTermination",
    "detachFromAutoScaling",
    "deregisterFromLoadBalancers",
    "removePublicAddresses",
    "disableInstanceMetadata",
    "revokeInstanceRole",
    "terminateSessions",
];

/// A world whose instance has all that its actions find.
async fn crowded() -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::crowd(&world.aws, &world.scene).await.unwrap();
    prepare(&world, "Always").await; // else the old profile is taken off, and none replaced
    let contain = INSTANCE.map(|name| json!({ name: {} })).into_iter();
    let contain: Vec<_> = contain.chain([json!({ "isolateNetwork": { "severTrackedConnections": "Never" } })]).collect();
    let user = json!({ "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] });
    let policy = json!({ "ec2Instance": { "contain": contain }, "iamUser": user });
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    (world, guard)
}

async fn until_cut(world: &World<'_>) {
    let interfaces = &world.scene.instances[0].interfaces;
    world
        .until_aws("interfaces isolated, keys off", async || {
            sight::isolated(&world.aws, interfaces).await?;
            let keys = sight::keys(&world.aws).await?;
            ensure!(keys.values().all(|status| status == "Inactive"), "{keys:?}");
            Ok(())
        })
        .await;
}

/// What cuts: the interface that it moves, or the key that it switches off.
fn cut(call: &Call) -> Option<&str> {
    let key = || call.params.get("AccessKeyId").map(String::as_str);
    swap(call).map(|(interface, _)| interface).or_else(|| key().filter(|_| call.action == "UpdateAccessKey"))
}

/// For each interface and key, how many calls of that action had come when it was to be cut for the first time.
fn cuts(calls: &[Call], action: &str) -> BTreeMap<String, usize> {
    let (mut first, mut so_far) = (BTreeMap::new(), 0);
    for call in calls {
        so_far += usize::from(call.action == action);
        if let Some(what) = cut(call) {
            first.entry(what.to_owned()).or_insert(so_far);
        }
    }
    first
}

fn action<'q>(quarantine: &'q Quarantine, name: &str) -> Option<&'q firebreak_crds::ActionStatus> {
    quarantine.status.iter().flat_map(|s| &s.actions).find(|a| a.name == name)
}

fn is(quarantine: &Quarantine, name: &str, state: ActionState) -> bool {
    action(quarantine, name).is_some_and(|a| a.state == state)
}

fn contained(quarantine: &Quarantine) -> bool {
    quarantine.status.as_ref().is_some_and(|s| is_true(&s.conditions, "Contained"))
}

/// Contains with one call refused, hung or carried out: no interface and no key waits for a second attempt of that call, which comes
/// five seconds after the first; all other actions are in force, and told so, while it is open.
async fn is_as_fast_with(call: &str, of: &str, answer: Answer) {
    let (world, _guard) = crowded().await;
    let judge = Judge::of(&world).await;
    match answer {
        Answer::Yes => {}
        Answer::No if call == "DetachInstances" => world.proxy.fail(call, 403, "AccessDenied", "not authorized"),
        Answer::No => world.proxy.fail(call, 403, "UnauthorizedOperation", "not authorized"),
        Answer::Never => world.proxy.hang(call),
    }
    world.declare("inc", "Contain", json!({})).await;
    until_cut(&world).await;
    let first = cuts(&world.proxy.log(), call);
    let all: BTreeSet<_> = world.scene.instances[0].interfaces.iter().chain(&world.scene.access_keys).collect();
    assert_eq!(first.keys().collect::<BTreeSet<_>>(), all, "{call} {answer:?}");
    assert!(first.values().all(|attempts| *attempts <= 1), "{call} {answer:?}: waited for attempts: {first:?}");
    world
        .until_aws("the call has come, and is open where it hangs", async || {
            let such = |c: &Call| c.action == call && (c.finished.is_none() || answer != Answer::Never);
            ensure!(world.proxy.count(such) > 0, "{call} {answer:?}");
            Ok(())
        })
        .await;
    let id = &world.scene.instances[0].id;
    let others = INSTANCE.iter().chain(&["isolateNetwork"]).filter(|name| **name != of);
    let waits = |q: &Quarantine| {
        let hung = action(q, of).is_some_and(|a| a.state == ActionState::InProgress && a.message.contains("no answer to"));
        hung && !contained(q)
    };
    let told = answer == Answer::Never && call == "DetachInstances"; // an instance loses its profile without it, too
    world
        .until_quarantine(id, &format!("all but {of} in force with {call} {answer:?}"), |q| {
            others.clone().all(|name| is(q, name, ActionState::InForce)) && (!told || waits(q))
        })
        .await;
    world.proxy.recover(call);
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    let events = world.events_of("inc").await;
    assert!(!events.iter().any(|e| e.starts_with("DriftDetected")), "nobody changed anything: {events:#?}");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn with_a_call_to_auto_scaling_refused_or_hung_all_else_is_cut_as_without_it() {
    for answer in [Answer::Yes, Answer::No, Answer::Never] {
        is_as_fast_with("DetachInstances", "detachFromAutoScaling", answer).await;
    }
}

#[tokio::test]
async fn with_the_profile_refused_or_hung_all_else_is_cut_as_without_it() {
    for answer in [Answer::No, Answer::Never] {
        is_as_fast_with("ReplaceIamInstanceProfileAssociation", "revokeInstanceRole", answer).await;
    }
}

#[tokio::test]
async fn while_a_key_cannot_be_switched_the_deny_is_told_and_put_back() {
    let (world, _guard) = world().await;
    world.proxy.hang("UpdateAccessKey");
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    let told = world
        .until_quarantine("mallory", "denied, and the keys not off yet", |q| {
            let waits =
                action(q, "deactivateAccessKeys").is_some_and(|a| a.message.contains("no answer to iam:UpdateAccessKey"));
            is(q, "denyAll", ActionState::InForce) && waits
        })
        .await;
    assert!(is(&told, "deactivateAccessKeys", ActionState::InProgress) && !contained(&told), "{told:#?}");
    let arn = "arn:aws:iam::aws:policy/AWSDenyAll";
    world.aws.iam.detach_user_policy().user_name("mallory").policy_arn(arn).send().await.unwrap();
    world
        .until_aws("attached again", async || {
            let attached = sight::attached_policies(&world.aws).await?;
            ensure!(attached == ["AWSDenyAll"], "{attached:?}");
            Ok(())
        })
        .await;
    let attempts = world.proxy.count(|c| c.action == "UpdateAccessKey");
    assert!(attempts <= 6, "by the pass in which the calls hang, three attempts for each key: {attempts}");
    assert!(!contained(&world.quarantine_of("mallory").await.unwrap()));
    world.proxy.recover("UpdateAccessKey");
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn while_the_marks_cannot_be_put_what_is_contained_is_told() {
    let (world, _guard) = world().await;
    world.proxy.hang("TagUser");
    world.declare("inc", "Contain", json!({ "targets": [world.user_target()] })).await;
    world
        .until_quarantine("mallory", "contained, and the marks under way", |q| {
            let waits = action(q, "tagResource").is_some_and(|a| a.message.contains("no answer to iam:TagUser"));
            contained(q) && waits && is(q, "tagResource", ActionState::InProgress)
        })
        .await;
    world.until("inc", "Contained", "True").await;
    world.proxy.recover("TagUser");
    world.look_now().await;
    world.until_quarantine("mallory", "marked", |q| is(q, "tagResource", ActionState::InForce)).await;
    assert!(sight::user_tags(&world.aws).await.unwrap().contains_key("firebreak.dev/incident"));
}
