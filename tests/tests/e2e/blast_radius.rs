//! What would cut many others off, and what carried a protected tag before, waits for a second person though no policy says so; what hurts
//! nobody goes at once.

use anyhow::ensure;
use firebreak_crds::{AwsAccount, TargetStatus};
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::eventually::eventually;
use firebreak_tests::scene::{self, SceneInstance, balance, join_scaling_group};
use firebreak_tests::sight;
use firebreak_tests::world::{ADMIN, SOON, World};
use kube::Api;
use serde_json::{Value, json};

use crate::ground_up::{Guard, worlds};

/// The tag that accounts here protect, with the value `true`.
const TAG: &str = "firebreak.dev/protected";

/// A world whose account leaves what is approved as it is by default, and has this besides; and people who may approve.
async fn careful_world(instances: usize, account: Value) -> (World<'static>, Guard) {
    let (world, guard) = worlds(instances).await;
    let mut spec = json!({ "approvals": {} });
    spec.as_object_mut().unwrap().extend(account.as_object().unwrap().clone());
    world.plane.apply(&world.account(spec).to_string()).await.unwrap();
    let contain = json!([{ "protectFromTermination": {} }, { "isolateNetwork": {} }]);
    let policy = json!({
        "ec2Instance": { "contain": contain, "evidence": [{ "ebsSnapshots": {} }] },
        "iamRole": { "contain": [{ "denyAll": {} }] },
    });
    world.plane.apply(&world.policy("careful", policy).to_string()).await.unwrap();
    let_approve(&world).await;
    (world, guard)
}

async fn declare(world: &World<'_>, mode: &str, target: Value) {
    let policy = json!({ "name": world.policy_name("careful") });
    world.declare("inc", mode, json!({ "requestedBy": ADMIN, "policyRef": policy, "targets": [target] })).await;
}

fn first<'a>(world: &'a World<'_>) -> &'a SceneInstance {
    &world.scene.instances[0]
}

/// The first target says that it waits, and why.
async fn waits_since(world: &World<'_>, why: &str) -> TargetStatus {
    let waits = |t: &TargetStatus| t.message.contains("waits for approval, since") && t.message.contains(why);
    world.until_target("inc", 0, waits).await
}

async fn approved(world: &World<'_>) {
    let approval = blank(world, "bob").await;
    approve(world, "bob", &[APPROVERS], &approval).await;
}

/// All but the isolation is in force; that waits for a second person, and goes when there is one.
async fn isolation_waits_until_approved(world: &World<'_>, why: &str) {
    waits_since(world, why).await;
    world.until_reason("inc", "Stalled", "AwaitingApproval").await;
    let open = world.until_reason("inc", "Contained", "AwaitingApproval").await.status.unwrap();
    assert_eq!(open.contained.as_deref(), Some("0/1"), "whoever is on an open network is not contained");
    let protected = async || {
        let shown = sight::protection(&world.aws, &first(world).id).await?;
        ensure!(shown["DisableApiTermination"] == "true", "{shown:?}");
        Ok(())
    };
    world.until_aws("what hurts nobody is done", protected).await;
    let modified = |c: &firebreak_tests::proxy::Call| c.action == "ModifyNetworkInterfaceAttribute";
    assert_eq!(world.proxy.count(modified), 0, "no interface was touched");
    approved(world).await;
    world.until_aws("isolated", async || sight::isolated(&world.aws, &first(world).interfaces).await).await;
    world.until("inc", "Contained", "True").await;
    let conditions = world.until("inc", "Ready", "True").await.status.unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "Stalled"), "{conditions:#?}");
    assert_eq!(world.said("inc", "Approved").await, ("Approved".to_owned(), "approved by bob".to_owned()));
}

async fn route_through(world: &World<'_>) {
    let tables = world.aws.ec2.describe_route_tables().send().await.unwrap().route_tables.unwrap_or_default();
    let table = tables.iter().find(|t| t.vpc_id.as_ref() == Some(&world.scene.vpc)).unwrap();
    let route = world.aws.ec2.create_route().set_route_table_id(table.route_table_id.clone());
    let route = route.destination_cidr_block("0.0.0.0/0").network_interface_id(&first(world).interfaces[1]);
    route.send().await.unwrap();
}

#[tokio::test]
async fn an_instance_that_others_are_routed_through_waits_and_a_plan_says_so() {
    let (world, _guard) = careful_world(1, json!({})).await;
    route_through(&world).await;
    declare(&world, "Plan", world.instance_target(0)).await;
    let planned = waits_since(&world, "a route of its VPC leads to it").await;
    assert_eq!(planned.reason, "PlanOnly");
    let plan = world.until_reason("inc", "Ready", "Planned").await.status.unwrap().plan.unwrap();
    assert!(plan.targets[0].calls.iter().any(|c| c.contains("ModifyNetworkInterfaceAttribute")), "{plan:#?}");

    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    isolation_waits_until_approved(&world, "a route of its VPC leads to it").await;
    world.release("inc").await;
    world.until_nothing_is_held().await;
}

async fn forward(world: &World<'_>, on: bool) {
    let check = aws_sdk_ec2::types::AttributeBooleanValue::builder().value(!on).build();
    let modify = world.aws.ec2.modify_network_interface_attribute().network_interface_id(&first(world).interfaces[0]);
    modify.source_dest_check(check).send().await.unwrap();
}

/// Long enough for what changed to be seen, and acted on.
async fn looked_at(world: &World<'_>) {
    world.until_answered("DescribeNetworkInterfaces", 3).await;
}

/// Neither who silences AWS nor who waits takes an approval away that is asked for.
#[tokio::test]
async fn what_forwards_waits_though_aws_falls_silent_and_goes_when_it_forwards_no_more() {
    let (world, _guard) = careful_world(1, json!({})).await;
    forward(&world, true).await;
    declare(&world, "Contain", world.instance_target(0)).await;
    waits_since(&world, "SourceDestCheck").await;
    world.until_reason("inc", "Contained", "AwaitingApproval").await;
    world.proxy.fail("DescribeNetworkInterfaces", 503, "RequestLimitExceeded", "slow down");
    world.until_event("inc", "BlastRadiusUnknown", &[]).await;
    waits_since(&world, "SourceDestCheck").await;
    world.proxy.clear();
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap_err();
    forward(&world, false).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap();
}

#[tokio::test]
async fn the_last_healthy_target_waits_until_there_is_another() {
    let (world, _guard) = careful_world(2, json!({})).await;
    let web = balance(&world.aws, &world.scene, 0).await.unwrap().web;
    declare(&world, "Contain", world.instance_target(0)).await;
    let waits = waits_since(&world, "it is the last healthy target of web").await;
    assert!(waits.message.contains("it is the last healthy target of api"), "by its addresses: {}", waits.message);
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap_err();

    let other = &world.scene.instances[1];
    scene::Balancers { web, api: target_group_named(&world, "api").await }
        .register(&world.aws, &world.scene, 1)
        .await
        .unwrap();
    world
        .until_aws("isolated, since another serves", async || sight::isolated(&world.aws, &first(&world).interfaces).await)
        .await;
    world.until("inc", "Ready", "True").await;
    sight::isolated(&world.aws, &other.interfaces).await.unwrap_err();
}

async fn target_group_named(world: &World<'_>, name: &str) -> String {
    let found = world.aws.elbv2.describe_target_groups().names(name).send().await.unwrap();
    found.target_groups()[0].target_group_arn.clone().unwrap()
}

#[tokio::test]
async fn an_instance_alone_in_its_auto_scaling_group_waits_until_approved() {
    let (world, _guard) = careful_world(1, json!({})).await;
    join_scaling_group(&world.aws, &world.scene, "web", 3).await.unwrap();
    declare(&world, "Contain", world.instance_target(0)).await;
    isolation_waits_until_approved(&world, "it is alone in Auto Scaling group web").await;
}

#[tokio::test]
async fn a_role_that_instances_and_services_use_waits_until_approved() {
    let (world, _guard) = careful_world(1, json!({})).await;
    scene::role(&world.aws).await.unwrap();
    let iam = &world.aws.iam;
    iam.create_instance_profile().instance_profile_name("web").send().await.unwrap();
    iam.add_role_to_instance_profile().instance_profile_name("web").role_name(scene::ROLE).send().await.unwrap();
    let profile = aws_sdk_ec2::types::IamInstanceProfileSpecification::builder().name("web").build();
    let associate = world.aws.ec2.associate_iam_instance_profile().iam_instance_profile(profile);
    associate.instance_id(&first(&world).id).send().await.unwrap();
    declare(&world, "Contain", world.role_target()).await;
    let waits = waits_since(&world, &format!("running instances use it: {}", first(&world).id)).await;
    for word in ["ec2.amazonaws.com", "111122223333:root"] {
        assert!(waits.message.contains(word), "no {word}: {}", waits.message);
    }
    assert_eq!((waits.contained.as_str(), waits.reason.as_str()), ("False", "AwaitingApproval"));
    assert!(world.quarantine_of(scene::ROLE).await.is_none(), "nothing of it is held");
    approved(&world).await;
    world.until("inc", "Contained", "True").await;
    sight::role_denied(&world.aws).await.unwrap();
}

#[tokio::test]
async fn what_the_account_does_not_count_holds_nothing_back() {
    let ignored = |causes: Value| json!({ "approvals": { "ignoredCauses": causes } });
    let (world, _guard) = careful_world(1, ignored(json!(["Forwards"]))).await;
    forward(&world, true).await;
    route_through(&world).await;
    declare(&world, "Contain", world.instance_target(0)).await;
    let waits = waits_since(&world, "a route of its VPC leads to it").await;
    assert!(!waits.message.contains("SourceDestCheck"), "{}", waits.message);
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap_err();
    world.plane.apply(&world.account(ignored(json!(["Forwards", "RouteTarget"]))).to_string()).await.unwrap();
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_what_nobody_would_miss_nor_where_the_account_says_so() {
    let (world, _guard) = careful_world(1, json!({})).await;
    declare(&world, "Contain", world.instance_target(0)).await;
    world.until("inc", "Contained", "True").await;
    let conditions = world.until("inc", "Ready", "True").await.status.unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "Approved"), "{conditions:#?}");
    route_through(&world).await;
    forward(&world, true).await;
    looked_at(&world).await;
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap();
    let held = world.incidents().get("inc").await.unwrap().status.unwrap();
    assert_eq!(held.contained.as_deref(), Some("1/1"), "what becomes dear once it is held stays held");
    assert!(held.conditions.iter().all(|c| c.type_ != "Approved"), "{held:#?}");

    scene::role(&world.aws).await.unwrap();
    let off = json!({ "approvals": { "wideBlastRadius": "NotRequired" } });
    world.plane.apply(&world.account(off).to_string()).await.unwrap();
    let before = world.proxy.count(|c| c.action == "ListInstanceProfilesForRole");
    world.change("inc", json!({ "targets": [world.instance_target(0), world.role_target()] })).await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    assert_eq!(world.proxy.count(|c| c.action == "ListInstanceProfilesForRole"), before, "nothing is read for it");
}

/// What AWS does not say, it does not say for an attacker's sake either.
#[tokio::test]
async fn an_instance_is_contained_where_aws_does_not_say_who_depends_on_it() {
    let (world, _guard) = careful_world(1, json!({})).await;
    balance(&world.aws, &world.scene, 0).await.unwrap();
    world.proxy.fail("DescribeTargetGroups", 403, "AccessDenied", "not authorized");
    world.proxy.hang("DescribeLoadBalancers");
    declare(&world, "Contain", world.instance_target(0)).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap();
    let (denied, hung) = ("elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeLoadBalancers");
    world.until_event("inc", "BlastRadiusUnknown", &[denied, hung, "did not say within 2 s"]).await;
}

fn protects() -> Value {
    json!({ "approvals": { "wideBlastRadius": "NotRequired" }, "protected": { "tags": [{ "key": TAG, "value": "true" }] } })
}

async fn tag(world: &World<'_>, id: &str) {
    let tag = aws_sdk_ec2::types::Tag::builder().key(TAG).value("true").build();
    world.aws.ec2.create_tags().resources(id).tags(tag).send().await.unwrap();
    world.look_now().await;
    eventually("the account knows the tag", SOON, async || {
        let account = Api::<AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await?;
        let known = account.status.unwrap_or_default().protected_by_tag;
        ensure!(known.iter().any(|k| k.id == id), "{known:#?}");
        Ok(())
    })
    .await;
}

/// An Incident is declared in a later second than all that was seen before.
async fn in_a_later_second() {
    let now = || k8s_openapi::jiff::Timestamp::now().as_second();
    let before = now();
    eventually("a second passes", SOON, async || {
        ensure!(now() > before);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn all_that_is_done_to_what_carried_a_protected_tag_before_waits_until_approved() {
    let (world, _guard) = careful_world(1, protects()).await;
    tag(&world, &first(&world).id).await;
    in_a_later_second().await;
    declare(&world, "Contain", world.instance_target(0)).await;
    let waits = waits_since(&world, &format!("it has carried the tag {TAG}")).await;
    assert!(waits.message.starts_with("protectFromTermination, isolateNetwork waits"), "{}", waits.message);
    world.until("inc", "EvidencePreserved", "True").await;
    assert!(world.quarantine_of(&first(&world).id).await.is_none(), "nothing of it is held");

    approved(&world).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &first(&world).interfaces).await.unwrap();
    world.until("inc", "Ready", "True").await;
}

#[tokio::test]
async fn a_tag_that_is_written_after_the_incident_was_declared_delays_nothing() {
    let (world, _guard) = careful_world(1, protects()).await;
    declare(&world, "Plan", world.instance_target(0)).await;
    world.until_reason("inc", "Ready", "Planned").await;
    tag(&world, &first(&world).id).await;
    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    let conditions = world.until("inc", "Ready", "True").await.status.unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "Approved"), "{conditions:#?}");
}

#[tokio::test]
async fn tags_of_users_and_roles_are_seen() {
    let (world, _guard) = careful_world(1, protects()).await;
    scene::role(&world.aws).await.unwrap();
    let tag = || aws_sdk_iam::types::Tag::builder().key(TAG).value("true").build().unwrap();
    world.aws.iam.tag_role().role_name(scene::ROLE).tags(tag()).send().await.unwrap();
    world.aws.iam.tag_user().user_name(scene::USER).tags(tag()).send().await.unwrap();
    world.look_now().await;
    eventually("the account knows both", SOON, async || {
        let account = Api::<AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await?;
        let known: Vec<String> = account.status.unwrap_or_default().protected_by_tag.into_iter().map(|k| k.id).collect();
        ensure!(known == [scene::ROLE, scene::USER], "{known:?}");
        Ok(())
    })
    .await;
    world.aws.iam.untag_user().user_name(scene::USER).tag_keys(TAG).send().await.unwrap();
    in_a_later_second().await;
    let targets = json!([world.role_target(), world.user_target()]);
    world.look_now().await;
    eventually("the account knows one", SOON, async || {
        let account = Api::<AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await?;
        let known = account.status.unwrap_or_default().protected_by_tag.len();
        ensure!(known == 1, "{known}");
        Ok(())
    })
    .await;
    let mut policy = firebreak_tests::world::standard_policy();
    policy["iamRole"] = json!({ "contain": [{ "denyAll": {} }] });
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    world.declare("inc", "Contain", json!({ "requestedBy": ADMIN, "targets": targets })).await;
    waits_since(&world, &format!("it has carried the tag {TAG}")).await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    assert!(world.quarantine_of(scene::ROLE).await.is_none());
}

#[tokio::test]
async fn more_containments_than_an_account_lets_begin_within_an_hour_wait_for_a_second_person() {
    let account = json!({ "limits": { "maxNewPerHour": 1 }, "approvals": { "wideBlastRadius": "NotRequired" } });
    let (world, _guard) = careful_world(2, account).await;
    let targets = [world.instance_target(0), world.instance_target(1)];
    let policy = json!({ "name": world.policy_name("careful") });
    world.declare("inc", "Contain", json!({ "requestedBy": ADMIN, "policyRef": policy, "targets": targets })).await;
    world.until_target("inc", 0, |t| t.contained == "True").await;
    let second = world.until_target("inc", 1, |t| t.message.contains("spec.limits.maxNewPerHour")).await;
    assert_eq!(second.contained, "False", "{second:?}");
    world.until_reason("inc", "Contained", "AwaitingApproval").await;
    assert_eq!((world.quarantines().await.len(), world.evidence().await.len()), (1, 1), "neither hold nor snapshots");

    approved(&world).await;
    world.until("inc", "Contained", "True").await;
    assert_eq!((world.quarantines().await.len(), world.evidence().await.len()), (2, 2));
}

#[tokio::test]
async fn what_only_waits_or_is_refused_leaves_an_accounts_hour_to_others() {
    let account = json!({
        "limits": { "maxNewPerHour": 1 },
        "approvals": { "wideBlastRadius": "NotRequired" },
        "protected": { "arns": ["arn:aws:iam::*:user/break-glass/*"] },
    });
    let (world, _guard) = careful_world(1, account).await;
    world.aws.iam.create_user().user_name("fire").path("/break-glass/").send().await.unwrap();
    scene::role(&world.aws).await.unwrap();
    let mut policy = firebreak_tests::world::standard_policy();
    policy["iamRole"] = json!({ "contain": [{ "denyAll": {} }] });
    policy["approvals"] = json!({ "actions": ["denyAll"], "count": 1 });
    world.plane.apply(&world.policy("asking", policy).to_string()).await.unwrap();
    let asking = json!({ "name": world.policy_name("asking") });
    let spec = json!({ "requestedBy": ADMIN, "policyRef": &asking, "targets": [world.role_target()] });
    world.declare("waits", "Contain", spec).await;
    world.until_reason("waits", "Contained", "AwaitingApproval").await;
    let protected = world.target_arn(&format!("iam::{}:user/fire", world.aws.account));
    let both = json!({ "requestedBy": ADMIN, "policyRef": asking, "targets": [world.role_target(), protected] });
    world.declare("both", "Contain", both).await;
    world.until_event("both", "AwaitingApproval", &["denyAll"]).await;
    world.until_event("both", "Protected", &["user/break-glass"]).await;
    world.declare("inc", "Contain", json!({ "targets": [protected, world.user_target()] })).await;
    world.until_target("inc", 0, |t| t.reason == "Protected").await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    world.declare("more", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until_target("more", 0, |t| t.message.contains("spec.limits.maxNewPerHour")).await;
}
