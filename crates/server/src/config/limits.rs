//! `[limits]`: how much may come from an address, and for how much there is memory.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use tautline_hub::config::duration;
use tautline_hub::engine::memory::MemoryOptions;
use tautline_hub::rate::{self, Rate};

use super::client::ConnectionOptions;
use super::file::Unusable;
use super::{DoorOptions, HttpServerOptions};
use crate::client_address::Trust;
use crate::door::admission::{AddressRules, MemoryRules, Rules, memory};
use crate::network::Networks;
use crate::worker::queues::QueueRules;

/// `[limits]`: what is allowed to those who come from outside, by their address. An IPv6 address counts by its first
/// 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOptions {
    /// Count what is beyond the limits of numbers that stand elsewhere, and let it happen: `client.connection_limit`,
    /// `client.connection_rate_limit`, `client.user_connection_limit`, `client.channel_limit` (up to 10,000),
    /// `client.rpc_limit`, `client.stale_close_delay`, `client.queue_max_size` (up to 16 times as much), `channel.max_length` (up to
    /// 4,096 bytes), `doors.max_sessions`, `max_sockets` and `max_subscribers` of namespaces. Default: no.
    pub dry_run: bool,
    /// How many connections may be open at the port for clients, whatever they are for and whoever has them; what is beyond
    /// gets 503 before anything is read. Those of tunnels to the servers behind count, too. Default: 0, for seven eighths of
    /// the descriptors that the process may have: the others are for whoever looks after the server, for the backend and
    /// for files.
    pub max_sockets: usize,
    /// Addresses that none of these limits are for: networks such as `10.0.0.0/8`. Default: none.
    pub exempt: Vec<String>,
    /// Nor for this machine's own, `127.0.0.0/8` and `::1`; but the ceiling on memory is for clients that come through a proxy
    /// there. Default: yes.
    pub exempt_loopback: bool,
    /// How many addresses are remembered from which nothing is open. Between 1,000 and 100,000,000. Default: 100,000.
    pub max_addresses: usize,
    /// `[limits.address]`.
    pub address: AddressLimitOptions,
    /// `[limits.memory]`.
    pub memory: MemoryLimitOptions,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_sockets: 0,
            exempt: Vec::new(),
            exempt_loopback: true,
            max_addresses: 100_000,
            address: AddressLimitOptions::default(),
            memory: MemoryLimitOptions::default(),
        }
    }
}

/// `[limits.address]`: what may come from one address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressLimitOptions {
    /// Count and log what is beyond these limits, and let it happen. Default: no.
    pub dry_run: bool,
    /// Connections at a time, and sessions of those that share one; 0 for any number. Default: 10,000.
    pub connections: usize,
    /// Connections at a time that have not said yet what they want: in the TLS handshake, or before the end of their
    /// first request's head; 0 for any number. Default: 1,000.
    pub handshakes: usize,
    /// New connections, and sessions of those that share one. Default: `500/s, burst 5000`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub connect: Option<Rate>,
    /// Requests for the doors that are made of plain HTTP. Default: `2000/s, burst 10000`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub requests: Option<Rate>,
    /// Wrong API keys, and tokens that were never good: forged, garbled, somebody else's; and connects that your backend refuses
    /// with error 101 or disconnect 3500. What has expired is none. Beyond, keys from there get 429 without being looked at,
    /// unless a right one came from there in the last ten minutes; tokens and connects that the backend would decide get error
    /// 111, unless they are good by the keys that are here. The same counts for what one user sends who is known. Default:
    /// `10/s, burst 500`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub failed_authentications: Option<Rate>,
}

impl Default for AddressLimitOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            connections: 10_000,
            handshakes: 1000,
            connect: Some(Rate::per_second(500).at_once(5000)),
            requests: Some(Rate::per_second(2000).at_once(10_000)),
            failed_authentications: Some(Rate::per_second(10).at_once(500)),
        }
    }
}

/// `[limits.memory]`: from when on there is no memory for new clients, and how much of it is for those who read slowly.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryLimitOptions {
    /// Whether there is a ceiling, and a bound of what waits. Default: yes.
    pub enabled: bool,
    /// Count and log who would be refused or closed, and let them be. Default: no.
    pub dry_run: bool,
    /// The ceiling, in bytes. Default: 0, for four fifths of what the control group or the machine has.
    pub max_bytes: u64,
    /// How many bytes of memory may be taken by what waits to be written to clients, all together. Beyond, the connections with
    /// the longest queues are closed (3008), those that read nothing before those that do, until there is room. Default:
    /// 0, for a quarter of the ceiling, or 1 GiB where what the machine has isn't known.
    pub max_queued_bytes: usize,
    /// How often is measured what the process has; between 10ms and 1m. Default: 500 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub check_interval: Duration,
}

impl Default for MemoryLimitOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            dry_run: false,
            max_bytes: 0,
            max_queued_bytes: 0,
            check_interval: Duration::from_millis(500),
        }
    }
}

/// Checks them, and puts all together that decides who may come in.
pub(super) fn rules(
    server: &HttpServerOptions,
    connections: &ConnectionOptions,
    doors: &DoorOptions,
    limits: &LimitOptions,
) -> Result<Rules, Unusable> {
    let networks = |option: &str, texts: &[String]| {
        Networks::parse(texts).map_err(|error| Unusable::new(option, error.to_string()))
    };
    let proxies = networks("http_server.trusted_proxies", &server.trusted_proxies)?;
    if server.proxy_protocol && proxies.is_empty() {
        let problem = "needs http_server.trusted_proxies: the proxies that speak it";
        return Err(Unusable::new("http_server.proxy_protocol", problem));
    }
    if !ADDRESSES.contains(&limits.max_addresses) {
        let problem = "must be between 1,000 and 100,000,000";
        return Err(Unusable::new("limits.max_addresses", problem));
    }
    if !INTERVALS.contains(&limits.memory.check_interval) {
        let problem = "must be between 10ms and 1m";
        return Err(Unusable::new("limits.memory.check_interval", problem));
    }
    let LimitOptions {
        address, memory, ..
    } = limits;
    let max_bytes = match memory.max_bytes {
        0 => memory::available().map(|bytes| bytes / 5 * 4),
        bytes => Some(bytes),
    };
    Ok(Rules {
        trust: Trust {
            proxies,
            header: server.forwarded_header,
        },
        proxy_protocol: server.proxy_protocol,
        dry_run: limits.dry_run,
        sockets: limits.max_sockets,
        clients: connections.connection_limit,
        new_clients: connections.connection_rate_limit,
        http_sessions: doors.max_sessions,
        address: AddressRules {
            exempt: networks("limits.exempt", &limits.exempt)?,
            exempt_loopback: limits.exempt_loopback,
            dry_run: address.dry_run,
            connections: address.connections,
            handshakes: address.handshakes,
            connects: address.connect,
            requests: address.requests,
            failures: address.failed_authentications,
            max_addresses: limits.max_addresses,
        },
        memory: MemoryRules {
            ceiling: max_bytes.filter(|_| memory.enabled),
            dry_run: memory.dry_run,
            check_interval: memory.check_interval,
        },
    })
}

/// How much may wait for all clients where the process may have so much memory.
pub(super) fn queues(memory: &MemoryLimitOptions, ceiling: Option<u64>) -> QueueRules {
    let max_bytes = match memory.max_queued_bytes {
        0 => ceiling.map_or(QUEUED, |bytes| {
            usize::try_from(bytes / 4).unwrap_or(usize::MAX)
        }),
        bytes => bytes,
    };
    QueueRules {
        max_bytes: memory.enabled.then_some(max_bytes),
        dry_run: memory.dry_run,
    }
}

/// Has histories take no more than half of what the process may have, where nobody says how much (`is_set`); where
/// somebody does, a sentence if next to nothing is left for all else.
pub(super) fn engine(
    engine: &mut MemoryOptions,
    is_set: bool,
    ceiling: Option<u64>,
) -> Option<String> {
    let ceiling = usize::try_from(ceiling?).unwrap_or(usize::MAX);
    if !is_set {
        engine.max_bytes = engine.max_bytes.min((ceiling / 2).max(LEAST_KEPT));
        return None;
    }
    (engine.max_bytes > ceiling / 4 * 3).then(|| {
        format!(
            "engine.memory.max_bytes is {}, and the whole process may have {ceiling} (limits.memory.max_bytes): when histories \
             are full, nobody new comes in, and it may be killed for want of memory",
            engine.max_bytes
        )
    })
}

/// Those of a server that nobody has configured.
pub(super) fn defaults() -> Rules {
    let (server, connections) = (HttpServerOptions::default(), ConnectionOptions::default());
    let (doors, limits) = (DoorOptions::default(), LimitOptions::default());
    rules(&server, &connections, &doors, &limits).unwrap_or_default()
}

/// Where it isn't known how much memory there is.
const QUEUED: usize = 1024 * 1024 * 1024;
const ADDRESSES: RangeInclusive<usize> = 1000..=100_000_000;
/// For histories, however little there is: what a server with next to nothing else in it needs.
const LEAST_KEPT: usize = 16 * 1024 * 1024;
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
