//! Whom a handler is asked about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tautline_hub::application;
use tautline_protocol::message::Payload;
use tautline_protocol::{Disconnect, Encoding};

use super::NodeHandle;
use crate::worker::mailbox::WorkerMailbox;

/// A client, as a handler sees it. Cheap to clone, and may be kept: what it says is as it was when the
/// handler was called, and what it does goes nowhere once the client has gone.
#[derive(Clone)]
pub struct Client {
    pub(super) view: application::Client,
    pub(super) request: Arc<Request>,
    pub(super) mailbox: Arc<WorkerMailbox>,
    pub(super) node: NodeHandle,
}

impl Client {
    /// Id of the connection, unlike all others that ever were.
    pub fn id(&self) -> &str {
        &self.view.info.client
    }

    /// User id; empty for an anonymous user.
    pub fn user(&self) -> &str {
        &self.view.info.user
    }

    /// What others are shown about the connection.
    pub fn info(&self) -> Option<&Payload> {
        self.view.info.conn_info.as_ref()
    }

    /// What the application keeps with the connection; the client never sees it.
    pub fn meta(&self) -> Option<&Payload> {
        self.view.meta.as_ref()
    }

    /// How the client is connected, such as `websocket`.
    pub fn transport(&self) -> &'static str {
        self.view.transport.name
    }

    /// Whether the client reads JSON or Protobuf.
    pub fn encoding(&self) -> Encoding {
        self.view.transport.encoding
    }

    /// The request that opened the connection.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The node that the client is connected to.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Sends a message to this connection alone: one JSON value (any bytes to a client of Protobuf). It is
    /// not kept: a client that is gone, or whose connection breaks, doesn't get it.
    pub fn send(&self, data: impl Into<Payload>) {
        let (session, data) = (self.view.session, data.into());
        self.mailbox.call(Box::new(move |now, state| {
            let connections = &mut state.connections;
            state.hub.send_message(now, session, data, connections);
        }));
    }

    /// Ends the connection.
    pub fn disconnect(&self, disconnect: Disconnect) {
        let session = self.view.session;
        self.mailbox.call(Box::new(move |now, state| {
            let connections = &mut state.connections;
            state.hub.disconnect(now, session, disconnect, connections);
        }));
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id())
            .field("user", &self.user())
            .field("transport", &self.transport())
            .finish_non_exhaustive()
    }
}

/// The HTTP request by which a client came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Path and query. What is in a query may be in logs along the way: nothing secret.
    pub uri: String,
    /// Its header fields.
    pub headers: http::HeaderMap,
    /// Where it came from, which may be a proxy; `None` where that isn't known.
    pub remote: Option<SocketAddr>,
    /// The client's address, as far as proxies that are trusted tell it (`http_server.trusted_proxies`); `None` where it
    /// isn't known, such as for connections of the application's own HTTP server.
    pub address: Option<IpAddr>,
    /// What the application's own HTTP server has put with the request, such as who has logged in. Empty for
    /// connections of the server's own listener.
    pub extensions: http::Extensions,
}

impl Request {
    /// The value of a header field, the first if there are several; `None` where it is no text, too.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let fields = self.headers.get_all(http::header::COOKIE).iter();
        let fields = fields.filter_map(|value| value.to_str().ok());
        fields
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find_map(|(known, value)| (known == name).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_name() {
        let mut request = Request::default();
        let field = http::HeaderValue::from_static("a=1; session=x=y;b=2");
        request.headers.append(http::header::COOKIE, field);
        let field = http::HeaderValue::from_static("c=3");
        request.headers.append(http::header::COOKIE, field);
        let found = ["a", "session", "b", "c", "d"].map(|name| request.cookie(name));
        assert_eq!(found, [Some("1"), Some("x=y"), Some("2"), Some("3"), None]);
    }
}
