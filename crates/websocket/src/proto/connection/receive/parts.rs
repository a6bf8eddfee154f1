//! What doesn't come whole: a payload in pieces, a message in fragments.

use super::super::super::assemble::{Delivered, OpenMessage};
use super::super::super::error::PeerFault;
use super::super::super::event::Event;
use super::super::super::extensions::RSV1;
use super::super::super::frame::{FrameHeader, MAX_CONTROL_PAYLOAD, OpCode};
use super::super::super::mask::MaskKey;
use super::super::super::output::Output;
use super::super::send::Sending;
use super::Receiving;
use super::whole::control_event;

/// A frame whose header is here, and whose payload isn't or not all of it.
#[derive(Clone, Copy)]
pub(super) struct OpenFrame {
    pub(super) remaining: u64,
    /// Without a meaning at the client, whose peer doesn't mask.
    pub(super) key: MaskKey,
    pub(super) opcode: OpCode,
    pub(super) fin: bool,
}

impl Receiving {
    /// Begins to receive a frame that doesn't lie in the input whole, or is a fragment.
    //= rfc6455 5.4-3, 5.4-5, 5.4-7
    pub(super) fn open_frame(&mut self, header: &FrameHeader) -> OpenFrame {
        if !header.opcode.is_control() {
            let message = &mut self.unfinished().message;
            match message {
                Some(open) => {
                    open.frames += 1;
                    open.announced += header.payload_len;
                }
                None => {
                    let compressed = header.reserved & RSV1 != 0;
                    let open = OpenMessage::begin(header.opcode, compressed, header.payload_len);
                    *message = Some(open);
                }
            }
        }
        OpenFrame {
            remaining: header.payload_len,
            key: header.mask.unwrap_or(MaskKey::new([0; 4])),
            opcode: header.opcode,
            fin: header.fin,
        }
    }

    /// Keeps a piece of the open frame's payload.
    pub(super) fn store(&mut self, opcode: OpCode, piece: &[u8]) -> Result<(), PeerFault> {
        if piece.is_empty() {
            return Ok(());
        }
        let unfinished = self.unfinished();
        if opcode.is_control() {
            unfinished.control.extend_from_slice(piece);
            return Ok(());
        }
        match &mut unfinished.message {
            Some(message) => message.push(piece),
            None => Ok(()),
        }
    }

    /// The event of a control frame that came in parts.
    pub(super) fn stored_control(
        &mut self,
        opcode: OpCode,
        sending: &mut Sending,
        out: &mut impl Output,
    ) -> Event<'_> {
        let mut copy = [0; MAX_CONTROL_PAYLOAD];
        let len = {
            let unfinished = self.unfinished();
            unfinished.delivered = Delivered::Control;
            copy[..unfinished.control.len()].copy_from_slice(&unfinished.control);
            unfinished.control.len()
        };
        match self.answer_control(opcode, &copy[..len], sending, out) {
            Ok(()) => control_event(opcode, &self.unfinished().control),
            Err(fault) => self.fail(fault, sending, out),
        }
    }

    //= rfc6455 5.6-1, 8.1-1
    pub(super) fn check_end_of_message(&self) -> Result<(), PeerFault> {
        match self.open_message() {
            Some(message) => message.check_end(),
            None => Ok(()),
        }
    }

    /// Takes the open message to be inflated, when it is compressed.
    pub(super) fn take_compressed(&mut self) -> Option<(OpCode, Vec<u8>)> {
        let message = &mut self.unfinished.as_mut()?.message;
        let compressed = message.as_mut()?.take_compressed()?;
        *message = None;
        Some(compressed)
    }

    pub(super) fn finished_message(&mut self) -> Option<Event<'_>> {
        let unfinished = self.unfinished();
        unfinished.delivered = Delivered::Message;
        unfinished.message.as_ref().map(OpenMessage::event)
    }
}
