//! On an emulator that enforces IAM: what a deny does to the keys and the sessions of a user, and what is left of them after the
//! release.

use firebreak_crds::{AwsAccount, Incident};
use firebreak_tests::emulator::REGION;
use firebreak_tests::enforcing::{ACCOUNT, EnforcingEmulator};
use firebreak_tests::eventually::condition;
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::USER;
use firebreak_tests::world::SOON;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::apart::{Apart, prepared};

const DENIED: &str = "UnauthorizedOperation";

#[allow(clippy::needless_pass_by_value)] // callers write the spec in place
fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "firebreak.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The account, a policy that gives keys back, and the Incident.
async fn declare(plane: &Plane, endpoint: &str) {
    let account = json!({ "accountId": ACCOUNT, "regions": [REGION], "endpointUrl": endpoint, "allowedNamespaces": {} });
    plane.apply(&object("AwsAccount", "enforcing", account).to_string()).await.unwrap();
    let contain = json!({ "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] });
    let policy = json!({ "iamUser": contain, "release": { "reactivateAccessKeys": true } });
    plane.apply(&object("ContainmentPolicy", "keys-come-back", policy).to_string()).await.unwrap();
    let target = json!({ "iamUser": { "accountRef": { "name": "enforcing" }, "userName": USER } });
    let spec = json!({
        "title": "A test", "severity": "High", "mode": "Contain",
        "policyRef": { "name": "keys-come-back" }, "targets": [target],
    });
    let mut incident = object("Incident", "inc", spec);
    incident["metadata"]["namespace"] = json!("default");
    plane.apply(&incident.to_string()).await.unwrap();
}

#[tokio::test]
async fn a_session_from_before_stays_denied_after_the_release() {
    let Apart { plane, controller, place: _place } = prepared(ControllerManager::Absent, "1s").await;
    let aws = EnforcingEmulator::start().await.unwrap();
    let key = aws.user().await.unwrap();
    let session = aws.session(&key).await.unwrap();
    assert_eq!((aws.answer(&key).await, aws.answer(&session).await), ("Ok".into(), "Ok".into()));

    let mut controller = controller.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    controller.start().unwrap();
    declare(&plane, &aws.url()).await;
    let kube = plane.client().await;
    condition(&Api::<AwsAccount>::all(kube.clone()), "enforcing", "Ready", "True", SOON).await;
    let incidents = Api::<Incident>::namespaced(kube, "default");
    condition(&incidents, "inc", "Contained", "True", SOON).await;
    assert_eq!((aws.answer(&key).await, aws.answer(&session).await), ("AuthFailure".into(), DENIED.into()));

    let release = Patch::Merge(json!({ "spec": { "mode": "Release" } }));
    incidents.patch("inc", &PatchParams::default(), &release).await.unwrap();
    condition(&incidents, "inc", "Released", "True", SOON).await;
    assert_eq!(aws.answer(&key).await, "Ok", "the policy gives it back");
    assert_eq!(aws.answer(&session).await, DENIED, "it was issued before the release");
}
