//! The way in through hyper's own server, and what is left of it below a connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tautline_websocket::conn::hyper::{UpgradeError, UpgradedStream, refusal, upgrade};
use tautline_websocket::conn::{AcceptOptions, Accepted, ConnectError, ConnectOptions, client};
use tautline_websocket::proto::handshake::Refusal;
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

type Opened<S> = Result<Accepted<UpgradedStream<S>>, UpgradeError>;

/// Serves one connection of hyper, which is a [`DuplexStream`], and opens what comes as if it
/// were an `S`.
fn serve<S>(
    io: DuplexStream,
    options: AcceptOptions,
    upgrades: bool,
) -> mpsc::UnboundedReceiver<Opened<S>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (opened, receiver) = mpsc::unbounded_channel();
    let options = Arc::new(options);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(7_u32);
        let response = match upgrade(&mut request, &options) {
            Ok((response, upgrade)) => {
                assert_eq!(request.extensions().get(), Some(&7_u32));
                let opened = opened.clone();
                tokio::spawn(async move { opened.send(upgrade.open::<S>().await) });
                response.map(|()| String::new())
            }
            Err(refused) => refusal(&refused, request.version()),
        };
        async { Ok::<Response<String>, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    tokio::spawn(async move {
        if upgrades {
            connection.with_upgrades().await
        } else {
            connection.await
        }
    });
    receiver
}

/// One message each way, and the end. What the server's stream was.
async fn exchange<S>(options: AcceptOptions) -> (bool, Option<String>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (near, far) = duplex(1024);
    let mut opened = serve::<S>(far, options, true);
    let asking = ConnectOptions {
        subprotocols: vec!["chat".to_owned()],
        ..ConnectOptions::default()
    };
    let mut ws = client(near, "ws://a/b?c", &asking)
        .await
        .expect("it opens")
        .websocket;
    let accepted = opened.recv().await.expect("it came").expect("it opens");
    assert_eq!(accepted.request.target(), "/b?c");
    let mut theirs = accepted.websocket;
    let direct = theirs.get_ref().get_ref().is_some();
    let echo = tokio::spawn(async move {
        while let Some(message) = theirs.recv().await? {
            theirs.queue(&message).expect("it is open");
        }
        Ok::<_, tautline_websocket::conn::Error>(())
    });
    let text = "0123456789".repeat(1000);
    ws.queue(text.as_str()).expect("it is open");
    let echoed = ws.recv().await.expect("it is open");
    assert!(matches!(echoed, Some(Message::Text(t)) if *t == *text));
    ws.close(CloseCode::NORMAL, "").await.expect("in order");
    echo.await.expect("no panic").expect("in order");
    (direct, accepted.subprotocol)
}

#[tokio::test]
async fn the_stream_comes_back_as_what_it_was() {
    let options = AcceptOptions {
        decide: Box::new(|_, opening| Ok(opening.select_subprotocol(&["chat"]).map(str::to_owned))),
        ..AcceptOptions::default()
    };
    let done = exchange::<DuplexStream>(options).await;
    assert_eq!(done, (true, Some("chat".to_owned())));
}

/// The stream isn't what the caller took it for; it works as well.
#[tokio::test]
async fn another_stream_is_used_as_hyper_gives_it() {
    let done = exchange::<TcpStream>(AcceptOptions::default()).await;
    assert_eq!(done, (false, None));
}

/// hyper reads on behind the request; what it has read is handed over in both forms.
#[tokio::test]
async fn early_frames_are_kept() {
    async fn early<S>()
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (mut near, far) = duplex(4096);
        let mut opened = serve::<S>(far, AcceptOptions::default(), true);
        near.write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\
              \x81\x82\0\0\0\0hi",
        )
        .await
        .expect("it reads");
        let mut ws = opened
            .recv()
            .await
            .expect("it came")
            .expect("it opens")
            .websocket;
        let message = ws.recv().await.expect("it is open");
        assert_eq!(message, Some(Message::Text("hi".into())));
    }
    early::<DuplexStream>().await;
    early::<TcpStream>().await;
}

#[tokio::test]
async fn refusals_come_with_status_headers_and_body() {
    let (near, far) = duplex(4096);
    let options = AcceptOptions {
        decide: Box::new(|request, _| {
            assert_eq!(request.path(), "/secret");
            Err(Refusal::new(401, "log in").with_header("WWW-Authenticate", "Bearer"))
        }),
        ..AcceptOptions::default()
    };
    let mut opened = serve::<DuplexStream>(far, options, true);
    let result = client(near, "ws://a/secret", &ConnectOptions::default()).await;
    let Err(ConnectError::Refused(rejection)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejection.head.status(), 401);
    assert_eq!(
        rejection.head.header("WWW-Authenticate"),
        Some(b"Bearer".as_slice())
    );
    assert_eq!(rejection.body, b"log in\n");
    assert!(opened.try_recv().is_err());
}

/// A page that is asked for gets what RFC 9110 §15.5.22 and RFC 6455 §4.4 ask of a 426.
#[tokio::test]
async fn other_requests_are_told_what_this_is() {
    let (mut near, far) = duplex(4096);
    let _opened = serve::<DuplexStream>(far, AcceptOptions::default(), true);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    let answer = answer.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 426 "), "{answer}");
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade",
        "sec-websocket-version: 13\r\n",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
}

/// Without `with_upgrades`, hyper sends the response and keeps the stream.
#[tokio::test]
async fn a_server_without_upgrades_is_an_error() {
    let (near, far) = duplex(4096);
    let mut opened = serve::<DuplexStream>(far, AcceptOptions::default(), false);
    let client =
        tokio::spawn(async move { client(near, "ws://a/", &ConnectOptions::default()).await });
    let result = opened.recv().await.unwrap();
    assert!(matches!(result, Err(UpgradeError::Hyper(_))), "{result:?}");
    drop(client.await);
}

/// A client that doesn't take the response, and a server that never sends it.
#[tokio::test(start_paused = true)]
async fn opening_has_a_deadline() {
    let (mut near, far) = duplex(16);
    let mut opened = serve::<DuplexStream>(far, AcceptOptions::default(), true);
    near.write_all(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .await
    .unwrap();
    let result = opened.recv().await.unwrap();
    assert!(
        matches!(result, Err(UpgradeError::TimedOut(_))),
        "{result:?}"
    );
}

#[test]
fn errors_read_well() {
    let error = UpgradeError::TimedOut(std::time::Duration::from_secs(10));
    assert_eq!(
        error.to_string(),
        "the connection was not upgraded within 10 s"
    );
    let _: &dyn std::error::Error = &error;
    let _ = io::Error::other(error);
}
