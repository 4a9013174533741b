//! What an isolated instance may still reach: listed, kept so, and only ever less.

use anyhow::ensure;
use aws_sdk_ec2::types::{IpPermission, IpRange};
use firebreak_tests::judge::Judge;
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::world;

/// A policy that isolates, but for these flows in.
fn allowing(ingress: &Value) -> Value {
    json!({ "ec2Instance": { "contain": [{ "isolateNetwork": { "severTrackedConnections": "Never", "allow": { "ingress": ingress } } }] } })
}

fn ssh(cidr: &str) -> Value {
    json!({ "cidr": cidr, "protocol": "tcp", "fromPort": 22 })
}

/// An Incident over the instance, with a policy of its own.
async fn contain(world: &World<'_>, incident: &str, policy: Value) {
    world.plane.apply(&world.policy(incident, policy).to_string()).await.unwrap();
    let policy = world.policy_name(incident);
    world
        .declare(incident, "Contain", json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] }))
        .await;
}

/// Every interface is in the group of a list, which has these rules and no other.
async fn until_allowed(world: &World<'_>, rules: &[&str]) -> String {
    let interfaces = &world.scene.instances[0].interfaces;
    world
        .until_aws("only what is listed is allowed", async || {
            let (name, found) = sight::one_group(&world.aws, interfaces).await?;
            ensure!(name.starts_with("firebreak-isolation-") && found == rules, "{name}: {found:?}");
            Ok(())
        })
        .await;
    sight::groups(&world.aws, interfaces).await.unwrap()[&interfaces[0]][0].clone()
}

fn rule(cidr: &str) -> IpPermission {
    let rule = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22);
    rule.ip_ranges(IpRange::builder().cidr_ip(cidr).build()).build()
}

#[tokio::test]
async fn a_list_is_let_through_kept_as_it_is_and_given_back_with_the_rest() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let (ec2, interfaces) = (&world.aws.ec2, &world.scene.instances[0].interfaces);
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    let mut policy = allowing(&json!([ssh("10.9.0.5/32")]));
    let egress = json!([{ "cidr": "10.9.1.0/24", "protocol": "tcp", "fromPort": 443, "toPort": 444 }]);
    policy["ec2Instance"]["contain"][0]["isolateNetwork"]["allow"]["egress"] = egress;
    contain(&world, "inc", policy).await;
    world.until("inc", "Contained", "True").await;
    let rules = ["in tcp 22-22 10.9.0.5/32", "out tcp 443-444 10.9.1.0/24"];
    let group = until_allowed(&world, &rules).await;
    let said = "allowed on 2 of them: in tcp 22 10.9.0.5/32; out tcp 443-444 10.9.1.0/24";
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains(said)).await;

    let open = ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(rule("0.0.0.0/0"));
    open.send().await.unwrap();
    until_allowed(&world, &rules).await;
    let take = ec2.revoke_security_group_ingress().group_id(&group).ip_permissions(rule("10.9.0.5/32"));
    take.send().await.unwrap();
    until_allowed(&world, &rules).await;
    let switch = ec2.modify_network_interface_attribute().network_interface_id(&interfaces[1]);
    switch.groups(&group).groups(&world.scene.groups[1]).send().await.unwrap();
    until_allowed(&world, &rules).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn of_two_lists_what_both_allow_gets_through_and_no_more_when_one_lets_go() {
    let (world, _guard) = world().await;
    let judge = Judge::of(&world).await;
    let interfaces = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    contain(&world, "first", allowing(&json!([ssh("10.9.0.0/24"), ssh("10.8.0.0/16")]))).await;
    world.until("first", "Contained", "True").await;
    until_allowed(&world, &["in tcp 22-22 10.8.0.0/16", "in tcp 22-22 10.9.0.0/24"]).await;

    contain(&world, "second", allowing(&json!([{ "cidr": "10.9.0.5/32", "protocol": "all" }]))).await;
    world.until("second", "Contained", "True").await;
    until_allowed(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
    world.release("second").await;
    world.until("first", "Contained", "True").await;
    let said = "the list asked for is not allowed whole";
    world.until_target("first", 0, |t| t.contained == "True" && t.message.contains(said)).await;
    until_allowed(&world, &["in tcp 22-22 10.9.0.5/32"]).await;

    contain(&world, "third", json!({ "ec2Instance": { "contain": [{ "isolateNetwork": {} }] } })).await;
    world.until("third", "Contained", "True").await;
    world.until_aws("nothing gets through", async || sight::isolated(&world.aws, interfaces).await).await;
    for incident in ["third", "first"] {
        world.release(incident).await;
    }
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn where_the_list_cannot_be_let_through_the_instance_is_cut_off_all_the_same() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.proxy.fail("AuthorizeSecurityGroupIngress", 403, "UnauthorizedOperation", "not authorized");
    contain(&world, "inc", allowing(&json!([ssh("10.9.0.5/32")]))).await;
    let says = |message: &str| message.contains("allowed on 0 of them") && message.contains("AuthorizeSecurityGroupIngress");
    world.until_target("inc", 0, |t| t.contained == "True" && says(&t.message)).await;
    sight::isolated(&world.aws, interfaces).await.unwrap();

    world.proxy.recover("AuthorizeSecurityGroupIngress");
    world.look_now().await;
    until_allowed(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
}

#[tokio::test]
async fn the_group_of_a_list_is_left_where_it_lets_through_more_and_cannot_be_put_right() {
    let (world, _guard) = world().await;
    let (ec2, interfaces) = (&world.aws.ec2, &world.scene.instances[0].interfaces);
    contain(&world, "inc", allowing(&json!([ssh("10.9.0.5/32")]))).await;
    world.until("inc", "Contained", "True").await;
    let group = until_allowed(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
    world.proxy.fail("RevokeSecurityGroupIngress", 403, "UnauthorizedOperation", "not authorized");
    let open = ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(rule("10.9.0.6/32"));
    open.send().await.unwrap();
    world.until_aws("nothing gets through", async || sight::isolated(&world.aws, interfaces).await).await;
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("allowed on 0 of them")).await;

    world.proxy.recover("RevokeSecurityGroupIngress");
    world.look_now().await;
    until_allowed(&world, &["in tcp 22-22 10.9.0.5/32"]).await;
}

#[tokio::test]
async fn the_api_server_refuses_a_list_that_lets_everybody_through() {
    let (world, _guard) = world().await;
    for (cidr, refusal) in [
        ("0.0.0.0/0", "what is open to 0.0.0.0/0, ::/0 or another wide network is not isolated"),
        ("::/0", "what is open to 0.0.0.0/0, ::/0 or another wide network is not isolated"),
        ("10.9.0.5/8", "each cidr is a network without host bits"),
        ("workstation", "each cidr is a network without host bits"),
    ] {
        let policy = world.policy("wide", allowing(&json!([ssh(cidr)])));
        let refused = world.plane.apply(&policy.to_string()).await.unwrap_err();
        assert!(format!("{refused:#}").contains(refusal), "{cidr}: {refused:#}");
    }
    world.plane.apply(&world.policy("narrow", allowing(&json!([ssh("2001:db8::/64")]))).to_string()).await.unwrap();
}
