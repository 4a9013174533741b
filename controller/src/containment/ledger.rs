//! The ledger of one pass: what must be stored in the Quarantine before AWS is touched.
//!
//! Written only by `replace` with the resourceVersion just read, so that a hold or a deletion that came meanwhile is seen: a
//! 409 ends the pass, but for one that only a status brought about, and the next one reads and plans again. Actions that run side by side share writes: those that ask
//! while one is under way go together in the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use firebreak_crds::{Conversion, ConversionState, Quarantine, QuarantineSpec, QuarantineStatus, Text};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::clock;

/// What `spec.conversions` has room for. An instance has 15 interfaces at most: the oldest are long gone.
const CONVERSIONS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status in the middle of a pass must hold nothing up.
const BRIEFLY: Duration = Duration::from_secs(2);
/// What one entry of `spec.original` has room for.
const TEXT: usize = 16384;

/// What is to be stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) record: BTreeMap<String, Value>,
    pub(super) conversions: BTreeMap<String, ConversionState>,
}

/// Why it was not stored. Nothing may be changed in AWS then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else changed the Quarantine: read and plan again.
    #[error("the Quarantine changed meanwhile: read and plan again")]
    Changed,
    /// The API server dropped a part of what was sent.
    #[error("the API server did not store {0}: the Quarantine CRD is older than this controller; upgrade the CRDs")]
    Pruned(String),
    /// More than a record may be. The actions beside it go on.
    #[error("the original could not be recorded, so nothing was changed: {0} is longer than {TEXT} bytes")]
    TooLong(String),
    /// The API server refused or did not answer.
    #[error("the original could not be recorded, so nothing was changed: {0}")]
    Refused(String),
}

/// What became of a status in the middle of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is written, or says nothing new.
    Done,
    /// Not at this moment.
    Later,
    /// It cannot be written in this pass.
    Never,
}

/// The Quarantine as last stored.
pub struct Ledger {
    api: Api<Quarantine>,
    asked: Mutex<Vec<Change>>,
    page: tokio::sync::Mutex<Page>,
}

struct Page {
    quarantine: Quarantine,
    /// Once a write failed, nothing of this pass may rely on the ledger.
    failed: Option<LedgerError>,
}

impl Ledger {
    /// A ledger that begins with the Quarantine as read.
    #[must_use]
    pub fn new(api: Api<Quarantine>, quarantine: Quarantine) -> Self {
        Self { api, asked: Mutex::default(), page: tokio::sync::Mutex::new(Page { quarantine, failed: None }) }
    }

    /// The Quarantine as last stored.
    pub async fn latest(&self) -> Quarantine {
        self.page.lock().await.quarantine.clone()
    }

    /// Stores what a plan asks for; returns once it is stored.
    ///
    /// # Errors
    /// When it is not stored: nothing may be changed in AWS then.
    pub async fn store(
        &self,
        record: BTreeMap<String, Value>,
        conversions: BTreeMap<String, ConversionState>,
    ) -> Result<(), LedgerError> {
        if record.is_empty() && conversions.is_empty() {
            return Ok(());
        }
        fits(&record)?;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Change { record, conversions });
        let mut page = self.page.lock().await;
        let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        if page.failed.is_none() && !asked.is_empty() {
            match self.write(&page.quarantine, &asked).await {
                Ok(stored) => page.quarantine = stored,
                Err(error) => page.failed = Some(error),
            }
        }
        page.failed.clone().map_or(Ok(()), Err)
    }

    /// Writes a status in the middle of a pass. The page is not locked meanwhile, since no record waits for a status.
    pub async fn tell(&self, status: impl FnOnce(&Quarantine) -> QuarantineStatus) -> Told {
        let Some(known) = self.tellable().await else { return Told::Never };
        let next = Quarantine { status: Some(status(&known)), ..known.clone() };
        if next.status == known.status {
            return Told::Done;
        }
        let (name, params) = (next.name_any(), PostParams::default());
        let sent = tokio::time::timeout(BRIEFLY, self.api.replace_status(&name, &params, &next)).await;
        let mut page = self.page.lock().await;
        let recorded = page.quarantine.resource_version() != known.resource_version();
        match sent {
            Ok(Ok(_)) if recorded => Told::Done, // the record came after it, and knows it
            Ok(Ok(stored)) => {
                page.quarantine = stored;
                Told::Done
            }
            _ if recorded => Told::Later,
            _ => Told::Never, // the pass tells it when it ends
        }
    }

    /// The Quarantine as last stored, where a status may be written still.
    async fn tellable(&self) -> Option<Quarantine> {
        let page = self.page.lock().await;
        page.failed.is_none().then(|| page.quarantine.clone())
    }

    /// Whether the Quarantine still asks for what it asked for when the pass began, by a live read.
    pub async fn is_current(&self) -> bool {
        let known = self.latest().await;
        let asks = |q: &Quarantine| {
            let spec = q.spec.clone();
            (q.metadata.uid.clone(), q.metadata.deletion_timestamp.clone(), spec.holders, spec.suspend)
        };
        self.live(&known).await.is_some_and(|live| asks(&live) == asks(&known))
    }

    /// As it is now; None where the API server does not say so soon.
    async fn live(&self, known: &Quarantine) -> Option<Quarantine> {
        tokio::time::timeout(BRIEFLY, self.api.get(&known.name_any())).await.ok()?.ok()
    }

    /// Writes the changes. Where a status came between, which leaves the spec as it was, once more.
    async fn write(&self, from: &Quarantine, changes: &[Change]) -> Result<Quarantine, LedgerError> {
        match self.replace(from, changes).await {
            Err(LedgerError::Changed) => self.replace(&self.with_a_new_status(from).await?, changes).await,
            written => written,
        }
    }

    /// The Quarantine as it is now, where only its status is another.
    async fn with_a_new_status(&self, from: &Quarantine) -> Result<Quarantine, LedgerError> {
        let is = |q: &Quarantine| {
            let m = &q.metadata;
            (m.uid.clone(), m.deletion_timestamp.clone(), m.finalizers.clone(), q.spec.clone())
        };
        self.live(from).await.filter(|live| is(live) == is(from)).ok_or(LedgerError::Changed)
    }

    async fn replace(&self, from: &Quarantine, changes: &[Change]) -> Result<Quarantine, LedgerError> {
        let mut next = from.clone();
        changes.iter().for_each(|c| apply(&mut next.spec, c, clock::now()));
        if next.spec == from.spec {
            return Ok(next);
        }
        let (name, params) = (next.name_any(), PostParams::default());
        let sent = tokio::time::timeout(TIMEOUT, self.api.replace(&name, &params, &next)).await;
        let stored = match sent {
            Ok(Ok(stored)) => stored,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Err(LedgerError::Changed),
            Ok(Err(error)) => return Err(LedgerError::Refused(error.to_string())),
            Err(_) => return Err(LedgerError::Refused("the API server did not answer within 5 s".into())),
        };
        verify(&next.spec, &stored.spec)?;
        Ok(stored)
    }
}

/// What goes together in one write fails together: what the API server would refuse does not go along.
fn fits(record: &BTreeMap<String, Value>) -> Result<(), LedgerError> {
    let too_long = record.iter().find(|(_, value)| value.to_string().len() > TEXT);
    too_long.map_or(Ok(()), |(key, _)| Err(LedgerError::TooLong(key.clone())))
}

/// Recorded originals are written once: the first value stays.
pub(super) fn apply(spec: &mut QuarantineSpec, change: &Change, now: Timestamp) {
    for (key, value) in &change.record {
        let original = spec.original.get_or_insert_default();
        original.entry(key.clone()).or_insert_with(|| Text(value.to_string()));
    }
    for (interface, state) in &change.conversions {
        spec.conversions.retain(|c| c.interface_id != *interface);
        if spec.conversions.len() >= CONVERSIONS {
            let oldest = spec.conversions.iter().filter(|c| c.state != ConversionState::Open).min_by_key(|c| c.since.0);
            let oldest = oldest.map(|c| c.interface_id.clone());
            spec.conversions.retain(|c| Some(&c.interface_id) != oldest.as_ref());
        }
        spec.conversions.push(Conversion { interface_id: interface.clone(), state: *state, since: clock::time(now) });
    }
}

/// An older CRD prunes silently: what came back must be what was sent.
fn verify(sent: &QuarantineSpec, stored: &QuarantineSpec) -> Result<(), LedgerError> {
    match (sent.original == stored.original, sent.conversions == stored.conversions) {
        (true, true) => Ok(()),
        (false, _) => Err(LedgerError::Pruned("spec.original".into())),
        (_, false) => Err(LedgerError::Pruned("spec.conversions".into())),
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
