//! Idle flows are forgotten sooner while an instance is isolated, and later again after the release.

use anyhow::ensure;
use aws_sdk_ec2::types::ConnectionTrackingSpecificationRequest;
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

async fn set(world: &World<'_>, interface: &str, tcp: i32) {
    let tracking = ConnectionTrackingSpecificationRequest::builder().tcp_established_timeout(tcp).udp_stream_timeout(120);
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
    call.connection_tracking_specification(tracking.build()).send().await.unwrap();
}

async fn until_short(world: &World<'_>) {
    let interfaces = &world.scene.instances[0].interfaces;
    world
        .until_aws("idle flows are forgotten soon", async || {
            let shown = sight::idle_timeouts(&world.aws, interfaces).await?;
            ensure!(shown.values().all(|idle| *idle == Some((60, 60))), "{shown:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn idle_flows_are_forgotten_after_a_minute_until_the_release_gives_back_what_was_set() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let interfaces = &world.scene.instances[0].interfaces;
    set(&world, &interfaces[0], 350).await;
    let before = sight::idle_timeouts(&world.aws, interfaces).await.unwrap();
    let isolate = json!({ "severTrackedConnections": "Never", "shortenConnectionTracking": true });
    let policy = world.policy("short", json!({ "ec2Instance": { "contain": [{ "isolateNetwork": isolate }] } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let policy = world.policy_name("short");
    world.declare("inc", "Contain", json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    until_short(&world).await;
    let said = "flows idle for 60 s are forgotten on 2 of 2";
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(said)).await;
    set(&world, &interfaces[1], 432_000).await;
    until_short(&world).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    let after = sight::idle_timeouts(&world.aws, interfaces).await.unwrap();
    assert_eq!((after[&interfaces[0]], after[&interfaces[0]]), (Some((350, 120)), before[&interfaces[0]]));
    assert_eq!((before[&interfaces[1]], after[&interfaces[1]]), (None, Some((432_000, 180))), "what AWS has of its own");
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn the_cut_does_not_wait_for_it_and_a_refusal_is_no_failure() {
    let (world, _guard) = world().await;
    world.proxy.fail("DescribeInstanceTypes", 403, "UnauthorizedOperation", "not authorized");
    let policy = json!([{ "isolateNetwork": { "severTrackedConnections": "Never", "shortenConnectionTracking": true } }]);
    let policy = world.policy("short", json!({ "ec2Instance": { "contain": policy } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let policy = world.policy_name("short");
    world.declare("inc", "Contain", json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] })).await;
    let said = "flows idle for 60 s are forgotten on 0 of 2: AWS does not answer ec2:DescribeInstanceTypes";
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(said)).await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}
