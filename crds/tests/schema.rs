//! Facts about the generated definitions: names, columns, and bounds on everything that people can write.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not known to be tests")]

use firebreak_crds::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;

fn crd(kind: &str) -> CustomResourceDefinition {
    crds().into_iter().find(|c| c.spec.names.kind == kind).unwrap()
}

fn version(crd: &CustomResourceDefinition) -> &CustomResourceDefinitionVersion {
    &crd.spec.versions[0]
}

fn schema(crd: &CustomResourceDefinition) -> Value {
    let validation = version(crd).schema.as_ref().unwrap();
    serde_json::to_value(validation.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// The schema at a path: `spec.targets[].iamUser`.
fn at(kind: &str, path: &str) -> Value {
    path.split('.').fold(schema(&crd(kind)), |schema, step| match step.strip_suffix("[]") {
        Some(list) => schema["properties"][list]["items"].clone(),
        None => schema["properties"][step].clone(),
    })
}

/// Calls `look` with the path and the schema of every property, list item and map value.
fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, look);
    }
    for (part, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[part].is_object() {
            walk(&format!("{path}{mark}"), &schema[part], look);
        }
    }
}

fn everywhere(mut look: impl FnMut(&str, &Value)) {
    for crd in crds() {
        walk(&crd.spec.names.kind, &schema(&crd), &mut look);
    }
}

#[test]
fn kinds_have_the_names_that_people_type() {
    for (kind, plural, short, scope) in [
        ("AwsAccount", "awsaccounts", "awsa", "Cluster"),
        ("ContainmentPolicy", "containmentpolicies", "cpol", "Cluster"),
        ("Incident", "incidents", "inc", "Namespaced"),
        ("Quarantine", "quarantines", "quar", "Cluster"),
        ("Evidence", "evidence", "evd", "Cluster"),
        ("Approval", "approvals", "appr", "Namespaced"),
    ] {
        let crd = crd(kind);
        assert_eq!(crd.metadata.name.as_deref(), Some(format!("{plural}.firebreak.dev").as_str()));
        assert_eq!(crd.spec.names.plural, plural);
        assert_eq!(crd.spec.names.short_names.as_deref(), Some([short.to_owned()].as_slice()));
        assert_eq!(crd.spec.names.categories.as_deref(), Some(["firebreak".to_owned()].as_slice()));
        assert_eq!(crd.spec.scope, scope);
        assert_eq!(version(&crd).name, "v1alpha1");
    }
}

#[test]
fn kinds_that_the_controller_only_reads_have_no_status() {
    for crd in crds() {
        let has_status = version(&crd).subresources.as_ref().is_some_and(|s| s.status.is_some());
        let only_read = ["ContainmentPolicy", "Approval"].contains(&crd.spec.names.kind.as_str());
        assert_eq!(has_status, !only_read, "{}", crd.spec.names.kind);
    }
}

#[test]
fn columns_say_whether_it_is_contained() {
    for (kind, narrow) in [
        ("AwsAccount", "ACCOUNT READY REASON AGE"),
        ("ContainmentPolicy", "APPROVALS BY-GROUP AGE"),
        ("Incident", "MODE CONTAINED EVIDENCE APPROVED SEVERITY READY REASON AGE"),
        ("Quarantine", "CONTAINED REASON REPAIRS AGE"),
        ("Evidence", "INCIDENT PROGRESS READY AGE"),
        ("Approval", "INCIDENT APPROVED-BY AGE"),
    ] {
        let columns = version(&crd(kind)).additional_printer_columns.clone().unwrap();
        let shown: Vec<_> = columns.iter().filter(|c| c.priority.unwrap_or(0) == 0).map(|c| c.name.as_str()).collect();
        assert_eq!(shown.join(" "), narrow, "{kind}");
    }
}

#[test]
fn field_selectors_find_what_the_controller_looks_for() {
    for (kind, expected) in [
        ("AwsAccount", ".spec.accountId"),
        ("Incident", ".spec.mode .spec.severity"),
        ("Quarantine", ".spec.resource.accountId .spec.resource.id"),
        ("Evidence", ".spec.incidentRef.uid .spec.resource.id"),
    ] {
        let fields = version(&crd(kind)).selectable_fields.clone().unwrap();
        let paths: Vec<_> = fields.iter().map(|f| f.json_path.as_str()).collect();
        assert_eq!(paths.join(" "), expected, "{kind}");
    }
}

#[test]
fn patterns_accept_what_aws_gives_out() {
    for (kind, path, pattern) in [
        ("AwsAccount", "spec.accountId", r"^[0-9]{12}$"),
        ("AwsAccount", "spec.regions[]", r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$"),
        ("AwsAccount", "spec.assumeRole.roleArn", r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$"),
        ("AwsAccount", "spec.protected.arns[]", r"^(arn:|\*)"),
        ("Incident", "spec.targets[].ec2Instance.region", r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$"),
        ("Incident", "spec.targets[].ec2Instance.instanceId", r"^i-([0-9a-f]{8}|[0-9a-f]{17})$"),
        ("Incident", "spec.targets[].iamUser.userName", r"^[A-Za-z0-9+=,.@_-]{1,64}$"),
        ("Incident", "spec.targets[].iamRole.roleName", r"^[A-Za-z0-9+=,.@_-]{1,64}$"),
        ("Incident", "spec.targets[].roleSession.roleName", r"^[A-Za-z0-9+=,.@_-]{1,64}$"),
        ("Incident", "spec.targets[].roleSession.sessionName", r"^[A-Za-z0-9+=,.@_-]{2,64}$"),
        ("Incident", "spec.targets[].accessKey.accessKeyId", r"^A[KS]IA[A-Z0-9]{16}$"),
        ("Incident", "spec.targets[].ec2Selector.vpcId", r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$"),
        ("Incident", "spec.targets[].ec2Selector.subnetId", r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$"),
        ("Incident", "spec.targets[].ec2Selector.securityGroupId", r"^sg-([0-9a-f]{8}|[0-9a-f]{17})$"),
        ("Quarantine", "spec.resource.accountId", r"^[0-9]{12}$"),
        ("Approval", "spec.planDigest", r"^[0-9a-f]{64}$"),
    ] {
        assert_eq!(at(kind, path)["pattern"], pattern, "{kind} {path}");
    }
}

#[test]
fn defaults_are_the_careful_choice() {
    for (kind, path, default) in [
        ("AwsAccount", "spec.prepare.isolationGroups", Value::from("OnDemand")),
        ("AwsAccount", "spec.prepare.denyProfile", Value::from("OnDemand")),
        ("ContainmentPolicy", "spec.release.reactivateAccessKeys", false.into()),
        ("ContainmentPolicy", "spec.release.reactivateCredentials", false.into()),
        ("ContainmentPolicy", "spec.ec2Instance.contain[].isolateNetwork.severTrackedConnections", "Auto".into()),
        ("ContainmentPolicy", "spec.accessKey.scope", "Key".into()),
        ("Incident", "spec.mode", "Plan".into()),
        ("Incident", "spec.deletionPolicy", "Retain".into()),
        ("Incident", "spec.suspend", false.into()),
        ("Incident", "spec.targets[].ec2Selector.follow", false.into()),
        ("Quarantine", "spec.suspend", false.into()),
    ] {
        assert_eq!(at(kind, path)["default"], default, "{kind} {path}");
    }
}

#[test]
fn abbreviations_keep_their_case() {
    assert_eq!(at("Evidence", "status.volumes[].sizeGiB")["type"], "integer");
}

#[test]
fn the_record_of_originals_is_bounded() {
    let original = at("Quarantine", "spec.original");
    assert_eq!((&original["maxProperties"], &original["additionalProperties"]["maxLength"]), (&256.into(), &16384.into()));
}

/// A selector without a criterion would choose every instance of the region.
#[test]
fn no_tags_are_no_criterion() {
    let tags = at("Incident", "spec.targets[].ec2Selector.tags");
    assert_eq!((&tags["minProperties"], &tags["additionalProperties"]["maxLength"]), (&1.into(), &256.into()));
}

#[test]
fn lists_with_an_identity_merge_by_it() {
    for (kind, path, key) in [
        ("Quarantine", "spec.holders", "uid"),
        ("Quarantine", "spec.conversions", "interfaceId"),
        ("Quarantine", "status.actions", "name"),
        ("Quarantine", "status.conditions", "type"),
        ("Incident", "status.conditions", "type"),
        ("AwsAccount", "status.conditions", "type"),
        ("Evidence", "status.conditions", "type"),
        ("Evidence", "status.volumes", "snapshotId"),
    ] {
        let list = at(kind, path);
        assert_eq!(list["x-kubernetes-list-type"], "map", "{kind} {path}");
        assert_eq!(list["x-kubernetes-list-map-keys"], serde_json::json!([key]), "{kind} {path}");
    }
}

#[test]
fn everything_is_described() {
    everywhere(|path, schema| {
        let is_property = !path.ends_with("[]") && !path.ends_with("{}");
        assert!(!is_property || schema["description"].is_string(), "{path} has no description");
    });
}

/// The API server would keep what nobody declared, and CEL cannot read such a field.
#[test]
fn nothing_undeclared_is_kept() {
    everywhere(|path, schema| {
        assert!(schema["x-kubernetes-preserve-unknown-fields"].is_null(), "{path} keeps unknown fields");
    });
}

/// `uint32` and its like make the API server warn on every apply.
#[test]
fn formats_are_those_that_kubernetes_knows() {
    everywhere(|path, schema| {
        let known = [Value::Null, "date-time".into(), "int32".into(), "int64".into()];
        assert!(known.contains(&schema["format"]), "{path}: {}", schema["format"]);
    });
}

/// Bounds are what CEL's cost is estimated from. Kubernetes' own types come without.
#[test]
fn what_people_write_is_bounded() {
    everywhere(|path, schema| {
        if path.contains(".status") || path.contains(".allowedNamespaces") {
            return;
        }
        match schema["type"].as_str() {
            Some("array") => assert!(schema["maxItems"].is_number(), "{path} has no maxItems"),
            Some("string") => {
                let bounded = ["maxLength", "enum"].iter().any(|b| !schema[b].is_null()) || schema["format"] == "date-time";
                assert!(bounded, "{path} has no maxLength");
            }
            _ if schema["additionalProperties"].is_object() => {
                assert!(schema["maxProperties"].is_number(), "{path} has no maxProperties");
            }
            _ => {}
        }
    });
}

/// Every rule says in words what is wrong, rather than showing its CEL.
#[test]
fn every_rule_has_a_message() {
    everywhere(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].is_string(), "{path}: {rule}");
        }
    });
}
