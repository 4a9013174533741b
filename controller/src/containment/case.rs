//! Everything that a plan may depend on besides what was observed.

use firebreak_crds::{
    ActionState, ActionStatus, CONTAINED_SINCE, Conversion, ConversionState, Holder, HolderState, KeyUser, OnConflict,
    Quarantine, QuarantineSpec, ReleasePolicy, Resource, ResourceKind,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

use super::adopt::Adopted;
use super::beside::Beside;
use super::wanted::name_of;
use super::whereabouts::Whereabouts;
use super::{deny_all, given};
use crate::aws::{Identity, Principal};

/// Under this key it is noted that an instance was seen to end; of no action.
pub const ENDED: &str = "instance/ended";

/// One resource to contain or to release: its record, and the clock.
#[derive(Clone, Debug)]
pub struct Case {
    /// The resource.
    pub resource: Resource,
    /// The originals, as JSON text: the recorded ones, and beside them what a person gave in `spec.release.original`.
    pub original: BTreeMap<String, String>,
    /// The keys of those that are on record.
    pub stored: BTreeSet<String>,
    /// The actions of which the original became known after it was noted that it is not.
    pub resolved: BTreeSet<String>,
    /// The copy that the record was adopted from, where it was.
    pub adopted: Option<Adopted>,
    /// The conversion windows.
    pub conversions: Vec<Conversion>,
    /// How each action stood when that was last told.
    pub told: Vec<ActionStatus>,
    /// What a person decided about conflicts.
    pub decision: Option<OnConflict>,
    /// What the policy of every holder, and of all that let go, gives back beyond the default.
    pub release: ReleasePolicy,
    /// Who holds it.
    pub holders: Vec<Holder>,
    /// The other Quarantines of the same user.
    pub beside: Vec<Beside>,
    /// Of a user: under which name it is there now.
    pub whereabouts: Whereabouts,
    /// When the containment began; where it was adopted or imported, in the cluster that was lost.
    pub since: Timestamp,
    /// `namespace/name` of the first Incident that held.
    pub incident: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// Now: by AWS's clock, where that is ahead.
    pub now: Timestamp,
}

impl Case {
    /// The case beside these Quarantines.
    #[must_use]
    pub fn with(self, beside: Vec<Beside>) -> Self {
        Self { beside, ..self }
    }

    /// The case of a user that is there under this name.
    #[must_use]
    pub fn at(self, whereabouts: Whereabouts) -> Self {
        Self { whereabouts, ..self }
    }

    /// The case of a Quarantine as read.
    #[must_use]
    pub fn of(quarantine: &Quarantine, partition: &str, now: Timestamp) -> Self {
        let spec = &quarantine.spec;
        let texts = spec.original.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
        let mut original: BTreeMap<String, String> = texts.collect();
        let (stored, adopted) = (original.keys().cloned().collect(), Adopted::of(quarantine));
        let given = given::originals(quarantine);
        let resolved = given.keys().map(|key| action_of(key).to_owned());
        let resolved = resolved.chain(adopted.iter().flat_map(|a| a.actions.clone())).collect();
        for (key, text) in given {
            original.entry(key).or_insert(text);
        }
        let made = contained_since(quarantine).unwrap_or(now);
        Self {
            resource: spec.resource.clone(),
            original,
            stored,
            resolved,
            since: adopted.as_ref().map_or(made, |a| a.since.min(made)),
            adopted,
            conversions: spec.conversions.clone(),
            told: quarantine.status.iter().flat_map(|s| s.actions.clone()).collect(),
            decision: spec.release.as_ref().and_then(|r| r.on_conflict),
            release: release_of(spec),
            holders: spec.holders.clone(),
            beside: Vec::new(),
            whereabouts: Whereabouts::NotAsked,
            incident: spec.holders.first().map(|h| format!("{}/{}", h.namespace, h.name)).unwrap_or_default(),
            partition: partition.to_owned(),
            now,
        }
    }

    /// The user or role that is contained: what IAM's calls name.
    #[must_use]
    pub fn principal(&self) -> Principal {
        match &self.whereabouts {
            Whereabouts::Named(name) => Principal::User(name.clone()),
            _ => self.declared_principal(),
        }
    }

    /// The user or role under the name that it had when it was contained.
    #[must_use]
    pub fn declared_principal(&self) -> Principal {
        Principal::of(&self.resource)
    }

    /// Whether it is a user that is contained, or a key of one.
    #[must_use]
    pub fn is_of_a_user(&self) -> bool {
        matches!(self.resource.kind, ResourceKind::IamUser | ResourceKind::AccessKey)
    }

    /// The unique id of the contained user, once something is on record.
    #[must_use]
    pub fn user_id(&self) -> Option<String> {
        match self.resource.kind {
            ResourceKind::IamUser => deny_all::recorded_id(self),
            ResourceKind::AccessKey if !self.original.is_empty() => self.resource.user.as_ref().map(|u| u.id.clone()),
            _ => None,
        }
    }

    /// The unique id of the contained user or role, where it is on record.
    #[must_use]
    pub fn principal_id(&self) -> Option<String> {
        match self.resource.kind {
            ResourceKind::IamRole => deny_all::recorded_id(self),
            _ => self.user_id(),
        }
    }

    /// Of an access key: why this user is not its user any more, though it has that user's name.
    #[must_use]
    pub fn another_user(&self, user: &Identity) -> Option<String> {
        let KeyUser { name, id } = self.resource.user.as_ref()?;
        (*id != user.id).then(|| {
            format!(
                "user {name} was deleted and made again, or renamed ({id} is now {}): it has no {}",
                user.id, self.resource
            )
        })
    }

    /// The region and the id of the instance that is contained.
    #[must_use]
    pub fn instance(&self) -> (&str, &str) {
        (self.resource.region.as_deref().unwrap_or_default(), &self.resource.id)
    }

    /// What is recorded under that key; None where nothing is, or where it cannot be read.
    #[must_use]
    pub fn recorded<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.original.get(key).and_then(|text| serde_json::from_str(text).ok())
    }

    /// Whether it is on record that an action's original is not known, which outlives the look that showed it, and nobody said
    /// it since.
    #[must_use]
    pub fn is_unknown(&self, action: &str) -> bool {
        self.is_noted_unknown(action) && !self.resolved.contains(action)
    }

    /// Whether it is on record that an action's original was not known, whatever was said since.
    #[must_use]
    pub fn is_noted_unknown(&self, action: &str) -> bool {
        self.original.contains_key(&unknown_key(action))
    }

    /// Whether anything is recorded for an action.
    #[must_use]
    pub fn has_record_of(&self, action: &str) -> bool {
        self.records_of(action).next().is_some()
    }

    /// Whether a person keeps what was told as a conflict with these words, by whichever action, or what this one had come to after
    /// that. One decision is for all conflicts, and may be one about another: what was never told was never decided.
    #[must_use]
    pub fn keeps_what_was_told(&self, action: &str, words: &str) -> bool {
        let told = |a: &ActionStatus| match a.state {
            ActionState::Conflict => a.message.contains(words),
            ActionState::Released => a.name == action,
            _ => false,
        };
        self.decision == Some(OnConflict::KeepTheirs) && self.told.iter().any(told)
    }

    /// Whether a holder asks for an action.
    #[must_use]
    pub fn asks(&self, action: &str) -> bool {
        self.holders.iter().flat_map(|h| &h.actions).any(|a| name_of(a) == action)
    }

    /// Whether an Incident that is there asks for an action now. What was only retained is a decision of before.
    #[must_use]
    pub fn holds(&self, action: &str) -> bool {
        let holding = self.holders.iter().filter(|h| h.state == HolderState::Holding);
        holding.flat_map(|h| &h.actions).any(|a| name_of(a) == action)
    }

    /// Whether an Incident that is there holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.holders.iter().any(|h| h.state == HolderState::Holding)
    }

    /// Whether an action is to be in force: a holder asks for it, or it is on record from when one did.
    #[must_use]
    pub fn wants(&self, action: &str) -> bool {
        self.asks(action) || self.has_record_of(action)
    }

    /// Whether it is on record that the instance was seen to end: AWS shows it for about an hour more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.original.contains_key(ENDED)
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

    /// Whether what is on record of an interface's conversion window is from before; records count whole seconds,
    /// and a closed window took three.
    #[must_use]
    pub fn converted_before(&self, interface: &str, at: Timestamp) -> bool {
        let second = |c: &Conversion| c.since.0.as_second().cmp(&at.as_second());
        let before = |c: &Conversion| second(c).is_lt() || (second(c).is_eq() && c.state == ConversionState::Closed);
        self.conversions.iter().any(|c| c.interface_id == interface && before(c))
    }
}

/// When a Quarantine was made: an imported one, where it was exported. The earlier time counts, so that whoever writes the annotation
/// makes a containment older at most. Then more credentials count as made during it, and fewer come back.
#[must_use]
pub fn contained_since(quarantine: &Quarantine) -> Option<Timestamp> {
    let made = quarantine.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let exported = quarantine.annotations().get(CONTAINED_SINCE).and_then(|text| text.parse().ok());
    made.into_iter().chain(exported).min()
}

/// What all who hold it, and all that let go, give back beyond the default.
#[must_use]
pub fn release_of(spec: &QuarantineSpec) -> ReleasePolicy {
    merge_release(spec.holders.iter().map(|h| &h.release).chain(&spec.let_go)).unwrap_or_default()
}

/// What everybody gives back beyond the default; None where there is nobody.
#[must_use]
pub fn merge_release<'a>(all: impl Iterator<Item = &'a ReleasePolicy>) -> Option<ReleasePolicy> {
    all.cloned().reduce(|a, b| ReleasePolicy {
        reactivate_access_keys: a.reactivate_access_keys && b.reactivate_access_keys,
        reactivate_credentials: a.reactivate_credentials && b.reactivate_credentials,
        rejoin_auto_scaling: a.rejoin_auto_scaling && b.rejoin_auto_scaling,
    })
}

/// The action that a key of the record is of.
#[must_use]
pub fn action_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// Under this key it is noted that what was there before is not known. So a release looks at the action too, and asks a person
/// instead of finding nothing to give back.
#[must_use]
pub fn unknown_key(action: &str) -> String {
    format!("{action}/unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::example;

    /// Whether keys and instances come back where the last to let go, and those before, said so.
    fn all_comes_back(let_go: Option<bool>, holding: &[bool]) -> bool {
        let policy =
            |back| ReleasePolicy { reactivate_access_keys: back, reactivate_credentials: back, rejoin_auto_scaling: back };
        let mut quarantine = example::quarantine(example::instance(), vec![]);
        quarantine.spec.let_go = let_go.map(policy);
        let holder = |(n, back): (usize, &bool)| firebreak_crds::Holder {
            release: policy(*back),
            ..example::holder(&format!("u-{n}"), "inc", vec![])
        };
        quarantine.spec.holders = holding.iter().enumerate().map(holder).collect();
        let merged = Case::of(&quarantine, "aws", Timestamp::UNIX_EPOCH).release;
        let others = [merged.reactivate_credentials, merged.rejoin_auto_scaling];
        assert_eq!(others, [merged.reactivate_access_keys; 2]);
        merged.reactivate_access_keys
    }

    #[test]
    fn an_imported_quarantine_is_as_old_as_the_one_that_was_exported_and_never_younger() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut quarantine = example::quarantine(example::user(), vec![]);
        quarantine.metadata.creation_timestamp = Some(crate::clock::time(at("2026-03-02T12:00:00Z")));
        for (annotation, since) in [
            (None, "2026-03-02T12:00:00Z"),
            (Some("2026-03-01T12:00:00Z"), "2026-03-01T12:00:00Z"),
            (Some("2026-03-03T12:00:00Z"), "2026-03-02T12:00:00Z"),
            (Some("yesterday"), "2026-03-02T12:00:00Z"),
        ] {
            let annotations = annotation.map(|text| [(CONTAINED_SINCE.to_owned(), text.to_owned())].into());
            quarantine.metadata.annotations = annotations;
            assert_eq!(Case::of(&quarantine, "aws", at("2026-03-04T12:00:00Z")).since, at(since), "{annotation:?}");
        }
    }

    #[test]
    fn who_wants_access_keys_back_does_not_say_so_of_other_credentials() {
        let keys = ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() };
        let credentials = ReleasePolicy { reactivate_credentials: true, ..ReleasePolicy::default() };
        assert_eq!(merge_release([&keys, &credentials].into_iter()), Some(ReleasePolicy::default()));
        assert_eq!(merge_release([&credentials, &credentials].into_iter()), Some(credentials.clone()));
    }

    #[test]
    fn more_than_the_default_is_given_back_only_if_everyone_said_so_who_held() {
        assert!(!all_comes_back(None, &[]));
        assert!(all_comes_back(Some(true), &[]));
        assert!(all_comes_back(Some(true), &[true]));
        assert!(!all_comes_back(Some(false), &[]));
        assert!(!all_comes_back(Some(false), &[true]));
        assert!(!all_comes_back(Some(true), &[true, false]));
    }
}
