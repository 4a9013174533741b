//! `Approval`: one person's consent to the plan of an Incident that another person asked for.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One person's consent to the plan of an Incident that another person asked for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "firebreak.dev",
    version = "v1alpha1",
    kind = "Approval",
    plural = "approvals",
    namespaced,
    shortname = "appr",
    category = "firebreak",
    doc = "One person's consent to the plan of an Incident that another person asked for.",
    printcolumn(name = "INCIDENT", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "APPROVED-BY", type_ = "string", json_path = ".spec.approvedBy"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "DIGEST", type_ = "string", json_path = ".spec.planDigest", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("the spec of an Approval cannot be changed: delete it, and approve the plan as it stands now"))]
pub struct ApprovalSpec {
    /// The Incident, in the namespace of this object.
    pub incident_ref: ApprovedIncident,
    /// The plan: `status.approval.digest` of the Incident. It counts for that plan only; a target more, another parameter, or evidence
    /// less makes another plan.
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub plan_digest: String,
    /// Who approves: the user name of whoever creates this object, as `kubectl auth whoami` shows it.
    #[schemars(length(min = 1, max = 512))]
    pub approved_by: String,
    /// On behalf of which groups: each one of the approver's own. Needed where the policy names one in `approvals.group`, and wherever a
    /// ServiceAccount approves, or asked for the Incident.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    pub groups: Vec<String>,
}

/// One Incident of the same namespace. One made again under the same name is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovedIncident {
    /// `metadata.name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `metadata.uid`.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}
