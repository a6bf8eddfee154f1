//! permessage-deflate from the opening handshake to the messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tautline_deflate::Codec;
use tautline_websocket::conn::{
    AcceptOptions, ConnectError, ConnectOptions, WebSocket, accept, client, scratch,
    set_thread_codec,
};
use tautline_websocket::proto::deflate::{AnswerError, ClientConfig, MessageCodec, ServerConfig};
use tautline_websocket::proto::{Connection, Event, Extensions, Limits, Message, Role};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Scripted, frame, in_time};

/// "Hello", compressed (RFC 7692, 7.2.3.1).
const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];

/// A request with this header line more, and frames behind it.
fn request(more: &str, frames: &[Vec<u8>]) -> Scripted {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    Scripted::one_by_one(&[head.as_bytes(), &frames.concat()].concat())
}

fn deflating() -> AcceptOptions {
    AcceptOptions {
        deflate: Some(ServerConfig::default()),
        ..AcceptOptions::default()
    }
}

const OFFER: &str = "Sec-WebSocket-Extensions: foo, permessage-deflate; client_max_window_bits\r\n";
const ANSWER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\n";

/// The response's head, and the messages behind it as a client reads them that has agreed.
fn split(written: &[u8]) -> (String, Vec<String>) {
    let end = written
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a whole head")
        + 4;
    let agreement = ServerConfig::default()
        .accept(["permessage-deflate; client_max_window_bits"])
        .expect("acceptable");
    let mut client = Connection::new(Role::Client(Box::new(|| [0; 4])), Limits::default())
        .with_extensions(Extensions::deflate(agreement));
    let (mut codec, mut texts) = (MessageCodec::default(), Vec::new());
    let mut frames = written[end..].to_vec();
    let mut events = client.receive_with(&mut frames, &mut codec);
    while let Some(event) = events.next(&mut Vec::new()) {
        if let Event::Text(text) = event {
            texts.push(text.to_owned());
        }
    }
    (
        String::from_utf8(written[..end].to_vec()).expect("text"),
        texts,
    )
}

#[tokio::test]
async fn agreed_and_spoken() {
    in_time(async {
        let io = request(OFFER, &[frame(0xC1, HELLO), frame(0x81, b"plain")]);
        let mut ws = accept(io, &deflating()).await.unwrap().websocket;
        let agreed = ws.extensions().deflate_agreement().unwrap();
        assert_eq!(
            (agreed.client_max_window_bits, agreed.server_max_window_bits),
            (10, 15)
        );
        let long = "Hello, hello, hello. ".repeat(20);
        for expected in ["Hello", "plain"] {
            assert_eq!(
                ws.recv().await.unwrap(),
                Some(Message::Text(expected.into()))
            );
            ws.queue(&long).unwrap();
        }
        ws.flush().await.unwrap();
        let written = ws.into_parts().0.written();
        let (head, texts) = split(&written);
        assert!(head.contains(ANSWER), "{head}");
        assert_eq!(texts, [&long[..], &long]);
        assert!(written.len() - head.len() < long.len() / 3);
    })
    .await;
}

/// What the thread compresses with can be set. (Each test has a thread of its own.)
#[tokio::test]
async fn the_codec_of_the_thread_is_set() {
    in_time(async {
        let text = "short, short, short, short";
        let mut lengths = Vec::new();
        for codec in [
            MessageCodec::default(),
            MessageCodec::default().with_threshold(0),
        ] {
            set_thread_codec(codec);
            let io = request(OFFER, &[frame(0x81, b"go")]);
            let mut ws = accept(io, &deflating()).await.unwrap().websocket;
            ws.recv().await.unwrap();
            ws.queue(text).unwrap();
            ws.flush().await.unwrap();
            let written = ws.into_parts().0.written();
            let (head, texts) = split(&written);
            assert_eq!(texts, [text]);
            lengths.push(written.len() - head.len() - 2);
        }
        assert_eq!(lengths[0], text.len());
        assert!(lengths[1] < text.len(), "{lengths:?}");
    })
    .await;
}

/// The handler's answers are compressed too, and may refer to those before.
#[tokio::test]
async fn replies_are_compressed() {
    in_time(async {
        let long = "ticks and tocks ".repeat(10);
        let masked = frame(0x81, long.as_bytes());
        let close = frame(0x88, &[3, 0xE8]);
        let mut io = request(OFFER, &[masked.clone(), masked, close]);
        let accepted = accept(&mut io, &deflating()).await.unwrap();
        accepted
            .websocket
            .serve(|message, replies| replies.send(message).unwrap())
            .await
            .unwrap();
        let written = io.written();
        let (head, texts) = split(&written);
        assert_eq!(texts, [&long[..], &long]);
        assert!(written.len() - head.len() < long.len() / 2);
    })
    .await;
}

/// Who doesn't want it, or isn't asked, goes without, and compressed frames are a fault.
#[tokio::test]
async fn not_agreed() {
    in_time(async {
        for (options, more) in [
            (AcceptOptions::default(), OFFER),
            (deflating(), ""),
            (deflating(), "Sec-WebSocket-Extensions: foo\r\n"),
        ] {
            let io = request(more, &[frame(0x81, b"good"), frame(0xC1, HELLO)]);
            let mut ws = accept(io, &options).await.unwrap().websocket;
            assert_eq!(ws.recv().await.unwrap(), Some(Message::Text("good".into())));
            ws.queue(&"x".repeat(200)).unwrap();
            assert!(ws.recv().await.is_err());
            let written = String::from_utf8_lossy(&ws.into_parts().0.written()).into_owned();
            assert!(!written.contains("Extensions"), "{written}");
            assert!(written.contains(&"x".repeat(200)));
        }
    })
    .await;
}

fn offering() -> ConnectOptions {
    ConnectOptions {
        // Zeros, so that the answer to the key can be written down.
        mask_keys: Box::new(|| Box::new(|| [0; 4])),
        deflate: Some(ClientConfig::default()),
        ..ConnectOptions::default()
    }
}

/// Both ends are ours, and what goes between them is a fraction of what they say.
#[tokio::test]
async fn a_client_offers_and_compresses() {
    in_time(async {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let websocket = accept(far, &deflating()).await.unwrap().websocket;
            websocket
                .serve(|message, replies| replies.send(message).unwrap())
                .await
                .unwrap();
        });
        let mut ws = client(near, "ws://example.com/", &offering())
            .await
            .unwrap()
            .websocket;
        for number in 0..20 {
            let text =
                format!("the same words every time, but for the number {number}. ").repeat(20);
            ws.queue(&text).unwrap();
            // A thousand bytes and more, for which the stream has no room as they are.
            assert!(
                ws.backlog() < text.len() / 3,
                "{} of {}",
                ws.backlog(),
                text.len()
            );
            assert_eq!(ws.recv().await.unwrap(), Some(Message::from(text)));
        }
        ws.close(1000.into(), "").await.unwrap();
        server.await.unwrap();
    })
    .await;
}

/// RFC 7692, section 7.1: an answer that doesn't fit the offer fails the connection.
#[tokio::test]
async fn a_client_checks_the_answer() {
    in_time(async {
        let answer = |extensions: &str| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\
                 Sec-WebSocket-Extensions: {extensions}\r\n\r\n"
            )
        };
        let io =
            Scripted::one_by_one(answer("permessage-deflate; client_max_window_bits=9").as_bytes());
        assert!(client(io, "ws://example.com/", &offering()).await.is_ok());
        let io = Scripted::one_by_one(
            answer("permessage-deflate; server_max_window_bits=99").as_bytes(),
        );
        let error = client(io, "ws://example.com/", &offering())
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Deflate(AnswerError::InvalidParameter(_))
            ),
            "{error}"
        );
    })
    .await;
}

/// A burst of tiny messages that inflate to long ones, to a server that echoes them in full to a peer which
/// doesn't read: nothing is lost, the handler is never refused, and what waits is bounded.
#[tokio::test]
async fn answers_to_a_compressed_burst_wait_for_the_peer() {
    in_time(async {
        for (max_backlog, most_waiting) in [
            (16 << 20, 2 * (scratch::SIZE + 20_004)),
            (50_000, 50_000 + 20_004),
        ] {
            let (near, mut far) = tokio::io::duplex(4096);
            let limits = Limits {
                max_inflate_ratio: 2000,
                ..Limits::default()
            };
            let engine =
                Connection::new(Role::Server, limits).with_extensions(Extensions::deflate(
                    // What the server sends isn't compressed: its thread's codec is told so.
                    ServerConfig::default()
                        .accept(["permessage-deflate; client_max_window_bits"])
                        .expect("acceptable"),
                ));
            set_thread_codec(MessageCodec::default().with_threshold(usize::MAX));
            // 20 KB each, 40 MB in all, of 50 bytes each.
            let mut packed = Vec::new();
            Codec::new(6).compress(9, None, &[b'x'; 20_000], &mut packed);
            assert!(packed.len() < 60, "{} bytes", packed.len());
            let burst = frame(0xC1, &packed).repeat(2000);
            let (most, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let seen = (Arc::clone(&most), Arc::clone(&handled));
            let ws = WebSocket::new(near, engine).with_max_backlog(max_backlog);
            let serving = tokio::spawn(ws.serve(move |message, replies| {
                replies.send(message).expect("the peer is slow, no more");
                seen.0.fetch_max(replies.backlog(), Ordering::Relaxed);
                seen.1.fetch_add(1, Ordering::Relaxed);
            }));
            // As much as it takes from one that doesn't read.
            let mut written = 0;
            while let Ok(len) =
                tokio::time::timeout(Duration::from_millis(200), far.write(&burst[written..])).await
            {
                written += len.unwrap();
                if written == burst.len() {
                    break;
                }
            }
            let waiting = most.load(Ordering::Relaxed);
            assert!(waiting <= most_waiting, "{waiting} bytes");
            assert!(handled.load(Ordering::Relaxed) < 100);
            // Then it does.
            let (mut reader, mut writer) = tokio::io::split(far);
            let rest = burst[written..].to_vec();
            tokio::spawn(async move { writer.write_all(&rest).await });
            let mut answer = vec![0; 20_004];
            for number in 0..2000 {
                reader.read_exact(&mut answer).await.unwrap();
                assert!(answer[4..] == [b'x'; 20_000], "message {number}");
            }
            assert_eq!(handled.load(Ordering::Relaxed), 2000);
            serving.abort();
        }
    })
    .await;
}
