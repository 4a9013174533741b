//! What must never be touched in an account, by name.

use firebreak_crds::AwsAccount;
use kube::ResourceExt;

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];

/// What the AwsAccount protects, and who Firebreak itself is there.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    account: String,
    arns: Vec<String>,
    own_roles: Vec<String>,
}

impl Protected {
    /// `own`: who we are in that account.
    pub(super) fn of(account: &AwsAccount, own: &[&str]) -> Self {
        let own = own.iter().filter_map(|arn| assumed_role(arn));
        let own = own.chain(account.spec.assume_role.as_ref().map(|r| last(&r.role_arn)));
        Self {
            account: account.name_any(),
            arns: account.spec.protected.arns.clone(),
            own_roles: own.map(str::to_owned).collect(),
        }
    }

    /// Why a role may not be touched, if it may not.
    #[must_use]
    pub fn forbids_role(&self, arn: &str) -> Option<String> {
        if self.own_roles.iter().any(|own| own == last(arn)) {
            return Some(format!("it is the role that Firebreak itself uses in AwsAccount {}", self.account));
        }
        let glob = self.arns.iter().find(|glob| protects(glob, arn))?;
        Some(format!("it is protected by AwsAccount {} ({glob})", self.account))
    }
}

/// Those of our ARNs that are of that account: our own credentials can be of another.
pub fn own<'a>(account_id: &str, arns: impl IntoIterator<Item = Option<&'a String>>) -> Vec<&'a str> {
    arns.into_iter().flatten().map(String::as_str).filter(|arn| arn.split(':').nth(4) == Some(account_id)).collect()
}

/// The role of an assumed role's session.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-role-session>
#[must_use]
pub fn assumed_role(caller: &str) -> Option<&str> {
    caller.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next())
}

/// The ARN without `arn:<partition>`: an account is in one partition only.
#[must_use]
pub fn unpartitioned(arn: &str) -> &str {
    arn.splitn(3, ':').nth(2).unwrap_or(arn)
}

/// Whether one of an AwsAccount's globs is of that ARN, in whichever partition either of them is written. `*` stands for any
/// characters, colons too: so the glob is compared as it is written, and cut only where it has fields to be cut.
#[must_use]
pub fn protects(glob: &str, arn: &str) -> bool {
    let rest = unpartitioned(arn);
    matches(unpartitioned(glob), rest)
        || PARTITIONS.iter().any(|partition| matches(glob, &format!("arn:{partition}:{rest}")))
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

fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
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
    fn a_star_protects_whatever_it_stands_for() {
        let arn = "arn:aws:iam::111122223333:user/break-glass-1";
        for glob in [
            "*",
            "arn:*",
            "arn:aws*",
            "arn:aws-cn:*",
            "arn:*:user/break-glass*",
            "arn:*break-glass*",
            "*break-glass*",
            "*:user/*",
            "arn:aws:*",
            "arn:*:iam::*:user/break-glass-1",
            "arn:aws-us-gov:iam::111122223333:user/break-glass-1",
            "arn:a*1",
        ] {
            assert!(protects(glob, arn), "{glob}");
        }
        for glob in ["arn:*:role/break-glass*", "arn:*:user/break", "arn:aws:iam::111122223333:user/", "arn:*:ec2:*"] {
            assert!(!protects(glob, arn), "{glob}");
        }
        let in_china = "arn:aws-cn:iam::111122223333:user/break-glass-1";
        assert!(protects("arn:aws:iam::*:user/break-glass*", in_china) && protects("arn:*:user/break-glass*", in_china));
    }

    #[test]
    fn the_partition_protects_nobody_and_exposes_nobody() {
        assert_eq!(unpartitioned("arn:aws-cn:iam::1:user/a"), unpartitioned("arn:aws:iam::1:user/a"));
    }

    #[test]
    fn a_role_is_forbidden_by_the_list_and_where_it_is_our_own() {
        let mut account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
        account.spec.protected.arns = vec!["arn:aws:iam::1:role/core/*".into()];
        let role_arn = "arn:aws:iam::1:role/path/firebreak".to_owned();
        account.spec.assume_role = Some(firebreak_crds::AssumeRole { role_arn, external_id: None });
        let callers = ["arn:aws:sts::1:assumed-role/node/i-1", "arn:aws:sts::2:assumed-role/web/i-1"].map(String::from);
        let protected = Protected::of(&account, &own("1", callers.iter().map(Some)));
        for (arn, why) in [("role/core/db", "core/*"), ("role/firebreak", "itself"), ("role/node", "itself")] {
            assert!(protected.forbids_role(&format!("arn:aws:iam::1:{arn}")).unwrap().contains(why), "{arn}");
        }
        assert_eq!(protected.forbids_role("arn:aws:iam::1:role/web"), None);
    }
}
