//! What the application's backend is asked: which trace that is in, and that the backend is told of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::backend::{Asked, Backend, Say};
use super::peer::Peer;
use super::run::run;
use super::{named, otlp, spans, start, yes};

/// Unix time has whole seconds, so what waits for this takes some.
fn soon() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() + 2
}

fn traceparent(asked: &Asked) -> String {
    asked.headers["traceparent"].to_str().unwrap().to_owned()
}

/// What the backend must have been told within that span.
fn told_of(span: &Value) -> String {
    let id = |key: &str| span[key].as_str().unwrap();
    format!("00-{}-{}-01", id("traceId"), id("spanId"))
}

/// A namespace in which the backend is asked who may publish.
fn asks_who_publishes(url: &str) -> String {
    format!(
        "[channel.proxy.publish]\nendpoint = \"{url}/publish\"\n\
         [[channel.namespaces]]\nname = \"asked\"\npublish_proxy_enabled = true\n"
    )
}

#[test]
fn of_a_publication_it_is_within_its_span() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let mut backend = Backend::start(|asked: &Asked| match asked.body["data"].as_str() {
            Some("no") => Say::Json(json!({"error": {"code": 1077, "message": "no"}})),
            Some("fail") => Say::Text(500, "no".to_owned()),
            _ => Say::Json(json!({"result": {}})),
        })
        .await;
        let node = start(&format!(
            "{}{}",
            asks_who_publishes(&backend.url),
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let mut peer = Peer::connect(&super::clients::url(&node)).await;
        let mut told = Vec::new();
        for data in ["yes", "no", "fail"] {
            peer.ask("publish", json!({"channel": "asked:1", "data": data}))
                .await;
            told.push(traceparent(&backend.next().await));
        }
        node.shutdown().await;
        let mut all = Vec::new();
        while all.len() < 6 {
            all.extend(spans(&mut collector).await);
        }
        let (published, asked) = (named(&all, "publish"), named(&all, "ask publish"));
        assert_eq!((published.len(), asked.len()), (3, 3), "{all:?}");
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        for ((publish, ask), told) in published.iter().zip(&asked).zip(&told) {
            assert_eq!(ask["traceId"], publish["traceId"]);
            assert_eq!(ask["parentSpanId"], publish["spanId"]);
            assert_eq!(publish.get("parentSpanId"), None);
            assert_eq!(ask["kind"], 3);
            assert_eq!(*told, told_of(ask));
            assert!(time(publish, "startTimeUnixNano") <= time(ask, "startTimeUnixNano"));
        }
        let failed: Vec<_> = asked
            .iter()
            .map(|ask| ask.get("status").is_some())
            .collect();
        assert_eq!(failed, [false, false, true]);
    });
}

/// Both or neither: what was decided for a publication holds for what is asked about it.
#[test]
fn of_a_publication_that_is_not_kept_it_is_not_kept() {
    for (percent, kept) in [(100, 50), (0, 0)] {
        run(async {
            let mut collector = Backend::start(yes).await;
            let mut backend = Backend::start(|_: &Asked| Say::Json(json!({"result": {}}))).await;
            let more = format!("sampling_percent = {percent}");
            let node = start(&format!(
                "{}{}",
                asks_who_publishes(&backend.url),
                otlp(&collector.url, &more),
            ));
            // Of one worker 50 are kept in a second: each from a connection of its own is asked at once.
            let mut peers = Vec::new();
            for _ in 0..60 {
                peers.push(Peer::connect(&super::clients::url(&node)).await);
            }
            let publish = json!({"channel": "asked:1", "data": 1});
            for peer in &mut peers {
                peer.begin("publish", publish.clone()).await;
            }
            let mut told = Vec::new();
            for _ in &peers {
                told.push(traceparent(&backend.next().await));
            }
            super::call(&node, "info", "{}", super::sampled()).await;
            node.shutdown().await;
            let mut all = Vec::new();
            while named(&all, "POST /api/info").is_empty() {
                all.extend(spans(&mut collector).await);
            }
            let parents: BTreeMap<_, _> = named(&all, "publish")
                .into_iter()
                .map(|span| (span["spanId"].as_str(), &span["traceId"]))
                .collect();
            let asked = named(&all, "ask publish");
            for ask in &asked {
                let parent = parents[&ask["parentSpanId"].as_str()];
                assert_eq!(ask["traceId"], *parent);
                assert!(told.contains(&told_of(ask)));
            }
            assert_eq!(asked.len(), parents.len());
            let is_kept = told.iter().filter(|told| told.ends_with("-01")).count();
            let is_not = told.iter().filter(|told| told.ends_with("-00")).count();
            assert_eq!((is_kept, is_kept + is_not), (asked.len(), peers.len()));
            // Where more than a second has passed, there may be more of them.
            assert!(
                is_kept >= kept && (percent > 0 || is_kept == 0),
                "{is_kept}"
            );
        });
    }
}

/// There is no span that these could be within: strangers would decide what is kept.
#[test]
fn of_all_else_it_is_in_a_trace_of_its_own() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let told = std::sync::Arc::new(Mutex::new(BTreeMap::new()));
        let heard = std::sync::Arc::clone(&told);
        let backend = Backend::start(move |asked: &Asked| {
            let kind = asked.headers["tautline-event"].to_str().unwrap().to_owned();
            let mut heard = heard.lock().unwrap();
            heard
                .entry(kind.clone())
                .or_insert_with(Vec::new)
                .push(traceparent(asked));
            Say::Json(json!({"result": match &*kind {
                // After the subscription: it goes with it.
                "connect" => json!({"user": "7", "expire_at": soon() + 1}),
                "subscribe" => json!({"expire_at": soon()}),
                "rpc" => json!({"data": 1}),
                _ => json!({"expired": true}),
            }}))
        })
        .await;
        let url = &backend.url;
        let node = start(&format!(
            "[client.proxy]\nconnect = {{enabled = true, endpoint = \"{url}\"}}\n\
             refresh = {{enabled = true, endpoint = \"{url}\"}}\n\
             [channel.proxy]\nsubscribe = {{endpoint = \"{url}\"}}\nsub_refresh = {{endpoint = \"{url}\"}}\n\
             [[channel.namespaces]]\nname = \"asked\"\nsubscribe_proxy_enabled = true\nsub_refresh_proxy_enabled = true\n\
             [rpc]\nwithout_namespace.proxy_enabled = true\nproxy = {{endpoint = \"{url}\"}}\n{}",
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let theirs = format!("00-{}-{}-01", super::TRACE, super::CALLER);
        let mut peer = Peer::open(&super::clients::url(&node), &[("traceparent", &theirs)]).await;
        peer.ask("connect", json!({"headers": {"traceparent": theirs}}))
            .await;
        peer.ask("subscribe", json!({"channel": "asked:1"})).await;
        peer.ask("rpc", json!({"method": "m", "data": 1})).await;
        assert_eq!(peer.closed().await, 3005);
        node.shutdown().await;
        let told = std::mem::take(&mut *told.lock().unwrap());
        let kinds: Vec<_> = told.keys().map(String::as_str).collect();
        assert_eq!(
            kinds,
            ["connect", "refresh", "rpc", "sub_refresh", "subscribe"]
        );
        let mut all = Vec::new();
        while all.len() < told.values().map(Vec::len).sum() {
            all.extend(spans(&mut collector).await);
        }
        for (kind, told) in &told {
            let asked = named(&all, &format!("ask {kind}"));
            let expected: Vec<_> = asked.iter().map(|span| told_of(span)).collect();
            assert_eq!(*told, expected, "{kind}");
            for span in asked {
                assert_eq!(span.get("parentSpanId"), None, "{kind}");
                assert_ne!(span["traceId"], super::TRACE);
            }
        }
    });
}
