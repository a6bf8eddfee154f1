//! Where the engine puts the bytes that are to be written to the peer.

/// A place for outgoing bytes: they are to reach the peer in the order in which they were put.
///
/// Implemented for `Vec<u8>`, and by `conn::WriteQueue` for
/// connections. Putting never blocks and never fails; whoever owns the output bounds it by looking
/// at [`backlog`](Self::backlog) before asking for more input.
pub trait Output {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);

    /// Appends `head`, then `body`. The same as two calls of [`put`](Self::put), but a buffer may
    /// make room once.
    #[inline]
    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        self.put(head);
        self.put(body);
    }

    /// Bytes that were put and not yet written to the peer. The engine looks at it to stop
    /// answering a peer that asks and doesn't read.
    fn backlog(&self) -> usize;
}

impl Output for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        self.reserve(head.len() + body.len());
        self.extend_from_slice(head);
        self.extend_from_slice(body);
    }

    #[inline]
    fn backlog(&self) -> usize {
        self.len()
    }
}

impl<O: Output + ?Sized> Output for &mut O {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        (**self).put(bytes);
    }

    #[inline]
    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        (**self).put_parts(head, body);
    }

    #[inline]
    fn backlog(&self) -> usize {
        (**self).backlog()
    }
}
