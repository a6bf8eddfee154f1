//! Calls of the application's backend, over the HTTP API, which a handler answers.

use std::future::pending;
use std::time::Duration;

use serde_json::{Value, json};
use tautline::{
    ApiRpcEvent, Config, Error, ErrorCode, Handler, HandlerOptions, Interests, Node, NodeBuilder,
    NodeHandle, Publish, RpcReply,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{CONFIG, run, url};
use crate::peer::Peer;

struct Backend {
    /// Told when a handler that never ends has begun, and when it is dropped.
    told: mpsc::UnboundedSender<&'static str>,
}

struct TellDrop(mpsc::UnboundedSender<&'static str>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

impl Handler for Backend {
    // Of clients it wants to know nothing.
    fn interests(&self) -> Interests {
        Interests::NONE
    }

    async fn on_api_rpc(&self, node: &NodeHandle, call: ApiRpcEvent) -> Result<RpcReply, Error> {
        match &*call.method {
            "echo" => Ok(RpcReply { data: call.params }),
            "nothing" => Ok(().into()),
            "announce" => {
                let publish = Publish {
                    channel: "news".into(),
                    data: call.params.unwrap_or_default(),
                    ..Publish::default()
                };
                let outcome = node.publish(publish).await?;
                let offset = outcome.position.map(|position| position.offset);
                Ok(json!({"offset": offset}).to_string().into())
            }
            "refuse" => Err(Error {
                code: 1000,
                message: "no such order".into(),
                temporary: false,
            }),
            "nonsense" => Ok("{\"half\":".into()),
            "panic" => panic!("as the test wants it"),
            "hang" => {
                let _ = self.told.send("begun");
                let _dropped = TellDrop(self.told.clone());
                pending().await
            }
            _ => Err(ErrorCode::MethodNotFound.into()),
        }
    }
}

/// A node with such a backend, and who hears of its handlers.
fn node(
    change: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> (Node, mpsc::UnboundedReceiver<&'static str>) {
    let config = Config::from_toml(&format!("{CONFIG}\n[http_api]\nkey = \"k\"\n")).unwrap();
    let (told, heard) = mpsc::unbounded_channel();
    let builder = change(Node::builder(config)).handler(Backend { told });
    (builder.start().unwrap(), heard)
}

async fn post(node: &Node, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address().unwrap()).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Status and body.
async fn call(node: &Node, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = post(node, path, headers, body).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

const KEY: &str = "X-API-Key: k\r\n";

async fn rpc(node: &Node, body: &str) -> String {
    let (status, answer) = call(node, "/api/rpc", KEY, body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The code of a method's error.
async fn error(node: &Node, method: &str) -> u64 {
    let error = told(node, method).await;
    error["code"].as_u64().unwrap_or_else(|| panic!("{error}"))
}

/// A method's error.
async fn told(node: &Node, method: &str) -> Value {
    let answer = rpc(node, &json!({"method": method}).to_string()).await;
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    answer["error"].take()
}

/// What holds wherever handlers run.
async fn calls_are_answered(node: &Node) {
    // What is sent keeps its bytes.
    let echoed = rpc(
        node,
        r#"{"method":"echo","params":{"b": 1.50, "a":"\u0061"}}"#,
    )
    .await;
    assert_eq!(echoed, r#"{"result":{"data":{"b": 1.50, "a":"\u0061"}}}"#);
    assert_eq!(rpc(node, r#"{"method":"echo"}"#).await, r#"{"result":{}}"#);
    assert_eq!(
        rpc(node, r#"{"method":"nothing"}"#).await,
        r#"{"result":{}}"#
    );

    let mut peer = Peer::connect(&url(node)).await;
    peer.ask("subscribe", json!({"channel": "news"})).await;
    let answer = rpc(node, r#"{"method":"announce","params":"hello"}"#).await;
    assert_eq!(answer, r#"{"result":{"data":{"offset":1}}}"#);
    assert_eq!(peer.push("pub").await["data"], json!("hello"));

    let refused = rpc(node, r#"{"method":"refuse"}"#).await;
    let expected = r#"{"error":{"code":1000,"message":"no such order"}}"#;
    assert_eq!(refused, expected);
    let missing = rpc(node, r#"{"method":"missing"}"#).await;
    assert_eq!(missing, r#"{"error":{"code":104,"message":"not found"}}"#);
    for (method, code) in [("nonsense", 100), ("panic", 100), ("", 107), ("echo ", 104)] {
        assert_eq!(error(node, method).await, code, "{method}");
    }

    let batch =
        r#"{"commands":[{"rpc":{"method":"echo","params":1}},{"rpc":{"method":"refuse"}}]}"#;
    let (_, replies) = call(node, "/api/batch", KEY, batch).await;
    let expected =
        r#"{"replies":[{"rpc":{"data":1}},{"error":{"code":1000,"message":"no such order"}}]}"#;
    assert_eq!(replies, expected);
    let mode = format!("{KEY}X-Centrifugo-Error-Mode: transport\r\n");
    let (status, _) = call(node, "/api/rpc", &mode, r#"{"method":"missing"}"#).await;
    assert_eq!(status, 404);
    let (status, _) = call(node, "/api/rpc", "", r#"{"method":"echo"}"#).await;
    assert_eq!(status, 401, "nobody calls without a key");
}

#[test]
fn calls_reach_the_handler_and_what_it_does_reaches_clients() {
    run(async {
        let (node, _) = node(|builder| builder);
        calls_are_answered(&node).await;
    });
}

#[test]
fn calls_are_answered_on_a_runtime_of_the_application_too() {
    run(async {
        let runtime = tokio::runtime::Handle::current();
        let (node, _) = node(|builder| builder.runtime(runtime));
        calls_are_answered(&node).await;
    });
}

#[test]
fn a_handler_that_takes_too_long_is_dropped() {
    run(async {
        let (node, mut heard) = node(|builder| {
            builder.limits(HandlerOptions {
                timeout: Duration::from_millis(20),
                ..HandlerOptions::default()
            })
        });
        assert_eq!(error(&node, "hang").await, 100);
        assert_eq!(heard.recv().await, Some("begun"));
        assert_eq!(heard.recv().await, Some("dropped"));
    });
}

#[test]
fn a_backend_that_hangs_up_ends_its_call_and_makes_room() {
    run(async {
        let (node, mut heard) = node(|builder| {
            builder.limits(HandlerOptions {
                timeout: Duration::from_secs(3600),
                max_in_flight: 2,
            })
        });
        let mut hanging = Vec::new();
        for _ in 0..2 {
            hanging.push(post(&node, "/api/rpc", KEY, r#"{"method":"hang"}"#).await);
            assert_eq!(heard.recv().await, Some("begun"));
        }
        let told = told(&node, "echo").await;
        assert_eq!(told["code"], 111);
        let text = told["message"].as_str().expect("a text");
        assert!(
            text.contains("2 handlers") && text.contains("max_in_flight"),
            "{text}"
        );
        drop(hanging);
        for _ in 0..2 {
            assert_eq!(heard.recv().await, Some("dropped"));
        }
        // The room is there a moment after the handler has gone.
        while error(&node, "missing").await != 104 {}
    });
}
