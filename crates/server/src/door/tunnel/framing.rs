//! How messages are set apart where a tunnel is carried by the bodies of requests and answers: the kind (1 for text, 2 for
//! binary: the op codes of RFC 6455), the length (seven bits a byte, the least first, as in Protobuf), and the
//! payload.
//!
//! What a client sends is a stream of these, in pieces that may end anywhere.

use bytes::{Buf as _, Bytes, BytesMut};
use bytestring::ByteString;
use tautline_websocket::proto::{CloseCode, Message};

/// A message as it leaves.
pub(super) fn framed(message: &Message) -> Bytes {
    let (kind, payload) = match message {
        Message::Text(text) => (TEXT, text.as_bytes().as_ref()),
        Message::Binary(bytes) => (BINARY, &bytes[..]),
    };
    let mut out = BytesMut::with_capacity(payload.len() + MAX_HEAD);
    out.extend_from_slice(&[kind]);
    let mut left = payload.len();
    while left >= 0x80 {
        out.extend_from_slice(&[left.to_le_bytes()[0] | 0x80]);
        left >>= 7;
    }
    out.extend_from_slice(&[left.to_le_bytes()[0]]);
    out.extend_from_slice(payload);
    out.freeze()
}

/// Puts messages together.
#[derive(Debug)]
pub(super) struct Reader {
    held: BytesMut,
    max: usize,
}

/// What a client has sent is no message that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) code: CloseCode,
    pub(super) reason: &'static str,
}

impl Reader {
    /// For messages of so many bytes at the most.
    pub(super) fn new(max: usize) -> Self {
        Self {
            held: BytesMut::new(),
            max,
        }
    }

    /// How many bytes wait for the rest of their message.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: Bytes) {
        if self.held.is_empty() {
            // Without a copy where nobody else has it.
            self.held = BytesMut::from(piece);
        } else {
            self.held.extend_from_slice(&piece);
        }
    }

    /// The next message, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Broken> {
        let Some((head, kind, len)) = self.head()? else {
            return Ok(None);
        };
        if self.held.len() - head < len {
            return Ok(None);
        }
        self.held.advance(head);
        let payload = self.held.split_to(len).freeze();
        if self.held.is_empty() {
            // Who is silent holds no memory.
            self.held = BytesMut::new();
        }
        if kind == BINARY {
            return Ok(Some(Message::Binary(payload)));
        }
        let text = ByteString::try_from(payload).map_err(|_| Broken {
            code: CloseCode::INVALID_PAYLOAD,
            reason: "the text is not UTF-8",
        })?;
        Ok(Some(Message::Text(text)))
    }

    /// How long the head is, and what it says.
    fn head(&self) -> Result<Option<(usize, u8, usize)>, Broken> {
        let Some((&kind, rest)) = self.held.split_first() else {
            return Ok(None);
        };
        if kind != TEXT && kind != BINARY {
            return Err(Broken {
                code: CloseCode::PROTOCOL_ERROR,
                reason: "expected a message of kind 1 or 2",
            });
        }
        let mut len = 0_usize;
        for (index, byte) in rest.iter().take(MAX_HEAD - 1).enumerate() {
            len |= usize::from(byte & 0x7f) << (7 * index);
            if len > self.max {
                return Err(Broken {
                    code: CloseCode::MESSAGE_TOO_BIG,
                    reason: "the message is longer than message_size_limit allows",
                });
            }
            if byte & 0x80 == 0 {
                return Ok(Some((index + 2, kind, len)));
            }
        }
        if rest.len() >= MAX_HEAD - 1 {
            return Err(Broken {
                code: CloseCode::PROTOCOL_ERROR,
                reason: "the length of a message has more than 5 bytes",
            });
        }
        Ok(None)
    }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// Of a kind and a length of 32 bits.
const MAX_HEAD: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            ".{0,200}".prop_map(Message::from),
            prop::collection::vec(any::<u8>(), 0..400).prop_map(Message::from),
        ]
    }

    proptest! {
        #[test]
        fn whatever_pieces_it_comes_in_it_is_the_same(
            messages in prop::collection::vec(message(), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(framed).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.push(whole.len());
            cuts.sort_unstable();
            let (mut reader, mut read, mut from) = (Reader::new(1000), Vec::new(), 0);
            for cut in cuts {
                reader.take(Bytes::copy_from_slice(&whole[from..cut]));
                from = cut;
                while let Some(message) = reader.next().unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(reader.held.is_empty());
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(16);
            reader.take(bytes.into());
            while let Ok(Some(message)) = reader.next() {
                prop_assert!(message.len() <= 16);
            }
        }
    }

    #[test]
    fn what_can_not_be_is_told_so() {
        let read = |bytes: &'static [u8]| {
            let mut reader = Reader::new(300);
            reader.take(Bytes::from_static(bytes));
            reader.next().map_err(|broken| broken.code)
        };
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"\x01"), Ok(None));
        assert_eq!(read(b"\x01\x80"), Ok(None));
        assert_eq!(read(b"\x01\x02a"), Ok(None));
        assert_eq!(read(b"\x01\x02ab"), Ok(Some(Message::from("ab"))));
        assert_eq!(read(b"\x02\x00"), Ok(Some(Message::from(vec![]))));
        assert_eq!(read(b"\x00\x00"), Err(CloseCode::PROTOCOL_ERROR));
        assert_eq!(read(b"{}"), Err(CloseCode::PROTOCOL_ERROR));
        // Before any of it is there.
        assert_eq!(read(b"\x02\xad\x02"), Err(CloseCode::MESSAGE_TOO_BIG));
        assert_eq!(
            read(b"\x02\xff\xff\xff\xff\xff"),
            Err(CloseCode::MESSAGE_TOO_BIG)
        );
        assert_eq!(
            read(b"\x02\x80\x80\x80\x80\x80"),
            Err(CloseCode::PROTOCOL_ERROR)
        );
        assert_eq!(read(b"\x01\x01\xff"), Err(CloseCode::INVALID_PAYLOAD));
    }
}
