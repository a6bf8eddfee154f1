//! Every kind of client in one drain: each hears of the end in its own way, and its connection is ended in order.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{AcceptOptions, ConnectOptions, WebSocket, accept, client};
use tautline_websocket::proto::Message;
use tokio::net::TcpStream as AsyncStream;

use crate::process::{DEADLINE, Server, Wait};

/// In the order of their numbers a second, with time for those that wait to be served meanwhile.
const CONFIG: &str = r#"
[node]
workers = 2
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[shutdown]
timeout = "30s"
reconnect_rate = 4
[channel.without_namespace]
history_size = 10
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#;

/// A request whose answer goes on, as far as it has been read.
struct Answer {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Answer {
    fn to(server: &Server, method: &str, path: &str, body: &str) -> Self {
        let mut stream = server.connect();
        let (address, len) = (server.address, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
        let came = Vec::new();
        Self { stream, came }
    }

    /// Reads until there is `mark`.
    fn until(mut self, mark: &str) -> Self {
        let wait = Wait::new(mark);
        while !String::from_utf8_lossy(&self.came).contains(mark) {
            if !wait.read(&mut self.stream, &mut self.came) {
                wait.fail("the connection ended");
            }
        }
        self
    }

    /// All of it, to the end of the connection.
    fn rest(mut self) -> JoinHandle<String> {
        std::thread::spawn(move || {
            self.stream.read_to_end(&mut self.came).unwrap();
            String::from_utf8_lossy(&self.came).into_owned()
        })
    }
}

/// A server behind a tunnel, for two connections: the codes with which they were closed.
fn behind() -> (SocketAddr, JoinHandle<Vec<u16>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let serve = async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut sockets = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let accepted = accept(stream, &AcceptOptions::default()).await;
                sockets.push(accepted.unwrap().websocket);
            }
            let mut codes = Vec::new();
            for mut socket in sockets {
                while socket.recv().await.unwrap().is_some() {}
                codes.push(socket.closed().map_or(0, |closed| closed.code.get()));
            }
            codes
        };
        let served = runtime.block_on(async { tokio::time::timeout(2 * DEADLINE, serve).await });
        served.unwrap()
    });
    (address, thread)
}

async fn websocket(server: &Server, path: &str) -> WebSocket<AsyncStream> {
    let stream = AsyncStream::connect(server.address).await.unwrap();
    let url = format!("ws://{}{path}", server.address);
    let connected = client(stream, &url, &ConnectOptions::default()).await;
    connected.unwrap().websocket
}

/// The code with which it is closed.
async fn code<S>(mut socket: WebSocket<S>) -> u16
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while socket.recv().await.unwrap().is_some() {}
    socket.closed().map_or(0, |closed| closed.code.get())
}

/// The body of an answer with a length.
fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn each_kind_of_client_hears_of_the_end_in_its_own_way() {
    let (behind, closed_behind) = behind();
    let tunnel = format!("{CONFIG}[[tunnels]]\nname = \"to\"\nupstream = \"ws://{behind}/\"\n");
    let mut server = Server::serve("drain-kinds", &tunnel);
    let connect = r#"{"id":1,"connect":{}}"#;

    // Long-polling: a session, and a poll of it that waits.
    let opened = Answer::to(
        &server,
        "POST",
        "/connection/poll",
        &format!("{{\"open\":1}}\n{connect}"),
    );
    let opened = opened.until("\"connect\"");
    let opened = String::from_utf8_lossy(&opened.came).into_owned();
    let head: Value = serde_json::from_str(body(&opened).lines().next().unwrap()).unwrap();
    let poll = json!({"session": head["session"], "poll": head["next"], "hold": 55});
    let poll = Answer::to(&server, "POST", "/connection/poll", &format!("{poll}\n")).rest();
    let history = Answer::to(&server, "GET", "/history?channel=c&wait=55", "").rest();
    // Streams.
    let stream = Answer::to(&server, "POST", "/connection/http_stream", connect);
    let stream = stream.until("\"client\"").rest();
    let sse = "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D";
    let sse = Answer::to(&server, "GET", sse, "")
        .until("\"client\"")
        .rest();
    let one_way = Answer::to(&server, "POST", "/connection/uni_http_stream", "{}");
    let one_way = one_way.until("\"client\"").rest();
    let lines = Answer::to(&server, "GET", "/lines?channel=c", "");
    let lines = lines.until("\"subscribed\"").rest();
    // A tunnel of each kind, whose other end is behind the server.
    let tunnelled = websocket(&server, "/tunnel/to").await;
    let opened = Answer::to(&server, "POST", "/tunnel/to", "{\"open\":1}\n").until("\"next\"");
    let opened = String::from_utf8_lossy(&opened.came).into_owned();
    let head: Value = serde_json::from_str(body(&opened).lines().next().unwrap()).unwrap();
    let held = json!({"session": head["session"], "poll": head["next"], "hold": 55});
    let held = Answer::to(&server, "POST", "/tunnel/to", &format!("{held}\n")).rest();
    // WebSockets, one of them over HTTP/2.
    let url = format!("ws://{}/connection/websocket", server.address);
    let (options, http2) = (ConnectOptions::default(), Http2Options::default());
    let shared = Http2Client::connect(&url, &options, &http2).await.unwrap();
    let mut over_http2 = shared.open(&url, &options).await.unwrap().websocket;
    over_http2.send(connect).await.unwrap();
    assert!(over_http2.recv().await.unwrap().is_some());
    let mut socket = websocket(&server, "/connection/websocket").await;
    socket.send(connect).await.unwrap();
    assert!(socket.recv().await.unwrap().is_some());
    let over_http2 = tokio::spawn(code(over_http2));
    let socket = tokio::spawn(code(socket));
    let tunnelled = tokio::spawn(code(tunnelled));

    server.signal("-TERM");
    let said = server.read_until("come back elsewhere");
    assert!(
        said[said.len() - 1].contains("clients=10 over=2.5s"),
        "eight with a session, and two of a tunnel: {said:?}"
    );
    let told = |answer: JoinHandle<String>| answer.join().unwrap();
    let poll = told(poll);
    let head: Value = serde_json::from_str(body(&poll).lines().next().unwrap()).unwrap();
    assert_eq!(head["end"]["code"], 3001, "{poll}");
    // Who waits for news may ask the next node for them.
    let history = told(history);
    assert!(history.starts_with("HTTP/1.1 503 "), "{history}");
    assert!(history.contains("\r\nretry-after: "), "{history}");
    let disconnect = r#""disconnect":{"code":3001,"reason":"shutdown"}"#;
    for streamed in [stream, sse, one_way] {
        let streamed = told(streamed);
        assert!(streamed.contains(disconnect), "{streamed}");
    }
    let lines = told(lines);
    let end = r#"{"event":"end","code":3001,"reason":"shutdown"}"#;
    assert!(lines.contains(end), "{lines}");
    // Chunked answers are ended, not cut off (RFC 9112, section 7.1).
    assert!(lines.ends_with("0\r\n\r\n"), "{lines}");
    assert_eq!(over_http2.await.unwrap(), 3001);
    assert_eq!(socket.await.unwrap(), 3001);
    assert_eq!(tunnelled.await.unwrap(), 1001);
    let held = told(held);
    let head: Value = serde_json::from_str(body(&held).lines().next().unwrap()).unwrap();
    assert_eq!(head["end"]["code"], 1001, "{held}");
    assert_eq!(closed_behind.join().unwrap(), [1001, 1001]);
    while shared.is_open().await {
        tokio::task::yield_now().await;
    }
    assert!(server.wait().success());
}

/// Whoever would have to wait for many clients may not want to.
#[tokio::test]
async fn a_second_signal_ends_a_drain_that_is_under_way() {
    // It would take half an hour.
    let config = CONFIG.replace("\"30s\"", "\"3600s\"");
    let config = config.replace("reconnect_rate = 4", "reconnect_rate = 1");
    let mut server = Server::serve("drain-second", &config);
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let mut socket = websocket(&server, "/connection/websocket").await;
        socket.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
        assert!(matches!(socket.recv().await, Ok(Some(Message::Text(_)))));
        sockets.push(socket);
    }
    server.signal("-TERM");
    crate::process::wait_until("the server isn't ready", || {
        server
            .get("/ready")
            .starts_with("HTTP/1.1 503")
            .then_some(())
    });
    // Whoever comes now is told the same at once: the others have their turn before them.
    let mut late = websocket(&server, "/connection/websocket").await;
    late.send(r#"{"id":1,"connect":{}}"#).await.unwrap();
    assert_eq!(code(late).await, 3001);
    server.signal("-TERM");
    // The deadlines of both are far shorter than the drain.
    let said = server.read_rest();
    assert!(said.contains("ended at once by a second signal"), "{said}");
    assert!(server.wait().success());
    drop(sockets);
}
