//! What a node tells an admin of itself.

use std::collections::BTreeMap;

use serde::Serialize;

/// All of it, of all workers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Unique among all that were ever started.
    pub uid: String,
    /// Of the server.
    pub version: String,
    /// In seconds.
    pub uptime: u64,
    /// Whether it is on its way out.
    pub draining: bool,
    /// In the order of their names.
    pub workers: Vec<WorkerReport>,
    /// Where memory is.
    pub memory: MemoryReport,
}

/// One worker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerReport {
    /// Its thread.
    pub name: String,
    /// Tasks of its event loop.
    pub tasks: u64,
    /// Sessions by transport.
    pub sessions: BTreeMap<&'static str, SessionReport>,
    /// Channels with subscribers here.
    pub channels: u64,
    /// Subscriptions here.
    pub subscriptions: u64,
    /// What waits to be written.
    pub queues: QueueReport,
}

/// Sessions of one transport, by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// Not in yet.
    pub coming: u64,
    /// In.
    pub connected: u64,
}

/// What waits to be written to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueReport {
    /// Connections for which something waits.
    pub waiting: u64,
    /// All of it, in bytes. What is shared by many counts for each.
    pub bytes: u64,
    /// The longest, in bytes.
    pub longest: u64,
}

/// Where memory is, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct MemoryReport {
    /// What the process has (`VmRSS`): this is what the ceiling is about. `None` where the system doesn't tell.
    pub resident: Option<u64>,
    /// Above this nobody new comes in; 0 for no ceiling.
    pub ceiling: u64,
    /// Publications that are kept, with what they are managed with.
    pub histories: u64,
    /// Channels of which something is kept.
    pub kept_channels: u64,
    /// What waits to be written, as in the queues of the workers.
    pub queues: u64,
    /// Addresses of clients that are remembered.
    pub addresses: u64,
}
