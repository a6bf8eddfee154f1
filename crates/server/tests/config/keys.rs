//! Keys: those of tokens and those of the API.

use tautline::config::Config;

use crate::{load, problem};

#[test]
fn public_keys_are_checked_when_they_are_configured() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../../auth/tests/data/tokens.json")).unwrap();
    let key = |alg: &str| {
        let case = cases
            .as_array()
            .unwrap()
            .iter()
            .find(|case| case["alg"] == alg);
        case.unwrap()["pem"].as_str().unwrap().to_owned()
    };
    let token =
        |option: &str, pem: &str| format!("[client.token]\n{option} = \"\"\"\n{pem}\"\"\"\n");
    for (option, alg) in [
        ("rsa_public_key", "RS256"),
        ("ecdsa_public_key", "ES256"),
        ("ecdsa_public_key", "ES512"),
        ("eddsa_public_key", "EdDSA"),
    ] {
        let config = load(&token(option, &key(alg))).unwrap();
        let warning = "nobody can connect";
        assert!(
            !config.warnings.iter().any(|text| text.contains(warning)),
            "{option}"
        );
    }
    for (option, pem, expected) in [
        (
            "rsa_public_key",
            key("ES256"),
            "is a key of ES256; it belongs into another option",
        ),
        (
            "eddsa_public_key",
            key("RS256"),
            "is a key of RS256, RS384, RS512, PS256, PS384, PS512; it belongs",
        ),
        (
            "rsa_public_key",
            "secret\n".into(),
            "not a public key in PEM",
        ),
        (
            "ecdsa_public_key",
            key("ES256").replace("PUBLIC", "PRIVATE"),
            "this is a private key, which only the signer should have",
        ),
    ] {
        let problem = problem(&token(option, &pem));
        assert!(
            problem.contains(&format!("client.token.{option}")) && problem.contains(expected),
            "{problem}"
        );
    }
    let endpoint = |url: &str| format!("[client.token]\njwks_public_endpoint = \"{url}\"\n");
    assert!(problem(&endpoint("id.example.com")).contains("is not a URL of a key set"));
    let warns = |url: &str| {
        let config = load(&endpoint(url)).unwrap();
        config
            .warnings
            .iter()
            .any(|text| text.contains("whoever is on the way"))
    };
    assert!(warns("http://id.example.com/keys"));
    assert!(!warns("https://id.example.com/keys") && !warns("http://localhost:8080/keys"));
    let problem = problem("[client.token]\nleeway = \"6m\"\n");
    assert!(
        problem.contains("client.token.leeway") && problem.contains("5m"),
        "{problem}"
    );
}

#[test]
fn what_tokens_fill_into_the_url_of_a_key_set_is_a_group_and_no_host() {
    let token = |url: &str, more: &str| {
        format!("[client.token]\njwks_public_endpoint = \"{url}\"\n{more}\n")
    };
    let issuer = "issuer_regex = '^https://id\\.example\\.com/(?<tenant>[a-z]+)$'";
    let good = "https://id.example.com/{{tenant}}/keys";
    let config = load(&token(good, issuer)).unwrap();
    let warns = |config: &Config, text: &str| {
        let mut warnings = config.warnings.iter();
        warnings.any(|warning| warning.contains(text))
    };
    assert!(!warns(&config, "whoever is on the way"));
    let open = load(&token(&good.replace("https", "http"), issuer)).unwrap();
    assert!(warns(&open, "whoever is on the way"));
    load(&token("https://{{tenant}}.id.example.com/keys", issuer)).unwrap();
    for (url, more, expected) in [
        (good, "", "`{{tenant}}` is no named group"),
        (
            good,
            "issuer_regex = '(?<other>a)'",
            "`{{tenant}}` is no named group",
        ),
        (
            good,
            &*format!("{issuer}\naudience_regex = '(?<tenant>a)'"),
            "is a named group of both",
        ),
        (
            "https://{{tenant}}/keys",
            issuer,
            "a token could send the server anywhere",
        ),
        ("{{tenant}}/keys", issuer, "must begin with https://"),
        (
            "https://id.example.com/{{tenant",
            issuer,
            "with no name and `}}`",
        ),
    ] {
        let problem = problem(&token(url, more));
        assert!(
            problem.contains("client.token.jwks_public_endpoint: ") && problem.contains(expected),
            "{problem}"
        );
    }
}

#[test]
fn keys_of_the_api_are_checked() {
    let key = |more: &str| format!("[[http_api.keys]]\nname = \"shop\"\n{more}\n");
    let digest = format!("sha256 = \"{}\"", "0".repeat(64));
    let good = key(&format!(
        "{digest}\nmethods = [\"publish\", \"history_remove\"]\nchannels = [\"shop:*\"]"
    ));
    let config = load(&good).unwrap();
    assert!(!config.http.api_keys.is_empty());
    for (text, expected) in [
        (key(""), "http_api.keys[0].sha256: is not a SHA-256 digest"),
        (key("sha256 = \"my secret key\""), "64 hexadecimal digits"),
        (
            key(&format!("{digest}\nmethods = [\"publsh\"]")),
            "http_api.keys[0].methods: `publsh` is no method of the API, did you mean `publish`?",
        ),
        (
            key(&format!("{digest}\nchannels = [\"a[\"]")),
            "http_api.keys[0].channels: `a[` can't be read",
        ),
        (
            key(&digest) + &key(&digest),
            "http_api.keys[1].name: must be there, and be another one for each key",
        ),
        (
            key(&format!("{digest}\nscope = []")),
            "unknown key http_api.keys[0] (`shop`).scope",
        ),
        (
            "[http_api]\nmax_batch_commands = 0".to_owned(),
            "must be at least 1",
        ),
    ] {
        let error = load(&text).err().expect(&text).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("my secret key"), "{error}");
    }
}

#[test]
fn subscription_tokens_can_have_keys_of_their_own() {
    let text = "[client.token]\nhmac_secret_key = \"one\"\n\
                [client.subscription_token]\nenabled = true\nhmac_secret_key = \"\"\n";
    let problem_of = problem(text);
    assert!(
        problem_of.contains("5:1: client.subscription_token.hmac_secret_key"),
        "{problem_of}"
    );
    let off = text.replace("enabled = true", "enabled = false");
    assert!(load(&off).is_ok(), "not enabled: not looked at");
    let text = "[client.subscription_token]\nenable = true\n";
    assert!(problem(text).contains("did you mean `enabled`?"));
    let text = "[client.subscription_token]\nenabled = 1\n";
    assert!(
        problem(text).contains("client.subscription_token.enabled"),
        "{}",
        problem(text)
    );
}

#[test]
fn patterns_of_tokens_are_checked() {
    for (text, expected) in [
        (
            "audience = \"a\"\naudience_regex = \"a\"",
            "audience_regex: can't be set beside audience",
        ),
        (
            "issuer = \"a\"\nissuer_regex = \"a\"",
            "issuer_regex: can't be set beside issuer",
        ),
        (
            "issuer_regex = \"(\"",
            "client.token.issuer_regex: `(` can't be used as a regular expression",
        ),
        (
            "user_id_claim = \"user-id\"",
            "user_id_claim: `user-id` must be one or more letters",
        ),
    ] {
        let problem = problem(&format!("[client.token]\n{text}\n"));
        assert!(problem.contains(expected), "{problem}");
    }
}
