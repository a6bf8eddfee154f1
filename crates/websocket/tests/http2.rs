//! WebSockets over HTTP/2 (RFC 8441): both of our ends, and each against the library below it used
//! by hand, which can do what ours would not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use tautline_websocket::conn::http2::{
    Http2Client, Http2Error, Http2Options, Http2Stream, Incoming, ServerStream,
};
use tautline_websocket::conn::{
    AcceptError, AcceptOptions, Accepted, ConnectError, ConnectOptions, Error, WebSocket, client,
};
use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};
use tautline_websocket::proto::handshake::Refusal;
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Server = Incoming<DuplexStream>;
type Served = Accepted<ServerStream<DuplexStream>>;

/// Accepts all and sends back what comes, until the client is done.
async fn echo_all(io: DuplexStream, options: AcceptOptions) -> Result<usize, AcceptError> {
    let mut incoming = Incoming::new(io, &Http2Options::default()).await?;
    let mut count = 0;
    while let Some(accepted) = incoming.accept(&options).await? {
        count += 1;
        tokio::spawn(accepted.websocket.serve(|message, replies| {
            let _ = replies.send(message);
        }));
    }
    Ok(count)
}

/// A server whose connections come out of a channel, and the task that drives it.
fn serve(
    io: DuplexStream,
    http2: Http2Options,
    options: AcceptOptions,
) -> (
    mpsc::UnboundedReceiver<Served>,
    JoinHandle<Result<(), AcceptError>>,
) {
    let (tell, accepted) = mpsc::unbounded_channel();
    let driving = tokio::spawn(async move {
        let mut incoming = Server::new(io, &http2).await?;
        while let Some(served) = incoming.accept(&options).await? {
            if tell.send(served).is_err() {
                break;
            }
        }
        Ok(())
    });
    (accepted, driving)
}

/// Our client over a pipe.
async fn client_over(io: DuplexStream) -> Http2Client {
    let (client, connection) = Http2Client::over(io, &Http2Options::default())
        .await
        .expect("it begins");
    tokio::spawn(connection);
    client
}

/// Fails where a talk has come to a standstill, which is what a wrong window looks like. Far more
/// time than it takes: on a paused clock none passes while there is something to do.
async fn in_time(talk: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(Duration::from_secs(60), talk).await;
    assert!(ended.is_ok(), "nothing has happened for a minute");
}

async fn open(client: &Http2Client) -> WebSocket<Http2Stream> {
    let opened = client.open("ws://a/", &ConnectOptions::default()).await;
    opened.expect("it opens").websocket
}

/// The library's client over a pipe, with the server's settings known to it.
async fn raw_client(io: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (requests, mut connection) = h2::client::handshake(io).await.expect("it begins");
    let mut pings = connection.ping_pong().expect("the first to take it");
    tokio::spawn(connection);
    pings.ping(h2::Ping::opaque()).await.expect("it answers");
    assert!(requests.is_extended_connect_protocol_enabled());
    requests
}

fn opening() -> http::Request<()> {
    http::Request::connect("http://a/chat")
        .version(http::Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .expect("a request")
}

/// Both ends of one WebSocket, the client's by hand.
async fn raw_stream(
    requests: &h2::client::SendRequest<Bytes>,
) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let mut requests = requests.clone().ready().await.expect("there is room");
    let (response, send) = requests.send_request(opening(), false).expect("it is sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    (send, response.into_body())
}

/// A short text in a frame of a client.
fn frame(text: &str) -> Bytes {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

//= rfc8441 3-1
//= rfc8441 5-8
//= rfc8441 5-9
#[tokio::test]
async fn messages_of_all_lengths_go_both_ways() {
    in_time(async {
        let (near, far) = duplex(4096);
        let server = tokio::spawn(echo_all(far, AcceptOptions::default()));
        let client = client_over(near).await;
        let mut ws = open(&client).await;
        drop(client);
        for len in [
            0,
            1,
            125,
            126,
            8_191,
            8_192,
            65_535,
            65_536,
            70_000,
            1 << 20,
        ] {
            let text = "x".repeat(len);
            ws.queue(text.as_str()).unwrap();
            let Some(Message::Text(echoed)) = ws.recv().await.unwrap() else {
                panic!("no text of {len}");
            };
            assert!(*echoed == *text, "{len}");
        }
        ws.close(CloseCode::from(4321), "enough").await.unwrap();
        assert_eq!(ws.closed().unwrap().code.get(), 4321);
        drop(ws);
        assert_eq!(server.await.unwrap().unwrap(), 1);
    })
    .await;
}

//= rfc8441 5-7
#[tokio::test]
async fn subprotocol_compression_and_headers_are_as_over_http1() {
    let (near, far) = duplex(4096);
    let options = AcceptOptions {
        deflate: Some(ServerConfig::default()),
        decide: Box::new(|request, opening| {
            assert_eq!(
                request.header("authorization"),
                Some(b"Bearer right".as_slice())
            );
            assert_eq!(opening.origin(), Some("https://a"));
            Ok(opening.select_subprotocol(&["v1"]).map(str::to_owned))
        }),
        ..AcceptOptions::default()
    };
    let (mut accepted, _driving) = serve(far, Http2Options::default(), options);
    let client = client_over(near).await;
    let options = ConnectOptions {
        subprotocols: vec!["v2".to_owned(), "v1".to_owned()],
        headers: vec![
            ("Authorization".to_owned(), "Bearer right".to_owned()),
            ("Origin".to_owned(), "https://a".to_owned()),
        ],
        deflate: Some(ClientConfig::default()),
        ..ConnectOptions::default()
    };
    let connected = client
        .open("wss://a:8443/chat?room=7", &options)
        .await
        .unwrap();
    assert_eq!(connected.subprotocol.as_deref(), Some("v1"));
    assert_eq!(connected.response.status(), 200);
    assert!(
        connected
            .response
            .header("sec-websocket-extensions")
            .is_some()
    );
    let served = accepted.recv().await.unwrap();
    assert_eq!(served.subprotocol.as_deref(), Some("v1"));
    assert_eq!(served.request.target(), "/chat?room=7");
    let pseudo = served.request.pseudo_headers();
    assert_eq!(
        (pseudo.scheme, pseudo.authority),
        (Some("https"), Some("a:8443"))
    );
    let (mut ours, mut theirs) = (connected.websocket, served.websocket);
    let text = "again and ".repeat(100);
    theirs.send(text.as_str()).await.unwrap();
    assert!(matches!(ours.recv().await.unwrap(), Some(Message::Text(t)) if *t == *text));
}

/// More streams than one poll handles, all under way at once.
#[tokio::test]
async fn many_go_over_one() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let server = tokio::spawn(echo_all(far, AcceptOptions::default()));
        let client = client_over(near).await;
        let mut talks = Vec::new();
        for number in 0..200_usize {
            let mut ws = open(&client).await;
            talks.push(tokio::spawn(async move {
                for round in 0..10 {
                    let text = format!("{number}.{round} ").repeat(1 + number);
                    ws.queue(text.as_str()).unwrap();
                    assert!(
                        matches!(ws.recv().await.unwrap(), Some(Message::Text(t)) if *t == *text)
                    );
                }
                ws.close(CloseCode::NORMAL, "").await.unwrap();
            }));
        }
        drop(client);
        for talk in talks {
            talk.await.unwrap();
        }
        assert_eq!(server.await.unwrap().unwrap(), 200);
    })
    .await;
}

/// Over HTTP/1.1 the same listener serves one.
#[tokio::test]
async fn http1_is_served_too() {
    let (near, far) = duplex(64);
    let server = tokio::spawn(echo_all(far, AcceptOptions::default()));
    let connected = client(near, "ws://a/", &ConnectOptions::default()).await;
    let mut ws = connected.unwrap().websocket;
    let text = "x".repeat(1000);
    ws.queue(text.as_str()).unwrap();
    assert!(matches!(ws.recv().await.unwrap(), Some(Message::Text(t)) if *t == *text));
    ws.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(server.await.unwrap().unwrap(), 1);
}

/// Which of both it is can't be told from a first byte, and may come in pieces.
#[tokio::test]
async fn the_preface_may_come_in_pieces() {
    for (bytes, expected) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], true),
        (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", false),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        (b"\x16\x03\x01", false),
    ] {
        let (near, far) = duplex(1);
        let found = tokio::spawn(async move {
            let incoming = Server::new(far, &Http2Options::default()).await;
            incoming.map(|incoming| incoming.is_http2())
        });
        let (mut reading, mut writing) = tokio::io::split(near);
        tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        // What it doesn't need to know it doesn't read.
        let _ = writing.write_all(bytes).await;
        assert_eq!(found.await.unwrap().unwrap(), expected, "{bytes:?}");
    }
    let (near, far) = duplex(64);
    drop(near);
    let result = Server::new(far, &Http2Options::default()).await;
    assert!(matches!(result, Err(AcceptError::CutOff)), "{result:?}");
}

/// The status, the headers and the body that a request by hand is answered with.
async fn answer(
    requests: &h2::client::SendRequest<Bytes>,
    request: http::Request<()>,
) -> Result<(u16, http::HeaderMap, String), h2::Error> {
    let mut requests = requests.clone().ready().await?;
    let (response, _send) = requests.send_request(request, false)?;
    let (parts, mut body) = response.await?.into_parts();
    let mut text = Vec::new();
    while let Some(bytes) = body.data().await {
        text.extend_from_slice(&bytes?);
    }
    let text = String::from_utf8(text).expect("text");
    Ok((parts.status.as_u16(), parts.headers, text))
}

//= rfc8441 4-3
#[tokio::test]
async fn each_broken_rule_is_refused_and_the_connection_goes_on() {
    let (near, far) = duplex(4096);
    let options = AcceptOptions {
        decide: Box::new(|request, _| match request.path() {
            "/secret" => Err(Refusal::new(401, "log in").with_header("WWW-Authenticate", "Bearer")),
            _ => Ok(None),
        }),
        ..AcceptOptions::default()
    };
    let (mut accepted, _driving) = serve(far, Http2Options::default(), options);
    let requests = raw_client(near).await;
    let with = |change: fn(&mut http::Request<()>)| {
        let mut request = opening();
        change(&mut request);
        request
    };
    let rows = [
        (
            with(|r| *r.method_mut() = http::Method::GET),
            405,
            "over HTTP/2",
        ),
        (
            with(|r| *r.uri_mut() = http::Uri::from_static("http://a/secret")),
            401,
            "log in",
        ),
        (
            with(|r| {
                let other = h2::ext::Protocol::from_static("connect-udp");
                r.extensions_mut().insert(other);
            }),
            501,
            "websocket",
        ),
        (
            with(|r| drop(r.headers_mut().remove("sec-websocket-version"))),
            400,
            "expected 13",
        ),
        (
            with(|r| {
                let old = http::HeaderValue::from_static("8");
                r.headers_mut().insert("sec-websocket-version", old);
            }),
            400,
            "expected 13",
        ),
        (
            with(|r| {
                let other = http::HeaderValue::from_static("b");
                r.headers_mut().insert("host", other);
            }),
            400,
            ":authority",
        ),
        (
            with(|r| {
                let twice = http::HeaderValue::from_static("a, a");
                r.headers_mut().insert("sec-websocket-protocol", twice);
            }),
            400,
            "only once",
        ),
        (
            with(|r| {
                let none = http::HeaderValue::from_static("0");
                r.headers_mut().insert("content-length", none);
            }),
            400,
            "no body",
        ),
    ];
    for (mut request, status, says) in rows {
        if request.method() == http::Method::GET {
            request.extensions_mut().remove::<h2::ext::Protocol>();
        }
        let shown = format!("{request:?}");
        let (found, headers, body) = answer(&requests, request).await.unwrap();
        assert_eq!(found, status, "{shown}");
        assert!(body.contains(says), "{shown}: {body}");
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("connection"));
        match status {
            401 => assert_eq!(headers["www-authenticate"], "Bearer"),
            405 => assert_eq!(headers["allow"], "CONNECT"),
            _ => {}
        }
    }
    // A plain CONNECT asks for a proxy.
    let mut proxy = with(|r| *r.uri_mut() = http::Uri::from_static("b:443"));
    proxy.extensions_mut().remove::<h2::ext::Protocol>();
    let (status, _, body) = answer(&requests, proxy).await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (
            400,
            "this is no proxy; expected CONNECT with :protocol websocket (RFC 8441)\n"
        )
    );
    // And after all that:
    let _open = raw_stream(&requests).await;
    accepted.recv().await.unwrap();
}

#[tokio::test]
async fn other_requests_can_have_a_handler() {
    let (near, far) = duplex(4096);
    tokio::spawn(async move {
        let incoming = Server::new(far, &Http2Options::default()).await.unwrap();
        let mut incoming = incoming.with_other(|request| {
            let page = format!("{} {}", request.method(), request.target());
            http::Response::new(Bytes::from(page))
        });
        while incoming
            .accept(&AcceptOptions::default())
            .await
            .unwrap()
            .is_some()
        {}
    });
    let requests = raw_client(near).await;
    let page = http::Request::get("http://a/page?1").body(()).unwrap();
    let (status, _, body) = answer(&requests, page).await.unwrap();
    assert_eq!((status, body.as_str()), (200, "GET /page?1"));
}

#[tokio::test]
async fn our_client_reads_a_refusal() {
    let (near, far) = duplex(4096);
    let options = AcceptOptions {
        decide: Box::new(|_, _| Err(Refusal::new(403, "not for you"))),
        ..AcceptOptions::default()
    };
    let (_accepted, _driving) = serve(far, Http2Options::default(), options);
    let client = client_over(near).await;
    let result = client.open("ws://a/", &ConnectOptions::default()).await;
    let Err(ConnectError::Refused(rejection)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejection.head.status(), 403);
    assert_eq!(rejection.body, b"not for you\n");
    assert!(client.is_open().await);
}

/// A peer that never reads gets what fits into the windows, and no more is taken for it; the
/// others go on.
#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_itself_only() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let requests = raw_client(near).await;
        let (_send, _recv) = raw_stream(&requests).await;
        let mut stuck = accepted.recv().await.unwrap().websocket;
        let long = vec![7; 4 << 20];
        stuck.queue(&long[..]).unwrap();
        // The library's client gives a stream 65,535 bytes of room.
        let sending = tokio::time::timeout(Duration::from_millis(100), stuck.flush()).await;
        assert!(sending.is_err());
        let waiting = stuck.backlog();
        assert!(waiting >= long.len() + 10 - 65_535, "{waiting}");
        drop(requests);
        // The connection's room is used up by that stream, so nothing else can be sent to this client;
        // but what it says still comes, and what it reads makes room.
        drop((_send, _recv));
        let error = stuck.flush().await.unwrap_err();
        assert!(
            matches!(&error, Error::Io(e) if e.kind() == io::ErrorKind::ConnectionReset),
            "{error}"
        );
    })
    .await;
}

/// The other way round: a server that doesn't read one stream, and a client that floods it.
#[tokio::test(start_paused = true)]
async fn a_stream_that_we_do_not_read_stops_its_sender_only() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let client = client_over(near).await;
        let mut floods = Vec::new();
        let mut unread = Vec::new();
        // Enough of them that the window of an ordinary connection would be used up.
        for _ in 0..20 {
            let mut ws = open(&client).await;
            unread.push(accepted.recv().await.unwrap());
            floods.push(tokio::spawn(async move {
                ws.queue(&vec![0; 1 << 20][..]).unwrap();
                let _ = ws.flush().await;
            }));
        }
        let mut ours = open(&client).await;
        let mut theirs = accepted.recv().await.unwrap().websocket;
        for round in 0..100 {
            let text = format!("still here, {round}");
            ours.send(text.as_str()).await.unwrap();
            let received = tokio::time::timeout(Duration::from_secs(60), theirs.recv()).await;
            let message = received.expect("nothing holds it up").unwrap();
            assert_eq!(message, Some(Message::Text(text.as_str().into())));
        }
        assert!(floods.iter().all(|flood| !flood.is_finished()));
        // Read after all, it all arrives.
        for served in &mut unread {
            let message = served.websocket.recv().await.unwrap();
            assert!(matches!(message, Some(Message::Binary(bytes)) if bytes.len() == 1 << 20));
        }
        for flood in floods {
            flood.await.unwrap();
        }
    })
    .await;
}

/// Two long messages meet: each end must read while it writes.
#[tokio::test]
async fn long_messages_cross() {
    in_time(async {
        let (near, far) = duplex(64 * 1024);
        let (mut accepted, _driving) =
            serve(far, Http2Options::default(), AcceptOptions::default());
        let client = client_over(near).await;
        let mut ours = open(&client).await;
        let mut theirs = accepted.recv().await.unwrap().websocket;
        let long = vec![7; 1 << 20];
        ours.queue(&long[..]).unwrap();
        theirs.queue(&long[..]).unwrap();
        let (here, there) = tokio::join!(ours.recv(), theirs.recv());
        for message in [here.unwrap(), there.unwrap()] {
            assert!(matches!(message, Some(Message::Binary(bytes)) if bytes.len() == long.len()));
        }
    })
    .await;
}

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

/// A request is sent only when the server has said that it may be.
//= rfc8441 3-4
#[tokio::test(start_paused = true)]
async fn a_client_waits_for_the_setting() {
    let (near, mut far) = duplex(64 * 1024);
    let client = client_over(near).await;
    let opening =
        tokio::spawn(async move { client.open("ws://a/", &ConnectOptions::default()).await });
    let mut preface = [0; 24];
    far.read_exact(&mut preface).await.unwrap();
    // Everything up to the ping: it asks for no stream.
    let mut kinds = Vec::new();
    while kinds.last() != Some(&6) {
        let mut head = [0; 9];
        far.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[2]) + 256 * usize::from(head[1])];
        far.read_exact(&mut payload).await.unwrap();
        kinds.push(head[3]);
    }
    // Nor does anything come behind it.
    let more = tokio::time::timeout(Duration::from_secs(1), far.read_u8()).await;
    assert!(more.is_err(), "{more:?}");
    assert!(!kinds.contains(&1), "{kinds:?}");
    assert!(!opening.is_finished());
    // SETTINGS with ENABLE_CONNECT_PROTOCOL = 1.
    far.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x08\0\0\0\x01")
        .await
        .unwrap();
    loop {
        let mut head = [0; 9];
        far.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[2]) + 256 * usize::from(head[1])];
        far.read_exact(&mut payload).await.unwrap();
        if head[3] == 1 {
            break;
        }
    }
    opening.abort();
}

/// The setting is sent once, with 1, and never taken back; also not when the server ends.
//= rfc8441 3-1
//= rfc8441 3-3
#[tokio::test]
async fn the_setting_stays() {
    let (mut near, far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let mut incoming = Server::new(far, &Http2Options::default()).await?;
        incoming.shut_down();
        while incoming.accept(&AcceptOptions::default()).await?.is_some() {}
        Ok::<_, AcceptError>(())
    });
    // The preface, and no settings of our own.
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut said = Vec::new();
    let mut head = [0; 9];
    while near.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; usize::from(head[2]) + 256 * usize::from(head[1])];
        near.read_exact(&mut payload).await.unwrap();
        match head[3..5] {
            // SETTINGS that is no acknowledgement: pairs of a number and a value.
            [4, 0] => said.extend(
                payload
                    .as_chunks::<6>()
                    .0
                    .iter()
                    .filter(|s| s[..2] == [0, 8])
                    .copied(),
            ),
            // PING is to be answered, or the server waits with its end.
            [6, 0] => {
                head[4] = 1;
                near.write_all(&[&head[..], &payload].concat())
                    .await
                    .unwrap();
            }
            _ => {}
        }
    }
    server.await.unwrap().unwrap();
    assert_eq!(said, [[0, 8, 0, 0, 0, 1]]);
}

//= rfc8441 3-4
#[tokio::test]
async fn a_server_without_the_setting_is_an_error() {
    let (near, far) = duplex(4096);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        assert!(connection.accept().await.is_none());
    });
    let client = client_over(near).await;
    let result = client.open("ws://a/", &ConnectOptions::default()).await;
    assert!(
        matches!(result, Err(ConnectError::NoExtendedConnect)),
        "{result:?}"
    );
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

/// One more than the server takes at once waits until another is gone.
#[tokio::test]
async fn a_client_waits_its_turn() {
    in_time(async {
        let (near, far) = duplex(4096);
        let http2 = Http2Options {
            max_streams: 2,
            ..Http2Options::default()
        };
        let (mut accepted, _driving) = serve(far, http2, AcceptOptions::default());
        let client = client_over(near).await;
        let first = open(&client).await;
        let _second = open(&client).await;
        let _served = (
            accepted.recv().await.unwrap(),
            accepted.recv().await.unwrap(),
        );
        let third = tokio::spawn(async move { open(&client).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!third.is_finished());
        drop(first);
        let _third = third.await.unwrap();
        accepted.recv().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn large_header_lists_are_refused() {
    let (near, far) = duplex(64 * 1024);
    let (_accepted, _driving) = serve(far, Http2Options::default(), AcceptOptions::default());
    let requests = raw_client(near).await;
    let mut request = opening();
    let cookie = http::HeaderValue::from_str(&"c".repeat(17 * 1024)).unwrap();
    request.headers_mut().insert("cookie", cookie);
    let (status, _, _) = answer(&requests, request).await.unwrap();
    assert_eq!(status, 431);
    let _open = raw_stream(&requests).await;
}

/// Many messages in many frames that come at once are no attack.
#[tokio::test]
async fn small_messages_may_come_in_heaps() {
    in_time(async {
        let (near, far) = duplex(1 << 20);
        tokio::spawn(echo_all(far, AcceptOptions::default()));
        let requests = raw_client(near).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(raw_stream(&requests).await);
        }
        for (send, _) in &mut streams {
            for _ in 0..100 {
                send.send_data(frame("x"), false).unwrap();
            }
        }
        for (_, recv) in &mut streams {
            let mut received = 0;
            while received < 100 * 3 {
                let bytes = recv.data().await.unwrap().unwrap();
                recv.flow_control().release_capacity(bytes.len()).unwrap();
                received += bytes.len();
            }
        }
    })
    .await;
}
