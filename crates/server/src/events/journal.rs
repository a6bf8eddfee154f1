//! Records in a file that is only ever appended to.
//!
//! A record is its length and its checksum (CRC-32), 4 bytes each and little-endian, and its bytes. A process may be killed, and
//! a machine lose power, at any byte: what is whole up to there is read, the rest is cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Longest record, in bytes. A length beyond that is no length.
pub(super) const MAX_RECORD: usize = 1024 * 1024;
const HEAD: usize = 8;

/// Appends a record to what is to be written.
pub(super) fn encode(payload: &[u8], out: &mut Vec<u8>) {
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
pub(super) struct Records<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            read: 0,
        }
    }

    /// How many bytes the records so far take.
    pub(super) fn read(&self) -> usize {
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
pub(super) struct Journal {
    file: File,
    bytes: u64,
}

impl Journal {
    /// Opens a file, or makes it, hands what is in it to `each`, and cuts off what is not whole. Returns how many
    /// bytes that was.
    pub(super) fn open(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<(Self, u64)> {
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
        Ok((Self { file, bytes: whole }, cut))
    }

    /// Appends records that are [encoded](encode). Either all of them are in the file then, or none.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(records) {
            // Part of it may be there.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += records.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns once all of it would survive a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes a whole file anew, in such a way that there is always the old one or the new one.
pub(super) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(contents)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
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
