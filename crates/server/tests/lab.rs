//! `tautline lab`, as a process: what it tells is consistent.

#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::process::{Command, Stdio};

use serde_json::Value;

use self::process::Server;

/// A run of `tautline lab`, and what it printed.
fn lab(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .arg("lab")
        .args(arguments)
        .env_remove("TAUTLINE_API_KEY")
        .env_remove("TAUTLINE_TOKEN")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What must be so on the slowest of machines.
#[track_caller]
fn assert_consistent(report: &Value, clients: u64, published: u64, poll: f64) {
    let number = |value: &Value| {
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{value}: {report}"))
    };
    assert_eq!(report["published"], published);
    let ways = report["ways"].as_array().expect("ways");
    let names: Vec<_> = ways.iter().map(|way| &way["way"]).collect();
    let expected = ["polling", "long_polling", "streaming", "sse", "websocket"];
    assert_eq!(names, expected);
    for way in ways {
        let name = way["way"].as_str().expect("a name");
        assert_eq!(way["messages"], clients * published, "{name}: {report}");
        assert_eq!(way["missing"], 0);
        let (p50, p99) = (&way["latency_ms"]["p50"], &way["latency_ms"]["p99"]);
        assert!(p50.as_f64() > Some(0.0) && p50.as_f64() <= p99.as_f64());
        let (sent, received) = (&way["bytes"]["sent"], &way["bytes"]["received"]);
        let (sent, received) = (number(sent), number(received));
        let requests = number(&way["requests"]);
        // Each message has its hundred bytes, each request and each answer a head.
        let least = clients * published * 100 + requests * 100;
        assert!(received > least, "{name}: {report}");
        assert!(sent > requests * 50, "{name}: {report}");
        match name {
            // Where the head is, and then what is asked for until the last message has come.
            "polling" => {
                let most = 2.0 + (report["seconds"].as_f64().expect("seconds") + 30.0) / poll;
                assert!(requests >= 2 * clients, "{report}");
                assert!((requests as f64) <= clients as f64 * most, "{report}");
            }
            // Each message ends at most one.
            "long_polling" => {
                assert!(requests >= 2 * clients, "{report}");
                assert!(requests <= clients * (published + 2), "{report}");
            }
            _ => assert_eq!(requests, clients, "{name}: {report}"),
        }
    }
}

#[test]
fn the_lab_compares_five_ways() {
    let options = [
        "--seconds",
        "2",
        "--rate",
        "20",
        "--clients",
        "3",
        "--poll",
        "100ms",
    ];
    let report = lab(&options);
    assert_consistent(&report, 3, 40, 0.1);
    for way in report["ways"].as_array().expect("ways") {
        let cpu = &way["cpu_ms"];
        if cfg!(target_os = "linux") {
            assert!(cpu["client"].as_f64() > Some(0.0), "{report}");
            assert!(cpu["server"].as_f64() >= Some(0.0), "{report}");
        } else {
            assert!(cpu["server"].is_null(), "{report}");
        }
    }
}

#[test]
fn the_lab_measures_another_server() {
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    // What is there already isn't counted.
    server.api("publish", r#"{"channel":"of:mine","data":1}"#);
    server.api(
        "publish",
        r#"{"channel":"lab","data":{"run":1,"n":1,"t":1}}"#,
    );
    let options = [
        "--url",
        &url,
        "--seconds",
        "1",
        "--rate",
        "10",
        "--clients",
        "2",
    ];
    let report = lab(&[&options[..], &["--poll", "50ms"]].concat());
    assert_consistent(&report, 2, 10, 0.05);
    assert!(report["ways"][0]["cpu_ms"]["server"].is_null(), "{report}");
}

#[test]
fn the_lab_says_why_it_cant() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
        let output = command.arg("lab").args(arguments).output();
        let output = output.expect("the binary runs");
        (
            output.status.code(),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    };
    for (arguments, part) in [
        (&["--rate", "0"][..], "1..=500"),
        (&["--poll", "1ms"], "at least 10ms"),
        (&["--channel", "a"], "--url <URL>"),
        (&["--url", "ftp://a"], "http://127.0.0.1:8000"),
    ] {
        let (status, text) = run(arguments);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(part), "{text}");
    }
    let (status, text) = run(&["--url", "http://127.0.0.1:1"]);
    assert_eq!(status, Some(1), "{text}");
    let server = Server::dev();
    let url = format!("http://{}", server.address);
    let (status, text) = run(&["--url", &url, "--channel", "nowhere:a"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.starts_with("error: "), "{text}");
}
