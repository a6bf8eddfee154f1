//! The proof that a name is this server's: a certificate which is shown to whoever asks for nothing else (`tls-alpn-01`,
//! RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

/// What an authority may come and ask for.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<HashMap<String, Arc<ServerConfig>>>);

/// A question that is answered for as long as this lives.
#[derive(Debug)]
pub(super) struct Challenge<'a> {
    all: &'a Challenges,
    domain: String,
}

impl Challenges {
    /// Answers for a name with the digest of the key authorization.
    ///
    /// # Errors
    ///
    /// When no certificate can be made of that.
    pub(super) fn answer(&self, domain: &str, digest: &[u8]) -> Result<Challenge<'_>, String> {
        let config = config(domain, digest)?;
        self.lock().insert(domain.to_owned(), Arc::new(config));
        Ok(Challenge {
            all: self,
            domain: domain.to_owned(),
        })
    }

    /// Whether anything may be asked.
    pub(super) fn is_asked(&self) -> bool {
        !self.lock().is_empty()
    }

    /// What to answer a client with who offers that one protocol, and nothing else (RFC 8737, section 3).
    pub(super) fn of(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        let is_one = protocols.next() == Some(PROTOCOL) && protocols.next().is_none();
        let name = hello.server_name().filter(|_| is_one)?;
        self.lock().get(&name.to_ascii_lowercase()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Challenge<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.domain);
    }
}

fn config(domain: &str, digest: &[u8]) -> Result<ServerConfig, String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::new([domain.to_owned()]).map_err(text)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(text)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = default_provider();
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| error.to_string())?;
    // Not looked at: a certificate that only authorities understand is refused everywhere else, which is what its
    // extension is for.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let builder = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

const PROTOCOL: &[u8] = b"acme-tls/1";
