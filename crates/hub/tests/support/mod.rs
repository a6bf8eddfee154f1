//! A node in a test: hubs, an engine, mailboxes and a clock, all driven by hand.

#![allow(dead_code, reason = "each test binary uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tautline_auth::{Signer, TokenClaims, Verifier, VerifierConfig};
use tautline_hub::config::{ChannelOptions, ClientOptions, NamespaceOptions};
use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
use tautline_hub::engine::testkit::{DelayOptions, DelayedEngine, Seeded};
use tautline_hub::engine::{Delivery, Engine, Mailbox, PresenceRead, Started, Ticket, WorkerId};
use tautline_hub::{Frame, Hub, HubConfig, Now, Outbox, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};

pub(crate) const SECRET: &str = "a secret for tests";

/// Unix time at which tests begin.
pub(crate) const START: Duration = Duration::from_secs(1_700_000_000);

/// What is waiting for a worker.
#[derive(Default)]
pub(crate) struct Inbox(Mutex<Vec<Delivery>>);

impl Mailbox for Inbox {
    fn push(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}

impl Inbox {
    pub(crate) fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn put_back(&self, deliveries: Vec<Delivery>) {
        self.0.lock().unwrap().splice(0..0, deliveries);
    }

    /// Whether nothing waits but outcomes.
    pub(crate) fn is_fed_nothing(&self) -> bool {
        let deliveries = self.0.lock().unwrap();
        let mut outcomes = deliveries.iter();
        outcomes.all(|delivery| matches!(delivery, Delivery::Outcome { .. }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Remembers what a hub said.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) messages: BTreeMap<SessionId, Vec<Arc<[u8]>>>,
    pub(crate) closed: BTreeMap<SessionId, (Disconnect, bool)>,
    pub(crate) resumed: Vec<SessionId>,
    /// Sessions whose connection takes nothing any more, with the bytes that wait.
    pub(crate) stalled: BTreeMap<SessionId, usize>,
    pub(crate) prepared: usize,
    /// Sessions of which the hub wants to know when they are drained.
    pub(crate) asked: BTreeSet<SessionId>,
    /// All that was ever queued, in bytes.
    sent: BTreeMap<SessionId, u64>,
    /// How many pings of the transport's own.
    pub(crate) pings: BTreeMap<SessionId, usize>,
    /// Others can't take what is done.
    pub(crate) full: bool,
}

impl Recorder {
    fn record(&mut self, to: SessionId, message: Arc<[u8]>) -> usize {
        assert!(
            !self.closed.contains_key(&to),
            "a message for a session that is closed"
        );
        let length = message.len();
        self.messages.entry(to).or_default().push(message);
        self.queue(to, length)
    }

    /// The connection takes nothing any more, with so much before it.
    pub(crate) fn stall(&mut self, to: SessionId, waiting: usize) {
        *self.sent.entry(to).or_default() += waiting as u64;
        self.stalled.insert(to, waiting);
    }

    fn queue(&mut self, to: SessionId, length: usize) -> usize {
        *self.sent.entry(to).or_default() += length as u64;
        self.stalled.get_mut(&to).map_or(length, |waiting| {
            *waiting += length;
            *waiting
        })
    }
}

impl Outbox for Recorder {
    type Prepared = Arc<[u8]>;

    fn prepare(&mut self, _: Encoding, message: &[u8]) -> Self::Prepared {
        self.prepared += 1;
        message.into()
    }

    fn send_prepared(&mut self, to: SessionId, message: &Self::Prepared) -> usize {
        self.record(to, message.clone())
    }

    fn send(&mut self, to: SessionId, message: &[u8]) -> usize {
        self.record(to, message.into())
    }

    fn ping(&mut self, to: SessionId) -> usize {
        assert!(
            !self.closed.contains_key(&to),
            "a ping for a session that is closed"
        );
        *self.pings.entry(to).or_default() += 1;
        self.queue(to, 2)
    }

    fn queued(&self, to: SessionId) -> usize {
        self.stalled.get(&to).copied().unwrap_or(0)
    }

    fn written(&self, to: SessionId) -> u64 {
        self.sent.get(&to).map_or(0, |sent| *sent) - self.queued(to) as u64
    }

    fn when_drained(&mut self, to: SessionId) {
        self.asked.insert(to);
    }

    fn holds_up(&mut self, _: SessionId) -> bool {
        self.full
    }

    fn resume(&mut self, to: SessionId) {
        self.resumed.push(to);
    }

    fn close(&mut self, to: SessionId, disconnect: &Disconnect, flush: bool) {
        let before = self.closed.insert(to, (disconnect.clone(), flush));
        assert_eq!(before, None, "closed twice");
    }
}

pub(crate) struct Worker {
    pub(crate) hub: Hub,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) out: Recorder,
}

/// A connection of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) worker: usize,
    pub(crate) id: SessionId,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) config: Arc<HubConfig>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) engine: Arc<dyn Engine>,
    /// The engine below, if `engine` is a wrapper.
    pub(crate) memory: Arc<dyn Engine>,
    pub(crate) delayed: Option<Arc<DelayedEngine>>,
}

/// What is different from the defaults.
pub(crate) struct Setup {
    pub(crate) workers: usize,
    pub(crate) client: ClientOptions,
    pub(crate) channel: ChannelOptions,
    pub(crate) delays: Option<DelayOptions>,
    pub(crate) memory: MemoryOptions,
    pub(crate) seed: u64,
    /// Whoever has too many of something is counted only.
    pub(crate) dry_run: bool,
}

impl Default for Setup {
    /// Two workers, anonymous clients, and namespaces for the usual tests.
    fn default() -> Self {
        let client = ClientOptions {
            allow_anonymous_connect_without_token: true,
            ..ClientOptions::default()
        };
        Self {
            workers: 2,
            client,
            channel: channel_options(),
            delays: None,
            memory: MemoryOptions::default(),
            seed: 1,
            dry_run: false,
        }
    }
}

/// Without a namespace: everybody may subscribe and publish, nothing is kept. `room`: everything is
/// on. `vault`: nothing is allowed. `own`: channels for listed users.
pub(crate) fn channel_options() -> ChannelOptions {
    let open = NamespaceOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        ..NamespaceOptions::default()
    };
    let room = NamespaceOptions {
        name: "room".into(),
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: 10,
        history_ttl: Duration::from_secs(60),
        force_recovery: true,
        allow_presence_for_subscriber: true,
        allow_presence_for_anonymous: true,
        allow_history_for_subscriber: true,
        allow_history_for_anonymous: true,
        ..open.clone()
    };
    let vault = NamespaceOptions {
        name: "vault".into(),
        ..NamespaceOptions::default()
    };
    let own = NamespaceOptions {
        name: "own".into(),
        allow_user_limited_channels: true,
        ..NamespaceOptions::default()
    };
    ChannelOptions {
        without_namespace: open,
        namespaces: vec![room, vault, own],
        ..ChannelOptions::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let Setup {
            workers,
            client,
            channel,
            delays,
            memory,
            seed,
            dry_run,
        } = setup;
        let config = Arc::new(config_of(client, channel).with_dry_run(dry_run));
        let memory = MemoryEngine::new(memory, Box::new(Seeded::new(seed)));
        let memory: Arc<dyn Engine> = Arc::new(memory);
        let delayed =
            delays.map(|delays| Arc::new(DelayedEngine::new(memory.clone(), delays, seed)));
        let engine: Arc<dyn Engine> = match &delayed {
            Some(delayed) => delayed.clone(),
            None => memory.clone(),
        };
        let workers = (0..workers)
            .map(|index| {
                let inbox = Arc::new(Inbox::default());
                let hub = Hub::new(
                    config.clone(),
                    engine.clone(),
                    WorkerId(index as u16),
                    inbox.clone(),
                    Box::new(Seeded::new(seed ^ (index as u64 + 1) << 32)),
                );
                Worker {
                    hub,
                    inbox,
                    out: Recorder::default(),
                }
            })
            .collect();
        let now = Now {
            monotonic: Duration::ZERO,
            unix: START,
        };
        Self {
            now,
            config,
            workers,
            engine,
            memory,
            delayed,
        }
    }

    /// Has all workers go by other options, and delivers what comes of it.
    pub(crate) fn reconfigure(&mut self, client: ClientOptions, channel: ChannelOptions) {
        let mut config = config_of(client, channel);
        config.inherit(&self.config);
        self.config = Arc::new(config);
        for Worker { hub, out, .. } in &mut self.workers {
            hub.reconfigure(self.now, self.config.clone(), out);
        }
        self.settle();
    }

    /// Opens a connection, which is not yet connected in the protocol's sense.
    pub(crate) fn open(&mut self, worker: usize) -> Client {
        self.open_with(worker, Encoding::Json)
    }

    /// A connection of which it is known whose it is.
    pub(crate) fn open_as(&mut self, worker: usize, user: &str) -> Client {
        let transport = Transport::new("test", Encoding::Json);
        let hub = &mut self.workers[worker].hub;
        let id = hub.open_as(self.now, transport, user.into());
        Client { worker, id }
    }

    pub(crate) fn open_with(&mut self, worker: usize, encoding: Encoding) -> Client {
        self.open_through(worker, Transport::new("test", encoding))
    }

    pub(crate) fn open_through(&mut self, worker: usize, transport: Transport) -> Client {
        let id = self.workers[worker].hub.open(self.now, transport);
        Client { worker, id }
    }

    /// Hands a frame to the client's session, and delivers nothing.
    pub(crate) fn send_only(&mut self, client: Client, frame: &str) {
        self.send_frame(client, Frame::Json(frame));
    }

    /// The same in any encoding.
    pub(crate) fn send_frame(&mut self, client: Client, frame: Frame<'_>) {
        let Worker { hub, out, .. } = &mut self.workers[client.worker];
        hub.receive(self.now, client.id, frame, out);
    }

    /// Hands a frame to the client's session, and delivers everything that comes of it.
    pub(crate) fn send(&mut self, client: Client, frame: &str) {
        self.send_only(client, frame);
        self.settle();
    }

    /// Sends one command and returns what the client was told since it last looked.
    pub(crate) fn tell(&mut self, client: Client, command: Value) -> Vec<Value> {
        self.send(client, &command.to_string());
        self.heard(client)
    }

    /// The same, and delivers nothing.
    pub(crate) fn tell_only(&mut self, client: Client, command: Value) -> Vec<Value> {
        self.send_only(client, &command.to_string());
        self.heard(client)
    }

    /// What the client was told since it last looked.
    pub(crate) fn heard(&mut self, client: Client) -> Vec<Value> {
        let messages = self.workers[client.worker].out.messages.remove(&client.id);
        let messages = messages.unwrap_or_default();
        messages
            .iter()
            .flat_map(|message| replies(message))
            .collect()
    }

    /// How the session was ended, if the hub ended it.
    pub(crate) fn closed(&self, client: Client) -> Option<(u32, bool)> {
        let closed = self.workers[client.worker].out.closed.get(&client.id);
        closed.map(|(disconnect, flush)| (disconnect.code, *flush))
    }

    /// A connected anonymous client.
    pub(crate) fn connect(&mut self, worker: usize) -> Client {
        self.connect_with(worker, "")
    }

    /// A connected client with a name.
    pub(crate) fn connect_as(&mut self, worker: usize, user: &str) -> Client {
        self.connect_with(worker, &token(user, None))
    }

    pub(crate) fn connect_with(&mut self, worker: usize, token: &str) -> Client {
        let client = self.open(worker);
        let heard = self.tell(
            client,
            serde_json::json!({"id": 1, "connect": {"token": token}}),
        );
        assert!(heard[0]["connect"]["client"].is_string(), "{heard:?}");
        client
    }

    /// The connection breaks.
    pub(crate) fn drop_connection(&mut self, client: Client) {
        let Worker { hub, out, .. } = &mut self.workers[client.worker];
        hub.transport_closed(self.now, client.id, out);
    }

    /// Delivers what is in one mailbox.
    pub(crate) fn deliver(&mut self, worker: usize) {
        let Worker { hub, inbox, out } = &mut self.workers[worker];
        let mut batch = inbox.take();
        hub.deliver(self.now, &mut batch, out);
        assert!(batch.is_empty());
    }

    /// Tells the hub of those sessions that have nothing waiting, if it asked.
    pub(crate) fn drain(&mut self, worker: usize) -> bool {
        let Worker { hub, out, .. } = &mut self.workers[worker];
        let asked = std::mem::take(&mut out.asked);
        let (stalled, drained): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|id| out.stalled.contains_key(id));
        out.asked.extend(stalled);
        for &id in &drained {
            hub.drained(self.now, id, out);
        }
        !drained.is_empty()
    }

    /// Delivers what is in the mailboxes, and lets the engine work, until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut any = self
                .delayed
                .as_ref()
                .is_some_and(|delayed| delayed.step(self.now));
            for worker in 0..self.workers.len() {
                if self.workers[worker].inbox.len() > 0 {
                    self.deliver(worker);
                    any = true;
                }
                any |= self.drain(worker);
            }
            if !any {
                return;
            }
        }
    }

    /// Lets time pass, with everything that happens on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let target = self.now.monotonic + time;
        loop {
            let deadlines = self
                .workers
                .iter()
                .filter_map(|worker| worker.hub.next_deadline());
            let next = deadlines.min().unwrap_or(target).min(target);
            let step = next.saturating_sub(self.now.monotonic);
            self.now.monotonic += step;
            self.now.unix += step;
            for Worker { hub, out, .. } in &mut self.workers {
                hub.on_deadline(self.now, out);
            }
            self.settle();
            if self.now.monotonic >= target {
                return;
            }
        }
    }

    /// Feeds a channel to a worker that has no hub.
    pub(crate) fn attach_directly(&self, worker: WorkerId, channel: &str) {
        let ticket = Ticket { worker, serial: 0 };
        match self.memory.attach(self.now, ticket, &channel.into()) {
            Started::Done(result) => result.unwrap(),
            Started::Later => panic!("the memory engine does everything at once"),
        }
    }

    /// Who the engine says is in a channel.
    pub(crate) fn members(&self, channel: &str) -> BTreeSet<String> {
        let ticket = Ticket {
            worker: WorkerId(0),
            serial: 0,
        };
        match self.memory.presence(self.now, ticket, everybody(channel)) {
            Started::Done(page) => {
                let members = page.unwrap().members;
                members.keys().map(ToString::to_string).collect()
            }
            Started::Later => panic!("the memory engine does everything at once"),
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = self
            .delayed
            .as_ref()
            .is_none_or(|delayed| !delayed.step(self.now));
        is_idle && self.workers.iter().all(|worker| worker.inbox.len() == 0)
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }
}

fn config_of(client: ClientOptions, channel: ChannelOptions) -> HubConfig {
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: Some(SECRET.into()),
        ..VerifierConfig::default()
    });
    HubConfig::new(client, channel, Some(Arc::new(verifier.unwrap()))).unwrap()
}

/// Asks for all who are in a channel.
pub(crate) fn everybody(channel: &str) -> PresenceRead {
    PresenceRead {
        channel: channel.into(),
        after: None,
        wrap: false,
        limit: usize::MAX,
        max_bytes: usize::MAX,
    }
}

/// The replies of a message in JSON. A line break inside of one would leave two pieces that are none.
pub(crate) fn replies(message: &[u8]) -> impl Iterator<Item = Value> {
    message
        .split(|byte| *byte == b'\n')
        .map(|reply| serde_json::from_slice(reply).unwrap())
}

/// A connection token, valid for the given number of seconds (for ever by default).
pub(crate) fn token(user: &str, seconds: Option<u64>) -> String {
    sign(&TokenClaims {
        user,
        expires_at: in_seconds(seconds),
        ..TokenClaims::default()
    })
}

/// A subscription token.
pub(crate) fn channel_token(user: &str, channel: &str, seconds: Option<u64>) -> String {
    let expires_at = in_seconds(seconds);
    sign(&TokenClaims {
        user,
        channel: Some(channel),
        expires_at,
        ..TokenClaims::default()
    })
}

pub(crate) fn sign(claims: &TokenClaims<'_>) -> String {
    Signer::hs256(&SECRET.into()).unwrap().sign(claims).unwrap()
}

/// A token with claims of any kind, signed with HS256 as an application's backend does.
pub(crate) fn sign_claims(claims: &Value) -> String {
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn in_seconds(seconds: Option<u64>) -> Option<u64> {
    seconds.map(|seconds| START.as_secs() + seconds)
}
