//! Certificates and keys as options have them: a text in PEM, the same in base64, or the path of a file that has one.

use std::fs::File;
use std::io::{self, Read as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

/// A text in PEM, that in base64, or what the file of that name has.
///
/// # Errors
///
/// When it is none of them.
pub(crate) fn read(text: &str) -> io::Result<Vec<u8>> {
    if let Some(given) = given(text) {
        return Ok(given);
    }
    let mut read = Vec::new();
    let file = File::open(text.trim()).map_err(|failed| {
        io::Error::new(
            failed.kind(),
            format!("is no PEM, and no file either: {failed}"),
        )
    })?;
    file.take(MAX_LEN).read_to_end(&mut read)?;
    Ok(read)
}

/// What the option itself has, where it isn't the path of a file: PEM, or that in base64, as variables of the
/// environment and secrets of orchestrators have it that can't have line breaks.
pub(crate) fn given(text: &str) -> Option<Vec<u8>> {
    if text.contains(BEGIN) {
        return Some(text.as_bytes().to_vec());
    }
    let joined: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let decoded = BASE64_STANDARD.decode(joined).ok()?;
    let is_pem = decoded
        .windows(BEGIN.len())
        .any(|part| part == BEGIN.as_bytes());
    is_pem.then_some(decoded)
}

/// The certificates in a text, of which there is one at least.
///
/// # Errors
///
/// What is wrong with it, to be said behind the option's name.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("has no certificate in PEM in it".to_owned()),
        Err(failed) => Err(format!("can't be read as PEM: {failed}")),
    }
}

/// Certificates with the key in a text, which must be that of the first.
///
/// # Errors
///
/// What is wrong with the key, to be said behind the option's name.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
) -> Result<CertifiedKey, String> {
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|failed| format!("is no key in PEM: {failed}"))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|failed| format!("does not belong to cert_pem: {failed}"))
}

/// How each part of a text in PEM begins (RFC 7468, section 2).
const BEGIN: &str = "-----BEGIN";

/// No chain of certificates is longer.
const MAX_LEN: u64 = 1024 * 1024;
