//! Sessions at the doors of plain HTTP that are opened and never used, or never collected.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::process::{Server, wait_until};
use crate::stand::Stand;
use crate::wire::Http;

const POLL: &str = "/connection/poll";

/// Opens a session that is subscribed to `flood`, at a door whose answer goes on or with a poll that waits; what is
/// returned keeps it open, and will not be read.
fn open(stand: &Stand, path: &str, is_polled: bool) -> TcpStream {
    let commands = r#"{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"flood"}}"#;
    if path != POLL {
        let mut stream = stand.connect();
        let len = commands.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{commands}"
        )
        .unwrap();
        return stream;
    }
    let mut http = stand.http();
    let head = format!("POST {POLL} HTTP/1.1");
    let answer = http.ask(&head, format!("{{\"open\":1}}\n{commands}").as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    if is_polled {
        let said = answer.text();
        let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        let body = json!({"session": first["session"], "poll": first["next"], "hold": 55});
        let body = body.to_string();
        let len = body.len();
        write!(
            http.wire,
            "POST {POLL} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
    }
    http.wire
}

#[test]
fn what_is_never_collected() {
    const EACH: usize = 25;
    // Kept for all, once.
    const PUBLISHED: u64 = 16 * 1024 * 1024;
    let stand = Stand::new("uncollected", "connect = \"off\"", "");
    // A quarter of the queue's limit and a message wait for each, and a page of the HTTP layer's.
    let each = (256 + 16 + 16 + 64 + 32) * 1024;
    stand.endures(
        "100 streams and polls that nobody reads, and 16 MiB for each: they are parked",
        2 * PUBLISHED + 4 * EACH as u64 * each,
        |_| {
            let doors = ["/connection/http_stream", "/connection/sse", POLL];
            let mut all = Vec::new();
            for _ in 0..EACH {
                all.extend(doors.iter().map(|path| open(&stand, path, false)));
                all.push(open(&stand, POLL, true));
            }
            stand.counts("node_num_subscriptions", 4 * EACH + 2);
            let text = "x".repeat(16 * 1024);
            for number in 0..PUBLISHED / text.len() as u64 {
                let data = json!({"n": number, "text": text});
                stand.api("publish", &json!({"channel": "flood", "data": data}));
            }
            drop(all);
        },
    );
    stand.counts("subscription_parked_total", 4 * EACH);
}

/// Opens sessions at a door until it is full, and a good deal further.
#[test]
fn floods_of_sessions() {
    const LIMIT: usize = 300;
    let stand = Stand::new(
        "sessions",
        "connect = \"off\"",
        &format!("[doors]\npoll_timeout = \"3s\"\nmax_sessions = {LIMIT}\n"),
    );
    let refused = stand.endures(
        "2,000 sessions at the doors of plain HTTP: 300 stay, others get 503",
        LIMIT as u64 * 48 * 1024,
        |_| {
            let mut held = Vec::new();
            let mut refused = 0;
            let doors = [
                ("/connection/http_stream", r#"{"id":1,"connect":{}}"#),
                ("/connection/sse", r#"{"id":1,"connect":{}}"#),
                (POLL, "{\"open\":1}\n{\"id\":1,\"connect\":{}}"),
                (POLL, "{\"open\":1}"),
                ("/connection/uni_http_stream", "{}"),
                ("/connection/uni_sse", "{}"),
            ];
            for number in 0..2_000 {
                let (path, body) = doors[number % doors.len()];
                let mut http = stand.http();
                let answer = http.ask(&format!("POST {path} HTTP/1.1"), body.as_bytes());
                match answer.status {
                    200 => held.push(http),
                    503 => {
                        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
                        refused += 1;
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            assert!(refused > 0);
            refused
        },
    );
    assert_eq!(stand.number(r#"http_errors_total{status="503"}"#), refused);
    wait_until("all are gone", || {
        (stand.number("node_num_clients") == 0).then_some(())
    });
    let answer = stand
        .http()
        .ask(&format!("POST {POLL} HTTP/1.1"), b"{\"open\":1}");
    assert_eq!(answer.status, 200);
}

/// A line of two bytes becomes a command with the name of the channel in it, and nobody has looked at that name while the
/// backend is asked who the client is.
#[test]
fn lines_that_become_long_commands() {
    // It takes connections, and says nothing.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = backend.local_addr().unwrap();
    let proxy = format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"http://{endpoint}\"\ntimeout = \"30s\"\n"
    );
    let stand = Stand::new("long-commands", "connect = \"off\"", &proxy);
    let what = "10,000 lines for a channel whose name has 40,000 bytes";
    stand.bears(what, 1024 * 1024, || {
        let mut http = stand.http();
        let head = format!("POST {POLL} HTTP/1.1");
        let wanted = format!("channel={}", "x".repeat(40_000));
        let open = json!({"open": 1, "ws": wanted}).to_string();
        let answer = http.ask(&head, open.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let opened: Value = serde_json::from_str(answer.text().trim_end()).unwrap();
        let session = &opened["session"];
        let mut send = json!({"session": session, "send": 1}).to_string();
        send.push_str(&"\n1".repeat(10_000));
        let answer = http.ask(&head, send.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
        // It has said more than waits for it, which is the end of it.
        let poll = json!({"session": session, "poll": 0}).to_string();
        let answer = http.ask(&head, poll.as_bytes());
        assert!(
            answer.text().contains(r#""code":3008"#),
            "{}",
            answer.text()
        );
    });
}

/// What sessions are at: that of the protocol, and a tunnel to another server of ours.
fn two_kinds(name: &str) -> (Stand, Server) {
    let behind = Server::dev();
    let tunnel = format!(
        "[[tunnels]]\nname = \"to\"\nupstream = \"ws://{}/ws?channel=behind\"\n",
        behind.address
    );
    let stand = Stand::new(name, "connect = \"off\"\nrequests = \"off\"", &tunnel);
    (stand, behind)
}

/// How often somebody has come to the server behind the tunnel, and what was published there.
fn seen_behind(behind: &Server) -> (Value, Value) {
    let parsed = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let info = parsed(behind.api("info", "{}"));
    let history = parsed(behind.api("history", r#"{"channel":"behind"}"#));
    let clients = info["result"]["nodes"][0]["num_clients"].clone();
    (clients, history["result"]["offset"].clone())
}

/// Sessions that were named by somebody who doesn't know the node's key.
#[test]
fn forged_sessions() {
    let (stand, behind) = two_kinds("forged-sessions");
    let count = stand.endures(
        "names of sessions and of tunnels' sessions, made up, put together, or changed by a bit: 404",
        0,
        |users| {
            let mut http = Http::new(stand.connect());
            let names = [POLL, TUNNEL].map(|path| begin(&mut http, path));
            let other = begin(&mut http, POLL);
            let (mut count, mut round) = (0, 0);
            while count < 1_000 || users.want_more() {
                let name = &names[round % 2];
                let forged = match round / 2 % 3 {
                    0 => changed(name, round),
                    // The place of one and the code of another.
                    1 => put_together(name, &other),
                    // Good, but not there.
                    _ => name.clone(),
                };
                for way in WAYS {
                    // Sessions of two kinds may have the same place: what is put together is then the other's name.
                    let is_there = match way.0 {
                        POLL => forged == names[0] || forged == other,
                        TUNNEL => forged == names[1],
                        _ => false,
                    };
                    if !is_there {
                        assert_eq!(speak_for(&mut http, &forged, way), 404, "{forged} {way:?}");
                        count += 1;
                    }
                }
                round += 1;
            }
            // They are there, and nobody has touched them.
            for (path, name) in [POLL, TUNNEL].into_iter().zip(&names) {
                assert_eq!(speak_for(&mut http, name, (path, "send")), 204, "{path}");
            }
            count
        },
    );
    stand.counts(r#"http_errors_total{status="404"}"#, count);
    wait_until("what was sent there last has come", || {
        (seen_behind(&behind) == (json!(1), json!(1))).then_some(())
    });
}

/// Names that were good, and are said again when their sessions are over and others have their places.
#[test]
fn replayed_sessions() {
    let (stand, behind) = two_kinds("replayed-sessions");
    let elsewhere = Stand::new("replayed-elsewhere", "connect = \"off\"", "");
    let count = stand.endures(
        "names of sessions and of tunnels' sessions that are over, or another node's, said again: 404",
        0,
        |users| {
            let mut http = Http::new(stand.connect());
            let another_nodes = begin(&mut Http::new(elsewhere.connect()), POLL);
            let (mut count, mut round) = (0, 0);
            while count < 1_000 || users.want_more() {
                let path = [POLL, TUNNEL][round % 2];
                let name = begin(&mut http, path);
                assert_eq!(speak_for(&mut http, &name, (path, "close")), 204);
                // A tunnel has to say goodbye first.
                wait_until("it is over", || {
                    (speak_for(&mut http, &name, (path, "close")) == 404).then_some(())
                });
                let other = begin(&mut http, path);
                assert_ne!(name, other);
                for way in WAYS {
                    for name in [&name, &another_nodes] {
                        assert_eq!(speak_for(&mut http, name, way), 404, "{name} {way:?}");
                        count += 1;
                    }
                }
                assert_eq!(speak_for(&mut http, &other, (path, "close")), 204);
                round += 1;
            }
            count
        },
    );
    stand.counts(r#"http_errors_total{status="404"}"#, count);
    wait_until("nobody is behind the tunnel, and has said anything", || {
        (seen_behind(&behind) == (json!(0), json!(0))).then_some(())
    });
}

/// Requests that were seen on their way, and are sent again while their session goes on.
#[test]
fn replayed_requests() {
    let stand = Stand::new(
        "replayed-requests",
        "connect = \"off\"\nrequests = \"off\"",
        "",
    );
    stand.endures(
        "polls and commands of a session, said again: 410, or nothing is done",
        0,
        |users| {
            let (mut http, mut stranger) = (stand.http(), stand.http());
            let head = format!("POST {POLL} HTTP/1.1");
            let name = begin(&mut http, POLL);
            let commands = format!(
                "{CONNECT}\n{}",
                json!({"id": 2, "subscribe": {"channel": "own"}})
            );
            let send = |http: &mut Http<TcpStream>, number: usize, command: &str| {
                let body = json!({"session": name, "send": number}).to_string() + "\n" + command;
                http.ask(&head, body.as_bytes()).status
            };
            let poll = |http: &mut Http<TcpStream>, number: u64| {
                let body = json!({"session": name, "poll": number, "hold": 0}).to_string();
                let answer = http.ask(&head, body.as_bytes());
                (answer.status, answer.text())
            };
            assert_eq!(send(&mut http, 1, &commands), 204);
            let (mut next, mut got, mut number, mut said) = (0, 0, 1, vec![0]);
            while number < 200 || users.want_more() {
                number += 1;
                let publish =
                    json!({"id": number + 1, "publish": {"channel": "own", "data": number}});
                assert_eq!(send(&mut http, number, &publish.to_string()), 204);
                // Whatever is sent by a number that was there, it isn't executed again.
                let other =
                    json!({"id": 1_000_000, "publish": {"channel": "own", "data": "replayed"}});
                for again in [number, number - 1, 1] {
                    assert_eq!(send(&mut stranger, again, &other.to_string()), 204);
                }
                assert_eq!(send(&mut stranger, number + 2, &other.to_string()), 409);
                let (status, text) = poll(&mut http, next);
                assert_eq!(status, 200, "{text}");
                let mut lines = text
                    .lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap());
                let before = next;
                next = lines.next().unwrap()["next"].as_u64().unwrap();
                got += lines
                    .filter(|line| line["push"]["pub"].is_object())
                    .inspect(|line| assert!(line["push"]["pub"]["data"].is_u64(), "{line}"))
                    .count();
                // The next poll of its owner acknowledges that; what is older then is gone for everybody.
                assert_eq!(poll(&mut http, next).0, 200);
                if next != before {
                    said.push(before);
                }
                for again in said.iter().rev().take(3) {
                    assert_eq!(poll(&mut stranger, *again).0, 410, "{again} of {next}");
                }
            }
            assert_eq!(got, number - 1);
        },
    );
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

const TUNNEL: &str = "/tunnel/to";

/// What can be asked of a session: where, and what.
type Way = (&'static str, &'static str);

const WAYS: [Way; 7] = [
    (POLL, "poll"),
    (POLL, "send"),
    (POLL, "close"),
    ("/emulation", "send"),
    (TUNNEL, "poll"),
    (TUNNEL, "send"),
    (TUNNEL, "close"),
];

/// Begins a session, and gives its name.
fn begin(http: &mut Http<TcpStream>, path: &str) -> String {
    let answer = http.ask(&format!("POST {path} HTTP/1.1"), b"{\"open\":1}\n");
    let first: Value = serde_json::from_str(answer.text().trim()).unwrap();
    first["session"].as_str().unwrap().to_owned()
}

/// A name of which one character is another.
fn changed(name: &str, count: usize) -> String {
    let mut forged = name.to_owned().into_bytes();
    let place = count % forged.len();
    forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
    String::from_utf8(forged).unwrap()
}

/// The place of one name, and the code of another.
fn put_together(place: &str, code: &str) -> String {
    let [place, code] = [place, code].map(|name| {
        let (node, rest) = name.rsplit_once('.').unwrap();
        (node, URL_SAFE_NO_PAD.decode(rest).unwrap())
    });
    let bytes = [&place.1[..PLACE_LEN], &code.1[PLACE_LEN..]].concat();
    format!("{}.{}", place.0, URL_SAFE_NO_PAD.encode(bytes))
}

/// Worker, index and generation come before the code.
const PLACE_LEN: usize = 10;

/// Speaks for a session in one of the ways that there are. The status that this comes to.
fn speak_for(http: &mut Http<TcpStream>, session: &str, (path, what): Way) -> u16 {
    let data: &[u8] = match path {
        // A message of a byte.
        TUNNEL => &[1, 1, b'1'],
        _ => CONNECT.as_bytes(),
    };
    let body = match (path, what) {
        ("/emulation", _) => json!({"session": session, "node": "", "data": CONNECT}).to_string(),
        (_, "poll") => json!({"session": session, "poll": 0, "hold": 0}).to_string(),
        (_, "close") => json!({"session": session, "close": true}).to_string(),
        _ => json!({"session": session, "send": 1}).to_string() + "\n",
    };
    let mut body = body.into_bytes();
    if (path, what) != ("/emulation", "send") && what == "send" {
        body.extend_from_slice(data);
    }
    http.ask(&format!("POST {path} HTTP/1.1"), &body).status
}
