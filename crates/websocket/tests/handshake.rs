//! The opening handshake: each check of RFC 6455 §4.2.1, and the answer to it.

use tautline_websocket::proto::handshake::{
    HeadError, HeadLimits, HttpVersion, Opening, OpeningError, RequestHead,
};

const GOOD: [(&str, &str); 6] = [
    ("Host", "example.com:8080"),
    ("Upgrade", "websocket"),
    ("Connection", "keep-alive, Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Origin", "https://example.com"),
];

type Headers<'a> = Vec<(&'a str, &'a str)>;

fn check<'h>(
    method: &str,
    version: HttpVersion,
    headers: &[(&'h str, &'h str)],
) -> Result<Opening<'h>, OpeningError> {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    Opening::from_request(method, version, headers)
}

fn get<'h>(headers: &[(&'h str, &'h str)]) -> Result<Opening<'h>, OpeningError> {
    check("GET", HttpVersion::HTTP_11, headers)
}

/// The good request without the header `name`, and with others behind it.
fn without<'h>(name: &str, added: &[(&'h str, &'h str)]) -> Headers<'h> {
    GOOD.into_iter()
        .filter(|(other, _)| *other != name)
        .chain(added.iter().copied())
        .collect()
}

//= rfc6455 4.2.1-2, 4.2.1-3, 4.2.1-4, 4.2.1-5, 4.2.1-6, 4.2.1-7, 4.2.1-8
#[test]
fn a_good_request_is_understood() {
    let opening = get(&GOOD).unwrap();
    assert_eq!(opening.host(), "example.com:8080");
    assert_eq!(opening.origin(), Some("https://example.com"));
    assert_eq!(opening.key(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(opening.subprotocols().is_empty() && opening.extensions().is_empty());
}

/// One row for each check: the request, the fault, the status of the answer.
//= rfc6455 4.2.1-1, 4.2.1-2, 4.2.1-3, 4.2.1-4, 4.2.1-5, 4.2.1-6, 4.2.1-7, 4.2.2-5, 4.3-1, 4.4-1, 9.1-1, 10.7-4
#[test]
fn each_check_has_its_refusal() {
    use OpeningError::*;
    let get11 = |headers: Headers<'static>| ("GET", HttpVersion::HTTP_11, headers);
    let rows = [
        // 1: GET, HTTP/1.1 or higher.
        (("POST", HttpVersion::HTTP_11, GOOD.to_vec()), NotGet, 405),
        (("get", HttpVersion::HTTP_11, GOOD.to_vec()), NotGet, 405),
        (("GET", HttpVersion::HTTP_10, GOOD.to_vec()), OldHttp, 505),
        // 2: Host.
        (get11(without("Host", &[])), NoHost, 400),
        (get11(without("", &[("host", "b")])), Repeated("Host"), 400),
        (
            get11(without("Host", &[("Host", "a\u{7f}")])),
            InvalidHeader("Host"),
            400,
        ),
        // 3: Upgrade.
        (get11(without("Upgrade", &[])), NoUpgrade, 426),
        (
            get11(without("Upgrade", &[("Upgrade", "h2c")])),
            NoUpgrade,
            426,
        ),
        (
            get11(without("Upgrade", &[("Upgrade", "websockets")])),
            NoUpgrade,
            426,
        ),
        // 4: Connection.
        (get11(without("Connection", &[])), NoConnectionUpgrade, 400),
        (
            get11(without("Connection", &[("Connection", "close")])),
            NoConnectionUpgrade,
            400,
        ),
        // 5: Sec-WebSocket-Key.
        (get11(without("Sec-WebSocket-Key", &[])), NoKey, 400),
        (
            get11(without("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "")])),
            InvalidKey,
            400,
        ),
        (
            get11(without(
                "Sec-WebSocket-Key",
                &[("Sec-WebSocket-Key", "c2hvcnQ=")],
            )),
            InvalidKey,
            400,
        ),
        (
            get11(without("", &[GOOD[3]])),
            Repeated("Sec-WebSocket-Key"),
            400,
        ),
        // 6: Sec-WebSocket-Version.
        (get11(without("Sec-WebSocket-Version", &[])), NoVersion, 426),
        (
            get11(without(
                "Sec-WebSocket-Version",
                &[("Sec-WebSocket-Version", "8")],
            )),
            UnsupportedVersion,
            426,
        ),
        (
            get11(without(
                "Sec-WebSocket-Version",
                &[("Sec-WebSocket-Version", "013")],
            )),
            UnsupportedVersion,
            426,
        ),
        (
            get11(without("", &[GOOD[4]])),
            Repeated("Sec-WebSocket-Version"),
            400,
        ),
        // 7: Origin, if there is one.
        (
            get11(without("", &[("Origin", "https://evil.example")])),
            Repeated("Origin"),
            400,
        ),
        (
            get11(without("Origin", &[("Origin", "https://ex\u{e4}mple.com")])),
            InvalidHeader("Origin"),
            400,
        ),
        // 8: Sec-WebSocket-Protocol, if there is one.
        (
            get11(without("", &[("Sec-WebSocket-Protocol", "chat, ch at")])),
            InvalidSubprotocol,
            400,
        ),
        (
            get11(without("", &[("Sec-WebSocket-Protocol", "chat, chat")])),
            InvalidSubprotocol,
            400,
        ),
        // 9: Sec-WebSocket-Extensions, if there is one.
        (
            get11(without("", &[("Sec-WebSocket-Extensions", "a, b c")])),
            InvalidExtension,
            400,
        ),
        (
            get11(without("", &[("Sec-WebSocket-Extensions", "a;")])),
            InvalidExtension,
            400,
        ),
        (
            get11(without("", &[("Sec-WebSocket-Extensions", "a; b=\"c d\"")])),
            InvalidExtension,
            400,
        ),
        (
            get11(without("", &[("Sec-WebSocket-Extensions", "a; b=\"c")])),
            InvalidExtension,
            400,
        ),
        // No body, which the frames would be taken for or the other way round.
        (get11(without("", &[("Content-Length", "10")])), Body, 400),
        (
            get11(without("", &[("Transfer-Encoding", "chunked")])),
            Body,
            400,
        ),
    ];
    for ((method, version, headers), fault, status) in rows {
        let result = check(method, version, &headers);
        assert_eq!(result, Err(fault), "{method} {headers:?}");
        let refusal = fault.refusal();
        assert_eq!(
            (fault.status(), refusal.status()),
            (status, status),
            "{fault}"
        );
        let mut answer = Vec::new();
        refusal.write_http1(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, format!("{fault}\n"));
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len()))
                || head.ends_with(&format!("\r\nContent-Length: {}", body.len())),
            "{head}"
        );
        // §4.4: with 426, the version that we speak.
        assert_eq!(
            head.contains("\r\nSec-WebSocket-Version: 13\r\n"),
            status == 426,
            "{head}"
        );
        assert_eq!(
            head.contains("\r\nUpgrade: websocket\r\n"),
            status == 426,
            "{head}"
        );
        assert_eq!(head.contains("\r\nAllow: GET\r\n"), status == 405, "{head}");
    }
}

/// §4.2.1: names and tokens in any case, lists over several lines, blanks around.
//= rfc6455 9.1-2
#[test]
fn what_may_differ_does() {
    let headers = [
        ("HOST", "example.com"),
        ("uPGRADE", "h2c"),
        ("upgrade", " WebSocket "),
        ("connection", "keep-alive"),
        ("Connection", "x,UPGRADE"),
        ("sec-websocket-key", " dGhlIHNhbXBsZSBub25jZQ== "),
        ("sec-websocket-version", " 13 "),
        ("sec-websocket-protocol", "b, ,a"),
        ("Sec-WebSocket-Protocol", "c"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits, x",
        ),
        ("content-length", "0"),
    ];
    let opening = get(&headers).unwrap();
    assert_eq!(opening.origin(), None);
    assert_eq!(opening.subprotocols(), ["b", "a", "c"]);
    assert_eq!(
        opening.extensions(),
        ["permessage-deflate; client_max_window_bits", "x"]
    );
}

/// Clients that offer nothing may say so with an empty list.
#[test]
fn an_empty_list_is_none() {
    for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
        for value in ["", " , "] {
            let headers = without(name, &[(name, value)]);
            let opening = check("GET", HttpVersion::HTTP_11, &headers).unwrap();
            assert!(opening.extensions().is_empty() || opening.subprotocols().is_empty());
        }
    }
}

/// §4.2.2: the client's order of preference decides; names are case-sensitive.
//= rfc6455 4.2.2-7
#[test]
fn subprotocols_are_selected_by_the_clients_preference() {
    let headers = without("", &[("Sec-WebSocket-Protocol", "new, old, Older")]);
    let opening = get(&headers).unwrap();
    assert_eq!(opening.select_subprotocol(&["old", "new"]), Some("new"));
    assert_eq!(opening.select_subprotocol(&["older", "old"]), Some("old"));
    assert_eq!(opening.select_subprotocol(&["older"]), None);
    assert_eq!(opening.select_subprotocol(&[]), None);
}

/// §4.2.2, with the RFC's own example.
//= rfc6455 4.2.2-8, 4.2.2-11, 4.2.2-12, 4.2.2-13, 4.2.2-14, 11.3.3-1, 11.3.4-2
#[test]
fn the_response_is_the_rfcs() {
    let mut response = Vec::new();
    get(&GOOD)
        .unwrap()
        .accept(Some("chat"))
        .write_http1(&mut response);
    let expected = "HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: chat\r\n\r\n";
    assert_eq!(String::from_utf8(response).unwrap(), expected);
}

/// The same checks from an `http::HeaderMap`, as hyper has it.
#[test]
fn headers_may_come_from_an_http_library() {
    let mut request = http::Request::get("/");
    for (name, value) in GOOD {
        request = request.header(name, value);
    }
    let request = request.body(()).unwrap();
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let opening =
        Opening::from_request(request.method().as_str(), HttpVersion::HTTP_11, headers).unwrap();
    assert_eq!(opening.host(), "example.com:8080");
}

fn head(extra: &str) -> String {
    let mut head = "GET /chat?room=1 HTTP/1.1\r\n".to_owned();
    for (name, value) in GOOD {
        head += &format!("{name}: {value}\r\n");
    }
    head + extra + "\r\n"
}

#[test]
fn a_head_is_read_from_its_bytes() {
    let bytes = head("X-Note: caf\u{e9}\r\n");
    let with_more = bytes.clone() + "\u{1}frames";
    let head = RequestHead::parse(with_more.as_bytes(), &HeadLimits::default())
        .unwrap()
        .unwrap();
    assert_eq!(head.len(), bytes.len());
    assert_eq!((head.method(), head.target()), ("GET", "/chat?room=1"));
    assert_eq!((head.path(), head.query()), ("/chat", Some("room=1")));
    assert_eq!(head.version(), HttpVersion::HTTP_11);
    assert_eq!(head.header("x-note"), Some("caf\u{e9}".as_bytes()));
    assert_eq!(head.header("x-other"), None);
    assert_eq!(head.headers().count(), 7);
    assert!(head.opening().is_ok());
    for len in 0..bytes.len() {
        let result = RequestHead::parse(&bytes.as_bytes()[..len], &HeadLimits::default());
        assert!(matches!(result, Ok(None)), "{len} bytes");
    }
}

#[test]
fn heads_have_limits() {
    let limits = HeadLimits {
        max_bytes: 400,
        max_headers: 8,
    };
    let parse =
        |text: &str| RequestHead::parse(text.as_bytes(), &limits).map(|head| head.is_some());
    let spare = 400 - head("").len() - "Cookie: \r\n".len();
    let cookie = |len| format!("Cookie: {}\r\n", "x".repeat(len));
    assert_eq!(parse(&head(&cookie(spare))), Ok(true));
    assert_eq!(
        parse(&head(&cookie(spare + 1))),
        Err(HeadError::TooLarge(400))
    );
    // And a head that never ends.
    assert_eq!(parse(&head("")[..head("").len() - 2]), Ok(false));
    assert_eq!(parse(&head(&cookie(1000))[..399]), Ok(false));
    assert_eq!(
        parse(&head(&cookie(1000))[..400]),
        Err(HeadError::TooLarge(400))
    );
    assert_eq!(parse(&head(&"A: b\r\n".repeat(2))), Ok(true));
    assert_eq!(
        parse(&head(&"A: b\r\n".repeat(3))),
        Err(HeadError::TooManyHeaders(8))
    );
    assert_eq!(HeadError::TooLarge(400).refusal().status(), 431);
    assert_eq!(HeadError::TooManyHeaders(8).refusal().status(), 431);
}

#[test]
fn what_is_not_http_is_refused() {
    for bytes in [
        "\x16\x03\x01\x02\x00\x01",
        "GET / HTTP/2.0\r\n\r\n",
        "GET  / \r\n\r\n",
        "GET / HTTP/1.1\r\nA b\r\n\r\n",
    ] {
        let result = RequestHead::parse(bytes.as_bytes(), &HeadLimits::default());
        assert!(matches!(result, Err(HeadError::Malformed)), "{bytes:?}");
    }
    assert_eq!(HeadError::Malformed.refusal().status(), 400);
}

/// Header lines hold cookies and tokens.
#[test]
fn heads_are_not_printed() {
    let bytes = head("Cookie: secret\r\n");
    let head = RequestHead::parse(bytes.as_bytes(), &HeadLimits::default())
        .unwrap()
        .unwrap();
    let printed = format!("{head:?}");
    assert!(printed.contains("/chat") && !printed.contains("secret") && !printed.contains("room"));
}

/// RFC 7692 §5: the first offer that can be met is, and the answer says what was agreed. Several
/// header lines are one list.
//= rfc6455 4.2.2-9, 4.2.2-10, 9-2, 9-3, 9.1-3, 9.1-4, 11.3.2-2, 5.8-1
#[cfg(feature = "deflate")]
#[test]
fn permessage_deflate_is_negotiated() {
    use tautline_websocket::proto::deflate::ServerConfig;

    let offers = [
        (
            "Sec-WebSocket-Extensions",
            "foo, permessage-deflate; server_max_window_bits=8",
        ),
        (
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits; server_no_context_takeover, permessage-deflate",
        ),
    ];
    let headers = without("", &offers);
    let opening = get(&headers).unwrap();
    let agreement = opening.select_deflate(&ServerConfig::default());
    let agreed = agreement.expect("the second can be met");
    assert!(agreed.server_no_context_takeover && !agreed.client_no_context_takeover);
    assert_eq!(agreed.client_max_window_bits, 10);
    let acceptance = opening.accept(None).with_deflate(agreement);
    assert!(acceptance.headers().any(|header| header
        == (
            "Sec-WebSocket-Extensions",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10"
        )));
    let mut response = Vec::new();
    acceptance.write_http1(&mut response);
    let response = String::from_utf8(response).unwrap();
    assert!(response.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no"));

    let opening = get(&GOOD).unwrap();
    assert_eq!(opening.select_deflate(&ServerConfig::default()), None);
    let plain = opening.accept(None).with_deflate(None);
    assert!(
        !plain
            .headers()
            .any(|(name, _)| name.ends_with("Extensions"))
    );
}
