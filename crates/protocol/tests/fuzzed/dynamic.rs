//! Another Protobuf implementation, which reads the schema in `golden/client.proto` at run time. Its
//! messages are given and taken in a neutral form: JSON objects with the fields that are set, payloads
//! as strings of hexadecimal digits.

use std::fmt::Write as _;
use std::sync::OnceLock;

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, MessageDescriptor};
use protox::file::{File, FileResolver};
use serde_json::{Value, json};

/// Decodes one message, without a length before it.
pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Value, String> {
    DynamicMessage::decode(descriptor(name), bytes)
        .map(|message| fields(&message))
        .map_err(|error| error.to_string())
}

/// Encodes what [`decode`] made, without a length before it.
pub(crate) fn encode(name: &str, value: &Value) -> Vec<u8> {
    build(&descriptor(name), value).encode_to_vec()
}

/// A payload in the neutral form.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn fields(message: &DynamicMessage) -> Value {
    let fields = message.fields();
    Value::Object(
        fields
            .map(|(field, value)| (field.name().to_owned(), neutral_value(value)))
            .collect(),
    )
}

fn neutral_value(value: &prost_reflect::Value) -> Value {
    use prost_reflect::Value as V;
    match value {
        V::Bool(value) => json!(value),
        V::I32(value) => json!(value),
        V::I64(value) => json!(value),
        V::U32(value) => json!(value),
        V::U64(value) => json!(value),
        V::String(value) => json!(value),
        V::Bytes(bytes) => json!(hex(bytes)),
        V::Message(message) => fields(message),
        V::List(values) => values.iter().map(neutral_value).collect(),
        V::Map(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(key, value)| {
                let key = key.as_str().expect("the protocol's keys are strings");
                (key.to_owned(), neutral_value(value))
            });
            Value::Object(entries.collect())
        }
        other => panic!("a type that the protocol doesn't have: {other:?}"),
    }
}

fn build(descriptor: &MessageDescriptor, value: &Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for (key, value) in value.as_object().expect("an object") {
        let field = descriptor.get_field_by_name(key).expect("a known field");
        let built = if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().expect("entries are messages");
            let entries = value.as_object().expect("a map").iter();
            let content = entry.map_entry_value_field().kind();
            prost_reflect::Value::Map(
                entries
                    .map(|(key, value)| (MapKey::String(key.clone()), build_value(&content, value)))
                    .collect(),
            )
        } else if field.is_list() {
            let values = value.as_array().expect("a list").iter();
            prost_reflect::Value::List(
                values
                    .map(|value| build_value(&field.kind(), value))
                    .collect(),
            )
        } else {
            build_value(&field.kind(), value)
        };
        message.set_field(&field, built);
    }
    message
}

fn build_value(kind: &prost_reflect::Kind, value: &Value) -> prost_reflect::Value {
    use prost_reflect::{Kind, Value as V};
    let text = || value.as_str().expect("a string");
    match kind {
        Kind::Bool => V::Bool(value.as_bool().expect("a truth value")),
        Kind::Int32 => V::I32(value.as_i64().expect("a number") as i32),
        Kind::Int64 => V::I64(value.as_i64().expect("a number")),
        Kind::Uint32 => V::U32(value.as_u64().expect("a number") as u32),
        Kind::Uint64 => V::U64(value.as_u64().expect("a number")),
        Kind::String => V::String(text().to_owned()),
        Kind::Bytes => {
            let digits = text().as_bytes().chunks(2);
            let bytes = digits.map(|pair| {
                let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
                u8::from_str_radix(pair, 16).expect("hexadecimal digits")
            });
            V::Bytes(bytes.collect::<Vec<u8>>().into())
        }
        Kind::Message(descriptor) => V::Message(build(descriptor, value)),
        other => panic!("a type that the protocol doesn't have: {other:?}"),
    }
}

fn descriptor(name: &str) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut compiler = protox::Compiler::with_file_resolver(Schema);
        compiler.open_file("client.proto").expect("a valid schema");
        compiler.descriptor_pool()
    })
    .get_message_by_name(name)
    .expect("a message of the schema")
}

struct Schema;

impl FileResolver for Schema {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        File::from_source(name, include_str!("../golden/client.proto"))
    }
}
