//! [`Group`]: messages that go to many connections, encoded once.

mod flusher;
mod log;
mod member;
mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

#[cfg(feature = "deflate")]
use super::codec;
use crate::proto::{Connection, MessageRef, OpCode, frame};
use flusher::Flusher;
pub(super) use flusher::{Enlisted, Recipient};
use log::Log;
pub(super) use member::{Membership, Took, Waiter};
use waiting::Waiting;

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
///     ws.serve_member(|message, _| {
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
/// written. What was published in the meantime leaves in one write. Publishing wakes those who
/// write, and does nothing else; it may be done from any thread, in and outside of a runtime.
///
/// Who writes is the member's own task, or, where it is served with
/// [`serve_member`](super::WebSocket::serve_member), one task for all such members of a thread. The
/// latter costs much less where a group is large.
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
    /// The tasks to be woken at the next publication.
    tasks: Waiting<Waker>,
    /// The connections to be written after the next publication, by thread.
    shards: Vec<Shard>,
}

/// The members of one thread that can be written without their tasks.
struct Shard {
    /// Writes them.
    flusher: Arc<Flusher>,
    waiting: Waiting<Arc<dyn Recipient>>,
    members: usize,
    /// The flusher knows already that there is something for them.
    marked: bool,
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
        let (mut tasks, left) = {
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
            (state.tasks.take_all(), state.mark(&self.shared))
        };
        // Without the lock: members on other threads take it as soon as they are woken.
        for task in tasks.drain(..).flatten() {
            task.wake();
        }
        for recipient in left.into_iter().flatten() {
            recipient.wake();
        }
        let mut state = self.shared.lock();
        let members = state.members;
        state.tasks.keep(tasks, members);
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
        let cursor = state.logs[log].1.join();
        Membership::new(&self.shared, log, cursor)
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
    /// Those whom `flusher` is to write now.
    fn take_recipients(&self, flusher: &Arc<Flusher>) -> Vec<Option<Arc<dyn Recipient>>> {
        match self.lock().shard(flusher) {
            Some(shard) => {
                shard.marked = false;
                shard.waiting.take_all()
            }
            None => Vec::new(),
        }
    }

    /// Keeps the emptied list of [`take_recipients`](Self::take_recipients) for its memory.
    fn keep_recipients(&self, flusher: &Arc<Flusher>, list: Vec<Option<Arc<dyn Recipient>>>) {
        let mut state = self.lock();
        let members = state.members;
        if let Some(shard) = state.shard(flusher) {
            shard.waiting.keep(list, members);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has those written who wait for that. Returns those for whom nobody does it.
    fn mark(&mut self, group: &Arc<Shared>) -> Vec<Option<Arc<dyn Recipient>>> {
        let mut left = Vec::new();
        for shard in &mut self.shards {
            if shard.marked || shard.waiting.is_empty() {
                continue;
            }
            shard.marked = shard.flusher.mark(group);
            if !shard.marked {
                left.append(&mut shard.waiting.take_all());
            }
        }
        left
    }

    fn shard(&mut self, flusher: &Arc<Flusher>) -> Option<&mut Shard> {
        let shards = &mut self.shards;
        shards
            .iter_mut()
            .find(|shard| Arc::ptr_eq(&shard.flusher, flusher))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
