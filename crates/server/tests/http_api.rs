//! The HTTP API over a real socket, with a node that remembers what it was asked.

mod support;

use tautline::http::Settings;
use tautline::http::api::{ApiKey, ApiKeys, ApiLimits, ErrorMode, Method, Scope};
use tautline::http::node::History;
use tautline_protocol::message::StreamPosition;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::support::server::{Answer, answer_status, settings, with_server};

#[test]
fn publish_hands_over_everything_and_answers_with_the_position() {
    with_server(settings(), |server| async move {
        let body = r#"{"channel":"chat:7","data": {"a" : 1.50, "é":"\u00e9"} ,"tags":{"lang":"en"},
            "idempotency_key":"m-118","delta":true,"version":17,"version_epoch":"2026-08"}"#;
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
        assert_eq!(published[0].idempotency_key.as_deref(), Some("m-118"));
        assert_eq!(published[0].version, 17);
        assert_eq!(published[0].version_epoch, "2026-08");
        assert!(published[0].delta);
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

        let error = concat!(
            r#"{"error":{"code":107,"#,
            r#""message":"bad request: expected `channels`, with one at least"}}"#
        );
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
        api_limits: ApiLimits::default(),
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
fn presence_is_told_in_parts_to_those_who_ask() {
    with_server(settings(), |server| async move {
        let ann = r#""8a3f":{"user":"7","client":"8a3f","conn_info":{"name":"Ann"}}"#;
        let expected = format!(
            r#"{{"result":{{"presence":{{{ann}}},"num_clients":2,"num_users":1,"next":"8a3f"}}}}"#
        );
        for body in [
            r#"{"channel":"chat","limit":1}"#,
            r#"{"channel":"chat","limit":1,"cursor":"00"}"#,
            r#"{"channel":"chat","sample":true,"limit":1}"#,
        ] {
            assert_eq!(server.call("presence", body).await.body, expected);
        }
        let asked = server.node.presences.take();
        let asked: Vec<_> = asked
            .iter()
            .map(|one| (one.limit, one.cursor.as_deref(), one.sample))
            .collect();
        assert_eq!(
            asked,
            [
                (Some(1), None, false),
                (Some(1), Some("00"), false),
                (Some(1), None, true)
            ]
        );
        let body = r#"{"channel":"chat","limit":-1}"#;
        assert_eq!(server.call("presence", body).await.status, 400);
    });
}

#[test]
fn history_can_be_removed() {
    with_server(settings(), |server| async move {
        let answer = server.call("history_remove", r#"{"channel":"chat"}"#).await;
        assert_eq!(answer.body, r#"{"result":{}}"#);
        assert_eq!(*server.node.removed.borrow(), ["chat"]);
        for (body, code) in [("{}", 107), (r#"{"channel":"nobody:1"}"#, 102)] {
            let answer = server.call("history_remove", body).await;
            assert!(answer.body.contains(&format!("\"code\":{code}")));
        }
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

#[test]
fn connections_are_addressed_by_user_and_client() {
    with_server(settings(), |server| async move {
        for (method, body) in [
            (
                "subscribe",
                r#"{"user":"7","channel":"promo","data":{"a":1}}"#,
            ),
            (
                "unsubscribe",
                r#"{"user":"7","channel":"promo","client":"c"}"#,
            ),
            ("disconnect", r#"{"user":"7","whitelist":["c"]}"#),
            ("refresh", r#"{"client":"c","expire_at":1900000000}"#),
        ] {
            let answer = server.call(method, body).await;
            assert_eq!(answer.body, r#"{"result":{}}"#, "{method}");
        }
        let done = server.node.done.borrow().clone();
        let expected = [
            r#"subscribe Target { user: Some("7"), client: None, session: None }"#,
            r#"unsubscribe Target { user: Some("7"), client: Some("c"), session: None } promo Unsub"#,
            r#"disconnect Target { user: Some("7"), client: None, session: None } ["c"] Disconnect "#,
            r#"refresh Target { user: None, client: Some("c"), session: None }"#,
        ];
        for (done, expected) in done.iter().zip(expected) {
            assert!(done.starts_with(expected), "{done}");
        }
        assert!(done[2].contains("3503"), "{done:?}");
        let custom = r#"{"user":"7","disconnect":{"code":42}}"#;
        let answer = server.call("disconnect", custom).await;
        let expected = "bad request: disconnect.code is 42, expected 3000 to 4999";
        assert_eq!(
            answer.body,
            format!(r#"{{"error":{{"code":107,"message":"{expected}"}}}}"#)
        );
    });
}

#[test]
fn channels_are_listed_by_pattern() {
    with_server(settings(), |server| async move {
        let answer = server.call("channels", r#"{"pattern":"chat:*"}"#).await;
        let expected =
            r#"{"result":{"channels":{"chat:7":{"num_clients":2},"chat:9":{"num_clients":1}}}}"#;
        assert_eq!(answer.body, expected);
        let answer = server.call("channels", "{}").await;
        assert_eq!(answer.body.matches("num_clients").count(), 3);
        let answer = server.call("channels", r#"{"pattern":"["}"#).await;
        assert!(answer.body.contains(r#""code":107"#), "{answer:?}");
    });
}

#[test]
fn rpc_is_for_extensions() {
    with_server(settings(), |server| async move {
        let answer = server
            .call("rpc", r#"{"method":"echo","params":{"a": 1}}"#)
            .await;
        assert_eq!(answer.body, r#"{"result":{"data":{"a": 1}}}"#);
        let answer = server.call("rpc", r#"{"method":"none"}"#).await;
        assert_eq!(
            answer.body,
            r#"{"error":{"code":104,"message":"not found"}}"#
        );
        let answer = server.call("rpc", r#"{"method":""}"#).await;
        assert!(answer.body.contains(r#""code":107"#), "{answer:?}");
    });
}

#[test]
fn a_batch_answers_for_each_command_in_order() {
    with_server(settings(), |server| async move {
        for parallel in ["false", "true"] {
            let body = format!(
                r#"{{"commands":[{{"publish":{{"channel":"slow","data":1,"skip_history":true}}}},
                {{"presence_stats":{{"channel":"chat"}}}},{{"presence":{{"channel":"nobody"}}}},
                {{"publish":{{"data":1}}}},{{"nope":{{}}}},{{}},null,{{"batch":{{"commands":[]}}}},
                {{"publish":null}},{{"info":{{}},"publish":{{}}}}],"parallel":{parallel}}}"#
            );
            let answer = server.call("batch", &body).await;
            assert_eq!(answer.status, 200);
            let expected = concat!(
                r#"{"replies":[{"publish":{}},{"presence_stats":{"num_clients":2,"num_users":1}},"#,
                r#"{"error":{"code":102,"message":"unknown channel"}},"#,
                r#"{"error":{"code":107,"message":"bad request: expected `channel`, which can't be empty"}},"#,
                r#"{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":107,"message":"bad request: a command is an object, with the name of its "#,
                r#"method"}},"#,
                r#"{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":104,"message":"not found"}},"#,
                r#"{"error":{"code":107,"message":"bad request: a command has one key, the name of "#,
                r#"its method"}}]}"#,
            );
            assert_eq!(answer.body, expected);
        }
        assert_eq!(server.call("batch", "{}").await.body, r#"{"replies":[]}"#);

        // Nothing of a batch is done where something of it can't be read.
        let before = server.node.published.borrow().len();
        let body =
            r#"{"commands":[{"publish":{"channel":"a","data":1}},{"publish":{"channel":5}}]}"#;
        let answer = server.call("batch", body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("commands[1]: "), "{answer:?}");
        assert_eq!(server.node.published.borrow().len(), before);
    });
}

#[test]
fn old_client_libraries_find_the_single_endpoint() {
    with_server(settings(), |server| async move {
        let head = "POST /api HTTP/1.1\r\nAuthorization: apikey k";
        let body = concat!(
            r#"{"id":1,"method":"publish","params":{"channel":"a","data":1}}"#,
            "\n",
            r#"{"method":"presence_stats","params":{"channel":"chat"}} {"method":"info","id":3}"#,
            r#"{"method":"nope"}{"method":"presence","params":{"channel":"nobody"}}"#,
        );
        let answer = server.send(head, body).await;
        assert_eq!(answer.status, 200);
        let lines: Vec<_> = answer.body.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"id":1,"result":{"offset":1,"epoch":"hKqPwZbd"}}"#
        );
        assert_eq!(lines[1], r#"{"result":{"num_clients":2,"num_users":1}}"#);
        assert!(
            lines[2].starts_with(r#"{"id":3,"result":{"nodes":"#),
            "{answer:?}"
        );
        assert_eq!(lines[3], r#"{"error":{"code":104,"message":"not found"}}"#);
        assert_eq!(
            lines[4],
            r#"{"error":{"code":102,"message":"unknown channel"}}"#
        );
        assert_eq!(lines.len(), 5);
        for body in ["", "[]", "{", r#"{"method":"publish","params":[]}"#] {
            assert_eq!(server.send(head, body).await.status, 400, "{body}");
        }
        let wrong = "POST /api HTTP/1.1\r\nAuthorization: apikey x";
        assert_eq!(server.send(wrong, "{}").await.status, 401);
    });
}

#[test]
fn what_a_call_may_ask_for_is_limited() {
    let limits = ApiLimits {
        max_batch_commands: 2,
        max_broadcast_channels: 2,
        max_listed_channels: 2,
        ..ApiLimits::default()
    };
    let settings = Settings {
        api_limits: limits,
        ..settings()
    };
    with_server(settings, |server| async move {
        let refused = |answer: &Answer, option: &str| {
            assert!(
                answer
                    .body
                    .contains(r#""code":106,"message":"limit exceeded: "#),
                "{answer:?}"
            );
            assert!(answer.body.contains(option), "{answer:?}");
        };
        let body = r#"{"commands":[{"info":{}},{"info":{}},{"info":{}}]}"#;
        refused(
            &server.call("batch", body).await,
            "http_api.max_batch_commands",
        );
        let body = r#"{"channels":["a","b","c"],"data":1}"#;
        refused(
            &server.call("broadcast", body).await,
            "http_api.max_broadcast_channels",
        );
        refused(
            &server.call("channels", "{}").await,
            "http_api.max_listed_channels",
        );
        let head = "POST /api HTTP/1.1\r\nX-API-Key: k";
        let body = r#"{"method":"info"}{"method":"info"}{"method":"info"}"#;
        refused(
            &server.send(head, body).await,
            "http_api.max_batch_commands",
        );

        let body = r#"{"commands":[{"info":{}},{"info":{}}]}"#;
        assert!(
            server
                .call("batch", body)
                .await
                .body
                .starts_with(r#"{"replies":[{"info""#)
        );
    });
}

#[test]
fn calls_at_a_time_are_limited() {
    let settings = Settings {
        api_limits: ApiLimits {
            max_concurrent_calls: 2,
            ..ApiLimits::default()
        },
        ..settings()
    };
    with_server(settings, |server| async move {
        let wait = || async {
            let mut stream = server.connect().await;
            let body = r#"{"method":"wait"}"#;
            let length = body.len();
            let request = format!(
                "POST /api/rpc HTTP/1.1\r\nHost: h\r\nX-API-Key: k\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            stream
        };
        let (first, second) = (wait().await, wait().await);
        let answer = loop {
            let answer = server.call("info", "{}").await;
            // Until both are there.
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("1"))
        );
        assert!(
            answer.body.contains("http_api.max_concurrent_calls"),
            "{answer:?}"
        );
        drop((first, second));
        // A call whose caller has gone is over.
        while server.call("info", "{}").await.status != 200 {}
    });
}

#[test]
fn a_key_with_a_scope_is_good_for_that() {
    let key = |name: &str, methods: Option<Vec<Method>>, channels: Option<&str>| {
        let digest = tautline_auth::KeyDigest::of(name.as_bytes());
        let channels = channels.map(|pattern| vec![pattern.parse().unwrap()]);
        ApiKey::new(name, digest, Scope { methods, channels })
    };
    let keys = vec![
        key("k", None, None),
        key("shop", None, Some("chat:*")),
        key("ops", Some(vec![Method::Info, Method::Batch]), None),
    ];
    let settings = Settings {
        api_keys: ApiKeys::new(keys, false),
        ..settings()
    };
    with_server(settings, |server| async move {
        let call = |key: &str, method: &str, body: &str, transport: bool| {
            let mode = if transport { "transport" } else { "body" };
            let head = format!(
                "POST /api/{method} HTTP/1.1\r\nX-API-Key: {key}\r\nX-Centrifugo-Error-Mode: {mode}"
            );
            let (server, body) = (&server, body.to_owned());
            async move { server.send(&head, &body).await }
        };
        let publish = |channel: &str| format!(r#"{{"channel":"{channel}","data":1}}"#);
        assert_eq!(
            call("shop", "publish", &publish("chat:1"), true)
                .await
                .status,
            200
        );
        assert_eq!(
            call("shop", "publish", &publish("news"), true).await.status,
            403
        );
        assert_eq!(call("shop", "disconnect", "{}", true).await.status, 403);
        assert_eq!(call("ops", "info", "{}", true).await.status, 200);
        assert_eq!(
            call("ops", "publish", &publish("chat:1"), true)
                .await
                .status,
            403
        );
        assert_eq!(
            call("k", "publish", &publish("news"), true).await.status,
            200
        );
        let answer = call("shop", "publish", &publish("news"), false).await;
        let expected = "permission denied: the API key is not for the channel news (the key's name \
                        is shop)";
        assert_eq!(
            answer.body,
            format!(r#"{{"error":{{"code":103,"message":"{expected}"}}}}"#)
        );

        let body = r#"{"channels":["chat:1","news"],"data":1}"#;
        let answer = call("shop", "broadcast", body, false).await.body;
        assert!(answer.contains(r#"[{"result":{"offset":"#), "{answer}");
        assert!(answer.contains(r#"},{"error":{"code":103,"#), "{answer}");
        let answer = call("shop", "channels", "{}", false).await.body;
        assert!(
            answer.contains("chat:7") && !answer.contains("news"),
            "{answer}"
        );
        let body = format!(
            r#"{{"commands":[{{"publish":{}}},{{"info":{{}}}}]}}"#,
            publish("chat:1")
        );
        let answer = call("shop", "batch", &body, false).await.body;
        assert!(answer.contains(r#"[{"publish":{"offset":"#), "{answer}");
        assert!(answer.contains(r#"},{"error":{"code":103,"#), "{answer}");
        let channels: Vec<_> = server
            .node
            .published
            .borrow()
            .iter()
            .map(|p| p.channel.clone())
            .collect();
        assert_eq!(channels, ["chat:1", "news", "chat:1", "chat:1"]);
    });
}

#[test]
fn the_api_describes_itself() {
    with_server(settings(), |server| async move {
        let answer = server.get("/api/openapi.json").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for method in Method::ALL {
            // Its answer goes on, of which this kind of description knows nothing.
            if method == Method::Trace {
                continue;
            }
            let path = format!("/api/{}", method.name());
            assert_eq!(
                document["paths"][&path]["post"]["operationId"],
                method.name()
            );
        }
        let answer = server.send("POST /api/openapi.json HTTP/1.1", "{}").await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD"))
        );
    });
}
