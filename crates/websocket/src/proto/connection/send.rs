//! Sending: messages and control frames, masked where the role wants it.

use std::time::{Duration, Instant};

use super::super::close::{CloseCode, CloseFrame, MAX_REASON};
use super::super::deflate::{Context, Direction, Packer};
use super::super::error::{Misuse, PeerFault};
use super::super::extensions::{Extensions, RSV1};
use super::super::frame::{
    FrameHeader, MAX_CONTROL_PAYLOAD, MAX_HEADER, OpCode, write_unmasked_with,
};
use super::super::mask::MaskKey;
use super::super::output::Output;
use super::{Connection, Role};

/// The sending side of a [`Connection`], borrowed by itself, so that an event can be answered
/// while it is still borrowed from the receiving side.
#[derive(Debug)]
pub struct Sender<'a> {
    sending: &'a mut Sending,
    packer: Option<&'a mut Packer>,
}

impl<'a> Sender<'a> {
    #[inline]
    pub(super) fn new(sending: &'a mut Sending, packer: Option<&'a mut Packer>) -> Self {
        Self { sending, packer }
    }

    /// Puts a text message into `out`, as one frame. It is compressed when permessage-deflate was
    /// agreed, a codec was lent, and it pays.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    #[inline]
    pub fn send_text(&mut self, text: &str, out: &mut impl Output) -> Result<(), Misuse> {
        let packer = self.packer.as_deref_mut();
        self.sending
            .send_message(OpCode::Text, text.as_bytes(), packer, out)
    }

    /// Puts a binary message into `out`, as one frame, compressed as
    /// [`send_text`](Self::send_text) says.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        let packer = self.packer.as_deref_mut();
        self.sending
            .send_message(OpCode::Binary, bytes, packer, out)
    }

    /// [`send_text`](Self::send_text) or [`send_binary`](Self::send_binary), as the op code says.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn send(
        &mut self,
        (opcode, payload): (OpCode, &[u8]),
        out: &mut impl Output,
    ) -> Result<(), Misuse> {
        let packer = self.packer.as_deref_mut();
        self.sending.send_message(opcode, payload, packer, out)
    }

    /// Puts a ping into `out`, with at most 125 bytes of payload which the pong will repeat.
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent.
    //= rfc6455 5.5.2-1, 5.5.2-4
    pub fn ping(&mut self, payload: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        self.sending.send_control(OpCode::Ping, payload, out)
    }

    /// Puts a pong that answers no ping into `out`: a heartbeat in one direction (§5.5.3). Pings
    /// are answered without the caller's help.
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent.
    //= rfc6455 5.5.3-3
    pub fn pong(&mut self, payload: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        self.sending.send_control(OpCode::Pong, payload, out)
    }

    /// Begins to close, or agrees to: puts a Close frame into `out`, with a reason of at most
    /// [`MAX_REASON`](super::super::MAX_REASON) bytes for people who look into logs. Nothing can be
    /// sent after it. Messages may still come until the peer's Close.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnsendableCloseCode`], [`Misuse::CloseReasonTooLong`]; [`Misuse::Closing`] once
    /// a Close frame was sent.
    //= rfc6455 5.5.1-1, 7.1.2-1
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut impl Output,
    ) -> Result<(), Misuse> {
        let frame = CloseFrame { code, reason };
        frame.check_sendable()?;
        if self.sending.close_sent {
            return Err(Misuse::Closing);
        }
        self.sending.put_close(Some(frame), out);
        Ok(())
    }

    /// Whether messages can still be sent: no Close frame was sent yet.
    #[inline]
    pub fn can_send(&self) -> bool {
        !self.sending.close_sent
    }

    /// Forgets what was sent, so that the next message refers to nothing before it.
    ///
    /// To be called whenever a compressed frame that this connection has not made itself, as
    /// [`encode_shared_deflated`](super::super::frame::encode_shared_deflated) makes them, was sent
    /// to its peer: the peer's window has moved on, and references to what was in it before would
    /// miss. With `server_no_context_takeover` there is nothing to forget, and it does nothing.
    #[cfg(feature = "deflate")]
    pub fn forget_sent(&mut self) {
        self.sending.context = Context::default();
    }
}

/// See [`Sender`] for what each method does. No codec is lent here, so nothing is compressed.
impl Connection {
    /// Puts a text message into `out`, as one frame.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    #[inline]
    pub fn send_text(&mut self, text: &str, out: &mut impl Output) -> Result<(), Misuse> {
        self.sender().send_text(text, out)
    }

    /// Puts a binary message into `out`, as one frame.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        self.sender().send_binary(bytes, out)
    }

    /// Puts a ping into `out`; see [`Sender::ping`].
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent.
    pub fn ping(&mut self, payload: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        self.sender().ping(payload, out)
    }

    /// Puts a pong into `out` that answers no ping; see [`Sender::pong`].
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent.
    pub fn pong(&mut self, payload: &[u8], out: &mut impl Output) -> Result<(), Misuse> {
        self.sender().pong(payload, out)
    }

    /// Begins to close; see [`Sender::close`].
    ///
    /// # Errors
    ///
    /// [`Misuse::UnsendableCloseCode`], [`Misuse::CloseReasonTooLong`]; [`Misuse::Closing`] once
    /// a Close frame was sent.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut impl Output,
    ) -> Result<(), Misuse> {
        self.sender().close(code, reason, out)
    }

    /// Answers the ping that had to wait because the peer didn't read, if there is one and the
    /// output has room again. To be called when output has been written; returns whether something
    /// was put.
    pub fn flush_pong(&mut self, out: &mut impl Output) -> bool {
        let limit = self.limits().pong_backlog;
        self.sending.flush_pong(limit, out)
    }
}

/// The sending half of a connection's state.
#[derive(Debug)]
pub(super) struct Sending {
    role: Role,
    close_sent: bool,
    /// What came of pings and pongs: control frames in `control.second`, or before that was begun.
    control_frames: u32,
    control: Option<Box<Control>>,
    /// How messages may be compressed, `None` for not at all.
    outgoing: Option<Direction>,
    /// What compressed messages may refer to.
    context: Context,
}

/// What is kept for a peer that sends pings, for as long as it is needed.
#[derive(Debug, Default)]
struct Control {
    /// The answer to the newest ping, for a peer that asks and doesn't read.
    waiting_pong: Option<Vec<u8>>,
    /// When the second began in which control frames are counted. None is begun before there is
    /// something to count.
    second: Option<Instant>,
}

impl Sending {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            role,
            close_sent: false,
            control_frames: 0,
            control: None,
            outgoing: None,
            context: Context::NONE,
        }
    }

    pub(super) fn set_extensions(&mut self, extensions: Extensions) {
        self.outgoing = extensions.messages_of(self.role.is_server());
    }

    #[inline]
    pub(super) const fn role(&self) -> &Role {
        &self.role
    }

    #[inline]
    pub(super) const fn close_sent(&self) -> bool {
        self.close_sent
    }

    //= rfc6455 6.1-1, 6.1-4, 5.5.1-6
    #[inline]
    fn send_message(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        packer: Option<&mut Packer>,
        out: &mut impl Output,
    ) -> Result<(), Misuse> {
        if self.close_sent {
            return Err(Misuse::Closing);
        }
        if let (Some(outgoing), Some(packer)) = (self.outgoing, packer)
            && self.put_compressed(outgoing, opcode, payload, packer, out)
        {
            return Ok(());
        }
        //= rfc7692 6.1-2, 6.1-3
        self.put_frame(opcode, payload, out);
        Ok(())
    }

    /// Puts a message compressed, if that pays. By itself, so that what isn't compressed is put by
    /// few instructions.
    #[inline(never)]
    fn put_compressed(
        &mut self,
        outgoing: Direction,
        opcode: OpCode,
        payload: &[u8],
        packer: &mut Packer,
        out: &mut impl Output,
    ) -> bool {
        let Some(compressed) = packer.pack(outgoing, &mut self.context, payload) else {
            return false;
        };
        //= rfc7692 6.1-1
        self.put_frame_with(RSV1, opcode, compressed, out);
        true
    }

    fn send_control(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        out: &mut impl Output,
    ) -> Result<(), Misuse> {
        //= rfc6455 5.5-1
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(Misuse::ControlTooLong(payload.len()));
        }
        if self.close_sent {
            return Err(Misuse::Closing);
        }
        self.put_frame(opcode, payload, out);
        Ok(())
    }

    /// Answers a ping at once when the output is shorter than `limit`, else when it is again.
    ///
    /// §5.5.3: of pings that were not answered yet, only the newest needs an answer.
    //= rfc6455 5.5.2-3, 5.5.3-1, 5.5.3-2
    pub(super) fn answer_ping(&mut self, payload: &[u8], limit: u32, out: &mut impl Output) {
        if self.close_sent {
            return;
        }
        if out.backlog() < limit as usize {
            self.forget_pong();
            self.put_frame(OpCode::Pong, payload, out);
            return;
        }
        let control = self.control.get_or_insert_default();
        let pong = control.waiting_pong.get_or_insert_default();
        pong.clear();
        pong.extend_from_slice(payload);
    }

    fn flush_pong(&mut self, limit: u32, out: &mut impl Output) -> bool {
        let Some(control) = &mut self.control else {
            return false;
        };
        if control.waiting_pong.is_none() || out.backlog() >= limit as usize {
            return false;
        }
        let Some(pong) = control.waiting_pong.take() else {
            return false;
        };
        self.tidy();
        self.put_frame(OpCode::Pong, &pong, out);
        true
    }

    fn forget_pong(&mut self) {
        if let Some(control) = &mut self.control {
            control.waiting_pong = None;
            self.tidy();
        }
    }

    /// Frees the box when nothing is in it.
    fn tidy(&mut self) {
        let empty = |control: &Control| control.waiting_pong.is_none() && control.second.is_none();
        if self.control.as_deref().is_some_and(empty) {
            self.control = None;
        }
    }

    /// Counts a control frame, which is one too many if there were `limit` of them in this second.
    pub(super) fn count_control(&mut self, limit: u32) -> Result<(), PeerFault> {
        self.control_frames = self.control_frames.saturating_add(1);
        let counting = matches!(&self.control, Some(control) if control.second.is_some());
        if counting && self.control_frames > limit {
            return Err(PeerFault::TooManyControlFrames { limit });
        }
        Ok(())
    }

    #[inline]
    pub(super) const fn counts_control(&self) -> bool {
        self.control_frames > 0
    }

    /// Begins a second when there is something to count, and ends it when it has passed.
    pub(super) fn set_time(&mut self, now: Instant) {
        if self.control_frames == 0 {
            return;
        }
        let control = self.control.get_or_insert_default();
        match control.second {
            None => control.second = Some(now),
            Some(begun) if now.saturating_duration_since(begun) >= SECOND => {
                control.second = None;
                self.control_frames = 0;
                self.tidy();
            }
            Some(_) => {}
        }
    }

    /// Answers the peer's Close with the same code (§5.5.1), unless a Close was sent before.
    //= rfc6455 5.5.1-7, 5.5.1-8
    pub(super) fn answer_close(&mut self, code: Option<CloseCode>, out: &mut impl Output) {
        if !self.close_sent {
            self.put_close(code.map(|code| CloseFrame { code, reason: "" }), out);
        }
    }

    /// Sends the Close that a fault calls for, unless a Close was sent before.
    //= rfc6455 7.1.7-5, 5.1-3, 5.1-6
    pub(super) fn close_for(&mut self, fault: &PeerFault, out: &mut impl Output) {
        if !self.close_sent {
            // All fault texts are ASCII, so the cut is between characters.
            let mut reason = fault.to_string();
            reason.truncate(MAX_REASON);
            let frame = CloseFrame {
                code: fault.close_code(),
                reason: &reason,
            };
            self.put_close(Some(frame), out);
        }
    }

    fn put_close(&mut self, frame: Option<CloseFrame<'_>>, out: &mut impl Output) {
        self.close_sent = true;
        self.forget_pong();
        let mut buffer = [0; MAX_CONTROL_PAYLOAD];
        let payload = frame.map_or(&[][..], |frame| frame.write(&mut buffer));
        self.put_frame(OpCode::Close, payload, out);
    }

    //= rfc7692 6-1
    #[inline]
    fn put_frame(&mut self, opcode: OpCode, payload: &[u8], out: &mut impl Output) {
        self.put_frame_with(0, opcode, payload, out);
    }

    #[inline]
    fn put_frame_with(
        &mut self,
        reserved: u8,
        opcode: OpCode,
        payload: &[u8],
        out: &mut impl Output,
    ) {
        match &mut self.role {
            //= rfc6455 5.1-4
            Role::Server => write_unmasked_with(reserved, opcode, payload, out),
            //= rfc6455 5.1-1, 5.3-2, 5.5.1-5, 6.1-6, 10.3-1
            Role::Client(keys) => {
                let key = MaskKey::new(keys.next_key());
                put_masked(reserved, opcode, payload, key, out);
            }
        }
    }
}

/// Puts a whole masked frame, as a client sends it.
fn put_masked(
    reserved: u8,
    opcode: OpCode,
    payload: &[u8],
    mut key: MaskKey,
    out: &mut impl Output,
) {
    let header = FrameHeader {
        fin: true,
        reserved,
        opcode,
        mask: Some(key),
        payload_len: payload.len() as u64,
    };
    let mut head = [0; MAX_HEADER];
    let len = header.write(&mut head);
    out.put(&head[..len]);
    // The payload is the caller's and stays as it is, so it is masked in a copy, piece by piece.
    let mut copy = [0; 1024];
    for piece in payload.chunks(copy.len()) {
        let copy = &mut copy[..piece.len()];
        copy.copy_from_slice(piece);
        key.apply(copy);
        out.put(copy);
    }
}

/// In which [`Limits::max_control_rate`](super::super::Limits::max_control_rate) control frames may come.
const SECOND: Duration = Duration::from_secs(1);
