//! `disableInstanceMetadata`: off, kept off, and given back as it was.

use anyhow::ensure;
use aws_sdk_ec2::types::{HttpTokensState, InstanceMetadataEndpointState, InstanceMetadataOptionsResponse};
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::conflicts::moved_away;
use crate::ground_up::world;

fn off() -> Value {
    json!([{ "disableInstanceMetadata": {} }])
}

async fn shown(world: &World<'_>, id: &str) -> InstanceMetadataOptionsResponse {
    sight::instance(&world.aws, id).await.unwrap().metadata_options.unwrap()
}

async fn until_off(world: &World<'_>, id: &str) {
    world
        .until_aws("the metadata service is off", async || {
            let options = sight::instance(&world.aws, id).await?.metadata_options.unwrap_or_else(|| unreachable!());
            ensure!(options.http_endpoint == Some(InstanceMetadataEndpointState::Disabled), "{options:?}");
            Ok(())
        })
        .await;
}

async fn require_tokens(world: &World<'_>, id: &str) {
    let call = world.aws.ec2.modify_instance_metadata_options().instance_id(id);
    call.http_tokens(HttpTokensState::Required).http_put_response_hop_limit(3).send().await.unwrap();
}

#[tokio::test]
async fn the_metadata_service_goes_off_stays_off_and_comes_back_as_it_was() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    require_tokens(&world, id).await;
    let before = shown(&world, id).await;
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, off()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("stay valid until they expire or revokeInstanceRole"), "{target:?}");
    until_off(&world, id).await;
    let kept = shown(&world, id).await;
    assert_eq!((kept.http_tokens, kept.http_put_response_hop_limit), (Some(HttpTokensState::Required), Some(3)));

    let on = world.aws.ec2.modify_instance_metadata_options().instance_id(id);
    on.http_endpoint(InstanceMetadataEndpointState::Enabled).send().await.unwrap();
    until_off(&world, id).await;

    world.release("inc").await;
    assert_eq!(shown(&world, id).await, before);
    assert_eq!(judge.assert_no_call_was_wrong(), 1);
}

#[tokio::test]
async fn a_service_that_was_off_before_stays_off() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let call = world.aws.ec2.modify_instance_metadata_options().instance_id(id);
    call.http_endpoint(InstanceMetadataEndpointState::Disabled).send().await.unwrap();
    let before = shown(&world, id).await;
    world.contain_instance("inc", id, off()).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    assert_eq!(shown(&world, id).await, before);
}

#[tokio::test]
async fn a_service_that_somebody_weakened_comes_back_as_a_person_decides() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    require_tokens(&world, id).await;
    let before = shown(&world, id).await;
    world.contain_instance("inc", id, off()).await;
    world.until("inc", "Contained", "True").await;
    let call = world.aws.ec2.modify_instance_metadata_options().instance_id(id);
    call.http_tokens(HttpTokensState::Optional).send().await.unwrap();
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    assert!(message.contains("HttpTokens optional") && message.contains("HttpTokens required"), "{message}");
    until_off(&world, id).await;
    world.steer(id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(shown(&world, id).await, before);
}

#[tokio::test]
async fn it_stays_off_while_it_waits_for_a_person_what_the_network_comes_back_to() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let (before, ec2) = (shown(&world, id).await, &world.aws.ec2);
    world.contain_instance("inc", id, json!([{ "isolateNetwork": {} }, { "disableInstanceMetadata": {} }])).await;
    world.until("inc", "Contained", "True").await;
    world.suspend(id).await;
    moved_away(&world, &interfaces[0]).await;
    world.let_go("inc", id).await;
    world.steer(id, json!({ "suspend": false })).await;
    world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    let now = shown(&world, id).await.http_endpoint;
    assert_eq!(now, Some(InstanceMetadataEndpointState::Disabled), "no new credentials on a network of the attacker's");

    let on = ec2.modify_instance_metadata_options().instance_id(id);
    on.http_endpoint(InstanceMetadataEndpointState::Enabled).send().await.unwrap();
    until_off(&world, id).await;
    world.steer(id, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(shown(&world, id).await, before);
}
