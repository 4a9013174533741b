//! Who called what, from the API server's audit log.

use serde_json::Value;

/// Metadata of finished calls: all of the controller's, which must be granted just what it uses; of others their writes.
pub const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - { level: Metadata, users: ['system:serviceaccount:firebreak-system:firebreak'] }
  - { level: None, resources: [{ group: coordination.k8s.io, resources: [leases] }] }
  - { level: Metadata, verbs: [create, update, patch, delete, deletecollection] }
  - { level: None }
";

/// One call, tried or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`
    pub verb: String,
    /// Such as `firebreak.dev`; empty for the core group
    pub group: String,
    /// The plural, such as `incidents`
    pub resource: String,
    /// Empty for what is cluster-scoped
    pub namespace: String,
    /// Empty where the server chose it
    pub name: String,
    /// Such as `status`; empty for the object itself
    pub subresource: String,
    /// The HTTP status that it was answered with
    pub code: i64,
    /// Who
    pub user: String,
}

impl AuditLine {
    /// Whether it writes; leases aside, which are renewed for ever.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch") && self.resource != "leases"
    }
}

/// The lines of `user` in the text of an audit log. A line still being written is left for the next look.
pub fn lines_of(log: &str, user: &str) -> Vec<AuditLine> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.map(|event| line_of(&event)).filter(|line| line.user == user).collect()
}

fn line_of(event: &Value) -> AuditLine {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    AuditLine {
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource: text(&object["resource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        subresource: text(&object["subresource"]),
        code: event["responseStatus"]["code"].as_i64().unwrap_or_default(),
        user: text(&event["user"]["username"]),
    }
}
