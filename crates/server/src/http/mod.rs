//! The HTTP side of the server: everything on the port that is not a WebSocket.
//!
//! | path | what |
//! |---|---|
//! | `POST /api/<method>` | the application's backend: publish, presence, history … ([`api`]) |
//! | `/admin` … | the admin's page, where it is switched on ([`admin`]) |
//! | `GET /metrics` | what was counted, for Prometheus ([`metrics`]), where it is switched on |
//! | `GET /health` | 200 and `{}` while the process serves |
//! | `GET /ready` | the same while new clients are welcome, 503 once the process is on its way out |
//! | `/connection/http_stream`, `/connection/sse`, `/connection/poll`, `/emulation` … | the doors that are made of plain HTTP: what `Node::enter` answers |
//! | `/connection/websocket` | an upgrade that comes behind other requests (the door handles those that come first); 426 for a plain request |
//! | `GET /`, `/assets/…` | the chat page, in development only |
//! | `GET /lab`, `/lab/assets/…`, `/dev/head`, `/dev/cpu` | the page that compares the ways to listen, in development only |
//! | `POST /dev/token` | a token for anybody, in development only |
//!
//! [`serve_connection`] runs one connection of HTTP/1; over HTTP/2 each request is answered by itself
//! (`http2`). What they need of the rest of the server is the trait [`Node`]. Limits: request heads of 16 KiB and 64 fields within 10 s, bodies as configured within
//! 30 s, answers that nobody takes as configured (`patience`), a connection for 5 minutes at the most.

pub mod admin;
pub mod api;
mod assets;
pub(crate) mod body;
pub mod counters;
mod dev_cpu;
mod dev_head;
mod dev_token;
pub(crate) mod fields;
pub mod host;
pub(crate) mod http2;
pub mod line;
mod long;
pub mod metrics;
pub mod node;
pub mod origin;
pub(crate) mod patience;
pub mod process;
pub(crate) mod query;
pub mod respond;
pub(crate) mod rewind;
mod serve;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use tautline_auth::Signer;

use self::admin::AdminSettings;
use self::api::{Api, ApiKeys, ApiLimits, AuditLog, ErrorMode};
use self::counters::Dropped;
use self::line::HttpLine;
use self::node::Node;
use self::origin::OriginPolicy;
use self::respond::{Reply, Response};
use crate::telemetry::Telemetry;

pub use self::body::RequestBody;
pub use self::serve::serve_connection;
pub use self::serve::serve_kept_connection;
pub(crate) use self::serve::serve_rewound;

/// Where clients open their WebSocket.
pub const WEBSOCKET_PATH: &str = "/connection/websocket";

/// Where those do that listen only.
pub const UNI_WEBSOCKET_PATH: &str = "/connection/uni_websocket";

/// Where those do that have no SDK.
pub const PLAIN_PATH: &str = "/ws";

/// How long a request's head may take to arrive, and how long a connection may idle before it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a connection from a proxy that is trusted: longer than those of the clouds idle, which take a connection for
/// good until they have given it up (Google Cloud's: 600 s, and that can't be changed).
pub const KEPT_TIMEOUT: Duration = Duration::from_secs(620);

/// Longest request head, in bytes.
pub const MAX_HEAD_LEN: usize = 16 * 1024;

/// Most header fields in a request.
pub const MAX_HEADERS: usize = 64;

/// How long a connection is kept, so that one that neither reads nor ends goes too.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(5 * 60);

/// How long the request that is being answered may take once the connection has to end.
pub(crate) const CLOSING_TIME: Duration = Duration::from_secs(10);

/// What decides how requests are answered.
#[derive(Debug, Default)]
pub struct Settings {
    /// The keys of the HTTP API; without any, every call is refused.
    pub api_keys: ApiKeys,
    /// How errors of the HTTP API are told where the caller doesn't say.
    pub api_error_mode: ErrorMode,
    /// How much may be asked of the HTTP API.
    pub api_limits: ApiLimits,
    /// Which calls of the HTTP API are logged.
    pub api_audit_log: AuditLog,
    /// Whether those who follow somebody may see payloads.
    pub trace_payloads: bool,
    /// Whether `/health` and `/ready` exist.
    pub health: bool,
    /// Whether `/metrics` exists.
    pub metrics: bool,
    /// Who may see the admin page, if there is one.
    pub admin: Option<AdminSettings>,
    /// Whose pages may connect. Used here to keep other sites' pages from the development server.
    pub origins: OriginPolicy,
    /// Set in development: signs tokens at `/dev/token`, serves the chat page at `/`, and answers
    /// to the names of the loopback interface only.
    pub dev: Option<Signer>,
    /// How long a client may take nothing of what it is answered; `None` for any time.
    pub write_timeout: Option<Duration>,
    /// Where traces of calls of the HTTP API go.
    pub telemetry: Option<Arc<Telemetry>>,
}

/// Answers the requests of one worker's connections.
pub struct Service<N> {
    settings: Arc<Settings>,
    api: Api,
    node: N,
    side: Side,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Everything.
    #[default]
    Both,
    /// Clients: what is for operators and the application's backend has a listener of its own.
    Clients,
    /// That one.
    Internal,
}

impl<N: Node> Service<N> {
    /// A service over `node`.
    pub fn new(settings: Arc<Settings>, node: N) -> Self {
        Self {
            settings,
            api: Api::default(),
            node,
            side: Side::Both,
        }
    }

    /// The same for one of two listeners.
    #[must_use]
    pub fn on_side(self, side: Side) -> Self {
        Self { side, ..self }
    }

    async fn respond(self: &Rc<Self>, request: Request<RequestBody>, line: &Rc<HttpLine>) -> Reply {
        // One request goes by the same from its beginning to its end.
        let settings = self.node.settings();
        let settings = settings.as_ref().unwrap_or(&self.settings);
        let reply = match refusal(settings, &request) {
            Some(refusal) => refusal.into(),
            None if !self.has(request.uri().path()) => self.elsewhere().into(),
            None if request.uri().path() == api::TRACE_PATH => {
                let node = &self.node;
                Reply::Now(self.api.trace(request, settings, node, line).await)
            }
            None => match self.node.enter(request, line).await {
                Ok(reply) => reply,
                Err(request) => self.route(settings, request, line).await.into(),
            },
        };
        let (service, line) = (Rc::clone(self), Rc::downgrade(line));
        reply.then(move |response| {
            respond::harden(response.headers_mut());
            if let Some(line) = line.upgrade() {
                service.node.hold(response, &line);
            }
            let status = response.status();
            service
                .node
                .count_http(|counters| counters.answered(status));
        })
    }

    /// How long a client may take nothing of what it is answered.
    fn write_timeout(&self) -> Option<Duration> {
        let settings = self.node.settings();
        settings.as_ref().unwrap_or(&self.settings).write_timeout
    }

    /// An answer was given up because its client took nothing.
    fn count_stalled(&self) {
        self.count_dropped(Dropped::Answer);
    }

    fn count_dropped(&self, dropped: Dropped) {
        self.node.count_http(|counters| counters.dropped(dropped));
    }

    /// Counts what the HTTP library has ended a connection for.
    fn count_end(&self, error: &hyper::Error) {
        if patience::is_stalled(error) {
            return self.count_stalled();
        }
        let status = if error.is_parse_too_large() {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        };
        if error.is_timeout() {
            self.count_dropped(Dropped::Head);
        } else if error.is_parse() {
            self.node.count_http(|counters| counters.answered(status));
        }
    }

    /// Whether a path is on this side.
    fn has(&self, path: &str) -> bool {
        let is_internal = path == api::LEGACY_PATH
            || path.starts_with(api::PREFIX)
            || path == metrics::PATH
            || admin::is_path(path);
        match self.side {
            Side::Both => true,
            Side::Clients => !is_internal,
            Side::Internal => is_internal || matches!(path, "/health" | "/ready"),
        }
    }

    fn elsewhere(&self) -> Response {
        if self.side == Side::Clients {
            return not_found(false);
        }
        let body = "Not Found: here are the HTTP API /api/<method>, /metrics, /admin, /health and /ready; clients \
                    have another port.\n";
        respond::text(StatusCode::NOT_FOUND, body)
    }

    async fn route(
        &self,
        settings: &Settings,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Response {
        let path = request.uri().path();
        if path == api::LEGACY_PATH || path.starts_with(api::PREFIX) {
            let name = path.strip_prefix(api::PREFIX);
            let name = name.filter(|name| !name.is_empty()).map(ToOwned::to_owned);
            let (name, node) = (name.as_deref(), &self.node);
            return self.api.respond(name, request, settings, node, line).await;
        }
        if let Some(admin) = settings.admin.as_ref().filter(|_| admin::is_path(path)) {
            let address = self.node.address_of(line, request.headers());
            return admin::respond(request, address, admin, &self.node).await;
        }
        match (path, &settings.dev) {
            (WEBSOCKET_PATH | UNI_WEBSOCKET_PATH | PLAIN_PATH, dev) => {
                let is_dev = dev.is_some();
                let is_open = path == WEBSOCKET_PATH || self.node.opens_websockets_at(path);
                if !is_open {
                    return not_found(is_dev);
                }
                let open = self.node.open_websocket(request, line);
                open.unwrap_or_else(upgrade_required)
            }
            (metrics::PATH, _) if settings.metrics => {
                let method = request.method().clone();
                metrics::respond(&method, &self.node.snapshot().await)
            }
            ("/health", _) if settings.health => {
                let response = state(request.method(), true);
                let seen = request.headers().contains_key(DOCTOR);
                let seen = seen.then(|| self.node.seen(line, request.headers()));
                match seen.flatten() {
                    Some(seen) => {
                        let seen = HeaderValue::from_static(seen.word());
                        respond::with_header(response, DOCTOR, seen)
                    }
                    None => response,
                }
            }
            ("/ready", _) if settings.health => state(request.method(), self.node.is_ready()),
            (dev_head::PATH, Some(_)) => dev_head::respond(&request),
            (dev_cpu::PATH, Some(_)) => dev_cpu::respond(request.method()),
            (dev_token::PATH, Some(signer)) => dev_token::respond(request, signer).await,
            (path, Some(_)) => match assets::find(path) {
                Some(asset) => asset.respond(request.method(), request.headers()),
                None => not_found(true),
            },
            (_, None) => not_found(false),
        }
    }
}

/// Whoever sends it with a request for `/health` is told, in it, how the server knows whom the request is from: not
/// who that is, which is a proxy's business.
pub(crate) const DOCTOR: HeaderName = HeaderName::from_static("tautline-doctor");

/// The answer to a request that is refused whatever its path.
fn refusal(settings: &Settings, request: &Request<RequestBody>) -> Option<Response> {
    if let Some(refusal) = host_count_refusal(request.version(), request.headers()) {
        return Some(refusal);
    }
    if let Some(refusal) = coding_refusal(request.headers()) {
        return Some(refusal);
    }
    settings.dev.as_ref()?;
    // The development server's key is known to all, so a page of another site that is open in
    // a browser on this machine must be told apart from the machine's own programs.
    if let Err(refusal) = host::check_loopback_host(request.headers()) {
        return Some(respond::text(
            host::HostRefusal::STATUS,
            refusal.to_string(),
        ));
    }
    if let Err(refusal) = settings.origins.check(request.headers()) {
        return Some(respond::text(
            origin::OriginRefusal::STATUS,
            refusal.to_string(),
        ));
    }
    None
}

/// RFC 9112 §3.2: an HTTP/1.1 request has one `Host`, no more, no less.
fn host_count_refusal(version: Version, headers: &HeaderMap) -> Option<Response> {
    let count = headers.get_all(header::HOST).iter().count();
    if count == 1 || (count == 0 && version < Version::HTTP_11) {
        return None;
    }
    let body = format!("Bad Request: expected one Host header, got {count}.\n");
    Some(respond::text(StatusCode::BAD_REQUEST, body))
}

/// RFC 9112 §6.1: what a body is coded with beside the chunks we would have to undo, and can't. A list that doesn't
/// end with `chunked`, and one in HTTP/1.0, the HTTP library has refused before.
fn coding_refusal(headers: &HeaderMap) -> Option<Response> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next()?;
    if codings.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return None;
    }
    let body =
        "Not Implemented: expected one Transfer-Encoding, chunked; got something beside it.\n";
    let refusal = respond::text(StatusCode::NOT_IMPLEMENTED, body);
    // Where the request ends is anybody's guess.
    let close = HeaderValue::from_static("close");
    Some(respond::with_header(refusal, header::CONNECTION, close))
}

fn state(method: &Method, is_good: bool) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return respond::method_not_allowed("GET, HEAD");
    }
    if is_good {
        return respond::json(StatusCode::OK, "{}");
    }
    let body = r#"{"reason":"shutting down"}"#;
    respond::json(StatusCode::SERVICE_UNAVAILABLE, body)
}

/// RFC 9110 §15.5.22: a plain request where only an upgrade makes sense.
pub(crate) fn upgrade_required() -> Response {
    upgrade_required_at(WEBSOCKET_PATH)
}

/// The same, for one of several doors.
pub(crate) fn upgrade_required_at(path: &str) -> Response {
    let advice = match path {
        PLAIN_PATH => {
            "Open one: new WebSocket(\"ws://<host>/ws?channel=news\"). Over plain HTTP, the same comes by \
             /lines, /events and /history."
        }
        UNI_WEBSOCKET_PATH => {
            "Open one, and send the connect request as its first message. Over plain HTTP, the same comes by \
             /connection/uni_sse and /connection/uni_http_stream."
        }
        _ => {
            "Use a client SDK, such as the npm package `centrifuge`, with the address \
             ws://<host>/connection/websocket."
        }
    };
    let body = format!(
        "This is where clients open their WebSocket; a plain HTTP request gets nowhere here.\n{advice}\n"
    );
    let mut response = respond::text(StatusCode::UPGRADE_REQUIRED, body);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    );
    response
}

fn not_found(dev: bool) -> Response {
    let page = if dev { "the page /, " } else { "" };
    let body = format!(
        "Not Found: there is {page}the WebSocket endpoint {WEBSOCKET_PATH}, {PLAIN_PATH}, /events, \
         /lines, /history and /publish for clients with no SDK, the HTTP API /api/<method>, \
         /health and /ready.\n"
    );
    respond::text(StatusCode::NOT_FOUND, body)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What is built on HTTP may change without it: the doors, and the workers that have them.
    #[test]
    fn http_knows_nothing_of_what_is_built_on_it() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
        let (mut left, mut files) = (vec![directory], 0);
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let entries = path.read_dir().expect("a directory");
                left.extend(entries.map(|entry| entry.expect("an entry").path()));
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).expect("a text");
            // Tests may put a whole together.
            let code = text.split("#[cfg(test)]\nmod tests {").next();
            for above in ["crate::door", "crate::worker"] {
                let knows = code.is_some_and(|code| code.contains(above));
                assert!(!knows, "{} knows {above}", path.display());
            }
        }
        assert!(files > 20, "{files} files were looked at");
    }
}
