//! [`Group`]: messages that go to many connections, encoded once.

mod log;

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

#[cfg(feature = "deflate")]
use super::codec;
use super::write_queue::WriteQueue;
use crate::proto::{Connection, MessageRef, OpCode, frame};
use log::{Cursor, Log};

/// Connections that are all sent the same messages: the subscribers of a topic, the people in a
/// room.
///
/// A message is made into a frame once, whoever gets it, and its bytes are shared. Where
/// permessage-deflate was agreed it is compressed once for each size of window in use, without a
/// context. Members may be on any thread, and clones of a group are handles to the same one.
///
/// ```
/// use tautline_websocket::conn::{AcceptOptions, Group, accept};
/// use tokio::net::TcpStream;
///
/// /// What one says is told to all.
/// async fn chat(stream: TcpStream, room: Group) -> Result<(), Box<dyn std::error::Error>> {
///     let mut ws = accept(stream, &AcceptOptions::default()).await?.websocket;
///     ws.join(&room)?;
///     ws.serve(|message, _| {
///         if let Err(full) = room.publish(message) {
///             eprintln!("{full}");
///         }
///     })
///     .await?;
///     Ok(())
/// }
/// ```
///
/// # Delivery
///
/// All members get the same messages in the same order, in between whatever else is sent on their
/// connection. Nothing is queued for each member by itself: the group keeps one log, of which each
/// takes the rest whenever its connection is polled and what it was given before is nearly
/// written. What was published in the meantime leaves in one write. Publishing wakes the
/// connections that wait, and does nothing else; it may be done from any thread, in and outside of
/// a runtime.
///
/// A connection only gets on while it is polled: by [`serve`](super::WebSocket::serve), by
/// [`recv`](super::WebSocket::recv), or as a stream. Dropping it leaves the group.
///
/// # Slow members
///
/// The log is bounded, by [`GroupOptions::backlog`]. When it is full, the oldest messages are
/// dropped, and a member that had not taken them is dealt with as [`GroupOptions::slow`] says. All
/// others are not affected. So a group holds so many bytes at the most (twice that, where nobody
/// was polled in between), however many members it has, and none when all have taken everything.
#[derive(Clone)]
pub struct Group {
    shared: Arc<Shared>,
}

struct Shared {
    options: GroupOptions,
    state: Mutex<State>,
}

/// How a group treats members that don't keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOptions {
    /// Bytes of frames that are kept for members who have not taken them yet, for each form of
    /// them (plain, and each size of window for compression). Default 4 MiB.
    pub backlog: usize,
    /// What becomes of a member for whom something was dropped. Default
    /// [`SlowMember::Disconnect`].
    pub slow: SlowMember,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            backlog: 4 * 1024 * 1024,
            slow: SlowMember::Disconnect,
        }
    }
}

/// What becomes of a member for whom messages had to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowMember {
    /// It is sent a Close frame with 1013, *try again later*, and its connection ends with
    /// [`Error::TooSlow`](super::Error::TooSlow): it knows that it has missed something, and can come back.
    Disconnect,
    /// It goes on with the oldest message that is left. It is not told what it has missed.
    DropOldest,
    /// It goes on with the newest message, and those that were published together with it, and
    /// misses all before: where only the newest state counts. It is not told.
    SkipToNewest,
}

/// Why a message was not published: since the members were polled last, as many bytes were
/// published as the group may keep.
///
/// A task that publishes without end has to let others have their turn, as with
/// `tokio::task::yield_now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the group has {waiting} bytes that none of its members has had the time to take; the limit is {limit}"
)]
pub struct GroupFull {
    /// Bytes that wait.
    pub waiting: usize,
    /// [`GroupOptions::backlog`].
    pub limit: usize,
}

/// Why a connection can't be a member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// What a client sends is masked for each connection by itself (RFC 6455 §5.3), so it can't be shared.
    #[error("only a server's connections can be in a group; this one is a client's")]
    Client,
    /// A Close frame was sent.
    #[error("the connection is closing; it can't join a group any more")]
    Closing,
}

#[derive(Default)]
struct State {
    /// A log for each form in which frames are wanted.
    logs: Vec<(Form, Log)>,
    members: usize,
    /// The members' tasks to be woken at the next publication.
    waiting: Vec<Waker>,
    /// Places in `waiting` whose members have left.
    vacant: Vec<u32>,
    /// Counts how often they were woken.
    turn: u64,
    /// Kept for its memory: what `waiting` was in the turn before.
    spare: Vec<Waker>,
}

/// In which form frames are sent to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// Compressed for a window of so many bits, if that makes them smaller.
    #[cfg(feature = "deflate")]
    Deflated(u8),
}

impl Form {
    /// The form that suits a connection.
    pub(super) fn of(engine: &Connection) -> Result<Self, JoinError> {
        if !engine.role().is_server() {
            return Err(JoinError::Client);
        }
        #[cfg(feature = "deflate")]
        if let Some(agreement) = engine.extensions().deflate_agreement()
            // Smaller windows can't be written for; a message may always be sent as it is.
            && agreement.server_max_window_bits >= 9
        {
            return Ok(Self::Deflated(agreement.server_max_window_bits));
        }
        Ok(Self::Plain)
    }

    /// The compressed frame, where this form has one.
    #[cfg(feature = "deflate")]
    fn deflate(self, opcode: OpCode, payload: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Plain => None,
            Self::Deflated(bits) => {
                codec::with(|codec| frame::encode_shared_deflated(opcode, payload, bits, codec))
            }
        }
    }

    #[cfg(not(feature = "deflate"))]
    fn deflate(self, _: OpCode, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

impl Group {
    /// A group without members, with the default options.
    pub fn new() -> Self {
        Self::with_options(GroupOptions::default())
    }

    /// A group without members.
    pub fn with_options(options: GroupOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                state: Mutex::default(),
            }),
        }
    }

    /// Sends a message to all members, the publisher too if it is one. Returns at once: it is
    /// written when the members' connections are polled.
    ///
    /// # Errors
    ///
    /// [`GroupFull`]; then the message goes to nobody.
    pub fn publish<'m>(&self, message: impl Into<MessageRef<'m>>) -> Result<(), GroupFull> {
        let (opcode, payload) = match message.into() {
            MessageRef::Text(text) => (OpCode::Text, text.as_bytes()),
            MessageRef::Binary(bytes) => (OpCode::Binary, bytes),
        };
        let limit = self.shared.options.backlog;
        // To compress takes time, and is done before the lock is taken.
        let mut deflated = self.deflate(opcode, payload);
        let mut woken = {
            let mut state = self.shared.lock();
            let waiting = state.logs.iter().map(|(_, log)| log.untaken()).max();
            if let Some(waiting) = waiting
                && waiting > limit.saturating_sub(payload.len())
                && waiting > 0
            {
                return Err(GroupFull { waiting, limit });
            }
            for (form, log) in &mut state.logs {
                if log.is_deserted() {
                    continue;
                }
                // Missing for members who came in the meantime, and that's all right.
                let compressed = deflated.iter_mut().find(|(made_for, _)| made_for == form);
                match compressed.and_then(|(_, frame)| frame.take()) {
                    Some(frame) => {
                        log.append(limit, true, |frames| frames.extend_from_slice(&frame));
                    }
                    None => log.append(limit, false, |frames| {
                        frame::write_unmasked(opcode, payload, frames);
                    }),
                }
            }
            state.next_turn()
        };
        // Without the lock: members on other threads take it as soon as they are woken.
        for waker in woken.drain(..) {
            waker.wake();
        }
        self.shared.lock().keep(woken);
        Ok(())
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.shared.lock().members
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in each compressed form that there are members for.
    fn deflate(&self, opcode: OpCode, payload: &[u8]) -> Vec<(Form, Option<Vec<u8>>)> {
        let mut forms: Vec<(Form, Option<Vec<u8>>)> = {
            let state = self.shared.lock();
            let in_use = state
                .logs
                .iter()
                .filter(|(form, log)| *form != Form::Plain && !log.is_deserted());
            in_use.map(|(form, _)| (*form, None)).collect()
        };
        for (form, frame) in &mut forms {
            *frame = form.deflate(opcode, payload);
        }
        forms
    }

    /// Makes a connection a member that is sent frames in this form.
    pub(super) fn admit(&self, form: Form) -> Membership {
        let mut state = self.shared.lock();
        let log = match state
            .logs
            .iter()
            .position(|(made_for, _)| *made_for == form)
        {
            Some(log) => log,
            None => {
                state.logs.push((form, Log::default()));
                state.logs.len() - 1
            }
        };
        state.members += 1;
        Membership {
            cursor: state.logs[log].1.join(),
            log: log as u32,
            slot: 0,
            turn: NEVER,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("options", &self.shared.options)
            .field("members", &self.len())
            .finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins the next turn, and returns whom to wake for it.
    fn next_turn(&mut self) -> Vec<Waker> {
        self.turn += 1;
        self.vacant.clear();
        let spare = mem::take(&mut self.spare);
        mem::replace(&mut self.waiting, spare)
    }

    /// Puts a waker among those that wait, and returns where.
    fn wait(&mut self, waker: Waker) -> u32 {
        if let Some(slot) = self.vacant.pop() {
            self.waiting[slot as usize] = waker;
            return slot;
        }
        self.waiting.push(waker);
        (self.waiting.len() - 1) as u32
    }

    /// Keeps an empty list for the memory that it has.
    fn keep(&mut self, list: Vec<Waker>) {
        if list.capacity() > self.spare.capacity() && list.capacity() <= 2 * self.members {
            self.spare = list;
        }
    }
}

/// One connection's part in a group. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Membership {
    shared: Arc<Shared>,
    cursor: Cursor,
    /// Which of the group's logs it takes from.
    log: u32,
    /// Where its waker is among those that wait, if they have not been woken since `turn`.
    slot: u32,
    turn: u64,
}

/// What came of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    Nothing,
    Plain,
    /// The peer's window has moved on.
    Compressed,
    /// Something was dropped that this member should have had, and it is to be disconnected.
    Outrun,
}

impl Membership {
    /// Whether it is one in this group.
    pub(super) fn is_in(&self, group: &Group) -> bool {
        Arc::ptr_eq(&self.shared, &group.shared)
    }

    /// Takes what was published, as long as less than `until` bytes wait in `queue`; the task of
    /// `cx` is woken at the next publication.
    #[inline]
    pub(super) fn take(&mut self, cx: &Context<'_>, queue: &mut WriteQueue, until: usize) -> Took {
        // What drops a waker may run code of others, and not under the lock.
        let replaced;
        let mut took = Took::Nothing;
        {
            let mut state = self.shared.lock();
            replaced = if self.turn == state.turn {
                let slot = &mut state.waiting[self.slot as usize];
                let moved = !slot.will_wake(cx.waker());
                moved.then(|| mem::replace(slot, cx.waker().clone()))
            } else {
                self.turn = state.turn;
                self.slot = state.wait(cx.waker().clone());
                None
            };
            let log = &mut state.logs[self.log as usize].1;
            if log.has_outrun(&self.cursor) {
                match self.shared.options.slow {
                    SlowMember::Disconnect => return Took::Outrun,
                    // What is dropped is decided as late as it can be.
                    _ if queue.len() >= until => 0,
                    SlowMember::DropOldest => log.skip(&mut self.cursor, false),
                    SlowMember::SkipToNewest => log.skip(&mut self.cursor, true),
                };
            }
            while queue.len() < until {
                let more = log.take(&mut self.cursor, |frames, compressed| {
                    queue.push_shared(frames);
                    if compressed {
                        took = Took::Compressed;
                    } else if took == Took::Nothing {
                        took = Took::Plain;
                    }
                });
                if !more {
                    break;
                }
            }
        }
        drop(replaced);
        took
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // What drops a waker may run code of others, and not under the lock.
        let mut _waker = None;
        let mut state = self.shared.lock();
        state.members -= 1;
        state.logs[self.log as usize].1.leave(&self.cursor);
        if self.turn == state.turn {
            let slot = &mut state.waiting[self.slot as usize];
            _waker = Some(mem::replace(slot, Waker::noop().clone()));
            state.vacant.push(self.slot);
        }
        if state.members == 0 {
            // Nothing but vacant places is left.
            state.turn += 1;
            state.waiting = Vec::new();
            state.vacant = Vec::new();
            state.spare = Vec::new();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// No turn.
const NEVER: u64 = u64::MAX;
