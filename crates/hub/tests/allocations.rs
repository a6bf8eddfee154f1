//! What is allocated for a client that joins, and for a delivery: few and none.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use allocation_counter::measure;
use tautline_hub::config::{ChannelOptions, ClientOptions, NamespaceOptions};
use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
use tautline_hub::engine::testkit::Seeded;
use tautline_hub::engine::{Delivery, Mailbox, WorkerId};
use tautline_hub::{Frame, Hub, HubConfig, Now, Outbox, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};

const NOW: Now = Now {
    monotonic: Duration::ZERO,
    unix: Duration::from_secs(1_700_000_000),
};

#[derive(Default)]
struct Inbox(Mutex<Vec<Delivery>>);

impl Mailbox for Inbox {
    fn push(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}

/// Counts what it is given, and keeps nothing.
#[derive(Default)]
struct Counter {
    prepared: usize,
    sent: usize,
}

impl Outbox for Counter {
    type Prepared = ();

    fn prepare(&mut self, _: Encoding, _: &[u8]) {
        self.prepared += 1;
    }

    fn send_prepared(&mut self, _: SessionId, (): &()) -> usize {
        self.sent += 1;
        0
    }

    fn send(&mut self, _: SessionId, _: &[u8]) -> usize {
        self.sent += 1;
        0
    }

    fn queued(&self, _: SessionId) -> usize {
        0
    }

    fn written(&self, _: SessionId) -> u64 {
        0
    }

    fn when_drained(&mut self, _: SessionId) {}

    fn resume(&mut self, _: SessionId) {}

    fn close(&mut self, _: SessionId, disconnect: &Disconnect, _: bool) {
        panic!("closed: {}", disconnect.reason);
    }
}

struct Node {
    hub: Hub,
    inbox: Arc<Inbox>,
    out: Counter,
    /// Kept for its capacity.
    deliveries: Vec<Delivery>,
}

impl Node {
    fn new() -> Self {
        let client = ClientOptions {
            allow_anonymous_connect_without_token: true,
            ..ClientOptions::default()
        };
        let channel = ChannelOptions {
            without_namespace: NamespaceOptions {
                allow_subscribe_for_client: true,
                allow_subscribe_for_anonymous: true,
                allow_publish_for_client: true,
                allow_publish_for_anonymous: true,
                ..NamespaceOptions::default()
            },
            ..ChannelOptions::default()
        };
        let config = Arc::new(HubConfig::new(client, channel, None).unwrap());
        let engine = MemoryEngine::new(MemoryOptions::default(), Box::new(Seeded::new(1)));
        let inbox = Arc::new(Inbox::default());
        let hub = Hub::new(
            config,
            Arc::new(engine),
            WorkerId(0),
            inbox.clone(),
            Box::new(Seeded::new(2)),
        );
        Self {
            hub,
            inbox,
            out: Counter::default(),
            deliveries: Vec::new(),
        }
    }

    fn receive(&mut self, id: SessionId, frame: &str) {
        self.hub.receive(NOW, id, Frame::Json(frame), &mut self.out);
        std::mem::swap(&mut *self.inbox.0.lock().unwrap(), &mut self.deliveries);
        self.hub.deliver(NOW, &mut self.deliveries, &mut self.out);
    }

    /// A client that connects and subscribes in one message, as SDKs do.
    fn join(&mut self) -> SessionId {
        let id = self.hub.open(NOW, Transport::new("test", Encoding::Json));
        let frame = r#"{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"lobby"}}"#;
        self.receive(id, frame);
        id
    }
}

#[test]
fn a_client_that_joins_costs_few_allocations() {
    let mut node = Node::new();
    // Tables grow in leaps, which are nobody's in particular.
    for _ in 0..1_100 {
        node.join();
    }
    let mut least = u64::MAX;
    for _ in 0..20 {
        let before = node.out.sent;
        let join = || {
            node.join();
        };
        least = least.min(measure(join).count_total);
        assert_eq!(node.out.sent - before, 2);
    }
    // Who it is, its name, and its subscription are what stays.
    assert!(least <= 5, "{least}");
}

#[test]
fn a_delivery_allocates_nothing() {
    let mut node = Node::new();
    let author = node.join();
    let publish = |number: usize| {
        format!(r#"{{"id":{number},"publish":{{"channel":"lobby","data":{{"n":{number}}}}}}}"#)
    };
    let burst: Vec<_> = (3..19).map(publish).collect();
    let burst = burst.join("\n");
    // Twice: the vectors that deliveries wait in take turns.
    node.receive(author, &burst);
    node.receive(author, &burst);
    let for_one = measure(|| node.receive(author, &burst)).count_total;
    for _ in 0..1_000 {
        node.join();
    }
    node.receive(author, &burst);
    let (prepared, sent) = (node.out.prepared, node.out.sent);
    let for_many = measure(|| node.receive(author, &burst)).count_total;
    assert_eq!(for_many, for_one);
    assert_eq!(
        node.out.prepared - prepared,
        1,
        "one message for all of them"
    );
    assert_eq!(
        node.out.sent - sent,
        16 + 1_001,
        "the answers, and one message each"
    );
}
