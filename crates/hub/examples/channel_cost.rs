//! What a channel costs on the heap, for the figures in `docs/limits.md`.
//!
//! The heap is counted from outside, by the library that `benches/` has for it:
//!
//! ```sh
//! cargo build --release -p heapcount --manifest-path benches/compare/Cargo.toml
//! head -c 16 /dev/zero > heap
//! COMPARE_HEAP_FILE=heap LD_PRELOAD=benches/compare/target/release/libheapcount.so \
//!     cargo run -p tautline-hub --features testkit --example channel_cost
//! ```

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures for a person"
)]

use std::sync::Arc;
use std::time::Duration;

use tautline_hub::config::{ChannelOptions, ClientOptions, NamespaceOptions};
use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
use tautline_hub::engine::testkit::Seeded;
use tautline_hub::engine::{
    Delivery, Engine, HistoryOptions, Mailbox, Publish, Started, Ticket, WorkerId,
};
use tautline_hub::{Frame, Hub, HubConfig, Now, Outbox, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};

const CHANNELS: usize = 100_000;

fn main() {
    let Some(file) = std::env::var_os("COMPARE_HEAP_FILE") else {
        eprintln!("The first lines of this file say how to run it.");
        std::process::exit(2);
    };
    let heap = || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        i64::from_ne_bytes(bytes)
    };
    let per_channel = |before: i64| (heap() - before) / CHANNELS as i64;
    let engine = || MemoryEngine::new(MemoryOptions::default(), Box::new(Seeded::new(1)));

    let memory = engine();
    let before = heap();
    for number in 0..CHANNELS {
        publish(&memory, number, 1);
    }
    println!(
        "history of one publication of 100 bytes: {}",
        per_channel(before)
    );
    let before = heap();
    for number in 0..CHANNELS {
        publish(&memory, number, 9);
    }
    println!("nine more: {}", per_channel(before));
    drop(memory);

    let memory: Arc<dyn Engine> = Arc::new(engine());
    let channel = ChannelOptions {
        without_namespace: NamespaceOptions::default(),
        ..ChannelOptions::default()
    };
    let client = ClientOptions {
        insecure: true,
        channel_limit: 10_000,
        ..ClientOptions::default()
    };
    let Ok(config) = HubConfig::new(client, channel, None) else {
        unreachable!("the options are good");
    };
    let entropy = Box::new(Seeded::new(2));
    let mut hub = Hub::new(
        Arc::new(config),
        memory,
        WorkerId(0),
        Arc::new(Nobody),
        entropy,
    );
    let now = Now::default();
    let sessions: Vec<SessionId> = (0..10)
        .map(|_| {
            let id = hub.open(now, Transport::new("none", Encoding::Json));
            hub.receive(now, id, Frame::Json(r#"{"id":1,"connect":{}}"#), &mut Void);
            id
        })
        .collect();
    let before = heap();
    for number in 0..CHANNELS {
        let id = sessions[number % sessions.len()];
        let frame = format!(r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#, name(number));
        hub.receive(now, id, Frame::Json(&frame), &mut Void);
    }
    println!("one subscriber: {}", per_channel(before));
}

fn name(number: usize) -> String {
    format!("channel-{number:06}")
}

fn publish(engine: &MemoryEngine, number: usize, times: usize) {
    for _ in 0..times {
        let ticket = Ticket {
            worker: WorkerId(0),
            serial: 0,
        };
        let request = Publish {
            channel: name(number).into(),
            data: vec![b'1'; 100].into(),
            info: None,
            except: None,
            tags: std::collections::BTreeMap::new(),
            history: Some(HistoryOptions {
                size: 100,
                ttl: Duration::from_secs(60),
                meta_ttl: Duration::from_secs(600),
            }),
            idempotency: None,
            version: None,
            patch: false,
        };
        let started = engine.publish(Now::default(), ticket, request);
        assert!(matches!(started, Started::Done(Ok(_))));
    }
}

struct Nobody;

impl Mailbox for Nobody {
    fn push(&self, _: Delivery) {}
}

struct Void;

impl Outbox for Void {
    type Prepared = ();

    fn prepare(&mut self, _: Encoding, _: &[u8]) {}

    fn send_prepared(&mut self, _: SessionId, (): &()) -> usize {
        0
    }

    fn send(&mut self, _: SessionId, _: &[u8]) -> usize {
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

    fn close(&mut self, _: SessionId, _: &Disconnect, _: bool) {}
}
