//! Who publishes by HTTP faster than a worker with subscribers can take it is answered later, and nothing is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use serde_json::json;
use tautline::{Client, Config, Handler, Node, Refusal, RpcEvent, RpcReply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};

use super::{CONFIG, run, url};
use crate::peer::Peer;

/// What each publication carries, in bytes.
const LONG: usize = 10_000;

/// Three times as many publications as a worker has room for.
const MANY: usize = 300;

/// So many have more than a worker has room for, by far less than all.
const ENOUGH: usize = 150;

/// Keeps the worker that it is called on from doing anything else, until it is let go.
struct Hold {
    begun: Arc<Notify>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Handler for Hold {
    async fn on_rpc(&self, _: &Client, _: RpcEvent) -> Result<RpcReply, Refusal> {
        self.begun.notify_one();
        // Dropping the other end lets go, too: a test that fails doesn't hang.
        let _ = self.go.lock().unwrap().recv();
        Ok(().into())
    }
}

/// A connection that is used for one call after the other.
struct Caller(BufReader<TcpStream>);

impl Caller {
    /// One on a worker that answers: of many connections some are.
    async fn answered(node: &Node) -> Self {
        let mut all = JoinSet::new();
        for _ in 0..32 {
            let address = node.address().unwrap();
            all.spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let mut caller = Self(BufReader::new(stream));
                caller.publish("/api/publish", "elsewhere", "\"\"").await;
                caller
            });
        }
        all.join_next().await.unwrap().unwrap()
    }

    /// Publishes by the server API, or as any client may, and waits until that is answered.
    async fn publish(&mut self, path: &str, channel: &str, data: &str) {
        let (target, body) = match path {
            "/publish" => (format!("{path}?channel={channel}"), data.to_owned()),
            _ => {
                let body = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
                (path.to_owned(), body)
            }
        };
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: k\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        assert!(!body.starts_with(b"{\"error"), "{body:?}");
    }
}

/// Anybody may publish, and who is subscribed may have much waiting.
fn config() -> Config {
    let client = "[client]\nqueue_max_size = 16777216";
    let open = CONFIG.replace("[client]", client)
        + "allow_publish_for_client = true\n\
           allow_publish_for_anonymous = true\n\
           [http_api]\n\
           key = \"k\"\n";
    Config::from_toml(&open).unwrap()
}

/// Publishes what fills a worker's mailbox three times while that worker does nothing.
fn is_answered_later(path: &'static str) {
    run(async move {
        let begun = Arc::new(Notify::new());
        let (let_go, go) = mpsc::channel::<()>();
        let handler = Hold {
            begun: Arc::clone(&begun),
            go: Mutex::new(go),
        };
        let node = Node::builder(config()).handler(handler).start().unwrap();
        let mut subscriber = Peer::connect(&url(&node)).await;
        subscriber
            .ask("subscribe", json!({"channel": "news"}))
            .await;
        subscriber.begin("rpc", json!({"method": "hold"})).await;
        begun.notified().await;

        let answered = Arc::new(AtomicUsize::new(0));
        let (mut ahead, mut other) = (Caller::answered(&node).await, Caller::answered(&node).await);
        let count = Arc::clone(&answered);
        let publisher = tokio::spawn(async move {
            for number in 0..MANY {
                let data = format!("\"{number:0>LONG$}\"");
                ahead.publish(path, "news", &data).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        while answered.load(Ordering::Relaxed) < ENOUGH / 2 {
            yield_now().await;
        }
        // Whoever publishes for others is answered, and more than there is time for all of those.
        for _ in 0..2 * MANY {
            other.publish(path, "elsewhere", "1").await;
        }
        let before = answered.load(Ordering::Relaxed);
        assert!(before < ENOUGH, "{before}: nobody waits");

        drop(let_go);
        for number in 0..MANY {
            let publication = subscriber.push("pub").await;
            let heard = publication["data"].as_str().unwrap().parse::<usize>();
            assert_eq!(heard.unwrap(), number);
        }
        publisher.await.unwrap();
        assert_eq!(answered.load(Ordering::Relaxed), MANY);
    });
}

#[test]
fn a_call_of_the_api_is_answered_when_there_is_room_for_more() {
    is_answered_later("/api/publish");
}

#[test]
fn a_publication_without_an_sdk_is_answered_when_there_is_room_for_more() {
    is_answered_later("/publish");
}
