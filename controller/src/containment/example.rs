//! For unit tests: an instance and a user to contain.

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{
    ActionState, ActionStatus, ContainAction, Holder, HolderState, KeyUser, NameRef, Quarantine, QuarantineSpec,
    ReleasePolicy, Resource, ResourceKind, Text,
};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::case::Case;

/// When the containment began.
pub const SINCE: &str = "2026-03-01T12:00:00Z";

pub fn instance() -> Resource {
    Resource { kind: ResourceKind::Ec2Instance, region: Some("eu-west-1".into()), id: "i-1".into(), ..user() }
}

pub fn user() -> Resource {
    Resource {
        kind: ResourceKind::IamUser,
        account_ref: NameRef { name: "prod".into() },
        account_id: "111122223333".into(),
        region: None,
        id: "mallory".into(),
        user: None,
    }
}

/// A key of that user, whose unique id is `AIDA1`.
pub fn access_key(id: &str) -> Resource {
    let user = Some(KeyUser { name: "mallory".into(), id: "AIDA1".into() });
    Resource { kind: ResourceKind::AccessKey, id: id.into(), user, ..self::user() }
}

pub fn role() -> Resource {
    Resource { kind: ResourceKind::IamRole, id: "build".into(), ..user() }
}

/// A session of that role.
pub fn role_session() -> Resource {
    Resource { kind: ResourceKind::RoleSession, id: "build/ci-job".into(), ..user() }
}

/// A case without a record, one minute after the containment began.
pub fn case(resource: Resource) -> Case {
    let since: Timestamp = SINCE.parse().unwrap();
    Case {
        resource,
        original: BTreeMap::new(),
        stored: BTreeSet::new(),
        resolved: BTreeSet::new(),
        adopted: None,
        conversions: Vec::new(),
        told: Vec::new(),
        decision: None,
        release: ReleasePolicy::default(),
        holders: Vec::new(),
        beside: Vec::new(),
        whereabouts: super::whereabouts::Whereabouts::NotAsked,
        since,
        incident: "security/inc-1".into(),
        partition: "aws".into(),
        now: since + std::time::Duration::from_mins(1),
    }
}

/// The case of which that was told last.
pub fn told(mut case: Case, action: &str, state: ActionState, message: &str) -> Case {
    let (name, message, since) = (action.to_owned(), message.to_owned(), crate::clock::time(case.since));
    case.told.push(ActionStatus { name, wanted: None, state, message, since, undone: Vec::new() });
    case
}

/// The case with one more record.
pub fn recorded(mut case: Case, key: &str, value: &impl Serialize) -> Case {
    case.original.insert(key.into(), serde_json::to_string(value).unwrap());
    case.stored.insert(key.into());
    case
}

pub fn holder(uid: &str, name: &str, actions: Vec<ContainAction>) -> Holder {
    Holder {
        uid: uid.into(),
        namespace: "security".into(),
        name: name.into(),
        severity: None,
        state: HolderState::Holding,
        actions,
        release: ReleasePolicy::default(),
        selector: None,
    }
}

pub fn quarantine(resource: Resource, holders: Vec<Holder>) -> Quarantine {
    let mut quarantine = Quarantine::new("q", QuarantineSpec::of(resource, holders));
    quarantine.metadata.generation = Some(1);
    quarantine
}

/// The Quarantine with one more record.
pub fn recorded_in(mut quarantine: Quarantine, key: &str, text: &str) -> Quarantine {
    quarantine.spec.original.get_or_insert_default().insert(key.into(), Text(text.into()));
    quarantine
}

pub fn deny_all() -> ContainAction {
    ContainAction { deny_all: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

pub fn keys_off() -> ContainAction {
    ContainAction { deactivate_access_keys: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

pub fn protect() -> ContainAction {
    ContainAction { protect_from_termination: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

pub fn metadata_off() -> ContainAction {
    ContainAction { disable_instance_metadata: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

pub fn no_sessions() -> ContainAction {
    ContainAction { terminate_sessions: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

pub fn no_addresses() -> ContainAction {
    ContainAction { remove_public_addresses: Some(firebreak_crds::Empty {}), ..ContainAction::default() }
}

/// `stopInstance` or `terminateInstance`.
pub fn end(name: &str) -> ContainAction {
    serde_json::from_value(serde_json::json!({ name: {} })).unwrap()
}

pub fn isolate(sever: firebreak_crds::SeverTrackedConnections) -> ContainAction {
    let isolate_network = Some(firebreak_crds::IsolateNetwork {
        sever_tracked_connections: sever,
        ..firebreak_crds::IsolateNetwork::default()
    });
    ContainAction { isolate_network, ..ContainAction::default() }
}
