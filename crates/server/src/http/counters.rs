//! What a worker counts of requests and connections that come to nothing.

use std::collections::BTreeMap;
use std::io;

use http::StatusCode;
use tautline_websocket::conn::http2::Http2Error;

use super::patience::is_stalled;

/// Requests that were answered with an error, connections that were dropped without a word, and
/// WebSockets whose client broke the rules.
#[derive(Clone, Debug, Default)]
pub struct HttpCounters {
    pub(super) errors: BTreeMap<u16, u64>,
    pub(super) dropped: BTreeMap<&'static str, u64>,
    pub(super) failures: BTreeMap<u16, u64>,
}

impl HttpCounters {
    /// A request was answered with this status, if that is an error.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if status.is_client_error() || status.is_server_error() {
            self.refused(status.as_u16());
        }
    }

    /// A request was refused with this status.
    pub(crate) fn refused(&mut self, status: u16) {
        *self.errors.entry(status).or_insert(0) += 1;
    }

    /// A connection was dropped.
    pub(crate) fn dropped(&mut self, dropped: Dropped) {
        *self.dropped.entry(dropped.name()).or_insert(0) += 1;
    }

    /// Why connections were dropped, and how many.
    pub fn all_dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Dropped::ALL.into_iter().map(Dropped::name);
        names.map(|name| (name, self.dropped.get(name).copied().unwrap_or(0)))
    }

    /// A WebSocket was closed with this code because of what its client sent.
    pub(crate) fn failed(&mut self, code: u16) {
        *self.failures.entry(code).or_insert(0) += 1;
    }

    /// Adds what another worker has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        add(&mut self.errors, &other.errors);
        add(&mut self.dropped, &other.dropped);
        add(&mut self.failures, &other.failures);
    }
}

/// Why a connection was dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The head of a request did not come in time, or a connection that had been used was not used again.
    Head,
    /// The TLS handshake failed, or did not come in time.
    Tls,
    /// Something else than TLS came where that is spoken.
    TlsExpected,
    /// TLS came where it isn't spoken.
    TlsUnexpected,
    /// Nothing of an answer was taken for too long.
    Answer,
    /// The header of the PROXY protocol did not come in time, or was none.
    ProxyHeader,
    /// It was refused, and so many were being told of refusals that it wasn't.
    Untold,
    /// A ping of HTTP/2 was not answered.
    Ping,
    /// A connection in HTTP/2 had no stream for too long.
    Idle,
    /// It had to end, and what went on on it took too long.
    Ending,
    /// The closing handshake of a WebSocket took too long.
    Goodbye,
    /// The client of a long-polled session did not come back.
    Poll,
    /// The system has given a silent WebSocket up.
    Silence,
}

impl Dropped {
    /// What a WebSocket counts as that can't be read any more; `None` where it was its client that has cut it off.
    pub(crate) fn by_reading(error: &io::Error) -> Option<Self> {
        // The system has asked whether the client is there, and got no answer.
        (error.kind() == io::ErrorKind::TimedOut).then_some(Self::Silence)
    }

    /// What a connection in HTTP/2 counts as; `was_idle` if it had no stream for too long.
    pub(crate) fn by_http2(result: &Result<(), Http2Error>, was_idle: bool) -> Option<Self> {
        match result {
            Ok(()) => was_idle.then_some(Self::Idle),
            Err(Http2Error::NoPong(_)) => Some(Self::Ping),
            Err(error) => is_stalled(error).then_some(Self::Answer),
        }
    }

    /// All of them.
    const ALL: [Self; 13] = [
        Self::Head,
        Self::Tls,
        Self::TlsExpected,
        Self::TlsUnexpected,
        Self::Answer,
        Self::ProxyHeader,
        Self::Untold,
        Self::Ping,
        Self::Idle,
        Self::Ending,
        Self::Goodbye,
        Self::Poll,
        Self::Silence,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Tls => "tls",
            Self::TlsExpected => "tls_expected",
            Self::TlsUnexpected => "tls_unexpected",
            Self::Answer => "answer",
            Self::ProxyHeader => "proxy_header",
            Self::Untold => "untold",
            Self::Ping => "ping",
            Self::Idle => "idle",
            Self::Ending => "ending",
            Self::Goodbye => "goodbye",
            Self::Poll => "poll",
            Self::Silence => "silence",
        }
    }
}

fn add<K: Copy + Ord>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(*key).or_insert(0) += count;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_reason_has_its_name_and_is_told() {
        let mut counters = HttpCounters::default();
        for (index, dropped) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(dropped as usize, index, "{}", dropped.name());
            counters.dropped(dropped);
        }
        let all: BTreeMap<_, _> = counters.all_dropped().collect();
        assert_eq!(all.len(), Dropped::ALL.len());
        assert!(all.values().all(|count| *count == 1), "{all:?}");
    }

    #[test]
    fn how_connections_end_is_told_apart() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let by = Dropped::by_reading;
        assert_eq!(by(&io(io::ErrorKind::TimedOut)), Some(Dropped::Silence));
        assert_eq!(by(&io(io::ErrorKind::ConnectionReset)), None);

        let by = Dropped::by_http2;
        assert_eq!(by(&Ok(()), false), None);
        assert_eq!(by(&Ok(()), true), Some(Dropped::Idle));
        let no_pong = Err(Http2Error::NoPong(Duration::from_secs(10)));
        assert_eq!(by(&no_pong, false), Some(Dropped::Ping));
        let stalled = Err(Http2Error::Io(io(io::ErrorKind::TimedOut)));
        assert_eq!(by(&stalled, false), Some(Dropped::Answer));
        let reset = Err(Http2Error::Io(io(io::ErrorKind::ConnectionReset)));
        assert_eq!(by(&reset, false), None);
    }
}
