//! What cannot be contained as asked: a reason, a message that says what to do, and the other targets go on.

use std::time::Duration;

use anyhow::ensure;
use firebreak_crds::{TargetStatus, get_condition};
use firebreak_tests::emulator::REGION;
use firebreak_tests::eventually::eventually;
use firebreak_tests::proxy::Proxy;
use firebreak_tests::world::{SOON, World, standard_policy};
use firebreak_tests::{shared, sight};
use futures::future::join_all;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::ground_up::{OWN_INSTANCE, unannounced, world, worlds};

/// An instance that no account has.
const ABSENT: &str = "i-0ffffffffffffffff";

fn instance(account: &str, region: &str, id: &str) -> Value {
    json!({ "ec2Instance": { "accountRef": { "name": account }, "region": region, "instanceId": id } })
}

/// Contains the scene's user together with a target that is refused; says how it was refused.
async fn refused(world: &World<'_>, target: Value, reason: &str) -> TargetStatus {
    world.declare("inc", "Contain", json!({ "targets": [target, world.user_target()] })).await;
    let refused = world.until_target("inc", 0, |t| t.reason == reason && t.contained == "False").await;
    goes_on(world, reason).await;
    refused
}

/// The user is contained; the Incident as a whole is not, and says why.
async fn goes_on(world: &World<'_>, reason: &str) {
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    world.until_reason("inc", "Contained", reason).await;
    world.until("inc", "Contained", "False").await;
    world.until("inc", "Ready", "False").await;
}

fn says(target: &TargetStatus, words: &[&str]) {
    words.iter().for_each(|word| assert!(target.message.contains(word), "no {word}: {target:#?}"));
}

#[tokio::test]
async fn an_instance_that_does_not_exist() {
    let (world, _guard) = world().await;
    let target = refused(&world, instance(&world.account_name(), REGION, ABSENT), "NotContained").await;
    says(&target, &["AWS shows no instance", ABSENT, "check the id, the region and the account"]);
    world.until("inc", "Stalled", "True").await;
}

#[tokio::test]
async fn a_user_that_does_not_exist() {
    let (world, _guard) = world().await;
    let absent = json!({ "iamUser": { "accountRef": { "name": world.account_name() }, "userName": "nobody" } });
    world.declare("inc", "Contain", json!({ "targets": [absent, world.instance_target(0)] })).await;
    let target = world.until_target("inc", 0, |t| t.reason == "NotContained").await;
    says(&target, &["AWS shows no user nobody", "check the name and the account"]);
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}

#[tokio::test]
async fn an_account_that_nobody_declared() {
    let (world, _guard) = world().await;
    let target = refused(&world, instance("nowhere", REGION, ABSENT), "AccountNotFound").await;
    says(&target, &["AwsAccount nowhere does not exist", "accountRef"]);
}

#[tokio::test]
async fn a_region_that_the_account_does_not_list() {
    let (world, _guard) = world().await;
    let target = refused(&world, instance(&world.account_name(), "us-west-2", ABSENT), "RegionNotAllowed").await;
    says(&target, &["us-west-2", "spec.regions"]);
}

#[tokio::test]
async fn an_account_that_does_not_answer() {
    let (world, _guard) = world().await;
    let far = further_account(&world, json!({ "endpointUrl": "http://127.0.0.1:1" })).await;
    let target = refused(&world, instance(&far, REGION, ABSENT), "AwsUnreachable").await;
    says(&target, &["no answer", "check the network", "spec.endpointUrl"]);
    let (reason, message) = account_says(&world, &far, "Ready").await;
    assert!(reason == "AwsUnreachable" && message.contains("spec.endpointUrl"), "{reason}: {message}");
}

#[tokio::test]
async fn an_account_that_never_answers_holds_no_other_account_back_however_many_targets_it_has() {
    let (world, _guard) = world().await;
    let silent = Proxy::start(&shared::emulator().await.url()).unwrap();
    silent.hang("*");
    let far = further_account(&world, json!({ "endpointUrl": silent.url() })).await;
    let user = |n: i32| json!({ "iamUser": { "accountRef": { "name": far }, "userName": format!("user-{n}") } });
    let targets: Vec<Value> = (0..60).map(user).chain([world.user_target()]).collect();
    world.declare("inc", "Contain", json!({ "targets": targets })).await;
    world.until_aws("the user of the other account is cut off", async || sight::cut_off(&world.aws).await).await;
    world.until_target("inc", 59, |t| t.reason == "AccountNotReached").await;
    world.until_target("inc", 60, |t| t.contained == "True").await;
}

/// Another account, as `spec` changes it.
async fn further_account(world: &World<'_>, spec: Value) -> String {
    let id = shared::new_account().await.account;
    let mut account = world.account(json!({ "accountId": id }));
    account["metadata"]["name"] = json!(format!("{}-far", world.account_name()));
    account["spec"]["assumeRole"]["roleArn"] = json!(firebreak_tests::emulator::role_arn(&id));
    let over = spec.as_object().unwrap().clone();
    account["spec"].as_object_mut().unwrap().extend(over);
    account["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
    world.plane.apply(&account.to_string()).await.unwrap();
    format!("{}-far", world.account_name())
}

/// Waits until the account has the condition, and returns its reason and message.
async fn account_says(world: &World<'_>, account: &str, kind: &str) -> (String, String) {
    let api = Api::<firebreak_crds::AwsAccount>::all(world.kube.clone());
    firebreak_tests::eventually::eventually(&format!("{account} has {kind}"), SOON, async || {
        let conditions = api.get(account).await?.status.unwrap_or_default().conditions;
        let found = get_condition(&conditions, kind).map(|c| (c.reason.clone(), c.message.clone()));
        found.ok_or_else(|| anyhow::anyhow!("{conditions:#?}"))
    })
    .await
}

#[tokio::test]
async fn a_role_that_may_not_be_assumed_names_the_permission_and_is_tried_again() {
    let (world, _guard) = unannounced().await;
    world.proxy.fail("AssumeRole", 403, "AccessDenied", "not authorized to perform: sts:AssumeRole");
    world.plane.apply(&world.account(json!({})).to_string()).await.unwrap();
    world.plane.apply(&world.policy("standard", standard_policy()).to_string()).await.unwrap();
    world.declare("inc", "Contain", json!({})).await;
    let target = world.until_target("inc", 1, |t| t.contained == "False" && t.message.contains("AssumeRole")).await;
    says(&target, &["sts:AssumeRole", "grant it to the controller", "not authorized"]);
    world.until("inc", "Stalled", "True").await;
    let (reason, message) = account_says(&world, &world.account_name(), "Ready").await;
    assert!(reason == "AccessDenied" && message.contains("sts:AssumeRole"), "{reason}: {message}");
    world.until("inc", "Contained", "False").await;

    world.proxy.recover("AssumeRole");
    world.look_now().await;
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn credentials_of_another_account() {
    let (world, _guard) = world().await;
    let far = further_account(&world, json!({ "assumeRole": null })).await;
    let (reason, message) = account_says(&world, &far, "Stalled").await;
    assert_eq!(reason, "WrongAccount");
    assert!(message.contains("spec.accountId") && message.contains("assumeRole"), "{message}");
    let target = refused(&world, instance(&far, REGION, ABSENT), "AccountNotUsable").await;
    says(&target, &[&far, "spec.accountId"]);
}

#[tokio::test]
async fn a_second_object_for_one_account_is_refused_and_the_older_goes_on() {
    let (world, _guard) = world().await;
    let mut twin = world.account(json!({}));
    let name = format!("{}-twin", world.account_name());
    twin["metadata"]["name"] = json!(name);
    // Creation times are whole seconds.
    let first = Api::<firebreak_crds::AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await.unwrap();
    let made = first.metadata.creation_timestamp.unwrap().0;
    world
        .until_aws("a second has passed", async || {
            let now = k8s_openapi::jiff::Timestamp::now();
            ensure!(now.as_second() > made.as_second(), "{now}");
            Ok(())
        })
        .await;
    world.plane.apply(&twin.to_string()).await.unwrap();
    let (reason, message) = account_says(&world, &name, "Stalled").await;
    assert_eq!(reason, "DuplicateAccount");
    assert!(message.contains(&world.account_name()) && message.contains("delete this one"), "{message}");
    let target = refused(&world, instance(&name, REGION, &world.scene.instances[0].id), "AccountNotUsable").await;
    says(&target, &[&name, "delete this one"]);
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap_err();
    world.account_ready().await;
}

#[tokio::test]
async fn a_namespace_without_the_labels_that_the_account_asks_for() {
    let (world, _guard) = world().await;
    let far = further_account(
        &world,
        json!({
            "endpointUrl": world.proxy.url(),
            "allowedNamespaces": { "matchLabels": { "team": "network" } },
        }),
    )
    .await;
    let target = refused(&world, instance(&far, REGION, ABSENT), "NamespaceNotAllowed").await;
    says(&target, &[&world.namespace, "spec.allowedNamespaces", "team=network"]);

    world.plane.kubectl(&["label", "namespace", &world.namespace, "team=network", "--overwrite"]).await.unwrap();
    world.until_target("inc", 0, |t| t.reason != "NamespaceNotAllowed").await;
    let held = world.until_target("inc", 1, |t| t.message.contains("spec.allowedNamespaces")).await;
    assert_eq!(held.contained, "True", "what is held stays: {held:?}");
}

#[tokio::test]
async fn a_policy_that_does_not_exist_until_it_does() {
    let (world, _guard) = world().await;
    let name = world.policy_name("later");
    world.declare("inc", "Contain", json!({ "policyRef": { "name": name } })).await;
    let target = world.until_target("inc", 0, |t| t.reason == "PolicyNotFound").await;
    says(&target, &[&name, "spec.policyRef"]);
    world.until("inc", "Stalled", "True").await;
    assert!(world.quarantines().await.is_empty());

    world.plane.apply(&world.policy("later", standard_policy()).to_string()).await.unwrap();
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn a_policy_with_nothing_for_the_target() {
    let (world, _guard) = world().await;
    let users = json!({ "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] } });
    world.plane.apply(&world.policy("standard", users).to_string()).await.unwrap();
    let target = refused(&world, world.instance_target(0), "NothingToDo").await;
    says(&target, &[&world.policy_name("standard"), "spec.ec2Instance.contain"]);
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap_err();
}

#[tokio::test]
async fn what_the_account_protects_is_not_touched() {
    let (world, _guard) = world().await;
    let id = &world.scene.instances[0].id;
    let arn = format!("arn:aws:ec2:*:{}:instance/{id}", world.aws.account);
    let protected = json!({ "protected": { "arns": [arn, "arn:aws:iam::*:user/break-glass*"] } });
    world.plane.apply(&world.account(protected).to_string()).await.unwrap();
    world.account_ready().await;
    let target = refused(&world, world.instance_target(0), "Protected").await;
    says(&target, &[id, &arn]);
    world.until_event("inc", "Protected", &[id, &arn]).await;
    let marks = sight::marks(&world.aws, id).await.unwrap();
    assert!(marks.is_empty() && sight::snapshots(&world.aws).await.unwrap().is_empty() && world.evidence().await.is_empty());
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap_err();
}

#[tokio::test]
async fn a_star_of_the_accounts_list_stands_for_whole_fields_too() {
    let (world, _guard) = world().await;
    let protected = json!({ "protected": { "arns": ["arn:*:user/mall*"] } });
    world.plane.apply(&world.account(protected).to_string()).await.unwrap();
    world.account_ready().await;
    world.declare("inc", "Contain", json!({ "targets": [world.user_target(), world.instance_target(0)] })).await;
    let target = world.until_target("inc", 0, |t| t.reason == "Protected").await;
    says(&target, &["mallory", "arn:*:user/mall*"]);
    world.until_target("inc", 1, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap_err();
    assert!(world.quarantine_of("mallory").await.is_none());
}

#[tokio::test]
async fn a_permission_that_is_missing_before_anything_is_held_is_named_and_looked_for_again() {
    let (world, _guard) = world().await;
    let protected = json!({ "protected": { "arns": ["arn:aws:iam::*:user/break-glass*"] } });
    world.plane.apply(&world.account(protected).to_string()).await.unwrap();
    world.account_ready().await;
    world.proxy.fail("GetUser", 403, "AccessDenied", "not authorized");
    world.declare("inc", "Contain", json!({ "targets": [world.user_target(), world.instance_target(0)] })).await;
    let target = world.until_target("inc", 0, |t| t.reason == "AccessDenied").await;
    says(&target, &["iam:GetUser", "grant it to the role", "whether user mallory is protected"]);
    world.until_target("inc", 1, |t| t.contained == "True").await;
    world.until_reason("inc", "Stalled", "AccessDenied").await;
    assert!(world.quarantine_of("mallory").await.is_none(), "it may be protected");

    world.proxy.recover("GetUser");
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn the_instance_on_which_the_controller_runs_is_not_touched() {
    let (world, _guard) = world().await;
    let target = refused(&world, instance(&world.account_name(), REGION, OWN_INSTANCE), "Protected").await;
    says(&target, &[OWN_INSTANCE, "Firebreak itself runs on"]);
    let held = world.quarantines().await;
    assert!(held.iter().all(|q| q.spec.resource.id != OWN_INSTANCE), "{held:#?}");
}

#[tokio::test]
async fn no_more_than_the_account_allows_are_held_in_the_order_of_the_spec() {
    let (world, _guard) = worlds(2).await;
    world.plane.apply(&world.account(json!({ "limits": { "maxQuarantines": 2 } })).to_string()).await.unwrap();
    world.account_ready().await;
    let targets = json!([world.user_target(), world.instance_target(0), world.instance_target(1)]);
    world.declare("inc", "Contain", json!({ "targets": targets })).await;
    let target = world.until_target("inc", 2, |t| t.reason == "LimitReached").await;
    says(&target, &["2 quarantines", "spec.limits.maxQuarantines"]);
    world.until_target("inc", 0, |t| t.contained == "True").await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    let [first, second] = [0, 1].map(|i| &world.scene.instances[i].interfaces);
    sight::isolated(&world.aws, first).await.unwrap();
    sight::isolated(&world.aws, second).await.unwrap_err();

    world.plane.apply(&world.account(json!({ "limits": { "maxQuarantines": 3 } })).to_string()).await.unwrap();
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, second).await.unwrap();
}

#[tokio::test]
async fn what_only_aws_tells_to_be_protected_keeps_no_place_from_the_next_target() {
    let (world, _guard) = world().await;
    let protected = json!({ "arns": ["arn:aws:iam::*:user/break-glass/*"] });
    let account = world.account(json!({ "limits": { "maxQuarantines": 1 }, "protected": protected }));
    world.plane.apply(&account.to_string()).await.unwrap();
    world.account_ready().await;
    world.aws.iam.create_user().user_name("fire").path("/break-glass/").send().await.unwrap();
    let fire = world.target_arn(&format!("iam::{}:user/fire", world.aws.account));
    world.declare("inc", "Contain", json!({ "targets": [fire, world.user_target(), world.instance_target(0)] })).await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    world.until_target("inc", 0, |t| t.reason == "Protected").await;
    world.until_target("inc", 2, |t| t.reason == "LimitReached").await;
    world.until_event("inc", "Protected", &["user/break-glass", "spec.limits.maxQuarantines"]).await;
    sight::cut_off(&world.aws).await.unwrap();
    assert!(world.quarantine_of("fire").await.is_none());
}

#[tokio::test]
async fn many_incidents_at_once_hold_no_more_than_the_account_allows() {
    let (world, _guard) = world().await;
    let protected = json!({ "arns": ["arn:aws:iam::*:user/break-glass*"] }); // so each is looked at before it is held
    let account = world.account(json!({ "limits": { "maxQuarantines": 1 }, "protected": protected }));
    world.plane.apply(&account.to_string()).await.unwrap();
    world.account_ready().await;
    let names = ["eve", "oscar", "trudy"];
    for name in names {
        world.aws.iam.create_user().user_name(name).send().await.unwrap();
    }
    let (api, params) = (world.incidents(), PostParams::default());
    let incidents = names.map(|name| {
        let user = json!({ "iamUser": { "accountRef": { "name": world.account_name() }, "userName": name } });
        serde_json::from_value(world.incident(name, "Contain", json!({ "targets": [user] }))).unwrap()
    });
    world.proxy.delay(Duration::from_secs(1));
    let made = join_all(incidents.iter().map(|incident| api.create(&params, incident))).await;
    made.into_iter().for_each(|made| drop(made.unwrap()));
    let what = "one is contained, and the others say why they are not";
    eventually(what, SOON, async || {
        let all = api.list(&ListParams::default()).await?.items.into_iter().filter_map(|i| i.status).flat_map(|s| s.targets);
        let mut reasons: Vec<String> = all.map(|t| if t.contained == "True" { t.contained } else { t.reason }).collect();
        reasons.sort();
        ensure!(reasons == ["LimitReached", "LimitReached", "True"], "{reasons:?}");
        Ok(())
    })
    .await;
    assert_eq!(world.quarantines().await.len(), 1);
}

#[tokio::test]
async fn a_plan_says_what_contain_would_refuse() {
    let (world, _guard) = world().await;
    let targets = json!([instance(&world.account_name(), REGION, ABSENT), world.user_target()]);
    world.declare("inc", "Plan", json!({ "targets": targets })).await;
    let incident = world.until("inc", "Stalled", "True").await;
    let plan = incident.status.unwrap().plan.unwrap();
    assert!(plan.targets[0].problem.as_ref().unwrap().contains("AWS shows no instance"), "{plan:#?}");
    assert!(plan.targets[0].calls.is_empty() && !plan.targets[1].calls.is_empty(), "{plan:#?}");
}
