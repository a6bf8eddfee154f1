//! The log of a server whose standard error takes nothing: nobody waits for it, and what is lost is counted and told.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};

use process::{Server, wait_until};
use serde_json::Value;

const CONFIG: &str = "[log]\nformat = \"json\"\nconnections = \"all\"\n[prometheus]\nenabled = true\n\
    [http_api]\nkey = \"dev\"\n[client.token]\nhmac_secret_key = \"a secret of at least thirty-two bytes\"\n";

/// Has the server log much more than a pipe and its queue hold.
fn flood(server: &Server) {
    let body = format!("{{\"user\":\"{}\"}}", "u".repeat(60_000));
    for _ in 0..40 {
        server.api("disconnect", &body);
    }
}

/// What was lost of a log.
fn lost(server: &Server, log: &str) -> u64 {
    let page = server.get("/metrics");
    let name = format!("tautline_log_dropped_lines_total{{log=\"{log}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    count.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

#[test]
fn a_server_goes_on_when_nobody_reads_its_log_and_tells_later_what_was_lost() {
    let mut server = Server::serve("log-unread", CONFIG);
    assert_eq!((lost(&server, "audit"), lost(&server, "other")), (0, 0));
    flood(&server);
    let audit = lost(&server, "audit");
    assert!((1..40).contains(&audit), "{audit}");
    // Somebody comes and goes, of which there can be no line now.
    let mut other = 0;
    wait_until("a line is lost", || {
        server.get("/connection/sse?cf_connect=%7B%22token%22%3A%22x%22%7D");
        other = lost(&server, "other");
        (other > 0).then_some(())
    });

    let lines = server.read_until("log lines were dropped");
    let audited = |line: &&String| line.contains("tautline::audit");
    assert_eq!(lines.iter().filter(audited).count() as u64, 40 - audit);
    let gap: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(
        (&gap["level"], &gap["target"]),
        (&"ERROR".into(), &"tautline::log".into())
    );
    assert_eq!(
        (&gap["audit"], &gap["other"]),
        (&audit.into(), &other.into())
    );

    // From now on all is there again, to the last line.
    server.api("disconnect", "{\"user\":\"behind\"}");
    server.signal("-TERM");
    let rest = server.read_rest();
    assert!(server.wait().success());
    assert!(rest.contains("\"user\":\"behind\""), "{rest}");
    let last = rest.lines().last().unwrap();
    assert!(last.contains("clients are told to come back"), "{rest}");
}

#[test]
fn the_audit_log_says_whom_a_refused_call_was_about() {
    // The digest is that of the key `dev`.
    let mut server = Server::serve(
        "log-refused",
        "[log]\nformat = \"json\"\n[[http_api.keys]]\nname = \"shop\"\nmethods = [\"publish\"]\n\
         sha256 = \"ef260e9aa3c673af240d17a2660480361a8e081d1ffeca2a5ed0e3219fc18567\"\n",
    );
    for (method, body, field, expected) in [
        ("disconnect", r#"{"user":"7"}"#, "user", "7"),
        (
            "unsubscribe",
            r#"{"client":"c","channel":"a"}"#,
            "client",
            "c",
        ),
        ("history", r#"{"channel":"a"}"#, "channel", "a"),
        ("revoke_token", r#"{"uid":"9f2c"}"#, "token", "9f2c"),
        ("invalidate_user_tokens", r#"{"user":"8"}"#, "user", "8"),
    ] {
        assert!(server.api(method, body).contains("\"code\":103"));
        let lines = server.read_until("refused an API call");
        let line: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        assert_eq!(line["method"], method, "{line}");
        assert_eq!(
            (&line["key"], &line[field]),
            (&"shop".into(), &expected.into())
        );
    }
}

/// What is answered to a request, head and body.
fn post(server: &Server, path: &str, field: &str, body: &str) -> String {
    let mut stream = server.connect();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{field}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_audit_log_says_who_was_refused_to_see_payloads() {
    let config = "[log]\nformat = \"json\"\n[http_api]\nkey = \"dev\"\n";
    let ask = |server: &Server| {
        let body = r#"{"user":"7","payloads":true}"#;
        let told = post(server, "/api/trace", "X-API-Key: dev", body);
        assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    };
    let mut server = Server::serve("log-payloads", config);
    ask(&server);
    let lines = server.read_until("refused an API call");
    let line: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(
        (&line["target"], &line["method"], &line["user"]),
        (&"tautline::audit".into(), &"trace".into(), &"7".into())
    );
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("http_api.trace_payloads"), "{line}");

    let config = format!("{config}audit_log = \"none\"\n");
    let mut quiet = Server::serve("log-payloads-none", &config);
    ask(&quiet);
    quiet.signal("-TERM");
    let rest = quiet.read_rest();
    assert!(!rest.contains("tautline::audit"), "{rest}");
}

#[test]
fn the_audit_log_says_who_comes_to_the_admin_page_and_who_goes() {
    let config =
        "[log]\nformat = \"json\"\n[admin]\nenabled = true\npassword = \"correct horse battery\"\n";
    let mut server = Server::serve("log-admin", config);
    let logout = |server: &Server, cookie: &str| {
        let field = format!("Cookie: {cookie}");
        let told = post(server, "/admin/logout", &field, "{}");
        assert!(
            told.starts_with("HTTP/1.1 200 ") || told.starts_with("HTTP/1.1 204 "),
            "{told}"
        );
    };
    let login = r#"{"password":"correct horse battery"}"#;
    let answer = post(&server, "/admin/login", "Accept: */*", login);
    let mut lines = answer.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.unwrap_or_else(|| panic!("{answer}"));
    let (cookie, _) = cookie.split_once(';').unwrap();
    let (name, _) = cookie.split_once('=').unwrap();
    // Of strangers, who never were there, there is no line.
    for stranger in [
        "other=x",
        name,
        &format!("{name}="),
        &format!("{name}=0123456789abcdef"),
    ] {
        logout(&server, stranger);
    }
    for _ in 0..2 {
        logout(&server, cookie);
    }
    server.signal("-TERM");
    let rest = server.read_rest();
    let lines = rest.lines().filter(|line| line.contains("tautline::audit"));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = lines.iter().map(|line| line["message"].as_str().unwrap());
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["login to the admin page", "logout from the admin page"]
    );
    assert!(
        lines.iter().all(|line| line["address"] == "127.0.0.1"),
        "{lines:?}"
    );
}

#[test]
fn a_server_ends_though_nobody_reads_its_log() {
    let mut server = Server::serve("log-unread-end", CONFIG);
    flood(&server);
    server.signal("-TERM");
    assert!(server.wait().success());
}

#[test]
fn what_is_logged_when_the_reader_is_gone_is_counted() {
    let mut server = Server::serve("log-gone", CONFIG);
    server.close_output();
    server.api("disconnect", "{\"user\":\"nobody\"}");
    wait_until("it is counted", || {
        (lost(&server, "audit") == 1).then_some(())
    });
}
