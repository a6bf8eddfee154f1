//! Clients of tunnels: one that polls, written after the book, and WebSockets.

use std::future::Future;

use serde_json::{Value, json};
use tautline_websocket::conn::ClientStream;
use tautline_websocket::conn::{ConnectError, ConnectOptions, Connected, connect};
use tautline_websocket::proto::Message;

use crate::http::{Response, post};
use crate::process::Server;

/// A session over plain HTTP.
pub(crate) struct Poll<'s> {
    pub(crate) server: &'s Server,
    pub(crate) path: String,
    pub(crate) opened: Value,
    pub(crate) next: u64,
    pub(crate) sent: u64,
}

pub(crate) fn ask(server: &Server, path: &str, head: &Value, data: &[u8]) -> Response {
    let mut body = format!("{head}\n").into_bytes();
    body.extend_from_slice(data);
    post(server, path, "application/octet-stream", &body)
}

impl<'s> Poll<'s> {
    pub(crate) fn open(server: &'s Server, path: &str) -> Self {
        Self::open_with(server, path, &json!({"open": 1}))
    }

    pub(crate) fn open_with(server: &'s Server, path: &str, head: &Value) -> Self {
        let (opened, messages) = read(ask(server, path, head, b""));
        assert_eq!(messages, []);
        Self {
            server,
            path: path.to_owned(),
            next: opened["next"].as_u64().expect("a number"),
            opened,
            sent: 0,
        }
    }

    pub(crate) fn session(&self) -> &Value {
        &self.opened["session"]
    }

    pub(crate) fn poll_head(&self, hold: u64, stream: bool) -> Value {
        json!({"session": self.session(), "poll": self.next, "hold": hold, "stream": stream})
    }

    /// Polls, and acknowledges with the next: messages, and the end if that is told.
    pub(crate) fn poll(&mut self) -> (Vec<Message>, Option<(u64, String)>) {
        let (head, messages) = read(ask(
            self.server,
            &self.path,
            &self.poll_head(25, false),
            b"",
        ));
        self.next = head["next"].as_u64().expect("a number");
        let end = head.get("end").map(|end| {
            let reason = end["reason"].as_str().expect("a text");
            (end["code"].as_u64().expect("a number"), reason.to_owned())
        });
        (messages, end)
    }

    /// Sends a piece.
    pub(crate) fn send(&mut self, piece: &[u8]) -> u16 {
        let head = json!({"session": self.session(), "send": self.sent + 1});
        let status = ask(self.server, &self.path, &head, piece).status;
        self.sent += u64::from(status == 204);
        status
    }

    pub(crate) fn close(&self, code: u16, reason: &str) -> u16 {
        let head =
            json!({"session": self.session(), "close": true, "code": code, "reason": reason});
        ask(self.server, &self.path, &head, b"").status
    }
}

/// A whole answer.
pub(crate) fn read(response: Response) -> (Value, Vec<Message>) {
    assert_eq!(response.status, 200, "{}", response.head);
    assert_eq!(
        response.header("content-type"),
        Some("application/octet-stream")
    );
    let body = response.rest_bytes();
    let feed = body.iter().position(|byte| *byte == b'\n');
    let feed = feed.expect("a head has a line");
    let head = serde_json::from_slice(&body[..feed]).expect("a head is JSON");
    (head, unframe(&body[feed + 1..]))
}

/// A message as it is set apart.
pub(crate) fn frame(message: &Message) -> Vec<u8> {
    let (kind, payload) = match message {
        Message::Text(text) => (1, text.as_bytes().to_vec()),
        Message::Binary(bytes) => (2, bytes.to_vec()),
    };
    let mut out = vec![kind];
    let mut left = payload.len();
    while left > 0x7f {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend(payload);
    out
}

pub(crate) fn unframe(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let [kind, rest @ ..] = bytes {
        let end = rest.iter().position(|byte| byte & 0x80 == 0);
        let end = end.expect("a length ends");
        let len = rest[..=end]
            .iter()
            .rev()
            .fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        let (payload, more) = rest[end + 1..].split_at(len);
        messages.push(match kind {
            1 => Message::from(std::str::from_utf8(payload).expect("UTF-8")),
            2 => Message::from(payload.to_vec()),
            other => panic!("a message of kind {other}"),
        });
        bytes = more;
    }
    messages
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// Opens a WebSocket.
pub(crate) async fn dial(
    server: &Server,
    path: &str,
    options: &ConnectOptions,
) -> Result<Connected<ClientStream>, ConnectError> {
    connect(&format!("ws://{}{path}", server.address), options).await
}
