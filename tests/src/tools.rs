//! Where `tests/setup` put the tools, and loopback ports for them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The folder of etcd, kube-apiserver, kube-controller-manager, kubectl and helm.
pub fn control_plane() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| set_up("control-plane").join("bin"))
}

/// The folder of the Python packages of the AWS emulator.
pub fn emulator_packages() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| set_up("emulator").join("site"))
}

/// The folder of this crate.
pub fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `tests/setup TOOL`, which prints the folder; quick when it is there.
fn set_up(tool: &str) -> PathBuf {
    let run = Command::new(tests_folder().join("setup")).arg(tool).output().expect("tests/setup");
    assert!(run.status.success(), "tests/setup {tool}: {}", String::from_utf8_lossy(&run.stderr));
    PathBuf::from(String::from_utf8(run.stdout).unwrap().trim())
}

/// A port that is free now and stays so: below those that the system gives to outgoing connections, and none twice.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_this_process = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap() / 100 * 100;
    loop {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (of_this_process + nth) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
