//! In which order connections are written to.
//!
//! They wait in a row. A *round* goes over those that stood in it when it began; who has something queued meanwhile stands
//! behind them, for the next. So a round ends, whatever comes, and each connection has its turn in it once.

use std::collections::VecDeque;

use tautline_hub::SessionId;

/// The row of connections for which something was queued.
#[derive(Default)]
pub(super) struct Rounds {
    /// Each is here once.
    row: VecDeque<SessionId>,
    /// How many have ever left it.
    left: u64,
    /// How many will have when the round is over.
    end: u64,
}

impl Rounds {
    /// Puts a connection at the end of the row.
    #[inline]
    pub(super) fn push(&mut self, id: SessionId) {
        self.row.push_back(id);
    }

    /// Begins a round, if the last is over.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.is_over() {
            self.end = self.place();
        }
    }

    /// Whether all of the round have left.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.left >= self.end
    }

    /// Whether somebody waits for the next round.
    pub(super) fn is_next_awaited(&self) -> bool {
        self.place() > self.end
    }

    /// Those of the round who are next, so many of them at the most.
    pub(super) fn next(&self, most: usize) -> impl ExactSizeIterator<Item = SessionId> {
        let round = usize::try_from(self.end.saturating_sub(self.left)).unwrap_or(usize::MAX);
        let count = round.min(most).min(self.row.len());
        self.row.range(..count).copied()
    }

    /// Takes the first out of the row.
    pub(super) fn pop(&mut self) -> Option<SessionId> {
        let first = self.row.pop_front()?;
        self.left += 1;
        Some(first)
    }

    /// What [`has_come_to`](Self::has_come_to) tells of all that stand in the row now.
    pub(super) fn place(&self) -> u64 {
        self.left + self.row.len() as u64
    }

    /// Whether all have left that stood in the row when its end was at `place`.
    pub(super) fn has_come_to(&self, place: u64) -> bool {
        self.left >= place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId {
            index,
            generation: 0,
        }
    }

    #[test]
    fn a_round_goes_over_those_who_stood_there_when_it_began() {
        let mut rounds = Rounds::default();
        assert!(rounds.is_over() && !rounds.is_next_awaited());
        rounds.begin();
        assert!(rounds.is_over(), "nobody is there");
        for index in 0..3 {
            rounds.push(id(index));
        }
        assert!(rounds.is_over() && rounds.is_next_awaited());
        assert_eq!(rounds.next(9).len(), 0, "none has begun");
        rounds.begin();
        assert!(!rounds.is_next_awaited());
        let place = rounds.place();
        assert!(rounds.next(2).eq([id(0), id(1)]));
        assert_eq!(rounds.pop(), Some(id(0)));
        // Who was written to has more, and somebody comes.
        rounds.push(id(0));
        rounds.push(id(7));
        rounds.begin();
        assert!(rounds.is_next_awaited(), "it is not over");
        assert!(rounds.next(9).eq([id(1), id(2)]));
        rounds.pop();
        assert!(!rounds.is_over() && !rounds.has_come_to(place));
        rounds.pop();
        assert!(rounds.is_over() && rounds.has_come_to(place));
        assert_eq!(rounds.next(9).len(), 0);
        assert!(!rounds.has_come_to(rounds.place()));
        rounds.begin();
        assert!(rounds.next(9).eq([id(0), id(7)]));
    }
}
