//! Our commands in the neutral form of `dynamic`, from whichever encoding they were read.

use serde_json::{Map, Value, json};
use tautline_protocol::filter::RawFilter;
use tautline_protocol::message::{Command, Request, SubscribeRequest};

use super::dynamic::{decode, hex};

/// One of our commands in the neutral form.
pub(crate) fn neutral(command: &Command<'_>) -> Value {
    let mut object = Fields::default();
    object.number("id", command.id.into());
    if let Some(request) = &command.request {
        let (name, value) = request_fields(request);
        object.0.insert(name.to_owned(), value);
    }
    object.end()
}

fn request_fields(request: &Request<'_>) -> (&'static str, Value) {
    let mut o = Fields::default();
    let name = match request {
        Request::Connect(connect) => {
            o.text("token", &connect.token);
            o.payload("data", connect.data);
            o.text("name", &connect.name);
            o.text("version", &connect.version);
            let subs = connect.subs.iter();
            o.map(
                "subs",
                subs.map(|(channel, sub)| (&**channel, subscribe_fields(sub))),
            );
            let headers = connect.headers.iter();
            o.map(
                "headers",
                headers.map(|(name, value)| (&**name, json!(value))),
            );
            "connect"
        }
        Request::Subscribe(subscribe) => return ("subscribe", subscribe_fields(subscribe)),
        Request::Unsubscribe(request) => {
            o.text("channel", &request.channel);
            "unsubscribe"
        }
        Request::Publish(publish) => {
            o.text("channel", &publish.channel);
            o.payload("data", publish.data);
            o.number("type", publish.kind.into());
            "publish"
        }
        Request::Presence(request) => {
            o.text("channel", &request.channel);
            "presence"
        }
        Request::PresenceStats(request) => {
            o.text("channel", &request.channel);
            "presence_stats"
        }
        Request::History(history) => {
            o.text("channel", &history.channel);
            o.number("limit", history.limit.into());
            if let Some(since) = &history.since {
                let mut position = Fields::default();
                position.number("offset", since.offset.into());
                position.text("epoch", &since.epoch);
                o.0.insert("since".to_owned(), position.end());
            }
            o.flag("reverse", history.reverse);
            "history"
        }
        Request::Ping => "ping",
        Request::Send(send) => {
            o.payload("data", send.data);
            "send"
        }
        Request::Rpc(rpc) => {
            o.payload("data", rpc.data);
            o.text("method", &rpc.method);
            "rpc"
        }
        Request::Refresh(refresh) => {
            o.text("token", &refresh.token);
            "refresh"
        }
        Request::SubRefresh(refresh) => {
            o.text("channel", &refresh.channel);
            o.text("token", &refresh.token);
            o.number("type", refresh.kind.into());
            "sub_refresh"
        }
        other => panic!("an unknown request: {other:?}"),
    };
    (name, o.end())
}

fn subscribe_fields(subscribe: &SubscribeRequest<'_>) -> Value {
    let mut o = Fields::default();
    o.text("channel", &subscribe.channel);
    o.text("token", &subscribe.token);
    o.flag("recover", subscribe.recover);
    o.text("epoch", &subscribe.epoch);
    o.number("offset", subscribe.offset.into());
    o.payload("data", subscribe.data);
    o.flag("positioned", subscribe.positioned);
    o.flag("recoverable", subscribe.recoverable);
    o.flag("join_leave", subscribe.join_leave);
    o.text("delta", &subscribe.delta);
    let filter = match &subscribe.tags_filter {
        Some(RawFilter::Json(text)) => serde_json::from_str(text).ok(),
        Some(RawFilter::Protobuf(bytes)) => decode("FilterNode", bytes).ok(),
        _ => None,
    };
    if let Some(filter) = filter {
        o.0.insert("tf".to_owned(), filter);
    }
    o.number("flag", subscribe.flag.into());
    o.number("type", subscribe.kind.into());
    o.end()
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.0.insert(key.to_owned(), json!(text));
        }
    }

    fn number(&mut self, key: &str, number: i128) {
        if number != 0 {
            let number = serde_json::from_str(&number.to_string()).expect("a number");
            self.0.insert(key.to_owned(), number);
        }
    }

    fn flag(&mut self, key: &str, flag: bool) {
        if flag {
            self.0.insert(key.to_owned(), json!(true));
        }
    }

    fn payload(&mut self, key: &str, payload: Option<&[u8]>) {
        self.text(key, &hex(payload.unwrap_or_default()));
    }

    fn map<'a>(&mut self, key: &str, entries: impl Iterator<Item = (&'a str, Value)>) {
        let entries: Map<String, Value> = entries
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        if !entries.is_empty() {
            self.0.insert(key.to_owned(), Value::Object(entries));
        }
    }

    fn end(self) -> Value {
        Value::Object(self.0)
    }
}
