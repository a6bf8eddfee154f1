//! `WebSocket`: both ways to use it, over one stream after the other.

use std::io;
use std::time::Duration;

use tautline_websocket::conn::{Closed, Error, WebSocket};
use tautline_websocket::proto::{CloseCode, Message, Misuse, PeerFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{Did, Input, Scripted, frame, in_a_day, in_time, server};

/// Echoes with `recv` and `queue`, and returns the stream and how it ended.
async fn echo(io: Scripted) -> (Scripted, Result<(), Error>, Option<Closed>) {
    let mut ws = server(io);
    let result = loop {
        match ws.recv().await {
            Ok(Some(message)) => ws.queue(&message).expect("not closing"),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let closed = ws.closed().cloned();
    (ws.into_parts().0, result, closed)
}

/// Sixteen messages in one read: sixteen answers in one write, with the facade and the handler.
//= rfc6455 2.1-1
#[tokio::test]
async fn the_answers_to_one_read_leave_in_one_write() {
    in_time(async {
        let messages: Vec<u8> = (0..16).flat_map(|n| frame(0x82, &[n; 64])).collect();
        let answers: Vec<u8> = (0..16)
            .flat_map(|n| [&[0x82, 64][..], &[n; 64]].concat())
            .collect();
        let script = || {
            Scripted::new([
                Input::Bytes(messages.clone()),
                Input::Bytes(messages.clone()),
            ])
        };
        let expected = [
            Did::Wrote(answers.clone()),
            Did::Wrote(answers.clone()),
            Did::ReadEnd,
        ];

        let (io, result, _) = echo(script()).await;
        assert!(matches!(result, Err(Error::CutOff)));
        assert_eq!(io.did, expected);

        let mut io = script();
        let result = server(&mut io)
            .serve(|message, replies| replies.send(message).unwrap())
            .await;
        assert!(matches!(result, Err(Error::CutOff)));
        assert_eq!(io.did, expected);
    })
    .await;
}

/// Answers that wait for the rest of a read are written before they grow without end.
#[tokio::test]
async fn a_long_cork_is_written_in_between() {
    in_time(async {
        let messages: Vec<u8> = (0..30).flat_map(|_| frame(0x82, &[1; 2000])).collect();
        let (io, _, _) = echo(Scripted::new([Input::Bytes(messages)])).await;
        let writes: Vec<usize> = io
            .did
            .iter()
            .filter_map(|did| {
                if let Did::Wrote(bytes) = did {
                    Some(bytes.len())
                } else {
                    None
                }
            })
            .collect();
        assert!(
            writes.len() == 4 && writes.iter().all(|len| *len <= 20_000),
            "{writes:?}"
        );
        assert_eq!(writes.iter().sum::<usize>(), 30 * 2004);
    })
    .await;
}

/// A stream that is pending before each byte, in and out.
//= rfc6455 6.1-7, 7.2.1-2
#[tokio::test]
async fn any_stream_will_do() {
    in_time(async {
        let input = [
            frame(0x01, "aé".as_bytes()),
            frame(0x89, b"p"),
            frame(0x80, "€".as_bytes()),
            frame(0x82, &[7; 300]),
            frame(0x88, b"\x03\xE9bye"),
        ]
        .concat();
        let output = [
            b"\x8A\x01p\x81\x06",
            "aé€".as_bytes(),
            b"\x82\x7E\x01\x2C",
            &[7; 300],
            b"\x88\x02\x03\xE9",
        ]
        .concat();
        let (io, result, closed) = echo(Scripted::one_by_one(&input)).await;
        assert!(result.is_ok());
        assert_eq!(
            closed,
            Some(Closed {
                code: CloseCode::GOING_AWAY,
                reason: "bye".into()
            })
        );
        assert_eq!(io.written(), output);
        // §7.1.1: the server ends the stream, and doesn't wait for the client to do so too.
        assert_eq!(io.did.last(), Some(&Did::ShutDown));

        let mut io = Scripted::one_by_one(&input);
        let closed = server(&mut io)
            .serve(|message, replies| replies.send(message).unwrap())
            .await;
        assert_eq!(closed.unwrap().unwrap().code, CloseCode::GOING_AWAY);
        assert_eq!(io.written(), output);
    })
    .await;
}

/// §7.1.7: the Close leaves behind the answers, then writing is shut down, then what the peer still
/// had under way is read, up to its end of stream.
//= rfc6455 7.1.1-1, 7.1.7-5, 7.1.7-4, 7.1.7-7, 7.1.7-1, 7.1.7-3
#[tokio::test]
async fn a_fault_is_told_and_the_rest_is_read() {
    in_time(async {
        let input = [frame(0x81, b"good"), frame(0x83, b"bad")].concat();
        let script = [
            Input::Bytes(input),
            Input::Bytes(vec![0; 100_000]),
            Input::Pending,
            Input::End,
        ];
        let (io, result, _) = echo(Scripted::new(script)).await;
        assert!(matches!(
            result,
            Err(Error::Peer(PeerFault::ReservedOpCode(3)))
        ));
        let [Did::Wrote(answers), Did::ShutDown, Did::ReadEnd] = &io.did[..] else {
            panic!("{:?}", io.did);
        };
        assert!(answers.starts_with(b"\x81\x04good\x88"), "{answers:x?}");
    })
    .await;
}

/// A peer that never ends the connection holds it for the close timeout and no longer: after a
/// fault, and after our Close, whether it reads or not. After a Close of its own, not at all.
//= rfc6455 5.5.1-13, 7.1.1-4
#[tokio::test(start_paused = true)]
async fn the_end_is_bounded_in_time() {
    in_a_day(async {
        let timeout = Duration::from_secs(3);
        for first in [0x83, 0x88] {
            let script = [Input::Bytes(frame(first, b"")), Input::Never];
            let mut ws = server(Scripted::new(script)).with_close_timeout(timeout);
            let start = Instant::now();
            let expected = match ws.recv().await {
                Ok(None) if first == 0x88 => Duration::ZERO,
                Err(Error::Peer(_)) if first == 0x83 => timeout,
                other => panic!("{other:?}"),
            };
            assert_eq!(start.elapsed(), expected);
        }
        for takes in [0, usize::MAX] {
            let mut io = Scripted::new([Input::Never]);
            (io.takes, io.stutters) = (takes, false);
            let mut ws = server(Blocking {
                io,
                blocked: takes == 0,
            })
            .with_close_timeout(timeout);
            let start = Instant::now();
            let result = ws.close(CloseCode::NORMAL, "").await;
            assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
            assert_eq!(start.elapsed(), timeout);
        }
    })
    .await;
}

/// A stream whose writes never get through, if `blocked`.
struct Blocking {
    io: Scripted,
    blocked: bool,
}

impl tokio::io::AsyncRead for Blocking {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Blocking {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        if self.blocked {
            return std::task::Poll::Pending;
        }
        std::pin::Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A peer that sends and doesn't read is not read from any more: what is kept for it is bounded,
/// and all of it arrives once it reads.
#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from() {
    in_time(async {
        let (near, mut far) = tokio::io::duplex(1000);
        let serving = server(near).serve(|message, replies| {
            assert!(replies.backlog() < 200_000, "{}", replies.backlog());
            replies.send(message).unwrap();
        });
        let message = frame(0x82, &[5; 900]);
        let talking = async {
            let mut sent = 0;
            // Time only passes when nobody can go on: then both ways are full.
            while let Ok(result) =
                tokio::time::timeout(Duration::from_millis(50), far.write_all(&message)).await
            {
                result.unwrap();
                sent += 1;
                assert!(sent < 1000, "it reads on and on");
            }
            assert!(sent > 60);
            let mut answer = [0; 904];
            for _ in 0..sent {
                far.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer[..4], [0x82, 126, 3, 132]);
            }
        };
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            () = talking => {}
        }
    })
    .await;
}

/// Pings are answered while `recv` waits for a message, and pongs are of no interest.
//= rfc6455 5.5.2-3
#[tokio::test]
async fn pings_are_answered_from_within_recv() {
    in_time(async {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut ws = server(near);
        let talking = async {
            far.write_all(&[frame(0x8A, b"?"), frame(0x89, b"there?")].concat())
                .await
                .unwrap();
            let mut pong = [0; 8];
            far.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"\x8A\x06there?");
            far.write_all(&frame(0x81, b"yes")).await.unwrap();
        };
        let (received, ()) = tokio::join!(ws.recv(), talking);
        assert_eq!(received.unwrap(), Some(Message::Text("yes".into())));
    })
    .await;
}

/// A pong that had to wait for the peer to read leaves when the rest has left.
#[tokio::test]
async fn a_waiting_pong_leaves_when_there_is_room() {
    in_time(async {
        use tautline_websocket::proto::{Connection, Limits, Role};
        let limits = Limits {
            pong_backlog: 1,
            ..Limits::default()
        };
        let input = [frame(0x81, b"hi"), frame(0x89, b"1"), frame(0x89, b"2")].concat();
        let mut io = Scripted::new([Input::Bytes(input), Input::End]);
        let ws = WebSocket::new(&mut io, Connection::new(Role::Server, limits));
        let served = ws
            .serve(|message, replies| replies.send(message).unwrap())
            .await;
        assert!(matches!(served, Err(Error::CutOff)));
        assert_eq!(io.written(), b"\x81\x02hi\x8A\x012");
    })
    .await;
}

//= rfc6455 7.1.2-1, 5.5.1-10, 5.5.1-12
#[tokio::test]
async fn closing_from_this_side() {
    in_time(async {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut ws = server(near);
        let refused = ws.close(CloseCode::from(1005), "").await;
        assert!(matches!(
            refused,
            Err(Error::Misuse(Misuse::UnsendableCloseCode(_)))
        ));
        ws.queue("last words").unwrap();
        let talking = async {
            let mut sent = [0; 18];
            far.read_exact(&mut sent).await.unwrap();
            assert_eq!(&sent, b"\x81\x0Alast words\x88\x04\x0F\xA0ok");
            let answer = [frame(0x81, b"crossed it"), frame(0x88, b"\x0F\xA0")].concat();
            far.write_all(&answer).await.unwrap();
            // §7.1.1: the server ends the stream first.
            assert_eq!(far.read(&mut sent).await.unwrap(), 0);
            drop(far);
        };
        let (closed, ()) = tokio::join!(ws.close(CloseCode::from(4000), "ok"), talking);
        closed.unwrap();
        assert_eq!(ws.closed().map(|closed| closed.code.get()), Some(4000));
        assert!(matches!(
            ws.send("more").await,
            Err(Error::Misuse(Misuse::Closing))
        ));
        assert!(matches!(ws.recv().await, Ok(None)));
    })
    .await;
}

/// `send` returns when the bytes are with the stream, `queue` at once.
//= rfc6455 6.1-7
#[tokio::test]
async fn send_writes_and_queue_does_not() {
    in_time(async {
        let mut io = Scripted::new([Input::Never]);
        let mut ws = server(&mut io);
        ws.queue("one").unwrap();
        assert_eq!((ws.backlog(), ws.get_ref().did.len()), (5, 0));
        ws.send(&b"two"[..]).await.unwrap();
        assert_eq!(ws.backlog(), 0);
        ws.ping(b"?").unwrap();
        ws.flush().await.unwrap();
        assert_eq!(
            io.did,
            [
                Did::Wrote(b"\x81\x03one\x82\x03two".into()),
                Did::Wrote(b"\x89\x01?".into())
            ]
        );
    })
    .await;
}

/// Both ends of our own, the client's masked: an interop test without a network.
#[tokio::test]
async fn our_own_ends_understand_each_other() {
    in_time(async {
        use tautline_websocket::proto::{Connection, Limits, Role};
        let (near, far) = tokio::io::duplex(100);
        let mut key = 0u32;
        let keys = move || {
            key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            key.to_be_bytes()
        };
        let engine = Connection::new(Role::Client(Box::new(keys)), Limits::default());
        let mut client = WebSocket::new(far, engine);
        let serving = server(near).serve(|message, replies| replies.send(message).unwrap());
        let talking = async {
            for len in [0, 1, 125, 126, 5000, 70_000] {
                let text = "ä".repeat(len);
                client.queue(&text).unwrap();
                client.queue(&vec![3; len]).unwrap();
                assert_eq!(client.recv().await.unwrap(), Some(Message::from(text)));
                assert_eq!(
                    client.recv().await.unwrap(),
                    Some(Message::from(vec![3; len]))
                );
            }
            client.close(CloseCode::NORMAL, "done").await
        };
        let (served, closed) = tokio::join!(serving, talking);
        closed.unwrap();
        assert_eq!(
            served.unwrap(),
            Some(Closed {
                code: CloseCode::NORMAL,
                reason: "done".into()
            })
        );
    })
    .await;
}

/// For runtimes that move tasks between threads.
#[test]
fn futures_are_send() {
    fn assert_send<T: Send>(_: T) {}
    let (near, _) = tokio::io::duplex(1);
    let mut ws = server(near);
    assert_send(ws.recv());
    assert_send(ws.send("x"));
    assert_send(ws.close(CloseCode::NORMAL, ""));
    assert_send(ws.serve(|_, _| ()));
    let (near, _) = tokio::io::duplex(1);
    let options = tautline_websocket::conn::AcceptOptions::default();
    assert_send(tautline_websocket::conn::accept(near, &options));
}
