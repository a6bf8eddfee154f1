//! Receiving: from bytes, cut anywhere, to events in order.

use std::fmt;
use std::mem;

use super::super::assemble::{Delivered, Held, OpenMessage, Unfinished};
use super::super::close::CloseFrame;
use super::super::deflate::{self, Context, Inflated, Loan, MessageCodec};
use super::super::error::PeerFault;
use super::super::event::Event;
use super::super::extensions::{Extensions, RSV1};
use super::super::frame::{FrameHeader, MAX_CONTROL_PAYLOAD, MAX_HEADER, OpCode};
use super::super::limits::Limits;
use super::super::mask::MaskKey;
use super::super::output::Output;
use super::Connection;
use super::send::{Sender, Sending};

/// The events of the bytes that were given to [`Connection::receive`], one after the other.
///
/// Events are borrowed, so this is not an [`Iterator`]; ask with
/// `while let Some(event) = events.next(&mut out)`.
///
/// Dropping it early loses nothing: bytes that were not parsed are copied into the connection, and
/// come first at the next [`Connection::receive`].
#[must_use = "input is parsed while events are asked for"]
pub struct Events<'a> {
    connection: &'a mut Connection,
    input: &'a mut [u8],
    parsed: usize,
    /// What earlier events left, with `input` behind it. Empty on the common path.
    held: Held,
    codec: Option<&'a mut MessageCodec>,
}

impl<'a> Events<'a> {
    #[inline]
    pub(super) fn new(
        connection: &'a mut Connection,
        input: &'a mut [u8],
        codec: Option<&'a mut MessageCodec>,
    ) -> Self {
        let mut events = Self {
            connection,
            input,
            parsed: 0,
            held: Held::default(),
            codec,
        };
        if events.connection.has_held_input() {
            events.take_held();
        }
        events
    }

    /// The next event, or `None` when the input has been used up.
    ///
    /// What the engine has to say to it (the pong for a ping, the answer to a Close, the Close for
    /// a fault) is put into `out` before this returns. So what the caller puts for one event before
    /// asking for the next stays in order with it, and a failure comes behind the answers to all
    /// good messages.
    #[inline]
    pub fn next(&mut self, out: &mut impl Output) -> Option<Event<'_>> {
        self.next_with_sender(out).map(|(event, _)| event)
    }

    /// The next event, like [`next`](Self::next), and with it the sending side: to answer the event
    /// while it is borrowed.
    #[inline]
    pub fn next_with_sender(&mut self, out: &mut impl Output) -> Option<(Event<'_>, Sender<'_>)> {
        let Connection { sending, receiving } = &mut *self.connection;
        let (inflated, mut packer) = self.codec.as_deref_mut().map(MessageCodec::split).unzip();
        let loan = Loan {
            inflated,
            packer: packer.as_deref_mut(),
        };
        // Called in one place, so that the short way becomes a part of the caller's loop.
        let is_held = !self.held.is_empty();
        let input = if is_held {
            &mut self.held.bytes[self.held.parsed..]
        } else {
            &mut self.input[self.parsed..]
        };
        let (parsed, event) = receiving.advance(sending, input, loan, out);
        if is_held {
            self.held.parsed += parsed;
        } else {
            self.parsed += parsed;
        }
        event.map(|event| (event, Sender::new(sending, packer)))
    }

    /// Goes on with what an earlier `Events` left, the new input behind it.
    #[cold]
    fn take_held(&mut self) {
        if let Some(unfinished) = &mut self.connection.receiving.unfinished {
            self.held = mem::take(&mut unfinished.held);
        }
        self.held.append(self.input);
        self.parsed = self.input.len();
    }

    /// Keeps what was not parsed for the next `Events`.
    #[cold]
    fn hold(&mut self) {
        if self.held.is_empty() {
            self.held = Held {
                bytes: self.input[self.parsed..].to_vec(),
                parsed: 0,
            };
        }
        self.connection.receiving.unfinished().held = mem::take(&mut self.held);
    }
}

impl Drop for Events<'_> {
    #[inline]
    fn drop(&mut self) {
        self.connection.receiving.release_delivered();
        if let Some(codec) = &mut self.codec {
            codec.release();
        }
        let all_parsed = self.parsed == self.input.len() && self.held.is_empty();
        if !all_parsed && self.connection.wants_input() {
            self.hold();
        }
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.bytes.len() - self.held.parsed;
        f.debug_struct("Events")
            .field("unparsed", &(self.input.len() - self.parsed + held))
            .finish_non_exhaustive()
    }
}

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

/// A frame whose header is here, and whose payload isn't or not all of it.
#[derive(Clone, Copy)]
struct OpenFrame {
    remaining: u64,
    /// Without a meaning at the client, whose peer doesn't mask.
    key: MaskKey,
    opcode: OpCode,
    fin: bool,
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

    /// Reads a header, the start of which may have come earlier. Returns it with the bytes of
    /// `input` that it took, or keeps all of `input` until there is more.
    #[inline]
    fn read_header(&mut self, input: &[u8]) -> Result<Option<(FrameHeader, usize)>, PeerFault> {
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
    fn check(&self, header: &FrameHeader, sending: &mut Sending) -> Result<(), PeerFault> {
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

    /// The event of a frame that lies in the input whole.
    fn whole_frame<'p>(
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
    fn whole_message<'p>(
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
    fn compressed_message<'i>(
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

    /// Begins to receive a frame that doesn't lie in the input whole, or is a fragment.
    //= rfc6455 5.4-3, 5.4-5, 5.4-7
    fn open_frame(&mut self, header: &FrameHeader) -> OpenFrame {
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
    fn store(&mut self, opcode: OpCode, piece: &[u8]) -> Result<(), PeerFault> {
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
    fn stored_control(
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

    /// Does what a control frame asks for.
    //= rfc6455 5.4-5, 6.2-2
    fn answer_control(
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

    //= rfc6455 5.6-1, 8.1-1
    fn check_end_of_message(&self) -> Result<(), PeerFault> {
        match self.open_message() {
            Some(message) => message.check_end(),
            None => Ok(()),
        }
    }

    /// Takes the open message to be inflated, when it is compressed.
    fn take_compressed(&mut self) -> Option<(OpCode, Vec<u8>)> {
        let message = &mut self.unfinished.as_mut()?.message;
        let compressed = message.as_mut()?.take_compressed()?;
        *message = None;
        Some(compressed)
    }

    fn finished_message(&mut self) -> Option<Event<'_>> {
        let unfinished = self.unfinished();
        unfinished.delivered = Delivered::Message;
        unfinished.message.as_ref().map(OpenMessage::event)
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

/// The header of a message in one frame, when it is one that begins `input`.
#[inline]
fn message_header(input: &[u8]) -> Option<(FrameHeader, usize)> {
    if let Some(found) = FrameHeader::parse_common(input) {
        return Some(found);
    }
    let found = FrameHeader::parse(input).ok()??;
    found.0.is_whole_message().then_some(found)
}

/// Whether the frame by itself is an event: a control frame, or a message in one frame.
#[inline]
fn is_event_of_its_own(header: &FrameHeader) -> bool {
    header.fin && header.opcode != OpCode::Continuation
}

/// The event of a control frame whose payload has been checked.
fn control_event(opcode: OpCode, payload: &[u8]) -> Event<'_> {
    match opcode {
        OpCode::Ping => Event::Ping(payload),
        OpCode::Pong => Event::Pong(payload),
        _ => Event::Close(CloseFrame::parse(payload).ok().flatten()),
    }
}
