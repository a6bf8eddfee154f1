//! What clients publish by themselves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::backend::{Asked, Backend, Say};
use super::peer::Peer;
use super::run::run;
use super::{CALLER, TRACE, attribute, named, otlp, spans, start, start_with, yes};

const CHANNELS: &str = "channel.without_namespace.allow_subscribe_for_client = true\n\
    channel.without_namespace.allow_subscribe_for_anonymous = true\n\
    channel.without_namespace.allow_publish_for_client = true\n\
    channel.without_namespace.allow_publish_for_anonymous = true\n\
    channel.without_namespace.history_size = 10\nchannel.without_namespace.history_ttl = \"1m\"\n";

pub(super) fn url(node: &tautline::Node) -> String {
    format!("ws://{}/connection/websocket", node.address().unwrap())
}

#[test]
fn what_a_client_publishes_is_followed_to_where_it_is_written() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let more = format!(
            "{CHANNELS}{}",
            otlp(&collector.url, "sampling_percent = 100")
        );
        let node = start_with(2, &more);
        let mut peers = Vec::new();
        for _ in 0..5 {
            let mut peer = Peer::connect(&url(&node)).await;
            peer.ask("subscribe", json!({"channel": "c"})).await;
            peers.push(peer);
        }
        // A stranger has no say in which trace it is.
        let theirs = format!("00-{TRACE}-{CALLER}-00");
        let mut publisher = Peer::open(&url(&node), &[("traceparent", &theirs)]).await;
        let headers = json!({"headers": {"traceparent": theirs}});
        let reply = publisher.ask("connect", headers).await;
        let client = reply["connect"]["client"].as_str().unwrap();
        for channel in ["c", "c", "empty"] {
            let publish = json!({"channel": channel, "data": 1});
            publisher.ask("publish", publish).await;
        }
        for peer in &mut peers {
            peer.push("pub").await;
            peer.push("pub").await;
        }
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        let published = named(&spans, "publish");
        assert_eq!(published.len(), 3, "{spans:?}");
        let traces: BTreeSet<_> = published
            .iter()
            .map(|span| span["traceId"].as_str())
            .collect();
        assert_eq!(traces.len(), 3);
        assert!(!traces.contains(&Some(TRACE)));
        let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        let mut followed = 0;
        for (span, (channel, offset)) in
            published
                .iter()
                .zip([("c", "1"), ("c", "2"), ("empty", "1")])
        {
            assert_eq!((span.get("parentSpanId"), span.get("status")), (None, None));
            assert_eq!(span["kind"], 2);
            assert_eq!(attribute(span, "tautline.channel"), channel);
            assert_eq!(attribute(span, "tautline.client"), client);
            assert_eq!(attribute(span, "tautline.offset"), offset);
            let of_it = named(&spans, "deliver");
            let of_it: Vec<_> = of_it
                .into_iter()
                .filter(|deliver| deliver["parentSpanId"] == span["spanId"])
                .collect();
            let mut recipients = 0;
            for deliver in &of_it {
                assert_eq!(deliver["traceId"], span["traceId"]);
                assert_eq!(attribute(deliver, "tautline.offset"), offset);
                assert!(time(span, "startTimeUnixNano") <= time(deliver, "endTimeUnixNano"));
                let count = attribute(deliver, "tautline.recipients");
                recipients += count.parse::<u64>().unwrap();
            }
            assert_eq!(recipients, if channel == "c" { 5 } else { 0 });
            followed += of_it.len();
        }
        assert_eq!(published.len() + followed, spans.len(), "{spans:?}");
    });
}

#[test]
fn what_comes_to_nothing_says_why() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let backend = Backend::start(|asked: &Asked| match asked.body["data"].as_str() {
            Some("no") => Say::Json(json!({"error": {"code": 1077, "message": "no"}})),
            Some("out") => Say::Json(json!({"disconnect": {"code": 4077, "reason": "no"}})),
            _ => Say::Json(json!({"result": {}})),
        })
        .await;
        let node = start(&format!(
            "{CHANNELS}[channel.proxy.publish]\nendpoint = \"{}/publish\"\n\
             [[channel.namespaces]]\nname = \"asked\"\npublish_proxy_enabled = true\n\
             [[channel.namespaces]]\nname = \"shut\"\n{}",
            backend.url,
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        for (channel, data) in [("shut:1", "yes"), ("asked:1", "no"), ("asked:1", "yes")] {
            peer.ask("publish", json!({"channel": channel, "data": data}))
                .await;
        }
        peer.begin("publish", json!({"channel": "asked:1", "data": "out"}))
            .await;
        assert_eq!(peer.closed().await, 4077);
        node.shutdown().await;
        let mut all = Vec::new();
        while named(&all, "publish").len() < 4 {
            all.extend(spans(&mut collector).await);
        }
        let published = named(&all, "publish");
        let said: Vec<_> = published
            .iter()
            .map(|span| match span["status"]["code"] == 2 {
                true => attribute(span, "error.type"),
                false => String::new(),
            })
            .collect();
        // Where somebody is asked, it is his answer that counts, whatever the options are.
        assert_eq!(said, ["103", "1077", "", "4077"], "{all:?}");
    });
}

#[test]
fn what_is_not_allowed_is_in_no_trace() {
    run(async {
        let mut collector = Backend::start(yes).await;
        let node = start(&format!(
            "{CHANNELS}[[channel.namespaces]]\nname = \"shut\"\n{}",
            otlp(&collector.url, "sampling_percent = 100"),
        ));
        let mut peer = Peer::connect(&url(&node)).await;
        for channel in ["shut:1", "none:1", "c"] {
            peer.ask("publish", json!({"channel": channel, "data": 1}))
                .await;
        }
        node.shutdown().await;
        let spans = spans(&mut collector).await;
        collector.assert_idle();
        let published = named(&spans, "publish");
        assert_eq!(published.len(), 1, "{spans:?}");
        assert_eq!(attribute(published[0], "tautline.channel"), "c");
    });
}

/// The clients of a worker are as many as strangers like.
#[test]
fn of_what_clients_publish_some_is_kept_and_never_too_much() {
    for (percent, least, most) in [(0, 0, 0), (30, 1, 49), (100, 50, 50)] {
        run(async {
            let mut collector = Backend::start(yes).await;
            let more = format!("sampling_percent = {percent}");
            let node = start(&format!("{CHANNELS}{}", otlp(&collector.url, &more)));
            let mut peer = Peer::connect(&url(&node)).await;
            // In one message, which is one turn: there is no time for more.
            let commands = (100..200)
                .map(|id| json!({"id": id, "publish": {"channel": "c", "data": 1}}).to_string());
            peer.send_text(&commands.collect::<Vec<_>>().join("\n"))
                .await;
            peer.find(|message| message["id"] == 199).await;
            super::call(&node, "info", "{}", super::sampled()).await;
            node.shutdown().await;
            let spans = spans(&mut collector).await;
            let count = named(&spans, "publish").len();
            assert!((least..=most).contains(&count), "{percent} {count}");
        });
    }
}
