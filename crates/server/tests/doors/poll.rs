//! Long-polling: nothing lost, nothing twice, whatever gets lost on the way.

use std::thread::ScopedJoinHandle;

use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::{Response, post, send};
use crate::process::{Server, wait_until};

const PATH: &str = "/connection/poll";
const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// An answer with messages.
#[derive(Debug, PartialEq)]
struct Answer {
    head: Value,
    messages: Vec<Value>,
}

impl Answer {
    fn read(response: Response) -> Self {
        assert_eq!(response.status, 200, "{}", response.head);
        assert_eq!(
            response.header("content-type"),
            Some("application/x-ndjson")
        );
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let body = response.rest();
        assert!(body.ends_with('\n'), "{body}");
        let mut lines = body
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"));
        let head = lines.next().expect("there is a head");
        Self {
            head,
            messages: lines.collect(),
        }
    }

    fn next(&self) -> u64 {
        self.head["next"].as_u64().expect("a number")
    }
}

/// A client.
struct Client<'s> {
    server: &'s Server,
    session: String,
    next: u64,
    sent: u64,
}

fn ask(server: &Server, head: &Value, data: &str) -> Response {
    let body = format!("{head}\n{data}");
    post(server, PATH, "text/plain", body.as_bytes())
}

impl<'s> Client<'s> {
    fn open(server: &'s Server) -> Self {
        let answer = Answer::read(ask(server, &json!({"open": 1}), CONNECT));
        assert!(answer.messages[0]["connect"]["client"].is_string());
        assert_eq!(answer.messages[0]["connect"]["session"], Value::Null);
        Self {
            server,
            session: answer.head["session"].as_str().expect("a name").to_owned(),
            next: answer.next(),
            sent: 0,
        }
    }

    fn ask_poll(&self, number: u64, hold: u64) -> Response {
        let head = json!({"session": self.session, "poll": number, "hold": hold});
        ask(self.server, &head, "")
    }

    /// Polls, and acknowledges with the next.
    fn poll(&mut self) -> Answer {
        let answer = Answer::read(self.ask_poll(self.next, 25));
        self.next = answer.next();
        answer
    }

    /// Polls for an answer that goes on, whose first part is there at once.
    fn listen(&self, hold: u64) -> Listening {
        let head =
            json!({"session": self.session, "poll": self.next, "hold": hold, "stream": true});
        let response = ask(self.server, &head, "");
        assert_eq!(response.status, 200, "{}", response.head);
        assert_eq!(response.header("x-accel-buffering"), Some("no"));
        Listening(response)
    }

    fn send_as(&self, number: u64, commands: &str) -> Response {
        let head = json!({"session": self.session, "send": number});
        ask(self.server, &head, commands)
    }

    fn send(&mut self, commands: &str) -> u16 {
        self.sent += 1;
        self.send_as(self.sent, commands).status
    }

    fn close(&self) -> u16 {
        let head = json!({"session": self.session, "close": true});
        ask(self.server, &head, "").status
    }
}

/// An answer that goes on.
struct Listening(Response);

impl Listening {
    /// The next part; `None` at the end.
    fn part(&mut self) -> Option<Answer> {
        let head = self.0.line()?;
        let mut left = head["size"].as_u64().expect("a size");
        let mut messages = Vec::new();
        while left > 0 {
            let line = self.0.until(b"\n").expect("as much as it says");
            left -= line.len() as u64;
            messages.push(serde_json::from_slice(&line).expect("a line is JSON"));
        }
        Some(Answer { head, messages })
    }
}

fn published(answer: &Answer) -> Vec<Value> {
    let messages = answer.messages.iter();
    let data = messages.map(|message| message["push"]["pub"]["data"].clone());
    data.filter(|data| !data.is_null()).collect()
}

#[test]
fn any_worker_takes_any_poll() {
    let server = Server::serve("poll-workers", WORKERS);
    let mut clients: Vec<_> = (0..6).map(|_| Client::open(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#), 204);
        let answer = client.poll();
        assert!(answer.messages[0]["subscribe"].is_object(), "{answer:?}");
    }
    // Each request on a connection of its own, which the kernel gives to whichever worker.
    for round in 0..20 {
        let command = format!(r#"{{"id":3,"publish":{{"channel":"a","data":{round}}}}}"#);
        assert_eq!(clients[round % 6].send(&command), 204);
        for client in &mut clients {
            let data = loop {
                // The publisher hears of its own success in another message.
                if let Some(data) = published(&client.poll()).pop() {
                    break data;
                }
            };
            assert_eq!(data, round);
        }
    }
}

#[test]
fn an_answer_that_got_lost_comes_again() {
    let server = Server::serve("poll-lost", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.poll();
    for number in 0..3 {
        server.api(
            "publish",
            &json!({"channel": "a", "data": number}).to_string(),
        );
    }
    let first = Answer::read(client.ask_poll(client.next, 25));
    let had = published(&first);
    server.api("publish", r#"{"channel":"a","data":3}"#);
    let again = Answer::read(client.ask_poll(client.next, 25));
    assert!(published(&again).starts_with(&had), "{again:?}");
    // Acknowledged, it never comes again.
    client.next = again.next();
    let mut all = published(&again);
    while all.len() < 4 {
        all.append(&mut published(&client.poll()));
    }
    assert_eq!(all, [0, 1, 2, 3]);
    let nothing = Answer::read(client.ask_poll(client.next, 0));
    assert_eq!(
        (nothing.messages, nothing.head),
        (vec![], json!({"next": client.next}))
    );
}

#[test]
fn numbers_that_can_not_be_disturb_nobody() {
    let server = Server::serve("poll-numbers", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.poll();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Answer::read(client.ask_poll(client.next, 55)));
        for number in [0, client.next + 1, u64::MAX] {
            let answer = client.ask_poll(number, 25);
            assert_eq!(answer.status, 410, "{number}");
        }
        server.api("publish", r#"{"channel":"a","data":1}"#);
        let answer = waiting.join().expect("it is answered");
        assert_eq!(published(&answer), [1]);
    });
}

#[test]
fn a_second_poll_ends_the_first() {
    let server = Server::serve("poll-second", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.poll();
    std::thread::scope(|scope| {
        let polls = [(); 2].map(|()| scope.spawn(|| client.ask_poll(client.next, 55)));
        // Whichever was first.
        wait_until("one is ended", || {
            polls
                .iter()
                .any(ScopedJoinHandle::is_finished)
                .then_some(())
        });
        server.api("publish", r#"{"channel":"a","data":1}"#);
        let mut statuses = polls.map(|poll| poll.join().expect("it is answered").status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    });
}

#[test]
fn a_frame_is_executed_once() {
    let server = Server::serve("poll-once", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    let publish = r#"{"id":3,"publish":{"channel":"a","data":1}}"#;
    assert_eq!(client.send_as(3, publish).status, 409);
    for _ in 0..3 {
        assert_eq!(client.send_as(2, publish).status, 204);
    }
    assert_eq!(client.send_as(1, publish).status, 204);
    assert_eq!(
        client
            .send_as(3, "{\"id\":4,\"history\":{\"channel\":\"b\"}}")
            .status,
        204
    );
    let mut messages = Vec::new();
    while !messages.iter().any(|message: &Value| message["id"] == 4) {
        messages.append(&mut client.poll().messages);
    }
    let published = messages
        .iter()
        .filter(|message| message["push"]["pub"].is_object());
    assert_eq!(published.count(), 1, "{messages:?}");
    assert_eq!(
        messages.iter().filter(|message| message["id"] == 3).count(),
        1
    );
}

#[test]
fn an_open_with_nothing_is_answered_at_once() {
    let server = Server::serve("poll-open", WORKERS);
    let answer = Answer::read(ask(&server, &json!({"open": 1}), ""));
    assert_eq!(answer.head["next"], 0);
    assert_eq!(answer.head["idle"], 20);
    assert_eq!(answer.messages, Vec::<Value>::new());
    let mut client = Client {
        server: &server,
        session: answer.head["session"].as_str().expect("a name").to_owned(),
        next: 0,
        sent: 0,
    };
    assert_eq!(client.send(CONNECT), 204);
    assert!(client.poll().messages[0]["connect"].is_object());
}

#[test]
fn the_end_is_told_and_told_again() {
    let server = Server::serve("poll-end", WORKERS);
    let mut client = Client::open(&server);
    assert_eq!(client.send("nonsense"), 204);
    let end = json!({"code": 3501, "reason": "bad request"});
    for _ in 0..2 {
        let answer = Answer::read(client.ask_poll(client.next, 25));
        assert_eq!(answer.head["end"], end);
    }
    assert_eq!(client.send("{}"), 404);
    assert_eq!(client.close(), 204);
    wait_until("it is forgotten", || {
        (client.ask_poll(client.next, 0).status == 404).then_some(())
    });

    // Its own end.
    let client = Client::open(&server);
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.ask_poll(client.next, 55));
        assert_eq!(client.close(), 204);
        waiting.join().expect("it is answered")
    });
    // It may have come too late.
    if answer.status != 404 {
        assert_eq!(Answer::read(answer).head["end"]["code"], 3000);
    }
    wait_until("it is over", || (client.close() == 404).then_some(()));
}

#[test]
fn a_shutdown_is_told() {
    let mut server = Server::serve("poll-shutdown", WORKERS);
    let client = Client::open(&server);
    let answer = std::thread::scope(|scope| {
        let mut polls =
            Vec::from([(); 2].map(|()| scope.spawn(|| client.ask_poll(client.next, 55))));
        // When one has ended the other, that one waits.
        let ended = wait_until("one waits", || {
            polls.iter().position(ScopedJoinHandle::is_finished)
        });
        polls.remove(ended);
        server.signal("-TERM");
        polls.remove(0).join().expect("it is answered")
    });
    assert_eq!(Answer::read(answer).head["end"]["code"], 3001);
    assert!(server.wait().success());
}

#[test]
fn a_session_without_polls_ends() {
    let config = format!("{WORKERS}\n[doors]\npoll_timeout = \"2s\"\nmax_sessions = 2\n");
    let server = Server::serve("poll-idle", &config);
    let client = Client::open(&server);
    let kept = Client::open(&server);
    let full = ask(&server, &json!({"open": 1}), CONNECT);
    assert_eq!((full.status, full.header("retry-after")), (503, Some("10")));
    std::thread::scope(|scope| {
        // A poll that waits keeps a session for as long as it does.
        let waiting = scope.spawn(|| Answer::read(kept.ask_poll(kept.next, 15)));
        wait_until("one is over", || {
            // Commands alone keep nothing.
            (client.send_as(9, "{}").status == 404).then_some(())
        });
        assert!(!waiting.is_finished(), "it is over before that poll is");
        assert_eq!(
            kept.send_as(1, r#"{"id":2,"subscribe":{"channel":"idle"}}"#)
                .status,
            204
        );
        let answer = waiting.join().expect("it is answered");
        assert!(answer.messages[0]["subscribe"].is_object());
    });
    drop(kept);
    wait_until("there is room again", || {
        (ask(&server, &json!({"open": 1}), CONNECT).status == 200).then_some(())
    });
}

#[test]
fn nobody_polls_for_another() {
    let server = Server::serve("poll-forged", WORKERS);
    let client = Client::open(&server);
    let (node, code) = client.session.split_once('.').expect("a node");
    let flipped = |index: usize| {
        let mut code = code.as_bytes().to_vec();
        code[index] = if code[index] == b'A' { b'B' } else { b'A' };
        format!("{node}.{}", String::from_utf8(code).expect("text"))
    };
    for forged in [
        String::new(),
        code.to_owned(),
        flipped(0),
        flipped(5),
        flipped(20),
        format!("other.{code}"),
    ] {
        for what in [
            json!({"poll": 1}),
            json!({"send": 1}),
            json!({"close": true}),
        ] {
            let mut head = what;
            head["session"] = forged.clone().into();
            let data = if head["send"] == 1 { "{}" } else { "" };
            let answer = ask(&server, &head, data);
            assert_eq!(answer.status, 404, "{head}");
        }
        assert_eq!(crate::http::emulate(&server, &forged, "", "{}").status, 404);
    }
    // The other door for commands has no numbers, so it isn't one for this session; nor is another
    // door's session one that can be polled.
    assert_eq!(
        crate::http::emulate(&server, &client.session, "", "{}").status,
        404
    );
    let other = crate::http::Session::connect(&server);
    let head = json!({"session": other.session, "poll": 0});
    assert_eq!(ask(&server, &head, "").status, 404);

    // A name is worth nothing any more when its session is over, even if the place is taken again.
    assert_eq!(client.close(), 204);
    wait_until("it is over", || (client.close() == 404).then_some(()));
    let others: Vec<_> = (0..12).map(|_| Client::open(&server)).collect();
    assert!(others.iter().all(|other| other.session != client.session));
    assert_eq!(client.ask_poll(client.next, 0).status, 404);
}

#[test]
fn requests_that_can_not_be_are_told_so() {
    let server = Server::serve("poll-bad", WORKERS);
    let mut client = Client::open(&server);
    let session = &client.session;
    for (body, part) in [
        (String::new(), "first line"),
        ("{}".to_owned(), "first line"),
        (format!(r#"{{"session":"{session}","send":1}}"#), "commands"),
        (
            format!(r#"{{"session":"{session}","poll":0,"hold":99}}"#),
            "55",
        ),
    ] {
        let answer = post(&server, PATH, "text/plain", body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        let rest = answer.rest();
        assert!(rest.contains(part), "{body}: {rest}");
    }
    let not_utf8 = [
        format!(r#"{{"session":"{session}","send":1}}"#).as_bytes(),
        b"\n\xff",
    ]
    .concat();
    assert_eq!(post(&server, PATH, "text/plain", &not_utf8).status, 400);
    let head = json!({"session": session, "send": 1});
    assert_eq!(ask(&server, &head, &"x".repeat(65_536)).status, 413);
    assert_eq!(
        send(&server, &format!("GET {PATH} HTTP/1.1"), b"").status,
        405
    );
    // Another encoding than the session's.
    let body = format!("{head}\n{{}}");
    let other = post(&server, PATH, "application/octet-stream", body.as_bytes());
    assert_eq!(other.status, 404);
    // None of that has a number.
    assert_eq!(client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#), 204);
    assert!(client.poll().messages[0]["subscribe"].is_object());
}

#[test]
fn a_reader_that_rests_is_parked_and_misses_nothing() {
    let server = Server::serve("poll-parked", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"slow"}}"#);
    client.poll();
    // More than may wait for a client, and less than the history keeps.
    let text = "x".repeat(20_000);
    for number in 0..300 {
        let publish = json!({"channel": "slow", "data": {"n": number, "text": text}});
        server.api("publish", &publish.to_string());
    }
    let mut next = 0;
    let mut polls = 0;
    while next < 300 {
        // Every third answer is lost.
        polls += 1;
        if polls % 3 == 0 {
            assert_eq!(client.ask_poll(client.next, 25).status, 200);
        }
        let answer = client.poll();
        let len: usize = answer.messages.iter().map(|m| m.to_string().len()).sum();
        assert!(len <= 64 * 1024, "{len}");
        for data in published(&answer) {
            assert_eq!(data["n"], next);
            next += 1;
        }
    }
}

#[test]
fn protobuf_is_carried_too() {
    let server = Server::serve("poll-protobuf", WORKERS);
    let kind = "application/octet-stream";
    let ask = |head: Value, data: &[u8]| {
        let body = [head.to_string().as_bytes(), b"\n", data].concat();
        post(&server, PATH, kind, &body)
    };
    // A head that is a line of JSON, and messages with their length before each.
    let read = |response: Response| {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some(kind));
        let body = response.rest_bytes();
        let end = body.iter().position(|byte| *byte == b'\n').expect("a head");
        let head: Value = serde_json::from_slice(&body[..end]).expect("JSON");
        (head, body[end + 1..].to_vec())
    };
    let (head, reply) = read(ask(json!({"open": 1}), b"\x04\x08\x01\x22\x00"));
    assert_eq!(usize::from(reply[0]) + 1, reply.len(), "{reply:?}");
    let session = head["session"].clone();
    let subscribe = b"\x0a\x08\x02\x2a\x06\x0a\x04news";
    let answer = ask(json!({"session": session, "send": 1}), subscribe);
    assert_eq!(answer.status, 204);
    let (_, reply) = read(ask(json!({"session": session, "poll": head["next"]}), b""));
    assert_eq!(reply[1..4], [0x08, 0x02, 0x32], "{reply:?}");
}

#[test]
fn an_answer_goes_on_with_what_comes() {
    let server = Server::serve("poll-stream", WORKERS);
    let mut client = Client::open(&server);
    let mut listening = client.listen(55);
    let first = listening.part().expect("it begins at once");
    assert_eq!(first.head, json!({"next": client.next, "size": 0}));
    assert_eq!(client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#), 204);
    let part = listening.part().expect("the reply");
    assert!(part.messages[0]["subscribe"].is_object(), "{part:?}");
    let mut had = Vec::new();
    for number in 0..5 {
        let body = json!({"channel": "a", "data": number}).to_string();
        server.api("publish", &body);
        let part = listening.part().expect("a publication");
        had.append(&mut published(&part));
    }
    assert_eq!(had, [0, 1, 2, 3, 4]);

    // None of that is acknowledged: whoever lost it has it again, by a poll of either kind.
    drop(listening);
    let again = Answer::read(client.ask_poll(client.next, 25));
    assert_eq!(published(&again), had);
    let mut listening = client.listen(55);
    let again = listening.part().expect("all of it");
    assert_eq!(published(&again), had);
    client.next = again.next();

    // A poll ends one that goes on; acknowledged, nothing comes again.
    let nothing = Answer::read(client.ask_poll(client.next, 0));
    assert_eq!(nothing.messages, Vec::<Value>::new());
    assert_eq!(listening.part(), None);
}

#[test]
fn an_answer_that_goes_on_ends() {
    let server = Server::serve("poll-stream-end", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    client.poll();
    // When it was held as long as it asked for.
    let mut listening = client.listen(0);
    assert_eq!(listening.part().expect("the first").messages.len(), 0);
    assert_eq!(listening.part(), None);

    // When it carries as much as an answer may.
    let mut listening = client.listen(55);
    listening.part();
    let text = "x".repeat(20_000);
    let data = json!({"channel": "a", "data": text}).to_string();
    for _ in 0..4 {
        server.api("publish", &data);
    }
    let mut count = 0;
    while let Some(part) = listening.part() {
        count += published(&part).len();
        client.next = part.next();
    }
    assert!((3..=4).contains(&count), "{count}");
    if count == 3 {
        let mut listening = client.listen(55);
        let part = listening.part().expect("what is left");
        assert_eq!(published(&part).len(), 1);
        client.next = part.next();
    }

    // With the session.
    let mut listening = client.listen(55);
    listening.part();
    assert_eq!(client.send("nonsense"), 204);
    let part = listening.part().expect("the end");
    assert_eq!(
        part.head["end"],
        json!({"code": 3501, "reason": "bad request"})
    );
    assert_eq!(listening.part(), None);
    // A number that can't be is refused before it begins.
    let head = json!({"session": client.session, "poll": 999, "stream": true});
    assert_eq!(ask(&server, &head, "").status, 410);
}

#[test]
fn a_reader_of_answers_that_go_on_is_read_on_for() {
    let server = Server::serve("poll-stream-parked", WORKERS);
    let mut client = Client::open(&server);
    client.send(r#"{"id":2,"subscribe":{"channel":"slow"}}"#);
    client.poll();
    // More than may wait for a client, and less than the history keeps.
    let text = "x".repeat(20_000);
    for number in 0..300 {
        let data = json!({"number": number, "text": text});
        let body = json!({"channel": "slow", "data": data}).to_string();
        server.api("publish", &body);
    }
    // What the hub holds back comes when all before it is acknowledged, and no answer is held for that.
    let mut seen = Vec::new();
    while seen.len() < 300 {
        let mut listening = client.listen(55);
        while let Some(part) = listening.part() {
            client.next = part.next();
            for data in published(&part) {
                seen.push(data["number"].as_u64().expect("a number"));
            }
            if seen.len() == 300 {
                break;
            }
        }
    }
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}
