//! Events on disk, in the order in which they are to be delivered.
//!
//! They lie in segments, files named after the position of their first record. A record has its position, the time of its event,
//! and the event as JSON. A second file says how far they are delivered: two places that are written by turns, so that
//! one is whole at any time. If it is lost, or older than the truth, events are delivered once more.
//!
//! What was appended survives the end of the process, however it ends; what was [synced](Queue::sync), a loss of power too.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::disk;
use super::journal::{self, Journal, Records};

/// The queue of one directory.
pub(super) struct Queue {
    directory: PathBuf,
    max_bytes: u64,
    /// The oldest first. The last is written to.
    segments: VecDeque<Segment>,
    active: Option<Journal>,
    next: u64,
    delivered: u64,
    cursor: File,
    turn: u64,
    /// Read, and not delivered yet.
    head: VecDeque<Record>,
    /// The last position that was read.
    read: u64,
    reader: Option<(u64, BufReader<File>)>,
}

struct Segment {
    first: u64,
    last: u64,
    bytes: u64,
}

/// An event in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) position: u64,
    /// Unix time in milliseconds.
    pub(super) time: u64,
    pub(super) json: Vec<u8>,
}

impl Queue {
    /// Opens the queue of a directory, and hands each event that is kept to `each`. Returns how many bytes could
    /// not be read and are lost.
    pub(super) fn open(
        directory: &Path,
        max_bytes: u64,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<(Self, u64)> {
        let mut cursor = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("cursor"))?;
        let (delivered, turn) = read_cursor(&mut cursor)?;
        if cursor.metadata()?.len() == 0 {
            // So that there is room for it when the disk is full. No place is whole that has zeros alone.
            let _ = disk::write_all(&mut cursor, &[0; 2 * PLACE]);
        }
        let mut firsts: Vec<u64> = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix("queue-"));
            let first = name.and_then(|name| name.strip_suffix(".log"));
            firsts.extend(first.and_then(|first| first.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let (mut segments, mut active, mut lost) = (VecDeque::new(), None, 0);
        let mut last_known = delivered;
        for first in firsts {
            let mut last = first.saturating_sub(1);
            let (journal, cut) = Journal::open(&path(directory, first), |record| {
                if let Some(record) = parse(record) {
                    last = record.position;
                    each(&record.json);
                }
            })?;
            lost += cut;
            last_known = last_known.max(last);
            segments.push_back(Segment {
                first,
                last,
                bytes: journal.bytes(),
            });
            active = Some(journal);
        }
        // What was delivered is there until the books are sure to have it.
        let queue = Self {
            directory: directory.to_owned(),
            max_bytes,
            segments,
            active,
            next: last_known + 1,
            delivered,
            cursor,
            turn,
            head: VecDeque::new(),
            read: delivered,
            reader: None,
        };
        Ok((queue, lost))
    }

    /// The position of the event that is appended next. Positions are never used twice.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Sees to it that positions begin no earlier than that.
    pub(super) fn skip_to(&mut self, next: u64) {
        if next > self.next {
            self.next = next;
            // The segment's name says where it begins; what is in it may have holes.
            self.active = None;
        }
    }

    /// How many events are not delivered.
    pub(super) fn len(&self) -> u64 {
        let undelivered = |segment: &Segment| {
            let from = segment.first.max(self.delivered + 1);
            (segment.last + 1).saturating_sub(from)
        };
        self.segments.iter().map(undelivered).sum()
    }

    /// How many bytes it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// That many bytes may be there from now on.
    pub(super) fn set_limit(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    /// Whether that many bytes more would be no more than there may be.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes() + bytes as u64 <= self.max_bytes
    }

    /// Appends events with their times; the first gets the position [`next`](Self::next). All of them are
    /// kept then, or none.
    pub(super) fn append(&mut self, events: &[(u64, Vec<u8>)]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let limit = self.segment_size();
        let is_full = self.segments.back().is_none_or(|last| last.bytes >= limit);
        if self.active.is_none() || is_full {
            if let Some(active) = &self.active {
                active.sync()?;
            }
            let path = path(&self.directory, self.next);
            let (journal, _) = Journal::open(&path, |_| ())?;
            disk::sync_directory(&self.directory)?;
            self.active = Some(journal);
            self.segments.push_back(Segment {
                first: self.next,
                last: self.next - 1,
                bytes: 0,
            });
        }
        let mut records = Vec::new();
        let mut payload = Vec::new();
        for (position, (time, json)) in (self.next..).zip(events) {
            payload.clear();
            payload.extend_from_slice(&position.to_le_bytes());
            payload.extend_from_slice(&time.to_le_bytes());
            payload.extend_from_slice(json);
            journal::encode(&payload, &mut records);
        }
        if let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) {
            active.append(&records)?;
            self.next += events.len() as u64;
            segment.last = self.next - 1;
            segment.bytes = active.bytes();
        }
        Ok(())
    }

    /// The oldest events that are not delivered: at most so many, and so many bytes, but one if there is one.
    pub(super) fn head(&mut self, count: usize, bytes: usize) -> io::Result<&[Record]> {
        while self.head.len() < count {
            match self.read_next()? {
                Some(record) => self.head.push_back(record),
                None => break,
            }
        }
        let head = self.head.make_contiguous();
        let mut sum = 0;
        let fits = head.iter().take(count).take_while(|record| {
            sum += record.json.len() + 1;
            sum <= bytes
        });
        let fits = fits.count().max(1).min(head.len());
        Ok(&head[..fits])
    }

    /// The oldest events are delivered, up to that position. Segments without any other are removed, but not those with
    /// events from `keep` on.
    pub(super) fn deliver(&mut self, position: u64, keep: Option<u64>) -> io::Result<()> {
        self.delivered = self.delivered.max(position);
        while let Some(record) = self.head.front() {
            if record.position > position {
                break;
            }
            self.head.pop_front();
        }
        // If that can't be noted, the next process delivers more of it again; room is made all the same.
        let noted = self.note();
        self.remove_delivered(keep).and(noted)
    }

    fn note(&mut self) -> io::Result<()> {
        self.turn += 1;
        let mut place = [0; PLACE];
        place[..8].copy_from_slice(&self.delivered.to_le_bytes());
        place[8..16].copy_from_slice(&self.turn.to_le_bytes());
        let checksum = crc32fast::hash(&place[..16]);
        place[16..].copy_from_slice(&checksum.to_le_bytes());
        self.cursor
            .seek(SeekFrom::Start((self.turn % 2) * PLACE as u64))?;
        disk::write_all(&mut self.cursor, &place)
    }

    /// Whether the next call of [`deliver`](Self::deliver) removes something for good.
    pub(super) fn would_remove(&self, position: u64, keep: Option<u64>) -> bool {
        let first = self.segments.front();
        let is_kept = |first: &Segment| keep.is_some_and(|keep| first.last >= keep);
        first.is_some_and(|first| {
            self.segments.len() > 1 && first.last <= position && !is_kept(first)
        })
    }

    /// Returns once all of it would survive a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.cursor.sync_data()?;
        self.active.as_ref().map_or(Ok(()), Journal::sync)
    }

    fn segment_size(&self) -> u64 {
        (self.max_bytes / 8).clamp(64 * 1024, 8 * 1024 * 1024)
    }

    fn remove_delivered(&mut self, keep: Option<u64>) -> io::Result<()> {
        // The last one stays: it says where positions go on.
        while self.would_remove(self.delivered, keep)
            && let Some(first) = self.segments.front()
        {
            match std::fs::remove_file(path(&self.directory, first.first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.segments.pop_front(),
            };
        }
        Ok(())
    }

    /// The next event that was not read yet.
    fn read_next(&mut self) -> io::Result<Option<Record>> {
        let read = self.read_on();
        if read.is_err() {
            // It may stand anywhere, and hold what was there before: the next attempt begins anew.
            self.reader = None;
        }
        read
    }

    fn read_on(&mut self) -> io::Result<Option<Record>> {
        loop {
            let holds = |segment: &&Segment| segment.last > self.read;
            let Some(segment) = self.segments.iter().find(holds) else {
                return Ok(None);
            };
            let first = segment.first;
            if self.reader.as_ref().is_none_or(|(of, _)| *of != first) {
                let file = File::open(path(&self.directory, first))?;
                self.reader = Some((first, BufReader::new(file)));
            }
            let Some((_, reader)) = &mut self.reader else {
                return Ok(None);
            };
            let mut bytes = vec![0; 8];
            reader.read_exact(&mut bytes)?;
            let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            if length > journal::MAX_RECORD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            bytes.resize(8 + length, 0);
            reader.read_exact(&mut bytes[8..])?;
            let record = Records::new(&bytes).next().and_then(parse);
            let record = record.ok_or(io::ErrorKind::InvalidData)?;
            if record.position > self.read {
                self.read = record.position;
                return Ok(Some(record));
            }
        }
    }
}

fn parse(record: &[u8]) -> Option<Record> {
    let (position, rest) = record.split_first_chunk::<8>()?;
    let (time, json) = rest.split_first_chunk::<8>()?;
    Some(Record {
        position: u64::from_le_bytes(*position),
        time: u64::from_le_bytes(*time),
        json: json.to_vec(),
    })
}

fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("queue-{first:020}.log"))
}

/// How far events are delivered, and which turn of writing that was.
fn read_cursor(file: &mut File) -> io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    file.take(2 * PLACE as u64).read_to_end(&mut bytes)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let places = bytes.chunks_exact(PLACE).filter_map(|place| {
        let (numbers, checksum) = place.split_at(16);
        let is_whole = crc32fast::hash(numbers).to_le_bytes() == checksum;
        is_whole.then(|| (number(&numbers[8..]), number(&numbers[..8])))
    });
    Ok(places
        .max()
        .map_or((0, 0), |(turn, delivered)| (delivered, turn)))
}

/// Bytes of a place in the cursor's file: two numbers and their checksum.
const PLACE: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::scratch::Scratch;

    fn open(directory: &Path, max: u64) -> (Queue, Vec<u64>) {
        let mut kept = Vec::new();
        let (queue, _) = Queue::open(directory, max, |json| {
            kept.push(String::from_utf8_lossy(json).parse().expect("a number"));
        })
        .expect("it opens");
        (queue, kept)
    }

    fn numbers(queue: &mut Queue, count: usize) -> Vec<u64> {
        let head = queue.head(count, usize::MAX).expect("it can be read");
        head.iter()
            .map(|record| {
                String::from_utf8_lossy(&record.json)
                    .parse()
                    .expect("a number")
            })
            .collect()
    }

    fn append(queue: &mut Queue, numbers: std::ops::Range<u64>) {
        let events: Vec<_> = numbers.map(|n| (n, n.to_string().into_bytes())).collect();
        queue.append(&events).expect("it can be written");
    }

    /// Or a segment that was synced could be one that nobody finds after a loss of power.
    #[test]
    fn a_new_segment_is_sure_to_be_found() {
        let directory = Scratch::new("queue-directory");
        let (mut queue, _) = open(directory.path(), 1024 * 1024);
        let synced = || disk::DIRECTORIES_SYNCED.get();
        let before = synced();
        append(&mut queue, 0..1);
        append(&mut queue, 1..2);
        assert_eq!(synced(), before + 1, "once for the one segment");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64),
        /// So many, on a disk that has so much room.
        AppendFull(u64, usize),
        Deliver(usize),
        Reopen,
        /// The process ends within a write: so many bytes of the last are missing.
        Tear(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u64..40).prop_map(Step::Append),
            2 => ((1u64..40), (0usize..20_000)).prop_map(|(count, room)| Step::AppendFull(count, room)),
            4 => (1usize..60).prop_map(Step::Deliver),
            1 => Just(Step::Reopen),
            2 => (1u64..60).prop_map(Step::Tear),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Beside a list in memory: nothing is lost or out of order, whatever happens.
        #[test]
        fn it_is_a_list_that_survives(steps in steps(), pad in 0usize..3) {
            let scratch = Scratch::new("queue");
            let max = 64 * 1024 * 8;
            let (mut queue, _) = open(scratch.path(), max);
            // Long ones fill more than one segment.
            let pad = "0".repeat(pad * 3000);
            let mut model: VecDeque<u64> = VecDeque::new();
            let (mut next, mut last_append) = (1, 0);
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let events: Vec<_> = (next..next + count)
                            .map(|n| (n, format!("{pad}{n}").into_bytes()))
                            .collect();
                        queue.append(&events).expect("it can be written");
                        model.extend(next..next + count);
                        next += count;
                        last_append = count;
                        continue;
                    }
                    Step::AppendFull(count, room) => {
                        let events: Vec<_> = (next..next + count)
                            .map(|n| (n, format!("{pad}{n}").into_bytes()))
                            .collect();
                        disk::set_room(room);
                        let appended = queue.append(&events);
                        disk::set_room(usize::MAX);
                        if appended.is_ok() {
                            model.extend(next..next + count);
                            next += count;
                        }
                    }
                    Step::Deliver(count) => {
                        let head = queue.head(count, usize::MAX).expect("it can be read");
                        if let Some(last) = head.last().map(|record| record.position) {
                            let count = head.len();
                            queue.deliver(last, None).expect("it can be written");
                            model.drain(..count);
                        }
                    }
                    Step::Reopen => {
                        drop(queue);
                        queue = open(scratch.path(), max).0;
                    }
                    Step::Tear(bytes) => {
                        let segment = queue.segments.back().map(|one| (one.first, one.bytes));
                        drop(queue);
                        if let Some((first, length)) = segment.filter(|_| last_append > 0) {
                            // Only of the last write, which nobody was told of.
                            let record = 24 + (pad.len() + next.to_string().len()) as u64;
                            let bytes = bytes.min(record - 8).min(length);
                            let path = path(scratch.path(), first);
                            let file = OpenOptions::new().write(true).open(path);
                            let file = file.expect("it is there");
                            file.set_len(length - bytes).expect("it can be cut");
                            model.pop_back();
                            next -= 1;
                        }
                        queue = open(scratch.path(), max).0;
                        // A position whose event was delivered before it was torn is not used again.
                        next = next.max(queue.next());
                    }
                }
                last_append = 0;
                prop_assert_eq!(queue.len() as usize, model.len());
                prop_assert_eq!(queue.next(), next);
                let head = queue.head(10, usize::MAX).expect("it can be read");
                let head: Vec<_> = head.iter().map(|record| record.position).collect();
                let expected: Vec<_> = model.iter().copied().take(10).collect();
                prop_assert_eq!(head, expected);
            }
        }
    }

    #[test]
    fn what_is_delivered_goes_and_leaves_room() {
        let scratch = Scratch::new("queue-room");
        let max = 8 * 64 * 1024;
        let (mut queue, _) = open(scratch.path(), max);
        let mut next = 1;
        while queue.has_room(4000) {
            append(&mut queue, next..next + 50);
            next += 50;
        }
        assert!(queue.segments.len() >= 7 && queue.bytes() <= max);
        let all = numbers(&mut queue, usize::MAX);
        assert_eq!(all, (1..next).collect::<Vec<_>>());
        queue.deliver(next / 2, None).expect("it can be written");
        assert!(queue.has_room(100_000));
        let (mut queue, kept) = open(scratch.path(), max);
        assert_eq!(numbers(&mut queue, 1), [next / 2 + 1]);
        assert!(kept.len() < (next as usize * 3) / 4, "files are gone");
        queue.deliver(next - 1, None).expect("it can be written");
        assert_eq!((queue.len(), queue.segments.len()), (0, 1));
        let (queue, _) = open(scratch.path(), max);
        assert_eq!((queue.len(), queue.next()), (0, next));
    }

    /// Events that the books lack are in no other place.
    #[test]
    fn what_the_books_lack_stays_though_it_is_delivered() {
        let scratch = Scratch::new("queue-kept");
        let max = 8 * 64 * 1024;
        let (mut queue, _) = open(scratch.path(), max);
        for next in (1..10_000).step_by(50) {
            append(&mut queue, next..next + 50);
        }
        let last = queue.next() - 1;
        assert!(queue.segments.len() > 3);
        queue.deliver(last, Some(4000)).expect("it can be written");
        let (mut queue, kept) = open(scratch.path(), max);
        assert!(kept[0] <= 4000 && kept[0] > 1, "{}", kept[0]);
        assert_eq!(queue.len(), 0);
        queue.deliver(last, None).expect("it can be written");
        assert_eq!(queue.segments.len(), 1);
    }

    #[test]
    fn a_cursor_that_is_torn_at_any_byte_delivers_again_and_loses_nothing() {
        let scratch = Scratch::new("queue-cursor");
        let (mut queue, _) = open(scratch.path(), 1 << 20);
        append(&mut queue, 1..10);
        for position in 1..5 {
            queue.deliver(position, None).expect("it can be written");
        }
        drop(queue);
        let path = scratch.path().join("cursor");
        let whole = std::fs::read(&path).expect("it is there");
        for place in 0..whole.len() {
            let mut torn = whole.clone();
            torn[place] ^= 0xff;
            std::fs::write(&path, &torn).expect("it can be written");
            let (mut queue, _) = open(scratch.path(), 1 << 20);
            let first = numbers(&mut queue, 1)[0];
            assert!((4..=5).contains(&first), "{place}: {first}");
            std::fs::write(&path, &whole[..place]).expect("it can be written");
            let (mut queue, _) = open(scratch.path(), 1 << 20);
            assert!(numbers(&mut queue, 1)[0] <= 5, "{place}");
        }
    }

    #[test]
    fn a_batch_is_bounded_by_number_and_by_bytes() {
        let scratch = Scratch::new("queue-batch");
        let (mut queue, _) = open(scratch.path(), 1 << 20);
        append(&mut queue, 10..30);
        let mut count = |most, bytes| queue.head(most, bytes).expect("it can be read").len();
        assert_eq!(count(5, 1000), 5);
        assert_eq!(count(5, 7), 2);
        assert_eq!(count(5, 1), 1, "one that is too long is sent alone");
        assert_eq!(count(100, 1000), 20);
    }
}
