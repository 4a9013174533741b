//! EC2.

use std::collections::BTreeMap;

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::modify_instance_attribute::builders::ModifyInstanceAttributeFluentBuilder;
use aws_sdk_ec2::operation::modify_instance_metadata_options::builders::ModifyInstanceMetadataOptionsFluentBuilder;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, AttributeValue, ConnectionTrackingSpecificationRequest, EbsInstanceBlockDeviceSpecification,
    IamInstanceProfileAssociation, IamInstanceProfileSpecification, InstanceBlockDeviceMappingSpecification,
    InstanceMetadataEndpointState, InstanceSpecification, IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType,
    SnapshotInfo, Tag, TagSpecification, UserIdGroupPair,
};

use super::Outcome;
use crate::aws::call::{Call, GroupRole, InstanceAttribute, shutdown_behavior};
use crate::aws::error::AwsError;
use crate::aws::model::{Peer, Rule, Snapshot};
use crate::aws::read::timestamp;

pub(super) async fn send(ec2: &Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::CreateSecurityGroup { vpc, role } => return create_group(ec2, call, vpc, *role).await,
        Call::CreateSnapshots { instance, description, tags } => {
            return create_snapshots(ec2, call, instance, description, tags).await;
        }
        Call::AssociateIamInstanceProfile { instance, profile } => {
            let request = ec2.associate_iam_instance_profile().instance_id(instance);
            let answer = sent!(aws_sdk_ec2, call, request.iam_instance_profile(instance_profile(profile)))?;
            return Ok(associated(answer.iam_instance_profile_association));
        }
        Call::ReplaceIamInstanceProfileAssociation { association, profile, .. } => {
            let request = ec2.replace_iam_instance_profile_association().association_id(association);
            let answer = sent!(aws_sdk_ec2, call, request.iam_instance_profile(instance_profile(profile)))?;
            return Ok(associated(answer.iam_instance_profile_association));
        }
        Call::DisassociateIamInstanceProfile { association, .. } => {
            sent!(aws_sdk_ec2, call, ec2.disassociate_iam_instance_profile().association_id(association))?;
        }
        Call::RevokeSecurityGroupIngress { group, rules } => {
            let request = ec2.revoke_security_group_ingress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            return Ok(revoked(rules, sent!(aws_sdk_ec2, call, request)?.unknown_ip_permissions()));
        }
        Call::RevokeSecurityGroupEgress { group, rules } => {
            let request = ec2.revoke_security_group_egress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            return Ok(revoked(rules, sent!(aws_sdk_ec2, call, request)?.unknown_ip_permissions()));
        }
        Call::AuthorizeSecurityGroupIngress { group, rules } => {
            let request =
                ec2.authorize_security_group_ingress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::AuthorizeSecurityGroupEgress { group, rules } => {
            let request = ec2.authorize_security_group_egress().group_id(group).set_ip_permissions(Some(permissions(rules)));
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::ModifyNetworkInterfaceAttribute { interface, groups, .. } => {
            let request = ec2.modify_network_interface_attribute().network_interface_id(interface);
            sent!(aws_sdk_ec2, call, request.set_groups(Some(groups.clone())))?;
        }
        Call::SetIdleTimeouts { interface, timeouts, .. } => {
            let request = ec2.modify_network_interface_attribute().network_interface_id(interface);
            let tracking = ConnectionTrackingSpecificationRequest::builder();
            let tracking =
                tracking.tcp_established_timeout(timeouts.tcp_established).udp_stream_timeout(timeouts.udp_stream);
            sent!(aws_sdk_ec2, call, request.connection_tracking_specification(tracking.build()))?;
        }
        Call::AssociatePublicIpAddress { interface, on } => {
            let request = ec2.modify_network_interface_attribute().network_interface_id(interface);
            sent!(aws_sdk_ec2, call, request.associate_public_ip_address(*on))?;
        }
        Call::AssociateAddress { allocation, interface, private, .. } => {
            let request = ec2.associate_address().allocation_id(allocation).network_interface_id(interface);
            sent!(aws_sdk_ec2, call, request.private_ip_address(private).allow_reassociation(false))?;
        }
        Call::DisassociateAddress { association, .. } => {
            sent!(aws_sdk_ec2, call, ec2.disassociate_address().association_id(association))?;
        }
        Call::ModifyInstanceMetadataOptions { instance, enabled, tokens } => {
            sent!(aws_sdk_ec2, call, set_metadata(ec2, instance, *enabled, tokens.as_ref()))?;
        }
        Call::ModifyInstanceAttribute { instance, attribute, protect } => {
            sent!(aws_sdk_ec2, call, set_attribute(ec2, instance, attribute, *protect))?;
        }
        Call::LiftStopProtection { instance } => {
            let request = set_attribute(ec2, instance, &InstanceAttribute::DisableApiStop, false);
            sent!(aws_sdk_ec2, call, request)?;
        }
        Call::StopInstances { instance } => {
            sent!(aws_sdk_ec2, call, ec2.stop_instances().instance_ids(instance).skip_os_shutdown(true))?;
        }
        Call::StartInstances { instance } => {
            sent!(aws_sdk_ec2, call, ec2.start_instances().instance_ids(instance))?;
        }
        Call::TerminateInstances { instance } => {
            sent!(aws_sdk_ec2, call, ec2.terminate_instances().instance_ids(instance).skip_os_shutdown(true))?;
        }
        Call::CreateTags { resource, tags } => {
            sent!(aws_sdk_ec2, call, ec2.create_tags().resources(resource).set_tags(Some(tag_list(tags))))?;
        }
        Call::DeleteTags { resource, tags } => {
            sent!(aws_sdk_ec2, call, ec2.delete_tags().resources(resource).set_tags(Some(tag_list(tags))))?;
        }
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}

fn instance_profile(arn: &str) -> IamInstanceProfileSpecification {
    IamInstanceProfileSpecification::builder().arn(arn).build()
}

fn associated(association: Option<IamInstanceProfileAssociation>) -> Outcome {
    Outcome::Created(association.and_then(|a| a.association_id).unwrap_or_default())
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html>
fn set_metadata(
    ec2: &Client,
    instance: &str,
    enabled: bool,
    tokens: Option<&(String, i32)>,
) -> ModifyInstanceMetadataOptionsFluentBuilder {
    use InstanceMetadataEndpointState::{Disabled, Enabled};
    let request = ec2.modify_instance_metadata_options().instance_id(instance);
    let request = request.http_endpoint(if enabled { Enabled } else { Disabled });
    match tokens {
        Some((tokens, hops)) => request.http_tokens(tokens.as_str().into()).http_put_response_hop_limit(*hops),
        None => request,
    }
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html>
fn set_attribute(
    ec2: &Client,
    instance: &str,
    attribute: &InstanceAttribute,
    protect: bool,
) -> ModifyInstanceAttributeFluentBuilder {
    let request = ec2.modify_instance_attribute().instance_id(instance);
    let on = AttributeBooleanValue::builder().value(protect).build();
    match attribute {
        InstanceAttribute::DisableApiTermination => request.disable_api_termination(on),
        InstanceAttribute::DisableApiStop => request.disable_api_stop(on),
        InstanceAttribute::InstanceInitiatedShutdownBehavior => {
            let behavior = AttributeValue::builder().value(shutdown_behavior(protect)).build();
            request.instance_initiated_shutdown_behavior(behavior)
        }
        InstanceAttribute::DeleteOnTermination(devices) => {
            request.set_block_device_mappings(Some(devices.iter().map(|device| mapping(device, !protect)).collect()))
        }
    }
}

fn mapping(device: &str, delete: bool) -> InstanceBlockDeviceMappingSpecification {
    let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(delete).build();
    InstanceBlockDeviceMappingSpecification::builder().device_name(device).ebs(ebs).build()
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html>
async fn create_group(ec2: &Client, call: &Call, vpc: &str, role: GroupRole) -> Result<Outcome, AwsError> {
    let name = role.group_name();
    let tag = Tag::builder().key("firebreak.dev/role").value(name.clone()).build();
    let tags = TagSpecification::builder().resource_type(ResourceType::SecurityGroup).tags(tag).build();
    let request = ec2.create_security_group().group_name(name.clone()).description(role.description()).vpc_id(vpc);
    let answer = sent!(aws_sdk_ec2, call, request.tag_specifications(tags))?;
    Ok(Outcome::Created(answer.group_id.unwrap_or_default()))
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html>
async fn create_snapshots(
    ec2: &Client,
    call: &Call,
    instance: &str,
    description: &str,
    tags: &BTreeMap<String, String>,
) -> Result<Outcome, AwsError> {
    let instance = InstanceSpecification::builder().instance_id(instance).exclude_boot_volume(false).build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Snapshot).set_tags(Some(tag_list(tags))).build();
    let request = ec2.create_snapshots().instance_specification(instance).description(description).tag_specifications(tags);
    let answer = sent!(aws_sdk_ec2, call, request)?;
    Ok(Outcome::Snapshots(answer.snapshots.unwrap_or_default().into_iter().map(snapshot_info).collect()))
}

fn snapshot_info(s: SnapshotInfo) -> Snapshot {
    Snapshot {
        id: s.snapshot_id.unwrap_or_default(),
        volume: s.volume_id.unwrap_or_default(),
        state: s.state.map(|s| s.as_str().to_owned()).unwrap_or_default(),
        progress: s.progress.unwrap_or_default(),
        size: s.volume_size.unwrap_or_default(),
        started: s.start_time.and_then(timestamp),
        description: s.description.unwrap_or_default(),
        message: String::new(),
    }
}

fn tag_list(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// In a default VPC AWS accepts to revoke what is not there, and says so.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html>
fn revoked(rules: &[Rule], unknown: &[IpPermission]) -> Outcome {
    if unknown.len() < rules.len() { Outcome::Done } else { Outcome::Moot }
}

fn permissions(rules: &[Rule]) -> Vec<IpPermission> {
    rules.iter().map(permission).collect()
}

fn permission(rule: &Rule) -> IpPermission {
    let p = IpPermission::builder().ip_protocol(&rule.protocol).set_from_port(rule.from).set_to_port(rule.to);
    match &rule.peer {
        Peer::V4(cidr) => p.ip_ranges(IpRange::builder().cidr_ip(cidr).build()),
        Peer::V6(cidr) => p.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).build()),
        Peer::PrefixList(id) => p.prefix_list_ids(PrefixListId::builder().prefix_list_id(id).build()),
        Peer::Group(id, owner) => {
            p.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).set_user_id(owner.clone()).build())
        }
    }
    .build()
}
