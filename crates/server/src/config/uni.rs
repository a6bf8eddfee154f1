//! What the unidirectional doors say instead of what they say by themselves.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tautline_protocol::Disconnect;
use tautline_websocket::proto::MAX_REASON;

use super::DoorOptions;
use super::file::Unusable;
use super::proxy::ToDisconnect;
use crate::door::UniRules;

/// `[client.connect_code_to_unidirectional_disconnect]`: how unidirectional connections end that come to nothing
/// because of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DisconnectTransforms {
    /// Whether the transforms count. Default: no.
    pub enabled: bool,
    /// One for each code.
    pub transforms: Vec<DisconnectTransform>,
}

/// `[[client.connect_code_to_unidirectional_disconnect.transforms]]`: one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DisconnectTransform {
    /// Code of the error with which connecting fails, such as 109, or one of the application's backend; at least 1.
    /// Required.
    pub code: u32,
    /// The disconnect that the client is told of: `code` (3000 to 4999; with 3500 to 3999 and 4500 to 4999, clients
    /// don't come back) and `reason`. Required.
    pub to: Option<ToDisconnect>,
}

/// `[doors.connect_code_to_http_response]`: how the unidirectional doors of plain HTTP answer whom they don't let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseTransforms {
    /// Whether such clients get a status instead of a 200 with a disconnect in it: that of a transform, or 500. The
    /// response begins when it is known whether the client comes in. Default: no.
    pub enabled: bool,
    /// One for each code.
    pub transforms: Vec<ResponseTransform>,
}

/// `[[doors.connect_code_to_http_response.transforms]]`: one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseTransform {
    /// Code with which connecting fails: of an error, such as 109, or of a disconnect, such as 3500; at least 1. Required.
    pub code: u32,
    /// The response: `status_code` (200 to 599) and `body`, a text. Required.
    pub to: Option<ToResponse>,
}

/// The response to a client that isn't let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToResponse {
    /// The status.
    pub status_code: u16,
    /// What is in it.
    pub body: String,
}

/// Checks all of it.
pub(super) fn rules(
    disconnects: &DisconnectTransforms,
    doors: &DoorOptions,
    warnings: &mut Vec<String>,
) -> Result<UniRules, Unusable> {
    let responses = &doors.connect_code_to_http_response;
    for (path, is_idle) in [
        (
            DISCONNECTS,
            !disconnects.enabled && !disconnects.transforms.is_empty(),
        ),
        (
            RESPONSES,
            !responses.enabled && !responses.transforms.is_empty(),
        ),
    ] {
        if is_idle {
            warnings.push(format!(
                "{path} has transforms and is not enabled: they don't count"
            ));
        }
    }
    let codes = disconnects.transforms.iter();
    let codes = codes.map(|transform| (transform.code, transform.to.as_ref()));
    let disconnect_by_code = by_code(DISCONNECTS, codes, |to| {
        if !(3000..=4999).contains(&to.code) {
            return Err(format!("the code {} is not between 3000 and 4999", to.code));
        }
        check_reason(&to.reason)?;
        Ok(Disconnect {
            code: to.code,
            reason: to.reason.clone().into(),
        })
    })?;
    let codes = responses.transforms.iter();
    let codes = codes.map(|transform| (transform.code, transform.to.as_ref()));
    let response_by_code = by_code(RESPONSES, codes, |to| {
        let status = StatusCode::from_u16(to.status_code).ok();
        let status = status.filter(|status| (200..=599).contains(&status.as_u16()));
        let status = status.ok_or_else(|| {
            format!(
                "the status_code {} is not between 200 and 599",
                to.status_code
            )
        })?;
        Ok((status, to.body.clone()))
    })?;
    Ok(UniRules {
        disconnects: if disconnects.enabled {
            disconnect_by_code
        } else {
            HashMap::new()
        },
        responses: responses.enabled.then_some(response_by_code),
        disconnect_push: doors.uni_websocket_disconnect_push,
        join_messages: doors.uni_websocket_join_messages,
    })
}

fn by_code<'t, T: 't, R>(
    path: &str,
    transforms: impl Iterator<Item = (u32, Option<&'t T>)>,
    read: impl Fn(&T) -> Result<R, String>,
) -> Result<HashMap<u32, R>, Unusable> {
    let mut all = HashMap::new();
    for (index, (code, to)) in transforms.enumerate() {
        let unusable = |option: &str, problem: String| {
            Unusable::new(&format!("{path}.transforms[{index}].{option}"), problem)
        };
        if code == 0 {
            return Err(unusable("code", "is required".into()));
        }
        let to = to.ok_or_else(|| unusable("to", "is required".into()))?;
        let to = read(to).map_err(|problem| unusable("to", problem))?;
        match all.entry(code) {
            Entry::Vacant(entry) => entry.insert(to),
            Entry::Occupied(_) => {
                return Err(unusable("code", format!("{code} is there twice")));
            }
        };
    }
    Ok(all)
}

/// A reason goes into the Close frame of a WebSocket, and clients take one that is JSON, or none, for something
/// else.
fn check_reason(reason: &str) -> Result<(), String> {
    if reason.is_empty() {
        return Err("the reason is required".into());
    }
    if reason.len() > MAX_REASON {
        let length = reason.len();
        return Err(format!(
            "the reason has {length} bytes, a Close frame has room for {MAX_REASON}"
        ));
    }
    if serde_json::from_str::<IgnoredAny>(reason).is_ok() {
        return Err("the reason is JSON, which client SDKs misread; use plain words".into());
    }
    Ok(())
}

const DISCONNECTS: &str = "client.connect_code_to_unidirectional_disconnect";
const RESPONSES: &str = "doors.connect_code_to_http_response";
