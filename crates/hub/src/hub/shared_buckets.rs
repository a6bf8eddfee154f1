//! Buckets that the hubs of a process share, by what they are for: users, channels.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;

use crate::rate::SharedBucket;

/// Buckets by name. They outlive who uses them until they are full again, so that nobody gets new ones by
/// coming anew.
#[derive(Debug)]
pub(super) struct SharedBuckets {
    shards: [Mutex<Shard>; SHARDS],
    /// How many names a shard may have.
    most: usize,
    /// Which of them is swept next.
    swept: AtomicUsize,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Shard {
    named: BucketsByName,
    /// With so many names it is looked which of them say nothing any more: twice those that were left the last time, so
    /// that it costs each new name the same.
    room: usize,
}

type BucketsByName = HashMap<Arc<str>, Arc<[SharedBucket]>, foldhash::fast::RandomState>;

impl SharedBuckets {
    /// None yet. There are about `most` at the most of those that aren't full.
    pub(super) fn new(most: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            most: most.div_ceil(SHARDS),
            swept: AtomicUsize::new(0),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// Those of a name, `count` of them; `None` if there is no room for more names.
    pub(super) fn get(
        &self,
        now: Duration,
        name: &Arc<str>,
        count: usize,
    ) -> Option<Arc<[SharedBucket]>> {
        self.look(now, name, || Arc::clone(name), count, Arc::clone)
    }

    /// What becomes of them, for who needs them only now. `shared` is the name as it is kept.
    pub(super) fn with<T>(
        &self,
        now: Duration,
        name: &str,
        shared: impl FnOnce() -> Arc<str>,
        count: usize,
        look: impl FnOnce(&[SharedBucket]) -> T,
    ) -> Option<T> {
        self.look(now, name, shared, count, |buckets| look(buckets))
    }

    fn look<T>(
        &self,
        now: Duration,
        name: &str,
        shared: impl FnOnce() -> Arc<str>,
        count: usize,
        look: impl FnOnce(&Arc<[SharedBucket]>) -> T,
    ) -> Option<T> {
        let shard = self.hasher.hash_one(name) as usize % SHARDS;
        let mut shard = self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(buckets) = shard.named.get(name) {
            return Some(look(buckets));
        }
        if shard.named.len() >= self.most.min(shard.room) {
            shard.sweep(now);
            if shard.named.len() >= self.most {
                return None;
            }
        }
        let new = std::iter::repeat_with(SharedBucket::default);
        let buckets = shard
            .named
            .entry(shared())
            .or_insert(new.take(count).collect());
        Some(look(buckets))
    }

    /// Forgets those that nobody holds and that are full, a part of them with each call.
    pub(super) fn sweep(&self, now: Duration) {
        let shard = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let shard = self.shards[shard].lock();
        shard.unwrap_or_else(PoisonError::into_inner).sweep(now);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().named.len()).sum()
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            named: BucketsByName::default(),
            room: LEAST_ROOM,
        }
    }
}

impl Shard {
    fn sweep(&mut self, now: Duration) {
        let named = &mut self.named;
        named.retain(|_, buckets| {
            Arc::strong_count(buckets) > 1 || !buckets.iter().all(|bucket| bucket.is_full(now))
        });
        if named.len() < named.capacity() / 4 {
            named.shrink_to_fit();
        }
        self.room = (2 * named.len()).max(LEAST_ROOM);
    }
}

/// How many names there may be before it is looked whether they still say something.
const LEAST_ROOM: usize = 32;

/// Enough for two connects at the same time hardly ever to meet.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    #[test]
    fn buckets_stay_until_they_are_full_again() {
        let (users, rate) = (SharedBuckets::new(usize::MAX), Rate::per_second(1));
        let at = Duration::from_secs;
        let buckets = users.get(at(10), &"42".into(), 1).unwrap();
        buckets[0].take(at(10), &rate).unwrap();
        let sweep = |now| {
            for _ in 0..SHARDS {
                users.sweep(now);
            }
        };
        sweep(at(20));
        assert_eq!(users.len(), 1, "somebody is connected");
        drop(buckets);
        sweep(at(10));
        assert_eq!(users.len(), 1, "a token is missing");
        let again = users.get(at(10), &"42".into(), 1).unwrap();
        assert!(again[0].take(at(10), &rate).is_err());
        drop(again);
        sweep(at(11));
        assert_eq!(users.len(), 0);
    }

    /// Who does something in one channel after the other leaves nothing in those that were.
    #[test]
    fn names_that_say_nothing_do_not_add_up() {
        let (channels, rate) = (SharedBuckets::new(100_000), Rate::per_second(1000));
        for number in 0..100_000_u64 {
            let (now, name) = (Duration::from_millis(number), number.to_string());
            let shared = || name.as_str().into();
            let take = |buckets: &[SharedBucket]| buckets[0].take(now, &rate);
            assert_eq!(channels.with(now, &name, shared, 1, take), Some(Ok(())));
            if number % 1000 == 0 {
                assert!(channels.len() <= LEAST_ROOM * SHARDS, "{}", channels.len());
            }
        }
    }

    #[test]
    fn names_are_bounded_and_those_that_say_nothing_give_way() {
        let (channels, rate) = (SharedBuckets::new(10 * SHARDS), Rate::per_second(1));
        let at = Duration::from_secs;
        let mut refused = 0;
        for number in 0..100 * SHARDS {
            let buckets = channels.get(at(10), &number.to_string().into(), 1);
            match buckets {
                Some(buckets) => buckets[0].take(at(10), &rate).unwrap(),
                None => refused += 1,
            }
        }
        assert_eq!(channels.len(), 10 * SHARDS);
        assert_eq!(refused, 90 * SHARDS);
        assert!(
            channels.get(at(10), &"0".into(), 1).is_some(),
            "who is there is there"
        );
        assert!(channels.get(at(20), &"new".into(), 1).is_some());
    }
}
