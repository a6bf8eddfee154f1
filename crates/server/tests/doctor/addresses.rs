//! Whether a server can tell its clients apart behind what stands in front of it.

use std::io::{Read, Write};

use crate::front::{in_front, pass_adding, pass_saying};
use crate::process::Server;
use crate::{doctor, told, url};

const OWN: &str = "X-Forwarded-For: 198.51.100.9\r\n";

#[test]
fn whether_the_server_can_tell_clients_apart_is_told() {
    // None in between.
    let server = Server::dev();
    let (_, findings) = doctor(&["--url", &url(server.address)]);
    let (text, _) = told(&findings, "client addresses", "ok");
    assert!(text.contains("sees no proxy"), "{text}");
    // One whom the server doesn't know.
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, false);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "client addresses", "warn");
    assert!(text.contains("doesn't trust the proxy"), "{text}");
    assert!(
        remedy.starts_with("http_server.trusted_proxies = "),
        "{remedy}"
    );
    assert_eq!(status, Some(0));

    let trusting = "trusted_proxies = [\"127.0.0.1\"]\n";
    let server = Server::serve("doctor-trusting", trusting);
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, false);
    });
    let (_, findings) = doctor(&["--url", &url(front)]);
    let (text, _) = told(&findings, "client addresses", "ok");
    assert_eq!(text, "told by a proxy that is trusted");
    // One that leaves it to its clients what they say.
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, OWN, true);
    });
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "client addresses", "fail");
    assert!(
        text.contains("anybody can pass for whom he likes"),
        "{text}"
    );
    assert!(remedy.contains("$proxy_add_x_forwarded_for"), "{remedy}");
    assert_eq!(status, Some(1));
    // Behind another one that does: to the server, it is all from the first.
    const OUTER: &str = "X-Forwarded-For: 127.0.0.1\r\n";
    let front = in_front(server.address, |client, server| {
        pass_adding(client, server, OUTER);
    });
    let elsewhere = format!("http://0.0.0.0:{}", front.port());
    let (_, findings) = doctor(&["--url", &elsewhere]);
    let (text, _) = told(&findings, "client addresses", "fail");
    assert!(text.contains("in front of a trusted proxy"), "{text}");
    // The recipe for nginx, and whoever asks is on the same machine: there is nothing wrong with that.
    let (status, findings) = doctor(&["--url", &url(front)]);
    let (text, remedy) = told(&findings, "client addresses", "warn");
    assert!(text.contains("can't be told from this machine"), "{text}");
    assert!(remedy.contains("another machine"), "{remedy}");
    assert_eq!(status, Some(0));
    // One that says nothing, and takes away what clients say.
    let front = in_front(server.address, |client, server| {
        pass_saying(client, server, "", false);
    });
    let elsewhere = format!("http://0.0.0.0:{}", front.port());
    let (_, findings) = doctor(&["--url", &elsewhere]);
    let (text, remedy) = told(&findings, "client addresses", "warn");
    assert!(text.contains("is trusted, and doesn't tell them"), "{text}");
    assert!(remedy.contains("option forwardfor"), "{remedy}");
    // Or leaves it to them, as nginx does by itself: here the way leads by an address that is trusted.
    let address = format!("http://0.0.0.0:{}", server.address.port());
    let (status, findings) = doctor(&["--url", &address]);
    let (text, _) = told(&findings, "client addresses", "fail");
    assert!(text.contains("passes on what a client writes"), "{text}");
    assert_eq!(status, Some(1));
    let (_, findings) = doctor(&["--url", &url(server.address)]);
    told(&findings, "client addresses", "warn");
}

/// Who asks is told how an address is known, and neither which it is, nor anything without asking.
#[test]
fn how_a_client_is_known_is_told_to_those_alone_who_ask() {
    let server = Server::dev();
    assert!(
        !server
            .get("/health")
            .to_lowercase()
            .contains("tautline-doctor")
    );
    let mut stream = server.connect();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {}\r\nTautline-Doctor: 1\r\nConnection: close\r\n\r\n",
        server.address
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("\r\ntautline-doctor: direct\r\n"),
        "{answer}"
    );
}
