//! One reader goes down, up and across all transports, over HTTP/1.1 and over HTTP/2: each is cut in the middle of the
//! traffic and not used the next time, and every ordered pair of them has its turn. What it gets is the whole stream,
//! once, in order.
//!
//! `cargo xtask test ladder` is the long one, with a million messages.

mod reader;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use serde_json::json;

use self::reader::{CHANNEL, Reader, Way};
use crate::emulation::WORKERS;
use crate::process::{DEADLINE, Server};
use crate::ways::{Door, Position, parse};

/// Messages in all, unless the environment says more.
const MESSAGES: u64 = 100_000;

/// How many are published in one call.
const BATCH: u64 = 200;

/// Every so often a reader stays longer, and first catches up with more than a page has.
const LONG: (u64, u64) = (5, 4);

/// What of a stay is published before it begins, in parts of a hundred: the rest comes live. In a long stay, and in
/// one of the others.
const BEFORE: (u64, u64) = (75, 40);

/// How many are on their way when a reader is cut off.
const BEHIND: u64 = 20;

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
    let messages = std::env::var("LADDER_MESSAGES").map_or(MESSAGES, |messages| {
        messages.parse().expect("LADDER_MESSAGES is a number")
    });
    let config = WORKERS.replace("history_size = 1000", "history_size = 10000");
    let config =
        format!("{config}allow_history_for_client = true\nallow_history_for_anonymous = true\n");
    let server = Server::serve("ladder", &config);
    let ways: Vec<_> = Door::ALL
        .into_iter()
        .flat_map(|door| [false, true].map(|http2| Way { door, http2 }))
        .collect();
    let walk = walk(&ways);
    assert_eq!(walk.len(), ways.len() * (ways.len() - 1) + 1);
    let stays = stays(walk.len() as u64, messages);
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
            let &Stay { until, before } = stay;
            // What it has missed, and then what comes while it is there.
            let missed = since.offset.max(before).min(messages);
            allow.send(missed).expect("the publisher waits");
            while published.recv_timeout(DEADLINE).expect("a word") < missed {}
            let mut reader = Reader::open(&server, *way, &since);
            let mut is_live = false;
            while since.offset < until {
                let expected = since.offset + 1;
                let (offset, number) = reader.next(expected);
                assert_eq!(
                    (offset, number),
                    (expected, expected),
                    "stage {stage}: {way:?} after {:?}",
                    stage.checked_sub(1).map(|before| walk[before])
                );
                since.offset = offset;
                if !is_live {
                    is_live = true;
                    allow
                        .send(messages.min(until + BEHIND))
                        .expect("the publisher waits");
                }
            }
        }
        assert_eq!(since.offset, messages);
    });
    println!(
        "{messages} messages over {} changes of transport in {:.1?}: none lost, none twice",
        walk.len() - 1,
        start.elapsed()
    );
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
