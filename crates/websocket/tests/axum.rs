//! The extractor for axum, on a real server: what it lets in, what it refuses and how, and what is
//! left of HTTP below a connection.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tautline_websocket::conn::axum::WebSocketUpgrade;
use tautline_websocket::conn::hyper::UpgradedStream;
use tautline_websocket::conn::{ConnectError, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};
use tautline_websocket::proto::handshake::Refusal;
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Sends back what comes, preceded by the first bytes of what it runs on.
async fn echo(ws: WebSocket<UpgradedStream>) {
    let direct = ws.get_ref().get_ref();
    assert!(direct.is_some_and(|tcp| tcp.nodelay().expect("a socket")));
    let _ = ws
        .serve(|message, replies| {
            let _ = replies.send(message);
        })
        .await;
}

/// A server on loopback.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn app() -> Router {
    let plain = |upgrade: WebSocketUpgrade| async move { upgrade.on_upgrade(echo) };
    let chat = |upgrade: WebSocketUpgrade| async move {
        assert_eq!(upgrade.requested_protocols(), ["chat.v3", "chat.v2"]);
        assert_eq!(upgrade.request().target(), "/chat?room=7");
        upgrade
            .allow_origins(["https://good.example"])
            .protocols(["chat.v1", "chat.v2"])
            .deflate(ServerConfig::default())
            .on_upgrade(echo)
    };
    let guarded = |upgrade: WebSocketUpgrade| async move {
        upgrade
            .allow_origins(["https://good.example"])
            .decide(|head, _| match head.header("authorization") {
                Some(b"Bearer right") => Ok(None),
                _ => Err(Refusal::new(401, "log in").with_header("WWW-Authenticate", "Bearer")),
            })
            .on_upgrade(echo)
    };
    let both = |upgrade: Option<WebSocketUpgrade>| async move {
        match upgrade {
            Some(upgrade) => upgrade.on_upgrade(echo),
            None => "a page".into_response(),
        }
    };
    Router::new()
        .route("/plain", any(plain))
        .route("/chat", any(chat))
        .route("/guarded", any(guarded))
        .route("/both", any(both))
}

fn headers(lines: &[(&str, &str)]) -> ConnectOptions {
    ConnectOptions {
        headers: lines
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        ..ConnectOptions::default()
    }
}

#[tokio::test]
async fn messages_go_both_ways_and_closing_is_orderly() {
    let address = serve(app()).await;
    let url = format!("ws://{address}/plain");
    let mut ws = connect(&url, &ConnectOptions::default())
        .await
        .unwrap()
        .websocket;
    for len in [0, 1, 125, 126, 65_536, 1 << 20] {
        let text = "x".repeat(len);
        ws.queue(text.as_str()).unwrap();
        let Some(Message::Text(echoed)) = ws.recv().await.unwrap() else {
            panic!("no text of {len}");
        };
        assert!(*echoed == *text, "{len}");
    }
    ws.close(CloseCode::NORMAL, "enough").await.unwrap();
}

#[tokio::test]
async fn subprotocol_and_compression_are_agreed_on() {
    let address = serve(app()).await;
    let options = ConnectOptions {
        subprotocols: vec!["chat.v3".to_owned(), "chat.v2".to_owned()],
        deflate: Some(ClientConfig::default()),
        ..headers(&[("Origin", "https://good.example")])
    };
    let url = format!("ws://{address}/chat?room=7");
    let connected = connect(&url, &options).await.unwrap();
    assert_eq!(connected.subprotocol.as_deref(), Some("chat.v2"));
    let extensions = connected.response.header("Sec-WebSocket-Extensions");
    assert!(extensions.unwrap().starts_with(b"permessage-deflate"));
    let mut ws = connected.websocket;
    let text = "again ".repeat(1000);
    ws.queue(text.as_str()).unwrap();
    assert!(matches!(ws.recv().await.unwrap(), Some(Message::Text(t)) if *t == *text));
}

/// Frames that come with the request, before the answer, are not lost.
#[tokio::test]
async fn early_frames_are_kept() {
    let address = serve(app()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /plain HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0");
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
    assert!(
        answer.ends_with(b"\r\n\r\n\x81\x02hi\x88\x00"),
        "{answer:?}"
    );
}

/// The status and the first line of the body of a refusal.
async fn refused(url: &str, options: &ConnectOptions) -> (u16, String) {
    match connect(url, options).await {
        Err(ConnectError::Refused(rejection)) => {
            let body = String::from_utf8(rejection.body).expect("text");
            (rejection.head.status(), body.trim_end().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn decisions_refuse_with_status_and_body() {
    let address = serve(app()).await;
    let url = format!("ws://{address}/guarded");
    let evil = headers(&[
        ("Origin", "https://evil.example"),
        ("Authorization", "Bearer right"),
    ]);
    let answer = refused(&url, &evil).await;
    assert_eq!(
        answer,
        (
            403,
            "the origin https://evil.example is not allowed here".to_owned()
        )
    );
    let result = connect(&url, &headers(&[("Origin", "https://good.example")])).await;
    let Err(ConnectError::Refused(rejection)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejection.head.status(), 401);
    assert_eq!(
        rejection.head.header("www-authenticate"),
        Some(b"Bearer".as_slice())
    );
    let right = headers(&[("Authorization", "Bearer right")]);
    assert!(connect(&url, &right).await.is_ok());
}

/// What a raw request is answered with: head and body.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn each_broken_rule_has_its_rejection() {
    let address = serve(app()).await;
    let good = "Upgrade: websocket\r\nConnection: Upgrade, close\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let without = |line: &str| {
        let kept = good
            .split_inclusive("\r\n")
            .filter(|l| !l.starts_with(line));
        kept.collect::<String>()
    };
    let closing = "Connection: close\r\n";
    for (method, headers, status, says) in [
        ("GET", closing.to_owned(), 426, "upgrade: websocket"),
        ("POST", good.to_owned(), 405, "allow: get"),
        (
            "GET",
            without("Upgrade"),
            426,
            "expected the header upgrade: websocket",
        ),
        (
            "GET",
            without("Connection") + closing,
            400,
            "connection: upgrade",
        ),
        (
            "GET",
            without("Sec-WebSocket-Key"),
            400,
            "the sec-websocket-key header is missing",
        ),
        (
            "GET",
            without("Sec-WebSocket-Version"),
            426,
            "sec-websocket-version: 13",
        ),
        (
            "GET",
            good.to_owned() + "Content-Length: 1\r\n",
            400,
            "has no body",
        ),
    ] {
        let body = if headers.contains("Length") { "x" } else { "" };
        let request = format!("{method} /plain HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}");
        let answer = ask(address, &request).await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{request}\n{answer}"
        );
        assert!(answer.contains(says), "{request}\n{answer}");
    }
}

#[tokio::test]
async fn one_path_serves_pages_too() {
    let address = serve(app()).await;
    let answer = ask(
        address,
        "GET /both HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("http/1.1 200 ") && answer.ends_with("a page"),
        "{answer}"
    );
    let connected = connect(&format!("ws://{address}/both"), &ConnectOptions::default()).await;
    assert!(connected.is_ok());
    // Who asks for a WebSocket in a wrong way gets no page.
    let wrong =
        "GET /both HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n";
    assert!(ask(address, wrong).await.starts_with("http/1.1 426 "));
}

/// Over HTTP/2 the stream is hyper's, and everything else the same.
#[cfg(feature = "http2")]
#[tokio::test]
async fn http2_is_served_too() {
    use tautline_websocket::conn::http2::{Http2Client, Http2Options};

    let on_upgrade = |upgrade: WebSocketUpgrade| async move {
        upgrade
            .protocols(["chat"])
            .allow_origins(["https://good.example"])
            .deflate(ServerConfig::default())
            .on_upgrade(|ws: WebSocket<UpgradedStream>| async move {
                assert!(ws.get_ref().get_ref().is_none());
                let _ = ws
                    .serve(|message, replies| {
                        let _ = replies.send(message);
                    })
                    .await;
            })
    };
    let app = Router::new().route("/", any(on_upgrade));
    let address = serve(app).await;
    let options = ConnectOptions {
        subprotocols: vec!["chat".to_owned()],
        deflate: Some(ClientConfig::default()),
        ..headers(&[("Origin", "https://good.example")])
    };
    let url = format!("ws://{address}/");
    let http2 = Http2Options::default();
    let client = Http2Client::connect(&url, &options, &http2).await.unwrap();
    for _ in 0..3 {
        let connected = client.open(&url, &options).await.unwrap();
        assert_eq!(connected.subprotocol.as_deref(), Some("chat"));
        let mut ws = connected.websocket;
        for len in [0, 1, 65_536, 1 << 20] {
            let text = "x".repeat(len);
            ws.queue(text.as_str()).unwrap();
            let Some(Message::Text(echoed)) = ws.recv().await.unwrap() else {
                panic!("no text of {len}");
            };
            assert!(*echoed == *text, "{len}");
        }
        ws.close(CloseCode::NORMAL, "").await.unwrap();
    }
    let result = client
        .open(&url, &headers(&[("Origin", "https://evil.example")]))
        .await;
    let Err(ConnectError::Refused(rejection)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejection.head.status(), 403);
}

/// A client that goes away before the answer.
#[tokio::test]
async fn a_failed_upgrade_is_told() {
    let (told, mut failures) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        any(move |upgrade: WebSocketUpgrade| async move {
            let upgrade =
                upgrade.options(|options| options.head_timeout = Duration::from_millis(1));
            let response: Response = upgrade
                .on_failed_upgrade(move |error| told.send(error.to_string()).expect("awaited"))
                .on_upgrade(|_| async { panic!("nothing was opened") });
            // Never sent.
            drop(response);
            std::future::pending::<()>().await;
        }),
    );
    let address = serve(app).await;
    let client = tokio::spawn(async move {
        connect(&format!("ws://{address}/"), &ConnectOptions::default()).await
    });
    let failure = failures.recv().await.unwrap();
    assert!(
        failure.starts_with("the connection was not upgraded"),
        "{failure}"
    );
    client.abort();
}
