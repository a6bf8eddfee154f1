//! Makes tokens: for the command line and for development.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{KeyError, SignError};
use crate::secret::Secret;

/// Signs tokens with HS256.
pub struct Signer {
    key: hmac::Key,
}

/// The claims of a token that is to be made. What is `None` is left out of it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct TokenClaims<'a> {
    /// User id; empty for an anonymous user.
    #[serde(rename = "sub")]
    pub user: &'a str,
    /// End of the token's validity, in Unix seconds (`exp`).
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was made, in Unix seconds (`iat`).
    #[serde(rename = "iat", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// What the token is known by where it is revoked (`jti`).
    #[serde(rename = "jti", skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The channel; its presence makes this a subscription token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// What others are shown about the connection, or about the subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
    /// Who made the token (`iss`).
    #[serde(rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    /// Whom it is for (`aud`).
    #[serde(rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<&'a str>,
}

impl Signer {
    /// A signer with a shared secret.
    ///
    /// # Errors
    ///
    /// [`KeyError::EmptySecret`].
    pub fn hs256(secret: &Secret) -> Result<Self, KeyError> {
        if secret.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Ok(Self { key })
    }

    /// Makes a token: three parts of base64url, joined by dots (RFC 7515 §7.1).
    ///
    /// # Errors
    ///
    /// Only if the claims can't be written as JSON.
    pub fn sign(&self, claims: &TokenClaims<'_>) -> Result<String, SignError> {
        let claims = serde_json::to_vec(claims).map_err(|error| SignError(error.to_string()))?;
        let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(HS256)")
    }
}
