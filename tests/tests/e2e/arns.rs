//! Targets by their ARN: the same targets as in the other forms.

use firebreak_tests::emulator::REGION;
use firebreak_tests::scene::{self, ROLE, USER};
use firebreak_tests::world::World;
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

async fn everything() -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    scene::role(&world.aws).await.unwrap();
    world.aws.iam.create_user().user_name("eve").path("/ops/eu/").send().await.unwrap();
    let spec = json!({
        "ec2Instance": { "contain": [{ "isolateNetwork": {} }] },
        "iamUser": { "contain": [{ "denyAll": {} }] },
        "iamRole": { "contain": [{ "revokeSessions": {} }] },
        "roleSession": { "contain": [{ "denySession": {} }] },
    });
    world.plane.apply(&world.policy("everything", spec).to_string()).await.unwrap();
    (world, guard)
}

async fn declare(world: &World<'_>, targets: Value) {
    let spec = json!({ "policyRef": { "name": world.policy_name("everything") }, "targets": targets });
    world.declare("inc", "Contain", spec).await;
}

#[tokio::test]
async fn a_target_by_its_arn_and_by_its_fields_is_one_target() {
    let (world, _guard) = everything().await;
    let (account, instance) = (&world.aws.account, &world.scene.instances[0].id);
    let targets = json!([
        world.target_arn(&format!("ec2:{REGION}:{account}:instance/{instance}")),
        world.instance_target(0),
        world.user_target(),
        world.target_arn(&format!("iam::{account}:user/{USER}")),
        world.target_arn(&format!("iam::{account}:user/ops/eu/eve")),
        world.role_target(),
        world.target_arn(&format!("iam::{account}:role/{ROLE}")),
        world.session_target("ci-job"),
        world.target_arn(&format!("sts::{account}:assumed-role/{ROLE}/ci-job")),
    ]);
    declare(&world, targets).await;
    let incident = world.until("inc", "Contained", "True").await;
    let status = incident.status.unwrap();
    assert_eq!(status.contained.as_deref(), Some("5/5"));
    let mut held: Vec<String> = world.quarantines().await.into_iter().map(|q| q.spec.resource.id).collect();
    held.sort();
    let mut expected = [instance, USER, "eve", ROLE, "build/ci-job"].map(str::to_owned);
    expected.sort();
    assert_eq!(held, expected);
    world.release("inc").await;
    assert!(world.quarantines().await.is_empty());
}

#[tokio::test]
async fn an_arn_of_another_account_partition_or_region_is_refused_and_the_others_go_on() {
    let (world, _guard) = everything().await;
    let account = &world.aws.account;
    let in_china = json!({ "arn": {
        "accountRef": { "name": world.account_name() },
        "arn": format!("arn:aws-cn:iam::{account}:user/{USER}"),
    } });
    let targets = json!([
        world.target_arn("iam::999999999999:user/mallory"),
        in_china,
        world.target_arn(&format!("ec2:eu-central-1:{account}:instance/i-0123456789abcdef0")),
        world.target_arn(&format!("iam::{account}:user/ops/eu/eve")),
    ]);
    declare(&world, targets).await;
    for (index, reason, words) in
        [(0, "WrongAccount", "999999999999"), (1, "WrongAccount", "aws-cn"), (2, "RegionNotAllowed", "spec.regions")]
    {
        let refused = world.until_target("inc", index, |t| t.reason == reason).await;
        assert!(refused.message.contains(words) && refused.message.contains(&world.account_name()), "{refused:#?}");
    }
    world.until_target("inc", 3, |t| t.contained == "True").await;
    assert_eq!(world.quarantines().await.len(), 1);
}
