//! The engine: history, presence, and the feed of publications between workers and nodes.
//!
//! # Contract
//!
//! Every engine passes the tests of [`testkit`] (feature `testkit`); this is what they check.
//!
//! - **Methods return at once.** They are called on the thread that serves connections. An
//!   operation that needs the network or a disk returns [`Started::Later`], and its outcome
//!   reaches the mailbox of the worker that asked, as [`Delivery::Outcome`] with the same ticket:
//!   exactly once, sooner or later, an error if there is nothing better. Engines may collect
//!   operations and carry them out in batches: those of all workers that were started while a request
//!   was under way make the next one (a pipeline of Redis, a batched read of NATS, one `fsync`). After
//!   [`EngineError::Unavailable`] it isn't known whether an operation took effect, and nobody repeats
//!   it but the publisher, who may do so with an idempotency key.
//! - **Effects in order.** What one worker starts for one channel takes effect in the order in
//!   which it was started, whatever the order of the outcomes. So presence that is added and then
//!   removed is gone, and history that is read behind an [`attach`](Engine::attach) misses nothing
//!   which the feed doesn't bring.
//! - **Publications in order.** Those of a channel reach each mailbox in the order of their
//!   offsets, and a worker that is attached gets each one once. An engine whose feed may lose some
//!   says so by [`Delivery::Publication::previous`], or by [`Delivery::Doubt`] where it knows only that
//!   something may be missing: the hub then reads what is, and clients notice nothing. Two more things
//!   help an engine that can't promise even that: what comes twice is delivered once, and the hub asks
//!   for the position of quiet channels now and then.
//! - **Pages are bounded** by number and by bytes, and begin anywhere: a page costs what it holds, not
//!   what lies before it. The hub reads the next one from the offset of the last publication that it
//!   has, and never asks for more than one page at a time for a reader. Readers of a worker that stand
//!   at the same place share one read; an engine may go further and answer equal reads of all workers
//!   with one.
//! - **Offsets grow** within an epoch and are never used twice. The memory engine's have no holes,
//!   others may have: what follows what is told by `previous` and [`HistoryPage::follows`].
//! - **What was acknowledged stays** for as long as the engine promises: for the memory engine,
//!   the life of the process and the limits of the channel's history.
//! - **A user joins once and leaves once**, whatever workers its connections are on, where joins and leaves
//!   are those of users ([`JoinLevel::User`]): with the first [`join`](Engine::join) and the last
//!   [`leave`](Engine::leave). An engine that spans nodes counts the connections of a node which died as
//!   gone.
//! - **Presence lives as long as its worker**: nobody refreshes entries. An engine that spans nodes
//!   removes those of a node which died.
//! - **Time is an argument.** Engines have no clock of their own.
//! - **Memory has limits** which an engine names in its errors ([`EngineError::Full`],
//!   [`EngineError::OutOfMemory`]). Nothing is kept for a subscriber: what an engine holds grows with
//!   channels, publications and members, not with subscriptions.
//! - **Engines know no namespaces.** What is kept, and for how long, comes with each call.

pub mod memory;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tautline_protocol::message::{
    ClientInfo, Payload, PresenceStatsResult, Publication, StreamPosition,
};

use crate::Now;

/// A channel's name, shared by all who mention it.
pub type Channel = Arc<str>;

/// Names a worker of this process, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Names an operation whose outcome comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// Who asked, and whose mailbox gets the outcome.
    pub worker: WorkerId,
    /// Chosen by the worker; never the same twice.
    pub serial: u64,
}

/// One attachment of a worker to a channel: the serial of the ticket that it was made with.
///
/// A worker that leaves a channel and comes back finds what the old feed brought still in its
/// mailbox, with a hole behind it. By the feed it tells one from the other.
pub type FeedId = u64;

/// How an operation went, if it is known already.
#[derive(Debug)]
#[must_use]
pub enum Started<T> {
    /// It is done.
    Done(T),
    /// The outcome will come to the mailbox, with the ticket of the call.
    Later,
}

/// Where an engine puts what it has for a worker. Implemented by whoever runs the worker.
pub trait Mailbox: Send + Sync {
    /// Appends to what waits for the worker, and sees to it that the worker looks soon. Called
    /// from any thread, possibly with an engine's lock held: it must return at once and must not
    /// call back.
    fn push(&self, delivery: Delivery);
}

/// What an engine has for a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A publication of a channel to which the worker is attached.
    Publication {
        /// The channel.
        channel: Channel,
        /// The feed that brings it.
        feed: FeedId,
        /// What was published. Its offset is 0 if it is not part of the stream.
        publication: Arc<Publication>,
        /// The stream's incarnation; empty for an offset of 0.
        epoch: Arc<str>,
        /// Offset of the publication before it in the stream (0 for the first). A worker that has
        /// not seen that one has missed something.
        previous: u64,
        /// [`Publish::patch`], as it was published with.
        patch: bool,
    },
    /// The feed of a channel may have lost something: a connection broke, a queue ran over. Whoever
    /// has a place in the stream reads on from there, whether or not there is anything.
    Doubt {
        /// The channel.
        channel: Channel,
        /// The feed that is in doubt.
        feed: FeedId,
    },
    /// Somebody subscribed to a channel to which the worker is attached.
    Join {
        /// The channel.
        channel: Channel,
        /// The feed that brings it.
        feed: FeedId,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// Somebody left a channel to which the worker is attached.
    Leave {
        /// The channel.
        channel: Channel,
        /// The feed that brings it.
        feed: FeedId,
        /// Who.
        info: Arc<ClientInfo>,
    },
    /// A user has a connection that takes the place of those before it. This comes from another hub of
    /// the process, not from an engine.
    Superseded {
        /// The user.
        user: Arc<str>,
        /// Which of its connections that is: of those that are to end, each has a lesser number.
        by: u64,
    },
    /// An operation which the worker started has ended.
    Outcome {
        /// The ticket it was started with.
        ticket: Ticket,
        /// How it went.
        outcome: Outcome,
    },
}

/// How an operation went that was not done at once.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Of [`Engine::attach`], [`Engine::remove_history`], [`Engine::presence_add`] and
    /// [`Engine::presence_remove`].
    Changed(Result<(), EngineError>),
    /// Of [`Engine::publish`].
    Published(Result<Published, EngineError>),
    /// Of [`Engine::history`].
    History(Result<HistoryPage, EngineError>),
    /// Of [`Engine::presence`].
    Presence(Result<PresencePage, EngineError>),
    /// Of [`Engine::presence_stats`].
    PresenceStats(Result<PresenceStatsResult, EngineError>),
}

/// Who is in a channel, by connection id.
pub type Members = BTreeMap<Arc<str>, Arc<ClientInfo>>;

/// Why an engine didn't do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine keeps as many channels as it may.
    #[error(
        "the engine keeps state for {limit} channels already, as many as it may (engine.memory.max_channels)"
    )]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The engine keeps as many bytes of publications as it may.
    #[error(
        "the engine keeps {limit} bytes of publications already, as many as it may (engine.memory.max_bytes)"
    )]
    OutOfMemory {
        /// The limit.
        limit: usize,
    },
    /// The engine can't be reached, or did not answer in time. It is not known whether the
    /// operation took effect.
    #[error("the engine did not answer in time; whether the operation took effect is not known")]
    Unavailable,
}

/// Whose coming and going is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinLevel {
    /// That of each connection.
    #[default]
    #[serde(alias = "")]
    Client,
    /// That of each user: with the first of its connections, and with the last. Anonymous connections have
    /// no user in common, so each is told of.
    User,
}

/// What a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// How many publications, at least 1.
    pub size: usize,
    /// For how long after the last publication.
    pub ttl: Duration,
    /// For how long the position (epoch and top offset) is remembered after it was last used.
    pub meta_ttl: Duration,
}

/// Something to be published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where.
    pub channel: Channel,
    /// The payload.
    pub data: Payload,
    /// Who publishes; `None` for the operator's API.
    pub info: Option<Arc<ClientInfo>>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// The only connection that is not to get it. Stays with the publication
    /// ([`Publication::except`]), and is the hubs' business.
    pub except: Option<Arc<str>>,
    /// Whether the publication becomes part of the channel's stream; `None` if not.
    pub history: Option<HistoryOptions>,
    /// A publish with a key that the channel has seen within [`Idempotency::ttl`] does nothing and
    /// has the outcome of the first.
    pub idempotency: Option<Idempotency>,
    /// A publish with a version that is no newer than the channel's does nothing. Without
    /// `history` it has no meaning, and without a version the channel's stays what it is.
    pub version: Option<Version>,
    /// Who takes patches is to get the publication as one. Comes with
    /// [`Delivery::Publication::patch`], and is not kept.
    pub patch: bool,
}

/// How new a publication's content is: for publishers whose messages may overtake each other.
///
/// A channel's version is that of the last publication that had one, and is remembered for as long as
/// the stream's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Grows with each change, from 1.
    pub number: u64,
    /// What the number counts in. Numbers of different scopes can't be compared, so what comes with
    /// another is published; an empty one compares with any.
    pub epoch: Arc<str>,
}

impl Version {
    /// Whether a channel with this version has no use for `other`.
    pub fn covers(&self, other: &Self) -> bool {
        let is_comparable = other.epoch.is_empty() || self.epoch == other.epoch;
        is_comparable && self.number >= other.number
    }
}

/// Makes a publish safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the publisher, one for each message.
    pub key: Arc<str>,
    /// How long the key is remembered.
    pub ttl: Duration,
}

/// A publication was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Where it stands; the default (0 and an empty epoch) if it is not part of a stream. The
    /// stream's top if it was `stale`.
    pub position: StreamPosition,
    /// The idempotency key was known: nothing happened this time.
    pub duplicate: bool,
    /// The channel's version is as new: nothing happened.
    pub stale: bool,
}

/// Which publications of a channel to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRead {
    /// The channel. One that was never used gets a stream with a fresh epoch.
    pub channel: Channel,
    /// What the channel keeps.
    pub options: HistoryOptions,
    /// Start behind this offset (before it, in reverse); `None` for the oldest kept (the newest, in
    /// reverse). In reverse, nothing is read unless the publication right before is still kept.
    pub since: Option<u64>,
    /// How many at the most; 0 for the position alone, `None` for all.
    pub limit: Option<usize>,
    /// How many bytes at the most, as [`weight`] counts them; but one publication is read in any
    /// case. `None` for no bound.
    pub max_bytes: Option<usize>,
    /// Newest first.
    pub reverse: bool,
}

/// What a publication counts for where bytes are bounded: what its publisher chose, and a little
/// for the rest.
pub fn weight(publication: &Publication) -> usize {
    let tags = publication.tags.iter();
    let tags: usize = tags.map(|(key, value)| key.len() + value.len()).sum();
    let info = publication.info.as_deref().map_or(0, |info| {
        let attached = [&info.conn_info, &info.chan_info].into_iter().flatten();
        info.user.len() + info.client.len() + attached.map(Bytes::len).sum::<usize>()
    });
    let except = publication.except.as_deref().map_or(0, str::len);
    WEIGHT_OF_NOTHING + except + publication.data.len() + tags + info
}

const WEIGHT_OF_NOTHING: usize = 64;

/// A part of a channel's history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryPage {
    /// The stream's top, whatever the page.
    pub top: StreamPosition,
    /// The publications, in the order asked for.
    pub publications: Vec<Arc<Publication>>,
    /// Whether nothing is missing between `since` and the first publication of a forward read (or
    /// the top, if there is none).
    pub follows: bool,
}

/// Which of those in a channel to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRead {
    /// The channel.
    pub channel: Channel,
    /// Start behind this connection id, whether or not it is there; `None` for the first. Ids are in
    /// the order of their bytes.
    pub after: Option<Arc<str>>,
    /// Behind the last, go on with the first, up to `after`. As ids are random, what is listed from a
    /// random id on is a sample.
    pub wrap: bool,
    /// How many at the most.
    pub limit: usize,
    /// How many bytes at the most, as [`info_weight`] counts them; but one is listed in any case.
    pub max_bytes: usize,
}

/// A part of those in a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresencePage {
    /// Who was listed.
    pub members: Members,
    /// How many there are in all.
    pub stats: PresenceStatsResult,
    /// The last that was listed, if there are more behind it.
    pub next: Option<Arc<str>>,
}

/// What somebody in a channel counts for where bytes are bounded.
pub fn info_weight(info: &ClientInfo) -> usize {
    let attached = [&info.conn_info, &info.chan_info].into_iter().flatten();
    // The id is there twice: as a key, too.
    info.user.len() + 2 * info.client.len() + attached.map(Bytes::len).sum::<usize>() + 32
}

/// History, presence and feed, shared by all workers. The [module's documentation](self) is the
/// contract.
pub trait Engine: Send + Sync {
    /// Makes a worker known, before it starts anything. Once for each worker.
    fn register(&self, worker: WorkerId, mailbox: Arc<dyn Mailbox>);

    /// Starts the feed of a channel (publications, joins, leaves) to the worker's mailbox; the
    /// ticket's serial names it. The feed may begin before the outcome is there.
    fn attach(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>>;

    /// Ends the feed of a channel. What is in the mailbox already stays there.
    fn detach(&self, now: Now, worker: WorkerId, channel: &Channel);

    /// Publishes.
    fn publish(
        &self,
        now: Now,
        ticket: Ticket,
        request: Publish,
    ) -> Started<Result<Published, EngineError>>;

    /// Tells the workers attached that somebody subscribed, if that is worth telling by `level`. At most
    /// once, not kept.
    fn join(
        &self,
        now: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    );

    /// Tells the workers attached that somebody left. Called once for each [`join`](Self::join), with the
    /// same level. At most once, not kept.
    fn leave(
        &self,
        now: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    );

    /// Reads stored publications, or just the position.
    fn history(
        &self,
        now: Now,
        ticket: Ticket,
        request: HistoryRead,
    ) -> Started<Result<HistoryPage, EngineError>>;

    /// Drops the publications that a channel keeps. Position, version and idempotency keys stay,
    /// and whoever is attached notices nothing.
    fn remove_history(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>>;

    /// Adds a connection to those in a channel, or replaces its entry.
    fn presence_add(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>>;

    /// Removes a connection from those in a channel. One that isn't there is no error. Nobody asks
    /// twice: an engine that can't do it now has to do it later, whatever outcome it tells.
    fn presence_remove(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>>;

    /// Who is in a channel. Costs what is listed, not what there is.
    fn presence(
        &self,
        now: Now,
        ticket: Ticket,
        request: PresenceRead,
    ) -> Started<Result<PresencePage, EngineError>>;

    /// How many are in a channel. Costs the same for any number.
    fn presence_stats(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<PresenceStatsResult, EngineError>>;

    /// Drops some of what has expired. Every worker calls it about once a second; a call does a
    /// bounded part of the work.
    fn maintain(&self, now: Now);
}
