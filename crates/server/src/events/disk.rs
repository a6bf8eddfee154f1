//! Writing to files, as far as the disk has room.
//!
//! A disk that fills up in the middle of something is what most of the care here is about, so tests can say how
//! many bytes it has left, for their own thread.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// Sees to it that a file which was made in a directory, or renamed, is found there after a loss of power: syncing the file
/// alone doesn't say that (`fsync(2)`). Elsewhere than on Unix there is no such thing.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    DIRECTORIES_SYNCED.set(DIRECTORIES_SYNCED.get() + 1);
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

#[cfg(not(test))]
pub(super) fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

/// As a disk with so much room would: what fits is written, and then it is full.
#[cfg(test)]
pub(super) fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let room = ROOM.get();
    let fits = bytes.len().min(room);
    ROOM.set(room - fits);
    file.write_all(&bytes[..fits])?;
    if fits < bytes.len() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// From now on that many bytes can be written by this thread.
#[cfg(test)]
pub(super) fn set_room(bytes: usize) {
    ROOM.set(bytes);
}

#[cfg(test)]
thread_local! {
    static ROOM: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
    /// How often a directory was synced by this thread.
    pub(super) static DIRECTORIES_SYNCED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
