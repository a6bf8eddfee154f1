//! How the API tells of errors: in the body of a 200, or as a status.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::Error;

use crate::http::respond::{self, Response};

/// Asks for the transport error mode when it says `transport`.
const ERROR_MODE: HeaderName = HeaderName::from_static("x-centrifugo-error-mode");

/// How an error of the API itself is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorMode {
    /// Status 200, and the error in the body under `error`.
    #[default]
    Body,
    /// A status of its own, and the bare error as the body.
    Transport,
}

impl ErrorMode {
    /// The mode that a request asks for, or else `configured`.
    pub(super) fn of_request(headers: &HeaderMap, configured: Self) -> Self {
        let transport = HeaderValue::from_static("transport");
        if headers.get(ERROR_MODE) == Some(&transport) {
            Self::Transport
        } else {
            configured
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The body isn't what the call takes: 400, in either error mode.
    Malformed(String),
    /// The call was understood, and failed.
    Error(Error),
}

impl Failure {
    /// What traces tell it by: a code, or a word.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Malformed(_) => "malformed".to_owned(),
            Self::Error(error) => error.code.to_string(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(reason) => f.write_str(reason),
            Self::Error(error) => f.write_str(&error.message),
        }
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// An error that other servers of this API don't have, so its text may say more than they do.
pub(crate) fn explained(code: ErrorCode, text: impl AsRef<str>) -> Error {
    Error {
        message: Cow::Owned(format!("{}: {}", code.message(), text.as_ref())),
        ..code.into()
    }
}

/// `{"error":{"code":102,"message":"unknown channel"}}`.
pub(super) fn write_error(error: &Error, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"error":"#);
    out.extend_from_slice(&error_json(error));
    out.push(b'}');
}

/// The answer to a call that failed.
pub(super) fn error_response(error: &Error, mode: ErrorMode) -> Response {
    match mode {
        ErrorMode::Body => {
            let mut out = Vec::new();
            write_error(error, &mut out);
            respond::json(StatusCode::OK, out)
        }
        ErrorMode::Transport => respond::json(transport_status(error.code), error_json(error)),
    }
}

/// The API's form of an error: no `temporary`, which only clients have a use for.
#[derive(Serialize)]
struct ErrorView<'a> {
    code: u32,
    message: &'a str,
}

pub(super) fn error_json(error: &Error) -> Vec<u8> {
    // What clients know as a missing method is, to a backend, something not found.
    let message = if error.code == ErrorCode::MethodNotFound.number() {
        "not found"
    } else {
        error.message.as_ref()
    };
    let view = ErrorView {
        code: error.code,
        message,
    };
    serde_json::to_vec(&view).unwrap_or_else(|_| b"{}".to_vec())
}

fn transport_status(code: u32) -> StatusCode {
    match code {
        102 | 104 => StatusCode::NOT_FOUND,
        103 => StatusCode::FORBIDDEN,
        106 | 107 | 108 | 110 => StatusCode::BAD_REQUEST,
        111 => StatusCode::TOO_MANY_REQUESTS,
        112 => StatusCode::RANGE_NOT_SATISFIABLE,
        113 => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
