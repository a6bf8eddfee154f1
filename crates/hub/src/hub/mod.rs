//! The hub: the sessions and channels of one worker.
//!
//! One file a concern, each adding methods to [`Hub`]:
//!
//! - `dispatch`: frames to commands to replies, one after the other; outcomes of the engine; `frame`: commands out of either
//!   encoding, `operation`: what a command is, as far as it is counted and limited;
//! - `connect`, `subscribe`, `unsubscribe`, `publish`, `presence`, `queries`, `refresh`: the commands;
//! - `subscribing`: subscriptions that are allowed and have yet to begin;
//! - `ask`, `questions`, `answered`: what the application decides;
//! - `class`: who gets publications filtered, or as patches; `patches`: those of who reads history;
//!   `enforce`: filters that are imposed; `except`: publishers who don't get their own;
//! - `unfit`: payloads that a connection can't be sent;
//! - `announce`: who comes and goes, told when there is time for it; `company`: those who did so together;
//! - `fanout`: deliveries to subscribers at the head, `run`: those that came together; `cursor`: those
//!   behind it, `held`: those who skip; `recovery`, `tail`: where the two meet;
//! - `heartbeat`: everything that happens because time passes; `liveness`: pings and their answers;
//!   `wheel`: the timers of all that;
//! - `facts`: what the witness is told; `tally`: what is counted of clients, `frame_type`: by which kind of message;
//! - `tokens`: who may come in by which; `revoked`: by which nobody may any more;
//! - `api`: what operators ask for; `control`: what they do to connections; `drain`: how it all ends;
//! - `observe`: telling those who follow somebody;
//! - `sessions`, `users`, `channels`, `waiting`: the state of all that, `slab`: its tables;
//!   `channel_name`, `permission`: rules; `limit`: how often is too often, `toll`: in the channels of a namespace,
//!   `shared_buckets`: where hubs count that together; `counts`: how many there are of something, `census`: of
//!   sessions, `seats`: how many a user may have; `reconfigure`: when all that changes.

mod announce;
mod answered;
mod api;
mod ask;
mod census;
mod channel_name;
mod channels;
mod class;
mod company;
mod connect;
mod control;
mod counts;
mod cursor;
mod dispatch;
mod drain;
mod enforce;
mod except;
mod facts;
mod fanout;
mod frame;
mod frame_type;
mod heartbeat;
mod held;
mod limit;
mod liveness;
mod observe;
mod operation;
mod patches;
mod permission;
mod presence;
mod publish;
mod queries;
mod questions;
mod reconfigure;
mod recovery;
mod refresh;
mod revoked;
mod run;
mod seats;
mod sessions;
mod shared_buckets;
mod slab;
mod subscribe;
mod subscribing;
mod tail;
mod tally;
mod tokens;
mod toll;
mod unfit;
mod unsubscribe;
mod users;
mod waiting;
mod wheel;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::{Disconnect, Reply, json};

pub use self::api::{ApiHistory, ApiPublish, PublishOutcome};
pub use self::census::Census;
pub(crate) use self::channel_name::ChannelName;
pub use self::control::{ApiRefresh, ApiSubscribe, Target};
pub(crate) use self::counts::Counts;
pub use self::cursor::HubCounters;
use self::cursor::park_mark;
pub use self::frame::Frame;
pub use self::frame_type::{FrameType, Traffic};
pub(crate) use self::limit::Limits;
pub(crate) use self::liveness::Pace;
pub use self::operation::{Bound, Operation, OverLimit};
pub use self::presence::{ApiPresence, PresenceList};
pub use self::revoked::Ended;
pub(crate) use self::seats::{SeatRules, Seats};
pub use self::sessions::{Pings, Transport};
pub use self::tally::{ClientCounters, ClientName, Messages, Suppressed, TransportCounters};
pub use self::tokens::{RefusedTokens, TokenRefusal};
pub use crate::outbox::{SessionId, SessionName};

use self::announce::Announcements;
use self::ask::Asking;
use self::channels::{ChannelKey, Channels};
use self::company::Company;
use self::control::Pushed;
use self::drain::Drain;
use self::liveness::Paces;
use self::observe::Traces;
use self::patches::Patches;
use self::run::Run;
use self::sessions::{Connected, Session, Sessions, State};
use self::tally::Tally;
use self::tokens::RefusalCounter;
use self::users::Users;
use self::waiting::Pending;
use self::wheel::{Tick, Wheel};
use crate::Now;
use crate::application::UnsubscribeEvent;
use crate::config::HubConfig;
use crate::engine::{Engine, Mailbox, Ticket, WorkerId};
use crate::entropy::Entropy;
use crate::outbox::Outbox;
use crate::watch::PublishWatch;
use crate::witness::Witness;

/// The sessions of one worker, and the channels they are subscribed to.
///
/// Whoever runs a worker
///
/// 1. calls [`open`](Self::open) for each connection, [`receive`](Self::receive) for each frame
///    that comes in while [`wants_input`](Self::wants_input), and
///    [`transport_closed`](Self::transport_closed) when it is gone;
/// 2. hands what is in the worker's mailbox to [`deliver`](Self::deliver), after each of the calls
///    here and whenever something is pushed;
/// 3. calls [`on_deadline`](Self::on_deadline) when [`next_deadline`](Self::next_deadline) has
///    come, which may have moved after each call. Calling it too early or too often is harmless.
///
/// Everything that is to be written or closed goes to the [`Outbox`] of the call. Calls never
/// block. A hub belongs to one thread.
pub struct Hub {
    config: Arc<HubConfig>,
    engine: Arc<dyn Engine>,
    worker: WorkerId,
    entropy: Box<dyn Entropy>,
    sessions: Sessions,
    channels: Channels,
    /// Connected sessions, by connection id.
    clients: HashMap<Arc<str>, SessionId, foldhash::fast::RandomState>,
    /// Their users.
    users: Users,
    subscriptions: usize,
    /// Operations under way, by the serial of their ticket.
    pending: HashMap<u64, Pending, foldhash::fast::RandomState>,
    /// How many of them are the API's.
    pending_api: usize,
    /// Subscriptions that operators make, and for which the engine has not answered yet, by session
    /// and channel.
    pushed: HashMap<(SessionId, u32), Pushed, foldhash::fast::RandomState>,
    /// The application, if there is one.
    asking: Option<Box<Asking>>,
    /// Who is told of those who come and go, if anybody is.
    witness: Option<Box<dyn Witness>>,
    /// Who chooses among the publications of clients, if anybody does.
    publish_watch: Option<Box<dyn PublishWatch>>,
    /// Set once clients are told to come back elsewhere.
    draining: Option<Box<Drain>>,
    /// Those who follow somebody, if anybody does.
    traces: Option<Box<Traces>>,
    /// By which rule the last command was refused.
    why: RefCell<Cow<'static, str>>,
    next_serial: u64,
    wheel: Wheel<Timer>,
    /// Sessions to be closed as too slow before the current call ends.
    slow: Vec<SessionId>,
    /// Sessions that fell behind in the current call.
    to_pump: Vec<SessionId>,
    /// Kept for its capacity: sessions without room for what was just fanned out.
    full: Vec<(SessionId, usize)>,
    /// Kept for its capacity: publications that are fanned out together.
    run: Run,
    counters: HubCounters,
    tally: Tally,
    refused_tokens: RefusalCounter,
    /// Subscriptions that were one too many for their connection: refused, and made all the same.
    over_subscriptions: Cell<[u64; 2]>,
    over_subscribers: Cell<[u64; 2]>,
    over_bounds: Cell<[u64; Bound::COUNT]>,
    /// How many sessions were ended from this side, by code.
    disconnects: BTreeMap<u32, u64>,
    /// Kept for its capacity: the message being encoded.
    scratch: Vec<u8>,
    /// Kept for its capacity: joins, or leaves, that are fanned out together.
    company: Company,
    /// Makes patches.
    patches: Patches,
    /// Kept for its capacity: timers being handled.
    fired: Vec<(Tick, Timer)>,
    /// How often clients are pinged.
    paces: Paces,
    /// Who came and left and is still to be told of.
    announcements: Announcements,
    /// What was looked through for readers lately.
    looked: Looked,
}

/// How many publications were looked through for readers in a moment: a frame with many questions takes no
/// longer than one with the hardest.
#[derive(Clone, Copy, Default)]
struct Looked {
    at: Duration,
    publications: usize,
}

/// So many times as much as may wait for a connection waits where that limit is only tried out.
const QUEUES_TRIED: usize = 16;

/// What a hub holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Sessions that are connected (not those which have yet to authenticate).
    pub clients: usize,
    /// Distinct users among them, on this worker. All anonymous clients count as one.
    pub users: usize,
    /// Channels with subscribers.
    pub channels: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
}

/// Whose deadline it is.
#[derive(Clone, Copy)]
enum Timer {
    Session(SessionId),
    /// Time to check a channel's position.
    Channel(ChannelKey),
    /// Time for the engine to clean up.
    Maintain,
    /// Patience with the application has come to an end.
    Questions,
}

/// Whoever is still here counts no more for what all hubs count together.
impl Drop for Hub {
    fn drop(&mut self) {
        for id in self.sessions.ids() {
            let Some(connected) = self.sessions.connected(id) else {
                continue;
            };
            self.config.seats.leave(&connected.info.user);
            for subscription in &connected.subscriptions {
                if let Some(channel) = self.channels.get(subscription.channel) {
                    subscription.leave(&self.config.rooms, &channel.name);
                }
            }
        }
    }
}

impl Hub {
    /// A hub without sessions. Makes `mailbox` known to the engine as that of `worker`.
    pub fn new(
        config: Arc<HubConfig>,
        engine: Arc<dyn Engine>,
        worker: WorkerId,
        mailbox: Arc<dyn Mailbox>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        config.seats.register(worker, &mailbox);
        engine.register(worker, mailbox);
        let mut wheel = Wheel::new();
        wheel.insert(wheel.tick_of(heartbeat::MAINTENANCE), Timer::Maintain);
        let paces = Paces::new(config.client.pace());
        Self {
            config,
            engine,
            worker,
            entropy,
            sessions: Sessions::default(),
            channels: Channels::default(),
            clients: HashMap::default(),
            users: Users::default(),
            subscriptions: 0,
            pending: HashMap::default(),
            pending_api: 0,
            pushed: HashMap::default(),
            asking: None,
            witness: None,
            publish_watch: None,
            draining: None,
            traces: None,
            why: RefCell::default(),
            next_serial: 0,
            wheel,
            slow: Vec::new(),
            to_pump: Vec::new(),
            full: Vec::new(),
            run: Run::default(),
            counters: HubCounters::default(),
            tally: Tally::default(),
            refused_tokens: RefusalCounter::default(),
            over_subscriptions: Cell::default(),
            over_subscribers: Cell::default(),
            over_bounds: Cell::default(),
            disconnects: BTreeMap::new(),
            scratch: Vec::new(),
            company: Company::default(),
            patches: Patches::default(),
            fired: Vec::new(),
            paces,
            announcements: Announcements::default(),
            looked: Looked::default(),
        }
    }

    /// Makes a session for a connection that is open now. The client has
    /// [`stale_close_delay`](crate::config::ClientOptions::stale_close_delay) to connect.
    pub fn open(&mut self, now: Now, transport: Transport) -> SessionId {
        self.insert_session(now, transport, None)
    }

    /// The same for a connection that came through something which has found out who it is: the client
    /// need not have a token then, and is `user`. A token that it has goes before.
    pub fn open_as(&mut self, now: Now, transport: Transport, user: Arc<str>) -> SessionId {
        self.insert_session(now, transport, Some(user))
    }

    fn insert_session(
        &mut self,
        now: Now,
        transport: Transport,
        user: Option<Arc<str>>,
    ) -> SessionId {
        let stale_at = now.monotonic + self.config.client.stale_close_delay;
        let id = self.sessions.insert(Session {
            counted: self.tally.open(transport.name),
            transport,
            state: State::Opened { stale_at, user },
            waiting: None,
            backlog: None,
            armed: 0,
            answers: 0,
            is_slow: false,
            is_tried: false,
            lag: None,
        });
        self.arm(id);
        id
    }

    /// Forgets a session whose connection is gone. Sessions that the hub has closed itself, and
    /// any other unknown id, are ignored.
    pub fn transport_closed<O: Outbox>(&mut self, now: Now, id: SessionId, _: &mut O) {
        self.forget(now, id, &Disconnect::CONNECTION_CLOSED);
    }

    /// Ends one session, telling the client why. An unknown id is ignored.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the callers have no other use for it"
    )]
    pub fn disconnect<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        disconnect: Disconnect,
        out: &mut O,
    ) {
        self.end(now, id, &disconnect, out);
    }

    /// The users of the connected sessions, each once. The anonymous one's name is empty.
    pub fn users(&self) -> impl Iterator<Item = &Arc<str>> {
        self.users.names()
    }

    /// The channels with subscribers.
    pub fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.channels.names()
    }

    /// The channels with subscribers, and how many each has.
    pub fn channel_sizes(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.channels
            .iter()
            .map(|channel| (&channel.name, channel.subscribers.len()))
    }

    /// How many subscribers a channel has.
    pub fn channel_size(&self, channel: &str) -> usize {
        let index = self.channels.find(channel);
        let channel = index.and_then(|index| self.channels.get(index));
        channel.map_or(0, |channel| channel.subscribers.len())
    }

    /// Which worker's it is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// What log lines call a session of this hub.
    pub fn name_of(&self, id: SessionId) -> SessionName {
        let worker = self.worker;
        SessionName { worker, id }
    }

    /// Counts what there is.
    pub fn stats(&self) -> HubStats {
        HubStats {
            clients: self.clients.len(),
            users: self.users.len(),
            channels: self.channels.len(),
            subscriptions: self.subscriptions,
        }
    }

    /// How many sessions there are, those that have yet to authenticate too.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Counts what has happened since the hub was made.
    pub fn counters(&self) -> HubCounters {
        HubCounters {
            refused_tokens: self.refused_tokens.get(),
            over_limit: OverLimit {
                subscriptions: self.over_subscriptions.get(),
                subscribers: self.over_subscribers.get(),
                bounds: self.over_bounds.get(),
                ..self.counters.over_limit
            },
            ..self.counters
        }
    }

    /// Something met a limit.
    fn met(&self, bound: Bound) {
        let mut over = self.over_bounds.get();
        over[bound.index()] += 1;
        self.over_bounds.set(over);
    }

    /// How many sessions were ended from this side since the hub was made, by code.
    pub fn disconnects(&self) -> &BTreeMap<u32, u64> {
        &self.disconnects
    }

    /// When [`on_deadline`](Self::on_deadline) should be called next, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let of_drain = self.draining.as_ref().and_then(|drain| drain.next());
        let all = [self.wheel.next(), of_drain, self.announcements.next()];
        all.into_iter().flatten().min()
    }

    /// Ends a session from this side.
    fn end<O: Outbox>(&mut self, now: Now, id: SessionId, disconnect: &Disconnect, out: &mut O) {
        let disconnect = &*with_a_reason(disconnect);
        let Some(session) = self.forget(now, id, disconnect) else {
            return;
        };
        // There are some two thousand codes at the most.
        *self.disconnects.entry(disconnect.code).or_insert(0) += 1;
        self.tally.closed(session.counted, disconnect.code);
        tracing::debug!(
            session = %self.name_of(id),
            client = session.connected().map(|connected| &*connected.info.client),
            transport = session.transport.name,
            code = disconnect.code,
            reason = %disconnect.reason,
            "disconnecting"
        );
        // A client that doesn't read would never get what is queued.
        let flush = *disconnect != Disconnect::SLOW && *disconnect != Disconnect::CONNECTION_CLOSED;
        out.close(id, disconnect, flush);
    }

    /// Takes a session out of everything that knows it.
    fn forget(&mut self, now: Now, id: SessionId, disconnect: &Disconnect) -> Option<Session> {
        self.withdraw(id);
        // Channels first: they look the session up.
        if self.is_draining() && *disconnect == Disconnect::SHUTDOWN {
            self.leave_subscriptions(now, id);
        } else {
            self.drop_subscriptions(now, id);
        }
        self.note_disconnected(now, id, disconnect);
        self.say_goodbye(now, id, disconnect);
        let session = self.sessions.remove(id)?;
        self.tally.left(id, session.counted);
        if self.is_traced() {
            self.observe_end(&session, disconnect);
        }
        if let Some(connected) = session.connected() {
            self.unregister(connected);
        }
        Some(session)
    }

    /// Ends all subscriptions of a session, without telling it.
    fn drop_subscriptions(&mut self, now: Now, id: SessionId) {
        while let Some(channel) = self.last_subscription(id) {
            self.end_subscription(now, id, channel, UnsubscribeEvent::BY_DISCONNECT);
        }
    }

    /// Any channel that a session is subscribed to.
    fn last_subscription(&self, id: SessionId) -> Option<u32> {
        let subscriptions = &self.sessions.connected(id)?.subscriptions;
        subscriptions
            .last()
            .map(|subscription| subscription.channel)
    }

    /// Takes a session, which is out of the table already, out of those that are connected.
    fn unregister(&mut self, connected: &Connected) {
        let info = &connected.info;
        self.clients.remove(&info.client);
        self.config.seats.leave(&info.user);
        self.users
            .leave(&info.user, connected.peers, &mut self.sessions);
    }

    /// Queues a reply or push for one session. A session for which too much is queued is closed
    /// before the current call ends.
    fn send<O: Outbox>(&mut self, id: SessionId, reply: &Reply, out: &mut O) {
        if self.is_traced() {
            self.observe_reply(id, reply, out);
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        self.scratch.clear();
        session
            .transport
            .encoding
            .encode_reply(reply, &mut self.scratch);
        out.saying(FrameType::of_reply(reply), 1);
        let queued = out.send(id, &self.scratch);
        if let Reply::Answer(..) = reply {
            let mark = park_mark(&self.config);
            let own = (session.answers as usize).saturating_add(self.scratch.len());
            // With half of the queue full there is no room for the longest answer behind this one.
            let own = if queued >= 2 * mark {
                own.max(mark)
            } else {
                own
            };
            session.answers = own.try_into().unwrap_or(u32::MAX);
        }
        self.limit_queue(id, queued);
    }

    /// So many bytes wait for a session now. One that has more than may wait is closed before the current call
    /// ends.
    fn limit_queue(&mut self, id: SessionId, queued: usize) {
        if queued > self.config.client.queue_max_size {
            self.over_queue(id, queued);
        }
    }

    /// More waits for a session than may: it is closed before the current call ends. In a dry run that is counted, and some
    /// times as much may wait.
    #[cold]
    fn over_queue(&mut self, id: SessionId, queued: usize) {
        let most = self.config.client.queue_max_size;
        let is_tried = self.config.dry_run && queued <= most.saturating_mul(QUEUES_TRIED);
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let counts = &mut self.counters.over_limit.queue;
        if !is_tried {
            if !std::mem::replace(&mut session.is_slow, true) {
                counts[0] += 1;
                self.slow.push(id);
            }
        } else if !std::mem::replace(&mut session.is_tried, true) {
            counts[1] += 1;
            let why = format_args!(
                "more waits to be written than client.queue_max_size allows ({most} bytes)"
            );
            self.observe_over_limit(id, None, &why);
        }
    }

    /// Reads on for sessions that fell behind, and closes those that turned out to be too slow. The end of every call that sends.
    fn settle<O: Outbox>(&mut self, now: Now, out: &mut O) {
        loop {
            self.settle_lag(now, out);
            let Some(id) = self.slow.pop() else {
                return;
            };
            self.counters.slow += 1;
            self.end(now, id, &Disconnect::SLOW, out);
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_serial += 1;
        Ticket {
            worker: self.worker,
            serial: self.next_serial,
        }
    }
}

/// Clients take an end for final only if it has a reason, and one that is JSON for something else: what an
/// application says is put so that it is believed.
fn with_a_reason(disconnect: &Disconnect) -> Cow<'_, Disconnect> {
    let reason = disconnect.reason.trim();
    let reason = if reason.is_empty() {
        Cow::Borrowed("disconnect")
    } else if json::check_payload(reason.as_bytes()).is_ok() {
        Cow::Owned(format!("disconnect: {reason}"))
    } else {
        return Cow::Borrowed(disconnect);
    };
    Cow::Owned(Disconnect {
        code: disconnect.code,
        reason,
    })
}
