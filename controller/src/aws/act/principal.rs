//! IAM: what is done to a user and to a role alike, by operations of two names.

use std::collections::BTreeMap;

use aws_config::retry::RetryConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::Tag;

use crate::aws::call::Call;
use crate::aws::error::AwsError;
use crate::aws::model::Principal;

pub(super) async fn send(client: &Client, call: &Call, principal: &Principal) -> Result<(), AwsError> {
    match principal {
        Principal::User(name) => user(client, call, name).await,
        Principal::Role(name) => role(client, call, name).await,
    }
}

async fn user(client: &Client, call: &Call, user: &str) -> Result<(), AwsError> {
    match call {
        Call::PutPolicy { policy, document, .. } => {
            let request = client.put_user_policy().user_name(user).policy_name(policy).policy_document(document);
            sent!(aws_sdk_iam, call, request).map(drop)
        }
        Call::DeletePolicy { policy, .. } | Call::DeleteExpiredSessionsDeny { policy, .. } => {
            sent!(aws_sdk_iam, call, client.delete_user_policy().user_name(user).policy_name(policy)).map(drop)
        }
        Call::AttachPolicy { arn, .. } => {
            sent!(aws_sdk_iam, call, client.attach_user_policy().user_name(user).policy_arn(arn)).map(drop)
        }
        Call::DetachPolicy { arn, .. } => {
            sent!(aws_sdk_iam, call, client.detach_user_policy().user_name(user).policy_arn(arn)).map(drop)
        }
        Call::PutPermissionsBoundary { arn, .. } => {
            let request = client.put_user_permissions_boundary().user_name(user).permissions_boundary(arn);
            sent!(aws_sdk_iam, call, request).map(drop)
        }
        Call::DeletePermissionsBoundary { .. } => {
            sent!(aws_sdk_iam, call, client.delete_user_permissions_boundary().user_name(user)).map(drop)
        }
        Call::TagPrincipal { tags, .. } => {
            sent!(aws_sdk_iam, call, client.tag_user().user_name(user).set_tags(Some(tag_list(call, tags)?))).map(drop)
        }
        Call::UntagPrincipal { tags, .. } => {
            sent!(aws_sdk_iam, call, client.untag_user().user_name(user).set_tag_keys(Some(keys(tags)))).map(drop)
        }
        other => Err(super::unknown(other)),
    }
}

async fn role(client: &Client, call: &Call, role: &str) -> Result<(), AwsError> {
    match call {
        Call::PutPolicy { policy, document, .. } => {
            let request = client.put_role_policy().role_name(role).policy_name(policy).policy_document(document);
            sent!(aws_sdk_iam, call, request).map(drop)
        }
        Call::DeletePolicy { policy, .. } | Call::DeleteExpiredSessionsDeny { policy, .. } => {
            sent!(aws_sdk_iam, call, client.delete_role_policy().role_name(role).policy_name(policy)).map(drop)
        }
        Call::AttachPolicy { arn, .. } => {
            sent!(aws_sdk_iam, call, client.attach_role_policy().role_name(role).policy_arn(arn)).map(drop)
        }
        Call::DetachPolicy { arn, .. } => {
            sent!(aws_sdk_iam, call, client.detach_role_policy().role_name(role).policy_arn(arn)).map(drop)
        }
        Call::PutPermissionsBoundary { arn, .. } => {
            let request = client.put_role_permissions_boundary().role_name(role).permissions_boundary(arn);
            sent!(aws_sdk_iam, call, request).map(drop)
        }
        Call::DeletePermissionsBoundary { .. } => {
            sent!(aws_sdk_iam, call, client.delete_role_permissions_boundary().role_name(role)).map(drop)
        }
        Call::TagPrincipal { tags, .. } => {
            sent!(aws_sdk_iam, call, client.tag_role().role_name(role).set_tags(Some(tag_list(call, tags)?))).map(drop)
        }
        Call::UntagPrincipal { tags, .. } => {
            sent!(aws_sdk_iam, call, client.untag_role().role_name(role).set_tag_keys(Some(keys(tags)))).map(drop)
        }
        other => Err(super::unknown(other)),
    }
}

fn keys(tags: &BTreeMap<String, String>) -> Vec<String> {
    tags.keys().cloned().collect()
}

fn tag_list(call: &Call, tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, AwsError> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect::<Result<_, _>>().map_err(|e| AwsError::fenced(call.operation(), e.to_string()))
}
