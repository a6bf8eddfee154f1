//! What a client costs by each way: memory while it is idle, and how long a publication takes to it, with little to do
//! and under load.
//!
//! ```text
//! cargo run --release -p tautline --example door_cost [CLIENTS [FIRST [LAST]]]
//! ```
//!
//! Prints the rows of the table in `docs/transports.md`, those from `FIRST` to `LAST` if these are given. Starts itself once
//! more as the server, one worker; each way meets a new one. Memory is the growth of its resident set (Linux) by so many
//! subscribed clients (1,000 if nothing is said), divided by their number.
//!
//! Latency is from when a publication is due at the HTTP API to when a client has read it, everything on one machine. First 20
//! clients hear 50 publications a second. Then 100 clients hear [`LOAD`], five times for a second: the medians of these rounds' p50 and
//! p99 are told. That load is near to what one worker can do by the way that costs most; how many publications a second
//! a way takes at the most is found out by a flood of them, three times, of which the median is told.

#![allow(
    clippy::print_stdout,
    reason = "it is a program that tells its figures"
)]

mod client;
mod heard;
mod http2;
mod publisher;
mod server;
mod ways;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::Instant;

use tokio::task::{JoinSet, LocalSet};

use self::client::Client;
use self::heard::Heard;
use self::server::{Server, is_server};
use self::ways::{Door, Way};

/// Who hears how much when there is little to do: clients, publications, and those a second.
const LIGHT: (usize, usize, f64) = (20, 200, 50.0);

/// Clients under load, and the publications for each a second: 100,000 messages a second in all.
const LOADED: usize = 100;
const LOAD: f64 = 1_000.0;
const ROUNDS: usize = 5;

/// Publications by which it is found out what can be done, and how often.
const FLOOD: usize = 3_000;
const FLOODS: usize = 3;

const CONFIG: &str = r#"
[node]
workers = 1
[http_server]
address = "127.0.0.1"
port = 0
[client]
allow_anonymous_connect_without_token = true
connection_rate_limit = "off"
[http_api]
key = "dev"
[channel.without_namespace]
history_size = 100000
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#;

/// What an SDK says first.
const COMMANDS: &str = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}";

/// What a client says that listens only.
const UNI: &str = r#"{"subs":{"c":{}}}"#;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    if is_server() {
        return tautline::cli::main();
    }
    let numbers: std::result::Result<Vec<usize>, _> =
        std::env::args().skip(1).map(|text| text.parse()).collect();
    let Ok(numbers) = numbers else {
        eprintln!("expected numbers: of clients, of the first row and of the last");
        return ExitCode::from(2);
    };
    let at = |place: usize, other| numbers.get(place).copied().unwrap_or(other);
    let (clients, first, last) = (at(0, 1000), at(1, 1), at(2, Way::ALL.len()));
    println!(
        "| way | memory per idle client | p50 | p99 | under load, p50 | p99 | publications a second at the most |\n\
         |---|--:|--:|--:|--:|--:|--:|"
    );
    for (number, way) in Way::ALL.into_iter().enumerate() {
        if !(first..=last).contains(&(number + 1)) {
            continue;
        }
        match run(measure(way, clients)) {
            Ok(row) => println!("{row}"),
            Err(error) => {
                eprintln!("{}: {error}", way.name());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("an event loop");
    LocalSet::new().block_on(&runtime, work)
}

/// A server, and the one to publish at: the same, or the one behind its tunnel.
struct Servers {
    front: Server,
    behind: Option<Server>,
}

impl Servers {
    fn start(way: Way) -> Result<Self> {
        if !matches!(way.door, Door::Tunnel | Door::PolledTunnel) {
            let (front, behind) = (Server::start(CONFIG)?, None);
            return Ok(Self { front, behind });
        }
        let behind = Server::start(CONFIG)?;
        let address = behind.address;
        let tunnel =
            format!("[[tunnels]]\nname = \"to\"\nupstream = \"ws://{address}/ws?channel=c\"\n");
        Ok(Self {
            front: Server::start(&format!("{CONFIG}{tunnel}"))?,
            behind: Some(behind),
        })
    }

    fn publishes_at(&self) -> SocketAddr {
        self.behind.as_ref().unwrap_or(&self.front).address
    }
}

/// One who is subscribed, and waits.
enum Listener {
    Http1(Client),
    Http2(http2::Client),
}

async fn crowd(way: Way, address: SocketAddr, count: usize) -> Result<Vec<Listener>> {
    let mut all = Vec::with_capacity(count);
    let mut connection = None;
    for number in 0..count {
        let Some(to_each) = way.http2 else {
            let mut client = Client::open(way.door, address).await?;
            client.ask().await?;
            all.push(Listener::Http1(client));
            continue;
        };
        if number % to_each == 0 {
            connection = None;
        }
        let connection = match &mut connection {
            Some(connection) => connection,
            none => none.insert(http2::Connection::open(way.door, address).await?),
        };
        all.push(Listener::Http2(connection.client(way.door).await?));
    }
    Ok(all)
}

async fn measure(way: Way, clients: usize) -> Result<String> {
    let servers = Servers::start(way)?;
    let front = &servers.front;
    // What the first clients make the allocator take.
    let first = crowd(way, front.address, 50).await?;
    let before = front.resident()?;
    let others = crowd(way, front.address, clients).await?;
    let memory = front.resident()?.saturating_sub(before) as f64 / clients as f64 / 1024.0;
    drop((first, others, servers));

    let (listeners, count, rate) = LIGHT;
    let mut audience = Audience::gather(way, listeners).await?;
    let light = audience.hear(count, Pace::Steady(rate)).await?;
    drop(audience);

    let mut audience = Audience::gather(way, LOADED).await?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(audience.hear(LOAD as usize, Pace::Steady(LOAD)).await?);
    }
    let mut most = Vec::new();
    for _ in 0..FLOODS {
        let begin = Instant::now();
        audience.hear(FLOOD, Pace::Flood).await?;
        most.push(FLOOD as f64 / begin.elapsed().as_secs_f64());
    }
    let at = |part: usize| median(rounds.iter().map(|round| round[part]).collect());
    Ok(format!(
        "| {} | {memory:.1} KiB | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {} |",
        way.name(),
        light[0],
        light[1],
        at(0),
        at(1),
        thousands(median(most))
    ))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// To the hundred.
fn thousands(rate: f64) -> String {
    let rounded = (rate / 100.0).round() as usize * 100;
    match (rounded / 1000, rounded % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

enum Pace {
    Steady(f64),
    Flood,
}

/// Clients who hear what is published.
struct Audience {
    servers: Servers,
    heard: Rc<Heard>,
    listening: JoinSet<Result<()>>,
    count: usize,
    start: Instant,
}

impl Audience {
    async fn gather(way: Way, count: usize) -> Result<Self> {
        let servers = Servers::start(way)?;
        let start = Instant::now();
        let heard = Rc::new(Heard::new(start));
        let mut listening = JoinSet::new();
        for listener in crowd(way, servers.front.address, count).await? {
            let heard = Rc::clone(&heard);
            listening.spawn_local(async move {
                match listener {
                    Listener::Http1(client) => client.listen(&heard).await,
                    Listener::Http2(client) => client.listen(&heard).await,
                }
            });
        }
        Ok(Self {
            servers,
            heard,
            listening,
            count,
            start,
        })
    }

    /// Has so many publications heard by all: the median and the 99th percentile of how long they took, in milliseconds.
    async fn hear(&mut self, publications: usize, pace: Pace) -> Result<[f64; 2]> {
        let (address, start) = (self.servers.publishes_at(), self.start);
        let publishing = thread::spawn(move || match pace {
            Pace::Steady(rate) => publisher::steady(address, start, rate, publications),
            Pace::Flood => publisher::flood(address, start, publications),
        });
        let mut times = tokio::select! {
            times = self.heard.all(publications * self.count) => times,
            Some(ended) = self.listening.join_next() => {
                ended??;
                return Err("a client hears nothing any more".into());
            }
        };
        publishing.join().map_err(|_| "the publisher broke off")??;
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100] as f64 / 1e6;
        Ok([at(50), at(99)])
    }
}
