//! Events: what people see with `kubectl describe`. A failed event never fails a reconcile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use tracing::{info, warn};

use crate::clock;
use crate::conditions::bounded;

/// The API server refuses longer notes.
const NOTE: usize = 1000;
/// Equal events within this time are counted up, later ones are new.
const SERIES: Duration = Duration::from_mins(6);

/// Publishes events; equal ones are counted up.
///
/// Not by kube's `Recorder`: it takes events that differ only in their note for one, and keeps the first note. The second
/// thing that an attacker does would not be seen.
#[derive(Clone)]
pub struct Events {
    client: Client,
    identity: String,
    recent: Arc<Mutex<HashMap<Key, (Instant, Event)>>>,
}

/// What makes two events equal: the object's uid, the reason, the note.
type Key = (String, String, String);

impl Events {
    /// Events reported by this process.
    #[must_use]
    pub fn new(client: Client, identity: String) -> Self {
        Self { client, identity, recent: Arc::default() }
    }

    /// Something that is as it should be.
    pub async fn normal(&self, on: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish("Normal", on, reason, bounded(note.into(), NOTE)).await;
    }

    /// Something that a person should look at.
    pub async fn warning(&self, on: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish("Warning", on, reason, bounded(note.into(), NOTE)).await;
    }

    async fn publish(&self, type_: &str, on: &ObjectReference, reason: &str, note: String) {
        let object = format!("{}/{}", on.kind.as_deref().unwrap_or_default(), on.name.as_deref().unwrap_or_default());
        info!(object, reason, note);
        let key = (on.uid.clone().unwrap_or_default(), reason.to_owned(), note.clone());
        let namespace = on.namespace.as_deref().unwrap_or("default"); // where events of cluster-scoped kinds go
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let result = match self.again(&key) {
            Some(event) => api.patch(&event.name_any(), &PatchParams::default(), &Patch::Merge(event)).await,
            None => api.create(&PostParams::default(), &self.event(type_, on, reason, note)).await,
        };
        match result {
            Ok(event) => drop(self.recent().insert(key, (Instant::now(), event))),
            Err(error) => warn!(object, %error, "the event could not be written"),
        }
    }

    /// The same event, if it was published not long ago, with its count raised.
    fn again(&self, key: &Key) -> Option<Event> {
        let mut recent = self.recent();
        recent.retain(|_, (at, _)| at.elapsed() < SERIES);
        let mut event = recent.get(key)?.1.clone();
        let count = event.series.map_or(2, |series| series.count + 1);
        event.series = Some(EventSeries { count, last_observed_time: MicroTime(clock::now()) });
        Some(event)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Instant, Event)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, type_: &str, on: &ObjectReference, reason: &str, note: String) -> Event {
        let now = clock::now();
        let name = format!("{}.{:x}", on.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: on.namespace.clone(), ..ObjectMeta::default() },
            type_: Some(type_.into()),
            reason: Some(reason.into()),
            note: Some(note),
            action: Some("Reconcile".into()),
            regarding: Some(on.clone()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some("firebreak".into()),
            reporting_instance: Some(self.identity.clone()),
            ..Event::default()
        }
    }
}

/// A reference to an object.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(object.name_any()),
        namespace: object.namespace(),
        uid: object.uid(),
        ..ObjectReference::default()
    }
}

/// A reference to the Incident of a holder.
#[must_use]
pub fn holder(holder: &firebreak_crds::Holder) -> ObjectReference {
    ObjectReference {
        api_version: Some("firebreak.dev/v1alpha1".into()),
        kind: Some("Incident".into()),
        name: Some(holder.name.clone()),
        namespace: Some(holder.namespace.clone()),
        uid: Some(holder.uid.clone()),
        ..ObjectReference::default()
    }
}
