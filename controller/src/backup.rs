//! `export` and `import`: carries Quarantines and Evidence across a lost or dying set of CRDs. What was there before a
//! containment is in these objects; without them nobody could give it back.

use std::io::{Read, Write};

use anyhow::Context;
use firebreak_crds::{CONTAINED_SINCE, Evidence, FINALIZER, Quarantine};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::core::object::HasSpec;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

use crate::containment::contained_since;

/// What is written, and read again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Backup {
    /// `firebreak.dev/v1alpha1`: other versions are refused.
    api_version: String,
    quarantines: Vec<Quarantine>,
    evidence: Vec<Evidence>,
}

/// Writes every Quarantine and all Evidence as JSON.
///
/// # Errors
/// When the API server cannot be read, or nobody takes the output.
pub async fn export(client: &Client, mut to: impl Write) -> anyhow::Result<()> {
    let quarantines = all::<Quarantine>(client).await?.into_iter().map(|q| portable(dated(q))).collect();
    let evidence = all::<Evidence>(client).await?.into_iter().map(portable).collect();
    let backup = Backup { api_version: version(), quarantines, evidence };
    serde_json::to_writer_pretty(&mut to, &backup)?;
    writeln!(to)?;
    Ok(())
}

/// `firebreak.dev/v1alpha1`.
fn version() -> String {
    Quarantine::api_version(&()).into_owned()
}

async fn all<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let doing = || format!("list {}", K::plural(&()));
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await.with_context(doing)?;
    Ok(list.items)
}

/// With the time since when its resource is contained, which the next cluster could not know: it tells the owner's credentials from
/// those that were made since.
fn dated(mut quarantine: Quarantine) -> Quarantine {
    if let Some(since) = contained_since(&quarantine) {
        quarantine.annotations_mut().insert(CONTAINED_SINCE.into(), since.to_string());
    }
    quarantine
}

/// Without what the API server gives: in another cluster it gives other.
fn portable<K: Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    *meta = ObjectMeta { name: meta.name.take(), annotations: meta.annotations.take(), ..ObjectMeta::default() };
    object
}

/// Makes what the backup holds and the cluster does not. What is there already is left alone, and told where it differs.
/// Needs to be run by somebody whom the chart's admission policies let make Quarantines (`admission.restoreGroups`).
///
/// # Errors
/// When the backup cannot be read, or at the first object that the API server refuses; running it again goes on from there.
pub async fn import(client: &Client, mut from: impl Read, mut told: impl Write) -> anyhow::Result<()> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    let backup: Backup = serde_json::from_str(&text).context("this is no backup of `firebreak-controller export`")?;
    let (theirs, ours) = (backup.api_version, version());
    anyhow::ensure!(theirs == ours, "the backup is of {theirs}, this is {ours}");
    for mut quarantine in backup.quarantines {
        // What was last seen is seen anew: a status from elsewhere would claim what nobody has looked at here.
        quarantine.status = None;
        quarantine.finalizers_mut().push(FINALIZER.into());
        let (_, told_of) = make(client, &quarantine).await?;
        writeln!(told, "Quarantine {}: {told_of}", quarantine.name_any())?;
    }
    for evidence in backup.evidence {
        let (made, told_of) = make(client, &evidence).await?;
        if let Some(made) = made {
            keep_status(client, made, &evidence).await?;
        }
        writeln!(told, "Evidence {}: {told_of}", evidence.name_any())?;
    }
    Ok(())
}

/// The object as it was made, None where one of that name was there; and what to tell.
async fn make<K>(client: &Client, object: &K) -> anyhow::Result<(Option<K>, &'static str)>
where
    K: Resource<DynamicType = ()> + HasSpec + Clone + DeserializeOwned + Serialize + Debug,
    K::Spec: PartialEq,
{
    let (api, name) = (Api::<K>::all(client.clone()), object.name_any());
    match api.create(&PostParams::default(), object).await {
        Ok(made) => Ok((Some(made), "made")),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let same = api.get(&name).await?.spec() == object.spec();
            Ok((None, if same { "there already" } else { "LEFT ALONE: another one of that name is there" }))
        }
        Err(error) => Err(error).with_context(|| format!("make {} {name}", K::kind(&()))),
    }
}

/// Evidence is what its status says: where the snapshots are, and who did what. Without it they would be taken again.
async fn keep_status(client: &Client, made: Evidence, evidence: &Evidence) -> anyhow::Result<()> {
    let (api, name) = (Api::<Evidence>::all(client.clone()), evidence.name_any());
    let next = Evidence { status: evidence.status.clone(), ..made };
    api.replace_status(&name, &PostParams::default(), &next).await.with_context(|| format!("status of Evidence {name}"))?;
    Ok(())
}
