//! The HTTP API for the application's backend: `POST /api/<method>`.
//!
//! A call is authorised by the one API key, carries its parameters as a JSON object, and is answered
//! with `{"result":…}` or `{"error":{"code":…,"message":…}}`, both with status 200. Callers who would
//! rather have errors as HTTP statuses ask for the *transport error mode*, by header or by
//! configuration.

mod broadcast;
mod key;
mod params;
mod presence;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tautline_protocol::ErrorCode;
use tautline_protocol::json::encode_result;
use tautline_protocol::message::{Error, Response as ProtocolResult, StreamPosition};

use self::key::ApiKey;
use super::node::{Node, NodeInfo};
use super::respond::{self, Response};
use super::{Settings, body};

/// Where the API lives.
pub(crate) const PREFIX: &str = "/api/";

/// Asks for the transport error mode when it says `transport`.
const ERROR_MODE: HeaderName = HeaderName::from_static("x-centrifugo-error-mode");

/// How an error of the API itself is told; see [`ErrorMode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorMode {
    /// Status 200, and the error in the body under `error`.
    #[default]
    Body,
    /// A status of its own, and the bare error as the body.
    Transport,
}

/// What may be asked of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Broadcast,
    History,
    HistoryRemove,
    Info,
    Presence,
    PresenceStats,
    Publish,
}

impl Call {
    const ALL: [(&'static str, Self); 7] = [
        ("broadcast", Self::Broadcast),
        ("history", Self::History),
        ("history_remove", Self::HistoryRemove),
        ("info", Self::Info),
        ("presence", Self::Presence),
        ("presence_stats", Self::PresenceStats),
        ("publish", Self::Publish),
    ];
}

/// Why a call has no result.
enum Failure {
    /// The body isn't what the call takes: 400, in either error mode.
    Malformed(String),
    /// The call was understood, and failed.
    Error(Error),
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

/// Answers `POST /api/<name>`.
pub(crate) async fn respond<N: Node>(
    name: &str,
    request: Request<Incoming>,
    settings: &Settings,
    node: &N,
) -> Response {
    let Some(&(_, call)) = Call::ALL.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = Call::ALL.iter().map(|(name, _)| *name).collect();
        let body = format!(
            "Not Found: the API has no such method; it has {}.\n",
            known.join(", ")
        );
        return respond::text(StatusCode::NOT_FOUND, body);
    };
    let key = ApiKey::new(settings.api_key.as_ref(), settings.api_insecure);
    if !key.admits(request.headers(), request.uri().query()) {
        return key::unauthorized();
    }
    if request.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    let mode = if asks_for_transport_errors(request.headers()) {
        ErrorMode::Transport
    } else {
        settings.api_error_mode
    };
    let body = match body::read(request.into_body(), settings.api_max_body_len).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match execute(call, &body, node).await {
        Ok(result) => respond::json(StatusCode::OK, result),
        Err(Failure::Malformed(reason)) => {
            respond::text(StatusCode::BAD_REQUEST, format!("Bad Request: {reason}\n"))
        }
        Err(Failure::Error(error)) => error_response(&error, mode),
    }
}

/// Does what is asked for, and writes the result with the `result` around it.
async fn execute<N: Node>(call: Call, body: &Bytes, node: &N) -> Result<Vec<u8>, Failure> {
    match call {
        Call::Broadcast => {
            let publishes = params::broadcast(body)?;
            Ok(broadcast::publish_all(node, publishes).await)
        }
        Call::History => {
            let result = node.history(params::history(body)?).await?;
            Ok(protocol_result(&ProtocolResult::History(result)))
        }
        Call::HistoryRemove => {
            node.history_remove(params::channel(body)?).await?;
            Ok(br#"{"result":{}}"#.to_vec())
        }
        Call::Info => {
            params::none(body)?;
            let nodes = node.info().await?;
            let result = InfoResult {
                nodes: nodes.iter().map(NodeView::from).collect(),
            };
            serde_json::to_vec(&Envelope { result }).map_err(|_| ErrorCode::Internal.into())
        }
        Call::Presence => {
            let (request, is_page) = params::presence(body)?;
            let list = node.presence(request).await?;
            Ok(presence::result(list, is_page))
        }
        Call::PresenceStats => {
            let result = node.presence_stats(params::channel(body)?).await?;
            Ok(protocol_result(&ProtocolResult::PresenceStats(result)))
        }
        Call::Publish => {
            let position = node.publish(params::publish(body)?).await?;
            let mut out = Vec::new();
            write_publish_result(position.as_ref(), &mut out);
            Ok(out)
        }
    }
}

fn protocol_result(result: &ProtocolResult) -> Vec<u8> {
    let mut out = br#"{"result":"#.to_vec();
    encode_result(result, &mut out);
    out.push(b'}');
    out
}

/// `{"result":{"offset":14,"epoch":"hKqPwZbd"}}`, or `{"result":{}}` for a publication that has no
/// position.
fn write_publish_result(position: Option<&StreamPosition>, out: &mut Vec<u8>) {
    let position = position.map(|StreamPosition { offset, epoch }| PositionView {
        offset: *offset,
        epoch,
    });
    out.extend_from_slice(br#"{"result":"#);
    match position.map(|position| serde_json::to_vec(&position)) {
        Some(Ok(json)) => out.extend_from_slice(&json),
        _ => out.extend_from_slice(b"{}"),
    }
    out.push(b'}');
}

#[derive(Serialize)]
struct PositionView<'a> {
    offset: u64,
    epoch: &'a str,
}

#[derive(Serialize)]
struct Envelope<T> {
    result: T,
}

#[derive(Serialize)]
struct InfoResult<'a> {
    nodes: Vec<NodeView<'a>>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    uid: &'a str,
    name: &'a str,
    version: &'a str,
    num_clients: u64,
    num_users: u64,
    num_channels: u64,
    num_subs: u64,
    uptime: u64,
}

impl<'a> From<&'a NodeInfo> for NodeView<'a> {
    fn from(node: &'a NodeInfo) -> Self {
        Self {
            uid: &node.uid,
            name: &node.name,
            version: &node.version,
            num_clients: node.num_clients,
            num_users: node.num_users,
            num_channels: node.num_channels,
            num_subs: node.num_subs,
            uptime: node.uptime,
        }
    }
}

/// The API's form of an error: no `temporary`, which only clients have a use for.
#[derive(Serialize)]
struct ErrorView<'a> {
    code: u32,
    message: &'a str,
}

impl<'a> From<&'a Error> for ErrorView<'a> {
    fn from(error: &'a Error) -> Self {
        // What clients know as a missing method is, to a backend, something not found.
        let message = if error.code == ErrorCode::MethodNotFound.number() {
            "not found"
        } else {
            error.message.as_ref()
        };
        Self {
            code: error.code,
            message,
        }
    }
}

/// `{"error":{"code":102,"message":"unknown channel"}}`.
fn write_error(error: &Error, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"error":"#);
    out.extend_from_slice(&error_json(error));
    out.push(b'}');
}

fn error_json(error: &Error) -> Vec<u8> {
    serde_json::to_vec(&ErrorView::from(error)).unwrap_or_else(|_| b"{}".to_vec())
}

fn error_response(error: &Error, mode: ErrorMode) -> Response {
    match mode {
        ErrorMode::Body => {
            let mut out = Vec::new();
            write_error(error, &mut out);
            respond::json(StatusCode::OK, out)
        }
        ErrorMode::Transport => respond::json(transport_status(error.code), error_json(error)),
    }
}

fn transport_status(code: u32) -> StatusCode {
    match code {
        102 | 104 => StatusCode::NOT_FOUND,
        107 | 108 => StatusCode::BAD_REQUEST,
        112 => StatusCode::RANGE_NOT_SATISFIABLE,
        113 => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn asks_for_transport_errors(headers: &HeaderMap) -> bool {
    headers
        .get(ERROR_MODE)
        .is_some_and(|mode| mode == HeaderValue::from_static("transport"))
}
