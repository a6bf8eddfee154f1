//! A coarse timer wheel: many deadlines, of which few fire.
//!
//! Time is cut into ticks of [`TICK`], and each slot of the wheel holds what is due in one tick. An
//! entry is never taken out or moved: who finds nothing to do when its entry fires makes a new
//! one. So a deadline that keeps moving away (the usual kind) costs one entry a turn, and setting
//! it costs nothing.

use std::num::NonZeroU32;
use std::time::Duration;

/// Deadlines are kept to this, always on the late side.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// How far the wheel reaches, in ticks; later deadlines fire early, at the far end, and are set
/// again from there.
const SLOTS: usize = 512;

/// Number of a tick since the start of the monotonic clock. 32 bits last for thirteen years.
pub(crate) type Tick = u32;

/// A point of time in the future, to the tick and in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(NonZeroU32);

impl Deadline {
    /// The first tick that is not before `time`.
    pub(crate) fn at(time: Duration) -> Self {
        let tick = time.as_millis().div_ceil(TICK.as_millis());
        let tick = u32::try_from(tick).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(tick).unwrap_or(NonZeroU32::MIN))
    }

    pub(crate) fn time(self) -> Duration {
        TICK * self.0.get()
    }
}

pub(crate) struct Wheel<T> {
    slots: Box<[Vec<T>]>,
    /// A bit for each slot that has entries.
    occupied: [u64; SLOTS / 64],
    /// The last tick that was handled.
    current: Tick,
}

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(SLOTS).collect();
        Self {
            slots,
            occupied: [0; SLOTS / 64],
            current: 0,
        }
    }

    /// The tick at which a deadline set now would fire.
    pub(crate) fn tick_of(&self, deadline: Duration) -> Tick {
        let tick = deadline.as_millis().div_ceil(TICK.as_millis());
        let tick = Tick::try_from(tick).unwrap_or(Tick::MAX);
        tick.clamp(self.current + 1, self.current + (SLOTS as Tick - 1))
    }

    /// Has `entry` fire at `tick`, which must come from [`tick_of`](Self::tick_of).
    pub(crate) fn insert(&mut self, tick: Tick, entry: T) {
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(entry);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// When something fires next.
    pub(crate) fn next(&self) -> Option<Duration> {
        let start = (self.current as usize + 1) % SLOTS;
        // From the slot behind the current one around to the current one.
        let distance = (0..=SLOTS / 64).find_map(|step| {
            let word = (start / 64 + step) % (SLOTS / 64);
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= !0 << (start % 64);
            } else if step == SLOTS / 64 {
                bits &= !(!0 << (start % 64));
            }
            (bits != 0).then(|| {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                (slot + SLOTS - start) % SLOTS
            })
        })?;
        Some(TICK * (self.current + 1 + distance as Tick))
    }

    /// Moves what is due at `now` to the end of `fired`, each with the tick it was set for.
    pub(crate) fn fire(&mut self, now: Duration, fired: &mut Vec<(Tick, T)>) {
        let now =
            Tick::try_from(now.as_millis() / TICK.as_millis()).unwrap_or(Tick::MAX - SLOTS as Tick);
        if now <= self.current {
            return;
        }
        // However far time jumped, one turn of the wheel has seen every entry.
        let last = now.min(self.current + SLOTS as Tick);
        for tick in self.current + 1..=last {
            let slot = tick as usize % SLOTS;
            if self.slots[slot].is_empty() {
                continue;
            }
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            fired.extend(self.slots[slot].drain(..).map(|entry| (tick, entry)));
            // A connect storm must not leave its capacity behind in every slot.
            self.slots[slot].shrink_to(KEPT_CAPACITY);
        }
        self.current = now;
    }
}

const KEPT_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(wheel: &mut Wheel<u32>, now: Duration) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.fire(now, &mut fired);
        fired.into_iter().map(|(_, entry)| entry).collect()
    }

    #[test]
    fn entries_fire_within_a_tick_of_their_deadline_and_never_early() {
        for milliseconds in (0..40_000).step_by(37) {
            let mut wheel = Wheel::new();
            let deadline = Duration::from_millis(milliseconds);
            wheel.insert(wheel.tick_of(deadline), 1);
            let next = wheel.next().unwrap();
            assert!(
                next >= deadline && next <= deadline + TICK,
                "{deadline:?}: {next:?}"
            );
            assert!(fire(&mut wheel, next - Duration::from_millis(1)).is_empty());
            assert_eq!(fire(&mut wheel, next), [1]);
            assert_eq!(wheel.next(), None);
        }
    }

    #[test]
    fn what_lies_beyond_the_wheel_fires_at_its_end() {
        let mut wheel = Wheel::new();
        wheel.insert(wheel.tick_of(Duration::from_secs(3600)), 1);
        assert_eq!(wheel.next(), Some(TICK * (SLOTS as u32 - 1)));
    }

    #[test]
    fn a_jump_in_time_fires_everything_once() {
        let mut wheel = Wheel::new();
        for entry in 0..100 {
            wheel.insert(
                wheel.tick_of(Duration::from_millis(u64::from(entry) * 499)),
                entry,
            );
        }
        let mut fired = fire(&mut wheel, Duration::from_secs(1_000_000));
        fired.sort_unstable();
        assert_eq!(fired, (0..100).collect::<Vec<_>>());
        assert!(fire(&mut wheel, Duration::from_secs(2_000_000)).is_empty());
    }

    #[test]
    fn next_is_the_earliest_of_all() {
        // Deterministic, but well mixed over several turns of the wheel.
        let mut wheel = Wheel::new();
        let mut pending = std::collections::BTreeSet::new();
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let tick = wheel.tick_of(TICK * (wheel.current + (random >> 40) as u32 % 600));
            wheel.insert(tick, step);
            pending.insert((tick, step));
            assert_eq!(wheel.next(), pending.first().map(|(tick, _)| TICK * *tick));
            if random >> 33 & 1 == 0 {
                let next = wheel.next().unwrap();
                for entry in fire(&mut wheel, next) {
                    assert!(pending.remove(&(next.as_millis() as u32 / 100, entry)));
                }
            }
        }
    }
}
