//! Who may follow whom, by `POST /api/trace`, and for how long.

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;

use process::Server;

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
