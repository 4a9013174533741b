use firebreak_crds::{AwsAccount, ContainmentPolicy};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::store;
use kube::runtime::watcher::Event;
use serde_json::{Value, from_value, json};

use super::*;
use crate::containment::example;

/// What is known where there is one account, and a policy `standard`.
fn stores(policy: Value) -> Stores {
    let ((accounts, mut writer), (policies, mut policy_writer)) = (store::<AwsAccount>(), store::<ContainmentPolicy>());
    let account = json!({ "accountId": "111122223333", "regions": ["eu-west-1"] });
    writer.apply_watcher_event(&Event::Apply(AwsAccount::new("prod", from_value(account).unwrap())));
    policy_writer.apply_watcher_event(&Event::Apply(ContainmentPolicy::new("standard", from_value(policy).unwrap())));
    Stores {
        accounts,
        policies,
        incidents: store().0,
        quarantines: store().0,
        evidence: store().0,
        approvals: store().0,
        namespaces: store::<Namespace>().0,
    }
}

fn incident(targets: Value) -> Incident {
    let mut spec = json!({ "title": "t", "severity": "High", "policyRef": { "name": "standard" } });
    spec["targets"] = targets;
    Incident::new("inc", from_value(spec).unwrap())
}

fn digest_of(policy: &Value, targets: Value) -> String {
    let incident = incident(targets);
    let chosen = Chosen::known(&incident, &[], example::SINCE.parse().unwrap());
    of(&stores(policy.clone()), &incident, &chosen)
}

fn target(kind: &str, field: &str, id: &str) -> Value {
    json!({ kind: { "accountRef": { "name": "prod" }, field: id } })
}

fn instance() -> Value {
    json!({ "ec2Instance": { "accountRef": { "name": "prod" }, "region": "eu-west-1", "instanceId": "i-01234567" } })
}

#[test]
fn it_is_of_the_evidence_and_of_what_the_policy_says_of_approvals_too() {
    let with = |field: &str, value: Value| {
        let mut policy = json!({ "ec2Instance": { "contain": [{ "terminateInstance": {} }] } });
        *policy.pointer_mut(field).unwrap() = value;
        digest_of(&policy, json!([instance()]))
    };
    let plain = with("/ec2Instance/contain", json!([{ "terminateInstance": {} }]));
    let snapshots = json!({ "contain": [{ "terminateInstance": {} }], "evidence": [{ "ebsSnapshots": {} }] });
    assert_ne!(with("/ec2Instance", snapshots), plain);
    let bar = json!({
        "ec2Instance": { "contain": [{ "terminateInstance": {} }] },
        "approvals": { "actions": ["terminateInstance"], "count": 2 },
    });
    assert_ne!(with("", bar), plain);
}

#[test]
fn a_key_is_in_it_by_itself_whosever_it_is_and_whatever_is_contained() {
    let (key, user) = (target("accessKey", "accessKeyId", "AKIAIOSFODNN7EXAMPLE"), target("iamUser", "userName", "mallory"));
    let of_the_key = json!({ "accessKey": { "contain": [{ "deactivateAccessKeys": {} }] } });
    let of_the_user = json!({ "accessKey": { "scope": "User" }, "iamUser": { "contain": [{ "denyAll": {} }] } });
    for policy in [of_the_key, of_the_user] {
        let alone = digest_of(&policy, json!([user]));
        assert_ne!(digest_of(&policy, json!([user, key])), alone, "{policy}");
        assert_eq!(digest_of(&policy, json!([key, user])), digest_of(&policy, json!([user, key])), "{policy}");
    }
}

#[test]
fn what_is_in_no_account_that_is_known_is_not_in_it() {
    let policy = json!({ "iamUser": { "contain": [{ "denyAll": {} }] } });
    let mut nowhere = target("iamUser", "userName", "eve");
    nowhere["iamUser"]["accountRef"]["name"] = json!("nowhere");
    let user = target("iamUser", "userName", "mallory");
    assert_eq!(digest_of(&policy, json!([user, nowhere])), digest_of(&policy, json!([user])));
    assert_ne!(digest_of(&policy, json!([user])), digest_of(&policy, json!([])));
}
