//! `tautline doctor` beside real servers, and behind what spoils their connections.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use self::process::Server;

/// What the doctor found, by its subject, and the exit status.
fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    doctor_trusting(None, arguments)
}

/// The same, with the certificates of whom it trusts.
fn doctor_trusting(roots: Option<&Path>, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    if let Some(roots) = roots {
        command.env("SSL_CERT_FILE", roots);
    }
    let output = command
        .args(["doctor", "--json"])
        .args(arguments)
        .env_remove("TAUTLINE_TOKEN")
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), lines.collect())
}

#[track_caller]
fn finding<'f>(findings: &'f [Value], subject: &str) -> &'f Value {
    let found = findings
        .iter()
        .find(|finding| finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing of {subject}: {findings:?}"))
}

/// What stands in front of a server, on a port of its own: `pass` has a connection of the client's and one of the
/// server's.
fn in_front(server: SocketAddr, pass: fn(TcpStream, TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else {
                return;
            };
            std::thread::spawn(move || pass(client, server));
        }
    });
    address
}

/// Reads a request's head.
fn head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Passes everything on, both ways, until one end is over.
fn pass(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
}

/// The same, with each line of the request's head changed.
fn pass_changed(mut client: TcpStream, mut server: TcpStream, change: fn(&str) -> &str) {
    let head = head(&mut client);
    let lines = head.split_inclusive("\r\n").map(change);
    let changed: String = lines.collect();
    server.write_all(changed.as_bytes()).unwrap();
    pass(client, server);
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Something in the place of a server, which answers each request with the status for its path.
fn answering(status: impl Fn(&str) -> u16 + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else {
                return;
            };
            let head = head(&mut client);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let _ = write!(
                client,
                "HTTP/1.1 {} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                status(path)
            );
        }
    });
    address
}

/// What a finding says, and which line it says to change.
#[track_caller]
fn told<'f>(findings: &'f [Value], subject: &str, grade: &str) -> (&'f str, &'f str) {
    let finding = finding(findings, subject);
    assert_eq!(finding["grade"], grade, "{findings:?}");
    (
        finding["text"].as_str().unwrap(),
        finding["remedy"].as_str().unwrap_or_default(),
    )
}

/// A directory of the test's own, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir();
        let path = path.join(format!("tautline-doctors-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where that file is.
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
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
        self.write("ca.pem", &issuer.pem());
        self.write("cert.pem", &certificate.pem());
        let file = self.write("key.pem", &key.serialize_pem());
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

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn chmod(path: &str, mode: &str) {
    let status = Command::new("chmod").args([mode, path]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_clear_way_is_told_as_one() {
    let server = Server::dev();
    let (status, findings) = doctor(&["--url", &url(server.address), "--idle", "1"]);
    for subject in [
        "health",
        "clock",
        "WebSocket",
        "other sites",
        "streaming",
        "idle line",
        "client addresses",
    ] {
        assert_eq!(finding(&findings, subject)["grade"], "ok", "{findings:?}");
    }
    assert_eq!(status, Some(0));
}

#[test]
fn what_takes_the_upgrade_away_is_noticed() {
    let server = Server::dev();
    let front = in_front(server.address, |client, server| {
        pass_changed(client, server, |line| {
            let lower = line.to_ascii_lowercase();
            let is_upgrade =
                lower.starts_with("upgrade:") || lower.starts_with("connection: upgrade");
            if is_upgrade { "" } else { line }
        });
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let websocket = finding(&findings, "WebSocket");
    assert_eq!(websocket["grade"], "fail", "{findings:?}");
    assert!(
        websocket["text"]
            .as_str()
            .unwrap()
            .contains("Upgrade header doesn't arrive")
    );
    let remedy = websocket["remedy"].as_str().unwrap();
    assert!(remedy.contains("proxy_set_header Upgrade $http_upgrade"));
    assert_eq!(finding(&findings, "streaming")["grade"], "ok");
    assert_eq!(status, Some(1));
}

#[test]
fn what_changes_the_host_is_noticed() {
    let server = Server::dev();
    let front = in_front(server.address, |client, server| {
        pass_changed(client, server, |line| {
            let is_host = line.to_ascii_lowercase().starts_with("host:");
            if is_host { "Host: localhost\r\n" } else { line }
        });
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let websocket = finding(&findings, "WebSocket");
    assert_eq!(websocket["grade"], "fail", "{findings:?}");
    assert!(
        websocket["remedy"]
            .as_str()
            .unwrap()
            .contains("proxy_set_header Host $host")
    );
    assert_eq!(status, Some(1));
}

#[test]
fn what_holds_answers_back_is_noticed() {
    let server = Server::dev();
    let front = in_front(server.address, |mut client, mut server| {
        let head = head(&mut client);
        server.write_all(head.as_bytes()).unwrap();
        if !head.contains("http_stream") {
            return pass(client, server);
        }
        // The head of the answer, and the body when it is whole.
        let (mut from_client, mut to_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let answer = self::head(&mut server);
        client.write_all(answer.as_bytes()).unwrap();
        let mut body = Vec::new();
        let _ = server.read_to_end(&mut body);
        let _ = client.write_all(&body);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let streaming = finding(&findings, "streaming");
    assert_eq!(streaming["grade"], "warn", "{findings:?}");
    assert!(
        streaming["remedy"]
            .as_str()
            .unwrap()
            .contains("proxy_buffering off")
    );
    assert_eq!(finding(&findings, "WebSocket")["grade"], "ok");
    assert_eq!(status, Some(0), "clients fall down to long-polling");
}

#[test]
fn what_cuts_idle_lines_is_noticed() {
    let server = Server::dev();
    let front = in_front(server.address, |client, server| {
        // What is silent for so long is cut.
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
        }
        pass(client, server);
    });
    let (status, findings) = doctor(&["--url", &url(front), "--idle", "20"]);
    let idle = finding(&findings, "idle line");
    assert_eq!(idle["grade"], "fail", "{findings:?}");
    assert!(
        idle["remedy"]
            .as_str()
            .unwrap()
            .contains("proxy_read_timeout")
    );
    assert_eq!(status, Some(1));
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (status, findings) = doctor(&["--url", &url(nobody)]);
    assert_eq!(finding(&findings, "connection")["grade"], "fail");
    assert_eq!(status, Some(1));
}

#[test]
fn a_configuration_is_looked_at_with_the_machine() {
    let file = std::env::temp_dir().join(format!("tautline-doctor-{}.toml", std::process::id()));
    std::fs::write(&file, "[client]\nalowed_origins = []\n").unwrap();
    let name = file.display().to_string();
    let (status, findings) = doctor(&["--config", &name]);
    let configuration = finding(&findings, "configuration");
    assert_eq!(configuration["grade"], "fail");
    let text = configuration["text"].as_str().unwrap();
    assert!(text.contains("did you mean `allowed_origins`?"), "{text}");
    assert_eq!(status, Some(1));
    #[cfg(unix)]
    finding(&findings, "descriptors");

    std::fs::write(&file, "").unwrap();
    let (_, findings) = doctor(&["--config", &name]);
    assert_ne!(finding(&findings, "configuration")["grade"], "fail");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn each_status_in_the_place_of_101_has_its_own_line_to_change() {
    for (status, text, remedy) in [
        (
            200,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            400,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            426,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            403,
            "the Host header was changed on the way",
            "proxy_set_header Host $host",
        ),
        (
            404,
            "the path is not passed on",
            "location /connection/ { proxy_pass",
        ),
        (429, "takes nobody else now", ""),
        (503, "takes nobody else now", ""),
        (502, "doesn't reach the server", ""),
        (504, "doesn't reach the server", ""),
        (
            418,
            "answered with 418",
            "proxy_set_header Upgrade $http_upgrade",
        ),
    ] {
        let address = answering(move |path| match path {
            "/health" => 200,
            "/connection/websocket" => status,
            _ => 404,
        });
        let (exit, findings) = doctor(&["--url", &url(address), "--idle", "1"]);
        let (found, line) = told(&findings, "WebSocket", "fail");
        assert!(found.contains(text), "{status}: {found}");
        assert!(
            line.contains(remedy) && line.is_empty() == remedy.is_empty(),
            "{status}: {line}"
        );
        assert_eq!(exit, Some(1));
        // There is no line to be kept.
        assert!(findings.iter().all(|one| one["subject"] != "idle line"));
    }
}

#[test]
fn what_else_is_not_passed_on_is_told() {
    let address = answering(|_| 404);
    let (_, findings) = doctor(&["--url", &url(address)]);
    let (text, _) = told(&findings, "health", "ok");
    assert!(
        text.contains("answered with 404") && text.contains("health.enabled"),
        "{text}"
    );
    let (text, _) = told(&findings, "streaming", "warn");
    assert!(text.contains("404: the path is not passed on"), "{text}");
    let inside = findings
        .iter()
        .filter(|one| one["subject"] == "kept inside");
    let inside: Vec<_> = inside
        .map(|one| (&one["grade"], one["text"].as_str().unwrap()))
        .collect();
    assert_eq!(inside.len(), 2, "{findings:?}");
    assert!(
        inside
            .iter()
            .all(|(grade, text)| **grade == "ok" && text.contains("can't be reached from here"))
    );
    let address = answering(|path| if path == "/health" { 200 } else { 500 });
    let (_, findings) = doctor(&["--url", &url(address)]);
    assert_eq!(told(&findings, "streaming", "warn").0, "answered with 500");
}

#[test]
fn what_belongs_inside_and_is_not_is_told() {
    let address = answering(|path| {
        if path.starts_with("/connection") {
            404
        } else {
            200
        }
    });
    // By an address that is not this machine's own, for all that the doctor knows.
    let (_, findings) = doctor(&["--url", &format!("http://0.0.0.0:{}", address.port())]);
    let inside = findings
        .iter()
        .filter(|one| one["subject"] == "kept inside");
    let remedies: Vec<_> = inside.map(|one| (&one["grade"], &one["remedy"])).collect();
    let (api, metrics) = (
        "nginx: location /api/info { deny all; }",
        "nginx: location /metrics { deny all; }",
    );
    assert_eq!(
        remedies,
        [
            (&"warn".into(), &api.into()),
            (&"warn".into(), &metrics.into())
        ]
    );
    // On this machine that is as it should be.
    let (_, findings) = doctor(&["--url", &url(address)]);
    assert!(findings.iter().all(|one| one["subject"] != "kept inside"));
}

#[test]
fn a_server_that_lets_in_pages_of_all_sites_is_told() {
    let server = Server::serve("doctor-origins", "[client]\nallowed_origins = [\"*\"]\n");
    let (status, findings) = doctor(&["--url", &url(server.address)]);
    let (text, remedy) = told(&findings, "other sites", "warn");
    assert!(text.contains("pages of any site may connect"), "{text}");
    assert!(remedy.starts_with("client.allowed_origins = ["), "{remedy}");
    assert_eq!(status, Some(0));
}

#[test]
fn where_nobody_is_let_in_without_a_token_the_doctor_asks_for_one() {
    let key = "a secret of thirty-two bytes or more";
    let config = format!("[client.token]\nhmac_secret_key = \"{key}\"\n");
    let server = Server::serve("doctor-token", &config);
    let address = url(server.address);
    let (_, findings) = doctor(&["--url", &address, "--idle", "1"]);
    for subject in ["streaming", "idle line"] {
        assert!(
            told(&findings, subject, "ok").0.contains("use --token"),
            "{findings:?}"
        );
    }
    let token = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["token", "--user", "42", "--config"])
        .arg(server.config_path())
        .output()
        .unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let (_, findings) = doctor(&["--url", &address, "--idle", "1", "--token", token.trim()]);
    assert!(
        told(&findings, "streaming", "ok")
            .0
            .contains("comes through as it is written")
    );
    assert!(
        told(&findings, "idle line", "ok")
            .0
            .contains("stays for 1 s"),
        "{findings:?}"
    );
}

#[test]
fn tls_is_looked_at_as_a_browser_would() {
    let directory = Directory::new("tls");
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
    let (text, _) = told(&findings, "TLS", "fail");
    assert!(
        text.to_lowercase().contains("unknown") || text.contains("invalid peer certificate"),
        "{text}"
    );
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

/// Passes requests on, with these lines in the place of what the client says of addresses.
fn pass_saying(mut client: TcpStream, mut server: TcpStream, own: &str, keeps: bool) {
    let head = head(&mut client);
    let is_told = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("x-forwarded-for:") || line.starts_with("forwarded:")
    };
    let has_told = head.lines().any(|line| is_told(&line));
    let mut lines: Vec<&str> = head.split_inclusive("\r\n").collect();
    lines.pop();
    if !keeps {
        lines.retain(|line| !is_told(line));
    }
    if !(keeps && has_told) {
        lines.push(own);
    }
    lines.push("\r\n");
    server.write_all(lines.concat().as_bytes()).unwrap();
    pass(client, server);
}

const OWN: &str = "X-Forwarded-For: 198.51.100.9\r\n";

#[test]
fn whether_the_server_can_tell_clients_apart_is_told() {
    // None in between.
    let server = Server::dev();
    let (_, findings) = doctor(&["--url", &url(server.address)]);
    let (text, _) = told(&findings, "client addresses", "ok");
    assert!(text.contains("sees no proxy"), "{text}");
    // One whom the server doesn't know.
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, false);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "client addresses", "warn");
    assert!(text.contains("doesn't trust the proxy"), "{text}");
    assert!(
        remedy.starts_with("http_server.trusted_proxies = "),
        "{remedy}"
    );
    assert_eq!(status, Some(0));

    let trusting = "trusted_proxies = [\"127.0.0.1\"]\n";
    let server = Server::serve("doctor-trusting", trusting);
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, false);
    });
    let (_, findings) = doctor(&["--url", &url(front)]);
    let (text, _) = told(&findings, "client addresses", "ok");
    assert_eq!(text, "told by a proxy that is trusted");
    // One that leaves it to its clients what they say.
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, true);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "client addresses", "fail");
    assert!(
        text.contains("anybody can pass for whom he likes"),
        "{text}"
    );
    assert!(remedy.contains("$proxy_add_x_forwarded_for"), "{remedy}");
    assert_eq!(status, Some(1));
    // One that says nothing: the way leads by an address that is trusted.
    let address = format!("http://0.0.0.0:{}", server.address.port());
    let (_, findings) = doctor(&["--url", &address]);
    let (text, remedy) = told(&findings, "client addresses", "warn");
    assert!(text.contains("is trusted, and doesn't tell them"), "{text}");
    assert!(remedy.contains("option forwardfor"), "{remedy}");
}

/// Who asks is told how an address is known, and neither which it is, nor anything without asking.
#[test]
fn how_a_client_is_known_is_told_to_those_alone_who_ask() {
    let server = Server::dev();
    assert!(
        !server
            .get("/health")
            .to_lowercase()
            .contains("tautline-doctor")
    );
    let mut stream = server.connect();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {}\r\nTautline-Doctor: 1\r\nConnection: close\r\n\r\n",
        server.address
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("\r\ntautline-doctor: direct\r\n"),
        "{answer}"
    );
}

#[test]
fn certificates_and_keys_of_a_configuration_are_looked_at() {
    let directory = Directory::new("certificates");
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
    let directory = Directory::new("acme");
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

#[test]
fn what_is_doubtful_in_a_configuration_is_told() {
    let directory = Directory::new("doubtful");
    let file = directory.write(
        "tautline.toml",
        "http_server.address = \"0.0.0.0\"\nclient.allowed_origins = [\"*\"]\n",
    );
    let (status, findings) = doctor(&["--config", &file]);
    let configuration = findings
        .iter()
        .filter(|one| one["subject"] == "configuration");
    let configuration: Vec<_> = configuration.collect();
    assert!(!configuration.is_empty());
    assert!(
        configuration.iter().all(|one| one["grade"] == "warn"),
        "{configuration:?}"
    );
    assert_eq!(status, Some(0));
}
