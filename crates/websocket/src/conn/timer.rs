//! The one timer of a connection, if anything runs against time there.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// No timer, until there is a deadline. From then on one, for whichever deadline is next.
#[derive(Default)]
pub(super) struct Timer(Option<Box<Running>>);

struct Running {
    sleep: Pin<Box<Sleep>>,
    /// Who is woken by it.
    waker: Waker,
    /// Whether the deadline is that of closing, which stays.
    closing: bool,
}

impl Timer {
    /// Ready once `deadline` has passed.
    ///
    /// A timer that runs already is left alone as long as it fires early enough: one that fires too
    /// early is set again then. So a deadline may move on with each call, and that costs nothing.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let running = self.run(deadline);
        if running.sleep.deadline() > deadline {
            running.sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(running.poll(cx));
            if running.sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            running.sleep.as_mut().reset(deadline);
        }
    }

    /// Ready once closing has taken as long as it may, from the first call on.
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>, timeout: Duration) -> Poll<()> {
        if !self.0.as_ref().is_some_and(|running| running.closing) {
            let deadline = Instant::now() + timeout;
            let running = self.run(deadline);
            running.sleep.as_mut().reset(deadline);
            running.closing = true;
        }
        match &mut self.0 {
            Some(running) => running.poll(cx),
            None => Poll::Pending,
        }
    }

    fn run(&mut self, deadline: Instant) -> &mut Running {
        self.0.get_or_insert_with(|| {
            Box::new(Running {
                sleep: Box::pin(sleep_until(deadline)),
                waker: Waker::noop().clone(),
                closing: false,
            })
        })
    }
}

impl Running {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Already set to wake this task, and it hasn't fired.
        if self.waker.will_wake(cx.waker()) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let poll = self.sleep.as_mut().poll(cx);
        self.waker = match poll {
            Poll::Ready(()) => Waker::noop().clone(),
            Poll::Pending => cx.waker().clone(),
        };
        poll
    }
}
