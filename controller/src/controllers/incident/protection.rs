//! Protected means untouched: what the account's list names, and the controller's own identity and instance. Tags protect nobody here:
//! whoever is in the account can write them.

use firebreak_crds::{AwsAccount, Resource, ResourceKind, quarantine_name};
use kube::ResourceExt;

use super::resolve::{Refusal, Resolved};
use crate::aws::{AwsError, Class, Identity, Principal, assumed_role, own, protects, unpartitioned};
use crate::controllers::Ctx;

/// The reason where AWS did not say who the target is: asked again soon.
pub const UNKNOWN: &str = "AccountNotReached";

/// Whether what the target's name says is protected.
pub fn by_name(resource: &Resource, account: &AwsAccount, own_instance: Option<&str>) -> Result<(), Refusal> {
    if resource.kind == ResourceKind::Ec2Instance && own_instance == Some(&resource.id) {
        return Err(Refusal::new("Protected", format!("Firebreak itself runs on {resource}")));
    }
    let status = account.status.iter().flat_map(|s| [s.caller_arn.as_ref(), s.base_caller_arn.as_ref()]);
    let callers = own(&account.spec.account_id, status);
    check(&resource.arn(), &callers, resource, account)?;
    check(&whose(resource).arn(), &callers, resource, account)
}

/// The user of an access key, the role of a session; of all else itself.
fn whose(resource: &Resource) -> Resource {
    let kind = match resource.kind {
        ResourceKind::AccessKey => ResourceKind::IamUser,
        ResourceKind::RoleSession => ResourceKind::IamRole,
        _ => return resource.clone(),
    };
    Resource { kind, id: Principal::of(resource).name().to_owned(), user: None, ..resource.clone() }
}

/// The same by the ARN that AWS shows. What that refuses is remembered: it takes no place from others. Where AWS did not answer, all stays
/// as it was.
pub async fn look(ctx: &Ctx, target: &Resolved) -> Result<(), Refusal> {
    let allowed = by_arn(ctx, target).await;
    if !allowed.as_ref().is_err_and(|refusal| refusal.reason == UNKNOWN) {
        ctx.memory.rule_out(&quarantine_name(&target.resource), allowed.is_err());
    }
    allowed
}

/// Before the first hold: the path of a user or a role is in no target, but in its ARN. Of a
/// role it says, too, whether AWS lets anybody change it.
async fn by_arn(ctx: &Ctx, target: &Resolved) -> Result<(), Refusal> {
    let Resolved { resource, account, .. } = target;
    if resource.kind == ResourceKind::Ec2Instance {
        return Ok(());
    }
    let read = async {
        let session = ctx.accounts.session(account).await?;
        let is_user = matches!(resource.kind, ResourceKind::IamUser | ResourceKind::AccessKey);
        let callers = [Some(session.caller_arn.clone()), session.base_caller_arn.clone()];
        if is_user && account.spec.protected.arns.is_empty() && !callers.iter().flatten().any(|arn| arn.contains(":user/")) {
            return Ok(None); // neither the list nor who we are can be a user with a path
        }
        let found = session.identity(&Principal::of(resource)).await?;
        Ok(found.map(|identity| (identity, callers)))
    };
    match read.await {
        Ok(None) => Ok(()),
        Ok(Some((identity, callers))) => {
            let callers = own(&account.spec.account_id, callers.iter().map(Option::as_ref));
            check(&identity.arn, &callers, resource, account)?;
            changeable(&identity, resource)
        }
        Err(error) => {
            let what = format!(
                "AwsAccount {} was not reached, so whether {resource} is protected is not known",
                account.name_any()
            );
            Err(unanswered(&what, &error))
        }
    }
}

/// What was not found out, and why. Only what time will mend is asked again soon: a missing permission, with the next sweep.
pub fn unanswered(what: &str, error: &AwsError) -> Refusal {
    let reason = if error.class == Class::Transient { UNKNOWN } else { error.class.reason() };
    Refusal::new(reason, format!("{what}: {error}"))
}

fn is_own_role(resource: &Resource, callers: &[&str], account: &AwsAccount) -> bool {
    let assumed = account.spec.assume_role.as_ref().and_then(|role| role.role_arn.rsplit('/').next());
    let mut own = callers.iter().filter_map(|caller| assumed_role(caller)).chain(assumed);
    matches!(Principal::of(resource), Principal::Role(name) if own.any(|role| role == name))
}

fn changeable(identity: &Identity, resource: &Resource) -> Result<(), Refusal> {
    identity.managed_by().map_or(Ok(()), |by| {
        let what = format!("{resource} is managed by {by}: AWS lets nobody change it; contain who uses it");
        Err(Refusal::new("ManagedByAws", what))
    })
}

fn check(arn: &str, callers: &[&str], resource: &Resource, account: &AwsAccount) -> Result<(), Refusal> {
    let name = account.name_any();
    if callers.iter().any(|caller| unpartitioned(caller) == unpartitioned(arn)) || is_own_role(resource, callers, account) {
        let what = format!("{resource} is the identity that Firebreak itself uses in AwsAccount {name}");
        return Err(Refusal::new("Protected", what));
    }
    match account.spec.protected.arns.iter().find(|glob| protects(glob, arn)) {
        Some(glob) => Err(Refusal::new("Protected", format!("{resource} is protected by AwsAccount {name} ({glob})"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containment::example;

    #[test]
    fn the_role_that_firebreak_uses_is_refused_however_it_is_known() {
        let role = crate::containment::example::role();
        let mut account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
        let caller = "arn:aws:sts::111122223333:assumed-role/build/firebreak";
        assert_eq!(check(&role.arn(), &["arn:aws:iam::1:user/x", caller], &role, &account).unwrap_err().reason, "Protected");
        assert_eq!(check(&role.arn(), &["arn:aws:sts::1:assumed-role/builder/x"], &role, &account), Ok(()));
        let role_arn = "arn:aws:iam::111122223333:role/with/path/build".to_owned();
        account.spec.assume_role = Some(firebreak_crds::AssumeRole { role_arn, external_id: None });
        assert_eq!(check(&role.arn(), &[], &role, &account).unwrap_err().reason, "Protected");
        let session = Resource { kind: ResourceKind::RoleSession, id: "build/firebreak".into(), ..role.clone() };
        assert_eq!(check(&session.arn(), &[caller], &session, &account).unwrap_err().reason, "Protected");
        let user = Resource { kind: ResourceKind::IamUser, ..role };
        assert_eq!(check(&user.arn(), &[caller], &user, &account), Ok(()));
    }

    #[test]
    fn who_the_controller_is_before_it_assumes_a_role_is_refused_in_its_own_account_only() {
        let role = crate::containment::example::role();
        let mut account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
        account.spec.account_id = role.account_id.clone();
        for (of, free) in [(role.account_id.as_str(), false), ("999999999999", true)] {
            let base_caller_arn = Some(format!("arn:aws:sts::{of}:assumed-role/build/controller"));
            account.status = Some(firebreak_crds::AwsAccountStatus { base_caller_arn, ..Default::default() });
            assert_eq!(by_name(&role, &account, None).is_ok(), free, "{of}");
        }
    }

    #[test]
    fn who_is_protected_is_so_with_all_its_keys_and_sessions() {
        let mut account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
        account.spec.protected.arns = vec!["arn:aws:iam::*:user/mallory".into(), "arn:aws:iam::*:role/build".into()];
        let of_another = Resource { id: "deploy/ci-job".into(), ..example::role_session() };
        for (resource, free) in
            [(example::access_key("AKIA1"), false), (example::role_session(), false), (of_another.clone(), true)]
        {
            assert_eq!(by_name(&resource, &account, None).is_ok(), free, "{resource}");
        }
        account.spec.protected.arns = vec!["arn:aws:sts::*:assumed-role/deploy/ci-*".into()];
        assert!(by_name(&of_another, &account, None).is_err(), "a session by its own ARN");
    }

    #[test]
    fn only_what_time_will_mend_is_asked_again_soon() {
        for (class, reason) in
            [(Class::Transient, UNKNOWN), (Class::Denied, "AccessDenied"), (Class::Terminal, "AwsRefused")]
        {
            let error = AwsError { class, operation: "iam:GetUser".into(), code: "C".into(), message: "no".into() };
            let refusal = unanswered("whether it is protected is not known", &error);
            assert_eq!(refusal.reason, reason, "{class:?}");
            assert!(refusal.message.contains("iam:GetUser"), "{}", refusal.message);
        }
    }

    #[test]
    fn the_instance_on_which_the_controller_runs_is_refused() {
        let account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
        let own = |id| by_name(&example::instance(), &account, id).map_err(|refusal| refusal.reason);
        assert_eq!((own(Some("i-1")), own(Some("i-2")), own(None)), (Err("Protected"), Ok(()), Ok(())));
        assert!(by_name(&example::user(), &account, Some("mallory")).is_ok(), "a user is no instance");
    }
}
