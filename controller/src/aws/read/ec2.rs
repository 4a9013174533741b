//! EC2.

use std::collections::HashMap;

use aws_sdk_ec2::operation::describe_instance_attribute::DescribeInstanceAttributeOutput;
use aws_sdk_ec2::types::{self as ec2, Filter};
use futures::future::try_join_all;

use super::{Read, absent, error, timestamp};
use crate::aws::call::shutdown_behavior;
use crate::aws::model::{
    AttachedVolume, ElasticAddress, Group, IdleTimeouts, Instance, InstanceKind, InstanceProtection, Interface,
    MetadataOptions, Peer, PublicAddress, RouteTable, Rule, Snapshot,
};
use crate::aws::rate::Priority;
use crate::aws::session::Session;

const PAGE: i32 = 1000;

impl Session {
    /// The instance, or None where AWS shows none: which is not the same as terminated.
    pub async fn instance(&self, region: &str, id: &str) -> Read<Option<Instance>> {
        let reader = &self.region(region)?.instances;
        self.measured("ec2:DescribeInstances", reader.get(id.to_owned())).await
    }

    /// What keeps the instance from being destroyed; None where AWS shows no such instance.
    pub async fn instance_protection(&self, region: &str, id: &str) -> Read<Option<InstanceProtection>> {
        use ec2::InstanceAttributeName::{DisableApiStop, DisableApiTermination, InstanceInitiatedShutdownBehavior};
        let (termination, stop, shutdown) = futures::join!(
            self.instance_attribute(region, id, DisableApiTermination),
            self.instance_attribute(region, id, DisableApiStop),
            self.instance_attribute(region, id, InstanceInitiatedShutdownBehavior),
        );
        let (Some(termination), Some(stop), Some(shutdown)) = (absent(termination)?, absent(stop)?, absent(shutdown)?)
        else {
            return Ok(None);
        };
        let behavior = shutdown.instance_initiated_shutdown_behavior.and_then(|b| b.value);
        Ok(Some(InstanceProtection {
            disable_api_termination: is_on(termination.disable_api_termination),
            disable_api_stop: is_on(stop.disable_api_stop),
            shutdown_stops: behavior.as_deref() == Some(shutdown_behavior(true)),
        }))
    }

    /// Whether AWS refuses to stop the instance; None where it shows no such instance.
    pub async fn stop_protection(&self, region: &str, id: &str) -> Read<Option<bool>> {
        let shown = self.instance_attribute(region, id, ec2::InstanceAttributeName::DisableApiStop).await;
        Ok(absent(shown)?.map(|shown| is_on(shown.disable_api_stop)))
    }

    /// Whether AWS refuses to terminate the instance; None where it shows no such instance.
    pub async fn termination_protection(&self, region: &str, id: &str) -> Read<Option<bool>> {
        let shown = self.instance_attribute(region, id, ec2::InstanceAttributeName::DisableApiTermination).await;
        Ok(absent(shown)?.map(|shown| is_on(shown.disable_api_termination)))
    }

    /// Whether instances of a type have disks of their host; None where AWS shows no such type. Whether an instance uses them
    /// AWS does not show.
    pub async fn has_instance_store(&self, region: &str, instance_type: &str) -> Read<Option<bool>> {
        let reader = &self.region(region)?.instance_types;
        let read = self.measured("ec2:DescribeInstanceTypes", reader.read(instance_type.to_owned()));
        Ok(read.await?.and_then(|kind| kind.store))
    }

    /// Whether the instance's Spot request outlives it, so that AWS lets it be stopped.
    pub async fn has_persistent_spot_request(&self, region: &str, id: &str) -> Read<bool> {
        let request = self.ec2(region)?.describe_spot_instance_requests();
        let request = request.filters(filter("instance-id", vec![id.to_owned()]));
        let read = async { request.send().await.map_err(|e| error("ec2:DescribeSpotInstanceRequests", &e)) };
        let found = self.measured("ec2:DescribeSpotInstanceRequests", read).await?;
        Ok(found.spot_instance_requests().iter().any(|r| r.r#type == Some(ec2::SpotInstanceType::Persistent)))
    }

    /// AWS shows these one by one only.
    async fn instance_attribute(
        &self,
        region: &str,
        id: &str,
        attribute: ec2::InstanceAttributeName,
    ) -> Read<Option<DescribeInstanceAttributeOutput>> {
        self.limiter(region)?.take("ec2", "DescribeInstanceAttribute", Priority::Contain).await;
        let request = self.ec2(region)?.describe_instance_attribute().instance_id(id).attribute(attribute);
        let read = async { request.send().await.map(Some).map_err(|e| error("ec2:DescribeInstanceAttribute", &e)) };
        self.measured("ec2:DescribeInstanceAttribute", read).await
    }

    /// The interfaces attached to an instance.
    pub async fn interfaces(&self, region: &str, instance: &str) -> Read<Vec<Interface>> {
        let reader = &self.region(region)?.interfaces;
        let found = self.measured("ec2:DescribeNetworkInterfaces", reader.get(instance.to_owned())).await?;
        Ok(found.unwrap_or_default())
    }

    /// Interfaces by id, wherever they are attached now.
    pub async fn interfaces_by_id(&self, region: &str, ids: Vec<String>) -> Read<Vec<Interface>> {
        let ec2 = self.ec2(region)?;
        let read = describe_interfaces(ec2, "network-interface-id", ids);
        self.measured("ec2:DescribeNetworkInterfaces", read).await
    }

    /// Elastic IPs by allocation, wherever they are now; those that were released are not among them.
    pub async fn elastic_addresses(&self, region: &str, allocations: Vec<String>) -> Read<Vec<ElasticAddress>> {
        if allocations.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.ec2(region)?.describe_addresses().filters(filter("allocation-id", allocations));
        let read = async { request.send().await.map_err(|e| error("ec2:DescribeAddresses", &e)) };
        let found = self.measured("ec2:DescribeAddresses", read).await?.addresses.unwrap_or_default();
        Ok(found.into_iter().map(elastic_address).collect())
    }

    /// Firebreak's own groups in every VPC of the region.
    pub async fn our_groups(&self, region: &str) -> Read<Vec<Group>> {
        let reader = &self.region(region)?.our_groups;
        let mut groups = self.measured("ec2:DescribeSecurityGroups", reader.get(())).await?.unwrap_or_default();
        groups.iter_mut().for_each(|group| group.emptied = self.spills.last(&group.id));
        Ok(groups)
    }

    /// Groups by id.
    pub async fn groups(&self, region: &str, ids: Vec<String>) -> Read<Vec<Group>> {
        let reader = &self.region(region)?.groups;
        let reads = try_join_all(ids.into_iter().map(|id| reader.get(id)));
        Ok(self.measured("ec2:DescribeSecurityGroups", reads).await?.into_iter().flatten().collect())
    }

    /// The route tables of VPCs.
    pub async fn route_tables(&self, region: &str, vpcs: Vec<String>) -> Read<Vec<RouteTable>> {
        let reader = &self.region(region)?.routes;
        let read = try_join_all(vpcs.into_iter().map(|vpc| reader.read(vpc)));
        let found = self.measured("ec2:DescribeRouteTables", read).await?;
        Ok(found.into_iter().flatten().flat_map(|tables| tables.to_vec()).collect())
    }

    /// The ids of the VPCs of a region.
    pub async fn vpcs(&self, region: &str) -> Read<Vec<String>> {
        let ec2 = self.ec2(region)?;
        let read = async {
            let vpcs = ec2.describe_vpcs().max_results(PAGE).into_paginator().items().send();
            let vpcs: Vec<_> = vpcs.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeVpcs", &e))?;
            Ok(vpcs.into_iter().filter_map(|v| v.vpc_id).collect())
        };
        self.measured("ec2:DescribeVpcs", read).await
    }

    /// The instances that carry a tag of ours, whichever.
    pub async fn marked_instances(&self, region: &str) -> Read<Vec<Instance>> {
        let read = describe_instances(self.ec2(region)?, vec![filter("tag-key", vec!["firebreak.dev/*".into()])]);
        self.measured("ec2:DescribeInstances", read).await
    }

    /// The interfaces in any of these groups.
    pub async fn interfaces_in_groups(&self, region: &str, groups: Vec<String>) -> Read<Vec<Interface>> {
        let read = describe_interfaces(self.ec2(region)?, "group-id", groups);
        self.measured("ec2:DescribeNetworkInterfaces", read).await
    }

    /// A snapshot.
    pub async fn snapshot(&self, region: &str, id: &str) -> Read<Option<Snapshot>> {
        let reader = &self.region(region)?.snapshots;
        self.measured("ec2:DescribeSnapshots", reader.get(id.to_owned())).await
    }

    /// Our own snapshots whose description is exactly that.
    pub async fn snapshots_described(&self, region: &str, description: &str) -> Read<Vec<Snapshot>> {
        let read = describe_snapshots(self.ec2(region)?, "description", vec![description.to_owned()]);
        let found = self.measured("ec2:DescribeSnapshots", read).await?;
        Ok(found.into_iter().filter(|s| s.description == description).collect())
    }

    /// Our own snapshots whose description begins so.
    pub async fn snapshots_described_as(&self, region: &str, prefix: &str) -> Read<Vec<Snapshot>> {
        let read = describe_snapshots(self.ec2(region)?, "description", vec![format!("{prefix}*")]);
        let found = self.measured("ec2:DescribeSnapshots", read).await?;
        Ok(found.into_iter().filter(|s| s.description.starts_with(prefix)).collect())
    }
}

fn is_on(attribute: Option<ec2::AttributeBooleanValue>) -> bool {
    attribute.and_then(|a| a.value).unwrap_or_default()
}

pub(super) fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

pub(super) async fn fetch_instances(ec2: aws_sdk_ec2::Client, ids: Vec<String>) -> Read<HashMap<String, Instance>> {
    let found = describe_instances(&ec2, vec![filter("instance-id", ids)]).await?;
    Ok(found.into_iter().map(|i| (i.id.clone(), i)).collect())
}

pub(super) async fn describe_instances(ec2: &aws_sdk_ec2::Client, filters: Vec<Filter>) -> Read<Vec<Instance>> {
    let request = ec2.describe_instances().set_filters(Some(filters)).max_results(PAGE);
    let pages = request.into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeInstances", &e))?;
    Ok(found.into_iter().flat_map(|r| r.instances.unwrap_or_default()).map(instance).collect())
}

pub(super) async fn fetch_instance_types(
    ec2: aws_sdk_ec2::Client,
    types: Vec<String>,
) -> Read<HashMap<String, InstanceKind>> {
    let request = ec2.describe_instance_types().filters(filter("instance-type", types)).max_results(100);
    let pages = request.into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeInstanceTypes", &e))?;
    Ok(found.into_iter().filter_map(instance_kind).collect())
}

/// Of bare metal AWS shows no hypervisor, though some of it is of the Nitro system: that is left as it is.
fn instance_kind(t: ec2::InstanceTypeInfo) -> Option<(String, InstanceKind)> {
    let nitro = t.hypervisor == Some(ec2::InstanceTypeHypervisor::Nitro);
    Some((t.instance_type?.as_str().to_owned(), InstanceKind { store: t.instance_storage_supported, nitro }))
}

pub(super) async fn fetch_interfaces(ec2: aws_sdk_ec2::Client, ids: Vec<String>) -> Read<HashMap<String, Vec<Interface>>> {
    let mut by_instance: HashMap<String, Vec<Interface>> = HashMap::new();
    for interface in describe_interfaces(&ec2, "attachment.instance-id", ids).await? {
        by_instance.entry(interface.instance.clone().unwrap_or_default()).or_default().push(interface);
    }
    Ok(by_instance)
}

async fn describe_interfaces(ec2: &aws_sdk_ec2::Client, by: &str, ids: Vec<String>) -> Read<Vec<Interface>> {
    let pages = ec2.describe_network_interfaces().filters(filter(by, ids)).max_results(PAGE).into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeNetworkInterfaces", &e))?;
    Ok(found.into_iter().map(interface).collect())
}

pub(super) async fn fetch_groups(ec2: aws_sdk_ec2::Client, ids: Vec<String>) -> Read<HashMap<String, Group>> {
    let found = describe_groups(&ec2, "group-id", ids).await?;
    Ok(found.into_iter().map(|g| (g.id.clone(), g)).collect())
}

pub(super) async fn fetch_our_groups(ec2: aws_sdk_ec2::Client, _: Vec<()>) -> Read<HashMap<(), Vec<Group>>> {
    use crate::aws::call::GroupRole::{self, Conversion, Isolation};
    let mut names = [Isolation, Conversion].map(|r| r.group_name().into_owned()).to_vec();
    names.push(format!("{}-*", Isolation.group_name())); // those of allow-lists
    let found = describe_groups(&ec2, "group-name", names).await?;
    Ok(HashMap::from([((), found.into_iter().filter(|g| GroupRole::named(&g.name).is_some()).collect())]))
}

async fn describe_groups(ec2: &aws_sdk_ec2::Client, by: &str, values: Vec<String>) -> Read<Vec<Group>> {
    let pages = ec2.describe_security_groups().filters(filter(by, values)).max_results(PAGE).into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeSecurityGroups", &e))?;
    Ok(found.into_iter().map(group).collect())
}

pub(super) async fn describe_route_tables(ec2: &aws_sdk_ec2::Client, vpcs: Vec<String>) -> Read<Vec<RouteTable>> {
    let pages = ec2.describe_route_tables().filters(filter("vpc-id", vpcs)).max_results(100).into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeRouteTables", &e))?;
    Ok(found.into_iter().map(route_table).collect())
}

pub(super) async fn fetch_snapshots(ec2: aws_sdk_ec2::Client, ids: Vec<String>) -> Read<HashMap<String, Snapshot>> {
    let found = describe_snapshots(&ec2, "snapshot-id", ids).await?;
    Ok(found.into_iter().map(|s| (s.id.clone(), s)).collect())
}

async fn describe_snapshots(ec2: &aws_sdk_ec2::Client, by: &str, values: Vec<String>) -> Read<Vec<Snapshot>> {
    let request = ec2.describe_snapshots().owner_ids("self").filters(filter(by, values)).max_results(PAGE);
    let pages = request.into_paginator().items().send();
    let found: Vec<_> = pages.collect::<Result<_, _>>().await.map_err(|e| error("ec2:DescribeSnapshots", &e))?;
    Ok(found.into_iter().map(snapshot).collect())
}

fn tags(tags: Option<Vec<ec2::Tag>>) -> std::collections::BTreeMap<String, String> {
    tags.unwrap_or_default().into_iter().map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default())).collect()
}

fn instance(i: ec2::Instance) -> Instance {
    Instance {
        id: i.instance_id.unwrap_or_default(),
        state: i.state.and_then(|s| s.name).map(|n| n.as_str().to_owned()).unwrap_or_default(),
        tags: tags(i.tags),
        interfaces: i.network_interfaces.unwrap_or_default().into_iter().filter_map(|n| n.network_interface_id).collect(),
        spot: i.instance_lifecycle == Some(ec2::InstanceLifecycleType::Spot),
        kind: i.instance_type.map(|t| t.as_str().to_owned()).unwrap_or_default(),
        ebs_root: i.root_device_type == Some(ec2::DeviceType::Ebs),
        volumes: i.block_device_mappings.unwrap_or_default().into_iter().filter_map(attached_volume).collect(),
        metadata: i.metadata_options.map(metadata_options).unwrap_or_default(),
    }
}

fn metadata_options(options: ec2::InstanceMetadataOptionsResponse) -> MetadataOptions {
    MetadataOptions {
        enabled: options.http_endpoint == Some(ec2::InstanceMetadataEndpointState::Enabled),
        pending: options.state == Some(ec2::InstanceMetadataOptionsState::Pending),
        http_tokens: options.http_tokens.map(|t| t.as_str().to_owned()).unwrap_or_default(),
        hop_limit: options.http_put_response_hop_limit.unwrap_or_default(),
    }
}

fn attached_volume(mapping: ec2::InstanceBlockDeviceMapping) -> Option<AttachedVolume> {
    let ebs = mapping.ebs?;
    Some(AttachedVolume {
        id: ebs.volume_id?,
        device: mapping.device_name?,
        delete_on_termination: ebs.delete_on_termination.unwrap_or_default(),
    })
}

fn interface(n: ec2::NetworkInterface) -> Interface {
    let address = n.association.as_ref().and_then(|a| a.public_ip.as_ref()).is_some()
        || n.private_ip_addresses().iter().any(|a| a.association.as_ref().and_then(|a| a.public_ip.as_ref()).is_some());
    let operated = n.operator.as_ref().and_then(|o| o.managed).unwrap_or_default();
    let v4 = n.private_ip_addresses().iter().filter_map(|a| a.private_ip_address.clone());
    let v6 = n.ipv6_addresses().iter().filter_map(|a| a.ipv6_address.clone());
    Interface {
        private_addresses: v4.chain(v6).collect(),
        public: address || !n.ipv6_addresses().is_empty(),
        managed: n.requester_managed.unwrap_or_default() || operated,
        trunk: n.interface_type == Some(ec2::NetworkInterfaceType::Trunk),
        addresses: public_addresses(&n),
        idle: n.connection_tracking_configuration().map(idle_timeouts).unwrap_or_default(),
        private: n.private_ip_address.clone().unwrap_or_default(),
        ipv6: n.ipv6_addresses().len(),
        forwards: n.source_dest_check == Some(false),
        instance: n.attachment.as_ref().and_then(|a| a.instance_id.clone()),
        groups: n.groups().iter().filter_map(|g| g.group_id.clone()).collect(),
        id: n.network_interface_id.unwrap_or_default(),
        vpc: n.vpc_id.unwrap_or_default(),
        subnet: n.subnet_id.unwrap_or_default(),
    }
}

fn idle_timeouts(shown: &ec2::ConnectionTrackingConfiguration) -> IdleTimeouts {
    let usual = IdleTimeouts::default();
    IdleTimeouts {
        tcp_established: shown.tcp_established_timeout.unwrap_or(usual.tcp_established),
        udp_stream: shown.udp_stream_timeout.unwrap_or(usual.udp_stream),
    }
}

/// By private address; the one of the interface itself is that of its primary address.
fn public_addresses(n: &ec2::NetworkInterface) -> Vec<PublicAddress> {
    let each =
        n.private_ip_addresses().iter().filter_map(|a| public_address(a.association.as_ref()?, a.private_ip_address()?));
    let mut found: Vec<PublicAddress> = each.collect();
    let own = n.association.as_ref().zip(n.private_ip_address()).and_then(|(a, private)| public_address(a, private));
    found.extend(own.filter(|own| found.iter().all(|a| a.private != own.private)));
    found
}

fn public_address(association: &ec2::NetworkInterfaceAssociation, private: &str) -> Option<PublicAddress> {
    Some(PublicAddress {
        public: association.public_ip.clone()?,
        private: private.to_owned(),
        allocation: association.allocation_id.clone(),
        association: association.association_id.clone(),
    })
}

fn elastic_address(a: ec2::Address) -> ElasticAddress {
    let said = |text: Option<String>| text.filter(|t| !t.is_empty());
    ElasticAddress {
        allocation: a.allocation_id.unwrap_or_default(),
        association: said(a.association_id),
        interface: said(a.network_interface_id),
        private: said(a.private_ip_address),
    }
}

fn group(g: ec2::SecurityGroup) -> Group {
    Group {
        ingress: g.ip_permissions().iter().flat_map(rules).collect(),
        egress: g.ip_permissions_egress().iter().flat_map(rules).collect(),
        id: g.group_id.unwrap_or_default(),
        vpc: g.vpc_id.unwrap_or_default(),
        name: g.group_name.unwrap_or_default(),
        read: true,
        emptied: None,
    }
}

fn rules(p: &ec2::IpPermission) -> Vec<Rule> {
    let v4 = p.ip_ranges().iter().filter_map(|r| r.cidr_ip.clone()).map(Peer::V4);
    let v6 = p.ipv6_ranges().iter().filter_map(|r| r.cidr_ipv6.clone()).map(Peer::V6);
    let lists = p.prefix_list_ids().iter().filter_map(|r| r.prefix_list_id.clone()).map(Peer::PrefixList);
    let groups =
        p.user_id_group_pairs().iter().map(|g| Peer::Group(g.group_id.clone().unwrap_or_default(), g.user_id.clone()));
    let rule = |peer| Rule { protocol: p.ip_protocol.clone().unwrap_or_default(), from: p.from_port, to: p.to_port, peer };
    v4.chain(v6).chain(lists).chain(groups).map(rule).collect()
}

fn route_table(t: ec2::RouteTable) -> RouteTable {
    RouteTable {
        main: t.associations().iter().any(|a| a.main.unwrap_or_default()),
        subnets: t.associations().iter().filter_map(|a| a.subnet_id.clone()).collect(),
        internet: t.routes().iter().any(|r| r.gateway_id.as_deref().is_some_and(|g| g.starts_with("igw-"))),
        tracked: t.routes().iter().filter_map(tracked).map(str::to_owned).collect(),
        through: t.routes().iter().flat_map(|r| [&r.network_interface_id, &r.instance_id]).flatten().cloned().collect(),
        vpc: t.vpc_id.unwrap_or_default(),
    }
}

/// What a route goes through, where AWS tracks every flow. Routes of gateway endpoints (S3, DynamoDB) go to a prefix list.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html#automatic-tracking>
fn tracked(route: &ec2::Route) -> Option<&str> {
    let listed = route.destination_prefix_list_id().is_some();
    let endpoint = route.gateway_id().filter(|g| g.starts_with("vpce-") && !listed);
    let through = route.nat_gateway_id().or(route.transit_gateway_id()).or(route.egress_only_internet_gateway_id());
    through.or(endpoint)
}

fn snapshot(s: ec2::Snapshot) -> Snapshot {
    Snapshot {
        id: s.snapshot_id.unwrap_or_default(),
        volume: s.volume_id.unwrap_or_default(),
        state: s.state.map(|s| s.as_str().to_owned()).unwrap_or_default(),
        progress: s.progress.unwrap_or_default(),
        size: s.volume_size.unwrap_or_default(),
        started: s.start_time.and_then(timestamp),
        description: s.description.unwrap_or_default(),
        message: s.state_message.unwrap_or_default(),
    }
}
