//! The admin's page, and what it shows: `/admin`.
//!
//! | path | |
//! |---|---|
//! | `GET /admin`, `/admin/admin.js`, `/admin/admin.css`, `/admin/mark.svg` | the page; it knows nothing by itself |
//! | `POST /admin/login` | `{"password":"…"}` for a cookie |
//! | `POST /admin/logout` | the end of that |
//! | `GET /admin/debug` | what the node carries: tasks, sessions, memory ([`Report`]) |
//! | `GET /admin/channels` | the largest channels; `pattern`, `limit` |
//!
//! Who is logged in has a cookie that scripts can't read and other sites can't cause to be sent; what changes something
//! is a POST of JSON from the page's own origin. Nothing here changes what clients have.

mod password;
mod report;
mod sessions;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde::{Deserialize, Serialize};

pub use self::password::{Password, PasswordHashError};
pub use self::report::{MemoryReport, QueueReport, Report, SessionReport, WorkerReport};
pub use self::sessions::Sessions;
use super::body::{self, RequestBody};
use super::node::Node;
use super::origin::OriginPolicy;
use super::query::Query;
use super::respond::{self, Response};
use crate::glob::Glob;

/// Where all of it is.
pub(crate) const PATH: &str = "/admin";

/// Who may log in.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// With what.
    pub password: Password,
    /// Whether the cookie is for encrypted connections alone.
    pub is_encrypted: bool,
}

/// Whether a path is one of these.
pub(crate) fn is_path(path: &str) -> bool {
    let rest = path.strip_prefix(PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request from that address.
pub(crate) async fn respond<N: Node>(
    request: Request<RequestBody>,
    address: Option<IpAddr>,
    settings: &AdminSettings,
    node: &N,
) -> Response {
    let Some(sessions) = node.admin_sessions() else {
        return missing();
    };
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/admin" | "/admin/") => {
            page(PAGE, "text/html; charset=utf-8")
        }
        (&Method::GET | &Method::HEAD, "/admin/admin.js") => {
            page(SCRIPT, "text/javascript; charset=utf-8")
        }
        (&Method::GET | &Method::HEAD, "/admin/admin.css") => {
            page(STYLE, "text/css; charset=utf-8")
        }
        (&Method::GET | &Method::HEAD, "/admin/mark.svg") => page(MARK, "image/svg+xml"),
        (&Method::POST, "/admin/login") => login(request, address, settings, &sessions).await,
        (&Method::POST, "/admin/logout") => logout(request.headers(), address, settings, &sessions),
        (&Method::GET, path @ ("/admin/debug" | "/admin/channels")) => {
            let headers = request.headers();
            if !is_known(headers, settings, &sessions) {
                refused(
                    StatusCode::UNAUTHORIZED,
                    "Log in first: POST /admin/login.\n",
                )
            } else if path == "/admin/debug" {
                json(&node.report().await)
            } else {
                channels(request.uri().query(), node).await
            }
        }
        (_, "/admin/login" | "/admin/logout") => respond::method_not_allowed("POST"),
        (_, "/admin" | "/admin/" | "/admin/debug" | "/admin/channels") => {
            respond::method_not_allowed("GET")
        }
        _ => missing(),
    };
    protect(response.headers_mut());
    response
}

async fn login(
    request: Request<RequestBody>,
    address: Option<IpAddr>,
    settings: &AdminSettings,
    sessions: &Arc<Sessions>,
) -> Response {
    if let Some(refusal) = foreign(request.headers()) {
        return refusal;
    }
    if let Err(wait) = sessions.attempt(Instant::now(), address) {
        return too_many(wait.as_secs() + 1);
    }
    let body = match body::read(request.into_body(), MAX_LOGIN).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Ok(Login { password }) = serde_json::from_slice(&body) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "Expected {\"password\":\"...\"}.\n",
        );
    };
    let known = settings.password.clone();
    let is_it = if known.is_slow() {
        let Some(turn) = sessions.turn().await else {
            return too_many(1);
        };
        // Clients of this worker don't wait for it.
        let compare = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            known.matches(password.as_bytes())
        });
        compare.await.unwrap_or(false)
    } else {
        known.matches(password.as_bytes())
    };
    let shown = address.map(tracing::field::display);
    if !is_it {
        tracing::warn!(target: AUDIT, address = shown, "refused a login to the admin page");
        return refused(StatusCode::UNAUTHORIZED, "That is not the password.\n");
    }
    tracing::info!(target: AUDIT, address = shown, "login to the admin page");
    let fingerprint = settings.password.fingerprint();
    let token = sessions.open(Instant::now(), address, fingerprint);
    with_cookie(&token, sessions::TTL.as_secs(), settings)
}

/// The answer to attempts that come too fast.
fn too_many(seconds: u64) -> Response {
    let text = format!("Too many attempts: try again in {seconds} s.\n");
    let response = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
    respond::with_header(response, header::RETRY_AFTER, seconds.into())
}

fn logout(
    headers: &HeaderMap,
    address: Option<IpAddr>,
    settings: &AdminSettings,
    sessions: &Sessions,
) -> Response {
    if let Some(refusal) = foreign(headers) {
        return refusal;
    }
    // Whoever wasn't logged in has changed nothing, and could fill the log.
    if token(headers).is_some_and(|token| sessions.close(Instant::now(), token)) {
        let shown = address.map(tracing::field::display);
        tracing::info!(target: AUDIT, address = shown, "logout from the admin page");
    }
    with_cookie("", 0, settings)
}

/// The largest channels first.
async fn channels<N: Node>(query: Option<&str>, node: &N) -> Response {
    let (pattern, limit) = match wanted(query) {
        Ok(wanted) => wanted,
        Err(problem) => return respond::text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
    };
    let Ok(channels) = node.channels(pattern).await else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "The node has ended.\n");
    };
    let total = channels.len();
    let mut channels: Vec<_> = channels.into_iter().collect();
    let larger =
        |(name, clients): &(Arc<str>, u64)| (std::cmp::Reverse(*clients), Arc::clone(name));
    if channels.len() > limit {
        channels.select_nth_unstable_by_key(limit - 1, larger);
        channels.truncate(limit);
    }
    channels.sort_by_cached_key(larger);
    let channels = channels.iter();
    let channels = channels.map(|(channel, clients)| ChannelView {
        channel,
        clients: *clients,
    });
    json(&ChannelsView {
        total,
        channels: channels.collect(),
    })
}

/// Which channels a query asks for, and how many.
fn wanted(query: Option<&str>) -> Result<(Option<Glob>, usize), String> {
    let query = Query::parse(query)?;
    let pattern = query.first("pattern").filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(str::parse::<Glob>);
    let pattern = pattern
        .transpose()
        .map_err(|error| format!("pattern: {error}"))?;
    let limit = match query.first("limit").map(str::parse) {
        None => USUAL_CHANNELS,
        Some(Ok(limit @ 1..=MOST_CHANNELS)) => limit,
        Some(_) => {
            return Err(format!(
                "limit: expected a number from 1 to {MOST_CHANNELS}"
            ));
        }
    };
    Ok((pattern, limit))
}

/// The refusal of what a page of another site could have caused.
fn foreign(headers: &HeaderMap) -> Option<Response> {
    if let Err(refusal) = OriginPolicy::default().check(headers) {
        return Some(respond::text(
            super::origin::OriginRefusal::STATUS,
            refusal.to_string(),
        ));
    }
    // No form of another site can send that without being asked about it first.
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
        return None;
    }
    let text = "Expected Content-Type: application/json.\n";
    Some(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

fn is_known(headers: &HeaderMap, settings: &AdminSettings, sessions: &Sessions) -> bool {
    let fingerprint = settings.password.fingerprint();
    token(headers).is_some_and(|token| sessions.knows(Instant::now(), token, &fingerprint))
}

/// What the browser was given (RFC 6265, section 5.4).
fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn with_cookie(token: &str, seconds: u64, settings: &AdminSettings) -> Response {
    let secure = if settings.is_encrypted {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{COOKIE}={token}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let response = respond::json(StatusCode::OK, "{}");
    match HeaderValue::try_from(cookie) {
        Ok(mut cookie) => {
            cookie.set_sensitive(true);
            respond::with_header(response, header::SET_COOKIE, cookie)
        }
        Err(_) => response,
    }
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn page(text: &'static str, kind: &'static str) -> Response {
    respond::with_body(StatusCode::OK, HeaderValue::from_static(kind), text.into())
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => respond::json(StatusCode::OK, json),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "It can't be told.\n"),
    }
}

fn refused(status: StatusCode, text: &'static str) -> Response {
    respond::text(status, text)
}

fn missing() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "Not Found: the admin page is at /admin.\n",
    )
}

#[derive(Deserialize)]
struct Login {
    password: String,
}

#[derive(Serialize)]
struct ChannelsView<'a> {
    total: usize,
    channels: Vec<ChannelView<'a>>,
}

#[derive(Serialize)]
struct ChannelView<'a> {
    channel: &'a str,
    clients: u64,
}

const COOKIE: &str = "tautline_admin";
const AUDIT: &str = crate::log_queue::AUDIT_TARGET;
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = include_str!("../../../assets/admin/admin.html");
const SCRIPT: &str = include_str!("../../../assets/admin/admin.js");
const STYLE: &str = include_str!("../../../assets/admin/admin.css");
const MARK: &str = include_str!("../../../assets/admin/mark.svg");
/// Longest body of a login.
const MAX_LOGIN: usize = 4096;
const USUAL_CHANNELS: usize = 50;
const MOST_CHANNELS: usize = 1000;
