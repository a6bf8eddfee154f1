//! The unidirectional form of the protocol: one request to connect, then pushes alone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use tautline_hub::{Pings, SessionAddress, Transport};
use tautline_protocol::message::Push;
use tautline_protocol::{Disconnect, Encoding, ErrorCode, json};
use tautline_websocket::proto::handshake::{Acceptance, Opening, Refusal};

use super::entry::Refused;
use super::websocket::{Ear, Manner};
use crate::http::query::Query;
use crate::http::respond;
use crate::worker::voice::{Framing, Speech, Voice};

const ANSWER: &[u8] = b"{\"id\":1,";
const PUSH: &[u8] = b"{\"push\":";

/// What the options say of these doors.
#[derive(Debug)]
pub(crate) struct UniRules {
    /// How connections end that come to nothing because of an error, by its code.
    pub(crate) disconnects: HashMap<u32, Disconnect>,
    /// How plain HTTP answers whom it doesn't let in, by code; `None` for a 200 with a disconnect in it.
    pub(crate) responses: Option<HashMap<u32, (StatusCode, String)>>,
    /// Whether WebSockets are told in a push, too, why they end.
    pub(crate) disconnect_push: bool,
    /// Whether a WebSocket's messages that leave together are one, with a line each.
    pub(crate) join_messages: bool,
}

impl Default for UniRules {
    fn default() -> Self {
        Self {
            disconnects: HashMap::new(),
            responses: None,
            disconnect_push: true,
            join_messages: false,
        }
    }
}

impl UniRules {
    /// The end of a connection that comes to nothing because of an error.
    fn disconnect_for(&self, code: u32) -> Disconnect {
        let own = self.disconnects.get(&code).cloned();
        own.unwrap_or_else(|| disconnect_for(code))
    }

    /// The response to a client that isn't let in.
    pub(super) fn response(&self, refused: &Refusing) -> Refused {
        let Refusing { error, disconnect } = refused;
        let by_code = |code: u32| self.responses.as_ref()?.get(&code).cloned();
        let response = error.and_then(by_code).or_else(|| by_code(disconnect.code));
        let (status, body) = response.unwrap_or_else(|| {
            let body = format!("The client can't connect: {}.\n", disconnect.reason);
            (StatusCode::INTERNAL_SERVER_ERROR, body)
        });
        respond::text(status, body).into()
    }
}

/// Why a client isn't let in.
#[derive(Debug)]
pub(super) struct Refusing {
    /// The code of the error, if it was one.
    error: Option<u32>,
    disconnect: Disconnect,
}

/// What became of connecting, once that is known: `None` for a client that has come in.
pub(super) type Met = Arc<OnceLock<Option<Refusing>>>;

/// Says pushes without the replies around them, and the result of connecting as a push.
#[derive(Debug, Default)]
pub(crate) struct Uni {
    rules: Arc<UniRules>,
    is_socket: bool,
    is_over: bool,
    met: Option<Met>,
    /// What the API can name the session of a WebSocket by; the body of a response has it itself.
    address: Option<SessionAddress>,
}

impl Uni {
    /// For WebSockets.
    fn of_socket(rules: Arc<UniRules>) -> Self {
        Self {
            rules,
            is_socket: true,
            ..Self::default()
        }
    }

    /// For the bodies of responses. What becomes of connecting is noted in `met`.
    pub(super) fn of_stream(rules: Arc<UniRules>, met: Option<Met>) -> Self {
        Self {
            rules,
            met,
            ..Self::default()
        }
    }

    fn note(&self, refusing: Option<Refusing>) {
        if let Some(met) = &self.met {
            // Only the first word counts.
            let _ = met.set(refusing);
        }
    }
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
            if let Some(code) = failure(message) {
                self.is_over = true;
                let disconnect = self.rules.disconnect_for(code);
                self.note(Some(Refusing {
                    error: Some(code),
                    disconnect: disconnect.clone(),
                }));
                return Some(disconnect);
            }
            self.note(None);
            // `{"connect":…}` is what a push with the result looks like.
            speech.say(&[b"{", answer].concat());
        } else {
            // A ping.
            speech.say(message);
        }
        None
    }

    fn messages(&mut self, messages: &[u8], speech: &mut Speech<'_>) -> Option<Disconnect> {
        let mut pieces = messages.split(|byte| *byte == b'\n');
        if !(self.is_socket && self.rules.join_messages) {
            return pieces.find_map(|message| self.message(message, speech));
        }
        let mut joined = Vec::with_capacity(messages.len());
        let mut lines = Speech::new(Framing::Lines, &mut joined);
        let over = pieces.find_map(|message| self.message(message, &mut lines));
        if let Some(joined) = joined.strip_suffix(b"\n") {
            speech.say(joined);
        }
        over
    }

    fn take_address(&mut self, make: &mut dyn FnMut() -> SessionAddress) {
        if self.is_socket {
            // Nobody sends commands beside it, for which the node would be needed.
            let address = SessionAddress {
                node: None,
                ..make()
            };
            self.address = Some(address);
        }
    }

    fn address(&self) -> Option<&SessionAddress> {
        self.address.as_ref()
    }

    fn end(&mut self, disconnect: &Disconnect, speech: &mut Speech<'_>) {
        self.note(Some(Refusing {
            error: None,
            disconnect: disconnect.clone(),
        }));
        if self.is_socket && !self.rules.disconnect_push {
            return;
        }
        let mut push = Vec::new();
        json::encode_push(&Push::Disconnect(disconnect.clone()), &mut push);
        speech.say(&push);
    }
}

/// The code of the error in an answer, if it is one.
fn failure(message: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Failure>,
    }
    #[derive(Deserialize)]
    struct Failure {
        code: u32,
    }
    let error = serde_json::from_slice::<Answer>(message).ok()?.error?;
    Some(error.code)
}

/// The end of a connection that comes of an error in connecting, where the options say nothing.
fn disconnect_for(code: u32) -> Disconnect {
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
    rules: &Arc<UniRules>,
) -> Result<(Acceptance<'static>, Manner), Refusal> {
    let bad = |error: String| Refusal::new(400, format!("Bad Request: {error}\n"));
    let query = Query::parse(query).map_err(bad)?;
    let connect = query.first("cf_connect").map(connect_command);
    let connect = connect.transpose().map_err(bad)?;
    let manner = Manner {
        transport: Transport::one_way("uni_websocket", Encoding::Json)
            .with_pings(Pings::OneWayAndTransport),
        voice: Some(Box::new(Uni::of_socket(Arc::clone(rules)))),
        ear: Some(Box::new(if connect.is_some() {
            Ear::Deaf
        } else {
            Ear::Connect
        })),
        opening: connect,
        permit: None,
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
    fn the_options_say_how_it_ends_and_whether_it_is_told() {
        let disconnect = Disconnect {
            code: 4501,
            reason: "go away".into(),
        };
        let rules = Arc::new(UniRules {
            disconnects: HashMap::from([(109, disconnect.clone())]),
            disconnect_push: false,
            join_messages: true,
            ..UniRules::default()
        });
        let mut said = Vec::new();
        let mut speech = Speech::new(Framing::Lines, &mut said);
        let mut uni = Uni::of_socket(Arc::clone(&rules));
        let error = |code: u32| format!(r#"{{"id":1,"error":{{"code":{code},"message":"m"}}}}"#);
        assert_eq!(
            uni.message(error(109).as_bytes(), &mut speech),
            Some(disconnect)
        );
        uni.end(&Disconnect::EXPIRED, &mut speech);
        let other = Uni::of_socket(rules).message(error(110).as_bytes(), &mut speech);
        assert_eq!(other, Some(Disconnect::EXPIRED));
        assert_eq!(said, b"");
    }

    #[test]
    fn what_leaves_together_may_be_one_message() {
        let rules = UniRules {
            join_messages: true,
            ..UniRules::default()
        };
        let mut uni = Uni::of_socket(Arc::new(rules));
        let mut said = Vec::new();
        let mut speech = Speech::new(Framing::Text, &mut said);
        let message = b"{\"push\":{\"a\":1}}\n{\"push\":{\"a\":2}}";
        assert_eq!(uni.messages(message, &mut speech), None);
        assert_eq!(said, b"\x81\x0f{\"a\":1}\n{\"a\":2}");
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
