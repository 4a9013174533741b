//! Targets by what they have in common: settled when the Incident turns to Contain, kept whatever AWS shows later, and joined by
//! others only where the selector follows, within its limit.

use std::collections::BTreeMap;

use anyhow::ensure;
use firebreak_crds::{Incident, SelectorStatus};
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::emulator::REGION;
use firebreak_tests::eventually::eventually;
use firebreak_tests::judge::Judge;
use firebreak_tests::scene::{SceneInstance, elsewhere, join_scaling_group, tag};
use firebreak_tests::sight;
use firebreak_tests::world::{ADMIN, SOON, World};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::ground_up::{world, worlds};

#[allow(clippy::needless_pass_by_value)] // callers write the criteria in place
fn selector(world: &World<'_>, criteria: Value) -> Value {
    let mut selector = json!({ "accountRef": { "name": world.account_name() }, "region": REGION });
    selector.as_object_mut().unwrap().extend(criteria.as_object().unwrap().clone());
    json!({ "ec2Selector": selector })
}

/// One more instance in the scene's network, with the tag that the selectors here ask for.
async fn launched(world: &World<'_>) -> SceneInstance {
    let instance = world.scene.another(&world.aws).await.unwrap();
    tag(&world.aws, &instance.id, "team", "web").await.unwrap();
    instance
}

/// What containing could change of instances: groups and tags.
async fn shown(world: &World<'_>, instances: &[&SceneInstance]) -> Vec<(BTreeMap<String, Vec<String>>, Vec<String>)> {
    let mut all = Vec::new();
    for instance in instances {
        let groups = sight::groups(&world.aws, &instance.interfaces).await.unwrap();
        let tags = sight::instance(&world.aws, &instance.id).await.unwrap().tags.unwrap_or_default();
        let mut tags: Vec<String> = tags.iter().map(|t| format!("{t:?}")).collect();
        tags.sort();
        all.push((groups, tags));
    }
    all
}

fn sorted(instances: &[&SceneInstance]) -> Vec<String> {
    let mut ids: Vec<String> = instances.iter().map(|i| i.id.clone()).collect();
    ids.sort();
    ids
}

/// Waits until the list of the Incident's only selector is as asked.
async fn until_list(world: &World<'_>, what: &str, such: impl Fn(&SelectorStatus) -> bool) -> Incident {
    eventually(what, SOON, async || {
        let incident = world.incidents().get("inc").await?;
        let lists = incident.status.clone().unwrap_or_default().selectors;
        ensure!(lists.len() == 1 && such(&lists[0]), "{lists:#?}");
        Ok(incident)
    })
    .await
}

/// Exactly these are held, and isolated.
async fn until_held(world: &World<'_>, instances: &[&SceneInstance]) {
    let expected = sorted(instances);
    eventually("exactly these are held", SOON, async || {
        let mut held: Vec<String> = world.quarantines().await.into_iter().map(|q| q.spec.resource.id).collect();
        held.sort();
        ensure!(held == expected, "{held:?}, not {expected:?}");
        for instance in instances {
            sight::isolated(&world.aws, &instance.interfaces).await?;
        }
        Ok(())
    })
    .await;
}

/// Long enough for an instance to be taken, if nothing held the controller back: what is held is looked at meanwhile.
async fn until_looked(world: &World<'_>) {
    world.until_answered("DescribeInstances", 6).await;
}

#[tokio::test]
async fn what_matches_at_that_moment_is_contained_and_stays_so_and_nothing_joins_later() {
    let (world, _guard) = worlds(3).await;
    let [first, second, other] = [0, 1, 2].map(|n| &world.scene.instances[n]);
    let (far, ended) = (elsewhere(&world.aws).await.unwrap(), launched(&world).await);
    world.aws.ec2.terminate_instances().instance_ids(&ended.id).send().await.unwrap();
    for (instance, team) in [(first, "web"), (second, "web"), (other, "web-2"), (&far, "web")] {
        tag(&world.aws, &instance.id, "team", team).await.unwrap();
    }
    let before = shown(&world, &[first, second, other, &far]).await;
    let judge = Judge::of(&world).await;
    let targets = json!([selector(&world, json!({ "tags": { "team": "web" }, "vpcId": world.scene.vpc }))]);
    world.declare("inc", "Plan", json!({ "targets": targets })).await;
    let planned = world.until_reason("inc", "Ready", "Planned").await.status.unwrap();
    let plan = planned.plan.unwrap();
    let resources: Vec<&str> = plan.targets.iter().map(|t| t.resource.rsplit('/').next().unwrap()).collect();
    assert_eq!((plan.target_count, resources), (2, sorted(&[first, second]).iter().map(String::as_str).collect()));
    assert!(planned.selectors.is_empty() && world.quarantines().await.is_empty(), "nothing is settled by looking");

    world.change("inc", json!({ "mode": "Contain" })).await;
    let contained = world.until("inc", "Contained", "True").await.status.unwrap();
    assert_eq!((contained.contained.as_deref(), contained.targets.len()), (Some("2/2"), 2));
    assert_eq!(contained.selectors[0].instances, sorted(&[first, second]));
    until_held(&world, &[first, second]).await;

    let later = launched(&world).await;
    let team = aws_sdk_ec2::types::Tag::builder().key("team").build();
    world.aws.ec2.delete_tags().resources(&first.id).tags(team).send().await.unwrap();
    until_looked(&world).await;
    until_held(&world, &[first, second]).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &later.interfaces).await.unwrap_err();

    // A list that is lost is not made again in silence.
    let lost = json!({ "status": { "selectors": null } });
    world.incidents().patch_status("inc", &PatchParams::default(), &Patch::Merge(lost)).await.unwrap();
    until_list(&world, "the list is made again of what is held", |list| {
        let waits = list.awaiting_approval == [later.id.clone()];
        list.rebuilt_at.is_some() && list.instances == sorted(&[first, second]) && waits
    })
    .await;
    world.until_reason("inc", "Stalled", "AwaitingApproval").await;
    world.until("inc", "Contained", "False").await;
    until_held(&world, &[first, second]).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    tag(&world.aws, &first.id, "team", "web").await.unwrap();
    assert_eq!(shown(&world, &[first, second, other, &far]).await, before);
    judge.assert_no_call_was_wrong();

    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    until_held(&world, &[first, second, &later]).await;
    world.release("inc").await;
}

#[tokio::test]
async fn what_is_contained_leaves_the_group_that_it_was_found_by_and_stays_contained() {
    let (world, _guard) = worlds(2).await;
    let [first, second] = [0, 1].map(|n| &world.scene.instances[n]);
    join_scaling_group(&world.aws, &world.scene, "fleet", 3).await.unwrap();
    let scaling = json!([selector(&world, json!({ "autoScalingGroup": "fleet" }))]);
    world.declare("scaling", "Plan", json!({ "targets": scaling })).await;
    let plan = world.until_reason("scaling", "Ready", "Planned").await.status.unwrap().plan.unwrap();
    let planned: Vec<&str> = plan.targets.iter().map(|t| t.resource.rsplit('/').next().unwrap()).collect();
    assert_eq!(planned, [&first.id]);

    let before = shown(&world, &[first, second]).await;
    let by_group = selector(&world, json!({ "securityGroupId": world.scene.groups[1], "subnetId": world.scene.subnet }));
    world.declare("inc", "Contain", json!({ "targets": [by_group, world.instance_target(1)] })).await;
    let incident = world.until("inc", "Contained", "True").await.status.unwrap();
    assert_eq!(incident.contained.as_deref(), Some("2/2"), "one that is named, too, counts once");
    until_looked(&world).await;
    world.until("inc", "Contained", "True").await;
    until_held(&world, &[first, second]).await;

    world.change("inc", json!({ "targets": [world.instance_target(1)] })).await;
    let told = world.until_target("inc", 1, |t| t.message.starts_with("no longer a target")).await;
    assert_eq!((told.contained.as_str(), told.resource.unwrap().id), ("True", first.id.clone()));
    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(shown(&world, &[first, second]).await, before);
}

#[tokio::test]
async fn what_matches_later_joins_within_the_limit_and_the_rest_after_an_approval() {
    let (world, _guard) = world().await;
    let_approve(&world).await;
    let first = &world.scene.instances[0];
    tag(&world.aws, &first.id, "team", "web").await.unwrap();
    let follows = json!({ "tags": { "team": "web" }, "follow": true, "maxNewPerHour": 1 });
    let spec = json!({ "requestedBy": ADMIN, "targets": [selector(&world, follows)] });
    world.declare("inc", "Contain", spec).await;
    world.until("inc", "Contained", "True").await;

    let joins = launched(&world).await;
    until_held(&world, &[first, &joins]).await;
    let beyond = [launched(&world).await, launched(&world).await];
    let before = shown(&world, &[&beyond[0], &beyond[1]]).await;
    until_list(&world, "what is beyond the limit waits", |list| !list.awaiting_approval.is_empty()).await;
    world.until_reason("inc", "Stalled", "AwaitingApproval").await;
    world.until_reason("inc", "Contained", "AwaitingApproval").await;
    until_looked(&world).await;
    until_held(&world, &[first, &joins]).await;
    assert_eq!(shown(&world, &[&beyond[0], &beyond[1]]).await, before);
    assert!(world.evidence().await.iter().all(|e| beyond.iter().all(|b| b.id != e.spec.resource.id)));

    // They may have been seen one after the other: what waits first is approved first.
    eventually("both are approved, and held", SOON, async || {
        if world.said("inc", "Approved").await.0 == "AwaitingApproval" {
            approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
        }
        let held = world.quarantines().await.len();
        ensure!(held == 4, "{held}");
        Ok(())
    })
    .await;
    until_held(&world, &[first, &joins, &beyond[0], &beyond[1]]).await;
    let incident = world.until("inc", "Contained", "True").await.status.unwrap();
    assert_eq!(incident.contained.as_deref(), Some("4/4"));
    until_list(&world, "nothing waits", |list| list.awaiting_approval.is_empty() && list.instances.len() == 4).await;

    world.release("inc").await;
    world.until_nothing_is_held().await;
    assert_eq!(shown(&world, &[&beyond[0], &beyond[1]]).await, before);
}

#[tokio::test]
async fn while_aws_does_not_say_who_matches_nothing_is_settled_and_the_other_targets_go_on() {
    let (world, _guard) = world().await;
    tag(&world.aws, &world.scene.instances[0].id, "team", "web").await.unwrap();
    world.proxy.fail("DescribeInstances", 403, "UnauthorizedOperation", "not authorized");
    let targets = json!([selector(&world, json!({ "tags": { "team": "web" } })), world.user_target()]);
    world.declare("inc", "Contain", json!({ "targets": targets })).await;
    world.until_target("inc", 0, |t| t.contained == "True").await;
    sight::cut_off(&world.aws).await.unwrap();
    let told = world.until_target("inc", 1, |t| t.reason == "AccessDenied").await;
    assert!(told.message.contains("with the tag team=web") && told.message.contains("ec2:DescribeInstances"), "{told:?}");
    let incident = world.until("inc", "Contained", "False").await;
    assert!(incident.status.unwrap().selectors.is_empty());

    world.proxy.recover("DescribeInstances");
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
}

#[tokio::test]
async fn a_selector_that_matches_nothing_or_may_not_be_used_is_not_called_contained() {
    let (world, _guard) = world().await;
    let nothing = selector(&world, json!({ "tags": { "team": "nobody" } }));
    let mut far = nothing.clone();
    far["ec2Selector"]["region"] = json!("us-west-2");
    world.declare("inc", "Contain", json!({ "targets": [nothing, far] })).await;
    let told = world.until_target("inc", 0, |t| t.reason == "NothingMatches").await;
    assert!(told.contained == "False" && told.message.contains("mend the selector"), "{told:?}");
    world.until_target("inc", 1, |t| t.reason == "RegionNotAllowed" && t.message.contains("us-west-2")).await;
    world.until("inc", "Contained", "False").await;
    world.until("inc", "Stalled", "True").await;
    world.release("inc").await;
}
