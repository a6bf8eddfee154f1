//! Peers that are gone without a word.

#![cfg(target_os = "linux")]

use socket2::{SockFilter, SockRef};

/// Has a client be gone as a phone is that lost its network: whatever comes for it from now on is dropped before the system has
/// looked at it, so that nothing is acknowledged, and nothing is said as long as `stream` is kept and not written to.
pub(crate) fn vanish<'s>(stream: impl Into<SockRef<'s>>) {
    stream
        .into()
        .attach_filter(&[DROP])
        .expect("anybody may filter what comes for himself");
}

/// BPF's `ret #0`: of a packet, so many bytes are kept.
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);
