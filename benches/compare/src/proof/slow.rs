//! Readers who take 10 KB/s beside many who take all they get: the fast ones' delay with and without them, the server's
//! memory meanwhile, and what the slow ones have in the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Author, Stage, mebibytes, numbers, read_in_order};
use crate::client::Random;
use crate::client::session::{Command, Reply, Session};
use crate::options::Common;
use crate::stats::Spread;

const EVENTS: usize = 256;
const ROUNDS: u32 = 3;
const AUTHOR: u64 = u64::MAX;
/// A slow reader's share of its rate, and how often it takes that.
const SIP: usize = 1_000;
const SIP_EVERY: Duration = Duration::from_millis(100);
/// What its kernel holds for it: the server is to see how slow it is.
const RECEIVE_BUFFER: usize = 4 * 1024;
/// How long the slow ones may take for the rest, once they read as fast as they can.
const LIMIT: Duration = Duration::from_secs(120);

/// The figures of the proof.
#[derive(Debug, Clone, Args)]
pub(crate) struct SlowProof {
    /// Fast readers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fast: u32,
    /// Slow readers
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slow: u32,
    /// Seconds of each part: without the slow readers, and with them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    seconds: u32,
    /// Publications a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Bytes of each publication's data
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(64..=32 << 10))]
    payload: u32,
    /// What becomes of the slow ones
    #[arg(long, value_enum, default_value_t = Policy::Park)]
    policy: Policy,
}

/// A namespace's `slow_consumer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// They get all of it, when they have room.
    Park,
    /// They get the newest, when they have room.
    Latest,
}

struct Reader {
    session: Session,
    /// The number that comes next.
    next: u64,
}

struct Play<'a> {
    proof: &'a SlowProof,
    epoll: Epoll,
    author: Author,
    fast: Vec<Reader>,
    slow: Vec<Reader>,
    buffer: Vec<u8>,
    /// Of the fast readers, in microseconds.
    delays: Vec<u64>,
}

/// What one round has shown.
struct Seen {
    /// Median, 99 % and the longest of the fast readers' delays, in microseconds.
    without: [u64; 3],
    with: [u64; 3],
    /// The server's CPU time for each delivery to a fast reader, while there were no slow ones, in nanoseconds.
    cpu: f64,
    /// How much larger the server's heap was at its peak.
    heap: i64,
    /// By how many publications the slow readers were behind at least.
    behind: u64,
}

impl SlowProof {
    /// Shows it, in some rounds with a fresh server each, and prints what was seen.
    ///
    /// # Errors
    /// A reader who is cut off, or gets something else than it must.
    pub(crate) fn show(&self, common: &Common) -> Result<()> {
        let rounds = common.rounds.unwrap_or(ROUNDS);
        let seen = (0..rounds)
            .map(|_| self.round(common))
            .collect::<Result<Vec<_>>>()?;
        println!(
            "{} readers at {} B/s beside {} fast ones, {} publications a second of {} B, {:?}; {rounds} rounds\n",
            self.slow,
            SIP * 10,
            self.fast,
            self.rate,
            self.payload,
            self.policy
        );
        println!(
            "| fast readers' delay, ms: median of the rounds (least - most) | without slow ones | with them |"
        );
        println!("|---|--:|--:|");
        for (index, name) in ["p50", "p99", "longest"].into_iter().enumerate() {
            let figure = |part: fn(&Seen) -> [u64; 3]| {
                let spread = Spread::of(seen.iter().map(|seen| part(seen)[index] as f64 / 1000.0));
                spread.map_or(String::new(), |Spread { median, min, max }| {
                    format!("{median:.1} ({min:.1} - {max:.1})")
                })
            };
            println!(
                "| {name} | {} | {} |",
                figure(|seen| seen.without),
                figure(|seen| seen.with)
            );
        }
        let cpu = Spread::of(seen.iter().map(|seen| seen.cpu));
        if let Some(Spread { median, min, max }) = cpu {
            println!(
                "\nCPU ns a delivery, without slow ones: {median:.0} ({min:.0} - {max:.0})."
            );
        }
        let heap = seen.iter().map(|seen| seen.heap).max().unwrap_or_default();
        let behind = seen
            .iter()
            .map(|seen| seen.behind)
            .min()
            .unwrap_or_default();
        println!(
            "\nThe server's heap was at most {:.1} MiB above where it began, {:.1} MiB of that history at most.",
            mebibytes(heap),
            mebibytes(
                i64::from(self.seconds) * i64::from(self.rate) * (i64::from(self.payload) + 256)
            ),
        );
        let end = match self.policy {
            Policy::Park => "then read all of it, in order, none lost, none twice",
            Policy::Latest => "then had the newest, and nothing older after something newer",
        };
        println!("Slow readers were {behind} publications behind or more, {end}.");
        Ok(())
    }

    fn round(&self, common: &Common) -> Result<Seen> {
        let stage = Stage::set(common)?;
        let mut play = Play::begin(&stage, self)?;
        let at_first = stage.server.cpu.at_rest()?;
        play.part(&stage)?;
        let cpu = stage.server.cpu.at_rest()?.saturating_sub(at_first);
        let deliveries = f64::from(self.seconds * self.rate) * f64::from(self.fast);
        let without = play.take_delays();
        play.let_slow_ones_in(&stage)?;
        let before = stage.memory()?;
        let peak = play.part(&stage)?;
        let with = play.take_delays();
        let behind: Vec<u64> = play
            .slow
            .iter()
            .map(|reader| play.top() - reader.next + 1)
            .collect();
        let least = behind.iter().min().copied().unwrap_or_default();
        if least == 0 {
            bail!("a slow reader was not behind at all: raise --rate, --payload or --seconds");
        }
        play.let_slow_ones_catch_up()?;
        Ok(Seen {
            without,
            with,
            cpu: cpu.as_nanos() as f64 / deliveries,
            heap: peak - before.heap,
            behind: least,
        })
    }
}

impl<'a> Play<'a> {
    fn begin(stage: &Stage, proof: &'a SlowProof) -> Result<Self> {
        let channel = match proof.policy {
            Policy::Park => "stream",
            Policy::Latest => "latest:stream",
        };
        let mut play = Self {
            proof,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            author: Author::new(stage, channel, proof.payload as usize)?,
            fast: Vec::new(),
            slow: Vec::new(),
            buffer: vec![0; 256 * 1024],
            delays: Vec::new(),
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, AUTHOR);
        play.epoll.add(&play.author.session.stream, event)?;
        for id in 0..u64::from(proof.fast) {
            let reader = play.reader(stage)?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, id);
            play.epoll.add(&reader.session.stream, event)?;
            play.fast.push(reader);
        }
        Ok(play)
    }

    fn reader(&self, stage: &Stage) -> Result<Reader> {
        let mut session = stage.open()?;
        let subscribe = Command::Subscribe {
            channel: self.author.channel,
        };
        session.begin(&mut Random::new(1), &[subscribe])?;
        let next = self.top() + 1;
        Ok(Reader { session, next })
    }

    /// The number of the newest publication.
    fn top(&self) -> u64 {
        self.author.sent.len() as u64
    }

    fn let_slow_ones_in(&mut self, stage: &Stage) -> Result<()> {
        for _ in 0..self.proof.slow {
            let reader = self.reader(stage)?;
            setsockopt(&reader.session.stream, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
            self.slow.push(reader);
        }
        Ok(())
    }

    /// Publishes by the clock until the part is over and all fast readers have all of it; the server's heap at its peak.
    fn part(&mut self, stage: &Stage) -> Result<i64> {
        let (start, first) = (Instant::now(), self.author.sent.len());
        let total = (self.proof.seconds * self.proof.rate) as usize;
        let end = Duration::from_secs(u64::from(self.proof.seconds) + 20);
        let (mut sipped, mut peak) = (start, 0);
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while self
            .fast
            .iter()
            .any(|reader| reader.next <= (first + total) as u64)
        {
            if start.elapsed() > end {
                bail!("the fast readers do not have all of it {:?} later", end);
            }
            let due = (start.elapsed().as_secs_f64() * f64::from(self.proof.rate)) as usize;
            let sent = self.author.sent.len() - first;
            if due.min(total) > sent {
                self.author.send(due.min(total) - sent)?;
            }
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(1u8))?;
            for event in &events[..ready] {
                if event.data() == AUTHOR {
                    self.author.session.receive(&mut self.buffer, |_| Ok(()))?;
                    continue;
                }
                let Reader { session, next } = &mut self.fast[usize::try_from(event.data())?];
                let (sent, delays) = (&self.author.sent, &mut self.delays);
                read_in_order(session, &mut self.buffer, next, |number| {
                    let delay = sent[number as usize - 1].elapsed();
                    delays.push(delay.as_micros() as u64);
                })?;
            }
            if sipped.elapsed() >= SIP_EVERY {
                sipped = Instant::now();
                self.sip()?;
                peak = peak.max(stage.memory()?.heap);
            }
        }
        Ok(peak)
    }

    /// Each slow reader takes its share, if there is something to take.
    fn sip(&mut self) -> Result<()> {
        let policy = self.proof.policy;
        for reader in &mut self.slow {
            reader.session.stream.set_nonblocking(true)?;
            let outcome = read(reader, policy, &mut self.buffer[..SIP]);
            reader.session.stream.set_nonblocking(false)?;
            outcome?;
        }
        Ok(())
    }

    /// Waits until each slow reader has the newest publication; they read all they get now.
    fn let_slow_ones_catch_up(&mut self) -> Result<()> {
        let (top, policy) = (self.top(), self.proof.policy);
        let end = Instant::now() + LIMIT;
        for reader in &self.slow {
            setsockopt(&reader.session.stream, sockopt::RcvBuf, &self.buffer.len())?;
            reader.session.stream.set_nonblocking(true)?;
        }
        while self.slow.iter().any(|reader| reader.next <= top) {
            if Instant::now() > end {
                bail!("the slow readers do not have all of it {LIMIT:?} later");
            }
            for (id, reader) in self.slow.iter_mut().enumerate() {
                read(reader, policy, &mut self.buffer)
                    .with_context(|| format!("slow reader {id}, at {}", reader.next))?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Median, 99 % and the longest of what was seen since the last call.
    fn take_delays(&mut self) -> [u64; 3] {
        let mut delays = std::mem::take(&mut self.delays);
        delays.sort_unstable();
        let at = |part: f64| {
            let index = (delays.len() as f64 * part) as usize;
            delays
                .get(index.min(delays.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        [at(0.5), at(0.99), at(1.0)]
    }
}

fn read(reader: &mut Reader, policy: Policy, buffer: &mut [u8]) -> Result<()> {
    let Reader { session, next } = reader;
    let outcome = match policy {
        Policy::Park => read_in_order(session, buffer, next, |_| ()),
        Policy::Latest => session.receive(buffer, |reply| {
            let Reply::Push(message) = reply else {
                bail!("a reader got {reply:?}");
            };
            for number in numbers(message) {
                if number < *next {
                    bail!("a reader got publication {number} after {}", *next - 1);
                }
                *next = number + 1;
            }
            Ok(())
        }),
    };
    match outcome {
        Err(error) if is_would_block(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_would_block(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
