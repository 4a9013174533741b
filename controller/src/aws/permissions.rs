//! The IAM policy that the role in an account needs: the operations that the code has, and no other.

use serde_json::{Value, json};

use super::instance_role::DENY_PROFILE;

/// What is read.
const READS: &[&str] = &[
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "ec2:DescribeAddresses",
    "ec2:DescribeIamInstanceProfileAssociations",
    "ec2:DescribeInstanceAttribute",
    "ec2:DescribeInstanceConnectEndpoints",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSnapshots",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "ec2:GetSerialConsoleAccessStatus",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "iam:GetAccessKeyLastUsed",
    "iam:GetAccountAuthorizationDetails",
    "iam:GetInstanceProfile",
    "iam:GetLoginProfile",
    "iam:GetPolicy",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:GetUser",
    "iam:GetUserPolicy",
    "iam:ListAccessKeys",
    "iam:ListAttachedRolePolicies",
    "iam:ListAttachedUserPolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:ListSSHPublicKeys",
    "iam:ListServiceSpecificCredentials",
    "iam:ListSigningCertificates",
    "iam:ListUserPolicies",
    "iam:ListUsers",
    "ssm:DescribeSessions",
    "ssm:ListCommandInvocations",
    "sts:GetAccessKeyInfo",
];

/// What is changed: the operations of `Call`, and what EC2 checks behind `CreateSnapshots`.
const WRITES: &[&str] = &[
    "autoscaling:AttachInstances",
    "autoscaling:DetachInstances",
    "autoscaling:EnterStandby",
    "autoscaling:ExitStandby",
    "autoscaling:SetInstanceProtection",
    "ec2:AssociateAddress",
    "ec2:AssociateIamInstanceProfile",
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSnapshots",
    "ec2:CreateTags",
    "ec2:DeleteTags",
    "ec2:DisassociateAddress",
    "ec2:DisassociateIamInstanceProfile",
    "ec2:ModifyInstanceAttribute",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:ReplaceIamInstanceProfileAssociation",
    "ec2:RevokeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:StartInstances",
    "ec2:StopInstances",
    "ec2:TerminateInstances",
    "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
    "elasticloadbalancing:DeregisterTargets",
    "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
    "elasticloadbalancing:RegisterTargets",
    "iam:DeleteLoginProfile",
    "iam:DeleteRolePolicy",
    "iam:DeleteUserPolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:PutUserPermissionsBoundary",
    "iam:PutUserPolicy",
    "iam:TagRole",
    "iam:TagUser",
    "iam:UntagRole",
    "iam:UntagUser",
    "iam:UpdateAccessKey",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateSSHPublicKey",
    "iam:UpdateServiceSpecificCredential",
    "iam:UpdateSigningCertificate",
    "ssm:CancelCommand",
    "ssm:TerminateSession",
];

/// What `ModifyInstanceAttribute` could set besides: code that runs at the next start, and the way out of isolation. A deny, since
/// AWS's spelling of the names in requests is not documented: where one differs, it denies too little, and contains all the same.
const NEVER_SET: &[&str] = &["groupSet", "instanceType", "kernel", "ramdisk", "sourceDestCheck", "userData"];

/// Firebreak's own role and profile are made and changed, no other.
const OWN_PROFILE: &[&str] = &[
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
];

/// The policy document for the role that `AwsAccount.spec.assumeRole` names.
#[must_use]
pub fn iam_policy() -> Value {
    let deny_all = "arn:*:iam::aws:policy/AWSDenyAll";
    let own_role = format!("arn:*:iam::*:role/{DENY_PROFILE}");
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "Look", "Effect": "Allow", "Action": READS, "Resource": "*" },
            { "Sid": "Contain", "Effect": "Allow", "Action": WRITES, "Resource": "*" },
            {
                "Sid": "AttachNothingButTheDeny",
                "Effect": "Allow",
                "Action": ["iam:AttachRolePolicy", "iam:AttachUserPolicy", "iam:DetachRolePolicy", "iam:DetachUserPolicy"],
                "Resource": "*",
                "Condition": { "ArnLike": { "iam:PolicyARN": deny_all } },
            },
            {
                "Sid": "TakeAwayNoBoundaryButTheDeny",
                "Effect": "Allow",
                "Action": ["iam:DeleteRolePermissionsBoundary", "iam:DeleteUserPermissionsBoundary"],
                "Resource": "*",
                "Condition": { "ArnLike": { "iam:PermissionsBoundary": deny_all } },
            },
            {
                "Sid": "MakeTheProfileThatMayDoNothing",
                "Effect": "Allow",
                "Action": OWN_PROFILE,
                "Resource": [own_role, format!("arn:*:iam::*:instance-profile/{DENY_PROFILE}")],
            },
            {
                "Sid": "TakeTheRoleOfAnInstance",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": own_role,
            },
            {
                "Sid": "GiveTheRoleOfAnInstanceBack",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": "arn:*:iam::*:role/*",
                "Condition": { "StringLike": { "iam:PassedToService": "ec2.amazonaws.com*" } },
            },
            {
                "Sid": "SetNothingThatRunsCode",
                "Effect": "Deny",
                "Action": "ec2:ModifyInstanceAttribute",
                "Resource": "*",
                "Condition": { "StringEqualsIgnoreCase": { "ec2:Attribute": NEVER_SET } },
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html>
    const LARGEST_SCP: usize = 5120;

    #[test]
    fn the_service_control_policy_is_one_in_all_its_forms_and_fits() {
        let read = |text| serde_json::from_str::<Value>(text).unwrap();
        let policy = read(include_str!("../../../docs/scp/scp.json"));
        let stack = read(include_str!("../../../docs/scp/cloudformation.json"));
        assert_eq!(stack["Resources"]["FirebreakGuard"]["Properties"]["Content"], policy);
        assert!(policy.to_string().len() <= LARGEST_SCP);
        let guarded = |s: &Value| s["Condition"]["ArnNotLike"]["aws:PrincipalArn"] == "arn:*:iam::*:role/firebreak";
        assert!(policy["Statement"].as_array().unwrap().iter().all(|s| s["Effect"] == "Deny" && guarded(s)));
    }
}
