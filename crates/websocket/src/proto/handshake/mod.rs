//! The opening handshake (RFC 6455 §4, over HTTP/2 RFC 8441), without I/O.
//!
//! A server reads the head of an HTTP request, with [`RequestHead`] from raw bytes or with an HTTP
//! library. [`Opening::from_request`] makes every check of §4.2.1 and gives either the request's
//! meaning or the [`Refusal`] to answer with. The application looks at origin and subprotocols,
//! and [`Opening::accept`] gives the response.
//!
//! ```
//! use tautline_websocket::proto::handshake::{HeadLimits, Opening, RequestHead};
//!
//! let bytes = b"GET /chat HTTP/1.1\r\n\
//!     Host: example.com\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
//!     Sec-WebSocket-Version: 13\r\n\r\n";
//! let head = RequestHead::parse(bytes, &HeadLimits::default())?.expect("the head is whole");
//! let opening = head.opening()?;
//! let mut response = Vec::new();
//! opening.accept(None).write_http1(&mut response);
//! assert!(response.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A client names the server with a [`Url`], writes a [`ClientRequest`], reads a [`ResponseHead`],
//! and [`ClientRequest::check`] makes every check of §4.1.
//!
//! Over HTTP/2 an HTTP library reads and writes: [`Opening::from_connect`] and
//! [`ClientRequest::pseudo_headers`] are the ways in there, and all else is the same.

mod client;
mod connect;
mod header_lines;
mod http1;
mod key;
mod request;
mod response;
mod response_head;
mod url;

pub use client::{Agreed, ClientRequest, RequestError, ResponseError};
pub use connect::PseudoHeaders;
pub use http1::{HeadError, HeadLimits, RequestHead};
pub use key::AcceptKey;
#[cfg(feature = "tokio")]
pub(crate) use key::encode_base64;
pub use request::{HttpVersion, Opening, OpeningError};
pub use response::{Acceptance, Refusal};
pub use response_head::{ResponseHead, ResponseHeadError};
pub use url::{MAX_URL, Url, UrlError};
