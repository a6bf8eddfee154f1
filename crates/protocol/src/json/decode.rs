//! Reading commands: one frame in, borrowed commands out.
//!
//! Nothing here allocates but for strings that hold escapes and for the maps of a connect command.
//! What a stranger can make large (a frame) is limited by the transport; what a stranger can make
//! deep, or larger in memory than in the frame, is limited here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::filter::RawFilter;
use crate::message::{
    Command, ConnectRequest, HistoryRequest, MAX_HEADERS, MAX_SUBS, PresenceRequest,
    PresenceStatsRequest, PublishRequest, RefreshRequest, Request, RpcRequest, SendRequest,
    StreamPosition, SubRefreshRequest, SubscribeRequest, Text, UnsubscribeRequest,
};

/// How deep arrays and objects may nest in a command, payloads included.
///
/// Payloads are never parsed here, but they are by every subscriber, and many parsers recurse.
pub const MAX_DEPTH: usize = 128;

/// Iterates over the commands of one frame.
///
/// Ends after the first error: nothing behind a command that can't be read is looked at. The
/// commands before it are valid, and are the caller's to execute.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    /// What is still to be read; `None` at the end and after an error.
    rest: Option<&'a str>,
}

impl<'a> Commands<'a> {
    /// Starts reading `frame`, one or more objects separated by `\n`, with at most one `\n` after
    /// the last.
    pub fn new(frame: &'a str) -> Self {
        Self { rest: Some(frame) }
    }

    /// The commands not yet read, as text for another [`Commands`]; `None` when there are none.
    pub fn rest(&self) -> Option<&'a str> {
        self.rest
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let line = match rest.split_once('\n') {
            Some((line, behind)) => {
                // A single line break may end the frame.
                self.rest = (!behind.is_empty()).then_some(behind);
                line
            }
            None => {
                self.rest = None;
                rest
            }
        };
        let command = decode(line);
        if command.is_err() {
            self.rest = None;
        }
        Some(command)
    }
}

/// Checks that `payload` can be sent to JSON connections: one JSON value in UTF-8, nested no deeper
/// than [`MAX_DEPTH`].
///
/// # Errors
///
/// What is wrong with it.
pub fn check_payload(payload: &[u8]) -> Result<(), DecodeError> {
    check_depth(payload)?;
    serde_json::from_slice::<&RawValue>(payload).map_err(DecodeError::Syntax)?;
    Ok(())
}

/// Why a command (or a payload) can't be read. All of these end a connection with
/// [`Disconnect::BAD_REQUEST`](crate::Disconnect::BAD_REQUEST).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame with nothing in it, or a blank line between commands.
    #[error("expected a command, found an empty line; separate commands by a single \\n")]
    Empty,
    /// Not JSON, a field of another type than the protocol says, or a map with more keys than are taken.
    #[error("not the JSON that was expected: {}", brief(.0))]
    Syntax(#[source] serde_json::Error),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("arrays and objects nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// What is wrong, in no more than some words: where a string isn't what was expected, serde says all of it, and that may
/// be as long as a frame. What was expected stands behind it, and where.
pub(crate) fn brief(error: &serde_json::Error) -> String {
    const KEPT: usize = 120;
    let text = error.to_string();
    if text.len() <= 2 * KEPT {
        return text;
    }
    let begin = &text[..text.floor_char_boundary(KEPT)];
    let end = &text[text.ceil_char_boundary(text.len() - KEPT)..];
    format!("{begin} … {end}")
}

fn decode(line: &str) -> Result<Command<'_>, DecodeError> {
    if line.trim_ascii().is_empty() {
        return Err(DecodeError::Empty);
    }
    check_depth(line.as_bytes())?;
    let wire: Object<WireCommand<'_>> = serde_json::from_str(line).map_err(DecodeError::Syntax)?;
    Ok(wire.0.into())
}

/// serde_json limits the depth of what it builds, but not of what it skips or keeps raw.
fn check_depth(text: &[u8]) -> Result<(), DecodeError> {
    // Nothing nests deeper than it has opening brackets, and counting those is fast.
    let openings = text
        .iter()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count();
    if openings <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DecodeError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

// The structs below mirror the wire. A field that is `null` counts as absent, unknown fields are
// skipped, a known field of a wrong type or given twice is an error.

#[derive(serde::Deserialize)]
struct WireCommand<'a> {
    #[serde(default)]
    id: Option<u32>,
    #[serde(borrow, default)]
    connect: Option<Object<WireConnect<'a>>>,
    #[serde(borrow, default)]
    subscribe: Option<Object<WireSubscribe<'a>>>,
    #[serde(borrow, default)]
    unsubscribe: Option<Object<WireChannel<'a>>>,
    #[serde(borrow, default)]
    publish: Option<Object<WirePublish<'a>>>,
    #[serde(borrow, default)]
    presence: Option<Object<WireChannel<'a>>>,
    #[serde(borrow, default)]
    presence_stats: Option<Object<WireChannel<'a>>>,
    #[serde(borrow, default)]
    history: Option<Object<WireHistory<'a>>>,
    #[serde(default)]
    ping: Option<Object<WirePing>>,
    #[serde(borrow, default)]
    send: Option<Object<WireSend<'a>>>,
    #[serde(borrow, default)]
    rpc: Option<Object<WireRpc<'a>>>,
    #[serde(borrow, default)]
    refresh: Option<Object<WireRefresh<'a>>>,
    #[serde(borrow, default)]
    sub_refresh: Option<Object<WireSubRefresh<'a>>>,
}

impl<'a> From<WireCommand<'a>> for Command<'a> {
    /// Where a command asks for several things, the first of the protocol's order counts.
    fn from(wire: WireCommand<'a>) -> Self {
        let request = if let Some(Object(connect)) = wire.connect {
            Some(Request::Connect(connect.into()))
        } else if let Some(subscribe) = wire.subscribe {
            Some(Request::Subscribe(subscribe.into()))
        } else if let Some(Object(WireChannel { channel })) = wire.unsubscribe {
            Some(Request::Unsubscribe(UnsubscribeRequest {
                channel: channel.0,
            }))
        } else if let Some(Object(publish)) = wire.publish {
            Some(Request::Publish(PublishRequest {
                channel: publish.channel.0,
                data: publish.data.0,
                kind: publish.kind.unwrap_or_default(),
            }))
        } else if let Some(Object(WireChannel { channel })) = wire.presence {
            Some(Request::Presence(PresenceRequest { channel: channel.0 }))
        } else if let Some(Object(WireChannel { channel })) = wire.presence_stats {
            Some(Request::PresenceStats(PresenceStatsRequest {
                channel: channel.0,
            }))
        } else if let Some(Object(history)) = wire.history {
            Some(Request::History(history.into()))
        } else if let Some(Object(WireRpc { data, method })) = wire.rpc {
            Some(Request::Rpc(RpcRequest {
                data: data.0,
                method: method.0,
            }))
        } else if let Some(Object(WireSend { data })) = wire.send {
            Some(Request::Send(SendRequest { data: data.0 }))
        } else if let Some(Object(WireRefresh { token })) = wire.refresh {
            Some(Request::Refresh(RefreshRequest { token: token.0 }))
        } else if let Some(Object(sub_refresh)) = wire.sub_refresh {
            Some(Request::SubRefresh(sub_refresh.into()))
        } else {
            wire.ping.map(|_| Request::Ping)
        };
        Self {
            id: wire.id.unwrap_or_default(),
            request,
        }
    }
}

#[derive(serde::Deserialize)]
struct WireConnect<'a> {
    #[serde(borrow, default)]
    token: Str<'a>,
    #[serde(borrow, default)]
    data: Raw<'a>,
    #[serde(borrow, default)]
    subs: Entries<'a, Object<WireSubscribe<'a>>, SubscribeRequest<'a>, MAX_SUBS>,
    #[serde(borrow, default)]
    name: Str<'a>,
    #[serde(borrow, default)]
    version: Str<'a>,
    #[serde(borrow, default)]
    headers: Entries<'a, Str<'a>, Text<'a>, MAX_HEADERS>,
}

impl<'a> From<WireConnect<'a>> for ConnectRequest<'a> {
    fn from(wire: WireConnect<'a>) -> Self {
        Self {
            token: wire.token.0,
            data: wire.data.0,
            subs: wire.subs.map,
            name: wire.name.0,
            version: wire.version.0,
            headers: wire.headers.map,
        }
    }
}

#[derive(serde::Deserialize)]
struct WireSubscribe<'a> {
    #[serde(borrow, default)]
    channel: Str<'a>,
    #[serde(borrow, default)]
    token: Str<'a>,
    #[serde(default)]
    recover: Option<bool>,
    #[serde(borrow, default)]
    epoch: Str<'a>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(borrow, default)]
    data: Raw<'a>,
    #[serde(default)]
    positioned: Option<bool>,
    #[serde(default)]
    recoverable: Option<bool>,
    #[serde(default)]
    join_leave: Option<bool>,
    #[serde(borrow, default)]
    delta: Str<'a>,
    #[serde(borrow, default)]
    tf: Option<&'a RawValue>,
    #[serde(default)]
    flag: Option<i64>,
    #[serde(default, rename = "type")]
    kind: Option<i32>,
}

impl<'a> From<Object<WireSubscribe<'a>>> for SubscribeRequest<'a> {
    fn from(Object(wire): Object<WireSubscribe<'a>>) -> Self {
        Self {
            channel: wire.channel.0,
            token: wire.token.0,
            recover: wire.recover.unwrap_or_default(),
            epoch: wire.epoch.0,
            offset: wire.offset.unwrap_or_default(),
            data: wire.data.0,
            positioned: wire.positioned.unwrap_or_default(),
            recoverable: wire.recoverable.unwrap_or_default(),
            join_leave: wire.join_leave.unwrap_or_default(),
            delta: wire.delta.0,
            tags_filter: wire.tf.map(|tf| RawFilter::Json(tf.get())),
            flag: wire.flag.unwrap_or_default(),
            kind: wire.kind.unwrap_or_default(),
        }
    }
}

/// The requests that name a channel and nothing else.
#[derive(serde::Deserialize)]
struct WireChannel<'a> {
    #[serde(borrow, default)]
    channel: Str<'a>,
}

#[derive(serde::Deserialize)]
struct WirePublish<'a> {
    #[serde(borrow, default)]
    channel: Str<'a>,
    #[serde(borrow, default)]
    data: Raw<'a>,
    #[serde(default, rename = "type")]
    kind: Option<i32>,
}

#[derive(serde::Deserialize)]
struct WireHistory<'a> {
    #[serde(borrow, default)]
    channel: Str<'a>,
    #[serde(default)]
    limit: Option<i32>,
    #[serde(borrow, default)]
    since: Option<Object<WirePosition<'a>>>,
    #[serde(default)]
    reverse: Option<bool>,
}

#[derive(serde::Deserialize)]
struct WirePosition<'a> {
    #[serde(default)]
    offset: Option<u64>,
    #[serde(borrow, default)]
    epoch: Str<'a>,
}

impl<'a> From<WireHistory<'a>> for HistoryRequest<'a> {
    fn from(wire: WireHistory<'a>) -> Self {
        Self {
            channel: wire.channel.0,
            limit: wire.limit.unwrap_or_default(),
            since: wire.since.map(|Object(since)| StreamPosition {
                offset: since.offset.unwrap_or_default(),
                epoch: Arc::from(since.epoch.0),
            }),
            reverse: wire.reverse.unwrap_or_default(),
        }
    }
}

#[derive(serde::Deserialize)]
struct WirePing {}

#[derive(serde::Deserialize)]
struct WireSend<'a> {
    #[serde(borrow, default)]
    data: Raw<'a>,
}

#[derive(serde::Deserialize)]
struct WireRpc<'a> {
    #[serde(borrow, default)]
    data: Raw<'a>,
    #[serde(borrow, default)]
    method: Str<'a>,
}

#[derive(serde::Deserialize)]
struct WireRefresh<'a> {
    #[serde(borrow, default)]
    token: Str<'a>,
}

#[derive(serde::Deserialize)]
struct WireSubRefresh<'a> {
    #[serde(borrow, default)]
    channel: Str<'a>,
    #[serde(borrow, default)]
    token: Str<'a>,
    #[serde(default, rename = "type")]
    kind: Option<i32>,
}

impl<'a> From<WireSubRefresh<'a>> for SubRefreshRequest<'a> {
    fn from(wire: WireSubRefresh<'a>) -> Self {
        Self {
            channel: wire.channel.0,
            token: wire.token.0,
            kind: wire.kind.unwrap_or_default(),
        }
    }
}

/// A JSON object. Serde alone would also take a list: its elements for the fields, in the order of
/// their declaration.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// An object of any keys, with at most `MOST` of them. Its values are read as `W`, and kept as `V`.
struct Entries<'a, W, V, const MOST: usize> {
    map: BTreeMap<Text<'a>, V>,
    read_as: PhantomData<W>,
}

impl<W, V, const MOST: usize> Default for Entries<'_, W, V, MOST> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            read_as: PhantomData,
        }
    }
}

impl<'de: 'a, 'a, W, V, const MOST: usize> Deserialize<'de> for Entries<'a, W, V, MOST>
where
    W: Deserialize<'de> + Into<V>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self::default())
    }
}

impl<'de: 'a, 'a, W, V, const MOST: usize> Visitor<'de> for Entries<'a, W, V, MOST>
where
    W: Deserialize<'de> + Into<V>,
{
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with at most {MOST} keys")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((Str(key), value)) = map.next_entry::<_, W>()? {
            self.map.insert(key, value.into());
            if self.map.len() > MOST {
                return Err(A::Error::invalid_length(self.map.len(), &self));
            }
        }
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

impl<'a> From<Str<'a>> for Text<'a> {
    fn from(Str(text): Str<'a>) -> Self {
        text
    }
}

/// A string that borrows from the frame where it can: serde's own `Cow` always copies inside of
/// options and map keys.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Str<'a>(pub(crate) Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrVisitor;

        impl<'de> Visitor<'de> for StrVisitor {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Str::default())
            }
        }

        // `any`, so that a null is offered to the visitor; what is neither is refused by it.
        deserializer.deserialize_any(StrVisitor)
    }
}

/// A payload: one JSON value as text. An explicit `null` is a payload too.
#[derive(Default)]
struct Raw<'a>(Option<&'a [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(Self(Some(raw.get().as_bytes())))
    }
}
