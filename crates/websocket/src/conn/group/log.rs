//! What a group has said and not every member has taken yet, in one form: plain, or compressed for
//! one window.
//!
//! There is one log for all members, not a queue for each: a member is a [`Cursor`] into it. What
//! is published between two takes lies in one piece of memory, so a member takes any number of
//! messages by reference to one slice, and writes them in one go. A piece that all have taken is
//! gone; a group at rest holds nothing.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames that members have still to take.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// What can be taken, oldest first.
    pieces: VecDeque<Piece>,
    /// The number of the piece at the front; they are numbered in order.
    first: u64,
    /// Messages before the piece at the front.
    passed: u64,
    /// What the pieces are charged with.
    sealed: usize,
    /// Frames behind the last piece: a piece as soon as somebody takes from it.
    open: Open,
    members: usize,
}

/// Frames that are taken together.
#[derive(Debug)]
struct Piece {
    frames: Bytes,
    messages: u64,
    compressed: bool,
    /// Members who have not taken it.
    unread: usize,
}

#[derive(Debug, Default)]
struct Open {
    frames: Vec<u8>,
    messages: u64,
    compressed: bool,
}

/// How far a member has come.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The number of the next piece.
    piece: u64,
    /// Messages before that piece.
    passed: u64,
}

impl Log {
    /// Adds a member, who gets what is published from here on.
    pub(super) fn join(&mut self) -> Cursor {
        self.seal();
        self.members += 1;
        self.end()
    }

    /// Lets a member go.
    pub(super) fn leave(&mut self, cursor: &Cursor) {
        self.seal();
        self.unclaim(cursor.piece);
        self.members -= 1;
    }

    /// Whether nobody listens.
    pub(super) fn is_deserted(&self) -> bool {
        self.members == 0
    }

    /// Bytes that were published since anybody has taken something.
    pub(super) fn untaken(&self) -> usize {
        self.open.frames.len()
    }

    /// Appends one message, as the frame that `write` writes. Beyond `capacity`, the oldest pieces
    /// are dropped.
    pub(super) fn append(
        &mut self,
        capacity: usize,
        compressed: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        write(&mut self.open.frames);
        self.open.messages += 1;
        self.open.compressed |= compressed;
        while self.sealed + self.open.frames.len() > capacity && !self.pieces.is_empty() {
            self.drop_first();
        }
    }

    /// Whether something was dropped that the member has not taken.
    pub(super) fn has_outrun(&self, cursor: &Cursor) -> bool {
        cursor.piece < self.first
    }

    /// Has a member that was outrun go on with the oldest piece that is left, or with the newest.
    /// Returns how many messages it has missed.
    pub(super) fn skip(&mut self, cursor: &mut Cursor, to_the_newest: bool) -> u64 {
        let mut to = Cursor {
            piece: self.first,
            passed: self.passed,
        };
        if to_the_newest {
            self.seal();
            let older = self.pieces.len().saturating_sub(1);
            for piece in self.pieces.iter_mut().take(older) {
                to.piece += 1;
                to.passed += piece.messages;
                piece.unread -= 1;
            }
        }
        let missed = to.passed - cursor.passed;
        *cursor = to;
        self.drop_what_all_have_taken();
        missed
    }

    /// Gives the member's next piece to `take`, with whether there is a compressed message in it.
    /// Returns whether there was one.
    #[inline]
    pub(super) fn take(&mut self, cursor: &mut Cursor, take: impl FnOnce(&Bytes, bool)) -> bool {
        let mut index = cursor.piece.saturating_sub(self.first) as usize;
        if index == self.pieces.len() {
            if self.open.messages == 0 {
                return false;
            }
            self.seal();
            index = self.pieces.len() - 1;
        }
        let piece = &mut self.pieces[index];
        take(&piece.frames, piece.compressed);
        cursor.piece += 1;
        cursor.passed += piece.messages;
        piece.unread -= 1;
        self.drop_what_all_have_taken();
        true
    }

    fn end(&self) -> Cursor {
        let messages: u64 = self.pieces.iter().map(|piece| piece.messages).sum();
        Cursor {
            piece: self.first + self.pieces.len() as u64,
            passed: self.passed + messages,
        }
    }

    /// Makes a piece of what lies open.
    fn seal(&mut self) {
        if self.open.messages == 0 {
            return;
        }
        let Open {
            frames,
            messages,
            compressed,
        } = std::mem::take(&mut self.open);
        let piece = Piece {
            frames: frames.into(),
            messages,
            compressed,
            unread: self.members,
        };
        self.sealed += piece.charge();
        self.pieces.push_back(piece);
        self.drop_what_all_have_taken();
    }

    /// Forgets that a member who has come to `from` would take what is behind that.
    fn unclaim(&mut self, from: u64) {
        let index = from.saturating_sub(self.first) as usize;
        for piece in self.pieces.iter_mut().skip(index) {
            piece.unread -= 1;
        }
        self.drop_what_all_have_taken();
    }

    #[inline]
    fn drop_what_all_have_taken(&mut self) {
        while self.pieces.front().is_some_and(|piece| piece.unread == 0) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.first += 1;
            self.passed += piece.messages;
            self.sealed -= piece.charge();
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

impl Piece {
    /// What it is charged with against the capacity.
    fn charge(&self) -> usize {
        self.frames.len() + PIECE_OVERHEAD
    }
}

/// What a piece costs beyond its frames, about.
const PIECE_OVERHEAD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(log: &mut Log, message: &[u8]) {
        log.append(1000, false, |frames| frames.extend_from_slice(message));
    }

    fn taken(log: &mut Log, cursor: &mut Cursor) -> Option<Vec<u8>> {
        let mut taken = None;
        log.take(cursor, |frames, _| taken = Some(frames.to_vec()));
        taken
    }

    #[test]
    fn what_was_published_between_two_takes_is_one_piece() {
        let mut log = Log::default();
        let (mut a, mut b) = (log.join(), log.join());
        publish(&mut log, b"one");
        publish(&mut log, b"two");
        assert_eq!(taken(&mut log, &mut a).as_deref(), Some(&b"onetwo"[..]));
        publish(&mut log, b"three");
        assert_eq!(taken(&mut log, &mut b).as_deref(), Some(&b"onetwo"[..]));
        assert_eq!(log.pieces.len(), 0, "all have taken it");
        for cursor in [&mut a, &mut b] {
            assert_eq!(taken(&mut log, cursor).as_deref(), Some(&b"three"[..]));
            assert_eq!(taken(&mut log, cursor), None);
        }
        assert_eq!((log.sealed, log.pieces.capacity()), (0, 0));
    }

    #[test]
    fn a_member_gets_nothing_from_before_it_joined() {
        let mut log = Log::default();
        let mut early = log.join();
        publish(&mut log, b"one");
        let mut late = log.join();
        publish(&mut log, b"two");
        assert_eq!(taken(&mut log, &mut late).as_deref(), Some(&b"two"[..]));
        assert_eq!(taken(&mut log, &mut early).as_deref(), Some(&b"one"[..]));
        assert_eq!(taken(&mut log, &mut early).as_deref(), Some(&b"two"[..]));
        assert_eq!(log.sealed, 0);
    }

    #[test]
    fn who_leaves_keeps_nothing_alive() {
        let mut log = Log::default();
        let (mut stays, leaves) = (log.join(), log.join());
        publish(&mut log, b"one");
        assert!(taken(&mut log, &mut stays).is_some());
        assert_eq!(log.pieces.len(), 1);
        log.leave(&leaves);
        assert_eq!(log.pieces.len(), 0);
        log.leave(&stays);
        assert!(log.is_deserted());
    }

    #[test]
    fn beyond_its_capacity_the_oldest_is_dropped_and_counted() {
        let mut log = Log::default();
        let (mut fast, mut slow, mut jumper) = (log.join(), log.join(), log.join());
        for n in 0..10 {
            publish(&mut log, &[n; 200]);
            assert!(taken(&mut log, &mut fast).is_some());
            // As soon as the first is dropped, and not before.
            assert_eq!(log.has_outrun(&slow), log.passed > 0);
        }
        assert!(log.sealed <= 1000, "{}", log.sealed);
        assert!(log.has_outrun(&slow) && !log.has_outrun(&fast));
        let missed = log.skip(&mut slow, false);
        let mut got = 0;
        while taken(&mut log, &mut slow).is_some() {
            got += 1;
        }
        assert_eq!(missed + got, 10);
        assert!(got >= 2);
        assert_eq!(log.skip(&mut jumper, true), 9);
        assert_eq!(taken(&mut log, &mut jumper).as_deref(), Some(&[9; 200][..]));
        assert_eq!(log.sealed, 0, "nobody wants any of it");
    }
}
