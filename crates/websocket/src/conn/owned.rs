//! Sending messages that somebody owns: long ones are queued by reference, not copied.

use std::ptr;

use bytes::Bytes;

use super::write_queue::{SHARE_FROM, WriteQueue};
use crate::proto::{Message, Output};

/// A queue for the frame of one message. Where the engine puts the message's payload just as it is, which it does unless
/// it is masked or compressed, the queue refers to it.
pub(super) struct Owned<'a> {
    queue: &'a mut WriteQueue,
    payload: &'a Bytes,
}

impl<'a> Owned<'a> {
    pub(super) fn new(queue: &'a mut WriteQueue, message: &'a Message) -> Self {
        let payload = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        };
        Self { queue, payload }
    }
}

impl Output for Owned<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.queue.put(bytes);
    }

    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        if body.len() >= SHARE_FROM && ptr::eq(body, &raw const **self.payload) {
            self.queue.put(head);
            self.queue.push_shared(self.payload);
        } else {
            self.queue.put_parts(head, body);
        }
    }

    fn backlog(&self) -> usize {
        self.queue.backlog()
    }
}
