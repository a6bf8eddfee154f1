//! `tautline doctor` beside real servers, and behind what spoils their connections.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use self::process::Server;

/// What the doctor found, by its subject, and the exit status.
fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
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
