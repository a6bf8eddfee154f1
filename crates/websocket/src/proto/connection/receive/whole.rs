//! The events of frames and messages that are here whole.

use super::super::super::assemble::{Delivered, OpenMessage};
use super::super::super::close::CloseFrame;
use super::super::super::deflate::{self, Inflated, Loan};
use super::super::super::error::PeerFault;
use super::super::super::event::Event;
use super::super::super::extensions::RSV1;
use super::super::super::frame::OpCode;
use super::super::super::output::Output;
use super::super::send::Sending;
use super::{InputOver, Receiving};

impl Receiving {
    /// The event of a frame that lies in the input whole.
    pub(super) fn whole_frame<'p>(
        &mut self,
        opcode: OpCode,
        payload: &'p [u8],
        sending: &mut Sending,
        out: &mut impl Output,
    ) -> Event<'p> {
        if !opcode.is_control() {
            return self.whole_message(opcode, payload, sending, out);
        }
        match self.answer_control(opcode, payload, sending, out) {
            Ok(()) => control_event(opcode, payload),
            Err(fault) => self.fail(fault, sending, out),
        }
    }

    /// The event of a message that lies in the input whole, in one frame.
    //= rfc6455 5.4-7, 6.2-3
    #[inline]
    pub(super) fn whole_message<'p>(
        &mut self,
        opcode: OpCode,
        payload: &'p [u8],
        sending: &mut Sending,
        out: &mut impl Output,
    ) -> Event<'p> {
        if opcode != OpCode::Text {
            return Event::Binary(payload);
        }
        //= rfc6455 5.6-1, 8.1-1
        match simdutf8::basic::from_utf8(payload) {
            Ok(text) => Event::Text(text),
            Err(_) => self.fail(PeerFault::InvalidUtf8, sending, out),
        }
    }

    /// The event of a compressed message, all of which is here.
    //= rfc7692 6.2-1, 6-3
    pub(super) fn compressed_message<'i>(
        &'i mut self,
        opcode: OpCode,
        compressed: &[u8],
        sending: &mut Sending,
        loan: Loan<'i, '_>,
        out: &mut impl Output,
    ) -> Event<'i> {
        let Some(incoming) = self.extensions.messages_of(!sending.role().is_server()) else {
            return self.fail(PeerFault::ReservedBits(RSV1), sending, out);
        };
        let context = &mut self.context;
        match deflate::inflate(incoming, context, compressed, &self.limits, loan) {
            Ok(Inflated::Lent(message)) => self.whole_message(opcode, message, sending, out),
            Ok(Inflated::Own(message)) => match OpenMessage::whole(opcode, message) {
                Ok(message) => {
                    let unfinished = self.unfinished();
                    unfinished.delivered = Delivered::Message;
                    unfinished.message.insert(message).event()
                }
                Err(fault) => self.fail(fault, sending, out),
            },
            Err(fault) => self.fail(fault, sending, out),
        }
    }

    /// Does what a control frame asks for.
    //= rfc6455 5.4-5, 6.2-2
    pub(super) fn answer_control(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        sending: &mut Sending,
        out: &mut impl Output,
    ) -> Result<(), PeerFault> {
        match opcode {
            //= rfc6455 5.5.2-2
            OpCode::Ping => sending.answer_ping(payload, self.limits.pong_backlog, out),
            //= rfc6455 5.5.1-7
            OpCode::Close => {
                let close = CloseFrame::parse(payload)?;
                self.over = Some(InputOver::Closed);
                self.forget_open_message();
                sending.answer_close(close.map(|close| close.code), out);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The event of a control frame whose payload has been checked.
pub(super) fn control_event(opcode: OpCode, payload: &[u8]) -> Event<'_> {
    match opcode {
        OpCode::Ping => Event::Ping(payload),
        OpCode::Pong => Event::Pong(payload),
        _ => Event::Close(CloseFrame::parse(payload).ok().flatten()),
    }
}
