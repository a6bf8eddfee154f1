//! What must hold for tokens and key sets, whatever bytes come. The fuzz target `token` calls this
//! with what it invents, ordinary tests with the corpus and with generated claims.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tautline_auth::{JwkSet, Secret, TokenError, Verifier, VerifierConfig};

const NOW: u64 = 1_800_000_000;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(VerifierConfig {
        hmac_secret: Some(Secret::from("secret")),
        ..VerifierConfig::default()
    })
    .expect("the secret is not empty")
});

/// The bytes as a token, as what a good signature is made for, and as a key set. Up to a line break
/// they are a header, behind it claims.
pub(crate) fn check(data: &[u8]) {
    let now = Duration::from_secs(NOW);
    let _ = JwkSet::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        // Nobody guesses a signature.
        assert!(VERIFIER.verify_connect(text, now).is_err());
        assert!(VERIFIER.verify_subscribe(text, now).is_err());
    }
    let cut = data.iter().position(|byte| *byte == b'\n');
    let (header, claims) = match cut {
        Some(cut) => (&data[..cut], &data[cut + 1..]),
        None => (&br#"{"alg":"HS256"}"#[..], data),
    };
    let message = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let signature = hmac::sign(&key, message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    check_signed(header, claims, &token);
}

fn check_signed(header: &[u8], claims: &[u8], token: &str) {
    let now = Duration::from_secs(NOW);
    let connect = VERIFIER.verify_connect(token, now);
    let subscribe = VERIFIER.verify_subscribe(token, now);
    // It is one kind or the other.
    assert!(connect.is_err() || subscribe.is_err());
    let is_good = |error: Option<&TokenError>| {
        matches!(error, None | Some(TokenError::Expired | TokenError::NotYet))
    };
    if !is_good(connect.as_ref().err()) && !is_good(subscribe.as_ref().err()) {
        return;
    }
    // Header and claims are what a general parser takes for objects.
    let header: Value = serde_json::from_slice(header).expect("a header that was believed is JSON");
    assert_eq!(header["alg"], "HS256");
    // The general parser refuses some numbers that are passed through.
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else {
        return;
    };
    assert!(claims.is_object());
    let seconds = |claim: &str| claims[claim].as_u64();
    let json = |bytes: &Option<Vec<u8>>| {
        bytes.as_ref().is_none_or(|bytes| {
            serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok()
        })
    };
    if let Ok(connect) = connect {
        assert_eq!(connect.user, claims["sub"].as_str().unwrap_or(""));
        assert!(
            seconds("exp").is_none_or(|exp| exp > NOW)
                && seconds("nbf").is_none_or(|nbf| nbf <= NOW)
        );
        assert!(claims["channel"].as_str().unwrap_or("").is_empty());
        assert!(json(&connect.info) && json(&connect.meta));
        assert!(
            connect
                .subs
                .values()
                .all(|sub| json(&sub.info) && json(&sub.data))
        );
    }
    if let Ok(subscribe) = subscribe {
        assert_eq!(subscribe.user, claims["sub"].as_str().unwrap_or(""));
        assert_eq!(
            subscribe.channel,
            claims["channel"].as_str().expect("a channel")
        );
        assert!(
            seconds("exp").is_none_or(|exp| exp > NOW)
                && seconds("nbf").is_none_or(|nbf| nbf <= NOW)
        );
        assert!(json(&subscribe.options.info) && json(&subscribe.options.data));
    }
}
