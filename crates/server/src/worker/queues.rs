//! What waits to be written to all clients of the node, and how much of that there may be.
//!
//! Each worker writes down what its connections hold, in a place of its own, when that has changed by some KiB: nobody waits for
//! anybody, and a message costs nothing. Whoever has written down more adds up all places, and where that is too
//! much, closes the longest of its own queues until it isn't. What a client may make wait alone is
//! `client.queue_max_size`; this is what all together may, however many they are.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tautline_hub::{Now, SessionId};
use tautline_protocol::Disconnect;
use tokio::time::Instant;

use super::State;
use super::waiters::STALL;
use crate::http::counters::Dropped;

/// What the operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRules {
    /// Bytes of memory; `None` for any number.
    pub(crate) max_bytes: Option<usize>,
    /// Nobody is let go, but counted and told.
    pub(crate) dry_run: bool,
}

/// All workers' queues.
#[derive(Debug)]
pub(crate) struct NodeQueues {
    /// By worker: bytes that its queues hold.
    held: Box<[Place]>,
    /// `usize::MAX` for any number.
    max_bytes: AtomicUsize,
    dry_run: AtomicBool,
    /// Connections that were let go, and those that would have been: for the sum, and for the memory of the process.
    counts: [[AtomicU64; 2]; 2],
    /// When that was last told, and how many were not since.
    told: Mutex<(Option<Duration>, u64)>,
}

/// On a cache line of its own: only its worker writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place(AtomicUsize);

/// Why somebody is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// Of room for what waits.
    Queues,
    /// Of memory of the whole process.
    Memory,
}

impl NodeQueues {
    pub(crate) fn new(workers: usize, rules: QueueRules) -> Arc<Self> {
        let queues = Self {
            held: std::iter::repeat_with(Place::default)
                .take(workers)
                .collect(),
            max_bytes: AtomicUsize::new(0),
            dry_run: AtomicBool::new(false),
            counts: Default::default(),
            told: Mutex::default(),
        };
        queues.reconfigure(rules);
        Arc::new(queues)
    }

    /// Goes by other rules from now on.
    pub(crate) fn reconfigure(&self, rules: QueueRules) {
        let max_bytes = rules.max_bytes.unwrap_or(usize::MAX);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
        self.dry_run.store(rules.dry_run, Ordering::Relaxed);
    }

    /// Bytes of memory that the queues of all clients hold.
    pub(crate) fn held(&self) -> usize {
        let held = self.held.iter();
        held.map(|place| place.0.load(Ordering::SeqCst)).sum()
    }

    /// How much they may; 0 for any number.
    pub(crate) fn ceiling(&self) -> u64 {
        match self.max_bytes.load(Ordering::Relaxed) {
            usize::MAX => 0,
            bytes => bytes as u64,
        }
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.load(Ordering::Relaxed)
    }

    /// Whether there is too much.
    pub(crate) fn are_full(&self) -> bool {
        self.held() > self.max_bytes.load(Ordering::Relaxed)
    }

    /// How much of `own` a worker has to let go: all that there is too much, as nobody knows when the others look; and its part
    /// of a twentieth more, so that it isn't too much again at once.
    fn part(&self, own: usize) -> usize {
        let (held, max) = (self.held(), self.max_bytes.load(Ordering::Relaxed));
        if held <= max || own == 0 {
            return 0;
        }
        let much = held - (max - max / 20);
        share(much, own, held).max(own.min(held - max))
    }

    /// How many were let go: for what, in which mode, and the number.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut all = Vec::new();
        for (name, counts) in ["queues", "stalled"].into_iter().zip(&self.counts) {
            for (mode, count) in ["enforced", "dry_run"].into_iter().zip(counts) {
                all.push((name, mode, count.load(Ordering::Relaxed)));
            }
        }
        all
    }

    /// Counts so many who are let go, or would be.
    fn count(&self, now: Duration, why: Short, count: u64) {
        let dry_run = self.is_dry_run();
        let counts = &self.counts[why as usize];
        counts[usize::from(dry_run)].fetch_add(count, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told
            .0
            .is_some_and(|last| now.saturating_sub(last) < TELL_AGAIN)
        {
            told.1 += count;
            return;
        }
        let left_out = std::mem::take(&mut told.1);
        told.0 = Some(now);
        let limit = match why {
            Short::Queues => "limits.memory.max_queued_bytes",
            Short::Memory => "limits.memory",
        };
        tracing::warn!(
            target: "tautline::limits",
            limit, dry_run, count, left_out, held = self.held(),
            "connections that read too slowly are closed, as what waits for all clients takes too much memory"
        );
    }
}

/// One worker's part of that.
#[derive(Debug)]
pub(crate) struct QueueShare {
    node: Arc<NodeQueues>,
    worker: usize,
    /// What was last written down.
    told: usize,
}

impl QueueShare {
    pub(crate) fn new(node: Arc<NodeQueues>, worker: usize) -> Self {
        Self {
            node,
            worker,
            told: 0,
        }
    }

    fn tell(&mut self, held: usize) {
        self.told = held;
        if let Some(place) = self.node.held.get(self.worker) {
            // Of two workers who write at once, one at least sees what both have.
            place.0.store(held, Ordering::SeqCst);
        }
    }
}

impl State {
    /// What is queued was written, as far as it went. Lets go of somebody where too much is left; returns whether
    /// it has.
    #[inline]
    pub(super) fn note_queues(&mut self, now: Now) -> bool {
        let held = self.held();
        let told = self.queues.told;
        held.abs_diff(told) >= STEP && self.note_change(now, held)
    }

    /// Bytes of memory that wait here for somebody to take them.
    fn held(&self) -> usize {
        self.connections.held() + self.answers.held() + self.relays.held()
    }

    fn note_change(&mut self, now: Now, held: usize) -> bool {
        let has_grown = held > self.queues.told;
        self.queues.tell(held);
        has_grown
            && self.queues.node.are_full()
            && !self.queues.node.is_dry_run()
            && self.relieve(now)
    }

    /// Finds out what waits, and lets go of those for whom there is no room. `over` are the bytes of memory that the
    /// whole process has too much, where it has.
    pub(super) fn look_at_queues(&mut self, now: Now, over: usize) {
        let others = self.answers.held() + self.relays.held();
        if self.connections.has_waiters() || others > 0 || self.queues.told > 0 {
            self.relieve(now);
            self.end_given_up(now);
            if over > 0 {
                self.end_stalled(now, over);
            }
        }
    }

    fn relieve(&mut self, now: Now) -> bool {
        let State {
            hub, connections, ..
        } = self;
        connections.look(now.monotonic, |id| hub.kept_input(id));
        let (answers, relays) = (self.answers.held(), self.relays.held());
        let held = self.held();
        self.queues.tell(held);
        let much = self.queues.node.part(held);
        if much == 0 {
            return false;
        }
        let (of_answers, of_relays) = (share(much, answers, held), share(much, relays, held));
        self.give_up_answers(now, Short::Queues, of_answers, Duration::ZERO);
        self.cut_relays(now, Short::Queues, of_relays, Duration::ZERO);
        let dry_run = self.queues.node.is_dry_run();
        let of_queues = much.saturating_sub(of_answers + of_relays);
        let chosen = self.connections.longest(now.monotonic, of_queues, dry_run);
        self.let_go(now, Short::Queues, chosen);
        true
    }

    /// Gives up answers that hold so much, of those that are being taken for so long.
    fn give_up_answers(&mut self, now: Now, why: Short, much: usize, patience: Duration) {
        let dry_run = self.queues.node.is_dry_run();
        let count = self.answers.let_go(now.monotonic, much, patience, dry_run);
        if count > 0 {
            self.queues.node.count(now.monotonic, why, count);
        }
    }

    /// Cuts tunnels off that hold so much, of those that have held something for so long.
    fn cut_relays(&mut self, now: Now, why: Short, much: usize, patience: Duration) {
        let dry_run = self.queues.node.is_dry_run();
        let count = self.relays.let_go(Instant::now(), much, patience, dry_run);
        if count > 0 {
            self.queues.node.count(now.monotonic, why, count);
        }
    }

    /// Ends those who take nothing of what they have asked for, after as long as an answer over HTTP waits, too.
    fn end_given_up(&mut self, now: Now) {
        let Some(limit) = self.live.config.http.write_timeout else {
            return;
        };
        for id in self.connections.given_up(now.monotonic, limit) {
            self.http.dropped(Dropped::Answer);
            let slow = Disconnect::SLOW;
            self.hub.disconnect(now, id, slow, &mut self.connections);
        }
    }

    fn end_stalled(&mut self, now: Now, over: usize) {
        let much = share(over, self.queues.told, self.queues.node.held());
        let answers = self.answers.held();
        let of_answers = share(much, answers, self.queues.told);
        let of_relays = share(much, self.relays.held(), self.queues.told);
        self.give_up_answers(now, Short::Memory, of_answers, STALL);
        self.cut_relays(now, Short::Memory, of_relays, STALL);
        let much = much.saturating_sub(of_answers + of_relays);
        let chosen = self.connections.stalled(now.monotonic, much);
        if !chosen.is_empty() {
            self.let_go(now, Short::Memory, chosen);
        }
    }

    fn let_go(&mut self, now: Now, why: Short, chosen: Vec<SessionId>) {
        let dry_run = self.queues.node.is_dry_run();
        let mut count = 0;
        for id in chosen {
            if dry_run {
                count += u64::from(self.connections.is_newly_chosen(id));
            } else {
                count += 1;
                let slow = Disconnect::SLOW;
                self.hub.disconnect(now, id, slow, &mut self.connections);
            }
        }
        if !dry_run {
            // What they would still be told, by those polls that may come.
            self.connections.drop_leaving();
        }
        if count > 0 {
            self.queues.node.count(now.monotonic, why, count);
        }
        self.queues.tell(self.held());
    }
}

/// The part of `much` that `own` is of `all`, rounded up.
fn share(much: usize, own: usize, all: usize) -> usize {
    let part = (much as u128 * own as u128).div_ceil(all.max(1) as u128);
    usize::try_from(part).unwrap_or(usize::MAX)
}

/// How often what waits is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// What less than so many bytes have changed is not written down.
const STEP: usize = 16 * 1024;

/// The log tells of this at most so often.
const TELL_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_lets_go_of_its_part() {
        let rules = QueueRules {
            max_bytes: Some(1000),
            dry_run: false,
        };
        let node = NodeQueues::new(2, rules);
        let mut shares = [0, 1].map(|worker| QueueShare::new(Arc::clone(&node), worker));
        shares[0].tell(750);
        shares[1].tell(250);
        assert!(!node.are_full() && node.part(750) == 0);
        shares[0].tell(900);
        assert!(node.are_full());
        assert_eq!((node.held(), node.ceiling()), (1150, 1000));
        // Whoever looks first makes room, and a little more.
        assert_eq!((node.part(900), node.part(250)), (157, 150));
        assert_eq!(node.part(100), 100);
        assert_eq!(node.part(0), 0);
        node.reconfigure(QueueRules::default());
        assert!(!node.are_full());
        assert_eq!(node.ceiling(), 0);
    }
}
