//! IAM.

use std::collections::BTreeMap;

use aws_config::retry::RetryConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::{StatusType, Tag};

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;

pub(super) async fn send(client: &Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::PutUserPolicy { user, policy, document } => {
            let request = client.put_user_policy().user_name(user).policy_name(policy).policy_document(document);
            sent!(aws_sdk_iam, call, request)?;
        }
        Call::DeleteUserPolicy { user, policy } | Call::DeleteExpiredSessionsDeny { user, policy } => {
            sent!(aws_sdk_iam, call, client.delete_user_policy().user_name(user).policy_name(policy))?;
        }
        Call::AttachUserPolicy { user, arn } => {
            sent!(aws_sdk_iam, call, client.attach_user_policy().user_name(user).policy_arn(arn))?;
        }
        Call::DetachUserPolicy { user, arn } => {
            sent!(aws_sdk_iam, call, client.detach_user_policy().user_name(user).policy_arn(arn))?;
        }
        Call::UpdateAccessKey { user, id, active } => {
            let request = client.update_access_key().user_name(user).access_key_id(id);
            sent!(aws_sdk_iam, call, request.status(status(*active)))?;
        }
        Call::UpdateSshPublicKey { user, id, active } => {
            let request = client.update_ssh_public_key().user_name(user).ssh_public_key_id(id);
            sent!(aws_sdk_iam, call, request.status(status(*active)))?;
        }
        Call::UpdateServiceSpecificCredential { user, id, active } => {
            let request = client.update_service_specific_credential().user_name(user).service_specific_credential_id(id);
            sent!(aws_sdk_iam, call, request.status(status(*active)))?;
        }
        Call::TagUser { user, tags } => {
            sent!(aws_sdk_iam, call, client.tag_user().user_name(user).set_tags(Some(tag_list(call, tags)?)))?;
        }
        Call::UntagUser { user, tags } => {
            sent!(
                aws_sdk_iam,
                call,
                client.untag_user().user_name(user).set_tag_keys(Some(tags.keys().cloned().collect()))
            )?;
        }
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}

fn status(active: bool) -> StatusType {
    if active { StatusType::Active } else { StatusType::Inactive }
}

fn tag_list(call: &Call, tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, AwsError> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect::<Result<_, _>>().map_err(|e| AwsError::fenced(call.operation(), e.to_string()))
}
