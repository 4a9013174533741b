//! EC2 Auto Scaling.

use aws_config::retry::RetryConfig;
use aws_sdk_autoscaling::Client;

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;

/// No call lowers a desired capacity: the group replaces what leaves it, and the service stays up.
pub(super) async fn send(client: &Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::SetInstanceProtection { group, instance, protect } => {
            let request = client.set_instance_protection().auto_scaling_group_name(group).instance_ids(instance);
            sent!(aws_sdk_autoscaling, call, request.protected_from_scale_in(*protect))?;
        }
        Call::DetachInstances { group, instance } => {
            let request = client.detach_instances().auto_scaling_group_name(group).instance_ids(instance);
            sent!(aws_sdk_autoscaling, call, request.should_decrement_desired_capacity(false))?;
        }
        Call::EnterStandby { group, instance } => {
            let request = client.enter_standby().auto_scaling_group_name(group).instance_ids(instance);
            sent!(aws_sdk_autoscaling, call, request.should_decrement_desired_capacity(false))?;
        }
        Call::ExitStandby { group, instance } => {
            let request = client.exit_standby().auto_scaling_group_name(group).instance_ids(instance);
            sent!(aws_sdk_autoscaling, call, request)?;
        }
        Call::AttachInstances { group, instance } => {
            let request = client.attach_instances().auto_scaling_group_name(group).instance_ids(instance);
            sent!(aws_sdk_autoscaling, call, request)?;
        }
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}
