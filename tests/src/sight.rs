//! What AWS shows, asked straight from the emulator: tests assert on this, never on which calls were made.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::operation::get_login_profile::GetLoginProfileError;

use crate::emulator::Aws;
use crate::scene::{ROLE, SceneInstance, USER};

/// The groups of each interface of an instance, in AWS's order.
pub async fn groups(aws: &Aws, interfaces: &[String]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let answer = aws.ec2.describe_network_interfaces().set_network_interface_ids(Some(interfaces.to_vec())).send().await?;
    let ids = |n: &aws_sdk_ec2::types::NetworkInterface| n.groups().iter().filter_map(|g| g.group_id.clone()).collect();
    Ok(answer.network_interfaces().iter().map(|n| (n.network_interface_id.clone().unwrap_or_default(), ids(n))).collect())
}

/// Whether every interface is in the isolation group alone, and that group is empty.
pub async fn isolated(aws: &Aws, interfaces: &[String]) -> anyhow::Result<()> {
    for (interface, groups) in groups(aws, interfaces).await? {
        let [group] = groups.as_slice() else { anyhow::bail!("{interface} is in {groups:?}") };
        let answer = aws.ec2.describe_security_groups().group_ids(group).send().await?;
        let Some(found) = answer.security_groups().first() else { anyhow::bail!("no group {group}") };
        anyhow::ensure!(found.group_name() == Some("firebreak-isolation"), "{interface} is in {:?}", found.group_name());
        let rules = found.ip_permissions().len() + found.ip_permissions_egress().len();
        anyhow::ensure!(rules == 0, "the isolation group has {rules} rules: {found:?}");
    }
    Ok(())
}

/// The one group that every interface is in, by name, with its rules: `in tcp 22-22 10.0.0.5/32`, sorted.
pub async fn one_group(aws: &Aws, interfaces: &[String]) -> anyhow::Result<(String, Vec<String>)> {
    let groups: std::collections::BTreeSet<_> = groups(aws, interfaces).await?.into_values().flatten().collect();
    anyhow::ensure!(groups.len() == 1, "{groups:?}");
    let answer = aws.ec2.describe_security_groups().set_group_ids(Some(groups.into_iter().collect())).send().await?;
    let Some(found) = answer.security_groups().first() else { anyhow::bail!("no such group") };
    let mut rules: Vec<String> = found.ip_permissions().iter().flat_map(|p| peers("in", p)).collect();
    rules.extend(found.ip_permissions_egress().iter().flat_map(|p| peers("out", p)));
    rules.sort();
    Ok((found.group_name().unwrap_or_default().to_owned(), rules))
}

/// How long each interface's idle flows are kept, TCP and UDP streams, in seconds; None where AWS shows nothing.
pub async fn idle_timeouts(aws: &Aws, interfaces: &[String]) -> anyhow::Result<BTreeMap<String, Option<(i32, i32)>>> {
    let answer = aws.ec2.describe_network_interfaces().set_network_interface_ids(Some(interfaces.to_vec())).send().await?;
    let shown = |n: &aws_sdk_ec2::types::NetworkInterface| {
        let tracking = n.connection_tracking_configuration()?;
        tracking.tcp_established_timeout().zip(tracking.udp_stream_timeout())
    };
    Ok(answer.network_interfaces().iter().map(|n| (n.network_interface_id.clone().unwrap_or_default(), shown(n))).collect())
}

fn peers(direction: &str, p: &aws_sdk_ec2::types::IpPermission) -> Vec<String> {
    let v4 = p.ip_ranges().iter().filter_map(|r| r.cidr_ip.clone());
    let all = v4.chain(p.ipv6_ranges().iter().filter_map(|r| r.cidr_ipv6.clone()));
    let ports = p.from_port.zip(p.to_port).map(|(from, to)| format!(" {from}-{to}")).unwrap_or_default();
    all.map(|peer| format!("{direction} {}{ports} {peer}", p.ip_protocol().unwrap_or_default())).collect()
}

/// The status of each access key of the scene's user.
pub async fn keys(aws: &Aws) -> anyhow::Result<BTreeMap<String, String>> {
    let answer = aws.iam.list_access_keys().user_name(USER).send().await?;
    let status =
        |k: &aws_sdk_iam::types::AccessKeyMetadata| k.status.as_ref().map(|s| s.as_str().to_owned()).unwrap_or_default();
    Ok(answer.access_key_metadata.iter().map(|k| (k.access_key_id.clone().unwrap_or_default(), status(k))).collect())
}

/// When the user's console password was made; None where there is none.
pub async fn login_profile(aws: &Aws) -> anyhow::Result<Option<String>> {
    match aws.iam.get_login_profile().user_name(USER).send().await {
        Ok(answer) => Ok(answer.login_profile.map(|p| p.create_date.to_string())),
        Err(error) if error.as_service_error().is_some_and(GetLoginProfileError::is_no_such_entity_exception) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names of the user's inline policies.
pub async fn inline_policies(aws: &Aws) -> anyhow::Result<Vec<String>> {
    Ok(aws.iam.list_user_policies().user_name(USER).send().await?.policy_names)
}

/// The names of the user's attached policies.
pub async fn attached_policies(aws: &Aws) -> anyhow::Result<Vec<String>> {
    let answer = aws.iam.list_attached_user_policies().user_name(USER).send().await?;
    Ok(answer.attached_policies().iter().filter_map(|p| p.policy_name.clone()).collect())
}

/// The name of the policy that is the user's permissions boundary.
pub async fn boundary(aws: &Aws) -> anyhow::Result<Option<String>> {
    let user = aws.iam.get_user().user_name(USER).send().await?.user;
    let arn = user.and_then(|u| u.permissions_boundary).and_then(|b| b.permissions_boundary_arn);
    Ok(arn.map(|arn| arn.rsplit('/').next().unwrap_or_default().to_owned()))
}

/// All that a containment may change of the scene's user, but for its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The texts of its inline policies, but for the denies of old sessions
    pub inline: BTreeMap<String, String>,
    /// The names of the denies of old sessions
    pub residual: Vec<String>,
    /// Names of attached policies
    pub attached: Vec<String>,
    /// Its permissions boundary
    pub boundary: Option<String>,
    /// Its tags
    pub tags: BTreeMap<String, String>,
}

/// The scene's user.
pub async fn user(aws: &Aws) -> anyhow::Result<User> {
    let mut inline = BTreeMap::new();
    for name in inline_policies(aws).await? {
        let policy = aws.iam.get_user_policy().user_name(USER).policy_name(&name).send().await?;
        inline.insert(name, decoded(&policy.policy_document));
    }
    let residual = inline.keys().filter(|name| name.starts_with("firebreak-sessions-until-")).cloned().collect();
    inline.retain(|name, _| !name.starts_with("firebreak-sessions-until-"));
    let shown = aws.iam.get_user().user_name(USER).send().await?.user.and_then(|u| u.tags).unwrap_or_default();
    Ok(User {
        inline,
        residual,
        attached: attached_policies(aws).await?,
        boundary: boundary(aws).await?,
        tags: shown.into_iter().map(|t| (t.key, t.value)).collect(),
    })
}

/// Whether the user is denied everything and every key is off.
pub async fn cut_off(aws: &Aws) -> anyhow::Result<()> {
    let keys = keys(aws).await?;
    anyhow::ensure!(keys.values().all(|s| s == "Inactive"), "{keys:?}");
    denied(aws).await
}

/// Whether the user is denied everything, three times.
pub async fn denied(aws: &Aws) -> anyhow::Result<()> {
    let (inline, attached) = (inline_policies(aws).await?, attached_policies(aws).await?);
    anyhow::ensure!(inline.contains(&"firebreak-deny-all".to_owned()), "{inline:?}");
    anyhow::ensure!(attached.contains(&"AWSDenyAll".to_owned()), "{attached:?}");
    let boundary = boundary(aws).await?;
    anyhow::ensure!(boundary.as_deref() == Some("AWSDenyAll"), "{boundary:?}");
    Ok(())
}

/// All that a containment may change of the scene's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Who may assume it, as AWS's text
    pub trust: String,
    /// The texts of its inline policies, but for the denies of old sessions
    pub inline: BTreeMap<String, String>,
    /// The names of the denies of old sessions
    pub residual: Vec<String>,
    /// Names of attached policies
    pub attached: Vec<String>,
    /// The ARN of its permissions boundary
    pub boundary: Option<String>,
    /// Its tags
    pub tags: BTreeMap<String, String>,
}

/// The scene's role.
pub async fn role(aws: &Aws) -> anyhow::Result<Role> {
    let shown = aws.iam.get_role().role_name(ROLE).send().await?.role;
    let Some(shown) = shown else { anyhow::bail!("no role") };
    let mut inline = BTreeMap::new();
    for name in aws.iam.list_role_policies().role_name(ROLE).send().await?.policy_names {
        let policy = aws.iam.get_role_policy().role_name(ROLE).policy_name(&name).send().await?;
        inline.insert(name, decoded(&policy.policy_document));
    }
    let residual = inline.keys().filter(|name| name.starts_with("firebreak-sessions-until-")).cloned().collect();
    inline.retain(|name, _| !name.starts_with("firebreak-sessions-until-"));
    let attached = aws.iam.list_attached_role_policies().role_name(ROLE).send().await?;
    Ok(Role {
        trust: decoded(&shown.assume_role_policy_document.unwrap_or_default()),
        inline,
        residual,
        attached: attached.attached_policies().iter().filter_map(|p| p.policy_name.clone()).collect(),
        boundary: shown.permissions_boundary.and_then(|b| b.permissions_boundary_arn),
        tags: shown.tags.unwrap_or_default().into_iter().map(|t| (t.key, t.value)).collect(),
    })
}

/// IAM encodes documents for URLs.
#[must_use]
pub fn decoded(document: &str) -> String {
    let query = format!("d={}", document.replace('+', "%2B"));
    form_urlencoded::parse(query.as_bytes()).next().map(|(_, text)| text.into_owned()).unwrap_or_default()
}

/// Whether the role is denied everything, three times.
pub async fn role_denied(aws: &Aws) -> anyhow::Result<()> {
    let role = role(aws).await?;
    let deny = role.inline.get("firebreak-deny-all").is_some_and(|text| text.contains("Deny") && !text.contains("Allow"));
    let boundary = role.boundary.as_deref() == Some("arn:aws:iam::aws:policy/AWSDenyAll");
    anyhow::ensure!(deny && boundary && role.attached.contains(&"AWSDenyAll".to_owned()), "{role:#?}");
    Ok(())
}

/// The association of an instance with an instance profile: its id, and the profile's name.
pub async fn profile(aws: &Aws, instance: &str) -> anyhow::Result<Option<(String, String)>> {
    let filter = aws_sdk_ec2::types::Filter::builder().name("instance-id").values(instance).build();
    let answer = aws.ec2.describe_iam_instance_profile_associations().filters(filter).send().await?;
    let shown = |a: &aws_sdk_ec2::types::IamInstanceProfileAssociation| {
        let arn = a.iam_instance_profile.as_ref()?.arn.clone()?;
        Some((a.association_id.clone()?, arn.rsplit('/').next()?.to_owned()))
    };
    Ok(answer.iam_instance_profile_associations().first().and_then(shown))
}

/// A role's inline policies, as parsed JSON.
pub async fn inline_of_role(aws: &Aws, role: &str) -> anyhow::Result<BTreeMap<String, serde_json::Value>> {
    let mut inline = BTreeMap::new();
    for name in aws.iam.list_role_policies().role_name(role).send().await?.policy_names {
        let policy = aws.iam.get_role_policy().role_name(role).policy_name(&name).send().await?;
        inline.insert(name, serde_json::from_str(&decoded(&policy.policy_document))?);
    }
    Ok(inline)
}

/// The instances whose sessions of a role are denied: all of them (`None`), or those issued before that time.
pub async fn denied_instances(aws: &Aws, role: &str) -> anyhow::Result<BTreeSet<(String, Option<String>)>> {
    let inline = inline_of_role(aws, role).await?;
    let statements = inline.get("firebreak-deny-instances").and_then(|d| d["Statement"].as_array().cloned());
    let mut denied = BTreeSet::new();
    for statement in statements.unwrap_or_default() {
        let effect = (statement["Effect"].as_str(), statement["Action"].as_str(), statement["Resource"].as_str());
        anyhow::ensure!(effect == (Some("Deny"), Some("*"), Some("*")), "{statement}");
        let condition = &statement["Condition"];
        let before = condition["DateLessThan"]["aws:TokenIssueTime"].as_str().map(str::to_owned);
        let ids = condition["StringEquals"]["aws:userid"].as_array().cloned().unwrap_or_default();
        let instance = |id: &serde_json::Value| id.as_str().and_then(|id| id.split(':').nth(1)).map(str::to_owned);
        denied.extend(ids.iter().filter_map(instance).map(|id| (id, before.clone())));
    }
    Ok(denied)
}

/// The Auto Scaling group of an instance, its state there, and whether it is protected from scale-in.
pub async fn membership(aws: &Aws, instance: &str) -> anyhow::Result<Option<(String, String, bool)>> {
    let answer = aws.autoscaling.describe_auto_scaling_instances().instance_ids(instance).send().await?;
    Ok(answer.auto_scaling_instances().first().map(|i| {
        let (group, state) = (i.auto_scaling_group_name.clone(), i.lifecycle_state.clone());
        (group.unwrap_or_default(), state.unwrap_or_default(), i.protected_from_scale_in.unwrap_or_default())
    }))
}

/// The desired capacity of an Auto Scaling group, and how many instances are in service there.
pub async fn capacity(aws: &Aws, group: &str) -> anyhow::Result<(i32, usize)> {
    let answer = aws.autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(group).send().await?;
    let Some(group) = answer.auto_scaling_groups().first() else { anyhow::bail!("no group {group}") };
    let state = |i: &aws_sdk_autoscaling::types::Instance| i.lifecycle_state.as_ref().map(|s| s.as_str().to_owned());
    let serving = group.instances().iter().filter(|i| state(i).as_deref() == Some("InService")).count();
    Ok((group.desired_capacity.unwrap_or_default(), serving))
}

/// What is registered with each target group and classic load balancer of the account, sorted; not what only drains.
pub async fn registrations(aws: &Aws) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut shown = BTreeMap::new();
    for group in aws.elbv2.describe_target_groups().send().await?.target_groups() {
        let arn = group.target_group_arn().unwrap_or_default();
        let answer = aws.elbv2.describe_target_health().target_group_arn(arn).send().await?;
        let state = |t: &aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription| {
            t.target_health().and_then(|h| h.state()).map(|s| s.as_str().to_owned())
        };
        let there = answer.target_health_descriptions().iter().filter(|t| state(t).as_deref() != Some("draining"));
        let mut targets: Vec<String> = there.filter_map(|t| t.target()).map(|t| format!("{t:?}")).collect();
        targets.sort();
        shown.insert(group.target_group_name().unwrap_or_default().to_owned(), targets);
    }
    for balancer in aws.elb.describe_load_balancers().send().await?.load_balancer_descriptions() {
        let mut instances: Vec<String> = balancer.instances().iter().filter_map(|i| i.instance_id.clone()).collect();
        instances.sort();
        shown.insert(balancer.load_balancer_name().unwrap_or_default().to_owned(), instances);
    }
    Ok(shown)
}

/// The sessions of Session Manager that have not ended: the instance of each, by id.
pub async fn open_sessions(aws: &Aws) -> anyhow::Result<BTreeMap<String, String>> {
    let pages = aws.ssm.describe_sessions().state(aws_sdk_ssm::types::SessionState::Active).into_paginator().items().send();
    let found = pages.collect::<Result<Vec<_>, _>>().await?;
    Ok(found.into_iter().map(|s| (s.session_id.unwrap_or_default(), s.target.unwrap_or_default())).collect())
}

/// The status of each command on each instance, by command and instance.
pub async fn commands(aws: &Aws) -> anyhow::Result<BTreeMap<(String, String), String>> {
    let pages = aws.ssm.list_command_invocations().into_paginator().items().send();
    let found = pages.collect::<Result<Vec<_>, _>>().await?;
    let status = |c: &aws_sdk_ssm::types::CommandInvocation| c.status.as_ref().map(|s| s.as_str().to_owned());
    let named = found.into_iter().map(|c| (status(&c).unwrap_or_default(), c));
    Ok(named.map(|(s, c)| ((c.command_id.unwrap_or_default(), c.instance_id.unwrap_or_default()), s)).collect())
}

/// The ids of all snapshots of the account.
pub async fn snapshots(aws: &Aws) -> anyhow::Result<Vec<String>> {
    let answer = aws.ec2.describe_snapshots().owner_ids("self").send().await?;
    Ok(answer.snapshots().iter().filter_map(|s| s.snapshot_id.clone()).collect())
}

/// The tags of an EC2 resource that are Firebreak's.
pub async fn marks(aws: &Aws, resource: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let filter = aws_sdk_ec2::types::Filter::builder().name("resource-id").values(resource).build();
    let answer = aws.ec2.describe_tags().filters(filter).send().await?;
    let tags = answer.tags().iter().map(|t| (t.key.clone().unwrap_or_default(), t.value.clone().unwrap_or_default()));
    Ok(tags.filter(|(k, _)| k.starts_with("firebreak.dev/")).collect())
}

/// All tags of the scene's user.
pub async fn user_tags(aws: &Aws) -> anyhow::Result<BTreeMap<String, String>> {
    let answer = aws.iam.list_user_tags().user_name(USER).send().await?;
    Ok(answer.tags.into_iter().map(|t| (t.key, t.value)).collect())
}

/// What keeps an instance and its volumes: each attribute, and `DeleteOnTermination` of each volume, as AWS shows them.
pub async fn protection(aws: &Aws, id: &str) -> anyhow::Result<BTreeMap<String, String>> {
    use aws_sdk_ec2::types::InstanceAttributeName as Name;
    let ask = |name: Name| aws.ec2.describe_instance_attribute().instance_id(id).attribute(name).send();
    let on =
        |attribute: Option<aws_sdk_ec2::types::AttributeBooleanValue>| attribute.and_then(|a| a.value).unwrap_or_default();
    let termination = on(ask(Name::DisableApiTermination).await?.disable_api_termination);
    let stop = on(ask(Name::DisableApiStop).await?.disable_api_stop);
    let shutdown = ask(Name::InstanceInitiatedShutdownBehavior).await?.instance_initiated_shutdown_behavior;
    let mut shown = BTreeMap::from([
        ("DisableApiTermination".to_owned(), termination.to_string()),
        ("DisableApiStop".to_owned(), stop.to_string()),
        ("InstanceInitiatedShutdownBehavior".to_owned(), shutdown.and_then(|s| s.value).unwrap_or_default()),
    ]);
    for mapping in instance(aws, id).await?.block_device_mappings() {
        let Some(ebs) = mapping.ebs() else { continue };
        let delete = ebs.delete_on_termination.unwrap_or_default().to_string();
        shown.insert(ebs.volume_id.clone().unwrap_or_default(), delete);
    }
    Ok(shown)
}

/// An instance.
pub async fn instance(aws: &Aws, id: &str) -> anyhow::Result<aws_sdk_ec2::types::Instance> {
    let answer = aws.ec2.describe_instances().instance_ids(id).send().await?;
    let found = answer.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default()).next();
    found.ok_or_else(|| anyhow::anyhow!("no instance {id}"))
}

/// What a containment of an instance changes, to be compared: the groups of its interfaces, its protection, its metadata options, and
/// Firebreak's marks.
pub type Contained = (BTreeMap<String, Vec<String>>, BTreeMap<String, String>, String, BTreeMap<String, String>);

/// That of a scene's instance.
pub async fn contained(aws: &Aws, instance: &SceneInstance) -> anyhow::Result<Contained> {
    let metadata = self::instance(aws, &instance.id).await?.metadata_options;
    let groups = groups(aws, &instance.interfaces).await?;
    Ok((groups, protection(aws, &instance.id).await?, format!("{metadata:?}"), marks(aws, &instance.id).await?))
}

/// The state of an instance: `running`, `stopped`, `terminated`, ...
pub async fn state(aws: &Aws, id: &str) -> anyhow::Result<String> {
    let state = instance(aws, id).await?.state.and_then(|s| s.name);
    Ok(state.map(|name| name.as_str().to_owned()).unwrap_or_default())
}

/// The private address and the allocation of each public address of each interface; an empty allocation where AWS assigned it.
pub async fn public_addresses(
    aws: &Aws,
    interfaces: &[String],
) -> anyhow::Result<BTreeMap<String, Option<(String, String)>>> {
    let answer = aws.ec2.describe_network_interfaces().set_network_interface_ids(Some(interfaces.to_vec())).send().await?;
    let of = |n: &aws_sdk_ec2::types::NetworkInterface| {
        let association = n.association()?;
        let allocation = association.allocation_id().unwrap_or_default().to_owned();
        Some((n.private_ip_address().unwrap_or_default().to_owned(), allocation))
    };
    Ok(answer.network_interfaces().iter().map(|n| (n.network_interface_id.clone().unwrap_or_default(), of(n))).collect())
}
