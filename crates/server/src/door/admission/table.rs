//! What is known of each address that clients come from: one table for all workers.
//!
//! An IPv6 address is known by its first 64 bits, as a household or a machine has all of the others. Entries go when
//! nothing is open from there and the rates are as good as new: each new address looks at two that were there
//! before. When the table is full, an entry with nothing open has to go for each new one, the older the sooner, and its
//! rates begin anew. Entries with something open stay; they are no more than there are connections.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tautline_hub::rate::Bucket;

/// An address as far as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    V4(u32),
    V6(u64),
    /// A user, of whom it is known who it is, by a hash with the table's own key.
    User(u64),
}

impl Key {
    /// The address, or the first of those that are taken together. A user has none.
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some(IpAddr::V4(address.into())),
            Self::V6(prefix) => Some(IpAddr::V6((u128::from(prefix) << 64).into())),
            Self::User(_) => None,
        }
    }
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6((u128::from(address) >> 64) as u64),
        }
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) connections: usize,
    /// Of these, those that have not said yet what they want.
    pub(super) handshakes: usize,
    pub(super) connects: Bucket,
    pub(super) requests: Bucket,
    /// Emptied by failed authentications.
    pub(super) failures: Bucket,
    /// Until then it is an address of the application's backend: a key that came from there was right.
    pub(super) backend_until: Duration,
}

impl Entry {
    fn is_in_use(&self) -> bool {
        self.connections > 0
    }

    fn is_as_new(&self, now: Duration) -> bool {
        let buckets = [&self.connects, &self.requests, &self.failures];
        !self.is_in_use()
            && buckets.iter().all(|bucket| bucket.is_full(now))
            && self.backend_until <= now
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Entry>,
    /// Each key once, the oldest first.
    ages: VecDeque<Key>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Does something with an entry, which is made if it isn't there. `capacity` is how many there may be of
    /// those that have nothing open.
    pub(super) fn with<T>(
        &self,
        key: Key,
        now: Duration,
        capacity: usize,
        work: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        let mut shard = self.shard(key);
        if !shard.entries.contains_key(&key) {
            shard.make_room(now, capacity.div_ceil(SHARDS).max(1));
            shard.entries.insert(key, Entry::default());
            shard.ages.push_back(key);
        }
        work(shard.entries.entry(key).or_default())
    }

    /// The same where nothing is to be made; `None` where there is nothing.
    pub(super) fn with_known<T>(&self, key: Key, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.shard(key).entries.get_mut(&key).map(work)
    }

    /// What a user is known by.
    pub(super) fn user(&self, user: &str) -> Key {
        Key::User(self.hasher.hash_one(user))
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).entries.len()).sum()
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key) as usize;
        lock(&self.shards[hash % SHARDS])
    }
}

impl Shard {
    fn make_room(&mut self, now: Duration, capacity: usize) {
        let mut looked = 0;
        let mut passed_over = 0;
        while looked < LOOKS && (looked < AGING || self.entries.len() >= capacity) {
            looked += 1;
            let Some(key) = self.ages.pop_front() else {
                return;
            };
            let Some(entry) = self.entries.get(&key) else {
                continue;
            };
            // One of the first that are busy with nothing open may stay, for a while.
            let is_full = self.entries.len() >= capacity;
            let may_go =
                entry.is_as_new(now) || (is_full && !entry.is_in_use() && passed_over >= PATIENCE);
            if may_go {
                self.entries.remove(&key);
            } else {
                passed_over += usize::from(!entry.is_in_use());
                self.ages.push_back(key);
            }
        }
    }
}

// What is counted is whole after each step, so a panic elsewhere leaves nothing half done.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 16;
/// How many entries a new one looks at in any case.
const AGING: usize = 2;
/// And how many at the most.
const LOOKS: usize = 16;
/// How many with nothing open may stay because they were busy.
const PATIENCE: usize = 4;

#[cfg(test)]
mod tests {
    use tautline_hub::rate::Rate;

    use super::*;

    #[test]
    fn ipv6_counts_by_its_first_half() {
        let key = |text: &str| Key::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8:0:0:ffff::"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn a_flood_of_addresses_finds_a_table_that_does_not_grow() {
        let table = Table::new();
        let rate = Rate::per_second(1);
        let now = Duration::from_secs(10);
        // Some have connections, and must not be forgotten.
        for key in 0..500 {
            table.with(Key::V4(key), now, 1600, |entry| entry.connections = 1);
        }
        let most = 500 + 1600 + SHARDS * LOOKS;
        for key in 0..200_000 {
            table.with(Key::V6(key), now, 1600, |entry| {
                let _ = entry.connects.take(now, &rate);
            });
            assert!(table.len() <= most || key % 1000 > 0, "{}", table.len());
        }
        for key in 0..500 {
            table.with_known(Key::V4(key), |entry| {
                assert_eq!(entry.connections, 1);
                entry.connections = 0;
            });
        }
        // What nobody comes from any more goes as others come.
        let later = Duration::from_secs(20);
        for key in 0..20_000 {
            table.with(Key::V6(1 << 40 | key), later, 100_000, |_| ());
        }
        assert!(table.len() < 1000, "{}", table.len());
    }

    #[test]
    fn who_is_busy_is_remembered_while_there_is_room() {
        let table = Table::new();
        let (rate, now) = (Rate::new(1, Duration::from_secs(60)), Duration::ZERO);
        let take =
            |key, now| table.with(key, now, 100_000, |entry| entry.connects.take(now, &rate));
        assert!(take(Key::V4(1), now).is_ok());
        for key in 0..10_000 {
            let _ = take(Key::V6(key), now);
        }
        assert!(take(Key::V4(1), Duration::from_secs(59)).is_err());
        assert!(take(Key::V4(1), Duration::from_secs(60)).is_ok());
    }
}
