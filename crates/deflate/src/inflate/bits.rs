//! Reads a message's bits, lowest first, and behind them the tail which its sender left out.

/// What a sender leaves out, and a receiver puts back, at the end of each message: the end of the
/// empty stored block that a sync flush makes (RFC 7692, sections 7.2.1 and 7.2.2).
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The last bytes of a message, its tail, and zeros: what bits are loaded from where the message
/// has no eight more.
#[derive(Clone, Copy)]
pub(super) struct End {
    bytes: [u8; 32],
    /// Where in the message `bytes` begins.
    from: usize,
}

impl End {
    pub(super) fn of(message: &[u8]) -> Self {
        let kept = message.len().min(8);
        let mut bytes = [0; 32];
        bytes[..kept].copy_from_slice(&message[message.len() - kept..]);
        //= rfc7692 7.2.2-1
        bytes[kept..kept + TAIL.len()].copy_from_slice(&TAIL);
        Self {
            bytes,
            from: message.len() - kept,
        }
    }
}

/// A place in a message, to the bit. Beyond the tail there are zeros without end; whoever reads
/// asks [`is_beyond_end`](Self::is_beyond_end) before it trusts what it got.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    message: &'a [u8],
    end: &'a End,
    /// The next byte to load.
    at: usize,
    /// Bits that were loaded and not consumed. Above `count` there may be more, of byte `at`; they
    /// are loaded again with it.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(message: &'a [u8], end: &'a End) -> Self {
        Self {
            message,
            end,
            at: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Loads bits until there are 56 or more.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let word = match self.message.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => self.word_at_end(),
        };
        self.buffer |= word << self.count;
        self.at += ((63 - self.count) / 8) as usize;
        self.count |= 56;
    }

    #[inline(never)]
    fn word_at_end(&self) -> u64 {
        let at = self.at.saturating_sub(self.end.from).min(24);
        match self.end.bytes[at..].first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => 0,
        }
    }

    /// The next bits, at least as many as were loaded.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Passes over bits, no more than were loaded.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) {
        self.buffer >>= count;
        self.count -= count;
    }

    /// The next `count` bits, no more than were loaded.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = self.buffer & ((1 << count) - 1);
        self.consume(count);
        bits as u32
    }

    /// How many bits of the message were consumed.
    #[inline]
    fn position(&self) -> usize {
        self.at * 8 - self.count as usize
    }

    /// Whether so much was loaded that what was consumed may be beyond the end.
    #[inline(always)]
    pub(super) fn may_be_beyond_end(&self) -> bool {
        self.at > self.message.len() + TAIL.len()
    }

    /// Whether bits were consumed that are neither of the message nor of its tail.
    #[inline]
    pub(super) fn is_beyond_end(&self) -> bool {
        self.may_be_beyond_end() && self.position() > (self.message.len() + TAIL.len()) * 8
    }

    /// Whether nothing is left, and this is between two blocks: of the message or of its tail; or of
    /// the message's bytes but for zeros that fill up the last one.
    pub(super) fn is_at_end(&self) -> bool {
        let position = self.position();
        let len = self.message.len();
        if position == (len + TAIL.len()) * 8 {
            return true;
        }
        if position == len * 8 {
            return true;
        }
        let rest = 8 - position % 8;
        position < len * 8
            && position / 8 + 1 == len
            && rest < 8
            && self.message[len - 1] >> (8 - rest) == 0
    }

    /// Whether all bytes of the message were consumed, if not those of its tail.
    pub(super) fn is_past_message(&self) -> bool {
        self.position() >= self.message.len() * 8
    }

    /// Passes over what is left of the current byte.
    pub(super) fn align(&mut self) {
        self.consume(self.count % 8);
    }

    /// Passes over the next `len` bytes, from a byte boundary on, and hands them to `put`. When there
    /// are fewer it hands out none, and is beyond the end.
    pub(super) fn copy(&mut self, len: usize, mut put: impl FnMut(&[u8])) -> bool {
        let from = self.position() / 8;
        let to = from + len;
        let message = self.message.len();
        self.at = to;
        self.buffer = 0;
        self.count = 0;
        if self.is_beyond_end() {
            return false;
        }
        put(&self.message[from.min(message)..to.min(message)]);
        put(&TAIL[from.saturating_sub(message)..to.saturating_sub(message)]);
        true
    }
}
