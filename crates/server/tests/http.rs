//! The HTTP side over a real socket, with a node that is a recorder.

mod fake;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tautline::http::api::ErrorMode;
use tautline::http::node::History;
use tautline::http::origin::OriginPolicy;
use tautline::http::{Service, Settings, serve_connection};
use tautline_auth::{Secret, Signer, Verifier, VerifierConfig};
use tautline_protocol::message::StreamPosition;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

use self::fake::FakeNode;

// ---- the server and its client ----------------------------------------------------------------

struct Server {
    address: SocketAddr,
    node: FakeNode,
    stop: watch::Sender<bool>,
}

fn settings() -> Settings {
    Settings {
        api_key: Some("k".into()),
        api_max_body_len: 1024,
        health: true,
        ..Settings::default()
    }
}

fn dev_settings() -> Settings {
    Settings {
        dev: Some(Signer::hs256(&secret()).expect("not empty")),
        ..settings()
    }
}

fn secret() -> Secret {
    "a secret of the development server".into()
}

/// Runs `test` beside a server with these settings, on one thread and within a deadline.
fn with_server<F: Future<Output = ()>>(settings: Settings, test: impl FnOnce(Server) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let node = FakeNode::default();
        let service = Rc::new(Service::new(Arc::new(settings), node.clone()));
        let (stop, stopping) = watch::channel(false);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stopping = stopping.clone();
                let shutdown = async move {
                    // An error means that the test is over.
                    let _ = stopping.wait_for(|stop| *stop).await;
                };
                tokio::task::spawn_local(serve_connection(stream, Rc::clone(&service), shutdown));
            }
        });
        let test = test(Server {
            address,
            node,
            stop,
        });
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test hangs");
    });
}

/// One answer of the server.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the server listens")
    }

    /// Sends `head` (without the blank line) and `body` on a connection of their own.
    async fn send(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.connect().await;
        let host = if head.contains("\r\nHost:") {
            ""
        } else {
            "\r\nHost: localhost"
        };
        let length = body.len();
        let request =
            format!("{head}{host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        answer(&bytes)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), "").await
    }

    async fn call(&self, method: &str, body: &str) -> Answer {
        self.send(
            &format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: k"),
            body,
        )
        .await
    }
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

// ---- the API ----------------------------------------------------------------------------------

#[test]
fn publish_hands_over_everything_and_answers_with_the_position() {
    with_server(settings(), |server| async move {
        let body = r#"{"channel":"chat:7","data": {"a" : 1.50, "é":"\u00e9"} ,"tags":{"lang":"en"},
            "idempotency_key":"m-118"}"#;
        let answer = server.call("publish", body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        assert_eq!(answer.body, r#"{"result":{"offset":1,"epoch":"hKqPwZbd"}}"#);
        let published = server.node.published.borrow();
        assert_eq!(published[0].channel, "chat:7");
        assert_eq!(published[0].data, r#"{"a" : 1.50, "é":"\u00e9"}"#);
        assert_eq!(published[0].tags["lang"], "en");
        assert_eq!(published[0].idempotency_key, "m-118");
    });
}

#[test]
fn a_publication_that_is_not_stored_has_no_position() {
    with_server(settings(), |server| async move {
        let body = r#"{"channel":"c","b64data":"eyJhIjoxfQ==","skip_history":true}"#;
        assert_eq!(server.call("publish", body).await.body, r#"{"result":{}}"#);
        assert_eq!(server.node.published.borrow()[0].data, r#"{"a":1}"#);
    });
}

#[test]
fn broadcast_answers_for_each_channel_in_order() {
    with_server(settings(), |server| async move {
        let body = r#"{"channels":["slow","nobody:1","b"],"data":1}"#;
        let answer = server.call("broadcast", body).await;
        let expected = concat!(
            r#"{"result":{"responses":[{"result":{"offset":2,"epoch":"hKqPwZbd"}},"#,
            r#"{"error":{"code":102,"message":"unknown channel"}},"#,
            r#"{"result":{"offset":1,"epoch":"hKqPwZbd"}}]}}"#
        );
        assert_eq!(answer.body, expected);

        let error = r#"{"error":{"code":107,"message":"bad request"}}"#;
        assert_eq!(
            server
                .call("broadcast", r#"{"channels":[],"data":1}"#)
                .await
                .body,
            error
        );
    });
}

#[test]
fn large_broadcasts_reach_every_channel() {
    let settings = Settings {
        api_max_body_len: 1 << 20,
        ..settings()
    };
    with_server(settings, |server| async move {
        let channels: Vec<_> = (0..3000).map(|n| format!("\"{n}\"")).collect();
        let body = format!(
            r#"{{"channels":[{}],"data":1,"skip_history":true}}"#,
            channels.join(",")
        );
        let answer = server.call("broadcast", &body).await;
        assert_eq!(answer.body.matches(r#"{"result":{}}"#).count(), 3000);
        let order: Vec<_> = server
            .node
            .published
            .borrow()
            .iter()
            .map(|one| one.channel.clone())
            .collect();
        assert!(
            order
                .iter()
                .enumerate()
                .all(|(n, channel)| *channel == n.to_string())
        );
    });
}

#[test]
fn presence_and_history_are_told() {
    with_server(settings(), |server| async move {
        let answer = server.call("presence", r#"{"channel":"chat"}"#).await;
        let expected = concat!(
            r#"{"result":{"presence":{"8a3f":{"user":"7","client":"8a3f","#,
            r#""conn_info":{"name":"Ann"}}}}}"#
        );
        assert_eq!(answer.body, expected);
        let answer = server.call("presence", r#"{"channel":"empty"}"#).await;
        assert_eq!(answer.body, r#"{"result":{"presence":{}}}"#);
        let answer = server.call("presence_stats", r#"{"channel":"chat"}"#).await;
        assert_eq!(answer.body, r#"{"result":{"num_clients":2,"num_users":1}}"#);

        let body =
            r#"{"channel":"chat","limit":2,"since":{"offset":3,"epoch":"e"},"reverse":true}"#;
        let answer = server.call("history", body).await;
        let expected = concat!(
            r#"{"result":{"publications":[{"data":{"n":1.0},"offset":14}],"#,
            r#""epoch":"hKqPwZbd","offset":14}}"#
        );
        assert_eq!(answer.body, expected);
        let since = Some(StreamPosition {
            offset: 3,
            epoch: "e".into(),
        });
        let expected = History {
            channel: "chat".into(),
            limit: Some(2),
            since,
            reverse: true,
        };
        assert_eq!(server.node.histories.borrow()[0], expected);
    });
}

#[test]
fn info_lists_the_nodes() {
    with_server(settings(), |server| async move {
        let expected = concat!(
            r#"{"result":{"nodes":[{"uid":"n1","name":"a \"node\"","version":"","num_clients":2,"#,
            r#""num_users":0,"num_channels":0,"num_subs":0,"uptime":0}]}}"#
        );
        assert_eq!(server.call("info", "{}").await.body, expected);
        assert_eq!(server.call("info", "").await.status, 400);
    });
}

#[test]
fn errors_are_told_in_the_body_or_as_a_status() {
    with_server(settings(), |server| async move {
        let body = r#"{"channel":"nobody:1","data":1}"#;
        let answer = server.call("publish", body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.body,
            r#"{"error":{"code":102,"message":"unknown channel"}}"#
        );

        let transport = |path: &str, body: &str| {
            let head = format!(
                "POST /api/{path} HTTP/1.1\r\nX-API-Key: k\r\nX-Centrifugo-Error-Mode: transport"
            );
            let body = body.to_owned();
            let server = &server;
            async move { server.send(&head, &body).await }
        };
        let answer = transport("publish", body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, Some("application/json"))
        );
        assert_eq!(answer.body, r#"{"code":102,"message":"unknown channel"}"#);
        let old = r#"{"channel":"c","since":{"epoch":"old"}}"#;
        assert_eq!(transport("history", old).await.status, 416);
        assert_eq!(transport("publish", "{}").await.status, 400);
        assert_eq!(
            transport("broadcast", r#"{"channels":["nobody"],"data":1}"#)
                .await
                .status,
            200
        );
        assert_eq!(
            transport("publish", r#"{"channel":"c","data":1}"#)
                .await
                .status,
            200
        );
    });
    let settings = Settings {
        api_error_mode: ErrorMode::Transport,
        ..settings()
    };
    with_server(settings, |server| async move {
        assert_eq!(
            server
                .call("presence", r#"{"channel":"nobody"}"#)
                .await
                .status,
            404
        );
    });
}

#[test]
fn calls_without_the_key_are_refused() {
    with_server(settings(), |server| async move {
        let body = r#"{"channel":"c","data":1}"#;
        for (head, status) in [
            ("POST /api/publish HTTP/1.1", 401),
            ("POST /api/publish HTTP/1.1\r\nX-API-Key: wrong", 401),
            ("POST /api/publish HTTP/1.1\r\nAuthorization: apikey k", 200),
            ("POST /api/publish?api_key=k HTTP/1.1", 200),
            // Who doesn't have the key doesn't learn anything else either.
            ("GET /api/publish HTTP/1.1", 401),
        ] {
            let answer = server.send(head, body).await;
            assert_eq!(answer.status, status, "{head}: {answer:?}");
            assert!(
                status != 401 || answer.header("www-authenticate").is_some(),
                "{answer:?}"
            );
        }
        assert_eq!(server.node.published.borrow().len(), 2);
    });
}

#[test]
fn what_is_no_call_is_answered_helpfully() {
    with_server(settings(), |server| async move {
        let answer = server
            .send("GET /api/publish HTTP/1.1\r\nX-API-Key: k", "")
            .await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        let answer = server.call("publishh", "{}").await;
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("presence_stats"), "{answer:?}");
        for body in ["", "x", "[]", r#"{"channel":5}"#] {
            let answer = server.call("publish", body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(answer.body.starts_with("Bad Request: "), "{answer:?}");
        }
    });
}

#[test]
fn bodies_have_a_limit() {
    with_server(settings(), |server| async move {
        let body = |len: usize| {
            let frame = r#"{"channel":"c","data":""}"#.len();
            format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(len - frame))
        };
        assert_eq!(server.call("publish", &body(1024)).await.status, 200);
        let answer = server.call("publish", &body(1025)).await;
        assert_eq!(answer.status, 413);
        assert!(answer.body.contains("1024 bytes"), "{answer:?}");

        // The same where no length is announced.
        let mut stream = server.connect().await;
        let head = "POST /api/publish HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
        for _ in 0..3 {
            let _ = stream.write_all(chunk.as_bytes()).await;
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        assert_eq!(answer_status(&bytes), 413);
    });
}

fn answer_status(bytes: &[u8]) -> u16 {
    answer(bytes).status
}

// ---- everything else --------------------------------------------------------------------------

#[test]
fn health_answers_while_it_is_on() {
    with_server(settings(), |server| async move {
        let answer = server.get("/health").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        assert_eq!(server.send("POST /health HTTP/1.1", "").await.status, 405);
    });
    with_server(
        Settings {
            health: false,
            ..settings()
        },
        |server| async move {
            assert_eq!(server.get("/health").await.status, 404);
        },
    );
}

#[test]
fn head_is_get_without_the_body() {
    with_server(dev_settings(), |server| async move {
        for path in ["/", "/health"] {
            let get = server.get(path).await;
            let head = server.send(&format!("HEAD {path} HTTP/1.1"), "").await;
            assert_eq!((head.status, head.body.as_str()), (200, ""));
            let length = get.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()));
        }
    });
}

#[test]
fn the_websocket_path_asks_for_an_upgrade() {
    with_server(settings(), |server| async move {
        let answer = server.get("/connection/websocket").await;
        assert_eq!(
            (answer.status, answer.header("upgrade")),
            (426, Some("websocket"))
        );
        assert!(answer.body.contains("centrifuge"), "{answer:?}");
    });
}

#[test]
fn unknown_paths_name_the_known_ones() {
    with_server(settings(), |server| async move {
        for path in [
            "/",
            "/index.html",
            "/dev/token",
            "/api",
            "/health/",
            "/../etc/passwd",
        ] {
            let answer = server.get(path).await;
            assert_eq!(answer.status, 404, "{path}");
            assert!(answer.body.contains("/connection/websocket"), "{answer:?}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
    });
}

#[test]
fn the_page_is_served_in_development_with_a_strict_policy() {
    with_server(dev_settings(), |server| async move {
        let page = server.get("/").await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8"))
        );
        let policy = page.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'self'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let etag = page.header("etag").unwrap();
        let again = server
            .send(&format!("GET / HTTP/1.1\r\nIf-None-Match: {etag}"), "")
            .await;
        assert_eq!(
            (again.status, again.body.as_str(), again.header("etag")),
            (304, "", Some(etag))
        );
        assert_eq!(server.send("POST / HTTP/1.1", "").await.status, 405);

        // Every file that the page names is there, and is kept by browsers if its name has a hash.
        let names = page
            .body
            .split('"')
            .filter(|part| part.starts_with("/assets/"));
        for name in names {
            let file = server.get(name).await;
            assert_eq!(file.status, 200, "{name}");
            let caching = file.header("cache-control").unwrap();
            assert!(caching.contains("immutable"), "{name}: {caching}");
        }
    });
}

#[test]
fn development_tokens_verify() {
    with_server(dev_settings(), |server| async move {
        let ask = |body: &'static str| server.send("POST /dev/token HTTP/1.1", body);
        let token = |answer: Answer| {
            let token = answer
                .body
                .strip_prefix(r#"{"token":""#)
                .and_then(|t| t.strip_suffix("\"}"));
            token
                .unwrap_or_else(|| panic!("no token in {answer:?}"))
                .to_owned()
        };
        let config = VerifierConfig {
            hmac_secret: Some(secret()),
            ..VerifierConfig::default()
        };
        let verifier = Verifier::new(config).unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();

        let answer = token(ask(r#"{"name":"Ann \"A\" é","user":"7"}"#).await);
        let claims = verifier.verify_connect(&answer, now).unwrap();
        assert_eq!(claims.user, "7");
        assert_eq!(claims.info.unwrap(), r#"{"name":"Ann \"A\" é"}"#.as_bytes());
        let ttl = claims.expire_at.unwrap() - now.as_secs();
        assert!((3600..=3630).contains(&ttl), "{ttl}");
        let answer = token(ask(r#"{"name":"Ann"}"#).await);
        assert_eq!(verifier.verify_connect(&answer, now).unwrap().user, "Ann");

        let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(65));
        for body in [
            "",
            "{}",
            r#"{"name":""}"#,
            r#"{"name":" "}"#,
            r#"{"name":"a","user":""}"#,
            &long,
        ] {
            assert_eq!(
                server.send("POST /dev/token HTTP/1.1", body).await.status,
                400,
                "{body}"
            );
        }
        let huge = format!(r#"{{"name":"{}"}}"#, "n".repeat(5000));
        assert_eq!(
            server.send("POST /dev/token HTTP/1.1", &huge).await.status,
            413
        );
        assert_eq!(server.get("/dev/token").await.status, 405);
    });
}

#[test]
fn development_answers_to_this_machine_only() {
    with_server(dev_settings(), |server| async move {
        let body = r#"{"channel":"c","data":1}"#;
        let publish = |headers: &str| {
            let head = format!("POST /api/publish?api_key=k HTTP/1.1\r\n{headers}");
            let server = &server;
            async move { server.send(&head, body).await }
        };
        for (headers, status) in [
            ("Host: localhost:8000", 200),
            ("Host: 127.0.0.1:8000\r\nOrigin: http://127.0.0.1:8000", 200),
            ("Host: [::1]:8000\r\nOrigin: http://[::1]:8000", 200),
            // DNS rebinding.
            ("Host: evil.example:8000", 421),
            (
                "Host: evil.example:8000\r\nOrigin: http://evil.example:8000",
                421,
            ),
            // A page of another site in a browser on this machine.
            ("Host: localhost:8000\r\nOrigin: https://evil.example", 403),
            ("Host: localhost:8000\r\nOrigin: http://localhost:9000", 403),
            ("Host: localhost:8000\r\nOrigin: null", 403),
        ] {
            let answer = publish(headers).await;
            assert_eq!(answer.status, status, "{headers}: {answer:?}");
        }
        assert_eq!(server.node.published.borrow().len(), 3);
        assert_eq!(
            server
                .send("GET / HTTP/1.1\r\nHost: evil.example", "")
                .await
                .status,
            421
        );
    });
    // Elsewhere the key is a secret, and any name will do.
    let settings = Settings {
        origins: OriginPolicy::default(),
        ..settings()
    };
    with_server(settings, |server| async move {
        let head = "POST /api/publish HTTP/1.1\r\nHost: api.example\r\nX-API-Key: k\r\n\
                    Origin: https://other.example";
        assert_eq!(
            server
                .send(head, r#"{"channel":"c","data":1}"#)
                .await
                .status,
            200
        );
    });
}

#[test]
fn requests_need_one_host() {
    with_server(settings(), |server| async move {
        for (request, status) in [
            ("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
            (
                "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
                400,
            ),
            ("GET /health HTTP/1.0\r\n\r\n", 200),
        ] {
            let mut stream = server.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(answer_status(&bytes), status, "{request:?}");
        }
    });
}

#[test]
fn connections_are_kept_for_more_requests() {
    with_server(settings(), |server| async move {
        let mut stream = server.connect().await;
        for _ in 0..3 {
            stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"{}") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
            }
            assert_eq!(answer_status(&answer), 200);
        }
    });
}

#[test]
fn shutdown_ends_idle_connections() {
    with_server(settings(), |server| async move {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        server.stop.send(true).unwrap();
        assert_eq!(
            stream.read_to_end(&mut answer).await.unwrap(),
            0,
            "nothing more comes"
        );
    });
}

#[test]
fn heads_have_limits() {
    with_server(settings(), |server| async move {
        let long = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        assert_eq!(server.send(&long, "").await.status, 431);
        let many = (0..100)
            .map(|n| format!("\r\nX-{n}: 1"))
            .collect::<String>();
        let many = format!("GET /health HTTP/1.1{many}");
        assert_eq!(server.send(&many, "").await.status, 431);
    });
}
