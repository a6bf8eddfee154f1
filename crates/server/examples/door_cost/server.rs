//! The program once more, as the server that is measured.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;

/// Set for the process that is the server.
const SERVER: &str = "DOOR_COST_SERVER";

/// Counts those that were started.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Whether this process is to be the server: by `tautline::cli::main`.
pub(crate) fn is_server() -> bool {
    std::env::var_os(SERVER).is_some()
}

/// A server, ended when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    config: PathBuf,
}

impl Server {
    /// Starts one with this configuration, and waits until it listens.
    pub(crate) fn start(options: &str) -> Result<Self> {
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = std::env::temp_dir().join(format!("door-cost-{process}-{number}.toml"));
        std::fs::write(&config, options)?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--config"])
            .arg(&config)
            .env(SERVER, "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = process.stderr.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        let address = loop {
            let line = lines.next().ok_or("the server ended")??;
            if !line.contains("listening") {
                continue;
            }
            if let Some(at) = line.find("127.0.0.1:") {
                let address = line[at..].split(|c: char| !matches!(c, '0'..='9' | '.' | ':'));
                break address.take(1).collect::<String>().parse()?;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self {
            process,
            address,
            config,
        })
    }

    /// The resident set, in bytes.
    pub(crate) fn resident(&self) -> Result<usize> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: usize = kib.ok_or("no VmRSS")?.trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}
