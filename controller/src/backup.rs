//! `export` and `import`: carries Quarantines and Evidence across a lost or dying set of CRDs. What was there before a
//! containment is in these objects; without them nobody could give it back. And what of an AwsAccount is on no other record: the denies
//! that outlive a release, which nobody would end, and since when a protected tag was seen.

use std::fmt::{Debug, Display, Formatter};
use std::io::{Read, Write};

use anyhow::Context;
use firebreak_crds::{
    AwsAccount, AwsAccountStatus, CONTAINED_SINCE, Evidence, FINALIZER, HELD_AGAIN, ProtectedByTag, Quarantine, ResidualDeny,
};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::core::object::HasSpec;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::containment::contained_since;
use crate::controllers::{Error, find};

/// What is written, and read again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Backup {
    /// `firebreak.dev/v1alpha1`: other versions are refused.
    api_version: String,
    quarantines: Vec<Quarantine>,
    evidence: Vec<Evidence>,
    #[serde(default)]
    accounts: Vec<AccountRecord>,
}

/// What is carried over of an AwsAccount. The object itself is its owners'.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountRecord {
    name: String,
    account_id: String,
    residual_denies: Vec<ResidualDeny>,
    protected_by_tag: Vec<ProtectedByTag>,
}

impl AccountRecord {
    fn of(account: &AwsAccount) -> Self {
        let AwsAccountStatus { residual_denies, protected_by_tag, .. } = account.status.clone().unwrap_or_default();
        Self { name: account.name_any(), account_id: account.spec.account_id.clone(), residual_denies, protected_by_tag }
    }

    /// The status with all that is on record. What was seen earlier counts: an attacker writes tags late.
    fn added_to(&self, mut status: AwsAccountStatus) -> AwsAccountStatus {
        let new = self.residual_denies.iter().filter(|d| !status.residual_denies.contains(d)).cloned().collect::<Vec<_>>();
        status.residual_denies.extend(new);
        for tag in &self.protected_by_tag {
            let same = |t: &&mut ProtectedByTag| (t.kind, &t.region, &t.id) == (tag.kind, &tag.region, &tag.id);
            match status.protected_by_tag.iter_mut().find(same) {
                Some(known) if known.since.0 <= tag.since.0 => {}
                Some(known) => *known = tag.clone(),
                None => status.protected_by_tag.push(tag.clone()),
            }
        }
        status
    }
}

/// Writes every Quarantine, all Evidence and what is carried over of AwsAccounts as JSON.
///
/// # Errors
/// When the API server cannot be read, or nobody takes the output. At the end, where it does not know one of the kinds: what is there is
/// written for the sake of CRDs that are dying, and is no full backup. Nothing is written where it knows none.
pub async fn export(client: &Client, mut to: impl Write) -> anyhow::Result<()> {
    let (quarantines, evidence) = (all::<Quarantine>(client).await?, all::<Evidence>(client).await?);
    let accounts = all::<AwsAccount>(client).await?;
    let known =
        [("Quarantines", quarantines.is_some()), ("Evidence", evidence.is_some()), ("AwsAccounts", accounts.is_some())];
    let unknown: Vec<&str> = known.into_iter().filter(|(_, known)| !known).map(|(kind, _)| kind).collect();
    anyhow::ensure!(unknown.len() < known.len(), "this cluster has no CRDs of Firebreak: nothing was exported");
    let backup = Backup {
        api_version: version(),
        quarantines: quarantines.into_iter().flatten().map(|q| portable(dated(q))).collect(),
        evidence: evidence.into_iter().flatten().map(portable).collect(),
        accounts: accounts.iter().flatten().map(AccountRecord::of).collect(),
    };
    serde_json::to_writer_pretty(&mut to, &backup)?;
    writeln!(to)?;
    let gone = unknown.join(" and ");
    anyhow::ensure!(
        unknown.is_empty(),
        "this cluster has no CRD of {gone}: all else was exported, and this is no full backup"
    );
    Ok(())
}

/// All objects of a kind; None where the API server does not know the kind, which is not the same as that there are none.
async fn all<K>(client: &Client) -> Result<Option<Vec<K>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let listed = Api::<K>::all(client.clone());
    let found = find(&format!("list {}", K::plural(&())), listed.list(&ListParams::default())).await?;
    Ok(found.map(|live| live.items))
}

/// `firebreak.dev/v1alpha1`.
fn version() -> String {
    Quarantine::api_version(&()).into_owned()
}

/// With the time since when its resource is contained, which the next cluster could not know: it tells the owner's credentials from
/// those that were made since. Without what was noted of a deletion, which it does not carry over.
fn dated(mut quarantine: Quarantine) -> Quarantine {
    quarantine.annotations_mut().remove(HELD_AGAIN);
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
    /// It is not there, and not made by an import.
    Absent,
}

impl Display for Came {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Completed => "completed: it was there without its record",
            Self::There => "there already",
            Self::LeftAlone => "LEFT ALONE: another one of that name is there",
            Self::Absent => "LEFT ALONE: it is not there; make it, and import again",
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
        report.tell::<Quarantine>(&quarantine.name_any(), came)?;
    }
    for evidence in backup.evidence {
        let (there, came) = make(client, &evidence).await?;
        let came = if came == Came::There { standing(&there, &evidence) } else { came };
        if matches!(came, Came::Made | Came::Completed) {
            keep_status(client, there, &evidence).await?;
        }
        report.tell::<Evidence>(&evidence.name_any(), came)?;
    }
    for record in backup.accounts.iter().filter(|r| !r.residual_denies.is_empty() || !r.protected_by_tag.is_empty()) {
        report.tell::<AwsAccount>(&record.name, add(client, record).await?)?;
    }
    report.end()
}

/// What is told of an import.
struct Report<W> {
    told: W,
    left_alone: usize,
}

impl<W: Write> Report<W> {
    fn tell<K: Resource<DynamicType = ()>>(&mut self, name: &str, came: Came) -> anyhow::Result<()> {
        self.left_alone += usize::from(matches!(came, Came::LeftAlone | Came::Absent));
        writeln!(self.told, "{} {name}: {came}", K::kind(&()))?;
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

/// Adds what is on record to the status of the AwsAccount of that name.
async fn add(client: &Client, record: &AccountRecord) -> anyhow::Result<Came> {
    let (api, name) = (Api::<AwsAccount>::all(client.clone()), &record.name);
    let Some(there) = api.get_opt(name).await.with_context(|| format!("read AwsAccount {name}"))? else {
        return Ok(Came::Absent);
    };
    if there.spec.account_id != record.account_id {
        return Ok(Came::LeftAlone);
    }
    let before = there.status.clone().unwrap_or_default();
    let status = record.added_to(before.clone());
    if status == before {
        return Ok(Came::There);
    }
    let next = AwsAccount { status: Some(status), ..there };
    api.replace_status(name, &PostParams::default(), &next).await.with_context(|| format!("status of AwsAccount {name}"))?;
    Ok(Came::Completed)
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

    /// What is exported of a cluster that knows these kinds, each without an object, and whether it says that this is all.
    async fn exported(kinds: &[&str]) -> (Option<Backup>, Result<(), String>) {
        let empty = || async { json!({ "metadata": {}, "items": [] }).to_string() };
        let path = |kind| format!("/apis/firebreak.dev/v1alpha1/{kind}");
        let server = kinds.iter().fold(axum::Router::new(), |s, kind| s.route(&path(kind), axum::routing::get(empty)));
        let server = server.fallback(|| async {
            let status = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "", "code": 404 });
            (axum::http::StatusCode::NOT_FOUND, status.to_string())
        });
        let mut written = Vec::new();
        let end = export(&Client::new(server, "default"), &mut written).await;
        (serde_json::from_slice(&written).ok(), end.map_err(|e| e.to_string()))
    }

    #[tokio::test]
    async fn what_is_empty_because_the_cluster_does_not_know_the_kind_is_no_backup() {
        let (backup, end) = exported(&["quarantines", "evidence", "awsaccounts"]).await;
        assert!(backup.is_some() && end == Ok(()), "{end:?}");
        let (backup, end) = exported(&["quarantines", "awsaccounts"]).await;
        assert!(backup.is_some() && end.as_ref().is_err_and(|e| e.contains("no CRD of Evidence:")), "{end:?}");
        let (backup, end) = exported(&["evidence", "awsaccounts"]).await;
        assert!(backup.is_some() && end.as_ref().is_err_and(|e| e.contains("no CRD of Quarantines:")), "{end:?}");
        let (backup, end) = exported(&[]).await;
        assert!(backup.is_none() && end.as_ref().is_err_and(|e| e.contains("nothing was exported")), "{end:?}");
    }

    #[test]
    fn an_account_keeps_what_it_has_and_gets_what_is_on_record_and_of_a_tag_the_earlier_time() {
        let deny = |name: &str| json!({ "userName": name, "policyName": "p", "until": "2026-03-02T12:00:00Z" });
        let tag = |id: &str, hour: i32| json!({ "kind": "IamUser", "id": id, "key": "tier", "since": format!("2026-03-01T{hour}:00:00Z") });
        let record: AccountRecord = serde_json::from_value(json!({
            "name": "prod", "accountId": "111122223333",
            "residualDenies": [deny("a"), deny("b")], "protectedByTag": [tag("a", 10), tag("b", 12), tag("c", 10)],
        }))
        .unwrap();
        let status = json!({ "residualDenies": [deny("b"), deny("c")], "protectedByTag": [tag("b", 11), tag("c", 11)] });
        let added = record.added_to(serde_json::from_value(status).unwrap());
        let denies: Vec<_> = added.residual_denies.iter().map(|d| d.user_name.clone().unwrap()).collect();
        assert_eq!(denies, ["b", "c", "a"]);
        let hour = |t: &ProtectedByTag| t.since.0.to_string()[11..13].to_owned();
        let tags: Vec<_> = added.protected_by_tag.iter().map(|t| (t.id.clone(), hour(t))).collect();
        assert_eq!(tags, [("b", "11"), ("c", "10"), ("a", "10")].map(|(id, hour)| (id.to_owned(), hour.to_owned())));
        assert_eq!(record.added_to(added.clone()), added, "once");
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
