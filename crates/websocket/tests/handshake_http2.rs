//! The opening handshake over HTTP/2 (RFC 8441): each check, and what both sides say.

use proptest::prelude::*;
use tautline_websocket::proto::handshake::{
    ClientRequest, HttpVersion, Opening, OpeningError, PseudoHeaders, RequestHead, ResponseError,
    ResponseHead,
};

const GOOD: PseudoHeaders<'static> = PseudoHeaders {
    method: "CONNECT",
    protocol: Some("websocket"),
    scheme: Some("https"),
    authority: Some("example.com:8443"),
    path: Some("/chat?room=7"),
};

const VERSION: (&str, &str) = ("sec-websocket-version", "13");

fn check<'h>(
    pseudo: &PseudoHeaders<'h>,
    headers: &[(&'h str, &'h str)],
) -> Result<Opening<'h>, OpeningError> {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    Opening::from_connect(pseudo, headers)
}

//= rfc8441 5-7
#[test]
fn a_good_request_is_understood() {
    let headers = [
        ("origin", "https://example.com"),
        ("sec-websocket-protocol", "chat.v2, chat.v1"),
        VERSION,
        ("sec-websocket-extensions", "permessage-deflate, other"),
        ("cookie", "a=b"),
    ];
    let opening = check(&GOOD, &headers).unwrap();
    assert_eq!(opening.host(), "example.com:8443");
    assert_eq!(opening.origin(), Some("https://example.com"));
    assert_eq!(opening.subprotocols(), ["chat.v2", "chat.v1"]);
    assert_eq!(opening.extensions(), ["permessage-deflate", "other"]);
    assert_eq!(opening.key(), None);
    // RFC 8441 §5: no Upgrade, no Connection, no Sec-WebSocket-Accept.
    let acceptance = opening.accept(Some("chat.v1"));
    assert_eq!(acceptance.status(), 200);
    let answer: Vec<_> = acceptance.headers().collect();
    assert_eq!(answer, [("Sec-WebSocket-Protocol", "chat.v1")]);
}

/// Whatever it says.
//= rfc8441 5-6
#[test]
fn a_key_is_passed_over() {
    let headers = [
        VERSION,
        ("sec-websocket-key", "\u{e9}"),
        ("sec-websocket-key", "?"),
    ];
    assert_eq!(check(&GOOD, &headers).unwrap().key(), None);
}

/// One row for each check: the request, the fault, the status of the answer.
//= rfc8441 4-2
//= rfc8441 5-1
//= rfc8441 5-2
//= rfc8441 5-3
//= rfc8441 5-4
//= rfc8441 5-5
#[test]
fn each_check_has_its_refusal() {
    use OpeningError::*;
    let with = |change: fn(&mut PseudoHeaders<'static>)| {
        let mut pseudo = GOOD;
        change(&mut pseudo);
        (pseudo, vec![VERSION])
    };
    let and = |name, value| (GOOD, vec![VERSION, (name, value)]);
    let rows = [
        (with(|p| p.method = "GET"), NotConnect, 405),
        (with(|p| p.method = "connect"), NotConnect, 405),
        (with(|p| p.protocol = None), NoProtocol, 400),
        (with(|p| p.protocol = Some("")), UnknownProtocol, 501),
        (
            with(|p| p.protocol = Some("WebSocket")),
            UnknownProtocol,
            501,
        ),
        (
            with(|p| p.protocol = Some("connect-udp")),
            UnknownProtocol,
            501,
        ),
        (with(|p| p.scheme = None), NoPseudoHeader(":scheme"), 400),
        (with(|p| p.path = None), NoPseudoHeader(":path"), 400),
        (with(|p| p.path = Some("")), NoPseudoHeader(":path"), 400),
        (
            with(|p| p.authority = None),
            NoPseudoHeader(":authority"),
            400,
        ),
        (
            with(|p| p.authority = Some("")),
            NoPseudoHeader(":authority"),
            400,
        ),
        (with(|p| p.scheme = Some("wss")), UnknownScheme, 400),
        (
            and("upgrade", "websocket"),
            ConnectionHeader("Upgrade"),
            400,
        ),
        (
            and("Connection", "Upgrade"),
            ConnectionHeader("Connection"),
            400,
        ),
        (
            and("connection", "close"),
            ConnectionHeader("Connection"),
            400,
        ),
        (and("host", "other.example"), HostMismatch, 400),
        (and("content-length", "0"), Body, 400),
        (and("content-length", "5"), Body, 400),
        (and("transfer-encoding", "chunked"), Body, 400),
        ((GOOD, vec![]), NoVersion, 426),
        (
            (GOOD, vec![("sec-websocket-version", "8")]),
            UnsupportedVersion,
            426,
        ),
        (
            and("sec-websocket-version", "13"),
            Repeated("Sec-WebSocket-Version"),
            400,
        ),
        (
            and("sec-websocket-protocol", "a b"),
            InvalidSubprotocol,
            400,
        ),
        (and("origin", "\u{7f}"), InvalidHeader("Origin"), 400),
    ];
    for ((pseudo, headers), fault, status) in rows {
        assert_eq!(
            check(&pseudo, &headers),
            Err(fault),
            "{pseudo:?} {headers:?}"
        );
        assert_eq!(fault.refusal().status(), status, "{fault:?}");
        assert!(!fault.to_string().is_empty());
    }
}

#[test]
fn a_head_keeps_what_it_was_made_of() {
    let headers = [
        ("Origin", &b"https://a"[..]),
        ("sec-websocket-version", b"13"),
        ("x", b""),
    ];
    let head = RequestHead::from_http2(&GOOD, headers);
    assert_eq!(head.version(), HttpVersion::HTTP_2);
    assert_eq!((head.method(), head.target()), ("CONNECT", "/chat?room=7"));
    assert_eq!((head.path(), head.query()), ("/chat", Some("room=7")));
    assert_eq!(head.pseudo_headers(), GOOD);
    assert_eq!(head.headers().collect::<Vec<_>>(), headers);
    assert_eq!(head.opening().unwrap().origin(), Some("https://a"));
    // What isn't there stays so.
    let none = PseudoHeaders {
        method: "GET",
        ..PseudoHeaders::default()
    };
    assert_eq!(RequestHead::from_http2(&none, []).pseudo_headers(), none);
    assert_eq!(
        RequestHead::from_http2(&none, []).opening(),
        Err(OpeningError::NotConnect)
    );
}

#[test]
fn a_head_of_a_library_is_checked_like_our_own() {
    let headers = [
        ("host", &b"a"[..]),
        ("upgrade", b"websocket"),
        ("connection", b"upgrade"),
        ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", b"13"),
    ];
    let head = RequestHead::from_http1("GET", "/a?b", HttpVersion::HTTP_11, headers);
    assert_eq!(
        (head.target(), head.header("Host")),
        ("/a?b", Some(&b"a"[..]))
    );
    assert_eq!(head.opening().unwrap().accept(None).status(), 101);
    let old = RequestHead::from_http1("GET", "/", HttpVersion::HTTP_10, headers);
    assert_eq!(old.opening(), Err(OpeningError::OldHttp));
}

fn request(url: &str) -> ClientRequest {
    ClientRequest::new(&url.parse().expect("a URL"), *b"the sample nonce")
}

//= rfc8441 4-2
//= rfc8441 5-1
//= rfc8441 5-2
//= rfc8441 5-4
//= rfc8441 5-5
//= rfc8441 5-6
//= rfc8441 5-7
#[test]
fn a_client_asks_as_the_rfc_says() {
    let request = request("wss://example.com:8443/chat?room=7")
        .with_subprotocol("chat")
        .unwrap()
        .with_subprotocol("superchat")
        .unwrap()
        .with_extension("permessage-deflate")
        .unwrap()
        .with_header("Origin", "https://example.com")
        .unwrap()
        .with_header("Keep-Alive", "timeout=5")
        .unwrap();
    assert_eq!(request.pseudo_headers(), GOOD);
    let headers: Vec<_> = request.http2_headers().collect();
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), &**v)).collect();
    assert_eq!(
        headers,
        [
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("origin", "https://example.com"),
        ]
    );
    // What one side says, the other understands.
    assert!(check(&request.pseudo_headers(), &headers).is_ok());
}

//= rfc8441 5-3
#[test]
fn the_scheme_is_that_of_http() {
    assert_eq!(request("ws://a/").pseudo_headers().scheme, Some("http"));
    assert_eq!(request("wss://a/").pseudo_headers().scheme, Some("https"));
}

//= rfc8441 5-6
//= rfc8441 5-7
#[test]
fn each_answer_is_checked() {
    let request = request("wss://a/").with_subprotocol("chat").unwrap();
    let answer = |status, headers: &[(&str, &str)]| {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let head = ResponseHead::from_http2(status, headers);
        assert_eq!(head.version(), HttpVersion::HTTP_2);
        let agreed = request.check(&head);
        agreed.map(|agreed| agreed.subprotocol.map(str::to_owned))
    };
    assert_eq!(answer(200, &[]), Ok(None));
    assert_eq!(answer(204, &[]), Ok(None));
    let chat = [("sec-websocket-protocol", "chat")];
    assert_eq!(answer(200, &chat), Ok(Some("chat".to_owned())));
    // An Accept means nothing here.
    assert_eq!(answer(200, &[("sec-websocket-accept", "?")]), Ok(None));
    for status in [100, 101, 199, 300, 403, 501] {
        assert_eq!(answer(status, &[]), Err(ResponseError::Status(status)));
    }
    let other = [("sec-websocket-protocol", "other")];
    assert_eq!(
        answer(200, &other),
        Err(ResponseError::UnexpectedSubprotocol)
    );
    let extension = [("sec-websocket-extensions", "permessage-deflate")];
    assert_eq!(
        answer(200, &extension),
        Err(ResponseError::UnexpectedExtension)
    );
}

/// Fields of which some are what is asked for, and some anything.
fn field(good: &'static str) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        8 => Just(Some(good.to_owned())),
        1 => Just(None),
        1 => "\\PC{0,12}".prop_map(Some),
    ]
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop_oneof![
        Just("sec-websocket-version"),
        Just("sec-websocket-protocol"),
        Just("sec-websocket-extensions"),
        Just("sec-websocket-key"),
        Just("origin"),
        Just("host"),
        Just("cookie"),
    ];
    let value = prop_oneof![
        Just(b"13".to_vec()),
        Just(b"example.com".to_vec()),
        Just(b"permessage-deflate; client_max_window_bits".to_vec()),
        "[a-z, ]{0,12}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    (name.prop_map(str::to_owned), value)
}

proptest! {
    /// Nothing panics; what is let in fulfils the rules; and a head that keeps a copy says the
    /// same as the pieces that it was made of.
    #[test]
    fn any_request_is_let_in_or_refused(
        method in field("CONNECT"),
        protocol in field("websocket"),
        scheme in field("https"),
        authority in field("example.com"),
        path in field("/"),
        headers in proptest::collection::vec(header(), 0..6),
    ) {
        let method = method.unwrap_or_default();
        let pseudo = PseudoHeaders {
            method: &method,
            protocol: protocol.as_deref(),
            scheme: scheme.as_deref(),
            authority: authority.as_deref(),
            path: path.as_deref(),
        };
        let headers = || headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let opening = Opening::from_connect(&pseudo, headers());
        let head = RequestHead::from_http2(&pseudo, headers());
        prop_assert_eq!(head.opening(), opening.clone());
        match opening {
            Ok(opening) => {
                prop_assert_eq!(pseudo.protocol, Some("websocket"));
                prop_assert_eq!(&method, "CONNECT");
                prop_assert_eq!(pseudo.authority, Some(opening.host()));
                prop_assert!(headers().any(|h| h.0 == "sec-websocket-version" && h.1.trim_ascii() == b"13"));
                let accepted = opening.accept(None);
                prop_assert_eq!(accepted.status(), 200);
            }
            Err(error) => prop_assert!(matches!(error.refusal().status(), 400 | 405 | 426 | 501)),
        }
    }
}
