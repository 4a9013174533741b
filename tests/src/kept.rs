//! Processes and folders that go when this process goes: normally, by a panic, or by SIGKILL. Nothing in a killed
//! process can clean up after it, and statics are never dropped, so each has a shell on a leash: its standard input is
//! a pipe whose other end only we hold, and when that ends, however it does, the shell cleans up.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// `$$` is the shell that becomes the program. Its own process group: Ctrl-C is for us, and the leash does the rest.
const LEASHED: &str = r#"exec 3<&0; (read -r _ <&3; kill -9 $$) & exec "$@" 3<&- </dev/null"#;

/// Tries again, since what has just been killed may still be writing.
const REMOVE: &str = r#"read -r _; for _ in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 0.1; done"#;

/// A child process that cannot outlive us.
#[derive(Debug)]
pub struct KeptProcess {
    child: Child,
    leash: Option<ChildStdin>,
    log: PathBuf,
}

impl KeptProcess {
    /// Starts `program`; what it prints goes to the end of the file `log`.
    pub fn start(program: &Path, arguments: &[String], environment: &[(String, String)], log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new("sh")
            .args(["-c", LEASHED, "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let leash = child.stdin.take();
        Ok(Self { child, leash, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) -> io::Result<ExitStatus> {
        Command::new("sh").args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &self.pid().to_string()]).status()
    }

    /// SIGTERM, then waits for it to end; an error after `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            anyhow::ensure!(started.elapsed() < deadline, "still running {deadline:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last `lines` lines that it printed.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for KeptProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.leash.take());
    }
}

/// The last `lines` lines of a file; empty if there is none.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A new folder, removed with its owner, or with this process.
#[derive(Debug)]
pub struct KeptFolder {
    path: PathBuf,
    remover: Child,
}

impl KeptFolder {
    /// A folder whose name begins with `name`. `FIREBREAK_KEEP=1` keeps it, for a look at the logs.
    pub fn new(name: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("firebreak-{name}-{}-{nth}", std::process::id()));
        fs::create_dir(&path)?;
        let script: OsString = if std::env::var_os("FIREBREAK_KEEP").is_some() { "read -r _" } else { REMOVE }.into();
        let remover = Command::new("sh")
            .arg("-c")
            .args([script, "sh".into(), path.clone().into()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self { path, remover })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for KeptFolder {
    /// Waiting closes the remover's standard input first.
    fn drop(&mut self) {
        let _ = self.remover.wait();
    }
}
