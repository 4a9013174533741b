//! A new cluster whose controller gets the MAC key late: what it does without the key stands in the way of no adoption, and what
//! somebody left behind while nobody looked is no original.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use aws_sdk_ec2::types::IamInstanceProfileSpecification;
use firebreak_crds::{Quarantine, is_true};
use firebreak_tests::eventually::condition;
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::ControllerManager;
use firebreak_tests::scene::{self, ROLE};
use firebreak_tests::sight;
use firebreak_tests::world::World;
use serde_json::json;

use crate::apart::{Apart, apart};

/// A release waits until new credentials of an instance are told from the old ones.
const RELEASED: Duration = Duration::from_mins(2);

/// An instance with a role of its own and load balancers, and a role; contained by all that the thorough policy has.
async fn furnish(world: &World<'_>) {
    let thorough = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/21-containment-policy-thorough.yaml");
    world.plane.apply(&std::fs::read_to_string(thorough).unwrap()).await.unwrap();
    scene::role(&world.aws).await.unwrap();
    scene::balance(&world.aws, &world.scene, 0).await.unwrap();
    for name in ["web", "other"] {
        scene::instance_profile(&world.aws, name).await.unwrap();
    }
    scene::put_profile(&world.aws, &world.scene.instances[0].id, "web").await.unwrap();
}

async fn declare(world: &World<'_>) {
    let targets = json!([world.instance_target(0), world.role_target()]);
    world.declare("inc", "Contain", json!({ "policyRef": { "name": "thorough" }, "targets": targets })).await;
}

async fn instance(world: &World<'_>) -> (sight::Contained, Option<String>) {
    let (aws, instance) = (&world.aws, &world.scene.instances[0]);
    let profile = sight::profile(aws, &instance.id).await.unwrap();
    (sight::contained(aws, instance).await.unwrap(), profile.map(|(_, name)| name))
}

async fn role(world: &World<'_>) -> sight::Role {
    sight::Role { residual: vec![], ..sight::role(&world.aws).await.unwrap() }
}

/// Another role for the instance, a port behind a load balancer, an interface that is open, and another boundary of the role.
async fn tamper(world: &World<'_>) {
    let (aws, scene) = (&world.aws, &world.scene);
    let (association, _) = sight::profile(aws, &scene.instances[0].id).await.unwrap().unwrap();
    let other = IamInstanceProfileSpecification::builder().name("other").build();
    let replace = aws.ec2.replace_iam_instance_profile_association().association_id(association);
    replace.iam_instance_profile(other).send().await.unwrap();
    let groups = aws.elbv2.describe_target_groups().names("web").send().await.unwrap();
    let target = aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder().id(&scene.instances[0].id).port(4444);
    let register = aws.elbv2.register_targets().targets(target.build());
    register.target_group_arn(groups.target_groups()[0].target_group_arn().unwrap()).send().await.unwrap();
    let open = aws.ec2.modify_network_interface_attribute().network_interface_id(&scene.instances[0].interfaces[1]);
    open.groups(&scene.groups[0]).send().await.unwrap();
    let boundary = aws.iam.put_role_permissions_boundary().role_name(ROLE);
    boundary.permissions_boundary("arn:aws:iam::aws:policy/ReadOnlyAccess").send().await.unwrap();
}

async fn until_copied(world: &World<'_>) {
    world
        .until_aws("a copy of each record", async || {
            let quarantines = world.quarantines().await;
            ensure!(quarantines.len() == 2, "{quarantines:#?}");
            for quarantine in quarantines {
                let status = quarantine.status.clone().unwrap_or_default();
                let looked = status.observed_generation == quarantine.metadata.generation;
                ensure!(status.observed_copy.is_some() && looked, "{quarantine:#?}");
            }
            Ok(())
        })
        .await;
}

fn adopted(quarantine: &Quarantine) -> bool {
    let recorded = quarantine.spec.original.iter().flatten().any(|(key, _)| key == "copy/adopted");
    recorded && quarantine.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Ready"))
}

#[tokio::test]
async fn a_key_that_comes_late_adopts_under_all_that_the_thorough_policy_does() {
    let Apart { plane, controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let _log = controller.log_on_failure();
    let world = World::new(&plane).await;
    furnish(&world).await;
    let before = (instance(&world).await, role(&world).await, sight::registrations(&world.aws).await.unwrap());
    declare(&world).await;
    world.until("inc", "Contained", "True").await;
    until_copied(&world).await;

    let (file, id) = (plane.folder().join("mac-keys"), world.scene.instances[0].id.clone());
    let keys = std::fs::read_to_string(&file).unwrap();
    world.lose().await;
    std::fs::write(&file, "# the key is not here yet\n").unwrap();
    tamper(&world).await;
    let judge = Judge::of(&world).await;
    declare(&world).await;
    for of in [&id, ROLE] {
        let said = world.until_quarantine_says(of, "Stalled", "OriginalUnknown").await;
        assert!(said.contains("cannot be checked"), "{said}");
    }
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    sight::role_denied(&world.aws).await.unwrap();

    std::fs::write(&file, keys).unwrap();
    for of in [&id, ROLE] {
        world.until_quarantine(of, "adopted", adopted).await;
    }
    world.until("inc", "Contained", "True").await;
    world.change("inc", json!({ "mode": "Release" })).await;
    condition(&world.incidents(), "inc", "Released", "True", RELEASED).await;
    world.until_nothing_is_held().await;
    let after = (instance(&world).await, role(&world).await, sight::registrations(&world.aws).await.unwrap());
    assert_eq!(after, before);
    judge.assert_no_call_was_wrong();
}
