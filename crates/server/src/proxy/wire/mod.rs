//! The bodies: what a backend is asked ([`question`]), and what it may answer: here what all answers have in common, in
//! [`result`] what each question has as its result. Names and meanings are Centrifugo's.
//!
//! `null` is as good as nothing everywhere but in the result of a call, where it is a result.

mod question;
mod result;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tautline_protocol::Disconnect;
use tautline_protocol::message::Error;
use tautline_websocket::proto::MAX_REASON;

use crate::object::Object;

pub(super) use self::question::Question;
pub(super) use self::result::{
    ConnectResult, PublishResult, RefreshResult, RpcResult, SubscribeResult,
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
