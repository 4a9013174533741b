//! An instance leaves its Auto Scaling group, stays out whatever the attacker does, and comes back only where the policy says so.

use anyhow::ensure;
use firebreak_crds::{ActionState, get_condition};
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::join_scaling_group;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

const GROUP: &str = "web";

/// Contained by this mode alone, and released with or without the place in the group.
async fn contained(world: &World<'_>, mode: &str, rejoin: bool) {
    let contain = json!([{ "isolateNetwork": {} }, { "detachFromAutoScaling": { "mode": mode } }]);
    let policy = json!({ "ec2Instance": { "contain": contain }, "release": { "rejoinAutoScaling": rejoin } });
    world.plane.apply(&world.policy("scaling", policy).to_string()).await.unwrap();
    declare(world).await;
    world.until("inc", "Contained", "True").await;
}

async fn declare(world: &World<'_>) {
    let spec = json!({ "policyRef": { "name": world.policy_name("scaling") }, "targets": [world.instance_target(0)] });
    world.declare("inc", "Contain", spec).await;
}

async fn until_place(world: &World<'_>, expected: Option<(String, String, bool)>) {
    let id = &world.scene.instances[0].id;
    world
        .until_aws(&format!("its place is {expected:?}"), async || {
            let now = sight::membership(&world.aws, id).await?;
            ensure!(now == expected, "{now:?}");
            Ok(())
        })
        .await;
}

/// What the Quarantine says of the action.
async fn said(world: &World<'_>, state: ActionState, words: &str) {
    let id = &world.scene.instances[0].id;
    world
        .until_quarantine(id, words, |q| {
            let actions = q.status.iter().flat_map(|s| &s.actions);
            let found = actions.into_iter().find(|a| a.name == "detachFromAutoScaling");
            found.is_some_and(|a| a.state == state && a.message.contains(words))
        })
        .await;
}

#[tokio::test]
async fn a_detached_instance_is_replaced_stays_out_and_is_not_given_back_by_default() {
    let (world, _guard) = world().await;
    let (id, aws) = (&world.scene.instances[0].id, &world.aws);
    join_scaling_group(aws, &world.scene, GROUP, 3).await.unwrap();
    let judge = Judge::of(&world).await;
    contained(&world, "Detach", false).await;
    until_place(&world, None).await;
    assert_eq!(sight::capacity(aws, GROUP).await.unwrap(), (1, 1), "a replacement serves");
    said(&world, ActionState::InForce, "out of Auto Scaling group web").await;

    world.until_drift_counts(id).await;
    let attach = aws.autoscaling.attach_instances().auto_scaling_group_name(GROUP).instance_ids(id);
    attach.send().await.unwrap();
    until_place(&world, None).await;
    world.until_event("inc", "DriftDetected", &["it was InService in Auto Scaling group web"]).await;

    let name = world.quarantine_of(id).await.unwrap().metadata.name.unwrap();
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::membership(aws, id).await.unwrap(), None);
    world.until_event(&name, "Released", &["it stays out of web", "release.rejoinAutoScaling"]).await;
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_release_that_rejoins_waits_for_room_and_gives_the_place_and_its_protection_back() {
    let (world, _guard) = world().await;
    let (id, aws) = (&world.scene.instances[0].id, &world.aws);
    join_scaling_group(aws, &world.scene, GROUP, 1).await.unwrap();
    let protect = aws.autoscaling.set_instance_protection().auto_scaling_group_name(GROUP).instance_ids(id);
    protect.protected_from_scale_in(true).send().await.unwrap();
    let before = sight::membership(aws, id).await.unwrap();
    assert!(before.as_ref().is_some_and(|(.., protected)| *protected));
    let judge = Judge::of(&world).await;
    contained(&world, "Detach", true).await;
    until_place(&world, None).await;

    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    for word in [GROUP, "desired capacity", "MaxSize of 1", "KeepTheirs"] {
        assert!(message.contains(word), "no {word}: {message}");
    }
    assert_eq!(sight::capacity(aws, GROUP).await.unwrap(), (1, 1));
    aws.autoscaling.update_auto_scaling_group().auto_scaling_group_name(GROUP).max_size(2).send().await.unwrap();
    let name = world.quarantine_of(id).await.unwrap().metadata.name.unwrap();
    world.look_now().await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::membership(aws, id).await.unwrap(), before);
    assert_eq!(sight::capacity(aws, GROUP).await.unwrap(), (2, 2));
    world.until_event(&name, "Released", &["the desired capacity grew by one"]).await;
    assert!(judge.assert_no_call_was_wrong() > 0, "AttachInstances was judged");
}

#[tokio::test]
async fn an_instance_in_standby_is_kept_there_and_protected_and_comes_back_as_it_was() {
    let (world, _guard) = world().await;
    let (id, aws) = (&world.scene.instances[0].id, &world.aws);
    join_scaling_group(aws, &world.scene, GROUP, 4).await.unwrap();
    let serving = Some((GROUP.to_owned(), "InService".to_owned(), false));
    assert_eq!(sight::membership(aws, id).await.unwrap(), serving);
    let judge = Judge::of(&world).await;
    contained(&world, "Standby", true).await;
    let standby = Some((GROUP.to_owned(), "Standby".to_owned(), true));
    until_place(&world, standby.clone()).await;
    said(&world, ActionState::InForce, "an instance refresh may end it").await;

    aws.autoscaling.exit_standby().auto_scaling_group_name(GROUP).instance_ids(id).send().await.unwrap();
    until_place(&world, standby.clone()).await;
    let expose = aws.autoscaling.set_instance_protection().auto_scaling_group_name(GROUP).instance_ids(id);
    expose.protected_from_scale_in(false).send().await.unwrap();
    until_place(&world, standby).await;

    let (desired, _) = sight::capacity(aws, GROUP).await.unwrap();
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::membership(aws, id).await.unwrap(), serving);
    assert_eq!(sight::capacity(aws, GROUP).await.unwrap().0, desired + 1);
    assert!(judge.assert_no_call_was_wrong() > 0);
}

#[tokio::test]
async fn neither_protection_nor_detachment_waits_for_the_other_and_only_the_latter_is_needed() {
    let (world, _guard) = world().await;
    let (id, aws) = (&world.scene.instances[0].id, &world.aws);
    join_scaling_group(aws, &world.scene, GROUP, 3).await.unwrap();
    world.proxy.fail("DetachInstances", 403, "AccessDenied", "not authorized");
    let contain = json!([{ "isolateNetwork": {} }, { "detachFromAutoScaling": {} }]);
    let policy = json!({ "ec2Instance": { "contain": contain } });
    world.plane.apply(&world.policy("scaling", policy).to_string()).await.unwrap();
    declare(&world).await;
    let target = world.until_target("inc", 0, |t| t.message.contains("autoscaling:DetachInstances")).await;
    assert!(target.contained == "False" && target.message.contains("grant it to the role"), "{target:?}");
    until_place(&world, Some((GROUP.into(), "InService".into(), true))).await;
    sight::isolated(aws, &world.scene.instances[0].interfaces).await.unwrap();

    world.proxy.fail("SetInstanceProtection", 400, "ValidationError", "in a warm pool");
    world.proxy.recover("DetachInstances");
    let expose = aws.autoscaling.set_instance_protection().auto_scaling_group_name(GROUP).instance_ids(id);
    expose.protected_from_scale_in(false).send().await.unwrap();
    world.look_now().await;
    until_place(&world, None).await;
    world.until("inc", "Contained", "True").await;
    let quarantine = world.until_quarantine(id, "ready", |q| {
        let conditions = q.status.clone().unwrap_or_default().conditions;
        get_condition(&conditions, "Ready").is_some_and(|c| c.status == "True")
    });
    quarantine.await;
}

#[tokio::test]
async fn an_instance_in_no_group_is_contained_and_a_later_group_is_left_and_not_rejoined() {
    let (world, _guard) = world().await;
    let (id, aws) = (&world.scene.instances[0].id, &world.aws);
    contained(&world, "Detach", true).await;
    said(&world, ActionState::InForce, "in no Auto Scaling group").await;
    join_scaling_group(aws, &world.scene, GROUP, 3).await.unwrap();
    until_place(&world, None).await;
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::membership(aws, id).await.unwrap(), None);
}
