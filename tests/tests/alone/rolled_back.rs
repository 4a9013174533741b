//! A controller that is older than what is in the cluster: what it does not understand stops nothing.

use anyhow::ensure;
use firebreak_crds::{HolderState, Incident};
use firebreak_tests::eventually::eventually;
use firebreak_tests::plane::ControllerManager;
use firebreak_tests::world::SOON;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::json;

use crate::apart::{Apart, apart};
use crate::cascade::{contained, is_repaired};

/// A severity that a later version may have.
const LATER: &str = "Existential";

#[tokio::test]
async fn what_an_incident_that_cannot_be_read_holds_is_repaired_all_the_same() {
    let Apart { plane, mut controller, place: _place } = apart(ControllerManager::Absent, "1s").await;
    let (world, judge, _) = contained(&plane).await;
    controller.kill_9();
    let add = json!([{
        "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/severity/enum/-", "value": LATER,
    }]);
    let crds = Api::<CustomResourceDefinition>::all(world.kube.clone());
    let patch = Patch::Json::<()>(serde_json::from_value(add).unwrap());
    crds.patch("incidents.firebreak.dev", &PatchParams::default(), &patch).await.unwrap();
    let untyped: Api<DynamicObject> =
        Api::namespaced_with(world.kube.clone(), &world.namespace, &ApiResource::erase::<Incident>(&()));
    eventually("the API server takes it", SOON, async || {
        let patch = Patch::Merge(json!({ "spec": { "severity": LATER } }));
        Ok(untyped.patch("inc", &PatchParams::default(), &patch).await?)
    })
    .await;
    ensure_unreadable(&world.incidents()).await.unwrap();
    controller.start().unwrap();
    is_repaired(&world).await;
    for quarantine in world.quarantines().await {
        assert!(quarantine.spec.holders.iter().all(|h| h.state == HolderState::Holding), "its Incident is there");
    }
    assert_eq!(judge.assert_no_call_was_wrong(), 0, "nothing was opened");
}

async fn ensure_unreadable(incidents: &Api<Incident>) -> anyhow::Result<()> {
    let read = incidents.get("inc").await;
    ensure!(matches!(read, Err(kube::Error::SerdeError(_))), "{read:?}");
    Ok(())
}
