//! What a backend may answer to each question, and the hub's reply that it comes to.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tautline_auth::Overrides;
use tautline_hub::application::{
    ConnectReply, PublishInstead, PublishReply, RefreshReply, RpcReply, SubscribeReply,
};

use crate::object::Object;

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
pub(in crate::proxy) struct ConnectResult {
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
    pub(in crate::proxy) fn into_reply(self) -> Result<ConnectReply, String> {
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
pub(in crate::proxy) struct SubscribeResult {
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
    pub(in crate::proxy) fn into_reply(self) -> Result<SubscribeReply, String> {
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
pub(in crate::proxy) struct PublishResult {
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
    pub(in crate::proxy) fn into_reply(self) -> Result<PublishReply, String> {
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
pub(in crate::proxy) struct RpcResult {
    #[serde(deserialize_with = "present")]
    data: Value,
    b64data: Option<String>,
}

impl RpcResult {
    /// # Errors
    ///
    /// What is wrong with it.
    pub(in crate::proxy) fn into_reply(self) -> Result<RpcReply, String> {
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
pub(in crate::proxy) struct RefreshResult {
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
    pub(in crate::proxy) fn into_reply(self) -> Result<Option<RefreshReply>, String> {
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

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde::de::DeserializeOwned;

    use super::super::{Verdict, read};
    use super::*;

    fn result<R: DeserializeOwned + fmt::Debug>(body: &str) -> Option<R> {
        match read::<R>(body.as_bytes()) {
            Ok(Verdict::Result(result)) => result,
            other => panic!("{body} is no result: {other:?}"),
        }
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
            rpc(r#"{"result":{"data":"\ud800"}}"#).unwrap(),
            r#""\ud800""#.into()
        );
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
