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

/// A connection, as its answers see it.
#[derive(Debug, Default)]
pub struct HttpLine {
    /// Whom the connection is from.
    from: Option<SocketAddr>,
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

    const AGE: Duration = Duration::from_secs(300);

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
