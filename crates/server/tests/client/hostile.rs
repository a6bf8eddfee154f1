//! Commands beside servers that mean no good, or are no servers of Tautline.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use serde_json::json;

use super::Watcher;
use super::watch::scripted;

/// A server that has each of its clients answered by `answer`, once the head of its request is there.
fn answering(
    answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else {
                return;
            };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            // That the client hears no more is up to it.
            let _ = answer(&String::from_utf8_lossy(&head), &mut client);
            // What is closed with something unread is reset.
            let _ = client.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        }
    });
    address
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn command(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
    command
        .args(arguments)
        .env("TAUTLINE_URL", format!("http://{address}"))
        .env_remove("TAUTLINE_API_KEY")
        .env_remove("TAUTLINE_TOKEN")
        .stdin(Stdio::null());
    command
}

fn run(address: SocketAddr, arguments: &[&str]) -> Output {
    command(address, arguments)
        .output()
        .expect("the binary runs")
}

#[test]
fn no_answer_moves_the_cursor_of_a_terminal() {
    for body in [
        // The names of variants and fields are in some errors as they are.
        r#"{"result":{"responses":[{"\u001b]0;owned\u0007\u202e":{}}]}}"#,
        r#"{"error":{"code":7,"message":"\u001b[2J"}}"#,
        r#"{"result":"\u001b[2J"}"#,
    ] {
        let answer = whole("200 OK", body);
        let address = answering(move |_, client| client.write_all(answer.as_bytes()));
        let output = run(address, &["broadcast", "1", "a"]);
        assert_eq!(output.status.code(), Some(1), "{body}: {output:?}");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        let bad = |char: char| char != '\n' && (char.is_control() || char == '\u{202e}');
        assert!(!told.contains(bad), "{told:?}");
    }
}

#[test]
fn an_error_is_told_by_its_beginning() {
    let page = format!("<html>{}", "x".repeat(1 << 20));
    for (arguments, status) in [
        (&["info"][..], "500 Internal Server Error"),
        (&["health"], "502 Bad Gateway"),
    ] {
        let answer = whole(status, &page);
        let address = answering(move |_, client| client.write_all(answer.as_bytes()));
        let output = run(address, arguments);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(told.contains("<html>xxx"), "{told}");
        assert!(told.len() < 1000, "{} bytes", told.len());
    }
}

/// Whoever is sent elsewhere would take the key of the API along.
#[test]
fn nobody_is_followed_elsewhere_with_the_key() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let elsewhere = answering(move |_, client| {
        counted.fetch_add(1, Ordering::SeqCst);
        client.write_all(whole("200 OK", r#"{"result":{}}"#).as_bytes())
    });
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: http://{elsewhere}/api/info\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let address = answering(move |_, client| client.write_all(answer.as_bytes()));
        for arguments in [
            &["info", "--key", "secret"][..],
            &["trace", "--user", "7", "--key", "secret"],
            &["subscribe", "a"],
        ] {
            let output = run(address, arguments);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[test]
fn lines_of_a_trace_may_be_cut_anywhere() {
    let address = answering(|_, client| {
        client.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for part in ["{\"n\":1}\n{\"n\":", "2}", "\n", "\n{\"n\":3}\n{\"n\":4}\n"] {
            client.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes())?;
        }
        client.write_all(b"0\r\n\r\n")
    });
    let output = run(address, &["trace", "--user", "7"]);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(lines, "{\"n\":1}\n{\"n\":2}\n\n{\"n\":3}\n{\"n\":4}\n");
}

#[test]
fn a_line_of_a_trace_has_an_end() {
    let (tell, told) = mpsc::channel();
    let address = answering(move |_, client| {
        client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        let part = vec![b'x'; 64 * 1024];
        let mut written = 0;
        while written < 1 << 30 && client.write_all(&part).is_ok() {
            written += part.len();
        }
        let _ = tell.send(written);
        Ok(())
    });
    let output = run(address, &["trace", "--user", "7"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("a line without an end"), "{text}");
    let written = told.recv().expect("it tells");
    // With what the two systems had taken by then.
    assert!(written < 48 << 20, "{written}");
}

#[test]
fn more_than_a_mebibyte_of_history_is_one_message() {
    let data = "x".repeat(100_000);
    let page: Vec<_> = (1..=20)
        .rev()
        .map(|offset| json!({"data": data, "offset": offset}))
        .collect();
    let history =
        json!({"id": 3, "history": {"publications": page, "epoch": "e", "offset": 20}}).to_string();
    let script = [
        "?",
        r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#,
        "?",
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":20}}"#,
        "?",
        &history,
    ];
    let (address, server) = scripted(&[&script]);
    let arguments = ["subscribe", "chat", "--history", "20", "--count", "20"];
    let mut watcher = Watcher::start(command(address, &arguments));
    for subject in ["connected", "subscribed"] {
        assert_eq!(watcher.next()["event"], subject);
    }
    for offset in 1..=20 {
        let next = watcher.next();
        assert_eq!(
            (&next["offset"], &next["from"]),
            (&json!(offset), &json!("history"))
        );
    }
    assert_eq!(watcher.finish(), (Some(0), String::new()));
    server.join().expect("the server did what it was told to");
}

#[test]
fn a_history_that_never_comes_is_not_waited_for_with_all_that_is_published() {
    let data = "x".repeat(900_000);
    let published: Vec<_> = (1..=24)
        .map(|offset| {
            json!({"push": {"channel": "chat", "pub": {"data": data, "offset": offset}}})
                .to_string()
        })
        .collect();
    let mut script = vec![
        "?",
        r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#,
        "?",
        r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":0}}"#,
        "?",
    ];
    script.extend(published.iter().map(String::as_str));
    // When it comes after all, it is what was shown already.
    script.push(
        r#"{"id":3,"history":{"publications":[{"data":1,"offset":1}],"epoch":"e","offset":1}}"#,
    );
    script.push(r#"{"push":{"channel":"chat","pub":{"data":1,"offset":25}}}"#);
    let (address, server) = scripted(&[&script]);
    let arguments = ["subscribe", "chat", "--history", "20", "--count", "25"];
    let mut watcher = Watcher::start(command(address, &arguments));
    assert_eq!(watcher.event("refused")["what"], "history");
    for offset in 1..=25 {
        let message = watcher.message();
        assert_eq!(
            (&message["offset"], &message["from"]),
            (&json!(offset), &json!(null))
        );
    }
    assert_eq!(watcher.finish().0, Some(0));
    server.join().expect("the server did what it was told to");
}

#[test]
fn a_server_that_subscribes_to_everything_is_left() {
    let pushes: String = (0..10_500)
        .map(|number| format!("{{\"push\":{{\"channel\":\"c{number}\",\"subscribe\":{{}}}}}}\n"))
        .collect();
    let script = [
        "?",
        r#"{"id":1,"connect":{"client":"c","ping":25,"pong":true}}"#,
        "?",
        &pushes,
    ];
    let (address, _server) = scripted(&[&script]);
    let mut watcher = Watcher::start(command(address, &["subscribe", "chat"]));
    let gone = watcher.event("disconnected");
    assert_eq!(gone["reason"], "more is subscribed than can be asked about");
}
