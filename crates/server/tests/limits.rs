//! Limits by address, seen from outside: who is refused, who isn't, and whom the server believes about addresses.

#![cfg(unix)]

#[path = "node/client.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod client;
#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tautline_auth::{Signer, TokenClaims};

use self::client::{Client, Frame};
use self::process::{Server, wait_until};

const BASE: &str = "[client]\nallow_anonymous_connect_without_token = true\n[prometheus]\nenabled = true\n\
                    [http_api]\nkey = \"dev\"\n";

/// `server` is what stands in `[http_server]`, `limits` all that is behind it.
fn serve(name: &str, server: &str, limits: &str) -> Server {
    Server::serve(name, &format!("{server}\n{limits}\n{BASE}"))
}

/// Sends bytes, and reads the answer to its end.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    finish(&mut stream, bytes)
}

fn finish(stream: &mut TcpStream, bytes: &[u8]) -> String {
    // The server may have answered and closed already.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection that goes on behind the answer to a first request.
fn begin(server: &Server) -> TcpStream {
    try_to_begin(server).expect("it is let in")
}

/// The same, if it is let in.
fn try_to_begin(server: &Server) -> Option<TcpStream> {
    let mut stream = server.connect();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Who is refused may be so before it is read.
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    Some(stream)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[test]
fn connections_of_an_address_have_a_limit() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 3\n";
    let server = serve("limits-connections", "", limits);
    // Each is answered once, so that it is known to be there.
    let mut held: Vec<_> = (0..3).map(|_| begin(&server)).collect();
    let refused = exchange(&server, get("/health", "").as_bytes());
    assert_eq!(status(&refused), "429");
    assert!(refused.contains("\r\nRetry-After: 5\r\n"), "{refused}");
    assert!(refused.contains("limits.address.connections"), "{refused}");
    // Who was there before goes on.
    let answer = finish(&mut held[0], get("/health", "").as_bytes());
    assert_eq!(status(&answer), "200");
    held.clear();
    let page = wait_until("there is room again", || {
        let answer = exchange(&server, get("/metrics", "").as_bytes());
        (status(&answer) == "200").then_some(answer)
    });
    let counted = "tautline_limits_refused_total{limit=\"connections\",mode=\"enforced\"} ";
    let line = page.lines().find_map(|line| line.strip_prefix(counted));
    assert!(line.is_some_and(|count| count != "0"), "{page}");
}

#[test]
fn so_many_connections_are_open_and_no_more() {
    let limits = "[limits]\nmax_sockets = 3\nexempt_loopback = false\n";
    let mut server = serve("limits-sockets", "", limits);
    let mut held: Vec<_> = (0..3).map(|_| begin(&server)).collect();
    let refused = exchange(&server, get("/health", "").as_bytes());
    assert_eq!(status(&refused), "503");
    assert!(refused.contains("\r\nRetry-After: 5\r\n"), "{refused}");
    assert!(refused.contains("(limits.max_sockets)"), "{refused}");
    server.read_until("limit=\"limits.max_sockets\" most=3");
    // Who was there before goes on, and there is room again when one has gone.
    let page = finish(&mut held[0], get("/metrics", "").as_bytes());
    for line in [
        "tautline_limits_refused_total{limit=\"node_sockets\",mode=\"enforced\"} 1\n",
        "tautline_limits_num_sockets 3\n",
        "tautline_limits_max_sockets 3\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    held.remove(0);
    held.push(wait_until("there is room again", || try_to_begin(&server)));
    // A reload changes how many they are, and that it is only tried out.
    let text = std::fs::read_to_string(server.config_path()).expect("its configuration");
    let change = |server: &mut Server, to: &str| {
        server.write_config(&text.replace("max_sockets = 3\n", to));
        server.hang_up();
    };
    change(&mut server, "max_sockets = 4\n");
    held.push(begin(&server));
    let answer = exchange(&server, get("/health", "").as_bytes());
    assert_eq!(status(&answer), "503");
    change(&mut server, "max_sockets = 4\ndry_run = true\n");
    held.push(begin(&server));
    let page = exchange(&server, get("/metrics", "").as_bytes());
    let counted = "tautline_limits_refused_total{limit=\"node_sockets\",mode=\"dry_run\"} 2\n";
    assert!(page.contains(counted), "{page}");
}

/// It was let in for a request, and is a WebSocket now: of the server's own, and of a tunnel.
#[test]
fn a_connection_that_becomes_a_websocket_is_open_still() {
    let behind = serve("limits-behind", "", "");
    let tunnel = format!(
        "[[tunnels]]\nname = \"other\"\nupstream = \"ws://{}/connection/websocket\"\n",
        behind.address
    );
    let server = serve("limits-upgraded", "", &tunnel);
    let open = || {
        let page = exchange(&server, get("/metrics", "").as_bytes());
        let mut lines = page.lines();
        let open = lines.find_map(|line| line.strip_prefix("tautline_limits_num_sockets "));
        open.expect("it is there")
            .parse::<usize>()
            .expect("a number")
    };
    let upgrade = |path: &str| {
        let mut stream = begin(&server);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream
    };
    // Beside that of whoever asks.
    let becomes = |count: usize| {
        wait_until("so many are open", || (open() == count + 1).then_some(()));
    };
    let own = upgrade("/connection/websocket");
    becomes(1);
    let carried = upgrade("/tunnel/other");
    becomes(3);
    drop(carried);
    becomes(1);
    drop(own);
    becomes(0);
}

/// Nothing is configured, and the process may have 512 descriptors: strangers take those that are for them, and whoever looks
/// after the server gets in all the same, at the same port and at the internal one.
#[cfg(target_os = "linux")]
#[test]
fn strangers_leave_descriptors_to_others() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let internal = port.local_addr().expect("it has an address");
    drop(port);
    let shell = "ulimit -n 512; exec \"$0\" \"$@\"";
    let of_server =
        format!("trusted_proxies = [\"127.0.0.2/32\"]\ninternal_listen = \"{internal}\"");
    let config = format!("{of_server}\n{BASE}");
    let mut server = Server::serve_by(&["sh", "-c", shell], "limits-descriptors", &config);
    // A proxy's, behind which anybody may be: those that are answered stay, and hold a descriptor each.
    let stranger = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
        socket.connect(&server.address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok((answer, stream))
    };
    let crowd: Vec<_> = (0..600)
        .filter_map(|_| stranger().ok())
        .filter(|(answer, _)| answer.ends_with(b" 200"))
        .collect();
    assert_eq!(crowd.len(), 448);
    let number = |page: &str, name: &str| -> u64 {
        let lines = page.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.next().expect(name).parse().expect("a number")
    };
    let mut stream = TcpStream::connect(internal).expect("it listens");
    let page = finish(&mut stream, get("/metrics", "").as_bytes());
    assert_eq!(status(&page), "200");
    let refused = "tautline_limits_refused_total{limit=\"node_sockets\",mode=\"enforced\"}";
    assert_eq!(number(&page, refused), 600 - 448);
    assert_eq!(number(&page, "tautline_limits_max_sockets"), 448);
    assert_eq!(number(&page, "tautline_limits_num_sockets"), 448);
    assert_eq!(number(&page, "process_max_fds"), 512);
    assert!(number(&page, "process_open_fds") < 512, "{page}");
    // This machine is exempt, and has some more.
    let answer = exchange(&server, get("/health", "").as_bytes());
    assert_eq!(status(&answer), "200");
    drop(crowd);
    wait_until("they are gone", || {
        let mut stream = TcpStream::connect(internal).expect("it listens");
        let page = finish(&mut stream, get("/metrics", "").as_bytes());
        (number(&page, "tautline_limits_num_sockets") == 0).then_some(())
    });
    server.signal("-TERM");
    let said = server.read_rest();
    assert!(!said.contains("can't be accepted"), "{said}");
}

#[test]
fn a_dry_run_counts_and_this_machine_is_exempt() {
    let dry =
        "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 1\ndry_run = true\n";
    let exempt = "[limits.address]\nconnections = 1\n";
    for (name, limits) in [("limits-dry-run", dry), ("limits-exempt", exempt)] {
        let server = serve(name, "", limits);
        let _held: Vec<_> = (0..5).map(|_| server.connect()).collect();
        for _ in 0..5 {
            let answer = exchange(&server, get("/health", "").as_bytes());
            assert_eq!(status(&answer), "200", "{name}");
        }
    }
}

/// A browser lets a page read of another origin's answer only what that says it may.
#[test]
fn a_page_may_read_when_to_come_back() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nrequests = \"1/h\"\n";
    let base = BASE.replace(
        "[client]\n",
        "[client]\nallowed_origins = [\"https://app.example.org\"]\n",
    );
    let server = Server::serve("limits-page", &format!("{limits}\n{base}"));
    let ask = |origin: &str| {
        let field = format!("Origin: https://{origin}\r\n");
        exchange(&server, get("/history?channel=x", &field).as_bytes())
    };
    assert_ne!(status(&ask("app.example.org")), "429");
    let refused = ask("app.example.org");
    assert_eq!(status(&refused), "429");
    let allowed = "access-control-allow-origin: https://app.example.org\r\n";
    assert!(refused.contains(allowed), "{refused}");
    assert!(refused.contains("retry-after: "), "{refused}");
    // Others are told nothing by which they could read it.
    let refused = ask("evil.example");
    assert_eq!(status(&refused), "429");
    assert!(!refused.contains("access-control"), "{refused}");
}

#[test]
fn networks_are_exempt_where_the_options_say_so() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let who = [String::new(), from("203.0.113.5"), from("198.51.100.5")];
    for (name, limits, expected) in [
        ("limits-exempt-own", "", [false, true, true]),
        (
            "limits-exempt-none",
            "exempt_loopback = false\n",
            [true, true, true],
        ),
        (
            "limits-exempt-some",
            "exempt = [\"203.0.113.0/24\"]\n",
            [false, false, true],
        ),
    ] {
        let limits = format!("[limits]\n{limits}[limits.address]\nrequests = \"1/h\"\n");
        let server = serve(name, trusted, &limits);
        let is_refused = who.each_ref().map(|field| {
            let ask = || exchange(&server, get("/history?channel=x", field).as_bytes());
            ask();
            status(&ask()) == "429"
        });
        assert_eq!(is_refused, expected, "{name}");
    }
}

#[test]
fn a_trusted_proxy_tells_whose_a_request_is_and_nobody_else_does() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nrequests = \"1/h\"\n";
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let ask = |server: &Server, field: &str| {
        let answer = exchange(server, get("/history?channel=x", field).as_bytes());
        status(&answer) == "429"
    };
    let server = serve("limits-forwarded", trusted, limits);
    let field = "X-Forwarded-For: 203.0.113.1, 198.51.100.1\r\n";
    assert!(!ask(&server, field));
    assert!(ask(&server, field));
    // Another client; and one that only says so is still the same.
    assert!(!ask(&server, "X-Forwarded-For: 198.51.100.2\r\n"));
    assert!(ask(&server, "X-Forwarded-For: 192.0.2.9, 198.51.100.1\r\n"));
    // Whoever isn't trusted has the address of the connection, whatever is written there.
    let server = serve("limits-forged", "", limits);
    assert!(!ask(&server, field));
    assert!(ask(&server, "X-Forwarded-For: 198.51.100.2\r\n"));
    assert!(ask(&server, "Forwarded: for=198.51.100.3\r\n"));
}

#[test]
fn the_proxy_protocol_comes_first_where_it_is_spoken() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnect = \"1/h\"\n";
    let server = serve("limits-proxy-protocol", trusted, limits);
    let request = get("/health", "");
    let ask = |header: &[u8]| exchange(&server, &[header, request.as_bytes()].concat());
    let client = |last: u8| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend([192, 0, 2, last, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        header
    };
    assert_eq!(status(&ask(&client(1))), "200");
    assert_eq!(status(&ask(&client(1))), "429");
    assert_eq!(status(&ask(&client(2))), "200");
    // Version 1 says the same of the same client.
    assert_eq!(
        status(&ask(b"PROXY TCP4 192.0.2.1 10.0.0.1 80 80\r\n")),
        "429"
    );
    // The proxy's own look whether the server is there is no client's.
    for _ in 0..3 {
        assert_eq!(status(&ask(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")), "200");
        assert_eq!(status(&ask(b"PROXY UNKNOWN\r\n")), "200");
    }
    assert_eq!(ask(b""), "", "without it there is no answer");
}

#[test]
fn without_memory_nobody_new_is_let_in() {
    let memory = "[limits]\nexempt_loopback = false\n[limits.memory]\nmax_bytes = 1\ncheck_interval = \"10ms\"\n";
    let server = serve("limits-memory", "", memory);
    let answer = wait_until("it was measured", || {
        let answer = exchange(&server, get("/health", "").as_bytes());
        (status(&answer) == "503").then_some(answer)
    });
    assert!(answer.contains("\r\nRetry-After: 10\r\n"), "{answer}");
    let server = serve(
        "limits-memory-dry",
        "",
        &format!("{memory}dry_run = true\n"),
    );
    let answer = wait_until("it was measured", || {
        let answer = exchange(&server, get("/metrics", "").as_bytes());
        assert_eq!(status(&answer), "200");
        answer
            .contains("limit=\"memory\",mode=\"enforced\"} 0")
            .then_some(answer)
    });
    assert!(
        answer.contains("tautline_node_memory_ceiling_bytes"),
        "{answer}"
    );
}

/// Over the ceiling, and with this machine's addresses exempt as they are by default: as behind a proxy here.
#[test]
fn without_memory_clients_of_a_proxy_are_refused_and_probes_and_the_backend_are_not() {
    let memory = "[limits.memory]\nmax_bytes = 1\ncheck_interval = \"10ms\"\n";
    for (name, trusted) in [
        ("limits-memory-proxy", "trusted_proxies = [\"127.0.0.0/8\"]"),
        ("limits-memory-unknown-proxy", ""),
    ] {
        let server = serve(name, trusted, memory);
        let from = "X-Forwarded-For: 203.0.113.5\r\n";
        let upgrade = format!(
            "{from}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        wait_until("it was measured", || {
            let answer = exchange(&server, get("/lines?channel=x", from).as_bytes());
            (status(&answer) == "503").then_some(())
        });
        let request = get("/connection/websocket", &upgrade)
            .replace("Connection: close", "Connection: Upgrade");
        let answer = exchange(&server, request.as_bytes());
        assert_eq!(status(&answer), "503", "{name}: {answer}");
        assert!(answer.contains("limits.memory"), "{answer}");
        for path in ["/health", "/ready", "/metrics"] {
            for field in ["", from] {
                let answer = exchange(&server, get(path, field).as_bytes());
                assert_eq!(status(&answer), "200", "{name}: {path} {field}");
            }
        }
        server.api("info", "{}");
    }
}

/// On a listener of their own, probes and the backend are answered wherever they come from.
#[test]
fn without_memory_the_internal_listener_answers_all() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let internal = port.local_addr().expect("it has an address");
    drop(port);
    let server = serve(
        "limits-memory-internal",
        &format!("internal_listen = \"{internal}\""),
        "[limits]\nexempt_loopback = false\n[limits.memory]\nmax_bytes = 1\ncheck_interval = \"10ms\"\n",
    );
    wait_until("it was measured", || {
        let answer = exchange(&server, get("/health", "").as_bytes());
        (status(&answer) == "503").then_some(())
    });
    for path in ["/health", "/ready", "/metrics"] {
        let mut stream = TcpStream::connect(internal).expect("it listens");
        let answer = finish(&mut stream, get(path, "").as_bytes());
        assert_eq!(status(&answer), "200", "{path}");
    }
    let mut stream = TcpStream::connect(internal).expect("it listens");
    let call = "POST /api/info HTTP/1.1\r\nHost: localhost\r\nX-API-Key: dev\r\nContent-Length: 2\r\n\
                Connection: close\r\n\r\n{}";
    assert_eq!(status(&finish(&mut stream, call.as_bytes())), "200");
}

#[test]
fn a_proxy_that_nobody_trusts_is_told_of_once_in_a_while() {
    let told = |name: &str, trusted: &str, limits: &str| {
        let mut server = serve(name, trusted, limits);
        for field in [
            "X-Forwarded-For: 203.0.113.5\r\n",
            "Forwarded: for=203.0.113.5\r\n",
        ] {
            exchange(&server, get("/lines?channel=", field).as_bytes());
        }
        let page = exchange(&server, get("/metrics", "").as_bytes());
        let name = "tautline_limits_unknown_proxy_requests_total ";
        let count = page
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned);
        // The end of what it says.
        server.signal("-TERM");
        let said = server.read_rest();
        let lines = said
            .lines()
            .filter(|line| line.contains("is not in http_server.trusted_proxies"));
        let lines: Vec<_> = lines.map(str::to_owned).collect();
        (count.expect("a number"), lines)
    };
    let (count, lines) = told("limits-proxy-unknown", "", "");
    assert_eq!(count, "2");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("limits.address is for none of its clients"),
        "{lines:?}"
    );
    let (_, lines) = told(
        "limits-proxy-one",
        "",
        "[limits]\nexempt_loopback = false\n",
    );
    assert!(lines[0].contains("the limits of one address"), "{lines:?}");
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    assert_eq!(
        told("limits-proxy-known", trusted, ""),
        ("0".to_owned(), vec![])
    );
}

const SECRET: &str = "a secret that is long enough for HS256";

/// With tokens, and behind a proxy: who asks says where it is from. Two failures an hour are allowed.
fn serve_failures(name: &str, more: &str) -> Server {
    let limits = format!(
        "[client.token]\nhmac_secret_key = \"{SECRET}\"\n[limits]\nexempt_loopback = false\n\
         [limits.address]\nfailed_authentications = \"2/h\"\n{more}"
    );
    serve(name, "trusted_proxies = [\"127.0.0.0/8\"]", &limits)
}

fn token(secret: &str, user: &str, channel: Option<&str>, expires_at: u64) -> String {
    let signer = Signer::hs256(&secret.into()).expect("a secret");
    let claims = TokenClaims {
        user,
        channel,
        expires_at: Some(expires_at),
        ..TokenClaims::default()
    };
    signer.sign(&claims).expect("a token")
}

const LATE: u64 = 4_000_000_000;

fn good(user: &str) -> String {
    token(SECRET, user, None, LATE)
}

fn forged(user: &str) -> String {
    token("another secret", user, None, LATE)
}

/// What the server says to a client from an address that connects with a token.
fn connect_from(server: &Server, address: &str, token: &str) -> (Client, Frame) {
    let mut stream = server.connect();
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut client = Client::over(stream);
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
    let frame = client.frame();
    (client, frame)
}

/// The code of the error or the end that a connect comes to; 0 for none.
fn connect_code(server: &Server, address: &str, token: &str) -> u64 {
    match connect_from(server, address, token).1 {
        Frame::Close(code, _) => u64::from(code),
        Frame::Text(text) => {
            let reply: Value = serde_json::from_str(&text).expect("JSON");
            let error = &reply["error"];
            // SDKs come back by themselves.
            assert!(error["code"] != 111 || error["temporary"] == true, "{text}");
            error["code"].as_u64().unwrap_or(0)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_forges_tokens_is_not_listened_to_for_a_while() {
    let server = serve_failures("limits-tokens", "");
    let code = |address: &str, token: &str| connect_code(&server, address, token);
    // One that has expired is no attempt.
    for _ in 0..5 {
        assert_eq!(code("198.51.100.1", &token(SECRET, "ann", None, 1)), 109);
    }
    assert_eq!(code("198.51.100.1", &forged("ann")), 3500);
    assert_eq!(code("198.51.100.1", "garbage"), 3500);
    // From now on nothing is told of what is bad from there.
    for token in [forged("ann"), "garbage".into()] {
        assert_eq!(code("198.51.100.1", &token), 111);
    }
    // What others send from behind the same address is let in, or told what it is.
    assert_eq!(code("198.51.100.1", &good("ann")), 0);
    assert_eq!(code("198.51.100.1", &token(SECRET, "ann", None, 1)), 109);
    // By whatever door.
    let mut stream = server.connect();
    let body = json!({"id": 1, "connect": {"token": forged("ann")}}).to_string();
    let request = format!(
        "POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.1\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"error\":{\"code\":111") {
        let mut bytes = [0; 512];
        let count = stream.read(&mut bytes).expect("an answer");
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    // Others have nothing to do with it.
    assert_eq!(code("198.51.100.2", &good("ann")), 0);
    let page = exchange(&server, get("/metrics", "").as_bytes());
    let counted = "tautline_limits_refused_total{limit=\"authentication\",mode=\"enforced\"} 3";
    assert!(page.contains(counted), "{page}");
}

#[test]
fn a_user_who_forges_tokens_is_not_listened_to_wherever_it_is() {
    let server = serve_failures("limits-user-tokens", "");
    let here = |address: &str, user: &str| {
        let (client, frame) = connect_from(&server, address, &good(user));
        assert!(
            matches!(frame, Frame::Text(ref text) if text.contains("\"connect\":")),
            "{frame:?}"
        );
        client
    };
    let subscribe = |client: &mut Client| {
        let forged = token("another secret", "ann", Some("$a"), LATE);
        let request = json!({"channel": "$a", "token": forged});
        client.send(&json!({"id": 2, "subscribe": request}).to_string());
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        reply["error"]["code"].as_u64()
    };
    let mut first = here("198.51.100.1", "ann");
    let mut second = here("198.51.100.2", "ann");
    let mut other = here("198.51.100.3", "bob");
    assert_eq!(subscribe(&mut first), Some(103));
    assert_eq!(subscribe(&mut second), Some(103));
    assert_eq!(subscribe(&mut first), Some(111));
    assert_eq!(subscribe(&mut second), Some(111));
    assert_eq!(subscribe(&mut other), Some(103));
    // A token that is good is still taken, and one that is good for somebody or something else isn't.
    let mut with = |user: &str, channel: &str| {
        let token = token(SECRET, user, Some(channel), LATE);
        let request = json!({"channel": "$a", "token": token});
        first.send(&json!({"id": 3, "subscribe": request}).to_string());
        let reply: Value = serde_json::from_str(&first.text()).expect("JSON");
        reply["error"]["code"].as_u64()
    };
    assert_eq!(with("bob", "$a"), Some(111));
    assert_eq!(with("ann", "$b"), Some(111));
    assert_eq!(with("ann", "$a"), None);
    // Whoever claims to be that user is not: nobody can shut out another.
    assert_eq!(connect_code(&server, "198.51.100.4", &good("ann")), 0);
}

fn api_call(server: &Server, address: &str, key: &str) -> String {
    let head = format!(
        "POST /api/info HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nX-API-Key: {key}\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    exchange(server, head.as_bytes())
}

#[test]
fn who_guesses_api_keys_is_not_listened_to_for_a_while() {
    let server = serve_failures("limits-keys", "");
    let call = |address: &str, key: &str| {
        let answer = api_call(&server, address, key);
        status(&answer).to_owned()
    };
    assert_eq!(call("198.51.100.1", "a"), "401");
    assert_eq!(call("198.51.100.1", "b"), "401");
    let answer = api_call(&server, "198.51.100.1", "dev");
    assert_eq!(status(&answer), "429", "the right one tells nothing either");
    assert!(answer.contains("\r\nretry-after: 1800\r\n"), "{answer}");
    assert!(
        answer.contains("limits.address.failed_authentications"),
        "{answer}"
    );
    // The backend isn't shut out by a part of it that has an old key.
    assert_eq!(call("198.51.100.2", "dev"), "200");
    for _ in 0..4 {
        assert_eq!(call("198.51.100.2", "old"), "401");
    }
    assert_eq!(call("198.51.100.2", "dev"), "200");
    // Who has no key at all guesses nothing.
    for _ in 0..4 {
        let head = "POST /api/info HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.3\r\n\
                    Content-Length: 2\r\nConnection: close\r\n\r\n{}";
        assert_eq!(status(&exchange(&server, head.as_bytes())), "401");
    }
    assert_eq!(call("198.51.100.3", "dev"), "200");
}

#[test]
fn failed_authentications_may_be_counted_only_and_a_reload_changes_that() {
    let mut server = serve_failures("limits-failures-dry", "dry_run = true\n");
    for _ in 0..4 {
        assert_eq!(connect_code(&server, "198.51.100.1", &forged("ann")), 3500);
    }
    assert_eq!(connect_code(&server, "198.51.100.1", &good("ann")), 0);
    let page = exchange(&server, get("/metrics", "").as_bytes());
    let counted = "tautline_limits_refused_total{limit=\"authentication\",mode=\"dry_run\"} 2";
    assert!(page.contains(counted), "{page}");
    let text = std::fs::read_to_string(server.config_path()).expect("its configuration");
    server.write_config(&text.replace("dry_run = true", "dry_run = false"));
    server.hang_up();
    assert_eq!(connect_code(&server, "198.51.100.1", &forged("ann")), 111);
    assert_eq!(connect_code(&server, "198.51.100.1", &good("ann")), 0);
}

/// Who called what, from where, and what came of it: each in a field of its own.
#[test]
fn calls_of_the_api_are_in_the_audit_log() {
    let more = "[log]\nformat = \"json\"\n";
    let entry = |server: &mut Server, method: &str| {
        let mark = format!("\"method\":\"{method}\"");
        let line = server.read_until(&mark).pop().expect("a line");
        let entry: Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(entry["target"], "tautline::audit", "{line}");
        entry
    };
    let call = |server: &Server, method: &str, body: &str| {
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.7\r\nX-API-Key: dev\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(status(&exchange(server, head.as_bytes())), "200");
    };
    let mut server = serve_failures("audit", more);
    call(&server, "publish", r#"{"channel":"a","data":1}"#);
    call(
        &server,
        "unsubscribe",
        r#"{"user":"42","channel":"nope:a"}"#,
    );
    // What was published is not logged, so this is the first.
    let found = entry(&mut server, "unsubscribe");
    let fields = |found: &Value| {
        let fields = found.get("fields").unwrap_or(found);
        ["key", "address", "user", "channel", "code", "token"].map(|name| fields[name].clone())
    };
    let expected = [
        json!("http_api.key"),
        json!("198.51.100.7"),
        json!("42"),
        json!("nope:a"),
        json!(102),
        Value::Null,
    ];
    assert_eq!(fields(&found), expected);
    call(&server, "revoke_token", r#"{"uid":"9f2c"}"#);
    let found = entry(&mut server, "revoke_token");
    assert_eq!(fields(&found)[4..], [json!(0), json!("9f2c")]);
    api_call(&server, "198.51.100.8", "wrong");
    let found = entry(&mut server, "info");
    assert_eq!(fields(&found)[..2], [Value::Null, json!("198.51.100.8")]);
    assert_eq!(found["level"], "WARN");

    let text = std::fs::read_to_string(server.config_path()).expect("its configuration");
    let all = text.replace("[http_api]\n", "[http_api]\naudit_log = \"all\"\n");
    server.write_config(&all);
    server.signal("-HUP");
    server.wait_for_output("the configuration was reloaded");
    call(&server, "publish", r#"{"channel":"a","data":1}"#);
    assert_eq!(fields(&entry(&mut server, "publish"))[3], "a");
}
