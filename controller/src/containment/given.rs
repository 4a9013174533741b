//! What was there before, as a person says it in `spec.release.original`: for what the record does not know. What is on record
//! wins. While any of it cannot be read, none of it counts, and that is told: a release must not be done by halves over a typo.

use std::collections::BTreeMap;

use firebreak_crds::Quarantine;
use serde::de::DeserializeOwned;

use super::wanted::check_original;

/// The entries, where all can be read.
#[must_use]
pub fn originals(quarantine: &Quarantine) -> BTreeMap<String, String> {
    if all(quarantine).any(|(key, text)| check_original(key, text).is_err()) {
        return BTreeMap::new();
    }
    all(quarantine).map(|(key, text)| (key.to_owned(), text.to_owned())).collect()
}

/// What is wrong: the field, and why.
#[must_use]
pub fn problems(quarantine: &Quarantine) -> Vec<String> {
    let problem = |(key, text): (&str, &str)| {
        let why = check_original(key, text).err()?;
        Some(format!("spec.release.original[{key:?}]: {why}"))
    };
    all(quarantine).filter_map(problem).collect()
}

fn all(quarantine: &Quarantine) -> impl Iterator<Item = (&str, &str)> {
    let given = quarantine.spec.release.as_ref().and_then(|r| r.original.as_ref());
    given.into_iter().flatten().map(|(key, text)| (key.as_str(), text.0.as_str()))
}

/// Whether a text is what an action records under one of its keys.
///
/// # Errors
/// Why not, in words for whoever wrote it.
pub fn reads<T: DeserializeOwned>(text: &str) -> Result<(), String> {
    serde_json::from_str::<T>(text).map(drop).map_err(|error| error.to_string())
}

/// An action records nothing under such a key.
///
/// # Errors
/// Always.
pub fn no_such_key() -> Result<(), String> {
    Err("the action records nothing under this key".into())
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
