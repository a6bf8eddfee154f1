//! A backend that is slow, broken, mistaken or gone, and clients that don't wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tautline::{Config, Handler, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::backend::{Act, Asked, Backend, Say, troubled};
use super::{run, start, url};
use crate::peer::Peer;

/// A node that asks about calls alone, with these options.
fn for_calls(url: &str, options: &str) -> Node {
    start(&format!(
        "client.allow_anonymous_connect_without_token = true\nprometheus.enabled = true\n\
         [rpc]\nwithout_namespace.proxy_enabled = true\n\
         [rpc.proxy]\nendpoint = \"{url}/rpc\"\n{options}\n"
    ))
}

async fn call(peer: &mut Peer, method: &str) -> Value {
    peer.ask("rpc", json!({"method": method})).await
}

fn internal() -> Value {
    json!({"code": 100, "message": "internal server error", "temporary": true})
}

#[test]
fn who_answers_too_late_has_not_answered() {
    run(async {
        let (dropped, mut hear) = mpsc::unbounded_channel();
        let backend = Backend::start(move |_: &Asked| Say::Never(dropped.clone())).await;
        let node = for_calls(&backend.url, "timeout = \"50ms\"");
        let mut peer = Peer::connect(&url(&node)).await;
        assert_eq!(call(&mut peer, "m").await["error"], internal());
        hear.recv().await.unwrap();
        // It was the endpoint's patience that ended, and not the hub's, which is longer.
        let metrics = metrics(&node).await;
        let failed = "tautline_proxy_errors{protocol=\"http\",type=\"rpc\",name=\"default\"} 1\n";
        assert!(metrics.contains(failed), "{metrics}");
    });
}

/// Two that never answer, asked one after the other: who has no option of its own is given up, and the other isn't yet.
#[test]
fn who_may_answer_later_is_waited_for() {
    run(async {
        let (dropped, mut hear) = mpsc::unbounded_channel();
        let (others, mut hear_others) = mpsc::unbounded_channel();
        let patient = Backend::start(move |_: &Asked| Say::Never(dropped.clone())).await;
        let other = Backend::start(move |_: &Asked| Say::Never(others.clone())).await;
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             proxies = [{{name = \"other\", endpoint = \"{}/rpc\"}}]\n\
             [rpc]\nwithout_namespace.proxy_enabled = true\n\
             namespaces = [{{name = \"other\", proxy_enabled = true, proxy_name = \"other\"}}]\n\
             proxy = {{endpoint = \"{}/rpc\", timeout = \"30s\"}}\n",
            other.url, patient.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        let first = peer.begin("rpc", json!({"method": "m"})).await;
        let second = peer.begin("rpc", json!({"method": "other:m"})).await;
        let reply = peer.find(|message| message["id"].is_u64()).await;
        assert_eq!(reply["id"], json!(second), "and not {first}: {reply}");
        hear_others.recv().await.unwrap();
        assert!(hear.try_recv().is_err(), "nobody has given it up");
    });
}

#[test]
fn a_client_that_goes_takes_its_question_along() {
    run(async {
        let (dropped, mut hear) = mpsc::unbounded_channel();
        let mut backend = Backend::start(move |_: &Asked| Say::Never(dropped.clone())).await;
        let node = for_calls(&backend.url, "timeout = \"30s\"");
        let mut peer = Peer::connect(&url(&node)).await;
        peer.begin("rpc", json!({"method": "m"})).await;
        backend.next().await;
        drop(peer);
        hear.recv().await.unwrap();
        // It was given up, and did not just end.
        let metrics = metrics(&node).await;
        assert!(!metrics.contains("tautline_proxy_errors{"), "{metrics}");
    });
}

#[test]
fn statuses_mean_what_the_operator_says() {
    run(async {
        let backend =
            Backend::start(
                |asked: &Asked| match asked.body["method"].as_str().unwrap() {
                    "503" => Say::Text(503, "{\"result\":{}}".into()),
                    "403" => Say::Text(403, String::new()),
                    "204" => Say::Text(204, String::new()),
                    "302" => Say::Text(302, String::new()),
                    "html" => Say::Text(200, "<html>".into()),
                    "long" => Say::Text(
                        200,
                        format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(2000)),
                    ),
                    "code" => Say::Json(json!({"error": {"code": 3000}})),
                    "base64" => Say::Json(json!({"result": {"b64data": "*"}})),
                    _ => Say::Json(json!({})),
                },
            )
            .await;
        let node = for_calls(
            &backend.url,
            "max_response_size = 1024\nhttp.status_to_code_transforms = [\n\
             {status_code = 503, to_error = {code = 1503, message = \"later\", temporary = true}},\n\
             {status_code = 403, to_disconnect = {code = 4503, reason = \"no\"}}]",
        );
        let mut peer = Peer::connect(&url(&node)).await;
        let later = json!({"code": 1503, "message": "later", "temporary": true});
        assert_eq!(call(&mut peer, "503").await["error"], later);
        for method in ["204", "302", "html", "long", "code", "base64"] {
            assert_eq!(
                call(&mut peer, method).await["error"],
                internal(),
                "{method}"
            );
        }
        assert!(call(&mut peer, "fine").await["rpc"].is_object());
        peer.begin("rpc", json!({"method": "403"})).await;
        assert_eq!(peer.closed().await, 4503);
    });
}

#[test]
fn who_only_asks_whether_something_may_be_asks_again() {
    run(async {
        for trouble in [Act::Drop, Act::Break] {
            // The second time on a connection that was good the first time.
            let (backend, mut asked) =
                troubled(vec![trouble, Act::Answer, trouble, Act::Answer]).await;
            let node = start(&format!(
                "[client.proxy.connect]\nenabled = true\nendpoint = \"{backend}/connect\"\n"
            ));
            Peer::connect(&url(&node)).await;
            Peer::connect(&url(&node)).await;
            for _ in 0..4 {
                assert_eq!(asked.recv().await.unwrap(), "/connect");
            }
            // Not for ever.
            let (backend, mut asked) = troubled(vec![trouble, trouble]).await;
            let node = start(&format!(
                "[client.proxy.connect]\nenabled = true\nendpoint = \"{backend}/connect\"\n"
            ));
            let mut peer = Peer::open(&url(&node), &[]).await;
            assert_eq!(peer.ask("connect", json!({})).await["error"], internal());
            asked.recv().await.unwrap();
            asked.recv().await.unwrap();
        }
    });
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    run(async {
        for trouble in [Act::Drop, Act::Break] {
            let (backend, mut asked) = troubled(vec![Act::Answer, trouble, Act::Answer]).await;
            let node = for_calls(&backend, "");
            let mut peer = Peer::connect(&url(&node)).await;
            assert!(call(&mut peer, "a").await["rpc"].is_object());
            assert_eq!(call(&mut peer, "b").await["error"], internal());
            assert!(call(&mut peer, "c").await["rpc"].is_object());
            for _ in 0..3 {
                asked.recv().await.unwrap();
            }
            assert!(asked.try_recv().is_err());
        }
    });
}

#[test]
fn no_more_are_asked_than_may_be() {
    run(async {
        let (dropped, _hear) = mpsc::unbounded_channel();
        let mut backend = Backend::start(move |_: &Asked| Say::Never(dropped.clone())).await;
        let node = for_calls(&backend.url, "max_in_flight = 2\ntimeout = \"30s\"");
        let mut peer = Peer::connect(&url(&node)).await;
        for _ in 0..2 {
            peer.begin("rpc", json!({"method": "m"})).await;
            backend.next().await;
        }
        let text = "too many requests: 2 questions to the application's backend are under way, as many as its proxy's \
                    max_in_flight allows; try again later";
        let expected = json!({"code": 111, "message": text, "temporary": true});
        assert_eq!(call(&mut peer, "one more").await["error"], expected);
        let metrics = metrics(&node).await;
        let labels = "{protocol=\"http\",type=\"rpc\",name=\"default\"}";
        assert!(
            metrics.contains(&format!("tautline_proxy_inflight_requests{labels} 2\n")),
            "{metrics}"
        );
        assert!(
            metrics.contains(&format!("tautline_proxy_errors{labels} 1\n")),
            "{metrics}"
        );
        let refused =
            "tautline_proxy_refused_total{protocol=\"http\",type=\"rpc\",name=\"default\",reason=";
        for (reason, count) in [("max_in_flight", 1), ("breaker", 0)] {
            let line = format!("{refused}\"{reason}\"}} {count}\n");
            assert!(metrics.contains(&line), "{line} {metrics}");
        }
        backend.assert_idle();
        // Whoever goes makes room.
        drop(peer);
        let mut peer = Peer::connect(&url(&node)).await;
        peer.begin("rpc", json!({"method": "m"})).await;
        loop {
            tokio::select! {
                asked = backend.next() => {
                    assert_eq!(asked.body["method"], json!("m"));
                    break;
                }
                // Room is made by another thread, in its own time.
                reply = peer.find(|message| message["error"]["code"] == json!(111)) => {
                    drop(reply);
                    peer.begin("rpc", json!({"method": "m"})).await;
                }
            }
        }
    });
}

#[test]
fn a_backend_that_fails_again_and_again_is_left_alone() {
    run(async {
        let mut backend = Backend::start(|_: &Asked| Say::Text(500, String::new())).await;
        let node = for_calls(
            &backend.url,
            "breaker_failures = 3\nbreaker_pause = \"10m\"",
        );
        let mut peer = Peer::connect(&url(&node)).await;
        for _ in 0..3 {
            assert_eq!(call(&mut peer, "m").await["error"], internal());
            backend.next().await;
        }
        for _ in 0..3 {
            assert_eq!(call(&mut peer, "m").await["error"], internal());
        }
        let refused = "type=\"rpc\",name=\"default\",reason=\"breaker\"} 3\n";
        let page = metrics(&node).await;
        assert!(page.contains(refused), "{page}");
        backend.assert_idle();
        let metrics = metrics(&node).await;
        let labels = "{protocol=\"http\",type=\"rpc\",name=\"default\"}";
        for line in [
            format!("tautline_proxy_breaker_state{labels} 2\n"),
            format!("tautline_proxy_errors{labels} 6\n"),
            format!("tautline_proxy_inflight_requests{labels} 0\n"),
            // It was asked three times.
            format!("tautline_proxy_duration_seconds_histogram_count{labels} 3\n"),
        ] {
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
    });
}

#[test]
fn a_backend_that_is_back_is_asked_again() {
    run(async {
        let is_back = Arc::new(AtomicBool::new(false));
        let look = Arc::clone(&is_back);
        let backend = Backend::start(move |_: &Asked| {
            if look.load(Ordering::SeqCst) {
                Say::Json(json!({"result": {}}))
            } else {
                Say::Text(502, String::new())
            }
        })
        .await;
        let node = for_calls(
            &backend.url,
            "breaker_failures = 1\nbreaker_pause = \"1ms\"",
        );
        let mut peer = Peer::connect(&url(&node)).await;
        for _ in 0..3 {
            assert_eq!(call(&mut peer, "m").await["error"], internal());
        }
        is_back.store(true, Ordering::SeqCst);
        while !call(&mut peer, "m").await["rpc"].is_object() {}
        assert!(call(&mut peer, "m").await["rpc"].is_object());
    });
}

/// Two that have failed, one after the other: the one with the short pause is asked again, and the other isn't yet.
#[test]
fn a_backend_is_left_alone_for_as_long_as_the_options_say() {
    run(async {
        let failing = async || {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let backend = Backend::start(move |_: &Asked| {
                count.fetch_add(1, Ordering::SeqCst);
                Say::Text(500, String::new())
            });
            (backend.await, asked)
        };
        let ((first, asked), (other, others)) = (failing().await, failing().await);
        let node = start(&format!(
            "client.allow_anonymous_connect_without_token = true\n\
             proxies = [{{name = \"other\", endpoint = \"{}/rpc\", breaker_failures = 1, breaker_pause = \"1ms\"}}]\n\
             [rpc]\nwithout_namespace.proxy_enabled = true\n\
             namespaces = [{{name = \"other\", proxy_enabled = true, proxy_name = \"other\"}}]\n\
             proxy = {{endpoint = \"{}/rpc\", breaker_failures = 1, breaker_pause = \"10m\"}}\n",
            other.url, first.url
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        assert_eq!(call(&mut peer, "m").await["error"], internal());
        while others.load(Ordering::SeqCst) < 3 {
            assert_eq!(call(&mut peer, "other:m").await["error"], internal());
        }
        assert_eq!(call(&mut peer, "m").await["error"], internal());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_client_that_goes_does_not_keep_the_others_from_trying() {
    run(async {
        let (dropped, mut hear) = mpsc::unbounded_channel();
        let mut backend =
            Backend::start(
                move |asked: &Asked| match asked.body["method"].as_str().unwrap() {
                    "fail" => Say::Text(500, String::new()),
                    "never" => Say::Never(dropped.clone()),
                    _ => Say::Json(json!({})),
                },
            )
            .await;
        let options = "breaker_failures = 1\nbreaker_pause = \"1ms\"\ntimeout = \"30s\"";
        let node = for_calls(&backend.url, options);
        let mut other = Peer::connect(&url(&node)).await;
        assert_eq!(call(&mut other, "fail").await["error"], internal());
        backend.next().await;
        // The one who tries whether the backend is back, once the pause is over.
        let probing = loop {
            let mut peer = Peer::connect(&url(&node)).await;
            let id = peer.begin("rpc", json!({"method": "never"})).await;
            tokio::select! {
                asked = backend.next() => {
                    assert_eq!(asked.body["method"], json!("never"));
                    break peer;
                }
                reply = peer.find(|message| message["id"] == json!(id)) => {
                    assert_eq!(reply["error"], internal());
                }
            }
        };
        assert_eq!(
            call(&mut other, "m").await["error"],
            internal(),
            "it is being tried"
        );
        drop(probing);
        hear.recv().await.unwrap();
        while !call(&mut other, "m").await["rpc"].is_object() {}
    });
}

#[test]
fn a_backend_that_is_not_there_is_an_error() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let node = for_calls(&format!("http://{address}"), "");
        let mut peer = Peer::connect(&url(&node)).await;
        assert_eq!(call(&mut peer, "m").await["error"], internal());
        let metrics = metrics(&node).await;
        let labels = "{protocol=\"http\",type=\"rpc\",name=\"default\"}";
        let retried = format!("tautline_proxy_retries_total{labels} 1\n");
        assert!(
            metrics.contains(&retried),
            "nothing was sent yet: {metrics}"
        );
    });
}

#[test]
fn who_could_not_be_let_in_is_listened_to_until_it_goes() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        drop(listener);
        let node = start(&format!(
            "client.stale_close_delay = \"1h\"\n\
             client.proxy.connect = {{enabled = true, endpoint = \"http://{backend}\"}}"
        ));
        let mut peer = Peer::open(&url(&node), &[]).await;
        assert_eq!(peer.ask("connect", json!({})).await["error"], internal());
        // As SDKs do, who come back with a connection of its own. The old one is not left over.
        peer.leave().await;
    });
}

#[test]
fn a_handler_and_proxies_are_one_too_many() {
    struct Nothing;
    impl Handler for Nothing {}
    let text = "client.proxy.connect = {enabled = true, endpoint = \"http://127.0.0.1:1\"}";
    let config = Config::from_toml(text).unwrap();
    let error = Node::builder(config).handler(Nothing).start().unwrap_err();
    assert!(
        error.to_string().contains("leave one of them out"),
        "{error}"
    );
}

async fn metrics(node: &Node) -> String {
    let mut stream = TcpStream::connect(node.address().unwrap()).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Guessing costs the backend no more than a token costs the server: where too much of it comes from, nobody is asked.
#[test]
fn who_guesses_is_not_asked_about_for_a_while() {
    run(async {
        let mut backend = Backend::start(|asked: &Asked| {
            let who = asked.body["data"]["who"].as_str().unwrap_or_default();
            let code = |code: u32, temporary: bool| {
                let error = json!({"code": code, "message": "no", "temporary": temporary});
                Say::Json(json!({"error": error}))
            };
            match who {
                "wrong" => code(101, false),
                "late" => code(101, true),
                "expired" => code(109, false),
                "banned" => code(1000, false),
                "forged" => {
                    Say::Json(json!({"disconnect": {"code": 3500, "reason": "invalid token"}}))
                }
                "gone" => Say::Json(json!({"disconnect": {"code": 4500, "reason": "go"}})),
                _ => Say::Json(json!({"result": {"user": "7"}})),
            }
        })
        .await;
        let node = start(&format!(
            "http_server.trusted_proxies = [\"127.0.0.1\"]\n[limits]\nexempt_loopback = false\n\
             [limits.address]\nfailed_authentications = \"2/h\"\n\
             [client.proxy.connect]\nenabled = true\nendpoint = \"{}\"\n",
            backend.url
        ));
        let connect = async |address: &str, who: &str| {
            let mut peer = Peer::open(&url(&node), &[("X-Forwarded-For", address)]).await;
            let request = json!({"data": {"who": who}});
            match who {
                "forged" | "gone" => {
                    peer.begin("connect", request).await;
                    u64::from(peer.closed().await)
                }
                _ => {
                    let reply = peer.ask("connect", request).await;
                    reply["error"]["code"].as_u64().unwrap_or(0)
                }
            }
        };
        // What may mean anything counts for nothing.
        for _ in 0..3 {
            for (who, code) in [
                ("late", 101),
                ("expired", 109),
                ("banned", 1000),
                ("gone", 4500),
            ] {
                assert_eq!(connect("192.0.2.1", who).await, code, "{who}");
                backend.next().await;
            }
        }
        for (who, code) in [("wrong", 101), ("forged", 3500)] {
            assert_eq!(connect("192.0.2.1", who).await, code, "{who}");
            backend.next().await;
        }
        for who in ["wrong", "good"] {
            assert_eq!(connect("192.0.2.1", who).await, 111, "{who}");
        }
        backend.assert_idle();
        // Others have nothing to do with it.
        assert_eq!(connect("192.0.2.2", "good").await, 0);
        backend.next().await;
    });
}
