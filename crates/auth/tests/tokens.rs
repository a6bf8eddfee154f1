//! Every way in which a token can be good or bad.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::value::RawValue;
use tautline_auth::{
    Allowed, ConnectClaims, InvalidToken, KeyError, MAX_TOKEN_LEN, Overrides, Pattern, Secret,
    Signer, SubscribeClaims, TokenClaims, TokenError, TokenId, TokenMark, Verifier, VerifierConfig,
};

const NOW: Duration = Duration::from_secs(1_800_000_000);

/// The client protocol's published examples, both signed with `secret`.
const CONNECT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3In0.\
                       YNVm3kTUe0hHLISakU4cmk8MSvtML_GbFX1hBFiznF0";
const SUBSCRIBE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                         eyJzdWIiOiI3IiwiY2hhbm5lbCI6Im9yZGVyczo3In0.\
                         vq-gdkPdalJs7v9XIO9cqHN6YJ2NCyhmtSiUSdrzwjc";

fn config() -> VerifierConfig {
    VerifierConfig {
        hmac_secret: Some("secret".into()),
        ..VerifierConfig::default()
    }
}

fn verifier() -> Verifier {
    Verifier::new(config()).expect("the secret is not empty")
}

fn token_with(
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
    secret: &str,
    algorithm: Algorithm,
) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm)
        .expect("HMAC takes any key");
    format!("{message}.{signature}")
}

fn token(claims: &str) -> String {
    token_with(r#"{"alg":"HS256"}"#, claims, "secret", Algorithm::HS256)
}

fn connect(claims: &str) -> Result<ConnectClaims, TokenError> {
    verifier().verify_connect(&token(claims), NOW)
}

fn subscribe(claims: &str) -> Result<SubscribeClaims, TokenError> {
    verifier().verify_subscribe(&token(claims), NOW)
}

#[track_caller]
fn assert_invalid<T: std::fmt::Debug>(result: Result<T, TokenError>, expected: &InvalidToken) {
    match result {
        Err(TokenError::Invalid(reason)) => assert_eq!(reason, *expected),
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

#[test]
fn published_examples_verify() {
    let claims = verifier().verify_connect(CONNECT, NOW).unwrap();
    assert_eq!(
        claims,
        ConnectClaims {
            user: "7".into(),
            mark: claims.mark,
            ..ConnectClaims::default()
        }
    );
    let claims = verifier().verify_subscribe(SUBSCRIBE, NOW).unwrap();
    assert_eq!(
        (claims.user.as_str(), claims.channel.as_str()),
        ("7", "orders:7")
    );
    assert_eq!(claims.expire_at, None);
}

#[test]
fn signer_makes_the_published_examples() {
    let signer = Signer::hs256(&"secret".into()).unwrap();
    let claims = TokenClaims {
        user: "7",
        ..TokenClaims::default()
    };
    assert_eq!(signer.sign(&claims).unwrap(), CONNECT);
    let claims = TokenClaims {
        channel: Some("orders:7"),
        ..claims
    };
    assert_eq!(signer.sign(&claims).unwrap(), SUBSCRIBE);
}

#[test]
fn signed_claims_come_back() {
    let info = RawValue::from_string(r#"{"name": "Ann",  "big":12345678901234567890}"#.into());
    let info = info.unwrap();
    let token = Signer::hs256(&"secret".into()).unwrap().sign(&TokenClaims {
        user: "7",
        expires_at: Some(1_800_000_060),
        info: Some(&info),
        issuer: Some("https://example.org"),
        audience: Some("chat"),
        ..TokenClaims::default()
    });
    let verifier = Verifier::new(VerifierConfig {
        issuer: Some("https://example.org".into()),
        audience: Some("chat".into()),
        ..config()
    });
    let claims = verifier
        .unwrap()
        .verify_connect(&token.unwrap(), NOW)
        .unwrap();
    assert_eq!(claims.expire_at, Some(1_800_000_060));
    assert_eq!(claims.info.unwrap(), info.get().as_bytes());
}

#[test]
fn all_hmac_algorithms_verify() {
    for (name, algorithm) in [
        ("HS256", Algorithm::HS256),
        ("HS384", Algorithm::HS384),
        ("HS512", Algorithm::HS512),
    ] {
        let header = format!(r#"{{"typ":"JWT","alg":"{name}","kid":"x"}}"#);
        let token = token_with(&header, r#"{"sub":"7"}"#, "secret", algorithm);
        assert_eq!(
            verifier().verify_connect(&token, NOW).unwrap().user,
            "7",
            "{name}"
        );
    }
}

#[test]
fn the_header_can_not_choose_another_algorithm_than_the_signature() {
    let token = token_with(r#"{"alg":"HS512"}"#, "{}", "secret", Algorithm::HS256);
    assert_invalid(
        verifier().verify_connect(&token, NOW),
        &InvalidToken::Signature,
    );
}

#[test]
fn none_and_unknown_algorithms_are_refused() {
    for name in [
        "none", "None", "NONE", "hs256", "RS1", "ES256K", "eddsa", "HS1", "dir", "",
    ] {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        let signed = token_with(&header, r#"{"sub":"7"}"#, "secret", Algorithm::HS256);
        let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
        for token in [signed, unsigned] {
            let result = verifier().verify_connect(&token, NOW);
            let expected = match name {
                "none" | "None" | "NONE" => InvalidToken::Unsigned,
                _ => InvalidToken::UnsupportedAlgorithm,
            };
            assert_invalid(result, &expected);
        }
    }
}

#[test]
fn a_missing_signature_is_a_wrong_one() {
    let unsigned = format!("{}.", CONNECT.rsplit_once('.').unwrap().0);
    assert_invalid(
        verifier().verify_connect(&unsigned, NOW),
        &InvalidToken::Signature,
    );
}

#[test]
fn each_changed_byte_makes_a_token_invalid() {
    for index in 0..CONNECT.len() {
        let mut bytes = CONNECT.as_bytes().to_vec();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let result = verifier().verify_connect(&changed, NOW);
        assert!(
            matches!(result, Err(TokenError::Invalid(_))),
            "byte {index}: {result:?}"
        );
    }
}

#[test]
fn another_secret_is_a_wrong_signature() {
    let token = token_with(r#"{"alg":"HS256"}"#, "{}", "Secret", Algorithm::HS256);
    assert_invalid(
        verifier().verify_connect(&token, NOW),
        &InvalidToken::Signature,
    );
}

#[test]
fn shapes_that_are_no_jwt_are_refused() {
    let list = format!("{}.e30.x", URL_SAFE_NO_PAD.encode(r#"["HS256"]"#));
    let no_alg = format!("{}.e30.x", URL_SAFE_NO_PAD.encode("{}"));
    let padded = CONNECT.replacen('.', "=.", 1);
    for text in [
        "", ".", "..", "a", "a.b", "a.b.c", "a.b.c.d", "....", "é.é.é", &no_alg, &padded, &list,
    ] {
        let result = verifier().verify_connect(text, NOW);
        assert!(
            matches!(result, Err(TokenError::Invalid(InvalidToken::Encoding(_)))),
            "{text:?}: {result:?}"
        );
    }
}

#[test]
fn critical_headers_are_refused() {
    let header = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    let token = token_with(header, "{}", "secret", Algorithm::HS256);
    assert_invalid(
        verifier().verify_connect(&token, NOW),
        &InvalidToken::CriticalHeader,
    );
}

#[test]
fn what_nobody_reads_is_utf8_all_the_same() {
    let (good, bad) = (
        r#"{"alg":"HS256","x":"y"}"#,
        b"{\"alg\":\"HS256\",\"x\":\"\xff\"}",
    );
    let token =
        |header: &[u8], claims: &[u8]| token_with(header, claims, "secret", Algorithm::HS256);
    let verify = |token: &str| verifier().verify_connect(token, NOW);
    assert!(verify(&token(good.as_bytes(), br#"{"x":"y"}"#)).is_ok());
    let refused = verify(&token(bad, b"{}"));
    assert!(
        matches!(refused, Err(TokenError::Invalid(InvalidToken::Encoding(_)))),
        "{refused:?}"
    );
    let refused = verify(&token(good.as_bytes(), b"{\"x\":\"\xff\"}"));
    assert!(
        matches!(refused, Err(TokenError::Invalid(InvalidToken::Claims(_)))),
        "{refused:?}"
    );
}

#[test]
fn length_has_a_limit() {
    let overhead = token(r#"{"sub":""}"#).len();
    // Three bytes of claims are four of base64url.
    let user = "u".repeat((MAX_TOKEN_LEN - overhead) / 4 * 3);
    assert!(connect(&format!(r#"{{"sub":"{user}"}}"#)).is_ok());
    let long = "u".repeat(MAX_TOKEN_LEN);
    let token = token(&format!(r#"{{"sub":"{long}"}}"#));
    let expected = InvalidToken::TooLong {
        len: token.len(),
        max: MAX_TOKEN_LEN,
    };
    assert_invalid(verifier().verify_connect(&token, NOW), &expected);
}

#[test]
fn a_verifier_without_keys_refuses_everything() {
    let verifier = Verifier::new(VerifierConfig::default()).unwrap();
    assert_invalid(
        verifier.verify_connect(CONNECT, NOW),
        &InvalidToken::NoKey("HS256"),
    );
}

#[test]
fn keys_that_protect_nothing_are_refused() {
    let empty = VerifierConfig {
        hmac_secret: Some("".into()),
        ..VerifierConfig::default()
    };
    assert_eq!(Verifier::new(empty).err(), Some(KeyError::EmptySecret));
    let empty = VerifierConfig {
        hmac_previous_secret: Some("".into()),
        ..config()
    };
    assert_eq!(Verifier::new(empty).err(), Some(KeyError::EmptySecret));
    let previous = VerifierConfig {
        hmac_previous_secret: Some("x".into()),
        ..VerifierConfig::default()
    };
    assert_eq!(
        Verifier::new(previous).err(),
        Some(KeyError::PreviousWithoutCurrent)
    );
    assert_eq!(Signer::hs256(&"".into()).err(), Some(KeyError::EmptySecret));
}

#[test]
fn the_previous_secret_works_until_its_end() {
    let old = token_with(r#"{"alg":"HS256"}"#, "{}", "old", Algorithm::HS256);
    let rotated = |valid_until| {
        Verifier::new(VerifierConfig {
            hmac_previous_secret: Some("old".into()),
            hmac_previous_secret_valid_until: valid_until,
            ..config()
        })
        .unwrap()
    };
    assert!(rotated(None).verify_connect(&old, NOW).is_ok());
    let until_now = rotated(Some(NOW));
    assert!(until_now.verify_connect(&old, NOW).is_ok());
    assert!(
        until_now
            .verify_connect(CONNECT, NOW + Duration::from_secs(1))
            .is_ok()
    );
    let late = until_now.verify_connect(&old, NOW + Duration::from_secs(1));
    assert_invalid(late, &InvalidToken::Signature);
}

#[test]
fn validity_ends_at_exp_and_starts_at_nbf() {
    assert!(connect(r#"{"exp":1800000001}"#).is_ok());
    assert!(connect(r#"{"exp":1800000000.5}"#).is_ok());
    assert!(connect(r#"{"exp":1e300}"#).is_ok());
    assert!(connect(r#"{"nbf":1800000000}"#).is_ok());
    assert!(connect(r#"{"nbf":-5}"#).is_ok());
    for claims in [
        r#"{"exp":1800000000}"#,
        r#"{"exp":0}"#,
        r#"{"exp":-1}"#,
        // Over before it began.
        r#"{"exp":1700000000,"nbf":1850000000}"#,
    ] {
        assert_eq!(connect(claims), Err(TokenError::Expired), "{claims}");
    }
    for claims in [
        r#"{"nbf":1800000001}"#,
        r#"{"nbf":1800000000.5}"#,
        r#"{"nbf":1e300}"#,
        r#"{"exp":1900000000,"nbf":1850000000}"#,
    ] {
        assert_eq!(connect(claims), Err(TokenError::NotYet), "{claims}");
    }
    let late = r#"{"channel":"c","exp":1800000000}"#;
    assert_eq!(subscribe(late), Err(TokenError::Expired));
    let early = r#"{"channel":"c","nbf":1800000001}"#;
    assert_eq!(subscribe(early), Err(TokenError::NotYet));
}

#[test]
fn leeway_makes_up_for_clocks_that_disagree() {
    let config = VerifierConfig {
        leeway: Duration::from_secs(10),
        ..config()
    };
    let verifier = Verifier::new(config).unwrap();
    let verify = |claims: &str| verifier.verify_connect(&token(claims), NOW).map(|_| ());
    assert_eq!(verify(r#"{"exp":1799999991}"#), Ok(()));
    assert_eq!(verify(r#"{"exp":1799999990}"#), Err(TokenError::Expired));
    assert_eq!(verify(r#"{"nbf":1800000010}"#), Ok(()));
    assert_eq!(verify(r#"{"nbf":1800000011}"#), Err(TokenError::NotYet));
}

#[test]
fn every_other_fault_wins_over_expiry() {
    let expired = r#"{"sub":"7","exp":1}"#;
    let forged = token_with(r#"{"alg":"HS256"}"#, expired, "wrong", Algorithm::HS256);
    assert_invalid(
        verifier().verify_connect(&forged, NOW),
        &InvalidToken::Signature,
    );
    let with_issuer = Verifier::new(VerifierConfig {
        issuer: Some("me".into()),
        ..config()
    });
    let result = with_issuer.unwrap().verify_connect(&token(expired), NOW);
    assert_invalid(result, &InvalidToken::Issuer);
    assert_invalid(
        connect(r#"{"exp":1,"channel":"c"}"#),
        &InvalidToken::UnexpectedChannel,
    );
    assert_invalid(subscribe(r#"{"exp":1}"#), &InvalidToken::MissingChannel);
    let result = connect(r#"{"exp":1,"b64info":"?"}"#);
    assert!(matches!(
        result,
        Err(TokenError::Invalid(InvalidToken::Claims(_)))
    ));
}

#[test]
fn expire_at_decides_over_exp() {
    let expiry = |claims: &str| connect(claims).unwrap().expire_at;
    assert_eq!(expiry("{}"), None);
    assert_eq!(expiry(r#"{"exp":1900000000}"#), Some(1_900_000_000));
    assert_eq!(expiry(r#"{"exp":1900000000.9}"#), Some(1_900_000_000));
    assert_eq!(expiry(r#"{"expire_at":1900000000}"#), Some(1_900_000_000));
    assert_eq!(
        expiry(r#"{"exp":1900000000,"expire_at":1850000000}"#),
        Some(1_850_000_000)
    );
    assert_eq!(expiry(r#"{"exp":1900000000,"expire_at":0}"#), None);
    // The connection's end lies behind us, which is the session's business, not the token's.
    assert_eq!(expiry(r#"{"exp":1900000000,"expire_at":5}"#), Some(5));
}

#[test]
fn issuer_is_checked_where_configured() {
    let verifier = Verifier::new(VerifierConfig {
        issuer: Some("me".into()),
        ..config()
    })
    .unwrap();
    assert!(
        verifier
            .verify_connect(&token(r#"{"iss":"me"}"#), NOW)
            .is_ok()
    );
    for claims in ["{}", r#"{"iss":"you"}"#, r#"{"iss":null}"#, r#"{"iss":""}"#] {
        assert_invalid(
            verifier.verify_connect(&token(claims), NOW),
            &InvalidToken::Issuer,
        );
    }
    assert!(connect(r#"{"iss":"anybody"}"#).is_ok());
}

#[test]
fn audience_is_checked_where_configured() {
    let config = VerifierConfig {
        audience: Some("chat".into()),
        ..config()
    };
    let verifier = Verifier::new(config).unwrap();
    for claims in [r#"{"aud":"chat"}"#, r#"{"aud":["news","chat"]}"#] {
        assert!(
            verifier.verify_connect(&token(claims), NOW).is_ok(),
            "{claims}"
        );
    }
    for claims in [
        "{}",
        r#"{"aud":"news"}"#,
        r#"{"aud":[]}"#,
        r#"{"aud":["chatter"]}"#,
    ] {
        assert_invalid(
            verifier.verify_connect(&token(claims), NOW),
            &InvalidToken::Audience,
        );
    }
    assert!(connect(r#"{"aud":"anybody"}"#).is_ok());
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    for claims in [
        "[]",
        "7",
        "",
        r#"{"sub":7}"#,
        r#"{"sub":"7","sub":"8"}"#,
        r#"{"exp":"1900000000"}"#,
        r#"{"expire_at":-1}"#,
        r#"{"channels":"c"}"#,
        r#"{"subs":[]}"#,
        r#"{"subs":{"c":{"override":{"presence":true}}}}"#,
        r#"{"b64info":"e30"}"#,
        r#"{"b64info":"/w=="}"#,
        r#"{"info":{}"#,
    ] {
        let result = connect(claims);
        assert!(
            matches!(result, Err(TokenError::Invalid(InvalidToken::Claims(_)))),
            "{claims}: {result:?}"
        );
    }
}

#[test]
fn a_user_is_optional() {
    for claims in ["{}", r#"{"sub":null}"#, r#"{"sub":""}"#] {
        assert_eq!(connect(claims).unwrap().user, "", "{claims}");
    }
}

#[test]
fn payloads_keep_their_bytes() {
    let claims = connect(r#"{"info": {"a" : 1.50,"b":"\u00e9"} ,"meta":{"plan":"pro"}}"#).unwrap();
    assert_eq!(claims.info.unwrap(), br#"{"a" : 1.50,"b":"\u00e9"}"#);
    assert_eq!(claims.meta.unwrap(), br#"{"plan":"pro"}"#);
    let base64 = STANDARD.encode(r#"{"from":"b64"}"#);
    let both = connect(&format!(r#"{{"info":1,"b64info":"{base64}"}}"#)).unwrap();
    assert_eq!(both.info.unwrap(), br#"{"from":"b64"}"#);
    let empty = connect(r#"{"info":1,"b64info":""}"#).unwrap();
    assert_eq!(empty.info.unwrap(), b"1");
}

#[test]
fn server_side_subscriptions_are_read() {
    let names = |claims: &str| {
        connect(claims)
            .unwrap()
            .subs
            .into_keys()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(r#"{"channels":["a","b"]}"#), ["a", "b"]);
    assert_eq!(names(r#"{"channels":["a"],"subs":{}}"#), ["a"]);
    assert_eq!(names(r#"{"channels":["a"],"subs":{"c":{}}}"#), ["c"]);

    let claims = r#"{"subs":{"c":{"info":{"role":1},"data":"d","override":{
        "presence":{"value":false},"force_recovery":{"value":true}}}}}"#;
    let subs = connect(claims).unwrap().subs;
    assert_eq!(subs["c"].info.as_deref(), Some(&br#"{"role":1}"#[..]));
    assert_eq!(subs["c"].data.as_deref(), Some(&br#""d""#[..]));
    let expected = Overrides {
        presence: Some(false),
        force_recovery: Some(true),
        ..Overrides::default()
    };
    assert_eq!(subs["c"].overrides, expected);
}

#[test]
fn subscription_claims_are_read() {
    let claims = r#"{"sub":"7","channel":"orders:7","client":"abc","info":1,"data":2,
        "exp":1900000000,"override":{"join_leave":{"value":true}}}"#;
    let claims = subscribe(claims).unwrap();
    assert_eq!(claims.client.as_deref(), Some("abc"));
    assert_eq!(claims.options.info.as_deref(), Some(&b"1"[..]));
    assert_eq!(claims.options.data.as_deref(), Some(&b"2"[..]));
    assert_eq!(claims.options.overrides.join_leave, Some(true));
    assert_eq!(claims.expire_at, Some(1_900_000_000));
    assert_invalid(subscribe(r#"{"sub":"7"}"#), &InvalidToken::MissingChannel);
    assert_invalid(
        subscribe(r#"{"channel":""}"#),
        &InvalidToken::MissingChannel,
    );
}

#[test]
fn nothing_prints_a_key_or_a_token() {
    let config = VerifierConfig {
        hmac_secret: Some("hunter2".into()),
        hmac_previous_secret: Some("hunter1".into()),
        ..VerifierConfig::default()
    };
    let shown = format!("{config:?} {:?} {:?}", Verifier::new(config.clone()), {
        Signer::hs256(&"hunter2".into())
    });
    assert!(!shown.contains("hunter"), "{shown}");
    // As numbers, as a derived Debug of bytes would have it.
    assert!(!shown.contains("104, 117"), "{shown}");

    // A configuration that forgot the quotes.
    for json in [
        "20260101",
        "-5",
        "1.5",
        "true",
        "[\"hunter2\"]",
        "340282366920938463463374607431768211455",
    ] {
        let error = serde_json::from_str::<Secret>(json)
            .unwrap_err()
            .to_string();
        assert!(error.contains("a secret, as text in quotes"), "{error}");
        assert!(
            !error.contains(json) && !error.contains("hunter"),
            "{error}"
        );
    }

    let user = "u".repeat(500);
    let error = connect(&format!(r#"{{"sub":"{user}","exp":"{user}"}}"#)).unwrap_err();
    assert!(error.to_string().len() < 250, "{error}");
}

#[test]
fn issuer_and_audience_can_be_patterns() {
    let pattern = |text: &str| Some(Pattern::new(text).unwrap());
    let verifier = Verifier::new(VerifierConfig {
        audience_regex: pattern("^app-[0-9]+$"),
        issuer_regex: pattern("^https://[a-z]+\\.example\\.com$"),
        ..config()
    })
    .unwrap();
    let check = |claims: &str| verifier.verify_connect(&token(claims), NOW).map(|_| ());
    let issuer = r#""iss":"https://eu.example.com""#;
    for audience in [r#""app-1""#, r#"["other","app-22"]"#] {
        assert_eq!(check(&format!(r#"{{{issuer},"aud":{audience}}}"#)), Ok(()));
    }
    for audience in [r#""app-x""#, r#"["other"]"#, "[]"] {
        let result = check(&format!(r#"{{{issuer},"aud":{audience}}}"#));
        assert_invalid(result, &InvalidToken::Audience);
    }
    assert_invalid(check(&format!("{{{issuer}}}")), &InvalidToken::Audience);
    let forged = check(r#"{"iss":"https://eu.example.com.evil.org","aud":"app-1"}"#);
    assert_invalid(forged, &InvalidToken::Issuer);
    assert_invalid(check(r#"{"aud":"app-1"}"#), &InvalidToken::Issuer);
}

#[test]
fn another_claim_can_have_the_user() {
    let verifier = Verifier::new(VerifierConfig {
        user_id_claim: Some("uid".into()),
        ..config()
    })
    .unwrap();
    let user = |claims: &str| {
        let claims = verifier.verify_connect(&token(claims), NOW);
        claims.map(|claims| claims.user)
    };
    assert_eq!(user(r#"{"sub":"7","uid":"42"}"#), Ok("42".into()));
    assert_eq!(user(r#"{"sub":"7"}"#), Ok(String::new()), "nobody");
    let error = user(r#"{"sub":"7","uid":42}"#).unwrap_err().to_string();
    assert!(error.contains("`uid` is not a text"), "{error}");
}

#[test]
fn what_a_token_allows_is_read() {
    let claims = connect(r#"{"caps":[{"channels":["a"],"allow":["sub","hst"]}]}"#).unwrap();
    let allowed = claims.caps.unwrap().of("a");
    assert!(allowed.has(Allowed::SUBSCRIBE | Allowed::HISTORY) && !allowed.has(Allowed::PUBLISH));
    assert_eq!(connect("{}").unwrap().caps, None);
    let claims =
        subscribe(r#"{"channel":"a","allow":["pub"],"server_tags_filter":{"key":"k","cmp":"ex"}}"#);
    let options = claims.unwrap().options;
    assert_eq!(options.allow, Allowed::PUBLISH);
    assert_eq!(
        options.tags_filter.as_deref(),
        Some(r#"{"key":"k","cmp":"ex"}"#)
    );
    let claims = connect(r#"{"subs":{"a":{"allow":["prs"],"server_tags_filter":{}}}}"#).unwrap();
    assert_eq!(claims.subs["a"].allow, Allowed::PRESENCE);
    assert_eq!(claims.subs["a"].tags_filter.as_deref(), Some("{}"));
    assert!(connect(r#"{"caps":[{"channels":["("],"match":"regex"}]}"#).is_err());
}

#[test]
fn signatures_may_be_skipped_and_nothing_else() {
    let verifier = Verifier::new(VerifierConfig {
        issuer: Some("us".into()),
        skip_signature: true,
        ..VerifierConfig::default()
    });
    let verifier = verifier.unwrap();
    let token = |claims: &str| {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.x", encode(r#"{"alg":"HS256"}"#), encode(claims))
    };
    let judge = |claims: &str| verifier.verify_connect(&token(claims), Duration::from_secs(100));
    assert_eq!(judge(r#"{"sub":"7","iss":"us"}"#).unwrap().user, "7");
    assert_eq!(judge(r#"{"sub":"7"}"#), Err(InvalidToken::Issuer.into()));
    let expired = judge(r#"{"sub":"7","iss":"us","exp":99}"#);
    assert_eq!(expired, Err(TokenError::Expired));
}

/// What a token is known by where it is revoked: never a reason to refuse it.
#[test]
fn a_token_is_known_by_its_jti_and_by_when_it_was_issued() {
    let by = |jti: &str, issued_at| TokenMark::new(TokenId::of_jti(jti), issued_at);
    for (claims, expected) in [
        (
            r#"{"jti":"a","iat":1700000000}"#,
            by("a", Some(1_700_000_000)),
        ),
        (
            r#"{"jti":"a","iat":1700000000.9}"#,
            by("a", Some(1_700_000_000)),
        ),
        (r#"{"jti":"\u0061"}"#, by("a", None)),
        (r#"{"jti":"a","iat":"yesterday"}"#, by("a", None)),
        (r#"{"jti":7,"iat":-5}"#, by("7", Some(0))),
        (r#"{"jti":{"b":1}}"#, by(r#"{"b":1}"#, None)),
        (r#"{"jti":"","iat":null}"#, by("", None)),
    ] {
        assert_eq!(connect(claims).unwrap().mark, expected, "{claims}");
        let claims = claims.replacen('{', r#"{"channel":"c","#, 1);
        assert_eq!(subscribe(&claims).unwrap().mark, expected, "{claims}");
    }
    // Without one, by all that was signed.
    let (one, other) = (r#"{"sub":"7","iat":1}"#, r#"{"sub":"7","iat":2}"#);
    let mark = |claims: &str| connect(claims).unwrap().mark;
    assert_eq!(mark(one), mark(one));
    assert_ne!(mark(one).id(), mark(other).id());
    assert!(!mark("{}").is_none());
    assert_eq!(connect(r#"{"jti":null,"iat":1}"#).unwrap().mark.id(), {
        let token = token(r#"{"jti":null,"iat":1}"#);
        verifier().verify_connect(&token, NOW).unwrap().mark.id()
    });
}
