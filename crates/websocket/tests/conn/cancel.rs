//! Futures dropped at each point where they wait: nothing is lost, nothing is sent twice.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tautline_websocket::proto::{CloseCode, Message};

use crate::support::{Scripted, frame, server};

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
    while poll_once(ws.flush()).is_pending() {}
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
