//! `export` and `import`: carries Quarantines and Evidence across a lost or dying set of CRDs. What was there before a
//! containment is in these objects; without them nobody could give it back.

use std::fmt::{Debug, Display, Formatter};
use std::io::{Read, Write};

use anyhow::Context;
use firebreak_crds::{CONTAINED_SINCE, Evidence, FINALIZER, Quarantine};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::core::object::HasSpec;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

/// What became of one object of the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It was made.
    Made,
    /// It was made by an import that was broken off before its record was stored; it is now.
    Completed,
    /// It is as the backup has it.
    There,
    /// What the backup has of it is not in the cluster.
    LeftAlone,
}

impl Display for Came {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Completed => "completed: it was there without its record",
            Self::There => "there already",
            Self::LeftAlone => "LEFT ALONE: another one of that name is there",
        })
    }
}

/// Makes what the backup holds and the cluster does not. What is there already is left alone, and told where it differs.
/// Needs to be run by somebody whom the chart's admission policies let make Quarantines (`admission.restoreGroups`).
///
/// # Errors
/// When the backup cannot be read, or at the first object that the API server refuses; running it again goes on from there. At the
/// end, where anything was left alone.
pub async fn import(client: &Client, mut from: impl Read, told: impl Write) -> anyhow::Result<()> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    let backup: Backup = serde_json::from_str(&text).context("this is no backup of `firebreak-controller export`")?;
    let (theirs, ours) = (&backup.api_version, version());
    anyhow::ensure!(*theirs == ours, "the backup is of {theirs}, this is {ours}");
    let mut report = Report { told, left_alone: 0 };
    for mut quarantine in backup.quarantines {
        // What was last seen is seen anew: a status from elsewhere would claim what nobody has looked at here.
        quarantine.status = None;
        quarantine.finalizers_mut().push(FINALIZER.into());
        let (_, came) = make(client, &quarantine).await?;
        report.tell(&quarantine, came)?;
    }
    for evidence in backup.evidence {
        let (there, came) = make(client, &evidence).await?;
        let came = if came == Came::There { standing(&there, &evidence) } else { came };
        if matches!(came, Came::Made | Came::Completed) {
            keep_status(client, there, &evidence).await?;
        }
        report.tell(&evidence, came)?;
    }
    report.end()
}

/// What is told of an import.
struct Report<W> {
    told: W,
    left_alone: usize,
}

impl<W: Write> Report<W> {
    fn tell<K: Resource<DynamicType = ()>>(&mut self, object: &K, came: Came) -> anyhow::Result<()> {
        self.left_alone += usize::from(came == Came::LeftAlone);
        writeln!(self.told, "{} {}: {came}", K::kind(&()), object.name_any())?;
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        let n = self.left_alone;
        anyhow::ensure!(
            n == 0,
            "{n} of the backup's objects were LEFT ALONE: what the backup has of them is not in this cluster"
        );
        Ok(())
    }
}

/// The object as it was made, or as it is there.
async fn make<K>(client: &Client, object: &K) -> anyhow::Result<(K, Came)>
where
    K: Resource<DynamicType = ()> + HasSpec + Clone + DeserializeOwned + Serialize + Debug,
    K::Spec: PartialEq,
{
    let (api, name) = (Api::<K>::all(client.clone()), object.name_any());
    match api.create(&PostParams::default(), object).await {
        Ok(made) => Ok((made, Came::Made)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let there = api.get(&name).await.with_context(|| format!("read {} {name}", K::kind(&())))?;
            let same = there.spec() == object.spec();
            Ok((there, if same { Came::There } else { Came::LeftAlone }))
        }
        Err(error) => Err(error).with_context(|| format!("make {} {name}", K::kind(&()))),
    }
}

/// How evidence of the same spec stands: one that never asked for anything has not got its record yet, and one that does not know of
/// the backup's snapshots has taken others.
fn standing(there: &Evidence, evidence: &Evidence) -> Came {
    let (has, had) = (there.status.clone().unwrap_or_default(), evidence.status.clone().unwrap_or_default());
    let known = |id: &str| has.volumes.iter().any(|v| v.snapshot_id == id);
    if has.request.is_none() && had.request.is_some() {
        Came::Completed
    } else if had.volumes.iter().all(|v| known(&v.snapshot_id)) {
        Came::There
    } else {
        Came::LeftAlone
    }
}

/// Evidence is what its status says: where the snapshots are, and who did what. Without it they would be taken again.
async fn keep_status(client: &Client, there: Evidence, evidence: &Evidence) -> anyhow::Result<()> {
    let (api, name) = (Api::<Evidence>::all(client.clone()), evidence.name_any());
    let next = Evidence { status: evidence.status.clone(), ..there };
    api.replace_status(&name, &PostParams::default(), &next).await.with_context(|| format!("status of Evidence {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use firebreak_crds::{EvidenceSpec, IncidentRef};
    use serde_json::{Value, json};

    use super::*;
    use crate::containment::example;

    fn evidence(status: Value) -> Evidence {
        let incident_ref = IncidentRef { uid: "1".into(), namespace: "security".into(), name: "inc".into() };
        let collect = serde_json::from_value(json!({ "ebsSnapshots": {} })).unwrap();
        let mut evidence = Evidence::new("e", EvidenceSpec { incident_ref, resource: example::instance(), collect });
        evidence.status = serde_json::from_value(status).unwrap();
        evidence
    }

    fn taken(ids: &[&str]) -> Value {
        let volumes: Vec<Value> =
            ids.iter().map(|id| json!({ "volumeId": "vol-1", "snapshotId": id, "state": "completed" })).collect();
        json!({ "request": { "at": "2026-03-01T12:00:00Z", "outcome": "Accepted" }, "volumes": volumes })
    }

    #[test]
    fn evidence_that_has_not_got_its_record_gets_it_and_one_that_took_others_is_left_alone() {
        for (there, backup, came) in [
            (Value::Null, taken(&["snap-1"]), Came::Completed),
            (json!({ "conditions": [] }), taken(&["snap-1"]), Came::Completed),
            (Value::Null, Value::Null, Came::There),
            (taken(&["snap-1"]), taken(&["snap-1"]), Came::There),
            (taken(&["snap-1"]), Value::Null, Came::There),
            (taken(&[]), taken(&["snap-1"]), Came::LeftAlone),
            (taken(&["snap-2"]), taken(&["snap-1"]), Came::LeftAlone),
        ] {
            assert_eq!(standing(&evidence(there.clone()), &evidence(backup.clone())), came, "{there} {backup}");
        }
    }
}
