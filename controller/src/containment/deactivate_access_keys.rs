//! `deactivateAccessKeys`: every access key of an IAM user goes off, as `credentials.rs` says.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html>

use firebreak_crds::ReleasePolicy;

use super::credentials::Credentials;
use crate::aws::{AwsError, Call, Credential, Session};

/// The action.
pub struct AccessKeys;

impl Credentials for AccessKeys {
    const ACTION: &'static str = "deactivateAccessKeys";
    const NOUN: &'static str = "access key";

    async fn list(aws: &Session, user: &str) -> Result<Vec<Credential>, AwsError> {
        aws.access_keys(user).await
    }

    fn switch(user: String, id: String, active: bool) -> Call {
        Call::UpdateAccessKey { user, id, active }
    }

    fn come_back(release: &ReleasePolicy) -> bool {
        release.reactivate_access_keys
    }
}
