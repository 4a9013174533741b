//! `deactivateSshKeys`: every SSH public key of an IAM user goes off, as `credentials.rs` says. CodeCommit accepts them, and
//! they need no access key.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateSSHPublicKey.html>

use firebreak_crds::ReleasePolicy;

use super::credentials::Credentials;
use crate::aws::{AwsError, Call, Credential, Session};

/// The action.
pub struct SshKeys;

impl Credentials for SshKeys {
    const ACTION: &'static str = "deactivateSshKeys";
    const NOUN: &'static str = "SSH key";

    async fn list(aws: &Session, user: &str) -> Result<Vec<Credential>, AwsError> {
        aws.ssh_keys(user).await
    }

    fn switch(user: String, id: String, active: bool) -> Call {
        Call::UpdateSshPublicKey { user, id, active }
    }

    fn come_back(release: &ReleasePolicy) -> bool {
        release.reactivate_credentials
    }
}
