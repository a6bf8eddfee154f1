//! The ways to follow a stream: what a client asks that goes on behind a position, and what it makes of what comes.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::process::connect;
use crate::protobuf;

/// Where a reader is in the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Position {
    pub(crate) offset: u64,
    pub(crate) epoch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    WebSocket,
    WebSocketProtobuf,
    HttpStream,
    HttpStreamProtobuf,
    Sse,
    /// A long-polled session, each of whose answers is whole.
    Poll,
    PollProtobuf,
    /// One whose answers go on.
    PollStream,
    PollStreamProtobuf,
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
    /// Messages with their length before each.
    Lengths,
    /// Whole answers, to one request after the other.
    Answers,
}

/// What a client asks.
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// Of the request; for a WebSocket what is said there first, if anything.
    pub(crate) body: Vec<u8>,
    pub(crate) is_protobuf: bool,
}

/// A publication: its offset, and the number that was published.
pub(crate) type Publication = (u64, u64);

impl Door {
    pub(crate) const ALL: [Self; 17] = [
        Self::WebSocket,
        Self::WebSocketProtobuf,
        Self::HttpStream,
        Self::HttpStreamProtobuf,
        Self::Sse,
        Self::Poll,
        Self::PollProtobuf,
        Self::PollStream,
        Self::PollStreamProtobuf,
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
            Self::WebSocket | Self::WebSocketProtobuf | Self::UniSocket | Self::PlainSocket => {
                Form::Frames
            }
            Self::HttpStream | Self::UniHttpStream | Self::Lines => Form::Lines,
            Self::HttpStreamProtobuf => Form::Lengths,
            Self::Sse | Self::UniSse | Self::Events => Form::Events,
            Self::Poll
            | Self::PollProtobuf
            | Self::PollStream
            | Self::PollStreamProtobuf
            | Self::History
            | Self::Polling => Form::Answers,
        }
    }

    /// Whether its messages are Protobuf.
    pub(crate) fn is_protobuf(self) -> bool {
        matches!(
            self,
            Self::WebSocketProtobuf
                | Self::HttpStreamProtobuf
                | Self::PollProtobuf
                | Self::PollStreamProtobuf
        )
    }

    /// Whether answers to polls go on.
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::PollStream | Self::PollStreamProtobuf)
    }

    /// Takes what is whole of what a WebSocket or an answer to a poll has said.
    pub(crate) fn messages(self, said: &mut Vec<u8>) -> Vec<Value> {
        if self.is_protobuf() {
            return protobuf::take_replies(said);
        }
        let lines = said.split(|byte| *byte == b'\n');
        let messages = lines.filter(|line| !line.is_empty()).map(parse).collect();
        said.clear();
        messages
    }

    /// What a client asks that goes on behind `since`; of the doors of answers, what it asks first.
    pub(crate) fn asks(self, channel: &str, since: &Position) -> Asked {
        let Position { offset, epoch } = since;
        let position = json!({"recover": true, "offset": offset, "epoch": epoch});
        let mut subscribe = position.clone();
        subscribe["channel"] = json!(channel);
        let commands = if self.is_protobuf() {
            let subscribe = protobuf::subscribe(2, channel, Some((*offset, epoch)));
            [protobuf::connect(1), subscribe].concat()
        } else {
            let connect = json!({"id": 1, "connect": {}});
            let subscribe = json!({"id": 2, "subscribe": subscribe});
            format!("{connect}\n{subscribe}").into_bytes()
        };
        let uni = json!({"subs": {channel: position}}).to_string();
        let query = format!("channel={channel}&since={offset},{epoch}");
        let get = |path: String| ("GET", path, Vec::new());
        let post = |path: &str, body| ("POST", path.to_owned(), body);
        let (method, path, body) = match self {
            Self::WebSocket => ("GET", "/connection/websocket".to_owned(), commands),
            Self::WebSocketProtobuf => (
                "GET",
                "/connection/websocket?cf_protocol=protobuf".to_owned(),
                commands,
            ),
            Self::HttpStream | Self::HttpStreamProtobuf => {
                post("/connection/http_stream", commands)
            }
            Self::Sse => post("/connection/sse", commands),
            Self::Poll | Self::PollProtobuf | Self::PollStream | Self::PollStreamProtobuf => {
                post("/connection/poll", commands)
            }
            Self::UniSocket => {
                let connect = utf8_percent_encode(&uni, NON_ALPHANUMERIC);
                get(format!("/connection/uni_websocket?cf_connect={connect}"))
            }
            Self::UniSse => post("/connection/uni_sse", uni.into_bytes()),
            Self::UniHttpStream => post("/connection/uni_http_stream", uni.into_bytes()),
            Self::PlainSocket => get(format!("/ws?envelope=1&{query}")),
            Self::Events => get(format!("/events?{query}")),
            Self::Lines => get(format!("/lines?{query}")),
            Self::History => get(format!("/history?{query}&limit=100&wait=20")),
            Self::Polling => get(format!("/history?{query}&limit=50")),
        };
        Asked {
            method,
            path,
            body,
            is_protobuf: self.is_protobuf(),
        }
    }
}

impl Asked {
    /// What the type of a body says where it isn't JSON.
    pub(crate) fn content_type(&self) -> Option<&'static str> {
        self.is_protobuf.then_some("application/octet-stream")
    }

    /// Asks it on a connection of HTTP/1.1 of its own.
    pub(crate) fn send(&self, address: SocketAddr) -> TcpStream {
        let mut stream = connect(address);
        // The server may end it before it has read everything: that is seen when it is read.
        let _ = stream.write_all(&self.request(address));
        stream
    }

    /// The bytes of the request.
    pub(crate) fn request(&self, address: SocketAddr) -> Vec<u8> {
        let (method, path, len) = (self.method, &self.path, self.body.len());
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
        if let Some(content_type) = self.content_type() {
            head += &format!("Content-Type: {content_type}\r\n");
        }
        head += &format!("Content-Length: {len}\r\n\r\n");
        [head.as_bytes(), &self.body].concat()
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
