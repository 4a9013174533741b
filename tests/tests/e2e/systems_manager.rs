//! `terminateSessions`: who is on an instance by way of Systems Manager is thrown out, and again; elsewhere nothing ends.

use std::collections::BTreeMap;

use anyhow::ensure;
use aws_sdk_ec2::types::Instance;
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::{world, worlds};

fn actions() -> Value {
    json!([{ "isolateNetwork": { "severTrackedConnections": "Never" } }, { "terminateSessions": {} }])
}

async fn start_session(world: &World<'_>, id: &str) -> String {
    world.aws.ssm.start_session().target(id).send().await.unwrap().session_id.unwrap()
}

async fn send_command(world: &World<'_>, ids: &[&str]) -> String {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let call = world.aws.ssm.send_command().document_name("AWS-RunShellScript").set_instance_ids(Some(ids));
    call.send().await.unwrap().command.unwrap().command_id.unwrap()
}

/// Nothing goes on there; what goes on elsewhere does so still.
async fn until_alone(world: &World<'_>, id: &str, elsewhere: &BTreeMap<String, String>) {
    world
        .until_aws("nobody is on the instance", async || {
            let (sessions, commands) = (sight::open_sessions(&world.aws).await?, sight::commands(&world.aws).await?);
            ensure!(sessions == *elsewhere, "{sessions:#?}");
            ensure!(commands.iter().all(|((_, on), status)| (on == id) == (status == "Cancelled")), "{commands:#?}");
            Ok(())
        })
        .await;
}

/// As AWS shows them, by id.
async fn instances(world: &World<'_>) -> Vec<Instance> {
    let mut shown = Vec::new();
    for instance in &world.scene.instances {
        shown.push(sight::instance(&world.aws, &instance.id).await.unwrap());
    }
    shown
}

#[tokio::test]
async fn sessions_and_commands_end_and_those_that_come_later_end_too() {
    let (world, _guard) = worlds(2).await;
    let [id, other] = [&world.scene.instances[0].id, &world.scene.instances[1].id];
    let before = instances(&world).await;
    let (first, second) = (start_session(&world, id).await, start_session(&world, id).await);
    let elsewhere = BTreeMap::from([(start_session(&world, other).await, other.clone())]);
    send_command(&world, &[id, other]).await;
    send_command(&world, &[id]).await;
    let judge = Judge::of(&world).await;

    world.contain_instance("inc", id, actions()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("contain that principal"), "{target:?}");
    assert!([first, second].iter().all(|s| target.message.contains(s)), "it says who was there: {target:?}");
    until_alone(&world, id, &elsewhere).await;

    world.until_drift_counts(id).await;
    let session = start_session(&world, id).await;
    until_alone(&world, id, &elsewhere).await;
    world.until_event("inc", "DriftDetected", &[&format!("session {session} of arn:aws:sts::")]).await;
    world.until_drift_counts(id).await;
    let command = send_command(&world, &[id, other]).await;
    until_alone(&world, id, &elsewhere).await;
    world.until_event("inc", "DriftDetected", &[&format!("command {command} (AWS-RunShellScript) was going on")]).await;
    world.until("inc", "Contained", "True").await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    world.until_event("inc", "Released", &["stay ended"]).await;
    assert_eq!(instances(&world).await, before);
    until_alone(&world, id, &elsewhere).await;
    assert!(judge.assert_no_call_was_wrong() > 0, "the groups came back");
}

#[tokio::test]
async fn after_a_release_sessions_live() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    world.contain_instance("inc", id, json!([{ "terminateSessions": {} }])).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    world.until_nothing_is_held().await;
    let (session, command) = (start_session(&world, id).await, send_command(&world, &[id]).await);
    world.declare("other", "Contain", json!({ "targets": [world.user_target()] })).await;
    world.until_swept(2).await;
    assert_eq!(sight::open_sessions(&world.aws).await.unwrap(), [(session, id.clone())].into());
    let commands = sight::commands(&world.aws).await.unwrap();
    assert_ne!(commands[&(command, id.clone())], "Cancelled");
}

#[tokio::test]
async fn a_missing_permission_is_named_and_holds_nothing_else_back() {
    for (operation, sessions, commands) in
        [("DescribeSessions", 1, 0), ("TerminateSession", 1, 0), ("ListCommandInvocations", 0, 1), ("CancelCommand", 0, 1)]
    {
        let (world, _guard) = world().await;
        let id = &world.scene.instances[0].id;
        start_session(&world, id).await;
        send_command(&world, &[id]).await;
        world.proxy.fail(operation, 400, "AccessDeniedException", "not authorized");
        world.contain_instance("inc", id, actions()).await;
        let permission = format!("AWS denied ssm:{operation} (AccessDeniedException): grant it");
        let target = world.until_target("inc", 0, |t| t.message.contains(&permission)).await;
        assert_eq!(target.contained, "False", "{target:?}");
        sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
        assert_eq!(sight::open_sessions(&world.aws).await.unwrap().len(), sessions, "{operation}");
        let shown = sight::commands(&world.aws).await.unwrap();
        assert_eq!(shown.values().filter(|s| *s != "Cancelled").count(), commands, "{operation}");

        world.proxy.recover(operation);
        world.look_now().await;
        world.until("inc", "Contained", "True").await;
        until_alone(&world, id, &BTreeMap::new()).await;
    }
}

#[tokio::test]
async fn a_systems_manager_that_does_not_answer_delays_no_cut() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    start_session(&world, id).await;
    world.proxy.hang("DescribeSessions");
    world.contain_instance("inc", id, actions()).await;
    world
        .until_aws("it is cut off while the read hangs", async || {
            sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await
        })
        .await;
    let hanging = world.proxy.log().iter().any(|c| c.action == "DescribeSessions" && c.finished.is_none());
    assert!(hanging, "the read still hangs");
    let target = world.until_target("inc", 0, |t| t.message.contains("ssm:DescribeSessions: no answer")).await;
    assert_eq!(target.contained, "False", "{target:?}");
    world.proxy.recover("DescribeSessions");
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    until_alone(&world, id, &BTreeMap::new()).await;
}

#[tokio::test]
async fn a_plan_names_who_would_be_thrown_out_and_throws_out_nobody() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let (session, command) = (start_session(&world, id).await, send_command(&world, &[id]).await);
    let policy = world.policy("inc", json!({ "ec2Instance": { "contain": actions() } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let spec = json!({ "policyRef": { "name": world.policy_name("inc") }, "targets": [world.target_instance(id)] });
    world.declare("inc", "Plan", spec).await;
    world
        .until_aws("the plan names them", async || {
            let status = world.incidents().get("inc").await?.status.unwrap_or_default();
            let plan = json!(status.plan).to_string();
            ensure!(plan.contains(&format!("ssm:TerminateSession {session} of arn:aws:sts::")), "{plan}");
            ensure!(plan.contains(&format!("ssm:CancelCommand {command} (AWS-RunShellScript) on {id} only")), "{plan}");
            Ok(())
        })
        .await;
    assert_eq!(sight::open_sessions(&world.aws).await.unwrap().len(), 1);
}
