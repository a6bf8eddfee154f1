//! The bodies: what a backend is asked, and what it may answer. Names and meanings are Centrifugo's.
//!
//! `null` is as good as nothing everywhere but in the result of a call, where it is a result.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tautline_auth::Overrides;
use tautline_hub::application::{
    ConnectReply, PublishInstead, PublishReply, RefreshReply, RpcReply, SubscribeReply,
};
use tautline_protocol::message::Error;
use tautline_protocol::{Disconnect, ErrorCode};

/// A question. What is `None` or empty is not there.
#[derive(Default, Serialize)]
pub(super) struct Question<'a> {
    pub(super) client: &'a str,
    pub(super) transport: &'a str,
    pub(super) protocol: &'a str,
    pub(super) encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b64data: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meta: Option<&'a RawValue>,
}

impl<'a> Question<'a> {
    /// Puts a payload in; an empty one is none.
    ///
    /// # Errors
    ///
    /// Error 107 for one that isn't JSON, where it would have to be.
    pub(super) fn with_data(
        mut self,
        data: Option<&'a Bytes>,
        is_binary: bool,
    ) -> Result<Self, ErrorCode> {
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            return Ok(self);
        };
        if is_binary {
            self.b64data = Some(STANDARD.encode(data));
        } else {
            let data = serde_json::from_slice(data).map_err(|_| ErrorCode::BadRequest)?;
            self.data = Some(data);
        }
        Ok(self)
    }

    /// The body.
    pub(super) fn to_body(&self) -> Bytes {
        // Nothing of it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<R> {
    /// As asked; `None` where nothing was said at all.
    Result(Option<R>),
    Error(Error),
    Disconnect(Disconnect),
}

/// Reads an answer. Of several members the disconnect counts, then the error.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn read<R: DeserializeOwned>(body: &[u8]) -> Result<Verdict<R>, String> {
    let envelope = serde_json::from_slice::<Object<Envelope<R>>>(body);
    let Object(envelope) = envelope.map_err(|error| error.to_string())?;
    if let Some(Object(WireDisconnect { code, reason })) = envelope.disconnect {
        return disconnect(code, reason.unwrap_or_default()).map(Verdict::Disconnect);
    }
    if let Some(Object(WireError {
        code,
        message,
        temporary,
    })) = envelope.error
    {
        let (message, temporary) = (message.unwrap_or_default(), temporary.unwrap_or_default());
        return error(code, message, temporary).map(Verdict::Error);
    }
    Ok(Verdict::Result(
        envelope.result.map(|Object(result)| result),
    ))
}

/// An error that a backend may send its clients.
pub(super) fn error(code: u32, message: String, temporary: bool) -> Result<Error, String> {
    if !(100..2000).contains(&code) {
        return Err(format!(
            "has the error code {code}, expected 400 to 1999 (or one of the protocol's from 100 on)"
        ));
    }
    Ok(Error {
        code,
        message: message.into(),
        temporary,
    })
}

/// A disconnect that a backend may send its clients.
pub(super) fn disconnect(code: u32, reason: String) -> Result<Disconnect, String> {
    if !(3000..5000).contains(&code) {
        return Err(format!(
            "has the disconnect code {code}, expected 4000 to 4999 (or one of the protocol's from 3000 on)"
        ));
    }
    if reason.len() > MAX_REASON {
        return Err(format!(
            "has a reason of {} bytes, a Close frame has room for {MAX_REASON}",
            reason.len()
        ));
    }
    if !reason.is_empty() && serde_json::from_str::<IgnoredAny>(&reason).is_ok() {
        return Err("has a reason that is JSON, which SDKs misread; use plain words".to_owned());
    }
    let known = Disconnect::from_code(code);
    let reason = match (reason.is_empty(), known) {
        (true, Some(known)) => known.reason,
        // Never empty: SDKs would come back whatever the code.
        (true, None) => Cow::Borrowed("disconnect"),
        (false, _) => Cow::Owned(reason),
    };
    Ok(Disconnect { code, reason })
}

#[derive(Deserialize)]
#[serde(bound = "R: DeserializeOwned")]
struct Envelope<R> {
    #[serde(default)]
    result: Option<Object<R>>,
    #[serde(default)]
    error: Option<Object<WireError>>,
    #[serde(default)]
    disconnect: Option<Object<WireDisconnect>>,
}

/// A JSON object, and nothing else: serde would take a list for the members in their order, and an empty
/// one for an object without any, which allows things.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for AnObject<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer
            .deserialize_map(AnObject(PhantomData))
            .map(Self)
    }
}

#[derive(Deserialize)]
struct WireError {
    #[serde(default)]
    code: u32,
    message: Option<String>,
    temporary: Option<bool>,
}

#[derive(Deserialize)]
struct WireDisconnect {
    #[serde(default)]
    code: u32,
    reason: Option<String>,
}

/// A JSON value, or the same in base64, which counts where it isn't empty.
type Value = Option<Box<RawValue>>;

/// # Errors
///
/// What is no base64.
fn value(json: &Value, base64: Option<&str>) -> Result<Option<Bytes>, String> {
    match base64.filter(|text| !text.is_empty()) {
        Some(text) => {
            let decoded = STANDARD.decode(text);
            let decoded = decoded.map_err(|_| "has something in base64 that is none".to_owned())?;
            Ok(Some(decoded.into()))
        }
        None => Ok(json
            .as_ref()
            .filter(|json| json.get() != "null")
            .map(|json| Bytes::copy_from_slice(json.get().as_bytes()))),
    }
}

/// The end of something in Unix seconds; 0 is as good as none, and what is negative has been long ago.
fn expire_at(seconds: Option<i64>) -> Option<u64> {
    let seconds = seconds.filter(|seconds| *seconds != 0)?;
    Some(u64::try_from(seconds).unwrap_or(1))
}

/// May a client come in?
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectResult {
    user: Option<String>,
    expire_at: Option<i64>,
    info: Value,
    b64info: Option<String>,
    data: Value,
    b64data: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Option<Object<SubscribeResult>>>>,
    meta: Value,
}

impl ConnectResult {
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn into_reply(self) -> Result<ConnectReply, String> {
        let mut subs = BTreeMap::new();
        for channel in self.channels.unwrap_or_default() {
            subs.insert(channel, SubscribeReply::default());
        }
        for (channel, sub) in self.subs.unwrap_or_default() {
            let sub = sub.map_or_else(SubscribeResult::default, |Object(sub)| sub);
            subs.insert(channel, sub.into_reply()?);
        }
        Ok(ConnectReply {
            user: Some(self.user.unwrap_or_default()),
            info: value(&self.info, self.b64info.as_deref())?,
            meta: value(&self.meta, None)?,
            data: value(&self.data, self.b64data.as_deref())?,
            expire_at: expire_at(self.expire_at),
            subs,
            ..ConnectReply::default()
        })
    }
}

/// May a client subscribe?
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SubscribeResult {
    expire_at: Option<i64>,
    info: Value,
    b64info: Option<String>,
    data: Value,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<Object<WireOverrides>>,
}

impl SubscribeResult {
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn into_reply(self) -> Result<SubscribeReply, String> {
        let overrides = self.overrides;
        let overrides = overrides.map_or_else(WireOverrides::default, |Object(some)| some);
        let flag = |option: Option<Object<Flag>>| option.and_then(|Object(option)| option.value);
        Ok(SubscribeReply {
            info: value(&self.info, self.b64info.as_deref())?,
            data: value(&self.data, self.b64data.as_deref())?,
            overrides: Overrides {
                presence: flag(overrides.presence),
                join_leave: flag(overrides.join_leave),
                force_push_join_leave: flag(overrides.force_push_join_leave),
                force_positioning: flag(overrides.force_positioning),
                force_recovery: flag(overrides.force_recovery),
            },
            expire_at: expire_at(self.expire_at),
            ..SubscribeReply::default()
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireOverrides {
    presence: Option<Object<Flag>>,
    join_leave: Option<Object<Flag>>,
    force_push_join_leave: Option<Object<Flag>>,
    force_positioning: Option<Object<Flag>>,
    force_recovery: Option<Object<Flag>>,
}

#[derive(Debug, Deserialize)]
struct Flag {
    value: Option<bool>,
}

/// May a client publish, and what?
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PublishResult {
    data: Value,
    b64data: Option<String>,
    skip_history: Option<bool>,
    tags: Option<BTreeMap<String, String>>,
    idempotency_key: Option<String>,
    delta: Option<bool>,
    version: Option<u64>,
    version_epoch: Option<String>,
}

impl PublishResult {
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn into_reply(self) -> Result<PublishReply, String> {
        Ok(PublishReply::Instead(PublishInstead {
            data: value(&self.data, self.b64data.as_deref())?,
            tags: self.tags.unwrap_or_default(),
            skip_history: self.skip_history.unwrap_or_default(),
            idempotency_key: self.idempotency_key.filter(|key| !key.is_empty()),
            delta: self.delta.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            version_epoch: self.version_epoch.unwrap_or_default(),
        }))
    }
}

/// What a call returns.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RpcResult {
    #[serde(deserialize_with = "present")]
    data: Value,
    b64data: Option<String>,
}

impl RpcResult {
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn into_reply(self) -> Result<RpcReply, String> {
        let null = || Some(Bytes::from_static(b"null")).filter(|_| self.data.is_some());
        let data = value(&self.data, self.b64data.as_deref())?.or_else(null);
        Ok(RpcReply { data })
    }
}

/// A value that counts where it is `null`, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Does a connection, or a subscription, live on?
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RefreshResult {
    expired: Option<bool>,
    expire_at: Option<i64>,
    info: Value,
    b64info: Option<String>,
    meta: Value,
}

impl RefreshResult {
    /// `None` if it doesn't.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn into_reply(self) -> Result<Option<RefreshReply>, String> {
        if self.expired.unwrap_or_default() {
            return Ok(None);
        }
        Ok(Some(RefreshReply {
            expire_at: expire_at(self.expire_at),
            info: value(&self.info, self.b64info.as_deref())?,
            meta: value(&self.meta, None)?,
        }))
    }
}

/// What RFC 6455 leaves for a reason in a Close frame.
const MAX_REASON: usize = 123;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result<R: DeserializeOwned + fmt::Debug>(body: &str) -> Option<R> {
        match read::<R>(body.as_bytes()) {
            Ok(Verdict::Result(result)) => result,
            other => panic!("{body} is no result: {other:?}"),
        }
    }

    #[test]
    fn questions_are_written_as_backends_know_them() {
        let question = Question {
            client: "5f0c",
            transport: "websocket",
            protocol: "json",
            encoding: "json",
            user: Some("7"),
            channel: Some("chat:7"),
            ..Question::default()
        };
        let data = Bytes::from_static(br#" {"text":"hi", "n":1.0} "#);
        let question = question.with_data(Some(&data), false).unwrap();
        let meta = RawValue::from_string(r#"{"plan":"pro"}"#.to_owned()).unwrap();
        let question = Question {
            meta: Some(&meta),
            ..question
        };
        // The payload as it came: numbers too.
        let expected = concat!(
            r#"{"client":"5f0c","transport":"websocket","protocol":"json","encoding":"json","user":"7","#,
            r#""channel":"chat:7","data":{"text":"hi", "n":1.0},"meta":{"plan":"pro"}}"#
        );
        assert_eq!(question.to_body(), expected);
        let empty = Bytes::new();
        for data in [None, Some(&empty)] {
            let question = Question::default().with_data(data, false).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&question.to_body()).unwrap();
            let expected = json!({"client":"","transport":"","protocol":"","encoding":""});
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn payloads_of_any_bytes_need_base64() {
        let bytes = Bytes::from_static(b"\xff\x00");
        let refused = Question::default().with_data(Some(&bytes), false).err();
        assert_eq!(refused, Some(ErrorCode::BadRequest));
        let question = Question::default().with_data(Some(&bytes), true).unwrap();
        assert_eq!(question.b64data.as_deref(), Some("/wA="));
    }

    #[test]
    fn of_several_members_the_gravest_counts() {
        let all = r#"{"result":{},"error":{"code":1000,"message":"no"},"disconnect":{"code":4000,"reason":"bye"}}"#;
        let disconnect = Disconnect {
            code: 4000,
            reason: "bye".into(),
        };
        assert_eq!(read::<()>(b"{}").unwrap(), Verdict::Result(None));
        let read = |body: &str| read::<RpcResultForTests>(body.as_bytes()).unwrap();
        assert_eq!(read(all), Verdict::Disconnect(disconnect));
        let error = Error {
            code: 1000,
            message: "no".into(),
            temporary: true,
        };
        let body = r#"{"result":{},"error":{"code":1000,"message":"no","temporary":true},"disconnect":null}"#;
        assert_eq!(read(body), Verdict::Error(error));
        let body = r#"{"result":null,"error":null,"disconnect":null,"more":1}"#;
        assert_eq!(read(body), Verdict::Result(None));
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct RpcResultForTests {}

    #[test]
    fn answers_that_clients_must_not_see_are_none() {
        for (body, part) in [
            ("", "EOF"),
            ("[]", "expected an object"),
            (r#"{"result":[]}"#, "expected an object"),
            (r#"{"error":[1000]}"#, "expected an object"),
            (r#"{"disconnect":[4000]}"#, "expected an object"),
            ("<html>", "expected value"),
            (r#"{"error":{"message":"no code"}}"#, "error code 0"),
            (r#"{"error":{"code":2000}}"#, "error code 2000"),
            (r#"{"disconnect":{"code":1000}}"#, "disconnect code 1000"),
            (r#"{"disconnect":{"code":5000}}"#, "disconnect code 5000"),
            (
                r#"{"disconnect":{"code":4000,"reason":"{}"}}"#,
                "plain words",
            ),
            (r#"{"result":{"data":"#, "EOF"),
        ] {
            let error = read::<RpcResult>(body.as_bytes()).expect_err(body);
            assert!(error.contains(part), "{body}: {error}");
        }
        let long = format!(
            r#"{{"disconnect":{{"code":4000,"reason":"{}"}}}}"#,
            "x".repeat(124)
        );
        assert!(
            read::<()>(long.as_bytes())
                .unwrap_err()
                .contains("124 bytes")
        );
        let known = r#"{"disconnect":{"code":3503}}"#;
        let expected = Verdict::Disconnect(Disconnect::FORCE_DISCONNECT);
        assert_eq!(
            read::<RpcResultForTests>(known.as_bytes()).unwrap(),
            expected
        );
    }

    #[test]
    fn results_become_replies() {
        let body = concat!(
            r#"{"result":{"user":"7","expire_at":1900000000,"info":{"name":"Ann"},"b64data":"AAE=","#,
            r#""data":"not this one","channels":["news"],"subs":{"a":{"override":{"presence":{"value":false}},"#,
            r#""expire_at":-1},"b":null},"meta":{"plan":"pro"},"caps":[]}}"#
        );
        let reply = result::<ConnectResult>(body).unwrap().into_reply().unwrap();
        assert_eq!(reply.user.as_deref(), Some("7"));
        assert_eq!(reply.expire_at, Some(1_900_000_000));
        assert_eq!(reply.info.unwrap(), r#"{"name":"Ann"}"#);
        assert_eq!(reply.data.unwrap(), &b"\x00\x01"[..]);
        assert_eq!(reply.meta.unwrap(), r#"{"plan":"pro"}"#);
        assert_eq!(reply.subs.keys().collect::<Vec<_>>(), ["a", "b", "news"]);
        assert_eq!(reply.subs["a"].overrides.presence, Some(false));
        assert_eq!(reply.subs["a"].expire_at, Some(1), "long ago");

        let body =
            r#"{"result":{"user":null,"info":null,"channels":null,"subs":null,"expire_at":0}}"#;
        let reply = result::<ConnectResult>(body).unwrap().into_reply().unwrap();
        assert_eq!(reply, ConnectReply::anonymous());

        let body = r#"{"result":{"data":{"n":1},"skip_history":true,"tags":{"a":"b"},"idempotency_key":"k","delta":true,"version":3,"version_epoch":"e"}}"#;
        let reply = result::<PublishResult>(body).unwrap().into_reply().unwrap();
        let expected = PublishInstead {
            data: Some(Bytes::from_static(br#"{"n":1}"#)),
            tags: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            skip_history: true,
            idempotency_key: Some("k".into()),
            delta: true,
            version: 3,
            version_epoch: "e".into(),
        };
        assert_eq!(reply, PublishReply::Instead(expected));

        let rpc = |body: &str| result::<RpcResult>(body).unwrap().into_reply();
        assert_eq!(rpc(r#"{"result":{"data":null}}"#).unwrap(), "null".into());
        assert_eq!(rpc(r#"{"result":{}}"#).unwrap(), ().into());
        assert_eq!(
            rpc(r#"{"result":{"data":{"year":2026}}}"#).unwrap(),
            r#"{"year":2026}"#.into()
        );
        assert!(
            rpc(r#"{"result":{"b64data":"*"}}"#)
                .unwrap_err()
                .contains("base64")
        );

        let lists = r#"{"result":{"override":{"presence":[true]}}}"#;
        assert!(read::<SubscribeResult>(lists.as_bytes()).is_err());

        let refresh = |body: &str| result::<RefreshResult>(body).unwrap().into_reply().unwrap();
        assert_eq!(
            refresh(r#"{"result":{"expired":true,"expire_at":5}}"#),
            None
        );
        let expected = RefreshReply {
            expire_at: Some(5),
            ..RefreshReply::default()
        };
        assert_eq!(refresh(r#"{"result":{"expire_at":5}}"#), Some(expected));
        assert_eq!(
            refresh(r#"{"result":{}}"#),
            Some(RefreshReply::default()),
            "for ever"
        );
    }
}
