//! `[http_server]`: where the server listens, and what is spoken there.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::Deserialize;
use tautline_auth::Secret;
use tautline_hub::config::duration;

use super::AcmeOptions;
use crate::client_address::ForwardedHeader;

/// `[http_server]`: where the server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerOptions {
    /// IP address of the interface. Needs a restart. Default: `0.0.0.0`, all of them.
    pub address: IpAddr,
    /// Port; 0 for any that is free. Needs a restart. Default: 8000.
    pub port: u16,
    /// Proxies in front, which are believed when they say whom a connection or a request comes from: networks such as
    /// `10.0.0.0/8`. Connections of theirs don't count in `limits.address`, what comes through them does. Default: none.
    pub trusted_proxies: Vec<String>,
    /// Their connections begin with the PROXY protocol, version 1 or 2; all of them, and nobody else's. Default: no.
    pub proxy_protocol: bool,
    /// The field in which they add the address that a request came from. The other one is not looked at, as clients can
    /// write it. Default: `x-forwarded-for`.
    pub forwarded_header: ForwardedHeader,
    /// Address and port of a listener for what isn't for clients, such as `127.0.0.1:9000`: the server API, `/metrics` and
    /// `/admin` are there then, and not on the clients' port any more. Without TLS. Needs a restart. Default: empty, for
    /// none.
    pub internal_listen: String,
    /// How long a client may take nothing of what it is answered, between 1s and 10m; then its connection is dropped, or in
    /// HTTP/2 the stream; a WebSocket that isn't read, as its client doesn't take the answers to what it has said, gets 3008.
    /// Whoever takes a little goes on, and who listens to what has nothing to say isn't meant. On Linux nothing is taken, too,
    /// where the client's system acknowledges nothing: whoever vanished without a word. For those who connect from then on.
    /// Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
    /// `[http_server.http2]`.
    pub http2: Http2Options,
    /// `[http_server.tls]`.
    pub tls: TlsOptions,
}

impl Default for HttpServerOptions {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 8000,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            forwarded_header: ForwardedHeader::default(),
            internal_listen: String::new(),
            write_timeout: Duration::from_secs(30),
            http2: Http2Options::default(),
            tls: TlsOptions::default(),
        }
    }
}

/// `[http_server.http2]`: HTTP/2, for all that is on the port: by ALPN over TLS, without TLS for those who begin
/// with it (prior knowledge), as proxies do. WebSockets too (RFC 8441).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Options {
    /// Whether clients may speak it. Default: yes.
    pub enabled: bool,
    /// Requests and WebSockets that a connection may have open at once; more are refused. Up to 64 KiB may wait for
    /// each that isn't read. Between 1 and 10,000. Default: 128.
    pub max_concurrent_streams: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            enabled: true,
            max_concurrent_streams: 128,
        }
    }
}

/// `[http_server.tls]`: TLS for those who connect. Certificates and keys are texts in PEM, the same in
/// base64, or paths of files that have one; files are read again, and what is new in them is used, without a
/// connection being lost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// Whether there is TLS, and nothing else, on this port. Needs a restart. Default: no.
    pub enabled: bool,
    /// The certificate, with those between it and its authority behind it. Required where `enabled`, but for
    /// `acme`.
    pub cert_pem: String,
    /// Its key. Required with `cert_pem`.
    pub key_pem: Option<Secret>,
    /// Certificates of the authorities that clients must have a certificate from. Default: none, and clients
    /// need none.
    pub client_ca_pem: Option<String>,
    /// How often the files are looked at, between 100ms and 24h. Default: 1m.
    #[serde(deserialize_with = "duration::deserialize")]
    pub check_interval: Duration,
    /// Certificates for other names.
    pub certificates: Vec<CertificateOptions>,
    /// `[http_server.tls.acme]`.
    pub acme: AcmeOptions,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            cert_pem: String::new(),
            key_pem: None,
            client_ca_pem: None,
            check_interval: Duration::from_secs(60),
            certificates: Vec::new(),
            acme: AcmeOptions::default(),
        }
    }
}

/// `[[http_server.tls.certificates]]`: a certificate for other names. The first that is good for the name which a
/// client asks for (SNI) is used; `http_server.tls.cert_pem` where none is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateOptions {
    /// The certificate, with those between it and its authority behind it. Required.
    pub cert_pem: String,
    /// Its key. Required.
    pub key_pem: Option<Secret>,
}
