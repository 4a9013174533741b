//! `ebsSnapshots`: one `CreateSnapshots` for all volumes of an instance, so that they show one moment.
//!
//! AWS has no client token for it and cannot tell a repeated request from a new one. So the intent is written down first, the
//! evidence's uid goes into the description, and after an unknown outcome the snapshots are looked for by it; the request is
//! repeated only after 60 s of looks that find nothing.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html>

use std::collections::BTreeMap;
use std::time::Duration;

use firebreak_crds::{Evidence, EvidenceStatus, Request, RequestOutcome, VolumeSnapshot};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::aws::{Call, Snapshot};
use crate::clock;

/// How long looks must find nothing before a request of unknown outcome is sent again.
const LOST: Duration = Duration::from_mins(1);

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Write the intent down, then send the request.
    Send,
    /// Look for the snapshots of a request of unknown outcome.
    Find,
    /// Look at the snapshots that are known.
    Follow,
}

/// What to do next. `refused`: wait until a refusal is old enough to try again.
#[must_use]
pub fn next(status: &EvidenceStatus) -> Next {
    match &status.request {
        None => Next::Send,
        Some(request) => match request.outcome {
            RequestOutcome::Refused => Next::Send,
            RequestOutcome::Unknown => Next::Find,
            RequestOutcome::Accepted => Next::Follow,
        },
    }
}

/// Whether a request whose snapshots are nowhere to be found may be sent again.
#[must_use]
pub fn is_lost(request: &Request, now: Timestamp) -> bool {
    clock::since(request.at.0, now) >= LOST
}

/// How every description of a snapshot begins that is evidence.
pub const DESCRIPTION: &str = "firebreak evidence ";

/// The description of snapshots that are asked for now: unlike tags, it can be set only when they are made.
#[must_use]
pub fn new_description(evidence: &Evidence) -> String {
    format!("{DESCRIPTION}{}", evidence.uid().unwrap_or_default())
}

/// The description by which the snapshots are found again: that of the request on record, which may be of another cluster.
#[must_use]
pub fn description(evidence: &Evidence) -> String {
    let asked = evidence.status.as_ref().and_then(|s| s.request.as_ref()).map(|r| r.description.clone());
    asked.filter(|d| !d.is_empty()).unwrap_or_else(|| new_description(evidence))
}

/// The request.
#[must_use]
pub fn request(evidence: &Evidence) -> Call {
    let incident = &evidence.spec.incident_ref;
    let tags = BTreeMap::from([
        ("firebreak.dev/evidence".to_owned(), evidence.uid().unwrap_or_default()),
        ("firebreak.dev/incident".to_owned(), format!("{}/{}", incident.namespace, incident.name)),
    ]);
    Call::CreateSnapshots { instance: evidence.spec.resource.id.clone(), description: description(evidence), tags }
}

/// The status of one snapshot, as AWS shows it now. What was seen complete once keeps that time.
#[must_use]
pub fn volume(seen: &Snapshot, before: Option<&VolumeSnapshot>, now: Timestamp) -> VolumeSnapshot {
    let completed = before.and_then(|b| b.completed_at.clone());
    VolumeSnapshot {
        volume_id: seen.volume.clone(),
        snapshot_id: seen.id.clone(),
        state: if seen.state.is_empty() { "pending".into() } else { seen.state.clone() },
        progress: seen.progress.clone(),
        size_gi_b: seen.size,
        started_at: seen.started.map(clock::time),
        completed_at: completed.or_else(|| (seen.state == "completed").then(|| clock::time(now))),
    }
}

/// The snapshot is nowhere to be seen. AWS shows new ones late, so one that was never seen complete is merely not there yet.
#[must_use]
pub fn unseen(before: &VolumeSnapshot) -> VolumeSnapshot {
    let state = if before.completed_at.is_some() { "missing".to_owned() } else { before.state.clone() };
    VolumeSnapshot { state, ..before.clone() }
}

/// `2/3`.
#[must_use]
pub fn progress(volumes: &[VolumeSnapshot]) -> String {
    format!("{}/{}", volumes.iter().filter(|v| v.state == "completed").count(), volumes.len())
}

/// Whether all are complete, and there is at least one.
#[must_use]
pub fn complete(volumes: &[VolumeSnapshot]) -> bool {
    !volumes.is_empty() && volumes.iter().all(|v| v.state == "completed")
}

/// SHA-256 of the canonical JSON of the record.
#[must_use]
pub fn digest(volumes: &[VolumeSnapshot]) -> String {
    let text = serde_json::to_string(volumes).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
#[path = "ebs_snapshots_tests.rs"]
mod tests;
