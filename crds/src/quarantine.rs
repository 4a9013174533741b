//! `Quarantine`: the containment of one AWS resource. Made by the controller.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ContainAction, ReleasePolicy, Resource};

/// The containment of one AWS resource: who holds it, with which actions, and what was there before.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "Quarantine",
    shortname = "quar",
    category = "firebreak",
    status = "QuarantineStatus",
    doc = "The containment of one AWS resource: who holds it, with which actions, and what was there before. Made by the controller: create an Incident.",
    selectable = ".spec.resource.accountId",
    selectable = ".spec.resource.id",
    printcolumn(name = "CONTAINED", type_ = "string", json_path = r#".status.conditions[?(@.type=="Contained")].status"#),
    printcolumn(name = "REASON", type_ = "string", json_path = r#".status.conditions[?(@.type=="Contained")].reason"#),
    printcolumn(name = "REPAIRS", type_ = "integer", json_path = ".status.driftCount"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "RESOURCE", type_ = "string", json_path = ".spec.resource.id", priority = 1),
    printcolumn(name = "FIRST-HOLDER", type_ = "string", json_path = ".spec.holders[0].name", priority = 1),
    printcolumn(name = "HOLD", type_ = "string", json_path = ".spec.holders[0].state", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Contained")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.original) || has(self.original)")
    .message("spec.original is written once: it cannot be removed"))]
pub struct QuarantineSpec {
    /// The AWS resource; cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.resource cannot be changed"))]
    pub resource: Resource,
    /// Who holds it. The resource is given back when the list is empty, or when a person deletes this object and no
    /// entry is `Holding`, nor began after that.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub holders: Vec<Holder>,
    /// What those who have let go give back beyond the default: only what every one of them said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub let_go: Option<ReleasePolicy>,
    /// The uids of the Incidents that have let go, at most the last 64: each says in its status how the release goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub let_go_by: Vec<String>,
    /// What was there before Firebreak changed anything: per action and sub-resource, as JSON. Written once per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 256))]
    #[x_kube(validation = Rule::new("oldSelf.all(k, k in self && self[k] == oldSelf[k])")
        .message("spec.original is written once: a recorded value cannot be changed or removed"))]
    pub original: Option<BTreeMap<String, Text>>,
    /// The conversion of tracked flows, per network interface: recorded before the interface is opened.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["interfaceId".into()]))]
    pub conversions: Vec<Conversion>,
    /// How a release conflict is resolved, and what was there before where that is not known. A person writes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseDecision>,
    /// No writes to AWS for this resource, but to close an interface that a conversion left open. A person writes this.
    #[serde(default)]
    pub suspend: bool,
}

impl QuarantineSpec {
    /// Of a resource of which nothing is recorded yet.
    #[must_use]
    pub fn of(resource: Resource, holders: Vec<Holder>) -> Self {
        Self {
            resource,
            holders,
            let_go: None,
            let_go_by: Vec::new(),
            original: None,
            conversions: Vec::new(),
            release: None,
            suspend: false,
        }
    }

    /// Whether the Incident of that uid holds it, or left its hold behind.
    #[must_use]
    pub fn is_held_by(&self, uid: &str) -> bool {
        self.holders.iter().any(|h| h.uid == uid)
    }
}

/// A recorded state, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Text(#[schemars(length(max = 16384))] pub String);

/// One Incident's hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The Incident's `metadata.uid`.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// The Incident's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The Incident's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// How bad the Incident is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<crate::Severity>,
    /// Whether the Incident holds, or is gone and left its hold behind.
    pub state: HolderState,
    /// What it asks for: copies of the policy's actions. They only grow.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub actions: Vec<ContainAction>,
    /// What its policy gives back beyond the default.
    #[serde(default)]
    pub release: ReleasePolicy,
    /// Of an instance that one of its selectors chose: the `key` of that selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub selector: Option<String>,
}

/// Whether an Incident holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HolderState {
    /// The Incident is there and holds.
    Holding,
    /// The Incident is gone; its hold stays until somebody deletes the Quarantine.
    Retained,
}

/// The conversion of one interface's tracked flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conversion {
    /// The network interface.
    #[schemars(length(min = 1, max = 64))]
    pub interface_id: String,
    /// Whether the window is open.
    pub state: ConversionState,
    /// Since when.
    pub since: Time,
}

/// Whether a conversion window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConversionState {
    /// The interface may carry the conversion group now, or waits for its turn.
    Open,
    /// The interface was in the conversion group, and is back in the isolation group.
    Closed,
    /// Flows may have begun that AWS tracks: somebody moved the interface out of isolation, or put rules into its group, or it is not
    /// known who isolated it. It is converted, once more where it was before.
    Due,
    /// Not needed: no public address and no route to an internet gateway. Where one comes later, it is converted then.
    Skipped,
}

/// How a person resolves a release that conflicts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseDecision {
    /// What happens to a field that shows neither what Firebreak put there nor the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
    /// What was there before, where the record does not know it: keys and JSON as in `spec.original`. What is on record
    /// wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 256))]
    pub original: Option<BTreeMap<String, Text>>,
}

/// What happens to a field in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnConflict {
    /// Leave it as it is now.
    KeepTheirs,
    /// Put the recorded original back.
    RestoreOriginal,
}

/// What was last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Contained`, `DriftDetected`, `Released`, and `Reconciling` or `Stalled` while they are so.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last value of the annotation `firebreak.dev/reconcile-requested-at` that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// SHA-256 of the holders' actions that this status speaks of: a change of anything else in the spec makes it no older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_holds: Option<String>,
    /// SHA-256 of what the copy of the original in the resource's tags was made of; absent before one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_copy: Option<String>,
    /// Each action, as read back from AWS.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub actions: Vec<ActionStatus>,
    /// How often somebody's change was put back.
    #[serde(default)]
    pub drift_count: i64,
    /// Since when everything has been in force without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force_since: Option<Time>,
}

/// One action on this resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// The action, as the policy names it.
    #[schemars(length(max = 64))]
    pub name: String,
    /// What its holders ask for together, the stricter of each parameter. Absent where nobody asks any more and it stays in force,
    /// and for Firebreak's own marks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<ContainAction>,
    /// Where it stands.
    pub state: ActionState,
    /// Since when it has stood there.
    pub since: Time,
    /// What is so, and what to do.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// When somebody put it out of force, within the last ten minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub undone: Vec<Undone>,
}

/// A change of somebody else's that put an action out of force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Undone {
    /// What was changed.
    #[schemars(length(max = 512))]
    pub what: String,
    /// When that was seen.
    pub at: Time,
}

/// Where an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionState {
    /// Not begun: the Quarantine is suspended.
    Planned,
    /// Calls are under way, or not yet read back.
    InProgress,
    /// Read back in force.
    InForce,
    /// Read back in force, but somebody undid it five times within ten minutes: most of the time it may be open.
    Contested,
    /// AWS refused, or the resource cannot be found; the message says what to do.
    Failed,
    /// Given back, and read back so.
    Released,
    /// A person decides: see `spec.release`.
    Conflict,
}
