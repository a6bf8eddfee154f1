//! Tokens of clients with no SDK: wherever they come, and where they don't count.

use crate::emulation::WORKERS;
use crate::http::{get, send};
use crate::process::Server;
use crate::socket::Socket;

pub(crate) fn token(server: &str) -> String {
    let _ = server;
    let signer = tautline_auth::Signer::hs256(&SECRET.into()).expect("a key");
    let claims = tautline_auth::TokenClaims {
        user: "ann",
        ..tautline_auth::TokenClaims::default()
    };
    signer.sign(&claims).expect("a token")
}

pub(crate) fn guarded(name: &str) -> Server {
    let config = WORKERS
        .replace("allow_anonymous_connect_without_token = true", "")
        .replace(
            "[http_api]",
            &format!("[client.token]\nhmac_secret_key = \"{SECRET}\"\n[http_api]"),
        )
        .replace(
            "history_ttl",
            "allow_history_for_client = true\nhistory_ttl",
        );
    Server::serve(
        name,
        &format!("{config}\n[[channel.namespaces]]\nname = \"closed\"\n"),
    )
}

#[test]
fn a_token_opens_each_of_them() {
    let server = guarded("plain-token");
    let token = token("");
    let paths = [
        "/events?channel=t",
        "/lines?channel=t",
        "/history?channel=t",
    ];
    for path in paths {
        let refused = get(&server, path);
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        let text = refused.rest();
        assert!(text.contains("tautline_token"), "{text}");
        assert_eq!(
            get(&server, &format!("{path}&token=x")).status,
            401,
            "{path}"
        );
        for (path, fields) in [
            (format!("{path}&token={token}"), String::new()),
            (
                path.to_owned(),
                format!("\r\nAuthorization: Bearer {token}"),
            ),
            (
                path.to_owned(),
                format!("\r\nCookie: a=b; tautline_token={token}"),
            ),
            (
                path.to_owned(),
                format!("\r\nCookie: tautline_token={token}\r\nSec-Fetch-Site: same-origin"),
            ),
        ] {
            let answer = send(&server, &format!("GET {path} HTTP/1.1{fields}"), b"");
            assert_eq!(answer.status, 200, "{path} {fields}");
            if path.starts_with("/history") {
                assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
            }
        }
    }
    let (code, reason) = Socket::open(&server, "/ws?channel=t", "")
        .expect("it opens")
        .closed();
    assert_eq!(code, 3501, "{reason}");
    for (path, fields) in [
        (
            format!("/ws?channel=t&envelope&token={token}"),
            String::new(),
        ),
        (
            "/ws?channel=t&envelope".to_owned(),
            format!("Sec-WebSocket-Protocol: tautline, tautline.token.{token}\r\n"),
        ),
        (
            "/ws?channel=t&envelope".to_owned(),
            format!("Cookie: tautline_token={token}\r\n"),
        ),
        (
            "/ws?channel=t&envelope".to_owned(),
            format!(
                "Cookie: tautline_token={token}\r\nOrigin: http://{}\r\n",
                server.address
            ),
        ),
    ] {
        let mut socket = Socket::open(&server, &path, &fields).expect("it opens");
        assert_eq!(socket.json()["event"], "subscribed", "{fields}");
    }
    // Who is let in is not let in everywhere.
    assert_eq!(
        get(&server, &format!("/events?channel=closed:x&token={token}")).status,
        403
    );
    let path = format!("/ws?channel=closed:x&token={token}");
    let (code, reason) = Socket::open(&server, &path, "").expect("it opens").closed();
    assert_eq!((code, &*reason), (4103, "closed:x: permission denied"));
}

#[test]
fn a_cookie_does_nothing_for_other_sites() {
    let token = token("");
    // Every page may connect, but none by what its visitors' browsers know.
    let config = "allowed_origins = [\"*\"]";
    let config = WORKERS
        .replace("allow_anonymous_connect_without_token = true", config)
        .replace(
            "[http_api]",
            &format!("[client.token]\nhmac_secret_key = \"{SECRET}\"\n[http_api]"),
        );
    let server = Server::serve("plain-cookie", &config);
    let cookie = format!("Cookie: tautline_token={token}");
    let foreign = "Origin: https://evil.example";
    for fields in [foreign, "Sec-Fetch-Site: cross-site"] {
        let head = format!("GET /events?channel=t HTTP/1.1\r\n{cookie}\r\n{fields}");
        assert_eq!(send(&server, &head, b"").status, 401, "{fields}");
        let head = format!(
            "POST /publish?channel=t HTTP/1.1\r\n{cookie}\r\n{fields}\r\nContent-Type: text/plain"
        );
        assert_eq!(send(&server, &head, b"1").status, 401, "{fields}");
    }
    let fields = format!("{cookie}\r\n{foreign}\r\n");
    let mut socket = Socket::open(&server, "/ws?channel=t", &fields).expect("it opens");
    assert_eq!(socket.closed().0, 3501);
    // A form of an old browser, which says nothing of its page.
    let head = format!("POST /publish?channel=t HTTP/1.1\r\n{cookie}\r\nContent-Type: text/plain");
    assert_eq!(send(&server, &head, b"1").status, 401);
    let head = head.replace("text/plain", "application/json");
    assert_eq!(send(&server, &head, b"1").status, 200);
}

const SECRET: &str = "a secret that is long enough for the tests";
