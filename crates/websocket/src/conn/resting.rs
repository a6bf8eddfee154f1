//! [`WebSocket::serve_member`]: connections that groups write to without waking their tasks.
//!
//! While the task of such a connection rests, its driver lies where the thread's flusher finds it
//! too. Whoever goes on with it takes it out, so there is never more than one, and the task is woken
//! when it was missing.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::Driver;
use super::error::Error;
use super::group::{Enlisted, Recipient};
use super::serve::{Ended, FromFn, Handler, Replies, poll_serve};
use super::stream::{Closed, WebSocket};
use crate::proto::MessageRef;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WebSocket<S> {
    /// [`serve`](Self::serve) for a member of large or busy [groups](super::Group): what is published is
    /// written by one task for all such members of a thread, in one burst, and the connection's own
    /// task isn't woken for it.
    ///
    /// It makes no difference to what is sent, nor to its order. The connection's own task goes on with
    /// what the stream doesn't take at once. A member costs some 100 bytes more than with `serve`, and
    /// where the connection is in no group there is nothing to be gained.
    ///
    /// The task that writes is spawned on the runtime, and ends with the last such member of its thread.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection, as it is the owner.
    ///
    /// ```
    /// # use tautline_websocket::conn::{Error, Group, WebSocket};
    /// # use tokio::net::TcpStream;
    /// # async fn chat(mut ws: WebSocket<TcpStream>, room: Group) -> Result<(), Box<dyn std::error::Error>> {
    /// ws.join(&room)?;
    /// ws.serve_member(|message, _| {
    ///     if let Err(full) = room.publish(message) {
    ///         eprintln!("{full}");
    ///     }
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_member<H>(self, mut handler: H) -> Result<Option<Closed>, Error>
    where
        H: FnMut(MessageRef<'_>, &mut Replies<'_>),
    {
        self.serve_member_with(FromFn(&mut handler)).await
    }

    /// [`serve_member`](Self::serve_member) with a handler that is also told of the end, as
    /// [`serve_with`](Self::serve_with) does.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection, as it is the owner; the handler is told, also when the
    /// future was never polled.
    pub fn serve_member_with<H: Handler>(
        self,
        handler: H,
    ) -> impl Future<Output = Result<Option<Closed>, Error>> {
        // Made before the future is polled: nobody says that it will be.
        let mut serving = Serving {
            resting: Resting::new(self.driver),
            handler,
            ended: false,
        };
        async move {
            serving.resting.enlist();
            poll_fn(|cx| serving.poll(cx)).await
        }
    }
}

/// A connection and its handler, which is told of the end.
struct Serving<S, H: Handler> {
    resting: Arc<Resting<S>>,
    handler: H,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Serving<S, H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Closed>, Error>> {
        let (driver, failed) = self.resting.take(cx);
        let Some(mut driver) = driver else {
            // Polled again after a panic of the handler, or of the stream.
            return Poll::Pending;
        };
        let ended = match failed {
            Some(error) => driver.attachments.end(Err(*error)),
            None => match poll_serve(&mut driver, cx, &mut self.handler) {
                Poll::Ready(ended) => ended,
                Poll::Pending => {
                    self.resting.put(driver);
                    return Poll::Pending;
                }
            },
        };
        self.ended = true;
        let closed = driver.closed().cloned();
        self.handler.ended(match &ended {
            Ok(()) => Ended::Closed(closed.as_ref()),
            Err(error) => Ended::Failed(error),
        });
        Poll::Ready(ended.map(|()| closed))
    }
}

impl<S, H: Handler> Drop for Serving<S, H> {
    fn drop(&mut self) {
        if !self.ended {
            self.handler.ended(Ended::Dropped);
        }
        // What is attached to the driver refers to the place where it lies.
        let driver = self.resting.lock().driver.take();
        drop(driver);
    }
}

/// Where a driver lies while its task rests.
struct Resting<S> {
    state: Mutex<State<S>>,
}

struct State<S> {
    /// Missing while the task goes on with it.
    driver: Option<Box<Driver<S>>>,
    /// Wakes the task.
    waker: Waker,
    /// How writing has failed, for the task to report.
    failed: Option<Box<Error>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Resting<S> {
    /// Has the task of this thread write what groups have. Outside of a runtime there is none, and the
    /// connection's own task does it.
    fn enlist(self: &Arc<Self>) {
        if let Some(enlisted) = Enlisted::on_this_thread()
            && let Some(driver) = &mut self.lock().driver
        {
            let recipient = Arc::clone(self) as Arc<dyn Recipient>;
            driver.attachments.get().set_recipient(enlisted, recipient);
        }
    }
}

impl<S> Resting<S> {
    fn new(driver: Box<Driver<S>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                driver: Some(driver),
                waker: Waker::noop().clone(),
                failed: None,
            }),
        })
    }

    /// Takes the driver, for the task of `cx` to go on with it, and with it how writing has failed.
    #[inline]
    fn take(&self, cx: &Context<'_>) -> (Option<Box<Driver<S>>>, Option<Box<Error>>) {
        let mut state = self.lock();
        let taken = (state.driver.take(), state.failed.take());
        if !state.waker.will_wake(cx.waker()) {
            let old = std::mem::replace(&mut state.waker, cx.waker().clone());
            // What drops a waker may run code of others, and not under the lock.
            drop(state);
            drop(old);
        }
        taken
    }

    #[inline]
    fn put(&self, driver: Box<Driver<S>>) {
        self.lock().driver = Some(driver);
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // A panic of the stream leaves a driver with which its task finds the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Recipient for Resting<S> {
    fn deliver(&self) {
        let mut state = self.lock();
        let State {
            driver,
            waker,
            failed,
        } = &mut *state;
        let rests_on = match driver {
            Some(driver) => driver.deliver_for_task(&mut Context::from_waker(waker)),
            None => Ok(false),
        };
        match rests_on {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => *failed = Some(Box::new(error)),
        }
        let waker = waker.clone();
        drop(state);
        waker.wake();
    }

    fn wake(&self) {
        let waker = self.lock().waker.clone();
        waker.wake();
    }
}
