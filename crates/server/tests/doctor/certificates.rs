//! Certificates: those that a server shows, those of a configuration, and those that are ordered.

use std::process::Command;

use serde_json::Value;

use crate::authority::Authority;
use crate::directory::Directory;
use crate::process::Server;
use crate::{doctor, doctor_trusting, told};

/// A certificate and its key, in files, with other files beside them.
struct Files(Directory);

impl Files {
    fn new(name: &str) -> Self {
        Self(Directory::new(&format!("doctors-{name}")))
    }

    /// Where that file is.
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        self.0.file(name, text).display().to_string()
    }

    /// A certificate of its own authority for an address, from January 2026 until then, its key, and that authority's.
    fn certificate(&self, until: (i32, u8, u8)) {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        self.pair(&issuer.pem(), &certificate.pem(), &key.serialize_pem());
    }

    /// An authority's certificate, and one with its key.
    fn pair(&self, authority: &str, certificate: &str, key: &str) {
        self.write("ca.pem", authority);
        self.write("cert.pem", certificate);
        let file = self.write("key.pem", key);
        chmod(&file, "600");
    }

    /// The options that have them used.
    fn tls(&self) -> String {
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        format!(
            "[http_server.tls]\nenabled = true\ncert_pem = {certificate:?}\nkey_pem = {key:?}\n"
        )
    }
}

fn chmod(path: &str, mode: &str) {
    let status = Command::new("chmod").args([mode, path]).status().unwrap();
    assert!(status.success());
}

#[test]
fn tls_is_looked_at_as_a_browser_would() {
    let directory = Files::new("tls");
    directory.certificate((2127, 1, 1));
    let server = Server::serve("doctor-tls", &directory.tls());
    let address = format!("https://{}", server.address);
    let roots = directory.0.join("ca.pem");
    let (_, findings) = doctor_trusting(Some(&roots), &["--url", &address]);
    assert!(
        told(&findings, "certificate", "ok")
            .0
            .contains("of 127.0.0.1 is good for")
    );
    assert_eq!(told(&findings, "HTTP/2", "ok").0, "offered");
    assert_eq!(told(&findings, "health", "ok").0, "the server answers");
    told(&findings, "WebSocket", "ok");
    assert_eq!(
        told(&findings, "WebSocket over HTTP/2", "ok").0,
        "comes through"
    );
    // Whoever doesn't know the authority can't get in.
    let (status, findings) = doctor(&["--url", &address]);
    let (text, remedy) = told(&findings, "TLS", "fail");
    assert!(
        text.starts_with("nobody whom this machine trusts has signed"),
        "{text}"
    );
    assert!(
        remedy.contains("fullchain.pem") && remedy.contains("SSL_CERT_FILE"),
        "{remedy}"
    );
    assert_eq!(findings.len(), 1, "and nothing else: {findings:?}");
    assert_eq!(status, Some(1));
    drop(server);
    let server = Server::serve(
        "doctor-h1",
        &format!("{}[http_server.http2]\nenabled = false\n", directory.tls()),
    );
    let address = format!("https://{}", server.address);
    let (_, findings) = doctor_trusting(Some(&roots), &["--url", &address]);
    assert!(told(&findings, "HTTP/2", "ok").0.starts_with("not offered"));
    let over_http2 = |one: &Value| one["subject"] == "WebSocket over HTTP/2";
    assert!(!findings.iter().any(over_http2), "{findings:?}");
}

#[test]
fn certificates_and_keys_of_a_configuration_are_looked_at() {
    let directory = Files::new("certificates");
    let file = directory.write("tautline.toml", &directory.tls());
    directory.certificate((2127, 1, 1));
    let (_, findings) = doctor(&["--config", &file]);
    let (text, _) = told(&findings, "certificate", "ok");
    assert!(text.contains("http_server.tls (cert_pem)"), "{text}");
    assert!(
        findings.iter().all(|one| one["subject"] != "key"),
        "{findings:?}"
    );
    #[cfg(unix)]
    {
        chmod(&directory.path("key.pem"), "644");
        let (_, findings) = doctor(&["--config", &file]);
        let (text, remedy) = told(&findings, "key", "warn");
        assert!(
            text.contains("the key of http_server.tls.key_pem"),
            "{text}"
        );
        assert_eq!(remedy, format!("chmod o= {}", directory.path("key.pem")));
    }
    directory.certificate((2026, 1, 2));
    let (status, findings) = doctor(&["--config", &file]);
    let (text, remedy) = told(&findings, "certificate", "fail");
    assert!(
        text.contains("has expired") && remedy.contains("renew it"),
        "{text}: {remedy}"
    );
    assert_eq!(status, Some(1));
}

#[test]
#[cfg(feature = "acme")]
fn where_certificates_are_ordered_their_directory_and_the_authority_are_looked_at() {
    let directory = Files::new("acme");
    let cache = directory.path("acme");
    let file = directory.write(
        "tautline.toml",
        &format!(
            "[http_server.tls]\nenabled = true\n[http_server.tls.acme]\nenabled = true\n\
             terms_of_service_agreed = true\ndomains = [\"a.example\"]\n\
             directory_url = \"https://127.0.0.1:1/dir\"\ncache_directory = {cache:?}\n"
        ),
    );
    let (status, findings) = doctor(&["--config", &file]);
    let (text, remedy) = told(&findings, "certificate", "warn");
    assert!(
        text.contains("there is none of http_server.tls (a.example) yet"),
        "{text}"
    );
    assert!(remedy.contains("the server orders it"), "{remedy}");
    assert_eq!(
        told(&findings, "certificate cache", "ok").0,
        format!("{cache} is not there yet, and will be made")
    );
    let (_, remedy) = told(&findings, "authority", "fail");
    assert!(
        remedy.contains("http_server.tls.acme.directory_url"),
        "{remedy}"
    );
    assert!(
        findings
            .iter()
            .any(|one| one["text"].as_str().unwrap().contains("on port 443"))
    );
    assert_eq!(status, Some(1));
    // What is in the way of the directory is told before the server finds out.
    directory.write("acme", "");
    let (_, findings) = doctor(&["--config", &file]);
    let (text, remedy) = told(&findings, "certificate cache", "fail");
    assert_eq!(text, format!("{cache} is no directory"));
    assert!(
        remedy.starts_with("http_server.tls.acme.cache_directory"),
        "{remedy}"
    );
}

/// In words, and not in those of a library.
#[test]
fn why_a_certificate_is_refused_is_told_and_what_to_do() {
    let expired = |files: &Files| files.certificate((2026, 1, 2));
    let of_another_name = |files: &Files| {
        let authority = Authority::new();
        let signed = authority.sign("elsewhere.example");
        files.pair(&authority.pem(), &signed.certificate_pem, &signed.key_pem);
    };
    let self_signed = |files: &Files| {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        files.pair(&own.pem(), &own.pem(), &key.serialize_pem());
    };
    for (name, make, text, line) in [
        (
            "expired",
            &expired as &dyn Fn(&Files),
            "has expired",
            "certbot renew",
        ),
        (
            "name",
            &of_another_name,
            "is for another name than 127.0.0.1",
            "server_name",
        ),
        (
            "self",
            &self_signed,
            "is self-signed",
            "http_server.tls.acme.enabled",
        ),
    ] {
        let files = Files::new(name);
        make(&files);
        let server = Server::serve(&format!("doctor-refused-{name}"), &files.tls());
        let roots = files.0.join("ca.pem");
        let address = format!("https://{}", server.address);
        let (status, findings) = doctor_trusting(Some(&roots), &["--url", &address]);
        let (found, remedy) = told(&findings, "TLS", "fail");
        assert!(found.contains(text), "{name}: {found}");
        assert!(remedy.contains(line), "{name}: {remedy}");
        assert_eq!(status, Some(1));
    }
}
