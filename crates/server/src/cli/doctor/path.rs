//! The way to a server from outside, through all that stands between.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tautline_websocket::conn::{ClientStream, ConnectError, WebSocket};
use tautline_websocket::proto::Message;

use super::finding::Finding;
use super::way::{self, Visit};
use super::{push, tls};
use crate::cli::client::call::Server;
use crate::cli::error::CliError;
use crate::http::origin::RefusedBy;

/// Goes there.
///
/// # Errors
///
/// For a URL that is none.
pub(super) async fn look(url: &str, visit: &Visit<'_>) -> Result<Vec<Finding>, CliError> {
    let server = Server::new(url)?;
    let mut findings = Vec::new();
    let mut has_http2 = false;
    if server.is_https() {
        let Some(offered) = tls::look(&server, &mut findings).await else {
            return Ok(findings);
        };
        has_http2 = offered;
    }
    // Where that comes to nothing, nothing else would come through either.
    match way::ask(&server, Method::GET, "/health", "", SHORT).await {
        Err(error) if has_http2 => {
            let text = format!("only HTTP/2 is spoken there, and SDKs come by HTTP/1.1: {error}");
            findings.push(Finding::bad("HTTP/1.1", text).remedy(BOTH));
            return Ok(findings);
        }
        Err(error) => {
            let text = format!("{url} can't be reached: {error}");
            findings.push(tls::unreachable("connection", text, &error));
            return Ok(findings);
        }
        Ok(answer) if answer.status.is_redirection() => {
            findings.push(redirected(&answer.headers));
            return Ok(findings);
        }
        Ok(answer) => {
            findings.push(health(answer.status, &server));
            push(&mut findings, clock(&answer.headers, SystemTime::now()));
        }
    }
    push(&mut findings, addresses(&server).await);
    let through = websocket(&server, &mut findings).await;
    if let Some(page) = &through
        && has_http2
    {
        findings.push(websocket_over_http2(&server, page).await);
    }
    push(&mut findings, other_sites(&server).await);
    findings.push(streaming(&server, visit).await);
    push(
        &mut findings,
        inside(&server, Method::POST, "/api/info", "the server API").await,
    );
    push(
        &mut findings,
        inside(&server, Method::GET, "/metrics", "the metrics").await,
    );
    // A line of its own: the other may have been silent for too long by now.
    if let Some(page) = &through
        && !visit.idle.is_zero()
        && let Ok(socket) = way::open(&server, page.origin()).await
    {
        findings.push(idle(socket, visit).await);
    }
    Ok(findings)
}

fn health(status: StatusCode, server: &Server) -> Finding {
    match status.as_u16() {
        200 => Finding::good("health", "the server answers"),
        502 | 504 => {
            let text =
                format!("answered with {status}: what stands in front doesn't reach the server");
            Finding::bad("health", text).remedy(BEHIND)
        }
        503 => Finding::doubtful(
            "health",
            "answered with 503: the server has no memory for new clients, or is ending; see its log and limits.memory",
        ),
        400 if !server.is_https() => Finding::doubtful(
            "health",
            "answered with 400 Bad Request: what speaks TLS answers so to who doesn't",
        )
        .remedy("doctor --url https://…"),
        _ => Finding::good(
            "health",
            format!(
                "/health is answered with {status}: it is not passed on, or health.enabled is off"
            ),
        ),
    }
}

/// WebSockets, and requests with a body, don't follow that.
fn redirected(headers: &HeaderMap) -> Finding {
    let to = headers.get(header::LOCATION);
    let to = to.and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
    let text = format!("clients are sent to {to}, and WebSockets don't follow");
    let there = to.trim_end_matches("/health");
    Finding::bad("health", text).remedy(format!(
        "give clients the URL to which it leads: doctor --url {there}"
    ))
}

/// The server's clock beside this one.
fn clock(headers: &HeaderMap, now: SystemTime) -> Option<Finding> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    let apart = match theirs.duration_since(now) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    let seconds = apart.as_secs();
    if seconds > APART {
        let text =
            format!("{seconds} s apart from this machine's: tokens are good by the server's");
        return Some(Finding::doubtful("clock", text).remedy("timedatectl set-ntp true"));
    }
    Some(Finding::good("clock", "as on this machine"))
}

/// As what a client comes in.
enum Page {
    /// A page of the server's own origin.
    Own(String),
    /// None, as the server has a list of pages in which its own are not.
    None,
}

impl Page {
    fn origin(&self) -> Option<&str> {
        match self {
            Self::Own(origin) => Some(origin),
            Self::None => None,
        }
    }
}

/// Whether WebSockets come through, and as what; `None` if they don't.
async fn websocket(server: &Server, findings: &mut Vec<Finding>) -> Option<Page> {
    let page = Page::Own(own_origin(server));
    let rejection = match websocket_of(server, &page, "").await {
        Ok(finding) => {
            findings.push(finding);
            return Some(page);
        }
        Err(ConnectError::Refused(rejection)) => rejection,
        Err(error) => {
            findings.push(Finding::bad("WebSocket", error.to_string()).remedy(UPGRADE));
            return None;
        }
    };
    let status = rejection.head.status();
    let by = RefusedBy::read(&String::from_utf8_lossy(&rejection.body));
    if status == 403 && by == Some(RefusedBy::List) {
        // That is how it is meant where the application's pages are on another site.
        let note = format!(
            "; pages of {} may not connect, as client.allowed_origins has others only",
            own_origin(server)
        );
        if let Ok(finding) = websocket_of(server, &Page::None, &note).await {
            findings.push(finding);
            return Some(Page::None);
        }
    }
    findings.push(refused(status, by, server));
    None
}

async fn websocket_of(server: &Server, page: &Page, note: &str) -> Result<Finding, ConnectError> {
    let begin = Instant::now();
    way::open(server, page.origin()).await?;
    let took = begin.elapsed().as_millis();
    let text = format!("comes through, in {took} ms{note}");
    Ok(Finding::good("WebSocket", text))
}

/// Whether they do over HTTP/2 (RFC 8441) as well, which browsers try first where it is offered.
async fn websocket_over_http2(server: &Server, page: &Page) -> Finding {
    let name = "WebSocket over HTTP/2";
    match way::open_over_http2(server, page.origin()).await {
        Ok(()) => Finding::good(name, "comes through"),
        Err(ConnectError::NoHttp2 | ConnectError::NoExtendedConnect) => Finding::good(
            name,
            "not offered: browsers open them by HTTP/1.1, each in a connection of its own",
        ),
        Err(ConnectError::Refused(rejection)) => {
            let status = rejection.head.status();
            let text =
                format!("offered, and answered with {status}: browsers don't try HTTP/1.1 then");
            Finding::bad(name, text).remedy(NO_EXTENDED_CONNECT)
        }
        Err(error) => {
            let text = format!("offered, and fails: {error}. Browsers don't try HTTP/1.1 then");
            Finding::bad(name, text).remedy(NO_EXTENDED_CONNECT)
        }
    }
}

/// Whether the server can tell clients apart, and nobody can pass for another.
async fn addresses(server: &Server) -> Option<Finding> {
    let name = ADDRESSES;
    Some(match &*way::seen(server, false).await? {
        "direct" => Finding::good(
            name,
            "those of their connections: the server sees no proxy of HTTP in between (one of TCP has to say them by \
             the PROXY protocol, http_server.proxy_protocol)",
        ),
        "believed" => match way::seen(server, true).await.as_deref() {
            Some("forged") => anybody("what a client writes into X-Forwarded-For is believed"),
            Some("forged-behind-trusted") if server.is_loopback() => not_from_here(),
            Some("forged-behind-trusted") => anybody(
                "what a client writes into X-Forwarded-For is passed on by what is in front of a trusted proxy. (Or this \
                 machine is itself in http_server.trusted_proxies: then ask from another)",
            ),
            _ => Finding::good(name, "told by a proxy that is trusted"),
        },
        "not-trusted" => Finding::doubtful(
            name,
            "the server doesn't trust the proxy that tells them: all its clients together have the limits of one \
             address, or none. The server's log names it",
        )
        .remedy("http_server.trusted_proxies = [\"the address of the proxy\"]"),
        // From there, it may be the doctor who has the address of a proxy.
        "not-told" if server.is_loopback() => not_from_here(),
        "not-told" if way::seen(server, true).await.as_deref() == Some("forged") => anybody(
            "the proxy in between is trusted, says nothing itself, and passes on what a client writes into X-Forwarded-For",
        ),
        "not-told" => Finding::doubtful(
            name,
            "the proxy in between is trusted, and doesn't tell them: all its clients together have the limits of \
             one address",
        )
        .remedy(
            "nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; HAProxy: option forwardfor;\n\
             or http_server.forwarded_header = \"forwarded\" for one that sends Forwarded (RFC 7239)",
        ),
        _ => return None,
    })
}

const ADDRESSES: &str = "client addresses";

fn anybody(why: &str) -> Finding {
    let text = format!("anybody can pass for whom he likes: {why}");
    Finding::bad(ADDRESSES, text).remedy(
        "nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         or leave out of http_server.trusted_proxies what is no proxy of yours",
    )
}

/// Of a proxy on the same machine, it can't be told who has what address.
fn not_from_here() -> Finding {
    let text = "it can't be told from this machine whether they are true, as it is itself in http_server.trusted_proxies";
    Finding::doubtful(ADDRESSES, text)
        .remedy("ask from another machine, by the URL that clients have")
}

fn refused(status: u16, by: Option<RefusedBy>, server: &Server) -> Finding {
    let own = own_origin(server);
    match status {
        403 => match by {
            Some(RefusedBy::Own(host)) => {
                let text = format!(
                    "the server takes pages of {own} for those of another site, as it was asked for the host {host}: \
                     the Host header was changed on the way"
                );
                Finding::bad("WebSocket", text).remedy(HOST)
            }
            Some(RefusedBy::List) => {
                let text = format!("pages of {own} are not in client.allowed_origins");
                Finding::bad("WebSocket", text).remedy(format!(
                    "client.allowed_origins = [\"{own}\"]   # beside those that are there"
                ))
            }
            None => {
                let text = "answered with 403, and not in the server's words: what stands in front refuses it, or the \
                            Host header was changed on the way";
                Finding::bad("WebSocket", text).remedy(HOST)
            }
        },
        200..=299 | 400 | 426 => {
            let text = format!("answered with {status}: the Upgrade header doesn't arrive");
            Finding::bad("WebSocket", text).remedy(UPGRADE)
        }
        401 | 407 => Finding::bad(
            "WebSocket",
            format!("answered with {status}: what stands in front wants a password, which browsers don't send with a WebSocket"),
        )
        .remedy(
            "nginx: auth_basic off; in location /connection/\n\
             The server asks for tokens itself: client.token",
        ),
        404 => Finding::bad("WebSocket", "answered with 404: the path is not passed on")
            .remedy("nginx: location /connection/ { proxy_pass http://127.0.0.1:8000; }"),
        429 | 503 => Finding::bad(
            "WebSocket",
            format!("answered with {status}: the server takes nobody else now; see its metrics"),
        ),
        // Those above 520 are Cloudflare's.
        502 | 504 | 520..=530 => Finding::bad(
            "WebSocket",
            format!("answered with {status}: what stands in front doesn't reach the server"),
        )
        .remedy(BEHIND),
        301..=308 => Finding::bad(
            "WebSocket",
            format!("answered with {status}: clients are sent elsewhere, and WebSockets don't follow"),
        )
        .remedy("nginx: location /connection/ without return and rewrite; or give clients the URL to which it leads"),
        other => Finding::bad("WebSocket", format!("answered with {other}")).remedy(UPGRADE),
    }
}

/// Whether any page of the web may connect in the name of its visitors.
async fn other_sites(server: &Server) -> Option<Finding> {
    match way::open(server, Some("https://other-site.invalid")).await {
        Ok(_) => {
            let text = "pages of any site may connect, in the name of whoever looks at them";
            let remedy = "client.allowed_origins = [\"https://app.example.org\"]";
            Some(Finding::doubtful("other sites", text).remedy(remedy))
        }
        Err(ConnectError::Refused(rejection)) if rejection.head.status() == 403 => {
            Some(Finding::good("other sites", "their pages are refused"))
        }
        // That nothing comes through has been told.
        Err(_) => None,
    }
}

/// Whether an answer that goes on arrives while it does.
async fn streaming(server: &Server, visit: &Visit<'_>) -> Finding {
    let name = "streaming";
    let body = connect_command(visit);
    let path = "/connection/http_stream";
    let answer = match way::ask(server, Method::POST, path, &body, LONG).await {
        Ok(answer) => answer,
        Err(error) => {
            let text = format!("no answer: {error}");
            return Finding::doubtful(name, text).remedy(UNBUFFERED);
        }
    };
    match (answer.status.as_u16(), answer.first) {
        (200, Some(first)) if !answer.is_over || first < PROMPT => {
            if answer.is_over && is_let_in(&answer.body) {
                let text = format!("comes through, and is cut within {} s", LONG.as_secs());
                return Finding::bad(name, text).remedy(LASTING);
            }
            if answer.is_over {
                let text =
                    "clients without a token aren't let in, so nothing was to be seen: use --token";
                return Finding::good(name, text);
            }
            let text = format!(
                "comes through as it is written, the first in {} ms",
                first.as_millis()
            );
            Finding::good(name, text)
        }
        (200, _) => {
            let text = format!(
                "held back: nothing came in {} s. Clients without WebSockets fall down to long-polling",
                LONG.as_secs()
            );
            Finding::doubtful(name, text).remedy(UNBUFFERED)
        }
        (404, _) => Finding::doubtful(
            name,
            "answered with 404: the path is not passed on, or the door is closed",
        ),
        (status, _) => Finding::doubtful(name, format!("answered with {status}")),
    }
}

/// Whether an answer of a stream says that the client has come in.
fn is_let_in(body: &[u8]) -> bool {
    let lines = body.split(|byte| *byte == b'\n');
    let mut replies = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    replies.any(|reply| reply["connect"].is_object())
}

/// What only the application's backend needs.
async fn inside(server: &Server, method: Method, path: &str, what: &str) -> Option<Finding> {
    let answer = way::ask(server, method, path, "{}", SHORT).await.ok()?;
    let name = "kept inside";
    if matches!(answer.status.as_u16(), 403 | 404) {
        return Some(Finding::good(
            name,
            format!("{what} can't be reached from here"),
        ));
    }
    if server.is_loopback() {
        return None;
    }
    let text = format!(
        "{what} can be reached from here ({path} answers with {})",
        answer.status
    );
    let remedy = format!("nginx: location {path} {{ deny all; }}");
    Some(Finding::doubtful(name, text).remedy(remedy))
}

/// Whether a line stays on which nobody speaks but the server, which pings now and then.
async fn idle(mut socket: WebSocket<ClientStream>, visit: &Visit<'_>) -> Finding {
    let name = "idle line";
    let begin = Instant::now();
    if let Err(error) = socket.send(&*connect_command(visit)).await {
        return Finding::bad(name, error.to_string());
    }
    let mut is_let_in = false;
    let end = tokio::time::sleep(visit.idle);
    let mut end = std::pin::pin!(end);
    loop {
        let message = tokio::select! {
            () = &mut end => {
                let text = format!("stays for {} s at least", visit.idle.as_secs());
                return Finding::good(name, text);
            }
            message = socket.recv() => message,
        };
        match message {
            Ok(Some(Message::Text(text))) if &*text == "{}" => {
                if let Err(error) = socket.send("{}").await {
                    return cut(begin.elapsed(), &error.to_string());
                }
            }
            Ok(Some(Message::Text(text))) => {
                let reply: Value = serde_json::from_str(&text).unwrap_or_default();
                is_let_in |= reply["connect"].is_object();
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                let closed = socket.closed();
                let code = closed.map_or(1006, |closed| closed.code.get());
                if !is_let_in && (3000..5000).contains(&code) {
                    return Finding::good(name, NOT_LET_IN);
                }
                return cut(begin.elapsed(), &format!("closed with {code}"));
            }
            Err(error) => return cut(begin.elapsed(), &error.to_string()),
        }
    }
}

fn cut(after: Duration, how: &str) -> Finding {
    let text = format!("cut after {} s: {how}", after.as_secs());
    Finding::bad("idle line", text).remedy(LASTING)
}

fn own_origin(server: &Server) -> String {
    let scheme = if server.is_https() { "https" } else { "http" };
    format!("{scheme}://{}", server.authority())
}

fn connect_command(visit: &Visit<'_>) -> String {
    json!({"id": 1, "connect": {"token": visit.token.unwrap_or_default()}}).to_string()
}

const HOST: &str = "nginx: proxy_set_header Host $http_host;   # $host has no port\n\
                    or name the site in client.allowed_origins";

const UPGRADE: &str = "nginx: proxy_http_version 1.1;\n       proxy_set_header Upgrade $http_upgrade;\n       \
                       proxy_set_header Connection $connection_upgrade;   # deploy/nginx has the whole\n\
                       Apache: ProxyPass /connection/ http://127.0.0.1:8000/connection/ upgrade=websocket";

const NO_EXTENDED_CONNECT: &str = "HAProxy: h2-workaround-bogus-websocket-clients in `global`\n\
                                   nginx, Caddy: serve the clients' host without HTTP/2, or update";

const BEHIND: &str = "nginx: proxy_pass http://127.0.0.1:8000;   # where the server listens: http_server.address and port";

const BOTH: &str =
    "HAProxy: bind :443 ssl … alpn h2,http/1.1; nginx and Caddy speak both by themselves";

const LASTING: &str = "nginx: proxy_read_timeout 90s; HAProxy: timeout tunnel 1h; ALB: idle_timeout 90;\n\
                       or client.ping_interval below what cuts it";

const NOT_LET_IN: &str =
    "clients without a token aren't let in, so nothing was to be seen: use --token";

const UNBUFFERED: &str = "nginx: proxy_buffering off;   # or leave X-Accel-Buffering to the server";

/// For what is answered at once.
const SHORT: Duration = Duration::from_secs(3);

/// For what goes on.
const LONG: Duration = Duration::from_secs(4);

/// A body that was over by then was not held back.
const PROMPT: Duration = Duration::from_secs(2);

/// How many seconds clocks may be apart.
const APART: u64 = 5;

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let headers = |at: SystemTime| {
            let date = httpdate::fmt_http_date(at);
            HeaderMap::from_iter([(header::DATE, date.parse().expect("a date"))])
        };
        let minute = Duration::from_secs(60);
        for (at, grade) in [
            (now, Grade::Good),
            (now + minute, Grade::Doubtful),
            (now - minute, Grade::Doubtful),
        ] {
            let finding = clock(&headers(at), now).expect("a finding");
            assert_eq!(finding.grade, grade, "{finding:?}");
        }
        assert_eq!(clock(&HeaderMap::new(), now), None);
    }
}
