//! The four controllers, one per kind that is reconciled, and what they share.

pub mod account;
pub mod evidence;
pub mod incident;
pub mod quarantine;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firebreak_crds::{
    ABANDON, AwsAccount, FINALIZER, HELD_AGAIN, Holder, HolderState, Quarantine, RECONCILE_REQUESTED,
    Resource as AwsResource,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use crate::aws::{Accounts, Actor, AwsError, Class};
use crate::conditions::bounded;
use crate::events::Events;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::stores::Stores;

/// One Kubernetes call takes no longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What every reconcile has at hand.
pub struct Ctx {
    /// The API server.
    pub client: Client,
    /// What is known of the cluster.
    pub stores: Stores,
    /// Access to AWS accounts.
    pub accounts: Accounts,
    /// The only thing that changes AWS.
    pub actor: Actor,
    /// For people.
    pub events: Events,
    /// For machines.
    pub metrics: Arc<Metrics>,
    /// Between reconciles.
    pub memory: Memory,
    /// When AWS was asked who matches the selectors.
    pub looks: incident::Looks,
    /// What AWS said of access keys.
    pub keys: incident::KeyAnswers,
    /// The EC2 instance on which this process runs, where that is known.
    pub own_instance: Option<String>,
    /// How often everything that is contained is looked at.
    pub drift_interval: Duration,
    /// The file with the keys that sign copies of records. Read anew for each pass: a Secret changes under a running process.
    pub mac_key_file: Option<PathBuf>,
}

/// Why a reconcile could not end. What AWS says is no error here: it goes into conditions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else changed the object: read and plan again.
    #[error("{0} changed meanwhile")]
    Changed(String),
    /// The API server refused or did not answer.
    #[error("{doing}: {source}")]
    Kube {
        /// What was being done.
        doing: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{0}: the API server did not answer within 10 s")]
    Slow(String),
}

impl Error {
    /// When to try again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Changed(_) => Duration::from_millis(20),
            Self::Kube { .. } | Self::Slow(_) => Duration::from_secs(2),
        }
    }

    /// Whether the object went meanwhile: what followed is told by its deletion.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Kube { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 404))
    }

    /// For metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Changed(_) => "conflict",
            Self::Kube { .. } => "kubernetes",
            Self::Slow(_) => "timeout",
        }
    }
}

/// Sends one Kubernetes call, in bounded time.
///
/// # Errors
/// `Changed` on a 409.
pub async fn kube<T>(doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Error::Changed(doing.into())),
        Ok(Err(source)) => Err(Error::Kube { doing: doing.into(), source: Box::new(source) }),
        Err(_) => Err(Error::Slow(doing.into())),
    }
}

/// The same, where "there is none" is an answer.
///
/// # Errors
/// As `kube`.
pub async fn find<T>(doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<Option<T>, Error> {
    match kube(doing, call).await {
        Err(error) if error.is_gone() => Ok(None),
        answer => answer.map(Some),
    }
}

/// All objects of a kind, by a live list. Of a kind whose CRD is gone there are none, which is an answer, too.
///
/// # Errors
/// As `kube`.
pub async fn list<K>(client: &Client) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = Api::<K>::all(client.clone());
    match kube(&format!("list {}", K::plural(&())), all.list(&ListParams::default())).await {
        Ok(live) => Ok(live.items),
        Err(error) if error.is_gone() && crd_is_gone::<K>(client).await? => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether a live read says that the kind's CRD is not there.
///
/// # Errors
/// As `kube`.
pub async fn crd_is_gone<K: Resource<DynamicType = ()>>(client: &Client) -> Result<bool, Error> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("{}.{}", K::plural(&()), K::group(&()));
    Ok(find("read a CustomResourceDefinition", crds.get(&name)).await?.is_none())
}

/// Whether nobody holds it any more: no holder is left, or all that are left were `Retained`, and a person deleted it.
#[must_use]
pub fn to_be_released(quarantine: &Quarantine) -> bool {
    let deleted = quarantine.meta().deletion_timestamp.is_some();
    let over = |h: &Holder| deleted && h.state == HolderState::Retained && !held_again(quarantine, h);
    quarantine.spec.holders.iter().all(over)
}

/// Whether that hold began after a person had deleted the Quarantine, who so decided nothing about it.
#[must_use]
pub fn held_again(quarantine: &Quarantine, holder: &Holder) -> bool {
    quarantine.annotations().get(HELD_AGAIN).is_some_and(|uids| uids.split(' ').any(|uid| uid == holder.uid))
}

/// The account of a resource, where it still is the one that the resource is of. An AwsAccount is found by its name, and one that was
/// made again under that name may be of another account, which has users and roles of the same names.
///
/// # Errors
/// Where it is not there, or is another: nothing is done there, neither to contain nor to give back.
pub fn account_of<'a>(resource: &AwsResource, named: Option<&'a AwsAccount>) -> Result<&'a AwsAccount, AwsError> {
    let name = &resource.account_ref.name;
    let refused = |code: &str, message| {
        Err(AwsError { class: Class::Terminal, operation: "AwsAccount".into(), code: code.into(), message })
    };
    match named {
        None => refused("AccountNotFound", format!("AwsAccount {name} does not exist: create it again")),
        Some(account) if account.spec.account_id != resource.account_id => {
            let (ours, theirs) = (&resource.account_id, &account.spec.account_id);
            let what = format!(
                "AwsAccount {name} is account {theirs}, and {resource} is of account {ours}: nothing is done there. Give that AwsAccount another name, and create {name} for account {ours}"
            );
            refused("WrongAccount", what)
        }
        Some(account) => Ok(account),
    }
}

/// Writes the status of an object as it was read.
///
/// # Errors
/// `Changed` where the object changed since.
pub async fn write_status<K>(api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let doing = format!("write the status of {} {}", K::kind(&()), object.name_any());
    kube(&doing, api.replace_status(&object.name_any(), &PostParams::default(), object)).await
}

/// Adds or removes the finalizer, with the resourceVersion as read.
///
/// # Errors
/// `Changed` where the object changed since.
pub async fn set_finalizer<K>(api: &Api<K>, object: &K, wanted: bool) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    if object.finalizers().iter().any(|f| f == FINALIZER) == wanted {
        return Ok(object.clone());
    }
    let mut next = object.clone();
    next.finalizers_mut().retain(|f| f != FINALIZER);
    next.finalizers_mut().extend(wanted.then(|| FINALIZER.to_owned()));
    let doing = format!("{} the finalizer of {} {}", if wanted { "add" } else { "remove" }, K::kind(&()), object.name_any());
    kube(&doing, api.replace(&object.name_any(), &PostParams::default(), &next)).await
}

/// The value of the annotation that asks for a reconcile now.
#[must_use]
pub fn reconcile_requested<K: Resource>(object: &K) -> Option<String> {
    let value = object.meta().annotations.as_ref()?.get(RECONCILE_REQUESTED)?;
    Some(bounded(value.clone(), 256)) // the status has no room for more
}

/// Whether a person said, by the object's own uid, that it may go and leave AWS as it is.
#[must_use]
pub fn is_abandoned<K: Resource>(object: &K) -> bool {
    object.annotations().get(ABANDON) == object.meta().uid.as_ref()
}

/// Which of our CRDs are being deleted, by a live read: what goes with them is no decision of anybody.
///
/// # Errors
/// When the API server does not answer: then nothing is known.
pub async fn terminating_crds(client: &Client) -> Result<Vec<String>, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut terminating = Vec::new();
    for crd in firebreak_crds::crds() {
        let name = crd.name_any();
        match find("read a CustomResourceDefinition", api.get(&name)).await? {
            Some(crd) if crd.meta().deletion_timestamp.is_none() => {}
            _ => terminating.push(name),
        }
    }
    Ok(terminating)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::example;

    #[test]
    fn a_deletion_ends_what_was_retained_but_no_hold_that_began_after_it() {
        let deleted_at = crate::clock::time(example::SINCE.parse().unwrap());
        let (holding, retained) = (HolderState::Holding, HolderState::Retained);
        for (holders, deleted, again, released) in [
            (&[][..], false, None, true),
            (&[], true, Some("1"), true),
            (&[("1", retained)], false, None, false),
            (&[("1", retained)], true, None, true),
            (&[("1", retained), ("2", holding)], true, None, false),
            (&[("1", retained), ("2", holding)], true, Some("2"), false),
            (&[("1", retained), ("2", retained)], true, Some("2"), false),
            (&[("1", retained), ("2", retained)], true, Some("12 3"), true),
            (&[("1", retained)], true, Some("2"), true),
        ] {
            let of = |(uid, state): &(&str, HolderState)| Holder { state: *state, ..example::holder(uid, uid, vec![]) };
            let mut quarantine = example::quarantine(example::user(), holders.iter().map(of).collect());
            quarantine.metadata.deletion_timestamp = deleted.then(|| deleted_at.clone());
            quarantine.annotations_mut().extend(again.map(|uids| (HELD_AGAIN.to_owned(), uids.to_owned())));
            assert_eq!(to_be_released(&quarantine), released, "{holders:?} {deleted} {again:?}");
        }
    }

    #[test]
    fn an_account_of_the_same_name_is_used_only_while_it_is_the_same_account() {
        let user = example::user();
        let with = |account_id: &str| {
            let spec = firebreak_crds::AwsAccountSpec { account_id: account_id.into(), ..Default::default() };
            AwsAccount::new(&user.account_ref.name, spec)
        };
        assert!(account_of(&user, Some(&with(&user.account_id))).is_ok());
        let another = account_of(&user, Some(&with("222233334444"))).unwrap_err();
        assert_eq!((another.class, another.code.as_str()), (Class::Terminal, "WrongAccount"));
        assert!([&user.account_id, "222233334444"].iter().all(|id| another.message.contains(*id)), "{another}");
        assert_eq!(account_of(&user, None).unwrap_err().code, "AccountNotFound");
    }
}
