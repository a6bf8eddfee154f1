//! The way to a server: what a doctor says of each thing that stands in it, and which line to change.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::front::{answering, head, in_front, pass, pass_changed};
use crate::process::Server;
use crate::{doctor, finding, told, url};

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
        "client addresses",
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
    let (text, remedy) = told(&findings, "WebSocket", "fail");
    assert!(
        text.contains("it was asked for the host localhost: the Host header was changed"),
        "{text}"
    );
    assert!(
        remedy.contains("proxy_set_header Host $http_host"),
        "{remedy}"
    );
    assert_eq!(status, Some(1));
}

/// Such as where the application's pages are on another site than the server: nothing is wrong with the way.
#[test]
fn a_server_whose_own_pages_may_not_connect_is_told_from_a_changed_host() {
    let server = Server::serve(
        "doctor-listed",
        "[client]\nallowed_origins = [\"https://app.example.org\"]\nallow_anonymous_connect_without_token = true\n",
    );
    let own = url(server.address);
    let (status, findings) = doctor(&["--url", &own, "--idle", "1"]);
    let (text, remedy) = told(&findings, "WebSocket", "ok");
    assert!(
        text.contains(&format!(
            "pages of {own} may not connect, as client.allowed_origins has others only"
        )),
        "{text}"
    );
    assert_eq!(remedy, "");
    // All the rest is looked at as well.
    told(&findings, "idle line", "ok");
    told(&findings, "other sites", "ok");
    assert_eq!(status, Some(0), "{findings:?}");
    // Where programs don't come through either, that is what is told.
    const ANSWER: &str = "The page's origin is not allowed to connect.\n\
                          expected: one of client.allowed_origins: https://a.b\n";
    let front = in_front(server.address, |mut client, mut server| {
        let head = head(&mut client);
        if head.starts_with("GET /connection/websocket") {
            let length = ANSWER.len();
            let _ = write!(
                client,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\n{ANSWER}"
            );
            return;
        }
        server.write_all(head.as_bytes()).unwrap();
        pass(client, server);
    });
    let (_, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "WebSocket", "fail");
    assert!(text.contains("are not in client.allowed_origins"), "{text}");
    assert!(remedy.contains(&url(front)), "{remedy}");
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
fn each_status_in_the_place_of_101_has_its_own_line_to_change() {
    for (status, text, remedy) in [
        (
            200,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            400,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            426,
            "the Upgrade header doesn't arrive",
            "proxy_set_header Upgrade $http_upgrade",
        ),
        (
            403,
            "the Host header was changed on the way",
            "proxy_set_header Host $http_host",
        ),
        (
            404,
            "the path is not passed on",
            "location /connection/ { proxy_pass",
        ),
        (429, "takes nobody else now", ""),
        (503, "takes nobody else now", ""),
        (
            502,
            "doesn't reach the server",
            "nginx: proxy_pass http://127.0.0.1:8000;",
        ),
        (
            504,
            "doesn't reach the server",
            "nginx: proxy_pass http://127.0.0.1:8000;",
        ),
        (
            521,
            "doesn't reach the server",
            "nginx: proxy_pass http://127.0.0.1:8000;",
        ),
        (401, "wants a password", "auth_basic off"),
        (
            301,
            "WebSockets don't follow",
            "location /connection/ without return",
        ),
        (
            418,
            "answered with 418",
            "proxy_set_header Upgrade $http_upgrade",
        ),
    ] {
        let address = answering(move |path| match path {
            "/health" => 200,
            "/connection/websocket" => status,
            _ => 404,
        });
        let (exit, findings) = doctor(&["--url", &url(address), "--idle", "1"]);
        let (found, line) = told(&findings, "WebSocket", "fail");
        assert!(found.contains(text), "{status}: {found}");
        assert!(
            line.contains(remedy) && line.is_empty() == remedy.is_empty(),
            "{status}: {line}"
        );
        assert_eq!(exit, Some(1));
        // There is no line to be kept.
        assert!(findings.iter().all(|one| one["subject"] != "idle line"));
    }
}

#[test]
fn what_else_is_not_passed_on_is_told() {
    let address = answering(|_| 404);
    let (_, findings) = doctor(&["--url", &url(address)]);
    let (text, _) = told(&findings, "health", "ok");
    assert!(
        text.contains("answered with 404") && text.contains("health.enabled"),
        "{text}"
    );
    let (text, _) = told(&findings, "streaming", "warn");
    assert!(text.contains("404: the path is not passed on"), "{text}");
    let inside = findings
        .iter()
        .filter(|one| one["subject"] == "kept inside");
    let inside: Vec<_> = inside
        .map(|one| (&one["grade"], one["text"].as_str().unwrap()))
        .collect();
    assert_eq!(inside.len(), 2, "{findings:?}");
    assert!(
        inside
            .iter()
            .all(|(grade, text)| **grade == "ok" && text.contains("can't be reached from here"))
    );
    let address = answering(|path| if path == "/health" { 200 } else { 500 });
    let (_, findings) = doctor(&["--url", &url(address)]);
    assert_eq!(told(&findings, "streaming", "warn").0, "answered with 500");
}

#[test]
fn what_belongs_inside_and_is_not_is_told() {
    let address = answering(|path| {
        if path.starts_with("/connection") {
            404
        } else {
            200
        }
    });
    // By an address that is not this machine's own, for all that the doctor knows.
    let (_, findings) = doctor(&["--url", &format!("http://0.0.0.0:{}", address.port())]);
    let inside = findings
        .iter()
        .filter(|one| one["subject"] == "kept inside");
    let remedies: Vec<_> = inside.map(|one| (&one["grade"], &one["remedy"])).collect();
    let (api, metrics) = (
        "nginx: location /api/info { deny all; }",
        "nginx: location /metrics { deny all; }",
    );
    assert_eq!(
        remedies,
        [
            (&"warn".into(), &api.into()),
            (&"warn".into(), &metrics.into())
        ]
    );
    // On this machine that is as it should be.
    let (_, findings) = doctor(&["--url", &url(address)]);
    assert!(findings.iter().all(|one| one["subject"] != "kept inside"));
}

#[test]
fn a_server_that_lets_in_pages_of_all_sites_is_told() {
    let server = Server::serve("doctor-origins", "[client]\nallowed_origins = [\"*\"]\n");
    let (status, findings) = doctor(&["--url", &url(server.address)]);
    let (text, remedy) = told(&findings, "other sites", "warn");
    assert!(text.contains("pages of any site may connect"), "{text}");
    assert!(remedy.starts_with("client.allowed_origins = ["), "{remedy}");
    assert_eq!(status, Some(0));
}

#[test]
fn where_nobody_is_let_in_without_a_token_the_doctor_asks_for_one() {
    let key = "a secret of thirty-two bytes or more";
    let config = format!("[client.token]\nhmac_secret_key = \"{key}\"\n");
    let server = Server::serve("doctor-token", &config);
    let address = url(server.address);
    let (_, findings) = doctor(&["--url", &address, "--idle", "1"]);
    for subject in ["streaming", "idle line"] {
        assert!(
            told(&findings, subject, "ok").0.contains("use --token"),
            "{findings:?}"
        );
    }
    let token = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["token", "--user", "42", "--config"])
        .arg(server.config_path())
        .output()
        .unwrap();
    let token = String::from_utf8(token.stdout).unwrap();
    let (_, findings) = doctor(&["--url", &address, "--idle", "1", "--token", token.trim()]);
    assert!(
        told(&findings, "streaming", "ok")
            .0
            .contains("comes through as it is written")
    );
    assert!(
        told(&findings, "idle line", "ok")
            .0
            .contains("stays for 1 s"),
        "{findings:?}"
    );
}

/// Each thing that keeps everything away has its own words, and ends the visit.
#[test]
fn what_lets_nothing_through_is_told_once() {
    let plain = Server::dev();
    let refused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (address, subject, text, remedy) in [
        (
            url(refused),
            "connection",
            "can't be reached",
            "http_server.address",
        ),
        (
            url(answering(|_| 301)),
            "health",
            "WebSockets don't follow",
            "give clients the URL",
        ),
        (
            format!("https://{}", plain.address),
            "TLS",
            "speaks no TLS",
            "doctor --url http://",
        ),
    ] {
        let (status, findings) = doctor(&["--url", &address]);
        let (found, line) = told(&findings, subject, "fail");
        assert!(found.contains(text), "{found}");
        assert!(line.contains(remedy), "{line}");
        assert_eq!((status, findings.len()), (Some(1), 1), "{findings:?}");
    }
    let (_, findings) = doctor(&["--url", &url(answering(|_| 502))]);
    let (_, line) = told(&findings, "health", "fail");
    assert!(line.contains("proxy_pass"), "{line}");
    let (_, findings) = doctor(&["--url", &url(answering(|_| 400))]);
    let (_, line) = told(&findings, "health", "warn");
    assert_eq!(line, "doctor --url https://…");
}

/// That it was cut is not that nobody was let in.
#[test]
fn a_stream_that_is_cut_is_told() {
    let server = Server::dev();
    let front = in_front(server.address, |client, server| {
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        }
        pass(client, server);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, line) = told(&findings, "streaming", "fail");
    assert!(text.contains("is cut within"), "{text}");
    assert!(line.contains("proxy_read_timeout"), "{line}");
    assert_eq!(status, Some(1));
}
