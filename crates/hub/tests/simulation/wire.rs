//! Messages as they are on the wire, in both encodings, for clients which think in JSON.
//!
//! The Protobuf side is written from the protocol's schema and knows nothing of the codec under
//! test.

use serde_json::{Map, Value, json};
use tautline_hub::Frame;
use tautline_protocol::Encoding;

use crate::payload;

/// Commands on their way to the node.
#[derive(Clone)]
pub(crate) enum Up {
    Json(String),
    Protobuf(Vec<u8>),
}

impl Up {
    pub(crate) fn new(encoding: Encoding, commands: &[Value]) -> Self {
        match encoding {
            Encoding::Json => {
                let lines: Vec<String> = commands.iter().map(ToString::to_string).collect();
                Self::Json(lines.join("\n"))
            }
            _ => {
                let mut frame = Vec::new();
                for command in commands {
                    let mut message = Vec::new();
                    encode(command, COMMAND, &mut message);
                    put_varint(message.len() as u64, &mut frame);
                    frame.extend(message);
                }
                Self::Protobuf(frame)
            }
        }
    }

    pub(crate) fn frame(&self) -> Frame<'_> {
        match self {
            Self::Json(text) => Frame::Json(text),
            Self::Protobuf(bytes) => Frame::Protobuf(bytes),
        }
    }
}

/// The replies of one message.
pub(crate) fn replies(encoding: Encoding, message: &[u8]) -> Vec<Value> {
    match encoding {
        Encoding::Json => {
            let text = std::str::from_utf8(message).expect("JSON is UTF-8");
            let lines = text.split('\n');
            lines
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect()
        }
        _ => {
            let mut rest = message;
            let mut replies = Vec::new();
            while !rest.is_empty() {
                let reply = take_bytes(&mut rest);
                replies.push(decode(reply, REPLY));
            }
            replies
        }
    }
}

/// The text of a publication's `data`: the payload, or a patch.
pub(crate) fn data(encoding: Encoding, takes_patches: bool, publication: &Value) -> String {
    let data = &publication["data"];
    match encoding {
        Encoding::Json if !takes_patches => data.to_string(),
        _ => data.as_str().expect("a string or bytes").to_owned(),
    }
}

type Fields = &'static [(u64, &'static str, Kind)];

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Bool,
    Text,
    /// A payload: JSON or other bytes in commands, text in replies.
    Raw,
    Message(Fields),
    Repeated(Fields),
    /// By text; of messages, or of text where there are no fields.
    Map(Fields),
}

use Kind::{Bool, Message, Number, Raw, Repeated, Text};

const FILTER: Fields = &[
    (1, "op", Text),
    (2, "key", Text),
    (3, "cmp", Text),
    (4, "val", Text),
];
const POSITION: Fields = &[(1, "offset", Number), (2, "epoch", Text)];
const CHANNEL: Fields = &[(1, "channel", Text)];
const SUBSCRIBE: Fields = &[
    (1, "channel", Text),
    (2, "token", Text),
    (3, "recover", Bool),
    (6, "epoch", Text),
    (7, "offset", Number),
    (12, "delta", Text),
    (13, "tf", Message(FILTER)),
];
const COMMAND: Fields = &[
    (1, "id", Number),
    (
        4,
        "connect",
        Message(&[(1, "token", Text), (3, "subs", Kind::Map(SUBSCRIBE))]),
    ),
    (5, "subscribe", Message(SUBSCRIBE)),
    (6, "unsubscribe", Message(CHANNEL)),
    (
        7,
        "publish",
        Message(&[(1, "channel", Text), (2, "data", Raw)]),
    ),
    (8, "presence", Message(CHANNEL)),
    (
        10,
        "history",
        Message(&[
            (1, "channel", Text),
            (7, "limit", Number),
            (8, "since", Message(POSITION)),
        ]),
    ),
    (14, "refresh", Message(&[(1, "token", Text)])),
    (
        15,
        "sub_refresh",
        Message(&[(1, "channel", Text), (2, "token", Text)]),
    ),
];

const INFO: Fields = &[
    (1, "user", Text),
    (2, "client", Text),
    (3, "conn_info", Raw),
];
const PUBLICATION: Fields = &[
    (4, "data", Raw),
    (5, "info", Message(INFO)),
    (6, "offset", Number),
    (7, "tags", Kind::Map(&[])),
    (8, "delta", Bool),
];
const SUBSCRIBED: Fields = &[
    (1, "expires", Bool),
    (2, "ttl", Number),
    (3, "recoverable", Bool),
    (6, "epoch", Text),
    (7, "publications", Repeated(PUBLICATION)),
    (8, "recovered", Bool),
    (9, "offset", Number),
    (10, "positioned", Bool),
    (12, "was_recovering", Bool),
    (13, "delta", Bool),
];
const REPLY: Fields = &[
    (1, "id", Number),
    (
        2,
        "error",
        Message(&[
            (1, "code", Number),
            (2, "message", Text),
            (3, "temporary", Bool),
        ]),
    ),
    (
        4,
        "push",
        Message(&[
            (2, "channel", Text),
            (4, "pub", Message(PUBLICATION)),
            (5, "join", Message(&[(1, "info", Message(INFO))])),
            (6, "leave", Message(&[(1, "info", Message(INFO))])),
            (
                7,
                "unsubscribe",
                Message(&[(2, "code", Number), (3, "reason", Text)]),
            ),
            (
                9,
                "subscribe",
                Message(&[
                    (1, "recoverable", Bool),
                    (4, "epoch", Text),
                    (5, "offset", Number),
                    (6, "positioned", Bool),
                ]),
            ),
            (
                12,
                "refresh",
                Message(&[(1, "expires", Bool), (2, "ttl", Number)]),
            ),
        ]),
    ),
    (
        5,
        "connect",
        Message(&[
            (1, "client", Text),
            (2, "version", Text),
            (3, "expires", Bool),
            (4, "ttl", Number),
            (6, "subs", Kind::Map(SUBSCRIBED)),
            (7, "ping", Number),
            (8, "pong", Bool),
        ]),
    ),
    (6, "subscribe", Message(SUBSCRIBED)),
    (7, "unsubscribe", Message(&[])),
    (8, "publish", Message(&[])),
    (9, "presence", Message(&[(1, "presence", Kind::Map(INFO))])),
    (
        11,
        "history",
        Message(&[
            (1, "publications", Repeated(PUBLICATION)),
            (2, "epoch", Text),
            (3, "offset", Number),
        ]),
    ),
    (
        14,
        "refresh",
        Message(&[(3, "expires", Bool), (4, "ttl", Number)]),
    ),
    (
        15,
        "sub_refresh",
        Message(&[(1, "expires", Bool), (2, "ttl", Number)]),
    ),
];

fn encode(value: &Value, fields: Fields, out: &mut Vec<u8>) {
    for (name, value) in value.as_object().expect("an object") {
        let known = fields.iter().find(|(_, known, _)| known == name);
        let (number, _, kind) = known.unwrap_or_else(|| panic!("no field {name}"));
        let bytes = match kind {
            Number => {
                put_varint(number << 3, out);
                put_varint(value.as_u64().expect("a number"), out);
                continue;
            }
            Bool => {
                put_varint(number << 3, out);
                put_varint(u64::from(value.as_bool().expect("a truth")), out);
                continue;
            }
            Text => value.as_str().expect("text").as_bytes().to_vec(),
            Raw => value
                .as_str()
                .and_then(payload::from_text)
                .unwrap_or_else(|| value.to_string().into_bytes()),
            Message(fields) => {
                let mut message = Vec::new();
                encode(value, fields, &mut message);
                message
            }
            Kind::Map(fields) => {
                for (key, value) in value.as_object().expect("a map") {
                    let mut entry = Vec::new();
                    put_bytes(1, key.as_bytes(), &mut entry);
                    let mut message = Vec::new();
                    encode(value, fields, &mut message);
                    put_bytes(2, &message, &mut entry);
                    put_bytes(*number, &entry, out);
                }
                continue;
            }
            Repeated(_) => unreachable!("in no command"),
        };
        put_bytes(*number, &bytes, out);
    }
}

fn decode(mut rest: &[u8], fields: Fields) -> Value {
    let mut object = Map::new();
    while !rest.is_empty() {
        let tag = take_varint(&mut rest);
        let number = if tag & 7 == 0 {
            Some(take_varint(&mut rest))
        } else {
            assert_eq!(tag & 7, 2, "only numbers and bytes");
            None
        };
        let bytes = number.map_or_else(|| take_bytes(&mut rest), |_| &[]);
        let known = fields.iter().find(|(known, ..)| *known == tag >> 3);
        let (_, name, kind) = known.unwrap_or_else(|| panic!("no field {}", tag >> 3));
        let text = || String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let value = match (kind, number) {
            (Number, Some(number)) => json!(number),
            (Bool, Some(truth)) => json!(truth != 0),
            (Text, None) => json!(text()),
            (Raw, None) => json!(payload::text(bytes)),
            (Message(fields), None) => decode(bytes, fields),
            (Repeated(fields), None) => {
                let list = object.entry(*name).or_insert_with(|| json!([]));
                list.as_array_mut()
                    .expect("a list")
                    .push(decode(bytes, fields));
                continue;
            }
            (Kind::Map(fields), None) => {
                let (key, value) = decode_entry(bytes, fields);
                object.entry(*name).or_insert_with(|| json!({}))[key] = value;
                continue;
            }
            _ => panic!("field {name} is of another kind"),
        };
        object.insert((*name).to_owned(), value);
    }
    Value::Object(object)
}

fn decode_entry(mut rest: &[u8], fields: Fields) -> (String, Value) {
    let (mut key, mut value) = (String::new(), json!({}));
    while !rest.is_empty() {
        let tag = take_varint(&mut rest);
        let bytes = take_bytes(&mut rest);
        let text = || String::from_utf8(bytes.to_vec()).expect("UTF-8");
        match tag >> 3 {
            1 => key = text(),
            _ if fields.is_empty() => value = json!(text()),
            _ => value = decode(bytes, fields),
        }
    }
    (key, value)
}

fn put_bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = rest[0];
        *rest = &rest[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take_varint(rest) as usize;
    let (bytes, others) = rest.split_at(length);
    *rest = others;
    bytes
}
