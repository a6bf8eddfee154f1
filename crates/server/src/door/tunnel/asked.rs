//! What a client asks a tunnel for, and the way to the server behind it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use percent_encoding::percent_decode_str;
use tautline_websocket::conn::{ClientStream, ConnectError, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::KeepAliveOptions;
use tautline_websocket::proto::handshake::{Refusal, RequestError};

use super::super::admission::{Admission, Permit};
use super::{FORWARDED_FOR, Place, Refusing, Tunnel};

/// A connection that a client wants. Made by [`Asked::new`].
pub(crate) struct Asked {
    url: String,
    protocols: Vec<String>,
    headers: Vec<(String, String)>,
}

/// What a client's request says of itself.
pub(crate) struct Request<'r> {
    /// What its path has behind the tunnel's name.
    pub(crate) rest: &'r str,
    pub(crate) query: Option<&'r str>,
    /// Subprotocols that it offers.
    pub(crate) protocols: Vec<String>,
    /// Whether its cookies count: those of pages do that are named, and not of those which a `*` lets in.
    pub(crate) cookies_count: bool,
    /// Whom it is from, where that is known.
    pub(crate) address: Option<IpAddr>,
}

/// The other end of a tunnel: a connection to the server behind.
pub(crate) struct Far {
    pub(super) websocket: WebSocket<ClientStream>,
    /// What that server has chosen.
    pub(crate) subprotocol: Option<String>,
    pub(super) tunnel: Arc<Tunnel>,
    /// Among those of its tunnel, and among all that is open.
    pub(super) place: (Place, Permit),
}

impl Asked {
    /// Puts together what the server behind is asked for. `fields` are those of the client's header.
    ///
    /// # Errors
    ///
    /// 400 for a path that leads out of what the tunnel is for.
    pub(crate) fn new<'f>(
        tunnel: &Tunnel,
        request: Request<'_>,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Result<Self, Refusal> {
        let Request {
            rest,
            query,
            protocols,
            cookies_count,
            address,
        } = request;
        check_path(rest)?;
        if protocols.len() > MOST_PROTOCOLS {
            let body = format!("Bad Request: expected at most {MOST_PROTOCOLS} subprotocols.\n");
            return Err(Refusal::new(400, body));
        }
        let options = &tunnel.options;
        let mut headers: Vec<_> = options
            .static_headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (name, value) in fields {
            let is = |known: &&String| known.eq_ignore_ascii_case(name);
            let Some(name) = options.http_headers.iter().find(is) else {
                continue;
            };
            let counts = cookies_count || !name.eq_ignore_ascii_case("cookie");
            if let (true, Ok(value)) = (counts, std::str::from_utf8(value)) {
                headers.push((name.clone(), value.to_owned()));
            }
        }
        if let Some(address) = address {
            headers.push((FORWARDED_FOR.to_owned(), address.to_string()));
        }
        Ok(Self {
            url: target(tunnel, rest, query),
            protocols,
            headers,
        })
    }

    /// Opens a connection to the server behind, and takes a place for it.
    ///
    /// # Errors
    ///
    /// What to tell the client: 503 when there are too many, 502 and 504 when the server is away, the server's own
    /// status when that is of the client's making, 400 for subprotocols that can't be asked for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the connection up.
    pub(crate) async fn dial(
        self,
        tunnel: &Arc<Tunnel>,
        admission: &Admission,
    ) -> Result<Far, Refusal> {
        let socket = admission.far_socket()?;
        let Some(place) = Place::take(tunnel) else {
            tunnel.counts.refused(Refusing::Limit);
            let body = "The tunnel has as many connections as it takes (max_connections). Try again later.\n";
            return Err(Refusal::new(503, body).with_header("Retry-After", "10"));
        };
        let options = ConnectOptions {
            limits: tunnel.limits(),
            subprotocols: self.protocols,
            headers: self.headers,
            connect_timeout: tunnel.options.connect_timeout,
            handshake_timeout: tunnel.options.connect_timeout,
            tls: tunnel.tls.clone(),
            ..ConnectOptions::default()
        };
        match connect(&self.url, &options).await {
            Ok(connected) => {
                tunnel.is_there();
                let websocket = connected.websocket;
                Ok(Far {
                    websocket: websocket.with_keep_alive(KeepAliveOptions::default()),
                    subprotocol: connected.subprotocol,
                    tunnel: Arc::clone(tunnel),
                    place: (place, socket),
                })
            }
            Err(error) => Err(tunnel.explain(&error)),
        }
    }
}

impl Tunnel {
    fn is_there(&self) {
        if self.counts.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!(
                tunnel = self.options.name,
                "the server behind a tunnel is back"
            );
        }
    }

    /// What a client is told. What it needn't know of the network behind, the log has: once, until the server is back.
    fn explain(&self, error: &ConnectError) -> Refusal {
        let (status, body) = match error {
            ConnectError::Request(RequestError::Subprotocol(_)) => {
                let body = "Bad Request: expected subprotocols that are tokens, each once.\n";
                return Refusal::new(400, body);
            }
            ConnectError::Request(_) | ConnectError::Url(_) => {
                let body =
                    "Bad Request: the path, the query, or a header field can't be passed on.\n";
                return Refusal::new(400, body);
            }
            ConnectError::Refused(rejection) => {
                let status = rejection.head.status();
                let body = format!(
                    "The server behind the tunnel refused the connection, with status {status}.\n"
                );
                if (400..500).contains(&status) {
                    self.counts.refused(Refusing::Upstream);
                    self.is_there();
                    return Refusal::new(status, body);
                }
                (502, body)
            }
            ConnectError::TimedOut(_) | ConnectError::HandshakeTimedOut(_) => {
                let body = "The server behind the tunnel did not answer in time.\n";
                (504, body.to_owned())
            }
            _ => {
                let body = "The server behind the tunnel can't be reached.\n";
                (502, body.to_owned())
            }
        };
        self.counts.refused(Refusing::Upstream);
        if self.counts.is_away.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, tunnel = self.options.name, "the server behind a tunnel is away");
        } else {
            let upstream = &self.options.upstream;
            let upstream = upstream.split('?').next().unwrap_or_default();
            tracing::warn!(
                %error, upstream, tunnel = self.options.name,
                "the server behind a tunnel is away; this is told again once it was back"
            );
        }
        Refusal::new(status, body)
    }
}

/// Where the server behind is asked.
fn target(tunnel: &Tunnel, rest: &str, query: Option<&str>) -> String {
    let upstream = tunnel.options.upstream.as_str();
    let (base, own) = match upstream.split_once('?') {
        Some((base, own)) => (base, Some(own)),
        None => (upstream, None),
    };
    let base = if rest.is_empty() {
        base
    } else {
        base.trim_end_matches('/')
    };
    let queries: Vec<_> = own
        .into_iter()
        .chain(query)
        .filter(|query| !query.is_empty())
        .collect();
    let mark = if queries.is_empty() { "" } else { "?" };
    format!("{base}{rest}{mark}{}", queries.join("&"))
}

/// Nobody gets from what a tunnel is for to something else of the same server.
fn check_path(rest: &str) -> Result<(), Refusal> {
    let decoded = percent_decode_str(rest).decode_utf8_lossy();
    let mut segments = decoded.split(['/', '\\']);
    if segments.any(|segment| segment == "." || segment == "..") {
        let body = "Bad Request: expected a path without `.` and `..`.\n";
        return Err(Refusal::new(400, body));
    }
    Ok(())
}

/// How many subprotocols a client may offer.
const MOST_PROTOCOLS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::tests::tunnel;
    use super::*;

    #[test]
    fn what_is_behind_the_name_is_put_behind_the_upstream() {
        for (upstream, rest, query, expected) in [
            ("ws://a:1", "", None, "ws://a:1"),
            ("ws://a:1/", "", None, "ws://a:1/"),
            ("ws://a:1/", "/room", None, "ws://a:1/room"),
            (
                "ws://a:1/base",
                "/room/",
                Some("x=1"),
                "ws://a:1/base/room/?x=1",
            ),
            (
                "ws://a:1/base?key=k",
                "/room",
                Some("x=1&y"),
                "ws://a:1/base/room?key=k&x=1&y",
            ),
            ("ws://a:1?key=k", "", Some(""), "ws://a:1?key=k"),
        ] {
            let tunnel = tunnel(upstream);
            assert_eq!(target(&tunnel, rest, query), expected, "{upstream} {rest}");
        }
    }

    #[test]
    fn no_path_leads_out() {
        for rest in ["", "/", "/a/b", "/a..b/...", "/%2541", "/%ff"] {
            assert!(check_path(rest).is_ok(), "{rest}");
        }
        for rest in [
            "/..",
            "/a/../b",
            "/./a",
            "/%2e%2E/a",
            "/a%2f..%2fb",
            "/..%5Ca",
            "/a\\..\\b",
        ] {
            assert_eq!(
                check_path(rest).map_err(|refusal| refusal.status()),
                Err(400),
                "{rest}"
            );
        }
    }
}
