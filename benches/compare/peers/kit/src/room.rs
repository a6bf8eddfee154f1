//! Broadcasting as it is done over libraries that know nothing of it: a channel for each connection, and a list of
//! their sending ends.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Everybody who is connected.
#[derive(Debug)]
pub struct Room<M>(Mutex<Members<M>>);

#[derive(Debug)]
struct Members<M> {
    next: u64,
    senders: HashMap<u64, UnboundedSender<M>>,
}

impl<M: Clone> Room<M> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Members {
            next: 0,
            senders: HashMap::new(),
        }))
    }

    /// Lets one in: its number, and what is said from now on.
    pub fn enter(&self) -> (u64, UnboundedReceiver<M>) {
        let (sender, receiver) = unbounded_channel();
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = members.next;
        members.next += 1;
        members.senders.insert(id, sender);
        (id, receiver)
    }

    /// Lets one out.
    pub fn leave(&self, id: u64) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.senders.remove(&id);
    }

    /// Says something to all. Cloning `message` should be cheap.
    pub fn say(&self, message: &M) {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in members.senders.values() {
            // One that is about to leave doesn't listen any more.
            let _ = sender.send(message.clone());
        }
    }
}

enum Next<I, M> {
    Heard(M),
    Came(Option<I>),
}

/// One connection of a room: what comes is said to all, what is heard is sent, as much in one write as there is.
pub(crate) async fn take_part<W, I, M>(
    mut socket: W,
    room: &Room<M>,
    reply: impl Fn(I) -> Option<M>,
) where
    W: Stream<Item = I> + Sink<M> + Unpin,
    M: Clone,
{
    let (id, mut heard) = room.enter();
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(Some(message)) = heard.poll_recv(context) {
                return Poll::Ready(Next::Heard(message));
            }
            socket.poll_next_unpin(context).map(Next::Came)
        });
        match next.await {
            Next::Came(Some(item)) => {
                if let Some(message) = reply(item) {
                    room.say(&message);
                }
                // Whatever else has come is said before anything is written.
                while let Some(item) = crate::ready(&mut socket).await {
                    if let Some(message) = reply(item) {
                        room.say(&message);
                    }
                }
            }
            Next::Came(None) => break,
            Next::Heard(message) => {
                let mut outcome = socket.feed(message).await;
                while let (Ok(()), Ok(message)) = (&outcome, heard.try_recv()) {
                    outcome = socket.feed(message).await;
                }
                if outcome.is_err() || socket.flush().await.is_err() {
                    break;
                }
            }
        }
    }
    room.leave(id);
}
