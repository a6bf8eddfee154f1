//! Clients with no SDK.

use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::{Response, get, post, send};
use crate::process::{Server, wait_until};
use crate::socket::{Said, Socket};

fn publish(server: &Server, channel: &str, data: &Value) {
    let body = json!({"channel": channel, "data": data});
    server.api("publish", &body.to_string());
}

fn socket(server: &Server, path: &str) -> Socket {
    Socket::open(server, path, "").expect("it opens")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn a_plain_websocket_gets_data_alone() {
    let server = Server::dev();
    let mut ann = socket(&server, "/ws?channel=news");
    let mut ben = socket(&server, "/ws?channel=news");
    // Both are subscribed when they have their own.
    ann.send(r#"{"hello":"from ann"}"#);
    assert_eq!(ann.next(), Said::Text(r#"{"hello":"from ann"}"#.into()));
    ben.send("[1,\n2]");
    wait_until("ben's own", || {
        (ben.next() == Said::Text("[1, 2]".into())).then_some(())
    });
    publish(&server, "news", &json!("grüße"));
    assert_eq!(ben.next(), Said::Text("\"grüße\"".into()));
    assert_eq!(ann.json(), json!([1, 2]));
    assert_eq!(ann.json(), json!("grüße"));
    ann.send("no JSON");
    let (code, reason) = ann.closed();
    assert_eq!(code, 4107);
    assert!(reason.contains("expected JSON"), "{reason}");
}

#[test]
fn an_envelope_has_the_position_to_resume_from() {
    let server = Server::dev();
    let mut first = socket(&server, "/ws?channel=a&envelope=1");
    let told = first.json();
    assert_eq!(
        (&told["event"], &told["offset"]),
        (&json!("subscribed"), &json!(0))
    );
    let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
    publish(&server, "a", &json!({"n": 1}));
    let expected = json!({"channel": "a", "offset": 1, "epoch": epoch, "data": {"n": 1}});
    assert_eq!(first.json(), expected);
    drop(first);
    for n in 2..=600 {
        publish(&server, "a", &json!({"n": n}));
    }
    // More than one reply can hold.
    let mut second = socket(
        &server,
        &format!("/ws?channel=a&envelope=1&since=1,{epoch}"),
    );
    assert_eq!(second.json()["event"], "subscribed");
    for n in 2..=600 {
        let told = second.json();
        assert_eq!(
            (number(&told["offset"]), number(&told["data"]["n"])),
            (n, n)
        );
    }
    // Data alone, from the same place.
    let mut third = socket(&server, &format!("/ws?channel=a&since=599,{epoch}"));
    assert_eq!(third.json(), json!({"n": 600}));
}

#[test]
fn several_channels_come_by_one_socket() {
    let server = Server::dev();
    let mut socket = socket(&server, "/ws?channel=a&channel=b:no&channel=c");
    // An unknown namespace: nothing at all, rather than a part in silence.
    let (code, reason) = socket.closed();
    assert_eq!(code, 4102);
    assert!(reason.starts_with("b:no: "), "{reason}");
    let mut socket = self::socket(&server, "/ws?channel=a&channel=typing:x");
    let told = [socket.json(), socket.json()];
    assert_eq!(told[0]["channel"], "a");
    assert_eq!(
        told[1],
        json!({"event": "subscribed", "channel": "typing:x"})
    );
    socket.send(r#"{"channel":"typing:x","data":{"by":1}}"#);
    let told = socket.json();
    assert_eq!(
        (&told["channel"], &told["data"]),
        (&json!("typing:x"), &json!({"by": 1}))
    );
    assert_eq!(told["info"]["user"], "");
    assert!(told["offset"].is_null());
    socket.send(r#"{"channel":"other:x","data":1}"#);
    let told = socket.json();
    assert_eq!(
        (&told["event"], &told["code"]),
        (&json!("error"), &json!(102))
    );
    socket.send(r#"{"data":1}"#);
    assert_eq!(socket.closed().0, 4107);
}

#[test]
fn a_gap_is_told() {
    let server = Server::dev();
    publish(&server, "g", &json!(1));
    let mut first = socket(&server, "/ws?channel=g&envelope");
    let epoch = first.json()["epoch"].as_str().expect("an epoch").to_owned();
    let gap =
        json!({"event": "gap", "channel": "g", "since": "1,another", "offset": 1, "epoch": epoch});
    let mut envelope = socket(&server, "/ws?channel=g&envelope&since=1,another");
    assert_eq!(envelope.json(), gap);
    publish(&server, "g", &json!(2));
    assert_eq!(envelope.json()["data"], 2);
    let (code, reason) = socket(&server, "/ws?channel=g&since=1,another").closed();
    assert_eq!(code, 4112);
    assert!(reason.contains("begin anew"), "{reason}");

    let mut events = get(&server, "/events?channel=g&since=1,another");
    let event = events.event().expect("an event");
    let (head, data) = event.split_once("\ndata: ").expect("data");
    assert_eq!(head, format!("event: gap\nid: 2,{epoch}"));
    assert_eq!(
        serde_json::from_str::<Value>(data).expect("JSON")["event"],
        "gap"
    );
    assert_eq!(
        get(&server, "/lines?channel=g&since=1,another").message()["event"],
        "gap"
    );
    let refused = get(&server, "/lines?channel=g&since=1,another&envelope=0");
    assert_eq!(refused.status, 410);
    // A channel that keeps nothing can't say what was missed.
    let mut lines = get(&server, "/lines?channel=typing:x&since=1,y");
    assert_eq!(lines.message()["event"], "gap");
}

#[test]
fn an_event_source_resumes_by_what_it_was_told() {
    let server = Server::dev();
    let mut events = get(&server, "/events?channel=e");
    assert_eq!(events.status, 200);
    assert_eq!(
        events.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    // Sets the position before there is anything.
    let event = events.event().expect("a position");
    let epoch = event.strip_prefix("id: 0,").expect("a position").to_owned();
    publish(&server, "e", &json!({"a": 1}));
    let expected = format!("id: 1,{epoch}\ndata: {{\"a\":1}}");
    assert_eq!(events.event(), Some(expected));
    drop(events);
    publish(&server, "e", &json!(2));
    let head =
        format!("GET /events?channel=e&since=0,{epoch} HTTP/1.1\r\nLast-Event-ID: 1,{epoch}");
    let mut events = send(&server, &head, b"");
    assert_eq!(events.event(), Some(format!("id: 1,{epoch}")));
    assert_eq!(events.event(), Some(format!("id: 2,{epoch}\ndata: 2")));

    // Two channels have one position, of both.
    let mut both = get(
        &server,
        &format!("/events?channel=e&channel=f&since=1,{epoch}"),
    );
    let id = wait_until("the position of both", || {
        let event = both.event().expect("an event");
        let id = event
            .lines()
            .next()
            .expect("a line")
            .strip_prefix("id: ")?
            .to_owned();
        (id.split(';').all(|part| !part.is_empty()) && id.starts_with('2')).then_some(id)
    });
    drop(both);
    publish(&server, "f", &json!(3));
    let head = format!("GET /events?channel=e&channel=f HTTP/1.1\r\nLast-Event-ID: {id}");
    let mut both = send(&server, &head, b"");
    let data = wait_until("what was missed", || {
        let event = both.event().expect("an event");
        let (_, data) = event.split_once("\ndata: ")?;
        Some(data.to_owned())
    });
    let data: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!((&data["channel"], &data["data"]), (&json!("f"), &json!(3)));
}

/// What a `curl` in a loop gets: cut anywhere, it goes on behind the last whole line it has.
#[test]
fn lines_that_are_cut_anywhere_have_no_gap() {
    const COUNT: u64 = 900;
    let server = Server::dev();
    let mut told = get(&server, "/lines?channel=curl");
    let epoch = told.message()["epoch"]
        .as_str()
        .expect("an epoch")
        .to_owned();
    let publisher = std::thread::spawn({
        let address = server.address;
        move || {
            for n in 1..=COUNT {
                use std::io::{Read as _, Write as _};
                let body = json!({"channel": "curl", "data": {"n": n, "pad": "x".repeat(300)}})
                    .to_string();
                let mut stream = std::net::TcpStream::connect(address).expect("the server accepts");
                write!(
                    stream,
                    "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nX-API-Key: dev\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .expect("a request");
                stream.read_to_end(&mut Vec::new()).expect("an answer");
            }
        }
    });
    let (mut last, mut cuts) = (0, 0);
    while last < COUNT {
        let mut lines = get(
            &server,
            &format!("/lines?channel=curl&since={last},{epoch}"),
        );
        assert_eq!(lines.status, 200);
        assert_eq!(lines.message()["event"], "subscribed");
        // Some come whole, and what is on its way behind them is lost with the connection.
        for _ in 0..1 + (cuts * 7) % 60 {
            let line = lines.message();
            assert_eq!(
                number(&line["offset"]),
                last + 1,
                "no gap, and nothing twice"
            );
            assert_eq!(number(&line["data"]["n"]), last + 1);
            last += 1;
            if last == COUNT {
                break;
            }
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
    publisher.join().expect("all was published");
}

#[test]
fn pages_are_read_by_a_cursor() {
    let server = Server::dev();
    for n in 1..=25 {
        publish(&server, "p", &json!({"n": n}));
    }
    let read = |path: &str| -> (Value, Response) {
        let response = get(&server, path);
        assert_eq!(response.status, 200, "{path}: {}", response.head);
        let again = get(&server, path);
        (serde_json::from_str(&response.rest()).expect("JSON"), again)
    };
    let (mut since, mut seen) = (String::new(), Vec::new());
    loop {
        let (page, response) = read(&format!("/history?channel=p&limit=10{since}"));
        for publication in page["publications"].as_array().expect("a list") {
            seen.push(number(&publication["data"]["n"]));
        }
        let caching = response.header("cache-control").expect("a rule");
        let next = page["next"].as_str().expect("a position").to_owned();
        if page["more"] == false {
            // A cache may answer all that poll within a second.
            assert_eq!(caching, "public, max-age=1");
            since = format!("&since={next}");
            break;
        }
        let is_kept = caching == "public, max-age=3600, immutable";
        assert_eq!(
            is_kept,
            !since.is_empty(),
            "what has no beginning changes: {caching}"
        );
        since = format!("&since={next}");
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());

    // Nothing new: the tag says so, and nothing else is sent.
    let path = format!("/history?channel=p&limit=10{since}");
    let (_, response) = read(&path);
    let tag = response.header("etag").expect("a tag").to_owned();
    for (named, status) in [
        (&*tag, 304),
        (&format!("\"x\", W/{tag}"), 304),
        ("\"x\"", 200),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nIf-None-Match: {named}");
        let answer = send(&server, &head, b"");
        assert_eq!(answer.status, status, "{named}");
        assert_eq!(answer.header("etag"), Some(&*tag));
    }
    publish(&server, "p", &json!({"n": 26}));
    let answer = send(
        &server,
        &format!("GET {path} HTTP/1.1\r\nIf-None-Match: {tag}"),
        b"",
    );
    assert_eq!(answer.status, 200);

    let gone = get(&server, "/history?channel=p&since=3,another");
    assert_eq!(gone.status, 410);
    assert!(gone.rest().contains("begin anew"));
}

#[test]
fn a_history_that_has_lost_what_comes_next_says_so() {
    let config = WORKERS.replace(
        "history_size = 1000",
        "history_size = 5\nallow_history_for_client = true\nallow_history_for_anonymous = true",
    );
    let server = Server::serve("plain-lost", &config);
    publish(&server, "l", &json!(1));
    let page = get(&server, "/history?channel=l").rest();
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let next = page["next"].as_str().expect("a position").to_owned();
    let (_, epoch) = next.split_once(',').expect("an epoch");
    for n in 2..=20 {
        publish(&server, "l", &json!(n));
    }
    assert_eq!(
        get(&server, &format!("/history?channel=l&since={next}")).status,
        410
    );
    let whole = get(&server, &format!("/history?channel=l&since=15,{epoch}"));
    assert_eq!(whole.status, 200);
    let mut lines = get(&server, &format!("/lines?channel=l&since={next}"));
    assert_eq!(lines.message()["event"], "gap");
}

/// All numbers that a cursor finds, from its beginning on, and how many pages that took.
fn read_all(server: &Server, path: &str) -> (Vec<u64>, usize) {
    let (mut since, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let answer = get(server, &format!("{path}{since}"));
        assert_eq!(answer.status, 200, "{path}{since}: {}", answer.head);
        let caching = answer.header("cache-control").map(str::to_owned);
        let page: Value = serde_json::from_str(&answer.rest()).expect("JSON");
        pages += 1;
        for publication in page["publications"].as_array().expect("a list") {
            seen.push(number(&publication["data"]));
        }
        if page["more"] == false {
            return (seen, pages);
        }
        if !since.is_empty() {
            assert_eq!(caching.as_deref(), Some("public, max-age=3600, immutable"));
        }
        since = format!("&since={}", page["next"].as_str().expect("a position"));
    }
}

/// Pages that anybody may read.
const READABLE: &str =
    "allow_history_for_client = true\nallow_history_for_anonymous = true\nhistory_ttl";

#[test]
fn there_is_more_wherever_the_server_ends_a_page() {
    let config = WORKERS.replace("history_ttl", READABLE).replace(
        "[http_api]",
        "history_max_publication_limit = 50\n[http_api]",
    );
    let server = Server::serve("plain-more", &config);
    for n in 1..=120 {
        publish(&server, "m", &json!(n));
    }
    let (seen, pages) = read_all(&server, "/history?channel=m&limit=100");
    assert_eq!(seen, (1..=120).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[test]
fn what_a_reader_may_not_know_is_no_gap() {
    let filter = r#"server_tags_filter = '{"key":"for","cmp":"eq","val":"all"}'"#;
    let config = WORKERS
        .replace("history_ttl", &format!("{filter}\n{READABLE}"))
        .replace("history_size = 1000", "history_size = 30");
    let server = Server::serve("plain-hidden", &config);
    let mut seen = Vec::new();
    for n in 1..=20 {
        let tag = if n % 3 == 0 { "all" } else { "few" };
        seen.extend((tag == "all").then_some(n));
        let body = json!({"channel": "h", "data": n, "tags": {"for": tag}});
        server.api("publish", &body.to_string());
    }
    assert_eq!(read_all(&server, "/history?channel=h&limit=2").0, seen);
    let page = get(&server, "/history?channel=h&limit=2").rest();
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let next = page["next"].as_str().expect("a position").to_owned();
    // What comes next is gone, whoever may know of it.
    for n in 21..=60 {
        let body = json!({"channel": "h", "data": n, "tags": {"for": "few"}});
        server.api("publish", &body.to_string());
    }
    let gone = get(&server, &format!("/history?channel=h&since={next}"));
    assert_eq!(gone.status, 410);
}

#[test]
fn only_what_everybody_may_read_is_kept_for_all() {
    let config = WORKERS
        .replace("history_ttl", READABLE)
        .replace("[http_api]", "user_id_http_header = \"X-User\"\n[http_api]");
    let server = Server::serve("plain-caches", &config);
    publish(&server, "c", &json!(1));
    for (fields, expected) in [
        ("", "public, max-age=1"),
        ("\r\nCookie: theme=dark", "public, max-age=1"),
        ("\r\nX-User: 42", "private, no-cache"),
        ("\r\nAuthorization: Basic YTpi", "private, no-cache"),
    ] {
        let head = format!("GET /history?channel=c HTTP/1.1{fields}");
        let answer = send(&server, &head, b"");
        assert_eq!(answer.status, 200, "{fields}");
        assert_eq!(answer.header("cache-control"), Some(expected), "{fields}");
    }
    // Without its body it is the same.
    let (head, get) = ["HEAD", "GET"]
        .map(|method| {
            send(
                &server,
                &format!("{method} /history?channel=c&wait=20 HTTP/1.1\r\nConnection: close"),
                b"",
            )
        })
        .into();
    assert_eq!((head.status, get.status), (200, 200));
    assert_eq!(head.header("etag"), get.header("etag"));
    assert_eq!(head.rest(), "");
}

#[test]
fn an_event_source_that_is_refused_for_now_comes_back() {
    let config = WORKERS.replace("[http_api]", "connection_limit = 1\n[http_api]");
    let server = Server::serve("plain-later", &config);
    let mut first = get(&server, "/lines?channel=e");
    first.message();
    let event_source = "GET /events?channel=e HTTP/1.1\r\nAccept: text/event-stream";
    let refused = send(&server, event_source, b"");
    assert_eq!(refused.status, 200);
    let kind = refused.header("content-type").expect("a type");
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let event = refused.rest();
    let rest = event.strip_prefix("retry: ").expect("when to come back");
    let (retry, rest) = rest.split_once('\n').expect("more fields");
    assert!(
        retry.parse::<u32>().is_ok_and(|retry| retry >= 1000),
        "{retry}"
    );
    assert!(rest.starts_with("event: end\ndata: "), "{rest}");
    // What is no browser looks at the status, and what is final is final.
    let refused = get(&server, "/events?channel=e");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    let wrong = "GET /events?chanel=e HTTP/1.1\r\nAccept: text/event-stream";
    assert_eq!(send(&server, wrong, b"").status, 400);
}

#[test]
fn an_event_source_is_told_that_it_may_have_missed_something() {
    let config = WORKERS.replace(
        "history_size = 1000\nhistory_ttl = \"60s\"\nforce_recovery = true\n",
        "",
    );
    let server = Server::serve("plain-passing", &config);
    let mut events = get(&server, "/events?channel=e");
    assert_eq!(events.event().expect("an id"), "id: -");
    publish(&server, "e", &json!(1));
    assert_eq!(events.event().expect("an event"), "data: 1");
    // As the browser does, when its line is cut.
    let head = "GET /events?channel=e HTTP/1.1\r\nLast-Event-ID: -";
    let mut again = send(&server, head, b"");
    let gap = again.event().expect("an event");
    assert!(gap.starts_with("event: gap\nid: -\ndata: "), "{gap}");
}

#[test]
fn a_poll_may_wait_for_what_comes() {
    let server = Server::dev();
    let page = get(&server, "/history?channel=w").rest();
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let next = page["next"].as_str().expect("a position");
    let path = format!("/history?channel=w&since={next}&wait=30");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(&server, &path));
        wait_until("it waits", || {
            let presence = server.api("presence_stats", r#"{"channel":"w"}"#);
            presence.contains(r#""num_clients":1"#).then_some(())
        });
        publish(&server, "w", &json!("at last"));
        waiting.join().expect("an answer")
    });
    assert_eq!(waiting.header("cache-control"), Some("no-store"));
    let page: Value = serde_json::from_str(&waiting.rest()).expect("JSON");
    assert_eq!(page["publications"][0]["data"], "at last");
    let next = page["next"].as_str().expect("a position");
    // What there is already is not waited for, and what doesn't come is given up.
    let empty = get(&server, &format!("/history?channel=w&since={next}&wait=1"));
    let page: Value = serde_json::from_str(&empty.rest()).expect("JSON");
    assert_eq!(page["publications"], json!([]));
    assert_eq!(page["next"], next);
    wait_until("nobody is left behind", || {
        let presence = server.api("presence_stats", r#"{"channel":"w"}"#);
        presence.contains(r#""num_clients":0"#).then_some(())
    });
}

#[test]
fn whoever_may_publishes() {
    let server = Server::dev();
    let mut lines = get(&server, "/lines?channel=pub");
    lines.message();
    let answer = post(
        &server,
        "/publish?channel=pub",
        "application/json",
        b"{\n\"a\": 1\n}",
    );
    assert_eq!((answer.status, &*answer.rest()), (200, "{}"));
    assert_eq!(lines.message()["data"], json!({"a": 1}));
    for (path, body, status, part) in [
        ("/publish?channel=pub", "hello", 400, "expected JSON"),
        ("/publish", "1", 400, "channel"),
        ("/publish?channel=", "1", 400, "its name is empty"),
        ("/publish?channel=pub&channel=b", "1", 400, "`channel` once"),
        ("/publish?channel=no:x", "1", 404, "unknown channel"),
        ("/publish?chanel=x", "1", 400, "`chanel`"),
    ] {
        let answer = post(&server, path, "text/plain", body.as_bytes());
        assert_eq!(answer.status, status, "{path}");
        let text = answer.rest();
        assert!(text.contains(part), "{path}: {text}");
    }
}

/// Made with the secret below, `{"sub":"ann"}`.
#[test]
fn what_is_asked_for_wrongly_is_told() {
    let server = Server::dev();
    for (path, part) in [
        ("/events", "channel"),
        ("/events?chanel=a", "`chanel`"),
        ("/lines?channel=a&since=5", "offset,epoch"),
        ("/history?channel=a&limit=0", "from 1 to 1000"),
        ("/history?channel=", "its name is empty"),
        ("/events?channel=", "its name is empty"),
        ("/lines?channel=a&channel=", "its name is empty"),
        ("/history?channel=a&channel=b", "`channel` once"),
        ("/history?channel=a&wait=1&wait=2", "`wait` once"),
        ("/events?channel=a&token=t&token=u", "`token` once"),
        ("/history?channel=a&limit=9999", "1000"),
        ("/history?channel=a&wait=900", "55"),
        ("/ws?channel=a&since=x", "offset,epoch"),
        ("/ws?chanel=a", "`chanel`"),
        ("/ws?channel=", "its name is empty"),
    ] {
        let (status, text) = match path.strip_prefix("/ws") {
            Some(_) => {
                let refused = Socket::open(&server, path, "").err().expect("a refusal");
                // A page is told nothing of a WebSocket that failed; it may ask without.
                let answer = get(&server, path);
                assert_eq!((answer.status, &answer.rest()), (refused.0, &refused.1));
                refused
            }
            None => {
                let answer = get(&server, path);
                (answer.status, answer.rest())
            }
        };
        assert_eq!(status, 400, "{path}");
        assert!(text.contains(part), "{path}: {text}");
    }
    for (path, part) in [
        (
            "/ws?channel=a",
            "new WebSocket(\"ws://<host>/ws?channel=news\")",
        ),
        ("/connection/websocket", "`centrifuge`"),
        ("/connection/uni_websocket", "/connection/uni_sse"),
    ] {
        let refused = get(&server, path);
        assert_eq!(refused.status, 426, "{path}");
        let text = refused.rest();
        assert!(text.contains(part), "{path}: {text}");
    }
    let foreign = "Origin: https://evil.example\r\n";
    for path in ["/ws?channel=a", "/connection/uni_websocket"] {
        let refused = Socket::open(&server, path, foreign).err();
        assert_eq!(refused.expect("a refusal").0, 403, "{path}");
    }
}

#[test]
fn a_listening_websocket_gets_pushes() {
    let mut server = Server::dev();
    let connect = "%7B%22subs%22%3A%7B%22u%22%3A%7B%7D%7D%7D";
    let path = format!("/connection/uni_websocket?cf_connect={connect}");
    let mut first = socket(&server, &path);
    assert!(first.json()["connect"]["subs"]["u"].is_object());
    let mut second = socket(&server, "/connection/uni_websocket");
    second.send(r#"{"subs":{"u":{}}}"#);
    assert!(second.json()["connect"]["client"].is_string());
    // Whatever else it says is nothing.
    second.send(r#"{"id":2,"publish":{"channel":"u","data":"no"}}"#);
    publish(&server, "u", &json!("yes"));
    for socket in [&mut first, &mut second] {
        wait_until("the publication", || {
            let push = socket.json();
            (push["pub"]["data"] == "yes").then_some(())
        });
    }
    let mut third = socket(&server, "/connection/uni_websocket");
    third.send("nonsense");
    assert_eq!(third.json()["disconnect"]["code"], 3501);
    assert_eq!(third.closed().0, 3501);
    server.signal("-TERM");
    // The others leave before it.
    let end = wait_until("the end", || {
        let push = first.json();
        push["leave"].is_null().then_some(push)
    });
    let shutdown = json!({"disconnect": {"code": 3001, "reason": "shutdown"}});
    assert_eq!(end, shutdown);
    assert_eq!(first.closed(), (3001, "shutdown".into()));
    drop((second, third));
    drop(first);
    assert!(server.wait().success());
}

#[test]
fn a_quiet_line_is_kept_alive() {
    let config = WORKERS.replace(
        "[client]",
        "[client]\nping_interval = \"1s\"\npong_timeout = \"500ms\"",
    );
    let config = config.replace("500ms", "900ms");
    let server = Server::serve("plain-quiet", &config);
    let mut events = get(&server, "/events?channel=q");
    for _ in 0..4 {
        let event = events.event().expect("a sign of life");
        assert!(event == ":" || event.starts_with("id: 0,"), "{event}");
    }
    let mut socket = socket(&server, "/ws?channel=q");
    socket.pinged();
    socket.pinged();
    publish(&server, "q", &json!(1));
    assert_eq!(socket.json(), json!(1));
}

#[test]
fn who_does_not_answer_pings_of_a_socket_is_gone() {
    let config = WORKERS.replace(
        "[client]",
        "[client]\nping_interval = \"1s\"\npong_timeout = \"500ms\"",
    );
    let server = Server::serve("plain-silent", &config);
    let mut socket = socket(&server, "/ws?channel=q");
    socket.is_silent = true;
    assert_eq!(socket.closed(), (3012, "no pong".into()));
    assert_eq!(socket.pings, 1);
}
