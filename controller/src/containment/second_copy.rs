//! The second copy of a Quarantine's record, in tags of the resource that it describes: what a new cluster begins with where
//! the first is lost.
//!
//! Tags belong to whoever may write them, so a copy is believed only with a MAC over the account, the resource, its unique id,
//! the Incidents, the time since when, and the record itself. The key is kept outside the account. `adopt.rs` says what else a
//! copy must meet; docs/adoption.md, what none of this protects against.

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use firebreak_crds::Resource;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::case::{Case, unknown_key};

/// The tags of a copy: this with a number after it, from 0 without a gap.
pub const PREFIX: &str = "firebreak.dev/original-";
/// Keys of the record that speak of copies, not of AWS: they are in none.
pub(super) const OURS: &str = "copy/";
/// The longest value of a tag, of EC2 and of IAM.
/// <https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html#tag-conventions>
const CHUNK: usize = 256;
/// So many tags a resource can have, AWS's own not counted.
const TAGS: usize = 50;
/// What is signed begins with it: a MAC of this key over anything else is none of a copy.
const DOMAIN: &str = "firebreak.dev/original/v1";
const MAC: usize = 32;
/// A key that can be guessed is none.
const SHORTEST_KEY: usize = 32;

/// The keys: the first signs, all verify.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    keys: Vec<Vec<u8>>,
    /// Why there are none.
    problem: String,
}

/// Never shows a key.
impl Debug for Keys {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

impl Keys {
    /// The keys of a file; none where there is no file, and then `problem` says why.
    pub async fn read(file: Option<&Path>) -> Self {
        let Some(file) = file else { return Self::none("the controller was given no MAC key".into()) };
        match tokio::fs::read_to_string(file).await {
            Ok(text) => Self::parse(&text).unwrap_or_else(|why| Self::none(format!("{}: {why}", file.display()))),
            Err(error) => Self::none(format!("the MAC keys cannot be read: {}: {error}", file.display())),
        }
    }

    fn none(problem: String) -> Self {
        Self { keys: Vec::new(), problem }
    }

    /// One key a line; empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    /// When there is none, or one is too short to be any good. Which, is said by its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let lines: Vec<_> = lines.collect();
        if let Some((n, _)) = lines.iter().find(|(_, l)| l.len() < SHORTEST_KEY) {
            return Err(format!("the key in line {} has fewer than {SHORTEST_KEY} characters", n + 1));
        }
        if lines.is_empty() {
            return Err("there is no key in it".into());
        }
        let keys = lines.into_iter().map(|(_, line)| line.as_bytes().to_vec()).collect();
        Ok(Self { keys, problem: String::new() })
    }

    /// Why there are no keys; None where there are.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.keys.is_empty().then_some(self.problem.as_str())
    }
}

/// A record as it is copied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondCopy {
    /// Since when the resource is contained.
    pub since: Timestamp,
    /// The Incidents that held it: uid, to namespace and name.
    pub incidents: BTreeMap<String, String>,
    /// The record.
    pub original: BTreeMap<String, Value>,
}

/// Why a copy is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// No tag of it.
    #[error("there is no copy of the original in its tags")]
    Absent,
    /// Some of its tags are missing, or are too many.
    #[error("the copy of the original in its tags is not whole")]
    NotWhole,
    /// It was made by somebody else, of something else, or changed.
    #[error(
        "the copy of the original in its tags has no valid MAC: it was changed, is of another resource, or of a key that is not given to this controller"
    )]
    Forged,
    /// It cannot be checked.
    #[error("the copy of the original in its tags cannot be checked: {0}")]
    NoKey(String),
}

impl SecondCopy {
    /// The copy of a record as it stands.
    #[must_use]
    pub fn of(case: &Case) -> Self {
        let copied = |key: &str| !key.starts_with(OURS) && !key.ends_with(&unknown_key(""));
        let value = |text: &String| serde_json::from_str(text).unwrap_or_default();
        let recorded = case.stored.iter().filter_map(|key| Some((key, case.original.get(key)?)));
        let incident = |h: &firebreak_crds::Holder| (h.uid.clone(), format!("{}/{}", h.namespace, h.name));
        Self {
            since: case.since,
            incidents: case.holders.iter().map(incident).collect(),
            original: recorded.filter(|(k, _)| copied(k)).map(|(k, text)| (k.clone(), value(text))).collect(),
        }
    }

    /// The tags that hold it; None without a key. `unique`: AWS's unique id of the resource.
    #[must_use]
    pub fn tags(&self, resource: &Resource, unique: &str, keys: &Keys) -> Option<BTreeMap<String, String>> {
        let body = self.body();
        let mac = mac(keys.keys.first()?, resource, unique, &body).finalize().into_bytes();
        let text = URL_SAFE.encode([&mac[..], &body].concat());
        let chunks = text.as_bytes().chunks(CHUNK).map(|c| String::from_utf8_lossy(c).into_owned());
        Some(chunks.enumerate().map(|(n, chunk)| (format!("{PREFIX}{n}"), chunk)).collect())
    }

    /// What is to be copied, in short: another where the record, the Incidents or the key that signs is another. None without a
    /// key.
    #[must_use]
    pub fn digest(&self, keys: &Keys) -> Option<String> {
        let key = Sha256::new().chain_update(DOMAIN).chain_update(keys.keys.first()?).finalize();
        Some(hex::encode(Sha256::new().chain_update(key).chain_update(self.body()).finalize()))
    }

    /// The copy that a resource's tags hold.
    ///
    /// # Errors
    /// When it is not to be believed.
    pub fn from_tags(
        tags: &BTreeMap<String, String>,
        resource: &Resource,
        unique: &str,
        keys: &Keys,
    ) -> Result<Self, Disbelief> {
        let text = joined(tags)?;
        if let Some(problem) = keys.problem() {
            return Err(Disbelief::NoKey(problem.to_owned()));
        }
        let bytes = URL_SAFE.decode(text).map_err(|_| Disbelief::Forged)?;
        let (sent, body) = bytes.split_at_checked(MAC).ok_or(Disbelief::NotWhole)?;
        let signed = |key: &Vec<u8>| mac(key, resource, unique, body).verify_slice(sent).is_ok();
        if !keys.keys.iter().any(signed) {
            return Err(Disbelief::Forged);
        }
        serde_json::from_slice(body).map_err(|_| Disbelief::NotWhole) // of a version that this one does not know
    }

    fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Whether a tag is one of a copy, whole or not.
#[must_use]
pub fn is_of_copy(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// Whether the marks fit beside everybody else's tags.
#[must_use]
pub fn fit(tags: &BTreeMap<String, String>, marks: &[&str]) -> bool {
    theirs(tags, marks) + marks.len() <= TAGS
}

/// How many tags a copy can take, beside everybody else's and our marks.
#[must_use]
pub fn room(tags: &BTreeMap<String, String>, marks: &[&str]) -> usize {
    TAGS.saturating_sub(theirs(tags, marks) + marks.len())
}

fn theirs(tags: &BTreeMap<String, String>, marks: &[&str]) -> usize {
    tags.keys().filter(|k| !k.starts_with("aws:") && !is_of_copy(k) && !marks.contains(&k.as_str())).count()
}

/// The chunks in their order. Any tag of a copy that is not the next one is somebody's.
fn joined(tags: &BTreeMap<String, String>) -> Result<String, Disbelief> {
    let count = tags.keys().filter(|k| is_of_copy(k)).count();
    let chunks = (0..count).map(|n| tags.get(&format!("{PREFIX}{n}")).map(String::as_str));
    let chunks: Vec<&str> = chunks.collect::<Option<_>>().ok_or(Disbelief::NotWhole)?;
    if chunks.is_empty() { Err(Disbelief::Absent) } else { Ok(chunks.concat()) }
}

/// Each field with its length before it: no two different lists of fields are one text.
fn mac(key: &[u8], resource: &Resource, unique: &str, body: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    let arn = resource.arn();
    for field in [DOMAIN.as_bytes(), resource.account_id.as_bytes(), arn.as_bytes(), unique.as_bytes(), body] {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac
}

#[cfg(test)]
#[path = "second_copy_tests.rs"]
mod tests;
