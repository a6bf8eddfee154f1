//! What each option does: the list of the tests that show it (`list`), and those for which there is no better place.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../node/client.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod client;
mod list;
#[path = "../support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tautline::config::Reference;
use tautline::{Config, Node};

use self::client::{Client, Frame, upgrade_request};
use self::list::{ALIKE, SHOWN};
use self::process::{Server, Wait, wait_until};

const ANYBODY: &str = "[client]\nallow_anonymous_connect_without_token = true\n";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

#[test]
fn every_option_has_a_test_that_shows_its_effect() {
    let reference = Reference::built_in();
    let mut known = BTreeSet::new();
    let mut tables = BTreeSet::new();
    for table in &reference.tables {
        tables.insert(table.name.clone());
        let own = table.options.iter();
        known.extend(own.map(|option| format!("{}.{}", table.name, option.name)));
    }
    let mut listed = BTreeSet::new();
    for option in SHOWN.iter().flat_map(|(_, options)| *options) {
        assert!(known.contains(*option), "{option} is no option");
        assert!(
            listed.insert((*option).to_owned()),
            "{option} is there twice"
        );
    }
    let of_alike = |table: &str| ALIKE.iter().any(|(name, _)| *name == table);
    for (table, _) in ALIKE {
        assert!(tables.contains(*table), "{table} is no table");
    }
    for option in &known {
        let (table, _) = option.rsplit_once('.').unwrap();
        assert!(
            listed.contains(option) || of_alike(table),
            "no test shows the effect of {option}"
        );
    }
    // Of tables that are like another, what is in them counts as that one's; that they are asked has to be shown.
    for table in reference.tables.iter().filter(|table| table.like.is_some()) {
        let is_inner = reference.tables.iter().any(|other| {
            let rest = table.name.strip_prefix(&other.name);
            other.like.is_some() && rest.is_some_and(|rest| rest.starts_with('.'))
        });
        let has_own = known
            .iter()
            .any(|option| option.starts_with(&format!("{}.", table.name)));
        let is_listed = of_alike(&table.name) || has_own;
        assert!(
            is_inner || is_listed,
            "no test shows that {} counts",
            table.name
        );
    }
}

#[test]
fn the_tests_that_show_effects_are_there() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tests = SHOWN.iter().map(|(test, _)| test);
    for test in tests.chain(ALIKE.iter().map(|(_, test)| test)) {
        let (file, name) = test.split_once("::").expect("a file and a test");
        let text = std::fs::read_to_string(crates.join(file)).expect(file);
        let signature = format!("fn {name}(");
        let at = text
            .find(&signature)
            .unwrap_or_else(|| panic!("{file} has no {name}"));
        let before = text[..at].lines().rev().map(str::trim);
        let mut before =
            before.take_while(|line| line.starts_with("#[") || line.is_empty() || *line == "async");
        assert!(
            before.any(|line| line.contains("test")),
            "{test} is no test"
        );
    }
}

/// A request and the whole of its answer.
fn exchange(server: &Server, head: &str, body: &str) -> String {
    let mut stream = server.connect();
    let length = body.len();
    // It may be refused before it is read.
    let _ = write!(
        stream,
        "{head}\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}",
        server.address
    );
    let (mut answer, wait) = (Vec::new(), Wait::new("the whole of an answer"));
    while wait.read(&mut stream, &mut answer) {}
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(server: &Server, head: &str, body: &str) -> String {
    let answer = exchange(server, head, body);
    answer.get(9..12).unwrap_or_default().to_owned()
}

/// The status of an answer that goes on.
fn begun(server: &Server, head: &str, body: &str) -> String {
    let mut stream = server.connect();
    let length = body.len();
    write!(
        stream,
        "{head}\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n{body}",
        server.address
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn it_listens_where_it_is_told_to() {
    let port = TcpListener::bind("127.0.0.2:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!("http_server.address = \"127.0.0.2\"\nhttp_server.port = {port}\n");
    let node = Node::builder(Config::from_toml(&config).unwrap())
        .start()
        .unwrap();
    assert_eq!(
        node.address().unwrap().to_string(),
        format!("127.0.0.2:{port}")
    );
    assert!(TcpStream::connect(("127.0.0.2", port)).is_ok());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn the_other_header_field_is_believed_where_it_is_chosen() {
    let config = "trusted_proxies = [\"127.0.0.1\"]\nforwarded_header = \"forwarded\"\n\
                  [http_api]\nkey = \"a key of the backend\"\n[limits.address]\nfailed_authentications = \"1/1h\"\n";
    let server = Server::serve("effects-forwarded", config);
    let guess = |fields: &str| {
        let head = format!("POST /api/info HTTP/1.1\r\nX-API-Key: wrong{fields}");
        status(&server, &head, "{}")
    };
    assert_eq!(guess("\r\nForwarded: for=203.0.113.5"), "401");
    assert_eq!(guess("\r\nForwarded: for=203.0.113.5"), "429");
    assert_eq!(guess("\r\nForwarded: for=203.0.113.6"), "401");
    // The field that isn't chosen says nothing.
    assert_eq!(
        guess("\r\nForwarded: for=203.0.113.5\r\nX-Forwarded-For: 203.0.113.7"),
        "429"
    );
}

#[test]
fn without_a_ceiling_there_is_memory_for_all() {
    let memory = "[limits]\nexempt_loopback = false\n[limits.memory]\nmax_bytes = 1\ncheck_interval = \"10ms\"\n";
    let mut server = Server::serve("effects-memory", memory);
    let is = |server: &Server, expected: &str| {
        wait_until("it was measured", || {
            (status(server, "GET /health HTTP/1.1", "") == expected).then_some(())
        });
    };
    is(&server, "503");
    server.reload(&format!("{memory}enabled = false\n"));
    is(&server, "200");
}

#[test]
#[cfg(target_os = "linux")]
fn there_are_as_many_threads_as_were_asked_for() {
    for workers in [1, 3] {
        let server = Server::serve("effects-workers", &format!("[node]\nworkers = {workers}\n"));
        let count = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.id()));
            // A thread that has ended meanwhile has no name.
            let names = tasks
                .unwrap()
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|name| name.starts_with("worker")).count()
        };
        // A thread gives itself its name.
        wait_until("so many have their names", || {
            (count() == workers).then_some(())
        });
    }
}

#[test]
fn limits_of_numbers_are_tried_out_where_the_options_say_so() {
    let limit = format!("{ANYBODY}connection_limit = 1\n");
    let mut server = Server::serve("effects-dry-run", &limit);
    let _first = Client::connected(&server);
    let second = |server: &Server| {
        let mut stream = server.connect();
        let request = upgrade_request("127.0.0.1", "");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(second(&server), "503");
    server.reload(&format!("{limit}[limits]\ndry_run = true\n"));
    assert_eq!(second(&server), "101");
}

#[test]
fn what_is_kept_has_the_limits_of_the_options() {
    let history = "[http_api]\nkey = \"dev\"\n[channel.without_namespace]\nhistory_size = 10\n\
                   history_ttl = \"60s\"\n";
    // How many of a thousand channels can't keep what is published.
    let refused = |name: &str, memory: &str| {
        let config = format!("{history}[engine.memory]\n{memory}");
        let server = Server::serve(&format!("effects-memory-{name}"), &config);
        let commands = (0..1000).map(
            |number| json!({"publish": {"channel": format!("c{number}"), "data": "some text"}}),
        );
        let commands: Vec<_> = commands.collect();
        let answer = server.api("batch", &json!({"commands": commands}).to_string());
        answer.matches("\"error\"").count()
    };
    assert_eq!(refused("default", ""), 0);
    // It is kept to within some hundred.
    assert!(refused("channels", "max_channels = 1\n") > 500);
    assert_eq!(refused("bytes", "max_bytes = 10\n"), 1000);
}

fn token(secret: &str, claims: &Value) -> String {
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

/// Connects with a token; the client, or the code with which that came to nothing.
fn connect(server: &Server, token: &str) -> Result<Client, u64> {
    let mut client = Client::open(server);
    client.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
    match client.frame() {
        Frame::Text(text) => {
            let reply: Value = serde_json::from_str(&text).unwrap();
            match reply["error"]["code"].as_u64() {
                None => Ok(client),
                Some(code) => Err(code),
            }
        }
        Frame::Close(code, _) => Err(code.into()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn signatures_need_not_be_right_where_that_is_said() {
    let keys = format!("[client.token]\nhmac_secret_key = \"{SECRET}\"\n");
    let mut server = Server::serve("effects-signatures", &keys);
    let forged = token(OTHER, &json!({"sub": "7"}));
    assert_eq!(connect(&server, &forged).err(), Some(3500));
    server.reload(&format!(
        "[client]\ninsecure_skip_token_signature_verify = true\n{keys}"
    ));
    assert!(connect(&server, &forged).is_ok());
}

#[test]
fn tokens_have_to_say_what_the_options_ask_for() {
    let keys = |more: &str| {
        format!("[http_api]\nkey = \"dev\"\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n{more}")
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let good = || json!({"sub": "1", "uid": "7", "aud": "live", "iss": "us", "expire_at": 0});
    let with = |key: &str, value: Value| {
        let mut claims = good();
        claims[key] = value;
        token(SECRET, &claims)
    };
    let mut server = Server::serve("effects-claims", &keys(""));
    for token in [
        with("aud", json!("x")),
        with("iss", json!("x")),
        token(SECRET, &good()),
    ] {
        assert!(connect(&server, &token).is_ok());
    }
    assert_eq!(
        connect(&server, &with("exp", json!(now - 60))).err(),
        Some(109)
    );
    server.reload(&keys(
        "audience = \"live\"\nissuer = \"us\"\nuser_id_claim = \"uid\"\nleeway = \"5m\"\n",
    ));
    assert_eq!(connect(&server, &with("aud", json!("x"))).err(), Some(3500));
    assert_eq!(connect(&server, &with("iss", json!("x"))).err(), Some(3500));
    assert_eq!(
        connect(&server, &with("exp", json!(now - 3600))).err(),
        Some(109)
    );
    let mut client = connect(&server, &with("exp", json!(now - 60))).expect("clocks may differ");
    server.api("disconnect", r#"{"user":"1"}"#);
    client.send(r#"{"id":2,"rpc":{"method":"none"}}"#);
    let answer = client.frame();
    assert!(
        matches!(&answer, Frame::Text(text) if text.contains("\"id\":2")),
        "it is the user whom the other claim names: {answer:?}"
    );
    server.api("disconnect", r#"{"user":"7"}"#);
    assert!(matches!(client.frame(), Frame::Close(..)));
    server.reload(&keys("audience_regex = \"^li\"\nissuer_regex = \"^u\"\n"));
    for (key, value, is_good) in [
        ("aud", "lively", true),
        ("aud", "alive", false),
        ("iss", "use", true),
        ("iss", "them", false),
    ] {
        assert_eq!(
            connect(&server, &with(key, json!(value))).is_ok(),
            is_good,
            "{key} {value}"
        );
    }
}

#[test]
fn subscription_tokens_go_by_a_table_of_their_own() {
    let keys = format!("{ANYBODY}[client.token]\nhmac_secret_key = \"{SECRET}\"\n");
    let own = format!(
        "[client.subscription_token]\nhmac_secret_key = \"{OTHER}\"\naudience = \"rooms\"\n"
    );
    let mut server = Server::serve("effects-subscriptions", &format!("{keys}{own}"));
    let subscribes = |server: &Server, secret: &str, audience: &str| {
        let mut client =
            connect(server, &token(SECRET, &json!({"sub": "7"}))).expect("it comes in");
        let claims = json!({"sub": "7", "channel": "$x", "aud": audience});
        let token = token(secret, &claims);
        client.send(&json!({"id": 2, "subscribe": {"channel": "$x", "token": token}}).to_string());
        match client.frame() {
            Frame::Text(text) => !text.contains("error"),
            _ => false,
        }
    };
    assert!(subscribes(&server, SECRET, "any") && !subscribes(&server, OTHER, "rooms"));
    server.reload(&format!("{keys}{own}enabled = true\n"));
    assert!(!subscribes(&server, SECRET, "rooms") && subscribes(&server, OTHER, "rooms"));
    assert!(!subscribes(&server, OTHER, "any"));
}

#[test]
fn calls_go_by_the_options() {
    let key = "[http_api]\nkey = \"dev\"\n";
    let mut server = Server::serve("effects-calls", key);
    let call = |server: &Server, fields: &str, body: &str| {
        status(server, &format!("POST /api/publish HTTP/1.1{fields}"), body)
    };
    let with_key = "\r\nX-API-Key: dev";
    let long = json!({"channel": "a", "data": "x".repeat(3000)}).to_string();
    let unknown = r#"{"channel":"nope:a","data":1}"#;
    assert_eq!(call(&server, "", unknown), "401");
    assert_eq!(call(&server, with_key, unknown), "200");
    assert_eq!(call(&server, with_key, &long), "200");
    server.reload(&format!(
        "{key}insecure = true\nerror_mode = \"transport\"\nmax_body_size = 2000\n"
    ));
    assert_eq!(call(&server, "", unknown), "404");
    assert_eq!(call(&server, "", &long), "413");
}

#[test]
fn what_calls_may_ask_for_is_what_the_options_say() {
    let server = Server::serve(
        "effects-api-limits",
        &format!(
            "{ANYBODY}[http_api]\nkey = \"dev\"\nmax_batch_commands = 2\nmax_broadcast_channels = 3\n\
             max_listed_channels = 4\n[channel.without_namespace]\nallow_subscribe_for_client = true\n\
             allow_subscribe_for_anonymous = true\n"
        ),
    );
    let is_refused = |method: &str, body: &Value, option: &str| {
        let answer = server.api(method, &body.to_string());
        let is_refused = answer.contains("limit exceeded");
        assert!(!is_refused || answer.contains(option), "{answer}");
        is_refused
    };
    for count in 1..=3 {
        let info = json!({"commands": vec![json!({"info": {}}); count]});
        let refused = is_refused("batch", &info, "http_api.max_batch_commands");
        assert_eq!(refused, count > 2, "{count} commands");
    }
    let mut clients = Vec::new();
    for count in 1..=5 {
        let channels: Vec<_> = (0..count).map(|number| format!("c{number}")).collect();
        let broadcast = json!({"channels": channels, "data": 1});
        let refused = is_refused("broadcast", &broadcast, "http_api.max_broadcast_channels");
        assert_eq!(refused, count > 3, "to {count} channels");
        clients.push(Client::subscribed(&server, &channels[count - 1]));
        let refused = is_refused("channels", &json!({}), "http_api.max_listed_channels");
        assert_eq!(refused, count > 4, "a list of {count} channels");
    }
}

#[test]
fn more_calls_than_the_options_allow_at_a_time_are_refused() {
    let server = Server::serve(
        "effects-api-calls",
        "[node]\nworkers = 1\n[http_api]\nkey = \"dev\"\nmax_concurrent_calls = 1\n",
    );
    let call = "POST /api/info HTTP/1.1\r\nX-API-Key: dev";
    // One whose body doesn't come.
    let mut first = server.connect();
    write!(first, "{call}\r\nHost: a\r\nContent-Length: 2\r\n\r\n").unwrap();
    wait_until("it is being read", || {
        (status(&server, call, "{}") == "503").then_some(())
    });
    first.write_all(b"{}").unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[9..], b"200");
    wait_until("there is room again", || {
        (status(&server, call, "{}") == "200").then_some(())
    });
}

#[test]
fn keys_are_good_for_what_the_options_say_and_have_their_names_in_the_log() {
    let digest = |key: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    };
    let mut server = Server::serve(
        "effects-api-keys",
        &format!(
            "[http_api]\naudit_log = \"all\"\nerror_mode = \"transport\"\n\
             [[http_api.keys]]\nname = \"till\"\nsha256 = \"{}\"\nmethods = [\"publish\"]\nchannels = [\"shop:*\"]\n\
             [[channel.namespaces]]\nname = \"shop\"\n",
            digest("a key of the shop")
        ),
    );
    let call = |method: &str, body: &str| {
        let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: a key of the shop");
        status(&server, &head, body)
    };
    assert_eq!(call("publish", r#"{"channel":"shop:1","data":1}"#), "200");
    assert_eq!(call("publish", r#"{"channel":"news","data":1}"#), "403");
    let others = r#"{"channels":["shop:1"],"data":1}"#;
    assert_eq!(call("broadcast", others), "403");
    assert_eq!(call("info", "{}"), "403");
    let said = server.read_until("tautline::audit");
    assert!(said[said.len() - 1].contains("till"), "{said:?}");
}

#[test]
fn doors_are_shut_one_by_one() {
    let mut server = Server::serve("effects-doors", ANYBODY);
    let doors = [
        ("http_stream", "POST /connection/http_stream HTTP/1.1"),
        ("sse", "GET /connection/sse?cf_connect=%7B%7D HTTP/1.1"),
        ("poll", "POST /connection/poll HTTP/1.1"),
        ("unidirectional", "GET /connection/uni_sse HTTP/1.1"),
        (
            "unidirectional",
            "POST /connection/uni_http_stream HTTP/1.1",
        ),
        ("unidirectional", "GET /connection/uni_websocket HTTP/1.1"),
        ("plain", "GET /ws?channel=a HTTP/1.1"),
        ("plain", "GET /lines?channel=a HTTP/1.1"),
    ];
    let open = |server: &Server| doors.map(|(_, head)| begun(server, head, "{}") != "404");
    assert_eq!(open(&server), [true; 8]);
    for option in ["http_stream", "sse", "poll", "unidirectional", "plain"] {
        server.reload(&format!("{ANYBODY}[doors]\n{option} = false\n"));
        let expected = doors.map(|(other, _)| other != option);
        assert_eq!(open(&server), expected, "{option}");
    }
}

#[test]
fn requests_are_as_long_as_they_may_be() {
    let mut server = Server::serve("effects-requests", ANYBODY);
    let long = json!({"data": "x".repeat(3000)}).to_string();
    let door = "POST /connection/uni_http_stream HTTP/1.1\r\nContent-Type: application/json";
    assert_eq!(begun(&server, door, &long), "200");
    server.reload(&format!("{ANYBODY}[doors]\nrequest_size_limit = 2000\n"));
    assert_eq!(status(&server, door, &long), "413");
}

#[test]
fn traces_are_of_the_service_that_was_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&request).contains("resourceSpans")
            || !request.ends_with(b"}")
        {
            let count = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..count]);
        }
        tell.send(String::from_utf8_lossy(&request).into_owned())
            .unwrap();
    });
    let server = Server::serve(
        "effects-service",
        &format!(
            "[http_api]\nkey = \"dev\"\n[telemetry.otlp]\nenabled = true\nsampling_percent = 100\n\
             service_name = \"chat of ours\"\nendpoint = \"http://{collector}/v1/traces\"\n"
        ),
    );
    server.api("info", "{}");
    let request = told.recv().expect("spans");
    assert!(request.contains("chat of ours"), "{request}");
}

#[test]
fn all_goes_on_for_a_while_when_nobody_new_is_wanted() {
    let open = "[channel.without_namespace]\nallow_subscribe_for_client = true\n\
                allow_subscribe_for_anonymous = true\n";
    let mut server = Server::serve(
        "effects-readiness",
        &format!(
            "{ANYBODY}{open}[http_api]\nkey = \"dev\"\n[shutdown]\ntimeout = \"1h\"\nreadiness_delay = \"10m\"\n"
        ),
    );
    let mut before = Client::subscribed(&server, "a");
    server.signal("-TERM");
    wait_until("load balancers are told", || {
        (status(&server, "GET /ready HTTP/1.1", "") == "503").then_some(())
    });
    assert_eq!(status(&server, "GET /health HTTP/1.1", ""), "200");
    let mut late = Client::subscribed(&server, "a");
    server.api("publish", r#"{"channel":"a","data":1}"#);
    for client in [&mut before, &mut late] {
        assert!(client.text().contains(r#""pub":{"data":1}"#));
    }
    // Who won't wait says so.
    server.signal("-TERM");
    server.wait();
}

/// Two servers that end, one after the other: all clients of the second have gone at once, and nearly all of the first are there.
#[test]
fn clients_are_told_to_go_as_fast_as_the_options_say() {
    let ending = |name: &str, rate: u32| {
        let server = Server::serve(
            name,
            &format!(
                "{ANYBODY}[http_api]\nkey = \"dev\"\n[shutdown]\ntimeout = \"1h\"\nreconnect_rate = {rate}\n"
            ),
        );
        let clients: Vec<_> = (0..100).map(|_| Client::connected(&server)).collect();
        server.signal("-TERM");
        (server, clients)
    };
    let (slow, _served) = ending("effects-slow", 1);
    let (_quick, told) = ending("effects-quick", 0);
    for mut client in told {
        assert!(matches!(client.frame(), Frame::Close(3001, _)));
    }
    let info: Value = serde_json::from_str(&slow.api("info", "{}")).unwrap();
    let left = info["result"]["nodes"][0]["num_clients"].as_u64();
    assert!(left > Some(50), "{info}");
}
