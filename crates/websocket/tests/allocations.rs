//! What is allocated, counted: nothing for a message, nothing for an idle connection, nothing on a
//! peer's word.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use tautline_websocket::conn::{AcceptOptions, Group, WebSocket, WriteQueue, accept, scratch};
use tautline_websocket::proto::{Connection, Event, Limits, Output, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A masked frame with a 16-bit length or less.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => frame.extend([0xFE, (len >> 8) as u8, len as u8]),
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn server() -> Connection {
    Connection::new(
        Role::Server,
        Limits {
            max_fragments: u32::MAX,
            ..Limits::for_messages(64 << 20)
        },
    )
}

/// Echoes what the engine makes of `input`; returns the number of messages.
fn echo(engine: &mut Connection, input: &mut [u8], out: &mut impl Output) -> usize {
    let mut messages = 0;
    let mut events = engine.receive(input);
    while let Some((event, mut sender)) = events.next_with_sender(out) {
        messages += 1;
        match event {
            Event::Text(text) => sender.send_text(text, out).expect("open"),
            Event::Binary(bytes) => sender.send_binary(bytes, out).expect("open"),
            _ => messages -= 1,
        }
    }
    messages
}

#[track_caller]
fn assert_none(info: AllocationInfo) {
    assert_eq!((info.count_total, info.bytes_total), (0, 0));
}

#[test]
fn messages_that_come_whole_are_not_allocated() {
    let frames = [
        frame(0x81, "grüße".as_bytes()),
        frame(0x82, &[7; 4000]),
        frame(0x89, b"ping"),
    ];
    let mut input = frames.concat();
    let (mut engine, mut out) = (server(), Vec::with_capacity(8000));
    assert_none(measure(|| {
        for _ in 0..100 {
            out.clear();
            assert_eq!(echo(&mut engine, &mut input, &mut out), 2);
        }
    }));
}

/// A header that announces 15 MiB gets the few bytes that say where in a message we are.
#[test]
fn nothing_is_reserved_on_the_peers_word() {
    let (mut engine, mut out) = (server(), Vec::new());
    let mut header = [0x82, 0xFF, 0, 0, 0, 0, 0, 0xF0, 0, 0, 1, 2, 3, 4];
    let info = measure(|| assert_eq!(echo(&mut engine, &mut header, &mut out), 0));
    assert!(info.bytes_max < 512, "{} bytes", info.bytes_max);
    // And as it comes, what is kept is at most twice what came.
    let info = measure(|| {
        for _ in 0..100 {
            echo(&mut engine, &mut [1; 1000], &mut out);
        }
    });
    assert!(info.bytes_max < 2 * 100_000, "{} bytes", info.bytes_max);
}

/// 200 KB in fragments of one byte cost what 200 KB cost.
#[test]
fn fragments_are_not_kept_one_by_one() {
    let (mut engine, mut out) = (server(), Vec::with_capacity(1 << 20));
    let mut input: Vec<u8> = (0..200_000u32)
        .flat_map(|n| {
            let first = u8::from(n == 0) | u8::from(n == 199_999) << 7;
            frame(first, b"x")
        })
        .collect();
    let info = measure(|| assert_eq!(echo(&mut engine, &mut input, &mut out), 1));
    assert!(info.count_total < 32, "{} allocations", info.count_total);
    assert!(
        info.bytes_max < 2 * 262_144 + 1000,
        "{} bytes at once",
        info.bytes_max
    );
    assert!(
        info.bytes_total < 4 * 262_144,
        "{} bytes in all",
        info.bytes_total
    );
}

/// After a message that came in parts, and a ping between them, nothing is left.
#[test]
fn a_burst_leaves_nothing_behind() {
    let (mut engine, mut out) = (server(), Vec::with_capacity(1 << 20));
    let burst = [
        frame(0x01, &[b'a'; 40_000]),
        frame(0x89, b"ping"),
        frame(0x80, &[b'b'; 24_000]),
    ]
    .concat();
    let info = measure(|| {
        for chunk in burst.chunks(1000) {
            echo(&mut engine, &mut chunk.to_vec(), &mut out);
        }
    });
    assert!(info.bytes_max >= 64_000);
    assert_eq!((info.count_current, info.bytes_current), (0, 0));
}

/// A stream that gives the same bytes again and again, then stays pending, and takes everything.
struct Repeating {
    bytes: Vec<u8>,
    times: usize,
    written: usize,
}

impl AsyncRead for Repeating {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.times == 0 {
            return Poll::Pending;
        }
        self.times -= 1;
        buffer.put_slice(&self.bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Repeating {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.written += len;
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls until it is pending without having been woken, at most a thousand times.
fn poll_to_rest<F: Future + Unpin>(mut future: F) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
    }
}

/// The handler path allocates nothing for a message, and an idle connection holds nothing.
#[test]
fn serving_allocates_nothing() {
    let bytes = [frame(0x81, b"hello"), frame(0x82, &[9; 500])].concat();
    let serving = |times| {
        let mut io = Repeating {
            bytes: bytes.clone(),
            times,
            written: 0,
        };
        let ws = WebSocket::new(&mut io, server());
        let mut served =
            Box::pin(ws.serve(|message, replies| replies.send(message).expect("open")));
        let info = measure(|| poll_to_rest(served.as_mut()));
        drop(served);
        assert_eq!(io.written, times * (7 + 504));
        info
    };
    // The thread's read buffer and cork are made once.
    serving(10);
    assert_none(serving(5000));
}

/// `recv` makes the message it returns and nothing else, and nothing is kept between messages.
#[test]
fn receiving_keeps_nothing() {
    let bytes = [frame(0x81, &[b'x'; 100]), frame(0x82, &[9; 60])].concat();
    let receiving = |times| {
        let mut io = Repeating {
            bytes: bytes.clone(),
            times,
            written: 0,
        };
        let mut ws = WebSocket::new(&mut io, server());
        let mut cx = Context::from_waker(Waker::noop());
        measure(|| {
            let mut messages = 0;
            while let Poll::Ready(message) = ws.poll_recv(&mut cx) {
                ws.queue(&message.expect("good").expect("open"))
                    .expect("open");
                messages += 1;
            }
            assert_eq!(messages, 2 * times);
        })
    };
    receiving(3);
    let info = receiving(4);
    assert_eq!((info.count_current, info.bytes_current), (0, 0));
    // Two messages, and once a read the rest of it: the second message, until it is asked for.
    assert!(
        info.count_total <= 4 * 4,
        "{} allocations",
        info.count_total
    );
}

#[test]
fn the_scratch_buffer_is_made_once() {
    scratch::with(|_| ());
    assert_none(measure(|| {
        for _ in 0..100 {
            scratch::with(|buffer| buffer[0] = 1);
        }
    }));
}

/// A publication to a subscriber with nothing else to be written: no buffer, no copy.
#[test]
fn a_shared_write_to_an_empty_queue_allocates_nothing() {
    let publication = Bytes::from(vec![1; 200]);
    let mut io = Repeating {
        bytes: Vec::new(),
        times: 0,
        written: 0,
    };
    let mut queue = WriteQueue::new();
    // The first clone of a `Bytes` makes its counter.
    let _clone = publication.clone();
    assert_none(measure(|| {
        for _ in 0..100 {
            queue.push_shared(&publication);
            let poll = queue.poll_write(&mut Context::from_waker(Waker::noop()), &mut io);
            assert!(poll.is_ready());
        }
    }));
    assert_eq!(io.written, 20_000);
}

/// A stream that is never read from, and takes everything.
struct Taking(Arc<AtomicUsize>);

impl AsyncRead for Taking {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Taking {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a publication allocates doesn't depend on how many members it is written to.
#[test]
fn a_publication_allocates_nothing_for_a_member() {
    let publishing = |members: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (group, written) = (Group::new(), Arc::<AtomicUsize>::default());
        let publish = |times: usize| {
            for _ in 0..times {
                let before = written.load(Ordering::Relaxed);
                group.publish(&[7; 100][..]).expect("room");
                runtime.block_on(async {
                    while written.load(Ordering::Relaxed) < before + members * 102 {
                        tokio::task::yield_now().await;
                    }
                });
            }
        };
        runtime.block_on(async {
            for _ in 0..members {
                let mut ws = WebSocket::new(Taking(Arc::clone(&written)), server());
                ws.join(&group).expect("open");
                tokio::spawn(ws.serve_member(|_, _| ()));
            }
            while group.len() < members {
                tokio::task::yield_now().await;
            }
        });
        // What is kept from one to the next is made now.
        publish(3);
        measure(|| publish(10)).count_total
    };
    assert_eq!(publishing(10), publishing(1000));
}

/// Corks come from the thread's pool and go back to it.
#[test]
fn an_empty_queue_holds_nothing() {
    let mut io = Repeating {
        bytes: Vec::new(),
        times: 0,
        written: 0,
    };
    let mut write = |len: usize| {
        let payload = vec![1; len];
        measure(|| {
            let mut queue = WriteQueue::new();
            queue.put(&payload);
            let poll = queue.poll_write(&mut Context::from_waker(Waker::noop()), &mut io);
            assert!(poll.is_ready());
        })
    };
    write(10_000);
    assert_none(write(10_000));
    // One that has grown beyond what is worth keeping is freed: what it has taken out of the pool
    // may be missing, nothing more.
    let info = write(1 << 20);
    assert!(info.bytes_current <= 0, "{} bytes", info.bytes_current);
}

#[cfg(feature = "deflate")]
mod deflate {
    use tautline_websocket::proto::Extensions;
    use tautline_websocket::proto::deflate::{MessageCodec, ServerConfig};

    use super::*;

    fn deflating() -> Connection {
        let agreement = ServerConfig::default()
            .accept(["permessage-deflate; client_max_window_bits"])
            .expect("acceptable");
        server().with_extensions(Extensions::deflate(agreement))
    }

    fn echo(
        codec: &mut MessageCodec,
        engine: &mut Connection,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> usize {
        let mut messages = 0;
        let mut events = engine.receive_with(input, codec);
        while let Some((event, mut sender)) = events.next_with_sender(out) {
            if let Event::Text(text) = event {
                sender.send_text(text, out).expect("open");
                messages += 1;
            }
        }
        messages
    }

    /// A message that is read and compressed again, of 300 bytes.
    fn input(codec: &mut MessageCodec) -> Vec<u8> {
        let text = "{\"price\": 1.25}".repeat(19);
        let mut out = Vec::new();
        let mut engine = deflating();
        engine
            .sender_with(codec)
            .send_text(&text, &mut out)
            .expect("open");
        assert!(out.len() < 126, "{} bytes", out.len());
        frame(out[0], &out[2..])
    }

    /// Once the codec has what it needs and the connection has its history, nothing is allocated
    /// for a message.
    #[test]
    fn compressed_messages_are_not_allocated() {
        let mut codec = MessageCodec::default();
        // Masked with a key of zeros, so it can be read again and again.
        let mut input = input(&mut codec);
        let (mut engine, mut out) = (deflating(), Vec::with_capacity(8000));
        for _ in 0..400 {
            out.clear();
            assert_eq!(echo(&mut codec, &mut engine, &mut input, &mut out), 1);
        }
        assert_none(measure(|| {
            for _ in 0..100 {
                out.clear();
                assert_eq!(echo(&mut codec, &mut engine, &mut input, &mut out), 1);
            }
        }));
    }

    /// What an idle connection keeps after traffic: the plaintext that may be referred to, 1 KiB
    /// from the peer and 1 KiB to it, with next to nothing around.
    #[test]
    fn a_connection_keeps_its_windows_and_no_more() {
        let mut codec = MessageCodec::default();
        let mut input = input(&mut codec);
        let mut out = Vec::with_capacity(8000);
        let mut warm = deflating();
        for _ in 0..400 {
            out.clear();
            echo(&mut codec, &mut warm, &mut input, &mut out);
        }
        let mut engine = deflating();
        let info = measure(|| {
            for _ in 0..100 {
                out.clear();
                echo(&mut codec, &mut engine, &mut input, &mut out);
            }
        });
        assert!(
            info.bytes_current >= 2 * 1024,
            "{} bytes",
            info.bytes_current
        );
        assert!(
            info.bytes_current <= 2 * 1024 + 160,
            "{} bytes",
            info.bytes_current
        );
        // And before there was any, nothing.
        assert_none(measure(|| drop(deflating())));
    }

    /// A large message doesn't leave the codec large.
    #[test]
    fn a_burst_does_not_stay_in_the_codec() {
        let agreement = ServerConfig {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            // What is sent here comes back as if the client had sent it, so both have the same window.
            client_max_window_bits: 15,
            ..ServerConfig::default()
        }
        .accept(["permessage-deflate; client_max_window_bits"])
        .expect("acceptable");
        let mut engine = server().with_extensions(Extensions::deflate(agreement));
        let mut codec = MessageCodec::default();
        let mut small = input(&mut codec);
        let mut out = Vec::with_capacity(1 << 20);
        echo(&mut codec, &mut engine, &mut small, &mut out);
        let mut long = Vec::new();
        let text = (0..200_000).map(|n| format!("{n} ")).collect::<String>();
        engine
            .sender_with(&mut codec)
            .send_text(&text, &mut long)
            .expect("open");
        // Back in as the client's: 64-bit length, or 16.
        let header = if long[1] == 127 { 10 } else { 4 };
        let mut masked = long[..header].to_vec();
        masked[1] |= 0x80;
        masked.extend([0; 4]);
        masked.extend_from_slice(&long[header..]);
        let info = measure(|| {
            out.clear();
            assert_eq!(echo(&mut codec, &mut engine, &mut masked, &mut out), 1);
            out = Vec::new();
            echo(&mut codec, &mut engine, &mut small, &mut out);
            out = Vec::new();
        });
        assert!(info.bytes_max > text.len() as u64);
        assert!(
            info.bytes_current < 600 * 1024,
            "{} bytes",
            info.bytes_current
        );
    }
}

/// A task keeps a place for each variable that a connection was ever moved through, and for each
/// future that was awaited on the way; so neither may be large.
#[test]
fn what_a_task_keeps_of_a_connection_is_small() {
    async fn natural(stream: tokio::io::DuplexStream, options: &AcceptOptions) {
        let Ok(accepted) = accept(stream, options).await else {
            return;
        };
        let websocket = accepted.websocket;
        let _ = websocket
            .serve(|message, replies| {
                let _ = replies.send(message);
            })
            .await;
    }
    let (options, (stream, _)) = (AcceptOptions::default(), tokio::io::duplex(1));
    let task = natural(stream, &options);
    assert!(size_of_val(&task) <= 256, "{} bytes", size_of_val(&task));
}

/// Connections that others send to.
mod attached {
    use tautline_websocket::conn::{Group, Tracker};
    use tautline_websocket::proto::KeepAliveOptions;

    use super::*;

    fn idle() -> Repeating {
        Repeating {
            bytes: Vec::new(),
            times: 0,
            written: 0,
        }
    }

    /// However many members a group has: a publication makes one frame, and what it takes to share it.
    #[test]
    fn a_publication_is_made_once_for_all_members() {
        let group = Group::new();
        let mut members: Vec<_> = (0..200)
            .map(|_| {
                let mut ws = WebSocket::new(idle(), server());
                ws.join(&group).expect("open");
                ws
            })
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut publish = |times: usize| {
            measure(|| {
                for _ in 0..times {
                    group.publish(&[7; 300][..]).expect("room");
                    for ws in &mut members {
                        assert!(ws.poll_recv(&mut cx).is_pending());
                    }
                }
            })
        };
        publish(3);
        let info = publish(10);
        assert!(info.count_total <= 10 * 4, "{}", info.count_total);
        assert_eq!((info.count_current, info.bytes_current), (0, 0));
    }

    /// What is attached to a connection. 64-bit.
    #[test]
    fn what_is_attached_is_small() {
        let (group, tracker) = (Group::new(), Tracker::new());
        let mut plain = WebSocket::new(idle(), server());
        let mut cx = Context::from_waker(Waker::noop());
        let mut connections = Vec::with_capacity(100);
        // The thread's read buffer is made once.
        scratch::with(|_| ());
        assert_none(measure(|| assert!(plain.poll_recv(&mut cx).is_pending())));
        let info = measure(|| {
            for _ in 0..100 {
                let mut ws = WebSocket::new(idle(), server());
                ws.join(&group).expect("open");
                ws.track(&tracker);
                let _ = ws.sender(1000);
                assert!(ws.poll_recv(&mut cx).is_pending());
                connections.push(ws);
            }
        });
        let each = info.bytes_current / 100;
        assert!(each <= 768, "{each} bytes");
        drop(connections);
        assert_eq!((group.len(), tracker.len()), (0, 0));
    }

    /// A message through a sender: the message itself and its place in the queue.
    #[test]
    fn a_sender_keeps_nothing() {
        let mut ws = WebSocket::new(idle(), server());
        let sender = ws.sender(10_000);
        let mut cx = Context::from_waker(Waker::noop());
        let mut send = || {
            measure(|| {
                for _ in 0..10 {
                    sender.try_send("a message").expect("room");
                }
                assert!(ws.poll_recv(&mut cx).is_pending());
            })
        };
        send();
        let info = send();
        assert_eq!((info.count_current, info.bytes_current), (0, 0));
        assert!(info.count_total <= 20, "{}", info.count_total);
    }

    /// A watch over the peer costs a timer, and messages don't touch it.
    #[tokio::test(start_paused = true)]
    async fn a_watched_connection_allocates_nothing_for_messages() {
        let bytes = frame(0x81, b"hello");
        let mut io = Repeating {
            bytes,
            times: 100,
            written: 0,
        };
        let ws = WebSocket::new(&mut io, server()).with_keep_alive(KeepAliveOptions::default());
        let mut served =
            Box::pin(ws.serve(|message, replies| replies.send(message).expect("open")));
        let mut cx = Context::from_waker(Waker::noop());
        let _ = served.as_mut().poll(&mut cx);
        let info = measure(|| {
            for _ in 0..100 {
                let _ = served.as_mut().poll(&mut cx);
            }
        });
        drop(served);
        // The timer and what it lies in, made when the connection first waited.
        assert!(info.count_total <= 2, "{}", info.count_total);
        assert_eq!(io.written, 700);
    }
}
