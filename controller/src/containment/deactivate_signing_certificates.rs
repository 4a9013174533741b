//! `deactivateSigningCertificates`: every X.509 signing certificate of an IAM user goes off, as `credentials.rs` says.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateSigningCertificate.html>

use firebreak_crds::ReleasePolicy;

use super::credentials::Credentials;
use crate::aws::{AwsError, Call, Credential, Session};

/// The action.
pub struct SigningCertificates;

impl Credentials for SigningCertificates {
    const ACTION: &'static str = "deactivateSigningCertificates";
    const NOUN: &'static str = "signing certificate";

    async fn list(aws: &Session, user: &str) -> Result<Vec<Credential>, AwsError> {
        aws.signing_certificates(user).await
    }

    fn switch(user: String, id: String, active: bool) -> Call {
        Call::UpdateSigningCertificate { user, id, active }
    }

    fn come_back(release: &ReleasePolicy) -> bool {
        release.reactivate_credentials
    }
}
