//! What an answer has to say about the connection that it goes over.
//!
//! Some answers go on for as long as their client wants to listen. While one does, the connection
//! doesn't grow too old; and when the session behind it is over, the connection has to end, even if
//! the client has stopped reading.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{HEAD_TIMEOUT, KEPT_TIMEOUT, MAX_CONNECTION_AGE};
use crate::client_address::Trust;

/// A connection, as its answers see it.
#[derive(Debug, Default)]
pub struct HttpLine {
    /// Whom the connection is from.
    from: Option<SocketAddr>,
    /// Whether whom it is from keeps it for further requests, and ends it himself.
    is_kept: bool,
    /// Answers that go on.
    streams: Cell<usize>,
    end: Cell<Option<End>>,
    changed: Notify,
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As soon as what is being answered is written.
    Soon,
    /// At once: nobody reads.
    Now,
}

impl HttpLine {
    /// A connection from an address, where that is known.
    pub(crate) fn new(from: Option<SocketAddr>) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    /// A connection from an address, which is kept if that is one of a proxy that is trusted.
    ///
    /// What is in front keeps connections for the requests to come, and can't know that one is being closed when it
    /// sends the next: that request would be lost. So it is the one to close them.
    pub(crate) fn of(from: SocketAddr, trust: &Trust) -> Self {
        Self {
            from: Some(from),
            is_kept: trust.has(from.ip()),
            ..Self::default()
        }
    }

    /// One from a proxy that is trusted.
    pub(crate) fn kept(from: SocketAddr) -> Self {
        Self {
            from: Some(from),
            is_kept: true,
            ..Self::default()
        }
    }

    /// How long it may idle before a request, and the request's head may take.
    pub(crate) fn patience(&self) -> Duration {
        if self.is_kept {
            KEPT_TIMEOUT
        } else {
            HEAD_TIMEOUT
        }
    }

    /// How old it may become.
    pub(crate) fn max_age(&self) -> Duration {
        if self.is_kept {
            Duration::MAX
        } else {
            MAX_CONNECTION_AGE
        }
    }

    /// Whom the connection is from.
    pub(crate) fn from(&self) -> Option<SocketAddr> {
        self.from
    }

    /// Has the connection end: when all is written if `flush` is set, at once otherwise.
    pub fn end(&self, flush: bool) {
        self.end.set(Some(if flush { End::Soon } else { End::Now }));
        self.changed.notify_one();
    }

    /// Whether it has to end at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.end.get() == Some(End::Now)
    }

    /// Says that an answer goes on, until what is returned is dropped.
    pub(crate) fn begin_stream(self: &Rc<Self>) -> StreamGuard {
        self.streams.set(self.streams.get() + 1);
        StreamGuard(Rc::clone(self))
    }

    /// Resolves when the connection has to end, or is older than `max_age` and has nothing that goes
    /// on.
    pub(crate) async fn ended(&self, max_age: Duration) -> End {
        let mut age = std::pin::pin!(tokio::time::sleep(max_age));
        let mut is_old = false;
        loop {
            if let Some(end) = self.end.get() {
                return end;
            }
            if is_old && self.streams.get() == 0 {
                return End::Soon;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = age.as_mut(), if !is_old => is_old = true,
            }
        }
    }
}

/// An answer that goes on, until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard(Rc<HttpLine>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Networks;

    const AGE: Duration = Duration::from_secs(300);

    /// By its address in the form in which they are compared.
    #[test]
    fn a_trusted_proxy_keeps_its_connections() {
        let proxies = Networks::parse(&["10.0.0.0/8"]).expect("a network");
        let trust = Trust {
            proxies,
            ..Trust::default()
        };
        for (from, is_kept) in [
            ("10.1.2.3:4", true),
            ("[::ffff:10.1.2.3]:4", true),
            ("11.0.0.1:4", false),
        ] {
            let line = HttpLine::of(from.parse().expect("an address"), &trust);
            let patience = if is_kept { KEPT_TIMEOUT } else { HEAD_TIMEOUT };
            assert_eq!(line.patience(), patience, "{from}");
            assert_eq!(line.max_age() > MAX_CONNECTION_AGE, is_kept, "{from}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_grows_old_only_without_streams() {
        let line = Rc::new(HttpLine::default());
        assert_eq!(line.ended(AGE).await, End::Soon);
        let stream = line.begin_stream();
        let longer = tokio::time::timeout(AGE * 10, line.ended(AGE)).await;
        assert!(longer.is_err());
        let (end, ()) = tokio::join!(line.ended(AGE), async {
            tokio::time::sleep(AGE * 2).await;
            drop(stream);
        });
        assert_eq!(end, End::Soon);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_its_line() {
        for (flush, expected) in [(true, End::Soon), (false, End::Now)] {
            let line = Rc::new(HttpLine::default());
            let _stream = line.begin_stream();
            line.end(flush);
            assert_eq!(line.ended(AGE).await, expected);
        }
    }
}
