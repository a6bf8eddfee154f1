//! `POST /api/trace`: follow a user, a connection or a channel live. The answer is a line of JSON an event, for as
//! long as it was asked for or the caller listens.

use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tautline_hub::trace::Follow;

use super::audit::About;
use super::{Api, AuditLog, Method, Settings};
use crate::http::body::{self, RequestBody};
use crate::http::line::HttpLine;
use crate::http::node::Node;
use crate::http::respond::{self, ReplyBody, Response};
use crate::trace::{MAX_TRACES, TraceBody, TraceRequest};

/// What is asked for: one of the first four, and the rest.
#[derive(Deserialize)]
#[serde(default)]
struct TraceParams {
    user: Option<String>,
    client: Option<String>,
    channel: Option<String>,
    refusals: bool,
    payloads: bool,
    /// When it ends by itself.
    seconds: u64,
}

impl Default for TraceParams {
    fn default() -> Self {
        Self {
            user: None,
            client: None,
            channel: None,
            refusals: false,
            payloads: false,
            seconds: DEFAULT_SECONDS,
        }
    }
}

impl Api {
    /// Answers a call of the method.
    pub(crate) async fn trace<N: Node>(
        &self,
        request: http::Request<RequestBody>,
        settings: &Settings,
        node: &N,
        line: &Rc<HttpLine>,
    ) -> http::Response<ReplyBody> {
        match self.begin_trace(request, settings, node, line).await {
            Ok(body) => {
                let guard = line.begin_stream();
                let mut response = http::Response::new(ReplyBody::stream(Guarded(body, guard)));
                let headers = response.headers_mut();
                let kind = HeaderValue::from_static("application/x-ndjson");
                headers.insert(header::CONTENT_TYPE, kind);
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Err(refusal) => refusal.map(ReplyBody::Whole),
        }
    }

    async fn begin_trace<N: Node>(
        &self,
        request: http::Request<RequestBody>,
        settings: &Settings,
        node: &N,
        line: &HttpLine,
    ) -> Result<TraceBody, Response> {
        let name = Method::Trace.name();
        let (headers, query) = (request.headers(), request.uri().query());
        let who = self.identify(name, headers, query, settings, node, line);
        let who = who.map_err(|refusal| *refusal)?;
        let (key, address) = (who.key, who.address);
        if request.method() != http::Method::POST {
            return Err(respond::method_not_allowed("POST"));
        }
        let body = body::read(request.into_body(), settings.api_limits.max_body_size).await?;
        let request = read(&body).map_err(|problem| bad_request(&problem))?;
        let channel = match &request.follow {
            Follow::Channel(channel) => Some(channel.as_str()),
            _ => None,
        };
        let refuse = |reason: &dyn Display| {
            if settings.api_audit_log != AuditLog::None {
                let about = || About::follow(&request.follow);
                self.audit
                    .refused(address, Some(key.name()), name, about, reason);
            }
            forbidden(&reason.to_string())
        };
        if let Err(refusal) = key.scope().check_trace(channel) {
            return Err(refuse(&refusal));
        }
        if request.payloads && !settings.trace_payloads {
            let reason = "payloads may be traced only where http_api.trace_payloads is on";
            return Err(refuse(&reason));
        }
        settings
            .api_audit_log
            .traces(who, &request.follow, request.payloads);
        node.trace(&request).await.ok_or_else(|| {
            let body = format!("There are {MAX_TRACES} traces already, as many as may be.\n");
            respond::text(StatusCode::SERVICE_UNAVAILABLE, body)
        })
    }
}

fn read(body: &Bytes) -> Result<TraceRequest, String> {
    let TraceParams {
        user,
        client,
        channel,
        refusals,
        payloads,
        seconds,
    } = serde_json::from_slice(body)
        .map_err(|error| format!("the parameters can't be read: {error}"))?;
    let mut asked = [
        user.map(Follow::User),
        client.map(Follow::Client),
        channel.map(Follow::Channel),
        refusals.then_some(Follow::Refusals),
    ]
    .into_iter()
    .flatten();
    let (Some(follow), None) = (asked.next(), asked.next()) else {
        return Err("expected one of `user`, `client`, `channel` and `refusals`".to_owned());
    };
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(format!(
            "`seconds` is {seconds}, expected 1 to {MAX_SECONDS}"
        ));
    }
    Ok(TraceRequest {
        follow,
        payloads,
        time: Duration::from_secs(seconds),
    })
}

fn bad_request(problem: &str) -> Response {
    respond::text(StatusCode::BAD_REQUEST, format!("Bad Request: {problem}\n"))
}

fn forbidden(problem: &str) -> Response {
    respond::text(StatusCode::FORBIDDEN, format!("Forbidden: {problem}\n"))
}

/// A body that keeps its connection from growing old.
struct Guarded(
    TraceBody,
    #[expect(dead_code, reason = "it is there to be dropped")] crate::http::line::StreamGuard,
);

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<hyper::body::Frame<Bytes>>>> {
        std::pin::Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }
}

const DEFAULT_SECONDS: u64 = 60;

const MAX_SECONDS: u64 = 3600;
