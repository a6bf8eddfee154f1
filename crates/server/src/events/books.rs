//! What the backend believes, on disk: every event that was ever queued, without those which later ones have undone.
//!
//! After the end of a process, however it came, this says who must be told gone.

use std::io;
use std::path::{Path, PathBuf};

use super::event::Event;
use super::journal::{self, Journal};
use super::ledger::Ledger;

/// The file.
pub(super) struct Books {
    path: PathBuf,
    journal: Journal,
    /// Its size when it was last written anew, or when there was no room for that.
    lean: u64,
    /// The number of the last event that is in it.
    last: u64,
}

impl Books {
    /// Opens the books of a directory, and enters what they say in `ledger`.
    pub(super) fn open(directory: &Path, ledger: &mut Ledger) -> io::Result<Self> {
        let path = directory.join("books.log");
        let mut last = 0;
        let (journal, _) = Journal::open(&path, |record| {
            last = last.max(enter(record, ledger));
        })?;
        Ok(Self {
            path,
            journal,
            lean: 0,
            last,
        })
    }

    /// The number of the last event that is in them.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// Enters events, as JSON, with their numbers; 0 for one that was not queued.
    pub(super) fn append(&mut self, events: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (number, json) in events {
            journal::encode(&record(*number, json), &mut bytes);
        }
        self.journal.append(&bytes)?;
        for (number, _) in events {
            self.last = self.last.max(*number);
        }
        let bytes = self.journal.bytes();
        if bytes > LEAST.max(self.lean * 2)
            && let Err(error) = self.shrink()
        {
            // They are right as they are, and only longer than they need be.
            tracing::debug!(%error, "the books of events can't be written anew");
            self.lean = (bytes + LEAST) / 2;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.journal.sync()
    }

    /// Writes them anew, without what has been undone.
    fn shrink(&mut self) -> io::Result<()> {
        let mut ledger = Ledger::for_reading();
        let file = std::fs::read(&self.path)?;
        for record in journal::Records::new(&file) {
            enter(record, &mut ledger);
        }
        let mut bytes = Vec::new();
        journal::encode(&record(self.last, b""), &mut bytes);
        for event in ledger.believed() {
            journal::encode(&record(0, &serde_json::to_vec(&event)?), &mut bytes);
        }
        self.journal = journal::replace(&self.path, &bytes)?;
        self.lean = self.journal.bytes();
        journal::note_name(&self.path);
        Ok(())
    }
}

fn record(number: u64, json: &[u8]) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    record.extend_from_slice(json);
    record
}

/// Returns the event's number.
fn enter(record: &[u8], ledger: &mut Ledger) -> u64 {
    let Some((number, json)) = record.split_first_chunk::<8>() else {
        return 0;
    };
    if let Ok(event) = serde_json::from_slice::<Event>(json) {
        ledger.restore(&event);
    }
    u64::from_le_bytes(*number)
}

/// Smaller books are not worth writing anew.
const LEAST: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::Kind;
    use crate::events::scratch::Scratch;

    fn event(kind: Kind, visit: u64) -> Vec<u8> {
        let mut event = Event::new(kind, visit, "user:ann".into());
        event.visit = Some(format!("visit-{visit}"));
        event.client = event.visit.clone();
        event.user = Some("ann".into());
        serde_json::to_vec(&event).expect("it is JSON")
    }

    fn believed(directory: &Path) -> (Vec<String>, u64) {
        let mut ledger = Ledger::for_reading();
        let books = Books::open(directory, &mut ledger).expect("they open");
        let visits = ledger.believed().filter_map(|event| event.visit);
        let mut visits: Vec<_> = visits.collect();
        visits.sort();
        (visits, books.last())
    }

    #[test]
    fn books_that_cannot_be_written_anew_are_kept_as_they_are_until_they_can() {
        let scratch = Scratch::new("books-full");
        let mut books = Books::open(scratch.path(), &mut Ledger::for_reading()).expect("they open");
        let mut bytes = Vec::new();
        for visit in 0..30_000 {
            // Enough for what is appended, and for nothing else.
            if visit < 20_000 {
                super::super::disk::set_room(1000);
            }
            let mut events = vec![(2 * visit + 1, event(Kind::Connected, visit))];
            if visit % 1000 != 0 {
                events.push((2 * visit + 2, event(Kind::Disconnected, visit)));
            }
            books.append(&events).expect("what is appended has room");
            bytes.push(books.bytes());
            super::super::disk::set_room(usize::MAX);
        }
        assert!(
            bytes[19_999] > 2 * LEAST && bytes[29_999] < LEAST * 2,
            "{} {}",
            bytes[19_999],
            bytes[29_999]
        );
        let (visits, last) = believed(scratch.path());
        assert_eq!((visits.len(), last), (30, 60_000));
    }

    #[test]
    fn what_was_undone_is_forgotten_and_the_rest_is_not() {
        let scratch = Scratch::new("books");
        let mut books = Books::open(scratch.path(), &mut Ledger::for_reading()).expect("they open");
        let mut most = 0;
        for visit in 0..20_000 {
            let mut events = vec![(2 * visit + 1, event(Kind::Connected, visit))];
            if visit % 1000 != 0 {
                events.push((2 * visit + 2, event(Kind::Disconnected, visit)));
            }
            books.append(&events).expect("they can be written");
            most = most.max(books.bytes());
        }
        assert!(most < 2 * LEAST, "{most}");
        let (visits, last) = believed(scratch.path());
        assert_eq!((visits.len(), last), (20, 40_000));
        // Torn in the middle of the last record: that one is as if it had not been.
        let path = scratch.path().join("books.log");
        let whole = std::fs::read(&path).expect("they are there");
        std::fs::write(&path, &whole[..whole.len() - 3]).expect("they can be written");
        let (visits, last) = believed(scratch.path());
        assert_eq!((visits.len(), last), (21, 39_999));
    }
}
