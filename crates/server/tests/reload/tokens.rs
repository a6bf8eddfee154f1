//! Keys of tokens, changed while clients are connected.

use std::process::Command;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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

/// A pair of keys: what signs, and what verifies.
struct Pair {
    /// As PKCS #8 has it.
    signing: Vec<u8>,
    algorithm: &'static str,
    public: String,
}

fn pair(algorithm: &'static str) -> Pair {
    let kind = match algorithm {
        "RS256" => &rcgen::PKCS_RSA_SHA256,
        "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_ED25519,
    };
    let pair = rcgen::KeyPair::generate_for(kind).expect("a pair");
    Pair {
        signing: pair.serialize_der(),
        algorithm,
        public: pair.public_key_pem(),
    }
}

impl Pair {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self.algorithm {
            "RS256" => {
                let key = RsaKeyPair::from_pkcs8(&self.signing).expect("a key");
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
            "ES256" => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.signing);
                let signature = key.expect("a key").sign(&random, message);
                signature.expect("a signature").as_ref().to_vec()
            }
            _ => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.signing);
                key.expect("a key").sign(message).as_ref().to_vec()
            }
        }
    }

    fn token(&self) -> String {
        let header = format!(r#"{{"alg":"{}"}}"#, self.algorithm);
        let [header, claims] = [&header, r#"{"sub":"7"}"#].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// Whether a client with a token of this key comes in.
fn comes_in(server: &Server, pair: &Pair) -> bool {
    let mut client = Client::open(server);
    let token = pair.token();
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    match client.frame() {
        Frame::Text(text) => text.contains(r#""client":""#),
        other => {
            assert_eq!(other, Frame::Close(3500, "invalid token".into()));
            false
        }
    }
}

#[test]
fn a_public_key_is_changed_with_both_good_for_a_while() {
    for (name, algorithm) in [("rsa", "RS256"), ("ecdsa", "ES256"), ("eddsa", "EdDSA")] {
        let (old, new, other) = (pair(algorithm), pair(algorithm), pair(algorithm));
        let is_good = |server: &Server| [&old, &new, &other].map(|pair| comes_in(server, pair));
        let current =
            |pair: &Pair| format!("[client.token]\n{name}_public_key = {:?}\n", pair.public);
        let mut server = Server::serve(&format!("public-{name}"), &current(&old));
        assert_eq!(is_good(&server), [true, false, false], "{name}");
        let both = format!(
            "{}{name}_previous_public_key = {:?}\n",
            current(&new),
            old.public
        );
        server.reload(&both);
        assert_eq!(is_good(&server), [true, true, false], "{name}");
        server.reload(&current(&new));
        assert_eq!(is_good(&server), [false, true, false], "{name}");
        // One that is previous to none is a mistake.
        let said = server.reload(&format!(
            "[client.token]\n{name}_previous_public_key = {:?}\n",
            old.public
        ));
        assert!(
            said[0].contains(&format!("needs {name}_public_key, the current one")),
            "{said:?}"
        );
    }
}
