//! The commands that ask a running server, as processes beside one.

mod hostile;
mod manage;
#[path = "../support/process.rs"]
mod process;
mod watch;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use self::process::{Output as Lines, Server, Wait, wait_until};

fn tautline(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    command
        .args(arguments)
        .env("TAUTLINE_URL", format!("http://{}", server.address))
        .env_remove("TAUTLINE_API_KEY")
        .env_remove("TAUTLINE_TOKEN")
        .stdin(Stdio::null());
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    tautline(server, arguments)
        .output()
        .expect("the binary runs")
}

/// The one line of JSON that a command printed.
#[track_caller]
fn result(server: &Server, arguments: &[&str]) -> Value {
    let output = run(server, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What a command complained about, and its status.
fn complaint(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(server, arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    (
        output.status.code(),
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

/// A `tautline subscribe`, ended when dropped.
struct Watcher {
    process: std::process::Child,
    lines: Lines,
}

impl Watcher {
    /// Waits until it is subscribed.
    fn new(server: &Server, channel: &str, more: &[&str]) -> Self {
        let arguments = [&["subscribe", channel], more].concat();
        let mut watcher = Self::start(tautline(server, &arguments));
        watcher.event("subscribed");
        watcher
    }

    fn start(mut command: Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = Lines::of(process.stdout.take().expect("piped"));
        Self { process, lines }
    }

    /// What it tells next.
    fn next(&mut self) -> Value {
        let line = self.lines.line(&Wait::new("what it tells next"));
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next event of this kind.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next();
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// The next message.
    fn message(&mut self) -> Value {
        self.event("publication")
    }

    fn finish(mut self) -> (Option<i32>, String) {
        let status = wait_until("it ends", || {
            self.process.try_wait().expect("it can be waited for")
        });
        let mut text = String::new();
        let mut errors = self.process.stderr.take().expect("piped");
        std::io::Read::read_to_string(&mut errors, &mut text).expect("it can be read");
        (status.code(), text)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn messages_are_published_kept_and_read() {
    let server = Server::dev();
    let first = result(
        &server,
        &["publish", "lobby", r#"{"a":1}"#, "--tag", "lang=en"],
    );
    assert_eq!(first["offset"], 1);
    let epoch = first["epoch"].as_str().expect("an epoch");
    result(&server, &["publish", "lobby", "--text", "two words"]);
    let again = ["publish", "lobby", "3", "--idempotency-key", "k"];
    assert_eq!(result(&server, &again), result(&server, &again));
    assert_eq!(
        result(&server, &["publish", "lobby", "4", "--skip-history"]),
        json!({})
    );

    let history = result(&server, &["history", "lobby"]);
    let data = |history: &Value| -> Vec<Value> {
        let all = history["publications"].as_array().expect("a list");
        all.iter()
            .map(|publication| publication["data"].clone())
            .collect()
    };
    assert_eq!(
        data(&history),
        [json!({"a": 1}), json!("two words"), json!(3)]
    );
    assert_eq!(history["publications"][0]["tags"], json!({"lang": "en"}));
    let since = format!("1:{epoch}");
    let page = result(
        &server,
        &["history", "lobby", "--since", &since, "--limit", "1"],
    );
    assert_eq!(data(&page), [json!("two words")]);
    let page = result(&server, &["history", "lobby", "--reverse", "--limit", "1"]);
    assert_eq!(data(&page), [json!(3)]);
}

#[test]
fn messages_come_from_standard_input_too() {
    let server = Server::dev();
    let mut process = tautline(&server, &["publish", "lobby", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut input = process.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"{\"from\": \"a pipe\"}\n").expect("it reads");
    drop(input);
    assert!(process.wait().expect("it ends").success());
    let history = result(&server, &["history", "lobby"]);
    assert_eq!(
        history["publications"][0]["data"],
        json!({"from": "a pipe"})
    );
}

#[test]
fn a_channel_is_watched_and_its_watcher_seen() {
    let server = Server::dev();
    let mut watcher = Watcher::new(&server, "lobby", &["--count", "2"]);
    let presence = result(&server, &["presence", "lobby"]);
    assert_eq!(
        presence["presence"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    let channels = result(&server, &["channels", "lob*"]);
    assert_eq!(channels, json!({"channels": {"lobby": {"num_clients": 1}}}));
    assert_eq!(
        result(&server, &["channels", "x*"]),
        json!({"channels": {}})
    );
    assert_eq!(result(&server, &["info"])["nodes"][0]["num_clients"], 1);
    result(
        &server,
        &["publish", "lobby", "{\"n\":1.0}", "--tag", "a=b"],
    );
    result(&server, &["publish", "lobby", "2"]);
    let expected = json!({
        "event": "publication", "channel": "lobby", "offset": 1, "data": {"n": 1.0}, "tags": {"a": "b"},
    });
    assert_eq!(watcher.message(), expected);
    assert_eq!(watcher.message()["data"], 2);
    assert_eq!(watcher.finish(), (Some(0), String::new()));
}

#[test]
fn a_watcher_comes_back_and_has_missed_nothing() {
    let server = Server::dev();
    let mut watcher = Watcher::new(&server, "lobby", &["--count", "3"]);
    result(&server, &["publish", "lobby", "1"]);
    assert_eq!(watcher.message()["data"], 1);
    // 4000 reconnects; what is published meanwhile is recovered.
    result(
        &server,
        &[
            "disconnect",
            "--user",
            "",
            "--code",
            "4000",
            "--reason",
            "moving",
        ],
    );
    result(&server, &["publish", "lobby", "2"]);
    result(&server, &["publish", "lobby", "3"]);
    let gone = watcher.event("disconnected");
    assert_eq!(
        (&gone["code"], &gone["reason"]),
        (&json!(4000), &json!("moving"))
    );
    assert!(gone["retry_ms"].as_u64() > Some(0), "{gone}");
    assert!(watcher.event("connected")["client"].is_string());
    assert_eq!(watcher.message()["data"], 2);
    assert_eq!(watcher.message()["data"], 3);
    assert_eq!(watcher.finish(), (Some(0), String::new()));
}

/// The one client that is in a channel.
fn only_client(server: &Server, channel: &str) -> String {
    let presence = result(server, &["presence", channel]);
    let all = presence["presence"].as_object();
    let mut clients = all.expect("a list").keys();
    let client = clients.next().expect("one");
    assert_eq!(clients.next(), None);
    client.clone()
}

#[test]
fn the_end_of_a_watcher_is_told() {
    let server = Server::dev();
    let watcher = Watcher::new(&server, "lobby", &[]);
    let client = &only_client(&server, "lobby");
    assert_eq!(
        result(&server, &["disconnect", "--client", client]),
        json!({})
    );
    let (status, told) = watcher.finish();
    assert_eq!(status, Some(1));
    assert_eq!(
        told,
        "error: the server ended the connection: force disconnect (3503)\n"
    );

    let output = run(&server, &["subscribe", "nope:x"]);
    let told = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code();
    assert_eq!(status, Some(1));
    assert_eq!(
        told,
        "error: not subscribed to nope:x: unknown channel (error 102)\n"
    );
}

#[test]
fn tokens_are_revoked_from_the_command_line() {
    let server = Server::dev();
    let watcher = Watcher::new(&server, "lobby", &[]);
    let client = &only_client(&server, "lobby");
    let ended = |connections: u64| json!({"connections": connections, "subscriptions": 0, "persisted": false});
    let revoke = |what: &[&str]| result(&server, &[&["revoke"], what].concat());
    assert_eq!(
        revoke(&["--token", "9f2c", "--expire-at", "4000000000"]),
        ended(0)
    );
    assert_eq!(
        revoke(&["--user", "42", "--issued-before", "1900000000"]),
        ended(0)
    );
    assert_eq!(revoke(&["--user", "42", "--channel", "lobby"]), ended(0));
    assert_eq!(revoke(&["--client", client]), ended(1));
    drop(watcher);
}

#[test]
fn the_development_server_lets_pages_in_that_it_is_told_of() {
    use std::io::{Read as _, Write as _};

    let server = Server::dev_with(&["--allow-origin", "http://localhost:5173"]);
    let own = format!("http://{}", server.address);
    for (origin, status) in [
        (&*own, "200"),
        ("http://localhost:5173", "200"),
        ("http://localhost:5174", "403"),
    ] {
        let mut stream = server.connect();
        let address = server.address;
        write!(
            stream,
            "GET /history?channel=lobby HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.get(9..12), Some(status), "{origin}: {answer}");
        if status == "403" {
            assert!(answer.contains("tautline dev --allow-origin"), "{answer}");
        }
    }
}

#[test]
fn failures_are_told_in_words() {
    let server = Server::dev();
    for (arguments, status, expected) in [
        (
            &["publish", "nope:x", "1"][..],
            1,
            "unknown channel (error 102); the part of",
        ),
        (
            &["publish", "lobby", "hello"],
            2,
            "Use --text to publish plain text",
        ),
        (&["history", "typing:x"], 1, "keeps no history"),
        (&["presence", "typing:x"], 1, "has no presence"),
        // Which says all there is to say.
        (
            &["events", "list"],
            1,
            "is told no events (events.enabled) (error 108)\n",
        ),
        (&["channels", "["], 1, "bad request: the pattern has a `[`"),
        (&["info", "--key", "wrong"], 1, "knows no such API key"),
        (&["info", "--url", "localhost"], 2, "expected a URL such as"),
        (
            &["info", "--url", "http://example.org"],
            2,
            "set TAUTLINE_API_KEY",
        ),
        (
            &["disconnect", "--user", "7", "--code", "7"],
            1,
            "disconnect.code is 7",
        ),
        (&["disconnect"], 2, "--user"),
        (&["revoke"], 2, "--token"),
        // So the server gets it.
        (
            &["revoke", "--user", "a", "--channel", ""],
            1,
            "channel has 0 bytes",
        ),
        (
            &["revoke", "--token", "a", "--channel", "b"],
            2,
            "--channel",
        ),
        (
            &["revoke", "--token", "a", "--issued-before", "7"],
            2,
            "--user",
        ),
        (
            &["revoke", "--token", "a", "--expire-at", "7"],
            1,
            "is over already",
        ),
        (&["history", "lobby", "--since", "x"], 2, "OFFSET:EPOCH"),
        (&["subscribe"], 2, "CHANNEL"),
        // Nothing listens on the port of "discard".
        (
            &["info", "--url", "http://127.0.0.1:9"],
            1,
            "can't reach a server at http://127.0.0.1:9",
        ),
        (
            &["subscribe", "a", "--url", "http://127.0.0.1:9"],
            1,
            "`tautline dev` starts one",
        ),
    ] {
        let (code, told) = complaint(&server, arguments);
        assert_eq!(code, Some(status), "{arguments:?}: {told}");
        assert!(
            told.starts_with("error: ") && told.contains(expected),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn the_exit_status_tells_whether_a_server_is_up() {
    let mut server = Server::dev();
    assert_eq!(result(&server, &["health"]), json!({}));
    assert_eq!(result(&server, &["health", "--ready"]), json!({}));
    // Somebody who takes his time keeps it from ending.
    let _watching = server.connect();
    let mut silent = server.connect();
    std::io::Write::write_all(&mut silent, b"GET /").expect("it listens");
    server.signal("-TERM");
    let told = wait_until("it is on its way out", || {
        let output = run(&server, &["health", "--ready"]);
        (output.status.code() == Some(1)).then_some(output.stderr)
    });
    let told = String::from_utf8_lossy(&told);
    let is_it = told.contains("503 Service Unavailable") || told.contains("can't reach a server");
    assert!(is_it, "{told}");
    drop(silent);
    assert!(server.wait().success());
    let (status, told) = complaint(&server, &["health"]);
    assert_eq!(status, Some(1));
    assert!(told.contains("can't reach a server"), "{told}");
}

/// A `tautline trace`, ended when dropped. Its lines.
fn follow(server: &Server, arguments: &[&str]) -> Watcher {
    Watcher::start(tautline(server, &[&["trace"], arguments].concat()))
}

#[test]
fn who_is_followed_is_told_of() {
    let server = Server::dev();
    let mut channel = follow(&server, &["--channel", "lobby", "--payloads"]);
    // Nobody is told when a trace has begun on all workers, so it is done again until it is told of.
    let published = std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let server = &server;
        scope.spawn(move || {
            let quiet = std::sync::mpsc::RecvTimeoutError::Timeout;
            let mut watchers = Vec::new();
            while told.recv_timeout(std::time::Duration::from_millis(20)) == Err(quiet) {
                watchers.push(Watcher::new(server, "lobby", &[]));
                result(server, &["publish", "lobby", r#"{"secret":1}"#]);
            }
        });
        let published = loop {
            let event = channel.next();
            if event["event"] == "publications" {
                break event;
            }
            assert_eq!(event["channel"], "lobby", "{event}");
        };
        drop(tell);
        published
    });
    assert_eq!(published["publications"][0]["data"], json!({"secret": 1}));
    assert!(published["receivers"].as_u64() >= Some(1), "{published}");
    assert_eq!(published["user"], Value::Null);

    let (status, told) = complaint(&server, &["trace", "--user", "x", "--key", "wrong"]);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("no such API key"), "{told}");
}

#[test]
fn a_refusal_is_told_with_its_reason_and_without_the_token() {
    let server = Server::dev();
    let mut watcher = follow(&server, &["--refusals"]);
    let refused = std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let server = &server;
        scope.spawn(move || {
            let quiet = std::sync::mpsc::RecvTimeoutError::Timeout;
            while told.recv_timeout(std::time::Duration::from_millis(20)) == Err(quiet) {
                run(
                    server,
                    &["subscribe", "lobby", "--token", "not.a-real.token"],
                );
            }
        });
        let refused = watcher.next();
        drop(tell);
        refused
    });
    assert_eq!(refused["event"], "refused", "{refused}");
    assert_eq!(refused["told"], "disconnect 3500: invalid token");
    let why = refused["why"].as_str().unwrap_or_default();
    assert!(
        why.starts_with("invalid token: the token is not a JWT"),
        "{refused}"
    );
    assert!(!refused.to_string().contains("a-real"), "{refused}");
}

#[test]
fn as_many_are_followed_as_may_be_and_no_longer_than_somebody_listens() {
    use std::io::{Read as _, Write as _};
    let server = Server::dev();
    let begin = || {
        let mut stream = server.connect();
        let body = r#"{"user":"42"}"#;
        let (address, len) = (server.address, body.len());
        write!(
            stream,
            "POST /api/trace HTTP/1.1\r\nHost: {address}\r\nX-API-Key: dev\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .expect("the server takes a request");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("an answer");
        (stream, String::from_utf8_lossy(&status).into_owned())
    };
    let mut traces: Vec<_> = (0..16).map(|_| begin()).collect();
    assert!(traces.iter().all(|(_, status)| status == "HTTP/1.1 200"));
    assert_eq!(begin().1, "HTTP/1.1 503");
    traces.pop();
    wait_until("there is room again", || {
        (begin().1 == "HTTP/1.1 200").then_some(())
    });
    for (body, expected) in [
        (r#"{}"#, "400"),
        (r#"{"user":"a","channel":"b"}"#, "400"),
        (r#"{"user":"a","seconds":0}"#, "400"),
        (r#"{"user":"a","seconds":3601}"#, "400"),
    ] {
        let mut stream = server.connect();
        write!(
            stream,
            "POST /api/trace HTTP/1.1\r\nHost: {}\r\nX-API-Key: dev\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        )
        .expect("the server takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{body}: {answer}");
    }
}
