//! A server that is abused, and what is seen of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::directory::Directory;
use crate::honest::{ENOUGH, Times, Users};
use crate::process::{Server, wait_until};
use crate::wire::{From, Http, Wire, connect};

/// The server, in a process of its own. Nobody is exempt from its limits but the operator.
pub(crate) struct Stand {
    pub(crate) server: Server,
    /// Bytes that it has logged.
    log: Arc<AtomicU64>,
    tls: Option<Arc<ClientConfig>>,
    _directory: Option<Directory>,
}

const CONFIG: &str = r#"
[node]
workers = 2
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[prometheus]
enabled = true
[channel.without_namespace]
history_size = 100000
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
[[channel.namespaces]]
name = "live"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

impl Stand {
    /// `limits` is what stands in `[limits.address]`, `more` what stands behind all else.
    pub(crate) fn new(name: &str, limits: &str, more: &str) -> Self {
        Self::serve(name, "", limits, more)
    }

    /// The same with something in `[http_server]`.
    pub(crate) fn with_server(name: &str, http_server: &str, limits: &str) -> Self {
        Self::serve(name, http_server, limits, "")
    }

    fn serve(name: &str, http_server: &str, limits: &str, more: &str) -> Self {
        let config = format!(
            "{http_server}\n[limits]\nexempt_loopback = false\nexempt = [\"127.0.0.3\"]\n[limits.address]\n{limits}\n{CONFIG}{more}"
        );
        let mut server = Server::serve(&format!("abuse-{name}"), &config);
        let log = server.drain_output();
        Self {
            server,
            log,
            tls: None,
            _directory: None,
        }
    }

    /// The same with TLS.
    pub(crate) fn with_tls(name: &str, limits: &str) -> Self {
        let directory = Directory::new(name);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let certificate = directory.file("cert.pem", &certificate.pem());
        let key = directory.file("key.pem", &key.serialize_pem());
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = format!(
            "[http_server.tls]\nenabled = true\ncert_pem = {certificate:?}\nkey_pem = {key:?}"
        );
        Self {
            tls: Some(Arc::new(client)),
            _directory: Some(directory),
            ..Self::serve(name, &tls, limits, "")
        }
    }

    /// Has `abuse` happen while the users of good will go on, and prints how they fared. The server's memory may
    /// grow by `bound` bytes meanwhile, beside what any work at all makes its allocator keep.
    pub(crate) fn endures<T>(&self, what: &str, bound: u64, abuse: impl FnOnce(&Users) -> T) -> T {
        let users = Users::begin(&self.server, self.tls.as_ref());
        self.forget_peak();
        let before = self.memory("VmRSS:");
        users.abuse_begins();
        let result = abuse(&users);
        let peak = self.memory("VmHWM:");
        let grown = peak.saturating_sub(before);
        let [socket, poll] = users.end();
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        println!(
            "| {what} | {:.1} | {:.1} | {:.1} | {} | {} |",
            mib(before),
            mib(peak),
            mib(before + bound + SLACK),
            told(socket),
            told(poll)
        );
        self.check(what, grown, bound);
        result
    }

    /// The same with no users of good will, for what has to keep them out.
    pub(crate) fn bears(&self, what: &str, bound: u64, abuse: impl FnOnce()) {
        self.forget_peak();
        let before = self.memory("VmRSS:");
        abuse();
        let grown = self.memory("VmHWM:").saturating_sub(before);
        self.check(what, grown, bound);
    }

    fn check(&self, what: &str, grown: u64, bound: u64) {
        let logged = self.log.load(Ordering::Relaxed);
        assert!(
            logged <= MAX_LOG,
            "{what}: the log has {logged} bytes, which strangers have filled"
        );
        assert!(
            grown <= bound + SLACK,
            "{what}: memory has grown by {:.1} MiB",
            grown as f64 / 1024.0 / 1024.0
        );
    }

    /// A number that the server counts, without its prefix; 0 if it isn't there.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let page = self.operate("GET /metrics HTTP/1.1", b"");
        let name = format!("tautline_{name} ");
        let found = page.lines().find_map(|line| line.strip_prefix(&name));
        found.map_or(0, |number| number.parse().unwrap())
    }

    /// Waits until the server has counted so many.
    pub(crate) fn counts(&self, name: &str, expected: usize) {
        wait_until(&format!("{name} is {expected}"), || {
            (self.number(name) >= expected as u64).then_some(())
        });
    }

    /// A call of the API.
    pub(crate) fn api(&self, method: &str, body: &Value) -> Value {
        let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: dev");
        let answer = self.operate(&head, body.to_string().as_bytes());
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
    }

    fn operate(&self, head: &str, body: &[u8]) -> String {
        let wire = Wire::open(&self.server, From::Operator, self.tls.as_ref());
        let answer = Http::new(wire).ask(head, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// A connection of a stranger.
    pub(crate) fn connect(&self) -> std::net::TcpStream {
        connect(&self.server, From::Stranger)
    }

    /// The same for one request after the other.
    pub(crate) fn http(&self) -> Http<std::net::TcpStream> {
        Http::new(self.connect())
    }

    /// What the system says of the process's memory, in bytes.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.server.process.id());
        let status = std::fs::read_to_string(path).expect("the server is there");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
        kib * 1024
    }

    /// Has the peak of its memory begin anew.
    fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.server.process.id());
        std::fs::write(path, "5").expect("one's own processes may be told so");
    }
}

/// The median and the 99th percentile, before and during, in milliseconds; of too few only the median, and how many they
/// are.
fn told(times: Times) -> String {
    let [before, during] = times.map(|mut times| {
        times.sort_unstable();
        let count = times.len();
        let at = |part: usize| {
            let time = times.get(count.saturating_sub(1) * part / 100);
            time.map_or(0.0, |time| Duration::as_secs_f64(time) * 1e3)
        };
        if count < ENOUGH {
            return format!("{:.2} (of {count})", at(50));
        }
        format!("{:.2} / {:.2}", at(50), at(99))
    });
    format!("{before} | {during}")
}

/// How much may be logged, whatever strangers do.
const MAX_LOG: u64 = 32 * 1024;

/// What memory may grow by for no reason that is the abuse's: buffers of threads, arenas of the allocator, the history
/// of what the users of good will publish.
const SLACK: u64 = 8 * 1024 * 1024;
