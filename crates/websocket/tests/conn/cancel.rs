//! Futures dropped at each point where they wait: nothing is lost, nothing is sent twice.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::{SinkExt, StreamExt};
use tautline_websocket::conn::{
    AcceptError, AcceptOptions, ConnectOptions, Ended, Group, Handler, Proxy, Replies, Tracker,
    accept, client, connect,
};
use tautline_websocket::proto::handshake::{AcceptKey, Refusal};
use tautline_websocket::proto::{CloseCode, Message, MessageRef};
use tokio::io::{AsyncReadExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

use crate::support::{Input, Scripted, Watched, frame, in_a_day, in_time, server};

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

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Polls a future `polls` times, then drops it; `None` when it had more to do.
fn poll_times<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// Runs what `begin` begins, given up after ever more polls, until it comes to its end. What was written is
/// each time a beginning of what is written in the end.
fn give_up_everywhere<T>(mut begin: impl FnMut(&mut Scripted, usize) -> Option<T>, input: &[u8]) {
    let mut beginnings = Vec::new();
    for polls in 0..10_000 {
        let mut io = Scripted::one_by_one(input);
        let ended = begin(&mut io, polls).is_some();
        let written = io.written();
        if !ended {
            beginnings.push(written);
            continue;
        }
        assert!(beginnings.len() > 40, "given up {} times", beginnings.len());
        assert!(beginnings.iter().any(|beginning| !beginning.is_empty()));
        for beginning in beginnings {
            assert!(
                written.starts_with(&beginning),
                "something else was written"
            );
        }
        return;
    }
    panic!("no progress");
}

/// An opening handshake that is given up leaves a stream with a part of the answer, and nothing else: the
/// thread's buffers are there for the next one. A refusal is as good.
#[tokio::test]
async fn accept_dropped_anywhere_leaves_nothing_behind() {
    let accepting = AcceptOptions::default();
    give_up_everywhere(
        |io, polls| {
            let accepted = poll_times(polls, accept(io, &accepting))?;
            assert!(accepted.is_ok());
            Some(())
        },
        REQUEST.as_bytes(),
    );
    let refusing = AcceptOptions {
        decide: Box::new(|_, _| Err(Refusal::new(403, "not you"))),
        ..AcceptOptions::default()
    };
    give_up_everywhere(
        |io, polls| {
            let refused = poll_times(polls, accept(io, &refusing))?;
            assert!(matches!(refused, Err(AcceptError::Refused(_))));
            Some(())
        },
        REQUEST.as_bytes(),
    );
}

/// The same for a client's side of it, over a stream.
#[tokio::test]
async fn client_dropped_anywhere_leaves_nothing_behind() {
    let options = ConnectOptions {
        // Zeros, so that the answer to the key can be written down.
        mask_keys: Box::new(|| Box::new(|| [0; 4])),
        ..ConnectOptions::default()
    };
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
    give_up_everywhere(
        |io, polls| {
            let connected = poll_times(polls, client(io, "ws://a/", &options))?;
            assert!(connected.is_ok());
            Some(())
        },
        answer.as_bytes(),
    );
}

/// An attempt to connect that is given up, at the address, in the proxy or in the handshake, closes its socket: the
/// other end is not left with one that nobody has.
#[tokio::test]
async fn connect_dropped_anywhere_closes_the_socket() {
    in_time(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let through_a_proxy = Proxy::http("127.0.0.1", address.port());
        for proxy in [None, Some(through_a_proxy)] {
            let options = ConnectOptions {
                proxy,
                ..ConnectOptions::default()
            };
            let url = format!("ws://{address}/");
            let mut reached = 0;
            for polls in 0.. {
                assert!(polls < 1000, "no progress");
                let mut connecting = Box::pin(connect(&url, &options));
                let mut cx = Context::from_waker(Waker::noop());
                let mut peer = None;
                let mut done = false;
                for _ in 0..polls {
                    if connecting.as_mut().poll(&mut cx).is_ready() {
                        done = true;
                        break;
                    }
                    // One step of the other end: it takes the connection, then reads what comes, then answers.
                    yield_now().await;
                    match &mut peer {
                        None => {
                            if let Poll::Ready(Ok((stream, _))) = poll_once(listener.accept()) {
                                peer = Some(stream);
                            }
                        }
                        Some(stream) => answer_a_step(stream),
                    }
                }
                drop(connecting);
                if done {
                    break;
                }
                let Some(mut peer) = peer else {
                    // Nobody knows of it yet, or its end comes with it.
                    while let Poll::Ready(Ok((mut stream, _))) = poll_once(listener.accept()) {
                        let mut all = Vec::new();
                        let _ = stream.read_to_end(&mut all).await;
                    }
                    continue;
                };
                reached += 1;
                // An end or a reset, and no waiting without end.
                let mut all = Vec::new();
                let _ = peer.read_to_end(&mut all).await;
            }
            assert!(reached > 1, "the other end was reached {reached} times");
        }
    })
    .await;
}

/// Answers what can be read at once: a request to the proxy, or the opening one.
fn answer_a_step(stream: &mut TcpStream) {
    let mut request = [0; 2048];
    let Ok(len) = stream.try_read(&mut request) else {
        return;
    };
    let request = String::from_utf8_lossy(&request[..len]);
    let answer = if request.starts_with("CONNECT") {
        "HTTP/1.1 200 OK\r\n\r\n".to_owned()
    } else {
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let Some(key) = key else { return };
        let accept = AcceptKey::answer(key.trim());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept.as_str()
        )
    };
    let written = stream.try_write(answer.as_bytes());
    assert_eq!(written.ok(), Some(answer.len()));
}

/// Notes what it handles, and how it ends.
struct Noting<'a> {
    handled: &'a mut Vec<Message>,
    ends: &'a mut Vec<&'static str>,
}

impl Handler for Noting<'_> {
    fn message(&mut self, message: MessageRef<'_>, replies: &mut Replies<'_>) {
        self.handled.push(message.to_owned());
        let _ = replies.send(message);
    }

    fn ended(&mut self, how: Ended<'_>) {
        self.ends.push(match how {
            Ended::Closed(_) => "closed",
            Ended::Failed(_) => "failed",
            Ended::Dropped => "dropped",
        });
    }
}

/// A handler has had a beginning of the messages, the peer a beginning of the answers, and the handler is told of the
/// end, once.
#[tokio::test]
async fn serve_dropped_anywhere_tells_its_handler() {
    let input = [
        frame(0x81, b"one"),
        frame(0x89, b"ping"),
        frame(0x82, &[2; 130]),
        frame(0x88, b"\x03\xE8"),
    ];
    let expected = [Message::from("one"), Message::from(vec![2; 130])];
    give_up_everywhere(
        |io, polls| {
            let (mut handled, mut ends) = (Vec::new(), Vec::new());
            let noting = Noting {
                handled: &mut handled,
                ends: &mut ends,
            };
            let ended = poll_times(polls, server(io).serve_with(noting));
            assert!(expected.starts_with(&handled));
            assert_eq!(ends, [if ended.is_some() { "closed" } else { "dropped" }]);
            ended.map(|ended| assert!(ended.is_ok() && handled == expected))
        },
        &input.concat(),
    );
}

/// The same where groups may write to the connection while its task rests.
#[tokio::test]
async fn serve_member_dropped_anywhere_tells_its_handler() {
    let input = [
        frame(0x81, b"one"),
        frame(0x89, b"ping"),
        frame(0x82, &[2; 130]),
        frame(0x88, b"\x03\xE8"),
    ];
    let expected = [Message::from("one"), Message::from(vec![2; 130])];
    give_up_everywhere(
        |io, polls| {
            let watched = Watched::from(mem::replace(io, Scripted::new([])));
            let (mut handled, mut ends) = (Vec::new(), Vec::new());
            let noting = Noting {
                handled: &mut handled,
                ends: &mut ends,
            };
            let group = Group::new();
            let mut ws = server(watched.clone());
            ws.join(&group).expect("open");
            let ended = poll_times(polls, ws.serve_member_with(noting));
            assert!(expected.starts_with(&handled));
            assert_eq!(ends, [if ended.is_some() { "closed" } else { "dropped" }]);
            assert!(group.is_empty());
            *io = Arc::into_inner(watched.0)
                .expect("the connection is gone")
                .into_inner()
                .expect("no panic");
            ended.map(|ended| assert!(ended.is_ok() && handled == expected))
        },
        &input.concat(),
    );
}

/// A member that is given up while a group writes to it, by the thread's task or its own, leaves a stream with whole
/// frames in order and a beginning of one; the other members miss nothing.
#[tokio::test(start_paused = true)]
async fn serve_member_dropped_anywhere_leaves_its_group() {
    in_a_day(async {
        let input = [frame(0x81, b"one"), frame(0x82, b"two")].concat();
        let mut most = 0;
        for polls in 0..60u8 {
            let group = Group::new();
            let (near, mut far) = duplex(10_000);
            let mut other = server(near);
            other.join(&group).expect("open");
            let other = tokio::spawn(other.serve_member(|_, _| ()));
            let mut script = Scripted::one_by_one(&input);
            script.input.push_back(Input::Never);
            let io = Watched::from(script);
            let mut ws = server(io.clone());
            ws.join(&group).expect("open");
            let (mut handled, mut ends) = (Vec::new(), Vec::new());
            let noting = Noting {
                handled: &mut handled,
                ends: &mut ends,
            };
            let mut serving = Box::pin(ws.serve_member_with(noting));
            for n in 0..polls {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(serving.as_mut().poll(&mut cx).is_pending());
                group.publish(&[n][..]).expect("room");
                // The task that writes for this thread has its turn, every other time.
                if n % 2 == 0 {
                    yield_now().await;
                }
            }
            drop(serving);
            assert_eq!((group.len(), Arc::strong_count(&io.0)), (1, 1));
            assert_eq!(ends, ["dropped"]);
            let published: Vec<u8> = (0..polls).flat_map(|n| [0x82, 1, n]).collect();
            let mut read = vec![0; published.len()];
            far.read_exact(&mut read).await.expect("sent");
            assert_eq!(read, published);
            drop(far);
            other.await.expect("no panic").expect_err("cut off");

            let written = io.lock().written();
            most = most.max(written.len());
            let (mut frames, mut answers, mut next) = (&written[..], Vec::new(), 0);
            while let [first, len, rest @ ..] = frames
                && rest.len() >= usize::from(*len)
            {
                let (payload, rest) = rest.split_at(usize::from(*len));
                frames = rest;
                match payload {
                    [n] if *first == 0x82 => {
                        assert_eq!(*n, next);
                        next += 1;
                    }
                    answer => answers.push(answer),
                }
            }
            assert!(next <= polls);
            assert!([&b"one"[..], b"two"].starts_with(&answers), "{answers:x?}");
        }
        assert!(most > 20, "at most {most} bytes were written");
    })
    .await;
}
