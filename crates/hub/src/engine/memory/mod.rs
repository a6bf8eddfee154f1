//! The memory engine: everything in this process, shared by its workers.
//!
//! Channels are spread over shards, each behind a mutex. All that happens to a channel happens
//! under its shard's lock, which is held for the length of a call and never while waiting: one
//! lock gives a publication its offset *and* puts it into the mailboxes, which is why every worker
//! sees a channel in the order of its offsets.
//!
//! What is kept is bounded: channels by [`MemoryOptions::max_channels`], publications by
//! [`MemoryOptions::max_bytes`] and by their namespace's history options, idempotency keys by
//! [`MAX_KEYS`] a channel. Where there are as many channels as there may be, positions that nobody uses make room for new
//! ones. What expires is gone for readers at once, and from memory when the channel
//! is next used or [`maintain`](Engine::maintain) comes by, which looks only at channels in which
//! something is due: each shard has a coarse wheel of them.

mod channel;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use serde::Deserialize;
use tautline_protocol::message::{ClientInfo, PresenceStatsResult, Publication, StreamPosition};

pub use self::channel::MAX_KEYS;
use self::channel::State;
use super::{
    Channel, Delivery, Engine, EngineError, FeedId, HistoryPage, HistoryRead, Idempotency,
    JoinLevel, Mailbox, PresencePage, PresenceRead, Publish, Published, Started, Ticket, WorkerId,
};
use crate::Now;
use crate::entropy::{self, Entropy};

/// Options of the memory engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryOptions {
    /// For how many channels something may be kept: subscribers, history, presence, positions.
    /// At least 1. Default: 1,000,000. The limit is kept to within some hundred. Beyond, positions are
    /// forgotten of which nothing else is kept and which nobody uses: first those of channels into which
    /// nothing was ever published, then those used longest ago.
    pub max_channels: usize,
    /// How many bytes the publications in all histories may take, what they are managed with included.
    /// Beyond, publishing into a history that would grow fails. Default: 1 GiB; a server takes half of its ceiling
    /// (`limits.memory.max_bytes`) where that is less.
    pub max_bytes: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            max_channels: 1_000_000,
            max_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// The engine that lives in this process. See the [module's documentation](self).
pub struct MemoryEngine {
    /// What there may be of `channels`, and of `bytes`.
    max_channels: AtomicUsize,
    max_bytes: AtomicUsize,
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::fast::RandomState,
    /// By worker id. Written when workers start, read by every publication.
    mailboxes: RwLock<Vec<Option<Arc<dyn Mailbox>>>>,
    /// How many channels there are in all shards.
    channels: AtomicUsize,
    /// What the publications in all shards count for.
    bytes: AtomicUsize,
    entropy: Mutex<Box<dyn Entropy + Send>>,
    over: Over,
}

/// What met a limit of an engine. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryRefusals {
    /// Channels for which there was no room ([`MemoryOptions::max_channels`]).
    pub channels: u64,
    /// Publications for which there was none ([`MemoryOptions::max_bytes`]).
    pub bytes: u64,
    /// Idempotency keys that were forgotten before their time, for want of room for others ([`MAX_KEYS`]).
    pub keys: u64,
}

/// The same as it is counted.
#[derive(Default)]
struct Over {
    channels: AtomicU64,
    bytes: AtomicU64,
    keys: AtomicU64,
}

/// Some of the channels.
#[derive(Default)]
struct Shard {
    channels: HashMap<Channel, State, foldhash::fast::RandomState>,
    /// By tick: the channels in which something may have expired then.
    due: BTreeMap<u64, Vec<Channel>>,
    /// Until then there is no use in looking for positions that could be forgotten.
    crowded_until: Duration,
}

impl Shard {
    /// Sees to it that a channel is looked after when something in it expires.
    fn arm(&mut self, channel: &Channel) {
        let Some(state) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(tick) = state.next_expiry().map(tick)
            && (state.armed == 0 || tick < state.armed)
        {
            state.armed = tick;
            self.due.entry(tick).or_default().push(channel.clone());
        }
    }

    /// Forgets positions before their time, to make room: of channels that nobody uses, and for which nothing else is kept.
    /// First those into which nothing was ever published, which is all that strangers leave who subscribe to names that they
    /// make up; then those which were used longest ago. Half of the former at a time, or an eighth of the latter, so that a
    /// look at all channels is paid by many new ones. Returns how many.
    fn make_room(&mut self, now: Duration) -> usize {
        if now < self.crowded_until {
            return 0;
        }
        let channels = self.channels.iter();
        let mut resting: Vec<_> = channels
            .filter_map(|(name, state)| Some((state.rest()?, state.armed, name.clone())))
            .collect();
        if resting.len() < self.channels.len() / FEW {
            self.crowded_until = now.saturating_add(TICK);
        }
        let unused = resting.iter().filter(|(rest, ..)| !rest.was_used).count();
        let count = match unused {
            0 => resting.len().div_ceil(8),
            unused => unused.div_ceil(2),
        };
        if count < resting.len() {
            resting.select_nth_unstable_by_key(count, |(rest, ..)| *rest);
            resting.truncate(count);
        }
        let mut ticks = BTreeSet::new();
        for (_, tick, name) in &resting {
            self.channels.remove(name);
            ticks.insert(*tick);
        }
        for tick in ticks {
            if let Some(names) = self.due.get_mut(&tick) {
                names.retain(|name| self.channels.contains_key(name));
                if names.is_empty() {
                    self.due.remove(&tick);
                }
            }
        }
        resting.len()
    }
}

impl MemoryEngine {
    /// An engine without channels or workers. Epochs are made of `entropy`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the callers have no other use for them"
    )]
    pub fn new(options: MemoryOptions, entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            max_channels: AtomicUsize::new(options.max_channels),
            max_bytes: AtomicUsize::new(options.max_bytes),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            mailboxes: RwLock::default(),
            channels: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            entropy: Mutex::new(entropy),
            over: Over::default(),
        }
    }

    /// Keeps more from now on, or less: what is kept beyond a smaller limit stays for its time, and nothing
    /// comes to it.
    pub fn reconfigure(&self, options: &MemoryOptions) {
        let MemoryOptions {
            max_channels,
            max_bytes,
        } = *options;
        self.max_channels.store(max_channels, Ordering::Relaxed);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// What the publications in all histories count for, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many channels something is kept for.
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// What may be kept at the moment.
    pub fn limits(&self) -> MemoryOptions {
        MemoryOptions {
            max_channels: self.max_channels.load(Ordering::Relaxed),
            max_bytes: self.max_bytes.load(Ordering::Relaxed),
        }
    }

    /// What has met these limits since the engine was made.
    pub fn refusals(&self) -> MemoryRefusals {
        let Over {
            channels,
            bytes,
            keys,
        } = &self.over;
        MemoryRefusals {
            channels: channels.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
            keys: keys.load(Ordering::Relaxed),
        }
    }

    fn remember_key(
        &self,
        state: &mut State,
        now: Now,
        idempotency: Option<Idempotency>,
        position: &StreamPosition,
    ) {
        if let Some(idempotency) = idempotency
            && state.remember_key(now.monotonic, idempotency, position.clone())
        {
            self.over.keys.fetch_add(1, Ordering::Relaxed);
        }
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
        now: Now,
        channel: &Channel,
        work: impl FnOnce(&mut State) -> T,
    ) -> Result<T, EngineError> {
        let mut shard = self.shard(channel);
        let limit = self.max_channels.load(Ordering::Relaxed);
        let is_full = || self.channels.load(Ordering::Relaxed) >= limit;
        if is_full() && !shard.channels.contains_key(channel) {
            let forgotten = shard.make_room(now.monotonic);
            self.channels.fetch_sub(forgotten, Ordering::Relaxed);
            if is_full() {
                self.over.channels.fetch_add(1, Ordering::Relaxed);
                return Err(EngineError::Full { limit });
            }
        }
        let result = match shard.channels.entry_ref(channel) {
            EntryRef::Occupied(mut entry) => self.count(entry.get_mut(), work),
            EntryRef::Vacant(entry) => {
                let mut state = State::default();
                let result = self.count(&mut state, work);
                if state.is_idle() {
                    return Ok(result);
                }
                // By its own copy of the name, which is the key: a wheel's entry shares it.
                entry.insert(state);
                self.channels.fetch_add(1, Ordering::Relaxed);
                result
            }
        };
        shard.arm(channel);
        Ok(result)
    }

    /// Lets `work` do something with a channel's state if there is one, and drops the state if
    /// nothing is left in it.
    fn with_known<T>(&self, channel: &Channel, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut shard = self.shard(channel);
        let state = shard.channels.get_mut(channel)?;
        let result = self.count(state, work);
        if state.is_idle() {
            shard.channels.remove(channel);
            self.channels.fetch_sub(1, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Keeps count of the bytes that `work` changes.
    fn count<T>(&self, state: &mut State, work: impl FnOnce(&mut State) -> T) -> T {
        let before = state.bytes();
        let result = work(state);
        let after = state.bytes();
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        result
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
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        Started::Done(self.with(now, channel, |state| {
            state.attach(ticket.worker, ticket.serial);
        }))
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
            except,
            history,
            idempotency,
            version,
            patch,
        } = request;
        let publication = |offset| {
            Arc::new(Publication {
                data,
                info,
                offset,
                tags,
                except,
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
                    patch,
                });
            });
            return Started::Done(Ok(Published::default()));
        }
        let result = self.with(now, &channel, |state| {
            if let Some(idempotency) = &idempotency
                && let Some(position) = state.known_key(now.monotonic, &idempotency.key)
            {
                return Ok(Published {
                    position,
                    duplicate: true,
                    stale: false,
                });
            }
            let (publication, epoch, previous) = match history {
                Some(options) => {
                    let stream = state.stream(now.monotonic, options, || self.fresh_epoch());
                    if version
                        .as_ref()
                        .is_some_and(|version| stream.is_stale(version))
                    {
                        stream.touch(now.monotonic, options);
                        let position = stream.position();
                        self.remember_key(state, now, idempotency, &position);
                        return Ok(Published {
                            position,
                            duplicate: false,
                            stale: true,
                        });
                    }
                    let previous = stream.top();
                    let publication = publication(previous + 1);
                    let growth = stream.growth(&publication, options);
                    let limit = self.max_bytes.load(Ordering::Relaxed);
                    if growth > 0 && self.bytes.load(Ordering::Relaxed) + growth > limit {
                        self.over.bytes.fetch_add(1, Ordering::Relaxed);
                        return Err(EngineError::OutOfMemory { limit });
                    }
                    stream.append(now.monotonic, publication.clone(), options);
                    if let Some(version) = version {
                        stream.set_version(version);
                    }
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
                patch,
            });
            let position = StreamPosition {
                offset: publication.offset,
                epoch,
            };
            self.remember_key(state, now, idempotency, &position);
            Ok(Published {
                position,
                duplicate: false,
                stale: false,
            })
        });
        Started::Done(result.and_then(|result| result))
    }

    fn join(
        &self,
        _: Now,
        _: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        self.with_known(channel, |state| {
            if level == JoinLevel::User && !info.user.is_empty() && !state.enter(&info.user) {
                return;
            }
            self.feed(state.workers(), |feed| Delivery::Join {
                channel: channel.clone(),
                feed,
                info: info.clone(),
            });
        });
    }

    fn leave(
        &self,
        _: Now,
        _: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        self.with_known(channel, |state| {
            if level == JoinLevel::User && !info.user.is_empty() && !state.exit(&info.user) {
                return;
            }
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
        Started::Done(self.with(now, &request.channel, |state| {
            let stream = state.stream(now.monotonic, request.options, || self.fresh_epoch());
            stream.touch(now.monotonic, request.options);
            stream.read(&request)
        }))
    }

    fn remove_history(
        &self,
        _: Now,
        _: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        self.with_known(channel, State::remove_entries);
        Started::Done(Ok(()))
    }

    fn presence_add(
        &self,
        now: Now,
        _: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        Started::Done(self.with(now, channel, |state| state.add_member(info)))
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
        request: PresenceRead,
    ) -> Started<Result<PresencePage, EngineError>> {
        let page = self.with_known(&request.channel, |state| state.members(&request));
        Started::Done(Ok(page.unwrap_or_default()))
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
        for shard in &self.shards {
            let shard = &mut *lock(shard);
            let mut budget = MOST_AT_ONCE;
            while budget > 0
                && let Some(mut entry) = shard.due.first_entry()
                && now.monotonic >= TICK * u32::try_from(*entry.key()).unwrap_or(u32::MAX)
            {
                let tick = *entry.key();
                let keep = entry.get().len().saturating_sub(budget);
                let channels = entry.get_mut().split_off(keep);
                if keep == 0 {
                    entry.remove();
                }
                budget -= channels.len();
                for channel in channels {
                    self.expire(shard, &channel, tick, now);
                }
            }
        }
    }
}

impl MemoryEngine {
    /// Drops what has expired in a channel.
    fn expire(&self, shard: &mut Shard, channel: &Channel, tick: u64, now: Now) {
        let Some(state) = shard.channels.get_mut(channel) else {
            return;
        };
        if state.armed != tick {
            // Of a channel of that name before this one.
            return;
        }
        state.armed = 0;
        self.count(state, |state| state.expire(now.monotonic));
        if state.is_idle() {
            shard.channels.remove(channel);
            self.channels.fetch_sub(1, Ordering::Relaxed);
        } else {
            shard.arm(channel);
        }
    }
}

/// The tick that follows a time.
fn tick(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The only code that runs under the lock and isn't ours is a mailbox's push. If that panics the
    // worst is a delivery that one worker didn't get; refusing all service would be worse.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How exactly the wheel knows when something expires.
const TICK: Duration = Duration::from_secs(1);

/// Where fewer than one of so many channels rest, it is not looked for them again before the next tick.
const FEW: usize = 64;

/// How many channels a call of `maintain` looks at while it holds the lock of a shard.
const MOST_AT_ONCE: usize = 1000;

/// A power of two well above the number of cores, so that workers rarely meet.
const SHARDS: usize = 64;
