//! Clients of the client protocol: what it costs the server when each connects and subscribes to a channel, and what it
//! holds for them when they do nothing more.
//!
//! As with SDKs, connect and subscribe come in one message. Clients arrive in waves: all of a wave are in the same step at a time, and stay.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use memchr::memmem;

use super::idle::{Idle, PerConnection};
use super::{Work, metered};
use crate::client::Random;
use crate::client::frame::put_client;
use crate::client::session::{Command, Encoding, Reply, Session};
use crate::client::upgrade::{Dialect, PATIENCE, check_answer, request};
use crate::cpu::CpuClock;
use crate::memory::Footprint;

const WAVE: usize = 64;
const HEAD_LIMIT: usize = 8 * 1024;
const DATA: usize = 128;

/// Who comes, and where to.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Crowd {
    /// Clients
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=17_000))]
    clients: u32,
    /// Each subscribes to a channel of its own rather than all to the same
    #[arg(long)]
    own_channels: bool,
}

/// Connect and subscribe: CPU per client.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinLoad {
    #[command(flatten)]
    crowd: Crowd,
}

/// Clients that do nothing: memory per client.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubscribedLoad {
    #[command(flatten)]
    crowd: Crowd,
}

impl Crowd {
    fn title(self) -> String {
        let channel = if self.own_channels {
            "a channel of its own"
        } else {
            "the same channel"
        };
        format!("{} clients, each subscribed to {channel}", self.clients)
    }

    fn channel(self, client: u32) -> String {
        if self.own_channels {
            format!("user-{client}")
        } else {
            "lobby".to_owned()
        }
    }

    /// Lets `clients` of them in.
    fn enter(
        self,
        address: SocketAddr,
        dialect: Dialect,
        clients: std::ops::Range<u32>,
    ) -> Result<Vec<Session>> {
        let Dialect::WebSocket(path) = dialect else {
            bail!("clients of the client protocol need a WebSocket server");
        };
        let request = request(address, path, "").into_bytes();
        let mut random = Random::new(u64::from(self.clients));
        let mut inside = Vec::with_capacity(clients.len());
        let all: Vec<u32> = clients.collect();
        for wave in all.chunks(WAVE) {
            let mut streams = Vec::with_capacity(WAVE);
            for _ in wave {
                let mut stream = TcpStream::connect(address).context("cannot connect")?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(&request)?;
                streams.push(stream);
            }
            let first = inside.len();
            for (&client, mut stream) in wave.iter().zip(streams) {
                read_answer(&mut stream)?;
                let mut session = Session::over(stream, Encoding::Json);
                let subscribe = Command::Subscribe {
                    channel: &self.channel(client),
                };
                session.ask(&mut random, &[subscribe])?;
                inside.push(session);
            }
            for session in &mut inside[first..] {
                session.wait(2)?;
            }
        }
        Ok(inside)
    }
}

impl JoinLoad {
    /// So many clients, into one channel.
    pub(crate) fn new(clients: u32) -> Self {
        Self {
            crowd: Crowd {
                clients,
                own_channels: false,
            },
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        format!(
            "join: {}, {WAVE} at a time: TCP, upgrade, connect and subscribe in one message; what is counted are clients",
            self.crowd.title()
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A client that is not let in.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let clients = self.crowd.clients;
        let warm_up = clients / 10;
        let early = self.crowd.enter(address, dialect, 0..warm_up)?;
        let mut late = Vec::new();
        let work = metered(clock, u64::from(clients), || {
            let start = Instant::now();
            late = self
                .crowd
                .enter(address, dialect, warm_up..warm_up + clients)?;
            Ok(start.elapsed())
        })?;
        // Nobody leaves while the server is looked at.
        drop((early, late));
        Ok(work)
    }
}

impl SubscribedLoad {
    /// So many clients.
    pub(crate) fn new(clients: u32, own_channels: bool) -> Self {
        Self {
            crowd: Crowd {
                clients,
                own_channels,
            },
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        format!(
            "subscribed: {}; memory of the server for each, before and after one publication of {DATA} B to each",
            self.crowd.title()
        )
    }

    /// One turn; `footprint` reads the server's memory.
    ///
    /// # Errors
    /// A client that is not let in, or does not get the publication.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        footprint: impl Fn() -> Result<Footprint>,
    ) -> Result<Idle> {
        let clients = self.crowd.clients;
        // What a server sets up once is not any client's.
        let first = self.crowd.enter(address, dialect, clients..clients + 1)?;
        self.publish_to(&mut [], address, dialect)?;
        drop(first);
        let before = footprint()?;
        let mut inside = self.crowd.enter(address, dialect, 0..clients)?;
        let silent = self.share(before, footprint()?);
        self.publish_to(&mut inside, address, dialect)?;
        let told = self.share(before, footprint()?);
        Ok(Idle {
            after_handshake: silent,
            after_burst: told,
        })
    }

    /// Publishes into each channel that has one of `clients` in it, and waits until all have it.
    fn publish_to(
        &self,
        clients: &mut [Session],
        address: SocketAddr,
        dialect: Dialect,
    ) -> Result<()> {
        let mut random = Random::new(1);
        let mut publisher = Session::open(address, dialect, Encoding::Json)?;
        publisher.begin(&mut random, &[])?;
        let data = random.object(1, DATA);
        let channels = if self.crowd.own_channels {
            clients.len().try_into()?
        } else {
            1
        };
        for channel in 0..channels {
            let mut command = Vec::new();
            let publish = Command::Publish {
                channel: &self.crowd.channel(channel),
                data: &data,
            };
            Encoding::Json.put(&mut command, u64::from(channel) + 2, publish);
            let mut out = Vec::new();
            put_client(&mut out, Encoding::Json.opcode(), &command, random.key());
            publisher.stream.write_all(&out)?;
            publisher.wait(1)?;
        }
        let mut buffer = vec![0; 4096];
        for (id, client) in clients.iter_mut().enumerate() {
            let mut got = 0;
            while got == 0 {
                client.receive(&mut buffer, |reply| match reply {
                    Reply::Push(push) if memmem::find(push, data.as_bytes()).is_some() => {
                        got += 1;
                        Ok(())
                    }
                    other => bail!("client {id} got {other:?}"),
                })?;
            }
        }
        Ok(())
    }

    fn share(&self, before: Footprint, after: Footprint) -> PerConnection {
        PerConnection::share(before, after, self.crowd.clients)
    }
}

fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut buffer)?;
        if n == 0 || head.len() > HEAD_LIMIT {
            bail!("no upgrade: {:?}", String::from_utf8_lossy(&head));
        }
        head.extend_from_slice(&buffer[..n]);
    }
    check_answer(&String::from_utf8_lossy(&head))
}
