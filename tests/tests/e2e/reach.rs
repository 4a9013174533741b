//! What no security group stops is told, and nothing waits for it.

use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// A subnet routed through a NAT gateway, with an Instance Connect endpoint; and the serial console is on.
async fn ways_in(world: &World<'_>) -> [String; 2] {
    let (ec2, vpc, subnet) = (&world.aws.ec2, &world.scene.vpc, &world.scene.subnet);
    let address = ec2.allocate_address().domain("vpc".into()).send().await.unwrap().allocation_id.unwrap();
    let nat = ec2.create_nat_gateway().subnet_id(subnet).allocation_id(address).send().await.unwrap();
    let nat = nat.nat_gateway.unwrap().nat_gateway_id.unwrap();
    let tables = ec2.describe_route_tables().send().await.unwrap();
    let table = tables.route_tables().iter().find(|t| t.vpc_id() == Some(vpc)).unwrap().route_table_id.clone();
    let route = ec2.create_route().set_route_table_id(table).destination_cidr_block("0.0.0.0/0").nat_gateway_id(&nat);
    route.send().await.unwrap();
    let connect = ec2.create_instance_connect_endpoint().subnet_id(subnet).send().await.unwrap();
    let connect = connect.instance_connect_endpoint.unwrap().instance_connect_endpoint_id.unwrap();
    ec2.enable_serial_console_access().send().await.unwrap();
    [connect, nat]
}

#[tokio::test]
async fn what_no_group_stops_is_said_of_a_contained_instance_and_read_once_for_many_looks() {
    let (world, _guard) = world().await;
    let [connect, nat] = ways_in(&world).await;
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    let said = format!("open flows may go on through {connect}, {nat}; the account's EC2 serial console is on");
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(&said)).await;

    let asked = || world.proxy.count(|c| c.action == "GetSerialConsoleAccessStatus");
    world.until_answered("DescribeNetworkInterfaces", 2).await;
    assert_eq!(asked(), 1);
}

#[tokio::test]
async fn nothing_waits_for_what_is_only_told_and_what_aws_does_not_say_is_named() {
    let (world, _guard) = world().await;
    world.proxy.fail("GetSerialConsoleAccessStatus", 403, "UnauthorizedOperation", "not authorized");
    world.proxy.hang("DescribeInstanceConnectEndpoints");
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    let said = "AWS does not answer ec2:DescribeInstanceConnectEndpoints, ec2:GetSerialConsoleAccessStatus";
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(said)).await;
}
