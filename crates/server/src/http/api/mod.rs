//! The HTTP API for the application's backend: `POST /api/<method>`.
//!
//! A call is authorised by an API key, carries its parameters as a JSON object, and is answered with
//! `{"result":…}` or `{"error":{"code":…,"message":…}}`, both with status 200. Callers who would
//! rather have errors as HTTP statuses ask for the *transport error mode*, by header or by
//! configuration.
//!
//! On its way a call passes
//!
//! - `key`: whose call is it, and what is the key good for;
//! - `command`: the method with its parameters, read by `params`, `control` and
//!   `revoke`; `batch`: several of
//!   them, and what old client libraries send to `/api`;
//! - `execute`: doing it, and writing the result; `error`: writing why not;
//! - `dead`: events that the backend would not have;
//! - `trace`: the one method whose answer goes on;
//! - `audit`: log lines about what an operator may want to know afterwards.
//!
//! `openapi` describes all that to programs.

mod audit;
mod batch;
mod command;
mod control;
pub(crate) mod dead;
mod error;
mod execute;
mod join;
mod key;
mod method;
mod openapi;
mod params;
mod presence;
mod revoke;
mod trace;

use std::cell::Cell;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

pub use self::audit::AuditLog;
use self::audit::{About, Audit};
use self::batch::{Batch, Legacy};
use self::command::Command;
pub use self::error::ErrorMode;
pub(crate) use self::error::explained;
use self::error::{Failure, error_response};
use self::execute::{Caller, Who, execute};
pub use self::key::{ApiKey, ApiKeys, Scope};
pub use self::method::Method;
use super::node::Node;
use super::respond::{self, Response};
use super::{Settings, body};
use crate::http::RequestBody;
use crate::http::line::HttpLine;
use crate::telemetry::{Attribute, MOST_FOLLOWED};

/// Where the API lives.
pub(crate) const PREFIX: &str = "/api/";

/// Its method whose answer goes on.
pub(crate) const TRACE_PATH: &str = "/api/trace";

/// Where old client libraries look for it.
pub(crate) const LEGACY_PATH: &str = "/api";

/// How much may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Longest body of a call, in bytes.
    pub max_body_size: usize,
    /// Most commands in a batch.
    pub max_batch_commands: usize,
    /// Most channels in a broadcast.
    pub max_broadcast_channels: usize,
    /// Most channels in a list of channels.
    pub max_listed_channels: usize,
    /// Most calls at the same time, on each worker.
    pub max_concurrent_calls: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_body_size: 1024 * 1024,
            max_batch_commands: 1000,
            max_broadcast_channels: 10_000,
            max_listed_channels: 100_000,
            max_concurrent_calls: 256,
        }
    }
}

/// What one worker keeps about its calls.
#[derive(Default)]
pub(crate) struct Api {
    audit: Audit,
    calls: Cell<usize>,
}

/// A call that is under way.
struct InFlight<'a>(&'a Cell<usize>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a path asks for.
enum Asked {
    Method(Method),
    Legacy,
}

impl Asked {
    /// As it is called in traces.
    fn route(&self) -> String {
        match self {
            Self::Method(method) => format!("{PREFIX}{}", method.name()),
            Self::Legacy => LEGACY_PATH.to_owned(),
        }
    }
}

impl Api {
    /// Answers `POST /api/<name>`, or `POST /api` where there is no name.
    pub(crate) async fn respond<N: Node>(
        &self,
        name: Option<&str>,
        request: Request<RequestBody>,
        settings: &Settings,
        node: &N,
        line: &HttpLine,
    ) -> Response {
        let response = self.answer(name, request, settings, node, line).await;
        // What comes to nothing has a text for a person. Errors of commands are counted with them.
        let status = response.status();
        if COUNTED.contains(&status) && is_text(&response) {
            node.count_call(|calls| calls.refused(status));
        }
        response
    }

    async fn answer<N: Node>(
        &self,
        name: Option<&str>,
        request: Request<RequestBody>,
        settings: &Settings,
        node: &N,
        line: &HttpLine,
    ) -> Response {
        if name == Some(openapi::NAME) {
            return openapi::respond(request.method());
        }
        let asked = match name.map(Method::from_name) {
            None => Asked::Legacy,
            Some(Some(method)) => Asked::Method(method),
            Some(None) => {
                let known = Method::list();
                let body = format!("Not Found: the API has no such method; it has {known}.\n");
                return respond::text(StatusCode::NOT_FOUND, body);
            }
        };
        let (headers, query) = (request.headers(), request.uri().query());
        let method = name.unwrap_or("(legacy)");
        let who = match self.identify(method, headers, query, settings, node, line) {
            Ok(who) => who,
            Err(refusal) => return *refusal,
        };
        if request.method() != http::Method::POST {
            return respond::method_not_allowed("POST");
        }
        let limits = &settings.api_limits;
        let Some(_in_flight) = self.enter(limits) else {
            return too_many_calls(limits);
        };
        let mode = ErrorMode::of_request(headers, settings.api_error_mode);
        let mut span = settings.telemetry.as_deref().map(|telemetry| {
            let mut span = telemetry.server(headers, || format!("POST {}", asked.route()));
            span.say(|| {
                [
                    Attribute("http.request.method", "POST".to_owned()),
                    Attribute("http.route", asked.route()),
                    Attribute("tautline.api.key", who.key.name().to_owned()),
                ]
            });
            span
        });
        let body = match body::read(request.into_body(), limits.max_body_size).await {
            Ok(body) => body,
            Err(refusal) => {
                if let Some(span) = &mut span {
                    span.fail(|| format!("answered with the status {}", refusal.status()));
                }
                return refusal;
            }
        };
        let caller = Caller {
            who,
            audit: &self.audit,
            audit_log: settings.api_audit_log,
            limits,
            followed: span
                .as_ref()
                .zip(settings.telemetry.as_ref())
                .and_then(|(span, telemetry)| span.follow(telemetry))
                .map(|followed| (followed, Cell::new(MOST_FOLLOWED))),
        };
        let result = answer(&asked, &body, &caller, node).await;
        if let (Some(span), Err(failure)) = (&mut span, &result) {
            span.fail(|| failure.to_string());
            span.say(|| [Attribute("error.type", failure.kind())]);
        }
        match result {
            Ok(result) => respond::json(StatusCode::OK, result),
            Err(Failure::Malformed(reason)) => {
                respond::text(StatusCode::BAD_REQUEST, format!("Bad Request: {reason}\n"))
            }
            Err(Failure::Error(error)) => error_response(&error, mode),
        }
    }

    /// Whose call it is, by its key. How often somebody may guess is limited.
    fn identify<'k, N: Node>(
        &self,
        method: &str,
        headers: &HeaderMap,
        query: Option<&str>,
        settings: &'k Settings,
        node: &N,
        line: &HttpLine,
    ) -> Result<Who<'k>, Box<Response>> {
        let keys = &settings.api_keys;
        let address = node.address_of(line, headers);
        let is_tried = keys.is_tried_by(headers, query);
        if is_tried && let Some(refusal) = node.refuse_key(address) {
            let reason = "too many API keys from there were wrong";
            self.refused(settings, address, method, reason);
            return Err(Box::new(refusal));
        }
        let key = keys.of_request(headers, query);
        if is_tried {
            node.note_key(address, key.is_some());
        }
        let Some(key) = key else {
            let reason = "the API key is missing or wrong";
            self.refused(settings, address, method, reason);
            return Err(Box::new(key::unauthorized()));
        };
        Ok(Who { key, address })
    }

    fn refused(&self, settings: &Settings, address: Option<IpAddr>, method: &str, reason: &str) {
        if settings.api_audit_log != AuditLog::None {
            self.audit
                .refused(address, None, method, About::default, &reason);
        }
    }

    fn enter(&self, limits: &ApiLimits) -> Option<InFlight<'_>> {
        let calls = self.calls.get();
        (calls < limits.max_concurrent_calls).then(|| {
            self.calls.set(calls + 1);
            InFlight(&self.calls)
        })
    }
}

/// Does what is asked for, and writes the whole answer.
async fn answer<N: Node>(
    asked: &Asked,
    body: &Bytes,
    caller: &Caller<'_>,
    node: &N,
) -> Result<Vec<u8>, Failure> {
    match *asked {
        Asked::Legacy => Ok(Legacy::parse(body, caller.limits)?.run(caller, node).await),
        Asked::Method(Method::Batch) => {
            Ok(Batch::parse(body, caller.limits)?.run(caller, node).await)
        }
        Asked::Method(method) => {
            let command = Command::parse(method, body, caller.limits)?;
            let result = execute(command, caller, node).await?;
            Ok([br#"{"result":"#, &*result, b"}"].concat())
        }
    }
}

fn is_text(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/"))
}

/// Statuses of calls that come to nothing, and are counted.
const COUNTED: [StatusCode; 6] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

fn too_many_calls(limits: &ApiLimits) -> Response {
    let most = limits.max_concurrent_calls;
    let body = format!(
        "Too many calls at a time: at most {most} on each worker (http_api.max_concurrent_calls). \
         Try again in a second.\n"
    );
    let mut response = respond::text(StatusCode::SERVICE_UNAVAILABLE, body);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    // The body has not been read, so the connection can't be used again.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
