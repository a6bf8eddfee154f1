//! What was published into a channel, as the checker knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tautline_hub::engine::HistoryOptions;

use crate::payload::KNOWN;

pub(crate) struct Log {
    pub(crate) has_history: bool,
    /// Readers that can't keep up may miss some, but never the newest.
    pub(crate) may_skip: bool,
    /// Subscribers may know of some kinds only.
    is_filtered: bool,
    /// How many publishes were begun that must be there in the end.
    pub(crate) started: usize,
    pub(crate) entries: Vec<Entry>,
    /// Numbers of which a publisher was told that they are published.
    pub(crate) acknowledged: Vec<u64>,
    /// Numbers of which a publisher was told that it publishes too often.
    pub(crate) refused: Vec<u64>,
    /// Something was published that is no text.
    pub(crate) has_bytes: bool,
    /// By number: the version that it was published with.
    pub(crate) versions: BTreeMap<u64, u64>,
    /// Numbers of which the publisher was told that their version is old.
    pub(crate) stale: BTreeSet<u64>,
    /// Up to where the history was removed.
    removed: (String, u64),
    /// Removals of which it isn't known yet what they removed.
    pub(crate) removals: usize,
}

pub(crate) struct Entry {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) number: u64,
    pub(crate) kind: Option<String>,
    /// Nobody may know of it.
    is_hidden: bool,
    /// The connection which published it, where it isn't to get that.
    by: Option<String>,
    time: Duration,
}

impl Entry {
    /// Whether a subscriber with this filter gets it.
    pub(crate) fn passes(&self, filter: Option<&str>) -> bool {
        !self.is_hidden && filter.is_none_or(|filter| self.kind.as_deref() == Some(filter))
    }

    /// Whether this connection is not to get it, as it has published it.
    pub(crate) fn is_own(&self, client: &str) -> bool {
        self.by.as_deref() == Some(client)
    }
}

impl Log {
    pub(crate) fn new(has_history: bool, may_skip: bool, is_filtered: bool) -> Self {
        Self {
            has_history,
            may_skip,
            is_filtered,
            started: 0,
            entries: Vec::new(),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            has_bytes: false,
            versions: BTreeMap::new(),
            stale: BTreeSet::new(),
            removed: (String::new(), 0),
            removals: 0,
        }
    }

    pub(crate) fn append(
        &mut self,
        (epoch, offset): (&str, u64),
        number: u64,
        (kind, by): (Option<String>, Option<String>),
        time: Duration,
    ) {
        assert!(self.place(number).is_none(), "{number} was published twice");
        let before = self.entries.last().filter(|entry| entry.epoch == epoch);
        let expected = if self.has_history {
            before.map_or(1, |entry| entry.offset + 1)
        } else {
            0
        };
        assert_eq!(offset, expected, "offsets of a stream have no holes");
        if let Some(version) = self.versions.get(&number)
            && self.has_history
            && let Some(last) = self.last_version(epoch)
        {
            assert!(
                *version > last,
                "version {version} was published after {last}"
            );
        }
        self.entries.push(Entry {
            epoch: epoch.into(),
            offset,
            number,
            is_hidden: self.is_filtered
                && !kind.as_deref().is_some_and(|kind| KNOWN.contains(&kind)),
            kind,
            by,
            time,
        });
    }

    /// The version that a channel has.
    pub(crate) fn last_version(&self, epoch: &str) -> Option<u64> {
        let mut entries = self.entries.iter().rev();
        entries
            .by_ref()
            .take_while(|entry| entry.epoch == epoch)
            .find_map(|entry| self.versions.get(&entry.number).copied())
    }

    /// What is published so far is not kept any more.
    pub(crate) fn remove(&mut self) {
        let epoch = self.epoch().to_owned();
        let top = self.top(&epoch);
        self.removed = (epoch, top);
    }

    /// What was published at a position.
    pub(crate) fn at(&self, epoch: &str, offset: u64) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.epoch == epoch && entry.offset == offset)
    }

    /// Where a number stands in the log.
    pub(crate) fn place(&self, number: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.number == number)
    }

    /// The newest incarnation of the stream that something was published into.
    pub(crate) fn epoch(&self) -> &str {
        self.entries.last().map_or("", |entry| &entry.epoch)
    }

    /// Offset of the last publication of an epoch.
    pub(crate) fn top(&self, epoch: &str) -> u64 {
        let entries = self.entries.iter().filter(|entry| entry.epoch == epoch);
        entries.map(|entry| entry.offset).max().unwrap_or(0)
    }

    /// The offset that follows on a position for somebody who gets this.
    pub(crate) fn next(
        &self,
        epoch: &str,
        offset: u64,
        gets: impl Fn(&Entry) -> bool,
    ) -> Option<u64> {
        let mut entries = self.entries.iter();
        let next =
            entries.find(|entry| entry.epoch == epoch && entry.offset > offset && gets(entry));
        next.map(|entry| entry.offset)
    }

    /// What is kept of an epoch at a time.
    pub(crate) fn kept(&self, epoch: &str, options: &HistoryOptions, now: Duration) -> &[Entry] {
        let begin = self.entries.iter().position(|entry| entry.epoch == epoch);
        let Some(begin) = begin else {
            return &[];
        };
        let all = &self.entries[begin..];
        let count = all.iter().take_while(|entry| entry.epoch == epoch).count();
        let all = &all[..count];
        // All entries go when nothing was published for the time to live.
        let mut from = count.saturating_sub(options.size);
        for (place, pair) in all.windows(2).enumerate() {
            if pair[1].time >= pair[0].time + options.ttl {
                from = from.max(place + 1);
            }
        }
        if now >= all[count - 1].time + options.ttl {
            from = count;
        }
        if self.removed.0 == epoch {
            let removed = all
                .iter()
                .take_while(|entry| entry.offset <= self.removed.1);
            from = from.max(removed.count());
        }
        &all[from..]
    }

    /// Whether everything behind a position is still kept.
    pub(crate) fn keeps_all_behind(
        &self,
        offset: u64,
        epoch: &str,
        options: &HistoryOptions,
        now: Duration,
    ) -> bool {
        let top = self.top(epoch);
        if offset >= top {
            return offset == top;
        }
        let first = self.kept(epoch, options, now).first();
        first.is_some_and(|first| first.offset <= offset + 1)
    }
}
