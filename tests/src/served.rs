//! A server in Python on a free port of loopback, stopped when dropped.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::eventually::eventually;
use crate::kept::{KeptFolder, KeptProcess};
use crate::tools;

/// The process, its port and its log.
#[derive(Debug)]
pub struct Served {
    process: KeptProcess,
    port: u16,
    _folder: KeptFolder,
}

impl Served {
    /// Starts `python3` with the arguments and the environment for a port, and waits until that answers.
    pub async fn start(name: &str, on: impl FnOnce(u16) -> (String, Vec<(String, String)>)) -> anyhow::Result<Self> {
        let folder = KeptFolder::new(&name.replace(' ', "-"))?;
        let (port, log) = (tools::free_port(), folder.path().join("log"));
        let (arguments, environment) = on(port);
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let process = KeptProcess::start("python3".as_ref(), &arguments, &environment, &log)?;
        let mut served = Self { process, port, _folder: folder };
        served.wait_until_ready(name).await;
        Ok(served)
    }

    async fn wait_until_ready(&mut self, name: &str) {
        eventually(&format!("{name} answers"), Duration::from_mins(1), async || {
            assert_eq!(self.process.exited(), None, "{name} ended: {}", self.process.log_tail(20));
            Ok(TcpStream::connect(("127.0.0.1", self.port)).await?)
        })
        .await;
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
