//! Limits that somebody goes over, on a server that runs: what is told of it, and what `/metrics` says. Those of which
//! other tests look at the metric are with these; what the hub counts is in its own tests.

#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use self::process::{Server, wait_until};

const BASE: &str = "[client]\nallow_anonymous_connect_without_token = true\n[prometheus]\nenabled = true\n\
                    [http_api]\nkey = \"dev\"\n";

/// `server` is what stands in `[http_server]`, `more` all that is behind it.
fn serve(name: &str, server: &str, more: &str) -> Server {
    Server::serve(name, &format!("{server}\n{more}\n{BASE}"))
}

/// The number behind a name and its labels.
fn number(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics");
    let name = format!("tautline_{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&name));
    let found = found.unwrap_or_else(|| panic!("there is no {name}\n{page}"));
    found.parse().expect("a whole number")
}

fn refused(server: &Server, limit: &str) -> u64 {
    let name = format!("limits_refused_total{{limit=\"{limit}\",mode=\"enforced\"}}");
    number(server, &name)
}

fn dropped(server: &Server, reason: &str) -> u64 {
    number(
        server,
        &format!("connections_dropped_total{{reason=\"{reason}\"}}"),
    )
}

/// Sends bytes, and reads the answer to its end.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    // The server may have answered and closed already.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What the API answers to a publication.
fn publish(server: &Server, channel: &str, more: &Value) -> Value {
    let mut request = json!({"channel": channel, "data": "x".repeat(200)});
    if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
        request.extend(more.clone());
    }
    let body = request.to_string();
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: dev\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answer = exchange(server, (head + &body).as_bytes());
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

const HISTORY: &str = "[channel.without_namespace]\nhistory_size = 10\nhistory_ttl = \"1h\"\nallow_subscribe_for_client = true\n";

#[test]
fn what_the_engine_keeps_has_a_limit() {
    for (option, limit, fills, ceiling) in [
        (
            "max_channels = 2",
            "engine_channels",
            "engine_num_channels",
            "engine_max_channels",
        ),
        (
            "max_bytes = 1500",
            "engine_bytes",
            "engine_kept_bytes",
            "engine_ceiling_bytes",
        ),
    ] {
        let name = format!("refusals-{}", &option[..8]);
        let server = serve(&name, "", &format!("[engine.memory]\n{option}\n{HISTORY}"));
        let (option, most) = option.split_once(" = ").expect("a value");
        let most: u64 = most.parse().expect("a number");
        assert_eq!(number(&server, ceiling), most);
        let answers = (0..10).map(|index| publish(&server, &format!("c{index}"), &json!({})));
        let errors: Vec<_> = answers
            .filter_map(|mut answer| Some(answer.get_mut("error")?.take()))
            .collect();
        assert!(!errors.is_empty() && errors.len() < 10, "{errors:?}");
        for error in &errors {
            assert_eq!(error["code"], 100);
            let text = error["message"].as_str().expect("a text");
            let named = format!("engine.memory.{option}");
            assert!(
                text.contains(&named)
                    && text.contains(&most.to_string())
                    && text.contains("try again"),
                "{text}"
            );
        }
        assert_eq!(refused(&server, limit), errors.len() as u64);
        let fill = number(&server, fills);
        assert!(fill > 0 && fill <= most, "{fill}");
    }
}

#[test]
fn keys_that_are_too_long_are_refused_and_counted() {
    let server = serve("refusals-keys", "", HISTORY);
    let long = "k".repeat(256);
    for more in [
        json!({"idempotency_key": long}),
        json!({"version": 1, "version_epoch": long}),
    ] {
        let answer = publish(&server, "a", &more);
        assert_eq!(answer["error"]["code"], 107, "{answer}");
        let text = answer["error"]["message"].as_str().expect("a text");
        assert!(text.contains("255 bytes"), "{text}");
    }
    let errors = "api_command_errors_total{protocol=\"http\",method=\"publish\",error=\"107\"}";
    assert_eq!(number(&server, errors), 2);
    assert_eq!(refused(&server, "idempotency_keys"), 0);
}

#[test]
fn proxies_have_to_say_whom_a_connection_is_from() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let server = serve("refusals-proxy-header", trusted, "");
    let ask = |header: &[u8]| {
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        exchange(&server, &[header, request].concat())
    };
    // What is announced, and what is there.
    let version_2 = |length: u16, body: &[u8]| {
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
        [&head[..], &length.to_be_bytes(), body].concat()
    };
    let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2];
    let with = |tlvs: &[u8]| {
        let body = [&addresses[..], tlvs].concat();
        version_2(u16::try_from(body.len()).expect("short"), &body)
    };
    for good in [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
        with(&[]),
        // What a proxy has to tell beside isn't read: neither lengths that lie, nor as much of it as there may be.
        with(&[4, 0xff, 0xff, 1]),
        with(&[4]),
        with(&vec![0xee; 16 * 1024 - addresses.len()]),
    ] {
        let answer = ask(&good);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let bad = [
        Vec::new(),
        b"PROXY TCP5 nobody\r\n".to_vec(),
        // None that begins has no end.
        [&b"PROXY TCP4 "[..], &vec![b'1'; 100_000]].concat(),
        version_2(u16::MAX, &addresses),
        version_2(16 * 1024 + 1, &vec![0; 16 * 1024 + 1]),
        version_2(11, &addresses),
    ];
    for header in &bad {
        assert_eq!(ask(header), "", "{}", header.escape_ascii());
    }
    let page = {
        let request = "PROXY UNKNOWN\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        exchange(&server, request.as_bytes())
    };
    let count = bad.len();
    let line = format!("tautline_connections_dropped_total{{reason=\"proxy_header\"}} {count}\n");
    assert!(page.contains(&line), "{page}");
}

/// Who is refused is told so, but not more at a time than there is room for.
#[test]
fn those_who_are_told_of_a_refusal_have_a_limit() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let limits = "[limits.address]\nconnections = 1\n";
    let server = serve("refusals-untold", trusted, limits);
    let client = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let mut held: Vec<TcpStream> = Vec::new();
    let come = |held: &mut Vec<TcpStream>| {
        let mut stream = server.connect();
        stream.write_all(client).expect("it listens");
        held.push(stream);
    };
    let untold = |page: &str| {
        let name = "tautline_connections_dropped_total{reason=\"untold\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.expect("it is counted")
            .parse::<u64>()
            .expect("a number")
    };
    // The proxy itself is no client.
    let ask = || {
        let request = "PROXY UNKNOWN\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        exchange(&server, request.as_bytes())
    };
    assert_eq!(untold(&ask()), 0);
    // None of them says goodbye, so each is being told for as long as it has time.
    let page = wait_until("more come than can be told", || {
        for _ in 0..1_100 {
            come(&mut held);
        }
        let page = ask();
        (untold(&page) > 0).then_some(page)
    });
    let name = "tautline_limits_refused_total{limit=\"connections\",mode=\"enforced\"} ";
    let refused = page.lines().find_map(|line| line.strip_prefix(name));
    let refused: u64 = refused.expect("it is counted").parse().expect("a number");
    let descriptors = page
        .lines()
        .find_map(|line| line.strip_prefix("process_max_fds "));
    let descriptors: u64 = descriptors.expect("Linux tells").parse().expect("a number");
    let room = 1_000.min(descriptors / 32);
    assert!(refused >= room + untold(&page), "{refused} {page}");
}

/// Sessions of the doors beside their limit, by kind; and a long-polled one whose client does not come back.
#[test]
fn sessions_of_the_doors_are_counted_by_kind() {
    let doors = "[doors]\nmax_sessions = 3\npoll_timeout = \"1s\"\n";
    let server = serve("refusals-sessions", "", doors);
    assert_eq!(number(&server, "http_max_sessions"), 3);
    let post = |path: &str, body: &str| {
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it listens");
        let mut answer = Vec::new();
        while !answer.windows(9).any(|part| part == b"\"connect\"") {
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes).expect("an answer");
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..count]);
        }
        (stream, String::from_utf8_lossy(&answer).into_owned())
    };
    let connect = r#"{"id":1,"connect":{}}"#;
    let stream = post("/connection/http_stream", connect);
    let _polled = post("/connection/poll", &format!("{{\"open\":1}}\n{connect}"));
    let sessions = |kind: &str| number(&server, &format!("http_num_sessions{{kind=\"{kind}\"}}"));
    assert_eq!(sessions("stream"), 1);
    assert_eq!(sessions("tunnel"), 0);
    // It may be over already.
    assert!(sessions("polled") <= 1);
    wait_until("the poll that does not come is missed", || {
        (dropped(&server, "poll") == 1).then_some(())
    });
    assert_eq!((sessions("polled"), sessions("stream")), (0, 1));
    // Who says that a session is over is not missed, and neither is one that was told so.
    let (_, answer) = post("/connection/poll", &format!("{{\"open\":1}}\n{connect}"));
    let session = answer
        .split("\"session\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let session = session.expect("its name");
    let body = json!({"session": session, "close": true}).to_string() + "\n";
    let head = format!(
        "POST /connection/poll HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&server, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    drop(stream);
    wait_until("both are gone", || {
        (sessions("stream") + sessions("polled") == 0).then_some(())
    });
    assert_eq!(dropped(&server, "poll"), 1);
}

/// Whoever makes tenants up has their key sets looked for, but not more at a time than there is room for.
#[test]
fn key_sets_that_are_waited_for_have_a_limit() {
    // It takes connections, and says nothing.
    let provider = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = provider.local_addr().expect("an address").port();
    let token = format!(
        "[client.token]\nissuer_regex = \"^https://id.example.com/(?P<tenant>[a-z0-9]+)$\"\n\
         jwks_public_endpoint = \"http://127.0.0.1:{port}/{{{{tenant}}}}/keys\"\n"
    );
    let server = serve("refusals-key-sets", "", &token);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let connect = |tenant: &str| {
        let claims = json!({"sub": "7", "iss": format!("https://id.example.com/{tenant}")});
        let head = json!({"alg": "EdDSA", "kid": "k", "typ": "JWT"});
        let token = format!(
            "{}.{}.{}",
            part(&head),
            part(&claims),
            URL_SAFE_NO_PAD.encode([0; 64])
        );
        let body = json!({"token": token}).to_string();
        let head = format!(
            "POST /connection/uni_http_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        exchange(&server, (head + &body).as_bytes())
    };
    let unavailable =
        "client_refused_tokens_total{token=\"connection\",reason=\"key_unavailable\"}";
    wait_until("more are asked for than there is room for", || {
        for number in 0..150 {
            connect(&format!("t{number}"));
        }
        (refused(&server, "awaited_key_sets") > 0).then_some(())
    });
    assert!(number(&server, unavailable) >= 150);
    assert!(number(&server, "token_num_key_sets") >= 100);
    assert_eq!(refused(&server, "key_sets"), 0);
    // Those who wait are given up, one by one.
    drop(provider);
    wait_until("the first have failed", || {
        (number(&server, "token_key_fetches_total{outcome=\"failed\"}") > 0).then_some(())
    });
    assert_eq!(
        number(&server, "token_key_fetches_total{outcome=\"fetched\"}"),
        0
    );
}
