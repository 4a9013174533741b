//! One way to undo each action behind Firebreak's back, straight in AWS. What was there before is there again.

use anyhow::{Context, bail};
use aws_sdk_ec2::types::{AttributeBooleanValue, IamInstanceProfileSpecification, InstanceMetadataEndpointState};
use aws_sdk_elasticloadbalancingv2::types::TargetDescription;
use aws_sdk_iam::types::StatusType;

use crate::cases::{Case, INSTANCE, KEY, ROLE_KIND, SESSION_NAME, USER as USER_KIND};
use crate::credentials::Credentials;
use crate::scene::{ROLE, ROLE_TRUST, USER, put_profile};
use crate::sight;
use crate::world::World;

/// Undoes an action. An error where there is nothing to undo, as far as AWS says so.
pub async fn undo(world: &World<'_>, case: &Case) -> anyhow::Result<()> {
    match case.kind {
        INSTANCE => of_instance(world, case.action).await,
        USER_KIND => of_user(world, case.action).await,
        ROLE_KIND => of_role(world, case.action).await,
        KEY => of_key(world, case.action).await,
        _ => delete_from_role(world, &format!("firebreak-deny-session-{SESSION_NAME}")).await,
    }
}

async fn of_instance(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    let (ec2, instance) = (&world.aws.ec2, &world.scene.instances[0]);
    let id = &instance.id;
    match action {
        "isolateNetwork" => {
            let call = ec2.modify_network_interface_attribute().network_interface_id(&instance.interfaces[0]);
            call.groups(&world.scene.groups[0]).send().await?;
        }
        "protectFromTermination" => {
            let off = AttributeBooleanValue::builder().value(false).build();
            ec2.modify_instance_attribute().instance_id(id).disable_api_termination(off).send().await?;
        }
        "disableInstanceMetadata" => {
            let call = ec2.modify_instance_metadata_options().instance_id(id);
            call.http_endpoint(InstanceMetadataEndpointState::Enabled).send().await?;
        }
        "removePublicAddresses" => associate(world, &instance.interfaces[0]).await?,
        "detachFromAutoScaling" => put_back(world, id).await?,
        "deregisterFromLoadBalancers" => register(world, id).await?,
        "revokeInstanceRole" => replace_profile(world, id).await?,
        "terminateSessions" => {
            world.aws.ssm.start_session().target(id).send().await?;
        }
        "stopInstance" => {
            ec2.start_instances().instance_ids(id).send().await?;
        }
        _ => bail!("no way to undo {action}"),
    }
    Ok(())
}

async fn associate(world: &World<'_>, interface: &str) -> anyhow::Result<()> {
    let addresses = world.aws.ec2.describe_addresses().send().await?;
    let allocation = addresses.addresses().first().and_then(|a| a.allocation_id()).context("an address")?;
    world.aws.ec2.associate_address().allocation_id(allocation).network_interface_id(interface).send().await?;
    Ok(())
}

async fn put_back(world: &World<'_>, id: &str) -> anyhow::Result<()> {
    let (group, scaling) = ("web", &world.aws.autoscaling);
    match sight::membership(&world.aws, id).await? {
        None => {
            scaling.attach_instances().auto_scaling_group_name(group).instance_ids(id).send().await?;
        }
        Some((_, state, _)) if state == "Standby" => {
            scaling.exit_standby().auto_scaling_group_name(group).instance_ids(id).send().await?;
        }
        place => bail!("it is there: {place:?}"),
    }
    Ok(())
}

async fn register(world: &World<'_>, id: &str) -> anyhow::Result<()> {
    let groups = world.aws.elbv2.describe_target_groups().names("web").send().await?;
    let group = groups.target_groups().first().and_then(|g| g.target_group_arn()).context("a target group")?;
    let target = TargetDescription::builder().id(id).port(80).build();
    world.aws.elbv2.register_targets().target_group_arn(group).targets(target).send().await?;
    Ok(())
}

/// AWS replaces no profile of a stopped instance.
async fn replace_profile(world: &World<'_>, id: &str) -> anyhow::Result<()> {
    let Some((association, _)) = sight::profile(&world.aws, id).await? else {
        return put_profile(&world.aws, id, "web").await;
    };
    if sight::state(&world.aws, id).await? == "stopped" {
        world.aws.ec2.disassociate_iam_instance_profile().association_id(association).send().await?;
        return put_profile(&world.aws, id, "web").await;
    }
    let call = world.aws.ec2.replace_iam_instance_profile_association().association_id(association);
    call.iam_instance_profile(IamInstanceProfileSpecification::builder().name("web").build()).send().await?;
    Ok(())
}

async fn of_user(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    match action {
        "denyAll" => delete_from_user(world, "firebreak-deny-all").await,
        "deactivateAccessKeys" => switch_key_on(world).await,
        "removeConsoleAccess" => {
            world.aws.iam.create_login_profile().user_name(USER).password("another-Horse-2").send().await?;
            Ok(())
        }
        _ => {
            let kind = Credentials::of(action).with_context(|| format!("no way to undo {action}"))?;
            switch_on(world, kind).await
        }
    }
}

async fn switch_on(world: &World<'_>, kind: Credentials) -> anyhow::Result<()> {
    let all = kind.all(&world.aws).await?;
    kind.switch(&world.aws, all.keys().next().context("a credential")?, true).await
}

async fn switch_key_on(world: &World<'_>) -> anyhow::Result<()> {
    let call = world.aws.iam.update_access_key().user_name(USER).access_key_id(&world.scene.access_keys[0]);
    call.status(StatusType::Active).send().await?;
    Ok(())
}

async fn of_key(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    let key = &world.scene.access_keys[0];
    match action {
        "deactivateAccessKeys" => switch_key_on(world).await,
        "revokeSessions" => delete_from_user(world, &format!("firebreak-revoke-sessions-{key}")).await,
        _ => bail!("no way to undo {action}"),
    }
}

async fn of_role(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    match action {
        "denyAll" => delete_from_role(world, "firebreak-deny-all").await,
        "revokeSessions" => delete_from_role(world, "firebreak-revoke-sessions").await,
        "sealTrustPolicy" => {
            world.aws.iam.update_assume_role_policy().role_name(ROLE).policy_document(ROLE_TRUST).send().await?;
            Ok(())
        }
        _ => bail!("no way to undo {action}"),
    }
}

async fn delete_from_user(world: &World<'_>, policy: &str) -> anyhow::Result<()> {
    world.aws.iam.delete_user_policy().user_name(USER).policy_name(policy).send().await?;
    Ok(())
}

async fn delete_from_role(world: &World<'_>, policy: &str) -> anyhow::Result<()> {
    world.aws.iam.delete_role_policy().role_name(ROLE).policy_name(policy).send().await?;
    Ok(())
}
