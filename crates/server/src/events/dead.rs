//! Events that the backend would not have: kept for people, who may send them again.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::journal::{self, Journal};

/// A dead letter: an event that the application's backend would not have, or did not take in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEvent {
    /// Unix time in milliseconds at which it was given up.
    pub failed: u64,
    /// Why.
    pub error: String,
    pub(crate) event: Event,
}

impl DeadEvent {
    /// The event's id.
    pub fn id(&self) -> &str {
        &self.event.id
    }

    /// The event as it was posted.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.event).unwrap_or_default()
    }
}

/// The list of them, in memory and in a file.
pub(super) struct Dead {
    path: PathBuf,
    most: usize,
    letters: VecDeque<DeadEvent>,
    journal: Journal,
    /// Records in the file.
    written: usize,
    dropped: u64,
}

impl Dead {
    /// Opens the list of a directory.
    pub(super) fn open(directory: &Path, most: usize) -> io::Result<Self> {
        let path = directory.join("dead.log");
        let (mut letters, mut known, mut written) = (VecDeque::new(), HashSet::new(), 0);
        let (journal, _) = Journal::open(&path, |record| {
            written += 1;
            if let Ok(letter) = serde_json::from_slice::<DeadEvent>(record)
                // A process that ended at the wrong moment writes it again.
                && known.insert(letter.event.id.clone())
            {
                letters.push_back(letter);
            }
        })?;
        let mut dead = Self {
            path,
            most,
            letters,
            journal,
            written,
            dropped: 0,
        };
        dead.shrink()?;
        Ok(dead)
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// How many of the oldest had to go because there were too many.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The oldest of them, `most` at the most.
    pub(super) fn list(&self, most: usize) -> Vec<DeadEvent> {
        self.letters.iter().take(most).cloned().collect()
    }

    /// Adds one.
    pub(super) fn add(&mut self, letter: DeadEvent) -> io::Result<()> {
        let record = serde_json::to_vec(&letter)?;
        let mut bytes = Vec::new();
        journal::encode(&record, &mut bytes);
        self.journal.append(&bytes)?;
        self.written += 1;
        self.letters.push_back(letter);
        self.shrink()
    }

    /// Those of these ids, or all.
    pub(super) fn find(&self, ids: &[String]) -> Vec<Event> {
        let letters = self.letters.iter();
        let letters = letters.filter(|letter| ids.is_empty() || ids.contains(&letter.event.id));
        letters.map(|letter| letter.event.clone()).collect()
    }

    /// Takes those of these ids out, or all. Returns how many that were.
    pub(super) fn remove(&mut self, ids: &[String]) -> io::Result<usize> {
        let before = self.letters.len();
        self.letters
            .retain(|letter| !ids.is_empty() && !ids.contains(&letter.event.id));
        self.rewrite()?;
        Ok(before - self.letters.len())
    }

    fn shrink(&mut self) -> io::Result<()> {
        while self.letters.len() > self.most {
            self.letters.pop_front();
            self.dropped += 1;
        }
        if self.written > 2 * self.most.max(64) {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for letter in &self.letters {
            journal::encode(&serde_json::to_vec(letter)?, &mut bytes);
        }
        journal::replace(&self.path, &bytes)?;
        (self.journal, _) = Journal::open(&self.path, |_| ())?;
        self.written = self.letters.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Kind;
    use crate::events::scratch::Scratch;

    fn letter(id: u64) -> DeadEvent {
        let mut event = Event::new(Kind::CacheMiss, id, "channel:a".into());
        event.id = id.to_string();
        DeadEvent {
            failed: id,
            error: "the status 400".into(),
            event,
        }
    }

    fn ids(dead: &Dead) -> Vec<u64> {
        let letters = dead.list(usize::MAX);
        let ids = letters.iter().map(|letter| letter.id().parse());
        ids.map(|id| id.expect("a number")).collect()
    }

    #[test]
    fn the_list_is_bounded_survives_and_can_be_taken_from() {
        let scratch = Scratch::new("dead");
        let mut dead = Dead::open(scratch.path(), 3).expect("it opens");
        for id in 1..=200 {
            dead.add(letter(id)).expect("it can be written");
        }
        assert_eq!((ids(&dead), dead.dropped()), (vec![198, 199, 200], 197));
        // Once more, as after a crash.
        dead.add(letter(200)).expect("it can be written");
        let mut dead = Dead::open(scratch.path(), 3).expect("it opens");
        assert_eq!(ids(&dead), [198, 199, 200]);
        let found = dead.find(&["199".into(), "7".into()]);
        assert_eq!(found.len(), 1);
        assert_eq!(dead.remove(&["199".into()]).expect("it can be written"), 1);
        let mut dead = Dead::open(scratch.path(), 3).expect("it opens");
        assert_eq!(ids(&dead), [198, 200]);
        assert_eq!(dead.find(&[]).len(), 2);
        assert_eq!(dead.remove(&[]).expect("it can be written"), 2);
        assert_eq!(Dead::open(scratch.path(), 3).expect("it opens").len(), 0);
    }
}
