//! What others have for a connection: messages from its [`Sender`](super::Sender)s, and the wish
//! that it be closed. The connection's own task takes it from here whenever it is polled; nobody
//! else touches its socket.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::proto::{CloseCode, Message};

/// Shared by a connection and all who have something for it.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Tells one of those who wait for room that there is some, and all that it is over.
    room: Notify,
    /// Tells all who wait for it that the connection is over.
    end: Notify,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// What the messages are charged with.
    bytes: usize,
    /// What they may be charged with together.
    capacity: usize,
    /// How many wait for room.
    waiting: usize,
    close: Option<Goodbye>,
    /// Nothing is taken any more.
    over: bool,
    /// The connection's task, unless it has been woken since it looked last.
    waker: Option<Waker>,
}

/// What a Close frame is to say.
#[derive(Clone, Debug)]
pub(super) struct Goodbye {
    pub(super) code: CloseCode,
    pub(super) reason: Box<str>,
}

/// What is there for the connection.
pub(super) enum Mail {
    Message(Message),
    /// Nothing comes after it.
    Goodbye(Goodbye),
}

/// Why a message was not taken.
pub(super) enum Refused {
    Full(Message),
    Over(Message),
}

impl Inbox {
    /// An inbox for messages that are charged with so much at the most.
    pub(super) fn set_capacity(&self, capacity: usize) {
        let mut state = self.lock();
        if state.capacity == 0 {
            state.capacity = capacity.max(1);
        }
    }

    /// Adds a message. `has_waited` says that the caller is among those who wait for room.
    pub(super) fn push(&self, message: Message) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.over || state.close.is_some() {
            return Err(Refused::Over(message));
        }
        let charge = charge(&message);
        if !state.has_room_for(charge) {
            return Err(Refused::Full(message));
        }
        state.bytes += charge;
        state.messages.push_back(message);
        let waker = state.waker.take();
        let others = state.waiting > 0 && state.has_room_for(0);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if others {
            self.room.notify_one();
        }
        Ok(())
    }

    /// Adds a message as soon as there is room.
    pub(super) async fn push_when_there_is_room(
        &self,
        mut message: Message,
    ) -> Result<(), Message> {
        let mut waiting = None;
        loop {
            // Before looking: then nothing that happens afterwards goes unnoticed.
            let room = self.room.notified();
            match self.push(message) {
                Ok(()) => return Ok(()),
                Err(Refused::Over(message)) => return Err(message),
                Err(Refused::Full(back)) => message = back,
            }
            if waiting.is_none() {
                waiting = Some(Waiting::begin(self));
                // Room may have come before this one was counted.
                continue;
            }
            room.await;
        }
    }

    /// Wishes that the connection be closed, behind what it was given before. The first wish counts.
    pub(super) fn close(&self, goodbye: Goodbye) {
        let mut state = self.lock();
        if state.over || state.close.is_some() {
            return;
        }
        state.close = Some(goodbye);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        // Those who wait for room will get none.
        self.room.notify_waiters();
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.over || state.close.is_some()
    }

    /// Waits until the connection is over.
    pub(super) async fn ended(&self) {
        loop {
            let end = self.end.notified();
            if self.lock().over {
                return;
            }
            end.await;
        }
    }

    /// What the messages are charged with.
    pub(super) fn backlog(&self) -> usize {
        self.lock().bytes
    }

    /// Has the task of `cx` woken by the next that comes.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        let known = matches!(&state.waker, Some(waker) if waker.will_wake(cx.waker()));
        if !known {
            let old = state.waker.replace(cx.waker().clone());
            drop(state);
            drop(old);
        }
    }

    /// Whether the connection is to be closed: then all that is here should be taken, for nothing
    /// more will come.
    pub(super) fn wants_close(&self) -> bool {
        self.lock().close.is_some()
    }

    /// Takes what is next.
    pub(super) fn take(&self) -> Option<Mail> {
        let mut state = self.lock();
        let Some(message) = state.messages.pop_front() else {
            if state.messages.capacity() > 0 {
                state.messages = VecDeque::new();
            }
            if state.over {
                return None;
            }
            return state.close.clone().map(Mail::Goodbye);
        };
        state.bytes -= charge(&message);
        let others = state.waiting > 0;
        drop(state);
        if others {
            self.room.notify_one();
        }
        Some(Mail::Message(message))
    }

    /// Takes nothing any more, and drops what is here.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if mem::replace(&mut state.over, true) {
            return;
        }
        state.bytes = 0;
        let dropped = (mem::take(&mut state.messages), state.waker.take());
        drop(state);
        drop(dropped);
        self.room.notify_waiters();
        self.end.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One that is too large by itself goes in when nothing else is there.
    fn has_room_for(&self, charge: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(charge) <= self.capacity
    }
}

/// One who waits for room, as long as it is not dropped.
struct Waiting<'a>(&'a Inbox);

impl<'a> Waiting<'a> {
    fn begin(inbox: &'a Inbox) -> Self {
        inbox.lock().waiting += 1;
        Self(inbox)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// What a message is charged with.
fn charge(message: &Message) -> usize {
    message.len() + MESSAGE_OVERHEAD
}

/// What a message costs beyond its payload, about.
const MESSAGE_OVERHEAD: usize = 64;
