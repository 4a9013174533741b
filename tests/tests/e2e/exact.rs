//! Each action by itself: contained, undone by somebody and repaired, then given back, and AWS shows the same as before. What else
//! somebody may do meanwhile is in the tests of each action.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::ensure;
use firebreak_tests::credentials::Credentials;
use firebreak_tests::eventually::{condition, eventually};
use firebreak_tests::everything::{Everything, at_rest, differences, everything};
use firebreak_tests::judge::Judge;
use firebreak_tests::world::World;
use firebreak_tests::{scene, sight};
use futures::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};

use crate::approvals::{ADMIN, APPROVERS, approve, blank, let_approve};
use crate::ground_up::world;
use crate::tampering::undo;

/// A release of a role waits for 35 s; and there are several at once here.
const LONG: Duration = Duration::from_mins(3);
/// So many cases side by side.
const AT_ONCE: usize = 6;

/// The action, the kind of target, and what differs though all is given back that can be: by the beginning of its name.
struct Case(&'static str, &'static str, &'static [&'static str]);

const INSTANCE: &str = "ec2Instance";
const USER: &str = "iamUser";
const ROLE: &str = "iamRole";
const KEY: &str = "accessKey";

const NOTHING: &[&str] = &[];
/// The group takes the instance back beside its replacement. Who was thrown out stays so, what is deleted or ended too.
const CASES: &[Case] = &[
    Case("revokeInstanceRole", INSTANCE, NOTHING),
    Case("revokeSessions", ROLE, NOTHING),
    Case("denyAll", ROLE, NOTHING),
    Case("denySession", "roleSession", NOTHING),
    Case("revokeSessions", KEY, NOTHING),
    Case("sealTrustPolicy", ROLE, NOTHING),
    Case("isolateNetwork", INSTANCE, NOTHING),
    Case("protectFromTermination", INSTANCE, NOTHING),
    Case("disableInstanceMetadata", INSTANCE, NOTHING),
    Case("removePublicAddresses", INSTANCE, NOTHING),
    Case("detachFromAutoScaling", INSTANCE, &["Auto Scaling group web"]),
    Case("deregisterFromLoadBalancers", INSTANCE, NOTHING),
    Case("terminateSessions", INSTANCE, &["sessions", "commands"]),
    Case("stopInstance", INSTANCE, NOTHING),
    Case("terminateInstance", INSTANCE, &["instance", "volume", "protection", "targets web"]),
    Case("denyAll", USER, NOTHING),
    Case("deactivateAccessKeys", USER, NOTHING),
    Case("deactivateSshKeys", USER, NOTHING),
    Case("deactivateServiceCredentials", USER, NOTHING),
    Case("deactivateSigningCertificates", USER, NOTHING),
    Case("removeConsoleAccess", USER, &["password"]),
    Case("deactivateAccessKeys", KEY, NOTHING),
];

fn target(world: &World<'_>, kind: &str) -> Value {
    match kind {
        INSTANCE => world.instance_target(0),
        USER => world.user_target(),
        ROLE => world.role_target(),
        KEY => world.key_target(0),
        _ => world.session_target("ci-job"),
    }
}

/// Nothing that is in a group is stopped or terminated: that is for `detachFromAutoScaling`.
async fn dressed(world: &World<'_>, action: &str) {
    let (aws, scene) = (&world.aws, &world.scene);
    scene::role(aws).await.unwrap();
    if ends(action).is_some() {
        scene::balance(aws, scene, 0).await.unwrap();
    } else {
        scene::crowd(aws, scene).await.unwrap();
    }
    run_command(world).await;
    for kind in [Credentials::SshKeys, Credentials::ServiceCredentials, Credentials::SigningCertificates] {
        kind.make(aws).await.unwrap();
    }
}

/// A command that runs, until somebody cancels it.
async fn run_command(world: &World<'_>) {
    let (ssm, id) = (&world.aws.ssm, &world.scene.instances[0].id);
    ssm.send_command().document_name("AWS-RunShellScript").instance_ids(id).send().await.unwrap();
    world
        .until_aws("the command runs", async || {
            let commands = sight::commands(&world.aws).await?;
            ensure!(commands.values().eq(["InProgress"]), "{commands:?}");
            Ok(())
        })
        .await;
}

/// The state that an action ends an instance in.
fn ends(action: &str) -> Option<&'static str> {
    match action {
        "stopInstance" => Some("stopped"),
        "terminateInstance" => Some("terminated"),
        _ => None,
    }
}

async fn contained(world: &World<'_>, Case(action, kind, _): &Case) {
    let release = json!({ "reactivateAccessKeys": true, "reactivateCredentials": true, "rejoinAutoScaling": true });
    let policy = json!({ *kind: { "contain": [{ *action: {} }] }, "release": release });
    world.plane.apply(&world.policy("one", policy).to_string()).await.unwrap();
    let name = world.policy_name("one");
    let spec = json!({ "policyRef": { "name": name }, "targets": [target(world, kind)], "requestedBy": ADMIN });
    world.declare("inc", "Contain", spec).await;
    if *action == "terminateInstance" {
        world.until("inc", "Approved", "False").await;
        approve(world, "bob", &[APPROVERS], &blank(world, "bob").await).await;
    }
    condition(&world.incidents(), "inc", "Contained", "True", LONG).await;
    until_ended(world, action).await;
}

/// `Contained` waits for nothing that destroys evidence.
async fn until_ended(world: &World<'_>, action: &str) {
    let Some(state) = ends(action) else { return };
    eventually(state, LONG, async || {
        let now = sight::state(&world.aws, &world.scene.instances[0].id).await?;
        ensure!(now == state, "{now}");
        Ok(())
    })
    .await;
}

async fn shown(world: &World<'_>) -> Everything {
    everything(&world.aws, &world.scene).await.unwrap()
}

/// What is undone is done again, by a call of Firebreak's, and all is as it was contained.
async fn repaired(world: &World<'_>, Case(action, kind, differs): &Case, contained: &Everything) {
    if *action == "terminateInstance" {
        return; // nothing undoes that
    }
    let writes = || world.proxy.changing().len();
    let before = writes();
    undo(world, kind, action).await;
    eventually(&format!("{kind} {action} is repaired"), LONG, async || {
        let now = at_rest(&everything(&world.aws, &world.scene).await?);
        let mut different = differences(&at_rest(contained), &now);
        different.retain(|text| !differs.iter().any(|known| text.starts_with(known)));
        ensure!(different.is_empty() && writes() > before, "{} writes, {}", writes() - before, different.join("\n"));
        Ok(())
    })
    .await;
}

fn assert_same(Case(action, kind, differs): &Case, before: &Everything, after: &Everything) {
    let different = differences(before, after);
    let (known, wrong): (Vec<String>, Vec<String>) =
        different.into_iter().partition(|text| differs.iter().any(|known| text.starts_with(known)));
    assert!(wrong.is_empty(), "{kind} {action}:\n{}", wrong.join("\n"));
    let stale: Vec<_> = differs.iter().filter(|name| !known.iter().any(|text| text.starts_with(*name))).collect();
    assert!(stale.is_empty(), "{kind} {action}: {stale:?} did not differ");
}

async fn comes_back_exactly(case: &Case) {
    let (world, _guard) = world().await;
    dressed(&world, case.0).await;
    if case.0 == "terminateInstance" {
        let_approve(&world).await;
    }
    let judge = Judge::of(&world).await;
    let before = shown(&world).await;
    contained(&world, case).await;
    let during = shown(&world).await;
    assert_ne!(at_rest(&before), at_rest(&during), "{} does something to {}", case.0, case.1);
    repaired(&world, case, &during).await;
    world.change("inc", json!({ "mode": "Release" })).await;
    condition(&world.incidents(), "inc", "Released", "True", LONG).await;
    world.until_nothing_is_held().await;
    assert_same(case, &before, &shown(&world).await);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn every_action_by_itself_gives_back_all_that_aws_shows() {
    let run = async |case| AssertUnwindSafe(comes_back_exactly(case)).catch_unwind().await.is_err().then_some(case);
    let failed: Vec<Option<&Case>> = stream::iter(CASES).map(run).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<_> = failed.into_iter().flatten().map(|case| format!("{} of {}", case.0, case.1)).collect();
    assert!(failed.is_empty(), "for each, above: {failed:?}");
}

#[test]
fn the_cases_are_of_every_action() {
    let code = include_str!("../../../controller/src/containment/wanted.rs");
    let list = code.split_once("\nactions! {").unwrap().1.split_once("\n}").unwrap().0;
    let lines = list.lines().filter_map(|line| line.trim().split_once(':')).map(|(variant, _)| variant);
    let mut all: Vec<String> = lines.map(|name| name[..1].to_lowercase() + &name[1..]).collect();
    let mut tested: Vec<&str> = CASES.iter().map(|case| case.0).collect();
    all.sort_unstable();
    tested.sort_unstable();
    tested.dedup();
    assert_eq!(tested, all);
}
