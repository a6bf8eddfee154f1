//! What an application does with a running node.

use serde_json::json;
use tautline::protocol::UnsubscribeCode;
use tautline::{
    Disconnect, Handler, HistoryQuery, Node, PresenceQuery, Publish, RefreshCall, SubscribeCall,
    Target,
};

use super::{config, run, start, url};
use crate::peer::Peer;

struct Nothing;

impl Handler for Nothing {}

fn publish(channel: &str, data: &str) -> Publish {
    Publish {
        channel: channel.into(),
        data: data.to_owned().into(),
        ..Publish::default()
    }
}

fn everybody() -> Target {
    Target {
        user: Some(String::new()),
        ..Target::default()
    }
}

#[test]
fn a_handle_publishes_reads_and_ends_from_any_thread() {
    run(async {
        let node = start(Nothing);
        let handle = node.handle().clone();
        let mut peer = Peer::connect(&url(&node)).await;
        peer.ask("subscribe", json!({"channel": "news"})).await;

        let outcome = handle.publish(publish("news", "1")).await.unwrap();
        assert_eq!(outcome.position.unwrap().offset, 1);
        assert_eq!(peer.push("pub").await["data"], json!(1));
        let channels = vec!["news".to_owned(), "nowhere:a".to_owned()];
        let outcomes = handle.broadcast(channels, &publish("", "2")).await;
        assert!(outcomes[0].is_ok());
        assert_eq!(outcomes[1].as_ref().unwrap_err().code, 102);
        assert_eq!(peer.push("pub").await["data"], json!(2));

        let query = PresenceQuery {
            channel: "news".into(),
            ..PresenceQuery::default()
        };
        assert_eq!(handle.presence(query).await.unwrap().presence.len(), 1);
        let stats = handle.presence_stats("news").await.unwrap();
        assert_eq!((stats.num_clients, stats.num_users), (1, 1));
        let query = HistoryQuery {
            channel: "news".into(),
            limit: Some(10),
            ..HistoryQuery::default()
        };
        let history = handle.history(query).await.unwrap();
        assert_eq!(history.publications.len(), 2);
        handle.history_remove("news").await.unwrap();
        assert_eq!(handle.info().await.num_clients, 1);

        let call = SubscribeCall {
            channel: "promo".into(),
            ..SubscribeCall::default()
        };
        handle.subscribe(everybody(), call).await.unwrap();
        peer.push("subscribe").await;
        let code = UnsubscribeCode::Server.into();
        handle
            .unsubscribe(everybody(), "promo", code)
            .await
            .unwrap();
        assert_eq!(peer.push("unsubscribe").await["code"], json!(2000));
        handle
            .refresh(everybody(), RefreshCall::default())
            .await
            .unwrap();
        peer.push("refresh").await;
        let why = Disconnect::FORCE_RECONNECT;
        handle
            .disconnect(everybody(), Vec::new(), why)
            .await
            .unwrap();
        assert_eq!(peer.closed().await, 3011);
    });
}

#[test]
fn what_was_published_keeps_its_order_though_nobody_waits() {
    run(async {
        let node = Node::builder(config()).start().unwrap();
        let mut peer = Peer::connect(&url(&node)).await;
        peer.ask("subscribe", json!({"channel": "news"})).await;
        for number in 0..500 {
            drop(node.handle().publish(publish("news", &number.to_string())));
        }
        for number in 0..500 {
            assert_eq!(peer.push("pub").await["data"], json!(number));
        }
    });
}

#[test]
fn a_node_that_is_dropped_ends() {
    run(async {
        let node = start(Nothing);
        let mut peer = Peer::connect(&url(&node)).await;
        drop(node);
        assert_eq!(peer.closed().await, 3001);
    });
}

#[test]
fn a_handle_revokes() {
    run(async {
        let node = start(Nothing);
        let handle = node.handle().clone();
        let revoke = tautline::Revoke::User {
            user: "7".into(),
            issued_before: Some(5),
            expire_at: None,
        };
        let revoked = handle.revoke(revoke).await.unwrap();
        assert_eq!((revoked.connections, revoked.persisted), (0, false));
        let nobody = tautline::Revoke::Token {
            uid: String::new(),
            expire_at: None,
        };
        assert_eq!(handle.revoke(nobody).await.unwrap_err().code, 107);
    });
}
