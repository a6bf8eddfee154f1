//! One [`MessageCodec`] a thread, lent to whichever connection receives or sends.
//!
//! As [`scratch`](super::scratch) is for reading, this is for permessage-deflate: state that is
//! large, and that no connection needs between two calls.

use std::cell::Cell;

use crate::proto::deflate::MessageCodec;

/// Sets what the connections of this thread compress with from now on: its level, from which length,
/// and how much each keeps of what it has sent. Without it, it is [`MessageCodec::default`].
///
/// To be called once on each thread that drives connections, before it does: at the start of a
/// worker's thread, or in `tokio::runtime::Builder::on_thread_start`. Where connections wander
/// between threads, all of these should have the same.
///
/// ```
/// use tautline_websocket::conn::set_thread_codec;
/// use tautline_websocket::proto::deflate::MessageCodec;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread()
///     .on_thread_start(|| set_thread_codec(MessageCodec::new(2).with_memory(2048)))
///     .build();
/// ```
pub fn set_thread_codec(codec: MessageCodec) {
    // Fails only while the thread is being torn down, and then it has no connections.
    let _ = CODEC.try_with(|place| place.set(Some(Box::new(codec))));
}

/// Lends the thread's codec, with the settings of [`MessageCodec::default`] unless
/// [`set_thread_codec`] has set others.
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
