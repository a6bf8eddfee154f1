//! The tables of keys: those of connection tokens, and those of subscription tokens where they are others.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use tautline_auth::{KeyError, Pattern, PublicKey, Secret, Verifier, VerifierConfig};
use tautline_hub::config::duration;
use toml::Spanned;
use toml::de::DeValue;

use super::file::Unusable;
use crate::keys::KeySource;

/// `[client.token]`: keys that tokens are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenOptions {
    /// Secret of HS256, HS384 and HS512. Without any key, every token is invalid.
    pub hmac_secret_key: Option<Secret>,
    /// The secret before the last change, so that tokens made with it still work.
    pub hmac_previous_secret_key: Option<Secret>,
    /// Unix time in seconds from which on the previous secret doesn't count any more. Default:
    /// none.
    pub hmac_previous_secret_key_valid_until: Option<u64>,
    /// Public key of RS256, RS384, RS512, PS256, PS384 and PS512, in PEM.
    pub rsa_public_key: Option<String>,
    /// The RSA key before the last change, so that tokens signed with it still work.
    pub rsa_previous_public_key: Option<String>,
    /// Public key of ES256 (curve P-256), ES384 (P-384) or ES512 (P-521), in PEM.
    pub ecdsa_public_key: Option<String>,
    /// The ECDSA key before the last change; it may be of another curve.
    pub ecdsa_previous_public_key: Option<String>,
    /// Public key of EdDSA (Ed25519), in PEM.
    pub eddsa_public_key: Option<String>,
    /// The EdDSA key before the last change.
    pub eddsa_previous_public_key: Option<String>,
    /// Where an identity provider publishes its keys, as a JWK Set: a URL such as
    /// `https://id.example.com/.well-known/jwks.json`. Tokens say by `kid` which of them they were
    /// signed with. Fetched at the start, each hour, and when a token names a key that isn't known. Each
    /// `{{name}}` in it stands for what the named group `(?<name>...)` of `issuer_regex` or `audience_regex` finds:
    /// so each tenant of a provider can have a set of its own, which is fetched when the first token needs it.
    pub jwks_public_endpoint: Option<String>,
    /// By how much clocks may disagree: tokens are believed for so much longer, and so much earlier.
    /// At most 5m. Default: 0s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leeway: Duration,
    /// If set, tokens must have it as `aud`.
    pub audience: Option<String>,
    /// If set, it must be found in `aud`: a regular expression such as `^app-[0-9]+$`. Not beside
    /// `audience`.
    pub audience_regex: Option<Pattern>,
    /// If set, tokens must have it as `iss`.
    pub issuer: Option<String>,
    /// If set, it must be found in `iss`: a regular expression. Not beside `issuer`.
    pub issuer_regex: Option<Pattern>,
    /// The claim that has the user id: letters and `_`. Default: `sub`.
    pub user_id_claim: Option<String>,
}

/// The table of connection tokens, and of subscription tokens that have none of their own.
pub(super) const CONNECTION: &str = "client.token";
/// The table of subscription tokens.
pub(super) const SUBSCRIPTION: &str = "client.subscription_token";

/// Reads the table of subscription tokens: whether it counts, and what is in the other one, too.
pub(super) fn subscription_table(
    value: &mut Spanned<DeValue<'_>>,
) -> Result<Option<TokenOptions>, toml::de::Error> {
    let enabled = match value.get_mut() {
        DeValue::Table(table) => table.remove("enabled"),
        _ => None,
    };
    let enabled = enabled.map(|enabled| bool::deserialize(enabled.into_deserializer()));
    let options = TokenOptions::deserialize(value.clone().into_deserializer())?;
    Ok(enabled.transpose()?.unwrap_or(false).then_some(options))
}

/// What believes the tokens of a table. Key sets that it needs are added to `keys`.
pub(super) fn verifier(
    table: &str,
    token: &TokenOptions,
    skip_signature: bool,
    keys: &mut Vec<KeySource>,
    warnings: &mut Vec<String>,
) -> Result<Verifier, Unusable> {
    let option = |name: &str| format!("{table}.{name}");
    let unusable = |name: &str, problem: String| Unusable::new(&option(name), problem);
    check(token, &unusable)?;
    let valid_until = token.hmac_previous_secret_key_valid_until;
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: token.hmac_secret_key.clone(),
        hmac_previous_secret: token.hmac_previous_secret_key.clone(),
        hmac_previous_secret_valid_until: valid_until.map(Duration::from_secs),
        public_keys: public_keys(token, &unusable)?,
        leeway: token.leeway,
        audience: token.audience.clone(),
        audience_regex: token.audience_regex.clone(),
        issuer: token.issuer.clone(),
        issuer_regex: token.issuer_regex.clone(),
        user_id_claim: token.user_id_claim.clone(),
        skip_signature,
    })
    .map_err(|error| {
        let current_is_fine = token
            .hmac_secret_key
            .as_ref()
            .is_some_and(|key| !key.is_empty());
        let name = if current_is_fine || error == KeyError::PreviousWithoutCurrent {
            "hmac_previous_secret_key"
        } else {
            "hmac_secret_key"
        };
        unusable(name, error.to_string())
    })?;
    let Some(url) = token.jwks_public_endpoint.as_deref() else {
        return Ok(verifier);
    };
    let name = "jwks_public_endpoint";
    let (issuer, audience) = (token.issuer_regex.as_ref(), token.audience_regex.as_ref());
    let source =
        KeySource::new(url, issuer, audience).map_err(|error| unusable(name, error.to_string()))?;
    if source.is_open_to_forgery() {
        warnings.push(format!(
            "{} is fetched over http://: whoever is on the way can put keys of his own in their place; \
             use https://",
            option(name)
        ));
    }
    let verifier = source.give_to(verifier);
    keys.push(source);
    Ok(verifier)
}

/// What can be said of single options, and of those that are beside each other. `unusable` names the table.
fn check(
    token: &TokenOptions,
    unusable: &impl Fn(&str, String) -> Unusable,
) -> Result<(), Unusable> {
    if token.leeway > MAX_LEEWAY {
        let problem = "is more than 5m: clocks that far apart should be put right";
        return Err(unusable("leeway", problem.into()));
    }
    for (one, other, is_both) in [
        (
            "audience",
            "audience_regex",
            token.audience.is_some() && token.audience_regex.is_some(),
        ),
        (
            "issuer",
            "issuer_regex",
            token.issuer.is_some() && token.issuer_regex.is_some(),
        ),
    ] {
        if is_both {
            return Err(unusable(
                other,
                format!("can't be set beside {one}: leave one of them out"),
            ));
        }
    }
    if let Some(claim) = &token.user_id_claim {
        let allowed = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        if claim.is_empty() || !claim.bytes().all(allowed) {
            let problem = format!("`{claim}` must be one or more letters or `_`");
            return Err(unusable("user_id_claim", problem));
        }
    }
    Ok(())
}

/// The public keys of a table: of each kind the current one, and the one before it.
fn public_keys(
    token: &TokenOptions,
    unusable: &impl Fn(&str, String) -> Unusable,
) -> Result<Vec<PublicKey>, Unusable> {
    let pairs = [
        (
            ("rsa_public_key", &token.rsa_public_key),
            ("rsa_previous_public_key", &token.rsa_previous_public_key),
            "RS256",
        ),
        (
            ("ecdsa_public_key", &token.ecdsa_public_key),
            (
                "ecdsa_previous_public_key",
                &token.ecdsa_previous_public_key,
            ),
            "ES",
        ),
        (
            ("eddsa_public_key", &token.eddsa_public_key),
            (
                "eddsa_previous_public_key",
                &token.eddsa_previous_public_key,
            ),
            "EdDSA",
        ),
    ];
    for ((name, current), (previous_name, previous), _) in pairs {
        if current.is_none() && previous.is_some() {
            return Err(unusable(
                previous_name,
                format!("needs {name}, the current one"),
            ));
        }
    }
    let public_keys = pairs.map(|(current, previous, algorithm)| {
        [current, previous].map(|(name, pem)| (name, pem, algorithm))
    });
    let public_keys = public_keys
        .into_iter()
        .flatten()
        .filter_map(|(name, pem, algorithm)| Some((name, pem.as_deref()?, algorithm)))
        .map(|(name, pem, algorithm)| {
            let key =
                PublicKey::from_pem(pem).map_err(|error| unusable(name, error.to_string()))?;
            if key.algorithms().any(|name| name.starts_with(algorithm)) {
                return Ok(key);
            }
            let found: Vec<_> = key.algorithms().collect();
            let problem = format!(
                "is a key of {}; it belongs into another option",
                found.join(", ")
            );
            Err(unusable(name, problem))
        });
    public_keys.collect()
}

/// More is no disagreement of clocks.
const MAX_LEEWAY: Duration = Duration::from_secs(5 * 60);
