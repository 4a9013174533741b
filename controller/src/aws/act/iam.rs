//! IAM.

use aws_config::retry::RetryConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::{StatusType, Tag};

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;
use crate::aws::instance_role::DENY_PROFILE;

/// EC2 hands its credentials out, and they are good for nothing.
const FOR_INSTANCES: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

pub(super) async fn send(client: &Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
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
        Call::UpdateSigningCertificate { user, id, active } => {
            let request = client.update_signing_certificate().user_name(user).certificate_id(id);
            sent!(aws_sdk_iam, call, request.status(status(*active)))?;
        }
        Call::DeleteLoginProfile { user } => {
            sent!(aws_sdk_iam, call, client.delete_login_profile().user_name(user))?;
        }
        Call::UpdateAssumeRolePolicy { role, document } => {
            let request = client.update_assume_role_policy().role_name(role).policy_document(document);
            sent!(aws_sdk_iam, call, request)?;
        }
        Call::CreateRole => {
            let request = client.create_role().role_name(DENY_PROFILE).assume_role_policy_document(FOR_INSTANCES);
            let request = request.description("Firebreak: contained instances have it. May do nothing.");
            there_already(sent!(aws_sdk_iam, call, request.tags(mark(call)?)).map(drop))?;
        }
        Call::CreateInstanceProfile => {
            let request = client.create_instance_profile().instance_profile_name(DENY_PROFILE).tags(mark(call)?);
            there_already(sent!(aws_sdk_iam, call, request).map(drop))?;
        }
        Call::AddRoleToInstanceProfile => {
            let request = client.add_role_to_instance_profile().instance_profile_name(DENY_PROFILE);
            sent!(aws_sdk_iam, call, request.role_name(DENY_PROFILE))?;
        }
        Call::RemoveRoleFromInstanceProfile { role } => {
            let request = client.remove_role_from_instance_profile().instance_profile_name(DENY_PROFILE);
            sent!(aws_sdk_iam, call, request.role_name(role))?;
        }
        Call::PutPolicy { principal, .. }
        | Call::DeletePolicy { principal, .. }
        | Call::DeleteExpiredSessionsDeny { principal, .. }
        | Call::AttachPolicy { principal, .. }
        | Call::DetachPolicy { principal, .. }
        | Call::PutPermissionsBoundary { principal, .. }
        | Call::DeletePermissionsBoundary { principal }
        | Call::TagPrincipal { principal, .. }
        | Call::UntagPrincipal { principal, .. } => super::principal::send(client, call, principal).await?,
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}

/// Whoever made it: what is in it is read before it is used.
fn there_already(made: Result<(), AwsError>) -> Result<(), AwsError> {
    match made {
        Err(error) if error.code == "EntityAlreadyExists" => Ok(()),
        made => made,
    }
}

fn mark(call: &Call) -> Result<Tag, AwsError> {
    let tag = Tag::builder().key("firebreak.dev/role").value(DENY_PROFILE).build();
    tag.map_err(|e| AwsError::fenced(call.operation(), e.to_string()))
}

fn status(active: bool) -> StatusType {
    if active { StatusType::Active } else { StatusType::Inactive }
}
