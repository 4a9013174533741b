//! What tests wait for, beyond an Incident's conditions.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use firebreak_crds::{
    ABANDON, Approval, AwsAccount, Evidence, Incident, Quarantine, RECONCILE_REQUESTED, TargetStatus, get_condition,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::world::{SOON, World};

/// Longer than the controller takes AWS's answers to lag behind its own writes.
const LAG: i64 = 12;

impl World<'_> {
    /// Waits until the `index`-th target in the Incident's status is as asked.
    pub async fn until_target(&self, incident: &str, index: usize, such: impl Fn(&TargetStatus) -> bool) -> TargetStatus {
        eventually(&format!("target {index} of {incident}"), SOON, async || {
            let status = self.incidents().get(incident).await?.status.unwrap_or_default();
            let target = status.targets.get(index).cloned().with_context(|| format!("{status:#?}"))?;
            ensure!(such(&target), "{target:#?}");
            Ok(target)
        })
        .await
    }

    /// Waits until the first targets are not contained, each for its reason, and said in such words.
    pub async fn until_refused(&self, incident: &str, each: &[(&str, &str)]) {
        for (index, (reason, words)) in each.iter().enumerate() {
            let refused = self.until_target(incident, index, |t| t.reason == *reason && t.contained == "False").await;
            assert!(refused.message.contains(words), "{refused:#?}");
        }
    }

    /// Waits until the Quarantine of a resource is there and as asked.
    pub async fn until_quarantine(&self, id: &str, what: &str, such: impl Fn(&Quarantine) -> bool) -> Quarantine {
        eventually(&format!("the Quarantine of {id}: {what}"), SOON, async || {
            let found = self.quarantine_of(id).await.context("there is none")?;
            ensure!(such(&found), "{found:#?}");
            Ok(found)
        })
        .await
    }

    /// Waits until what is made now was made during the containment: AWS tells the age of credentials in whole seconds.
    pub async fn until_a_second_old(&self, id: &str) {
        self.until_quarantine(id, "a second old", |q| {
            let made = q.metadata.creation_timestamp.as_ref().expect("it was made").0;
            Timestamp::now().as_second() > made.as_second()
        })
        .await;
    }

    /// Waits until the Quarantine of a resource has this reason for a condition, and returns the condition's message.
    pub async fn until_quarantine_says(&self, id: &str, kind: &str, reason: &str) -> String {
        let said = |q: &Quarantine| {
            let conditions = q.status.clone().unwrap_or_default().conditions;
            get_condition(&conditions, kind).filter(|c| c.reason == reason).map(|c| c.message.clone())
        };
        let found = self.until_quarantine(id, &format!("{kind} has the reason {reason}"), |q| said(q).is_some()).await;
        said(&found).unwrap_or_default()
    }

    /// Waits until the containment of a resource is old enough for a change to count as somebody's: before, AWS may merely be
    /// late to show what the controller wrote.
    pub async fn until_drift_counts(&self, id: &str) {
        self.until_quarantine(id, "in force for a while", |q| {
            let since = q.status.as_ref().and_then(|s| s.in_force_since.clone());
            since.is_some_and(|since| Timestamp::now().as_second() - since.0.as_second() >= LAG)
        })
        .await;
    }

    /// Waits until AWS shows what it should.
    pub async fn until_aws(&self, what: &str, look: impl AsyncFnMut() -> anyhow::Result<()>) {
        eventually(what, SOON, look).await;
    }

    /// Waits until the Incident has looked at its present spec, and everything it says is of that.
    pub async fn until_looked_at(&self, incident: &str) -> Incident {
        eventually(&format!("{incident} is looked at"), SOON, async || {
            let incident = self.incidents().get(incident).await?;
            let status = incident.status.clone().unwrap_or_default();
            ensure!(status.observed_generation == incident.metadata.generation, "{status:#?}");
            Ok(incident)
        })
        .await
    }

    /// The Approvals of this test's namespace.
    pub fn approvals(&self) -> Api<Approval> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// Waits until an event of that object has this reason, and these words.
    pub async fn until_event(&self, object: &str, reason: &str, words: &[&str]) {
        self.until_aws(&format!("{reason} of {object} says {words:?}"), async || {
            let events = self.events_of(object).await;
            let said = |e: &&String| e.starts_with(reason) && words.iter().all(|w| e.contains(w));
            ensure!(events.iter().any(|e| said(&e)), "{events:#?}");
            Ok(())
        })
        .await;
    }

    /// Waits until nothing of this account is held.
    pub async fn until_nothing_is_held(&self) {
        eventually("the Quarantines are gone", SOON, async || {
            let left = self.quarantines().await;
            ensure!(left.is_empty(), "{left:#?}");
            Ok(())
        })
        .await;
    }

    /// Waits until `times` further sweeps over the account have read the user's keys: long enough for what a sweep would do.
    pub async fn until_swept(&self, times: usize) {
        self.until_answered("ListAccessKeys", times).await;
    }

    /// Waits until AWS has answered that call so many times more: long enough for what was about to be done to be done.
    pub async fn until_answered(&self, action: &str, times: usize) {
        let answers = || self.proxy.count(|call| call.action == action && call.succeeded());
        let before = answers();
        eventually(&format!("{times} further {action}"), SOON, async || {
            ensure!(answers() >= before + times, "{} of {times}", answers() - before);
            Ok(())
        })
        .await;
    }

    /// Nothing is done to a contained resource from now on: what was under way when it was suspended is over.
    pub async fn suspend(&self, id: &str) {
        self.steer(id, json!({ "suspend": true })).await;
        self.until_quarantine_says(id, "Ready", "Suspended").await;
    }

    /// `mode: Release`, and waits for it.
    pub async fn release(&self, incident: &str) -> Incident {
        self.change(incident, json!({ "mode": "Release" })).await;
        self.until(incident, "Released", "True").await
    }

    /// `mode: Release`, and waits until nobody holds the resource: nothing need be given back yet.
    pub async fn let_go(&self, incident: &str, id: &str) {
        self.change(incident, json!({ "mode": "Release" })).await;
        self.until_quarantine(id, "let go", |q| q.spec.holders.is_empty()).await;
    }

    /// Patches a Quarantine's spec as a person does.
    pub async fn steer(&self, id: &str, spec: Value) {
        let quarantine = self.quarantine_of(id).await.expect("a Quarantine");
        merge(&self.all_quarantines(), &quarantine.name_any(), json!({ "spec": spec })).await.unwrap();
    }

    /// Deletes an Incident, and waits until it is gone.
    pub async fn delete_incident(&self, name: &str) {
        self.incidents().delete(name, &DeleteParams::default()).await.unwrap();
        crate::eventually::gone(&self.incidents(), name, SOON).await;
    }

    /// Every object of Firebreak about this account is lost, as with a cluster; AWS is not touched. Account and policies are there
    /// again as after `kubectl apply`.
    pub async fn lose(&self) {
        for incident in self.incidents().list(&ListParams::default()).await.unwrap().items {
            merge(&self.incidents(), &incident.name_any(), json!({ "spec": { "deletionPolicy": "Retain" } })).await.unwrap();
            self.delete_incident(&incident.name_any()).await;
        }
        for quarantine in self.quarantines().await {
            let (api, name) = (self.all_quarantines(), quarantine.name_any());
            let abandon = json!({ "metadata": { "annotations": { ABANDON: quarantine.uid() } } });
            merge(&api, &name, abandon).await.unwrap();
            api.delete(&name, &DeleteParams::default()).await.unwrap();
            crate::eventually::gone(&api, &name, SOON).await;
        }
        for piece in self.evidence().await {
            remove(&Api::<Evidence>::all(self.kube.clone()), &piece).await.unwrap();
        }
    }

    /// Asks for a look now at everything of this account, as a person does who has mended something.
    pub async fn look_now(&self) {
        let asked = json!({ "metadata": { "annotations": { RECONCILE_REQUESTED: Timestamp::now().to_string() } } });
        merge(&Api::<AwsAccount>::all(self.kube.clone()), &self.account_name(), asked.clone()).await.unwrap();
        for quarantine in self.quarantines().await {
            merge(&self.all_quarantines(), &quarantine.name_any(), asked.clone()).await.unwrap();
        }
        for evidence in self.evidence().await {
            merge(&Api::<Evidence>::all(self.kube.clone()), &evidence.name_any(), asked.clone()).await.unwrap();
        }
    }

    /// What takes this world away when it is dropped. Drop it before the world.
    pub fn sweeper(&self) -> Sweeper {
        Sweeper { kubeconfig: self.plane.kubeconfig(), account_id: self.aws.account.clone() }
    }
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Takes what a test has declared away again, without giving anything back in AWS, so that the shared controller has nothing to
/// watch over for the rest of the run.
#[derive(Debug)]
pub struct Sweeper {
    kubeconfig: PathBuf,
    account_id: String,
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        let (kubeconfig, account_id) = (self.kubeconfig.clone(), self.account_id.clone());
        let sweeping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(sweep(kubeconfig, account_id))
        });
        if let Ok(Err(error)) = sweeping.join() {
            eprintln!("what the test declared is still there: {error:#}");
        }
    }
}

async fn sweep(kubeconfig: PathBuf, account_id: String) -> anyhow::Result<()> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
    let mentions = |spec: &Value| spec.to_string().contains(&account_id);
    let incidents = Api::<Incident>::all(client.clone()).list(&ListParams::default()).await?.items;
    for incident in incidents.into_iter().filter(|i| serde_json::to_value(&i.spec).is_ok_and(|s| mentions(&s))) {
        let api = Api::<Incident>::namespaced(client.clone(), &incident.namespace().unwrap_or_default());
        let retain = json!({ "spec": { "deletionPolicy": "Retain" } });
        merge(&api, &incident.name_any(), retain).await?;
        remove(&api, &incident).await?;
        crate::eventually::gone(&api, &incident.name_any(), SOON).await;
    }
    let quarantines = Api::<Quarantine>::all(client.clone());
    let held = quarantines.list(&ListParams::default()).await?.items;
    for quarantine in held.into_iter().filter(|q| q.spec.resource.account_id == account_id) {
        let abandon = json!({ "metadata": { "annotations": { ABANDON: quarantine.uid() } } });
        merge(&quarantines, &quarantine.name_any(), abandon).await?;
        remove(&quarantines, &quarantine).await?;
    }
    let evidence = Api::<Evidence>::all(client.clone());
    let kept = evidence.list(&ListParams::default()).await?.items;
    for piece in kept.into_iter().filter(|e| e.spec.resource.account_id == account_id) {
        remove(&evidence, &piece).await?;
    }
    let accounts = Api::<AwsAccount>::all(client.clone());
    let ours = accounts.list(&ListParams::default()).await?.items;
    for account in ours.into_iter().filter(|a| a.spec.account_id == account_id || mentions(&json!(a.name_any()))) {
        let abandon = json!({ "metadata": { "annotations": { ABANDON: account.uid() } } });
        merge(&accounts, &account.name_any(), abandon).await?;
        remove(&accounts, &account).await?;
    }
    Ok(())
}

async fn remove<K>(api: &Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(&object.name_any(), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer.map(|_| ())?),
    }
}
