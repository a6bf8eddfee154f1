//! What a reload does, over sockets: how it was before, and how it is behind.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use crate::client::{Client, Frame, upgrade_request};
use crate::process::Server;

const OPEN: &str = "[channel.without_namespace]\nallow_subscribe_for_client = true\n\
    allow_subscribe_for_anonymous = true\nallow_publish_for_client = true\n\
    allow_publish_for_anonymous = true\n";
const CLIENT: &str = "[client]\nallow_anonymous_connect_without_token = true\n";
const API: &str = "[http_api]\nkey = \"dev\"\n";

/// The status of a request.
fn status(server: &Server, request: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

fn get(server: &Server, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    status(server, &request)
}

fn api_with(server: &Server, key: &str) -> String {
    let request = format!(
        "POST /api/info HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    status(server, &request)
}

#[test]
fn pages_of_other_sites_are_let_in_or_not() {
    let from = |origin: &str| upgrade_request("live.test", &format!("Origin: {origin}\r\n"));
    let mut server = Server::serve("origins", CLIENT);
    let (one, other) = ("https://one.test", "https://other.test");
    assert_eq!(status(&server, &from(one)), "403");
    server.reload(&format!("{CLIENT}allowed_origins = [\"{one}\"]\n"));
    assert_eq!(status(&server, &from(one)), "101");
    assert_eq!(status(&server, &from(other)), "403");
    server.reload(&format!("{CLIENT}allowed_origins = [\"{other}\"]\n"));
    assert_eq!(status(&server, &from(one)), "403");
    assert_eq!(status(&server, &from(other)), "101");
}

#[test]
fn a_connection_that_has_carried_requests_goes_by_the_new_options_too() {
    let mut server = Server::serve("kept", API);
    let mut kept = server.connect();
    let mut ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        kept.write_all(request.as_bytes()).expect("it is taken");
        let mut client = Client::over(kept.try_clone().expect("a descriptor"));
        let head = client.read_head();
        let body = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>())
        });
        let mut left = body.expect("a length").expect("a number") - client.received.len();
        while left > 0 {
            let mut rest = vec![0; left];
            left -= kept.read(&mut rest).expect("a body");
        }
        head[9..12].to_owned()
    };
    assert_eq!(
        (ask("/health"), ask("/metrics")),
        ("200".into(), "404".into())
    );
    server.reload(&format!(
        "{API}[health]\nenabled = false\n[prometheus]\nenabled = true\n"
    ));
    assert_eq!(
        (ask("/health"), ask("/metrics")),
        ("404".into(), "200".into())
    );
}

#[test]
fn keys_of_the_api_are_changed_with_both_good_for_a_while() {
    let mut server = Server::serve("api-keys", API);
    let new = "[[http_api.keys]]\nname = \"new\"\n\
        sha256 = \"11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437\"\n";
    let both = |server: &Server| (api_with(server, "dev"), api_with(server, "new"));
    assert_eq!(both(&server), ("200".into(), "401".into()));
    server.reload(&format!("{API}{new}"));
    assert_eq!(both(&server), ("200".into(), "200".into()));
    server.reload(new);
    assert_eq!(both(&server), ("401".into(), "200".into()));
}

#[test]
fn doors_are_shut_and_messages_are_as_long_as_they_may_be() {
    let mut server = Server::serve("doors", &format!("{CLIENT}{OPEN}"));
    let long = format!(
        r#"{{"id":2,"publish":{{"channel":"a","data":"{}"}}}}"#,
        "x".repeat(2000)
    );
    let mut before = Client::connected(&server);
    assert_ne!(get(&server, "/events?channel=a"), "404");
    server.reload(&format!(
        "{CLIENT}{OPEN}[doors]\nplain = false\n[websocket]\nmessage_size_limit = 1024\n"
    ));
    assert_eq!(get(&server, "/events?channel=a"), "404");
    before.send(&long);
    assert_eq!(before.text(), r#"{"id":2,"publish":{}}"#, "as it began");
    let mut after = Client::connected(&server);
    after.send(&long);
    assert!(matches!(after.frame(), Frame::Close(1009, _)));
}

#[test]
fn rates_limits_and_pings_are_those_of_the_options() {
    let mut server = Server::serve("rates", &format!("{CLIENT}{OPEN}"));
    let mut client = Client::connected(&server);
    let mut publish = || {
        client.send(r#"{"id":2,"publish":{"channel":"a","data":1}}"#);
        client.text()
    };
    assert_eq!(publish(), r#"{"id":2,"publish":{}}"#);
    server.reload(&format!(
        "{CLIENT}ping_interval = \"60s\"\nchannel_limit = 1\n\
         [client.rate_limit.client_command]\npublish = \"1/1h\"\n{OPEN}"
    ));
    assert_eq!(publish(), r#"{"id":2,"publish":{}}"#, "the bucket is full");
    assert!(publish().contains(r#""code":111"#));
    for channel in ["a", "b"] {
        client.send(&format!(
            r#"{{"id":3,"subscribe":{{"channel":"{channel}"}}}}"#
        ));
        let is_refused = client.text().contains(r#""code":106"#);
        assert_eq!(is_refused, channel == "b");
    }
    let mut late = Client::open(&server);
    late.send(r#"{"id":1,"connect":{}}"#);
    assert!(late.text().contains(r#""ping":60"#));
}

/// A backend that hands over the connection of each question, to be answered.
fn backend() -> (String, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, asked) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let mut received = Vec::new();
            while !received.ends_with(b"}") {
                match stream.read(&mut request) {
                    Ok(count @ 1..) => received.extend_from_slice(&request[..count]),
                    _ => break,
                }
            }
            if tell.send(stream).is_err() {
                break;
            }
        }
    });
    (format!("http://{address}/rpc"), asked)
}

fn answer(mut stream: TcpStream, data: &str) {
    let body = format!(r#"{{"result":{{"data":"{data}"}}}}"#);
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

#[test]
fn the_backend_that_was_asked_answers_and_the_next_question_is_for_the_new_one() {
    let (old, asked_old) = backend();
    let (new, asked_new) = backend();
    let proxy = |endpoint: &str| {
        format!(
            "{CLIENT}[rpc.without_namespace]\nproxy_enabled = true\n\
             [rpc.proxy]\nendpoint = \"{endpoint}\"\ntimeout = \"20s\"\n"
        )
    };
    let mut server = Server::serve("backend", CLIENT);
    let mut client = Client::connected(&server);
    client.send(r#"{"id":2,"rpc":{"method":"m"}}"#);
    assert!(client.text().contains(r#""error""#), "nobody to ask");
    server.reload(&proxy(&old));
    client.send(r#"{"id":3,"rpc":{"method":"m"}}"#);
    let question = asked_old.recv().expect("it is asked");
    server.reload(&proxy(&new));
    client.send(r#"{"id":4,"rpc":{"method":"m"}}"#);
    answer(asked_new.recv().expect("it is asked"), "new");
    assert_eq!(client.text(), r#"{"id":4,"rpc":{"data":"new"}}"#);
    // Meanwhile the first one was waited for.
    server.reload(CLIENT);
    answer(question, "old");
    assert_eq!(client.text(), r#"{"id":3,"rpc":{"data":"old"}}"#);
    client.send(r#"{"id":5,"rpc":{"method":"m"}}"#);
    assert!(
        client.text().contains(r#""error""#),
        "nobody to ask any more"
    );
}

#[test]
fn less_is_logged_when_the_options_say_so() {
    let mut server = Server::serve("log", API);
    let reload = |server: &Server, config: &str| {
        server.write_config(config);
        server.api("reload", "{}")
    };
    let listen = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n";
    reload(&server, &format!("{listen}{API}"));
    reload(&server, &format!("{listen}{API}[log]\nlevel = \"error\"\n"));
    for _ in 0..3 {
        reload(&server, "nonsense");
    }
    let said = server.read_until("ERROR");
    let count = |mark: &str| said.iter().filter(|line| line.contains(mark)).count();
    assert_eq!(
        count("API call"),
        2,
        "before, and for the last time: {said:?}"
    );
    assert_eq!(count("was reloaded"), 1, "{said:?}");
    let rest = server.read_until("ERROR");
    assert_eq!(rest.len(), 1, "nothing but errors: {rest:?}");
}

#[test]
fn lines_are_written_for_people_or_for_programs_as_the_options_say() {
    let mut server = Server::serve("format", API);
    let is_json = |said: &[String]| {
        let objects = said
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line));
        let objects: Vec<_> = objects.filter_map(Result::ok).collect();
        assert!(
            objects.is_empty() || objects.len() == said.len(),
            "{said:?}"
        );
        !objects.is_empty()
    };
    for (format, expected) in [("json", true), ("text", false), ("json", true)] {
        server.write_config(&format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n{API}[log]\nformat = \"{format}\"\n"
        ));
        server.signal("-HUP");
        server.read_until("log.format");
        server.api("disconnect", r#"{"user":"ann"}"#);
        let said = server.read_until("API call");
        assert_eq!(is_json(&said), expected, "{said:?}");
    }
}

#[test]
fn limits_by_address_and_whom_they_believe_are_those_of_the_options() {
    let limited = |most: u32| {
        format!(
            "{CLIENT}[limits]\nexempt_loopback = false\n[limits.address]\nconnections = {most}\n"
        )
    };
    let mut server = Server::serve("limits", &limited(50));
    // Each is there, and has its place.
    let held: Vec<_> = (0..3).map(|_| Client::connected(&server)).collect();
    assert_eq!(get(&server, "/health"), "200");
    server.reload(&limited(3));
    assert_eq!(get(&server, "/health"), "429");
    // A proxy's connections don't count; what it says is believed from now on.
    server.reload(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\n{}",
        limited(3)
    ));
    assert_eq!(get(&server, "/health"), "200");
    server.reload(&limited(50));
    assert_eq!(get(&server, "/health"), "200");
    drop(held);
}
