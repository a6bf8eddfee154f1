//! How connections end, and the server.

use std::io::{Read, Write};

use serde_json::Value;

use crate::client::{Client, Frame, masked};
use crate::process::Server;

/// RFC 6455, section 5.5.1: nothing may follow a Close. The publication comes back through the
/// mailbox when the Close in the same read has been answered.
#[test]
fn nothing_follows_a_close() {
    let server = Server::dev();
    let mut client = Client::subscribed(&server, "closing");
    let mut last_words = masked(0x1, br#"{"id":3,"publish":{"channel":"closing","data":1}}"#);
    last_words.extend(masked(0x8, &1000_u16.to_be_bytes()));
    client.stream.write_all(&last_words).unwrap();
    while client.frame() != Frame::Close(1000, String::new()) {}
    let mut rest = client.received;
    client.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

/// Each code that has the client subscribe again, with its own word for it; and the channel takes it back, from nothing
/// or from where it was.
#[test]
fn an_unsubscribe_that_is_not_the_end_says_what_the_client_may_keep() {
    let server = Server::serve(
        "unsubscribed",
        "[client]\nallow_anonymous_connect_without_token = true\n[http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\npresence = true\nallow_subscribe_for_client = true\n\
         allow_subscribe_for_anonymous = true\nhistory_size = 10\nhistory_ttl = \"1h\"\nforce_recovery = true\n",
    );
    let mut client = Client::connected(&server);
    for (code, reason) in [
        (2500, "insufficient state"),
        (2501, "subscription expired"),
        (2502, "state invalidated"),
    ] {
        let channel = format!("of-{code}");
        let subscribe =
            |more: &str| format!(r#"{{"id":{code},"subscribe":{{"channel":"{channel}"{more}}}}}"#);
        client.send(&subscribe(""));
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        let epoch = reply["subscribe"]["epoch"].as_str().expect("a position");
        let told =
            format!(r#"{{"user":"","channel":"{channel}","unsubscribe":{{"code":{code}}}}}"#);
        server.api("unsubscribe", &told);
        let push = format!(
            r#"{{"push":{{"channel":"{channel}","unsubscribe":{{"code":{code},"reason":"{reason}"}}}}}}"#
        );
        assert_eq!(client.text(), push);
        let presence = server.api("presence_stats", &format!(r#"{{"channel":"{channel}"}}"#));
        assert!(presence.contains(r#""num_clients":0"#), "{presence}");
        server.api("publish", &format!(r#"{{"channel":"{channel}","data":1}}"#));
        let is_worthless = code == 2502;
        // As SDKs do: they have to learn that nothing is recovered.
        let epoch = if is_worthless { "_" } else { epoch };
        client.send(&subscribe(&format!(r#","recover":true,"epoch":"{epoch}""#)));
        let reply: Value = serde_json::from_str(&client.text()).expect("JSON");
        let result = &reply["subscribe"];
        assert_eq!(result["was_recovering"], Value::Bool(true), "{reply}");
        assert_eq!(
            result["recovered"] == Value::Bool(true),
            !is_worthless,
            "{reply}"
        );
        let missed = result["publications"].as_array().map_or(0, Vec::len);
        assert_eq!(missed, usize::from(!is_worthless), "{reply}");
        let offset = u64::from(is_worthless);
        assert_eq!(result["offset"].as_u64().unwrap_or(0), offset, "{reply}");
        server.api("publish", &format!(r#"{{"channel":"{channel}","data":2}}"#));
        let push = client.text();
        assert!(push.contains(r#""data":2,"offset":2"#), "{push}");
    }
}

#[test]
fn a_shutdown_is_told_and_ends_well() {
    let mut server = Server::dev();
    let mut client = Client::connected(&server);
    let idle = server.connect();
    server.signal("-TERM");
    assert_eq!(client.frame(), Frame::Close(3001, "shutdown".into()));
    client
        .stream
        .write_all(&masked(0x8, &3001_u16.to_be_bytes()))
        .unwrap();
    drop((client, idle));
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::dev();
    // Says nothing and reads nothing: the server would wait for it.
    let mut client = Client::connected(&server);
    server.signal("-INT");
    assert_eq!(client.frame(), Frame::Close(3001, "shutdown".into()));
    server.signal("-INT");
    assert!(server.wait().success());
}
