//! Proofs: what Tautline promises of readers that are slow or far behind, shown at a size that no test has time for.
//!
//! Every reader checks what it gets: all of it, once, in order. The figures are printed for people.

mod behind;
mod slow;
mod workers;

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

pub(crate) use behind::BehindProof;
pub(crate) use slow::SlowProof;
pub(crate) use workers::WorkersProof;

use crate::client::Random;
use crate::client::frame::put_client;
use crate::client::session::{Command, Encoding, Reply, Session};
use crate::cpu;
use crate::memory::{Footprint, HeapCounter};
use crate::options::Common;
use crate::peers::{OURS, PEERS, Service};
use crate::server::{Server, scratch_dir};

/// The server of a proof, and what counts its heap.
struct Stage {
    server: Server,
    heap: HeapCounter,
}

impl Stage {
    fn set(common: &Common) -> Result<Self> {
        let peer = PEERS
            .iter()
            .find(|peer| peer.name == OURS)
            .context("Tautline is not among the servers")?;
        let start = peer
            .start(Service::Proof)
            .context("Tautline has no proofs")?;
        let line = start
            .locate(&common.tautline_dir())
            .map_err(anyhow::Error::msg)?;
        let heap = HeapCounter::create(&scratch_dir()?)?;
        let (server_core, load_core) = (common.server_core, common.load_core);
        let server = Server::start(
            &peer.name,
            &line,
            start,
            Some(&heap),
            server_core,
            load_core,
        )?;
        cpu::pin(load_core)?;
        Ok(Self { server, heap })
    }

    fn open(&self) -> Result<Session> {
        Session::open(self.server.address, self.server.dialect, Encoding::Json)
    }

    /// Memory at this moment, whatever it is about to become.
    fn memory(&self) -> Result<Footprint> {
        self.heap.at_once(self.server.pid())
    }
}

/// Publishes what is numbered from 1, and remembers when.
struct Author {
    session: Session,
    random: Random,
    channel: &'static str,
    payload: usize,
    /// When each publication was sent.
    sent: Vec<Instant>,
}

impl Author {
    fn new(stage: &Stage, channel: &'static str, payload: usize) -> Result<Self> {
        let mut random = Random::new(payload as u64);
        let mut session = stage.open()?;
        session.begin(&mut random, &[])?;
        Ok(Self {
            session,
            random,
            channel,
            payload,
            sent: Vec::new(),
        })
    }

    /// Sends so many publications in one write.
    fn send(&mut self, count: usize) -> Result<()> {
        let mut out = Vec::new();
        for _ in 0..count {
            self.sent.push(Instant::now());
            let number = self.sent.len() as u64;
            let mut command = Vec::new();
            let publish = Command::Publish {
                channel: self.channel,
                data: &self.random.object(number, self.payload),
            };
            Encoding::Json.put(&mut command, number + 1, publish);
            let opcode = Encoding::Json.opcode();
            put_client(&mut out, opcode, &command, self.random.key());
        }
        Ok(self.session.stream.write_all(&out)?)
    }
}

/// The numbers of the publications in a message, in their order.
fn numbers(message: &[u8]) -> impl Iterator<Item = u64> + '_ {
    const BEFORE: &[u8] = br#"{"number":"#;
    memmem::find_iter(message, BEFORE).map(|at| {
        let digits = message[at + BEFORE.len()..].iter();
        digits
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    })
}

/// One read of a reader who must get every number in turn; `next` is the one that comes next.
fn read_in_order(
    session: &mut Session,
    buffer: &mut [u8],
    next: &mut u64,
    mut seen: impl FnMut(u64),
) -> Result<()> {
    session.receive(buffer, |reply| {
        let message = match reply {
            Reply::Push(message) => message,
            Reply::Answer {
                refused: false,
                message,
                ..
            } => message,
            other => bail!("a reader got {other:?}"),
        };
        if memmem::find(message, br#""unsubscribe":{"code""#).is_some() {
            bail!(
                "a reader lost its subscription: {}",
                String::from_utf8_lossy(message)
            );
        }
        for number in numbers(message) {
            if number != *next {
                bail!("a reader got publication {number} where {next} comes next");
            }
            seen(number);
            *next += 1;
        }
        Ok(())
    })
}

fn mebibytes(bytes: i64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_wherever_they_are() {
        let message = br#"{"id":1,"subscribe":{"publications":[{"data":{"number":7,"text":"a"},"offset":3},{"data":{"number":80,"text":"b"}}]}}"#;
        assert_eq!(numbers(message).collect::<Vec<_>>(), [7, 80]);
    }
}
