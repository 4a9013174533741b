//! What goes because something larger goes was decided by nobody: it is held, and nothing is given back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use firebreak_crds::{ABANDON, AwsAccount, FINALIZER, HolderState, Incident, Quarantine, get_condition};
use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::eventually::{eventually, gone};
use firebreak_tests::judge::Judge;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::{NAMESPACE, SOON, World, standard_policy};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::apart::{Apart, CONTROLLER, apart};

/// "Within seconds", on a slow machine.
const SECONDS: Duration = Duration::from_secs(15);

/// A world that is contained, with its evidence complete; and what its interfaces were in.
pub async fn contained(plane: &Plane) -> (World<'_>, Judge, BTreeMap<String, Vec<String>>) {
    contained_by(plane, standard_policy()).await
}

/// The same by another policy, in the place of `standard`.
pub async fn contained_by(plane: &Plane, policy: Value) -> (World<'_>, Judge, BTreeMap<String, Vec<String>>) {
    let world = World::new(plane).await;
    plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    let judge = Judge::of(&world).await;
    let before = sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({ "deletionPolicy": "Release" })).await;
    world.until("inc", "EvidencePreserved", "True").await;
    world.until("inc", "Contained", "True").await;
    (world, judge, before)
}

async fn ensure_contained(world: &World<'_>) -> anyhow::Result<()> {
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await?;
    sight::cut_off(&world.aws).await
}

/// The attacker puts an interface back and a key on; it is undone.
pub async fn is_repaired(world: &World<'_>) {
    let (interface, key) = (&world.scene.instances[0].interfaces[1], &world.scene.access_keys[0]);
    let groups = &world.scene.groups[1];
    world.aws.ec2.modify_network_interface_attribute().network_interface_id(interface).groups(groups).send().await.unwrap();
    let active = aws_sdk_iam::types::StatusType::Active;
    world.aws.iam.update_access_key().user_name(USER).access_key_id(key).status(active).send().await.unwrap();
    eventually("it is put back", SOON, async || ensure_contained(world).await).await;
}

/// Both Quarantines are held by nobody that is there, and keep what they know.
async fn until_retained(world: &World<'_>, deleting: bool) -> Vec<Quarantine> {
    eventually("the holds are Retained", SOON, async || {
        let quarantines = world.quarantines().await;
        ensure!(quarantines.len() == 2, "{quarantines:#?}");
        for quarantine in &quarantines {
            let states: Vec<_> = quarantine.spec.holders.iter().map(|h| h.state).collect();
            ensure!(states == [HolderState::Retained], "{quarantine:#?}");
            ensure!(quarantine.metadata.deletion_timestamp.is_some() == deleting, "{quarantine:#?}");
            ensure!(quarantine.finalizers() == [FINALIZER] && quarantine.spec.original.is_some(), "{quarantine:#?}");
        }
        Ok(quarantines)
    })
    .await
}

#[tokio::test]
async fn a_namespace_goes_within_seconds_and_nothing_is_given_back() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Runs, "1s").await;
    let (world, judge, _) = contained(&plane).await;
    let from = Instant::now();
    plane.kubectl(&["delete", "namespace", &world.namespace, "--wait=false"]).await.unwrap();
    gone(&world.incidents(), "inc", SECONDS).await;
    let incident = from.elapsed();
    gone(&Api::<Namespace>::all(world.kube.clone()), &world.namespace, SECONDS).await;
    println!("the Incident was gone after {incident:?}, its namespace after {:?}", from.elapsed());
    until_retained(&world, false).await;
    ensure_contained(&world).await.unwrap();
    is_repaired(&world).await;
    assert_eq!(world.evidence().await.len(), 1);
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3);
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");
}

#[tokio::test]
async fn when_the_crds_are_deleted_everything_stays_contained_and_repair_goes_on() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, _) = contained(&plane).await;
    assert_eq!(controller.http("/readyz").await.unwrap(), (200, "ok".to_owned()));
    let names: Vec<_> = firebreak_crds::crds().iter().map(ResourceExt::name_any).collect();
    let crds = Api::<CustomResourceDefinition>::all(world.kube.clone());
    for name in &names {
        crds.delete(name, &DeleteParams::default()).await.unwrap();
    }
    eventually("/readyz says what goes", SOON, async || {
        let (status, why) = controller.http("/readyz").await?;
        ensure!(status == 503 && names.iter().all(|name| why.contains(name.as_str())), "{status} {why}");
        Ok(())
    })
    .await;
    let quarantines = until_retained(&world, true).await;
    ensure_contained(&world).await.unwrap();
    is_repaired(&world).await;
    eventually("the status says what to do", SOON, async || {
        for quarantine in world.quarantines().await {
            let stalled = get_condition(&quarantine.status.unwrap_or_default().conditions, "Stalled").cloned();
            let stalled = stalled.context("not Stalled")?;
            ensure!(stalled.reason == "DeletionBlocked" && stalled.message.contains(ABANDON), "{stalled:#?}");
        }
        Ok(())
    })
    .await;

    // Also by a controller that never saw the kinds that went at once.
    gone(&crds, "containmentpolicies.firebreak.dev", SOON).await;
    controller.kill_9();
    controller.start().unwrap();
    is_repaired(&world).await;

    // One is abandoned, by its own uid and by no other.
    let user = quarantines.iter().find(|q| q.spec.resource.id == USER).unwrap();
    let other = quarantines.iter().find(|q| q.spec.resource.id != USER).unwrap();
    let changes = world.proxy.changing().len();
    abandon(&world, &other.name_any(), &user.uid().unwrap()).await;
    abandon(&world, &user.name_any(), &user.uid().unwrap()).await;
    gone(&world.all_quarantines(), &user.name_any(), SOON).await;
    is_there(&world, &other.name_any()).await;
    sight::cut_off(&world.aws).await.unwrap();
    assert_eq!(world.proxy.changing().len(), changes, "AWS was touched");
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");
}

/// An AwsAccount and an Incident that was released keep their finalizers: they must not wait for lists that nobody can give.
#[tokio::test]
async fn where_nothing_is_contained_all_crds_go_with_what_they_hold_in_whatever_order() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let world = World::new(&plane).await;
    world.declare("inc", "Contain", json!({ "targets": [world.instance_target(0)] })).await;
    world.until("inc", "Contained", "True").await;
    world.release("inc").await;
    let account = Api::<AwsAccount>::all(world.kube.clone()).get(&world.account_name()).await.unwrap();
    let incident = world.incidents().get("inc").await.unwrap();
    assert_eq!((account.finalizers(), incident.finalizers()), (&[FINALIZER.to_owned()][..], &[FINALIZER.to_owned()][..]));
    let names: Vec<_> = firebreak_crds::crds().iter().map(ResourceExt::name_any).collect();
    let (first, last): (Vec<_>, Vec<_>) =
        names.iter().partition(|n| n.starts_with("quarantines.") || n.starts_with("evidence."));
    let crds = Api::<CustomResourceDefinition>::all(world.kube.clone());
    for names in [first, last] {
        for name in &names {
            crds.delete(name, &DeleteParams::default()).await.unwrap();
        }
        for name in &names {
            gone(&crds, name, SOON).await;
        }
    }
}

async fn abandon(world: &World<'_>, name: &str, uid: &str) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { ABANDON: uid } } }));
    world.all_quarantines().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn is_there(world: &World<'_>, name: &str) {
    assert!(world.all_quarantines().get(name).await.unwrap().finalizers().contains(&FINALIZER.to_owned()));
}

#[tokio::test]
async fn the_chart_goes_and_comes_again_and_everything_stays_contained() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, before) = contained(&plane).await;
    controller.stop().unwrap();
    plane.helm(&["uninstall", "firebreak", "--namespace", NAMESPACE]).await.unwrap();
    let crds = Api::<CustomResourceDefinition>::all(world.kube.clone());
    for crd in firebreak_crds::crds() {
        assert_eq!(crds.get(&crd.name_any()).await.unwrap().metadata.deletion_timestamp, None);
    }
    assert_eq!((world.quarantines().await.len(), world.evidence().await.len()), (2, 1));
    ensure_contained(&world).await.unwrap();

    let mut again = install_again(&plane, NAMESPACE, &[]).await;
    again.start().unwrap();
    is_repaired(&world).await;
    again.stop().unwrap();
    plane.helm(&["uninstall", "firebreak", "--namespace", NAMESPACE]).await.unwrap();

    let mut elsewhere = install_again(&plane, "elsewhere", &["--create-namespace", "--take-ownership"]).await;
    elsewhere.start().unwrap();
    is_repaired(&world).await;
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");
    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

async fn install_again(plane: &Plane, namespace: &str, flags: &[&str]) -> ControllerProcess {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/firebreak");
    let install = ["install", "firebreak", chart.to_str().unwrap(), "--namespace", namespace];
    plane.helm(&[&install, flags].concat()).await.unwrap();
    let kubeconfig = plane.service_account_kubeconfig(namespace, "firebreak").await.unwrap();
    let controller = ControllerProcess::new(CONTROLLER, &kubeconfig).arg("run").arg("--http-addr=127.0.0.1:0");
    controller.arg("--drift-interval=1s").env("POD_NAMESPACE", namespace).env("POD_NAME", "firebreak-0")
}

#[tokio::test]
async fn a_held_quarantine_that_is_deleted_stays_contained_and_says_so() {
    let Apart { plane, controller: _controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, before) = contained(&plane).await;
    let name = world.quarantine_of(&world.scene.instances[0].id).await.unwrap().name_any();
    let refused = plane.kubectl(&["delete", "quarantine", &name, "--wait=false"]).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("held by Incident {}/inc", world.namespace)), "{refused}");

    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/firebreak");
    let upgrade = ["upgrade", "firebreak", chart.to_str().unwrap(), "--namespace", NAMESPACE];
    plane.helm(&[&upgrade[..], &["--set", "admission.enabled=false"]].concat()).await.unwrap();
    eventually("the deletion gets through", SOON, async || {
        plane.kubectl(&["delete", "quarantine", &name, "--wait=false"]).await
    })
    .await;
    eventually("it says that it is held", SOON, async || {
        let status = world.all_quarantines().get(&name).await?.status.unwrap_or_default();
        let stalled = get_condition(&status.conditions, "Stalled").context("not Stalled")?;
        ensure!(stalled.reason == "DeletionBlocked", "{stalled:#?}");
        ensure!(stalled.message.contains(&format!("{}/inc", world.namespace)), "{stalled:#?}");
        Ok(())
    })
    .await;
    is_repaired(&world).await;
    world.until("inc", "Contained", "True").await;
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");

    world.release("inc").await;
    gone(&world.all_quarantines(), &name, SOON).await;
    assert_eq!(sight::groups(&world.aws, &world.scene.instances[0].interfaces).await.unwrap(), before);
    judge.assert_no_call_was_wrong();
}

#[tokio::test]
async fn the_hold_of_an_incident_that_went_by_force_is_retained() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, _) = contained(&plane).await;
    controller.kill_9();
    strip(&world.incidents()).await;
    controller.start().unwrap();
    until_retained(&world, false).await;
    is_repaired(&world).await;
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");
}

/// Deletes it and takes its finalizer off, while nobody sees it: that it said `Release` is not known any more.
async fn strip(incidents: &Api<Incident>) {
    incidents.delete("inc", &DeleteParams::default()).await.unwrap();
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    incidents.patch("inc", &PatchParams::default(), &patch).await.unwrap();
    gone(incidents, "inc", SOON).await;
}
