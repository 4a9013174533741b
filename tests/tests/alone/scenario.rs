//! What is contained, with which actions, while the controller is killed. A new action joins `EveryAction`.

use firebreak_tests::credentials::Credentials;
use firebreak_tests::scene;
use firebreak_tests::world::World;
use serde_json::{Value, json};

/// What the victims of one test have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The usual policy; isolation groups are made ahead.
    GroupsAhead,
    /// The usual policy; isolation groups are made when they are needed.
    GroupsOnDemand,
    /// All that can be done to an instance, a user and a role.
    EveryAction,
}

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
        if self == Self::EveryAction { MORE } else { USUAL }
    }

    /// Whether calls are held by their number too: the n-th, whichever it is.
    pub fn by_number(self) -> bool {
        self != Self::EveryAction
    }

    /// `AwsAccount.spec.prepare.isolationGroups`.
    pub fn isolation_groups(self) -> &'static str {
        if self == Self::GroupsOnDemand { "OnDemand" } else { "AllVpcs" }
    }

    /// Whether each interface has its window for tracked flows.
    pub fn has_windows(self) -> bool {
        self != Self::EveryAction
    }

    /// All that can come back does.
    pub fn policy(self) -> Value {
        let sever = if self.has_windows() { "Always" } else { "Never" };
        let usual = json!({
            "ec2Instance": {
                "contain": [{ "isolateNetwork": { "severTrackedConnections": sever } }],
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
pub async fn more(world: &World<'_>) -> anyhow::Result<Vec<String>> {
    use firebreak_tests::sight;
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
