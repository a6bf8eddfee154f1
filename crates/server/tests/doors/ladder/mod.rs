//! One reader goes down, up and across all ways to follow a stream, over HTTP/1.1 and over HTTP/2: each is broken from
//! outside in the middle of the traffic, at some byte, and not used the next time, and every ordered pair of them has its turn.
//! What it gets is the whole stream, once, in order.
//!
//! Tunnels are no such way: what they carry is the stream of a server behind, which knows its own position. What gets lost
//! there is in `tunnel::lossy`.
//!
//! `cargo xtask test ladder` is the long one, with a million messages. `LADDER_SEED` draws other breaks.

mod carrier;
mod middle;
mod reader;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use serde_json::json;

use self::middle::{Break, How, Middle, Towards};
use self::reader::{CHANNEL, Reader, Way};
use crate::emulation::WORKERS;
use crate::lots::Lots;
use crate::process::{DEADLINE, Server};
use crate::ways::{Door, Form, Position, parse};

/// Messages in all, unless the environment says more.
const MESSAGES: u64 = 100_000;

/// What the breaks are drawn from, unless the environment says otherwise.
const SEED: u64 = 0x5eed;

/// How many are published in one call.
const BATCH: u64 = 200;

/// Every so often a reader stays longer, and first catches up with more than a page has.
const LONG: (u64, u64) = (5, 4);

/// What of a stay is published before it begins, in parts of a hundred: the rest comes live. In a long stay, and in
/// one of the others.
const BEFORE: (u64, u64) = (75, 40);

/// How many are on their way when a way is broken: more bytes, by each way, than are let through and swallowed then.
const BEHIND: u64 = 20;

/// How many bytes are let through before a way is broken, and swallowed by a hole, at most.
const LAST: (u64, u64) = (200, 150);

/// The same of what a client asks: less than two of its requests are long, as the second may wait for what never comes.
const ASKED: u64 = 100;

/// Within how many bytes a way is broken as it is opened, if it is: heads, commands, and what was missed.
const OPENING: u64 = 800;

/// A walk that goes over every ordered pair of ways once (an Eulerian circuit: Hierholzer).
fn walk(ways: &[Way]) -> Vec<Way> {
    let mut left: HashSet<(usize, usize)> = (0..ways.len())
        .flat_map(|from| (0..ways.len()).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    let mut path = vec![0];
    let mut walk = Vec::new();
    while let Some(&at) = path.last() {
        match (0..ways.len()).find(|to| left.remove(&(at, *to))) {
            Some(to) => path.push(to),
            None => walk.extend(path.pop().map(|at| ways[at])),
        }
    }
    walk
}

#[test]
fn every_ordered_pair_of_transports_resumes() {
    let number = |name, usual| {
        let given = std::env::var(name);
        given.map_or(usual, |number| number.parse().expect("a number"))
    };
    let (messages, seed) = (
        number("LADDER_MESSAGES", MESSAGES),
        number("LADDER_SEED", SEED),
    );
    let config = WORKERS.replace("history_size = 1000", "history_size = 10000");
    let config =
        format!("{config}allow_history_for_client = true\nallow_history_for_anonymous = true\n");
    let server = Server::serve("ladder", &config);
    let middle = Middle::start(server.address);
    let ways: Vec<_> = Door::ALL
        .into_iter()
        .flat_map(|door| [false, true].map(|http2| Way { door, http2 }))
        .collect();
    let walk = walk(&ways);
    assert_eq!(walk.len(), ways.len() * (ways.len() - 1) + 1);
    let stays = stays(walk.len() as u64, messages);
    let mut lots = Lots(seed);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let mut since = Position {
            offset: 0,
            epoch: epoch(&server),
        };
        // Its end is the publisher's, too.
        let (allow, allowed) = channel();
        let (tell, published) = channel();
        let its_server = &server;
        scope.spawn(move || publish(its_server, messages, &allowed, &tell));
        for (stage, (way, stay)) in walk.iter().zip(&stays).enumerate() {
            let before = stage.checked_sub(1).map(|before| walk[before]);
            let what = format!("seed {seed}, stage {stage}: {way:?} after {before:?}");
            // What it has missed, and then what comes while it is there.
            let missed = since.offset.max(stay.before);
            allow.send(missed).expect("the publisher waits");
            while published.recv_timeout(DEADLINE).expect("a word") < missed {}
            let end = if stay.until == messages {
                None
            } else {
                Some(stay.until + BEHIND)
            };
            let allow = |last| allow.send(last).expect("the publisher waits");
            follow(
                &middle, *way, &mut since, stay.until, end, &mut lots, allow, &what,
            );
            middle.forget();
            middle.mend();
        }
        assert_eq!(since.offset, messages);
    });
    let (changes, tally) = (walk.len() as u64 - 1, middle.tally());
    println!(
        "{messages} messages over {changes} changes of transport in {:.1?}, {tally:?}: none lost, none twice",
        start.elapsed()
    );
    for count in [tally.resets, tally.closes, tally.holes, tally.upwards] {
        assert!(count > changes / 10, "{tally:?}");
    }
    assert!(middle.breaks() > changes);
}

/// Follows the stream by one way until it is broken for good behind `until`, or, with no `end`, until there is no more.
#[expect(clippy::too_many_arguments, reason = "all that a stage is made of")]
fn follow(
    middle: &Middle,
    way: Way,
    since: &mut Position,
    until: u64,
    end: Option<u64>,
    lots: &mut Lots,
    allow: impl Fn(u64),
    what: &str,
) {
    let asks_again = way.door.form() == Form::Answers;
    let half = since.offset + (until - since.offset) / 2;
    if lots.below(3) == 0 {
        middle.plan(opening(lots));
    }
    let (mut is_live, mut is_broken, mut ends) = (false, false, false);
    let mut reader = None;
    let mut breaks = middle.breaks();
    loop {
        let next = match &mut reader {
            Some(reader) => Reader::next(reader, since.offset + 1),
            None => match Reader::open(middle.address, way, since) {
                Ok(opened) => {
                    reader = Some(opened);
                    continue;
                }
                Err(broken) => Err(broken),
            },
        };
        let Ok((offset, number)) = next else {
            let now = middle.breaks();
            assert!(now > breaks, "{what}: broke by itself behind {since:?}");
            breaks = now;
            if middle.is_down() {
                assert!(ends, "{what}");
                return;
            }
            // Where a session or a position outlives a connection, it goes on. Otherwise it comes back.
            if !asks_again {
                reader = None;
            }
            continue;
        };
        let expected = since.offset + 1;
        assert_eq!((offset, number), (expected, expected), "{what}");
        since.offset = offset;
        if !std::mem::replace(&mut is_live, true) {
            allow(until);
        }
        if asks_again && offset >= half && !std::mem::replace(&mut is_broken, true) {
            middle.plan(last(lots, way.door, false));
        }
        if offset >= until && !std::mem::replace(&mut ends, true) {
            let Some(end) = end else { return };
            middle.plan(last(lots, way.door, true));
            allow(end);
        }
    }
}

/// A break of a way that is being opened.
fn opening(lots: &mut Lots) -> Break {
    Break {
        towards: towards(lots),
        after: drawn(lots, OPENING),
        how: how(lots, 1),
        lasts: false,
    }
}

/// A break of a way that is open.
fn last(lots: &mut Lots, door: Door, lasts: bool) -> Break {
    let is_asked = door.form() == Form::Answers;
    let towards = if is_asked && !door.goes_on() {
        towards(lots)
    } else {
        // There is nothing more to ask.
        Towards::Client
    };
    let after = match towards {
        Towards::Client => LAST.0,
        Towards::Server => ASKED,
    };
    Break {
        towards,
        after: drawn(lots, after),
        // Nobody says more before there was an answer.
        how: how(lots, if is_asked { 1 } else { LAST.1 }),
        lasts,
    }
}

fn towards(lots: &mut Lots) -> Towards {
    if lots.below(2) == 0 {
        Towards::Client
    } else {
        Towards::Server
    }
}

fn how(lots: &mut Lots, depth: u64) -> How {
    match lots.below(3) {
        0 => How::Reset,
        1 => How::Close,
        _ => How::Hole(drawn(lots, depth)),
    }
}

/// At least one.
fn drawn(lots: &mut Lots, most: u64) -> usize {
    usize::try_from(1 + lots.below(most)).expect("small")
}

/// How long a reader stays with a way.
struct Stay {
    /// The last message that it reads.
    until: u64,
    /// The last one that is published before it comes.
    before: u64,
}

fn stays(count: u64, messages: u64) -> Vec<Stay> {
    let is_long = |stage: u64| stage % LONG.0 == LONG.0 - 1;
    let weight = |stage| if is_long(stage) { LONG.1 } else { 1 };
    let all: u64 = (0..count).map(weight).sum();
    let mut weights = 0;
    let stay = |stage| {
        let from = messages * weights / all;
        weights += weight(stage);
        let until = messages * weights / all;
        let part = if is_long(stage) { BEFORE.0 } else { BEFORE.1 };
        let before = from + (until - from) * part / 100;
        Stay { until, before }
    };
    (0..count).map(stay).collect()
}

fn epoch(server: &Server) -> String {
    let answer = server.api("history", &json!({"channel": CHANNEL}).to_string());
    let answer = parse(answer.as_bytes());
    let epoch = answer["result"]["epoch"].as_str().expect("an epoch");
    epoch.to_owned()
}

/// Publishes the numbers from 1 as far as it may, and tells how far it is.
fn publish(server: &Server, messages: u64, allowed: &Receiver<u64>, tell: &Sender<u64>) {
    let mut next = 1;
    for last in allowed {
        while next <= last {
            let until = last.min(next + BATCH - 1);
            let commands: Vec<_> = (next..=until)
                .map(|number| json!({"publish": {"channel": CHANNEL, "data": number}}))
                .collect();
            let answer = server.api("batch", &json!({"commands": commands}).to_string());
            assert!(!answer.contains("error"), "{answer}");
            next = until + 1;
        }
        if tell.send(next - 1).is_err() || next > messages {
            return;
        }
    }
}
