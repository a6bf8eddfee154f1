//! The parameters of what is done to connections, and of what isn't about one channel: `subscribe`,
//! `unsubscribe`, `disconnect`, `refresh`, `channels`, `rpc`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tautline_auth::Overrides;
use tautline_hub::{ApiRefresh, ApiSubscribe, Target};
use tautline_protocol::message::{Disconnect, Unsubscribe};
use tautline_protocol::{ErrorCode, UnsubscribeCode};
use tautline_websocket::proto::MAX_REASON;

use super::command::Command;
use super::error::{Failure, explained};
use super::params::{Since, bad, integer, object, parse, present, required};

pub(super) fn channels(body: &[u8]) -> Result<Command, Failure> {
    let ChannelsParams { pattern } = parse(body)?;
    let pattern = pattern.filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(|pattern| {
        let read = pattern.parse();
        read.map_err(|error: crate::glob::GlobError| {
            explained(ErrorCode::BadRequest, error.to_string())
        })
    });
    Ok(Command::Channels {
        pattern: pattern.transpose()?,
    })
}

pub(super) fn rpc(body: &[u8]) -> Result<Command, Failure> {
    let RpcParams { method, params } = parse(body)?;
    Ok(Command::Rpc {
        method: required("method", method)?,
        params: params.map_or_else(Bytes::new, copy),
    })
}

pub(super) fn disconnect(body: &[u8]) -> Result<Command, Failure> {
    let params: DisconnectParams = parse(body)?;
    let disconnect = match params.disconnect {
        None => Disconnect::FORCE_DISCONNECT,
        Some(custom) => custom.into_disconnect()?,
    };
    Ok(Command::Disconnect {
        target: target(params.user, params.client, params.session),
        spared: params.whitelist.unwrap_or_default(),
        disconnect,
    })
}

pub(super) fn unsubscribe(body: &[u8]) -> Result<Command, Failure> {
    let params: UnsubscribeParams = parse(body)?;
    let unsubscribe = match params.unsubscribe {
        None => UnsubscribeCode::Server.into(),
        Some(custom) => custom.into_unsubscribe()?,
    };
    Ok(Command::Unsubscribe {
        target: target(params.user, params.client, params.session),
        channel: required("channel", params.channel)?,
        unsubscribe,
    })
}

pub(super) fn refresh(body: &[u8]) -> Result<Command, Failure> {
    let params: RefreshParams<'_> = parse(body)?;
    Ok(Command::Refresh {
        target: target(params.user, params.client, params.session),
        request: ApiRefresh {
            expired: params.expired.unwrap_or_default(),
            expire_at: expire_at(params.expire_at),
            info: value(params.info, params.b64info)?,
        },
    })
}

pub(super) fn subscribe(body: &[u8]) -> Result<Command, Failure> {
    let params: SubscribeParams<'_> = parse(body)?;
    let overrides = params.overrides.unwrap_or_default();
    let value_of = |option: Option<OverrideValue>| option.and_then(|option| option.value);
    Ok(Command::Subscribe {
        target: target(params.user, params.client, params.session),
        request: ApiSubscribe {
            channel: required("channel", params.channel)?,
            info: value(params.info, params.b64info)?,
            data: value(params.data, params.b64data)?,
            recover_since: params.recover_since.map(Since::into_position),
            expire_at: expire_at(params.expire_at),
            overrides: Overrides {
                presence: value_of(overrides.presence),
                join_leave: value_of(overrides.join_leave),
                force_push_join_leave: value_of(overrides.force_push_join_leave),
                force_positioning: value_of(overrides.force_positioning),
                force_recovery: value_of(overrides.force_recovery),
            },
        },
    })
}

/// Which channels to list.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ChannelsParams {
    /// A pattern of channel names such as `chat:*`; `?`, `{a,b}` and `[a-z]` work too. All channels if
    /// it is empty.
    pattern: Option<String>,
}

/// A call to an extension of the server.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RpcParams<'a> {
    /// Name of the extension's method.
    method: Option<String>,
    /// Its parameters, any JSON value.
    #[serde(borrow)]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    params: Option<&'a RawValue>,
}

/// Which connections to end, and how.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct DisconnectParams {
    /// User id. Empty for anonymous connections. May be absent where `client` is there.
    user: Option<String>,
    /// Only the connection with this id.
    client: Option<String>,
    /// Only the connection with this session, which its client was told when it connected; SDKs'
    /// WebSockets have none.
    session: Option<String>,
    /// Ids of connections that stay.
    whitelist: Option<Vec<String>>,
    /// What the clients are told. 3503 "force disconnect" if absent.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<CustomDisconnect>"))]
    disconnect: Option<CustomDisconnect>,
}

/// What a client is told about the end of its connection.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Disconnect"))]
struct CustomDisconnect {
    /// 3000 to 4999; an application's own are 4000 to 4999. Clients come back, except for 3500 to 3999
    /// and 4500 to 4999.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<u32>"))]
    code: Option<u32>,
    /// For developers: at most 123 bytes, and no JSON, which client SDKs would misread.
    reason: Option<String>,
}

/// Which subscriptions to end, and how.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct UnsubscribeParams {
    /// User id. Empty for anonymous connections. May be absent where `client` is there.
    user: Option<String>,
    /// The channel.
    channel: Option<String>,
    /// Only the connection with this id.
    client: Option<String>,
    /// Only the connection with this session, which its client was told when it connected; SDKs'
    /// WebSockets have none.
    session: Option<String>,
    /// What the clients are told. 2000 "server unsubscribe" if absent.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<CustomUnsubscribe>"))]
    unsubscribe: Option<CustomUnsubscribe>,
}

/// What a client is told about the end of its subscription.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Unsubscribe"))]
struct CustomUnsubscribe {
    /// 2000 to 2499: the end. 2500 to 2999: the client subscribes again.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<u32>"))]
    code: Option<u32>,
    /// For developers.
    reason: Option<String>,
}

/// How long which connections live on.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RefreshParams<'a> {
    /// User id. Empty for anonymous connections. May be absent where `client` is there.
    user: Option<String>,
    /// Only the connection with this id.
    client: Option<String>,
    /// Only the connection with this session, which its client was told when it connected; SDKs'
    /// WebSockets have none.
    session: Option<String>,
    /// Not at all: they are closed with 3005.
    expired: Option<bool>,
    /// Until then, in Unix seconds; 0 or absent for ever.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    expire_at: Option<i64>,
    /// What others are shown about them from now on: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    info: Option<&'a RawValue>,
    /// The same in base64.
    b64info: Option<String>,
}

/// A subscription to be made for connections that are there.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SubscribeParams<'a> {
    /// User id. Empty for anonymous connections. May be absent where `client` is there.
    user: Option<String>,
    /// The channel.
    channel: Option<String>,
    /// Only the connection with this id.
    client: Option<String>,
    /// Only the connection with this session, which its client was told when it connected; SDKs'
    /// WebSockets have none.
    session: Option<String>,
    /// What others in the channel are shown about the subscriber: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    info: Option<&'a RawValue>,
    /// The same in base64.
    b64info: Option<String>,
    /// For the client, which gets it with the news: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    data: Option<&'a RawValue>,
    /// The same in base64.
    b64data: Option<String>,
    /// Position from which on the client gets what it has missed.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<Since>"))]
    recover_since: Option<Since>,
    /// When the subscription ends, in Unix seconds; 0 or absent for never.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i64>"))]
    expire_at: Option<i64>,
    /// Options of the namespace that are different for this subscription.
    #[serde(rename = "override", default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideParams>"))]
    overrides: Option<OverrideParams>,
}

/// Options of a namespace, for one subscription.
#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "SubscribeOptionOverride"))]
struct OverrideParams {
    /// Whether the subscriber is listed in presence.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideValue>"))]
    presence: Option<OverrideValue>,
    /// Whether it makes join and leave events.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideValue>"))]
    join_leave: Option<OverrideValue>,
    /// Whether it gets those of others without asking.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideValue>"))]
    force_push_join_leave: Option<OverrideValue>,
    /// Whether it is watched for gaps.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideValue>"))]
    force_positioning: Option<OverrideValue>,
    /// Whether it may recover.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<OverrideValue>"))]
    force_recovery: Option<OverrideValue>,
}

/// An option's value.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "BoolValue"))]
struct OverrideValue {
    /// On or off; absent leaves it as it is.
    value: Option<bool>,
}

impl CustomDisconnect {
    fn into_disconnect(self) -> Result<Disconnect, Failure> {
        let code = self.code.unwrap_or_default();
        let reason = self.reason.unwrap_or_default();
        let known = match code {
            0 => Disconnect::FORCE_DISCONNECT,
            3000..=4999 => Disconnect::from_code(code).unwrap_or(Disconnect {
                code,
                // Never empty: SDKs would come back whatever the code.
                reason: Cow::Borrowed("disconnect"),
            }),
            _ => {
                let text = format!("disconnect.code is {code}, expected 3000 to 4999");
                return Err(explained(ErrorCode::BadRequest, text).into());
            }
        };
        if reason.is_empty() {
            return Ok(known);
        }
        check_reason("disconnect.reason", &reason)?;
        Ok(Disconnect {
            code: known.code,
            reason: Cow::Owned(reason),
        })
    }
}

impl CustomUnsubscribe {
    fn into_unsubscribe(self) -> Result<Unsubscribe, Failure> {
        let code = match self.code.unwrap_or_default() {
            0 => 2000,
            code @ 2000..=2999 => code,
            code => {
                let text = format!("unsubscribe.code is {code}, expected 2000 to 2999");
                return Err(explained(ErrorCode::BadRequest, text).into());
            }
        };
        let reason = self.reason.filter(|reason| !reason.is_empty());
        if let Some(reason) = &reason {
            check_reason("unsubscribe.reason", reason)?;
        }
        let known = UnsubscribeCode::from_number(code).unwrap_or(UnsubscribeCode::Server);
        let known = Unsubscribe::from(known);
        Ok(Unsubscribe {
            code,
            reason: reason.map_or(known.reason, Cow::Owned),
        })
    }
}

/// A reason goes into the Close frame of a WebSocket (RFC 6455, section 5.5), and SDKs take one that
/// is JSON for something else.
fn check_reason(what: &str, reason: &str) -> Result<(), Failure> {
    let text = if reason.len() > MAX_REASON {
        let length = reason.len();
        format!("{what} has {length} bytes, a Close frame has room for {MAX_REASON}")
    } else if serde_json::from_str::<IgnoredAny>(reason).is_ok() {
        format!("{what} is JSON, which client SDKs misread; use plain words")
    } else {
        return Ok(());
    };
    Err(explained(ErrorCode::BadRequest, text).into())
}

/// Which connections are meant. Without a user they are the anonymous ones, unless it is said which
/// connection it is.
fn target(user: Option<String>, client: Option<String>, session: Option<String>) -> Target {
    let client = client.filter(|client| !client.is_empty());
    let session = session.filter(|session| !session.is_empty());
    let user = match user {
        None if client.is_none() => Some(String::new()),
        user => user,
    };
    Target {
        user,
        client,
        session,
    }
}

/// 0 stands for never; a time before 1970 is over like any other.
pub(super) fn expire_at(seconds: Option<i64>) -> Option<u64> {
    let seconds = seconds.filter(|seconds| *seconds != 0)?;
    Some(u64::try_from(seconds).unwrap_or(1))
}

/// A JSON value, from itself or from base64.
fn value(json: Option<&RawValue>, base64: Option<String>) -> Result<Option<Bytes>, Failure> {
    match base64.filter(|text| !text.is_empty()) {
        Some(text) => {
            let decoded = STANDARD
                .decode(text)
                .map_err(|_| bad("`b64data` or `b64info` is no base64 (RFC 4648, with padding)"))?;
            Ok(Some(decoded.into()))
        }
        None => Ok(json.filter(|json| json.get() != "null").map(copy)),
    }
}

/// A copy, so that what is kept doesn't keep the whole body in memory.
fn copy(json: &RawValue) -> Bytes {
    Bytes::copy_from_slice(json.get().as_bytes())
}

/// Schemas of the parameters, for the API's document.
#[cfg(test)]
pub(super) fn schema(method: super::method::Method) -> schemars::Schema {
    use schemars::schema_for;

    use super::method::Method;
    if let Some(schema) = super::revoke::schema(method) {
        return schema;
    }
    match method {
        Method::Channels => schema_for!(ChannelsParams),
        Method::Disconnect => schema_for!(DisconnectParams),
        Method::Refresh => schema_for!(RefreshParams<'_>),
        Method::Rpc => schema_for!(RpcParams<'_>),
        Method::Subscribe => schema_for!(SubscribeParams<'_>),
        Method::Unsubscribe => schema_for!(UnsubscribeParams),
        other => panic!("the parameters of {other} are not here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parse: impl Fn(&[u8]) -> Result<Command, Failure>, body: &str) -> Result<Command, u32> {
        parse(body.as_bytes()).map_err(|failure| match failure {
            Failure::Malformed(_) => 400,
            Failure::Error(error) => error.code,
        })
    }

    fn disconnect_of(body: &str) -> Result<(u32, String), u32> {
        match read(disconnect, body)? {
            Command::Disconnect { disconnect, .. } => {
                Ok((disconnect.code, disconnect.reason.into_owned()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disconnect_is_one_that_sdks_understand() {
        let with = |inner: &str| disconnect_of(&format!(r#"{{"user":"7","disconnect":{inner}}}"#));
        let told = |code: u32, reason: &str| Ok((code, reason.to_owned()));
        assert_eq!(
            disconnect_of(r#"{"user":"7"}"#),
            told(3503, "force disconnect")
        );
        assert_eq!(with("null"), told(3503, "force disconnect"));
        assert_eq!(with("{}"), told(3503, "force disconnect"));
        assert_eq!(with(r#"{"reason":"bye"}"#), told(3503, "bye"));
        assert_eq!(with(r#"{"code":3011}"#), told(3011, "force reconnect"));
        assert_eq!(with(r#"{"code":4501}"#), told(4501, "disconnect"));
        assert_eq!(with(r#"{"code":4000,"reason":"bye"}"#), told(4000, "bye"));
        for refused in [
            r#"{"code":1000}"#,
            r#"{"code":2999}"#,
            r#"{"code":5000}"#,
            r#"{"code":4501,"reason":"true"}"#,
            r#"{"code":4501,"reason":"{\"reconnect\":true}"}"#,
            &format!(r#"{{"code":4501,"reason":"{}"}}"#, "x".repeat(124)),
        ] {
            assert_eq!(with(refused), Err(107), "{refused}");
        }
        assert_eq!(with(r#"{"code":-1}"#), Err(400));
    }

    #[test]
    fn an_unsubscribe_has_a_code_of_its_own_kind() {
        let with = |inner: &str| {
            let body = format!(r#"{{"user":"7","channel":"c","unsubscribe":{inner}}}"#);
            match read(unsubscribe, &body)? {
                Command::Unsubscribe { unsubscribe, .. } => {
                    Ok((unsubscribe.code, unsubscribe.reason.into_owned()))
                }
                other => panic!("{other:?}"),
            }
        };
        let told = |code: u32, reason: &str| Ok::<_, u32>((code, reason.to_owned()));
        assert_eq!(with("null"), told(2000, "server unsubscribe"));
        assert_eq!(with("{}"), told(2000, "server unsubscribe"));
        assert_eq!(with(r#"{"code":2500}"#), told(2500, "insufficient state"));
        assert_eq!(with(r#"{"code":2501}"#), told(2501, "subscription expired"));
        assert_eq!(with(r#"{"code":2502}"#), told(2502, "state invalidated"));
        assert_eq!(with(r#"{"code":2100}"#), told(2100, "server unsubscribe"));
        assert_eq!(with(r#"{"code":2502,"reason":"x"}"#), told(2502, "x"));
        assert_eq!(with(r#"{"code":1999}"#), Err(107));
        assert_eq!(with(r#"{"code":3000}"#), Err(107));
        assert_eq!(read(unsubscribe, r#"{"user":"7"}"#).unwrap_err(), 107);
    }

    #[test]
    fn whom_it_is_about_is_never_everybody() {
        let target_of = |body: &str| match read(refresh, body) {
            Ok(Command::Refresh { target, .. }) => target,
            other => panic!("{other:?}"),
        };
        let user = |user: &str| Target {
            user: Some(user.into()),
            ..Target::default()
        };
        assert_eq!(target_of("{}"), user(""));
        assert_eq!(
            target_of(r#"{"user":"","client":"","session":""}"#),
            user("")
        );
        assert_eq!(target_of(r#"{"user":"7"}"#), user("7"));
        let client = Target {
            client: Some("c".into()),
            ..Target::default()
        };
        assert_eq!(target_of(r#"{"client":"c"}"#), client);
        let both = Target {
            session: Some("s".into()),
            ..user("7")
        };
        assert_eq!(target_of(r#"{"user":"7","session":"s"}"#), both);
    }

    #[test]
    fn a_subscription_has_all_that_is_asked_for() {
        let body = r#"{"user":"7","channel":"c","info": {"a": 1},"b64data":"WzFd",
            "recover_since":{"offset":3,"epoch":"e"},"expire_at":-5,
            "override":{"presence":{"value":true},"join_leave":{},"force_recovery":{"value":false}}}"#;
        let Ok(Command::Subscribe { request, .. }) = read(subscribe, body) else {
            panic!("it is right");
        };
        assert_eq!(request.info.as_deref(), Some(&br#"{"a": 1}"#[..]));
        assert_eq!(request.data.as_deref(), Some(&b"[1]"[..]));
        assert_eq!(request.recover_since.map(|since| since.offset), Some(3));
        assert_eq!(request.expire_at, Some(1), "over, and not never");
        let expected = Overrides {
            presence: Some(true),
            force_recovery: Some(false),
            ..Overrides::default()
        };
        assert_eq!(request.overrides, expected);
        for (body, code) in [
            (r#"{"user":"7"}"#, 107),
            (r#"{"channel":"c","b64info":"!"}"#, 107),
            (r#"{"channel":"c","override":{"presence":true}}"#, 400),
        ] {
            assert_eq!(read(subscribe, body).unwrap_err(), code, "{body}");
        }
        assert_eq!(read(channels, r#"{"pattern":"["}"#).unwrap_err(), 107);
        assert_eq!(read(rpc, "{}").unwrap_err(), 107);
    }
}
