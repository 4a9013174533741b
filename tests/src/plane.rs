//! A Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, as processes on loopback.
//!
//! Everything but the kubelet is real. A [`Plane`] belongs to no async runtime: it is plain processes, so that tests,
//! each with a runtime of its own, can share one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::audit::{self, AuditLine};
use crate::eventually::eventually;
use crate::kept::{KeptFolder, KeptProcess};
use crate::tools;

const READY: Duration = Duration::from_mins(1);
const ADMIN_TOKEN: &str = "admin-of-a-test";

/// Whether namespaces die, owners take what they own along, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerManager {
    /// kube-controller-manager runs
    Runs,
    /// only the API server: lighter
    Absent,
}

/// A control plane. Dropping it stops it, the controller manager first and etcd last: fields drop in this order.
#[derive(Debug)]
pub struct Plane {
    controller_manager: Option<KeptProcess>,
    api_server: KeptProcess,
    etcd: Option<KeptProcess>,
    etcd_url: String,
    url: String,
    folder: KeptFolder,
}

impl Plane {
    /// A control plane with an etcd of its own.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = KeptFolder::new("plane")?;
        let (etcd, etcd_url) = start_etcd(folder.path())?;
        Self::on(folder, Some(etcd), etcd_url, ControllerManager::Runs).await
    }

    /// A further API server on the etcd of `shared`, under a prefix of its own: another cluster, cheaper.
    pub async fn beside(shared: &Self, manager: ControllerManager) -> anyhow::Result<Self> {
        Self::on(KeptFolder::new("plane")?, None, shared.etcd_url.clone(), manager).await
    }

    async fn on(
        folder: KeptFolder,
        etcd: Option<KeptProcess>,
        etcd_url: String,
        manager: ControllerManager,
    ) -> anyhow::Result<Self> {
        write_files(folder.path())?;
        let (api_server, url) = start_api_server(folder.path(), &etcd_url)?;
        let mut plane = Self { controller_manager: None, api_server, etcd, etcd_url, url, folder };
        fs::write(plane.kubeconfig(), plane.kubeconfig_with(ADMIN_TOKEN))?;
        plane.wait_until_ready().await;
        if manager == ControllerManager::Runs {
            plane.controller_manager = Some(start_controller_manager(plane.folder.path())?);
        }
        Ok(plane)
    }

    async fn wait_until_ready(&mut self) {
        eventually("the API server is ready", READY, async || {
            assert_eq!(self.api_server.exited(), None, "the API server ended: {}", self.api_server.log_tail(20));
            let client = self.try_client().await?;
            let answer = client.request_text(http_get("/readyz")).await?;
            ensure!(answer == "ok", "{answer}");
            Ok(())
        })
        .await;
    }

    /// The folder of its files and logs, for what a test wants to put beside them.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kubeconfig of a cluster admin.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A client of a cluster admin. Make one for each test: it lives on the runtime that it was made on.
    pub async fn client(&self) -> Client {
        self.try_client().await.expect("a client")
    }

    async fn try_client(&self) -> anyhow::Result<Client> {
        client_of(&self.kubeconfig()).await
    }

    /// Runs kubectl as a cluster admin; gives what it printed, or an error with what it printed as one.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", arguments, "").await
    }

    /// `kubectl apply -f -` of this manifest.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.run("kubectl", &["apply", "-f", "-"], manifest).await
    }

    /// `kubectl create -f -` in the name of another user, of these groups.
    pub async fn create_as(&self, user: &str, groups: &[&str], manifest: &str) -> anyhow::Result<String> {
        let groups = groups.iter().map(|group| format!("--as-group={group}"));
        let arguments: Vec<String> = [format!("--as={user}")].into_iter().chain(groups).collect();
        let arguments: Vec<&str> = ["create", "-f", "-"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        self.run("kubectl", &arguments, manifest).await
    }

    /// Runs helm as a cluster admin, as [`Plane::kubectl`] does.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("helm", arguments, "").await
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(tools::control_plane().join(program))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        child.stdin.take().context("stdin")?.write_all(input.as_bytes()).await?;
        let output = child.wait_with_output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), errors.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A kubeconfig of a `ServiceAccount`, by a token as a pod would get: with it the controller runs with the chart's
    /// RBAC and no more.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=24h"]).await?;
        let path = self.folder.path().join(format!("kubeconfig-{namespace}-{name}"));
        fs::write(&path, self.kubeconfig_with(token.trim()))?;
        Ok(path)
    }

    fn kubeconfig_with(&self, token: &str) -> String {
        let authority = self.folder.path().join("certs/apiserver.crt");
        format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "test",
  "clusters": [{{"name": "test", "cluster": {{"server": "{}", "certificate-authority": "{}"}}}}],
  "users": [{{"name": "test", "user": {{"token": "{token}"}}}}],
  "contexts": [{{"name": "test", "context": {{"cluster": "test", "user": "test"}}}}]}}
"#,
            self.url,
            authority.display()
        )
    }

    /// What this user has written, or tried to; leases aside. A `ServiceAccount` is
    /// `system:serviceaccount:<namespace>:<name>`.
    pub fn writes_of(&self, user: &str) -> Vec<AuditLine> {
        self.calls_of(user).into_iter().filter(AuditLine::is_write).collect()
    }

    /// The finished calls of this user: of the controller all, of others their writes. A watch is finished when it ends.
    pub fn calls_of(&self, user: &str) -> Vec<AuditLine> {
        let log = fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default();
        audit::lines_of(&log, user)
    }

    /// The ids of its processes.
    pub fn pids(&self) -> Vec<u32> {
        let others = [&self.controller_manager, &self.etcd];
        others.into_iter().flatten().chain([&self.api_server]).map(KeptProcess::pid).collect()
    }
}

/// A client as a kubeconfig says.
pub async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn http_get(path: &str) -> hyper::Request<Vec<u8>> {
    hyper::Request::get(path).body(Vec::new()).expect("a request")
}

fn write_files(folder: &Path) -> anyhow::Result<()> {
    fs::write(folder.join("audit.yaml"), audit::POLICY)?;
    fs::write(folder.join("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
    let key = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().context("openssl")?;
    ensure!(key.status.success(), "openssl: {}", String::from_utf8_lossy(&key.stderr));
    Ok(fs::write(folder.join("sa.key"), key.stdout)?)
}

fn start(folder: &Path, program: &str, flags: &[(&str, &str)]) -> anyhow::Result<KeptProcess> {
    let arguments: Vec<_> = flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
    let log = folder.join(format!("{program}.log"));
    KeptProcess::start(&tools::control_plane().join(program), &arguments, &[], &log).context(program.to_owned())
}

/// Durability is for clusters that are there tomorrow: `unsafe-no-fsync`.
fn start_etcd(folder: &Path) -> anyhow::Result<(KeptProcess, String)> {
    let url = format!("http://127.0.0.1:{}", tools::free_port());
    let peers = format!("http://127.0.0.1:{}", tools::free_port());
    let data = path_in(folder, "etcd");
    let cluster = format!("default={peers}");
    let flags = [
        ("data-dir", data.as_str()),
        ("listen-client-urls", &url),
        ("advertise-client-urls", &url),
        ("listen-peer-urls", &peers),
        ("initial-advertise-peer-urls", &peers),
        ("initial-cluster", &cluster),
        ("unsafe-no-fsync", "true"),
        ("log-level", "error"),
    ];
    Ok((start(folder, "etcd", &flags)?, url))
}

/// The port is also the prefix of its keys: no two API servers on one etcd share one.
fn start_api_server(folder: &Path, etcd_url: &str) -> anyhow::Result<(KeptProcess, String)> {
    let port = tools::free_port().to_string();
    let prefix = format!("/plane-{port}");
    let [certificates, tokens, key, policy, log] =
        ["certs", "tokens.csv", "sa.key", "audit.yaml", "audit.log"].map(|name| path_in(folder, name));
    let flags = [
        ("etcd-servers", etcd_url),
        ("etcd-prefix", &prefix),
        ("bind-address", "127.0.0.1"),
        ("secure-port", &port),
        ("cert-dir", &certificates),
        ("authorization-mode", "RBAC"),
        ("token-auth-file", &tokens),
        ("service-account-issuer", "https://firebreak.test"),
        ("service-account-signing-key-file", &key),
        ("service-account-key-file", &key),
        ("service-cluster-ip-range", "10.0.0.0/24"),
        ("audit-policy-file", &policy),
        ("audit-log-path", &log),
    ];
    Ok((start(folder, "kube-apiserver", &flags)?, format!("https://127.0.0.1:{port}")))
}

fn start_controller_manager(folder: &Path) -> anyhow::Result<KeptProcess> {
    let port = tools::free_port().to_string();
    let [kubeconfig, key, authority] = ["kubeconfig", "sa.key", "certs/apiserver.crt"].map(|name| path_in(folder, name));
    let flags = [
        ("kubeconfig", kubeconfig.as_str()),
        ("service-account-private-key-file", &key),
        ("root-ca-file", &authority),
        ("use-service-account-credentials", "true"),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
        ("secure-port", &port),
    ];
    start(folder, "kube-controller-manager", &flags)
}

fn path_in(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
