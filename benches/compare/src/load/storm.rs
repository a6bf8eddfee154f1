//! Connect, upgrade, close: how much a connection costs that does nothing. A number of them are under way at any time.
//!
//! Each sends its request, waits for the answer, sends a Close frame, waits for the server's, and ends its side. The raw
//! peer is sent the same bytes and sends them back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, metered};
use crate::client::frame::{Opcode, parse_server, put_client};
use crate::client::upgrade::{Dialect, PATIENCE, check_answer, request};
use crate::cpu::CpuClock;

const EVENTS: usize = 256;
const HEAD_LIMIT: usize = 8 * 1024;
const NORMAL_CLOSURE: [u8; 2] = 1000u16.to_be_bytes();
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The figures of a connect storm.
#[derive(Debug, Clone, Args)]
pub(crate) struct StormLoad {
    /// Connections that are opened in all, after a tenth as many for warming up
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Connections at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    at_once: u32,
}

impl StormLoad {
    /// So many connections.
    pub(crate) fn new(connections: u32) -> Self {
        Self {
            connections,
            at_once: 64,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            connections,
            at_once,
        } = self;
        format!(
            "storm: {connections} connections, {at_once} at a time: connect, upgrade, close; what is counted are connections"
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A connection that is not upgraded or not closed in order.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let path = match dialect {
            Dialect::Raw => "/",
            Dialect::WebSocket(path) => path,
        };
        let mut close = Vec::new();
        put_client(&mut close, Opcode::Close, &NORMAL_CLOSURE, KEY);
        let mut storm = Storm {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            address,
            raw: dialect == Dialect::Raw,
            request: request(address, path, "").into_bytes(),
            close,
            slots: Vec::new(),
        };
        for _ in 0..self.at_once {
            storm.slots.push(None);
        }
        storm.blow((self.connections / 10).max(self.at_once))?;
        metered(clock, u64::from(self.connections), || {
            let start = Instant::now();
            storm.blow(self.connections)?;
            Ok(start.elapsed())
        })
    }
}

struct Storm {
    epoll: Epoll,
    address: SocketAddr,
    raw: bool,
    request: Vec<u8>,
    close: Vec<u8>,
    slots: Vec<Option<Visit>>,
}

struct Visit {
    stream: TcpStream,
    stage: Stage,
    seen: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Closing,
    Ending,
}

impl Storm {
    fn blow(&mut self, connections: u32) -> Result<()> {
        let mut unopened = connections;
        let mut unfinished = connections;
        for slot in 0..self.slots.len() {
            if unopened > 0 {
                self.open(slot)?;
                unopened -= 1;
            }
        }
        let patience = EpollTimeout::try_from(PATIENCE)?;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while unfinished > 0 {
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 {
                bail!("nothing for {PATIENCE:?}; {unfinished} of {connections} are not done");
            }
            for event in &events[..ready] {
                let slot = usize::try_from(event.data())?;
                if self.advance(slot)? {
                    // Closing it takes it out of the epoll set.
                    self.slots[slot] = None;
                    unfinished -= 1;
                    if unopened > 0 {
                        self.open(slot)?;
                        unopened -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, slot: usize) -> Result<()> {
        let mut stream = TcpStream::connect(self.address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.request)?;
        stream.set_nonblocking(true)?;
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
        self.slots[slot] = Some(Visit {
            stream,
            stage: Stage::Upgrading,
            seen: Vec::new(),
        });
        Ok(())
    }

    /// One read; whether the connection is at its end.
    fn advance(&mut self, slot: usize) -> Result<bool> {
        let Some(visit) = &mut self.slots[slot] else {
            return Ok(false);
        };
        let mut buffer = [0; HEAD_LIMIT];
        let n = match visit.stream.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // A server that drops a socket with our end of stream unread: all had been said.
            Err(_) if visit.stage == Stage::Ending => 0,
            Err(error) => return Err(error.into()),
        };
        if n == 0 {
            if visit.stage == Stage::Ending {
                return Ok(true);
            }
            bail!("the server ended the connection while {:?}", visit.stage);
        }
        visit.seen.extend_from_slice(&buffer[..n]);
        if visit.stage == Stage::Upgrading {
            let whole = if self.raw {
                visit.seen.len() == self.request.len()
            } else {
                visit.seen.ends_with(b"\r\n\r\n")
            };
            if !whole {
                return Ok(false);
            }
            if !self.raw {
                check_answer(&String::from_utf8_lossy(&visit.seen))?;
            }
            visit.stream.write_all(&self.close)?;
            visit.stage = Stage::Closing;
            visit.seen.clear();
        } else if visit.stage == Stage::Closing {
            let whole = if self.raw {
                visit.seen.len() == self.close.len()
            } else {
                match parse_server(&visit.seen)? {
                    Some(header) if header.opcode != Opcode::Close => {
                        bail!("a {:?} frame answers a Close", header.opcode)
                    }
                    header => header.is_some_and(|header| header.end == visit.seen.len()),
                }
            };
            if whole {
                visit.stream.shutdown(Shutdown::Write)?;
                visit.stage = Stage::Ending;
            }
        } else {
            bail!("there are bytes behind the server's Close");
        }
        Ok(false)
    }
}
