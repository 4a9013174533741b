//! Isolation in a security group of the policy's own: verified, and never edited.

use anyhow::ensure;
use aws_sdk_ec2::types::{IpPermission, IpRange};
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// A group of the responders' own, that lets this network in by SSH and nothing out.
pub async fn forensics(world: &World<'_>, cidr: &str) -> String {
    let ec2 = &world.aws.ec2;
    let made = ec2.create_security_group().group_name("forensics").description("ours").vpc_id(&world.scene.vpc);
    let group = made.send().await.unwrap().group_id.unwrap();
    let everywhere = IpPermission::builder().ip_protocol("-1").ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build());
    ec2.revoke_security_group_egress().group_id(&group).ip_permissions(everywhere.build()).send().await.unwrap();
    allow(world, &group, cidr).await;
    group
}

fn ssh(cidr: &str) -> IpPermission {
    let rule = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22);
    rule.ip_ranges(IpRange::builder().cidr_ip(cidr).build()).build()
}

/// Lets a network in by SSH.
pub async fn allow(world: &World<'_>, group: &str, cidr: &str) {
    let call = world.aws.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(ssh(cidr));
    call.send().await.unwrap();
}

async fn contain(world: &World<'_>, group: &str) {
    let isolate = json!({ "severTrackedConnections": "Never", "securityGroupIds": [group] });
    let policy = world.policy("own", json!({ "ec2Instance": { "contain": [{ "isolateNetwork": isolate }] } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let policy = world.policy_name("own");
    world.declare("inc", "Contain", json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] })).await;
}

/// Every interface is in the group alone, which has these rules.
async fn until_in(world: &World<'_>, rules: &[&str]) {
    let interfaces = &world.scene.instances[0].interfaces;
    world
        .until_aws("isolated in the policy's own group", async || {
            let (name, found) = sight::one_group(&world.aws, interfaces).await?;
            ensure!(name == "forensics" && found == rules, "{name}: {found:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_group_of_the_policys_own_is_used_while_it_is_right_and_left_while_it_is_not() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (ec2, interfaces) = (&world.aws.ec2, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    let group = forensics(&world, "10.9.0.5/32").await;
    contain(&world, &group).await;
    world.until("inc", "Contained", "True").await;
    until_in(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
    let said = format!("allowed on 2 of them: what {group} lets through");
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(&said)).await;

    let switch = ec2.modify_network_interface_attribute().network_interface_id(&interfaces[1]);
    switch.groups(&group).groups(&world.scene.groups[1]).send().await.unwrap();
    until_in(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
    allow(&world, &group, "10.9.0.6/32").await;
    world.until_aws("nothing gets through", async || sight::isolated(&world.aws, interfaces).await).await;
    let said = "it lets through more than when it was first used";
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(said)).await;
    ec2.revoke_security_group_ingress().group_id(&group).ip_permissions(ssh("10.9.0.6/32")).send().await.unwrap();
    until_in(&world, &["in tcp 22-22 10.9.0.5/32"]).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
    let edits = ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress"];
    let edited =
        |c: &firebreak_tests::proxy::Call| edits.contains(&c.action.as_str()) && c.params.get("GroupId") == Some(&group);
    assert_eq!(world.proxy.count(edited), 0, "it is never edited");
}

#[tokio::test]
async fn a_group_that_lets_everybody_in_isolates_nothing_and_is_not_used() {
    let (world, _guard) = world().await;
    let group = forensics(&world, "0.0.0.0/0").await;
    contain(&world, &group).await;
    let said = format!("{group} is not used, nothing gets through instead: it may name networks alone");
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(&said)).await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}
