//! What is counted of clients for people who look after a server: who is here by what, what they say, how long their
//! commands take, and what comes of them.
//!
//! Plain numbers of one worker. What tells them apart is a list that the code knows, or codes of which there is a bounded
//! number: nothing that a client sends makes another.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::message::Error;

use super::frame_type::{FrameType, Traffic};
use super::operation::Operation;
use super::{Hub, SessionId};
use crate::durations::Histogram;
use crate::engine::{EngineError, Published};

/// What a hub has counted of its clients. All but those in flight only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCounters {
    /// By transport.
    pub transports: BTreeMap<&'static str, TransportCounters>,
    /// How long commands took, by [`Operation::index`]: from the turn of the worker in which one was read to that in which
    /// it was answered. Most are answered in the same turn, and took no time by this.
    pub commands: [Histogram; Operation::COUNT],
    /// Commands that were answered with an error, by what they were and the error's code.
    pub errors: BTreeMap<(Operation, u32), u64>,
    /// Subscriptions that have begun.
    pub subscribed: u64,
    /// Subscriptions that were ended from this side, by code.
    pub unsubscribed: BTreeMap<u32, u64>,
    /// Subscriptions that asked for what was missed: whether they have recovered, and whether there were publications.
    pub recoveries: [[u64; 2]; 2],
    /// Publications that were handed to the engine and had an effect, and those coming and leaving.
    pub sent: Messages,
    /// The same as they came from the engine.
    pub received: Messages,
    /// Publications without an effect.
    pub suppressed: Suppressed,
}

/// Sessions of one transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportCounters {
    /// Clients that have connected, by [`ClientName::index`].
    pub accepted: [u64; ClientName::COUNT],
    /// Those of them that are still here.
    pub in_flight: [u64; ClientName::COUNT],
    /// What clients have said, by [`FrameType::index`].
    pub received: [Traffic; FrameType::COUNT],
    /// Connections that were ended from this side, by code.
    pub closes: BTreeMap<u32, u64>,
    /// How long clients took to answer pings.
    pub pongs: Histogram,
}

/// Between workers, and nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Messages {
    /// Publications.
    pub publications: u64,
    /// Announcements of who has come.
    pub joins: u64,
    /// And of who has left.
    pub leaves: u64,
}

/// Why publications had no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suppressed {
    /// Their idempotency key was known.
    pub idempotency: u64,
    /// The channel's version was as new.
    pub version: u64,
}

/// What a client says that it is, as far as it is one of those that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientName {
    /// It says nothing.
    Unnamed,
    /// Says something else.
    Other,
    /// The SDK for JavaScript.
    Js,
    /// For Dart.
    Dart,
    /// For Swift.
    Swift,
    /// For Java.
    Java,
    /// For Go.
    Go,
    /// For Python.
    Python,
    /// For C#.
    CSharp,
}

impl ClientName {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Unnamed,
        Self::Other,
        Self::Js,
        Self::Dart,
        Self::Swift,
        Self::Java,
        Self::Go,
        Self::Python,
        Self::CSharp,
    ];

    /// What to call it, such as `js`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::Other => "other",
            Self::Js => "js",
            Self::Dart => "dart",
            Self::Swift => "swift",
            Self::Java => "java",
            Self::Go => "go",
            Self::Python => "python",
            Self::CSharp => "csharp",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    pub(super) fn of(said: &str) -> Self {
        if said.is_empty() {
            return Self::Unnamed;
        }
        let sdks = Self::ALL[Self::Js.index()..].iter();
        let mut sdks = sdks.filter(|known| known.name() == said);
        sdks.next().copied().unwrap_or(Self::Other)
    }
}

/// How a session is counted.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    /// Its transport's place in the tally.
    transport: u8,
    client: ClientName,
    /// It is among those in flight.
    is_in: bool,
}

impl Counted {
    pub(super) fn name(&mut self, said: &str) {
        self.client = ClientName::of(said);
    }
}

/// What is counted, and what is under way.
#[derive(Default)]
pub(crate) struct Tally {
    transports: Vec<(&'static str, TransportCounters)>,
    counters: ClientCounters,
    /// Commands that are not answered yet: a session has one for which it waits, and some calls.
    waiting: BTreeMap<(SessionId, u32), (Operation, Duration)>,
    /// When pings were sent that are not answered yet: of many that are under way only some.
    pings: HashMap<SessionId, Duration, foldhash::fast::RandomState>,
}

impl Tally {
    /// How a session of that transport is counted.
    pub(super) fn open(&mut self, transport: &'static str) -> Counted {
        let mut known = self.transports.iter();
        let place = known.position(|(name, _)| *name == transport);
        let place = place.unwrap_or_else(|| {
            let new = (transport, TransportCounters::default());
            self.transports.push(new);
            self.transports.len() - 1
        });
        Counted {
            // Programs have a handful of them.
            transport: u8::try_from(place).unwrap_or(u8::MAX),
            client: ClientName::Unnamed,
            is_in: false,
        }
    }

    fn of(&mut self, counted: Counted) -> Option<&mut TransportCounters> {
        let known = self.transports.get_mut(usize::from(counted.transport));
        known.map(|(_, counters)| counters)
    }

    pub(super) fn connected(&mut self, counted: &mut Counted) {
        if std::mem::replace(&mut counted.is_in, true) {
            return;
        }
        let client = counted.client.index();
        if let Some(counters) = self.of(*counted) {
            counters.accepted[client] += 1;
            counters.in_flight[client] += 1;
        }
    }

    /// A session is over.
    pub(super) fn left(&mut self, id: SessionId, counted: Counted) {
        self.pings.remove(&id);
        while let Some(key) = self.first_waiting(id) {
            self.waiting.remove(&key);
        }
        if counted.is_in
            && let Some(counters) = self.of(counted)
        {
            counters.in_flight[counted.client.index()] -= 1;
        }
    }

    /// A session was ended from this side.
    pub(super) fn closed(&mut self, counted: Counted, code: u32) {
        if let Some(counters) = self.of(counted) {
            count_code(&mut counters.closes, code);
        }
    }

    pub(super) fn received(&mut self, counted: Counted, what: FrameType, bytes: usize) {
        if let Some(counters) = self.of(counted) {
            counters.received[what.index()].add(1, bytes);
        }
    }

    /// A command will be answered later.
    pub(super) fn wait(&mut self, id: SessionId, number: u32, what: Operation, now: Duration) {
        self.waiting.insert((id, number), (what, now));
    }

    /// Something that a session has waited for is over. Returns what it was.
    pub(super) fn finish_waiting(
        &mut self,
        id: SessionId,
        number: u32,
        now: Duration,
    ) -> Option<Operation> {
        let key = if number == 0 {
            // A client's connect command was answered, and the application was still with it.
            self.first_waiting(id)?
        } else {
            (id, number)
        };
        let (what, since) = self.waiting.remove(&key)?;
        self.finished(what, now.saturating_sub(since));
        Some(what)
    }

    fn first_waiting(&self, id: SessionId) -> Option<(SessionId, u32)> {
        let mut its = self.waiting.range((id, 0)..=(id, u32::MAX));
        its.next().map(|(key, _)| *key)
    }

    pub(super) fn finished(&mut self, what: Operation, after: Duration) {
        self.counters.commands[what.index()].add(after);
    }

    /// A command was answered with an error.
    pub(super) fn failed(&mut self, what: Operation, error: &Error) {
        count_code(&mut self.counters.errors, (what, error.code));
    }

    pub(super) fn pinged(&mut self, id: SessionId, now: Duration) {
        if self.pings.len() < MAX_PINGS {
            self.pings.insert(id, now);
        }
    }

    /// A client has answered its ping.
    pub(super) fn answered(&mut self, id: SessionId, counted: Counted, now: Duration) {
        if let Some(since) = self.pings.remove(&id)
            && let Some(counters) = self.of(counted)
        {
            counters.pongs.add(now.saturating_sub(since));
        }
    }

    pub(super) fn subscribed(&mut self) {
        self.counters.subscribed += 1;
    }

    pub(super) fn unsubscribed(&mut self, code: u32) {
        count_code(&mut self.counters.unsubscribed, code);
    }

    /// A subscription that asked for what was missed has begun, or come to nothing.
    pub(super) fn recovered(&mut self, recovered: bool, has_publications: bool) {
        let counts = &mut self.counters.recoveries[usize::from(recovered)];
        counts[usize::from(has_publications)] += 1;
    }

    pub(super) fn published(&mut self, result: &Result<Published, EngineError>) {
        let Self { counters, .. } = self;
        match result {
            Ok(published) if published.duplicate => counters.suppressed.idempotency += 1,
            Ok(published) if published.stale => counters.suppressed.version += 1,
            Ok(_) => counters.sent.publications += 1,
            Err(_) => {}
        }
    }

    pub(super) fn sent(&mut self) -> &mut Messages {
        &mut self.counters.sent
    }

    pub(super) fn delivered(&mut self) -> &mut Messages {
        &mut self.counters.received
    }
}

impl Hub {
    /// What was counted of clients since the hub was made.
    pub fn client_counters(&self) -> ClientCounters {
        ClientCounters {
            transports: self.tally.transports.iter().cloned().collect(),
            ..self.tally.counters.clone()
        }
    }
}

impl ClientCounters {
    /// Adds what another hub has counted.
    pub fn add(&mut self, other: &Self) {
        for (name, counters) in &other.transports {
            self.transports.entry(name).or_default().add(counters);
        }
        for (to, from) in self.commands.iter_mut().zip(&other.commands) {
            to.merge(from);
        }
        for (key, count) in &other.errors {
            *self.errors.entry(*key).or_insert(0) += count;
        }
        self.subscribed += other.subscribed;
        add_codes(&mut self.unsubscribed, &other.unsubscribed);
        let to = self.recoveries.as_flattened_mut().iter_mut();
        for (to, from) in to.zip(other.recoveries.as_flattened()) {
            *to += from;
        }
        self.sent.add(other.sent);
        self.received.add(other.received);
        self.suppressed.idempotency += other.suppressed.idempotency;
        self.suppressed.version += other.suppressed.version;
    }
}

impl TransportCounters {
    fn add(&mut self, other: &Self) {
        for client in 0..ClientName::COUNT {
            self.accepted[client] += other.accepted[client];
            self.in_flight[client] += other.in_flight[client];
        }
        for (to, from) in self.received.iter_mut().zip(other.received) {
            to.merge(from);
        }
        add_codes(&mut self.closes, &other.closes);
        self.pongs.merge(&other.pongs);
    }
}

impl Messages {
    fn add(&mut self, other: Self) {
        self.publications += other.publications;
        self.joins += other.joins;
        self.leaves += other.leaves;
    }
}

fn add_codes(to: &mut BTreeMap<u32, u64>, from: &BTreeMap<u32, u64>) {
    for (code, count) in from {
        *to.entry(*code).or_insert(0) += count;
    }
}

/// Applications and operators have codes of their own: so many are told apart.
fn count_code<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    if counts.len() < MAX_CODES || counts.contains_key(&key) {
        *counts.entry(key).or_insert(0) += 1;
    }
}

/// How many codes are told apart.
const MAX_CODES: usize = 1000;

/// How many pings are timed at the same time.
const MAX_PINGS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId {
            index,
            generation: 0,
        }
    }

    #[test]
    fn what_clients_say_that_they_are_makes_no_more_names() {
        for name in ClientName::ALL {
            assert_eq!(ClientName::ALL[name.index()], name);
        }
        assert_eq!(ClientName::of("js"), ClientName::Js);
        assert_eq!(ClientName::of("csharp"), ClientName::CSharp);
        assert_eq!(ClientName::of(""), ClientName::Unnamed);
        for said in ["JS", "other", "unnamed", "\"\n", "js2"] {
            assert_eq!(ClientName::of(said), ClientName::Other, "{said}");
        }
    }

    #[test]
    fn codes_that_are_told_apart_have_a_bound() {
        let mut tally = Tally::default();
        let counted = tally.open("one");
        for code in 0..2 * MAX_CODES as u32 {
            tally.unsubscribed(code);
            tally.unsubscribed(7);
            tally.closed(counted, code);
        }
        assert_eq!(tally.transports[0].1.closes.len(), MAX_CODES);
        let counts = &tally.counters.unsubscribed;
        assert_eq!(counts.len(), MAX_CODES);
        assert_eq!(counts[&7], 2 * MAX_CODES as u64 + 1);
    }

    #[test]
    fn nothing_is_kept_of_a_session_that_is_over() {
        let mut tally = Tally::default();
        let mut counted = tally.open("one");
        let other = tally.open("two");
        tally.connected(&mut counted);
        tally.connected(&mut counted);
        for number in [0, 1, u32::MAX] {
            tally.wait(id(3), number, Operation::Rpc, Duration::ZERO);
        }
        tally.wait(id(4), 1, Operation::Publish, Duration::ZERO);
        for index in 0..2 * MAX_PINGS as u32 {
            tally.pinged(id(index), Duration::ZERO);
        }
        assert_eq!(tally.pings.len(), MAX_PINGS);
        let client = ClientName::Unnamed.index();
        assert_eq!(tally.transports[0].1.in_flight[client], 1);
        tally.left(id(3), counted);
        tally.left(id(4), other);
        assert!(tally.waiting.is_empty());
        assert_eq!(tally.pings.len(), MAX_PINGS - 2);
        assert_eq!(tally.transports[0].1.in_flight[client], 0);
        assert_eq!(tally.transports[0].1.accepted[client], 1);
        assert_eq!(tally.transports[1].1.accepted[client], 0);
    }
}
