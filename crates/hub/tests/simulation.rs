//! A whole node in one thread: hubs of several workers, sessions, an engine, a clock, and a network
//! which delays, holds back and breaks, with clients that behave as the SDKs do. All of it follows
//! from a seed.
//!
//! A checker knows every publication and hears every delivery, in two places. Where the node says
//! something it must be true at that moment: who is present, that a position was recovered, that a
//! subscription has lost its place. Where a client hears something it must follow on what the client
//! has heard before:
//!
//! Half of the clients speak Protobuf, some filter by tags, some take patches, some are subscribed to a
//! channel by their token. It is checked that
//!
//! - every command is answered once, in order;
//! - publications come in order, none is missing, none comes twice, none is altered, over any number
//!   of reconnections, for as long as history has them, and none that wasn't asked for;
//! - patches fit what the client has;
//! - `recovered` is said if and only if nothing is missing, trimmed, expired or removed;
//! - a subscription loses its place only if history has lost it first;
//! - slow readers are parked and in the end have everything, or the newest, by their channel's policy;
//! - what waits for a reader is bounded, and it gets no publications while it has enough to read;
//! - presence is who is subscribed; joins and leaves take turns and end with the truth;
//! - who is gone is not listed for longer than its pong may take, and nobody else is taken for gone: by the protocol's
//!   pings, by the transport's own, and by those while the protocol's are only told;
//! - who doesn't connect is sent away, and not before its time;
//! - what a filter of the namespace hides is neither pushed nor recovered nor in any page, whatever the client asks for;
//! - a publisher doesn't get its own where it is to do without;
//! - a cache recovers the newest that passes the filter;
//! - code that decides is told of each coming and going once, and has no question left open;
//! - what was acknowledged is there, and what was told to be of an old version is not; versions grow;
//! - who does something too often is refused it (111), what is refused doesn't happen, and who is refused too
//!   often is sent away (3509); nobody else is, by a reckoning of the checker's own;
//! - nobody has more connections than a user may have, or the newest is the only one (3504);
//! - who doesn't refresh a token is sent away in its time and not before (3005), and a subscription ends so
//!   (2501); after that, nothing is delivered; a token that is over opens nothing;
//! - bytes are what they were, and a reader of JSON is sent away (3506) rather than told something else;
//! - joins and leaves are those of users where that is asked for;
//! - whom operators subscribe is subscribed, from where they say, and until when (3006); what they end or prolong ends, or
//!   lives on, and its client is told of the end;
//! - a node that ends tells its clients so in an even row (3001), serves each until then, and lets nobody in; who
//!   was told is present still, and nobody hears that it has left;
//! - nothing is left when everybody is gone.
//!
//! What operators may set differs from run to run, too ([`rules`]).
//!
//! A failing case prints its seed. `SIMULATION_SEED=<seed>` runs that case alone,
//! `SIMULATION_CASES=<number>` another number of cases of each kind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is made where it is used"
)]

#[path = "simulation/accounts.rs"]
mod accounts;
#[path = "simulation/charges.rs"]
mod charges;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/code.rs"]
mod code;
#[path = "simulation/draining.rs"]
mod draining;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/operating.rs"]
mod operating;
#[path = "simulation/payload.rs"]
mod payload;
#[path = "simulation/publishing.rs"]
mod publishing;
#[path = "simulation/rest.rs"]
mod rest;
#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/subscription.rs"]
mod subscription;
mod support;
#[path = "simulation/tokens.rs"]
mod tokens;
#[path = "simulation/view.rs"]
mod view;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use serde_json::Value;
use tautline_hub::engine::testkit::DelayOptions;

use self::faults::Fault;
use self::world::Simulation;

/// What makes life hard in a run.
#[derive(Clone, Copy, Debug)]
struct Weather {
    delays: Option<DelayOptions>,
    /// Publications are lost on their way to a mailbox.
    lossy: bool,
    /// Time passes beyond the life of histories and of positions.
    forgetful: bool,
    /// Some connections take little at a time.
    slow: bool,
    /// Code decides, and takes its time.
    code: bool,
    fault: Option<Fault>,
}

const WORKERS: usize = 3;
const CLIENTS: usize = 6;
const CHANNELS: [&str; 14] = [
    "room:a", "room:b", "plain:a", "latest:a", "newest:a", "cache:a", "own:a", "hidden:a",
    "mine:a", "known:a", "bytes:a", "ticket:a", "users:a", "pushed:a",
];
/// How many of them are used in one run, not counting those to which a token and operators subscribe.
const USED: usize = 6;
/// The one whose recovery is the newest publication.
const CACHE: usize = 5;
/// The one to which a token subscribes.
const SERVER_SIDE: usize = 6;
/// The one of which subscribers may know what is of some kinds only ([`payload::KNOWN`]), whatever they ask for.
const HIDDEN: usize = 7;
/// The one in which publishers do without their own publications.
const EXCLUDING: usize = 8;
/// The one that is a cache, and of which subscribers may know the same as of [`HIDDEN`].
const KNOWN_CACHE: usize = 9;
/// The one whose payloads are any bytes.
const BYTES: usize = 10;
/// The one for which a token of its own is needed.
const TICKET: usize = 11;
/// The one in which joins and leaves are those of users.
const BY_USER: usize = 12;
/// The one to which operators subscribe clients, and nobody else.
const PUSHED: usize = 13;
/// Whose the clients are, in turn.
const USERS: [&str; 3] = ["ann", "bob", TOKEN_SUBSCRIBED];
/// The user with that token.
const TOKEN_SUBSCRIBED: &str = "eve";

/// Whether the newest publication is all that is recovered.
fn is_cache(channel: usize) -> bool {
    matches!(channel, CACHE | KNOWN_CACHE)
}

/// Which of [`CHANNELS`] a message names.
fn index(channel: &Value) -> usize {
    let mut channels = CHANNELS.iter();
    channels.position(|name| channel == name).unwrap()
}

/// Of bytes that may wait for a connection.
const QUEUE: usize = 12_000;

/// Names the seed of a case that fails.
struct Case(u64, Weather);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() && self.1.fault.is_none() {
            eprintln!("failing case: SIMULATION_SEED={} ({:?})", self.0, self.1);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn run(weather: Weather) {
    let cases = variable("SIMULATION_CASES").unwrap_or(CASES);
    let only = variable("SIMULATION_SEED");
    for seed in only.map_or(0..cases, |seed| seed..seed + 1) {
        let case = Case(seed, weather);
        Simulation::new(seed, weather).run();
        drop(case);
    }
}

/// Of each kind. All together take some seconds.
const CASES: u64 = 250;
/// Among how many cases one has to be that finds a fault.
const FAULT_CASES: u64 = 1000;
const STEPS: usize = 200;

const FAIR: Weather = Weather {
    delays: None,
    lossy: false,
    forgetful: false,
    slow: false,
    code: false,
    fault: None,
};
const SLOW: Weather = Weather { slow: true, ..FAIR };
const LATER: Option<DelayOptions> = Some(DelayOptions {
    at_once: 20,
    failures: 0,
});

#[test]
fn an_engine_that_answers_at_once() {
    run(FAIR);
}

#[test]
fn readers_that_are_slow() {
    run(SLOW);
}

#[test]
fn an_engine_that_forgets() {
    run(Weather {
        forgetful: true,
        ..SLOW
    });
}

#[test]
fn a_feed_that_loses() {
    run(Weather {
        lossy: true,
        ..SLOW
    });
}

#[test]
fn an_engine_that_answers_later() {
    run(Weather {
        delays: LATER,
        ..SLOW
    });
}

#[test]
fn an_engine_that_fails_now_and_then() {
    let delays = Some(DelayOptions {
        at_once: 20,
        failures: 10,
    });
    run(Weather { delays, ..SLOW });
}

#[test]
fn code_that_takes_its_time() {
    run(Weather { code: true, ..SLOW });
}

#[test]
fn code_and_engine_that_take_their_time() {
    run(Weather {
        delays: LATER,
        code: true,
        ..SLOW
    });
}

#[test]
fn everything_at_once() {
    run(Weather {
        delays: Some(DelayOptions {
            at_once: 20,
            failures: 5,
        }),
        lossy: true,
        forgetful: true,
        code: true,
        ..SLOW
    });
}

/// What the simulation is good for: each of these faults makes a case of the usual kind fail.
#[test]
fn planted_faults_are_found() {
    for fault in Fault::ALL {
        let weather = Weather {
            fault: Some(fault),
            code: matches!(fault, Fault::ForgetUnsubscribed | Fault::ForgetDisconnected),
            ..SLOW
        };
        let is_found = |seed: &u64| {
            let run = || Simulation::new(*seed, weather).run();
            // On a thread of its own: what it says of its panic belongs to no test that failed.
            std::thread::scope(|scope| scope.spawn(run).join().is_err())
        };
        let found = (0..FAULT_CASES).find(is_found);
        assert!(found.is_some(), "{fault:?} was not found");
        println!("{fault:?}: found by seed {}", found.unwrap());
    }
}
