//! What a worker counts of requests and connections that come to nothing.

use std::collections::BTreeMap;

use http::StatusCode;

/// Requests that were answered with an error, connections that were dropped before they asked for anything, and
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

    /// A connection was dropped before its request was there.
    pub(crate) fn dropped(&mut self, dropped: Dropped) {
        *self.dropped.entry(dropped.name()).or_insert(0) += 1;
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
    /// Nothing of an answer was taken for too long.
    Answer,
}

impl Dropped {
    fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Tls => "tls",
            Self::Answer => "answer",
        }
    }
}

fn add<K: Copy + Ord>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(*key).or_insert(0) += count;
    }
}
