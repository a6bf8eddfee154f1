//! WebSockets over HTTP/2 (RFC 8441): a session behind them is one like any other.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tautline_websocket::conn::http2::{Http2Client, Http2Options, Http2Stream};
use tautline_websocket::conn::{ConnectError, ConnectOptions, WebSocket};
use tautline_websocket::proto::Message;

use crate::client::Client;
use crate::process::Server;
use crate::{CONFIG, in_time};

/// A WebSocket, and what came on it.
struct Socket {
    socket: WebSocket<Http2Stream>,
    heard: VecDeque<Value>,
}

fn url(server: &Server, path: &str) -> String {
    format!("ws://{}{path}", server.address)
}

async fn connect(server: &Server) -> Http2Client {
    let options = ConnectOptions::default();
    Http2Client::connect(&url(server, "/"), &options, &Http2Options::default())
        .await
        .unwrap()
}

impl Socket {
    async fn open(client: &Http2Client, server: &Server, path: &str) -> Self {
        let options = ConnectOptions::default();
        let opened = client.open(&url(server, path), &options).await.unwrap();
        Self {
            socket: opened.websocket,
            heard: VecDeque::new(),
        }
    }

    async fn send(&mut self, message: &str) {
        self.socket.send(message).await.unwrap();
    }

    /// The next line that is no ping.
    async fn hear(&mut self) -> Value {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            match self.socket.recv().await.unwrap() {
                Some(Message::Text(text)) => {
                    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                    self.heard.extend(lines.filter(|line| *line != json!({})));
                }
                other => panic!("{other:?}: {:?}", self.socket.closed()),
            }
        }
    }
}

#[tokio::test]
async fn many_sessions_share_a_connection() {
    in_time(async {
        let server = Server::serve("http2-sockets", CONFIG);
        let client = connect(&server).await;
        let mut sockets = Vec::new();
        for _ in 0..50 {
            let mut socket = Socket::open(&client, &server, "/connection/websocket").await;
            socket
                .send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}")
                .await;
            assert!(socket.hear().await["connect"]["client"].is_string());
            assert!(socket.hear().await["subscribe"].is_object());
            sockets.push(socket);
        }
        for number in 0..20 {
            let publisher = &mut sockets[number % 50];
            let command = json!({"id": 3, "publish": {"channel": "c", "data": number}});
            publisher.send(&command.to_string()).await;
            for socket in &mut sockets {
                loop {
                    let heard = socket.hear().await;
                    if heard["push"]["pub"]["data"] == json!(number) {
                        break;
                    }
                    assert!(heard["publish"].is_object(), "{heard}");
                }
            }
        }
        let metrics = Client::connect(&server).await;
        assert_eq!(metrics.number("node_num_clients").await, 50);
        let count = metrics.number(r#"http2_streams_total{kind="websocket"}"#);
        assert_eq!(count.await, 50);
        // Those that close go, and the others stay.
        for mut socket in sockets.drain(..25) {
            socket.socket.close(1000.into(), "").await.unwrap();
        }
        metrics.number_becomes("node_num_clients", 25).await;
        // Those that are dropped go too, all of them with their connection.
        sockets.truncate(10);
        metrics.number_becomes("node_num_clients", 10).await;
        drop((sockets, client));
        metrics.number_becomes("node_num_clients", 0).await;
        metrics.number_becomes("http2_num_connections", 1).await;
    })
    .await;
}

#[tokio::test]
async fn long_messages_go_both_ways() {
    in_time(async {
        let server = Server::serve("http2-long", CONFIG);
        let client = connect(&server).await;
        let mut socket = Socket::open(&client, &server, "/connection/websocket").await;
        socket
            .send("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}")
            .await;
        socket.hear().await;
        socket.hear().await;
        // More than any window, while nobody reads.
        let filling = "x".repeat(60_000);
        for number in 0..12 {
            let data = json!({"n": number, "filling": filling});
            let command = json!({"id": 3, "publish": {"channel": "c", "data": data}});
            socket.send(&command.to_string()).await;
        }
        let mut next = 0;
        while next < 12 {
            let heard = socket.hear().await;
            let data = &heard["push"]["pub"]["data"];
            if data["n"] == json!(next) {
                assert_eq!(data["filling"].as_str().map(str::len), Some(60_000));
                next += 1;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_door_for_websockets_is_there() {
    in_time(async {
        let server = Server::serve("http2-every", CONFIG);
        let client = connect(&server).await;
        let mut plain = Socket::open(&client, &server, "/ws?channel=news").await;
        plain.send(r#"{"text":"hello"}"#).await;
        assert_eq!(plain.hear().await, json!({"text": "hello"}));
        let mut uni = Socket::open(&client, &server, "/connection/uni_websocket").await;
        uni.send("{}").await;
        assert!(uni.hear().await["connect"].is_object());

        let options = ConnectOptions {
            subprotocols: vec!["centrifuge-protobuf".to_owned()],
            ..ConnectOptions::default()
        };
        let target = url(&server, "/connection/websocket");
        let opened = client.open(&target, &options).await.unwrap();
        assert_eq!(opened.subprotocol.as_deref(), Some("centrifuge-protobuf"));
    })
    .await;
}

/// Frame by frame: a library would answer pings by itself.
#[tokio::test]
async fn pings_may_be_control_frames() {
    const PING: &[u8] = b"\x89\x00";
    const PONG: &[u8] = b"\x8a\x80\0\0\0\0";
    in_time(async {
        let config = CONFIG.replace(
            "[client]",
            "[client]\nping_interval = \"2s\"\npong_timeout = \"1900ms\"",
        );
        let server = Server::serve("http2-frame-pings", &config);
        let client = Client::connect(&server).await;
        // An unmasked head, and a mask of zeros: connect{} in JSON and in Protobuf.
        for (query, connect, first) in [
            ("", &b"\x81\x95\0\0\0\0{\"id\":1,\"connect\":{}}"[..], 0x81),
            (
                "&format=protobuf",
                b"\x82\x85\0\0\0\0\x04\x08\x01\x22\0",
                0x82,
            ),
        ] {
            let path = format!("/connection/websocket?cf_ws_frame_ping_pong=true{query}");
            let request = client
                .request("CONNECT", &path)
                .extension(h2::ext::Protocol::from_static("websocket"))
                .header("sec-websocket-version", "13");
            let mut requests = client.requests.clone().ready().await.unwrap();
            let (response, mut sending) = requests
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            sending
                .send_data(Bytes::from_static(connect), false)
                .unwrap();
            let mut came = Vec::new();
            let mut answered = false;
            let close = loop {
                let bytes = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(bytes.len()).unwrap();
                came.extend_from_slice(&bytes);
                let pings = came.windows(2).filter(|two| *two == PING).count();
                if pings == 1 && !answered {
                    assert_eq!(came[0], first);
                    let reply = &came[2..came.len() - 2];
                    let text = String::from_utf8_lossy(reply);
                    assert!(!text.contains(r#""ping""#), "{text}");
                    assert!(!reply.ends_with(b"\x40\x01"), "{reply:x?}");
                    sending.send_data(Bytes::from_static(PONG), false).unwrap();
                    answered = true;
                }
                if let Some(at) = came.windows(2).position(|two| two == b"\x88\x09") {
                    assert_eq!(pings, 2, "given up though it had answered");
                    break came[at + 2..].to_vec();
                }
            };
            assert_eq!(close, b"\x0b\xc4no pong");
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_say_why() {
    in_time(async {
        let server = Server::serve("http2-refusals", CONFIG);
        let client = connect(&server).await;
        let foreign = ConnectOptions {
            headers: vec![("origin".to_owned(), "http://evil.example".to_owned())],
            ..ConnectOptions::default()
        };
        for (path, options, expected) in [
            ("/nowhere", &ConnectOptions::default(), 404),
            ("/connection/websocket", &foreign, 403),
            ("/connection/uni_websocket", &foreign, 403),
            ("/ws?channel=a", &foreign, 403),
            ("/ws", &ConnectOptions::default(), 400),
        ] {
            match client.open(&url(&server, path), options).await {
                Err(ConnectError::Refused(refusal)) => {
                    assert_eq!(refusal.head.status(), expected, "{path}");
                }
                other => panic!("{path}: {other:?}"),
            }
        }
        // What only other clients would ask for.
        let client = Client::connect(&server).await;
        assert_eq!(client.number("node_num_clients").await, 0);
        assert_eq!(client.number("node_num_channels").await, 0);
        assert_eq!(client.get("/health").await.status, 200);
        let authority = server.address;
        for (protocol, status) in [(None, 400..=499), (Some("connect-udp"), 501..=501)] {
            let mut request = Request::connect(format!("http://{authority}/connection/websocket"));
            match protocol {
                Some(protocol) => {
                    request = request.extension(h2::ext::Protocol::from_static(protocol));
                }
                None => request = Request::connect(authority.to_string()),
            }
            let answer = client.send(request.body(()).unwrap(), b"").await;
            assert!(status.contains(&answer.status), "{}", answer.status);
        }
        assert_eq!(client.get("/health").await.status, 200);
    })
    .await;
}

/// What comes over one connection counts like what comes over many.
#[tokio::test]
async fn sessions_that_share_a_connection_count_for_their_address() {
    in_time(async {
        let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 4\n";
        let server = Server::serve("http2-address", &format!("{CONFIG}{limits}"));
        // The connection itself is one of them.
        let client = connect(&server).await;
        let sockets = [
            Socket::open(&client, &server, "/connection/websocket").await,
            Socket::open(&client, &server, "/connection/websocket").await,
        ];
        let opened = Socket::open(&client, &server, "/connection/websocket").await;
        let path = url(&server, "/connection/websocket");
        match client.open(&path, &ConnectOptions::default()).await {
            Err(ConnectError::Refused(refusal)) => {
                assert_eq!(refusal.head.status(), 429);
                assert_eq!(refusal.head.header("retry-after"), Some(&b"5"[..]));
            }
            other => panic!("{other:?}"),
        }
        // One that ends makes room, for a stream as well as for a socket.
        drop(opened);
        let second = wait_for_room(&server).await;
        drop((sockets, second));
    })
    .await;
}

/// A connection that may begin: one place was free for it.
async fn wait_for_room(server: &Server) -> Client {
    loop {
        let client = Client::connect(server).await;
        let request = client.request("GET", "/health").body(()).unwrap();
        if let Ok(answer) = client.try_send(request, b"").await
            && answer.status == 200
        {
            return client;
        }
        tokio::task::yield_now().await;
    }
}

/// Browsers send each cookie in a field of its own.
#[tokio::test]
async fn cookies_come_in_pieces() {
    use tautline_auth::{Secret, Signer, TokenClaims};

    in_time(async {
        let config = CONFIG.replace(
            "[http_api]",
            "[client.token]\nhmac_secret_key = \"cookies\"\n[http_api]",
        );
        let server = Server::serve("http2-cookies", &config);
        let signer = Signer::hs256(&Secret::from("cookies")).unwrap();
        let claims = TokenClaims {
            user: "ann",
            ..TokenClaims::default()
        };
        let token = signer.sign(&claims).unwrap();
        let cookies = [
            ("origin".to_owned(), format!("http://{}", server.address)),
            ("cookie".to_owned(), "first=1".to_owned()),
            ("cookie".to_owned(), format!("tautline_token={token}")),
            ("cookie".to_owned(), "last=2".to_owned()),
        ];
        let backend = Client::connect(&server).await;
        let mut request = backend.request("GET", "/lines?channel=news");
        for (name, value) in &cookies {
            request = request.header(name, value);
        }
        let mut lines = backend.send(request.body(()).unwrap(), b"").await;
        assert_eq!(lines.message().await["event"], "subscribed");
        let options = ConnectOptions {
            headers: cookies.into(),
            ..ConnectOptions::default()
        };
        let client = connect(&server).await;
        let target = url(&server, "/ws?channel=news");
        let mut socket = client.open(&target, &options).await.unwrap().websocket;
        backend.number_becomes("node_num_clients", 2).await;
        // Only who she is can be told to go.
        let told = backend.post("/api/disconnect", r#"{"user":"ann"}"#).await;
        assert_eq!(told.status, 200);
        assert_eq!(lines.message().await["event"], "end");
        while socket.recv().await.unwrap().is_some() {}
        assert!(socket.closed().is_some());
    })
    .await;
}
