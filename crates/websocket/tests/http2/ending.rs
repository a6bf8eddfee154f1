//! How streams and connections end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use tautline_websocket::conn::http2::{Http2Error, Http2Options};
use tautline_websocket::conn::{AcceptError, AcceptOptions, ConnectError, ConnectOptions, Error};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::duplex;
use tokio::sync::mpsc;

use crate::support::{Server, client_over, echo_all, frame, open, raw_client, raw_stream, serve};

/// `END_STREAM` without a Close frame is what FIN is over TCP.
//= rfc8441 5-9
#[tokio::test]
async fn an_end_without_a_close_is_a_cut() {
    let (near, far) = duplex(4096);
    let (mut accepted, _driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let requests = raw_client(near).await;
    let (mut send, _recv) = raw_stream(&requests).await;
    let mut ws = accepted.recv().await.unwrap().websocket;
    send.send_data(frame("last"), true).unwrap();
    assert_eq!(ws.recv().await.unwrap(), Some(Message::Text("last".into())));
    assert!(matches!(ws.recv().await, Err(Error::CutOff)));
}

/// The closing handshake ends with `END_STREAM` both ways, and leaves nothing behind.
//= rfc8441 5-9
#[tokio::test]
async fn closing_ends_the_stream() {
    let (near, far) = duplex(4096);
    let (mut accepted, driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let requests = raw_client(near).await;
    let (mut send, mut recv) = raw_stream(&requests).await;
    let mut ws = accepted.recv().await.unwrap().websocket;
    let closing = tokio::spawn(async move { ws.recv().await });
    send.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), false)
        .unwrap();
    let mut received = Vec::new();
    while let Some(bytes) = recv.data().await {
        received.extend_from_slice(&bytes.expect("no reset"));
    }
    assert_eq!(received, b"\x88\x02\x03\xe8");
    assert!(recv.is_end_stream());
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(closing.await.unwrap().unwrap(), None);
    drop((requests, send, recv));
    driving.await.unwrap().unwrap();
}

//= rfc8441 5-10
#[tokio::test]
async fn a_reset_is_what_it_is_over_tcp() {
    let (near, far) = duplex(4096);
    let (mut accepted, _driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let requests = raw_client(near).await;
    let (mut send, _recv) = raw_stream(&requests).await;
    let mut ws = accepted.recv().await.unwrap().websocket;
    send.send_reset(Reason::CANCEL);
    let error = ws.recv().await.unwrap_err();
    let Error::Io(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Http2Error>());
    assert!(
        matches!(
            inner,
            Some(Http2Error::Reset {
                code: 8,
                by_peer: true,
                ..
            })
        ),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("the peer reset the stream: "),
        "{error}"
    );
    assert!(ws.send("too late").await.is_err());
}

/// Who drops a connection resets it, with CANCEL, and what was sent before still arrives.
//= rfc8441 5-10
#[tokio::test]
async fn a_drop_is_a_reset() {
    let (near, far) = duplex(4096);
    let (mut accepted, _driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let requests = raw_client(near).await;
    let (_send, mut recv) = raw_stream(&requests).await;
    let mut ws = accepted.recv().await.unwrap().websocket;
    ws.send("last words").await.unwrap();
    drop(ws);
    assert_eq!(
        &recv.data().await.unwrap().unwrap()[..],
        b"\x81\x0alast words"
    );
    let error = recv.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    // Of our client too.
    let (near, far) = duplex(4096);
    let (mut accepted, _driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let client = client_over(near).await;
    drop(open(&client).await);
    let mut ws = accepted.recv().await.unwrap().websocket;
    let error = ws.recv().await.unwrap_err().to_string();
    assert!(error.contains("reset"), "{error}");
}

/// A fault of the peer fails its own stream, in order, and no other.
#[tokio::test]
async fn a_broken_peer_is_told_on_its_stream() {
    let (near, far) = duplex(4096);
    tokio::spawn(echo_all(far, AcceptOptions::default()));
    let requests = raw_client(near).await;
    let (mut other, mut answers) = raw_stream(&requests).await;
    let (mut send, mut recv) = raw_stream(&requests).await;
    // A good message, and one that isn't masked.
    let mut bytes = frame("hi").to_vec();
    bytes.extend_from_slice(b"\x81\x00");
    send.send_data(bytes.into(), false).unwrap();
    let mut received = Vec::new();
    while let Some(bytes) = recv.data().await {
        received.extend_from_slice(&bytes.expect("no reset before the end"));
    }
    assert!(received.starts_with(b"\x81\x02hi\x88"), "{received:?}");
    assert_eq!(&received[6..8], 1002_u16.to_be_bytes());
    other.send_data(frame("still here"), false).unwrap();
    assert_eq!(&answers.data().await.unwrap().unwrap()[2..], b"still here");
}

#[tokio::test]
async fn shutting_down_lets_what_is_open_finish() {
    let (near, far) = duplex(4096);
    let (tell, mut accepted) = mpsc::unbounded_channel();
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stop);
    let driving = tokio::spawn(async move {
        let options = AcceptOptions::default();
        let mut incoming = Server::new(far, &Http2Options::default()).await?;
        let mut is_stopping = false;
        loop {
            tokio::select! {
                served = incoming.accept(&options) => match served? {
                    Some(served) => tell.send(served).unwrap(),
                    None => return Ok::<_, AcceptError>(()),
                },
                () = stopped.notified(), if !is_stopping => {
                    is_stopping = true;
                    incoming.shut_down();
                }
            }
        }
    });
    let client = client_over(near).await;
    let mut ours = open(&client).await;
    let mut theirs = accepted.recv().await.unwrap().websocket;
    assert!(client.is_open().await);
    stop.notify_one();
    // Until the client has heard of it; at first its requests may still be taken.
    while client.is_open().await {
        tokio::task::yield_now().await;
    }
    let result = client.open("ws://a/", &ConnectOptions::default()).await;
    assert!(matches!(result, Err(ConnectError::Http2(_))), "{result:?}");
    ours.send("still here").await.unwrap();
    assert_eq!(
        theirs.recv().await.unwrap(),
        Some(Message::Text("still here".into()))
    );
    let (here, there) = tokio::join!(theirs.close(CloseCode::GOING_AWAY, ""), ours.recv());
    here.unwrap();
    assert_eq!(there.unwrap(), None);
    drop((ours, theirs));
    driving.await.unwrap().unwrap();
}

/// A connection without a stream is ended after a minute; one with a stream is not.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends() {
    let (near, far) = duplex(4096);
    let (mut accepted, driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let client = client_over(near).await;
    let mut ours = open(&client).await;
    let mut theirs = accepted.recv().await.unwrap().websocket;
    tokio::time::sleep(Duration::from_secs(600)).await;
    ours.send("still here").await.unwrap();
    assert!(theirs.recv().await.unwrap().is_some());
    let (here, there) = tokio::join!(ours.close(CloseCode::NORMAL, ""), theirs.recv());
    here.unwrap();
    there.unwrap();
    drop((ours, theirs));
    let start = tokio::time::Instant::now();
    driving.await.unwrap().unwrap();
    let waited = start.elapsed().as_secs();
    assert!((60..62).contains(&waited), "{waited}");
    while client.is_open().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let (_near, far) = duplex(4096);
    let result = Server::new(far, &Http2Options::default()).await;
    assert!(
        matches!(result, Err(AcceptError::TimedOut(_))),
        "{result:?}"
    );
    // A server that never sends its settings.
    let (near, _far) = duplex(4096);
    let client = client_over(near).await;
    let result = client.open("ws://a/", &ConnectOptions::default()).await;
    assert!(
        matches!(result, Err(ConnectError::HandshakeTimedOut(_))),
        "{result:?}"
    );
}
