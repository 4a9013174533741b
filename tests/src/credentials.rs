//! The credentials of the scene's user besides access keys, straight in AWS: made, switched, deleted and looked at.

use std::collections::BTreeMap;

use anyhow::Context;
use aws_sdk_iam::types::StatusType;

use crate::emulator::Aws;
use crate::scene::USER;

/// A kind of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// SSH public keys, for CodeCommit.
    SshKeys,
    /// Service-specific credentials: the first is of CodeCommit, those after it are API keys of Bedrock.
    ServiceCredentials,
    /// X.509 signing certificates.
    SigningCertificates,
}

/// Signed by itself; its key was thrown away.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBfDCCASGgAwIBAgIURj8AjHdXve94bOpNE6NQbhHHhc4wCgYIKoZIzj0EAwIw\n\
EjEQMA4GA1UEAwwHbWFsbG9yeTAgFw0yNjExMjQxOTU5NDZaGA8yMTI2MTAzMTE5\n\
NTk0NlowEjEQMA4GA1UEAwwHbWFsbG9yeTBZMBMGByqGSM49AgEGCCqGSM49AwEH\n\
A0IABA/wYW8V22TZ0KPJd8drD3QjS8ixC4URQjQuAmBSfJA7EuqiRE38NZx078I6\n\
mbfOq1hm3v7sgOAw7TZUIJ6HqfajUzBRMB0GA1UdDgQWBBSzw3naccxC0vugRqab\n\
o0yNTIfBujAfBgNVHSMEGDAWgBSzw3naccxC0vugRqabo0yNTIfBujAPBgNVHRMB\n\
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCETdUCqD000ICKNtEW3ZIGT8yr\n\
dZmPS33YDggwdb6SyAIhALIayFj2v4nNTUeaxBB/pU+nnwYzUbobgMN3PblF8BMB\n\
-----END CERTIFICATE-----";

impl Credentials {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SshKeys, Self::ServiceCredentials, Self::SigningCertificates];

    /// The kind that this action switches off.
    pub fn of(action: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.action() == action)
    }

    /// The action that switches them off.
    pub fn action(self) -> &'static str {
        match self {
            Self::SshKeys => "deactivateSshKeys",
            Self::ServiceCredentials => "deactivateServiceCredentials",
            Self::SigningCertificates => "deactivateSigningCertificates",
        }
    }

    /// The AWS operation that switches one.
    pub fn operation(self) -> &'static str {
        match self {
            Self::SshKeys => "UpdateSSHPublicKey",
            Self::ServiceCredentials => "UpdateServiceSpecificCredential",
            Self::SigningCertificates => "UpdateSigningCertificate",
        }
    }

    /// Makes one more, which is active, and returns its id.
    pub async fn make(self, aws: &Aws) -> anyhow::Result<String> {
        match self {
            Self::SshKeys => {
                let made = aws.iam.upload_ssh_public_key().user_name(USER).ssh_public_key_body("ssh-rsa AAAAB3NzaC1yc2E=");
                Ok(made.send().await?.ssh_public_key.context("a key")?.ssh_public_key_id)
            }
            Self::ServiceCredentials => {
                let service =
                    if self.all(aws).await?.is_empty() { "codecommit.amazonaws.com" } else { "bedrock.amazonaws.com" };
                let made = aws.iam.create_service_specific_credential().user_name(USER).service_name(service).send().await?;
                Ok(made.service_specific_credential.context("a credential")?.service_specific_credential_id)
            }
            Self::SigningCertificates => {
                let made = aws.iam.upload_signing_certificate().user_name(USER).certificate_body(CERTIFICATE);
                Ok(made.send().await?.certificate.context("a certificate")?.certificate_id)
            }
        }
    }

    /// Switches one.
    pub async fn switch(self, aws: &Aws, id: &str, active: bool) -> anyhow::Result<()> {
        let status = if active { StatusType::Active } else { StatusType::Inactive };
        match self {
            Self::SshKeys => {
                let update = aws.iam.update_ssh_public_key().user_name(USER).ssh_public_key_id(id);
                update.status(status).send().await?;
            }
            Self::ServiceCredentials => {
                let update = aws.iam.update_service_specific_credential().user_name(USER);
                update.service_specific_credential_id(id).status(status).send().await?;
            }
            Self::SigningCertificates => {
                let update = aws.iam.update_signing_certificate().user_name(USER).certificate_id(id);
                update.status(status).send().await?;
            }
        }
        Ok(())
    }

    /// Deletes one.
    pub async fn delete(self, aws: &Aws, id: &str) -> anyhow::Result<()> {
        match self {
            Self::SshKeys => {
                aws.iam.delete_ssh_public_key().user_name(USER).ssh_public_key_id(id).send().await?;
            }
            Self::ServiceCredentials => {
                let delete = aws.iam.delete_service_specific_credential().user_name(USER);
                delete.service_specific_credential_id(id).send().await?;
            }
            Self::SigningCertificates => {
                aws.iam.delete_signing_certificate().user_name(USER).certificate_id(id).send().await?;
            }
        }
        Ok(())
    }

    /// The status of each.
    pub async fn all(self, aws: &Aws) -> anyhow::Result<BTreeMap<String, String>> {
        let all: Vec<(String, StatusType)> = match self {
            Self::SshKeys => {
                let keys = aws.iam.list_ssh_public_keys().user_name(USER).send().await?.ssh_public_keys;
                keys.unwrap_or_default().into_iter().map(|k| (k.ssh_public_key_id, k.status)).collect()
            }
            Self::ServiceCredentials => service_credentials(aws).await?,
            Self::SigningCertificates => {
                let all = aws.iam.list_signing_certificates().user_name(USER).send().await?.certificates;
                all.into_iter().map(|c| (c.certificate_id, c.status)).collect()
            }
        };
        Ok(all.into_iter().map(|(id, status)| (id, status.as_str().to_owned())).collect())
    }

    /// Whether all that there are are off, and there are so many.
    pub async fn all_off(self, aws: &Aws, count: usize) -> anyhow::Result<()> {
        let all = self.all(aws).await?;
        anyhow::ensure!(all.len() == count && all.values().all(|status| status != "Active"), "{all:?}");
        Ok(())
    }
}

async fn service_credentials(aws: &Aws) -> anyhow::Result<Vec<(String, StatusType)>> {
    let (mut all, mut marker) = (Vec::new(), None);
    loop {
        let page = aws.iam.list_service_specific_credentials().user_name(USER).set_marker(marker).send().await?;
        let of_page = page.service_specific_credentials.unwrap_or_default().into_iter();
        all.extend(of_page.map(|c| (c.service_specific_credential_id, c.status)));
        marker = page.marker;
        if marker.is_none() {
            return Ok(all);
        }
    }
}
