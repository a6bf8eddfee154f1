//! Tokens, and where the keys come from.

use std::io::{Read, Write};

use crate::client::{Client, Frame};
use crate::process::{Server, wait_until};

#[test]
fn tokens_are_verified_with_the_keys_of_an_identity_provider() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../../auth/tests/data/tokens.json")).unwrap();
    let cases = cases.as_array().unwrap();
    let token = |alg: &str| {
        let case = cases.iter().find(|case| case["alg"] == alg).unwrap();
        case["token"].as_str().unwrap().to_owned()
    };
    let keys: Vec<_> = cases.iter().map(|case| &case["jwk"]).collect();
    let set = serde_json::json!({ "keys": keys }).to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let provider = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the server asks");
        let _ = stream.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", set.len());
        let _ = stream.write_all((head + &set).as_bytes());
    });
    let config = format!("[client.token]\njwks_public_endpoint = \"http://{address}/keys\"\n");
    let server = Server::serve("keys", &config);
    provider.join().expect("it has answered");
    let connect = |token: &str| {
        let mut client = Client::open(&server);
        client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        client.frame()
    };
    for alg in ["ES256", "RS256", "PS384", "EdDSA"] {
        // Until the set has arrived, clients are told to come back.
        let reply = wait_until("the keys", || match connect(&token(alg)) {
            Frame::Text(text) if text.contains(r#""code":100"#) => {
                assert!(text.contains(r#""temporary":true"#), "{text}");
                None
            }
            frame => Some(frame),
        });
        let Frame::Text(text) = reply else {
            panic!("{alg}: {reply:?}");
        };
        assert!(text.contains(r#""connect":{"client":""#), "{text}");
    }
    let forged = token("ES256").replace(".eyJ", ".eyK");
    assert_eq!(connect(&forged), Frame::Close(3500, "invalid token".into()));
}
