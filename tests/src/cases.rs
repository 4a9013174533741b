//! Every action by itself, on each kind of target that may be contained with it. A new action joins the list, a check of
//! [`crate::in_force`] and a way of [`crate::tampering`]; tests then contain, tamper, kill the controller and release with it.

use std::fmt;

use anyhow::ensure;
use aws_sdk_ec2::types::ConnectionTrackingSpecificationRequest;
use serde_json::{Value, json};

use crate::credentials::Credentials;
use crate::everything::{Everything, differences};
use crate::scene::{self, ROLE};
use crate::sight;
use crate::world::{ADMIN, World};

/// `ec2Instance`
pub const INSTANCE: &str = "ec2Instance";
/// `iamUser`
pub const USER: &str = "iamUser";
/// `iamRole`
pub const ROLE_KIND: &str = "iamRole";
/// `accessKey`
pub const KEY: &str = "accessKey";
/// `roleSession`
pub const SESSION: &str = "roleSession";
/// The session that is denied.
pub const SESSION_NAME: &str = "ci-job";

/// What is special about what the action finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A running instance with all that something can be done about; a role with a permissions boundary
    Usual,
    /// The instance is stopped
    Stopped,
    /// The role has no permissions boundary
    Unbounded,
    /// Somebody put a rule into the isolation group, and a role into the profile that denies all
    Opened,
}

/// An action on a kind of target.
#[derive(Debug)]
pub struct Case {
    /// Its name in the policy
    pub action: &'static str,
    /// The kind of the target
    pub kind: &'static str,
    /// Its parameters in the policy, as JSON
    pub with: &'static str,
    /// What it finds
    pub found: Found,
    /// What differs after the release though all is given back that can be: by the beginning of its name
    pub differs: &'static [&'static str],
}

/// An action with nothing special about it.
pub const fn case(action: &'static str, kind: &'static str) -> Case {
    Case { action, kind, with: "{}", found: Found::Usual, differs: &[] }
}

/// A list for both directions, so that each has a call of its own.
const LIST: &str = r#"{
    "severTrackedConnections": "Never", "shortenConnectionTracking": true,
    "allow": {
        "ingress": [{ "cidr": "10.9.0.5/32", "protocol": "tcp", "fromPort": 22 }],
        "egress": [{ "cidr": "10.9.1.0/24", "protocol": "tcp", "fromPort": 22 }]
    }
}"#;

/// All of them. An Auto Scaling group takes the instance back beside its replacement, each time that somebody puts it there. Who was thrown out stays so, what is deleted or
/// ended too.
pub const CASES: &[Case] = &[
    case("revokeInstanceRole", INSTANCE),
    Case { found: Found::Stopped, ..case("revokeInstanceRole", INSTANCE) },
    Case { found: Found::Opened, ..case("revokeInstanceRole", INSTANCE) },
    case("revokeSessions", ROLE_KIND),
    case("denyAll", ROLE_KIND),
    Case { found: Found::Unbounded, ..case("denyAll", ROLE_KIND) },
    case("denySession", SESSION),
    case("revokeSessions", KEY),
    case("sealTrustPolicy", ROLE_KIND),
    case("isolateNetwork", INSTANCE),
    Case { found: Found::Opened, ..case("isolateNetwork", INSTANCE) },
    Case { with: LIST, ..case("isolateNetwork", INSTANCE) },
    case("protectFromTermination", INSTANCE),
    case("disableInstanceMetadata", INSTANCE),
    case("removePublicAddresses", INSTANCE),
    Case { differs: &["Auto Scaling group web"], ..case("detachFromAutoScaling", INSTANCE) },
    Case {
        with: r#"{ "mode": "Standby" }"#,
        differs: &["Auto Scaling group web"],
        ..case("detachFromAutoScaling", INSTANCE)
    },
    case("deregisterFromLoadBalancers", INSTANCE),
    Case { differs: &["sessions", "commands"], ..case("terminateSessions", INSTANCE) },
    case("stopInstance", INSTANCE),
    Case { differs: &["instance", "volume", "protection", "targets web"], ..case("terminateInstance", INSTANCE) },
    case("denyAll", USER),
    case("deactivateAccessKeys", USER),
    case("deactivateSshKeys", USER),
    case("deactivateServiceCredentials", USER),
    case("deactivateSigningCertificates", USER),
    Case { differs: &["password"], ..case("removeConsoleAccess", USER) },
    case("deactivateAccessKeys", KEY),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.action, self.kind)?;
        match (self.with, self.found) {
            ("{}", Found::Usual) => Ok(()),
            ("{}", found) => write!(f, ", {found:?}"),
            (with, _) => write!(f, ", {}", with.split_whitespace().collect::<String>()),
        }
    }
}

impl Case {
    /// Its parameters in the policy.
    pub fn parameters(&self) -> Value {
        serde_json::from_str(self.with).unwrap()
    }

    /// The state in which the action ends an instance.
    pub fn ends(&self) -> Option<&'static str> {
        match self.action {
            "stopInstance" => Some("stopped"),
            "terminateInstance" => Some("terminated"),
            _ => None,
        }
    }

    /// Whether anybody can undo it.
    pub fn can_be_undone(&self) -> bool {
        self.action != "terminateInstance"
    }

    /// Whether a second person must approve it.
    pub fn needs_approval(&self) -> bool {
        self.action == "terminateInstance"
    }

    /// Makes what the action finds. Nothing that is in a group is stopped or terminated: that is for `detachFromAutoScaling`.
    pub async fn dress(&self, world: &World<'_>) -> anyhow::Result<()> {
        let (aws, scene) = (&world.aws, &world.scene);
        scene::role(aws).await?;
        if self.ends().is_some() {
            scene::balance(aws, scene, 0).await?;
        } else {
            scene::crowd(aws, scene).await?;
        }
        run_command(world).await?;
        keep_idle_flows(world, 350).await?;
        for kind in Credentials::ALL {
            kind.make(aws).await?;
        }
        self.find(world).await
    }

    async fn find(&self, world: &World<'_>) -> anyhow::Result<()> {
        match self.found {
            Found::Usual => {}
            Found::Stopped => {
                world.aws.ec2.stop_instances().instance_ids(&world.scene.instances[0].id).send().await?;
            }
            Found::Unbounded => {
                world.aws.iam.delete_role_permissions_boundary().role_name(ROLE).send().await?;
            }
            Found::Opened => scene::open_what_is_ours(&world.aws, &world.scene.vpc).await?,
        }
        Ok(())
    }

    /// A policy of this action, under which all comes back that can.
    pub fn policy(&self, world: &World<'_>) -> Value {
        let release = json!({ "reactivateAccessKeys": true, "reactivateCredentials": true, "rejoinAutoScaling": true });
        let contain = json!([{ self.action: self.parameters() }]);
        world.policy("one", json!({ self.kind: { "contain": contain }, "release": release }))
    }

    /// What an Incident over its target says besides the usual.
    pub fn spec(&self, world: &World<'_>) -> Value {
        let target = match self.kind {
            INSTANCE => world.instance_target(0),
            USER => world.user_target(),
            ROLE_KIND => world.role_target(),
            KEY => world.key_target(0),
            _ => world.session_target(SESSION_NAME),
        };
        json!({ "policyRef": { "name": world.policy_name("one") }, "targets": [target], "requestedBy": ADMIN })
    }

    /// Two lists: what differs though it should not, and what does not though it should.
    pub fn wrong(&self, before: &Everything, after: &Everything) -> (Vec<String>, Vec<&'static str>) {
        let (known, wrong): (Vec<String>, Vec<String>) =
            differences(before, after).into_iter().partition(|text| self.differs.iter().any(|name| text.starts_with(name)));
        let missing = self.differs.iter().filter(|name| !known.iter().any(|text| text.starts_with(**name)));
        (wrong, missing.copied().collect())
    }
}

/// A command that runs, until somebody cancels it.
async fn run_command(world: &World<'_>) -> anyhow::Result<()> {
    let (ssm, id) = (&world.aws.ssm, &world.scene.instances[0].id);
    ssm.send_command().document_name("AWS-RunShellScript").instance_ids(id).send().await?;
    let running = async || {
        let commands = sight::commands(&world.aws).await?;
        ensure!(commands.values().eq(["InProgress"]), "{commands:?}");
        Ok(())
    };
    world.until_aws("the command runs", running).await;
    Ok(())
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
