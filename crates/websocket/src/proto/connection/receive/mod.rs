//! Receiving: from bytes, cut anywhere, to events in order.
//!
//! Here is the loop over frames and what it keeps between two calls. A file each: [`events`] is what the
//! caller sees of it, [`header`] reads and judges headers, [`whole`] gives the event of a frame that is
//! here, [`parts`] keeps what comes in parts.

mod events;
mod header;
mod parts;
mod whole;

use std::mem;

use super::super::assemble::{OpenMessage, Unfinished};
use super::super::deflate::{Context, Loan};
use super::super::error::PeerFault;
use super::super::event::Event;
use super::super::extensions::{Extensions, RSV1};
use super::super::frame::MAX_HEADER;
use super::super::limits::Limits;
use super::super::output::Output;
use super::send::Sending;
use header::{is_event_of_its_own, message_header};
use parts::OpenFrame;

pub use events::Events;

/// The receiving half of a connection's state.
pub(super) struct Receiving {
    limits: Limits,
    extensions: Extensions,
    /// Set when the peer sent Close, or was failed: input is not looked at any more.
    over: Option<InputOver>,
    /// The frame whose payload is being received.
    frame: Option<OpenFrame>,
    /// The start of a header which the input cut off. A header that is whole has left it, so one
    /// byte less than the longest is enough.
    header: [u8; MAX_HEADER - 1],
    header_len: u8,
    unfinished: Option<Box<Unfinished>>,
    /// What compressed messages may refer to.
    context: Context,
}

/// Why no more input is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputOver {
    /// The peer sent Close.
    Closed,
    /// The peer misbehaved, and the connection was failed.
    Failed,
}

impl Receiving {
    pub(super) const fn new(limits: Limits, extensions: Extensions) -> Self {
        Self {
            limits,
            extensions,
            over: None,
            frame: None,
            header: [0; MAX_HEADER - 1],
            header_len: 0,
            unfinished: None,
            context: Context::NONE,
        }
    }

    #[inline]
    pub(super) const fn extensions(&self) -> Extensions {
        self.extensions
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) const fn over(&self) -> Option<InputOver> {
        self.over
    }

    pub(super) fn has_held_input(&self) -> bool {
        self.unfinished
            .as_ref()
            .is_some_and(|unfinished| !unfinished.held.is_empty())
    }

    /// Parses up to and including the next event. Returns how many bytes of `input` that took: all
    /// of them when there is no event.
    ///
    /// Here is the short way for what nearly all frames are: good, a message by itself, and whole.
    /// Everything else goes the long way, which would do for these too.
    #[inline(always)]
    fn advance<'i>(
        &'i mut self,
        sending: &mut Sending,
        input: &'i mut [u8],
        loan: Loan<'i, '_>,
        out: &mut impl Output,
    ) -> (usize, Option<Event<'i>>) {
        if self.is_at_rest()
            && let Some((header, header_len)) = message_header(input)
            && header.mask.is_some() == sending.role().is_server()
            && header.payload_len <= self.limits.max_frame.min(self.limits.max_message) as u64
            && header.payload_len <= (input.len() - header_len) as u64
        {
            let len = header_len + header.payload_len as usize;
            let payload = &mut input[header_len..len];
            //= rfc6455 6.2-6
            if let Some(mut key) = header.mask {
                key.apply(payload);
            }
            let event = self.whole_message(header.opcode, payload, sending, out);
            return (len, Some(event));
        }
        self.advance_the_long_way(sending, input, loan, out)
    }

    /// Whether a frame begins here and nothing is open or over.
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.unfinished.is_none()
            && self.frame.is_none()
            && self.header_len == 0
            && self.over.is_none()
    }

    //= rfc6455 6.2-1
    #[inline(never)]
    fn advance_the_long_way<'i>(
        &'i mut self,
        sending: &mut Sending,
        mut input: &'i mut [u8],
        loan: Loan<'i, '_>,
        out: &mut impl Output,
    ) -> (usize, Option<Event<'i>>) {
        let total = input.len();
        self.release_delivered();
        //= rfc6455 7.1.7-7
        if self.over.is_some() {
            return (total, None);
        }
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let (header, header_len) = match self.read_header(input) {
                        Ok(Some(found)) => found,
                        Ok(None) => return (total, None),
                        Err(fault) => return (total, Some(self.fail(fault, sending, out))),
                    };
                    if let Err(fault) = self.check(&header, sending) {
                        return (total, Some(self.fail(fault, sending, out)));
                    }
                    input = &mut mem::take(&mut input)[header_len..];
                    if is_event_of_its_own(&header) && header.payload_len <= input.len() as u64 {
                        let (payload, rest) = input.split_at_mut(header.payload_len as usize);
                        if let Some(mut key) = header.mask {
                            key.apply(payload);
                        }
                        //= rfc7692 6.2-2
                        let event = if header.reserved & RSV1 == 0 {
                            self.whole_frame(header.opcode, payload, sending, out)
                        } else {
                            self.compressed_message(header.opcode, payload, sending, loan, out)
                        };
                        return (total - rest.len(), Some(event));
                    }
                    self.open_frame(&header)
                }
            };
            let available = frame.remaining.min(input.len() as u64) as usize;
            let (piece, rest) = mem::take(&mut input).split_at_mut(available);
            input = rest;
            frame.remaining -= available as u64;
            if sending.role().is_server() {
                frame.key.apply(piece);
            }
            if let Err(fault) = self.store(frame.opcode, piece) {
                return (total, Some(self.fail(fault, sending, out)));
            }
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return (total, None);
            }
            if frame.opcode.is_control() {
                let event = self.stored_control(frame.opcode, sending, out);
                return (total - input.len(), Some(event));
            }
            if frame.fin {
                if let Err(fault) = self.check_end_of_message() {
                    return (total, Some(self.fail(fault, sending, out)));
                }
                let parsed = total - input.len();
                if let Some((opcode, bytes)) = self.take_compressed() {
                    let event = self.compressed_message(opcode, &bytes, sending, loan, out);
                    return (parsed, Some(event));
                }
                return (parsed, self.finished_message());
            }
        }
    }

    /// Fails the connection (§7.1.7): nothing more is received, and a Close frame goes out if
    /// none has yet.
    //= rfc6455 7.1.7-5, 7.1.7-7, 10.7-3
    #[cold]
    fn fail<'e>(
        &mut self,
        fault: PeerFault,
        sending: &mut Sending,
        out: &mut impl Output,
    ) -> Event<'e> {
        self.over = Some(InputOver::Failed);
        self.frame = None;
        self.unfinished = None;
        self.context = Context::NONE;
        sending.close_for(&fault, out);
        Event::Failed(fault)
    }

    #[inline]
    fn open_message(&self) -> Option<&OpenMessage> {
        self.unfinished.as_ref()?.message.as_ref()
    }

    /// Whatever was incomplete when the peer closed will never be complete.
    fn forget_open_message(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.message = None;
        }
    }

    fn unfinished(&mut self) -> &mut Unfinished {
        self.unfinished.get_or_insert_default()
    }

    /// Frees what the last event lent out, and the box when nothing else is in it.
    #[inline]
    fn release_delivered(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.release_delivered();
            if unfinished.is_empty() {
                self.unfinished = None;
            }
        }
    }
}
