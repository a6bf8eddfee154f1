//! `tautline lab`: polling, long-polling, streaming, SSE and WebSocket side by side, on one feed.
//!
//! Each way has a thread of its own with all its clients, and, where the server is our own, a node with one
//! worker: so the CPU time of each can be told, on both sides. Every message is published to all of
//! them, with the time at which that happened; bytes are counted where they enter and leave TCP.

pub(super) mod args;
mod cpu;
mod stand;
mod table;
mod tally;
mod ways;
mod wire;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{mpsc::UnboundedSender, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::args::LabArgs;
use self::cpu::ThreadId;
use self::stand::Stand;
use self::table::Report;
use self::tally::Tally;
use self::ways::{Event, Listener, Plan, Way};
use super::call::Server;
use super::show;
use crate::cli::error::CliError;

/// Measures, and shows what came of it. Ctrl-C ends it early, with what there is.
pub(super) async fn run(args: &LabArgs) -> Result<(), CliError> {
    let stand = Stand::new(args)?;
    let plan = Arc::new(Plan {
        channel: args.channel.clone(),
        token: args.token.clone(),
        poll: args.poll,
        run: run_number()?,
        start: Instant::now(),
        total: args.rate * args.seconds,
    });
    let (events, mut heard) = unbounded_channel();
    let (stop, stopped) = watch::channel(());
    let mut teams = Vec::new();
    for (index, way) in Way::ALL.into_iter().enumerate() {
        let Some(server) = stand.server(index) else {
            continue;
        };
        let (plan, events, stopped) = (Arc::clone(&plan), events.clone(), stopped.clone());
        teams.push(Team::start(
            way,
            args.clients,
            plan,
            server,
            events,
            stopped,
        )?);
    }
    drop(events);

    let everybody = args.clients * Way::ALL.len();
    let mut live = Live::new(args);
    let ready = wait_for(&mut heard, everybody, |event| matches!(event, Event::Ready));
    tokio::select! {
        ready = timeout(PATIENCE, ready) => ready.map_err(|_elapsed| {
            CliError::Failure(format!(
                "not all clients could subscribe within {} s",
                PATIENCE.as_secs()
            ))
        })??,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    }

    let mut report = Report {
        rate: args.rate,
        clients: args.clients,
        poll: args.poll,
        published: 0,
        elapsed: Duration::ZERO,
        ways: Vec::new(),
    };
    let from = Instant::now();
    let pad = "x".repeat(args.size);
    let mut beat = interval(Duration::from_secs(1) / u32::try_from(args.rate).unwrap_or(1));
    let mut draw = interval(DRAW);
    draw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut interrupted = false;
    while report.published < plan.total {
        tokio::select! {
            _ = beat.tick() => {
                let n = report.published + 1;
                let run = plan.run;
                stand.publish(&plan.channel, plan.start, |t| {
                    format!(r#"{{"run":{run},"n":{n},"t":{t},"pad":"{pad}"}}"#)
                }).await?;
                report.published = n;
            }
            _ = draw.tick() => {
                report.look(from, &teams, &stand);
                live.draw(&report)?;
            }
            _ = tokio::signal::ctrl_c() => {
                interrupted = true;
                break;
            }
        }
    }
    report.elapsed = from.elapsed();
    let took = report.elapsed;
    if !interrupted {
        // The last message is with those that poll at the end of their interval.
        let done = wait_for(&mut heard, everybody, |event| matches!(event, Event::Done));
        tokio::select! {
            // Who is missing then is told below.
            _ = timeout(args.poll + PATIENCE, done) => {}
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
    }
    report.look(from, &teams, &stand);
    report.elapsed = took;
    drop(stop);
    for team in teams {
        let _ = team.thread.join();
    }
    live.finish(&report)?;
    let missing = report.incomplete();
    if interrupted || missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.into_iter().map(Way::title).collect();
    Err(CliError::Failure(format!(
        "not everything came by {}: does the channel keep as much as comes between two polls? A lower \
         --rate or --poll needs less",
        names.join(", ")
    )))
}

impl Report {
    /// Takes over what has been counted.
    fn look(&mut self, from: Instant, teams: &[Team], stand: &Stand) {
        self.elapsed = from.elapsed();
        let ways = teams.iter().enumerate().map(|(index, team)| {
            let mut figures = team.tally.figures();
            figures.server_cpu = stand.cpu(index);
            figures.client_cpu = team.id.as_ref().and_then(cpu::used);
            figures
        });
        self.ways = ways.collect();
    }
}

/// The clients of one way, on a thread of their own.
struct Team {
    tally: Arc<Tally>,
    id: Option<ThreadId>,
    thread: JoinHandle<()>,
}

impl Team {
    fn start(
        way: Way,
        clients: usize,
        plan: Arc<Plan>,
        server: Arc<Server>,
        events: UnboundedSender<Event>,
        mut stopped: watch::Receiver<()>,
    ) -> Result<Self, CliError> {
        let tally = Arc::new(Tally::default());
        let (tell, told) = std::sync::mpsc::channel();
        let its_tally = Arc::clone(&tally);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let body = move || {
            let _ = tell.send(cpu::current());
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for _ in 0..clients {
                    let (plan, server) = (Arc::clone(&plan), Arc::clone(&server));
                    let (tally, events) = (Arc::clone(&its_tally), events.clone());
                    tasks.spawn(Listener::new(way, plan, server, tally, events).run());
                }
                // Ends when the other end is dropped.
                let _ = stopped.changed().await;
            });
        };
        let thread = std::thread::Builder::new()
            .name(format!("lab-{}", way.name()))
            .spawn(body)?;
        // The thread begins with that; if it doesn't, its time isn't known.
        let id = told.recv().ok().flatten();
        Ok(Self { tally, id, thread })
    }
}

/// Waits for so many events of a kind.
///
/// # Errors
///
/// What made a client fail.
async fn wait_for(
    events: &mut UnboundedReceiver<Event>,
    mut count: usize,
    is_it: impl Fn(&Event) -> bool,
) -> Result<(), CliError> {
    while count > 0 {
        match events.recv().await {
            Some(Event::Failed(way, error)) => {
                return Err(CliError::Failure(format!("{}: {error}", way.title())));
            }
            Some(event) if is_it(&event) => count -= 1,
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// The table on a terminal, drawn over itself.
struct Live {
    is_terminal: bool,
    lines: usize,
}

impl Live {
    fn new(args: &LabArgs) -> Self {
        Self {
            is_terminal: !args.json && io::stdout().is_terminal(),
            lines: 0,
        }
    }

    fn draw(&mut self, report: &Report) -> Result<(), CliError> {
        if !self.is_terminal {
            return Ok(());
        }
        let table = report.table();
        let mut text = String::new();
        if self.lines > 0 {
            // To the first line of the last one, and away with it (ECMA-48: CUU, ED).
            text = format!("\x1b[{}A\x1b[J", self.lines);
        }
        self.lines = table.lines().count();
        show::print(&(text + &table))?;
        io::stdout().flush()?;
        Ok(())
    }

    fn finish(&mut self, report: &Report) -> Result<(), CliError> {
        if self.is_terminal {
            return self.draw(report);
        }
        show::print(&format!("{}\n", report.json()))
    }
}

fn run_number() -> Result<u64, CliError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::Failure(format!("the system gives no randomness: {error}")))?;
    // JSON's numbers are exact up to 2^53.
    Ok(u64::from_le_bytes(bytes) >> 11)
}

/// How long clients may take to subscribe, and to get the last message.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the table is drawn.
const DRAW: Duration = Duration::from_millis(500);
