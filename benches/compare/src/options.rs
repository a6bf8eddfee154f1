//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::load::{
    BroadcastLoad, DeflateLoad, EchoLoad, EngineLoad, FanoutLoad, IdleLoad, JoinLoad, ManyLoad,
    OpenLoad, StormLoad, SubscribedLoad,
};
use crate::peers::Peer;
use crate::proof::{BehindProof, SlowProof, WorkersProof};

/// Measures WebSocket servers side by side: CPU time per message, memory per connection
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Every connection sends, the server echoes: CPU per message
    Echo(EchoLoad),
    /// The same, compressed
    Deflate(DeflateLoad),
    /// What one sends goes to all: CPU per delivery
    Broadcast(BroadcastLoad),
    /// Connect, upgrade, close: CPU per connection
    Storm(StormLoad),
    /// Messages by the clock: latency
    Open(OpenLoad),
    /// The engine alone, in a loop: time, instructions and allocations per message
    Engine(EngineLoad),
    /// Many connections that do nothing: memory per connection
    Idle(IdleLoad),
    /// One publishes over the client protocol, many are subscribed: CPU per delivery
    Fanout(FanoutLoad),
    /// The same with many channels and few subscribers of each: CPU per delivery
    Many(ManyLoad),
    /// Clients connect and subscribe: CPU per client
    Join(JoinLoad),
    /// Clients that are subscribed and do nothing: memory per client
    Subscribed(SubscribedLoad),
    /// Tautline alone: readers at 10 KB/s beside a thousand fast ones
    Slow(SlowProof),
    /// Tautline alone: a client catches up a million publications while others go on
    Behind(BehindProof),
    /// Tautline alone: what two workers do against one
    Workers(WorkersProof),
    /// All loads of the published table, or some of them
    Suite(SuiteOptions),
    /// Which servers there are, which were found, and why not
    List,
}

/// Which rows of the published table, and where their figures are kept.
#[derive(Debug, Args)]
pub(crate) struct SuiteOptions {
    /// Rows to measure [default: all]; `--rows` names them
    pub(crate) only: Vec<String>,
    /// Print the names of the rows, and what each does
    #[arg(long)]
    pub(crate) rows: bool,
    /// Print the table of what has been measured, and measure nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Forget what earlier runs have measured; without it, an interrupted run is gone on with
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Where single measurements are kept [default: a file in the build directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
}

/// What all loads have in common.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Servers to measure, by name, separated by commas [default: all that were found and have the load]
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) servers: Vec<String>,
    /// Another WebSocket server to measure beside them, started as `PROGRAM --listen ADDRESS [--deflate]`; for
    /// comparing two builds. Can be given more than once
    #[arg(long, global = true, value_name = "NAME=PROGRAM", value_parser = Peer::ad_hoc)]
    pub(crate) also: Vec<Peer>,
    /// How often each server has its turn [default: 5; idle: 1]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// The core that servers run on
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core that makes the load
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) load_core: usize,
    /// Append each single measurement to this file, a JSON object a line
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where Tautline was built [default: `tautline/release` beside this program's own directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) tautline: Option<PathBuf>,
}

impl Common {
    /// Where Tautline's own binaries lie.
    pub(crate) fn tautline_dir(&self) -> PathBuf {
        self.tautline
            .clone()
            .unwrap_or_else(|| crate::peers::own_dir().join("../tautline/release"))
    }
}
