//! The unidirectional form of the protocol: one request to connect, then pushes alone.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tautline_hub::Transport;
use tautline_protocol::message::Push;
use tautline_protocol::{Disconnect, Encoding, ErrorCode, json};
use tautline_websocket::proto::handshake::{Acceptance, Opening, Refusal};

use super::query::Query;
use super::websocket::{Ear, Manner};
use crate::worker::voice::{Speech, Voice};

const ANSWER: &[u8] = b"{\"id\":1,";
const PUSH: &[u8] = b"{\"push\":";

/// Says pushes without the replies around them, and the result of connecting as a push.
#[derive(Debug, Default)]
pub(crate) struct Uni {
    is_over: bool,
}

impl Voice for Uni {
    fn message(&mut self, message: &[u8], speech: &mut Speech<'_>) -> Option<Disconnect> {
        if self.is_over {
            return None;
        }
        let push = message.strip_prefix(PUSH);
        if let Some(push) = push.and_then(|push| push.strip_suffix(b"}")) {
            speech.say(push);
        } else if let Some(answer) = message.strip_prefix(ANSWER) {
            if let Some(disconnect) = refusal(message) {
                self.is_over = true;
                return Some(disconnect);
            }
            // `{"connect":…}` is what a push with the result looks like.
            speech.say(&[b"{", answer].concat());
        } else {
            // A ping.
            speech.say(message);
        }
        None
    }

    fn end(&mut self, disconnect: &Disconnect, speech: &mut Speech<'_>) {
        let mut push = Vec::new();
        json::encode_push(&Push::Disconnect(disconnect.clone()), &mut push);
        speech.say(&push);
    }
}

/// What a client is told that may not connect: the errors of the protocol, as ends of the connection.
fn refusal(message: &[u8]) -> Option<Disconnect> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Failure>,
    }
    #[derive(Deserialize)]
    struct Failure {
        code: u32,
    }
    let error = serde_json::from_slice::<Answer>(message).ok()?.error?;
    Some(disconnect_for(error.code))
}

/// The end of a connection that comes of an error in connecting.
pub(crate) fn disconnect_for(code: u32) -> Disconnect {
    let is = |error: ErrorCode| error.number() == code;
    if is(ErrorCode::TokenExpired) || is(ErrorCode::Expired) {
        Disconnect::EXPIRED
    } else if is(ErrorCode::TooManyRequests) {
        Disconnect::TOO_MANY_REQUESTS
    } else if is(ErrorCode::PermissionDenied) {
        Disconnect::PERMISSION_DENIED
    } else {
        Disconnect::INTERNAL
    }
}

/// Meets a client that listens only: what it has to say is in the address, or its first message.
///
/// # Errors
///
/// 400 for what is no request to connect.
pub(super) fn accept(
    opening: &Opening<'_>,
    query: Option<&str>,
) -> Result<(Acceptance<'static>, Manner), Refusal> {
    let bad = |error: String| Refusal::new(400, format!("Bad Request: {error}\n"));
    let query = Query::parse(query).map_err(bad)?;
    let connect = query.first("cf_connect").map(connect_command);
    let connect = connect.transpose().map_err(bad)?;
    let manner = Manner {
        transport: Transport::one_way("uni_websocket", Encoding::Json),
        voice: Some(Box::new(Uni::default())),
        ear: Some(Box::new(if connect.is_some() {
            Ear::Deaf
        } else {
            Ear::Connect
        })),
        opening: connect,
    };
    Ok((opening.accept(None), manner))
}

/// Makes the command of a request to connect: a JSON object; nothing, or `null`, for an empty one.
///
/// # Errors
///
/// A sentence that says what is wrong with the request.
pub(crate) fn connect_command(request: &str) -> Result<String, String> {
    let request = request.trim();
    let request: Cow<'_, str> = if request.is_empty() || request == "null" {
        "{}".into()
    } else {
        let expected = r#"expected a request to connect such as {"token":"…"}"#;
        let value: &RawValue =
            serde_json::from_str(request).map_err(|error| format!("{expected}: {error}"))?;
        if !value.get().starts_with('{') {
            return Err(format!("{expected}; got JSON that is no object"));
        }
        value.get().into()
    };
    Ok(format!(
        r#"{{"id":1,"connect":{}}}"#,
        request.replace(['\n', '\r'], " ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::voice::Framing;

    fn say(message: &str) -> (String, Option<u32>) {
        let mut said = Vec::new();
        let over = Uni::default().message(
            message.as_bytes(),
            &mut Speech::new(Framing::Lines, &mut said),
        );
        let said = String::from_utf8(said).unwrap();
        (said, over.map(|disconnect| disconnect.code))
    }

    #[test]
    fn pushes_are_told_alone() {
        for (message, expected) in [
            (
                r#"{"push":{"channel":"a","pub":{"data":{"id":1}}}}"#,
                "{\"channel\":\"a\",\"pub\":{\"data\":{\"id\":1}}}\n",
            ),
            (
                r#"{"id":1,"connect":{"client":"c"}}"#,
                "{\"connect\":{\"client\":\"c\"}}\n",
            ),
            ("{}", "{}\n"),
        ] {
            assert_eq!(say(message), (expected.to_owned(), None));
        }
    }

    #[test]
    fn pushes_that_come_together_are_told_one_by_one() {
        let (one, two) = (r#"{"push":{"a":1}}"#, r#"{"push":{"a":2}}"#);
        let message = format!("{one}\n{two}");
        let mut said = Vec::new();
        let mut speech = Speech::new(Framing::Lines, &mut said);
        assert_eq!(
            Uni::default().messages(message.as_bytes(), &mut speech),
            None
        );
        assert_eq!(said, b"{\"a\":1}\n{\"a\":2}\n");
    }

    #[test]
    fn errors_are_ends() {
        for (code, end) in [
            (109, 3005),
            (110, 3005),
            (111, 3013),
            (103, 3507),
            (100, 3004),
        ] {
            let message = format!(r#"{{"id":1,"error":{{"code":{code},"message":"m"}}}}"#);
            assert_eq!(say(&message), (String::new(), Some(end)));
        }
    }

    #[test]
    fn nothing_but_a_request_to_connect_becomes_one() {
        for request in ["", "null", " {} ", "{}\n"] {
            assert_eq!(
                connect_command(request).unwrap(),
                r#"{"id":1,"connect":{}}"#
            );
        }
        assert_eq!(
            connect_command("{\n\"token\":\"t\"}").unwrap(),
            r#"{"id":1,"connect":{ "token":"t"}}"#
        );
        for request in [
            "1",
            "[]",
            "{",
            "{}}",
            "{}{}",
            "{}}\n{\"id\":2,\"rpc\":{}}",
            "nul",
        ] {
            let error = connect_command(request).expect_err(request);
            assert!(error.contains("token"), "{error}");
        }
    }
}
