//! How visits end that nobody ends: by the time of a token, and by the end of the server.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tautline_auth::{Signer, TokenClaims};

use super::process::{Server, wait_until};
use super::receiver::Receiver;
use super::{Directory, Truth, config, serve, tables, wait_for};
use crate::client::{Client, Frame};
use crate::known::{Known, Span};

const SECRET: &str = "a secret that is long enough for HS256";

#[test]
fn who_is_put_out_when_his_token_is_over_is_told_gone_with_that() {
    let (receiver, directory) = (Receiver::start(61), Directory::new("expiry"));
    let more = "debounce = \"0s\"\n";
    let config = format!(
        "client.token.hmac_secret_key = \"{SECRET}\"\nclient.expired_close_delay = \"1ms\"\n{}",
        config(&receiver, &directory, more)
    );
    let server = Server::serve("events-expiry", &tables(&config));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = TokenClaims {
        user: "ann",
        expires_at: Some(now.as_secs() + 2),
        ..TokenClaims::default()
    };
    let token = Signer::hs256(&SECRET.into()).unwrap().sign(&claims);
    let mut known = Known::default();
    let (came, (mut client, reply)) = Span::of(|| {
        let mut client = Client::open(&server);
        client.send(&json!({"id": 1, "connect": {"token": token.unwrap()}}).to_string());
        let reply: Value = serde_json::from_str(&client.text()).unwrap();
        (client, reply)
    });
    let id = reply["connect"]["client"].as_str().unwrap();
    known.came(id, "ann", came);
    let (at, end) = Span::of(|| client.frame());
    assert_eq!(end, Frame::Close(3005, "connection expired".into()));
    known.ended(id, 3005, "connection expired", at);
    wait_until("she is told gone", || {
        (receiver.book.lock().unwrap().count("disconnected") == 1).then_some(())
    });
    known.check(&receiver.book.lock().unwrap().seen);
}

#[test]
fn who_does_not_come_back_after_a_restart_is_told_gone_with_that() {
    let (receiver, directory) = (Receiver::start(62), Directory::new("restarted"));
    let more = "keep_on_shutdown = true\ndebounce = \"10ms\"\nrestart_debounce = \"50ms\"\n";
    let mut server = serve("restarted", &receiver, &directory, more);
    let mut clients = Vec::new();
    for user in ["ann", ""] {
        let mut client = super::Client::connect(server.connect(), user).unwrap();
        client.toggle("a").unwrap();
        clients.push(client);
    }
    let here = ["".to_owned(), "ann".to_owned()].map(|user| (user, ["a".to_owned()].into()));
    let here = (here.to_vec(), ["a".to_owned()].into());
    wait_for(&receiver, "the backend knows of them", &here);
    let unix = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_millis()).unwrap()
    };
    let from = unix();
    server.signal("-TERM");
    for client in &mut clients {
        client.read_until("shutdown").unwrap();
    }
    drop(clients);
    assert!(server.wait().success());
    let _server = serve("restarted", &receiver, &directory, more);
    let to = unix();
    wait_for(&receiver, "they are told gone", &Truth::default());
    let book = receiver.book.lock().unwrap();
    let of = |kind: &str| -> Vec<_> {
        let events = book.events.iter();
        events
            .filter(|event| event["type"] == kind)
            .cloned()
            .collect()
    };
    // Who has no name could not be known again, and was told gone when the server was stopped.
    let gone = of("disconnected");
    let ends = gone
        .iter()
        .map(|event| json!([event["user"], event["code"], event["reason"]]));
    let expected = [
        json!(["", 3001, "shutdown"]),
        json!(["ann", 0, "node restarted"]),
    ];
    assert_eq!(ends.collect::<Vec<_>>(), expected);
    assert!(of("unsubscribed").iter().all(|event| event["code"] == 1));
    for event in gone
        .iter()
        .chain(&of("unsubscribed"))
        .chain(&of("channel_vacated"))
    {
        let time = event["time"].as_u64().unwrap();
        assert!((from..=to).contains(&time), "{from} {event} {to}");
    }
}
