//! What was said to a worker's clients, by transport and kind of message: for the metrics.
//!
//! A fan-out has this done for each receiver, so it is an index and two additions.

use tautline_hub::{FrameType, Traffic};

/// What counts for one receiver of a message.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    what: FrameType,
    messages: u32,
    bytes: usize,
}

impl Said {
    pub(crate) const NOTHING: Self = Self {
        what: FrameType::Error,
        messages: 0,
        bytes: 0,
    };
}

/// What was said so far.
pub(crate) struct Spoken {
    transports: Vec<&'static str>,
    /// All kinds of the first transport, then those of the next.
    counts: Vec<Traffic>,
    /// What the message is that is said next, and how many of its kind are in it.
    next: (FrameType, u32),
}

impl Default for Spoken {
    fn default() -> Self {
        Self {
            transports: Vec::new(),
            counts: Vec::new(),
            next: (Said::NOTHING.what, 0),
        }
    }
}

impl Spoken {
    /// The place of a transport.
    pub(super) fn transport(&mut self, name: &'static str) -> u8 {
        let known = self.transports.iter().position(|known| *known == name);
        let place = known.unwrap_or_else(|| {
            self.transports.push(name);
            let len = self.transports.len() * FrameType::COUNT;
            self.counts.resize(len, Traffic::default());
            self.transports.len() - 1
        });
        // There are a dozen.
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    pub(super) fn next(&mut self, what: FrameType, count: usize) {
        self.next = (what, count as u32);
    }

    /// What this message, which is said next, counts as.
    pub(super) fn said(&self, message: &[u8]) -> Said {
        let (what, messages) = self.next;
        Said {
            what,
            messages,
            bytes: message.len(),
        }
    }

    #[inline]
    pub(super) fn count(&mut self, transport: u8, said: Said) {
        let place = usize::from(transport) * FrameType::COUNT + said.what.index();
        if let Some(count) = self.counts.get_mut(place) {
            count.add(said.messages.into(), said.bytes);
        }
    }

    /// All that was said: to a transport, what, and how much.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, FrameType, Traffic)> {
        let transports = self.transports.iter().copied();
        let kinds = transports.flat_map(|name| FrameType::ALL.map(|what| (name, what)));
        let all = kinds.zip(&self.counts);
        all.filter(|(_, count)| count.messages > 0)
            .map(|((name, what), count)| (name, what, *count))
    }
}
