//! The example `axum_app`, used by real clients.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../examples/axum_app/app.rs"]
mod app;
#[path = "../examples/axum_app/live.rs"]
mod live;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/run.rs"]
mod run;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::peer::Peer;
use self::run::run;

/// Runs a test beside the application, which it gets the address of.
fn beside_the_application<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    run(async {
        let (_node, app) = app::start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        test(address.to_string()).await;
    });
}

/// One request, and the whole response to it.
async fn request(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// Logs in, and gives the cookie.
async fn log_in(address: &str, name: &str) -> String {
    let response = request(address, &format!("POST /login?name={name} HTTP/1.1"), "").await;
    let cookie = response
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "));
    cookie.unwrap().split(';').next().unwrap().to_owned()
}

async fn connect(address: &str, cookie: &str) -> Peer {
    let url = format!("ws://{address}/connection/websocket");
    let mut peer = Peer::open(&url, &[("Cookie", cookie)]).await;
    let reply = peer.ask("connect", json!({})).await;
    assert!(reply["connect"]["data"].is_array(), "{reply}");
    peer
}

#[test]
fn those_who_have_logged_in_share_a_list() {
    beside_the_application(async |address| {
        let url = format!("ws://{address}/connection/websocket");
        let mut stranger = Peer::open(&url, &[("Cookie", "session=forged")]).await;
        let reply = stranger.ask("connect", json!({})).await;
        assert_eq!(
            reply["error"],
            json!({"code": 401, "message": "log in first"})
        );

        let (ann, bob) = (log_in(&address, "ann").await, log_in(&address, "bob").await);
        let (mut ann, mut bob) = (connect(&address, &ann).await, connect(&address, &bob).await);
        let call = json!({"method": "add", "data": {"text": "milk"}});
        assert_eq!(
            ann.ask("rpc", call).await["rpc"]["data"],
            json!({"count": 1})
        );
        let expected = json!({"items": ["milk"], "by": "ann"});
        assert_eq!(bob.push("pub").await["data"], expected);
        let reply = bob.ask("rpc", json!({"method": "add", "data": 5})).await;
        assert_eq!(reply["error"]["code"], json!(400));
        let request = json!({"channel": live::CHANNEL, "data": 1});
        let reply = bob.ask("publish", request).await;
        assert_eq!(
            reply["error"]["code"],
            json!(103),
            "nobody publishes but the application"
        );
        bob.ask("rpc", json!({"method": "clear"})).await;
        ann.push("pub").await;
        assert_eq!(ann.push("pub").await["data"]["items"], json!([]));
    });
}

#[test]
fn a_route_publishes() {
    beside_the_application(async |address| {
        let cookie = log_in(&address, "ann").await;
        let mut ann = connect(&address, &cookie).await;
        let head = "POST /announce HTTP/1.1\r\nContent-Type: application/json";
        let refused = request(&address, head, "\"hello\"").await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
        let head = format!("{head}\r\nCookie: {cookie}");
        let done = request(&address, &head, "\"hello\"").await;
        assert!(done.starts_with("HTTP/1.1 204 "), "{done}");
        let expected = json!({"announcement": {"by": "ann", "text": "hello"}});
        assert_eq!(ann.push("pub").await["data"], expected);
        let page = request(&address, "GET / HTTP/1.1", "").await;
        assert!(page.contains("<title>Shopping</title>"));
    });
}
