//! Who may follow whom, by `POST /api/trace`, for how long, and what is told.

#[path = "../node/client.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod client;
#[path = "../doors/http.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod http;
mod life;
#[path = "../support/process.rs"]
mod process;
#[cfg(target_os = "linux")]
mod terminal;
mod ways;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use client::Client;
use process::{Server, wait_until};
use serde_json::{Value, json};

fn sha256(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn serve(name: &str, more: &str) -> Server {
    let mut keys = String::new();
    for (name, scope) in [
        ("channels", "channels = [\"chat:*\"]"),
        ("both", "channels = [\"chat:*\"]\nmethods = [\"trace\"]"),
        ("publish", "methods = [\"publish\"]"),
        ("trace", "methods = [\"trace\"]"),
    ] {
        let digest = sha256(name);
        keys.push_str(&format!(
            "[[http_api.keys]]\nname = \"{name}\"\nsha256 = \"{digest}\"\n{scope}\n"
        ));
    }
    Server::serve(name, &format!("[http_api]\nkey = \"dev\"\n{more}{keys}"))
}

/// The status of a call; one that is let in ends by itself.
fn ask(server: &Server, key: &str, body: &str) -> (u16, String) {
    let mut stream = server.connect();
    write!(
        stream,
        "POST /api/trace HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it listens");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("it answers");
    let status = String::from_utf8_lossy(&head[9..12]).parse();
    let status = status.expect("a status");
    let mut rest = String::new();
    if status != 200 {
        stream.read_to_string(&mut rest).expect("it answers");
    }
    (status, rest)
}

#[test]
fn keys_follow_what_they_are_for_and_nothing_else() {
    let server = serve("trace-keys", "");
    let (user, refusals) = (r#"{"user":"7"}"#, r#"{"refusals":true}"#);
    let (client, chat, news) = (
        r#"{"client":"x"}"#,
        r#"{"channel":"chat:1"}"#,
        r#"{"channel":"news"}"#,
    );
    for (key, allowed) in [
        ("dev", &[user, client, refusals, chat, news][..]),
        ("trace", &[user, client, refusals, chat, news]),
        ("channels", &[chat]),
        ("both", &[chat]),
        ("publish", &[]),
    ] {
        for body in [user, client, refusals, chat, news] {
            let expected = if allowed.contains(&body) { 200 } else { 403 };
            assert_eq!(ask(&server, key, body).0, expected, "{key} {body}");
        }
    }
    assert_eq!(ask(&server, "wrong", user).0, 401);
}

#[test]
fn payloads_are_for_servers_that_allow_it() {
    let body = r#"{"channel":"chat:1","payloads":true}"#;
    let (status, told) = ask(&serve("trace-no-payloads", ""), "dev", body);
    assert!(
        status == 403 && told.contains("http_api.trace_payloads"),
        "{status} {told}"
    );
    let server = serve("trace-payloads", "trace_payloads = true\n");
    assert_eq!(ask(&server, "dev", body).0, 200);
}

#[test]
fn a_trace_is_of_one_thing_and_has_an_end() {
    let server = serve("trace-end", "");
    for body in [
        "{}",
        r#"{"user":"7","channel":"a"}"#,
        r#"{"user":"7","seconds":0}"#,
        r#"{"user":"7","seconds":3601}"#,
        r#"{"user":7}"#,
        "",
    ] {
        assert_eq!(ask(&server, "dev", body).0, 400, "{body}");
    }
    let mut stream = server.connect();
    let body = r#"{"user":"7","seconds":1}"#;
    write!(
        stream,
        "POST /api/trace HTTP/1.1\r\nHost: localhost\r\nX-API-Key: dev\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it listens");
    // Ends by itself, and is whole.
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it ends");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// Begins to follow somebody, and reads until that is let in.
fn follow(server: &Server, body: &str) -> TcpStream {
    let mut stream = server.connect();
    write!(
        stream,
        "POST /api/trace HTTP/1.1\r\nHost: localhost\r\nX-API-Key: dev\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it listens");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("it answers");
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

/// It ends as one whose time is over, and isn't cut off when the server has waited for it in vain.
#[test]
fn a_trace_ends_with_the_server() {
    let mut server = serve("trace-stop", "");
    let mut traces = ["user", "client", "channel"].map(|what| {
        follow(
            &server,
            &format!("{{\"{what}\":\"chat:1\",\"seconds\":3600}}"),
        )
    });
    server.signal("-TERM");
    for trace in &mut traces {
        let mut rest = String::new();
        trace.read_to_string(&mut rest).expect("it ends");
        assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    }
    assert!(server.process.wait().expect("it ends").success());
}

/// The events that a trace tells, one after the other.
struct Told {
    stream: BufReader<TcpStream>,
    /// All that it has told so far.
    raw: String,
}

impl Told {
    fn of(server: &Server, body: &str) -> Self {
        Self {
            stream: BufReader::new(follow(server, body)),
            raw: String::new(),
        }
    }

    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let count = self.stream.read_line(&mut line).expect("it can be read");
            assert!(count > 0, "it ended before that was told");
            self.raw.push_str(&line);
            // The lengths of chunks are between.
            if let Ok(event @ Value::Object(_)) = serde_json::from_str(line.trim()) {
                return event;
            }
        }
    }

    /// The next one that `is_it` takes.
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut all = self.all_until(is_it);
        all.pop().expect("there is one")
    }

    /// All up to the next one that `is_it` takes, and that.
    fn all_until(&mut self, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
        let wait = process::Wait::new("an event that is to be told");
        let mut all = Vec::new();
        loop {
            wait.go_on();
            all.push(self.next());
            if is_it(&all[all.len() - 1]) {
                return all;
            }
        }
    }
}

const CHAT: &str = "[client]\nallow_anonymous_connect_without_token = true\n\
                    [channel.without_namespace]\nallow_subscribe_for_anonymous = true\n\
                    allow_subscribe_for_client = true\nallow_publish_for_subscriber = true\n\
                    allow_publish_for_anonymous = true\nallow_publish_for_client = true\n\
                    history_size = 100\nhistory_ttl = \"1m\"\nforce_recovery = true\n";

/// Frames both ways, a refusal, and coming back, as they come through `POST /api/trace`.
#[test]
fn what_a_client_does_comes_through() {
    let server = serve("trace-frames", CHAT);
    let mut told = Told::of(&server, r#"{"channel":"room","seconds":60}"#);
    let mut client = Client::connected(&server);
    let mut ask = |command: Value| -> Value {
        client.send(&command.to_string());
        serde_json::from_str(&client.text()).expect("JSON")
    };
    let reply = ask(json!({"id": 2, "subscribe": {"channel": "room"}}));
    let epoch = reply["subscribe"]["epoch"].clone();
    let is = |event: &'static str, id: u64| {
        move |told: &Value| told["event"] == event && told["id"] == id
    };
    let command = told.until(is("command", 2));
    assert_eq!(
        (&command["method"], &command["channel"]),
        (&json!("subscribe"), &json!("room"))
    );
    assert!(
        command["client"].is_string() && command["time"].is_u64(),
        "{command}"
    );
    let reply = told.until(is("reply", 2));
    assert_eq!(reply["recoverable"], true, "{reply}");
    // Twice is once too often.
    ask(json!({"id": 3, "subscribe": {"channel": "room"}}));
    let refused = told.until(is("refused", 3));
    assert_eq!(refused["told"], "error 105: already subscribed");
    assert_eq!(refused["why"], "it is subscribed to that channel already");
    server.api("publish", r#"{"channel":"room","data":{"n":1}}"#);
    let published = told.until(|event| event["event"] == "publications");
    assert_eq!(
        (
            &published["receivers"],
            &published["publications"][0]["offset"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(published["publications"][0]["data"], json!({"bytes": 7}));
    drop(client);
    // Another comes with that one's place.
    let mut again = Client::connected(&server);
    let from = json!({"channel": "room", "recover": true, "offset": 0, "epoch": epoch});
    again.send(&json!({"id": 9, "subscribe": from}).to_string());
    assert_eq!(told.until(is("command", 9))["recover"], true);
    let resumed = told.until(is("reply", 9));
    assert_eq!(
        (&resumed["recovered"], &resumed["publications"]),
        (&json!(true), &json!(1))
    );
}

/// Who doesn't read is told how much that was, and holds nobody up.
#[test]
fn a_reader_that_is_too_slow_is_told_what_was_left_out() {
    let server = serve("trace-slow", CHAT);
    let mut told = Told::of(&server, r#"{"user":"","seconds":600}"#);
    let mut client = Client::connected(&server);
    // More than the sockets and what may wait have room for.
    let method = "x".repeat(60_000);
    for id in 2..402 {
        client.send(&json!({"id": id, "rpc": {"method": method}}).to_string());
        client.text();
    }
    // It is told with the next line for which there is room.
    let is_over = AtomicBool::new(false);
    let event = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                Client::connected(&server);
            }
        });
        let event = told.until(|event| event["left_out"].is_u64());
        is_over.store(true, Ordering::Relaxed);
        event
    });
    assert!(event["left_out"].as_u64() > Some(0), "{event}");
}

/// Those whom the node doesn't let in at all, and what is only tried out.
#[test]
fn refusals_before_there_is_a_session_are_told() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nrequests = \"1/h\"\n";
    for (name, more, expected) in [
        ("trace-address", "", "turned_away"),
        ("trace-address-dry", "dry_run = true\n", "over_limit"),
    ] {
        let server = serve(name, &format!("{limits}{more}"));
        let mut told = Told::of(&server, r#"{"refusals":true,"seconds":60}"#);
        server.get("/history?channel=x");
        server.get("/history?channel=x");
        let event = told.until(|event| event["event"] == expected);
        assert_eq!(event["why"], "limits.address.requests");
        assert_eq!(event["address"], "127.0.0.1");
    }
}

/// There are so many at a time, and who is one too many is told and counted.
#[test]
fn traces_are_bounded() {
    let server = serve("trace-many", "[prometheus]\nenabled = true\n");
    let body = r#"{"user":"7","seconds":3600}"#;
    let mut held: Vec<_> = (0..16).map(|_| follow(&server, body)).collect();
    let (status, told) = ask(&server, "dev", body);
    assert_eq!(status, 503, "{told}");
    assert!(told.contains("16 traces"), "{told}");
    let page = server.get("/metrics");
    for line in [
        "tautline_limits_refused_total{limit=\"traces\",mode=\"enforced\"} 1\n",
        "tautline_node_num_traces 16\n",
        "tautline_trace_dropped_events_total 0\n",
    ] {
        assert!(page.contains(line), "{line} {page}");
    }
    // Whoever leaves makes room.
    held.pop();
    wait_until("there is room", || {
        (ask(&server, "dev", body).0 == 200).then_some(())
    });
}
