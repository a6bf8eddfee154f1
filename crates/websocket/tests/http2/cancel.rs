//! Futures dropped at each point where they wait: no request is lost, nothing of a given-up attempt
//! is left, and the others on the connection go on.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tautline_websocket::conn::http2::{Http2Client, Http2Options, Http2Server};
use tautline_websocket::conn::{AcceptOptions, ConnectOptions};
use tautline_websocket::proto::Message;
use tokio::io::{AsyncReadExt, duplex};
use tokio::task::yield_now;

use crate::support::{Server, client_over, echo_all, in_time, open, serve};

/// Polls once, then drops.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Each `accept` gets one poll, of which there are many between two requests.
#[tokio::test]
async fn accept_dropped_anywhere_loses_no_request() {
    in_time(async {
        // So that requests come byte by byte.
        let (near, far) = duplex(1);
        let (tell, begun) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let client = client_over(near).await;
            let mut open_ones = Vec::new();
            for n in 0..5 {
                let mut ws = open(&client).await;
                ws.send(format!("number {n}").as_str()).await.unwrap();
                open_ones.push(ws);
            }
            assert!(tell.send((client, open_ones)).is_ok());
        });
        let mut incoming = Server::new(far, &Http2Options::default()).await.unwrap();
        let options = AcceptOptions::default();
        let (mut accepted, mut drops) = (Vec::new(), 0);
        while accepted.len() < 5 {
            match poll_once(incoming.accept(&options)) {
                Poll::Ready(next) => accepted.push(next.unwrap().expect("one more").websocket),
                Poll::Pending => drops += 1,
            }
            assert!(drops < 100_000, "no progress");
            yield_now().await;
        }
        assert!(drops > 50, "dropped {drops} times");
        let driving = tokio::spawn(async move { incoming.accept(&options).await.map(|_| ()) });
        let (_client, _open_ones) = begun.await.unwrap();
        for (n, ws) in accepted.iter_mut().enumerate() {
            let expected = Message::from(format!("number {n}"));
            assert_eq!(ws.recv().await.unwrap(), Some(expected));
        }
        driving.abort();
    })
    .await;
}

/// An attempt that is given up leaves no stream behind: the server takes one at a time, so the next one would wait
/// for it without end.
#[tokio::test]
async fn open_dropped_anywhere_leaves_no_stream() {
    in_time(async {
        let http2 = Http2Options {
            max_streams: 1,
            ..Http2Options::default()
        };
        let (near, far) = duplex(1);
        let (mut accepted, _driving) = serve(far, http2, AcceptOptions::default());
        let client = client_over(near).await;
        let options = ConnectOptions::default();
        let mut polls = 0;
        'more: loop {
            let mut opening = Box::pin(client.open("ws://a/", &options));
            for _ in 0..polls {
                let poll = opening
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                if poll.is_ready() {
                    break 'more;
                }
                yield_now().await;
            }
            drop(opening);
            polls += 1;
            assert!(polls < 10_000, "no progress");
        }
        assert!(polls > 3, "given up after {polls} polls");
        // And after all that:
        let mut ws = open(&client).await;
        ws.send("here").await.unwrap();
        loop {
            // Those before it have come to nothing, or were reset.
            let mut served = accepted.recv().await.unwrap().websocket;
            if let Ok(Some(message)) = served.recv().await {
                assert_eq!(message, Message::from("here"));
                break;
            }
        }
    })
    .await;
}

/// Beginning HTTP/2, on either side: the stream is gone with the future, whenever that is.
#[tokio::test]
async fn a_beginning_dropped_anywhere_drops_the_stream() {
    in_time(async {
        let options = Http2Options::default();
        for side in 0..3 {
            for polls in 0.. {
                assert!(polls < 1000, "no progress on side {side}");
                // Room for what a client says first: `h2` reads nothing before its own settings are written.
                let (near, mut far) = duplex(if side == 0 { 64 } else { 8 });
                let other = tokio::spawn(async move {
                    if side == 2 {
                        // A client, to which nobody answers.
                        let mut all = Vec::new();
                        return far.read_to_end(&mut all).await.map(|_| ());
                    }
                    // A server, whose client goes away; it fails or ends, but doesn't wait for it.
                    let _ = Http2Client::over(far, &Http2Options::default())
                        .await
                        .map(|(_, driving)| tokio::spawn(driving));
                    Ok(())
                });
                let mut beginning: std::pin::Pin<Box<dyn Future<Output = bool>>> = match side {
                    0 => Box::pin(async { Http2Server::new(near, &options).await.is_ok() }),
                    1 => Box::pin(async { Server::new(near, &options).await.is_ok() }),
                    _ => Box::pin(async { Http2Client::over(near, &options).await.is_ok() }),
                };
                let mut done = false;
                for _ in 0..polls {
                    let poll = beginning
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()));
                    done |= poll.is_ready();
                    if done {
                        break;
                    }
                    yield_now().await;
                }
                drop(beginning);
                other.await.unwrap().unwrap();
                if done {
                    assert!(
                        polls > usize::from(side == 1) * 2,
                        "side {side}, {polls} polls"
                    );
                    break;
                }
            }
        }
        // The echo of one that was begun after them.
        let (near, far) = duplex(4096);
        tokio::spawn(echo_all(far, AcceptOptions::default()));
        let client = client_over(near).await;
        let mut ws = open(&client).await;
        ws.send("still here").await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::from("still here")));
    })
    .await;
}
