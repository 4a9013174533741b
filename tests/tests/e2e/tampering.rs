//! One way to undo each action behind Firebreak's back, straight in AWS.

use aws_sdk_ec2::types::{AttributeBooleanValue, IamInstanceProfileSpecification, InstanceMetadataEndpointState};
use aws_sdk_elasticloadbalancingv2::types::TargetDescription;
use aws_sdk_iam::types::StatusType;
use firebreak_tests::credentials::Credentials;
use firebreak_tests::scene::{ROLE, ROLE_TRUST, USER};
use firebreak_tests::sight;
use firebreak_tests::world::World;

/// Undoes an action on a kind of target.
pub async fn undo(world: &World<'_>, kind: &str, action: &str) {
    match kind {
        "ec2Instance" => of_instance(world, action).await,
        "iamUser" => of_user(world, action).await,
        "iamRole" => of_role(world, action).await,
        "roleSession" => delete_from_role(world, "firebreak-deny-session-ci-job").await,
        _ => of_key(world, action).await,
    }
}

async fn of_instance(world: &World<'_>, action: &str) {
    let (ec2, instance) = (&world.aws.ec2, &world.scene.instances[0]);
    let id = &instance.id;
    match action {
        "isolateNetwork" => {
            let call = ec2.modify_network_interface_attribute().network_interface_id(&instance.interfaces[0]);
            call.groups(&world.scene.groups[0]).send().await.unwrap();
        }
        "protectFromTermination" => {
            let off = AttributeBooleanValue::builder().value(false).build();
            ec2.modify_instance_attribute().instance_id(id).disable_api_termination(off).send().await.unwrap();
        }
        "disableInstanceMetadata" => {
            let call = ec2.modify_instance_metadata_options().instance_id(id);
            call.http_endpoint(InstanceMetadataEndpointState::Enabled).send().await.unwrap();
        }
        "removePublicAddresses" => associate(world, &instance.interfaces[0]).await,
        "detachFromAutoScaling" => {
            let call = world.aws.autoscaling.attach_instances().auto_scaling_group_name("web");
            call.instance_ids(id).send().await.unwrap();
        }
        "deregisterFromLoadBalancers" => register(world, id).await,
        "revokeInstanceRole" => replace_profile(world, id).await,
        "terminateSessions" => {
            world.aws.ssm.start_session().target(id).send().await.unwrap();
        }
        "stopInstance" => {
            ec2.start_instances().instance_ids(id).send().await.unwrap();
        }
        _ => panic!("no way to undo {action}"),
    }
}

async fn associate(world: &World<'_>, interface: &str) {
    let addresses = world.aws.ec2.describe_addresses().send().await.unwrap();
    let allocation = addresses.addresses()[0].allocation_id().unwrap();
    let call = world.aws.ec2.associate_address().allocation_id(allocation).network_interface_id(interface);
    call.send().await.unwrap();
}

async fn register(world: &World<'_>, id: &str) {
    let groups = world.aws.elbv2.describe_target_groups().names("web").send().await.unwrap();
    let group = groups.target_groups()[0].target_group_arn().unwrap();
    let target = TargetDescription::builder().id(id).port(80).build();
    world.aws.elbv2.register_targets().target_group_arn(group).targets(target).send().await.unwrap();
}

async fn replace_profile(world: &World<'_>, id: &str) {
    let (association, _) = sight::profile(&world.aws, id).await.unwrap().unwrap();
    let call = world.aws.ec2.replace_iam_instance_profile_association().association_id(association);
    call.iam_instance_profile(IamInstanceProfileSpecification::builder().name("web").build()).send().await.unwrap();
}

async fn of_user(world: &World<'_>, action: &str) {
    match action {
        "denyAll" => delete_from_user(world, "firebreak-deny-all").await,
        "deactivateAccessKeys" => switch_key_on(world).await,
        "deactivateSshKeys" => switch_on(world, Credentials::SshKeys).await,
        "deactivateServiceCredentials" => switch_on(world, Credentials::ServiceCredentials).await,
        "deactivateSigningCertificates" => switch_on(world, Credentials::SigningCertificates).await,
        "removeConsoleAccess" => {
            let call = world.aws.iam.create_login_profile().user_name(USER).password("another-Horse-2");
            call.send().await.unwrap();
        }
        _ => panic!("no way to undo {action}"),
    }
}

async fn switch_on(world: &World<'_>, kind: Credentials) {
    let all = kind.all(&world.aws).await.unwrap();
    kind.switch(&world.aws, all.keys().next().unwrap(), true).await.unwrap();
}

async fn switch_key_on(world: &World<'_>) {
    let call = world.aws.iam.update_access_key().user_name(USER).access_key_id(&world.scene.access_keys[0]);
    call.status(StatusType::Active).send().await.unwrap();
}

async fn of_key(world: &World<'_>, action: &str) {
    let key = &world.scene.access_keys[0];
    match action {
        "deactivateAccessKeys" => switch_key_on(world).await,
        "revokeSessions" => delete_from_user(world, &format!("firebreak-revoke-sessions-{key}")).await,
        _ => panic!("no way to undo {action}"),
    }
}

async fn of_role(world: &World<'_>, action: &str) {
    match action {
        "denyAll" => delete_from_role(world, "firebreak-deny-all").await,
        "revokeSessions" => delete_from_role(world, "firebreak-revoke-sessions").await,
        "sealTrustPolicy" => {
            let call = world.aws.iam.update_assume_role_policy().role_name(ROLE).policy_document(ROLE_TRUST);
            call.send().await.unwrap();
        }
        _ => panic!("no way to undo {action}"),
    }
}

async fn delete_from_user(world: &World<'_>, policy: &str) {
    world.aws.iam.delete_user_policy().user_name(USER).policy_name(policy).send().await.unwrap();
}

async fn delete_from_role(world: &World<'_>, policy: &str) {
    world.aws.iam.delete_role_policy().role_name(ROLE).policy_name(policy).send().await.unwrap();
}
