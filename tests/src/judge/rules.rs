//! What each changing call needs to be right. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use firebreak_crds::{ConversionState, Evidence, HELD_AGAIN, HolderState, IsolateNetwork, Quarantine, is_true};
use k8s_openapi::jiff::Timestamp;

use crate::proxy::Call;

/// What a call needs to be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: it narrows, or changes no access.
    Nothing,
    /// A window on record as open for this interface.
    OpenWindow(String),
    /// That everybody who holds the instance with this interface allows something.
    AllowList(String),
    /// That nobody holds the instance with this interface, or that all who do name this group.
    OwnGroupOrRelease { interface: String, group: String },
    /// That holders allow these networks.
    Allowed(Vec<String>),
    /// That nobody holds the Quarantine of this user, or of the instance with this interface or target group.
    Release(String),
    /// That nobody holds it, or that a holder stops it: its stop protection goes.
    StopOrRelease(String),
    /// That a holder of the Quarantine of this instance asks for this action, and all evidence of it is complete.
    Decided(&'static str, String),
    /// That nobody keeps this access key off, neither by itself nor with all of its user.
    KeyRelease { key: String, user: String },
    /// It is never right.
    Never(&'static str),
}

/// The policy that lists the denied sessions of instances.
pub(super) const INSTANCES: &str = "firebreak-deny-instances";

pub(super) fn denies_instances(call: &Call) -> bool {
    ["PutRolePolicy", "DeleteRolePolicy"].contains(&call.action.as_str())
        && call.params.get("PolicyName").is_some_and(|name| name == INSTANCES)
}

/// Pure. A session whose deny is lifted is of an instance that is released, and of no other; and what it was issued before stays
/// denied. `before`: the policy's text before the call.
pub(super) fn lifts(call: &Call, before: &str) -> Needs {
    let after = call.params.get("PolicyDocument").map(String::as_str).unwrap_or_default();
    if call.action == "PutRolePolicy" && !denies(INSTANCES, after) {
        return Needs::Never("no deny of ours");
    }
    let (was, is, still) = (sessions(before, false), sessions(after, false), sessions(after, true));
    let lifted: Vec<_> = was.difference(&is).collect();
    match lifted.as_slice() {
        [] => Needs::Nothing,
        [one] if still.contains(*one) => Needs::Release(one.split(':').nth(1).unwrap_or_default().to_owned()),
        [_] => Needs::Never("lifts the deny of old sessions"),
        _ => Needs::Never("lifts the denies of several instances at once"),
    }
}

/// The user ids that a policy denies: whenever their sessions were issued, or if that was before a cutoff.
fn sessions(policy: &str, old: bool) -> BTreeSet<String> {
    let document: serde_json::Value = serde_json::from_str(policy).unwrap_or_default();
    let statements = document["Statement"].as_array().into_iter().flatten();
    let denies = statements.map(|s| &s["Condition"]).filter(|c| c["DateLessThan"].is_object() == old);
    let ids = denies.flat_map(|c| c["StringEquals"]["aws:userid"].as_array().cloned().unwrap_or_default());
    ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// Whether it opens something.
pub(super) fn opens(needs: Option<&Needs>) -> bool {
    matches!(
        needs,
        Some(
            Needs::OpenWindow(_)
                | Needs::OwnGroupOrRelease { .. }
                | Needs::Release(_)
                | Needs::StopOrRelease(_)
                | Needs::KeyRelease { .. }
        )
    )
}

/// Whether the record, if it is needed, allows the call.
pub(super) fn meets(
    needs: &Needs,
    quarantines: anyhow::Result<Vec<Quarantine>>,
    evidence: anyhow::Result<Vec<Evidence>>,
) -> anyhow::Result<()> {
    match needs {
        Needs::Nothing => {}
        Needs::Never(why) => anyhow::bail!("{why}"),
        Needs::OpenWindow(interface) => {
            let quarantines = quarantines?;
            let open = quarantines.iter().any(|q| is_open(q, interface));
            ensure!(open, "no window is open for {interface}: {quarantines:#?}");
        }
        Needs::AllowList(interface) => {
            let quarantines = quarantines?;
            let holders: Vec<_> = quarantines.iter().filter(|q| is_of(q, interface)).flat_map(isolations).collect();
            let all = !holders.is_empty() && holders.iter().all(|p| p.allow.is_some());
            ensure!(all, "nothing is allowed on {interface}: {quarantines:#?}");
        }
        Needs::OwnGroupOrRelease { interface, group } => {
            let quarantines = quarantines?;
            let names = |q: &&Quarantine| {
                let mut holders = isolations(q).peekable();
                holders.peek().is_some() && holders.all(|p| p.security_group_ids.contains(group))
            };
            let of_it = || quarantines.iter().filter(|q| is_of(q, interface));
            let right = of_it().any(is_let_go) || of_it().any(|q| names(&q));
            ensure!(right, "{interface} is held: {quarantines:#?}");
        }
        Needs::Allowed(networks) => {
            let quarantines = quarantines?;
            let lists = quarantines.iter().flat_map(isolations).filter_map(|p| p.allow.clone());
            let listed: Vec<String> = lists.flat_map(|l| [l.ingress, l.egress].concat()).map(|f| f.cidr).collect();
            ensure!(networks.iter().all(|n| listed.contains(n)), "{networks:?} are not all among {listed:?}");
        }
        Needs::Release(what) => {
            let quarantines = quarantines?;
            let let_go = quarantines.iter().any(|q| is_of(q, what) && is_let_go(q));
            ensure!(let_go, "{what} is held: {quarantines:#?}");
        }
        Needs::StopOrRelease(instance) => {
            let quarantines = quarantines?;
            let right = |q: &Quarantine| is_let_go(q) || asks(q, "stopInstance");
            ensure!(quarantines.iter().any(|q| is_of(q, instance) && right(q)), "nobody stops it: {quarantines:#?}");
        }
        Needs::Decided(action, instance) => {
            let quarantines = quarantines?;
            let held = quarantines.iter().find(|q| q.spec.resource.id == *instance && asks(q, action));
            let held = held.with_context(|| format!("nobody asks for {action}: {quarantines:#?}"))?;
            ensure!(held.spec.original.iter().flatten().any(|(key, _)| key == action), "not on record: {held:#?}");
            let of_it = evidence?.into_iter().filter(|e| e.spec.resource.arn() == held.spec.resource.arn());
            let ready = |e: &Evidence| e.status.as_ref().is_some_and(|s| is_true(&s.conditions, "Ready"));
            let open: Vec<Evidence> = of_it.filter(|e| !ready(e)).collect();
            ensure!(open.is_empty(), "evidence is not complete: {open:#?}");
        }
        Needs::KeyRelease { key, user } => {
            let quarantines = quarantines?;
            let of_it: Vec<_> = quarantines.iter().filter(|q| is_of(q, key) || is_of(q, user)).collect();
            let let_go = of_it.iter().any(|q| is_let_go(q)) && !of_it.iter().any(|q| keeps_keys_off(q) && !is_let_go(q));
            ensure!(let_go, "{key} is held: {quarantines:#?}");
        }
    }
    Ok(())
}

fn is_open(quarantine: &Quarantine, interface: &str) -> bool {
    let mut windows = quarantine.spec.conversions.iter();
    windows.any(|c| c.interface_id == interface && c.state == ConversionState::Open)
}

/// How the holders want the instance isolated.
fn isolations(quarantine: &Quarantine) -> impl Iterator<Item = &IsolateNetwork> {
    quarantine.spec.holders.iter().flat_map(|h| &h.actions).filter_map(|a| a.isolate_network.as_ref())
}

/// Whether the record is of this user, or of the instance with this interface or target group.
fn is_of(quarantine: &Quarantine, what: &str) -> bool {
    let recorded = |keys: &BTreeMap<String, _>| {
        let actions = ["isolateNetwork", "removePublicAddresses", "deregisterFromLoadBalancers"];
        actions.iter().any(|action| keys.contains_key(&format!("{action}/{what}")))
    };
    let spec = &quarantine.spec;
    let given = spec.release.as_ref().and_then(|r| r.original.as_ref()); // by a person
    spec.resource.id == what || spec.original.as_ref().is_some_and(recorded) || given.is_some_and(recorded)
}

/// Whether a holder asks for an action.
fn asks(quarantine: &Quarantine, action: &str) -> bool {
    let asked = |a| serde_json::to_value(a).is_ok_and(|a: serde_json::Value| a.get(action).is_some());
    quarantine.spec.holders.iter().flat_map(|h| &h.actions).any(asked)
}

/// Whether a holder asks for it, or it is on record that somebody did.
fn keeps_keys_off(quarantine: &Quarantine) -> bool {
    let asked = quarantine.spec.holders.iter().flat_map(|h| &h.actions).any(|a| a.deactivate_access_keys.is_some());
    asked || quarantine.spec.original.iter().flat_map(BTreeMap::keys).any(|k| k.starts_with("deactivateAccessKeys"))
}

/// Nobody holds it; and a Retained hold ends only when somebody deletes the Quarantine, which it was held before.
fn is_let_go(quarantine: &Quarantine) -> bool {
    let holders = &quarantine.spec.holders;
    let deleted = quarantine.metadata.deletion_timestamp.is_some();
    let again = quarantine.metadata.annotations.iter().flatten().find(|(key, _)| *key == HELD_AGAIN);
    let later = |uid: &str| again.is_some_and(|(_, uids)| uids.contains(uid));
    holders.iter().all(|h| deleted && h.state != HolderState::Holding && !later(&h.uid))
}

/// What takes access away, or gives none.
const NARROWING: [&str; 30] = [
    "RevokeSecurityGroupIngress",
    "RevokeSecurityGroupEgress",
    "CreateSecurityGroup",
    "DisassociateAddress",
    "DisassociateIamInstanceProfile",
    "UpdateAccessKey",
    "UpdateSSHPublicKey",
    "UpdateServiceSpecificCredential",
    "UpdateSigningCertificate",
    "DeleteLoginProfile",
    "TerminateSession",
    "PutUserPolicy",
    "AttachUserPolicy",
    "PutUserPermissionsBoundary",
    "PutRolePolicy",
    "UpdateAssumeRolePolicy",
    "AttachRolePolicy",
    "PutRolePermissionsBoundary",
    "TagRole",
    "UntagRole",
    "CreateTags",
    "DeleteTags",
    "TagUser",
    "UntagUser",
    "DetachInstances",
    "DeregisterTargets",
    "DeregisterInstancesFromLoadBalancer",
    "EnterStandby",
    "SetInstanceProtection",
    "CreateSnapshots",
];

/// Pure. `groups`: Firebreak's own, by id.
pub(super) fn needs(call: &Call, groups: &BTreeMap<String, String>, now: Timestamp) -> Needs {
    let param = |name: &str| call.params.get(name).map(String::as_str).unwrap_or_default();
    let group = groups.get(param("GroupId")).map(String::as_str);
    let principal = if param("RoleName").is_empty() { param("UserName") } else { param("RoleName") };
    match call.action.as_str() {
        "ModifyNetworkInterfaceAttribute" => swap(call, groups),
        "AssociateAddress" if param("AllowReassociation") == "false" => {
            Needs::Release(param("NetworkInterfaceId").to_owned())
        }
        "AssociateAddress" => Needs::Never("may take an address away from somebody"),
        "AssociateIamInstanceProfile" | "ReplaceIamInstanceProfileAssociation" => {
            let instance = groups.get(param("AssociationId")).map_or(param("InstanceId"), String::as_str);
            let ours = param("IamInstanceProfile.Arn").ends_with(":instance-profile/firebreak-deny-all");
            if ours { Needs::Nothing } else { Needs::Release(instance.to_owned()) }
        }
        "CreateRole" | "CreateInstanceProfile" | "AddRoleToInstanceProfile" | "RemoveRoleFromInstanceProfile" => own(call),
        "ModifyInstanceAttribute" => protection(call),
        "StopInstances" | "TerminateInstances" if param("SkipOsShutdown") != "true" => {
            Needs::Never("lets its own scripts run")
        }
        "StopInstances" | "TerminateInstances" if call.params.contains_key("InstanceId.2") => Needs::Never("more than one"),
        "StopInstances" => Needs::Decided("stopInstance", param("InstanceId.1").to_owned()),
        "TerminateInstances" => Needs::Decided("terminateInstance", param("InstanceId.1").to_owned()),
        "StartInstances" => Needs::Release(param("InstanceId.1").to_owned()),
        "ModifyInstanceMetadataOptions" => match param("HttpEndpoint") {
            "disabled" if !call.params.contains_key("HttpTokens") => Needs::Nothing,
            "enabled" => Needs::Release(param("InstanceId").to_owned()),
            _ => Needs::Never("changes more than the metadata endpoint"),
        },
        "AuthorizeSecurityGroupIngress" | "AuthorizeSecurityGroupEgress" => match group {
            Some("firebreak-conversion") => Needs::Nothing,
            Some(name) if name.starts_with("firebreak-isolation-") => networks(call),
            _ => Needs::Never("opens a group other than the conversion group"),
        },
        "RevokeSecurityGroupIngress" | "RevokeSecurityGroupEgress" if group.is_none() => {
            Needs::Never("edits somebody's group")
        }
        "DetachInstances" | "EnterStandby" if param("ShouldDecrementDesiredCapacity") != "false" => {
            Needs::Never("shrinks the service")
        }
        "SetInstanceProtection" if param("ProtectedFromScaleIn") != "true" => {
            Needs::Release(param("InstanceIds.member.1").to_owned())
        }
        "CancelCommand" => cancels(call),
        "ExitStandby" | "AttachInstances" => Needs::Release(param("InstanceIds.member.1").to_owned()),
        "RegisterTargets" => Needs::Release(param("TargetGroupArn").to_owned()),
        "RegisterInstancesWithLoadBalancer" => Needs::Release(param("Instances.member.1.InstanceId").to_owned()),
        "CreateSecurityGroup" if !param("GroupName").starts_with("firebreak-") => Needs::Never("a name that is not ours"),
        "UpdateAccessKey" if param("Status") != "Inactive" => {
            Needs::KeyRelease { key: param("AccessKeyId").to_owned(), user: param("UserName").to_owned() }
        }
        "UpdateSSHPublicKey" | "UpdateServiceSpecificCredential" | "UpdateSigningCertificate"
            if param("Status") != "Inactive" =>
        {
            Needs::Release(param("UserName").to_owned())
        }
        "DetachUserPolicy" | "DetachRolePolicy" if param("PolicyArn").ends_with(":policy/AWSDenyAll") => {
            Needs::Release(principal.to_owned())
        }
        "DeleteUserPermissionsBoundary" | "DeleteRolePermissionsBoundary" => Needs::Release(principal.to_owned()),
        "PutUserPermissionsBoundary" | "PutRolePermissionsBoundary"
            if !param("PermissionsBoundary").ends_with(":iam::aws:policy/AWSDenyAll") =>
        {
            Needs::Release(principal.to_owned())
        }
        "DeleteUserPolicy" | "DeleteRolePolicy" => lifted(principal, param("PolicyName"), now),
        "UpdateAssumeRolePolicy" if param("PolicyDocument").contains(r#""Allow""#) => Needs::Release(principal.to_owned()),
        "PutUserPolicy" | "PutRolePolicy" if !denies(param("PolicyName"), param("PolicyDocument")) => {
            Needs::Never("no deny of ours")
        }
        "AttachUserPolicy" | "AttachRolePolicy" if !param("PolicyArn").ends_with(":policy/AWSDenyAll") => {
            Needs::Never("attaches no deny")
        }
        "CreateTags" | "DeleteTags" | "TagUser" | "UntagUser" | "TagRole" | "UntagRole" if !tags_are_ours(call) => {
            Needs::Never("somebody's tags")
        }
        action if NARROWING.contains(&action) => Needs::Nothing,
        _ => Needs::Never("Firebreak has no such call"),
    }
}

/// An inline policy goes: what it denies comes back, unless its time is over.
fn lifted(principal: &str, policy: &str, now: Timestamp) -> Needs {
    let of = |prefix: &str| policy.strip_prefix(prefix).map(str::to_owned);
    match policy {
        "firebreak-deny-all" | "firebreak-revoke-sessions" => Needs::Release(principal.to_owned()),
        _ if is_expired(policy, now) => Needs::Nothing,
        _ => match (of("firebreak-revoke-sessions-"), of("firebreak-deny-session-")) {
            (Some(key), _) => Needs::Release(key),
            (_, Some(session)) => Needs::Release(format!("{principal}/{session}")),
            _ => Needs::Never("somebody's policy"),
        },
    }
}

/// Firebreak makes and changes one profile, and one role.
fn own(call: &Call) -> Needs {
    let is = |name: &str| call.params.get(name).is_none_or(|value| value == "firebreak-deny-all");
    let takes = call.action == "RemoveRoleFromInstanceProfile" && is("InstanceProfileName");
    let ours = takes || (is("InstanceProfileName") && is("RoleName"));
    if ours { Needs::Nothing } else { Needs::Never("a profile or a role that is not ours") }
}

fn swap(call: &Call, groups: &BTreeMap<String, String>) -> Needs {
    let to: Vec<_> = call.params.iter().filter(|(key, _)| key.starts_with("SecurityGroupId.")).map(|(_, id)| id).collect();
    let interface = call.params.get("NetworkInterfaceId").cloned().unwrap_or_default();
    let name = |id: &&String| groups.get(*id).map(String::as_str);
    match to.as_slice() {
        [] if call.params.get("AssociatePublicIpAddress").is_some_and(|on| on == "false") => Needs::Nothing,
        [] if call.params.contains_key("AssociatePublicIpAddress") => Needs::Release(interface),
        [] if call.params.keys().any(|key| key.starts_with("ConnectionTrackingSpecification.")) => {
            let short =
                |name: &str| call.params.get(&format!("ConnectionTrackingSpecification.{name}")).is_some_and(|s| s == "60");
            let shortest = short("TcpEstablishedTimeout") && short("UdpStreamTimeout");
            if shortest { Needs::Nothing } else { Needs::Release(interface) }
        }
        [] => Needs::Never("changes something other than groups"),
        [one] if name(one) == Some("firebreak-isolation") => Needs::Nothing,
        [one] if name(one).is_some_and(|n| n.starts_with("firebreak-isolation-")) => Needs::AllowList(interface),
        [one] if name(one) == Some("firebreak-conversion") => Needs::OpenWindow(interface),
        [one] => Needs::OwnGroupOrRelease { interface, group: (*one).clone() },
        _ => Needs::Release(interface),
    }
}

/// Rules for networks alone, and none for all of them.
fn networks(call: &Call) -> Needs {
    let rules = call.params.iter().filter(|(key, _)| key.starts_with("IpPermissions."));
    let peers: Vec<_> =
        rules.filter(|(key, _)| !["IpProtocol", "FromPort", "ToPort"].iter().any(|p| key.ends_with(p))).collect();
    let narrow = |(key, value): &(&String, &String)| {
        (key.ends_with(".CidrIp") || key.ends_with(".CidrIpv6")) && !["0.0.0.0/0", "::/0"].contains(&value.as_str())
    };
    if peers.is_empty() || !peers.iter().all(narrow) {
        return Needs::Never("lets through more than networks that are listed");
    }
    Needs::Allowed(peers.into_iter().map(|(_, value)| value.clone()).collect())
}

/// Without an instance it would be cancelled on all.
fn cancels(call: &Call) -> Needs {
    let on: Vec<_> = call.params.keys().filter(|key| key.starts_with("InstanceIds.")).collect();
    if on.len() == 1 { Needs::Nothing } else { Needs::Never("cancels it on other instances, too") }
}

/// The values that keep an instance and its volumes need no leave; user data and the rest are nothing of ours.
fn protection(call: &Call) -> Needs {
    let keeps = |(key, value): (&String, &String)| match key.as_str() {
        "DisableApiTermination.Value" | "DisableApiStop.Value" => Some(value == "true"),
        "InstanceInitiatedShutdownBehavior.Value" => Some(value == "stop"),
        key if key.starts_with("BlockDeviceMapping.") && key.ends_with(".Ebs.DeleteOnTermination") => Some(value == "false"),
        _ => None,
    };
    let instance = || call.params.get("InstanceId").cloned().unwrap_or_default();
    let said = |key: &str| ["InstanceId", "Version"].contains(&key) || key.ends_with(".DeviceName");
    let values: Vec<_> = call.params.iter().filter(|(key, _)| !said(key)).map(keeps).collect();
    match values.iter().copied().collect::<Option<Vec<bool>>>() {
        Some(values) if values.is_empty() => Needs::Never("sets nothing"),
        Some(values) if values.iter().all(|keeps| *keeps) => Needs::Nothing,
        Some(_) if call.params.get("DisableApiStop.Value").is_some_and(|on| on == "false") && values.len() == 1 => {
            Needs::StopOrRelease(instance())
        }
        Some(_) => Needs::Release(instance()),
        None => Needs::Never("sets an attribute that is none of ours"),
    }
}

/// `firebreak-sessions-until-20260303T000030Z` after that time.
fn is_expired(policy: &str, now: Timestamp) -> bool {
    let until = policy.strip_prefix("firebreak-sessions-until-");
    let time = until.and_then(|until| until.get(..16)); // a session's name may follow
    time.is_some_and(|until| until <= now.strftime("%Y%m%dT%H%M%SZ").to_string().as_str())
}

fn denies(policy: &str, document: &str) -> bool {
    policy.starts_with("firebreak-") && document.contains(r#""Effect":"Deny""#) && !document.contains(r#""Allow""#)
}

fn tags_are_ours(call: &Call) -> bool {
    let keys = call.params.iter().filter(|(key, _)| key.ends_with(".Key") || key.starts_with("TagKeys."));
    keys.map(|(_, value)| value).all(|key| key.starts_with("firebreak.dev/"))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
