//! Conditions, as Kubernetes' API conventions have them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition types that Firebreak writes. `Ready` follows kstatus; the others are the domain's own.
pub mod conditions {
    /// The object is as its spec asks, or, on an account, can be used.
    pub const READY: &str = "Ready";
    /// Work is under way. Exists only while True.
    pub const RECONCILING: &str = "Reconciling";
    /// A dead end that a person must end. Exists only while True.
    pub const STALLED: &str = "Stalled";
    /// All actions are read back in force.
    pub const CONTAINED: &str = "Contained";
    /// All evidence that the policy asks for is complete.
    pub const EVIDENCE_PRESERVED: &str = "EvidencePreserved";
    /// Every hold was let go and what was changed is given back.
    pub const RELEASED: &str = "Released";
    /// Enough people approved what the policy lets nobody do alone. Exists only where something needs approval.
    pub const APPROVED: &str = "Approved";
    /// Somebody changed what is contained; it was put back.
    pub const DRIFT_DETECTED: &str = "DriftDetected";
}

/// The condition of that type.
#[must_use]
pub fn get<'a>(list: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    list.iter().find(|c| c.type_ == kind)
}

/// Whether the condition of that type is True.
#[must_use]
pub fn is_true(list: &[Condition], kind: &str) -> bool {
    get(list, kind).is_some_and(|c| c.status == "True")
}
