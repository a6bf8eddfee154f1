//! How long what is to be written waits for a client that takes nothing.
//!
//! Whoever takes a little goes on for as long as there is more to take, and where there is nothing to say nobody waits.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Watches over one place where something is written.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// How much had been taken when the timer was set.
    taken: u64,
    /// There while something waits; who waits for nothing has no memory for it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// For as long as that.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            taken: 0,
            timer: None,
        }
    }

    /// Something waits for the client, who has taken so much so far, in whatever unit. Ready with an error of the kind
    /// [`TimedOut`](io::ErrorKind::TimedOut) when that was the same for too long.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>, taken: u64) -> Poll<io::Error> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if taken != self.taken {
                    timer.as_mut().reset(Instant::now() + self.limit);
                }
                timer
            }
            none => none.insert(Box::pin(sleep(self.limit))),
        };
        self.taken = taken;
        timer.as_mut().poll(cx).map(|()| {
            let seconds = self.limit.as_secs_f64();
            let text = format!("the client took nothing of what it is answered for {seconds} s");
            io::Error::new(io::ErrorKind::TimedOut, text)
        })
    }

    /// Nothing waits.
    pub(crate) fn rest(&mut self) {
        self.timer = None;
    }
}

/// Whether a connection failed because of that, as far as those tell who pass errors on.
pub(crate) fn is_stalled(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(one) = error {
        if let Some(io) = one.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::TimedOut;
        }
        error = one.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn it_ends_only_when_nothing_was_taken_for_all_of_the_time() {
        let (mut patience, start) = (Patience::new(LIMIT), Instant::now());
        for taken in 0..10 {
            let stalled = poll_fn(|cx| patience.poll_stalled(cx, taken));
            let waited = tokio::time::timeout(LIMIT - Duration::from_secs(1), stalled).await;
            assert!(waited.is_err(), "{taken}");
        }
        let error = poll_fn(|cx| patience.poll_stalled(cx, 9)).await;
        assert_eq!(start.elapsed(), LIMIT * 10 - Duration::from_secs(9));
        assert!(
            is_stalled(&error) && error.to_string().contains("30 s"),
            "{error}"
        );
        // Between two waits there is all the time that there is.
        patience.rest();
        sleep(LIMIT * 10).await;
        let again = Instant::now();
        poll_fn(|cx| patience.poll_stalled(cx, 9)).await;
        assert_eq!(again.elapsed(), LIMIT);
    }
}
