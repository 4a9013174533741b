//! Whether each action is in force, straight in AWS, whatever Firebreak says of it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context, bail, ensure};
use aws_sdk_ec2::types::InstanceMetadataEndpointState;
use serde_json::{Value, json};

use crate::cases::{Case, INSTANCE, KEY, ROLE_KIND, SESSION_NAME, USER};
use crate::credentials::Credentials;
use crate::sight;
use crate::world::World;

/// Firebreak's own instance profile.
const OURS: &str = "firebreak-deny-all";
/// What the deny of sessions from before goes by.
const BEFORE: &[&str] = &["DateLessThan", "aws:TokenIssueTime"];

/// Whether that action is in force.
pub async fn in_force(world: &World<'_>, case: &Case) -> anyhow::Result<()> {
    match case.kind {
        INSTANCE => of_instance(world, case).await,
        USER => of_user(world, case.action).await,
        ROLE_KIND => of_role(world, case.action).await,
        KEY => of_key(world, case.action).await,
        _ => {
            let inline = sight::role(&world.aws).await?.inline;
            denies(&inline, &format!("firebreak-deny-session-{SESSION_NAME}"), &["StringEquals", "aws:userid", SESSION_NAME])
        }
    }
}

async fn of_instance(world: &World<'_>, case: &Case) -> anyhow::Result<()> {
    let (aws, instance) = (&world.aws, &world.scene.instances[0]);
    match case.action {
        "isolateNetwork" if case.parameters()["allow"].is_object() => listed(world).await,
        "isolateNetwork" => sight::isolated(aws, &instance.interfaces).await,
        "protectFromTermination" => protected(world).await,
        "disableInstanceMetadata" => {
            let options = sight::instance(aws, &instance.id).await?.metadata_options;
            is(&options.and_then(|o| o.http_endpoint), &Some(InstanceMetadataEndpointState::Disabled))
        }
        "removePublicAddresses" => none(sight::public_addresses(aws, &instance.interfaces).await?.into_values().flatten()),
        "detachFromAutoScaling" => {
            let place = sight::membership(aws, &instance.id).await?;
            let standby = case.parameters()["mode"] == "Standby";
            is(&place.map(|(_, state, protected)| (state, protected)), &standby.then(|| ("Standby".to_owned(), true)))
        }
        "deregisterFromLoadBalancers" => none(sight::registrations(aws).await?.into_values().flatten()),
        "revokeInstanceRole" => revoked(world).await,
        "terminateSessions" => {
            none(sight::open_sessions(aws).await?)?;
            none(sight::commands(aws).await?.into_iter().filter(|(_, status)| status != "Cancelled"))
        }
        "stopInstance" | "terminateInstance" => is(&Some(sight::state(aws, &instance.id).await?.as_str()), &case.ends()),
        action => panic!("no way to see {action}"),
    }
}

async fn listed(world: &World<'_>) -> anyhow::Result<()> {
    let (aws, interfaces) = (&world.aws, &world.scene.instances[0].interfaces);
    let (name, rules) = sight::one_group(aws, interfaces).await?;
    ensure!(name.starts_with("firebreak-isolation-"), "{name}");
    is(&rules[..], &["in tcp 22-22 10.9.0.5/32".to_owned(), "out tcp 22-22 10.9.1.0/24".to_owned()][..])?;
    none(sight::idle_timeouts(aws, interfaces).await?.into_iter().filter(|(_, idle)| *idle != Some((60, 60))))
}

async fn protected(world: &World<'_>) -> anyhow::Result<()> {
    let shown = sight::protection(&world.aws, &world.scene.instances[0].id).await?;
    let expected = |name: &str| match name {
        "DisableApiTermination" | "DisableApiStop" => "true",
        "InstanceInitiatedShutdownBehavior" => "stop",
        _ => "false", // DeleteOnTermination of a volume
    };
    none(shown.iter().filter(|(name, value)| *value != expected(name)))
}

async fn revoked(world: &World<'_>) -> anyhow::Result<()> {
    let id = &world.scene.instances[0].id;
    is(&sight::profile(&world.aws, id).await?.map(|(_, name)| name).as_deref(), &Some(OURS))?;
    let denied = sight::denied_instances(&world.aws, "web").await?;
    ensure!(denied.contains(&(id.clone(), None)), "{denied:?}");
    Ok(())
}

async fn of_user(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    let aws = &world.aws;
    match action {
        "denyAll" => {
            let user = sight::user(aws).await?;
            denies(&user.inline, OURS, &[])?;
            ensure!(user.attached.iter().any(|name| name == "AWSDenyAll"), "{user:?}");
            is(&user.boundary.as_deref(), &Some("AWSDenyAll"))
        }
        "deactivateAccessKeys" => none(sight::keys(aws).await?.into_iter().filter(|(_, status)| status != "Inactive")),
        "removeConsoleAccess" => none(sight::login_profile(aws).await?),
        _ => Credentials::of(action).expect("an action").all_off(aws, 1).await,
    }
}

async fn of_role(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    let role = sight::role(&world.aws).await?;
    match action {
        "denyAll" => {
            denies(&role.inline, OURS, &[])?;
            sight::role_denied(&world.aws).await
        }
        "revokeSessions" => denies(&role.inline, "firebreak-revoke-sessions", BEFORE),
        "sealTrustPolicy" => {
            ensure!(role.trust.contains("FirebreakSealed") && !role.trust.contains("Allow"), "{}", role.trust);
            Ok(())
        }
        _ => panic!("no way to see {action}"),
    }
}

async fn of_key(world: &World<'_>, action: &str) -> anyhow::Result<()> {
    let key = &world.scene.access_keys[0];
    match action {
        "deactivateAccessKeys" => is(&sight::keys(&world.aws).await?.get(key).map(String::as_str), &Some("Inactive")),
        "revokeSessions" => {
            let inline = sight::user(&world.aws).await?.inline;
            denies(&inline, &format!("firebreak-revoke-sessions-{key}"), BEFORE)
        }
        _ => panic!("no way to see {action}"),
    }
}

/// Whether that inline policy denies everything, to all or to those whom the condition names, and does nothing else.
fn denies(inline: &BTreeMap<String, String>, name: &str, condition: &[&str]) -> anyhow::Result<()> {
    let text = inline.get(name).with_context(|| format!("no {name} among {:?}", inline.keys()))?;
    let document: Value = serde_json::from_str(text)?;
    let [statement] = &document["Statement"].as_array().cloned().unwrap_or_default()[..] else { bail!("{name}: {text}") };
    let all = (&statement["Effect"], &statement["Action"], &statement["Resource"]);
    ensure!(all == (&json!("Deny"), &json!("*"), &json!("*")), "{name}: {text}");
    let shown = statement["Condition"].to_string();
    let right =
        if condition.is_empty() { statement["Condition"].is_null() } else { condition.iter().all(|c| shown.contains(c)) };
    ensure!(right, "{name}: {text}");
    Ok(())
}

fn is<T: PartialEq + Debug + ?Sized>(shown: &T, expected: &T) -> anyhow::Result<()> {
    ensure!(shown == expected, "{shown:?}, not {expected:?}");
    Ok(())
}

fn none<T: Debug>(left: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    let left: Vec<_> = left.into_iter().collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
