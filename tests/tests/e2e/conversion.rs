//! The seconds in which an interface is opened to cut the flows that the VPC tracks.

use firebreak_crds::{ConversionState, Quarantine};
use firebreak_tests::proxy::{Call, When};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// An Incident over the instance alone, without evidence, so that the changing calls come in a known order.
async fn contain(world: &World<'_>, tracked: &str) {
    let policy = json!({ "ec2Instance": { "contain": [{ "isolateNetwork": { "severTrackedConnections": tracked } }] } });
    world.plane.apply(&world.policy(&tracked.to_lowercase(), policy).to_string()).await.unwrap();
    let policy = world.policy_name(&tracked.to_lowercase());
    let spec = json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] });
    world.declare("inc", "Contain", spec).await;
}

fn conversion(quarantine: &Quarantine, interface: &str) -> Option<ConversionState> {
    quarantine.spec.conversions.iter().find(|c| c.interface_id == interface).map(|c| c.state)
}

/// The id of the group that lets everything through, if there is one.
async fn conversion_group(world: &World<'_>) -> Option<String> {
    let answer = world.aws.ec2.describe_security_groups().send().await.unwrap();
    let found = answer.security_groups().iter().find(|g| g.group_name() == Some("firebreak-conversion"));
    found.and_then(|g| g.group_id.clone())
}

/// The calls that move this interface to that group.
fn moves<'a>(calls: &'a [Call], interface: &str, group: &str) -> Vec<&'a Call> {
    let moves = |call: &&Call| {
        call.action == "ModifyNetworkInterfaceAttribute"
            && call.params.get("NetworkInterfaceId").is_some_and(|id| id == interface)
            && call.params.get("SecurityGroupId.1").is_some_and(|id| id == group)
    };
    calls.iter().filter(moves).collect()
}

#[tokio::test]
async fn an_interface_is_isolated_and_its_window_recorded_before_it_is_opened_and_closed_again() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    // Two isolate; the conversion group is made and given its rules; the sixth call opens the first interface.
    let mut held = world.proxy.hold_changing(6, When::Before);
    contain(&world, "Always").await;
    let opening = held.reached().await;
    let group = conversion_group(&world).await.unwrap();
    let interface = opening.params["NetworkInterfaceId"].clone();
    assert_eq!((opening.action.as_str(), &opening.params["SecurityGroupId.1"]), ("ModifyNetworkInterfaceAttribute", &group));
    let recorded = world.quarantine_of(id).await.unwrap();
    assert_eq!(conversion(&recorded, &interface), Some(ConversionState::Open));
    sight::isolated(&world.aws, &[interface]).await.unwrap();
    held.release();

    let closed = |q: &Quarantine| interfaces.iter().all(|i| conversion(q, i) == Some(ConversionState::Closed));
    world.until_quarantine(id, "closed", closed).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    let calls = world.proxy.changing();
    let isolation = moves(&calls, &interfaces[0], &group)[0].seq;
    for interface in interfaces {
        let opened = moves(&calls, interface, &group);
        assert_eq!(opened.len(), 1, "each interface is opened once");
        let last = calls.iter().rfind(|c| c.params.get("NetworkInterfaceId") == Some(interface)).unwrap();
        assert!(last.seq > isolation && last.params["SecurityGroupId.1"] != group);
    }
}

#[tokio::test]
async fn never_opens_no_interface() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    give_public_address(&world, &interfaces[0]).await;
    contain(&world, "Never").await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    assert_eq!(conversion_group(&world).await, None);
    assert!(world.quarantine_of(id).await.unwrap().spec.conversions.is_empty());
}

#[tokio::test]
async fn auto_converts_what_has_a_public_address_and_skips_what_cannot_be_reached_from_outside() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    give_public_address(&world, &interfaces[0]).await;
    contain(&world, "Auto").await;
    world.until("inc", "Contained", "True").await;
    let quarantine = world.until_quarantine(id, "decided", |q| q.spec.conversions.len() == 2).await;
    world.until_quarantine(id, "closed", |q| conversion(q, &interfaces[0]) == Some(ConversionState::Closed)).await;
    assert_eq!(conversion(&quarantine, &interfaces[1]), Some(ConversionState::Skipped));
    let (calls, group) = (world.proxy.changing(), conversion_group(&world).await.unwrap());
    assert_eq!((moves(&calls, &interfaces[0], &group).len(), moves(&calls, &interfaces[1], &group).len()), (1, 0));
    sight::isolated(&world.aws, interfaces).await.unwrap();
}

async fn give_public_address(world: &World<'_>, interface: &str) {
    let address = world.aws.ec2.allocate_address().domain("vpc".into()).send().await.unwrap().allocation_id.unwrap();
    let call = world.aws.ec2.associate_address().allocation_id(address).network_interface_id(interface);
    call.send().await.unwrap();
}

#[tokio::test]
async fn auto_converts_what_has_a_route_to_an_internet_gateway() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    route_to_internet(&world).await;
    contain(&world, "Auto").await;
    world.until("inc", "Contained", "True").await;
    let closed = |q: &Quarantine| interfaces.iter().all(|i| conversion(q, i) == Some(ConversionState::Closed));
    world.until_quarantine(id, "converted", closed).await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
}

async fn route_to_internet(world: &World<'_>) {
    let (ec2, vpc) = (&world.aws.ec2, &world.scene.vpc);
    let gateway = ec2.create_internet_gateway().send().await.unwrap().internet_gateway.unwrap().internet_gateway_id.unwrap();
    ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(vpc).send().await.unwrap();
    let tables = ec2.describe_route_tables().send().await.unwrap();
    let table = tables.route_tables().iter().find(|t| t.vpc_id() == Some(vpc)).unwrap().route_table_id.clone();
    let route = ec2.create_route().set_route_table_id(table).destination_cidr_block("0.0.0.0/0").gateway_id(gateway);
    route.send().await.unwrap();
}
