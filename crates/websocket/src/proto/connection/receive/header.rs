//! Headers: read, though the input may cut them anywhere, and judged.

use super::super::super::error::PeerFault;
use super::super::super::extensions::RSV1;
use super::super::super::frame::{FrameHeader, MAX_HEADER, OpCode};
use super::super::super::limits::Limits;
use super::super::send::Sending;
use super::Receiving;

impl Receiving {
    /// Reads a header, the start of which may have come earlier. Returns it with the bytes of
    /// `input` that it took, or keeps all of `input` until there is more.
    #[inline]
    pub(super) fn read_header(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(FrameHeader, usize)>, PeerFault> {
        if self.header_len != 0 {
            return self.read_rest_of_header(input);
        }
        let found = FrameHeader::parse(input)?;
        if found.is_none() {
            self.header[..input.len()].copy_from_slice(input);
            self.header_len = input.len() as u8;
        }
        Ok(found)
    }

    #[cold]
    fn read_rest_of_header(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(FrameHeader, usize)>, PeerFault> {
        let before = usize::from(self.header_len);
        let added = input.len().min(MAX_HEADER - before);
        let mut bytes = [0; MAX_HEADER];
        bytes[..before].copy_from_slice(&self.header[..before]);
        bytes[before..before + added].copy_from_slice(&input[..added]);
        let bytes = &bytes[..before + added];
        match FrameHeader::parse(bytes)? {
            Some((header, len)) => {
                self.header_len = 0;
                // What was kept was not a whole header, so this one reaches into `input`.
                Ok(Some((header, len - before)))
            }
            None => {
                self.header[..bytes.len()].copy_from_slice(bytes);
                self.header_len = bytes.len() as u8;
                Ok(None)
            }
        }
    }

    /// Judges what the header alone can't tell: reserved bits, the mask, the order of fragments,
    /// the limits.
    //= rfc6455 10.7-1
    #[inline]
    pub(super) fn check(
        &self,
        header: &FrameHeader,
        sending: &mut Sending,
    ) -> Result<(), PeerFault> {
        //= rfc6455 5.2-2
        let unknown = header.reserved & !self.extensions.reserved_bits();
        if unknown != 0 {
            return Err(PeerFault::ReservedBits(unknown));
        }
        //= rfc7692 6-2
        if header.reserved & RSV1 != 0 && !matches!(header.opcode, OpCode::Text | OpCode::Binary) {
            return Err(PeerFault::MisplacedCompressedBit(header.opcode));
        }
        match (sending.role().is_server(), header.mask.is_some()) {
            (true, true) | (false, false) => {}
            //= rfc6455 5.1-2
            (true, false) => return Err(PeerFault::NotMasked),
            //= rfc6455 5.1-5
            (false, true) => return Err(PeerFault::Masked),
        }
        if header.opcode.is_control() {
            // A Close is no flood: nothing comes after it.
            if header.opcode == OpCode::Close {
                return Ok(());
            }
            return sending.count_control(self.limits.max_control_rate);
        }
        let open = self.open_message();
        //= rfc6455 5.4-4, 5.4-11, 6.2-4
        match (header.opcode, open) {
            (OpCode::Continuation, None) => return Err(PeerFault::UnexpectedContinuation),
            (OpCode::Text | OpCode::Binary, Some(_)) => {
                return Err(PeerFault::InterruptedMessage(header.opcode));
            }
            _ => {}
        }
        let Limits {
            max_frame,
            max_message,
            max_fragments,
            ..
        //= rfc6455 10.4-1, 10.4-2
        } = self.limits;
        if header.payload_len > max_frame as u64 {
            return Err(PeerFault::FrameTooLarge {
                announced: header.payload_len,
                limit: max_frame,
            });
        }
        let (frames, announced) = open.map_or((0, 0), |open| (open.frames, open.announced));
        // Can't overflow: the first is within the limit, the second has 63 bits.
        let announced = announced + header.payload_len;
        if announced > max_message as u64 {
            return Err(PeerFault::MessageTooLarge {
                announced,
                limit: max_message,
            });
        }
        if frames >= max_fragments.max(1) {
            return Err(PeerFault::TooManyFragments {
                limit: max_fragments,
            });
        }
        Ok(())
    }
}

/// The header of a message in one frame, when it is one that begins `input`.
#[inline]
pub(super) fn message_header(input: &[u8]) -> Option<(FrameHeader, usize)> {
    if let Some(found) = FrameHeader::parse_common(input) {
        return Some(found);
    }
    let found = FrameHeader::parse(input).ok()??;
    found.0.is_whole_message().then_some(found)
}

/// Whether the frame by itself is an event: a control frame, or a message in one frame.
#[inline]
pub(super) fn is_event_of_its_own(header: &FrameHeader) -> bool {
    header.fin && header.opcode != OpCode::Continuation
}
