//! What the backend would not have: listed, shown, sent again and dropped, by the API and from the command line.

use std::net::TcpStream;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::process::{Server, wait_until};
use super::receiver::Receiver;
use super::{Client, Directory, serve};

/// A server with dead letters of these users, and none of others.
fn with_dead(name: &str, receiver: &Receiver, directory: &Directory, users: &[&str]) -> Server {
    let digest = sha256("narrow");
    let more = format!(
        "debounce = \"1m\"\n[http_api]\nkey = \"dev\"\n\
         [[http_api.keys]]\nname = \"narrow\"\nsha256 = \"{digest}\"\nchannels = [\"*\"]\n"
    );
    let server = serve(name, receiver, directory, &more);
    *receiver.refused.lock().unwrap() = "\"bad-".into();
    for user in users.iter().chain(&["good"]) {
        drop(Client::connect(server.connect(), user).unwrap());
    }
    wait_until("the other is told", || {
        (receiver.book.lock().unwrap().count("connected") == 1).then_some(())
    });
    server
}

fn sha256(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn api(server: &Server, method: &str, body: &Value) -> Value {
    serde_json::from_str(&server.api(method, &body.to_string())).unwrap()
}

fn tautline(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tautline"))
        .arg("events")
        .args(arguments)
        .env("TAUTLINE_URL", format!("http://{}", server.address))
        .env("TAUTLINE_API_KEY", "dev")
        .output()
        .unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn told(receiver: &Receiver, count: usize) {
    wait_until("they are told", || {
        (receiver.book.lock().unwrap().count("connected") == count).then_some(())
    });
}

#[test]
fn dead_letters_are_listed_sent_again_and_dropped_by_the_api() {
    let (receiver, directory) = (Receiver::start(31), Directory::new("dead-api"));
    let users = ["bad-1", "bad-2", "bad-3", "bad-4"];
    let server = with_dead("dead-api", &receiver, &directory, &users);
    let page = api(&server, "dead_events", &json!({"limit": 3}))["result"].clone();
    assert_eq!((&page["total"], &page["next"]), (&json!(4), &json!("3")));
    let first = &page["events"][0];
    assert_eq!(first["event"]["user"], "bad-1");
    assert!(first["error"].as_str().unwrap().contains("422"), "{first}");
    assert!(first["failed"].is_u64());
    let rest = api(&server, "dead_events", &json!({"cursor": page["next"]}));
    assert_eq!(rest["result"]["events"][0]["event"]["user"], "bad-4");
    assert_eq!(rest["result"]["next"], Value::Null);
    let id = |place: usize| page["events"][place]["event"]["id"].clone();

    let dropped = api(
        &server,
        "dead_events_drop",
        &json!({"ids": [id(0), "none"]}),
    );
    assert_eq!(dropped, json!({"result": {"count": 1}}));
    receiver.refused.lock().unwrap().clear();
    let again = api(&server, "dead_events_retry", &json!({"ids": [id(1)]}));
    assert_eq!(again, json!({"result": {"count": 1}}));
    told(&receiver, 2);
    let batch = json!({"commands": [
        {"dead_events_retry": {"all": true}}, {"dead_events": {}}, {"dead_events_drop": {"all": true}},
    ]});
    assert_eq!(
        api(&server, "batch", &batch),
        json!({"replies": [
            {"dead_events_retry": {"count": 2}},
            {"dead_events": {"events": [], "total": 0}},
            {"dead_events_drop": {"count": 0}},
        ]})
    );
    told(&receiver, 4);
    let book = receiver.book.lock().unwrap();
    let users: Vec<_> = book.events.iter().map(|event| &event["user"]).collect();
    assert_eq!(users, ["good", "bad-2", "bad-3", "bad-4"]);
}

#[test]
fn a_key_for_some_channels_sees_no_dead_letters() {
    let (receiver, directory) = (Receiver::start(32), Directory::new("dead-key"));
    let server = with_dead("dead-key", &receiver, &directory, &["bad-1"]);
    let call = |method: &str, body: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(
            stream,
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: narrow\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(call("presence_stats", r#"{"channel":"a"}"#).contains("108"));
    for (method, body) in [
        ("dead_events", "{}"),
        ("dead_events_retry", r#"{"all":true}"#),
        ("dead_events_drop", r#"{"all":true}"#),
    ] {
        let answer = call(method, body);
        assert!(answer.contains(r#"{"error":{"code":103,"#), "{answer}");
        assert!(!answer.contains("bad-1"));
    }
    let page = api(&server, "dead_events", &json!({}));
    assert_eq!(page["result"]["total"], 1);
}

#[test]
fn dead_letters_are_looked_after_from_the_command_line() {
    let (receiver, directory) = (Receiver::start(33), Directory::new("dead-cli"));
    let server = with_dead("dead-cli", &receiver, &directory, &["bad-1", "bad-2"]);
    let list = json_of(&tautline(&server, &["list"]));
    assert_eq!(list["total"], 2);
    let id = |place: usize| {
        list["events"][place]["event"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let shown = json_of(&tautline(&server, &["show", &id(1)]));
    assert_eq!(shown["events"][0]["event"]["user"], "bad-2");
    let nothing = tautline(&server, &["show", "none"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("there is no such dead letter"));
    // Everything is meant only where it is said.
    for arguments in [&["drop"][..], &["retry"], &["drop", "--all", "some"]] {
        assert_eq!(
            tautline(&server, arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    receiver.refused.lock().unwrap().clear();
    assert_eq!(
        json_of(&tautline(&server, &["retry", &id(0)])),
        json!({"count": 1})
    );
    told(&receiver, 2);
    assert_eq!(
        json_of(&tautline(&server, &["drop", "--all"])),
        json!({"count": 1})
    );
    assert_eq!(json_of(&tautline(&server, &["list"]))["total"], 0);
}

#[test]
fn a_server_without_events_says_so() {
    let server = Server::dev();
    let answer = server.api("dead_events", "{}");
    assert!(
        answer.contains(r#""code":108"#) && answer.contains("events.enabled"),
        "{answer}"
    );
    assert!(
        server
            .api("dead_events_retry", r#"{"all":true}"#)
            .contains(r#""code":108"#)
    );
}
