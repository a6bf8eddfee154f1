//! Commands that ask for too much, and JSON that is made to be expensive.

use std::io::Write as _;

use serde_json::json;

use crate::socket::{Said, Socket};
use crate::stand::Stand;
use crate::wire::read_to_end;

fn connect(stand: &Stand) -> Socket {
    let mut socket =
        Socket::open(&stand.server, "/connection/websocket", "").expect("it is let in");
    socket.send(r#"{"id":1,"connect":{}}"#);
    assert!(socket.text().contains("\"connect\""));
    socket
}

/// What a client is told until it is cut off: how many of its commands were answered well, the errors of the
/// others, and the code of the end.
fn answers(socket: &mut Socket) -> (usize, Vec<u64>, u16) {
    let (mut good, mut errors) = (0, Vec::new());
    loop {
        match socket.next() {
            Said::Close(code, _) => return (good, errors, code),
            Said::Text(text) => {
                for line in text.lines() {
                    let message: serde_json::Value = serde_json::from_str(line).unwrap();
                    match message["error"]["code"].as_u64() {
                        Some(code) => errors.push(code),
                        None => good += usize::from(message["subscribe"].is_object()),
                    }
                }
            }
        }
    }
}

#[test]
fn subscriptions_without_end() {
    let stand = Stand::new("subscriptions", "connect = \"off\"", "");
    let count = stand.endures(
        "5,000 subscriptions of a connection: error 106 beyond 128, then disconnect 3509",
        0,
        |users| {
            let mut count = 0;
            while count < 4 || users.want_more() {
                let mut socket = connect(&stand);
                let mut writing = socket.stream();
                let writer = std::thread::spawn(move || {
                    for first in (2..5_002).step_by(500) {
                        let commands: Vec<_> = (first..first + 500)
                            .map(|id| {
                                let channel = format!("live:{id}");
                                json!({"id": id, "subscribe": {"channel": channel}}).to_string()
                            })
                            .collect();
                        let text = commands.join("\n");
                        let mut frame = vec![0x81, 0x80 | 126];
                        frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
                        frame.extend([0; 4]);
                        frame.extend_from_slice(text.as_bytes());
                        if writing.write_all(&frame).is_err() {
                            return;
                        }
                    }
                });
                let (good, errors, code) = answers(&mut socket);
                assert_eq!(code, 3509);
                assert!(good <= 128, "{good}");
                assert!(errors.iter().all(|code| matches!(code, 106 | 111)));
                // 1,000, and those that come back meanwhile, 100 a second.
                assert!(errors.len() < 2_000, "{}", errors.len());
                drop(socket);
                writer.join().unwrap();
                count += 1;
            }
            count
        },
    );
    stand.counts(r#"client_num_server_disconnects{code="3509"}"#, count);
    stand.counts(r#"client_over_limit_total{limit="errors",operation=""}"#, 1);
}

/// The same in the one command of a client that only listens.
#[test]
fn subscriptions_in_one_request() {
    let stand = Stand::new("subs", "connect = \"off\"", "");
    let subs: serde_json::Map<_, _> = (0..3_000)
        .map(|n| (format!("live:{n}"), json!({})))
        .collect();
    let body = json!({ "subs": subs }).to_string();
    stand.endures(
        "3,000 channels in one request to listen: disconnect 3505",
        0,
        |users| {
            let mut count = 0;
            while count < 4 || users.want_more() {
                let mut stream = stand.connect();
                let len = body.len();
                write!(
                    stream,
                    "POST /connection/uni_http_stream HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"
                )
                .unwrap();
                let said = read_to_end(&mut stream);
                let said = String::from_utf8_lossy(&said);
                assert!(said.contains("\"code\":3505"), "{said}");
                count += 1;
            }
            count
        },
    );
    stand.counts(r#"client_num_server_disconnects{code="3505"}"#, 1);
}

#[test]
fn json_that_is_deep() {
    let stand = Stand::new("deep", "connect = \"off\"", "");
    let deep = format!(
        r#"{{"id":2,"publish":{{"channel":"a","data":{}}}}}"#,
        "[".repeat(60_000)
    );
    let closed = format!(
        r#"{{"id":2,"publish":{{"channel":"a","data":{}{}}}}}"#,
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    let objects = format!(r#"{{"id":2,"rpc":{}"#, r#"{"a":"#.repeat(12_000));
    let count = stand.endures(
        "JSON of 60,000 levels: disconnect 3501, or 400",
        0,
        |users| {
            let mut count = 0;
            while count == 0 || users.want_more() {
                for text in [&deep, &closed, &objects] {
                    let mut socket = connect(&stand);
                    socket.send(text);
                    assert_eq!(answers(&mut socket).2, 3501, "{}", &text[..60]);
                    count += 1;
                    let answer = stand
                        .http()
                        .ask("POST /publish?channel=a HTTP/1.1", text.as_bytes());
                    assert_eq!(answer.status, 400, "{}", answer.text());
                }
            }
            count
        },
    );
    stand.counts(r#"client_num_server_disconnects{code="3501"}"#, count);
    let answer = stand.http().ask(
        "POST /api/publish HTTP/1.1\r\nX-API-Key: dev",
        "[".repeat(1_000_000).as_bytes(),
    );
    assert_eq!(answer.status, 400, "{}", answer.text());
    // Whoever has no key isn't even read.
    let answer = stand
        .http()
        .ask("POST /api/publish HTTP/1.1", &[b'['; 1_000_000]);
    assert_eq!(answer.status, 401);
    stand.counts(r#"api_refused_total{status="400"}"#, 1);
}

#[test]
fn json_that_is_huge() {
    let stand = Stand::new("huge", "connect = \"off\"", "");
    let string = format!(r#"{{"id":2,"rpc":{{"method":"{}"}}}}"#, "x".repeat(65_000));
    let numbers = format!(
        r#"{{"id":2,"rpc":{{"data":[{}1]}}}}"#,
        "1e308,".repeat(10_800)
    );
    let keys: String = (0..6_000).map(|n| format!("\"k{n}\":0,")).collect();
    let keys = format!(r#"{{"id":2,"rpc":{{"data":{{{keys}"z":0}}}}}}"#);
    let replies = "{\"id\":2}\n".repeat(7_000);
    let pongs = "{}\n".repeat(20_000);
    // What becomes of twenty of each: the error of every one, or the end.
    let cases = [
        (&string, [108; 20].as_slice(), 1000),
        (&numbers, &[108; 20], 1000),
        (&keys, &[108; 20], 1000),
        (&replies, &[], 3501),
        (&pongs, &[], 3501),
    ];
    stand.endures(
        "messages of 64 KB of JSON, one after the other: error 108 for each call, disconnect 3501 for what is no command",
        16 * 1024 * 1024,
        |users| {
            let mut round = 0;
            while round == 0 || users.want_more() {
                for (text, expected, end) in cases {
                    let mut socket = connect(&stand);
                    let mut writing = socket.stream();
                    let its = text.clone();
                    let writer = std::thread::spawn(move || {
                        let mut frame = vec![0x81, 0x80 | 126];
                        frame.extend(u16::try_from(its.len()).unwrap().to_be_bytes());
                        frame.extend([0; 4]);
                        frame.extend_from_slice(its.as_bytes());
                        for _ in 0..20 {
                            if writing.write_all(&frame).is_err() {
                                return;
                            }
                        }
                        let _ = writing.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]);
                    });
                    let (_, errors, code) = answers(&mut socket);
                    assert_eq!((&*errors, code), (expected, end), "{}", &text[..60]);
                    drop(socket);
                    writer.join().unwrap();
                }
                round += 1;
            }
        },
    );
    // Longer than a message may be.
    let mut socket = connect(&stand);
    let mut raw = socket.stream();
    let mut head = vec![0x81, 0x80 | 127];
    head.extend(100_000_u64.to_be_bytes());
    head.extend([0; 4]);
    raw.write_all(&head).unwrap();
    assert_eq!(answers(&mut socket).2, 1009);
    stand.counts(r#"websocket_failures_total{code="1009"}"#, 1);
    let answer = stand.http().ask(
        "POST /api/publish HTTP/1.1\r\nX-API-Key: dev",
        &[b' '; 2_000_000],
    );
    assert_eq!(answer.status, 413);
    stand.counts(r#"api_refused_total{status="413"}"#, 1);
}

/// More commands than anybody needs.
#[test]
fn commands_without_end() {
    let stand = Stand::new("commands", "connect = \"off\"", "");
    let count = stand.endures(
        "publications as fast as they go: error 111 beyond the rate, then disconnect 3509",
        8 * 1024 * 1024,
        |users| {
            let mut count = 0;
            while count < 2 || users.want_more() {
                let mut socket = connect(&stand);
                let mut writing = socket.stream();
                let writer = std::thread::spawn(move || {
                    for id in 2..200_000 {
                        let text =
                            format!(r#"{{"id":{id},"publish":{{"channel":"busy","data":1}}}}"#);
                        let mut frame = vec![0x81, 0x80 | text.len() as u8];
                        frame.extend([0; 4]);
                        frame.extend_from_slice(text.as_bytes());
                        if writing.write_all(&frame).is_err() {
                            return;
                        }
                    }
                });
                let (_, errors, code) = answers(&mut socket);
                assert_eq!(code, 3509);
                assert!(errors.iter().all(|code| *code == 111));
                drop(socket);
                writer.join().unwrap();
                count += 1;
            }
            count
        },
    );
    stand.counts(r#"client_num_server_disconnects{code="3509"}"#, count);
}
