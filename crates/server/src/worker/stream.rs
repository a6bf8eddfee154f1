//! A session whose messages leave in the bodies of HTTP responses.
//!
//! Messages wait here until whoever writes the response has room for them. Whole messages leave together, so that a reader
//! rarely sees a part of one: SDKs for browsers expect that. Only those which the network takes apart in any case leave in parts, so
//! that what nobody reads waits here, where it can be thrown away.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use tautline_hub::SessionAddress;
use tautline_protocol::message::{Push, Reply};
use tautline_protocol::{Disconnect, Encoding};

use super::link::Ending;
use super::voice::{Framing, Prepared, Speech, Voice};
use super::waiters::Load;
use crate::door::admission::AddressPermit;
use crate::http::line::HttpLine;

/// How many bytes leave together, unless a single message is longer.
const CHUNK: usize = 16 * 1024;

/// A message that is longer leaves in parts of so many bytes.
const PART: usize = 64 * 1024;

/// What waits for the client of a session, and who is to be told of it.
///
/// As with sockets, two parties hold it: the response's body, which takes messages out, and the
/// worker's table, through which the hub puts them in.
pub(crate) struct Stream {
    encoding: Encoding,
    framing: Framing,
    /// Its transport's place among what was said.
    pub(super) transport: u8,
    voice: Option<Box<dyn Voice>>,
    address: Option<SessionAddress>,
    takes_commands: bool,
    queue: VecDeque<Message>,
    /// How many bytes that is.
    queued: usize,
    /// How much of that is nobody else's, and what it takes to manage all of it.
    held: usize,
    /// How many bytes were taken so far.
    written: u64,
    ending: Option<Ending>,
    /// Wakes who takes messages out.
    waker: Waker,
    dirty: bool,
    tell_drained: bool,
    /// The connection below, which has to end when the session does.
    line: Option<Rc<HttpLine>>,
    /// Set where messages are kept until the client acknowledges them.
    numbers: Option<Numbers>,
    /// Among those of its address, if it counts.
    address_permit: Option<AddressPermit>,
    /// Bytes that were taken out and are still on their way, in memory of their own; once there were any.
    below: Option<Arc<AtomicUsize>>,
}

/// One message that waits.
struct Message {
    bytes: Bytes,
    /// How many of its bytes were taken out already.
    taken: usize,
    /// Others have the same bytes.
    is_shared: bool,
}

impl Message {
    fn new(bytes: Bytes, is_shared: bool) -> Self {
        Self {
            bytes,
            taken: 0,
            is_shared,
        }
    }

    /// Bytes that wait.
    fn left(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Takes a part out of it. Text is cut between two characters: there are clients that read each part by itself.
    fn part(&mut self, encoding: Encoding) -> Bytes {
        let start = self.taken;
        let mut end = start + PART;
        if encoding == Encoding::Json {
            let is_within = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
            // No character has more bytes than four.
            let first = (0..4).find(|back| !is_within(self.bytes.get(end - back)));
            end -= first.unwrap_or(0);
        }
        self.taken = end;
        self.bytes.slice(start..end)
    }

    /// Bytes of memory that it holds by itself.
    fn held(&self) -> usize {
        let own = if self.is_shared { 0 } else { self.bytes.len() };
        own + OVERHEAD
    }
}

/// What a message costs beside its bytes.
const OVERHEAD: usize = 64;

/// Bytes that count until they are dropped.
struct Below {
    bytes: Bytes,
    count: Arc<AtomicUsize>,
}

impl Below {
    fn new(bytes: Bytes, count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, count }
    }
}

impl AsRef<[u8]> for Below {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Messages are numbered in the order in which they were queued.
#[derive(Clone, Copy, Default)]
struct Numbers {
    /// Of the first in the queue: all before it are acknowledged.
    first: u64,
    /// Of the first that was never told.
    untold: u64,
    /// How many bytes were told, at least once.
    told: u64,
}

impl Stream {
    /// A stream of the protocol's own messages.
    pub(crate) fn new(encoding: Encoding, framing: Framing) -> Self {
        Self {
            encoding,
            framing,
            transport: 0,
            voice: None,
            address: None,
            takes_commands: false,
            queue: VecDeque::new(),
            queued: 0,
            held: 0,
            written: 0,
            ending: None,
            waker: Waker::noop().clone(),
            dirty: false,
            tell_drained: false,
            line: None,
            numbers: None,
            address_permit: None,
            below: None,
        }
    }

    /// One whose messages are kept until the client acknowledges them. Only those count as taken; why it
    /// ended is no message.
    pub(crate) fn retaining(mut self) -> Self {
        self.numbers = Some(Numbers::default());
        self
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

    pub(crate) fn set_address_permit(&mut self, permit: Option<AddressPermit>) {
        self.address_permit = permit;
    }

    pub(crate) fn address_permit(&self) -> &Option<AddressPermit> {
        &self.address_permit
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
        self.put(bytes, false);
    }

    fn put(&mut self, bytes: Bytes, is_shared: bool) {
        if !bytes.is_empty() {
            let message = Message::new(bytes, is_shared);
            self.queued += message.bytes.len();
            self.held += message.held();
            self.queue.push_back(message);
        }
    }

    /// Puts bytes before all that is queued.
    pub(crate) fn push_first(&mut self, bytes: Bytes) {
        let message = Message::new(bytes, false);
        self.queued += message.bytes.len();
        self.held += message.held();
        self.queue.push_front(message);
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
            self.put(message.framed(self.framing), true);
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
        if self.numbers.is_some() {
            self.ending = Some(ending);
            self.wake();
            return;
        }
        if !ending.flush {
            self.drop_queue();
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
        self.wake();
    }

    /// Wakes who takes messages out.
    pub(crate) fn wake(&self) {
        self.waker.wake_by_ref();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// Why it ended, if it did.
    pub(crate) fn ended_by(&self) -> Option<Disconnect> {
        let ending = self.ending.as_ref()?;
        Some(ending.disconnect.clone())
    }

    /// Whether there is something to tell: messages, or the end.
    pub(crate) fn has_news(&self) -> bool {
        !self.queue.is_empty() || self.is_ended()
    }

    /// The same, from that number on.
    pub(crate) fn has_news_from(&self, number: u64) -> bool {
        self.is_ended() || !self.is_told(number)
    }

    /// Whether the hub waits for all to be acknowledged, while there is nothing to tell from that number on.
    pub(crate) fn waits_for_acknowledgement(&self, number: u64) -> bool {
        self.tell_drained && self.is_told(number)
    }

    fn is_told(&self, number: u64) -> bool {
        let first = self.numbers.unwrap_or_default().first;
        first + self.queue.len() as u64 <= number
    }

    /// Drops the messages before `number`: the client has them.
    ///
    /// # Errors
    ///
    /// The numbers that could be acknowledged, if this is none of them.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Result<(), RangeInclusive<u64>> {
        let Numbers { first, untold, .. } = self.numbers.unwrap_or_default();
        if number < first || number > untold {
            return Err(first..=untold);
        }
        for _ in first..number {
            self.pop();
        }
        if self.queue.is_empty() {
            // An idle session holds no memory.
            self.queue = VecDeque::new();
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.first = number;
        }
        Ok(())
    }

    /// Appends to `out` what isn't acknowledged, from `number` on: at most so many messages and bytes, but
    /// one message in any case. Returns the number of the next, and whether there is none yet.
    pub(crate) fn tell(
        &mut self,
        number: u64,
        max_bytes: usize,
        max_messages: usize,
        out: &mut Vec<u8>,
    ) -> (u64, bool) {
        let mut numbers = self.numbers.unwrap_or_default();
        let queued = self.queue.len();
        let skipped = usize::try_from(number.saturating_sub(numbers.first)).unwrap_or(queued);
        let skipped = skipped.min(queued);
        let mut len = 0;
        let mut count = 0;
        for Message { bytes: message, .. } in self.queue.range(skipped..).take(max_messages) {
            len += message.len();
            if count > 0 && len > max_bytes {
                break;
            }
            out.extend_from_slice(message);
            count += 1;
        }
        let next = numbers.first + (skipped + count) as u64;
        let known = usize::try_from(numbers.untold.saturating_sub(numbers.first));
        let known = known.unwrap_or(queued).min(queued);
        let fresh = self
            .queue
            .range(known..queued.min(skipped + count).max(known));
        numbers.told += fresh.map(|message| message.bytes.len() as u64).sum::<u64>();
        numbers.untold = numbers.untold.max(next);
        if self.numbers.is_some() {
            self.numbers = Some(numbers);
        }
        (next, skipped + count == queued)
    }

    /// Notes that there will be something to look at at the end of the turn; `true` the first time.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }

    /// It is being looked at.
    pub(crate) fn unmark_dirty(&mut self) {
        self.dirty = false;
    }

    /// The end of a turn: wakes who takes messages out. Returns whether the hub is to be told that
    /// nothing waits.
    pub(crate) fn offer(&mut self) -> bool {
        if !self.queue.is_empty() {
            self.waker.wake_by_ref();
            return false;
        }
        self.take_drained()
    }

    pub(crate) fn tell_drained(&mut self) {
        self.tell_drained = true;
    }

    /// Whether the hub wants to know when nothing waits.
    pub(crate) fn tells_drained(&self) -> bool {
        self.tell_drained
    }

    /// Whether the hub is to be told, now, that nothing waits.
    pub(crate) fn take_drained(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.tell_drained)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held(&self) -> usize {
        self.load().held
    }

    /// What waits, that which was taken out and is not on its way yet too.
    pub(super) fn load(&self) -> Load {
        let below = self.below.as_ref();
        let below = below.map_or(0, |below| below.load(Ordering::Relaxed));
        Load {
            held: self.held + below,
            queued: self.queued + below,
            written: self.written.saturating_sub(below as u64),
            kept: 0,
            is_socket: false,
        }
    }

    /// Forgets what waits: nobody is to have it any more.
    pub(super) fn drop_queue(&mut self) {
        self.queue = VecDeque::new();
        (self.queued, self.held) = (0, 0);
    }

    /// How many bytes the client may have got.
    pub(crate) fn told(&self) -> u64 {
        self.numbers.map_or(self.written, |numbers| numbers.told)
    }

    /// Remembers whom to wake.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    /// Takes one message out, or what is left of it.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let message = self.queue.pop_front()?;
        self.held -= message.held();
        self.queued -= message.left();
        self.written += message.left() as u64;
        Some(message.bytes.slice(message.taken..))
    }

    /// Takes whole messages out, as many as may leave together, or a part of a long one; `None` when there are none.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let encoding = self.encoding;
        let first = self.queue.front_mut()?;
        if first.left() > PART {
            let part = first.part(encoding);
            self.queued -= part.len();
            self.written += part.len() as u64;
            if first.is_shared {
                return Some(part);
            }
            // By itself, as the rest is to be counted where it is.
            let part = Bytes::copy_from_slice(&part);
            return Some(self.count_below(part));
        }
        let (is_shared, is_whole) = (first.is_shared, first.taken == 0);
        let mut len = first.left();
        let more = self.queue.iter().skip(1).take_while(|message| {
            len += message.bytes.len();
            len <= CHUNK
        });
        let count = more.count();
        let first = self.pop()?;
        let is_alone = count == 0 && (is_shared || is_whole);
        let chunk = if is_alone {
            first
        } else {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            chunk.extend_from_slice(&first);
            for message in (0..count).filter_map(|_| self.pop()) {
                chunk.extend_from_slice(&message);
            }
            chunk.freeze()
        };
        if self.queue.is_empty() {
            // An idle session holds no memory.
            self.queue = VecDeque::new();
        }
        if is_alone && is_shared {
            return Some(chunk);
        }
        Some(self.count_below(chunk))
    }

    fn count_below(&mut self, bytes: Bytes) -> Bytes {
        let below = Arc::clone(self.below.get_or_insert_default());
        Bytes::from_owner(Below::new(bytes, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::spoken::Said;

    fn stream(messages: &[usize]) -> Stream {
        let mut stream = Stream::new(Encoding::Json, Framing::Lines);
        for &len in messages {
            stream.push(&vec![b'x'; len - 1], &mut Vec::new());
        }
        stream
    }

    #[test]
    fn text_is_cut_between_two_characters() {
        for before in 0..4 {
            let text = "x".repeat(PART - before) + &"\u{1f600}".repeat(PART);
            let mut stream = stream(&[]);
            stream.push(text.as_bytes(), &mut Vec::new());
            let mut all = String::new();
            while let Some(part) = stream.take() {
                assert!(part.len() > PART - 4 || stream.queued() == 0);
                all += str::from_utf8(&part).expect("whole characters");
            }
            assert_eq!(all, text + "\n");
        }
    }

    #[test]
    fn what_was_taken_out_counts_until_it_is_on_its_way() {
        let mut stream = stream(&[1000, CHUNK, 500]);
        let (first, second) = (stream.take().unwrap(), stream.take().unwrap());
        assert_eq!(stream.queued(), 500);
        let load = stream.load();
        assert_eq!(load.queued, 1000 + CHUNK + 500);
        assert_eq!((load.held, load.written), (load.queued + OVERHEAD, 0));
        drop(first);
        assert_eq!(
            (stream.load().queued, stream.load().written),
            (CHUNK + 500, 1000)
        );
        drop((second, stream.take()));
        assert_eq!((stream.load().held, stream.load().queued), (0, 0));
        // A long one holds all of its memory until it is gone.
        stream.push(&[b'x'; 3 * PART - 1], &mut Vec::new());
        let part = stream.take().unwrap();
        let load = stream.load();
        assert_eq!((part.len(), stream.queued()), (PART, 2 * PART));
        assert_eq!((load.queued, load.held), (3 * PART, 4 * PART + OVERHEAD));
        drop((part, stream.take()));
        assert_eq!(stream.load().held, 3 * PART + OVERHEAD);
        let last = stream.take().unwrap();
        assert_eq!((last.len(), stream.load().held), (PART, PART));
        drop(last);
        assert_eq!(stream.load().held, 0);
        // What is others' as well takes no memory of its own.
        let shared = Prepared::new(b"\x81\x01x", 1, Said::NOTHING);
        stream.push_prepared(&shared, &mut Vec::new());
        let taken = stream.take().unwrap();
        assert_eq!((taken.len(), stream.load().held), (2, 0));
    }

    #[test]
    fn whole_messages_leave_together() {
        let sent = [CHUNK / 2, CHUNK / 2, 1, PART, 10, 20, 2 * PART + 5];
        let mut stream = stream(&sent);
        assert_eq!(stream.queued(), CHUNK + 3 * PART + 36);
        let (mut lengths, mut all) = (Vec::new(), Vec::new());
        while let Some(chunk) = stream.take() {
            lengths.push(chunk.len());
            all.extend_from_slice(&chunk);
        }
        let lines: Vec<_> = all.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        assert!(
            lines
                .into_iter()
                .eq(sent.map(|len| len - 1).into_iter().chain([0]))
        );
        assert_eq!(lengths, [CHUNK, 1, PART, 30, PART, PART, 5]);
        assert_eq!(
            (stream.queued(), stream.written()),
            (0, (CHUNK + 3 * PART + 36) as u64)
        );
        assert_eq!(stream.load().held, 0);
    }

    #[test]
    fn what_is_not_acknowledged_is_told_again() {
        let mut stream = Stream::new(Encoding::Json, Framing::Lines).retaining();
        let told = |stream: &mut Stream| {
            let mut out = Vec::new();
            let first = stream.numbers.unwrap_or_default().first;
            let (next, is_all) = stream.tell(first, 8, 3, &mut out);
            (String::from_utf8(out).unwrap(), next, is_all)
        };
        for message in ["a", "b", "c", "d", "long one", "e"] {
            stream.push(message.as_bytes(), &mut Vec::new());
        }
        let first = ("a\nb\nc\n".to_owned(), 3, false);
        assert_eq!(told(&mut stream), first);
        assert_eq!(stream.acknowledge(0), Ok(()));
        assert_eq!(told(&mut stream), first);
        // What was never told can't be acknowledged, and what was can't be taken back.
        assert_eq!(stream.acknowledge(4), Err(0..=3));
        assert_eq!(stream.acknowledge(2), Ok(()));
        assert_eq!(stream.acknowledge(1), Err(2..=3));
        assert_eq!((stream.written(), stream.queued()), (4, 15));
        assert_eq!(stream.told(), 6, "c was told, and not acknowledged");
        assert_eq!(told(&mut stream), ("c\nd\n".to_owned(), 4, false));
        // The other answer may have got there after all.
        assert_eq!(stream.acknowledge(3), Ok(()));
        assert_eq!(stream.acknowledge(4), Ok(()));
        assert_eq!(told(&mut stream), ("long one\n".to_owned(), 5, false));
        assert_eq!(stream.acknowledge(5), Ok(()));
        let disconnect = Disconnect::SHUTDOWN;
        let flush = false;
        stream.end(Ending { disconnect, flush }, &mut Vec::new());
        assert_eq!(told(&mut stream), ("e\n".to_owned(), 6, true));
        assert_eq!(stream.acknowledge(6), Ok(()));
        assert_eq!((stream.written(), stream.queued()), (19, 0));
        assert_eq!(stream.told(), 19);
        assert!(stream.has_news());
        assert_eq!(stream.ended_by(), Some(Disconnect::SHUTDOWN));
        assert_eq!(told(&mut stream), (String::new(), 6, true));
    }

    #[test]
    fn what_was_told_is_gone_on_from() {
        let mut stream = Stream::new(Encoding::Json, Framing::Lines).retaining();
        for message in ["a", "b", "c"] {
            stream.push(message.as_bytes(), &mut Vec::new());
        }
        let mut out = Vec::new();
        assert_eq!(stream.tell(0, 4, 9, &mut out), (2, false));
        assert!(stream.has_news_from(2));
        assert_eq!(stream.tell(2, 4, 9, &mut out), (3, true));
        assert_eq!(out, b"a\nb\nc\n");
        assert!(!stream.has_news_from(3));
        stream.tell_drained();
        assert!(stream.waits_for_acknowledgement(3) && !stream.waits_for_acknowledgement(2));
        assert!(!stream.take_drained(), "nothing is acknowledged");
        // From where the client is, not from the first that is kept.
        assert_eq!(stream.acknowledge(1), Ok(()));
        out.clear();
        assert_eq!(stream.tell(2, 4, 9, &mut out), (3, true));
        assert_eq!(out, b"c\n");
        assert_eq!(stream.tell(7, 4, 9, &mut out), (3, true));
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
