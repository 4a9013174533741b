//! What is contained, with which actions, while the controller is killed. A new action joins `EveryAction`.

use anyhow::ensure;
use aws_sdk_ec2::types::ConnectionTrackingSpecificationRequest;
use firebreak_tests::credentials::Credentials;
use firebreak_tests::world::World;
use firebreak_tests::{scene, sight};
use serde_json::{Value, json};

/// What the victims of one test have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The usual policy; isolation groups are made ahead.
    GroupsAhead,
    /// The usual policy; isolation groups are made when they are needed.
    GroupsOnDemand,
    /// The usual policy, with an isolation that lets a list through and has idle flows forgotten.
    AllowList,
    /// All that can be done to an instance, a user and a role.
    EveryAction,
}

/// What an isolation that lets a list through changes.
const LISTED: &[&str] = &[
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "ModifyNetworkInterfaceAttribute",
    "RevokeSecurityGroupEgress",
];

/// The changing actions of the usual policy and of its release.
const USUAL: &[&str] = &[
    "AttachUserPolicy",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateSnapshots",
    "CreateTags",
    "DeleteTags",
    "DeleteUserPermissionsBoundary",
    "DeleteUserPolicy",
    "DetachUserPolicy",
    "ModifyNetworkInterfaceAttribute",
    "PutUserPermissionsBoundary",
    "PutUserPolicy",
    "TagUser",
    "UntagUser",
    "UpdateAccessKey",
];

/// Those that every other action adds.
const MORE: &[&str] = &[
    "AssociateAddress",
    "AttachInstances",
    "AttachRolePolicy",
    "DeleteLoginProfile",
    "DeleteRolePolicy",
    "DeregisterInstancesFromLoadBalancer",
    "DeregisterTargets",
    "DetachInstances",
    "DetachRolePolicy",
    "DisassociateAddress",
    "ModifyInstanceAttribute",
    "ModifyInstanceMetadataOptions",
    "PutRolePermissionsBoundary",
    "PutRolePolicy",
    "RegisterInstancesWithLoadBalancer",
    "RegisterTargets",
    "SetInstanceProtection",
    "TagRole",
    "UntagRole",
    "UpdateAssumeRolePolicy",
    "UpdateSSHPublicKey",
    "UpdateServiceSpecificCredential",
    "UpdateSigningCertificate",
];

const CREDENTIALS: [Credentials; 3] =
    [Credentials::SshKeys, Credentials::ServiceCredentials, Credentials::SigningCertificates];

impl Scenario {
    /// Every action of a containment and of its release that is held at least once, before and after AWS has it.
    pub fn actions(self) -> &'static [&'static str] {
        match self {
            Self::EveryAction => MORE,
            Self::AllowList => LISTED,
            Self::GroupsAhead | Self::GroupsOnDemand => USUAL,
        }
    }

    /// Whether calls are held by their number too: the n-th, whichever it is.
    pub fn by_number(self) -> bool {
        self != Self::EveryAction
    }

    fn is_usual(self) -> bool {
        [Self::GroupsAhead, Self::GroupsOnDemand].contains(&self)
    }

    /// `AwsAccount.spec.prepare.isolationGroups`.
    pub fn isolation_groups(self) -> &'static str {
        if self == Self::GroupsOnDemand { "OnDemand" } else { "AllVpcs" }
    }

    /// Whether each interface has its window for tracked flows.
    pub fn has_windows(self) -> bool {
        self.is_usual()
    }

    /// All that can come back does.
    pub fn policy(self) -> Value {
        let sever = if self.has_windows() { "Always" } else { "Never" };
        let mut isolate = json!({ "severTrackedConnections": sever });
        if self == Self::AllowList {
            isolate["allow"] = allowed();
            isolate["shortenConnectionTracking"] = json!(true);
        }
        let usual = json!({
            "ec2Instance": {
                "contain": [{ "isolateNetwork": isolate }],
                "evidence": [{ "ebsSnapshots": {} }],
            },
            "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
            "release": { "reactivateAccessKeys": true, "reactivateCredentials": true, "rejoinAutoScaling": true },
        });
        if self == Self::EveryAction { with_everything(usual) } else { usual }
    }

    /// The targets of the Incident.
    pub fn targets(self, world: &World<'_>) -> Value {
        let usual = vec![world.instance_target(0), world.user_target()];
        let role = (self == Self::EveryAction).then(|| world.role_target());
        usual.into_iter().chain(role).collect()
    }

    /// Makes what only these actions find.
    pub async fn dress(self, world: &World<'_>) -> anyhow::Result<()> {
        if self == Self::AllowList {
            return keep_idle_flows(world, 350).await;
        }
        if self != Self::EveryAction {
            return Ok(());
        }
        let (aws, scene) = (&world.aws, &world.scene);
        scene::role(aws).await?;
        scene::join_scaling_group(aws, scene, "web", 3).await?;
        scene::balance(aws, scene, 0).await?;
        for kind in CREDENTIALS {
            kind.make(aws).await?;
        }
        let address = aws.ec2.allocate_address().send().await?.allocation_id;
        let associate = aws.ec2.associate_address().network_interface_id(&scene.instances[0].interfaces[0]);
        associate.set_allocation_id(address).send().await?;
        Ok(())
    }
}

/// Both directions, so that each has a call of its own.
fn allowed() -> Value {
    let flow = |cidr| json!([{ "cidr": cidr, "protocol": "tcp", "fromPort": 22 }]);
    json!({ "ingress": flow("10.9.0.5/32"), "egress": flow("10.9.1.0/24") })
}

/// Some number of seconds that is not AWS's own, so that it can be compared.
async fn keep_idle_flows(world: &World<'_>, seconds: i32) -> anyhow::Result<()> {
    for interface in &world.scene.instances[0].interfaces {
        let tracking = ConnectionTrackingSpecificationRequest::builder().tcp_established_timeout(seconds);
        let call = world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
        call.connection_tracking_specification(tracking.udp_stream_timeout(120).build()).send().await?;
    }
    Ok(())
}

/// Whether the instance is isolated as this scenario has it.
pub async fn is_isolated(world: &World<'_>, scenario: Scenario) -> anyhow::Result<()> {
    let (aws, interfaces) = (&world.aws, &world.scene.instances[0].interfaces);
    if scenario != Scenario::AllowList {
        return sight::isolated(aws, interfaces).await;
    }
    let (name, rules) = sight::one_group(aws, interfaces).await?;
    let right = ["in tcp 22-22 10.9.0.5/32", "out tcp 22-22 10.9.1.0/24"];
    ensure!(name.starts_with("firebreak-isolation-") && rules == right, "{name}: {rules:?}");
    let idle = sight::idle_timeouts(aws, interfaces).await?;
    ensure!(idle.values().all(|idle| *idle == Some((60, 60))), "{idle:?}");
    Ok(())
}

fn with_everything(mut policy: Value) -> Value {
    let more = |policy: &mut Value, kind: &str, names: &[&str]| {
        let list = policy[kind]["contain"].as_array_mut().expect("a list");
        list.extend(names.iter().map(|name| json!({ *name: {} })));
    };
    more(
        &mut policy,
        "ec2Instance",
        &[
            "protectFromTermination",
            "detachFromAutoScaling",
            "deregisterFromLoadBalancers",
            "removePublicAddresses",
            "disableInstanceMetadata",
        ],
    );
    let credentials = CREDENTIALS.map(Credentials::action);
    more(&mut policy, "iamUser", &[&credentials[..], &["removeConsoleAccess"]].concat());
    policy["iamRole"] = json!({ "contain": [{ "denyAll": {} }, { "revokeSessions": {} }, { "sealTrustPolicy": {} }] });
    policy
}

/// What else there is to compare, each as text.
pub async fn more(world: &World<'_>, scenario: Scenario) -> anyhow::Result<Vec<String>> {
    match scenario {
        Scenario::EveryAction => of_every_action(world).await,
        Scenario::AllowList => {
            let idle = sight::idle_timeouts(&world.aws, &world.scene.instances[0].interfaces).await?;
            Ok(vec![format!("{idle:?}")])
        }
        Scenario::GroupsAhead | Scenario::GroupsOnDemand => Ok(Vec::new()),
    }
}

async fn of_every_action(world: &World<'_>) -> anyhow::Result<Vec<String>> {
    let (aws, instance) = (&world.aws, &world.scene.instances[0]);
    let mut role = sight::role(aws).await?;
    role.residual.clear();
    let mut seen = vec![
        format!("{role:?}"),
        format!("{:?}", sight::membership(aws, &instance.id).await?),
        format!("{:?}", sight::registrations(aws).await?),
        format!("{:?}", sight::public_addresses(aws, &instance.interfaces).await?),
        format!("{:?}", sight::protection(aws, &instance.id).await?),
        format!("{:?}", sight::instance(aws, &instance.id).await?.metadata_options().map(|m| m.http_endpoint().cloned())),
    ];
    for kind in CREDENTIALS {
        seen.push(format!("{:?}", kind.all(aws).await?));
    }
    Ok(seen)
}
