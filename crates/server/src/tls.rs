//! TLS for those who connect: certificates by the name that is asked for, taken over from their files
//! while connections go on.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::{CertificateOptions, TlsOptions};
use crate::http::HEAD_TIMEOUT;
use crate::io::Io;

/// Why certificates can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{option} {problem}")]
pub(crate) struct TlsError {
    /// The option, from `http_server.tls` on.
    pub(crate) option: String,
    pub(crate) problem: String,
}

/// What connections are encrypted with.
pub(crate) struct Tls {
    options: TlsOptions,
    /// Whether HTTP/2 is offered.
    http2: bool,
    current: RwLock<Current>,
}

struct Current {
    texts: Texts,
    config: Arc<ServerConfig>,
}

/// What the certificates and keys are made of, as it was read.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    pairs: Vec<Pair>,
    client_authorities: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads certificates and keys; `None` where there is to be no TLS. `http2` says whether clients are
    /// offered that.
    ///
    /// # Errors
    ///
    /// Naming the option whose file can't be read, or doesn't fit.
    pub(crate) fn new(options: &TlsOptions, http2: bool) -> Result<Option<Self>, TlsError> {
        if !options.enabled {
            return Ok(None);
        }
        let texts = read(options)?;
        let config = build(&texts, http2)?;
        Ok(Some(Self {
            options: options.clone(),
            http2,
            current: RwLock::new(Current { texts, config }),
        }))
    }

    /// Whether another one has the same options and the same certificates.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let lock = |tls: &Self| {
            let current = tls.current.read().unwrap_or_else(PoisonError::into_inner);
            current.texts.clone()
        };
        self.options == other.options && self.http2 == other.http2 && lock(self) == lock(other)
    }

    /// Reads them again. Connections that are open keep what they have; who connects from now on gets
    /// the new ones. Returns whether there are any.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); what there was stays in use.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let texts = read(&self.options)?;
        let is_same = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.texts == texts
        };
        if is_same {
            return Ok(false);
        }
        let config = build(&texts, self.http2)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { texts, config };
        Ok(true)
    }

    /// The certificates that servers show, in DER, each with the option that it is from.
    pub(crate) fn leaves(&self) -> Vec<(String, CertificateDer<'static>)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = current.texts.pairs.iter().enumerate();
        pairs
            .filter_map(|(index, pair)| {
                let option = match index {
                    0 => "cert_pem".to_owned(),
                    index => format!("certificates[{}].cert_pem", index - 1),
                };
                let chain = certificates(&option, &pair.certificate).ok()?;
                Some((option, chain.into_iter().next()?))
            })
            .collect()
    }

    /// Looks at the files every so often, and takes over what has changed. Never ends.
    pub(crate) async fn watch(self: &Arc<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(self.options.check_interval).await;
            let tls = Arc::clone(self);
            let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await else {
                continue;
            };
            match outcome {
                Ok(false) => {}
                Ok(true) => tracing::info!("new certificates are in use"),
                // Once, until it is another.
                Err(error) if told.as_ref() == Some(&error) => continue,
                Err(error) => {
                    tracing::warn!(
                        "http_server.tls.{error}; the certificates from before stay in use"
                    );
                    told = Some(error);
                    continue;
                }
            }
            told = None;
        }
    }

    /// Shakes hands with a client; `None` when nothing came of it.
    pub(crate) async fn accept(&self, mut io: TcpStream) -> Option<Io> {
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&current.config)
        };
        let handshake = async {
            let mut first = [0];
            let count = io.peek(&mut first).await?;
            if count > 0 && first[0] != HANDSHAKE {
                // Somebody has forgotten the `s`. Who speaks something else doesn't mind.
                io.write_all(NO_TLS).await?;
                io.shutdown().await?;
                return Err(io::Error::other("the client speaks no TLS"));
            }
            TlsAcceptor::from(config).accept(io).await
        };
        match tokio::time::timeout(HEAD_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Some(Io::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

fn error(option: impl Into<String>, problem: impl Into<String>) -> TlsError {
    TlsError {
        option: option.into(),
        problem: problem.into(),
    }
}

fn read(options: &TlsOptions) -> Result<Texts, TlsError> {
    let first = CertificateOptions {
        cert_pem: options.cert_pem.clone(),
        key_pem: options.key_pem.clone(),
    };
    if options.certificates.len() > MAX_CERTIFICATES {
        let problem = format!("must not be more than {MAX_CERTIFICATES}");
        return Err(error("certificates", problem));
    }
    let named = options.certificates.iter().enumerate();
    let all = std::iter::once((String::new(), &first))
        .chain(named.map(|(index, pair)| (format!("certificates[{index}]."), pair)));
    let mut pairs = Vec::new();
    for (path, pair) in all {
        let key_path = format!("{path}key_pem");
        let key = pair.key_pem.as_ref();
        let key = key.ok_or_else(|| error(&key_path, NEEDED))?;
        let key = String::from_utf8_lossy(key.expose());
        pairs.push(Pair {
            certificate: pem(&format!("{path}cert_pem"), &pair.cert_pem)?,
            key: pem(&key_path, &key)?,
        });
    }
    let authorities = options.client_ca_pem.as_ref();
    Ok(Texts {
        pairs,
        client_authorities: authorities
            .map(|text| pem("client_ca_pem", text))
            .transpose()?,
    })
}

/// A text in PEM, or what the file of that name has.
fn pem(option: &str, text: &str) -> Result<Vec<u8>, TlsError> {
    if text.is_empty() {
        return Err(error(option, NEEDED));
    }
    crate::pem::read(text).map_err(|failed| error(option, failed.to_string()))
}

fn build(texts: &Texts, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let mut list = Vec::new();
    for (index, pair) in texts.pairs.iter().enumerate() {
        let path = match index {
            0 => String::new(),
            index => format!("certificates[{}].", index - 1),
        };
        let chain = certificates(&format!("{path}cert_pem"), &pair.certificate)?;
        let certified = crate::pem::certified(chain, &pair.key)
            .map_err(|problem| error(format!("{path}key_pem"), problem))?;
        list.push(Arc::new(certified));
    }
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|failed| error("enabled", format!("can't be: {failed}")))?;
    let builder = match &texts.client_authorities {
        None => builder.with_no_client_auth(),
        Some(text) => {
            let option = "client_ca_pem";
            let mut roots = RootCertStore::empty();
            for certificate in certificates(option, text)? {
                roots.add(certificate).map_err(|failed| {
                    error(option, format!("is no authority's certificate: {failed}"))
                })?;
            }
            let provider = Arc::new(default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|failed| error(option, format!("can't be used: {failed}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(list)));
    // The first that the client has, too (RFC 7301, section 3.2).
    let protocols: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(option: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    crate::pem::certificates(text).map_err(|problem| error(option, problem))
}

/// The first that is good for the name which the client asks for; the first of all if none is, or if
/// it asks for none.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first();
        if self.0.len() < 2 {
            return first.cloned();
        }
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = name.and_then(|name| {
            let is_good = |certified: &&Arc<CertifiedKey>| {
                let parsed = certified
                    .end_entity_cert()
                    .and_then(ParsedCertificate::try_from);
                parsed.is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
            };
            self.0.iter().find(is_good)
        });
        fitting.or(first).cloned()
    }
}

/// The kind of record that every handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 82\r\nConnection: close\r\n\r\n\
    Bad Request: this port speaks TLS; use https:// or wss:// instead of http or ws.\n\n";
const NEEDED: &str = "must be set, to a text in PEM or to the path of a file that has one";
const MAX_CERTIFICATES: usize = 1000;
/// How often files may be looked at.
pub(crate) const CHECK_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_no_tls_is_told_with_the_right_length() {
        let text = std::str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
