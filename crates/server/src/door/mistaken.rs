//! Who speaks TLS to a port of plain HTTP, and who speaks plain HTTP to a port of TLS: a letter too many, or too few, in an
//! address. Both are told in plain HTTP: what speaks TLS can't read it, but clients that see something like `HTTP/` come back
//! say so (Go's does), and all others say that it was no TLS, where an alert would have people look at certificates.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tautline_websocket::proto::handshake::Refusal;
use tokio::net::TcpStream;

use super::refuse;
use crate::http::counters::Dropped;
use crate::io::Io;
use crate::worker::Worker;
use crate::worker::connection_log::Failed;

/// The type of a record in which a handshake of TLS begins (RFC 8446, section 5.1). No method of HTTP begins with it.
pub(crate) const HANDSHAKE: u8 = 22;

/// When the operator was last told that somebody speaks TLS where there is none.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Option<Duration>>);

impl Told {
    /// Whether it is time to tell of it (again).
    fn is_due(&self, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|last| now.saturating_sub(last) < TELL_AGAIN) {
            return false;
        }
        *told = Some(now);
        true
    }
}

/// Tells a client that has begun with TLS, and, so that somebody knows who can do something about it, the operator.
pub(super) async fn tell_of_no_tls(worker: &Worker, io: Io, from: SocketAddr) {
    let admission = worker.live().websocket.admission.clone();
    if admission.tls_told.is_due(admission.now()) {
        tracing::warn!(
            client = %from.ip(),
            "a client speaks TLS (https:// or wss://) to a port of plain HTTP: switch http_server.tls on, have a proxy in front \
             that ends TLS, or use http:// or ws://"
        );
    }
    tell(worker, io, from, Dropped::TlsUnexpected, NO_TLS).await;
}

/// Tells a client that doesn't begin with TLS, at a port where all do. Whoever speaks neither TLS nor HTTP doesn't mind.
pub(crate) async fn tell_of_tls(worker: &Worker, io: TcpStream, from: SocketAddr) {
    tell(worker, Io::Plain(io), from, Dropped::TlsExpected, TLS).await;
}

async fn tell(worker: &Worker, io: Io, from: SocketAddr, dropped: Dropped, what: &'static str) {
    worker.count_http(|counters| {
        counters.dropped(dropped);
        counters.refused(400);
    });
    worker.log_failed(from.ip(), Failed::Refused(400, what));
    // They are strangers yet, and as many as they like.
    let admission = worker.live().websocket.admission.clone();
    if let Some(_goodbye) = admission.goodbye() {
        refuse(io, &Refusal::new(400, what)).await;
    }
}

const NO_TLS: &str = "this port speaks plain HTTP; use http:// or ws:// instead of https:// or wss://, or switch TLS on \
                      (http_server.tls)";
const TLS: &str = "this port speaks TLS; use https:// or wss:// instead of http:// or ws://";

/// Anybody can cause it, and scanners do.
const TELL_AGAIN: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_once_an_hour() {
        let told = Told::default();
        let due =
            [5, 6, 3604, 3605, 3606, 8000].map(|second| told.is_due(Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
