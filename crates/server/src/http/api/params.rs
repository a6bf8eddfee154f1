//! The parameters of each call: JSON in, the node's requests out.
//!
//! Unknown parameters are ignored, `null` counts as absent, a wrong type is a malformed body (400),
//! and what can be read but makes no sense is error 107. The bytes of `data` are kept as they are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tautline_hub::ApiPublish;
use tautline_protocol::ErrorCode;
use tautline_protocol::message::StreamPosition;

use super::ApiLimits;
use super::command::Command;
use super::error::{Failure, explained};
use crate::http::node::{History, Presence};
use crate::object::Object;

/// `publish`.
pub(super) fn publish(body: &[u8]) -> Result<ApiPublish, Failure> {
    let mut params: PublishParams<'_> = parse(body)?;
    let channel = required("channel", params.channel.take())?;
    Ok(ApiPublish {
        channel,
        ..params.into_publish()?
    })
}

/// `broadcast`: the same publication for each of the channels.
pub(super) fn broadcast(body: &[u8], limits: &ApiLimits) -> Result<Command, Failure> {
    let mut params: PublishParams<'_> = parse(body)?;
    let channels = params.channels.take().unwrap_or_default();
    if channels.is_empty() {
        return Err(bad("expected `channels`, with one at least"));
    }
    let (count, most) = (channels.len(), limits.max_broadcast_channels);
    if count > most {
        let text = format!(
            "{count} channels, at most {most} are accepted in one call \
             (http_api.max_broadcast_channels); send them in several"
        );
        return Err(explained(ErrorCode::LimitExceeded, text).into());
    }
    Ok(Command::Broadcast {
        channels,
        publish: params.into_publish()?,
    })
}

/// `presence`: a channel, and how many of those in it; whether a part of them is asked for.
pub(super) fn presence(body: &[u8]) -> Result<(Presence, bool), Failure> {
    let PresenceParams {
        channel,
        limit,
        cursor,
        sample,
    } = parse(body)?;
    let channel = required("channel", channel)?;
    let cursor = cursor.filter(|cursor| !cursor.is_empty());
    let sample = sample.unwrap_or_default();
    // 0 is what it is when it isn't there, as everywhere.
    let limit = limit.filter(|limit| *limit > 0);
    let is_page = limit.is_some() || cursor.is_some() || sample;
    let presence = Presence {
        channel,
        limit,
        cursor,
        sample,
    };
    Ok((presence, is_page))
}

/// `presence_stats` and `history_remove`: a channel.
pub(super) fn channel(body: &[u8]) -> Result<String, Failure> {
    let ChannelParams { channel } = parse(body)?;
    required("channel", channel)
}

/// `history`.
pub(super) fn history(body: &[u8]) -> Result<History, Failure> {
    let HistoryParams {
        channel,
        limit,
        since,
        reverse,
    } = parse(body)?;
    let since = since.map(Since::into_position);
    Ok(History {
        channel: required("channel", channel)?,
        // A negative number stands for all.
        limit: u32::try_from(limit.unwrap_or_default()).ok(),
        since,
        reverse: reverse.unwrap_or_default(),
    })
}

/// `info`, `debug` and `reload`: nothing, but an object all the same.
pub(super) fn none(body: &[u8]) -> Result<(), Failure> {
    parse(body).map(|NoParams {}| ())
}

/// Nothing.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct NoParams {}

/// A channel.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ChannelParams {
    /// The channel.
    channel: Option<String>,
}

/// Who is in a channel, or a part of them.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PresenceParams {
    /// The channel.
    channel: Option<String>,
    /// At most so many: a page, with the cursor of the next one.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<u32>"))]
    limit: Option<u32>,
    /// The cursor with which the page before ended.
    cursor: Option<String>,
    /// Anybody, not the first in order.
    sample: Option<bool>,
}

/// A publication, for the channel of `publish`, or for the channels of `broadcast`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PublishParams<'a> {
    /// The channel.
    channel: Option<String>,
    /// The channels.
    channels: Option<Vec<String>>,
    /// The payload: any JSON value, `null` too. It is kept byte for byte.
    // So `null` must be told from no payload.
    #[serde(borrow, default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    data: Option<&'a RawValue>,
    /// The payload in base64, instead of `data`.
    b64data: Option<String>,
    /// Labels, delivered with the publication, and usable by filters.
    tags: Option<BTreeMap<String, String>>,
    /// The same key in the same channel is published once in five minutes; at most 255 bytes.
    idempotency_key: Option<String>,
    /// Deliver it, but don't keep it: it has no offset then.
    skip_history: Option<bool>,
    /// Send it as a patch to those who take them.
    delta: Option<bool>,
    /// Publish only if the channel's version is less; 0 for none.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    version: Option<u64>,
    /// What the version counts in; versions of different epochs can't be compared.
    version_epoch: Option<String>,
    /// Id of the only connection that doesn't get it, such as that of the client for which it is published.
    exclude_client: Option<String>,
}

/// A page of what a channel keeps.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HistoryParams {
    /// The channel.
    channel: Option<String>,
    /// How many at the most: 0 for the position alone, -1 for all.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<i32>"))]
    limit: Option<i32>,
    /// Where to begin, exclusive; the oldest that is kept (or the newest, in reverse) if absent.
    #[serde(default, deserialize_with = "object")]
    #[cfg_attr(test, schemars(with = "Option<Since>"))]
    since: Option<Since>,
    /// Newest first.
    reverse: Option<bool>,
}

/// A position in a channel's stream.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "StreamPosition"))]
pub(super) struct Since {
    /// Offset of a publication.
    #[serde(default, deserialize_with = "integer")]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    offset: Option<u64>,
    /// Incarnation of the stream.
    epoch: Option<String>,
}

impl Since {
    pub(super) fn into_position(self) -> StreamPosition {
        StreamPosition {
            offset: self.offset.unwrap_or_default(),
            epoch: self.epoch.unwrap_or_default().into(),
        }
    }
}

impl PublishParams<'_> {
    /// The publication, for a channel that is still to be filled in.
    fn into_publish(self) -> Result<ApiPublish, Failure> {
        let had_base64 = self.b64data.is_some();
        let data = match (self.b64data.filter(|text| !text.is_empty()), self.data) {
            (Some(base64), _) => {
                let decoded = STANDARD.decode(base64);
                Bytes::from(
                    decoded.map_err(|_| bad("`b64data` is no base64 (RFC 4648, with padding)"))?,
                )
            }
            // A copy, so that what is stored doesn't keep the whole body in memory.
            (None, Some(json)) => Bytes::copy_from_slice(json.get().as_bytes()),
            // Nothing at all, said in so many words: for namespaces that take it.
            (None, None) if had_base64 => Bytes::new(),
            (None, None) => return Err(bad("expected `data`, or `b64data`")),
        };
        Ok(ApiPublish {
            channel: String::new(),
            data,
            tags: self.tags.unwrap_or_default(),
            idempotency_key: self.idempotency_key,
            skip_history: self.skip_history.unwrap_or_default(),
            delta: self.delta.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            version_epoch: self.version_epoch.unwrap_or_default(),
            exclude_client: self.exclude_client.unwrap_or_default(),
        })
    }
}

/// An object that is read into the struct `T`, or nothing.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let object = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(object.map(|Object(inner)| inner))
}

/// A whole number, however it is written: JSON knows no other kind than numbers, and `5.0` is 5. Or
/// nothing.
pub(super) fn integer<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let whole = number.as_i128().or_else(|| {
        let float = number.as_f64()?;
        // Beyond, a float has neighbours that were written differently.
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i128)
    });
    let fitting = whole.and_then(|whole| T::try_from(whole).ok());
    let fitting = fitting.ok_or_else(|| {
        let range = range_of::<T>();
        D::Error::custom(format_args!(
            "the number {number} is not a whole one{range}"
        ))
    });
    fitting.map(Some)
}

/// From where to where the whole numbers of a type go.
fn range_of<T: TryFrom<i128>>() -> String {
    let fits = |number: i128| T::try_from(number).is_ok();
    let ranges = [
        (0, u32::MAX.into()),
        (0, u64::MAX.into()),
        (i32::MIN.into(), i32::MAX.into()),
        (i64::MIN.into(), i64::MAX.into()),
    ];
    let is_it = |(least, most): &(i128, i128)| {
        fits(*least) && fits(*most) && !fits(least - 1) && !fits(most + 1)
    };
    let range = ranges.into_iter().find(is_it);
    range.map_or_else(String::new, |(least, most)| {
        format!(" from {least} to {most}")
    })
}

/// Up to here a float is exact: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a body as the parameters `T`. Only an object will do: serde would take a list as well,
/// for the values of the fields.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        let came = if body.is_empty() {
            "an empty body"
        } else {
            "something else"
        };
        let reason = format!("expected a JSON object (`{{}}` for no parameters), got {came}");
        return Err(Failure::Malformed(reason));
    }
    serde_json::from_slice(body).map_err(|error| Failure::Malformed(error.to_string()))
}

/// A parameter that there has to be, by its name.
pub(super) fn required(name: &str, value: Option<String>) -> Result<String, Failure> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| bad(&format!("expected `{name}`, which can't be empty")))
}

/// Error 107, with what is wrong.
pub(super) fn bad(what: &str) -> Failure {
    explained(ErrorCode::BadRequest, what).into()
}

pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Schemas of the parameters, for the API's document.
#[cfg(test)]
pub(super) fn schema(method: super::method::Method) -> schemars::Schema {
    use schemars::schema_for;

    use super::method::Method;
    match method {
        Method::Publish | Method::Broadcast => schema_for!(PublishParams<'_>),
        Method::History => schema_for!(HistoryParams),
        Method::Presence => schema_for!(PresenceParams),
        Method::HistoryRemove | Method::PresenceStats => schema_for!(ChannelParams),
        Method::Batch => super::batch::schema(),
        Method::Debug | Method::Info | Method::Reload => schema_for!(NoParams),
        other if other.is_about_events() => super::dead::schema(other),
        other => super::control::schema(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(body: &str) -> Result<Bytes, u32> {
        publish(body.as_bytes())
            .map(|publish| publish.data)
            .map_err(code)
    }

    /// 400 for a body that can't be read, the error's code otherwise.
    fn code(failure: Failure) -> u32 {
        match failure {
            Failure::Malformed(_) => 400,
            Failure::Error(error) => error.code,
        }
    }

    #[test]
    fn errors_say_what_is_expected() {
        let told = |body: &str| publish(body.as_bytes()).err().unwrap().to_string();
        assert_eq!(
            told(r#"{"data":1}"#),
            "bad request: expected `channel`, which can't be empty"
        );
        assert_eq!(
            told(r#"{"channel":"c"}"#),
            "bad request: expected `data`, or `b64data`"
        );
        assert_eq!(
            told(r#"{"channel":"c","b64data":"!"}"#),
            "bad request: `b64data` is no base64 (RFC 4648, with padding)"
        );
        let told = told(r#"{"channel":"c","data":1,"version":-3}"#);
        assert!(
            told.contains("the number -3 is not a whole one from 0 to 18446744073709551615"),
            "{told}"
        );
        let told = history(br#"{"channel":"c","limit":5000000000}"#)
            .err()
            .unwrap();
        let told = told.to_string();
        assert!(told.contains("from -2147483648 to 2147483647"), "{told}");
    }

    #[test]
    fn payloads_keep_their_bytes() {
        for json in [
            r#"{"text" :  "hi","n":1.0,"big":123456789012345678901234567890}"#,
            r#""\u00e9\/é""#,
            "null",
            "0",
            "[ ]",
        ] {
            let body = format!(r#"{{"channel":"c", "data": {json} }}"#);
            assert_eq!(data(&body).unwrap(), json);
        }
    }

    #[test]
    fn base64_wins_over_data_when_it_is_there() {
        assert_eq!(
            data(r#"{"channel":"c","data":1,"b64data":"Mg=="}"#).unwrap(),
            "2"
        );
        assert_eq!(
            data(r#"{"channel":"c","data":1,"b64data":""}"#).unwrap(),
            "1"
        );
        assert_eq!(data(r#"{"channel":"c","b64data":"Mg"}"#), Err(107));
        assert_eq!(data(r#"{"channel":"c","b64data":"!"}"#), Err(107));
    }

    #[test]
    fn what_can_not_be_published_is_refused() {
        for (body, expected) in [
            ("", 400),
            ("[]", 400),
            (r#"["c",1]"#, 400),
            ("null", 400),
            ("{", 400),
            (r#"{"channel":"c","data":1}x"#, 400),
            (r#"{"channel":7,"data":1}"#, 400),
            (r#"{"channel":"c","data":1,"skip_history":"yes"}"#, 400),
            (r#"{"channel":"c","data":1,"tags":{"a":1}}"#, 400),
            (r#"{"channel":"c","data":01}"#, 400),
            ("{}", 107),
            (r#"{"data":1}"#, 107),
            (r#"{"channel":"","data":1}"#, 107),
            (r#"{"channel":null,"data":1}"#, 107),
            (r#"{"channel":"c"}"#, 107),
            (r#"{"channel":"c","data":1,"version":-3}"#, 400),
            (r#"{"channel":"c","data":1,"version":1.5}"#, 400),
            (r#"{"channel":"c","data":1,"version":1e40}"#, 400),
            (r#"{"channel":"c","data":1,"version":"1"}"#, 400),
        ] {
            assert_eq!(data(body), Err(expected), "{body}");
        }
    }

    #[test]
    fn all_parameters_are_read() {
        let body = br#" {"channel":"c","data":1,"tags":{"lang":"en"},"idempotency_key":"k",
            "skip_history":true,"delta":true,"version":3,"version_epoch":"e","exclude_client":"c1","unknown":[{}]}"#;
        let publish = publish(body).map_err(code).unwrap();
        assert_eq!(publish.channel, "c");
        assert_eq!(publish.tags["lang"], "en");
        assert_eq!(publish.idempotency_key.as_deref(), Some("k"));
        assert_eq!(publish.exclude_client, "c1");
        assert!(publish.skip_history && publish.delta);
        assert_eq!((publish.version, &*publish.version_epoch), (3, "e"));
        let nulls = br#"{"channel":"c","data":1,"tags":null,"skip_history":null}"#;
        assert!(super::publish(nulls).is_ok());
    }

    #[test]
    fn broadcasts_need_channels() {
        let channels = |body: &str| {
            let limits = ApiLimits {
                max_broadcast_channels: 3,
                ..ApiLimits::default()
            };
            match broadcast(body.as_bytes(), &limits).map_err(code)? {
                Command::Broadcast { channels, .. } => Ok::<_, u32>(channels),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            channels(r#"{"channels":["a","b","a"],"data":1}"#).unwrap(),
            ["a", "b", "a"]
        );
        assert_eq!(
            channels(r#"{"channels":["a","b","c","d"],"data":1}"#),
            Err(106)
        );
        assert_eq!(channels(r#"{"channels":[],"data":1}"#), Err(107));
        assert_eq!(channels(r#"{"channel":"a","data":1}"#), Err(107));
        assert_eq!(channels(r#"{"channels":["a"]}"#), Err(107));
        assert_eq!(channels(r#"{"channels":"a","data":1}"#), Err(400));
    }

    #[test]
    fn history_takes_a_page() {
        let page = |body: &str| history(body.as_bytes()).map_err(code);
        let all = History {
            channel: "c".into(),
            limit: Some(0),
            ..History::default()
        };
        assert_eq!(page(r#"{"channel":"c"}"#).unwrap(), all);
        assert_eq!(page(r#"{"channel":"c","limit":-1}"#).unwrap().limit, None);
        assert_eq!(
            page(r#"{"channel":"c","limit":5.0}"#).unwrap().limit,
            Some(5)
        );
        assert_eq!(page(r#"{"channel":"c","since":[3,"e"]}"#), Err(400));
        assert_eq!(page(r#"{"channel":"c","limit":5}"#).unwrap().limit, Some(5));
        let since = page(r#"{"channel":"c","since":{"offset":3,"epoch":"e"},"reverse":true}"#);
        let since = since.unwrap();
        assert_eq!(
            since.since,
            Some(StreamPosition {
                offset: 3,
                epoch: "e".into()
            })
        );
        assert!(since.reverse);
        assert_eq!(page(r#"{"limit":1}"#), Err(107));
        assert_eq!(page(r#"{"channel":"c","limit":1.5}"#), Err(400));
    }
}
