//! Traces: what a collector is told of calls of the server API, of what they publish, and of questions to the backend and
//! events for it; and that nobody waits for it. What it is told is read by the types that OpenTelemetry makes of its own
//! definitions.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod asked;
#[path = "../proxy/backend.rs"]
#[allow(dead_code, reason = "the proxies' tests use all of it")]
mod backend;
mod clients;
mod moved;
#[path = "../support/peer.rs"]
mod peer;
#[path = "../support/run.rs"]
mod run;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use serde_json::{Value, json};
use tautline::{Config, Node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::backend::{Asked, Backend, Say};
use self::peer::Peer;
use self::run::run;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn start(more: &str) -> Node {
    start_with(1, more)
}

fn start_with(workers: usize, more: &str) -> Node {
    Node::builder(config(workers, more)).start().unwrap()
}

fn config(workers: usize, more: &str) -> Config {
    config_within("3s", workers, more)
}

/// The same for a node that has so much time to end.
fn config_within(timeout: &str, workers: usize, more: &str) -> Config {
    let config = format!(
        "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = {workers}\nnode.name = \"n1\"\n\
         shutdown.timeout = \"{timeout}\"\nprometheus.enabled = true\nhttp_api.key = \"k\"\n\
         client.allow_anonymous_connect_without_token = true\n{more}"
    );
    Config::from_toml(&config).unwrap()
}

fn otlp(url: &str, more: &str) -> String {
    format!("[telemetry.otlp]\nenabled = true\nendpoint = \"{url}/v1/traces\"\n{more}\n")
}

/// A request, and all of its answer.
async fn ask(node: &Node, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(node.address().unwrap()).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn call(node: &Node, method: &str, body: &str, traceparent: Option<String>) -> String {
    let traceparent =
        traceparent.map_or_else(String::new, |value| format!("\r\nTraceparent: {value}"));
    let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: k{traceparent}");
    ask(node, &head, body).await
}

fn sampled() -> Option<String> {
    Some(format!("00-{TRACE}-{CALLER}-01"))
}

/// The spans of the next request.
async fn spans(collector: &mut Backend) -> Vec<Value> {
    spans_of(&collector.next().await)
}

/// The spans of a request.
fn spans_of(asked: &Asked) -> Vec<Value> {
    assert_eq!(asked.path, "/v1/traces");
    assert_eq!(asked.headers["content-type"], "application/json");
    let resource = &asked.body["resourceSpans"][0];
    let of = |key: &str| attribute(&resource["resource"], key);
    assert_eq!(of("service.instance.id"), "n1");
    assert_eq!(of("service.name"), "tautline");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    understand(&asked.text, spans);
    spans.clone()
}

/// Sees that a collector finds in a request what we think is there.
fn understand(body: &[u8], spans: &[Value]) {
    let request: ExportTraceServiceRequest = serde_json::from_slice(body).unwrap();
    let [resource] = &request.resource_spans[..] else {
        panic!("one resource: {request:?}");
    };
    assert_eq!(resource.resource.as_ref().unwrap().attributes.len(), 3);
    let understood = &resource.scope_spans[0].spans;
    assert_eq!(understood.len(), spans.len());
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    for (span, json) in understood.iter().zip(spans) {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert_eq!(hex(&span.trace_id), json["traceId"]);
        assert_eq!(hex(&span.span_id), json["spanId"]);
        let parent = json["parentSpanId"].as_str().unwrap_or_default();
        assert_eq!(hex(&span.parent_span_id), parent);
        assert_eq!(span.name, json["name"]);
        assert_eq!(json["kind"], span.kind);
        assert_eq!(
            span.start_time_unix_nano.to_string(),
            json["startTimeUnixNano"]
        );
        assert_eq!(span.end_time_unix_nano.to_string(), json["endTimeUnixNano"]);
        let has_failed = span.status.as_ref().is_some_and(|status| status.code == 2);
        assert_eq!(has_failed, json.get("status").is_some());
        assert_eq!(
            span.attributes.len(),
            json["attributes"].as_array().unwrap().len()
        );
        for one in &span.attributes {
            let text = match one.value.as_ref().unwrap().value.as_ref().unwrap() {
                any_value::Value::StringValue(text) => text.clone(),
                any_value::Value::IntValue(number) => number.to_string(),
                other => panic!("{other:?}"),
            };
            assert_eq!(text, attribute(json, &one.key));
        }
    }
}

/// What is said of a span, as a text.
fn attribute(of: &Value, key: &str) -> String {
    let attributes = of["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|one| one["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key}: {of}"))["value"];
    let text = value.get("stringValue").or_else(|| value.get("intValue"));
    text.unwrap().as_str().unwrap().to_owned()
}

async fn number(node: &Node, outcome: &str) -> u64 {
    let page = ask(node, "GET /metrics HTTP/1.1", "").await;
    let line = format!("tautline_telemetry_spans_total{{outcome=\"{outcome}\"}} ");
    let found = page.lines().find_map(|one| one.strip_prefix(&line));
    found.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

fn yes(_: &Asked) -> Say {
    Say::Json(json!({}))
}

#[test]
fn calls_of_the_api_go_on_with_the_trace_of_their_caller() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let more = "sampling_percent = 0\nheaders = {\"x-key\" = \"secret\"}";
        let node = start(&otlp(&collector.url, more));
        // What isn't kept: without a caller's word, by his word, and of those who may not call.
        call(&node, "info", "{}", None).await;
        call(&node, "info", "{}", Some(format!("00-{TRACE}-{CALLER}-00"))).await;
        call(&node, "info", "{}", Some("nonsense".to_owned())).await;
        let head = format!("POST /api/info HTTP/1.1\r\nTraceparent: 00-{TRACE}-{CALLER}-01");
        assert!(ask(&node, &head, "{}").await.starts_with("HTTP/1.1 401"));
        // And what is.
        let publish = r#"{"channel":"c","data":1}"#;
        assert!(
            call(&node, "publish", publish, sampled())
                .await
                .starts_with("HTTP/1.1 200")
        );
        call(
            &node,
            "publish",
            r#"{"channel":"nope:c","data":1}"#,
            sampled(),
        )
        .await;
        assert!(
            call(&node, "publish", "{", sampled())
                .await
                .starts_with("HTTP/1.1 400")
        );
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        collector.assert_idle();
        assert_eq!(spans.len(), 3, "{spans:?}");
        for span in &spans {
            assert_eq!(span["traceId"], TRACE);
            assert_eq!(span["parentSpanId"], CALLER);
            assert_ne!(span["spanId"], CALLER);
            assert_eq!(span["name"], "POST /api/publish");
            assert_eq!(span["kind"], 2);
            assert_eq!(attribute(span, "http.route"), "/api/publish");
            let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
            assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
            assert!(time("startTimeUnixNano") > 1_700_000_000_000_000_000);
        }
        assert_eq!(spans[0].get("status"), None);
        assert_eq!(spans[1]["status"]["code"], 2);
        assert_eq!(attribute(&spans[1], "error.type"), "102");
        assert_eq!(spans[2]["status"]["code"], 2);
    });
}

#[test]
fn the_backend_is_told_which_trace_its_question_belongs_to() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let mut backend = Backend::start(|asked: &Asked| match asked.body["method"].as_str() {
            Some("fail") => Say::Text(500, "no".to_owned()),
            _ => Say::Json(json!({"result": {"data": 1}})),
        })
        .await;
        let node = start(&format!(
            "[rpc]\nwithout_namespace.proxy_enabled = true\nproxy = {{endpoint = \"{}/rpc?secret=x\"}}\n{}",
            backend.url,
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let mut peer = Peer::connect(&url).await;
        let mut told = Vec::new();
        for method in ["good", "fail"] {
            peer.ask("rpc", json!({"method": method, "data": 1})).await;
            let asked = backend.next().await;
            let field = asked.headers["traceparent"].to_str().unwrap().to_owned();
            assert!(
                field.starts_with("00-") && field.ends_with("-01"),
                "{field}"
            );
            told.push(field);
        }
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        assert_eq!(spans.len(), 2, "{spans:?}");
        for (span, told) in spans.iter().zip(&told) {
            let [trace, id] = ["traceId", "spanId"].map(|key| span[key].as_str().unwrap());
            assert_eq!(*told, format!("00-{trace}-{id}-01"));
            assert_eq!(span.get("parentSpanId"), None);
            assert_eq!(span["name"], "ask rpc");
            assert_eq!(span["kind"], 3);
            assert_eq!(attribute(span, "tautline.proxy.kind"), "rpc");
            let place = attribute(span, "url.full");
            assert!(
                place.starts_with(&backend.url) && !place.contains("secret"),
                "{place}"
            );
        }
        assert_ne!(spans[0]["traceId"], spans[1]["traceId"]);
        assert_eq!(spans[0].get("status"), None);
        assert_eq!(spans[1]["status"]["code"], 2);
    });
}

/// Clients may subscribe, and there is a history.
const CHANNELS: &str = "channel.without_namespace.allow_subscribe_for_client = true\n\
    channel.without_namespace.allow_subscribe_for_anonymous = true\n\
    channel.without_namespace.history_size = 10\nchannel.without_namespace.history_ttl = \"1m\"\n";

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    let named = spans.iter().filter(|span| span["name"] == name);
    named.collect()
}

#[test]
fn what_a_call_publishes_is_followed_to_where_it_is_written() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let more = format!("{CHANNELS}{}", otlp(&collector.url, "sampling_percent = 0"));
        let node = start_with(2, &more);
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let mut peers = Vec::new();
        for _ in 0..9 {
            let mut peer = Peer::connect(&url).await;
            peer.ask("subscribe", json!({"channel": "c"})).await;
            peers.push(peer);
        }
        let publish = r#"{"channel":"c","data":1}"#;
        // Not kept, so not followed; and what nobody hears of.
        call(&node, "publish", publish, None).await;
        let empty = r#"{"channel":"empty","data":1}"#;
        call(&node, "publish", empty, sampled()).await;
        call(&node, "publish", publish, sampled()).await;
        for peer in &mut peers {
            peer.push("pub").await;
            peer.push("pub").await;
        }
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        collector.assert_idle();
        let calls = named(&spans, "POST /api/publish");
        assert_eq!(calls.len(), 2, "{spans:?}");
        let deliveries = named(&spans, "deliver");
        assert_eq!(calls.len() + deliveries.len(), spans.len());
        assert!((1..=2).contains(&deliveries.len()), "{spans:?}");
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        let (mut recipients, mut workers) = (0, Vec::new());
        for span in &deliveries {
            assert_eq!(
                (&span["traceId"], &span["kind"]),
                (&TRACE.into(), &1.into())
            );
            assert_eq!(span["parentSpanId"], calls[1]["spanId"]);
            assert_eq!(attribute(span, "tautline.channel"), "c");
            assert_eq!(attribute(span, "tautline.offset"), "2");
            let count = attribute(span, "tautline.recipients");
            recipients += count.parse::<u64>().unwrap();
            workers.push(attribute(span, "tautline.worker"));
            assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"));
        }
        assert_eq!(recipients, 9);
        workers.dedup();
        assert_eq!(workers.len(), deliveries.len());
    });
}

#[test]
fn of_a_call_that_publishes_much_some_is_followed() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let node = start(&format!("{CHANNELS}{}", otlp(&collector.url, "")));
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let mut peer = Peer::connect(&url).await;
        let channels: Vec<_> = (0..20).map(|number| format!("c{number}")).collect();
        for channel in &channels {
            peer.ask("subscribe", json!({"channel": channel})).await;
        }
        let body = json!({"channels": channels, "data": 1}).to_string();
        call(&node, "broadcast", &body, sampled()).await;
        for _ in &channels {
            peer.push("pub").await;
        }
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        let deliveries = named(&spans, "deliver");
        assert_eq!(deliveries.len(), 16, "{spans:?}");
        for (span, channel) in deliveries.iter().zip(&channels) {
            assert_eq!(attribute(span, "tautline.channel"), *channel);
        }
    });
}

#[test]
fn each_attempt_to_tell_events_is_in_a_trace() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let count = std::sync::atomic::AtomicUsize::new(0);
        let mut backend = Backend::start(move |_: &Asked| {
            match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Say::Text(503, "later".to_owned()),
                _ => Say::Json(json!({})),
            }
        })
        .await;
        let directory = std::env::temp_dir();
        let directory = directory.join(format!("tautline-telemetry-{}", std::process::id()));
        let node = start(&format!(
            "[events]\nenabled = true\nendpoint = \"{}/events\"\ndirectory = {directory:?}\n\
             kinds = [\"connected\"]\nretry_min = \"1ms\"\n{}",
            backend.url,
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let peer = Peer::connect(&url).await;
        let mut told = Vec::new();
        for _ in 0..2 {
            let asked = backend.next().await;
            let field = asked.headers["traceparent"].to_str().unwrap();
            told.push(field.to_owned());
        }
        node.shutdown().await;
        drop(peer);
        let _ = std::fs::remove_dir_all(&directory);
        let mut all = Vec::new();
        while all.len() < 2 {
            all.extend(spans(&mut collector).await);
        }
        for (span, told) in all.iter().zip(&told) {
            let [trace, id] = ["traceId", "spanId"].map(|key| span[key].as_str().unwrap());
            assert_eq!(*told, format!("00-{trace}-{id}-01"));
            assert_eq!(
                (&span["name"], &span["kind"]),
                (&"tell events".into(), &3.into())
            );
            assert_eq!(attribute(span, "tautline.events"), "1");
            assert_eq!(
                attribute(span, "url.full"),
                format!("{}/events", backend.url)
            );
        }
        assert_eq!(all[0]["status"]["code"], 2);
        assert_eq!(all[1].get("status"), None);
        assert_ne!(all[0]["traceId"], all[1]["traceId"]);
    });
}

#[test]
fn without_traces_the_backend_is_told_of_none() {
    run(async {
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"data": 1}}))).await;
        let node = start(&format!(
            "[rpc]\nwithout_namespace.proxy_enabled = true\nproxy = {{endpoint = \"{}/rpc\"}}\n",
            backend.url,
        ));
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let mut peer = Peer::connect(&url).await;
        peer.ask("rpc", json!({"method": "m", "data": 1})).await;
        assert_eq!(backend.next().await.headers.get("traceparent"), None);
        assert!(
            call(&node, "info", "{}", sampled())
                .await
                .starts_with("HTTP/1.1 200")
        );
    });
}

#[test]
fn nobody_waits_for_a_collector_that_does_not_answer() {
    run(async {
        let (gone, _gone) = tokio::sync::mpsc::unbounded_channel();
        let mut collector = Backend::start(move |_: &Asked| Say::Never(gone.clone())).await;
        let node = start(&otlp(&collector.url, "queue_size = 4\ntimeout = \"30s\""));
        call(&node, "info", "{}", sampled()).await;
        // It has the first; what comes from now on waits.
        collector.next().await;
        for _ in 0..10 {
            assert!(
                call(&node, "info", "{}", sampled())
                    .await
                    .starts_with("HTTP/1.1 200")
            );
        }
        assert_eq!(number(&node, "exported").await, 0);
        assert_eq!(number(&node, "dropped").await, 6);
        // And neither does the end, for longer than shutdown.timeout.
        node.shutdown().await;
    });
}

/// A collector that never answers, and a node with these options that has told it something.
async fn unanswered(timeout: &str, more: &str) -> (Node, Backend) {
    let (gone, _) = tokio::sync::mpsc::unbounded_channel();
    let mut collector = Backend::start(move |_: &Asked| Say::Never(gone.clone())).await;
    let config = config_within(timeout, 1, &otlp(&collector.url, more));
    let node = Node::builder(config).start().unwrap();
    call(&node, "info", "{}", sampled()).await;
    collector.next().await;
    (node, collector)
}

/// Two of them, told one after the other: the one with little time is given up and asked again, and the other isn't yet.
#[test]
fn a_collector_has_the_time_of_the_options_to_answer() {
    run(async {
        let (_node, mut collector) = unanswered("3s", "timeout = \"30s\"").await;
        let (_other, mut hasty) = unanswered("3s", "timeout = \"1ms\"").await;
        hasty.next().await;
        collector.assert_idle();
    });
}

/// Nodes whose end waits for a collector: those with little time end, one after the other, and the one with an hour doesn't.
#[test]
fn a_node_has_the_time_of_the_options_to_end() {
    run(async {
        let timeout = "timeout = \"30s\"";
        let (node, _collector) = unanswered("1h", timeout).await;
        let others = async {
            for _ in 0..2 {
                let (other, _collector) = unanswered("1ms", timeout).await;
                other.shutdown().await;
            }
        };
        tokio::select! {
            biased;
            () = node.shutdown() => panic!("it has an hour"),
            () = others => {}
        }
    });
}

#[test]
fn what_a_collector_refuses_is_counted_and_what_it_cannot_take_now_is_sent_again() {
    run(async {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let mut collector = Backend::start(move |_: &Asked| {
            match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Say::Text(503, "later".to_owned()),
                1 => Say::Json(json!({})),
                _ => Say::Text(400, "no".to_owned()),
            }
        })
        .await;
        let node = start(&otlp(&collector.url, ""));
        call(&node, "info", "{}", sampled()).await;
        let first = spans(&mut collector).await;
        assert_eq!(spans(&mut collector).await, first, "again, after a while");
        while number(&node, "exported").await == 0 {}
        assert_eq!(number(&node, "failed").await, 0);
        call(&node, "info", "{}", sampled()).await;
        spans(&mut collector).await;
        while number(&node, "failed").await == 0 {}
        assert_eq!(number(&node, "exported").await, 1);
        collector.assert_idle();
    });
}
