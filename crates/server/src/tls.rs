//! TLS for those who connect: certificates by the name that is asked for, taken over from their files
//! while connections go on.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::{
    Acceptor, ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::acme::Acme;
use crate::config::{CertificateOptions, TlsOptions, check_acme};
use crate::door::mistaken::HANDSHAKE;
use crate::http::HEAD_TIMEOUT;
use crate::http::metrics::AcmeNumbers;
use crate::io::{Counted, Io};

/// Why certificates can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{option} {problem}")]
pub(crate) struct TlsError {
    /// The option, from `http_server.tls` on.
    pub(crate) option: String,
    pub(crate) problem: String,
}

/// Why there is no session with a client.
#[derive(Debug, Error)]
pub(crate) enum NotAccepted {
    /// It speaks something else, of which nothing was read.
    #[error("the client speaks no TLS")]
    NoTls(TcpStream),
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// What connections are encrypted with.
pub(crate) struct Tls {
    options: TlsOptions,
    /// Whether HTTP/2 is offered.
    http2: bool,
    /// Certificates that are ordered, if any are.
    acme: Option<Arc<Acme>>,
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
    /// What stands before the names of its options.
    path: String,
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
        let acme = if options.acme.enabled {
            check_acme(&options.acme)?;
            Some(Arc::new(Acme::new(&options.acme)?))
        } else {
            None
        };
        let texts = read(options)?;
        let config = build(&texts, http2, acme.as_ref())?;
        Ok(Some(Self {
            options: options.clone(),
            http2,
            acme,
            current: RwLock::new(Current { texts, config }),
        }))
    }

    /// Whether another one has the same options and the same certificates.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.options == other.options && self.http2 == other.http2 && self.shows_the_same_as(other)
    }

    /// Whether another one has the same certificates.
    pub(crate) fn shows_the_same_as(&self, other: &Self) -> bool {
        let lock = |tls: &Self| {
            let current = tls.current.read().unwrap_or_else(PoisonError::into_inner);
            current.texts.clone()
        };
        lock(self) == lock(other)
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
        let config = build(&texts, self.http2, self.acme.as_ref())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { texts, config };
        Ok(true)
    }

    /// The certificates that are shown, in DER, each with the option that it is from, or the name that it was ordered
    /// for. Of those that were not ordered yet there is the name alone.
    pub(crate) fn leaves(&self) -> Vec<(String, Option<CertificateDer<'static>>)> {
        let mut leaves = self.leaves_of_files();
        leaves.extend(self.acme.iter().flat_map(|acme| acme.leaves()));
        leaves
    }

    /// Those of them that are not ordered, but from the configuration or a file.
    pub(crate) fn leaves_of_files(&self) -> Vec<(String, Option<CertificateDer<'static>>)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = current.texts.pairs.iter().filter_map(|pair| {
            let option = format!("{}cert_pem", pair.path);
            let chain = certificates(&option, &pair.certificate).ok()?;
            Some((option, chain.into_iter().next()))
        });
        pairs.collect()
    }

    /// The options of keys that are in files, from `http_server.tls` on, with these files.
    pub(crate) fn key_files(&self) -> Vec<(String, PathBuf)> {
        let named = self.options.certificates.iter().enumerate();
        let named = named.map(|(index, pair)| {
            let option = format!("http_server.tls.certificates[{index}].key_pem");
            (option, pair.key_pem.as_ref())
        });
        let first = (
            "http_server.tls.key_pem".to_owned(),
            self.options.key_pem.as_ref(),
        );
        let keys = std::iter::once(first).chain(named);
        keys.filter_map(|(option, key)| {
            let text = String::from_utf8_lossy(key?.expose()).trim().to_owned();
            let is_file = crate::pem::given(&text).is_none();
            is_file.then(|| (option, PathBuf::from(text)))
        })
        .collect()
    }

    /// Until when each of them is good, in Unix time; 0 for one that is not there yet.
    pub(crate) fn expiries(&self) -> Vec<(String, u64)> {
        let expiry = |leaf: CertificateDer<'_>| validity(&leaf).map(|(_, until)| until);
        let leaves = self.leaves().into_iter();
        leaves
            .map(|(name, leaf)| (name, leaf.and_then(expiry).unwrap_or(0)))
            .collect()
    }

    /// What clients have against those from files at this Unix time, in seconds: sentences that begin with the option.
    pub(crate) fn doubts(&self, now: u64) -> Vec<String> {
        let leaves = self.leaves_of_files().into_iter();
        let doubts = leaves.filter_map(|(option, leaf)| {
            let (from, until) = validity(&leaf?)?;
            let problem = if until < now {
                "has expired"
            } else if from > now {
                "is not good yet"
            } else {
                return None;
            };
            Some(format!(
                "http_server.tls.{option} {problem}: clients will refuse to connect"
            ))
        });
        doubts.collect()
    }

    /// Certificates that are ordered, if any are.
    pub(crate) fn acme(&self) -> Option<&Arc<Acme>> {
        self.acme.as_ref()
    }

    /// What was counted of orders, by name.
    pub(crate) fn orders(&self) -> Vec<AcmeNumbers> {
        let acme = self.acme.iter();
        acme.flat_map(|acme| acme.numbers()).collect()
    }

    /// Looks after certificates: takes new ones over from their files, and orders those that are to be ordered. Never
    /// ends; dropping it gives up an order that is under way.
    pub(crate) async fn watch(self: &Arc<Self>) {
        let order = async {
            match &self.acme {
                None => std::future::pending().await,
                Some(acme) => match acme.run().await {},
            }
        };
        tokio::join!(self.watch_files(), order);
    }

    /// Looks at the files every so often, and takes over what has changed. Never ends.
    async fn watch_files(self: &Arc<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(self.options.check_interval).await;
            let tls = Arc::clone(self);
            let Ok(outcome) = tokio::task::spawn_blocking(move || tls.reload()).await else {
                continue;
            };
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!("new certificates are in use");
                    for doubt in self.doubts(unix_time()) {
                        tracing::warn!("{doubt}");
                    }
                }
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

    /// Shakes hands with a client.
    ///
    /// # Errors
    ///
    /// What came of it instead.
    pub(crate) async fn accept(&self, io: TcpStream) -> Result<Io, NotAccepted> {
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&current.config)
        };
        let handshake = async {
            let mut first = [0];
            let count = io.peek(&mut first).await?;
            if count > 0 && first[0] != HANDSHAKE {
                return Err(NotAccepted::NoTls(io));
            }
            let stream = match &self.acme {
                // While an authority may come and ask, each client is listened to before it is answered.
                Some(acme) if acme.is_asked() => accept_or_prove(io, config, acme).await,
                _ => shake_hands(io, config).await,
            };
            Ok(stream?)
        };
        match tokio::time::timeout(HEAD_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(Io::Tls(Box::new(stream))),
            Ok(Err(NotAccepted::NoTls(io))) => Err(NotAccepted::NoTls(io)),
            Ok(Err(NotAccepted::Failed(error))) => {
                tracing::debug!(%error, "a TLS handshake failed");
                Err(error.into())
            }
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
                tracing::debug!(%error, "a TLS handshake failed");
                Err(error.into())
            }
        }
    }
}

async fn shake_hands(io: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<Counted>> {
    let acceptor = TlsAcceptor::from(config);
    acceptor.accept_with(Counted::new(io), bound).await
}

/// Bounds what a session keeps.
fn bound(session: &mut ServerConnection) {
    session.set_buffer_limit(Some(MAX_UNSENT));
}

/// Shakes hands as usual, but with an authority that wants to see a proof, which is all that it comes for.
async fn accept_or_prove(
    io: TcpStream,
    config: Arc<ServerConfig>,
    acme: &Acme,
) -> io::Result<TlsStream<Counted>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), Counted::new(io)).await?;
    let Some(proof) = acme.answer(&start.client_hello()) else {
        return start.into_stream_with(config, bound).await;
    };
    let mut stream = start.into_stream(proof).await?;
    stream.shutdown().await?;
    Err(io::Error::other("an authority has seen a proof"))
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
    let has_first = !first.cert_pem.is_empty() || first.key_pem.is_some();
    // Where certificates are ordered, there needn't be others.
    let first = (has_first || !options.acme.enabled).then(|| (String::new(), &first));
    let all = first
        .into_iter()
        .chain(named.map(|(index, pair)| (format!("certificates[{index}]."), pair)));
    let mut pairs = Vec::new();
    for (path, pair) in all {
        let key_path = format!("{path}key_pem");
        let key = pair.key_pem.as_ref();
        let key = key.ok_or_else(|| error(&key_path, NEEDED))?;
        let key = String::from_utf8_lossy(key.expose());
        pairs.push(Pair {
            certificate: public_pem(&format!("{path}cert_pem"), &pair.cert_pem)?,
            key: pem(&key_path, &key)?,
            path,
        });
    }
    let authorities = options.client_ca_pem.as_ref();
    Ok(Texts {
        pairs,
        client_authorities: authorities
            .map(|text| public_pem("client_ca_pem", text))
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

/// The same of what is no secret: an error names the file.
fn public_pem(option: &str, text: &str) -> Result<Vec<u8>, TlsError> {
    pem(option, text).map_err(|failed| match text.is_empty() {
        true => failed,
        false => error(option, format!("`{}` {}", shown(text), failed.problem)),
    })
}

/// As much of a text as one line has room for.
fn shown(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(MAX_SHOWN).collect()
}

fn build(
    texts: &Texts,
    http2: bool,
    acme: Option<&Arc<Acme>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut list = Vec::new();
    for pair in &texts.pairs {
        let path = &pair.path;
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
    let mut config = builder.with_cert_resolver(Arc::new(Certificates {
        files: list,
        acme: acme.cloned(),
    }));
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

/// The one that was ordered for the name which the client asks for, or else the first from a file that is good for it; the
/// first of all if none is, or if it asks for none.
#[derive(Debug)]
struct Certificates {
    files: Vec<Arc<CertifiedKey>>,
    acme: Option<Arc<Acme>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(acme) = &self.acme
            && let Some(name) = hello.server_name()
            && let Some(ordered) = acme.certificate(name)
        {
            return Some(ordered);
        }
        let Some(first) = self.files.first() else {
            return self.acme.as_ref().and_then(|acme| acme.first());
        };
        if self.files.len() < 2 {
            return Some(Arc::clone(first));
        }
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = name.and_then(|name| {
            let mut files = self.files.iter();
            files.find(|certified| is_good_for(certified, &name))
        });
        Some(Arc::clone(fitting.unwrap_or(first)))
    }
}

/// Whether a certificate is for a name.
pub(crate) fn is_good_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certified
        .end_entity_cert()
        .and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

/// Unix times, in seconds, from when until when a certificate is good.
pub(crate) fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let validity = parsed.validity();
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    Some((
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    ))
}

/// Now, in seconds.
pub(crate) fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The kind of record that every handshake begins with (RFC 8446, section 5.1).
const NEEDED: &str = "must be set, to a text in PEM or to the path of a file that has one";
/// Most characters of a path that are shown.
const MAX_SHOWN: usize = 200;
const MAX_CERTIFICATES: usize = 1000;
/// How often files may be looked at.
pub(crate) const CHECK_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

/// Encrypted bytes that a connection keeps which its client has yet to take: beyond that nothing more is written to it.
const MAX_UNSENT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use rcgen::{CertificateParams, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWrite};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// What was encrypted and isn't taken has a limit, and is known to whoever adds up what waits for clients.
    #[tokio::test]
    async fn what_tls_keeps_is_bounded_and_known() {
        let provider = || Arc::new(default_provider());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (ours, theirs) = tokio::join!(
            shake_hands(accepted, Arc::new(config)),
            connector.connect(name, stream)
        );
        let (mut io, mut peer) = (Io::Tls(Box::new(ours.unwrap())), theirs.unwrap());
        assert_eq!(io.unsent(), 0);
        // Nobody reads: the system takes some of it, and then nothing more.
        let (bytes, mut written) = (vec![7; 256 * 1024], 0);
        while written < 64 << 20 {
            let write = |cx: &mut std::task::Context<'_>| {
                Poll::Ready(Pin::new(&mut io).poll_write(cx, &bytes))
            };
            match poll_fn(write).await {
                Poll::Ready(count) => written += count.unwrap(),
                Poll::Pending => break,
            }
        }
        assert!(written < 64 << 20, "there is no limit");
        let unsent = io.unsent();
        assert!(
            unsent > MAX_UNSENT / 2 && unsent < MAX_UNSENT + 1024,
            "{unsent}"
        );
        let before = io.progress(written as u64);
        // Whoever reads has it, and nothing is left.
        let reading = tokio::spawn(async move {
            let mut all = vec![0; written];
            peer.read_exact(&mut all).await.map(|_| peer)
        });
        poll_fn(|cx| Pin::new(&mut io).poll_flush(cx))
            .await
            .unwrap();
        reading.await.unwrap().unwrap();
        assert_eq!(io.unsent(), 0);
        assert_eq!(io.progress(0), before + unsent as u64);
    }
}
