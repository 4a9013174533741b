//! Targets named by their ARN.

use crate::ResourceKind;

/// What an ARN names, of the kinds of resources that can be contained and have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// The twelve digits of the account.
    pub account_id: String,
    /// The region of an instance.
    pub region: Option<String>,
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Its id, as in `Resource`: a user or role without its path.
    pub id: String,
}

impl Named {
    /// Reads an ARN; None where it names nothing that can be contained.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
    #[must_use]
    pub fn by(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, service, region, account_id, resource] = parts[..] else { return None };
        let (what, rest) = resource.split_once('/')?;
        let without_path = rest.rsplit('/').next().unwrap_or_default();
        let (kind, id) = match (service, what, region.is_empty()) {
            ("ec2", "instance", false) => (ResourceKind::Ec2Instance, rest),
            ("iam", "user", true) => (ResourceKind::IamUser, without_path),
            ("iam", "role", true) => (ResourceKind::IamRole, without_path),
            ("sts", "assumed-role", true) if rest.matches('/').count() == 1 => (ResourceKind::RoleSession, rest),
            _ => return None,
        };
        let region = (!region.is_empty()).then(|| region.to_owned());
        Some(Self { partition: partition.into(), account_id: account_id.into(), region, kind, id: id.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_what_its_fields_name() {
        for (arn, partition, region, kind, id) in [
            ("aws:ec2:eu-west-1:111122223333:instance/i-1", "aws", Some("eu-west-1"), ResourceKind::Ec2Instance, "i-1"),
            ("aws-cn:iam::111122223333:user/mallory", "aws-cn", None, ResourceKind::IamUser, "mallory"),
            ("aws:iam::111122223333:user/ops/eu/mallory", "aws", None, ResourceKind::IamUser, "mallory"),
            ("aws-us-gov:iam::111122223333:role/build", "aws-us-gov", None, ResourceKind::IamRole, "build"),
            ("aws:iam::111122223333:role/ci/build", "aws", None, ResourceKind::IamRole, "build"),
            ("aws:sts::111122223333:assumed-role/build/i-1", "aws", None, ResourceKind::RoleSession, "build/i-1"),
        ] {
            let named = Named::by(&format!("arn:{arn}")).unwrap_or_else(|| panic!("{arn}"));
            let region = region.map(str::to_owned);
            let account_id = "111122223333".into();
            assert_eq!(named, Named { partition: partition.into(), account_id, region, kind, id: id.into() }, "{arn}");
        }
    }

    #[test]
    fn what_cannot_be_contained_is_no_target() {
        for arn in [
            "",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:group/admins",
            "arn:aws:s3:::bucket/key",
            "arn:aws:ec2::111122223333:instance/i-1",
            "arn:aws:sts::111122223333:assumed-role/build",
            "arn:aws:sts::111122223333:assumed-role/a/b/c",
            "arn:aws:sts::111122223333:federated-user/mallory",
        ] {
            assert_eq!(Named::by(arn), None, "{arn}");
        }
    }
}
