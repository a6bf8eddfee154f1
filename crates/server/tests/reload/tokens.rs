//! Keys of tokens, changed while clients are connected.

use std::process::Command;

use crate::client::{Client, Frame};
use crate::process::Server;

const OLD: &str = "the old secret of this server, long enough";
const NEW: &str = "the new secret of this server, long enough";

fn token(secret: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["token", "--secret-env", "SECRET", "--user", "7"])
        .env("SECRET", secret)
        .output()
        .expect("the binary runs");
    String::from_utf8(output.stdout)
        .expect("a token is text")
        .trim()
        .to_owned()
}

fn connect(server: &Server, secret: &str) -> Result<Client, Frame> {
    let mut client = Client::open(server);
    let token = token(secret);
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    match client.frame() {
        Frame::Text(text) if text.contains(r#""client":""#) => Ok(client),
        other => Err(other),
    }
}

#[test]
fn a_secret_is_changed_with_both_good_for_a_while() {
    let invalid = || Frame::Close(3500, "invalid token".into());
    let keys = |text: &str| format!("[client.token]\n{text}");
    let mut server = Server::serve("rotation", &keys(&format!("hmac_secret_key = {OLD:?}\n")));
    let mut client = connect(&server, OLD).expect("the only key");
    assert_eq!(connect(&server, NEW).err(), Some(invalid()));
    let both = format!("hmac_secret_key = {NEW:?}\nhmac_previous_secret_key = {OLD:?}\n");
    server.reload(&keys(&both));
    for secret in [OLD, NEW] {
        connect(&server, secret).unwrap_or_else(|frame| panic!("{secret}: {frame:?}"));
    }
    // From 1970 on the previous one doesn't count any more.
    let ended = format!("{both}hmac_previous_secret_key_valid_until = 1\n");
    server.reload(&keys(&ended));
    assert_eq!(connect(&server, OLD).err(), Some(invalid()));
    connect(&server, NEW).expect("the current key");
    server.reload(&keys(&format!("hmac_secret_key = {NEW:?}\n")));
    assert_eq!(connect(&server, OLD).err(), Some(invalid()));
    // Who is connected stays so.
    client.send(r#"{"id":2,"rpc":{"method":"x"}}"#);
    assert!(client.text().contains(r#""id":2,"error""#));
}
