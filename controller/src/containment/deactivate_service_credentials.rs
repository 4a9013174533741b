//! `deactivateServiceCredentials`: every service-specific credential of an IAM user goes off, whatever the service, as
//! `credentials.rs` says. Among them are Bedrock's API keys, which need no signature: whoever has one holds it in hand.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateServiceSpecificCredential.html>

use firebreak_crds::ReleasePolicy;

use super::credentials::Credentials;
use crate::aws::{AwsError, Call, Credential, Session};

/// The action.
pub struct ServiceCredentials;

impl Credentials for ServiceCredentials {
    const ACTION: &'static str = "deactivateServiceCredentials";
    const NOUN: &'static str = "service-specific credential";

    async fn list(aws: &Session, user: &str) -> Result<Vec<Credential>, AwsError> {
        aws.service_credentials(user).await
    }

    fn switch(user: String, id: String, active: bool) -> Call {
        Call::UpdateServiceSpecificCredential { user, id, active }
    }

    fn come_back(release: &ReleasePolicy) -> bool {
        release.reactivate_credentials
    }
}
