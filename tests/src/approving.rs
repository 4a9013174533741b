//! A second person, who approves what the policy lets nobody do alone.

use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::world::{SOON, World};

/// Whoever is in it may approve, as far as RBAC is asked.
pub const APPROVERS: &str = "approvers";

/// Lets the group `APPROVERS` approve, as far as RBAC is asked.
pub async fn let_approve(world: &World<'_>) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": APPROVERS, "namespace": world.namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "firebreak-approver" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": APPROVERS }],
    });
    world.plane.apply(&binding.to_string()).await.unwrap();
}

/// The Approval that the Incident's condition asks for, in somebody's name.
pub async fn blank(world: &World<'_>, by: &str) -> Value {
    let (reason, message) = world.said("inc", "Approved").await;
    assert_eq!(reason, "AwaitingApproval", "{message}");
    let command = message.split_once(&format!("kubectl create -n {} -f - <<< '", world.namespace)).expect("a command").1;
    let filled_in = command.trim_end_matches('\'').replace("YOUR-NAME", by);
    let mut approval: Value = serde_json::from_str(&filled_in).unwrap();
    approval["metadata"]["namespace"] = json!(world.namespace);
    approval
}

/// The admission policy's own copy of an Incident may be a moment late.
pub async fn approve(world: &World<'_>, user: &str, groups: &[&str], approval: &Value) {
    let created = async || world.plane.create_as(user, groups, &approval.to_string()).await;
    eventually(&format!("{user} approves"), SOON, created).await;
}
