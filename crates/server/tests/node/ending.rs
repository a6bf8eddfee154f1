//! How connections end, and the server.

use std::io::{Read, Write};

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
