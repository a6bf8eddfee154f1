//! The loads: what is done to a server, and what is read meanwhile.

mod broadcast;
mod clients;
mod deflate;
mod echo;
mod engine;
mod fanout;
mod idle;
mod json;
mod many;
mod open_loop;
mod ring;
mod storm;

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use broadcast::BroadcastLoad;
pub(crate) use clients::{JoinLoad, SubscribedLoad};
pub(crate) use deflate::DeflateLoad;
pub(crate) use echo::EchoLoad;
pub(crate) use engine::{Engine, EngineLoad};
pub(crate) use fanout::{Extra, FanoutLoad};
pub(crate) use idle::{Idle, IdleLoad, Way};
pub(crate) use many::ManyLoad;
pub(crate) use open_loop::OpenLoad;
pub(crate) use storm::StormLoad;

use crate::cpu::{CpuClock, disagreement};
use crate::memory::{self, Footprint, HeapCounter};
use crate::peers::{Peer, Service};
use crate::server::Server;

/// One of the loads with its figures.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    Echo(EchoLoad),
    Deflate(DeflateLoad),
    Broadcast(BroadcastLoad),
    Storm(StormLoad),
    Open(OpenLoad),
    Engine(EngineLoad),
    Idle(IdleLoad),
    Fanout(FanoutLoad),
    Many(ManyLoad),
    Join(JoinLoad),
    Subscribed(SubscribedLoad),
}

/// What one turn of one server gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sample {
    Work(Work),
    Idle(Idle),
    Engine(Engine),
}

/// A count of messages, and what they took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Messages answered, deliveries made, or connections served.
    pub(crate) messages: u64,
    /// CPU time of the server.
    pub(crate) cpu: Duration,
    /// The most that one of its threads had of that.
    #[serde(default)]
    pub(crate) busiest: Duration,
    /// Time on the wall.
    pub(crate) elapsed: Duration,
    /// Bytes of payload of each reply on the wire, where the server has a say in that.
    pub(crate) reply_bytes: Option<f64>,
    /// Microseconds from when a message was due to its reply: median, 99 % and 99.9 %, where the load goes by the clock.
    pub(crate) latency_us: Option<[f64; 3]>,
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
    /// What it needs a server to do.
    pub(crate) fn service(&self) -> Service {
        match self {
            Self::Echo(_) | Self::Storm(_) | Self::Open(_) => Service::Echo,
            Self::Deflate(load) if load.takeover() => Service::DeflateTakeover,
            Self::Deflate(_) => Service::DeflateAlone,
            Self::Broadcast(load) if load.deflate() => Service::BroadcastDeflate,
            Self::Broadcast(_) => Service::Broadcast,
            Self::Engine(_) => Service::Engine,
            Self::Idle(load) => load.service(),
            Self::Fanout(load) => load.service(),
            Self::Many(_) | Self::Join(_) | Self::Subscribed(_) => Service::Clients,
        }
    }

    /// How many rounds are enough when nobody says.
    pub(crate) fn default_rounds(&self) -> u32 {
        match self {
            // Blocks that live are counted: there is no noise in that.
            Self::Idle(_) | Self::Subscribed(_) => 1,
            _ => 5,
        }
    }

    /// Whether allocations of the server have to be counted.
    pub(crate) fn counts_heap(&self) -> bool {
        matches!(self, Self::Idle(_) | Self::Subscribed(_))
    }

    /// One line that says what is done.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Echo(load) => load.title(),
            Self::Deflate(load) => load.title(),
            Self::Broadcast(load) => load.title(),
            Self::Storm(load) => load.title(),
            Self::Open(load) => load.title(),
            Self::Engine(load) => load.title(),
            Self::Idle(load) => load.title(),
            Self::Fanout(load) => load.title(),
            Self::Many(load) => load.title(),
            Self::Join(load) => load.title(),
            Self::Subscribed(load) => load.title(),
        }
    }

    /// One turn.
    pub(crate) fn run(
        &self,
        peer: &Peer,
        server: &Server,
        heap: Option<&HeapCounter>,
    ) -> Result<Sample> {
        let (address, dialect, clock) = (server.address, server.dialect, &server.cpu);
        let work = match self {
            Self::Echo(load) => load.run(address, dialect, clock),
            Self::Deflate(load) => load.run(address, dialect, clock),
            Self::Broadcast(load) => load.run(address, dialect, clock),
            Self::Storm(load) => load.run(address, dialect, clock),
            Self::Open(load) => load.run(address, dialect, clock),
            Self::Fanout(load) => load.run(address, dialect, clock),
            Self::Many(load) => load.run(address, dialect, clock),
            Self::Join(load) => load.run(address, dialect, clock),
            Self::Idle(load) => {
                let footprint = || footprint(peer, server, heap);
                let idle = load.run(address, dialect, footprint)?;
                return Ok(Sample::Idle(idle));
            }
            Self::Subscribed(load) => {
                let footprint = || footprint(peer, server, heap);
                let idle = load.run(address, dialect, footprint)?;
                return Ok(Sample::Idle(idle));
            }
            Self::Engine(_) => anyhow::bail!("this load has no server"),
        };
        work.map(Sample::Work)
    }
}

/// The memory of a server at this moment, its heap as it tells it itself where nobody else can.
fn footprint(peer: &Peer, server: &Server, heap: Option<&HeapCounter>) -> Result<Footprint> {
    let Some(heap) = heap else {
        anyhow::bail!("the heap is not counted")
    };
    let told = match peer.tells_its_heap {
        Some(path) => Some(memory::told(server.address, path)?),
        None => None,
    };
    let counted = heap.footprint(server.pid())?;
    Ok(told.map_or(counted, |(heap, blocks)| Footprint {
        heap,
        blocks,
        ..counted
    }))
}

/// Does `work` between two readings of the server's CPU time, both taken at rest.
fn metered(
    clock: &CpuClock,
    messages: u64,
    work: impl FnOnce() -> Result<Duration>,
) -> Result<Work> {
    let (cpu_before, threads_before) = (clock.at_rest()?, clock.threads()?);
    let elapsed = work()?;
    let (cpu, threads) = (clock.at_rest()? - cpu_before, clock.threads()?);
    let of_each: Vec<Duration> = threads
        .into_iter()
        .map(|(thread, time)| {
            time.saturating_sub(threads_before.get(&thread).copied().unwrap_or_default())
        })
        .collect();
    let scheduled = of_each.iter().sum();
    if let Some(warning) = disagreement("clock and scheduler", cpu, scheduled) {
        eprintln!("compare: {warning}");
    }
    Ok(Work {
        messages,
        cpu,
        busiest: of_each.into_iter().max().unwrap_or_default(),
        elapsed,
        reply_bytes: None,
        latency_us: None,
    })
}
