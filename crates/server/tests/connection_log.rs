//! What is logged of single connections.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/process.rs"]
mod process;

use std::io::Write;
use std::net::TcpStream;

use process::{Server, Wait};
use serde_json::Value;
use tautline_auth::{Secret, Signer, TokenClaims};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Behind the table of the server that listens.
fn config(connections: &str) -> String {
    format!(
        "trusted_proxies = [\"127.0.0.1\"]\n[log]\nformat = \"json\"\nconnections = \"{connections}\"\n\
         [http_api]\nkey = \"dev\"\n[client]\nallow_anonymous_connect_without_token = true\n\
         [client.token]\nhmac_secret_key = \"{SECRET}\"\n"
    )
}

fn reload(server: &mut Server, connections: &str) {
    let listen = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n";
    server.write_config(&format!("{listen}{}", config(connections)));
    server.signal("-HUP");
    server.wait_for_output("the configuration was reloaded");
}

/// Opens a WebSocket from an address that a proxy tells of, and says something.
fn open(server: &Server, command: &str) -> TcpStream {
    let mut stream = server.connect();
    write!(
        stream,
        "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         X-Forwarded-For: 192.0.2.7\r\n\r\n"
    )
    .unwrap();
    let length = u16::try_from(command.len()).unwrap().to_be_bytes();
    let mut frame = match command.len() {
        short @ ..126 => vec![0x81, 0x80 | short as u8],
        _ => vec![0x81, 0xfe, length[0], length[1]],
    };
    // A mask of zeros.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(command.as_bytes());
    stream.write_all(&frame).unwrap();
    stream
}

fn read_until(stream: &mut TcpStream, mark: &str) {
    let (mut bytes, wait) = (Vec::new(), Wait::new(mark));
    while !String::from_utf8_lossy(&bytes).contains(mark) {
        assert!(wait.read(stream, &mut bytes), "it ended without {mark}");
    }
}

/// The next line about a connection.
fn line(server: &mut Server) -> Value {
    let line = server.read_until("tautline::connections").pop().unwrap();
    assert!(!line.contains("eyJ"), "a token is logged: {line}");
    serde_json::from_str(&line).unwrap()
}

fn token(user: &str) -> String {
    let signer = Signer::hs256(&Secret::from(SECRET)).unwrap();
    let claims = TokenClaims {
        user,
        ..TokenClaims::default()
    };
    signer.sign(&claims).unwrap()
}

#[test]
fn who_comes_and_who_goes_is_logged_with_the_same_id() {
    let mut server = Server::serve("connections", &config("all"));
    let connect = format!(
        "{{\"id\":1,\"connect\":{{\"token\":\"{}\"}}}}",
        token("ann\n")
    );
    let mut client = open(&server, &connect);
    let came = line(&mut server);
    assert_eq!(came["message"], "connected");
    assert_eq!(came["level"], "INFO");
    assert_eq!(came["user"], "ann\n");
    assert_eq!(came["address"], "192.0.2.7");
    assert_eq!(came["transport"], "websocket");
    assert!(!came["client"].as_str().unwrap().is_empty());
    read_until(&mut client, "connect");
    let body = format!(
        "{{\"client\":{},\"disconnect\":{{\"code\":4501,\"reason\":\"enough\"}}}}",
        came["client"]
    );
    server.api("disconnect", &body);
    let gone = line(&mut server);
    assert_eq!(gone["message"], "disconnected");
    for name in ["client", "user", "address", "transport"] {
        assert_eq!(gone[name], came[name], "{name}");
    }
    assert_eq!(
        (&gone["code"], &gone["reason"]),
        (&4501.into(), &"enough".into())
    );
    assert!(gone["seconds"].as_f64().unwrap() >= 0.0);

    // One that goes by itself.
    let mut client = open(&server, "{\"id\":1,\"connect\":{}}");
    let came = line(&mut server);
    assert_eq!(came["user"], "");
    read_until(&mut client, "connect");
    drop(client);
    let gone = line(&mut server);
    assert_eq!(
        (&gone["client"], &gone["code"]),
        (&came["client"], &3000.into())
    );

    // One that doesn't get in.
    let _stranger = open(
        &server,
        "{\"id\":1,\"connect\":{\"token\":\"eyJhbGciOiJIUzI1NiJ9.e30.x\"}}",
    );
    let refused = line(&mut server);
    assert_eq!(refused["message"], "did not come in");
    assert_eq!(refused["code"], 3500);
    assert_eq!(refused["client"], Value::Null);

    // One that comes by another door.
    let mut stream = server.connect();
    let body = "{\"id\":1,\"connect\":{}}";
    write!(
        stream,
        "POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let came = line(&mut server);
    assert_eq!(
        (&came["transport"], &came["address"]),
        (&"http_stream".into(), &"127.0.0.1".into())
    );
    drop(stream);
    assert_eq!(line(&mut server)["client"], came["client"]);
}

/// Messages of lines that have a session, up to the one with `mark`; and that session, which is that of all of them.
fn lines_of_one_session(server: &mut Server, mark: &str) -> (Vec<String>, String) {
    let lines = server.read_until(&format!("\"message\":\"{mark}\""));
    let lines = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["session"].is_string());
    let (mut messages, mut sessions) = (Vec::new(), Vec::new());
    for line in lines {
        messages.push(line["message"].as_str().unwrap().to_owned());
        sessions.push(line["session"].as_str().unwrap().to_owned());
    }
    sessions.dedup();
    assert_eq!(sessions.len(), 1, "{messages:?}: {sessions:?}");
    (messages, sessions.remove(0))
}

#[test]
fn all_lines_about_a_connection_are_found_by_its_session() {
    let debug = config("all").replace("[log]", "[log]\nlevel = \"debug\"");
    let mut server = Server::serve(
        "connections-session",
        &format!("{debug}[node]\nworkers = 1\n"),
    );
    let command = "{\"id\":1,\"connect\":{\"token\":\"eyJhbGciOiJIUzI1NiJ9.e30.x\"}}";
    let _stranger = open(&server, command);
    let (messages, stranger) = lines_of_one_session(&mut server, "did not come in");
    let expected = [
        "a session begins",
        "refusing a token",
        "disconnecting",
        "did not come in",
    ];
    assert_eq!(messages, expected);

    // The next has the place of the one that is gone, and another name.
    let _client = open(&server, "{\"id\":1,\"connect\":{}}\n{");
    let (messages, client) = lines_of_one_session(&mut server, "disconnected");
    let expected = [
        "a session begins",
        "a client has come in",
        "connected",
        "a command can't be read",
        "disconnecting",
        "disconnected",
    ];
    assert_eq!(messages, expected);
    assert_ne!(stranger, client);
}

#[test]
fn a_reload_switches_it_on_and_off() {
    let mut server = Server::serve("connections-reload", &config("off"));
    let mut silent = open(&server, "{\"id\":1,\"connect\":{}}");
    read_until(&mut silent, "connect");
    reload(&mut server, "all");
    let mut client = open(&server, "{\"id\":1,\"connect\":{}}");
    let came = line(&mut server);
    read_until(&mut client, "connect");
    reload(&mut server, "off");
    let mut other = open(&server, "{\"id\":1,\"connect\":{}}");
    read_until(&mut other, "connect");
    drop((silent, other, client));
    // The first line is the last of the one that was chosen.
    let gone = line(&mut server);
    assert_eq!(
        (&gone["message"], &gone["client"]),
        (&"disconnected".into(), &came["client"])
    );
}

/// Sends a request, and waits for the status of its answer.
fn refused(server: &Server, request: &str, status: &str) {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).unwrap();
    read_until(&mut stream, status);
}

#[test]
fn who_is_turned_away_before_there_is_a_session_is_logged_too() {
    let mut server = Server::serve("connections-refused", &config("all"));
    let upgrade = "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        X-Forwarded-For: 192.0.2.8\r\nOrigin: https://evil.example\r\n\r\n";
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let door = "GET /connection/sse?cf_connect=%7B%7D HTTP/1.1\r\nHost: localhost\r\n\
        X-Forwarded-For: 192.0.2.8\r\nOrigin: https://evil.example\r\n\r\n";
    for (request, status) in [
        (upgrade.to_owned(), 403),
        // Behind another request, where somebody else reads it.
        (format!("{health}{upgrade}"), 403),
        (door.to_owned(), 403),
        ("GET / HTTP/1.1\r\nno field\r\n\r\n".to_owned(), 400),
    ] {
        refused(&server, &request, &format!("HTTP/1.1 {status} "));
        let told = line(&mut server);
        assert_eq!(told["message"], "did not come in", "{told}");
        assert_eq!(
            (&told["stage"], &told["status"]),
            (&"request".into(), &status.into())
        );
        let address = if status == 403 {
            "192.0.2.8"
        } else {
            "127.0.0.1"
        };
        assert_eq!(told["address"], address, "{told}");
        assert!(!told["reason"].as_str().unwrap().is_empty());
        assert!(!told.to_string().contains("evil"), "{told}");
    }
}
