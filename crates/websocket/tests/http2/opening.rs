//! Opening: what is asked for, what is refused, and what is waited for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tautline_websocket::conn::http2::Http2Options;
use tautline_websocket::conn::{AcceptError, AcceptOptions, ConnectError, ConnectOptions, client};
use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};
use tautline_websocket::proto::handshake::Refusal;
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::support::{
    Server, client_over, echo_all, in_time, open, opening, raw_client, raw_stream, serve,
};

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

/// What comes back over HTTP/1.1 for `request`, when `incoming` makes of it what it is set up to, until
/// the connection ends; and what `accept` has returned.
async fn over_http1(
    set_up: impl FnOnce(Server) -> Server,
    request: &str,
) -> (String, Result<bool, AcceptError>) {
    let (mut near, far) = duplex(4096);
    let (written, accepted) = tokio::join!(
        async {
            near.write_all(request.as_bytes()).await.expect("room");
            let mut answer = Vec::new();
            let _ = near.read_to_end(&mut answer).await;
            drop(near);
            String::from_utf8(answer).expect("text")
        },
        async {
            let incoming = Server::new(far, &Http2Options::default())
                .await
                .expect("begun");
            let mut incoming = set_up(incoming);
            let accepted = incoming.accept(&AcceptOptions::default()).await;
            let again = incoming.accept(&AcceptOptions::default()).await;
            assert!(matches!(again, Ok(None)), "there is one request");
            accepted.map(|accepted| accepted.is_some())
        }
    );
    (written, accepted)
}

/// Over HTTP/1.1, too, the connection ends with the answer.
#[tokio::test]
async fn other_requests_over_http1_have_the_same_handler() {
    in_time(async {
        let set_up = |incoming: Server| {
            incoming.with_other(|request| {
                let page = format!("{} {}", request.method(), request.target());
                let mut response = http::Response::new(Bytes::from(page));
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                let headers = response.headers_mut();
                headers.insert("x-page", http::HeaderValue::from_static("1"));
                // Which would be wrong.
                headers.insert("content-length", http::HeaderValue::from_static("99"));
                headers.insert("connection", http::HeaderValue::from_static("keep-alive"));
                response
            })
        };
        let head = "HTTP/1.1 404 Not Found\r\nx-page: 1\r\n";
        for (method, body) in [
            ("GET", "GET /page?1"),
            ("POST", "POST /page?1"),
            ("HEAD", ""),
        ] {
            let request =
                format!("{method} /page?1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
            let (answer, accepted) = over_http1(set_up, &request).await;
            let len = method.len() + 8;
            let expected =
                format!("{head}content-length: {len}\r\nconnection: close\r\n\r\n{body}");
            assert_eq!(answer, expected);
            assert!(matches!(accepted, Ok(false)));
        }
        // A status that has no body.
        let nothing = |incoming: Server| {
            incoming.with_other(|_| {
                let mut response = http::Response::new(Bytes::from_static(b"not sent"));
                *response.status_mut() = http::StatusCode::NO_CONTENT;
                response
            })
        };
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let (answer, _) = over_http1(nothing, request).await;
        assert_eq!(
            answer,
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
        );
        // Without a handler they are refused, and so is a bad request for a WebSocket with one.
        let (answer, accepted) = over_http1(|incoming| incoming, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
            "{answer}"
        );
        assert!(matches!(accepted, Err(AcceptError::Refused(_))));
        let bad = "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        let (answer, accepted) = over_http1(set_up, bad).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(matches!(accepted, Err(AcceptError::Refused(_))));
    })
    .await;
}

/// Requests that are shorter than what tells the versions of HTTP apart, good or not, have their answer, and no
/// more is waited for.
#[tokio::test(start_paused = true)]
async fn the_shortest_requests_are_answered_at_once() {
    let start = tokio::time::Instant::now();
    let whole = "GET / HTTP/1.1\r\n\r\n";
    let wrong = "\0\0\0\x04\r\n\r\n, and more of it";
    for (request, status) in [(whole, 426), (&wrong[..24], 400)] {
        let (answer, accepted) = over_http1(|incoming| incoming, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(matches!(accepted, Err(AcceptError::Refused(_))));
    }
    // The client of this test waits for the end, as ours waits for its.
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Whoever serves all of HTTP gets the request from its first byte on, and all that comes behind it.
#[tokio::test]
async fn other_requests_over_http1_can_be_handed_on() {
    in_time(async {
        let requests = "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
                        GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        // Cut anywhere: in one piece, or byte by byte.
        for size in [64 * 1024, 1] {
            let (near, far) = duplex(size);
            let (mut reading, mut writing) = tokio::io::split(near);
            tokio::spawn(async move { writing.write_all(requests.as_bytes()).await });
            let incoming = Server::new(far, &Http2Options::default()).await.unwrap();
            let mut incoming = incoming
                .with_other(|_| panic!("who takes the stream is asked first"))
                .with_http1(|request| {
                    assert_eq!(request.head().path(), "/form");
                    let service =
                        service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let answer = format!("{}: {} bytes", head.uri, body.len());
                            Ok::<_, hyper::Error>(http::Response::new(answer))
                        });
                    let io = TokioIo::new(request.into_stream());
                    let server = hyper::server::conn::http1::Builder::new();
                    tokio::spawn(server.serve_connection(io, service));
                });
            assert!(
                incoming
                    .accept(&AcceptOptions::default())
                    .await
                    .unwrap()
                    .is_none()
            );
            let mut answers = String::new();
            reading.read_to_string(&mut answers).await.unwrap();
            assert!(
                answers.contains("/form: 4 bytes") && answers.ends_with("/next: 0 bytes"),
                "{answers}"
            );
        }
        // A WebSocket is none of them.
        let (near, far) = duplex(4096);
        let accepting = tokio::spawn(async move {
            let incoming = Server::new(far, &Http2Options::default()).await.unwrap();
            let mut incoming = incoming.with_http1(|request| panic!("{request:?}"));
            let accepted = incoming.accept(&AcceptOptions::default()).await.unwrap();
            accepted.expect("a WebSocket").websocket.recv().await
        });
        let mut ws = client(near, "ws://a/", &ConnectOptions::default())
            .await
            .unwrap()
            .websocket;
        ws.send("hi").await.unwrap();
        assert_eq!(accepting.await.unwrap().unwrap(), Some(Message::from("hi")));
    })
    .await;
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
