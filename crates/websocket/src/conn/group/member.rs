//! A connection's part in a group.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use super::super::write_queue::WriteQueue;
use super::flusher::{Enlisted, Flusher, Recipient};
use super::log::Cursor;
use super::waiting::{Place, Waiting};
use super::{Group, Shard, Shared, SlowMember, State};

/// One connection's part in a group. Dropping it leaves.
#[derive(Debug)]
pub(in crate::conn) struct Membership {
    shared: Arc<Shared>,
    cursor: Cursor,
    /// Which of the group's logs it takes from.
    log: u32,
    /// In which of the group's shards it waits, or [`TASKS`].
    shard: u32,
    /// Where it waits there.
    place: Place,
}

/// Who is told of the next publication.
#[derive(Clone, Copy)]
pub(in crate::conn) enum Waiter<'a> {
    /// The connection's task is woken.
    Task(&'a Waker),
    /// The connection is written without its task.
    Recipient(&'a Enlisted, &'a Arc<dyn Recipient>),
}

/// What came of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conn) enum Took {
    Nothing,
    Plain,
    /// The peer's window has moved on.
    Compressed,
    /// Something was dropped that this member should have had, and it is to be disconnected.
    Outrun,
}

impl Membership {
    /// For a member that was counted already.
    pub(super) fn new(shared: &Arc<Shared>, log: usize, cursor: Cursor) -> Self {
        Self {
            shared: Arc::clone(shared),
            cursor,
            log: log as u32,
            shard: TASKS,
            place: Place::NONE,
        }
    }

    /// Whether it is one in this group.
    pub(in crate::conn) fn is_in(&self, group: &Group) -> bool {
        Arc::ptr_eq(&self.shared, &group.shared)
    }

    /// Takes what was published, as long as less than `until` bytes wait in `queue`; `waiter` is told of
    /// the next publication.
    #[inline]
    pub(in crate::conn) fn take(
        &mut self,
        waiter: Waiter<'_>,
        queue: &mut WriteQueue,
        until: usize,
    ) -> Took {
        // What drops a waker may run code of others, and not under the lock.
        let _replaced;
        let mut took = Took::Nothing;
        let mut state = self.shared.lock();
        (self.shard, self.place, _replaced) = state.wait(self.shard, self.place, waiter);
        let log = &mut state.logs[self.log as usize].1;
        if log.has_outrun(&self.cursor) {
            match self.shared.options.slow {
                SlowMember::Disconnect => took = Took::Outrun,
                // What is dropped is decided as late as it can be.
                _ if queue.len() >= until => {}
                SlowMember::DropOldest => _ = log.skip(&mut self.cursor, false),
                SlowMember::SkipToNewest => _ = log.skip(&mut self.cursor, true),
            }
        }
        while took != Took::Outrun && queue.len() < until {
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
        drop(state);
        took
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // What drops a waker may run code of others, and not under the lock.
        let _left;
        let mut state = self.shared.lock();
        state.members -= 1;
        state.logs[self.log as usize].1.leave(&self.cursor);
        _left = state.forget(self.shard, self.place);
        if let Some(shard) = state.shards.get_mut(self.shard as usize) {
            shard.members -= 1;
        }
        if state.members == 0 {
            state.tasks.reset();
            state.shards = Vec::new();
        }
        drop(state);
    }
}

/// One who waits no longer.
type Left = (Option<Waker>, Option<Arc<dyn Recipient>>);

impl State {
    /// Adds `waiter` to those who wait, unless it does: at `place` in `shard`. Returns where it waits now,
    /// and who doesn't any more.
    #[inline]
    fn wait(&mut self, shard: u32, place: Place, waiter: Waiter<'_>) -> (u32, Place, Left) {
        match waiter {
            Waiter::Task(waker) => {
                if shard == TASKS
                    && let Some(waits) = self.tasks.get_mut(place)
                {
                    let moved = !waits.will_wake(waker);
                    let replaced = moved.then(|| mem::replace(waits, waker.clone()));
                    return (shard, place, (replaced, None));
                }
                let left = self.forget(shard, place);
                (TASKS, self.tasks.add(waker.clone()), left)
            }
            Waiter::Recipient(enlisted, recipient) => {
                if let Some(known) = self.shards.get_mut(shard as usize) {
                    // A connection is always the same recipient, with the same task.
                    let place = match known.waiting.get_mut(place) {
                        Some(_) => place,
                        None => known.waiting.add(Arc::clone(recipient)),
                    };
                    return (shard, place, (None, None));
                }
                let left = self.forget(shard, place);
                let index = self.shard_of(enlisted.flusher());
                let shard = &mut self.shards[index];
                shard.members += 1;
                let place = shard.waiting.add(Arc::clone(recipient));
                (index as u32, place, left)
            }
        }
    }

    /// The shard of a thread, which is made if there was none.
    #[cold]
    fn shard_of(&mut self, flusher: &Arc<Flusher>) -> usize {
        let shards = &self.shards;
        let known = shards
            .iter()
            .position(|shard| Arc::ptr_eq(&shard.flusher, flusher));
        if let Some(known) = known {
            return known;
        }
        let shard = Shard {
            flusher: Arc::clone(flusher),
            waiting: Waiting::default(),
            members: 0,
            marked: false,
        };
        // Threads come and go, and a group may stay for ever.
        match shards.iter().position(|shard| shard.members == 0) {
            Some(deserted) => {
                self.shards[deserted] = shard;
                deserted
            }
            None => {
                self.shards.push(shard);
                self.shards.len() - 1
            }
        }
    }

    fn forget(&mut self, shard: u32, place: Place) -> Left {
        if shard == TASKS {
            return (self.tasks.remove(place), None);
        }
        let shard = self.shards.get_mut(shard as usize);
        (None, shard.and_then(|shard| shard.waiting.remove(place)))
    }
}

/// Waits to have its task woken.
const TASKS: u32 = u32::MAX;
