//! The chart: its variants, its life on a real API server, and RBAC with exactly the verbs that are used.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use aws_sdk_iam::types::StatusType;
use firebreak_crds::{ABANDON, AwsAccount, FINALIZER, HolderState, Quarantine};
use firebreak_tests::eventually::{eventually, gone};
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::USER;
use firebreak_tests::tools;
use firebreak_tests::world::{CONTROLLER_USER, NAMESPACE, SOON, World, mac_keys};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use crate::apart::{Apart, prepared};

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/firebreak").display().to_string()
}

/// Helm, without a cluster.
fn helm(arguments: &[&str], values: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(tools::control_plane().join("helm"));
    let run = helm.args(arguments).args(values.iter().flat_map(|value| ["--set", value])).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if run.status.success() { Ok(text(&run.stdout)) } else { Err(text(&run.stdout) + &text(&run.stderr)) }
}

fn template(values: &[&str]) -> String {
    helm(&["lint", "--strict", &chart()], values).unwrap();
    helm(&["template", "firebreak", &chart(), "--namespace", NAMESPACE], values).unwrap()
}

fn count(manifests: &str, kind: &str) -> usize {
    manifests.lines().filter(|line| *line == format!("kind: {kind}")).count()
}

#[test]
fn each_variant_of_the_chart_has_what_it_says() {
    let all = template(&[]);
    assert_eq!(count(&all, "CustomResourceDefinition"), 6);
    let kept = |manifests: &str| manifests.matches("helm.sh/resource-policy: keep").count();
    assert_eq!(kept(&all), 7, "the CRDs and the MAC key");
    assert_eq!((count(&all, "ValidatingAdmissionPolicy"), count(&all, "ValidatingAdmissionPolicyBinding")), (5, 5));
    assert_eq!((count(&all, "Deployment"), count(&all, "ServiceAccount"), count(&all, "Service")), (1, 1, 0));

    assert_eq!(count(&template(&["crds.enabled=false"]), "CustomResourceDefinition"), 0);
    assert_eq!(kept(&template(&["crds.keep=false"])), 1, "what stays contained needs its key");
    assert_eq!(count(&template(&["admission.enabled=false"]), "ValidatingAdmissionPolicy"), 0);
    assert_eq!(count(&template(&["metricsService.enabled=true"]), "Service"), 1);
    assert_eq!(count(&template(&["rbac.aggregate=false"]), "ClusterRole"), 1);
    assert!(count(&all, "Secret") == 1 && all.contains("secretName: firebreak-mac-key"));
    let (ours, none) = (template(&["macKey.existingSecret=ours"]), template(&["macKey.generate=false"]));
    assert!(count(&ours, "Secret") == 0 && ours.contains("secretName: ours") && ours.contains("FIREBREAK_MAC_KEY_FILE"));
    assert!(count(&none, "Secret") == 0 && !none.contains("mac-key"), "a controller without a key runs all the same");
    let account = ["serviceAccount.create=false", "serviceAccount.name=ours"];
    assert_eq!(count(&template(&account), "ServiceAccount"), 0);
    assert!(template(&account).contains("system:serviceaccount:firebreak-system:ours"), "the admission policies trust it");
}

#[test]
fn values_that_cannot_work_are_refused() {
    let none = ["serviceAccount.create=false"];
    for wrong in [&["driftInterval=soon"][..], &["driftInterval=0s"], &["crd.keep=false"], &["log.format=xml"], &none] {
        helm(&["template", "firebreak", &chart()], wrong).unwrap_err();
    }
}

#[tokio::test]
async fn it_installs_and_upgrades_and_its_pods_pass_restricted_pod_security() {
    let Apart { plane, controller: _not_started, place: _place } = prepared(ControllerManager::Runs, "1s").await;
    let kube = plane.client().await;
    let enforce = Patch::Merge(json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } }));
    Api::<Namespace>::all(kube.clone()).patch(NAMESPACE, &PatchParams::default(), &enforce).await.unwrap();
    let key = async || std::fs::read_to_string(mac_keys(&plane).await.unwrap()).unwrap();
    let made = key().await;
    assert_eq!(made.len(), 64);
    let values = "driftInterval=7s,metricsService.enabled=true,priorityClassName=";
    let upgrade = ["upgrade", "firebreak", &chart(), "--namespace", NAMESPACE, "--set", values];
    plane.helm(&upgrade).await.unwrap();

    assert_eq!(key().await, made, "an upgrade keeps the key: with another no copy could be believed");

    let deployment = Api::<Deployment>::namespaced(kube.clone(), NAMESPACE).get("firebreak").await.unwrap();
    let manifest = serde_json::to_string(&deployment.spec).unwrap();
    assert!(manifest.contains("--drift-interval=7s"), "{manifest}");
    plane.kubectl(&["get", "service", "firebreak-metrics", "-n", NAMESPACE]).await.unwrap();
    eventually("a pod of the upgraded Deployment is admitted", SOON, async || {
        let pods = Api::<Pod>::namespaced(kube.clone(), NAMESPACE).list(&ListParams::default()).await?.items;
        ensure!(
            pods.iter().any(|pod| serde_json::to_string(&pod.spec).unwrap().contains("--drift-interval=7s")),
            "{pods:#?}"
        );
        Ok(())
    })
    .await;
    let crds = Api::<CustomResourceDefinition>::all(kube).list(&ListParams::default()).await.unwrap();
    assert_eq!(crds.items.len(), 6);
}

/// What the cloud's controller writes into the node on which the controller runs.
const OWN_NODE: &str = "aws:///eu-west-1a/i-0aaaaaaaaaaaaaaaa";

/// A verb on a resource: `update quarantines.firebreak.dev/status`.
type Verbs = BTreeSet<String>;

#[tokio::test]
async fn the_controller_is_granted_exactly_the_verbs_that_it_uses() {
    let Apart { plane, controller, place: _place } = prepared(ControllerManager::Runs, "1s").await;
    let node =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "worker" }, "spec": { "providerID": OWN_NODE } });
    plane.apply(&node.to_string()).await.unwrap();
    let mut controller = controller.env("NODE_NAME", "worker");
    controller.start().unwrap();
    let granted = granted(&plane).await;
    whole_life(&plane).await;
    controller.stop().unwrap(); // its watches end, and are in the log
    let used = eventually("the watches are in the log", SOON, async || {
        let calls = plane.calls_of(CONTROLLER_USER);
        ensure!(calls.iter().any(|call| call.verb == "watch" && call.resource == "evidence"));
        Ok(calls)
    })
    .await;
    let refused: Vec<_> = used.iter().filter(|call| call.code == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let used: Verbs = used.iter().map(|call| verb(&call.verb, &call.group, &call.resource, &call.subresource)).collect();
    let (unused, missing): (Vec<_>, Vec<_>) = (granted.difference(&used).collect(), used.difference(&granted).collect());
    assert!(unused.is_empty() && missing.is_empty(), "granted, never used: {unused:#?}\nused, not granted: {missing:#?}");
}

fn verb(verb: &str, group: &str, resource: &str, subresource: &str) -> String {
    let subresource = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
    format!("{verb} {resource}.{group}{subresource}")
}

/// What `kubectl auth can-i --list` shows, without what everybody may.
async fn granted(plane: &Plane) -> Verbs {
    let (ours, everybodys) =
        (rules(plane, CONTROLLER_USER).await, rules(plane, "system:serviceaccount:default:anybody").await);
    ours.difference(&everybodys).cloned().collect()
}

/// Asked in that user's name, by an admin.
async fn rules(plane: &Plane, user: &str) -> Verbs {
    let file = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(user.to_owned());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(NAMESPACE.into()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let review = Api::all(Client::try_from(config).unwrap()).create(&PostParams::default(), &review).await.unwrap();
    let mut verbs = Verbs::new();
    for rule in review.status.unwrap_or_default().resource_rules {
        for resource in rule.resources.iter().flatten() {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            for group in rule.api_groups.iter().flatten() {
                verbs.extend(rule.verbs.iter().map(|v| verb(v, group, resource, subresource)));
            }
        }
    }
    verbs
}

/// Plans, contains, repairs, is deleted in every way, gives back, and lets the account go.
async fn whole_life(plane: &Plane) {
    let world = World::new(plane).await;
    let own = world.target_instance(OWN_NODE.rsplit('/').next().unwrap());
    world.declare("own", "Contain", json!({ "targets": [own] })).await;
    world.until_refused("own", &[("Protected", "Firebreak itself runs on")]).await;
    world.delete_incident("own").await;
    world.declare("inc", "Plan", json!({})).await;
    world.until_reason("inc", "Contained", "PlanOnly").await;
    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;
    for repairs in [1, 2] {
        tamper(&world, repairs).await;
    }
    // Gone by force: its hold is retained. Of that name again: it takes the hold over.
    let incidents = world.incidents();
    let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    world.change("inc", json!({ "suspend": true })).await;
    incidents.patch("inc", &PatchParams::default(), &bare).await.unwrap();
    incidents.delete("inc", &DeleteParams::default()).await.unwrap();
    gone(&incidents, "inc", SOON).await;
    world.until_quarantine(USER, "retained", |q| q.spec.holders[0].state == HolderState::Retained).await;
    world.declare("inc", "Contain", json!({ "deletionPolicy": "Release", "suspend": false })).await;
    world.until("inc", "Contained", "True").await;
    incidents.delete("inc", &DeleteParams::default()).await.unwrap();
    gone(&incidents, "inc", SOON).await;
    eventually("all is given back", SOON, async || {
        let left = world.quarantines().await;
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })
    .await;
    let accounts = Api::<AwsAccount>::all(world.kube.clone());
    let account = accounts.get(&world.account_name()).await.unwrap();
    assert_eq!(account.finalizers(), [FINALIZER]);
    // It would stay until the denies of old sessions have expired.
    let abandon = Patch::Merge(json!({ "metadata": { "annotations": { ABANDON: account.uid() } } }));
    accounts.patch(&account.name_any(), &PatchParams::default(), &abandon).await.unwrap();
    accounts.delete(&world.account_name(), &DeleteParams::default()).await.unwrap();
    gone(&accounts, &world.account_name(), SOON).await;
}

/// A key is switched on, and its repair counted.
async fn tamper(world: &World<'_>, repairs: i64) {
    world.until_drift_counts(USER).await;
    let key = &world.scene.access_keys[0];
    world.aws.iam.update_access_key().user_name(USER).access_key_id(key).status(StatusType::Active).send().await.unwrap();
    world.until_quarantine(USER, "the repair is counted", |q| drift_count(q) >= repairs).await;
}

fn drift_count(quarantine: &Quarantine) -> i64 {
    quarantine.status.as_ref().map_or(0, |s| s.drift_count)
}
