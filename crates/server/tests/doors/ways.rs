//! The ways to follow a stream: what a client asks that goes on behind a position, and what it makes of what comes.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::http::{Response, send};
use crate::process::Server;

/// Where a reader is in the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    WebSocket,
    HttpStream,
    Sse,
    Poll,
    UniSocket,
    UniSse,
    UniHttpStream,
    PlainSocket,
    Events,
    Lines,
    /// Long-polling.
    History,
    /// Polling: what there is, at once.
    Polling,
}

/// How what comes is set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Messages of a WebSocket.
    Frames,
    /// A line each.
    Lines,
    /// Server-sent events.
    Events,
    /// Whole answers, to one request after the other.
    Answers,
}

/// What a client asks.
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// Of the request; for a WebSocket what is said there first, if anything.
    pub(crate) body: String,
}

/// A publication: its offset, and the number that was published.
pub(crate) type Publication = (u64, u64);

impl Door {
    pub(crate) const ALL: [Self; 12] = [
        Self::WebSocket,
        Self::HttpStream,
        Self::Sse,
        Self::Poll,
        Self::UniSocket,
        Self::UniSse,
        Self::UniHttpStream,
        Self::PlainSocket,
        Self::Events,
        Self::Lines,
        Self::History,
        Self::Polling,
    ];

    pub(crate) fn form(self) -> Form {
        match self {
            Self::WebSocket | Self::UniSocket | Self::PlainSocket => Form::Frames,
            Self::HttpStream | Self::UniHttpStream | Self::Lines => Form::Lines,
            Self::Sse | Self::UniSse | Self::Events => Form::Events,
            Self::Poll | Self::History | Self::Polling => Form::Answers,
        }
    }

    /// What a client asks that goes on behind `since`; of the doors of answers, what it asks first.
    pub(crate) fn asks(self, channel: &str, since: &Position) -> Asked {
        let Position { offset, epoch } = since;
        let position = json!({"recover": true, "offset": offset, "epoch": epoch});
        let mut subscribe = position.clone();
        subscribe["channel"] = json!(channel);
        let commands = [
            json!({"id": 1, "connect": {}}).to_string(),
            json!({"id": 2, "subscribe": subscribe}).to_string(),
        ]
        .join("\n");
        let uni = json!({"subs": {channel: position}}).to_string();
        let query = format!("channel={channel}&since={offset},{epoch}");
        let get = |path: String| ("GET", path, String::new());
        let post = |path: &str, body| ("POST", path.to_owned(), body);
        let (method, path, body) = match self {
            Self::WebSocket => ("GET", "/connection/websocket".to_owned(), commands),
            Self::HttpStream => post("/connection/http_stream", commands),
            Self::Sse => post("/connection/sse", commands),
            Self::Poll => post("/connection/poll", commands),
            Self::UniSocket => {
                let connect = utf8_percent_encode(&uni, NON_ALPHANUMERIC);
                get(format!("/connection/uni_websocket?cf_connect={connect}"))
            }
            Self::UniSse => post("/connection/uni_sse", uni),
            Self::UniHttpStream => post("/connection/uni_http_stream", uni),
            Self::PlainSocket => get(format!("/ws?envelope=1&{query}")),
            Self::Events => get(format!("/events?{query}")),
            Self::Lines => get(format!("/lines?{query}")),
            Self::History => get(format!("/history?{query}&limit=100&wait=20")),
            Self::Polling => get(format!("/history?{query}&limit=50")),
        };
        Asked { method, path, body }
    }
}

impl Asked {
    /// Asks it on a connection of HTTP/1.1 of its own.
    pub(crate) fn send(&self, server: &Server) -> Response {
        let head = format!("{} {} HTTP/1.1", self.method, self.path);
        send(server, &head, self.body.as_bytes())
    }
}

/// What the lines of an event say.
pub(crate) fn event(text: &str) -> Vec<Value> {
    // With a position of its own: data alone, as with no SDK.
    let (mut offset, mut said) = (None, Vec::new());
    for field in text.lines() {
        if let Some(id) = field.strip_prefix("id: ") {
            let (before, _) = id.split_once(',').expect("a position");
            offset = Some(before.parse::<u64>().expect("an offset"));
        } else if let Some(data) = field.strip_prefix("data: ") {
            let data = parse(data.as_bytes());
            said.push(match offset {
                Some(offset) => json!({"offset": offset, "data": data}),
                None => data,
            });
        } else {
            assert!(!field.contains("gap"), "{text}");
        }
    }
    said
}

/// The publications in a message, in whichever form it has. Fails where something is told to be missing.
pub(crate) fn publications(message: &Value) -> Vec<Publication> {
    let one = |publication: &Value| {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{message}"));
        (number(&publication["offset"]), number(&publication["data"]))
    };
    let all = |list: &Value| list.as_array().into_iter().flatten().map(one).collect();
    assert_eq!(message["error"], Value::Null, "{message}");
    assert_ne!(message["event"], "gap", "{message}");
    let mut replies = vec![&message["subscribe"]];
    for subs in [&message["connect"]["subs"], &message["subs"]] {
        replies.extend(subs.as_object().into_iter().flat_map(|subs| subs.values()));
    }
    for reply in replies {
        if reply.is_object() {
            assert_eq!(reply["recovered"], true, "{message}");
            return all(&reply["publications"]);
        }
    }
    for publication in [&message["push"]["pub"], &message["pub"], message] {
        if !publication["data"].is_null() {
            return vec![one(publication)];
        }
    }
    Vec::new()
}

pub(crate) fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(text)))
}
