//! Public keys: given, and from key sets.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair as KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tautline_auth::{
    ConnectClaims, InvalidToken, JwkSet, JwkSetError, KeyError, MAX_JWK_SET_KEYS, MAX_JWK_SET_LEN,
    PublicKey, RemoteKeys, TokenError, Verifier, VerifierConfig,
};

const NOW: Duration = Duration::from_secs(1_800_000_000);
const PAUSE: Duration = Duration::from_secs(10);
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A token of another implementation for each algorithm, with its key; see `data/make.py`.
struct Case {
    alg: String,
    pem: String,
    jwk: Value,
    token: String,
}

fn cases() -> Vec<Case> {
    let cases: Value = serde_json::from_str(include_str!("data/tokens.json")).unwrap();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let cases = cases.as_array().unwrap().iter();
    cases
        .map(|case| Case {
            alg: text(case, "alg"),
            pem: text(case, "pem"),
            jwk: case["jwk"].clone(),
            token: text(case, "token"),
        })
        .collect()
}

fn case(alg: &str) -> Case {
    cases().into_iter().find(|case| case.alg == alg).unwrap()
}

fn verifier(pems: &[&str]) -> Verifier {
    let public_keys = pems.iter().map(|pem| PublicKey::from_pem(pem).unwrap());
    Verifier::new(VerifierConfig {
        public_keys: public_keys.collect(),
        ..VerifierConfig::default()
    })
    .unwrap()
}

fn set(jwks: &[Value]) -> JwkSet {
    JwkSet::parse(json!({"keys": jwks}).to_string().as_bytes()).unwrap()
}

fn remote() -> (Arc<RemoteKeys>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ask = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    (
        Arc::new(RemoteKeys::new(PAUSE, MAX_AGE, Box::new(ask))),
        asked,
    )
}

/// A verifier that has fetched these keys, and no others.
fn fetched(jwks: &[Value]) -> Verifier {
    let (keys, _) = remote();
    keys.replace(set(jwks), NOW);
    verifier(&[]).with_remote_keys(keys)
}

fn connect(verifier: &Verifier, token: &str) -> Result<ConnectClaims, TokenError> {
    verifier.verify_connect(token, NOW)
}

fn invalid(reason: InvalidToken) -> Result<ConnectClaims, TokenError> {
    Err(TokenError::Invalid(reason))
}

fn header(header: &Value, token: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn tokens_of_another_implementation_are_believed() {
    let expected = ConnectClaims {
        user: "7".into(),
        info: Some(br#"{"name":"Ann"}"#.to_vec()),
        expire_at: Some(2_000_000_000),
        ..ConnectClaims::default()
    };
    let all: Vec<Value> = cases().into_iter().map(|case| case.jwk).collect();
    for case in cases() {
        let by_pem = connect(&verifier(&[&case.pem]), &case.token);
        let expected = ConnectClaims {
            mark: by_pem.clone().unwrap().mark,
            ..expected.clone()
        };
        assert_eq!(by_pem.as_ref(), Ok(&expected), "{} from PEM", case.alg);
        let claims = connect(&fetched(&all), &case.token);
        assert_eq!(claims.as_ref(), Ok(&expected), "{} from a set", case.alg);
    }
}

#[test]
fn any_changed_byte_of_message_or_signature_is_noticed() {
    for case in cases() {
        let verifier = verifier(&[&case.pem]);
        let payload = case.token.find('.').unwrap() + 5;
        let signature = case.token.rfind('.').unwrap() + 5;
        for at in [payload, signature] {
            let mut bytes = case.token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let token = String::from_utf8(bytes).unwrap();
            assert_eq!(
                connect(&verifier, &token),
                invalid(InvalidToken::Signature),
                "{}",
                case.alg
            );
        }
        let cut = &case.token[..case.token.len() - 4];
        assert_eq!(connect(&verifier, cut), invalid(InvalidToken::Signature));
        let (unsigned, _) = case.token.rsplit_once('.').unwrap();
        assert_eq!(
            connect(&verifier, &format!("{unsigned}.")),
            invalid(InvalidToken::Signature)
        );
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // The classic: the header says HS256, and what signed is the public key's text.
    for case in cases() {
        for key in [case.pem.as_bytes(), case.pem.trim().as_bytes()] {
            let message = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
            let key = EncodingKey::from_secret(key);
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            let token = format!("{message}.{signature}");
            let expected = invalid(InvalidToken::NoKey("HS256"));
            assert_eq!(connect(&verifier(&[&case.pem]), &token), expected);
            let named = json!({"alg": "HS256", "kid": case.alg});
            let token = header(&named, &token);
            assert_eq!(
                connect(&fetched(std::slice::from_ref(&case.jwk)), &token),
                expected
            );
        }
    }
}

#[test]
fn a_key_is_for_its_algorithms_alone() {
    let rsa = verifier(&[&case("RS256").pem]);
    assert_eq!(
        connect(&rsa, &case("ES256").token),
        invalid(InvalidToken::NoKey("ES256"))
    );
    assert_eq!(
        connect(&rsa, &case("EdDSA").token),
        invalid(InvalidToken::NoKey("EdDSA"))
    );
    // The same key, another way to sign than the header says.
    let other = header(&json!({"alg": "PS256"}), &case("RS256").token);
    assert_eq!(connect(&rsa, &other), invalid(InvalidToken::Signature));
    // Each curve has its algorithm.
    let p256 = verifier(&[&case("ES256").pem]);
    assert_eq!(
        connect(&p256, &case("ES384").token),
        invalid(InvalidToken::NoKey("ES384"))
    );

    // In a set, a key that states its algorithm is for no other, and the id decides.
    let mut stated = case("RS256").jwk;
    stated["alg"] = json!("RS512");
    let verifier = fetched(&[stated]);
    let token = case("RS256").token;
    assert_eq!(
        connect(&verifier, &token),
        invalid(InvalidToken::KeyAlgorithm("RS256"))
    );
    let mut ed = case("EdDSA").jwk;
    ed["kid"] = json!("RS256");
    assert_eq!(
        connect(&fetched(&[ed]), &token),
        invalid(InvalidToken::KeyAlgorithm("RS256"))
    );
    let mut other = case("ES256").jwk;
    other["kid"] = json!("RS256");
    assert_eq!(
        connect(&fetched(&[other, case("RS256").jwk]), &token),
        invalid(InvalidToken::KeyAlgorithm("RS256")),
        "of two keys with one id the first counts"
    );
}

#[test]
fn a_signature_is_of_the_kind_that_the_header_says() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let body = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let verifier = verifier(&[&pem]);
    let verify = |alg: &str, encoding: &'static dyn RsaEncoding| {
        let parts = [json!({"alg": alg}).to_string(), "{}".into()];
        let message = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let mut signature = vec![0; pair.public_modulus_len()];
        let random = SystemRandom::new();
        pair.sign(encoding, &random, message.as_bytes(), &mut signature)
            .unwrap();
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        connect(&verifier, &token).map(|_| ())
    };
    let wrong = Err(TokenError::Invalid(InvalidToken::Signature));
    assert_eq!(verify("RS256", &RSA_PKCS1_SHA256), Ok(()));
    assert_eq!(verify("PS256", &RSA_PSS_SHA256), Ok(()));
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        assert_eq!(verify(alg, &RSA_PKCS1_SHA256), wrong, "{alg}");
    }
    for alg in ["PS384", "PS512", "RS256", "RS384", "RS512"] {
        assert_eq!(verify(alg, &RSA_PSS_SHA256), wrong, "{alg}");
    }
}

#[test]
fn unsigned_tokens_are_refused_whatever_the_keys() {
    let (message, _) = case("RS256")
        .token
        .rsplit_once('.')
        .map(|(m, s)| (m.to_owned(), s.to_owned()))
        .unwrap();
    for alg in ["none", "None", "nOnE"] {
        let token = header(&json!({"alg": alg, "kid": "RS256"}), &format!("{message}."));
        assert_eq!(
            connect(&verifier(&[&case("RS256").pem]), &token),
            invalid(InvalidToken::Unsigned)
        );
        assert_eq!(
            connect(&fetched(&[case("RS256").jwk]), &token),
            invalid(InvalidToken::Unsigned)
        );
    }
}

#[test]
fn several_keys_may_be_given() {
    let pems: Vec<String> = cases().into_iter().map(|case| case.pem).collect();
    let pems: Vec<&str> = pems.iter().map(String::as_str).collect();
    let verifier = verifier(&pems);
    for case in cases() {
        assert!(connect(&verifier, &case.token).is_ok(), "{}", case.alg);
    }
}

#[test]
fn what_is_no_public_key_is_told_so() {
    let pem = case("ES256").pem;
    let error = |text: &str| PublicKey::from_pem(text).unwrap_err();
    for text in [
        String::new(),
        "secret".into(),
        pem.replace("BEGIN PUBLIC", "BEGIN STRANGE"),
        pem.replace("-----END PUBLIC KEY-----", ""),
        pem.replace("MF", "!!"),
    ] {
        assert_eq!(error(&text), KeyError::NotPem, "{text}");
    }
    let private = pem.replace("PUBLIC KEY", "PRIVATE KEY");
    assert_eq!(error(&private), KeyError::PrivateKey);
    assert!(
        KeyError::PrivateKey
            .to_string()
            .contains("openssl pkey -pubout")
    );
    let damaged = pem.replacen("MFkw", "MFkx", 1);
    assert_eq!(error(&damaged), KeyError::UnusableKey);
    // openssl genrsa 1024 | openssl pkey -pubout
    assert_eq!(
        error(include_str!("data/short_rsa.pem")),
        KeyError::UnusableKey
    );
    let names: Vec<_> = PublicKey::from_pem(&pem).unwrap().algorithms().collect();
    assert_eq!(names, ["ES256"]);
    assert_eq!(
        format!("{:?}", PublicKey::from_pem(&case("EdDSA").pem).unwrap()),
        r#"["EdDSA"]"#
    );
}

#[test]
fn of_a_set_only_what_can_be_used_is_used() {
    let good = case("ES256").jwk;
    let with = |key: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[key] = value;
        jwk
    };
    let mut without_id = good.clone();
    without_id.as_object_mut().unwrap().remove("kid");
    for skipped in [
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("kid", json!("")),
        with("kid", json!(7)),
        with("kty", json!("oct")),
        with("kty", json!("???")),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("alg", json!("HS256")),
        with("alg", json!("RS256")),
        with("alg", json!("ECDH-ES")),
        with("x", json!("AAAA")),
        with("x", json!("!")),
        with("y", good["x"].clone()),
        without_id,
        json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256"}),
        json!({"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "a"}),
        json!({"kty": "OKP", "crv": "X25519", "kid": "a", "x": "AAAA"}),
        json!({}),
        json!(1),
    ] {
        let set = set(&[skipped.clone(), good.clone()]);
        assert_eq!((set.len(), set.skipped()), (1, 1), "{skipped}");
    }
    for taken in [
        with("alg", json!("ES256")),
        with("key_ops", json!(["verify"])),
        with("x5c", json!(["MIIB"])),
    ] {
        assert_eq!(set(&[taken]).len(), 1);
    }
    assert!(set(&[]).is_empty());
}

#[test]
fn sets_are_bounded() {
    let syntax = |json: &[u8]| matches!(JwkSet::parse(json), Err(JwkSetError::Syntax(_)));
    for json in [
        &b""[..],
        b"[]",
        b"{}",
        b"{\"keys\":{}}",
        b"{\"keys\":1}",
        b"<html>",
        b"\xff",
    ] {
        assert!(syntax(json), "{}", json.escape_ascii());
    }
    let deep = format!("{{\"keys\":[{}", "[".repeat(100_000));
    assert!(syntax(deep.as_bytes()));
    let long = vec![b' '; MAX_JWK_SET_LEN + 1];
    assert!(matches!(
        JwkSet::parse(&long),
        Err(JwkSetError::TooLong { .. })
    ));
    let many: Vec<Value> = (0..MAX_JWK_SET_KEYS + 5)
        .map(|n| {
            let mut jwk = case("EdDSA").jwk;
            jwk["kid"] = json!(n.to_string());
            jwk
        })
        .collect();
    let set = set(&many);
    assert_eq!((set.len(), set.skipped()), (MAX_JWK_SET_KEYS, 5));
}

#[test]
fn keys_are_asked_for_once_and_awaited() {
    let (keys, asked) = remote();
    let verifier = verifier(&[]).with_remote_keys(Arc::clone(&keys));
    let token = case("ES256").token;
    let at = |seconds| {
        verifier
            .verify_connect(&token, NOW + Duration::from_secs(seconds))
            .map(|_| ())
    };
    let asked = || asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 0);
    for _ in 0..100 {
        assert_eq!(at(0), Err(TokenError::Unavailable));
    }
    assert_eq!(asked(), 1, "one fetch for all of them");
    keys.replace(set(&[case("ES256").jwk]), NOW + Duration::from_secs(1));
    assert_eq!(at(1), Ok(()));
    // The set gets old: it is used until there is a newer one, or for ever if there is none.
    assert_eq!((at(3600), asked()), (Ok(()), 1));
    assert_eq!((at(3601), asked()), (Ok(()), 2));
    assert_eq!((at(3700), asked()), (Ok(()), 2));
    keys.failed(NOW + Duration::from_secs(3701));
    assert_eq!((at(3702), asked()), (Ok(()), 2), "not so soon");
    assert_eq!((at(3711), asked()), (Ok(()), 3));
}

#[test]
fn a_key_that_is_new_is_found_and_one_that_is_made_up_is_not_looked_for_all_the_time() {
    let (keys, asked) = remote();
    let verifier = verifier(&[]).with_remote_keys(Arc::clone(&keys));
    let at = |alg: &str, seconds| {
        verifier
            .verify_connect(&case(alg).token, NOW + Duration::from_secs(seconds))
            .map(|_| ())
    };
    let asked = || asked.load(Ordering::SeqCst);
    keys.replace(set(&[case("ES256").jwk]), NOW);
    let unknown = Err(TokenError::Invalid(InvalidToken::UnknownKey));
    // The set is fresh: whoever names another key is wrong.
    for _ in 0..1000 {
        assert_eq!(at("RS256", 9), unknown);
    }
    assert_eq!(asked(), 0);
    // Later there may be a new one.
    for _ in 0..1000 {
        assert_eq!(at("RS256", 10), Err(TokenError::Unavailable));
    }
    assert_eq!((at("ES256", 10), asked()), (Ok(()), 1), "the others go on");
    keys.replace(
        set(&[case("ES256").jwk, case("RS256").jwk]),
        NOW + Duration::from_secs(11),
    );
    assert_eq!(
        (at("RS256", 11), at("PS256", 20)),
        (Ok(()), unknown.clone())
    );
    assert_eq!(asked(), 1);
    // A key that is gone from the set is gone.
    assert_eq!(at("PS256", 21), Err(TokenError::Unavailable));
    keys.replace(set(&[case("PS256").jwk]), NOW + Duration::from_secs(22));
    assert_eq!((at("PS256", 22), at("RS256", 22)), (Ok(()), unknown));
}

#[test]
fn a_token_that_is_newer_than_the_set_may_be_the_first_of_a_new_key() {
    let issued = |iat: Value| {
        let token = case("RS256").token;
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let payload = URL_SAFE_NO_PAD.encode(json!({"sub": "7", "iat": iat}).to_string());
        format!("{head}.{payload}.{signature}")
    };
    let (keys, asked) = remote();
    let verifier = verifier(&[]).with_remote_keys(Arc::clone(&keys));
    let at = |token: &str, seconds| {
        let verified = verifier.verify_connect(token, NOW + Duration::from_secs(seconds));
        verified.map(|_| ())
    };
    let asked = || asked.load(Ordering::SeqCst);
    let unknown = Err(TokenError::Invalid(InvalidToken::UnknownKey));
    keys.replace(set(&[case("ES256").jwk]), NOW);
    let now = NOW.as_secs();
    for (iat, expected) in [
        (json!(now), Err(TokenError::Unavailable)),
        (json!(now + 3), Err(TokenError::Unavailable)),
        (json!(now - 1), unknown.clone()),
        (json!(now + 3600), unknown.clone()),
        (json!("now"), unknown.clone()),
        (Value::Null, unknown.clone()),
    ] {
        assert_eq!(at(&issued(iat.clone()), 5), expected, "{iat}");
    }
    assert_eq!(asked(), 0, "in its own time");
    // The fetch that is newer decides.
    let token = issued(json!(now + 3));
    assert_eq!((at(&token, 10), asked()), (Err(TokenError::Unavailable), 1));
    keys.replace(set(&[case("ES256").jwk]), NOW + Duration::from_secs(11));
    assert_eq!(at(&token, 12), unknown);
    let signature = Err(TokenError::Invalid(InvalidToken::Signature));
    keys.replace(set(&[case("RS256").jwk]), NOW + Duration::from_secs(12));
    assert_eq!(at(&token, 12), signature, "it was made up here");
}

#[test]
fn a_fetch_that_fails_leaves_hope_but_no_haste() {
    let (keys, asked) = remote();
    let verifier = verifier(&[]).with_remote_keys(Arc::clone(&keys));
    let token = case("ES256").token;
    let at = |seconds| {
        verifier
            .verify_connect(&token, NOW + Duration::from_secs(seconds))
            .map(|_| ())
    };
    let asked = || asked.load(Ordering::SeqCst);
    assert_eq!((at(0), asked()), (Err(TokenError::Unavailable), 1));
    keys.failed(NOW + Duration::from_secs(2));
    assert_eq!((at(3), asked()), (Err(TokenError::Unavailable), 1));
    assert_eq!((at(12), asked()), (Err(TokenError::Unavailable), 2));
    // A clock that was set back doesn't stop it.
    keys.failed(NOW + Duration::from_secs(13));
    let early = verifier.verify_connect(&token, NOW - Duration::from_secs(1000));
    assert_eq!(
        (early.map(|_| ()), asked()),
        (Err(TokenError::Unavailable), 3)
    );
}

#[test]
fn keys_that_need_no_name_are_used_beside_those_of_a_set() {
    let (keys, asked) = remote();
    keys.replace(set(&[case("ES256").jwk]), NOW);
    let verifier = verifier(&[&case("RS256").pem]).with_remote_keys(keys);
    assert!(connect(&verifier, &case("RS256").token).is_ok());
    assert!(connect(&verifier, &case("ES256").token).is_ok());
    // Without a name, a key of the set is not even tried.
    let unnamed = header(&json!({"alg": "ES256"}), &case("ES256").token);
    assert_eq!(connect(&verifier, &unnamed), invalid(InvalidToken::NoKeyId));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
