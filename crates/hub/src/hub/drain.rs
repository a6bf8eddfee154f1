//! The end of a hub: its clients are told to come back elsewhere, one after the other.

use std::time::Duration;

use tautline_protocol::Disconnect;

use super::{Hub, SessionId, Timer};
use crate::Now;
use crate::application::UnsubscribeEvent;
use crate::entropy;
use crate::outbox::Outbox;

/// How often some are told.
const STEP: Duration = Duration::from_millis(50);

/// Sessions that are told to come back elsewhere, and by when.
pub(super) struct Drain {
    begun: Duration,
    /// For all of them together.
    over: Duration,
    /// How many there were.
    count: usize,
    /// Those whose time has not come; the last is the next.
    left: Vec<SessionId>,
    /// Whether the timer is set.
    armed: bool,
}

impl Drain {
    /// How many may be left at `now`. Rounded up, so that no more are told in any time than were to be.
    fn left_at(&self, now: Duration) -> usize {
        let elapsed = now.saturating_sub(self.begun).as_nanos();
        let over = self.over.as_nanos();
        if elapsed >= over {
            return 0;
        }
        // The sum can't be larger than the count.
        let told = self.count as u128 * elapsed / over;
        self.count - usize::try_from(told).unwrap_or(self.count)
    }
}

impl Hub {
    /// Ends all sessions with [`Disconnect::SHUTDOWN`], in an even row `over` that time and in no
    /// order that clients could know of, so that they don't come back elsewhere all at once; each is
    /// served as ever until it is its turn. With no time for it, all are ended now.
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
        let before = self.draining.as_ref();
        let armed = before.is_some_and(|drain| drain.armed);
        self.draining = Some(Box::new(Drain {
            begun: now.monotonic,
            over,
            count: left.len(),
            left,
            armed,
        }));
        self.end_due(now, out);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Some are told.
    pub(super) fn on_drain_timer<O: Outbox>(&mut self, now: Now, out: &mut O) {
        if let Some(drain) = &mut self.draining {
            drain.armed = false;
        }
        self.end_due(now, out);
    }

    /// Ends those whose turn has come.
    fn end_due<O: Outbox>(&mut self, now: Now, out: &mut O) {
        while let Some(drain) = &mut self.draining
            && drain.left.len() > drain.left_at(now.monotonic)
            && let Some(id) = drain.left.pop()
        {
            // Whoever has gone before is not found.
            self.end(now, id, &Disconnect::SHUTDOWN, out);
        }
        if let Some(drain) = &mut self.draining
            && !drain.left.is_empty()
            && !std::mem::replace(&mut drain.armed, true)
        {
            self.set_timer(now.monotonic + STEP, Timer::Drain);
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
