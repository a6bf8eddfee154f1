//! What clients have heard, and how long it took.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tokio::sync::Notify;

use crate::Result;

/// What all clients of a crowd have heard.
pub(crate) struct Heard {
    start: Instant,
    /// Nanoseconds, one for each publication that a client has heard.
    times: RefCell<Vec<u64>>,
    wanted: Cell<usize>,
    is_all: Notify,
}

impl Heard {
    /// Publications say when they were sent, in nanoseconds since `start`.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            times: RefCell::default(),
            wanted: Cell::new(usize::MAX),
            is_all: Notify::new(),
        }
    }

    /// Takes the publications that are whole in `received` from `from` on, and says where what is behind them begins.
    pub(crate) fn take(&self, received: &[u8], mut from: usize) -> Result<usize> {
        let now = u64::try_from(self.start.elapsed().as_nanos())?;
        let mut times = self.times.borrow_mut();
        while let Some(at) = find(&received[from..], b"\"t\":") {
            let digits = &received[from + at + 4..];
            let Some(end) = find(digits, b"}") else {
                break;
            };
            let sent: u64 = std::str::from_utf8(&digits[..end])?.parse()?;
            times.push(now.saturating_sub(sent));
            from += at + 4 + end;
        }
        if times.len() >= self.wanted.get() {
            self.is_all.notify_one();
        }
        Ok(from)
    }

    /// Waits until there are so many, and gives all of them.
    pub(crate) async fn all(&self, wanted: usize) -> Vec<u64> {
        self.wanted.set(wanted);
        while self.times.borrow().len() < wanted {
            self.is_all.notified().await;
        }
        self.wanted.set(usize::MAX);
        self.times.take()
    }
}

pub(crate) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
