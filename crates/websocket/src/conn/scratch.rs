//! One read buffer a thread, lent to whichever connection is being read.
//!
//! Most connections of a server are idle at any moment, and a connection that waits needs no
//! buffer. What was read is parsed in place before the buffer goes back, so nothing in it has to
//! outlive the call.

use std::cell::Cell;

/// Bytes in a scratch buffer: what one read may bring. Small messages touch the start of it alone;
/// a stream of large ones costs less than half of what it does in reads of 64 KiB.
pub const SIZE: usize = 256 * 1024;

/// Lends the thread's buffer, [`SIZE`] bytes of whatever the last user left in it.
///
/// The buffer is taken for the length of the call. Should `read` come here again, as when it polls
/// another connection, a fresh buffer is made for the inner call and dropped after it.
///
/// ```
/// use tautline_websocket::conn::scratch;
///
/// let filled = scratch::with(|buffer| {
///     buffer[..5].copy_from_slice(b"hello");
///     5
/// });
/// assert_eq!(filled, 5);
/// ```
#[inline]
pub fn with<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    // Also `None` while the thread is being torn down.
    let mut buffer = BUFFER
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
    let result = read(&mut buffer);
    let _ = BUFFER.try_with(|place| place.set(Some(buffer)));
    result
}

thread_local! {
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_buffer_is_lent_again() {
        let first = with(|buffer| buffer.as_ptr());
        let second = with(|buffer| buffer.as_ptr());
        assert_eq!(first, second);
    }

    #[test]
    fn a_nested_call_gets_a_buffer_of_its_own() {
        with(|outer| {
            outer[0] = 1;
            with(|inner| {
                inner[0] = 2;
                assert_eq!(inner.len(), SIZE);
            });
            assert_eq!(outer[0], 1);
        });
    }
}
