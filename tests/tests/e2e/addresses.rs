//! `removePublicAddresses`: none stays, none comes back while contained, and the same ones come back after.

use anyhow::ensure;
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::world;

fn remove() -> Value {
    json!([{ "removePublicAddresses": {} }])
}

async fn allocate(world: &World<'_>) -> String {
    world.aws.ec2.allocate_address().send().await.unwrap().allocation_id.unwrap()
}

async fn associate(world: &World<'_>, allocation: &str, interface: &str) {
    let call = world.aws.ec2.associate_address().allocation_id(allocation).network_interface_id(interface);
    call.allow_reassociation(true).send().await.unwrap();
}

async fn assign(world: &World<'_>, interface: &str) {
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
    call.associate_public_ip_address(true).send().await.unwrap();
}

async fn until_none(world: &World<'_>, interfaces: &[String]) {
    world
        .until_aws("no public address", async || {
            let shown = sight::public_addresses(&world.aws, interfaces).await?;
            ensure!(shown.values().all(Option::is_none), "{shown:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn public_addresses_go_stay_away_and_come_back() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let own = allocate(&world).await;
    assign(&world, &interfaces[0]).await;
    associate(&world, &own, &interfaces[0]).await; // hides what AWS assigned
    assign(&world, &interfaces[1]).await;
    let before = sight::public_addresses(&world.aws, interfaces).await.unwrap();
    assert!(before.values().all(Option::is_some), "{before:?}");
    let judge = Judge::of(&world).await;
    world.contain_instance("inc", id, remove()).await;
    let target = world.until_target("inc", 0, |t| t.contained == "True").await;
    assert!(target.message.contains("2 of 2 interfaces have no public IPv4 address"), "{target:?}");
    until_none(&world, interfaces).await;

    let theirs = allocate(&world).await;
    associate(&world, &theirs, &interfaces[1]).await;
    until_none(&world, interfaces).await;
    associate(&world, &own, &interfaces[0]).await;
    assign(&world, &interfaces[1]).await;
    until_none(&world, interfaces).await;

    let quarantine = world.quarantine_of(id).await.unwrap().metadata.name.unwrap();
    world.release("inc").await;
    assert_eq!(sight::public_addresses(&world.aws, interfaces).await.unwrap(), before);
    let events = world.events_of(&quarantine).await;
    assert!(events.iter().any(|e| e.starts_with("Released") && e.contains("is a new one")), "{events:#?}");
    judge.assert_no_call_was_wrong();
    let call = world.aws.ec2.describe_addresses().allocation_ids(&own).send().await.unwrap();
    let association = call.addresses()[0].association_id().unwrap().to_owned();
    world.aws.ec2.disassociate_address().association_id(association).send().await.unwrap();
    let shown = sight::public_addresses(&world.aws, interfaces).await.unwrap();
    assert!(shown[&interfaces[0]].is_some(), "what AWS assigns beneath came back too: {shown:?}");
}

#[tokio::test]
async fn an_interface_that_is_attached_later_keeps_no_public_address_either() {
    let (world, _guard) = world().await;
    let instance = &world.scene.instances[0];
    let own = allocate(&world).await;
    associate(&world, &own, &instance.interfaces[0]).await;
    let before = sight::public_addresses(&world.aws, &instance.interfaces).await.unwrap();
    world.contain_instance("inc", &instance.id, remove()).await;
    world.until("inc", "Contained", "True").await;
    let made = world.aws.ec2.create_network_interface().subnet_id(&world.scene.subnet).send().await.unwrap();
    let third = made.network_interface.unwrap().network_interface_id.unwrap();
    let theirs = allocate(&world).await;
    associate(&world, &theirs, &third).await;
    let attach = world.aws.ec2.attach_network_interface().instance_id(&instance.id).network_interface_id(&third);
    attach.device_index(2).send().await.unwrap();
    until_none(&world, &[&instance.interfaces[..], &[third]].concat()).await;
    world.until_target("inc", 0, |t| t.message.contains("3 of 3 interfaces have no public IPv4 address")).await;
    world.release("inc").await;
    assert_eq!(sight::public_addresses(&world.aws, &instance.interfaces).await.unwrap(), before);
}

#[tokio::test]
async fn an_address_that_somebody_took_meanwhile_is_for_a_person_to_decide() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let own = allocate(&world).await;
    associate(&world, &own, &interfaces[0]).await;
    let before = sight::public_addresses(&world.aws, interfaces).await.unwrap();
    world.contain_instance("inc", id, remove()).await;
    world.until("inc", "Contained", "True").await;
    let made = world.aws.ec2.create_network_interface().subnet_id(&world.scene.subnet).send().await.unwrap();
    let elsewhere = made.network_interface.unwrap().network_interface_id.unwrap();
    associate(&world, &own, &elsewhere).await;
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    for word in [&own, &elsewhere, &interfaces[0]] {
        assert!(message.contains(word.as_str()), "no {word}: {message}");
    }
    let still = sight::public_addresses(&world.aws, std::slice::from_ref(&elsewhere)).await.unwrap();
    assert!(still[&elsewhere].is_some(), "it is not taken away from them");
    world.steer(id, json!({ "release": { "onConflict": "RestoreOriginal" } })).await;
    world.until("inc", "Released", "True").await;
    assert_eq!(sight::public_addresses(&world.aws, interfaces).await.unwrap(), before);
}

#[tokio::test]
async fn an_address_that_was_released_meanwhile_is_said_and_the_rest_comes_back() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let (lost, kept) = (allocate(&world).await, allocate(&world).await);
    associate(&world, &lost, &interfaces[0]).await;
    associate(&world, &kept, &interfaces[1]).await;
    let before = sight::public_addresses(&world.aws, interfaces).await.unwrap();
    world.contain_instance("inc", id, remove()).await;
    world.until("inc", "Contained", "True").await;
    world.aws.ec2.release_address().allocation_id(&lost).send().await.unwrap();
    world.change("inc", json!({ "mode": "Release" })).await;
    let message = world.until_quarantine_says(id, "Stalled", "ReleaseConflict").await;
    assert!(message.contains(&lost) && message.contains("was released and cannot come back"), "{message}");
    world.steer(id, json!({ "release": { "onConflict": "KeepTheirs" } })).await;
    world.until("inc", "Released", "True").await;
    let after = sight::public_addresses(&world.aws, interfaces).await.unwrap();
    assert_eq!((&after[&interfaces[0]], &after[&interfaces[1]]), (&None, &before[&interfaces[1]]));
}
