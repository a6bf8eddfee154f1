//! What must hold for the decoder of Protobuf commands, whatever bytes come. The fuzz target
//! `command_protobuf` calls this with what it invents, ordinary tests with the corpus and with
//! generated commands.

#[path = "dynamic.rs"]
pub(crate) mod dynamic;
#[path = "neutral.rs"]
mod neutral;

use prost_reflect::prost::encoding::{decode_varint, encode_varint};
use serde_json::Value;
use tautline_protocol::filter::RawFilter;
use tautline_protocol::message::{Command, Request};
use tautline_protocol::protobuf::{Commands, DecodeError};

pub(crate) fn check(data: &[u8]) {
    let mut commands = Commands::new(data);
    let mut rest = data;
    loop {
        assert_eq!(
            commands.rest().unwrap_or_default(),
            rest,
            "another rest than the frame's"
        );
        let resumed = commands.rest();
        let Some(command) = commands.next() else {
            break;
        };
        // Whoever reads on from the rest reads the same.
        let again = Commands::new(resumed.expect("there was a rest")).next();
        assert_eq!(again, Some(command.clone()));
        let message = split(&mut rest);
        let expected = message.and_then(|message| dynamic::decode("Command", message).ok());
        match (command, expected) {
            (Ok(command), Some(expected)) => {
                let expected = first_request(expected);
                assert_eq!(neutral::neutral(&command), expected);
                // What the other writes of it means the same.
                let mut written = Vec::new();
                let message = dynamic::encode("Command", &expected);
                encode_varint(message.len() as u64, &mut written);
                written.extend_from_slice(&message);
                let read = Commands::new(&written).next();
                let read = read.expect("a message").expect("a valid one");
                assert_eq!(neutral::neutral(&read), expected);
            }
            // Filters are not looked into; what is wrong with one is found later.
            (Ok(command), None) => assert!(has_bad_filter(&command), "{command:?}"),
            (Err(_), None) => {
                assert!(commands.next().is_none(), "something behind an error");
                return;
            }
            // The other takes deeper groups, which nobody sends.
            (Err(DecodeError::TooDeep), _) => return,
            // And it doesn't look at the wire type of a map's entries.
            (Err(_), Some(expected)) if has_maps(&expected) => return,
            (Err(error), Some(expected)) => panic!("{error}, but it is {expected}"),
        }
    }
    assert!(rest.is_empty(), "the end of the frame was left out");
}

/// Takes the first message off a frame.
fn split<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = decode_varint(rest).ok()?;
    let (message, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    Some(message)
}

/// Where several things are asked for, the first of the protocol's order counts.
fn first_request(mut command: Value) -> Value {
    let names = [
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "send",
        "refresh",
        "sub_refresh",
        "ping",
    ];
    let object = command.as_object_mut().expect("a message");
    let mut names = names
        .into_iter()
        .skip_while(|name| !object.contains_key(*name));
    names.next();
    for name in names.collect::<Vec<_>>() {
        object.remove(name);
    }
    command
}

fn has_maps(command: &Value) -> bool {
    ["subs", "headers"]
        .iter()
        .any(|map| !command["connect"][map].is_null())
}

fn has_bad_filter(command: &Command<'_>) -> bool {
    let bad = |filter: &Option<RawFilter<'_>>| match filter {
        Some(RawFilter::Protobuf(bytes)) => dynamic::decode("FilterNode", bytes).is_err(),
        _ => false,
    };
    match &command.request {
        Some(Request::Subscribe(subscribe)) => bad(&subscribe.tags_filter),
        Some(Request::Connect(connect)) => connect.subs.values().any(|sub| bad(&sub.tags_filter)),
        _ => false,
    }
}
