//! `inventory`: what in an AWS account carries Firebreak's marks, also what no cluster knows of any more.

use std::io::Write;

use anyhow::Context;
use firebreak_crds::{AwsAccount, NameRef, Resource, ResourceKind};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::aws::{Accounts, DENY_PROFILE, Instance, Marked, Session};
use crate::containment::{Keys, SecondCopy, is_of_copy};
use crate::evidence::ebs_snapshots::DESCRIPTION;
use crate::metrics::Metrics;

/// One resource that carries a mark.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// `global`, or the region.
    pub region: String,
    /// What kind of thing it is, and its id.
    pub resource: String,
    /// The mark.
    pub mark: String,
}

/// Prints one line for each mark in each region of the account.
///
/// # Errors
/// When the AwsAccount does not exist, or AWS cannot be read: then nothing is printed, since a part would look like all.
pub async fn print(client: &Client, account: &str, keys: &Keys, mut to: impl Write) -> anyhow::Result<()> {
    let found = Api::<AwsAccount>::all(client.clone()).get_opt(account).await.context("the cluster cannot be asked")?;
    let account = found.with_context(|| format!("there is no AwsAccount {account}"))?;
    let session = Accounts::load(Arc::new(Metrics::new())).await.session(&account).await?;
    let look = Look { session: &session, keys, account: account.name_any() };
    let principals = session.marked_principals().await?;
    let mut found: Vec<Found> = principals.iter().flat_map(|m| look.principal(m)).collect();
    for region in &account.spec.regions {
        found.extend(look.region(region).await?);
    }
    found.sort();
    writeln!(to, "{:12}  {:40}  MARK", "REGION", "RESOURCE")?;
    for Found { region, resource, mark } in found {
        writeln!(to, "{region:12}  {resource:40}  {mark}")?;
    }
    Ok(())
}

/// A look at one account.
struct Look<'a> {
    session: &'a Session,
    keys: &'a Keys,
    account: String,
}

impl Look<'_> {
    fn principal(&self, marked: &Marked) -> Vec<Found> {
        let (kind, word) = marked.principal.either((ResourceKind::IamUser, "user"), (ResourceKind::IamRole, "role"));
        let resource = self.resource(kind, None, marked.principal.name());
        let tags = self.tags(&resource, &marked.id, &marked.tags);
        let found = |mark| Found { region: "global".into(), resource: format!("{word} {}", marked.principal), mark };
        marked.policies.iter().cloned().chain(tags).map(found).collect()
    }

    async fn region(&self, region: &str) -> anyhow::Result<Vec<Found>> {
        let instances = self.session.marked_instances(region).await?;
        let found = |i: &Instance| {
            let resource = self.resource(ResourceKind::Ec2Instance, Some(region.to_owned()), &i.id);
            let name = format!("instance {}", i.id);
            let found = |mark| Found { region: region.to_owned(), resource: name.clone(), mark };
            self.tags(&resource, &i.id, &i.tags).into_iter().map(found).collect::<Vec<_>>()
        };
        let (groups, without) = (in_groups(self.session, region).await?, without_tags(self.session, region).await?);
        Ok(instances.iter().flat_map(found).chain(groups).chain(without).collect())
    }

    fn resource(&self, kind: ResourceKind, region: Option<String>, id: &str) -> Resource {
        let account_ref = NameRef { name: self.account.clone() };
        Resource { kind, account_ref, account_id: self.session.account_id.clone(), region, id: id.to_owned(), user: None }
    }

    /// A line for each tag, and one for the copy of the record.
    fn tags(&self, resource: &Resource, unique: &str, tags: &BTreeMap<String, String>) -> Vec<String> {
        let ours = tags.iter().filter(|(key, _)| key.starts_with("firebreak.dev/"));
        let (copy, marks): (Vec<_>, Vec<_>) = ours.partition(|(key, _)| is_of_copy(key));
        let mut lines: Vec<String> = marks.iter().map(|(key, value)| format!("tag {key}={value}")).collect();
        if !copy.is_empty() {
            let what = self.copy(tags, resource, unique);
            lines.push(format!("copy of the original in {} tags: {what}", copy.len()));
        }
        lines
    }

    fn copy(&self, tags: &BTreeMap<String, String>, resource: &Resource, unique: &str) -> String {
        if self.keys.problem().is_some() {
            return "not checked, without the controller's MAC keys (--mac-key-file)".to_owned();
        }
        let read = SecondCopy::from_tags(tags, resource, unique, self.keys);
        read.map_or_else(|why| format!("NOT VALID: {why}"), |copy| valid(&copy))
    }
}

fn valid(copy: &SecondCopy) -> String {
    let incidents: Vec<&str> = copy.incidents.values().map(String::as_str).collect();
    format!("valid, of {} entries, since {} for {}", copy.original.len(), copy.since, incidents.join(", "))
}

/// What carries a mark that is no tag: instances with our profile, and evidence.
async fn without_tags(session: &Session, region: &str) -> anyhow::Result<Vec<Found>> {
    let found = |resource: String, mark: String| Found { region: region.to_owned(), resource, mark };
    let profile = format!("instance profile {DENY_PROFILE}");
    let instances = session.instances_with_deny_profile(region).await?.into_iter();
    let instances = instances.map(|id| found(format!("instance {id}"), profile.clone()));
    let snapshots = session.snapshots_described_as(region, DESCRIPTION).await?.into_iter();
    let snapshots = snapshots.map(|s| found(format!("snapshot {}", s.id), format!("{}, of {}", s.description, s.volume)));
    Ok(instances.chain(snapshots).collect())
}

async fn in_groups(session: &Session, region: &str) -> anyhow::Result<Vec<Found>> {
    let found = |resource: String, mark: String| Found { region: region.to_owned(), resource, mark };
    let mut all = Vec::new();
    let groups = session.our_groups(region).await?;
    all.extend(groups.iter().map(|g| found(format!("security group {}", g.id), format!("{} of {}", g.name, g.vpc))));
    let ids: Vec<String> = groups.iter().map(|g| g.id.clone()).collect();
    if !ids.is_empty() {
        let name = |id: &String| groups.iter().find(|g| g.id == *id).map(|g| g.name.clone()).unwrap_or_default();
        for interface in session.interfaces_in_groups(region, ids.clone()).await? {
            let ours: Vec<String> = interface.groups.iter().filter(|g| ids.contains(g)).map(name).collect();
            let of = interface.instance.as_ref().map(|i| format!(" of {i}")).unwrap_or_default();
            all.push(found(format!("interface {}{of}", interface.id), format!("in {}", ours.join(", "))));
        }
    }
    Ok(all)
}
