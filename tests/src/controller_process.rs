//! The controller's binary as a process: started, killed, started again.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kept::{self, KeptProcess};

const STOPS_WITHIN: Duration = Duration::from_secs(30);
const TAIL: usize = 60;

/// A controller, and how it is started. Dropping it kills it, and prints the end of its log if the test has failed.
#[derive(Debug)]
pub struct ControllerProcess {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    process: Option<KeptProcess>,
}

impl ControllerProcess {
    /// Not started yet. `binary` is the caller's `env!("CARGO_BIN_EXE_...")`; the log is a file beside the kubeconfig.
    /// Its own AWS credentials are anybody's: what counts is the role that an `AwsAccount` names.
    pub fn new(binary: impl AsRef<Path>, kubeconfig: &Path) -> Self {
        let controller = Self {
            binary: binary.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log: kubeconfig.with_file_name(format!("controller-{}.log", crate::tools::free_port())),
            process: None,
        };
        controller
            .env("KUBECONFIG", &kubeconfig.display().to_string())
            .env("AWS_ACCESS_KEY_ID", "controller")
            .env("AWS_SECRET_ACCESS_KEY", "controller")
            .env("AWS_REGION", crate::emulator::REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// With a further flag.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With a further environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, for the first time or again. The log goes on.
    pub fn start(&mut self) -> anyhow::Result<()> {
        assert!(self.process.is_none() || self.exited().is_some(), "it runs already");
        self.process = Some(KeptProcess::start(&self.binary, &self.arguments, &self.environment, &self.log)?);
        Ok(())
    }

    /// SIGKILL: it has no chance to clean up, and is gone when this returns.
    pub fn kill_9(&mut self) {
        self.process.take().expect("it runs").kill_9();
    }

    /// SIGTERM, and waits for it to end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.take().context("it runs")?.terminate(STOPS_WITHIN)
    }

    /// SIGSTOP: it does nothing until it goes on.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = self.process.as_ref().expect("it runs").signal(name).unwrap();
        assert!(sent.success(), "SIG{name}: {sent}");
    }

    /// What it answers at this path of its web server: the status, and the body.
    pub async fn http(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let log = self.log();
        let address = log.rsplit_once("http=").context("it has not said its address yet")?.1;
        let mut connection = TcpStream::connect(address.split_whitespace().next().unwrap_or_default()).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        Ok((head.split(' ').nth(1).context("a status")?.parse()?, body.to_owned()))
    }

    /// The changing AWS calls that it has sent, from its audit lines.
    pub fn sent(&self) -> Vec<String> {
        let log = self.log();
        log.lines().filter(|line| line.contains(" audit: ")).map(str::to_owned).collect()
    }

    /// How it ended, if it did by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.exited()
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        Some(self.process.as_ref()?.pid())
    }

    /// The file that it logs to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// For a shared controller, which is never dropped: hold this during a test that uses it.
    pub fn log_on_failure(&self) -> LogOnFailure {
        LogOnFailure(self.log.clone())
    }
}

impl Drop for ControllerProcess {
    fn drop(&mut self) {
        drop(self.log_on_failure());
    }
}

/// Prints the end of the controller's log when dropped by a failing test.
#[derive(Debug)]
pub struct LogOnFailure(PathBuf);

impl Drop for LogOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the controller's log, last {TAIL} lines\n{}\n---", kept::tail(&self.0, TAIL));
        }
    }
}
