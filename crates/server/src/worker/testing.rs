//! A worker of tests, on time that a test moves on, with connections in memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use tautline_hub::engine::WorkerId;
use tautline_hub::engine::memory::MemoryEngine;
use tautline_hub::{ApiPublish, Frame, Hub, Pings, SessionId};
use tautline_protocol::Encoding;
use tautline_websocket::proto::{Connection, Event, Limits, Role};
use tokio::io::{AsyncRead, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::time::Instant;

use super::Worker;
use super::clock::Clock;
use super::link::Link;
use super::live::Live;
use super::mailbox::WorkerMailbox;
use super::queues::{NodeQueues, QueueShare};
use crate::config::Config;
use crate::door::Opened;
use crate::door::address::AddressKey;
use crate::door::websocket::Manner;
use crate::entropy::OsEntropy;
use crate::io::Io;

/// What may be on its way in each direction of a connection.
const ON_ITS_WAY: usize = 16 << 20;

/// A worker of a configuration, whose time is the runtime's. Nobody looks after its mailbox yet.
pub(crate) fn worker(config: &str) -> Rc<Worker> {
    let [worker] = workers(config);
    worker
}

/// Some of one node, with one engine.
pub(crate) fn workers<const COUNT: usize>(config: &str) -> [Rc<Worker>; COUNT] {
    let config = Config::from_toml(config).expect("it is right");
    let entropy = || OsEntropy::new().expect("the system has randomness");
    let engine = MemoryEngine::new(config.engine.clone(), Box::new(entropy()));
    let engine = Arc::new(engine);
    let queues = NodeQueues::new(COUNT, config.queues);
    let addresses = AddressKey::new("test", &mut entropy());
    let hub = Arc::clone(&config.hub);
    let live = Arc::new(Live::new(config, None, addresses, COUNT));
    let start = Instant::now().into_std();
    std::array::from_fn(|index| {
        let mailbox = Arc::new(WorkerMailbox::default());
        let hub = Hub::new(
            Arc::clone(&hub),
            Arc::clone(&engine) as _,
            WorkerId(index as u16),
            Arc::clone(&mailbox) as _,
            Box::new(entropy()),
        );
        let queues = QueueShare::new(Arc::clone(&queues), index);
        let clock = Clock::new(start);
        Worker::new(hub, mailbox, clock, None, Arc::clone(&live), queues)
    })
}

/// Publishes as an operator.
pub(crate) fn publish(worker: &Worker, channel: &str, data: &str) {
    let request = ApiPublish {
        channel: channel.into(),
        data: data.to_owned().into(),
        ..ApiPublish::default()
    };
    worker.turn(|now, state| {
        let hub = &mut state.hub;
        hub.api_publish(now, request, |done| {
            assert!(done.is_ok(), "{:?}", done.err());
        });
    });
}

/// A client at the other end of a connection in memory.
pub(crate) struct Peer {
    io: DuplexStream,
    engine: Connection,
    /// How many messages have come, whatever was in each.
    pub(crate) messages: usize,
}

impl Peer {
    /// A connection, and what its door is given of it.
    pub(crate) fn new() -> (Self, Opened) {
        Self::with_room(ON_ITS_WAY)
    }

    /// The same with room for so many bytes in each direction.
    pub(crate) fn with_room(room: usize) -> (Self, Opened) {
        let (ours, theirs) = duplex(room);
        let limits = Limits::for_messages(1 << 20);
        let peer = Self {
            io: ours,
            engine: Connection::new(Role::Client(Box::new(|| [0; 4])), limits),
            messages: 0,
        };
        let opened = Opened {
            link: Link::new(Io::Memory(Box::new(theirs)), Encoding::Json),
            leftover: Vec::new(),
            limits,
            request: None,
            user: None,
            manner: Manner::protocol(Encoding::Json, Pings::Protocol),
            address_permit: None,
            address: None,
        };
        (peer, opened)
    }

    /// One without a task of its own: its commands are given to the hub by [`command`].
    pub(crate) fn directly(worker: &Worker) -> (Self, SessionId) {
        let (peer, opened) = Self::new();
        let id = worker.turn(|now, state| {
            let transport = opened.manner.transport;
            let id = state.open(now, transport, None, None, None);
            state.connections.insert(id, opened.link, transport.name);
            id
        });
        (peer, id)
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &str) {
        self.io
            .write_all(&masked(message))
            .await
            .expect("it takes a frame");
    }

    /// What has come by now, reply by reply.
    pub(crate) async fn heard(&mut self) -> Vec<Value> {
        self.hear(usize::MAX).await
    }

    /// What has come with the next `most` bytes, as far as they are there.
    pub(crate) async fn hear(&mut self, most: usize) -> Vec<Value> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut left = most;
        while left > 0 {
            let len = left.min(64 * 1024);
            let buffer = &mut buffer[..len];
            let mut read = ReadBuf::new(buffer);
            let io = &mut self.io;
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *io).poll_read(cx, &mut read)));
            match polled.await {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                _ => return heard,
            }
            left -= read.filled().len();
            let mut events = self.engine.receive(read.filled_mut());
            let mut answers = Vec::new();
            while let Some(event) = events.next(&mut answers) {
                let Event::Text(text) = event else {
                    panic!("{event:?}");
                };
                self.messages += 1;
                let replies = text.lines().map(serde_json::from_str);
                heard.extend(replies.map(|reply| reply.expect("JSON")));
            }
        }
        heard
    }
}

/// Has the hub execute a command of a session, in a turn about that.
pub(crate) fn command(worker: &Worker, id: SessionId, command: &str) {
    worker.turn(|now, state| {
        let frame = Frame::Json(command);
        state.hub.receive(now, id, frame, &mut state.connections);
    });
}

/// A text message as a client sends it.
pub(crate) fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).expect("a short one") {
        len @ ..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    // By a key that changes nothing.
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Lets everybody do what there is to do at the moment.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Moves the time on, in steps of a millisecond.
pub(crate) async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::advance(Duration::from_millis(1)).await;
        settle().await;
    }
}
