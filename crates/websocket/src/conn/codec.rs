//! One [`MessageCodec`] a thread, lent to whichever connection receives or sends.
//!
//! As [`scratch`](super::scratch) is for reading, this is for permessage-deflate: state that is
//! large, and that no connection needs between two calls.

use std::cell::Cell;

use crate::proto::deflate::MessageCodec;

/// Lends the thread's codec, with the settings of [`MessageCodec::default`].
///
/// It is taken for the length of the call. Should `work` come here again, a fresh codec is
/// made for the inner call and dropped after it.
#[inline]
pub(super) fn with<R>(work: impl FnOnce(&mut MessageCodec) -> R) -> R {
    // Also `None` while the thread is being torn down.
    let mut codec = CODEC
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_default();
    let result = work(&mut codec);
    let _ = CODEC.try_with(|place| place.set(Some(codec)));
    result
}

thread_local! {
    static CODEC: Cell<Option<Box<MessageCodec>>> = const { Cell::new(None) };
}
