//! Fan-out over the client protocol: one publishes, many are subscribed to the channel, and each of them must get each
//! publication, whole and in order.
//!
//! The publisher sends a burst of publications in one write and waits until every subscriber has every one of them and
//! all are acknowledged; then comes the next burst. The raw peer, which knows no protocol, is sent the very bytes that
//! its subscribers are to get, and the publisher's own copy stands for the acknowledgement.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{Work, metered};
use crate::client::Random;
use crate::client::frame::{Opcode, parse_server, put_client, put_server};
use crate::client::upgrade::{Dialect, PATIENCE, connect};
use crate::cpu::CpuClock;

const READ_BUFFER: usize = 256 * 1024;
const EVENTS: usize = 1024;
const PUBLISHER: u64 = u64::MAX;
/// Nothing that is measured here takes longer.
const PHASE_LIMIT: Duration = Duration::from_secs(300);

/// Where the fan-out takes place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fanout {
    pub(crate) dialect: Dialect,
    pub(crate) channel: &'static str,
}

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
}

impl FanoutLoad {
    /// One publisher, so many subscribers.
    pub(crate) fn new(subscribers: u32, payload: u32, in_flight: u32) -> Self {
        Self {
            subscribers,
            payload,
            in_flight,
            publications: None,
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
        format!(
            "fanout: {payload} B to {subscribers} subscribers, {in_flight} in flight; \
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
        fanout: Fanout,
        clock: &CpuClock,
    ) -> Result<Work> {
        let mut run = Run::open(address, fanout, self)?;
        // A raw connection stands before the server has accepted it.
        clock.at_rest()?;
        let burst = u64::from(self.in_flight);
        run.publish(
            (self.publications() / 10)
                .max(burst)
                .next_multiple_of(burst),
        )?;
        let publications = self.publications();
        metered(clock, publications * u64::from(self.subscribers), || {
            let start = Instant::now();
            run.publish(publications)?;
            Ok(start.elapsed())
        })
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
    publisher: TcpStream,
    /// What has come to the publisher and is not a whole frame yet.
    publisher_rest: Vec<u8>,
    subscribers: Vec<Subscriber>,
    fanout: Fanout,
    payload: usize,
    burst: usize,
    random: Random,
    buffer: Vec<u8>,
    /// Publications made so far.
    published: u64,
    /// The data of the burst that is under way.
    expected: Vec<String>,
}

struct Subscriber {
    stream: TcpStream,
    rest: Vec<u8>,
    /// Publications of the burst under way that have come.
    got: usize,
}

impl Run {
    fn open(address: SocketAddr, fanout: Fanout, load: &FanoutLoad) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut random = Random::new(u64::from(load.subscribers));
        let mut subscribers = Vec::new();
        for id in 0..u64::from(load.subscribers) {
            let mut stream = connect(address, fanout.dialect)?;
            let rest = if fanout.dialect == Dialect::Raw {
                Vec::new()
            } else {
                let subscribe = format!(
                    r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#,
                    fanout.channel
                );
                begin(
                    &mut stream,
                    &mut random,
                    &[r#"{"id":1,"connect":{}}"#, &subscribe],
                )
                .with_context(|| format!("subscriber {id} cannot subscribe"))?
            };
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
            subscribers.push(Subscriber {
                stream,
                rest,
                got: 0,
            });
        }
        let mut publisher = connect(address, fanout.dialect)?;
        let publisher_rest = match fanout.dialect {
            Dialect::Raw => Vec::new(),
            Dialect::WebSocket(_) => {
                begin(&mut publisher, &mut random, &[r#"{"id":1,"connect":{}}"#])
                    .context("the publisher cannot connect")?
            }
        };
        epoll.add(&publisher, EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER))?;
        Ok(Self {
            epoll,
            publisher,
            publisher_rest,
            subscribers,
            fanout,
            payload: load.payload as usize,
            burst: load.in_flight as usize,
            random,
            buffer: vec![0; READ_BUFFER],
            published: 0,
            expected: Vec::new(),
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
        self.expected.clear();
        let mut out = Vec::new();
        for _ in 0..self.burst {
            self.published += 1;
            let (number, channel) = (self.published, self.fanout.channel);
            let mut data = format!(r#"{{"number":{number},"text":""#);
            while data.len() < self.payload - 2 {
                data.push(char::from(b'a' + (self.random.next() % 26) as u8));
            }
            data.push_str("\"}");
            match self.fanout.dialect {
                Dialect::Raw => {
                    let push =
                        format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":{data}}}}}}}"#);
                    put_server(&mut out, Opcode::Text, push.as_bytes());
                }
                Dialect::WebSocket(_) => {
                    let id = number + 1;
                    let command = format!(
                        r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#
                    );
                    put_client(
                        &mut out,
                        Opcode::Text,
                        command.as_bytes(),
                        self.random.key(),
                    );
                }
            }
            self.expected.push(data);
        }
        self.publisher.write_all(&out)?;
        Ok(())
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
        let Subscriber { stream, rest, got } = &mut self.subscribers[id];
        let before = *got;
        let mut pings = 0;
        let expected = &self.expected;
        receive(stream, &mut self.buffer, rest, |line| {
            match expected.get(*got) {
                Some(data) if memmem::find(line, data.as_bytes()).is_some() => *got += 1,
                _ if line == b"{}" => pings += 1,
                _ if is_about_others(line) => {}
                Some(data) => bail!(
                    "subscriber {id} got {}, not {data}",
                    String::from_utf8_lossy(line)
                ),
                None => bail!(
                    "subscriber {id} got one too many: {}",
                    String::from_utf8_lossy(line)
                ),
            }
            Ok(())
        })?;
        for _ in 0..pings {
            pong(stream, &mut self.random)?;
        }
        Ok(*got - before)
    }

    /// One read from the publisher; how many of its publications were acknowledged.
    fn collect_acknowledgements(&mut self, acknowledged: &mut usize) -> Result<usize> {
        let (before, mut pings) = (*acknowledged, 0);
        let (expected, raw) = (&self.expected, self.fanout.dialect == Dialect::Raw);
        receive(
            &mut self.publisher,
            &mut self.buffer,
            &mut self.publisher_rest,
            |line| {
                let acknowledges = if raw {
                    let data = expected
                        .get(*acknowledged)
                        .map_or(&b""[..], |data| data.as_bytes());
                    memmem::find(line, data).is_some()
                } else {
                    memmem::find(line, br#""publish":"#).is_some()
                };
                if acknowledges {
                    *acknowledged += 1;
                } else if line == b"{}" {
                    pings += 1;
                } else {
                    bail!("the publisher got {}", String::from_utf8_lossy(line));
                }
                Ok(())
            },
        )?;
        for _ in 0..pings {
            pong(&mut self.publisher, &mut self.random)?;
        }
        Ok(*acknowledged - before)
    }
}

/// Sends the commands, numbered from 1, and waits until each is answered. Returns what came behind the answers.
fn begin(stream: &mut TcpStream, random: &mut Random, commands: &[&str]) -> Result<Vec<u8>> {
    let (mut rest, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    for (index, command) in commands.iter().enumerate() {
        let mut out = Vec::new();
        put_client(&mut out, Opcode::Text, command.as_bytes(), random.key());
        stream.write_all(&out)?;
        let mut unanswered: VecDeque<String> = [format!(r#""id":{}"#, index + 1)].into();
        while let Some(id) = unanswered.front().cloned() {
            receive(stream, &mut buffer, &mut rest, |line| {
                if memmem::find(line, id.as_bytes()).is_some() {
                    if memmem::find(line, br#""error":"#).is_some() {
                        bail!("{command} was refused: {}", String::from_utf8_lossy(line));
                    }
                    unanswered.clear();
                }
                Ok(())
            })?;
        }
    }
    Ok(rest)
}

/// One read, and each line of each text frame that it completed; what is not whole yet stays in `rest`.
fn receive(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    rest: &mut Vec<u8>,
    mut line: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let n = stream.read(buffer).context("nothing more came")?;
    if n == 0 {
        bail!("the server closed the connection");
    }
    let mut bytes: &[u8] = &buffer[..n];
    let joined;
    if !rest.is_empty() {
        rest.extend_from_slice(bytes);
        joined = std::mem::take(rest);
        bytes = &joined;
    }
    while let Some(header) = parse_server(bytes)?.filter(|header| header.end <= bytes.len()) {
        let payload = &bytes[header.start..header.end];
        match header.opcode {
            Opcode::Text => payload
                .split(|byte| *byte == b'\n')
                .try_for_each(&mut line)?,
            Opcode::Close => bail!("the server closed: {}", String::from_utf8_lossy(payload)),
            other => {
                bail!("the server sent a {other:?} frame, which JSON connections have no use for")
            }
        }
        bytes = &bytes[header.end..];
    }
    rest.extend_from_slice(bytes);
    Ok(())
}

/// Joins and leaves of the other subscribers.
fn is_about_others(line: &[u8]) -> bool {
    [&br#""join":"#[..], br#""leave":"#]
        .iter()
        .any(|kind| memmem::find(line, kind).is_some())
}

fn pong(stream: &mut TcpStream, random: &mut Random) -> Result<()> {
    let mut out = Vec::new();
    put_client(&mut out, Opcode::Text, b"{}", random.key());
    Ok(stream.write_all(&out)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
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
        let fanout = Fanout {
            dialect: Dialect::Raw,
            channel: "bench",
        };
        let load = FanoutLoad::new(3, 64, 2);
        let outcome = Run::open(address, fanout, &load).and_then(|mut run| run.publish(20));
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
