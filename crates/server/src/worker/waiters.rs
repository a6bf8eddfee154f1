//! Those of a worker's connections for which something waits to be written, and whom to let go first where that is
//! too much.
//!
//! Connections that take what they are sent are never in here: only those whose queue was not empty after it was
//! written to. What each holds is added up as that changes; a *look*, twice a second and before anybody is let go, finds out
//! what they have taken by themselves meanwhile.

use std::cell::RefCell;
use std::rc::Weak;
use std::time::Duration;

use tautline_hub::SessionId;

use super::link::Link;
use super::stream::Stream;
use crate::http::admin::QueueReport;

/// All of them.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(super) all: Vec<Waiter>,
    /// Those whose session is over, while the last of it is written.
    pub(super) leaving: Vec<Leaving>,
    /// Bytes of memory that the queues of all of these hold.
    held: usize,
    /// What the last look found.
    pub(super) seen: QueueReport,
}

/// One of them.
pub(super) struct Waiter {
    pub(super) id: SessionId,
    /// Bytes of memory that its queue holds.
    held: usize,
    /// The same of commands that wait for it to be taken, when it was last looked at.
    kept: usize,
    /// It is a socket: nobody else knows whether its client takes anything.
    is_socket: bool,
    /// Bytes that wait, when it was last looked at.
    queued: usize,
    /// How much it had taken then, and since when it has taken no more.
    taken: Option<(u64, Duration)>,
    /// It was told that it would have been let go.
    is_counted: bool,
}

/// What waits for a connection now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Bytes of memory that the queue holds by itself. What it shares with others is not among them.
    pub(super) held: usize,
    /// Bytes that wait.
    pub(super) queued: usize,
    /// Bytes ever taken.
    pub(super) written: u64,
    /// Bytes of memory of commands that are executed when that has been taken.
    pub(super) kept: usize,
    pub(super) is_socket: bool,
}

/// A connection that has a last word to say.
pub(super) enum Leaving {
    Socket(Weak<RefCell<Link>>),
    Stream(Weak<RefCell<Stream>>),
}

impl Waiters {
    /// What a connection's queue holds after it was written to. `place` is the connection's own note of its place
    /// here, 0 for none.
    #[inline]
    pub(super) fn note(&mut self, place: &mut u32, id: SessionId, held: usize) {
        if *place == 0 {
            if held > 0 {
                self.begin(place, id, held);
            }
            return;
        }
        self.set(*place, held);
    }

    fn begin(&mut self, place: &mut u32, id: SessionId, held: usize) {
        let Ok(next) = u32::try_from(self.all.len() + 1) else {
            return;
        };
        *place = next;
        self.held += held;
        self.all.push(Waiter {
            id,
            held,
            kept: 0,
            is_socket: false,
            queued: 0,
            taken: None,
            is_counted: false,
        });
    }

    fn set(&mut self, place: u32, held: usize) {
        if let Some(waiter) = self.all.get_mut(place as usize - 1) {
            self.held = self.held - waiter.held + held;
            waiter.held = held;
        }
    }

    /// The connection at that place is gone; the next look forgets it.
    pub(super) fn end(&mut self, place: u32) {
        if place > 0 {
            self.set(place, 0);
            if let Some(waiter) = self.all.get_mut(place as usize - 1) {
                self.held -= std::mem::take(&mut waiter.kept);
            }
        }
    }

    /// A connection's session is over, with so much still to be written.
    pub(super) fn leave(&mut self, leaving: Leaving) {
        let Load { held, queued, .. } = leaving.load();
        if queued > 0 {
            self.held += held;
            self.leaving.push(leaving);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.leaving.is_empty()
    }

    /// Bytes of memory that all the queues hold, or a little more.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Finds out what waits now. `look_at` is given a session and a function, which it calls with what waits for that
    /// session, and which returns the place to note; it calls nothing for one that is gone.
    pub(super) fn look(
        &mut self,
        now: Duration,
        mut look_at: impl FnMut(SessionId, &mut dyn FnMut(Load) -> u32),
    ) {
        let mut seen = QueueReport::default();
        let mut held = 0;
        let mut note = |load: Load| {
            held += load.held + load.kept;
            seen.waiting += 1;
            seen.bytes += load.queued as u64;
            seen.longest = seen.longest.max(load.queued as u64);
        };
        let mut kept = 0;
        for index in 0..self.all.len() {
            let id = self.all[index].id;
            look_at(id, &mut |load| {
                if load.queued == 0 {
                    return 0;
                }
                self.all.swap(kept, index);
                let waiter = &mut self.all[kept];
                kept += 1;
                (waiter.held, waiter.kept) = (load.held, load.kept);
                waiter.queued = load.queued;
                waiter.is_socket = load.is_socket;
                if waiter.taken.is_none_or(|(taken, _)| taken != load.written) {
                    waiter.taken = Some((load.written, now));
                }
                note(load);
                kept as u32
            });
        }
        self.all.truncate(kept);
        self.leaving.retain(|leaving| {
            let load = leaving.load();
            if load.queued > 0 {
                note(load);
            }
            load.queued > 0
        });
        if self.all.is_empty() {
            // With nobody here there is nothing to keep.
            self.all = Vec::new();
            self.leaving.shrink_to(0);
        }
        self.held = held;
        self.seen = seen;
    }

    /// Has those who leave say nothing more. Returns how much memory that gives back.
    pub(super) fn drop_leaving(&mut self) -> usize {
        let all = self.leaving.drain(..);
        let dropped: usize = all.map(Leaving::drop_queue).sum();
        self.held = self.held.saturating_sub(dropped);
        dropped
    }

    /// Those to let go so that the queues hold `much` less: the longest first, and the queue of who takes nothing counts for
    /// longer with each second of that. To be asked after a look.
    pub(super) fn longest(&self, now: Duration, much: usize) -> Vec<SessionId> {
        let mut left = much;
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_unstable_by_key(|&index| {
            let waiter = &self.all[index];
            let seconds = waiter.idle(now).as_secs().min(MAX_WEIGHT) as usize;
            std::cmp::Reverse((waiter.held + waiter.kept).saturating_mul(1 + seconds))
        });
        let mut chosen = Vec::new();
        for index in order {
            if left == 0 {
                break;
            }
            let waiter = &self.all[index];
            left = left.saturating_sub(waiter.held + waiter.kept);
            chosen.push(waiter.id);
        }
        chosen
    }

    /// Those who have taken nothing for so long that they have stopped reading, the longest first, until `much` bytes
    /// fewer wait. To be asked after a look.
    pub(super) fn stalled(&self, now: Duration, much: usize) -> Vec<SessionId> {
        let mut stalled: Vec<_> = self
            .all
            .iter()
            .filter(|waiter| waiter.idle(now) >= STALL && waiter.queued >= WORTH_IT)
            .map(|waiter| (waiter.queued, waiter.id))
            .collect();
        stalled.sort_unstable_by_key(|&(queued, _)| std::cmp::Reverse(queued));
        let mut left = much;
        let chosen = stalled.into_iter().take_while(|(queued, _)| {
            let wanted = left > 0;
            left = left.saturating_sub(*queued);
            wanted
        });
        chosen.map(|(_, id)| id).collect()
    }

    /// Those sockets that aren't read, as their clients have not taken the answers to what they had said, and of which
    /// nothing was taken for so long. Others may rest for as long as they answer pings. To be asked after a look.
    pub(super) fn given_up(&self, now: Duration, limit: Duration) -> Vec<SessionId> {
        let all = self.all.iter();
        let given_up =
            all.filter(|waiter| waiter.is_socket && waiter.kept > 0 && waiter.idle(now) >= limit);
        given_up.map(|waiter| waiter.id).collect()
    }

    /// Whether one of those is chosen for the first time since it waits.
    pub(super) fn is_new(&mut self, place: u32) -> bool {
        let waiter = self.all.get_mut((place as usize).wrapping_sub(1));
        waiter.is_some_and(|waiter| !std::mem::replace(&mut waiter.is_counted, true))
    }
}

impl Waiter {
    /// For how long it has taken nothing.
    fn idle(&self, now: Duration) -> Duration {
        let since = self.taken.map_or(now, |(_, since)| since);
        now.saturating_sub(since)
    }
}

impl Leaving {
    fn load(&self) -> Load {
        match self {
            Self::Socket(link) => link.upgrade().map(|link| link.borrow().load()),
            Self::Stream(stream) => stream.upgrade().map(|stream| stream.borrow().load()),
        }
        .unwrap_or_default()
    }

    /// Has it say nothing more. Returns how much memory that gives back.
    fn drop_queue(self) -> usize {
        let held = self.load().held;
        match self {
            Self::Socket(link) => {
                if let Some(link) = link.upgrade() {
                    link.borrow_mut().drop_queue();
                }
            }
            Self::Stream(stream) => {
                if let Some(stream) = stream.upgrade() {
                    stream.borrow_mut().drop_queue();
                }
            }
        }
        held
    }
}

/// How many times its length the queue of somebody counts at the most who takes nothing.
const MAX_WEIGHT: u64 = 15;

/// Who takes nothing for so long, although something waits, has stopped reading.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// Queues of fewer bytes are not what memory is short of.
const WORTH_IT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Connections that wait, by the index of their session.
    #[derive(Default)]
    struct World {
        waiters: Waiters,
        lines: HashMap<u32, (Load, u32)>,
    }

    impl World {
        fn put(&mut self, index: u32, held: usize) {
            let (load, place) = self.lines.entry(index).or_default();
            (load.held, load.queued) = (held, held);
            self.waiters.note(place, id(index), held);
        }

        fn take(&mut self, index: u32, bytes: usize) {
            let (load, _) = self.lines.get_mut(&index).unwrap();
            load.held -= bytes;
            load.queued -= bytes;
            load.written += bytes as u64;
        }

        fn look(&mut self, second: u64) {
            let lines = &mut self.lines;
            self.waiters.look(Duration::from_secs(second), |id, found| {
                if let Some((load, place)) = lines.get_mut(&id.index) {
                    *place = found(*load);
                }
            });
        }

        fn longest(&mut self, second: u64, much: usize) -> Vec<u32> {
            let chosen = self.waiters.longest(Duration::from_secs(second), much);
            chosen.into_iter().map(|id| id.index).collect()
        }
    }

    fn id(index: u32) -> SessionId {
        SessionId {
            index,
            generation: 0,
        }
    }

    #[test]
    fn what_all_hold_is_known() {
        let mut world = World::default();
        for (index, held) in [(1, 100), (2, 1000), (3, 0), (1, 300)] {
            world.put(index, held);
        }
        assert_eq!(world.waiters.held(), 1300);
        // What they take by themselves is seen later.
        world.take(2, 600);
        assert_eq!(world.waiters.held(), 1300);
        world.look(1);
        assert_eq!(world.waiters.held(), 700);
        let seen = world.waiters.seen;
        assert_eq!((seen.waiting, seen.bytes, seen.longest), (2, 700, 400));
        // Gone, or with nothing left.
        let (_, place) = world.lines.remove(&1).unwrap();
        world.waiters.end(place);
        assert_eq!(world.waiters.held(), 400);
        world.take(2, 400);
        world.look(2);
        assert_eq!((world.waiters.held(), world.waiters.all.len()), (0, 0));
        assert_eq!(world.lines[&2].1, 0);
        // And back.
        world.put(2, 70);
        assert_eq!(world.waiters.held(), 70);
    }

    #[test]
    fn the_longest_go_first_and_who_takes_nothing_before_who_reads() {
        let mut world = World::default();
        for index in 1..=5 {
            world.put(index, 1000 * index as usize);
        }
        world.look(1);
        assert_eq!(world.longest(1, 1), [5]);
        assert_eq!(world.longest(1, 9500), [5, 4, 3]);
        assert_eq!(world.longest(1, usize::MAX), [5, 4, 3, 2, 1]);
        // Who is longer, but reads, stays for longer.
        for second in 2..=4 {
            world.take(5, 10);
            world.take(4, 1);
            world.look(second);
        }
        assert_eq!(world.longest(4, 1), [3]);
        assert_eq!(world.longest(4, 12_000), [3, 2, 5, 1, 4]);
    }

    #[test]
    fn who_has_stopped_reading_is_told_from_who_reads() {
        const KIB: usize = 1024;
        let mut world = World::default();
        for (index, kib) in [(1, 100), (2, 200), (3, 300), (4, 15), (5, 20)] {
            world.put(index, kib * KIB);
        }
        world.look(0);
        let stalled = |world: &mut World, second, much| -> Vec<u32> {
            world.take(2, 1);
            world.look(second);
            let chosen = world.waiters.stalled(Duration::from_secs(second), much);
            chosen.into_iter().map(|id| id.index).collect()
        };
        assert!(stalled(&mut world, 4, usize::MAX).is_empty());
        assert_eq!(stalled(&mut world, 5, usize::MAX), [3, 1, 5]);
        assert_eq!(stalled(&mut world, 6, 1), [3]);
        assert!(stalled(&mut world, 6, 0).is_empty());
    }
}
