//! An AWS account with something to contain: instances on a network, and a user with keys.

use anyhow::{Context, ensure};
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, Instance, InstanceMarketOptionsRequest, InstanceNetworkInterfaceAttachment,
    InstanceNetworkInterfaceSpecification, InstanceType, IpPermission, IpRange, MarketType,
};

use aws_sdk_elasticloadbalancing::types::Listener;
use aws_sdk_elasticloadbalancingv2::types::{ProtocolEnum, TargetDescription, TargetTypeEnum};

use crate::emulator::Aws;

/// The user of every scene.
pub const USER: &str = "mallory";

/// The role that `role` makes.
pub const ROLE: &str = "build";

/// Who may assume it.
pub const ROLE_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com","AWS":"arn:aws:iam::111122223333:root"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":"a b+c%2F"}}}]}"#;

/// The user's own inline policy.
pub const USER_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;

/// What was seeded.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The network
    pub vpc: String,
    /// Its one subnet
    pub subnet: String,
    /// The groups of an instance's first and second interface
    pub groups: [String; 2],
    /// The instances
    pub instances: Vec<SceneInstance>,
    /// The user's access keys, both active
    pub access_keys: [String; 2],
}

/// An instance with two interfaces and three volumes.
#[derive(Debug, Clone)]
pub struct SceneInstance {
    /// `i-...`
    pub id: String,
    /// `eni-...`, by device index
    pub interfaces: Vec<String>,
    /// `vol-...`
    pub volumes: Vec<String>,
}

impl Scene {
    /// One instance and one user.
    pub async fn seed(aws: &Aws) -> anyhow::Result<Self> {
        Self::seed_instances(aws, 1).await
    }

    /// `count` instances and one user.
    pub async fn seed_instances(aws: &Aws, count: usize) -> anyhow::Result<Self> {
        let (vpc, subnet) = network(aws).await?;
        let groups = [group(aws, &vpc, "web").await?, group(aws, &vpc, "backup").await?];
        let mut instances = Vec::with_capacity(count);
        for _ in 0..count {
            instances.push(instance(aws, &subnet, &groups).await?);
        }
        Ok(Self { vpc, subnet, groups, instances, access_keys: user(aws).await? })
    }

    /// One more instance like the first, but bought on the Spot market.
    pub async fn spot_instance(&self, aws: &Aws) -> anyhow::Result<SceneInstance> {
        let spot = InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).build();
        run_instance(self.run(aws).instance_market_options(spot)).await
    }

    /// One more instance like the first.
    pub async fn another(&self, aws: &Aws) -> anyhow::Result<SceneInstance> {
        run_instance(self.run(aws)).await
    }

    fn run(&self, aws: &Aws) -> RunInstancesFluentBuilder {
        one_instance(aws, &self.subnet, &self.groups)
    }

    /// A route to the internet: now flows from outside may be tracked, and isolating cuts them too.
    pub async fn open_to_internet(&self, aws: &Aws) -> anyhow::Result<()> {
        let gateway = aws.ec2.create_internet_gateway().send().await?.internet_gateway;
        let gateway = gateway.and_then(|gateway| gateway.internet_gateway_id).context("a gateway")?;
        aws.ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(&self.vpc).send().await?;
        let of_the_vpc = Filter::builder().name("vpc-id").values(&self.vpc).build();
        let tables = aws.ec2.describe_route_tables().filters(of_the_vpc).send().await?;
        let table = tables.route_tables().first().and_then(|table| table.route_table_id.clone()).context("a route table")?;
        let route = aws.ec2.create_route().route_table_id(table).destination_cidr_block("0.0.0.0/0");
        route.gateway_id(gateway).send().await?;
        Ok(())
    }
}

/// An instance like those of a scene, in a network of its own.
pub async fn elsewhere(aws: &Aws) -> anyhow::Result<SceneInstance> {
    let (vpc, subnet) = network(aws).await?;
    let groups = [group(aws, &vpc, "web").await?, group(aws, &vpc, "backup").await?];
    instance(aws, &subnet, &groups).await
}

/// Gives an EC2 resource a tag.
pub async fn tag(aws: &Aws, resource: &str, key: &str, value: &str) -> anyhow::Result<()> {
    let tag = aws_sdk_ec2::types::Tag::builder().key(key).value(value).build();
    aws.ec2.create_tags().resources(resource).tags(tag).send().await?;
    Ok(())
}

/// A role with policies of both kinds, a permissions boundary and a tag.
pub async fn role(aws: &Aws) -> anyhow::Result<()> {
    let arn = |policy: &str| format!("arn:aws:iam::aws:policy/{policy}");
    let tag = aws_sdk_iam::types::Tag::builder().key("team").value("build").build()?;
    let role = aws.iam.create_role().role_name(ROLE).assume_role_policy_document(ROLE_TRUST).tags(tag);
    role.permissions_boundary(arn("AdministratorAccess")).send().await?;
    aws.iam.put_role_policy().role_name(ROLE).policy_name("own").policy_document(USER_POLICY).send().await?;
    aws.iam.attach_role_policy().role_name(ROLE).policy_arn(arn("ReadOnlyAccess")).send().await?;
    Ok(())
}

/// What somebody does who knows Firebreak: a rule in its isolation group, and a role in the profile that denies all, whether or not they are
/// there.
pub async fn open_what_is_ours(aws: &Aws, vpc: &str) -> anyhow::Result<()> {
    let group = if let Ok(group) = crate::milestones::isolation_group(aws, vpc).await {
        group
    } else {
        let make = aws.ec2.create_security_group().group_name("firebreak-isolation").description("ours").vpc_id(vpc);
        make.send().await?.group_id.context("a group")?
    };
    let ssh = IpPermission::builder().ip_protocol("tcp").from_port(22).to_port(22);
    let ssh = ssh.ip_ranges(IpRange::builder().cidr_ip("198.51.100.7/32").build()).build();
    aws.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(ssh).send().await?;
    let profile = "firebreak-deny-all";
    aws.iam.create_instance_profile().instance_profile_name(profile).send().await?;
    aws.iam.add_role_to_instance_profile().instance_profile_name(profile).role_name(ROLE).send().await?;
    Ok(())
}

/// An instance profile of that name with a new role of that name in it, which may do something; returns the profile's ARN.
pub async fn instance_profile(aws: &Aws, name: &str) -> anyhow::Result<String> {
    let made = aws.iam.create_instance_profile().instance_profile_name(name).send().await?;
    let arn = made.instance_profile.context("a profile")?.arn;
    aws.iam.create_role().role_name(name).assume_role_policy_document(ROLE_TRUST).send().await?;
    aws.iam.put_role_policy().role_name(name).policy_name("own").policy_document(USER_POLICY).send().await?;
    aws.iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name).send().await?;
    Ok(arn)
}

/// Gives an instance the role of an instance profile.
pub async fn put_profile(aws: &Aws, instance: &str, profile: &str) -> anyhow::Result<()> {
    let name = aws_sdk_ec2::types::IamInstanceProfileSpecification::builder().name(profile).build();
    aws.ec2.associate_iam_instance_profile().instance_id(instance).iam_instance_profile(name).send().await?;
    Ok(())
}

/// Puts an instance of the scene into a new Auto Scaling group, in service and not protected. Its desired capacity is 1.
pub async fn join_scaling_group(aws: &Aws, scene: &Scene, group: &str, max: i32) -> anyhow::Result<()> {
    let launch = aws.autoscaling.create_launch_configuration().launch_configuration_name(group);
    launch.image_id("ami-12345678").instance_type("t3.small").send().await?;
    let made = aws.autoscaling.create_auto_scaling_group().auto_scaling_group_name(group).launch_configuration_name(group);
    let made = made.min_size(0).max_size(max).desired_capacity(0).vpc_zone_identifier(&scene.subnet);
    made.send().await?;
    let attach = aws.autoscaling.attach_instances().auto_scaling_group_name(group).instance_ids(&scene.instances[0].id);
    attach.send().await?;
    Ok(())
}

/// Two target groups, one by instance id and one by address, and a classic load balancer.
#[derive(Debug, Clone)]
pub struct Balancers {
    /// Target group `web`, of ids
    pub web: String,
    /// Target group `api`, of addresses
    pub api: String,
}

/// Load balancers with one instance of the scene registered.
pub async fn balance(aws: &Aws, scene: &Scene, instance: usize) -> anyhow::Result<Balancers> {
    let web = target_group(aws, scene, "web", TargetTypeEnum::Instance).await?;
    let api = target_group(aws, scene, "api", TargetTypeEnum::Ip).await?;
    let listener = Listener::builder().protocol("tcp").load_balancer_port(80).instance_port(80).build()?;
    let old = aws.elb.create_load_balancer().load_balancer_name("old").listeners(listener).subnets(&scene.subnet);
    old.send().await?;
    let balancers = Balancers { web, api };
    balancers.register(aws, scene, instance).await?;
    Ok(balancers)
}

/// Gives the first instance all that something can be done about: a role, a place in an Auto Scaling group, registrations with load
/// balancers, a public address, and somebody who is on it.
pub async fn crowd(aws: &Aws, scene: &Scene) -> anyhow::Result<()> {
    let instance = &scene.instances[0];
    instance_profile(aws, "web").await?;
    put_profile(aws, &instance.id, "web").await?;
    join_scaling_group(aws, scene, "web", 3).await?;
    balance(aws, scene, 0).await?;
    let address = aws.ec2.allocate_address().send().await?.allocation_id;
    let associate = aws.ec2.associate_address().network_interface_id(&instance.interfaces[0]);
    associate.set_allocation_id(address).send().await?;
    aws.ssm.start_session().target(&instance.id).send().await?;
    Ok(())
}

async fn target_group(aws: &Aws, scene: &Scene, name: &str, kind: TargetTypeEnum) -> anyhow::Result<String> {
    let request = aws.elbv2.create_target_group().name(name).vpc_id(&scene.vpc).target_type(kind);
    let made = request.protocol(ProtocolEnum::Tcp).port(80).send().await?;
    made.target_groups().first().and_then(|g| g.target_group_arn.clone()).context("a target group")
}

impl Balancers {
    /// Registers an instance: two ports, both of its addresses, and itself.
    pub async fn register(&self, aws: &Aws, scene: &Scene, instance: usize) -> anyhow::Result<()> {
        let instance = &scene.instances[instance];
        let target = |id: &str, port| TargetDescription::builder().id(id).port(port);
        let ports = [80, 8080].map(|port| target(&instance.id, port).build()).to_vec();
        aws.elbv2.register_targets().target_group_arn(&self.web).set_targets(Some(ports)).send().await?;
        let shown = aws.ec2.describe_network_interfaces().set_network_interface_ids(Some(instance.interfaces.clone()));
        let addresses = shown.send().await?.network_interfaces.unwrap_or_default().into_iter();
        let addresses = addresses.filter_map(|n| n.private_ip_address);
        let addresses = addresses.map(|a| target(&a, 443).availability_zone("eu-west-1a").build()).collect();
        aws.elbv2.register_targets().target_group_arn(&self.api).set_targets(Some(addresses)).send().await?;
        let itself = aws_sdk_elasticloadbalancing::types::Instance::builder().instance_id(&instance.id).build();
        aws.elb.register_instances_with_load_balancer().load_balancer_name("old").instances(itself).send().await?;
        Ok(())
    }
}

async fn network(aws: &Aws) -> anyhow::Result<(String, String)> {
    let vpc = aws.ec2.create_vpc().cidr_block("10.0.0.0/16").send().await?.vpc;
    let vpc = vpc.and_then(|vpc| vpc.vpc_id).context("a VPC")?;
    let subnet = aws.ec2.create_subnet().vpc_id(&vpc).cidr_block("10.0.0.0/16").send().await?.subnet;
    Ok((vpc, subnet.and_then(|subnet| subnet.subnet_id).context("a subnet")?))
}

/// A new security group with AWS's own rules: its id.
pub async fn group(aws: &Aws, vpc: &str, name: &str) -> anyhow::Result<String> {
    let made = aws.ec2.create_security_group().vpc_id(vpc).group_name(name).description(name).send().await?;
    made.group_id.context("a group")
}

async fn instance(aws: &Aws, subnet: &str, groups: &[String; 2]) -> anyhow::Result<SceneInstance> {
    run_instance(one_instance(aws, subnet, groups)).await
}

fn one_instance(aws: &Aws, subnet: &str, groups: &[String; 2]) -> RunInstancesFluentBuilder {
    let run =
        aws.ec2.run_instances().image_id("ami-12345678").instance_type(InstanceType::T3Small).min_count(1).max_count(1);
    let run = run.set_network_interfaces(Some(interfaces(subnet, groups)));
    run.set_block_device_mappings(Some(["/dev/sda1", "/dev/sdb", "/dev/sdc"].map(volume).to_vec()))
}

async fn run_instance(run: RunInstancesFluentBuilder) -> anyhow::Result<SceneInstance> {
    let made = run.send().await?.instances.unwrap_or_default().pop().context("an instance")?;
    let made = SceneInstance {
        id: made.instance_id.clone().context("id")?,
        interfaces: interfaces_of(&made),
        volumes: volumes_of(&made),
    };
    ensure!((made.interfaces.len(), made.volumes.len()) == (2, 3), "not as asked: {made:?}");
    Ok(made)
}

fn interfaces(subnet: &str, groups: &[String; 2]) -> Vec<InstanceNetworkInterfaceSpecification> {
    let interface = |(index, group): (i32, &String)| {
        InstanceNetworkInterfaceSpecification::builder().device_index(index).subnet_id(subnet).groups(group).build()
    };
    (0..).zip(groups).map(interface).collect()
}

fn volume(device: &str) -> BlockDeviceMapping {
    let ebs = EbsBlockDevice::builder().volume_size(1).delete_on_termination(true).build();
    BlockDeviceMapping::builder().device_name(device).ebs(ebs).build()
}

fn interfaces_of(instance: &Instance) -> Vec<String> {
    let mut interfaces: Vec<_> = instance.network_interfaces().iter().collect();
    interfaces.sort_by_key(|interface| interface.attachment().and_then(InstanceNetworkInterfaceAttachment::device_index));
    interfaces.into_iter().filter_map(|interface| interface.network_interface_id.clone()).collect()
}

fn volumes_of(instance: &Instance) -> Vec<String> {
    let mappings = instance.block_device_mappings().iter();
    mappings.filter_map(|mapping| mapping.ebs().and_then(|ebs| ebs.volume_id.clone())).collect()
}

async fn user(aws: &Aws) -> anyhow::Result<[String; 2]> {
    aws.iam.create_user().user_name(USER).send().await?;
    aws.iam.put_user_policy().user_name(USER).policy_name("own").policy_document(USER_POLICY).send().await?;
    aws.iam.create_login_profile().user_name(USER).password("correct-horse-1-Battery").send().await?;
    Ok([access_key(aws).await?, access_key(aws).await?])
}

async fn access_key(aws: &Aws) -> anyhow::Result<String> {
    let made = aws.iam.create_access_key().user_name(USER).send().await?;
    Ok(made.access_key.context("a key")?.access_key_id)
}
