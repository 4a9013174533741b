//! The attacker pushes back. Whatever is changed is put back, and once AWS can no longer be late to show what Firebreak wrote,
//! it is counted and told.

use anyhow::ensure;
use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range};
use firebreak_crds::conditions::{CONTAINED, DRIFT_DETECTED};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::ground_up::world;

/// A contained world, long enough after the last write that a change counts as somebody's.
async fn contained(world: &World<'_>, id: &str) {
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    world.until_drift_counts(id).await;
}

/// The change was counted once, and the Quarantine's condition and the events of it and of the Incident name it.
async fn told(world: &World<'_>, id: &str, words: &[&str]) {
    let quarantine = world.until_quarantine(id, "counts", |q| q.status.as_ref().is_some_and(|s| s.drift_count > 0)).await;
    assert_eq!(quarantine.status.as_ref().unwrap().drift_count, 1, "{quarantine:#?}");
    let message = world.until_quarantine_says(id, DRIFT_DETECTED, "Repaired").await;
    words.iter().for_each(|word| assert!(message.contains(word), "no {word}: {message}"));
    for object in [quarantine.metadata.name.as_deref().unwrap(), "inc"] {
        world
            .until_aws(&format!("an event of {object} tells"), async || {
                let events = world.events_of(object).await;
                let drift = events.iter().find(|e| e.starts_with("DriftDetected"));
                ensure!(drift.is_some_and(|e| words.iter().all(|w| e.contains(w))), "{events:#?}");
                Ok(())
            })
            .await;
    }
    world.until_quarantine_says(id, CONTAINED, "Enforcing").await;
    world.until("inc", "Contained", "True").await;
}

/// Puts an interface into these groups.
pub async fn set_groups(world: &World<'_>, interface: &str, groups: &[&String]) {
    let groups = groups.iter().map(|g| (*g).clone()).collect();
    let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
    call.set_groups(Some(groups)).send().await.unwrap();
}

async fn until_isolated(world: &World<'_>, interfaces: &[String]) {
    world.until_aws("isolated again", async || sight::isolated(&world.aws, interfaces).await).await;
}

async fn until_cut_off(world: &World<'_>) {
    world.until_aws("cut off again", async || sight::cut_off(&world.aws).await).await;
}

#[tokio::test]
async fn a_group_switched_back_is_isolated_again_and_told() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    contained(&world, id).await;
    set_groups(&world, &interfaces[0], &[&world.scene.groups[0]]).await;
    until_isolated(&world, interfaces).await;
    told(&world, id, &[&interfaces[0], &world.scene.groups[0]]).await;
}

#[tokio::test]
async fn a_group_added_on_a_second_interface_is_taken_away_again() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    let isolation = sight::groups(&world.aws, interfaces).await.unwrap()[&interfaces[1]][0].clone();
    set_groups(&world, &interfaces[1], &[&isolation, &world.scene.groups[1]]).await;
    until_isolated(&world, interfaces).await;

    let released = world.release("inc").await;
    let groups = sight::groups(&world.aws, interfaces).await.unwrap();
    assert_eq!(groups[&interfaces[1]], [world.scene.groups[1].clone()], "{released:#?}");
}

#[tokio::test]
async fn an_interface_attached_later_is_isolated_too_and_given_back_as_it_came() {
    let (world, _guard) = world().await;
    let instance = &world.scene.instances[0];
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;

    let made = world.aws.ec2.create_network_interface().subnet_id(&world.scene.subnet);
    let made = made.groups(&world.scene.groups[1]).send().await.unwrap().network_interface.unwrap();
    let third = made.network_interface_id.unwrap();
    let call = world.aws.ec2.attach_network_interface().network_interface_id(&third).instance_id(&instance.id);
    call.device_index(2).send().await.unwrap();
    let all = [&instance.interfaces[..], std::slice::from_ref(&third)].concat();
    until_isolated(&world, &all).await;
    world.until_target("inc", 0, |t| t.contained == "True" && t.message.contains("3 of 3 interfaces")).await;

    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, &all).await.unwrap()[&third], [world.scene.groups[1].clone()]);
}

#[tokio::test]
async fn rules_added_to_the_isolation_group_are_taken_out_ipv4_and_ipv6_and_told() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    // moto revokes IPv6 egress only in a network that has IPv6.
    let call = world.aws.ec2.associate_vpc_cidr_block().vpc_id(&world.scene.vpc).amazon_provided_ipv6_cidr_block(true);
    call.send().await.unwrap();
    contained(&world, id).await;
    let group = sight::groups(&world.aws, interfaces).await.unwrap()[&interfaces[0]][0].clone();
    let everything = IpPermission::builder().ip_protocol("-1").ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build());
    let everything = everything.ipv6_ranges(Ipv6Range::builder().cidr_ipv6("::/0").build()).build();
    let call = world.aws.ec2.authorize_security_group_egress().group_id(&group).ip_permissions(everything);
    call.send().await.unwrap();
    until_isolated(&world, interfaces).await;
    told(&world, id, &["rules in the isolation group", &world.scene.vpc]).await;

    let ssh = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22);
    let ssh = ssh.ipv6_ranges(Ipv6Range::builder().cidr_ipv6("2001:db8::/32").build()).build();
    world.aws.ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(ssh).send().await.unwrap();
    until_isolated(&world, interfaces).await;
}

#[tokio::test]
async fn a_key_switched_on_again_goes_off_and_is_told() {
    let (world, _guard) = world().await;
    contained(&world, "mallory").await;
    let key = &world.scene.access_keys[1];
    world.aws.iam.update_access_key().user_name("mallory").access_key_id(key).status("Active".into()).send().await.unwrap();
    until_cut_off(&world).await;
    told(&world, "mallory", &[key]).await;
}

#[tokio::test]
async fn a_key_that_the_attacker_makes_goes_off_and_is_told() {
    let (world, _guard) = world().await;
    contained(&world, "mallory").await;
    let iam = &world.aws.iam;
    iam.delete_access_key().user_name("mallory").access_key_id(&world.scene.access_keys[0]).send().await.unwrap();
    let made = iam.create_access_key().user_name("mallory").send().await.unwrap().access_key.unwrap();
    until_cut_off(&world).await;
    assert_eq!(sight::keys(&world.aws).await.unwrap()[&made.access_key_id], "Inactive");
    told(&world, "mallory", &[&made.access_key_id]).await;
}

#[tokio::test]
async fn a_deny_taken_away_comes_back_and_is_told() {
    let (world, _guard) = world().await;
    contained(&world, "mallory").await;
    let iam = &world.aws.iam;
    iam.delete_user_policy().user_name("mallory").policy_name("firebreak-deny-all").send().await.unwrap();
    until_cut_off(&world).await;
    told(&world, "mallory", &["firebreak-deny-all"]).await;

    let arn = "arn:aws:iam::aws:policy/AWSDenyAll";
    iam.detach_user_policy().user_name("mallory").policy_arn(arn).send().await.unwrap();
    until_cut_off(&world).await;

    iam.delete_user_permissions_boundary().user_name("mallory").send().await.unwrap();
    until_cut_off(&world).await;

    let arn = "arn:aws:iam::aws:policy/AdministratorAccess";
    iam.put_user_permissions_boundary().user_name("mallory").permissions_boundary(arn).send().await.unwrap();
    until_cut_off(&world).await;
}

#[tokio::test]
async fn a_deny_that_somebody_softened_is_hardened_again() {
    let (world, _guard) = world().await;
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    let soft = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let put = world.aws.iam.put_user_policy().user_name("mallory").policy_name("firebreak-deny-all").policy_document(soft);
    put.send().await.unwrap();
    world
        .until_aws("the deny is one again", async || {
            let policy = world.aws.iam.get_user_policy().user_name("mallory").policy_name("firebreak-deny-all");
            let document = policy.send().await?.policy_document;
            ensure!(document.contains("Deny") && !document.contains("Allow"), "{document}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_nobody_touches_for_a_minute_is_enforced_and_a_change_begins_that_anew() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    assert_eq!(world.said("inc", "Contained").await.0, "Enforcing");
    let minute = std::time::Duration::from_secs(80);
    firebreak_tests::eventually::eventually("Enforced", minute, async || {
        let (reason, _) = world.said("inc", "Contained").await;
        ensure!(reason == "Enforced", "{reason}");
        Ok(())
    })
    .await;

    set_groups(&world, &interfaces[0], &[&world.scene.groups[0]]).await;
    told(&world, id, &[&interfaces[0]]).await;
    world.until_reason("inc", "Contained", "Enforcing").await;
    until_isolated(&world, interfaces).await;
}
