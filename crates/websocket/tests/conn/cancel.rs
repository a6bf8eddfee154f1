//! Futures dropped at each point where they wait: nothing is lost, nothing is sent twice.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::{SinkExt, StreamExt};
use tautline_websocket::conn::Tracker;
use tautline_websocket::proto::{CloseCode, Message};

use crate::support::{Input, Scripted, frame, server};

/// Polls once, then drops.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Each `recv` gets one poll; the stream is pending before each byte, so a new future meets every
/// state: in headers, payloads, fragments, control frames and answers half written.
#[tokio::test]
async fn recv_dropped_anywhere_loses_nothing() {
    let input = [
        frame(0x81, b"one"),
        frame(0x01, b"tw"),
        frame(0x89, b"ping"),
        frame(0x80, b"o"),
        frame(0x82, &[3; 200]),
        frame(0x88, b"\x03\xE8"),
    ];
    let mut ws = server(Scripted::one_by_one(&input.concat()));
    let (mut got, mut drops) = (Vec::new(), 0);
    loop {
        match poll_once(ws.recv()) {
            Poll::Pending => drops += 1,
            Poll::Ready(Ok(Some(message))) => got.push(message),
            Poll::Ready(Ok(None)) => break,
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
        assert!(drops < 10_000, "no progress");
    }
    let expected = [
        Message::Text("one".into()),
        Message::Text("two".into()),
        Message::Binary(vec![3; 200].into()),
    ];
    assert_eq!(got, expected);
    assert!(drops > 250, "dropped {drops} times");
    assert_eq!(ws.into_parts().0.written(), b"\x8A\x04ping\x88\x02\x03\xE8");
}

/// A `send` that was dropped has queued its message as a whole, or not begun.
#[tokio::test]
async fn send_dropped_anywhere_sends_once() {
    let mut ws = server(Scripted {
        takes: 1,
        stutters: true,
        ..Scripted::new([])
    });
    let (mut expected, mut drops) = (Vec::new(), 0);
    for n in 0..50u8 {
        let payload = [n; 20];
        drops += usize::from(poll_once(ws.send(&payload[..])).is_pending());
        expected.extend([&[0x82, 20][..], &payload].concat());
    }
    assert!(drops > 40, "dropped {drops} times");
    while poll_once(ws.flush()).is_pending() {
        drops += 1;
        assert!(drops < 10_000, "no progress");
    }
    assert_eq!(ws.into_parts().0.written(), expected);
}

#[tokio::test]
async fn close_dropped_anywhere_goes_on() {
    let input = [frame(0x81, b"crossing"), frame(0x88, b"\x03\xE8")].concat();
    let mut ws = server(Scripted::one_by_one(&input));
    let mut drops = 0;
    while poll_once(ws.close(CloseCode::NORMAL, "bye")).is_pending() {
        drops += 1;
        assert!(drops < 10_000, "no progress");
    }
    assert!(drops > 20, "dropped {drops} times");
    assert_eq!(ws.into_parts().0.written(), b"\x88\x05\x03\xE8bye");
}

/// A message of which the connection's own task knows nothing yet is sent once, whatever is dropped: the
/// future that waits for room, or the one that receives.
#[tokio::test]
async fn a_sender_dropped_anywhere_sends_once_or_not_at_all() {
    let mut ws = server(Scripted {
        takes: 1,
        stutters: true,
        ..Scripted::new([Input::Never])
    });
    let sender = ws.sender(200);
    let (mut expected, mut drops) = (Vec::new(), 0);
    for n in 0..100u8 {
        let payload = vec![n; 100];
        match poll_once(sender.send(payload.clone())) {
            Poll::Ready(sent) => {
                sent.expect("open");
                expected.extend([&[0x82, 100][..], &payload].concat());
            }
            Poll::Pending => drops += 1,
        }
        assert!(poll_once(ws.recv()).is_pending());
        assert!(poll_once(sender.closed()).is_pending());
    }
    while !ws
        .get_ref()
        .written()
        .ends_with(&expected[expected.len() - 102..])
    {
        assert!(poll_once(ws.recv()).is_pending());
        drops += 1;
        assert!(drops < 100_000, "no progress");
    }
    assert_eq!(ws.into_parts().0.written(), expected);
}

/// The traits' poll functions, each time from a new future.
#[tokio::test]
async fn a_sink_and_stream_dropped_anywhere_lose_nothing() {
    let input = [
        frame(0x81, b"one"),
        frame(0x89, b"?"),
        frame(0x88, b"\x03\xE8"),
    ]
    .concat();
    let mut ws = server(Scripted::one_by_one(&input));
    let (mut sent, mut got, mut drops) = (0, Vec::new(), 0);
    while sent < 3 {
        assert!(drops < 10_000, "no progress");
        let message = Message::from(vec![sent; 30]);
        if poll_once(ws.feed(message)).is_ready() {
            sent += 1;
        }
        drops += usize::from(poll_once(SinkExt::flush(&mut ws)).is_pending());
    }
    loop {
        match poll_once(ws.next()) {
            Poll::Pending => drops += 1,
            Poll::Ready(Some(message)) => got.push(message.expect("good")),
            Poll::Ready(None) => break,
        }
        assert!(drops < 10_000, "no progress");
    }
    assert_eq!(got, [Message::from("one")]);
    assert!(drops > 50, "dropped {drops} times");
    let written = ws.into_parts().0.written();
    let expected: Vec<u8> = (0..3u8)
        .flat_map(|n| [&[0x82, 30][..], &[n; 30]].concat())
        .collect();
    assert_eq!(
        written,
        [&expected[..], b"\x8A\x01?\x88\x02\x03\xE8"].concat()
    );
}

/// Who waits for a tracker and gives up has changed nothing.
#[tokio::test]
async fn a_shutdown_dropped_anywhere_goes_on() {
    let tracker = Tracker::new();
    let input = frame(0x88, b"\x03\xE9");
    let mut ws = server(Scripted::one_by_one(&input));
    ws.track(&tracker);
    let code = CloseCode::GOING_AWAY;
    for _ in 0..1000 {
        let patience = std::time::Duration::from_secs(60);
        let shutdown = poll_once(tracker.shutdown(code, "", patience));
        assert!(shutdown.is_pending() && poll_once(tracker.wait()).is_pending());
        if let Poll::Ready(received) = poll_once(ws.recv()) {
            assert_eq!(received.expect("in order"), None);
            drop(ws);
            assert!(poll_once(tracker.wait()).is_ready());
            return;
        }
    }
    panic!("no progress");
}
