//! What is known of the cluster: one reflector per kind, shared by all controllers.
//!
//! A store may be behind, and its silence proves nothing: whoever acts on "there is none" asks the API server first.

use std::collections::HashMap;
use std::fmt::Debug;

use firebreak_crds::{
    Approval, AwsAccount, ContainmentPolicy, Evidence, Incident, Quarantine, Resource as AwsResource, quarantine_name,
};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tracing::warn;

use crate::controllers::crd_is_gone;

/// The stores of all kinds.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Stores {
    pub accounts: Store<AwsAccount>,
    pub policies: Store<ContainmentPolicy>,
    pub incidents: Store<Incident>,
    pub quarantines: Store<Quarantine>,
    pub evidence: Store<Evidence>,
    pub approvals: Store<Approval>,
    pub namespaces: Store<Namespace>,
}

impl Stores {
    /// The object of that name, where the kind is cluster-scoped.
    pub fn named<K>(store: &Store<K>, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        store.get(&ObjectRef::new(name))
    }

    /// The Quarantine of exactly that resource.
    pub fn quarantine_of(&self, resource: &AwsResource) -> Option<Arc<Quarantine>> {
        Self::named(&self.quarantines, &quarantine_name(resource)).filter(|q| q.spec.resource == *resource)
    }

    /// Returns once every store holds what the API server listed.
    ///
    /// # Errors
    /// When a watch ended before that.
    pub async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.accounts.wait_until_ready().await?;
        self.policies.wait_until_ready().await?;
        self.incidents.wait_until_ready().await?;
        self.quarantines.wait_until_ready().await?;
        self.evidence.wait_until_ready().await?;
        self.approvals.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await
    }
}

/// Keeps a store up to date, and tells of every object that changed or went, also of those that went while the watch was
/// broken. One object that cannot be read is one warning, not a dead watch.
pub async fn reflect<K>(client: Client, mut writer: Writer<K>, changed: impl Fn(&Arc<K>))
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let store = writer.as_reader();
    let mut before: HashMap<ObjectRef<K>, Arc<K>> = HashMap::new();
    let mut events = Box::pin(readable(client.clone(), watch(Api::all(client), watcher::Config::default())));
    while let Some(event) = events.next().await {
        if matches!(event, Event::Init) {
            before = store.state().into_iter().map(|o| (ObjectRef::from_obj(&*o), o)).collect();
        }
        writer.apply_watcher_event(&event);
        match event {
            Event::Apply(object) | Event::Delete(object) => changed(&Arc::new(object)),
            Event::InitDone => {
                let now = store.state();
                now.iter().for_each(|o| drop(before.remove(&ObjectRef::from_obj(&**o))));
                now.iter().chain(before.values()).for_each(&changed);
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }
}

fn readable<K>(
    client: Client,
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>>,
) -> impl Stream<Item = Event<K>>
where
    K: Resource<DynamicType = ()>,
{
    let opened = move |event| {
        let client = client.clone();
        async move { stream::iter(open(&client, event).await) }
    };
    events.default_backoff().then(opened).flatten()
}

async fn open<K>(client: &Client, event: watcher::Result<Event<DeserializeGuard<K>>>) -> Vec<Event<K>>
where
    K: Resource<DynamicType = ()>,
{
    let object = |guard: DeserializeGuard<K>, as_event: fn(K) -> Event<K>| match guard.0 {
        Ok(object) => vec![as_event(object)],
        Err(error) => {
            warn!(kind = %K::kind(&()), name = error.metadata.name.as_deref().unwrap_or_default(), %error, "cannot be read");
            Vec::new()
        }
    };
    match event {
        Ok(Event::Apply(guard)) => object(guard, Event::Apply),
        Ok(Event::Delete(guard)) => object(guard, Event::Delete),
        Ok(Event::InitApply(guard)) => object(guard, Event::InitApply),
        Ok(Event::Init) => vec![Event::Init],
        Ok(Event::InitDone) => vec![Event::InitDone],
        Err(error) if is_gone::<K>(client).await => {
            warn!(kind = %K::kind(&()), %error, "its CRD is missing, so there is none; the watch is begun again");
            vec![Event::Init, Event::InitDone]
        }
        Err(error) => {
            warn!(kind = %K::kind(&()), %error, "the watch broke; it is begun again");
            Vec::new()
        }
    }
}

/// Whether the kind's CRD is not there: then there is none of the kind, and nobody waits for its list.
async fn is_gone<K: Resource<DynamicType = ()>>(client: &Client) -> bool {
    !K::group(&()).is_empty() && matches!(crd_is_gone::<K>(client).await, Ok(true))
}
