//! How a server ends under many clients, as a process that is told to by a signal.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod kinds;
mod pace;
#[path = "../support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as TcpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tautline_websocket::conn::{ConnectOptions, WebSocket, client};
use tautline_websocket::proto::Message;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use self::process::{Server, wait_until};

/// Each is a descriptor here and one there.
const CLIENTS: usize = 10_000;

/// How many want to be told of those who come and go.
const WITNESSES: usize = 20;

/// So many are told in a second.
const RATE: usize = 2_000;

const CONFIG: &str = r#"
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[log]
format = "json"
connections = "all"
[shutdown]
timeout = "60s"
reconnect_rate = 2000
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
presence = true
join_leave = true
history_size = 1000
history_ttl = "60s"
force_recovery = true
"#;

#[derive(Debug, PartialEq)]
enum Event {
    AllThere,
    Told,
}

/// What a client has heard by the time it was told to go, and how it came back.
struct Heard {
    told: Instant,
    code: u16,
    publications: Vec<u64>,
    leaves: usize,
    /// When it was let in elsewhere.
    back: Instant,
    /// Its connection there, kept open.
    elsewhere: Option<WebSocket<TcpStream>>,
}

/// A client of `server` until it is told to go; then at once one of `elsewhere`, which is sooner than SDKs are.
async fn stay(
    server: SocketAddr,
    elsewhere: SocketAddr,
    witness: bool,
    all_there: Arc<Barrier>,
) -> Heard {
    let mut socket = open(server).await;
    let subscribe = json!({"channel": "news", "join_leave": witness});
    let commands = format!(
        "{}\n{}",
        json!({"id": 1, "connect": {}}),
        json!({"id": 2, "subscribe": subscribe})
    );
    socket.send(&*commands).await.unwrap();
    let mut heard = Heard {
        told: Instant::now(),
        code: 0,
        publications: Vec::new(),
        leaves: 0,
        back: Instant::now(),
        elsewhere: None,
    };
    let mut is_subscribed = false;
    while !is_subscribed {
        let message = socket.recv().await.unwrap().unwrap();
        is_subscribed = listen(&mut heard, &message);
    }
    all_there.wait().await;
    while let Some(message) = socket.recv().await.unwrap() {
        listen(&mut heard, &message);
    }
    heard.told = Instant::now();
    heard.code = socket.closed().map_or(0, |closed| closed.code.get());
    drop(socket);
    let mut socket = open(elsewhere).await;
    socket.send(&*commands).await.unwrap();
    while !listen(&mut heard, &socket.recv().await.unwrap().unwrap()) {}
    heard.back = Instant::now();
    heard.elsewhere = Some(socket);
    heard
}

async fn open(server: SocketAddr) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(server).await.unwrap();
    let url = format!("ws://{server}/connection/websocket");
    let connected = client(stream, &url, &ConnectOptions::default()).await;
    connected.unwrap().websocket
}

/// All clients, from the first that comes to the last that is told to go.
fn crowd(server: SocketAddr, elsewhere: &Server, tell: &Sender<Event>) -> Vec<Heard> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let all_there = Arc::new(Barrier::new(CLIENTS + 1));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(stay(
                server,
                elsewhere.address,
                number < WITNESSES,
                Arc::clone(&all_there),
            ));
        }
        all_there.wait().await;
        tell.send(Event::AllThere).unwrap();
        let mut all = Vec::new();
        while let Some(heard) = clients.join_next().await {
            tell.send(Event::Told).unwrap();
            all.push(heard.unwrap());
        }
        // All of them are there at the same time, and nobody was turned away.
        let info = call(elsewhere.address, "info", &json!({})).unwrap();
        assert_eq!(info["result"]["nodes"][0]["num_clients"], CLIENTS);
        all
    })
}

/// Takes a message in; whether it says that the subscription has begun.
fn listen(heard: &mut Heard, message: &Message) -> bool {
    let Message::Text(text) = message else {
        return false;
    };
    let mut is_subscribed = false;
    for line in text.lines() {
        let reply: Value = serde_json::from_str(line).unwrap();
        is_subscribed |= reply["subscribe"].is_object();
        heard
            .publications
            .extend(reply["push"]["pub"]["data"].as_u64());
        heard.leaves += usize::from(reply["push"]["leave"].is_object());
    }
    is_subscribed
}

/// The status of `GET path`.
fn get(server: &Server, path: &str) -> String {
    let mut stream = server.connect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// The answer to a call of the API; `None` from a server that has ended.
fn call(server: SocketAddr, method: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    let mut stream = TcpSocket::connect(server).ok()?;
    write!(
        stream,
        "POST /api/{method} HTTP/1.1\r\nHost: {}\r\nX-API-Key: dev\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        server,
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{method}: {answer}");
    serde_json::from_str(body).ok()
}

/// RFC 6455, section 7.4: what is told is 3001, by which clients of the protocol come back, elsewhere.
#[test]
fn ten_thousand_clients_are_told_one_after_the_other_and_so_they_come_back() {
    raise_descriptors();
    let mut server = Server::serve("drain", CONFIG);
    let elsewhere = Server::serve("drain-elsewhere", CONFIG);
    let (tell, events) = mpsc::channel();
    let address = server.address;
    let clients = std::thread::spawn(move || crowd(address, &elsewhere, &tell));
    assert_eq!(events.recv().unwrap(), Event::AllThere);

    assert_eq!(get(&server, "/ready"), "200");

    let begin = Instant::now();
    server.signal("-TERM");
    let said = server.read_on();
    wait_until("the server says that it isn't ready", || {
        (get(&server, "/ready") == "503").then_some(())
    });
    assert_eq!(get(&server, "/health"), "200");
    // Published while clients go, at once and with each twentieth that is gone, until the server has ended. Whoever
    // is there behind a publication that was answered has to get it.
    let mut still_there = Vec::new();
    let mut publish = || {
        let data = still_there.len() + 1;
        let publish = json!({"channel": "news", "data": data});
        let clients = call(address, "publish", &publish).and_then(|_| {
            let info = call(address, "info", &json!({}))?;
            info["result"]["nodes"][0]["num_clients"].as_u64()
        });
        still_there.extend(clients);
        clients.is_some()
    };
    let mut is_served = publish();
    assert!(is_served, "the API is there while clients go");
    for gone in 1..=CLIENTS {
        assert_eq!(events.recv().unwrap(), Event::Told);
        if is_served && gone % (CLIENTS / 20) == 0 {
            is_served = publish();
        }
    }
    let mut heard = clients.join().unwrap();
    assert!(server.wait().success());
    pace::never_above(RATE, CLIENTS, &said.join().unwrap());

    heard.sort_by_key(|heard| heard.told);
    for (number, heard) in heard.iter().enumerate() {
        assert_eq!(heard.code, 3001);
        assert_eq!(heard.leaves, 0, "nobody has left for good");
        let count = heard.publications.len() as u64;
        assert!(heard.publications.iter().copied().eq(1..=count));
        // Whatever delays a client's hearing of it only makes this smaller.
        let most = heard.told.duration_since(begin).as_secs_f64() * RATE as f64;
        assert!(
            (number as f64) <= most + 10.0,
            "{number} told after {most} could be"
        );
    }
    for (number, clients) in (1..).zip(&still_there) {
        let got = heard
            .iter()
            .filter(|heard| heard.publications.len() >= number);
        let got = got.count() as u64;
        assert!(
            got >= *clients,
            "{clients} were there behind publication {number}, and {got} got it"
        );
    }
    // The other server is met by no more than that, either.
    let mut back: Vec<_> = heard.iter().map(|heard| heard.back).collect();
    back.sort();
    for (number, back) in back.iter().enumerate() {
        let most = back.duration_since(begin).as_secs_f64() * RATE as f64;
        assert!(
            (number as f64) <= most + 10.0,
            "{number} were back when {most} could be"
        );
    }
    let took = heard.last().unwrap().told.duration_since(begin);
    let came = back.last().unwrap().duration_since(begin);
    println!("all were back within {:.2} s", came.as_secs_f64());
    println!(
        "{CLIENTS} clients were told within {:.2} s, while {} were published",
        took.as_secs_f64(),
        still_there.len()
    );
    assert!(took >= Duration::from_secs(4));
}

fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
