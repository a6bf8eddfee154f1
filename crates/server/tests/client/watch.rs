//! `tautline subscribe`, the live view.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tautline_websocket::conn::{AcceptOptions, accept};
use tautline_websocket::proto::Message;

use super::process::{self, Server};
use super::{Watcher, complaint, result, tautline};

/// What a channel's `info` is, without the id of the connection.
fn users(event: &Value) -> Vec<&str> {
    let clients = event["clients"].as_object().expect("a map");
    clients
        .values()
        .filter_map(|who| who["user"].as_str())
        .collect()
}

#[test]
fn what_a_channel_keeps_is_shown_first_and_once() {
    let server = Server::dev();
    for number in ["1", "2", "3"] {
        result(&server, &["publish", "lobby", number]);
    }
    let arguments = ["subscribe", "lobby", "--history", "2", "--count", "3"];
    let mut watcher = Watcher::start(tautline(&server, &arguments));
    let connected = watcher.next();
    let url = format!("ws://{}/connection/websocket", server.address);
    assert_eq!(
        (&connected["event"], &connected["url"]),
        (&json!("connected"), &json!(url))
    );
    let subscribed = watcher.next();
    assert_eq!(subscribed["event"], "subscribed");
    assert_eq!(
        (&subscribed["channel"], &subscribed["offset"]),
        (&json!("lobby"), &json!(3))
    );
    assert_eq!(subscribed["recoverable"], true);
    assert!(
        subscribed["epoch"]
            .as_str()
            .is_some_and(|epoch| !epoch.is_empty())
    );
    for (offset, data) in [(2, 2), (3, 3)] {
        let old = watcher.message();
        let expected = json!({
            "event": "publication", "from": "history", "channel": "lobby", "offset": offset, "data": data,
        });
        assert_eq!(old, expected);
    }
    result(&server, &["publish", "lobby", "4"]);
    let live = watcher.message();
    assert_eq!((&live["data"], &live["from"]), (&json!(4), &Value::Null));
    assert_eq!(watcher.finish(), (Some(0), String::new()));
}

#[test]
fn it_begins_at_a_position_or_says_that_it_can_not() {
    let server = Server::dev();
    let first = result(&server, &["publish", "lobby", "1"]);
    let epoch = first["epoch"].as_str().expect("an epoch");
    result(&server, &["publish", "lobby", "2"]);
    result(&server, &["publish", "lobby", "3"]);
    // Written as elsewhere, too.
    for since in [format!("1:{epoch}"), format!("1,{epoch}")] {
        let arguments = ["subscribe", "lobby", "--since", &since, "--count", "2"];
        let mut watcher = Watcher::start(tautline(&server, &arguments));
        assert_eq!(watcher.event("subscribed")["recovered"], 2);
        let missed = watcher.message();
        assert_eq!(
            (&missed["data"], &missed["from"]),
            (&json!(2), &json!("recovery"))
        );
        assert_eq!(watcher.message()["data"], 3);
        assert_eq!(watcher.finish(), (Some(0), String::new()));
    }
    let since = ["--since", "1:anotherone", "--count", "1"];
    let mut watcher = Watcher::new(&server, "lobby", &since);
    let gap = json!({"event": "gap", "channel": "lobby", "after": 1});
    assert_eq!(watcher.next(), gap);
    result(&server, &["publish", "lobby", "4"]);
    assert_eq!(watcher.message()["data"], 4);

    let (status, told) = complaint(&server, &["subscribe", "a", "b", "--since", "1:e"]);
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("name one channel only"), "{told}");
    for wrong in [
        &["--history", "0"][..],
        &["--history", "2", "--since", "1:e"],
    ] {
        let arguments = [&["subscribe", "a"], wrong].concat();
        assert_eq!(complaint(&server, &arguments).0, Some(2), "{wrong:?}");
    }
}

const SEEN: &str = r#"
[client]
allow_anonymous_connect_without_token = true
[client.token]
hmac_secret_key = "0123456789abcdef0123456789abcdef"
[http_api]
key = "the key of the backend"
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
presence = true
join_leave = true
history_size = 10
history_ttl = "60s"
"#;

const SEEN_BY_ALL: &str = "
allow_presence_for_client = true
allow_presence_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
";

fn token(user: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["token", "--secret-env", "SECRET", "--user", user])
        .env("SECRET", "0123456789abcdef0123456789abcdef")
        .output()
        .expect("the binary runs");
    let token = String::from_utf8(output.stdout).expect("UTF-8");
    token.trim().to_owned()
}

#[test]
fn who_is_there_comes_and_goes_is_told() {
    let server = Server::serve("watch-seen", &format!("{SEEN}{SEEN_BY_ALL}"));
    let mut ann = Watcher::new(&server, "chat", &["--token", &token("ann")]);
    let there = ann.event("presence");
    assert_eq!(
        (&there["num_clients"], &there["num_users"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(users(&there), ["ann"]);
    let mut bob = Watcher::new(&server, "chat", &["--token", &token("bob")]);
    let joined = ann.event("join");
    assert_eq!(
        (&joined["channel"], &joined["info"]["user"]),
        (&json!("chat"), &json!("bob"))
    );
    let mut there = users(&bob.event("presence")).join(" ");
    if there == "bob ann" {
        there = "ann bob".to_owned();
    }
    assert_eq!(there, "ann bob");
    drop(bob);
    assert_eq!(ann.event("leave")["info"], joined["info"]);
}

#[test]
fn the_key_of_the_backend_shows_what_a_client_may_not_see() {
    let server = Server::serve("watch-key", SEEN);
    let keyed = |arguments: &[&str]| {
        let mut command = tautline(&server, arguments);
        command.env("TAUTLINE_API_KEY", "the key of the backend");
        command
    };
    let status = keyed(&["publish", "chat", "1"])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("it runs").success());
    let arguments = ["subscribe", "chat", "--history", "5", "--count", "2"];

    let mut alone = Watcher::start(tautline(&server, &arguments));
    assert_eq!(
        alone.event("refused"),
        json!({
            "event": "refused", "channel": "chat", "what": "history", "code": 103,
            "message": "permission denied",
        })
    );
    let mut with_key = Watcher::start(keyed(&arguments));
    assert_eq!(with_key.message()["from"], "history");
    assert_eq!(with_key.event("presence")["num_clients"], 2);

    let status = keyed(&["publish", "chat", "2"])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("it runs").success());
    assert_eq!(with_key.message()["data"], 2);
    assert_eq!(with_key.finish(), (Some(0), String::new()));
    // What came in while the history was asked for isn't lost with it.
    assert_eq!(alone.message()["data"], 2);
}

#[test]
fn what_the_server_subscribes_and_ends_is_told() {
    let server = Server::dev();
    let arguments = ["subscribe", "lobby"];
    let mut watcher = Watcher::start(tautline(&server, &arguments));
    let client = watcher.event("connected")["client"].clone();
    let client = client.as_str().expect("an id");
    watcher.event("subscribed");
    let at = |channel| ["subscribe-user", channel, "--client", client];
    assert_eq!(result(&server, &at("news")), json!({}));
    let subscribed = watcher.event("subscribed");
    assert_eq!(
        (&subscribed["channel"], &subscribed["by_server"]),
        (&json!("news"), &json!(true))
    );
    result(&server, &["publish", "news", "1"]);
    let message = watcher.message();
    assert_eq!(
        (&message["channel"], &message["data"]),
        (&json!("news"), &json!(1))
    );
    let end = [
        "unsubscribe",
        "news",
        "--client",
        client,
        "--code",
        "2042",
        "--reason",
        "enough",
    ];
    assert_eq!(result(&server, &end), json!({}));
    let ended =
        json!({"event": "unsubscribed", "channel": "news", "code": 2042, "reason": "enough"});
    assert_eq!(watcher.event("unsubscribed"), ended);
    // With 2500 to 2999 it subscribes again.
    let again = ["unsubscribe", "lobby", "--client", client, "--code", "2500"];
    result(&server, &again);
    assert_eq!(watcher.event("subscribed")["channel"], "lobby");
    result(&server, &["unsubscribe", "lobby", "--user", ""]);
    let (status, told) = watcher.finish();
    assert_eq!(status, Some(1));
    assert_eq!(
        told,
        "error: not subscribed to lobby: server unsubscribe (2000)\n"
    );
}

#[test]
fn the_data_alone_goes_into_a_pipe() {
    let server = Server::dev();
    result(&server, &["publish", "lobby", r#"{"a":1.0}"#]);
    result(&server, &["publish", "lobby", "--text", "two words"]);
    let arguments = [
        "subscribe",
        "lobby",
        "--data",
        "--since",
        "0:",
        "--count",
        "1",
    ];
    let output = tautline(&server, &arguments)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"a\":1.0}\n");
}

/// A server that says what it is told to, to one client after the other.
pub(super) fn scripted(scripts: &[&[&str]]) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let scripts: Vec<Vec<String>> = { scripts.iter() }
        .map(|script| script.iter().map(|&line| line.to_owned()).collect())
        .collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        for script in scripts {
            let (stream, _) = listener.accept().await.expect("a client");
            let accepted = accept(stream, &AcceptOptions::default()).await;
            let mut socket = accepted.expect("a WebSocket").websocket;
            for line in &script {
                if line == "?" {
                    // Waits for what the client says.
                    let said = socket.recv().await.expect("it goes on");
                    assert!(matches!(said, Some(Message::Text(_))), "{said:?}");
                } else {
                    socket.send(&**line).await.expect("it listens");
                }
            }
            while let Ok(Some(_)) = socket.recv().await {}
        }
    };
    let deadline = process::DEADLINE;
    let thread = std::thread::spawn(move || {
        runtime
            .block_on(async { tokio::time::timeout(deadline, serve).await })
            .expect("in time");
    });
    (address, thread)
}

#[test]
fn a_hole_among_what_comes_in_is_told() {
    let script = [
        "?",
        r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#,
        "?",
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":4}}"#,
        "?",
        r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#,
        "{}",
        "?",
        r#"{"push":{"channel":"chat","pub":{"data":5,"offset":5}}}"#,
        r#"{"push":{"channel":"chat","pub":{"data":"unkept"}}}"#,
        r#"{"push":{"channel":"chat","pub":{"data":8,"offset":8}}}"#,
    ];
    let (address, server) = scripted(&[&script]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tautline"));
    command
        .args([
            "subscribe",
            "chat",
            "--count",
            "3",
            "--url",
            &format!("http://{address}"),
        ])
        .env_remove("TAUTLINE_API_KEY")
        .env_remove("TAUTLINE_TOKEN");
    let mut watcher = Watcher::start(command);
    assert_eq!(watcher.message()["data"], 5);
    assert_eq!(watcher.message()["data"], "unkept");
    let gap = json!({"event": "gap", "channel": "chat", "after": 5, "before": 8});
    assert_eq!(watcher.next(), gap);
    assert_eq!(watcher.message()["data"], 8);
    assert_eq!(watcher.finish(), (Some(0), String::new()));
    server.join().expect("the server did what it was told to");
}

#[test]
fn what_comes_in_before_the_history_is_shown_behind_it() {
    let script = [
        "?",
        r#"{"id":1,"connect":{"client":"c"}}"#,
        "?",
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":4}}"#,
        "?",
        "?",
        r#"{"push":{"channel":"chat","pub":{"data":5,"offset":5}}}"#,
        r#"{"push":{"channel":"chat","pub":{"data":6,"offset":6}}}"#,
        r#"{"id":3,"history":{"publications":[{"data":5,"offset":5},{"data":4,"offset":4}],"epoch":"e","offset":5}}"#,
    ];
    let (address, server) = scripted(&[&script]);
    let arguments = ["subscribe", "chat", "--history", "2", "--count", "3"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tautline"));
    command
        .args(arguments)
        .env("TAUTLINE_URL", format!("http://{address}"))
        .env_remove("TAUTLINE_API_KEY")
        .env_remove("TAUTLINE_TOKEN");
    let mut watcher = Watcher::start(command);
    let mut shown = Vec::new();
    for _ in 0..3 {
        let message = watcher.message();
        shown.push((message["data"].as_u64(), message["from"].is_string()));
    }
    assert_eq!(shown, [(Some(4), true), (Some(5), true), (Some(6), false)]);
    assert_eq!(watcher.finish().0, Some(0));
    server.join().expect("the server did what it was told to");
}

/// A terminal is what `script` (util-linux) has it run in.
#[cfg(target_os = "linux")]
#[test]
fn a_person_at_a_terminal_sees_lines_with_colours() {
    let server = Server::dev();
    result(&server, &["publish", "lobby", "--text", "hello"]);
    let line = format!(
        "{} subscribe lobby --history 1 --count 1",
        env!("CARGO_BIN_EXE_tautline")
    );
    let shown = |term: &str| {
        let mut script = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TAUTLINE_URL", format!("http://{}", server.address))
            .env("TERM", term)
            .env_remove("NO_COLOR")
            .env_remove("TAUTLINE_API_KEY")
            .env_remove("TAUTLINE_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` is there (util-linux)");
        use std::io::Read as _;
        let mut text = String::new();
        let mut output = script.stdout.take().expect("piped");
        output.read_to_string(&mut text).expect("UTF-8");
        assert!(script.wait().expect("it ends").success(), "{text}");
        text
    };
    let plain = shown("dumb");
    let lines: Vec<&str> = plain.lines().collect();
    assert!(
        lines[0].contains("  connected to ws://127.0.0.1:"),
        "{plain}"
    );
    assert!(lines[1].contains("  lobby  subscribed at 1:"), "{plain}");
    assert!(plain.contains("  lobby  #1 \"hello\""), "{plain}");
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = shown("xterm");
    assert!(
        coloured.contains("\u{1b}[2m#1 \"hello\"\u{1b}[0m"),
        "{coloured}"
    );
}
