//! Protected means untouched: what the account's list names, and the controller's own identity. Tags protect nobody here:
//! whoever is in the account can write them.

use firebreak_crds::{AwsAccount, Resource, ResourceKind};
use kube::ResourceExt;

use super::resolve::{Refusal, Resolved};
use crate::aws::AwsError;
use crate::controllers::Ctx;

/// The reason where AWS did not say who the target is: asked again soon.
pub const UNKNOWN: &str = "AccountNotReached";

/// Whether what the target's name says is protected.
pub fn by_name(resource: &Resource, account: &AwsAccount) -> Result<(), Refusal> {
    let caller = account.status.as_ref().and_then(|s| s.caller_arn.clone()).unwrap_or_default();
    check(&resource.arn(), &caller, resource, account)
}

/// The same by the ARN that AWS shows, before the first hold: a user's path is in no target, but in its ARN.
pub async fn by_arn(ctx: &Ctx, target: &Resolved) -> Result<(), Refusal> {
    let Resolved { resource, account, .. } = target;
    if resource.kind != ResourceKind::IamUser {
        return Ok(());
    }
    let read = async {
        let session = ctx.accounts.session(account).await?;
        if account.spec.protected.arns.is_empty() && !session.caller_arn.contains(":user/") {
            return Ok(None); // neither the list nor who we are can be a user with a path
        }
        Ok(session.user(&resource.id).await?.map(|user| (user.arn, session.caller_arn.clone())))
    };
    match read.await {
        Ok(found) => found.map_or(Ok(()), |(arn, caller)| check(&arn, &caller, resource, account)),
        Err(error) => {
            let error: AwsError = error;
            let what = format!(
                "AwsAccount {} was not reached, so whether {resource} is protected is not known: {error}",
                account.name_any()
            );
            Err(Refusal::new(UNKNOWN, what))
        }
    }
}

fn check(arn: &str, caller: &str, resource: &Resource, account: &AwsAccount) -> Result<(), Refusal> {
    let (arn, name) = (unpartitioned(arn), account.name_any());
    if unpartitioned(caller) == arn {
        let what = format!("{resource} is the identity that Firebreak itself uses in AwsAccount {name}");
        return Err(Refusal::new("Protected", what));
    }
    match account.spec.protected.arns.iter().find(|glob| matches(unpartitioned(glob), arn)) {
        Some(glob) => Err(Refusal::new("Protected", format!("{resource} is protected by AwsAccount {name} ({glob})"))),
        None => Ok(()),
    }
}

/// The ARN without `arn:<partition>`: an account is in one partition only.
fn unpartitioned(arn: &str) -> &str {
    arn.splitn(3, ':').nth(2).unwrap_or(arn)
}

/// `*` stands for any characters.
fn matches(glob: &str, text: &str) -> bool {
    match glob.split_once('*') {
        None => glob == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).filter(|i| tail.is_char_boundary(*i)).any(|i| matches(rest, &tail[i..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let arn = "iam::111122223333:user/admins/break-glass-1";
        for glob in [arn, "iam::*:user/*", "*", "iam::111122223333:user/*/break-glass*"] {
            assert!(matches(glob, arn), "{glob}");
        }
        for glob in ["iam::111122223333:user/break-glass*", "", "iam::111122223333:user/admins"] {
            assert!(!matches(glob, arn), "{glob}");
        }
    }

    #[test]
    fn the_partition_protects_nobody_and_exposes_nobody() {
        assert_eq!(unpartitioned("arn:aws-cn:iam::1:user/a"), unpartitioned("arn:aws:iam::1:user/a"));
    }
}
