//! The HTTP API over a real socket, with a node that remembers what it was asked.

mod support;

use tautline::http::Settings;
use tautline::http::api::ErrorMode;
use tautline::http::node::History;
use tautline_protocol::message::StreamPosition;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::support::server::{answer_status, settings, with_server};

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
        assert_eq!(published[0].idempotency_key, "m-118");
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
