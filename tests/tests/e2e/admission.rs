//! What the API server refuses, with a message that names the field: by the CRDs' schemas and rules, and by the chart's
//! admission policies.

use firebreak_crds::{ContainmentPolicy, Incident};
use firebreak_tests::plane::Plane;
use firebreak_tests::shared;
use firebreak_tests::world::{World, manifest};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::ground_up::{controller, world};

/// The plane, with Firebreak installed.
async fn plane() -> &'static Plane {
    controller().await;
    shared::plane().await
}

/// A good manifest of each kind that people write, under a name of this test.
fn good(kind: &str, name: &str) -> Value {
    let user = json!({ "iamUser": { "accountRef": { "name": "nowhere" }, "userName": "mallory" } });
    let spec = match kind {
        "AwsAccount" => {
            json!({ "accountId": "999988887777", "regions": ["eu-west-1"], "endpointUrl": "http://127.0.0.1:1" })
        }
        "ContainmentPolicy" => json!({ "iamUser": { "contain": [{ "denyAll": {} }] } }),
        _ => json!({ "title": "t", "severity": "High", "policyRef": { "name": "standard" }, "targets": [user] }),
    };
    let mut manifest = manifest(kind, name, spec);
    if kind == "Incident" {
        manifest["metadata"]["namespace"] = json!("default");
    }
    manifest
}

/// The good manifest is accepted; with each change it is refused, and the message has the words.
async fn judge(kind: &str, cases: &[(&str, Value, &[&str])]) {
    let (plane, name) = (plane().await, format!("judged-{}", kind.to_lowercase()));
    for (path, value, words) in cases {
        let mut bad = good(kind, &format!("{name}-bad"));
        *bad.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap().get_mut_or_insert(path.rsplit('/').next().unwrap()) =
            value.clone();
        let refused = plane.apply(&bad.to_string()).await.expect_err(&format!("accepted: {bad:#}")).to_string();
        words.iter().for_each(|word| assert!(refused.contains(word), "no {word}, for {path}={value}: {refused}"));
    }
    plane.apply(&good(kind, &name).to_string()).await.unwrap();
    let namespace = if kind == "Incident" { "--namespace=default" } else { "--ignore-not-found" };
    plane.kubectl(&["delete", kind, &name, namespace]).await.unwrap();
}

trait Field {
    fn get_mut_or_insert(&mut self, field: &str) -> &mut Value;
}

impl Field for Value {
    /// An item of a list, or a field of an object, which need not be there.
    fn get_mut_or_insert(&mut self, field: &str) -> &mut Value {
        if self.is_array() { &mut self[field.parse::<usize>().unwrap()] } else { &mut self[field] }
    }
}

#[allow(clippy::needless_pass_by_value)] // callers write the criteria in place
fn selector(criteria: Value) -> Value {
    let mut selector = json!({ "accountRef": { "name": "nowhere" }, "region": "eu-west-1" });
    selector.as_object_mut().unwrap().extend(criteria.as_object().unwrap().clone());
    json!({ "ec2Selector": selector })
}

#[tokio::test]
async fn bad_incidents_are_refused_with_the_name_of_the_field() {
    let user = |name: &str| json!({ "iamUser": { "accountRef": { "name": "nowhere" }, "userName": name } });
    let instance = |region: &str, id: &str| json!({ "ec2Instance": { "accountRef": { "name": "nowhere" }, "region": region, "instanceId": id } });
    let key = |id: &str| json!({ "accessKey": { "accountRef": { "name": "nowhere" }, "accessKeyId": id } });
    let arn = |arn: &str| json!({ "arn": { "accountRef": { "name": "nowhere" }, "arn": arn } });
    let mut both = user("mallory");
    both["ec2Instance"] = instance("eu-west-1", "i-0123456789abcdef0")["ec2Instance"].clone();
    let vpc = "vpc-0123456789abcdef0";
    judge(
        "Incident",
        &[
            ("/spec/title", json!(""), &["spec.title"]),
            ("/spec/title", json!("two\nlines"), &["spec.title", "write one line"]),
            ("/spec/title", Value::Null, &["spec.title", "Required"]),
            ("/spec/severity", json!("Terrible"), &["spec.severity", "Critical"]),
            ("/spec/mode", json!("contain"), &["spec.mode", "Contain"]),
            ("/spec/deletionPolicy", json!("Keep"), &["spec.deletionPolicy", "Retain"]),
            ("/spec/policyRef", Value::Null, &["spec.policyRef"]),
            ("/spec/policyRef", json!({ "name": "" }), &["spec.policyRef.name"]),
            ("/spec/targets", json!([]), &["spec.targets"]),
            ("/spec/targets", json!([user("mallory"), user("mallory")]), &["targets: the same target is listed twice"]),
            (
                "/spec/targets/0",
                json!({}),
                &[
                    "spec.targets",
                    "exactly one of ec2Instance, iamUser, iamRole, accessKey, roleSession, arn and ec2Selector",
                ],
            ),
            ("/spec/targets/0", json!({ "iamUser": null }), &["spec.targets"]),
            (
                "/spec/targets/0",
                both,
                &[
                    "spec.targets",
                    "exactly one of ec2Instance, iamUser, iamRole, accessKey, roleSession, arn and ec2Selector",
                ],
            ),
            ("/spec/targets/0", user("no spaces"), &["spec.targets[0].iamUser.userName"]),
            ("/spec/targets/0", instance("eu-west-1", "i-123"), &["spec.targets[0].ec2Instance.instanceId"]),
            ("/spec/targets/0", instance("Ireland", "i-0123456789abcdef0"), &["spec.targets[0].ec2Instance.region"]),
            ("/spec/targets/0", key("ASIAIOSFODNN7EXAMPLE"), &["accessKeyId", "temporary key", "CloudTrail"]),
            ("/spec/targets/0", key("AROAIOSFODNN7EXAMPLE"), &["spec.targets[0].accessKey.accessKeyId"]),
            (
                "/spec/targets/0",
                arn("arn:aws:s3:::bucket"),
                &["spec.targets[0].arn.arn", "write the ARN of an EC2 instance"],
            ),
            ("/spec/targets/0", selector(json!({})), &["spec.targets[0].ec2Selector", "give at least one of tags"]),
            ("/spec/targets/0", selector(json!({ "tags": {} })), &["spec.targets[0].ec2Selector.tags"]),
            ("/spec/targets/0", selector(json!({ "vpcId": "*" })), &["spec.targets[0].ec2Selector.vpcId"]),
            ("/spec/targets/0", selector(json!({ "vpcId": vpc, "follow": true })), &["maxNewPerHour: needed with"]),
            ("/spec/targets/0", selector(json!({ "vpcId": vpc, "maxNewPerHour": 2 })), &["maxNewPerHour: only with"]),
            ("/spec/suspended", json!(true), &["spec.suspended", "unknown field"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn bad_policies_are_refused_with_the_name_of_the_field() {
    judge(
        "ContainmentPolicy",
        &[
            ("/spec/iamUser", json!({ "contain": [] }), &["spec.iamUser", "list at least one action"]),
            ("/spec/iamUser", json!({}), &["spec.iamUser", "list at least one action"]),
            ("/spec/iamUser/contain/0", json!({ "denyAll": null }), &["spec.iamUser.contain", "write `denyAll: {}`"]),
            ("/spec/iamUser/contain/0", json!({}), &["spec.iamUser.contain", "exactly one action"]),
            (
                "/spec/iamUser/contain/0",
                json!({ "denyAll": {}, "deactivateAccessKeys": {} }),
                &["spec.iamUser.contain", "exactly one action"],
            ),
            ("/spec/iamUser/contain", json!([{ "denyAll": {} }, { "denyAll": {} }]), &["the same key is listed twice"]),
            ("/spec/iamUser/contain/0", json!({ "denyAl": {} }), &["denyAl"]),
            ("/spec/ec2Instance", json!({ "contain": [], "evidence": [] }), &["spec.ec2Instance", "at least one item"]),
            (
                "/spec/ec2Instance",
                json!({ "contain": [{ "isolateNetwork": { "severTrackedConnections": "Sometimes" } }] }),
                &["spec.ec2Instance.contain[0].isolateNetwork.severTrackedConnections", "Auto"],
            ),
            ("/spec/ec2Instance", json!({ "contain": [{ "isolateNetwork": null }] }), &["write `isolateNetwork: {}`"]),
            ("/spec/ec2Instance", json!({ "evidence": [{ "ebsSnapshots": null }] }), &["spec.ec2Instance.evidence"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_key_with_nothing_after_it_is_refused() {
    // Sent as it is: `kubectl apply` leaves out what is null.
    let policies =
        Api::<DynamicObject>::all_with(plane().await.client().await, &ApiResource::erase::<ContainmentPolicy>(&()));
    for (path, value, word) in [
        ("/spec", json!({ "iamUser": null }), "nothing is written beneath it"),
        ("/spec", json!({ "ec2Instance": null }), "nothing is written beneath it"),
        ("/spec/iamUser/contain/0", json!({ "denyAll": null }), "write `denyAll: {}`"),
        ("/spec/iamUser/contain/0", json!({ "denyAll": {}, "deactivateAccessKeys": null }), "exactly one action"),
    ] {
        let mut bad = good("ContainmentPolicy", "judged-null");
        *bad.pointer_mut(path).unwrap() = value;
        let sent = policies.create(&PostParams::default(), &serde_json::from_value(bad.clone()).unwrap()).await;
        let refused = sent.expect_err(&bad.to_string()).to_string();
        assert!(refused.contains(word), "no {word}, for {bad}: {refused}");
    }
}

/// A selector with one criterion fewer than its author sees would choose more.
#[tokio::test]
async fn a_criterion_with_nothing_after_it_is_refused() {
    let kind = ApiResource::erase::<Incident>(&());
    let incidents = Api::<DynamicObject>::namespaced_with(plane().await.client().await, "default", &kind);
    for criterion in ["vpcId", "subnetId", "securityGroupId", "autoScalingGroup", "tags"] {
        let other = if criterion == "vpcId" { "sg-01234567" } else { "vpc-01234567" };
        let field = if criterion == "vpcId" { "securityGroupId" } else { "vpcId" };
        let mut bad = good("Incident", "judged-null");
        bad["spec"]["targets"][0] = selector(json!({ field: other, criterion: null }));
        let sent = incidents.create(&PostParams::default(), &serde_json::from_value(bad.clone()).unwrap()).await;
        let refused = sent.expect_err(&bad.to_string()).to_string();
        assert!(refused.contains("spec.targets[0].ec2Selector"), "{criterion}: {refused}");
    }
}

#[tokio::test]
async fn bad_accounts_are_refused_with_the_name_of_the_field() {
    let selector = |operator: &str| json!({ "matchExpressions": [{ "key": "team", "operator": operator, "values": [] }] });
    judge(
        "AwsAccount",
        &[
            ("/spec/accountId", json!("12345"), &["spec.accountId"]),
            ("/spec/accountId", json!(111_122_223_333_u64), &["spec.accountId", "string"]),
            ("/spec/regions", json!([]), &["spec.regions"]),
            ("/spec/regions", json!(["Ireland"]), &["spec.regions[0]"]),
            ("/spec/assumeRole", json!({ "roleArn": "firebreak" }), &["spec.assumeRole.roleArn"]),
            (
                "/spec/assumeRole",
                json!({ "roleArn": "arn:aws:iam::111122223333:role/firebreak" }),
                &["spec.assumeRole.roleArn", "one of the account in accountId"],
            ),
            ("/spec/endpointUrl", json!("localhost:4566"), &["spec.endpointUrl"]),
            ("/spec/allowedNamespaces", selector("In"), &["spec.allowedNamespaces", "matchExpressions"]),
            ("/spec/allowedNamespaces", selector("Equals"), &["spec.allowedNamespaces", "matchExpressions"]),
            ("/spec/prepare", json!({ "isolationGroups": "Always" }), &["spec.prepare.isolationGroups", "OnDemand"]),
            ("/spec/protected", json!({ "arns": ["break-glass"] }), &["spec.protected.arns[0]"]),
            ("/spec/limits", json!({ "maxQuarantines": -1 }), &["spec.limits.maxQuarantines"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_account_of_an_aws_account_cannot_be_changed() {
    let (world, _guard) = world().await;
    let patch = r#"{"spec":{"accountId":"999999999999","assumeRole":null}}"#;
    let refused = world.plane.kubectl(&["patch", "awsaccount", &world.account_name(), "--type=merge", "-p", patch]).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("spec.accountId") && refused.contains("cannot be changed"), "{refused}");
}

/// A contained world, and the name of the user's Quarantine.
async fn held(world: &World<'_>) -> String {
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    world.quarantine_of("mallory").await.unwrap().name_any()
}

#[tokio::test]
async fn a_held_quarantine_cannot_be_deleted_and_the_refusal_names_its_holders() {
    let (world, _guard) = world().await;
    let name = held(&world).await;
    world.declare("other", "Contain", json!({})).await;
    world.until_quarantine("mallory", "held by two", |q| q.spec.holders.len() == 2).await;
    for arguments in [&["delete", "quarantine", &name][..], &["delete", "quarantine", &name, "--cascade=foreground"]] {
        let refused = world.plane.kubectl(arguments).await.unwrap_err().to_string();
        for word in [&format!("{}/inc", world.namespace), &format!("{}/other", world.namespace), "mode: Release"] {
            assert!(refused.contains(word), "no {word}: {refused}");
        }
    }
    assert!(world.quarantine_of("mallory").await.unwrap().metadata.deletion_timestamp.is_none());
    firebreak_tests::sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn people_may_steer_a_quarantine_and_change_nothing_else_of_it() {
    let (world, _guard) = world().await;
    let name = held(&world).await;
    let api = world.all_quarantines();
    let change = async |patch: Value| api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    for (patch, word) in [
        (json!({ "spec": { "original": { "denyAll": "{}" } } }), "spec.original"),
        (json!({ "spec": { "original": { "more": "{}" } } }), "spec.original"),
        (json!({ "spec": { "original": null } }), "spec.original"),
        (json!({ "spec": { "holders": [] } }), "spec.holders"),
        (json!({ "spec": { "letGo": { "reactivateAccessKeys": true } } }), "spec.letGo"),
        (json!({ "spec": { "resource": { "id": "eve" } } }), "spec.resource"),
        (json!({ "spec": { "suspend": true, "holders": [] } }), "spec.holders"),
        (json!({ "metadata": { "finalizers": null } }), "finalizer"),
        (
            json!({ "metadata": { "annotations": { "firebreak.dev/contained-since": "2026-01-01T00:00:00Z" } } }),
            "contained-since",
        ),
        (json!({ "metadata": { "annotations": { "firebreak.dev/held-again": "1" } } }), "held-again"),
    ] {
        let refused = change(patch.clone()).await.expect_err(&format!("accepted: {patch}")).to_string();
        assert!(refused.contains(word), "no {word}, for {patch}: {refused}");
    }
    change(json!({ "spec": { "suspend": true } })).await.unwrap();
    change(json!({ "spec": { "suspend": false, "release": { "onConflict": "KeepTheirs" } } })).await.unwrap();
    change(json!({ "metadata": { "labels": { "team": "security" } } })).await.unwrap();
    world.until("inc", "Contained", "True").await;
}

#[tokio::test]
async fn quarantines_and_evidence_are_not_made_by_hand() {
    let (world, _guard) = world().await;
    let plane = world.plane;
    let namespace = format!("--namespace={}", world.namespace);
    let account = format!("--serviceaccount={}:responder", world.namespace);
    let binding = format!("responder-{}", world.namespace);
    plane.kubectl(&["create", "serviceaccount", "responder", &namespace]).await.unwrap();
    plane.kubectl(&["create", "clusterrolebinding", &binding, "--clusterrole=cluster-admin", &account]).await.unwrap();
    let kubeconfig = plane.service_account_kubeconfig(&world.namespace, "responder").await.unwrap();
    let responder = firebreak_tests::plane::client_of(&kubeconfig).await.unwrap();
    held(&world).await;
    let mut copy = world.quarantine_of("mallory").await.unwrap();
    copy.metadata = kube::api::ObjectMeta { name: Some(format!("copy-{}", world.namespace)), ..Default::default() };
    let quarantines = Api::<firebreak_crds::Quarantine>::all(responder.clone());
    let refused = quarantines.create(&PostParams::default(), &copy).await.unwrap_err().to_string();
    assert!(refused.contains("create an Incident"), "{refused}");
    let mut evidence = world.evidence().await.pop().unwrap();
    evidence.metadata = copy.metadata.clone();
    let pieces = Api::<firebreak_crds::Evidence>::all(responder.clone());
    let refused = pieces.create(&PostParams::default(), &evidence).await.unwrap_err().to_string();
    assert!(refused.contains("create an Incident"), "{refused}");

    let incidents = Api::<firebreak_crds::Incident>::namespaced(responder, &world.namespace);
    incidents.delete("inc", &DeleteParams::default()).await.unwrap();
    firebreak_tests::eventually::gone(&world.incidents(), "inc", firebreak_tests::world::SOON).await;
}
