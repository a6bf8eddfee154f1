//! How many there are of something, by name, over all hubs of a process: connections of each user, subscriptions to each
//! channel.
//!
//! On for everybody, so it costs those who are counted nothing: what is here is 17 bytes for each name, in tables of which
//! up to half is empty, and nothing for each connection or subscription. Coming and going takes a lock that two at a time
//! hardly ever want.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// Numbers by name. They outlive a configuration.
pub(crate) struct Counts {
    shards: [Mutex<HashTable<Entry>>; SHARDS],
    /// Names go by what this makes of them: with keys that nobody knows, two of a billion names have one number in common
    /// once in forty times, and those would only be counted together.
    hasher: RandomState,
}

struct Entry {
    name: u64,
    /// Those for which there is a limit.
    limited: u32,
    /// Those for which there is none.
    others: u32,
}

/// One that is counted, and isn't any more when this is dropped, unless it is [kept](Self::keep).
pub(crate) struct Place {
    counts: Option<Arc<Counts>>,
    name: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Counts {
    /// One more of a name that may have so many, 0 for any number; and whether it is one too many, which it may be in a dry
    /// run. Others don't count for that.
    ///
    /// # Errors
    ///
    /// If there are as many as there may be.
    pub(crate) fn take(
        self: &Arc<Self>,
        name: &str,
        most: usize,
        dry_run: bool,
    ) -> Result<(Place, bool), Full> {
        let name = self.number_of(name);
        let mut entries = self.shard(name);
        let found = entries.find(name, |entry| entry.name == name);
        let count = found.map_or(0, |entry| entry.limited);
        let is_over = most > 0 && count as usize >= most;
        if (is_over && !dry_run) || count == u32::MAX {
            return Err(Full);
        }
        entry(&mut entries, name).limited += 1;
        let place = Place {
            counts: Some(Arc::clone(self)),
            name,
        };
        Ok((place, is_over))
    }

    /// One that was taken and kept is there no more.
    pub(crate) fn leave(&self, name: &str) {
        self.reduce(self.number_of(name), |entry| &mut entry.limited);
    }

    /// One more for which there is no limit.
    pub(crate) fn take_other(&self, name: &str) {
        let name = self.number_of(name);
        let mut entries = self.shard(name);
        let others = &mut entry(&mut entries, name).others;
        *others = others.saturating_add(1);
    }

    /// Such a one is there no more.
    pub(crate) fn leave_other(&self, name: &str) {
        self.reduce(self.number_of(name), |entry| &mut entry.others);
    }

    /// All of a name.
    pub(crate) fn all(&self, name: &str) -> u64 {
        let name = self.number_of(name);
        let entries = self.shard(name);
        let found = entries.find(name, |entry| entry.name == name);
        found.map_or(0, |entry| {
            u64::from(entry.limited) + u64::from(entry.others)
        })
    }

    fn reduce(&self, name: u64, of: impl FnOnce(&mut Entry) -> &mut u32) {
        let mut entries = self.shard(name);
        let Ok(mut found) = entries.find_entry(name, |entry| entry.name == name) else {
            return;
        };
        let count = of(found.get_mut());
        *count = count.saturating_sub(1);
        if found.get().limited == 0 && found.get().others == 0 {
            found.remove();
            if entries.len() < entries.capacity() / 4 {
                entries.shrink_to_fit(hash_of);
            }
        }
    }

    fn number_of(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    fn shard(&self, name: u64) -> MutexGuard<'_, HashTable<Entry>> {
        // The table takes its bits from both ends.
        let shard = (name >> 32) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It is counted until somebody says [otherwise](Counts::leave).
    pub(crate) fn keep(mut self) {
        self.counts = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(counts) = self.counts.take() {
            counts.reduce(self.name, |entry| &mut entry.limited);
        }
    }
}

/// There are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

fn entry(entries: &mut HashTable<Entry>, name: u64) -> &mut Entry {
    let new = || Entry {
        name,
        limited: 0,
        others: 0,
    };
    let found = entries.entry(name, |entry| entry.name == name, hash_of);
    found.or_insert_with(new).into_mut()
}

fn hash_of(entry: &Entry) -> u64 {
    entry.name
}

/// Enough for two connects at the same time hardly ever to meet.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(counts: &Counts) -> usize {
        let shards = counts.shards.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn places_are_free_again_when_those_go_who_had_them() {
        let counts = Arc::<Counts>::default();
        let take = |name| counts.take(name, 2, false);
        let (one, is_over) = take("a").unwrap();
        assert!(!is_over);
        let other = take("a").unwrap().0;
        assert_eq!(take("a").err(), Some(Full));
        assert!(take("b").is_ok(), "another name, and given back at once");
        let (tried, is_over) = counts.take("a", 2, true).unwrap();
        assert!(is_over);
        let any = counts.take("a", 0, false).unwrap();
        assert!(!any.1);
        drop((one, tried, any));
        let kept = take("a").unwrap().0;
        kept.keep();
        assert_eq!(take("a").err(), Some(Full), "it counts still");
        drop(other);
        counts.leave("a");
        assert_eq!(names(&counts), 0);
        counts.leave("a");
        assert_eq!(names(&counts), 0, "there was none");
    }

    #[test]
    fn others_count_for_the_sum_only() {
        let counts = Arc::<Counts>::default();
        for _ in 0..3 {
            counts.take_other("a");
        }
        let place = counts.take("a", 1, false).unwrap().0;
        assert_eq!((counts.all("a"), counts.all("b")), (4, 0));
        drop(place);
        for _ in 0..3 {
            counts.leave_other("a");
        }
        assert_eq!((counts.all("a"), names(&counts)), (0, 0));
    }

    #[test]
    fn many_names_are_told_apart_and_leave_nothing() {
        let counts = Arc::<Counts>::default();
        let all = || (0..10_000).map(|number| number.to_string());
        for name in all() {
            counts.take(&name, 1, false).unwrap().0.keep();
        }
        assert_eq!(names(&counts), 10_000);
        for name in all() {
            assert!(counts.take(&name, 1, false).is_err(), "{name}");
            counts.leave(&name);
        }
        assert_eq!(names(&counts), 0);
        let room: usize = counts
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().capacity())
            .sum();
        assert!(room < 1000, "{room}");
    }
}
