//! Requests and answers that get lost: each message comes once, in order, both ways.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};
use tautline_websocket::proto::Message;

use super::client::{Poll, frame, unframe};
use super::upstream::Upstream;
use crate::emulation::WORKERS;
use crate::lots::Lots;
use crate::process::Server;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The server gets half of it.
    Cut,
    /// The client gets nothing of the answer.
    Unanswered,
    /// The client gets a part of the answer.
    Half,
}

/// What was dealt to a request.
fn fate(dice: &mut Lots) -> Fate {
    match dice.below(10) {
        0 => Fate::Cut,
        1 | 2 => Fate::Unanswered,
        3 => Fate::Half,
        _ => Fate::Answered,
    }
}

/// Asks, and has what was dealt done to it. What came of the answer, as far as the client has it.
fn ask(client: &Poll<'_>, head: &Value, data: &[u8], fate: Fate) -> Option<(u16, Vec<u8>)> {
    let mut body = format!("{head}\n").into_bytes();
    body.extend_from_slice(data);
    let (path, address, len) = (&client.path, client.server.address, body.len());
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
    )
    .into_bytes();
    request.extend(body);
    let mut stream = client.server.connect();
    if fate == Fate::Cut {
        request.truncate(request.len() / 2);
    }
    stream.write_all(&request).expect("a request");
    if matches!(fate, Fate::Cut | Fate::Unanswered) {
        return None;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    if fate == Fate::Half {
        answer.truncate(answer.len() * 2 / 3);
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).expect("a head is text");
    let status = head[9..12].parse().expect("a status");
    let body = &answer[end..];
    if head.contains("chunked") {
        return Some((status, dechunked(body)));
    }
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let len = len.map_or(0, |len| len.parse().expect("a length"));
    // A whole answer, or none.
    (body.len() == len).then(|| (status, body.to_vec()))
}

/// What came of the chunks.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let line = std::str::from_utf8(&bytes[..end]).expect("a length");
        let len = usize::from_str_radix(line, 16).expect("a length");
        let rest = &bytes[end + 2..];
        body.extend_from_slice(&rest[..len.min(rest.len())]);
        match rest.get(len + 2..) {
            Some(more) if len > 0 => bytes = more,
            _ => break,
        }
    }
    body
}

/// Takes the parts of an answer that are whole.
fn parts(client: &mut Poll<'_>, body: &[u8], goes_on: bool, got: &mut Vec<Message>) {
    let mut rest = body;
    while let Some(feed) = rest.iter().position(|byte| *byte == b'\n') {
        let Ok(head) = serde_json::from_slice::<Value>(&rest[..feed]) else {
            return;
        };
        let data = &rest[feed + 1..];
        let size = if goes_on {
            usize::try_from(head["size"].as_u64().expect("a size")).expect("small")
        } else {
            data.len()
        };
        let Some(messages) = data.get(..size) else {
            return;
        };
        got.extend(unframe(messages));
        client.next = head["next"].as_u64().expect("a number");
        rest = &data[size..];
    }
}

#[test]
fn whatever_gets_lost_each_message_comes_once_and_in_order_both_ways() {
    let upstream = Upstream::start();
    let config = format!("{WORKERS}{}", upstream.tunnel("to", ""));
    let server = Server::serve("tunnel-lossy", &config);
    for seed in 1..=3_u64 {
        let mut dice = Lots(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let before = upstream.received().len();
        let mut client = Poll::open(&server, "/tunnel/to/echo");
        let messages: Vec<_> = (0..300_u64)
            .map(|number| {
                let len = match dice.below(20) {
                    0 => dice.below(150_000),
                    1 | 2 => 0,
                    _ => dice.below(2000),
                };
                let text = format!("{number}:{}", "x".repeat(len as usize));
                if dice.below(2) == 0 {
                    Message::from(text)
                } else {
                    Message::from(text.into_bytes())
                }
            })
            .collect();
        let whole: Vec<u8> = messages.iter().flat_map(frame).collect();
        let (mut at, mut piece) = (0, 0..0);
        let mut got = Vec::new();
        let mut lost = 0;
        while at < whole.len() || got.len() < messages.len() {
            if piece.is_empty() && at < whole.len() {
                let len = 1 + dice.below(20_000) as usize;
                piece = at..whole.len().min(at + len);
            }
            if !piece.is_empty() && dice.below(2) == 0 {
                let head = json!({"session": client.session(), "send": client.sent + 1});
                let fate = fate(&mut dice);
                match ask(&client, &head, &whole[piece.clone()], fate) {
                    Some((204, _)) => {
                        client.sent += 1;
                        at = piece.end;
                        piece = 0..0;
                    }
                    Some((202, _)) => {}
                    None => lost += 1,
                    Some((status, body)) => {
                        panic!("seed {seed}: {status} {}", String::from_utf8_lossy(&body))
                    }
                }
                continue;
            }
            let goes_on = dice.below(2) == 0;
            let hold = u64::from(at == whole.len());
            let head = client.poll_head(hold, goes_on);
            let fate = fate(&mut dice);
            match ask(&client, &head, b"", fate) {
                Some((200, body)) => parts(&mut client, &body, goes_on, &mut got),
                // One that was given up is there still.
                Some((409, _)) => {}
                None => lost += 1,
                Some((status, body)) => {
                    panic!("seed {seed}: {status} {}", String::from_utf8_lossy(&body))
                }
            }
        }
        assert!(lost > 10, "seed {seed}: {lost} were lost");
        assert!(
            got == messages,
            "seed {seed}: {} of {}",
            got.len(),
            messages.len()
        );
        let received = upstream.received().split_off(before);
        assert!(received == messages, "seed {seed}: {} came", received.len());
        assert_eq!(client.close(1000, "done"), 204);
    }
}
