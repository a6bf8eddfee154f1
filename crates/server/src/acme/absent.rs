//! What stands in the place of ACME where it isn't built in: nothing can be made of it.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::AcmeOptions;
use crate::http::metrics::AcmeNumbers;
use crate::tls::TlsError;

/// There is none.
#[derive(Debug)]
pub(crate) struct Acme(Infallible);

impl Acme {
    /// # Errors
    ///
    /// Always.
    pub(crate) fn new(_: &AcmeOptions) -> Result<Self, TlsError> {
        Err(TlsError {
            option: "acme.enabled".to_owned(),
            problem: "needs a server that was built with it: cargo build --release --features acme"
                .to_owned(),
        })
    }

    pub(crate) async fn run(&self) -> Infallible {
        match self.0 {}
    }

    pub(crate) async fn look(&self) -> Result<String, String> {
        match self.0 {}
    }

    pub(crate) fn certificate(&self, _: &str) -> Option<Arc<CertifiedKey>> {
        match self.0 {}
    }

    pub(crate) fn first(&self) -> Option<Arc<CertifiedKey>> {
        match self.0 {}
    }

    pub(crate) fn is_asked(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn answer(&self, _: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        match self.0 {}
    }

    pub(crate) fn leaves(&self) -> Vec<(String, Option<CertificateDer<'static>>)> {
        match self.0 {}
    }

    pub(crate) fn directories(&self) -> (&Path, &Path) {
        match self.0 {}
    }

    pub(crate) fn numbers(&self) -> Vec<AcmeNumbers> {
        match self.0 {}
    }
}
