//! One channel's state in the memory engine: who is fed, the stream, presence, idempotency keys.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::message::{ClientInfo, PresenceStatsResult, Publication, StreamPosition};

use crate::engine::{
    FeedId, HistoryOptions, HistoryPage, HistoryRead, Idempotency, Members, PresencePage,
    PresenceRead, Version, WorkerId, info_weight, weight,
};

/// How many idempotency keys a channel remembers; beyond, the oldest are forgotten before their
/// time.
pub const MAX_KEYS: usize = 100_000;

/// What is kept for one channel. Each part exists only where it is used.
#[derive(Default)]
pub(super) struct State {
    /// Workers attached, in no particular order. Few: at most one for each core.
    workers: Vec<(WorkerId, FeedId)>,
    stream: Option<Stream>,
    members: Option<Box<Presence>>,
    /// Users who were announced, and how many of each one's connections are there.
    company: Option<Box<HashMap<Arc<str>, u32, foldhash::fast::RandomState>>>,
    keys: Option<Box<Keys>>,
    /// The tick at which the engine looks after what has expired; 0 for never.
    pub(super) armed: u64,
}

impl State {
    /// Whether nothing is left that is worth keeping.
    pub(super) fn is_idle(&self) -> bool {
        self.workers.is_empty()
            && self.stream.is_none()
            && self.members.is_none()
            && self.company.is_none()
            && self.keys.is_none()
    }

    /// How a channel rests that nobody uses, and of which nothing is kept but its position.
    pub(super) fn rest(&self) -> Option<Rest> {
        let has_more = !self.workers.is_empty()
            || self.members.is_some()
            || self.company.is_some()
            || self.keys.is_some();
        let stream = self.stream.as_ref().filter(|_| !has_more)?;
        stream.entries.is_empty().then_some(Rest {
            was_used: stream.top > 0,
            forgotten_at: stream.forgotten_at,
        })
    }

    /// Drops what has expired.
    pub(super) fn expire(&mut self, now: Duration) {
        if let Some(stream) = &mut self.stream {
            if stream.is_forgotten(now) {
                self.stream = None;
            } else {
                stream.expire_entries(now);
            }
        }
        if let Some(keys) = &mut self.keys {
            keys.expire(now);
            if keys.is_empty() {
                self.keys = None;
            }
        }
    }

    /// When something expires next.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let stream = self.stream.as_ref().map(Stream::next_expiry);
        let keys = self.keys.as_ref().and_then(|keys| keys.next_expiry());
        [stream, keys].into_iter().flatten().min()
    }

    /// What the publications that are kept count for.
    pub(super) fn bytes(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.bytes)
    }

    pub(super) fn workers(&self) -> &[(WorkerId, FeedId)] {
        &self.workers
    }

    pub(super) fn attach(&mut self, worker: WorkerId, feed: FeedId) {
        self.workers.retain(|(other, _)| *other != worker);
        self.workers.push((worker, feed));
    }

    pub(super) fn detach(&mut self, worker: WorkerId) {
        self.workers.retain(|(other, _)| *other != worker);
        if self.workers.is_empty() {
            self.workers = Vec::new();
        }
    }

    /// The channel's stream as it is at `now`: a fresh one where there was none, or where the old
    /// one's position is forgotten.
    pub(super) fn stream(
        &mut self,
        now: Duration,
        options: HistoryOptions,
        fresh_epoch: impl FnOnce() -> Arc<str>,
    ) -> &mut Stream {
        if self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.is_forgotten(now))
        {
            self.stream = None;
        }
        let stream = self
            .stream
            .get_or_insert_with(|| Stream::new(fresh_epoch(), now, options));
        stream.expire_entries(now);
        stream
    }

    /// Drops the publications that are kept.
    pub(super) fn remove_entries(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.remove_entries();
        }
    }

    /// A connection of a user has come. Whether it is the first.
    pub(super) fn enter(&mut self, user: &Arc<str>) -> bool {
        let company = self.company.get_or_insert_default();
        let connections = company.entry_ref(user).or_insert(0);
        *connections += 1;
        *connections == 1
    }

    /// A connection of a user has gone. Whether it was the last.
    pub(super) fn exit(&mut self, user: &Arc<str>) -> bool {
        let Some(company) = &mut self.company else {
            return false;
        };
        let Some(connections) = company.get_mut(user) else {
            return false;
        };
        *connections -= 1;
        let is_last = *connections == 0;
        if is_last {
            company.remove(user);
        }
        if company.is_empty() {
            self.company = None;
        }
        is_last
    }

    pub(super) fn add_member(&mut self, info: &Arc<ClientInfo>) {
        self.members.get_or_insert_default().add(info);
    }

    pub(super) fn remove_member(&mut self, client: &str) {
        if let Some(members) = &mut self.members {
            members.remove(client);
            if members.clients.is_empty() {
                self.members = None;
            }
        }
    }

    pub(super) fn members(&self, request: &PresenceRead) -> PresencePage {
        let members = self.members.as_ref();
        members
            .map(|members| members.list(request))
            .unwrap_or_default()
    }

    pub(super) fn member_counts(&self) -> PresenceStatsResult {
        self.members
            .as_ref()
            .map(|members| members.counts())
            .unwrap_or_default()
    }

    /// Where the publication with this key went, if it is remembered.
    pub(super) fn known_key(&mut self, now: Duration, key: &str) -> Option<StreamPosition> {
        let keys = self.keys.as_mut()?;
        keys.expire(now);
        keys.positions.get(key).cloned()
    }

    /// Whether another had to be forgotten for it before its time.
    pub(super) fn remember_key(
        &mut self,
        now: Duration,
        idempotency: Idempotency,
        position: StreamPosition,
    ) -> bool {
        let keys = self.keys.get_or_insert_default();
        keys.remember(now, idempotency, position)
    }
}

/// A channel at rest; those that can be forgotten most easily come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rest {
    /// Whether anything was ever published into it.
    pub(super) was_used: bool,
    /// The later, the later it was used; where all have the same time to live.
    forgotten_at: Duration,
}

/// The publications that a channel keeps, and its position.
pub(super) struct Stream {
    epoch: Arc<str>,
    /// Offset of the last publication; 0 before the first.
    top: u64,
    /// The newest publications, oldest first, without holes: the last one has offset `top`.
    entries: VecDeque<Arc<Publication>>,
    /// What the entries count for.
    bytes: usize,
    /// That of the last publication which had one.
    version: Option<Box<Version>>,
    entries_expire_at: Duration,
    forgotten_at: Duration,
}

impl Stream {
    fn new(epoch: Arc<str>, now: Duration, options: HistoryOptions) -> Self {
        let mut stream = Self {
            epoch,
            top: 0,
            entries: VecDeque::new(),
            bytes: 0,
            version: None,
            entries_expire_at: now,
            forgotten_at: now,
        };
        stream.touch(now, options);
        stream
    }

    pub(super) fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    pub(super) fn top(&self) -> u64 {
        self.top
    }

    pub(super) fn position(&self) -> StreamPosition {
        StreamPosition {
            offset: self.top,
            epoch: self.epoch.clone(),
        }
    }

    /// Whether there is no use for a publication of this version.
    pub(super) fn is_stale(&self, version: &Version) -> bool {
        let known = self.version.as_ref();
        known.is_some_and(|known| known.covers(version))
    }

    pub(super) fn set_version(&mut self, version: Version) {
        match &mut self.version {
            Some(known) => **known = version,
            None => self.version = Some(Box::new(version)),
        }
    }

    /// Notes that the position was used, which prolongs its life.
    pub(super) fn touch(&mut self, now: Duration, options: HistoryOptions) {
        // Reading alone must not let strangers fill the engine with streams for a month.
        let life = if self.top == 0 {
            options.meta_ttl.min(UNUSED_STREAM)
        } else {
            options.meta_ttl
        };
        self.forgotten_at = self.forgotten_at.max(now.saturating_add(life));
    }

    /// Appends the publication, whose offset must be the one behind [`top`](Self::top).
    pub(super) fn append(
        &mut self,
        now: Duration,
        publication: Arc<Publication>,
        options: HistoryOptions,
    ) {
        debug_assert_eq!(publication.offset, self.top + 1);
        self.top = publication.offset;
        self.bytes += kept_weight(&publication);
        self.entries.push_back(publication);
        while self.entries.len() > options.size {
            let oldest = self.entries.pop_front();
            self.bytes -= oldest.as_deref().map_or(0, kept_weight);
        }
        self.entries_expire_at = now.saturating_add(options.ttl);
        self.touch(now, options);
    }

    /// By how much the stream would grow with a publication.
    pub(super) fn growth(&self, publication: &Publication, options: HistoryOptions) -> usize {
        let oldest = self.entries.front();
        let oldest = oldest.filter(|_| self.entries.len() >= options.size);
        kept_weight(publication).saturating_sub(oldest.map_or(0, |oldest| kept_weight(oldest)))
    }

    fn next_expiry(&self) -> Duration {
        if self.entries.is_empty() {
            self.forgotten_at
        } else {
            self.entries_expire_at.min(self.forgotten_at)
        }
    }

    pub(super) fn read(&self, request: &HistoryRead) -> HistoryPage {
        let top = self.position();
        // Offset of the first entry; what a reader has up to `first - 1` is followed by the rest.
        let first = self.top + 1 - self.entries.len() as u64;
        if request.reverse {
            let end = match request.since {
                None => self.entries.len(),
                // `since - 1` must be kept, or there is nothing right before.
                Some(since) if (first + 1..=self.top + 1).contains(&since) => {
                    (since - first) as usize
                }
                Some(_) => 0,
            };
            let publications = collect(self.entries.range(..end).rev(), request);
            return HistoryPage {
                top,
                publications,
                follows: false,
            };
        }
        let start = match request.since {
            None => 0,
            Some(since) => {
                (since.saturating_add(1).saturating_sub(first) as usize).min(self.entries.len())
            }
        };
        let follows = request
            .since
            .is_some_and(|since| (first - 1..=self.top).contains(&since));
        let publications = collect(self.entries.range(start..), request);
        HistoryPage {
            top,
            publications,
            follows,
        }
    }

    fn expire_entries(&mut self, now: Duration) {
        if now >= self.entries_expire_at {
            self.remove_entries();
        }
    }

    fn remove_entries(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        now >= self.forgotten_at
    }
}

/// As many of the entries as a request allows.
fn collect<'a>(
    entries: impl Iterator<Item = &'a Arc<Publication>>,
    request: &HistoryRead,
) -> Vec<Arc<Publication>> {
    let mut left = request.max_bytes.unwrap_or(usize::MAX);
    entries
        .take(request.limit.unwrap_or(usize::MAX))
        .enumerate()
        .take_while(|(index, publication)| {
            let weight = weight(publication);
            let fits = *index == 0 || weight <= left;
            left = left.saturating_sub(weight);
            fits
        })
        .map(|(_, publication)| publication.clone())
        .collect()
}

/// What a publication that is kept counts for: what it holds, itself, and its place in the stream.
fn kept_weight(publication: &Publication) -> usize {
    weight(publication) + size_of::<Publication>() + size_of::<Arc<Publication>>()
}

/// How long a stream is kept into which nothing was ever published. A client that comes back later
/// is told that it can't recover, which is harmless: it starts at the top like a new one.
const UNUSED_STREAM: Duration = Duration::from_secs(3600);

/// Who is in a channel.
#[derive(Default)]
struct Presence {
    clients: Members,
    /// How many connections each user has, so that counting users costs nothing.
    users: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
}

impl Presence {
    fn add(&mut self, info: &Arc<ClientInfo>) {
        self.remove(&info.client);
        self.clients.insert(info.client.clone(), info.clone());
        *self.users.entry_ref(&info.user).or_insert(0) += 1;
    }

    fn remove(&mut self, client: &str) {
        let Some(info) = self.clients.remove(client) else {
            return;
        };
        if let Some(connections) = self.users.get_mut(&info.user) {
            *connections -= 1;
            if *connections == 0 {
                self.users.remove(&info.user);
            }
        }
    }

    fn list(&self, request: &PresenceRead) -> PresencePage {
        let after = request.after.as_ref();
        let behind = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let behind = self.clients.range::<Arc<str>, _>(behind);
        let before = after.filter(|_| request.wrap);
        let before = before.map(|after| self.clients.range::<Arc<str>, _>(..=after));
        let mut rest = behind.chain(before.into_iter().flatten()).peekable();
        let mut members = Members::new();
        let mut last = None;
        let mut bytes = 0;
        while let Some((client, info)) = rest.peek() {
            bytes += info_weight(info);
            let fits = members.is_empty() || bytes <= request.max_bytes;
            if !fits || members.len() >= request.limit {
                break;
            }
            last = Some((*client).clone());
            members.insert((*client).clone(), (*info).clone());
            rest.next();
        }
        PresencePage {
            members,
            stats: self.counts(),
            next: last.filter(|_| rest.peek().is_some()),
        }
    }

    fn counts(&self) -> PresenceStatsResult {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        PresenceStatsResult {
            num_clients: count(self.clients.len()),
            num_users: count(self.users.len()),
        }
    }
}

/// Idempotency keys and what became of their publications.
#[derive(Default)]
struct Keys {
    positions: HashMap<Arc<str>, StreamPosition, foldhash::fast::RandomState>,
    /// When each key is forgotten. In order, as long as all come with the same time to live; where
    /// they don't, some stay a little longer.
    expiry: VecDeque<(Duration, Arc<str>)>,
}

impl Keys {
    /// Whether another had to go for it.
    fn remember(
        &mut self,
        now: Duration,
        idempotency: Idempotency,
        position: StreamPosition,
    ) -> bool {
        let Idempotency { key, ttl } = idempotency;
        let is_full = self.expiry.len() >= MAX_KEYS;
        if is_full {
            self.forget_oldest();
        }
        self.expiry
            .push_back((now.saturating_add(ttl), key.clone()));
        self.positions.insert(key, position);
        is_full
    }

    fn expire(&mut self, now: Duration) {
        while self.expiry.front().is_some_and(|(at, _)| now >= *at) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.expiry.pop_front() {
            self.positions.remove(&key);
        }
    }

    fn next_expiry(&self) -> Option<Duration> {
        self.expiry.front().map(|(at, _)| *at)
    }

    fn is_empty(&self) -> bool {
        self.expiry.is_empty()
    }
}
