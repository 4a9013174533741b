//! Several Quarantines of one IAM user: the user's own, and those of access keys of it. Each keeps what it was asked to keep, and
//! none gives back what another holds.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use firebreak_crds::{Quarantine, ReleasePolicy, ResourceKind};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;

use super::case::{contained_since, release_of};
use super::wanted::{Wanted, wanted};
use crate::aws::Principal;
use crate::controllers::to_be_released;

/// Another Quarantine of the same user.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Its name.
    pub name: String,
    /// When it began; None where nobody holds it any more.
    pub held_since: Option<Timestamp>,
    /// The access key that it is of; None where it is of the whole user.
    pub key: Option<String>,
    /// The names of the actions that it keeps in force.
    pub actions: Vec<&'static str>,
    /// What those who hold it, or have let go, give back beyond the default.
    pub release: ReleasePolicy,
    /// What it has on record.
    pub original: BTreeMap<String, String>,
}

impl Beside {
    /// Whether it keeps that credential off: while somebody holds it, and then too, unless it gives such credentials back.
    #[must_use]
    pub fn keeps_off(&self, action: &str, id: &str, comes_back: impl Fn(&ReleasePolicy) -> bool) -> bool {
        let keeps = self.actions.contains(&action) && self.is_about(id);
        keeps && (self.held_since.is_some() || !comes_back(&self.release))
    }

    /// The access key that both it and this Quarantine are about; None for two keys.
    #[must_use]
    pub fn shared_key<'a>(&'a self, quarantine: &'a Quarantine) -> Option<&'a str> {
        match (key_of(quarantine), self.key.as_deref()) {
            (Some(_), Some(_)) => None,
            (mine, theirs) => mine.or(theirs),
        }
    }

    /// Whether it is of the whole user, or of this access key.
    #[must_use]
    pub fn is_about(&self, id: &str) -> bool {
        self.key.as_deref().is_none_or(|key| key == id)
    }

    /// What it has on record under that key.
    #[must_use]
    pub fn recorded<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.original.get(key).and_then(|text| serde_json::from_str(text).ok())
    }
}

/// The other Quarantines of the same user among all, who are asked for only where there can be any.
#[must_use]
pub fn beside<Q: Borrow<Quarantine>>(quarantine: &Quarantine, all: impl FnOnce() -> Vec<Q>) -> Vec<Beside> {
    let mine = &quarantine.spec.resource;
    if !is_of_a_user(quarantine) {
        return Vec::new();
    }
    let same_user = |q: &&Quarantine| {
        let theirs = &q.spec.resource;
        is_of_a_user(q) && theirs.account_id == mine.account_id && Principal::of(theirs) == Principal::of(mine)
    };
    let all = all();
    let others = all.iter().map(Borrow::borrow).filter(same_user);
    others.filter(|q| q.name_any() != quarantine.name_any()).map(of).collect()
}

/// Whether it keeps access keys off: all of its user, or the one that it is of.
#[must_use]
pub fn keeps_keys_off(quarantine: &Quarantine) -> bool {
    kept(quarantine).iter().any(|w| matches!(w, Wanted::DeactivateAccessKeys(_)))
}

fn kept(quarantine: &Quarantine) -> Vec<Wanted> {
    wanted(&quarantine.spec.holders, quarantine.spec.original.iter().flat_map(|o| o.keys()))
}

fn key_of(quarantine: &Quarantine) -> Option<&str> {
    let resource = &quarantine.spec.resource;
    (resource.kind == ResourceKind::AccessKey).then_some(&*resource.id)
}

/// Where it is recorded that an access key stays off whatever this Quarantine's holders say, since another's said so.
#[must_use]
pub fn stays_off(id: &str) -> String {
    format!("deactivateAccessKeys/stays-off-{id}")
}

fn is_of_a_user(quarantine: &Quarantine) -> bool {
    matches!(quarantine.spec.resource.kind, ResourceKind::IamUser | ResourceKind::AccessKey)
}

fn of(other: &Quarantine) -> Beside {
    let spec = &other.spec;
    let since = contained_since(other).unwrap_or(Timestamp::MIN);
    Beside {
        name: other.name_any(),
        held_since: (!to_be_released(other)).then_some(since),
        key: key_of(other).map(str::to_owned),
        actions: kept(other).iter().map(Wanted::name).collect(),
        release: release_of(spec),
        original: spec.original.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect(),
    }
}

#[cfg(test)]
#[path = "beside_tests.rs"]
mod tests;
