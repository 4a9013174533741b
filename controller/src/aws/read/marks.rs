//! What carries Firebreak's marks, found without knowing what to look for.

use std::collections::BTreeMap;

use aws_sdk_iam::operation::get_account_authorization_details::GetAccountAuthorizationDetailsOutput;
use aws_sdk_iam::types::{AttachedPermissionsBoundary, AttachedPolicy, EntityType, PolicyDetail, Tag};

use super::iam::{decoded, same_document};
use super::{Read, error};
use crate::aws::call::SEALED_TRUST;
use crate::aws::model::{Marked, Principal};
use crate::aws::rate::Priority;
use crate::aws::session::Session;

/// The most that IAM gives at once.
const PAGE: i32 = 1000;

impl Session {
    /// Every user and role that carries a policy or a tag of ours, and every role that is sealed. Reads the whole account's IAM, in pages.
    pub async fn marked_principals(&self) -> Read<Vec<Marked>> {
        Ok(self.users_and_roles().await?.iter().flat_map(marked).collect())
    }

    /// All users and roles of the account, in pages.
    pub(super) async fn users_and_roles(&self) -> Read<Vec<GetAccountAuthorizationDetailsOutput>> {
        self.iam_limiter.take("iam", "GetAccountAuthorizationDetails", Priority::Sweep).await;
        let read = async {
            let request = self.iam.get_account_authorization_details().filter(EntityType::User).filter(EntityType::Role);
            let pages = request.max_items(PAGE).into_paginator().send();
            pages.collect::<Result<_, _>>().await.map_err(|e| error("iam:GetAccountAuthorizationDetails", &e))
        };
        self.measured("iam:GetAccountAuthorizationDetails", read).await
    }
}

fn marked(page: &GetAccountAuthorizationDetailsOutput) -> Vec<Marked> {
    let users = page.user_detail_list().iter().map(|u| Marked {
        principal: Principal::User(u.user_name().unwrap_or_default().to_owned()),
        id: u.user_id().unwrap_or_default().to_owned(),
        policies: policies(u.user_policy_list(), u.attached_managed_policies(), u.permissions_boundary()),
        tags: our_tags(u.tags()),
    });
    let roles = page.role_detail_list().iter().map(|r| Marked {
        principal: Principal::Role(r.role_name().unwrap_or_default().to_owned()),
        id: r.role_id().unwrap_or_default().to_owned(),
        policies: policies(r.role_policy_list(), r.attached_managed_policies(), r.permissions_boundary())
            .into_iter()
            .chain(
                r.assume_role_policy_document()
                    .filter(|text| same_document(&decoded(text), SEALED_TRUST))
                    .map(|_| "sealed trust policy".to_owned()),
            )
            .collect(),
        tags: our_tags(r.tags()),
    });
    users.chain(roles).filter(|m| !m.policies.is_empty() || !m.tags.is_empty()).collect()
}

fn policies(
    inline: &[PolicyDetail],
    attached: &[AttachedPolicy],
    boundary: Option<&AttachedPermissionsBoundary>,
) -> Vec<String> {
    let deny_all = |arn: Option<&str>| arn.is_some_and(|a| a.ends_with(":aws:policy/AWSDenyAll"));
    let inline = inline.iter().filter_map(|p| p.policy_name()).filter(|n| n.starts_with("firebreak-"));
    let mut marks: Vec<String> = inline.map(|n| format!("policy {n}")).collect();
    marks.extend(attached.iter().filter(|p| deny_all(p.policy_arn())).map(|_| "attached AWSDenyAll".to_owned()));
    let bounded = boundary.is_some_and(|b| deny_all(b.permissions_boundary_arn()));
    marks.extend(bounded.then(|| "boundary AWSDenyAll".to_owned()));
    marks
}

fn our_tags(tags: &[Tag]) -> BTreeMap<String, String> {
    let ours = tags.iter().filter(|t| t.key().starts_with("firebreak.dev/"));
    ours.map(|t| (t.key().to_owned(), t.value().to_owned())).collect()
}
