//! The admin's page, and the listener for what isn't for clients.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tautline::config::ConfigFile;
use tautline::{Config, Node};

const PASSWORD: &str = "correct horse battery";

fn config(more: &str) -> String {
    format!(
        "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = 2\n\
         client.allow_anonymous_connect_without_token = true\n\
         channel.without_namespace.allow_subscribe_for_client = true\n\
         channel.without_namespace.allow_subscribe_for_anonymous = true\n\
         prometheus.enabled = true\nhttp_api.key = \"dev\"\n{more}"
    )
}

fn start(more: &str) -> Node {
    Node::builder(Config::from_toml(&config(more)).unwrap())
        .start()
        .unwrap()
}

fn with_page() -> Node {
    start(&format!(
        "[admin]\nenabled = true\npassword = \"{PASSWORD}\"\n"
    ))
}

/// The head and the body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn ask(address: SocketAddr, line: &str, fields: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn get(address: SocketAddr, path: &str, cookie: &str) -> Answer {
    ask(
        address,
        &format!("GET {path}"),
        &format!("Cookie: a=b; {cookie}\r\n"),
        "",
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

fn login(address: SocketAddr, password: &str) -> Answer {
    let body = format!("{{\"password\":\"{password}\"}}");
    ask(address, "POST /admin/login", JSON, &body)
}

/// The cookie of a login that is right.
fn cookie(address: SocketAddr) -> String {
    let answer = login(address, PASSWORD);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cookie = answer.field("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// A client that is subscribed to a channel, for as long as it is kept.
fn client(address: SocketAddr, channel: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    for command in [
        "{\"id\":1,\"connect\":{}}".to_owned(),
        format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"),
    ] {
        let mut frame = vec![0x81, 0x80 | command.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(command.as_bytes());
        stream.write_all(&frame).unwrap();
    }
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&bytes).contains("\"subscribe\"") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        bytes.extend_from_slice(&buffer[..count]);
    }
    stream
}

#[test]
fn the_page_shows_what_there_is_to_who_is_logged_in_and_to_nobody_else() {
    let node = with_page();
    let address = node.address().unwrap();
    let _clients = [
        client(address, "small"),
        client(address, "large"),
        client(address, "large"),
    ];
    for (path, kind) in [
        ("/admin", "text/html; charset=utf-8"),
        ("/admin/admin.js", "text/javascript; charset=utf-8"),
        ("/admin/admin.css", "text/css; charset=utf-8"),
        ("/admin/mark.svg", "image/svg+xml"),
    ] {
        let page = get(address, path, "");
        assert_eq!((page.status, page.field("content-type")), (200, Some(kind)));
        let policy = page.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        assert_eq!(page.field("cache-control"), Some("no-store"));
    }
    for path in ["/admin/debug", "/admin/channels"] {
        for cookie in [
            "",
            "tautline_admin=",
            "tautline_admin=0000",
            "xtautline_admin=1",
        ] {
            let answer = get(address, path, cookie);
            assert_eq!(answer.status, 401, "{path} {cookie}");
            assert_eq!(answer.field("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(login(address, "wrong").status, 401);
    let answer = login(address, PASSWORD);
    let set = answer.field("set-cookie").unwrap();
    assert!(
        set.contains("; Path=/admin; Max-Age=43200; HttpOnly; SameSite=Strict"),
        "{set}"
    );
    let cookie = set.split(';').next().unwrap();
    let report = get(address, "/admin/debug", cookie).json();
    let workers = report["workers"].as_array().unwrap();
    let names: Vec<_> = workers.iter().map(|worker| &worker["name"]).collect();
    assert_eq!(names, ["worker-0", "worker-1"]);
    let connected = workers
        .iter()
        .filter_map(|one| one["sessions"]["websocket"]["connected"].as_u64());
    assert_eq!(connected.sum::<u64>(), 3);
    assert!(
        workers
            .iter()
            .any(|worker| worker["tasks"].as_u64() >= Some(1))
    );
    assert!(report["memory"]["resident"].as_u64() > Some(1 << 20));
    assert_eq!(report["draining"], false);

    let all = get(address, "/admin/channels", cookie).json();
    let expected = serde_json::json!({"total": 2, "channels": [
        {"channel": "large", "clients": 2}, {"channel": "small", "clients": 1},
    ]});
    assert_eq!(all, expected);
    let one = get(address, "/admin/channels?limit=1", cookie).json();
    assert_eq!(
        (&one["total"], one["channels"].as_array().unwrap().len()),
        (&2.into(), 1)
    );
    assert_eq!(one["channels"][0]["channel"], "large");
    let some = get(address, "/admin/channels?pattern=sm%2A", cookie).json();
    assert_eq!(some["channels"][0]["channel"], "small");
    for query in ["limit=0", "limit=1001", "limit=x", "pattern=%5B"] {
        let path = format!("/admin/channels?{query}");
        assert_eq!(get(address, &path, cookie).status, 400, "{query}");
    }
    let fields = format!("{JSON}Cookie: {cookie}\r\n");
    let out = ask(address, "POST /admin/logout", &fields, "{}");
    assert!(out.field("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(get(address, "/admin/debug", cookie).status, 401);
}

#[test]
fn pages_of_other_sites_can_do_nothing() {
    let node = with_page();
    let address = node.address().unwrap();
    let cookie = cookie(address);
    let body = format!("{{\"password\":\"{PASSWORD}\"}}");
    for path in ["/admin/login", "/admin/logout"] {
        let line = format!("POST {path}");
        let foreign = format!("{JSON}Origin: https://evil.test\r\nCookie: {cookie}\r\n");
        assert_eq!(ask(address, &line, &foreign, &body).status, 403);
        // What a form could send.
        for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
            let fields = format!("Content-Type: {kind}\r\nCookie: {cookie}\r\n");
            assert_eq!(ask(address, &line, &fields, &body).status, 415, "{kind}");
        }
        assert_eq!(get(address, path, &cookie).status, 405);
    }
    assert_eq!(
        get(address, "/admin/debug", &cookie).status,
        200,
        "nobody was logged out"
    );
    let own = format!("{JSON}Origin: http://{address}\r\n");
    assert_eq!(ask(address, "POST /admin/login", &own, &body).status, 200);
}

#[test]
fn who_guesses_has_to_wait() {
    let node = with_page();
    let address = node.address().unwrap();
    for _ in 0..5 {
        assert_eq!(login(address, "wrong").status, 401);
    }
    let refused = login(address, PASSWORD);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait));
    let long = format!("{{\"password\":\"{}\"}}", "x".repeat(5000));
    let node = with_page();
    assert_eq!(
        ask(node.address().unwrap(), "POST /admin/login", JSON, &long).status,
        413
    );
}

#[test]
fn without_it_there_is_no_page() {
    let node = start("");
    for path in ["/admin", "/admin/debug", "/admin/admin.js"] {
        assert_eq!(get(node.address().unwrap(), path, "").status, 404);
    }
}

#[test]
fn what_is_not_for_clients_can_have_a_listener_of_its_own() {
    let node = start(&format!(
        "http_server.internal_listen = \"127.0.0.1:0\"\n[admin]\nenabled = true\npassword = \"{PASSWORD}\"\n"
    ));
    let (clients, internal) = (node.address().unwrap(), node.internal_address().unwrap());
    assert_ne!(clients, internal);
    let key = "X-API-Key: dev\r\n";
    for (line, fields) in [
        ("POST /api/info", key),
        ("POST /api", key),
        ("GET /api/openapi.json", ""),
        ("POST /api/trace", key),
        ("GET /metrics", ""),
        ("GET /admin", ""),
        ("GET /admin/admin.css", ""),
    ] {
        assert_eq!(ask(clients, line, fields, "").status, 404, "{line}");
        assert_ne!(ask(internal, line, fields, "").status, 404, "{line}");
    }
    for line in [
        "GET /connection/websocket",
        "POST /connection/http_stream",
        "GET /connection/sse",
        "POST /emulation",
        "GET /events",
        "GET /",
    ] {
        assert_eq!(ask(internal, line, "", "").status, 404, "{line}");
    }
    for path in ["/health", "/ready"] {
        assert_eq!(get(clients, path, "").status, 200);
        assert_eq!(get(internal, path, "").status, 200);
    }
    let _client = client(clients, "a");
    let info = ask(internal, "POST /api/info", key, "{}").json();
    assert_eq!(info["result"]["nodes"][0]["num_clients"], 1);
    let cookie = cookie(internal);
    assert_eq!(get(internal, "/admin/debug", &cookie).status, 200);
}

/// What `tautline password` makes of one.
fn hashed(password: &str) -> Output {
    let mut hashing = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = hashing.stdin.take().unwrap();
    // It needn't read all of it.
    let _ = writeln!(input, "{password}");
    drop(input);
    hashing.wait_with_output().unwrap()
}

#[test]
fn a_password_is_hashed_as_a_whole_or_not_at_all() {
    assert!(hashed(&"x".repeat(4000)).status.success());
    for length in [11, 4001, 4002, 4003, 8000] {
        let output = hashed(&"x".repeat(length));
        assert_eq!(output.status.code(), Some(2), "{length}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("12 to 4000 bytes"), "{told}");
    }
    // The longest is one that can be typed.
    let hash = String::from_utf8(hashed(&"x".repeat(4000)).stdout).unwrap();
    let node = start(&format!(
        "[admin]\nenabled = true\npassword_hash = \"{}\"\n",
        hash.trim()
    ));
    assert_eq!(
        login(node.address().unwrap(), &"x".repeat(4000)).status,
        200
    );
}

#[test]
fn the_configuration_can_have_a_hash_in_the_place_of_the_password() {
    let output = hashed(PASSWORD);
    assert!(output.status.success());
    let hash = String::from_utf8(output.stdout).unwrap();
    let path = std::env::temp_dir().join(format!("tautline-admin-{}.toml", std::process::id()));
    let write = |line: &str| {
        std::fs::write(&path, config(&format!("[admin]\nenabled = true\n{line}\n"))).unwrap();
    };
    write(&format!("password_hash = \"{}\"", hash.trim()));
    let file = ConfigFile::new(&path, Vec::new());
    let node = Node::builder(file.load().unwrap()).reload_from(file);
    let node = node.start().unwrap();
    let address = node.address().unwrap();
    assert_eq!(login(address, "correct horse batterz").status, 401);
    let cookie = cookie(address);
    assert_eq!(get(address, "/admin/debug", &cookie).status, 200);
    // Another password, and those who are in are out.
    write("password = \"another password\"");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(node.handle().reload()).unwrap();
    assert_eq!(get(address, "/admin/debug", &cookie).status, 401);
    assert_eq!(login(address, "another password").status, 200);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_cannot_be_is_refused() {
    let problem = |more: &str| match Config::from_toml(&config(more)) {
        Ok(config) => config.warnings.join("; "),
        Err(error) => error.to_string(),
    };
    for (more, expected) in [
        (
            "[admin]\nenabled = true\n",
            "admin.password: is required where admin.enabled is set",
        ),
        (
            "[admin]\npassword = \"short\"\n",
            "expected at least 12 bytes",
        ),
        (
            "[admin]\npassword_hash = \"x\"\n",
            "admin.password_hash: expected a line that `tautline password` prints",
        ),
        (
            "[admin]\npassword = \"long enough for it\"\npassword_hash = \"x\"\n",
            "leave one of them out",
        ),
        (
            "http_server.internal_listen = \"9000\"\n",
            "expected an IP address and a port",
        ),
        (
            "http_server.internal_listen = \"0.0.0.0:9000\"\n",
            "http_server.internal_listen is reachable",
        ),
        ("admin.insecure = true\n", "so it needs a password"),
    ] {
        let told = problem(more);
        assert!(told.contains(expected), "{more}: {told}");
        assert!(!told.contains("short\""), "{told}");
    }
}
