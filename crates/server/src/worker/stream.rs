//! A session whose messages leave in the bodies of HTTP responses.
//!
//! Messages wait here until whoever writes the response has room for them. Whole messages leave
//! together, so that a reader rarely sees a part of one.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use tautline_hub::SessionAddress;
use tautline_protocol::message::{Push, Reply};
use tautline_protocol::{Disconnect, Encoding};

use super::connections::Ending;
use super::voice::{Framing, Prepared, Speech, Voice};
use crate::http::line::HttpLine;

/// How many bytes leave together, unless a single message is longer.
const CHUNK: usize = 16 * 1024;

/// What waits for the client of a session, and who is to be told of it.
///
/// As with sockets, two parties hold it: the response's body, which takes messages out, and the
/// worker's table, through which the hub puts them in.
pub(crate) struct Stream {
    encoding: Encoding,
    framing: Framing,
    voice: Option<Box<dyn Voice>>,
    address: Option<SessionAddress>,
    takes_commands: bool,
    queue: VecDeque<Bytes>,
    /// How many bytes that is.
    queued: usize,
    /// How many bytes were taken so far.
    written: u64,
    ending: Option<Ending>,
    /// Wakes who takes messages out.
    waker: Waker,
    dirty: bool,
    tell_drained: bool,
    /// The connection below, which has to end when the session does.
    line: Option<Rc<HttpLine>>,
}

impl Stream {
    /// A stream of the protocol's own messages.
    pub(crate) fn new(encoding: Encoding, framing: Framing) -> Self {
        Self {
            encoding,
            framing,
            voice: None,
            address: None,
            takes_commands: false,
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            ending: None,
            waker: Waker::noop().clone(),
            dirty: false,
            tell_drained: false,
            line: None,
        }
    }

    /// One that says things in other words.
    pub(crate) fn with_voice(mut self, voice: Box<dyn Voice>) -> Self {
        self.voice = Some(voice);
        self
    }

    /// Sets the HTTP connection that has to end with the session.
    pub(crate) fn with_line(mut self, line: Rc<HttpLine>) -> Self {
        self.line = Some(line);
        self
    }

    /// Sets what the client is told to name, and whether it can send commands by it.
    pub(crate) fn set_address(&mut self, address: SessionAddress, takes_commands: bool) {
        self.address = Some(address);
        self.takes_commands = takes_commands;
    }

    pub(crate) fn address(&self) -> Option<&SessionAddress> {
        self.address.as_ref()
    }

    pub(crate) fn takes_commands(&self) -> bool {
        self.takes_commands && self.ending.is_none()
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Queues bytes as they are.
    pub(crate) fn push_raw(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Queues a message of the hub. Returns why the session is to be ended, if it is.
    pub(crate) fn push(&mut self, message: &[u8], scratch: &mut Vec<u8>) -> Option<Disconnect> {
        scratch.clear();
        let mut speech = Speech::new(self.framing, scratch);
        let over = match &mut self.voice {
            Some(voice) => voice.messages(message, &mut speech),
            None => {
                speech.say(message);
                None
            }
        };
        self.push_raw(Bytes::copy_from_slice(scratch));
        over
    }

    /// The same for a message that others get as well.
    pub(crate) fn push_prepared(
        &mut self,
        message: &Prepared,
        scratch: &mut Vec<u8>,
    ) -> Option<Disconnect> {
        let Some(voice) = &mut self.voice else {
            self.push_raw(message.framed(self.framing));
            return None;
        };
        scratch.clear();
        let mut speech = Speech::new(self.framing, scratch);
        let over = voice.messages(message.message(), &mut speech);
        self.push_raw(Bytes::copy_from_slice(scratch));
        over
    }

    /// The session is over: what waits is still written, or not, and the last word is why.
    pub(crate) fn end(&mut self, ending: Ending, scratch: &mut Vec<u8>) {
        if !ending.flush {
            self.queue.clear();
            self.queued = 0;
        }
        if ending.disconnect != Disconnect::CONNECTION_CLOSED {
            scratch.clear();
            let mut speech = Speech::new(self.framing, scratch);
            if let Some(voice) = &mut self.voice {
                voice.end(&ending.disconnect, &mut speech);
            } else {
                let push = Push::Disconnect(ending.disconnect.clone());
                let mut message = Vec::new();
                self.encoding.encode_reply(&Reply::Push(push), &mut message);
                speech.say(&message);
            }
            self.push_raw(Bytes::copy_from_slice(scratch));
        }
        if let Some(line) = &self.line {
            line.end(ending.flush);
        }
        self.ending = Some(ending);
        self.waker.wake_by_ref();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// Notes that there will be something to look at at the end of the turn; `true` the first time.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    /// The end of a turn: wakes who takes messages out. Returns whether the hub is to be told that
    /// nothing waits.
    pub(crate) fn offer(&mut self) -> bool {
        self.dirty = false;
        if !self.queue.is_empty() {
            self.waker.wake_by_ref();
            return false;
        }
        self.take_drained()
    }

    pub(crate) fn tell_drained(&mut self) {
        self.tell_drained = true;
    }

    /// Whether the hub is to be told, now, that nothing waits.
    pub(crate) fn take_drained(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.tell_drained)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Remembers whom to wake.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    /// Takes one message out.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let message = self.queue.pop_front()?;
        self.queued -= message.len();
        self.written += message.len() as u64;
        Some(message)
    }

    /// Takes whole messages out, as many as may leave together; `None` when there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let first = self.queue.pop_front()?;
        let mut len = first.len();
        let more = self.queue.iter().take_while(|message| {
            len += message.len();
            len <= CHUNK
        });
        let count = more.count();
        let chunk = if count == 0 {
            first
        } else {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            chunk.extend_from_slice(&first);
            for message in self.queue.drain(..count) {
                chunk.extend_from_slice(&message);
            }
            chunk.freeze()
        };
        if self.queue.is_empty() {
            // An idle session holds no memory.
            self.queue = VecDeque::new();
        }
        self.queued -= chunk.len();
        self.written += chunk.len() as u64;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(messages: &[usize]) -> Stream {
        let mut stream = Stream::new(Encoding::Json, Framing::Lines);
        for &len in messages {
            stream.push(&vec![b'x'; len - 1], &mut Vec::new());
        }
        stream
    }

    #[test]
    fn whole_messages_leave_together() {
        let mut stream = stream(&[CHUNK / 2, CHUNK / 2, 1, CHUNK * 3, 10, 20]);
        assert_eq!(stream.queued(), CHUNK * 4 + 31);
        let mut lengths = Vec::new();
        while let Some(chunk) = stream.take() {
            assert!(chunk.ends_with(b"\n"));
            lengths.push(chunk.len());
        }
        assert_eq!(lengths, [CHUNK, 1, CHUNK * 3, 30]);
        assert_eq!(
            (stream.queued(), stream.written()),
            (0, CHUNK as u64 * 4 + 31)
        );
    }

    #[test]
    fn the_last_word_is_why() {
        for (flush, expected) in [(true, "x\n"), (false, "")] {
            let mut stream = stream(&[2]);
            let disconnect = Disconnect::SHUTDOWN;
            stream.end(Ending { disconnect, flush }, &mut Vec::new());
            let said = stream.take().expect("something was said");
            let end = "{\"push\":{\"disconnect\":{\"code\":3001,\"reason\":\"shutdown\"}}}\n";
            assert_eq!(said, format!("{expected}{end}"));
        }
    }
}
