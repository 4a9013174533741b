//! An AWS emulator that enforces IAM: ministack. It has too little of EC2 for anything else, but asks of every call whether the
//! user's policies allow it, and when the session was issued.

use aws_credential_types::Credentials;
use aws_sdk_iam::error::ProvideErrorMetadata;

use crate::emulator::Aws;
use crate::scene::USER;
use crate::served::Served;
use crate::tools;

/// Its one account.
pub const ACCOUNT: &str = "000000000000";
const ALLOW: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

const TRUST: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;

/// The emulator, stopped when dropped.
#[derive(Debug)]
pub struct EnforcingEmulator(Served);

impl EnforcingEmulator {
    /// Starts it on a free port and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        let on = |port| ("-m ministack".to_owned(), environment(port));
        Ok(Self(Served::start("the enforcing AWS emulator", on).await?))
    }

    /// Its endpoint for every AWS service.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// The account's root.
    pub fn root(&self) -> Aws {
        self.with(Credentials::new("test", "test", None, None, "test"))
    }

    /// Clients with these credentials.
    pub fn with(&self, credentials: Credentials) -> Aws {
        Aws::new(ACCOUNT, &self.url(), credentials)
    }

    /// Makes the user, who may do everything, and gives one access key.
    pub async fn user(&self) -> anyhow::Result<Credentials> {
        let iam = self.root().iam;
        iam.create_user().user_name(USER).send().await?;
        iam.put_user_policy().user_name(USER).policy_name("all").policy_document(ALLOW).send().await?;
        let key = iam.create_access_key().user_name(USER).send().await?.access_key.expect("a key");
        Ok(Credentials::new(key.access_key_id, key.secret_access_key, None, None, "test"))
    }

    /// A session of whoever has these credentials.
    pub async fn session(&self, of: &Credentials) -> anyhow::Result<Credentials> {
        let given = self.with(of.clone()).sts.get_session_token().send().await?.credentials.expect("credentials");
        Ok(Credentials::new(given.access_key_id, given.secret_access_key, Some(given.session_token), None, "test"))
    }

    /// Makes a role that may do everything, and that everybody may assume; returns its unique id.
    pub async fn role(&self, name: &str) -> anyhow::Result<String> {
        let iam = self.root().iam;
        let role = iam.create_role().role_name(name).assume_role_policy_document(TRUST).send().await?.role;
        iam.put_role_policy().role_name(name).policy_name("all").policy_document(ALLOW).send().await?;
        Ok(role.expect("a role").role_id)
    }

    /// A session of a role: of an instance, where its name is that of one.
    pub async fn role_session(&self, role: &str, name: &str) -> anyhow::Result<Credentials> {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let given = self.root().sts.assume_role().role_arn(arn).role_session_name(name).send().await?;
        let given = given.credentials.expect("credentials");
        Ok(Credentials::new(given.access_key_id, given.secret_access_key, Some(given.session_token), None, "test"))
    }

    /// What AWS answers to a call with these credentials: `Ok`, or the error's code.
    pub async fn answer(&self, to: &Credentials) -> String {
        match self.with(to.clone()).ec2.describe_instances().send().await {
            Ok(_) => "Ok".into(),
            Err(error) => error.code().unwrap_or("no answer").to_owned(),
        }
    }
}

/// It would listen on every interface, and for things.
fn environment(port: u16) -> Vec<(String, String)> {
    let (packages, port) = (tools::emulator_packages().display().to_string(), port.to_string());
    let pairs = [
        ("PYTHONPATH", packages.as_str()),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("BIND_HOST", "127.0.0.1"),
        ("GATEWAY_PORT", port.as_str()),
        ("IOT_MTLS_ENABLED", "0"),
        ("AUTH", "true"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}
