//! The write queue: order, partial writes, how many writes.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;
use tautline_websocket::conn::{SHARE_FROM, WriteQueue};
use tautline_websocket::proto::Output;

use crate::support::{Did, Scripted};

#[derive(Clone, Debug)]
enum Op {
    Put(usize),
    PutParts(usize, usize),
    Share(usize),
    /// One poll, with a stream that takes so many bytes in all its writes together.
    Write {
        room: usize,
        at_once: usize,
    },
    /// Hands so many bytes at the most on.
    Take(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let len =
        prop_oneof![3 => 0..100usize, 1 => SHARE_FROM - 2..SHARE_FROM + 3, 1 => 0..30_000usize];
    prop_oneof![
        3 => len.clone().prop_map(Op::Put),
        1 => (0..20usize, len.clone()).prop_map(|(head, body)| Op::PutParts(head, body)),
        3 => len.clone().prop_map(Op::Share),
        2 => (1..30_000usize).prop_map(Op::Take),
        3 => (len, 1..20_000usize).prop_map(|(room, at_once)| Op::Write { room, at_once }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is put, shared and written in whatever portions: what comes out is what went in,
    /// and the length is right at all times.
    #[test]
    fn bytes_come_out_in_order(ops in prop::collection::vec(op(), 1..40), vectored: bool) {
        let mut queue = WriteQueue::new();
        let mut io = Limited { room: 0, at_once: 0, vectored, written: Vec::new() };
        let mut expected = Vec::new();
        let mut next = 0u8;
        let mut fresh = |len| -> Vec<u8> {
            next = next.wrapping_add(1);
            vec![next; len]
        };
        for op in ops {
            match op {
                Op::Put(len) => {
                    let bytes = fresh(len);
                    queue.put(&bytes);
                    expected.extend(bytes);
                }
                Op::PutParts(head, body) => {
                    let (head, body) = (fresh(head), fresh(body));
                    queue.put_parts(&head, &body);
                    expected.extend(head.into_iter().chain(body));
                }
                Op::Share(len) => {
                    let bytes = fresh(len);
                    queue.push_shared(&Bytes::from(bytes.clone()));
                    expected.extend(bytes);
                }
                Op::Take(max) => {
                    let waiting = queue.len();
                    let taken = queue.take(max);
                    prop_assert!(taken.len() <= max && taken.is_empty() == (waiting == 0));
                    io.written.extend_from_slice(&taken);
                }
                Op::Write { room, at_once } => {
                    (io.room, io.at_once) = (room, at_once);
                    let poll = queue.poll_write(&mut Context::from_waker(Waker::noop()), &mut io);
                    prop_assert_eq!(poll.is_ready(), queue.is_empty());
                }
            }
            prop_assert_eq!(queue.len(), expected.len() - io.written.len());
            prop_assert_eq!(queue.backlog(), queue.len());
        }
        (io.room, io.at_once) = (usize::MAX, 1000);
        let poll = queue.poll_write(&mut Context::from_waker(Waker::noop()), &mut io);
        prop_assert!(matches!(poll, Poll::Ready(Ok(()))));
        prop_assert!(queue.is_empty());
        prop_assert!(io.written == expected);
    }
}

/// A stream that takes `room` bytes, `at_once` in one write, then no more.
struct Limited {
    room: usize,
    at_once: usize,
    vectored: bool,
    written: Vec<u8>,
}

impl tokio::io::AsyncWrite for Limited {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        assert!(!bytes.is_empty());
        let taken = bytes.len().min(self.room).min(self.at_once);
        if taken == 0 {
            return Poll::Pending;
        }
        self.room -= taken;
        self.written.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        assert!(self.vectored && slices.iter().all(|slice| !slice.is_empty()));
        let bytes = slices
            .iter()
            .map(|slice| &**slice)
            .collect::<Vec<_>>()
            .concat();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Small writes, shared or not, leave in one write; so do large ones where the stream is vectored.
#[tokio::test]
async fn what_was_queued_leaves_in_one_write() {
    for large in [false, true] {
        let (mut queue, mut io) = (WriteQueue::new(), Scripted::new([]));
        let shared = Bytes::from(vec![b's'; if large { SHARE_FROM } else { 200 }]);
        for _ in 0..10 {
            queue.push_shared(&shared);
            queue.put(b"small");
        }
        poll_fn(|cx| queue.poll_write(cx, &mut io)).await.unwrap();
        assert_eq!(
            io.did,
            [Did::Wrote([&shared[..], b"small"].concat().repeat(10))]
        );
    }
}

/// What goes to many subscribers is not copied for one that has nothing else to be written.
#[test]
fn the_first_shared_write_is_not_copied() {
    let mut queue = WriteQueue::new();
    let shared = Bytes::from(b"publication".to_vec());
    queue.push_shared(&shared);
    assert!(!shared.is_unique(), "the queue refers to it");
    queue.put(b"more");
    assert!(shared.is_unique(), "small, and no longer alone: copied");
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_an_error() {
    let mut queue = WriteQueue::new();
    queue.put(b"hello");
    let mut io = Scripted {
        takes: 0,
        ..Scripted::new([])
    };
    let error = poll_fn(|cx| queue.poll_write(cx, &mut io))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteZero);
    assert_eq!(queue.len(), 5);
}
