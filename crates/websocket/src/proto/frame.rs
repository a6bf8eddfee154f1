//! Frame headers (RFC 6455 §5.2): parsing, writing, and the illegal combinations, one fault each.

#[cfg(feature = "deflate")]
use super::deflate::MessageCodec;
use super::error::PeerFault;
#[cfg(feature = "deflate")]
use super::extensions::RSV1;
use super::mask::MaskKey;
use super::output::Output;

/// What a frame is for (RFC 6455 §5.2, §11.8). Complete: the other ten values are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpCode {
    /// 0x0: the next fragment of a message.
    Continuation,
    /// 0x1: a text message, or its first fragment.
    Text,
    /// 0x2: a binary message, or its first fragment.
    Binary,
    /// 0x8: closes the connection.
    Close,
    /// 0x9: asks for a pong.
    Ping,
    /// 0xA: answers a ping.
    Pong,
}

impl OpCode {
    /// The op code with this value in the four low bits, `None` for a reserved one.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// The value on the wire, 0x0 to 0xA.
    #[inline]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Whether this is a control frame: never fragmented, at most
    /// [`MAX_CONTROL_PAYLOAD`] bytes, allowed between the fragments of a message (§5.5).
    #[inline]
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }

    /// The RFC's name for it, for error texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this is the last (or only) frame of its message.
    pub fin: bool,
    /// RSV1, RSV2, RSV3 as the bits 0b100, 0b010, 0b001. Without an extension that gives a bit
    /// its meaning, a set bit fails the connection.
    pub reserved: u8,
    /// What the frame is for.
    pub opcode: OpCode,
    /// The masking key. Clients must mask, servers must not (§5.1).
    pub mask: Option<MaskKey>,
    /// Bytes of payload that follow the header, at most 2^63 - 1.
    pub payload_len: u64,
}

impl FrameHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// Returns the header and its length in bytes, or `None` when more bytes are needed (never
    /// when there are [`MAX_HEADER`] or more). Whatever the bytes at hand already rule out is an
    /// error at once, even when the header isn't whole yet.
    ///
    /// Whether the reserved bits and the mask are in order depends on the connection, so that is
    /// not checked here.
    ///
    /// # Errors
    ///
    /// [`PeerFault::ReservedOpCode`], [`PeerFault::FragmentedControl`],
    /// [`PeerFault::ControlTooLong`], [`PeerFault::NonMinimalLength`] and
    /// [`PeerFault::LengthOutOfRange`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, PeerFault> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        //= rfc6455 5.2-3
        let Some(opcode) = OpCode::from_bits(first & 0x0F) else {
            return Err(PeerFault::ReservedOpCode(first & 0x0F));
        };
        //= rfc6455 5.5-2, 5.4-2
        if opcode.is_control() && !fin {
            return Err(PeerFault::FragmentedControl(opcode));
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let short = second & 0x7F;
        //= rfc6455 5.5-1
        if opcode.is_control() && short as usize > MAX_CONTROL_PAYLOAD {
            return Err(PeerFault::ControlTooLong(opcode));
        }
        let (payload_len, after_length) = match short {
            126 => {
                let Some(length) = bytes.get(2..4) else {
                    return Ok(None);
                };
                let length = u64::from(u16::from_be_bytes([length[0], length[1]]));
                //= rfc6455 5.2-5
                if length < 126 {
                    return Err(PeerFault::NonMinimalLength(length));
                }
                (length, 4)
            }
            127 => {
                let Some(length) = bytes.get(2..).and_then(<[u8]>::first_chunk) else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(*length);
                if length <= u64::from(u16::MAX) {
                    return Err(PeerFault::NonMinimalLength(length));
                }
                //= rfc6455 5.2-4
                if length > i64::MAX as u64 {
                    return Err(PeerFault::LengthOutOfRange(length));
                }
                (length, 10)
            }
            length => (u64::from(length), 2),
        };
        let (mask, len) = if second & 0x80 == 0 {
            (None, after_length)
        } else {
            let Some(&key) = bytes.get(after_length..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            (Some(MaskKey::new(key)), after_length + 4)
        };
        let header = Self {
            fin,
            reserved: (first >> 4) & 0x7,
            opcode,
            mask,
            payload_len,
        };
        Ok(Some((header, len)))
    }

    /// What [`parse`](Self::parse) says of a masked message of less than 64 KiB in one frame, which is
    /// what a server is sent nearly always, in fewer steps. `None` for everything else, which is for
    /// `parse` to judge.
    #[inline]
    pub(super) fn parse_common(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let opcode = match first {
            0x81 => OpCode::Text,
            0x82 => OpCode::Binary,
            _ => return None,
        };
        let (payload_len, key, len) = match second {
            0x80..0xFE => (u64::from(second & 0x7F), rest.first_chunk()?, 6),
            0xFE => {
                let (&length, rest) = rest.split_first_chunk()?;
                let length = u64::from(u16::from_be_bytes(length));
                //= rfc6455 5.2-5
                if length < 126 {
                    return None;
                }
                (length, rest.first_chunk()?, 8)
            }
            _ => return None,
        };
        let header = Self {
            fin: true,
            reserved: 0,
            opcode,
            mask: Some(MaskKey::new(*key)),
            payload_len,
        };
        Some((header, len))
    }

    /// Whether the frame is a message by itself: text or binary, not fragmented, with no reserved
    /// bit set.
    #[inline]
    pub const fn is_whole_message(&self) -> bool {
        self.fin && self.reserved == 0 && matches!(self.opcode, OpCode::Text | OpCode::Binary)
    }

    /// Writes the header into `buffer` and returns how many bytes it takes: 2 to [`MAX_HEADER`],
    /// with the length in its shortest form.
    #[inline]
    pub fn write(&self, buffer: &mut [u8; MAX_HEADER]) -> usize {
        buffer[0] = u8::from(self.fin) << 7 | (self.reserved & 0x7) << 4 | self.opcode.bits();
        //= rfc6455 5.3-1
        let mask_bit = u8::from(self.mask.is_some()) << 7;
        //= rfc6455 5.2-5
        let len = match self.payload_len {
            length @ 0..126 => {
                buffer[1] = mask_bit | length as u8;
                2
            }
            length @ 126..0x1_0000 => {
                buffer[1] = mask_bit | 126;
                buffer[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            length => {
                buffer[1] = mask_bit | 127;
                buffer[2..10].copy_from_slice(&length.to_be_bytes());
                10
            }
        };
        match self.mask {
            None => len,
            Some(key) => {
                buffer[len..len + 4].copy_from_slice(&key.bytes());
                len + 4
            }
        }
    }
}

/// Writes a whole unmasked frame, as a server sends it: one message, not fragmented.
///
/// Nothing is checked. This is the primitive for senders who track the state of the connection
/// themselves, and for broadcast; everybody else wants [`Connection`](super::Connection). A text
/// payload must be UTF-8, and a control payload at most [`MAX_CONTROL_PAYLOAD`] bytes.
#[inline]
pub fn write_unmasked(opcode: OpCode, payload: &[u8], out: &mut (impl Output + ?Sized)) {
    write_unmasked_with(0, opcode, payload, out);
}

/// [`write_unmasked`] with reserved bits.
//= rfc6455 5.1-4, 6.1-2, 6.1-5
#[inline]
pub(super) fn write_unmasked_with(
    reserved: u8,
    opcode: OpCode,
    payload: &[u8],
    out: &mut (impl Output + ?Sized),
) {
    let first = 0x80 | (reserved & 0x7) << 4 | opcode.bits();
    // One arm for each length of header: what has a fixed length is stored, not copied by a call.
    //= rfc6455 5.2-5
    match payload.len() {
        len @ 0..126 => out.put_parts(&[first, len as u8], payload),
        len @ 126..0x1_0000 => {
            let [high, low] = (len as u16).to_be_bytes();
            out.put_parts(&[first, 126, high, low], payload);
        }
        len => {
            let mut header = [first, 127, 0, 0, 0, 0, 0, 0, 0, 0];
            header[2..].copy_from_slice(&(len as u64).to_be_bytes());
            out.put_parts(&header, payload);
        }
    }
}

/// A whole unmasked frame by itself: encoded once, it can be sent to any number of clients.
///
/// See [`write_unmasked`] for what is not checked.
///
/// ```
/// use tautline_websocket::proto::frame::{self, OpCode};
///
/// assert_eq!(frame::encode_shared(OpCode::Text, b"Hello"), b"\x81\x05Hello");
/// ```
pub fn encode_shared(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + MAX_HEADER);
    write_unmasked(opcode, payload, &mut frame);
    frame
}

/// A whole unmasked frame with a compressed message: compressed and encoded once, it can be sent to
/// any number of clients that have agreed on permessage-deflate. `None` when the message is better
/// sent as it is: below the codec's threshold, or not smaller compressed. Then
/// [`encode_shared`] makes the frame for all.
///
/// The message refers to none before it, so it suits every client whatever was sent to it before,
/// as long as the server's window, [`server_max_window_bits`], has at least `window_bits` bits: with
/// 9 that is every one that a server agrees to; what is repeated farther away than
/// `2^window_bits` bytes is not found. **Each connection it goes to must be told with
/// [`Sender::forget_sent`]**, because the message is now in the client's window.
///
/// See [`write_unmasked`] for what is not checked.
///
/// # Panics
///
/// When `window_bits` is not 9 to 15.
///
/// [`server_max_window_bits`]: super::deflate::Agreement::server_max_window_bits
/// [`Sender::forget_sent`]: super::Sender::forget_sent
#[cfg(feature = "deflate")]
pub fn encode_shared_deflated(
    opcode: OpCode,
    payload: &[u8],
    window_bits: u8,
    codec: &mut MessageCodec,
) -> Option<Vec<u8>> {
    assert!(
        (9..=15).contains(&window_bits),
        "window bits for a shared frame are 9 to 15, not {window_bits}"
    );
    let (_, packer) = codec.split();
    let compressed = packer.pack_for_all(window_bits, payload)?;
    let mut frame = Vec::with_capacity(compressed.len() + MAX_HEADER);
    write_unmasked_with(RSV1, opcode, compressed, &mut frame);
    Some(frame)
}

/// The longest header: two bytes, an eight-byte length, a four-byte masking key.
pub const MAX_HEADER: usize = 14;

/// The longest payload of a control frame (§5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u64; 9] = [
        0,
        1,
        125,
        126,
        127,
        0xFFFF,
        0x1_0000,
        0x7FFF_FFFF_FFFF_FFFF,
        1 << 40,
    ];

    /// §5.2: the header that was written is the header that is read, for all legal combinations.
    //= rfc6455 5.3-1, 6.2-1
    #[test]
    fn every_legal_header_survives_the_round_trip() {
        for bits in 0..16 {
            let Some(opcode) = OpCode::from_bits(bits) else {
                continue;
            };
            for fin in [false, true] {
                for reserved in 0..8 {
                    for mask in [None, Some(MaskKey::new([1, 2, 3, 4]))] {
                        for payload_len in LENGTHS {
                            if opcode.is_control() && (!fin || payload_len > 125) {
                                continue;
                            }
                            let header = FrameHeader {
                                fin,
                                reserved,
                                opcode,
                                mask,
                                payload_len,
                            };
                            let mut buffer = [0; MAX_HEADER];
                            let len = header.write(&mut buffer);
                            assert_eq!(FrameHeader::parse(&buffer), Ok(Some((header, len))));
                            for short in 0..len {
                                assert_eq!(FrameHeader::parse(&buffer[..short]), Ok(None));
                            }
                        }
                    }
                }
            }
        }
    }

    /// §5.2, §5.4, §5.5: each of the 65,536 first two bytes is judged as the RFC's text does.
    //= rfc6455 5.2-3, 5.5-1, 5.5-2, 5.4-2
    #[test]
    fn the_first_two_bytes_are_judged_exhaustively() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let mut bytes = [0x42; MAX_HEADER];
                bytes[..2].copy_from_slice(&[first, second]);
                let (opcode, length) = (first & 0x0F, second & 0x7F);
                let result = FrameHeader::parse(&bytes);
                if matches!(opcode, 3..=7 | 0xB..=0xF) {
                    assert_eq!(result, Err(PeerFault::ReservedOpCode(opcode)));
                } else if opcode >= 8 && first & 0x80 == 0 {
                    let opcode = OpCode::from_bits(opcode).unwrap();
                    assert_eq!(result, Err(PeerFault::FragmentedControl(opcode)));
                } else if opcode >= 8 && length > 125 {
                    let opcode = OpCode::from_bits(opcode).unwrap();
                    assert_eq!(result, Err(PeerFault::ControlTooLong(opcode)));
                } else {
                    let (header, len) = result.unwrap().unwrap();
                    assert_eq!(header.fin, first & 0x80 != 0);
                    assert_eq!(header.reserved, (first >> 4) & 7);
                    assert_eq!(header.opcode.bits(), opcode);
                    assert_eq!(header.mask.is_some(), second & 0x80 != 0);
                    let expected = match length {
                        126 => (0x4242, 4),
                        127 => (0x4242_4242_4242_4242, 10),
                        short => (u64::from(short), 2),
                    };
                    let mask = if second & 0x80 != 0 { 4 } else { 0 };
                    assert_eq!((header.payload_len, len), (expected.0, expected.1 + mask));
                }
            }
        }
    }

    /// §5.2: "the minimal number of bytes MUST be used to encode the length".
    //= rfc6455 5.2-5
    #[test]
    fn lengths_must_be_minimal() {
        for length in 0..=0xFFFFu16 {
            let [high, low] = length.to_be_bytes();
            let result = FrameHeader::parse(&[0x82, 126, high, low]);
            assert_eq!(result.is_ok(), length > 125, "{length} in 16 bits");
            let result = FrameHeader::parse(&[0x82, 127, 0, 0, 0, 0, 0, 0, high, low]);
            assert_eq!(result, Err(PeerFault::NonMinimalLength(u64::from(length))));
        }
        assert!(FrameHeader::parse(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).is_ok());
    }

    /// §5.2: "the most significant bit MUST be 0".
    //= rfc6455 5.2-4
    #[test]
    fn a_length_beyond_63_bits_is_refused() {
        let result = FrameHeader::parse(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(result, Err(PeerFault::LengthOutOfRange(1 << 63)));
    }

    /// What can't become legal any more is refused without waiting for the rest.
    #[test]
    fn faults_show_at_the_first_byte_that_makes_them() {
        assert!(FrameHeader::parse(&[0x83]).is_err());
        assert!(FrameHeader::parse(&[0x09]).is_err());
        assert!(FrameHeader::parse(&[0x88, 126]).is_err());
    }

    /// The short way says what the long one does, or nothing: for each first two bytes, with lengths
    /// in 16 bits on either side of what is minimal, cut off anywhere.
    #[test]
    fn the_short_way_to_a_header_agrees_with_the_long_one() {
        let mut taken = 0;
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                for length in [0u16, 125, 126, 0x4242, 0xFFFF] {
                    let mut bytes = [0x42; MAX_HEADER];
                    bytes[..2].copy_from_slice(&[first, second]);
                    bytes[2..4].copy_from_slice(&length.to_be_bytes());
                    for end in 0..=bytes.len() {
                        if let Some(found) = FrameHeader::parse_common(&bytes[..end]) {
                            taken += 1;
                            assert_eq!(FrameHeader::parse(&bytes[..end]), Ok(Some(found)));
                        }
                    }
                }
            }
        }
        // Two op codes: 126 short lengths and 5 of filling with 9 cuts, and 3 long ones with 7.
        assert_eq!(taken, 2 * (126 * 5 * 9 + 3 * 7));
    }

    /// A frame is written as its header says, at each length of header.
    #[test]
    fn an_unmasked_frame_has_the_header_that_is_parsed() {
        for len in [0, 1, 125, 126, 0xFFFF, 0x1_0000, 0x1_0001] {
            let payload = vec![7; len];
            let mut frame = Vec::new();
            write_unmasked_with(0b100, OpCode::Text, &payload, &mut frame);
            let header = FrameHeader {
                fin: true,
                reserved: 0b100,
                opcode: OpCode::Text,
                mask: None,
                payload_len: len as u64,
            };
            let (found, header_len) = FrameHeader::parse(&frame).unwrap().unwrap();
            assert_eq!(found, header);
            assert_eq!(frame[header_len..], payload);
        }
    }

    #[test]
    fn a_shared_frame_is_the_frame() {
        assert_eq!(
            encode_shared(OpCode::Binary, &[7; 126])[..4],
            [0x82, 126, 0, 126]
        );
        assert_eq!(encode_shared(OpCode::Ping, b""), [0x89, 0]);
    }
}
