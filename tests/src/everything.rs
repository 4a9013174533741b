//! All that AWS shows of a scene, as text: full answers, less a short list of what AWS itself dates and numbers, and of what
//! Firebreak leaves on purpose.

use std::collections::BTreeMap;
use std::fmt::Debug;

use aws_sdk_ec2::types::Filter;

use crate::credentials::Credentials;
use crate::emulator::Aws;
use crate::scene::{ROLE, Scene, USER};
use crate::sight;

/// AWS sets these anew: when and why an instance was started or stopped, the number of an association, and when a role or a password
/// was used.
const ISSUED: [&str; 6] =
    ["launch_time", "state_transition_reason", "state_reason", "association_id", "role_last_used", "password_last_used"];

/// Our marks, and all other tags.
const TAGS: &str = "tags";
/// What a deny of old sessions goes by: it moves by itself.
const CUTOFF: &str = "aws:TokenIssueTime";

/// By what it is, and its id.
pub type Everything = BTreeMap<String, String>;

/// All of the scene; of its role where there is one.
pub async fn everything(aws: &Aws, scene: &Scene) -> anyhow::Result<Everything> {
    let mut all = Everything::new();
    for instance in &scene.instances {
        of_instance(aws, &instance.id, &mut all).await?;
    }
    of_network(aws, scene, &mut all).await?;
    of_services(aws, scene, &mut all).await?;
    of_user(aws, &mut all).await?;
    of_role(aws, &mut all).await?;
    Ok(all)
}

/// What differs, as `what: before, after`.
pub fn differences(before: &Everything, after: &Everything) -> Vec<String> {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let differs = keys.filter(|key| before.get(*key) != after.get(*key));
    let shown = |all: &Everything, key| all.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
    differs.map(|key| format!("{key}: {}", difference(&shown(before, key), &shown(after, key)))).collect()
}

/// From a little before the first difference.
fn difference(before: &str, after: &str) -> String {
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let excerpt = |text: &str| text.chars().skip(same.saturating_sub(100)).take(400).collect::<String>();
    format!("\n  before {}\n  after  {}", excerpt(before), excerpt(after))
}

/// The same but for what a containment itself changes while nobody touches anything: tags, and until when sessions are old.
pub fn at_rest(all: &Everything) -> Everything {
    let rest = all.iter().filter(|(key, _)| !key.starts_with(TAGS));
    rest.map(|(key, text)| (key.clone(), without_cutoffs(text))).collect()
}

fn without_cutoffs(text: &str) -> String {
    let mut parts = text.split(CUTOFF);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |so_far, part| format!("{so_far}{CUTOFF}{}", part.split_once('Z').map_or(part, |(_, rest)| rest)))
}

async fn of_instance(aws: &Aws, id: &str, all: &mut Everything) -> anyhow::Result<()> {
    let by = |name: &str| Filter::builder().name(name).values(id).build();
    let mut instance = sight::instance(aws, id).await?;
    put(all, TAGS, id, &instance.tags.take());
    // The emulator has the number of the association in the place of the profile's.
    instance.iam_instance_profile.iter_mut().for_each(|profile| profile.id = None);
    put(all, "instance", id, &instance);
    put(all, "protection", id, &sight::protection(aws, id).await?);
    put(all, "profile", id, &sight::profile(aws, id).await?.map(|(_, name)| name));
    put(all, "place in Auto Scaling", id, &sight::membership(aws, id).await?);
    let interfaces = aws.ec2.describe_network_interfaces().filters(by("attachment.instance-id")).send().await?;
    for interface in interfaces.network_interfaces() {
        put(all, "interface", interface.network_interface_id().unwrap_or_default(), interface);
    }
    let volumes = aws.ec2.describe_volumes().filters(by("attachment.instance-id")).send().await?;
    for volume in volumes.volumes() {
        put(all, "volume", volume.volume_id().unwrap_or_default(), volume);
    }
    Ok(())
}

/// Without our own groups, which stay for the next time.
async fn of_network(aws: &Aws, scene: &Scene, all: &mut Everything) -> anyhow::Result<()> {
    let vpc = Filter::builder().name("vpc-id").values(&scene.vpc).build();
    let groups = aws.ec2.describe_security_groups().filters(vpc).send().await?;
    let ours = |name: Option<&str>| name.is_some_and(|name| name.starts_with("firebreak-"));
    for group in groups.security_groups().iter().filter(|g| !ours(g.group_name())) {
        put(all, "group", group.group_id().unwrap_or_default(), group);
    }
    for address in aws.ec2.describe_addresses().send().await?.addresses() {
        put(all, "address", address.allocation_id().unwrap_or_default(), address);
    }
    Ok(())
}

async fn of_services(aws: &Aws, scene: &Scene, all: &mut Everything) -> anyhow::Result<()> {
    for (name, targets) in sight::registrations(aws).await? {
        put(all, "targets", &name, &targets);
    }
    for group in aws.autoscaling.describe_auto_scaling_groups().send().await?.auto_scaling_groups() {
        let size = (group.min_size, group.max_size, group.desired_capacity, group.suspended_processes());
        put(all, "Auto Scaling group", group.auto_scaling_group_name().unwrap_or_default(), &size);
    }
    put(all, "commands", &scene.vpc, &sight::commands(aws).await?);
    put(all, "sessions", &scene.vpc, &sight::open_sessions(aws).await?);
    Ok(())
}

async fn of_user(aws: &Aws, all: &mut Everything) -> anyhow::Result<()> {
    let mut user = sight::user(aws).await?;
    user.residual.clear();
    put(all, TAGS, USER, &std::mem::take(&mut user.tags));
    put(all, "policies of user", USER, &user);
    let mut shown = aws.iam.get_user().user_name(USER).send().await?.user;
    shown.iter_mut().for_each(|user| user.tags = None);
    put(all, "user", USER, &shown);
    put(all, "keys", USER, &sight::keys(aws).await?);
    put(all, "password", USER, &sight::login_profile(aws).await?);
    for kind in Credentials::ALL {
        put(all, kind.action(), USER, &kind.all(aws).await?);
    }
    Ok(())
}

/// The scene's role, and those of instances, but for ours. Their old sessions stay denied.
async fn of_role(aws: &Aws, all: &mut Everything) -> anyhow::Result<()> {
    let roles = aws.iam.list_roles().send().await?.roles;
    for role in roles.iter().filter(|role| !role.role_name.starts_with("firebreak")) {
        let name = role.role_name.as_str();
        let mut inline = sight::inline_of_role(aws, name).await?;
        inline.retain(|policy, _| !policy.starts_with("firebreak-sessions-until-") && policy != "firebreak-deny-instances");
        let mut shown = aws.iam.get_role().role_name(name).send().await?.role;
        put(all, TAGS, name, &shown.as_mut().map(|role| role.tags.take()));
        put(all, "role", name, &(shown, inline));
    }
    if roles.iter().any(|role| role.role_name == ROLE) {
        let mut role = sight::role(aws).await?;
        (role.residual, role.tags) = Default::default();
        put(all, "policies of role", ROLE, &role);
    }
    Ok(())
}

fn put(all: &mut Everything, what: &str, id: &str, shown: &impl Debug) {
    let text = ISSUED.iter().fold(format!("{shown:?}"), |text, field| without(&text, field));
    all.insert(format!("{what} {id}"), text);
}

/// The text without the values of a field.
fn without(text: &str, field: &str) -> String {
    let begins = format!("{field}: ");
    let mut parts = text.split(&begins);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |so_far, part| format!("{so_far}{begins}_{}", &part[value(part)..]))
}

/// The length of a value, up to the comma or the bracket that ends it.
fn value(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' | ',' if depth == 0 => return at,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_goes_with_all_of_its_value_wherever_it_is() {
        let shown =
            r#"I { a: Some("x, )\" y"), when: Some(D { s: 1, n: (2) }), in: [N { when: None }, N { when: Some("z") }] }"#;
        let expected = r#"I { a: Some("x, )\" y"), when: _, in: [N { when: _}, N { when: _}] }"#;
        assert_eq!(without(shown, "when"), expected);
        assert_eq!(without(shown, "a"), shown.replace(r#"Some("x, )\" y")"#, "_"));
    }

    #[test]
    fn at_rest_only_tags_and_cutoffs_may_differ() {
        let all = |tag: &str, cutoff: &str, resource: &str| {
            let policy = format!(r#"{{"aws:TokenIssueTime":"2026-11-26T20:0{cutoff}:00Z"}},"Resource":"{resource}"#);
            at_rest(&Everything::from([("tags i-1".to_owned(), tag.to_owned()), ("policies".to_owned(), policy)]))
        };
        assert_eq!(all("a", "1", "*"), all("b", "2", "*"));
        assert_ne!(all("a", "1", "*"), all("a", "1", "none"));
    }

    #[test]
    fn what_is_gone_new_or_changed_is_a_difference() {
        let all = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (before, after): (Everything, Everything) =
            (all(&[("same", "1"), ("gone", "1"), ("changed", "1")]), all(&[("same", "1"), ("changed", "2"), ("new", "1")]));
        let found = differences(&before, &after);
        let named: Vec<_> = found.iter().map(|text| text.split(':').next().unwrap()).collect();
        assert_eq!(named, ["changed", "gone", "new"]);
    }
}
