//! Pebble, the ACME authority for tests of those who make Let's Encrypt, and the DNS that it asks.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::process::DEADLINE;

/// What is different about an authority.
pub(crate) struct Manner {
    /// Which kinds of certificates there are, and for how many seconds they are good.
    pub(crate) profiles: &'static [(&'static str, u32)],
    /// How many of a hundred nonces it pretends not to know.
    pub(crate) nonces_refused: u32,
    /// Id and key, in base64url, of subscribers whom it knows.
    pub(crate) external: Option<(&'static str, &'static str)>,
    /// A name that it gives no certificates for.
    pub(crate) blocked: &'static str,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            profiles: &[("default", 90 * 24 * 3600)],
            nonces_refused: 0,
            external: None,
            blocked: "blocked.example",
        }
    }
}

/// A program of Go's which ends with this.
struct Daemon(Child);

impl Daemon {
    /// Starts one, and waits until it says that.
    fn start(command: &mut Command, mark: &'static str) -> Self {
        let program = command.get_program().display().to_string();
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; cargo xtask test acme has it"));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (said, heard) = mpsc::channel();
        // To its end, so that it never waits for somebody to read.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.contains(mark) {
                    let _ = said.send(());
                }
            }
        });
        let daemon = Self(process);
        let up = heard.recv_timeout(DEADLINE);
        up.unwrap_or_else(|_| panic!("{program} did not say `{mark}`"));
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority which looks for all names on this machine, at one port.
pub(crate) struct Authority {
    directory: PathBuf,
    manner: Manner,
    port: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    /// Where servers that are to be validated have to be.
    pub(crate) tls: u16,
    pebble: Option<Daemon>,
    _names: Daemon,
}

impl Authority {
    pub(crate) fn new(name: &str, manner: Manner) -> Self {
        let directory = std::env::temp_dir();
        let directory = directory.join(format!("tautline-pebble-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        let [port, management, dns, dns_management, tls] = free_ports();
        let names = Daemon::start(
            Command::new(program("PEBBLE_CHALLTESTSRV", "pebble-challtestsrv"))
                .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
                .args(["-management", &format!("127.0.0.1:{dns_management}")])
                .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]),
            "Starting management server",
        );
        let mut authority = Self {
            directory,
            manner,
            port,
            management,
            dns,
            dns_management,
            tls,
            pebble: None,
            _names: names,
        };
        authority.start();
        authority
    }

    /// Starts it, with nothing remembered of an earlier life.
    pub(crate) fn start(&mut self) {
        let (id, key) = self.manner.external.unwrap_or(("nobody", "AQID"));
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": 1,
            "tlsPort": self.tls,
            "externalAccountBindingRequired": self.manner.external.is_some(),
            "externalAccountMACKeys": {id: key},
            "domainBlocklist": [self.manner.blocked],
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            // Of several it takes any where none is asked for.
            "profiles": self.manner.profiles.iter().map(|(name, lifetime)| {
                let profile = serde_json::json!({"description": "for tests", "validityPeriod": lifetime});
                (name.to_string(), profile)
            }).collect::<serde_json::Map<_, _>>(),
        }});
        fs::write(self.path("pebble.json"), config.to_string()).unwrap();
        let mut command = Command::new(program("PEBBLE", "pebble"));
        command
            .args(["-strict", "-config", &self.path("pebble.json")])
            .args(["-dnsserver", &format!("127.0.0.1:{}", self.dns)])
            // It looks at once, it really does, and each time.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env(
                "PEBBLE_WFE_NONCEREJECT",
                self.manner.nonces_refused.to_string(),
            );
        self.pebble = Some(Daemon::start(&mut command, "ACME directory available"));
        let start = Instant::now();
        while !self.is_up() {
            assert!(start.elapsed() < DEADLINE, "Pebble does not listen");
            std::thread::yield_now();
        }
    }

    pub(crate) fn stop(&mut self) {
        self.pebble = None;
    }

    fn is_up(&self) -> bool {
        [self.port, self.management]
            .iter()
            .all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }

    /// Has a name point to another address, where nobody is, or back here.
    pub(crate) fn point(&self, domain: &str, here: bool) {
        let (path, body) = if here {
            ("clear-a", serde_json::json!({"host": domain}))
        } else {
            let away = ["127.0.0.9"];
            (
                "add-a",
                serde_json::json!({"host": domain, "addresses": away}),
            )
        };
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.dns_management)).unwrap();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        std::io::Write::write_all(&mut stream, format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// What it says of when to renew a certificate, from now on (RFC 9773).
    pub(crate) async fn advise(&self, certificate: &str, from: &str, until: &str) {
        let window = serde_json::json!({"suggestedWindow": {"start": from, "end": until}});
        let body = serde_json::json!({
            "certificate": certificate, "ariResponse": window.to_string(),
        });
        let body = body.to_string();
        let head = format!(
            "POST /set-renewal-info/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let address = ([127, 0, 0, 1], self.management).into();
        let mut stream = crate::tls(address, "localhost").await.unwrap();
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The table of options that has certificates ordered here.
    pub(crate) fn options(&self, domains: &[&str], more: &str) -> String {
        format!(
            "[http_server.tls]\nenabled = true\n\
             [http_server.tls.acme]\nenabled = true\nterms_of_service_agreed = true\ndomains = {domains:?}\n\
             directory_url = \"https://127.0.0.1:{}/dir\"\ndirectory_ca_pem = \"{}\"\ncache_directory = \"{}\"\n{more}\n",
            self.port,
            self.path("ca.pem"),
            self.path("cache"),
        )
    }

    /// The files that the server keeps.
    pub(crate) fn kept(&self) -> Vec<PathBuf> {
        let cache = PathBuf::from(self.path("cache"));
        let of_authority = fs::read_dir(cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = of_authority
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn program(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}

/// Ports on which nobody listens, by TCP and UDP.
fn free_ports<const N: usize>() -> [u16; N] {
    // Held until all are found, so that they differ.
    let held: Vec<_> = std::iter::from_fn(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = tcp.local_addr().ok()?.port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).ok();
        Some((port, tcp, udp))
    })
    .filter(|(_, _, udp)| udp.is_some())
    .take(N)
    .collect();
    std::array::from_fn(|index| held[index].0)
}

/// Longer than an order with all its retries takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
