//! What each target of an Incident is, whether it may be touched, and what its policy asks for.

use std::collections::HashSet;
use std::sync::Arc;

use firebreak_crds::conditions::STALLED;
use firebreak_crds::{
    ApprovalPolicy, ArnTarget, AwsAccount, ContainAction, ContainmentPolicySpec, EvidenceAction, Incident, Mode, NameRef,
    Named, ReleasePolicy, Resource, ResourceKind, get_condition, quarantine_name,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use kube::runtime::reflector::ObjectRef;

use super::blast_radius::Cause;
use super::selector::{self, Choice, Chosen, Selection};
use super::{access_key, limit, protection};
use crate::clock;
use crate::controllers::Ctx;
use crate::stores::Stores;

/// One target of an Incident.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource; None where its account is not known.
    pub resource: Option<Resource>,
    /// How to contain it, or why not.
    pub resolved: Result<Resolved, Refusal>,
}

/// A target that may be contained.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The resource.
    pub resource: Resource,
    /// Its account.
    pub account: Arc<AwsAccount>,
    /// The policy's actions for it.
    pub actions: Vec<ContainAction>,
    /// The policy's evidence for it.
    pub evidence: Vec<EvidenceAction>,
    /// What the policy gives back beyond the default.
    pub release: ReleasePolicy,
    /// What the policy lets nobody do alone.
    pub approvals: Option<ApprovalPolicy>,
    /// Why actions wait for approval though the policy does not say so.
    pub causes: Vec<Cause>,
    /// Why some of the policy's actions are not in `actions` yet.
    pub waiting: Vec<Refusal>,
    /// Whether any that waits for approval would cut it off: it is not contained meanwhile.
    pub open: bool,
    /// Whether the last look refused it by what AWS shows of it: then it takes no place from others.
    pub ruled_out: bool,
    /// The selector that chose it.
    pub chosen: Option<Choice>,
}

/// Why a target is not contained as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: &'static str,
    /// What is so, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Every target, in the order of the spec; in the place of a selector the instances that it stands for. Nothing twice.
pub fn all(ctx: &Ctx, incident: &Incident, chosen: &Chosen) -> Vec<Target> {
    let each = incident.spec.targets.iter().map(|target| match &target.ec2_selector {
        None => vec![one(ctx, incident, target)],
        Some(selector) => chosen.of(selector).into_iter().flat_map(|s| instances(ctx, incident, s)).collect(),
    });
    let mut targets: Vec<Target> = each.flatten().collect();
    if incident.spec.mode == Mode::Release {
        let gone = chosen.all.iter().filter(|s| s.selector.is_none());
        targets.extend(gone.flat_map(|s| instances(ctx, incident, s)));
    }
    let mut targets = once(targets);
    limit::note(&mut ctx.memory.claimed(), || ctx.stores.quarantines.state(), incident, &mut targets, clock::now());
    targets
}

/// One resource named in two ways is one target; and not the one that awaits approval, where another does not.
fn once(mut targets: Vec<Target>) -> Vec<Target> {
    let awaits = |t: &Target| t.resolved.as_ref().is_ok_and(|r| r.chosen.as_ref().is_some_and(|c| c.awaits.is_some()));
    let free: HashSet<Resource> = targets.iter().filter(|t| !awaits(t)).filter_map(|t| t.resource.clone()).collect();
    let mut met = HashSet::new();
    targets.retain(|t| match &t.resource {
        Some(resource) if awaits(t) && free.contains(resource) => false,
        Some(resource) => met.insert(resource.clone()),
        None => true,
    });
    targets
}

/// The instances that a selector stands for.
fn instances(ctx: &Ctx, incident: &Incident, selection: &Selection) -> Vec<Target> {
    let account = match account(&selection.record.account_ref, &ctx.stores) {
        Ok(account) => account,
        Err(refusal) => return vec![Target { resource: None, resolved: Err(refusal) }],
    };
    let target = |(id, choice): (&String, Choice)| {
        let resource = selector::resource(&selection.record, &account.spec.account_id, id);
        let resolved = resolve(ctx, incident, &resource, &account).map(|r| Resolved { chosen: Some(choice), ..r });
        Target { resource: Some(resource), resolved }
    };
    selection.choices().map(target).collect()
}

/// The account of a selector, where this Incident may use it in that region.
pub fn reach(ctx: &Ctx, incident: &Incident, account_ref: &NameRef, region: &str) -> Result<Arc<AwsAccount>, Refusal> {
    let account = account(account_ref, &ctx.stores)?;
    usable(&account)?;
    allowed(ctx, incident, &account)?;
    is_listed(Some(region), &account)?;
    Ok(account)
}

fn one(ctx: &Ctx, incident: &Incident, target: &firebreak_crds::Target) -> Target {
    let found = || {
        let (resource, account) = located(target, &ctx.stores)?;
        if resource.kind != ResourceKind::AccessKey {
            return Ok((resource, account));
        }
        reachable(ctx, incident, &resource, &account)?;
        Ok((access_key::resolve(ctx, incident, resource)?, account))
    };
    match found() {
        Err(refusal) => Target { resource: None, resolved: Err(refusal) },
        Ok((resource, account)) => {
            let resolved = resolve(ctx, incident, &resource, &account);
            Target { resource: Some(resource), resolved }
        }
    }
}

/// The resource that a target names, and its account. That of an access key has no user yet: only AWS knows it.
pub fn located(target: &firebreak_crds::Target, stores: &Stores) -> Result<(Resource, Arc<AwsAccount>), Refusal> {
    if let Some(target) = &target.arn {
        return by_arn(target, stores);
    }
    let Some((account_ref, (region, id, kind))) = target.account_ref().cloned().zip(parts(target)) else {
        return Err(Refusal::new("UnknownKind", "this controller knows no such kind of target: upgrade it"));
    };
    let account = account(&account_ref, stores)?;
    Ok((Resource { kind, account_ref, account_id: account.spec.account_id.clone(), region, id, user: None }, account))
}

/// The same by an ARN. It says the account and the partition itself: another's is refused.
fn by_arn(target: &ArnTarget, stores: &Stores) -> Result<(Resource, Arc<AwsAccount>), Refusal> {
    let ArnTarget { account_ref, arn } = target;
    let account = account(account_ref, stores)?;
    let Some(Named { partition, account_id, region, kind, id }) = Named::by(arn) else {
        return Err(Refusal::new(
            "UnknownKind",
            format!("{arn} names nothing that this controller can contain: upgrade it"),
        ));
    };
    let caller = account.status.as_ref().and_then(|s| s.caller_arn.as_deref()).unwrap_or_default();
    let elsewhere = caller.split(':').nth(1).is_some_and(|ours| ours != partition);
    if account_id != account.spec.account_id || elsewhere {
        let (name, ours) = (&account_ref.name, &account.spec.account_id);
        let what = format!(
            "{arn} is of account {account_id} in {partition}, and AwsAccount {name} is {ours} ({caller}): name the AwsAccount of that account in accountRef, or mend the ARN"
        );
        return Err(Refusal::new("WrongAccount", what));
    }
    Ok((Resource { kind, account_ref: account_ref.clone(), account_id, region, id, user: None }, account))
}

/// The account of that name.
pub fn account(account_ref: &NameRef, stores: &Stores) -> Result<Arc<AwsAccount>, Refusal> {
    Stores::named(&stores.accounts, &account_ref.name).ok_or_else(|| {
        let what = format!("AwsAccount {} does not exist: create it, or mend accountRef", account_ref.name);
        Refusal::new("AccountNotFound", what)
    })
}

/// The region, the id and the kind.
fn parts(target: &firebreak_crds::Target) -> Option<(Option<String>, String, ResourceKind)> {
    if let Some(t) = &target.ec2_instance {
        return Some((Some(t.region.clone()), t.instance_id.clone(), ResourceKind::Ec2Instance));
    }
    if let Some(t) = &target.iam_user {
        return Some((None, t.user_name.clone(), ResourceKind::IamUser));
    }
    if let Some(t) = &target.iam_role {
        return Some((None, t.role_name.clone(), ResourceKind::IamRole));
    }
    if let Some(t) = &target.access_key {
        return Some((None, t.access_key_id.clone(), ResourceKind::AccessKey));
    }
    let session = target.role_session.as_ref()?;
    let id = format!("{}/{}", session.role_name, session.session_name);
    Some((None, id, ResourceKind::RoleSession))
}

fn resolve(ctx: &Ctx, incident: &Incident, resource: &Resource, account: &Arc<AwsAccount>) -> Result<Resolved, Refusal> {
    reachable(ctx, incident, resource, account)?;
    protection::by_name(resource, account, ctx.own_instance.as_deref())?;
    policy(ctx, incident, resource, account)
}

/// Whether the account may be used for it at all.
pub fn reachable(ctx: &Ctx, incident: &Incident, resource: &Resource, account: &AwsAccount) -> Result<(), Refusal> {
    usable(account)?;
    allowed(ctx, incident, account)?;
    is_listed(resource.region.as_deref(), account)
}

/// An account that says something else than AWS, or that another AwsAccount owns.
fn usable(account: &AwsAccount) -> Result<(), Refusal> {
    let stalled = account.status.as_ref().and_then(|s| get_condition(&s.conditions, STALLED));
    match stalled {
        Some(c) if c.reason == "DuplicateAccount" || c.reason == "WrongAccount" => {
            Err(Refusal::new("AccountNotUsable", format!("AwsAccount {}: {}", account.name_any(), c.message)))
        }
        _ => Ok(()),
    }
}

fn allowed(ctx: &Ctx, incident: &Incident, account: &AwsAccount) -> Result<(), Refusal> {
    let name = incident.namespace().unwrap_or_default();
    let refused = |why: String| Err(Refusal::new("NamespaceNotAllowed", why));
    let Some(selector) = account.spec.allowed_namespaces.clone() else {
        return refused(format!("AwsAccount {} allows no namespace: set spec.allowedNamespaces", account.name_any()));
    };
    let Ok(selector) = Selector::try_from(selector) else {
        return refused(format!(
            "spec.allowedNamespaces of AwsAccount {} is not a valid label selector",
            account.name_any()
        ));
    };
    let namespace = ctx.stores.namespaces.get(&ObjectRef::<Namespace>::new(&name));
    if namespace.is_some_and(|ns| selector.matches(ns.labels())) {
        return Ok(());
    }
    refused(format!(
        "namespace {name} has not the labels that spec.allowedNamespaces of AwsAccount {} asks for ({selector})",
        account.name_any()
    ))
}

fn is_listed(region: Option<&str>, account: &AwsAccount) -> Result<(), Refusal> {
    match region {
        Some(region) if !account.spec.regions.iter().any(|r| r == region) => {
            let what = format!(
                "region {region} is not in spec.regions of AwsAccount {}: add it there, or mend the target",
                account.name_any()
            );
            Err(Refusal::new("RegionNotAllowed", what))
        }
        _ => Ok(()),
    }
}

fn policy(ctx: &Ctx, incident: &Incident, resource: &Resource, account: &Arc<AwsAccount>) -> Result<Resolved, Refusal> {
    let name = &incident.spec.policy_ref.name;
    let Some(policy) = Stores::named(&ctx.stores.policies, name) else {
        return Err(Refusal::new(
            "PolicyNotFound",
            format!("ContainmentPolicy {name} does not exist: create it, or mend spec.policyRef"),
        ));
    };
    let spec = &policy.spec;
    let (actions, evidence) = of_policy(spec, resource.kind);
    if actions.is_empty() && evidence.is_empty() {
        let field = match resource.kind {
            ResourceKind::Ec2Instance => "spec.ec2Instance",
            ResourceKind::IamUser => "spec.iamUser",
            ResourceKind::IamRole => "spec.iamRole",
            ResourceKind::AccessKey => "spec.accessKey",
            ResourceKind::RoleSession => "spec.roleSession",
        };
        let what = format!("ContainmentPolicy {name} has nothing for this kind of target: add {field}.contain");
        return Err(Refusal::new("NothingToDo", what));
    }
    Ok(Resolved {
        resource: resource.clone(),
        account: account.clone(),
        actions,
        evidence,
        release: spec.release.clone(),
        approvals: spec.approvals.clone(),
        causes: Vec::new(),
        waiting: Vec::new(),
        open: false,
        ruled_out: ctx.memory.is_ruled_out(&quarantine_name(resource)),
        chosen: None,
    })
}

/// The actions and the evidence that a policy has for this kind of resource.
pub fn of_policy(spec: &ContainmentPolicySpec, kind: ResourceKind) -> (Vec<ContainAction>, Vec<EvidenceAction>) {
    fn all<'a, A, C: From<&'a A>>(actions: &'a [A]) -> Vec<C> {
        actions.iter().map(Into::into).collect()
    }
    let found = match kind {
        ResourceKind::Ec2Instance => spec.ec2_instance.as_ref().map(|p| (all(&p.contain), all(&p.evidence))),
        ResourceKind::IamUser => spec.iam_user.as_ref().map(|p| (all(&p.contain), Vec::new())),
        ResourceKind::IamRole => spec.iam_role.as_ref().map(|p| (all(&p.contain), Vec::new())),
        ResourceKind::AccessKey => spec.access_key.as_ref().map(|p| (all(&p.contain), Vec::new())),
        ResourceKind::RoleSession => spec.role_session.as_ref().map(|p| (all(&p.contain), Vec::new())),
    };
    found.unwrap_or_default()
}
