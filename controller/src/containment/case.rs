//! Everything that a plan may depend on besides what was observed.

use firebreak_crds::{Conversion, ConversionState, OnConflict, Quarantine, ReleasePolicy, Resource};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// One resource to contain or to release: its record, and the clock.
#[derive(Clone, Debug)]
pub struct Case {
    /// The resource.
    pub resource: Resource,
    /// The recorded originals, as JSON text.
    pub original: BTreeMap<String, String>,
    /// The conversion windows.
    pub conversions: Vec<Conversion>,
    /// What a person decided about conflicts.
    pub decision: Option<OnConflict>,
    /// What every holder's policy gives back beyond the default.
    pub release: ReleasePolicy,
    /// When the containment began.
    pub since: Timestamp,
    /// `namespace/name` of the first Incident that held.
    pub incident: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// Now.
    pub now: Timestamp,
}

impl Case {
    /// The case of a Quarantine as read.
    #[must_use]
    pub fn of(quarantine: &Quarantine, partition: &str, now: Timestamp) -> Self {
        let spec = &quarantine.spec;
        let texts = spec.original.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
        Self {
            resource: spec.resource.clone(),
            original: texts.collect(),
            conversions: spec.conversions.clone(),
            decision: spec.release.as_ref().map(|r| r.on_conflict),
            release: ReleasePolicy {
                reactivate_access_keys: !spec.holders.is_empty()
                    && spec.holders.iter().all(|h| h.release.reactivate_access_keys),
            },
            since: quarantine.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0),
            incident: spec.holders.first().map(|h| format!("{}/{}", h.namespace, h.name)).unwrap_or_default(),
            partition: partition.to_owned(),
            now,
        }
    }

    /// What is recorded under that key; None where nothing is, or where it cannot be read.
    #[must_use]
    pub fn recorded<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.original.get(key).and_then(|text| serde_json::from_str(text).ok())
    }

    /// Whether it is on record that an action's original is not known: that outlives the look that showed it.
    #[must_use]
    pub fn is_unknown(&self, action: &str) -> bool {
        self.original.contains_key(&unknown_key(action))
    }

    /// Whether anything is recorded for an action.
    #[must_use]
    pub fn has_record_of(&self, action: &str) -> bool {
        self.records_of(action).next().is_some()
    }

    /// The sub-resources recorded for an action: keys are `action/sub-resource`.
    pub fn records_of<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a str> {
        self.original.keys().filter_map(move |k| match k.split_once('/') {
            Some((a, sub)) if a == action => Some(sub),
            None if k == action => Some(""),
            _ => None,
        })
    }

    /// The state of an interface's conversion window.
    #[must_use]
    pub fn conversion(&self, interface: &str) -> Option<ConversionState> {
        self.conversions.iter().find(|c| c.interface_id == interface).map(|c| c.state)
    }
}

/// Under this key it is noted that what was there before is not known. So a release looks at the action too, and asks a person
/// instead of finding nothing to give back.
#[must_use]
pub fn unknown_key(action: &str) -> String {
    format!("{action}/unknown")
}
