//! What is attached to some connections: senders, groups, a tracker. A connection without any of
//! them has a pointer for it, and pays nothing else.

use std::mem;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::driver::send_owned;
use super::error::Error;
use super::group::{Enlisted, Form, Group, JoinError, Membership, Recipient, Took, Waiter};
use super::inbox::{Inbox, Mail};
use super::tracker::{Tracked, Tracker};
use super::write_queue::WriteQueue;
use crate::proto::{CloseCode, Connection, KeepAlive, KeepAliveOptions, Misuse};

/// Where attachments are kept; there are none on most connections.
pub(super) struct Attachments {
    pub(super) attached: Option<Box<Attached>>,
    /// In which form the frames of groups are wanted here.
    form: Result<Form, JoinError>,
    /// Bytes that wait beyond which this side should add no more.
    max_backlog: u32,
}

impl Attachments {
    /// Nothing is attached.
    pub(super) fn new(engine: &Connection) -> Self {
        Self {
            attached: None,
            form: Form::of(engine),
            max_backlog: MAX_BACKLOG,
        }
    }

    /// Bytes that wait beyond which this side should add no more.
    #[inline]
    pub(super) const fn max_backlog(&self) -> usize {
        self.max_backlog as usize
    }

    /// Sets [`max_backlog`](Self::max_backlog).
    pub(super) fn set_max_backlog(&mut self, bytes: usize) {
        self.max_backlog = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Refuses when so much waits that this side should add no more.
    #[inline]
    pub(super) fn check_backlog(&self, queue: &WriteQueue) -> Result<(), Misuse> {
        let (waiting, limit) = (queue.len(), self.max_backlog());
        if waiting > limit {
            return Err(Misuse::BacklogFull { waiting, limit });
        }
        Ok(())
    }

    /// Makes the connection a member of `group`, if it isn't one.
    pub(super) fn join(&mut self, group: &Group, can_send: bool) -> Result<(), JoinError> {
        let form = self.form?;
        if !can_send {
            return Err(JoinError::Closing);
        }
        self.get().join(group, form);
        Ok(())
    }

    /// Ends the membership, and says whether there was one.
    pub(super) fn leave(&mut self, group: &Group) -> bool {
        self.attached
            .as_mut()
            .is_some_and(|attached| attached.leave(group))
    }

    /// What is attached, to attach more.
    pub(super) fn get(&mut self) -> &mut Attached {
        self.attached.get_or_insert_default()
    }

    /// Has the peer watched from now on.
    pub(super) fn watch(&mut self, options: KeepAliveOptions) {
        let now = Instant::now().into_std();
        self.get().keep_alive = Some(Box::new(KeepAlive::new(options, now)));
    }

    /// Whether keep-alive is on.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        matches!(&self.attached, Some(attached) if attached.keep_alive.is_some())
    }

    pub(super) fn keep_alive(&mut self) -> Option<&mut KeepAlive> {
        self.attached.as_mut()?.keep_alive.as_deref_mut()
    }

    /// The last round trip that keep-alive has measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.attached.as_ref()?.keep_alive.as_ref()?.round_trip()
    }

    /// Takes note of a pong.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        if let Some(keep_alive) = self.keep_alive()
            && keep_alive.expects_pong(payload)
        {
            keep_alive.pong(payload, Instant::now().into_std());
        }
    }

    /// The end of the connection, which nobody has anything for any more, and how it is to be
    /// reported.
    #[cold]
    pub(super) fn end<T>(&mut self, end: Result<T, Error>) -> Result<T, Error> {
        let Some(attached) = &mut self.attached else {
            return end;
        };
        attached.let_go();
        if attached.too_slow {
            return Err(Error::TooSlow);
        }
        end
    }
}

/// What others may have for a connection.
#[derive(Default)]
pub(super) struct Attached {
    groups: Memberships,
    inbox: Option<Arc<Inbox>>,
    trackers: Vec<Tracked>,
    keep_alive: Option<Box<KeepAlive>>,
    /// Whether it is closed for not keeping up with a group.
    too_slow: bool,
    /// The connection itself, where it can be written without its task.
    recipient: Option<(Enlisted, Arc<dyn Recipient>)>,
}

impl Attached {
    /// Makes the connection a member of `group`, if it isn't one.
    pub(super) fn join(&mut self, group: &Group, form: Form) {
        if !self.groups.iter_mut().any(|in_one| in_one.is_in(group)) {
            self.groups.add(group.admit(form));
        }
    }

    /// Ends the membership, and says whether there was one.
    pub(super) fn leave(&mut self, group: &Group) -> bool {
        self.groups.remove(group).is_some()
    }

    /// The inbox, which is made now if there was none.
    pub(super) fn inbox(&mut self) -> &Arc<Inbox> {
        self.inbox.get_or_insert_default()
    }

    /// Has what groups have written without the connection's task from now on, by the task that it is
    /// enlisted with.
    pub(super) fn set_recipient(&mut self, enlisted: Enlisted, recipient: Arc<dyn Recipient>) {
        self.recipient = Some((enlisted, recipient));
    }

    /// Has the connection tracked.
    pub(super) fn track(&mut self, tracker: &Tracker) {
        if !self.trackers.iter().any(|tracked| tracked.is_in(tracker)) {
            let tracked = tracker.track(self.inbox());
            self.trackers.reserve_exact(1);
            self.trackers.push(tracked);
        }
    }

    /// Puts what others have for the connection into its queue, as long as little enough waits
    /// there, and says whether there was anything. The task of `cx` is woken when there is more.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        cx: &Context<'_>,
        engine: &mut Connection,
        queue: &mut WriteQueue,
    ) -> bool {
        if !engine.can_send() {
            self.let_go();
            return false;
        }
        let mut some = false;
        let waiter = match &self.recipient {
            Some((enlisted, recipient)) => Waiter::Recipient(enlisted, recipient),
            None => Waiter::Task(cx.waker()),
        };
        for membership in self.groups.iter_mut() {
            match membership.take(waiter, queue, MAX_DELIVERED) {
                Took::Nothing => {}
                Took::Plain => some = true,
                Took::Compressed => {
                    some = true;
                    #[cfg(feature = "deflate")]
                    engine.sender().forget_sent();
                }
                Took::Outrun => self.too_slow = true,
            }
        }
        if self.too_slow {
            // Can't fail: nothing was closed yet, and code and reason can be sent.
            let _ = engine.close(CloseCode::TRY_AGAIN_LATER, TOO_SLOW, queue);
            self.let_go();
            return some;
        }
        if let Some(inbox) = &self.inbox {
            inbox.register(cx);
            some |= open_mail(inbox, engine, queue);
            if !engine.can_send() {
                self.let_go();
            }
        }
        some
    }

    /// Takes nothing any more from anybody, for nothing more can be sent.
    pub(super) fn let_go(&mut self) {
        self.groups = Memberships::default();
        if let Some(inbox) = &self.inbox {
            inbox.end();
        }
    }
}

/// The groups of a connection. Most are in one and no more, which lies right here: with thousands of members,
/// what a publication costs is the places in memory that are looked at for each.
#[derive(Default)]
struct Memberships {
    first: Option<Membership>,
    /// Empty as long as there is no first one.
    more: Vec<Membership>,
}

impl Memberships {
    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Membership> {
        self.first.iter_mut().chain(&mut self.more)
    }

    fn add(&mut self, membership: Membership) {
        if self.first.is_none() {
            self.first = Some(membership);
        } else {
            self.more.push(membership);
        }
    }

    fn remove(&mut self, group: &Group) -> Option<Membership> {
        if self.first.as_ref()?.is_in(group) {
            let next = self.more.pop();
            return mem::replace(&mut self.first, next);
        }
        let place = self.more.iter().position(|in_one| in_one.is_in(group))?;
        Some(self.more.swap_remove(place))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Sends what is in the inbox, and says whether there was a message.
fn open_mail(inbox: &Inbox, engine: &mut Connection, queue: &mut WriteQueue) -> bool {
    // The messages before a goodbye are few, and the time in which it must be read runs from the
    // goodbye on.
    let to_the_end = inbox.wants_close();
    let mut some = false;
    while to_the_end || queue.len() < MAX_DELIVERED {
        match inbox.take() {
            None => break,
            Some(Mail::Message(message)) => {
                // Can't fail as long as nothing was closed.
                let _ = send_owned(engine, &message, queue);
                some = true;
            }
            Some(Mail::Goodbye(goodbye)) => {
                // Code and reason were checked.
                let _ = engine.close(goodbye.code, &goodbye.reason, queue);
                break;
            }
        }
    }
    some
}

/// Bytes that wait to be written beyond which this side is refused more.
const MAX_BACKLOG: u32 = 16 * 1024 * 1024;

/// Bytes that wait to be written from which nothing more is taken from others.
pub(super) const MAX_DELIVERED: usize = 64 * 1024;

/// What a member is told for whom a group had to drop messages.
const TOO_SLOW: &str = "too slow for the messages of a group";
