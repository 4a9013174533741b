//! Many instances with one role: one policy of the role has room for about 229 of them, and nobody overwrites another's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use firebreak_crds::{get_condition, is_true};
use firebreak_tests::emulator::REGION;
use firebreak_tests::eventually::eventually;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::{instance_profile, put_profile};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::apart::{Apart, apart};

const OURS: &str = "firebreak-deny-all";
/// What the inline policies of a role may have together.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
const QUOTA: usize = 10_240;
/// The emulator answers one call after the other.
const CONTAINED: Duration = Duration::from_mins(4);
const RELEASED: Duration = Duration::from_mins(6);

/// Instances with the profile `web`, and an Incident over all of them.
async fn crowd(plane: &Plane, count: usize) -> World<'_> {
    let world = World::unannounced(plane, count).await;
    let spec = json!({ "limits": { "maxQuarantines": count }, "prepare": { "isolationGroups": "OnDemand", "denyProfile": "Always" } });
    plane.apply(&world.account(spec).to_string()).await.unwrap();
    let contain = json!({ "ec2Instance": { "contain": [{ "revokeInstanceRole": {} }] } });
    plane.apply(&world.policy("role", contain).to_string()).await.unwrap();
    world.account_ready().await;
    instance_profile(&world.aws, "web").await.unwrap();
    for instance in &world.scene.instances {
        put_profile(&world.aws, &instance.id, "web").await.unwrap();
    }
    let selector = json!({ "accountRef": { "name": world.account_name() }, "region": REGION, "vpcId": world.scene.vpc });
    let spec = json!({ "policyRef": { "name": world.policy_name("role") }, "targets": [{ "ec2Selector": selector }] });
    world.declare("inc", "Contain", spec).await;
    world
}

/// Each instance has that profile.
async fn all_have(world: &World<'_>, profile: &str) -> anyhow::Result<()> {
    for instance in &world.scene.instances {
        let shown = sight::profile(&world.aws, &instance.id).await?.map(|(_, name)| name);
        ensure!(shown.as_deref() == Some(profile), "{}: {shown:?}", instance.id);
    }
    Ok(())
}

/// Those whose sessions of the role are denied, whenever they were issued.
async fn denied(world: &World<'_>) -> anyhow::Result<BTreeSet<String>> {
    let denied = sight::denied_instances(&world.aws, "web").await?;
    Ok(denied.into_iter().filter(|(_, before)| before.is_none()).map(|(id, _)| id).collect())
}

/// All of the role's inline policies, without white space, as AWS counts them.
async fn size(world: &World<'_>) -> usize {
    let inline = sight::inline_of_role(&world.aws, "web").await.unwrap();
    inline.values().map(|policy: &Value| policy.to_string().len()).sum()
}

async fn release(world: &World<'_>) {
    world.change("inc", json!({ "mode": "Release" })).await;
    eventually("all are released", RELEASED, async || {
        let status = world.incidents().get("inc").await?.status.unwrap_or_default();
        ensure!(is_true(&status.conditions, "Released"), "{:#?}", status.conditions);
        Ok(())
    })
    .await;
    all_have(world, "web").await.unwrap();
    assert_eq!(denied(world).await.unwrap(), BTreeSet::new(), "what comes now is not denied");
    assert!(size(world).await <= QUOTA, "{}", size(world).await);
}

/// Those of which it is said that old sessions stay denied.
async fn denied_before(world: &World<'_>) -> BTreeSet<String> {
    let denied = sight::denied_instances(&world.aws, "web").await.unwrap();
    denied.into_iter().filter(|(_, before)| before.is_some()).map(|(id, _)| id).collect()
}

#[tokio::test]
async fn sixty_instances_lose_one_role_and_get_it_back() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "30s").await;
    let world = crowd(&plane, 60).await;
    let all: BTreeSet<String> = world.scene.instances.iter().map(|i| i.id.clone()).collect();
    eventually("all sixty are contained", CONTAINED, async || {
        let status = world.incidents().get("inc").await?.status.unwrap_or_default();
        ensure!(is_true(&status.conditions, "Contained"), "{:#?}", status.conditions);
        Ok(())
    })
    .await;
    all_have(&world, OURS).await.unwrap();
    assert_eq!(denied(&world).await.unwrap(), all);
    let writes = world.proxy.count(|c| c.action == "PutRolePolicy" && c.params["RoleName"] == "web");
    println!("60 instances of one role: {writes} writes of its policy");
    assert!(writes < 60, "those at the same moment share a write: {writes}");
    release(&world).await;
    assert_eq!(denied_before(&world).await, all);
}

#[tokio::test]
async fn three_hundred_instances_of_one_role_lose_it_and_those_without_room_are_not_called_contained() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "30s").await;
    let world = crowd(&plane, 300).await;
    let failed = eventually("as many are denied as have room", CONTAINED, async || {
        all_have(&world, OURS).await?;
        let status = world.incidents().get("inc").await?.status.unwrap_or_default();
        let denied = denied(&world).await?;
        let targets = status.targets.first();
        let contained = get_condition(&status.conditions, "Contained").map(|c| (c.status.clone(), c.message.clone()));
        ensure!(denied.len() > 200 && denied.len() < 300, "{}, {contained:?}, {targets:#?}", denied.len());
        let without: Vec<_> =
            world.quarantines().await.into_iter().filter(|q| !denied.contains(&q.spec.resource.id)).collect();
        for quarantine in &without {
            let conditions = quarantine.status.clone().unwrap_or_default().conditions;
            let said = get_condition(&conditions, "Contained").map(|c| (c.status.as_str(), c.message.as_str()));
            ensure!(said.is_some_and(|(status, message)| status == "False" && message.contains("no room")), "{said:?}");
        }
        ensure!(denied.len() + without.len() == 300 && contained.is_some_and(|(status, _)| status == "False"));
        Ok(without.len())
    })
    .await;
    println!("300 instances of one role: no room for {failed}; {} of {QUOTA} characters", size(&world).await);
    release(&world).await;
    assert_eq!(denied_before(&world).await.len(), 300 - failed);
}
