//! What the backend is told of its clients' requests, and how it knows who asks.

use aws_lc_rs::hmac;
use serde_json::json;

use super::backend::{Asked, Backend, Say};
use super::{run, start, url};
use crate::peer::Peer;

/// Whether a signature is one of this key, as the chapter tells backends to look.
fn is_signed(asked: &Asked, secret: &[u8]) -> bool {
    let field = asked.headers["tautline-signature"].to_str().unwrap();
    let time = field
        .split(',')
        .find_map(|part| part.strip_prefix("t="))
        .unwrap();
    let event = asked.headers["tautline-event"].to_str().unwrap();
    let text = [time.as_bytes(), b".", event.as_bytes(), b".", &asked.text].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let codes = field.split(',').filter_map(|part| part.strip_prefix("v1="));
    let mut codes = codes.map(|hex| {
        let digits = hex.as_bytes().chunks(2);
        let bytes = digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16));
        bytes.collect::<Result<Vec<_>, _>>().unwrap()
    });
    codes.any(|code| hmac::verify(&key, &text, &code).is_ok())
}

#[test]
fn questions_are_signed_with_the_key_and_the_one_before_it() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"user": "7"}}))).await;
        let node = start(&format!(
            "[client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n\
             hmac_secret_key = \"new\"\nhmac_previous_secret_key = \"old\"\n",
            backend.url
        ));
        Peer::connect(&url(&node)).await;
        let asked = backend.next().await;
        assert!(is_signed(&asked, b"new") && is_signed(&asked, b"old"));
        assert!(!is_signed(&asked, b"other"));
    });
}

#[test]
fn only_listed_header_fields_are_passed_on() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"user": "7"}}))).await;
        let node = start(&format!(
            "[client.proxy.connect]\nenabled = true\nendpoint = \"{0}/connect\"\n\
             http_headers = [\"cookie\", \"X-Real-Ip\"]\nemulated_headers = [\"X-Tenant\", \"x-real-ip\"]\n\
             http.static_headers = {{\"X-Key\" = \"k\", \"x-tenant\" = \"none\", \"x-real-ip\" = \"-\"}}\n\
             [channel.without_namespace]\nsubscribe_proxy_enabled = true\n\
             [channel.proxy.subscribe]\nendpoint = \"{0}/subscribe\"\nemulated_headers = [\"x-tenant\"]\n",
            backend.url
        ));
        let fields = [
            ("Cookie", "user=ann"),
            ("X-Real-IP", "192.0.2.7"),
            ("Authorization", "secret"),
        ];
        let mut peer = Peer::open(&url(&node), &fields).await;
        // A client can say anything: what is about its address comes from the request alone.
        let said = json!({"X-Tenant": "acme", "X-Real-Ip": "1.1.1.1", "X-Other": "x", "Cookie": "user=root"});
        peer.ask("connect", json!({"headers": said})).await;
        let asked = backend.next().await;
        let field = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(field("cookie"), Some("user=ann"));
        assert_eq!(field("x-real-ip"), Some("192.0.2.7"));
        assert_eq!(field("x-tenant"), Some("acme"));
        assert_eq!(field("x-key"), Some("k"));
        assert_eq!((field("authorization"), field("x-other")), (None, None));
        assert_eq!(field("tautline-signature"), None, "there is no key");
        // What it said when it came counts for as long as it stays, and for others it doesn't.
        peer.ask("subscribe", json!({"channel": "a"})).await;
        let asked = backend.next().await;
        assert_eq!(asked.headers["x-tenant"], "acme");
        assert!(asked.headers.get("cookie").is_none());
        let mut other = Peer::connect(&url(&node)).await;
        assert_eq!(backend.next().await.headers["x-tenant"], "none");
        other.ask("subscribe", json!({"channel": "a"})).await;
        assert!(backend.next().await.headers.get("x-tenant").is_none());
    });
}

/// A browser sends its user's cookies along with whatever page opens the connection. Where a `*` lets in the pages of all
/// sites, none of them is to act as its visitor.
#[test]
fn cookies_come_from_pages_that_are_named_only() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"user": "7"}}))).await;
        for (allowed, origin, counts) in [
            ("*", Some("https://evil.example"), false),
            ("https://app.example", Some("https://app.example"), true),
            // Programs say what they like.
            ("*", None, true),
        ] {
            let node = start(&format!(
                "client.allowed_origins = [\"{allowed}\"]\n[client.proxy.connect]\nenabled = true\n\
                 endpoint = \"{}\"\nhttp_headers = [\"Cookie\"]\n",
                backend.url
            ));
            let mut fields = vec![("Cookie", "user=ann")];
            fields.extend(origin.map(|origin| ("Origin", origin)));
            let mut peer = Peer::open(&url(&node), &fields).await;
            peer.ask("connect", json!({})).await;
            let asked = backend.next().await;
            let cookie = asked
                .headers
                .get("cookie")
                .map(|value| value.to_str().unwrap());
            assert_eq!(cookie, counts.then_some("user=ann"), "{origin:?}");
        }
    });
}

/// Where a client is, is what the server knows, and not what the client writes.
#[test]
fn the_clients_address_is_passed_on_where_that_is_wanted() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"user": "7"}}))).await;
        let named = |trusted: &str| {
            start(&format!(
                "http_server.trusted_proxies = [{trusted}]\n\
                 [client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n\
                 http_headers = [\"Tautline-Client-IP\", \"X-Forwarded-For\"]\n",
                backend.url
            ))
        };
        let (trusting, other) = (named("\"127.0.0.0/8\""), named(""));
        let fields = [
            ("X-Forwarded-For", "203.0.113.9, 198.51.100.1"),
            ("Tautline-Client-IP", "203.0.113.9"),
        ];
        for (node, known) in [(&trusting, "198.51.100.1"), (&other, "127.0.0.1")] {
            let mut peer = Peer::open(&url(node), &fields).await;
            peer.ask("connect", json!({})).await;
            let asked = backend.next().await;
            let values = asked.headers.get_all("tautline-client-ip").iter();
            assert_eq!(values.collect::<Vec<_>>(), [known]);
            let chain = &asked.headers["x-forwarded-for"];
            assert_eq!(chain, "203.0.113.9, 198.51.100.1, 127.0.0.1");
        }
    });
}

#[test]
fn payloads_may_go_as_base64() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"b64data": "eyJhIjoxfQ=="}})))
                .await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n[rpc]\nwithout_namespace.proxy_enabled = true\n\
             proxy = {{endpoint = \"{}\", binary_encoding = true}}\n",
            backend.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        let reply = peer
            .ask("rpc", json!({"method": "m", "data": {"b": 2}}))
            .await;
        assert_eq!(reply["rpc"]["data"], json!({"a": 1}));
        let body = backend.next().await.body;
        assert_eq!(body["encoding"], json!("binary"));
        assert_eq!(body["b64data"], json!("eyJiIjoyfQ=="));
        assert!(body.get("data").is_none());
    });
}
