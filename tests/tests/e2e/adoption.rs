//! A lost cluster: every object of Firebreak is gone, and the same Incident is applied again. What carries a copy of its original is
//! adopted and given back as it was; what carries none that can be believed stays contained until a person says what was there.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use aws_sdk_iam::types::{StatusType, Tag};
use firebreak_crds::{Quarantine, Text};
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{self, ROLE, ROLE_TRUST, USER};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};
use crate::own_groups::forensics;

type Tags = BTreeMap<String, String>;

const COPY: &str = "firebreak.dev/original-";

/// A world with a role, whose policy does much, and gives keys back.
async fn ready() -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::role(&world.aws).await.unwrap();
    let policy = json!({
        "ec2Instance": { "contain": [
            { "isolateNetwork": {} }, { "protectFromTermination": {} }, { "disableInstanceMetadata": {} },
        ] },
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
        "iamRole": { "contain": [{ "denyAll": {} }, { "revokeSessions": {} }, { "sealTrustPolicy": {} }] },
        "release": { "reactivateAccessKeys": true },
    });
    world.plane.apply(&world.policy("much", policy).to_string()).await.unwrap();
    (world, guard)
}

/// Applies an Incident over these targets, and waits until all is contained and every copy is written.
async fn contain(world: &World<'_>, name: &str, targets: Value) {
    declare(world, name, targets).await;
    world.until(name, "Contained", "True").await;
    until_copied(world).await;
}

async fn declare(world: &World<'_>, name: &str, targets: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name("much") }, "targets": targets });
    world.declare(name, "Contain", spec).await;
}

/// The marks and the copy of each Quarantine are there, and are of its record as it is now.
async fn until_copied(world: &World<'_>) {
    world
        .until_aws("a copy of each record", async || {
            for quarantine in world.quarantines().await {
                let status = quarantine.status.as_ref().context("no status")?;
                let mark = status.actions.iter().find(|a| a.name == "tagResource");
                ensure!(mark.is_some_and(|m| m.message.starts_with("a copy of the original")), "{status:#?}");
                let generation = quarantine.metadata.generation;
                ensure!(status.observed_copy.is_some() && status.observed_generation == generation, "{quarantine:#?}");
            }
            Ok(())
        })
        .await;
}

/// Without what is only noted: where the record is from, that an original is not known, and what was found in its place.
fn originals(quarantine: &Quarantine) -> BTreeMap<String, Text> {
    let all = quarantine.spec.original.clone().unwrap_or_default();
    let noted = |key: &str| key.starts_with("copy/") || key.ends_with("/unknown") || key.contains("/found-");
    all.into_iter().filter(|(key, _)| !noted(key)).collect()
}

async fn records(world: &World<'_>) -> BTreeMap<String, BTreeMap<String, Text>> {
    world.quarantines().await.iter().map(|q| (q.name_any(), originals(q))).collect()
}

fn copy_of(tags: &Tags) -> Tags {
    tags.iter().filter(|(key, _)| key.starts_with(COPY)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

async fn put_user_tags(world: &World<'_>, tags: &Tags) {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build().unwrap();
    let call = world.aws.iam.tag_user().user_name(USER).set_tags(Some(tags.iter().map(tag).collect()));
    call.send().await.unwrap();
}

async fn take_user_tags(world: &World<'_>, tags: &Tags) {
    if !tags.is_empty() {
        let call = world.aws.iam.untag_user().user_name(USER).set_tag_keys(Some(tags.keys().cloned().collect()));
        call.send().await.unwrap();
    }
}

/// All that a containment changes of the user.
async fn user(world: &World<'_>) -> (Tags, Vec<String>, Vec<String>, Option<String>, Tags) {
    let aws = &world.aws;
    let mut inline = sight::inline_policies(aws).await.unwrap();
    inline.retain(|name| !name.starts_with("firebreak-sessions-until-")); // the denies of old sessions stay
    let (attached, boundary) = (sight::attached_policies(aws).await.unwrap(), sight::boundary(aws).await.unwrap());
    (sight::keys(aws).await.unwrap(), inline, attached, boundary, sight::user_tags(aws).await.unwrap())
}

async fn instance(world: &World<'_>) -> sight::Contained {
    sight::contained(&world.aws, &world.scene.instances[0]).await.unwrap()
}

async fn role(world: &World<'_>) -> sight::Role {
    sight::Role { residual: vec![], ..sight::role(&world.aws).await.unwrap() }
}

/// A boundary of its own, and one of two keys off.
async fn furnish_user(world: &World<'_>) {
    let iam = &world.aws.iam;
    let boundary = "arn:aws:iam::aws:policy/ReadOnlyAccess";
    iam.put_user_permissions_boundary().user_name(USER).permissions_boundary(boundary).send().await.unwrap();
    switch_key(world, 1, StatusType::Inactive).await;
    put_user_tags(world, &[("team".to_owned(), "web".to_owned())].into()).await;
}

async fn switch_key(world: &World<'_>, nth: usize, status: StatusType) {
    let call = world.aws.iam.update_access_key().user_name(USER).access_key_id(&world.scene.access_keys[nth]);
    call.status(status).send().await.unwrap();
}

#[tokio::test]
async fn what_a_lost_cluster_contained_is_adopted_and_given_back_as_it_was() {
    let (world, _guard) = ready().await;
    furnish_user(&world).await;
    let before = (user(&world).await, instance(&world).await, role(&world).await);
    let targets = json!([world.instance_target(0), world.user_target(), world.role_target()]);
    contain(&world, "inc", targets.clone()).await;
    let known = records(&world).await;
    let id = &world.scene.instances[0].id;
    assert!(!copy_of(&sight::marks(&world.aws, id).await.unwrap()).is_empty());

    world.lose().await;
    // Meanwhile nobody looks: a key goes on that was off, and an interface comes out of isolation.
    switch_key(&world, 1, StatusType::Active).await;
    let out = world.aws.ec2.modify_network_interface_attribute();
    let out = out.network_interface_id(&world.scene.instances[0].interfaces[1]).groups(&world.scene.groups[0]);
    out.send().await.unwrap();
    let judge = Judge::of(&world).await;

    contain(&world, "inc", targets).await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();
    let mut adopted = records(&world).await;
    adopted.values_mut().for_each(|record| record.retain(|key, _| !key.starts_with("revokeSessions/")));
    let mut known = known;
    known.values_mut().for_each(|record| record.retain(|key, _| !key.starts_with("revokeSessions/"))); // moves forward
    assert_eq!(adopted, known);
    for quarantine in world.quarantines().await {
        let conditions = quarantine.status.as_ref().unwrap().conditions.clone();
        let said = &firebreak_crds::get_condition(&conditions, "Contained").unwrap().message;
        assert!(said.contains("adopted from its tags") && said.contains("/inc"), "{said}");
        told_of_adoption(&world, &quarantine.name_any()).await;
    }
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!((user(&world).await, instance(&world).await, role(&world).await), before);
    judge.assert_no_call_was_wrong();
}

/// Isolated in that group, and idle flows are forgotten soon.
async fn until_isolated_in(world: &World<'_>, group: &str) {
    let interfaces = &world.scene.instances[0].interfaces;
    world
        .until_aws("isolated in the policy's own group", async || {
            let groups = sight::groups(&world.aws, interfaces).await?;
            ensure!(groups.values().all(|groups| groups == &[group.to_owned()]), "{groups:?}");
            let idle = sight::idle_timeouts(&world.aws, interfaces).await?;
            ensure!(idle.values().all(|idle| *idle == Some((60, 60))), "{idle:?}");
            Ok(())
        })
        .await;
    until_copied(world).await;
}

#[tokio::test]
async fn a_group_of_the_policys_own_and_idle_timeouts_are_adopted_too() {
    let (world, _guard) = ready().await;
    let (aws, interfaces) = (&world.aws, &world.scene.instances[0].interfaces);
    let group = forensics(&world, "10.9.0.5/32").await;
    let isolate =
        json!({ "severTrackedConnections": "Never", "securityGroupIds": [group], "shortenConnectionTracking": true });
    let policy = world.policy("much", json!({ "ec2Instance": { "contain": [{ "isolateNetwork": isolate }] } }));
    world.plane.apply(&policy.to_string()).await.unwrap();
    let before = sight::groups(aws, interfaces).await.unwrap();
    contain(&world, "inc", json!([world.instance_target(0)])).await;
    until_isolated_in(&world, &group).await;
    let known = records(&world).await;

    world.lose().await;
    contain(&world, "inc", json!([world.instance_target(0)])).await;
    until_isolated_in(&world, &group).await;
    assert_eq!(records(&world).await, known);
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(aws, interfaces).await.unwrap(), before);
    let idle = sight::idle_timeouts(aws, interfaces).await.unwrap();
    assert!(idle.values().all(|idle| *idle == Some((432_000, 180))), "{idle:?}");
}

async fn told_of_adoption(world: &World<'_>, object: &str) {
    world.until_event(object, "Adopted: ", &["adopted from its tags"]).await;
}

#[tokio::test]
async fn the_copy_grows_with_the_record() {
    let (world, _guard) = ready().await;
    let instance = &world.scene.instances[0];
    contain(&world, "inc", json!([world.instance_target(0)])).await;
    let first = copy_of(&sight::marks(&world.aws, &instance.id).await.unwrap());

    let made = world.aws.ec2.create_network_interface().subnet_id(&world.scene.subnet).groups(&world.scene.groups[1]);
    let third = made.send().await.unwrap().network_interface.unwrap().network_interface_id.unwrap();
    let attach = world.aws.ec2.attach_network_interface().network_interface_id(&third).instance_id(&instance.id);
    attach.device_index(2).send().await.unwrap();
    let key = format!("isolateNetwork/{third}");
    world.until_quarantine(&instance.id, "records it", |q| originals(q).contains_key(&key)).await;
    world
        .until_aws("the copy is another", async || {
            let now = copy_of(&sight::marks(&world.aws, &instance.id).await?);
            ensure!(now != first && !now.is_empty(), "{now:#?}");
            Ok(())
        })
        .await;
    until_copied(&world).await;

    world.lose().await;
    contain(&world, "inc", json!([world.instance_target(0)])).await;
    world.release("inc").await;
    let groups = sight::groups(&world.aws, std::slice::from_ref(&third)).await.unwrap();
    assert_eq!(groups[&third], [world.scene.groups[1].clone()]);
}

/// Declares the Incident again, to meet the user with these tags of a copy: it stays contained, and says why.
async fn disbelieved(world: &World<'_>, what: &str, copy: &Tags, why: &str) {
    world.lose().await;
    take_user_tags(world, &copy_of(&sight::user_tags(&world.aws).await.unwrap())).await;
    put_user_tags(world, copy).await;
    declare(world, "inc", json!([world.user_target()])).await;
    let said = world.until_quarantine_says(USER, "Stalled", "OriginalUnknown").await;
    assert!(said.contains(why) && said.contains("spec.release.original"), "{what}: {said}");
    sight::cut_off(&world.aws).await.unwrap();
    assert_eq!(copy_of(&sight::user_tags(&world.aws).await.unwrap()), *copy, "{what}: it may be all that there is");
    let quarantine = world.quarantine_of(USER).await.unwrap();
    let known = originals(&quarantine);
    assert!(known.is_empty(), "{what}: {known:?}");
}

#[tokio::test]
async fn a_copy_that_cannot_be_believed_leaves_it_contained_until_a_person_says_what_was_there() {
    let (world, _guard) = ready().await;
    furnish_user(&world).await;
    let before = user(&world).await;
    contain(&world, "inc", json!([world.user_target(), world.role_target()])).await;
    let good = copy_of(&sight::user_tags(&world.aws).await.unwrap());
    let of_the_role = copy_of(&sight::role(&world.aws).await.unwrap().tags);

    let (first, last) = (format!("{COPY}0"), good.last_key_value().unwrap().0.clone());
    let mut forged = good.clone();
    let flipped = if forged[&first].starts_with('A') { "B" } else { "A" };
    forged.get_mut(&first).unwrap().replace_range(0..1, flipped);
    let truncated: Tags = good.iter().filter(|(k, _)| **k != last).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert!(!truncated.is_empty(), "{good:?}");
    for (what, copy, why) in [
        ("forged", &forged, "no valid MAC"),
        ("truncated", &truncated, "no valid MAC"),
        ("of the role", &of_the_role, "no valid MAC"),
        ("missing", &Tags::new(), "there is no copy"),
    ] {
        disbelieved(&world, what, copy, why).await;
    }
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until_quarantine_says(USER, "Stalled", "ReleaseConflict").await;
    sight::cut_off(&world.aws).await.unwrap();

    let id = world.aws.iam.get_user().user_name(USER).send().await.unwrap().user.unwrap().user_id;
    let mut original = json!({
        "denyAll": "{",
        "denyAll/boundary": r#"{"arn":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#,
        format!("deactivateAccessKeys/{}", world.scene.access_keys[0]): r#"{"active":true}"#,
    });
    world.steer(USER, json!({ "release": { "original": original } })).await;
    let said = world.until_quarantine_says(USER, "Stalled", "InvalidOriginal").await;
    assert!(said.contains(r#"spec.release.original["denyAll"]"#), "{said}");
    sight::cut_off(&world.aws).await.unwrap();

    original["denyAll"] = json!(json!({ "userId": id, "awsDenyAllAttached": false }).to_string());
    world.steer(USER, json!({ "release": { "original": original } })).await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(user(&world).await, before);
}

#[tokio::test]
async fn the_groups_of_an_instance_can_be_given_too() {
    let (world, _guard) = ready().await;
    let judge = Judge::of(&world).await;
    let before = instance(&world).await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    contain(&world, "inc", json!([world.instance_target(0)])).await;
    world.lose().await;
    let marks = sight::marks(&world.aws, id).await.unwrap();
    let mut delete = world.aws.ec2.delete_tags().resources(id);
    for key in copy_of(&marks).keys() {
        delete = delete.tags(aws_sdk_ec2::types::Tag::builder().key(key).build());
    }
    delete.send().await.unwrap();
    // Nor is it one where somebody put an interface meanwhile.
    let out = world.aws.ec2.modify_network_interface_attribute().network_interface_id(&interfaces[1]);
    out.groups(&world.scene.groups[0]).send().await.unwrap();
    declare(&world, "inc", json!([world.instance_target(0)])).await;
    world.until_quarantine_says(id, "Stalled", "OriginalUnknown").await;
    world.until_aws("it is isolated again", async || sight::isolated(&world.aws, interfaces).await).await;
    let recorded = originals(&world.quarantine_of(id).await.unwrap());
    assert!(recorded.is_empty(), "{recorded:?}");

    // What AWS showed before is what the record would say.
    let mut original = serde_json::Map::new();
    for (interface, groups) in &before.0 {
        original.insert(format!("isolateNetwork/{interface}"), json!(json!({ "groups": groups }).to_string()));
    }
    for (name, value) in &before.1 {
        let (key, protected) = match name.as_str() {
            "DisableApiTermination" => ("disableApiTermination", value == "true"),
            "DisableApiStop" => ("disableApiStop", value == "true"),
            "InstanceInitiatedShutdownBehavior" => ("instanceInitiatedShutdownBehavior", value == "stop"),
            volume => (volume, value == "false"),
        };
        original.insert(format!("protectFromTermination/{key}"), json!(json!({ "protected": protected }).to_string()));
    }
    let shown = sight::instance(&world.aws, id).await.unwrap().metadata_options.unwrap();
    let (tokens, hops) = (shown.http_tokens.unwrap(), shown.http_put_response_hop_limit);
    let metadata = json!({ "enabled": true, "httpTokens": tokens.as_str(), "httpPutResponseHopLimit": hops });
    original.insert("disableInstanceMetadata".into(), json!(metadata.to_string()));
    world.steer(id, json!({ "release": { "original": original } })).await;
    world.until("inc", "Contained", "True").await;
    world
        .until_quarantine(id, "nothing is unknown", |q| {
            let conditions = q.status.clone().unwrap_or_default().conditions;
            firebreak_crds::is_true(&conditions, "Ready")
        })
        .await;
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(instance(&world).await, before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn a_trust_policy_that_somebody_wrote_while_nobody_looked_is_no_original() {
    let (world, _guard) = ready().await;
    let iam = &world.aws.iam;
    let before = role(&world).await;
    contain(&world, "inc", json!([world.role_target()])).await;
    world.lose().await;
    let copy = copy_of(&role(&world).await.tags).into_keys().collect();
    iam.untag_role().role_name(ROLE).set_tag_keys(Some(copy)).send().await.unwrap();
    let theirs =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    iam.update_assume_role_policy().role_name(ROLE).policy_document(theirs).send().await.unwrap();
    let judge = Judge::of(&world).await;

    declare(&world, "inc", json!([world.role_target()])).await;
    world.until_quarantine_says(ROLE, "Stalled", "OriginalUnknown").await;
    let sealed = async || {
        let role = role(&world).await;
        ensure!(!role.trust.contains("Allow"), "{role:#?}");
        Ok(())
    };
    world.until_aws("it is sealed again", sealed).await;
    world.change("inc", json!({ "mode": "Release" })).await;
    world.until_quarantine_says(ROLE, "Stalled", "ReleaseConflict").await;
    sealed().await.unwrap();
    let recorded = originals(&world.quarantine_of(ROLE).await.unwrap());
    assert!(!recorded.contains_key("sealTrustPolicy") && !recorded.contains_key("denyAll"), "{recorded:?}");

    let id = iam.get_role().role_name(ROLE).send().await.unwrap().role.unwrap().role_id;
    let text = |value: Value| json!(value.to_string());
    let original = json!({
        "denyAll": text(json!({ "userId": id, "awsDenyAllAttached": false })),
        "denyAll/boundary": text(json!({ "arn": before.boundary })),
        "sealTrustPolicy": text(json!({ "roleId": id, "trust": ROLE_TRUST, "trusted": {} })),
    });
    world.steer(ROLE, json!({ "release": { "original": original } })).await;
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(role(&world).await, before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn an_older_copy_that_somebody_puts_there_again_is_not_believed() {
    let (world, _guard) = ready().await;
    contain(&world, "first", json!([world.user_target()])).await;
    let old = sight::user_tags(&world.aws).await.unwrap();
    world.release("first").await;
    world.until_nothing_is_held().await;

    switch_key(&world, 1, StatusType::Inactive).await;
    // Before the next containment, also of that name: nothing shows that the user is contained.
    for name in ["first", "second"] {
        put_user_tags(&world, &copy_of(&old)).await;
        let before = sight::keys(&world.aws).await.unwrap();
        contain(&world, name, json!([world.user_target()])).await;
        let record = originals(&world.quarantine_of(USER).await.unwrap());
        for (key, status) in before {
            let recorded: Value = serde_json::from_str(&record[&format!("deactivateAccessKeys/{key}")].0).unwrap();
            assert_eq!(recorded["active"], json!(status == "Active"));
        }
        let new = copy_of(&sight::user_tags(&world.aws).await.unwrap());
        assert_ne!(new, copy_of(&old));
        if name == "first" {
            world.release(name).await;
            world.until_nothing_is_held().await;
        }
    }
    // During another containment, while nobody looks.
    world.lose().await;
    take_user_tags(&world, &copy_of(&sight::user_tags(&world.aws).await.unwrap())).await;
    put_user_tags(&world, &old).await;
    declare(&world, "second", json!([world.user_target()])).await;
    let said = world.until_quarantine_says(USER, "Stalled", "OriginalUnknown").await;
    assert!(said.contains("/first: declare that Incident"), "{said}");
    sight::cut_off(&world.aws).await.unwrap();
}
