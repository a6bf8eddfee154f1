//! Everything of the HTTP side but the API, over a real socket.

mod support;

use tautline::http::Settings;
use tautline::http::origin::OriginPolicy;
use tautline_auth::{Verifier, VerifierConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::support::server::{Answer, answer_status, dev_settings, secret, settings, with_server};

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
            "/apis",
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
