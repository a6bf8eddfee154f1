//! `Stream`, `Sink` and `Handler`.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::{SinkExt, StreamExt};
use tautline_websocket::conn::{Ended, Error, Handler, Replies};
use tautline_websocket::proto::{Message, MessageRef, Misuse, PeerFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::support::{Did, Input, Scripted, frame, in_time, server};

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
