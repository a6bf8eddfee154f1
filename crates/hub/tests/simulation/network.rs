//! The node of a simulation, and the network between it and its clients.
//!
//! A connection is a queue at the node (what the hub has written and the network hasn't taken), and
//! a pipe each way. Each moves on when the simulation says so, and may break at any place.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tautline_hub::application::ApplicationOptions;
use tautline_hub::engine::testkit::{DelayedEngine, Seeded};
use tautline_hub::engine::{Delivery, Engine, WorkerId};
use tautline_hub::{Hub, HubConfig, Now, Outbox, Pings, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};

use crate::QUEUE;
use crate::code::Code;
use crate::faults::{Fault, FaultyEngine};
use crate::support::{Inbox, START};
use crate::wire::Up;

/// One process: workers with a hub each, and an engine.
pub(crate) struct Node {
    pub(crate) now: Now,
    /// How much of the time that has passed a hub makes up for, which is called late.
    pub(crate) made_up: Duration,
    pub(crate) workers: Vec<Worker>,
    pub(crate) delayed: Option<Arc<DelayedEngine>>,
    /// What decides in code, if anything does.
    pub(crate) code: Option<Code>,
}

pub(crate) struct Worker {
    pub(crate) hub: Hub,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) net: Net,
}

/// The node's side of a worker's connections.
pub(crate) struct Net {
    wires: BTreeMap<SessionId, Wire>,
    /// All that was said since the checker looked.
    pub(crate) said: Vec<Said>,
    /// The sessions that were pinged since by the transport's own pings.
    pub(crate) pinged: Vec<SessionId>,
    /// The sessions it ended since, and with which code.
    pub(crate) ended: Vec<(SessionId, u32)>,
    /// Sessions whose client is gone, which nobody has told the node.
    abandoned: BTreeSet<SessionId>,
    fault: Option<Fault>,
    looks: Cell<u64>,
}

/// A message of the node's.
pub(crate) struct Said {
    pub(crate) to: SessionId,
    pub(crate) message: Arc<[u8]>,
    /// How many bytes waited for its reader when the hub last looked, and now; if it is for that one alone.
    pub(crate) waits: Option<(usize, usize)>,
}

/// What goes to a client.
pub(crate) enum Down {
    Message(Arc<[u8]>),
    /// A ping of the transport's own.
    Ping,
}

impl Down {
    fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.len(),
            Self::Ping => PING,
        }
    }
}

/// What goes to the node.
pub(crate) enum Sent {
    /// A frame of commands.
    Commands(Vec<Value>),
    /// The answer to a ping of the transport's own.
    Pong,
}

#[derive(Default)]
struct Wire {
    queue: VecDeque<Down>,
    bytes: usize,
    /// What waited when the hub last looked.
    looked_at: Cell<usize>,
    written: u64,
    tell_drained: bool,
    closed: Option<Disconnect>,
}

/// A connection as the network sees it.
pub(crate) struct Link {
    pub(crate) worker: usize,
    pub(crate) id: SessionId,
    pub(crate) up: VecDeque<Sent>,
    pub(crate) down: VecDeque<Down>,
    /// How many messages it takes at a time.
    pub(crate) speed: usize,
}

impl Net {
    fn push(&mut self, to: SessionId, message: Arc<[u8]>, is_shared: bool) -> usize {
        let wire = self.wires.get_mut(&to).expect("a session that is open");
        assert!(
            wire.closed.is_none(),
            "a message for a session that is closed"
        );
        let message = match self.fault {
            Some(Fault::DenyPatch) => without_patches(&message),
            _ => message,
        };
        wire.bytes += message.len();
        self.said.push(Said {
            to,
            message: message.clone(),
            waits: (!is_shared).then(|| (wire.looked_at.get(), wire.bytes)),
        });
        wire.put(Down::Message(message))
    }
}

impl Wire {
    fn put(&mut self, what: Down) -> usize {
        self.queue.push_back(what);
        let bytes = self.bytes;
        assert!(bytes <= 2 * QUEUE, "{bytes} bytes wait for one reader");
        bytes
    }
}

impl Outbox for Net {
    type Prepared = Arc<[u8]>;

    fn prepare(&mut self, _: Encoding, message: &[u8]) -> Arc<[u8]> {
        message.into()
    }

    fn send_prepared(&mut self, to: SessionId, message: &Arc<[u8]>) -> usize {
        self.push(to, message.clone(), true)
    }

    fn send(&mut self, to: SessionId, message: &[u8]) -> usize {
        self.push(to, message.into(), false)
    }

    fn ping(&mut self, to: SessionId) -> usize {
        let wire = self.wires.get_mut(&to).expect("a session that is open");
        assert!(wire.closed.is_none(), "a ping for a session that is closed");
        self.pinged.push(to);
        wire.bytes += PING;
        wire.put(Down::Ping)
    }

    fn queued(&self, to: SessionId) -> usize {
        let Some(wire) = self.wires.get(&to) else {
            return 0;
        };
        let queued = wire.bytes;
        wire.looked_at.set(queued);
        match self.fault {
            Some(Fault::PumpFull) => queued.min(PAGE - 1),
            _ => queued,
        }
    }

    fn written(&self, to: SessionId) -> u64 {
        let wire = self.wires.get(&to);
        let written = wire.map_or(0, |wire| wire.written);
        if self.fault == Some(Fault::SeemToRead) && self.abandoned.contains(&to) {
            // A little more whenever that is looked at.
            let looks = self.looks.get();
            self.looks.set(looks + 1);
            return written + looks;
        }
        written
    }

    fn when_drained(&mut self, to: SessionId) {
        if let Some(wire) = self.wires.get_mut(&to) {
            wire.tell_drained = self.fault != Some(Fault::ParkForEver);
        }
    }

    fn resume(&mut self, _: SessionId) {}

    fn close(&mut self, to: SessionId, disconnect: &Disconnect, flush: bool) {
        let wire = self.wires.get_mut(&to).expect("a session that is open");
        assert!(wire.closed.is_none(), "closed twice");
        if *disconnect == Disconnect::SLOW {
            assert!(
                wire.bytes > QUEUE,
                "closed as slow, with {} bytes",
                wire.bytes
            );
        }
        if !flush {
            wire.queue.clear();
            wire.bytes = 0;
        }
        wire.closed = Some(disconnect.clone());
        self.ended.push((to, disconnect.code));
    }
}

impl Node {
    pub(crate) fn new(
        workers: usize,
        config: &Arc<HubConfig>,
        engine: Arc<dyn Engine>,
        delayed: Option<Arc<DelayedEngine>>,
        fault: Option<Fault>,
        code: Option<Code>,
        seed: u64,
    ) -> Self {
        let engine: Arc<dyn Engine> = match fault {
            Some(fault) => Arc::new(FaultyEngine::new(engine, fault)),
            None => engine,
        };
        let worker = |index: usize| {
            let inbox = Arc::new(Inbox::default());
            let entropy = Box::new(Seeded::new(seed ^ (index as u64 + 1) << 32));
            let id = WorkerId(index as u16);
            let mut hub = Hub::new(config.clone(), engine.clone(), id, inbox.clone(), entropy);
            if let Some(code) = &code {
                // However long it takes: nobody here wants to hear of it.
                let options = ApplicationOptions {
                    timeout: Duration::from_secs(100_000),
                    ..ApplicationOptions::default()
                };
                hub.set_application(Box::new(code.clone()), options);
            }
            Worker {
                hub,
                inbox,
                net: Net {
                    wires: BTreeMap::new(),
                    said: Vec::new(),
                    pinged: Vec::new(),
                    ended: Vec::new(),
                    abandoned: BTreeSet::new(),
                    fault,
                    looks: Cell::default(),
                },
            }
        };
        Self {
            now: Now {
                monotonic: Duration::ZERO,
                unix: START,
            },
            made_up: Duration::ZERO,
            workers: (0..workers).map(worker).collect(),
            delayed,
            code,
        }
    }

    pub(crate) fn open(
        &mut self,
        worker: usize,
        encoding: Encoding,
        pings: Pings,
        speed: usize,
    ) -> Link {
        let transport = Transport::new("simulated", encoding).with_pings(pings);
        let Worker { hub, net, .. } = &mut self.workers[worker];
        let id = hub.open(self.now, transport);
        net.wires.insert(id, Wire::default());
        Link {
            worker,
            id,
            up: VecDeque::new(),
            down: VecDeque::new(),
            speed,
        }
    }

    /// The next frame of a connection, if the node reads it.
    pub(crate) fn next_frame(&self, link: &mut Link) -> Option<Sent> {
        let hub = &self.workers[link.worker].hub;
        hub.wants_input(link.id).then(|| link.up.pop_front())?
    }

    pub(crate) fn receive(&mut self, link: &Link, frame: &Up) {
        let Worker { hub, net, .. } = &mut self.workers[link.worker];
        hub.receive(self.now, link.id, frame.frame(), net);
    }

    /// The answer to a ping of the transport's own has come.
    pub(crate) fn pong(&mut self, link: &Link) {
        let Worker { hub, net, .. } = &mut self.workers[link.worker];
        if net.fault != Some(Fault::LosePongs) {
            hub.pong_came(self.now, link.id, net);
        }
    }

    /// The network takes what it can from the node's queue. Returns whether that was anything.
    pub(crate) fn write(&mut self, link: &mut Link, most: usize) -> bool {
        let Worker { hub, net, .. } = &mut self.workers[link.worker];
        let wire = net.wires.get_mut(&link.id).expect("an open connection");
        let mut any = false;
        for message in wire.queue.drain(..most.min(wire.queue.len())) {
            wire.bytes -= message.len();
            wire.written += message.len() as u64;
            link.down.push_back(message);
            any = true;
        }
        if wire.queue.is_empty() && wire.closed.is_none() && std::mem::take(&mut wire.tell_drained)
        {
            hub.drained(self.now, link.id, net);
            any = true;
        }
        any
    }

    /// How the node ended a connection, once all that came before has arrived.
    pub(crate) fn ended(&self, link: &Link) -> Option<u32> {
        let wire = self.workers[link.worker].net.wires.get(&link.id)?;
        let disconnect = wire.closed.as_ref()?;
        (wire.queue.is_empty() && link.down.is_empty()).then_some(disconnect.code)
    }

    /// Whether nothing is on its way to the client of a connection.
    pub(crate) fn is_quiet(&self, link: &Link) -> bool {
        let wire = self.workers[link.worker].net.wires.get(&link.id);
        let is_written = wire.is_some_and(|wire| wire.queue.is_empty() && wire.closed.is_none());
        is_written && link.down.is_empty()
    }

    /// The node ends, over that time.
    pub(crate) fn drain(&mut self, over: Duration) {
        for Worker { hub, net, .. } in &mut self.workers {
            hub.drain(self.now, over, net);
        }
    }

    /// A client is gone, and the node has to find that out.
    pub(crate) fn abandon(&mut self, link: &Link) {
        self.workers[link.worker].net.abandoned.insert(link.id);
    }

    /// The node learns that a connection is gone, and forgets it.
    pub(crate) fn bury(&mut self, link: &Link) {
        let Worker { hub, net, .. } = &mut self.workers[link.worker];
        hub.transport_closed(self.now, link.id, net);
        net.wires.remove(&link.id);
        net.abandoned.remove(&link.id);
    }

    /// Delivers a part of one mailbox, from the front.
    pub(crate) fn deliver(&mut self, worker: usize, part: impl FnOnce(usize) -> usize) -> bool {
        let Worker { hub, inbox, net } = &mut self.workers[worker];
        let mut batch = inbox.take();
        let rest = batch.split_off(part(batch.len()).min(batch.len()));
        inbox.put_back(rest);
        let any = !batch.is_empty();
        if net.fault == Some(Fault::KeepSuperseded) {
            batch.retain(|delivery| !matches!(delivery, Delivery::Superseded { .. }));
        }
        hub.deliver(self.now, &mut batch, net);
        any
    }

    /// The application answers one question. Returns whether there was any.
    pub(crate) fn answer(&mut self) -> bool {
        let Some((ticket, answer)) = self.code.as_ref().and_then(Code::next) else {
            return false;
        };
        let Worker { hub, net, .. } = &mut self.workers[usize::from(ticket.worker.0)];
        hub.answer(self.now, ticket, answer, net);
        true
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
        self.made_up += time.min(LATE);
        for Worker { hub, net, .. } in &mut self.workers {
            if net.fault == Some(Fault::AnswerForTheDead) {
                for id in &net.abandoned {
                    // It takes what is meant for the client, too: an answer to what was not written is none.
                    if let Some(wire) = net.wires.get_mut(id) {
                        wire.written += wire.bytes as u64;
                        wire.bytes = 0;
                        wire.queue.clear();
                    }
                    hub.pong_came(self.now, *id, net);
                }
            }
            hub.on_deadline(self.now, net);
        }
    }
}

/// What a hub that drains makes up for, if it is called so late.
const LATE: Duration = Duration::from_millis(40);

/// How many bytes a ping of the transport's own has.
const PING: usize = 2;

/// How much may wait for a reader that is sent a page, and how much a page has.
pub(crate) const PAGE: usize = QUEUE / 4;

/// Publications, and nobody is told which of them are patches.
fn without_patches(message: &Arc<[u8]>) -> Arc<[u8]> {
    match std::str::from_utf8(message) {
        Ok(text) if text.starts_with("{\"push\"") => {
            text.replace(",\"delta\":true", "").as_bytes().into()
        }
        _ => message.clone(),
    }
}
