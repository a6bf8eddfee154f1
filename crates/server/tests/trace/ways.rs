//! The same is told of a client whatever way it came.

use serde_json::{Value, json};
use tautline_auth::{Signer, TokenClaims};

use super::Told;
use crate::client::{Client, masked, upgrade_request};
use crate::http::{self, Response, emulate, get};
use crate::process::Server;

const SECRET: &str = "a secret that is long enough for HS256";

pub(super) fn config(more: &str) -> String {
    format!(
        "[http_api]\nkey = \"dev\"\n{more}\n[client.token]\nhmac_secret_key = \"{SECRET}\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\n\
         history_size = 100\nhistory_ttl = \"1m\"\nforce_recovery = true\n\
         [[channel.namespaces]]\nname = \"shut\"\n"
    )
}

pub(super) fn token(user: &str) -> String {
    let claims = TokenClaims {
        user,
        ..TokenClaims::default()
    };
    let signer = Signer::hs256(&SECRET.into()).expect("a secret");
    signer.sign(&claims).expect("a token")
}

/// A client that only says something: what it is told, the trace says.
enum Way<'s> {
    Json(Client),
    Protobuf(Client),
    Sse {
        server: &'s Server,
        _response: Response,
        session: String,
        node: String,
    },
    Poll {
        server: &'s Server,
        session: String,
        sent: u64,
    },
}

impl<'s> Way<'s> {
    fn open(server: &'s Server, name: &str, token: &str) -> Self {
        let connect = json!({"id": 1, "connect": {"token": token}}).to_string();
        match name {
            "json" => {
                let mut client = Client::open(server);
                client.send(&connect);
                Self::Json(client)
            }
            "protobuf" => {
                let request = upgrade_request("127.0.0.1", "")
                    .replace("/websocket", "/websocket?cf_protocol=protobuf");
                let stream = server.connect();
                std::io::Write::write_all(&mut &stream, request.as_bytes()).expect("it listens");
                let mut client = Client::over(stream);
                assert!(client.read_head().starts_with("HTTP/1.1 101 "));
                client.send_binary(&command(1, 4, &field(1, token.as_bytes())));
                Self::Protobuf(client)
            }
            "sse" => {
                let escaped: String = connect.bytes().map(|byte| format!("%{byte:02X}")).collect();
                let mut response = get(server, &format!("/connection/sse?cf_connect={escaped}"));
                assert_eq!(response.status, 200, "{}", response.head);
                // What opens the stream.
                response.until(b"\r\n");
                let reply = response.data();
                let text = |name: &str| reply["connect"][name].as_str().expect(name).to_owned();
                Self::Sse {
                    server,
                    session: text("session"),
                    node: text("node"),
                    _response: response,
                }
            }
            _ => {
                let body = format!("{{\"open\":1}}\n{connect}");
                let answer = http::post(server, "/connection/poll", "text/plain", body.as_bytes());
                assert_eq!(answer.status, 200, "{}", answer.head);
                let body = answer.rest();
                let head = body.lines().next().expect("a head");
                let head: Value = serde_json::from_str(head).expect("JSON");
                Self::Poll {
                    server,
                    session: head["session"].as_str().expect("a name").to_owned(),
                    sent: 0,
                }
            }
        }
    }

    fn subscribe(&mut self, id: u8, channel: &str) {
        let text = json!({"id": id, "subscribe": {"channel": channel}}).to_string();
        match self {
            Self::Json(client) => client.send(&text),
            Self::Protobuf(client) => {
                client.send_binary(&command(id, 5, &field(1, channel.as_bytes())));
            }
            Self::Sse {
                server,
                session,
                node,
                ..
            } => assert_eq!(emulate(server, session, node, &text).status, 204),
            Self::Poll {
                server,
                session,
                sent,
            } => {
                *sent += 1;
                let body = format!("{}\n{text}", json!({"session": session, "send": sent}));
                let answer = http::post(server, "/connection/poll", "text/plain", body.as_bytes());
                assert_eq!(answer.status, 204, "{}", answer.head);
            }
        }
    }

    /// What the client is known by that nobody else may have.
    fn secret(&self) -> Option<&str> {
        match self {
            Self::Sse { session, .. } | Self::Poll { session, .. } => Some(session),
            _ => None,
        }
    }
}

/// A field of bytes (Protobuf, wire type 2).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(bytes.len()));
    field.extend_from_slice(bytes);
    field
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A command as a frame has it: its length, its id, and the request.
fn command(id: u8, number: u8, request: &[u8]) -> Vec<u8> {
    let mut command = vec![0x08, id];
    command.extend(field(number, request));
    let mut frame = varint(command.len());
    frame.extend(command);
    frame
}

#[test]
fn each_frame_of_a_user_is_told_by_whatever_way_it_comes() {
    let server = Server::serve("trace-ways", &config(""));
    for (name, transport) in [
        ("json", "websocket"),
        ("protobuf", "websocket"),
        ("sse", "sse"),
        ("poll", "poll"),
    ] {
        let user = format!("ann-{name}");
        let mut told = Told::of(&server, &json!({"user": user, "seconds": 60}).to_string());
        let token = token(&user);
        let mut client = Way::open(&server, name, &token);
        let connected = told.next();
        assert_eq!(connected["event"], "reply", "{connected}");
        assert_eq!(connected["method"], "connect", "{connected}");
        let id = connected["client"].clone();
        assert!(id.is_string(), "{connected}");
        client.subscribe(2, "room");
        client.subscribe(3, "shut:1");
        let mut all = told.all_until(|event| event["event"] == "reply" && event["id"] == 3);
        server.api("publish", r#"{"channel":"room","data":{"n":"a payload"}}"#);
        all.push(told.until(|event| event["event"] == "publications"));
        let end = json!({"user": user, "disconnect": {"code": 4321, "reason": "go"}});
        server.api("disconnect", &end.to_string());
        all.extend(told.all_until(|event| event["event"] == "ended"));
        // Of pings there may be some.
        all.retain(|event| event["event"] != "ping");
        for event in &all {
            let (of, by) = (&event["user"], &event["transport"]);
            assert_eq!((of, by), (&json!(user), &json!(transport)), "{event}");
            assert_eq!(event["client"], id, "{event}");
            assert!(event["time"].is_u64(), "{event}");
        }
        let steps: Vec<_> = all
            .iter()
            .map(|event| json!([event["event"], event["id"], event["channel"], event["code"]]))
            .collect();
        let mut expected = vec![
            json!(["command", 2, "room", null]),
            json!(["reply", 2, "room", null]),
            json!(["command", 3, "shut:1", null]),
            json!(["refused", 3, "shut:1", null]),
            json!(["reply", 3, "shut:1", null]),
            json!(["publications", null, "room", null]),
            json!(["ended", null, null, 4321]),
        ];
        if steps.len() > expected.len() {
            // Where there are no close frames, it is told by a push.
            expected.insert(6, json!(["push", null, null, 4321]));
        }
        assert_eq!(steps, expected, "{name}");
        let refused = &all[3];
        assert_eq!(refused["told"], "error 103: permission denied", "{refused}");
        assert!(
            refused["why"]
                .as_str()
                .is_some_and(|why| why.contains("allow_")),
            "{refused}"
        );
        assert_eq!(all[4]["error"]["code"], 103);
        assert_eq!(all[5]["publications"][0]["data"], json!({"bytes": 17}));
        assert!(all.iter().any(|event| event["queued"].is_u64()), "{all:?}");
        assert_eq!(all.last().expect("an end")["reason"], "go");
        assert!(!told.raw.contains("a payload") && !told.raw.contains(&token));
        if let Some(secret) = client.secret() {
            assert!(!told.raw.contains(secret));
        }
        drop(client);
    }
}

/// A client that resumes, and is told what became of it.
#[test]
fn what_became_of_coming_back_is_told() {
    let server = Server::serve("trace-resume", &config(""));
    let mut told = Told::of(&server, r#"{"user":"ann","seconds":60}"#);
    let token = token("ann");
    let connect = json!({"id": 1, "connect": {"token": token}}).to_string();
    let open = || {
        let mut client = Client::open(&server);
        client.send(&connect);
        client.text();
        client
    };
    let mut first = open();
    first.send(&json!({"id": 2, "subscribe": {"channel": "room"}}).to_string());
    let reply = told.until(|event| event["event"] == "reply" && event["id"] == 2);
    let epoch = reply["epoch"].clone();
    drop(first);
    told.until(|event| event["event"] == "ended" && event["code"] == 3000);
    for number in 1..=3 {
        let publish = json!({"channel": "room", "data": number});
        server.api("publish", &publish.to_string());
    }
    let mut again = open();
    for (id, epoch, recovered, missed) in [(3, epoch, true, 3), (5, json!("another"), false, 0)] {
        let from = json!({"channel": "room", "recover": true, "offset": 0, "epoch": epoch});
        again.send(&json!({"id": id, "subscribe": from}).to_string());
        let command = told.until(|event| event["event"] == "command" && event["id"] == id);
        assert_eq!(command["recover"], true, "{command}");
        assert_eq!(command["epoch"], epoch, "{command}");
        let reply = told.until(|event| event["event"] == "reply" && event["id"] == id);
        assert_eq!(reply["was_recovering"], true, "{reply}");
        assert_eq!(reply["recovered"], recovered, "{reply}");
        assert_eq!(reply["publications"], missed, "{reply}");
        again.send(&json!({"id": id + 1, "unsubscribe": {"channel": "room"}}).to_string());
        told.until(|event| event["event"] == "reply" && event["id"] == id + 1);
    }
}

/// Tokens, whoever is shown payloads.
#[test]
fn payloads_are_shown_where_it_is_allowed_and_asked_for_and_tokens_never() {
    let server = Server::serve("trace-shown", &config("trace_payloads = true"));
    let mut shown = Told::of(&server, r#"{"channel":"room","payloads":true}"#);
    let mut hidden = Told::of(&server, r#"{"channel":"room"}"#);
    let mut all = Told::of(&server, r#"{"user":"ann","payloads":true}"#);
    let token = token("ann");
    let mut client = Client::open(&server);
    client.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
    client.text();
    let subscribe = json!({"channel": "room", "data": {"n": "a payload"}});
    client.send(&json!({"id": 2, "subscribe": subscribe}).to_string());
    client.text();
    server.api("publish", r#"{"channel":"room","data":{"n":"a payload"}}"#);
    for told in [&mut shown, &mut all] {
        let publications = told.until(|event| event["event"] == "publications");
        let data = &publications["publications"][0]["data"];
        assert_eq!(*data, json!({"n": "a payload"}));
    }
    hidden.until(|event| event["event"] == "publications");
    assert!(!hidden.raw.contains("a payload"), "{}", hidden.raw);
    client.send(&json!({"id": 3, "refresh": {"token": token}}).to_string());
    let subscribe = json!({"channel": "room", "token": "not-a-token"});
    client.send(&json!({"id": 4, "subscribe": subscribe}).to_string());
    all.until(|event| event["id"] == 4);
    drop(client);
    all.until(|event| event["event"] == "ended");
    for told in [&shown, &hidden, &all] {
        assert!(
            !told.raw.contains(&token) && !told.raw.contains("not-a-token"),
            "{}",
            told.raw
        );
    }
}

/// Says something that nobody understands.
#[test]
fn what_cannot_be_read_is_told_with_its_end() {
    let server = Server::serve("trace-unreadable", &config(""));
    let mut told = Told::of(&server, r#"{"user":"ann"}"#);
    let mut client = Client::open(&server);
    let connect = json!({"id": 1, "connect": {"token": token("ann")}});
    client.send(&connect.to_string());
    client.text();
    std::io::Write::write_all(&mut client.stream, &masked(1, b"{\"id\":")).expect("it is taken");
    let unreadable = told.until(|event| event["event"] == "unreadable");
    assert!(unreadable["why"].is_string(), "{unreadable}");
    let end = told.until(|event| event["event"] == "ended");
    assert_eq!(
        (&end["code"], &end["reason"]),
        (&json!(3501), &json!("bad request"))
    );
}
