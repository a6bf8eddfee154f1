//! What must hold for the command decoder, whatever text comes. The fuzz target `command` calls
//! this with what it invents, ordinary tests with the corpus and with generated commands.

use serde_json::Value;
use tautline_protocol::filter::RawFilter;
use tautline_protocol::json::{Commands, check_payload};
use tautline_protocol::message::{Command, Request, SubscribeRequest};

pub(crate) fn check(data: &[u8]) {
    // Whatever is a payload by itself can be checked as one.
    let is_payload = check_payload(data).is_ok();
    let Ok(frame) = std::str::from_utf8(data) else {
        assert!(!is_payload, "a payload that is not UTF-8");
        return;
    };
    let mut commands = Commands::new(frame);
    let mut lines = frame.split('\n');
    let mut is_over = false;
    loop {
        let resumed = commands.rest();
        let Some(command) = commands.next() else {
            break;
        };
        assert!(!is_over, "something behind an error");
        // Whoever reads on from the rest reads the same.
        let again = Commands::new(resumed.expect("there was a rest")).next();
        let line = lines.next().expect("no more commands than lines");
        match command {
            Ok(command) => {
                assert_eq!(again.and_then(Result::ok), Some(command.clone()));
                check_command(line, &command);
            }
            Err(error) => {
                assert!(again.is_some_and(|again| again.is_err()));
                assert!(error.to_string().len() < 400, "as long as what was sent");
                is_over = true;
            }
        }
    }
    assert!(commands.next().is_none());
    if !is_over {
        assert!(
            matches!(lines.next(), None | Some("")),
            "a line was left out"
        );
        assert_eq!(lines.next(), None);
    }
}

/// Compares a command with what a general JSON parser makes of the same line.
fn check_command(line: &str, command: &Command<'_>) {
    // The general parser refuses some things in places that we only pass through, such as numbers
    // beyond its range.
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(line) else {
        assert!(line.trim_start().starts_with('{'));
        return;
    };
    let whole = Value::Object(object);
    assert_eq!(u64::from(command.id), whole["id"].as_u64().unwrap_or(0));
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
    let first = names.into_iter().find(|name| !whole[*name].is_null());
    let Some(name) = first else {
        assert_eq!(command.request, None);
        return;
    };
    let request = command
        .request
        .as_ref()
        .expect("a request that is there is seen");
    let value = &whole[name];
    let is_text = |key: &str, text: &str| value[key].as_str().unwrap_or("") == text;
    match request {
        Request::Connect(connect) => {
            assert_eq!(name, "connect");
            assert!(is_text("token", &connect.token));
            assert!(is_text("name", &connect.name) && is_text("version", &connect.version));
            check_raw(&value["data"], value.get("data").is_some(), connect.data);
            let subs = value["subs"].as_object();
            assert_eq!(connect.subs.len(), subs.map_or(0, serde_json::Map::len));
            let headers = value["headers"].as_object();
            assert_eq!(
                connect.headers.len(),
                headers.map_or(0, serde_json::Map::len)
            );
            for (name, content) in &connect.headers {
                assert_eq!(value["headers"][&**name].as_str().unwrap_or(""), content);
            }
            for (channel, sub) in &connect.subs {
                check_subscribe(&value["subs"][&**channel], sub);
            }
        }
        Request::Subscribe(subscribe) => {
            assert_eq!(name, "subscribe");
            check_subscribe(value, subscribe);
        }
        Request::Unsubscribe(unsubscribe) => {
            assert_eq!(name, "unsubscribe");
            assert!(is_text("channel", &unsubscribe.channel));
        }
        Request::Publish(publish) => {
            assert_eq!(name, "publish");
            assert!(is_text("channel", &publish.channel));
            assert_eq!(i64::from(publish.kind), value["type"].as_i64().unwrap_or(0));
            check_raw(&value["data"], value.get("data").is_some(), publish.data);
        }
        Request::Presence(presence) => {
            assert_eq!(name, "presence");
            assert!(is_text("channel", &presence.channel));
        }
        Request::PresenceStats(stats) => {
            assert_eq!(name, "presence_stats");
            assert!(is_text("channel", &stats.channel));
        }
        Request::History(history) => {
            assert_eq!(name, "history");
            assert!(is_text("channel", &history.channel));
            assert_eq!(
                i64::from(history.limit),
                value["limit"].as_i64().unwrap_or(0)
            );
            assert_eq!(history.reverse, value["reverse"].as_bool().unwrap_or(false));
            assert_eq!(history.since.is_some(), !value["since"].is_null());
            if let Some(since) = &history.since {
                assert_eq!(since.offset, value["since"]["offset"].as_u64().unwrap_or(0));
                assert_eq!(
                    &*since.epoch,
                    value["since"]["epoch"].as_str().unwrap_or("")
                );
            }
        }
        Request::Rpc(rpc) => {
            assert_eq!(name, "rpc");
            assert!(is_text("method", &rpc.method));
            check_raw(&value["data"], value.get("data").is_some(), rpc.data);
        }
        Request::Send(send) => {
            assert_eq!(name, "send");
            check_raw(&value["data"], value.get("data").is_some(), send.data);
        }
        Request::Refresh(refresh) => {
            assert_eq!(name, "refresh");
            assert!(is_text("token", &refresh.token));
        }
        Request::SubRefresh(refresh) => {
            assert_eq!(name, "sub_refresh");
            assert!(is_text("channel", &refresh.channel) && is_text("token", &refresh.token));
            assert_eq!(i64::from(refresh.kind), value["type"].as_i64().unwrap_or(0));
        }
        Request::Ping => assert_eq!(name, "ping"),
        other => panic!("an unknown request: {other:?}"),
    }
}

fn check_subscribe(value: &Value, subscribe: &SubscribeRequest<'_>) {
    let is_text = |key: &str, text: &str| value[key].as_str().unwrap_or("") == text;
    let is_true = |key: &str| value[key].as_bool().unwrap_or(false);
    assert!(is_text("channel", &subscribe.channel) && is_text("token", &subscribe.token));
    assert!(is_text("epoch", &subscribe.epoch) && is_text("delta", &subscribe.delta));
    assert_eq!(subscribe.recover, is_true("recover"));
    assert_eq!(subscribe.positioned, is_true("positioned"));
    assert_eq!(subscribe.recoverable, is_true("recoverable"));
    assert_eq!(subscribe.join_leave, is_true("join_leave"));
    assert_eq!(subscribe.offset, value["offset"].as_u64().unwrap_or(0));
    assert_eq!(subscribe.flag, value["flag"].as_i64().unwrap_or(0));
    assert_eq!(
        i64::from(subscribe.kind),
        value["type"].as_i64().unwrap_or(0)
    );
    let RawFilter::Json(filter) = subscribe
        .tags_filter
        .clone()
        .unwrap_or(RawFilter::Json("null"))
    else {
        panic!("a filter of another encoding");
    };
    assert_eq!(
        serde_json::from_str::<Value>(filter).ok().as_ref(),
        Some(&value["tf"])
    );
    check_raw(&value["data"], value.get("data").is_some(), subscribe.data);
}

/// A payload is there if its key is, and its text means what the general parser read.
fn check_raw(value: &Value, is_there: bool, raw: Option<&[u8]>) {
    assert_eq!(raw.is_some(), is_there);
    if let Some(raw) = raw {
        check_payload(raw).expect("a payload that was taken from a command");
        assert_eq!(
            serde_json::from_slice::<Value>(raw).ok().as_ref(),
            Some(value)
        );
    }
}
