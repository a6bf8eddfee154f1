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
    /// The event.
    pub event: Event,
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

/// Which of the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadEvents {
    /// All there are.
    All,
    /// Those with these ids: of none, where there are none.
    These(HashSet<String>),
}

impl DeadEvents {
    /// Those with these ids ([`DeadEvent::id`]). No ids are no letters.
    pub fn these<T: Into<String>>(ids: impl IntoIterator<Item = T>) -> Self {
        Self::These(ids.into_iter().map(Into::into).collect())
    }

    fn has(&self, letter: &DeadEvent) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(letter.id()),
        }
    }
}

/// Some of the dead letters, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    pub(crate) events: Vec<DeadEvent>,
    /// How many there are in all.
    pub(crate) total: u64,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<u64>,
}

/// The list of them, in memory and in a file.
pub(super) struct Dead {
    path: PathBuf,
    most: usize,
    /// With their numbers, which grow for as long as the process lasts.
    letters: VecDeque<(u64, DeadEvent)>,
    next: u64,
    journal: Journal,
    /// Records in the file.
    written: usize,
    /// The file has letters that are gone, and there was no room to write another one.
    is_stale: bool,
    dropped: u64,
}

impl Dead {
    /// Opens the list of a directory.
    pub(super) fn open(directory: &Path, most: usize) -> io::Result<Self> {
        let path = directory.join("dead.log");
        let (mut letters, mut known) = (VecDeque::new(), HashSet::new());
        let (mut written, mut next) = (0, 0);
        let (journal, _) = Journal::open(&path, |record| {
            written += 1;
            if let Ok(letter) = serde_json::from_slice::<DeadEvent>(record)
                // A process that ended at the wrong moment writes it again.
                && known.insert(letter.event.id.clone())
            {
                letters.push_back((next, letter));
                next += 1;
            }
        })?;
        let mut dead = Self {
            path,
            most,
            letters,
            next,
            journal,
            written,
            is_stale: false,
            dropped: 0,
        };
        dead.shrink();
        Ok(dead)
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// How many of the oldest had to go because there were too many.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// That many may be there from now on; the oldest of those that are too many go.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
        self.shrink();
    }

    /// Some of them, from a number on: `most` at the most.
    pub(super) fn page(&self, which: &DeadEvents, from: u64, most: usize) -> DeadPage {
        let start = self.letters.partition_point(|(number, _)| *number < from);
        let letters = self.letters.range(start..);
        let mut found = letters.filter(|(_, letter)| which.has(letter));
        let events = found.by_ref().take(most);
        DeadPage {
            events: events.map(|(_, letter)| letter.clone()).collect(),
            total: self.letters.len() as u64,
            next: found.next().map(|(number, _)| *number),
        }
    }

    /// Adds some: all of them, or none. Those which are there already stay as they are.
    pub(super) fn add(&mut self, mut letters: Vec<DeadEvent>) -> io::Result<()> {
        let mut new: HashSet<String> = letters.iter().map(|one| one.event.id.clone()).collect();
        for (_, known) in &self.letters {
            new.remove(known.id());
        }
        letters.retain(|letter| new.remove(letter.id()));
        let mut bytes = Vec::new();
        for letter in &letters {
            journal::encode(&serde_json::to_vec(letter)?, &mut bytes);
        }
        self.journal.append(&bytes)?;
        self.written += letters.len();
        for letter in letters {
            self.letters.push_back((self.next, letter));
            self.next += 1;
        }
        self.shrink();
        Ok(())
    }

    /// Those events themselves.
    pub(super) fn find(&self, which: &DeadEvents) -> Vec<Event> {
        let letters = self.letters.iter().map(|(_, letter)| letter);
        let letters = letters.filter(|letter| which.has(letter));
        letters.map(|letter| letter.event.clone()).collect()
    }

    /// Takes letters out for good, and returns how many that were. If the disk has no room for what is left, all stay.
    pub(super) fn remove(&mut self, which: &DeadEvents) -> io::Result<usize> {
        let (gone, left) = self.split(which);
        if gone > 0 {
            self.rewrite(&left)?;
        }
        self.letters = left;
        Ok(gone)
    }

    /// Takes letters out of the list, and as soon as there is room for that out of the file, too. Returns how many that
    /// were.
    pub(super) fn forget(&mut self, which: &DeadEvents) -> usize {
        let (gone, left) = self.split(which);
        self.letters = left;
        self.is_stale |= gone > 0;
        self.tidy();
        gone
    }

    /// Whether the file is still to be written anew.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Writes the file anew if it has letters that are gone, and the disk has room.
    pub(super) fn tidy(&mut self) {
        if !self.is_stale {
            return;
        }
        let letters = std::mem::take(&mut self.letters);
        if let Err(error) = self.rewrite(&letters) {
            tracing::debug!(%error, "the list of dead letters can't be written anew");
        }
        self.letters = letters;
    }

    fn split(&self, which: &DeadEvents) -> (usize, Letters) {
        let left = self.letters.iter();
        let left: Letters = left.filter(|(_, one)| !which.has(one)).cloned().collect();
        (self.letters.len() - left.len(), left)
    }

    fn shrink(&mut self) {
        while self.letters.len() > self.most {
            self.letters.pop_front();
            self.dropped += 1;
        }
        self.is_stale |= self.written > 2 * self.most.max(64);
        self.tidy();
    }

    fn rewrite(&mut self, letters: &Letters) -> io::Result<()> {
        if letters.is_empty() {
            // On a disk that is full, that is all that can be done.
            self.journal.clear()?;
        } else {
            let mut bytes = Vec::new();
            for (_, letter) in letters {
                journal::encode(&serde_json::to_vec(letter)?, &mut bytes);
            }
            self.journal = journal::replace(&self.path, &bytes)?;
            journal::note_name(&self.path);
        }
        self.written = letters.len();
        self.is_stale = false;
        Ok(())
    }
}

type Letters = VecDeque<(u64, DeadEvent)>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::disk;
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

    fn open(scratch: &Scratch, most: usize) -> Dead {
        Dead::open(scratch.path(), most).expect("it opens")
    }

    fn numbers(events: &[DeadEvent]) -> Vec<u64> {
        let ids = events.iter().map(|letter| letter.id().parse());
        ids.map(|id| id.expect("a number")).collect()
    }

    fn ids(dead: &Dead) -> Vec<u64> {
        numbers(&dead.page(&DeadEvents::All, 0, usize::MAX).events)
    }

    fn those(ids: &[u64]) -> DeadEvents {
        DeadEvents::these(ids.iter().map(u64::to_string))
    }

    #[test]
    fn the_list_is_bounded_survives_and_can_be_taken_from() {
        let scratch = Scratch::new("dead");
        let mut dead = open(&scratch, 3);
        for id in 1..=200 {
            dead.add(vec![letter(id)]).expect("it can be written");
        }
        assert_eq!((ids(&dead), dead.dropped()), (vec![198, 199, 200], 197));
        // Once more, as after a crash.
        dead.add(vec![letter(200)]).expect("it can be written");
        assert_eq!(ids(&dead), [198, 199, 200]);
        let mut dead = open(&scratch, 3);
        assert_eq!(ids(&dead), [198, 199, 200]);
        let found = dead.find(&those(&[199, 7]));
        assert_eq!(found.len(), 1);
        assert_eq!(dead.remove(&those(&[199])).expect("it can be written"), 1);
        let mut dead = open(&scratch, 3);
        assert_eq!(ids(&dead), [198, 200]);
        assert_eq!(dead.find(&DeadEvents::All).len(), 2);
        assert_eq!(dead.remove(&DeadEvents::All).expect("it can be written"), 2);
        assert_eq!(open(&scratch, 3).len(), 0);
    }

    #[test]
    fn pages_go_on_where_they_ended_whatever_was_taken_meanwhile() {
        let scratch = Scratch::new("dead-pages");
        let mut dead = open(&scratch, 100);
        dead.add((1..=7).map(letter).collect())
            .expect("it can be written");
        let page = dead.page(&DeadEvents::All, 0, 3);
        assert_eq!((numbers(&page.events), page.total), (vec![1, 2, 3], 7));
        // All of the page, and the first of the next one.
        assert_eq!(dead.forget(&those(&[1, 2, 3, 4])), 4);
        let page = dead.page(&DeadEvents::All, page.next.expect("there are more"), 3);
        assert_eq!((numbers(&page.events), page.total), (vec![5, 6, 7], 3));
        assert_eq!(page.next, None);
        let page = dead.page(&those(&[7, 6, 1]), 0, 1);
        assert_eq!(
            (numbers(&page.events), page.next.is_some()),
            (vec![6], true)
        );
        assert_eq!(ids(&open(&scratch, 100)), [5, 6, 7]);
    }

    /// Whatever room there is: what was said to be kept is kept, and what was said to be gone is gone.
    #[test]
    fn a_full_disk_takes_nothing_and_gives_nothing_back() {
        for room in 0..900 {
            let scratch = Scratch::new("dead-full");
            disk::set_room(usize::MAX);
            let mut dead = open(&scratch, 5);
            dead.add((1..=3).map(letter).collect())
                .expect("it can be written");
            disk::set_room(room);
            let mut expected = vec![1, 2, 3];
            if dead.add(vec![letter(4), letter(5)]).is_ok() {
                expected.extend([4, 5]);
            }
            assert_eq!(ids(&dead), expected, "{room}");
            if dead.remove(&those(&[2])).is_ok() {
                expected.retain(|id| *id != 2);
            }
            assert_eq!(ids(&dead), expected, "{room}");
            assert_eq!(ids(&open(&scratch, 5)), expected, "{room}");
            // What is sent again is gone at once; from the file when there is room.
            dead.forget(&those(&[3]));
            expected.retain(|id| *id != 3);
            assert_eq!(ids(&dead), expected, "{room}");
            assert_eq!(
                dead.is_stale(),
                ids(&open(&scratch, 5)) != expected,
                "{room}"
            );
            disk::set_room(usize::MAX);
            dead.tidy();
            dead.add(vec![letter(6)]).expect("there is room");
            expected.push(6);
            assert_eq!(ids(&open(&scratch, 5)), expected, "{room}");
            disk::set_room(0);
            assert_eq!(
                dead.remove(&DeadEvents::All).expect("that needs none"),
                expected.len()
            );
            assert_eq!(open(&scratch, 5).len(), 0);
            disk::set_room(usize::MAX);
        }
    }
}
