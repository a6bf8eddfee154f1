//! Requests over HTTP/2 are answered as those over HTTP/1.1 are.

use serde_json::{Value, json};

use crate::client::Client;
use crate::process::Server;
use crate::{CONFIG, in_time};

#[tokio::test]
async fn requests_share_a_connection() {
    in_time(async {
        let server = Server::serve("http2-doors", CONFIG);
        let client = Client::connect(&server).await;
        let health = client.get("/health").await;
        assert_eq!(health.status, 200);
        assert_eq!(health.header("content-length"), Some("2"));
        assert_eq!(health.header("x-content-type-options"), Some("nosniff"));
        assert!(health.header("date").is_some());
        assert_eq!(health.header("connection"), None);
        assert_eq!(health.rest().await, "{}");

        // One goes on while others come and go.
        let mut lines = client.get("/lines?channel=news").await;
        assert_eq!(lines.status, 200);
        assert_eq!(lines.message().await["event"], "subscribed");
        for number in 1..=20 {
            let body = json!({"channel": "news", "data": number}).to_string();
            let answer = client.post("/api/publish", &body).await;
            assert_eq!(answer.status, 200);
            assert!(answer.rest().await.contains("\"offset\""));
            assert_eq!(lines.message().await["data"], number);
        }
        let page = client.get("/history?channel=news&limit=3").await;
        let page: Value = serde_json::from_str(&page.rest().await).unwrap();
        assert_eq!(page["publications"].as_array().unwrap().len(), 3);

        let publish = client.post("/publish?channel=news", "21").await;
        assert_eq!(publish.status, 200);
        assert_eq!(lines.message().await["data"], 21);
        assert_eq!(client.number("http2_num_connections").await, 1);
        // The others, and this one.
        let requests = client.number(r#"http2_streams_total{kind="request"}"#);
        assert_eq!(requests.await, 26);
        // What goes by its streams is counted as by connections of their own.
        let of = |name: &str, what: &str| {
            format!("transport_messages_{name}{{transport=\"lines\",frame_type=\"{what}\"}}")
        };
        for (name, expected) in [
            (of("sent", "push_publication"), 21),
            (of("received", "connect"), 1),
            (
                "client_connections_inflight{transport=\"lines\",client_name=\"unnamed\"}".into(),
                1,
            ),
            ("http_num_sessions{kind=\"stream\"}".into(), 1),
            ("node_num_clients".into(), 1),
        ] {
            assert_eq!(client.number(&name).await, expected, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_go_by_streams_and_by_polls() {
    in_time(async {
        // Without pings: nothing is said to whoever has gone, so only that he has gone can tell.
        let config = CONFIG.replace("[client]\n", "[client]\nping_interval = \"1h\"\n");
        let server = Server::serve("http2-sessions", &config);
        let client = Client::connect(&server).await;
        let commands = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}";
        let mut stream = client.post("/connection/http_stream", commands).await;
        let connected = stream.message().await;
        let session = connected["connect"]["session"].as_str().unwrap().to_owned();
        assert!(stream.message().await["subscribe"].is_object());
        let body = json!({
            "session": session,
            "data": "{\"id\":3,\"publish\":{\"channel\":\"c\",\"data\":1}}",
        });
        let sent = client.post("/emulation", &body.to_string()).await;
        assert_eq!(sent.status, 204);
        assert_eq!(sent.header("content-length"), None);
        // The publication, and the reply to whoever has published.
        let both = [stream.message().await, stream.message().await];
        let is_told = |message: &Value| message["push"]["pub"]["data"] == 1;
        assert!(both.iter().any(is_told), "{both:?}");

        let opened = client
            .post("/connection/poll", &format!("{{\"open\":1}}\n{commands}"))
            .await;
        assert_eq!(opened.status, 200);
        let opened = opened.rest().await;
        let head: Value = serde_json::from_str(opened.lines().next().unwrap()).unwrap();
        let poll = json!({"session": head["session"], "poll": head["next"]}).to_string();
        let (polled, published) = tokio::join!(
            client.post("/connection/poll", &poll),
            client.post("/api/publish", r#"{"channel":"c","data":2}"#)
        );
        assert_eq!(published.status, 200);
        assert!(polled.rest().await.contains(r#""data":2"#));

        // Who goes away, goes.
        assert_eq!(client.number("node_num_clients").await, 2);
        let close = json!({"session": head["session"], "close": true}).to_string();
        let closed = client.post("/connection/poll", &close).await;
        assert_eq!(closed.status, 204);
        client.number_becomes("node_num_clients", 1).await;
        drop(stream);
        client.number_becomes("node_num_clients", 0).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_different_in_http2() {
    in_time(async {
        let server = Server::serve("http2-different", CONFIG);
        let client = Client::connect(&server).await;
        // There is no Upgrade, and so no status that asks for it.
        let plain = client.get("/connection/websocket").await;
        assert_eq!(plain.status, 400);
        assert_eq!(plain.header("upgrade"), None);
        assert!(plain.rest().await.contains("WebSocket"));
        assert_eq!(client.get("/nowhere").await.status, 404);

        let head = client.request("HEAD", "/health").body(()).unwrap();
        let head = client.send(head, b"").await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("2"))
        );
        assert_eq!(head.rest().await, "");

        // Two names of the server are one too many.
        let request = |host: &str| {
            let request = client.request("GET", "/health").header("host", host);
            client.send(request.body(()).unwrap(), b"")
        };
        assert_eq!(request(&server.address.to_string()).await.status, 200);
        assert_eq!(request("elsewhere.example").await.status, 400);

        // The page's origin is compared with `:authority`.
        for (origin, status) in [
            (format!("http://{}", server.address), 200),
            ("http://evil.example".to_owned(), 403),
        ] {
            let request = client
                .request("GET", "/history?channel=c")
                .header("origin", origin);
            let answer = client.send(request.body(()).unwrap(), b"").await;
            assert_eq!(answer.status, status);
        }

        // More than may be asked for is refused before it is read.
        let long = "x".repeat(70_000);
        let request = client.request("POST", "/emulation").body(()).unwrap();
        let answer = client.try_send(request, long.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 413);
        assert_eq!(client.get("/health").await.status, 200);
    })
    .await;
}

/// The development server lets everybody in who reaches it, so it answers to names of this machine only: a page
/// that has rebound its own name comes with that.
#[tokio::test]
async fn the_development_server_knows_only_its_own_names() {
    in_time(async {
        let server = Server::dev();
        let client = Client::connect(&server).await;
        assert_eq!(client.get("/").await.status, 200);
        for (method, status) in [("GET", 421), ("CONNECT", 421)] {
            let mut request = http::Request::builder().method(method);
            if method == "CONNECT" {
                request = request
                    .header("sec-websocket-version", "13")
                    .extension(h2::ext::Protocol::from_static("websocket"));
            }
            let request = request.uri("http://rebound.example/connection/websocket");
            let answer = client.send(request.body(()).unwrap(), b"").await;
            assert_eq!(answer.status, status, "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn it_can_be_switched_off() {
    use std::io::{Read as _, Write as _};

    let config = format!("[http_server.http2]\nenabled = false\n{CONFIG}");
    let server = Server::serve("http2-off", &config);
    let mut stream = server.connect();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn both_versions_are_told_apart_byte_by_byte() {
    use std::io::{Read as _, Write as _};

    let server = Server::serve("http2-bytes", CONFIG);
    // A method that begins as the preface does.
    for method in ["P", "PR", "PRI", "PRIX"] {
        let mut stream = server.connect();
        for byte in format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").bytes() {
            stream.write_all(&[byte]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{method}: {answer}");
    }
    let mut raw = server.connect();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        raw.write_all(&[*byte]).unwrap();
    }
    let mut settings = [0; 9];
    raw.read_exact(&mut settings).unwrap();
    assert_eq!(settings[3], crate::raw::SETTINGS);
}
