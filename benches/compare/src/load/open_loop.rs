//! Open loop: messages are sent by the clock, whether or not earlier ones have been answered, and the time that counts is
//! from when a message was due to when its reply is read. So a server that stalls can't hide it by stalling the load
//! (what is known as coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::ring::Ring;
use super::{Work, metered};
use crate::client::frame::Opcode;
use crate::client::upgrade::{Dialect, PATIENCE, connect};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 256;

/// The figures of an open loop.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpenLoad {
    /// Bytes of each message
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=16 << 10))]
    payload: u32,
    /// Connections
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Messages a second, over all connections
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds that are measured, after half a second for warming up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

impl OpenLoad {
    /// The published load.
    pub(crate) fn new() -> Self {
        Self {
            payload: 128,
            connections: 200,
            rate: 50_000,
            seconds: 3,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            payload,
            connections,
            rate,
            seconds,
        } = self;
        format!(
            "open loop: {payload} B, {rate} messages a second over {connections} connections, {seconds} s a turn"
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A reply that is wrong or missing.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let ring = Ring::new(self.payload as usize, 1, Opcode::Binary, dialect);
        let mut run = Run::open(address, dialect, self, &ring)?;
        run.drive(u64::from(self.rate) / 2)?;
        run.latencies.clear();
        let messages = u64::from(self.rate) * u64::from(self.seconds);
        let work = metered(clock, messages, || {
            let start = Instant::now();
            run.drive(messages)?;
            Ok(start.elapsed())
        })?;
        run.latencies.sort_unstable();
        let at = |part: f64| {
            let last = run.latencies.len() - 1;
            run.latencies[(last as f64 * part).round() as usize] as f64 / 1000.0
        };
        Ok(Work {
            latency_us: Some([at(0.5), at(0.99), at(0.999)]),
            ..work
        })
    }
}

struct Run<'a> {
    epoll: Epoll,
    connections: Vec<Connection>,
    ring: &'a Ring,
    interval: Duration,
    buffer: Vec<u8>,
    /// Nanoseconds of each reply.
    latencies: Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    next: u64,
    received: u64,
    /// When the messages that are not answered yet were due.
    due: VecDeque<Instant>,
    /// What the socket would not take.
    rest: Vec<u8>,
}

impl<'a> Run<'a> {
    fn open(
        address: SocketAddr,
        dialect: Dialect,
        load: &OpenLoad,
        ring: &'a Ring,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::new();
        for id in 0..u64::from(load.connections) {
            let stream = connect(address, dialect)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            connections.push(Connection {
                stream,
                next: 0,
                received: 0,
                due: VecDeque::new(),
                rest: Vec::new(),
            });
        }
        Ok(Self {
            epoll,
            connections,
            ring,
            interval: Duration::from_secs(1) / load.rate,
            buffer: vec![0; READ_BUFFER],
            latencies: Vec::new(),
        })
    }

    /// Sends `messages` by the clock and waits for all replies. The load's core is its own, so it never sleeps.
    fn drive(&mut self, messages: u64) -> Result<()> {
        let start = Instant::now();
        let mut heard = start;
        let (mut sent, mut answered) = (0u64, 0);
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while answered < messages {
            let now = Instant::now();
            while sent < messages {
                let due = start + self.interval * u32::try_from(sent)?;
                if due > now {
                    break;
                }
                let id = (sent % self.connections.len() as u64) as usize;
                self.connections[id].send(self.ring, due)?;
                sent += 1;
            }
            let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            for event in &events[..ready] {
                let id = usize::try_from(event.data())?;
                let connection = &mut self.connections[id];
                answered +=
                    connection.receive(id, self.ring, &mut self.buffer, &mut self.latencies)?;
            }
            if ready > 0 {
                heard = now;
            } else if now - heard > PATIENCE {
                bail!(
                    "no reply for {PATIENCE:?}; {} are missing",
                    messages - answered
                );
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, ring: &Ring, due: Instant) -> Result<()> {
        self.rest.extend_from_slice(ring.frames(self.next, 1));
        self.next += 1;
        self.due.push_back(due);
        self.push()
    }

    /// Writes what waits, if the socket takes it; if not, with the next message or reply.
    fn push(&mut self) -> Result<()> {
        match self.stream.write(&self.rest) {
            Ok(n) => {
                self.rest.drain(..n);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// One read; how many replies it completed.
    fn receive(
        &mut self,
        id: usize,
        ring: &Ring,
        buffer: &mut [u8],
        latencies: &mut Vec<u64>,
    ) -> Result<u64> {
        let n = match self.stream.read(buffer) {
            Ok(0) => bail!("the server closed connection {id}"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        let length = ring.reply_length() as u64;
        if ring.difference(self.received, &buffer[..n]).is_some() {
            bail!("connection {id}: reply {} is wrong", self.received / length);
        }
        let before = self.received / length;
        self.received += n as u64;
        let replies = self.received / length - before;
        for _ in 0..replies {
            let Some(due) = self.due.pop_front() else {
                bail!("connection {id}: a reply too many");
            };
            latencies.push((now - due).as_nanos() as u64);
        }
        if !self.rest.is_empty() {
            self.push()?;
        }
        Ok(replies)
    }
}
