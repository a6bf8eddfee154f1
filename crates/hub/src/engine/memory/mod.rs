//! The memory engine: everything in this process, shared by its workers.
//!
//! Channels are spread over shards, each behind a mutex. All that happens to a channel happens
//! under its shard's lock, which is held for the length of a call and never while waiting: one
//! lock gives a publication its offset *and* puts it into the mailboxes, which is why every worker
//! sees a channel in the order of its offsets.
//!
//! What is kept is bounded: channels by [`MemoryOptions::max_channels`], a channel's publications
//! by its namespace's history options, idempotency keys by [`MAX_KEYS`] a channel. What expires is
//! gone for readers at once, and from memory when the channel is next used or
//! [`maintain`](Engine::maintain) comes by.

mod channel;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use serde::Deserialize;
use tautline_protocol::message::{ClientInfo, PresenceStatsResult, Publication};

pub use self::channel::MAX_KEYS;
use self::channel::State;
use super::{
    Channel, Delivery, Engine, EngineError, FeedId, HistoryPage, HistoryRead, Mailbox, Members,
    Publish, Published, Started, Ticket, WorkerId,
};
use crate::Now;
use crate::entropy::{self, Entropy};

/// Options of the memory engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryOptions {
    /// For how many channels something may be kept: subscribers, history, presence, positions.
    /// Default: one million. The limit is kept to within some hundred.
    pub max_channels: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_channels: 1_000_000,
        }
    }
}

/// The engine that lives in this process. See the [module's documentation](self).
pub struct MemoryEngine {
    options: MemoryOptions,
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::fast::RandomState,
    /// By worker id. Written when workers start, read by every publication.
    mailboxes: RwLock<Vec<Option<Arc<dyn Mailbox>>>>,
    /// How many channels there are in all shards.
    channels: AtomicUsize,
    /// Which shard the next call of `maintain` looks after.
    next_shard: AtomicUsize,
    entropy: Mutex<Box<dyn Entropy + Send>>,
}

type Shard = HashMap<Channel, State, foldhash::fast::RandomState>;

impl MemoryEngine {
    /// An engine without channels or workers. Epochs are made of `entropy`.
    pub fn new(options: MemoryOptions, entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            options,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            mailboxes: RwLock::default(),
            channels: AtomicUsize::new(0),
            next_shard: AtomicUsize::new(0),
            entropy: Mutex::new(entropy),
        }
    }

    /// How many channels something is kept for.
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    fn fresh_epoch(&self) -> Arc<str> {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        entropy::epoch(&mut **entropy)
    }

    fn shard(&self, channel: &str) -> MutexGuard<'_, Shard> {
        use std::hash::BuildHasher as _;
        // The high bits, because the maps inside of the shards use the low ones.
        let hash = self.hasher.hash_one(channel);
        let index = (hash >> 32) as usize % self.shards.len();
        lock(&self.shards[index])
    }

    /// Lets `work` do something with a channel's state, making one if need be.
    fn with<T>(
        &self,
        channel: &Channel,
        work: impl FnOnce(&mut State) -> T,
    ) -> Result<T, EngineError> {
        let mut shard = self.shard(channel);
        match shard.entry_ref(channel) {
            EntryRef::Occupied(mut entry) => Ok(work(entry.get_mut())),
            EntryRef::Vacant(entry) => {
                let limit = self.options.max_channels;
                if self.channels.load(Ordering::Relaxed) >= limit {
                    return Err(EngineError::Full { limit });
                }
                let mut state = State::default();
                let result = work(&mut state);
                if !state.is_idle() {
                    entry.insert(state);
                    self.channels.fetch_add(1, Ordering::Relaxed);
                }
                Ok(result)
            }
        }
    }

    /// Lets `work` do something with a channel's state if there is one, and drops the state if
    /// nothing is left in it.
    fn with_known<T>(&self, channel: &Channel, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut shard = self.shard(channel);
        let state = shard.get_mut(channel)?;
        let result = work(state);
        if state.is_idle() {
            shard.remove(channel);
            self.channels.fetch_sub(1, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Puts a delivery into the mailboxes of `workers`. Called under the shard's lock: that is what
    /// keeps the order.
    fn feed(&self, workers: &[(WorkerId, FeedId)], delivery: impl Fn(FeedId) -> Delivery) {
        if workers.is_empty() {
            return;
        }
        let mailboxes = self
            .mailboxes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (worker, feed) in workers {
            if let Some(Some(mailbox)) = mailboxes.get(usize::from(worker.0)) {
                mailbox.push(delivery(*feed));
            }
        }
    }
}

impl Engine for MemoryEngine {
    fn register(&self, worker: WorkerId, mailbox: Arc<dyn Mailbox>) {
        let mut mailboxes = self
            .mailboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let index = usize::from(worker.0);
        if mailboxes.len() <= index {
            mailboxes.resize_with(index + 1, || None);
        }
        mailboxes[index] = Some(mailbox);
    }

    fn attach(
        &self,
        _: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        Started::Done(self.with(channel, |state| state.attach(ticket.worker, ticket.serial)))
    }

    fn detach(&self, _: Now, worker: WorkerId, channel: &Channel) {
        self.with_known(channel, |state| state.detach(worker));
    }

    fn publish(
        &self,
        now: Now,
        _: Ticket,
        request: Publish,
    ) -> Started<Result<Published, EngineError>> {
        let Publish {
            channel,
            data,
            info,
            tags,
            history,
            idempotency,
        } = request;
        let publication = |offset| {
            Arc::new(Publication {
                data,
                info,
                offset,
                tags,
                ..Publication::default()
            })
        };
        if history.is_none() && idempotency.is_none() {
            // Nothing is to be kept: a channel without subscribers needs no state.
            let publication = publication(0);
            self.with_known(&channel, |state| {
                self.feed(state.workers(), |feed| Delivery::Publication {
                    channel: channel.clone(),
                    feed,
                    publication: publication.clone(),
                    epoch: Arc::default(),
                    previous: 0,
                });
            });
            return Started::Done(Ok(Published::default()));
        }
        Started::Done(self.with(&channel, |state| {
            if let Some(idempotency) = &idempotency
                && let Some(position) = state.known_key(now.monotonic, &idempotency.key)
            {
                return Published {
                    position,
                    duplicate: true,
                };
            }
            let (publication, epoch, previous) = match history {
                Some(options) => {
                    let stream = state.stream(now.monotonic, options, || self.fresh_epoch());
                    let previous = stream.top();
                    let publication = publication(previous + 1);
                    stream.append(now.monotonic, publication.clone(), options);
                    (publication, stream.epoch().clone(), previous)
                }
                None => (publication(0), Arc::default(), 0),
            };
            self.feed(state.workers(), |feed| Delivery::Publication {
                channel: channel.clone(),
                feed,
                publication: publication.clone(),
                epoch: epoch.clone(),
                previous,
            });
            let position = tautline_protocol::message::StreamPosition {
                offset: publication.offset,
                epoch,
            };
            if let Some(idempotency) = idempotency {
                state.remember_key(now.monotonic, idempotency, position.clone());
            }
            Published {
                position,
                duplicate: false,
            }
        }))
    }

    fn join(&self, _: Now, _: WorkerId, channel: &Channel, info: &Arc<ClientInfo>) {
        self.with_known(channel, |state| {
            self.feed(state.workers(), |feed| Delivery::Join {
                channel: channel.clone(),
                feed,
                info: info.clone(),
            });
        });
    }

    fn leave(&self, _: Now, _: WorkerId, channel: &Channel, info: &Arc<ClientInfo>) {
        self.with_known(channel, |state| {
            self.feed(state.workers(), |feed| Delivery::Leave {
                channel: channel.clone(),
                feed,
                info: info.clone(),
            });
        });
    }

    fn history(
        &self,
        now: Now,
        _: Ticket,
        request: HistoryRead,
    ) -> Started<Result<HistoryPage, EngineError>> {
        Started::Done(self.with(&request.channel, |state| {
            let stream = state.stream(now.monotonic, request.options, || self.fresh_epoch());
            stream.touch(now.monotonic, request.options);
            stream.read(&request)
        }))
    }

    fn presence_add(
        &self,
        _: Now,
        _: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        Started::Done(self.with(channel, |state| state.add_member(info)))
    }

    fn presence_remove(
        &self,
        _: Now,
        _: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        self.with_known(channel, |state| state.remove_member(&info.client));
        Started::Done(Ok(()))
    }

    fn presence(
        &self,
        _: Now,
        _: Ticket,
        channel: &Channel,
    ) -> Started<Result<Members, EngineError>> {
        Started::Done(Ok(self
            .with_known(channel, |state| state.members())
            .unwrap_or_default()))
    }

    fn presence_stats(
        &self,
        _: Now,
        _: Ticket,
        channel: &Channel,
    ) -> Started<Result<PresenceStatsResult, EngineError>> {
        let stats = self.with_known(channel, |state| state.member_counts());
        Started::Done(Ok(stats.unwrap_or_default()))
    }

    fn maintain(&self, now: Now) {
        let index = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let mut shard = lock(&self.shards[index]);
        let before = shard.len();
        shard.retain(|_, state| {
            state.expire(now.monotonic);
            !state.is_idle()
        });
        self.channels
            .fetch_sub(before - shard.len(), Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The only code that runs under the lock and isn't ours is a mailbox's push. If that panics the
    // worst is a delivery that one worker didn't get; refusing all service would be worse.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A power of two well above the number of cores, so that workers rarely meet.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::testkit::{self, DelayOptions, DelayedEngine, Seeded, Subject};
    use crate::engine::{HistoryOptions, Idempotency};

    struct Memory(MemoryEngine);

    impl Subject for Memory {
        fn engine(&self) -> &dyn Engine {
            &self.0
        }
    }

    struct Delayed(DelayedEngine);

    impl Subject for Delayed {
        fn engine(&self) -> &dyn Engine {
            &self.0
        }

        fn pump(&self, now: Now) {
            self.0.step(now);
        }
    }

    fn engine(max_channels: usize) -> MemoryEngine {
        MemoryEngine::new(MemoryOptions { max_channels }, Box::new(Seeded::new(7)))
    }

    fn at(seconds: u64) -> Now {
        Now {
            monotonic: Duration::from_secs(seconds),
            unix: Duration::from_secs(seconds),
        }
    }

    fn ticket() -> Ticket {
        Ticket {
            worker: WorkerId(0),
            serial: 1,
        }
    }

    fn history(meta_ttl: u64) -> Option<HistoryOptions> {
        let ttl = Duration::from_secs(10);
        Some(HistoryOptions {
            size: 3,
            ttl,
            meta_ttl: Duration::from_secs(meta_ttl),
        })
    }

    fn publish(channel: &str, history: Option<HistoryOptions>) -> Publish {
        Publish {
            channel: channel.into(),
            data: "1".into(),
            info: None,
            tags: Default::default(),
            history,
            idempotency: None,
        }
    }

    fn done<T>(started: Started<T>) -> T {
        match started {
            Started::Done(result) => result,
            Started::Later => panic!("the memory engine does everything at once"),
        }
    }

    #[test]
    fn keeps_the_contract() {
        testkit::check(|| Memory(engine(1000)));
    }

    #[test]
    fn channels_are_bounded_and_live_ones_go_on() {
        let engine = engine(2);
        for channel in ["a", "b"] {
            done(engine.publish(at(0), ticket(), publish(channel, history(100)))).unwrap();
        }
        let refused = done(engine.publish(at(0), ticket(), publish("c", history(100))));
        assert_eq!(refused, Err(EngineError::Full { limit: 2 }));
        assert_eq!(
            done(engine.attach(at(0), ticket(), &"c".into())),
            refused.map(|_| ())
        );
        done(engine.publish(at(0), ticket(), publish("a", history(100)))).unwrap();
        // What needs nothing to be kept works all the same.
        done(engine.publish(at(0), ticket(), publish("c", None))).unwrap();
        assert_eq!(engine.channels(), 2);
    }

    #[test]
    fn what_expires_makes_room() {
        let engine = engine(100);
        done(engine.attach(at(0), ticket(), &"fed".into())).unwrap();
        done(engine.publish(at(0), ticket(), publish("stream", history(20)))).unwrap();
        let idempotency = Some(Idempotency {
            key: "k".into(),
            ttl: Duration::from_secs(5),
        });
        let keyed = Publish {
            idempotency,
            ..publish("keyed", None)
        };
        done(engine.publish(at(0), ticket(), keyed)).unwrap();
        let info = Arc::new(ClientInfo::default());
        done(engine.presence_add(at(0), ticket(), &"present".into(), &info)).unwrap();
        assert_eq!(engine.channels(), 4);
        let sweep = |seconds| {
            for _ in 0..SHARDS {
                engine.maintain(at(seconds));
            }
            engine.channels()
        };
        assert_eq!(sweep(4), 4);
        assert_eq!(sweep(5), 3, "the key is forgotten");
        assert_eq!(sweep(19), 3);
        assert_eq!(sweep(20), 2, "the position is forgotten");
        done(engine.presence_remove(at(20), ticket(), &"present".into(), &info)).unwrap();
        engine.detach(at(20), WorkerId(0), &"fed".into());
        assert_eq!(engine.channels(), 0, "what is not used is gone at once");
    }

    #[test]
    fn streams_that_were_only_read_are_forgotten_soon() {
        let engine = engine(100);
        let read = HistoryRead {
            channel: "a".into(),
            options: history(1_000_000).unwrap(),
            since: None,
            limit: Some(0),
            max_bytes: None,
            reverse: false,
        };
        let first = done(engine.history(at(0), ticket(), read.clone()))
            .unwrap()
            .top;
        assert_eq!(
            done(engine.history(at(3599), ticket(), read.clone()))
                .unwrap()
                .top,
            first
        );
        assert_ne!(
            done(engine.history(at(7199), ticket(), read)).unwrap().top,
            first
        );
    }

    /// The wrapper for tests must itself keep the contract, or tests with it prove nothing.
    #[test]
    fn the_delayed_engine_keeps_the_contract_too() {
        for seed in 0..20 {
            testkit::check(|| {
                let options = DelayOptions {
                    at_once: 30,
                    failures: 0,
                };
                Delayed(DelayedEngine::new(Arc::new(engine(1000)), options, seed))
            });
        }
    }
}
