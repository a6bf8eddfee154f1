//! The loads: what is done to a server, and what is read meanwhile.

mod echo;
mod fanout;
mod idle;
mod ring;

use std::time::Duration;

use anyhow::Result;

pub(crate) use echo::EchoLoad;
pub(crate) use fanout::FanoutLoad;
pub(crate) use idle::{Idle, IdleLoad};

use crate::cpu::{CpuClock, disagreement};
use crate::memory::HeapCounter;
use crate::peers::Peer;
use crate::server::Server;

/// One of the loads with its figures.
#[derive(Debug)]
pub(crate) enum Load {
    Echo(EchoLoad),
    Idle(IdleLoad),
    Fanout(FanoutLoad),
}

/// What one turn of one server gave.
#[derive(Debug)]
pub(crate) enum Sample {
    Work(Work),
    Idle(Idle),
}

/// A count of messages, and what they took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Messages answered, or deliveries made.
    pub(crate) messages: u64,
    /// CPU time of the server.
    pub(crate) cpu: Duration,
    /// Time on the wall.
    pub(crate) elapsed: Duration,
}

impl Work {
    /// CPU nanoseconds per message.
    pub(crate) fn cpu_per_message(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.messages as f64
    }

    /// Messages per second on the wall.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }
}

impl Load {
    /// Whether `peer` knows this load.
    pub(crate) fn is_known_to(&self, peer: &Peer) -> bool {
        match self {
            Self::Echo(_) => peer.echo.is_some(),
            // The raw peer would need no handshake and hold nothing: it is the floor here too.
            Self::Idle(_) => peer.echo.is_some(),
            Self::Fanout(_) => peer.fanout.is_some(),
        }
    }

    /// How many rounds are enough when nobody says.
    pub(crate) fn default_rounds(&self) -> u32 {
        match self {
            Self::Echo(_) | Self::Fanout(_) => 5,
            Self::Idle(_) => 3,
        }
    }

    /// Whether allocations of the server have to be counted.
    pub(crate) fn counts_heap(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// One line that says what is done.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Echo(load) => load.title(),
            Self::Idle(load) => load.title(),
            Self::Fanout(load) => load.title(),
        }
    }

    /// One turn.
    pub(crate) fn run(
        &self,
        peer: &Peer,
        server: &Server,
        heap: Option<&HeapCounter>,
    ) -> Result<Sample> {
        match (self, peer.echo, peer.fanout, heap) {
            (Self::Echo(load), Some(dialect), _, _) => load
                .run(server.address, dialect, &server.cpu)
                .map(Sample::Work),
            (Self::Fanout(load), _, Some(fanout), _) => load
                .run(server.address, fanout, &server.cpu)
                .map(Sample::Work),
            (Self::Idle(load), Some(dialect), _, Some(heap)) => load
                .run(server.address, dialect, || heap.footprint(server.pid()))
                .map(Sample::Idle),
            _ => anyhow::bail!("{} does not know this load", peer.name),
        }
    }
}

impl From<EchoLoad> for Load {
    fn from(load: EchoLoad) -> Self {
        Self::Echo(load)
    }
}

impl From<IdleLoad> for Load {
    fn from(load: IdleLoad) -> Self {
        Self::Idle(load)
    }
}

impl From<FanoutLoad> for Load {
    fn from(load: FanoutLoad) -> Self {
        Self::Fanout(load)
    }
}

/// The loads of the published table.
pub(crate) fn suite() -> Vec<Load> {
    vec![
        EchoLoad::new(64, 64, 1).into(),
        EchoLoad::new(64, 64, 16).into(),
        EchoLoad::new(20, 100, 1).into(),
        EchoLoad::new(20, 100, 16).into(),
        EchoLoad::new(512, 64, 16).into(),
        EchoLoad::new(16 * 1024, 16, 4).into(),
        IdleLoad::new(10_000, 64 * 1024).into(),
        FanoutLoad::new(1_000, 128, 1).into(),
        FanoutLoad::new(1_000, 128, 16).into(),
    ]
}

/// Does `work` between two readings of the server's CPU time, both taken at rest.
fn metered(
    clock: &CpuClock,
    messages: u64,
    work: impl FnOnce() -> Result<Duration>,
) -> Result<Work> {
    let (cpu_before, scheduled_before) = (clock.at_rest()?, clock.scheduled()?);
    let elapsed = work()?;
    let (cpu, scheduled) = (clock.at_rest()? - cpu_before, clock.scheduled()?);
    let scheduled = scheduled.saturating_sub(scheduled_before);
    if let Some(warning) = disagreement("clock and scheduler", cpu, scheduled) {
        eprintln!("compare: {warning}");
    }
    Ok(Work {
        messages,
        cpu,
        elapsed,
    })
}
