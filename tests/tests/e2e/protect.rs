//! `protectFromTermination`: kept against whoever takes it away, and given back exactly.

use anyhow::ensure;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, AttributeValue, EbsInstanceBlockDeviceSpecification, InstanceBlockDeviceMappingSpecification,
};
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::world;

fn protect() -> Value {
    json!([{ "protectFromTermination": {} }])
}

fn on(value: bool) -> AttributeBooleanValue {
    AttributeBooleanValue::builder().value(value).build()
}

async fn set_termination(world: &World<'_>, id: &str, value: bool) {
    let call = world.aws.ec2.modify_instance_attribute().instance_id(id).disable_api_termination(on(value));
    call.send().await.unwrap();
}

async fn set_stop(world: &World<'_>, id: &str, value: bool) {
    world.aws.ec2.modify_instance_attribute().instance_id(id).disable_api_stop(on(value)).send().await.unwrap();
}

async fn set_shutdown(world: &World<'_>, id: &str, value: &str) {
    let value = AttributeValue::builder().value(value).build();
    let call = world.aws.ec2.modify_instance_attribute().instance_id(id).instance_initiated_shutdown_behavior(value);
    call.send().await.unwrap();
}

async fn set_delete(world: &World<'_>, id: &str, device: &str, value: bool) {
    let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(value).build();
    let mapping = InstanceBlockDeviceMappingSpecification::builder().device_name(device).ebs(ebs).build();
    world.aws.ec2.modify_instance_attribute().instance_id(id).block_device_mappings(mapping).send().await.unwrap();
}

async fn until_protected(world: &World<'_>, id: &str) {
    world
        .until_aws("protected", async || {
            let shown = sight::protection(&world.aws, id).await?;
            let open = shown.iter().find(|(name, value)| match name.as_str() {
                "DisableApiTermination" | "DisableApiStop" => *value != "true",
                "InstanceInitiatedShutdownBehavior" => *value != "stop",
                _ => *value != "false",
            });
            ensure!(open.is_none(), "{shown:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_instance_is_kept_from_being_destroyed_and_given_back_exactly() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    set_shutdown(&world, id, "terminate").await;
    set_delete(&world, id, "/dev/sdb", false).await;
    let before = sight::protection(&world.aws, id).await.unwrap();
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, protect()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    until_protected(&world, id).await;
    let refused = world.aws.ec2.terminate_instances().instance_ids(id).send().await.unwrap_err();
    assert!(format!("{refused:?}").contains("OperationNotPermitted"), "{refused:?}");
    assert!(target.message.contains("3 of 3 attributes protect it; 3 of 3 volumes outlive it"), "{target:?}");

    set_termination(&world, id, false).await;
    set_shutdown(&world, id, "terminate").await;
    until_protected(&world, id).await;
    set_stop(&world, id, false).await;
    set_delete(&world, id, "/dev/sdb", true).await;
    until_protected(&world, id).await;

    world.release("inc").await;
    assert_eq!(sight::protection(&world.aws, id).await.unwrap(), before);
    assert_eq!(
        judge.assert_no_call_was_wrong(),
        4,
        "one call for each attribute, and one for the volumes, gave something back"
    );
}

#[tokio::test]
async fn a_volume_that_is_attached_later_outlives_the_instance_too() {
    let (world, _guard) = world().await;
    let (ec2, id) = (&world.aws.ec2, &world.scene.instances[0].id);
    let before = sight::protection(&world.aws, id).await.unwrap();
    world.contain_instance("inc", id, protect()).await;
    world.until("inc", "Contained", "True").await;
    let shown = ec2.describe_volumes().send().await.unwrap();
    let zone = shown.volumes()[0].availability_zone().unwrap();
    let made = ec2.create_volume().availability_zone(zone).size(1).send().await.unwrap();
    let attach = ec2.attach_volume().instance_id(id).volume_id(made.volume_id().unwrap()).device("/dev/sdx");
    attach.send().await.unwrap();
    set_delete(&world, id, "/dev/sdx", true).await;
    until_protected(&world, id).await;
    world.until_target("inc", 0, |t| t.message.contains("4 of 4 volumes outlive it")).await;
    world.release("inc").await;
    let mut after = sight::protection(&world.aws, id).await.unwrap();
    after.retain(|name, _| before.contains_key(name));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_protection_that_was_there_before_and_is_gone_is_for_a_person_to_decide() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    set_termination(&world, id, true).await;
    let before = sight::protection(&world.aws, id).await.unwrap();
    world.contain_instance("inc", id, protect()).await;
    world.until("inc", "Contained", "True").await;
    world.suspend(id).await;
    set_termination(&world, id, false).await;
    world.let_go("inc", id).await;
    world.steer(id, json!({ "suspend": false })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    assert!(message.contains("disableApiTermination") && message.contains("RestoreOriginal"), "{message}");
    world.steer(id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::protection(&world.aws, id).await.unwrap(), before);
}

#[tokio::test]
async fn what_a_spot_instance_cannot_have_is_said_and_the_rest_is_set() {
    let (world, _guard) = world().await;
    let id = &world.scene.spot_instance(&world.aws).await.unwrap().id;
    set_shutdown(&world, id, "terminate").await;
    let before = sight::protection(&world.aws, id).await.unwrap();
    world.contain_instance("inc", id, protect()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("Spot") && target.message.contains("1 of 1 attributes"), "{target:?}");
    let shown = sight::protection(&world.aws, id).await.unwrap();
    assert_eq!(shown["InstanceInitiatedShutdownBehavior"], "stop");
    assert_eq!(shown.values().filter(|value| *value == "false").count(), 5, "two attributes, three volumes: {shown:?}");
    world.release("inc").await;
    assert_eq!(sight::protection(&world.aws, id).await.unwrap(), before);
}

#[tokio::test]
async fn an_attribute_that_aws_refuses_holds_no_other_back() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    world.proxy.fail("ModifyInstanceAttribute/DisableApiStop", 403, "UnauthorizedOperation", "not authorized");
    world.contain_instance("inc", id, protect()).await;
    let target = world.until_target("inc", 0, |t| t.reason == "AccessDenied").await;
    assert!(target.message.contains("ec2:ModifyInstanceAttribute"), "{target:?}");
    world.until("inc", "Contained", "False").await;
    let shown = sight::protection(&world.aws, id).await.unwrap();
    let (stop, rest): (Vec<_>, Vec<_>) = shown.iter().partition(|(name, _)| *name == "DisableApiStop");
    assert_eq!(stop[0].1, "false");
    assert!(
        rest.iter().all(|(name, value)| *value
            == if name.starts_with("vol-") {
                "false"
            } else if *name == "DisableApiTermination" {
                "true"
            } else {
                "stop"
            }),
        "{rest:?}"
    );
    world.proxy.recover("ModifyInstanceAttribute/DisableApiStop");
    world.look_now().await;
    until_protected(&world, id).await;
    world.until("inc", "Contained", "True").await;
}
