//! Messages, and the room for them: one stream and many.

use std::io;
use std::time::Duration;

use tautline_websocket::conn::http2::Http2Options;
use tautline_websocket::conn::{AcceptOptions, Error};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::duplex;

use crate::support::{client_over, echo_all, frame, in_time, open, raw_client, raw_stream, serve};

//= rfc8441 3-1
//= rfc8441 5-8
//= rfc8441 5-9
#[tokio::test]
async fn messages_of_all_lengths_go_both_ways() {
    in_time(async {
        let (near, far) = duplex(4096);
        let server = tokio::spawn(echo_all(far, AcceptOptions::default()));
        let client = client_over(near).await;
        let mut ws = open(&client).await;
        drop(client);
        for len in [
            0,
            1,
            125,
            126,
            8_191,
            8_192,
            65_535,
            65_536,
            70_000,
            1 << 20,
        ] {
            let text = "x".repeat(len);
            ws.queue(text.as_str()).unwrap();
            let Some(Message::Text(echoed)) = ws.recv().await.unwrap() else {
                panic!("no text of {len}");
            };
            assert!(*echoed == *text, "{len}");
        }
        ws.close(CloseCode::from(4321), "enough").await.unwrap();
        assert_eq!(ws.closed().unwrap().code.get(), 4321);
        drop(ws);
        assert_eq!(server.await.unwrap().unwrap(), 1);
    })
    .await;
}

/// More streams than one poll handles, all under way at once.
#[tokio::test]
async fn many_go_over_one() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let server = tokio::spawn(echo_all(far, AcceptOptions::default()));
        let client = client_over(near).await;
        let mut talks = Vec::new();
        for number in 0..200_usize {
            let mut ws = open(&client).await;
            talks.push(tokio::spawn(async move {
                for round in 0..10 {
                    let text = format!("{number}.{round} ").repeat(1 + number);
                    ws.queue(text.as_str()).unwrap();
                    assert!(
                        matches!(ws.recv().await.unwrap(), Some(Message::Text(t)) if *t == *text)
                    );
                }
                ws.close(CloseCode::NORMAL, "").await.unwrap();
            }));
        }
        drop(client);
        for talk in talks {
            talk.await.unwrap();
        }
        assert_eq!(server.await.unwrap().unwrap(), 200);
    })
    .await;
}

/// A peer that never reads gets what fits into the windows, and no more is taken for it; the
/// others go on.
#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_itself_only() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let requests = raw_client(near).await;
        let (_send, _recv) = raw_stream(&requests).await;
        let mut stuck = accepted.recv().await.unwrap().websocket;
        let long = vec![7; 4 << 20];
        stuck.queue(&long[..]).unwrap();
        // The library's client gives a stream 65,535 bytes of room.
        let sending = tokio::time::timeout(Duration::from_millis(100), stuck.flush()).await;
        assert!(sending.is_err());
        let waiting = stuck.backlog();
        assert!(waiting >= long.len() + 10 - 65_535, "{waiting}");
        drop(requests);
        // The connection's room is used up by that stream, so nothing else can be sent to this client;
        // but what it says still comes, and what it reads makes room.
        drop((_send, _recv));
        let error = stuck.flush().await.unwrap_err();
        assert!(
            matches!(&error, Error::Io(e) if e.kind() == io::ErrorKind::ConnectionReset),
            "{error}"
        );
    })
    .await;
}

/// The other way round: a server that doesn't read one stream, and a client that floods it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_we_do_not_read_stops_its_sender_only() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let client = client_over(near).await;
        let mut floods = Vec::new();
        let mut unread = Vec::new();
        // Enough of them that the window of an ordinary connection would be used up.
        for _ in 0..20 {
            let mut ws = open(&client).await;
            unread.push(accepted.recv().await.unwrap());
            floods.push(tokio::spawn(async move {
                ws.queue(&vec![0; 1 << 20][..]).unwrap();
                let _ = ws.flush().await;
            }));
        }
        let mut ours = open(&client).await;
        let mut theirs = accepted.recv().await.unwrap().websocket;
        for round in 0..100 {
            let text = format!("still here, {round}");
            ours.send(text.as_str()).await.unwrap();
            let received = tokio::time::timeout(Duration::from_secs(60), theirs.recv()).await;
            let message = received.expect("nothing holds it up").unwrap();
            assert_eq!(message, Some(Message::Text(text.as_str().into())));
        }
        assert!(floods.iter().all(|flood| !flood.is_finished()));
        // Read after all, it all arrives.
        for served in &mut unread {
            let message = served.websocket.recv().await.unwrap();
            assert!(matches!(message, Some(Message::Binary(bytes)) if bytes.len() == 1 << 20));
        }
        for flood in floods {
            flood.await.unwrap();
        }
    })
    .await;
}

/// Two long messages meet: each end must read while it writes.
#[tokio::test]
async fn long_messages_cross() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let client = client_over(near).await;
        let mut ours = open(&client).await;
        let mut theirs = accepted.recv().await.unwrap().websocket;
        let long = vec![7; 1 << 20];
        ours.queue(&long[..]).unwrap();
        theirs.queue(&long[..]).unwrap();
        let (here, there) = tokio::join!(ours.recv(), theirs.recv());
        for message in [here.unwrap(), there.unwrap()] {
            assert!(matches!(message, Some(Message::Binary(bytes)) if bytes.len() == long.len()));
        }
    })
    .await;
}

/// Many messages in many frames that come at once are no attack.
#[tokio::test]
async fn small_messages_may_come_in_heaps() {
    in_time(async {
        let (near, far) = duplex(1 << 20);
        tokio::spawn(echo_all(far, AcceptOptions::default()));
        let requests = raw_client(near).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(raw_stream(&requests).await);
        }
        for (send, _) in &mut streams {
            for _ in 0..100 {
                send.send_data(frame("x"), false).unwrap();
            }
        }
        for (_, recv) in &mut streams {
            let mut received = 0;
            while received < 100 * 3 {
                let bytes = recv.data().await.unwrap().unwrap();
                recv.flow_control().release_capacity(bytes.len()).unwrap();
                received += bytes.len();
            }
        }
    })
    .await;
}
