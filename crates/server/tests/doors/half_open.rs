//! Clients that are gone without a word, as phones are that lost their network: what shows them to others ends with the
//! next ping and the time for its answer, and where no answer is expected with the time for the system's.

use std::io::Write as _;

use serde_json::json;

use crate::emulation::WORKERS;
use crate::http::{Response, get, send};
use crate::process::{Server, wait_until};
use crate::socket::{Said, Socket};
use crate::vanish::vanish;
use crate::ways::{Door, Position};

/// A server that notices soon who takes nothing.
fn serve(name: &str, client: &str) -> Server {
    let config = WORKERS.replace("[client]", &format!("[client]\n{client}"));
    let doors = "[doors]\npoll_timeout = \"1s\"\n";
    Server::serve(name, &format!("write_timeout = \"1s\"\n{config}\n{doors}"))
}

/// Where the channel begins.
fn beginning(server: &Server) -> Position {
    let history = server.api("history", r#"{"channel":"here"}"#);
    let history: serde_json::Value = serde_json::from_str(&history).expect("JSON");
    let epoch = history["result"]["epoch"].as_str().expect("an epoch");
    Position {
        offset: 0,
        epoch: epoch.to_owned(),
    }
}

/// How many are in the channel.
fn present(server: &Server) -> u64 {
    let stats = server.api("presence_stats", r#"{"channel":"here"}"#);
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
    stats["result"]["num_clients"].as_u64().expect("a number")
}

fn wait_for(server: &Server, count: u64) {
    wait_until(&format!("{count} are here"), || {
        (present(server) == count).then_some(())
    });
}

/// A client that never says anything again once it is in the channel.
enum Client {
    Answer(Response),
    Socket(Socket),
}

impl Client {
    fn come(server: &Server, door: Door) -> Self {
        let asked = door.asks("here", &beginning(server));
        match door {
            Door::WebSocket | Door::UniSocket | Door::PlainSocket => {
                let mut socket = Socket::open(server, &asked.path, "").expect("it is let in");
                if !asked.body.is_empty() {
                    socket.send(std::str::from_utf8(&asked.body).expect("JSON"));
                }
                Self::Socket(socket)
            }
            Door::Poll => Self::Answer(poll(server, &asked.body)),
            _ => Self::Answer(Response::read(asked.send(server.address))),
        }
    }

    fn vanish(&self) {
        match self {
            Self::Answer(response) => vanish(response.stream()),
            Self::Socket(socket) => vanish(&socket.stream()),
        }
    }
}

/// One whose poll is held.
fn poll(server: &Server, commands: &[u8]) -> Response {
    let head = "POST /connection/poll HTTP/1.1";
    let body = [b"{\"open\":1}\n", commands].concat();
    let opened = send(server, head, &body).rest();
    let first = opened.lines().next().expect("a head");
    let first: serde_json::Value = serde_json::from_str(first).expect("JSON");
    let poll =
        json!({"session": first["session"], "poll": first["next"], "hold": 2, "stream": true});
    send(server, head, poll.to_string().as_bytes())
}

/// Everything but what is over with an answer anyway.
const DOORS: [Door; 10] = [
    Door::UniSse,
    Door::UniHttpStream,
    Door::Events,
    Door::Lines,
    Door::HttpStream,
    Door::Sse,
    Door::Poll,
    Door::WebSocket,
    Door::UniSocket,
    Door::PlainSocket,
];

#[test]
fn who_vanished_is_gone_from_every_door() {
    let server = serve(
        "vanished",
        "ping_interval = \"1s\"\npong_timeout = \"900ms\"",
    );
    // Beside them is one who stays.
    let mut neighbour = get(&server, "/lines?channel=here");
    assert_eq!(neighbour.line().expect("it begins")["event"], "subscribed");
    for door in DOORS {
        let client = Client::come(&server, door);
        wait_for(&server, 2);
        client.vanish();
        wait_until(&format!("the client of {door:?} is gone"), || {
            (present(&server) == 1).then_some(())
        });
    }
    server.api("publish", r#"{"channel":"here","data":"all well"}"#);
    let said = wait_until("a publication", || {
        let line = neighbour.until(b"\n").expect("it goes on");
        (line != b"\n").then_some(line)
    });
    assert!(String::from_utf8(said).expect("text").contains("all well"));
}

/// Readers of WebSockets may rest for longer than `http_server.write_timeout`, also on a connection by which requests came
/// before.
#[test]
fn readers_of_websockets_may_rest() {
    let server = serve("resting", "");
    let path = Door::PlainSocket.asks("here", &beginning(&server)).path;
    let mut resting: Vec<_> = [false, true]
        .into_iter()
        .map(|has_asked| {
            let stream = server.connect();
            if has_asked {
                let mut asking = stream.try_clone().expect("it can be shared");
                write!(asking, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
                let answer = Response::read(asking);
                assert_eq!((answer.status, answer.rest()), (200, "{}".to_owned()));
            }
            Socket::open_on(stream, &path, "").expect("it is let in")
        })
        .collect();
    wait_for(&server, 2);
    // Far more than sockets hold.
    const COUNT: usize = 900;
    let text = "x".repeat(20_000);
    for number in 0..COUNT {
        let publish = json!({"channel": "here", "data": {"n": number, "text": text}});
        server.api("publish", &publish.to_string());
    }
    // Who takes nothing of an answer is gone by and by, one after the other.
    for _ in 0..2 {
        let lines = Door::Lines.asks("here", &beginning(&server));
        let lines = Response::read(lines.send(server.address));
        wait_for(&server, 3);
        wait_for(&server, 2);
        drop(lines);
    }
    for socket in &mut resting {
        let mut next = 0;
        while next < COUNT {
            match socket.next() {
                Said::Text(text) => {
                    let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    if message["data"].is_object() {
                        assert_eq!(message["data"]["n"], next);
                        next += 1;
                    }
                }
                Said::Close(code, reason) => panic!("{code} {reason} after {next}"),
            }
        }
    }
}
