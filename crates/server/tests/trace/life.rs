//! How long a trace lasts, what several have to do with each other, and what is told of those who are slow, or do too much.

use serde_json::{Value, json};

use super::{CHAT, Told, ask, serve};
use crate::client::Client;
use crate::process::wait_until;

#[test]
fn two_traces_tell_the_same_and_end_alone() {
    let server = serve("trace-two", CHAT);
    let mut client = Client::open(&server);
    client.send(r#"{"id":1,"connect":{}}"#);
    let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
    let id = reply["connect"]["client"].clone();
    let of_client = json!({"client": id}).to_string();
    let mut first = Told::of(&server, &of_client);
    let mut second = Told::of(&server, r#"{"channel":"room"}"#);
    // By a channel, what is elsewhere isn't told.
    for (number, channel) in [(2, "room"), (3, "elsewhere"), (4, "room")] {
        let subscribe = json!({"id": number, "subscribe": {"channel": channel}});
        client.send(&subscribe.to_string());
        client.text();
    }
    let of = |all: Vec<Value>| -> Vec<Value> {
        let all = all.iter().filter(|event| event["event"] == "command");
        all.map(|event| event["id"].clone()).collect()
    };
    let is_last = |event: &Value| event["event"] == "reply" && event["id"] == 4;
    assert_eq!(of(first.all_until(is_last)), [2, 3, 4]);
    assert_eq!(of(second.all_until(is_last)), [2, 4]);
    drop(first);
    client.send(r#"{"id":5,"presence":{"channel":"room"}}"#);
    let refused = second.until(|event| event["event"] == "refused");
    assert_eq!(refused["id"], 5, "{refused}");
    assert!(refused["why"].is_string(), "{refused}");
    client.send(r#"{"id":6,"unsubscribe":{"channel":"room"}}"#);
    second.until(|event| event["event"] == "reply" && event["id"] == 6);
}

/// There is room for another as soon as somebody has gone.
#[test]
fn a_trace_ends_when_its_reader_goes() {
    let server = serve("trace-gone", "");
    let body = r#"{"user":"7","seconds":600}"#;
    let mut all: Vec<_> = (0..16).map(|_| Told::of(&server, body)).collect();
    let (status, text) = ask(&server, "dev", body);
    assert!(
        status == 503 && text.contains("16 traces"),
        "{status} {text}"
    );
    all.pop();
    wait_until("there is room for another", || {
        (ask(&server, "dev", body).0 == 200).then_some(())
    });
}

/// Who doesn't read what is sent: how much waits, since when nothing more is put there, and when he has it.
#[test]
fn how_much_waits_for_a_slow_reader_is_told() {
    let server = serve(
        "trace-queue",
        &CHAT.replace("[client]\n", "[client]\nqueue_max_size = 1048576\n"),
    );
    let mut client = Client::open(&server);
    client.send(r#"{"id":1,"connect":{}}"#);
    let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
    client.send(r#"{"id":2,"subscribe":{"channel":"room"}}"#);
    client.text();
    let follow = json!({"client": reply["connect"]["client"], "seconds": 600});
    let mut told = Told::of(&server, &follow.to_string());
    let (mut sent, mut most) = (0, 0);
    let publish = json!({"channel": "room", "data": "x".repeat(60_000)}).to_string();
    // The sockets have room for some megabytes.
    let parked = loop {
        assert!(sent < 1000, "it has room for all of it");
        server.api("publish", &publish);
        sent += 1;
        let is_one = |event: &Value| {
            event["event"] == "parked" || event["publications"][0]["offset"] == sent
        };
        let event = told.until(is_one);
        if event["event"] == "parked" {
            break event;
        }
        most = most.max(event["queued"].as_u64().expect("a number of bytes"));
    };
    assert_eq!(parked["channel"], "room", "{parked}");
    assert!(most > 60_000, "{most}");
    server.api("publish", r#"{"channel":"room","data":"last"}"#);
    while !client.text().contains("\"last\"") {}
    told.until(|event| event["event"] == "caught_up" && event["channel"] == "room");
}

#[test]
fn limits_that_are_hit_are_told_with_their_names() {
    let limits = "channel_limit = 1\n[client.rate_limit.client_command]\nenabled = true\n\
                  rpc = \"1/h\"\n[channel.without_namespace]\n";
    let config = CHAT.replace("[channel.without_namespace]\n", limits);
    let server = serve("trace-limits", &config);
    let mut told = Told::of(&server, r#"{"user":""}"#);
    let mut client = Client::connected(&server);
    for (id, command) in [
        (2, json!({"subscribe": {"channel": "a"}})),
        (3, json!({"subscribe": {"channel": "b"}})),
        (4, json!({"rpc": {"method": "m"}})),
        (5, json!({"rpc": {"method": "m"}})),
    ] {
        let mut command = command;
        command["id"] = json!(id);
        client.send(&command.to_string());
        client.text();
    }
    let mut refused = |id: u64| {
        let event = told.until(|event| event["event"] == "refused" && event["id"] == id);
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (text("told"), text("why"))
    };
    let (said, why) = refused(3);
    assert!(said.starts_with("error 106: limit exceeded"), "{said}");
    assert!(format!("{said} {why}").contains("client.channel_limit"));
    let (said, why) = refused(5);
    assert!(said.starts_with("error 111: too many requests"), "{said}");
    let told = format!("{said} {why}");
    assert!(told.contains("client.rate_limit.client_command"), "{told}");
}
