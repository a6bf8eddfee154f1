//! Many channels with few subscribers each: one publishes into channels at random, and each subscriber must get what
//! goes into its channels, whole, once, in the order of the channel.
//!
//! Each client is subscribed to many channels, so that the clients of a process fit into its descriptors. A burst of
//! publications is sent in one write; the next one follows when every subscriber has its part of it and all are
//! acknowledged.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, metered};
use crate::client::Random;
use crate::client::frame::put_client;
use crate::client::session::{Command, Encoding, Reply, Session};
use crate::client::upgrade::{Dialect, PATIENCE};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 256;
const PUBLISHER: u64 = u64::MAX;
/// Nothing that is measured here takes longer.
const PHASE_LIMIT: Duration = Duration::from_secs(300);

/// The figures of a load of many channels.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManyLoad {
    /// Channels
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    channels: u32,
    /// Subscribers of each channel
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    subscribers: u32,
    /// Clients, over which the subscriptions are spread evenly; at most 128 for each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    clients: u32,
    /// Bytes of each publication's data
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=32 << 10))]
    payload: u32,
    /// Publications in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// Publications that are measured, after a tenth as many for warming up
    #[arg(long, default_value_t = 40_000)]
    publications: u64,
}

impl ManyLoad {
    /// The load of the published table.
    pub(crate) fn new() -> Self {
        Self {
            channels: 10_000,
            subscribers: 5,
            clients: 1_000,
            payload: 128,
            in_flight: 16,
            publications: 40_000,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            channels,
            subscribers,
            clients,
            payload,
            in_flight,
            ..
        } = self;
        format!(
            "many: {payload} B into {channels} channels at random with {subscribers} subscribers each, {clients} clients, \
             {in_flight} in flight; {} publications a turn; a message is one delivery",
            self.publications()
        )
    }

    /// One turn against the server at `address`.
    ///
    /// # Errors
    /// A publication that a subscriber gets not at all, twice, changed or out of order; a refused command.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        dialect: Dialect,
        clock: &CpuClock,
    ) -> Result<Work> {
        let mut run = Run::open(address, dialect, self)?;
        let burst = u64::from(self.in_flight);
        run.publish((self.publications() / 10).next_multiple_of(burst))?;
        let deliveries = self.publications() * u64::from(self.subscribers);
        metered(clock, deliveries, || {
            let start = Instant::now();
            run.publish(self.publications())?;
            Ok(start.elapsed())
        })
    }

    fn publications(&self) -> u64 {
        self.publications
            .max(1)
            .next_multiple_of(u64::from(self.in_flight))
    }

    /// The clients that are subscribed to channel `channel`: neighbours, so that they are different ones.
    fn subscribers_of(&self, channel: u32) -> impl Iterator<Item = usize> + use<> {
        let (channel, each, clients) = (
            u64::from(channel),
            u64::from(self.subscribers),
            u64::from(self.clients),
        );
        (0..each).map(move |n| ((channel * each + n) % clients) as usize)
    }
}

struct Run<'a> {
    load: &'a ManyLoad,
    epoll: Epoll,
    publisher: Session,
    clients: Vec<Client>,
    random: Random,
    buffer: Vec<u8>,
    published: u64,
    /// The burst that is under way: channel and data of each publication.
    expected: Vec<(String, String)>,
}

struct Client {
    session: Session,
    /// Which publications of the burst have to come, in the order of their sending.
    due: Vec<usize>,
}

impl<'a> Run<'a> {
    fn open(address: SocketAddr, dialect: Dialect, load: &'a ManyLoad) -> Result<Self> {
        if load.subscribers > load.clients {
            bail!("there are fewer clients than subscribers of a channel");
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut random = Random::new(u64::from(load.channels));
        let mut channels = vec![Vec::new(); load.clients as usize];
        for channel in 0..load.channels {
            for client in load.subscribers_of(channel) {
                channels[client].push(name(channel));
            }
        }
        let mut clients = Vec::new();
        for (id, channels) in (0..).zip(&channels) {
            let mut session = Session::open(address, dialect, Encoding::Json)?;
            let subscribe = |channel| Command::Subscribe { channel };
            let commands: Vec<_> = channels.iter().map(|name| subscribe(name)).collect();
            session
                .begin(&mut random, &commands)
                .with_context(|| format!("client {id} cannot subscribe"))?;
            epoll.add(&session.stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            clients.push(Client {
                session,
                due: Vec::new(),
            });
        }
        let mut publisher = Session::open(address, dialect, Encoding::Json)?;
        publisher
            .begin(&mut random, &[])
            .context("the publisher cannot connect")?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER);
        epoll.add(&publisher.stream, event)?;
        Ok(Self {
            load,
            epoll,
            publisher,
            clients,
            random,
            buffer: vec![0; READ_BUFFER],
            published: 0,
            expected: Vec::new(),
        })
    }

    /// Publishes `publications`, burst by burst.
    fn publish(&mut self, publications: u64) -> Result<()> {
        let deadline = Instant::now() + PHASE_LIMIT;
        for _ in 0..publications / u64::from(self.load.in_flight) {
            let missing = self.send_burst()?;
            self.collect_burst(missing, deadline)?;
        }
        Ok(())
    }

    /// Sends a burst; how many deliveries and acknowledgements must come of it.
    fn send_burst(&mut self) -> Result<usize> {
        self.expected.clear();
        let mut out = Vec::new();
        let mut missing = 0;
        for index in 0..self.load.in_flight as usize {
            self.published += 1;
            let channel = (self.random.next() % u64::from(self.load.channels)) as u32;
            let data = self
                .random
                .object(self.published, self.load.payload as usize);
            let mut command = Vec::new();
            let publish = Command::Publish {
                channel: &name(channel),
                data: &data,
            };
            Encoding::Json.put(&mut command, self.published + 1, publish);
            let opcode = Encoding::Json.opcode();
            put_client(&mut out, opcode, &command, self.random.key());
            for client in self.load.subscribers_of(channel) {
                self.clients[client].due.push(index);
                missing += 1;
            }
            self.expected
                .push((format!(r#""channel":"{}""#, name(channel)), data));
        }
        self.publisher.stream.write_all(&out)?;
        Ok(missing + self.expected.len())
    }

    fn collect_burst(&mut self, mut missing: usize, deadline: Instant) -> Result<()> {
        let patience = EpollTimeout::try_from(PATIENCE)?;
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while missing > 0 {
            let ready = self.epoll.wait(&mut events, patience)?;
            if ready == 0 || Instant::now() > deadline {
                let published = self.published;
                bail!(
                    "{missing} deliveries of the burst up to publication {published} are missing"
                );
            }
            for event in &events[..ready] {
                let got = if event.data() == PUBLISHER {
                    self.collect_acknowledgements()?
                } else {
                    self.collect_deliveries(usize::try_from(event.data())?)?
                };
                let Some(rest) = missing.checked_sub(got) else {
                    bail!("the publisher was told more than it asked");
                };
                missing = rest;
            }
        }
        Ok(())
    }

    /// One read from a client; how many of its publications it completed.
    fn collect_deliveries(&mut self, id: usize) -> Result<usize> {
        let Client { session, due } = &mut self.clients[id];
        let (before, expected) = (due.len(), &self.expected);
        session.receive(&mut self.buffer, |reply| {
            let Reply::Push(push) = reply else {
                bail!("client {id} got {reply:?}");
            };
            if !take(due, expected, push) {
                bail!(
                    "client {id} got {}, which is not what comes next in any of its channels",
                    String::from_utf8_lossy(push)
                );
            }
            Ok(())
        })?;
        Ok(before - due.len())
    }

    /// One read from the publisher; how many of its publications were acknowledged.
    fn collect_acknowledgements(&mut self) -> Result<usize> {
        let mut acknowledged = 0;
        self.publisher.receive(&mut self.buffer, |reply| {
            let Reply::Answer { refused: false, .. } = reply else {
                bail!("the publisher got {reply:?}");
            };
            acknowledged += 1;
            Ok(())
        })?;
        Ok(acknowledged)
    }
}

/// Takes what `push` brings off the list of what is due, if it is the oldest of its channel there.
fn take(due: &mut Vec<usize>, expected: &[(String, String)], push: &[u8]) -> bool {
    let has = |text: &str| memmem::find(push, text.as_bytes()).is_some();
    let oldest = due.iter().position(|&index| has(&expected[index].0));
    match oldest {
        Some(at) if has(&expected[due[at]].1) => {
            due.remove(at);
            true
        }
        _ => false,
    }
}

fn name(channel: u32) -> String {
    format!("room-{channel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_twice_changed_or_out_of_order_is_found() {
        let publication =
            |channel: &str, data: &str| (format!(r#""channel":"{channel}""#), data.to_owned());
        let expected = [
            publication("room-1", r#"{"number":1}"#),
            publication("room-2", r#"{"number":2}"#),
            publication("room-1", r#"{"number":3}"#),
        ];
        let push = |index: usize| {
            let (channel, data) = &expected[index];
            format!(r#"{{"push":{{{channel},"pub":{{"data":{data}}}}}}}"#).into_bytes()
        };
        let mut due = vec![0, 1, 2];
        assert!(!take(&mut due, &expected, &push(2)), "before its turn");
        assert!(take(&mut due, &expected, &push(1)), "of another channel");
        assert!(take(&mut due, &expected, &push(0)));
        assert!(!take(&mut due, &expected, &push(0)), "twice");
        let mut changed = push(2);
        let at = changed.len() - 5;
        changed[at] ^= 1;
        assert!(!take(&mut due, &expected, &changed), "changed");
        assert!(take(&mut due, &expected, &push(2)));
        assert_eq!(due, [] as [usize; 0]);
    }

    #[test]
    fn the_subscribers_of_a_channel_are_different_clients() {
        let load = ManyLoad::new();
        for channel in [0, 7, 199, 9_999] {
            let mut clients: Vec<_> = load.subscribers_of(channel).collect();
            clients.sort_unstable();
            clients.dedup();
            assert_eq!(clients.len(), 5);
        }
    }
}
