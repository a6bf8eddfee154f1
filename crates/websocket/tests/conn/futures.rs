//! `Stream`, `Sink` and `Handler`.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::{self, SplitSink};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tautline_websocket::conn::{Ended, Error, Handler, Replies, SHARE_FROM, WebSocket};
use tautline_websocket::proto::frame::{OpCode, write_unmasked};
use tautline_websocket::proto::{
    CloseCode, Connection, KeepAliveOptions, Limits, Message, MessageRef, Misuse, PeerFault, Role,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::support::{Did, Input, Scripted, frame, in_a_day, in_time, server};

#[tokio::test]
async fn a_connection_is_a_stream_that_ends_once() {
    in_time(async {
        let input = [frame(0x81, b"a"), frame(0x82, b"b"), frame(0x83, b"")].concat();
        let mut ws = server(Scripted::one_by_one(&input));
        assert_eq!(ws.next().await.unwrap().unwrap(), Message::from("a"));
        assert_eq!(ws.next().await.unwrap().unwrap(), Message::from(&b"b"[..]));
        let fault = ws.next().await.unwrap();
        assert!(matches!(
            fault,
            Err(Error::Peer(PeerFault::ReservedOpCode(3)))
        ));
        assert!(ws.next().await.is_none() && ws.next().await.is_none());

        let mut ws = server(Scripted::new([Input::Bytes(frame(0x88, b""))]));
        assert!(ws.next().await.is_none());
    })
    .await;
}

/// `feed` only queues, `send` and `flush` return when all is written, `close` sends a Close and
/// leaves what comes to the stream.
#[tokio::test]
async fn a_connection_is_a_sink_that_keeps_its_word() {
    in_time(async {
        let input = Input::Bytes([frame(0x81, b"crossing"), frame(0x88, b"\x03\xE8")].concat());
        let mut ws = server(Scripted::new([input]));
        ws.feed("a".into()).await.unwrap();
        assert_eq!(ws.get_ref().did, []);
        SinkExt::send(&mut ws, "b".into()).await.unwrap();
        assert_eq!(ws.get_ref().did, [Did::Wrote(b"\x81\x01a\x81\x01b".into())]);
        SinkExt::close(&mut ws).await.unwrap();
        assert_eq!(ws.get_ref().did[1], Did::Wrote(b"\x88\x02\x03\xE8".into()));
        let late = ws.feed("c".into()).await;
        assert!(matches!(late, Err(Error::Misuse(Misuse::Closing))));
        assert_eq!(ws.next().await.unwrap().unwrap(), Message::from("crossing"));
        assert!(ws.next().await.is_none());
    })
    .await;
}

/// A sink is not ready while much waits.
#[tokio::test]
async fn a_sink_has_backpressure() {
    in_time(async {
        let (near, mut far) = duplex(100);
        let mut ws = server(near);
        let mut cx = Context::from_waker(Waker::noop());
        let mut fed = 0;
        while let Poll::Ready(ready) = ws.poll_ready_unpin(&mut cx) {
            ready.unwrap();
            ws.start_send_unpin(vec![0; 996].into()).unwrap();
            fed += 1;
            assert!(fed < 100);
        }
        assert_eq!(fed, 17);
        let mut read = vec![0; 17_000];
        let (flushed, _) = tokio::join!(SinkExt::flush(&mut ws), far.read_exact(&mut read));
        flushed.unwrap();
    })
    .await;
}

/// What `futures` can do with any stream and sink it can do with these.
#[tokio::test]
async fn a_stream_is_forwarded_into_a_sink() {
    in_time(async {
        let (near, far) = duplex(64);
        let (sink, stream) = server(near).split();
        let echo = tokio::spawn(stream.map_ok(|message| message).forward(sink));
        let engine = Connection::new(Role::Client(Box::new(|| [7; 4])), Limits::default());
        let mut ws = WebSocket::new(far, engine);
        let mut texts = stream::iter((0..20).map(|n| Ok(Message::from(n.to_string()))));
        ws.send_all(&mut texts).await.unwrap();
        let echoed: Vec<_> = (&mut ws).take(20).try_collect().await.unwrap();
        assert!(
            echoed
                .into_iter()
                .eq((0..20).map(|n| Message::from(n.to_string())))
        );
        WebSocket::close(&mut ws, CloseCode::NORMAL, "")
            .await
            .unwrap();
        echo.await.unwrap().unwrap();
    })
    .await;
}

/// Two tasks with a half each: whichever of them gets the socket's wake, both go on.
#[tokio::test]
async fn halves_may_be_in_two_tasks() {
    in_time(async {
        let (near, mut far) = duplex(64);
        let (mut sink, mut stream) = server(near).split();
        let sending = tokio::spawn(async move {
            for n in 0..50u8 {
                SinkExt::send(&mut sink, vec![n; 100].into()).await.unwrap();
            }
            sink
        });
        let receiving = tokio::spawn(async move {
            let mut received = 0;
            while received < 50 {
                stream.next().await.unwrap().unwrap();
                received += 1;
            }
            stream
        });
        for n in 0..50 {
            far.write_all(&frame(0x81, b"x")).await.unwrap();
            let mut message = [0; 102];
            far.read_exact(&mut message).await.unwrap();
            assert_eq!(message[2], n);
        }
        let (sink, stream) = (sending.await.unwrap(), receiving.await.unwrap());
        assert!(sink.reunite(stream).is_ok());
    })
    .await;
}

const SECOND: Duration = Duration::from_secs(1);

/// Waits in a flush, for a second, in a task that then is no more.
async fn wait_in_a_flush(
    mut sink: SplitSink<WebSocket<DuplexStream>, Message>,
) -> SplitSink<WebSocket<DuplexStream>, Message> {
    let (send, sink_back) = oneshot::channel();
    let task = tokio::spawn(async move {
        assert!(timeout(SECOND, SinkExt::flush(&mut sink)).await.is_err());
        assert!(send.send(sink).is_ok());
    });
    task.await.expect("no panic");
    sink_back.await.expect("no panic")
}

/// The last to look at the clock was the half that sends, and its task is gone: the other one finds the
/// peer dead when it is.
#[tokio::test(start_paused = true)]
async fn a_half_that_receives_is_woken_though_the_other_waited_last() {
    in_a_day(async {
        let (near, mut far) = duplex(64);
        let options = KeepAliveOptions {
            ping_after: Some(10 * SECOND),
            pong_timeout: 3 * SECOND,
            idle_timeout: None,
        };
        let (mut sink, mut stream) = server(near).with_keep_alive(options).split();
        sink.feed(vec![0; 1000].into()).await.unwrap();
        let start = Instant::now();
        let receiving = tokio::spawn(async move { (stream.next().await, start.elapsed()) });
        yield_now().await;
        let sink = wait_in_a_flush(sink).await;
        // Something is read, which is a sign of life, and then nothing.
        far.read_exact(&mut [0; 10]).await.unwrap();
        let (end, after) = receiving.await.unwrap();
        assert!(matches!(end, Some(Err(Error::PeerSilent))), "{end:?}");
        assert!(after < 30 * SECOND, "{after:?}");
        drop(sink);
    })
    .await;
}

/// Who receives reads no more while too many answers wait. When they don't, it is told, though the other half
/// was the last to wait for that, in a task that is gone.
#[tokio::test(start_paused = true)]
async fn a_half_that_waits_for_room_is_woken_though_the_other_waited_last() {
    in_a_day(async {
        let (near, mut far) = duplex(64);
        let (mut sink, mut stream) = server(near).split();
        // Blocked, and then grown. (The half keeps the last that it was fed.)
        sink.feed(vec![1; 100].into()).await.unwrap();
        let mut sink = wait_in_a_flush(sink).await;
        sink.feed(vec![1; 100_000].into()).await.unwrap();
        sink.feed("x".into()).await.unwrap();
        let receiving = tokio::spawn(async move { stream.next().await.unwrap().unwrap() });
        yield_now().await;
        let sink = wait_in_a_flush(sink).await;
        tokio::spawn(async move {
            far.write_all(&frame(0x81, b"at last")).await.unwrap();
            while far.read(&mut [0; 1000]).await.unwrap() > 0 {}
        });
        assert_eq!(receiving.await.unwrap(), Message::from("at last"));
        drop(sink);
    })
    .await;
}

/// One half closes, the other waits for the answer: no longer than it may take.
#[tokio::test(start_paused = true)]
async fn a_half_that_receives_does_not_wait_for_an_answer_without_end() {
    in_a_day(async {
        let (near, far) = duplex(1000);
        let (mut sink, mut stream) = server(near).split();
        let start = Instant::now();
        let receiving = tokio::spawn(async move { (stream.next().await, start.elapsed()) });
        yield_now().await;
        SinkExt::close(&mut sink).await.unwrap();
        let (end, after) = receiving.await.unwrap();
        assert!(matches!(end, Some(Err(Error::TimedOut))), "{end:?}");
        assert_eq!(after, 5 * SECOND);
        drop(far);
    })
    .await;
}

/// A long message is sent from where it is; one that is masked, or short, is copied.
#[tokio::test]
async fn long_messages_that_are_given_away_are_not_copied() {
    in_time(async {
        for (len, refers) in [(SHARE_FROM, true), (1 << 20, true), (SHARE_FROM - 1, false)] {
            for through_a_sink in [true, false] {
                let (near, mut far) = duplex(1 << 21);
                let mut ws = server(near);
                let payload = Bytes::from(vec![b'x'; len]);
                let text = ByteString::try_from(payload.clone()).unwrap();
                ws.queue("before").unwrap();
                if through_a_sink {
                    ws.feed(text.into()).await.unwrap();
                } else {
                    ws.queue_owned(text).unwrap();
                }
                assert_eq!(!payload.is_unique(), refers, "{len} bytes");
                ws.send("behind").await.unwrap();
                assert!(payload.is_unique(), "kept though it was written");
                let mut expected = Vec::new();
                for text in [&b"before"[..], &payload, b"behind"] {
                    write_unmasked(OpCode::Text, text, &mut expected);
                }
                let mut read = vec![0; expected.len()];
                far.read_exact(&mut read).await.unwrap();
                assert!(read == expected, "{len} bytes");
            }
        }
        let client = Connection::new(Role::Client(Box::new(|| [1; 4])), Limits::default());
        let mut ws = WebSocket::new(Scripted::new([]), client);
        let payload = Bytes::from(vec![b'x'; SHARE_FROM]);
        ws.queue_owned(payload.clone()).unwrap();
        assert!(payload.is_unique(), "masked in a copy");
        assert_eq!(ws.backlog(), SHARE_FROM + 8);
    })
    .await;
}

struct Noted(Arc<Mutex<Vec<String>>>);

impl Handler for Noted {
    fn message(&mut self, message: MessageRef<'_>, replies: &mut Replies<'_>) {
        replies.send(message).expect("open");
        self.0
            .lock()
            .expect("not poisoned")
            .push(format!("{} bytes", message.len()));
    }

    fn ended(&mut self, how: Ended<'_>) {
        let how = match how {
            Ended::Closed(closed) => format!("closed: {}", closed.map_or("", |c| &c.reason)),
            Ended::Failed(error) => format!("failed: {error}"),
            Ended::Dropped => "dropped".to_owned(),
        };
        self.0.lock().expect("not poisoned").push(how);
    }
}

#[tokio::test]
async fn a_handler_is_told_of_the_end_once() {
    in_time(async {
        let message = frame(0x81, b"hi");
        let scripts = [
            (
                Input::Bytes([&message[..], &frame(0x88, b"\x03\xE8bye")].concat()),
                "closed: bye",
            ),
            (
                Input::End,
                "failed: the connection was cut off without a closing handshake",
            ),
            (Input::Never, "dropped"),
        ];
        for (last, expected) in scripts {
            let notes = Arc::default();
            let ws = server(Scripted::new([Input::Bytes(message.clone()), last]));
            let mut serving = Box::pin(ws.serve_with(Noted(Arc::clone(&notes))));
            let mut cx = Context::from_waker(Waker::noop());
            let _ = serving.as_mut().poll(&mut cx);
            drop(serving);
            let notes = notes.lock().unwrap();
            assert_eq!(
                notes.iter().filter(|note| *note != "2 bytes").count(),
                1,
                "{notes:?}"
            );
            assert_eq!(notes.last().map(String::as_str), Some(expected));
        }
    })
    .await;
}
