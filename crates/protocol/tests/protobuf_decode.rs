//! Reading Protobuf commands: what SDKs send, and what they don't.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "fuzzed/command_protobuf.rs"]
mod command_protobuf;

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tautline_protocol::filter::RawFilter;
use tautline_protocol::message::{Command, MAX_HEADERS, MAX_SUBS, Request};
use tautline_protocol::protobuf::{Commands, DecodeError, MAX_GROUP_DEPTH};

use command_protobuf::{check, dynamic};

/// A message with its length before it.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    prost_reflect::prost::encoding::encode_varint(message.len() as u64, &mut frame);
    frame.extend_from_slice(message);
    frame
}

fn one(frame: &[u8]) -> Command<'_> {
    check(frame);
    let mut commands = Commands::new(frame);
    let command = commands.next().unwrap().unwrap();
    assert!(commands.next().is_none());
    command
}

fn refuse(frame: &[u8]) -> DecodeError {
    check(frame);
    Commands::new(frame).find_map(Result::err).unwrap()
}

fn refuse_message(message: &[u8]) -> DecodeError {
    refuse(&frame(message))
}

#[test]
fn commands_behind_one_another() {
    let bytes = b"\x00\x0a\x08\x02\x2a\x06\x0a\x04news\x02\x08\x03";
    check(bytes);
    let commands: Vec<_> = Commands::new(bytes).map(Result::unwrap).collect();
    assert_eq!(
        commands
            .iter()
            .map(|command| command.id)
            .collect::<Vec<_>>(),
        [0, 2, 3]
    );
    assert_eq!(commands[0].request, None);
    assert!(
        matches!(&commands[1].request, Some(Request::Subscribe(request)) if request.channel == "news")
    );
}

#[test]
fn strings_and_payloads_are_borrowed() {
    let bytes = frame(b"\x08\x01\x3a\x0a\x0a\x01c\x12\x05\xff\x00\x0a\x22\x01");
    let Some(Request::Publish(publish)) = one(&bytes).request else {
        panic!("no publish")
    };
    assert!(matches!(publish.channel, Cow::Borrowed("c")));
    let data = publish.data.unwrap();
    assert_eq!(data, b"\xff\x00\x0a\x22\x01");
    assert!(bytes.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn an_empty_payload_is_none() {
    for request in [&b"\x0a\x01c"[..], b"\x0a\x01c\x12\x00"] {
        let mut message = vec![8, 1, 0x3a, request.len() as u8];
        message.extend_from_slice(request);
        let frame = frame(&message);
        assert!(
            matches!(one(&frame).request, Some(Request::Publish(publish)) if publish.data.is_none())
        );
    }
}

#[test]
fn nothing_is_read_behind_an_error() {
    let mut commands = Commands::new(b"\x00\x02\x08");
    assert!(commands.next().unwrap().is_ok());
    assert!(commands.next().unwrap().is_err());
    assert!(commands.next().is_none());
    assert_eq!(commands.rest(), None);
}

#[test]
fn what_is_not_a_command_is_refused() {
    assert_eq!(refuse(b""), DecodeError::Empty);
    for (bytes, error) in [
        // A frame that ends early: in a length, in a message, and where the length is a lie.
        (&b"\x80"[..], DecodeError::Truncated),
        (b"\x02\x08", DecodeError::Truncated),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
            DecodeError::Truncated,
        ),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            DecodeError::Varint,
        ),
        (
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            DecodeError::Varint,
        ),
    ] {
        assert_eq!(refuse(bytes), error, "{bytes:x?}");
    }
    let key = |number, wire_type| DecodeError::Key { number, wire_type };
    let wire_type = |number, expected, found| DecodeError::WireType {
        number,
        expected,
        found,
    };
    for (message, error) in [
        // A key that ends early, a number that does, a string that does.
        (&b"\x80"[..], DecodeError::Truncated),
        (b"\x08\x80", DecodeError::Truncated),
        (b"\x2a\x02\x0a\x01", DecodeError::Truncated),
        (b"\x00\x00", key(0, 0)),
        (b"\x0e", key(1, 6)),
        (b"\x0f", key(1, 7)),
        (b"\x8a\x80\x80\x80\x80\x01", key(1 << 32 | 1, 2)),
        // The end of a group that never began, or of another one; one that never ends.
        (b"\x14", key(2, 4)),
        (b"\x13\x1c", key(3, 4)),
        (b"\x13", DecodeError::Truncated),
        // Known fields of another type.
        (b"\x0a\x00", wire_type(1, 2 - 2, 2)),
        (b"\x0d\x00\x00\x00\x00", wire_type(1, 0, 5)),
        (b"\x28\x00", wire_type(5, 2, 0)),
        (b"\x2b\x2c", wire_type(5, 2, 3)),
        (b"\x2a\x02\x08\x00", wire_type(1, 2, 0)),
        (b"\x2a\x02\x1a\x00", wire_type(3, 0, 2)),
        (b"\x2a\x03\x0a\x01\xff", DecodeError::Utf8 { number: 1 }),
        (
            b"\x22\x05\x1a\x03\x0a\x01\xff",
            DecodeError::Utf8 { number: 1 },
        ),
        (
            b"\x22\x05\x32\x03\x12\x01\xff",
            DecodeError::Utf8 { number: 2 },
        ),
    ] {
        assert_eq!(refuse_message(message), error, "{message:x?}");
    }
}

#[test]
fn unknown_fields_are_skipped_whatever_they_are() {
    // Numbers 20 to 24: a varint, 8 bytes, a string, 4 bytes, and a group with all of these in it.
    let unknown = b"\xa0\x01\x96\x01\xa9\x0112345678\xb2\x01\x03abc\xbd\x011234\
        \xc3\x01\xa0\x01\x07\xa9\x0112345678\xb2\x01\x01\xff\xbd\x011234\xcb\x01\xcc\x01\xc4\x01";
    let mut message = unknown.to_vec();
    message.extend_from_slice(b"\x08\x05\x2a");
    message.push(unknown.len() as u8 + 3);
    message.extend_from_slice(b"\x0a\x01c");
    message.extend_from_slice(unknown);
    let frame = frame(&message);
    let command = one(&frame);
    assert_eq!(command.id, 5);
    assert!(matches!(command.request, Some(Request::Subscribe(request)) if request.channel == "c"));
}

#[test]
fn groups_are_bounded() {
    let nest = |depth| [vec![0x13; depth], vec![0x14; depth]].concat();
    one(&frame(&nest(MAX_GROUP_DEPTH)));
    assert_eq!(
        refuse_message(&nest(MAX_GROUP_DEPTH + 1)),
        DecodeError::TooDeep
    );
    assert_eq!(refuse_message(&nest(1_000_000)), DecodeError::TooDeep);
}

/// An entry of a few bytes takes some hundred in memory.
#[test]
fn the_maps_of_a_connect_are_bounded() {
    for (number, limit) in [(3, MAX_SUBS), (6, MAX_HEADERS)] {
        // In two parts of the same connect.
        let message = |keys: &mut dyn Iterator<Item = usize>| {
            let mut parts = [Vec::new(), Vec::new()];
            for (at, key) in keys.enumerate() {
                let key = key.to_string();
                let part = &mut parts[at % 2];
                part.extend([number << 3 | 2, key.len() as u8 + 2, 0x0a, key.len() as u8]);
                part.extend_from_slice(key.as_bytes());
            }
            let parts = parts.map(|part| [&b"\x22"[..], &frame(&part)].concat());
            frame(&parts.concat())
        };
        for (keys, entries) in [
            (&mut (0..limit) as &mut dyn Iterator<Item = usize>, limit),
            (&mut (0..=limit).map(|key| key % 2), 2),
        ] {
            let bytes = message(keys);
            let Some(Request::Connect(request)) = one(&bytes).request else {
                panic!("no connect")
            };
            assert_eq!(request.subs.len() + request.headers.len(), entries);
        }
        let error = refuse(&message(&mut (0..=limit)));
        let number = u32::from(number);
        assert_eq!(error, DecodeError::TooMany { number, limit });
    }
}

#[test]
fn parts_of_a_message_are_merged() {
    // subscribe{channel:"a"}, subscribe{offset:7}, subscribe{channel:"b"}
    let bytes = frame(b"\x08\x01\x2a\x03\x0a\x01a\x2a\x02\x38\x07\x2a\x03\x0a\x01b\x08\x02");
    let command = one(&bytes);
    assert_eq!(command.id, 2);
    let Some(Request::Subscribe(subscribe)) = command.request else {
        panic!("no subscribe")
    };
    assert_eq!((&*subscribe.channel, subscribe.offset), ("b", 7));
    // tf{key:"k"}, tf{cmp:"ex"}
    let bytes = frame(b"\x08\x01\x2a\x0b\x6a\x03\x12\x01k\x6a\x04\x1a\x02ex");
    let Some(Request::Subscribe(subscribe)) = one(&bytes).request else {
        panic!("no subscribe")
    };
    let Some(RawFilter::Protobuf(filter)) = subscribe.tags_filter else {
        panic!("no filter")
    };
    assert_eq!(*filter, b"\x12\x01k\x1a\x02ex"[..]);
    // since{offset:7}, since{epoch:"e"}
    let bytes = frame(b"\x08\x01\x52\x09\x42\x02\x08\x07\x42\x03\x12\x01e");
    let Some(Request::History(history)) = one(&bytes).request else {
        panic!("no history")
    };
    let since = history.since.unwrap();
    assert_eq!((since.offset, &*since.epoch), (7, "e"));
}

#[test]
fn what_is_wrong_with_a_request_counts_even_if_the_request_does_not() {
    // connect{}, publish{channel: 0}
    assert_eq!(
        refuse_message(b"\x22\x00\x3a\x02\x08\x00"),
        DecodeError::WireType {
            number: 1,
            expected: 2,
            found: 0
        }
    );
}

#[test]
fn errors_say_what_was_expected() {
    let text = refuse(b"").to_string();
    assert!(text.contains("single zero byte"), "{text}");
    let text = refuse_message(b"\x0a\x00").to_string();
    assert_eq!(text, "field 1 has wire type 2, expected 0");
}

fn any_filter() -> impl Strategy<Value = Value> {
    let leaf = (
        "[a-c]{0,2}",
        "[a-z]{0,3}",
        any::<String>(),
        prop::collection::vec(any::<String>(), 0..3),
    )
        .prop_map(
            |(key, cmp, val, vals)| json!({"key": key, "cmp": cmp, "val": val, "vals": vals}),
        );
    leaf.prop_recursive(3, 8, 3, |inner| {
        ("[a-z]{0,3}", prop::collection::vec(inner, 0..3))
            .prop_map(|(op, nodes)| json!({"op": op, "nodes": nodes}))
    })
}

fn any_subscribe() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec!["channel", "token", "epoch", "delta"]);
    let flag = prop::sample::select(vec!["recover", "positioned", "recoverable", "join_leave"]);
    let field = prop_oneof![
        (text, any::<String>()).prop_map(|(key, text)| (key, json!(text))),
        (flag, any::<bool>()).prop_map(|(key, flag)| (key, json!(flag))),
        any::<u64>().prop_map(|offset| ("offset", json!(offset))),
        any::<i64>().prop_map(|flag| ("flag", json!(flag))),
        any::<i32>().prop_map(|kind| ("type", json!(kind))),
        any_payload().prop_map(|data| ("data", data)),
        any_filter().prop_map(|filter| ("tf", filter)),
    ];
    object(field)
}

fn any_payload() -> impl Strategy<Value = Value> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| json!(dynamic::hex(&bytes)))
}

fn object(field: impl Strategy<Value = (&'static str, Value)>) -> impl Strategy<Value = Value> {
    prop::collection::vec(field, 0..8).prop_map(|fields| {
        let fields = fields.into_iter();
        Value::Object(
            fields
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Map<String, Value>>(),
        )
    })
}

fn any_command() -> impl Strategy<Value = Value> {
    let channel = || any::<String>().prop_map(|channel| ("channel", json!(channel)));
    let token = || any::<String>().prop_map(|token| ("token", json!(token)));
    let data = || any_payload().prop_map(|data| ("data", data));
    let kind = || any::<i32>().prop_map(|kind| ("type", json!(kind)));
    let subs = prop::collection::btree_map(any::<String>(), any_subscribe(), 0..3);
    let headers = prop::collection::btree_map(any::<String>(), any::<String>(), 0..3);
    let since = (any::<u64>(), any::<String>())
        .prop_map(|(offset, epoch)| ("since", json!({"offset": offset, "epoch": epoch})));
    let named = prop::sample::select(vec!["unsubscribe", "presence", "presence_stats"]);
    let request = prop_oneof![
        (
            Just("connect"),
            object(prop_oneof![
                token(),
                data(),
                any::<String>().prop_map(|name| ("name", json!(name))),
                any::<String>().prop_map(|version| ("version", json!(version))),
                subs.prop_map(|subs| ("subs", json!(subs))),
                headers.prop_map(|headers| ("headers", json!(headers))),
            ])
        ),
        (Just("subscribe"), any_subscribe()),
        (named, object(channel())),
        (
            Just("publish"),
            object(prop_oneof![channel(), data(), kind()])
        ),
        (
            Just("history"),
            object(prop_oneof![
                channel(),
                any::<i32>().prop_map(|limit| ("limit", json!(limit))),
                any::<bool>().prop_map(|reverse| ("reverse", json!(reverse))),
                since,
            ])
        ),
        (Just("ping"), Just(json!({}))),
        (Just("send"), object(data())),
        (
            Just("rpc"),
            object(prop_oneof![
                data(),
                any::<String>().prop_map(|method| ("method", json!(method))),
            ])
        ),
        (Just("refresh"), object(token())),
        (
            Just("sub_refresh"),
            object(prop_oneof![channel(), token(), kind()])
        ),
    ];
    (any::<u32>(), prop::collection::vec(request, 0..3)).prop_map(|(id, requests)| {
        let mut command = Map::new();
        command.insert("id".to_owned(), json!(id));
        command.extend(
            requests
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Value::Object(command)
    })
}

proptest! {
    /// What another implementation writes is read, and means the same.
    #[test]
    fn valid_commands_are_read_as_they_stand(commands in prop::collection::vec(any_command(), 1..4)) {
        let frames = commands.iter().map(|command| frame(&dynamic::encode("Command", command)));
        let bytes = frames.collect::<Vec<_>>().concat();
        check(&bytes);
        prop_assert_eq!(Commands::new(&bytes).filter(Result::is_ok).count(), commands.len());
    }

    /// A command with some bytes changed, added or lost is read as others would, or refused.
    #[test]
    fn damaged_commands_are_read_or_refused(
        command in any_command(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut bytes = dynamic::encode("Command", &command);
        for (place, byte, kind) in damage {
            let at = place.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        check(&frame(&bytes));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        check(&bytes);
        check(&frame(&bytes));
    }
}
