//! How much time of a processor a thread has used: Linux tells of every thread, to the nanosecond.

use std::collections::BTreeSet;
use std::time::Duration;

/// The name of a thread of this process, for the system.
pub(super) type ThreadId = String;

/// The thread that asks.
pub(super) fn current() -> Option<ThreadId> {
    let link = std::fs::read_link("/proc/thread-self").ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// All threads of this process.
pub(super) fn all() -> BTreeSet<ThreadId> {
    let entries = std::fs::read_dir("/proc/self/task");
    entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// What a thread has used since it began; `None` where the system doesn't tell, or it has ended.
pub(super) fn used(thread: &ThreadId) -> Option<Duration> {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let told = std::fs::read_to_string(path).ok()?;
    // Its first number is the time on a processor, in nanoseconds.
    let nanos = told.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
