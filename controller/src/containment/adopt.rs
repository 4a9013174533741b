//! Adoption: where a Quarantine without a record meets a resource that carries a copy of one, the copy becomes its record, before
//! anything else is recorded. So a new cluster gives back what was there before the first, and never what the first put there.
//!
//! A copy is believed only if its MAC is right (`second_copy.rs`), an Incident that holds is one that it was made for, and AWS shows
//! the resource as contained. Else the originals stay unknown: the resource stays contained, and a person decides.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{Holder, Quarantine};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::action::Action as _;
use super::case::{Case, action_of, unknown_key};
use super::deny_all;
use super::document;
use super::isolate_network::{Isolation, groups_on_record};
use super::ledger::{Ledger, LedgerError};
use super::revoke_sessions;
use super::second_copy::{Keys, OURS, SecondCopy, is_of_copy};
use super::tag_resource::{self, INCIDENT};
use super::terminate_sessions::SystemsManager;
use super::wanted::{check_original, name_of, wanted};
use crate::aws::{AwsError, SEALED_TRUST, Session};

/// Under this key it is recorded where the record came from.
const ADOPTED: &str = "copy/adopted";
/// Under this key it is noted that a resource whose copy was not believed was contained when it was met, before this record touched
/// it. The key that verifies may come later; then this still tells such a copy from one that was put there for a later containment.
const MET: &str = "copy/met-contained";

/// Where an adopted record came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Since when the resource was contained.
    pub since: Timestamp,
    /// The Incidents that held it, by namespace and name.
    pub incidents: BTreeSet<String>,
    /// The actions of which the copy knew the original.
    pub actions: BTreeSet<String>,
}

impl Adopted {
    /// Where the record of a Quarantine came from; None where it is its own.
    #[must_use]
    pub fn of(quarantine: &Quarantine) -> Option<Self> {
        let text = quarantine.spec.original.as_ref()?.get(ADOPTED)?;
        serde_json::from_str(&text.0).ok()
    }
}

impl std::fmt::Display for Adopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let incidents: Vec<&str> = self.incidents.iter().map(String::as_str).collect();
        write!(f, "the original was adopted from its tags: recorded since {} for {}", self.since, incidents.join(", "))
    }
}

/// What came of looking at a copy in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopting {
    /// There is nothing to adopt, or it is not believed.
    Nothing,
    /// It is the record now.
    Done,
    /// It could not be stored: nothing may be changed in AWS.
    NotStored(LedgerError),
}

/// The adoption of one pass: whoever looks first at the resource does it for all.
pub struct Adoption {
    keys: Keys,
    outcome: OnceCell<Outcome>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Refused(String),
    Stored(Result<Adopted, LedgerError>),
}

impl Adoption {
    /// With the keys that verify.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, outcome: OnceCell::new() }
    }

    /// What was adopted in this pass.
    #[must_use]
    pub fn done(&self) -> Option<&Adopted> {
        match self.outcome.get() {
            Some(Outcome::Stored(Ok(adopted))) => Some(adopted),
            _ => None,
        }
    }

    /// Why a copy was not believed, or that there is none though the resource is marked.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        match self.outcome.get() {
            Some(Outcome::Refused(why)) => Some(why),
            _ => None,
        }
    }

    /// Adopts the copy that these tags hold, if it is one to be believed and there is no record yet.
    ///
    /// # Errors
    /// When AWS cannot be asked what it takes to believe it: then nothing is recorded in this pass.
    pub async fn consider(
        &self,
        session: &Session,
        ledger: &Ledger,
        tags: &BTreeMap<String, String>,
    ) -> Result<Adopting, AwsError> {
        let quarantine = ledger.latest().await;
        if self.outcome.get().is_none() && !is_met_contained(&quarantine, tags) {
            return Ok(Adopting::Nothing);
        }
        let outcome = self.outcome.get_or_try_init(|| Box::pin(self.decide(session, ledger, &quarantine, tags))).await?;
        Ok(match outcome {
            Outcome::Refused(_) => Adopting::Nothing,
            Outcome::Stored(Ok(_)) => Adopting::Done,
            Outcome::Stored(Err(error)) => Adopting::NotStored(error.clone()),
        })
    }

    async fn decide(
        &self,
        session: &Session,
        ledger: &Ledger,
        quarantine: &Quarantine,
        tags: &BTreeMap<String, String>,
    ) -> Result<Outcome, AwsError> {
        let case = Case::of(quarantine, &session.partition, session.now());
        match self.believed(session, &case, tags).await? {
            Ok(copy) => {
                let stored = ledger.store(record(&case, &copy), BTreeMap::new()).await;
                Ok(Outcome::Stored(stored.map(|()| adopted(&copy))))
            }
            Err(why) => {
                let noted = ledger.store(met(session, &case).await, BTreeMap::new()).await;
                Ok(noted.map_or_else(|error| Outcome::Stored(Err(error)), |()| Outcome::Refused(why)))
            }
        }
    }

    /// The copy, or why it is not believed.
    async fn believed(
        &self,
        session: &Session,
        case: &Case,
        tags: &BTreeMap<String, String>,
    ) -> Result<Result<SecondCopy, String>, AwsError> {
        let Some(unique) = unique(session, case).await? else { return Ok(Err("AWS does not show the resource".into())) };
        let copy = match SecondCopy::from_tags(tags, &case.resource, &unique, &self.keys) {
            Ok(copy) => copy,
            Err(disbelief) => return Ok(Err(disbelief.to_string())),
        };
        if let Some(why) = objection(case, &copy) {
            return Ok(Err(why));
        }
        let another =
            "AWS does not show it as that copy says that it was contained: an older copy may have been put there again";
        Ok(if Box::pin(is_contained(session, case, &copy)).await? { Ok(copy) } else { Err(another.into()) })
    }
}

/// What to note before this record touches anything. Where AWS cannot be asked, nothing: a copy is then believed at once or never,
/// but the containment does not wait.
async fn met(session: &Session, case: &Case) -> BTreeMap<String, Value> {
    if !case.stored.is_empty() {
        return BTreeMap::new();
    }
    let shown = match case.resource.region.as_deref() {
        Some(region) => in_our_groups(session, region, &case.resource.id, None).await,
        None => Box::pin(is_denied(session, case)).await,
    };
    let shown = shown.unwrap_or_else(|error| {
        tracing::warn!(resource = %case.resource, %error, "a copy of the original that is not believed now is not later");
        false
    });
    let now = || (MET.to_owned(), serde_json::to_value(case.now).unwrap_or_default());
    shown.then(now).into_iter().collect()
}

/// Whether the resource carries marks that this record knows nothing of.
fn is_met_contained(quarantine: &Quarantine, tags: &BTreeMap<String, String>) -> bool {
    let marked = tags.keys().any(|k| k == INCIDENT || is_of_copy(k));
    let recorded = |key: &str| quarantine.spec.original.as_ref().is_some_and(|o| o.contains_key(key));
    let its_own = quarantine.spec.resource.kind.has_tags(); // else they are those of the user or role that it is of
    its_own && marked && !recorded(tag_resource::NAME) && !recorded(ADOPTED)
}

/// AWS's unique id: one made again under the same name is another.
async fn unique(session: &Session, case: &Case) -> Result<Option<String>, AwsError> {
    if case.resource.region.is_some() {
        return Ok(Some(case.resource.id.clone()));
    }
    Ok(session.identity(&case.principal()).await?.map(|i| i.id))
}

/// What speaks against a copy whose MAC is right.
fn objection(case: &Case, copy: &SecondCopy) -> Option<String> {
    if comes_late(case, copy) {
        return Some("the copy of the original in its tags comes too late: something was recorded already".into());
    }
    let names: BTreeSet<&String> = copy.incidents.values().collect();
    let held_for = |h: &Holder| names.contains(&format!("{}/{}", h.namespace, h.name));
    if !case.holders.iter().any(held_for) {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        return Some(format!(
            "the copy of the original in its tags was made for {}: declare that Incident to adopt it",
            names.join(", ")
        ));
    }
    (!copy.original.contains_key(tag_resource::NAME))
        .then(|| "the copy of the original in its tags does not know what the tags were".into())
}

/// Whether this record says already what was there, or touched what was not contained when it was met. What it noted of its own,
/// such as the cutoffs of sessions, says nothing of that.
fn comes_late(case: &Case, copy: &SecondCopy) -> bool {
    let says = |key: &&String| !key.ends_with(&unknown_key("")) && !key.starts_with(OURS);
    let speaks_against = |key: &String| {
        let text = case.original.get(key).map_or("", String::as_str);
        let copied = copy.original.get(key).map(|value| Some(value) != serde_json::from_str(text).ok().as_ref());
        copied.unwrap_or_else(|| check_original(key, text).is_ok())
    };
    let touched = !case.stored.is_empty() && !case.stored.contains(MET);
    touched || case.stored.iter().filter(says).any(speaks_against)
}

/// Whether AWS shows what Firebreak puts there, by one of the actions on record at least: somebody may have undone others while
/// nobody looked.
async fn is_contained(session: &Session, case: &Case, copy: &SecondCopy) -> Result<bool, AwsError> {
    let of = |action: &str| copy.original.keys().any(|key| action_of(key) == action);
    let shown = match case.resource.region.as_deref() {
        Some(region) if of(Isolation::NAME) => in_our_groups(session, region, &case.resource.id, Some(copy)).await?,
        None if DENIES.iter().any(|action| of(action)) => Box::pin(is_denied(session, case)).await?,
        _ => return anything_in_force(session, case, copy).await,
    };
    Ok(shown)
}

/// The actions on users and roles that leave what only Firebreak puts there.
const DENIES: [&str; 3] = ["denyAll", "revokeSessions", "sealTrustPolicy"];

/// In groups that Firebreak makes, or that a copy names as a policy's own.
async fn in_our_groups(session: &Session, region: &str, id: &str, copy: Option<&SecondCopy>) -> Result<bool, AwsError> {
    let (interfaces, groups) = futures::join!(session.interfaces(region, id), session.our_groups(region));
    let mut ours: BTreeSet<String> = groups?.into_iter().map(|g| g.id).collect();
    let named = copy.iter().flat_map(|copy| &copy.original);
    ours.extend(groups_on_record(named.map(|(key, value)| (key, value.to_string()))));
    Ok(interfaces?.iter().any(|i| i.groups.iter().any(|g| ours.contains(g))))
}

async fn is_denied(session: &Session, case: &Case) -> Result<bool, AwsError> {
    let principal = case.principal();
    let reads = futures::join!(
        session.identity(&principal),
        session.attached_policies(&principal),
        session.inline_policy(&principal, deny_all::POLICY),
        session.inline_policy(&principal, revoke_sessions::POLICY)
    );
    let (identity, attached, inline, revoked) = (reads.0?, reads.1?, reads.2?, reads.3?);
    let deny = deny_all::aws_deny_all(case);
    let on = |i: &crate::aws::Identity| {
        i.boundary.as_ref() == Some(&deny) || i.trust.as_deref().is_some_and(|text| document::equal(text, SEALED_TRUST))
    };
    Ok(identity.as_ref().is_some_and(on) || attached.contains(&deny) || inline.is_some() || revoked.is_some())
}

/// For what looks the same whoever did it: an action with nothing left to do. No session that is open says nothing of one.
async fn anything_in_force(session: &Session, case: &Case, copy: &SecondCopy) -> Result<bool, AwsError> {
    let text = |(key, value): (&String, &Value)| (key.clone(), value.to_string());
    let as_adopted = Case { original: copy.original.iter().map(text).collect(), since: copy.since, ..case.clone() };
    for action in wanted(&case.holders, copy.original.keys()) {
        let run = action.dry_run(session, &as_adopted).await?;
        let tells = action.name() != SystemsManager::NAME && run.problem.is_none();
        if tells && run.calls.is_empty() && copy.original.keys().any(|key| action_of(key) == action.name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is stored: the record, where it is from, and of what is asked for and is not in it that it is not known. It may have been
/// done after this copy was made.
fn record(case: &Case, copy: &SecondCopy) -> BTreeMap<String, Value> {
    let adopted = adopted(copy);
    let asked: BTreeSet<&str> = case.holders.iter().flat_map(|h| &h.actions).map(name_of).collect();
    let lost = asked.into_iter().filter(|action| !adopted.actions.contains(*action)).map(unknown_key);
    let now = serde_json::to_value(case.now).unwrap_or_default();
    let mut record: BTreeMap<String, Value> = copy.original.clone();
    record.extend(lost.filter(|key| !case.stored.contains(key)).map(|key| (key, now.clone())));
    record.insert(ADOPTED.into(), serde_json::to_value(adopted).unwrap_or_default());
    record.retain(|key, _| key == ADOPTED || !key.starts_with(OURS));
    record
}

fn adopted(copy: &SecondCopy) -> Adopted {
    let actions = copy.original.keys().map(|key| action_of(key).to_owned()).collect();
    Adopted { since: copy.since, incidents: copy.incidents.values().cloned().collect(), actions }
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
