//! The CEL rules, evaluated without a cluster: what each refuses, and that its message names the field.
//!
//! A null (`denyAll:` with nothing after it) is left to the tests on a real API server: the evaluator here sees it otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not known to be tests")]

use firebreak_crds::{Approval, AwsAccount, ContainmentPolicy, Evidence, Incident, Quarantine};
use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde_json::{Value, json};

/// The schema of the kind's spec. The evaluator has no types, and so no `dyn()`, which only takes them away.
fn spec_schema<K: CustomResourceExt>() -> Value {
    let crd = serde_json::to_string(&K::crd()).unwrap().replace("dyn(self)", "self"); // also in dyn(self)[key]
    let crd: Value = serde_json::from_str(&crd).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Each value is accepted (`""`), or refused with a message that contains the text.
fn judge<K: CustomResourceExt>(cases: Vec<(Value, &str)>) {
    judge_changes::<K>(cases.into_iter().map(|(new, refusal)| (None, new, refusal)).collect());
}

/// As `judge`, for changes from an old value.
fn judge_changes<K: CustomResourceExt>(cases: Vec<(Option<Value>, Value, &str)>) {
    let schema = spec_schema::<K>();
    for (old, new, refusal) in cases {
        match Validator::new().validate(&schema, &new, old.as_ref()) {
            Ok(()) => assert!(refusal.is_empty(), "accepted, but should not be: {new}"),
            Err(e) => assert!(!refusal.is_empty() && e.to_string().contains(refusal), "{new}: {e}"),
        }
    }
}

/// The access key of AWS's own documentation.
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

fn user(name: &str) -> Value {
    json!({"iamUser": {"accountRef": {"name": "prod"}, "userName": name}})
}

fn role(name: &str) -> Value {
    json!({"iamRole": {"accountRef": {"name": "prod"}, "roleName": name}})
}

fn key(id: &str) -> Value {
    json!({"accessKey": {"accountRef": {"name": "prod"}, "accessKeyId": id}})
}

fn session(name: &str) -> Value {
    json!({"roleSession": {"accountRef": {"name": "prod"}, "roleName": "build", "sessionName": name}})
}

fn instance(id: &str) -> Value {
    json!({"ec2Instance": {"accountRef": {"name": "prod"}, "region": "eu-west-1", "instanceId": id}})
}

fn incident(title: &str, targets: &[Value]) -> Value {
    json!({"title": title, "severity": "High", "policyRef": {"name": "standard"}, "targets": targets})
}

#[test]
fn a_target_has_exactly_one_kind() {
    let mut both = user("mallory");
    both["ec2Instance"] = instance("i-0123456789abcdef0")["ec2Instance"].clone();
    judge::<Incident>(vec![
        (
            incident("x", &[user("mallory"), instance("i-0123456789abcdef0"), role("mallory"), key(KEY), session("ci-job")]),
            "",
        ),
        (
            incident("x", &[json!({})]),
            "targets: each item needs exactly one of ec2Instance, iamUser, iamRole, accessKey, roleSession, arn and ec2Selector",
        ),
        (
            incident("x", &[user("mallory"), both]),
            "targets: each item needs exactly one of ec2Instance, iamUser, iamRole, accessKey, roleSession, arn and ec2Selector",
        ),
    ]);
}

#[test]
fn an_arn_is_of_something_that_can_be_contained_in_any_partition() {
    let named = |arn: &str| incident("x", &[json!({"arn": {"accountRef": {"name": "prod"}, "arn": arn}})]);
    let refusal = "arn: write the ARN of an EC2 instance, an IAM user, an IAM role, or a role's session";
    for (arn, refusal) in [
        ("arn:aws:ec2:eu-west-1:111122223333:instance/i-0123456789abcdef0", ""),
        ("arn:aws-us-gov:ec2:us-gov-west-1:111122223333:instance/i-0123456789abcdef0", ""),
        ("arn:aws-cn:iam::111122223333:user/mallory", ""),
        ("arn:aws:iam::111122223333:user/ops/eu/mallory@example.com", ""),
        ("arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123456789abcdef", ""),
        ("arn:aws:sts::111122223333:assumed-role/build/i-0123456789abcdef0", ""),
        ("arn:aws:ec2:eu-west-1:111122223333:instance/mallory", refusal),
        ("arn:aws:ec2:eu-west-1:111122223333:volume/vol-0123456789abcdef0", refusal),
        ("arn:aws-iso:iam::111122223333:user/mallory", refusal),
        ("arn:aws:iam::111122223333:root", "nothing in an account holds its root user back"),
        ("arn:aws:iam::111122223333:user/", refusal),
        ("arn:aws:iam::aws:policy/AWSDenyAll", refusal),
        ("arn:aws:sts::111122223333:assumed-role/build", refusal),
        ("arn:aws:sts::111122223333:assumed-role/build/a/b", refusal),
        ("mallory", refusal),
    ] {
        judge::<Incident>(vec![(named(arn), refusal)]);
    }
}

#[test]
fn a_temporary_key_is_refused_with_where_to_look_for_whose_it_is() {
    let temporary = KEY.replace("AKIA", "ASIA");
    let refusal = "accessKeyId: ASIA... is a temporary key, of a session";
    judge::<Incident>(vec![(incident("x", &[key(KEY)]), ""), (incident("x", &[key(&temporary)]), refusal)]);
}

#[test]
fn a_selector_has_a_criterion_and_follows_only_within_a_limit() {
    let selector = |criteria: Value| {
        let mut selector = json!({"accountRef": {"name": "prod"}, "region": "eu-west-1", "follow": false});
        selector.as_object_mut().unwrap().extend(criteria.as_object().unwrap().clone());
        incident("x", &[json!({"ec2Selector": selector})])
    };
    let (no_criterion, needed) = ("ec2Selector: give at least one of tags", "ec2Selector.maxNewPerHour: needed with");
    let only_with = "ec2Selector.maxNewPerHour: only with `follow: true`";
    let web = || json!({"team": "web"});
    judge::<Incident>(vec![
        (selector(json!({"tags": web()})), ""),
        (selector(json!({"vpcId": "vpc-0123456789abcdef0", "subnetId": "subnet-01234567"})), ""),
        (selector(json!({"securityGroupId": "sg-0123456789abcdef0"})), ""),
        (selector(json!({"autoScalingGroup": "web fleet/1"})), ""),
        (selector(json!({})), no_criterion),
        (selector(json!({"follow": true, "maxNewPerHour": 2})), no_criterion),
        (selector(json!({"tags": web(), "follow": true, "maxNewPerHour": 0})), ""),
        (selector(json!({"tags": web(), "follow": true})), needed),
        (selector(json!({"tags": web(), "maxNewPerHour": 2})), only_with),
        (selector(json!({"tags": {"": "web"}})), "ec2Selector.tags: a key has 1 to 128 characters"),
    ]);
}

#[test]
fn a_target_is_listed_once() {
    let mut elsewhere = user("mallory");
    elsewhere["iamUser"]["accountRef"]["name"] = "staging".into();
    judge::<Incident>(vec![
        (incident("x", &[user("mallory"), user("Mallory"), elsewhere]), ""),
        (incident("x", &[user("mallory"), user("eve"), user("mallory")]), "targets: the same target is listed twice"),
    ]);
}

#[test]
fn a_title_is_one_line() {
    let titled = |title| incident(title, &[user("mallory")]);
    judge::<Incident>(vec![
        (titled("Crypto-mining on a web server"), ""),
        (titled("what `title: >` gives ends in a newline\n"), ""),
        (titled("  "), "title: write one line"),
        (titled("one\ntwo"), "title: write one line"),
    ]);
}

#[test]
fn an_incident_may_be_edited_in_every_way() {
    judge_changes::<Incident>(vec![(
        Some(incident("x", &[user("mallory")])),
        incident("y", &[instance("i-0123456789abcdef0")]),
        "",
    )]);
}

#[test]
fn an_item_of_a_policy_has_one_action_and_no_action_is_listed_twice() {
    let policy = |instance: Value, user: Value| json!({"ec2Instance": instance, "iamUser": user});
    let users = |contain: Value| json!({"iamUser": {"contain": contain}});
    let instances = |key: &str, items: Value| json!({"ec2Instance": {key: items}});
    judge::<ContainmentPolicy>(vec![
        (
            policy(
                json!({"contain": [{"isolateNetwork": {}}], "evidence": [{"ebsSnapshots": {}}]}),
                json!({"contain": [{"denyAll": {}}, {"deactivateAccessKeys": {}}]}),
            ),
            "",
        ),
        (users(json!([{}])), "iamUser.contain: each item needs exactly one action"),
        (users(json!([{"denyAll": {}, "deactivateAccessKeys": {}}])), "write `denyAll: {}`, not `denyAll:`"),
        (users(json!([{"denyAll": {}}, {"denyAll": {}}])), "iamUser.contain: the same key is listed twice"),
        (users(json!([{"deactivateAccessKeys": {}}, {"deactivateAccessKeys": {}}])), "iamUser.contain: the same key"),
        (instances("contain", json!([{"isolateNetwork": {}}, {"protectFromTermination": {}}])), ""),
        (instances("contain", json!([{"disableInstanceMetadata": {}}, {"disableInstanceMetadata": {}}])), "the same key"),
        (instances("contain", json!([{"removePublicAddresses": {}}, {"removePublicAddresses": {}}])), "the same key"),
        (instances("contain", json!([{"terminateSessions": {}}, {"terminateSessions": {}}])), "the same key"),
        (instances("contain", json!([{"protectFromTermination": {}}, {"protectFromTermination": {}}])), "the same key"),
        (instances("contain", json!([{"stopInstance": {}}, {"stopInstance": {}}])), "the same key"),
        (instances("contain", json!([{"protectFromTermination": {}}, {"stopInstance": {}}])), ""),
        (instances("contain", json!([{"stopInstance": {}}, {"terminateInstance": {}}])), ""),
        (
            instances("contain", json!([{"terminateInstance": {}}, {"protectFromTermination": {}}])),
            "protectFromTermination and terminateInstance contradict each other",
        ),
        (instances("contain", json!([{}])), "ec2Instance.contain: each item needs exactly one action"),
        (instances("contain", json!([{"isolateNetwork": {}}, {"isolateNetwork": {}}])), "ec2Instance.contain: the same key"),
        (instances("evidence", json!([{}])), "ec2Instance.evidence: each item needs exactly one kind"),
        (instances("evidence", json!([{"ebsSnapshots": {}}, {"ebsSnapshots": {}}])), "ec2Instance.evidence: the same key"),
    ]);
}

#[test]
fn an_allow_list_names_narrow_networks_and_ports() {
    let flow = |cidr: &str| json!({"cidr": cidr, "protocol": "tcp", "fromPort": 22});
    let policy = |allow: Value| json!({"ec2Instance": {"contain": [{"isolateNetwork": {"allow": allow}}]}});
    let allows = |flow: Value| policy(json!({"egress": [flow]}));
    let (networks, wide) = ("each cidr is a network", "what is open to 0.0.0.0/0, ::/0 or another wide network");
    let ports = "tcp and udp need fromPort";
    judge::<ContainmentPolicy>(vec![
        (policy(json!({})), ""),
        (policy(json!({"ingress": [flow("10.0.0.5/32")], "egress": [flow("10.0.0.0/8"), flow("2001:db8::/32")]})), ""),
        (policy(json!({"ingress": [flow("10.0.0.5/32"), flow("0.0.0.0/0")]})), wide),
        (allows(flow("0.0.0.0/0")), wide),
        (allows(flow("::/0")), wide),
        (allows(flow("8.0.0.0/7")), wide),
        (allows(flow("2000::/31")), wide),
        (allows(flow("10.0.0.5/8")), networks),
        (allows(flow("10.0.0.5")), networks),
        (allows(flow("workstation")), networks),
        (allows(json!({"cidr": "10.0.0.5/32", "protocol": "tcp"})), ports),
        (allows(json!({"cidr": "10.0.0.5/32", "protocol": "udp", "fromPort": 22, "toPort": 21})), ports),
        (allows(json!({"cidr": "10.0.0.5/32", "protocol": "udp", "fromPort": 22, "toPort": 22})), ""),
        (allows(json!({"cidr": "10.0.0.5/32", "protocol": "all"})), ""),
        (allows(json!({"cidr": "10.0.0.5/32", "protocol": "all", "fromPort": 22})), ports),
    ]);
}

#[test]
fn an_isolation_has_a_list_or_groups() {
    let policy = |isolate: Value| json!({"ec2Instance": {"contain": [{"isolateNetwork": isolate}]}});
    let list = json!({"ingress": [{"cidr": "10.0.0.5/32", "protocol": "all"}]});
    judge::<ContainmentPolicy>(vec![
        (policy(json!({"securityGroupIds": ["sg-0123456789abcdef0"]})), ""),
        (policy(json!({"allow": list, "securityGroupIds": []})), ""),
        (policy(json!({"allow": list, "securityGroupIds": ["sg-0123456789abcdef0"]})), "either allow or securityGroupIds"),
    ]);
}

#[test]
fn a_section_of_a_policy_says_what_to_do() {
    judge::<ContainmentPolicy>(vec![
        (json!({}), ""),
        (json!({"ec2Instance": {"evidence": [{"ebsSnapshots": {}}]}}), ""),
        (json!({"ec2Instance": {"contain": [], "evidence": []}}), "ec2Instance: list at least one item"),
        (json!({"iamUser": {"contain": []}}), "iamUser.contain: list at least one action"),
        (json!({"iamRole": {"contain": []}}), "iamRole.contain: list at least one action"),
        (json!({"iamRole": {"contain": [{"revokeSessions": {}}, {"sealTrustPolicy": {}}]}}), ""),
        (json!({"iamRole": {"contain": [{}]}}), "iamRole.contain: each item needs exactly one action"),
        (json!({"iamRole": {"contain": [{"denyAll": {}}, {"denyAll": {}}]}}), "iamRole.contain: the same key"),
        (json!({"roleSession": {"contain": [{"denySession": {}}]}}), ""),
        (json!({"roleSession": {"contain": []}}), "roleSession.contain: list at least one action"),
        (json!({"roleSession": {"contain": [{}]}}), "roleSession.contain: each item needs exactly one action"),
    ]);
}

#[test]
fn an_access_key_is_contained_by_itself_or_with_its_user() {
    let keys = |access_key: Value| json!({"accessKey": access_key});
    let off = || json!([{"deactivateAccessKeys": {}}]);
    let mut with_user = keys(json!({"scope": "User"}));
    with_user["iamUser"] = json!({"contain": [{"denyAll": {}}]});
    let list = "accessKey.contain: list at least one action";
    judge::<ContainmentPolicy>(vec![
        (keys(json!({"contain": [{"deactivateAccessKeys": {}}, {"revokeSessions": {}}]})), ""),
        (keys(json!({"scope": "Key", "contain": off()})), ""),
        (with_user, ""),
        (keys(json!({"scope": "User"})), "accessKey.scope: with User, what iamUser lists is done to the key's user"),
        (keys(json!({"scope": "User", "contain": off()})), list),
        (keys(json!({"scope": "Key"})), list),
        (keys(json!({"contain": []})), list),
        (keys(json!({"contain": [{}]})), "accessKey.contain: each item needs exactly one action"),
        (keys(json!({"contain": [{"revokeSessions": {}}, {"revokeSessions": {}}]})), "accessKey.contain: the same key"),
    ]);
}

#[test]
fn approvals_are_of_actions_that_the_policy_has() {
    let policy = |approvals: Value| {
        json!({
            "ec2Instance": {"contain": [{"isolateNetwork": {}}]},
            "iamUser": {"contain": [{"denyAll": {}}, {"deactivateAccessKeys": {}}]},
            "approvals": approvals,
        })
    };
    let evidence_only =
        json!({"ec2Instance": {"evidence": [{"ebsSnapshots": {}}]}, "approvals": {"actions": ["ebsSnapshots"]}});
    let refusal = "approvals.actions: name only actions that this policy lists under contain";
    judge::<ContainmentPolicy>(vec![
        (policy(json!({"actions": ["denyAll"]})), ""),
        (policy(json!({"actions": ["isolateNetwork", "deactivateAccessKeys"], "count": 2, "group": "leads"})), ""),
        (policy(json!({"actions": ["denyAll", "DenyAll"]})), refusal),
        (policy(json!({"actions": ["contain"]})), refusal),
        (evidence_only, refusal),
        (json!({"iamUser": {"contain": [{"denyAll": {}}]}, "approvals": {"actions": ["isolateNetwork"]}}), refusal),
    ]);
}

#[test]
fn an_approval_is_of_one_plan_for_ever() {
    let given = |by: &str, digest: char| {
        let digest = digest.to_string().repeat(64);
        json!({"incidentRef": {"name": "inc", "uid": "1"}, "planDigest": digest, "approvedBy": by, "groups": ["leads"]})
    };
    let refusal = "the spec of an Approval cannot be changed";
    judge::<Approval>(vec![(given("bob", 'a'), "")]);
    judge_changes::<Approval>(vec![
        (Some(given("bob", 'a')), given("bob", 'a'), ""),
        (Some(given("bob", 'a')), given("bob", 'b'), refusal),
        (Some(given("bob", 'a')), given("carol", 'a'), refusal),
    ]);
}

fn account(more: &Value) -> Value {
    let mut spec = json!({"accountId": "111122223333", "regions": ["eu-west-1"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn by_default_one_person_of_any_group_approves_what_no_policy_names() {
    let spec: firebreak_crds::AwsAccountSpec = serde_json::from_value(account(&json!({}))).unwrap();
    let bare: firebreak_crds::AwsAccountSpec = serde_json::from_value(account(&json!({"approvals": {}}))).unwrap();
    let expected = json!({"wideBlastRadius": "Required", "count": 1});
    for approvals in [spec.approvals, bare.approvals] {
        assert_eq!(serde_json::to_value(approvals).unwrap(), expected);
    }
    assert_eq!(spec_schema::<AwsAccount>()["properties"]["approvals"]["default"], expected, "what the API server fills in");
}

#[test]
fn only_known_causes_can_be_left_out() {
    let spec = |causes: Value| serde_json::from_value::<firebreak_crds::AwsAccountSpec>(account(&causes));
    assert!(spec(json!({"approvals": {"ignoredCauses": ["UsedRecently", "RouteTarget"]}})).is_ok());
    assert!(spec(json!({"approvals": {"ignoredCauses": ["Everything"]}})).is_err());
    let shown = &spec_schema::<AwsAccount>()["properties"]["approvals"]["properties"]["ignoredCauses"];
    let names = shown["items"]["enum"].as_array().unwrap();
    assert!(names.len() == 10 && names.contains(&json!("TrustedFromOutside")), "what the API server takes: {shown}");
}

#[test]
fn an_account_keeps_its_id_and_its_role_is_in_it() {
    let role = |arn: &str| account(&json!({"assumeRole": {"roleArn": arn}}));
    judge::<AwsAccount>(vec![
        (account(&json!({})), ""),
        (role("arn:aws:iam::111122223333:role/firebreak"), ""),
        (role("arn:aws-cn:iam::111122223333:role/path/firebreak"), ""),
        (role("arn:aws:iam::444455556666:role/firebreak"), "assumeRole.roleArn: the role must be one of the account"),
    ]);
    let old = Some(account(&json!({})));
    judge_changes::<AwsAccount>(vec![
        (old.clone(), account(&json!({"regions": ["eu-west-2"]})), ""),
        (old, account(&json!({"accountId": "444455556666"})), "accountId cannot be changed"),
    ]);
}

#[test]
fn a_selector_that_kubernetes_could_not_read_is_refused() {
    let selector = |e: Value| account(&json!({"allowedNamespaces": {"matchExpressions": [e]}}));
    let refusal = "allowedNamespaces.matchExpressions: operator is";
    judge::<AwsAccount>(vec![
        (account(&json!({"allowedNamespaces": {}})), ""),
        (account(&json!({"allowedNamespaces": {"matchLabels": {"team": "security"}}})), ""),
        (selector(json!({"key": "team", "operator": "In", "values": ["security"]})), ""),
        (selector(json!({"key": "team", "operator": "Exists"})), ""),
        (selector(json!({"key": "team", "operator": "NotIn", "values": []})), refusal),
        (selector(json!({"key": "team", "operator": "Exists", "values": ["security"]})), refusal),
        (selector(json!({"key": "team", "operator": "Equals", "values": ["security"]})), refusal),
    ]);
}

fn resource(kind: &str, region: Option<&str>, id: &str) -> Value {
    let mut resource = json!({"kind": kind, "accountRef": {"name": "prod"}, "accountId": "111122223333", "id": id});
    if let Some(region) = region {
        resource["region"] = region.into();
    }
    resource
}

fn quarantine(original: Option<Value>) -> Value {
    let mut spec = json!({"resource": resource("IamUser", None, "mallory"), "holders": [], "suspend": false});
    if let Some(original) = original {
        spec["original"] = original;
    }
    spec
}

#[test]
fn an_instance_has_a_region_and_a_user_has_none() {
    let held = |kind, region, id| json!({"resource": resource(kind, region, id)});
    judge::<Quarantine>(vec![
        (held("IamUser", None, "mallory"), ""),
        (held("IamRole", None, "build"), ""),
        (held("Ec2Instance", Some("eu-west-1"), "i-0123456789abcdef0"), ""),
        (held("AccessKey", None, KEY), "user: an access key has one, nothing else has"),
        (held("IamUser", Some("eu-west-1"), "mallory"), "region: an instance has one, a user or a role has none"),
        (held("Ec2Instance", None, "i-0123456789abcdef0"), "region: an instance has one, a user or a role has none"),
    ]);
}

#[test]
fn an_access_key_has_a_user() {
    let of = |kind| {
        let mut resource = resource(kind, None, KEY);
        resource["user"] = json!({"name": "mallory", "id": "AIDA1"});
        json!({"resource": resource})
    };
    let refusal = "user: an access key has one, nothing else has";
    judge::<Quarantine>(vec![(of("AccessKey"), ""), (of("IamUser"), refusal)]);
}

#[test]
fn an_original_is_written_once() {
    let recorded = Some(quarantine(Some(json!({"denyAll": "{}"}))));
    let mut other = quarantine(None);
    other["resource"]["id"] = "eve".into();
    let changed = "spec.original is written once: a recorded value cannot be changed or removed";
    judge_changes::<Quarantine>(vec![
        (Some(quarantine(None)), quarantine(Some(json!({"denyAll": "{}"}))), ""),
        (recorded.clone(), quarantine(Some(json!({"denyAll": "{}", "deactivateAccessKeys/AKIA1": "{}"}))), ""),
        (recorded.clone(), quarantine(Some(json!({"denyAll": "{\"a\":1}"}))), changed),
        (recorded.clone(), quarantine(Some(json!({"deactivateAccessKeys/AKIA1": "{}"}))), changed),
        (recorded, quarantine(None), "spec.original is written once: it cannot be removed"),
        (Some(quarantine(None)), other, "spec.resource cannot be changed"),
    ]);
}

#[test]
fn a_holder_asks_for_one_action_per_item() {
    let held = |action: Value| {
        let mut spec = quarantine(None);
        spec["holders"] =
            json!([{"uid": "1", "namespace": "security", "name": "inc", "state": "Holding", "actions": [action]}]);
        spec
    };
    judge::<Quarantine>(vec![
        (held(json!({"isolateNetwork": {}})), ""),
        (held(json!({})), "actions: each item needs exactly one"),
        (held(json!({"denyAll": {}, "isolateNetwork": {}})), "actions: each item needs exactly one"),
    ]);
}

#[test]
fn evidence_is_never_asked_for_differently() {
    let asked = |incident: &str, collect: Value| {
        let of = resource("Ec2Instance", Some("eu-west-1"), "i-0123456789abcdef0");
        json!({"incidentRef": {"uid": incident, "namespace": "security", "name": "inc"}, "resource": of, "collect": collect})
    };
    let snapshots = || json!({"ebsSnapshots": {}});
    judge::<Evidence>(vec![(asked("1", snapshots()), ""), (asked("1", json!({})), "collect: exactly one kind of evidence")]);
    judge_changes::<Evidence>(vec![
        (Some(asked("1", snapshots())), asked("1", snapshots()), ""),
        (Some(asked("1", snapshots())), asked("2", snapshots()), "the spec of Evidence cannot be changed"),
    ]);
}
