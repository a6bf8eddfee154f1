//! tokio-tungstenite at the other end, in both roles: another reading of RFC 6455 than ours.

use futures_util::{SinkExt, StreamExt};
use tautline_websocket::conn::{
    AcceptOptions, ConnectError, ConnectOptions, WebSocket, accept, client,
};
use tautline_websocket::proto::{CloseCode, Limits, Message};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as TheirCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message as Theirs, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async_with_config};

/// Less than the longest message, so that it goes through in pieces.
fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(4096)
}

/// Where the three forms of a frame's length begin and end, and what is long.
const LENGTHS: [usize; 8] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, (1 << 20) + 7];

fn limits() -> Limits {
    Limits::for_messages(2 << 20)
}

fn text(len: usize) -> String {
    // Two bytes a character, so that reads end inside of one.
    let mut text = "\u{e9}".repeat(len / 2);
    if !len.is_multiple_of(2) {
        text.push('a');
    }
    text
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 7) >> 3) as u8).collect()
}

/// Sends back what comes, and gives what the Close frame said.
async fn they_echo<S: AsyncRead + AsyncWrite + Unpin>(
    mut ws: WebSocketStream<S>,
) -> Option<CloseFrame> {
    let mut closed = None;
    while let Some(message) = ws.next().await {
        match message.expect("we keep to the protocol") {
            message @ (Theirs::Text(_) | Theirs::Binary(_)) => {
                ws.send(message).await.expect("it is open");
            }
            Theirs::Close(frame) => closed = frame,
            _ => {}
        }
    }
    closed
}

/// The same on our side.
async fn we_echo<S: AsyncRead + AsyncWrite + Unpin>(ws: WebSocket<S>) -> Option<u16> {
    let ended = ws.serve(|message, replies| {
        replies.send(message).expect("it is open");
    });
    let closed = ended.await.expect("they keep to the protocol");
    closed.map(|closed| closed.code.get())
}

/// Refuses `/secret`, and chooses the subprotocol `chat` where it is asked for.
#[expect(
    clippy::result_large_err,
    reason = "the type is what tungstenite asks for"
)]
fn decide(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == "/secret" {
        let mut refusal = ErrorResponse::new(Some("not for you".to_owned()));
        *refusal.status_mut() = http::StatusCode::FORBIDDEN;
        return Err(refusal);
    }
    if let Some(asked) = request.headers().get("Sec-WebSocket-Protocol") {
        assert_eq!(asked, "chat, other");
        let chosen = http::HeaderValue::from_static("chat");
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", chosen);
    }
    Ok(response)
}

//= rfc6455 4.1-1, 5.1-1, 6.1-2
#[tokio::test]
async fn our_client_and_their_server() {
    let (ours, theirs) = pipe();
    let server = tokio::spawn(async {
        they_echo(accept_hdr_async(theirs, decide).await.expect("a handshake")).await
    });
    let options = ConnectOptions {
        limits: limits(),
        subprotocols: vec!["chat".to_owned(), "other".to_owned()],
        ..ConnectOptions::default()
    };
    let connected = client(ours, "ws://localhost/a?b=c", &options)
        .await
        .unwrap();
    assert_eq!(connected.subprotocol.as_deref(), Some("chat"));
    let mut ws = connected.websocket;
    for len in LENGTHS {
        // Both must be read and written at once for long messages: recv does.
        ws.queue(&*text(len)).unwrap();
        assert_eq!(
            ws.recv().await.unwrap(),
            Some(Message::from(text(len))),
            "{len}"
        );
        ws.queue(&bytes(len)[..]).unwrap();
        let echoed = ws.recv().await.unwrap();
        assert!(
            matches!(echoed, Some(Message::Binary(b)) if b[..] == bytes(len)),
            "{len}"
        );
    }
    let code = CloseCode::from(4321);
    ws.close(code, "enough").await.unwrap();
    let closed = server.await.unwrap().expect("a Close frame with a reason");
    assert_eq!(
        (closed.code, closed.reason.as_str()),
        (TheirCode::Library(4321), "enough")
    );
}

#[tokio::test]
async fn their_servers_refusal_is_read() {
    let (ours, theirs) = pipe();
    let server = tokio::spawn(accept_hdr_async(theirs, decide));
    let result = client(ours, "ws://localhost/secret", &ConnectOptions::default()).await;
    let Err(ConnectError::Refused(rejection)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejection.head.status(), 403);
    assert_eq!(rejection.body, b"not for you");
    assert!(server.await.unwrap().is_err());
}

/// Their messages come in fragments too, with a ping between them.
//= rfc6455 5.4-7
#[tokio::test]
async fn their_client_and_our_server() {
    let (theirs, ours) = pipe();
    let server = tokio::spawn(async {
        let options = AcceptOptions {
            limits: limits(),
            decide: Box::new(|_, opening| {
                Ok(opening.select_subprotocol(&["chat"]).map(str::to_owned))
            }),
            ..AcceptOptions::default()
        };
        let accepted = accept(ours, &options).await.expect("a handshake");
        assert_eq!(accepted.request.target(), "/a?b=c");
        we_echo(accepted.websocket).await
    });
    let request = http::Request::builder()
        .uri("ws://localhost/a?b=c")
        .header("Host", "localhost")
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", "other, chat")
        .body(())
        .unwrap();
    let config = WebSocketConfig::default();
    let opened = client_async_with_config(request, theirs, Some(config)).await;
    let (mut ws, response) = opened.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "chat");
    for len in LENGTHS {
        for message in [Theirs::text(text(len)), Theirs::binary(bytes(len))] {
            // Theirs doesn't read while it writes, so our echo waits in our queue.
            ws.send(message.clone()).await.unwrap();
            assert_eq!(ws.next().await.unwrap().unwrap(), message, "{len}");
        }
    }
    ws.send(Theirs::Ping(b"there?".as_slice().into()))
        .await
        .unwrap();
    let pong = Theirs::Pong(b"there?".as_slice().into());
    assert_eq!(ws.next().await.unwrap().unwrap(), pong);
    let bye = CloseFrame {
        code: TheirCode::Away,
        reason: "bye".into(),
    };
    ws.close(Some(bye)).await.unwrap();
    // The code comes back, as §5.5.1 has it; the reason was theirs.
    let answer = ws.next().await.unwrap().unwrap();
    assert!(
        matches!(&answer, Theirs::Close(Some(frame)) if frame.code == TheirCode::Away),
        "{answer:?}"
    );
    assert!(ws.next().await.is_none());
    // The stream is theirs to close, and they do so here.
    drop(ws);
    assert_eq!(server.await.unwrap(), Some(1001));
}
