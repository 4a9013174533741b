//! What carries Firebreak's marks, found without knowing what to look for.

use aws_sdk_iam::operation::get_account_authorization_details::GetAccountAuthorizationDetailsOutput;
use aws_sdk_iam::types::{AttachedPolicy, EntityType, PolicyDetail, Tag};

use super::{Read, error};
use crate::aws::model::Marked;
use crate::aws::session::Session;

impl Session {
    /// Every user and role that carries a policy or a tag of ours. Reads the whole account's IAM, in pages.
    pub async fn marked_principals(&self) -> Read<Vec<Marked>> {
        let read = async {
            let request = self.iam.get_account_authorization_details().filter(EntityType::User).filter(EntityType::Role);
            let pages = request.into_paginator().send();
            let pages: Vec<_> =
                pages.collect::<Result<_, _>>().await.map_err(|e| error("iam:GetAccountAuthorizationDetails", &e))?;
            Ok(pages.iter().flat_map(marked).collect())
        };
        self.measured("iam:GetAccountAuthorizationDetails", read).await
    }
}

fn marked(page: &GetAccountAuthorizationDetailsOutput) -> Vec<Marked> {
    let users = page.user_detail_list().iter().map(|u| Marked {
        principal: format!("user {}", u.user_name().unwrap_or_default()),
        marks: marks(u.user_policy_list(), u.attached_managed_policies(), u.tags()),
    });
    let roles = page.role_detail_list().iter().map(|r| Marked {
        principal: format!("role {}", r.role_name().unwrap_or_default()),
        marks: marks(r.role_policy_list(), r.attached_managed_policies(), r.tags()),
    });
    users.chain(roles).filter(|m| !m.marks.is_empty()).collect()
}

fn marks(inline: &[PolicyDetail], attached: &[AttachedPolicy], tags: &[Tag]) -> Vec<String> {
    let inline = inline.iter().filter_map(|p| p.policy_name()).filter(|n| n.starts_with("firebreak-"));
    let attached = attached.iter().filter_map(|p| p.policy_arn()).filter(|a| a.ends_with(":aws:policy/AWSDenyAll"));
    let tags = tags.iter().filter(|t| t.key().starts_with("firebreak.dev/"));
    let policies = inline.map(|n| format!("policy {n}")).chain(attached.map(|_| "attached AWSDenyAll".to_owned()));
    policies.chain(tags.map(|t| format!("tag {}={}", t.key(), t.value()))).collect()
}
