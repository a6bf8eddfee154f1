//! As much of the protocol's Protobuf as a reader needs, written apart from the server's: what it asks, and what it is told
//! in the form that it would have in JSON.

use serde_json::{Value, json};

/// A command of a client, its length before it: to connect.
pub(crate) fn connect(id: u8) -> Vec<u8> {
    command(id, 4, &[])
}

/// The same: to subscribe, and to go on behind a position if there is one.
pub(crate) fn subscribe(id: u8, channel: &str, since: Option<(u64, &str)>) -> Vec<u8> {
    let mut asked = field(1, channel.as_bytes());
    if let Some((offset, epoch)) = since {
        asked.extend([3 << 3, 1]);
        asked.extend(field(6, epoch.as_bytes()));
        asked.push(7 << 3);
        asked.extend(varint(offset));
    }
    command(id, 5, &asked)
}

/// The same: to publish.
pub(crate) fn publish(id: u8, channel: &str, data: &str) -> Vec<u8> {
    let mut asked = field(1, channel.as_bytes());
    asked.extend(field(2, data.as_bytes()));
    command(id, 7, &asked)
}

/// What `/emulation` takes.
pub(crate) fn emulation(session: &str, node: &str, data: &[u8]) -> Vec<u8> {
    let fields = [(1, node.as_bytes()), (2, session.as_bytes()), (3, data)];
    let fields = fields.map(|(number, bytes)| field(number, bytes));
    fields.concat()
}

fn command(id: u8, number: u8, asked: &[u8]) -> Vec<u8> {
    let mut command = vec![1 << 3, id];
    command.extend(field(number, asked));
    delimited(&command)
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(delimited(bytes));
    field
}

fn delimited(bytes: &[u8]) -> Vec<u8> {
    let mut delimited = varint(bytes.len() as u64);
    delimited.extend_from_slice(bytes);
    delimited
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Takes the replies that are whole, each with its length before it.
pub(crate) fn take_replies(came: &mut Vec<u8>) -> Vec<Value> {
    let (mut replies, mut taken) = (Vec::new(), 0);
    while let Some((length, behind)) = read_varint(&came[taken..]) {
        let Some(message) = behind.get(..length as usize) else {
            break;
        };
        replies.push(reply(message));
        taken = came.len() - (behind.len() - message.len());
    }
    came.drain(..taken);
    replies
}

/// A ping is an empty one, as in JSON.
fn reply(message: &[u8]) -> Value {
    let mut said = json!({});
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Number(id)) => said["id"] = json!(id),
            (2, Field::Bytes(error)) => said["error"] = json!(format!("{error:?}")),
            (4, Field::Bytes(push)) => said["push"] = of_push(push),
            (5, Field::Bytes(result)) => said["connect"] = connected(result),
            (6, Field::Bytes(result)) => said["subscribe"] = subscribed(result),
            // Of what else may be said it is enough that it is.
            (number, _) => said[format!("field {number}")] = json!(true),
        }
    }
    said
}

fn of_push(push: &[u8]) -> Value {
    let mut said = json!({});
    for (number, field) in fields(push) {
        match (number, field) {
            (2, Field::Bytes(channel)) => said["channel"] = text(channel),
            (4, Field::Bytes(publication)) => said["pub"] = of_publication(publication),
            (number, _) => said[format!("field {number}")] = json!(true),
        }
    }
    said
}

fn connected(result: &[u8]) -> Value {
    let mut said = json!({});
    for (number, field) in fields(result) {
        match (number, field) {
            (9, Field::Bytes(session)) => said["session"] = text(session),
            (10, Field::Bytes(node)) => said["node"] = text(node),
            _ => {}
        }
    }
    said
}

fn subscribed(result: &[u8]) -> Value {
    let mut said = json!({"recovered": false});
    let mut publications = Vec::new();
    for (number, field) in fields(result) {
        match (number, field) {
            (6, Field::Bytes(epoch)) => said["epoch"] = text(epoch),
            (7, Field::Bytes(publication)) => publications.push(of_publication(publication)),
            (8, Field::Number(recovered)) => said["recovered"] = json!(recovered == 1),
            (9, Field::Number(offset)) => said["offset"] = json!(offset),
            _ => {}
        }
    }
    said["publications"] = json!(publications);
    said
}

fn of_publication(publication: &[u8]) -> Value {
    let mut said = json!({});
    for (number, field) in fields(publication) {
        match (number, field) {
            (4, Field::Bytes(data)) => said["data"] = crate::ways::parse(data),
            (6, Field::Number(offset)) => said["offset"] = json!(offset),
            _ => {}
        }
    }
    said
}

fn text(bytes: &[u8]) -> Value {
    json!(std::str::from_utf8(bytes).expect("UTF-8"))
}

enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a message that is whole, with their numbers.
fn fields(mut rest: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (key, behind) = read_varint(rest).expect("a key");
        let (value, behind) = read_varint(behind).expect("a number or a length");
        let (field, behind) = match key & 7 {
            0 => (Field::Number(value), behind),
            2 => {
                let (bytes, behind) = behind.split_at(value as usize);
                (Field::Bytes(bytes), behind)
            }
            kind => panic!("no message here has a field of the kind {kind}"),
        };
        fields.push((key >> 3, field));
        rest = behind;
    }
    fields
}

/// A number, and what is behind it; `None` where its end hasn't come.
fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let low = |value, byte: &u8| value << 7 | u64::from(byte & 0x7f);
    let value = bytes[..=end].iter().rev().fold(0, low);
    Some((value, &bytes[end + 1..]))
}
