//! On an emulator that enforces IAM: what a deny does to the keys and the sessions of a user, and what is left of them after the
//! release.

use anyhow::ensure;
use firebreak_crds::{AwsAccount, Incident};
use firebreak_tests::emulator::REGION;
use firebreak_tests::enforcing::{ACCOUNT, EnforcingEmulator};
use firebreak_tests::eventually::{condition, eventually};
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::scene::USER;
use firebreak_tests::world::SOON;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
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

/// A statement of the policy of `revokeInstanceRole`.
fn deny(session: &str, before: Option<Timestamp>) -> Value {
    let mut condition = json!({ "StringEquals": { "aws:userid": [session] } });
    if let Some(cutoff) = before {
        condition["DateLessThan"] = json!({ "aws:TokenIssueTime": cutoff.to_string() });
    }
    json!({ "Sid": "Firebreak", "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition })
}

/// What `revokeInstanceRole` puts on a role while an instance is contained, and after its release.
#[tokio::test]
async fn the_denies_of_one_instances_sessions_are_no_others() {
    let aws = EnforcingEmulator::start().await.unwrap();
    let (role, iam) = (aws.role("web").await.unwrap(), aws.root().iam);
    let put = async |statement: Value| {
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
        iam.put_role_policy().role_name("web").policy_name("deny").policy_document(document).send().await.unwrap();
    };
    let session = async |instance: &str| aws.role_session("web", instance).await.unwrap();
    let (contained, other) = (session("i-0123456789abcdef0").await, session("i-0fedcba9876543210").await);
    let (id, now) = (format!("{role}:i-0123456789abcdef0"), Timestamp::now());
    put(deny(&id, None)).await;
    assert_eq!((aws.answer(&contained).await, aws.answer(&other).await), (DENIED.into(), "Ok".into()));
    assert_eq!(aws.answer(&session("i-0123456789abcdef0").await).await, DENIED, "new ones, too");

    let cutoff = Timestamp::from_second(now.as_second()).unwrap() + SignedDuration::from_secs(3);
    put(deny(&id, Some(cutoff))).await;
    assert_eq!((aws.answer(&contained).await, aws.answer(&other).await), (DENIED.into(), "Ok".into()));
    eventually("a session issued after the cutoff is not denied", SOON, async || {
        let answer = aws.answer(&session("i-0123456789abcdef0").await).await;
        ensure!(answer == "Ok", "{answer}");
        Ok(())
    })
    .await;
    assert_eq!(aws.answer(&contained).await, DENIED);
}
