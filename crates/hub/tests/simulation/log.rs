//! What was published into a channel, as the checker knows it.

use std::time::Duration;

use tautline_hub::engine::HistoryOptions;

pub(crate) struct Log {
    pub(crate) has_history: bool,
    /// Readers that can't keep up may miss some, but never the newest.
    pub(crate) may_skip: bool,
    /// How many publishes were begun.
    pub(crate) started: usize,
    pub(crate) entries: Vec<Entry>,
    /// Numbers of which a client was told that they are published.
    pub(crate) acknowledged: Vec<u64>,
}

pub(crate) struct Entry {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) number: u64,
    time: Duration,
}

impl Log {
    pub(crate) fn new(has_history: bool, may_skip: bool) -> Self {
        Self {
            has_history,
            may_skip,
            started: 0,
            entries: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, epoch: &str, offset: u64, number: u64, time: Duration) {
        assert!(self.place(number).is_none(), "{number} was published twice");
        let before = self.entries.last().filter(|entry| entry.epoch == epoch);
        let expected = if self.has_history {
            before.map_or(1, |entry| entry.offset + 1)
        } else {
            0
        };
        assert_eq!(offset, expected, "offsets of a stream have no holes");
        self.entries.push(Entry {
            epoch: epoch.into(),
            offset,
            number,
            time,
        });
    }

    /// The number that was published at a position.
    pub(crate) fn at(&self, epoch: &str, offset: u64) -> Option<u64> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.epoch == epoch && entry.offset == offset);
        entry.map(|entry| entry.number)
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
        // All entries go when nothing was published for the time to live.
        let missed = self.entries.iter();
        let missed = missed.filter(|entry| entry.epoch == epoch && entry.offset > offset);
        let times: Vec<Duration> = missed.map(|entry| entry.time).chain([now]).collect();
        let is_fresh = times.windows(2).all(|pair| pair[1] < pair[0] + options.ttl);
        is_fresh && offset + options.size as u64 >= top
    }
}
