//! IAM.

use std::collections::BTreeMap;

use aws_sdk_iam::types::{ServiceSpecificCredentialMetadata, SigningCertificate, StatusType};

use super::{Read, absent, error, timestamp};
use crate::aws::error::AwsError;
use crate::aws::model::{Credential, Identity, LoginProfile, Principal, User};
use crate::aws::session::Session;
use crate::clock;

impl Session {
    /// The user or role, or None where there is none.
    pub async fn identity(&self, principal: &Principal) -> Read<Option<Identity>> {
        match principal {
            Principal::User(name) => self.user(name).await,
            Principal::Role(name) => self.role(name).await,
        }
    }

    /// The role, or None where there is none.
    async fn role(&self, name: &str) -> Read<Option<Identity>> {
        let read = async {
            let answer = self.iam.get_role().role_name(name).send().await;
            absent(answer.map_err(|e| error("iam:GetRole", &e)).map(|a| a.role.map(role)))
        };
        self.measured("iam:GetRole", read).await
    }

    /// The user, or None where there is none.
    pub async fn user(&self, name: &str) -> Read<Option<User>> {
        let read = async {
            let answer = self.iam.get_user().user_name(name).send().await;
            absent(answer.map_err(|e| error("iam:GetUser", &e)).map(|a| a.user.map(user)))
        };
        self.measured("iam:GetUser", read).await
    }

    /// The name of the user with that unique id, among all of the account; None where there is none.
    pub async fn name_of_user(&self, id: &str) -> Read<Option<String>> {
        let read = async {
            let mut users = self.iam.list_users().into_paginator().page_size(1000).items().send();
            while let Some(user) = users.next().await {
                let user = user.map_err(|e| error("iam:ListUsers", &e))?;
                if user.user_id == id {
                    return Ok(Some(user.user_name));
                }
            }
            Ok(None)
        };
        self.measured("iam:ListUsers", read).await
    }

    /// All access keys of a user; none where there is no user.
    pub async fn access_keys(&self, name: &str) -> Read<Vec<Credential>> {
        let read = async {
            let keys = self.iam.list_access_keys().user_name(name).into_paginator().items().send();
            let keys: Vec<_> = keys.collect::<Result<_, _>>().await.map_err(|e| error("iam:ListAccessKeys", &e))?;
            Ok(keys.into_iter().map(access_key).collect())
        };
        self.measured("iam:ListAccessKeys", read).await
    }

    /// All SSH public keys of a user.
    pub async fn ssh_keys(&self, name: &str) -> Read<Vec<Credential>> {
        let read = async {
            let keys = self.iam.list_ssh_public_keys().user_name(name).into_paginator().items().send();
            let keys: Vec<_> = keys.collect::<Result<_, _>>().await.map_err(|e| error("iam:ListSSHPublicKeys", &e))?;
            Ok(keys.into_iter().map(ssh_key).collect())
        };
        self.measured("iam:ListSSHPublicKeys", read).await
    }

    /// The service-specific credentials of a user, of all services. The SDK has no paginator for them.
    pub async fn service_credentials(&self, name: &str) -> Read<Vec<Credential>> {
        let read = async {
            let (mut all, mut marker) = (Vec::new(), None);
            loop {
                let page = self.iam.list_service_specific_credentials().user_name(name).set_marker(marker).send().await;
                let page = page.map_err(|e| error("iam:ListServiceSpecificCredentials", &e))?;
                all.extend(page.service_specific_credentials.unwrap_or_default().into_iter().map(service_credential));
                marker = page.marker.filter(|_| page.is_truncated);
                if marker.is_none() {
                    return Ok(all);
                }
            }
        };
        self.measured("iam:ListServiceSpecificCredentials", read).await
    }

    /// All signing certificates of a user.
    pub async fn signing_certificates(&self, name: &str) -> Read<Vec<Credential>> {
        let read = async {
            let all = self.iam.list_signing_certificates().user_name(name).into_paginator().items().send();
            let all: Vec<_> = all.collect::<Result<_, _>>().await.map_err(|e| error("iam:ListSigningCertificates", &e))?;
            Ok(all.into_iter().map(signing_certificate).collect())
        };
        self.measured("iam:ListSigningCertificates", read).await
    }

    /// Whether a user has a console password; None also where there is no user.
    pub async fn login_profile(&self, name: &str) -> Read<Option<LoginProfile>> {
        let read = async {
            let answer = self.iam.get_login_profile().user_name(name).send().await;
            absent(answer.map_err(|e| error("iam:GetLoginProfile", &e)).map(|a| a.login_profile.as_ref().map(login_profile)))
        };
        self.measured("iam:GetLoginProfile", read).await
    }

    /// Whether there is a managed policy of that ARN.
    pub async fn policy_exists(&self, arn: &str) -> Read<bool> {
        let read = async {
            let answer = self.iam.get_policy().policy_arn(arn).send().await;
            absent(answer.map_err(|e| error("iam:GetPolicy", &e)).map(|a| a.policy)).map(|policy| policy.is_some())
        };
        self.measured("iam:GetPolicy", read).await
    }

    /// The text of an inline policy; arrives URL-encoded.
    pub async fn inline_policy(&self, principal: &Principal, policy: &str) -> Read<Option<String>> {
        let operation = principal.either("iam:GetUserPolicy", "iam:GetRolePolicy");
        let read = async {
            let text = match principal {
                Principal::User(name) => {
                    let answer = self.iam.get_user_policy().user_name(name).policy_name(policy).send().await;
                    answer.map_err(|e| error(operation, &e)).map(|a| a.policy_document)
                }
                Principal::Role(name) => {
                    let answer = self.iam.get_role_policy().role_name(name).policy_name(policy).send().await;
                    answer.map_err(|e| error(operation, &e)).map(|a| a.policy_document)
                }
            };
            absent(text.map(|text| Some(decoded(&text))))
        };
        self.measured(operation, read).await
    }

    /// The names of a user's or role's inline policies; none where there is no such principal.
    pub async fn inline_policy_names(&self, principal: &Principal) -> Read<Vec<String>> {
        let operation = principal.either("iam:ListUserPolicies", "iam:ListRolePolicies");
        let read = async {
            match principal {
                Principal::User(name) => {
                    let list = self.iam.list_user_policies().user_name(name).into_paginator().items().send();
                    list.collect::<Result<Vec<_>, _>>().await.map_err(|e| error(operation, &e))
                }
                Principal::Role(name) => {
                    let list = self.iam.list_role_policies().role_name(name).into_paginator().items().send();
                    list.collect::<Result<Vec<_>, _>>().await.map_err(|e| error(operation, &e))
                }
            }
        };
        self.measured(operation, async { read.await.or_else(AwsError::none_where_not_found) }).await
    }

    /// The ARNs of the policies attached to a user or role; none where there is no such principal.
    pub async fn attached_policies(&self, principal: &Principal) -> Read<Vec<String>> {
        let operation = principal.either("iam:ListAttachedUserPolicies", "iam:ListAttachedRolePolicies");
        let read = async {
            let list: Vec<_> = match principal {
                Principal::User(name) => {
                    let list = self.iam.list_attached_user_policies().user_name(name).into_paginator().items().send();
                    list.collect::<Result<_, _>>().await.map_err(|e| error(operation, &e))?
                }
                Principal::Role(name) => {
                    let list = self.iam.list_attached_role_policies().role_name(name).into_paginator().items().send();
                    list.collect::<Result<_, _>>().await.map_err(|e| error(operation, &e))?
                }
            };
            Ok(list.into_iter().filter_map(|p| p.policy_arn).collect())
        };
        self.measured(operation, async { read.await.or_else(AwsError::none_where_not_found) }).await
    }
}

fn user(u: aws_sdk_iam::types::User) -> User {
    let boundary = u.permissions_boundary.and_then(boundary);
    User { id: u.user_id, arn: u.arn, tags: tags(u.tags), boundary, ..User::default() }
}

pub(super) fn role(r: aws_sdk_iam::types::Role) -> Identity {
    let boundary = r.permissions_boundary.and_then(boundary);
    let trust = r.assume_role_policy_document.as_deref().map(decoded);
    let last_used = r.role_last_used.and_then(|used| used.last_used_date).and_then(timestamp);
    Identity { id: r.role_id, arn: r.arn, tags: tags(r.tags), boundary, trust, last_used }
}

fn tags(tags: Option<Vec<aws_sdk_iam::types::Tag>>) -> BTreeMap<String, String> {
    tags.unwrap_or_default().into_iter().map(|t| (t.key, t.value)).collect()
}

fn boundary(b: aws_sdk_iam::types::AttachedPermissionsBoundary) -> Option<String> {
    b.permissions_boundary_arn
}

fn login_profile(p: &aws_sdk_iam::types::LoginProfile) -> LoginProfile {
    LoginProfile { created: timestamp(p.create_date).unwrap_or_default() }
}

fn access_key(k: aws_sdk_iam::types::AccessKeyMetadata) -> Credential {
    Credential {
        active: k.status != Some(StatusType::Inactive),
        created: k.create_date.and_then(timestamp),
        expired: false,
        id: k.access_key_id.unwrap_or_default(),
    }
}

fn ssh_key(k: aws_sdk_iam::types::SshPublicKeyMetadata) -> Credential {
    let created = timestamp(k.upload_date);
    Credential { active: k.status != StatusType::Inactive, created, expired: false, id: k.ssh_public_key_id }
}

fn signing_certificate(c: SigningCertificate) -> Credential {
    let created = c.upload_date.and_then(timestamp);
    Credential { active: c.status != StatusType::Inactive, created, expired: false, id: c.certificate_id }
}

fn service_credential(c: ServiceSpecificCredentialMetadata) -> Credential {
    let over = c.expiration_date.and_then(timestamp).is_some_and(|at| at <= clock::now());
    Credential {
        active: !matches!(c.status, StatusType::Inactive | StatusType::Expired),
        created: timestamp(c.create_date),
        expired: over || c.status == StatusType::Expired,
        id: c.service_specific_credential_id,
    }
}

/// Whether two policy documents say the same. They are compared as parsed JSON: AWS may change white space.
#[must_use]
pub fn same_document(a: &str, b: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    parsed(a).is_some_and(|a| parsed(b) == Some(a))
}

pub(super) fn decoded(document: &str) -> String {
    percent_encoding::percent_decode_str(document).decode_utf8_lossy().into_owned()
}
