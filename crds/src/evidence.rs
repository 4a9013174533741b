//! `Evidence`: one piece of evidence, kept past the incident. Made by the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EvidenceAction, IncidentRef, Resource};

/// One piece of evidence: what was asked for, where it is, its digest and its custody log. Outlives the Incident.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "Evidence",
    plural = "evidence",
    shortname = "evd",
    category = "firebreak",
    status = "EvidenceStatus",
    doc = "One piece of evidence: what was asked for, where it is, its digest and its custody log. Outlives the Incident.",
    selectable = ".spec.incidentRef.uid",
    selectable = ".spec.resource.id",
    printcolumn(name = "INCIDENT", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "PROGRESS", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "READY", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "RESOURCE", type_ = "string", json_path = ".spec.resource.id", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of Evidence cannot be changed"))]
pub struct EvidenceSpec {
    /// The Incident for which it was collected.
    pub incident_ref: IncidentRef,
    /// The resource that it is of.
    pub resource: Resource,
    /// What to collect.
    pub collect: EvidenceAction,
}

/// Where it is, and how it got there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` when complete, and `Reconciling` or `Stalled` while they are so.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last value of the annotation `firebreak.dev/reconcile-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// The request to AWS. Written before it is sent, since AWS cannot tell a repeated request from a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// The snapshots, one per volume.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["snapshotId".into()]))]
    pub volumes: Vec<VolumeSnapshot>,
    /// Completed snapshots of all, e.g. `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub progress: Option<String>,
    /// SHA-256 of the canonical JSON of `volumes`, once complete: shows a later change of this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub digest: Option<String>,
    /// What was done to it, by whom, oldest first.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub custody: Vec<CustodyEntry>,
}

/// A request that AWS cannot recognise when repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// When it was about to be sent.
    pub at: Time,
    /// What became of it.
    pub outcome: RequestOutcome,
    /// AWS's answer, where it refused.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// The description by which its snapshots are found. It carries the uid of the object that asked: after an import another one's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub description: String,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestOutcome {
    /// No answer is known: it may have happened. Looked for, and repeated only after 60 s of looks that find nothing.
    Unknown,
    /// AWS answered that it will not: nothing happened.
    Refused,
    /// AWS answered with the snapshots, or they were found.
    Accepted,
}

/// The snapshot of one volume. <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Snapshot.html>
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshot {
    /// The volume.
    #[schemars(length(max = 64))]
    pub volume_id: String,
    /// The snapshot.
    #[schemars(length(max = 64))]
    pub snapshot_id: String,
    /// AWS's state: `pending`, `completed`, `error`, ...; `missing` where AWS shows it no more.
    #[schemars(length(max = 32))]
    pub state: String,
    /// AWS's progress, e.g. `42%`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub progress: String,
    /// The volume's size in GiB.
    #[serde(default)]
    pub size_gi_b: i32,
    /// When AWS says it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was first seen complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// One entry of the custody log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustodyEntry {
    /// When.
    pub at: Time,
    /// Who: the controller's AWS identity, or Firebreak itself for what was done to this record.
    #[schemars(length(max = 2048))]
    pub by: String,
    /// What was done.
    #[schemars(length(max = 1024))]
    pub what: String,
}
