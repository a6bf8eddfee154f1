//! `[http_server.tls.acme]`: certificates that the server gets by itself.

use std::collections::HashSet;
use std::net::IpAddr;

use http::Uri;
use serde::Deserialize;
use tautline_auth::Secret;

use crate::tls::TlsError;

/// `[http_server.tls.acme]`: certificates from an authority that speaks ACME (RFC 8555), ordered and renewed by the
/// server itself. The authority sees by a TLS handshake on port 443 that the names are this server's
/// (`tls-alpn-01`, RFC 8737), so no other port has to be open, and nothing in front may end TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeOptions {
    /// Whether certificates are ordered. `http_server.tls.enabled` has to be on; `cert_pem` and `key_pem` needn't be
    /// set. Default: no.
    pub enabled: bool,
    /// The names, such as `live.example.com`, at most 100. Each gets a certificate of its own. Required where `enabled`.
    pub domains: Vec<String>,
    /// Mail addresses that the authority may write to. Default: none.
    pub contact: Vec<String>,
    /// That you agree to what the authority asks of its subscribers. Required where `enabled`.
    pub terms_of_service_agreed: bool,
    /// The authority's directory. To try things out, take one for that, such as Let's Encrypt's for staging: the other has
    /// limits. Default: `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory_url: String,
    /// Certificates of the authorities that the directory's own may come from. Default: those of the system.
    pub directory_ca_pem: Option<String>,
    /// Directory in which the account and the certificates are kept, with their keys, for nobody else to read. It is made
    /// if it isn't there. Servers on one machine may share it: one of them orders. Required where `enabled`.
    pub cache_directory: String,
    /// Which of the authority's kinds of certificates, such as `shortlived`. Default: what the authority takes.
    pub profile: Option<String>,
    /// Id of the key which authorities that want to know their subscribers give them. Default: none.
    pub external_account_key_id: Option<String>,
    /// That key, in base64url. Needed with `external_account_key_id`.
    pub external_account_hmac_key: Option<Secret>,
}

impl Default for AcmeOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            domains: Vec::new(),
            contact: Vec::new(),
            terms_of_service_agreed: false,
            directory_url: LETS_ENCRYPT.to_owned(),
            directory_ca_pem: None,
            cache_directory: String::new(),
            profile: None,
            external_account_key_id: None,
            external_account_hmac_key: None,
        }
    }
}

/// Checks what can be said without looking anywhere.
///
/// # Errors
///
/// Naming the option, from `http_server.tls` on.
pub(crate) fn check(options: &AcmeOptions) -> Result<(), TlsError> {
    let error = |option: &str, problem: String| TlsError {
        option: format!("acme.{option}"),
        problem,
    };
    let count = options.domains.len();
    if !(1..=MAX_DOMAINS).contains(&count) {
        let problem = format!("has {count} names, must have between 1 and {MAX_DOMAINS}");
        return Err(error("domains", problem));
    }
    let mut seen = HashSet::new();
    for domain in &options.domains {
        if let Err(problem) = check_domain(domain) {
            return Err(error("domains", format!("`{domain}` {problem}")));
        }
        if !seen.insert(domain) {
            return Err(error("domains", format!("has `{domain}` twice")));
        }
    }
    if options.contact.len() > MAX_CONTACTS {
        let problem = format!("must not be more than {MAX_CONTACTS}");
        return Err(error("contact", problem));
    }
    for contact in &options.contact {
        let is_address = contact
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b":/,?".contains(&byte);
        if !is_address || !contact.bytes().all(is_plain) {
            let problem =
                format!("`{contact}` is no mail address, expected one such as ops@example.com");
            return Err(error("contact", problem));
        }
    }
    if !options.terms_of_service_agreed {
        let problem = "must be true: read what the authority asks of its subscribers (for Let's Encrypt at \
             https://letsencrypt.org/repository), and agree to it";
        return Err(error("terms_of_service_agreed", problem.to_owned()));
    }
    let url = options.directory_url.parse::<Uri>();
    let is_good = |url: &Uri| {
        url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())
    };
    if !url.as_ref().is_ok_and(is_good) {
        let problem = format!(
            "`{}` is no URL of an authority's directory, such as {LETS_ENCRYPT}; ACME goes over https alone",
            options.directory_url
        );
        return Err(error("directory_url", problem));
    }
    if options.cache_directory.is_empty() {
        let problem = "must be set, to a directory that the server may write to, such as /var/lib/tautline/acme";
        return Err(error("cache_directory", problem.to_owned()));
    }
    let (id, key) = (
        &options.external_account_key_id,
        &options.external_account_hmac_key,
    );
    if id.is_some() != key.is_some() {
        let problem = "is needed with external_account_hmac_key, and the other way round: set both, or neither";
        return Err(error("external_account_key_id", problem.to_owned()));
    }
    Ok(())
}

/// Whether it is a name that a certificate can be ordered for.
fn check_domain(domain: &str) -> Result<(), &'static str> {
    if domain.starts_with("*.") {
        return Err(
            "stands for many names, and those can't be proved by a TLS handshake: name each, or let another tool \
             write the files of cert_pem and key_pem",
        );
    }
    if domain.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err("is an address, expected a name such as live.example.com");
    }
    if !domain.is_ascii() {
        return Err("has to be written in ASCII (xn--...)");
    }
    let is_label = |label: &str| {
        let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_fine)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() > 253 || !domain.contains('.') || !domain.split('.').all(is_label) {
        return Err(
            "is no name that certificates are for, expected one such as live.example.com, in small letters",
        );
    }
    Ok(())
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// A certificate each, one after the other.
const MAX_DOMAINS: usize = 100;
const MAX_CONTACTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> AcmeOptions {
        AcmeOptions {
            enabled: true,
            domains: vec![
                "live.example.com".to_owned(),
                "xn--bcher-kva.example".to_owned(),
            ],
            contact: vec!["ops+tls@example.com".to_owned()],
            terms_of_service_agreed: true,
            cache_directory: "/var/lib/tautline/acme".to_owned(),
            ..AcmeOptions::default()
        }
    }

    #[test]
    fn what_can_work_is_taken() {
        assert_eq!(check(&good()), Ok(()));
    }

    #[test]
    fn what_cannot_work_is_told_with_its_option() {
        type Spoil = fn(&mut AcmeOptions);
        let cases: [(Spoil, &str, &str); 20] = [
            (|o| o.domains.clear(), "domains", "has 0 names"),
            (
                |o| o.domains = vec!["a.b".to_owned(); 101],
                "domains",
                "has 101 names",
            ),
            (
                |o| o.domains = vec!["a.b".to_owned(); 2],
                "domains",
                "twice",
            ),
            (
                |o| o.domains[0] = "*.example.com".to_owned(),
                "domains",
                "name each",
            ),
            (
                |o| o.domains[0] = "192.0.2.1".to_owned(),
                "domains",
                "is an address",
            ),
            (
                |o| o.domains[0] = "[2001:db8::1]".to_owned(),
                "domains",
                "is an address",
            ),
            (
                |o| o.domains[0] = "bücher.example".to_owned(),
                "domains",
                "xn--",
            ),
            (
                |o| o.domains[0] = "localhost".to_owned(),
                "domains",
                "live.example.com",
            ),
            (
                |o| o.domains[0] = "a..b".to_owned(),
                "domains",
                "live.example.com",
            ),
            (
                |o| o.domains[0] = "../a.b".to_owned(),
                "domains",
                "live.example.com",
            ),
            (
                |o| o.domains[0] = "a.example.com.".to_owned(),
                "domains",
                "live.example.com",
            ),
            (
                |o| o.domains[0] = "Live.example.com".to_owned(),
                "domains",
                "small letters",
            ),
            (
                |o| o.contact[0] = "ops".to_owned(),
                "contact",
                "no mail address",
            ),
            (
                |o| o.contact[0] = "mailto:a@b.c".to_owned(),
                "contact",
                "no mail address",
            ),
            (
                |o| o.contact = vec!["a@b.c".to_owned(); 11],
                "contact",
                "more than 10",
            ),
            (
                |o| o.terms_of_service_agreed = false,
                "terms_of_service_agreed",
                "agree",
            ),
            (
                |o| o.directory_url = "http://a/directory".to_owned(),
                "directory_url",
                "https",
            ),
            (
                |o| o.directory_url = "directory".to_owned(),
                "directory_url",
                "https",
            ),
            (
                |o| o.cache_directory.clear(),
                "cache_directory",
                "must be set",
            ),
            (
                |o| o.external_account_key_id = Some("kid".to_owned()),
                "external_account_key_id",
                "both, or neither",
            ),
        ];
        for (spoil, option, expected) in cases {
            let mut options = good();
            spoil(&mut options);
            let error = check(&options).expect_err(expected);
            assert_eq!(error.option, format!("acme.{option}"));
            assert!(error.problem.contains(expected), "{error}");
        }
    }
}
