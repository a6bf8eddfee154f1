//! Echo: each connection keeps a number of messages in flight, the server sends each back.
//!
//! One thread, level-triggered epoll, one read for each readable event, one write for each burst. By default a
//! connection sends its whole burst in one write, waits for all the replies, and sends the next: so every server is
//! given the same input, however it cuts its output. With `--refill each` every reply is followed by a new message at
//! once, and a server that writes reply by reply makes its own input come in small pieces.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::ring::Ring;
use super::{Work, metered};
use crate::client::frame::Opcode;
use crate::client::upgrade::{Dialect, PATIENCE, connect};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 256 * 1024;
const EVENTS: usize = 256;
/// Nothing that is measured here takes longer.
const PHASE_LIMIT: Duration = Duration::from_secs(300);

/// The figures of an echo load.
#[derive(Debug, Clone, Args)]
pub(crate) struct EchoLoad {
    /// Bytes of each message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=64 << 20))]
    payload: u64,
    /// Connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    connections: u32,
    /// Messages that each connection has in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// When a connection sends again
    #[arg(long, value_enum, default_value_t = Refill::All)]
    refill: Refill,
    /// Send text (one to four byte characters mixed) instead of binary messages
    #[arg(long)]
    text: bool,
    /// Messages that are measured, after a tenth as many for warming up [default: about a second's worth]
    #[arg(long)]
    messages: Option<u64>,
}

/// When a connection sends again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Refill {
    /// When all its replies are there: the same input for every server.
    All,
    /// For each reply that has come.
    Each,
}

impl EchoLoad {
    /// The same with text.
    pub(crate) fn with_text(self) -> Self {
        Self { text: true, ..self }
    }

    /// Binary messages, a burst at a time.
    pub(crate) fn new(payload: u64, connections: u32, in_flight: u32) -> Self {
        Self {
            payload,
            connections,
            in_flight,
            refill: Refill::All,
            text: false,
            messages: None,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let kind = if self.text { "text" } else { "binary" };
        let refill = if self.refill == Refill::Each {
            ", refilled one by one"
        } else {
            ""
        };
        let Self {
            payload,
            connections,
            in_flight,
            ..
        } = self;
        let messages = self.messages();
        format!(
            "echo: {payload} B {kind}, {connections} connections, {in_flight} in flight{refill}; \
             {messages} messages a turn"
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A reply that is wrong, missing or too much; a connection that ends.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let opcode = if self.text {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let burst = self.in_flight as usize;
        let ring = Ring::new(usize::try_from(self.payload)?, burst, opcode, dialect);
        let mut run = Run::open(address, dialect, self, &ring)?;
        run.exchange(self.round_up(self.messages() / 10))?;
        let messages = self.messages();
        metered(clock, messages, || {
            let start = Instant::now();
            run.exchange(messages)?;
            Ok(start.elapsed())
        })
    }

    fn messages(&self) -> u64 {
        let enough = if self.in_flight == 1 {
            200_000
        } else {
            1_000_000
        };
        let bytes = (2 << 30) / self.payload.max(1);
        self.round_up(self.messages.unwrap_or(enough.min(bytes)))
    }

    /// Whole bursts, and at least one for each connection.
    fn round_up(&self, messages: u64) -> u64 {
        let (burst, connections) = (u64::from(self.in_flight), u64::from(self.connections));
        messages.max(burst * connections).next_multiple_of(burst)
    }
}

struct Run<'a> {
    epoll: Epoll,
    connections: Vec<Connection>,
    ring: &'a Ring,
    burst: usize,
    refill_at: usize,
    buffer: Vec<u8>,
    /// Messages of this phase that are still to be sent, and still to be answered.
    unsent: u64,
    unanswered: u64,
}

struct Connection {
    stream: TcpStream,
    /// Frames sent, or begun, since the start.
    next: u64,
    /// The end of the last burst, where the socket would not take it.
    rest: Vec<u8>,
    /// Bytes of replies that have come, and that may come, since the start.
    received: u64,
    due: u64,
    /// Replies that have come and were not followed by new messages yet.
    credit: usize,
}

impl<'a> Run<'a> {
    fn open(
        address: SocketAddr,
        dialect: Dialect,
        load: &EchoLoad,
        ring: &'a Ring,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let burst = load.in_flight as usize;
        let mut connections = Vec::new();
        for id in 0..u64::from(load.connections) {
            let stream = connect(address, dialect)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            let rest = Vec::new();
            connections.push(Connection {
                stream,
                next: 0,
                rest,
                received: 0,
                due: 0,
                credit: burst,
            });
        }
        let refill_at = if load.refill == Refill::All { burst } else { 1 };
        let buffer = vec![0; READ_BUFFER];
        Ok(Self {
            epoll,
            connections,
            ring,
            burst,
            refill_at,
            buffer,
            unsent: 0,
            unanswered: 0,
        })
    }

    /// Sends `messages` over all connections and waits for all replies.
    fn exchange(&mut self, messages: u64) -> Result<()> {
        (self.unsent, self.unanswered) = (messages, messages);
        for id in 0..self.connections.len() {
            self.send(id)?;
        }
        let start = Instant::now();
        let patience = EpollTimeout::try_from(PATIENCE)?;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while self.unanswered > 0 {
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 {
                bail!(
                    "no reply for {PATIENCE:?}; {} of {messages} are missing",
                    self.unanswered
                );
            }
            if start.elapsed() > PHASE_LIMIT {
                bail!(
                    "not done after {PHASE_LIMIT:?}; {} of {messages} are missing",
                    self.unanswered
                );
            }
            for event in &events[..ready] {
                let id = usize::try_from(event.data())?;
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    self.push(id)?;
                }
                if event.events().intersects(!EpollFlags::EPOLLOUT) {
                    self.receive(id)?;
                }
            }
        }
        Ok(())
    }

    /// One read; what it brought is compared with what must come.
    fn receive(&mut self, id: usize) -> Result<()> {
        let connection = &mut self.connections[id];
        let n = match connection.stream.read(&mut self.buffer) {
            Ok(0) => bail!("the server closed connection {id}"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let length = self.ring.reply_length() as u64;
        if let Some(at) = self.ring.difference(connection.received, &self.buffer[..n]) {
            let byte = connection.received + at as u64;
            bail!(
                "connection {id}: byte {} of reply {} is wrong",
                byte % length,
                byte / length
            );
        }
        let answered_before = connection.received / length;
        connection.received += n as u64;
        if connection.received > connection.due {
            bail!(
                "connection {id}: {} bytes too many",
                connection.received - connection.due
            );
        }
        let answered = connection.received / length - answered_before;
        self.unanswered -= answered;
        connection.credit += answered as usize;
        self.send(id)
    }

    /// Sends what the connection has credit for, in one write.
    fn send(&mut self, id: usize) -> Result<()> {
        let connection = &mut self.connections[id];
        if connection.credit < self.refill_at || !connection.rest.is_empty() || self.unsent == 0 {
            return Ok(());
        }
        let count = connection
            .credit
            .min(self.burst)
            .min(usize::try_from(self.unsent)?);
        let bytes = self.ring.frames(connection.next, count);
        connection.next += count as u64;
        connection.credit -= count;
        connection.due += (count * self.ring.reply_length()) as u64;
        self.unsent -= count as u64;
        let n = written(connection.stream.write(bytes))?;
        if n < bytes.len() {
            connection.rest.extend_from_slice(&bytes[n..]);
            let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            self.epoll
                .modify(&connection.stream, &mut EpollEvent::new(both, id as u64))?;
        }
        Ok(())
    }

    /// Goes on with a burst that the socket would not take whole.
    fn push(&mut self, id: usize) -> Result<()> {
        let connection = &mut self.connections[id];
        let n = written(connection.stream.write(&connection.rest))?;
        connection.rest.drain(..n);
        if connection.rest.is_empty() {
            let input = &mut EpollEvent::new(EpollFlags::EPOLLIN, id as u64);
            self.epoll.modify(&connection.stream, input)?;
        }
        self.send(id)
    }
}

fn written(outcome: std::io::Result<usize>) -> Result<usize> {
    match outcome {
        Ok(n) => Ok(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Runs a small load against a server that hands each read to `cheat` before it bounces it.
    fn run_against(cheat: impl Fn(usize, &mut Vec<u8>) + Send + 'static) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 4096];
            for turn in 0.. {
                let Ok(n @ 1..) = stream.read(&mut buffer) else {
                    return;
                };
                let mut answer = buffer[..n].to_vec();
                cheat(turn, &mut answer);
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        let load = EchoLoad {
            messages: Some(400),
            ..EchoLoad::new(20, 1, 4)
        };
        let ring = Ring::new(20, 4, Opcode::Binary, Dialect::Raw);
        let outcome =
            Run::open(address, Dialect::Raw, &load, &ring).and_then(|mut run| run.exchange(400));
        server.join().unwrap();
        outcome
    }

    #[test]
    fn an_honest_server_passes() {
        run_against(|_, _| ()).unwrap();
    }

    #[test]
    fn a_changed_byte_is_found() {
        let error = run_against(|turn, bytes| bytes[30] ^= u8::from(turn == 7))
            .unwrap_err()
            .to_string();
        assert!(error.contains("byte 4 of reply 29 is wrong"), "{error}");
    }

    #[test]
    fn an_answer_from_memory_is_found() {
        let first = std::sync::Mutex::new(Vec::new());
        let error = run_against(move |turn, bytes| {
            let mut first = first.lock().unwrap();
            if turn == 0 {
                *first = bytes.clone();
            }
            bytes.clone_from(&first);
        });
        assert!(error.unwrap_err().to_string().contains("is wrong"));
    }

    #[test]
    fn too_much_is_found() {
        let error = run_against(|turn, bytes| {
            if turn == 3 {
                bytes.push(0x82);
            }
        });
        assert!(error.unwrap_err().to_string().contains("1 bytes too many"));
    }

    #[test]
    fn a_closed_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || drop(listener.accept().unwrap()));
        let ring = Ring::new(20, 1, Opcode::Binary, Dialect::Raw);
        let outcome = Run::open(address, Dialect::Raw, &EchoLoad::new(20, 1, 1), &ring)
            .and_then(|mut run| run.exchange(1));
        server.join().unwrap();
        assert!(outcome.is_err());
    }
}
