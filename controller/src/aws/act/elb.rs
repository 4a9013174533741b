//! Elastic Load Balancing: target groups (version 2 of the API), and classic load balancers (version 1).

use aws_config::retry::RetryConfig;
use aws_sdk_elasticloadbalancing::types::Instance;
use aws_sdk_elasticloadbalancingv2::types::TargetDescription;

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;
use crate::aws::model::Registration;
use crate::aws::read::Balancers;

pub(super) async fn send(clients: &Balancers, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::DeregisterTargets { group, targets } => {
            let request = clients.v2.deregister_targets().target_group_arn(group).set_targets(Some(descriptions(targets)));
            sent!(aws_sdk_elasticloadbalancingv2, call, request)?;
        }
        Call::RegisterTargets { group, targets } => {
            let request = clients.v2.register_targets().target_group_arn(group).set_targets(Some(descriptions(targets)));
            sent!(aws_sdk_elasticloadbalancingv2, call, request)?;
        }
        Call::DeregisterInstancesFromLoadBalancer { balancer, instance } => {
            let request = clients.v1.deregister_instances_from_load_balancer().load_balancer_name(balancer);
            sent!(aws_sdk_elasticloadbalancing, call, request.instances(classic(instance)))?;
        }
        Call::RegisterInstancesWithLoadBalancer { balancer, instance } => {
            let request = clients.v1.register_instances_with_load_balancer().load_balancer_name(balancer);
            sent!(aws_sdk_elasticloadbalancing, call, request.instances(classic(instance)))?;
        }
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}

fn classic(instance: &str) -> Instance {
    Instance::builder().instance_id(instance).build()
}

fn descriptions(targets: &[Registration]) -> Vec<TargetDescription> {
    targets.iter().map(description).collect()
}

fn description(target: &Registration) -> TargetDescription {
    TargetDescription::builder()
        .id(&target.id)
        .set_port(target.port)
        .set_availability_zone(target.availability_zone.clone())
        .set_quic_server_id(target.quic_server_id.clone())
        .build()
}
