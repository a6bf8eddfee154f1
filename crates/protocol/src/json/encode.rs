//! Writing replies: by hand, straight into the caller's buffer.
//!
//! A field at its default is left out, apart from those that SDKs read without looking: results,
//! the user and client of a [`ClientInfo`], presence, the numbers of presence stats, and the
//! fields of a history result.

use super::decode::check_payload;
use crate::message::{
    ClientInfo, ConnectResult, Disconnect, Error, HistoryResult, Payload, PresenceResult,
    PresenceStatsResult, Publication, Push, RefreshResult, Reply, Response, RpcResult, Subscribe,
    SubscribeResult, Unsubscribe,
};

/// Appends `reply` to `out` as one JSON object without a line break in it.
///
/// Payloads are copied as they are, less raw line breaks: they must be valid JSON (see
/// [`check_payload`](super::check_payload)), or the object isn't either.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    match reply {
        Reply::Ping => {}
        Reply::Answer(id, answer) => {
            object.number_unless_zero("id", u64::from(*id));
            match answer {
                Ok(response) => encode_response(response, &mut object),
                Err(error) => object.object("error", |object| encode_error(error, object)),
            }
        }
        Reply::Push(push) => object.object("push", |object| encode_push_fields(push, object)),
    }
    object.end();
}

/// Appends `push` to `out` as one JSON object, without the reply around it: for transports that carry
/// pushes alone.
pub fn encode_push(push: &Push, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    encode_push_fields(push, &mut object);
    object.end();
}

/// Appends what `response` holds to `out` as one JSON object, without the reply around it: for the
/// HTTP API, whose results have the same fields.
pub fn encode_result(response: &Response, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    encode_response_fields(response, &mut object);
    object.end();
}

/// Appends a history result to `out` as [`encode_result`] does, for readers of JSON who may have to be
/// told payloads that aren't: those are written as `b64data`, in the text that `base64` makes of them,
/// instead of as `data`.
pub fn encode_history(result: &HistoryResult, base64: impl Fn(&[u8]) -> String, out: &mut Vec<u8>) {
    let mut object = Object::new(out);
    object.array(
        "publications",
        &result.publications,
        |publication, object| {
            let data = &publication.data;
            if check_payload(data).is_ok() {
                object.payload("data", data);
            } else {
                object.text("b64data", &base64(data));
            }
            encode_rest(publication, object);
        },
    );
    encode_position(result, &mut object);
    object.end();
}

/// A JSON string that holds `payload`, byte for byte; `None` if that isn't UTF-8.
pub fn quote(payload: &[u8]) -> Option<Payload> {
    let text = std::str::from_utf8(payload).ok()?;
    // Of a payload that is JSON, little has to be escaped but its quotation marks.
    let mut quoted = Vec::with_capacity(payload.len() + payload.len() / 4 + 2);
    write_string(text, &mut quoted);
    Some(quoted.into())
}

fn encode_response(response: &Response, reply: &mut Object<'_>) {
    let name = match response {
        Response::Connect(_) => "connect",
        Response::Subscribe(_) => "subscribe",
        Response::Unsubscribe => "unsubscribe",
        Response::Publish => "publish",
        Response::Presence(_) => "presence",
        Response::PresenceStats(_) => "presence_stats",
        Response::History(_) => "history",
        Response::Rpc(_) => "rpc",
        Response::Refresh(_) => "refresh",
        Response::SubRefresh(_) => "sub_refresh",
    };
    reply.object(name, |object| encode_response_fields(response, object));
}

fn encode_response_fields(response: &Response, object: &mut Object<'_>) {
    match response {
        Response::Connect(result) => encode_connect(result, object),
        Response::Subscribe(result) => encode_subscribe(result, object),
        Response::Unsubscribe | Response::Publish => {}
        Response::Presence(result) => encode_presence(result, object),
        Response::PresenceStats(result) => encode_presence_stats(*result, object),
        Response::History(result) => encode_history_fields(result, object),
        Response::Rpc(RpcResult { data }) => object.payload_if_some("data", data.as_ref()),
        Response::Refresh(result) | Response::SubRefresh(result) => {
            encode_expiry(result.ttl, object);
        }
    }
}

fn encode_error(error: &Error, object: &mut Object<'_>) {
    object.number_unless_zero("code", u64::from(error.code));
    object.text_unless_empty("message", &error.message);
    object.true_if("temporary", error.temporary);
}

fn encode_connect(result: &ConnectResult, object: &mut Object<'_>) {
    object.text_unless_empty("client", &result.client);
    object.text_unless_empty("version", &result.version);
    encode_expiry(result.ttl, object);
    object.payload_if_some("data", result.data.as_ref());
    if !result.subs.is_empty() {
        object.object("subs", |subs| {
            for (channel, sub) in &result.subs {
                subs.object(channel, |o| encode_subscribe(sub, o));
            }
        });
    }
    object.number_unless_zero("ping", u64::from(result.ping));
    object.true_if("pong", result.pong);
    object.text_unless_empty("session", result.session.as_deref().unwrap_or_default());
    object.text_unless_empty("node", result.node.as_deref().unwrap_or_default());
    object.signed_unless_zero("time", result.time.unwrap_or_default());
}

fn encode_subscribe(result: &SubscribeResult, object: &mut Object<'_>) {
    encode_expiry(result.ttl, object);
    object.true_if("recoverable", result.recoverable);
    object.true_if("positioned", result.positioned);
    object.text_unless_empty("epoch", &result.epoch);
    object.number_unless_zero("offset", result.offset);
    object.true_if("was_recovering", result.was_recovering);
    object.true_if("recovered", result.recovered);
    if !result.publications.is_empty() {
        object.array("publications", &result.publications, encode_publication);
    }
    object.payload_if_some("data", result.data.as_ref());
    object.true_if("delta", result.delta);
}

fn encode_presence(result: &PresenceResult, object: &mut Object<'_>) {
    object.object("presence", |presence| {
        for (client, info) in &result.presence {
            presence.object(client, |o| encode_client_info(info, o));
        }
    });
}

fn encode_presence_stats(result: PresenceStatsResult, object: &mut Object<'_>) {
    object.number("num_clients", u64::from(result.num_clients));
    object.number("num_users", u64::from(result.num_users));
}

fn encode_history_fields(result: &HistoryResult, object: &mut Object<'_>) {
    object.array("publications", &result.publications, encode_publication);
    encode_position(result, object);
}

fn encode_position(result: &HistoryResult, object: &mut Object<'_>) {
    object.text("epoch", &result.position.epoch);
    object.number("offset", result.position.offset);
}

/// `ttl` is never zero where there is one; SDKs would refresh in a tight loop.
fn encode_expiry(ttl: Option<u32>, object: &mut Object<'_>) {
    if let Some(ttl) = ttl {
        object.true_if("expires", true);
        object.number("ttl", u64::from(ttl));
    }
}

fn encode_push_fields(push: &Push, object: &mut Object<'_>) {
    match push {
        Push::Publication(channel, publication) => {
            object.text_unless_empty("channel", channel);
            object.object("pub", |o| encode_publication(publication, o));
        }
        Push::Join(channel, info) => {
            object.text_unless_empty("channel", channel);
            object.object("join", |o| {
                o.object("info", |o| encode_client_info(info, o));
            });
        }
        Push::Leave(channel, info) => {
            object.text_unless_empty("channel", channel);
            object.object("leave", |o| {
                o.object("info", |o| encode_client_info(info, o));
            });
        }
        Push::Unsubscribe(channel, Unsubscribe { code, reason }) => {
            object.text_unless_empty("channel", channel);
            object.object("unsubscribe", |o| {
                o.number_unless_zero("code", u64::from(*code));
                o.text_unless_empty("reason", reason);
            });
        }
        Push::Subscribe(channel, subscribe) => {
            object.text_unless_empty("channel", channel);
            object.object("subscribe", |o| encode_subscribe_push(subscribe, o));
        }
        Push::Message(data) => object.object("message", |o| o.payload("data", data)),
        Push::Connect(result) => object.object("connect", |o| encode_connect(result, o)),
        Push::Refresh(RefreshResult { ttl }) => {
            object.object("refresh", |o| encode_expiry(*ttl, o));
        }
        Push::Disconnect(Disconnect { code, reason }) => object.object("disconnect", |o| {
            o.number_unless_zero("code", u64::from(*code));
            o.text_unless_empty("reason", reason);
        }),
    }
}

fn encode_subscribe_push(subscribe: &Subscribe, object: &mut Object<'_>) {
    object.true_if("recoverable", subscribe.recoverable);
    object.true_if("positioned", subscribe.positioned);
    object.text_unless_empty("epoch", &subscribe.position.epoch);
    object.number_unless_zero("offset", subscribe.position.offset);
    object.payload_if_some("data", subscribe.data.as_ref());
}

fn encode_publication(publication: &Publication, object: &mut Object<'_>) {
    object.payload("data", &publication.data);
    encode_rest(publication, object);
}

/// All of a publication but its data.
fn encode_rest(publication: &Publication, object: &mut Object<'_>) {
    if let Some(info) = &publication.info {
        object.object("info", |o| encode_client_info(info, o));
    }
    object.number_unless_zero("offset", publication.offset);
    if !publication.tags.is_empty() {
        object.object("tags", |tags| {
            for (key, value) in &publication.tags {
                tags.text(key, value);
            }
        });
    }
    object.true_if("delta", publication.delta);
    object.signed_unless_zero("time", publication.time);
    if let Some(channel) = &publication.channel {
        object.text_unless_empty("channel", channel);
    }
}

fn encode_client_info(info: &ClientInfo, object: &mut Object<'_>) {
    object.text("user", &info.user);
    object.text("client", &info.client);
    object.payload_if_some("conn_info", info.conn_info.as_ref());
    object.payload_if_some("chan_info", info.chan_info.as_ref());
}

/// An object being written: puts the commas where they belong.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        write_string(key, self.out);
        self.out.push(b':');
    }

    fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut object = Object::new(self.out);
        fill(&mut object);
        object.end();
    }

    fn array<T>(
        &mut self,
        key: &str,
        items: &[std::sync::Arc<T>],
        fill: impl Fn(&T, &mut Object<'_>),
    ) {
        self.key(key);
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = Object::new(self.out);
            fill(item, &mut object);
            object.end();
        }
        self.out.push(b']');
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_string(text, self.out);
    }

    fn text_unless_empty(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        write_number(number, self.out);
    }

    fn number_unless_zero(&mut self, key: &str, number: u64) {
        if number != 0 {
            self.number(key, number);
        }
    }

    fn signed_unless_zero(&mut self, key: &str, number: i64) {
        if number != 0 {
            self.key(key);
            if number < 0 {
                self.out.push(b'-');
            }
            write_number(number.unsigned_abs(), self.out);
        }
    }

    fn true_if(&mut self, key: &str, value: bool) {
        if value {
            self.key(key);
            self.out.extend_from_slice(b"true");
        }
    }

    fn payload(&mut self, key: &str, payload: &Payload) {
        self.key(key);
        write_payload(payload, self.out);
    }

    fn payload_if_some(&mut self, key: &str, payload: Option<&Payload>) {
        if let Some(payload) = payload {
            self.payload(key, payload);
        }
    }
}

/// Copies a payload without its raw line breaks. An absent one is written as `null`, so that the
/// object around it stays valid.
fn write_payload(payload: &[u8], out: &mut Vec<u8>) {
    if payload.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    if !has_line_break(payload) {
        out.extend_from_slice(payload);
        return;
    }
    for part in payload.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(part);
    }
}

/// In blocks without a way out of them, which is what a compiler makes vector instructions of.
fn has_line_break(payload: &[u8]) -> bool {
    let is_break = |byte: &u8| u8::from(*byte == b'\n') | u8::from(*byte == b'\r');
    let mut blocks = payload.chunks_exact(32);
    let any = |block: &[u8]| block.iter().fold(0, |found, byte| found | is_break(byte)) != 0;
    blocks.by_ref().any(any) || any(blocks.remainder())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[clean_from..index]);
        clean_from = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (control >> 4, control & 0xf);
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(high)], HEX[usize::from(low)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[clean_from..]);
    out.push(b'"');
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    // The longest, 2^64 - 1, has twenty digits.
    let mut digits = [0_u8; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}
