//! What an echo connection sends and what must come back, prepared beforehand so that the load has only to compare.
//!
//! All frames of a ring have the same length but each has a payload and a masking key of its own, so a server that
//! answers from memory, drops, repeats or swaps messages is found out by a comparison of bytes.

use crate::client::Random;
use crate::client::frame::{Opcode, put_client, put_server};
use crate::client::upgrade::Dialect;

/// Rings take about this much memory at most, unless one burst needs more.
const RING_BYTES: usize = 4 * 1024 * 1024;
const RING_FRAMES: usize = 64;

/// A cycle of frames and of the replies to them.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The frames, and the first `burst` of them once more at the end: any `burst` frames are one slice.
    sent: Vec<u8>,
    replies: Vec<u8>,
    frames: usize,
    sent_length: usize,
    reply_length: usize,
}

impl Ring {
    /// Frames of `payload` bytes, of which at most `burst` are sent at once.
    pub(crate) fn new(payload: usize, burst: usize, opcode: Opcode, dialect: Dialect) -> Self {
        let frames = RING_FRAMES
            .min(RING_BYTES / payload.max(1))
            .max(2)
            .next_multiple_of(burst);
        let mut random = Random::new(payload as u64);
        let (mut sent, mut replies) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            let message = match opcode {
                Opcode::Text => text(payload, &mut random),
                _ => (0..payload).map(|_| random.next() as u8).collect(),
            };
            let start = sent.len();
            put_client(&mut sent, opcode, &message, random.key());
            match dialect {
                Dialect::Raw => replies.extend_from_slice(&sent[start..]),
                Dialect::WebSocket(_) => put_server(&mut replies, opcode, &message),
            }
        }
        let (sent_length, reply_length) = (sent.len() / frames, replies.len() / frames);
        sent.extend_from_within(..burst * sent_length);
        Self {
            sent,
            replies,
            frames,
            sent_length,
            reply_length,
        }
    }

    /// The bytes of `count` frames from the `next`-th since the start, `count` no larger than the burst.
    pub(crate) fn frames(&self, next: u64, count: usize) -> &[u8] {
        let start = (next % self.frames as u64) as usize * self.sent_length;
        &self.sent[start..start + count * self.sent_length]
    }

    /// The length of each reply.
    pub(crate) fn reply_length(&self) -> usize {
        self.reply_length
    }

    /// Where `got` differs from the replies that follow the first `before` bytes of them, if it does.
    pub(crate) fn difference(&self, before: u64, got: &[u8]) -> Option<usize> {
        let mut at = (before % self.replies.len() as u64) as usize;
        let mut compared = 0;
        while compared < got.len() {
            let length = (got.len() - compared).min(self.replies.len() - at);
            let (expected, part) = (
                &self.replies[at..at + length],
                &got[compared..compared + length],
            );
            if expected != part {
                let equal = expected
                    .iter()
                    .zip(part)
                    .take_while(|(a, b)| a == b)
                    .count();
                return Some(compared + equal);
            }
            compared += length;
            at = 0;
        }
        None
    }
}

/// Exactly `length` bytes of UTF-8 in which one to four byte characters are mixed.
fn text(length: usize, random: &mut Random) -> Vec<u8> {
    const LETTERS: [&str; 8] = ["e", "t", "a", "ß", "й", "語", "한", "🪢"];
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let letter = LETTERS[random.next() as usize % LETTERS.len()];
        text.push_str(if text.len() + letter.len() <= length {
            letter
        } else {
            "."
        });
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slice_of_replies_is_told_from_any_other() {
        let ring = Ring::new(20, 16, Opcode::Binary, Dialect::WebSocket("/"));
        let all = ring.replies.clone();
        assert_eq!(ring.difference(0, &all), None);
        assert_eq!(ring.difference(22, &all[22..]), None);
        let around = [&all[all.len() - 5..], &all[..5]].concat();
        assert_eq!(ring.difference(2 * all.len() as u64 - 5, &around), None);
        assert_eq!(
            ring.difference(22, &all[..22]).map(|at| at < 22),
            Some(true),
            "an older reply passed"
        );
        let mut changed = all.clone();
        changed[700] ^= 1;
        assert_eq!(ring.difference(0, &changed), Some(700));
    }

    #[test]
    fn any_burst_is_one_slice_of_whole_frames() {
        let ring = Ring::new(64, 16, Opcode::Binary, Dialect::Raw);
        for next in 0..200 {
            let frames = ring.frames(next, 16);
            assert_eq!(frames.len(), 16 * (2 + 4 + 64));
            assert_eq!(ring.difference(next * 70, frames), None);
        }
    }

    #[test]
    fn texts_have_the_length_that_was_asked_for() {
        for length in [0, 1, 20, 512, 16 * 1024] {
            let text = text(length, &mut Random::new(1));
            assert_eq!(text.len(), length);
            assert!(std::str::from_utf8(&text).is_ok());
        }
    }
}
