//! Records in a file that is only ever appended to.
//!
//! A record is its length and its checksum (CRC-32), 4 bytes each and little-endian, and its bytes. A process may be killed, and
//! a machine lose power, at any byte: what is whole up to there is read, the rest is cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use super::disk;
pub(crate) use super::disk::sync_directory;

/// Longest record, in bytes. A length beyond that is no length.
pub(crate) const MAX_RECORD: usize = 1024 * 1024;
const HEAD: usize = 8;

/// Appends a record to what is to be written.
pub(crate) fn encode(payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!payload.is_empty() && payload.len() <= MAX_RECORD);
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The whole records at the beginning of `bytes`.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            read: 0,
        }
    }

    /// How many bytes the records so far take.
    pub(crate) fn read(&self) -> usize {
        self.read
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_first_chunk::<HEAD>()?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let checksum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        // Zeros are what a file system may leave of what was never written.
        if length == 0 || length > MAX_RECORD {
            return None;
        }
        let payload = rest.get(..length)?;
        if crc32fast::hash(payload) != checksum {
            return None;
        }
        self.rest = &rest[length..];
        self.read += HEAD + length;
        Some(payload)
    }
}

/// A file of records that is written.
pub(crate) struct Journal {
    file: File,
    bytes: u64,
    /// Behind these bytes there may be part of a record that did not fit.
    is_torn: bool,
}

impl Journal {
    /// Opens a file, or makes it, hands what is in it to `each`, and cuts off what is not whole. Returns how many
    /// bytes that was.
    pub(crate) fn open(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<(Self, u64)> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Records::new(&bytes);
        for record in records.by_ref() {
            each(record);
        }
        let whole = records.read() as u64;
        let cut = bytes.len() as u64 - whole;
        if cut > 0 {
            file.set_len(whole)?;
        }
        let journal = Self {
            file,
            bytes: whole,
            is_torn: false,
        };
        Ok((journal, cut))
    }

    /// Appends records that are [encoded](encode). Either all of them are in the file then, or none.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        // What comes behind half a record would be lost with it.
        self.mend()?;
        if let Err(error) = disk::write_all(&mut self.file, records) {
            self.is_torn = true;
            // If that fails, too, it is tried again before anything else is written.
            let _ = self.mend();
            return Err(error);
        }
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// Removes all records. Needs no room.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.bytes, self.is_torn) = (0, false);
        Ok(())
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.is_torn = false;
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns once all of it would survive a loss of power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Has the name of a file that was replaced survive a loss of power, or tells the operator that it may not: the file
/// itself is as it should be.
pub(super) fn note_name(path: &Path) {
    if let Some(directory) = path.parent()
        && let Err(error) = sync_directory(directory)
    {
        let directory = directory.display();
        tracing::error!(%error, %directory, "events may not survive a loss of power: their directory can't be synced");
    }
}

/// Writes a whole file anew, in such a way that there is always the old one or the new one, and gives the new one to be
/// appended to. Which of them is there after a loss of power is sure once their directory is
/// [synced](sync_directory).
///
/// # Errors
///
/// When it can't be written: the old one is there.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<Journal> {
    let new = path.with_extension("new");
    let write = || {
        // Of an attempt before this, something may be left.
        drop(File::create(&new)?);
        let mut file = OpenOptions::new().append(true).open(&new)?;
        disk::write_all(&mut file, contents)?;
        file.sync_data()?;
        // Nothing can fail behind that: whoever appended to the old one would do it for nobody.
        std::fs::rename(&new, path)?;
        io::Result::Ok(file)
    };
    let written = write();
    if written.is_err() {
        // It takes room that somebody else may need.
        let _ = std::fs::remove_file(&new);
    }
    Ok(Journal {
        file: written?,
        bytes: contents.len() as u64,
        is_torn: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        Records::new(bytes).map(<[u8]>::to_vec).collect()
    }

    /// A file that ends at any byte has all records that are whole, and takes new ones behind them.
    #[test]
    fn a_torn_end_is_cut_off_at_every_byte() {
        let payloads: [&[u8]; 4] = [b"a", b"longer than that", &[0; 40], b"{\"seq\":4}"];
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for payload in payloads {
            encode(payload, &mut bytes);
            ends.push(bytes.len());
        }
        let directory = crate::events::scratch::Scratch::new("journal");
        let path = directory.path().join("journal");
        for torn in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= torn).count() - 1;
            for tail in [&[][..], &[0; 64], &[0xff; 9]] {
                let mut file = bytes[..torn].to_vec();
                file.extend_from_slice(tail);
                // A tail may not make a record whole by chance.
                let is_whole = records(&file).len() == whole;
                assert!(is_whole || tail.first() == Some(&0), "{torn}");
                std::fs::write(&path, &file).expect("a file");
                let mut read = Vec::new();
                let (mut journal, cut) =
                    Journal::open(&path, |record| read.push(record.to_vec())).expect("it opens");
                let whole = read.len();
                assert_eq!(read, payloads[..whole]);
                assert_eq!(cut as usize, file.len() - ends[whole]);
                let mut more = Vec::new();
                encode(b"more", &mut more);
                journal.append(&more).expect("it can be written");
                let file = std::fs::read(&path).expect("it can be read");
                assert_eq!(records(&file).len(), whole + 1);
            }
        }
    }

    /// Whatever room there was, records that were taken are there, and no others.
    #[test]
    fn a_disk_that_is_full_in_the_middle_of_a_record_costs_that_record_alone() {
        for room in 0..80 {
            let directory = crate::events::scratch::Scratch::new("journal-full");
            let path = directory.path().join("journal");
            let (mut journal, _) = Journal::open(&path, |_| ()).expect("it opens");
            let mut taken = Vec::new();
            disk::set_room(room);
            for number in 0..8_u8 {
                if number == 6 {
                    disk::set_room(usize::MAX);
                }
                let payload = vec![number; 1 + usize::from(number) * 3];
                let mut bytes = Vec::new();
                encode(&payload, &mut bytes);
                if journal.append(&bytes).is_ok() {
                    taken.push(payload);
                }
            }
            assert!(taken.len() >= 2);
            let mut read = Vec::new();
            let (_, cut) =
                Journal::open(&path, |record| read.push(record.to_vec())).expect("it opens");
            assert_eq!((read, cut), (taken, 0), "{room}");
            disk::set_room(3);
            assert!(replace(&path, b"more than three").is_err());
            assert!(!path.with_extension("new").exists());
            disk::set_room(usize::MAX);
        }
    }

    /// Whoever has written it anew goes on with the file that is there.
    #[test]
    fn what_is_written_anew_is_what_is_appended_to() {
        let directory = crate::events::scratch::Scratch::new("journal-anew");
        let path = directory.path().join("journal");
        std::fs::write(path.with_extension("new"), "of an attempt that was cut off").expect("room");
        let encoded = |text: &[u8]| {
            let mut bytes = Vec::new();
            encode(text, &mut bytes);
            bytes
        };
        let (mut journal, _) = Journal::open(&path, |_| ()).expect("it opens");
        journal.append(&encoded(b"old")).expect("room");
        let mut journal = replace(&path, &encoded(b"anew")).expect("room");
        // Not even half a record leaves a hole.
        disk::set_room(3);
        assert!(journal.append(&encoded(b"too long")).is_err());
        disk::set_room(usize::MAX);
        journal.append(&encoded(b"more")).expect("room");
        let file = std::fs::read(&path).expect("it can be read");
        assert_eq!(records(&file), [&b"anew"[..], b"more"]);
        assert_eq!(journal.bytes(), file.len() as u64);
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn no_byte_can_change_unnoticed() {
        let mut bytes = Vec::new();
        encode(b"one", &mut bytes);
        encode(b"two", &mut bytes);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let read = records(&changed);
                assert!(read.len() < 2, "{place} {bit}");
                let expected: &[&[u8]] = &[b"one"];
                assert!(read.is_empty() || read == expected, "{place} {bit}");
            }
        }
    }
}
