//! Traces that go elsewhere from some time on, or nowhere: none is lost by that.

use serde_json::{Value, json};

use super::backend::{Asked, Backend, Say};
use super::peer::Peer;
use super::run::run;
use super::{call, config, number, otlp, sampled, spans, spans_of, start, yes};

#[test]
fn a_reload_has_traces_go_elsewhere_and_those_that_wait_go_where_they_were_to() {
    run(async {
        let (mut one, mut other) = (Backend::start(yes).await, Backend::start(yes).await);
        let mut backend =
            Backend::start(|_: &Asked| Say::Json(json!({"result": {"data": 1}}))).await;
        let asks = format!(
            "[rpc]\nwithout_namespace.proxy_enabled = true\nproxy = {{endpoint = \"{}/rpc\"}}\n",
            backend.url
        );
        let to = |url: &str, more: &str| format!("{asks}{}", otlp(url, more));
        let node = start(&to(&one.url, "sampling_percent = 100"));
        let reload = async |more: &str| {
            let changed = node.handle().reconfigure(config(1, more)).await;
            changed.unwrap();
        };
        let url = format!("ws://{}/connection/websocket", node.address().unwrap());
        let mut peer = Peer::connect(&url).await;
        call(&node, "info", "{}", None).await;
        reload(&to(
            &other.url,
            "sampling_percent = 100\nheaders = {\"x-key\" = \"secret\"}",
        ))
        .await;
        // One endpoint of the backend is as it was, but for where traces of it go.
        peer.ask("rpc", json!({"method": "m", "data": 1})).await;
        assert!(backend.next().await.headers.contains_key("traceparent"));
        assert_eq!(spans(&mut one).await[0]["name"], "POST /api/info");
        let asked = other.next().await;
        assert_eq!(asked.headers["x-key"], "secret");
        let span = &asked.body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["name"], "ask rpc");
        while number(&node, "exported").await < 2 {
            tokio::task::yield_now().await;
        }
        // None that begin here; then none at all.
        reload(&to(&other.url, "sampling_percent = 0")).await;
        call(&node, "info", "{}", None).await;
        call(&node, "publish", "{", sampled()).await;
        reload("").await;
        call(&node, "info", "{}", sampled()).await;
        peer.ask("rpc", json!({"method": "m", "data": 1})).await;
        assert_eq!(spans(&mut other).await[0]["name"], "POST /api/publish");
        reload(&otlp(&one.url, "service_name = \"tautline\"")).await;
        call(&node, "history", "{}", sampled()).await;
        node.shutdown().await;
        let last = spans(&mut one).await;
        assert_eq!(last.len(), 1, "{last:?}");
        assert_eq!(last[0]["name"], "POST /api/history");
        one.assert_idle();
        other.assert_idle();
    });
}

fn names(spans: &[Value]) -> Vec<&str> {
    let names = spans.iter().map(|span| span["name"].as_str().unwrap());
    names.collect()
}

/// Who sets another endpoint because the first doesn't work has the spans that were waiting there.
#[test]
fn what_the_old_place_does_not_take_goes_to_the_new_one() {
    run(async {
        let mut old = Backend::start(|_: &Asked| Say::Text(503, "away".to_owned())).await;
        let mut new = Backend::start(yes).await;
        let node = start(&otlp(&old.url, ""));
        for _ in 0..3 {
            call(&node, "info", "{}", sampled()).await;
        }
        let elsewhere = config(1, &otlp(&new.url, ""));
        node.handle().reconfigure(elsewhere).await.unwrap();
        call(&node, "history", "{}", sampled()).await;
        let mut all = Vec::new();
        while all.len() < 4 {
            all.extend(spans(&mut new).await);
        }
        let mut names = names(&all);
        names.sort_unstable();
        let info = "POST /api/info";
        assert_eq!(names, ["POST /api/history", info, info, info]);
        old.next().await;
        while number(&node, "exported").await < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(number(&node, "failed").await, 0);
        assert_eq!(number(&node, "dropped").await, 0);
    });
}

/// The process may end when the node has.
#[test]
fn a_node_that_is_stopped_has_sent_what_waits_for_all_places() {
    for elsewhere in [true, false] {
        run(async {
            let (mut old, mut new) = (Backend::start(yes).await, Backend::start(yes).await);
            let node = start(&otlp(&old.url, ""));
            call(&node, "info", "{}", sampled()).await;
            let text = match elsewhere {
                true => otlp(&new.url, ""),
                false => String::new(),
            };
            let reloaded = node.handle().reconfigure(config(1, &text)).await;
            reloaded.unwrap();
            call(&node, "history", "{}", sampled()).await;
            node.shutdown().await;
            assert_eq!(names(&spans_of(&old.has_come())), ["POST /api/info"]);
            if elsewhere {
                assert_eq!(names(&spans_of(&new.has_come())), ["POST /api/history"]);
            }
            old.assert_idle();
            new.assert_idle();
        });
    }
}

/// The same where a place is away: what waits for it is sent to the one of now, in time.
#[test]
fn a_node_that_is_stopped_does_not_wait_for_a_place_that_is_away() {
    run(async {
        let (gone, _gone) = tokio::sync::mpsc::unbounded_channel();
        let mut old = Backend::start(move |_: &Asked| Say::Never(gone.clone())).await;
        let mut new = Backend::start(yes).await;
        let node = start(&otlp(&old.url, "timeout = \"30s\""));
        call(&node, "info", "{}", sampled()).await;
        old.next().await;
        let elsewhere = config(1, &otlp(&new.url, ""));
        node.handle().reconfigure(elsewhere).await.unwrap();
        node.shutdown().await;
        assert_eq!(names(&spans_of(&new.has_come())), ["POST /api/info"]);
        // It may have been taken there: it wasn't sent once more before there was no time left.
        old.assert_idle();
        new.assert_idle();
    });
}
