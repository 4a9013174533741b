//! Events: what people see with `kubectl describe`. A failed event never fails a reconcile.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use tracing::{info, warn};

use crate::conditions::bounded;

/// The API server refuses longer notes.
const NOTE: usize = 1000;

/// Publishes events; equal ones are counted up.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events reported by this process.
    #[must_use]
    pub fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter { controller: "firebreak".into(), instance: Some(identity) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Something that is as it should be.
    pub async fn normal(&self, on: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish(EventType::Normal, on, reason, note.into()).await;
    }

    /// Something that a person should look at.
    pub async fn warning(&self, on: &ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish(EventType::Warning, on, reason, note.into()).await;
    }

    async fn publish(&self, type_: EventType, on: &ObjectReference, reason: &str, note: String) {
        let object = format!("{}/{}", on.kind.as_deref().unwrap_or_default(), on.name.as_deref().unwrap_or_default());
        info!(object, reason, note);
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(bounded(note, NOTE)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, on).await {
            warn!(object, %error, "the event could not be written");
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
