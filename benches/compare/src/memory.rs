//! What a server's connections take: heap by a counter that stands before its allocator, and the resident set.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::client::http::ask;

/// Two native 64-bit integers; see `heapcount`.
const COUNTERS: u64 = 16;
const SETTLE_STEPS: u32 = 100;
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// The counters that a server started with `heapcount` keeps.
#[derive(Debug)]
pub(crate) struct HeapCounter {
    file: PathBuf,
}

/// Memory of a server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Live bytes of the heap as the allocator hands them out.
    pub(crate) heap: i64,
    /// Live blocks of the heap.
    pub(crate) blocks: i64,
    /// Resident set in bytes.
    pub(crate) resident: i64,
}

impl HeapCounter {
    /// A fresh counter file in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let file = dir.join(format!("heap-{}", std::process::id()));
        let size = File::create(&file).and_then(|created| created.set_len(COUNTERS));
        size.with_context(|| format!("cannot create {}", file.display()))?;
        Ok(Self { file })
    }

    /// The environment that makes a child count.
    pub(crate) fn environment(&self) -> Result<[(&'static str, PathBuf); 2]> {
        let library = crate::peers::own_dir().join("libheapcount.so");
        if !library.is_file() {
            bail!(
                "{} is missing: `cargo build --release --workspace` makes it",
                library.display()
            );
        }
        Ok([
            ("LD_PRELOAD", library),
            ("COMPARE_HEAP_FILE", self.file.clone()),
        ])
    }

    fn read(&self) -> Result<(i64, i64)> {
        let bytes = fs::read(&self.file)?;
        let Some((heap, blocks)) = bytes.split_at_checked(8) else {
            bail!("the heap counter's file is cut off")
        };
        Ok((
            i64::from_ne_bytes(heap.try_into()?),
            i64::from_ne_bytes(blocks.try_into()?),
        ))
    }

    /// The footprint of process `pid` once its heap has not changed for a moment (2 s at most).
    pub(crate) fn footprint(&self, pid: u32) -> Result<Footprint> {
        let mut before = self.read()?;
        for _ in 0..SETTLE_STEPS {
            thread::sleep(SETTLE_STEP);
            let now = self.read()?;
            if now == before {
                break;
            }
            before = now;
        }
        self.at_once(pid)
    }

    /// The footprint of process `pid` as it is.
    pub(crate) fn at_once(&self, pid: u32) -> Result<Footprint> {
        let (heap, blocks) = self.read()?;
        Ok(Footprint {
            heap,
            blocks,
            resident: resident(pid)?,
        })
    }
}

/// Bytes and blocks as the server at `address` tells them when it is asked for `path`, after it has collected its garbage.
///
/// # Errors
/// An answer that is not these two numbers.
pub(crate) fn told(address: SocketAddr, path: &str) -> Result<(i64, i64)> {
    let body = ask(address, path, None)?;
    let numbers = body.trim().split_once(' ');
    numbers
        .and_then(|(bytes, blocks)| bytes.parse().ok().zip(blocks.parse().ok()))
        .with_context(|| format!("{path} does not tell the heap: {body:?}"))
}

impl Drop for HeapCounter {
    fn drop(&mut self) {
        // A file that stays behind in the build directory does no harm.
        let _ = fs::remove_file(&self.file);
    }
}

fn resident(pid: u32) -> Result<i64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(1024
        * kibibytes
            .context("smaps_rollup has an unknown form")?
            .parse::<i64>()?)
}
