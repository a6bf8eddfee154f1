//! Fan-out over the client protocol: one publishes, many are subscribed to the channel, and each of them must get each
//! publication, whole and in order.
//!
//! The publisher sends a burst of publications in one write and waits until every subscriber has every one of them and
//! all are acknowledged; then comes the next burst. The raw peer, which knows no protocol, is sent the very bytes that
//! its subscribers are to get, and the publisher's own copy stands for the acknowledgement.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, metered};
use crate::client::Random;
use crate::client::frame::{Opcode, put_client, put_server};
use crate::client::patch;
use crate::client::session::{Command, Encoding, Feature, Reply, Session};
use crate::client::upgrade::{Dialect, PATIENCE};
use crate::cpu::CpuClock;
use crate::peers::Service;

const READ_BUFFER: usize = 256 * 1024;
const EVENTS: usize = 1024;
const PUBLISHER: u64 = u64::MAX;
/// Nothing that is measured here takes longer.
const PHASE_LIMIT: Duration = Duration::from_secs(300);
/// How many filters the subscribers have between them.
const FILTERS: u32 = 10;

/// The figures of a fan-out load.
#[derive(Debug, Clone, Args)]
pub(crate) struct FanoutLoad {
    /// Subscribers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    subscribers: u32,
    /// Bytes of each publication's data
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=32 << 10))]
    payload: u32,
    /// Publications in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// Publications that are measured, after a tenth as many for warming up [default: about a second's worth]
    #[arg(long)]
    publications: Option<u64>,
    /// How commands and replies are written
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    encoding: Encoding,
    /// What the subscribers ask for besides, in JSON
    #[arg(long, value_enum)]
    with: Option<Extra>,
}

/// What subscribers may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Extra {
    /// Publications as patches. Of what is published half changes each time.
    Delta,
    /// Ten different filters by tags, all of which let everything through.
    Filters,
}

impl FanoutLoad {
    /// One publisher, so many subscribers.
    pub(crate) fn new(subscribers: u32, payload: u32, in_flight: u32) -> Self {
        Self {
            subscribers,
            payload,
            in_flight,
            publications: None,
            encoding: Encoding::Json,
            with: None,
        }
    }

    /// The same in another encoding.
    pub(crate) fn encoded(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// The same with subscribers that ask for more.
    pub(crate) fn with(self, extra: Extra) -> Self {
        let with = Some(extra);
        Self { with, ..self }
    }

    fn channel(&self) -> &'static str {
        match self.with {
            None => "bench",
            Some(Extra::Delta) => "delta:bench",
            Some(Extra::Filters) => "filtered:bench",
        }
    }

    /// What the server must be able to do.
    pub(crate) fn service(&self) -> Service {
        match (self.encoding, self.with) {
            (_, Some(_)) => Service::ChannelsExtra,
            (Encoding::Json, None) => Service::Channels,
            (Encoding::Protobuf, None) => Service::ChannelsProtobuf,
        }
    }

    /// What is done, in one line.
    pub(crate) fn title(&self) -> String {
        let Self {
            subscribers,
            payload,
            in_flight,
            ..
        } = self;
        let publications = self.publications();
        let way = match (self.encoding, self.with) {
            (_, Some(Extra::Delta)) => " as patches",
            (_, Some(Extra::Filters)) => " through ten filters",
            (Encoding::Json, None) => "",
            (Encoding::Protobuf, None) => " in Protobuf",
        };
        format!(
            "fanout: {payload} B{way} to {subscribers} subscribers, {in_flight} in flight; \
             {publications} publications a turn; a message is one delivery"
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
        if self.with.is_some() && self.encoding != Encoding::Json {
            bail!("--with goes with JSON");
        }
        let mut run = Run::open(address, dialect, self)?;
        let burst = u64::from(self.in_flight);
        run.publish(
            (self.publications() / 10)
                .max(burst)
                .next_multiple_of(burst),
        )?;
        let publications = self.publications();
        let work = metered(clock, publications * u64::from(self.subscribers), || {
            let start = Instant::now();
            run.publish(publications)?;
            Ok(start.elapsed())
        })?;
        if self.with == Some(Extra::Delta) && !run.has_patches {
            bail!("the server made no patches");
        }
        Ok(work)
    }

    fn publications(&self) -> u64 {
        let enough = (500_000 / u64::from(self.subscribers)).max(10);
        self.publications
            .unwrap_or(enough)
            .next_multiple_of(u64::from(self.in_flight))
    }
}

struct Run {
    epoll: Epoll,
    publisher: Session,
    subscribers: Vec<Subscriber>,
    is_raw: bool,
    payload: usize,
    burst: usize,
    random: Random,
    buffer: Vec<u8>,
    channel: &'static str,
    is_patched: bool,
    /// Publications made so far.
    published: u64,
    /// The data of the burst that is under way.
    expected: Vec<Expected>,
    /// A patch has come.
    has_patches: bool,
}

struct Expected {
    data: String,
    /// What was published before it.
    base: String,
    /// A push which was found to bring it: most subscribers get the same bytes.
    push: Vec<u8>,
}

struct Subscriber {
    session: Session,
    /// Publications of the burst under way that have come.
    got: usize,
}

impl Run {
    fn open(address: SocketAddr, dialect: Dialect, load: &FanoutLoad) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut random = Random::new(u64::from(load.subscribers));
        let is_raw = dialect == Dialect::Raw;
        let channel = load.channel();
        let mut subscribers = Vec::new();
        for id in 0..u64::from(load.subscribers) {
            let subscribe = match load.with {
                None => Command::Subscribe { channel },
                Some(extra) => {
                    let feature = match extra {
                        Extra::Delta => Feature::Delta,
                        Extra::Filters => Feature::Filter(id as u32 % FILTERS),
                    };
                    Command::SubscribeWith { channel, feature }
                }
            };
            let mut session = Session::open(address, dialect, load.encoding)?;
            if !is_raw {
                session
                    .begin(&mut random, &[subscribe])
                    .with_context(|| format!("subscriber {id} cannot subscribe"))?;
            }
            epoll.add(&session.stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            subscribers.push(Subscriber { session, got: 0 });
        }
        let mut publisher = Session::open(address, dialect, load.encoding)?;
        if !is_raw {
            publisher
                .begin(&mut random, &[])
                .context("the publisher cannot connect")?;
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER);
        epoll.add(&publisher.stream, event)?;
        Ok(Self {
            epoll,
            publisher,
            subscribers,
            is_raw,
            payload: load.payload as usize,
            burst: load.in_flight as usize,
            random,
            buffer: vec![0; READ_BUFFER],
            channel,
            is_patched: load.with == Some(Extra::Delta),
            published: 0,
            expected: Vec::new(),
            has_patches: false,
        })
    }

    /// Publishes `publications`, burst by burst.
    fn publish(&mut self, publications: u64) -> Result<()> {
        let deadline = Instant::now() + PHASE_LIMIT;
        for _ in 0..publications / self.burst as u64 {
            self.send_burst()?;
            self.collect_burst(deadline)?;
        }
        Ok(())
    }

    fn send_burst(&mut self) -> Result<()> {
        let last = self.expected.pop().map(|last| last.data);
        let mut base = last.unwrap_or_default();
        self.expected.clear();
        let (mut out, channel) = (Vec::new(), self.channel);
        let encoding = self.publisher.encoding;
        for _ in 0..self.burst {
            self.published += 1;
            let data = self.data();
            if self.is_raw {
                let push =
                    format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":{data}}}}}}}"#);
                put_server(&mut out, Opcode::Text, push.as_bytes());
            } else {
                let mut command = Vec::new();
                let publish = Command::Publish {
                    channel,
                    data: &data,
                };
                encoding.put(&mut command, self.published + 1, publish);
                put_client(&mut out, encoding.opcode(), &command, self.random.key());
            }
            self.expected.push(Expected {
                data: data.clone(),
                base: std::mem::replace(&mut base, data),
                push: Vec::new(),
            });
        }
        self.publisher.stream.write_all(&out)?;
        Ok(())
    }

    /// What is published next.
    fn data(&mut self) -> String {
        if !self.is_patched {
            return self.random.object(self.published, self.payload);
        }
        // The first half changes, the second never does.
        let half = self.payload / 2;
        let mut data = self.random.object(self.published, half);
        data.truncate(data.len() - 2);
        data.push_str(
            &Random::new(0).object(0, self.payload - half)[r#"{"number":0,"text":""#.len()..],
        );
        data
    }

    fn collect_burst(&mut self, deadline: Instant) -> Result<()> {
        let mut missing = self.burst * (self.subscribers.len() + 1);
        let mut acknowledged = 0;
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
                missing -= if event.data() == PUBLISHER {
                    self.collect_acknowledgements(&mut acknowledged)?
                } else {
                    self.collect_deliveries(usize::try_from(event.data())?)?
                };
            }
        }
        for subscriber in &mut self.subscribers {
            subscriber.got = 0;
        }
        Ok(())
    }

    /// One read from a subscriber; how many publications it completed.
    fn collect_deliveries(&mut self, id: usize) -> Result<usize> {
        let Subscriber { session, got } = &mut self.subscribers[id];
        let before = *got;
        let (is_patched, has_patches) = (self.is_patched, &mut self.has_patches);
        let expected = &mut self.expected;
        session.receive(&mut self.buffer, |reply| {
            let Reply::Push(push) = reply else {
                bail!("subscriber {id} got {reply:?}");
            };
            match expected.get_mut(*got) {
                Some(one) if is_patched => {
                    *has_patches |= one.check(push).with_context(|| {
                        format!("subscriber {id} got {}", String::from_utf8_lossy(push))
                    })?;
                    *got += 1;
                }
                Some(one) if memmem::find(push, one.data.as_bytes()).is_some() => *got += 1,
                Some(one) => bail!(
                    "subscriber {id} got {}, not {}",
                    String::from_utf8_lossy(push),
                    one.data
                ),
                None => bail!(
                    "subscriber {id} got one too many: {}",
                    String::from_utf8_lossy(push)
                ),
            }
            Ok(())
        })?;
        Ok(*got - before)
    }

    /// One read from the publisher; how many of its publications were acknowledged.
    fn collect_acknowledgements(&mut self, acknowledged: &mut usize) -> Result<usize> {
        let before = *acknowledged;
        let (expected, is_raw) = (&self.expected, self.is_raw);
        self.publisher
            .receive(&mut self.buffer, |reply| match (reply, is_raw) {
                (Reply::Push(push), true) => {
                    let expected = expected.get(*acknowledged);
                    let data = expected.map_or("", |expected| &expected.data);
                    if memmem::find(push, data.as_bytes()).is_none() {
                        bail!("the publisher got {}", String::from_utf8_lossy(push));
                    }
                    *acknowledged += 1;
                    Ok(())
                }
                (Reply::Answer { refused: false, .. }, false) => {
                    *acknowledged += 1;
                    Ok(())
                }
                _ => bail!("the publisher got {reply:?}"),
            })?;
        Ok(*acknowledged - before)
    }
}

impl Expected {
    /// Whether a push that brings it does so as a patch.
    ///
    /// # Errors
    /// A push that brings something else.
    fn check(&mut self, push: &[u8]) -> Result<bool> {
        if self.push == push {
            return Ok(false);
        }
        let publication: serde_json::Value = serde_json::from_slice(push)?;
        let publication = &publication["push"]["pub"];
        let data = publication["data"].as_str().context("there is no data")?;
        let is_patch = publication["delta"] == true;
        let whole = if is_patch {
            patch::apply(self.base.as_bytes(), data.as_bytes())?
        } else {
            data.as_bytes().to_vec()
        };
        if whole != self.data.as_bytes() {
            bail!("that is not {}", self.data);
        }
        self.push = push.to_vec();
        Ok(is_patch)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// Two publications at a time to three subscribers of a raw server, which hands what it is about to write, and to
    /// whom, to `cheat` first.
    fn run_against(cheat: impl Fn(usize, &mut Vec<u8>) + Send + 'static) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut all: Vec<TcpStream> = (0..4).map(|_| listener.accept().unwrap().0).collect();
            let mut buffer = vec![0; 4096];
            while let Ok(n @ 1..) = all[3].read(&mut buffer) {
                for (id, stream) in all.iter_mut().enumerate() {
                    let mut bytes = buffer[..n].to_vec();
                    cheat(id, &mut bytes);
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
            }
        });
        let load = FanoutLoad::new(3, 64, 2);
        let outcome = Run::open(address, Dialect::Raw, &load).and_then(|mut run| run.publish(20));
        server.join().unwrap();
        outcome
    }

    /// The length of the first frame: what was published has fewer than 126 bytes.
    fn first(bytes: &[u8]) -> usize {
        2 + usize::from(bytes[1])
    }

    #[test]
    fn an_honest_server_passes() {
        run_against(|_, _| ()).unwrap();
    }

    #[test]
    fn a_lost_delivery_is_found() {
        let error = run_against(|id, bytes| {
            if id == 1 {
                bytes.drain(..first(bytes));
            }
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("subscriber 1 got")
        );
    }

    #[test]
    fn a_second_delivery_is_found() {
        let error = run_against(|id, bytes| {
            if id == 2 {
                bytes.extend_from_within(..first(bytes));
            }
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("subscriber 2 got")
        );
    }

    #[test]
    fn a_changed_delivery_is_found() {
        let error = run_against(|id, bytes| {
            if id == 0 {
                let inside = first(bytes) - 10;
                bytes[inside] ^= 1;
            }
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("subscriber 0 got")
        );
    }

    #[test]
    fn a_swapped_pair_is_found() {
        let error = run_against(|id, bytes| {
            if id == 1 {
                let one = first(bytes);
                bytes.rotate_left(one);
            }
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("subscriber 1 got")
        );
    }
}
