//! The commands that publish, and that change what connections have.

use std::io::{BufRead as _, BufReader, Write as _};

use serde_json::{Value, json};

use super::process::Server;
use super::{Watcher, complaint, result, run, tautline};

/// The id of a watcher that is coming.
fn id(watcher: &mut Watcher) -> String {
    let connected = watcher.event("connected");
    watcher.event("subscribed");
    connected["client"].as_str().expect("an id").to_owned()
}

fn watch(server: &Server, channel: &str) -> (Watcher, String) {
    let mut watcher = Watcher::start(tautline(server, &["subscribe", channel]));
    let id = id(&mut watcher);
    (watcher, id)
}

/// How many there are in a channel.
fn count(server: &Server, channel: &str) -> Value {
    result(server, &["presence", channel, "--stats"])["num_clients"].clone()
}

#[test]
fn publications_have_all_that_the_api_takes() {
    let server = Server::dev();
    let (mut watcher, id) = watch(&server, "lobby");
    let big = r#"{"n":123456789012345678901234567890,"e":1.0e0}"#;
    result(&server, &["publish", "lobby", big]);
    let history = run(&server, &["history", "lobby"]).stdout;
    let history = String::from_utf8_lossy(&history);
    assert!(history.contains(big), "every digit is kept: {history}");
    watcher.message();
    // The same again is no news, and older isn't either.
    let versioned = |version: &str, epoch: &str| {
        let arguments = [
            "publish",
            "lobby",
            "1",
            "--version",
            version,
            "--version-epoch",
            epoch,
            "--delta",
        ];
        result(&server, &arguments)["offset"].clone()
    };
    assert_eq!(versioned("7", "a"), 2);
    assert_eq!(versioned("7", "a"), 2);
    assert_eq!(versioned("6", "a"), 2);
    assert_eq!(versioned("6", "b"), 3);
    assert_eq!(watcher.message()["offset"], 2);
    assert_eq!(watcher.message()["offset"], 3);

    result(&server, &["publish", "lobby", "4", "--exclude-client", &id]);
    result(&server, &["publish", "lobby", "5", "--tags", "a=b"]);
    let message = watcher.message();
    assert_eq!(
        (&message["data"], &message["tags"]),
        (&json!(5), &json!({"a": "b"}))
    );

    result(&server, &["publish", "lobby", "--b64", "eyJhIjoxfQ=="]);
    assert_eq!(watcher.message()["data"], json!({"a": 1}));
    for (wrong, expected) in [
        (&["--b64", "!"][..], "is not base64"),
        (&["--b64", "--text", "x"], "cannot be used with"),
        (&["1", "--version-epoch", "a"], "--version"),
        (&["1", "--tag", "a"], "KEY=VALUE"),
    ] {
        let (status, told) = complaint(&server, &[&["publish", "lobby"], wrong].concat());
        assert_eq!(status, Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn what_is_published_into_several_channels_is_told_for_each() {
    let server = Server::dev();
    let done = result(&server, &["broadcast", "--text", "hi", "a", "b"]);
    assert_eq!(done["responses"].as_array().map(Vec::len), Some(2));
    for channel in ["a", "b"] {
        let history = result(&server, &["history", channel]);
        assert_eq!(history["publications"][0]["data"], "hi");
    }
    let output = run(&server, &["broadcast", "1", "a", "nope:x"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["responses"][0]["result"]["offset"], 2);
    assert_eq!(told["responses"][1]["error"]["code"], 102);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "error: not published into 1 of 2 channels\n");
}

#[test]
fn all_that_a_channel_keeps_is_read() {
    let server = Server::dev();
    for number in 1..=12 {
        result(&server, &["publish", "lobby", &number.to_string()]);
    }
    for (arguments, expected) in [
        (&[][..], 10),
        (&["--all"], 12),
        (&["--limit", "-1"], 12),
        (&["--limit", "0"], 0),
    ] {
        let history = result(&server, &[&["history", "lobby"], arguments].concat());
        let count = history["publications"].as_array().map(Vec::len);
        assert_eq!(count, Some(expected), "{arguments:?}");
        assert_eq!(history["offset"], 12);
    }
    let both = ["history", "lobby", "--all", "--limit", "3"];
    assert_eq!(complaint(&server, &both).0, Some(2));
    assert_eq!(
        complaint(&server, &["history", "lobby", "--limit", "-2"]).0,
        Some(2)
    );
}

#[test]
fn some_of_a_users_connections_stay() {
    let server = Server::dev();
    let (staying, spared) = watch(&server, "lobby");
    let (ending, _) = watch(&server, "lobby");
    let (also, spared_too) = watch(&server, "lobby");
    let spared = format!("{spared},{spared_too}");
    let arguments = ["disconnect", "--user", "", "--whitelist", &spared];
    assert_eq!(result(&server, &arguments), json!({}));
    let (status, told) = ending.finish();
    assert_eq!(status, Some(1), "{told}");
    assert_eq!(count(&server, "lobby"), 2);
    drop((staying, also));
}

/// Streams have a session, and WebSockets have none.
#[test]
fn a_session_is_ended_by_its_name() {
    let server = Server::dev();
    let (_watcher, _) = watch(&server, "lobby");
    let mut stream = server.connect();
    let connect = r#"{"id":1,"connect":{}}"#;
    write!(
        stream,
        "POST /connection/http_stream HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{connect}",
        server.address,
        connect.len()
    )
    .expect("the server takes a request");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next()?.ok();
    let reply = loop {
        let line = next().expect("an answer");
        if line.contains("\"session\"") {
            break serde_json::from_str::<Value>(&line).expect("JSON");
        }
    };
    let session = reply["connect"]["session"].as_str().expect("a session");
    result(
        &server,
        &["disconnect", "--session", session, "--code", "4001"],
    );
    let told = std::iter::from_fn(&mut next).find(|line| line.contains("4001"));
    assert!(told.is_some(), "it is told, and the stream ends");
    assert_eq!(count(&server, "lobby"), 1);
}

#[test]
fn the_life_of_connections_is_changed() {
    let server = Server::dev();
    let (mut watcher, id) = watch(&server, "lobby");
    let info = r#"{"name":"Ann"}"#;
    let arguments = ["refresh", "--client", &id, "--ttl", "0", "--info", info];
    assert_eq!(result(&server, &arguments), json!({}));
    let presence = result(&server, &["presence", "lobby"]);
    assert_eq!(
        presence["presence"][&id]["conn_info"],
        json!({"name": "Ann"})
    );
    result(&server, &["refresh", "--user", "", "--expired"]);
    assert_eq!(watcher.event("disconnected")["code"], 3005);
    watcher.event("subscribed");
    // Long over.
    result(&server, &["refresh", "--user", "", "--expire-at", "1"]);
    assert_eq!(watcher.event("disconnected")["code"], 3005);
    for (wrong, expected) in [
        (&["--user", "7"][..], "--ttl"),
        (&["--ttl", "1h"], "--user"),
        (
            &["--user", "7", "--ttl", "1h", "--expired"],
            "cannot be used with",
        ),
        (
            &["--user", "7", "--ttl", "1h", "--info", "{"],
            "expected JSON",
        ),
    ] {
        let (status, told) = complaint(&server, &[&["refresh"], wrong].concat());
        assert_eq!(status, Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn subscriptions_are_made_with_what_belongs_to_them() {
    let server = Server::dev();
    let first = result(&server, &["publish", "news", "1"]);
    result(&server, &["publish", "news", "2"]);
    let since = format!("1:{}", first["epoch"].as_str().expect("an epoch"));
    let (mut watcher, id) = watch(&server, "lobby");
    let arguments = [
        "subscribe-user",
        "news",
        "--client",
        &id,
        "--info",
        "{\"role\":\"guest\"}",
        "--recover-since",
        &since,
    ];
    assert_eq!(result(&server, &arguments), json!({}));
    assert_eq!(watcher.message()["data"], 2);
    let presence = result(&server, &["presence", "news"]);
    assert_eq!(
        presence["presence"][&id]["chan_info"],
        json!({"role": "guest"})
    );
    let (status, told) = complaint(&server, &["subscribe-user", "news"]);
    assert_eq!(status, Some(2), "{told}");
}

#[test]
fn the_workers_and_the_process_are_told() {
    let server = Server::dev();
    let (_watcher, _) = watch(&server, "lobby");
    let report = result(&server, &["info", "--debug"]);
    let subscriptions: u64 = { report["workers"].as_array().expect("workers") }
        .iter()
        .filter_map(|worker| worker["subscriptions"].as_u64())
        .sum();
    assert_eq!(subscriptions, 1, "{report}");
    assert!(report["memory"]["ceiling"].is_u64(), "{report}");
    let info = result(&server, &["info"]);
    let process = &info["nodes"][0]["process"];
    assert!(
        process["rss"].as_u64() > Some(0) || !cfg!(target_os = "linux"),
        "{info}"
    );
    assert!(
        process["cpu"].is_number() || !cfg!(target_os = "linux"),
        "{info}"
    );
}

const SCOPED: &str = r#"
[[http_api.keys]]
name = "watching"
sha256 = "baed831623943be39ebf0ef44ae1e9c8fc3eeab51b5f89c113ca410d76a34c1d"
methods = ["debug"]
"#;

#[test]
fn a_script_reads_the_debug_report_with_a_key_for_it() {
    let server = Server::serve("debug-key", SCOPED);
    let report = result(&server, &["info", "--debug", "--key", "watch"]);
    assert!(report["workers"].is_array(), "{report}");
    let (status, told) = complaint(&server, &["info", "--key", "watch"]);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("may not use the method info"), "{told}");
}
