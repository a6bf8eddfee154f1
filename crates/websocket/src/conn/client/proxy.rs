//! Tunnels through proxies: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS 5 (RFC 1928, RFC 1929). The
//! proxy resolves the name of the server, so that networks without a resolver of their own work.

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::read_head;
use crate::proto::handshake::{HeadLimits, ResponseHeadError, Url, encode_base64};

/// A proxy to connect through. What passes it is a plain tunnel, so with `wss://` it sees no more
/// than the host.
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Http,
    Socks5,
}

impl Proxy {
    /// An HTTP proxy that takes CONNECT; to be reached without TLS.
    ///
    /// ```
    /// use tautline_websocket::conn::{ConnectOptions, Proxy};
    ///
    /// let options = ConnectOptions {
    ///     proxy: Some(Proxy::http("proxy.example", 3128).with_credentials("me", "secret")),
    ///     ..ConnectOptions::default()
    /// };
    /// ```
    pub fn http(host: impl Into<String>, port: u16) -> Self {
        Self {
            kind: Kind::Http,
            host: host.into(),
            port,
            credentials: None,
        }
    }

    /// A SOCKS 5 proxy, such as `ssh -D` makes.
    pub fn socks5(host: impl Into<String>, port: u16) -> Self {
        Self {
            kind: Kind::Socks5,
            ..Self::http(host, port)
        }
    }

    /// The same with a user name and a password. They reach the proxy unencrypted.
    #[must_use]
    pub fn with_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Its name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks the proxy at the other end of `io` for a tunnel to `url`'s host and port.
    pub(super) async fn open_tunnel(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        url: &Url,
    ) -> Result<(), ProxyError> {
        match self.kind {
            Kind::Http => self.connect(io, url).await,
            Kind::Socks5 => self.socks5_connect(io, url).await,
        }
    }

    async fn connect(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        url: &Url,
    ) -> Result<(), ProxyError> {
        let host = url.host();
        let port = url.port();
        // Unlike elsewhere, the port is always there.
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((user, password)) = &self.credentials {
            if user.contains(':') {
                return Err(ProxyError::Credentials);
            }
            let value = basic(user, password);
            request.push_str(&format!("Proxy-Authorization: Basic {value}\r\n"));
        }
        request.push_str("\r\n");
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let (head, rest) = read_head(io, &HeadLimits::default())
            .await?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match head.status() {
            // Neither TLS nor HTTP lets the server speak first, so it isn't the server.
            200..300 if !rest.is_empty() => Err(ProxyError::Protocol),
            200..300 => Ok(()),
            status => Err(ProxyError::Refused(status)),
        }
    }

    async fn socks5_connect(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        url: &Url,
    ) -> Result<(), ProxyError> {
        let method = if self.credentials.is_some() {
            SOCKS_PASSWORD
        } else {
            SOCKS_NO_AUTHENTICATION
        };
        io.write_all(&[SOCKS_VERSION, 1, method]).await?;
        io.flush().await?;
        match read_array(io).await? {
            [SOCKS_VERSION, chosen] if chosen == method => {}
            [SOCKS_VERSION, 0xFF] => return Err(ProxyError::Credentials),
            _ => return Err(ProxyError::Protocol),
        }
        if let Some((user, password)) = &self.credentials {
            let mut request = vec![1];
            put_short(&mut request, user)?;
            put_short(&mut request, password)?;
            io.write_all(&request).await?;
            io.flush().await?;
            let [_version, status] = read_array(io).await?;
            if status != 0 {
                return Err(ProxyError::Credentials);
            }
        }

        let mut request = vec![SOCKS_VERSION, 1, 0];
        match url.host().parse() {
            Ok(IpAddr::V4(address)) => {
                request.push(SOCKS_IPV4);
                request.extend(address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(SOCKS_IPV6);
                request.extend(address.octets());
            }
            Err(_) => {
                request.push(SOCKS_NAME);
                put_short(&mut request, url.host())?;
            }
        }
        request.extend(url.port().to_be_bytes());
        io.write_all(&request).await?;
        io.flush().await?;
        let [version, status, _, kind] = read_array(io).await?;
        if version != SOCKS_VERSION {
            return Err(ProxyError::Protocol);
        }
        if status != 0 {
            return Err(ProxyError::Socks(status));
        }
        // The address that the proxy uses is of no interest, but has to be read.
        let address_len = match kind {
            SOCKS_IPV4 => 4,
            SOCKS_IPV6 => 16,
            SOCKS_NAME => usize::from(read_array::<1>(io).await?[0]),
            _ => return Err(ProxyError::Protocol),
        };
        let mut address = [0; 255 + 2];
        io.read_exact(&mut address[..address_len + 2]).await?;
        Ok(())
    }
}

/// The credentials are secret.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a proxy gave no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy wants other credentials, or some, or these have a form that it can't be sent: at
    /// most 255 bytes each for SOCKS 5, no colon in the user name for HTTP.
    #[error("the proxy did not take the user name and password, or wants some")]
    Credentials,
    /// What the proxy sent is no response.
    #[error("the proxy's answer is not an HTTP response; perhaps it is a proxy of another kind")]
    Head(#[from] ResponseHeadError),
    /// The connection to the proxy failed.
    #[error("the connection to the proxy failed: {0}")]
    Io(#[from] io::Error),
    /// The proxy doesn't keep to its protocol.
    #[error("the proxy's answer makes no sense; perhaps it is a proxy of another kind")]
    Protocol,
    /// The status of an HTTP proxy's answer: 407 when it wants credentials.
    #[error("the proxy refused with status {0}")]
    Refused(u16),
    /// The code of a SOCKS 5 proxy's answer.
    #[error("the proxy refused: {}", socks_reason(*.0))]
    Socks(u8),
}

fn socks_reason(code: u8) -> &'static str {
    match code {
        2 => "not allowed by its rules",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the server refused the connection",
        6 => "the connection took too long",
        7 | 8 => "it can't do what was asked",
        _ => "a general failure",
    }
}

/// The credentials of RFC 7617.
fn basic(user: &str, password: &str) -> String {
    let plain = format!("{user}:{password}");
    let mut text = vec![b'='; plain.len().div_ceil(3) * 4];
    encode_base64(plain.as_bytes(), &mut text);
    // Base64 is ASCII, so the empty string is never given.
    String::from_utf8(text).unwrap_or_default()
}

/// Appends a text behind its length in one byte.
fn put_short(out: &mut Vec<u8>, text: &str) -> Result<(), ProxyError> {
    let len = u8::try_from(text.len()).map_err(|_| ProxyError::Credentials)?;
    out.push(len);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

async fn read_array<const N: usize>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

const SOCKS_VERSION: u8 = 5;
const SOCKS_NO_AUTHENTICATION: u8 = 0;
const SOCKS_PASSWORD: u8 = 2;
const SOCKS_IPV4: u8 = 1;
const SOCKS_NAME: u8 = 3;
const SOCKS_IPV6: u8 = 4;
