//! The client's side of the opening handshake: the request as it goes out, and each check of RFC
//! 6455 §4.1 on the response.

use tautline_websocket::proto::handshake::{
    ClientRequest, HeadLimits, Opening, RequestError, RequestHead, ResponseError, ResponseHead,
    ResponseHeadError,
};

const NONCE: [u8; 16] = *b"the sample nonce";

const GOOD: [(&str, &str); 3] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
];

fn request(url: &str) -> ClientRequest {
    ClientRequest::new(&url.parse().expect("a good URL"), NONCE)
}

fn text(request: &ClientRequest) -> String {
    let mut bytes = Vec::new();
    request.write_http1(&mut bytes);
    String::from_utf8(bytes).expect("text")
}

/// A 101 response with `GOOD` without the header `left_out`, and `added` behind it.
fn response(left_out: &str, added: &[(&str, &str)]) -> ResponseHead {
    let kept = GOOD.iter().filter(|(name, _)| *name != left_out);
    let lines: String = kept
        .chain(added)
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    parse(&format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n"))
}

fn parse(head: &str) -> ResponseHead {
    let parsed = ResponseHead::parse(head.as_bytes(), &HeadLimits::default());
    parsed.expect("a good head").expect("the head is whole")
}

//= rfc6455 4.1-14, 4.1-15, 4.1-16, 4.1-18, 4.1-19, 4.1-24, 11.3.1-1, 11.3.5-2, 4.1-25, 4.1-28, 4.1-29
#[test]
fn the_whole_request_is_as_expected() {
    let request = request("ws://example.com:8080/chat?room=7")
        .with_subprotocol("chat.v2")
        .and_then(|request| request.with_subprotocol("chat.v1"))
        .and_then(|request| request.with_extension("a; b=1"))
        .and_then(|request| request.with_extension("c"))
        .and_then(|request| request.with_header("Authorization", "Bearer t"))
        .unwrap();
    assert_eq!(
        text(&request),
        "GET /chat?room=7 HTTP/1.1\r\n\
         Host: example.com:8080\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n\
         Sec-WebSocket-Extensions: a; b=1, c\r\n\
         Authorization: Bearer t\r\n\r\n"
    );
    // And so that a server's checks agree.
    let text = text(&request);
    let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default());
    let head = head.unwrap().expect("the head is whole");
    let opening: Opening<'_> = head.opening().unwrap();
    assert_eq!(opening.subprotocols(), ["chat.v2", "chat.v1"]);
    let mut answer = Vec::new();
    opening.accept(Some("chat.v1")).write_http1(&mut answer);
    let head = parse(str::from_utf8(&answer).unwrap());
    assert_eq!(request.check(&head).unwrap().subprotocol, Some("chat.v1"));
}

/// §4.1: the port only where it isn't the default.
//= rfc6455 4.1-17
#[test]
fn host_leaves_default_ports_out() {
    for (url, host) in [
        ("ws://a:80", "a"),
        ("wss://a:443", "a"),
        ("ws://a:443", "a:443"),
        ("wss://[::1]", "[::1]"),
        ("ws://[::1]:81/", "[::1]:81"),
    ] {
        let text = text(&request(url));
        assert!(
            text.contains(&format!("\r\nHost: {host}\r\n")),
            "{url}: {text}"
        );
    }
}

//= rfc6455 4.1-14, 4.1-26, 4.1-27
#[test]
fn nothing_can_be_injected() {
    let base = || request("ws://a");
    let header = |name: &str, value: &str| base().with_header(name, value).unwrap_err();
    for value in ["x\r\nEvil: 1", "x\nEvil: 1", "x\r", "\0", "\u{7f}"] {
        assert_eq!(
            header("X", value),
            RequestError::HeaderValue("X".to_owned()),
            "{value:?}"
        );
    }
    for name in ["", "X Y", "X:", "X\r\nEvil", "\u{fc}"] {
        assert_eq!(header(name, "x"), RequestError::HeaderName(name.to_owned()));
    }
    for name in [
        "Host",
        "upgrade",
        "CONNECTION",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "Transfer-Encoding",
    ] {
        assert_eq!(header(name, "x"), RequestError::Reserved(name.to_owned()));
    }
    for name in ["", "a b", "a,b", "a\r\nEvil: 1"] {
        let error = base().with_subprotocol(name).unwrap_err();
        assert_eq!(error, RequestError::Subprotocol(name.to_owned()));
    }
    let twice = base().with_subprotocol("a").unwrap().with_subprotocol("a");
    assert_eq!(
        twice.unwrap_err(),
        RequestError::Subprotocol("a".to_owned())
    );
    for offer in ["", "; a", "a, b", "a; b\r\nEvil: 1"] {
        let error = base().with_extension(offer).unwrap_err();
        assert_eq!(error, RequestError::Extension(offer.to_owned()));
    }
}

/// One row for each check: the response, the fault.
//= rfc6455 4.1-31, 4.1-32, 4.1-33, 4.1-34, 4.1-35, 4.1-36, 4.1-37, 4.3-1, 9.1-1
#[test]
fn each_check_has_its_error() {
    use ResponseError::*;
    let accept = GOOD[2];
    let no_upgrade = |value| response("Upgrade", &[("Upgrade", value)]);
    let rows = [
        // 1: the status.
        (parse("HTTP/1.1 200 OK\r\n\r\n"), Status(200)),
        (
            parse("HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n"),
            Status(302),
        ),
        (parse("HTTP/1.0 403\r\n\r\n"), Status(403)),
        (parse("HTTP/1.0 101 Old\r\n\r\n"), OldHttp),
        // 2: Upgrade.
        (response("Upgrade", &[]), NoUpgrade),
        (no_upgrade("h2c"), NoUpgrade),
        (no_upgrade("websocket, h2c"), NoUpgrade),
        (response("", &[("Upgrade", "h2c")]), NoUpgrade),
        // 3: Connection.
        (response("Connection", &[]), NoConnectionUpgrade),
        (
            response("Connection", &[("Connection", "close")]),
            NoConnectionUpgrade,
        ),
        // 4: Sec-WebSocket-Accept.
        (response(accept.0, &[]), NoAccept),
        (response(accept.0, &[(accept.0, "")]), WrongAccept),
        (
            response(accept.0, &[(accept.0, "S3PPLMBITXAQ9KYGZZHZRBK+XOO=")]),
            WrongAccept,
        ),
        (response("", &[accept]), Repeated("Sec-WebSocket-Accept")),
        // 5: Sec-WebSocket-Extensions.
        (
            response("", &[("Sec-WebSocket-Extensions", "permessage-deflate")]),
            UnexpectedExtension,
        ),
        (
            response("", &[("Sec-WebSocket-Extensions", "known; a=1, unknown")]),
            UnexpectedExtension,
        ),
        (
            response("", &[("Sec-WebSocket-Extensions", "known;")]),
            InvalidExtension,
        ),
        (
            response("", &[("Sec-WebSocket-Extensions", "known; a=\"b c\"")]),
            InvalidExtension,
        ),
        // 6: Sec-WebSocket-Protocol.
        (
            response("", &[("Sec-WebSocket-Protocol", "other")]),
            UnexpectedSubprotocol,
        ),
        (
            response("", &[("Sec-WebSocket-Protocol", "CHAT")]),
            UnexpectedSubprotocol,
        ),
        (
            response("", &[("Sec-WebSocket-Protocol", "chat, other")]),
            UnexpectedSubprotocol,
        ),
        (
            response(
                "",
                &[
                    ("Sec-WebSocket-Protocol", "chat"),
                    ("Sec-WebSocket-Protocol", "chat"),
                ],
            ),
            Repeated("Sec-WebSocket-Protocol"),
        ),
        (
            response("", &[("Sec-WebSocket-Protocol", "ch\u{e4}t")]),
            InvalidHeader("Sec-WebSocket-Protocol"),
        ),
    ];
    let request = request("ws://a")
        .with_subprotocol("chat")
        .and_then(|request| request.with_extension("known"))
        .unwrap();
    for (response, fault) in rows {
        assert_eq!(request.check(&response), Err(fault), "{fault}");
    }
}

/// Names and tokens in any case, blanks around, lists over several lines; a subprotocol is the
/// server's to give or not.
#[test]
fn what_may_differ_does() {
    let request = request("ws://a")
        .with_subprotocol("chat")
        .and_then(|request| request.with_extension("known; x"))
        .unwrap();
    let head = parse(
        "HTTP/1.1 101\r\n\
         uPGRADE:   WebSocket  \r\n\
         connection: keep-alive\r\n\
         CONNECTION: foo , UPGRADE\r\n\
         sec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \r\n\
         sec-websocket-extensions: known; y=2\r\n\r\n",
    );
    let agreed = request.check(&head).unwrap();
    assert_eq!(agreed.subprotocol, None);
    assert_eq!(agreed.extensions, ["known; y=2"]);
}

#[test]
fn what_a_refusal_carries_is_readable() {
    let head = parse("HTTP/1.1 302 Found\r\nLocation: wss://b/\r\nX: 1\r\nx: 2\r\n\r\nrest");
    assert_eq!((head.status(), head.reason()), (302, "Found"));
    assert_eq!(head.header("location"), Some(b"wss://b/".as_slice()));
    assert_eq!(head.headers().count(), 3);
    assert!(!format!("{head:?}").contains("wss"));
}

#[test]
fn the_head_is_limited() {
    let limits = HeadLimits {
        max_bytes: 100,
        max_headers: 2,
    };
    let read = |bytes: &[u8]| ResponseHead::parse(bytes, &limits).map(|head| head.map(|h| h.len()));
    let whole = b"HTTP/1.1 101 x\r\nA: 1\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(read(&whole[..end]), Ok(None), "{end}");
    }
    assert_eq!(read(whole), Ok(Some(whole.len())));
    let long = format!("HTTP/1.1 101 x\r\nA: {}\r\n\r\n", "b".repeat(100));
    assert_eq!(read(&long.as_bytes()[..99]), Ok(None));
    assert_eq!(
        read(&long.as_bytes()[..100]),
        Err(ResponseHeadError::TooLarge(100))
    );
    assert_eq!(read(long.as_bytes()), Err(ResponseHeadError::TooLarge(100)));
    let many = b"HTTP/1.1 101 x\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    assert_eq!(read(many), Err(ResponseHeadError::TooManyHeaders(2)));
    for garbage in [
        b"SSH-2.0-OpenSSH_9\r\n".as_slice(),
        b"HTTP/2 101\r\n\r\n",
        b"\x15\x03\x01",
    ] {
        assert_eq!(read(garbage), Err(ResponseHeadError::Malformed));
    }
}
