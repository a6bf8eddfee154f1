//! Writing Protobuf replies: byte for byte against another implementation, and by meaning against
//! the JSON encoding.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "fuzzed/dynamic.rs"]
mod dynamic;
#[path = "fuzzed/neutral.rs"]
mod neutral;
#[path = "support/replies.rs"]
mod replies;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tautline_protocol::{Encoding, Reply, json as json_encoding, protobuf};

/// Name, type, JSON and bytes of each of the golden messages.
fn golden() -> impl Iterator<Item = (&'static str, &'static str, &'static str, Vec<u8>)> {
    let lines = include_str!("golden/messages.tsv").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, kind, json, hex] = columns[..] else {
            panic!("not four columns: {line}");
        };
        let bytes = (0..hex.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (name, kind, json, bytes.collect())
    })
}

fn encode(encoding: Encoding, reply: &Reply) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    encoding.encode_reply(reply, &mut bytes);
    bytes.split_off(6)
}

#[test]
fn golden_commands_are_read() {
    let mut read = 0;
    for (name, _, json, bytes) in golden().filter(|(_, kind, ..)| *kind == "Command") {
        let text: Vec<_> = json_encoding::Commands::new(json)
            .map(Result::unwrap)
            .collect();
        let binary: Vec<_> = protobuf::Commands::new(&bytes)
            .map(Result::unwrap)
            .collect();
        let [text, binary] = [&text[..], &binary[..]].map(|commands| {
            assert_eq!(commands.len(), 1, "{name}");
            neutral::neutral(&commands[0])
        });
        assert_eq!(binary, text, "{name}");
        read += 1;
    }
    assert!(read >= 18, "only {read} commands");
}

#[test]
fn golden_replies_are_written() {
    let mut ours = replies::all();
    for (name, _, json, bytes) in golden().filter(|(_, kind, ..)| *kind == "Reply") {
        let reply = ours
            .remove(name)
            .unwrap_or_else(|| panic!("no reply {name}"));
        assert_eq!(
            String::from_utf8(encode(Encoding::Json, &reply)).unwrap(),
            json,
            "{name}"
        );
        assert_eq!(encode(Encoding::Protobuf, &reply), bytes, "{name}");
    }
    assert!(
        ours.is_empty(),
        "not among the golden ones: {:?}",
        ours.keys()
    );
}

/// What the JSON encoding says, in the neutral form: payloads as bytes, defaults left out.
fn neutral_json(value: &Value) -> Value {
    const PAYLOADS: [&str; 3] = ["data", "conn_info", "chan_info"];
    // The keys of these are anybody's.
    const MAPS: [&str; 3] = ["subs", "presence", "tags"];
    let Value::Object(object) = value else {
        return match value {
            Value::Array(items) => items.iter().map(neutral_json).collect(),
            scalar => scalar.clone(),
        };
    };
    let fields = object.iter().filter_map(|(key, value)| {
        let value = match value {
            _ if PAYLOADS.contains(&&**key) => json!(dynamic::hex(value.to_string().as_bytes())),
            Value::Object(entries)
                if MAPS.contains(&&**key) && !entries.contains_key("presence") =>
            {
                let entries = entries.iter();
                let entries = entries.map(|(key, value)| (key.clone(), neutral_json(value)));
                let entries: Map<String, Value> = entries.collect();
                (!entries.is_empty()).then_some(Value::Object(entries))?
            }
            value => neutral_json(value),
        };
        let is_default =
            value == json!("") || value == json!(0) || value == json!(false) || value == json!([]);
        (!is_default).then(|| (key.clone(), value))
    });
    Value::Object(fields.collect())
}

proptest! {
    /// Both encodings say the same, and the length before a message is its length.
    #[test]
    fn both_encodings_say_the_same(reply in replies::any_reply()) {
        let text: Value = serde_json::from_slice(&encode(Encoding::Json, &reply)).unwrap();
        let bytes = encode(Encoding::Protobuf, &reply);
        let mut message = &bytes[..];
        let length = prost_reflect::prost::encoding::decode_varint(&mut message).unwrap();
        prop_assert_eq!(length, message.len() as u64);
        let binary = dynamic::decode("Reply", message).unwrap();
        prop_assert_eq!(&binary, &neutral_json(&text));
        // The other leaves out empty keys and values of maps; nothing else could be shorter.
        prop_assert!(dynamic::encode("Reply", &binary).len() <= message.len());
    }
}
