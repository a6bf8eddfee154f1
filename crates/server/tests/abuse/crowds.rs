//! Crowds in one channel, of which each does little, and all are told of it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Shutdown;
use std::thread;

use serde_json::{Value, json};

use crate::honest::Users;
use crate::process::wait_until;
use crate::socket::{Said, Socket};
use crate::stand::Stand;

/// How many strangers there are at a time.
const CROWD: usize = 30;

/// A channel for them, in which little is too much.
const CHANNELS: &str = r#"
[[channel.namespaces]]
name = "crowd"
presence = true
join_leave = true
force_push_join_leave = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
subscribe_rate_for_client = "100/s"
client_deliveries_per_second = 20000
join_leave_deliveries_per_second = 20000
"#;

/// One of them, who hears the others.
fn member(stand: &Stand) -> Socket {
    let mut socket =
        Socket::open(&stand.server, "/connection/websocket", "").expect("it is let in");
    socket.send(r#"{"id":1,"connect":{}}"#);
    socket.send(SUBSCRIBE);
    while !messages(&socket.text())
        .iter()
        .any(|message| message["id"] == 2)
    {}
    socket
}

const SUBSCRIBE: &str = r#"{"id":2,"subscribe":{"channel":"crowd:a"}}"#;

fn messages(text: &str) -> Vec<Value> {
    let lines = text.lines();
    let messages = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    messages.collect()
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126];
    let length = u16::try_from(text.len()).expect("a short one");
    frame.extend(length.to_be_bytes());
    // A key of zeros masks nothing.
    frame.extend([0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Has all of a crowd say `commands` again and again, and read what they are told, until each is cut off. Returns how often
/// that was, which is when the users of good will have had enough.
fn storm(stand: &Stand, users: &Users, commands: &str) -> usize {
    let frame = frame(commands);
    let mut count = 0;
    while count == 0 || users.want_more() {
        // All of them are there before the first begins.
        let crowd: Vec<_> = (0..CROWD).map(|_| member(stand)).collect();
        let storming: Vec<_> = crowd
            .into_iter()
            .map(|mut socket| {
                let (mut writing, ending) = (socket.stream(), socket.stream());
                let frame = frame.clone();
                let writer = thread::spawn(move || while writing.write_all(&frame).is_ok() {});
                let reader = thread::spawn(move || {
                    let mut errors = BTreeSet::new();
                    loop {
                        match socket.next() {
                            Said::Close(code, _) => {
                                // It may have gone by now.
                                let _ = ending.shutdown(Shutdown::Both);
                                return (code, errors);
                            }
                            Said::Text(text) => {
                                let all = messages(&text);
                                errors.extend(
                                    all.iter().filter_map(|it| it["error"]["code"].as_u64()),
                                );
                            }
                        }
                    }
                });
                (writer, reader)
            })
            .collect();
        for (writer, reader) in storming {
            let (code, errors) = reader.join().expect("it is told");
            assert_eq!(code, 3509);
            assert_eq!(errors, BTreeSet::from([111]));
            writer.join().expect("it is cut off");
            count += 1;
        }
    }
    count
}

#[test]
fn a_crowd_that_publishes_into_its_own_channel() {
    let stand = Stand::new("crowd-publishes", "connect = \"off\"", CHANNELS);
    let publishes: Vec<_> = (10..60)
        .map(|id| json!({"id": id, "publish": {"channel": "crowd:a", "data": id}}).to_string())
        .collect();
    let count = stand.endures(
        "30 who publish as fast as they go into the channel that all of them hear: error 111 beyond its deliveries, then disconnect 3509",
        CROWD as u64 * 1024 * 1024,
        |users| storm(&stand, users, &publishes.join("\n")),
    );
    stand.counts(
        r#"limits_refused_total{limit="deliveries",mode="enforced"}"#,
        count,
    );
    stand.counts(r#"client_num_server_disconnects{code="3509"}"#, count);
}

/// Nobody is refused for that, but for the number of his commands; and whoever stays is told the truth in the end.
#[test]
fn a_crowd_that_joins_and_leaves() {
    let stand = Stand::new("crowd-joins", "connect = \"off\"", CHANNELS);
    let mut watcher = member(&stand);
    let watching = thread::spawn(move || {
        let mut company = BTreeSet::new();
        loop {
            let Said::Text(text) = watcher.next() else {
                panic!("it was cut off");
            };
            for message in messages(&text) {
                let push = &message["push"];
                let client = |what: &str| {
                    let client = push[what]["info"]["client"].as_str();
                    client.map(str::to_owned)
                };
                if message == json!({}) {
                    watcher.send("{}");
                } else if let Some(client) = client("join") {
                    company.insert(client);
                } else if let Some(client) = client("leave") {
                    company.remove(&client);
                } else if push["pub"]["data"] == "over" {
                    return company;
                }
            }
        }
    });
    let comes_and_goes = r#"{"id":9,"unsubscribe":{"channel":"crowd:a"}}"#;
    let commands = vec![[comes_and_goes, SUBSCRIBE].join("\n"); 25].join("\n");
    let count = stand.endures(
        "30 who join and leave one channel as fast as they go: others are told later, error 111 beyond a rate, then disconnect 3509",
        CROWD as u64 * 1024 * 1024,
        |users| storm(&stand, users, &commands),
    );
    stand.counts(
        r#"limits_refused_total{limit="join_leave",mode="enforced"}"#,
        count,
    );
    let present = || {
        let answer = stand.api("presence", &json!({"channel": "crowd:a"}));
        let presence = answer["result"]["presence"].as_object().expect("a list");
        presence.keys().cloned().collect::<BTreeSet<_>>()
    };
    wait_until("all have gone, and all is told", || {
        let is_told = stand.number("limits_num_untold_join_leave") == 0;
        (is_told && present().len() == 1).then_some(())
    });
    // The watcher leaves when it hears that.
    let there = present();
    stand.api("publish", &json!({"channel": "crowd:a", "data": "over"}));
    let company = watching.join().expect("it heard all");
    assert_eq!(company, there, "it is alone");
}
