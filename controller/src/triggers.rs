//! Whom a change concerns: one function per kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use firebreak_crds::{Approval, AwsAccount, ContainmentPolicy, Evidence, Incident, Quarantine, is_true};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::controllers::incident::concerns;
use crate::stores::Stores;

/// What a controller works off.
pub type Queue<K> = UnboundedReceiver<ObjectRef<K>>;

/// Sends what changed to whom it concerns.
#[derive(Clone)]
pub struct Triggers {
    stores: Stores,
    accounts: UnboundedSender<ObjectRef<AwsAccount>>,
    incidents: UnboundedSender<ObjectRef<Incident>>,
    quarantines: UnboundedSender<ObjectRef<Quarantine>>,
    evidence: UnboundedSender<ObjectRef<Evidence>>,
    /// What is used of an account, as last seen: most changes of its status concern nobody else.
    used: Arc<Mutex<HashMap<String, String>>>,
}

impl Triggers {
    /// The triggers, and the four queues that they fill.
    pub fn new(stores: Stores) -> (Self, Queue<AwsAccount>, Queue<Incident>, Queue<Quarantine>, Queue<Evidence>) {
        let ((accounts, a), (incidents, i), (quarantines, q), (evidence, e)) =
            (unbounded(), unbounded(), unbounded(), unbounded());
        (Self { stores, accounts, incidents, quarantines, evidence, used: Arc::default() }, a, i, q, e)
    }

    /// An account: itself and its twins; where what is used of it changed, everything that uses it.
    pub fn account(&self, account: &Arc<AwsAccount>) {
        let name = account.name_any();
        send(&self.accounts, &**account);
        let twins =
            self.stores.accounts.state_filter(|a| a.spec.account_id == account.spec.account_id && a.name_any() != name);
        twins.iter().for_each(|a| send(&self.accounts, &**a));
        let incidents = self
            .stores
            .incidents
            .state_filter(|i| i.spec.targets.iter().any(|t| t.account_ref().is_some_and(|a| a.name == name)));
        incidents.iter().for_each(|i| send(&self.incidents, &**i));
        if self.changed(account) {
            let quarantines = self.stores.quarantines.state_filter(|q| q.spec.resource.account_ref.name == name);
            quarantines.iter().for_each(|q| send(&self.quarantines, &**q));
            let evidence = self.stores.evidence.state_filter(|e| e.spec.resource.account_ref.name == name);
            evidence.iter().for_each(|e| send(&self.evidence, &**e));
        }
    }

    fn changed(&self, account: &AwsAccount) -> bool {
        let ready = account.status.as_ref().is_some_and(|s| is_true(&s.conditions, "Ready"));
        let now = format!("{:?} {:?} {ready}", account.uid(), account.metadata.generation);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(account.name_any(), now.clone()).is_none_or(|before| before != now)
    }

    /// A policy: the Incidents that follow it.
    pub fn policy(&self, policy: &Arc<ContainmentPolicy>) {
        let name = policy.name_any();
        let incidents = self.stores.incidents.state_filter(|i| i.spec.policy_ref.name == name);
        incidents.iter().for_each(|i| send(&self.incidents, &**i));
    }

    /// An Incident: itself, and what it holds.
    pub fn incident(&self, incident: &Arc<Incident>) {
        send(&self.incidents, &**incident);
        let uid = incident.uid().unwrap_or_default();
        if self.stores.incidents.get(&ObjectRef::from_obj(&**incident)).is_none() {
            let held = self.stores.quarantines.state_filter(|q| q.spec.is_held_by(&uid));
            held.iter().for_each(|q| send(&self.quarantines, &**q));
        }
    }

    /// A Quarantine: itself, its holders, and the Incidents that wait for it to go.
    pub fn quarantine(&self, quarantine: &Arc<Quarantine>) {
        send(&self.quarantines, &**quarantine);
        let concerned = self.stores.incidents.state_filter(|i| concerns(i, quarantine, &self.stores));
        concerned.iter().for_each(|i| send(&self.incidents, &**i));
        let holders = quarantine.spec.holders.iter().map(|h| ObjectRef::<Incident>::new(&h.name).within(&h.namespace));
        holders.for_each(|h| drop(self.incidents.unbounded_send(h)));
    }

    /// Evidence: itself, and its Incident.
    pub fn evidence(&self, evidence: &Arc<Evidence>) {
        send(&self.evidence, &**evidence);
        let incident = &evidence.spec.incident_ref;
        drop(self.incidents.unbounded_send(ObjectRef::new(&incident.name).within(&incident.namespace)));
    }

    /// An Approval: its Incident.
    pub fn approval(&self, approval: &Arc<Approval>) {
        let incident = ObjectRef::new(&approval.spec.incident_ref.name).within(&approval.namespace().unwrap_or_default());
        drop(self.incidents.unbounded_send(incident));
    }

    /// A namespace: the Incidents in it, since its labels say which accounts they may use.
    pub fn namespace(&self, namespace: &Arc<Namespace>) {
        let name = Some(namespace.name_any());
        let incidents = self.stores.incidents.state_filter(|i| i.namespace() == name);
        incidents.iter().for_each(|i| send(&self.incidents, &**i));
    }
}

/// A queue that is closed belongs to a process that stops.
fn send<K>(queue: &UnboundedSender<ObjectRef<K>>, object: &K)
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    drop(queue.unbounded_send(ObjectRef::from_obj(object)));
}
