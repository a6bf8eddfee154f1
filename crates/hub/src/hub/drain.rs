//! The end of a hub: its clients are told to come back elsewhere, one after the other.

use std::time::Duration;

use tautline_protocol::Disconnect;

use super::{Hub, SessionId};
use crate::Now;
use crate::application::UnsubscribeEvent;
use crate::entropy;
use crate::outbox::Outbox;

/// How often some are told, at the most.
const STEP: Duration = Duration::from_millis(10);

/// What of a delay is made up for. Beyond it the row ends later, instead of going faster for a while.
const LATE: Duration = Duration::from_millis(40);

/// Sessions that are told to come back elsewhere, and by when.
pub(super) struct Drain {
    /// For all of them together.
    over: Duration,
    /// How many there were.
    count: usize,
    /// Those whose time has not come; the last is the next.
    left: Vec<SessionId>,
    /// Up to when some were told.
    told: Duration,
    /// What of the time since then was not enough for one more: clients times nanoseconds.
    owed: u128,
    /// When the next are told.
    next: Duration,
}

impl Drain {
    /// How many are to be told at `now`. Rounded down, so that no more are told in any time than were to be.
    fn take_due(&mut self, now: Duration) -> usize {
        let over = self.over.as_nanos();
        if over == 0 {
            return self.left.len();
        }
        // Whoever made the hub wait doesn't get all at once those who would have gone meanwhile.
        let most = self.next.saturating_sub(self.told) + LATE;
        let passed = now.saturating_sub(self.told).min(most);
        self.told = now;
        self.owed += self.count as u128 * passed.as_nanos();
        let due = usize::try_from(self.owed / over).unwrap_or(usize::MAX);
        self.owed %= over;
        let for_one = (over - self.owed).div_ceil(self.count.max(1) as u128);
        let for_one = Duration::from_nanos(u64::try_from(for_one).unwrap_or(u64::MAX));
        self.next = now.saturating_add(for_one.max(STEP));
        due.min(self.left.len())
    }

    /// When somebody is to be told next, if anybody is left.
    pub(super) fn next(&self) -> Option<Duration> {
        (!self.left.is_empty()).then_some(self.next)
    }
}

impl Hub {
    /// Ends all sessions with [`Disconnect::SHUTDOWN`], in an even row `over` that time and in no
    /// order that clients could know of, so that they don't come back elsewhere all at once; each is
    /// served as ever until it is its turn. With no time for it, all are ended now.
    ///
    /// In whatever time, no more are told than in an even row in that time and 50 ms: a hub that is called late
    /// goes on from there, and takes longer. [`undrained`](Self::undrained) says how many are left.
    ///
    /// From now on connect commands are answered with the same disconnect. The clients who are told stay
    /// in presence, and nobody hears that they have left: who comes back to another hub was never away.
    /// (Who doesn't is in presence for as long as the engine remembers those whose hub is gone.)
    ///
    /// A second call begins anew with those that are left.
    pub fn drain<O: Outbox>(&mut self, now: Now, over: Duration, out: &mut O) {
        let mut left = self.sessions.ids();
        for place in (1..left.len()).rev() {
            let other = entropy::up_to(&mut *self.entropy, place as u64);
            left.swap(place, usize::try_from(other).unwrap_or(place));
        }
        self.draining = Some(Box::new(Drain {
            over,
            count: left.len(),
            left,
            told: now.monotonic,
            owed: 0,
            next: now.monotonic,
        }));
        self.tell_due(now, out);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// How many sessions are to be told yet; all of them, before [`drain`](Self::drain) is called. Some may have gone
    /// meanwhile.
    pub fn undrained(&self) -> usize {
        match &self.draining {
            None => self.session_count(),
            Some(drain) => drain.left.len(),
        }
    }

    /// Ends those whose turn has come, if it has for any.
    pub(super) fn tell_due<O: Outbox>(&mut self, now: Now, out: &mut O) {
        let Some(drain) = &mut self.draining else {
            return;
        };
        if drain.next().is_none_or(|next| now.monotonic < next) {
            return;
        }
        for _ in 0..drain.take_due(now.monotonic) {
            let Some(id) = self.draining.as_mut().and_then(|drain| drain.left.pop()) else {
                return;
            };
            // Whoever has gone before is not found.
            self.end(now, id, &Disconnect::SHUTDOWN, out);
        }
    }

    /// Ends the subscriptions of a session that is told to come back elsewhere: this hub forgets them, but
    /// presence and the other subscribers don't hear of it.
    pub(super) fn leave_subscriptions(&mut self, now: Now, id: SessionId) {
        while let Some(channel) = self.last_subscription(id) {
            let ended = self.detach_subscription(now, id, channel);
            if let Some(ended) = ended.filter(|ended| ended.had_begun) {
                self.tell_unsubscribed(now, id, &ended.channel, UnsubscribeEvent::BY_DISCONNECT);
            }
        }
    }
}
