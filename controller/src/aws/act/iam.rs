//! IAM.

use aws_config::retry::RetryConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::StatusType;

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;

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

fn status(active: bool) -> StatusType {
    if active { StatusType::Active } else { StatusType::Inactive }
}
