//! One endpoint of the backend: its options, checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use tautline_auth::Secret;
use tautline_hub::application::Refusal;
use tautline_websocket::conn::tls_config;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{sign, wire};
use crate::config::{ProxyHttpOptions, ProxyOptions, ProxyTlsOptions, StatusTransform};
use crate::pem;

/// An endpoint, and how it is spoken to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// As namespaces call it; `default` where nobody had to name it.
    pub(super) name: String,
    pub(crate) url: Uri,
    /// The same for logs: without what may be a secret.
    pub(crate) place: String,
    pub(crate) timeout: Duration,
    pub(super) http_headers: Vec<HeaderName>,
    pub(super) emulated_headers: Vec<HeaderName>,
    pub(crate) static_headers: HeaderMap,
    pub(super) is_binary: bool,
    pub(super) has_meta: bool,
    /// The current key and the one before it, as far as there are any.
    pub(crate) keys: Vec<hmac::Key>,
    pub(super) max_in_flight: usize,
    pub(super) max_response_size: usize,
    pub(super) breaker_failures: usize,
    pub(super) breaker_pause: Duration,
    pub(super) transforms: HashMap<StatusCode, Refusal>,
    /// `None` for `http://`.
    pub(super) tls: Option<ClientConfig>,
    /// What it was made of.
    options: ProxyOptions,
}

/// An option that can't be as it is.
#[derive(Debug)]
pub(crate) struct EndpointError {
    /// Its path, from the endpoint's table on.
    pub(crate) option: String,
    pub(crate) problem: String,
}

impl Endpoint {
    pub(crate) fn new(name: &str, options: &ProxyOptions) -> Result<Self, EndpointError> {
        let url = url(&options.endpoint)?;
        check_range("timeout", options.timeout, MIN_TIME, MAX_TIMEOUT)?;
        check_range("breaker_pause", options.breaker_pause, MIN_TIME, MAX_PAUSE)?;
        check_number("max_in_flight", options.max_in_flight, 1, MAX_IN_FLIGHT)?;
        let size = options.max_response_size;
        check_number("max_response_size", size, MIN_SIZE, MAX_SIZE)?;
        let ProxyHttpOptions {
            static_headers,
            status_to_code_transforms,
            tls,
        } = &options.http;
        let mut headers = HeaderMap::new();
        for (name, value) in static_headers {
            let path = format!("http.static_headers.{name}");
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| error(&path, "is no value of a header field"))?;
            // It may well be a password: it is not printed, and HTTP/2 keeps it out of its tables.
            value.set_sensitive(true);
            headers.insert(header_name(&path, name)?, value);
        }
        Ok(Self {
            name: name.to_owned(),
            timeout: options.timeout,
            http_headers: header_names("http_headers", &options.http_headers)?,
            emulated_headers: header_names("emulated_headers", &options.emulated_headers)?,
            static_headers: headers,
            is_binary: options.binary_encoding,
            has_meta: options.include_connection_meta,
            keys: keys(options)?,
            max_in_flight: options.max_in_flight,
            max_response_size: size,
            breaker_failures: options.breaker_failures,
            breaker_pause: options.breaker_pause,
            transforms: transforms(status_to_code_transforms)?,
            tls: tls_of(&url, tls)?,
            place: place(&url),
            url,
            options: options.clone(),
        })
    }

    /// Whether another one is the same. Who has certificates never is: they may be in files, and others by now.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let tls = &self.options.http.tls;
        self.name == other.name
            && self.options == other.options
            && *tls == ProxyTlsOptions::default()
    }
}

fn error(option: &str, problem: impl Into<String>) -> EndpointError {
    EndpointError {
        option: option.to_owned(),
        problem: problem.into(),
    }
}

fn url(text: &str) -> Result<Uri, EndpointError> {
    let no_url = || {
        error(
            "endpoint",
            "must be set, to a URL such as https://app.example.com/tautline/connect; of gRPC there is none yet",
        )
    };
    let url: Uri = text.parse().map_err(|_| no_url())?;
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    if !is_known || url.host().is_none_or(str::is_empty) {
        return Err(no_url());
    }
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        let problem = "must not have a password in it; send one by http.static_headers, or sign the \
                       questions (hmac_secret_key)";
        return Err(error("endpoint", problem));
    }
    Ok(url)
}

fn place(url: &Uri) -> String {
    let (scheme, authority) = (url.scheme_str(), url.authority());
    let authority = authority.map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", scheme.unwrap_or_default(), url.path())
}

fn check_range(
    option: &str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), EndpointError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let (least, most) = (least.as_millis(), most.as_secs());
    Err(error(
        option,
        format!("must be between {least}ms and {most}s"),
    ))
}

fn check_number(
    option: &str,
    value: usize,
    least: usize,
    most: usize,
) -> Result<(), EndpointError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(error(
        option,
        format!("is {value}, must be between {least} and {most}"),
    ))
}

fn header_names(option: &str, names: &[String]) -> Result<Vec<HeaderName>, EndpointError> {
    names.iter().map(|name| header_name(option, name)).collect()
}

/// The name of a field that may be passed on: not one of those which say how a body is to be read, or which
/// are the server's own.
fn header_name(option: &str, name: &str) -> Result<HeaderName, EndpointError> {
    let parsed: HeaderName = name
        .parse()
        .map_err(|_| error(option, format!("`{name}` is no name of a header field")))?;
    let is_reserved = RESERVED.contains(&parsed)
        || [
            sign::SIGNATURE,
            sign::EVENT,
            "keep-alive",
            "proxy-connection",
        ]
        .contains(&parsed.as_str());
    if is_reserved {
        let problem =
            format!("`{name}` is not one that can be passed on: the server writes its own");
        return Err(error(option, problem));
    }
    Ok(parsed)
}

fn keys(options: &ProxyOptions) -> Result<Vec<hmac::Key>, EndpointError> {
    let (current, previous) = (&options.hmac_secret_key, &options.hmac_previous_secret_key);
    if current.is_none() && previous.is_some() {
        let problem = "needs hmac_secret_key, the current one";
        return Err(error("hmac_previous_secret_key", problem));
    }
    let named = [
        ("hmac_secret_key", current),
        ("hmac_previous_secret_key", previous),
    ];
    let named = named
        .into_iter()
        .filter_map(|(name, secret)| Some((name, secret.as_ref()?)));
    named
        .map(|(name, secret): (&str, &Secret)| {
            if secret.is_empty() {
                return Err(error(name, "is empty; use at least 32 random bytes"));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
        })
        .collect()
}

fn transforms(options: &[StatusTransform]) -> Result<HashMap<StatusCode, Refusal>, EndpointError> {
    let mut transforms = HashMap::new();
    for (index, transform) in options.iter().enumerate() {
        let path = |option: &str| format!("http.status_to_code_transforms[{index}].{option}");
        let code = transform.status_code;
        let status = StatusCode::from_u16(code).ok();
        let status = status.filter(|status| *status != StatusCode::OK && code < 600);
        let Some(status) = status else {
            let problem = format!("is {code}, must be a status between 100 and 599, and not 200");
            return Err(error(&path("status_code"), problem));
        };
        let (option, refusal) = match (&transform.to_error, &transform.to_disconnect) {
            (Some(to), None) => (
                "to_error",
                wire::error(to.code, to.message.clone(), to.temporary).map(Refusal::Error),
            ),
            (None, Some(to)) => (
                "to_disconnect",
                wire::disconnect(to.code, to.reason.clone()).map(Refusal::Disconnect),
            ),
            _ => {
                let problem = "is needed, or to_disconnect, and not both";
                return Err(error(&path("to_error"), problem));
            }
        };
        let refusal = refusal.map_err(|problem| error(&path(option), problem))?;
        if transforms.insert(status, refusal).is_some() {
            let problem = format!("{code} is there twice");
            return Err(error(&path("status_code"), problem));
        }
    }
    Ok(transforms)
}

/// What TLS to the endpoint goes by.
fn tls_of(url: &Uri, options: &ProxyTlsOptions) -> Result<Option<ClientConfig>, EndpointError> {
    if url.scheme_str() == Some("http") {
        if *options != ProxyTlsOptions::default() {
            return Err(error("http.tls", "needs an endpoint with https://"));
        }
        return Ok(None);
    }
    let mut config = match &options.server_ca_pem {
        None => {
            let config = tls_config().map_err(|failed| error("endpoint", failed.to_string()))?;
            Arc::unwrap_or_clone(config)
        }
        Some(pem) => with_authorities(pem)?,
    };
    // The connector says itself which versions of HTTP it speaks.
    config.alpn_protocols.clear();
    match (&options.cert_pem, &options.key_pem) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let chain = certificates("http.tls.cert_pem", certificate)?;
            let wrong = |problem: String| error("http.tls.key_pem", problem);
            let text = String::from_utf8_lossy(key.expose());
            let key = pem::read(&text).map_err(|failed| wrong(failed.to_string()))?;
            let certified = pem::certified(chain, &key).map_err(wrong)?;
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        }
        _ => {
            let problem = "is needed with key_pem, and the other way round: set both, or neither";
            return Err(error("http.tls.cert_pem", problem));
        }
    }
    Ok(Some(config))
}

fn with_authorities(pem: &str) -> Result<ClientConfig, EndpointError> {
    let option = "http.tls.server_ca_pem";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(option, pem)? {
        roots
            .add(certificate)
            .map_err(|failed| error(option, format!("is no authority's certificate: {failed}")))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|failed| error(option, failed.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(option: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let text = pem::read(text).map_err(|failed| error(option, failed.to_string()))?;
    pem::certificates(&text).map_err(|problem| error(option, problem))
}

/// Fields that the server writes itself, or that are about one connection only.
const RESERVED: [HeaderName; 13] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ACCEPT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];
const MIN_TIME: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(600);
const MAX_IN_FLIGHT: usize = 100_000;
const MIN_SIZE: usize = 1024;
const MAX_SIZE: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_printed() {
        let mut options = ProxyOptions {
            endpoint: "https://app.example.com/a?key=hidden".into(),
            hmac_secret_key: Some("hidden".into()),
            ..ProxyOptions::default()
        };
        let fields = &mut options.http.static_headers;
        fields.insert("x-key".into(), "hidden".into());
        let endpoint = Endpoint::new("default", &options).expect("it is fine");
        assert_eq!(endpoint.place, "https://app.example.com/a");
        let Endpoint {
            static_headers,
            keys,
            ..
        } = &endpoint;
        let printed = format!("{static_headers:?} {keys:?} {}", endpoint.place);
        assert!(!printed.contains("hidden"), "{printed}");
    }
}
