//! What those have who were let in: counted until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Admission;
use super::table::Key;

/// How many of something there are.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicUsize);

impl Count {
    /// One more, if there are fewer than `limit`.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// One more.
    pub(super) fn add(self: &Arc<Self>) -> Permit {
        self.0.fetch_add(1, Ordering::Relaxed);
        Permit(Arc::clone(self))
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of those that the node has room for; there is room for another when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Count>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Among all of the node's.
    pub(crate) client: Permit,
    /// Among those of its address, if it counts there.
    pub(crate) address: Option<AddressPermit>,
}

/// A connection's or a session's among all that are from its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit(Box<Held>);

// In a box: most of those who have one are idle, and a pointer is all that they have room for.
#[derive(Debug)]
struct Held {
    admission: Arc<Admission>,
    key: Key,
    is_handshake: bool,
    _present: Permit,
}

impl AddressPermit {
    /// For one that was counted.
    pub(super) fn new(admission: &Arc<Admission>, key: Key, is_handshake: bool) -> Self {
        Self(Box::new(Held {
            admission: Arc::clone(admission),
            key,
            is_handshake,
            _present: admission.present.add(),
        }))
    }

    /// It is known now what the connection wants.
    pub(crate) fn begun(&mut self) {
        if std::mem::take(&mut self.0.is_handshake) {
            let addresses = &self.0.admission.addresses;
            addresses.with_known(self.0.key, |address| address.handshakes -= 1);
        }
    }

    /// Whether somebody from there may try who they are; and `user`, where that is known.
    pub(crate) fn may_authenticate(&self, user: Option<&str>, is_good: &dyn Fn() -> bool) -> bool {
        let admission = &self.0.admission;
        let now = admission.now();
        admission.attempt(now, self.0.key, user, is_good).is_ok()
    }

    /// Somebody from there has tried in vain.
    pub(crate) fn note_failed_authentication(&self, user: Option<&str>) {
        let admission = &self.0.admission;
        admission.failure(admission.now(), self.0.key, user);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.admission.addresses.with_known(self.key, |address| {
            address.connections -= 1;
            address.handshakes -= usize::from(self.is_handshake);
        });
    }
}
