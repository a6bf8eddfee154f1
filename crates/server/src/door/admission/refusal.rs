//! What those are told who may not come in, how many they were, and what the operator hears of it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tautline_websocket::proto::handshake::Refusal;

use super::watch::{TurnedAway, Watchers};
use crate::http::respond;

/// What there may be only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Sockets,
    Clients,
    NewClients,
    HttpSessions,
    AddressConnections,
    AddressHandshakes,
    AddressConnects,
    AddressRequests,
    Authentication,
    Memory,
}

impl Limit {
    /// How many there are.
    const COUNT: usize = Self::Memory as usize + 1;

    /// All of them.
    const ALL: [Self; Self::COUNT] = [
        Self::Sockets,
        Self::Clients,
        Self::NewClients,
        Self::HttpSessions,
        Self::AddressConnections,
        Self::AddressHandshakes,
        Self::AddressConnects,
        Self::AddressRequests,
        Self::Authentication,
        Self::Memory,
    ];

    /// The option.
    fn option(self) -> &'static str {
        match self {
            Self::Sockets => "limits.max_sockets",
            Self::Clients => "client.connection_limit",
            Self::NewClients => "client.connection_rate_limit",
            Self::HttpSessions => "doors.max_sessions",
            Self::AddressConnections => "limits.address.connections",
            Self::AddressHandshakes => "limits.address.handshakes",
            Self::AddressConnects => "limits.address.connect",
            Self::AddressRequests => "limits.address.requests",
            Self::Authentication => "limits.address.failed_authentications",
            Self::Memory => "limits.memory",
        }
    }

    /// In metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Sockets => "node_sockets",
            Self::Clients => "node_connections",
            Self::NewClients => "node_connect",
            Self::AddressConnections => "connections",
            Self::HttpSessions => "http_sessions",
            Self::AddressHandshakes => "handshakes",
            Self::AddressConnects => "connect",
            Self::AddressRequests => "requests",
            Self::Authentication => "authentication",
            Self::Memory => "memory",
        }
    }

    /// What there is too much of, for a person.
    fn text(self) -> &'static str {
        match self {
            Self::Sockets => "The server has as many connections open as it may",
            Self::Clients => "The server has as many clients as it takes",
            Self::NewClients => "More connections come than the server takes at a time",
            Self::HttpSessions => "The server has as many sessions over HTTP as it takes",
            Self::AddressConnections => "There are too many connections from your address",
            Self::AddressHandshakes => {
                "Too many connections from your address have said nothing yet"
            }
            Self::AddressConnects => "Connections from your address come too fast",
            Self::AddressRequests => "Requests from your address come too fast",
            Self::Authentication => "Too many keys or tokens from your address were wrong",
            Self::Memory => "The server has no memory left for new clients",
        }
    }

    /// Whether it is the node that has no room, whoever asks.
    fn is_of_node(self) -> bool {
        matches!(
            self,
            Self::Sockets | Self::Clients | Self::NewClients | Self::HttpSessions
        )
    }

    /// In how many seconds to try again where nobody knows.
    fn pause(self) -> u64 {
        match self {
            Self::HttpSessions | Self::Memory => 10,
            _ => 5,
        }
    }
}

/// Somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(super) limit: Limit,
    /// In seconds.
    pub(super) retry_after: u64,
}

impl OverLimit {
    /// Until some time has passed.
    pub(super) fn after(limit: Limit, wait: Duration) -> Self {
        let retry_after = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { limit, retry_after }
    }

    pub(super) fn status(self) -> StatusCode {
        if self.limit.is_of_node() || self.limit == Limit::Memory {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::TOO_MANY_REQUESTS
        }
    }

    fn text(self) -> String {
        let (what, option) = (self.limit.text(), self.limit.option());
        if self.limit.is_of_node() {
            format!("{what} ({option}). Try again later.\n")
        } else {
            let seconds = self.retry_after;
            format!("{what} ({option}). Try again in {seconds} s.\n")
        }
    }

    /// As the answer to a request.
    pub(crate) fn response(self) -> respond::Response {
        let response = respond::text(self.status(), self.text());
        let after = HeaderValue::from(self.retry_after);
        respond::with_header(response, header::RETRY_AFTER, after)
    }

    /// As the bytes of an answer, for a connection that is closed behind it.
    pub(crate) fn http1(self) -> Vec<u8> {
        let (status, text) = (self.status(), self.text());
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nRetry-After: {}\r\n\
             Connection: close\r\n\r\n{text}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            text.len(),
            self.retry_after
        )
        .into_bytes()
    }
}

impl From<Limit> for OverLimit {
    fn from(limit: Limit) -> Self {
        Self {
            limit,
            retry_after: limit.pause(),
        }
    }
}

/// The answer to a request, where all answers that come to nothing are in boxes.
impl From<OverLimit> for Box<respond::Response> {
    fn from(over: OverLimit) -> Self {
        over.response().into()
    }
}

/// The answer to who wanted to open a WebSocket.
impl From<OverLimit> for Refusal {
    fn from(over: OverLimit) -> Self {
        Self::new(over.status().as_u16(), over.text())
            .with_header("Retry-After", &over.retry_after.to_string())
    }
}

/// Those for whom the node had no room: by limit, and how many.
pub(crate) type NodeRefusals = [(&'static str, u64); 2];

/// All who were refused so far.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By limit: those that were refused, and those that would have been.
    counts: [[AtomicU64; 2]; Limit::COUNT],
    /// When one was last told of in the log, and how many were not since.
    told: Mutex<(Option<Duration>, u64)>,
    pub(super) watchers: Watchers,
}

impl Refusals {
    /// Counts somebody for whom the node has no room, or would have none.
    ///
    /// # Errors
    ///
    /// That, unless it is only tried out.
    pub(super) fn refuse(&self, limit: Limit, dry_run: bool) -> Result<(), OverLimit> {
        let counts = &self.counts[limit as usize];
        counts[usize::from(dry_run)].fetch_add(1, Ordering::Relaxed);
        self.watchers.tell(&TurnedAway {
            address: None,
            limit: limit.option(),
            dry_run,
        });
        if dry_run { Ok(()) } else { Err(limit.into()) }
    }

    /// Counts somebody from an address who is refused, or would be, and tells the operator.
    ///
    /// # Errors
    ///
    /// What it was given, unless it is only tried out.
    pub(super) fn refuse_address(
        &self,
        now: Duration,
        address: Option<IpAddr>,
        over: OverLimit,
        dry_run: bool,
    ) -> Result<(), OverLimit> {
        let counts = &self.counts[over.limit as usize];
        counts[usize::from(dry_run)].fetch_add(1, Ordering::Relaxed);
        let limit = over.limit.option();
        self.watchers.tell(&TurnedAway {
            address,
            limit,
            dry_run,
        });
        if let Some(left_out) = self.is_to_be_told(now) {
            tracing::warn!(
                target: "tautline::limits",
                address = address.map(tracing::field::display),
                limit, dry_run, left_out,
                "over a limit; if many clients come from this address, and it is a proxy's, it belongs into \
                 http_server.trusted_proxies, and otherwise into limits.exempt"
            );
        }
        if dry_run { Ok(()) } else { Err(over) }
    }

    /// Whether the log is to have a refusal, and how many it had to do without since the last one.
    pub(super) fn is_to_be_told(&self, now: Duration) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_too_soon = told
            .0
            .is_some_and(|last| now.saturating_sub(last) < TELL_AGAIN);
        if is_too_soon {
            told.1 += 1;
            return None;
        }
        told.0 = Some(now);
        Some(std::mem::take(&mut told.1))
    }

    /// By limit and mode.
    pub(super) fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let modes = ["enforced", "dry_run"].into_iter().enumerate();
        let of = |limit: Limit| {
            modes
                .clone()
                .map(move |(index, mode)| (limit.name(), mode, self.count(limit, index)))
        };
        Limit::ALL.into_iter().flat_map(of).collect()
    }

    pub(super) fn of_node(&self) -> NodeRefusals {
        let count = |limit| self.count(limit, 0);
        [
            ("connections", count(Limit::Clients)),
            ("rate", count(Limit::NewClients)),
        ]
    }

    fn count(&self, limit: Limit, mode: usize) -> u64 {
        self.counts[limit as usize][mode].load(Ordering::Relaxed)
    }
}

/// At most one refusal in that time is told of in the log.
const TELL_AGAIN: Duration = Duration::from_secs(1);
