//! Broadcast: each message that a client sends goes to every client, the sender too. They take turns in sending a burst,
//! and the next burst follows when everybody has all of the last one, whole and in order.
//!
//! The raw peer, which knows no protocol, is sent the very bytes that all are to get.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, json, metered};
use crate::client::Random;
use crate::client::deflate::Unpacker;
use crate::client::frame::{Opcode, parse_server_deflate, put_client, put_server};
use crate::client::upgrade::{Dialect, Offer, PATIENCE, connect, connect_deflate};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// Nothing that is measured here takes longer.
const PHASE_LIMIT: Duration = Duration::from_secs(300);

/// The figures of a broadcast load.
#[derive(Debug, Clone, Args)]
pub(crate) struct BroadcastLoad {
    /// Clients
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    clients: u32,
    /// Bytes of each message, a JSON object
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=16 << 10))]
    payload: u32,
    /// Messages that are sent at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// Use permessage-deflate, each message by itself
    #[arg(long)]
    deflate: bool,
    /// Messages that are measured, after a tenth as many for warming up [default: about a second's worth]
    #[arg(long)]
    messages: Option<u64>,
}

impl BroadcastLoad {
    /// So many clients, 128 bytes.
    pub(crate) fn new(clients: u32, in_flight: u32, deflate: bool) -> Self {
        Self {
            clients,
            payload: 128,
            in_flight,
            deflate,
            messages: None,
        }
    }

    /// Whether messages are to be compressed.
    pub(crate) fn deflate(&self) -> bool {
        self.deflate
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            clients,
            payload,
            in_flight,
            deflate,
            ..
        } = self;
        let compressed = if *deflate { ", compressed" } else { "" };
        let messages = self.messages();
        format!(
            "broadcast{compressed}: {payload} B to {clients} clients, {in_flight} in flight; {messages} messages a turn; \
             what is counted are deliveries"
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A message that a client gets not at all, twice, changed or out of order.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let mut run = Run::open(address, dialect, self)?;
        // A raw connection stands before the server has accepted it.
        clock.at_rest()?;
        let burst = u64::from(self.in_flight);
        run.broadcast((self.messages() / 10).max(burst).next_multiple_of(burst))?;
        run.delivered_bytes = 0;
        let messages = self.messages();
        let deliveries = messages * u64::from(self.clients);
        let work = metered(clock, deliveries, || {
            let start = Instant::now();
            run.broadcast(messages)?;
            Ok(start.elapsed())
        })?;
        let size = run.delivered_bytes as f64 / deliveries as f64;
        Ok(Work {
            reply_bytes: self.deflate.then_some(size),
            ..work
        })
    }

    fn messages(&self) -> u64 {
        let enough = if self.in_flight == 1 {
            300_000
        } else {
            2_000_000
        };
        let enough = (enough / u64::from(self.clients)).max(10);
        self.messages
            .unwrap_or(enough)
            .next_multiple_of(u64::from(self.in_flight))
    }
}

struct Run {
    epoll: Epoll,
    clients: Vec<Client>,
    raw: bool,
    deflate: bool,
    payload: usize,
    burst: usize,
    random: Random,
    buffer: Vec<u8>,
    sent: u64,
    /// Whose turn it is to send.
    sender: usize,
    /// The burst that is under way.
    messages: Vec<String>,
    /// The same as the frames of an uncompressed server.
    frames: Vec<u8>,
    /// The payload of the frame that brought each message last: what was found right once needs no second look.
    known: Vec<Vec<u8>>,
    unpacker: Unpacker,
    delivered_bytes: u64,
}

struct Client {
    stream: TcpStream,
    /// Bytes of the burst that have come, where they are known beforehand.
    bytes: usize,
    /// Messages of the burst that have come, where they are not.
    messages: usize,
    /// What has come and is not a whole frame yet.
    rest: Vec<u8>,
}

impl Run {
    fn open(address: SocketAddr, dialect: Dialect, load: &BroadcastLoad) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut clients = Vec::new();
        let raw = dialect == Dialect::Raw;
        for id in 0..u64::from(load.clients) {
            let stream = if load.deflate && !raw {
                connect_deflate(address, dialect, Offer::Alone)?.0
            } else {
                connect(address, dialect)?
            };
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            clients.push(Client {
                stream,
                bytes: 0,
                messages: 0,
                rest: Vec::new(),
            });
        }
        Ok(Self {
            epoll,
            clients,
            raw,
            deflate: load.deflate && !raw,
            payload: load.payload as usize,
            burst: load.in_flight as usize,
            random: Random::new(u64::from(load.clients)),
            buffer: vec![0; READ_BUFFER],
            sent: 0,
            sender: 0,
            messages: Vec::new(),
            frames: Vec::new(),
            known: vec![Vec::new(); load.in_flight as usize],
            unpacker: Unpacker::new(false),
            delivered_bytes: 0,
        })
    }

    /// Sends `messages`, burst by burst.
    fn broadcast(&mut self, messages: u64) -> Result<()> {
        let deadline = Instant::now() + PHASE_LIMIT;
        for _ in 0..messages / self.burst as u64 {
            self.send_burst()?;
            self.collect_burst(deadline)?;
        }
        Ok(())
    }

    fn send_burst(&mut self) -> Result<()> {
        self.messages.clear();
        self.frames.clear();
        let mut out = Vec::new();
        for _ in 0..self.burst {
            let message = json::message(self.sent, self.payload, &mut self.random);
            self.sent += 1;
            put_server(&mut self.frames, Opcode::Text, message.as_bytes());
            put_client(
                &mut out,
                Opcode::Text,
                message.as_bytes(),
                self.random.key(),
            );
            self.messages.push(message);
        }
        let bytes = if self.raw { &self.frames } else { &out };
        self.clients[self.sender].stream.write_all(bytes)?;
        self.sender = (self.sender + 1) % self.clients.len();
        Ok(())
    }

    fn collect_burst(&mut self, deadline: Instant) -> Result<()> {
        for client in &mut self.clients {
            (client.bytes, client.messages) = (0, 0);
        }
        for known in &mut self.known {
            known.clear();
        }
        let mut missing = self.clients.len();
        let patience = EpollTimeout::try_from(PATIENCE)?;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while missing > 0 {
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 || Instant::now() > deadline {
                bail!(
                    "{missing} clients miss something of the burst up to message {}",
                    self.sent
                );
            }
            for event in &events[..ready] {
                let id = usize::try_from(event.data())?;
                let done = if self.deflate {
                    self.collect_compressed(id)?
                } else {
                    self.collect_plain(id)?
                };
                missing -= usize::from(done);
            }
        }
        Ok(())
    }

    /// One read of a client; whether it has the whole burst now.
    fn collect_plain(&mut self, id: usize) -> Result<bool> {
        let client = &mut self.clients[id];
        let n = client.stream.read(&mut self.buffer)?;
        let expected = self.frames.get(client.bytes..client.bytes + n);
        if n == 0 || expected != Some(&self.buffer[..n]) {
            bail!(
                "client {id} got something else, or too much, {} bytes into the burst up to message {}",
                client.bytes,
                self.sent
            );
        }
        client.bytes += n;
        Ok(client.bytes == self.frames.len())
    }

    /// The same where the server chooses the bytes.
    fn collect_compressed(&mut self, id: usize) -> Result<bool> {
        let client = &mut self.clients[id];
        let n = client.stream.read(&mut self.buffer)?;
        if n == 0 {
            bail!("the server closed connection {id}");
        }
        let joined;
        let mut bytes = &self.buffer[..n];
        if !client.rest.is_empty() {
            client.rest.extend_from_slice(bytes);
            joined = std::mem::take(&mut client.rest);
            bytes = &joined;
        }
        while let Some(header) =
            parse_server_deflate(bytes)?.filter(|header| header.end <= bytes.len())
        {
            let frame = &bytes[..header.end];
            let payload = &frame[header.start..];
            let Some(expected) = self.messages.get(client.messages) else {
                bail!("client {id} got one message too many");
            };
            let known = &mut self.known[client.messages];
            if known != frame {
                let message = if header.compressed {
                    self.unpacker.unpack(payload)?
                } else {
                    payload
                };
                if header.opcode != Opcode::Text || message != expected.as_bytes() {
                    let message = String::from_utf8_lossy(message);
                    bail!("client {id} got {message}, not {expected}");
                }
                frame.clone_into(known);
            }
            client.messages += 1;
            self.delivered_bytes += payload.len() as u64;
            bytes = &bytes[header.end..];
        }
        client.rest.extend_from_slice(bytes);
        Ok(client.messages == self.messages.len() && client.rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Broadcasts to three clients of a raw server that hands each delivery to `cheat` first.
    fn run_against(cheat: impl Fn(usize, &mut Vec<u8>) + Send + 'static) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut streams: Vec<TcpStream> =
                (0..3).map(|_| listener.accept().unwrap().0).collect();
            let mut buffer = vec![0; 64 * 1024];
            for turn in 0.. {
                let Ok(n @ 1..) = streams[turn % 3].read(&mut buffer) else {
                    return;
                };
                for (id, stream) in streams.iter_mut().enumerate() {
                    let mut bytes = buffer[..n].to_vec();
                    cheat(id, &mut bytes);
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
            }
        });
        let load = BroadcastLoad::new(3, 2, false);
        let mut run = Run::open(address, Dialect::Raw, &load).unwrap();
        let outcome = run.broadcast(8);
        drop(run);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn an_honest_server_passes() {
        run_against(|_, _| ()).unwrap();
    }

    #[test]
    fn a_changed_or_second_delivery_is_found() {
        assert!(run_against(|id, bytes| bytes[40] ^= u8::from(id == 1)).is_err());
        assert!(
            run_against(|id, bytes| {
                if id == 2 {
                    bytes.extend_from_within(..);
                }
            })
            .is_err()
        );
    }
}
