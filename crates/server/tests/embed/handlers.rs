//! Handlers decide, at once and later, and what they do reaches the client.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tautline::{
    Client, Config, ConnectEvent, ConnectReply, Disconnect, DisconnectEvent, ErrorCode, Handler,
    HandlerOptions, Interests, MessageEvent, Node, PublishEvent, PublishReply, Refusal, RpcEvent,
    RpcReply, SubscribeEvent, SubscribeReply, UnsubscribeEvent,
};
use tokio::sync::{Notify, mpsc};

use super::{CONFIG, config, run, start, url};
use crate::peer::Peer;

/// Does a bit of everything.
struct Everything {
    told: mpsc::UnboundedSender<String>,
    /// Told when a handler that never ends is dropped.
    dropped: mpsc::UnboundedSender<String>,
}

struct TellDrop(mpsc::UnboundedSender<String>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.send("dropped".to_owned());
    }
}

impl Everything {
    fn tell(&self, what: impl Into<String>) {
        self.told.send(what.into()).unwrap();
    }
}

impl Handler for Everything {
    async fn on_connecting(
        &self,
        client: &Client,
        event: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        assert!(event.permitted && client.request().remote.is_some());
        match client.request().cookie("user") {
            Some("evil") => Err(Refusal::disconnect(4500, "go away")),
            Some(user) => {
                // As if a database were asked: not answered at once.
                tokio::task::yield_now().await;
                Ok(ConnectReply {
                    data: Some(json!({"hello": user}).to_string().into()),
                    meta: Some("1".into()),
                    ..ConnectReply::user(user)
                })
            }
            None => Ok(ConnectReply::default()),
        }
    }

    async fn on_connect(&self, client: &Client) {
        self.tell(format!("connected {:?} {:?}", client.user(), client.meta()));
    }

    async fn on_subscribe(
        &self,
        client: &Client,
        event: SubscribeEvent,
    ) -> Result<SubscribeReply, Refusal> {
        if event.channel == "members" && client.user().is_empty() {
            return Err(Refusal::error(403, "members only"));
        }
        Ok(SubscribeReply {
            data: event.data,
            ..SubscribeReply::default()
        })
    }

    async fn on_publish(
        &self,
        client: &Client,
        event: PublishEvent,
    ) -> Result<PublishReply, Refusal> {
        // Publishes by itself, under another name.
        let publish = tautline::Publish {
            channel: event.channel.to_string(),
            data: json!({"from": client.user()}).to_string().into(),
            ..tautline::Publish::default()
        };
        client.node().publish(publish).await?;
        Ok(PublishReply::Done)
    }

    async fn on_rpc(&self, client: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
        match &*call.method {
            "echo" => Ok(RpcReply { data: call.data }),
            "later" => {
                tokio::task::yield_now().await;
                Ok(format!("{:?}", client.user()).into())
            }
            "busy" => Err(Refusal::temporary(1503, "later")),
            "panic" => panic!("a handler that panics"),
            "panic later" => {
                tokio::task::yield_now().await;
                panic!("a handler that panics later")
            }
            "never" => {
                let _tell = TellDrop(self.dropped.clone());
                self.tell("begun");
                pending().await
            }
            _ => Err(ErrorCode::MethodNotFound.into()),
        }
    }

    async fn on_message(&self, client: &Client, message: MessageEvent) -> Result<(), Disconnect> {
        client.send(message.data);
        Ok(())
    }

    async fn on_unsubscribe(&self, _: &Client, event: UnsubscribeEvent) {
        self.tell(format!("unsubscribed {} {}", event.channel, event.code));
    }

    async fn on_disconnect(&self, client: &Client, event: DisconnectEvent) {
        // Not at once, so that a node that ends has to wait for it.
        turns(20).await;
        let code = event.disconnect.code;
        self.tell(format!("gone {:?} {code}", client.user()));
    }
}

/// Lets the others of the thread have so many turns.
async fn turns(number: usize) {
    for _ in 0..number {
        tokio::task::yield_now().await;
    }
}

struct Told(mpsc::UnboundedReceiver<String>);

impl Told {
    async fn next(&mut self) -> String {
        self.0.recv().await.unwrap()
    }
}

fn everything() -> (Everything, Told, Told) {
    let (told, hear) = mpsc::unbounded_channel();
    let (dropped, hear_dropped) = mpsc::unbounded_channel();
    (Everything { told, dropped }, Told(hear), Told(hear_dropped))
}

#[test]
fn what_handlers_decide_reaches_the_client() {
    run(async {
        let (handler, mut told, _) = everything();
        let node = start(handler);
        let mut ann = Peer::open(&url(&node), &[("Cookie", "user=ann")]).await;
        let reply = ann.ask("connect", json!({})).await;
        assert_eq!(reply["connect"]["data"], json!({"hello": "ann"}));
        assert_eq!(told.next().await, r#"connected "ann" Some(b"1")"#);

        let request = json!({"channel": "members", "data": [1]});
        let reply = ann.ask("subscribe", request).await;
        assert_eq!(reply["subscribe"]["data"], json!([1]));
        ann.ask("publish", json!({"channel": "members", "data": "x"}))
            .await;
        assert_eq!(ann.push("pub").await["data"], json!({"from": "ann"}));

        let echo = json!({"method": "echo", "data": {"a": [1]}});
        assert_eq!(ann.ask("rpc", echo).await["rpc"]["data"], json!({"a": [1]}));
        let reply = ann.ask("rpc", json!({"method": "later"})).await;
        assert_eq!(reply["rpc"]["data"], json!("ann"));
        let reply = ann.ask("rpc", json!({"method": "busy"})).await;
        let busy = json!({"code": 1503, "message": "later", "temporary": true});
        assert_eq!(reply["error"], busy);
        let reply = ann.ask("rpc", json!({"method": "nothing"})).await;
        assert_eq!(reply["error"]["code"], json!(104));

        ann.send(&json!({"send": {"data": {"n": 1}}})).await;
        assert_eq!(ann.push("message").await["data"], json!({"n": 1}));
        drop(ann);
        assert_eq!(told.next().await, "unsubscribed members 1");
        assert_eq!(told.next().await, r#"gone "ann" 3000"#);

        let mut stranger = Peer::connect(&url(&node)).await;
        let reply = stranger
            .ask("subscribe", json!({"channel": "members"}))
            .await;
        assert_eq!(
            reply["error"],
            json!({"code": 403, "message": "members only"})
        );
        let mut evil = Peer::open(&url(&node), &[("Cookie", "user=evil")]).await;
        evil.begin("connect", json!({})).await;
        assert_eq!(evil.closed().await, 4500);
    });
}

/// Whatever the handler would say to a method of that name.
#[test]
fn the_servers_own_method_goes_before_the_handler() {
    run(async {
        let (handler, _told, _) = everything();
        let config = format!("{CONFIG}\n[rpc.ping]\nenabled = true\nmethod = \"echo\"\n");
        let builder = Node::builder(Config::from_toml(&config).unwrap());
        let node = builder.handler(handler).start().unwrap();
        let mut peer = Peer::connect(&url(&node)).await;
        let reply = peer.ask("rpc", json!({"method": "echo", "data": 1})).await;
        assert_eq!(reply["rpc"], json!({}), "{reply}");
        let reply = peer.ask("rpc", json!({"method": "later"})).await;
        assert_eq!(reply["rpc"]["data"], json!(""), "{reply}");
        let reply = peer.ask("rpc", json!({"method": "nothing"})).await;
        assert_eq!(reply["error"]["code"], json!(104), "the handler's word");
    });
}

#[test]
fn a_handler_that_panics_harms_nobody_else() {
    run(async {
        let (handler, ..) = everything();
        let node = start(handler);
        let mut peer = Peer::connect(&url(&node)).await;
        for method in ["panic", "panic later"] {
            let reply = peer.ask("rpc", json!({"method": method})).await;
            assert_eq!(reply["error"]["code"], json!(100), "{method}");
            assert_eq!(reply["error"]["temporary"], json!(true), "{method}");
        }
        let reply = peer.ask("rpc", json!({"method": "echo", "data": 1})).await;
        assert_eq!(reply["rpc"]["data"], json!(1));
    });
}

#[test]
fn what_takes_too_long_is_dropped_and_so_is_what_nobody_waits_for() {
    run(async {
        let (handler, mut told, mut dropped) = everything();
        let options = HandlerOptions {
            timeout: Duration::from_millis(200),
            ..HandlerOptions::default()
        };
        let node = Node::builder(config()).handler(handler).limits(options);
        let node = node.start().unwrap();
        let mut peer = Peer::connect(&url(&node)).await;
        told.next().await;
        let reply = peer.ask("rpc", json!({"method": "never"})).await;
        assert_eq!(reply["error"]["code"], json!(100));
        assert_eq!(
            (told.next().await, dropped.next().await),
            ("begun".into(), "dropped".into())
        );
        peer.begin("rpc", json!({"method": "never"})).await;
        assert_eq!(told.next().await, "begun");
        drop(peer);
        assert_eq!(dropped.next().await, "dropped");
    });
}

#[test]
fn a_node_that_ends_waits_for_the_last_goodbyes() {
    run(async {
        let (handler, mut told, _) = everything();
        let node = start(handler);
        let mut peer = Peer::connect(&url(&node)).await;
        told.next().await;
        let handle = node.handle().clone();
        let (code, ()) = tokio::join!(peer.closed(), node.shutdown());
        assert_eq!(code, 3001);
        assert_eq!(told.next().await, r#"gone "" 3001"#);
        let error = handle.publish(tautline::Publish {
            channel: "a".into(),
            data: "1".into(),
            ..tautline::Publish::default()
        });
        assert_eq!(
            error.await.unwrap_err().code,
            100,
            "nobody is there any more"
        );
        drop(handle);
        assert_eq!(told.0.recv().await, None, "nothing of the handler is left");
    });
}

/// Which thread a handler runs on.
struct Where(Interests);

impl Handler for Where {
    fn interests(&self) -> Interests {
        self.0
    }

    async fn on_rpc(&self, _: &Client, _: RpcEvent) -> Result<RpcReply, Refusal> {
        let thread = std::thread::current();
        Ok(format!("{:?}", thread.name().unwrap_or_default()).into())
    }

    async fn on_subscribe(&self, _: &Client, _: SubscribeEvent) -> Result<SubscribeReply, Refusal> {
        panic!("nobody asked for this")
    }
}

#[test]
fn handlers_run_on_the_worker_or_where_they_are_told_to() {
    run(async {
        let node = start(Where(Interests::RPC));
        let mut peer = Peer::connect(&url(&node)).await;
        let reply = peer.ask("rpc", json!({"method": "m"})).await;
        let thread = reply["rpc"]["data"].as_str().unwrap();
        assert!(thread.starts_with("worker-"), "{thread}");
        let reply = peer.ask("subscribe", json!({"channel": "a"})).await;
        assert!(
            reply["subscribe"].is_object(),
            "by the options alone: {reply}"
        );

        let builder = Node::builder(config()).handler(Where(Interests::RPC));
        let node = builder.runtime(tokio::runtime::Handle::current());
        let node = node.start().unwrap();
        let mut peer = Peer::connect(&url(&node)).await;
        let reply = peer.ask("rpc", json!({"method": "m"})).await;
        let thread = reply["rpc"]["data"].as_str().unwrap();
        assert!(!thread.starts_with("worker-"), "{thread}");
    });
}

/// Calls side by side, messages one after the other.
#[derive(Default)]
struct Order {
    quick: Notify,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Handler for Order {
    async fn on_rpc(&self, _: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
        // The slow one ends by nothing but the quick one, which comes after it.
        match &*call.method {
            "slow" => self.quick.notified().await,
            _ => self.quick.notify_one(),
        }
        Ok(().into())
    }

    async fn on_message(&self, _: &Client, message: MessageEvent) -> Result<(), Disconnect> {
        let text = String::from_utf8(message.data.to_vec()).unwrap();
        // The later, the sooner: side by side they would end the other way round.
        turns(10 * (10 - text.parse::<usize>().unwrap())).await;
        self.heard.lock().unwrap().push(text);
        Ok(())
    }
}

#[test]
fn calls_run_side_by_side_and_messages_one_after_the_other() {
    run(async {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let node = start(Order {
            heard: Arc::clone(&heard),
            ..Order::default()
        });
        let mut peer = Peer::connect(&url(&node)).await;
        let slow = peer.begin("rpc", json!({"method": "slow"})).await;
        let quick = peer.begin("rpc", json!({"method": "quick"})).await;
        let first = peer.find(|message| message["rpc"].is_object()).await;
        let second = peer.find(|message| message["rpc"].is_object()).await;
        assert_eq!((&first["id"], &second["id"]), (&json!(quick), &json!(slow)));
        for number in 1..=9 {
            peer.send(&json!({"send": {"data": number}})).await;
        }
        // Behind all of them.
        peer.ask("unsubscribe", json!({"channel": "a"})).await;
        let all: Vec<_> = (1..=9).map(|number| number.to_string()).collect();
        assert_eq!(*heard.lock().unwrap(), all);
    });
}
