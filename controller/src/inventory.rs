//! `inventory`: what in an AWS account carries Firebreak's marks, also what no cluster knows of any more.

use std::io::Write;

use anyhow::Context;
use firebreak_crds::AwsAccount;
use kube::{Api, Client};
use std::sync::Arc;

use crate::aws::{Accounts, Session};
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
pub async fn print(client: &Client, account: &str, mut to: impl Write) -> anyhow::Result<()> {
    let account =
        Api::<AwsAccount>::all(client.clone()).get(account).await.with_context(|| format!("AwsAccount {account}"))?;
    let session = Accounts::load(Arc::new(Metrics::new())).await.session(&account).await?;
    let principals = session.marked_principals().await?.into_iter();
    let mut found: Vec<Found> = principals
        .flat_map(|m| m.marks.into_iter().map(move |mark| (m.principal.clone(), mark)))
        .map(|(resource, mark)| Found { region: "global".into(), resource, mark })
        .collect();
    for region in &account.spec.regions {
        found.extend(marked(&session, region).await?);
    }
    found.sort();
    writeln!(to, "{:12}  {:40}  MARK", "REGION", "RESOURCE")?;
    for Found { region, resource, mark } in found {
        writeln!(to, "{region:12}  {resource:40}  {mark}")?;
    }
    Ok(())
}

async fn marked(session: &Session, region: &str) -> anyhow::Result<Vec<Found>> {
    let found = |resource: String, mark: String| Found { region: region.to_owned(), resource, mark };
    let instances = session.instances_tagged(region, crate::containment::INCIDENT_TAG).await?;
    let mark = |tags: &std::collections::BTreeMap<String, String>| {
        let incident = tags.get(crate::containment::INCIDENT_TAG).cloned().unwrap_or_default();
        format!("tag {}={incident}", crate::containment::INCIDENT_TAG)
    };
    let mut all: Vec<Found> = instances.iter().map(|i| found(format!("instance {}", i.id), mark(&i.tags))).collect();
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
