//! `/tunnel/NAME`: a WebSocket server of the operator's own, reached through this one.
//!
//! A client opens a plain WebSocket there, or, where none gets through, speaks long-polling at the same address
//! (`docs/tunnel.md`). Either way there is one WebSocket to the server behind for each client, and messages go
//! both ways as they are. Who waits makes the other side wait: nothing is read for which there is no room.
//!
//! | module | what |
//! |---|---|
//! | [`asked`] | what a client asks for, and the way to the server behind |
//! | [`relay`] | between two ends, whatever they are |
//! | [`socket`] | an end that is a WebSocket |
//! | [`held`] | an end that is a session of long-polling |
//! | [`framing`] | how messages are set apart there |
//! | [`door`] | requests |

pub(crate) mod asked;
pub(crate) mod door;
mod framing;
mod held;
mod relay;
pub(crate) mod socket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tautline_websocket::proto::Limits;
use tokio_rustls::rustls::ClientConfig;

use crate::config::TunnelOptions;
use crate::http::metrics::TunnelNumbers;

/// What paths of tunnels begin with.
const PREFIX: &str = "/tunnel/";

/// By this the server behind is told whose connection it is.
pub(crate) const FORWARDED_FOR: &str = "X-Forwarded-For";

/// All tunnels there are, by their names.
#[derive(Default)]
pub(crate) struct Tunnels(BTreeMap<String, Arc<Tunnel>>);

/// A server that is reached through this one.
pub(crate) struct Tunnel {
    options: TunnelOptions,
    /// `None` for `ws://`.
    tls: Option<Arc<ClientConfig>>,
    counts: Arc<Counts>,
}

/// What is counted of a tunnel, over reloads too.
#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    opened: [AtomicU64; Carrier::ALL.len()],
    refused: [AtomicU64; Refusing::ALL.len()],
    /// By direction: to the server behind, and to clients.
    messages: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    /// Whether the last attempt to reach the server failed.
    is_away: AtomicBool,
}

/// What a client comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    Poll,
}

impl Carrier {
    const ALL: [Self; 2] = [Self::WebSocket, Self::Poll];

    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Poll => "poll",
        }
    }
}

/// Why a connection came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusing {
    /// There are as many as may be.
    Limit,
    /// The server behind was not reached, or answered with something else than a WebSocket.
    Upstream,
}

impl Refusing {
    const ALL: [Self; 2] = [Self::Limit, Self::Upstream];

    fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Upstream => "upstream",
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToUpstream,
    ToClient,
}

impl Tunnels {
    pub(crate) fn new(all: BTreeMap<String, Arc<Tunnel>>) -> Self {
        Self(all)
    }

    /// Whose a path is, and what it has behind the tunnel's name: nothing, or something that begins with `/`.
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(&Arc<Tunnel>, &'p str)> {
        let path = path.strip_prefix(PREFIX)?;
        let end = path.find('/').unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        Some((self.0.get(name)?, rest))
    }

    /// Goes on counting where others of these names have come to.
    pub(crate) fn inherit(&mut self, before: &Self) {
        for (name, tunnel) in &mut self.0 {
            if let (Some(tunnel), Some(before)) = (Arc::get_mut(tunnel), before.0.get(name)) {
                tunnel.counts = Arc::clone(&before.counts);
            }
        }
    }

    /// What was counted so far.
    pub(crate) fn numbers(&self) -> Vec<TunnelNumbers> {
        self.0.values().map(|tunnel| tunnel.numbers()).collect()
    }
}

impl Tunnel {
    pub(crate) fn new(options: TunnelOptions, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            options,
            tls,
            counts: Arc::default(),
        }
    }

    /// Longest message, in bytes.
    pub(crate) fn message_size(&self) -> usize {
        self.options.message_size_limit
    }

    fn limits(&self) -> Limits {
        Limits::for_messages(self.message_size())
    }

    fn numbers(&self) -> TunnelNumbers {
        let counts = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let ways = ["upstream", "client"];
        TunnelNumbers {
            name: self.options.name.clone(),
            open: counts.open.load(Ordering::Relaxed) as u64,
            opened: Carrier::ALL.map(|by| (by.name(), read(&counts.opened[by as usize]))),
            refused: Refusing::ALL.map(|why| (why.name(), read(&counts.refused[why as usize]))),
            messages: [0, 1].map(|way| (ways[way], read(&counts.messages[way]))),
            bytes: [0, 1].map(|way| (ways[way], read(&counts.bytes[way]))),
        }
    }
}

impl Counts {
    /// Counts a connection, and numbers it.
    fn opened(&self, by: Carrier) -> u64 {
        self.opened[by as usize].fetch_add(1, Ordering::Relaxed)
    }

    fn refused(&self, why: Refusing) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn carried(&self, way: Way, messages: u64, bytes: u64) {
        if messages > 0 {
            self.messages[way as usize].fetch_add(messages, Ordering::Relaxed);
            self.bytes[way as usize].fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// A connection's place among those of its tunnel; free again when this is dropped.
struct Place(Arc<Counts>);

impl Place {
    /// `None` when all are taken.
    fn take(tunnel: &Tunnel) -> Option<Self> {
        let limit = tunnel.options.max_connections;
        let counts = &tunnel.counts;
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        counts
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Self(Arc::clone(counts)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzzed/tunnel_framing.rs"]
mod fuzzed;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the fuzzer has found worth keeping, and the same changed in one place.
    #[test]
    fn the_corpus_of_framed_messages() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fuzz/corpus/tunnel_framing"
        );
        let entries = std::fs::read_dir(folder).expect("it is part of the repository");
        let mut count = 0;
        for entry in entries {
            let data = std::fs::read(entry.expect("an entry").path()).expect("a file");
            fuzzed::check(&data);
            for at in 0..data.len().min(64) {
                for byte in [0, 1, 0x7f, 0x80, 0xff, data[at] ^ 1, data[at] ^ 0x80] {
                    let mut changed = data.clone();
                    changed[at] = byte;
                    fuzzed::check(&changed);
                    changed.truncate(at);
                    fuzzed::check(&changed);
                }
            }
            count += 1;
        }
        assert!(count >= 20, "{folder} is not whole");
    }

    pub(super) fn tunnel(upstream: &str) -> Arc<Tunnel> {
        let options = TunnelOptions {
            name: "docs".to_owned(),
            upstream: upstream.to_owned(),
            max_connections: 2,
            ..TunnelOptions::default()
        };
        Arc::new(Tunnel::new(options, None))
    }

    fn tunnels() -> Tunnels {
        let tunnel = tunnel("ws://localhost:1");
        Tunnels::new([("docs".to_owned(), tunnel)].into())
    }

    #[test]
    fn a_path_is_that_of_a_tunnel_or_of_none() {
        let tunnels = tunnels();
        let rest = |path| tunnels.find(path).map(|(_, rest)| rest);
        assert_eq!(rest("/tunnel/docs"), Some(""));
        assert_eq!(rest("/tunnel/docs/"), Some("/"));
        assert_eq!(rest("/tunnel/docs/room/7"), Some("/room/7"));
        for path in [
            "/",
            "/tunnel",
            "/tunnel/",
            "/tunnel/doc",
            "/tunnel/docs2",
            "/docs",
            "/tunnel//docs",
        ] {
            assert_eq!(rest(path), None, "{path}");
        }
        assert!(Tunnels::default().find("/tunnel/docs").is_none());
    }

    #[test]
    fn there_are_no_more_than_may_be_and_reloads_count_on() {
        let before = tunnels();
        let (tunnel, _) = before.find("/tunnel/docs").expect("it is there");
        let one = Place::take(tunnel).expect("a place");
        let two = Place::take(tunnel).expect("another");
        assert!(Place::take(tunnel).is_none());
        let mut after = tunnels();
        after.inherit(&before);
        let (tunnel, _) = after.find("/tunnel/docs").expect("it is there");
        assert!(Place::take(tunnel).is_none());
        drop(one);
        assert!(Place::take(tunnel).is_some());
        drop(two);
        assert_eq!(before.numbers()[0].open, 0);
    }
}
