//! Firebreak installed on a plane by its chart, and a world of its own for each test: a namespace, an AWS account behind a
//! proxy, a scene in it, an `AwsAccount` and a `ContainmentPolicy`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use firebreak_crds::{AwsAccount, Evidence, Incident, Quarantine};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::controller_process::ControllerProcess;
use crate::emulator::{Aws, REGION, role_arn};
use crate::eventually::eventually;
use crate::plane::Plane;
use crate::proxy::Proxy;
use crate::scene::{ROLE, Scene, USER};
use crate::shared;

/// Where the chart is installed.
pub const NAMESPACE: &str = "firebreak-system";
/// The user that the API server's audit log names for the controller.
pub const CONTROLLER_USER: &str = "system:serviceaccount:firebreak-system:firebreak";
/// The user that `kubectl` and the tests are for the API server, who declares the Incidents.
pub const ADMIN: &str = "admin";
/// Longer than anything takes, but for snapshots and what AWS itself delays.
pub const SOON: Duration = Duration::from_secs(40);

/// `helm install`, then the controller as a process with the token of the chart's ServiceAccount, so that a missing verb of the
/// chart's RBAC fails a test. Not started yet.
pub async fn install(plane: &Plane, binary: impl AsRef<Path>, drift_interval: &str) -> anyhow::Result<ControllerProcess> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/firebreak");
    let chart = chart.to_str().context("a path")?;
    plane.helm(&["install", "firebreak", chart, "--namespace", NAMESPACE, "--create-namespace"]).await?;
    controller(plane, binary, drift_interval).await
}

/// The controller of an installed chart, as a process with the token of the chart's ServiceAccount. Not started yet.
pub async fn controller(plane: &Plane, binary: impl AsRef<Path>, drift_interval: &str) -> anyhow::Result<ControllerProcess> {
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "firebreak").await?;
    let controller = ControllerProcess::new(binary, &kubeconfig).arg("run").arg("--http-addr=127.0.0.1:0");
    let controller = controller.arg(&format!("--drift-interval={drift_interval}"));
    let controller = controller.arg(&format!("--mac-key-file={}", mac_keys(plane).await?.display()));
    Ok(controller.env("POD_NAMESPACE", NAMESPACE).env("POD_NAME", "firebreak-0"))
}

/// The key that the chart made, in a file, as the Deployment mounts it.
pub async fn mac_keys(plane: &Plane) -> anyhow::Result<PathBuf> {
    let template = "go-template={{.data.keys | base64decode}}";
    let key = plane.kubectl(&["get", "secret", "firebreak-mac-key", "--namespace", NAMESPACE, "-o", template]).await?;
    let file = plane.folder().join("mac-keys");
    std::fs::write(&file, key)?;
    Ok(file)
}

/// What one test has for itself.
#[allow(missing_debug_implementations)] // kube's client has none
pub struct World<'p> {
    /// The control plane.
    pub plane: &'p Plane,
    /// A client of a cluster admin.
    pub kube: Client,
    /// The test's namespace, with the label `team: security`.
    pub namespace: String,
    /// The AWS account, straight.
    pub aws: Aws,
    /// What the controller takes for AWS.
    pub proxy: Proxy,
    /// What is in the account.
    pub scene: Scene,
}

impl<'p> World<'p> {
    /// One instance and one user; account and policy applied and ready.
    pub async fn new(plane: &'p Plane) -> Self {
        Self::with_instances(plane, 1).await
    }

    /// `count` instances and one user.
    pub async fn with_instances(plane: &'p Plane, count: usize) -> Self {
        let world = Self::unannounced(plane, count).await;
        world.plane.apply(&world.account(json!({})).to_string()).await.unwrap();
        world.plane.apply(&world.policy("standard", standard_policy()).to_string()).await.unwrap();
        world.account_ready().await;
        world
    }

    /// A namespace and a scene; no `AwsAccount` and no policy yet.
    pub async fn unannounced(plane: &'p Plane, count: usize) -> Self {
        let aws = shared::new_account().await;
        let scene = Scene::seed_instances(&aws, count).await.unwrap();
        let proxy = Proxy::start(&shared::emulator().await.url()).unwrap();
        let namespace = format!("team-{}", aws.account);
        let manifest = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace, "labels": { "team": "security" } } });
        plane.apply(&manifest.to_string()).await.unwrap();
        Self { plane, kube: plane.client().await, namespace, aws, proxy, scene }
    }

    /// The name of this test's `AwsAccount`, and the beginning of its policies' names.
    pub fn account_name(&self) -> String {
        format!("account-{}", self.aws.account)
    }

    /// The `AwsAccount` manifest; `spec` is merged over the usual one.
    pub fn account(&self, spec: Value) -> Value {
        let usual = json!({
            "accountId": self.aws.account,
            "regions": [REGION],
            "assumeRole": { "roleArn": role_arn(&self.aws.account) },
            "endpointUrl": self.proxy.url(),
            "allowedNamespaces": { "matchLabels": { "team": "security" } },
            "prepare": { "isolationGroups": "AllVpcs" },
            "approvals": { "wideBlastRadius": "NotRequired" }, // what is seeded here, nobody would miss: tests of approvals say otherwise
        });
        manifest("AwsAccount", &self.account_name(), merged(usual, spec))
    }

    /// A `ContainmentPolicy` manifest. Policies are cluster-scoped: the account's name goes before.
    pub fn policy(&self, name: &str, spec: Value) -> Value {
        manifest("ContainmentPolicy", &self.policy_name(name), spec)
    }

    /// A policy's full name.
    pub fn policy_name(&self, name: &str) -> String {
        format!("{}-{name}", self.account_name())
    }

    /// An `Incident` manifest over the scene's first instance and its user, with the policy `standard`; `spec` is merged over it.
    pub fn incident(&self, name: &str, mode: &str, spec: Value) -> Value {
        let usual = json!({
            "title": "A test",
            "severity": "High",
            "mode": mode,
            "policyRef": { "name": self.policy_name("standard") },
            "targets": [self.instance_target(0), self.user_target()],
        });
        let mut manifest = manifest("Incident", name, merged(usual, spec));
        manifest["metadata"]["namespace"] = json!(self.namespace);
        manifest
    }

    /// A target item for one of the scene's instances.
    pub fn instance_target(&self, index: usize) -> Value {
        self.target_instance(&self.scene.instances[index].id)
    }

    /// A target item for an instance.
    pub fn target_instance(&self, id: &str) -> Value {
        json!({ "ec2Instance": { "accountRef": { "name": self.account_name() }, "region": REGION, "instanceId": id } })
    }

    /// A target item for the scene's user.
    pub fn user_target(&self) -> Value {
        json!({ "iamUser": { "accountRef": { "name": self.account_name() }, "userName": USER } })
    }

    /// A target item for a session of that role.
    pub fn session_target(&self, session: &str) -> Value {
        let account = json!({ "name": self.account_name() });
        json!({ "roleSession": { "accountRef": account, "roleName": ROLE, "sessionName": session } })
    }

    /// A target item for what an ARN names, without its partition.
    pub fn target_arn(&self, arn: &str) -> Value {
        json!({ "arn": { "accountRef": { "name": self.account_name() }, "arn": format!("arn:aws:{arn}") } })
    }

    /// A target item for one of the scene's access keys.
    pub fn key_target(&self, index: usize) -> Value {
        self.target_key(&self.scene.access_keys[index])
    }

    /// A target item for an access key.
    pub fn target_key(&self, id: &str) -> Value {
        json!({ "accessKey": { "accountRef": { "name": self.account_name() }, "accessKeyId": id } })
    }

    /// Declares an Incident that contains an instance with these actions only, and waits for what it says of its target.
    pub async fn contain_instance(&self, name: &str, id: &str, contain: Value) {
        let policy = self.policy(name, json!({ "ec2Instance": { "contain": contain } }));
        self.plane.apply(&policy.to_string()).await.unwrap();
        let spec = json!({ "policyRef": { "name": self.policy_name(name) }, "targets": [self.target_instance(id)] });
        self.declare(name, "Contain", spec).await;
    }

    /// A target item for the role that `scene::role` makes.
    pub fn role_target(&self) -> Value {
        json!({ "iamRole": { "accountRef": { "name": self.account_name() }, "roleName": ROLE } })
    }

    /// Applies an Incident, as `incident` makes it.
    pub async fn declare(&self, name: &str, mode: &str, spec: Value) {
        self.plane.apply(&self.incident(name, mode, spec).to_string()).await.unwrap();
    }

    /// Changes fields of an Incident's spec.
    pub async fn change(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.incidents().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The Incidents of this test.
    pub fn incidents(&self) -> Api<Incident> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// All Quarantines of the plane.
    pub fn all_quarantines(&self) -> Api<Quarantine> {
        Api::all(self.kube.clone())
    }

    /// The Quarantines of this test's account.
    pub async fn quarantines(&self) -> Vec<Quarantine> {
        let all = self.all_quarantines().list(&kube::api::ListParams::default()).await.unwrap();
        all.items.into_iter().filter(|q| q.spec.resource.account_id == self.aws.account).collect()
    }

    /// The evidence of this test's account.
    pub async fn evidence(&self) -> Vec<Evidence> {
        let all = Api::<Evidence>::all(self.kube.clone()).list(&kube::api::ListParams::default()).await.unwrap();
        all.items.into_iter().filter(|e| e.spec.resource.account_id == self.aws.account).collect()
    }

    /// The name of the Quarantine of the scene's instance or user.
    pub async fn quarantine_of(&self, id: &str) -> Option<Quarantine> {
        self.quarantines().await.into_iter().find(|q| q.spec.resource.id == id)
    }

    /// Waits for a condition of an Incident.
    pub async fn until(&self, name: &str, condition: &str, status: &str) -> Incident {
        crate::eventually::condition(&self.incidents(), name, condition, status, SOON).await
    }

    /// Waits until the Incident's condition has this reason.
    pub async fn until_reason(&self, name: &str, condition: &str, reason: &str) -> Incident {
        eventually(&format!("{name}: {condition} has the reason {reason}"), SOON, async || {
            let incident = self.incidents().get(name).await?;
            let conditions = incident.status.clone().unwrap_or_default().conditions;
            let found = firebreak_crds::get_condition(&conditions, condition);
            ensure!(found.is_some_and(|c| c.reason == reason), "{conditions:#?}");
            Ok(incident)
        })
        .await
    }

    /// Waits until the `AwsAccount` is ready.
    pub async fn account_ready(&self) -> AwsAccount {
        crate::eventually::condition(&Api::all(self.kube.clone()), &self.account_name(), "Ready", "True", SOON).await
    }

    /// The reason and message of an Incident's condition.
    pub async fn said(&self, name: &str, condition: &str) -> (String, String) {
        let incident = self.incidents().get(name).await.unwrap();
        let conditions = incident.status.unwrap_or_default().conditions;
        let found = firebreak_crds::get_condition(&conditions, condition);
        found.map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default()
    }

    /// What the events of an object say: `reason: note`.
    pub async fn events_of(&self, name: &str) -> Vec<String> {
        let api = Api::<k8s_openapi::api::events::v1::Event>::all(self.kube.clone());
        let all = api.list(&kube::api::ListParams::default()).await.unwrap();
        let about = |e: &k8s_openapi::api::events::v1::Event| {
            let regarding = e.regarding.clone().unwrap_or_default();
            regarding.name.as_deref() == Some(name) && regarding.namespace.as_deref().is_none_or(|n| n == self.namespace)
        };
        all.items
            .iter()
            .filter(|e| about(e))
            .map(|e| format!("{}: {}", e.reason.clone().unwrap_or_default(), e.note.clone().unwrap_or_default()))
            .collect()
    }
}

/// The policy of the examples.
pub fn standard_policy() -> Value {
    json!({
        "ec2Instance": { "contain": [{ "isolateNetwork": {} }], "evidence": [{ "ebsSnapshots": {} }] },
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
    })
}

/// A manifest of one of Firebreak's kinds.
#[allow(clippy::needless_pass_by_value)] // callers write the spec in place
pub fn manifest(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "firebreak.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The fields of `over` in the place of those of `base`.
fn merged(mut base: Value, over: Value) -> Value {
    if let (Value::Object(base), Value::Object(over)) = (&mut base, over) {
        base.extend(over);
    }
    base
}

/// The uid of an object.
pub fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}
