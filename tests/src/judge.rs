//! Whether any call gives access where none is to be given.
//!
//! The judge stands in the proxy: when a changing call comes, and before it goes on, it reads what the cluster has on record
//! at that moment. Allowed are calls that narrow, the way into the conversion group while that window is on record as open,
//! and the way back to the original while nobody holds. All else that it sees, it remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use aws_sdk_iam::operation::get_role_policy::GetRolePolicyError;
use firebreak_crds::{ConversionState, Evidence, HolderState, Quarantine, is_true};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::OnceCell;

use crate::emulator::Aws;
use crate::plane;
use crate::proxy::Call;
use crate::shared;
use crate::sight;
use crate::world::World;

/// What a call needs to be right.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing: it narrows, or changes no access.
    Nothing,
    /// A window on record as open for this interface.
    OpenWindow(String),
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

/// Judges every changing call of one world's account.
#[derive(Debug, Clone)]
pub struct Judge(Arc<Bench>);

#[derive(Debug)]
struct Bench {
    kubeconfig: PathBuf,
    /// Not used before the first call, on the proxy's runtime, where its connections live.
    aws: Aws,
    kube: OnceCell<Kube>,
    judged: Mutex<Vec<Judged>>,
}

#[derive(Debug)]
struct Judged {
    #[allow(dead_code)] // shown where it was wrong
    call: Call,
    needs: Option<Needs>,
    wrong: Option<String>,
}

/// A client lives on the runtime that it was made on: the proxy's.
struct Kube(Client);

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a client")
    }
}

impl Judge {
    /// Begins to judge. A world has one judge.
    pub async fn of(world: &World<'_>) -> Self {
        let judge = Self(Arc::new(Bench {
            kubeconfig: world.plane.kubeconfig(),
            aws: shared::emulator().await.account(&world.aws.account).await.expect("an account"),
            kube: OnceCell::new(),
            judged: Mutex::default(),
        }));
        let bench = judge.0.clone();
        world.proxy.observe(Arc::new(move |call| {
            let bench = bench.clone();
            Box::pin(async move { bench.judge(call).await })
        }));
        judge
    }

    /// Fails the test where a call was wrong. Returns how many opened something, and rightly so.
    pub fn assert_no_call_was_wrong(&self) -> usize {
        let judged = self.0.judged.lock().unwrap();
        let wrong: Vec<_> = judged.iter().filter(|j| j.wrong.is_some()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        judged.iter().filter(|j| opens(j.needs.as_ref())).count()
    }
}

impl Bench {
    /// The record is read at once, beside all else: a little later it may say something else.
    async fn judge(&self, call: Call) {
        let (quarantines, evidence, names, denied) =
            tokio::join!(self.quarantines(), self.evidence(), self.names(), self.denied(&call));
        let (needs, wrong) = match (names, denied) {
            (Ok(names), Ok(denied)) => {
                let needs =
                    if denies_instances(&call) { lifts(&call, &denied) } else { needs(&call, &names, Timestamp::now()) };
                let wrong = meets(&needs, quarantines, evidence).err();
                (Some(needs), wrong)
            }
            (Err(blind), _) | (_, Err(blind)) => (None, Some(blind)),
        };
        let wrong = wrong.map(|wrong| format!("{wrong:#}"));
        self.judged.lock().unwrap().push(Judged { call, needs, wrong });
    }

    async fn quarantines(&self) -> anyhow::Result<Vec<Quarantine>> {
        let Kube(client) = self.kube.get_or_try_init(|| self.client()).await?;
        let all = Api::<Quarantine>::all(client.clone()).list(&ListParams::default()).await?;
        Ok(all.items.into_iter().filter(|q| q.spec.resource.account_id == self.aws.account).collect())
    }

    async fn evidence(&self) -> anyhow::Result<Vec<Evidence>> {
        let Kube(client) = self.kube.get_or_try_init(|| self.client()).await?;
        Ok(Api::<Evidence>::all(client.clone()).list(&ListParams::default()).await?.items)
    }

    async fn client(&self) -> anyhow::Result<Kube> {
        Ok(Kube(plane::client_of(&self.kubeconfig).await?))
    }

    /// The names of Firebreak's own security groups, and the instances of associations with instance profiles, by id.
    async fn names(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let answer = self.aws.ec2.describe_security_groups().send().await?;
        let all = answer.security_groups().iter();
        let groups = all.map(|g| (g.group_id.clone().unwrap_or_default(), g.group_name.clone().unwrap_or_default()));
        let mut names: BTreeMap<_, _> = groups.filter(|(_, name)| name.starts_with("firebreak-")).collect();
        let answer = self.aws.ec2.describe_iam_instance_profile_associations().send().await?;
        let of = |a: &aws_sdk_ec2::types::IamInstanceProfileAssociation| {
            Some((a.association_id.clone()?, a.instance_id.clone()?))
        };
        names.extend(answer.iam_instance_profile_associations().iter().filter_map(of));
        Ok(names)
    }

    /// What the policy that lists the denied sessions of instances says before the call, where the call changes it.
    async fn denied(&self, call: &Call) -> anyhow::Result<String> {
        if !denies_instances(call) {
            return Ok(String::new());
        }
        let role = call.params.get("RoleName").cloned().unwrap_or_default();
        let answer = self.aws.iam.get_role_policy().role_name(role).policy_name(INSTANCES).send().await;
        match answer {
            Ok(answer) => Ok(sight::decoded(&answer.policy_document)),
            Err(e) if e.as_service_error().is_some_and(GetRolePolicyError::is_no_such_entity_exception) => Ok(String::new()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The policy that lists the denied sessions of instances.
const INSTANCES: &str = "firebreak-deny-instances";

fn denies_instances(call: &Call) -> bool {
    ["PutRolePolicy", "DeleteRolePolicy"].contains(&call.action.as_str())
        && call.params.get("PolicyName").is_some_and(|name| name == INSTANCES)
}

/// Pure. A session whose deny is lifted is of an instance that is released, and of no other; and what it was issued before stays
/// denied. `before`: the policy's text before the call.
fn lifts(call: &Call, before: &str) -> Needs {
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
fn opens(needs: Option<&Needs>) -> bool {
    matches!(needs, Some(Needs::OpenWindow(_) | Needs::Release(_) | Needs::StopOrRelease(_) | Needs::KeyRelease { .. }))
}

/// Whether the record, if it is needed, allows the call.
fn meets(
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

/// Nobody holds it; and a Retained hold ends only when somebody deletes the Quarantine.
fn is_let_go(quarantine: &Quarantine) -> bool {
    let holders = &quarantine.spec.holders;
    let deleted = quarantine.metadata.deletion_timestamp.is_some();
    holders.iter().all(|h| h.state != HolderState::Holding) && (holders.is_empty() || deleted)
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
fn needs(call: &Call, groups: &BTreeMap<String, String>, now: Timestamp) -> Needs {
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
        [] => Needs::Never("changes something other than groups"),
        [one] if name(one) == Some("firebreak-isolation") => Needs::Nothing,
        [one] if name(one) == Some("firebreak-conversion") => Needs::OpenWindow(interface),
        _ => Needs::Release(interface),
    }
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
mod tests {
    use std::time::Instant;

    use super::*;

    fn judged(action: &str, params: &[(&str, &str)]) -> Needs {
        let groups = [("sg-i", "firebreak-isolation"), ("sg-c", "firebreak-conversion")];
        let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (service, action) = (String::new(), action.to_owned());
        let call =
            Call { seq: 0, started: Instant::now(), finished: None, service, action, params, status: None, error: None };
        needs(&call, &groups.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), "2026-03-01T12:00:00Z".parse().unwrap())
    }

    fn swapped(groups: &[(&str, &str)]) -> Needs {
        judged("ModifyNetworkInterfaceAttribute", &[&[("NetworkInterfaceId", "eni-1")], groups].concat())
    }

    #[test]
    fn only_the_isolation_group_alone_needs_no_leave() {
        assert_eq!(swapped(&[("SecurityGroupId.1", "sg-i")]), Needs::Nothing);
        assert_eq!(swapped(&[("SecurityGroupId.1", "sg-c")]), Needs::OpenWindow("eni-1".into()));
        assert_eq!(swapped(&[("SecurityGroupId.1", "sg-web")]), Needs::Release("eni-1".into()));
        assert_eq!(swapped(&[("SecurityGroupId.1", "sg-i"), ("SecurityGroupId.2", "sg-c")]), Needs::Release("eni-1".into()));
        assert!(matches!(swapped(&[("SourceDestCheck.Value", "false")]), Needs::Never(_)));
    }

    #[test]
    fn somebody_elses_groups_are_not_edited() {
        assert_eq!(judged("RevokeSecurityGroupEgress", &[("GroupId", "sg-i")]), Needs::Nothing);
        assert_eq!(judged("AuthorizeSecurityGroupIngress", &[("GroupId", "sg-c")]), Needs::Nothing);
        assert!(matches!(judged("AuthorizeSecurityGroupIngress", &[("GroupId", "sg-i")]), Needs::Never(_)));
        assert!(matches!(judged("RevokeSecurityGroupIngress", &[("GroupId", "sg-web")]), Needs::Never(_)));
    }

    #[test]
    fn an_instance_may_be_destroyed_only_after_a_release() {
        let set = |params: &[(&str, &str)]| judged("ModifyInstanceAttribute", &[&[("InstanceId", "i-1")], params].concat());
        let volume = |delete| {
            set(&[
                ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
                ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", delete),
            ])
        };
        assert_eq!(set(&[("DisableApiTermination.Value", "true")]), Needs::Nothing);
        assert_eq!(set(&[("DisableApiTermination.Value", "false")]), Needs::Release("i-1".into()));
        assert_eq!(set(&[("DisableApiStop.Value", "false")]), Needs::StopOrRelease("i-1".into()));
        assert_eq!(set(&[("InstanceInitiatedShutdownBehavior.Value", "stop")]), Needs::Nothing);
        assert_eq!(set(&[("InstanceInitiatedShutdownBehavior.Value", "terminate")]), Needs::Release("i-1".into()));
        assert_eq!((volume("false"), volume("true")), (Needs::Nothing, Needs::Release("i-1".into())));
        assert!(matches!(set(&[("UserData.Value", "x")]), Needs::Never(_)) && matches!(set(&[]), Needs::Never(_)));
    }

    #[test]
    fn an_instance_is_ended_only_where_it_is_decided_and_runs_again_only_after_a_release() {
        let end = |action, params: &[(&str, &str)]| judged(action, &[&[("InstanceId.1", "i-1")], params].concat());
        for (action, name) in [("StopInstances", "stopInstance"), ("TerminateInstances", "terminateInstance")] {
            assert_eq!(end(action, &[("SkipOsShutdown", "true")]), Needs::Decided(name, "i-1".into()));
            assert!(matches!(end(action, &[]), Needs::Never(_)), "{action}");
            assert!(matches!(end(action, &[("SkipOsShutdown", "true"), ("InstanceId.2", "i-2")]), Needs::Never(_)));
        }
        assert_eq!(end("StartInstances", &[]), Needs::Release("i-1".into()));
    }

    #[test]
    fn the_metadata_service_comes_back_only_in_a_release() {
        let set =
            |params: &[(&str, &str)]| judged("ModifyInstanceMetadataOptions", &[&[("InstanceId", "i-1")], params].concat());
        assert_eq!(set(&[("HttpEndpoint", "disabled")]), Needs::Nothing);
        assert_eq!(set(&[("HttpEndpoint", "enabled")]), Needs::Release("i-1".into()));
        assert!(matches!(set(&[("HttpTokens", "optional")]), Needs::Never(_)));
        assert!(matches!(set(&[("HttpEndpoint", "disabled"), ("HttpTokens", "optional")]), Needs::Never(_)));
    }

    #[test]
    fn public_addresses_come_back_only_in_a_release_and_never_from_somebody() {
        let on = |value| swapped(&[("AssociatePublicIpAddress", value)]);
        assert_eq!((on("false"), on("true")), (Needs::Nothing, Needs::Release("eni-1".into())));
        let back = |value| judged("AssociateAddress", &[("NetworkInterfaceId", "eni-1"), ("AllowReassociation", value)]);
        assert_eq!(back("false"), Needs::Release("eni-1".into()));
        assert!(matches!(back("true"), Needs::Never(_)));
        assert_eq!(judged("DisassociateAddress", &[]), Needs::Nothing);
    }

    #[test]
    fn a_users_deny_goes_only_in_a_release_and_a_residual_one_only_when_expired() {
        let delete = |policy| judged("DeleteUserPolicy", &[("UserName", "m"), ("PolicyName", policy)]);
        assert_eq!(delete("firebreak-deny-all"), Needs::Release("m".into()));
        assert_eq!(delete("firebreak-sessions-until-20260301T115959Z"), Needs::Nothing);
        assert!(matches!(delete("firebreak-sessions-until-20260301T120001Z"), Needs::Never(_)));
        assert!(matches!(delete("own"), Needs::Never(_)));
    }

    #[test]
    fn a_users_credentials_go_on_only_in_a_release() {
        for action in ["UpdateSSHPublicKey", "UpdateServiceSpecificCredential", "UpdateSigningCertificate"] {
            let switched = |status| judged(action, &[("UserName", "m"), ("Status", status)]);
            assert_eq!((switched("Inactive"), switched("Active")), (Needs::Nothing, Needs::Release("m".into())), "{action}");
            assert_eq!(judged(action, &[("UserName", "m")]), Needs::Release("m".into()), "{action}");
        }
    }

    #[test]
    fn an_access_key_goes_on_only_when_neither_it_nor_its_user_is_held() {
        let switched =
            |status| judged("UpdateAccessKey", &[("UserName", "m"), ("AccessKeyId", "AKIA1"), ("Status", status)]);
        let on = || Needs::KeyRelease { key: "AKIA1".into(), user: "m".into() };
        assert_eq!((switched("Inactive"), switched("Active")), (Needs::Nothing, on()));
        let held = |id: &str, holders: serde_json::Value| -> Quarantine {
            let resource =
                serde_json::json!({ "kind": "IamUser", "accountRef": { "name": "a" }, "accountId": "1", "id": id });
            let spec = serde_json::json!({ "resource": resource, "holders": holders });
            Quarantine::new(id, serde_json::from_value(spec).unwrap())
        };
        let asks = serde_json::json!([{
            "uid": "1", "namespace": "n", "name": "i", "state": "Holding", "actions": [{ "deactivateAccessKeys": {} }]
        }]);
        let nobody = || serde_json::json!([]);
        for (what, quarantines, right) in [
            ("both let go", vec![held("m", nobody()), held("AKIA1", nobody())], true),
            ("the key is held", vec![held("m", nobody()), held("AKIA1", asks.clone())], false),
            ("the user is held", vec![held("m", asks.clone()), held("AKIA1", nobody())], false),
            ("another is held", vec![held("m", nobody()), held("AKIA2", asks)], true),
            ("nobody released it", vec![], false),
        ] {
            assert_eq!(meets(&on(), Ok(quarantines), Ok(vec![])).is_ok(), right, "{what}");
        }
        let policy = ("PolicyName", "firebreak-revoke-sessions-AKIA1");
        assert_eq!(judged("DeleteUserPolicy", &[("UserName", "m"), policy]), Needs::Release("AKIA1".into()));
    }

    #[test]
    fn a_roles_deny_goes_only_in_a_release_too() {
        let role = |action, more: (&str, &str)| judged(action, &[("RoleName", "build"), more]);
        let release = Needs::Release("build".into());
        assert_eq!(role("DeleteRolePolicy", ("PolicyName", "firebreak-deny-all")), release);
        assert_eq!(role("DetachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/AWSDenyAll")), release);
        assert_eq!(role("AttachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/AWSDenyAll")), Needs::Nothing);
        assert_eq!(role("DeleteRolePolicy", ("PolicyName", "firebreak-revoke-sessions")), release);
        let session = role("DeleteRolePolicy", ("PolicyName", "firebreak-deny-session-ci-job"));
        assert_eq!(session, Needs::Release("build/ci-job".into()));
        let ended = "firebreak-sessions-until-20260301T115959Z-ci-job";
        assert_eq!(role("DeleteRolePolicy", ("PolicyName", ended)), Needs::Nothing);
        let trust = |effect| role("UpdateAssumeRolePolicy", ("PolicyDocument", effect));
        assert_eq!((trust(r#"{"Effect":"Deny"}"#), trust(r#"{"Effect":"Allow"}"#)), (Needs::Nothing, release));
        assert!(matches!(role("DeleteRolePolicy", ("PolicyName", "own")), Needs::Never(_)));
        assert!(matches!(role("AttachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/Own")), Needs::Never(_)));
    }

    #[test]
    fn a_boundary_that_does_not_deny_comes_only_with_a_release() {
        let put = |policy: &str| {
            let arn = format!("arn:aws:iam::aws:policy/{policy}");
            judged("PutUserPermissionsBoundary", &[("UserName", "m"), ("PermissionsBoundary", &arn)])
        };
        assert_eq!(put("AWSDenyAll"), Needs::Nothing);
        assert_eq!(put("AdministratorAccess"), Needs::Release("m".into()));
        assert_eq!(judged("DeleteUserPermissionsBoundary", &[("UserName", "m")]), Needs::Release("m".into()));
    }

    #[test]
    fn an_instance_leaves_its_group_but_comes_back_only_in_a_release() {
        let call = |action, params: &[(&str, &str)]| judged(action, &[&[("InstanceIds.member.1", "i-1")], params].concat());
        for action in ["DetachInstances", "EnterStandby"] {
            assert_eq!(call(action, &[("ShouldDecrementDesiredCapacity", "false")]), Needs::Nothing);
            assert!(matches!(call(action, &[("ShouldDecrementDesiredCapacity", "true")]), Needs::Never(_)));
        }
        for action in ["AttachInstances", "ExitStandby"] {
            assert_eq!(call(action, &[]), Needs::Release("i-1".into()));
        }
        assert_eq!(call("SetInstanceProtection", &[("ProtectedFromScaleIn", "true")]), Needs::Nothing);
        assert_eq!(call("SetInstanceProtection", &[("ProtectedFromScaleIn", "false")]), Needs::Release("i-1".into()));
    }

    #[test]
    fn an_instance_leaves_its_load_balancers_but_comes_back_only_in_a_release() {
        let call = |action| judged(action, &[("TargetGroupArn", "arn"), ("Instances.member.1.InstanceId", "i-1")]);
        assert_eq!(call("DeregisterTargets"), Needs::Nothing);
        assert_eq!(call("DeregisterInstancesFromLoadBalancer"), Needs::Nothing);
        assert_eq!(call("RegisterTargets"), Needs::Release("arn".into()));
        assert_eq!(call("RegisterInstancesWithLoadBalancer"), Needs::Release("i-1".into()));
    }

    #[test]
    fn an_instance_gets_another_profile_than_ours_only_in_a_release() {
        let with = |profile| {
            let arn = format!("arn:aws:iam::1:instance-profile/{profile}");
            judged("AssociateIamInstanceProfile", &[("InstanceId", "i-1"), ("IamInstanceProfile.Arn", &arn)])
        };
        assert_eq!((with("firebreak-deny-all"), with("web")), (Needs::Nothing, Needs::Release("i-1".into())));
        assert_eq!(judged("CreateRole", &[("RoleName", "firebreak-deny-all")]), Needs::Nothing);
        assert!(matches!(judged("CreateRole", &[("RoleName", "admin")]), Needs::Never(_)));
        let add = |role| {
            let params = [("InstanceProfileName", "firebreak-deny-all"), ("RoleName", role)];
            (judged("AddRoleToInstanceProfile", &params), judged("RemoveRoleFromInstanceProfile", &params))
        };
        assert!(matches!(add("admin"), (Needs::Never(_), Needs::Nothing)));
    }

    #[test]
    fn the_deny_of_one_instance_is_lifted_in_its_release_and_old_sessions_stay_denied() {
        let ids = |ids: &[&str]| format!(r#"{{"Effect":"Deny","Condition":{{"StringEquals":{{"aws:userid":{ids:?}}}}}}}"#);
        let old = |id: &str| ids(&[id]).replace(r#""StringEquals""#, r#""DateLessThan":{},"StringEquals""#);
        let text = |statements: &[String]| format!(r#"{{"Statement":[{}]}}"#, statements.join(","));
        let before = text(&[ids(&["A:i-1", "A:i-2"])]);
        let judged = |after: &str| {
            let params = [("RoleName", "web"), ("PolicyName", INSTANCES), ("PolicyDocument", after)];
            let params = params.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            let (service, action) = (String::new(), "PutRolePolicy".to_owned());
            let (seq, started) = (0, Instant::now());
            lifts(&Call { seq, started, finished: None, service, action, params, status: None, error: None }, &before)
        };
        assert_eq!(judged(&text(&[ids(&["A:i-1", "A:i-2", "A:i-3"])])), Needs::Nothing);
        assert_eq!(judged(&text(&[ids(&["A:i-2"]), old("A:i-1")])), Needs::Release("i-1".into()));
        assert!(matches!(judged(&text(&[ids(&["A:i-2"])])), Needs::Never(_)));
        assert!(matches!(judged(&text(&[old("A:i-1")])), Needs::Never(_)));
        assert!(matches!(judged(&before.replace("Deny", "Allow")), Needs::Never(_)));
    }

    #[test]
    fn a_command_is_cancelled_on_one_instance() {
        let cancelled = |on: &[(&str, &str)]| judged("CancelCommand", &[&[("CommandId", "c-1")], on].concat());
        assert_eq!(cancelled(&[("InstanceIds.1", "i-1")]), Needs::Nothing);
        assert!(matches!(cancelled(&[]), Needs::Never(_)));
        assert!(matches!(cancelled(&[("InstanceIds.1", "i-1"), ("InstanceIds.2", "i-2")]), Needs::Never(_)));
        assert_eq!(judged("TerminateSession", &[("SessionId", "s-1")]), Needs::Nothing);
        assert!(matches!(judged("SendCommand", &[]), Needs::Never(_)));
    }

    #[test]
    fn a_password_may_go_and_may_not_be_made() {
        assert_eq!(judged("DeleteLoginProfile", &[("UserName", "m")]), Needs::Nothing);
        assert!(matches!(judged("CreateLoginProfile", &[("UserName", "m")]), Needs::Never(_)));
        assert!(matches!(judged("UpdateLoginProfile", &[("UserName", "m")]), Needs::Never(_)));
    }

    #[test]
    fn what_is_not_on_the_list_is_wrong() {
        assert!(matches!(judged("RebootInstances", &[]), Needs::Never(_)));
        assert!(matches!(judged("DeleteTags", &[("Tag.1.Key", "Name")]), Needs::Never(_)));
        assert_eq!(judged("TagUser", &[("Tags.member.1.Key", "firebreak.dev/incident")]), Needs::Nothing);
    }
}
