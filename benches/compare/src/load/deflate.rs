//! Compressed echo: as `echo`, with permessage-deflate. What is sent was compressed beforehand; each reply is inflated
//! and compared with the message that it answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, json, metered};
use crate::client::Random;
use crate::client::deflate::{Packer, Unpacker};
use crate::client::frame::{Opcode, parse_server_deflate, put_client_compressed};
use crate::client::upgrade::{Agreed, Dialect, Offer, PATIENCE, connect_deflate};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 256 * 1024;
const EVENTS: usize = 256;
/// Distinct messages: more than fit into the largest window, so that none is just a copy of an old one.
const MESSAGES: usize = 256;

/// The figures of a compressed echo load.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeflateLoad {
    /// Bytes of each message, a JSON object
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=16 << 10))]
    payload: u32,
    /// Connections
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Messages that each connection has in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// Offer context takeover, as browsers do
    #[arg(long)]
    takeover: bool,
    /// Messages that are measured, after a tenth as many for warming up
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
}

impl DeflateLoad {
    /// The published load.
    pub(crate) fn new(takeover: bool) -> Self {
        Self {
            payload: 512,
            connections: 100,
            in_flight: 16,
            takeover,
            messages: 100_000,
        }
    }

    /// Whether context is to be taken over.
    pub(crate) fn takeover(&self) -> bool {
        self.takeover
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            payload,
            connections,
            in_flight,
            messages,
            takeover,
        } = self;
        let with = if *takeover { "with" } else { "without" };
        format!(
            "compressed echo, {with} context takeover: {payload} B of JSON, {connections} connections, \
             {in_flight} in flight; {messages} messages a turn"
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A reply that is wrong or missing; a server that doesn't agree on what was asked for.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let burst = self.in_flight as usize;
        let (first, agreed) = connect_deflate(address, dialect, self.offer())?;
        let script = Script::new(self.payload as usize, burst, agreed)?;
        let mut run = Run::open(&script)?;
        run.add(first, agreed)?;
        for _ in 1..self.connections {
            let (stream, agreed) = connect_deflate(address, dialect, self.offer())?;
            run.add(stream, agreed)?;
        }
        let round = u64::from(self.in_flight) * u64::from(self.connections);
        run.exchange((self.messages / 10).max(round).next_multiple_of(round))?;
        run.reply_bytes = 0;
        let messages = self.messages.max(round).next_multiple_of(round);
        let work = metered(clock, messages, || {
            let start = Instant::now();
            run.exchange(messages)?;
            Ok(start.elapsed())
        })?;
        Ok(Work {
            reply_bytes: Some(run.reply_bytes as f64 / messages as f64),
            ..work
        })
    }

    fn offer(&self) -> Offer {
        if self.takeover {
            Offer::Takeover
        } else {
            Offer::Alone
        }
    }
}

/// What every connection sends, and what must come back: a cycle of messages.
#[derive(Debug)]
pub(crate) struct Script {
    plain: Vec<Vec<u8>>,
    /// Bursts of the first time round, and of each later one: with takeover, the first messages then refer to the last.
    first: Vec<Vec<u8>>,
    again: Vec<Vec<u8>>,
    burst: usize,
}

impl Script {
    /// Messages of `payload` bytes, `burst` of them in each write, compressed as was agreed.
    pub(crate) fn new(payload: usize, burst: usize, agreed: Agreed) -> Result<Self> {
        let mut random = Random::new(payload as u64);
        let count = MESSAGES.next_multiple_of(burst);
        let plain: Vec<Vec<u8>> = (0..count as u64)
            .map(|number| json::message(number, payload, &mut random).into_bytes())
            .collect();
        let mut packer = Packer::new(agreed.client_takeover, agreed.client_window_bits);
        let mut cycle = || -> Result<Vec<Vec<u8>>> {
            let mut bursts = Vec::new();
            for messages in plain.chunks(burst) {
                let mut bytes = Vec::new();
                for message in messages {
                    let packed = packer.pack(message)?;
                    put_client_compressed(&mut bytes, Opcode::Text, &packed, random.key());
                }
                bursts.push(bytes);
            }
            Ok(bursts)
        };
        let (first, again) = (cycle()?, cycle()?);
        Ok(Self {
            plain,
            first,
            again,
            burst,
        })
    }

    /// The bytes of the `number`-th burst of a connection.
    pub(crate) fn burst(&self, number: usize) -> &[u8] {
        let bursts = if number < self.first.len() {
            &self.first
        } else {
            &self.again
        };
        &bursts[number % bursts.len()]
    }

    /// The `number`-th message of a connection.
    pub(crate) fn message(&self, number: u64) -> &[u8] {
        &self.plain[(number % self.plain.len() as u64) as usize]
    }
}

/// One connection's place in its script.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) stream: TcpStream,
    unpacker: Unpacker,
    /// What has come and is not a whole frame yet.
    rest: Vec<u8>,
    sent: usize,
    answered: u64,
}

impl Player {
    /// At the beginning.
    pub(crate) fn new(stream: TcpStream, agreed: Agreed) -> Self {
        Self {
            stream,
            unpacker: Unpacker::new(agreed.server_takeover),
            rest: Vec::new(),
            sent: 0,
            answered: 0,
        }
    }

    /// Sends the next burst. Bursts are far smaller than what a socket takes.
    pub(crate) fn send(&mut self, script: &Script) -> Result<()> {
        self.stream.write_all(script.burst(self.sent))?;
        self.sent += 1;
        Ok(())
    }

    /// One read; how many replies it completed, and their bytes. All of them were right.
    pub(crate) fn receive(&mut self, script: &Script, buffer: &mut [u8]) -> Result<(u64, u64)> {
        let n = match self.stream.read(buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((0, 0)),
            Err(error) => return Err(error.into()),
        };
        let joined;
        let mut bytes = &buffer[..n];
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.rest);
            bytes = &joined;
        }
        let (mut replies, mut size) = (0, 0);
        while let Some(header) =
            parse_server_deflate(bytes)?.filter(|header| header.end <= bytes.len())
        {
            let payload = &bytes[header.start..header.end];
            let message = if header.compressed {
                self.unpacker
                    .unpack(payload)
                    .with_context(|| format!("reply {}", self.answered))?
            } else {
                payload
            };
            if header.opcode != Opcode::Text || message != script.message(self.answered) {
                bail!(
                    "reply {} is wrong: {}",
                    self.answered,
                    String::from_utf8_lossy(message)
                );
            }
            self.answered += 1;
            replies += 1;
            size += payload.len() as u64;
            bytes = &bytes[header.end..];
        }
        self.rest.extend_from_slice(bytes);
        Ok((replies, size))
    }

    /// Whether all that was sent has been answered.
    pub(crate) fn is_done(&self, script: &Script) -> bool {
        self.answered == (self.sent * script.burst) as u64
    }
}

struct Run<'a> {
    epoll: Epoll,
    script: &'a Script,
    players: Vec<Player>,
    buffer: Vec<u8>,
    reply_bytes: u64,
}

impl<'a> Run<'a> {
    fn open(script: &'a Script) -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            script,
            players: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            reply_bytes: 0,
        })
    }

    fn add(&mut self, stream: TcpStream, agreed: Agreed) -> Result<()> {
        let id = self.players.len() as u64;
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        self.players.push(Player::new(stream, agreed));
        Ok(())
    }

    /// Sends `messages`, whole bursts over all connections, and waits for all replies.
    fn exchange(&mut self, messages: u64) -> Result<()> {
        let burst = self.script.burst as u64;
        let (mut unsent, mut unanswered) = (messages, messages);
        for player in &mut self.players {
            player.send(self.script)?;
            unsent -= burst;
        }
        let patience = EpollTimeout::try_from(PATIENCE)?;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while unanswered > 0 {
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 {
                bail!("no reply for {PATIENCE:?}; {unanswered} of {messages} are missing");
            }
            for event in &events[..ready] {
                let id = usize::try_from(event.data())?;
                let player = &mut self.players[id];
                let (replies, size) = player
                    .receive(self.script, &mut self.buffer)
                    .with_context(|| format!("connection {id}"))?;
                unanswered -= replies;
                self.reply_bytes += size;
                if replies > 0 && unsent > 0 && player.is_done(self.script) {
                    player.send(self.script)?;
                    unsent -= burst;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_inflates_to_the_messages_time_and_again() {
        for (client_takeover, client_window_bits) in [(false, 15), (true, 15), (true, 10)] {
            let agreed = Agreed {
                server_takeover: true,
                client_takeover,
                client_window_bits,
            };
            let script = Script::new(512, 16, agreed).unwrap();
            let mut unpacker = Unpacker::new(client_takeover);
            let mut number = 0;
            for burst in 0..3 * MESSAGES / 16 {
                let mut bytes = script.burst(burst);
                while !bytes.is_empty() {
                    assert_eq!((bytes[0], bytes[1] & 0x80), (0xc1, 0x80));
                    let (start, length) = match bytes[1] & 0x7f {
                        126 => (8, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
                        short => (6, usize::from(short)),
                    };
                    let key = bytes[start - 4..start].iter().cycle();
                    let payload: Vec<u8> = bytes[start..start + length]
                        .iter()
                        .zip(key)
                        .map(|(byte, key)| byte ^ key)
                        .collect();
                    assert_eq!(unpacker.unpack(&payload).unwrap(), script.message(number));
                    number += 1;
                    bytes = &bytes[start + length..];
                }
            }
        }
    }
}
