//! Keep-alive and the rate of control frames: what runs against time. Time only passes when
//! nobody can go on.

use std::time::Duration;

use tautline_websocket::conn::{Error, WebSocket};
use tautline_websocket::proto::{
    CloseCode, Connection, KeepAliveOptions, Limits, Message, Misuse, PeerFault, Role,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use crate::support::{frame, in_a_day, in_time, server};

const SECOND: Duration = Duration::from_secs(1);

fn options(idle: Option<Duration>) -> KeepAliveOptions {
    KeepAliveOptions {
        ping_after: Some(10 * SECOND),
        pong_timeout: 3 * SECOND,
        idle_timeout: idle,
    }
}

fn watched(idle: Option<Duration>) -> (WebSocket<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(100_000);
    (server(near).with_keep_alive(options(idle)), far)
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_is_found_whatever_the_connection_waits_for() {
    in_a_day(async {
        // While receiving.
        let (mut ws, mut far) = watched(None);
        let start = Instant::now();
        assert!(matches!(ws.recv().await, Err(Error::PeerSilent)));
        assert_eq!(start.elapsed(), 13 * SECOND);
        let mut ping = [0; 6];
        far.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, *b"\x89\x04\0\0\0\x01");
        // While serving.
        let (ws, far) = watched(None);
        assert!(matches!(ws.serve(|_, _| ()).await, Err(Error::PeerSilent)));
        drop(far);
        // While sending to somebody who takes nothing.
        let (mut ws, far) = watched(None);
        let start = Instant::now();
        let sent = ws.send(&vec![0; 200_000]).await;
        assert!(matches!(sent, Err(Error::PeerSilent)), "{sent:?}");
        assert_eq!(start.elapsed(), 13 * SECOND);
        drop(far);
    })
    .await;
}

/// A peer that only answers pings lives, and so does one that only reads.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_lives() {
    in_a_day(async {
        let (mut ws, mut far) = watched(None);
        let peer = async {
            for n in 1..=5 {
                let mut ping = [0; 6];
                far.read_exact(&mut ping).await.unwrap();
                assert_eq!(ping, [0x89, 4, 0, 0, 0, n]);
                sleep(SECOND / 4).await;
                far.write_all(&frame(0x8A, &ping[2..])).await.unwrap();
            }
            far.write_all(&frame(0x81, b"bye")).await.unwrap();
        };
        let (received, ()) = tokio::join!(ws.recv(), peer);
        assert_eq!(received.unwrap(), Some(Message::from("bye")));
        assert_eq!(ws.round_trip(), Some(SECOND / 4));

        let reader = async {
            let mut bytes = [0; 20_000];
            for _ in 0..15 {
                sleep(9 * SECOND).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        };
        let message = vec![0; 390_000];
        let (sent, ()) = tokio::join!(ws.send(&message), reader);
        sent.unwrap();
    })
    .await;
}

/// Messages are activity, pongs are not.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    in_a_day(async {
        let (mut ws, mut far) = watched(Some(30 * SECOND));
        let start = Instant::now();
        let peer = async {
            sleep(5 * SECOND).await;
            far.write_all(&frame(0x81, b"x")).await.unwrap();
            let mut read = Vec::new();
            let mut byte = [0];
            while far.read(&mut byte).await.unwrap() > 0 {
                read.push(byte[0]);
                match read[..] {
                    [0x89, 4, _, _, _, _] => {
                        far.write_all(&frame(0x8A, &read[2..])).await.unwrap();
                        read.clear();
                    }
                    [0x88, len, ..] if read.len() == 2 + usize::from(len) => {
                        far.write_all(&frame(0x88, &read[2..4])).await.unwrap();
                        break;
                    }
                    _ => {}
                }
            }
            far.shutdown().await.unwrap();
            read
        };
        let talk = async {
            assert_eq!(ws.recv().await.unwrap(), Some(Message::from("x")));
            ws.recv().await.unwrap()
        };
        let (end, close) = tokio::join!(talk, peer);
        assert_eq!(end, None);
        assert_eq!(close, b"\x88\x13\x03\xE9idle for too long");
        assert_eq!(start.elapsed(), 60 * SECOND);
        // What is sent counts as well.
        let (mut ws, far) = watched(Some(SECOND));
        for _ in 0..10 {
            ws.send("x").await.unwrap();
            let _ = tokio::time::timeout(SECOND * 9 / 10, ws.recv()).await;
        }
        assert!(ws.send("still open").await.is_ok());
        drop(far);
    })
    .await;
}

fn limited(rate: u32) -> (WebSocket<DuplexStream>, DuplexStream) {
    let limits = Limits {
        max_control_rate: rate,
        ..Limits::default()
    };
    let (near, far) = duplex(100_000);
    (
        WebSocket::new(near, Connection::new(Role::Server, limits)),
        far,
    )
}

#[tokio::test(start_paused = true)]
async fn control_frames_are_limited_by_the_second() {
    in_a_day(async {
        // Five a second are fine, for ever.
        let (mut ws, mut far) = limited(5);
        let peer = async {
            for _ in 0..20 {
                far.write_all(&frame(0x89, b"?").repeat(5)).await.unwrap();
                sleep(SECOND).await;
            }
            // And a pause makes nobody suspicious, though a burst came before any second had begun.
            far.write_all(&frame(0x8A, b"").repeat(50)).await.unwrap();
            sleep(10 * SECOND).await;
            far.write_all(&frame(0x89, b"?").repeat(3)).await.unwrap();
            far.write_all(&frame(0x81, b"fine")).await.unwrap();
        };
        let (received, ()) = tokio::join!(ws.recv(), peer);
        assert_eq!(received.unwrap(), Some(Message::from("fine")));
        // Six are not. The answers to those that were allowed come before the Close.
        let (mut ws, mut far) = limited(5);
        let peer = async {
            for _ in 0..6 {
                far.write_all(&frame(0x89, b"?")).await.unwrap();
                sleep(SECOND / 10).await;
            }
            let mut answers = Vec::new();
            far.read_to_end(&mut answers).await.unwrap();
            assert!(answers.starts_with(&b"\x8A\x01?".repeat(5)), "{answers:x?}");
            assert_eq!(answers[15], 0x88);
            assert_eq!(answers[17..19], 1008u16.to_be_bytes());
            far.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(ws.recv(), peer);
        assert!(matches!(
            received,
            Err(Error::Peer(PeerFault::TooManyControlFrames { limit: 5 }))
        ));
    })
    .await;
}

/// Nothing is added to a backlog that is too long, and what is there stays whole.
#[tokio::test]
async fn the_backlog_has_a_limit() {
    in_time(async {
        let (near, mut far) = duplex(50);
        let mut ws = server(near).with_max_backlog(1000);
        ws.queue(&vec![0; 5000]).unwrap();
        let full = Misuse::BacklogFull {
            waiting: 5004,
            limit: 1000,
        };
        assert_eq!(ws.queue("x"), Err(full));
        assert_eq!(ws.ping(b""), Err(full));
        assert!(matches!(ws.send("x").await, Err(Error::Misuse(misuse)) if misuse == full));
        let mut read = vec![0; 5004];
        let (flushed, _) = tokio::join!(ws.flush(), far.read_exact(&mut read));
        flushed.unwrap();
        ws.queue("x").unwrap();
        // A Close is always possible.
        let mut ws = server(duplex(1).0).with_max_backlog(0);
        ws.queue("x").unwrap();
        let closing = tokio::time::timeout(Duration::ZERO, ws.close(CloseCode::NORMAL, "")).await;
        drop(closing);
        assert!(matches!(
            ws.queue("y"),
            Err(Misuse::BacklogFull { .. } | Misuse::Closing)
        ));
    })
    .await;
}
