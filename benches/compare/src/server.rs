//! A server under test as a child process: started on its core, watched, and always stopped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::client::upgrade::Dialect;
use crate::cpu::{self, CpuClock};
use crate::memory::HeapCounter;
use crate::peers::{CommandLine, Listen, Start};

const START_DEADLINE: Duration = Duration::from_secs(20);
const START_STEP: Duration = Duration::from_millis(5);
/// Ends the child when the driver ends, however that ends. Part of util-linux.
const END_WITH_PARENT: &str = "/usr/bin/setpriv";

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// How it is spoken to.
    pub(crate) dialect: Dialect,
    /// Its CPU time.
    pub(crate) cpu: CpuClock,
}

impl Server {
    /// Starts the server called `name` on a free port of the loopback interface and waits until it accepts connections. With `heap`, its
    /// allocations are counted. The calling thread is moved to `server_core` meanwhile (a child inherits its parent's
    /// cores, threads included) and ends on `load_core`.
    pub(crate) fn start(
        name: &str,
        line: &CommandLine,
        start: &Start,
        heap: Option<&HeapCounter>,
        server_core: usize,
        load_core: usize,
    ) -> Result<Self> {
        let address = free_address()?;
        let log = scratch_dir()?.join(format!("{}.log", name.replace('/', "-")));
        let mut command = if Path::new(END_WITH_PARENT).is_file() {
            let mut command = Command::new(END_WITH_PARENT);
            command
                .args(["--pdeathsig", "KILL", "--"])
                .arg(&line.program);
            command
        } else {
            Command::new(&line.program)
        };
        command.args(&line.before);
        match line.listen {
            Listen::Option => command.arg("--listen").arg(address.to_string()),
            Listen::File(options) => {
                let file = log.with_extension("toml");
                let (ip, port) = (address.ip(), address.port());
                let place = format!("[http_server]\naddress = \"{ip}\"\nport = {port}\n\n");
                fs::write(&file, place + options)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                command.arg("--config").arg(file)
            }
        };
        command.args(start.arguments);
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if let Some(heap) = heap {
            command.envs(heap.environment()?);
        }
        cpu::pin(server_core)?;
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", line.program.display()));
        cpu::pin(load_core)?;
        let child = child?;
        let cpu = CpuClock::of(child.id())?;
        let mut server = Self {
            child,
            log,
            address,
            dialect: start.dialect,
            cpu,
        };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and checks what was read of its CPU time against what the kernel reports of the reaped child.
    ///
    /// Returns a sentence when the two lie apart.
    pub(crate) fn stop(mut self) -> Result<Option<String>> {
        let others = reaped_children()?;
        let read = self.cpu.now()?;
        self.child.kill()?;
        self.child.wait()?;
        let reaped = reaped_children()?.saturating_sub(others);
        // Giving back its memory costs a dying process time that no clock of ours saw; less is never right.
        Ok((reaped < read)
            .then(|| cpu::disagreement("clock and rusage", read, reaped))
            .flatten())
    }

    /// The end of what it printed, to be shown when something went wrong.
    pub(crate) fn last_words(&self) -> String {
        let printed = fs::read(&self.log).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        let lines: Vec<&str> = printed.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "the server does not listen after {START_DEADLINE:?}: {}",
                    self.last_words()
                );
            }
            thread::sleep(START_STEP);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for logs and counters, beside the programs.
pub(crate) fn scratch_dir() -> Result<PathBuf> {
    let dir = crate::peers::own_dir().join("compare-scratch");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// An address of the loopback interface on which nobody listens.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

fn reaped_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let duration = |time: TimeVal| -> Result<Duration> {
        Ok(Duration::from_secs(time.tv_sec().try_into()?)
            + Duration::from_micros(time.tv_usec().try_into()?))
    };
    Ok(duration(usage.user_time())? + duration(usage.system_time())?)
}
