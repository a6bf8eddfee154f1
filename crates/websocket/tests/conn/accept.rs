//! The opening handshake over a stream.

use std::time::Duration;

use tautline_websocket::conn::{AcceptError, AcceptOptions, accept};
use tautline_websocket::proto::Message;
use tautline_websocket::proto::handshake::{HeadLimits, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{Did, Input, Scripted, frame, in_a_day, in_time};

const REQUEST: &str = "GET /chat?room=1 HTTP/1.1\r\n\
    Host: example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Origin: https://example.com\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: v2, v1\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Frames that come with the request are the first messages, however it is all cut.
#[tokio::test]
async fn a_request_and_the_frames_behind_it() {
    in_time(async {
        let bytes = [
            REQUEST.as_bytes(),
            &frame(0x81, b"early"),
            &frame(0x81, b"bird"),
        ]
        .concat();
        let scripts = (1..bytes.len()).map(|cut| {
            let (first, second) = bytes.split_at(cut);
            Scripted::new([
                Input::Bytes(first.into()),
                Input::Pending,
                Input::Bytes(second.into()),
            ])
        });
        for io in scripts.chain([Scripted::one_by_one(&bytes)]) {
            let accepted = accept(io, &AcceptOptions::default()).await.unwrap();
            assert_eq!(accepted.request.path(), "/chat");
            assert_eq!(accepted.request.query(), Some("room=1"));
            assert_eq!(accepted.subprotocol, None);
            let mut ws = accepted.websocket;
            assert_eq!(
                ws.recv().await.unwrap(),
                Some(Message::Text("early".into()))
            );
            assert_eq!(ws.recv().await.unwrap(), Some(Message::Text("bird".into())));
            let written = String::from_utf8(ws.into_parts().0.written()).unwrap();
            assert!(written.starts_with("HTTP/1.1 101 "), "{written}");
            assert!(written.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(written.ends_with("\r\n\r\n") && !written.contains("Protocol:"));
        }
    })
    .await;
}

fn picky() -> AcceptOptions {
    AcceptOptions {
        decide: Box::new(|request, opening| {
            if request.path() != "/chat" {
                return Err(Refusal::new(404, "nothing here"));
            }
            match opening.origin() {
                Some("https://example.com") => {
                    Ok(opening.select_subprotocol(&["v1", "v2"]).map(str::to_owned))
                }
                _ => Err(Refusal::new(403, "this origin is not allowed")),
            }
        }),
        ..AcceptOptions::default()
    }
}

//= rfc6455 4.2.2-3, 4.2.2-4, 4.2.2-6, 10.2-1, 10.2-2
#[tokio::test]
async fn the_application_decides() {
    in_time(async {
        let io = Scripted::new([Input::Bytes(REQUEST.into())]);
        let accepted = accept(io, &picky()).await.unwrap();
        assert_eq!(accepted.subprotocol.as_deref(), Some("v2"));
        let written = String::from_utf8(accepted.websocket.into_parts().0.written()).unwrap();
        assert!(
            written.contains("\r\nSec-WebSocket-Protocol: v2\r\n"),
            "{written}"
        );

        let foreign = REQUEST.replace("https://example.com", "https://evil.example");
        refused(&foreign, &picky(), 403, "this origin is not allowed\n").await;
    })
    .await;
}

//= rfc6455 7.2.2-1, 10.7-4
#[tokio::test]
async fn bad_requests_are_told_why() {
    in_time(async {
        let options = AcceptOptions {
            head: HeadLimits {
                max_bytes: 400,
                ..HeadLimits::default()
            },
            ..AcceptOptions::default()
        };
        let no_upgrade = REQUEST.replace("Upgrade: websocket\r\n", "");
        let text = "this is a WebSocket endpoint; expected the header Upgrade: websocket\n";
        refused(&no_upgrade, &options, 426, text).await;
        refused(
            "SSH-2.0-x\r\n\r\n",
            &options,
            400,
            "this is not an HTTP/1.1 request\n",
        )
        .await;
        let long = REQUEST.replace("room=1", &"x".repeat(400));
        refused(
            &long,
            &options,
            431,
            "the head of the request is longer than 400 bytes\n",
        )
        .await;
    })
    .await;
}

/// The refusal is written, writing is shut down, and what the client still sends is read: a reset
/// could take the answer from it.
async fn refused(request: &str, options: &AcceptOptions, status: u16, body: &str) {
    let more = Input::Bytes(vec![b'x'; 100_000]);
    let mut io = Scripted::new([Input::Bytes(request.into()), more]);
    match accept(&mut io, options).await {
        Err(AcceptError::Refused(refusal)) => assert_eq!(refusal.status(), status),
        other => panic!("{other:?}"),
    }
    let written = String::from_utf8(io.written()).expect("text");
    assert!(
        written.starts_with(&format!("HTTP/1.1 {status} ")),
        "{written}"
    );
    assert!(written.ends_with(&format!("\r\n\r\n{body}")), "{written}");
    assert_eq!(io.did[io.did.len() - 2..], [Did::ShutDown, Did::ReadEnd]);
}

#[tokio::test]
async fn a_client_that_goes_away() {
    in_time(async {
        for bytes in ["", &REQUEST[..50]] {
            let io = Scripted::new([Input::Bytes(bytes.into()), Input::End]);
            let result = accept(io, &AcceptOptions::default()).await;
            assert!(matches!(result, Err(AcceptError::CutOff)), "{result:?}");
        }
    })
    .await;
}

/// A client that sends a byte now and then gets no more time than one that sends nothing.
#[tokio::test(start_paused = true)]
async fn the_request_is_bounded_in_time() {
    in_a_day(async {
        let (near, mut far) = tokio::io::duplex(1000);
        let start = Instant::now();
        let dripping = async {
            for byte in REQUEST.as_bytes() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if far.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
            panic!("it waited for all of it");
        };
        let options = AcceptOptions::default();
        let (result, ()) = tokio::join!(accept(near, &options), dripping);
        assert!(
            matches!(result, Err(AcceptError::TimedOut(_))),
            "{result:?}"
        );
        assert!(start.elapsed() < options.head_timeout + Duration::from_secs(2));
        assert_eq!(
            result.unwrap_err().to_string(),
            "the opening handshake was not complete after 10 s"
        );
        assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    })
    .await;
}
