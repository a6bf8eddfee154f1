//! Opening connections as a client: over a stream, over TCP, through proxies.

use std::io;
use std::time::Duration;

use tautline_websocket::conn::{
    AcceptOptions, ConnectError, ConnectOptions, Proxy, ProxyError, accept, client, connect,
};
use tautline_websocket::proto::handshake::{
    AcceptKey, HeadLimits, Refusal, RequestError, ResponseError, ResponseHeadError, UrlError,
};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{Input, Scripted, in_a_day, in_time};

/// The key is "AAAAAAAAAAAAAAAAAAAAAA==" with the randomness of `options`.
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

/// Options with a source of randomness that gives zeros.
fn options() -> ConnectOptions {
    ConnectOptions {
        mask_keys: Box::new(|| Box::new(|| [0; 4])),
        ..ConnectOptions::default()
    }
}

async fn opened(io: Scripted) -> Result<Vec<Message>, ConnectError> {
    let mut ws = client(io, "ws://example.com/chat", &options())
        .await?
        .websocket;
    let mut messages = Vec::new();
    while let Ok(Some(message)) = ws.recv().await {
        messages.push(message);
    }
    Ok(messages)
}

fn script(parts: &[&str]) -> Scripted {
    Scripted::new(
        parts
            .iter()
            .map(|part| Input::Bytes(part.as_bytes().into())),
    )
}

/// Frames that come with the response are the first messages, however it is all cut.
//= rfc6455 4.1-1, 4.1-31
#[tokio::test]
async fn a_response_and_the_frames_behind_it() {
    in_time(async {
        let bytes = [ANSWER.as_bytes(), b"\x81\x05early\x81\x04bird"].concat();
        let scripts = (1..bytes.len()).map(|cut| {
            let (first, second) = bytes.split_at(cut);
            Scripted::new([
                Input::Bytes(first.into()),
                Input::Pending,
                Input::Bytes(second.into()),
            ])
        });
        for io in scripts.chain([Scripted::one_by_one(&bytes)]) {
            let messages = opened(io).await.unwrap();
            let expected = ["early", "bird"].map(|text| Message::Text(text.into()));
            assert_eq!(messages, expected);
        }
    })
    .await;
}

//= rfc6455 4.1-13, 4.1-23, 4.1-29, 4.1-30
#[tokio::test]
async fn the_request_is_what_was_asked_for() {
    in_time(async {
        let options = ConnectOptions {
            subprotocols: vec!["v2".to_owned(), "v1".to_owned()],
            headers: vec![("Cookie".to_owned(), "a=b".to_owned())],
            ..options()
        };
        let answer = ANSWER.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: v1\r\nX: y\r\n\r\n");
        let connected = client(script(&[&answer]), "ws://example.com:81/chat?a=1", &options);
        let connected = connected.await.unwrap();
        assert_eq!(connected.subprotocol.as_deref(), Some("v1"));
        assert_eq!(connected.response.header("x"), Some(b"y".as_slice()));
        let request = connected.websocket.get_ref().written();
        assert_eq!(
            str::from_utf8(&request).unwrap(),
            "GET /chat?a=1 HTTP/1.1\r\n\
             Host: example.com:81\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: v2, v1\r\n\
             Cookie: a=b\r\n\r\n"
        );
    })
    .await;
}

/// §5.1, §5.3: each frame is masked with the next key of the source.
//= rfc6455 5.1-1, 5.3-2, 5.5.1-5, 6.1-6, 10.3-1
#[tokio::test]
async fn frames_are_masked_with_the_keys_that_were_given() {
    in_time(async {
        let options = ConnectOptions {
            mask_keys: Box::new(|| {
                let mut calls = 0;
                Box::new(move || {
                    calls += 1;
                    [calls; 4]
                })
            }),
            ..ConnectOptions::default()
        };
        let (ours, mut theirs) = duplex(4096);
        let answered = tokio::spawn(async move {
            let request = read_until(&mut theirs, "\r\n\r\n").await;
            let key = request.split("Sec-WebSocket-Key: ").nth(1).expect("a key");
            assert_eq!(&key[..24], "AQEBAQICAgIDAwMDBAQEBA==");
            let accept = AcceptKey::answer(&key[..24]);
            let answer = ANSWER.replace("ICX+Yqv66kxgM0FcWaLWlFLwTAI=", accept.as_str());
            theirs.write_all(answer.as_bytes()).await.expect("written");
            let mut frames = [0; 14];
            theirs.read_exact(&mut frames).await.expect("two frames");
            frames
        });
        let mut ws = client(ours, "ws://a", &options).await.unwrap().websocket;
        ws.send("\0").await.unwrap();
        ws.send("\0").await.unwrap();
        assert_eq!(
            answered.await.unwrap(),
            [0x81, 0x81, 5, 5, 5, 5, 5, 0x81, 0x81, 6, 6, 6, 6, 6]
        );
    })
    .await;
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    in_time(async {
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let answer = format!("{hint}{hint}{ANSWER}");
        assert_eq!(opened(script(&[&answer])).await.unwrap(), []);
        let without_end = hint.repeat(100);
        let refused = opened(script(&[&without_end])).await;
        assert!(
            matches!(&refused, Err(ConnectError::Refused(rejection)) if rejection.head.status() == 103),
            "{refused:?}"
        );
    })
    .await;
}

//= rfc6455 7.2.1-1
#[tokio::test]
async fn bad_responses_are_errors() {
    in_time(async {
        let wrong = ANSWER.replace("ICX+", "icx+");
        let result = opened(script(&[&wrong])).await;
        assert!(matches!(
            result,
            Err(ConnectError::Response(ResponseError::WrongAccept))
        ));
        let result = opened(script(&["SSH-2.0-x\r\n"])).await;
        assert!(matches!(
            result,
            Err(ConnectError::Head(ResponseHeadError::Malformed))
        ));
        let result = opened(script(&["HTTP/1.1 101 Swi"])).await;
        assert!(matches!(result, Err(ConnectError::CutOff)));
        let options = ConnectOptions {
            head: HeadLimits {
                max_bytes: 100,
                max_headers: 10,
            },
            ..options()
        };
        let result = client(script(&[ANSWER]), "ws://a", &options).await;
        assert!(matches!(
            result,
            Err(ConnectError::Head(ResponseHeadError::TooLarge(100)))
        ));
    })
    .await;
}

/// What cannot be sent is found before anybody is bothered.
#[tokio::test]
async fn bad_requests_are_not_sent() {
    in_time(async {
        let injected = ConnectOptions {
            headers: vec![("X".to_owned(), "a\r\nEvil: 1".to_owned())],
            ..options()
        };
        // The discard port of a reserved address: nothing would come of a try.
        let result = connect("ws://192.0.2.1:9/", &injected).await;
        let Err(ConnectError::Request(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(error, RequestError::HeaderValue("X".to_owned()));
        let result = connect("ws://me:secret@192.0.2.1:9/", &options()).await;
        assert!(matches!(result, Err(ConnectError::Url(UrlError::UserInfo))));
    })
    .await;
}

/// Status, headers and the beginning of the body, whatever says where that ends.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_readable() {
    in_a_day(async {
        let long = "x".repeat(5000);
        let endless = Scripted::new([
            Input::Bytes(b"HTTP/1.1 503 Busy\r\n\r\nlater".to_vec()),
            Input::Never,
        ]);
        for (io, status, body) in [
            (
                script(&[
                    "HTTP/1.1 401 No\r\nContent-Length: 5\r\n\r\n",
                    "token, please",
                ]),
                401,
                "token",
            ),
            (script(&["HTTP/1.1 403 No\r\n\r\nbecause"]), 403, "because"),
            (
                script(&[&format!(
                    "HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n{long}"
                )]),
                500,
                &long[..1024],
            ),
            (
                script(&[
                    "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "4\r\nnot \r\nA;x=y\r\nfound here\r\n0\r\n\r\n",
                ]),
                404,
                "not found here",
            ),
            (
                script(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
                200,
                "",
            ),
            (endless, 503, "later"),
        ] {
            let start = Instant::now();
            let result = opened(io).await;
            assert!(start.elapsed() < Duration::from_millis(1100), "{status}");
            let Err(ConnectError::Refused(rejection)) = result else {
                panic!("{result:?}");
            };
            assert_eq!(rejection.head.status(), status);
            assert_eq!(str::from_utf8(&rejection.body), Ok(body), "{status}");
        }
        let redirect =
            script(&["HTTP/1.1 307 There\r\nLocation: ws://b/\r\nContent-Length: 0\r\n\r\n"]);
        let Err(ConnectError::Refused(rejection)) = opened(redirect).await else {
            panic!("a redirect is a refusal");
        };
        assert_eq!(
            rejection.head.header("location"),
            Some(b"ws://b/".as_slice())
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left() {
    in_a_day(async {
        let start = Instant::now();
        let result = opened(Scripted::new([Input::Never])).await;
        assert!(matches!(result, Err(ConnectError::HandshakeTimedOut(_))));
        assert_eq!(start.elapsed().as_secs(), 10);
    })
    .await;
}

/// It listens, and that is all it does.
#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_left() {
    in_a_day(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = Instant::now();
        let options = ConnectOptions {
            proxy: Some(Proxy::http("127.0.0.1", port)),
            connect_timeout: Duration::from_secs(3),
            ..options()
        };
        let result = connect("ws://example.com/", &options).await;
        assert!(
            matches!(result, Err(ConnectError::TimedOut(_))),
            "{result:?}"
        );
        assert_eq!(start.elapsed().as_secs(), 3);
    })
    .await;
}

#[cfg(not(feature = "rustls"))]
#[tokio::test]
async fn wss_without_the_feature_says_so() {
    in_time(async {
        let result = connect("wss://127.0.0.1:9/", &options()).await;
        assert!(matches!(result, Err(ConnectError::NoTls)), "{result:?}");
    })
    .await;
}

//= rfc6455 4.1-8
#[tokio::test]
async fn nobody_there_is_an_error() {
    in_time(async {
        // A socket that has the port, and doesn't listen.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let result = connect(&format!("ws://127.0.0.1:{port}/"), &options()).await;
        let Err(ConnectError::Unreachable { host, source, .. }) = &result else {
            panic!("{result:?}");
        };
        assert_eq!(
            (host.as_str(), source.kind()),
            ("127.0.0.1", io::ErrorKind::ConnectionRefused)
        );
    })
    .await;
}

/// A server for one connection, which echoes; and its port.
async fn echo_server(listener: TcpListener) {
    let (stream, _) = listener.accept().await.expect("a client");
    let options = AcceptOptions {
        decide: Box::new(|request, _| match request.path() {
            "/secret" => Err(Refusal::new(403, "not for you")),
            _ => Ok(None),
        }),
        ..AcceptOptions::default()
    };
    if let Ok(accepted) = accept(stream, &options).await {
        let ended = accepted.websocket.serve(|message, replies| {
            replies.send(message).expect("it is open");
        });
        ended.await.expect("closed in order");
    }
}

async fn start_echo_server() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    (port, tokio::spawn(echo_server(listener)))
}

/// `localhost` has two addresses, and the server listens on one of them.
//= rfc6455 4.1-6
#[tokio::test]
async fn both_ends_are_ours() {
    in_time(async {
        let (port, server) = start_echo_server().await;
        let url = format!("ws://localhost:{port}/");
        let connected = connect(&url, &ConnectOptions::default()).await;
        let mut ws = connected.unwrap().websocket;
        assert!(ws.get_ref().tcp_stream().nodelay().unwrap());
        assert!(!ws.get_ref().is_tls());
        for text in ["", "a", &"\u{e9}".repeat(100_000)] {
            ws.send(text).await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some(Message::Text(text.into())));
        }
        ws.send(&[0xFF; 300][..]).await.unwrap();
        let echoed = ws.recv().await.unwrap();
        assert!(matches!(echoed, Some(Message::Binary(bytes)) if bytes[..] == [0xFF; 300]));
        ws.close(CloseCode::NORMAL, "done").await.unwrap();
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn our_servers_refusal_is_read() {
    in_time(async {
        let (port, server) = start_echo_server().await;
        let result = connect(
            &format!("ws://127.0.0.1:{port}/secret"),
            &ConnectOptions::default(),
        )
        .await;
        let Err(ConnectError::Refused(rejection)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(
            (rejection.head.status(), &rejection.body[..]),
            (403, &b"not for you\n"[..])
        );
        server.await.unwrap();
    })
    .await;
}

async fn read_until(io: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(io.read_u8().await.expect("more"));
    }
    String::from_utf8(bytes).expect("text")
}

/// What a proxy is to be asked (a pattern of bytes), and what it says to each.
type Steps = &'static [(&'static [u8], &'static [u8])];

/// A proxy with a script, in front of our echo server. What came of the tunnel and an echo through
/// it.
async fn through_proxy(
    url_host: &str,
    proxy: impl FnOnce(u16) -> Proxy,
    steps: Steps,
) -> Result<Message, ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let (echo_port, echo) = start_echo_server().await;
    let script = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        for (expected, answer) in steps {
            let mut asked = vec![0; expected.len()];
            stream.read_exact(&mut asked).await.expect("a request");
            assert_eq!(asked, *expected);
            stream.write_all(answer).await.expect("an answer");
        }
        // Where the tunnel was refused, the server is gone. It ends with either side.
        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", echo_port)).await {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        }
    });
    let options = ConnectOptions {
        proxy: Some(proxy(port)),
        ..options()
    };
    // The server's name means nothing here: the proxy knows it.
    let connected = connect(&format!("ws://{url_host}/"), &options).await;
    let result = match connected {
        Ok(connected) => {
            let mut ws = connected.websocket;
            ws.send("hello").await.expect("sent");
            let echoed = ws.recv().await.expect("an echo").expect("an echo");
            ws.close(CloseCode::NORMAL, "").await.expect("closed");
            echo.await.expect("the server is well");
            Ok(echoed)
        }
        Err(error) => {
            echo.abort();
            Err(error)
        }
    };
    script.await.expect("the proxy was asked as expected");
    result
}

//= rfc6455 4.1-5
#[tokio::test]
async fn http_proxies_open_tunnels() {
    in_time(async {
        let echoed = through_proxy(
            "chat.test",
            |port| Proxy::http("127.0.0.1", port).with_credentials("Aladdin", "open sesame"),
            &[(
                b"CONNECT chat.test:80 HTTP/1.1\r\nHost: chat.test:80\r\n\
                  Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
                b"HTTP/1.1 200 Connection established\r\n\r\n",
            )],
        )
        .await;
        assert_eq!(echoed.unwrap(), Message::Text("hello".into()));
        let refused = through_proxy(
            "[::1]:81",
            |port| Proxy::http("127.0.0.1", port),
            &[(
                b"CONNECT [::1]:81 HTTP/1.1\r\nHost: [::1]:81\r\n\r\n",
                b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n",
            )],
        );
        let refused = refused.await;
        assert!(
            matches!(refused, Err(ConnectError::Proxy(ProxyError::Refused(407)))),
            "{refused:?}"
        );
    })
    .await;
}

/// Bytes behind a proxy's answer would become the server's.
#[tokio::test]
async fn an_http_proxy_that_speaks_for_the_server_is_refused() {
    in_time(async {
        let refused = through_proxy(
            "a",
            |port| Proxy::http("127.0.0.1", port),
            &[(
                b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n",
            )],
        );
        let refused = refused.await;
        assert!(
            matches!(refused, Err(ConnectError::Proxy(ProxyError::Protocol))),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn socks_proxies_open_tunnels() {
    in_time(async {
        let echoed = through_proxy(
            "chat.test:81",
            |port| Proxy::socks5("127.0.0.1", port).with_credentials("me", "secret"),
            &[
                (b"\x05\x01\x02", b"\x05\x02"),
                (b"\x01\x02me\x06secret", b"\x01\x00"),
                (
                    b"\x05\x01\x00\x03\x09chat.test\x00\x51",
                    b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34",
                ),
            ],
        );
        assert_eq!(echoed.await.unwrap(), Message::Text("hello".into()));
        let echoed = through_proxy(
            "192.0.2.1",
            |port| Proxy::socks5("127.0.0.1", port),
            &[
                (b"\x05\x01\x00", b"\x05\x00"),
                (
                    b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50",
                    b"\x05\x00\x00\x03\x04name\x12\x34",
                ),
            ],
        );
        assert_eq!(echoed.await.unwrap(), Message::Text("hello".into()));
    })
    .await;
}

//= rfc6455 4.1-8
#[tokio::test]
async fn socks_refusals_are_told() {
    in_time(async {
        let socks = |port| Proxy::socks5("127.0.0.1", port);
        let refused = through_proxy("a", socks, &[(b"\x05\x01\x00", b"\x05\xff")]).await;
        assert!(
            matches!(refused, Err(ConnectError::Proxy(ProxyError::Credentials))),
            "{refused:?}"
        );
        let refused = through_proxy(
            "a",
            socks,
            &[
                (b"\x05\x01\x00", b"\x05\x00"),
                (
                    b"\x05\x01\x00\x03\x01a\x00\x50",
                    b"\x05\x05\x00\x01\0\0\0\0\0\0",
                ),
            ],
        );
        let refused = refused.await;
        assert!(
            matches!(refused, Err(ConnectError::Proxy(ProxyError::Socks(5)))),
            "{refused:?}"
        );
        let refused = through_proxy("a", socks, &[(b"\x05\x01\x00", b"HTTP")]).await;
        assert!(
            matches!(refused, Err(ConnectError::Proxy(ProxyError::Protocol))),
            "{refused:?}"
        );
    })
    .await;
}

/// A stream of any kind will do, and a connect that is given up leaves nothing behind.
#[tokio::test]
async fn giving_up_closes_the_stream() {
    in_time(async {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = duplex(4096);
        let options = options();
        {
            let mut opening = std::pin::pin!(client(ours, "ws://a", &options));
            tokio::select! {
                biased;
                _ = &mut opening => panic!("nobody has answered"),
                _ = read_until(&mut theirs, "\r\n\r\n") => {}
            }
        }
        // The stream was dropped with the future it had moved into.
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
    })
    .await;
}
