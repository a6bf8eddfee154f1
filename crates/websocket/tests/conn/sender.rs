//! `Sender` and `Tracker`: reaching a connection from outside its task.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tautline_websocket::conn::{Error, SendError, StillOpen, Tracker, TrySendError};
use tautline_websocket::proto::{CloseCode, Message, Misuse};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep};

use crate::support::{Did, Input, Scripted, frame, in_a_day, in_time, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_from_any_thread_in_order() {
    in_time(async {
        let (near, mut far) = duplex(300);
        let mut ws = server(near);
        // Room for two.
        let sender = ws.sender(200);
        tokio::spawn(ws.serve(|message, replies| replies.send(message).unwrap()));
        far.write_all(&frame(0x81, b"reply")).await.unwrap();
        let mut reply = [0; 7];
        far.read_exact(&mut reply).await.unwrap();
        let sending: Vec<_> = (0..3u8)
            .map(|of| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for n in 0..200 {
                        sender.send(vec![of, n]).await.unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; 3];
        for _ in 0..600 {
            let mut message = [0; 4];
            far.read_exact(&mut message).await.unwrap();
            assert_eq!((message[0], message[1]), (0x82, 2));
            let next = &mut next[usize::from(message[2])];
            assert_eq!(message[3], *next);
            *next += 1;
        }
        for task in sending {
            task.await.unwrap();
        }
        assert_eq!(sender.backlog(), 0);
        drop(far);
        sender.closed().await;
        assert!(matches!(sender.try_send("x"), Err(TrySendError::Closed(_))));
    })
    .await;
}

/// A peer that doesn't read fills the queue, and nothing else.
#[tokio::test]
async fn a_full_queue_says_so() {
    in_time(async {
        let mut ws = server(Scripted::new([Input::Never]));
        let sender = ws.sender(300);
        assert_eq!(sender.try_send(vec![0; 1000]), Ok(()), "larger, but alone");
        assert!(
            matches!(sender.try_send("x"), Err(TrySendError::Full(message)) if message == Message::from("x"))
        );
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ws.poll_recv(&mut cx).is_pending());
        for _ in 0..3 {
            sender.try_send(vec![0; 36]).unwrap();
        }
        assert_eq!(sender.backlog(), 300);
        // Whoever waits for room and gives up has sent nothing, and leaves the room to others.
        let mut first = Box::pin(sender.send("first"));
        let mut second = pin!(sender.send("second"));
        assert!(
            first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending()
        );
        assert!(ws.poll_recv(&mut cx).is_pending());
        drop(first);
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
        assert!(ws.poll_recv(&mut cx).is_pending());
        let written = ws.get_ref().written();
        assert!(written.ends_with(b"\x81\x06second") && !written.windows(5).any(|w| w == b"first"));
        // It is told of the end.
        let mut third = pin!(sender.closed());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        sender.try_send("lost").unwrap();
        drop(ws);
        assert!(third.as_mut().poll(&mut cx).is_ready() && sender.is_closed());
        assert_eq!(sender.send("x").await, Err(SendError(Message::from("x"))));
    })
    .await;
}

/// What a sender sends is only taken as the peer reads: 64 KiB at a time.
#[tokio::test]
async fn the_write_backlog_stays_bounded() {
    in_time(async {
        let (near, far) = duplex(100);
        let mut ws = server(near);
        let sender = ws.sender(1 << 20);
        for _ in 0..100 {
            sender.try_send(vec![1; 10_000]).unwrap();
        }
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            assert!(ws.poll_recv(&mut cx).is_pending());
        }
        assert!((60_000..80_000).contains(&ws.backlog()), "{}", ws.backlog());
        assert!(sender.backlog() > 900_000);
        drop(far);
    })
    .await;
}

/// A Close from elsewhere comes behind what was sent before, and bounds the time that is left,
/// though the peer reads nothing.
#[tokio::test(start_paused = true)]
async fn closing_from_elsewhere() {
    in_a_day(async {
        let mut io = Scripted::new([
            Input::Pending,
            Input::Bytes(frame(0x88, b"\x0F\xA0")),
            Input::End,
        ]);
        let mut ws = server(&mut io);
        let sender = ws.sender(1000);
        sender.try_send("last words").unwrap();
        assert_eq!(
            sender.close(CloseCode::from(1005), ""),
            Err(Misuse::UnsendableCloseCode(1005.into()))
        );
        sender.close(CloseCode::from(4000), "bye").unwrap();
        sender.close(CloseCode::from(4001), "again").unwrap();
        assert!(matches!(
            sender.try_send("more"),
            Err(TrySendError::Closed(_))
        ));
        assert_eq!(ws.recv().await.unwrap(), None);
        drop(ws);
        assert_eq!(
            io.did[0],
            Did::Wrote(b"\x81\x0Alast words\x88\x05\x0F\xA0bye".into())
        );

        let (near, _far) = duplex(100);
        let mut ws = server(near).with_close_timeout(Duration::from_secs(3));
        let sender = ws.sender(1000);
        ws.queue(&vec![0; 200_000]).unwrap();
        let start = Instant::now();
        let closing = async {
            sleep(Duration::from_secs(2)).await;
            sender.close(CloseCode::NORMAL, "").unwrap();
            sender.closed().await;
        };
        let (ended, ()) = tokio::join!(ws.serve(|_, _| ()), closing);
        assert!(matches!(ended, Err(Error::TimedOut)), "{ended:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tracker_closes_all_and_waits() {
    in_a_day(async {
        let tracker = Tracker::new();
        let mut fars = Vec::new();
        for served in [true, false, true] {
            let (near, far) = duplex(1000);
            let mut ws = server(near).with_close_timeout(Duration::from_secs(20));
            ws.track(&tracker);
            ws.track(&tracker);
            tokio::spawn(async move {
                if served {
                    let _ = ws.serve(|_, _| ()).await;
                } else {
                    while let Ok(Some(_)) = ws.recv().await {}
                }
            });
            fars.push(far);
        }
        assert_eq!(tracker.len(), 3);
        let code = CloseCode::SERVICE_RESTART;
        let second = Duration::from_secs(1);
        let left = tracker.shutdown(code, "back soon", second).await.unwrap();
        assert_eq!(left, Err(StillOpen(3)), "nobody has answered");
        for far in &mut fars {
            let mut close = [0; 13];
            far.read_exact(&mut close).await.unwrap();
            assert_eq!(&close, b"\x88\x0B\x03\xF4back soon");
            far.write_all(&frame(0x88, b"\x03\xF4")).await.unwrap();
            far.shutdown().await.unwrap();
        }
        assert_eq!(tracker.shutdown(code, "", second).await.unwrap(), Ok(()));
        // One that comes late is told at once.
        let (near, mut far) = duplex(1000);
        let mut late = server(near);
        late.track(&tracker);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(late.poll_recv(&mut cx).is_pending());
        let mut close = [0; 13];
        far.read_exact(&mut close).await.unwrap();
        assert_eq!(close[..4], [0x88, 11, 3, 0xF4]);
        drop(late);
        tracker.wait().await;
    })
    .await;
}

/// A connection with nothing attached has nothing of all this.
#[test]
fn connections_stay_small() {
    let size = size_of::<tautline_websocket::conn::WebSocket<tokio::net::TcpStream>>();
    assert!(size <= 336, "{size} bytes");
}
