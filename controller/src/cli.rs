//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::containment::{Keys, handbook};
use crate::{aws, backup, inventory, run};

/// Of each thread: a call of AWS's SDK lies deep within a pass over a resource, and an unoptimized build needs more than tokio's 2 MiB.
/// Memory is taken only where it is used.
const STACK: usize = 16 << 20;

/// Contains AWS resources as declared by Incidents in Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "firebreak-controller", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the controller, in the cluster or by KUBECONFIG. AWS's own environment variables work as everywhere.
    Run(RunArgs),
    /// Prints the IAM policy that the role in an account needs.
    IamPolicy,
    /// Prints what each action changes, how it is undone, what it cannot do, and the permissions that it needs: docs/actions.md.
    Actions,
    /// Writes every Quarantine, all Evidence, and of AwsAccounts the denies that outlive a release and since when tags are protected, to
    /// standard output, as JSON: a backup of what a release gives back. Fails where a CRD of theirs is gone.
    Export,
    /// Makes the Quarantines and Evidence of a backup on standard input that are not there, and adds what it has of AwsAccounts to those
    /// that are. Fails where it leaves anything alone.
    Import,
    /// Lists what in an account carries Firebreak's marks, whether or not the cluster knows of it. Reads only.
    Inventory {
        /// The name of the `AwsAccount`.
        #[arg(long)]
        account: String,
        /// The keys that the controller has: with them it is told whether the copies of records in tags are to be believed.
        #[arg(long, env = "FIREBREAK_MAC_KEY_FILE")]
        mac_key_file: Option<PathBuf>,
    },
}

/// How the controller runs.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "FIREBREAK_HTTP_ADDR", default_value = "127.0.0.1:8080")]
    pub http_addr: SocketAddr,
    /// How often everything that is contained is looked at, e.g. 30s or 2m.
    #[arg(long, env = "FIREBREAK_DRIFT_INTERVAL", default_value = "30s", value_parser = duration)]
    pub drift_interval: Duration,
    /// A file with keys, one a line, outside the AWS accounts: the first signs the copies of records in tags, all verify.
    #[arg(long, env = "FIREBREAK_MAC_KEY_FILE")]
    pub mac_key_file: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, env = "FIREBREAK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The namespace of the lease by which one controller leads.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// This process's name in the lease; absent: host name and process id.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The controller's `main`.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => start(args),
        Command::IamPolicy => print(&format!("{:#}\n", aws::iam_policy())),
        Command::Actions => print(&handbook()),
        Command::Export => once(async { backup::export(&run::client().await?, std::io::stdout()).await }),
        Command::Import => once(async { backup::import(&run::client().await?, std::io::stdin(), std::io::stdout()).await }),
        Command::Inventory { account, mac_key_file } => once(async move {
            let keys = Keys::read(mac_key_file.as_deref()).await;
            if let (Some(_), Some(problem)) = (&mac_key_file, keys.problem()) {
                anyhow::bail!("{problem}");
            }
            inventory::print(&run::client().await?, &account, &keys, std::io::stdout()).await
        }),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // whoever reads it has gone away
    }
}

fn start(args: RunArgs) -> ExitCode {
    log(args.log_format);
    once(async { Box::pin(run::run(args)).await.map_err(anyhow::Error::from_boxed) })
}

fn once(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let runtime = match threads {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// Also to standard error: not every command has a log.
fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    error!(%error, "firebreak-controller stopped");
    eprintln!("firebreak-controller: {error}");
    ExitCode::FAILURE
}

/// `RUST_LOG` chooses; by default what Firebreak says, and warnings of what it is built on.
fn log(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,firebreak_controller=info,audit=info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(false).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

/// `500ms`, `30s` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write 500ms, 30s or 2m");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match (number, unit) {
        (0, _) => Err("a drift interval of nothing would never rest".into()),
        (n, "ms") => Ok(Duration::from_millis(n)),
        (n, "s") => Ok(Duration::from_secs(n)),
        (n, "m") => Ok(Duration::from_secs(n * 60)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "0s", "1h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
