//! Key sets of many tenants, of which the token says whose it is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tautline_auth::{
    ConnectClaims, InvalidToken, JwkSet, MAX_AWAITED_KEY_SETS, MAX_KEY_SETS, Pattern,
    RemoteKeyFamily, TokenError, UrlTemplate, UrlTemplateError, Verifier, VerifierConfig,
};

const NOW: Duration = Duration::from_secs(1_800_000_000);
const PAUSE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(3600);
const ISSUER: &str = r"^https://id\.example\.com/(?<tenant>[^/]+)$";

/// A tenant, who signs tokens with a key of his own.
struct Tenant {
    name: String,
    key: Ed25519KeyPair,
}

impl Tenant {
    fn new(name: &str) -> Self {
        let name = name.to_owned();
        let key = Ed25519KeyPair::generate().unwrap();
        Self { name, key }
    }

    fn url(&self) -> String {
        format!("https://id.example.com/{}/keys", self.name)
    }

    fn set(&self) -> JwkSet {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x});
        JwkSet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(&json!({"alg": "EdDSA", "kid": "k"}));
        let message = format!("{header}.{}", encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn token(&self) -> String {
        self.sign(&json!({"sub": "7", "iss": issuer(&self.name)}))
    }
}

fn issuer(tenant: &str) -> String {
    format!("https://id.example.com/{tenant}")
}

/// A verifier, its family, and what it asked for.
struct World {
    verifier: Verifier,
    family: Arc<RemoteKeyFamily>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        Self::with("https://id.example.com/{{tenant}}/keys", Some(ISSUER), None)
    }

    fn with(url: &str, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let pattern = |text: Option<&str>| text.map(|text| Pattern::new(text).unwrap());
        let (issuer, audience) = (pattern(issuer), pattern(audience));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let urls = Arc::clone(&asked);
        let family = RemoteKeyFamily::new(
            UrlTemplate::parse(url).unwrap(),
            issuer.clone(),
            audience.clone(),
            PAUSE,
            MAX_AGE,
            Arc::new(move |url: &str| urls.lock().unwrap().push(url.to_owned())),
        );
        let family = Arc::new(family.unwrap());
        let verifier = Verifier::new(VerifierConfig {
            issuer_regex: issuer,
            audience_regex: audience,
            ..VerifierConfig::default()
        });
        let verifier = verifier.unwrap();
        Self {
            verifier: verifier.with_remote_key_family(Arc::clone(&family)),
            family,
            asked,
        }
    }

    fn judge(&self, token: &str, now: Duration) -> Result<ConnectClaims, TokenError> {
        self.verifier.verify_connect(token, now)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Hands over what was asked for; who isn't among the tenants has no set.
    fn fetch(&self, tenants: &[&Tenant], now: Duration) -> usize {
        let asked = self.asked();
        for url in &asked {
            let keys = self.family.set(url).expect("what is asked for stays");
            match tenants.iter().find(|tenant| tenant.url() == *url) {
                Some(tenant) => keys.replace(tenant.set(), now),
                None => keys.failed(now),
            }
        }
        asked.len()
    }
}

#[test]
fn each_tenant_has_keys_of_its_own() {
    let world = World::new();
    let (one, other) = (Tenant::new("one"), Tenant::new("other"));
    assert_eq!(world.judge(&one.token(), NOW), Err(TokenError::Unavailable));
    assert_eq!(world.judge(&one.token(), NOW), Err(TokenError::Unavailable));
    assert_eq!(*world.asked.lock().unwrap(), [one.url()], "once");
    world.fetch(&[&one, &other], NOW);
    assert_eq!(world.judge(&one.token(), NOW).unwrap().user, "7");
    assert_eq!(world.asked(), [""; 0], "it is known");

    assert_eq!(
        world.judge(&other.token(), NOW),
        Err(TokenError::Unavailable)
    );
    world.fetch(&[&one, &other], NOW);
    assert!(world.judge(&other.token(), NOW).is_ok());
    // Another tenant's key is no good, whatever it calls itself.
    let claims = json!({"sub": "7", "iss": issuer("one")});
    let forged = Err(InvalidToken::Signature.into());
    assert_eq!(world.judge(&other.sign(&claims), NOW), forged);
    // Sets get old one by one.
    let later = NOW + MAX_AGE;
    assert!(world.judge(&one.token(), later).is_ok());
    assert_eq!(world.asked(), [one.url()]);
}

#[test]
fn for_what_can_not_be_filled_in_nothing_is_fetched() {
    let world = World::new();
    let tenant = Tenant::new("x");
    for name in [
        "..",
        ".",
        "a?b",
        "a#b",
        "a%2fb",
        "a b",
        "a\r\nHost: evil",
        "caf\u{e9}",
        "a@b",
    ] {
        let token = tenant.sign(&json!({"iss": issuer(name)}));
        let judged = world.judge(&token, NOW);
        assert_eq!(judged, Err(InvalidToken::KeySet.into()), "{name}");
    }
    for claims in [
        json!({}),
        json!({"iss": "https://evil.example/x"}),
        json!({"iss": "https://id.example.com/a/b"}),
    ] {
        let judged = world.judge(&tenant.sign(&claims), NOW);
        assert_eq!(judged, Err(InvalidToken::Issuer.into()), "{claims}");
    }
    for claims in [json!({"iss": 1}), json!([issuer("x")]), json!("x")] {
        let judged = world.judge(&tenant.sign(&claims), NOW);
        let is_about_claims = matches!(judged, Err(TokenError::Invalid(InvalidToken::Claims(_))));
        assert!(is_about_claims, "{claims}: {judged:?}");
    }
    // A token that names no key.
    let token = tenant.token();
    let (_, rest) = token.split_once('.').unwrap();
    let unnamed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#));
    assert_eq!(
        world.judge(&unnamed, NOW),
        Err(InvalidToken::NoKeyId.into())
    );
    assert_eq!((world.asked().len(), world.family.len()), (0, 0));
}

#[test]
fn made_up_tenants_take_bounded_room_and_push_out_nobody() {
    let world = World::new();
    let tenant = Tenant::new("real");
    let _ = world.judge(&tenant.token(), NOW);
    world.fetch(&[&tenant], NOW);
    assert!(world.judge(&tenant.token(), NOW).is_ok());
    let stranger = Tenant::new("stranger");
    let mut asked = 0;
    for number in 0..20 * MAX_KEY_SETS {
        let now = NOW + Duration::from_millis(number as u64);
        let token = stranger.sign(&json!({"iss": issuer(&format!("t{number}"))}));
        assert_eq!(world.judge(&token, now), Err(TokenError::Unavailable));
        assert!(world.family.len() <= MAX_KEY_SETS);
        assert!(world.asked.lock().unwrap().len() <= MAX_AWAITED_KEY_SETS);
        if number % 500 == 0 {
            asked += world.fetch(&[&tenant], now);
        }
    }
    assert!(asked > MAX_KEY_SETS, "{asked}: the room was needed");
    // Each of them is one that was asked for, or one for which there was no room.
    assert!(world.family.refused() > 0 && world.family.pushed_out() > 0);
    let (refused, waiting) = (world.family.refused(), world.asked.lock().unwrap().len());
    assert_eq!(refused as usize + asked + waiting, 20 * MAX_KEY_SETS);
    let later = NOW + Duration::from_secs(30);
    assert!(world.judge(&tenant.token(), later).is_ok());
    assert!(world.family.set(&tenant.url()).is_some());
    // Whoever is real gets in once the made up ones have been looked for.
    world.fetch(&[], later);
    let new = Tenant::new("new");
    assert_eq!(
        world.judge(&new.token(), later),
        Err(TokenError::Unavailable)
    );
    world.fetch(&[&new], later);
    assert!(world.judge(&new.token(), later).is_ok());
}

#[test]
fn of_real_tenants_the_one_that_was_not_used_for_longest_goes() {
    let world = World::new();
    let tenants: Vec<Tenant> = (0..=MAX_KEY_SETS)
        .map(|number| Tenant::new(&format!("t{number}")))
        .collect();
    let all: Vec<&Tenant> = tenants.iter().collect();
    for (number, tenant) in (0..).zip(&tenants[..MAX_KEY_SETS]) {
        let now = NOW + Duration::from_secs(number);
        let _ = world.judge(&tenant.token(), now);
        world.fetch(&all, now);
        // One is there, and its keys were good for nothing so far.
        assert!(world.judge(&tenant.token(), now).is_ok());
    }
    let now = NOW + Duration::from_secs(2000);
    assert!(world.judge(&tenants[0].token(), now).is_ok());
    let _ = world.judge(&tenants[MAX_KEY_SETS].token(), now);
    assert_eq!(world.family.len(), MAX_KEY_SETS);
    assert!(
        world.family.set(&tenants[0].url()).is_some(),
        "used just now"
    );
    assert!(world.family.set(&tenants[1].url()).is_none());
    assert_eq!((world.family.pushed_out(), world.family.refused()), (1, 0));
}

#[test]
fn a_set_that_was_only_named_goes_before_those_that_were_of_use() {
    let world = World::new();
    let tenants: Vec<Tenant> = (0..MAX_KEY_SETS)
        .map(|number| Tenant::new(&format!("t{number}")))
        .collect();
    let all: Vec<&Tenant> = tenants.iter().collect();
    let (named, used) = all.split_last().unwrap();
    for tenant in used {
        let _ = world.judge(&tenant.token(), NOW);
        world.fetch(&all, NOW);
        assert!(world.judge(&tenant.token(), NOW).is_ok());
    }
    // Somebody else signs in its name, again and again.
    let claims = json!({"iss": issuer(&named.name)});
    let forged = Tenant::new("forger").sign(&claims);
    let now = NOW + Duration::from_secs(1000);
    let _ = world.judge(&forged, now);
    world.fetch(&all, now);
    assert_eq!(
        world.judge(&forged, now),
        Err(InvalidToken::Signature.into())
    );
    let _ = world.judge(&Tenant::new("new").token(), now);
    assert!(world.family.set(&named.url()).is_none());
    for tenant in used {
        assert!(world.family.set(&tenant.url()).is_some(), "{}", tenant.name);
    }
}

#[test]
fn a_set_that_nobody_names_for_a_day_is_forgotten() {
    let world = World::new();
    let (one, other) = (Tenant::new("one"), Tenant::new("other"));
    let _ = world.judge(&one.token(), NOW);
    world.fetch(&[&one], NOW);
    let day = Duration::from_secs(24 * 60 * 60);
    let _ = world.judge(&other.token(), NOW + day);
    assert_eq!(world.family.len(), 2);
    world.fetch(&[&other], NOW + day);
    let third = Tenant::new("third");
    let _ = world.judge(&third.token(), NOW + day + Duration::from_secs(1));
    assert!(world.family.set(&one.url()).is_none());
    assert_eq!(world.family.len(), 2);
}

#[test]
fn audiences_say_it_as_well() {
    let url = "https://{{app}}.id.example.com/{{tenant}}/keys";
    let world = World::with(url, Some(ISSUER), Some("^app:(?<app>[a-z]+)$"));
    let tenant = Tenant::new("one");
    let aud = json!(["account", "app:shop", "app:other"]);
    let token = tenant.sign(&json!({"sub": "7", "iss": issuer("one"), "aud": aud}));
    assert_eq!(world.judge(&token, NOW), Err(TokenError::Unavailable));
    let url = "https://shop.id.example.com/one/keys";
    assert_eq!(world.asked(), [url]);
    world.family.set(url).unwrap().replace(tenant.set(), NOW);
    assert!(world.judge(&token, NOW).is_ok());
    let token = tenant.sign(&json!({"iss": issuer("one"), "aud": "account"}));
    assert_eq!(world.judge(&token, NOW), Err(InvalidToken::Audience.into()));
}

#[test]
fn each_name_needs_one_group() {
    let make = |issuer: &str, audience: &str| {
        let pattern = |text| Some(Pattern::new(text).unwrap());
        let template = UrlTemplate::parse("https://id.example.com/{{tenant}}/keys").unwrap();
        let (issuer, audience) = (pattern(issuer), pattern(audience));
        let ask = Arc::new(|_: &str| ());
        RemoteKeyFamily::new(template, issuer, audience, PAUSE, MAX_AGE, ask).err()
    };
    let name = || "tenant".to_owned();
    assert_eq!(make("(?<tenant>a)", "b"), None);
    assert_eq!(make("a", "(?P<tenant>b)"), None);
    assert_eq!(
        make("(?<t>a)", "(b)"),
        Some(UrlTemplateError::Unknown(name()))
    );
    let both = make("(?<tenant>a)", "(?<tenant>b)");
    assert_eq!(both, Some(UrlTemplateError::Ambiguous(name())));
}
